/* What a decoder that was taken over could say to video-svc, and notes that come back damaged from
 * the store. */
#include <stdint.h>

#include "video-svc/notes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void on_record(void *ctx, const struct record *r)
{
    notes_record(ctx, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    slice in = {(const char *)data, n};
    records_reader *r = records_reader_new();
    notes *all = notes_new();
    size_t half = n / 2; /* records arrive in pieces */
    if (records_feed(r, (slice){in.p, half}, on_record, all, NULL) == 0 &&
        records_feed(r, (slice){in.p + half, n - half}, on_record, all, NULL) == 0 &&
        records_ended(r)) {
        buf packed = {0};
        struct digest content = {{0}};
        notes_pack(all, &content, SLICE_LIT("0123456789abcdef"), n, &packed);
        CHECK(packed.n <= NOTES_BYTES_MAX);
        buf_clear(&packed);
    }
    notes_free(all);
    records_reader_free(r);
    uint64_t duration;
    uint32_t scenes;
    (void)!notes_peek(in, &duration, &scenes);
    return 0;
}
