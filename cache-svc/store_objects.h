/* Replies as hiredis' reader makes them, but that a string is written once, into bytes that can be
 * kept and sent on (base/shared.h), and never copied again. */
#ifndef NUNCHI_CACHE_STORE_OBJECTS_H
#define NUNCHI_CACHE_STORE_OBJECTS_H

#include <hiredis/hiredis.h>

#include "common/base/shared.h"

/* hiredis looks at the first member of replies alone. */
struct store_object {
    redisReply r;
    shared *value; /* of a string: where r.str lies; else NULL */
};

extern redisReplyObjectFunctions STORE_OBJECTS;

/* Appends what the socket has, at most n bytes, to the reader's buffer: hiredis' own reading takes
 * 16 KiB at a time and copies them. Whatever goes wrong, hiredis finds when it reads. */
void store_objects_read(redisReader *r, int fd, size_t n);

#endif
