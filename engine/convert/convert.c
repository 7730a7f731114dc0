#include "engine/convert/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/thread.h"
#include "engine/convert/dry.h"
#include "engine/convert/recipe.h"
#include "engine/convert/words.h"
#include "engine/pool.h"
#include "engine/quant.h"

#define PART_FLOATS (256u << 10) /* what a thread works on at a time */
#define CHUNK_PARTS 32           /* written at once */
#define README_MAX (256u << 10)

struct converting {
    const struct convert_job *job;
    struct convert_done *done;
    struct why *w;
    source *s;
    struct mapping map;
    struct gguf_out out;
    buf head;
    uint64_t bytes; /* of the finished file */
    char *part;
    int fd;
    pool *pool;
    float *floats; /* (threads, part floats) */
    size_t part_floats;
    uint8_t *chunk;
    uint64_t written, unsynced;
};

const char *convert_quants(void)
{
    return recipe_names();
}

/* ---- the header ---- */

/* "licence: x" of the README's front matter, which is YAML between two lines of dashes. */
static void read_licence(const source *s, char *out, size_t cap)
{
    buf text = {0};
    struct why w;
    out[0] = 0;
    if (source_text(s, "README.md", README_MAX, &text, &w) < 0)
        return;
    slice rest = buf_slice(&text), line;
    bool inside = slice_split(&rest, '\n', &line) && slice_eq_str(slice_trim(line), "---");
    while (inside && slice_split(&rest, '\n', &line) && !slice_eq_str(slice_trim(line), "---")) {
        if (line.n < 8 || memcmp(line.p, "license:", 8) != 0)
            continue;
        slice v = slice_trim((slice){line.p + 8, line.n - 8});
        if (utf8_valid(v))
            snprintf(out, cap, "%.*s", (int)(v.n < cap ? v.n : cap - 1), v.p);
    }
    buf_clear(&text);
}

static void name_of(const struct converting *c, char *out, size_t cap)
{
    char real[PATH_MAX];
    const char *at = c->job->name;
    if (!at) {
        at = realpath(source_folder(c->s), real) ? strrchr(real, '/') + 1 : source_folder(c->s);
    }
    snprintf(out, cap, "%s", at);
}

static void write_general(struct converting *c, const struct recipe *r)
{
    char name[CONVERT_NAME_MAX], stamp[32];
    name_of(c, name, sizeof name);
    read_licence(c->s, c->done->licence, sizeof c->done->licence);
    gguf_out_str(&c->out, "general.architecture", slice_str(c->map.family->name));
    if (utf8_valid(slice_str(name)))
        gguf_out_str(&c->out, "general.name", slice_str(name));
    if (c->done->licence[0])
        gguf_out_str(&c->out, "general.license", slice_str(c->done->licence));
    gguf_out_u32(&c->out, "general.file_type", recipe_file_type(r, &c->map));
    gguf_out_u32(&c->out, "general.quantization_version", 2);
    gguf_out_u32(&c->out, "general.alignment", GGUF_OUT_ALIGNMENT);
    /* Tells a run that goes on whether the source is still the same. */
    snprintf(stamp, sizeof stamp, "%016llx", (unsigned long long)source_stamp(c->s));
    gguf_out_str(&c->out, "nunchi.source.stamp", slice_str(stamp));
}

static int make_head(struct converting *c)
{
    const char *quant = c->job->quant ? c->job->quant : "q4_k";
    const struct recipe *r = recipe_find(quant);
    if (!r)
        return why_set(c->w, ERR_INVALID, "quant", "'%.20s' is none of %s", quant, recipe_names());
    int e = mapping_make(c->s, &c->out, &c->map, c->w);
    if (e < 0)
        return e;
    write_general(c, r);
    if ((e = words_write(c->s, c->map.n_vocab, &c->out, c->w)) < 0)
        return e;
    for (size_t i = 0; i < c->map.n; i++) {
        const struct mapping_tensor *t = &c->map.tensors[i];
        gguf_out_tensor(&c->out, t->name, tensor_type_find(recipe_type(r, &c->map, t)), t->n_out,
                        t->n_in);
    }
    c->bytes = gguf_out_seal(&c->out, &c->head);
    snprintf(c->done->family, sizeof c->done->family, "%s", c->map.family->name);
    c->done->source_bytes = source_bytes(c->s);
    c->done->bytes = c->bytes;
    return 0;
}

/* The finished file as the engine will see it, with zeros for weights: memory that is never
 * touched. */
static int check_head(struct converting *c)
{
    model_file *f = NULL;
    void *p = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return why_set(c->w, ERR_NOMEM, "", "no address space for %llu bytes",
                       (unsigned long long)c->bytes);
    memcpy(p, c->head.p, c->head.n);
    int e = model_file_open_mem(p, c->bytes, &f, c->w);
    if (e >= 0)
        e = dry_load(f, c->w);
    model_file_close(f);
    munmap(p, c->bytes);
    return e;
}

/* ---- the file ---- */

static int failed(struct converting *c, const char *what)
{
    int e = errno;
    return why_set(c->w, err_from_errno(e), "", "%s %s: %s", what, c->part, strerror(e));
}

/* Where an earlier run was, if it was making this very file. */
static int earlier(struct converting *c, uint64_t *at)
{
    struct stat st;
    buf head = {0};
    *at = 0;
    if (fstat(c->fd, &st) < 0)
        return failed(c, "cannot look at");
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink > 1)
        return why_set(c->w, ERR_FORBIDDEN, "", "%s belongs to somebody else", c->part);
    uint64_t size = (uint64_t)st.st_size;
    if (size > c->head.n && size <= c->bytes && buf_try_reserve(&head, c->head.n) == 0 &&
        pread(c->fd, head.p, c->head.n, 0) == (ssize_t)c->head.n &&
        memcmp(head.p, c->head.p, c->head.n) == 0)
        *at = size > c->head.n + CONVERT_UNSYNCED_BYTES ? size - CONVERT_UNSYNCED_BYTES : c->head.n;
    buf_clear(&head);
    return 0;
}

static int put(struct converting *c, const void *p, size_t n)
{
    for (const uint8_t *at = p; n > 0;) {
        ssize_t got = pwrite(c->fd, at, n, (off_t)c->written);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return failed(c, "cannot write");
        at += got;
        n -= (size_t)got;
        c->written += (uint64_t)got;
        c->unsynced += (uint64_t)got;
    }
    if (c->unsynced < CONVERT_UNSYNCED_BYTES / 2)
        return 0;
    c->unsynced = 0;
    return fdatasync(c->fd) < 0 ? failed(c, "cannot write") : 0;
}

static int open_part(struct converting *c, uint64_t *from)
{
    c->fd = open(c->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (c->fd < 0)
        return failed(c, "cannot make");
    if (flock(c->fd, LOCK_EX | LOCK_NB) < 0)
        return why_set(c->w, ERR_BUSY, "", "another conversion is writing %s", c->part);
    int e = earlier(c, from);
    if (e < 0)
        return e;
    if (ftruncate(c->fd, (off_t)*from) < 0)
        return failed(c, "cannot write");
    /* A full disk is better known now. Not every file system can say. */
    if (fallocate(c->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)c->bytes) < 0 && errno == ENOSPC)
        return why_set(c->w, ERR_IO, "", "no room for %.1f GB beside %s", (double)c->bytes / 1e9,
                       c->part);
    c->written = *from;
    return *from ? 0 : put(c, c->head.p, c->head.n);
}

/* ---- tensors ---- */

struct piece {
    struct converting *c;
    const struct mapping_tensor *t;
    const struct gguf_out_tensor *to;
    uint64_t first, n; /* rows of this chunk */
    uint64_t per_part; /* rows */
    size_t row_bytes;
    _Atomic bool infinite;
};

static void convert_part(void *ctx, size_t part, int thread)
{
    struct piece *p = ctx;
    uint64_t at = part * p->per_part, left = p->n - at, n = left < p->per_part ? left : p->per_part;
    uint64_t width = p->t->n_out ? p->t->n_in : 1;
    float *x = p->c->floats + (size_t)thread * p->c->part_floats;
    mapping_rows(p->t, p->first + at, n, x);
    for (uint64_t i = 0; i < n * width; i++)
        if (!isfinite(x[i])) {
            atomic_store(&p->infinite, true);
            return;
        }
    quant((enum weight_type)p->to->type->id, x, n * width, p->c->chunk + at * p->row_bytes);
}

static int write_tensor(struct converting *c, size_t i)
{
    static const uint8_t ZEROS[GGUF_OUT_ALIGNMENT];
    struct piece p = {.c = c, .t = &c->map.tensors[i], .to = &c->out.tensors[i]};
    uint64_t rows = p.t->n_out ? p.t->n_out : p.t->n_in, width = p.t->n_out ? p.t->n_in : 1;
    p.row_bytes = (size_t)(p.to->bytes / rows);
    p.per_part = PART_FLOATS / width ? PART_FLOATS / width : 1;
    int e = 0;
    for (p.first = 0; p.first < rows && e == 0; p.first += p.n) {
        uint64_t most = p.per_part * CHUNK_PARTS, left = rows - p.first;
        p.n = left < most ? left : most;
        pool_run(c->pool, convert_part, &p, (size_t)((p.n + p.per_part - 1) / p.per_part));
        if (p.infinite)
            return why_set(c->w, ERR_INVALID, "tensors", "tensor %s holds what is no finite number",
                           p.t->name);
        e = put(c, c->chunk, (size_t)p.n * p.row_bytes);
        if (c->job->progress)
            c->job->progress(c->job->ctx, (int)((double)c->written * 1000 / (double)c->bytes));
    }
    if (e == 0 && c->written % GGUF_OUT_ALIGNMENT)
        e = put(c, ZEROS, GGUF_OUT_ALIGNMENT - c->written % GGUF_OUT_ALIGNMENT);
    if (p.t->from)
        source_forget(p.t->from);
    return e;
}

/* Memory for the widest rows. */
static int take_room(struct converting *c)
{
    int threads = c->job->threads ? c->job->threads : thread_cpus();
    size_t widest = 1;
    for (size_t i = 0; i < c->map.n; i++)
        widest = c->map.tensors[i].n_out && c->map.tensors[i].n_in > widest ? c->map.tensors[i].n_in
                                                                            : widest;
    c->part_floats = widest > PART_FLOATS ? widest : PART_FLOATS;
    int e = pool_new(threads < ENGINE_THREADS_MAX ? threads : ENGINE_THREADS_MAX, &c->pool, c->w);
    if (e < 0)
        return e;
    c->floats = try_calloc((size_t)pool_size(c->pool) * c->part_floats, sizeof *c->floats);
    c->chunk = try_calloc(c->part_floats * CHUNK_PARTS, sizeof(float));
    return c->floats && c->chunk
               ? 0
               : why_set(c->w, ERR_NOMEM, "", "no memory to convert rows of %zu", widest);
}

static int write_tensors(struct converting *c, uint64_t from)
{
    int e = take_room(c);
    for (size_t i = 0; i < c->map.n && e == 0; i++) {
        const struct gguf_out_tensor *to = &c->out.tensors[i];
        if (to->at + to->bytes + GGUF_OUT_ALIGNMENT <= from) /* written by an earlier run */
            continue;
        if (from)
            c->done->went_on_at = to->at;
        if (from)
            c->written = to->at;
        from = 0;
        e = write_tensor(c, i);
    }
    return e;
}

/* Gives the file its name, unless somebody else took it meanwhile. */
static int finish(struct converting *c)
{
    if (fsync(c->fd) < 0)
        return failed(c, "cannot write");
    if (link(c->part, c->job->target) < 0)
        return errno == EEXIST
                   ? why_set(c->w, ERR_EXISTS, "", "%s is there already", c->job->target)
                   : failed(c, "cannot rename");
    return unlink(c->part) < 0 ? failed(c, "cannot remove") : 0;
}

static int run(struct converting *c)
{
    uint64_t from = 0;
    int e = make_head(c);
    if (e == 0)
        e = check_head(c);
    if (e == 0)
        e = open_part(c, &from);
    if (e == 0)
        e = write_tensors(c, from);
    return e < 0 ? e : finish(c);
}

int convert(const struct convert_job *job, struct convert_done *done, struct why *w)
{
    struct stat st;
    struct converting c = {.job = job, .done = done, .w = w, .fd = -1};
    *done = (struct convert_done){0};
    if (lstat(job->target, &st) == 0)
        return why_set(w, ERR_EXISTS, "", "%s is there already", job->target);
    int e = source_open(job->source, &c.s, w);
    if (e < 0)
        return e;
    buf part = {0};
    buf_printf(&part, "%s.part", job->target);
    c.part = part.p;
    buf_put_byte(&part, 0);
    c.part = part.p;
    e = run(&c);
    if (c.fd >= 0)
        close(c.fd);
    pool_free(c.pool);
    free(c.floats);
    free(c.chunk);
    buf_clear(&c.head);
    buf_clear(&part);
    gguf_out_clear(&c.out);
    mapping_clear(&c.map);
    source_close(c.s);
    return e;
}
