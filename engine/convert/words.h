/* A model's tokenizer as GGUF keys: from tokenizer.json (byte-level BPE, and BPE with bytes to fall
 * back on), or from SentencePiece's tokenizer.model; special tokens and the chat template from the
 * files beside it. What the tokenizer service does not compute alike is refused, naming the part.
 */
#ifndef NUNCHI_CONVERT_WORDS_H
#define NUNCHI_CONVERT_WORDS_H

#include "engine/convert/gguf_out.h"
#include "engine/convert/source.h"

#define WORDS_SPLIT_MAX 4096 /* bytes of a pattern that cuts text into words */

/* n_vocab: rows of the embedding; ids beyond the tokenizer's are padding. */
int words_write(const source *s, uint64_t n_vocab, struct gguf_out *out, struct why *w) MUST_USE;

/* ---- for its own files ---- */

struct words {
    slice *pieces; /* (n); borrowed from the documents, or from texts */
    float *scores;
    int32_t *kinds; /* enum token_kind; 0: no token has the id */
    uint64_t n;
    bool spm; /* GGUF's "llama", else "gpt2" */
    bool add_space, add_bos;
    json_doc *doc; /* tokenizer.json; NULL */
    buf model;     /* tokenizer.model */
    const json_val *merges;
    const char *pre; /* tokenizer.ggml.pre; NULL: split */
    slice split;     /* the pattern, where no name is known for it */
    bool whole_words;
    const char *normal;               /* "nfc" …; NULL: none */
    bool prefix_once, prefix_missing; /* of add_space: engine.h */
    int32_t bos, eos, unk, pad;       /* -1: none */
};

int words_from_json(struct words *v, struct why *w) MUST_USE;  /* v->doc is set */
int words_from_model(struct words *v, struct why *w) MUST_USE; /* v->model is set */
int words_set(struct words *v, int64_t id, slice piece, int kind, struct why *w) MUST_USE;
int32_t words_find(const struct words *v, slice piece); /* -1 */
bool words_merge(const json_val *m, slice *left, slice *right);

#endif
