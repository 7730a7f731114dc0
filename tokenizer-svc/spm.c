#include "tokenizer-svc/spm.h"

#include "tokenizer-svc/cache.h"
#include "tokenizer-svc/merges.h"

#define PIECE_BYTES_MAX 4096
#define SPACE "\xe2\x96\x81" /* U+2581 */
#define SPACE_CP 0x2581

struct spm {
    const vocab *v;
    merges *m;
    int32_t space, unknown;
    int32_t of_byte[256];
    bool glued[256]; /* some piece has U+2581 right after a character that ends in this byte */
    int32_t of_char[65536];
};

struct spm_scratch {
    struct merge_scratch merge;
    struct word_cache cache;
    struct ids sym;
};

/* A pair that merges, before the pairs have their ranks. */
struct pair {
    int32_t left, right, merged;
    uint32_t left_chars;
    float score;
    bool declared; /* a run of spaces: declared by the user of the trainer, not scored */
};

struct pairs {
    struct pair *at;
    size_t n, cap;
};

static bool only_spaces(slice p)
{
    for (size_t i = 0; i < p.n;) {
        if (p.p[i] == ' ')
            i++;
        else if (p.n - i >= 3 && memcmp(p.p + i, SPACE, 3) == 0)
            i += 3;
        else
            return false;
    }
    return p.n > 0;
}

bool spm_is_literal(const vocab *v, int32_t id)
{
    return vocab_token_kind(v, id) == TOKEN_USER && !only_spaces(vocab_piece(v, id));
}

static bool merges_into(const vocab *v, int32_t id)
{
    enum token_kind k = vocab_token_kind(v, id);
    return k == TOKEN_NORMAL || (k == TOKEN_USER && only_spaces(vocab_piece(v, id)));
}

/* Pieces that are runs of spaces stand in some files with real spaces. `normal` has U+2581 only. */
static int32_t find_piece(const vocab *v, slice normal)
{
    int32_t id = vocab_find(v, normal);
    if (id == TOKEN_NONE && normal.n >= 6 && only_spaces(normal) && normal.n / 3 <= 256) {
        char spaces[256];
        memset(spaces, ' ', normal.n / 3);
        id = vocab_find(v, (slice){spaces, normal.n / 3});
    }
    return id != TOKEN_NONE && merges_into(v, id) ? id : TOKEN_NONE;
}

static int put_pair(struct pairs *l, struct pair p)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4096, bytes;
        if (size_mul(cap, sizeof *l->at, &bytes) < 0)
            return ERR_NOMEM;
        struct pair *at = realloc(l->at, bytes);
        if (!at)
            return ERR_NOMEM;
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] = p;
    return 0;
}

static void as_normal(slice piece, buf *out)
{
    buf_reset(out);
    for (size_t i = 0; i < piece.n; i++) {
        if (piece.p[i] == ' ')
            buf_put(out, SPACE, 3);
        else
            buf_put_byte(out, (unsigned char)piece.p[i]);
    }
}

static int take_splits(spm *m, int32_t id, buf *normal, struct pairs *out)
{
    if (!merges_into(m->v, id) || vocab_piece(m->v, id).n > PIECE_BYTES_MAX)
        return 0;
    as_normal(vocab_piece(m->v, id), normal);
    slice p = buf_slice(normal);
    bool declared = vocab_token_kind(m->v, id) == TOKEN_USER;
    uint32_t chars = 0;
    for (size_t i = 1; i < p.n; i++) {
        if (((unsigned char)p.p[i] & 0xc0) == 0x80)
            continue;
        chars++;
        bool space_here = p.n - i >= 3 && memcmp(p.p + i, SPACE, 3) == 0;
        if (space_here && !(i >= 3 && memcmp(p.p + i - 3, SPACE, 3) == 0))
            m->glued[(unsigned char)p.p[i - 1]] = true;
        int32_t l = find_piece(m->v, (slice){p.p, i});
        int32_t r = l == TOKEN_NONE ? TOKEN_NONE : find_piece(m->v, (slice){p.p + i, p.n - i});
        if (r != TOKEN_NONE &&
            put_pair(out, (struct pair){l, r, id, chars, vocab_score(m->v, id), declared}) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

/* Runs of spaces first, then by score; of one piece's splits the one with the longer left side.
 * This is the order in which the Hugging Face converters list the merges of such a vocabulary. */
static int by_order_of_merging(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->declared != y->declared)
        return x->declared ? -1 : 1;
    if (!x->declared && x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->merged != y->merged)
        return x->merged < y->merged ? -1 : 1;
    return x->left_chars > y->left_chars ? -1 : x->left_chars < y->left_chars;
}

static int find_merges(spm *m)
{
    struct pairs pairs = {0};
    buf normal = {0};
    int e = 0;
    for (int32_t id = 0; e == 0 && id < vocab_size(m->v); id++)
        e = take_splits(m, id, &normal, &pairs);
    if (pairs.n >= MERGE_NONE)
        e = ERR_NOMEM;
    if (e == 0 && pairs.n > 0)
        qsort(pairs.at, pairs.n, sizeof *pairs.at, by_order_of_merging);
    for (size_t i = 0; e == 0 && i < pairs.n; i++)
        e = merges_add(m->m, pairs.at[i].left, pairs.at[i].right, (uint32_t)i, pairs.at[i].merged);
    free(pairs.at);
    buf_clear(&normal);
    return e;
}

static int32_t char_id(const vocab *v, uint32_t cp)
{
    char text[4];
    size_t n = utf8_encode(cp, text);
    int32_t id = n ? vocab_find(v, (slice){text, n}) : TOKEN_NONE;
    return id != TOKEN_NONE && (merges_into(v, id) || vocab_token_kind(v, id) == TOKEN_USER)
               ? id
               : TOKEN_NONE;
}

static void find_symbols(spm *m)
{
    for (uint32_t cp = 0; cp < ARRAY_LEN(m->of_char); cp++)
        m->of_char[cp] = char_id(m->v, cp);
    m->space = m->of_char[SPACE_CP];
    m->of_char[' '] = m->space;
    for (int b = 0; b < 256; b++)
        m->of_byte[b] = vocab_byte_token(m->v, (unsigned char)b);
    m->unknown = TOKEN_NONE;
    for (int32_t id = 0; id < vocab_size(m->v) && m->unknown == TOKEN_NONE; id++)
        if (vocab_token_kind(m->v, id) == TOKEN_UNKNOWN ||
            slice_eq_str(vocab_piece(m->v, id), "<unk>"))
            m->unknown = id;
}

int spm_new(const vocab *v, spm **out, struct why *w)
{
    spm *m = xcalloc(1, sizeof *m);
    m->v = v;
    m->m = merges_new();
    find_symbols(m);
    *out = NULL;
    int e = find_merges(m);
    if (e < 0)
        why_set(w, e, "", "no memory for the vocabulary's merges");
    else if (merges_len(m->m) == 0)
        e = why_set(w, ERR_INVALID, "tokenizer.ggml.tokens",
                    "no two pieces of the vocabulary join into a third");
    if (e < 0) {
        spm_free(m);
        return e;
    }
    *out = m;
    return 0;
}

void spm_free(spm *m)
{
    if (!m)
        return;
    merges_free(m->m);
    free(m);
}

spm_scratch *spm_scratch_new(const spm *m)
{
    (void)m;
    spm_scratch *s = xcalloc(1, sizeof *s);
    word_cache_init(&s->cache);
    return s;
}

void spm_scratch_free(spm_scratch *s)
{
    if (!s)
        return;
    merge_scratch_clear(&s->merge);
    word_cache_clear(&s->cache);
    ids_clear(&s->sym);
    free(s);
}

/* The symbols of one character; its bytes where the vocabulary has no such piece. */
static void put_char(const spm *m, struct ids *sym, const char *p, size_t n, uint32_t cp)
{
    int32_t id = cp < ARRAY_LEN(m->of_char) ? m->of_char[cp] : char_id(m->v, cp);
    if (id != TOKEN_NONE) {
        sym->p[sym->n++] = id;
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (m->of_byte[(unsigned char)p[i]] == TOKEN_NONE) {
            if (m->unknown != TOKEN_NONE && (sym->n == 0 || sym->p[sym->n - 1] != m->unknown))
                sym->p[sym->n++] = m->unknown; /* a run of them is one */
            return;
        }
    for (size_t i = 0; i < n; i++)
        sym->p[sym->n++] = m->of_byte[(unsigned char)p[i]];
}

/* Length of the space at text[i], 0 if there is none. */
static size_t space_len(slice text, size_t i)
{
    if (i >= text.n)
        return 0;
    if (text.p[i] == ' ')
        return 1;
    return text.n - i >= 3 && memcmp(text.p + i, SPACE, 3) == 0 ? 3 : 0;
}

/* End of the stretch that starts at `at`: a run of spaces and what follows, up to the next run that
 * no piece joins with the character before it. Merging stretch by stretch gives the same tokens,
 * and stretches can be remembered. */
static size_t stretch_end(const spm *m, slice text, size_t at)
{
    size_t i = at;
    for (size_t n; (n = space_len(text, i)) > 0;)
        i += n;
    while (i < text.n) {
        size_t n = space_len(text, i);
        if (n == 0)
            i++;
        else if (!m->glued[(unsigned char)text.p[i - 1]])
            return i;
        for (; n > 0; n = space_len(text, i))
            i += n;
    }
    return text.n;
}

static int merge_stretch(const spm *m, spm_scratch *s, slice text)
{
    if (ids_reserve(&s->sym, text.n) < 0)
        return ERR_NOMEM;
    for (size_t i = 0, n; i < text.n; i += n) {
        uint32_t cp;
        n = utf8_decode(text.p + i, text.n - i, &cp);
        if (n == 0)
            return ERR_INVALID;
        put_char(m, &s->sym, text.p + i, n, cp);
    }
    return merges_apply(m->m, &s->merge, s->sym.p, &s->sym.n);
}

static int put_stretch(const spm *m, spm_scratch *s, slice text, bool space_first, struct ids *out)
{
    struct word *w = space_first ? NULL : word_cache_slot(&s->cache, text);
    if (w && word_is(w, text))
        return ids_put_all(out, w->ids, w->n);
    s->sym.n = 0;
    if (space_first && m->space != TOKEN_NONE && ids_put(&s->sym, m->space) < 0)
        return ERR_NOMEM;
    int e = merge_stretch(m, s, text);
    if (e < 0)
        return e;
    if (w)
        word_set(w, text, s->sym.p, s->sym.n);
    return ids_put_all(out, s->sym.p, s->sym.n);
}

int spm_encode(const spm *m, spm_scratch *s, slice text, bool space_first, struct ids *out,
               struct why *w)
{
    for (size_t at = 0, end; at < text.n; at = end) {
        end = stretch_end(m, text, at);
        int e = put_stretch(m, s, (slice){text.p + at, end - at}, space_first && at == 0, out);
        if (e < 0)
            return why_set(w, e, "",
                           e == ERR_NOMEM ? "no memory to tokenize a text of %zu bytes"
                                          : "a text of %zu bytes is not UTF-8",
                           text.n);
    }
    return 0;
}
