#include "engine/convert/pickle.h"

enum kind { NOTHING, MARK, BOOL_VALUE, INT, STR, TUPLE, DICT, LIST, GLOBAL, STORAGE, TENSOR };

enum global {
    G_ORDERED_DICT,
    G_REBUILD_TENSOR,
    G_REBUILD_PARAMETER,
    G_STORAGE, /* a type of storage; its name is kept */
};

struct value {
    enum kind kind;
    enum global global;
    int64_t n;                 /* a number */
    slice s;                   /* text; the storage's type */
    slice key;                 /* of a storage */
    const struct value *items; /* of a tuple: n */
    struct dict *dict;
    struct pickle_tensor *tensor;
};

struct pair {
    struct value key, value;
};

struct dict {
    struct pair *pairs;
    size_t n, cap;
};

struct machine {
    slice in;
    size_t at;
    arena *a;
    struct value *stack;
    size_t n_stack;
    struct value *memo;
    size_t n_memo, cap_memo;
    struct why *w;
    int e; /* the first failure */
};

static int fail(struct machine *m, int e, const char *what)
{
    if (m->e == 0)
        m->e = why_set(m->w, e, "pickle", "at byte %zu of its pickle: %s", m->at, what);
    return m->e;
}

/* ---- reading ---- */

static const uint8_t *take(struct machine *m, size_t n)
{
    static const uint8_t NONE[8];
    if (m->e < 0 || n > m->in.n - m->at) {
        fail(m, ERR_INVALID, "it ends too early");
        return n <= sizeof NONE ? NONE : NULL;
    }
    const uint8_t *p = (const uint8_t *)m->in.p + m->at;
    m->at += n;
    return p;
}

static uint64_t number(struct machine *m, size_t bytes)
{
    const uint8_t *p = take(m, bytes);
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static slice text(struct machine *m, uint64_t n)
{
    const uint8_t *p = n <= m->in.n ? take(m, (size_t)n) : NULL;
    if (!p || m->e < 0) {
        fail(m, ERR_INVALID, "it ends too early");
        return (slice){"", 0};
    }
    return (slice){(const char *)p, (size_t)n};
}

static slice line(struct machine *m)
{
    const char *p = m->in.p + m->at, *end = memchr(p, '\n', m->in.n - m->at);
    if (!end) {
        fail(m, ERR_INVALID, "a line does not end");
        return (slice){"", 0};
    }
    m->at += (size_t)(end - p) + 1;
    return (slice){p, (size_t)(end - p)};
}

/* ---- the stack ---- */

static void push(struct machine *m, struct value v)
{
    if (m->n_stack == PICKLE_STACK_MAX)
        fail(m, ERR_TOO_BIG, "its stack is too deep");
    else
        m->stack[m->n_stack++] = v;
}

static struct value pop(struct machine *m)
{
    if (m->n_stack == 0) {
        fail(m, ERR_INVALID, "its stack is empty");
        return (struct value){0};
    }
    return m->stack[--m->n_stack];
}

static struct value *top(struct machine *m)
{
    static struct value none;
    if (m->n_stack == 0) {
        fail(m, ERR_INVALID, "its stack is empty");
        none = (struct value){0};
        return &none;
    }
    return &m->stack[m->n_stack - 1];
}

/* Values above the last mark, which is taken away with them. */
static const struct value *above_mark(struct machine *m, size_t *n)
{
    size_t i = m->n_stack;
    while (i > 0 && m->stack[i - 1].kind != MARK)
        i--;
    *n = m->n_stack - i;
    if (i == 0) {
        fail(m, ERR_INVALID, "a mark is missing");
        *n = 0;
        return m->stack;
    }
    m->n_stack = i - 1;
    return m->stack + i;
}

static void *room(struct machine *m, size_t n)
{
    void *p = arena_try(m->a, n ? n : 1);
    if (!p)
        fail(m, ERR_NOMEM, "no memory for it");
    return p;
}

static void push_tuple(struct machine *m, const struct value *items, size_t n)
{
    struct value *own = room(m, n * sizeof *own);
    if (!own)
        return;
    memcpy(own, items, n * sizeof *own);
    push(m, (struct value){.kind = TUPLE, .n = (int64_t)n, .items = own});
}

static void tuple_of_last(struct machine *m, size_t n)
{
    if (m->n_stack < n) {
        fail(m, ERR_INVALID, "its stack is empty");
        return;
    }
    m->n_stack -= n;
    push_tuple(m, m->stack + m->n_stack, n);
}

static void push_dict(struct machine *m)
{
    struct dict *d = room(m, sizeof *d);
    if (d)
        push(m, (struct value){.kind = DICT, .dict = d});
}

static void set_items(struct machine *m, const struct value *items, size_t n)
{
    struct value *to = top(m);
    if (n % 2 != 0 || to->kind != DICT) {
        fail(m, ERR_INVALID, "items of what is no dictionary");
        return;
    }
    if (m->e < 0)
        return;
    struct dict *d = to->dict;
    if (d->n + n / 2 > d->cap) {
        size_t cap = d->cap * 2 > d->n + n / 2 ? d->cap * 2 : d->n + n / 2 + 8;
        struct pair *more = room(m, cap * sizeof *more);
        if (!more)
            return;
        if (d->n)
            memcpy(more, d->pairs, d->n * sizeof *more);
        d->pairs = more;
        d->cap = cap;
    }
    for (size_t i = 0; i < n; i += 2)
        d->pairs[d->n++] = (struct pair){items[i], items[i + 1]};
}

/* ---- the memo ---- */

static void memo_put(struct machine *m, uint64_t i)
{
    if (i >= PICKLE_MEMO_MAX) {
        fail(m, ERR_TOO_BIG, "it remembers too many things");
        return;
    }
    if (i >= m->cap_memo) {
        size_t cap = m->cap_memo ? m->cap_memo : 1024;
        while (cap <= i)
            cap *= 2;
        m->memo = xrealloc(m->memo, cap, sizeof *m->memo);
        memset(m->memo + m->cap_memo, 0, (cap - m->cap_memo) * sizeof *m->memo);
        m->cap_memo = cap;
    }
    m->memo[i] = *top(m);
    m->n_memo = i + 1 > m->n_memo ? (size_t)i + 1 : m->n_memo;
}

static void memo_get(struct machine *m, uint64_t i)
{
    if (i >= m->n_memo)
        fail(m, ERR_INVALID, "it recalls what it never remembered");
    else
        push(m, m->memo[i]);
}

/* ---- the only things that can be named and called ---- */

static bool ends_with(slice s, const char *end)
{
    size_t n = strlen(end);
    return s.n >= n && memcmp(s.p + s.n - n, end, n) == 0;
}

static void push_global(struct machine *m, slice module, slice name)
{
    struct value v = {.kind = GLOBAL, .s = name};
    if (slice_eq_str(module, "collections") && slice_eq_str(name, "OrderedDict"))
        v.global = G_ORDERED_DICT;
    else if (slice_eq_str(module, "torch._utils") && slice_eq_str(name, "_rebuild_tensor_v2"))
        v.global = G_REBUILD_TENSOR;
    else if (slice_eq_str(module, "torch._utils") && slice_eq_str(name, "_rebuild_parameter"))
        v.global = G_REBUILD_PARAMETER;
    else if (slice_eq_str(module, "torch") && ends_with(name, "Storage"))
        v.global = G_STORAGE;
    else if (m->e == 0)
        m->e = why_set(m->w, ERR_FORBIDDEN, "pickle",
                       "its pickle asks for %.*s.%.*s; only what rebuilds tensors is allowed",
                       (int)(module.n < 60 ? module.n : 60), module.p,
                       (int)(name.n < 60 ? name.n : 60), name.p);
    push(m, v);
}

/* ('storage', type, key, device, elements) */
static void push_storage(struct machine *m)
{
    struct value id = pop(m);
    if (id.kind != TUPLE || id.n < 5 || id.items[0].kind != STR ||
        !slice_eq_str(id.items[0].s, "storage") || id.items[1].kind != GLOBAL ||
        id.items[1].global != G_STORAGE || id.items[2].kind != STR) {
        fail(m, ERR_INVALID, "a reference to what is no storage");
        return;
    }
    push(m, (struct value){.kind = STORAGE, .s = id.items[1].s, .key = id.items[2].s});
}

static uint32_t numbers(const struct value *v, uint64_t out[PICKLE_DIMS_MAX])
{
    if (v->kind != TUPLE || v->n > PICKLE_DIMS_MAX)
        return UINT32_MAX;
    for (int64_t i = 0; i < v->n; i++) {
        if (v->items[i].kind != INT || v->items[i].n < 0)
            return UINT32_MAX;
        out[i] = (uint64_t)v->items[i].n;
    }
    return (uint32_t)v->n;
}

/* (storage, offset, size, stride, requires_grad, hooks) */
static void rebuild_tensor(struct machine *m, const struct value *args)
{
    struct pickle_tensor *t = room(m, sizeof *t);
    const struct value *a = args->items;
    if (!t)
        return;
    if (args->n < 4 || a[0].kind != STORAGE || a[1].kind != INT || a[1].n < 0 ||
        (t->n_dims = numbers(&a[2], t->dims)) > PICKLE_DIMS_MAX ||
        numbers(&a[3], t->strides) != t->n_dims) {
        fail(m, ERR_INVALID, "a tensor that cannot be rebuilt");
        return;
    }
    t->storage = a[0].s;
    t->key = a[0].key;
    t->offset = (uint64_t)a[1].n;
    push(m, (struct value){.kind = TENSOR, .tensor = t});
}

static void reduce(struct machine *m)
{
    struct value args = pop(m), what = pop(m);
    if (args.kind != TUPLE || what.kind != GLOBAL) {
        fail(m, ERR_INVALID, "a call of what cannot be called");
        return;
    }
    switch (what.global) {
    case G_ORDERED_DICT:
        push_dict(m);
        return;
    case G_REBUILD_TENSOR:
        rebuild_tensor(m, &args);
        return;
    case G_REBUILD_PARAMETER: /* (tensor, requires_grad, hooks) */
        if (args.n >= 1 && args.items[0].kind == TENSOR)
            push(m, args.items[0]);
        else
            fail(m, ERR_INVALID, "a parameter that is no tensor");
        return;
    case G_STORAGE:
        break;
    }
    fail(m, ERR_INVALID, "a call of what cannot be called");
}

/* ---- opcodes ---- */

/* Numbers, texts, and other things that stand for themselves; false: none of them. */
static bool run_constant(struct machine *m, uint8_t op)
{
    struct value v = {.kind = INT};
    switch (op) {
    case 'N': /* NONE */
        v.kind = NOTHING;
        break;
    case 0x88: /* NEWTRUE, NEWFALSE */
    case 0x89:
        v = (struct value){.kind = BOOL_VALUE, .n = op == 0x88};
        break;
    case 'J': /* BININT */
        v.n = (int32_t)(uint32_t)number(m, 4);
        break;
    case 'K': /* BININT1 */
        v.n = (int64_t)number(m, 1);
        break;
    case 'M': /* BININT2 */
        v.n = (int64_t)number(m, 2);
        break;
    case 0x8a: { /* LONG1 */
        uint64_t n = number(m, 1);
        if (n > 8)
            fail(m, ERR_UNSUPPORTED, "a number of more than 64 bits");
        uint64_t bits = number(m, n > 8 ? 0 : (size_t)n);
        if (n > 0 && n < 8 && bits >> (8 * n - 1) & 1) /* two's complement */
            bits |= UINT64_MAX << (8 * n);
        memcpy(&v.n, &bits, sizeof v.n);
        break;
    }
    case 'G': /* BINFLOAT: nothing here needs its value */
        number(m, 8);
        v.kind = NOTHING;
        break;
    case 'X': /* BINUNICODE, SHORT_BINUNICODE, BINUNICODE8 */
    case 0x8c:
    case 0x8d:
        v.kind = STR;
        v.s = text(m, number(m, op == 'X' ? 4 : op == 0x8c ? 1 : 8));
        break;
    default:
        return false;
    }
    push(m, v);
    return true;
}

/* Containers; false: none of them. */
static bool run_container(struct machine *m, uint8_t op)
{
    const struct value *items;
    size_t n;
    switch (op) {
    case '(': /* MARK */
        push(m, (struct value){.kind = MARK});
        break;
    case '}': /* EMPTY_DICT */
        push_dict(m);
        break;
    case ']': /* EMPTY_LIST: what lists hold is not needed */
        push(m, (struct value){.kind = LIST});
        break;
    case ')': /* EMPTY_TUPLE */
        push_tuple(m, m->stack, 0);
        break;
    case 't': /* TUPLE */
        items = above_mark(m, &n);
        push_tuple(m, items, n);
        break;
    case 0x85: /* TUPLE1, TUPLE2, TUPLE3 */
    case 0x86:
    case 0x87:
        tuple_of_last(m, op - 0x84u);
        break;
    case 's': { /* SETITEM */
        struct value pair[2];
        pair[1] = pop(m);
        pair[0] = pop(m);
        set_items(m, pair, 2);
        break;
    }
    case 'u': /* SETITEMS */
        items = above_mark(m, &n);
        set_items(m, items, n);
        break;
    case 'a': /* APPEND */
        pop(m);
        break;
    case 'e': /* APPENDS */
        above_mark(m, &n);
        break;
    default:
        return false;
    }
    return true;
}

static void run_other(struct machine *m, uint8_t op)
{
    struct value name, module;
    slice first;
    switch (op) {
    case 0x80: /* PROTO */
        number(m, 1);
        return;
    case 0x95: /* FRAME */
        number(m, 8);
        return;
    case 'q': /* BINPUT, LONG_BINPUT, MEMOIZE */
        memo_put(m, number(m, 1));
        return;
    case 'r':
        memo_put(m, number(m, 4));
        return;
    case 0x94:
        memo_put(m, m->n_memo);
        return;
    case 'h': /* BINGET, LONG_BINGET */
        memo_get(m, number(m, 1));
        return;
    case 'j':
        memo_get(m, number(m, 4));
        return;
    case 'c': /* GLOBAL */
        first = line(m);
        push_global(m, first, line(m));
        return;
    case 0x93: /* STACK_GLOBAL */
        name = pop(m);
        module = pop(m);
        if (name.kind == STR && module.kind == STR)
            push_global(m, module.s, name.s);
        else
            fail(m, ERR_INVALID, "a name that is no text");
        return;
    case 'Q': /* BINPERSID */
        push_storage(m);
        return;
    case 'R': /* REDUCE */
        reduce(m);
        return;
    case 'b': /* BUILD: attributes of the dictionary itself (_metadata), which nothing here needs */
        pop(m);
        if (top(m)->kind != DICT)
            fail(m, ERR_FORBIDDEN, "it sets the state of an object");
        return;
    }
    if (m->e == 0)
        m->e = why_set(m->w, ERR_FORBIDDEN, "pickle",
                       "at byte %zu of its pickle: opcode 0x%02x, which no file of tensors needs",
                       m->at - 1, op);
}

static void run(struct machine *m)
{
    for (;;) {
        uint8_t op = *take(m, 1);
        if (m->e < 0 || op == '.')
            return;
        if (!run_constant(m, op) && !run_container(m, op))
            run_other(m, op);
    }
}

static int give(struct machine *m, pickle_fn fn, void *ctx)
{
    struct value v = *top(m);
    if (m->e == 0 && v.kind != DICT)
        return fail(m, ERR_UNSUPPORTED, "it is not a dictionary of tensors");
    for (size_t i = 0; m->e == 0 && i < v.dict->n; i++) {
        const struct pair *p = &v.dict->pairs[i];
        if (p->key.kind != STR || p->value.kind != TENSOR)
            continue;
        struct pickle_tensor t = *p->value.tensor;
        t.name = p->key.s;
        m->e = fn(ctx, &t, m->w);
    }
    return m->e;
}

int pickle_tensors(slice in, pickle_fn fn, void *ctx, struct why *w)
{
    if (in.n > PICKLE_BYTES_MAX)
        return why_set(w, ERR_TOO_BIG, "pickle", "its pickle has more than %u bytes",
                       PICKLE_BYTES_MAX);
    struct machine m = {.in = in, .w = w};
    m.a = arena_new((size_t)16 * PICKLE_BYTES_MAX);
    m.stack = xcalloc(PICKLE_STACK_MAX, sizeof *m.stack);
    run(&m);
    int e = give(&m, fn, ctx);
    free(m.stack);
    free(m.memo);
    arena_free(m.a);
    return e;
}
