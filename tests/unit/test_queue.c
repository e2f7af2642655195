#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "gateway/queue.h"

enum {
    SOME = 5,
    LIMIT = 4,
};

#define HOUR_US ((uint64_t)3600 * 1000000)

struct waiter {
    struct queue_entry entry; /* the first member: what expires is cast back */
    unsigned turn;            /* it was the nth to expire; 0: it has not */
};

static struct event_base *base;
static struct queue queue;
static struct waiter waiters[SOME];
static unsigned n_expired;

static void on_expired(struct queue_entry *entry)
{
    struct waiter *waiter = (struct waiter *)entry;

    assert_false(entry->is_waiting);
    waiter->turn = ++n_expired;
}

/* Gives the place that became free to another, as the owner of a queue may. */
static void on_expired_add(struct queue_entry *entry)
{
    on_expired(entry);
    if (n_expired == 1)
        assert_true(queue_add(&queue, &waiters[SOME - 1].entry));
}

static void on_expired_empty(struct queue_entry *entry)
{
    on_expired(entry);
    while (queue_take(&queue) != NULL)
        continue;
}

static void prepare(unsigned limit, uint64_t timeout_us, void (*expired)(struct queue_entry *entry))
{
    for (size_t i = 0; i < SOME; i++)
        waiters[i] = (struct waiter){0};
    n_expired = 0;
    queue_init(&queue, base, limit, timeout_us, expired);
}

static int make_base(void **state)
{
    (void)state;
    base = event_base_new();
    return base == NULL;
}

static int free_base(void **state)
{
    (void)state;
    event_base_free(base);
    return 0;
}

static void add(unsigned number)
{
    assert_true(queue_add(&queue, &waiters[number].entry));
    assert_true(waiters[number].entry.is_waiting);
}

/* Who comes next is this one; SOME: nobody. */
static void assert_takes(unsigned number)
{
    struct queue_entry *entry = queue_take(&queue);

    if (number == SOME) {
        assert_null(entry);
        return;
    }
    assert_ptr_equal(entry, &waiters[number].entry);
    assert_false(entry->is_waiting);
}

static void wait_for(unsigned n)
{
    while (n_expired < n)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void test_order(void **state)
{
    (void)state;
    prepare(LIMIT, HOUR_US, on_expired);
    assert_takes(SOME);
    for (unsigned i = 0; i < 3; i++)
        add(i);
    assert_int_equal(queue.n, 3);
    assert_takes(0);
    add(3);
    assert_takes(1);
    assert_takes(2);
    assert_takes(3);
    assert_takes(SOME);
    assert_int_equal(queue.n, 0);
    queue_finish(&queue);
}

static void test_limit(void **state)
{
    (void)state;
    for (unsigned limit = 0; limit < SOME; limit++) {
        prepare(limit, HOUR_US, on_expired);
        for (unsigned i = 0; i < limit; i++)
            add(i);
        assert_false(queue_add(&queue, &waiters[limit].entry));
        assert_false(waiters[limit].entry.is_waiting);
        assert_int_equal(queue.n, limit);
        if (limit > 0) {
            assert_takes(0);
            add(limit);
        }
        queue_finish(&queue);
    }
}

static void test_put_back(void **state)
{
    (void)state;
    prepare(2, HOUR_US, on_expired);
    for (unsigned i = 0; i < 2; i++)
        add(i);
    assert_takes(0);
    add(2);
    uint64_t since_us = waiters[0].entry.since_us;
    queue_put_back(&queue, &waiters[0].entry, false); /* there is no place for it, but for it there is */
    assert_true(waiters[0].entry.is_waiting);
    assert_true(waiters[0].entry.since_us == since_us);
    assert_int_equal(queue.n, 3);
    assert_false(queue_add(&queue, &waiters[3].entry));
    assert_takes(0);
    assert_takes(1);
    assert_takes(2);
    assert_takes(SOME);
    queue_finish(&queue);
}

static void test_remove(void **state)
{
    (void)state;
    for (unsigned gone = 0; gone < 3; gone++) {
        prepare(LIMIT, HOUR_US, on_expired);
        queue_remove(&queue, &waiters[gone].entry); /* it never waited */
        assert_int_equal(queue.n, 0);
        for (unsigned i = 0; i < 3; i++)
            add(i);
        queue_remove(&queue, &waiters[gone].entry);
        assert_false(waiters[gone].entry.is_waiting);
        queue_remove(&queue, &waiters[gone].entry);
        assert_int_equal(queue.n, 2);
        for (unsigned i = 0; i < 3; i++)
            if (i != gone)
                assert_takes(i);
        assert_takes(SOME);
        queue_finish(&queue);
    }
}

static void test_expiry(void **state)
{
    (void)state;
    prepare(LIMIT, 1000, on_expired);
    for (unsigned i = 0; i < LIMIT; i++)
        add(i);
    queue_remove(&queue, &waiters[1].entry);
    wait_for(3);
    assert_int_equal(waiters[0].turn, 1);
    assert_int_equal(waiters[1].turn, 0);
    assert_int_equal(waiters[2].turn, 2);
    assert_int_equal(waiters[3].turn, 3);
    assert_int_equal(queue.n, 0);
    assert_takes(SOME);
    assert_false(event_pending(queue.timer, EV_TIMEOUT, NULL)); /* nobody waits: nothing wakes the loop */
    add(1);
    wait_for(4);
    assert_int_equal(waiters[1].turn, 4);
    queue_finish(&queue);
}

/* None that was taken expires, and the timer that was set for it does no harm to who comes later. */
static void test_taken_does_not_expire(void **state)
{
    (void)state;
    prepare(LIMIT, 1000, on_expired);
    add(0);
    assert_takes(0);
    add(1);
    wait_for(1);
    assert_int_equal(waiters[0].turn, 0);
    assert_int_equal(waiters[1].turn, 1);
    queue_finish(&queue);
}

static void test_changes_while_expiring(void **state)
{
    (void)state;
    prepare(1, 1000, on_expired_add);
    add(0);
    wait_for(2);
    assert_int_equal(waiters[SOME - 1].turn, 2);
    assert_int_equal(queue.n, 0);
    queue_finish(&queue);

    prepare(LIMIT, 1000, on_expired_empty);
    for (unsigned i = 0; i < LIMIT; i++)
        add(i);
    wait_for(1);
    assert_int_equal(queue.n, 0);
    for (unsigned i = 1; i < LIMIT; i++) {
        assert_int_equal(waiters[i].turn, 0);
        assert_false(waiters[i].entry.is_waiting);
    }
    queue_finish(&queue);
}

/* One that comes back when its time is over does not get the time of those behind it as well. */
static void test_put_back_too_late(void **state)
{
    (void)state;
    for (unsigned others = 0; others < 2; others++) {
        prepare(LIMIT, HOUR_US, on_expired);
        add(0);
        assert_takes(0);
        event_del(queue.timer); /* it has fired meanwhile */
        if (others > 0)
            add(1);
        waiters[0].entry.since_us -= HOUR_US;
        queue_put_back(&queue, &waiters[0].entry, false);
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
        if (waiters[0].turn != 1)
            fail_msg("with %u others it waits on", others);
        assert_int_equal(queue.n, others);
        queue_finish(&queue);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_limit, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_put_back, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_remove, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_expiry, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_taken_does_not_expire, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_changes_while_expiring, make_base, free_base),
        cmocka_unit_test_setup_teardown(test_put_back_too_late, make_base, free_base),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
