/* What is to be sent after the next step is on its way: one batch of deltas per gateway, then ends
 * and errors. */
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

struct outbox {
    arena *a;
    struct note *notes;
    size_t n, cap;
    struct sched_delta *batch;
    size_t cap_batch;
};

struct outbox *outbox_new(void)
{
    struct outbox *o = xcalloc(1, sizeof *o);
    o->a = arena_new(0);
    return o;
}

void outbox_free(struct outbox *o)
{
    if (!o)
        return;
    arena_free(o->a);
    free(o->notes);
    free(o->batch);
    free(o);
}

static struct note *add_note(struct outbox *o, uint64_t gateway, uint64_t request)
{
    if (o->n == o->cap) {
        o->cap = o->cap ? o->cap * 2 : 64;
        o->notes = xrealloc(o->notes, o->cap, sizeof *o->notes);
    }
    struct note *n = &o->notes[o->n++];
    *n = (struct note){.gateway = gateway, .request = request};
    return n;
}

static void *keep(struct outbox *o, const void *p, size_t n)
{
    void *copy = arena_get(o->a, n ? n : 1);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

void outbox_delta(struct outbox *o, uint64_t gateway, const struct sched_delta *d)
{
    struct note *n = add_note(o, gateway, d->request);
    n->kind = NOTE_DELTA;
    n->delta = *d;
    n->delta.ids = keep(o, d->ids, d->n_ids * sizeof *d->ids);
    n->delta.text = arena_slice(o->a, d->text);
    if (d->logprobs)
        n->delta.logprobs = keep(o, d->logprobs, d->n_ids * sizeof *d->logprobs);
}

void outbox_done(struct outbox *o, uint64_t gateway, const struct sched_done *d)
{
    struct note *n = add_note(o, gateway, d->request);
    n->kind = NOTE_DONE;
    n->done = *d;
    struct sched_end *ends = keep(o, d->ends, d->n_ends * sizeof *ends);
    for (size_t i = 0; i < d->n_ends; i++) {
        ends[i].text = arena_slice(o->a, ends[i].text);
        ends[i].stop = arena_slice(o->a, ends[i].stop);
    }
    n->done.ends = ends;
}

void outbox_error(struct outbox *o, uint64_t gateway, uint64_t request, uint32_t attempt, int err,
                  const struct why *w)
{
    struct note *n = add_note(o, gateway, request);
    n->kind = NOTE_ERROR;
    n->error.attempt = attempt;
    n->error.err = err;
    if (w)
        n->error.why = *w;
}

void outbox_forget(struct outbox *o, uint64_t gateway, uint64_t request)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->notes[i].gateway == gateway && (request == 0 || o->notes[i].request == request))
            o->notes[i].kind = NOTE_NONE;
}

/* All deltas of the gateway that note i belongs to, as one batch. */
static void send_batch(struct outbox *o, size_t i, const struct sched_out *out)
{
    if (o->cap_batch < o->n) {
        o->cap_batch = o->cap;
        o->batch = xrealloc(o->batch, o->cap_batch, sizeof *o->batch);
    }
    size_t n = 0;
    uint64_t gateway = o->notes[i].gateway;
    for (; i < o->n; i++) {
        struct note *t = &o->notes[i];
        if (t->kind != NOTE_DELTA || t->gateway != gateway)
            continue;
        o->batch[n++] = t->delta;
        t->kind = NOTE_NONE;
    }
    out->deltas(out->ctx, gateway, o->batch, n);
}

void outbox_flush(struct outbox *o, const struct sched_out *out)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->notes[i].kind == NOTE_DELTA)
            send_batch(o, i, out);
    for (size_t i = 0; i < o->n; i++) {
        const struct note *n = &o->notes[i];
        if (n->kind == NOTE_DONE)
            out->done(out->ctx, n->gateway, &n->done);
        else if (n->kind == NOTE_ERROR)
            out->error(out->ctx, n->gateway, n->request, n->error.attempt, n->error.err,
                       &n->error.why);
    }
    o->n = 0;
    arena_reset(o->a);
}
