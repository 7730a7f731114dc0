/* What /metrics of every service says of its connections: messages, and what was not one. */
#ifndef NUNCHI_WIRE_METRICS_H
#define NUNCHI_WIRE_METRICS_H

#include "common/wire/bus.h"

void wire_metrics(const bus *b); /* makes the series on the first call; b NULL: nothing yet */

#endif
