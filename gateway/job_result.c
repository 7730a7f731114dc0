/* The result cache: whole answers under a hash of everything that changes them. A miss is never
 * more than that. */
#include "gateway/core_impl.h"
#include "proto/result.pb-c.h"

#define RESULT_FORMAT 1
#define RESULT_ARENA_BYTES (64u << 20) /* of a value below 1 MiB */

/* ---- the key ---- */

static void add_f32(digest_stream *s, double v)
{
    float f = (float)v; /* as it goes to the worker */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    digest_add_u32(s, bits);
}

static void add_sampling(digest_stream *s, const struct gw_sampling *p)
{
    add_f32(s, p->temperature);
    add_f32(s, p->top_p);
    add_f32(s, p->min_p);
    add_f32(s, p->presence_penalty);
    add_f32(s, p->frequency_penalty);
    add_f32(s, p->repetition_penalty);
    digest_add_u32(s, p->top_k);
    digest_add_u64(s, p->temperature <= 0 ? 0 : p->seed); /* greedy answers do not depend on it */
    digest_add_u32(s, p->logprobs);
    digest_add_u32(s, p->top_logprobs);
    digest_add_u64(s, p->n_bias);
    for (size_t i = 0; i < p->n_bias; i++) {
        digest_add_u32(s, (uint32_t)p->bias[i].id);
        add_f32(s, (double)p->bias[i].add);
    }
}

static struct digest result_key(const struct job *j, slice numerics)
{
    digest_stream *s = digest_begin((slice){0});
    digest_add_slice(s, SLICE_LIT("nunchi result 1"));
    digest_add(s, j->content.b, DIGEST_BYTES);
    digest_add_slice(s, numerics);
    add_sampling(s, &j->r->sampling);
    digest_add_u32(s, j->r->n);
    digest_add_u32(s, j->max_tokens);
    digest_add_u32(s, j->r->ignore_eos);
    if (j->r->echo)
        digest_add_u32(s, j->n_echoed);
    digest_add_u64(s, j->r->n_stop);
    for (size_t i = 0; i < j->r->n_stop; i++)
        digest_add_slice(s, j->r->stop[i]);
    return digest_end(s);
}

struct digest job_hash(const struct job *j)
{
    return result_key(j, (slice){0});
}

/* ---- reading ---- */

static int unpack_logprobs(arena *a, const Nunchi__StoredChoice *c, Nunchi__TokenLogprob ***out)
{
    *out = arena_try(a, (c->n_logprobs ? c->n_logprobs : 1) * sizeof **out);
    if (!*out)
        return ERR_NOMEM;
    for (size_t i = 0; i < c->n_logprobs; i++) {
        void *v;
        int e = pb_unpack(a, &nunchi__token_logprob__descriptor, pb_slice(c->logprobs[i]),
                          RESULT_BYTES_MAX, &v, NULL);
        if (e < 0)
            return e;
        (*out)[i] = v;
    }
    return 0;
}

static bool stored_ok(const struct job *j, const Nunchi__StoredResult *r)
{
    return r->format == RESULT_FORMAT && r->key.len == DIGEST_BYTES &&
           r->numerics.len == DIGEST_BYTES &&
           memcmp(r->key.data, j->result_key.b, DIGEST_BYTES) == 0 && r->n_choices == j->r->n &&
           r->prompt_tokens == j->n_tokens;
}

/* Everything is unpacked before the client hears a word: a damaged value must be a miss. */
static bool replay(struct job *j, arena *a, const Nunchi__StoredResult *r)
{
    Nunchi__TokenLogprob **lps[CHOICES_MAX];
    struct gw_usage u = {.prompt_tokens = r->prompt_tokens, .cached_tokens = r->cached_tokens};
    for (size_t i = 0; i < r->n_choices; i++) {
        if (unpack_logprobs(a, r->choices[i], &lps[i]) < 0)
            return false;
        u.completion_tokens +=
            r->choices[i]->n_ids > j->n_echoed ? r->choices[i]->n_ids - j->n_echoed : 0;
    }
    j->ops->start(j->client, &(struct gw_start){.numerics = pb_slice(r->numerics),
                                                .cached = true,
                                                .first = buf_slice(&j->first)});
    for (uint32_t i = 0; i < r->n_choices; i++) {
        const Nunchi__StoredChoice *c = r->choices[i];
        struct gw_delta d = {.choice = i,
                             .text = pb_slice(c->text),
                             .logprobs = lps[i],
                             .n_logprobs = c->n_logprobs};
        j->ops->delta(j->client, &d);
        j->ops->choice_end(j->client, i, c->end ? GW_END_LENGTH : GW_END_STOP);
    }
    j->g->counts.cache_hits++;
    job_finish(j, &u);
    return true;
}

static bool answer_from(struct job *j, const struct wire_msg *m)
{
    arena *a = arena_new(RESULT_ARENA_BYTES);
    void *p, *r;
    bool done = false;
    if (ask_unpack(a, &nunchi__cache_reply__descriptor, m, &p) == 0 &&
        ((Nunchi__CacheReply *)p)->op_case == NUNCHI__CACHE_REPLY__OP_VALUES) {
        const Nunchi__BlobValues *v = ((Nunchi__CacheReply *)p)->values;
        if (v->n_frame == 1 && v->frame[0] >= 1 && v->frame[0] <= m->n_frames &&
            pb_unpack(a, &nunchi__stored_result__descriptor, m->frames[v->frame[0] - 1],
                      WIRE_FRAME_MAX, &r, NULL) == 0)
            done = stored_ok(j, r) && replay(j, a, r);
    }
    arena_free(a);
    return done;
}

static void on_looked_up(struct ask *ask, int err, const struct wire_msg *m,
                         const struct why *w UNUSED)
{
    struct job *j = CONTAINER_OF(ask, struct job, ask);
    if (err == 0 && answer_from(j, m))
        return;
    j->g->counts.cache_misses++;
    job_wait(j, STAGE_PLACE);
}

static void fill_key(const struct job *j, Nunchi__BlobKey *key)
{
    key->space = NUNCHI__SPACE__RESULT;
    key->tenant = pb_bytes((slice){(const char *)j->r->tenant, DIGEST_BYTES});
    key->key = pb_bytes((slice){(const char *)j->result_key.b, DIGEST_BYTES});
}

static bool send_lookup(struct job *j)
{
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT, *keys[] = {&key};
    Nunchi__BlobGet get = NUNCHI__BLOB_GET__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    struct worker *w =
        route_cache(j->g->route, (slice){(const char *)j->result_key.b, DIGEST_BYTES});
    fill_key(j, &key);
    get.keys = keys;
    get.n_keys = 1;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_GET;
    q.get = &get;
    j->ask.done = on_looked_up;
    j->ask.chunk = NULL;
    return w && ask_send(&j->ask, w, &q.base, NULL, 0, CACHE_LOOKUP_MS) == 0;
}

/* Which arithmetic the answer would have: that of any worker of the model. */
static bool any_numerics(struct job *j, slice *out)
{
    const struct worker *w = route_any(j->g->route, SERVICE_MODEL, job_kind(j));
    const Nunchi__ModelInfo *m = w ? worker_model(w, j->r->model) : NULL;
    if (!m || m->numerics.len != DIGEST_BYTES)
        return false;
    *out = pb_slice(m->numerics);
    return true;
}

void job_lookup(struct job *j)
{
    slice numerics;
    if (j->cacheable && any_numerics(j, &numerics)) {
        job_enter(j, STAGE_LOOKUP);
        j->result_key = result_key(j, numerics);
        if (send_lookup(j))
            return;
    }
    job_wait(j, STAGE_PLACE);
}

/* ---- keeping and writing ---- */

static void give_up_keeping(struct job *j)
{
    j->cacheable = false;
    for (uint32_t i = 0; i < j->r->n; i++) {
        buf_clear(&j->choice[i].text);
        buf_clear(&j->choice[i].logprobs);
    }
}

static void check_size(struct job *j)
{
    size_t n = 0;
    for (uint32_t i = 0; i < j->r->n; i++)
        n += j->choice[i].text.n + j->choice[i].logprobs.n + 64;
    if (n > RESULT_BYTES_MAX - 1024)
        give_up_keeping(j);
}

void job_keep(struct job *j, uint32_t choice, slice text)
{
    if (!j->cacheable || !text.n)
        return;
    buf_put_slice(&j->choice[choice].text, text);
    check_size(j);
}

void job_keep_logprobs(struct job *j, uint32_t choice, slice packed)
{
    if (!j->cacheable || !packed.n)
        return;
    buf_put_slice(&j->choice[choice].logprobs, packed);
    check_size(j);
}

static void send_put(struct job *j, slice value)
{
    slice name = {(const char *)j->result_key.b, DIGEST_BYTES};
    Nunchi__BlobKey key = NUNCHI__BLOB_KEY__INIT;
    Nunchi__BlobPut put = NUNCHI__BLOB_PUT__INIT;
    Nunchi__CacheRequest q = NUNCHI__CACHE_REQUEST__INIT;
    fill_key(j, &key);
    put.key = &key;
    q.op_case = NUNCHI__CACHE_REQUEST__OP_PUT;
    q.put = &put;
    ask_and_forget(j->g, route_cache(j->g->route, name), &q.base, &value, 1);
}

/* le32 lengths and bytes -> list of slices. */
static void split_logprobs(arena *a, slice all, Nunchi__StoredChoice *c)
{
    size_t n = 0;
    for (slice s = all; s.n >= 4; n++) {
        uint32_t len;
        memcpy(&len, s.p, 4);
        s = (slice){s.p + 4 + len, s.n - 4 - len};
    }
    c->logprobs = arena_get(a, (n ? n : 1) * sizeof *c->logprobs);
    for (slice s = all; c->n_logprobs < n;) {
        uint32_t len;
        memcpy(&len, s.p, 4);
        c->logprobs[c->n_logprobs++] = pb_bytes((slice){s.p + 4, len});
        s = (slice){s.p + 4 + len, s.n - 4 - len};
    }
}

static void fill_result(struct job *j, arena *a, const enum gw_end *ends, const uint32_t *n_ids,
                        Nunchi__StoredResult *r)
{
    r->choices = arena_get(a, j->r->n * sizeof *r->choices);
    for (uint32_t i = 0; i < j->r->n; i++) {
        Nunchi__StoredChoice *c = arena_get(a, sizeof *c);
        nunchi__stored_choice__init(c);
        c->end = ends[i] == GW_END_LENGTH;
        c->n_ids = n_ids[i];
        c->text = pb_bytes(buf_slice(&j->choice[i].text));
        split_logprobs(a, buf_slice(&j->choice[i].logprobs), c);
        r->choices[r->n_choices++] = c;
    }
}

void job_store(struct job *j, const struct gw_usage *u, const enum gw_end *ends,
               const uint32_t *n_ids)
{
    if (!j->cacheable || !j->has_numerics)
        return;
    slice numerics = {(const char *)j->numerics, DIGEST_BYTES};
    j->result_key = result_key(j, numerics);
    arena *a = arena_new(0);
    Nunchi__StoredResult r = NUNCHI__STORED_RESULT__INIT;
    r.format = RESULT_FORMAT;
    r.key = pb_bytes((slice){(const char *)j->result_key.b, DIGEST_BYTES});
    r.numerics = pb_bytes(numerics);
    r.prompt_tokens = (uint32_t)u->prompt_tokens;
    r.cached_tokens = (uint32_t)u->cached_tokens;
    fill_result(j, a, ends, n_ids, &r);
    buf packed = {0};
    pb_pack(&r.base, &packed);
    if (packed.n <= RESULT_BYTES_MAX)
        send_put(j, buf_slice(&packed));
    buf_clear(&packed);
    arena_free(a);
}
