#include "cache-svc/store_objects.h"

#include <hiredis/sds.h>
#include <stdlib.h>
#include <unistd.h>

static void *place(const redisReadTask *task, struct store_object *o)
{
    if (task->parent)
        ((redisReply *)task->parent->obj)->element[task->idx] = &o->r;
    return o;
}

static struct store_object *make(const redisReadTask *task)
{
    struct store_object *o = try_calloc(1, sizeof *o);
    if (o)
        o->r.type = task->type;
    return o;
}

/* A NULL tells hiredis that there is no memory; it ends the connection. */
static void *create_string(const redisReadTask *task, char *str, size_t len)
{
    bool status = task->type != REDIS_REPLY_STRING; /* status and errors are read as C strings */
    struct store_object *o = make(task);
    if (!o)
        return NULL;
    o->value = shared_new(len + status);
    if (!o->value) {
        free(o);
        return NULL;
    }
    o->r.str = shared_bytes(o->value);
    o->r.len = len;
    if (len)
        memcpy(o->r.str, str, len);
    if (status)
        o->r.str[len] = 0;
    return place(task, o);
}

static void *create_array(const redisReadTask *task, int elements)
{
    struct store_object *o = make(task);
    if (!o)
        return NULL;
    o->r.elements = (size_t)elements;
    o->r.element = elements > 0 ? try_calloc((size_t)elements, sizeof(redisReply *)) : NULL;
    if (elements > 0 && !o->r.element) {
        free(o);
        return NULL;
    }
    return place(task, o);
}

static void *create_integer(const redisReadTask *task, long long value)
{
    struct store_object *o = make(task);
    if (!o)
        return NULL;
    o->r.integer = value;
    return place(task, o);
}

static void *create_nil(const redisReadTask *task)
{
    struct store_object *o = make(task); /* as what the task was: a string without length */
    if (!o)
        return NULL;
    o->r.type = REDIS_REPLY_NIL;
    return place(task, o);
}

/* hiredis' reader nests no deeper than 7 levels, so that recursion is bounded. */
static void free_object(void *p)
{
    struct store_object *o = p;
    if (!o)
        return;
    for (size_t i = 0; o->r.element && i < o->r.elements; i++)
        free_object(o->r.element[i]);
    free(o->r.element);
    shared_unref(o->value);
    free(o);
}

redisReplyObjectFunctions STORE_OBJECTS = {create_string, create_array, create_integer, create_nil,
                                           free_object};

void store_objects_read(redisReader *r, int fd, size_t n)
{
    char *more = r->buf && !r->err ? sdsMakeRoomFor(r->buf, n) : NULL;
    if (!more)
        return;
    r->buf = more;
    ssize_t got = read(fd, r->buf + sdslen(r->buf), n);
    if (got > 0)
        sdsIncrLen(r->buf, (int)got);
    r->len = sdslen(r->buf);
}
