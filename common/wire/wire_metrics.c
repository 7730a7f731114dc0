#include "common/wire/wire_metrics.h"

#include "common/base/metrics.h"
#include "common/wire/pb.h"

#define MESSAGES_HELP "Messages to and from other services"

static const struct metric_row TABLE[] = {
    {.name = "nunchi_wire_messages_total", .labels = "direction=\"sent\"", .help = MESSAGES_HELP},
    {.name = "nunchi_wire_messages_total",
     .labels = "direction=\"received\"",
     .help = MESSAGES_HELP},
    {.name = "nunchi_wire_malformed_total",
     .help = "Messages that were damaged or no message of ours: their connection was given up"},
    {.name = "nunchi_wire_refused_total", .help = "Connections refused for their key"},
    {.name = "nunchi_wire_unknown_fields_total",
     .help = "Protobuf fields that were skipped: the other side is newer"},
};

void wire_metrics(const bus *b)
{
    static metric *rows[ARRAY_LEN(TABLE)];
    if (!rows[0])
        metric_rows_make(TABLE, ARRAY_LEN(TABLE), rows);
    struct bus_counts c = b ? bus_counts(b) : (struct bus_counts){0};
    const double now[ARRAY_LEN(TABLE)] = {(double)c.sent, (double)c.received, (double)c.malformed,
                                          (double)c.refused_auth, (double)pb_unknown_fields()};
    metric_rows_set(rows, now, ARRAY_LEN(now));
}
