/* Where thread_cpus looks, apart from the real paths, so that a test can lay out a control group of
 * its own. */
#ifndef NUNCHI_CPUS_H
#define NUNCHI_CPUS_H

/* CPUs that the control group allows, rounded up; 0: no quota. `self` is a file like
 * /proc/self/cgroup, `root` a folder like /sys/fs/cgroup (version 2, or version 1 with the
 * controllers below it). */
int cpus_of_quota(const char *self, const char *root);

#endif
