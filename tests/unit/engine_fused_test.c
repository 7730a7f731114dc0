/* The fused step on tiny models of random weights: whatever way rows take through it (each thread makes its own input,
 * or parts of rows are made first; blocks from floats, or written by the gate), the bits are the same, and near those of
 * the reference. And a step takes no memory. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdatomic.h>

#include "tests/unit/engine_gguf.h"

#define EMBD 64
#define FF 96 /* not a multiple of a thread's parts */
#define HEAD 16
#define VOCAB 48
#define BLOCKS 64
#define ROWS 48
#define TENSORS_MAX 64
#define Q8_0 8
#define Q8_0_BYTES 34

/* ---- counting what is allocated ----------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define COUNTED 1
static atomic_bool counting;
static atomic_int n_allocated;

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static void count(void)
{
    if (atomic_load(&counting))
        atomic_fetch_add(&n_allocated, 1);
}

void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    count();
    return __libc_realloc(p, n);
}
#endif

/* ---- models ------------------------------------------------------------------------------------------------------- */

struct kind {
    const char *family;
    uint32_t type; /* of matrices; vectors are floats */
};

static const struct kind KINDS[] = {{"llama", Q8_0}, {"gemma3", Q8_0}, {"llama", 0}, {"gemma3", 0}};

struct tiny {
    struct gguf_out file;
    uint64_t bytes[TENSORS_MAX]; /* of each tensor; 0 after the last */
    bool q8[TENSORS_MAX];
    size_t n;
    model_file *f;
};

static void number(struct tiny *t, const char *family, const char *name, uint32_t v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", family, name);
    meta_u32(&t->file, key, v);
}

static void describe(struct tiny *t, const char *family)
{
    char key[96];
    gguf_begin(&t->file);
    meta_str(&t->file, "general.architecture", family);
    meta_str(&t->file, "general.name", "tiny");
    number(t, family, "block_count", 2);
    number(t, family, "embedding_length", EMBD);
    number(t, family, "feed_forward_length", FF);
    number(t, family, "context_length", 256);
    number(t, family, "attention.head_count", 4);
    number(t, family, "attention.head_count_kv", 2);
    number(t, family, "attention.key_length", HEAD);
    number(t, family, "attention.value_length", HEAD);
    number(t, family, "attention.sliding_window", 64);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", family);
    meta_f32(&t->file, key, 1e-5f);
    snprintf(key, sizeof key, "%s.rope.freq_base", family);
    meta_f32(&t->file, key, 10000);
}

static void tensor(struct tiny *t, const char *name, uint32_t type, uint64_t n_out, uint64_t n_in)
{
    uint64_t bytes = type == Q8_0 ? n_out * n_in / 32 * Q8_0_BYTES : n_out * n_in * 4;
    out_tensor(&t->file, name, type, n_in, n_out, bytes);
    assert_true(t->n < TENSORS_MAX);
    t->q8[t->n] = type == Q8_0;
    t->bytes[t->n++] = bytes;
}

static void tensors(struct tiny *t, const struct kind *k)
{
    static const struct {
        const char *name;
        uint64_t n_out, n_in;
        bool gemma;
    } LAYER[] = {{"attn_norm", 1, EMBD, false},       {"attn_q", 4 * HEAD, EMBD, false},
                 {"attn_k", 2 * HEAD, EMBD, false},   {"attn_v", 2 * HEAD, EMBD, false},
                 {"attn_q_norm", 1, HEAD, true},      {"attn_k_norm", 1, HEAD, true},
                 {"attn_output", EMBD, 4 * HEAD, false}, {"post_attention_norm", 1, EMBD, true},
                 {"ffn_norm", 1, EMBD, false},        {"ffn_gate", FF, EMBD, false},
                 {"ffn_up", FF, EMBD, false},         {"ffn_down", EMBD, FF, false},
                 {"post_ffw_norm", 1, EMBD, true}};
    tensor(t, "token_embd.weight", k->type, VOCAB, EMBD);
    tensor(t, "output_norm.weight", 0, 1, EMBD);
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < ARRAY_LEN(LAYER); i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, LAYER[i].name);
            if (!LAYER[i].gemma || strcmp(k->family, "gemma3") == 0)
                tensor(t, name, LAYER[i].n_out == 1 ? 0 : k->type, LAYER[i].n_out, LAYER[i].n_in);
        }
}

static uint32_t bits(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Floats in [-0.4, 0.4), or any bytes behind scales of 0.003. */
static void fill(struct tiny *t)
{
    static const uint8_t SCALE[2] = {0x25, 0x1a};
    uint32_t state = 7;
    gguf_end(&t->file);
    char *p = t->file.b.p + t->file.b.n - t->file.data;
    for (size_t i = 0; i < t->n; p += (t->bytes[i++] + 31) / 32 * 32)
        for (uint64_t at = 0; at < t->bytes[i]; at += t->q8[i] ? 1 : 4) {
            float v = ((float)bits(&state) * 0x1p-23f - 1.0f) * 0.4f;
            if (!t->q8[i])
                memcpy(p + at, &v, sizeof v);
            else
                p[at] = at % Q8_0_BYTES < 2 ? (char)SCALE[at % Q8_0_BYTES] : (char)bits(&state);
        }
}

static void make(struct tiny *t, const struct kind *k)
{
    struct why w = {.text = ""};
    *t = (struct tiny){.n = 0};
    describe(t, k->family);
    tensors(t, k);
    fill(t);
    if (model_file_open_mem(t->file.b.p, t->file.b.n, &t->f, &w) < 0)
        fail_msg("%s", w.text);
}

static void drop(struct tiny *t)
{
    model_file_close(t->f);
    buf_clear(&t->file.b);
}

static engine *engine_of(const struct tiny *t, const char *backend, const char *isa, int threads)
{
    struct why w = {.text = ""};
    struct engine_config cfg = {.backend = backend, .isa = isa, .threads = threads, .kv_blocks = BLOCKS, .rows_max = ROWS};
    engine *e;
    int err = engine_open(t->f, &cfg, &e, &w);
    if (err < 0 && err != ERR_UNSUPPORTED)
        fail_msg("%s", w.text);
    return err < 0 ? NULL : e;
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

static void step(engine *e, const struct engine_row *rows, size_t n)
{
    static const uint32_t IDS[BLOCKS] = {7, 3, 9, 1, 0, 2, 4, 5};
    const struct engine_seq seq = {IDS, 8};
    struct why w = {.text = ""};
    struct engine_step s = {.seqs = &seq, .n_seqs = 1, .rows = rows, .n_rows = n};
    if (engine_compute(e, &s, &w) < 0)
        fail_msg("%s", w.text);
}

/* All logits of positions 0..ROWS-1, `chunk` rows at a time. */
static void run(engine *e, size_t chunk, float out[ROWS][VOCAB])
{
    struct engine_row rows[ROWS];
    for (uint32_t p = 0; p < ROWS; p++)
        rows[p] = (struct engine_row){.token = (int32_t)(p * 7 % VOCAB), .position = p, .attend_until = p + 1,
                                      .want_logits = true};
    for (size_t at = 0; at < ROWS; at += chunk) {
        size_t n = ROWS - at < chunk ? ROWS - at : chunk;
        step(e, rows + at, n);
        for (size_t i = 0; i < n; i++)
            memcpy(out[at + i], engine_logits(e, i), sizeof out[0]);
    }
}

static void every_way_gives_the_same_bits(void **state)
{
    (void)state;
    static const size_t CHUNKS[] = {1, 2, 3, 4, 5, 7, 16, 17, ROWS};
    static const char *const ISAS[] = {NULL, "avx2", "portable"};
    static float want[ROWS][VOCAB], got[ROWS][VOCAB];
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
        struct tiny t;
        make(&t, &KINDS[k]);
        bool first = true;
        for (size_t isa = 0; isa < ARRAY_LEN(ISAS); isa++)
            for (int threads = 1; threads <= 4; threads++) {
                engine *e = engine_of(&t, "cpu", ISAS[isa], threads);
                for (size_t c = 0; e && c < ARRAY_LEN(CHUNKS); c++) {
                    run(e, CHUNKS[c], first ? want : got);
                    if (!first && memcmp((const void *)want, (const void *)got, sizeof want) != 0)
                        fail_msg("%s of type %u, %s, %d threads, chunks of %zu: other bits", KINDS[k].family, KINDS[k].type,
                                 ISAS[isa] ? ISAS[isa] : "best", threads, CHUNKS[c]);
                    first = false;
                }
                engine_close(e);
            }
        drop(&t);
    }
}

static void near_the_reference(void **state)
{
    (void)state;
    static float want[ROWS][VOCAB], got[ROWS][VOCAB];
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
        struct tiny t;
        make(&t, &KINDS[k]);
        engine *a = engine_of(&t, "reference", NULL, 1), *b = engine_of(&t, "cpu", NULL, 2);
        run(a, ROWS, want);
        run(b, ROWS, got);
        double off = 0, square = 0;
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < VOCAB; j++) {
                off += pow((double)got[i][j] - (double)want[i][j], 2);
                square += pow((double)want[i][j], 2);
            }
        /* Activations of 8 bits; with float weights the only rounding is that of K and V. */
        if (!(sqrt(off / square) < (KINDS[k].type == Q8_0 ? 0.03 : 0.003)))
            fail_msg("%s of type %u: off by %g of the rms", KINDS[k].family, KINDS[k].type, sqrt(off / square));
        engine_close(a);
        engine_close(b);
        drop(&t);
    }
}

static void a_step_takes_no_memory(void **state)
{
    (void)state;
#ifdef COUNTED
    static float out[ROWS][VOCAB];
    for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
        struct tiny t;
        make(&t, &KINDS[k]);
        engine *e = engine_of(&t, "cpu", NULL, 2);
        atomic_store(&n_allocated, 0);
        atomic_store(&counting, true);
        free(malloc(1)); /* seen: the count works */
        for (size_t chunk = 1; chunk <= ROWS; chunk += 5)
            run(e, chunk, out);
        atomic_store(&counting, false);
        assert_int_equal(atomic_load(&n_allocated), 1);
        engine_close(e);
        drop(&t);
    }
#else
    skip(); /* a sanitizer's malloc is its own */
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_gives_the_same_bits),
        cmocka_unit_test(near_the_reference),
        cmocka_unit_test(a_step_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
