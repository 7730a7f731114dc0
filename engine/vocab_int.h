/* Inside libengine: a vocabulary's tables. engine/vocab_load.c fills them, engine/vocab.c answers
 * from them. */
#ifndef NUNCHI_ENGINE_VOCAB_INT_H
#define NUNCHI_ENGINE_VOCAB_INT_H

#include "engine/engine.h"

#define VOCAB_PIECE_MAX 65536       /* bytes of one piece */
#define VOCAB_TEXT_MAX (256u << 20) /* bytes of all pieces: offsets are 32 bits */
#define VOCAB_MERGES_MAX 4194304
#define VOCAB_TEMPLATE_MAX (1u << 20) /* bytes of the chat template */
#define VOCAB_PRE_MAX 64
#define VOCAB_SPLIT_MAX 4096 /* bytes of a pattern that cuts words */
#define VOCAB_ENDS_MAX 32

struct merge {
    int32_t left, right, id;
    int32_t rank; /* -1: a free place */
};

struct vocab {
    enum vocab_kind kind;
    uint32_t n;
    char *text;         /* all pieces as stored */
    uint32_t *piece_at; /* (n + 1) offsets into text */
    char *bytes;        /* all pieces as they read in text */
    uint32_t *bytes_at; /* (n + 1) */
    uint8_t *kinds;     /* (n) enum token_kind */
    uint8_t *strips;    /* (n) enum token_strip */
    float *scores;      /* (n), NULL for BPE */
    int32_t *by_piece;  /* (piece_mask + 1) open addressing; TOKEN_NONE is free */
    uint32_t piece_mask;
    struct merge *merges; /* (merge_mask + 1), NULL for SPM */
    uint32_t merge_mask;
    int32_t byte_ids[256];
    int32_t bos, eos;
    bool add_bos, add_space_prefix;
    char *pre, *split, *chat;
    size_t chat_len;
    enum vocab_normal normal;
    bool whole_words, prefix_once, prefix_missing;
    int32_t *ends; /* ascending */
    size_t n_ends;
};

uint32_t vocab_pair_hash(int32_t left, int32_t right);

#endif
