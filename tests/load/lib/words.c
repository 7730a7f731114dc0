#include "tests/load/lib/words.h"

#define VOCAB (36 * 36 * 36)

uint64_t words_sum(uint64_t sum, slice bytes)
{
    for (size_t i = 0; i < bytes.n; i++)
        sum = (sum ^ (unsigned char)bytes.p[i]) * UINT64_C(1099511628211);
    return sum;
}

void words_ids(slice text, buf *ids)
{
    for (size_t at = 0; at < text.n; at += 4) {
        unsigned char four[4] = {0};
        memcpy(four, text.p + at, text.n - at < 4 ? text.n - at : 4);
        four[3] &= 0x7f;
        buf_put(ids, four, 4);
    }
}

uint64_t words_prompt(slice ids)
{
    return words_sum(WORDS_BEGIN, ids);
}

int32_t words_id(uint64_t prompt, uint32_t choice, uint32_t position)
{
    uint64_t v = prompt + ((uint64_t)choice << 32 | position) * UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ (v >> 30)) * UINT64_C(0xbf58476d1ce4e5b9); /* splitmix64's mixing */
    return (int32_t)((v ^ (v >> 31)) % VOCAB);
}

static const char DIGITS[] = "0123456789abcdefghijklmnopqrstuvwxyz";
#define STAMP_DIGITS 10

slice words_stamp(uint64_t us, char out[WORD_MAX])
{
    out[0] = ' ';
    out[1] = '@';
    for (int i = 1 + STAMP_DIGITS; i > 1; i--, us /= 36)
        out[i] = DIGITS[us % 36];
    return (slice){out, 2 + STAMP_DIGITS};
}

uint64_t words_stamp_of(slice text)
{
    uint64_t us = 0;
    if (text.n < 2 + STAMP_DIGITS || text.p[0] != ' ' || text.p[1] != '@')
        return 0;
    for (size_t i = 2; i < 2 + STAMP_DIGITS; i++) {
        const char *digit = text.p[i] ? strchr(DIGITS, text.p[i]) : NULL;
        us = us * 36 + (digit ? (uint64_t)(digit - DIGITS) : 0);
    }
    return us;
}

slice words_text(int32_t id, char out[WORD_MAX])
{
    out[0] = ' ';
    for (int i = 3; i > 0; i--, id /= 36)
        out[i] = DIGITS[id % 36];
    return (slice){out, 4};
}

uint64_t words_answer(uint64_t prompt, uint32_t choice, uint32_t n)
{
    uint64_t sum = WORDS_BEGIN;
    char word[WORD_MAX];
    for (uint32_t i = 0; i < n; i++)
        sum = words_sum(sum, words_text(words_id(prompt, choice, i), word));
    return sum;
}
