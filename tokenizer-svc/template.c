#include "tokenizer-svc/template.h"

static bool at(slice s, size_t i, const char *what)
{
    size_t n = strlen(what);
    return s.n >= i && s.n - i >= n && memcmp(s.p + i, what, n) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* White space between two tags that leaves nothing in the output: a mark trims it, or it is a line
 * end after a block (and the indent of the next), which the reference's settings trim. */
static bool vanishes(slice s, size_t from, size_t to)
{
    bool after_block = from >= 2 && memcmp(s.p + from - 2, "%}", 2) == 0;
    bool trimmed = (from >= 3 && s.p[from - 3] == '-') || at(s, to, "{%-") || at(s, to, "{{-");
    if (trimmed)
        return true;
    if (from == to || !after_block || s.p[from] != '\n')
        return false;
    return to - from == 1 ||
           (at(s, to, "{%") && memchr(s.p + from + 1, '\n', to - from - 1) == NULL);
}

/* A string of the template with its quotes made single and its line ends written \n; returns where
 * it ends. */
static size_t put_quoted(slice s, size_t i, buf *out)
{
    char quote = s.p[i++];
    buf_put_byte(out, '\'');
    for (; i < s.n && s.p[i] != quote; i++) {
        if (s.p[i] == '\n')
            buf_put_str(out, "\\n");
        else
            buf_put_byte(out, (unsigned char)s.p[i]);
        if (s.p[i] == '\\' && i + 1 < s.n)
            buf_put_byte(out, (unsigned char)s.p[++i]);
    }
    buf_put_byte(out, '\'');
    return i < s.n ? i + 1 : i;
}

/* The template without what makes no difference. */
static void put_plain(slice s, buf *out)
{
    bool inside = false;
    for (size_t i = 0; i < s.n;) {
        size_t to = i;
        while (to < s.n && is_space(s.p[to]))
            to++;
        if (to > i) {
            if (!inside && !vanishes(s, i, to))
                buf_put(out, s.p + i, to - i);
            i = to;
        } else if (inside && (s.p[i] == '\'' || s.p[i] == '"')) {
            i = put_quoted(s, i, out);
        } else if (!inside && (at(s, i, "{{") || at(s, i, "{%"))) {
            buf_put(out, s.p + i, 2);
            i += s.n - i > 2 && s.p[i + 2] == '-' ? 3 : 2;
            inside = true;
        } else if (inside &&
                   (at(s, i, "}}") || at(s, i, "%}") || at(s, i, "-}}") || at(s, i, "-%}"))) {
            i += s.p[i] == '-';
            buf_put(out, s.p + i, 2);
            i += 2;
            inside = false;
        } else {
            buf_put_byte(out, (unsigned char)s.p[i++]);
        }
    }
}

/* A pattern eats its literal from the front of *s. */
static bool eat(slice *s, const char *what)
{
    if (!at(*s, 0, what))
        return false;
    *s = (slice){s->p + strlen(what), s->n - strlen(what)};
    return true;
}

/* The text of a template's string up to `end`, with \n read as line end. Other escapes: not
 * understood. */
static bool eat_text(slice *s, const char *end, buf *out)
{
    buf_reset(out);
    while (s->n > 0 && !eat(s, end)) {
        if (s->p[0] == '\'')
            return false;
        if (eat(s, "\\n")) {
            buf_put_byte(out, '\n');
            continue;
        }
        if (s->p[0] == '\\')
            return false;
        buf_put_byte(out, (unsigned char)s->p[0]);
        *s = (slice){s->p + 1, s->n - 1};
    }
    return true;
}

static bool match_chatml(slice s, buf *default_system)
{
    buf_reset(default_system);
    if (!eat(&s, "{%formessageinmessages%}"))
        return false;
    if (eat(&s, "{%ifloop.firstandmessages[0]['role']!='system'%}{{'<|im_start|>system\\n") &&
        !(eat_text(&s, "<|im_end|>\\n'}}{%endif%}", default_system)))
        return false;
    return (eat(&s,
                "{{'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>'+'\\n'}}") ||
            eat(&s,
                "{{'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>\\n'}}")) &&
           eat(&s, "{%endfor%}") &&
           eat(&s, "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\\n'}}{%endif%}") &&
           s.n == 0;
}

bool template_is_chatml(slice text, buf *default_system)
{
    buf plain = {0};
    put_plain(text, &plain);
    bool yes = match_chatml(buf_slice(&plain), default_system);
    buf_clear(&plain);
    if (!yes)
        buf_reset(default_system);
    return yes;
}

bool template_is_gemma(slice text, bool *no_system)
{
    buf plain = {0};
    put_plain(text, &plain);
    buf_put_byte(&plain, 0);
    bool yes = strstr(plain.p, "'<start_of_turn>'+role+'\\n'") &&
               strstr(plain.p, "'<end_of_turn>\\n'") &&
               strstr(plain.p, "{{'<start_of_turn>model\\n'}}") &&
               strstr(plain.p, "['content']|trim") && !strstr(plain.p, "tool");
    *no_system = yes && strstr(plain.p, "first_user_prefix") == NULL;
    buf_clear(&plain);
    return yes;
}
