/* What the tests of common/ share: cmocka in its required order, and "this must abort". */
#ifndef NUNCHI_BASE_TESTING_H
#define NUNCHI_BASE_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/slice.h"

#define assert_slice(got, want)                                                                    \
    do {                                                                                           \
        slice got_ = (got), want_ = (want);                                                        \
        if (!slice_eq(got_, want_))                                                                \
            fail_msg("got \"%.*s\", want \"%.*s\"", (int)got_.n, got_.p, (int)want_.n, want_.p);   \
    } while (0)
#define assert_text(got, want) assert_slice(got, slice_str(want))

/* Runs fn in a child and says whether a CHECK stopped it. */
static inline bool dies(void (*fn)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka catches it otherwise */
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#endif
