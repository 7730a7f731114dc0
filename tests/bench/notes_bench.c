/* What guessing ahead brings on questions about a video's notes: one JSON object.
 *     notes_bench MODEL [--threads T] [--gen G] [--draft-max N] [--repeat R] [--show]
 *                 [--temperature T]
 * Greedy, or at a temperature: at 3, answers are noise, and hardly a guess comes true. Twenty
 * questions, one after the other and all at once, with guesses and without; tokens per second of
 * decoding alone (first token to last), best of R. The ids must be the same: checked. The scheduler
 * and the engine are those of nunchi-model, without sockets. A model without a chat template is
 * asked in plain text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "model-svc/core.h"
#include "tokenizer-svc/chat.h"
#include "tokenizer-svc/place.h"

static const char NOTES[] =
    "Video: harbour-kitchen.mp4\n"
    "Title: A morning in the harbour kitchen\n"
    "Length: 03:26\n"
    "Chapters:\n"
    "[00:00-00:40] Buckwheat pancakes\n"
    "[00:40-01:35] Fish soup for forty people\n"
    "[01:35-02:30] Bread from the stone oven\n"
    "[02:30-03:26] The market and the lighthouse\n"
    "Scenes:\n"
    "[00:00-00:12] Scene 1\n"
    "[00:12-00:40] Scene 2\n"
    "[00:40-01:10] Scene 3\n"
    "[01:10-01:35] Scene 4\n"
    "[01:35-02:30] Scene 5\n"
    "[02:30-03:26] Scene 6\n"
    "Text on the screen:\n"
    "[00:03-00:07] Harbour Kitchen, Pier 14, open daily from 6 to 11\n"
    "[00:22-00:26] 200 g buckwheat flour, 3 eggs, half a litre of milk, a pinch of salt\n"
    "[00:52-00:57] Soup of the day: cod, leek and saffron, 9 euros\n"
    "[01:48-01:53] Stone oven: 260 degrees, 35 minutes\n"
    "[02:41-02:45] Saturday market, stalls 1 to 60\n"
    "[03:18-03:24] Lighthouse tours start at noon, tickets at the harbour office\n"
    "What is said (with times):\n"
    "[00:01-00:04] Good morning from the harbour kitchen on Pier 14.\n"
    "[00:04-00:09] Anna serves the buckwheat pancake with maple syrup and roasted hazelnuts.\n"
    "[00:09-00:15] The batter has to rest for thirty minutes before it goes into the pan.\n"
    "[00:15-00:22] I turn the pancake only once, when the edges begin to lift from the iron.\n"
    "[00:22-00:31] Two hundred grams of buckwheat flour, three eggs and half a litre of milk.\n"
    "[00:31-00:40] If it sticks, the pan was not hot enough, that is the whole secret.\n"
    "[00:40-00:49] Jonas arrives with the cod at five in the morning, straight from the boat.\n"
    "[00:49-00:58] The soup is made of cod, leek and saffron, and it simmers for two hours.\n"
    "[00:58-01:08] We cook it in the old copper pot that belonged to the captain's grandmother.\n"
    "[01:08-01:20] Forty people eat here every day, most of them work on the ferries.\n"
    "[01:20-01:35] When the storm closed the harbour last winter, we gave the soup away for free.\n"
    "[01:35-01:46] The bread is baked in the stone oven behind the boat shed.\n"
    "[01:46-01:58] It bakes for thirty-five minutes at two hundred and sixty degrees.\n"
    "[01:58-02:12] Mira feeds the sourdough twice a day, it is older than both of her children.\n"
    "[02:12-02:30] The crust has to sing when it cools, then you know the crumb is right.\n"
    "[02:30-02:44] On Saturdays the market fills the whole pier, from stall one to stall sixty.\n"
    "[02:44-02:58] We buy the leeks from Mister Okafor, who grows them on the other side of the "
    "bay.\n"
    "[02:58-03:10] The lighthouse was painted red and white again this spring.\n"
    "[03:10-03:26] Lighthouse tours start at noon, and you buy the tickets at the harbour "
    "office.\n";

static const char *const QUESTIONS[] = {
    "What does Anna serve the buckwheat pancake with?",
    "How long does the batter have to rest?",
    "When is the pancake turned?",
    "What is in the batter?",
    "What is the whole secret when the pancake sticks?",
    "Who arrives with the cod, and when?",
    "What is the soup made of?",
    "Which pot is the soup cooked in?",
    "How many people eat here every day, and where do they work?",
    "What happened when the storm closed the harbour?",
    "Where is the bread baked?",
    "How long and how hot does the bread bake?",
    "Who feeds the sourdough, and how old is it?",
    "What does the crust have to do when it cools?",
    "What happens on Saturdays?",
    "Who are the leeks bought from?",
    "What was done to the lighthouse this spring?",
    "When do the lighthouse tours start, and where do you buy the tickets?",
    "List the chapters of the video.",
    "What is said between 01:35 and 02:30?",
};
enum { N = ARRAY_LEN(QUESTIONS) };
#define GEN_MAX 512
#define STEP_TOKENS 512

struct options {
    const char *model;
    int threads, repeat;
    uint32_t gen, draft_max;
    float temperature;
    bool show;
};

struct answer {
    int32_t ids[GEN_MAX];
    size_t n;
    uint64_t decode_us;
};

struct run {
    struct answer answers[N];
    uint64_t busy_us; /* all steps, first to last */
    struct sched_load load;
};

struct bench {
    struct options o;
    model_file *file;
    vocab *words;
    engine *e;
    struct ids prompts[N];
    struct run *run; /* under way */
};

static _Noreturn void fail(const char *what, const struct why *w)
{
    fprintf(stderr, "notes_bench: %s: %s\n", what, w->text);
    exit(1);
}

/* ---- prompts ---- */

static void chat(const struct bench *b, const struct chat_format *f, const char *question,
                 struct prompt *p)
{
    struct why w = {.text = ""};
    struct chat_part parts[] = {{slice_str(NOTES), true}, {slice_str(question), false}};
    struct chat_turn turn = {slice_str("user"), parts, 2};
    if (f->template) {
        if (chat_render(f, &turn, 1, true, 0, p, &w) < 0)
            fail("chat", &w);
        return;
    }
    if (vocab_add_bos(b->words))
        prompt_special(p, vocab_bos(b->words));
    prompt_text(p, slice_str(NOTES));
    prompt_text(p, slice_str(PLACE_QUESTION));
    prompt_text(p, slice_str(question));
    prompt_text(p, slice_str("\nAnswer:"));
}

static void make_prompts(struct bench *b)
{
    struct why w = {.text = ""};
    tokenizer *t;
    struct chat_format f;
    if (tokenizer_new(b->words, &t, &w) < 0 || chat_format_init(&f, t, slice_str("auto"), &w) < 0)
        fail("tokenizer", &w);
    tok_scratch *s = tok_scratch_new(t);
    for (size_t i = 0; i < N; i++) {
        struct prompt p = {0};
        struct prompt_span span;
        chat(b, &f, QUESTIONS[i], &p);
        if (prompt_encode(&p, t, s, &b->prompts[i], &span, 1, &w) < 0)
            fail("prompt", &w);
        prompt_clear(&p);
    }
    tok_scratch_free(s);
    chat_format_clear(&f);
    tokenizer_free(t);
}

/* ---- the scheduler's outside ---- */

static slice word(void *ctx, int32_t id)
{
    const struct bench *b = ctx;
    return vocab_bytes(b->words, id);
}

static bool is_end(void *ctx, int32_t id)
{
    const struct bench *b = ctx;
    return vocab_is_end(b->words, id);
}

static void on_deltas(void *ctx, uint64_t gateway UNUSED, const struct sched_delta *d, size_t n)
{
    struct bench *b = ctx;
    for (size_t i = 0; i < n; i++) {
        struct answer *a = &b->run->answers[d[i].request - 1];
        memcpy(a->ids + a->n, d[i].ids, d[i].n_ids * sizeof *a->ids);
        a->n += d[i].n_ids;
    }
}

static void on_done(void *ctx, uint64_t gateway UNUSED, const struct sched_done *d)
{
    struct bench *b = ctx;
    b->run->answers[d->request - 1].decode_us = d->decode_us;
}

static void on_error(void *ctx UNUSED, uint64_t gateway UNUSED, uint64_t request UNUSED,
                     uint32_t attempt UNUSED, int err UNUSED, const struct why *w)
{
    fail("an answer", w);
}

static sched *scheduler(struct bench *b, uint32_t draft_max)
{
    const struct engine_info *i = engine_info(b->e);
    struct sched_config cfg = {.n_blocks = i->n_kv_blocks,
                               .n_context = i->n_context,
                               .seqs_max = 64,
                               .step_tokens = STEP_TOKENS,
                               .queue_max = 64,
                               .draft_max = draft_max,
                               .step_target_us = 100000,
                               .weights = i->weights};
    if (cfg.n_context > (i->n_kv_blocks - 1) * ENGINE_BLOCK_TOKENS)
        cfg.n_context = (i->n_kv_blocks - 1) * ENGINE_BLOCK_TOKENS;
    struct sched_vocab v = {
        .ctx = b, .text = word, .bytes = word, .is_end = is_end, .n = vocab_size(b->words)};
    v.n_ends = vocab_ends(b->words, &v.ends);
    struct sched_out out = {b, on_deltas, on_done, on_error};
    return sched_new(&cfg, &v, &out);
}

static void ask(struct bench *b, sched *s, size_t i)
{
    static const char tenant[GENERATE_TENANT_BYTES];
    struct why w = {.text = ""};
    uint32_t retry_ms;
    struct gen_request r = {.gateway = 1,
                            .request = i + 1,
                            .tenant = {tenant, sizeof tenant},
                            .prompt = b->prompts[i].p,
                            .n_prompt = (uint32_t)b->prompts[i].n,
                            .sampling = {.temperature = b->o.temperature,
                                         .top_p = 1,
                                         .repetition_penalty = 1,
                                         .seed = i},
                            .n_choices = 1,
                            .max_tokens = b->o.gen,
                            .credit = UINT64_MAX};
    if (sched_take_request(s, clock_mono_us(), &r, arena_new(0), &retry_ms, &w) < 0)
        fail("a request", &w);
}

static void compute(struct bench *b, struct sched_work *work)
{
    struct why w = {.text = ""};
    for (size_t i = 0; i < work->n_copies; i++)
        if (engine_block_copy(b->e, work->copies[i].from, work->copies[i].to,
                              work->copies[i].n_tokens) < 0)
            fail("copy", &w);
    if (engine_compute(b->e, &work->step, &w) < 0)
        fail("compute", &w);
    engine_sample(b->e, work->jobs, work->n_jobs);
}

static void until_done(struct bench *b, sched *s)
{
    struct sched_work *work;
    while ((work = sched_plan(s, clock_mono_us()))) {
        sched_flush(s);
        uint64_t begun = clock_mono_us();
        compute(b, work);
        uint64_t now = clock_mono_us();
        sched_result(s, now, 0, NULL, now - begun);
    }
    sched_flush(s);
}

static void run(struct bench *b, uint32_t draft_max, bool together, struct run *out)
{
    *out = (struct run){0};
    b->run = out;
    sched *s = scheduler(b, draft_max);
    /* the notes are computed before, and remembered */
    ask(b, s, 0);
    until_done(b, s);
    out->answers[0] = (struct answer){0};
    uint64_t begun = clock_mono_us();
    for (size_t i = 0; i < N; i++) {
        ask(b, s, i);
        if (!together)
            until_done(b, s);
    }
    until_done(b, s);
    out->busy_us = clock_mono_us() - begun;
    out->load = sched_load_now(s);
    sched_free(s);
}

/* ---- figures ---- */

/* Of one after the other: mean over the questions of each one's speed; together: of all. */
static double speed(const struct run *r, bool together, size_t only)
{
    double sum = 0, tokens = 0;
    for (size_t i = 0; i < N; i++) {
        const struct answer *a = &r->answers[i];
        tokens += (double)a->n;
        if (a->n > 1 && (only == N || only == i))
            sum += (double)(a->n - 1) * 1e6 / (double)(a->decode_us ? a->decode_us : 1);
    }
    if (together)
        return tokens * 1e6 / (double)r->busy_us;
    return only == N ? sum / (double)N : sum;
}

static void check_same(const struct run *x, const struct run *y)
{
    struct why w = {.text = "the same question has two answers"};
    for (size_t i = 0; i < N; i++)
        if (x->answers[i].n != y->answers[i].n ||
            memcmp(x->answers[i].ids, y->answers[i].ids, x->answers[i].n * sizeof(int32_t)) != 0)
            fail(QUESTIONS[i], &w);
}

static void show(const struct bench *b, const struct run *off, const struct run *on)
{
    for (size_t i = 0; i < N; i++) {
        buf text = {0};
        for (size_t k = 0; k < on->answers[i].n; k++)
            buf_put_slice(&text, vocab_bytes(b->words, on->answers[i].ids[k]));
        fprintf(stderr, "%s\n  (%.2f) %.*s\n", QUESTIONS[i],
                speed(on, false, i) / speed(off, false, i), (int)text.n, text.p);
        buf_clear(&text);
    }
}

static void measure(struct bench *b, bool together, buf *out)
{
    static struct run off, on, best_off, best_on;
    double ratio = 0;
    for (int i = 0; i < b->o.repeat; i++) {
        run(b, 0, together, &off);
        run(b, b->o.draft_max, together, &on);
        check_same(&off, &on);
        if (i == 0 || speed(&off, together, N) > speed(&best_off, together, N))
            best_off = off;
        if (i == 0 || speed(&on, together, N) > speed(&best_on, together, N))
            best_on = on;
    }
    for (size_t i = 0; i < N && !together; i++)
        ratio += speed(&best_on, false, i) / speed(&best_off, false, i) / (double)N;
    if (together)
        ratio = speed(&best_on, true, N) / speed(&best_off, true, N);
    if (b->o.show && !together)
        show(b, &best_off, &best_on);
    buf_printf(out,
               "{\"tok_s_without\": %.1f, \"tok_s_with\": %.1f, \"ratio\": %.2f, \"rows\": %llu, "
               "\"drafted\": %llu, \"accepted\": %llu}",
               speed(&best_off, together, N), speed(&best_on, together, N), ratio,
               (unsigned long long)best_on.load.rows, (unsigned long long)best_on.load.drafted,
               (unsigned long long)best_on.load.accepted);
}

static void parse(struct options *o, int argc, char **argv)
{
    struct why w = {
        .text =
            "notes_bench MODEL [--threads T] [--gen G] [--draft-max N] [--temperature T] [--repeat "
            "R] [--show]"};
    *o = (struct options){.repeat = 3, .gen = 64, .draft_max = 8};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--show") == 0)
            o->show = true;
        else if (argv[i][0] != '-')
            o->model = argv[i];
        else if (++i == argc)
            fail("use", &w);
        else if (strcmp(argv[i - 1], "--threads") == 0)
            o->threads = (int)strtol(argv[i], NULL, 10);
        else if (strcmp(argv[i - 1], "--gen") == 0)
            o->gen = (uint32_t)strtoul(argv[i], NULL, 10);
        else if (strcmp(argv[i - 1], "--draft-max") == 0)
            o->draft_max = (uint32_t)strtoul(argv[i], NULL, 10);
        else if (strcmp(argv[i - 1], "--temperature") == 0)
            o->temperature = strtof(argv[i], NULL);
        else if (strcmp(argv[i - 1], "--repeat") == 0)
            o->repeat = (int)strtol(argv[i], NULL, 10);
        else
            fail("use", &w);
    }
    if (!o->model || o->gen > GEN_MAX || o->draft_max > DRAFT_MAX)
        fail("use", &w);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct why w = {.text = ""};
    parse(&b.o, argc, argv);
    struct engine_config cfg = {
        .threads = b.o.threads, .kv_bytes = 512u << 20, .rows_max = STEP_TOKENS};
    if (model_file_open(b.o.model, &b.file, &w) < 0 || vocab_open(b.file, &b.words, &w) < 0 ||
        engine_open(b.file, &cfg, &b.e, &w) < 0)
        fail(b.o.model, &w);
    make_prompts(&b);
    buf out = {0};
    buf_printf(&out, "{\"prompt_tokens\": %zu, \"one_by_one\": ", b.prompts[0].n);
    measure(&b, false, &out);
    buf_put_str(&out, ", \"together\": ");
    measure(&b, true, &out);
    printf("%.*s}\n", (int)out.n, out.p);
    buf_clear(&out);
    for (size_t i = 0; i < N; i++)
        ids_clear(&b.prompts[i]);
    engine_close(b.e);
    vocab_close(b.words);
    model_file_close(b.file);
    return 0;
}
