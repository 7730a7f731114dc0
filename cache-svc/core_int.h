/* What core.c, blobs.c, file_ops.c and sweep.c share. Nobody else includes this. */
#ifndef NUNCHI_CACHE_CORE_INT_H
#define NUNCHI_CACHE_CORE_INT_H

#include "cache-svc/core.h"
#include "cache-svc/ram_tier.h"
#include "common/base/hash.h"
#include "common/base/list.h"
#include "common/wire/pb.h"

/* Another cache-svc may delete what a file left behind; memory forgets it soon after. */
#define RAM_DURABLE_MS 10000
/* What was derived and no file names: a chat's own video, or an upload that was given up. */
#define ORPHAN_MS ((uint64_t)6 * 3600 * 1000)
#define CHANGE_TRIES 16 /* another cache-svc changed the same tenant's files in between */

#define NAME_TENANTS "nunchi:1:tenants"

struct blob_slot {
    slice name;
    shared *value; /* NULL: a miss so far */
    struct op *op;
};

/* A request, from its arrival to its answer. */
struct op {
    struct list link;
    cache_core *c;
    struct cache_asker asker;
    bool silent; /* nobody waits for the answer */
    arena *in;   /* the request: what a stranger sent, so with a budget */
    arena *a;    /* what we make of it */
    const Nunchi__CacheRequest *q;
    struct why why;
    /* gets */
    size_t waiting, n_slots;
    struct blob_slot *slots;
    bool degraded;
    /* files */
    slice tenant_hex;
    struct files files;
    Nunchi__FileRecord *record;
    int tries;
    bool existed;
    /* puts */
    slice value;
    uint64_t present; /* BlobHave */
};

struct sweep; /* sweep.c */

struct cache_core {
    struct cache_limits lim;
    struct cache_store st;
    struct cache_out out;
    struct list ops;
    size_t n_ops, held_bytes;
    ram_tier *ram; /* answers, notes, pictures */
    ram_tier *kv;  /* KV blocks: so large that they would sweep out everything else */
    uint64_t now_ms;
    struct sweep *sweep;
    struct cache_counts counts;
};

/* core.c */
void op_done(struct op *op, const Nunchi__CacheReply *r, shared *const *values,
             size_t n_values);             /* frees op */
void op_said(struct op *op, bool existed); /* frees op */
void op_failed(struct op *op, int err);    /* with op->why, or the error's own text; frees op */
int op_send(struct op *op, enum store_line line, const slice *argv, size_t n,
            store_fn fn); /* fails op, and says so */

/* Names in the store. Hex of 32 bytes each; all fit SEALED_KEY_MAX. */
slice name_hex(arena *a, slice bytes);
slice name_files(arena *a, slice tenant_hex); /* hash: id -> record, "v" -> version */
slice name_contents(arena *a,
                    slice tenant_hex); /* sorted set: content hex -> time of its last put, ms */
slice name_owned(arena *a, slice tenant_hex, slice content_hex); /* set: names of blobs */
slice name_blob(arena *a, const Nunchi__BlobKey *k);
slice name_number(arena *a, uint64_t v);

/* A block's parts are a MiB each: no model has blocks of more than these. */
#define KV_PART_LAST 255

/* blobs.c */
int blob_check_key(const Nunchi__BlobKey *k, struct why *w);
bool blob_is_kv(const Nunchi__BlobKey *k);
bool blob_is_durable(const Nunchi__BlobKey *k);
shared *blob_copy(slice bytes); /* NULL: too long, or no memory */
/* To the store that has the key; KV with a group goes by its group. */
int blob_store_send(cache_core *c, const Nunchi__BlobKey *k, const slice *argv, size_t n,
                    store_fn fn, void *ctx);
void blob_cache(struct op *op, const Nunchi__BlobPut *q, slice value); /* of a cache's space */
void blob_get(struct op *op, const Nunchi__BlobGet *q);
void blob_put(struct op *op, const Nunchi__BlobPut *q, const struct wire_msg *m);
void blob_delete(struct op *op, const Nunchi__BlobDelete *q);
void blob_puts(struct op *op, const Nunchi__BlobPuts *q, const struct wire_msg *m);
void blob_have(struct op *op, const Nunchi__BlobHave *q);

/* file_ops.c */
void file_op(struct op *op);
/* Version check, the record's end (id "": none), and of what was derived when content is not empty;
 * all or nothing. The answer is a list: "0" for another version, else "1" and the names that were
 * deleted. */
size_t delete_command(arena *a, slice tenant_hex, slice version, slice id, slice content_hex,
                      slice argv[10]);
void forget_names(cache_core *c, const struct store_reply *r);

/* sweep.c */
void sweep_free(struct sweep *s);

#endif
