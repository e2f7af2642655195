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

#include "base/scoreboard.h"

static void test_what_there_is_at_first(void **state)
{
    struct scoreboard *one = scoreboard_create(), *two = scoreboard_create();

    (void)state;
    assert_true(one->secret != two->secret);
    assert_true(one->start_us > 0 && one->start_unix_us > one->start_us / 1000);
    assert_int_equal(one->n_pools, 0);
    assert_int_equal(one->pools[SCOREBOARD_POOLS - 1].version, 0);
    assert_int_equal(one->processes[SCOREBOARD_PROGRAMS - 1].pool, 0);
    munmap(one, sizeof *one);
    munmap(two, sizeof *two);
}

/* A part that is being written is not read; afterwards, what was written is. */
static void test_reading(void **state)
{
    struct scoreboard *board = scoreboard_create();
    struct scoreboard_saturation *part = &board->saturations[3], copy;

    (void)state;
    assert_true(scoreboard_read(&part->version, part, &copy, sizeof copy));
    assert_string_equal(copy.text, "");
    scoreboard_open(&part->version);
    strcpy(part->text, "first");
    assert_false(scoreboard_read(&part->version, part, &copy, sizeof copy));
    scoreboard_open(&part->version); /* a writer that has died within, and another */
    assert_false(scoreboard_read(&part->version, part, &copy, sizeof copy));
    strcpy(part->text, "second");
    scoreboard_close(&part->version);
    assert_true(scoreboard_read(&part->version, part, &copy, sizeof copy));
    assert_string_equal(copy.text, "second");
    assert_int_equal(copy.version % 2, 0);
    munmap(board, sizeof *board);
}

enum { TEXT = sizeof((struct scoreboard_saturation *)NULL)->text, ROUNDS = 20000 };

/* Another process writes all the time: what is read is never of two writings. */
static void test_reading_while_another_writes(void **state)
{
    struct scoreboard *board = scoreboard_create();
    struct scoreboard_saturation *part = &board->saturations[0], copy;

    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned i = 1; i <= ROUNDS; i++) {
            scoreboard_open(&part->version);
            memset(part->text, 'a' + (int)(i % 26), TEXT);
            part->at_unix_us = i;
            scoreboard_close(&part->version);
        }
        _exit(0);
    }
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (!scoreboard_read(&part->version, part, &copy, sizeof copy) || copy.at_unix_us == 0)
            continue;
        for (unsigned i = 0; i < TEXT; i++)
            assert_int_equal(copy.text[i], 'a' + (int)(copy.at_unix_us % 26));
    }
    assert_true(scoreboard_read(&part->version, part, &copy, sizeof copy));
    assert_true(copy.at_unix_us == ROUNDS);
    munmap(board, sizeof *board);
}

/* Each bound is the last of its bucket. */
static void test_histogram(void **state)
{
    struct scoreboard_histogram histogram = {0};
    uint64_t sum = 0;

    (void)state;
    for (unsigned i = 0; i < SCOREBOARD_BUCKETS - 1; i++) {
        uint64_t bound = scoreboard_bounds_us[i];

        assert_true(i == 0 || bound > scoreboard_bounds_us[i - 1]);
        scoreboard_observe(&histogram, bound);
        assert_int_equal(histogram.buckets[i], i == 0 ? 1 : 2);
        scoreboard_observe(&histogram, bound + 1);
        assert_int_equal(histogram.buckets[i + 1], 1);
        sum += 2 * bound + 1;
    }
    scoreboard_observe(&histogram, 0);
    assert_int_equal(histogram.buckets[0], 2);
    assert_true(histogram.sum_us == sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_there_is_at_first),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_reading_while_another_writes),
        cmocka_unit_test(test_histogram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
