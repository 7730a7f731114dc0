/* Template text to tokens. White space goes as jinja2's lexer.py takes it away with trim_blocks and
 * lstrip_blocks. */
#include "tokenizer-svc/jinja_int.h"

struct lexer {
    arena *a;
    slice in;
    size_t at;
    uint32_t line;
    struct token *tokens;
    size_t n, cap;
    bool fresh_line; /* what comes next in the text begins a line */
    jmp_buf failed;
    int e;
    struct why *w;
};

int jinja_why(struct why *w, int e, uint32_t line, const char *what, slice about)
{
    return why_set(w, e, "tokenizer.chat_template", "line %u of the chat template: %s%s%.*s", line,
                   what, about.n ? " " : "", (int)(about.n < 60 ? about.n : 60), about.p);
}

static _Noreturn void fail(struct lexer *p, int e, uint32_t line, const char *what, slice about)
{
    p->e = jinja_why(p->w, e, line, what, about);
    longjmp(p->failed, 1);
}

static void *room(struct lexer *p, size_t n)
{
    void *m = arena_try(p->a, n ? n : 1);
    if (!m)
        fail(p, ERR_TOO_BIG, p->line, "too large", (slice){"", 0});
    return m;
}

static void push(struct lexer *p, enum token_kind kind, slice text)
{
    if (p->n == JINJA_TOKENS_MAX)
        fail(p, ERR_TOO_BIG, p->line, "more words than a template may have", (slice){"", 0});
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 512;
        struct token *more = room(p, cap * sizeof *more);
        if (p->n)
            memcpy(more, p->tokens, p->n * sizeof *more);
        p->tokens = more;
        p->cap = cap;
    }
    p->tokens[p->n++] = (struct token){kind, p->line, text};
}

static char ahead(const struct lexer *p, size_t k)
{
    return p->in.n - p->at > k ? p->in.p[p->at + k] : 0;
}

static bool looking_at(const struct lexer *p, const char *what)
{
    size_t n = strlen(what);
    return p->in.n - p->at >= n && memcmp(p->in.p + p->at, what, n) == 0;
}

static void skip(struct lexer *p, size_t n)
{
    for (; n > 0 && p->at < p->in.n; n--)
        p->line += p->in.p[p->at++] == '\n';
}

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The text before a tag, less what the tag takes away: everything blank after '-', else, before a
 * block or a comment that is the first thing on its line, its indent. */
static void push_data(struct lexer *p, size_t from, size_t to, bool strips_line, char mark)
{
    slice s = {p->in.p + from, to - from};
    if (mark == '-') {
        while (s.n > 0 && blank(s.p[s.n - 1]))
            s.n--;
    } else if (strips_line && mark != '+') {
        size_t n = s.n;
        while (n > 0 && (s.p[n - 1] == ' ' || s.p[n - 1] == '\t' || s.p[n - 1] == '\f' ||
                         s.p[n - 1] == '\v'))
            n--;
        if (n > 0 ? s.p[n - 1] == '\n' : p->fresh_line)
            s.n = n;
    }
    if (s.n)
        push(p, T_DATA, s);
}

/* Past a tag's end; "-%}" takes blanks away, "%}" one line end (not "}}"). */
static void end_tag(struct lexer *p, char mark, bool trims)
{
    skip(p, (mark ? 1 : 0) + (size_t)2);
    p->fresh_line = false;
    if (mark == '-') {
        while (p->at < p->in.n && blank(p->in.p[p->at])) {
            p->fresh_line = p->in.p[p->at] == '\n';
            skip(p, 1);
        }
    } else if (trims && mark != '+' && ahead(p, 0) == '\n') {
        skip(p, 1);
        p->fresh_line = true;
    }
}

static uint32_t hex_of(struct lexer *p, size_t at, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) {
        char c = at + i < p->in.n ? p->in.p[at + i] : 0;
        uint32_t d = digit(c)                             ? (uint32_t)(c - '0')
                     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10)
                                                          : 16;
        if (d == 16)
            fail(p, ERR_INVALID, p->line, "an escape that is not finished", (slice){"", 0});
        v = v * 16 + d;
    }
    return v;
}

/* One escape of Python's unicode-escape; p->at is behind the backslash. Returns bytes put. */
static size_t escape(struct lexer *p, char *out)
{
    static const char FROM[] = "nrtabfv0\\'\"", TO[] = "\n\r\t\a\b\f\v\0\\'\"";
    char c = ahead(p, 0);
    const char *known = c ? strchr(FROM, c) : NULL;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits) {
        uint32_t cp = hex_of(p, p->at + 1, digits);
        skip(p, 1 + digits);
        size_t n = cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000) ? 0 : utf8_encode(cp, out);
        if (n == 0)
            fail(p, ERR_INVALID, p->line, "an escape that is no character", (slice){"", 0});
        return n;
    }
    if (c == '\n') {
        skip(p, 1);
        return 0;
    }
    if (!known) { /* the backslash stays */
        out[0] = '\\';
        return 1;
    }
    out[0] = TO[known - FROM];
    skip(p, 1);
    return 1;
}

static void read_string(struct lexer *p)
{
    char quote = ahead(p, 0);
    size_t end = p->at + 1, n = 0;
    while (end < p->in.n && p->in.p[end] != quote)
        end += p->in.p[end] == '\\' ? 2 : 1;
    if (end >= p->in.n)
        fail(p, ERR_INVALID, p->line, "a text does not end", (slice){"", 0});
    char *out = room(p, end - p->at + 4);
    skip(p, 1);
    while (ahead(p, 0) != quote) {
        char c = ahead(p, 0);
        skip(p, 1);
        if (c == '\\')
            n += escape(p, out + n);
        else
            out[n++] = c;
    }
    skip(p, 1);
    push(p, T_STR, (slice){out, n});
}

static void read_number(struct lexer *p)
{
    size_t from = p->at;
    bool real = false;
    while (digit(ahead(p, 0)) || ahead(p, 0) == '_' ||
           (!real && ahead(p, 0) == '.' && digit(ahead(p, 1)))) {
        real |= ahead(p, 0) == '.';
        skip(p, 1);
    }
    if ((ahead(p, 0) | 32) == 'e' &&
        (digit(ahead(p, 1)) ||
         ((ahead(p, 1) == '-' || ahead(p, 1) == '+') && digit(ahead(p, 2))))) {
        real = true;
        for (skip(p, 2); digit(ahead(p, 0));)
            skip(p, 1);
    }
    push(p, real ? T_FLOAT : T_INT, (slice){p->in.p + from, p->at - from});
}

static void read_operator(struct lexer *p)
{
    static const char *const LONG[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t n = 1;
    for (size_t i = 0; i < ARRAY_LEN(LONG); i++)
        n = looking_at(p, LONG[i]) ? 2 : n;
    if (n == 1 && (!ahead(p, 0) || !strchr("+-*/%~<>=()[]{}.,:|", ahead(p, 0))))
        fail(p, ERR_INVALID, p->line,
             "a character that means nothing here:", (slice){p->in.p + p->at, 1});
    push(p, T_OP, (slice){p->in.p + p->at, n});
    skip(p, n);
}

/* What is inside a tag, up to its end: "}}" or "%}". Braces of dictionaries may stand inside. */
static void read_tag(struct lexer *p, const char *end, enum token_kind kind)
{
    int braces = 0;
    for (;;) {
        while (p->at < p->in.n && blank(ahead(p, 0)))
            skip(p, 1);
        if (p->at >= p->in.n)
            fail(p, ERR_INVALID, p->line, "a tag does not end", (slice){"", 0});
        char c = ahead(p, 0);
        bool marked = (c == '-' || c == '+') && p->in.n - p->at > 2 &&
                      memcmp(p->in.p + p->at + 1, end, 2) == 0;
        if (braces == 0 && (marked || looking_at(p, end))) {
            push(p, kind, (slice){"", 0});
            end_tag(p, marked ? c : 0, kind == T_BLOCK_END);
            return;
        }
        if (letter(c)) {
            size_t from = p->at;
            while (letter(ahead(p, 0)) || digit(ahead(p, 0)))
                skip(p, 1);
            push(p, T_NAME, (slice){p->in.p + from, p->at - from});
        } else if (digit(c))
            read_number(p);
        else if (c == '\'' || c == '"')
            read_string(p);
        else {
            braces += c == '{' ? 1 : c == '}' ? -1 : 0;
            read_operator(p);
        }
    }
}

static void read_comment(struct lexer *p)
{
    while (!looking_at(p, "#}")) {
        if (p->at >= p->in.n)
            fail(p, ERR_INVALID, p->line, "a comment does not end", (slice){"", 0});
        skip(p, 1);
    }
    char before = p->in.p[p->at - 1], mark = before == '-' || before == '+' ? before : 0;
    if (mark) {
        p->at--;
    }
    end_tag(p, mark, true);
}

static void tokenize(struct lexer *p)
{
    p->line = 1;
    p->fresh_line = true;
    while (p->at < p->in.n) {
        size_t from = p->at;
        while (p->at < p->in.n && !looking_at(p, "{{") && !looking_at(p, "{%") &&
               !looking_at(p, "{#"))
            skip(p, 1);
        bool any = p->at < p->in.n, var = any && looking_at(p, "{{"),
             comment = any && looking_at(p, "{#");
        char mark = any ? ahead(p, 2) : 0;
        mark = mark == '-' || mark == '+' ? mark : 0;
        push_data(p, from, p->at, any && !var, mark);
        if (!any)
            break;
        skip(p, mark ? 3 : 2);
        if (comment) {
            read_comment(p);
            continue;
        }
        push(p, var ? T_VAR : T_BLOCK, (slice){"", 0});
        read_tag(p, var ? "}}" : "%}", var ? T_VAR_END : T_BLOCK_END);
    }
    push(p, T_END, (slice){"", 0});
}

/* Line ends are \n; one at the very end is not part of the template. */
static slice own_text(struct lexer *p, slice text)
{
    char *own = room(p, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\r') {
            own[n++] = '\n';
            i += i + 1 < text.n && text.p[i + 1] == '\n';
        } else
            own[n++] = text.p[i];
    }
    return (slice){own, n > 0 && own[n - 1] == '\n' ? n - 1 : n};
}

int jinja_lex(arena *a, slice text, struct token **out, struct why *w)
{
    struct lexer *p = arena_get(a, sizeof *p);
    *out = NULL;
    if (text.n > JINJA_SOURCE_MAX)
        return why_set(w, ERR_TOO_BIG, "tokenizer.chat_template",
                       "the chat template has %zu bytes, at most %u", text.n, JINJA_SOURCE_MAX);
    if (!utf8_valid(text))
        return why_set(w, ERR_INVALID, "tokenizer.chat_template", "the chat template is not UTF-8");
    *p = (struct lexer){.a = a, .w = w};
    if (setjmp(p->failed))
        return p->e;
    p->in = own_text(p, text);
    tokenize(p);
    *out = p->tokens;
    return 0;
}
