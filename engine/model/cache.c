#include "engine/model/cache.h"

#include <stdio.h>
#include <sys/stat.h>

static int home(char out[PATH_MAX])
{
    const char *own = getenv("NUNCHI_HOME"), *cache = getenv("XDG_CACHE_HOME"),
               *user = getenv("HOME");
    if (own && own[0])
        return snprintf(out, PATH_MAX, "%s", own);
    if (cache && cache[0] == '/')
        return snprintf(out, PATH_MAX, "%s/nunchi", cache);
    if (user && user[0] == '/')
        return snprintf(out, PATH_MAX, "%s/.cache/nunchi", user);
    return 0;
}

bool model_cache_path(const char *name, bool make, char out[PATH_MAX])
{
    char dir[PATH_MAX];
    int n = home(dir);
    if (n <= 0 || n > PATH_MAX - 16)
        return false;
    if (make)
        (void)!mkdir(dir, 0700);
    snprintf(dir + n, sizeof dir - (size_t)n, "/prepared");
    if (make)
        (void)!mkdir(dir, 0700);
    n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    return n > 0 && n < PATH_MAX;
}
