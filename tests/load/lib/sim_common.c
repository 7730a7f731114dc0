#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/wire/pb.h"
#include "tests/load/lib/sim.h"

void sim_ready(const char *service, uint32_t slots, void (*with)(void *ctx, const Nunchi__Ready *r),
               void *ctx)
{
    char name[] = SIM_MODEL, service_text[16], instance[33];
    uint8_t raw[16];
    struct digest weights = digest_of((slice){0}, SLICE_LIT("simulated weights")),
                  numerics = digest_of((slice){0}, SLICE_LIT("simulated numerics"));
    Nunchi__Ready r;
    Nunchi__ModelInfo m, *models[] = {&m};
    nunchi__ready__init(&r);
    nunchi__model_info__init(&m);
    random_bytes(raw, sizeof raw);
    hex_encode(raw, sizeof raw, instance);
    snprintf(service_text, sizeof service_text, "%s", service);
    m.name = name;
    m.n_context = SIM_CONTEXT;
    m.n_vocab = 65536;
    m.weights = pb_bytes((slice){(const char *)weights.b, sizeof weights.b});
    m.numerics = pb_bytes((slice){(const char *)numerics.b, sizeof numerics.b});
    m.chat = true;
    r.service = service_text;
    r.instance = instance;
    r.slots = slots;
    r.models = models;
    r.n_models = 1;
    with(ctx, &r);
}

void sim_error(peer_link *k, const struct wire_head *to, int err)
{
    Nunchi__Error e;
    buf body = {0};
    nunchi__error__init(&e);
    e.code = err_to_wire(err);
    e.message = pb_bytes(slice_str(err_text(err)));
    pb_pack(&e.base, &body);
    struct wire_msg m = {
        .head = {.type = WIRE_ERROR, .request = to->request, .attempt = to->attempt},
        .body = buf_slice(&body)};
    if (link_post(k, &m) < 0)
        log_debug("the gateway is gone", LOG_STR("endpoint", link_endpoint(k)));
    buf_clear(&body);
}
