#include "gateway/suspects.h"

struct suspects {
    size_t next;
    uint64_t latest_us; /* the end of the last of them */
    struct {
        struct digest request;
        uint64_t until_us;
    } list[SUSPECTS_MAX];
};

suspects *suspects_new(void)
{
    return xcalloc(1, sizeof(suspects));
}

void suspects_free(suspects *s)
{
    free(s);
}

void suspects_condemn(suspects *s, const struct digest *request, uint64_t until_us)
{
    size_t i = s->next++ % SUSPECTS_MAX;
    s->list[i].request = *request;
    s->list[i].until_us = until_us;
    s->latest_us = until_us > s->latest_us ? until_us : s->latest_us;
}

bool suspects_any(const suspects *s, uint64_t now_us)
{
    return s->latest_us > now_us;
}

bool suspects_condemned(suspects *s, const struct digest *request, uint64_t now_us)
{
    for (size_t i = 0; i < SUSPECTS_MAX; i++)
        if (s->list[i].until_us > now_us && digest_eq(&s->list[i].request, request))
            return true;
    return false;
}
