/* What the scheduler says, as protobuf bodies. No sockets here. */
#ifndef NUNCHI_MODEL_REPLY_H
#define NUNCHI_MODEL_REPLY_H

#include "model-svc/core.h"

/* Each replaces *out. `a` is scratch: reset by the call. */
void reply_deltas(const struct sched_vocab *words, const struct sched_delta *d, size_t n, arena *a,
                  buf *out);
void reply_done(const struct sched_done *d, const struct digest *numerics, arena *a, buf *out);
void reply_error(int err, const struct why *w, uint32_t retry_after_ms, arena *a, buf *out);

#endif
