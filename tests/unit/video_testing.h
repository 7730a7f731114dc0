/* Videos for the tests, made by the ffmpeg program in a folder of their own, and what reading one
 * says. */
#ifndef NUNCHI_VIDEO_TESTING_H
#define NUNCHI_VIDEO_TESTING_H

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/slice.h"

static char video_folder[] = "/tmp/nunchi-video-XXXXXX";

static UNUSED bool video_have_ffmpeg(void)
{
    return system("ffmpeg -version >/dev/null 2>&1") == 0;
}

static UNUSED int video_folder_make(void **state UNUSED)
{
    return mkdtemp(video_folder) && chmod(video_folder, 0755) == 0 && chdir(video_folder) == 0 ? 0
                                                                                               : -1;
}

static UNUSED int video_folder_remove(void **state UNUSED)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", video_folder);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

/* Runs a shell line in the folder; 0 when it worked. */
static UNUSED int video_shell(const char *line)
{
    return system(line);
}

#define FFMPEG "ffmpeg -hide_banner -loglevel error -nostdin -y "

static UNUSED void video_write(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    CHECK(f);
    fputs(text, f);
    fclose(f);
}

/* Path of a program of the same build as this test: BUILD/tests/unit/x_test -> BUILD/bin/name. */
static UNUSED bool video_program(const char *name, char *out, size_t n)
{
    char self[512];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return false;
    self[len] = 0;
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(self, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
    snprintf(out, n, "%.400s/bin/%s", self, name);
    return access(out, X_OK) == 0;
}

#endif
