/* The fixed header of every message, the sum over it, and the limits of the wire
 * (proto/PROTOCOL.md). No sockets here. */
#ifndef NUNCHI_FRAME_H
#define NUNCHI_FRAME_H

#include "common/base/shared.h"

#define WIRE_MAGIC 0x4843564eu /* "NVCH" in the file of bytes: 4e 56 43 48 */
#define WIRE_VERSION 2
#define WIRE_HEAD_BYTES 56
/* A REQUEST's control part: a chat of a few hundred thousand characters. */
#define WIRE_BODY_MAX (4u << 20)
/* READY, HEARTBEAT, CREDIT, CANCEL, BYE, ERROR. */
#define WIRE_CONTROL_MAX (64u << 10)
/* One bulk frame: one KV block part, one picture, one set of notes. */
#define WIRE_FRAME_MAX (1u << 20)
#define WIRE_FRAMES_MAX 66
/* All of a message: bounds what a peer can make us hold. */
#define WIRE_MESSAGE_MAX (16u << 20)

enum wire_type {
    WIRE_READY = 1,
    WIRE_HEARTBEAT,
    WIRE_REQUEST,
    WIRE_CHUNK,
    WIRE_DONE,
    WIRE_ERROR,
    WIRE_CANCEL,
    WIRE_CREDIT,
    WIRE_BYE,
};

enum wire_flag {
    WIRE_END = 1,  /* CHUNK: the sender's last one of this request */
    WIRE_MANY = 2, /* CHUNK with request 0: the body holds parts of many requests */
    WIRE_TRACED = 4, /* REQUEST: whoever collects traces wants spans of it, below `span` */
};

struct wire_head {
    uint8_t type;
    uint16_t flags;
    uint64_t request;  /* unique per sender of the REQUEST while it is open; 0: none */
    uint32_t attempt;  /* of this request; answers of older attempts are dropped */
    uint32_t sequence; /* counts this side's messages of this request and attempt, from 0 */
    uint8_t trace[16]; /* W3C trace id; zero: none */
    uint8_t span[8];
};

struct wire_msg {
    struct wire_head head;
    slice body; /* packed protobuf */
    slice frames[WIRE_FRAMES_MAX];
    size_t n_frames;
    /* To be sent: frames[i] lies in held[i], and goes out without being copied. NULL: it is copied.
     */
    shared *held[WIRE_FRAMES_MAX];
};

/* The header as it is sent, with the sum over all of m. */
void wire_head_put(const struct wire_msg *m, unsigned char out[WIRE_HEAD_BYTES]);
/* ERR_PROTO for a wrong length, magic or type; ERR_UNSUPPORTED for another version. Flags and
 * fields not known are kept as they are. The sum is not looked at. */
int wire_head_get(slice frame, struct wire_head *out) MUST_USE;
/* Whether body and frames of m, and its header, which came as `frame`, are what was sent. Once
 * wire_head_get took it. */
bool wire_sum_is_right(slice frame, const struct wire_msg *m);
const char *wire_type_name(int type); /* "READY"; "?" */
/* The limits above, for what comes in and what goes out: 0, ERR_PROTO for a bad type, ERR_TOO_BIG.
 */
int wire_msg_check(const struct wire_msg *m) MUST_USE;

#endif
