#include "tokenizer-svc/bpe.h"

#include "tokenizer-svc/cache.h"
#include "tokenizer-svc/merges.h"
#include "tokenizer-svc/pretok.h"

/* Longest stored piece that is looked at for merges: each byte of it is a place to split. */
#define PIECE_BYTES_MAX 4096

struct bpe {
    const vocab *v;
    pretok *pre;
    merges *m;
    int32_t of_byte[256];
    bool whole_words;
};

struct bpe_scratch {
    pretok_match *match;
    struct merge_scratch merge;
    struct word_cache cache;
    struct ids sym;
    buf normal, prefixed, stored;
};

/* The alphabet in which byte-level vocabularies write bytes: printable Latin-1 stands for itself,
 * the others follow from U+0100 upwards in order. */
static void byte_alphabet(uint32_t cp[256])
{
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        cp[b] = itself ? b : next++;
    }
}

static int find_bytes(bpe *b, struct why *w)
{
    uint32_t cp[256];
    int found = 0;
    byte_alphabet(cp);
    for (int i = 0; i < 256; i++) {
        char text[4];
        size_t n = utf8_encode(cp[i], text);
        b->of_byte[i] = vocab_find(b->v, (slice){text, n});
        found += b->of_byte[i] != TOKEN_NONE;
    }
    return found > 0 ? 0
                     : why_set(w, ERR_INVALID, "tokenizer.ggml.tokens",
                               "the vocabulary has no token for any byte");
}

static bool is_text(const vocab *v, int32_t id)
{
    enum token_kind k = vocab_token_kind(v, id);
    return k != TOKEN_CONTROL &&
           k != TOKEN_UNKNOWN; /* text never merges into a token that steers the model */
}

/* Every split of every piece is asked for its rank: our own table is one probe per pair, and the
 * same for both kinds of vocabulary. */
static int take_splits(bpe *b, int32_t id)
{
    slice p = vocab_piece(b->v, id);
    if (p.n > PIECE_BYTES_MAX || !is_text(b->v, id))
        return 0;
    for (size_t i = 1; i < p.n; i++) {
        if (((unsigned char)p.p[i] & 0xc0) == 0x80)
            continue;
        int32_t l = vocab_find(b->v, (slice){p.p, i}), merged;
        if (l == TOKEN_NONE)
            continue;
        int32_t r = vocab_find(b->v, (slice){p.p + i, p.n - i});
        if (r == TOKEN_NONE)
            continue;
        int32_t rank = vocab_merge_rank(b->v, l, r, &merged);
        if (rank >= 0 && merged == id && merges_add(b->m, l, r, (uint32_t)rank, merged) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

int bpe_new(const vocab *v, bpe **out, struct why *w)
{
    bpe *b = xcalloc(1, sizeof *b);
    b->v = v;
    b->m = merges_new();
    *out = NULL;
    enum vocab_normal normal;
    slice split = vocab_split(v, &normal);
    int e = split.n ? pretok_new_split(split, normal, &b->pre, w)
                    : pretok_new(vocab_pretokenizer(v), normal, &b->pre, w);
    b->whole_words = vocab_whole_words(v) || (e == 0 && pretok_whole_words(b->pre));
    if (e == 0)
        e = find_bytes(b, w);
    for (int32_t id = 0; e == 0 && id < vocab_size(v); id++)
        e = take_splits(b, id);
    if (e < 0) {
        bpe_free(b);
        return e;
    }
    *out = b;
    return 0;
}

void bpe_free(bpe *b)
{
    if (!b)
        return;
    pretok_free(b->pre);
    merges_free(b->m);
    free(b);
}

bpe_scratch *bpe_scratch_new(const bpe *b)
{
    bpe_scratch *s = xcalloc(1, sizeof *s);
    s->match = pretok_match_new(b->pre);
    word_cache_init(&s->cache);
    return s;
}

void bpe_scratch_free(bpe_scratch *s)
{
    if (!s)
        return;
    pretok_match_free(s->match);
    merge_scratch_clear(&s->merge);
    word_cache_clear(&s->cache);
    ids_clear(&s->sym);
    buf_clear(&s->normal);
    buf_clear(&s->prefixed);
    buf_clear(&s->stored);
    free(s);
}

/* The word as the vocabulary writes it, looked up whole. */
static int32_t whole_word(const bpe *b, bpe_scratch *s, slice word)
{
    uint32_t cp[256];
    byte_alphabet(cp);
    buf_reset(&s->stored);
    for (size_t i = 0; i < word.n; i++) {
        char text[4];
        buf_put(&s->stored, text, utf8_encode(cp[(unsigned char)word.p[i]], text));
    }
    int32_t id = vocab_find(b->v, buf_slice(&s->stored));
    return id != TOKEN_NONE && is_text(b->v, id) ? id : TOKEN_NONE;
}

static int merge_word(const bpe *b, bpe_scratch *s, slice word)
{
    s->sym.n = 0;
    if (b->whole_words && word.n <= PIECE_BYTES_MAX) {
        int32_t id = whole_word(b, s, word);
        if (id != TOKEN_NONE)
            return ids_put(&s->sym, id);
    }
    if (ids_reserve(&s->sym, word.n) < 0)
        return ERR_NOMEM;
    for (size_t i = 0; i < word.n; i++) {
        int32_t id = b->of_byte[(unsigned char)word.p[i]];
        if (id != TOKEN_NONE)
            s->sym.p[s->sym.n++] = id;
    }
    return merges_apply(b->m, &s->merge, s->sym.p, &s->sym.n);
}

static int put_word(const bpe *b, bpe_scratch *s, slice word, struct ids *out)
{
    struct word *w = word_cache_slot(&s->cache, word);
    if (w && word_is(w, word))
        return ids_put_all(out, w->ids, w->n);
    if (merge_word(b, s, word) < 0)
        return ERR_NOMEM;
    if (w)
        word_set(w, word, s->sym.p, s->sym.n);
    return ids_put_all(out, s->sym.p, s->sym.n);
}

/* The text with a space before it, if the vocabulary wants one and it has none. */
static slice prefixed(const bpe *b, bpe_scratch *s, slice text)
{
    if (!vocab_add_space_prefix(b->v) || text.n == 0 || text.p[0] == ' ')
        return text;
    buf_reset(&s->prefixed);
    buf_put_byte(&s->prefixed, ' ');
    buf_put_slice(&s->prefixed, text);
    return buf_slice(&s->prefixed);
}

int bpe_encode(const bpe *b, bpe_scratch *s, slice text, struct ids *out, struct why *w)
{
    int e = pretok_normal(b->pre, text, &s->normal, &text, w);
    if (e == 0)
        text = prefixed(b, s, text);
    for (size_t at = 0, len; e == 0 && at < text.n; at += len) {
        e = pretok_word(s->match, text, at, &len, w);
        if (e == 0 && put_word(b, s, (slice){text.p + at, len}, out) < 0)
            e = why_set(w, ERR_NOMEM, "", "no memory to tokenize a text of %zu bytes", text.n);
    }
    return e;
}
