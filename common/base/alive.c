#include "common/base/alive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"

static struct {
    loop *loop;
    struct loop_timer timer;
    const char *path;
} alive;

static void touch(void *ctx)
{
    (void)ctx;
    int fd = open(alive.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        futimens(fd, NULL);
        close(fd);
    }
    loop_timer_in(alive.loop, &alive.timer, ALIVE_EVERY_MS * 1000);
}

void alive_start(loop *l)
{
    const char *path = getenv("NUNCHI_ALIVE_FILE");
    if (!path || !path[0])
        return;
    alive.loop = l;
    alive.path = path;
    alive.timer.fn = touch;
    touch(NULL);
}

int alive_check(void)
{
    const char *path = getenv("NUNCHI_ALIVE_FILE");
    struct stat st;
    if (!path || !path[0] || stat(path, &st) < 0)
        return ERR_NOT_FOUND;
    uint64_t touched = (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    return clock_unix_ms() < touched + ALIVE_SILENT_MS ? 0 : ERR_NOT_FOUND;
}
