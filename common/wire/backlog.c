#include "common/wire/backlog.h"

struct parcel {
    struct list link;
    struct wire_msg msg; /* its slices point into bytes, or into what is held */
    size_t n;
    char bytes[];
};

void backlog_init(struct backlog *b)
{
    *b = (struct backlog){.bytes = 0};
    list_init(&b->parcels);
}

static void drop(struct backlog *b, struct parcel *p)
{
    list_remove(&p->link);
    b->bytes -= p->n;
    for (size_t i = 0; i < p->msg.n_frames; i++)
        if (p->msg.held[i])
            shared_unref(p->msg.held[i]);
    free(p);
}

void backlog_clear(struct backlog *b)
{
    for (struct list *it; (it = list_first(&b->parcels));)
        drop(b, CONTAINER_OF(it, struct parcel, link));
}

bool backlog_empty(const struct backlog *b)
{
    return list_empty(&b->parcels);
}

static size_t bytes_of(const struct wire_msg *m)
{
    size_t n = m->body.n;
    for (size_t i = 0; i < m->n_frames; i++)
        n += m->frames[i].n;
    return n;
}

static slice copy(struct parcel *p, size_t *at, slice from)
{
    slice to = {p->bytes + *at, from.n};
    if (from.n)
        memcpy(p->bytes + *at, from.p, from.n);
    *at += from.n;
    return to;
}

int backlog_keep(struct backlog *b, const struct wire_msg *m)
{
    size_t n = bytes_of(m), at = 0;
    if (n > BACKLOG_BYTES_MAX - b->bytes)
        return ERR_TOO_BIG;
    struct parcel *p = xcalloc(1, sizeof *p + n);
    p->msg = *m;
    p->n = n;
    p->msg.body = copy(p, &at, m->body);
    for (size_t i = 0; i < m->n_frames; i++) {
        if (m->held[i])
            shared_ref(m->held[i]);
        else
            p->msg.frames[i] = copy(p, &at, m->frames[i]);
    }
    list_append(&b->parcels, &p->link);
    b->bytes += n;
    return 0;
}

void backlog_flush(struct backlog *b, int (*send)(void *ctx, const struct wire_msg *m), void *ctx)
{
    for (struct list *it; (it = list_first(&b->parcels));) {
        struct parcel *p = CONTAINER_OF(it, struct parcel, link);
        if (send(ctx, &p->msg) == ERR_AGAIN)
            return;
        drop(b, p);
    }
}
