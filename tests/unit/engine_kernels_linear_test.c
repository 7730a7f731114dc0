#include "tests/unit/engine_testing.h"

/* Every format, on every instruction set: near the product in double precision of the dequantised weights, and the same
 * bits for every tile height, number of rows and cut of the panels. */

static const enum weight_type TYPES[] = {WEIGHT_F32,  WEIGHT_F16,  WEIGHT_BF16, WEIGHT_Q4_0, WEIGHT_Q4_1, WEIGHT_Q5_0,
                                         WEIGHT_Q5_1, WEIGHT_Q8_0, WEIGHT_Q4_K, WEIGHT_Q5_K, WEIGHT_Q6_K};

struct fixture {
    const struct format *f;
    struct weight w;
    struct packed p;
    uint8_t *data;
    uint32_t n_rows;
    float *x, *bias;
    size_t stride;
};

static void make(struct fixture *t, enum weight_type type, uint32_t n_out, uint32_t n_in, uint32_t n_rows)
{
    struct rng r = {type + 77};
    *t = (struct fixture){.f = format_of(type), .n_rows = n_rows};
    t->w = (struct weight){.type = type, .n_out = n_out, .n_in = n_in, .multiplied = true};
    t->w.data = random_weight(&r, t->f, n_out, n_in);
    size_t bytes;
    assert_int_equal(packed_plan(&t->w, &t->p, &bytes, NULL), 0);
    t->data = aligned_floats(bytes / 4);
    packed_write(&t->p, &t->w, t->data, 0, t->p.n_panels);
    t->p.data = t->data;
    t->stride = (size_t)t->p.n_panels * PANEL_ROWS;
    t->x = aligned_floats((size_t)n_rows * n_in);
    rng_floats(&r, t->x, (size_t)n_rows * n_in, 3);
    t->bias = aligned_floats(t->stride);
    rng_floats(&r, t->bias, n_out, 1);
}

static void clear(struct fixture *t)
{
    free((void *)(uintptr_t)t->w.data);
    free(t->data);
    free(t->x);
    free(t->bias);
}

/* Rows first .. first+n-1 with tiles of `height`. */
static void multiply(const struct kernels *k, const struct fixture *t, uint32_t height, uint32_t first, uint32_t n, float *out)
{
    size_t blocks = t->w.n_in / PANEL_K;
    struct act_block *x = aligned_floats(height * (blocks + 1) * sizeof *x / 4);
    for (uint32_t at = 0; at < n; at += height) {
        uint32_t rows = n - at < height ? n - at : height;
        for (uint32_t r = 0; r < rows && t->f->bits; r++)
            k->quantise(t->x + (size_t)(first + at + r) * t->w.n_in, t->w.n_in, x + r, height);
        struct linear_tile tile = {.w = &t->p, .height = height, .n_rows = rows, .x = x, .bias = t->bias,
                                   .xf = t->x + (size_t)(first + at) * t->w.n_in, .xf_stride = t->w.n_in,
                                   .out = out + at * t->stride, .out_stride = t->stride};
        for (uint32_t p = 0; p < t->p.n_panels; p += tile.n_panels) { /* uneven cuts */
            tile.first_panel = p;
            tile.n_panels = t->p.n_panels - p < 3 ? t->p.n_panels - p : 3 + p % 3;
            if (p + tile.n_panels > t->p.n_panels)
                tile.n_panels = t->p.n_panels - p;
            k->linear(&tile);
        }
    }
    free(x);
}

/* What the integers stand for, in double precision; also the sum of magnitudes, for a bound on rounding. */
static double exact(const struct kernels *k, const struct fixture *t, const float *wrow, uint32_t row, double *magnitude)
{
    double sum = 0;
    struct act_block b;
    *magnitude = 0;
    for (uint32_t i = 0; i < t->w.n_in; i++) {
        const float *x = t->x + (size_t)row * t->w.n_in;
        double v = x[i];
        if (t->f->bits) {
            if (i % PANEL_K == 0)
                k->quantise(x + i, PANEL_K, &b, 1);
            v = (double)b.d * b.q[i % PANEL_K];
            assert_true(fabs(v - x[i]) <= (double)b.d * 0.5001);
        }
        sum += v * (double)wrow[i];
        *magnitude += fabs(v * (double)wrow[i]);
    }
    return sum;
}

static void near_the_product(enum weight_type type, uint32_t n_out, uint32_t n_in)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct fixture t;
    make(&t, type, n_out, n_in, 2);
    float *out = aligned_floats(2 * t.stride), *wrow = aligned_floats(n_in);
    for (size_t i = 0; i < n_k; i++) {
        multiply(k[i], &t, k[i]->heights[0], 0, 2, out);
        for (uint32_t o = 0; o < n_out; o++) {
            format_row(t.f, (const uint8_t *)t.w.data + o * format_row_bytes(t.f, n_in), n_in, wrow);
            for (uint32_t r = 0; r < 2; r++) {
                double magnitude, want = exact(k[i], &t, wrow, r, &magnitude) + (double)t.bias[o];
                double got = (double)out[r * t.stride + o];
                if (!(fabs(got - want) <= magnitude * 3e-5 + 1e-6)) {
                    print_error("%s %s: row %u output %u is %.9g, not %.9g\n", k[i]->name, t.f->name, r, o, got, want);
                    fail();
                }
            }
        }
    }
    free(out);
    free(wrow);
    clear(&t);
}

static void every_format_is_near_the_exact_product(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        const struct format *f = format_of(TYPES[i]);
        near_the_product(TYPES[i], 16, f->block == 256 ? 256 : 32);
        near_the_product(TYPES[i], 16 * 5 + 3, f->block == 256 ? 768 : 96); /* a panel that is not full */
        near_the_product(TYPES[i], 1, 512);
    }
    near_the_product(WEIGHT_F16, 33, 7); /* float rows need be no multiple of anything */
}

/* Scale and minimum of 16 elements of a block, as the kernels round them; the file's own layout. */
static void scalar_scale(const struct format *f, const uint8_t *b, uint32_t i, float *d, float *m)
{
    uint16_t h[2];
    memcpy(h, f->scales == PACK_K6 ? b + 208 : b, 4 - 2 * (f->scales == PACK_K6));
    *d = half_to_float(h[0]);
    *m = f->scales == PACK_DM ? half_to_float(h[1]) : 0;
    if (f->scales == PACK_K6)
        *d *= (float)(int8_t)b[192 + i / 16];
    if (f->scales == PACK_K) {
        const uint8_t *s = b + 4;
        uint32_t j = i / 32;
        int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
        *d *= (float)sc;
        *m = 0 - half_to_float(h[1]) * (float)mn;
    }
}

/* The definition: one output, from the file's bytes, in plain C. */
static float scalar_product(const struct fixture *t, const uint8_t *wrow, const float *x, const struct act_block *a)
{
    const struct format *f = t->f;
    const uint32_t step = f->scales == PACK_K6 ? 16 : PANEL_K;
    float acc = 0, d, m, w;
    uint8_t q[256];
    for (uint32_t k = 0; k < t->w.n_in && !f->bits; k++) {
        format_row(f, wrow + k * (size_t)f->block_bytes, 1, &w);
        acc = fmaf(w, x[k], acc);
    }
    for (uint32_t k = 0; k < t->w.n_in && f->bits; k += step) {
        const uint8_t *b = wrow + k / f->block * f->block_bytes;
        const struct act_block *xb = a + k / PANEL_K;
        int32_t dot = 0, sum = 0;
        if (k % f->block == 0)
            f->quants(b, q);
        for (uint32_t i = 0; i < step; i++) {
            dot += ((int)q[k % f->block + i] - (int)f->offset) * xb->q[k % PANEL_K + i];
            sum += xb->q[k % PANEL_K + i];
        }
        scalar_scale(f, b, k % f->block, &d, &m);
        acc = fmaf((float)dot, d * xb->d, acc);
        if (f->scales == PACK_DM || f->scales == PACK_K)
            acc = fmaf(m, xb->d * (float)sum, acc);
    }
    return acc;
}

static void every_format_is_the_scalar_definition(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        struct fixture t;
        make(&t, TYPES[i], 16 * 2 + 3, 512, 16);
        float *got = aligned_floats(16 * t.stride);
        struct act_block a[512 / PANEL_K];
        for (size_t s = 0; s < n_k; s++) {
            multiply(k[s], &t, k[s]->heights[k[s]->n_heights - 1], 0, 16, got);
            for (uint32_t r = 0; r < 16; r++) {
                const float *x = t.x + (size_t)r * t.w.n_in;
                k[s]->quantise(x, t.w.n_in, a, 1);
                for (uint32_t o = 0; o < t.w.n_out; o++) {
                    const uint8_t *wrow = (const uint8_t *)t.w.data + o * format_row_bytes(t.f, t.w.n_in);
                    float want = scalar_product(&t, wrow, x, a) + t.bias[o];
                    char what[64];
                    snprintf(what, sizeof what, "%s %s row %u output %u", k[s]->name, t.f->name, r, o);
                    assert_same_bits(&got[r * t.stride + o], &want, 1, what);
                }
            }
        }
        free(got);
        clear(&t);
    }
}

static void rows_heights_and_sets_give_the_same_bits(void **state UNUSED)
{
    static const uint32_t ROWS[] = {1, 2, 3, 7, 16, 33};
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        struct fixture t;
        make(&t, TYPES[i], 16 * 4 + 5, 512, 33);
        float *want = aligned_floats(33 * t.stride), *got = aligned_floats(33 * t.stride);
        for (uint32_t r = 0; r < 33; r++)
            multiply(k[n_k - 1], &t, 1, r, 1, want + r * t.stride);
        for (size_t s = 0; s < n_k; s++)
            for (size_t h = 0; h < k[s]->n_heights; h++)
                for (size_t n = 0; n < ARRAY_LEN(ROWS); n++) {
                    memset(got, 0, 33 * t.stride * sizeof *got);
                    multiply(k[s], &t, k[s]->heights[h], 33 - ROWS[n], ROWS[n], got);
                    char what[64];
                    snprintf(what, sizeof what, "%s %s height %u rows %u", k[s]->name, t.f->name, k[s]->heights[h], ROWS[n]);
                    assert_same_bits(got, want + (33 - ROWS[n]) * t.stride, ROWS[n] * t.stride, what);
                }
        free(want);
        free(got);
        clear(&t);
    }
}

/* The largest products that any format can have: sums of 16 bits would overflow. */
static void extreme_integers_do_not_saturate(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    for (size_t i = 3; i < ARRAY_LEN(TYPES); i++) {
        const struct format *f = format_of(TYPES[i]);
        for (int sign = -1; sign <= 1; sign += 2) {
            struct fixture t;
            make(&t, TYPES[i], 16, 256, 1);
            uint8_t *w = (void *)(uintptr_t)t.w.data;
            for (size_t b = 0; b < 16 * format_row_bytes(f, 256); b += f->block_bytes) {
                memset(w + b, f->type == WEIGHT_Q8_0 ? 0x80 : 0xff, f->block_bytes); /* -128, or all bits */
                memcpy(w + b, &(uint16_t){0x3c00}, 2);
                if (f->scales == PACK_DM || f->scales == PACK_K)
                    memcpy(w + b + 2, &(uint16_t){0}, 2);
                if (f->type == WEIGHT_Q6_K)
                    memcpy(w + b + 208, &(uint16_t){0x3c00}, 2);
            }
            packed_write(&t.p, &t.w, t.data, 0, 1);
            for (uint32_t j = 0; j < 256; j++)
                t.x[j] = (float)sign * 127;
            float out[16], wrow[256];
            format_row(f, w, 256, wrow);
            double want = (double)t.bias[0];
            for (uint32_t j = 0; j < 256; j++)
                want += (double)sign * 127 * (double)wrow[j];
            for (size_t s = 0; s < n_k; s++) {
                multiply(k[s], &t, k[s]->heights[0], 0, 1, out);
                if (fabs((double)out[0] - want) > fabs(want) * 1e-5) {
                    print_error("%s %s: %.9g, not %.9g\n", k[s]->name, f->name, (double)out[0], want);
                    fail();
                }
            }
            clear(&t);
        }
    }
}

static void quantising_is_the_same_everywhere_and_keeps_nan(void **state UNUSED)
{
    const struct kernels *k[3];
    size_t n_k = all_kernels(k);
    struct rng r = {5};
    float x[32];
    struct act_block want, got;
    for (int round = 0; round < 2000; round++) {
        rng_floats(&r, x, 32, powf(10, (float)(round % 80) - 40));
        if (round % 9 == 0)
            memset(x, 0, sizeof x);
        if (round % 10 == 1) /* halfway between two integers */
            for (int i = 0; i < 32; i++)
                x[i] = i ? (float)(i - 16) + 0.5f : 127;
        k[n_k - 1]->quantise(x, 32, &want, 1);
        for (size_t s = 0; s < n_k; s++) {
            k[s]->quantise(x, 32, &got, 1);
            assert_memory_equal(&got, &want, sizeof got);
        }
    }
    x[7] = NAN;
    for (size_t s = 0; s < n_k; s++) {
        k[s]->quantise(x, 32, &got, 1);
        assert_true(isnan(got.d) && isnan(got.dsum));
        x[7] = INFINITY;
        k[s]->quantise(x, 32, &got, 1);
        assert_true(isnan(got.d));
    }
}

static void shapes_that_cannot_be_packed_are_refused(void **state UNUSED)
{
    struct packed p;
    size_t bytes;
    struct why why;
    struct weight w = {.type = WEIGHT_Q4_1, .n_out = 16, .n_in = 48};
    assert_int_equal(packed_plan(&w, &p, &bytes, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "Q4_1"));
    w = (struct weight){.type = WEIGHT_Q4_K, .n_out = 16, .n_in = 576};
    assert_int_equal(packed_plan(&w, &p, &bytes, &why), ERR_UNSUPPORTED);
    w = (struct weight){.type = WEIGHT_F32, .n_out = 0, .n_in = 32};
    assert_int_equal(packed_plan(&w, &p, &bytes, &why), ERR_UNSUPPORTED);
    w = (struct weight){.type = (enum weight_type)99, .n_out = 16, .n_in = 32};
    assert_int_equal(packed_plan(&w, &p, &bytes, &why), ERR_UNSUPPORTED);
}

static void an_unknown_instruction_set_is_refused(void **state UNUSED)
{
    const struct kernels *k = NULL;
    struct why why;
    assert_int_equal(kernels_choose("sse9", &k, &why), ERR_INVALID);
    assert_string_equal(why.field, "isa");
    assert_int_equal(kernels_choose("portable", &k, &why), 0);
    assert_string_equal(k->name, "portable");
    assert_int_equal(kernels_choose(NULL, &k, &why), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_near_the_exact_product),
        cmocka_unit_test(every_format_is_the_scalar_definition),
        cmocka_unit_test(rows_heights_and_sets_give_the_same_bits),
        cmocka_unit_test(extreme_integers_do_not_saturate),
        cmocka_unit_test(quantising_is_the_same_everywhere_and_keeps_nan),
        cmocka_unit_test(shapes_that_cannot_be_packed_are_refused),
        cmocka_unit_test(an_unknown_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
