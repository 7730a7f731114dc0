/* The entries of a Zip or Zip64 archive that are stored as they are, as PyTorch writes them
 * (APPNOTE 6.3.9, 4.3). Sans-I/O: the archive is memory, and every offset in it is checked. */
#ifndef NUNCHI_CONVERT_ZIP_H
#define NUNCHI_CONVERT_ZIP_H

#include "common/base/slice.h"

#define ZIP_ENTRIES_MAX 131072

struct zip_entry {
    slice name; /* in the archive */
    const uint8_t *data;
    uint64_t bytes;
};

typedef struct zip zip;

/* ERR_UNSUPPORTED for an entry that is compressed or encrypted, ERR_INVALID for what is no archive.
 * p is borrowed. */
int zip_open(const uint8_t *p, size_t n, zip **out, struct why *w) MUST_USE;
void zip_close(zip *z);                                     /* NULL is allowed */
const struct zip_entry *zip_find(const zip *z, slice name); /* NULL: absent */
const struct zip_entry *zip_ending(const zip *z,
                                   const char *end); /* the first whose name ends so */

#endif
