/* Walls around the decoder, in layers, none of which trusts another. After sandbox_enter this
 * process can read and write the descriptors it has, compute, and allocate; it can open nothing,
 * connect to nothing, start nothing. The only place that knows libseccomp. */
#ifndef NUNCHI_SANDBOX_H
#define NUNCHI_SANDBOX_H

#include "video-svc/decode/records.h"

struct sandbox_config {
    uint32_t uid;          /* to become when root; 0: stay */
    uint64_t memory_bytes; /* address space */
    uint32_t cpu_seconds;
    uint64_t file_bytes; /* most that may be written to a file; 0 but for people's own use */
    int out_fd;          /* the only one, besides 2, that may be written */
};

/* Returns the layers that are active (a set of enum sandbox_layer). What cannot be had (a kernel
 * without Landlock, a container that forbids namespaces) is missing there; the caller says so, or
 * refuses. */
uint32_t sandbox_enter(const struct sandbox_config *cfg);
/* Layers that this build cannot have (sanitizers): never required, always reported as missing. */
uint32_t sandbox_left_out(void);
/* "no_new_privs,rlimits" -> set; ERR_INVALID names the unknown word. "all" and "" are allowed. */
int sandbox_layers_parse(slice list, uint32_t *out, struct why *w) MUST_USE;
void sandbox_layers_print(uint32_t layers, buf *out); /* comma-separated */

/* Tries what must not work: "open" "socket" "exec" "fork" "exec-memory" "write". Expected to die of
 * it; otherwise returns 0 if it worked, or the errno it failed with; ERR_INVALID for other names.
 */
int sandbox_selftest(const char *what);

#endif
