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

/* Bytes of white space at one end of s, as Unicode has it. */
static size_t blanks(slice s, bool at_end)
{
    size_t done = 0;
    while (done < s.n) {
        uint32_t cp;
        size_t n = 1;
        while (at_end && n < 4 && n < s.n - done &&
               ((unsigned char)s.p[s.n - done - n] & 0xc0) == 0x80)
            n++;
        const char *p = at_end ? s.p + s.n - done - n : s.p + done;
        n = utf8_decode(p, at_end ? n : s.n - done, &cp);
        if (n == 0 || !utf8_is_space(cp))
            break;
        done += n;
    }
    return done;
}

void prompt_text(struct prompt *p, slice s)
{
    if (p->swallowing) {
        size_t n = blanks(s, false);
        s = (slice){s.p + n, s.n - n};
    }
    if (s.n == 0)
        return;
    p->swallowing = false;
    if (p->n == 0 || p->parts[p->n - 1].kind != PROMPT_TEXT)
        *add(p) = (struct prompt_part){.kind = PROMPT_TEXT, .from = p->text.n};
    buf_put_slice(&p->text, s);
    p->parts[p->n - 1].len += s.n;
}

void prompt_special(struct prompt *p, int32_t id)
{
    prompt_special_strips(p, id, 0);
}

void prompt_special_strips(struct prompt *p, int32_t id, int strips)
{
    struct prompt_part *last = p->n ? &p->parts[p->n - 1] : NULL;
    if ((strips & STRIPS_BEFORE) && last && last->kind == PROMPT_TEXT) {
        size_t n = blanks((slice){p->text.p + last->from, last->len}, true);
        last->len -= n;
        p->text.n -= n;
        p->n -= last->len == 0;
    }
    *add(p) = (struct prompt_part){.kind = PROMPT_SPECIAL, .id = id};
    p->swallowing = (strips & STRIPS_AFTER) != 0;
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
