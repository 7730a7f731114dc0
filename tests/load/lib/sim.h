/* Workers without a model: real links to gateways, the protocol as nunchi-tokenizer and
 * nunchi-model speak it, tokens and times by rule (words.h, sim_options.h). Loop thread only. */
#ifndef NUNCHI_LOAD_SIM_H
#define NUNCHI_LOAD_SIM_H

#include "common/wire/links.h"
#include "tests/load/lib/sim_options.h"

typedef struct sim_model sim_model;
typedef struct sim_tokenizer sim_tokenizer;

int sim_model_new(loop *l, bus *b, const struct sim_options *o, sim_model **out,
                  struct why *w) MUST_USE;
void sim_model_free(sim_model *m); /* NULL is allowed; says good-bye */

int sim_tokenizer_new(loop *l, bus *b, const struct sim_options *o, sim_tokenizer **out,
                      struct why *w) MUST_USE;
void sim_tokenizer_free(sim_tokenizer *t);

/* READY of the service; an instance of its own, for many of them are one process. */
void sim_ready(const char *service, uint32_t slots, void (*with)(void *ctx, const Nunchi__Ready *r),
               void *ctx);
void sim_error(peer_link *k, const struct wire_head *to, int err);

#endif
