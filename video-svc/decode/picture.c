#include "video-svc/decode/picture.h"

#include <math.h>

int picture_init(struct picture *pic, uint32_t w, uint32_t h, uint32_t channels)
{
    *pic = (struct picture){0};
    if (w == 0 || h == 0 || w > PICTURE_EDGE_MAX || h > PICTURE_EDGE_MAX)
        return ERR_TOO_BIG;
    pic->p = try_calloc((size_t)w * h, channels);
    if (!pic->p)
        return ERR_NOMEM;
    pic->w = w;
    pic->h = h;
    pic->channels = channels;
    return 0;
}

void picture_clear(struct picture *pic)
{
    free(pic->p);
    *pic = (struct picture){0};
}

/* Where the pixel (x, y) of the turned picture comes from. */
static size_t source_of(const struct picture *in, uint32_t degrees, uint32_t x, uint32_t y)
{
    switch (degrees) {
    case 90:
        return (size_t)(in->h - 1 - x) * in->w + y;
    case 180:
        return (size_t)(in->h - 1 - y) * in->w + (in->w - 1 - x);
    default: /* 270 */
        return (size_t)x * in->w + (in->w - 1 - y);
    }
}

int picture_rotate(struct picture *pic, uint32_t degrees)
{
    if (degrees == 0)
        return 0;
    bool turned = degrees == 90 || degrees == 270;
    struct picture out;
    int e = picture_init(&out, turned ? pic->h : pic->w, turned ? pic->w : pic->h, pic->channels);
    if (e < 0)
        return e;
    for (uint32_t y = 0; y < out.h; y++)
        for (uint32_t x = 0; x < out.w; x++)
            memcpy(out.p + ((size_t)y * out.w + x) * out.channels,
                   pic->p + source_of(pic, degrees, x, y) * out.channels, out.channels);
    picture_clear(pic);
    *pic = out;
    return 0;
}

static uint32_t scaled(uint32_t v, uint32_t edge, uint32_t longest)
{
    uint64_t n = ((uint64_t)v * edge + longest / 2) / longest;
    return n < 1 ? 1 : (uint32_t)n;
}

void picture_fit(uint32_t w, uint32_t h, uint32_t edge, bool grow, uint32_t *out_w, uint32_t *out_h)
{
    uint32_t longest = w > h ? w : h;
    if (longest == 0 || (longest <= edge && !grow)) {
        *out_w = w ? w : 1;
        *out_h = h ? h : 1;
        return;
    }
    *out_w = scaled(w, edge, longest);
    *out_h = scaled(h, edge, longest);
}

static uint8_t area_mean(const struct picture *in, uint32_t x0, uint32_t x1, uint32_t y0,
                         uint32_t y1, uint32_t c)
{
    uint64_t sum = 0;
    for (uint32_t y = y0; y < y1; y++)
        for (uint32_t x = x0; x < x1; x++)
            sum += in->p[((size_t)y * in->w + x) * in->channels + c];
    uint64_t n = (uint64_t)(x1 - x0) * (y1 - y0);
    return (uint8_t)((sum + n / 2) / n);
}

/* [from, to) of source pixels behind pixel i of n; never empty. */
static void source_span(uint32_t i, uint32_t n, uint32_t in, uint32_t *from, uint32_t *to)
{
    *from = (uint32_t)((uint64_t)i * in / n);
    *to = (uint32_t)((uint64_t)(i + 1) * in / n);
    if (*to <= *from)
        *to = *from + 1;
}

int picture_shrink(const struct picture *in, uint32_t w, uint32_t h, struct picture *out)
{
    int e = picture_init(out, w, h, in->channels);
    if (e < 0)
        return e;
    for (uint32_t y = 0; y < h; y++) {
        uint32_t y0, y1;
        source_span(y, h, in->h, &y0, &y1);
        for (uint32_t x = 0; x < w; x++) {
            uint32_t x0, x1;
            source_span(x, w, in->w, &x0, &x1);
            for (uint32_t c = 0; c < in->channels; c++)
                out->p[((size_t)y * w + x) * in->channels + c] = area_mean(in, x0, x1, y0, y1, c);
        }
    }
    return 0;
}

/* ---- perceptual hash ---- */

#define HASH_EDGE 32 /* samples each way */
#define HASH_LOW 8   /* frequencies each way that enter */

static double luma(const uint8_t *p, uint32_t channels)
{
    return channels == 1 ? p[0] : 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
}

/* The low frequencies of a cosine transform, the constant part left out. */
static void low_frequencies(const struct picture *small, double out[HASH_LOW * HASH_LOW])
{
    double wave[HASH_LOW][HASH_EDGE], rows[HASH_EDGE][HASH_LOW] = {{0}};
    for (int u = 0; u < HASH_LOW; u++)
        for (int x = 0; x < HASH_EDGE; x++)
            wave[u][x] = cos(M_PI * (2 * x + 1) * (u + 1) / (2.0 * HASH_EDGE));
    for (int y = 0; y < HASH_EDGE; y++)
        for (int u = 0; u < HASH_LOW; u++)
            for (int x = 0; x < HASH_EDGE; x++)
                rows[y][u] +=
                    wave[u][x] *
                    luma(small->p + (size_t)(y * HASH_EDGE + x) * small->channels, small->channels);
    for (int v = 0; v < HASH_LOW; v++)
        for (int u = 0; u < HASH_LOW; u++) {
            double sum = 0;
            for (int y = 0; y < HASH_EDGE; y++)
                sum += wave[v][y] * rows[y][u];
            out[v * HASH_LOW + u] = sum;
        }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

uint64_t picture_hash(const struct picture *pic)
{
    struct picture small;
    if (picture_shrink(pic, HASH_EDGE, HASH_EDGE, &small) < 0)
        return 1;
    double f[HASH_LOW * HASH_LOW], sorted[HASH_LOW * HASH_LOW];
    low_frequencies(&small, f);
    picture_clear(&small);
    memcpy(sorted, f, sizeof f);
    qsort(sorted, HASH_LOW * HASH_LOW, sizeof sorted[0], by_value);
    double median = (sorted[31] + sorted[32]) / 2;
    uint64_t h = 0;
    for (int i = 0; i < HASH_LOW * HASH_LOW; i++)
        h |= (uint64_t)(f[i] > median) << i;
    return h ? h : 1; /* 0 says "none" in the notes */
}
