#include "model-svc/stop.h"

static void build_fail(uint16_t *fail, slice s)
{
    fail[0] = 0;
    uint16_t k = 0;
    for (size_t i = 1; i < s.n; i++) {
        while (k > 0 && s.p[i] != s.p[k])
            k = fail[k - 1];
        if (s.p[i] == s.p[k])
            k++;
        fail[i] = k;
    }
}

void stops_init(struct stop_set *set, const slice *texts, size_t n)
{
    CHECK(n <= STOPS_MAX);
    set->n = n;
    for (size_t i = 0; i < n; i++) {
        CHECK(texts[i].n > 0 && texts[i].n <= STOP_BYTES_MAX);
        set->text[i] = texts[i];
        build_fail(set->fail[i], texts[i]);
    }
}

/* How much of string s the bytes end with once c has come. A full match is reported, not continued.
 */
static uint16_t advance(const struct stop_set *set, size_t s, uint16_t k, char c)
{
    slice t = set->text[s];
    while (k > 0 && t.p[k] != c)
        k = set->fail[s][k - 1];
    return t.p[k] == c ? (uint16_t)(k + 1) : k;
}

static void release(struct stop_state *st, size_t n, buf *out)
{
    buf_put(out, st->held, n);
    memmove(st->held, st->held + n, st->n_held - n);
    st->n_held = (uint16_t)(st->n_held - n);
}

int stops_feed(const struct stop_set *set, struct stop_state *st, slice bytes, buf *out)
{
    if (set->n == 0) {
        buf_put_slice(out, bytes);
        return -1;
    }
    for (size_t i = 0; i < bytes.n; i++) {
        size_t longest = 0;
        int hit = -1;
        for (size_t s = 0; s < set->n; s++) {
            uint16_t k = st->matched[s] = advance(set, s, st->matched[s], bytes.p[i]);
            if (k == set->text[s].n && (hit < 0 || k > set->text[hit].n))
                hit = (int)s;
            longest = k > longest ? k : longest;
        }
        /* held always has what the longest partial match before this byte covers: at most
         * STOP_BYTES_MAX - 1 */
        st->held[st->n_held++] = bytes.p[i];
        if (hit >= 0) {
            release(st, st->n_held - set->text[hit].n, out);
            return hit;
        }
        release(st, st->n_held - longest, out);
    }
    return -1;
}

slice stops_held(const struct stop_state *st)
{
    return (slice){st->held, st->n_held};
}
