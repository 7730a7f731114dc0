/* The life of a question: admitted, waiting for a worker, ended. */
#include "gateway/core_impl.h"

/* A waiting job looks again so often even if nothing seems to have changed. */
#define WAIT_LOOK_US 200000

/* ---- admission ---- */

static int refuse_model(gw *g, const struct gw_request *r, struct gw_fail *f)
{
    if (route_any(g->route, SERVICE_MODEL, (struct route_kind){.model = r->model}) ||
        !route_any(g->route, SERVICE_MODEL, ROUTE_ANY))
        return 0; /* with no model at all, waiting may help */
    return gw_failed(f, ERR_NOT_FOUND, "model_not_found", "model",
                     "the model '%.*s' is not served here; see /v1/models",
                     (int)(r->model.n < 100 ? r->model.n : 100), r->model.p);
}

/* Of prompts whose tokens are not counted yet; of English a little less, of Korean more. */
#define BYTES_PER_TOKEN 4

static uint64_t guessed_tokens(const struct gw_request *r)
{
    size_t bytes = r->prompt.n;
    for (size_t i = 0; i < r->n_turns; i++)
        for (size_t k = 0; k < r->turns[i].n_parts; k++)
            if (r->turns[i].parts[k].kind == GW_TEXT)
                bytes += r->turns[i].parts[k].text.n;
    return bytes / BYTES_PER_TOKEN + 1;
}

static struct ticket ticket_for(const struct gw_request *r)
{
    struct ticket t = {.tokens = guessed_tokens(r)};
    memcpy(t.tenant, r->tenant, sizeof t.tenant);
    memcpy(t.client, r->client, sizeof t.client);
    return t;
}

static int let_in(gw *g, const struct gw_request *r, const struct ticket *t, struct gw_fail *f)
{
    if (g->draining)
        return gw_failed(f, ERR_UNAVAILABLE, NULL, "",
                         "shutting down; ask again elsewhere or later");
    int e = admit_check(g->admit, g->now_us, t, g->n_waiting, f);
    if (e < 0)
        return e;
    return refuse_model(g, r, f);
}

static void on_deadline(void *ctx)
{
    struct job *j = ctx;
    struct gw_fail f;
    gw_failed(&f, ERR_TIMEOUT, NULL, "", "not answered within its time (request-ms)");
    job_fail(j, &f);
}

static void on_wake(void *ctx)
{
    struct job *j = ctx;
    timers_set(&j->g->timers, &j->wake, j->g->now_us + WAIT_LOOK_US);
    job_try(j);
}

static struct job *job_new(gw *g, struct gw_request *r, const struct gw_client_ops *ops,
                           void *client, const struct ticket *t)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->g = g;
    j->r = r;
    j->ops = ops;
    j->client = client;
    j->id = ++g->last_id;
    j->began_us = g->now_us;
    j->deadline = (struct loop_timer){.fn = on_deadline, .ctx = j};
    j->wake = (struct loop_timer){.fn = on_wake, .ctx = j};
    j->stall = (struct loop_timer){.fn = job_stalled, .ctx = j};
    j->ask.g = g;
    j->ask.at = r->trace;
    list_init(&j->wait_link);
    j->cacheable = !r->no_store && (r->sampling.temperature <= 0 || r->sampling.seed_given);
    map_put_u64(g->jobs, j->id, j);
    j->choice = xcalloc(r->n, sizeof *j->choice);
    j->ticket = *t;
    admit_enter(g->admit, &j->ticket);
    uint32_t ms = r->deadline_ms ? r->deadline_ms : g->cfg.request_ms;
    timers_set(&g->timers, &j->deadline, g->now_us + (uint64_t)ms * 1000);
    return j;
}

int gw_ask(gw *g, uint64_t now_us, struct gw_request *r, const struct gw_client_ops *ops,
           void *client, uint64_t *id, struct gw_fail *f)
{
    core_enter(g, now_us);
    struct ticket t = ticket_for(r);
    int e = let_in(g, r, &t, f);
    if (e < 0) {
        g->counts.refused++;
        gw_request_free(r);
        return e;
    }
    g->counts.admitted++;
    struct job *j = job_new(g, r, ops, client, &t);
    *id = j->id;
    job_videos_start(j);
    core_settle(g);
    return 0;
}

/* ---- what it spends its time on ---- */

struct trace_span *job_span(struct job *j, enum stage s)
{
    static const char *const NAMES[] = {"read videos", "tokenize", "look up the answer",
                                        "wait for a worker", "generate"};
    struct trace_span *span =
        trace_new(&j->r->trace, ++j->g->last_span, NAMES[s],
                  s == STAGE_PLACE ? TRACE_INTERNAL : TRACE_CLIENT, j->g->now_us);
    if (span)
        j->ask.at = trace_inside(span);
    return span;
}

void job_enter_with(struct job *j, enum stage s, struct trace_span *span)
{
    trace_end(j->span, j->g->now_us);
    j->span = span;
    j->stage = s;
}

void job_enter(struct job *j, enum stage s)
{
    if (j->stage == s && j->span)
        return;
    if (j->stage == STAGE_RUN && j->span) /* and not the end: its worker is lost */
        j->span->err = ERR_UNAVAILABLE;
    job_enter_with(j, s, job_span(j, s));
}

static void end_span(struct job *j, int err)
{
    if (j->span)
        j->span->err = err;
    trace_end(j->span, j->g->now_us);
    j->span = NULL;
}

/* ---- waiting for a worker ---- */

void job_unwait(struct job *j)
{
    if (list_empty(&j->wait_link))
        return;
    list_remove(&j->wait_link);
    j->g->n_waiting--;
    timers_cancel(&j->g->timers, &j->wake);
}

/* Behind everybody whose turn is not later. */
static void stand_in_line(struct job *j)
{
    struct list *before = j->g->waiting.prev;
    while (before != &j->g->waiting &&
           CONTAINER_OF(before, struct job, wait_link)->ticket.turn > j->ticket.turn)
        before = before->prev;
    list_insert_after(before, &j->wait_link);
}

void job_wait(struct job *j, enum stage s)
{
    if (j->stage != s)
        j->attempts = 0;
    job_enter(j, s);
    if (list_empty(&j->wait_link)) {
        stand_in_line(j);
        j->g->n_waiting++;
        timers_set(&j->g->timers, &j->wake, j->g->now_us + WAIT_LOOK_US);
    }
    j->g->dirty = true;
}

void job_try(struct job *j)
{
    if (j->stage == STAGE_TOKENISE)
        job_tokenise(j);
    else if (j->stage == STAGE_PLACE)
        job_place(j);
}

bool job_alone(struct job *j, enum service s, const char *what)
{
    gw *g = j->g;
    struct route_kind k = ROUTE_ANY;
    if (s == SERVICE_MODEL)
        k = job_kind(j);
    else if (s == SERVICE_TOKENIZER)
        k.model = j->r->model;
    if (route_any(g->route, s, k)) {
        j->alone_us = 0;
        return false;
    }
    if (j->alone_us == 0)
        j->alone_us = g->now_us;
    if (g->now_us - j->alone_us < (uint64_t)g->cfg.worker_wait_ms * 1000)
        return false;
    struct gw_fail f;
    k.weights = (slice){0};
    gw_failed(&f, ERR_UNAVAILABLE, NULL, "", "no %s is there to take this%s; try again later", what,
              route_any(g->route, s, k) ? ": those of this name have another file of the model"
                                        : "");
    job_fail(j, &f);
    return true;
}

/* ---- the end ---- */

static void choice_clear(struct job_choice *c)
{
    free(c->ids);
    buf_clear(&c->text);
    buf_clear(&c->logprobs);
    buf_clear(&c->held);
}

void job_free(struct job *j, const char *reason)
{
    gw *g = j->g;
    end_span(j, 0); /* unless it was ended with an error */
    job_unwait(j);
    timers_cancel(&g->timers, &j->deadline);
    timers_cancel(&g->timers, &j->wake);
    timers_cancel(&g->timers, &j->stall);
    if (j->run)
        job_leave_worker(j);
    ask_cancel(&j->ask, reason);
    for (size_t i = 0; i < j->n_videos; i++)
        job_video_clear(&j->video[i]);
    free(j->video);
    for (size_t i = 0; i < j->r->n; i++)
        choice_clear(&j->choice[i]);
    free(j->choice);
    buf_clear(&j->ids);
    buf_clear(&j->first);
    buf_clear(&j->hashes);
    map_del_u64(g->jobs, j->id);
    admit_leave(g->admit, &j->ticket, g->now_us);
    gw_request_free(j->r);
    free(j);
}

/* The job is gone before its client hears of the end: nothing can reach it again. */
void job_fail(struct job *j, const struct gw_fail *f)
{
    const struct gw_client_ops *ops = j->ops;
    void *client = j->client;
    struct gw_fail copy = *f; /* f may lie in what is freed */
    j->g->counts.failed++;
    end_span(j, f->err);
    job_free(j, f->err == ERR_TIMEOUT ? "deadline" : "failed");
    ops->failed(client, &copy);
}

void job_fail_err(struct job *j, int err, const struct why *w)
{
    struct gw_fail f;
    gw_failed(&f, err, NULL, w ? w->field : "", "%s", w && w->text[0] ? w->text : err_text(err));
    job_fail(j, &f);
}

void job_finish(struct job *j, const struct gw_usage *u)
{
    const struct gw_client_ops *ops = j->ops;
    void *client = j->client;
    struct gw_usage copy = *u;
    gw *g = j->g;
    g->counts.done++;
    g->counts.prompt_tokens += u->prompt_tokens;
    g->counts.completion_tokens += u->completion_tokens;
    job_free(j, "done");
    ops->done(client, &copy);
}

void gw_cancel(gw *g, uint64_t now_us, uint64_t id)
{
    core_enter(g, now_us);
    struct job *j = map_get_u64(g->jobs, id);
    if (j) {
        g->counts.cancelled++;
        end_span(j, ERR_CANCELLED);
        job_free(j, "client gone");
    }
    core_settle(g);
}

void gw_client_ready(gw *g, uint64_t now_us, uint64_t id)
{
    core_enter(g, now_us);
    struct job *j = map_get_u64(g->jobs, id);
    if (j && j->stage == STAGE_RUN)
        job_grant(j);
    core_settle(g);
}
