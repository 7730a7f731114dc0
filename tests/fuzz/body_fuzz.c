/* Any bytes as the body of a question: refused with a sentence, or a request within all limits. */
#include <stddef.h>
#include <stdint.h>

#include "gateway/base64.h"
#include "gateway/openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const struct gw_part *p)
{
    size_t len;
    CHECK(p->kind != GW_VIDEO_FILE || gw_file_id_ok(p->text));
    CHECK(p->kind != GW_VIDEO_DATA || (base64_check(p->text, &len) == 0 && len > 0));
    CHECK(utf8_valid(p->text) && utf8_valid(p->name));
}

static void check_request(const struct gw_request *r)
{
    const struct gw_sampling *s = &r->sampling;
    CHECK(r->model.n >= 1 && r->model.n <= NAME_BYTES_MAX && utf8_valid(r->model));
    CHECK(r->n >= 1 && r->n <= CHOICES_MAX && r->n_stop <= STOPS_MAX &&
          r->max_tokens <= MAX_TOKENS_MAX);
    CHECK(s->temperature >= 0 && s->temperature <= 2 && s->top_p >= 0 && s->top_p <= 1 &&
          s->min_p >= 0 && s->min_p <= 1);
    CHECK(s->top_logprobs <= TOP_LOGPROBS_MAX && s->n_bias <= BIAS_MAX && s->top_k <= TOP_K_MAX);
    for (size_t i = 0; i < r->n_stop; i++)
        CHECK(r->stop[i].n >= 1 && r->stop[i].n <= STOP_BYTES_MAX);
    for (size_t i = 0; i < s->n_bias; i++)
        CHECK(s->bias[i].id >= 0 && s->bias[i].add >= -100 && s->bias[i].add <= 100);
    CHECK(r->n_turns <= MESSAGES_MAX && (!r->chat || r->n_turns >= 1));
    for (size_t i = 0; i < r->n_turns; i++)
        for (size_t k = 0; k < r->turns[i].n_parts; k++)
            check_part(&r->turns[i].parts[k]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_request *r = NULL;
    struct why w = {.text = ""};
    if (size == 0)
        return 0;
    enum openai_api api = data[0] & 1 ? OPENAI_CHAT : OPENAI_COMPLETION;
    int e = openai_parse(api, (slice){(const char *)data + 1, size - 1}, &r, &w);
    CHECK(e <= 0 && (e == 0) == (r != NULL));
    if (r)
        check_request(r);
    else
        CHECK(w.text[0] && utf8_valid(slice_str(w.text)) && err_http(e) < 500);
    gw_request_free(r);
    return 0;
}
