/* Chat templates: the language of Jinja 2.11 and later as far as templates of models use it, with
 * the settings that transformers gives it (trim_blocks, lstrip_blocks, loop controls, {% generation
 * %}, raise_exception, strftime_now, its own tojson).
 *
 * A template comes with a model and is looked at when the model is loaded: what is not known is an
 * error then, with its line. What users wrote comes in as values and never becomes template. Every
 * byte of a string remembers where it comes from, through filters and slices, so that whoever reads
 * the output can tell the template's marks from a user's imitation of them.
 *
 * Differences from Python: upper, lower, title and capitalize change ASCII letters alone. */
#ifndef NUNCHI_TOKENIZER_JINJA_H
#define NUNCHI_TOKENIZER_JINJA_H

#include "common/base/arena.h"

#define JINJA_SOURCE_MAX (256u << 10) /* bytes; the longest known template has 20 kB */
#define JINJA_TOKENS_MAX 65536
#define JINJA_DEPTH_MAX 100 /* of blocks and expressions inside each other */
#define JINJA_CALLS_MAX 40  /* of macros inside each other */
#define JINJA_STEPS_MAX                                                                            \
    4000000 /* expressions and statements of one rendering; long chats take some ten thousand */
#define JINJA_OUTPUT_MAX (16u << 20)  /* bytes of one string or of the result */
#define JINJA_MEMORY_MAX (128u << 20) /* of one rendering */

typedef struct jinja jinja;         /* a template: immutable, threads share it */
typedef struct jinja_run jinja_run; /* one rendering and all its values */

enum jinja_kind {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STR,
    JINJA_LIST,
    JINJA_DICT,
    JINJA_CALL
};

/* from: of each byte, what jinja_str was given; NULL: all 0, the template's own. */
struct jinja_str {
    const char *p;
    const uint8_t *from;
    size_t n;
};

struct jinja_val {
    enum jinja_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        struct jinja_str s;
        struct jinja_list *list;
        struct jinja_dict *dict;
        const struct jinja_call *call;
    };
};

/* ERR_UNSUPPORTED, ERR_INVALID, ERR_TOO_BIG: w names the line. */
int jinja_new(slice text, jinja **out, struct why *w) MUST_USE;
void jinja_free(jinja *j); /* NULL is allowed */

/* now_unix_s: what strftime_now tells, in UTC. */
jinja_run *jinja_run_new(const jinja *j, int64_t now_unix_s);
void jinja_run_free(jinja_run *r); /* NULL is allowed */

/* Values live as long as the run; text is copied and must be UTF-8. All abort without memory. */
struct jinja_val jinja_bool(bool b);
struct jinja_val jinja_int(int64_t i);
struct jinja_val jinja_float(double f);
struct jinja_val jinja_text(jinja_run *r, slice s, uint8_t from);
struct jinja_val jinja_text_from(jinja_run *r, slice s,
                                 const uint8_t *from); /* a byte for each of s */
struct jinja_val jinja_list_new(jinja_run *r);
void jinja_list_add(jinja_run *r, struct jinja_val list, struct jinja_val v);
struct jinja_val jinja_dict_new(jinja_run *r);
void jinja_dict_set(jinja_run *r, struct jinja_val dict, slice key, struct jinja_val v);

/* Renders with the members of `names` as variables. ERR_INVALID: the template itself refuses
 * (raise_exception), or computes what cannot be; ERR_TOO_BIG: a limit. The result lives as long as
 * the run. Once per run. */
int jinja_render(jinja_run *r, struct jinja_val names, struct jinja_str *out,
                 struct why *w) MUST_USE;

#endif
