#include "model-svc/request.h"

#include <stdio.h>

#include "common/wire/pb.h"
#include "common/wire/traced.h"
#include "proto/generate.pb-c.h"

#define TEMPERATURE_MAX 100.0f /* beyond it every filter sees a flat distribution */
#define PENALTY_MAX 2.0f       /* as OpenAI defines it */
#define REPETITION_MAX 10.0f
#define BIAS_MAX 100.0f

struct parse {
    const struct wire_msg *m;
    const struct gen_limits *lim;
    arena *a;
    struct gen_request *out;
    struct why *w;
};

static int in_range(struct parse *p, const char *field, float v, float min, float max)
{
    /* written so that nan fails */
    if (v >= min && v <= max)
        return 0;
    return why_set(p->w, ERR_INVALID, field, "%s must be from %g to %g", field, (double)min,
                   (double)max);
}

static int check_model(struct parse *p, const Nunchi__Generate *g)
{
    if (!slice_eq_str(p->lim->model, g->model))
        return why_set(p->w, ERR_NOT_FOUND, "model", "this worker serves another model");
    if (g->adapter[0])
        return why_set(p->w, ERR_UNSUPPORTED, "adapter", "adapters are not supported yet");
    if (g->constraint && g->constraint->kind != NUNCHI__CONSTRAINT__KIND__NONE)
        return why_set(p->w, ERR_UNSUPPORTED, "constraint",
                       "constrained answers are not supported yet");
    return 0;
}

static int take_identity(struct parse *p, const Nunchi__Generate *g)
{
    static const char no_tenant[GENERATE_TENANT_BYTES];
    struct gen_request *r = p->out;
    r->request = p->m->head.request;
    r->attempt = p->m->head.attempt;
    if (r->request == 0)
        return why_set(p->w, ERR_INVALID, "request", "request id 0 is the connection's own");
    if (g->tenant.len && g->tenant.len != GENERATE_TENANT_BYTES)
        return why_set(p->w, ERR_INVALID, "tenant", "tenant has %zu bytes, not %d", g->tenant.len,
                       GENERATE_TENANT_BYTES);
    if (g->client.len && g->client.len != GENERATE_CLIENT_BYTES)
        return why_set(p->w, ERR_INVALID, "client", "client has %zu bytes, not %d", g->client.len,
                       GENERATE_CLIENT_BYTES);
    if (g->priority < -1 || g->priority > 1)
        return why_set(p->w, ERR_INVALID, "priority", "priority must be -1, 0 or 1");
    r->tenant = g->tenant.len ? pb_slice(g->tenant) : (slice){no_tenant, sizeof no_tenant};
    r->client = pb_slice(g->client);
    r->priority = g->priority;
    r->deadline_ms = g->deadline_ms;
    r->credit = g->credit;
    r->no_store = g->no_store;
    r->alone = g->alone;
    return 0;
}

static int check_id(struct parse *p, const char *field, int32_t id)
{
    if (id >= 0 && (uint32_t)id < p->lim->n_vocab)
        return 0;
    return why_set(p->w, ERR_INVALID, field, "token id %d is not in the vocabulary of %u", (int)id,
                   p->lim->n_vocab);
}

/* Names the segment in the field of an error. */
static int bad_segment(struct parse *p, int err, size_t i, const char *what, const char *text)
{
    char field[WHY_FIELD_MAX];
    snprintf(field, sizeof field, "segments[%zu]%s%s", i, *what ? "." : "", what);
    return why_set(p->w, err, field, "%s", text);
}

static int check_segment(struct parse *p, size_t i, const Nunchi__Segment *s)
{
    if (s->kind_case == NUNCHI__SEGMENT__KIND_ROWS)
        return bad_segment(p, ERR_UNSUPPORTED, i, "rows", "feature rows are not supported yet");
    if (s->kind_case != NUNCHI__SEGMENT__KIND_TOKENS || !s->tokens)
        return bad_segment(p, ERR_UNSUPPORTED, i, "",
                           "a kind of segment that this version does not know");
    const Nunchi__Tokens *t = s->tokens;
    if (t->frame >= p->m->n_frames)
        return bad_segment(p, ERR_INVALID, i, "tokens.frame", "no such bulk frame");
    if (p->m->frames[t->frame].n != (size_t)t->n * 4)
        return bad_segment(p, ERR_INVALID, i, "tokens.n",
                           "the bulk frame does not hold n ids of 4 bytes");
    if (t->salt.len && t->salt.len != GENERATE_SALT_BYTES)
        return bad_segment(p, ERR_INVALID, i, "tokens.salt", "a salt has 16 bytes");
    return 0;
}

static int32_t le32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (int32_t)((uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 |
                     (uint32_t)u[3] << 24);
}

/* The sum comes before any copy: segments may name one frame many times. */
static int count_prompt(struct parse *p, const Nunchi__Generate *g)
{
    if (g->n_segments == 0 || g->n_segments > GENERATE_SEGMENTS_MAX)
        return why_set(p->w, ERR_INVALID, "segments", "%zu segments; 1 to %d are allowed",
                       g->n_segments, GENERATE_SEGMENTS_MAX);
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_segments; i++) {
        int err = check_segment(p, i, g->segments[i]);
        if (err < 0)
            return err;
        n += g->segments[i]->tokens->n;
    }
    if (n == 0)
        return why_set(p->w, ERR_INVALID, "segments", "the prompt has no tokens");
    if (n >= p->lim->n_context)
        return why_set(
            p->w, ERR_TOO_BIG, "segments",
            "the prompt has %llu tokens; the context of %u must hold it and at least one more",
            (unsigned long long)n, p->lim->n_context);
    p->out->n_prompt = (uint32_t)n;
    return 0;
}

static int take_prompt(struct parse *p, const Nunchi__Generate *g)
{
    int err = count_prompt(p, g);
    if (err < 0)
        return err;
    int32_t *ids = arena_try(p->a, (size_t)p->out->n_prompt * sizeof *ids);
    struct gen_salt *salts = arena_try(p->a, g->n_segments * sizeof *salts);
    if (!ids || !salts)
        return why_set(p->w, ERR_NOMEM, "segments", "no memory for the prompt");
    uint32_t n = 0;
    for (size_t i = 0; i < g->n_segments; i++) {
        const Nunchi__Tokens *t = g->segments[i]->tokens;
        if (t->salt.len)
            salts[p->out->n_salts++] = (struct gen_salt){n, pb_slice(t->salt)};
        for (uint32_t k = 0; k < t->n; k++, n++) {
            ids[n] = le32(p->m->frames[t->frame].p + (size_t)k * 4);
            if ((err = check_id(p, "segments", ids[n])) < 0)
                return err;
        }
    }
    p->out->prompt = ids;
    p->out->salts = salts;
    return 0;
}

static int take_bias(struct parse *p, const Nunchi__Sampling *s)
{
    if (s->n_bias > SAMPLE_BIAS_MAX)
        return why_set(p->w, ERR_INVALID, "sampling.bias", "%zu biases, at most %d", s->n_bias,
                       SAMPLE_BIAS_MAX);
    struct sample_bias *b = arena_try(p->a, s->n_bias * sizeof *b + 1);
    if (!b)
        return why_set(p->w, ERR_NOMEM, "sampling.bias", "no memory");
    for (size_t i = 0; i < s->n_bias; i++) {
        b[i] = (struct sample_bias){s->bias[i]->id, s->bias[i]->add};
        int err = check_id(p, "sampling.bias", b[i].id);
        if (err < 0 || (err = in_range(p, "sampling.bias", b[i].add, -BIAS_MAX, BIAS_MAX)) < 0)
            return err;
    }
    p->out->sampling.bias = b;
    p->out->sampling.n_bias = s->n_bias;
    return 0;
}

static int take_sampling(struct parse *p, const Nunchi__Generate *g)
{
    const Nunchi__Sampling *s = g->sampling;
    if (!s)
        return why_set(p->w, ERR_INVALID, "sampling", "sampling parameters are missing");
    float repetition = s->repetition_penalty == 0 ? 1 : s->repetition_penalty;
    int err;
    if ((err = in_range(p, "sampling.temperature", s->temperature, 0, TEMPERATURE_MAX)) < 0 ||
        (err = in_range(p, "sampling.top_p", s->top_p, 0, 1)) < 0 ||
        (err = in_range(p, "sampling.min_p", s->min_p, 0, 1)) < 0 ||
        (err = in_range(p, "sampling.presence_penalty", s->presence_penalty, -PENALTY_MAX,
                        PENALTY_MAX)) < 0 ||
        (err = in_range(p, "sampling.frequency_penalty", s->frequency_penalty, -PENALTY_MAX,
                        PENALTY_MAX)) < 0 ||
        (err = in_range(p, "sampling.repetition_penalty", repetition, 0.01f, REPETITION_MAX)) < 0 ||
        (err = in_range(p, "sampling.top_logprobs", (float)s->top_logprobs, 0,
                        SAMPLE_LOGPROBS_MAX)) < 0)
        return err;
    p->out->sampling = (struct sample_params){.temperature = s->temperature,
                                              .top_p = s->top_p,
                                              .min_p = s->min_p,
                                              .top_k = s->top_k,
                                              .presence_penalty = s->presence_penalty,
                                              .frequency_penalty = s->frequency_penalty,
                                              .repetition_penalty = repetition,
                                              .seed = s->seed,
                                              .n_logprobs = s->logprobs ? s->top_logprobs : 0,
                                              .want_logprob = s->logprobs,
                                              .forbid_ends = g->ignore_eos};
    return take_bias(p, s);
}

static int take_choice(struct parse *p, const Nunchi__Choice *c)
{
    struct gen_request *r = p->out;
    if (c->index >= GENERATE_CHOICES_MAX)
        return why_set(p->w, ERR_INVALID, "choices", "a choice's index is below %d",
                       GENERATE_CHOICES_MAX);
    for (size_t i = 0; i < r->n_choices; i++)
        if (r->choices[i].index == c->index)
            return why_set(p->w, ERR_INVALID, "choices", "choice %u is there twice", c->index);
    if (c->n_ids > r->max_tokens)
        return why_set(p->w, ERR_INVALID, "choices",
                       "choice %u has %zu ids already, more than the %u it may have", c->index,
                       c->n_ids, r->max_tokens);
    for (size_t i = 0; i < c->n_ids; i++) {
        int err = check_id(p, "choices", c->ids[i]);
        if (err < 0)
            return err;
    }
    r->choices[r->n_choices++] = (struct gen_choice){c->index, c->ids, (uint32_t)c->n_ids};
    return 0;
}

static int take_choices(struct parse *p, const Nunchi__Generate *g)
{
    if (g->n_choices == 0 || g->n_choices > GENERATE_CHOICES_MAX)
        return why_set(p->w, ERR_INVALID, "choices", "%zu choices; 1 to %d are allowed",
                       g->n_choices, GENERATE_CHOICES_MAX);
    for (size_t i = 0; i < g->n_choices; i++) {
        int err = take_choice(p, g->choices[i]);
        if (err < 0)
            return err;
    }
    return 0;
}

static int take_stops(struct parse *p, const Nunchi__Generate *g)
{
    if (g->n_stop > STOPS_MAX)
        return why_set(p->w, ERR_INVALID, "stop", "%zu stop strings, at most %d", g->n_stop,
                       STOPS_MAX);
    for (size_t i = 0; i < g->n_stop; i++) {
        if (g->stop[i].len == 0 || g->stop[i].len > STOP_BYTES_MAX)
            return why_set(p->w, ERR_INVALID, "stop", "a stop string has 1 to %d bytes",
                           STOP_BYTES_MAX);
        p->out->stops[i] = pb_slice(g->stop[i]);
    }
    p->out->n_stops = g->n_stop;
    return 0;
}

int gen_request_parse(const struct wire_msg *m, const struct gen_limits *lim, arena *a,
                      struct gen_request *out, struct why *w)
{
    void *v = NULL;
    int err = pb_unpack(a, &nunchi__generate__descriptor, m->body, WIRE_BODY_MAX, &v, w);
    if (err < 0)
        return err;
    const Nunchi__Generate *g = v;
    *out = (struct gen_request){.trace = traced_at(&m->head)};
    struct parse p = {m, lim, a, out, w};
    if ((err = check_model(&p, g)) < 0 || (err = take_identity(&p, g)) < 0 ||
        (err = take_prompt(&p, g)) < 0)
        return err;
    if (g->echoed >= out->n_prompt)
        return why_set(w, ERR_INVALID, "echoed",
                       "%u of the prompt's %u tokens; one at least is computed before", g->echoed,
                       out->n_prompt);
    out->n_prompt -= g->echoed;
    out->echoed = out->prompt + out->n_prompt;
    out->n_echoed = g->echoed;
    /* what does not fit the context ends with LENGTH; 0: as long as there is room */
    uint32_t room = lim->n_context - out->n_prompt;
    out->max_tokens = g->max_tokens > 0 && g->max_tokens < room ? g->max_tokens : room;
    if ((err = take_sampling(&p, g)) < 0 || (err = take_choices(&p, g)) < 0)
        return err;
    return take_stops(&p, g);
}

size_t gen_request_budget(const struct wire_msg *m, const struct gen_limits *lim)
{
    /* the unpacked body (pb.h bounds its fields as well), the ids, and the small arrays */
    size_t unpacked = m->body.n * 40;
    if (unpacked > GENERATE_UNPACKED_MAX)
        unpacked = GENERATE_UNPACKED_MAX;
    return unpacked + (size_t)lim->n_context * sizeof(int32_t) + (1u << 20);
}
