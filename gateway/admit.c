#include "gateway/admit.h"

#include "common/base/map.h"
#include "gateway/core.h"

#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 60000

/* ---- how fast things go ---- */

/* Amounts per second, lately: whole seconds, each weighing a quarter of what is known. */
struct meter {
    uint64_t since_us;
    double amount, rate;
};

#define METER_WEIGHT 0.25
#define METER_US 1000000
#define METER_PAUSE_US (5 * METER_US)

static void meter_turn(struct meter *m, uint64_t now_us)
{
    if (m->since_us == 0)
        m->since_us = now_us;
    uint64_t us = now_us - m->since_us;
    if (us > METER_PAUSE_US) { /* idle: that says nothing about how fast it can be */
        m->since_us = now_us;
        m->amount = 0;
        return;
    }
    if (us < METER_US)
        return;
    double rate = m->amount * 1e6 / (double)us;
    m->rate = m->rate > 0 ? m->rate + METER_WEIGHT * (rate - m->rate) : rate;
    m->amount = 0;
    m->since_us = now_us;
}

static void meter_add(struct meter *m, uint64_t now_us, double amount)
{
    meter_turn(m, now_us);
    m->amount += amount;
}

/* Until `amount` has gone by; the shortest wait while nothing is known. */
static uint32_t meter_wait_ms(struct meter *m, uint64_t now_us, double amount)
{
    meter_turn(m, now_us);
    double ms = m->rate > 0 ? amount * 1000 / m->rate : RETRY_MIN_MS;
    return ms < RETRY_MIN_MS ? RETRY_MIN_MS : ms > RETRY_MAX_MS ? RETRY_MAX_MS : (uint32_t)ms;
}

/* ---- books ---- */

struct account {
    size_t requests;
    uint64_t tokens, turn;
};

struct admit {
    struct admit_limits limits;
    map *tenants, *clients; /* -> struct account, while they have requests */
    size_t requests;
    uint64_t tokens, turn;
    struct meter placed_tokens, placed, left;
};

admit *admit_new(const struct admit_limits *limits)
{
    admit *a = xcalloc(1, sizeof *a);
    a->limits = *limits;
    a->tenants = map_new();
    a->clients = map_new();
    return a;
}

static void free_accounts(map *m)
{
    void *v;
    for (size_t it = 0; map_next(m, &it, NULL, &v);)
        free(v);
    map_free(m);
}

void admit_free(admit *a)
{
    if (!a)
        return;
    free_accounts(a->tenants);
    free_accounts(a->clients);
    free(a);
}

static slice tenant_of(const struct ticket *t)
{
    return (slice){(const char *)t->tenant, sizeof t->tenant};
}

static slice client_of(const struct ticket *t)
{
    return (slice){(const char *)t->client, sizeof t->client};
}

static struct account *open_account(map *m, slice key)
{
    struct account *c = map_get(m, key);
    if (!c) {
        c = xcalloc(1, sizeof *c);
        map_put(m, key, c);
    }
    return c;
}

static void close_one(map *m, slice key)
{
    struct account *c = map_get(m, key);
    CHECK(c && c->requests > 0);
    if (--c->requests == 0) {
        map_del(m, key);
        free(c);
    }
}

/* ---- letting in ---- */

static int later(struct gw_fail *f, uint32_t ms, int err)
{
    f->retry_after_ms = ms;
    return err;
}

static int check_requests(admit *a, uint64_t now, const struct account *tenant, size_t n_queued,
                          struct gw_fail *f)
{
    const struct admit_limits *l = &a->limits;
    if (a->requests >= l->requests_max)
        return later(f, meter_wait_ms(&a->left, now, 1),
                     gw_failed(f, ERR_BUSY, NULL, "", "%u requests are open already (requests-max)",
                               l->requests_max));
    if (n_queued >= l->queue_max)
        return later(f, meter_wait_ms(&a->placed, now, 1),
                     gw_failed(f, ERR_BUSY, NULL, "",
                               "%u requests are waiting for a worker already (queue-max)",
                               l->queue_max));
    if (l->tenant_max && tenant && tenant->requests >= l->tenant_max)
        return later(f,
                     meter_wait_ms(&a->left, now, (double)a->requests / (double)tenant->requests),
                     gw_failed(f, ERR_BUSY, NULL, "",
                               "%u requests of this key are open already (key-requests-max)",
                               l->tenant_max));
    return 0;
}

/* A prompt larger than the limit is let in when nothing else waits: it would never fit otherwise.
 */
static int check_tokens(admit *a, uint64_t now, const struct account *tenant,
                        const struct ticket *t, struct gw_fail *f)
{
    const struct admit_limits *l = &a->limits;
    if (l->queue_tokens_max && a->tokens > 0 && a->tokens + t->tokens > l->queue_tokens_max)
        return later(
            f, meter_wait_ms(&a->placed_tokens, now, (double)t->tokens),
            gw_failed(f, ERR_BUSY, NULL, "",
                      "prompts of %llu tokens are waiting already (queue-tokens-max: %llu)",
                      (unsigned long long)a->tokens, (unsigned long long)l->queue_tokens_max));
    if (l->tenant_tokens_max && tenant && tenant->tokens > 0 &&
        tenant->tokens + t->tokens > l->tenant_tokens_max)
        return later(
            f,
            meter_wait_ms(&a->placed_tokens, now,
                          (double)t->tokens * (double)a->tokens / (double)tenant->tokens),
            gw_failed(
                f, ERR_BUSY, NULL, "",
                "prompts of %llu tokens of this key are waiting already (key-tokens-max: %llu)",
                (unsigned long long)tenant->tokens, (unsigned long long)l->tenant_tokens_max));
    return 0;
}

int admit_check(admit *a, uint64_t now_us, const struct ticket *t, size_t n_queued,
                struct gw_fail *f)
{
    const struct account *tenant = map_get(a->tenants, tenant_of(t));
    int e = check_requests(a, now_us, tenant, n_queued, f);
    return e < 0 ? e : check_tokens(a, now_us, tenant, t, f);
}

/* ---- coming and going ---- */

void admit_enter(admit *a, struct ticket *t)
{
    struct account *tenant = open_account(a->tenants, tenant_of(t)),
                   *client = open_account(a->clients, client_of(t));
    tenant->requests++;
    client->requests++;
    a->requests++;
    t->in = t->waits = true;
    t->turn = client->turn > a->turn ? client->turn : a->turn;
    client->turn = t->turn + t->tokens + 1;
    tenant->tokens += t->tokens;
    a->tokens += t->tokens;
}

void admit_tokens(admit *a, struct ticket *t, uint64_t tokens)
{
    if (t->in && t->waits) {
        struct account *tenant = map_get(a->tenants, tenant_of(t));
        tenant->tokens += tokens - t->tokens;
        a->tokens += tokens - t->tokens;
    }
    t->tokens = tokens;
}

static void stop_waiting(admit *a, struct ticket *t)
{
    struct account *tenant = map_get(a->tenants, tenant_of(t));
    t->waits = false;
    tenant->tokens -= t->tokens;
    a->tokens -= t->tokens;
}

void admit_placed(admit *a, struct ticket *t, uint64_t now_us)
{
    if (!t->in || !t->waits)
        return;
    stop_waiting(a, t);
    a->turn = t->turn > a->turn ? t->turn : a->turn;
    meter_add(&a->placed, now_us, 1);
    meter_add(&a->placed_tokens, now_us, (double)t->tokens);
}

void admit_leave(admit *a, struct ticket *t, uint64_t now_us)
{
    if (!t->in)
        return;
    if (t->waits)
        stop_waiting(a, t);
    t->in = false;
    a->requests--;
    close_one(a->tenants, tenant_of(t));
    close_one(a->clients, client_of(t));
    meter_add(&a->left, now_us, 1);
}

uint64_t admit_waiting_tokens(const admit *a)
{
    return a->tokens;
}
