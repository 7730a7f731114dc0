/* The interface between the one decoder (engine/model/decoder.c) and what computes for it. A backend owns its memory:
 * weights, activations, KV pool; the decoder holds only handles. A step is begun, operators are submitted in order,
 * and `finish` waits. On a GPU these are enqueued; on a CPU they run at once on the pool.
 *
 * Vectors are float32 at this border: an activation buffer is (rows, width) row-major inside the backend. The contract of
 * every operator is its result per row, independent of the other rows: see "determinism" in engine/README.md. */
#ifndef NUNCHI_ENGINE_BACKEND_H
#define NUNCHI_ENGINE_BACKEND_H

#include "engine/engine.h"

typedef uint32_t tensor_id; /* a weight given to the backend at load; 0 is none */
typedef uint32_t act_id;    /* an activation buffer made at load */

/* GGUF type ids that can be loaded; others are refused with their name. */
enum weight_type {
    WEIGHT_F32 = 0,
    WEIGHT_F16 = 1,
    WEIGHT_Q4_0 = 2,
    WEIGHT_Q4_1 = 3,
    WEIGHT_Q5_0 = 6,
    WEIGHT_Q5_1 = 7,
    WEIGHT_Q8_0 = 8,
    WEIGHT_Q4_K = 12,
    WEIGHT_Q5_K = 13,
    WEIGHT_Q6_K = 14,
    WEIGHT_BF16 = 30,
};

struct weight {
    enum weight_type type;
    uint32_t n_out, n_in; /* (n_out, n_in): rows of n_in contiguous elements; n_out 1 for vectors */
    const void *data;     /* file layout, mapped: valid as long as the model file; of a vector until the call ends */
    bool gathered;        /* read by row (token embedding) */
    bool multiplied;      /* used by `linear` */
};

enum act_fn { ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF };
enum norm_kind { NORM_RMS, NORM_LAYER };
enum rope_kind { ROPE_NONE, ROPE_INTERLEAVED, ROPE_HALF };

struct norm_op {
    enum norm_kind kind;
    tensor_id weight, bias; /* bias 0: none */
    float eps;
};

struct rope_op {
    enum rope_kind kind;
    uint32_t n_dims; /* rotated dimensions at the start of each head */
    float theta;     /* base frequency */
    float freq_scale; /* 1: none (linear scaling divides positions) */
    tensor_id freq_factors; /* per pair divisors (Llama 3), 0: none */
    float magnitude;  /* what rotated dimensions are multiplied with; 1: none */
};

struct attention_op {
    uint32_t layer;       /* which KV layer */
    uint32_t n_head, n_kv_head, head_dim;
    const struct norm_op *q_norm, *k_norm; /* of each head, before it is rotated (Qwen3, Gemma 3); NULL: none */
    struct rope_op rope;
    float scale;          /* multiplies q·k */
    float soft_cap;       /* 0: none */
    uint32_t window;      /* 0: all; else only the last `window` positions up to and including its own */
};

/* 16-bit floats, or bytes with a step for each vector. */
enum kv_type { KV_F16, KV_INT8, KV_TYPES };

/* What the KV pool holds. */
struct kv_shape {
    uint32_t n_layer, n_kv_head, head_dim;
    uint32_t n_blocks;
};

/* What a matrix is multiplied with, row by row: x, or a sum that takes its place, normed or as it is. */
struct linear_in {
    act_id x;
    act_id delta;                     /* 0: none; else x + delta takes x's place … */
    const struct norm_op *delta_norm; /* … or x + norm(delta), if there is one … */
    act_id sum;                       /* … and is kept here, which is neither x nor delta; 0: not kept */
    const struct norm_op *norm;       /* NULL: none */
};

/* y = in · Wᵀ (+ bias), or y += that. */
struct linear_out {
    tensor_id w, bias; /* bias 0: none */
    act_id y;
    bool added;
};

/* y = fn(in · gateᵀ) * (in · upᵀ + bias); without a gate fn(in · upᵀ + bias). Only `linear` may read y, as it is. */
struct gated_op {
    enum act_fn fn;
    tensor_id gate, up, up_bias; /* gate, up_bias: 0 for none */
    act_id y;
};

struct backend_held {
    uint64_t bytes;
    const struct prepared *mapped; /* NULL: in memory, because: */
    const char *why_not;           /* "": nobody asked for a file */
};

struct backend_ops; /* the table below */

typedef struct backend {
    const struct backend_ops *ops;
} backend;

struct backend_ops {
    const char *name;
    void (*free)(backend *b);

    /* ---- at load ---- */
    /* Takes the weight in; may repack it. ERR_UNSUPPORTED names a type or shape that cannot be used. */
    int (*add_weight)(backend *b, const struct weight *w, tensor_id *out, struct why *why);
    int (*add_act)(backend *b, uint32_t width, act_id *out); /* (rows_max, width) */
    int (*add_kv)(backend *b, const struct kv_shape *shape);
    int (*ready)(backend *b, struct why *why); /* all weights are in: allocate, pack, start threads */

    /* ---- one step ---- */
    void (*begin)(backend *b, const struct engine_step *step);
    /* Rows' tokens (scaled) or vectors (as they are); plus what `positions` has at the row's position, 0: nothing. */
    void (*embed)(backend *b, tensor_id table, tensor_id positions, float scale, act_id out);
    /* Matrices that read the same input are one call, so that it is made once. */
    void (*linear)(backend *b, const struct linear_in *in, size_t n, const struct linear_out *out);
    void (*gated)(backend *b, const struct linear_in *in, const struct gated_op *op);
    /* Norms and rotates q and k, writes k and v into the rows' blocks, and attends. q and k hold anything afterwards. */
    void (*attention)(backend *b, const struct attention_op *op, act_id q, act_id k, act_id v, act_id out);
    /* Of rows that want them: the input, then linear to the vocabulary; soft_cap 0: none. */
    void (*logits)(backend *b, const struct linear_in *in, tensor_id w, tensor_id bias, float scale, float soft_cap);
    int (*finish)(backend *b);
    const float *(*logits_row)(const backend *b, size_t row); /* host memory, until the next begin; NULL if not wanted */

    /* How the weights are held; NULL: in memory of its own. */
    void (*held)(const backend *b, struct backend_held *out);
    /* Calls fn(ctx, 0 .. n-1, thread) on the backend's threads, between steps; `thread` is below the config's. */
    void (*parallel)(backend *b, void (*fn)(void *ctx, size_t part, int thread), void *ctx, size_t n);

    /* ---- KV blocks ---- */
    size_t (*block_bytes)(const backend *b); /* of one exported block; after add_kv */
    void (*kv_touch)(const backend *b); /* gets the pool's memory from the kernel; any thread; NULL: it is there */
    void (*block_copy)(backend *b, uint32_t from, uint32_t to, uint32_t n_tokens);
    void (*block_export)(const backend *b, uint32_t block, void *out);
    bool (*block_import)(backend *b, uint32_t block, const void *p); /* false: it holds what no step stores; nothing changed */
};

/* Each backend's constructor (engine/backend/<name>.c). rows_max and threads come from the config, already checked. */
struct backend_config {
    uint32_t rows_max;
    uint32_t n_vocab;
    int threads;
    const char *isa; /* NULL: best */
    enum engine_prepare prepare;
    const char *model_path; /* borrowed until ready; NULL: it has none */
    uint32_t model_mode;    /* its permissions */
    uint32_t model_owner;
    struct digest weights;
    void (*progress)(void *ctx, const char *what, int permille); /* NULL: silent */
    void *progress_ctx;
    enum kv_type kv_type; /* the reference keeps floats, whatever it says */
};
int backend_cpu_new(const struct backend_config *cfg, backend **out, struct why *w) MUST_USE;
int backend_reference_new(const struct backend_config *cfg, backend **out, struct why *w) MUST_USE;
/* For engine_info: the instruction set in use ("avx512"), and a number that changes with the arithmetic. */
const char *backend_isa(const backend *b);
#define ENGINE_ARITHMETIC_VERSION 2

#endif
