#include "common/json/json_impl.h"

struct scan {
    slice text;
    size_t i;     /* of the character being looked at */
    size_t depth; /* containers open */
    size_t n_nodes;
    char before; /* the last character that is neither white space nor inside a string */
};

static int too_big(const struct scan *s, struct why *w, const char *what, size_t max)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < s->i; i++) {
        unsigned char c = (unsigned char)s->text.p[i];
        if (c == '\n') {
            line++;
            column = 1;
        } else if ((c & 0xC0) != 0x80) {
            column++;
        }
    }
    return why_set(w, ERR_TOO_BIG, "", "line %zu, column %zu: %s, at most %zu allowed", line,
                   column, what, max);
}

/* s->i stands on the opening quote and ends on the closing one, or at the end of the text. */
static void skip_string(struct scan *s)
{
    for (s->i++; s->i < s->text.n && s->text.p[s->i] != '"'; s->i++)
        if (s->text.p[s->i] == '\\')
            s->i++;
}

/* Every container but an empty one has one value more than commas. */
static void count(struct scan *s, char c)
{
    bool opens = c == '[' || c == '{', closes = c == ']' || c == '}';
    bool after_open = s->before == '[' || s->before == '{';
    if (c == ',' || (after_open && !closes))
        s->n_nodes++;
    if (opens)
        s->depth++;
    else if (closes && s->depth)
        s->depth--;
    s->before = c;
}

int json_scan(slice text, const struct json_limits *lim, size_t *n_nodes, struct why *w)
{
    struct scan s = {.text = text, .n_nodes = 1};
    for (; s.i < text.n; s.i++) {
        char c = text.p[s.i];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            continue;
        count(&s, c);
        if (s.depth > lim->max_depth)
            return too_big(&s, w, "nested too deeply", lim->max_depth);
        if (s.n_nodes > lim->max_nodes)
            return too_big(&s, w, "too many values", lim->max_nodes);
        if (c == '"')
            skip_string(&s);
    }
    *n_nodes = s.n_nodes;
    return 0;
}
