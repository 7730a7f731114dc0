#include "cache-svc/kv_stores.h"

#include "common/base/hash.h"

struct kv_stores {
    size_t n;
    store *stores[KV_STORES_MAX];
    char *addresses[KV_STORES_MAX];
};

static int add(kv_stores *k, loop *l, slice address, const struct store_config *like, struct why *w)
{
    if (k->n == KV_STORES_MAX)
        return why_set(w, ERR_TOO_BIG, "kv-redis", "at most %d servers", KV_STORES_MAX);
    struct store_config cfg = *like;
    cfg.address = k->addresses[k->n] = slice_dup(address);
    int e = store_new(l, &cfg, &k->stores[k->n], w);
    k->n++;
    return e;
}

int kv_stores_new(loop *l, const char *addresses, const struct store_config *like, kv_stores **out,
                  struct why *w)
{
    slice rest = slice_str(addresses ? addresses : ""), one;
    *out = NULL;
    if (slice_trim(rest).n == 0)
        return 0;
    kv_stores *k = xcalloc(1, sizeof *k);
    int e = 0;
    while (e == 0 && slice_split(&rest, ',', &one))
        if (slice_trim(one).n)
            e = add(k, l, slice_trim(one), like, w);
    if (e < 0) {
        kv_stores_free(k);
        return e;
    }
    *out = k;
    return 0;
}

void kv_stores_free(kv_stores *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++) {
        store_free(k->stores[i]);
        free(k->addresses[i]);
    }
    free(k);
}

int kv_stores_send(kv_stores *k, slice group, const slice *argv, size_t n, store_fn fn, void *ctx)
{
    store *best = NULL;
    uint64_t most = 0;
    for (size_t i = 0; i < k->n; i++) {
        uint64_t weight = hash_rendezvous(group, slice_str(k->addresses[i]));
        if (store_up(k->stores[i]) && (!best || weight > most)) {
            best = k->stores[i];
            most = weight;
        }
    }
    return best ? store_send(best, STORE_BULK, argv, n, fn, ctx) : ERR_UNAVAILABLE;
}

size_t kv_stores_up(const kv_stores *k)
{
    size_t n = 0;
    for (size_t i = 0; k && i < k->n; i++)
        n += store_up(k->stores[i]);
    return n;
}
