/* Opening a model file, and the values in it. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/model/gguf.h"

static model_file *file_new(void)
{
    model_file *f = xcalloc(1, sizeof *f);
    f->fd = -1;
    f->by_key = map_new();
    f->by_name = map_new();
    return f;
}

void model_file_close(model_file *f)
{
    if (!f)
        return;
    if (f->fd >= 0) {
        if (f->p)
            munmap((void *)(uintptr_t)f->p, f->n);
        close(f->fd);
    }
    map_free(f->by_key);
    map_free(f->by_name);
    free(f->meta);
    free(f->tensors);
    free(f->path);
    free(f);
}

int model_file_open_mem(const void *p, size_t n, model_file **out, struct why *w)
{
    model_file *f = file_new();
    f->p = p;
    f->n = n;
    int e = gguf_parse(f, w);
    if (e < 0) {
        model_file_close(f);
        f = NULL;
    }
    *out = f;
    return e;
}

/* The mapping shows the file as it is: whoever shortens it while it is in use stops the process
 * with SIGBUS. Models are replaced by renaming, never written in place. */
static int map_file(model_file *f, const char *path, struct why *w)
{
    struct stat st;
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0)
        return why_set(w, err_from_errno(errno), "model", "the model file cannot be opened: %s",
                       strerror(errno));
    if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uint64_t)st.st_size > SIZE_MAX)
        return why_set(w, ERR_INVALID, "model", "the model file is empty or no regular file");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, f->fd, 0);
    if (p == MAP_FAILED)
        return why_set(w, err_from_errno(errno), "model", "the model file cannot be mapped: %s",
                       strerror(errno));
    f->p = p;
    f->n = (size_t)st.st_size;
    return 0;
}

int model_file_open(const char *path, model_file **out, struct why *w)
{
    model_file *f = file_new();
    f->path = xstrdup(path);
    int e = map_file(f, path, w);
    if (e == 0)
        e = gguf_parse(f, w);
    if (e < 0) {
        model_file_close(f);
        f = NULL;
    }
    *out = f;
    return e;
}

void model_file_drop_pages(model_file *f)
{
    if (f->fd >= 0)
        madvise((void *)(uintptr_t)f->p, f->n, MADV_DONTNEED);
}

size_t model_file_bytes(const model_file *f)
{
    return f->n;
}

size_t model_file_n_meta(const model_file *f)
{
    return f->n_meta;
}

slice model_file_meta_key(const model_file *f, size_t i)
{
    return i < f->n_meta ? f->meta[i].key : (slice){"", 0};
}

enum meta_type model_file_meta_type(const model_file *f, slice key)
{
    static const uint8_t KINDS[GGUF_N_TYPES] = {
        [GGUF_U8] = META_UINT,     [GGUF_I8] = META_INT,    [GGUF_U16] = META_UINT,
        [GGUF_I16] = META_INT,     [GGUF_U32] = META_UINT,  [GGUF_I32] = META_INT,
        [GGUF_F32] = META_FLOAT,   [GGUF_BOOL] = META_BOOL, [GGUF_STR] = META_STR,
        [GGUF_ARRAY] = META_ARRAY, [GGUF_U64] = META_UINT,  [GGUF_I64] = META_INT,
        [GGUF_F64] = META_FLOAT,
    };
    const struct gguf_meta *m = map_get(f->by_key, key);
    return m ? (enum meta_type)KINDS[m->type] : META_NONE;
}

const struct gguf_meta *gguf_find(const model_file *f, const char *key)
{
    return map_get(f->by_key, slice_str(key));
}

const struct gguf_tensor *gguf_tensor(const model_file *f, const char *name)
{
    return map_get(f->by_name, slice_str(name));
}

bool gguf_int(const struct gguf_meta *m, uint64_t i, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    uint32_t type = m->type == GGUF_ARRAY ? m->elem : m->type;
#define AS(T, member)                                                                              \
    case T:                                                                                        \
        memcpy(&v.member, m->data + i * sizeof v.member, sizeof v.member);                         \
        *out = (int64_t)v.member;                                                                  \
        return true
    switch (type) {
        AS(GGUF_U8, u8);
        AS(GGUF_I8, i8);
        AS(GGUF_U16, u16);
        AS(GGUF_I16, i16);
        AS(GGUF_U32, u32);
        AS(GGUF_I32, i32);
        AS(GGUF_I64, i64);
    case GGUF_U64:
        memcpy(&v.u64, m->data + i * 8, 8);
        *out = (int64_t)v.u64;
        return v.u64 <= INT64_MAX;
    default:
        return false;
    }
#undef AS
}

bool gguf_float(const struct gguf_meta *m, uint64_t i, double *out)
{
    uint32_t type = m->type == GGUF_ARRAY ? m->elem : m->type;
    if (type == GGUF_F32) {
        float v;
        memcpy(&v, m->data + i * 4, 4);
        *out = (double)v;
    } else if (type == GGUF_F64) {
        memcpy(out, m->data + i * 8, 8);
    } else {
        return false;
    }
    return isfinite(*out);
}

slice gguf_next_str(const struct gguf_meta *m, uint64_t *at)
{
    uint64_t n;
    memcpy(&n, m->data + *at, 8);
    slice s = {(const char *)m->data + *at + 8, (size_t)n};
    *at += 8 + n;
    return s;
}

int model_file_u32(const model_file *f, const char *key, uint32_t *out)
{
    const struct gguf_meta *m = gguf_find(f, key);
    int64_t v;
    if (!m)
        return ERR_NOT_FOUND;
    if (m->type == GGUF_ARRAY || !gguf_int(m, 0, &v) || v < 0 || v > UINT32_MAX)
        return ERR_INVALID;
    *out = (uint32_t)v;
    return 0;
}

int model_file_f32(const model_file *f, const char *key, float *out)
{
    const struct gguf_meta *m = gguf_find(f, key);
    double v;
    if (!m)
        return ERR_NOT_FOUND;
    if (m->type == GGUF_ARRAY || !gguf_float(m, 0, &v) || !isfinite((float)v))
        return ERR_INVALID;
    *out = (float)v;
    return 0;
}

int model_file_bool(const model_file *f, const char *key, bool *out)
{
    const struct gguf_meta *m = gguf_find(f, key);
    if (!m)
        return ERR_NOT_FOUND;
    if (m->type != GGUF_BOOL)
        return ERR_INVALID;
    *out = m->data[0] == 1;
    return 0;
}

int model_file_str(const model_file *f, const char *key, slice *out)
{
    const struct gguf_meta *m = gguf_find(f, key);
    if (!m)
        return ERR_NOT_FOUND;
    if (m->type != GGUF_STR)
        return ERR_INVALID;
    *out = (slice){(const char *)m->data, (size_t)m->bytes};
    return 0;
}

size_t model_file_n_tensors(const model_file *f)
{
    return f->n_tensors;
}

struct tensor_info model_file_tensor(const model_file *f, size_t i)
{
    CHECK(i < f->n_tensors);
    const struct gguf_tensor *t = &f->tensors[i];
    struct tensor_info info = {
        .name = t->name, .type = t->type->name, .n_dims = t->n_dims, .bytes = t->bytes};
    for (int d = 0; d < 4; d++)
        info.dims[d] = t->dims[d];
    return info;
}
