/* The files of one tenant, as read from the store with a version; and what putting, deleting or
 * progress of one changes in them. Pure: the store applies a change only if the version is still
 * the same, else all is read and decided again. */
#ifndef NUNCHI_CACHE_FILES_H
#define NUNCHI_CACHE_FILES_H

#include "common/base/arena.h"
#include "proto/cache.pb-c.h"

#define FILE_ID_BYTES 37 /* "file-" and 32 hex digits */
#define FILE_NAME_MAX 1024
#define FILE_TEXT_MAX 512 /* error */
#define FILE_WORD_MAX 64  /* purpose, phase */
#define FILE_LIST_MAX 1000
#define FILE_RECORD_MAX 4096 /* packed and sealed */

struct file_limits {
    uint64_t quota_bytes, quota_count; /* of one tenant */
    uint64_t ttl_s;                    /* where the asker names no end; 0: none */
    uint64_t silent_ms; /* a file still being read and not heard of for so long was given up */
};

struct files {
    slice name;    /* of the whole, in the store */
    slice version; /* "" before the first change */
    Nunchi__FileRecord **list;
    size_t n;
    size_t n_damaged; /* records that could not be read; they count as not there */
};

/* field, value, field, value ... as the store gives them; all lives in the arena. */
int files_read(arena *a, slice name, const slice *list, size_t n, struct files *out) MUST_USE;
Nunchi__FileRecord *files_find(const struct files *f, const char *id,
                               uint64_t now_ms); /* NULL: not there, or past its end */
/* Is the record as people should see it: one that was given up says so. Changes it. */
void files_show(Nunchi__FileRecord *r, const struct file_limits *lim, uint64_t now_ms);
/* The record that would be added, with its end and time set. */
int files_put(arena *a, const struct files *f, const struct file_limits *lim,
              const Nunchi__FileRecord *in, uint64_t now_ms, Nunchi__FileRecord **out,
              struct why *w) MUST_USE;
/* The record that would replace the one there; ERR_NOT_FOUND. */
int files_progress(arena *a, const struct files *f, const Nunchi__FileProgress *in, uint64_t now_ms,
                   Nunchi__FileRecord **out, struct why *w) MUST_USE;
/* What was derived for this record alone: its content, or empty when another record names it too.
 */
slice files_only_content(const struct files *f, const Nunchi__FileRecord *r);
bool files_name_content(const struct files *f, slice content);
Nunchi__FileRecord *files_first_expired(const struct files *f, uint64_t now_ms);
int files_page(arena *a, const struct files *f, const struct file_limits *lim,
               const Nunchi__FileList *q, uint64_t now_ms, Nunchi__FileRecords *out,
               struct why *w) MUST_USE;

bool files_id_valid(const char *id);
void files_seal(buf *out, slice name, const Nunchi__FileRecord *r); /* as it is stored */

#endif
