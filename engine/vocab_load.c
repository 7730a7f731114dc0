/* Reading a vocabulary out of GGUF metadata. Every array must have one entry per id, every id must
 * be in range, every merge must name tokens that exist: what is wrong here would otherwise show as
 * wrong text much later. */
#include <math.h>

#include "engine/model/gguf.h"
#include "engine/vocab_int.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES "tokenizer.ggml.token_type"
#define KEY_SCORES "tokenizer.ggml.scores"
#define KEY_MERGES "tokenizer.ggml.merges"

/* "model" is the field of every sentence: the file as a whole is what the user chose. */
#define BAD(...) why_set(w, ERR_INVALID, "model", __VA_ARGS__)

static int array_of(const model_file *f, const char *key, uint64_t want,
                    const struct gguf_meta **out, struct why *w)
{
    const struct gguf_meta *m = gguf_find(f, key);
    *out = m;
    if (!m)
        return ERR_NOT_FOUND;
    if (m->type != GGUF_ARRAY)
        return BAD("%s is not an array", key);
    if (want && m->n != want)
        return BAD("%s has %llu entries, the vocabulary %llu", key, (unsigned long long)m->n,
                   (unsigned long long)want);
    return 0;
}

static int read_kind(const model_file *f, vocab *v, struct why *w)
{
    slice s;
    if (model_file_str(f, "tokenizer.ggml.model", &s) < 0)
        return BAD("the file has no tokenizer.ggml.model");
    if (slice_eq_str(s, "gpt2"))
        v->kind = VOCAB_BPE;
    else if (slice_eq_str(s, "llama"))
        v->kind = VOCAB_SPM;
    else
        return why_set(w, ERR_UNSUPPORTED, "model",
                       "the tokenizer \"%.*s\" is not supported (gpt2 and llama are)",
                       (int)(s.n < 32 ? s.n : 32), s.p);
    return 0;
}

static int read_pieces(const model_file *f, vocab *v, struct why *w)
{
    const struct gguf_meta *m;
    int e = array_of(f, KEY_TOKENS, 0, &m, w);
    if (e < 0)
        return e == ERR_NOT_FOUND ? BAD("the file has no " KEY_TOKENS) : e;
    if (m->elem != GGUF_STR || m->n == 0)
        return BAD(KEY_TOKENS " is not a list of text");
    if (m->n > ENGINE_VOCAB_MAX || m->bytes > VOCAB_TEXT_MAX)
        return why_set(w, ERR_TOO_BIG, "model",
                       "the vocabulary is larger than %d entries or %u bytes", ENGINE_VOCAB_MAX,
                       VOCAB_TEXT_MAX);
    v->n = (uint32_t)m->n;
    v->text = try_calloc((size_t)m->bytes + 1, 1);
    v->piece_at = try_calloc((size_t)v->n + 1, sizeof *v->piece_at);
    if (!v->text || !v->piece_at)
        return ERR_NOMEM;
    uint64_t at = 0;
    uint32_t end = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        slice s = gguf_next_str(m, &at);
        if (s.n > VOCAB_PIECE_MAX)
            return why_set(w, ERR_TOO_BIG, "model", "token %u has %zu bytes, at most %d", i, s.n,
                           VOCAB_PIECE_MAX);
        memcpy(v->text + end, s.p, s.n);
        end += (uint32_t)s.n;
        v->piece_at[i + 1] = end;
    }
    return 0;
}

static int read_kinds(const model_file *f, vocab *v, struct why *w)
{
    const struct gguf_meta *m;
    int e = array_of(f, KEY_TYPES, v->n, &m, w);
    if (e < 0 && e != ERR_NOT_FOUND)
        return e;
    v->kinds = try_calloc(v->n, 1);
    if (!v->kinds)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < v->n; i++) {
        int64_t kind = TOKEN_NORMAL;
        if (m && (!gguf_int(m, i, &kind) || kind < 0 || kind > TOKEN_BYTE))
            return BAD("token %u has an unknown type", i);
        v->kinds[i] = (uint8_t)(kind ? kind : TOKEN_NORMAL); /* 0 is written for "not said" */
    }
    return 0;
}

static int read_strips(const model_file *f, vocab *v, struct why *w)
{
    static const struct {
        const char *key;
        uint8_t bit;
    } LISTS[] = {{"nunchi.tokenizer.lstrip", STRIPS_BEFORE},
                 {"nunchi.tokenizer.rstrip", STRIPS_AFTER}};
    v->strips = try_calloc(v->n, 1);
    if (!v->strips)
        return ERR_NOMEM;
    for (size_t k = 0; k < ARRAY_LEN(LISTS); k++) {
        const struct gguf_meta *m;
        int e = array_of(f, LISTS[k].key, 0, &m, w);
        if (e < 0 && e != ERR_NOT_FOUND)
            return e;
        for (uint64_t i = 0; e == 0 && i < m->n; i++) {
            int64_t id;
            if (!gguf_int(m, i, &id) || id < 0 || id >= v->n)
                return BAD("%s has what is no id", LISTS[k].key);
            v->strips[id] |= LISTS[k].bit;
        }
    }
    return 0;
}

static int read_scores(const model_file *f, vocab *v, struct why *w)
{
    const struct gguf_meta *m;
    if (v->kind != VOCAB_SPM)
        return 0;
    int e = array_of(f, KEY_SCORES, v->n, &m, w);
    if (e < 0)
        return e == ERR_NOT_FOUND ? BAD("the file has no " KEY_SCORES) : e;
    v->scores = try_calloc(v->n, sizeof *v->scores);
    if (!v->scores)
        return ERR_NOMEM;
    for (uint32_t i = 0; i < v->n; i++) {
        double s;
        if (!gguf_float(m, i, &s) || !isfinite((float)s))
            return BAD("the score of token %u is not a number", i);
        v->scores[i] = (float)s;
    }
    return 0;
}

static uint32_t table_mask(uint64_t n)
{
    uint32_t size = 16;
    while (size < n * 2)
        size *= 2;
    return size - 1;
}

/* Of two ids with the same text the lower one is found. */
static int index_pieces(vocab *v)
{
    v->piece_mask = table_mask(v->n);
    v->by_piece = try_calloc((size_t)v->piece_mask + 1, sizeof *v->by_piece);
    if (!v->by_piece)
        return ERR_NOMEM;
    memset(v->by_piece, 0xff, ((size_t)v->piece_mask + 1) * sizeof *v->by_piece); /* TOKEN_NONE */
    for (int32_t id = 0; (uint32_t)id < v->n; id++) {
        slice s = vocab_piece(v, id);
        uint32_t i = (uint32_t)hash64(s.p, s.n) & v->piece_mask;
        while (v->by_piece[i] != TOKEN_NONE && !slice_eq(vocab_piece(v, v->by_piece[i]), s))
            i = (i + 1) & v->piece_mask;
        if (v->by_piece[i] == TOKEN_NONE)
            v->by_piece[i] = id;
    }
    return 0;
}

/* ---- what pieces read as
 * ------------------------------------------------------------------------------------ */

/* Byte-level BPE writes a byte as a character: itself where it is printable, the 68 others as
 * U+0100 upward. */
static bool stands_for_itself(int b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

struct byte_alphabet {
    int16_t byte_of[0x144]; /* by code point; -1: none */
};

static void make_alphabet(struct byte_alphabet *a)
{
    memset(a, 0xff, sizeof *a);
    int next = 0x100;
    for (int b = 0; b < 256; b++)
        a->byte_of[stands_for_itself(b) ? b : next++] = (int16_t)b;
}

/* A piece with a character outside the alphabet is literal text. out has room for as many bytes as
 * s. */
static size_t bytes_of_bpe(const struct byte_alphabet *a, slice s, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len == 0 || cp >= ARRAY_LEN(a->byte_of) || a->byte_of[cp] < 0) {
            memcpy(out, s.p, s.n);
            return s.n;
        }
        out[n++] = (char)a->byte_of[cp];
        i += len;
    }
    return n;
}

static size_t bytes_of_spm(slice s, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; n++) {
        bool space = s.n - i >= 3 && memcmp(s.p + i, "\xe2\x96\x81", 3) == 0;
        out[n] = space ? ' ' : s.p[i];
        i += space ? 3 : 1;
    }
    return n;
}

/* "<0x0A>" */
static bool byte_piece(slice s, unsigned char *b)
{
    return s.n == 6 && memcmp(s.p, "<0x", 3) == 0 && s.p[5] == '>' &&
           hex_decode((slice){s.p + 3, 2}, b, 1) == 0;
}

static size_t bytes_of(const vocab *v, const struct byte_alphabet *a, int32_t id, char *out)
{
    slice s = vocab_piece(v, id);
    unsigned char b;
    switch ((enum token_kind)v->kinds[id]) {
    case TOKEN_BYTE:
        if (byte_piece(s, &b)) {
            *out = (char)b;
            return 1;
        }
        break;
    case TOKEN_NORMAL:
    case TOKEN_UNUSED:
        return v->kind == VOCAB_BPE ? bytes_of_bpe(a, s, out) : bytes_of_spm(s, out);
    case TOKEN_USER:
        if (v->kind == VOCAB_SPM)
            return bytes_of_spm(s, out);
        break;
    case TOKEN_UNKNOWN:
    case TOKEN_CONTROL:
        break;
    }
    memcpy(out, s.p, s.n);
    return s.n;
}

static int make_bytes(vocab *v)
{
    struct byte_alphabet a;
    make_alphabet(&a);
    v->bytes = try_calloc((size_t)v->piece_at[v->n] + 1, 1);
    v->bytes_at = try_calloc((size_t)v->n + 1, sizeof *v->bytes_at);
    if (!v->bytes || !v->bytes_at)
        return ERR_NOMEM;
    memset(v->byte_ids, 0xff, sizeof v->byte_ids);
    uint32_t end = 0;
    for (int32_t id = 0; (uint32_t)id < v->n; id++) {
        unsigned char b;
        end += (uint32_t)bytes_of(v, &a, id, v->bytes + end);
        v->bytes_at[id + 1] = end;
        if (v->kinds[id] == TOKEN_BYTE && byte_piece(vocab_piece(v, id), &b) &&
            v->byte_ids[b] == TOKEN_NONE)
            v->byte_ids[b] = id;
    }
    return 0;
}

/* ---- merges
 * -------------------------------------------------------------------------------------------------
 */

static void put_merge(vocab *v, struct merge m)
{
    uint32_t i = vocab_pair_hash(m.left, m.right) & v->merge_mask;
    while (v->merges[i].rank >= 0) {
        if (v->merges[i].left == m.left && v->merges[i].right == m.right)
            return; /* said twice: the first has the better rank */
        i = (i + 1) & v->merge_mask;
    }
    v->merges[i] = m;
}

/* "left right": neither holds a space, since the byte alphabet has none. */
static int parse_merge(const vocab *v, slice s, char *both, struct merge *out)
{
    const char *gap = s.n > 2 ? memchr(s.p + 1, ' ', s.n - 2) : NULL;
    if (!gap || s.n > VOCAB_PIECE_MAX)
        return ERR_INVALID;
    slice left = {s.p, (size_t)(gap - s.p)}, right = {gap + 1, s.n - left.n - 1};
    memcpy(both, left.p, left.n);
    memcpy(both + left.n, right.p, right.n);
    out->left = vocab_find(v, left);
    out->right = vocab_find(v, right);
    out->id = vocab_find(v, (slice){both, left.n + right.n});
    return out->left < 0 || out->right < 0 || out->id < 0 ? ERR_INVALID : 0;
}

static int read_merges(const model_file *f, vocab *v, struct why *w)
{
    const struct gguf_meta *m;
    if (v->kind != VOCAB_BPE)
        return 0;
    int e = array_of(f, KEY_MERGES, 0, &m, w);
    if (e < 0)
        return e == ERR_NOT_FOUND ? BAD("the file has no " KEY_MERGES) : e;
    if (m->elem != GGUF_STR || m->n > VOCAB_MERGES_MAX)
        return BAD(KEY_MERGES " is not a list of text, or longer than %d", VOCAB_MERGES_MAX);
    v->merge_mask = table_mask(m->n);
    v->merges = try_calloc((size_t)v->merge_mask + 1, sizeof *v->merges);
    char *both = try_calloc(VOCAB_PIECE_MAX, 1);
    if (!v->merges || !both) {
        free(both);
        return ERR_NOMEM;
    }
    memset(v->merges, 0xff, ((size_t)v->merge_mask + 1) * sizeof *v->merges); /* rank -1 */
    uint64_t at = 0;
    for (uint32_t i = 0; e == 0 && i < m->n; i++) {
        struct merge one = {.rank = (int32_t)i};
        if ((e = parse_merge(v, gguf_next_str(m, &at), both, &one)) < 0)
            e = BAD("merge %u is not two tokens that make a third", i);
        else
            put_merge(v, one);
    }
    free(both);
    return e;
}

/* ---- special ids and texts
 * ---------------------------------------------------------------------------------- */

static int read_id(const model_file *f, const vocab *v, const char *key, int32_t *out,
                   struct why *w)
{
    uint32_t id;
    *out = TOKEN_NONE;
    int e = model_file_u32(f, key, &id);
    if (e == ERR_NOT_FOUND)
        return 0;
    if (e < 0 || id >= v->n)
        return BAD("%s is not an id of the vocabulary", key);
    *out = (int32_t)id;
    return 0;
}

static int read_flag(const model_file *f, const char *key, bool absent, bool *out, struct why *w)
{
    *out = absent;
    int e = model_file_bool(f, key, out);
    return e < 0 && e != ERR_NOT_FOUND ? BAD("%s is not true or false", key) : 0;
}

static int read_text(const model_file *f, const char *key, size_t max, char **out, size_t *len,
                     struct why *w)
{
    slice s = {"", 0};
    int e = model_file_str(f, key, &s);
    if (e < 0 && e != ERR_NOT_FOUND)
        return BAD("%s is not text", key);
    if (s.n > max || memchr(s.p, 0, s.n) || !utf8_valid(s))
        return BAD("%s is not UTF-8 text of at most %zu bytes", key, max);
    *out = slice_dup(s);
    *len = s.n;
    return 0;
}

static void add_end(vocab *v, int32_t id)
{
    if (id == TOKEN_NONE || vocab_is_end(v, id) || v->n_ends == VOCAB_ENDS_MAX)
        return;
    size_t i = v->n_ends++;
    for (; i > 0 && v->ends[i - 1] > id; i--)
        v->ends[i] = v->ends[i - 1];
    v->ends[i] = id;
}

/* Names that end a turn or a text in the known families. Only as control tokens: elsewhere "</s>"
 * is HTML. */
static const char *const END_NAMES[] = {
    "<|im_end|>",      "<end_of_turn>", "<|endoftext|>", "<|eot_id|>",
    "<|end_of_text|>", "<|eom_id|>",    "</s>",          "<|end|>",
    "<eos>",           "<|endofturn|>", "<|return|>",    "<|end_of_turn|>",
};

static int read_ends(const model_file *f, vocab *v, struct why *w)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    v->ends = xcalloc(VOCAB_ENDS_MAX, sizeof *v->ends);
    add_end(v, v->eos);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        int32_t id;
        int e = read_id(f, v, keys[i], &id, w);
        if (e < 0)
            return e;
        add_end(v, id);
    }
    for (size_t i = 0; i < ARRAY_LEN(END_NAMES); i++) {
        int32_t id = vocab_find(v, slice_str(END_NAMES[i]));
        if (id != TOKEN_NONE && v->kinds[id] == TOKEN_CONTROL)
            add_end(v, id);
    }
    return 0;
}

static int read_normal(const model_file *f, vocab *v, struct why *w)
{
    static const char *const NAMES[] = {"", "nfc", "nfd", "nfkc", "nfkd"};
    slice s = {"", 0};
    int e = model_file_str(f, "nunchi.tokenizer.normal", &s);
    if (e == ERR_NOT_FOUND)
        return 0;
    for (size_t i = 1; e == 0 && i < ARRAY_LEN(NAMES); i++)
        if (slice_eq_str(s, NAMES[i])) {
            v->normal = (enum vocab_normal)i;
            return 0;
        }
    return BAD("nunchi.tokenizer.normal is none of nfc, nfd, nfkc, nfkd");
}

static int read_rest(const model_file *f, vocab *v, struct why *w)
{
    bool spm = v->kind == VOCAB_SPM;
    size_t pre_len, split_len;
    int e;
    if ((e = read_id(f, v, "tokenizer.ggml.bos_token_id", &v->bos, w)) < 0 ||
        (e = read_id(f, v, "tokenizer.ggml.eos_token_id", &v->eos, w)) < 0 ||
        (e = read_flag(f, "tokenizer.ggml.add_bos_token", spm, &v->add_bos, w)) < 0 ||
        (e = read_flag(f, "tokenizer.ggml.add_space_prefix", spm, &v->add_space_prefix, w)) < 0 ||
        (e = read_text(f, "tokenizer.ggml.pre", VOCAB_PRE_MAX, &v->pre, &pre_len, w)) < 0 ||
        (e = read_text(f, "nunchi.tokenizer.split", VOCAB_SPLIT_MAX, &v->split, &split_len, w)) <
            0 ||
        (e = read_normal(f, v, w)) < 0 ||
        (e = read_flag(f, "nunchi.tokenizer.whole_words", false, &v->whole_words, w)) < 0 ||
        (e = read_flag(f, "nunchi.tokenizer.prefix_once", false, &v->prefix_once, w)) < 0 ||
        (e = read_flag(f, "nunchi.tokenizer.prefix_missing", false, &v->prefix_missing, w)) < 0 ||
        (e = read_text(f, "tokenizer.chat_template", VOCAB_TEMPLATE_MAX, &v->chat, &v->chat_len,
                       w)) < 0)
        return e;
    if (v->add_bos && v->bos == TOKEN_NONE)
        return BAD("text is to start with bos, but there is no tokenizer.ggml.bos_token_id");
    return read_ends(f, v, w);
}

int vocab_open(const model_file *f, vocab **out, struct why *w)
{
    vocab *v = xcalloc(1, sizeof *v);
    int e;
    if ((e = read_kind(f, v, w)) < 0 || (e = read_pieces(f, v, w)) < 0 ||
        (e = read_kinds(f, v, w)) < 0 || (e = read_strips(f, v, w)) < 0 ||
        (e = read_scores(f, v, w)) < 0 || (e = index_pieces(v)) < 0 || (e = make_bytes(v)) < 0 ||
        (e = read_merges(f, v, w)) < 0 || (e = read_rest(f, v, w)) < 0) {
        vocab_close(v);
        v = NULL;
    }
    if (e == ERR_NOMEM)
        why_set(w, e, "model", "no memory for the vocabulary");
    *out = v;
    return e;
}
