#include "model-svc/sequence.h"

#define B ENGINE_BLOCK_TOKENS

_Static_assert(ENGINE_BLOCK_TOKENS == BLOCK_TOKENS, "hashes name whole KV blocks");

void sequence_init(struct sequence *s, const struct gen_request *r, const struct gen_choice *c,
                   const struct digest *weights)
{
    *s = (struct sequence){.choice = c->index,
                           .prompt = r->prompt,
                           .n_prompt = r->n_prompt,
                           .echoed = r->echoed,
                           .n_echoed = r->n_echoed,
                           .n_ids = c->n_ids,
                           .n_given = c->n_ids,
                           .cap_ids = c->n_ids + 64,
                           .salts = r->salts,
                           .n_salts = r->n_salts};
    list_init(&s->running);
    s->ids = xcalloc(s->cap_ids, sizeof *s->ids);
    if (c->n_ids)
        memcpy(s->ids, c->ids, c->n_ids * sizeof *s->ids);
    s->chain =
        blockhash_new(r->tenant, (slice){(const char *)weights->b, DIGEST_BYTES}, (slice){0});
}

void sequence_clear(struct sequence *s, kvpool *pool)
{
    sequence_drop(s, pool);
    blockhash_free(s->chain);
    free(s->hashes);
    free(s->blocks);
    free(s->ids);
}

uint32_t sequence_total(const struct sequence *s)
{
    return s->n_prompt + s->n_ids;
}

int32_t sequence_token(const struct sequence *s, uint32_t position)
{
    return position < s->n_prompt ? s->prompt[position] : s->ids[position - s->n_prompt];
}

static void reserve(struct sequence *s, uint32_t more)
{
    if (s->n_ids + more <= s->cap_ids)
        return;
    s->cap_ids = s->cap_ids * 2 > s->n_ids + more ? s->cap_ids * 2 : s->n_ids + more;
    s->ids = xrealloc(s->ids, s->cap_ids, sizeof *s->ids);
}

void sequence_append(struct sequence *s, int32_t id)
{
    reserve(s, 1);
    s->ids[s->n_ids++] = id;
}

uint32_t sequence_guess(struct sequence *s, uint32_t max)
{
    reserve(s, max);
    if (s->n_ids < s->n_echoed) { /* these are no guesses */
        uint32_t n = s->n_echoed - s->n_ids < max ? s->n_echoed - s->n_ids : max;
        memcpy(s->ids + s->n_ids, s->echoed + s->n_ids, n * sizeof *s->ids);
        return n;
    }
    struct draft_text known = {s->prompt, s->ids, s->n_prompt, s->n_ids};
    return drafter_guess(&s->drafter, &known, s->ids + s->n_ids, max, &s->draft_from);
}

static void add_hash(struct sequence *s, const struct digest *h)
{
    if (s->n_hashes == s->cap_hashes) {
        s->cap_hashes = s->cap_hashes ? s->cap_hashes * 2 : sequence_total(s) / B + 4;
        s->hashes = xrealloc(s->hashes, s->cap_hashes, sizeof *s->hashes);
    }
    s->hashes[s->n_hashes++] = *h;
}

/* Hashes of all full blocks of the tokens known. */
static void chain_on(struct sequence *s)
{
    struct digest h;
    for (uint32_t total = sequence_total(s); s->n_chained < total; s->n_chained++) {
        while (s->next_salt < s->n_salts && s->salts[s->next_salt].at == s->n_chained)
            blockhash_salt(s->chain, s->salts[s->next_salt++].salt);
        if (blockhash_token(s->chain, sequence_token(s, s->n_chained), &h))
            add_hash(s, &h);
    }
}

uint32_t sequence_hashes(struct sequence *s)
{
    chain_on(s);
    return s->n_hashes;
}

static void add_block(struct sequence *s, uint32_t block)
{
    if (s->n_blocks == s->cap_blocks) {
        s->cap_blocks = s->cap_blocks ? s->cap_blocks * 2 : sequence_total(s) / B + 4;
        s->blocks = xrealloc(s->blocks, s->cap_blocks, sizeof *s->blocks);
    }
    s->blocks[s->n_blocks++] = block;
}

void sequence_reuse(struct sequence *s, kvpool *pool)
{
    /* only at a block's border: a block begun holds work of our own */
    if (s->n_computed % B || s->n_blocks * B != s->n_computed)
        return;
    chain_on(s);
    uint32_t last = sequence_total(s) - 1;
    while (s->n_blocks < s->n_hashes && s->n_computed < last) {
        uint32_t block = kvpool_find(pool, &s->hashes[s->n_blocks]);
        if (block == KVPOOL_NONE)
            return;
        add_block(s, block);
        s->n_computed = s->n_blocks * B < last ? s->n_blocks * B : last;
        if (s->n_offered < s->n_blocks)
            s->n_offered = s->n_blocks;
    }
}

void sequence_share_prompt(struct sequence *s, const struct sequence *from, kvpool *pool)
{
    CHECK(s->prompt == from->prompt && from->n_computed >= s->n_prompt);
    sequence_drop(s, pool);
    for (uint32_t i = 0; i * B < s->n_prompt; i++) {
        kvpool_ref(pool, from->blocks[i]);
        add_block(s, from->blocks[i]);
    }
    /* without ids of its own it needs the logits of the prompt's last token */
    s->n_computed = s->n_ids ? s->n_prompt : s->n_prompt - 1;
    if (s->n_offered < s->n_prompt / B)
        s->n_offered = s->n_prompt / B;
}

bool sequence_next_hash(struct sequence *s, struct digest *out)
{
    chain_on(s);
    uint32_t i = s->n_computed / B;
    if (i >= s->n_hashes)
        return false;
    *out = s->hashes[i];
    return true;
}

uint32_t sequence_lacks(const struct sequence *s)
{
    uint32_t all = (sequence_total(s) + 1 + B - 1) / B;
    return all > s->n_blocks ? all - s->n_blocks : 0;
}

/* The block that n_computed lies in, when it holds tokens already: ours alone after this. */
static bool own_begun_block(struct sequence *s, kvpool *pool, struct seq_copy *copy)
{
    uint32_t i = s->n_computed / B;
    if (i >= s->n_blocks || kvpool_writable(pool, s->blocks[i]))
        return true;
    uint32_t mine = kvpool_take(pool);
    if (mine == KVPOOL_NONE)
        return false;
    *copy = (struct seq_copy){s->blocks[i], mine, s->n_computed % B};
    if (copy->n_tokens == 0)
        kvpool_unref(pool, s->blocks[i]);
    s->blocks[i] = mine;
    return true;
}

uint32_t sequence_room(struct sequence *s, kvpool *pool, uint32_t until, struct seq_copy *copy)
{
    copy->n_tokens = 0;
    if (!own_begun_block(s, pool, copy))
        return s->n_computed;
    while (s->n_blocks * B < until) {
        uint32_t block = kvpool_take(pool);
        if (block == KVPOOL_NONE)
            break;
        add_block(s, block);
    }
    return s->n_blocks * B < until ? s->n_blocks * B : until;
}

void sequence_computed(struct sequence *s, kvpool *pool, uint32_t until)
{
    chain_on(s);
    CHECK(until <= s->n_blocks * B && until <= sequence_total(s));
    for (uint32_t i = s->n_computed / B; i < until / B; i++)
        s->blocks[i] = kvpool_publish(pool, s->blocks[i], &s->hashes[i]);
    s->n_computed = until;
}

void sequence_drop(struct sequence *s, kvpool *pool)
{
    /* from the end: of a prefix, the beginning is to be forgotten last */
    while (s->n_blocks > 0)
        kvpool_unref(pool, s->blocks[--s->n_blocks]);
    s->n_computed = 0;
    drafter_clear(&s->drafter);
}
