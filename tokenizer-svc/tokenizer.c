#include "tokenizer-svc/tokenizer.h"

#include "tokenizer-svc/bpe.h"
#include "tokenizer-svc/literals.h"
#include "tokenizer-svc/spm.h"

struct tokenizer {
    const vocab *v;
    bpe *b; /* one of the two */
    spm *s;
    literals *whole;
    size_t piece_max;
};

struct tok_scratch {
    bpe_scratch *b;
    spm_scratch *s;
};

static void find_literals(tokenizer *t)
{
    t->whole = literals_new();
    for (int32_t id = 0; id < vocab_size(t->v); id++) {
        slice text = vocab_bytes(t->v, id);
        if (text.n > t->piece_max)
            t->piece_max = text.n;
        bool whole = t->s ? spm_is_literal(t->v, id) : vocab_token_kind(t->v, id) == TOKEN_USER;
        if (whole && utf8_valid(text))
            literals_add(t->whole, text, id);
    }
    literals_ready(t->whole);
}

int tokenizer_new(const vocab *v, tokenizer **out, struct why *w)
{
    tokenizer *t = xcalloc(1, sizeof *t);
    t->v = v;
    t->piece_max = 4; /* a character can become one unknown token */
    *out = NULL;
    int e = vocab_model(v) == VOCAB_BPE ? bpe_new(v, &t->b, w) : spm_new(v, &t->s, w);
    if (e < 0) {
        tokenizer_free(t);
        return e;
    }
    find_literals(t);
    *out = t;
    return 0;
}

void tokenizer_free(tokenizer *t)
{
    if (!t)
        return;
    bpe_free(t->b);
    spm_free(t->s);
    literals_free(t->whole);
    free(t);
}

const vocab *tokenizer_vocab(const tokenizer *t)
{
    return t->v;
}

size_t tokenizer_piece_max(const tokenizer *t)
{
    return t->piece_max;
}

tok_scratch *tok_scratch_new(const tokenizer *t)
{
    tok_scratch *s = xcalloc(1, sizeof *s);
    s->b = t->b ? bpe_scratch_new(t->b) : NULL;
    s->s = t->s ? spm_scratch_new(t->s) : NULL;
    return s;
}

void tok_scratch_free(tok_scratch *s)
{
    if (!s)
        return;
    bpe_scratch_free(s->b);
    spm_scratch_free(s->s);
    free(s);
}

/* Is a space put before this text? */
static bool prefixed(const vocab *v, slice text)
{
    bool own = text.p[0] == ' ' || (text.n >= 3 && memcmp(text.p, "\xe2\x96\x81", 3) == 0);
    return vocab_add_space_prefix(v) && !(own && vocab_prefix_missing(v));
}

static int encode_between(const tokenizer *t, tok_scratch *s, slice text, bool starts,
                          struct ids *out, struct why *w)
{
    if (text.n == 0)
        return 0;
    if (t->b)
        return bpe_encode(t->b, s->b, text, out, w);
    return spm_encode(t->s, s->s, text, starts && prefixed(t->v, text), out, w);
}

int tokenizer_encode(const tokenizer *t, tok_scratch *s, slice text, bool at_start, struct ids *out,
                     struct why *w)
{
    for (size_t from = 0; from < text.n;) {
        size_t at = text.n, len = 0;
        int32_t id = literals_find(t->whole, text, from, &at, &len);
        bool starts = from == 0 ? at_start : !vocab_prefix_once(t->v); /* behind a whole piece */
        int e = encode_between(t, s, (slice){text.p + from, at - from}, starts, out, w);
        if (e == 0 && id >= 0 && ids_put(out, id) < 0)
            e = why_set(w, ERR_NOMEM, "", "no memory to tokenize a text of %zu bytes", text.n);
        if (e < 0)
            return e;
        from = at + len;
    }
    return 0;
}

int32_t tokenizer_special(const tokenizer *t, slice literal)
{
    int32_t id = vocab_find(t->v, literal);
    if (id == TOKEN_NONE)
        return TOKEN_NONE;
    enum token_kind k = vocab_token_kind(t->v, id);
    return k == TOKEN_CONTROL || k == TOKEN_USER ? id : TOKEN_NONE;
}

/* ---- back to text ---- */

static void put_bytes(struct tok_decoder *d, slice bytes, buf *out)
{
    while (d->n_tail > 0 && bytes.n > 0) {
        d->tail[d->n_tail++] = *bytes.p++;
        bytes.n--;
        size_t whole = utf8_complete_len(d->tail, d->n_tail);
        if (whole == 0 && d->n_tail < sizeof d->tail)
            continue;
        utf8_put_lossy(out, (slice){d->tail, whole ? whole : d->n_tail});
        d->n_tail = (uint8_t)(whole ? d->n_tail - whole : 0);
        memmove(d->tail, d->tail + whole, d->n_tail);
    }
    size_t whole = utf8_complete_len(bytes.p, bytes.n);
    utf8_put_lossy(out, (slice){bytes.p, whole});
    if (bytes.n > whole) {
        d->n_tail = (uint8_t)(bytes.n - whole);
        memcpy(d->tail, bytes.p + whole, d->n_tail);
    }
}

void tok_decode(struct tok_decoder *d, int32_t id, buf *out)
{
    enum token_kind k = vocab_token_kind(d->v, id);
    slice bytes = vocab_bytes(d->v, id);
    if (d->skip_special && (k == TOKEN_CONTROL || k == TOKEN_UNKNOWN))
        return;
    if (!d->started && k != TOKEN_CONTROL) {
        /* The space that encoding put before the text is taken off again. */
        if (vocab_model(d->v) == VOCAB_SPM && vocab_add_space_prefix(d->v) && bytes.n > 0 &&
            bytes.p[0] == ' ')
            bytes = (slice){bytes.p + 1, bytes.n - 1};
        d->started = true;
    }
    put_bytes(d, bytes, out);
}

void tok_decode_end(struct tok_decoder *d, buf *out)
{
    utf8_put_lossy(out, (slice){d->tail, d->n_tail});
    d->n_tail = 0;
}
