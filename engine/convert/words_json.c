/* tokenizer.json (huggingface/tokenizers, tokenizers/src): model, added tokens, and what stands
 * around them. */
#include "engine/convert/words.h"
#include "common/base/map.h"
#include "engine/engine.h"

/* The patterns of well-known tokenizers and what GGUF calls them. */
static const struct {
    const char *pattern, *pre;
    bool nfc;
} SPLITS[] = {
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
     "\\s+(?!\\S)|\\s+",
     "llama-bpe", false},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
     "\\s+(?!\\S)|\\s+",
     "qwen2", true},
};

static int unsupported(struct why *w, const char *part, const json_val *v)
{
    slice type = json_str_or(json_get(v, "type"), json_str_or(v, SLICE_LIT("of this kind")));
    return why_set(w, ERR_UNSUPPORTED, part, "a %s '%.*s' is not supported here", part,
                   (int)(type.n < 60 ? type.n : 60), type.p);
}

static bool is_type(const json_val *v, const char *type)
{
    return slice_eq_str(json_str_or(json_get(v, "type"), (slice){"", 0}), type);
}

static bool is_true(const json_val *obj, const char *key, bool absent)
{
    bool v = absent;
    return json_opt_bool(obj, key, &v, NULL) < 0 ? absent : v;
}

static bool is_str(const json_val *obj, const char *key, const char *text)
{
    return slice_eq_str(json_str_or(json_get(obj, key), (slice){"", 0}), text);
}

/* ---- before the model ---- */

#define UNDERLINE "\xe2\x96\x81" /* U+2581 */

static bool spaces_to_underlines(const json_val *v)
{
    return is_type(v, "Replace") && is_str(json_get(v, "pattern"), "String", " ") &&
           is_str(v, "content", UNDERLINE);
}

/* Parts of a Sequence, or the one thing itself. */
static const json_val *parts(const json_val *v, const char *list, size_t *n)
{
    const json_val *all = is_type(v, "Sequence") ? json_get(v, list) : NULL;
    *n = all ? json_len(all) : json_absent(v) ? 0 : 1;
    return all ? json_first(all) : v;
}

static const char *normal_form(const json_val *p)
{
    static const char *const FORMS[][2] = {
        {"NFC", "nfc"}, {"NFD", "nfd"}, {"NFKC", "nfkc"}, {"NFKD", "nfkd"}};
    for (size_t i = 0; i < ARRAY_LEN(FORMS); i++)
        if (is_type(p, FORMS[i][0]))
            return FORMS[i][1];
    return NULL;
}

static int read_normalizer(struct words *v, const json_val *norm, struct why *w)
{
    size_t n;
    const json_val *p = parts(norm, "normalizers", &n);
    for (size_t i = 0; i < n; i++, p = json_next(p)) {
        const char *form = normal_form(p);
        if (!v->spm && form && !v->normal)
            v->normal = form;
        else if (v->spm && is_type(p, "Prepend") && is_str(p, "prepend", UNDERLINE))
            v->add_space = true;
        else if (!(v->spm && spaces_to_underlines(p)))
            return unsupported(w, "normalizer", p);
    }
    return 0;
}

static int read_split(struct words *v, const json_val *p, struct why *w)
{
    slice regex = json_str_or(json_get(json_get(p, "pattern"), "Regex"), (slice){"", 0});
    if (regex.n == 0 || regex.n > WORDS_SPLIT_MAX || !is_str(p, "behavior", "Isolated") ||
        is_true(p, "invert", false) || v->split.n)
        return unsupported(w, "pre-tokenizer", p);
    v->split = regex;
    return 0;
}

/* Byte-level: an optional Split or Digits, then ByteLevel. */
static int read_byte_level(struct words *v, const json_val *pre, struct why *w)
{
    size_t n;
    bool digits = false, last = false, regex = false;
    const json_val *p = parts(pre, "pretokenizers", &n);
    for (size_t i = 0; i < n; i++, p = json_next(p)) {
        int e = 0;
        if (last)
            e = unsupported(w, "pre-tokenizer", p);
        else if (is_type(p, "Split"))
            e = read_split(v, p, w);
        else if (is_type(p, "Digits") && is_true(p, "individual_digits", false))
            digits = true;
        else if (is_type(p, "ByteLevel")) {
            last = true;
            regex = is_true(p, "use_regex", true);
            v->add_space = is_true(p, "add_prefix_space", true);
        } else
            e = unsupported(w, "pre-tokenizer", p);
        if (e < 0)
            return e;
    }
    if (v->add_space && n > 1) /* what is cut before would each get one */
        return unsupported(w, "pre-tokenizer", pre);
    if (!last || (v->split.n && (digits || regex)) || (!v->split.n && !regex))
        return unsupported(w, "pre-tokenizer", pre);
    v->pre = v->split.n ? NULL : digits ? "smollm" : "gpt-2";
    bool nfc = v->normal && strcmp(v->normal, "nfc") == 0;
    for (size_t i = 0; i < ARRAY_LEN(SPLITS); i++)
        if (slice_eq_str(v->split, SPLITS[i].pattern) && SPLITS[i].nfc == nfc)
            v->pre = SPLITS[i].pre;
    return 0;
}

/* With bytes to fall back on, a text is one word; Metaspace or the normalizer turn spaces into
 * U+2581. */
static int read_one_word(struct words *v, const json_val *pre, struct why *w)
{
    if (json_absent(pre))
        return 0;
    if (is_type(pre, "Split") && is_str(json_get(pre, "pattern"), "String", " ") &&
        is_str(pre, "behavior", "MergedWithPrevious"))
        return 0; /* after the normalizer there is no space left to split at */
    if (!is_type(pre, "Metaspace") || !is_str(pre, "replacement", UNDERLINE) ||
        is_true(pre, "split", true))
        return unsupported(w, "pre-tokenizer", pre);
    v->add_space = !is_str(pre, "prepend_scheme", "never");
    v->prefix_once = is_str(pre, "prepend_scheme", "first");
    v->prefix_missing = true;
    return 0;
}

/* ---- the model ---- */

static int count_ids(const json_val *table, const json_val *added, uint64_t *out, struct why *w)
{
    int64_t most = -1, id = 0;
    for (const json_val *t = json_first(table); t; t = json_next(t)) {
        if (json_to_i64(t, 0, ENGINE_VOCAB_MAX - 1, &id, w) < 0)
            return ERR_INVALID;
        most = id > most ? id : most;
    }
    for (const json_val *t = json_first(added); t; t = json_next(t)) {
        const json_val *v;
        if (json_req(t, "id", &v, w) < 0 || json_to_i64(v, 0, ENGINE_VOCAB_MAX - 1, &id, w) < 0)
            return ERR_INVALID;
        most = id > most ? id : most;
    }
    *out = (uint64_t)(most + 1);
    return 0;
}

static bool byte_piece(slice s)
{
    return s.n == 6 && memcmp(s.p, "<0x", 3) == 0 && s.p[5] == '>';
}

static int read_pieces(struct words *v, const json_val *table, const json_val *added, struct why *w)
{
    int64_t id = 0;
    int e = count_ids(table, added, &v->n, w);
    if (e < 0)
        return e;
    v->pieces = xcalloc(v->n + 1, sizeof *v->pieces);
    v->kinds = xcalloc(v->n + 1, sizeof *v->kinds);
    v->scores = xcalloc(v->n + 1, sizeof *v->scores);
    for (const json_val *t = json_first(table); t && e == 0; t = json_next(t))
        if ((e = json_to_i64(t, 0, ENGINE_VOCAB_MAX - 1, &id, w)) == 0)
            e = words_set(v, id, json_name(t),
                          v->spm && byte_piece(json_name(t)) ? TOKEN_BYTE : TOKEN_NORMAL, w);
    for (const json_val *t = json_first(added); t && e == 0; t = json_next(t)) {
        slice text = json_str_or(json_get(t, "content"), (slice){"", 0});
        if ((e = json_to_i64(json_get(t, "id"), 0, ENGINE_VOCAB_MAX - 1, &id, w)) == 0) {
            v->kinds[id] = 0; /* often in the vocabulary too */
            e = words_set(v, id, text, is_true(t, "special", false) ? TOKEN_CONTROL : TOKEN_USER,
                          w);
        }
    }
    return e;
}

/* The two halves of a merge, of either notation. */
bool words_merge(const json_val *m, slice *left, slice *right)
{
    slice s = json_str_or(m, (slice){"", 0});
    if (json_kind(m) == JSON_KIND_ARR) {
        *left = json_str_or(json_at(m, 0), s);
        *right = json_str_or(json_at(m, 1), s);
        return json_len(m) == 2 && left->n && right->n;
    }
    const char *gap = s.n > 2 ? memchr(s.p + 1, ' ', s.n - 2) : NULL;
    if (!gap)
        return false;
    *left = (slice){s.p, (size_t)(gap - s.p)};
    *right = (slice){gap + 1, s.n - left->n - 1};
    return true;
}

/* SentencePiece merges what makes the piece of the best score, BPE by the merges' order: a piece is
 * worth as much as the first merge that makes it. */
static int score_pieces(struct words *v, struct why *w)
{
    buf both = {0};
    int32_t rank = 0;
    map *ids = NULL;
    for (uint64_t i = 0; i < v->n; i++)
        v->scores[i] = v->kinds[i] == TOKEN_NORMAL ? -1e9f : 0;
    ids = map_new();
    for (uint64_t i = 0; i < v->n; i++)
        if (v->kinds[i] == TOKEN_NORMAL)
            map_put(ids, v->pieces[i], (void *)(uintptr_t)(i + 1));
    for (const json_val *m = json_first(v->merges); m; m = json_next(m), rank++) {
        slice left, right;
        if (!words_merge(m, &left, &right)) {
            map_free(ids);
            buf_clear(&both);
            return why_set(w, ERR_INVALID, "merges", "merge %d is not two pieces", rank);
        }
        buf_reset(&both);
        buf_put_slice(&both, left);
        buf_put_slice(&both, right);
        uintptr_t id = (uintptr_t)map_get(ids, buf_slice(&both));
        if (id && v->scores[id - 1] < -9e8f)
            v->scores[id - 1] = -(float)rank;
    }
    map_free(ids);
    buf_clear(&both);
    return 0;
}

/* Does the post-processor put the beginning of a text before it? */
static bool starts_with_special(const json_val *post)
{
    size_t n;
    const json_val *p = parts(post, "processors", &n);
    for (size_t i = 0; i < n; i++, p = json_next(p))
        if (is_type(p, "TemplateProcessing") &&
            json_get(json_first(json_get(p, "single")), "SpecialToken"))
            return true;
    return false;
}

int words_from_json(struct words *v, struct why *w)
{
    const json_val *root = json_doc_root(v->doc), *model = json_get(root, "model"),
                   *table = json_get(model, "vocab");
    const json_val *added = json_get(root, "added_tokens");
    bool bpe = is_type(model, "BPE") ||
               (json_absent(json_get(model, "type")) && json_get(model, "merges"));
    if (!bpe || json_kind(table) != JSON_KIND_OBJ ||
        !json_absent(json_get(model, "continuing_subword_prefix")) ||
        json_str_or(json_get(model, "end_of_word_suffix"), (slice){"", 0}).n)
        return unsupported(w, "model", model);
    if (!json_absent(json_get(model, "dropout")))
        return why_set(w, ERR_UNSUPPORTED, "model", "dropout makes ids random");
    v->spm = is_true(model, "byte_fallback", false);
    v->whole_words = is_true(model, "ignore_merges", false);
    v->merges = json_get(model, "merges");
    v->add_bos = starts_with_special(json_get(root, "post_processor"));
    const json_val *pre = json_get(root, "pre_tokenizer");
    int e = read_normalizer(v, json_get(root, "normalizer"), w);
    if (e == 0)
        e = v->spm ? read_one_word(v, pre, w) : read_byte_level(v, pre, w);
    if (e == 0)
        e = read_pieces(v, table, added, w);
    if (e == 0 && v->spm)
        e = score_pieces(v, w);
    if (e == 0)
        v->unk = words_find(v, json_str_or(json_get(model, "unk_token"), (slice){"", 0}));
    return e;
}
