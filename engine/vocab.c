/* The vocabulary of a model file: copied out, checked, and indexed for the two questions that
 * tokenizers ask all the time: which id has this text, and what do these two ids merge into. */
#include "engine/vocab_int.h"

void vocab_close(vocab *v)
{
    if (!v)
        return;
    free(v->text);
    free(v->bytes);
    free(v->piece_at);
    free(v->bytes_at);
    free(v->kinds);
    free(v->strips);
    free(v->scores);
    free(v->by_piece);
    free(v->merges);
    free(v->pre);
    free(v->split);
    free(v->chat);
    free(v->ends);
    free(v);
}

enum vocab_kind vocab_model(const vocab *v)
{
    return v->kind;
}

slice vocab_pretokenizer(const vocab *v)
{
    return slice_str(v->pre);
}

slice vocab_split(const vocab *v, enum vocab_normal *normal)
{
    *normal = v->normal;
    return slice_str(v->split);
}

bool vocab_whole_words(const vocab *v)
{
    return v->whole_words;
}

slice vocab_chat_template(const vocab *v)
{
    return (slice){v->chat, v->chat_len};
}

int32_t vocab_size(const vocab *v)
{
    return (int32_t)v->n;
}

static bool in_range(const vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->n;
}

slice vocab_piece(const vocab *v, int32_t id)
{
    if (!in_range(v, id))
        return (slice){"", 0};
    return (slice){v->text + v->piece_at[id], v->piece_at[id + 1] - v->piece_at[id]};
}

slice vocab_bytes(const vocab *v, int32_t id)
{
    if (!in_range(v, id))
        return (slice){"", 0};
    return (slice){v->bytes + v->bytes_at[id], v->bytes_at[id + 1] - v->bytes_at[id]};
}

enum token_kind vocab_token_kind(const vocab *v, int32_t id)
{
    return in_range(v, id) ? (enum token_kind)v->kinds[id] : TOKEN_UNUSED;
}

float vocab_score(const vocab *v, int32_t id)
{
    return in_range(v, id) && v->scores ? v->scores[id] : 0.0f;
}

int32_t vocab_find(const vocab *v, slice piece)
{
    for (uint32_t i = (uint32_t)hash64(piece.p, piece.n) & v->piece_mask;;
         i = (i + 1) & v->piece_mask) {
        int32_t id = v->by_piece[i];
        if (id == TOKEN_NONE || slice_eq(vocab_piece(v, id), piece))
            return id;
    }
}

int32_t vocab_byte_token(const vocab *v, unsigned char b)
{
    return v->byte_ids[b];
}

/* Spreads a pair of ids over the table: odd multipliers, then the high bits down. */
uint32_t vocab_pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)((h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9) >> 32);
}

int32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right, int32_t *merged)
{
    if (!v->merges || left < 0 || right < 0)
        return -1;
    for (uint32_t i = vocab_pair_hash(left, right) & v->merge_mask;; i = (i + 1) & v->merge_mask) {
        const struct merge *m = &v->merges[i];
        if (m->rank < 0)
            return -1;
        if (m->left == left && m->right == right) {
            *merged = m->id;
            return m->rank;
        }
    }
}

int32_t vocab_bos(const vocab *v)
{
    return v->bos;
}

int32_t vocab_eos(const vocab *v)
{
    return v->eos;
}

bool vocab_add_bos(const vocab *v)
{
    return v->add_bos;
}

bool vocab_add_space_prefix(const vocab *v)
{
    return v->add_space_prefix;
}

bool vocab_prefix_once(const vocab *v)
{
    return v->prefix_once;
}

bool vocab_prefix_missing(const vocab *v)
{
    return v->prefix_missing;
}

int vocab_strips(const vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->n ? v->strips[id] : 0;
}

bool vocab_is_end(const vocab *v, int32_t id)
{
    for (size_t i = 0; i < v->n_ends; i++)
        if (v->ends[i] == id)
            return true;
    return false;
}

size_t vocab_ends(const vocab *v, const int32_t **ids)
{
    *ids = v->ends;
    return v->n_ends;
}
