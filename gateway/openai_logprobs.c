#include "gateway/openai_logprobs.h"

#include "common/wire/pb.h"

static void comma(struct logprob_text *t, buf *b)
{
    if (t->n)
        buf_put_byte(b, ',');
}

/* Tokens are bytes; text repairs what is no character, "bytes" has them as they are. */
static void put_token(struct json_out *j, slice text, double logprob)
{
    json_key(j, "token");
    json_str(j, text);
    json_kv_f64(j, "logprob", logprob);
    json_key(j, "bytes");
    json_arr(j);
    for (size_t i = 0; i < text.n; i++)
        json_u64(j, (unsigned char)text.p[i]);
    json_arr_end(j);
}

static void add_chat(struct logprob_text *t, const Nunchi__TokenLogprob *lp)
{
    struct json_out j;
    comma(t, &t->a);
    json_begin(&j, &t->a);
    json_obj(&j);
    put_token(&j, pb_slice(lp->text), (double)lp->logprob);
    json_key(&j, "top_logprobs");
    json_arr(&j);
    for (size_t i = 0; i < lp->n_top; i++) {
        json_obj(&j);
        put_token(&j, pb_slice(lp->top[i]->text), (double)lp->top[i]->logprob);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
}

static uint64_t characters(slice s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

/* The likeliest tokens are keys of one object: of two that read the same once what is no character
 * is repaired, the likelier (earlier) one stays. */
static void put_top_keys(struct json_out *j, const Nunchi__TokenLogprob *lp)
{
    buf keys = {0};
    size_t from[TOP_LOGPROBS_MAX + 1] = {0}, n = 0;
    json_obj(j);
    for (size_t i = 0; i < lp->n_top && n < TOP_LOGPROBS_MAX; i++) {
        utf8_put_lossy(&keys, pb_slice(lp->top[i]->text));
        slice key = {keys.p + from[n], keys.n - from[n]};
        bool seen = false;
        for (size_t k = 0; k < n; k++)
            seen |= slice_eq(key, (slice){keys.p + from[k], from[k + 1] - from[k]});
        if (seen) {
            keys.n = from[n];
            continue;
        }
        from[++n] = keys.n;
        buf text = {0};
        buf_put_slice(&text, key);
        json_kv_f64(j, buf_cstr(&text), (double)lp->top[i]->logprob);
        buf_clear(&text);
    }
    json_obj_end(j);
    buf_clear(&keys);
}

static void add_completion(struct logprob_text *t, uint64_t *offset, const Nunchi__TokenLogprob *lp)
{
    struct json_out j;
    buf *const parts[] = {&t->a, &t->b, &t->c, &t->d};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        comma(t, parts[i]);
    json_begin(&j, &t->a);
    json_str(&j, pb_slice(lp->text));
    json_begin(&j, &t->b);
    json_f64(&j, (double)lp->logprob);
    json_begin(&j, &t->c);
    put_top_keys(&j, lp);
    json_begin(&j, &t->d);
    json_u64(&j, *offset);
    *offset += characters(pb_slice(lp->text));
}

void logprobs_add_first(struct logprob_text *t, uint64_t *offset, slice text)
{
    struct json_out j;
    json_begin(&j, &t->a);
    json_str(&j, text);
    buf_put_str(&t->b, "null");
    buf_put_str(&t->c, "null");
    buf_put_str(&t->d, "0");
    *offset += characters(text);
    t->n++;
}

void logprobs_add(struct logprob_text *t, enum openai_api api, uint64_t *offset,
                  const Nunchi__TokenLogprob *lp)
{
    if (api == OPENAI_CHAT)
        add_chat(t, lp);
    else
        add_completion(t, offset, lp);
    t->n++;
}

static void put_list(struct json_out *j, const char *key, const buf *members)
{
    buf list = {0};
    buf_put_byte(&list, '[');
    if (members->n)
        buf_put_slice(&list, buf_slice(members));
    buf_put_byte(&list, ']');
    json_key(j, key);
    json_raw(j, buf_slice(&list));
    buf_clear(&list);
}

void logprobs_put(struct json_out *j, enum openai_api api, struct logprob_text *t)
{
    json_obj(j);
    if (api == OPENAI_CHAT) {
        put_list(j, "content", &t->a);
        json_key(j, "refusal");
        json_null(j);
    } else {
        put_list(j, "tokens", &t->a);
        put_list(j, "token_logprobs", &t->b);
        put_list(j, "top_logprobs", &t->c);
        put_list(j, "text_offset", &t->d);
    }
    json_obj_end(j);
    buf *const parts[] = {&t->a, &t->b, &t->c, &t->d};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        buf_reset(parts[i]);
    t->n = 0;
}

void logprobs_clear(struct logprob_text *t)
{
    buf_clear(&t->a);
    buf_clear(&t->b);
    buf_clear(&t->c);
    buf_clear(&t->d);
}
