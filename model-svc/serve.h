/* nunchi-model on the wire: links to every gateway, the compute thread, the scheduler between them.
 * The one file of this service that touches sockets. Loop thread only. */
#ifndef NUNCHI_MODEL_SERVE_H
#define NUNCHI_MODEL_SERVE_H

#include "common/base/loop.h"
#include "model-svc/options.h"

typedef struct model_serve model_serve;

/* Begins to load the model; registers with the gateways when it can answer. If the model cannot be
 * loaded, logs why and stops the loop with 1. The options stay the caller's and must outlive it. */
model_serve *model_serve_new(loop *l, const struct model_options *o);
void model_serve_free(
    model_serve *v); /* waits for the step or the loading under way; NULL is allowed */
/* No new requests; the loop stops with 0 when the running ones have ended, or after drain-ms. */
void model_serve_drain(model_serve *v);
/* For those who watch (base/monitor.h): brings the metrics up to date; whether it is there for gateways. */
void model_serve_collect(void *model_serve);
bool model_serve_ready(void *model_serve);

#endif
