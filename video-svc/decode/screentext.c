#include "video-svc/decode/screentext.h"

#include "common/base/nearest.h"
#include "video-svc/decode/records.h"

#define OPEN_MAX OCR_LINES_MAX
#define MISSES_MAX 1 /* a line that is misread once is still there */
#define COMPARE_BYTES NEAREST_WORD_MAX
#define ALIKE_PART 4 /* at most a quarter of a line may differ */

struct open_line {
    struct screentext_span span; /* end_ms: last time it was seen */
    uint32_t before_ms;          /* time of the picture before it appeared */
    uint32_t gone_ms;            /* first time it was missed; 0: not missed */
    int misses;
    bool seen;
};

struct done_line {
    struct screentext_span span;
    uint32_t before_ms, gone_ms; /* the unseen moments around it; gone_ms 0: until the end */
};

struct screentext {
    struct open_line open[OPEN_MAX];
    size_t n_open;
    struct done_line *done;
    size_t n_done, cap;
    uint32_t last_ms;
    bool any;
};

screentext *screentext_new(void)
{
    return xcalloc(1, sizeof(screentext));
}

void screentext_free(screentext *s)
{
    if (!s)
        return;
    free(s->done);
    free(s);
}

/* Letters and digits alone, lower case, the first COMPARE_BYTES of them: what two readings of one
 * line share. */
static slice essence(const char *text, char out[COMPARE_BYTES])
{
    size_t n = 0;
    for (const char *p = text; *p && n < COMPARE_BYTES; p++) {
        unsigned char c = (unsigned char)*p;
        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c + 32);
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80)
            out[n++] = (char)c;
    }
    return (slice){out, n};
}

static bool alike(const char *a, const char *b)
{
    char ea[COMPARE_BYTES], eb[COMPARE_BYTES];
    slice x = essence(a, ea), y = essence(b, eb);
    size_t longer = x.n > y.n ? x.n : y.n;
    return longer > 0 && text_distance(x, y) <= longer / ALIKE_PART;
}

static void close_line(screentext *s, size_t i)
{
    struct open_line *o = &s->open[i];
    if (s->n_done < REC_SCREEN_TEXTS_MAX) {
        if (s->n_done == s->cap) {
            s->cap = s->cap ? s->cap * 2 : 64;
            s->done = xrealloc(s->done, s->cap, sizeof *s->done);
        }
        s->done[s->n_done++] = (struct done_line){o->span, o->before_ms, o->gone_ms};
    }
    s->open[i] = s->open[--s->n_open];
}

static void go_on(struct open_line *o, uint32_t time_ms, const struct ocr_line *line)
{
    o->span.end_ms = time_ms;
    o->seen = true;
    o->misses = 0;
    o->gone_ms = 0;
    if (line && line->confidence > o->span.confidence) {
        o->span.confidence = line->confidence;
        memcpy(o->span.text, line->text, sizeof o->span.text);
    }
}

static void see_line(screentext *s, uint32_t time_ms, const struct ocr_line *line)
{
    for (size_t i = 0; i < s->n_open; i++)
        if (!s->open[i].seen && alike(s->open[i].span.text, line->text)) {
            go_on(&s->open[i], time_ms, line);
            return;
        }
    if (s->n_open == OPEN_MAX)
        return;
    struct open_line *o = &s->open[s->n_open++];
    *o = (struct open_line){.before_ms = s->any ? s->last_ms : 0, .seen = true};
    o->span = (struct screentext_span){
        .start_ms = time_ms, .end_ms = time_ms, .confidence = line->confidence};
    memcpy(o->span.text, line->text, sizeof o->span.text);
}

void screentext_seen(screentext *s, uint32_t time_ms, const struct ocr_line *lines, size_t n)
{
    for (size_t i = 0; i < s->n_open; i++)
        s->open[i].seen = false;
    for (size_t i = 0; i < n; i++)
        see_line(s, time_ms, &lines[i]);
    for (size_t i = s->n_open; i-- > 0;) {
        struct open_line *o = &s->open[i];
        if (o->seen)
            continue;
        if (o->misses++ == 0)
            o->gone_ms = time_ms;
        if (o->misses > MISSES_MAX)
            close_line(s, i);
    }
    s->last_ms = time_ms;
    s->any = true;
}

void screentext_same(screentext *s, uint32_t time_ms)
{
    for (size_t i = 0; i < s->n_open; i++)
        if (s->open[i].misses == 0)
            s->open[i].span.end_ms = time_ms;
    s->last_ms = time_ms;
    s->any = true;
}

/* A cut between the unseen and the seen moment is where it happened; else half-way is the best
 * guess. */
static uint32_t moved(uint32_t from, uint32_t to, const uint32_t *cuts, size_t n_cuts)
{
    for (size_t i = 0; i < n_cuts; i++)
        if (cuts[i] > from && cuts[i] <= to)
            return cuts[i];
    return from + (to - from) / 2;
}

static int by_start(const void *a, const void *b)
{
    const struct done_line *x = a, *y = b;
    if (x->span.start_ms != y->span.start_ms)
        return x->span.start_ms < y->span.start_ms ? -1 : 1;
    return strcmp(x->span.text, y->span.text);
}

size_t screentext_end(screentext *s, const uint32_t *cuts, size_t n_cuts, uint32_t end_ms)
{
    while (s->n_open > 0)
        close_line(s, s->n_open - 1);
    for (size_t i = 0; i < s->n_done; i++) {
        struct done_line *d = &s->done[i];
        d->span.start_ms = moved(d->before_ms, d->span.start_ms, cuts, n_cuts);
        d->span.end_ms = d->gone_ms ? moved(d->span.end_ms, d->gone_ms, cuts, n_cuts) : end_ms;
        if (d->span.end_ms < d->span.start_ms)
            d->span.end_ms = d->span.start_ms;
    }
    if (s->n_done)
        qsort(s->done, s->n_done, sizeof *s->done, by_start);
    return s->n_done;
}

const struct screentext_span *screentext_at(const screentext *s, size_t i)
{
    return &s->done[i].span;
}
