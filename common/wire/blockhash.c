#include "common/wire/blockhash.h"

struct blockhash {
    struct digest tenant; /* the key of every hash */
    struct digest last;   /* of the last whole block; before the first: of model and adapter */
    buf salts;            /* since the last whole block */
    int32_t ids[BLOCK_TOKENS];
    size_t n_ids; /* of the unfinished block */
};

static slice key_of(const blockhash *h)
{
    return (slice){(const char *)h->tenant.b, sizeof h->tenant.b};
}

blockhash *blockhash_new(slice tenant, slice model, slice adapter)
{
    CHECK(tenant.n == DIGEST_BYTES);
    blockhash *h = xcalloc(1, sizeof *h);
    memcpy(h->tenant.b, tenant.p, DIGEST_BYTES);
    digest_stream *s = digest_begin(key_of(h));
    static const char label[] = "nunchi block 1";
    digest_add(s, label, sizeof label - 1);
    digest_add_slice(s, model);
    digest_add_slice(s, adapter);
    h->last = digest_end(s);
    return h;
}

void blockhash_free(blockhash *h)
{
    if (!h)
        return;
    buf_clear(&h->salts);
    free(h);
}

void blockhash_salt(blockhash *h, slice salt)
{
    buf_put_slice(&h->salts, salt);
}

static void add_tail(const blockhash *h, digest_stream *s)
{
    digest_add(s, h->last.b, sizeof h->last.b);
    digest_add_slice(s, buf_slice(&h->salts));
    for (size_t i = 0; i < h->n_ids; i++)
        digest_add_u32(s, (uint32_t)h->ids[i]);
}

bool blockhash_token(blockhash *h, int32_t id, struct digest *out)
{
    h->ids[h->n_ids++] = id;
    if (h->n_ids < BLOCK_TOKENS)
        return false;
    digest_stream *s = digest_begin(key_of(h));
    add_tail(h, s);
    h->last = digest_end(s);
    h->n_ids = 0;
    buf_reset(&h->salts);
    *out = h->last;
    return true;
}

struct digest blockhash_content(const blockhash *h)
{
    digest_stream *s = digest_begin(key_of(h));
    static const char label[] = "nunchi prompt 1";
    digest_add(s, label, sizeof label - 1);
    add_tail(h, s);
    return digest_end(s);
}
