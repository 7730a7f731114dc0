#include "common/base/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "common/base/err.h"

static struct timespec now(clockid_t id)
{
    struct timespec t;
    CHECK(clock_gettime(id, &t) == 0);
    return t;
}

uint64_t clock_mono_us(void)
{
    struct timespec t = now(CLOCK_MONOTONIC);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t clock_unix_ms(void)
{
    struct timespec t = now(CLOCK_REALTIME);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void random_bytes(void *p, unsigned long n)
{
    char *to = p;
    while (n) {
        ssize_t got = getrandom(to, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got > 0);
        to += got;
        n -= (unsigned long)got;
    }
}

uint64_t random_u64(void)
{
    uint64_t v;
    random_bytes(&v, sizeof v);
    return v;
}
