/* POST /tokenize and /detokenize: texts to a model's ids and back, in the shapes that vLLM gave
 * these paths. */
#include "common/json/json.h"
#include "common/wire/pb.h"
#include "gateway/api_impl.h"

#define WORDS_BODY_MAX (1u << 20) /* parsed on the loop: some milliseconds */
#define WORDS_IDS_MAX 131072
#define MODEL_NAME_MAX 256

static const struct json_limits LIMITS = {.max_bytes = WORDS_BODY_MAX,
                                          .max_depth = 8,
                                          .max_nodes = WORDS_IDS_MAX + 16,
                                          .allow_nul = true};

void words_body(struct ex *x, slice bytes)
{
    struct why w;
    if (http_answered(x->h))
        return;
    if (x->body.n + bytes.n <= WORDS_BODY_MAX) {
        buf_put_slice(&x->body, bytes);
        return;
    }
    why_set(&w, ERR_TOO_BIG, "", "the body has more than %u bytes", WORDS_BODY_MAX);
    api_fail_err(x, ERR_TOO_BIG, &w);
    buf_clear(&x->body);
}

void words_over(struct ex *x)
{
    if (x->call)
        gw_call_cancel(x->a->g, x->call);
}

/* True: it failed, and that was answered. */
static bool failed(struct ex *x, const struct gw_fail *f)
{
    x->call = 0;
    if (f)
        api_fail(x, f);
    return f != NULL;
}

static void broken(struct ex *x)
{
    struct why w;
    why_set(&w, ERR_PROTO, "", "the tokenizer answered something else");
    api_fail_err(x, ERR_PROTO, &w);
}

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void on_ids(void *ctx, const struct gw_fail *f, const Nunchi__TokenReply *r,
                   const struct wire_msg *m)
{
    struct ex *x = ctx;
    buf out = {0};
    struct json_out j;
    if (failed(x, f))
        return;
    const Nunchi__Tokenized *t =
        r->op_case == NUNCHI__TOKEN_REPLY__OP_TOKENIZED ? r->tokenized : NULL;
    if (!t || m->n_frames < 1 || m->frames[0].n != (size_t)t->n_tokens * 4) {
        broken(x);
        return;
    }
    json_begin(&j, &out);
    json_obj(&j);
    json_kv_u64(&j, "count", t->n_tokens);
    json_kv_u64(&j, "max_model_len", t->n_context);
    json_key(&j, "tokens");
    json_arr(&j);
    for (size_t i = 0; i < t->n_tokens; i++)
        json_u64(&j, le32((const uint8_t *)m->frames[0].p + 4 * i));
    json_arr_end(&j);
    json_obj_end(&j);
    api_json(x, 200, buf_slice(&out));
    buf_clear(&out);
}

static void on_text(void *ctx, const struct gw_fail *f, const Nunchi__TokenReply *r,
                    const struct wire_msg *m UNUSED)
{
    struct ex *x = ctx;
    buf out = {0};
    struct json_out j;
    if (failed(x, f))
        return;
    if (r->op_case != NUNCHI__TOKEN_REPLY__OP_DETOKENIZED) {
        broken(x);
        return;
    }
    json_begin(&j, &out);
    json_obj(&j);
    json_kv_str(&j, "prompt", pb_slice(r->detokenized->text));
    json_obj_end(&j);
    api_json(x, 200, buf_slice(&out));
    buf_clear(&out);
}

/* The body as an object with known members and a model's name. */
static int read_body(struct ex *x, const char *const *known, size_t n, json_doc **d, slice *model,
                     struct why *w)
{
    int e = json_doc_parse(buf_slice(&x->body), &LIMITS, d, w);
    const json_val *root = e < 0 ? NULL : json_doc_root(*d);
    if (e >= 0)
        e = json_need_obj(root, w);
    if (e >= 0)
        e = json_only(root, known, n, w);
    if (e >= 0)
        e = json_req_str(root, "model", MODEL_NAME_MAX, model, w);
    return e;
}

static void ask(struct ex *x, Nunchi__TokenRequest *q, slice model, slice ids, gw_words_fn fn)
{
    struct gw_fail f;
    if (gw_words(x->a->g, loop_now_us(x->a->l), q, model, ids, fn, x, &x->call, &f) < 0)
        api_fail(x, &f);
}

static int tokenize(struct ex *x, json_doc **d, struct why *w)
{
    static const char *const KNOWN[] = {"model", "prompt", "add_special_tokens"};
    Nunchi__TokenRequest q = NUNCHI__TOKEN_REQUEST__INIT;
    Nunchi__Tokenize t;
    Nunchi__Prompt p;
    Nunchi__ChatPart part, *parts[] = {&part};
    slice model, text;
    bool special = true;
    int e = read_body(x, KNOWN, ARRAY_LEN(KNOWN), d, &model, w);
    if (e >= 0)
        e = json_req_str(json_doc_root(*d), "prompt", WORDS_BODY_MAX, &text, w);
    if (e >= 0)
        e = json_opt_bool(json_doc_root(*d), "add_special_tokens", &special, w);
    if (e < 0)
        return e;
    nunchi__tokenize__init(&t);
    nunchi__prompt__init(&p);
    nunchi__chat_part__init(&part);
    part.part_case = NUNCHI__CHAT_PART__PART_TEXT;
    part.text = pb_bytes(text);
    p.parts = parts;
    p.n_parts = 1;
    p.add_special = special;
    t.model = slice_dup(model);
    t.tenant = pb_bytes((slice){(const char *)x->tenant.id, sizeof x->tenant.id});
    t.input_case = NUNCHI__TOKENIZE__INPUT_PROMPT;
    t.prompt = &p;
    q.op_case = NUNCHI__TOKEN_REQUEST__OP_TOKENIZE;
    q.tokenize = &t;
    ask(x, &q, model, (slice){0}, on_ids);
    free(t.model);
    return 0;
}

static int read_ids(const json_val *root, buf *out, struct why *w)
{
    const json_val *list;
    int e = json_req(root, "tokens", &list, w);
    if (e >= 0)
        e = json_need_arr(list, 1, WORDS_IDS_MAX, w);
    for (const json_val *v = e < 0 ? NULL : json_first(list); v && e >= 0; v = json_next(v)) {
        int64_t id = 0;
        e = json_to_i64(v, 0, INT32_MAX, &id, w);
        for (int i = 0; i < 4; i++)
            buf_put_byte(out, (unsigned char)(id >> (8 * i)));
    }
    return e;
}

static int detokenize(struct ex *x, json_doc **d, struct why *w)
{
    static const char *const KNOWN[] = {"model", "tokens"};
    Nunchi__TokenRequest q = NUNCHI__TOKEN_REQUEST__INIT;
    Nunchi__Detokenize t;
    slice model;
    buf ids = {0};
    int e = read_body(x, KNOWN, ARRAY_LEN(KNOWN), d, &model, w);
    if (e >= 0)
        e = read_ids(json_doc_root(*d), &ids, w);
    if (e >= 0) {
        nunchi__detokenize__init(&t);
        t.model = slice_dup(model);
        q.op_case = NUNCHI__TOKEN_REQUEST__OP_DETOKENIZE;
        q.detokenize = &t;
        ask(x, &q, model, buf_slice(&ids), on_text);
        free(t.model);
    }
    buf_clear(&ids);
    return e;
}

static void begin(struct ex *x, int (*fn)(struct ex *x, json_doc **d, struct why *w))
{
    struct why w = {.text = ""};
    json_doc *d = NULL;
    int e = fn(x, &d, &w);
    if (e < 0)
        api_fail_err(x, e, &w);
    json_doc_free(d);
    buf_clear(&x->body);
}

void words_tokenize(struct ex *x)
{
    begin(x, tokenize);
}

void words_detokenize(struct ex *x)
{
    begin(x, detokenize);
}
