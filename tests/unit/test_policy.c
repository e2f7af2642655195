/* Decisions one by one: what there is, and what is to be done. What comes of many is test_policy_simulation.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <string.h>

#include "fastcgi/policy.h"

#define N(array) (sizeof(array) / sizeof *(array))
#define NEVER    POLICY_NEVER

enum { SECOND = 1000000, MOST_IDLE = 4 };

/* max_children, start_servers, min_spare, max_spare, max_spawn_rate, process_idle_timeout_ms */
#define POOL(manager, most, first, min, max, rate)                                                                     \
    {                                                                                                                  \
        .pm = (manager), .max_children = (most), .start_servers = (first), .min_spare_servers = (min),                 \
        .max_spare_servers = (max), .max_spawn_rate = (rate), .process_idle_timeout_ms = 10000                         \
    }

static const struct config_pool still = POOL(PM_STATIC, 8, 0, 0, 0, 32);
static const struct config_pool lively = POOL(PM_DYNAMIC, 20, 4, 2, 6, 32);
static const struct config_pool slow = POOL(PM_DYNAMIC, 20, 4, 3, 6, 2);
static const struct config_pool tight = POOL(PM_DYNAMIC, 4, 4, 4, 4, 32);
static const struct config_pool single = POOL(PM_DYNAMIC, 1, 1, 1, 1, 1);
static const struct config_pool largest = POOL(PM_DYNAMIC, UINT_MAX, 4, UINT_MAX, UINT_MAX, 32);
static const struct config_pool lazy = POOL(PM_ONDEMAND, 8, 0, 0, 0, 32);

/* Idle processes, by the time that they have been so; what was asked about them. */
struct idle {
    uint64_t us[MOST_IDLE];
    unsigned n;
    unsigned n_asked;
    uint64_t asked_us;
};

static unsigned n_idle_for(void *arg, uint64_t us, uint64_t *next_out)
{
    struct idle *idle = arg;
    unsigned n_due = 0;

    idle->n_asked++;
    idle->asked_us = us;
    *next_out = POLICY_NEVER;
    for (unsigned i = 0; i < idle->n; i++) {
        if (idle->us[i] >= us)
            n_due++;
        else if (us - idle->us[i] < *next_out)
            *next_out = us - idle->us[i];
    }
    return n_due;
}

static struct policy_step decide(const struct config_pool *pool, unsigned n_live, unsigned n_idle, unsigned n_waiting)
{
    struct idle idle = {.n = 0};
    struct policy_rate rate = {0};
    struct policy_view view = {.n_live = n_live, .n_idle = n_idle, .n_waiting = n_waiting};

    view.n_idle_for = n_idle_for;
    view.arg = &idle;
    return policy_decide(pool, &rate, &view, SECOND);
}

/* ---- starts ---- */

static const struct {
    const char *name;
    const struct config_pool *pool;
    struct {
        unsigned live, idle, waiting;
        bool is_first;
    } at;
    unsigned n_start;
    bool is_limited;
    uint64_t next_us;
} starts[] = {
    {"static: all at first", &still, {0, 0, 0, true}, 8, false, NEVER},
    {"static: one has ended", &still, {7, 0, 0, false}, 1, false, NEVER},
    {"static: all are there", &still, {8, 8, 0, false}, 0, false, NEVER},
    {"static: no more for a queue", &still, {8, 0, 99, false}, 0, false, NEVER},
    {"static: all have ended", &still, {0, 0, 5, false}, 8, false, NEVER},

    {"dynamic: start_servers", &lively, {0, 0, 0, true}, 4, false, NEVER},
    {"dynamic: start_servers take what waits", &lively, {0, 0, 2, true}, 4, false, NEVER},
    {"dynamic: start_servers, and the reserve", &lively, {0, 0, 3, true}, 5, false, NEVER},
    {"dynamic: more than start_servers wait at first", &lively, {0, 0, 9, true}, 11, false, SECOND},
    {"dynamic: start_servers at once, whatever the rate", &slow, {0, 0, 0, true}, 4, false, NEVER},
    {"dynamic: later all have ended", &lively, {0, 0, 0, false}, 2, false, NEVER},
    {"dynamic: at rest", &lively, {6, 6, 0, false}, 0, false, NEVER},
    {"dynamic: the reserve is just enough", &lively, {6, 2, 0, false}, 0, false, NEVER},
    {"dynamic: the reserve lacks one", &lively, {5, 1, 0, false}, 1, false, NEVER},
    {"dynamic: the queue takes of the reserve", &lively, {5, 3, 2, false}, 1, false, NEVER},
    {"dynamic: the queue takes all of it", &lively, {4, 2, 2, false}, 2, false, NEVER},
    {"dynamic: the queue takes more", &lively, {4, 2, 3, false}, 3, false, SECOND},
    {"dynamic: those that start are idle", &lively, {5, 5, 3, false}, 0, false, NEVER},
    {"dynamic: a burst on an empty pool", &lively, {0, 0, 16, false}, 18, false, SECOND},
    {"dynamic: just as many as there may be", &lively, {0, 0, 18, false}, 20, false, SECOND},
    {"dynamic: one more than there may be", &lively, {0, 0, 19, false}, 20, true, SECOND},
    {"dynamic: the queue alone is more", &lively, {0, 0, 21, false}, 20, true, SECOND},
    {"dynamic: all are busy", &lively, {20, 0, 0, false}, 0, true, SECOND},
    {"dynamic: all are there, some idle", &lively, {20, 2, 0, false}, 0, false, SECOND},
    {"dynamic: all are there, one idle", &lively, {20, 1, 0, false}, 0, true, SECOND},
    {"dynamic: one below the limit", &lively, {19, 0, 0, false}, 1, true, SECOND},
    {"dynamic: more than max_spare, but busy", &lively, {7, 2, 0, false}, 0, false, SECOND},
    {"dynamic: no more than max_spare", &lively, {6, 2, 0, false}, 0, false, NEVER},
    {"dynamic: what starts counts too", &lively, {6, 1, 0, false}, 1, false, SECOND},
    {"dynamic: the rate limits the reserve", &slow, {0, 0, 0, false}, 2, false, SECOND / 2},
    {"dynamic: the rate does not limit the queue", &slow, {0, 0, 9, false}, 11, false, SECOND / 2},
    {"dynamic: the limit before the rate", &slow, {18, 0, 0, false}, 2, true, SECOND},
    {"dynamic: all are in reserve", &tight, {4, 4, 0, false}, 0, false, NEVER},
    {"dynamic: one of them works", &tight, {4, 3, 0, false}, 0, true, NEVER},
    {"dynamic: one of them ended", &tight, {3, 3, 0, false}, 1, false, NEVER},
    {"dynamic: a pool of one", &single, {0, 0, 0, true}, 1, false, NEVER},
    {"dynamic: a pool of one, which is taken", &single, {0, 0, 1, true}, 1, true, NEVER},
    {"dynamic: more wait than can be counted with the reserve", &lively, {0, 0, UINT_MAX, false}, 20, true, SECOND},
    {"dynamic: a reserve that cannot be counted with the queue",
     &largest,
     {0, 0, UINT_MAX, false},
     UINT_MAX,
     true,
     NEVER},

    {"ondemand: none at first", &lazy, {0, 0, 0, true}, 0, false, NEVER},
    {"ondemand: one waits", &lazy, {0, 0, 1, true}, 1, false, 10 * SECOND},
    {"ondemand: a burst", &lazy, {0, 0, 8, false}, 8, false, 10 * SECOND},
    {"ondemand: more than there may be", &lazy, {0, 0, 9, false}, 8, true, 10 * SECOND},
    {"ondemand: one is starting for it", &lazy, {1, 1, 1, false}, 0, false, 10 * SECOND},
    {"ondemand: one more waits while one starts", &lazy, {1, 1, 2, false}, 1, false, 10 * SECOND},
    {"ondemand: all are busy", &lazy, {8, 0, 0, false}, 0, false, 10 * SECOND},
    {"ondemand: all are busy, and one waits", &lazy, {8, 0, 1, false}, 0, true, 10 * SECOND},
    {"ondemand: more wait than can be counted", &lazy, {1, 1, UINT_MAX, false}, 7, true, 10 * SECOND},
    {"ondemand: the last has gone", &lazy, {0, 0, 0, false}, 0, false, NEVER},
};

static void test_starts(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(starts); i++) {
        struct idle idle = {.n = 0};
        struct policy_rate rate = {0};
        struct policy_view view = {starts[i].at.live,     starts[i].at.idle, starts[i].at.waiting,
                                   starts[i].at.is_first, n_idle_for,        &idle};
        struct policy_step step = policy_decide(starts[i].pool, &rate, &view, SECOND);

        if (step.n_start != starts[i].n_start || step.is_limited != starts[i].is_limited ||
            step.next_us != starts[i].next_us || step.n_retire != 0)
            fail_msg("%s: start %u, retire %u, %s, next %jd", starts[i].name, step.n_start, step.n_retire,
                     step.is_limited ? "limited" : "not limited", (intmax_t)step.next_us);
        if (idle.n_asked > (starts[i].pool->pm == PM_ONDEMAND && view.n_idle > view.n_waiting))
            fail_msg("%s: asked who is idle", starts[i].name);
    }
}

/* ---- retirement ---- */

static const struct {
    const char *name;
    const struct config_pool *pool;
    unsigned live, waiting;
    struct idle idle; /* .n_asked: how often it is to be looked at, .asked_us: what is asked */
    unsigned n_starting;
    unsigned n_retire;
    uint64_t next_us;
} retirements[] = {
    {"static: never", &still, 8, 0, {{9 * SECOND, 9 * SECOND}, 2, 0, 0}, 0, 0, NEVER},
    {"static: lowered, all busy", &still, 10, 0, {{0}, 0, 0, 0}, 0, 0, SECOND},
    {"static: lowered, one idle", &still, 10, 0, {{0}, 1, 0, 0}, 0, 1, SECOND},
    {"static: lowered, as many idle", &still, 10, 0, {{0}, 2, 0, 0}, 0, 2, NEVER},
    {"static: lowered, more idle", &still, 10, 0, {{0}, 3, 0, 0}, 0, 2, NEVER},
    {"static: lowered, some wait", &still, 10, 9, {{0}, 3, 0, 0}, 0, 2, NEVER},
    {"static: lowered, those that start go too", &still, 10, 0, {{0}, 0, 0, 0}, 2, 2, NEVER},

    {"dynamic: no more than max_spare, for hours", &lively, 6, 0, {{SECOND, SECOND}, 2, 0, 0}, 4, 0, NEVER},
    {"dynamic: one more, not for long", &lively, 7, 0, {{300, 200, 100}, 3, 1, SECOND}, 4, 0, SECOND - 300},
    {"dynamic: one more, nearly long enough", &lively, 7, 0, {{SECOND - 1}, 1, 1, SECOND}, 6, 0, 1},
    {"dynamic: one more, just long enough", &lively, 7, 0, {{SECOND}, 1, 1, SECOND}, 6, 1, NEVER},
    {"dynamic: one more, others for long too", &lively, 7, 0, {{SECOND, SECOND}, 2, 1, SECOND}, 5, 1, NEVER},
    {"dynamic: two more, one for long", &lively, 8, 0, {{SECOND, 5}, 2, 1, SECOND}, 6, 1, SECOND - 5},
    {"dynamic: one more, and a busy one", &lively, 8, 0, {{SECOND, 5}, 2, 1, SECOND}, 5, 1, SECOND},
    {"dynamic: one more, all starting", &lively, 7, 0, {{0}, 0, 1, SECOND}, 7, 0, SECOND},
    {"dynamic: one more, but somebody waits", &lively, 7, 1, {{SECOND, SECOND}, 2, 0, 0}, 5, 0, SECOND},
    {"dynamic: lowered, all busy", &tight, 6, 0, {{0}, 0, 0, 0}, 0, 0, SECOND},
    {"dynamic: lowered, and idle", &tight, 6, 0, {{9, 8, 7, 6}, 4, 0, 0}, 0, 2, NEVER},
    {"dynamic: lowered, and idle, and starting", &tight, 6, 0, {{9, 8, 7, 6}, 4, 0, 0}, 2, 2, NEVER},
    {"dynamic: lowered, one waits", &tight, 6, 1, {{9, 8, 7, 6}, 4, 0, 0}, 0, 2, NEVER},
    {"dynamic: lowered below the surplus", &lively, 21, 0, {{9}, 1, 1, SECOND}, 19, 1, SECOND - 9},
    {"dynamic: lowered, and more for long",
     &lively,
     21,
     0,
     {{SECOND, SECOND, SECOND, 9}, 4, 1, SECOND},
     17,
     3,
     SECOND - 9},

    {"ondemand: not for long", &lazy, 3, 0, {{5, 4, 3}, 3, 1, 10 * SECOND}, 0, 0, 10 * SECOND - 5},
    {"ondemand: nearly", &lazy, 1, 0, {{10 * SECOND - 1}, 1, 1, 10 * SECOND}, 0, 0, 1},
    {"ondemand: the last", &lazy, 1, 0, {{10 * SECOND}, 1, 1, 10 * SECOND}, 0, 1, NEVER},
    {"ondemand: all together", &lazy, 2, 0, {{10 * SECOND, 11 * SECOND}, 2, 1, 10 * SECOND}, 0, 2, NEVER},
    {"ondemand: one of two", &lazy, 2, 0, {{10 * SECOND, 7}, 2, 1, 10 * SECOND}, 0, 1, 10 * SECOND - 7},
    {"ondemand: one, the other is busy", &lazy, 2, 0, {{10 * SECOND}, 1, 1, 10 * SECOND}, 0, 1, 10 * SECOND},
    {"ondemand: one, the other is starting", &lazy, 2, 0, {{10 * SECOND}, 1, 1, 10 * SECOND}, 1, 1, 10 * SECOND},
    {"ondemand: who waits needs it", &lazy, 1, 1, {{10 * SECOND}, 1, 0, 0}, 0, 0, 10 * SECOND},
    {"ondemand: who waits needs one", &lazy, 2, 1, {{10 * SECOND, 10 * SECOND}, 2, 1, 10 * SECOND}, 0, 1, 10 * SECOND},
    {"ondemand: lowered, all busy", &lazy, 9, 0, {{0}, 0, 0, 0}, 0, 0, SECOND},
    {"ondemand: lowered, one idle", &lazy, 9, 0, {{1}, 1, 0, 0}, 0, 1, 10 * SECOND},
    {"ondemand: lowered, more idle", &lazy, 9, 0, {{2, 1}, 2, 1, 10 * SECOND}, 0, 1, 10 * SECOND - 2},
    {"ondemand: lowered, more idle for long",
     &lazy,
     9,
     0,
     {{10 * SECOND, 10 * SECOND, 1}, 3, 1, 10 * SECOND},
     0,
     2,
     10 * SECOND - 1},
};

static void test_retirements(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(retirements); i++) {
        struct idle idle = retirements[i].idle;
        struct policy_rate rate = {0};
        struct policy_view view = {.n_live = retirements[i].live, .n_waiting = retirements[i].waiting};
        struct policy_step step;

        idle.n_asked = 0;
        idle.asked_us = 0;
        view.n_idle = idle.n + retirements[i].n_starting;
        view.n_idle_for = n_idle_for;
        view.arg = &idle;
        step = policy_decide(retirements[i].pool, &rate, &view, SECOND);
        if (step.n_retire != retirements[i].n_retire || step.next_us != retirements[i].next_us)
            fail_msg("%s: retire %u, next %jd", retirements[i].name, step.n_retire, (intmax_t)step.next_us);
        if (idle.n_asked != retirements[i].idle.n_asked || idle.asked_us != retirements[i].idle.asked_us)
            fail_msg("%s: asked %u times for %jd", retirements[i].name, idle.n_asked, (intmax_t)idle.asked_us);
        if (view.n_live > retirements[i].pool->max_children)
            assert_int_equal(step.n_start, 0);
    }
}

/* What holds whatever there is. */
static void test_all_small_views(void **state)
{
    static const struct config_pool *const pools[] = {&still, &lively, &slow, &tight, &single, &lazy};

    (void)state;
    for (unsigned i = 0; i < N(pools) * 25 * 25 * 25; i++) {
        const struct config_pool *pool = pools[i / (25 * 25 * 25)];
        unsigned n_live = i / (25 * 25) % 25, n_idle = i / 25 % 25, n_waiting = i % 25;
        struct policy_step step;

        if (n_idle > n_live)
            continue;
        step = decide(pool, n_live, n_idle, n_waiting);
        assert_true(step.n_start == 0 || step.n_retire == 0);
        assert_true(step.n_start == 0 || n_live + step.n_start <= pool->max_children);
        assert_true(step.n_retire <= n_idle);
        assert_true(step.next_us > 0);
        if (n_live > pool->max_children)
            assert_true(n_live - step.n_retire == pool->max_children || step.n_retire == n_idle);
        if (!step.is_limited && pool->pm != PM_STATIC)
            assert_true(n_idle + step.n_start >= n_waiting);
    }
}

/* ---- the rate ---- */

struct turn {
    uint64_t at_us;
    unsigned n_wanted; /* beyond what there is */
    unsigned n_start;
    uint64_t next_us;
};

static void assert_turns(unsigned a_second, const struct turn *turns, size_t n)
{
    struct config_pool pool = POOL(PM_DYNAMIC, 100000, 1, 1, 100000, 1);
    struct policy_rate rate = {0};

    pool.max_spawn_rate = a_second;
    for (size_t i = 0; i < n; i++) {
        struct policy_view view = {.n_live = 10, .n_idle = 10};
        struct policy_step step;

        pool.min_spare_servers = 10 + turns[i].n_wanted;
        step = policy_decide(&pool, &rate, &view, turns[i].at_us);
        if (step.n_start != turns[i].n_start || step.next_us != turns[i].next_us || step.is_limited)
            fail_msg("%u a second, turn %zu: start %u, next %jd", a_second, i, step.n_start, (intmax_t)step.next_us);
    }
}

static void test_rate(void **state)
{
    static const struct turn ones[] = {
        {0, 1, 1, NEVER},      {0, 1, 0, SECOND},     {999999, 1, 0, 1},
        {SECOND, 1, 1, NEVER}, {SECOND, 0, 0, NEVER}, {9 * SECOND, 2, 1, SECOND},
    };
    static const struct turn fours[] = {
        {7, 3, 3, NEVER},
        {7, 3, 1, 250000},
        {250006, 3, 0, 1},
        {250007, 3, 1, 250000},
        {250007 + 600000, 3, 2, 150000},
        {3 * SECOND, 5, 4, 250000},
        {60 * (uint64_t)SECOND, 4, 4, NEVER},
    };
    /* A third of a second is no number of microseconds: rounded up, and still all of them at once. */
    static const struct turn thirds[] = {
        {0, 4, 3, 333334},  {333333, 1, 0, 1},       {333334, 1, 1, NEVER},
        {1000001, 3, 1, 1}, {1000002, 2, 1, 333334}, {UINT64_MAX / 2, 4, 3, 333334},
    };
    static const struct turn many[] = {
        {0, 20000, 10000, 100},          {99, 1, 0, 1},           {100, 1, 1, NEVER}, {1100, 20000, 10, 100},
        {5 * SECOND, 9999, 9999, NEVER}, {5 * SECOND, 9, 1, 100},
    };

    (void)state;
    assert_turns(1, ones, N(ones));
    assert_turns(4, fours, N(fours));
    assert_turns(3, thirds, N(thirds));
    assert_turns(10000, many, N(many));
}

/* What a queue waits for, and start_servers, come on top and take nothing. */
static void test_rate_is_for_reserve(void **state)
{
    struct policy_rate rate = {0};
    struct policy_view view = {.is_first = true};

    (void)state;
    assert_int_equal(policy_decide(&slow, &rate, &view, 1).n_start, 4);
    view = (struct policy_view){.n_live = 4, .n_waiting = 5};
    assert_int_equal(policy_decide(&slow, &rate, &view, 1).n_start, 7);
    view = (struct policy_view){.n_live = 11, .n_waiting = 5};
    assert_int_equal(policy_decide(&slow, &rate, &view, 1).n_start, 5);
    view = (struct policy_view){.n_live = 11, .n_idle = 1};
    assert_int_equal(policy_decide(&slow, &rate, &view, 500000).n_start, 0);
    assert_int_equal(policy_decide(&slow, &rate, &view, 500001).n_start, 1);
}

/* Another rate from now on: what was taken counts by its time, and no longer than the bucket takes to fill. */
static void test_rate_that_changes(void **state)
{
    struct config_pool pool = slow;
    struct policy_rate rate = {0};
    struct policy_view view = {.n_live = 4};
    struct policy_step step;

    (void)state;
    assert_int_equal(policy_decide(&pool, &rate, &view, 0).n_start, 2);
    pool.max_spawn_rate = 100;
    pool.min_spare_servers = 6;
    assert_int_equal(policy_decide(&pool, &rate, &view, 30000).n_start, 3);
    pool.max_spawn_rate = 1;
    step = policy_decide(&pool, &rate, &view, 40000);
    assert_int_equal(step.n_start, 0);
    assert_int_equal(step.next_us, 990000);
    rate.full_us = UINT64_MAX;
    step = policy_decide(&pool, &rate, &view, 40000);
    assert_int_equal(step.n_start, 0);
    assert_int_equal(step.next_us, SECOND);
}

/* Asked again when it said so, a pool comes to its reserve in the time that the rate leaves, and then to rest. */
static void test_time_goes_on(void **state)
{
    struct config_pool pool = POOL(PM_DYNAMIC, 1000, 100, 100, 100, 10);
    struct policy_rate rate = {0};
    struct policy_view view = {.n_live = 0};
    uint64_t now_us = 12345;
    unsigned n_decisions = 0;

    (void)state;
    for (;;) {
        struct policy_step step = policy_decide(&pool, &rate, &view, now_us);

        n_decisions++;
        view.n_live += step.n_start;
        view.n_idle += step.n_start;
        if (step.next_us == POLICY_NEVER)
            break;
        now_us += step.next_us;
        assert_true(n_decisions < 1000);
    }
    assert_int_equal(view.n_live, 100);
    assert_int_equal(now_us, 12345 + 9 * SECOND);
    assert_int_equal(n_decisions, 91);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts),
        cmocka_unit_test(test_retirements),
        cmocka_unit_test(test_all_small_views),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_rate_is_for_reserve),
        cmocka_unit_test(test_rate_that_changes),
        cmocka_unit_test(test_time_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
