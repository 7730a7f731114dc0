#include "engine/convert/source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/hash.h"
#include "common/base/map.h"
#include "engine/kernels/half.h"

#define NODES_MAX (8u << 20) /* of a JSON file: the largest tokenizers have 3 million */
#define DEPTH_MAX 32

struct source {
    char *folder;
    json_doc *config;
    struct source_file *files;
    size_t n_files;
    struct source_tensor *tensors;
    size_t n_tensors, cap_tensors;
    map *by_name; /* index + 1 */
    arena *names;
    uint64_t bytes, stamp;
};

/* ---- texts ---- */

static int path_in(const char *folder, const char *file, char out[PATH_MAX], struct why *w)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", folder, file);
    return n > 0 && n < PATH_MAX ? 0 : why_set(w, ERR_TOO_BIG, "path", "the path is too long");
}

static int read_all(int fd, const char *file, size_t max, buf *out, struct why *w)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return why_set(w, ERR_INVALID, file, "%s is not a file", file);
    if ((uint64_t)st.st_size > max)
        return why_set(w, ERR_TOO_BIG, file, "%s has more than %zu bytes", file, max);
    if (buf_try_reserve(out, (size_t)st.st_size + 1) < 0)
        return why_set(w, ERR_NOMEM, file, "no memory for %s", file);
    while (out->n < (size_t)st.st_size) {
        ssize_t got = read(fd, out->p + out->n, (size_t)st.st_size - out->n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return why_set(w, ERR_IO, file, "cannot read %s", file);
        out->n += (size_t)got;
    }
    return 0;
}

static int text_in(const char *folder, const char *file, size_t max, buf *out, struct why *w)
{
    char path[PATH_MAX];
    int e = path_in(folder, file, path, w);
    if (e < 0)
        return e;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return why_set(w, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, file, "%s: %s", file,
                       strerror(errno));
    e = read_all(fd, file, max, out, w);
    close(fd);
    if (e < 0)
        buf_clear(out);
    return e;
}

static int json_in(const char *folder, const char *file, size_t max, json_doc **out, struct why *w)
{
    struct json_limits lim = {
        .max_bytes = max, .max_depth = DEPTH_MAX, .max_nodes = NODES_MAX, .allow_nul = true};
    struct why inner = {.text = ""};
    buf text = {0};
    int e = text_in(folder, file, max, &text, w);
    if (e < 0)
        return e;
    e = json_doc_parse((slice){text.p, text.n}, &lim, out, &inner);
    buf_clear(&text);
    if (e < 0)
        return why_set(w, e, file, "%s: %.200s", file, inner.text);
    if (json_kind(json_doc_root(*out)) == JSON_KIND_OBJ)
        return 0;
    json_doc_free(*out);
    *out = NULL;
    return why_set(w, ERR_INVALID, file, "%s is not a JSON object", file);
}

int source_text(const source *s, const char *file, size_t max, buf *out, struct why *w)
{
    return text_in(s->folder, file, max, out, w);
}

int source_json(const source *s, const char *file, size_t max, json_doc **out, struct why *w)
{
    *out = NULL;
    return json_in(s->folder, file, max, out, w);
}

int source_why(struct why *w, int e, const char *file, const struct why *inner)
{
    bool said = inner->field[0] == 0 || strstr(inner->text, inner->field) != NULL;
    return why_set(w, e, inner->field, "%s: %s%s%.300s", file, said ? "" : inner->field,
                   said ? "" : ": ", inner->text);
}

/* ---- tensors ---- */

size_t source_type_bytes(enum source_type type)
{
    static const size_t BYTES[] = {[SOURCE_F32] = 4,
                                   [SOURCE_F16] = 2,
                                   [SOURCE_BF16] = 2,
                                   [SOURCE_F64] = 8,
                                   [SOURCE_OTHER] = 0};
    return BYTES[type];
}

bool source_count(struct source_tensor *t)
{
    t->n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] && t->n > (UINT64_C(1) << 62) / t->dims[i])
            return false;
        t->n *= t->dims[i];
    }
    return true;
}

int source_add(source *s, const struct source_file *f, const struct source_tensor *t, struct why *w)
{
    size_t element = source_type_bytes(t->type);
    bool inside = t->bytes == 0 || (t->data >= f->p && t->bytes <= f->n &&
                                    (size_t)(t->data - f->p) <= f->n - t->bytes);
    if (s->n_tensors == SOURCE_TENSORS_MAX)
        return why_set(w, ERR_TOO_BIG, f->name, "more than %d tensors", SOURCE_TENSORS_MAX);
    if (t->name.n == 0 || t->name.n > SOURCE_NAME_MAX || !utf8_valid(t->name))
        return why_set(w, ERR_INVALID, f->name,
                       "a tensor's name is empty, longer than %d bytes or no text",
                       SOURCE_NAME_MAX);
    if (map_get(s->by_name, t->name))
        return why_set(w, ERR_INVALID, f->name, "tensor %.*s is there twice", (int)t->name.n,
                       t->name.p);
    if (!inside || (element && t->bytes / element != t->n))
        return why_set(w, ERR_INVALID, f->name, "tensor %.*s does not lie in the file",
                       (int)t->name.n, t->name.p);
    if (s->n_tensors == s->cap_tensors) {
        s->cap_tensors = s->cap_tensors ? 2 * s->cap_tensors : 256;
        s->tensors = xrealloc(s->tensors, s->cap_tensors, sizeof *s->tensors);
    }
    s->tensors[s->n_tensors] = *t;
    s->tensors[s->n_tensors].name = arena_slice(s->names, t->name);
    for (uint32_t i = t->n_dims; i < SOURCE_DIMS_MAX; i++)
        s->tensors[s->n_tensors].dims[i] = 1;
    s->n_tensors++;
    map_put(s->by_name, t->name, (void *)(uintptr_t)s->n_tensors);
    return 0;
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float float_at(enum source_type type, const uint8_t *p)
{
    uint16_t half = (uint16_t)(p[0] | p[1] << 8);
    double d;
    switch (type) {
    case SOURCE_F32:
        return bits_float(u32_at(p));
    case SOURCE_F16:
        return half_to_float(half);
    case SOURCE_BF16:
        return bfloat_to_float(half);
    case SOURCE_F64:
        memcpy(&d, p, sizeof d);
        return (float)d;
    case SOURCE_OTHER:
        break;
    }
    return 0;
}

void source_floats(const struct source_tensor *t, uint64_t first, size_t n, float *out)
{
    size_t element = source_type_bytes(t->type);
    CHECK(element && first <= t->n && n <= t->n - first);
    const uint8_t *p = t->data + first * element;
    if (t->type == SOURCE_F32) {
        memcpy(out, p, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++, p += element)
        out[i] = float_at(t->type, p);
}

void source_forget(const struct source_tensor *t)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)t->data,
              to = from + t->bytes;
    from = from / page * page;
    if (t->data && to > from)
        (void)madvise((void *)from, to - from,
                      MADV_DONTNEED); /* a file's pages: read again if needed */
}

/* ---- files ---- */

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcmp(s + n - k, with) == 0;
}

static int map_file(source *s, const char *name, struct source_file *out, struct why *w)
{
    char path[PATH_MAX];
    struct stat st;
    int e = path_in(s->folder, name, path, w);
    if (e < 0)
        return e;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return why_set(w, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, name, "%s: %s", name,
                       strerror(errno));
    void *p = MAP_FAILED;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
    if (regular)
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return why_set(w, ERR_INVALID, name, "%s %s", name,
                       regular ? "cannot be mapped" : "is not a file, or is empty");
    *out = (struct source_file){p, (size_t)st.st_size, xstrdup(name)};
    buf stamp = {0};
    buf_printf(&stamp, "%s %lld %lld.%09ld", name, (long long)st.st_size,
               (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    s->stamp = checksum64(s->stamp, (slice){stamp.p, stamp.n});
    buf_clear(&stamp);
    s->bytes += out->n;
    return 0;
}

static int read_file(source *s, const char *name, struct why *w)
{
    if (s->n_files == SOURCE_FILES_MAX)
        return why_set(w, ERR_TOO_BIG, "files", "more than %d files of weights", SOURCE_FILES_MAX);
    struct source_file *f = &s->files[s->n_files];
    int e = map_file(s, name, f, w);
    if (e < 0)
        return e;
    s->n_files++;
    struct why inner = {.text = ""};
    e = ends(name, ".safetensors") ? safetensors_read(s, f, &inner) : torch_read(s, f, &inner);
    return e < 0 ? why_set(w, e, name, "%s: %.400s", name, inner.text) : 0;
}

/* The shards that an index names, each once. Names are of files in the same folder. */
static int read_index(source *s, const json_doc *index, const char *file, struct why *w)
{
    const json_val *of = json_get(json_doc_root(index), "weight_map");
    map *seen = map_new();
    int e = json_kind(of) == JSON_KIND_OBJ
                ? 0
                : why_set(w, ERR_INVALID, file, "%s has no weight_map", file);
    for (const json_val *v = json_first(of); v && e == 0; v = json_next(v)) {
        slice name = json_str_or(v, (slice){"", 0});
        char plain[256];
        if (name.n == 0 || name.n >= sizeof plain || memchr(name.p, '/', name.n) ||
            memchr(name.p, 0, name.n)) {
            e = why_set(w, ERR_INVALID, file, "%s names a shard that is not a file beside it",
                        file);
            break;
        }
        memcpy(plain, name.p, name.n);
        plain[name.n] = 0;
        if (!map_put(seen, name, (void *)(uintptr_t)1))
            e = read_file(s, plain, w);
    }
    map_free(seen);
    return e;
}

/* Safetensors before PyTorch's own files, which some folders hold beside them. */
static int read_weights(source *s, struct why *w)
{
    static const char *const KINDS[][2] = {{"model.safetensors.index.json", "model.safetensors"},
                                           {"pytorch_model.bin.index.json", "pytorch_model.bin"}};
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++) {
        json_doc *index = NULL;
        int e = json_in(s->folder, KINDS[i][0], SOURCE_INDEX_MAX, &index, w);
        if (e == 0)
            e = read_index(s, index, KINDS[i][0], w);
        else if (e == ERR_NOT_FOUND)
            e = read_file(s, KINDS[i][1], w);
        json_doc_free(index);
        if (e != ERR_NOT_FOUND || index)
            return e;
    }
    return why_set(
        w, ERR_NOT_FOUND, "weights",
        "the folder has neither model.safetensors nor pytorch_model.bin, nor an index of either");
}

static int open_in(source *s, const char *file, struct why *w)
{
    int e = json_in(s->folder, "config.json", SOURCE_CONFIG_MAX, &s->config, w);
    if (e == ERR_NOT_FOUND)
        return why_set(w, e, "config.json",
                       "there is no config.json beside the weights, which says what they are");
    if (e < 0)
        return e;
    return file ? read_file(s, file, w) : read_weights(s, w);
}

static bool of_weights(const char *path)
{
    static const char *const ENDS[] = {".safetensors", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < ARRAY_LEN(ENDS); i++)
        if (ends(path, ENDS[i]))
            return true;
    return false;
}

static source *new_source(const char *folder)
{
    source *s = xcalloc(1, sizeof *s);
    s->folder = xstrdup(folder);
    s->files = xcalloc(SOURCE_FILES_MAX, sizeof *s->files);
    s->by_name = map_new();
    s->names = arena_new(0);
    return s;
}

int source_open_mem(const void *p, size_t n, bool safetensors, source **out, struct why *w)
{
    struct source_file f = {p, n, "memory"};
    source *s = new_source(".");
    int e = safetensors ? safetensors_read(s, &f, w) : torch_read(s, &f, w);
    *out = e < 0 ? NULL : s;
    if (e < 0)
        source_close(s);
    return e;
}

int source_open(const char *path, source **out, struct why *w)
{
    struct stat st;
    *out = NULL;
    if (stat(path, &st) < 0)
        return why_set(w, err_from_errno(errno), "path", "%s", strerror(errno));
    bool folder = S_ISDIR(st.st_mode);
    if (!folder && !of_weights(path))
        return why_set(w, ERR_UNSUPPORTED, "path",
                       "neither a folder nor a file of weights (.safetensors, .bin, .pt, .pth)");
    char *parent = xstrdup(path), *slash = strrchr(parent, '/');
    if (slash)
        *slash = 0;
    source *s = new_source(folder ? path : slash ? parent : ".");
    free(parent);
    const char *file = strrchr(path, '/');
    int e = open_in(s, folder ? NULL : file ? file + 1 : path, w);
    if (e < 0) {
        source_close(s);
        return e;
    }
    *out = s;
    return 0;
}

void source_close(source *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_files; i++) {
        munmap((void *)(uintptr_t)s->files[i].p, s->files[i].n);
        free((void *)(uintptr_t)s->files[i].name);
    }
    free(s->files);
    free(s->tensors);
    free(s->folder);
    json_doc_free(s->config);
    map_free(s->by_name);
    arena_free(s->names);
    free(s);
}

const json_val *source_config(const source *s)
{
    return json_doc_root(s->config);
}

const char *source_folder(const source *s)
{
    return s->folder;
}

size_t source_n_tensors(const source *s)
{
    return s->n_tensors;
}

const struct source_tensor *source_tensor(const source *s, size_t i)
{
    return &s->tensors[i];
}

const struct source_tensor *source_find(const source *s, const char *name)
{
    uintptr_t i = (uintptr_t)map_get(s->by_name, slice_str(name));
    return i ? &s->tensors[i - 1] : NULL;
}

uint64_t source_bytes(const source *s)
{
    return s->bytes;
}

uint64_t source_stamp(const source *s)
{
    return s->stamp;
}
