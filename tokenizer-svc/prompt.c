#include "tokenizer-svc/prompt.h"

static struct prompt_part *add(struct prompt *p)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 32;
        p->parts = xrealloc(p->parts, p->cap, sizeof *p->parts);
    }
    p->parts[p->n] = (struct prompt_part){0};
    return &p->parts[p->n++];
}

void prompt_text(struct prompt *p, slice s)
{
    if (s.n == 0)
        return;
    if (p->n == 0 || p->parts[p->n - 1].kind != PROMPT_TEXT)
        *add(p) = (struct prompt_part){.kind = PROMPT_TEXT, .from = p->text.n};
    buf_put_slice(&p->text, s);
    p->parts[p->n - 1].len += s.n;
}

void prompt_special(struct prompt *p, int32_t id)
{
    *add(p) = (struct prompt_part){.kind = PROMPT_SPECIAL, .id = id};
}

void prompt_video(struct prompt *p)
{
    *add(p) = (struct prompt_part){.kind = PROMPT_VIDEO};
}

void prompt_video_end(struct prompt *p)
{
    *add(p) = (struct prompt_part){.kind = PROMPT_VIDEO_END};
}

void prompt_clear(struct prompt *p)
{
    buf_clear(&p->text);
    free(p->parts);
    *p = (struct prompt){0};
}

int prompt_encode(const struct prompt *p, const tokenizer *t, tok_scratch *s, struct ids *out,
                  struct prompt_span *spans, size_t max_spans, struct why *w)
{
    size_t video = 0;
    bool once = vocab_prefix_once(tokenizer_vocab(t));
    for (size_t i = 0; i < p->n; i++) {
        const struct prompt_part *q = &p->parts[i];
        bool starts = i == 0 || (p->parts[i - 1].kind == PROMPT_SPECIAL && !once);
        int e = 0;
        if (q->kind == PROMPT_TEXT)
            e = tokenizer_encode(t, s, (slice){p->text.p + q->from, q->len}, starts, out, w);
        else if (q->kind == PROMPT_SPECIAL)
            e = ids_put(out, q->id);
        else if (q->kind == PROMPT_VIDEO && video < max_spans)
            spans[video].from = out->n;
        else if (q->kind == PROMPT_VIDEO_END && video < max_spans)
            spans[video++].to = out->n;
        if (e < 0)
            return e;
    }
    return 0;
}
