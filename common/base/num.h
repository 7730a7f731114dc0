/* Numbers as text, the same in every locale. */
#ifndef NUNCHI_NUM_H
#define NUNCHI_NUM_H

#include <stddef.h>

#define F64_TEXT_MAX 32

/* Shortest decimal text (at most 17 digits) that reads back as exactly v; "nan", "inf", "-inf" for
 * those. NUL-terminated; returns its length. */
size_t f64_text(double v, char out[F64_TEXT_MAX]);

#endif
