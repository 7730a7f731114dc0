/* The other end of decode/records.h: what a decoder said, checked record by record. The decoder has
 * read a stranger's file and may have been taken over by it; nothing it says is believed for a
 * size, a count, an order or an encoding. */
#ifndef NUNCHI_RECORDS_READ_H
#define NUNCHI_RECORDS_READ_H

#include "video-svc/decode/records.h"

typedef struct records_reader records_reader;

records_reader *records_reader_new(void);
void records_reader_free(records_reader *r);
/* Takes bytes; calls fn for each whole record, which is valid and in its place (slices are borrowed
 * until it returns). ERR_PROTO at the first breach, with what it was; nothing may be fed after
 * that. */
int records_feed(records_reader *r, slice bytes, void (*fn)(void *ctx, const struct record *rec),
                 void *ctx, struct why *w) MUST_USE;
/* True after DONE or FAIL. */
bool records_ended(const records_reader *r);

#endif
