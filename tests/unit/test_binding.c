#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "keeper_stage.h"

/* Configurations come and go, pools stay. */

#define SITE      "[site *]\nroot = .\n"
#define ROUTES    "[route /x/*]\ngateway = cgi\ndir = .\n[route /p/*]\ngateway = fastcgi\npool = app\n"
#define APP       "[pool app]\ncommand = ./app.sh\n"
#define STATIC(n) SITE APP "pm = static\npm.max_children = " #n "\n"

static const char base[] = SITE ROUTES APP "pm.max_children = 2\n[pool s]\nserver = 127.0.0.1:9\n";

/* ---- which pool is which ---- */

/* What of the base is another pool when it is changed: bits of app, s, the first route, the second. */
static const struct {
    const char *name, *text;
    unsigned renewed;
} changes[] = {
    {"nothing", base, 0},
    {"how many processes", SITE ROUTES APP "pm.max_children = 9\n[pool s]\nserver = 127.0.0.1:9\n", 0},
    {"the process manager and what it needs",
     SITE ROUTES APP "pm.max_children = 2\npm = ondemand\nqueue = 7\n[pool s]\nserver = 127.0.0.1:9\n", 0},
    {"the command",
     SITE ROUTES "[pool app]\ncommand = ./app.sh x\npm.max_children = 2\n[pool s]\nserver = 127.0.0.1:9\n", 1 | 8},
    {"its environment", SITE ROUTES APP "pm.max_children = 2\nenv[A] = b\n[pool s]\nserver = 127.0.0.1:9\n", 1 | 8},
    {"the server's address", SITE ROUTES APP "pm.max_children = 2\n[pool s]\nserver = 127.0.0.1:10\n", 0},
    {"a server becomes a command",
     SITE ROUTES APP "pm.max_children = 2\n[pool s]\ncommand = ./app.sh\npm.max_children = 1\n", 2},
    {"a key of a route",
     SITE "[route /x/*]\ngateway = cgi\ndir = .\nmax_running = 5\n"
          "[route /p/*]\ngateway = fastcgi\npool = app\n" APP "pm.max_children = 2\n[pool s]\nserver = 127.0.0.1:9\n",
     4},
    {"a key of the site", SITE "listing = on\n" ROUTES APP "pm.max_children = 2\n[pool s]\nserver = 127.0.0.1:9\n",
     4 | 8},
    {"a comment and an order",
     SITE ROUTES "; new\n[pool s]\nserver = 127.0.0.1:9\n[pool app]\npm.max_children = 2\ncommand = ./app.sh\n", 0},
};

static unsigned compare(const struct stage *stage, const struct binding *a, const struct binding *b)
{
    static const char *const pools[] = {"app", "s"};
    unsigned renewed = 0;

    for (unsigned i = 0; i < 2; i++)
        renewed |= stage_pool(stage, a, pools[i]) != stage_pool(stage, b, pools[i]) ? 1U << i : 0;
    for (unsigned i = 0; i < 2; i++)
        renewed |= binding_of_route(a, a->config->routes[i]) != binding_of_route(b, b->config->routes[i]) ? 4U << i : 0;
    return renewed;
}

static void test_changes(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1), second;

    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        assert_int_equal(pools_bind(stage->pools, stage_config(stage, changes[i].text), &second), 0);
        unsigned renewed = compare(stage, &first, &second);
        if (renewed != changes[i].renewed)
            fail_msg("%s: %u, not %u", changes[i].name, renewed, changes[i].renewed);
        pools_unbind(stage->pools, &second);
        stage_wait(stage, 0);
        config_free(stage->configs[--stage->n_configs]);
        assert_int_equal(stage->options.scoreboard->n_pools, stage->pools->n);
    }
    assert_int_equal(stage_n(stage_pool(stage, &first, "app"), PROCESS_LIVE), 2);
    pools_unbind(stage->pools, &first);
}

/* ---- what goes on ---- */

/* The same again: the same numbers, the same processes, and nothing is said of them to the front that has them. */
static void test_the_same_again(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1);
    struct pool *pool = stage_pool(stage, &first, "app");
    pid_t pids[2] = {stage_process(pool, PROCESS_LIVE, 0)->program.pid,
                     stage_process(pool, PROCESS_LIVE, 1)->program.pid};
    const struct config *before = first.config;
    unsigned from = stage->n_said;
    struct binding second = stage_take(stage, base, 1, 1);

    assert_int_equal(compare(stage, &first, &second), 0);
    pools_unbind(stage->pools, &first);
    stage_wait(stage, 2000);
    assert_false(pools_refer_to(stage->pools, before));
    assert_true(pools_refer_to(stage->pools, second.config));
    assert_int_equal(pool->n_processes, 2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(stage_process(pool, PROCESS_LIVE, i)->program.pid, pids[i]);
    assert_int_equal(stage_count(stage, from, 0, MESSAGE_RETIRE, NULL), 0);
    assert_int_equal(stage->options.scoreboard->pools[pool->number].n_started, 2);
    pools_unbind(stage->pools, &second);
}

/* The old front has them until it leaves; then the new one gets the very same. */
static void test_processes_go_over(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, STATIC(2), 0, 1), second = stage_take(stage, STATIC(2), 1, 1);
    struct pool *pool = stage_pool(stage, &first, "app");
    struct process *process = stage_process(pool, PROCESS_LIVE, 0);
    unsigned from = stage->n_said;
    struct message loan;

    pools_front_leaves(stage->pools, 0);
    stage_tell_of(stage, process, MESSAGE_READY, 0);
    stage_tell_of(stage, process, MESSAGE_RETURN, 1);
    assert_int_equal(process->holder, 1);
    assert_int_equal(stage_count(stage, from, 1, MESSAGE_LOAN, &loan), 1);
    assert_int_equal(loan.id, process->id);
    assert_int_equal(loan.status, LOAN_READY);
    pools_front_left(stage->pools, 0);
    assert_int_equal(stage_count(stage, from, 1, MESSAGE_LOAN, &loan), 2);
    assert_int_equal(loan.status, LOAN_NEW);
    pools_unbind(stage->pools, &first);
    pools_unbind(stage->pools, &second);
}

/* ---- what ends ---- */

#define OTHER SITE ROUTES "[pool app]\ncommand = ./app.sh x\npm.max_children = 2\n[pool s]\nserver = 127.0.0.1:9\n"

/* Another identity makes another pool. The old one serves until it is unbound; then its processes end as they come
 * back, and its number is free with the last of them and the last front. */
static void test_another_identity(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1), second = stage_take(stage, OTHER, 1, 1);
    struct pool *before = stage_pool(stage, &first, "app"), *after = stage_pool(stage, &second, "app");
    const struct config *config = first.config;
    unsigned number = before->number, from = stage->n_said;
    struct process *process;

    assert_int_equal(stage_n(before, PROCESS_LIVE), 2);
    assert_int_equal(stage_n(after, PROCESS_LIVE), 2);
    assert_false(stage->options.scoreboard->pools[number].is_current);
    assert_true(stage->options.scoreboard->pools[after->number].is_current);
    pools_front_leaves(stage->pools, 0);
    pools_unbind(stage->pools, &first);
    assert_int_equal(stage_count(stage, from, 0, MESSAGE_RETIRE, NULL), 2);
    assert_int_equal(stage_n(before, PROCESS_RETIRING), 2);
    while ((process = stage_process(before, PROCESS_RETIRING, 0)) != NULL)
        stage_tell_of(stage, process, MESSAGE_RETURN, 1);
    assert_int_equal(stage_reap_ending(stage, before), 2);
    stage_wait(stage, 0);
    assert_true(pools_refer_to(stage->pools, config)); /* the front may still speak of it */
    pools_front_left(stage->pools, 0);
    pool_sweep_later(stage->pools);
    stage_wait(stage, 0);
    assert_null(stage->pools->at[number]);
    assert_false(stage->options.scoreboard->pools[number].is_there);
    assert_int_equal(stage->options.scoreboard->pools[after->number].n_started, 2);
    pools_unbind(stage->pools, &second);
}

/* A front that is killed may leave a pool as the last: nobody has to ask for the sweep. */
static void test_the_last_front_frees_the_number(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1), second = stage_take(stage, OTHER, 1, 1);
    struct pool *before = stage_pool(stage, &first, "app");
    const struct config *config = first.config;

    pools_front_leaves(stage->pools, 0);
    pools_front_left(stage->pools, 0);
    pools_unbind(stage->pools, &first);
    assert_int_equal(stage_reap_ending(stage, before), 2);
    stage_wait(stage, 0);
    assert_false(pools_refer_to(stage->pools, config));
    pools_unbind(stage->pools, &second);
}

/* One that fails to come leaves nothing behind. */
static void test_refused(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1), second;
    const struct config *config = stage_config(stage, OTHER);

    assert_int_equal(pools_bind(stage->pools, config, &second), 0);
    pools_front_came(stage->pools, 1, &second, true);
    assert_int_equal(stage_pool(stage, &second, "app")->n_processes, 0);
    pools_front_left(stage->pools, 1);
    pools_unbind(stage->pools, &second);
    stage_wait(stage, 0);
    assert_false(pools_refer_to(stage->pools, config));
    assert_int_equal(stage_n(stage_pool(stage, &first, "app"), PROCESS_LIVE), 2);
    pools_unbind(stage->pools, &first);
}

#define GROUPS SITE ROUTES "[route /y/*]\ngateway = cgi\ndir = .\ncgroup_pids = 5\n" APP "pm.max_children = 2\n"

/* What cannot be had while the server runs is refused, and what was bound before it is released again. */
static void test_not_while_it_runs(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, base, 0, 1), second;
    const struct config *config = stage_config(stage, GROUPS);
    struct pool *pool = stage_pool(stage, &first, "app");

    assert_int_equal(pools_bind(stage->pools, config, &second), -1);
    stage_wait(stage, 0);
    assert_false(pools_refer_to(stage->pools, config));
    assert_int_equal(pool->n_bindings, 1);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 2);
    pools_unbind(stage->pools, &first);
}

/* ---- how many there are is set anew ---- */

/* From how many to how many, how many retire at once when all are idle, and then when one in two is busy. */
static const struct {
    const char *from, *to;
    unsigned before, after;
} counts[] = {
    {STATIC(2), STATIC(5), 2, 5},   {STATIC(5), STATIC(2), 5, 2}, {STATIC(9), STATIC(1), 9, 1},
    {STATIC(12), STATIC(2), 12, 2}, {STATIC(3), STATIC(3), 3, 3},
};

static void try_count(struct stage *stage, const char *from, const char *to, unsigned before, unsigned after)
{
    struct binding first = stage_take(stage, from, 0, 1);
    struct pool *pool = stage_pool(stage, &first, "app");

    assert_int_equal(stage_n(pool, PROCESS_LIVE), before);
    struct binding second = stage_take(stage, to, 1, 1);
    assert_ptr_equal(stage_pool(stage, &second, "app"), pool);
    if (stage_n(pool, PROCESS_LIVE) != after)
        fail_msg("from %u to %u: %u are live, %u are retiring", before, after, stage_n(pool, PROCESS_LIVE),
                 stage_n(pool, PROCESS_RETIRING));
    assert_int_equal(stage_n(pool, PROCESS_RETIRING), before > after ? before - after : 0);
    pools_front_left(stage->pools, 0);
    stage_reap_ending(stage, pool);
    assert_int_equal(pool->n_processes, after);
    pools_unbind(stage->pools, &first);
    pools_unbind(stage->pools, &second);
    pools_front_left(stage->pools, 1);
    stage_reap_ending(stage, pool);
    stage_wait(stage, 0);
}

static void test_max_children(void **state)
{
    struct stage *stage = *state;

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        stage->n_said = 0;
        try_count(stage, counts[i].from, counts[i].to, counts[i].before, counts[i].after);
        while (stage->n_configs > 0)
            config_free(stage->configs[--stage->n_configs]);
    }
}

/* Busy ones go when they are done. */
static void test_max_children_of_busy_ones(void **state)
{
    struct stage *stage = *state;
    struct binding first = stage_take(stage, STATIC(4), 0, 1);
    struct pool *pool = stage_pool(stage, &first, "app");

    for (unsigned i = 0; i < 4; i++)
        stage_use(stage_process(pool, PROCESS_LIVE, i), false);
    struct binding second = stage_take(stage, STATIC(2), 1, 1);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 4);
    stage_use(stage_process(pool, PROCESS_LIVE, 3), true);
    stage_wait(stage, 1500);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 3);
    stage_use(stage_process(pool, PROCESS_LIVE, 0), true);
    stage_use(stage_process(pool, PROCESS_LIVE, 1), true);
    stage_wait(stage, 1500);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 2);
    stage_wait(stage, 5000);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 2);
    pools_unbind(stage->pools, &first);
    pools_unbind(stage->pools, &second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_the_same_again, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_processes_go_over, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_another_identity, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_the_last_front_frees_the_number, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_refused, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_not_while_it_runs, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_max_children, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_max_children_of_busy_ones, stage_begin, stage_end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
