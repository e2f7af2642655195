/* Connections to a server counted over fronts, which are processes here where they race. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/seats.h"

enum { FRONTS = 3, KEY = 4711 };

static struct seat_board *board;
static struct seats *fronts[FRONTS];
static struct seat_row *rows[FRONTS];

static int set_up(void **state)
{
    (void)state;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(board, MAP_FAILED);
    for (unsigned i = 0; i < FRONTS; i++) {
        fronts[i] = seats_create(board, i);
        rows[i] = seats_add(fronts[i], KEY, 5, "10.0.0.1:9000");
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FRONTS; i++)
        seats_destroy(fronts[i]);
    return munmap(board, sizeof *board);
}

static void test_limit_holds_over_fronts(void **state)
{
    struct seat_row *other = seats_add(fronts[0], KEY + SEAT_ROWS, 5, "10.0.0.2:9000"); /* it begins at the same row */

    (void)state;
    assert_ptr_not_equal(other, rows[0]);
    assert_ptr_equal(seats_add(fronts[0], KEY, 5, ""), rows[0]);
    for (unsigned i = 0; i < 4; i++)
        assert_true(seats_enter(fronts[i % FRONTS], rows[i % FRONTS], 4));
    for (unsigned i = 0; i < FRONTS; i++)
        assert_false(seats_enter(fronts[i], rows[i], 4));
    assert_true(seats_enter(fronts[0], other, 1));
    seats_leave(rows[1]);
    assert_true(seats_enter(fronts[2], rows[2], 4));
    assert_false(seats_enter(fronts[1], rows[1], 4));
}

static void test_look(void **state)
{
    (void)state;
    assert_true(seats_enter(fronts[0], rows[0], 9) && seats_enter(fronts[1], rows[1], 9));
    assert_true(seats_enter(fronts[1], rows[1], 9));
    rows[1]->n_idle = 1;
    rows[0]->is_awaited = 1;
    rows[1]->is_awaited = 1;
    rows[0]->asked_us = 7;
    rows[1]->asked_us = 9;
    rows[0]->told_us = 8;
    rows[0]->health = HEALTH_ILL;
    rows[1]->told_us = 6;
    rows[1]->health = HEALTH_WELL;
    struct seats_others others = seats_look(fronts[2], rows[2]);
    assert_int_equal(others.n_connections, 3);
    assert_int_equal(others.n_idle, 1);
    assert_int_equal(others.n_awaited, 2);
    assert_int_equal(others.least, 1);
    assert_int_equal(others.asked_us, 9);
    assert_int_equal(others.told_us, 8);
    assert_int_equal(others.health, HEALTH_ILL);
    assert_true(others.has_lower);
    assert_false(seats_look(fronts[0], rows[0]).has_lower);
    assert_true(seats_is_first(fronts[0]) && !seats_is_first(fronts[1]));
}

/* What a front that has crashed had counts until it is marked as gone, or there is another in its place. */
static void test_front_that_is_gone(void **state)
{
    (void)state;
    assert_true(seats_enter(fronts[0], rows[0], 1));
    assert_false(seats_enter(fronts[1], rows[1], 1));
    board->fronts[0] = 0;
    assert_true(seats_enter(fronts[1], rows[1], 1));
    seats_leave(rows[1]);
    free(fronts[0]);
    fronts[0] = seats_create(board, 0);
    assert_true(seats_enter(fronts[1], rows[1], 1));
}

static void test_rows_run_out(void **state)
{
    struct seat_row *made[SEAT_ROWS];

    (void)state;
    made[0] = rows[0];
    for (uint64_t i = 1; i < SEAT_ROWS; i++)
        assert_non_null(made[i] = seats_add(fronts[0], KEY + i * 3, 0, ""));
    assert_null(seats_add(fronts[0], 1, 0, ""));
    assert_true(seats_enter(fronts[0], made[9], 1));
    seats_remove(made[9]);
    struct seat_row *next = seats_add(fronts[0], 1, 0, "a");
    assert_ptr_equal(next, made[9]);
    assert_int_equal(next->n_connections, 0);
    for (uint64_t i = 1; i < SEAT_ROWS; i++) /* all others are still found */
        if (i != 9)
            assert_ptr_equal(seats_add(fronts[0], KEY + i * 3, 0, ""), made[i]);
}

/* Three processes take and leave seats as fast as they can: never are there more than three. */
static void test_race(void **state)
{
    enum { LIMIT = 3, ROUNDS = 100000, HELD = 2 };
    _Atomic unsigned *now = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[FRONTS];

    (void)state;
    for (unsigned i = 0; i < FRONTS; i++) {
        children[i] = fork();
        if (children[i] != 0)
            continue;
        unsigned n_held = 0, n_got = 0;
        for (unsigned round = 0; round < ROUNDS || n_got == 0; round++) {
            if (n_held < HELD && seats_enter(fronts[i], rows[i], LIMIT)) {
                n_held++;
                n_got++;
                if (atomic_fetch_add(now, 1) >= LIMIT)
                    _exit(1);
                continue;
            }
            if (n_held == 0)
                continue;
            atomic_fetch_sub(now, 1);
            seats_leave(rows[i]);
            n_held--;
        }
        for (; n_held > 0; n_held--) {
            atomic_fetch_sub(now, 1);
            seats_leave(rows[i]);
        }
        _exit(0);
    }
    for (unsigned i = 0; i < FRONTS; i++) {
        int status;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(*now, 0);
    munmap(now, 4096);
}

static void test_note(void **state)
{
    (void)state;
    assert_int_equal(rows[0]->pool, 5);
    assert_string_equal(rows[0]->address, "10.0.0.1:9000");
    seats_note(rows[0], SEAT_DOWN, 17, "Connection refused");
    seats_note(rows[0], SEAT_DOWN, 18, NULL);
    assert_int_equal(rows[0]->state, SEAT_DOWN);
    assert_int_equal(rows[0]->since_us, 17);
    assert_string_equal(rows[0]->why, "Connection refused");
    assert_int_equal(rows[0]->version % 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_limit_holds_over_fronts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_look, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_front_that_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rows_run_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_race, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_note, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
