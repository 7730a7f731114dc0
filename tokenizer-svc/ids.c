#include "tokenizer-svc/ids.h"

int ids_reserve(struct ids *l, size_t more)
{
    size_t want;
    if (size_add(l->n, more, &want) < 0)
        return ERR_NOMEM;
    if (want <= l->cap)
        return 0;
    size_t cap = l->cap < 64 ? 64 : l->cap;
    while (cap < want)
        if (size_mul(cap, 2, &cap) < 0)
            return ERR_NOMEM;
    size_t bytes;
    if (size_mul(cap, sizeof *l->p, &bytes) < 0)
        return ERR_NOMEM;
    int32_t *p = realloc(l->p, bytes);
    if (!p)
        return ERR_NOMEM;
    l->p = p;
    l->cap = cap;
    return 0;
}

int ids_put(struct ids *l, int32_t id)
{
    return ids_put_all(l, &id, 1);
}

int ids_put_all(struct ids *l, const int32_t *p, size_t n)
{
    if (n == 0)
        return 0;
    if (l->cap - l->n < n && ids_reserve(l, n) < 0)
        return ERR_NOMEM;
    memcpy(l->p + l->n, p, n * sizeof *p);
    l->n += n;
    return 0;
}

void ids_clear(struct ids *l)
{
    free(l->p);
    *l = (struct ids){0};
}
