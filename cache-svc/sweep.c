#include "cache-svc/core_int.h"

#include "common/base/log.h"

/* One walk over all tenants at a time, one command after another: it is in nobody's way. A failure
 * ends it; the next one begins in CACHE_SWEEP_MS. */
struct sweep {
    cache_core *c;
    arena *all, *one; /* of the walk; of the tenant at hand */
    slice *tenants;   /* hex */
    size_t n, at;
    struct files files;
    slice *orphans; /* contents, hex, not put for ORPHAN_MS and perhaps named by no file */
    size_t n_orphans;
    bool expired; /* what is being deleted: a record past its end, or an orphan */
};

static void next_tenant(struct sweep *s);
static void read_tenant(struct sweep *s);

void sweep_free(struct sweep *s)
{
    if (!s)
        return;
    s->c->sweep = NULL;
    arena_free(s->all);
    arena_free(s->one);
    free(s);
}

static void send(struct sweep *s, const slice *argv, size_t n, store_fn fn)
{
    if (s->c->st.send(s->c->st.ctx, STORE_SMALL, argv, n, fn, s) < 0)
        sweep_free(s);
}

/* Its version makes a second look unnecessary when nothing changed; when something did, the tenant
 * is read again. */
static void on_deleted(void *ctx, const struct store_reply *r)
{
    struct sweep *s = ctx;
    if (r->err < 0 || r->n == 0) {
        sweep_free(s);
        return;
    }
    if (slice_eq_str(r->list[0], "1")) {
        forget_names(s->c, r);
        if (s->expired)
            s->c->counts.files_expired++;
        else
            s->c->counts.orphans++;
    }
    read_tenant(s);
}

static void delete_one(struct sweep *s, slice id, slice content_hex)
{
    slice argv[10];
    size_t n = delete_command(s->one, s->tenants[s->at], s->files.version, id, content_hex, argv);
    send(s, argv, n, on_deleted);
}

static bool named(struct sweep *s, slice content_hex)
{
    char content[32];
    if (content_hex.n != 64 || hex_decode(content_hex, content, sizeof content) < 0)
        return false; /* nobody can name that */
    return files_name_content(&s->files, (slice){content, sizeof content});
}

static void decide(struct sweep *s)
{
    Nunchi__FileRecord *old = files_first_expired(&s->files, s->c->now_ms);
    s->expired = old != NULL;
    if (old) {
        delete_one(s, slice_str(old->id), name_hex(s->one, files_only_content(&s->files, old)));
        return;
    }
    for (size_t i = 0; i < s->n_orphans; i++)
        if (!named(s, s->orphans[i])) {
            delete_one(s, slice_str(""), s->orphans[i]);
            return;
        }
    s->at++;
    next_tenant(s);
}

static slice *copy_list(arena *a, const struct store_reply *r, size_t *n)
{
    slice *list = arena_try(a, (r->n + 1) * sizeof *list);
    *n = list ? r->n : 0;
    for (size_t i = 0; i < *n; i++)
        list[i] = arena_slice(a, r->list[i]);
    return list;
}

static void on_contents(void *ctx, const struct store_reply *r)
{
    struct sweep *s = ctx;
    if (r->err < 0) {
        sweep_free(s);
        return;
    }
    s->orphans = copy_list(s->one, r, &s->n_orphans);
    decide(s);
}

static void on_files(void *ctx, const struct store_reply *r)
{
    struct sweep *s = ctx;
    if (r->err < 0 ||
        files_read(s->one, name_files(s->one, s->tenants[s->at]), r->list, r->n, &s->files) < 0) {
        sweep_free(s);
        return;
    }
    uint64_t before = s->c->now_ms > ORPHAN_MS ? s->c->now_ms - ORPHAN_MS : 0;
    const slice argv[] = {SLICE_LIT("ZRANGEBYSCORE"),
                          name_contents(s->one, s->tenants[s->at]),
                          SLICE_LIT("0"),
                          name_number(s->one, before),
                          SLICE_LIT("LIMIT"),
                          SLICE_LIT("0"),
                          SLICE_LIT("10000")};
    send(s, argv, ARRAY_LEN(argv), on_contents);
}

static void read_tenant(struct sweep *s)
{
    arena_reset(s->one);
    const slice argv[] = {SLICE_LIT("HGETALL"), name_files(s->one, s->tenants[s->at])};
    send(s, argv, 2, on_files);
}

static void next_tenant(struct sweep *s)
{
    if (s->at == s->n)
        sweep_free(s);
    else
        read_tenant(s);
}

static void on_tenants(void *ctx, const struct store_reply *r)
{
    struct sweep *s = ctx;
    if (r->err < 0) {
        sweep_free(s);
        return;
    }
    s->tenants = copy_list(s->all, r, &s->n);
    next_tenant(s);
}

void cache_core_sweep(cache_core *c, uint64_t now_unix_ms)
{
    c->now_ms = now_unix_ms;
    if (c->sweep)
        return;
    struct sweep *s = xcalloc(1, sizeof *s);
    s->c = c;
    s->all = arena_new(0);
    s->one = arena_new(0);
    c->sweep = s;
    const slice argv[] = {SLICE_LIT("SMEMBERS"), SLICE_LIT(NAME_TENANTS)};
    send(s, argv, 2, on_tenants);
}
