/* Messages that a full socket had no room for, in order. Sends through a function of its owner's;
 * one thread. */
#ifndef NUNCHI_BACKLOG_H
#define NUNCHI_BACKLOG_H

#include "common/base/list.h"
#include "common/wire/frame.h"

/* Bodies and bulk frames that wait for one peer, together. Whoever does not read for longer is not
 * there. */
#define BACKLOG_BYTES_MAX (32u << 20)

struct backlog {
    struct list parcels;
    size_t bytes;
};

void backlog_init(struct backlog *b);
void backlog_clear(struct backlog *b);
bool backlog_empty(const struct backlog *b);
/* A copy of m, held frames apart (they are held once more). ERR_TOO_BIG beyond BACKLOG_BYTES_MAX:
 * nothing is kept. */
int backlog_keep(struct backlog *b, const struct wire_msg *m) MUST_USE;
/* Sends until `send` says ERR_AGAIN; what fails otherwise is dropped. */
void backlog_flush(struct backlog *b, int (*send)(void *ctx, const struct wire_msg *m), void *ctx);

#endif
