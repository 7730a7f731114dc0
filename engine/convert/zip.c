#include "engine/convert/zip.h"

#include "common/base/map.h"

#define END_BYTES 22
#define END64_BYTES 56
#define LOCATOR_BYTES 20
#define CENTRAL_BYTES 46
#define LOCAL_BYTES 30
#define COMMENT_MAX 65535
#define SIGN_END 0x06054b50u
#define SIGN_END64 0x06064b50u
#define SIGN_LOCATOR 0x07064b50u
#define SIGN_CENTRAL 0x02014b50u
#define SIGN_LOCAL 0x04034b50u

struct zip {
    const uint8_t *p;
    size_t n;
    struct zip_entry *entries;
    size_t n_entries;
    map *by_name; /* index + 1 */
};

static uint64_t number(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static bool inside(const zip *z, uint64_t at, uint64_t n)
{
    return at <= z->n && n <= z->n - at;
}

static bool signed_at(const zip *z, uint64_t at, uint64_t n, uint32_t sign)
{
    return inside(z, at, n) && number(z->p + at, 4) == sign;
}

/* The last record of the archive; behind it only a comment may follow. */
static bool find_end(const zip *z, size_t *at)
{
    if (z->n < END_BYTES)
        return false;
    size_t least = z->n > END_BYTES + COMMENT_MAX ? z->n - END_BYTES - COMMENT_MAX : 0;
    for (size_t i = z->n - END_BYTES + 1; i-- > least;)
        if (signed_at(z, i, END_BYTES, SIGN_END) &&
            i + END_BYTES + number(z->p + i + 20, 2) == z->n) {
            *at = i;
            return true;
        }
    return false;
}

struct central {
    uint64_t at, n_entries;
};

static int find_central(const zip *z, struct central *out, struct why *w)
{
    size_t end;
    if (!find_end(z, &end))
        return why_set(w, ERR_INVALID, "zip", "not a Zip archive, or cut off");
    *out = (struct central){number(z->p + end + 16, 4), number(z->p + end + 10, 2)};
    if (end >= LOCATOR_BYTES && signed_at(z, end - LOCATOR_BYTES, LOCATOR_BYTES, SIGN_LOCATOR)) {
        uint64_t at = number(z->p + end - LOCATOR_BYTES + 8, 8);
        if (!signed_at(z, at, END64_BYTES, SIGN_END64))
            return why_set(w, ERR_INVALID, "zip",
                           "the end record of the Zip64 archive is not where it should be");
        *out = (struct central){number(z->p + at + 48, 8), number(z->p + at + 32, 8)};
    }
    if (out->n_entries > ZIP_ENTRIES_MAX)
        return why_set(w, ERR_TOO_BIG, "zip", "more than %d entries", ZIP_ENTRIES_MAX);
    return 0;
}

/* Numbers that do not fit 32 bits stand in the extra field, in a fixed order. */
static bool read_extra(const uint8_t *p, size_t n, uint64_t *fields[3])
{
    for (size_t at = 0; at + 4 <= n;) {
        size_t id = (size_t)number(p + at, 2), bytes = (size_t)number(p + at + 2, 2);
        at += 4;
        if (bytes > n - at)
            return false;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX)
                continue;
            if (bytes < 8)
                return false;
            *fields[i] = number(p + at, 8);
            at += 8;
            bytes -= 8;
        }
        at += bytes;
    }
    return true;
}

static int read_entry(zip *z, uint64_t *at, struct why *w)
{
    if (!signed_at(z, *at, CENTRAL_BYTES, SIGN_CENTRAL))
        return why_set(w, ERR_INVALID, "zip", "entry %zu of the archive is not where it should be",
                       z->n_entries);
    const uint8_t *c = z->p + *at;
    uint64_t packed = number(c + 20, 4), bytes = number(c + 24, 4), local = number(c + 42, 4);
    uint64_t name = number(c + 28, 2), extra = number(c + 30, 2), comment = number(c + 32, 2);
    if (!inside(z, *at + CENTRAL_BYTES, name + extra + comment) ||
        !read_extra(c + CENTRAL_BYTES + name, (size_t)extra,
                    (uint64_t *[3]){&bytes, &packed, &local}) ||
        !signed_at(z, local, LOCAL_BYTES, SIGN_LOCAL))
        return why_set(w, ERR_INVALID, "zip", "entry %zu of the archive is damaged", z->n_entries);
    if (number(c + 10, 2) != 0 || (number(c + 8, 2) & 1) || packed != bytes)
        return why_set(w, ERR_UNSUPPORTED, "zip",
                       "entry %zu of the archive is compressed or encrypted", z->n_entries);
    uint64_t data =
        local + LOCAL_BYTES + number(z->p + local + 26, 2) + number(z->p + local + 28, 2);
    if (!inside(z, data, bytes))
        return why_set(w, ERR_INVALID, "zip", "entry %zu of the archive ends beyond the file",
                       z->n_entries);
    struct zip_entry *e = &z->entries[z->n_entries++];
    *e = (struct zip_entry){{(const char *)c + CENTRAL_BYTES, (size_t)name}, z->p + data, bytes};
    if (e->name.n == 0 || map_put(z->by_name, e->name, (void *)(uintptr_t)z->n_entries))
        return why_set(w, ERR_INVALID, "zip",
                       "the archive has two entries of one name, or one without");
    *at += CENTRAL_BYTES + name + extra + comment;
    return 0;
}

int zip_open(const uint8_t *p, size_t n, zip **out, struct why *w)
{
    zip *z = xcalloc(1, sizeof *z);
    struct central c = {0};
    *z = (zip){.p = p, .n = n, .by_name = map_new()};
    int e = find_central(z, &c, w);
    if (e == 0)
        z->entries = xcalloc((size_t)c.n_entries + 1, sizeof *z->entries);
    for (uint64_t i = 0; e == 0 && i < c.n_entries; i++)
        e = read_entry(z, &c.at, w);
    *out = z;
    if (e < 0) {
        zip_close(z);
        *out = NULL;
    }
    return e;
}

void zip_close(zip *z)
{
    if (!z)
        return;
    map_free(z->by_name);
    free(z->entries);
    free(z);
}

const struct zip_entry *zip_find(const zip *z, slice name)
{
    uintptr_t i = (uintptr_t)map_get(z->by_name, name);
    return i ? &z->entries[i - 1] : NULL;
}

const struct zip_entry *zip_ending(const zip *z, const char *end)
{
    size_t n = strlen(end);
    for (size_t i = 0; i < z->n_entries; i++) {
        slice s = z->entries[i].name;
        if (s.n >= n && memcmp(s.p + s.n - n, end, n) == 0)
            return &z->entries[i];
    }
    return NULL;
}
