/* Prepared files: whole or not at all, written once by many, never believed. */
#include "tests/unit/engine_gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/prepared.h"

#define DATA_BYTES 5000

/* ---- a folder with a "model" in it, and what is to be prepared for it ---- */

struct place {
    char dir[PATH_MAX], home[PATH_MAX], model[PATH_MAX], path[PATH_MAX], part[PATH_MAX];
    struct prepared_tensor tensors[2];
    struct prepared_want want;
};

static void in_dir(const struct place *p, const char *name, char out[PATH_MAX])
{
    assert_true(snprintf(out, PATH_MAX, "%s/%s", p->dir, name) < PATH_MAX);
}

static void write_bytes(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static uint8_t data_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static int setup(void **state)
{
    struct place *p = xcalloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof p->dir, "%s/prepared-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(p->dir));
    in_dir(p, "home", p->home);
    setenv("NUNCHI_HOME", p->home, 1);
    in_dir(p, "m.gguf", p->model);
    in_dir(p, "m.gguf.prepared", p->path);
    in_dir(p, "m.gguf.prepared.part", p->part);
    write_bytes(p->model, "model", 5);
    p->tensors[0] = (struct prepared_tensor){2, 40, 64, 0, 3008};
    p->tensors[1] = (struct prepared_tensor){8, 16, 32, 3008, DATA_BYTES - 3008};
    p->want = (struct prepared_want){.tensors = p->tensors, .n_tensors = 2, .bytes = DATA_BYTES};
    memset(p->want.source.b, 1, DIGEST_BYTES);
    memset(p->want.layout.b, 2, DIGEST_BYTES);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    int e = system(command);
    free(p);
    return e;
}

static bool is_here(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* Everything in odd portions; counts how often it was asked. */
static struct counter {
    atomic_int n;
} *fills;

static int give(void *ctx, prepared_writer *pw, struct why *w)
{
    uint64_t n = *(const uint64_t *)ctx;
    if (fills)
        atomic_fetch_add(&fills->n, 1);
    for (uint64_t at = 0; at < n;) {
        uint8_t some[777];
        size_t k = n - at < sizeof some ? (size_t)(n - at) : sizeof some;
        for (size_t i = 0; i < k; i++)
            some[i] = data_at(at + i);
        int e = prepared_add(pw, some, k, w);
        if (e < 0)
            return e;
        at += k;
    }
    return 0;
}

static int get(struct place *p, prepared **out, struct why *w)
{
    struct prepared_how how = {
        .model = p->model, .mode = 0640, .fill = give, .ctx = &p->want.bytes};
    return prepared_get(&p->want, &how, out, w);
}

static void make(struct place *p)
{
    prepared *f;
    struct why w = {.text = ""};
    if (get(p, &f, &w) < 0)
        fail_msg("%s", w.text);
    prepared_close(f);
}

static size_t read_bytes(const char *path, uint8_t *out, size_t cap)
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, out, cap);
    close(fd);
    assert_true(n > 0 && (size_t)n < cap);
    return (size_t)n;
}

/* ---- the format ---- */

static void what_was_written_is_mapped(void **state)
{
    struct place *p = *state;
    prepared *f;
    struct stat st;
    uint64_t sizes[] = {1,
                        4096,
                        4097,
                        DATA_BYTES,
                        PREPARED_PIECE_BYTES,
                        PREPARED_PIECE_BYTES + 1,
                        3 * PREPARED_PIECE_BYTES - 5};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        p->want.bytes = sizes[s];
        make(p); /* over the one of another size */
        assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), 0);
        for (size_t i = 0; i < sizes[s]; i++)
            if (prepared_data(f)[i] != data_at(i))
                fail_msg("byte %zu of %llu", i, (unsigned long long)sizes[s]);
        size_t n = (size_t)((sizes[s] + PREPARED_PIECE_BYTES - 1) / PREPARED_PIECE_BYTES);
        assert_int_equal(prepared_n_pieces(f), n);
        for (size_t i = 0; i < n; i++) {
            prepared_touch(f, i);
            assert_true(prepared_piece_ok(f, i));
        }
        assert_string_equal(prepared_path(f), p->path);
        assert_true(stat(p->path, &st) == 0 && (uint64_t)st.st_size == prepared_file_bytes(f) &&
                    (st.st_mode & 0777) == 0640);
        assert_false(is_here(p->part));
        prepared_close(f);
    }
}

static void another_one_is_not_taken(void **state)
{
    struct place *p = *state;
    prepared *f;
    make(p);
    struct prepared_want good = p->want;
    struct prepared_tensor tensor = p->tensors[1];
    for (int i = 0; i < 9; i++) {
        struct why w = {.text = ""};
        p->want.source.b[31] ^= i == 0;
        p->want.layout.b[0] ^= i == 1;
        p->want.n_tensors -= i == 2;
        p->want.bytes += i == 3;
        p->tensors[1].type ^= i == 4;
        p->tensors[1].n_out ^= i == 5;
        p->tensors[1].n_in ^= i == 6;
        p->tensors[1].at ^= i == 7;
        p->tensors[1].bytes ^= i == 8;
        assert_int_equal(prepared_open(p->path, &p->want, &f, &w), ERR_INVALID);
        assert_true(f == NULL && w.text[0]);
        p->want = good;
        p->tensors[1] = tensor;
    }
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), 0);
    prepared_close(f);
}

/* Each byte of the file, all of its lengths: what is damaged is refused at once or seen by the
 * pieces' checksums. */
static void no_damage_goes_unseen(void **state)
{
    struct place *p = *state;
    static uint8_t bytes[65536];
    prepared *f;
    make(p);
    size_t n = read_bytes(p->path, bytes, sizeof bytes), seal = prepared_seal_at(&p->want);
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        write_bytes(p->path, bytes, n);
        int e = prepared_open(p->path, &p->want, &f, NULL);
        if (i < seal ? e < 0 || prepared_piece_ok(f, 0) : e != ERR_INVALID)
            fail_msg("byte %zu: %d", i, e);
        prepared_close(f);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t len = 0; len <= n + 1; len++) {
        write_bytes(p->path, bytes, len);
        int e = prepared_open(p->path, &p->want, &f, NULL);
        if (e != (len == n ? 0 : ERR_INVALID))
            fail_msg("%zu of %zu bytes: %d", len, n, e);
        prepared_close(f);
    }
}

static void things_that_are_no_files(void **state)
{
    struct place *p = *state;
    prepared *f;
    char real[PATH_MAX];
    in_dir(p, "real", real);
    make(p);
    assert_int_equal(rename(p->path, real), 0);
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), ERR_NOT_FOUND);
    assert_int_equal(symlink(real, p->path), 0);
    assert_true(prepared_open(p->path, &p->want, &f, NULL) < 0);
    unlink(p->path);
    assert_int_equal(mkfifo(p->path, 0600), 0);
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), ERR_INVALID);
    unlink(p->path);
    assert_int_equal(mkdir(p->path, 0700), 0);
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), ERR_INVALID);
}

/* In a folder that many may write to, anybody can have put it there. */
static void only_of_whom_the_model_is_of(void **state)
{
    struct place *p = *state;
    prepared *f;
    struct why w = {.text = ""};
    if (geteuid() != 0)
        skip(); /* files of others are made by root alone */
    make(p);
    assert_int_equal(chown(p->path, 12345, 12345), 0);
    assert_int_equal(prepared_open(p->path, &p->want, &f, &w), ERR_INVALID);
    assert_non_null(strstr(w.text, "somebody else"));
    p->want.owner = 12345;
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), 0);
    prepared_close(f);
    p->want.owner = 0;
    make(p); /* written anew over it */
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), 0);
    prepared_close(f);
}

static void damage_is_removed_by_who_saw_it(void **state)
{
    struct place *p = *state;
    prepared *old, *f;
    make(p);
    assert_int_equal(prepared_open(p->path, &p->want, &old, NULL), 0);
    assert_int_equal(prepared_discard(old), 0);
    assert_false(is_here(p->path));
    make(p);
    assert_int_equal(prepared_discard(old), 0); /* another one now */
    assert_int_equal(prepared_open(p->path, &p->want, &f, NULL), 0);
    prepared_close(f);
    prepared_close(old);
}

/* ---- many at once, and those that die ---- */

#define WORKERS 6

static void many_prepare_once(void **state)
{
    struct place *p = *state;
    p->want.bytes = 40 * PREPARED_PIECE_BYTES; /* long enough that all are there */
    fills = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(fills, MAP_FAILED);
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < WORKERS; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid > 0)
            continue;
        char c;
        prepared *f = NULL;
        close(gate[1]);
        ssize_t n = read(gate[0], &c, 1); /* all begin when it is closed */
        int e = get(p, &f, NULL);
        bool fine = n == 0 && e == 0;
        for (size_t k = 0; fine && k < prepared_n_pieces(f); k++)
            fine = prepared_piece_ok(f, k);
        _exit(fine ? 0 : 1);
    }
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < WORKERS; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    int n = atomic_load(&fills->n);
    munmap(fills, 4096);
    fills = NULL;
    assert_int_equal(n, 1);
    assert_false(is_here(p->part));
}

static void a_killed_writer_leaves_nothing_for_good(void **state)
{
    struct place *p = *state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prepared_writer *pw;
        if (prepared_begin(p->path, 0600, &p->want, &pw, NULL) == 0 &&
            prepared_add(pw, "half", 4, NULL) == 0)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    int status;
    assert_true(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    assert_true(is_here(p->part) && !is_here(p->path));
    make(p);
    assert_true(is_here(p->path) && !is_here(p->part));
}

static void who_fails_leaves_nothing(void **state)
{
    struct place *p = *state;
    prepared_writer *pw;
    struct why w = {.text = ""};
    assert_int_equal(prepared_begin(p->path, 0600, &p->want, &pw, NULL), 0);
    assert_true(is_here(p->part));
    prepared_abandon(pw);
    assert_false(is_here(p->part));
    make(p);
    assert_int_equal(prepared_begin(p->path, 0600, &p->want, &pw, &w), ERR_EXISTS);
    assert_true(pw == NULL && !is_here(p->part));
}

/* ---- where there is no room ---- */

/* A name in the way: as root, permissions would not be. */
static void block_beside(const struct place *p)
{
    assert_int_equal(mkdir(p->part, 0700), 0);
}

static void else_in_the_cache_folder(void **state)
{
    struct place *p = *state;
    prepared *f;
    struct why w = {.text = ""};
    block_beside(p);
    assert_int_equal(get(p, &f, &w), 0);
    assert_memory_equal(prepared_path(f), p->home, strlen(p->home));
    assert_non_null(strstr(prepared_path(f), "/prepared/m.gguf-"));
    assert_true(prepared_piece_ok(f, 0));
    prepared_close(f);
    fills = xcalloc(1, sizeof *fills);
    make(p); /* found again */
    assert_int_equal(atomic_load(&fills->n), 0);
    free(fills);
    fills = NULL;
}

static void else_nowhere_and_says_so(void **state)
{
    struct place *p = *state;
    prepared *f;
    struct why w = {.text = ""};
    block_beside(p);
    write_bytes(p->home, "", 0); /* a file where the folder should be */
    assert_true(get(p, &f, &w) < 0 && f == NULL);
    assert_non_null(strstr(w.text, "beside the model: "));
    assert_non_null(strstr(w.text, "in the cache folder: "));
}

static void a_full_disk_is_known_at_once(void **state)
{
    struct place *p = *state;
    prepared *f;
    struct why w = {.text = ""};
    struct rlimit old, small = {.rlim_cur = DATA_BYTES};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int e = get(p, &f, &w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_true(e < 0 && f == NULL);
    assert_non_null(strstr(w.text, "no room"));
    assert_false(is_here(p->path) || is_here(p->part));
}

static void anothers_unfinished_file_is_not_used(void **state)
{
    struct place *p = *state;
    prepared_writer *pw;
    struct why w = {.text = ""};
    char other[PATH_MAX];
    in_dir(p, "other", other);
    write_bytes(other, "keep", 4);
    assert_int_equal(link(other, p->part), 0);
    assert_int_equal(prepared_begin(p->path, 0600, &p->want, &pw, &w), ERR_FORBIDDEN);
    unlink(p->part);
    assert_int_equal(symlink(other, p->part), 0);
    assert_true(prepared_begin(p->path, 0600, &p->want, &pw, &w) < 0);
    uint8_t bytes[16];
    assert_int_equal(read_bytes(other, bytes, sizeof bytes), 4);
    if (geteuid() == 0) {
        unlink(p->part);
        write_bytes(p->part, "x", 1);
        assert_int_equal(chown(p->part, 12345, 12345), 0);
        assert_int_equal(prepared_begin(p->path, 0600, &p->want, &pw, &w), ERR_FORBIDDEN);
    }
}

/* ---- the engine ---- */

static void tensor(struct gguf_out *o, const char *name, uint64_t n_out, uint64_t n_in)
{
    out_tensor(o, name, 0, n_in, n_out, n_out * n_in * 4);
}

/* One layer of a llama, 32 wide, 24 words, and weights that are all different. */
static void write_model(const char *path, float salt)
{
    struct gguf_out o;
    gguf_begin(&o);
    meta_str(&o, "general.architecture", "llama");
    meta_u32(&o, "llama.block_count", 1);
    meta_u32(&o, "llama.embedding_length", 32);
    meta_u32(&o, "llama.feed_forward_length", 64);
    meta_u32(&o, "llama.context_length", 64);
    meta_u32(&o, "llama.attention.head_count", 2);
    meta_f32(&o, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tensor(&o, "token_embd.weight", 24, 32), tensor(&o, "output_norm.weight", 1, 32);
    tensor(&o, "blk.0.attn_norm.weight", 1, 32), tensor(&o, "blk.0.attn_q.weight", 32, 32);
    tensor(&o, "blk.0.attn_k.weight", 32, 32), tensor(&o, "blk.0.attn_v.weight", 32, 32);
    tensor(&o, "blk.0.attn_output.weight", 32, 32), tensor(&o, "blk.0.ffn_norm.weight", 1, 32);
    tensor(&o, "blk.0.ffn_gate.weight", 64, 32), tensor(&o, "blk.0.ffn_up.weight", 64, 32);
    tensor(&o, "blk.0.ffn_down.weight", 32, 64);
    gguf_end(&o);
    for (size_t i = 0; i < o.data / 4; i++) {
        float v = (float)(i * 2654435761u >> 8 & 0xffff) * 0x1p-17f - 0.2f + salt;
        memcpy(o.b.p + o.b.n - o.data + 4 * i, &v, 4);
    }
    write_bytes(path, o.b.p, o.b.n);
    buf_clear(&o.b);
}

static char told[64];

static void on_progress(void *ctx, const char *what, int permille)
{
    (void)ctx;
    assert_true(permille >= 0 && permille <= 1000);
    snprintf(told, sizeof told, "%s", what);
}

struct opened {
    model_file *f;
    engine *e;
    float logits[24];
};

static int open_engine(const char *path, enum engine_prepare prepare, struct opened *o,
                       struct why *w)
{
    struct engine_config cfg = {
        .threads = 2, .kv_blocks = 4, .rows_max = 4, .prepare = prepare, .progress = on_progress};
    assert_int_equal(model_file_open(path, &o->f, w), 0);
    told[0] = 0;
    int e = engine_open(o->f, &cfg, &o->e, w);
    if (e < 0) {
        model_file_close(o->f);
        return e;
    }
    uint32_t block = 0;
    struct engine_seq seq = {&block, 1};
    struct engine_row row = {.token = 5, .attend_until = 1, .want_logits = true};
    struct engine_step step = {.seqs = &seq, .n_seqs = 1, .rows = &row, .n_rows = 1};
    assert_int_equal(engine_compute(o->e, &step, w), 0);
    memcpy(o->logits, engine_logits(o->e, 0), sizeof o->logits);
    return 0;
}

static void close_engine(struct opened *o)
{
    engine_close(o->e);
    model_file_close(o->f);
}

/* Opens it, expects the same logits, and returns what it was doing last while it opened. */
static const char *same_logits(struct place *p, enum engine_prepare prepare, const float *want,
                               bool mapped)
{
    struct opened o;
    struct why w = {.text = ""};
    if (open_engine(p->model, prepare, &o, &w) < 0)
        fail_msg("%s", w.text);
    assert_memory_equal(o.logits, want, sizeof o.logits);
    assert_true((engine_info(o.e)->prepared_path != NULL) == mapped &&
                engine_info(o.e)->packed_bytes > 0);
    assert_true((engine_n_pieces(o.e) > 0) == mapped);
    assert_true((engine_info(o.e)->in_memory_why[0] != 0) ==
                (!mapped && prepare == ENGINE_PREPARE_AUTO));
    close_engine(&o);
    return told;
}

/* Of a new model, whose weights are packed in memory. */
static void unprepared_logits(struct place *p, float want[24])
{
    struct opened o;
    struct why w = {.text = ""};
    write_model(p->model, 0);
    assert_int_equal(open_engine(p->model, ENGINE_PREPARE_NEVER, &o, &w), 0);
    memcpy(want, o.logits, sizeof o.logits);
    close_engine(&o);
}

static void an_engine_prepares_and_then_maps(void **state)
{
    struct place *p = *state;
    struct opened o;
    struct why w = {.text = ""};
    float want[24];
    unprepared_logits(p, want);
    assert_false(is_here(p->path));
    assert_string_equal(same_logits(p, ENGINE_PREPARE_AUTO, want, true), "prepare");
    assert_string_equal(same_logits(p, ENGINE_PREPARE_AUTO, want, true), "load");
    assert_string_equal(same_logits(p, ENGINE_PREPARE_REQUIRED, want, true), "load");
    assert_string_equal(same_logits(p, ENGINE_PREPARE_NEVER, want, false), "pack");

    /* Another model by the same name: its weights are prepared anew. */
    char next[PATH_MAX];
    in_dir(p, "next", next);
    write_model(next, 0.125f);
    assert_int_equal(rename(next, p->model), 0);
    assert_int_equal(open_engine(p->model, ENGINE_PREPARE_AUTO, &o, &w), 0);
    assert_string_equal(told, "prepare");
    assert_memory_not_equal(o.logits, want, sizeof want);
    close_engine(&o);
}

static void an_engine_without_room(void **state)
{
    struct place *p = *state;
    struct opened o;
    struct why w = {.text = ""};
    float want[24];
    unprepared_logits(p, want);
    block_beside(p);
    write_bytes(p->home, "", 0);
    assert_string_equal(same_logits(p, ENGINE_PREPARE_AUTO, want, false), "pack");
    assert_true(open_engine(p->model, ENGINE_PREPARE_REQUIRED, &o, &w) < 0);
    assert_non_null(strstr(w.text, "beside the model: "));
}

static void an_engine_sees_damage_while_it_runs(void **state)
{
    struct place *p = *state;
    struct opened o;
    struct why w = {.text = ""};
    write_model(p->model, 0);
    assert_int_equal(open_engine(p->model, ENGINE_PREPARE_AUTO, &o, &w), 0);
    engine_touch_piece(o.e, 0);
    assert_true(engine_check_piece(o.e, 0));
    int fd = open(p->path, O_RDWR);
    uint8_t b = 0;
    assert_true(fd >= 0 && pread(fd, &b, 1, 100) == 1);
    b ^= 4;
    assert_int_equal(pwrite(fd, &b, 1, 100), 1);
    close(fd);
    assert_false(engine_check_piece(o.e, 0));
    assert_int_equal(engine_discard_prepared(o.e), 0);
    assert_false(is_here(p->path));
    float want[24];
    memcpy(want, o.logits, sizeof want);
    close_engine(&o);
    assert_string_equal(same_logits(p, ENGINE_PREPARE_AUTO, want, true), "prepare");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_written_is_mapped),
        TEST(another_one_is_not_taken),
        TEST(no_damage_goes_unseen),
        TEST(things_that_are_no_files),
        TEST(only_of_whom_the_model_is_of),
        TEST(damage_is_removed_by_who_saw_it),
        TEST(many_prepare_once),
        TEST(a_killed_writer_leaves_nothing_for_good),
        TEST(who_fails_leaves_nothing),
        TEST(else_in_the_cache_folder),
        TEST(else_nowhere_and_says_so),
        TEST(a_full_disk_is_known_at_once),
        TEST(anothers_unfinished_file_is_not_used),
        TEST(an_engine_prepares_and_then_maps),
        TEST(an_engine_without_room),
        TEST(an_engine_sees_damage_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
