#include "common/base/fds.h"

#include <sys/resource.h>

int fds_make_room(uint64_t n, struct why *w)
{
    struct rlimit l;
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0);
    if (l.rlim_cur >= n)
        return 0;
    l.rlim_cur = l.rlim_max < n ? l.rlim_max : n;
    if (setrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur >= n)
        return 0;
    return why_set(
        w, ERR_FORBIDDEN, "",
        "%llu files and connections may be needed, and the system allows %llu (ulimit -Hn)",
        (unsigned long long)n, (unsigned long long)l.rlim_max);
}
