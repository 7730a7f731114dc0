/* multipart/form-data (RFC 7578) as it streams by: nothing but one part's headers is ever held. */
#ifndef NUNCHI_GATEWAY_MULTIPART_H
#define NUNCHI_GATEWAY_MULTIPART_H

#include "common/base/slice.h"
#include "gateway/limits.h"

struct multipart_ops {
    /* A part begins. filename is empty and is_file false for plain fields. Negative ends the
     * parsing. */
    int (*part)(void *ctx, slice name, slice filename, bool is_file, struct why *w);
    int (*data)(void *ctx, slice bytes, struct why *w);
    int (*part_end)(void *ctx, struct why *w);
};

struct multipart {
    const struct multipart_ops *ops;
    void *ctx;
    enum { MP_PREAMBLE, MP_BOUNDARY, MP_HEADERS, MP_BODY, MP_END } state;
    char delim[BOUNDARY_BYTES_MAX + 5]; /* CR LF - - boundary */
    size_t delim_len;
    size_t n_parts;
    bool fresh; /* a body's first bytes are still to come */
    buf hold;
};

/* content_type: the request's header. ERR_INVALID if it is no multipart/form-data with a usable
 * boundary. */
int multipart_init(struct multipart *m, slice content_type, const struct multipart_ops *ops,
                   void *ctx, struct why *w) MUST_USE;
int multipart_feed(struct multipart *m, slice bytes, struct why *w) MUST_USE;
int multipart_end(struct multipart *m,
                  struct why *w) MUST_USE; /* ERR_INVALID if the last boundary has not come */
void multipart_clear(struct multipart *m);

#endif
