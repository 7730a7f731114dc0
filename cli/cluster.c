#include "cli/cluster.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/home.h"
#include "common/base/json_out.h"
#include "common/json/json.h"

#define STATE_MAX (256u << 10)
/* Every service may drain for half a minute. */
#define STOP_MAX_MS 240000
#define DEFAULT_URL "http://127.0.0.1:8642"

/* A process that ended and that nobody waits for (a container without an init) is not alive. */
static bool alive(pid_t pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    buf text = {0};
    if (pid > 0 && file_read(path, 4096, &text, NULL) >= 0) {
        const char *name_end = strrchr(buf_cstr(&text), ')');
        state = name_end && name_end[1] == ' ' ? name_end[2] : 0;
    }
    buf_clear(&text);
    return state != 0 && state != 'Z' && state != 'X';
}

static void copy_str(const json_val *obj, const char *key, char *out, size_t cap)
{
    slice s = json_str_or(json_get(obj, key), (slice){0});
    snprintf(out, cap, "%.*s", (int)s.n, s.n ? s.p : "");
}

static int64_t number(const json_val *obj, const char *key)
{
    int64_t v = 0;
    return json_opt_i64(obj, key, 0, INT64_MAX, &v, NULL) < 0 ? 0 : v;
}

static void read_service(const json_val *v, struct cluster_service *s)
{
    copy_str(v, "name", s->name, sizeof s->name);
    s->pid = (pid_t)number(v, "pid");
    s->started_unix_ms = (uint64_t)number(v, "started_unix_ms");
    s->restarts = (uint32_t)number(v, "restarts");
    s->port = (int)number(v, "port");
}

static void read_state(const json_val *root, struct cluster *out)
{
    memset(out, 0, sizeof *out);
    out->supervisor = (pid_t)number(root, "supervisor");
    out->port = (int)number(root, "port");
    copy_str(root, "sockets", out->sockets, sizeof out->sockets);
    for (const json_val *m = json_first(json_get(root, "models")); m; m = json_next(m)) {
        slice file = json_str_or(m, (slice){0});
        if (out->n_models < CLUSTER_MODELS_MAX)
            snprintf(out->models[out->n_models++], sizeof out->models[0], "%.*s", (int)file.n,
                     file.n ? file.p : "");
    }
    for (const json_val *s = json_first(json_get(root, "services")); s; s = json_next(s)) {
        if (out->n_services < CLUSTER_SERVICES_MAX)
            read_service(s, &out->services[out->n_services++]);
    }
}

int cluster_read(struct cluster *out, struct why *w)
{
    static const struct json_limits limits = {
        .max_bytes = STATE_MAX, .max_depth = 8, .max_nodes = 4096};
    char *path = home_path("run/cluster.json");
    buf text = {0};
    json_doc *doc = NULL;
    int e = file_read(path, STATE_MAX, &text, NULL);
    if (e >= 0)
        e = json_doc_parse(buf_slice(&text), &limits, &doc, NULL);
    if (e >= 0)
        read_state(json_doc_root(doc), out);
    json_doc_free(doc);
    buf_clear(&text);
    free(path);
    if (e < 0 || !alive(out->supervisor))
        return why_set(w, ERR_NOT_FOUND, "", "no cluster runs here; start one with: nunchi up");
    return 0;
}

int cluster_write(const struct cluster *c, struct why *w)
{
    char *path;
    int e = home_make("run/cluster.json", &path, w);
    if (e < 0)
        return e;
    buf text = {0};
    struct json_out j;
    json_begin(&j, &text);
    json_obj(&j);
    json_kv_i64(&j, "supervisor", c->supervisor);
    json_kv_i64(&j, "port", c->port);
    json_kv_cstr(&j, "sockets", c->sockets);
    json_key(&j, "models");
    json_arr(&j);
    for (size_t i = 0; i < c->n_models; i++)
        json_cstr(&j, c->models[i]);
    json_arr_end(&j);
    json_key(&j, "services");
    json_arr(&j);
    for (size_t i = 0; i < c->n_services; i++) {
        json_obj(&j);
        json_kv_cstr(&j, "name", c->services[i].name);
        json_kv_i64(&j, "pid", c->services[i].pid);
        json_kv_u64(&j, "started_unix_ms", c->services[i].started_unix_ms);
        json_kv_u64(&j, "restarts", c->services[i].restarts);
        json_kv_i64(&j, "port", c->services[i].port);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    e = file_write(path, buf_slice(&text), w);
    buf_clear(&text);
    free(path);
    return e;
}

void cluster_forget(void)
{
    char *path = home_path("run/cluster.json");
    unlink(path);
    free(path);
}

int cluster_stop(const struct cluster *c, struct why *w)
{
    int fd = (int)syscall(SYS_pidfd_open, c->supervisor, 0);
    if (fd < 0 || kill(c->supervisor, SIGTERM) < 0)
        return why_set(w, ERR_IO, "", "cannot stop process %d: %s", (int)c->supervisor,
                       strerror(errno));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int gone = poll(&p, 1, STOP_MAX_MS);
    close(fd);
    if (gone > 0)
        return 0;
    return why_set(w, ERR_TIMEOUT, "", "process %d is still ending; see: nunchi logs",
                   (int)c->supervisor);
}

/* A gateway's URL as people write it, also as the base_url of an OpenAI client, without the path.
 */
static char *plain_url(const char *given)
{
    slice s = slice_str(given);
    while (s.n > 0 && s.p[s.n - 1] == '/')
        s.n--;
    if (s.n > 3 && memcmp(s.p + s.n - 3, "/v1", 3) == 0)
        s.n -= 3;
    return slice_dup(s);
}

char *cluster_url(const char *given)
{
    if (given && given[0])
        return plain_url(given);
    const char *env = getenv("NUNCHI_URL");
    if (env && env[0])
        return plain_url(env);
    struct cluster c = {0};
    if (cluster_read(&c, NULL) < 0)
        return slice_dup(slice_str(DEFAULT_URL));
    buf url = {0};
    buf_printf(&url, "http://127.0.0.1:%d", c.port);
    buf_put_byte(&url, 0);
    return url.p;
}
