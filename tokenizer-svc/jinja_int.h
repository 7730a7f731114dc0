/* What the files of the template language share. Nothing outside jinja*.c includes it.
 *
 * jinja_lex.c cuts the text, jinja_parse.c makes a tree of nodes, jinja_eval.c walks it;
 * jinja_value.c has the values and jinja_write.c writes them; what can be called is in jinja_call.c
 * and, for texts, jinja_text.c. A failure leaves through longjmp: all memory is an arena's, so
 * nothing is lost on the way. */
#ifndef NUNCHI_TOKENIZER_JINJA_INT_H
#define NUNCHI_TOKENIZER_JINJA_INT_H

#include <setjmp.h>

#include "tokenizer-svc/jinja.h"

/* ---- the tree ---- */

enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_ATTR,
    N_INDEX,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_MINUS,
    N_PLUS,
    N_MATH,
    N_CONCAT,
    N_AND,
    N_OR,
    N_COMPARE,
    N_COND,
    /* statements */
    N_DATA,
    N_OUTPUT,
    N_IF,
    N_FOR,
    N_SET,
    N_SET_BLOCK,
    N_MACRO,
    N_FILTER_BLOCK,
    N_CALL_BLOCK,
    N_BREAK,
    N_CONTINUE,
    N_BODY,
};

enum math_op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOOR, OP_MOD, OP_POW };
enum compare_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct node {
    enum node_kind kind;
    uint32_t line;
    int op;     /* math_op, compare_op; of N_TEST 1: negated */
    slice text; /* name, attribute, filter, test, text */
    struct node *a, *b, *c;
    struct node **list; /* elements; key, value, …; arguments; targets; body */
    slice *names;       /* of arguments given by name, "" of others; of a macro's parameters */
    size_t n;
    struct jinja_val value;
    const struct jinja_fn *fn; /* of N_FILTER and N_TEST */
};

struct jinja {
    arena *a;
    struct node *body;
};

int jinja_parse(arena *a, slice text, struct node **out, struct why *w) MUST_USE;

/* ---- tokens ---- */

enum token_kind {
    T_DATA,
    T_VAR,
    T_VAR_END,
    T_BLOCK,
    T_BLOCK_END,
    T_NAME,
    T_INT,
    T_FLOAT,
    T_STR,
    T_OP,
    T_END
};

struct token {
    enum token_kind kind;
    uint32_t line;
    slice text; /* of a string: what it says */
};

/* The last one is T_END. */
int jinja_lex(arena *a, slice text, struct token **out, struct why *w) MUST_USE;
int jinja_why(struct why *w, int e, uint32_t line, const char *what,
              slice about); /* about: "" for nothing */

/* ---- values ---- */

struct jinja_list {
    struct jinja_val *at;
    size_t n, cap;
    bool tuple;
};

struct jinja_pair {
    struct jinja_val key, value;
};

struct jinja_dict {
    struct jinja_pair *at;
    size_t n, cap;
    bool open; /* a namespace: templates may set its members */
};

struct jinja_args {
    const struct jinja_val *at;
    size_t n;
    const slice *names; /* of the ones behind the n: n_named */
    const struct jinja_val *named;
    size_t n_named;
};

typedef struct jinja_val (*jinja_fn_call)(jinja_run *r, struct jinja_val self,
                                          const struct jinja_args *a);

struct jinja_fn {
    const char *name;
    jinja_fn_call call;
    int kinds; /* of methods: which values have it, by 1 << kind */
};

/* A macro, or a function with the value it belongs to. */
struct jinja_call {
    const struct node *macro;
    const struct jinja_fn *fn;
    struct jinja_val self;
};

struct scope {
    struct scope *up;
    struct jinja_dict vars;
};

/* Text that grows. */
struct jinja_out {
    char *p;
    uint8_t *from;
    size_t n, cap;
};

struct jinja_run {
    const struct jinja *j;
    arena *a;
    int64_t now;
    jmp_buf failed;
    bool rendering;
    int e;
    struct why *w;
    uint32_t line; /* of the statement that runs */
    uint64_t steps;
    uint32_t depth, calls, nesting; /* of expressions and statements, macros, values */
    struct scope *scope, *top;
    struct jinja_out *out;
};

_Noreturn void jinja_fail(jinja_run *r, int e, const char *fmt, ...) PRINTF_LIKE(3, 4);
void *jinja_room(jinja_run *r, size_t n);
void jinja_step(jinja_run *r, uint64_t n);
void jinja_nest(jinja_run *r); /* one level into lists and dictionaries; r->nesting-- leads back */

extern const struct jinja_val JINJA_NOTHING, JINJA_NULL;
struct jinja_val jinja_of_str(struct jinja_str s);
struct jinja_val jinja_literal(const char *text); /* static text */
struct jinja_val jinja_of_list(struct jinja_list *l);
bool jinja_true(struct jinja_val v);
bool jinja_same(jinja_run *r, struct jinja_val a, struct jinja_val b);
int jinja_order(jinja_run *r, struct jinja_val a,
                struct jinja_val b); /* <0, 0, >0; fails on what has no order */
bool jinja_contains(jinja_run *r, struct jinja_val in, struct jinja_val v);
const char *jinja_kind_text(struct jinja_val v);
size_t jinja_len(jinja_run *r, struct jinja_val v);
struct jinja_list *jinja_new_list(jinja_run *r);
void jinja_put(jinja_run *r, struct jinja_list *l, struct jinja_val v);
struct jinja_val *jinja_find(jinja_run *r, struct jinja_dict *d, struct jinja_val key); /* NULL */
struct jinja_val *jinja_find_name(struct jinja_dict *d, slice key);
void jinja_set(jinja_run *r, struct jinja_dict *d, struct jinja_val key, struct jinja_val v);
/* What a loop runs over: elements, keys, characters; fails on what cannot be iterated. */
struct jinja_list *jinja_elements(jinja_run *r, struct jinja_val v);
struct jinja_val jinja_item(jinja_run *r, struct jinja_val of,
                            struct jinja_val key); /* of[key]; undefined if absent */
struct jinja_val jinja_attr(jinja_run *r, struct jinja_val of, slice name);
struct jinja_val jinja_cut(jinja_run *r, struct jinja_val of, struct jinja_val from,
                           struct jinja_val to, struct jinja_val step);
struct jinja_val jinja_math(jinja_run *r, enum math_op op, struct jinja_val a, struct jinja_val b);
struct jinja_val jinja_call_value(jinja_run *r, struct jinja_val f, const struct jinja_args *a);

/* ---- text ---- */

void jinja_out_bytes(jinja_run *r, struct jinja_out *o, const char *p, const uint8_t *from,
                     size_t n);
void jinja_out_str(jinja_run *r, struct jinja_out *o, struct jinja_str s);
void jinja_out_text(jinja_run *r, struct jinja_out *o, const char *s);
void jinja_out_value(jinja_run *r, struct jinja_out *o, struct jinja_val v); /* as Python's str() */
struct jinja_str jinja_out_end(const struct jinja_out *o);
struct jinja_str jinja_to_str(jinja_run *r, struct jinja_val v);
struct jinja_str jinja_part(struct jinja_str s, size_t from, size_t n); /* bytes */
/* Without characters of `set` (NULL: white space) at its ends. */
struct jinja_val jinja_lower(jinja_run *r, struct jinja_val v); /* ASCII letters */
struct jinja_str jinja_strip(struct jinja_str s, const struct jinja_str *set, bool left,
                             bool right);
/* json.dumps. */
struct jinja_json_style {
    int64_t indent; /* < 0: on one line */
    const struct jinja_str
        *separators; /* between members, and behind a key; NULL: the usual ones */
    bool ascii;      /* other characters as escapes */
    bool sorted;     /* by key */
};
void jinja_json(jinja_run *r, struct jinja_out *o, struct jinja_val v,
                const struct jinja_json_style *style);

/* ---- what can be called: jinja_call.c; jinja_text.c ---- */

int64_t jinja_int_arg(jinja_run *r, const struct jinja_args *a, size_t i, const char *name,
                      int64_t absent, const char *what);
bool jinja_flag_arg(const struct jinja_args *a, size_t i, const char *name, bool absent);
struct jinja_str jinja_str_arg(jinja_run *r, const struct jinja_args *a, size_t i, const char *name,
                               const char *what);
struct jinja_val jinja_by_path(jinja_run *r, struct jinja_val of,
                               struct jinja_val path); /* "a.b.0" */
const struct jinja_fn *jinja_text_filter(slice name);
const struct jinja_fn *jinja_text_method(slice name);
const struct jinja_fn *jinja_fn_find(const struct jinja_fn *table, size_t n, slice name);

const struct jinja_fn *jinja_filter(slice name); /* NULL: unknown */
const struct jinja_fn *jinja_test(slice name);
const struct jinja_fn *jinja_method(struct jinja_val of, slice name);
const struct jinja_fn *jinja_global(slice name);
/* The i-th argument, or the one of that name; NULL if it is not given. */
const struct jinja_val *jinja_arg(const struct jinja_args *a, size_t i, const char *name);

#endif
