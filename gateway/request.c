#include "gateway/request.h"

/* Turns and parts: a body of many tiny parts costs at most some hundred bytes each; JSON_NODES
 * bounds their number. */
#define REQUEST_ARENA_BYTES (64u << 20)

struct gw_request *gw_request_new(void)
{
    struct gw_request *r = xcalloc(1, sizeof *r);
    r->a = arena_new(REQUEST_ARENA_BYTES);
    r->n = 1;
    r->sampling = (struct gw_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    return r;
}

void gw_request_free(struct gw_request *r)
{
    if (!r)
        return;
    json_doc_free(r->doc);
    arena_free(r->a);
    free(r);
}

bool gw_file_id_ok(slice id)
{
    uint8_t raw[16];
    if (id.n != FILE_ID_CHARS || !slice_starts(id, SLICE_LIT("file-")))
        return false;
    return hex_decode((slice){id.p + 5, id.n - 5}, raw, sizeof raw) == 0;
}
