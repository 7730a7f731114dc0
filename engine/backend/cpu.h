/* The inside of the CPU backend, shared by its cpu_*.c files. All memory is taken in `ready` and by pages on first touch;
 * a step allocates nothing. Work goes to the pool in parts; no part's result depends on how many there are. */
#ifndef NUNCHI_ENGINE_CPU_H
#define NUNCHI_ENGINE_CPU_H

#include "engine/kernels/kernels.h"
#include "engine/pool.h"
#include "engine/prepared.h"

/* Partials of attention that may wait for their merge: 16 MiB, 16 rows of 32 heads of 128 over 16,000 positions. Beyond
 * it there is work enough for all threads without cutting sequences. */
#define PARTIAL_FLOATS ((size_t)4 << 20)
#define ROPE_TABLES 4 /* distinct rotations of a model; Gemma 3 has two */

struct cpu_weight {
    struct weight w;
    const struct format *f;
    struct packed packed; /* if w.multiplied */
    size_t at, bytes;     /* of the packed panels in cpu.packed */
    const float *vector;  /* if n_out is 1 and it is not multiplied: padded to whole panels */
};

struct cpu_act {
    uint32_t width;
    size_t stride; /* floats: whole panels */
    float *data;   /* (rows_max, stride) */
    struct act_block *blocks; /* not NULL: quantised when it was made, in tiles; data is not written */
};

struct cpu_rope {
    bool used, filled; /* filled: cos and sin are of this step's rows */
    struct rope_op op;
    double *freq; /* (n_dims/2) radians per position */
    float *cs;    /* (rows_max, n_dims): cosines, then sines */
};

/* Consecutive rows of one sequence. */
struct cpu_run {
    uint32_t first, n;
};

/* Input of a linear that each thread makes for itself. */
#define CPU_FEW_ROWS 4
#define CPU_FEW_FLOATS 16384 /* with the rows that fill the last tile */
#define CPU_STRIP_FLOATS 2048 /* of a strip of gate or up: whole panels of whole tiles */

/* A thread's own memory for a linear. */
struct cpu_room {
    _Alignas(64) uint64_t input; /* which input blocks and x are of: cpu.n_inputs at that time */
    float *sum, *normed;         /* one row */
    float *x;                    /* (CPU_FEW_ROWS, widest act) */
    float *strip[2];             /* CPU_STRIP_FLOATS each */
    struct act_block *blocks;    /* CPU_FEW_FLOATS / PANEL_K */
};

/* Rows of one run that go through K and V together, all heads of a group with them. */
struct cpu_tile {
    uint32_t first, n;
    uint32_t segment, n_segments; /* what they see; n_segments 0: one item goes through all of it */
    uint32_t item;                /* its first one */
    size_t partial;               /* its first one: (rows, n_head, n_segments) */
};

typedef struct cpu {
    backend base; /* first */
    struct backend_config cfg;
    const struct kernels *k;
    pool *pool;

    struct cpu_weight *weights; /* tensor_id - 1 */
    uint32_t n_weights, cap_weights;
    struct cpu_act *acts; /* act_id - 1 */
    uint32_t n_acts, cap_acts;

    uint8_t *packed; /* NULL if mapped */
    prepared *mapped;
    size_t packed_bytes;
    struct why why_not_mapped;
    struct act_block *quantised; /* tiles of the input of one linear */
    size_t quantised_bytes;
    struct act_block *gated; /* the same, of what `gated` makes */
    float *inputs; /* (rows_max, widest act): inputs of float weights */
    size_t inputs_bytes;
    bool float_weights; /* some matrix is of a float type */
    struct cpu_room *rooms; /* by thread */
    float *rooms_memory;
    size_t rooms_bytes;
    uint64_t n_inputs; /* inputs that each thread makes for itself, so far */
    uint32_t *wanted; /* (rows_max): rows that want logits */
    float *logits; /* (rows_max, logits_stride) */
    size_t logits_stride, logits_bytes;
    int32_t *logits_of; /* (rows_max) index into logits, or -1 */

    struct kv_shape kv_shape;
    uint8_t *kv; /* (n_layer, n_blocks, n_kv_head, kv_head_bytes): a layer reads along, few pages apart */
    size_t kv_layer_bytes, kv_block_bytes, kv_bytes; /* of a block: of one layer, of all */
    float *scratch; /* (threads, attention_scratch and QUERIES_MAX queries) */
    size_t scratch_floats;
    struct cpu_tile *tiles;     /* (rows_max) of one attention */
    _Atomic uint32_t *pending;  /* (rows_max, n_kv_head): segments of a tile without their partials */
    float *partials; /* PARTIAL_FLOATS: of segments of few long sequences */

    struct cpu_rope ropes[ROPE_TABLES];
    uint32_t next_rope;

    const struct engine_step *step;
    struct cpu_run *runs; /* (rows_max) */
    uint32_t n_runs;
    bool *has_run;     /* (ENGINE_ROWS_MAX) by sequence */
    bool one_run_each; /* no sequence has two runs: rows of two runs do not see each other */
} cpu;

static inline cpu *cpu_of(backend *b)
{
    return (cpu *)(void *)b;
}

static inline struct cpu_act *cpu_act_of(cpu *c, act_id id)
{
    CHECK(id >= 1 && id <= c->n_acts);
    return &c->acts[id - 1];
}

static inline struct cpu_weight *cpu_weight_of(cpu *c, tensor_id id)
{
    CHECK(id >= 1 && id <= c->n_weights);
    return &c->weights[id - 1];
}

/* NULL for id 0. */
const float *cpu_vector(cpu *c, tensor_id id);

/* Calls fn(ctx, first, n, thread) for ranges that cover 0..n_rows-1; on the pool if there is enough to do.
 * row_cost is about how many floats a row touches. */
typedef void (*cpu_rows_fn)(void *ctx, uint32_t first, uint32_t n, int thread);
void cpu_rows(cpu *c, cpu_rows_fn fn, void *ctx, uint32_t n_rows, size_t row_cost);

/* Zeroed pages that cost memory only once touched; NULL if the system refuses. */
void *cpu_pages(size_t bytes);
void cpu_pages_free(void *p, size_t bytes);

/* cpu_weights.c */
int cpu_add_weight(backend *b, const struct weight *w, tensor_id *out, struct why *why);
int cpu_pack(cpu *c, struct why *why);
void cpu_held(const backend *b, struct backend_held *out);
void cpu_free_weights(cpu *c);

struct cpu_norm {
    bool any;
    enum norm_kind kind;
    float eps;
    const float *weight, *bias;
};

/* struct linear_in, looked up. */
struct cpu_input {
    const struct cpu_act *x, *delta, *sum;
    struct cpu_norm norm, delta_norm;
    const uint32_t *rows; /* row i of the product is this row of the step; NULL: i */
};

struct cpu_product {
    const struct packed *w;
    const float *bias; /* NULL: none */
    float *out;
    size_t out_stride;
    bool added; /* to what out holds */
};

struct cpu_gate {
    enum act_fn fn;
    const struct packed *gate, *up; /* gate NULL: none */
    const float *up_bias;
    const struct cpu_act *y;
};

/* An input as the kernels read it. */
struct cpu_rows_made {
    struct act_block *blocks; /* (tiles, n_in / 32, height) */
    float *x;                 /* (n_rows, x_stride) */
    size_t x_stride;
};

#define CPU_PRODUCTS_MAX 8 /* weights of one linear call */

struct cpu_linear {
    cpu *c;
    const struct cpu_input *in;
    uint32_t n_rows, padded_rows, n_in, height;
    bool integer, floats; /* there are weights that read blocks, floats */
    bool each_thread;     /* makes its own input */
    struct cpu_rows_made made;
    const struct cpu_product *p;
    size_t n;
    const struct cpu_gate *gated; /* not NULL: p[0] is its up */
    uint32_t per_part[CPU_PRODUCTS_MAX]; /* panels */
    uint32_t first_part[CPU_PRODUCTS_MAX + 1];
};

/* cpu_linear.c */
void cpu_linear(backend *b, const struct linear_in *in, size_t n, const struct linear_out *out);
void cpu_gated(backend *b, const struct linear_in *in, const struct gated_op *op);
void cpu_logits(backend *b, const struct linear_in *in, tensor_id w, tensor_id bias, float scale, float soft_cap);

/* cpu_input.c: before the parts of a linear, and within each. */
void cpu_input_begin(struct cpu_linear *j);
struct cpu_rows_made cpu_input_of(const struct cpu_linear *j, size_t part, int thread);

/* cpu_rows.c */
void cpu_embed(backend *b, tensor_id table, tensor_id positions, float scale, act_id out);

/* cpu_rope.c: the table of this step's rows; NULL for ROPE_NONE. */
const struct cpu_rope *cpu_rope_of(cpu *c, const struct rope_op *op);

/* cpu_attention.c */
void cpu_attention(backend *b, const struct attention_op *op, act_id q, act_id k, act_id v, act_id out);

/* cpu_kv.c */
int cpu_add_kv(backend *b, const struct kv_shape *shape);
uint8_t *cpu_kv_at(const cpu *c, uint32_t block, uint32_t layer, uint32_t head);
size_t cpu_block_bytes(const backend *b);
void cpu_kv_touch(const backend *b);
void cpu_block_copy(backend *b, uint32_t from, uint32_t to, uint32_t n_tokens);
void cpu_block_export(const backend *b, uint32_t block, void *out);
bool cpu_block_import(backend *b, uint32_t block, const void *p);

#endif
