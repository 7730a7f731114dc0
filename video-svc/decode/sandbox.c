#include "video-svc/decode/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Sanitizers map terabytes, read /proc and start threads at exit: two layers are left out of such
 * builds, and reported as missing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define FILES_MAX                                                                                  \
    16 /* descriptors: input, output, the standard three, and what libc may want before the walls  \
        */

/* ---- names ---- */

static const char *const NAMES[SANDBOX_N_LAYERS] = {
#define X(name, text) text,
    SANDBOX_LAYERS(X)
#undef X
};

int sandbox_layers_parse(slice list, uint32_t *out, struct why *w)
{
    uint32_t set = 0;
    slice word;
    while (slice_split(&list, ',', &word)) {
        word = slice_trim(word);
        size_t i = 0;
        while (i < SANDBOX_N_LAYERS && !slice_eq_str(word, NAMES[i]))
            i++;
        if (slice_eq_str(word, "all"))
            set |= SANDBOX_ALL;
        else if (i < SANDBOX_N_LAYERS)
            set |= 1u << i;
        else if (word.n > 0)
            return why_set(w, ERR_INVALID, "sandbox-require", "no layer is called '%.*s'",
                           (int)(word.n < 40 ? word.n : 40), word.p);
    }
    *out = set;
    return 0;
}

void sandbox_layers_print(uint32_t layers, buf *out)
{
    bool first = true;
    for (size_t i = 0; i < SANDBOX_N_LAYERS; i++) {
        if (!(layers & 1u << i))
            continue;
        buf_printf(out, "%s%s", first ? "" : ",", NAMES[i]);
        first = false;
    }
}

/* ---- layers ---- */

static bool limit(int what, rlim_t n)
{
    return setrlimit((__rlimit_resource_t)what, &(struct rlimit){n, n}) == 0;
}

static bool enter_rlimits(const struct sandbox_config *cfg)
{
    const bool set[] = {
        SANITIZED || limit(RLIMIT_AS, cfg->memory_bytes),
        limit(RLIMIT_CPU, cfg->cpu_seconds),
        limit(RLIMIT_FSIZE, cfg->file_bytes),
        limit(RLIMIT_NOFILE, FILES_MAX),
        limit(RLIMIT_NPROC, 0),
        limit(RLIMIT_CORE, 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(set); i++)
        if (!set[i])
            return false;
    return true;
}

static bool enter_namespaces(void)
{
    int spaces = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    return (geteuid() == 0 && unshare(spaces) == 0) || unshare(spaces | CLONE_NEWUSER) == 0;
}

static bool drop_uid(uint32_t uid)
{
    if (geteuid() != 0)
        return true; /* somebody ordinary already */
    if (uid == 0)
        return false;
    return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
           setresuid(uid, uid, uid) == 0;
}

/* A new user namespace gives its first process every capability inside it. */
static bool drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    return syscall(SYS_capset, &head, none) == 0;
}

/* Landlock, from the kernel's documentation: each version of it knows more rights, and a ruleset
 * without rules denies all that it handles. The header of this libc knows the first version alone.
 */
struct landlock_attr {
    uint64_t fs, net, scoped;
};

static bool enter_landlock(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1u);
    if (abi < 1)
        return false;
    struct landlock_attr a = {.fs = (1u << 13) - 1};
    size_t size = sizeof a.fs;
    if (abi >= 2)
        a.fs |= 1u << 13; /* link and rename across folders */
    if (abi >= 3)
        a.fs |= 1u << 14; /* truncate */
    if (abi >= 4) {
        a.net = 3; /* bind and connect TCP */
        size = offsetof(struct landlock_attr, scoped);
    }
    if (abi >= 5)
        a.fs |= 1u << 15; /* ioctl on devices */
    if (abi >= 6) {
        a.scoped = 3; /* abstract sockets, signals */
        size = sizeof a;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0u);
    if (fd < 0)
        return false;
    bool ok = syscall(SYS_landlock_restrict_self, fd, 0u) == 0;
    close(fd);
    return ok;
}

/* What is left to a program that computes: its memory, its descriptors, the clock, and its end. */
static const int ALLOWED[] = {
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(lseek),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(sched_yield),
    SCMP_SYS(getrandom),
    SCMP_SYS(sysinfo),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(restart_syscall),
};

static int add_rules(scmp_filter_ctx f, int out_fd)
{
    int e = 0;
    for (size_t i = 0; i < ARRAY_LEN(ALLOWED); i++)
        e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, ALLOWED[i], 0);
    e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                          SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                          SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
                          SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)out_fd, 0));
    e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
                          SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO, 0));
    /* abort() signals itself: a failed check ends as SIGABRT and not as a breach. */
    e |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                          SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    return e;
}

static bool enter_seccomp(int out_fd)
{
    if (SANITIZED)
        return false;
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!f)
        return false;
    bool ok = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1) == 0 && add_rules(f, out_fd) == 0 &&
              seccomp_load(f) == 0;
    seccomp_release(f);
    return ok;
}

uint32_t sandbox_left_out(void)
{
    return SANITIZED ? SANDBOX_SECCOMP : 0;
}

uint32_t sandbox_enter(const struct sandbox_config *cfg)
{
    uint32_t on = 0;
    on |= enter_namespaces() ? SANDBOX_NAMESPACES : 0;
    bool uid = drop_uid(cfg->uid);
    on |= drop_capabilities() && uid ? SANDBOX_UID : 0;
    /* Changing the user forgets this. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    on |= prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? SANDBOX_NO_NEW_PRIVS : 0;
    on |= prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? SANDBOX_NOT_DUMPABLE : 0;
    on |= enter_landlock() ? SANDBOX_LANDLOCK : 0;
    on |= enter_rlimits(cfg) ? SANDBOX_RLIMITS : 0;
    on |= enter_seccomp(cfg->out_fd) ? SANDBOX_SECCOMP : 0;
    return on;
}

/* ---- a look whether the walls stand ---- */

int sandbox_selftest(const char *what)
{
    long r;
    errno = 0;
    if (strcmp(what, "open") == 0)
        r = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    else if (strcmp(what, "socket") == 0)
        r = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    else if (strcmp(what, "exec") == 0)
        r = execv("/bin/true", (char *const[]){NULL});
    else if (strcmp(what, "fork") == 0)
        r = syscall(SYS_fork);
    else if (strcmp(what, "exec-memory") == 0)
        r = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                    MAP_FAILED
                ? -1
                : 0;
    else if (strcmp(what, "write") == 0)
        r = write(STDOUT_FILENO, "x", 1);
    else
        return ERR_INVALID;
    return r < 0 ? errno : 0;
}
