/* What is to be sent after the next step is on its way: one batch of deltas per gateway, then ends
 * and errors. Two pages: one is filled by whoever holds the scheduler while the other is sent. */
#include "model-svc/core_int.h"

struct note {
    uint64_t gateway, request;
    enum { NOTE_DELTA, NOTE_DONE, NOTE_ERROR, NOTE_NONE } kind;
    union {
        struct sched_delta delta;
        struct sched_done done;
        struct {
            uint32_t attempt;
            int err;
            struct why why;
        } error;
    };
};

struct page {
    arena *a;
    struct note *notes;
    size_t n, cap;
};

struct outbox {
    struct page pages[2], *filled, *sent;
    struct sched_delta *batch;
    size_t cap_batch;
};

struct outbox *outbox_new(void)
{
    struct outbox *o = xcalloc(1, sizeof *o);
    o->filled = &o->pages[0];
    o->sent = &o->pages[1];
    o->filled->a = arena_new(0);
    o->sent->a = arena_new(0);
    return o;
}

void outbox_free(struct outbox *o)
{
    if (!o)
        return;
    for (int i = 0; i < 2; i++) {
        arena_free(o->pages[i].a);
        free(o->pages[i].notes);
    }
    free(o->batch);
    free(o);
}

static struct note *add_note(struct page *o, uint64_t gateway, uint64_t request)
{
    if (o->n == o->cap) {
        o->cap = o->cap ? o->cap * 2 : 64;
        o->notes = xrealloc(o->notes, o->cap, sizeof *o->notes);
    }
    struct note *n = &o->notes[o->n++];
    *n = (struct note){.gateway = gateway, .request = request};
    return n;
}

static void *keep(struct page *o, const void *p, size_t n)
{
    void *copy = arena_get(o->a, n ? n : 1);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

void outbox_delta(struct outbox *o, uint64_t gateway, const struct sched_delta *d)
{
    struct note *n = add_note(o->filled, gateway, d->request);
    n->kind = NOTE_DELTA;
    n->delta = *d;
    n->delta.ids = keep(o->filled, d->ids, d->n_ids * sizeof *d->ids);
    n->delta.text = arena_slice(o->filled->a, d->text);
    if (d->logprobs)
        n->delta.logprobs = keep(o->filled, d->logprobs, d->n_ids * sizeof *d->logprobs);
}

void outbox_done(struct outbox *o, uint64_t gateway, const struct sched_done *d)
{
    struct note *n = add_note(o->filled, gateway, d->request);
    n->kind = NOTE_DONE;
    n->done = *d;
    struct sched_end *ends = keep(o->filled, d->ends, d->n_ends * sizeof *ends);
    for (size_t i = 0; i < d->n_ends; i++) {
        ends[i].text = arena_slice(o->filled->a, ends[i].text);
        ends[i].stop = arena_slice(o->filled->a, ends[i].stop);
    }
    n->done.ends = ends;
}

void outbox_error(struct outbox *o, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                  const struct why *w)
{
    struct note *n = add_note(o->filled, gateway, request);
    n->kind = NOTE_ERROR;
    n->error.attempt = attempt;
    n->error.err = err;
    if (w)
        n->error.why = *w;
}

void outbox_forget(struct outbox *o, uint64_t gateway, uint64_t request)
{
    struct page *p = o->filled;
    for (size_t i = 0; i < p->n; i++)
        if (p->notes[i].gateway == gateway && (request == 0 || p->notes[i].request == request))
            p->notes[i].kind = NOTE_NONE;
}

void outbox_turn(struct outbox *o)
{
    CHECK(o->sent->n == 0);
    struct page *p = o->filled;
    o->filled = o->sent;
    o->sent = p;
}

/* All deltas of the gateway that note i belongs to, as one batch. */
static void send_batch(struct outbox *o, size_t i, const struct sched_out *out)
{
    struct page *p = o->sent;
    if (o->cap_batch < p->n) {
        o->cap_batch = p->cap;
        o->batch = xrealloc(o->batch, o->cap_batch, sizeof *o->batch);
    }
    size_t n = 0;
    uint64_t gateway = p->notes[i].gateway;
    for (; i < p->n; i++) {
        struct note *t = &p->notes[i];
        if (t->kind != NOTE_DELTA || t->gateway != gateway)
            continue;
        o->batch[n++] = t->delta;
        t->kind = NOTE_NONE;
    }
    out->deltas(out->ctx, gateway, o->batch, n);
}

void outbox_send(struct outbox *o, const struct sched_out *out)
{
    struct page *p = o->sent;
    for (size_t i = 0; i < p->n; i++)
        if (p->notes[i].kind == NOTE_DELTA)
            send_batch(o, i, out);
    for (size_t i = 0; i < p->n; i++) {
        const struct note *n = &p->notes[i];
        if (n->kind == NOTE_DONE)
            out->done(out->ctx, n->gateway, &n->done);
        else if (n->kind == NOTE_ERROR)
            out->error(out->ctx, n->gateway, n->request, n->error.attempt, n->error.err,
                       &n->error.why);
    }
    p->n = 0;
    arena_reset(p->a);
}
