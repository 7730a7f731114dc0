#include "video-svc/metrics.h"

#include "common/base/metrics.h"

#define FILES_HELP "Files by how they ended; known: their content had been read before"

#define ROWS(X)                                                                                    \
    X(l->running, "running", NULL, "Files being read", true)                                       \
    X(l->queued, "queued", NULL, "Files that arrive, wait, or are being stored", true)             \
    X(l->slots, "slots", NULL, "Files that would be taken beside those", true)                     \
    X(l->spool_used, "spool_bytes", NULL, "Disk that files take up until they are read", true)     \
    X(l->done, "files_total", "result=\"done\"", FILES_HELP, false)                                \
    X(l->failed, "files_total", "result=\"failed\"", FILES_HELP, false)                            \
    X(l->seen_before, "files_total", "result=\"known\"", FILES_HELP, false)

#define ROW(value, name, ...) METRIC_ROW(value, "nunchi_video_" name, __VA_ARGS__)

static const struct metric_row TABLE[] = {ROWS(ROW)};

void video_metrics(const struct vid_load *l)
{
    static metric *rows[ARRAY_LEN(TABLE)];
    if (!rows[0])
        metric_rows_make(TABLE, ARRAY_LEN(TABLE), rows);
    const double now[] = {ROWS(METRIC_VALUE)};
    metric_rows_set(rows, now, ARRAY_LEN(now));
}
