#include "tokenizer-svc/place.h"

#include "common/wire/pb.h"

#define HOUR_MS 3600000u

/* In the order in which they are written: speech stands last, next to the question. */
enum kind { CHAPTER, SCENE, SHOWN, SAID, N_KINDS };

static const char *const HEADING[N_KINDS] = {
    [SAID] = "What is said (with times):\n",
    [SHOWN] = "Text on the screen:\n",
    [CHAPTER] = "Chapters:\n",
    [SCENE] = "Scenes:\n",
};

struct line {
    uint32_t start_ms, end_ms;
    size_t from, len;
    uint32_t cost;
};

struct group {
    struct line *at;
    size_t n;
    size_t cost; /* heading and all lines */
};

struct place {
    buf text; /* heading, then the lines' texts */
    size_t head_len, head_cost, heading_cost[N_KINDS];
    size_t shortened_cost; /* of the line that says so, at its longest */
    bool hours;
    struct group groups[N_KINDS];
};

void place_time(buf *out, uint64_t ms, bool hours)
{
    unsigned long long s = ms / 1000;
    if (hours)
        buf_printf(out, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
    else
        buf_printf(out, "%02llu:%02llu", s / 60, s % 60);
}

/* One line of text from bytes of unknown make: white space and control characters become single
 * spaces. */
static void put_clean(slice raw, size_t max, buf *out)
{
    buf whole = {0};
    utf8_put_lossy(&whole, (slice){raw.p, raw.n < 4 * max ? raw.n : 4 * max});
    size_t start = out->n;
    bool gap = false;
    for (size_t i = 0, n; i < whole.n; i += n) {
        uint32_t cp;
        n = utf8_decode(whole.p + i, whole.n - i, &cp);
        bool blank = cp <= 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0x2028 || cp == 0x2029 ||
                     cp == 0xfeff;
        if (blank) {
            gap = out->n > start;
            continue;
        }
        if (out->n - start + n + gap > max) {
            buf_put_str(out, "…");
            break;
        }
        if (gap)
            buf_put_byte(out, ' ');
        gap = false;
        buf_put(out, whole.p + i, n);
    }
    buf_clear(&whole);
}

static int count(const tokenizer *t, tok_scratch *s, slice text, size_t *n, struct why *w)
{
    struct ids ids = {0};
    int e = tokenizer_encode(t, s, text, false, &ids, w);
    *n = ids.n;
    ids_clear(&ids);
    return e;
}

/* ---- the lines of a kind ---- */

static int by_time(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->start_ms != y->start_ms)
        return x->start_ms < y->start_ms ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from; /* as they came */
}

static bool same_text(const place *p, const struct line *a, const struct line *b)
{
    return a->len == b->len && memcmp(p->text.p + a->from, p->text.p + b->from, a->len) == 0;
}

/* Captions that roll or repeat say the same words again: one line with both times. */
static void join_repeats(const place *p, struct group *g)
{
    size_t kept = 0;
    for (size_t i = 0; i < g->n; i++) {
        struct line *last = kept > 0 ? &g->at[kept - 1] : NULL;
        if (last && same_text(p, last, &g->at[i]) && g->at[i].start_ms <= last->end_ms + 1000) {
            if (g->at[i].end_ms > last->end_ms)
                last->end_ms = g->at[i].end_ms;
        } else {
            g->at[kept++] = g->at[i];
        }
    }
    g->n = kept;
}

static void put_line(const place *p, const struct line *l, buf *out)
{
    buf_put_byte(out, '[');
    place_time(out, l->start_ms, p->hours);
    buf_put_byte(out, '-');
    place_time(out, l->end_ms, p->hours);
    buf_put_str(out, "] ");
    buf_put(out, p->text.p + l->from, l->len);
    buf_put_byte(out, '\n');
}

static int price(place *p, struct group *g, enum kind k, const tokenizer *t, tok_scratch *s,
                 struct why *w)
{
    if (g->n == 0)
        return 0;
    qsort(g->at, g->n, sizeof *g->at, by_time);
    join_repeats(p, g);
    buf line = {0};
    int e = count(t, s, slice_str(HEADING[k]), &p->heading_cost[k], w);
    g->cost = p->heading_cost[k];
    for (size_t i = 0; e == 0 && i < g->n; i++) {
        size_t n = 0;
        buf_reset(&line);
        put_line(p, &g->at[i], &line);
        e = count(t, s, buf_slice(&line), &n, w);
        g->at[i].cost = (uint32_t)n;
        g->cost += n;
    }
    buf_clear(&line);
    return e;
}

static int take_spans(place *p, enum kind k, Nunchi__Span **spans, size_t n)
{
    struct group *g = &p->groups[k];
    if (n == 0)
        return 0;
    g->at = try_calloc(n, sizeof *g->at);
    if (!g->at)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        struct line l = {
            .start_ms = spans[i]->start_ms, .end_ms = spans[i]->end_ms, .from = p->text.n};
        put_clean(pb_slice(spans[i]->text), PLACE_LINE_BYTES_MAX, &p->text);
        l.len = p->text.n - l.from;
        if (l.end_ms < l.start_ms)
            l.end_ms = l.start_ms;
        if (l.len > 0)
            g->at[g->n++] = l;
    }
    return 0;
}

static int take_scenes(place *p, Nunchi__Scene **scenes, size_t n)
{
    struct group *g = &p->groups[SCENE];
    if (n < 2) /* one scene is the whole video: nothing to say */
        return 0;
    g->at = try_calloc(n, sizeof *g->at);
    if (!g->at)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        struct line l = {
            .start_ms = scenes[i]->start_ms, .end_ms = scenes[i]->end_ms, .from = p->text.n};
        buf_printf(&p->text, "Scene %zu", i + 1);
        l.len = p->text.n - l.from;
        if (l.end_ms < l.start_ms)
            l.end_ms = l.start_ms;
        g->at[g->n++] = l;
    }
    return 0;
}

/* ---- the heading ---- */

static bool needs_hours(const Nunchi__Notes *n)
{
    bool hours = n->container && n->container->duration_ms >= HOUR_MS;
    for (size_t i = 0; i < n->n_subtitles; i++)
        hours = hours || n->subtitles[i]->end_ms >= HOUR_MS;
    for (size_t i = 0; i < n->n_scenes; i++)
        hours = hours || n->scenes[i]->end_ms >= HOUR_MS;
    return hours;
}

static void put_head(place *p, const Nunchi__Notes *notes, slice name)
{
    buf_put_str(&p->text, "Video: ");
    size_t before = p->text.n;
    put_clean(name, PLACE_NAME_BYTES_MAX, &p->text);
    if (p->text.n == before)
        buf_put_str(&p->text, "(no name)");
    if (notes->container && notes->container->title.len > 0) {
        buf_put_str(&p->text, "\nTitle: ");
        put_clean(pb_slice(notes->container->title), PLACE_NAME_BYTES_MAX, &p->text);
    }
    if (notes->container) {
        buf_put_str(&p->text, "\nLength: ");
        place_time(&p->text, notes->container->duration_ms, p->hours);
    }
    buf_put_byte(&p->text, '\n');
    if (notes->n_subtitles == 0)
        buf_put_str(&p->text, "There is no transcript of what is said.\n");
    if (notes->n_screen_text == 0)
        buf_put_str(&p->text, "No text was seen on the screen.\n");
    p->head_len = p->text.n;
}

static void put_shortened(size_t kept, size_t lines, buf *out)
{
    buf_printf(out, "These notes are shortened: %zu of %zu lines.\n", kept, lines);
}

static int price_all(place *p, const tokenizer *t, tok_scratch *s, struct why *w)
{
    buf line = {0};
    int e = count(t, s, (slice){p->text.p, p->head_len}, &p->head_cost, w);
    for (int k = 0; e == 0 && k < N_KINDS; k++)
        e = price(p, &p->groups[k], (enum kind)k, t, s, w);
    put_shortened(place_lines(p), place_lines(p), &line);
    if (e == 0)
        e = count(t, s, buf_slice(&line), &p->shortened_cost, w);
    buf_clear(&line);
    return e;
}

int place_new(const Nunchi__Notes *notes, slice name, const tokenizer *t, tok_scratch *s,
              place **out, struct why *w)
{
    place *p = xcalloc(1, sizeof *p);
    *out = NULL;
    p->hours = needs_hours(notes);
    put_head(p, notes, name);
    int e;
    if (take_spans(p, SAID, notes->subtitles, notes->n_subtitles) < 0 ||
        take_spans(p, SHOWN, notes->screen_text, notes->n_screen_text) < 0 ||
        take_spans(p, CHAPTER, notes->chapters, notes->n_chapters) < 0 ||
        take_scenes(p, notes->scenes, notes->n_scenes) < 0)
        e = why_set(w, ERR_NOMEM, "", "no memory for a video's notes");
    else
        e = price_all(p, t, s, w);
    if (e < 0) {
        place_free(p);
        return e;
    }
    *out = p;
    return 0;
}

void place_free(place *p)
{
    if (!p)
        return;
    for (int k = 0; k < N_KINDS; k++)
        free(p->groups[k].at);
    buf_clear(&p->text);
    free(p);
}

size_t place_cost(const place *p)
{
    size_t cost = p->head_cost;
    for (int k = 0; k < N_KINDS; k++)
        cost += p->groups[k].cost;
    return cost;
}

size_t place_lines(const place *p)
{
    size_t n = 0;
    for (int k = 0; k < N_KINDS; k++)
        n += p->groups[k].n;
    return n;
}

/* ---- choosing ---- */

/* The i-th of `keep` lines spread evenly over n. */
static size_t spread(size_t i, size_t keep, size_t n)
{
    return (2 * i + 1) * n / (2 * keep);
}

static size_t cost_of(const place *p, enum kind k, size_t keep)
{
    const struct group *g = &p->groups[k];
    if (keep == 0)
        return 0;
    size_t cost = p->heading_cost[k];
    for (size_t i = 0; i < keep; i++)
        cost += g->at[spread(i, keep, g->n)].cost;
    return cost;
}

/* How many lines of a kind fit. */
static size_t how_many(const place *p, enum kind k, size_t budget)
{
    const struct group *g = &p->groups[k];
    size_t lo = 0, hi = g->n; /* lo fits */
    if (g->cost <= budget)
        return g->n;
    while (lo + 1 < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cost_of(p, k, mid) <= budget)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Chapters are few and say most: up to a quarter. Then speech and text, each at least half of the
 * rest if it needs that; what they leave goes to the other, then to the scenes. */
static void choose(const place *p, size_t budget, size_t keep[N_KINDS])
{
    keep[CHAPTER] = how_many(p, CHAPTER, budget / 4);
    budget -= cost_of(p, CHAPTER, keep[CHAPTER]);
    size_t said = p->groups[SAID].cost, shown = p->groups[SHOWN].cost;
    size_t for_said = budget - at_most(shown, budget / 2);
    keep[SAID] = how_many(p, SAID, at_most(said, for_said));
    budget -= cost_of(p, SAID, keep[SAID]);
    keep[SHOWN] = how_many(p, SHOWN, budget);
    budget -= cost_of(p, SHOWN, keep[SHOWN]);
    keep[SCENE] = how_many(p, SCENE, budget);
}

struct placed place_write(const place *p, size_t budget, buf *out)
{
    struct placed r = {.lines = place_lines(p)};
    size_t keep[N_KINDS];
    bool whole = place_cost(p) <= budget;
    size_t fixed = p->head_cost + (whole ? 0 : p->shortened_cost);
    if (whole)
        for (int k = 0; k < N_KINDS; k++)
            keep[k] = p->groups[k].n;
    else
        choose(p, budget > fixed ? budget - fixed : 0, keep);
    for (int k = 0; k < N_KINDS; k++)
        r.kept += keep[k];
    buf_put(out, p->text.p, p->head_len);
    if (r.kept < r.lines)
        put_shortened(r.kept, r.lines, out);
    for (int k = 0; k < N_KINDS; k++) {
        if (keep[k] > 0)
            buf_put_str(out, HEADING[k]);
        for (size_t i = 0; i < keep[k]; i++)
            put_line(p, &p->groups[k].at[spread(i, keep[k], p->groups[k].n)], out);
    }
    return r;
}
