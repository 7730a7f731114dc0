/* What the files of the JSON reader share. Nothing outside common/json includes it. */
#ifndef NUNCHI_JSON_IMPL_H
#define NUNCHI_JSON_IMPL_H

#include "common/json/json.h"

/* The children of one container stand side by side in memory, so the next one is v + 1 and the
 * index is a subtraction. */
struct json_val {
    const json_val *parent; /* NULL for the root */
    slice name;             /* of a member */
    enum json_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        slice s;
        struct {
            const json_val *child; /* NULL without children */
            size_t n;
        } in;
    };
};

/* One pass over text that nobody has checked yet: nesting and number of values, as far as the text
 * is well-formed. ERR_TOO_BIG, naming limit, line and column. *n_nodes is the number of values for
 * well-formed text. */
int json_scan(slice text, const struct json_limits *lim, size_t *n_nodes, struct why *w) MUST_USE;

#endif
