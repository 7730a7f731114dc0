#include "tests/unit/base_testing.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/base/clock.h"
#include "common/base/timers.h"

/* ---- timers, with a clock that this file turns
 * ------------------------------------------------------------ */

static struct timers heap;
static char fired[256];
static size_t n_fired;

struct named {
    struct loop_timer t;
    char name;
};

static void note(void *ctx)
{
    fired[n_fired++] = ((struct named *)ctx)->name;
    fired[n_fired] = '\0';
}

static struct named *timer(struct named *n, char name)
{
    *n = (struct named){.name = name};
    n->t.fn = note;
    n->t.ctx = n;
    return n;
}

static int reset_timers(void **state UNUSED)
{
    timers_clear(&heap);
    n_fired = 0;
    fired[0] = '\0';
    return 0;
}

static void timers_fire_in_order(void **state UNUSED)
{
    struct named t[5];
    const uint64_t at[] = {50, 10, 40, 20, 30};
    assert_true(timers_next_us(&heap) == UINT64_MAX);
    for (int i = 0; i < 5; i++)
        timers_set(&heap, &timer(&t[i], (char)('a' + i))->t, at[i]);
    assert_true(timers_next_us(&heap) == 10);
    timers_run(&heap, 9);
    assert_string_equal(fired, "");
    timers_run(&heap, 30);
    assert_string_equal(fired, "bde");
    assert_int_equal(t[1].t.heap_index, 0);
    timers_run(&heap, 1000);
    assert_string_equal(fired, "bdeca");
    timers_run(&heap, UINT64_MAX - 1);
    assert_string_equal(fired, "bdeca");
}

static void timers_move_and_cancel(void **state UNUSED)
{
    struct named a, b, c;
    timers_set(&heap, &timer(&a, 'a')->t, 10);
    timers_set(&heap, &timer(&b, 'b')->t, 20);
    timers_set(&heap, &timer(&c, 'c')->t, 30);
    timers_set(&heap, &c.t, 5);
    timers_set(&heap, &a.t, 25);
    timers_cancel(&heap, &b.t);
    timers_cancel(&heap, &b.t);
    timers_run(&heap, 100);
    assert_string_equal(fired, "ca");
}

static void against_a_plain_list(void **state UNUSED)
{
    enum { N = 200 };
    static struct named t[N];
    uint64_t x = 12345;
    for (int i = 0; i < N; i++)
        timer(&t[i], 'x');
    for (int round = 0; round < 20000; round++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        struct loop_timer *one = &t[(x >> 33) % N].t;
        if ((x >> 20) % 3 == 0)
            timers_cancel(&heap, one);
        else
            timers_set(&heap, one, (x >> 40) % 1000);
        uint64_t least = UINT64_MAX;
        for (int i = 0; i < N; i++)
            if (t[i].t.heap_index && t[i].t.at_us < least)
                least = t[i].t.at_us;
        bool fine = least == timers_next_us(&heap);
        for (size_t i = 2; i <= heap.n; i++)
            fine = fine && heap.heap[i / 2]->at_us <= heap.heap[i]->at_us;
        if (!fine)
            fail_msg("round %d", round);
    }
}

static struct named again, other;

static void set_again(void *ctx)
{
    note(ctx);
    timers_set(&heap, &again.t, 0);
}

static void a_greedy_timer_starves_nobody(void **state UNUSED)
{
    timer(&again, 'g')->t.fn = set_again;
    timers_set(&heap, &again.t, 0);
    timers_set(&heap, &timer(&other, 'o')->t, 100);
    timers_run(&heap, 100);
    assert_string_equal(fired, "go");
    timers_run(&heap, 101);
    assert_string_equal(fired, "gog");
}

static void cancel_other(void *ctx)
{
    note(ctx);
    timers_cancel(&heap, &other.t);
}

static void a_due_timer_may_be_cancelled_by_another(void **state UNUSED)
{
    struct named first;
    timer(&first, '1')->t.fn = cancel_other;
    timers_set(&heap, &first.t, 1);
    timers_set(&heap, &timer(&other, 'o')->t, 1);
    timers_run(&heap, 1);
    assert_int_equal(n_fired + heap.n, strcmp(fired, "1") == 0 ? 1 : 2);
    assert_int_equal(other.t.heap_index, 0);
}

/* ---- the loop
 * ------------------------------------------------------------------------------------------------
 */

static int new_loop(void **state)
{
    n_fired = 0;
    fired[0] = '\0';
    *state = loop_new();
    return 0;
}

static int free_loop(void **state)
{
    loop_free(*state);
    return 0;
}

static void stop_with_3(void *ctx)
{
    loop_stop(ctx, 3);
}

static void a_timer_stops_the_loop(void **state)
{
    loop *l = *state;
    struct loop_timer t = {.fn = stop_with_3, .ctx = l};
    uint64_t before = clock_mono_us();
    loop_timer_in(l, &t, 5000);
    assert_false(loop_stopping(l));
    assert_int_equal(loop_run(l), 3);
    assert_true(loop_stopping(l));
    assert_true(clock_mono_us() - before >= 5000); /* never early */
    assert_true(loop_now_us(l) >= before);
    assert_int_equal(loop_run(l), 3); /* a stopped loop stays stopped */
}

static void read_one(void *ctx, uint32_t events)
{
    uint64_t v;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(*(int *)ctx, &v, sizeof v), sizeof v);
    fired[n_fired++] = 'r';
}

static void write_one(int fd)
{
    const uint64_t one = 1;
    assert_int_equal(write(fd, &one, sizeof one), sizeof one);
}

static void a_descriptor_is_watched(void **state)
{
    loop *l = *state;
    int fd = eventfd(0, EFD_NONBLOCK);
    loop_fd *f = loop_fd_add(l, fd, EPOLLIN, read_one, &fd);
    assert_non_null(f);
    assert_null(loop_fd_add(l, -1, EPOLLIN, read_one, &fd));
    assert_null(loop_fd_add(l, fd, EPOLLIN, read_one, &fd)); /* twice */
    loop_turn(l, 0);
    assert_int_equal(n_fired, 0);
    write_one(fd);
    loop_turn(l, 1000000);
    assert_int_equal(n_fired, 1);
    write_one(fd);
    loop_fd_set(l, f, 0);
    loop_turn(l, 0);
    assert_int_equal(n_fired, 1);
    loop_fd_set(l, f, EPOLLIN);
    loop_turn(l, 0);
    assert_int_equal(n_fired, 2);
    loop_fd_del(l, f);
    loop_fd_del(l, NULL);
    write_one(fd);
    loop_turn(l, 0);
    assert_int_equal(n_fired, 2);
    close(fd);
}

static struct pair {
    loop *l;
    int fd[2];
    loop_fd *f[2];
} pair;

/* Whichever of the two comes first deletes both: the other's event is already fetched. */
static void delete_both(void *ctx UNUSED, uint32_t events UNUSED)
{
    n_fired++;
    for (int i = 0; i < 2; i++) {
        loop_fd_del(pair.l, pair.f[i]);
        close(pair.fd[i]);
    }
}

static void a_callback_may_delete_any(void **state)
{
    pair.l = *state;
    for (int i = 0; i < 2; i++) {
        pair.fd[i] = eventfd(1, EFD_NONBLOCK);
        pair.f[i] = loop_fd_add(pair.l, pair.fd[i], EPOLLIN, delete_both, NULL);
    }
    loop_turn(pair.l, 0);
    assert_int_equal(n_fired, 1);
    loop_turn(pair.l, 0);
    assert_int_equal(n_fired, 1);
}

/* A callback that runs a nested round, in which the other descriptor goes away. */
static void nested(void *ctx, uint32_t events)
{
    (void)events;
    if (n_fired++ == 0)
        loop_turn(ctx, 0);
    for (int i = 0; i < 2; i++) {
        loop_fd_del(pair.l, pair.f[i]);
        pair.f[i] = NULL;
    }
}

static void rounds_may_be_nested(void **state)
{
    pair.l = *state;
    for (int i = 0; i < 2; i++) {
        pair.fd[i] = eventfd(1, EFD_NONBLOCK);
        pair.f[i] = loop_fd_add(pair.l, pair.fd[i], EPOLLIN, nested, pair.l);
    }
    loop_turn(pair.l, 0);
    assert_int_equal(n_fired, 2);
    loop_turn(pair.l, 0);
    assert_int_equal(n_fired, 2);
    close(pair.fd[0]);
    close(pair.fd[1]);
}

struct hook {
    int calls, pending;
};

static bool hooked(void *ctx)
{
    struct hook *h = ctx;
    h->calls++;
    return h->pending > 0 && h->pending-- > 0;
}

static void nobody_sleeps_while_a_hook_has_work(void **state)
{
    loop *l = *state;
    struct hook h = {.pending = 2};
    void *handle = loop_prepare_add(l, hooked, &h);
    uint64_t before = clock_mono_us();
    loop_turn(l, 3600u * 1000000u);
    loop_turn(l, 3600u * 1000000u); /* the hook said so after the last round's events */
    assert_true(clock_mono_us() - before < 60u * 1000000u);
    assert_true(h.calls >= 3);
    int calls = h.calls;
    loop_turn(l, 0);
    assert_true(h.calls > calls);
    loop_prepare_del(l, handle);
    calls = h.calls;
    loop_turn(l, 0);
    assert_int_equal(h.calls, calls);
}

/* The trap of ZeroMQ's descriptor: an edge that a send swallowed is seen by the hook alone. */
static struct {
    loop *l;
    bool message, delivered;
} edge;

static bool look_at_edge(void *ctx UNUSED)
{
    if (edge.message && !edge.delivered) {
        edge.delivered = true;
        loop_stop(edge.l, 0);
    }
    return false;
}

static void send_swallows_edge(void *ctx UNUSED)
{
    edge.message = true; /* and no descriptor becomes ready */
}

static void a_swallowed_edge_is_found_before_sleep(void **state)
{
    edge.l = *state;
    struct loop_timer t = {.fn = send_swallows_edge};
    loop_prepare_add(edge.l, look_at_edge, NULL);
    loop_timer_in(edge.l, &t, 1000);
    assert_int_equal(loop_run(edge.l), 0);
    assert_true(edge.delivered);
}

static struct hook self_hook;
static void *self_handle;
static loop *self_loop;

static bool delete_self(void *ctx)
{
    loop_prepare_del(self_loop, self_handle);
    loop_prepare_add(self_loop, hooked, ctx);
    return false;
}

static void a_hook_may_delete_itself(void **state)
{
    self_loop = *state;
    self_handle = loop_prepare_add(self_loop, delete_self, &self_hook);
    loop_turn(self_loop, 0);
    assert_int_equal(self_hook.calls, 2); /* before the sleep and after */
}

/* ---- other threads
 * --------------------------------------------------------------------------------------------- */

enum { POSTERS = 4, POSTS = 2000 };
static struct poster {
    loop *l;
    int sent, got;
    pthread_t thread;
} posters[POSTERS];
static int all_got;

struct parcel {
    struct poster *from;
    int number;
};

static void receive(void *ctx)
{
    struct parcel *p = ctx;
    assert_int_equal(p->number, p->from->got++); /* in order */
    if (++all_got == POSTERS * POSTS)
        loop_stop(p->from->l, 0);
    free(p);
}

static void *post_many(void *arg)
{
    struct poster *me = arg;
    for (; me->sent < POSTS; me->sent++) {
        struct parcel *p = xcalloc(1, sizeof *p);
        *p = (struct parcel){.from = me, .number = me->sent};
        loop_post(me->l, receive, p);
    }
    return NULL;
}

static void posts_arrive_in_order(void **state)
{
    for (int i = 0; i < POSTERS; i++) {
        posters[i].l = *state;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    assert_int_equal(loop_run(*state), 0);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
        assert_int_equal(posters[i].got, POSTS);
    }
}

static void *stop_from_outside(void *arg)
{
    loop_stop(arg, 5);
    return NULL;
}

static void a_sleeping_loop_is_stopped_from_another_thread(void **state)
{
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, stop_from_outside, *state), 0);
    assert_int_equal(loop_run(*state), 5);
    pthread_join(t, NULL);
}

static void what_was_posted_last_is_not_lost_memory(void **state)
{
    static int never;
    loop_post(*state, stop_with_3, &never); /* the loop is freed without another round */
}

static int got_signal;

static void on_signal(void *ctx, int signo)
{
    got_signal = signo;
    loop_stop(ctx, 0);
}

static void signals_come_through_the_loop(void **state)
{
    loop *l = *state;
    loop_signal(l, SIGTERM, on_signal, l);
    loop_signal(l, SIGUSR1, on_signal, l);
    raise(SIGUSR1);
    assert_int_equal(got_signal, 0);
    assert_int_equal(loop_run(l), 0);
    assert_int_equal(got_signal, SIGUSR1);
    raise(SIGTERM);
    loop_turn(l, 0);
    assert_int_equal(got_signal, SIGTERM);
}

static void clocks_and_randomness(void **state UNUSED)
{
    uint64_t a = clock_mono_us(), b = clock_mono_us();
    assert_true(b >= a);
    assert_true(clock_unix_ms() > 1700000000000u);
    unsigned char x[64] = {0}, y[64] = {0};
    random_bytes(x, sizeof x);
    random_bytes(y, sizeof y);
    assert_memory_not_equal(x, y, sizeof x);
    assert_true(random_u64() != random_u64());
}

int main(void)
{
#define ON_HEAP(fn) cmocka_unit_test_setup_teardown(fn, reset_timers, reset_timers)
#define ON_LOOP(fn) cmocka_unit_test_setup_teardown(fn, new_loop, free_loop)
    const struct CMUnitTest tests[] = {
        ON_HEAP(timers_fire_in_order),
        ON_HEAP(timers_move_and_cancel),
        ON_HEAP(against_a_plain_list),
        ON_HEAP(a_greedy_timer_starves_nobody),
        ON_HEAP(a_due_timer_may_be_cancelled_by_another),
        ON_LOOP(a_timer_stops_the_loop),
        ON_LOOP(a_descriptor_is_watched),
        ON_LOOP(a_callback_may_delete_any),
        ON_LOOP(rounds_may_be_nested),
        ON_LOOP(nobody_sleeps_while_a_hook_has_work),
        ON_LOOP(a_swallowed_edge_is_found_before_sleep),
        ON_LOOP(a_hook_may_delete_itself),
        ON_LOOP(posts_arrive_in_order),
        ON_LOOP(a_sleeping_loop_is_stopped_from_another_thread),
        ON_LOOP(what_was_posted_last_is_not_lost_memory),
        ON_LOOP(signals_come_through_the_loop),
        cmocka_unit_test(clocks_and_randomness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
