#include "engine/convert/words.h"

#include <stdio.h>

#include "engine/engine.h"

int words_set(struct words *v, int64_t id, slice piece, int kind, struct why *w)
{
    if (v->kinds[id])
        return why_set(w, ERR_INVALID, "vocab", "the tokenizer gives id %lld twice", (long long)id);
    v->pieces[id] = piece;
    v->kinds[id] = kind;
    return 0;
}

int32_t words_find(const struct words *v, slice piece)
{
    for (uint64_t i = 0; piece.n && i < v->n; i++)
        if (v->kinds[i] && slice_eq(v->pieces[i], piece))
            return (int32_t)i;
    return -1;
}

/* ---- SentencePiece's model: sentencepiece_model.proto, fields as numbers ---- */

struct reader {
    const uint8_t *p;
    size_t n, at;
};

static bool varint(struct reader *r, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && r->at < r->n; shift += 7) {
        uint8_t b = r->p[r->at++];
        *out |= (uint64_t)(b & 127) << shift;
        if (!(b & 128))
            return true;
    }
    return false;
}

struct wire {
    uint32_t field, kind;
    uint64_t n; /* a number, or the length of what is at p */
    const uint8_t *p;
};

/* The next field; false at the end or at damage (then at < n). */
static bool next(struct reader *r, struct wire *out)
{
    uint64_t tag;
    size_t before = r->at;
    *out = (struct wire){0};
    if (r->at >= r->n || !varint(r, &tag))
        return false;
    out->field = (uint32_t)(tag >> 3);
    out->kind = (uint32_t)(tag & 7);
    size_t fixed = out->kind == 1 ? 8 : out->kind == 5 ? 4 : 0;
    bool fine = out->kind == 0   ? varint(r, &out->n)
                : out->kind == 2 ? varint(r, &out->n)
                                 : fixed > 0;
    out->p = r->p + r->at;
    if (out->kind == 2)
        fixed = out->n <= r->n - r->at ? (size_t)out->n : SIZE_MAX;
    if (!fine || fixed > r->n - r->at) {
        r->at = before;
        return false;
    }
    r->at += fixed;
    return true;
}

static int read_piece(struct words *v, int64_t id, const struct wire *in, struct why *w)
{
    struct reader r = {in->p, (size_t)in->n, 0};
    struct wire f;
    slice piece = {"", 0};
    uint64_t kind = TOKEN_NORMAL;
    while (next(&r, &f)) {
        if (f.field == 1 && f.kind == 2)
            piece = (slice){(const char *)f.p, (size_t)f.n};
        else if (f.field == 2 && f.kind == 5)
            memcpy(&v->scores[id], f.p, sizeof v->scores[id]);
        else if (f.field == 3 && f.kind == 0)
            kind = f.n;
    }
    if (r.at < r.n || kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
        return why_set(w, ERR_INVALID, "tokenizer.model", "tokenizer.model: piece %lld is damaged",
                       (long long)id);
    if (kind == TOKEN_UNKNOWN)
        v->unk = (int32_t)id;
    return words_set(v, id, piece, (int)kind, w);
}

/* The number in field `field` of a message. */
static uint64_t number_in(const struct wire *message, uint32_t field, uint64_t absent)
{
    struct reader r = {message->p, (size_t)message->n, 0};
    struct wire f;
    while (next(&r, &f))
        if (f.field == field && f.kind == 0)
            absent = f.n;
    return absent;
}

enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3, MODEL_TYPE = 3, DUMMY_PREFIX = 3, KIND_BPE = 2 };

int words_from_model(struct words *v, struct why *w)
{
    struct reader r = {(const uint8_t *)v->model.p, v->model.n, 0};
    struct wire f;
    uint64_t kind = 1;
    int e = 0;
    v->spm = v->add_space = true;
    while (next(&r, &f))
        v->n += f.field == PIECES && f.kind == 2;
    if (r.at < r.n || v->n == 0 || v->n > ENGINE_VOCAB_MAX)
        return why_set(w, ERR_INVALID, "tokenizer.model",
                       "tokenizer.model is damaged, or has no pieces or more than %d",
                       ENGINE_VOCAB_MAX);
    v->pieces = xcalloc(v->n + 1, sizeof *v->pieces);
    v->kinds = xcalloc(v->n + 1, sizeof *v->kinds);
    v->scores = xcalloc(v->n + 1, sizeof *v->scores);
    r.at = 0;
    for (int64_t id = 0; e == 0 && next(&r, &f);) {
        if (f.field == PIECES && f.kind == 2)
            e = read_piece(v, id++, &f, w);
        else if (f.field == TRAINER && f.kind == 2)
            kind = number_in(&f, MODEL_TYPE, kind);
        else if (f.field == NORMALIZER && f.kind == 2)
            v->add_space = number_in(&f, DUMMY_PREFIX, 1) != 0;
    }
    if (e == 0 && kind != KIND_BPE)
        e = why_set(w, ERR_UNSUPPORTED, "tokenizer.model",
                    "tokenizer.model: of SentencePiece's kinds only BPE is supported");
    return e;
}

/* ---- what stands beside ---- */

struct beside {
    json_doc *tokenizer, *special, *generation;
};

static int open_beside(const source *s, struct beside *b, struct why *w)
{
    struct {
        const char *file;
        json_doc **doc;
    } files[] = {{"tokenizer_config.json", &b->tokenizer},
                 {"special_tokens_map.json", &b->special},
                 {"generation_config.json", &b->generation}};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        int e = source_json(s, files[i].file, 8 * SOURCE_CONFIG_MAX, files[i].doc, w);
        if (e < 0 && e != ERR_NOT_FOUND)
            return e;
    }
    return 0;
}

/* "<s>", or {"content": "<s>"}. */
static slice token_text(const json_val *v)
{
    return json_str_or(v, json_str_or(json_get(v, "content"), (slice){"", 0}));
}

static int32_t named(const struct words *v, const struct beside *b, const json_val *config,
                     const char *token, const char *id)
{
    slice text =
        b->tokenizer ? token_text(json_get(json_doc_root(b->tokenizer), token)) : (slice){"", 0};
    if (text.n == 0 && b->special)
        text = token_text(json_get(json_doc_root(b->special), token));
    int32_t found = words_find(v, text);
    const json_val *n = json_get(config, id);
    int64_t number = -1;
    if (json_kind(n) == JSON_KIND_ARR)
        n = json_first(n);
    if (found < 0 && text.n == 0 && !json_absent(n) &&
        json_to_i64(n, 0, (int64_t)v->n - 1, &number, NULL) == 0)
        found = (int32_t)number;
    return found;
}

/* Ends beside eos: GGUF has two more keys. */
static void write_ends(const struct words *v, const struct beside *b, struct gguf_out *out)
{
    static const char *const KEYS[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    const json_val *all =
        b->generation ? json_get(json_doc_root(b->generation), "eos_token_id") : NULL;
    size_t k = 0;
    for (const json_val *n = json_kind(all) == JSON_KIND_ARR ? json_first(all) : NULL;
         n && k < ARRAY_LEN(KEYS); n = json_next(n)) {
        int64_t id;
        if (json_to_i64(n, 0, (int64_t)v->n - 1, &id, NULL) == 0 && id != v->eos)
            gguf_out_u32(out, KEYS[k++], (uint32_t)id);
    }
}

/* chat_template.jinja, or the one in tokenizer_config.json: a text, or a list of which one is
 * called default. */
static int write_template(const source *s, const struct beside *b, struct gguf_out *out,
                          struct why *w)
{
    buf text = {0};
    int e = source_text(s, "chat_template.jinja", SOURCE_CONFIG_MAX, &text, w);
    if (e < 0 && e != ERR_NOT_FOUND)
        return e;
    slice found = buf_slice(&text);
    const json_val *in =
        b->tokenizer ? json_get(json_doc_root(b->tokenizer), "chat_template") : NULL;
    for (const json_val *t = json_kind(in) == JSON_KIND_ARR ? json_first(in) : NULL;
         t && found.n == 0; t = json_next(t))
        if (slice_eq_str(json_str_or(json_get(t, "name"), (slice){"", 0}), "default"))
            found = json_str_or(json_get(t, "template"), found);
    if (found.n == 0)
        found = json_str_or(in, found);
    if (found.n)
        gguf_out_str(out, "tokenizer.chat_template", found);
    buf_clear(&text);
    return 0;
}

/* ---- keys ---- */

static void write_pieces(const struct words *v, uint64_t n_vocab, struct gguf_out *out)
{
    int32_t *kinds = xcalloc(n_vocab, sizeof *kinds);
    float *scores = xcalloc(n_vocab, sizeof *scores);
    gguf_out_strings(out, "tokenizer.ggml.tokens", n_vocab);
    for (uint64_t i = 0; i < n_vocab; i++) {
        bool real = i < v->n && v->kinds[i];
        char pad[32];
        snprintf(pad, sizeof pad, "[PAD%llu]", (unsigned long long)i);
        gguf_out_put_str(out, real ? v->pieces[i] : slice_str(pad));
        kinds[i] = real ? v->kinds[i] : TOKEN_UNUSED;
        scores[i] = real ? v->scores[i] : -1e9f;
    }
    gguf_out_ints(out, "tokenizer.ggml.token_type", n_vocab, kinds);
    if (v->spm)
        gguf_out_floats(out, "tokenizer.ggml.scores", n_vocab, scores);
    free(kinds);
    free(scores);
}

/* The ids of added tokens that swallow white space on one of their sides. */
static void write_strips(const struct words *v, const char *side, const char *key,
                         struct gguf_out *out)
{
    const json_val *added = v->doc ? json_get(json_doc_root(v->doc), "added_tokens") : NULL;
    int32_t *ids = xcalloc(json_len(added) + 1, sizeof *ids);
    size_t n = 0;
    for (const json_val *t = json_first(added); t; t = json_next(t)) {
        bool strips = false;
        int64_t id;
        if (json_opt_bool(t, side, &strips, NULL) >= 0 && strips &&
            json_to_i64(json_get(t, "id"), 0, (int64_t)v->n - 1, &id, NULL) == 0)
            ids[n++] = (int32_t)id;
    }
    if (n)
        gguf_out_ints(out, key, n, ids);
    free(ids);
}

static int write_merges(const struct words *v, struct gguf_out *out, struct why *w)
{
    buf both = {0};
    slice left, right;
    int e = 0;
    gguf_out_strings(out, "tokenizer.ggml.merges", json_len(v->merges));
    for (const json_val *m = json_first(v->merges); m && e == 0; m = json_next(m)) {
        if (!words_merge(m, &left, &right)) {
            e = why_set(w, ERR_INVALID, "merges", "a merge is not two pieces");
            break;
        }
        buf_reset(&both);
        buf_put_slice(&both, left);
        buf_put_byte(&both, ' ');
        buf_put_slice(&both, right);
        gguf_out_put_str(out, buf_slice(&both));
    }
    buf_clear(&both);
    return e;
}

static void write_id(struct gguf_out *out, const char *key, int32_t id)
{
    if (id >= 0)
        gguf_out_u32(out, key, (uint32_t)id);
}

static int write_all(const source *s, struct words *v, const struct beside *b, uint64_t n_vocab,
                     struct gguf_out *out, struct why *w)
{
    const json_val *config = source_config(s),
                   *generation = b->generation ? json_doc_root(b->generation) : config;
    if (v->n > n_vocab)
        return why_set(w, ERR_INVALID, "vocab",
                       "the tokenizer has %llu ids, the embedding %llu rows",
                       (unsigned long long)v->n, (unsigned long long)n_vocab);
    v->bos = named(v, b, generation, "bos_token", "bos_token_id");
    v->eos = named(v, b, generation, "eos_token", "eos_token_id");
    v->pad = named(v, b, generation, "pad_token", "pad_token_id");
    if (b->tokenizer &&
        json_opt_bool(json_doc_root(b->tokenizer), "add_bos_token", &v->add_bos, w) < 0)
        return ERR_INVALID;
    gguf_out_str(out, "tokenizer.ggml.model", v->spm ? SLICE_LIT("llama") : SLICE_LIT("gpt2"));
    if (v->pre)
        gguf_out_str(out, "tokenizer.ggml.pre", slice_str(v->pre));
    if (!v->spm && !v->pre)
        gguf_out_str(out, "nunchi.tokenizer.split", v->split);
    if (!v->spm && v->normal)
        gguf_out_str(out, "nunchi.tokenizer.normal", slice_str(v->normal));
    if (!v->spm && v->whole_words)
        gguf_out_bool(out, "nunchi.tokenizer.whole_words", true);
    write_pieces(v, n_vocab, out);
    write_strips(v, "lstrip", "nunchi.tokenizer.lstrip", out);
    write_strips(v, "rstrip", "nunchi.tokenizer.rstrip", out);
    int e = v->spm ? 0 : write_merges(v, out, w);
    write_id(out, "tokenizer.ggml.bos_token_id", v->bos);
    write_id(out, "tokenizer.ggml.eos_token_id", v->eos);
    write_id(out, "tokenizer.ggml.unknown_token_id", v->unk);
    write_id(out, "tokenizer.ggml.padding_token_id", v->pad);
    write_ends(v, b, out);
    gguf_out_bool(out, "tokenizer.ggml.add_bos_token", v->add_bos && v->bos >= 0);
    if (v->spm || v->add_space)
        gguf_out_bool(out, "tokenizer.ggml.add_space_prefix", v->add_space);
    if (v->spm && v->prefix_once)
        gguf_out_bool(out, "nunchi.tokenizer.prefix_once", true);
    if (v->spm && v->prefix_missing)
        gguf_out_bool(out, "nunchi.tokenizer.prefix_missing", true);
    return e < 0 ? e : write_template(s, b, out, w);
}

/* tokenizer.json is what its makers' library reads; folders from before it have SentencePiece's
 * model alone. */
static int read_words(const source *s, struct words *v, struct why *w)
{
    int e = source_json(s, "tokenizer.json", SOURCE_TOKENIZER_MAX, &v->doc, w);
    if (e == 0) {
        struct why inner = {.text = ""};
        e = words_from_json(v, &inner);
        return e < 0 ? source_why(w, e, "tokenizer.json", &inner) : 0;
    }
    if (e == ERR_NOT_FOUND)
        e = source_text(s, "tokenizer.model", SOURCE_TOKENIZER_MAX, &v->model, w);
    if (e == ERR_NOT_FOUND)
        return why_set(
            w, e, "tokenizer",
            "there is neither a tokenizer.json nor a tokenizer.model beside the weights");
    v->add_bos = true;
    return e < 0 ? e : words_from_model(v, w);
}

int words_write(const source *s, uint64_t n_vocab, struct gguf_out *out, struct why *w)
{
    struct words v = {.bos = -1, .eos = -1, .unk = -1, .pad = -1};
    struct beside b = {0};
    int e = read_words(s, &v, w);
    if (e == 0)
        e = open_beside(s, &b, w);
    if (e == 0)
        e = write_all(s, &v, &b, n_vocab, out, w);
    json_doc_free(b.tokenizer);
    json_doc_free(b.special);
    json_doc_free(b.generation);
    json_doc_free(v.doc);
    buf_clear(&v.model);
    free(v.pieces);
    free(v.kinds);
    free(v.scores);
    return e;
}
