/* Records as JSON for people: `nunchi-decode --dump FILE`. */
#ifndef NUNCHI_DUMP_H
#define NUNCHI_DUMP_H

#include "common/base/json_out.h"
#include "video-svc/decode/records.h"

/* One record as one object; times in ms, pictures by their size in bytes. */
void dump_record(struct json_out *j, const struct record *r);

#endif
