/* The KV pool: its memory, and whole blocks of it. */
#include "engine/backend/cpu.h"

#include <sys/mman.h>

int cpu_add_kv(backend *b, const struct kv_shape *shape)
{
    cpu *c = cpu_of(b);
    if (!shape->head_dim || shape->head_dim % 16)
        return ERR_UNSUPPORTED;
    size_t heads;
    if (size_mul(shape->n_layer, shape->n_kv_head, &heads) < 0 ||
        size_mul(heads, kv_head_bytes(c->cfg.kv_type, shape->head_dim), &c->kv_block_bytes) < 0 ||
        size_mul(c->kv_block_bytes, shape->n_blocks, &c->kv_bytes) < 0)
        return ERR_TOO_BIG;
    c->kv_shape = *shape;
    c->kv_layer_bytes = c->kv_block_bytes / shape->n_layer;
    c->kv = cpu_pages(c->kv_bytes);
    return c->kv ? 0 : ERR_NOMEM;
}

uint8_t *cpu_kv_at(const cpu *c, uint32_t block, uint32_t layer, uint32_t head)
{
    return c->kv + ((size_t)layer * c->kv_shape.n_blocks + block) * c->kv_layer_bytes +
           head * kv_head_bytes(c->cfg.kv_type, c->kv_shape.head_dim);
}

size_t cpu_block_bytes(const backend *b)
{
    return ((const cpu *)(const void *)b)->kv_block_bytes;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; older kernels refuse it, and memory comes when it is used */
#endif
#define TOUCH_BYTES ((size_t)16 << 20)

void cpu_kv_touch(const backend *b)
{
    const cpu *c = (const cpu *)(const void *)b;
    for (size_t at = 0; at < c->kv_bytes; at += TOUCH_BYTES) {
        size_t n = c->kv_bytes - at < TOUCH_BYTES ? c->kv_bytes - at : TOUCH_BYTES;
        if (madvise(c->kv + at, n, MADV_POPULATE_WRITE) < 0)
            return;
    }
}

/* The first n tokens of one layer and head. */
static void copy_halves(uint8_t *out, const uint8_t *in, uint32_t n, size_t head_dim)
{
    const size_t row = (size_t)2 * ENGINE_BLOCK_TOKENS, v = row * head_dim;
    for (size_t d = 0; d < head_dim; d++)
        memcpy(out + d * row, in + d * row, (size_t)2 * n);
    memcpy(out + v, in + v, 2 * n * head_dim);
}

static void copy_bytes(uint8_t *out, const uint8_t *in, uint32_t n, size_t head_dim)
{
    const size_t row = (size_t)2 * ENGINE_BLOCK_TOKENS; /* of units, and of two dimensions of K */
    for (size_t i = 0; i < 2 + head_dim / 2; i++)
        memcpy(out + i * row, in + i * row, (size_t)2 * n);
    const size_t v = row * (2 + head_dim / 2);
    for (uint32_t t = 0; t < n; t++)
        for (size_t d = 0; d < head_dim; d++) {
            size_t at = v + (t / 2 * head_dim + d) * 2 + t % 2;
            out[at] = in[at];
        }
}

void cpu_block_copy(backend *b, uint32_t from, uint32_t to, uint32_t n_tokens)
{
    cpu *c = cpu_of(b);
    const struct kv_shape *s = &c->kv_shape;
    CHECK(from < s->n_blocks && to < s->n_blocks && n_tokens <= ENGINE_BLOCK_TOKENS);
    for (uint32_t l = 0; l < s->n_layer; l++) {
        memset(cpu_kv_at(c, to, l, 0), 0, c->kv_layer_bytes); /* what lies behind n_tokens is another's */
        for (uint32_t h = 0; h < s->n_kv_head; h++)
            (c->cfg.kv_type == KV_INT8 ? copy_bytes : copy_halves)(cpu_kv_at(c, to, l, h), cpu_kv_at(c, from, l, h), n_tokens,
                                                                   s->head_dim);
    }
}

void cpu_block_export(const backend *b, uint32_t block, void *out)
{
    const cpu *c = (const cpu *)(const void *)b;
    CHECK(block < c->kv_shape.n_blocks);
    for (uint32_t l = 0; l < c->kv_shape.n_layer; l++)
        memcpy((uint8_t *)out + l * c->kv_layer_bytes, cpu_kv_at(c, block, l, 0), c->kv_layer_bytes);
}

static bool halves_finite(const uint8_t *p, size_t n)
{
    uint16_t h, most = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&h, p + 2 * i, sizeof h);
        h &= 0x7fff;
        most = h > most ? h : most;
    }
    return most < 0x7c00;
}

/* Attention multiplies what is masked or left from another sequence by 0. Any bytes are finite; steps and halves need not be. */
static bool all_finite(const cpu *c, const uint8_t *p)
{
    size_t head = kv_head_bytes(c->cfg.kv_type, c->kv_shape.head_dim);
    size_t halves = c->cfg.kv_type == KV_INT8 ? 2 * ENGINE_BLOCK_TOKENS : head / 2;
    for (size_t at = 0; at < c->kv_block_bytes; at += head)
        if (!halves_finite(p + at, halves))
            return false;
    return true;
}

bool cpu_block_import(backend *b, uint32_t block, const void *p)
{
    cpu *c = cpu_of(b);
    CHECK(block < c->kv_shape.n_blocks);
    if (!all_finite(c, p))
        return false;
    for (uint32_t l = 0; l < c->kv_shape.n_layer; l++)
        memcpy(cpu_kv_at(c, block, l, 0), (const uint8_t *)p + l * c->kv_layer_bytes, c->kv_layer_bytes);
    return true;
}
