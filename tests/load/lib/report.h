/* A run's numbers for people and for programs. */
#ifndef NUNCHI_LOAD_REPORT_H
#define NUNCHI_LOAD_REPORT_H

#include "tests/load/lib/run.h"

void report_json(const struct load_options *o, const struct load_result *r, buf *out);
void report_table(const struct load_options *o, const struct load_result *r, buf *out);
uint64_t report_failed(const struct load_result *r); /* requests */

#endif
