#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "keeper_stage.h"

/* The life of a pool's processes: what ends them, what takes their place, and who gets it. */

#define APP       "[site *]\nroot = .\n[pool app]\ncommand = ./app.sh\n"
#define STATIC(n) APP "pm = static\npm.max_children = " #n "\n"
#define ONDEMAND  APP "pm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 2s\n"
#define DYNAMIC                                                                                                        \
    APP "pm = dynamic\npm.max_children = 4\npm.start_servers = 2\npm.min_spare_servers = 1\n"                          \
        "pm.max_spare_servers = 2\n"

/* A pool with these settings, of which one front, or more, has all. */
static struct pool *begin(struct stage *stage, const char *text, unsigned n_fronts, struct binding *binding_out)
{
    *binding_out = stage_take(stage, text, 0, n_fronts);
    return stage_pool(stage, binding_out, "app");
}

static struct process *live(const struct pool *pool, unsigned n)
{
    return stage_process(pool, PROCESS_LIVE, n);
}

static void want(struct stage *stage, const struct pool *pool, unsigned front, unsigned n)
{
    struct message message = {.kind = MESSAGE_WANT, .pool = pool->number, .n = n};

    pool->all->options.scoreboard->fronts[front].shares[pool->number].n_waiting = n;
    assert_int_equal(stage_tell(stage, front, message), 0);
}

static uint64_t n_ended(const struct pool *pool, enum scoreboard_end cause)
{
    return pool_board(pool)->ends[cause];
}

/* ---- requests ---- */

/* SPENT: another is started at once; when that has answered, the spent one retires, and ends when it comes back. */
static void test_the_replacement_comes_first(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1) "pm.max_requests = 10\n", 1, &binding);
    struct process *spent = live(pool, 0);
    struct message said;

    assert_in_range(spent->soft, 9, 10);
    assert_int_equal(spent->hard, 11);
    stage_tell_of(stage, spent, MESSAGE_READY, 0);
    stage_use(spent, false);
    stage_tell_of(stage, spent, MESSAGE_SPENT, 0);
    assert_int_equal(spent->state, PROCESS_SPENT);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_RETIRE, NULL), 0);
    stage_tell_of(stage, live(pool, 0), MESSAGE_READY, 0);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_RETIRE, &said), 1);
    assert_int_equal(said.id, spent->id);
    stage_use(spent, true);
    stage_tell_of(stage, spent, MESSAGE_RETURN, 1);
    assert_int_equal(stage_reap_ending(stage, pool), 1);
    assert_int_equal(n_ended(pool, END_REQUESTS), 1);
    assert_int_equal(pool->n_processes, 1);
    assert_int_equal(pool_board(pool)->n_started, 2);
    pools_unbind(stage->pools, &binding);
}

/* Its replacement need not be given a request: it has proven itself by living for a while. */
static void test_a_replacement_that_nobody_asks(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1) "pm.max_requests = 10\n", 1, &binding);
    struct process *spent = live(pool, 0);

    stage_tell_of(stage, spent, MESSAGE_SPENT, 0);
    stage_wait(stage, 450);
    assert_int_equal(spent->state, PROCESS_SPENT);
    stage_wait(stage, 100);
    assert_int_equal(spent->state, PROCESS_RETIRING);
    pools_unbind(stage->pools, &binding);
}

/* One that has had all the requests that it may have ends when it is returned, replacement or not. */
static void test_hard_limit(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1) "pm.max_requests = 10\n", 1, &binding);
    struct process *spent = live(pool, 0);

    process_board(spent)->given = 10;
    stage_tell_of(stage, spent, MESSAGE_SPENT, 0);
    stage_tell_of(stage, spent, MESSAGE_RETURN, 1);
    assert_int_equal(spent->state, PROCESS_SPENT);
    assert_int_equal(spent->holder, 0); /* lent again: one more to go */
    process_board(spent)->given = 11;
    stage_tell_of(stage, spent, MESSAGE_RETURN, 1);
    assert_int_equal(spent->state, PROCESS_ENDING);
    stage_reap_ending(stage, pool);
    assert_int_equal(n_ended(pool, END_REQUESTS), 1);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    pools_unbind(stage->pools, &binding);
}

/* Of an idle one that nobody would miss there is no replacement. */
static void test_a_needless_one_is_not_replaced(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, DYNAMIC "pm.max_requests = 10\n", 1, &binding);

    assert_int_equal(stage_n(pool, PROCESS_LIVE), 2);
    stage_tell_of(stage, live(pool, 0), MESSAGE_SPENT, 0);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    assert_int_equal(stage_n(pool, PROCESS_RETIRING), 1);
    assert_int_equal(pool_board(pool)->n_started, 2);
    pools_unbind(stage->pools, &binding);
}

/* ---- memory and age ---- */

static void test_memory(void **state)
{
    static const struct {
        const char *text;
        bool is_too_large;
    } limits[] = {{STATIC(1) "max_memory = 1k\n", true}, {STATIC(1) "max_memory = 1024g\n", false}};
    struct stage *stage = *state;
    struct binding binding;

    for (unsigned i = 0; i < 2; i++) {
        struct pool *pool = begin(stage, limits[i].text, 1, &binding);
        struct process *process = live(pool, 0);

        stage_tell_of(stage, process, MESSAGE_USED, 0);
        assert_true(process_board(process)->memory > 1024);
        assert_int_equal(process->state, limits[i].is_too_large ? PROCESS_SPENT : PROCESS_LIVE);
        assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
        if (limits[i].is_too_large)
            assert_int_equal(process->cause, END_MEMORY);
        pools_unbind(stage->pools, &binding);
        pools_front_left(stage->pools, 0);
        stage_reap_ending(stage, pool);
        stage_wait(stage, 0);
    }
}

/* Each is old at another time, by up to a tenth. */
static void test_age(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(8) "max_age = 100s\n", 1, &binding);
    struct process *process;
    uint64_t first = UINT64_MAX, last = 0, now = clock_us();

    TAILQ_FOREACH(process, &pool->processes, next)
    {
        first = process->old_us < first ? process->old_us : first;
        last = process->old_us > last ? process->old_us : last;
    }
    assert_true(first >= now + 90000000 && last <= now + 110000000 && last - first > 100000);
    stage_wait(stage, 89900);
    assert_int_equal(stage_n(pool, PROCESS_SPENT) + stage_n(pool, PROCESS_RETIRING), 0);
    stage_wait(stage, 21000); /* the last's replacement has lived for long enough, too */
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 8);
    assert_int_equal(stage_n(pool, PROCESS_SPENT), 0);
    assert_int_equal(stage_n(pool, PROCESS_RETIRING), 8);
    pools_unbind(stage->pools, &binding);
}

/* ---- fronts ---- */

/* A front that goes while one of its processes is to retire, and one is busy, takes neither with it. */
static void test_a_front_that_leaves(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(2) "pm.max_requests = 10\n", 2, &binding);
    struct process *spent = live(pool, 0), *other = live(pool, 1);
    int front = spent->holder;

    assert_int_not_equal(front, other->holder);
    stage_use(spent, false);
    stage_tell_of(stage, spent, MESSAGE_SPENT, 0);
    struct process *fresh = live(pool, 1);
    stage_tell_of(stage, fresh, MESSAGE_READY, 0);
    assert_int_equal(spent->state, PROCESS_RETIRING);
    pools_front_left(stage->pools, (unsigned)front);
    assert_int_equal(spent->state, PROCESS_ENDING);
    assert_int_equal(process_board(spent)->n_active, 0);
    assert_int_equal(other->holder, 1 - front);
    assert_int_equal(fresh->holder, 1 - front);
    assert_int_equal(stage_reap_ending(stage, pool), 1);
    assert_int_equal(pool->n_processes, 2);
    assert_int_equal(pool->lender.shares[1 - front].loans, 2);
    pools_unbind(stage->pools, &binding);
}

/* One that drains gets no more than it waits for. */
static void test_a_front_that_drains(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1), 1, &binding);
    struct process *process = live(pool, 0);

    pools_front_leaves(stage->pools, 0);
    stage_tell_of(stage, process, MESSAGE_RETURN, 1);
    assert_int_equal(process->holder, NO_HOLDER);
    want(stage, pool, 0, 1);
    assert_int_equal(process->holder, 0);
    stage_tell_of(stage, process, MESSAGE_RETURN, 1);
    assert_int_equal(process->holder, NO_HOLDER);
    pools_front_came(stage->pools, 1, &binding, false);
    assert_int_equal(process->holder, 1);
    pools_unbind(stage->pools, &binding);
}

/* Who waits gets from who does not: what is recalled is settled by the return that says so, or by the end. */
static void test_recall(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(2), 1, &binding);
    struct message said, back = {.kind = MESSAGE_RETURN, .pool = pool->number, .n = 1};
    struct process *dying = live(pool, 0), *given = live(pool, 1);

    pools_front_came(stage->pools, 1, &binding, false);
    want(stage, pool, 1, 2);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_RECALL, NULL), 2);
    assert_int_equal(pool->lender.shares[0].recalled, 2);
    uint32_t dying_id = dying->id;
    back.id = given->id;
    back.status = 1;
    assert_int_equal(stage_tell(stage, 0, back), 0);
    assert_int_equal(pool->lender.shares[0].recalled, 1);
    assert_int_equal(given->holder, 1);
    stage_use(dying, false);
    stage_use(dying, true);
    stage_reap(stage, dying->program.pid, false, 0);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_GONE, &said), 1);
    assert_int_equal(pool->lender.shares[0].recalled, 1);
    back.id = dying_id; /* the front says that it is settled by that */
    assert_int_equal(stage_tell(stage, 0, back), 0);
    assert_int_equal(pool->lender.shares[0].recalled, 0);
    assert_int_equal(pool->lender.shares[0].loans, 0);
    assert_int_equal(live(pool, 1)->holder, 1); /* the new one is for who waits */
    pools_unbind(stage->pools, &binding);
}

/* END: it is no longer on loan, gets TERM, and another takes its place for those that wait. */
static void test_end(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1), 1, &binding);
    struct process *process = live(pool, 0);

    stage_use(process, false);
    stage_tell_of(stage, process, MESSAGE_END, 1);
    assert_int_equal(process->state, PROCESS_ENDING);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    assert_int_equal(stage_reap_ending(stage, pool), 1);
    assert_int_equal(n_ended(pool, END_TERMINATED), 1);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_GONE, NULL), 0);
    assert_int_equal(pool->n_processes, 1);
    pools_unbind(stage->pools, &binding);
}

/* ---- back-off ---- */

static void die_young(struct stage *stage, const struct process *process)
{
    stage_reap(stage, process->program.pid, false, 1 << 8);
}

/* Each is tried later than the one before; after three, the fronts hear why. */
static void test_back_off(void **state)
{
    static const unsigned delays_ms[] = {50, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1), 1, &binding);
    struct message said;

    for (unsigned i = 0; i < sizeof delays_ms / sizeof *delays_ms; i++) {
        die_young(stage, live(pool, 0));
        assert_int_equal(stage_count(stage, 0, 0, MESSAGE_DOWN, &said), i < 2 ? 0 : i - 1);
        assert_int_equal(pool_board(pool)->is_down, i >= 2);
        want(stage, pool, 0, 1); /* nobody who waits hastens it */
        stage_wait(stage, delays_ms[i] - 10);
        assert_null(live(pool, 0));
        stage_wait(stage, 15);
        assert_non_null(live(pool, 0));
    }
    assert_non_null(strstr(said.text, "app.sh exited with status 1 at once"));
    stage_wait(stage, 600);
    assert_int_equal(pool->failures, 0);
    assert_int_equal(pool_board(pool)->is_down, 0);
    pools_unbind(stage->pools, &binding);
}

/* A killed one is no failure: another is there at once. Nor is one that has served, or has lived for a second. */
static void test_ends_that_are_no_failures(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, STATIC(1), 1, &binding);

    stage_reap(stage, live(pool, 0)->program.pid, false, SIGKILL);
    assert_non_null(live(pool, 0));
    stage_use(live(pool, 0), false);
    stage_use(live(pool, 0), true);
    stage_reap(stage, live(pool, 0)->program.pid, false, 1 << 8);
    assert_non_null(live(pool, 0));
    stage_wait(stage, 1000);
    stage_reap(stage, live(pool, 0)->program.pid, false, SIGSEGV);
    assert_non_null(live(pool, 0));
    assert_int_equal(pool->failures, 0);
    assert_int_equal(n_ended(pool, END_SIGNAL), 2);
    assert_int_equal(n_ended(pool, END_FAILED), 1);
    pools_unbind(stage->pools, &binding);
}

/* What cannot be started at all is tried later, too. */
static void test_a_start_that_fails(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    char path[128];

    snprintf(path, sizeof path, "%s/app.sh", stage->folder);
    const struct config *config = stage_config(stage, STATIC(2));
    assert_int_equal(remove(path), 0);
    assert_int_equal(pools_bind(stage->pools, config, &binding), 0);
    pools_front_came(stage->pools, 0, &binding, false);
    pools_commit(stage->pools, &binding);
    struct pool *pool = stage_pool(stage, &binding, "app");
    assert_int_equal(pool->failures, 1);
    stage_wait(stage, 1000);
    assert_int_equal(pool->failures, 5); /* at 0, 50, 150, 350 and 750 ms */
    assert_int_equal(pool->n_processes, 0);
    assert_true(stage_count(stage, 0, 0, MESSAGE_DOWN, NULL) > 0);
    pools_unbind(stage->pools, &binding);
}

/* ---- doors ---- */

static uint32_t door_of(struct stage *stage, const struct process *process)
{
    struct message loan;

    assert_true(stage_count(stage, 0, -1, MESSAGE_LOAN, &loan) > 0);
    assert_int_equal(loan.id, process->id);
    assert_int_equal(strncmp(loan.text, stage->folder, strlen(stage->folder)), 0);
    return process->door->id;
}

/* How one ends, and whether another gets its socket. */
static const struct {
    const char *name, *text;
    bool is_busy, has_served, has_heir;
    int status;
} doors[] = {
    {"killed at work", STATIC(1), true, true, true, SIGKILL},
    {"killed at its first work", STATIC(1), true, false, true, SIGKILL},
    {"killed at rest", STATIC(1), false, true, true, SIGKILL},
    {"at work, where none is kept", ONDEMAND, true, true, true, SIGSEGV},
    {"at rest, where none is kept", ONDEMAND, false, true, false, SIGSEGV},
    {"at work, with another idle", DYNAMIC, true, true, true, SIGSEGV},
    {"at rest, with another idle", DYNAMIC, false, true, false, SIGSEGV},
    {"exits at its first work", STATIC(1), true, false, true, 0},
    {"exits at its first work, where none is kept", ONDEMAND, true, false, true, 0},
    {"exits at its first work, with another idle", DYNAMIC, true, false, true, 0},
    {"fails at its first work", STATIC(1), true, false, true, 1 << 8},
};

static void try_door(struct stage *stage, unsigned i)
{
    struct binding binding;
    struct pool *pool = begin(stage, doors[i].text, 1, &binding);

    want(stage, pool, 0, 1);
    want(stage, pool, 0, 0);
    struct process *process = live(pool, stage_n(pool, PROCESS_LIVE) - 1);
    uint32_t door = door_of(stage, process);
    unsigned from = stage->n_said;
    if (doors[i].has_served) {
        stage_use(process, false);
        stage_use(process, true);
    }
    if (doors[i].is_busy)
        stage_use(process, false);
    stage_reap(stage, process->program.pid, false, doors[i].status);
    stage_wait(stage, 60); /* after a failure the next is tried 50 ms later */
    bool has_heir = stage_count(stage, from, 0, MESSAGE_LOAN, NULL) == 1 &&
                    live(pool, stage_n(pool, PROCESS_LIVE) - 1)->door->id == door;
    if (has_heir != doors[i].has_heir)
        fail_msg("%s: the next one %s its socket", doors[i].name, has_heir ? "has" : "has not");
    assert_true(TAILQ_EMPTY(&pool->doors)); /* one that nobody accepts on is not left open */
    pools_unbind(stage->pools, &binding);
    pools_front_left(stage->pools, 0);
    stage_reap_ending(stage, pool);
    stage_wait(stage, 0);
}

static void test_doors(void **state)
{
    struct stage *stage = *state;

    for (unsigned i = 0; i < sizeof doors / sizeof *doors; i++) {
        stage->n_said = 0;
        try_door(stage, i);
        while (stage->n_configs > 0)
            config_free(stage->configs[--stage->n_configs]);
    }
}

/* ---- how many ---- */

static void test_ondemand(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, ONDEMAND, 1, &binding);

    assert_int_equal(pool->n_processes, 0);
    want(stage, pool, 0, 3);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 3);
    want(stage, pool, 0, 9);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 4);
    assert_int_equal(pool_board(pool)->n_limit_reached, 1);
    want(stage, pool, 0, 0);
    stage_wait(stage, 1900);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 4);
    stage_use(live(pool, 0), false);
    stage_wait(stage, 200);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    assert_int_equal(stage_n(pool, PROCESS_RETIRING), 3);
    stage_use(live(pool, 0), true);
    stage_wait(stage, 4100);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 0);
    pools_unbind(stage->pools, &binding);
}

/* SPARE: fewer are idle than there ought to be. */
static void test_spare(void **state)
{
    struct stage *stage = *state;
    struct binding binding;
    struct pool *pool = begin(stage, DYNAMIC, 1, &binding);
    struct message spare = {.kind = MESSAGE_SPARE, .pool = pool->number};

    stage_use(live(pool, 0), false);
    assert_int_equal(stage_tell(stage, 0, spare), 0);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 2);
    stage_use(live(pool, 1), false);
    assert_int_equal(stage_tell(stage, 0, spare), 0);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 3);
    pools_unbind(stage->pools, &binding);
}

#define SCRIPTS(pm)                                                                                                    \
    "[site *]\nroot = .\n[route /s/*]\ngateway = fastcgi\npool = app\n[pool app]\ncommand = $script\npm = " pm         \
    "\npm.max_children = 2\n"

/* Each script has processes of its own; where they are started on demand, by the first that waits. */
static void test_scripts(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, SCRIPTS("ondemand"), 0, 2);
    struct message open = {.kind = MESSAGE_OPEN, .pool = binding.numbers[1], .id = 5, .text = "app.sh", .text_len = 6};
    struct message said;

    assert_int_equal(stage_pool(stage, &binding, "app")->n_processes, 0);
    for (unsigned front = 0; front < 2; front++) {
        assert_int_equal(stage_tell(stage, front, open), 0);
        assert_int_equal(stage_count(stage, 0, (int)front, MESSAGE_OPENED, &said), 1);
        assert_int_equal(said.id, 5);
    }
    struct pool *pool = stage->pools->at[said.n];
    assert_int_equal(pool->n_processes, 0);
    want(stage, pool, 1, 1);
    assert_int_equal(stage_n(pool, PROCESS_LIVE), 1);
    assert_int_equal(live(pool, 0)->holder, 1);
    assert_int_equal(stage->pools->n_scripts, 1);
    strcpy(open.text, "none.sh");
    open.text_len = 7;
    assert_int_equal(stage_tell(stage, 0, open), 0);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_REFUSED, &said), 1);
    assert_int_equal(said.n, 1);
    pools_unbind(stage->pools, &binding);
    assert_true(pool->is_ending);
    pools_front_left(stage->pools, 0);
    pools_front_left(stage->pools, 1);
    stage_reap_ending(stage, pool);
    stage_wait(stage, 0);
    assert_int_equal(stage->pools->n_scripts, 0);
}

/* A script's pool that is opened by a front that drains: it gets no more than it waits for, as of the others. */
static void test_scripts_of_a_front_that_drains(void **state)
{
    struct stage *stage = *state;
    struct binding binding = stage_take(stage, SCRIPTS("ondemand"), 0, 1);
    struct message open = {.kind = MESSAGE_OPEN, .pool = binding.numbers[1], .id = 5, .text = "app.sh", .text_len = 6};
    struct message said;

    pools_front_leaves(stage->pools, 0);
    assert_int_equal(stage_tell(stage, 0, open), 0);
    assert_int_equal(stage_count(stage, 0, 0, MESSAGE_OPENED, &said), 1);
    struct pool *pool = stage->pools->at[said.n];
    want(stage, pool, 0, 1);
    assert_int_equal(live(pool, 0)->holder, 0);
    unsigned from = stage->n_said;
    stage_tell_of(stage, live(pool, 0), MESSAGE_RETURN, 1);
    assert_int_equal(stage_count(stage, from, 0, MESSAGE_LOAN, NULL), 0);
    pools_unbind(stage->pools, &binding);
    pools_front_left(stage->pools, 0);
    stage_reap_ending(stage, pool);
    stage_wait(stage, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_replacement_comes_first, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_replacement_that_nobody_asks, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_hard_limit, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_needless_one_is_not_replaced, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_memory, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_age, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_front_that_leaves, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_front_that_drains, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_recall, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_end, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_back_off, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_ends_that_are_no_failures, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_a_start_that_fails, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_doors, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_ondemand, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_spare, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_scripts, stage_begin, stage_end),
        cmocka_unit_test_setup_teardown(test_scripts_of_a_front_that_drains, stage_begin, stage_end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
