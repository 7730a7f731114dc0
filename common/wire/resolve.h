/* Which addresses lie behind the configured targets. Names are looked up on a thread, because
 * getaddrinfo blocks for seconds when a name server does not answer. */
#ifndef NUNCHI_RESOLVE_H
#define NUNCHI_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

#define TARGETS_MAX 64
#define ADDRESSES_MAX 256
#define ADDRESS_TEXT 300

struct target {
    char endpoint[ADDRESS_TEXT]; /* "tcp://10.0.0.7:5570", "ipc:///run/x"; for a name:
                                    "tcp://name:5570" */
    char host[256];              /* a name to be looked up, or "" when the endpoint is final */
    char port[6];
};

/* "gateway:5570, tcp://10.0.0.7:5570, [::1]:5570, ipc:///run/x". The number of targets;
 * ERR_INVALID, ERR_TOO_BIG. */
int targets_parse(const char *text, struct target out[TARGETS_MAX], struct why *w) MUST_USE;

struct address {
    char endpoint[ADDRESS_TEXT];
};

struct addresses {
    struct address list[ADDRESSES_MAX]; /* no duplicates */
    size_t n;
    bool failed; /* a name could not be looked up: the list is not complete */
    char why[80];
};

typedef struct resolve resolve;
resolve *resolve_start(const struct target *targets, size_t n); /* NULL: no thread to be had now */
/* NULL while it runs. */
const struct addresses *resolve_result(resolve *r);
void resolve_free(resolve *r); /* at any time; does not wait */

#endif
