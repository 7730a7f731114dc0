/* libengine: model files, vocabulary, a decoder over paged KV, samplers. The one public header.
 *
 * Ownership: what x_open/x_new returns is the caller's until x_close/x_free; everything reached through it is
 * borrowed and lives as long as it does. Threads: model_file and vocab are immutable after opening and may be
 * shared; an engine is used by one thread at a time (its own pool computes).
 *
 * Determinism: logits of a row depend only on the model and the items up to the end of its own span. Not on the
 * batch, the chunking, the thread count, the instruction set, or whether a prefix was cached (engine/README.md
 * says how). A `numerics id` names the arithmetic; another id never shares KV or results. */
#ifndef NUNCHI_ENGINE_H
#define NUNCHI_ENGINE_H

#include "common/base/arena.h"
#include "common/base/hash.h"

/* Tokens in one KV block: the unit of paging, hashing, sharing and transport. Fixed in protocol version 1. */
#define ENGINE_BLOCK_TOKENS 16
/* Attention is reduced in partials per this many positions, merged in ascending order. */
#define ENGINE_SEGMENT_TOKENS 256
#define ENGINE_ROWS_MAX 4096      /* rows of one step */
#define ENGINE_VOCAB_MAX 1048576  /* entries; the largest known vocabulary is 262144 */
#define ENGINE_CONTEXT_MAX 1048576
#define ENGINE_THREADS_MAX 256

/* ---- model files: GGUF, mapped read-only, every size and offset checked against the file ------------------- */

typedef struct model_file model_file;

enum meta_type { META_NONE, META_BOOL, META_INT, META_UINT, META_FLOAT, META_STR, META_ARRAY };

int model_file_open(const char *path, model_file **out, struct why *w) MUST_USE;
/* The same over bytes in memory (borrowed until close); for tests and fuzzing. */
int model_file_open_mem(const void *p, size_t n, model_file **out, struct why *w) MUST_USE;
void model_file_close(model_file *f); /* NULL is allowed */

size_t model_file_bytes(const model_file *f);
/* Hash of the weights and of the metadata that gives them their meaning: equal for the same file anywhere. Reads the
 * whole file the first time (progress may be NULL; permille), then remembered next to the file where it can be. */
int model_file_digest(model_file *f, struct digest *out, void (*progress)(void *ctx, int permille), void *ctx) MUST_USE;

size_t model_file_n_meta(const model_file *f);
slice model_file_meta_key(const model_file *f, size_t i);
enum meta_type model_file_meta_type(const model_file *f, slice key);
/* 0, ERR_NOT_FOUND (absent), or ERR_INVALID (another type or out of the C type's range). */
int model_file_u32(const model_file *f, const char *key, uint32_t *out) MUST_USE;
int model_file_f32(const model_file *f, const char *key, float *out) MUST_USE;
int model_file_bool(const model_file *f, const char *key, bool *out) MUST_USE;
int model_file_str(const model_file *f, const char *key, slice *out) MUST_USE;

struct tensor_info {
    slice name;
    const char *type; /* "Q4_1" */
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is contiguous */
    uint64_t bytes;
};
size_t model_file_n_tensors(const model_file *f);
struct tensor_info model_file_tensor(const model_file *f, size_t i);

/* ---- vocabulary: what each id means; how text becomes ids is tokenizer-svc's business ---------------------- */

typedef struct vocab vocab;

enum vocab_kind { VOCAB_BPE, VOCAB_SPM };
/* As in GGUF's tokenizer.ggml.token_type. */
enum token_kind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };
#define TOKEN_NONE (-1)

int vocab_open(const model_file *f, vocab **out, struct why *w) MUST_USE; /* copies; the file may be closed after */
void vocab_close(vocab *v);

enum vocab_kind vocab_model(const vocab *v);
slice vocab_pretokenizer(const vocab *v);  /* tokenizer.ggml.pre: "smollm", "default" */
/* Unicode's normal forms that text is brought to before it is cut. */
enum vocab_normal { NORMAL_NONE, NORMAL_C, NORMAL_D, NORMAL_KC, NORMAL_KD };
/* Of a converted model whose way of cutting words has no such name: the pattern whose matches are words, as is what lies between
 * them; "" for none. *normal: counts whatever the name says. */
slice vocab_split(const vocab *v, enum vocab_normal *normal);
bool vocab_whole_words(const vocab *v); /* a word that is in the vocabulary is taken whole, whatever its merges */
slice vocab_chat_template(const vocab *v); /* "" for a model without one */
int32_t vocab_size(const vocab *v);
slice vocab_piece(const vocab *v, int32_t id); /* as stored: byte-level alphabet or U+2581 spaces; "" if out of range */
/* The bytes the id stands for in text: byte-level decoded, U+2581 as space, <0xXX> as its byte; control tokens give
 * their literal text. Never NULL-terminated; "" if out of range. */
slice vocab_bytes(const vocab *v, int32_t id);
enum token_kind vocab_token_kind(const vocab *v, int32_t id);
float vocab_score(const vocab *v, int32_t id);
int32_t vocab_find(const vocab *v, slice piece);          /* by stored piece; TOKEN_NONE */
int32_t vocab_byte_token(const vocab *v, unsigned char b); /* <0xXX>; TOKEN_NONE */
/* BPE: rank of merging two ids (lower first) and what they become; -1 if they do not merge. */
int32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right, int32_t *merged);
int32_t vocab_bos(const vocab *v); /* TOKEN_NONE where the model has none */
int32_t vocab_eos(const vocab *v);
bool vocab_add_bos(const vocab *v);          /* text starts with bos */
bool vocab_add_space_prefix(const vocab *v); /* text starts as if after a space, also behind a special token … */
bool vocab_prefix_once(const vocab *v);      /* … unless this says: at the very beginning alone */
bool vocab_prefix_missing(const vocab *v);   /* … or this: where it does not begin with one of its own */
/* White space that a special token swallows where it is written in a text. */
enum token_strip { STRIPS_BEFORE = 1, STRIPS_AFTER = 2 };
int vocab_strips(const vocab *v, int32_t id);
bool vocab_is_end(const vocab *v, int32_t id); /* eos, end of turn, end of text: generation stops */
/* The ids for which vocab_is_end is true, ascending. */
size_t vocab_ends(const vocab *v, const int32_t **ids);

/* ---- engine ------------------------------------------------------------------------------------------------- */

typedef struct engine engine;

/* Whether the packed weights are kept in a file that all workers of a host map (engine/prepared.h). Only for a model
 * that was opened by its path, on a backend that packs. */
enum engine_prepare {
    ENGINE_PREPARE_NEVER,   /* pack in memory */
    ENGINE_PREPARE_AUTO,    /* map the file; write it if it is not there; where that cannot be, pack in memory */
    ENGINE_PREPARE_REQUIRED /* … where that cannot be, fail */
};

struct engine_config {
    const char *backend; /* "cpu" (default) or "reference" (float32 on OpenBLAS: slow, the tests' oracle) */
    int threads;         /* 0: thread_cpus(), and ENGINE_THREADS_MAX at most */
    const char *isa;     /* NULL: the best there is; else "avx512", "avx2", "portable" (an error if the CPU lacks it) */
    uint32_t kv_blocks;  /* 0: as many as kv_bytes allows */
    uint64_t kv_bytes;   /* memory for KV; 0 with kv_blocks 0: enough for one full context */
    const char *kv_type; /* of the cpu backend: "f16" (NULL), or "int8": half the memory, a little less exact. The reference
                            keeps float32 and refuses int8 */
    uint32_t rows_max;   /* most rows of one step; 0: 512 */
    void (*progress)(void *ctx, const char *what, int permille); /* NULL: silent; "hash", "load", "pack", "prepare" */
    void *progress_ctx;
    enum engine_prepare prepare;
};

struct engine_info {
    char family[32];          /* "llama", "gemma3" */
    char name[96];            /* general.name or "" */
    char backend[16];
    char isa[16];
    uint32_t n_vocab, n_context, n_layer, n_embd;
    uint32_t n_kv_blocks;
    uint64_t kv_block_bytes;  /* one exported block, all layers */
    uint64_t weight_bytes;    /* read per decoded token at batch 1, without the embedding table's gather */
    uint64_t macs_per_token;  /* multiply-adds of the linear layers */
    struct digest weights;    /* model_file_digest */
    struct digest numerics;   /* weights, arithmetic version, backend kind, KV format */
    int threads;
    uint64_t packed_bytes;     /* of the weights as the backend holds them; 0: it does not say */
    const char *prepared_path; /* the file they are mapped from; NULL: they are in memory */
    char in_memory_why[WHY_TEXT_MAX]; /* "" or why not mapped although that was asked for */
};

/* Multiply-adds of matrices; the vocabulary's apart, since a prompt needs it once. */
struct engine_macs {
    uint64_t layers, head;
};

/* What decoding one token costs when it attends to `context` positions: with the limits below, the least time it takes. */
struct engine_cost {
    uint64_t weight_bytes;           /* as in engine_info: read once for all sequences of a step */
    struct engine_macs ints, floats; /* with quantised weights; with F32, F16 and BF16 ones */
    uint64_t kv_bytes;
    uint64_t attention_macs;
};

int engine_open(model_file *f, const struct engine_config *cfg, engine **out, struct why *w) MUST_USE; /* borrows f */
void engine_close(engine *e);
const struct engine_info *engine_info(const engine *e);
struct engine_cost engine_cost(const engine *e, uint32_t context);

/* Opening looks at a prepared file's sizes and seal. The rest is read in pieces by a thread of the caller, any time,
 * also while the engine computes: a disk or memory can go bad under a worker that runs for months. */
size_t engine_n_pieces(const engine *e);               /* 0: nothing is mapped */
void engine_touch_piece(const engine *e, size_t i);    /* so that the first steps need not wait for the disk */
bool engine_check_piece(const engine *e, size_t i);    /* false: damaged; what was computed since opening may be wrong */
int engine_discard_prepared(const engine *e) MUST_USE; /* removes the file; the next worker writes it again */

/* A sequence's KV lives in blocks that the caller hands out: position p lies in blocks[p / ENGINE_BLOCK_TOKENS].
 * The engine keeps no list of sequences; sharing, copying on write and eviction are the scheduler's. */
struct engine_seq {
    const uint32_t *blocks; /* block numbers below n_kv_blocks */
    uint32_t n_blocks;
};

/* One row of a step: one token (or vector) of one sequence at one position. Its K and V are written to the sequence's
 * block; it attends to positions 0 .. attend_until-1 of the sequence, which must be in KV or in earlier or same rows of
 * this step. attend_until is position + 1 for causal text, the end of the span for bidirectional ones. */
struct engine_row {
    uint32_t seq;          /* index into the step's seqs */
    int32_t token;         /* an id, or TOKEN_NONE when vec is used */
    const float *vec;      /* n_embd floats (a vision row), or NULL */
    uint32_t position;
    uint32_t attend_until;
    uint32_t adapter;      /* 0: none; others are refused until adapters exist */
    bool want_logits;
};

struct engine_step {
    const struct engine_seq *seqs;
    size_t n_seqs;
    const struct engine_row *rows; /* rows of one sequence in ascending position */
    size_t n_rows;
};

/* Computes a step: submit and wait. ERR_INVALID for rows that make no sense (checked: ids, positions, blocks, limits).
 * Afterwards engine_logits(e, i) is the logits (n_vocab floats, borrowed until the next step) of row i, NULL where
 * want_logits was false. */
int engine_compute(engine *e, const struct engine_step *step, struct why *w) MUST_USE;
const float *engine_logits(const engine *e, size_t row);

/* Gets all of the KV pool's memory from the kernel now, rather than page by page when it is first used. Any thread. */
void engine_touch_kv(const engine *e);

/* KV blocks. Copy is for copy on write (first n_tokens positions). Export and import move a whole block as bytes
 * (kv_block_bytes, an opaque layout named by the numerics id). An import with a number that is not finite is
 * ERR_INVALID: where a block is used again, what it held before is multiplied by 0. A block that is in no step may be
 * exported and imported on any thread, also while a step is computed. */
int engine_block_copy(engine *e, uint32_t from, uint32_t to, uint32_t n_tokens) MUST_USE;
int engine_block_export(const engine *e, uint32_t block, void *out, size_t cap) MUST_USE;
int engine_block_import(engine *e, uint32_t block, const void *p, size_t n) MUST_USE;

/* ---- what the machine can do at most ------------------------------------------------------------------------- */

/* A second's rates, of all threads together; 0 where nothing can be said (portable C: the compiler chose the code). */
struct engine_limits {
    int threads;
    double int8_ops;   /* multiplies and adds of the instruction set's integer dot products */
    double float_ops;  /* of its fused multiply-adds of float32 */
    double read_bytes; /* memory, beyond the caches */
};
/* Measures them, within about a second, with the instruction set and number of threads given (as in engine_config). */
int engine_limits_measure(const char *isa, int threads, struct engine_limits *out, struct why *w) MUST_USE;

/* ---- sampling: a function of (logits, parameters, ids so far, seed, choice, position), and of nothing else --- */

#define SAMPLE_LOGPROBS_MAX 20
#define SAMPLE_BIAS_MAX 1024

struct sample_bias {
    int32_t id;
    float add; /* -100 .. 100; -100 forbids */
};

struct sample_params {
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    uint32_t top_k;    /* 0: off */
    float presence_penalty, frequency_penalty; /* over generated ids only, as OpenAI defines them */
    float repetition_penalty; /* 1: off; over prompt and generated ids */
    uint64_t seed;
    uint32_t n_logprobs; /* alternatives wanted, at most SAMPLE_LOGPROBS_MAX */
    bool want_logprob;
    bool forbid_ends; /* ignore_eos: end ids are never sampled */
    const struct sample_bias *bias;
    size_t n_bias;
};

struct sample_input {
    const float *logits; /* (n_vocab) not modified */
    int32_t n_vocab;
    const int32_t *prompt;
    size_t n_prompt;
    const int32_t *generated; /* ids so far */
    size_t n_generated;
    uint32_t choice;
    const int32_t *forced; /* NULL: sampled; else this id is the answer, and only its logprob is asked */
    const int32_t *ends; /* vocab_ends, for forbid_ends */
    size_t n_ends;
};

struct sampled {
    int32_t id;
    float logprob; /* of id under softmax(logits), before temperature, penalties and filters */
    uint32_t n_top;
    struct {
        int32_t id;
        float logprob;
    } top[SAMPLE_LOGPROBS_MAX]; /* most likely first */
};

struct sample_job {
    uint32_t row; /* of the last step: whose logits */
    const struct sample_params *params;
    struct sample_input in; /* logits and n_vocab are filled in */
    struct sampled out;     /* the answer */
};
/* Fills in each job's answer, on the engine's threads. Of rows that wanted logits; one row may be sampled by several. */
void engine_sample(engine *e, struct sample_job *jobs, size_t n);

/* The same without an engine: one at a time. */
typedef struct sampler sampler; /* scratch only: no state that changes an answer */
/* isa as in engine_config; it changes nothing but speed. */
int sampler_new(int32_t n_vocab, const char *isa, sampler **out, struct why *w) MUST_USE;
void sampler_free(sampler *s);
void sampler_pick(sampler *s, const struct sample_params *p, const struct sample_input *in, struct sampled *out);

#endif
