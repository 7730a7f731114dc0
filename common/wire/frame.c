#include "common/wire/frame.h"

#include "common/base/hash.h"

enum { /* offsets of the header's fields */
       AT_MAGIC = 0,
       AT_VERSION = 4,
       AT_TYPE = 5,
       AT_FLAGS = 6,
       AT_REQUEST = 8,
       AT_ATTEMPT = 16,
       AT_SEQUENCE = 20,
       AT_TRACE = 24,
       AT_SPAN = 40,
       AT_SUM = 48,
};

static void put_le(unsigned char *to, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const unsigned char *from, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)from[i] << (8 * i);
    return v;
}

/* TCP's own sum has 16 bits, and is no help against what is damaged in a proxy, a driver or a
 * network card. */
static uint64_t sum_of(const unsigned char *head, const struct wire_msg *m)
{
    uint64_t sum = checksum64(0, (slice){(const char *)head, AT_SUM});
    sum = checksum64(sum, m->body);
    for (size_t i = 0; i < m->n_frames; i++)
        sum = checksum64(sum, m->frames[i]);
    return sum;
}

void wire_head_put(const struct wire_msg *m, unsigned char out[WIRE_HEAD_BYTES])
{
    const struct wire_head *h = &m->head;
    put_le(out + AT_MAGIC, WIRE_MAGIC, 4);
    out[AT_VERSION] = WIRE_VERSION;
    out[AT_TYPE] = h->type;
    put_le(out + AT_FLAGS, h->flags, 2);
    put_le(out + AT_REQUEST, h->request, 8);
    put_le(out + AT_ATTEMPT, h->attempt, 4);
    put_le(out + AT_SEQUENCE, h->sequence, 4);
    memcpy(out + AT_TRACE, h->trace, sizeof h->trace);
    memcpy(out + AT_SPAN, h->span, sizeof h->span);
    put_le(out + AT_SUM, sum_of(out, m), 8);
}

bool wire_sum_is_right(slice frame, const struct wire_msg *m)
{
    const unsigned char *p = (const unsigned char *)frame.p;
    return get_le(p + AT_SUM, 8) == sum_of(p, m);
}

int wire_head_get(slice frame, struct wire_head *out)
{
    const unsigned char *p = (const unsigned char *)frame.p;
    if (frame.n <= AT_VERSION || get_le(p + AT_MAGIC, 4) != WIRE_MAGIC)
        return ERR_PROTO;
    if (p[AT_VERSION] != WIRE_VERSION)
        return ERR_UNSUPPORTED;
    if (frame.n != WIRE_HEAD_BYTES)
        return ERR_PROTO;
    if (p[AT_TYPE] < WIRE_READY || p[AT_TYPE] > WIRE_BYE)
        return ERR_PROTO;
    *out = (struct wire_head){
        .type = p[AT_TYPE],
        .flags = (uint16_t)get_le(p + AT_FLAGS, 2),
        .request = get_le(p + AT_REQUEST, 8),
        .attempt = (uint32_t)get_le(p + AT_ATTEMPT, 4),
        .sequence = (uint32_t)get_le(p + AT_SEQUENCE, 4),
    };
    memcpy(out->trace, p + AT_TRACE, sizeof out->trace);
    memcpy(out->span, p + AT_SPAN, sizeof out->span);
    return 0;
}

const char *wire_type_name(int type)
{
    static const char *const names[] = {
        [WIRE_READY] = "READY",   [WIRE_HEARTBEAT] = "HEARTBEAT", [WIRE_REQUEST] = "REQUEST",
        [WIRE_CHUNK] = "CHUNK",   [WIRE_DONE] = "DONE",           [WIRE_ERROR] = "ERROR",
        [WIRE_CANCEL] = "CANCEL", [WIRE_CREDIT] = "CREDIT",       [WIRE_BYE] = "BYE",
    };
    return type >= WIRE_READY && type <= WIRE_BYE ? names[type] : "?";
}

static size_t body_max(int type)
{
    bool large = type == WIRE_REQUEST || type == WIRE_CHUNK || type == WIRE_DONE;
    return large ? WIRE_BODY_MAX : WIRE_CONTROL_MAX;
}

int wire_msg_check(const struct wire_msg *m)
{
    if (m->head.type < WIRE_READY || m->head.type > WIRE_BYE)
        return ERR_PROTO;
    if (m->body.n > body_max(m->head.type) || m->n_frames > WIRE_FRAMES_MAX)
        return ERR_TOO_BIG;
    size_t total = WIRE_HEAD_BYTES +
                   m->body.n; /* cannot overflow: every part was bounded before it is added */
    for (size_t i = 0; i < m->n_frames; i++) {
        if (m->frames[i].n > WIRE_FRAME_MAX)
            return ERR_TOO_BIG;
        total += m->frames[i].n;
    }
    return total > WIRE_MESSAGE_MAX ? ERR_TOO_BIG : 0;
}
