/* Who is next: weighted fair queueing. A flow is one client at one priority; it has a virtual time
 * that grows with the tokens computed for it, divided by its weight. The waiting entry of the flow
 * that has had least comes first; inside a flow, first come, first served. No flow starves, and one
 * that was idle gets no credit for it. One thread. */
#ifndef NUNCHI_MODEL_FAIR_H
#define NUNCHI_MODEL_FAIR_H

#include "common/base/list.h"
#include "common/base/slice.h"

typedef struct fairq fairq;
typedef struct fair_flow fair_flow;

/* Embedded in what waits. Zero-initialise. */
struct fair_entry {
    struct list link;
    fair_flow *flow; /* NULL: not queued */
};

fairq *fairq_new(void);
void fairq_free(fairq *q); /* all flows must be unreferenced */

/* The flow of that key, with one more reference. weight >= 1: its share against the others. */
fair_flow *fairq_flow_ref(fairq *q, slice key, uint32_t weight);
void fairq_flow_unref(fairq *q, fair_flow *f);
uint64_t fairq_flow_time(const fair_flow *f); /* smaller: has had less */
void fairq_charge(fair_flow *f, uint64_t tokens);

/* front: before the others of its flow (it had begun before and was put back). */
void fairq_push(fairq *q, fair_flow *f, struct fair_entry *e, bool front);
struct fair_entry *fairq_head(const fairq *q);     /* stays in; NULL when nothing waits */
void fairq_remove(fairq *q, struct fair_entry *e); /* harmless if not queued */
size_t fairq_len(const fairq *q);

#endif
