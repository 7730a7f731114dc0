/* How requests are spread over model workers: the gateway's own choice (gateway/route.h) in a world
 * of discrete events.
 *
 *     route_bench [--workers 8] [--seconds 600] [--seed 1] [--load 0.7] [--kv-blocks 2000]
 *
 * Workers compute steps: a fixed time, a time per decoding row and per prompt token, near those of
 * SmolLM2-135M on two cores. Each holds so many blocks of KV, the least lately used go first; each
 * says every 500 ms how it is. The loads, at `load` of what the workers could do if nothing were
 * shared:
 *
 * - shared: 200 system prompts of 1,024 tokens (Zipf), each with 32 of its own; shared2: through
 * two gateways that know nothing of each other.
 * - chats: talks of up to 8 turns that grow; 5 s between an answer and the next question.
 * - alone: 512 tokens, nothing shared.
 * - uneven: as shared, every second worker three times slower.
 *
 * At the end: the time of one choice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/map.h"
#include "common/base/hash.h"
#include "common/wire/blockhash.h"
#include "gateway/route.h"

#define STEP_US 3000.0
#define ROW_US 1500.0
#define PROMPT_US 800.0
#define CHUNK 128
#define SLOTS 16
#define BEAT_US 500000.0
#define WORKERS_MAX 1024
#define CHAT_TURNS 8
#define THINK_US 5e6
#define SYSTEM_PROMPTS 200

/* ---- chance ---- */

static uint64_t state;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double uniform(void)
{
    return ((double)(draw() >> 11) + 0.5) / 9007199254740992.0;
}

static double exponential(double mean)
{
    return -mean * log(uniform());
}

/* ---- the world ---- */

struct request {
    struct list link;
    double arrived_us, first_us;
    uint8_t *hashes;
    uint32_t n_blocks, n_tokens, n_answer, n_done, cached, left; /* left: of the prompt */
    uint32_t chat_turn;
    uint64_t seed; /* of its chat */
    struct worker *at;
    int gateway;
};

struct block {
    struct list link;
    uint64_t name;
};

struct sim_worker {
    struct list running; /* requests: first come, first prefilled */
    struct list lru;     /* blocks, the least lately used first */
    map *blocks;
    size_t n_blocks;
    double slow, busy_until_us, beat_us;
    bool stepping;
    struct worker *in[2]; /* in each gateway's table */
    double prefill_rate, decode_rate;
};

struct load {
    const char *name;
    int kind; /* 0 shared, 1 chats, 2 alone */
    int gateways;
    bool uneven;
};

struct event {
    double at_us;
    int kind; /* 0: arrival; 1: a chat's next turn */
    struct request *r;
};

static struct {
    route *routes[2];
    int n_gateways, n_workers;
    struct sim_worker workers[WORKERS_MAX];
    struct list waiting;
    double now_us, next_arrival_us, arrival_mean_us;
    struct list later; /* chats that will go on, by time */
    const struct load *load;
    size_t kv_blocks;
    double zipf[SYSTEM_PROMPTS];
    /* results */
    double *first, sum_answer;
    size_t n, cap;
    uint64_t prompt_tokens, cached_tokens;
    int turn;
} w;

static char model_name[] = "m";

static void say_ready(struct sim_worker *s, int i)
{
    Nunchi__Ready r;
    Nunchi__ModelInfo m, *models[] = {&m};
    char service[] = "model", instance[16];
    nunchi__ready__init(&r);
    nunchi__model_info__init(&m);
    snprintf(instance, sizeof instance, "i%d", i);
    m.name = model_name;
    r.service = service;
    r.instance = instance;
    r.slots = SLOTS;
    r.models = models;
    r.n_models = 1;
    for (int g = 0; g < w.n_gateways; g++)
        s->in[g] = route_up(w.routes[g], (uint64_t)i + 1, &r);
}

static void beat(struct sim_worker *s)
{
    Nunchi__Heartbeat h = NUNCHI__HEARTBEAT__INIT;
    h.slots = SLOTS;
    h.kv_blocks = (uint32_t)w.kv_blocks;
    LIST_EACH(it, &s->running)
    {
        const struct request *r = CONTAINER_OF(it, struct request, link);
        h.running++;
        h.queued_tokens += r->left;
    }
    h.prefill_tok_s = (uint32_t)s->prefill_rate;
    h.decode_tok_s = (uint32_t)s->decode_rate;
    h.steps = (uint64_t)w.now_us + 1;
    for (int g = 0; g < w.n_gateways; g++)
        route_changed(w.routes[g], s->in[g], (uint64_t)w.now_us, NULL, &h);
    s->beat_us = w.now_us + BEAT_US;
}

/* ---- KV ---- */

static uint64_t name_of(const uint8_t *hash)
{
    uint64_t v;
    memcpy(&v, hash, sizeof v);
    return v;
}

static void touch(struct sim_worker *s, uint64_t name)
{
    struct block *b = map_get_u64(s->blocks, name);
    if (!b && s->n_blocks >= w.kv_blocks) {
        b = CONTAINER_OF(list_first(&s->lru), struct block, link);
        map_del_u64(s->blocks, b->name);
    } else if (!b) {
        b = xcalloc(1, sizeof *b);
        list_init(&b->link);
        s->n_blocks++;
    }
    list_remove(&b->link);
    b->name = name;
    list_append(&s->lru, &b->link);
    map_put_u64(s->blocks, name, b);
}

static uint32_t cached_blocks(struct sim_worker *s, const struct request *r)
{
    uint32_t n = 0;
    while (n < r->n_blocks && map_get_u64(s->blocks, name_of(r->hashes + n * DIGEST_BYTES)))
        n++;
    return n;
}

/* ---- requests ---- */

static void chain(struct request *r, uint64_t seed)
{
    uint64_t keep = state;
    state = seed * 2654435761u + 88172645463325252u;
    r->hashes = xcalloc(r->n_blocks + 1, DIGEST_BYTES);
    for (uint32_t i = 0; i < r->n_blocks; i++) {
        uint64_t v = draw() * 0x9e3779b97f4a7c15u;
        memcpy(r->hashes + i * DIGEST_BYTES, &v, sizeof v);
    }
    state = keep;
}

static int zipf(void)
{
    double u = uniform() * w.zipf[SYSTEM_PROMPTS - 1];
    int i = 0;
    while (w.zipf[i] < u)
        i++;
    return i;
}

static struct request *request_new(uint64_t chat, uint32_t turn)
{
    struct request *r = xcalloc(1, sizeof *r);
    list_init(&r->link);
    r->arrived_us = w.now_us;
    r->n_answer = 16 + (uint32_t)exponential(48);
    r->gateway = (int)(draw() % (uint64_t)w.n_gateways);
    if (w.load->kind == 0) {
        r->n_tokens = 1024 + 32;
        r->n_blocks = 64;
        chain(r, (uint64_t)zipf() + 1);
    } else if (w.load->kind == 1) {
        r->seed = chat ? chat : draw();
        r->chat_turn = turn;
        r->n_tokens = 160 + turn * 112;
        r->n_blocks = r->n_tokens / BLOCK_TOKENS;
        chain(r, r->seed);
    } else {
        r->n_tokens = 512;
        r->n_blocks = 32;
        chain(r, draw());
    }
    return r;
}

static void note(const struct request *r)
{
    if (w.n == w.cap) {
        w.cap = 2 * w.cap + 1024;
        w.first = xrealloc(w.first, w.cap, sizeof *w.first);
    }
    w.first[w.n++] = r->first_us - r->arrived_us;
    w.sum_answer += w.now_us - r->arrived_us;
    w.prompt_tokens += r->n_tokens;
    w.cached_tokens += r->cached;
}

static bool place(struct request *r)
{
    struct route_wish q = {.kind.model = slice_str(model_name),
                           .hashes = r->hashes,
                           .n_blocks = r->n_blocks,
                           .n_tokens = r->n_tokens,
                           .max_tokens = 256};
    struct worker *at = route_pick_model(w.routes[r->gateway], (uint64_t)w.now_us, &q);
    if (!at)
        return false;
    route_placed(w.routes[r->gateway], at, &q);
    at->open++;
    r->at = at;
    struct sim_worker *s = &w.workers[at->peer - 1];
    uint32_t known = cached_blocks(s, r) * BLOCK_TOKENS;
    r->cached = known < r->n_tokens ? known : r->n_tokens - 1;
    r->left = r->n_tokens - r->cached;
    list_append(&s->running, &r->link);
    return true;
}

static void arrive(struct request *r)
{
    if (!list_empty(&w.waiting) || !place(r))
        list_append(&w.waiting, &r->link);
}

static void place_waiting(void)
{
    for (struct list *it; (it = list_first(&w.waiting));) {
        struct request *r = CONTAINER_OF(it, struct request, link);
        list_remove(it);
        if (place(r))
            continue;
        list_insert_after(&w.waiting, it);
        return;
    }
}

static void end(struct request *r)
{
    note(r);
    list_remove(&r->link);
    r->at->open--;
    if (w.load->kind == 1 && r->chat_turn + 1 < CHAT_TURNS) {
        struct request *next = request_new(r->seed, r->chat_turn + 1);
        next->arrived_us = w.now_us + exponential(THINK_US);
        struct list *before = w.later.prev;
        while (before != &w.later &&
               CONTAINER_OF(before, struct request, link)->arrived_us > next->arrived_us)
            before = before->prev;
        list_insert_after(before, &next->link);
    }
    free(r->hashes);
    free(r);
}

/* ---- steps ---- */

static void step_begin(struct sim_worker *s)
{
    double us = 0;
    uint32_t chunk = CHUNK, rows = 0, prompt = 0;
    LIST_EACH(it, &s->running)
    {
        const struct request *r = CONTAINER_OF(it, struct request, link);
        uint32_t take = r->left < chunk ? r->left : chunk;
        prompt += take;
        chunk -= take;
        rows += r->left == 0;
    }
    if (rows + prompt == 0)
        return;
    us = s->slow * (STEP_US + ROW_US * rows + PROMPT_US * prompt);
    if (prompt > CHUNK / 2)
        s->prefill_rate = 1e6 * prompt / (s->slow * (STEP_US + PROMPT_US * prompt));
    if (rows)
        s->decode_rate = 1e6 * rows / (s->slow * (STEP_US + ROW_US * rows));
    s->stepping = true;
    s->busy_until_us = w.now_us + us;
}

static void step_end(struct sim_worker *s)
{
    uint32_t chunk = CHUNK;
    s->stepping = false;
    LIST_EACH(it, &s->running)
    {
        struct request *r = CONTAINER_OF(it, struct request, link);
        if (r->left) {
            uint32_t take = r->left < chunk ? r->left : chunk;
            chunk -= take;
            r->left -= take;
            if (r->left || take == 0)
                continue;
            for (uint32_t i = 0; i < r->n_blocks; i++)
                touch(s, name_of(r->hashes + i * DIGEST_BYTES));
            r->first_us = w.now_us;
        }
        if (++r->n_done >= r->n_answer)
            end(r);
    }
    place_waiting();
}

/* ---- one run ---- */

static double soonest(int *which)
{
    double at = w.next_arrival_us;
    *which = -1;
    if (!list_empty(&w.later)) {
        double next = CONTAINER_OF(list_first(&w.later), struct request, link)->arrived_us;
        if (next < at) {
            at = next;
            *which = -2;
        }
    }
    for (int i = 0; i < w.n_workers; i++) {
        struct sim_worker *s = &w.workers[i];
        if (s->stepping && s->busy_until_us < at) {
            at = s->busy_until_us;
            *which = 2 * i;
        }
        if (s->beat_us < at) {
            at = s->beat_us;
            *which = 2 * i + 1;
        }
    }
    return at;
}

static void happen(int which)
{
    if (which == -1) {
        w.next_arrival_us += exponential(w.arrival_mean_us);
        arrive(request_new(0, 0));
    } else if (which == -2) {
        arrive(CONTAINER_OF(list_pop(&w.later), struct request, link));
    } else if (which % 2) {
        beat(&w.workers[which / 2]);
        place_waiting();
    } else {
        step_end(&w.workers[which / 2]);
    }
    for (int i = 0; i < w.n_workers; i++)
        if (!w.workers[i].stepping)
            step_begin(&w.workers[i]);
}

static void drop_all(struct list *requests)
{
    for (struct list *it; (it = list_pop(requests));) {
        struct request *r = CONTAINER_OF(it, struct request, link);
        free(r->hashes);
        free(r);
    }
}

/* Mean microseconds of one worker of speed 1 per request, without anything shared. */
static double cost_us(const struct load *l)
{
    double tokens = l->kind == 0 ? 1056 : l->kind == 1 ? 160 + 112 * (CHAT_TURNS - 1) / 2.0 : 512;
    double per_arrival = l->kind == 1 ? CHAT_TURNS : 1;
    return per_arrival * (tokens * PROMPT_US + 64 * (ROW_US + STEP_US / 4));
}

static void begin(const struct load *l, enum route_policy policy, double load, uint64_t seed)
{
    state = seed * 0x9e3779b97f4a7c15u + 1;
    w.load = l;
    w.now_us = 1e6;
    w.next_arrival_us = w.now_us;
    w.n_gateways = l->gateways;
    w.n = 0;
    w.sum_answer = 0;
    w.prompt_tokens = w.cached_tokens = 0;
    list_init(&w.waiting);
    list_init(&w.later);
    for (int g = 0; g < w.n_gateways; g++)
        w.routes[g] = route_new(policy);
    double speed = 0;
    for (int i = 0; i < w.n_workers; i++) {
        struct sim_worker *s = &w.workers[i];
        *s = (struct sim_worker){.slow = l->uneven && i % 2 ? 3 : 1, .blocks = map_new()};
        speed += 1 / s->slow;
        list_init(&s->running);
        list_init(&s->lru);
        s->beat_us = w.now_us + BEAT_US * i / w.n_workers;
        say_ready(s, i);
    }
    w.arrival_mean_us = cost_us(l) / (speed * load);
}

static void finish(void)
{
    for (int i = 0; i < w.n_workers; i++) {
        struct sim_worker *s = &w.workers[i];
        drop_all(&s->running);
        for (struct list *it; (it = list_pop(&s->lru));)
            free(CONTAINER_OF(it, struct block, link));
        map_free(s->blocks);
    }
    drop_all(&w.waiting);
    drop_all(&w.later);
    for (int g = 0; g < w.n_gateways; g++)
        route_free(w.routes[g]);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *load, const char *policy)
{
    double sum = 0;
    qsort(w.first, w.n, sizeof *w.first, compare);
    for (size_t i = 0; i < w.n; i++)
        sum += w.first[i];
    printf("| %-7s | %-12s | %6zu | %5.0f %% | %7.0f | %7.0f | %7.0f | %8.0f |\n", load, policy,
           w.n, 100.0 * (double)w.cached_tokens / (double)w.prompt_tokens, sum / (double)w.n / 1000,
           w.first[w.n / 2] / 1000, w.first[w.n * 99 / 100] / 1000,
           w.sum_answer / (double)w.n / 1000);
}

static void run(const struct load *l, const char *policy, double seconds, double load,
                uint64_t seed)
{
    begin(l, (enum route_policy)route_policy_of(policy), load, seed);
    for (double until = w.now_us + seconds * 1e6; w.now_us < until;) {
        int which;
        w.now_us = soonest(&which);
        happen(which);
    }
    report(l->name, policy);
    finish();
}

/* ---- the time of a choice ---- */

static void time_choice(int n_workers)
{
    static const struct load LOAD = {"shared", 0, 1, false};
    w.n_workers = n_workers;
    begin(&LOAD, ROUTE_PREFIX, 0.5, 1);
    enum { ROUNDS = 20000 };
    uint64_t us = 0;
    for (int i = 0; i < ROUNDS; i++) {
        struct request *r = request_new(0, 0);
        struct route_wish q = {.kind.model = slice_str(model_name),
                               .hashes = r->hashes,
                               .n_blocks = r->n_blocks,
                               .n_tokens = r->n_tokens,
                               .max_tokens = 256};
        uint64_t from = clock_mono_us();
        struct worker *at = route_pick_model(w.routes[0], 2000000, &q);
        route_placed(w.routes[0], at, &q);
        us += clock_mono_us() - from;
        if (i % 16 == 0)
            beat(&w.workers[i / 16 % n_workers]);
        free(r->hashes);
        free(r);
    }
    printf("| %5d | %6.1f |\n", n_workers, (double)us / ROUNDS);
    finish();
}

static double option(int argc, char **argv, const char *name, double otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return strtod(argv[i + 1], NULL);
    return otherwise;
}

int main(int argc, char **argv)
{
    static const struct load LOADS[] = {{"shared", 0, 1, false},
                                        {"shared2", 0, 2, false},
                                        {"chats", 1, 1, false},
                                        {"alone", 2, 1, false},
                                        {"uneven", 0, 1, true}};
    static const char *const POLICIES[] = {"prefix", "least-loaded", "round-robin"};
    for (int i = 0; i < SYSTEM_PROMPTS; i++)
        w.zipf[i] = (i ? w.zipf[i - 1] : 0) + 1.0 / (i + 1);
    double seconds = option(argc, argv, "--seconds", 600), load = option(argc, argv, "--load", 0.7);
    uint64_t seed = (uint64_t)option(argc, argv, "--seed", 1);
    int n = (int)option(argc, argv, "--workers", 8);
    if (n < 1 || n > WORKERS_MAX || seconds <= 0 || load <= 0) {
        fprintf(stderr,
                "route_bench [--workers 1..%d] [--seconds S] [--seed N] [--load 0.7] [--kv-blocks "
                "2000]\n",
                WORKERS_MAX);
        return 2;
    }
    w.kv_blocks = (size_t)option(argc, argv, "--kv-blocks", 2000);
    puts("| load    | policy       | answers | cached | first token, ms: mean | median | p99 | "
         "whole answer, ms |");
    puts("|---|---|---|---|---|---|---|---|");
    for (size_t l = 0; l < ARRAY_LEN(LOADS); l++)
        for (size_t p = 0; p < ARRAY_LEN(POLICIES); p++) {
            w.n_workers = n;
            run(&LOADS[l], POLICIES[p], seconds, load, seed);
        }
    puts("\n| workers | one choice, us |\n|---|---|");
    for (int workers = 1; workers <= 1000; workers = workers == 1    ? 64
                                                     : workers == 64 ? 1000
                                                                     : 1001)
        time_choice(workers);
    free(w.first);
    return 0;
}
