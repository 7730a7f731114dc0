#include "cli/sse.h"

static void end_line(struct sse *s)
{
    slice line = buf_slice(&s->line);
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    if (slice_starts(line, SLICE_LIT("data:")) && s->data)
        s->data(s->ctx, slice_trim((slice){line.p + 5, line.n - 5}));
    else if (line.n > 0 && line.p[0] == ':' && s->comment)
        s->comment(s->ctx, slice_trim((slice){line.p + 1, line.n - 1}));
    buf_reset(&s->line);
}

int sse_feed(struct sse *s, slice bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.p[i] == '\n') {
            end_line(s);
            continue;
        }
        if (s->line.n >= SSE_LINE_MAX)
            return ERR_TOO_BIG;
        buf_put_byte(&s->line, (unsigned char)bytes.p[i]);
    }
    return 0;
}

void sse_clear(struct sse *s)
{
    buf_clear(&s->line);
}
