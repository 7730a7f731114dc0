#include "model-svc/reply.h"

#include "common/wire/pb.h"
#include "proto/generate.pb-c.h"
#include "proto/session.pb-c.h"

static void pack(const ProtobufCMessage *m, buf *out)
{
    buf_reset(out);
    pb_pack(m, out);
}

/* Arrays for the packer, which takes pointers to what it could write to, and does not. */
static void *keep(arena *a, const void *p, size_t n)
{
    void *copy = arena_get(a, n + 1);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

static Nunchi__TokenLogprob *logprob(const struct sched_vocab *words, const struct sampled *s,
                                     arena *a)
{
    Nunchi__TokenLogprob *t = arena_get(a, sizeof *t);
    nunchi__token_logprob__init(t);
    t->logprob = s->logprob;
    t->text = pb_bytes(words->bytes(words->ctx, s->id));
    t->n_top = s->n_top;
    t->top = arena_get(a, (s->n_top + 1) * sizeof(Nunchi__TopLogprob *));
    for (uint32_t i = 0; i < s->n_top; i++) {
        Nunchi__TopLogprob *o = t->top[i] = arena_get(a, sizeof *o);
        nunchi__top_logprob__init(o);
        o->id = s->top[i].id;
        o->logprob = s->top[i].logprob;
        o->text = pb_bytes(words->bytes(words->ctx, s->top[i].id));
    }
    return t;
}

static Nunchi__Delta *delta(const struct sched_vocab *words, const struct sched_delta *d, arena *a)
{
    Nunchi__Delta *o = arena_get(a, sizeof *o);
    nunchi__delta__init(o);
    o->request = d->request;
    o->attempt = d->attempt;
    o->choice = d->choice;
    o->position = d->position;
    o->n_ids = d->n_ids;
    o->ids = keep(a, d->ids, d->n_ids * sizeof *d->ids);
    o->text = pb_bytes(d->text);
    o->cached_tokens = d->cached_tokens;
    if (!d->logprobs)
        return o;
    o->n_logprobs = d->n_ids;
    o->logprobs = arena_get(a, (d->n_ids + 1) * sizeof(Nunchi__TokenLogprob *));
    for (size_t i = 0; i < d->n_ids; i++)
        o->logprobs[i] = logprob(words, &d->logprobs[i], a);
    return o;
}

void reply_deltas(const struct sched_vocab *words, const struct sched_delta *d, size_t n, arena *a,
                  buf *out)
{
    arena_reset(a);
    Nunchi__StepTokens m = NUNCHI__STEP_TOKENS__INIT;
    m.n_deltas = n;
    m.deltas = arena_get(a, (n + 1) * sizeof(Nunchi__Delta *));
    for (size_t i = 0; i < n; i++)
        m.deltas[i] = delta(words, &d[i], a);
    pack(&m.base, out);
}

static uint32_t us32(uint64_t us)
{
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

void reply_done(const struct sched_done *d, const struct digest *numerics, arena *a, buf *out)
{
    arena_reset(a);
    Nunchi__Generated m = NUNCHI__GENERATED__INIT;
    m.n_ends = d->n_ends;
    m.ends = arena_get(a, (d->n_ends + 1) * sizeof(Nunchi__ChoiceEnd *));
    for (size_t i = 0; i < d->n_ends; i++) {
        Nunchi__ChoiceEnd *e = m.ends[i] = arena_get(a, sizeof *e);
        nunchi__choice_end__init(e);
        e->choice = d->ends[i].choice;
        e->reason = d->ends[i].reason == SEQ_STOP ? NUNCHI__CHOICE_END__REASON__STOP
                                                  : NUNCHI__CHOICE_END__REASON__LENGTH;
        e->n_ids = d->ends[i].n_ids;
        e->text = pb_bytes(d->ends[i].text);
        e->stop = pb_bytes(d->ends[i].stop);
    }
    m.prompt_tokens = d->prompt_tokens;
    m.cached_tokens = d->cached_tokens;
    m.fetched_tokens = d->fetched_tokens;
    m.queue_us = us32(d->queue_us);
    m.prefill_us = us32(d->prefill_us);
    m.decode_us = us32(d->decode_us);
    m.numerics = pb_bytes((slice){(const char *)numerics->b, DIGEST_BYTES});
    pack(&m.base, out);
}

void reply_error(int err, const struct why *w, uint32_t retry_after_ms, arena *a, buf *out)
{
    arena_reset(a);
    Nunchi__Error m;
    nunchi__error__init(&m);
    const char *text = w && w->text[0] ? w->text : err_text(err);
    m.code = err_to_wire(err);
    m.message = pb_bytes(slice_str(text));
    if (w && w->field[0])
        m.param =
            keep(a, w->field, strlen(w->field)); /* NUL behind it: the arena's memory is zeroed */
    m.retry_after_ms = retry_after_ms;
    pack(&m.base, out);
}
