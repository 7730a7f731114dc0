/* Between the files that read OpenAI's bodies. */
#ifndef NUNCHI_GATEWAY_OPENAI_PARSE_H
#define NUNCHI_GATEWAY_OPENAI_PARSE_H

#include "gateway/openai.h"

struct parse {
    enum openai_api api;
    struct gw_request *r;
    const json_val *root;
    size_t text_bytes; /* so far, of all messages */
    size_t n_videos;
    struct why *w;
};

/* One member of the body that is there and not null. */
typedef int (*field_fn)(struct parse *p, const json_val *v);

struct field {
    const char *name;
    int apis;      /* OPENAI_CHAT | OPENAI_COMPLETION */
    field_fn take; /* NULL: refused, with this reason */
    const char *refusal;
};

int take_messages(struct parse *p, const json_val *v);
int take_prompt(struct parse *p, const json_val *v);
/* Counts text against TEXT_BYTES_MAX. */
int count_text(struct parse *p, const json_val *v, slice text);

#endif
