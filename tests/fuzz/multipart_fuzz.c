/* Any bytes as a form, cut anywhere: bounded, no crash, and the same parts however it was cut. */
#include <stddef.h>
#include <stdint.h>

#include "gateway/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_part(void *ctx, slice name, slice filename, bool is_file, struct why *w UNUSED)
{
    buf *log = ctx;
    buf_put_byte(log, is_file ? 'F' : 'P');
    buf_put(log, name.p, name.n);
    buf_put_byte(log, 0);
    buf_put(log, filename.p, filename.n);
    buf_put_byte(log, 0);
    return 0;
}

static int on_data(void *ctx, slice bytes, struct why *w UNUSED)
{
    buf_put_slice(ctx, bytes);
    return 0;
}

static int on_end(void *ctx, struct why *w UNUSED)
{
    buf_put_byte(ctx, 1);
    return 0;
}

static int parse(slice text, size_t step, buf *log)
{
    static const struct multipart_ops OPS = {on_part, on_data, on_end};
    struct multipart m;
    struct why w;
    int e = multipart_init(&m, SLICE_LIT("multipart/form-data; boundary=X"), &OPS, log, &w);
    CHECK(e == 0);
    for (size_t at = 0; e == 0 && at < text.n; at += step) {
        e = multipart_feed(&m, (slice){text.p + at, text.n - at < step ? text.n - at : step}, &w);
        CHECK(m.hold.n <= PART_HEADERS_BYTES_MAX + step + BOUNDARY_BYTES_MAX + 8);
    }
    if (e == 0)
        e = multipart_end(&m, &w);
    multipart_clear(&m);
    return e;
}

static void any_content_type(slice text)
{
    static const struct multipart_ops OPS = {on_part, on_data, on_end};
    struct multipart m;
    struct why w = {.text = ""};
    buf type = {0};
    buf_put_str(&type, "multipart/form-data;");
    if (text.n)
        buf_put_slice(&type, text);
    int e = multipart_init(&m, buf_slice(&type), &OPS, NULL, &w);
    CHECK(e == 0 ? m.delim_len <= sizeof m.delim : w.text[0] != 0);
    multipart_clear(&m);
    buf_clear(&type);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    slice text = {(const char *)data + 1, size - 1};
    buf whole = {0}, pieces = {0};
    int a = parse(text, size, &whole), b = parse(text, 1 + data[0] % 16, &pieces);
    CHECK(a == b && (a < 0 || slice_eq(buf_slice(&whole), buf_slice(&pieces))));
    any_content_type(text);
    buf_clear(&whole);
    buf_clear(&pieces);
    return 0;
}
