#include "common/wire/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define KEY_FILE_MAX ((size_t)1 << 20) /* 25 000 keys */

static const char z85_digits[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

int keys_decode(slice text, unsigned char out[KEY_BYTES])
{
    if (text.n != KEY_TEXT)
        return ERR_INVALID;
    for (size_t group = 0; group < KEY_TEXT / 5; group++) {
        uint64_t v = 0;
        for (size_t i = 0; i < 5; i++) {
            char c = text.p[group * 5 + i];
            const char *at = c ? strchr(z85_digits, c) : NULL;
            if (!at)
                return ERR_INVALID;
            v = v * 85 + (uint64_t)(at - z85_digits);
        }
        if (v > UINT32_MAX)
            return ERR_INVALID;
        for (size_t i = 0; i < 4; i++)
            out[group * 4 + i] = (unsigned char)(v >> (24 - 8 * i));
    }
    return 0;
}

static int read_all(int fd, buf *out)
{
    for (;;) {
        if (out->n > KEY_FILE_MAX)
            return ERR_TOO_BIG;
        CHECK(buf_try_reserve(out, 4096) == 0);
        ssize_t n = read(fd, out->p + out->n, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? ERR_IO : 0;
        out->n += (size_t)n;
    }
}

static int read_file(const char *path, const char *option, buf *out, struct why *w)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return why_set(w, ERR_IO, option, "the key file cannot be opened: %s", strerror(errno));
    int e = read_all(fd, out);
    close(fd);
    if (e == ERR_TOO_BIG)
        return why_set(w, e, option, "the key file is larger than %zu bytes", KEY_FILE_MAX);
    return e < 0 ? why_set(w, e, option, "the key file cannot be read") : 0;
}

/* The next line that is neither empty nor a comment. */
static bool next_line(slice *rest, slice *line)
{
    while (slice_split(rest, '\n', line)) {
        *line = slice_trim(*line);
        /* '#' is a Z85 digit too: a line of exactly one key's length is a key if it decodes as one
         */
        unsigned char key[KEY_BYTES];
        if (line->n && (line->p[0] != '#' || keys_decode(*line, key) == 0))
            return true;
    }
    return false;
}

int keys_read_pair(const char *path, struct key_pair *out, struct why *w)
{
    static const char option[] = "curve-key-file";
    buf text = {0};
    int e = read_file(path, option, &text, w);
    slice rest = buf_slice(&text), public_key = {0}, secret_key = {0}, more;
    unsigned char key[KEY_BYTES];
    if (e == 0 && (!next_line(&rest, &public_key) || !next_line(&rest, &secret_key) ||
                   next_line(&rest, &more) || keys_decode(public_key, key) < 0 ||
                   keys_decode(secret_key, key) < 0))
        e = why_set(w, ERR_INVALID, option,
                    "the key file must hold two lines: a public and a secret key of 40 characters");
    else if (e == 0) {
        memcpy(out->public_key, public_key.p, KEY_TEXT);
        memcpy(out->secret_key, secret_key.p, KEY_TEXT);
        out->public_key[KEY_TEXT] = out->secret_key[KEY_TEXT] = '\0';
    }
    explicit_bzero(key, sizeof key);
    if (text.p)
        explicit_bzero(text.p, text.n);
    buf_clear(&text);
    return e;
}

int keys_read_allowed(const char *path, map **out, struct why *w)
{
    static const char option[] = "curve-allow-file";
    buf text = {0};
    int e = read_file(path, option, &text, w);
    map *allowed = map_new();
    slice rest = buf_slice(&text), line;
    while (e == 0 && next_line(&rest, &line)) {
        unsigned char key[KEY_BYTES];
        e = keys_decode(line, key);
        if (e < 0)
            e = why_set(w, e, option, "key %zu is not 40 characters of Z85", map_len(allowed) + 1);
        else
            map_put(allowed, (slice){(const char *)key, sizeof key}, allowed);
    }
    buf_clear(&text);
    if (e < 0)
        map_free(allowed);
    else
        *out = allowed;
    return e;
}
