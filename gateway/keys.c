#include "gateway/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <strings.h>
#include <unistd.h>

#include "gateway/limits.h"

struct key {
    struct digest digest; /* of the key: equal lengths to compare, and no key text in memory */
    struct tenant tenant;
    char *name;
};

struct keys {
    struct key *all;
    size_t n;
};

static struct digest hash_key(slice key)
{
    return digest_of((slice){0}, key);
}

/* PROTOCOL.md 6: keyed with the cluster's secret, over the name. */
static struct digest tenant_id(slice secret, slice name)
{
    struct digest k = secret.n ? digest_of((slice){0}, secret) : (struct digest){{0}};
    return digest_of(secret.n ? (slice){(const char *)k.b, DIGEST_BYTES} : (slice){0}, name);
}

static int add_key(keys *ks, slice name, slice key, slice secret)
{
    struct key *k = &ks->all[ks->n++];
    k->digest = hash_key(key);
    if (name.n) {
        k->name = slice_dup(name);
    } else {
        char hex[17] = "key-";
        hex_encode(k->digest.b, 4, hex + 4);
        k->name = xstrdup(hex);
    }
    struct digest id = tenant_id(secret, slice_str(k->name));
    memcpy(k->tenant.id, id.b, DIGEST_BYTES);
    k->tenant.name = k->name;
    return 0;
}

static int add_line(keys *ks, slice line, size_t number, slice secret, struct why *w)
{
    line = slice_trim(line);
    if (line.n == 0 || line.p[0] == '#')
        return 0;
    slice name = {0}, key = line;
    const char *colon = memchr(line.p, ':', line.n);
    if (colon) {
        name = slice_trim((slice){line.p, (size_t)(colon - line.p)});
        key = slice_trim((slice){colon + 1, line.n - (size_t)(colon - line.p) - 1});
    }
    if (key.n < KEY_BYTES_MIN || key.n > KEY_BYTES_MAX)
        return why_set(w, ERR_INVALID, "keys", "line %zu: a key has %d to %d characters", number,
                       KEY_BYTES_MIN, KEY_BYTES_MAX);
    if (name.n > NAME_BYTES_MAX || ks->n == KEYS_MAX)
        return why_set(w, ERR_TOO_BIG, "keys",
                       "line %zu: at most %d keys, names of at most %d bytes", number, KEYS_MAX,
                       NAME_BYTES_MAX);
    return add_key(ks, name, key, secret);
}

int keys_parse(slice text, slice secret, keys **out, struct why *w)
{
    keys *ks = xcalloc(1, sizeof *ks);
    slice line;
    int e = 0;
    ks->all = xcalloc(KEYS_MAX, sizeof *ks->all);
    *out = NULL;
    for (size_t number = 1; e == 0 && slice_split(&text, '\n', &line); number++)
        e = add_line(ks, line, number, secret, w);
    if (e == 0 && ks->n == 0)
        e = why_set(w, ERR_INVALID, "keys", "the file has no keys");
    if (e < 0) {
        keys_free(ks);
        return e;
    }
    *out = ks;
    return 0;
}

int read_small_file(const char *path, size_t max_bytes, buf *out, struct why *w)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return why_set(w, err_from_errno(errno), "", "%s: %s", path, strerror(errno));
    char piece[4096];
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || out->n + (size_t)n > max_bytes)
            break;
        buf_put(out, piece, (size_t)n);
    }
    int err = errno;
    close(fd);
    if (n < 0)
        return why_set(w, ERR_IO, "", "%s: %s", path, strerror(err));
    return n > 0 ? why_set(w, ERR_TOO_BIG, "", "%s: more than %zu bytes", path, max_bytes) : 0;
}

int keys_load(const char *path, slice secret, keys **out, struct why *w)
{
    buf text = {0};
    int e = read_small_file(path, KEY_FILE_BYTES_MAX, &text, w);
    if (e == 0)
        e = keys_parse(buf_slice(&text), secret, out, w);
    buf_clear(&text);
    return e;
}

void keys_free(keys *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++)
        free(k->all[i].name);
    free(k->all);
    free(k);
}

size_t keys_count(const keys *k)
{
    return k ? k->n : 0;
}

int keys_check(const keys *k, slice authorization, struct tenant *out, struct why *w)
{
    static const char SCHEME[] = "Bearer ";
    const struct key *found = NULL;
    *out = (struct tenant){.name = ""};
    if (!k)
        return 0;
    if (authorization.n < sizeof SCHEME - 1 ||
        strncasecmp(authorization.p, SCHEME, sizeof SCHEME - 1) != 0)
        return why_set(w, ERR_AUTH, "",
                       "send your API key in the header 'Authorization: Bearer KEY'");
    slice key = slice_trim(
        (slice){authorization.p + sizeof SCHEME - 1, authorization.n - (sizeof SCHEME - 1)});
    struct digest d = hash_key(key);
    for (size_t i = 0; i < k->n; i++) {
        const struct key *c = &k->all[i];
        bool same = slice_eq_secret((slice){(const char *)c->digest.b, DIGEST_BYTES},
                                    (slice){(const char *)d.b, DIGEST_BYTES});
        found = same ? c : found;
    }
    if (!found)
        return why_set(w, ERR_AUTH, "", "this API key is not known here");
    *out = found->tenant;
    return 0;
}
