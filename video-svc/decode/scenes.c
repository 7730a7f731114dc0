#include "video-svc/decode/scenes.h"

/* Numbers found on made and real clips; what they weigh is in the header. */
#define HARD_MIN 16.0  /* least change of a hard cut */
#define HARD_RATIO 3.0 /* … against the mean of its neighbours */
#define NEIGHBOURS 3   /* pictures on each side */
#define LASTING_PART                                                                               \
    0.4 /* of the change must still be there LAST_MS later, and not have been there before */
#define LASTING_MS 400
#define GRADUAL_MIN 24.0
#define GRADUAL_COLOURS 0.55 /* part of the picture whose colours went elsewhere */
#define GRADUAL_HALF_MS 600
#define SIDES 3 /* pictures looked at on each side, so far away: */
static const uint32_t GRADUAL_AT_MS[SIDES] = {GRADUAL_HALF_MS, 500, 400};
#define STEADY_PART 0.4 /* of the change may happen within one side */
#define GRADUAL_MAX_MS 3000
#define GRADUAL_PAUSE_MS 600
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
        uint32_t first_ms, last_ms; /* pictures around which much changes: the middle is the cut */
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

/* The picture nearest to picture i on the way to `ms` before or after it, within the current scene.
 */
static struct shot *shot_before(scenes *s, uint64_t i, uint32_t ms)
{
    uint32_t t = at(s, i)->time_ms;
    while (i > oldest(s) && at(s, i - 1)->time_ms >= s->scene_start_ms &&
           at(s, i - 1)->time_ms + ms >= t)
        i--;
    return at(s, i);
}

static struct shot *shot_after(scenes *s, uint64_t i, uint32_t ms)
{
    uint32_t t = at(s, i)->time_ms;
    while (i + 1 < s->n && at(s, i + 1)->time_ms <= t + ms)
        i++;
    return at(s, i);
}

static bool differ(const struct shot *a, const struct shot *b)
{
    return scenes_difference(a->small, b->small) >= GRADUAL_MIN &&
           colour_distance(a, b) >= GRADUAL_COLOURS;
}

/* Around picture i one steady thing becomes another: each of a few pictures before differs from
 * each of a few after (a flash among them does not), and on each side they are alike (a moving
 * camera's are not). */
static bool changes_around(scenes *s, uint64_t i)
{
    struct shot *before[SIDES], *after[SIDES];
    for (size_t k = 0; k < SIDES; k++) {
        before[k] = shot_before(s, i, GRADUAL_AT_MS[k]);
        after[k] = shot_after(s, i, GRADUAL_AT_MS[k]);
    }
    /* A fade-in belongs to the scene that it opens. */
    if (before[0]->luma < DARK_LUMA && before[0]->time_ms < s->scene_start_ms + DARK_START_MS)
        return false;
    for (size_t k = 0; k < SIDES * SIDES; k++)
        if (!differ(before[k / SIDES], after[k % SIDES]))
            return false;
    double steady = scenes_difference(before[0]->small, after[0]->small) * STEADY_PART;
    return scenes_difference(before[0]->small, before[SIDES - 1]->small) <= steady &&
           scenes_difference(after[0]->small, after[SIDES - 1]->small) <= steady;
}

/* n stays when the scene would be too short. */
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
    return emit(s, s->gradual.first_ms + (s->gradual.last_ms - s->gradual.first_ms) / 2, cut, n);
}

static size_t watch_gradual(scenes *s, uint64_t i, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    uint32_t now = at(s, i)->time_ms;
    if (!changes_around(s, i)) /* a fade through black pauses in the middle */
        return s->gradual.open && now > s->gradual.last_ms + GRADUAL_PAUSE_MS
                   ? close_gradual(s, cut, n)
                   : n;
    if (!s->gradual.open) {
        s->gradual.open = true;
        s->gradual.first_ms = now;
    }
    s->gradual.last_ms = now;
    /* What goes on changing is not a transition any more; it is cut where it has changed enough. */
    return now - s->gradual.first_ms > GRADUAL_MAX_MS ? close_gradual(s, cut, n) : n;
}

static size_t decide(scenes *s, uint64_t i, uint32_t cut[SCENE_CUTS_MAX], size_t n)
{
    if (i == 0)
        return n;
    if (hard_cut(s, i)) {
        /* Around a cut much changes: that alone is no transition. */
        uint32_t now = at(s, i)->time_ms;
        if (s->gradual.open && s->gradual.first_ms + 2 * GRADUAL_HALF_MS + GRADUAL_PAUSE_MS >= now)
            s->gradual.open = false;
        n = close_gradual(s, cut, n);
        return emit(s, now, cut, n);
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

size_t scenes_picture(scenes *s, uint32_t time_ms, const uint8_t small[SMALL_BYTES],
                      uint32_t cut[SCENE_CUTS_MAX])
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
