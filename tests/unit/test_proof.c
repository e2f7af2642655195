#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "keeper_stage.h"

/* The first process of new settings shows that it serves, or they are not taken. */

#define APP "[site *]\nroot = .\n[pool app]\ncommand = ./app.sh\npm.max_children = 3\n"
#define OTHER                                                                                                          \
    "[site *]\nroot = .\n[pool app]\ncommand = ./app.sh x\npm.max_children = 3\nstart_timeout = 2s\n"                  \
    "[pool new]\ncommand = ./app.sh y\npm = ondemand\npm.max_children = 3\nstart_timeout = 4s\n"

struct coming {
    struct binding before, binding;
    struct pool *app, *new;
};

/* A configuration holds; another comes, with a front of its own, and is to be proven. */
static struct coming begin(struct stage *stage)
{
    struct coming coming = {.before = stage_take(stage, APP, 0, 1)};

    assert_int_equal(pools_bind(stage->pools, stage_config(stage, OTHER), &coming.binding), 0);
    coming.app = stage_pool(stage, &coming.binding, "app");
    coming.new = stage_pool(stage, &coming.binding, "new");
    pools_front_came(stage->pools, 1, &coming.binding, true);
    assert_int_equal(stage_count(stage, 0, 1, MESSAGE_LOAN, NULL), 0);
    pools_prove(stage->pools, &coming.binding);
    return coming;
}

static void end(struct stage *stage, struct coming *coming)
{
    pools_unbind(stage->pools, &coming->before);
    pools_unbind(stage->pools, &coming->binding);
}

static struct process *tried(const struct pool *pool)
{
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1); /* whatever its process manager: one, and no more yet */
    return stage_process(pool, PROCESS_LIVE, 0);
}

/* Each is tried by its front; when all serve, the rest is started, and the others go on until it holds. */
static void test_all_serve(void **state)
{
    struct stage *stage = *state;
    struct coming coming = begin(stage);
    struct pool *before = stage_pool(stage, &coming.before, "app");
    struct message loan;

    assert_int_equal(stage_count(stage, 0, 1, MESSAGE_LOAN, &loan), 2);
    assert_int_equal(loan.status, LOAN_UNTRIED);
    stage_tell_of(stage, tried(coming.app), MESSAGE_PROVEN, 1);
    assert_int_equal(stage->n_proven, 0);
    assert_int_equal(stage_n(coming.app, PROCESS_LIVE), 3);
    stage_tell_of(stage, tried(coming.new), MESSAGE_PROVEN, 1);
    assert_int_equal(stage->n_proven, 1);
    assert_string_equal(stage->why, "");
    assert_int_equal(stage_n(before, PROCESS_LIVE), 3);
    pools_commit(stage->pools, &coming.binding);
    assert_int_equal(stage_n(before, PROCESS_LIVE), 3);
    assert_int_equal(coming.app->proof, PROOF_NONE);
    stage_wait(stage, 5000);
    assert_int_equal(stage->n_proven, 1);
    end(stage, &coming);
}

/* Another front gets what is proven as any other process; what is to be proven, as that. */
static void test_its_front_dies(void **state)
{
    struct stage *stage = *state;
    struct coming coming = begin(stage);
    struct message loan;
    unsigned from = stage->n_said;

    pools_front_came(stage->pools, 2, &coming.binding, true);
    pools_front_left(stage->pools, 1);
    assert_int_equal(stage_count(stage, from, 2, MESSAGE_LOAN, &loan), 2);
    assert_int_equal(loan.status, LOAN_UNTRIED);
    stage_tell_of(stage, tried(coming.app), MESSAGE_PROVEN, 1);
    from = stage->n_said;
    pools_front_came(stage->pools, 3, &coming.binding, true);
    pools_front_left(stage->pools, 2);
    assert_int_equal(stage_count(stage, from, 3, MESSAGE_LOAN, &loan), 4);
    assert_int_equal(stage->said[stage->n_said - 1].message.status, LOAN_UNTRIED); /* of the other pool */
    assert_int_equal(stage->said[from].message.status, LOAN_NEW);
    end(stage, &coming);
}

static void tell_failure(struct stage *stage, struct coming *coming)
{
    struct process *process = tried(coming->app);
    struct message message = {
        .kind = MESSAGE_PROVEN, .pool = coming->app->number, .id = process->id, .text = "no!", .text_len = 3};

    assert_int_equal(stage_tell(stage, 1, message), 0);
}

static void let_die(struct stage *stage, struct coming *coming)
{
    stage_reap(stage, tried(coming->app)->program.pid, false, 1 << 8);
}

static void let_be_killed(struct stage *stage, struct coming *coming)
{
    for (unsigned i = 0; i < 3; i++) { /* somebody's mischief is borne for a while */
        stage_reap(stage, tried(coming->app)->program.pid, false, SIGKILL);
        assert_int_equal(stage->n_proven, 0);
    }
    stage_reap(stage, tried(coming->app)->program.pid, false, SIGKILL);
}

static void let_time_pass(struct stage *stage, struct coming *coming)
{
    (void)coming;
    stage_wait(stage, 1900);
    assert_int_equal(stage->n_proven, 0);
    stage_wait(stage, 200);
}

static const struct {
    void (*happen)(struct stage *stage, struct coming *coming);
    const char *why;
} failures[] = {
    {tell_failure, "[pool app]: no!"},
    {let_die, "app.sh exited with status 1 at once"},
    {let_be_killed, "[pool app]: "},
    {let_time_pass, "within start_timeout"},
};

/* One that fails is enough. Told once, and what there was before goes on. */
static void test_one_fails(void **state)
{
    struct stage *stage = *state;

    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        stage->n_said = stage->n_proven = 0;
        struct coming coming = begin(stage);

        failures[i].happen(stage, &coming);
        assert_int_equal(stage->n_proven, 1);
        if (strstr(stage->why, failures[i].why) == NULL)
            fail_msg("\"%s\" without \"%s\"", stage->why, failures[i].why);
        pools_front_left(stage->pools, 1);
        pools_unbind(stage->pools, &coming.binding);
        stage_reap_ending(stage, coming.app);
        stage_reap_ending(stage, coming.new);
        stage_wait(stage, 5000);
        assert_int_equal(stage->n_proven, 1);
        assert_int_equal(stage_n(stage_pool(stage, &coming.before, "app"), PROCESS_LIVE), 3);
        stage_reap_ending(stage, stage_pool(stage, &coming.before, "app"));
        pools_unbind(stage->pools, &coming.before);
        pools_front_left(stage->pools, 0);
        for (unsigned j = 0; j < stage->pools->n; j++)
            if (stage->pools->at[j] != NULL)
                stage_reap_ending(stage, stage->pools->at[j]);
        stage_wait(stage, 0);
        while (stage->n_configs > 0)
            config_free(stage->configs[--stage->n_configs]);
    }
}

/* What a front says of another process, or of one in service, proves nothing. */
static void test_the_wrong_process(void **state)
{
    struct stage *stage = *state;
    struct coming coming = begin(stage);
    struct message message = {.kind = MESSAGE_PROVEN, .pool = coming.app->number, .id = tried(coming.new)->id, .n = 1};

    assert_int_equal(stage_tell(stage, 1, message), 0);
    assert_int_equal(coming.app->proof, PROOF_WANTED);
    stage_tell_of(stage, stage_process(stage_pool(stage, &coming.before, "app"), PROCESS_LIVE, 0), MESSAGE_PROVEN, 0);
    assert_int_equal(stage->n_proven, 0);
    end(stage, &coming);
}

/* Where nothing is new, nothing is to be proven; nor of servers, or of scripts that nobody has asked for. */
static void test_nothing_new(void **state)
{
    static const char *const texts[] = {
        APP,
        APP "[pool s]\nserver = 127.0.0.1:9\n",
        APP "[pool s]\ncommand = $script\npm.max_children = 3\n",
    };
    struct stage *stage = *state;
    struct binding before = stage_take(stage, APP, 0, 1), binding;

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pools_bind(stage->pools, stage_config(stage, texts[i]), &binding), 0);
        pools_prove(stage->pools, &binding);
        assert_int_equal(stage->n_proven, i + 1);
        assert_string_equal(stage->why, "");
        pools_unbind(stage->pools, &binding);
    }
    pools_unbind(stage->pools, &before);
}

/* Some that serve first, or with those that were there before, do not help one whose program cannot be started. */
static void test_no_such_program(void **state)
{
    struct stage *stage = *state;
    struct coming coming = {.before = stage_take(stage, APP, 0, 1)};
    const struct config *config = stage_config(stage, OTHER);
    char path[128];

    snprintf(path, sizeof path, "%s/app.sh", stage->folder);
    assert_int_equal(remove(path), 0);
    assert_int_equal(pools_bind(stage->pools, config, &coming.binding), 0);
    pools_front_came(stage->pools, 1, &coming.binding, true);
    pools_prove(stage->pools, &coming.binding);
    assert_true(stage->n_proven >= 1);
    assert_non_null(strstr(stage->why, "app.sh"));
    end(stage, &coming);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_serve, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_its_front_dies, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_one_fails, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_the_wrong_process, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_nothing_new, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_no_such_program, stage_begin, stage_end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
