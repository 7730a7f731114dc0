#include "engine/model/name.h"

static slice file_part(slice path)
{
    for (size_t i = path.n; i > 0; i--)
        if (path.p[i - 1] == '/')
            return (slice){path.p + i, path.n - i};
    return path;
}

static bool is_sep(char c)
{
    return c == '.' || c == '-' || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* q4_1, q4_k_m, q8_0, iq2_xxs, tq1_0: a q, a digit, then parts of letters and digits. */
static bool is_quant(slice s)
{
    static const char *const whole[] = {"f16",   "f32",   "bf16", "fp16", "fp32",
                                        "mxfp4", "nvfp4", "gguf", "ud"};
    for (size_t i = 0; i < ARRAY_LEN(whole); i++)
        if (slice_eq_str(s, whole[i]))
            return true;
    size_t q = s.n > 0 && (s.p[0] == 'i' || s.p[0] == 't') ? 1 : 0;
    if (s.n < q + 2 || s.n > 12 || s.p[q] != 'q' || !is_digit(s.p[q + 1]))
        return false;
    return s.n == q + 2 || s.p[q + 2] == '_' || is_digit(s.p[q + 2]);
}

/* "-00001-of-00003" */
static size_t without_shard(slice s)
{
    if (s.n < 15)
        return s.n;
    const char *t = s.p + s.n - 15;
    for (int i = 0; i < 15; i++)
        if (!(i == 0 || i == 6 || i == 9 ? t[i] == '-'
              : i == 7                   ? t[i] == 'o'
              : i == 8                   ? t[i] == 'f'
                                         : is_digit(t[i])))
            return s.n;
    return s.n - 15;
}

static size_t without_quant(slice s)
{
    for (size_t i = s.n; i > 1; i--)
        if (is_sep(s.p[i - 1]) && is_quant((slice){s.p + i, s.n - i}))
            return i - 1;
    return s.n;
}

void model_default_name(slice path, buf *out)
{
    slice stem = file_part(path);
    buf_reset(out);
    for (size_t i = 0; i < stem.n; i++) {
        char c = stem.p[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        buf_put_byte(out,
                     (unsigned char)((c >= 'a' && c <= 'z') || is_digit(c) || is_sep(c) ? c : '-'));
    }
    if (out->n >= 5 && memcmp(out->p + out->n - 5, ".gguf", 5) == 0)
        out->n -= 5;
    out->n = without_shard(buf_slice(out));
    for (size_t before = out->n + 1; out->n < before;) {
        before = out->n;
        out->n = without_quant(buf_slice(out));
    }
    if (out->n > MODEL_NAME_MAX)
        out->n = MODEL_NAME_MAX;
    if (out->n == 0)
        buf_put_str(out, "model");
}
