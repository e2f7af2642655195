#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keeper_stage.h"

/* Slots that are no processes of ours, and what a front may not ask for. */

static const char runs_of_one[] = "[site *]\nroot = .\n[route /x/*]\ngateway = cgi\ndir = .\nmax_running = 1\n";

static unsigned number_of_route(const struct stage *stage, unsigned index)
{
    const struct config *config = stage->configs[stage->n_configs - 1];

    for (unsigned i = 0; i < stage->pools->n; i++)
        if (stage->pools->at[i] != NULL && stage->pools->at[i]->route == config->routes[index])
            return i;
    fail();
    return 0;
}

/* Slots that the front has on loan of a pool without processes. */
static unsigned n_lent(const struct stage *stage, unsigned front, unsigned number)
{
    return stage->pools->at[number]->lender.shares[front].loans;
}

/* ---- CGI runs ---- */

static int memory_file(void)
{
    int fd = memfd_create("environment", MFD_CLOEXEC);

    assert_int_equal(write(fd, "A=1", 4), 4);
    return fd;
}

/* A front asks for a run; its standard input stays open until *hold is closed. What pools_receive() has returned. */
static int ask(struct stage *stage, unsigned front, const char *script, int environment_fd, int *hold)
{
    struct message message = {.kind = MESSAGE_RUN, .pool = number_of_route(stage, 0), .id = 7};
    int fds[4], pipe_fds[2];

    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", script);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    *hold = pipe_fds[1];
    fds[0] = pipe_fds[0];
    fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    fds[2] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    fds[3] = environment_fd;
    return pools_receive(stage->pools, front, &message, fds, 4);
}

static const struct message *last_said(const struct stage *stage)
{
    return &stage->said[stage->n_said - 1].message;
}

static void test_run(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 1);
    int hold, more;

    assert_int_equal(n_lent(stage, 0, number_of_route(stage, 0)), 1);
    assert_int_equal(ask(stage, 0, "x.sh", memory_file(), &hold), 0);
    assert_int_equal(last_said(stage)->kind, MESSAGE_STARTED);
    pid_t pid = last_said(stage)->pid;
    assert_int_equal(ask(stage, 0, "x.sh", memory_file(), &more), -EPROTO); /* more than it has slots */
    close(hold);
    close(more);
    stage_reap(stage, pid, true, 0);
    assert_int_equal(last_said(stage)->kind, MESSAGE_EXITED);
    pools_unbind(stage->pools, &binding);
}

static void test_what_may_not_be_run(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 1);
    int hold;

    assert_int_equal(ask(stage, 0, "forbidden.sh", memory_file(), &hold), 0);
    close(hold);
    assert_int_equal(last_said(stage)->kind, MESSAGE_REFUSED);
    assert_int_equal(last_said(stage)->status, EACCES);
    assert_int_equal(last_said(stage)->n, 1);
    pools_unbind(stage->pools, &binding);
}

/* Reading some files takes for ever: only one in memory is read. */
static void test_environment_that_is_no_memory_file(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 1);
    char path[128];
    int hold;

    snprintf(path, sizeof path, "%s/x.sh", stage->folder);
    assert_int_equal(ask(stage, 0, "x.sh", open(path, O_RDONLY | O_CLOEXEC), &hold), 0);
    close(hold);
    assert_int_equal(last_said(stage)->kind, MESSAGE_REFUSED);
    assert_int_equal(last_said(stage)->status, E2BIG);
    assert_non_null(strstr(last_said(stage)->text, "memory file"));
    pools_unbind(stage->pools, &binding);
}

/* The run of a front that is gone has its slot until it has exited: no more than max_running ever run. */
static void test_slots_of_a_front_that_is_gone(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 2);
    unsigned number = number_of_route(stage, 0);
    int hold;

    assert_int_equal(n_lent(stage, 1, number), 0);
    assert_int_equal(ask(stage, 0, "x.sh", memory_file(), &hold), 0);
    pid_t pid = last_said(stage)->pid;
    pools_front_left(stage->pools, 0);
    assert_int_equal(n_lent(stage, 1, number), 0);
    close(hold);
    stage_reap(stage, pid, true, 0);
    assert_int_equal(n_lent(stage, 1, number), 1);
    pools_unbind(stage->pools, &binding);
}

static void test_idle_slots_of_a_front_that_is_gone(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 2);

    pools_front_left(stage->pools, 0);
    assert_int_equal(n_lent(stage, 1, number_of_route(stage, 0)), 1);
    pools_unbind(stage->pools, &binding);
}

/* Of a route that is gone, the number is free when its last run has ended and its last front has left. */
static void test_a_run_that_outlives_its_route(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, runs_of_one, 0, 1);
    const struct config *config = binding.config;
    int hold;

    assert_int_equal(ask(stage, 0, "x.sh", memory_file(), &hold), 0);
    pid_t pid = last_said(stage)->pid;
    pools_unbind(stage->pools, &binding);
    stage_wait(stage, 0);
    assert_true(pools_refer_to(stage->pools, config));
    pools_front_left(stage->pools, 0);
    stage_wait(stage, 0);
    assert_true(pools_refer_to(stage->pools, config));
    close(hold);
    stage_reap(stage, pid, true, 0);
    stage_wait(stage, 0);
    assert_false(pools_refer_to(stage->pools, config));
}

/* ---- how many slots there are ---- */

#define SERVERS(most) "[site *]\nroot = .\n[pool s]\nserver = 127.0.0.1:9\nmax_connections = " #most "\n"

static int give_back(struct stage *stage, unsigned number, unsigned n)
{
    return stage_tell(stage, 0, (struct message){.kind = MESSAGE_RETURN, .pool = number, .n = n});
}

/* Those that are too many are not lent again when they come back; those that are free are gone at once. */
static void test_fewer_slots(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, SERVERS(10), 0, 1);
    struct pool *pool = stage_pool(stage, &first, "s");

    assert_int_equal(n_lent(stage, 0, pool->number), 10);
    struct binding second = stage_take(stage, SERVERS(4), 1, 1);
    assert_ptr_equal(stage_pool(stage, &second, "s"), pool);
    assert_int_equal(pool->capacity, 4);
    assert_int_equal(pool->n_excess, 6);
    pools_front_leaves(stage->pools, 0);
    assert_int_equal(give_back(stage, pool->number, 5), 0);
    assert_int_equal(n_lent(stage, 1, pool->number), 0);
    assert_int_equal(pool->n_excess, 1);
    assert_int_equal(give_back(stage, pool->number, 3), 0);
    assert_int_equal(n_lent(stage, 1, pool->number), 2);
    assert_int_equal(pool->n_excess, 0);
    pools_front_left(stage->pools, 0);
    assert_int_equal(n_lent(stage, 1, pool->number), 4);
    pools_unbind(stage->pools, &first);
    pools_unbind(stage->pools, &second);
}

/* How many of 10 on loan are too many, and how many are lent anew, when there are to be so many, in turn. */
static const struct {
    unsigned to[3], excess, on_loan;
} capacities[] = {
    {{4, 8, 0}, 2, 10}, {{4, 10, 0}, 0, 10}, {{4, 12, 0}, 0, 12}, {{4, 2, 0}, 8, 10},
    {{1, 9, 1}, 9, 10}, {{12, 0, 0}, 0, 12}, {{12, 4, 0}, 8, 12}, {{10, 10, 10}, 0, 10},
};

static void test_capacity(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, SERVERS(10), 0, 1);
    struct pool *pool = stage_pool(stage, &binding, "s");

    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        pools_front_left(stage->pools, 0);
        pool_set_capacity(pool, 10);
        pools_front_came(stage->pools, 0, &binding, false);
        assert_int_equal(n_lent(stage, 0, pool->number), 10);
        for (unsigned j = 0; j < 3 && capacities[i].to[j] > 0; j++)
            pool_set_capacity(pool, capacities[i].to[j]);
        assert_int_equal(pool->n_excess, capacities[i].excess);
        assert_int_equal(n_lent(stage, 0, pool->number), capacities[i].on_loan);
        assert_int_equal(give_back(stage, pool->number, capacities[i].on_loan), 0); /* what is left is lent again */
        assert_int_equal(pool->n_excess, 0);
        assert_int_equal(n_lent(stage, 0, pool->number), pool->capacity);
    }
    pools_unbind(stage->pools, &binding);
}

/* ---- what a front may not say ---- */

static const char all_kinds[] = "[site *]\nroot = .\n"
                                "[route /x/*]\ngateway = cgi\ndir = .\n"
                                "[route /p/*]\ngateway = fastcgi\npool = app\n"
                                "[route /static/*]\ngateway = static\n"
                                "[pool app]\ncommand = ./app.sh\npm.max_children = 1\n"
                                "[pool s]\nserver = 127.0.0.1:9\n";

static int say(struct stage *stage, unsigned front, enum message_kind kind, unsigned number)
{
    static const uint32_t ids[] = {0, 1, UINT32_MAX};
    int worst = 0;

    for (size_t i = 0; i < 3; i++) {
        int result = stage_tell(stage, front, (struct message){.kind = kind, .pool = number, .id = ids[i]});

        assert_true(result == 0 || result == -EPROTO);
        worst = result < worst ? result : worst;
    }
    return worst;
}

/* Of a pool that it is not in, and of one that there is not, a front may say nothing. */
static void test_pools_of_others(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, all_kinds, 0, 1);

    for (enum message_kind kind = MESSAGE_WANT; kind <= MESSAGE_SLOW; kind++) {
        for (unsigned number = 0; number < stage->pools->n; number++)
            assert_int_equal(say(stage, 1, kind, number), -EPROTO);
        assert_int_equal(say(stage, 0, kind, stage->pools->n), -EPROTO);
        assert_int_equal(say(stage, 0, kind, UINT32_MAX), -EPROTO);
    }
    pools_unbind(stage->pools, &binding);
}

/* Whatever is said of whatever pool, with or without sense, the keeper goes on. */
static void test_all_that_may_be_said(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, all_kinds, 0, 1);

    for (unsigned number = 0; number < stage->pools->n; number++)
        for (unsigned kind = 0; kind <= N_MESSAGES; kind++)
            if (kind != MESSAGE_RUN)
                say(stage, 0, (enum message_kind)kind, number);
    for (unsigned number = 0; number < stage->pools->n; number++)
        for (enum message_kind kind = MESSAGE_LOAN; kind <= N_MESSAGES; kind++)
            assert_int_equal(say(stage, 0, kind, number), -EPROTO);
    pools_unbind(stage->pools, &binding);
}

static const struct {
    const char *name;
    struct message message;
    bool of_cgi;
} refused[] = {
    {"more slots than it has", {.kind = MESSAGE_RETURN, .n = 33}, true},
    {"more slots than there are", {.kind = MESSAGE_RETURN, .n = UINT32_MAX, .status = INT32_MIN}, true},
    {"a script where there are none", {.kind = MESSAGE_OPEN, .text = "x.sh", .text_len = 4}, true},
    {"a script of a pool of one program", {.kind = MESSAGE_OPEN, .text = "x.sh", .text_len = 4}, false},
    {"a run of what is no CGI route", {.kind = MESSAGE_RUN, .text = "x.sh", .text_len = 4}, false},
    {"slow run of CGI", {.kind = MESSAGE_SLOW, .text = "x", .text_len = 1}, true},
};

static void test_what_may_not_be_asked(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, all_kinds, 0, 1);
    unsigned cgi = number_of_route(stage, 0), other = number_of_route(stage, 1);

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct message message = refused[i].message;

        message.pool = refused[i].of_cgi ? cgi : other;
        if (stage_tell(stage, 0, message) != -EPROTO)
            fail_msg("%s", refused[i].name);
    }
    pools_unbind(stage->pools, &binding);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_run, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_what_may_not_be_run, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_environment_that_is_no_memory_file, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_slots_of_a_front_that_is_gone, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_idle_slots_of_a_front_that_is_gone, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_run_that_outlives_its_route, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_fewer_slots, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_capacity, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_pools_of_others, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_all_that_may_be_said, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_what_may_not_be_asked, stage_begin, stage_end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
