#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer-svc/pretok.h"

#include <pcre2.h>
#include <utf8proc.h>

#define WS                                                                                         \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"   \
    "\\x{3000}"
#define SHORT_FORMS "'s|'t|'re|'ve|'m|'ll|'d"
#define OTHERS " ?[^" WS "\\p{L}\\p{N}]+"

#define GPT2 SHORT_FORMS "| ?\\p{L}+| ?\\p{N}+|" OTHERS "|[" WS "]+(?![^" WS "])|[" WS "]+"
/* Single digits are split off first, then each stretch between them is cut as by GPT-2: spaces
 * before a digit stand at the end of their stretch. */
#define SMOLLM "\\p{N}|" SHORT_FORMS "| ?\\p{L}+|" OTHERS "|[" WS "]+(?![^" WS "\\p{N}])|[" WS "]+"
#define AFTER_GPT4(numbers)                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "|" OTHERS "[\\r\\n]*|"  \
    "[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])|[" WS "]+"

/* A match of a well-meant pattern takes far less; the limits are for patterns that come from model
 * files. */
#define MATCH_LIMIT 10000000u
#define HEAP_LIMIT_KIB (64u << 10)
#define JIT_STACK_FIRST (32u << 10)
#define JIT_STACK_MAX (1u << 20)

/* With marks beside letters. */
#define QWEN35                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS            \
    "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])|[" WS "]+"

/* One pattern for several names: each family that was converted got one of its own. */
static const struct kind {
    const char *names; /* separated by spaces */
    const char *pattern;
    bool nfc, whole_words;
} KINDS[] = {
    {"smollm starcoder refact command-r codeshell exaone", SMOLLM, false, false},
    {"gpt-2 gpt2 default phi-2 mpt olmo exaone4 trillion", GPT2, false, false},
    {"llama-bpe llama3 llama-v3 falcon3 pixtral midm-2.0 lfm2", AFTER_GPT4("\\p{N}{1,3}"), false,
     true},
    {"dbrx smaug-bpe chatglm-bpe glm4", AFTER_GPT4("\\p{N}{1,3}"), false, false},
    {"qwen2 deepseek-r1-qwen kormo megrez", AFTER_GPT4("\\p{N}"), true, false},
    {"qwen35", QWEN35, false, false},
};

struct pretok {
    enum vocab_normal normal;
    bool whole_words;
    pcre2_code *code;
    bool jit;
};

struct pretok_match {
    const pretok *p;
    pcre2_match_data *data;
    pcre2_match_context *ctx;
    pcre2_jit_stack *stack;
};

static pretok *compile(const char *pattern, size_t len, int *err, size_t *at)
{
    pretok *p = xcalloc(1, sizeof *p);
    PCRE2_SIZE where = 0;
    /* Anchored here, not at match time: there it would switch the JIT off without a word. */
    p->code = pcre2_compile((PCRE2_SPTR)pattern, len, PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, err,
                            &where, NULL);
    *at = where;
    if (!p->code) {
        free(p);
        return NULL;
    }
    p->jit =
        pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0; /* without: slower, the same words */
    return p;
}

static bool has_name(const char *names, slice name)
{
    slice rest = slice_str(names), one;
    while (slice_split(&rest, ' ', &one))
        if (slice_eq(one, name))
            return true;
    return false;
}

int pretok_new(slice name, enum vocab_normal normal, pretok **out, struct why *w)
{
    *out = NULL;
    if (name.n == 0)
        name = SLICE_LIT("gpt-2");
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        int err;
        size_t at;
        if (!has_name(KINDS[i].names, name))
            continue;
        *out = compile(KINDS[i].pattern, strlen(KINDS[i].pattern), &err, &at);
        if (!*out)
            return why_set(w, ERR_INTERNAL, "tokenizer.ggml.pre",
                           "pattern of '%s' does not compile at %zu (error %d)", KINDS[i].names, at,
                           err);
        (*out)->normal = normal ? normal : KINDS[i].nfc ? NORMAL_C : NORMAL_NONE;
        (*out)->whole_words = KINDS[i].whole_words;
        return 0;
    }
    return why_set(w, ERR_UNSUPPORTED, "tokenizer.ggml.pre",
                   "the model wants pre-tokenizer '%.*s', which is not known here",
                   (int)(name.n < 60 ? name.n : 60), name.p);
}

/* The pattern with \s and \S as Unicode's White_Space; ERR_UNSUPPORTED where that cannot be said.
 */
static int put_pattern(slice from, buf *out)
{
    bool in_class = false;
    for (size_t i = 0; i < from.n; i++) {
        char c = from.p[i], next = i + 1 < from.n ? from.p[i + 1] : 0;
        if (c != '\\') {
            if (c == '[' && in_class)
                return ERR_UNSUPPORTED;
            in_class = c == '[' || (in_class && c != ']');
            buf_put_byte(out, (unsigned char)c);
            continue;
        }
        i++;
        if (next == 's')
            buf_put_str(out, in_class ? WS : "[" WS "]");
        else if (next == 'S' && !in_class)
            buf_put_str(out, "[^" WS "]");
        else if (next == 'S')
            return ERR_UNSUPPORTED;
        else
            buf_put(out, from.p + i - 1, next ? 2 : 1);
    }
    return 0;
}

int pretok_new_split(slice pattern, enum vocab_normal normal, pretok **out, struct why *w)
{
    static const char FIELD[] = "nunchi.tokenizer.split";
    buf own = {0};
    int e = put_pattern(pattern, &own), err = 0;
    size_t at = 0;
    *out = e < 0 ? NULL : compile(own.p ? own.p : "", own.n, &err, &at);
    buf_clear(&own);
    if (e < 0)
        return why_set(w, e, FIELD, "the pattern that cuts words has classes that are not known");
    if (!*out)
        return why_set(w, ERR_INVALID, FIELD, "the pattern that cuts words is wrong at %zu (%d)",
                       at, err);
    (*out)->normal = normal;
    return 0;
}

void pretok_free(pretok *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

bool pretok_whole_words(const pretok *p)
{
    return p->whole_words;
}

pretok_match *pretok_match_new(const pretok *p)
{
    pretok_match *m = xcalloc(1, sizeof *m);
    m->p = p;
    m->data = pcre2_match_data_create(1, NULL);
    m->ctx = pcre2_match_context_create(NULL);
    CHECK(m->data && m->ctx);
    pcre2_set_match_limit(m->ctx, MATCH_LIMIT);
    pcre2_set_heap_limit(m->ctx, HEAP_LIMIT_KIB);
    if (p->jit && (m->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL)))
        pcre2_jit_stack_assign(m->ctx, NULL, m->stack);
    return m;
}

void pretok_match_free(pretok_match *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->ctx);
    pcre2_jit_stack_free(m->stack);
    free(m);
}

/* 1 and *end: the pattern matches at `at`; 0: it does not. */
static int match_at(pretok_match *m, slice text, size_t at, size_t *end, struct why *w)
{
    PCRE2_SPTR s = (PCRE2_SPTR)text.p;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (m->p->jit)
        rc = pcre2_jit_match(m->p->code, s, text.n, at, 0, m->data, m->ctx);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(m->p->code, s, text.n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data,
                         m->ctx);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return why_set(w, ERR_INVALID, "", "the text cannot be cut into words (error %d)", rc);
    PCRE2_SIZE *span = pcre2_get_ovector_pointer(m->data);
    *end = rc > 0 ? span[1] : at;
    return *end > at;
}

int pretok_word(pretok_match *m, slice text, size_t at, size_t *len, struct why *w)
{
    size_t end = at, to = at;
    int e = match_at(m, text, at, &end, w);
    *len = end - at;
    while (e == 0 && to < text.n) { /* what a pattern leaves out is a word up to the next match */
        uint32_t cp;
        size_t n = utf8_decode(text.p + to, text.n - to, &cp);
        if (n == 0)
            return why_set(w, ERR_INVALID, "", "the text is not UTF-8");
        to += n;
        *len = to - at;
        e = to < text.n ? match_at(m, text, to, &end, w) : 0;
    }
    return e < 0 ? e : 0;
}

/* Characters that are in the form wherever they stand among themselves: each may be in it
 * (NFC_Quick_Check=Yes) and none combines; for other forms than C those alone that no form changes,
 * and of Hangul what does not fall apart. */
static bool surely_normal(enum vocab_normal form, utf8proc_int32_t cp)
{
    static const struct {
        utf8proc_int32_t from, to;
        unsigned forms; /* bits */
    } RANGES[] = {{0xac00, 0xd7a3, 1 << NORMAL_C | 1 << NORMAL_KC},
                  {0x4e00, 0x9fff, 1 << NORMAL_C | 1 << NORMAL_KC | 1 << NORMAL_D | 1 << NORMAL_KD},
                  {0, 0x2ff, 1 << NORMAL_C},
                  {0x3041, 0x3096, 1 << NORMAL_C | 1 << NORMAL_KC},
                  {0x30a1, 0x30fa, 1 << NORMAL_C | 1 << NORMAL_KC},
                  {0x400, 0x482, 1 << NORMAL_C | 1 << NORMAL_KC},
                  {0x3000, 0x3029, 1 << NORMAL_C},
                  {0x2010, 0x2027, 1 << NORMAL_C},
                  {0x2030, 0x205e, 1 << NORMAL_C},
                  {0xff01, 0xff60, 1 << NORMAL_C}};
    for (size_t i = 0; i < ARRAY_LEN(RANGES); i++)
        if (cp >= RANGES[i].from && cp <= RANGES[i].to)
            return RANGES[i].forms >> form & 1;
    return false;
}

/* 0: all of it is in normal form surely. 1: look closer. */
static int marks_fit(enum vocab_normal form, slice text, struct why *w)
{
    int beyond = 0;
    size_t pile = 0;
    for (size_t i = 0, n; i < text.n; i += n) {
        utf8proc_int32_t cp;
        if ((unsigned char)text.p[i] < 0x80) {
            n = 1;
            pile = 0;
            continue;
        }
        utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text.p + i,
                                                (utf8proc_ssize_t)(text.n - i), &cp);
        if (got <= 0)
            return why_set(w, ERR_INVALID, "", "the text is not UTF-8");
        n = (size_t)got;
        if (surely_normal(form, cp)) {
            pile = 0;
            continue;
        }
        beyond = 1;
        pile = utf8proc_get_property(cp)->combining_class ? pile + 1 : 0;
        if (pile > PRETOK_MARKS_MAX)
            return why_set(w, ERR_INVALID, "", "more than %d combining marks in a row",
                           PRETOK_MARKS_MAX);
    }
    return beyond;
}

int pretok_normal(const pretok *p, slice text, buf *keep, slice *out, struct why *w)
{
    static const int OPTIONS[] = {
        [NORMAL_C] = UTF8PROC_COMPOSE,
        [NORMAL_D] = UTF8PROC_DECOMPOSE,
        [NORMAL_KC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORMAL_KD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    *out = text;
    if (p->normal == NORMAL_NONE)
        return 0;
    int e = marks_fit(p->normal, text, w);
    if (e <= 0)
        return e;
    utf8proc_uint8_t *done = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text.p, (utf8proc_ssize_t)text.n, &done,
                     (utf8proc_option_t)(UTF8PROC_STABLE | OPTIONS[p->normal]));
    if (n < 0)
        return why_set(w, n == UTF8PROC_ERROR_NOMEM ? ERR_NOMEM : ERR_INVALID, "",
                       "the text cannot be normalised");
    buf_reset(keep);
    e = buf_try_reserve(keep, (size_t)n);
    if (e == 0)
        buf_put(keep, done, (size_t)n);
    free(done);
    *out = buf_slice(keep);
    return e;
}
