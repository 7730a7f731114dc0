#include "common/base/heap.h"

#include <malloc.h>

#define LARGEST (4 << 20)     /* of the blocks that are kept: a message's largest frame and a few */
#define KEPT_FREE (128 << 20) /* at the top of a heap */

void heap_keep_large(void)
{
    mallopt(M_MMAP_THRESHOLD, LARGEST);
    mallopt(M_TRIM_THRESHOLD, KEPT_FREE);
}
