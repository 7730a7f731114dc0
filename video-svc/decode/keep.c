#include "video-svc/decode/keep.h"

#include <math.h>

#include "video-svc/decode/jpeg.h"
#include "video-svc/decode/records.h"

#define CANDIDATES 24
#define STEP_MIN_MS 200
#define SUDDEN_GAP_MS 120 /* between pictures taken because something changed */

struct candidate {
    uint32_t time_ms;
    struct picture pic;
};

struct keep {
    uint32_t frames_max, thumb_edge;
    struct candidate c[CANDIDATES];
    size_t n;
    struct kept_frame *kept;
    size_t n_kept, cap;
};

keep *keep_new(uint32_t frames_max, uint32_t thumb_edge)
{
    keep *k = xcalloc(1, sizeof *k);
    k->frames_max = frames_max;
    k->thumb_edge = thumb_edge;
    return k;
}

void keep_free(keep *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++)
        picture_clear(&k->c[i].pic);
    for (size_t i = 0; i < k->n_kept; i++) {
        buf_clear(&k->kept[i].jpeg);
        buf_clear(&k->kept[i].thumb);
    }
    free(k->kept);
    free(k);
}

bool keep_due(const keep *k, uint32_t time_ms, bool sudden)
{
    if (k->n == 0)
        return true;
    uint32_t last = k->c[k->n - 1].time_ms;
    uint32_t step = (last - k->c[0].time_ms) / (CANDIDATES / 2);
    if (step < STEP_MIN_MS)
        step = STEP_MIN_MS;
    return time_ms >= last + step || (sudden && time_ms >= last + SUDDEN_GAP_MS);
}

static void drop(keep *k, size_t i)
{
    picture_clear(&k->c[i].pic);
    memmove(&k->c[i], &k->c[i + 1], (k->n - i - 1) * sizeof k->c[0]);
    k->n--;
}

/* The one whose neighbours are closest to each other is missed least. */
static size_t least_missed(const keep *k)
{
    size_t best = 1;
    for (size_t i = 1; i + 1 < k->n; i++)
        if (k->c[i + 1].time_ms - k->c[i - 1].time_ms <
            k->c[best + 1].time_ms - k->c[best - 1].time_ms)
            best = i;
    return best;
}

void keep_take(keep *k, uint32_t time_ms, struct picture *pic)
{
    if (k->n == CANDIDATES)
        drop(k, least_missed(k));
    k->c[k->n++] = (struct candidate){time_ms, *pic};
    *pic = (struct picture){0};
}

/* ---- the end of a scene ---- */

static int encode(keep *k, const struct candidate *c, struct kept_frame *f)
{
    f->width = c->pic.w;
    f->height = c->pic.h;
    f->phash = picture_hash(&c->pic);
    int e = jpeg_encode(&c->pic, REC_JPEG_MAX, &f->jpeg);
    if (e < 0)
        return e;
    uint32_t w, h;
    struct picture small;
    picture_fit(c->pic.w, c->pic.h, k->thumb_edge, false, &w, &h);
    e = picture_shrink(&c->pic, w, h, &small);
    if (e >= 0)
        e = jpeg_encode(&small, REC_THUMB_MAX, &f->thumb);
    picture_clear(&small);
    return e;
}

static int keep_candidate(keep *k, const struct candidate *c, uint32_t scene)
{
    struct kept_frame f = {.scene = scene, .time_ms = c->time_ms};
    int e = encode(k, c, &f);
    if (e < 0) {
        buf_clear(&f.jpeg);
        buf_clear(&f.thumb);
        return e;
    }
    if (k->n_kept == k->cap) {
        k->cap = k->cap ? k->cap * 2 : 32;
        k->kept = xrealloc(k->kept, k->cap, sizeof *k->kept);
    }
    k->kept[k->n_kept++] = f;
    return 0;
}

/* One for a glimpse, more for what lasts, but not in proportion. */
static uint32_t frames_wanted(uint32_t length_ms)
{
    uint32_t n = (uint32_t)lround(sqrt(length_ms / 1000.0));
    return n < 1 ? 1 : n > KEEP_SCENE_FRAMES_MAX ? KEEP_SCENE_FRAMES_MAX : n;
}

static uint32_t apart(uint32_t a, uint32_t b)
{
    return a > b ? a - b : b - a;
}

/* Of candidates [from, n) the one nearest to the time. */
static size_t nearest(const keep *k, size_t from, size_t n, uint32_t time_ms)
{
    size_t best = from;
    for (size_t i = from; i < n; i++)
        if (apart(k->c[i].time_ms, time_ms) < apart(k->c[best].time_ms, time_ms))
            best = i;
    return best;
}

static bool alone_in_scene(const keep *k, size_t i)
{
    return !((i > 0 && k->kept[i - 1].scene == k->kept[i].scene) ||
             (i + 1 < k->n_kept && k->kept[i + 1].scene == k->kept[i].scene));
}

/* Between its neighbours in time; the first and the last have one neighbour, which counts twice. */
static uint64_t gap_around(const keep *k, size_t i)
{
    uint64_t left = i ? k->kept[i].time_ms - k->kept[i - 1].time_ms : UINT64_MAX;
    uint64_t right = i + 1 < k->n_kept ? k->kept[i + 1].time_ms - k->kept[i].time_ms : UINT64_MAX;
    if (left == UINT64_MAX && right == UINT64_MAX)
        return 0;
    return left == UINT64_MAX ? 2 * right : right == UINT64_MAX ? 2 * left : left + right;
}

/* Over the limit, a frame goes: rather one of several of a scene, and the one whose neighbours are
 * closest. */
static void thin(keep *k)
{
    while (k->n_kept > k->frames_max) {
        size_t worst = 0;
        uint64_t least = UINT64_MAX;
        for (size_t i = 0; i < k->n_kept; i++) {
            uint64_t gap = gap_around(k, i) + (alone_in_scene(k, i) ? (uint64_t)1 << 40 : 0);
            if (gap < least) {
                least = gap;
                worst = i;
            }
        }
        buf_clear(&k->kept[worst].jpeg);
        buf_clear(&k->kept[worst].thumb);
        memmove(&k->kept[worst], &k->kept[worst + 1], (k->n_kept - worst - 1) * sizeof *k->kept);
        k->n_kept--;
    }
}

int keep_scene(keep *k, uint32_t scene, uint32_t start_ms, uint32_t end_ms)
{
    size_t n = 0, from = 0;
    while (n < k->n && k->c[n].time_ms < end_ms)
        n++;
    uint32_t wanted = frames_wanted(end_ms - start_ms);
    int e = 0;
    for (uint32_t i = 0; i < wanted && from < n && e >= 0; i++) {
        uint32_t target =
            start_ms + (uint32_t)((uint64_t)(end_ms - start_ms) * (2 * i + 1) / (2 * wanted));
        size_t pick = nearest(k, from, n, target);
        e = keep_candidate(k, &k->c[pick], scene);
        from = pick + 1;
    }
    for (size_t i = 0; i < n; i++)
        picture_clear(&k->c[i].pic);
    memmove(&k->c[0], &k->c[n], (k->n - n) * sizeof k->c[0]);
    k->n -= n;
    thin(k);
    return e;
}

size_t keep_n(const keep *k)
{
    return k->n_kept;
}

const struct kept_frame *keep_at(const keep *k, size_t i)
{
    return &k->kept[i];
}
