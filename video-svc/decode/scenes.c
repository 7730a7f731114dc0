#include "video-svc/decode/scenes.h"

#include <math.h>

/* Numbers found on made and real clips; what they weigh is in the header. */
#define HARD_MIN 16.0     /* least change of a hard cut */
#define HARD_RATIO 3.0    /* … against the mean of its neighbours */
#define NEIGHBOURS 3      /* pictures on each side */
#define LASTING_PART 0.4  /* of the change must still be there LAST_MS later, and not have been there before */
#define LASTING_MS 400
#define GRADUAL_MIN 24.0
#define GRADUAL_COLOURS 0.55 /* part of the picture whose colours went elsewhere */
#define GRADUAL_HALF_MS 600
#define DARK_LUMA 24.0
#define DARK_START_MS 1500 /* a fade-in belongs to the scene that it opens */
#define SPARSE_MIN 34.0
#define SPARSE_COLOURS 0.3
#define PICTURE_GAP_MS 12 /* pictures closer than this tell nothing new */

#define RING 160 /* 1.9 s at PICTURE_GAP_MS */
#define BINS_Y 8
#define BINS_C 4
#define BINS (BINS_Y * BINS_C * BINS_C)

struct shot {
    uint32_t time_ms;
    double change; /* against the one before */
    uint16_t bins[BINS];
    double luma;
    uint8_t small[SMALL_BYTES];
};

struct scenes {
    bool sparse;
    uint64_t n;       /* pictures taken */
    uint64_t decided; /* the next picture to decide about */
    uint32_t scene_start_ms;
    struct {
        bool open;
        double best;
        uint32_t time_ms;
    } gradual;
    struct shot ring[RING];
};

scenes *scenes_new(bool sparse)
{
    scenes *s = xcalloc(1, sizeof *s);
    s->sparse = sparse;
    return s;
}

void scenes_free(scenes *s)
{
    free(s);
}

static struct shot *at(scenes *s, uint64_t i)
{
    return &s->ring[i % RING];
}

static uint64_t oldest(const scenes *s)
{
    return s->n > RING ? s->n - RING : 0;
}

static double plane_difference(const uint8_t *a, const uint8_t *b)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < SMALL_PLANE; i++)
        sum += (uint32_t)abs(a[i] - b[i]);
    return (double)sum / (double)SMALL_PLANE;
}

double scenes_difference(const uint8_t a[SMALL_BYTES], const uint8_t b[SMALL_BYTES])
{
    double d = 0;
    for (size_t plane = 0; plane < 3; plane++)
        d += plane_difference(a + plane * SMALL_PLANE, b + plane * SMALL_PLANE);
    return d;
}

static void count_colours(struct shot *f)
{
    memset(f->bins, 0, sizeof f->bins);
    uint32_t luma = 0;
    for (size_t i = 0; i < SMALL_PLANE; i++) {
        unsigned y = f->small[i], u = f->small[SMALL_PLANE + i], v = f->small[2 * SMALL_PLANE + i];
        luma += y;
        /* Most chroma lies near the middle: the two inner bins are narrow. */
        unsigned bu = u < 112 ? 0 : u < 128 ? 1 : u < 144 ? 2 : 3;
        unsigned bv = v < 112 ? 0 : v < 128 ? 1 : v < 144 ? 2 : 3;
        f->bins[(y * BINS_Y / 256 * BINS_C + bu) * BINS_C + bv]++;
    }
    f->luma = (double)luma / (double)SMALL_PLANE;
}

/* 0: the same colours, 1: none in common. */
static double colour_distance(const struct shot *a, const struct shot *b)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < BINS; i++)
        sum += (uint32_t)abs(a->bins[i] - b->bins[i]);
    return (double)sum / (2.0 * (double)SMALL_PLANE);
}

static double neighbours_mean(scenes *s, uint64_t i)
{
    double sum = 0;
    int n = 0;
    for (int d = -NEIGHBOURS; d <= NEIGHBOURS; d++) {
        uint64_t k = i + (uint64_t)(int64_t)d;
        if (d == 0 || (d < 0 && i < (uint64_t)-d) || k <= oldest(s) || k >= s->n)
            continue;
        sum += at(s, k)->change;
        n++;
    }
    return n ? sum / n : 0;
}

/* What comes after stays unlike what was before, and what is new was not there a moment ago. */
static bool lasts(scenes *s, uint64_t i)
{
    struct shot *now = at(s, i), *before = at(s, i - 1);
    double need = now->change * LASTING_PART;
    for (uint64_t k = i; k < s->n && at(s, k)->time_ms <= now->time_ms + LASTING_MS; k++)
        if (scenes_difference(at(s, k)->small, before->small) < need)
            return false;
    for (uint64_t k = i; k-- > oldest(s) && at(s, k)->time_ms + LASTING_MS >= now->time_ms;)
        if (scenes_difference(at(s, k)->small, now->small) < need)
            return false;
    return true;
}

static bool hard_cut(scenes *s, uint64_t i)
{
    double change = at(s, i)->change;
    if (s->sparse)
        return change >= SPARSE_MIN && colour_distance(at(s, i), at(s, i - 1)) >= SPARSE_COLOURS;
    double around = neighbours_mean(s, i);
    return change >= HARD_MIN && change >= HARD_RATIO * around && lasts(s, i);
}

static bool long_enough(const scenes *s, uint32_t time_ms)
{
    return time_ms >= s->scene_start_ms + SCENE_MIN_MS;
}

/* The pictures half a transition before and after picture i, within the current scene. */
static void ends_of(scenes *s, uint64_t i, uint64_t *from, uint64_t *to)
{
    uint32_t t = at(s, i)->time_ms;
    *from = *to = i;
    while (*from > oldest(s) && at(s, *from - 1)->time_ms >= s->scene_start_ms &&
           at(s, *from - 1)->time_ms + GRADUAL_HALF_MS >= t)
        --*from;
    while (*to + 1 < s->n && at(s, *to + 1)->time_ms <= t + GRADUAL_HALF_MS)
        ++*to;
}

/* How much changes around picture i; 0: nothing that a fade or a dissolve would explain. */
static double gradual_change(scenes *s, uint64_t i)
{
    uint64_t from, to;
    ends_of(s, i, &from, &to);
    struct shot *a = at(s, from), *b = at(s, to);
    if (to - from < 3 || (a->luma < DARK_LUMA && a->time_ms < s->scene_start_ms + DARK_START_MS))
        return 0;
    double d = scenes_difference(a->small, b->small);
    return d >= GRADUAL_MIN && colour_distance(a, b) >= GRADUAL_COLOURS ? d : 0;
}

static size_t emit(scenes *s, uint32_t time_ms, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    if (!long_enough(s, time_ms) || n == SCENE_CUTS_MAX)
        return n;
    s->scene_start_ms = time_ms;
    cut[n] = time_ms;
    return n + 1;
}

static size_t close_gradual(scenes *s, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    if (!s->gradual.open)
        return n;
    s->gradual.open = false;
    return emit(s, s->gradual.time_ms, cut, n);
}

static size_t watch_gradual(scenes *s, uint64_t i, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    double d = gradual_change(s, i);
    if (d > 0 && (!s->gradual.open || d > s->gradual.best)) {
        s->gradual.open = true;
        s->gradual.best = d;
        s->gradual.time_ms = at(s, i)->time_ms;
    }
    if (d > 0)
        return n;
    return close_gradual(s, cut, n);
}

static size_t decide(scenes *s, uint64_t i, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    if (i == 0)
        return n;
    if (hard_cut(s, i)) {
        /* A cut in the middle of what looked like a transition is what it was. */
        if (s->gradual.open && s->gradual.time_ms + GRADUAL_HALF_MS >= at(s, i)->time_ms)
            s->gradual.open = false;
        n = close_gradual(s, cut, n);
        return emit(s, at(s, i)->time_ms, cut, n);
    }
    return s->sparse ? n : watch_gradual(s, i, cut, n);
}

static bool take(scenes *s, uint32_t time_ms, const uint8_t *small)
{
    if (s->n > 0 && time_ms < at(s, s->n - 1)->time_ms + PICTURE_GAP_MS)
        return false;
    struct shot *f = at(s, s->n);
    f->time_ms = time_ms;
    memcpy(f->small, small, SMALL_BYTES);
    count_colours(f);
    f->change = s->n ? scenes_difference(f->small, at(s, s->n - 1)->small) : 0;
    if (s->n == 0)
        s->scene_start_ms = time_ms;
    s->n++;
    return true;
}

size_t scenes_picture(scenes *s, uint32_t time_ms, const uint8_t small[SMALL_BYTES], uint32_t cut[SCENE_CUTS_MAX])
{
    size_t n = 0;
    if (!take(s, time_ms, small))
        return 0;
    uint32_t lag = s->sparse ? 0 : SCENE_LAG_MS;
    while (s->decided < s->n && n + 2 <= SCENE_CUTS_MAX &&
           (at(s, s->decided)->time_ms + lag <= time_ms || s->n - s->decided > RING / 2))
        n = decide(s, s->decided++, cut, n);
    return n;
}

size_t scenes_end(scenes *s, uint32_t cut[SCENE_CUTS_MAX])
{
    size_t n = 0;
    while (s->decided < s->n && n == 0)
        n = decide(s, s->decided++, cut, n);
    return n ? n : close_gradual(s, cut, 0);
}
