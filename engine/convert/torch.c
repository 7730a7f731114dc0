/* PyTorch's own files: a Zip archive, uncompressed, of NAME/data.pkl and NAME/data/KEY for each
 * storage. */
#include <stdio.h>

#include "engine/convert/pickle.h"
#include "engine/convert/source.h"
#include "engine/convert/zip.h"

static const struct {
    const char *storage, *name;
    enum source_type type;
    size_t bytes;
} TYPES[] = {
    {"FloatStorage", "F32", SOURCE_F32, 4},      {"HalfStorage", "F16", SOURCE_F16, 2},
    {"BFloat16Storage", "BF16", SOURCE_BF16, 2}, {"DoubleStorage", "F64", SOURCE_F64, 8},
    {"BoolStorage", "BOOL", SOURCE_OTHER, 1},    {"ByteStorage", "U8", SOURCE_OTHER, 1},
    {"CharStorage", "I8", SOURCE_OTHER, 1},      {"ShortStorage", "I16", SOURCE_OTHER, 2},
    {"IntStorage", "I32", SOURCE_OTHER, 4},      {"LongStorage", "I64", SOURCE_OTHER, 8},
};

struct reading {
    source *s;
    const struct source_file *f;
    zip *z;
    slice root; /* "NAME/data/" */
};

/* Rows lie one behind the other; a dimension of 1 may have any stride. */
static bool contiguous(const struct pickle_tensor *t)
{
    uint64_t want = 1;
    for (uint32_t i = t->n_dims; i-- > 0;) {
        if (t->dims[i] > 1 && t->strides[i] != want)
            return false;
        want *= t->dims[i] ? t->dims[i] : 1;
    }
    return true;
}

static const struct zip_entry *storage_of(const struct reading *r, slice key)
{
    char name[1024];
    int n = snprintf(name, sizeof name, "%.*s%.*s", (int)r->root.n, r->root.p, (int)key.n, key.p);
    return n > 0 && n < (int)sizeof name ? zip_find(r->z, (slice){name, (size_t)n}) : NULL;
}

static int add_tensor(void *ctx, const struct pickle_tensor *p, struct why *w)
{
    struct reading *r = ctx;
    const char *file = r->f->name;
    int len = (int)(p->name.n < 80 ? p->name.n : 80);
    size_t k = 0;
    while (k < ARRAY_LEN(TYPES) && !slice_eq_str(p->storage, TYPES[k].storage))
        k++;
    if (k == ARRAY_LEN(TYPES))
        return why_set(w, ERR_UNSUPPORTED, file, "tensor %.*s is of a type that is not known", len,
                       p->name.p);
    struct source_tensor t = {
        .name = p->name, .type = TYPES[k].type, .type_name = TYPES[k].name, .n_dims = p->n_dims};
    memcpy(t.dims, p->dims, sizeof p->dims);
    const struct zip_entry *e = p->key.n < 256 ? storage_of(r, p->key) : NULL;
    if (!source_count(&t) || t.n > (uint64_t)INT64_MAX / 16 || p->offset > (uint64_t)INT64_MAX / 16)
        return why_set(w, ERR_TOO_BIG, file, "tensor %.*s has too many elements", len, p->name.p);
    t.bytes = t.n * TYPES[k].bytes;
    uint64_t from = p->offset * TYPES[k].bytes;
    if (!e || from > e->bytes || t.bytes > e->bytes - from)
        return why_set(w, ERR_INVALID, file, "tensor %.*s does not lie in its storage", len,
                       p->name.p);
    if (!contiguous(p))
        return why_set(w, ERR_UNSUPPORTED, file,
                       "the rows of tensor %.*s do not lie one behind the other", len, p->name.p);
    t.data = t.bytes ? e->data + from : NULL;
    return source_add(r->s, r->f, &t, w);
}

int torch_read(source *s, const struct source_file *f, struct why *w)
{
    static const char PICKLE[] = "/data.pkl";
    struct reading r = {.s = s, .f = f};
    char root[512];
    if (f->n < 4 || memcmp(f->p, "PK\3\4", 4) != 0)
        return why_set(w, ERR_UNSUPPORTED, f->name,
                       "not a Zip archive: files of PyTorch before 1.6 must be loaded and saved "
                       "again with a newer one");
    int e = zip_open(f->p, f->n, &r.z, w);
    if (e < 0)
        return e;
    const struct zip_entry *pkl = zip_ending(r.z, PICKLE);
    int n = pkl ? snprintf(root, sizeof root, "%.*s/data/",
                           (int)(pkl->name.n - (sizeof PICKLE - 1)), pkl->name.p)
                : -1;
    if (n < 0 || n >= (int)sizeof root) {
        e = why_set(w, ERR_INVALID, f->name, "there is no data.pkl in it");
    } else {
        r.root = (slice){root, (size_t)n};
        e = pickle_tensors((slice){(const char *)pkl->data, (size_t)pkl->bytes}, add_tensor, &r, w);
    }
    zip_close(r.z);
    return e;
}
