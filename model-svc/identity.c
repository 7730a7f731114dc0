#include "model-svc/identity.h"

#include <stdio.h>

#include "common/wire/pb.h"

/* The generated structs want char *; packing does not write through it. */
static char *text_of(arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_get(a, n), s, n);
}

static Nunchi__ModelInfo *model_of(const struct identity *id, arena *a)
{
    const struct engine_info *i = id->engine;
    Nunchi__ModelInfo *m = arena_get(a, sizeof *m);
    char backend[40];
    snprintf(backend, sizeof backend, "%s %s", i->backend, i->isa);
    nunchi__model_info__init(m);
    m->name = text_of(a, id->name);
    m->family = text_of(a, i->family);
    m->n_context = id->n_context;
    m->n_vocab = i->n_vocab;
    m->weights = pb_bytes((slice){(const char *)i->weights.b, DIGEST_BYTES});
    m->numerics = pb_bytes((slice){(const char *)i->numerics.b, DIGEST_BYTES});
    m->chat = id->chat;
    m->created_unix_s = id->created_unix_s;
    m->backend = text_of(a, backend);
    m->kv_bytes_per_token = (uint32_t)(i->kv_block_bytes / ENGINE_BLOCK_TOKENS);
    return m;
}

const Nunchi__Ready *identity_ready(const struct identity *id, arena *a)
{
    arena_reset(a);
    Nunchi__Ready *r = arena_get(a, sizeof *r);
    nunchi__ready__init(r);
    r->service = text_of(a, "model");
    r->models = arena_get(a, sizeof(Nunchi__ModelInfo *));
    r->models[0] = model_of(id, a);
    r->n_models = 1;
    r->slots = id->slots;
    return r;
}
