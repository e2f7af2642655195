#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "process/lender.h"

enum { SOME = 4 };

/* ---- single decisions ---- */

#define HERE(loans, recalled, waiting)                                                                                 \
    {                                                                                                                  \
        true, loans, recalled, waiting, 0, false, 0                                                                    \
    }
#define LEAVING(loans, recalled, waiting)                                                                              \
    {                                                                                                                  \
        true, loans, recalled, waiting, 0, true, 0                                                                     \
    }
#define AWAY                                                                                                           \
    {                                                                                                                  \
        false, 0, 0, 0, 0, false, 0                                                                                    \
    }

static const struct {
    const char *name;
    struct lender_share shares[SOME];
    int next;
} nexts[] = {
    {"nobody is here", {AWAY, AWAY, AWAY, AWAY}, -1},
    {"who is away is passed over", {AWAY, AWAY, HERE(7, 0, 0), AWAY}, 2},
    {"the fewest slots", {HERE(3, 0, 0), HERE(1, 0, 0), HERE(2, 0, 0), AWAY}, 1},
    {"one that waits, however many it has", {HERE(0, 0, 0), HERE(5, 0, 1), HERE(1, 0, 0), AWAY}, 1},
    {"of those that wait, the fewest slots", {HERE(0, 0, 0), HERE(5, 0, 9), HERE(4, 0, 1), HERE(6, 0, 3)}, 2},
    {"who leaves gets nothing", {LEAVING(0, 0, 0), HERE(5, 0, 0), AWAY, AWAY}, 1},
    {"... but what it waits for", {LEAVING(2, 0, 1), HERE(0, 0, 0), AWAY, AWAY}, 0},
    {"... in its turn", {LEAVING(2, 0, 1), HERE(1, 0, 1), AWAY, AWAY}, 1},
    {"all leave, and nobody waits", {LEAVING(0, 0, 0), LEAVING(1, 1, 0), AWAY, AWAY}, -1},
};

static const struct {
    const char *name;
    struct lender_share shares[SOME];
    int from;
} recalls[] = {
    {"nobody waits", {HERE(4, 0, 0), HERE(0, 0, 0), AWAY, AWAY}, -1},
    {"nobody has anything", {HERE(0, 0, 0), HERE(0, 0, 1), AWAY, AWAY}, -1},
    {"nobody else is here", {HERE(4, 0, 3), AWAY, AWAY, AWAY}, -1},
    {"who does not wait gives its last", {HERE(1, 0, 0), HERE(9, 0, 1), AWAY, AWAY}, 0},
    {"what is on its way is enough", {HERE(4, 1, 0), HERE(0, 0, 1), AWAY, AWAY}, -1},
    {"... but not what a busy front owes, while another has an idle one",
     {HERE(4, 1, 0), HERE(0, 0, 1), {true, 2, 0, 0, 0, false, 1}, AWAY},
     2},
    {"... nor is it asked of one whose idle ones are on their way",
     {HERE(4, 1, 0), HERE(0, 0, 1), {true, 2, 1, 0, 0, false, 1}, AWAY},
     -1},
    {"nor what is owed by a front that has given all back before",
     {HERE(0, 1, 0), HERE(0, 0, 1), HERE(2, 0, 0), AWAY},
     2},
    {"more wait than are on their way", {HERE(4, 1, 0), HERE(0, 0, 2), AWAY, AWAY}, 0},
    {"all of it is recalled already", {HERE(2, 2, 0), HERE(0, 0, 5), AWAY, AWAY}, -1},
    {"who does not wait, before who does", {HERE(9, 0, 5), HERE(1, 0, 0), HERE(0, 0, 1), AWAY}, 1},
    {"the richest of those that do not", {HERE(2, 0, 0), HERE(3, 0, 0), HERE(0, 0, 1), AWAY}, 1},
    {"the richest of those that wait", {HERE(4, 0, 1), HERE(0, 0, 1), HERE(5, 0, 1), AWAY}, 2},
    {"equal shares stay", {HERE(2, 0, 3), HERE(2, 0, 3), AWAY, AWAY}, -1},
    {"give or take one", {HERE(3, 0, 3), HERE(2, 0, 3), AWAY, AWAY}, -1},
    {"two more is one too many", {HERE(4, 0, 3), HERE(2, 0, 3), AWAY, AWAY}, 0},
    {"who has none gets the only one", {HERE(1, 0, 3), HERE(0, 0, 3), AWAY, AWAY}, 0},
    {"who leaves gives, too", {LEAVING(1, 0, 0), HERE(0, 0, 1), AWAY, AWAY}, 0},
    {"who leaves is given for", {HERE(1, 0, 0), LEAVING(0, 0, 1), AWAY, AWAY}, 0},
};

static struct lender with(const struct lender_share shares[SOME])
{
    struct lender lender;

    memset(&lender, 0, sizeof lender);
    memcpy(lender.shares, shares, SOME * sizeof *shares);
    return lender;
}

static void test_next(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nexts / sizeof *nexts; i++) {
        struct lender lender = with(nexts[i].shares);
        int got = lender_next(&lender);

        if (got != nexts[i].next)
            fail_msg("%s: %d, not %d", nexts[i].name, got, nexts[i].next);
    }
}

static void test_recall(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof recalls / sizeof *recalls; i++) {
        struct lender lender = with(recalls[i].shares);
        int got = lender_recall(&lender);

        if (got != recalls[i].from)
            fail_msg("%s: %d, not %d", recalls[i].name, got, recalls[i].from);
        if (got < 0)
            assert_memory_equal(lender.shares, recalls[i].shares, sizeof recalls[i].shares);
        else
            assert_int_equal(lender.shares[got].recalled, recalls[i].shares[got].recalled + 1);
    }
}

static void test_counts(void **state)
{
    struct lender lender = {.shares = {HERE(0, 0, 1), HERE(2, 1, 0)}};

    (void)state;
    lender_lent(&lender, 0);
    assert_int_equal(lender.shares[0].loans, 1);
    assert_int_equal(lender.shares[0].waiting, 0);
    lender_lent(&lender, 0);
    assert_int_equal(lender.shares[0].loans, 2);
    assert_int_equal(lender.shares[0].waiting, 0);
    lender_returned(&lender, 1, false); /* another than the one that was recalled */
    assert_int_equal(lender.shares[1].loans, 1);
    assert_int_equal(lender.shares[1].recalled, 1);
    lender_lent(&lender, 1);
    lender_returned(&lender, 1, true);
    assert_int_equal(lender.shares[1].loans, 1);
    assert_int_equal(lender.shares[1].recalled, 0);
    lender_returned(&lender, 1, true);
    assert_int_equal(lender.shares[1].loans, 0);
    assert_int_equal(lender.shares[1].recalled, 0);
}

/* ---- fronts that borrow, use and give back, as the real ones do ---- */

enum {
    MANY_SLOTS = 128,
    MANY_TURNS = 10000, /* to come to rest in; far fewer are needed */
};

struct front {
    unsigned idle, busy, queue, owed;
    unsigned served;
    unsigned passed_over; /* runs that have ended since it waits and was given nothing */
};

struct world {
    struct lender lender;
    struct front fronts[LENDER_FRONTS];
    unsigned n_fronts, n_slots, n_free;
    unsigned running[MANY_SLOTS], n_running; /* the fronts of the runs, oldest first */
};

static void check_sums(const struct world *world)
{
    unsigned lent = 0;

    for (unsigned i = 0; i < world->n_fronts; i++) {
        const struct lender_share *share = &world->lender.shares[i];

        assert_int_equal(share->loans, world->fronts[i].idle + world->fronts[i].busy);
        assert_true(share->recalled <= share->loans);
        assert_int_equal(share->recalled, world->fronts[i].owed);
        assert_true(share->waiting <= world->fronts[i].queue);
        lent += share->loans;
    }
    assert_int_equal(lent + world->n_free, world->n_slots);
}

static void want(struct world *world, unsigned front)
{
    int giver;

    world->lender.shares[front].waiting = world->fronts[front].queue;
    while ((giver = lender_recall(&world->lender)) >= 0)
        world->fronts[giver].owed++;
}

static void run(struct world *world, unsigned number)
{
    struct front *front = &world->fronts[number];

    front->idle--;
    front->busy++;
    front->served++;
    front->passed_over = 0;
    world->running[world->n_running++] = number;
}

/* It pays its debts, then serves its queue. Whether anything has moved. */
static bool work(struct world *world, unsigned number)
{
    struct front *front = &world->fronts[number];
    bool has_moved = false;

    for (; front->owed > 0 && front->idle > 0; has_moved = true) {
        front->owed--;
        front->idle--;
        lender_returned(&world->lender, number, true);
        world->n_free++;
    }
    for (; front->queue > 0 && front->idle > 0; has_moved = true) {
        front->queue--;
        run(world, number);
        want(world, number);
    }
    return has_moved;
}

static bool lend(struct world *world)
{
    bool has_moved = false;
    int front;

    for (; world->n_free > 0 && (front = lender_next(&world->lender)) >= 0; has_moved = true) {
        assert_true(world->lender.shares[front].is_here);
        lender_lent(&world->lender, (unsigned)front);
        world->fronts[front].idle++;
        world->n_free--;
    }
    return has_moved;
}

static void settle(struct world *world)
{
    unsigned turns = 0;

    for (bool has_moved = true; has_moved; turns++) {
        assert_true(turns < MANY_TURNS);
        has_moved = lend(world);
        for (unsigned i = 0; i < world->n_fronts; i++)
            has_moved |= work(world, i);
    }
    check_sums(world);
}

static void arrive(struct world *world, unsigned front)
{
    world->fronts[front].queue++;
    want(world, front);
    settle(world);
}

/* The nth oldest run comes to its end. */
static void end_run(struct world *world, unsigned nth)
{
    unsigned number = world->running[nth];

    world->n_running--;
    memmove(world->running + nth, world->running + nth + 1, (world->n_running - nth) * sizeof *world->running);
    for (unsigned i = 0; i < world->n_fronts; i++)
        if (world->fronts[i].queue > 0)
            world->fronts[i].passed_over++;
    world->fronts[number].busy--;
    world->fronts[number].idle++;
    settle(world);
}

static struct world start(unsigned n_fronts, unsigned n_slots)
{
    struct world world;

    memset(&world, 0, sizeof world);
    world.n_fronts = n_fronts;
    world.n_slots = world.n_free = n_slots;
    for (unsigned i = 0; i < n_fronts; i++)
        world.lender.shares[i].is_here = true;
    settle(&world);
    return world;
}

static const struct {
    unsigned fronts, slots;
} sizes[] = {
    {1, 1},
    {2, 1},
    {3, 1},
    {5, 2},
    {8, 3},
    {2, 2},
    {4, 4},
    {3, 4},
    {3, 7},
    {7, 64},
    {LENDER_FRONTS, 1},
    {LENDER_FRONTS, 10},
};

enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void test_start_is_even(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        struct world world = start(sizes[i].fronts, sizes[i].slots);
        unsigned least = sizes[i].slots / sizes[i].fronts;

        assert_int_equal(world.n_free, 0);
        for (unsigned front = 0; front < world.n_fronts; front++)
            assert_in_range(world.fronts[front].idle, least, least + 1);
    }
}

/* One front has all the work: it gets all the slots. */
static void test_idle_fronts_give_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        for (unsigned busy = 0; busy < sizes[i].fronts; busy += 1 + sizes[i].fronts / 3) {
            struct world world = start(sizes[i].fronts, sizes[i].slots);

            for (unsigned n = 0; n < sizes[i].slots; n++)
                arrive(&world, busy);
            assert_int_equal(world.fronts[busy].busy, sizes[i].slots);
            assert_int_equal(world.fronts[busy].queue, 0);
        }
    }
}

/* One front has all the slots and work for more; then the others come. */
static void test_shares_become_even(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        struct world world = start(sizes[i].fronts, sizes[i].slots);
        unsigned most = 0, least = MANY_SLOTS;

        for (unsigned n = 0; n < 2 * sizes[i].slots; n++)
            arrive(&world, 0);
        for (unsigned round = 0; round < 20 * (sizes[i].fronts + sizes[i].slots); round++) {
            for (unsigned front = 0; front < world.n_fronts; front++)
                while (world.fronts[front].queue < 2 * sizes[i].slots)
                    arrive(&world, front);
            end_run(&world, 0);
        }
        for (unsigned front = 0; front < world.n_fronts; front++) {
            unsigned loans = world.lender.shares[front].loans;

            most = loans > most ? loans : most;
            least = loans < least ? loans : least;
        }
        assert_true(most - least <= 1);
    }
}

/* All fronts always have work waiting: none is passed over for more than two rounds in which slots change hands one by
 * one, each when all that runs before it has ended. */
static void test_nobody_starves(void **state)
{
    static const unsigned depths[] = {1, 3, 40};

    (void)state;
    for (size_t i = 0; i < N_SIZES * 3; i++) {
        unsigned n_fronts = sizes[i / 3].fronts, n_slots = sizes[i / 3].slots, depth = depths[i % 3];
        unsigned patience = 2 * n_fronts * (n_slots + 1);
        struct world world = start(n_fronts, n_slots);

        for (unsigned round = 0; round < 3 * patience; round++) {
            for (unsigned front = 0; front < n_fronts; front++) {
                while (world.fronts[front].queue < depth)
                    arrive(&world, front);
                if (world.fronts[front].passed_over > patience)
                    fail_msg("%u fronts, %u slots, %u waiting: front %u waits for ever (it was served %u times, "
                             "front 0 %u times)",
                             n_fronts, n_slots, depth, front, world.fronts[front].served, world.fronts[0].served);
            }
            end_run(&world, 0);
        }
    }
}

/* Work comes and goes at random; when no more comes, all of it is done and nothing is owed to those that waited. */
static void test_all_work_is_done(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        struct world world = start(sizes[i].fronts, sizes[i].slots);
        unsigned arrived = 0, served = 0;

        for (unsigned step = 0; step < 2000; step++) {
            random = random * 1664525 + 1013904223;
            if (random >> 31 && world.n_running > 0) {
                end_run(&world, (random >> 8) % world.n_running);
            } else {
                arrive(&world, (random >> 8) % world.n_fronts);
                arrived++;
            }
        }
        while (world.n_running > 0)
            end_run(&world, 0);
        for (unsigned front = 0; front < world.n_fronts; front++) {
            assert_int_equal(world.fronts[front].queue, 0);
            served += world.fronts[front].served;
        }
        assert_int_equal(served, arrived);
        assert_int_equal(world.n_free, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_recall),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_start_is_even),
        cmocka_unit_test(test_idle_fronts_give_all),
        cmocka_unit_test(test_shares_become_even),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_all_work_is_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
