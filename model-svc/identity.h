/* What a worker says of itself in READY. No sockets here. */
#ifndef NUNCHI_MODEL_IDENTITY_H
#define NUNCHI_MODEL_IDENTITY_H

#include "common/base/arena.h"
#include "engine/engine.h"
#include "proto/session.pb-c.h"

struct identity {
    const char *name; /* what clients ask for */
    const struct engine_info *engine;
    uint32_t n_context, slots;
    uint64_t created_unix_s; /* of the model file */
    bool chat;
};

/* Lies in the arena, which is reset first; to be sent before the arena is used again. */
const Nunchi__Ready *identity_ready(const struct identity *id, arena *a);

#endif
