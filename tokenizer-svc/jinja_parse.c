/* Tokens to a tree. The grammar and the order of operators are those of jinja2's parser.py. */
#include <stdio.h>

#include "tokenizer-svc/jinja_int.h"

struct parser {
    arena *a;
    uint32_t depth, loops;
    const struct token *tokens;
    size_t i;
    jmp_buf failed;
    int e;
    struct why *w;
};

static _Noreturn void fail(struct parser *p, int e, uint32_t line, const char *what, slice about)
{
    p->e = jinja_why(p->w, e, line, what, about);
    longjmp(p->failed, 1);
}

static void *room(struct parser *p, size_t n)
{
    void *m = arena_try(p->a, n ? n : 1);
    if (!m)
        fail(p, ERR_TOO_BIG, p->tokens[p->i].line, "too large", (slice){"", 0});
    return m;
}

/* ---- looking at tokens ---- */

static const struct token *peek(const struct parser *p)
{
    return &p->tokens[p->i];
}

static bool is_op(const struct token *t, const char *op)
{
    return t->kind == T_OP && slice_eq_str(t->text, op);
}

static bool is_name(const struct token *t, const char *name)
{
    return t->kind == T_NAME && slice_eq_str(t->text, name);
}

static bool take_op(struct parser *p, const char *op)
{
    bool yes = is_op(peek(p), op);
    p->i += yes;
    return yes;
}

static bool take_name(struct parser *p, const char *name)
{
    bool yes = is_name(peek(p), name);
    p->i += yes;
    return yes;
}

static _Noreturn void unexpected(struct parser *p, const char *wanted)
{
    static const char *const NAMES[] = {"text", "{{", "}}",     "{%", "%}",     "",
                                        "",     "",   "a text", "",   "the end"};
    const struct token *t = peek(p);
    char what[64];
    snprintf(what, sizeof what, "%s is expected, not", wanted);
    fail(p, ERR_INVALID, t->line, what,
         t->text.n && t->kind != T_DATA ? t->text : slice_str(NAMES[t->kind]));
}

static void need_op(struct parser *p, const char *op)
{
    if (!take_op(p, op))
        unexpected(p, op);
}

static slice need_name(struct parser *p)
{
    if (peek(p)->kind != T_NAME)
        unexpected(p, "a name");
    return p->tokens[p->i++].text;
}

static struct node *new_node(struct parser *p, enum node_kind kind)
{
    struct node *n = room(p, sizeof *n);
    n->kind = kind;
    n->line = peek(p)->line;
    return n;
}

static void add_child(struct parser *p, struct node *n, struct node *child, slice name)
{
    if ((n->n & (n->n + 1)) == 0) { /* full at 0, 1, 3, 7 … */
        size_t cap = 2 * n->n + 1;
        struct node **list = room(p, cap * sizeof(void *));
        slice *names = room(p, cap * sizeof *names);
        if (n->n) {
            memcpy(list, n->list, n->n * sizeof(void *));
            memcpy(names, n->names, n->n * sizeof *names);
        }
        n->list = list;
        n->names = names;
    }
    n->names[n->n] = name;
    n->list[n->n++] = child;
}

static void deeper(struct parser *p)
{
    if (++p->depth > JINJA_DEPTH_MAX)
        fail(p, ERR_TOO_BIG, peek(p)->line, "nested too deeply", (slice){"", 0});
}

/* ---- expressions ---- */

static struct node *expression(struct parser *p);
static struct node *unary(struct parser *p, bool filters);

/* Arguments of a call, up to ')'. */
static void arguments(struct parser *p, struct node *n)
{
    while (!take_op(p, ")")) {
        slice name = {"", 0};
        if (n->n > 0) {
            need_op(p, ",");
            if (take_op(p, ")"))
                break;
        }
        if (is_op(peek(p), "*") || is_op(peek(p), "**"))
            fail(p, ERR_UNSUPPORTED, peek(p)->line, "arguments from a list are not supported",
                 (slice){"", 0});
        if (peek(p)->kind == T_NAME && is_op(peek(p) + 1, "=")) {
            name = need_name(p);
            p->i++;
        } else if (n->n > 0 && n->names[n->n - 1].n)
            fail(p, ERR_INVALID, peek(p)->line, "an argument without a name after one with",
                 (slice){"", 0});
        add_child(p, n, expression(p), name);
    }
}

static struct node *subscript(struct parser *p, struct node *of)
{
    struct node *n = new_node(p, N_INDEX), *parts[3] = {NULL, NULL, NULL};
    int i = 0;
    n->a = of;
    for (;;) {
        if (!is_op(peek(p), ":") && !is_op(peek(p), "]"))
            parts[i] = expression(p);
        if (i == 2 || !take_op(p, ":"))
            break;
        n->kind = N_SLICE;
        i++;
    }
    need_op(p, "]");
    if (n->kind == N_INDEX && !parts[0])
        unexpected(p, "an index");
    n->b = parts[0];
    for (i = 0; n->kind == N_SLICE && i < 3; i++)
        add_child(p, n, parts[i], (slice){"", 0});
    return n;
}

static struct node *postfix(struct parser *p, struct node *n)
{
    for (uint32_t more = 0;; more++) {
        if (more > JINJA_DEPTH_MAX)
            fail(p, ERR_TOO_BIG, peek(p)->line, "nested too deeply", (slice){"", 0});
        if (is_op(peek(p), ".")) {
            struct node *of = n;
            p->i++;
            n = new_node(p, peek(p)->kind == T_INT ? N_INDEX : N_ATTR);
            n->a = of;
            if (n->kind == N_INDEX)
                n->b = unary(p, false);
            else
                n->text = need_name(p);
        } else if (take_op(p, "["))
            n = subscript(p, n);
        else if (is_op(peek(p), "(")) {
            struct node *f = n;
            n = new_node(p, N_CALL);
            p->i++;
            n->a = f;
            arguments(p, n);
        } else
            return n;
    }
}

static struct node *filter(struct parser *p, struct node *of)
{
    struct node *n = new_node(p, N_FILTER);
    n->a = of;
    n->text = need_name(p);
    n->fn = jinja_filter(n->text);
    if (!n->fn)
        fail(p, ERR_UNSUPPORTED, n->line, "there is no filter", n->text);
    if (take_op(p, "("))
        arguments(p, n);
    return n;
}

/* `is [not] name [argument]`: the argument may stand without parentheses. */
static struct node *test(struct parser *p, struct node *of)
{
    struct node *n = new_node(p, N_TEST);
    n->a = of;
    n->op = take_name(p, "not");
    n->text = need_name(p);
    n->fn = jinja_test(n->text);
    if (!n->fn)
        fail(p, ERR_UNSUPPORTED, n->line, "there is no test", n->text);
    const struct token *t = peek(p);
    bool word = t->kind == T_NAME && !is_name(t, "else") && !is_name(t, "or") &&
                !is_name(t, "and") && !is_name(t, "is") && !is_name(t, "if") &&
                !is_name(t, "not") && !is_name(t, "in");
    if (take_op(p, "("))
        arguments(p, n);
    else if (word || t->kind == T_STR || t->kind == T_INT || t->kind == T_FLOAT || is_op(t, "[") ||
             is_op(t, "{"))
        add_child(p, n, unary(p, false), (slice){"", 0});
    return n;
}

static struct node *filters_and_tests(struct parser *p, struct node *n)
{
    for (uint32_t more = 0;; more++) {
        if (more > JINJA_DEPTH_MAX)
            fail(p, ERR_TOO_BIG, peek(p)->line, "nested too deeply", (slice){"", 0});
        if (take_op(p, "|"))
            n = filter(p, n);
        else if (take_name(p, "is"))
            n = test(p, n);
        else if (is_op(peek(p), "(") || is_op(peek(p), ".") || is_op(peek(p), "["))
            n = postfix(p, n);
        else
            return n;
    }
}

static struct node *list_or_dict(struct parser *p)
{
    bool dict = is_op(peek(p), "{");
    struct node *n = new_node(p, dict ? N_DICT : N_LIST);
    const char *end = dict ? "}" : "]";
    p->i++;
    while (!take_op(p, end)) {
        if (n->n > 0) {
            need_op(p, ",");
            if (take_op(p, end))
                break;
        }
        add_child(p, n, expression(p), (slice){"", 0});
        if (dict) {
            need_op(p, ":");
            add_child(p, n, expression(p), (slice){"", 0});
        }
    }
    return n;
}

/* What stands between commas, up to something that is not an expression. One alone is itself,
 * unless a comma follows. */
static struct node *tuple(struct parser *p, const char *end)
{
    struct node *first = expression(p);
    if (!is_op(peek(p), ","))
        return first;
    struct node *n = new_node(p, N_TUPLE);
    add_child(p, n, first, (slice){"", 0});
    while (take_op(p, ","))
        if (!(end && is_op(peek(p), end)))
            add_child(p, n, expression(p), (slice){"", 0});
    return n;
}

static struct node *parenthesis(struct parser *p)
{
    p->i++;
    if (take_op(p, ")"))
        return new_node(p, N_TUPLE);
    struct node *n = tuple(p, ")");
    need_op(p, ")");
    return n;
}

static struct node *number(struct parser *p, struct node *n, slice text)
{
    char plain[64];
    size_t k = 0;
    for (size_t i = 0; i < text.n && k < sizeof plain - 1; i++)
        if (text.p[i] != '_')
            plain[k++] = text.p[i];
    plain[k] = 0;
    double f;
    uint64_t i;
    if (n->value.kind == JINJA_FLOAT && slice_f64((slice){plain, k}, &f) == 0)
        n->value.f = f;
    else if (n->value.kind == JINJA_INT && slice_u64((slice){plain, k}, &i) == 0 && i <= INT64_MAX)
        n->value.i = (int64_t)i;
    else
        fail(p, ERR_INVALID, n->line, "a number that does not fit:", text);
    return n;
}

static struct node *constant(struct parser *p)
{
    const struct token *t = peek(p);
    struct node *n = new_node(p, N_CONST);
    p->i++;
    if (t->kind == T_INT || t->kind == T_FLOAT) {
        n->value.kind = t->kind == T_INT ? JINJA_INT : JINJA_FLOAT;
        return number(p, n, t->text);
    }
    size_t all = t->text.n;
    for (size_t i = p->i; p->tokens[i].kind == T_STR; i++) /* 'a' 'b' is one */
        all += p->tokens[i].text.n;
    char *own = room(p, all + 1);
    size_t at = t->text.n;
    memcpy(own, t->text.p, at);
    for (; peek(p)->kind == T_STR; p->i++) {
        memcpy(own + at, peek(p)->text.p, peek(p)->text.n);
        at += peek(p)->text.n;
    }
    n->value = (struct jinja_val){.kind = JINJA_STR, .s = {own, NULL, at}};
    return n;
}

static struct node *primary(struct parser *p)
{
    static const struct {
        const char *name;
        struct jinja_val value;
    } NAMES[] = {{"true", {JINJA_BOOL, {.b = true}}},   {"True", {JINJA_BOOL, {.b = true}}},
                 {"false", {JINJA_BOOL, {.b = false}}}, {"False", {JINJA_BOOL, {.b = false}}},
                 {"none", {.kind = JINJA_NONE}},        {"None", {.kind = JINJA_NONE}}};
    const struct token *t = peek(p);
    if (t->kind == T_INT || t->kind == T_FLOAT || t->kind == T_STR)
        return constant(p);
    if (is_op(t, "("))
        return parenthesis(p);
    if (is_op(t, "[") || is_op(t, "{"))
        return list_or_dict(p);
    if (t->kind != T_NAME)
        unexpected(p, "a value");
    struct node *n = new_node(p, N_NAME);
    n->text = need_name(p);
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (slice_eq_str(n->text, NAMES[i].name)) {
            n->kind = N_CONST;
            n->value = NAMES[i].value;
        }
    return n;
}

static struct node *unary(struct parser *p, bool filters)
{
    struct node *n;
    deeper(p);
    if (is_op(peek(p), "-") || is_op(peek(p), "+")) {
        n = new_node(p, is_op(peek(p), "-") ? N_MINUS : N_PLUS);
        p->i++;
        n->a = unary(p, false);
    } else
        n = primary(p);
    n = postfix(p, n);
    n = filters ? filters_and_tests(p, n) : n;
    p->depth--;
    return n;
}

/* Operators of one strength, from the left. level 0: + and -; 1: ~; 2: * / // %; 3: **. */
static struct node *math(struct parser *p, int level)
{
    static const struct {
        const char *op;
        int level, what;
    } OPS[] = {{"+", 0, OP_ADD}, {"-", 0, OP_SUB},    {"~", 1, -1},     {"*", 2, OP_MUL},
               {"/", 2, OP_DIV}, {"//", 2, OP_FLOOR}, {"%", 2, OP_MOD}, {"**", 3, OP_POW}};
    struct node *left = level == 3 ? unary(p, true) : math(p, level + 1);
    for (size_t i = 0; i < ARRAY_LEN(OPS);) {
        if (OPS[i].level != level || !is_op(peek(p), OPS[i].op)) {
            i++;
            continue;
        }
        struct node *n = new_node(p, level == 1 ? N_CONCAT : N_MATH);
        p->i++;
        n->op = OPS[i].what;
        n->a = left;
        n->b = level == 3 ? unary(p, true) : math(p, level + 1);
        left = n;
        i = 0;
    }
    return left;
}

static int compare_op(struct parser *p)
{
    static const char *const OPS[] = {"==", "!=", "<", "<=", ">", ">="};
    for (int i = 0; i < (int)ARRAY_LEN(OPS); i++)
        if (take_op(p, OPS[i]))
            return i;
    if (take_name(p, "in"))
        return CMP_IN;
    if (is_name(peek(p), "not") && is_name(peek(p) + 1, "in")) {
        p->i += 2;
        return CMP_NOT_IN;
    }
    return -1;
}

static struct node *compare(struct parser *p)
{
    struct node *first = math(p, 0), *n = NULL;
    for (int op; (op = compare_op(p)) >= 0;) {
        if (!n) {
            n = new_node(p, N_COMPARE);
            n->a = first;
        }
        struct node *part = new_node(p, N_COMPARE);
        part->op = op;
        part->a = math(p, 0);
        add_child(p, n, part, (slice){"", 0});
    }
    return n ? n : first;
}

static struct node *negation(struct parser *p)
{
    if (!is_name(peek(p), "not"))
        return compare(p);
    struct node *n = new_node(p, N_NOT);
    p->i++;
    deeper(p);
    n->a = negation(p);
    p->depth--;
    return n;
}

static struct node *both(struct parser *p, bool any)
{
    struct node *left = any ? both(p, false) : negation(p);
    while (is_name(peek(p), any ? "or" : "and")) {
        struct node *n = new_node(p, any ? N_OR : N_AND);
        p->i++;
        n->a = left;
        n->b = any ? both(p, false) : negation(p);
        left = n;
    }
    return left;
}

/* a if b else c */
static struct node *expression(struct parser *p)
{
    deeper(p);
    struct node *n = both(p, true);
    while (is_name(peek(p), "if")) {
        struct node *cond = new_node(p, N_COND);
        p->i++;
        cond->a = n;
        cond->b = both(p, true);
        if (take_name(p, "else"))
            cond->c = expression(p);
        n = cond;
    }
    p->depth--;
    return n;
}

/* ---- statements ---- */

static struct node *body(struct parser *p, const char *const *ends);

#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void end_block(struct parser *p)
{
    if (peek(p)->kind != T_BLOCK_END)
        unexpected(p, "%}");
    p->i++;
}

/* Past "name %}", which body() has found. */
static void close_block(struct parser *p)
{
    p->i++;
    end_block(p);
}

static struct node *if_block(struct parser *p)
{
    struct node *n = new_node(p, N_IF);
    n->a = tuple(p, NULL);
    end_block(p);
    n->b = body(p, ENDS("elif", "else", "endif"));
    if (take_name(p, "elif")) {
        deeper(p);
        n->c = if_block(p);
        p->depth--;
    } else if (take_name(p, "else")) {
        end_block(p);
        n->c = body(p, ENDS("endif"));
        close_block(p);
    } else
        close_block(p);
    return n;
}

static struct node *target(struct parser *p, const char *end)
{
    struct node *n = new_node(p, N_NAME);
    n->text = need_name(p);
    if (is_op(peek(p), ".")) { /* of a namespace */
        p->i++;
        struct node *attr = new_node(p, N_ATTR);
        attr->a = n;
        attr->text = need_name(p);
        return attr;
    }
    if (!is_op(peek(p), ","))
        return n;
    struct node *all = new_node(p, N_TUPLE);
    add_child(p, all, n, (slice){"", 0});
    while (take_op(p, ",")) {
        if (end && is_name(peek(p), end))
            break;
        n = new_node(p, N_NAME);
        n->text = need_name(p);
        add_child(p, all, n, (slice){"", 0});
    }
    return all;
}

static struct node *for_targets(struct parser *p)
{
    bool wrapped = take_op(p, "(");
    struct node *t = target(p, "in");
    if (wrapped)
        need_op(p, ")");
    return t;
}

static struct node *for_block(struct parser *p)
{
    struct node *n = new_node(p, N_FOR);
    struct node *targets = for_targets(p);
    if (!take_name(p, "in"))
        unexpected(p, "in");
    add_child(p, n, targets, (slice){"", 0});
    n->a = both(p, true); /* an `if` here is the loop's */
    if (take_name(p, "if"))
        n->b = expression(p);
    if (is_name(peek(p), "recursive"))
        fail(p, ERR_UNSUPPORTED, n->line, "recursive loops are not supported", (slice){"", 0});
    end_block(p);
    p->loops++;
    add_child(p, n, body(p, ENDS("else", "endfor")), (slice){"", 0});
    p->loops--;
    if (take_name(p, "else")) {
        end_block(p);
        n->c = body(p, ENDS("endfor"));
    }
    close_block(p);
    return n;
}

static struct node *set_block(struct parser *p)
{
    struct node *n = new_node(p, N_SET);
    n->a = target(p, NULL);
    if (take_op(p, "=")) {
        n->b = tuple(p, NULL);
        end_block(p);
        return n;
    }
    n->kind = N_SET_BLOCK;
    if (take_op(p, "|"))
        n->c = filter(p, NULL);
    end_block(p);
    n->b = body(p, ENDS("endset"));
    close_block(p);
    return n;
}

static void parameters(struct parser *p, struct node *n)
{
    need_op(p, "(");
    while (!take_op(p, ")")) {
        if (n->n > 0)
            need_op(p, ",");
        slice name = need_name(p);
        add_child(p, n, take_op(p, "=") ? expression(p) : NULL, name);
    }
}

static struct node *macro_block(struct parser *p)
{
    struct node *n = new_node(p, N_MACRO);
    uint32_t loops = p->loops;
    n->text = need_name(p);
    parameters(p, n);
    end_block(p);
    p->loops = 0;
    n->b = body(p, ENDS("endmacro"));
    p->loops = loops;
    close_block(p);
    return n;
}

static struct node *filter_block(struct parser *p)
{
    struct node *n = new_node(p, N_FILTER_BLOCK);
    n->a = filter(p, NULL);
    end_block(p);
    n->b = body(p, ENDS("endfilter"));
    close_block(p);
    return n;
}

static struct node *jump(struct parser *p, enum node_kind kind)
{
    struct node *n = new_node(p, kind);
    if (p->loops == 0)
        fail(p, ERR_INVALID, n->line, "break or continue outside of a loop", (slice){"", 0});
    end_block(p);
    return n;
}

/* {% generation %} marks what is learned from: its body is rendered as it is. */
static struct node *generation_block(struct parser *p)
{
    end_block(p);
    struct node *n = body(p, ENDS("endgeneration"));
    close_block(p);
    return n;
}

static struct node *statement(struct parser *p)
{
    const struct token *t = peek(p);
    slice name = need_name(p);
    if (slice_eq_str(name, "if"))
        return if_block(p);
    if (slice_eq_str(name, "for"))
        return for_block(p);
    if (slice_eq_str(name, "set"))
        return set_block(p);
    if (slice_eq_str(name, "macro"))
        return macro_block(p);
    if (slice_eq_str(name, "filter"))
        return filter_block(p);
    if (slice_eq_str(name, "break"))
        return jump(p, N_BREAK);
    if (slice_eq_str(name, "continue"))
        return jump(p, N_CONTINUE);
    if (slice_eq_str(name, "generation"))
        return generation_block(p);
    fail(p, ERR_UNSUPPORTED, t->line, "there is no block", name);
}

static bool at_end(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (is_name(peek(p) + 1, *ends))
            return true;
    return false;
}

/* Statements up to one of `ends`, whose name comes next then; NULL: up to the end. */
static struct node *body(struct parser *p, const char *const *ends)
{
    struct node *n = new_node(p, N_BODY), *child;
    n->line = p->i > 0 ? p->tokens[p->i - 1].line : 1; /* of what it belongs to */
    deeper(p);
    for (;;) {
        const struct token *t = peek(p);
        if (t->kind == T_END && ends)
            fail(p, ERR_INVALID, n->line, "a block does not end: there is no", slice_str(ends[0]));
        if (t->kind == T_END || (t->kind == T_BLOCK && at_end(p, ends)))
            break;
        if (t->kind == T_DATA) {
            child = new_node(p, N_DATA);
            child->text = t->text;
            p->i++;
        } else if (t->kind == T_VAR) {
            p->i++;
            child = new_node(p, N_OUTPUT);
            child->a = tuple(p, NULL);
            if (peek(p)->kind != T_VAR_END)
                unexpected(p, "}}");
            p->i++;
        } else {
            p->i++;
            child = statement(p);
        }
        add_child(p, n, child, (slice){"", 0});
    }
    if (ends)
        p->i++; /* {% */
    p->depth--;
    return n;
}

int jinja_parse(arena *a, slice text, struct node **out, struct why *w)
{
    struct parser *p = arena_get(a, sizeof *p);
    struct token *tokens;
    *out = NULL;
    int e = jinja_lex(a, text, &tokens, w);
    if (e < 0)
        return e;
    *p = (struct parser){.a = a, .w = w, .tokens = tokens};
    if (setjmp(p->failed))
        return p->e;
    *out = body(p, NULL);
    return 0;
}
