/* Walking the tree of a template. */
#include <stdio.h>

#include "tokenizer-svc/jinja_int.h"

#define EVAL_DEPTH_MAX 1000 /* of the machine's stack: under a megabyte */

enum went { WENT_ON, BROKE, CONTINUED };

static struct jinja_val eval(jinja_run *r, const struct node *n);
static enum went run(jinja_run *r, const struct node *n);

static void deeper(jinja_run *r)
{
    jinja_step(r, 1);
    if (++r->depth > EVAL_DEPTH_MAX)
        jinja_fail(r, ERR_TOO_BIG, "expressions are nested too deeply");
}

/* ---- names ---- */

static void push_scope(jinja_run *r, struct scope *s)
{
    *s = (struct scope){.up = r->scope};
    r->scope = s;
}

static struct jinja_val *find_var(jinja_run *r, slice name)
{
    for (struct scope *s = r->scope; s; s = s->up) {
        struct jinja_val *v = jinja_find_name(&s->vars, name);
        if (v)
            return v;
    }
    return NULL;
}

static struct jinja_val name_value(jinja_run *r, slice name)
{
    struct jinja_val *v = find_var(r, name);
    if (v)
        return *v;
    const struct jinja_fn *fn = jinja_global(name);
    if (!fn)
        return JINJA_NOTHING;
    struct jinja_call *call = jinja_room(r, sizeof *call);
    *call = (struct jinja_call){.fn = fn};
    return (struct jinja_val){.kind = JINJA_CALL, .call = call};
}

static void set_var(jinja_run *r, slice name, struct jinja_val v)
{
    jinja_set(r, &r->scope->vars, jinja_of_str((struct jinja_str){name.p, NULL, name.n}), v);
}

/* A name, several names, or a member of a namespace. */
static void assign(jinja_run *r, const struct node *to, struct jinja_val v)
{
    if (to->kind == N_NAME) {
        set_var(r, to->text, v);
        return;
    }
    if (to->kind == N_ATTR) {
        struct jinja_val of = eval(r, to->a);
        if (of.kind != JINJA_DICT || !of.dict->open)
            jinja_fail(r, ERR_INVALID, "only members of a namespace can be set");
        jinja_set(r, of.dict, jinja_of_str((struct jinja_str){to->text.p, NULL, to->text.n}), v);
        return;
    }
    struct jinja_list *l = jinja_elements(r, v);
    if (l->n != to->n)
        jinja_fail(r, ERR_INVALID, "%zu values for %zu names", l->n, to->n);
    for (size_t i = 0; i < to->n; i++)
        assign(r, to->list[i], l->at[i]);
}

/* ---- calls ---- */

/* The arguments of a call, evaluated; those with a name stand behind the others. */
static struct jinja_args arguments(jinja_run *r, const struct node *n)
{
    struct jinja_args a = {0};
    struct jinja_val *v = n->n ? jinja_room(r, n->n * sizeof *v) : NULL;
    while (a.n < n->n && n->names[a.n].n == 0)
        a.n++;
    for (size_t i = 0; i < n->n; i++)
        v[i] = eval(r, n->list[i]);
    a.at = v;
    a.n_named = n->n - a.n;
    a.named = v ? v + a.n : NULL;
    a.names = n->n ? n->names + a.n : NULL;
    return a;
}

const struct jinja_val *jinja_arg(const struct jinja_args *a, size_t i, const char *name)
{
    if (i < a->n)
        return &a->at[i];
    for (size_t k = 0; name && k < a->n_named; k++)
        if (slice_eq_str(a->names[k], name))
            return &a->named[k];
    return NULL;
}

static const struct jinja_val *named_argument(const struct jinja_args *a, slice name)
{
    for (size_t k = 0; k < a->n_named; k++)
        if (slice_eq(a->names[k], name))
            return &a->named[k];
    return NULL;
}

/* What `body` writes, as text. */
static struct jinja_val captured(jinja_run *r, const struct node *body)
{
    struct jinja_out own = {0}, *before = r->out;
    r->out = &own;
    run(r, body);
    r->out = before;
    return jinja_of_str(jinja_out_end(&own));
}

/* A macro sees its parameters and what stands outside of all blocks. */
static struct jinja_val call_macro(jinja_run *r, const struct node *m, const struct jinja_args *a)
{
    struct scope *before = r->scope, own;
    uint32_t line = r->line;
    if (++r->calls > JINJA_CALLS_MAX)
        jinja_fail(r, ERR_TOO_BIG, "macros call each other more than %d deep", JINJA_CALLS_MAX);
    if (a->n > m->n)
        jinja_fail(r, ERR_INVALID, "the macro %.*s takes %zu arguments, not %zu", (int)m->text.n,
                   m->text.p, m->n, a->n);
    r->scope = r->top;
    push_scope(r, &own);
    for (size_t i = 0; i < m->n; i++) {
        const struct jinja_val *v = i < a->n ? &a->at[i] : named_argument(a, m->names[i]);
        set_var(r, m->names[i], v ? *v : m->list[i] ? eval(r, m->list[i]) : JINJA_NOTHING);
    }
    struct jinja_val out = captured(r, m->b);
    r->scope = before;
    r->line = line;
    r->calls--;
    return out;
}

struct jinja_val jinja_call_value(jinja_run *r, struct jinja_val f, const struct jinja_args *a)
{
    if (f.kind != JINJA_CALL)
        jinja_fail(r, ERR_INVALID, "%s cannot be called", jinja_kind_text(f));
    jinja_step(r, 1);
    return f.call->macro ? call_macro(r, f.call->macro, a) : f.call->fn->call(r, f.call->self, a);
}

/* ---- expressions ---- */

static struct jinja_val compare(jinja_run *r, const struct node *n)
{
    struct jinja_val left = eval(r, n->a);
    bool yes = true;
    for (size_t i = 0; i < n->n && yes; i++) {
        struct jinja_val right = eval(r, n->list[i]->a);
        switch ((enum compare_op)n->list[i]->op) {
        case CMP_EQ:
            yes = jinja_same(r, left, right);
            break;
        case CMP_NE:
            yes = !jinja_same(r, left, right);
            break;
        case CMP_LT:
            yes = jinja_order(r, left, right) < 0;
            break;
        case CMP_LE:
            yes = jinja_order(r, left, right) <= 0;
            break;
        case CMP_GT:
            yes = jinja_order(r, left, right) > 0;
            break;
        case CMP_GE:
            yes = jinja_order(r, left, right) >= 0;
            break;
        case CMP_IN:
            yes = jinja_contains(r, right, left);
            break;
        case CMP_NOT_IN:
            yes = !jinja_contains(r, right, left);
            break;
        }
        left = right;
    }
    return jinja_bool(yes);
}

static struct jinja_val container(jinja_run *r, const struct node *n)
{
    if (n->kind == N_DICT) {
        struct jinja_val d = jinja_dict_new(r);
        for (size_t i = 0; i < n->n; i += 2) {
            struct jinja_val key = eval(r, n->list[i]);
            jinja_set(r, d.dict, key, eval(r, n->list[i + 1]));
        }
        return d;
    }
    struct jinja_list *l = jinja_new_list(r);
    l->tuple = n->kind == N_TUPLE;
    for (size_t i = 0; i < n->n; i++)
        jinja_put(r, l, eval(r, n->list[i]));
    return jinja_of_list(l);
}

static struct jinja_val concat(jinja_run *r, const struct node *n)
{
    struct jinja_out o = {0};
    struct jinja_val a = eval(r, n->a), b = eval(r, n->b);
    jinja_out_value(r, &o, a);
    jinja_out_value(r, &o, b);
    return jinja_of_str(jinja_out_end(&o));
}

static struct jinja_val call_fn(jinja_run *r, const struct node *n, struct jinja_val self)
{
    struct jinja_args a = arguments(r, n);
    struct jinja_val v = n->fn->call(r, self, &a);
    return n->kind == N_TEST && n->op ? jinja_bool(!jinja_true(v)) : v;
}

static struct jinja_val cut(jinja_run *r, const struct node *n)
{
    struct jinja_val of = eval(r, n->a), at[3];
    for (int i = 0; i < 3; i++)
        at[i] = n->list[i] ? eval(r, n->list[i]) : JINJA_NOTHING;
    return jinja_cut(r, of, at[0], at[1], at[2]);
}

static struct jinja_val sign(jinja_run *r, const struct node *n)
{
    return jinja_math(r, n->kind == N_MINUS ? OP_SUB : OP_ADD, jinja_int(0), eval(r, n->a));
}

static struct jinja_val eval_any(jinja_run *r, const struct node *n)
{
    struct jinja_val a, b;
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return name_value(r, n->text);
    case N_LIST:
    case N_TUPLE:
    case N_DICT:
        return container(r, n);
    case N_ATTR:
        return jinja_attr(r, eval(r, n->a), n->text);
    case N_INDEX:
        a = eval(r, n->a);
        return jinja_item(r, a, eval(r, n->b));
    case N_SLICE:
        return cut(r, n);
    case N_CALL: {
        a = eval(r, n->a);
        struct jinja_args args = arguments(r, n);
        if (a.kind == JINJA_UNDEFINED && (n->a->kind == N_NAME || n->a->kind == N_ATTR))
            jinja_fail(r, ERR_INVALID, "there is no function '%.*s'",
                       (int)(n->a->text.n < 60 ? n->a->text.n : 60), n->a->text.p);
        return jinja_call_value(r, a, &args);
    }
    case N_FILTER:
    case N_TEST:
        return call_fn(r, n, eval(r, n->a));
    case N_NOT:
        return jinja_bool(!jinja_true(eval(r, n->a)));
    case N_MINUS:
    case N_PLUS:
        return sign(r, n);
    case N_MATH:
        a = eval(r, n->a);
        b = eval(r, n->b);
        return jinja_math(r, (enum math_op)n->op, a, b);
    case N_CONCAT:
        return concat(r, n);
    case N_AND:
        a = eval(r, n->a);
        return jinja_true(a) ? eval(r, n->b) : a;
    case N_OR:
        a = eval(r, n->a);
        return jinja_true(a) ? a : eval(r, n->b);
    case N_COMPARE:
        return compare(r, n);
    case N_COND:
        return jinja_true(eval(r, n->b)) ? eval(r, n->a) : n->c ? eval(r, n->c) : JINJA_NOTHING;
    default:
        break;
    }
    CHECK(!"an expression");
    return JINJA_NOTHING;
}

static struct jinja_val eval(jinja_run *r, const struct node *n)
{
    deeper(r);
    struct jinja_val v = eval_any(r, n);
    r->depth--;
    return v;
}

/* ---- loops ---- */

static void loop_number(jinja_run *r, struct jinja_dict *loop, const char *name, int64_t i)
{
    jinja_set(r, loop, jinja_literal(name), jinja_int(i));
}

/* What `loop` tells about element i of n. */
static void set_loop(jinja_run *r, struct jinja_dict *loop, const struct jinja_list *l, size_t i)
{
    int64_t at = (int64_t)i, n = (int64_t)l->n;
    loop_number(r, loop, "index", at + 1);
    loop_number(r, loop, "index0", at);
    loop_number(r, loop, "revindex", n - at);
    loop_number(r, loop, "revindex0", n - at - 1);
    loop_number(r, loop, "length", n);
    loop_number(r, loop, "depth", 1);
    loop_number(r, loop, "depth0", 0);
    jinja_set(r, loop, jinja_literal("first"), jinja_bool(at == 0));
    jinja_set(r, loop, jinja_literal("last"), jinja_bool(at + 1 == n));
    jinja_set(r, loop, jinja_literal("previtem"), at > 0 ? l->at[i - 1] : JINJA_NOTHING);
    jinja_set(r, loop, jinja_literal("nextitem"), at + 1 < n ? l->at[i + 1] : JINJA_NOTHING);
}

/* Elements for which the loop's own condition is true. */
static struct jinja_list *filtered(jinja_run *r, const struct node *n, struct jinja_list *all)
{
    struct jinja_list *l = jinja_new_list(r);
    for (size_t i = 0; i < all->n; i++) {
        struct scope own, *before = r->scope;
        push_scope(r, &own);
        assign(r, n->list[0], all->at[i]);
        if (jinja_true(eval(r, n->b)))
            jinja_put(r, l, all->at[i]);
        r->scope = before;
    }
    return l;
}

static void run_for(jinja_run *r, const struct node *n)
{
    struct jinja_val over = eval(r, n->a);
    struct jinja_list *l = jinja_elements(r, over);
    if (n->b)
        l = filtered(r, n, l);
    struct jinja_val loop = jinja_dict_new(r);
    loop.dict->open = true; /* its members come before the methods of dictionaries */
    for (size_t i = 0; i < l->n; i++) {
        struct scope own, *before = r->scope;
        jinja_step(r, 12);
        set_loop(r, loop.dict, l, i);
        push_scope(r, &own);
        set_var(r, SLICE_LIT("loop"), loop);
        assign(r, n->list[0], l->at[i]);
        enum went how = run(r, n->list[1]);
        r->scope = before;
        if (how == BROKE)
            break;
    }
    if (l->n == 0 && n->c)
        run(r, n->c);
}

/* ---- statements ---- */

static void run_set_block(jinja_run *r, const struct node *n)
{
    struct scope own, *before = r->scope;
    push_scope(r, &own);
    struct jinja_val v = captured(r, n->b);
    r->scope = before;
    assign(r, n->a, n->c ? call_fn(r, n->c, v) : v);
}

static void define(jinja_run *r, const struct node *n)
{
    struct jinja_call *call = jinja_room(r, sizeof *call);
    *call = (struct jinja_call){.macro = n};
    set_var(r, n->text, (struct jinja_val){.kind = JINJA_CALL, .call = call});
}

static enum went run_one(jinja_run *r, const struct node *n)
{
    r->line = n->line;
    switch (n->kind) {
    case N_DATA:
        jinja_out_bytes(r, r->out, n->text.p, NULL, n->text.n);
        return WENT_ON;
    case N_OUTPUT:
        jinja_out_value(r, r->out, eval(r, n->a));
        return WENT_ON;
    case N_IF:
        if (jinja_true(eval(r, n->a)))
            return run(r, n->b);
        return n->c ? run(r, n->c) : WENT_ON;
    case N_FOR:
        run_for(r, n);
        return WENT_ON;
    case N_SET:
        assign(r, n->a, eval(r, n->b));
        return WENT_ON;
    case N_SET_BLOCK:
        run_set_block(r, n);
        return WENT_ON;
    case N_MACRO:
        define(r, n);
        return WENT_ON;
    case N_FILTER_BLOCK:
        jinja_out_value(r, r->out, call_fn(r, n->a, captured(r, n->b)));
        return WENT_ON;
    case N_BREAK:
        return BROKE;
    case N_CONTINUE:
        return CONTINUED;
    case N_BODY:
        return run(r, n);
    default:
        break;
    }
    CHECK(!"a statement");
    return WENT_ON;
}

static enum went run(jinja_run *r, const struct node *n)
{
    enum went how = WENT_ON;
    deeper(r);
    if (n->kind != N_BODY)
        how = run_one(r, n);
    for (size_t i = 0; n->kind == N_BODY && i < n->n && how == WENT_ON; i++) {
        jinja_step(r, 1);
        how = run_one(r, n->list[i]);
    }
    r->depth--;
    return how;
}

/* ---- from outside ---- */

int jinja_new(slice text, jinja **out, struct why *w)
{
    arena *a = arena_new(JINJA_MEMORY_MAX);
    jinja *j = arena_get(a, sizeof *j);
    j->a = a;
    *out = NULL;
    int e = jinja_parse(a, text, &j->body, w);
    if (e < 0)
        arena_free(a);
    else
        *out = j;
    return e;
}

void jinja_free(jinja *j)
{
    if (j)
        arena_free(j->a);
}

jinja_run *jinja_run_new(const jinja *j, int64_t now_unix_s)
{
    arena *a = arena_new(JINJA_MEMORY_MAX);
    jinja_run *r = arena_get(a, sizeof *r);
    r->a = a;
    r->j = j;
    r->now = now_unix_s;
    return r;
}

void jinja_run_free(jinja_run *r)
{
    if (r)
        arena_free(r->a);
}

int jinja_render(jinja_run *r, struct jinja_val names, struct jinja_str *out, struct why *w)
{
    struct scope given, *top = arena_get(r->a, sizeof *top);
    struct jinja_out *text = arena_get(r->a, sizeof *text);
    CHECK(names.kind == JINJA_DICT && !r->rendering);
    r->rendering = true;
    r->steps = 0;
    r->w = w;
    r->out = text;
    if (setjmp(r->failed))
        return r->e;
    push_scope(r, &given);
    given.vars = *names.dict;
    push_scope(r, top);
    r->top = top;
    run(r, r->j->body);
    *out = jinja_out_end(text);
    return 0;
}
