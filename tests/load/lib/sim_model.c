/* A model worker that waits instead of computing: prompts one after the other at a rate, then a
 * token for every running answer at each step. Goes on with what another began, keeps to credit,
 * remembers blocks. */
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/wire/pb.h"
#include "proto/generate.pb-c.h"
#include "tests/load/lib/sim.h"
#include "tests/load/lib/words.h"

#define BLOCK_IDS 16
#define REQUEST_BYTES_MAX (16u << 20)
#define CHOICES 16
#define STEP_BYTES_MAX (16u << 20)

struct answer {
    struct list link;
    uint64_t gateway, request; /* gateway: the link's id */
    uint32_t attempt;
    uint64_t prompt; /* words.h */
    uint32_t n_choices, done[CHOICES], begun[CHOICES], max_tokens;
    uint64_t credit, ready_us;
    uint32_t prompt_tokens, cached_tokens;
    bool told, over;
};

struct sim_model {
    loop *l;
    bus *b;
    const struct sim_options *o;
    struct why *w;
    int err;
    links *ls;
    struct list answers;
    size_t n_answers;
    uint64_t prefill_free_us, steps;
    struct loop_timer step;
    uint64_t phase;
    map *blocks; /* name -> place in ring */
    uint64_t *ring;
    size_t next;
    buf body;
};

/* ---- what it remembers ---- */

static uint32_t cached(sim_model *m, slice ids)
{
    uint64_t sum = WORDS_BEGIN;
    uint32_t n = 0;
    for (size_t at = 0; at + BLOCK_IDS * 4 <= ids.n; at += BLOCK_IDS * 4) {
        sum = words_sum(sum, (slice){ids.p + at, BLOCK_IDS * 4});
        if (!map_get_u64(m->blocks, sum))
            break;
        n += BLOCK_IDS;
    }
    return n;
}

static void remember(sim_model *m, slice ids)
{
    uint64_t sum = WORDS_BEGIN;
    for (size_t at = 0; at + BLOCK_IDS * 4 <= ids.n; at += BLOCK_IDS * 4) {
        sum = words_sum(sum, (slice){ids.p + at, BLOCK_IDS * 4});
        if (map_get_u64(m->blocks, sum))
            continue;
        uint64_t *place = &m->ring[m->next++ % (size_t)m->o->kv_blocks];
        if (*place)
            map_del_u64(m->blocks, *place);
        *place = sum;
        map_put_u64(m->blocks, sum, place);
    }
}

/* ---- steps ---- */

static void drop(sim_model *m, struct answer *a)
{
    list_remove(&a->link);
    m->n_answers--;
    free(a);
}

static Nunchi__Delta *delta_of(arena *mem, struct answer *a, uint32_t choice, uint64_t stamp)
{
    Nunchi__Delta *d = arena_get(mem, sizeof *d);
    nunchi__delta__init(d);
    d->request = a->request;
    d->choice = choice;
    d->position = a->done[choice];
    d->ids = arena_get(mem, sizeof *d->ids);
    d->n_ids = 1;
    d->ids[0] = words_id(a->prompt, choice, a->done[choice]);
    char *word = arena_get(mem, WORD_MAX);
    d->text = pb_bytes(stamp ? words_stamp(stamp, word) : words_text(d->ids[0], word));
    if (!a->told)
        d->cached_tokens = a->cached_tokens;
    return d;
}

/* One token for each choice that may have one. */
static size_t advance(arena *mem, struct answer *a, uint64_t now, bool stamps, Nunchi__Delta **out)
{
    size_t n = 0;
    bool over = true;
    if (a->ready_us > now)
        return 0;
    for (uint32_t c = 0; c < a->n_choices; c++) {
        if (a->done[c] < a->max_tokens && a->credit > 0) {
            out[n++] = delta_of(mem, a, c, stamps ? clock_mono_us() : 0);
            a->told = true;
            a->done[c]++;
            a->credit--;
        }
        over &= a->done[c] >= a->max_tokens;
    }
    a->over = over;
    return n;
}

static void post(sim_model *m, peer_link *k, const struct wire_head *h,
                 const ProtobufCMessage *body)
{
    buf_reset(&m->body);
    pb_pack(body, &m->body);
    struct wire_msg msg = {.head = *h, .body = buf_slice(&m->body)};
    if (link_post(k, &msg) < 0)
        log_debug("the gateway is gone", LOG_STR("endpoint", link_endpoint(k)));
}

static void say_done(sim_model *m, peer_link *k, const struct answer *a)
{
    Nunchi__Generated g;
    Nunchi__ChoiceEnd ends[CHOICES], *list[CHOICES];
    nunchi__generated__init(&g);
    for (uint32_t c = 0; c < a->n_choices; c++) {
        nunchi__choice_end__init(&ends[c]);
        ends[c].choice = c;
        ends[c].reason = NUNCHI__CHOICE_END__REASON__LENGTH;
        ends[c].n_ids = a->done[c];
        list[c] = &ends[c];
    }
    g.ends = list;
    g.n_ends = a->n_choices;
    g.prompt_tokens = a->prompt_tokens;
    g.cached_tokens = a->cached_tokens;
    struct wire_head h = {.type = WIRE_DONE, .request = a->request, .attempt = a->attempt};
    post(m, k, &h, &g.base);
}

/* What a gateway cannot take now would be lost with its connection: it gets no token before it can.
 */
static void step_for(sim_model *m, peer_link *k, uint64_t now)
{
    arena *mem = arena_new(0);
    Nunchi__StepTokens s;
    nunchi__step_tokens__init(&s);
    s.deltas = arena_get(mem, (m->n_answers * CHOICES + 1) * sizeof *s.deltas);
    LIST_EACH(it, &m->answers)
    {
        struct answer *a = CONTAINER_OF(it, struct answer, link);
        if (a->gateway == link_id(k))
            s.n_deltas += advance(mem, a, now, m->o->stamps, s.deltas + s.n_deltas);
    }
    if (s.n_deltas) {
        struct wire_head h = {.type = WIRE_CHUNK, .flags = WIRE_MANY};
        post(m, k, &h, &s.base);
    }
    LIST_EACH(it, &m->answers)
    {
        struct answer *a = CONTAINER_OF(it, struct answer, link);
        if (a->gateway == link_id(k) && a->over) {
            say_done(m, k, a);
            drop(m, a);
        }
    }
    arena_free(mem);
}

static void on_step(void *ctx)
{
    sim_model *m = ctx;
    uint64_t now = clock_mono_us(), every = (uint64_t)m->o->step_ms * 1000;
    m->steps++;
    for (peer_link *k = links_next(m->ls, NULL); k; k = links_next(m->ls, k))
        step_for(m, k, now);
    if (m->n_answers)
        loop_timer_set(m->l, &m->step,
                       m->step.at_us + every > now ? m->step.at_us + every : now + every);
}

/* ---- requests ---- */

static bool take_prompt(sim_model *m, struct answer *a, const Nunchi__Generate *q,
                        const struct wire_msg *msg)
{
    buf ids = {0};
    for (size_t i = 0; i < q->n_segments; i++) {
        const Nunchi__Segment *s = q->segments[i];
        if (s->kind_case != NUNCHI__SEGMENT__KIND_TOKENS || s->tokens->frame >= msg->n_frames)
            break;
        buf_put_slice(&ids, msg->frames[s->tokens->frame]);
    }
    slice all = buf_slice(&ids);
    uint64_t now = clock_mono_us(), from = m->prefill_free_us > now ? m->prefill_free_us : now;
    a->prompt = words_prompt(all);
    a->prompt_tokens = (uint32_t)(all.n / 4);
    a->cached_tokens = cached(m, all);
    if (a->cached_tokens && a->cached_tokens >= a->prompt_tokens)
        a->cached_tokens = a->prompt_tokens - 1;
    remember(m, all);
    buf_clear(&ids);
    m->prefill_free_us = a->ready_us = from + (uint64_t)(a->prompt_tokens - a->cached_tokens) *
                                                  1000000 / (uint64_t)m->o->prefill_rate;
    return a->prompt_tokens > 0 && q->n_choices > 0 && q->n_choices <= CHOICES;
}

/* Workers that began at one time would all step at one time for ever: each has a phase of its own. */
static uint64_t next_step(const sim_model *m)
{
    uint64_t every = (uint64_t)m->o->step_ms * 1000, now = clock_mono_us();
    return now - now % every + every + m->phase % every;
}

static void on_request(sim_model *m, peer_link *k, const struct wire_msg *msg)
{
    arena *mem = arena_new(REQUEST_BYTES_MAX);
    void *v;
    if (pb_unpack(mem, &nunchi__generate__descriptor, msg->body, WIRE_BODY_MAX, &v, NULL) < 0) {
        sim_error(k, &msg->head, ERR_INVALID);
        arena_free(mem);
        return;
    }
    const Nunchi__Generate *q = v;
    struct answer *a = xcalloc(1, sizeof *a);
    a->gateway = link_id(k);
    a->request = msg->head.request;
    a->attempt = msg->head.attempt;
    if (take_prompt(m, a, q, msg)) {
        a->n_choices = (uint32_t)q->n_choices;
        for (uint32_t c = 0; c < a->n_choices; c++)
            a->done[c] = (uint32_t)q->choices[c]->n_ids;
        a->max_tokens = q->max_tokens;
        a->credit = q->credit;
        if (m->n_answers++ == 0)
            loop_timer_set(m->l, &m->step, next_step(m));
        list_append(&m->answers, &a->link);
    } else {
        sim_error(k, &msg->head, ERR_INVALID);
        free(a);
    }
    arena_free(mem);
}

static struct answer *find(sim_model *m, uint64_t gateway, uint64_t request)
{
    LIST_EACH(it, &m->answers)
    {
        struct answer *a = CONTAINER_OF(it, struct answer, link);
        if (a->gateway == gateway && a->request == request)
            return a;
    }
    return NULL;
}

static void on_credit(struct answer *a, slice body)
{
    arena *mem = arena_new(4096);
    void *v;
    if (pb_unpack(mem, &nunchi__credit__descriptor, body, WIRE_CONTROL_MAX, &v, NULL) == 0)
        a->credit += ((const Nunchi__Credit *)v)->amount;
    arena_free(mem);
}

static void on_msg(void *ctx, peer_link *k, const struct wire_msg *msg)
{
    sim_model *m = ctx;
    if (msg->head.type == WIRE_REQUEST) {
        on_request(m, k, msg);
        return;
    }
    struct answer *a = find(m, link_id(k), msg->head.request);
    if (a && msg->head.type == WIRE_CANCEL)
        drop(m, a);
    else if (a && msg->head.type == WIRE_CREDIT)
        on_credit(a, msg->body);
}

static void on_down(void *ctx, peer_link *k, const char *reason UNUSED)
{
    sim_model *m = ctx;
    LIST_EACH(it, &m->answers)
    {
        struct answer *a = CONTAINER_OF(it, struct answer, link);
        if (a->gateway == link_id(k))
            drop(m, a);
    }
}

static void on_heartbeat(void *ctx, peer_link *k, Nunchi__Heartbeat *out)
{
    sim_model *m = ctx;
    uint64_t now = clock_mono_us();
    out->slots = (uint32_t)m->o->slots;
    out->running = (uint32_t)m->n_answers;
    out->kv_blocks = (uint32_t)m->o->kv_blocks;
    out->prefill_tok_s = (uint32_t)m->o->prefill_rate;
    out->decode_tok_s =
        (uint32_t)(1000 * (m->n_answers ? m->n_answers : 1) / (uint64_t)m->o->step_ms);
    if (m->prefill_free_us > now)
        out->queued_tokens = (m->prefill_free_us - now) * (uint64_t)m->o->prefill_rate / 1000000;
    out->steps = m->steps;
    out->open_known = true;
    LIST_EACH(it, &m->answers)
    {
        const struct answer *a = CONTAINER_OF(it, struct answer, link);
        out->open += a->gateway == link_id(k);
        out->parked += a->gateway == link_id(k) && a->credit == 0;
    }
}

/* ---- the worker ---- */

static void connect_all(void *ctx, const Nunchi__Ready *r)
{
    sim_model *m = ctx;
    struct links_config cfg = {.targets = m->o->gateways,
                               .ready = r,
                               .ctx = m,
                               .down = on_down,
                               .msg = on_msg,
                               .heartbeat = on_heartbeat};
    m->err = links_new(m->b, m->l, &cfg, &m->ls, m->w);
}

int sim_model_new(loop *l, bus *b, const struct sim_options *o, sim_model **out, struct why *w)
{
    sim_model *m = xcalloc(1, sizeof *m);
    *m = (sim_model){.l = l, .b = b, .o = o, .w = w, .blocks = map_new()};
    random_bytes(&m->phase, sizeof m->phase);
    m->ring = xcalloc((size_t)o->kv_blocks, sizeof *m->ring);
    m->step = (struct loop_timer){.fn = on_step, .ctx = m};
    list_init(&m->answers);
    sim_ready("model", (uint32_t)o->slots, connect_all, m);
    int e = m->err;
    *out = e < 0 ? NULL : m;
    if (e < 0)
        sim_model_free(m);
    return e;
}

void sim_model_free(sim_model *m)
{
    if (!m)
        return;
    links_free(m->ls);
    loop_timer_cancel(m->l, &m->step);
    LIST_EACH(it, &m->answers)
    drop(m, CONTAINER_OF(it, struct answer, link));
    map_free(m->blocks);
    free(m->ring);
    buf_clear(&m->body);
    free(m);
}
