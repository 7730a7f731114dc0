/* The folder where accepted files wait to be read: for each a file of bytes and, once it is whole,
 * a journal entry that says whose it is. A process owns one numbered folder in it, by a lock, so
 * that several may share one disk; what a dead process left behind is taken over. All functions may
 * block: they are for a thread of a workq, but for open. */
#ifndef NUNCHI_SPOOL_H
#define NUNCHI_SPOOL_H

#include "video-svc/core.h"

#define SPOOL_SLOTS 64       /* processes that share one folder */
#define SPOOL_FOUND_MAX 4096 /* jobs taken up at a start; a folder with more is not ours */

typedef struct spool spool;

/* Makes the folder when it is missing; readable by its owner alone. ERR_IO, or ERR_BUSY when all
 * places are taken, with a sentence that names the option. */
int spool_open(const char *folder, spool **out, struct why *w) MUST_USE;
void spool_close(spool *s);

/* These two: ERR_UNAVAILABLE where the disk is full, else ERR_IO. Appends; makes the file at first. */
int spool_write(spool *s, const struct vid_saved *f, slice bytes) MUST_USE;
/* To the disk with its journal entry: after 0 it survives a crash of the machine. */
int spool_seal(spool *s, const struct vid_saved *f) MUST_USE;
void spool_remove(spool *s, const struct vid_saved *f);
/* A descriptor for reading; the caller closes it. Not for long-blocking disks: opens only. */
int spool_read_fd(spool *s, const struct vid_saved *f) MUST_USE;
/* What was accepted and not finished before; damaged entries and files without one are removed. The
 * caller frees *out. */
size_t spool_found(spool *s, struct vid_saved **out);

#endif
