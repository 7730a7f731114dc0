#include "gateway/proxies.h"

#include <arpa/inet.h>

/* Addresses are compared as 16 bytes, IPv4 as ::ffff:a.b.c.d. */
struct address {
    uint8_t b[16];
};

struct network {
    struct address first;
    unsigned bits;
};

struct proxies {
    size_t n;
    struct network list[PROXIES_MAX];
};

static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const struct address *a)
{
    return memcmp(a->b, MAPPED, sizeof MAPPED) == 0;
}

static bool from_bytes(slice bytes, struct address *out)
{
    if (bytes.n == 4) {
        memcpy(out->b, MAPPED, sizeof MAPPED);
        memcpy(out->b + sizeof MAPPED, bytes.p, 4);
    } else if (bytes.n == 16) {
        memcpy(out->b, bytes.p, 16);
    }
    return bytes.n == 4 || bytes.n == 16;
}

/* An address in text, as proxies write it: 1.2.3.4, 1.2.3.4:567, ::1, [::1], [::1]:567. */
static bool from_text(slice text, struct address *out)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t v4[4];
    const char *colon = memchr(text.p, ':', text.n), *bracket = memchr(text.p, ']', text.n);
    if (text.n && text.p[0] == '[' && bracket)
        text = (slice){text.p + 1, (size_t)(bracket - text.p) - 1};
    else if (colon && !memchr(colon + 1, ':', text.n - (size_t)(colon + 1 - text.p)))
        text.n = (size_t)(colon - text.p); /* one colon: a port */
    if (text.n == 0 || text.n >= sizeof host)
        return false;
    memcpy(host, text.p, text.n);
    host[text.n] = 0;
    if (inet_pton(AF_INET, host, v4) == 1)
        return from_bytes((slice){(const char *)v4, sizeof v4}, out);
    return inet_pton(AF_INET6, host, out->b) == 1;
}

static int add(proxies *p, slice text, struct why *w)
{
    struct network *n = &p->list[p->n];
    uint64_t bits = 0;
    const char *slash = memchr(text.p, '/', text.n);
    slice host = {text.p, slash ? (size_t)(slash - text.p) : text.n};
    if (p->n == PROXIES_MAX)
        return why_set(w, ERR_TOO_BIG, "trusted-proxies", "at most %d networks", PROXIES_MAX);
    bool ok = from_text(host, &n->first);
    uint64_t most = ok && is_v4(&n->first) ? 32 : 128;
    if (!slash)
        bits = most;
    else
        ok = ok && slice_u64((slice){slash + 1, text.n - host.n - 1}, &bits) == 0 && bits <= most;
    if (!ok)
        return why_set(w, ERR_INVALID, "trusted-proxies",
                       "'%.*s' is not an address or a network like 10.0.0.0/8",
                       (int)(text.n < 64 ? text.n : 64), text.p);
    n->bits = (unsigned)(bits + (128 - most));
    p->n++;
    return 0;
}

int proxies_new(const char *list, proxies **out, struct why *w)
{
    slice rest = slice_str(list ? list : ""), one;
    *out = NULL;
    if (slice_trim(rest).n == 0)
        return 0;
    proxies *p = xcalloc(1, sizeof *p);
    int e = 0;
    while (e == 0 && slice_split(&rest, ',', &one))
        if (slice_trim(one).n)
            e = add(p, slice_trim(one), w);
    if (e < 0) {
        free(p);
        return e;
    }
    *out = p;
    return 0;
}

void proxies_free(proxies *p)
{
    free(p);
}

static bool within(const struct network *n, const struct address *a)
{
    unsigned whole = n->bits / 8, rest = n->bits % 8;
    if (memcmp(n->first.b, a->b, whole) != 0)
        return false;
    return rest == 0 || (n->first.b[whole] ^ a->b[whole]) >> (8 - rest) == 0;
}

static bool trusted(const proxies *p, const struct address *a)
{
    for (size_t i = 0; p && i < p->n; i++)
        if (within(&p->list[i], a))
            return true;
    return false;
}

/* The last of the list, which is cut off. */
static slice last_of(slice *list)
{
    const char *comma = memrchr(list->p, ',', list->n);
    size_t at = comma ? (size_t)(comma + 1 - list->p) : 0;
    slice last = {list->p + at, list->n - at};
    list->n = comma ? at - 1 : 0;
    return slice_trim(last);
}

size_t proxies_client(const proxies *p, slice peer, slice forwarded, uint8_t out[CLIENT_BYTES_MAX])
{
    struct address client, before;
    if (!from_bytes(peer, &client))
        return 0;
    for (int hop = 0; hop < PROXIES_HOPS_MAX && forwarded.n && trusted(p, &client); hop++) {
        if (!from_text(last_of(&forwarded), &before))
            break; /* what is before it nobody vouches for */
        client = before;
    }
    size_t n = is_v4(&client) ? 4 : CLIENT_BYTES_MAX;
    memcpy(out, is_v4(&client) ? client.b + sizeof MAPPED : client.b, n);
    return n;
}
