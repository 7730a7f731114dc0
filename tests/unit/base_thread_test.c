#include "tests/unit/base_testing.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/base/cgroup.h"
#include "common/base/thread.h"

/* ---- work queue
 * ------------------------------------------------------------------------------------------ */

struct job {
    loop *l;
    pthread_t worked_on;
    atomic_int worked;
    int done;
    int *left;
    pthread_mutex_t *gate; /* held by the test: the job waits for it */
};

static void work(void *ctx)
{
    struct job *j = ctx;
    if (j->gate) {
        pthread_mutex_lock(j->gate);
        pthread_mutex_unlock(j->gate);
    }
    j->worked_on = pthread_self();
    atomic_fetch_add(&j->worked, 1);
}

static void done(void *ctx)
{
    struct job *j = ctx;
    j->done++;
    if (--*j->left == 0)
        loop_stop(j->l, 0);
}

static void jobs_are_worked_elsewhere_and_done_here(void **state UNUSED)
{
    enum { N = 500 };
    static struct job jobs[N];
    int left = N;
    loop *l = loop_new();
    workq *q = workq_new(l, 3, "test-queue-name");
    for (int i = 0; i < N; i++) {
        jobs[i] = (struct job){.l = l, .left = &left};
        assert_int_equal(workq_add(q, N, work, done, &jobs[i]), 0);
    }
    assert_int_equal(loop_run(l), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(jobs[i].worked, 1);
        assert_int_equal(jobs[i].done, 1);
        assert_false(pthread_equal(jobs[i].worked_on, pthread_self()));
    }
    workq_free(q);
    workq_free(NULL);
    loop_free(l);
}

static void a_full_queue_says_so(void **state UNUSED)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    struct job jobs[5];
    int left = 4;
    loop *l = loop_new();
    workq *q = workq_new(l, 2, "t");
    for (int i = 0; i < 5; i++)
        jobs[i] = (struct job){.l = l, .left = &left, .gate = &gate};
    pthread_mutex_lock(&gate);
    /* two run (or are about to), two wait, and the fifth is too many: whether or not the threads
     * have woken yet */
    for (int i = 0; i < 4; i++)
        assert_int_equal(workq_add(q, 2, work, done, &jobs[i]), 0);
    assert_int_equal(workq_add(q, 2, work, done, &jobs[4]), ERR_BUSY);
    assert_int_equal(workq_add(q, 0, work, done, &jobs[4]), ERR_BUSY);
    pthread_mutex_unlock(&gate);
    assert_int_equal(loop_run(l), 0);
    assert_int_equal(jobs[4].worked, 0);
    assert_int_equal(jobs[4].done, 0);
    left = 1;
    assert_int_equal(workq_add(q, 0, work, done, &jobs[4]),
                     0); /* an idle thread takes it at once */
    workq_free(q);
    assert_int_equal(jobs[4].worked, 1);
    assert_int_equal(jobs[4].done, 0);
    loop_turn(l, 0);
    assert_int_equal(jobs[4].done, 1); /* delivered by the loop, after the queue is gone */
    loop_free(l);
}

static void freeing_finishes_what_was_taken(void **state UNUSED)
{
    enum { N = 50 };
    static struct job jobs[N];
    int left = N;
    loop *l = loop_new();
    workq *q = workq_new(l, 1, "t");
    for (int i = 0; i < N; i++) {
        jobs[i] = (struct job){.l = l, .left = &left};
        assert_int_equal(workq_add(q, N, work, done, &jobs[i]), 0);
    }
    workq_free(q);
    for (int i = 0; i < N; i++)
        assert_int_equal(jobs[i].worked, 1);
    assert_int_equal(loop_run(l), 0);
    assert_int_equal(left, 0);
    loop_free(l);
}

/* ---- CPUs
 * ---------------------------------------------------------------------------------------------------
 */

static char root[256];

static void put_file(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int quota(const char *self)
{
    char path[512];
    put_file("self", self);
    snprintf(path, sizeof path, "%s/self", root);
    return cgroup_cpus(path, root);
}

static int make_root(void **state UNUSED)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/nunchi-cpus-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state UNUSED)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void a_version_2_quota_is_rounded_up(void **state UNUSED)
{
    put_file("cpu.max", "max 100000\n");
    put_file("a/cpu.max", "250000 100000\n");
    put_file("a/b/cpu.max", "400000 100000\n");
    put_file("tiny/cpu.max", "1000 100000\n");
    put_file("even/cpu.max", "400000 100000\n");
    assert_int_equal(quota("0::/\n"), 0);
    assert_int_equal(quota("0::/a\n"), 3);
    assert_int_equal(quota("0::/a/b\n"), 3); /* the parent is tighter */
    assert_int_equal(quota("0::/tiny\n"), 1);
    assert_int_equal(quota("0::/even\n"), 4);
    assert_int_equal(quota("0::/not/here\n"), 0);
    put_file("cpu.max", "150000 100000\n");
    assert_int_equal(quota("0::/not/here\n"), 2); /* a container sees its own group as the root */
}

static void a_version_1_quota_is_read(void **state UNUSED)
{
    put_file("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put_file("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put_file("cpu,cpuacct/docker/x/cpu.cfs_quota_us", "150000\n");
    put_file("cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n");
    put_file("cpu.max", "max 100000\n");
    assert_int_equal(quota("5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"), 2);
    assert_int_equal(quota("5:memory:/docker/x\n4:cpu,cpuacct:/\n"), 0);
    assert_int_equal(quota("4:cpuset:/docker/x\n"), 0);
}

static void strange_files_are_no_quota(void **state UNUSED)
{
    static const char *const STRANGE[] = {"",
                                          "\n",
                                          "max",
                                          "100000",
                                          "0 100000",
                                          "100000 0",
                                          "-5 100000",
                                          "x y",
                                          "99999999999999999999 1",
                                          "18446744073709551615 1"};
    for (size_t i = 0; i < ARRAY_LEN(STRANGE); i++) {
        put_file("s/cpu.max", STRANGE[i]);
        assert_int_equal(quota("0::/s\n"), 0);
    }
    assert_int_equal(quota(""), 0);
    assert_int_equal(quota(":::\n0::\n0\n::\n0::relative\n"), 0);
    assert_int_equal(cgroup_cpus("/does/not/exist", root), 0);
}

static uint64_t memory(const char *self)
{
    char path[512];
    put_file("self", self);
    snprintf(path, sizeof path, "%s/self", root);
    return cgroup_memory(path, root);
}

static void memory_is_the_least_on_the_way_up(void **state UNUSED)
{
    put_file("a/memory.max", "max\n");
    put_file("a/b/memory.max", "1073741824\n");
    put_file("a/b/c/memory.max", "4294967296\n");
    put_file("memory/d/memory.limit_in_bytes", "2147483648\n");
    put_file("memory/e/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(memory("0::/a\n"), 0);
    assert_int_equal(memory("0::/a/b/c\n"), 1073741824);
    assert_int_equal(memory("5:memory:/d\n0::/a\n"), 2147483648);
    assert_int_equal(memory("5:memory:/e\n"), 0);
    assert_true(memory_total() > 100000000);
}

static void affinity_counts(void **state UNUSED)
{
    cpu_set_t all, one;
    assert_true(thread_cpus() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_true(thread_cpus() <= CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(thread_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
#define WITH_ROOT(fn) cmocka_unit_test_setup_teardown(fn, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_worked_elsewhere_and_done_here),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(freeing_finishes_what_was_taken),
        WITH_ROOT(a_version_2_quota_is_rounded_up),
        WITH_ROOT(memory_is_the_least_on_the_way_up),
        WITH_ROOT(a_version_1_quota_is_read),
        WITH_ROOT(strange_files_are_no_quota),
        cmocka_unit_test(affinity_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
