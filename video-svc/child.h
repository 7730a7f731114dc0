/* nunchi-decode as a process of ours: started with a file and one end of a socket, listened to,
 * judged by how it ends. Loop thread only. */
#ifndef NUNCHI_CHILD_H
#define NUNCHI_CHILD_H

#include "common/base/loop.h"
#include "video-svc/records_read.h"

struct child_config {
    const char *program;     /* path of nunchi-decode */
    const char *const *args; /* NULL-terminated; input and output are added */
    int input_fd;            /* read by the child; stays the caller's */
    void *ctx;
    void (*record)(void *ctx, const struct record *r);
    /* Once, after all records: 0 after DONE or FAIL; else ERR_UNREADABLE (it crashed), ERR_PROTO,
     * ERR_NOMEM (killed by somebody else) … with a sentence. The child is gone and freed by then.
     */
    void (*end)(void *ctx, int err, const struct why *w);
};

typedef struct child child;

int child_start(loop *l, const struct child_config *cfg, child **out, struct why *w) MUST_USE;
void child_kill(child *c); /* at once; `end` follows from the loop */
void child_free(child *c); /* kills and waits; no callbacks. NULL is allowed */

#endif
