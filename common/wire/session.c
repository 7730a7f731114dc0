#include "common/wire/session.h"

#include <pthread.h>

#include "common/base/clock.h"
#include "common/base/config.h"

/* A READY of WIRE_CONTROL_MAX names at most a few hundred models; each peer may make us keep this
 * much. */
#define READY_ARENA_BYTES ((size_t)256 << 10)
#define SMALL_ARENA_BYTES ((size_t)8 << 10)

static char instance[33];
static uint64_t started_unix_ms;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_instance(void)
{
    unsigned char bytes[16];
    random_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, instance);
    started_unix_ms = clock_unix_ms();
}

void session_clear(struct session *s)
{
    arena_free(s->memory);
    *s = (struct session){0};
}

int session_take_ready(struct session *s, slice body)
{
    arena *a = arena_new(READY_ARENA_BYTES);
    void *v;
    int e = pb_unpack(a, &nunchi__ready__descriptor, body, WIRE_CONTROL_MAX, &v, NULL);
    const Nunchi__Ready *r = v;
    if (e == 0 && (r->wire_min > WIRE_VERSION || r->wire_max < WIRE_VERSION))
        e = ERR_UNSUPPORTED;
    if (e < 0) {
        arena_free(a);
        return e;
    }
    arena_free(s->memory);
    s->memory = a;
    s->ready = r;
    s->beat.slots = r->slots;
    return 0;
}

int session_take_heartbeat(struct session *s, slice body)
{
    arena *a = arena_new(SMALL_ARENA_BYTES);
    void *v;
    int e = pb_unpack(a, &nunchi__heartbeat__descriptor, body, WIRE_CONTROL_MAX, &v, NULL);
    if (e == 0)
        s->beat =
            *(const Nunchi__Heartbeat *)v; /* numbers only: nothing in it points into the arena */
    arena_free(a);
    return e;
}

const char *session_bye_reason(slice body)
{
    static const char *const known[] = {"drain", "who", "version", "full", "damaged"};
    const char *reason = "bye";
    arena *a = arena_new(WIRE_CONTROL_MAX + SMALL_ARENA_BYTES);
    void *v;
    if (pb_unpack(a, &nunchi__bye__descriptor, body, WIRE_CONTROL_MAX, &v, NULL) == 0)
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (strcmp(((const Nunchi__Bye *)v)->reason, known[i]) == 0)
                reason = known[i];
    arena_free(a);
    return reason;
}

void session_pack_ready(const Nunchi__Ready *ready, buf *out)
{
    pthread_once(&once, make_instance);
    union { /* generated structs take char *, but packing does not write */
        const char *in;
        char *out;
    } version = {.in = NUNCHI_VERSION};
    Nunchi__Ready r = *ready;
    if (!r.wire_min)
        r.wire_min = WIRE_VERSION;
    if (!r.wire_max)
        r.wire_max = WIRE_VERSION;
    if (!r.instance || !r.instance[0])
        r.instance = instance;
    if (!r.version || !r.version[0])
        r.version = version.out;
    if (!r.started_unix_ms)
        r.started_unix_ms = started_unix_ms;
    buf_reset(out);
    pb_pack(&r.base, out);
}

int session_send(bus_sock *s, slice peer, int type, slice body)
{
    struct wire_msg m = {.head = {.type = (uint8_t)type}, .body = body};
    return bus_send(s, peer, &m);
}

int session_send_bye(bus_sock *s, slice peer, const char *reason)
{
    union {
        const char *in;
        char *out;
    } word = {.in = reason};
    Nunchi__Bye bye;
    nunchi__bye__init(&bye);
    bye.reason = word.out;
    buf body = {0};
    pb_pack(&bye.base, &body);
    int e = session_send(s, peer, WIRE_BYE, buf_slice(&body));
    buf_clear(&body);
    return e;
}

uint64_t session_tick_late(struct session_tick *t, uint64_t now_us)
{
    uint64_t late = t->due_us && now_us > t->due_us ? now_us - t->due_us : 0;
    t->due_us = now_us + t->every_us;
    return late > t->every_us ? late : 0;
}
