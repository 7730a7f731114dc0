/* Requests that workers die of: remembered for a while after they were refused, so that asking
 * again does not cost another worker. Bounded; one thread. */
#ifndef NUNCHI_GATEWAY_SUSPECTS_H
#define NUNCHI_GATEWAY_SUSPECTS_H

#include "common/base/hash.h"

#define SUSPECTS_MAX 256 /* the oldest is forgotten first */

typedef struct suspects suspects;

suspects *suspects_new(void);
void suspects_free(suspects *s);
void suspects_condemn(suspects *s, const struct digest *request, uint64_t until_us);
bool suspects_any(const suspects *s,
                  uint64_t now_us); /* whether it is worth working out a request's hash */
bool suspects_condemned(suspects *s, const struct digest *request, uint64_t now_us);

#endif
