#include "cache-svc/core_int.h"

#include "cache-svc/sealed.h"

/* Every change of a tenant's files is made on a version of them that was read, and fails on any
 * other: several cache-svc may work on one store. ARGV: version, id, record, tenant. */
static const char CHANGE_SCRIPT[] =
    "if (redis.call('HGET',KEYS[1],'v') or '')~=ARGV[1] then return 0 end "
    "redis.call('HSET',KEYS[1],ARGV[2],ARGV[3]) "
    "redis.call('HINCRBY',KEYS[1],'v',1) "
    "redis.call('SADD',KEYS[2],ARGV[4]) "
    "return 1";

/* KEYS: files, what the content has, the tenant's contents. ARGV: version, id, content. */
static const char DELETE_SCRIPT[] =
    "if (redis.call('HGET',KEYS[1],'v') or '')~=ARGV[1] then return {'0'} end "
    "local gone={'1'} "
    "if ARGV[2]~='' then redis.call('HDEL',KEYS[1],ARGV[2]) redis.call('HINCRBY',KEYS[1],'v',1) "
    "end "
    "if ARGV[3]~='' then "
    "for _,n in ipairs(redis.call('SMEMBERS',KEYS[2])) do "
    "redis.call('SREM',n..':o',ARGV[3]) "
    "if redis.call('SCARD',n..':o')==0 then redis.call('UNLINK',n) gone[#gone+1]=n end "
    "end "
    "redis.call('DEL',KEYS[2]) redis.call('ZREM',KEYS[3],ARGV[3]) "
    "end "
    "return gone";

size_t delete_command(arena *a, slice tenant_hex, slice version, slice id, slice content_hex,
                      slice argv[10])
{
    argv[0] = slice_str("EVAL");
    argv[1] = slice_str(DELETE_SCRIPT);
    argv[2] = slice_str("3");
    argv[3] = name_files(a, tenant_hex);
    argv[4] = name_owned(a, tenant_hex, content_hex);
    argv[5] = name_contents(a, tenant_hex);
    argv[6] = version;
    argv[7] = id;
    argv[8] = content_hex;
    return 9;
}

void forget_names(cache_core *c, const struct store_reply *r)
{
    for (size_t i = 1; i < r->n; i++)
        ram_tier_del(c->ram, r->list[i]);
}

static void read_files(struct op *op);

/* Somebody else was faster: from the beginning. */
static void again(struct op *op)
{
    if (++op->tries < CHANGE_TRIES) {
        read_files(op);
        return;
    }
    why_set(&op->why, ERR_AGAIN, "", "the files are being changed too often; try again");
    op_failed(op, ERR_AGAIN);
}

static void answer_record(struct op *op, Nunchi__FileRecord *record)
{
    Nunchi__CacheReply r;
    nunchi__cache_reply__init(&r);
    files_show(record, &op->c->lim.files, op->c->now_ms);
    r.op_case = NUNCHI__CACHE_REPLY__OP_FILE;
    r.file = record;
    op_done(op, &r, NULL, 0);
}

static void answer_list(struct op *op)
{
    Nunchi__FileRecords page;
    Nunchi__CacheReply r;
    nunchi__cache_reply__init(&r);
    int e = files_page(op->a, &op->files, &op->c->lim.files, op->q->file_list, op->c->now_ms, &page,
                       &op->why);
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    r.op_case = NUNCHI__CACHE_REPLY__OP_FILES;
    r.files = &page;
    op_done(op, &r, NULL, 0);
}

static void on_changed(void *ctx, const struct store_reply *r)
{
    struct op *op = ctx;
    if (r->err < 0)
        op_failed(op, ERR_UNAVAILABLE);
    else if (r->number != 1)
        again(op);
    else if (op->q->op_case == NUNCHI__CACHE_REQUEST__OP_FILE_PUT)
        answer_record(op, op->record);
    else
        op_said(op, true);
}

static void change(struct op *op)
{
    buf sealed = {0};
    files_seal(&sealed, op->files.name, op->record);
    const slice argv[] = {SLICE_LIT("EVAL"),
                          slice_str(CHANGE_SCRIPT),
                          SLICE_LIT("2"),
                          op->files.name,
                          SLICE_LIT(NAME_TENANTS),
                          op->files.version,
                          slice_str(op->record->id),
                          buf_slice(&sealed),
                          op->tenant_hex};
    op_send(op, STORE_SMALL, argv, ARRAY_LEN(argv), on_changed);
    buf_clear(&sealed);
}

static void on_removed(void *ctx, const struct store_reply *r)
{
    struct op *op = ctx;
    if (r->err < 0 || r->n == 0) {
        op_failed(op, ERR_UNAVAILABLE);
    } else if (!slice_eq_str(r->list[0], "1")) {
        again(op);
    } else {
        forget_names(op->c, r);
        op_said(op, true);
    }
}

static void remove_file(struct op *op)
{
    const Nunchi__FileRecord *record =
        files_find(&op->files, op->q->file_delete->id, op->c->now_ms);
    if (!record) {
        op_said(op, false);
        return;
    }
    slice argv[10], content = name_hex(op->a, files_only_content(&op->files, record));
    size_t n = delete_command(op->a, op->tenant_hex, op->files.version, slice_str(record->id),
                              content, argv);
    op_send(op, STORE_SMALL, argv, n, on_removed);
}

static void decide(struct op *op)
{
    cache_core *c = op->c;
    const Nunchi__CacheRequest *q = op->q;
    int e = 0;
    switch (q->op_case) {
    case NUNCHI__CACHE_REQUEST__OP_FILE_PUT:
        e = files_put(op->a, &op->files, &c->lim.files, q->file_put->file, c->now_ms, &op->record,
                      &op->why);
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS:
        e = files_progress(op->a, &op->files, q->file_progress, c->now_ms, &op->record, &op->why);
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_DELETE:
        remove_file(op);
        return;
    case NUNCHI__CACHE_REQUEST__OP_FILE_LIST:
        answer_list(op);
        return;
    default:
        op->record = files_find(&op->files, q->file_get->id, c->now_ms);
        if (op->record) {
            answer_record(op, op->record);
        } else {
            why_set(&op->why, ERR_NOT_FOUND, "id", "there is no such file");
            op_failed(op, ERR_NOT_FOUND);
        }
        return;
    }
    if (e < 0)
        op_failed(op, e);
    else
        change(op);
}

static void on_files(void *ctx, const struct store_reply *r)
{
    struct op *op = ctx;
    int e =
        r->err < 0 ? ERR_UNAVAILABLE : files_read(op->a, op->files.name, r->list, r->n, &op->files);
    if (e < 0)
        op_failed(op, e);
    else
        decide(op);
}

static void read_files(struct op *op)
{
    op->files.name = name_files(op->a, op->tenant_hex);
    const slice argv[] = {SLICE_LIT("HGETALL"), op->files.name};
    op_send(op, STORE_SMALL, argv, 2, on_files);
}

/* Who asks, and about what; checked before anything is read. */
static int target_of(const Nunchi__CacheRequest *q, slice *tenant, const char **id, struct why *w)
{
    static const char no_id[] = "";
    *id = no_id;
    switch (q->op_case) {
    case NUNCHI__CACHE_REQUEST__OP_FILE_PUT:
        if (!q->file_put->file)
            return why_set(w, ERR_INVALID, "file", "the record is missing");
        *tenant = pb_slice(q->file_put->file->tenant);
        *id = q->file_put->file->id;
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_GET:
        *tenant = pb_slice(q->file_get->tenant);
        *id = q->file_get->id;
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_DELETE:
        *tenant = pb_slice(q->file_delete->tenant);
        *id = q->file_delete->id;
        break;
    case NUNCHI__CACHE_REQUEST__OP_FILE_PROGRESS:
        *tenant = pb_slice(q->file_progress->tenant);
        *id = q->file_progress->id;
        break;
    default:
        *tenant = pb_slice(q->file_list->tenant);
        *id = NULL;
    }
    if (tenant->n != 32)
        return why_set(w, ERR_INVALID, "tenant", "a tenant key has 32 bytes");
    return 0;
}

void file_op(struct op *op)
{
    slice tenant = {0};
    const char *id = NULL;
    int e = target_of(op->q, &tenant, &id, &op->why);
    if (e == 0 && id && !files_id_valid(id)) {
        bool create = op->q->op_case == NUNCHI__CACHE_REQUEST__OP_FILE_PUT;
        e = why_set(&op->why, create ? ERR_INVALID : ERR_NOT_FOUND, "id",
                    create ? "an id is \"file-\" and 32 hex digits" : "there is no such file");
    }
    if (e < 0) {
        op_failed(op, e);
        return;
    }
    op->tenant_hex = name_hex(op->a, tenant);
    read_files(op);
}
