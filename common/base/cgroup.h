/* What this process's control group allows. thread_cpus (thread.h) and memory_total look at the
 * real paths; these take others, so that a test can lay out a control group of its own. */
#ifndef NUNCHI_CGROUP_H
#define NUNCHI_CGROUP_H

#include <stdint.h>

/* CPUs that the group allows, rounded up; 0: no quota. `self` is a file like /proc/self/cgroup,
 * `root` a folder like /sys/fs/cgroup (version 2, or version 1 with the controllers below it). */
int cgroup_cpus(const char *self, const char *root);
/* Bytes of memory; 0: no limit. */
uint64_t cgroup_memory(const char *self, const char *root);

/* The machine's memory, or what the group allows of it; 0: unknown. */
uint64_t memory_total(void);

#endif
