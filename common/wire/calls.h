/* Requests that this process has sent and that are not answered yet: matches answers to them, fences late ones by attempt,
 * keeps deadlines. Sans-I/O: the sending is a callback, the time an argument. One thread. */
#ifndef NUNCHI_CALLS_H
#define NUNCHI_CALLS_H

#include "common/wire/frame.h"

typedef struct calls calls;

/* The end of a call: exactly once. m is the DONE message, or NULL when err < 0 (then why says more). */
typedef void (*call_done_fn)(void *ctx, int err, const struct wire_msg *m, const struct why *why);
typedef void (*call_chunk_fn)(void *ctx, const struct wire_msg *m);

struct call {
    uint64_t peer;       /* hub_peer_id or link_id: calls of a peer that goes down end with ERR_UNAVAILABLE */
    uint32_t timeout_ms; /* until the end; 0: none */
    uint32_t silence_ms; /* between chunks; 0: none */
    call_done_fn done;
    call_chunk_fn chunk; /* NULL: chunks are a breach of protocol */
    void *ctx;
};

calls *calls_new(void);
void calls_free(calls *c); /* ends none of them */
/* A request id that is free; remembers the call. Ids are never reused. Fill a wire_msg with it (attempt 0) and send. */
uint64_t calls_open(calls *c, uint64_t now_us, const struct call *call);
/* An answer (CHUNK, DONE, ERROR). False: not ours, or late; drop it. */
bool calls_msg(calls *c, uint64_t now_us, uint64_t peer, const struct wire_msg *m);
void calls_peer_down(calls *c, uint64_t peer);
/* Forgets without calling back; the caller sends CANCEL. False if it was not open. */
bool calls_cancel(calls *c, uint64_t request);
uint64_t calls_tick(calls *c, uint64_t now_us); /* ends overdue ones; returns the next deadline, UINT64_MAX for none */
size_t calls_open_count(const calls *c);

#endif
