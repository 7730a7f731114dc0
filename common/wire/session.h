/* What both ends of a connection (hub.c, links.c) do alike: saying who we are, and remembering what
 * the other side said. */
#ifndef NUNCHI_SESSION_H
#define NUNCHI_SESSION_H

#include "common/wire/bus.h"
#include "common/wire/pb.h"
#include "proto/session.pb-c.h"

#define SESSION_BEAT_MS 500
#define SESSION_SILENT_MS 2000

/* The other side. */
struct session {
    arena *memory; /* of ready */
    const Nunchi__Ready *ready;
    Nunchi__Heartbeat beat; /* slots: the newest of READY and HEARTBEAT says */
    uint64_t heard_us;
};

void session_clear(struct session *s);
/* 0; ERR_UNSUPPORTED: no protocol version in common; others: malformed. On errors what was known
 * stays. */
int session_take_ready(struct session *s, slice body) MUST_USE;
int session_take_heartbeat(struct session *s, slice body) MUST_USE;
/* The reason as one of the protocol's words; anything else becomes "bye". */
const char *session_bye_reason(slice body);

/* Packs what a service says of itself; fills in version, wire_min, wire_max, instance and start
 * where they are empty. */
void session_pack_ready(const Nunchi__Ready *ready, buf *out);
int session_send(bus_sock *s, slice peer, int type, slice body) MUST_USE;
int session_send_bye(bus_sock *s, slice peer, const char *reason) MUST_USE;

/* Silence is judged by a tick of our own. When that tick is late (this process was stopped, or
 * busy), the others are not to blame: what they sent may still lie in the socket. Returns how much
 * to forgive. */
struct session_tick {
    uint64_t every_us, due_us;
};
uint64_t session_tick_late(struct session_tick *t, uint64_t now_us);

#endif
