#include "cache-svc/files.h"

#include "cache-svc/sealed.h"
#include "common/wire/pb.h"

/* ---- as stored
 * ----------------------------------------------------------------------------------------------------------
 */

static slice record_key(slice name, const char *id, char *out, size_t n)
{
    slice last = slice_str(id);
    CHECK(name.n + 1 + last.n <= n);
    memcpy(out, name.p, name.n);
    out[name.n] = ':';
    memcpy(out + name.n + 1, last.p, last.n);
    return (slice){out, name.n + 1 + last.n};
}

void files_seal(buf *out, slice name, const Nunchi__FileRecord *r)
{
    char key[SEALED_KEY_MAX];
    buf packed = {0};
    pb_pack(&r->base, &packed);
    sealed_put(out, record_key(name, r->id, key, sizeof key), buf_slice(&packed), 0);
    buf_clear(&packed);
}

static Nunchi__FileRecord *open_record(arena *a, slice name, slice field, slice value)
{
    char key[SEALED_KEY_MAX];
    const char *id = arena_slice(a, field).p;
    slice packed;
    uint64_t expires;
    void *v;
    if (strlen(id) != field.n || !files_id_valid(id) ||
        sealed_get(value, record_key(name, id, key, sizeof key), 0, &packed, &expires) < 0 ||
        pb_unpack(a, &nunchi__file_record__descriptor, packed, FILE_RECORD_MAX, &v, NULL) < 0)
        return NULL;
    Nunchi__FileRecord *r = v;
    return strcmp(r->id, id) == 0 ? r : NULL;
}

int files_read(arena *a, slice name, const slice *list, size_t n, struct files *out)
{
    *out = (struct files){.name = name, .version = slice_str("")};
    out->list = arena_try(a, (n / 2 + 1) * sizeof *out->list);
    if (!out->list)
        return ERR_NOMEM;
    for (size_t i = 0; i + 1 < n; i += 2) {
        if (slice_eq_str(list[i], "v")) {
            out->version = arena_slice(a, list[i + 1]);
            continue;
        }
        if (list[i].n > FILE_ID_BYTES || list[i + 1].n > FILE_RECORD_MAX) {
            out->n_damaged++;
            continue;
        }
        Nunchi__FileRecord *r = open_record(a, name, list[i], list[i + 1]);
        if (r)
            out->list[out->n++] = r;
        else
            out->n_damaged++;
    }
    return 0;
}

/* ---- questions
 * ----------------------------------------------------------------------------------------------------------
 */

bool files_id_valid(const char *id)
{
    if (strlen(id) != FILE_ID_BYTES || strncmp(id, "file-", 5) != 0)
        return false;
    return strspn(id + 5, "0123456789abcdef") == FILE_ID_BYTES - 5;
}

static bool expired(const Nunchi__FileRecord *r, uint64_t now_ms)
{
    return r->expires_unix_s && r->expires_unix_s <= now_ms / 1000;
}

Nunchi__FileRecord *files_find(const struct files *f, const char *id, uint64_t now_ms)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->list[i]->id, id) == 0)
            return expired(f->list[i], now_ms) ? NULL : f->list[i];
    return NULL;
}

Nunchi__FileRecord *files_first_expired(const struct files *f, uint64_t now_ms)
{
    for (size_t i = 0; i < f->n; i++)
        if (expired(f->list[i], now_ms))
            return f->list[i];
    return NULL;
}

void files_show(Nunchi__FileRecord *r, const struct file_limits *lim, uint64_t now_ms)
{
    static const char text[] = "reading was interrupted; upload the file again";
    if (r->status != NUNCHI__FILE_RECORD__STATUS__UPLOADED || now_ms < r->touched_unix_ms ||
        now_ms - r->touched_unix_ms <= lim->silent_ms)
        return;
    r->status = NUNCHI__FILE_RECORD__STATUS__ERROR;
    r->error = pb_bytes((slice){text, sizeof text - 1});
    r->error_code = err_to_wire(ERR_UNAVAILABLE);
}

bool files_name_content(const struct files *f, slice content)
{
    for (size_t i = 0; i < f->n; i++)
        if (slice_eq(pb_slice(f->list[i]->content), content))
            return true;
    return false;
}

slice files_only_content(const struct files *f, const Nunchi__FileRecord *r)
{
    slice content = pb_slice(r->content);
    for (size_t i = 0; i < f->n; i++)
        if (f->list[i] != r && slice_eq(pb_slice(f->list[i]->content), content))
            return slice_str("");
    return content;
}

/* ---- changes
 * --------------------------------------------------------------------------------------------------------------
 */

static int check_text(struct why *w, const char *field, size_t n, size_t max)
{
    return n > max ? why_set(w, ERR_TOO_BIG, field, "%zu bytes, at most %zu", n, max) : 0;
}

static int check_record(const Nunchi__FileRecord *r, struct why *w)
{
    if (!files_id_valid(r->id))
        return why_set(w, ERR_INVALID, "file.id", "an id is \"file-\" and 32 hex digits");
    if (r->content.len != 0 && r->content.len != 32)
        return why_set(w, ERR_INVALID, "file.content", "a content digest has 32 bytes");
    if ((unsigned)r->status > NUNCHI__FILE_RECORD__STATUS__ERROR)
        return why_set(w, ERR_UNSUPPORTED, "file.status",
                       "a status that this version does not know");
    int e = check_text(w, "file.filename", r->filename.len, FILE_NAME_MAX);
    if (e == 0)
        e = check_text(w, "file.error", r->error.len, FILE_TEXT_MAX);
    if (e == 0)
        e = check_text(w, "file.purpose", strlen(r->purpose), FILE_WORD_MAX);
    return e == 0 ? check_text(w, "file.phase", strlen(r->phase), FILE_WORD_MAX) : e;
}

static int check_quota(const struct files *f, const struct file_limits *lim, uint64_t bytes,
                       uint64_t now_ms, struct why *w)
{
    uint64_t used = 0, n = 0;
    for (size_t i = 0; i < f->n; i++) {
        if (expired(f->list[i], now_ms))
            continue;
        n++;
        used += f->list[i]->bytes < UINT64_MAX - used ? f->list[i]->bytes : UINT64_MAX - used;
    }
    if (n >= lim->quota_count)
        return why_set(w, ERR_TOO_BIG, "file",
                       "%llu files are stored, at most %llu; delete some first",
                       (unsigned long long)n, (unsigned long long)lim->quota_count);
    if (used > lim->quota_bytes || bytes > lim->quota_bytes - used)
        return why_set(w, ERR_TOO_BIG, "file",
                       "files of %llu bytes are stored, at most %llu; delete some first",
                       (unsigned long long)used, (unsigned long long)lim->quota_bytes);
    return 0;
}

int files_put(arena *a, const struct files *f, const struct file_limits *lim,
              const Nunchi__FileRecord *in, uint64_t now_ms, Nunchi__FileRecord **out,
              struct why *w)
{
    int e = check_record(in, w);
    if (e < 0)
        return e;
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->list[i]->id, in->id) == 0)
            return why_set(w, ERR_EXISTS, "file.id", "there is a file with this id");
    e = check_quota(f, lim, in->bytes, now_ms, w);
    if (e < 0)
        return e;
    Nunchi__FileRecord *r = arena_get(a, sizeof *r);
    *r = *in;
    r->touched_unix_ms = now_ms;
    if (!r->created_unix_s)
        r->created_unix_s = now_ms / 1000;
    if (!r->expires_unix_s && lim->ttl_s)
        r->expires_unix_s = now_ms / 1000 + lim->ttl_s;
    *out = r;
    return 0;
}

int files_progress(arena *a, const struct files *f, const Nunchi__FileProgress *in, uint64_t now_ms,
                   Nunchi__FileRecord **out, struct why *w)
{
    const Nunchi__FileRecord *old = files_find(f, in->id, now_ms);
    if (!old)
        return why_set(w, ERR_NOT_FOUND, "id", "there is no such file");
    Nunchi__FileRecord *r = arena_get(a, sizeof *r);
    *r = *old;
    *out = r;
    r->touched_unix_ms = now_ms;
    bool ended = old->status != NUNCHI__FILE_RECORD__STATUS__UPLOADED;
    if (ended && in->status == NUNCHI__FILE_RECORD__STATUS__UPLOADED)
        return 0; /* a late word about a file whose end is known */
    r->status = in->status;
    r->permille = in->permille > 1000 ? 1000 : in->permille;
    r->phase = in->phase;
    r->error = in->error;
    r->error_code = in->error_code;
    if (in->content.len)
        r->content = in->content;
    return check_record(r, w);
}

/* ---- a page of the list
 * --------------------------------------------------------------------------------------------------
 */

static int newest_first(const void *pa, const void *pb)
{
    const Nunchi__FileRecord *a = *(Nunchi__FileRecord *const *)pa,
                             *b = *(Nunchi__FileRecord *const *)pb;
    if (a->created_unix_s != b->created_unix_s)
        return a->created_unix_s < b->created_unix_s ? 1 : -1;
    return strcmp(b->id, a->id);
}

static int oldest_first(const void *a, const void *b)
{
    return newest_first(b, a);
}

int files_page(arena *a, const struct files *f, const struct file_limits *lim,
               const Nunchi__FileList *q, uint64_t now_ms, Nunchi__FileRecords *out, struct why *w)
{
    if (q->limit < 1 || q->limit > FILE_LIST_MAX)
        return why_set(w, ERR_INVALID, "limit", "limit must be 1 to %d", FILE_LIST_MAX);
    Nunchi__FileRecord **list = arena_try(a, (f->n + 1) * sizeof *list);
    if (!list)
        return why_set(w, ERR_NOMEM, "", "out of memory");
    size_t n = 0, from = 0;
    for (size_t i = 0; i < f->n; i++)
        if (!expired(f->list[i], now_ms) &&
            (!q->purpose[0] || strcmp(q->purpose, f->list[i]->purpose) == 0))
            list[n++] = f->list[i];
    qsort(list, n, sizeof *list, q->ascending ? oldest_first : newest_first);
    if (q->after[0]) {
        while (from < n && strcmp(list[from]->id, q->after) != 0)
            from++;
        if (from++ == n)
            return why_set(w, ERR_INVALID, "after", "there is no such file in this list");
    }
    nunchi__file_records__init(out);
    out->files = list + from;
    out->n_files = n - from > q->limit ? q->limit : n - from;
    out->has_more = n - from > q->limit;
    for (size_t i = 0; i < out->n_files; i++)
        files_show(out->files[i], lim, now_ms);
    return 0;
}
