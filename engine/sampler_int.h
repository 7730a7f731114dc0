/* Inside the sampler: sampler.c surveys the vocabulary, adjusts it and draws; sampler_filter.c
 * leaves what passes the filters. */
#ifndef NUNCHI_ENGINE_SAMPLER_INT_H
#define NUNCHI_ENGINE_SAMPLER_INT_H

#include "engine/kernels/kernels.h"

#define TILE SAMPLE_TILE
#define LOG2E 1.44269504f

/* Logits, tile by tile. Behind the last id they are -infinity. */
struct tiles {
    const float **at; /* (n_tiles) TILE logits each */
    float
        *max; /* (n_tiles) of each; up to whole tiles -infinity, so that a kernel reads these too */
    float *mass;      /* (n_tiles) sum of 2^((x - top) * scale) over each */
    float top, scale; /* scale 0: no masses are wanted */
    double total;     /* of the masses */
};

struct sampler {
    const struct kernels *k;
    int32_t n_vocab;
    size_t n_tiles;
    struct tiles given, adjusted;
    float tail[TILE]; /* the last tile as it is given, if it is not a whole one */
    float *own;       /* (n_tiles, TILE) tiles that adjusting changed */
    uint32_t *count;  /* (n_vocab) all zero between calls */
    /* What a filter may leave, in the order of ids; and a register more, which a kernel writes. */
    float *x;    /* (n_tiles + 1, TILE) logits */
    float *p;    /* likelihood relative to the best */
    float *mass; /* (n_tiles + 1) of TILE of them */
    int32_t *id;
};

/* All of these are about the candidates; t has been surveyed, and its top is a number. */

/* Takes those of at least `least`, whole tiles by -infinity; returns how many. */
size_t sampler_take(sampler *s, const struct tiles *t, float least);
/* Their likelihoods beside the best, and the sum of these. */
double sampler_weigh(sampler *s, size_t n, float top, float scale);
/* A bound that at least n logits reach, and few more. */
float sampler_reached_by(const sampler *s, const struct tiles *t, size_t n);

/* Whether parameters cut anything away. */
bool sampler_filters(const struct sample_params *p);
/* Takes what passes the filters; scale: binary exponents a logit. */
size_t sampler_filter(sampler *s, const struct tiles *t, const struct sample_params *p,
                      float scale);

#endif
