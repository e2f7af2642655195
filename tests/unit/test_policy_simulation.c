/*
 * Pools that live for hours of a virtual clock: requests come at random and in bursts and take their time, processes
 * start, crash and are retired as the policy says; and at every event what it promises is checked.
 *
 * The keeper here knows as little as the real one: it decides when a request comes, when a process is ready or has
 * ended, when the settings change and when the last decision said so; that a process became idle is told to nobody.
 *
 *     test_policy_simulation            the tests
 *     test_policy_simulation figures    10,000 processes, 1,000,000 events: microseconds a decision
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fastcgi/policy.h"

#define N(array)  (sizeof(array) / sizeof *(array))
#define SECOND    ((uint64_t)1000000)
#define MINUTE    (60 * SECOND)
#define HOUR      (60 * MINUTE)
#define MOST_RATE 64 /* of the pools here */

/* ---- a pool and its load ---- */

enum kind { ARRIVAL, READY, DONE, CRASH, ALARM, RELOAD };

struct event {
    uint64_t at_us;
    uint64_t n; /* the nth: what happens at the same time happens in order */
    enum kind kind;
    unsigned process; /* READY, DONE, CRASH */
    unsigned life;    /* of that process: another life is not meant; ALARM: of which decision */
};

enum state { GONE, STARTING, IDLE, BUSY };

struct process {
    enum state state;
    unsigned life;
    uint64_t since_us;             /* idle since then */
    bool is_due;                   /* has been idle for as long as was last asked */
    struct process *older, *newer; /* of the idle ones; of those that are gone, the next */
};

/* Random load: from 0 to twice the mean each. */
struct load {
    uint64_t between_us, service_us, start_us; /* means */
    uint64_t busy_us, quiet_us; /* requests come for so long, then none do; busy_us 0: they always come */
    unsigned one_in_burst;      /* one arrival in so many is of `burst` requests; 0: none */
    unsigned burst;
    unsigned one_in_crashes; /* one request in so many ends its process; 0: none */
    unsigned lowered;        /* max_children of every other minute; 0: it stays */
};

struct pool {
    struct config_pool config;
    struct load load;
    unsigned most; /* processes that there can ever be */
    uint64_t random;

    uint64_t now_us;
    struct event *events; /* a heap */
    size_t n_events, room;
    uint64_t n_made, n_alarms, n_decisions, n_handled;
    unsigned decision;

    struct process *processes, *gone;
    struct process *oldest, *newest, *not_due; /* idle ones, and the first of those that are not due */
    unsigned n_due, n_live, n_starting, n_idle, n_busy;
    uint64_t asked_us;
    unsigned n_asked;
    uint64_t n_waiting, n_arrived, n_served, n_crashed;
    uint64_t last_idle_us; /* a process became idle */
    bool has_started;

    struct policy_rate rate;
    uint64_t spare_us[2 * MOST_RATE + 1]; /* when the last were started for spare, a ring */
    uint64_t n_spare;
    uint64_t surplus_us;     /* one that is due has been beyond max_spare since then; UINT64_MAX: none */
    unsigned n_most_at_once; /* started by one decision */
};

static uint64_t any(struct pool *pool, uint64_t below)
{
    pool->random ^= pool->random << 13;
    pool->random ^= pool->random >> 7;
    pool->random ^= pool->random << 17;
    return below > 0 ? pool->random % below : 0;
}

static uint64_t about(struct pool *pool, uint64_t mean_us)
{
    return any(pool, 2 * mean_us + 1);
}

static bool is_one_in(struct pool *pool, unsigned n)
{
    return n > 0 && any(pool, n) == 0;
}

/* ---- what is to come ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->n < b->n;
}

static void add_event(struct pool *pool, enum kind kind, uint64_t in_us, unsigned process, unsigned life)
{
    struct event event = {pool->now_us + in_us, pool->n_made++, kind, process, life};
    size_t at = pool->n_events++;

    if (pool->n_events > pool->room) {
        pool->room = 2 * pool->n_events;
        pool->events = realloc(pool->events, pool->room * sizeof *pool->events);
        assert_non_null(pool->events);
    }
    for (; at > 0 && is_before(&event, &pool->events[(at - 1) / 2]); at = (at - 1) / 2)
        pool->events[at] = pool->events[(at - 1) / 2];
    pool->events[at] = event;
}

static struct event next_event(struct pool *pool)
{
    struct event first = pool->events[0], last = pool->events[--pool->n_events];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < pool->n_events) {
        if (child + 1 < pool->n_events && is_before(&pool->events[child + 1], &pool->events[child]))
            child++;
        if (!is_before(&pool->events[child], &last))
            break;
        pool->events[at] = pool->events[child];
        at = child;
    }
    pool->events[at] = last;
    return first;
}

/* ---- processes ---- */

static void idle_add(struct pool *pool, struct process *process)
{
    process->state = IDLE;
    process->since_us = pool->now_us;
    process->is_due = false;
    process->older = pool->newest;
    process->newer = NULL;
    *(pool->newest != NULL ? &pool->newest->newer : &pool->oldest) = process;
    pool->newest = process;
    if (pool->not_due == NULL)
        pool->not_due = process;
    pool->n_idle++;
    pool->last_idle_us = pool->now_us;
}

static void idle_remove(struct pool *pool, struct process *process)
{
    *(process->older != NULL ? &process->older->newer : &pool->oldest) = process->newer;
    *(process->newer != NULL ? &process->newer->older : &pool->newest) = process->older;
    if (pool->not_due == process)
        pool->not_due = process->newer;
    if (process->is_due)
        pool->n_due--;
    pool->n_idle--;
}

static unsigned n_idle_for(void *arg, uint64_t us, uint64_t *next_out)
{
    struct pool *pool = arg;

    pool->n_asked++;
    if (us != pool->asked_us) { /* other settings: from the beginning */
        for (struct process *process = pool->oldest; process != NULL; process = process->newer)
            process->is_due = false;
        pool->n_due = 0;
        pool->not_due = pool->oldest;
        pool->asked_us = us;
    }
    for (; pool->not_due != NULL && pool->now_us - pool->not_due->since_us >= us;
         pool->not_due = pool->not_due->newer) {
        pool->not_due->is_due = true;
        pool->n_due++;
    }
    *next_out = pool->not_due != NULL ? pool->not_due->since_us + us - pool->now_us : POLICY_NEVER;
    return pool->n_due;
}

static void end_process(struct pool *pool, struct process *process)
{
    if (process->state == IDLE)
        idle_remove(pool, process);
    pool->n_starting -= process->state == STARTING;
    pool->n_busy -= process->state == BUSY;
    process->state = GONE;
    process->life++;
    process->newer = pool->gone;
    pool->gone = process;
    pool->n_live--;
}

static void start_process(struct pool *pool)
{
    struct process *process = pool->gone;

    assert_non_null(process);
    pool->gone = process->newer;
    process->state = STARTING;
    pool->n_starting++;
    pool->n_live++;
    pool->has_started = true;
    add_event(pool, READY, about(pool, pool->load.start_us), (unsigned)(process - pool->processes), process->life);
}

static void serve(struct pool *pool, struct process *process)
{
    enum kind end = is_one_in(pool, pool->load.one_in_crashes) ? CRASH : DONE;

    if (process->state == IDLE)
        idle_remove(pool, process);
    process->state = BUSY;
    pool->n_busy++;
    add_event(pool, end, about(pool, pool->load.service_us), (unsigned)(process - pool->processes), process->life);
}

/* One that is ready or done takes what has waited, or is idle. */
static void make_free(struct pool *pool, struct process *process)
{
    pool->n_starting -= process->state == STARTING;
    pool->n_busy -= process->state == BUSY;
    if (pool->n_waiting == 0) {
        idle_add(pool, process);
        return;
    }
    pool->n_waiting--;
    process->state = GONE; /* of neither list */
    serve(pool, process);
}

static void arrive(struct pool *pool)
{
    pool->n_arrived++;
    if (pool->newest != NULL)
        serve(pool, pool->newest); /* the one that has been used last: the others can become surplus */
    else
        pool->n_waiting++;
}

/* ---- what is promised ---- */

static bool is_bucket_empty(const struct pool *pool)
{
    unsigned rate = pool->config.max_spawn_rate;

    /* It has given all of its starts since it could last have been full. */
    return pool->n_spare >= rate &&
           pool->now_us - pool->spare_us[(pool->n_spare - rate) % N(pool->spare_us)] < SECOND + rate;
}

static void note_spare(struct pool *pool, unsigned n_spare)
{
    unsigned rate = pool->config.max_spawn_rate;

    for (; n_spare > 0; n_spare--) {
        pool->spare_us[pool->n_spare++ % N(pool->spare_us)] = pool->now_us;
        if (pool->n_spare > 2 * rate) /* a full bucket, and what came into it */
            assert_true(pool->now_us - pool->spare_us[(pool->n_spare - 2 * rate - 1) % N(pool->spare_us)] >= SECOND);
    }
}

static void check_starts(struct pool *pool, const struct policy_view *view, const struct policy_step *step)
{
    const struct config_pool *config = &pool->config;
    unsigned needed = view->n_waiting > view->n_idle ? view->n_waiting - view->n_idle : 0;
    unsigned room = config->max_children > view->n_live ? config->max_children - view->n_live : 0;

    if (config->pm == PM_DYNAMIC && view->is_first && needed < config->start_servers)
        needed = config->start_servers;
    if (needed > room)
        needed = room;
    assert_true(step->n_start >= needed && step->n_start <= room);
    if (config->pm == PM_STATIC)
        assert_int_equal(step->n_start, room);
    if (config->pm == PM_ONDEMAND)
        assert_int_equal(step->n_start, needed);
    if (config->pm != PM_DYNAMIC)
        return;
    note_spare(pool, step->n_start - needed);
    if ((uint64_t)view->n_idle + step->n_start < (uint64_t)view->n_waiting + config->min_spare_servers)
        assert_true(step->n_start == room || is_bucket_empty(pool));
    if (step->n_start > needed) /* and no more than are missing */
        assert_true((uint64_t)view->n_idle + step->n_start <= (uint64_t)view->n_waiting + config->min_spare_servers);
}

static void check_wakeups(const struct pool *pool, const struct policy_view *view, const struct policy_step *step)
{
    const struct config_pool *config = &pool->config;
    unsigned n_after = view->n_live + step->n_start - step->n_retire;
    int64_t lacking = (int64_t)view->n_waiting + config->min_spare_servers - view->n_idle - step->n_start;

    assert_true(step->next_us > 0);
    if (config->pm != PM_STATIC && lacking > 0) /* what is missing is on its way, or there is no room for it */
        assert_true(n_after < config->max_children ? step->next_us <= SECOND / config->max_spawn_rate + 1
                                                   : step->is_limited);
    else
        assert_false(step->is_limited);
    if (n_after > config->max_children) {
        assert_true(step->next_us <= SECOND);
        assert_int_equal(step->n_retire, view->n_idle);
    } else if (config->pm == PM_STATIC) {
        assert_true(step->next_us == POLICY_NEVER);
    } else if (config->pm == PM_ONDEMAND) {
        assert_int_equal(n_after == 0, step->next_us == POLICY_NEVER);
        assert_true(n_after == 0 || step->next_us <= config->process_idle_timeout_ms * 1000);
    } else if (n_after > config->max_spare_servers) {
        assert_true(step->next_us <= SECOND);
    } else if (step->next_us != POLICY_NEVER) { /* at rest there is nothing to wait for but the bucket */
        assert_true(view->n_idle + step->n_start - step->n_retire < view->n_waiting + config->min_spare_servers);
        assert_true(n_after < config->max_children && is_bucket_empty(pool));
    }
}

/* Those that go have been idle for long enough, and in a pool on demand not a microsecond longer. */
static void check_retired(const struct pool *pool, const struct process *process, bool is_excess)
{
    uint64_t idle_us = pool->now_us - process->since_us;

    if (is_excess)
        return;
    assert_int_equal(process->state, IDLE);
    if (pool->config.pm == PM_ONDEMAND)
        assert_int_equal(idle_us, pool->config.process_idle_timeout_ms * 1000);
    else
        assert_true(pool->config.pm == PM_DYNAMIC && idle_us >= POLICY_SURPLUS_US);
}

/* After each event. Surplus that nobody was told of is found within POLICY_SURPLUS_US. */
static void check(struct pool *pool)
{
    bool has_surplus = pool->config.pm == PM_DYNAMIC && pool->n_waiting == 0 &&
                       pool->n_idle + pool->n_starting > pool->config.max_spare_servers && pool->oldest != NULL &&
                       pool->now_us - pool->oldest->since_us > POLICY_SURPLUS_US;

    assert_true(pool->n_live <= pool->most);
    assert_int_equal(pool->n_live, pool->n_idle + pool->n_busy + pool->n_starting);
    assert_true(pool->n_waiting == 0 || pool->n_idle == 0);
    assert_int_equal(pool->n_arrived, pool->n_waiting + pool->n_busy + pool->n_served + pool->n_crashed);
    if (pool->config.pm == PM_ONDEMAND && pool->n_live == pool->n_idle && pool->n_idle > 0)
        assert_true(pool->now_us - pool->last_idle_us < pool->config.process_idle_timeout_ms * 1000);
    if (!has_surplus)
        pool->surplus_us = UINT64_MAX;
    else if (pool->surplus_us == UINT64_MAX)
        pool->surplus_us = pool->now_us;
    else
        assert_true(pool->now_us - pool->surplus_us <= POLICY_SURPLUS_US);
}

/* ---- the keeper ---- */

/* The longest idle ones; then, where the limit was lowered, those that start. */
static void retire(struct pool *pool, unsigned n, unsigned n_excess)
{
    for (; n > 0; n--) {
        struct process *process = pool->oldest;

        for (unsigned i = 0; process == NULL && i < pool->most; i++)
            process = pool->processes[i].state == STARTING ? &pool->processes[i] : NULL;
        assert_non_null(process);
        check_retired(pool, process, n_excess > 0);
        n_excess -= n_excess > 0;
        end_process(pool, process);
    }
}

static void decide(struct pool *pool)
{
    struct policy_view view = {
        pool->n_live, pool->n_idle + pool->n_starting, (unsigned)pool->n_waiting, !pool->has_started, n_idle_for, pool};
    struct policy_step step;
    unsigned most = pool->config.max_children, n_before = pool->n_live;

    pool->n_asked = 0;
    step = policy_decide(&pool->config, &pool->rate, &view, pool->now_us);
    pool->n_decisions++;
    assert_true(pool->n_asked <= 1);
    assert_true(step.n_start == 0 || step.n_retire == 0);
    check_starts(pool, &view, &step);
    check_wakeups(pool, &view, &step);
    for (unsigned i = 0; i < step.n_start; i++)
        start_process(pool);
    retire(pool, step.n_retire, n_before > most ? n_before - most : 0);
    if (step.n_start > pool->n_most_at_once)
        pool->n_most_at_once = step.n_start;
    pool->decision++;
    if (step.next_us != POLICY_NEVER)
        add_event(pool, ALARM, step.next_us, 0, pool->decision);
}

static void on_arrival(struct pool *pool)
{
    unsigned n = is_one_in(pool, pool->load.one_in_burst) ? pool->load.burst : 1;
    uint64_t in_us = about(pool, pool->load.between_us), period_us = pool->load.busy_us + pool->load.quiet_us;

    for (; n > 0; n--)
        arrive(pool);
    if (pool->load.busy_us > 0 && (pool->now_us + in_us) % period_us > pool->load.busy_us)
        in_us = period_us - pool->now_us % period_us;
    add_event(pool, ARRIVAL, in_us, 0, 0);
}

static void on_reload(struct pool *pool)
{
    unsigned max_children = pool->config.max_children;

    pool->config.max_children = pool->load.lowered;
    pool->load.lowered = max_children;
    add_event(pool, RELOAD, MINUTE, 0, 0);
}

/* Did something happen that the keeper hears of? */
static bool handle(struct pool *pool, const struct event *event)
{
    struct process *process = &pool->processes[event->process];

    switch (event->kind) {
    case ARRIVAL:
        on_arrival(pool);
        return true;
    case RELOAD:
        on_reload(pool);
        return true;
    case ALARM:
        pool->n_alarms += event->life == pool->decision;
        return event->life == pool->decision;
    case READY:
        if (process->life == event->life)
            make_free(pool, process);
        return process->life == event->life;
    case DONE:
        pool->n_served++;
        make_free(pool, process);
        return false;
    case CRASH:
        pool->n_crashed++;
        end_process(pool, process);
        return true;
    }
    return false;
}

static void pool_init(struct pool *pool, const struct config_pool *config, const struct load *load, uint64_t seed)
{
    memset(pool, 0, sizeof *pool);
    pool->config = *config;
    pool->load = *load;
    pool->most = config->max_children;
    pool->random = seed * 0x9e3779b97f4a7c15u;
    pool->now_us = SECOND;
    pool->surplus_us = UINT64_MAX;
    pool->processes = calloc(pool->most, sizeof *pool->processes);
    assert_non_null(pool->processes);
    for (unsigned i = pool->most; i > 0; i--) {
        pool->processes[i - 1].newer = pool->gone;
        pool->gone = &pool->processes[i - 1];
    }
}

static void pool_free(struct pool *pool)
{
    free(pool->processes);
    free(pool->events);
}

/* Lives until that time, or for so many events. */
static void live(struct pool *pool, uint64_t until_us, uint64_t n_events)
{
    while (pool->n_events > 0 && pool->n_handled < n_events && pool->events[0].at_us <= until_us) {
        struct event event = next_event(pool);

        pool->now_us = event.at_us;
        pool->n_handled++;
        if (handle(pool, &event))
            decide(pool);
        check(pool);
    }
}

static void begin(struct pool *pool)
{
    decide(pool);
    check(pool);
    if (pool->load.between_us > 0)
        add_event(pool, ARRIVAL, about(pool, pool->load.between_us), 0, 0);
    if (pool->load.lowered > 0)
        add_event(pool, RELOAD, MINUTE, 0, 0);
}

/* ---- lives ---- */

#define STATIC(most)                                                                                                   \
    {                                                                                                                  \
        .pm = PM_STATIC, .max_children = (most), .max_spawn_rate = 32, .process_idle_timeout_ms = 10000                \
    }
#define ONDEMAND(most, timeout_ms)                                                                                     \
    {                                                                                                                  \
        .pm = PM_ONDEMAND, .max_children = (most), .max_spawn_rate = 32, .process_idle_timeout_ms = (timeout_ms)       \
    }
#define DYNAMIC(most, first, min, max, rate)                                                                           \
    {                                                                                                                  \
        .pm = PM_DYNAMIC, .max_children = (most), .start_servers = (first), .min_spare_servers = (min),                \
        .max_spare_servers = (max), .max_spawn_rate = (rate), .process_idle_timeout_ms = 10000                         \
    }

static const struct config_pool pools[] = {
    STATIC(1),
    STATIC(40),
    ONDEMAND(1, 10),
    ONDEMAND(40, 10000),
    ONDEMAND(100, 300),
    DYNAMIC(1, 1, 1, 1, 1),
    DYNAMIC(40, 4, 2, 6, 32),
    DYNAMIC(40, 20, 20, 40, 3),
    DYNAMIC(100, 10, 10, 10, 1),
    DYNAMIC(100, 5, 1, 50, 64),
};

static const struct load loads[] = {
    {.between_us = 100000, .service_us = 50000, .start_us = 40000},
    {.between_us = 20000, .service_us = 400000, .start_us = 40000, .one_in_burst = 100, .burst = 60},
    {.between_us = 30000, .service_us = 100000, .start_us = 200000, .one_in_crashes = 10},
    {.between_us = 50000,
     .service_us = 20000,
     .start_us = 3 * 1000000,
     .one_in_crashes = 50,
     .one_in_burst = 30,
     .burst = 16},
    {.between_us = 50000,
     .service_us = 1000000,
     .start_us = 30000,
     .busy_us = MINUTE,
     .quiet_us = 5 * MINUTE,
     .one_in_crashes = 100},
    {.between_us = 20000, .service_us = 300000, .start_us = 90000, .lowered = 1, .one_in_burst = 50, .burst = 30},
    {.between_us = 90 * SECOND, .service_us = SECOND, .start_us = 0, .one_in_burst = 2, .burst = 30},
};

/* Four hours of each pool under each load, or, where much happens, the beginning of them. */
static void test_hours(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(pools) * N(loads); i++) {
        struct pool pool;

        pool_init(&pool, &pools[i / N(loads)], &loads[i % N(loads)], i + 1);
        begin(&pool);
        live(&pool, 4 * HOUR, 200000);
        assert_true(pool.n_decisions > 100);
        assert_true(pool.n_served > 0 && (pool.load.one_in_crashes == 0 || pool.n_crashed > 0));
        if (pool.config.pm == PM_STATIC && pool.load.lowered == 0)
            assert_int_equal(pool.n_alarms, 0);
        pool_free(&pool);
    }
}

/* Where nothing happens, nobody is woken: for a day. */
static void test_rest(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(pools); i++) {
        struct load load = {
            .between_us = 1000, .service_us = 30000, .start_us = 30000, .busy_us = MINUTE, .quiet_us = 1000 * HOUR};
        const struct config_pool *config = &pools[i];
        struct pool pool;
        uint64_t n_alarms;

        pool_init(&pool, config, &load, 7);
        begin(&pool);
        live(&pool, HOUR, UINT64_MAX); /* a minute of requests, and all is done and calm */
        n_alarms = pool.n_alarms;
        live(&pool, 24 * HOUR, UINT64_MAX);
        assert_int_equal(pool.n_alarms, n_alarms);
        assert_int_equal(pool.n_busy + pool.n_starting, 0);
        if (config->pm == PM_STATIC)
            assert_int_equal(pool.n_idle, config->max_children);
        else if (config->pm == PM_ONDEMAND)
            assert_int_equal(pool.n_idle, 0);
        else
            assert_in_range(pool.n_idle, config->min_spare_servers, config->max_spare_servers);
        pool_free(&pool);
    }
}

/* Sixteen requests at once, where no process is: sixteen starts by the decision that hears of the last. */
static void test_burst_on_empty_pool(void **state)
{
    static const struct config_pool empty[] = {ONDEMAND(40, 10000), DYNAMIC(40, 1, 1, 6, 1), DYNAMIC(16, 1, 1, 6, 1)};
    static const struct load load = {.service_us = 1000, .start_us = 1000};

    (void)state;
    for (size_t i = 0; i < N(empty); i++) {
        struct pool pool;

        pool_init(&pool, &empty[i], &load, 1);
        pool.has_started = true; /* and all of them have ended */
        for (unsigned n = 0; n < 16; n++)
            arrive(&pool);
        decide(&pool);
        assert_in_range(pool.n_starting, 16, empty[i].max_children < 17 ? 16 : 17);
        assert_int_equal(pool.n_most_at_once, pool.n_starting);
        live(&pool, HOUR, UINT64_MAX);
        assert_int_equal(pool.n_served, 16);
        pool_free(&pool);
    }
}

/* One request: its process is gone when it has had none for process_idle_timeout, and nobody is woken but for that. */
static void test_last_request(void **state)
{
    static const struct config_pool config = ONDEMAND(40, 10000);
    static const struct load load = {.service_us = 25 * SECOND, .start_us = 30000};
    struct pool pool;
    uint64_t last_us;

    (void)state;
    pool_init(&pool, &config, &load, 99);
    begin(&pool);
    assert_int_equal(pool.n_live, 0);
    arrive(&pool);
    decide(&pool);
    while (pool.n_served == 0)
        live(&pool, UINT64_MAX, pool.n_handled + 1);
    last_us = pool.now_us;
    live(&pool, last_us + 10 * SECOND - 1, UINT64_MAX);
    assert_int_equal(pool.n_live, 1);
    live(&pool, UINT64_MAX, UINT64_MAX);
    assert_int_equal(pool.n_live, 0);
    assert_int_equal(pool.now_us, last_us + 10 * SECOND);
    pool_free(&pool);
}

/* ---- many ---- */

static const struct config_pool many[] = {
    DYNAMIC(10000, 100, 500, 3000, 64),
    ONDEMAND(10000, 200),
};

/* Some 6000 are busy on average, and all of them in bursts. */
static const struct load crowd = {.between_us = 200,
                                  .service_us = 550000,
                                  .start_us = 50000,
                                  .one_in_burst = 2000,
                                  .burst = 2500,
                                  .one_in_crashes = 1000};

static void test_many(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(many); i++) {
        struct pool pool;

        pool_init(&pool, &many[i], &crowd, 3);
        begin(&pool);
        live(&pool, UINT64_MAX, 1000000);
        assert_int_equal(pool.n_handled, 1000000);
        assert_true(pool.n_live > 5000);
        pool_free(&pool);
    }
}

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Decisions and all that is around them here: what a decision costs is less. Then decisions alone, on what is there. */
static void figures(const char *name, const struct config_pool *config)
{
    enum { TIMES = 1000000 };
    struct pool pool;
    uint64_t began_ns, whole_ns, n_wanted = 0;

    pool_init(&pool, config, &crowd, 3);
    began_ns = clock_ns();
    begin(&pool);
    live(&pool, UINT64_MAX, 1000000);
    whole_ns = clock_ns() - began_ns;
    began_ns = clock_ns();
    for (unsigned i = 0; i < TIMES; i++) {
        struct policy_view view = {
            pool.n_live, pool.n_idle + pool.n_starting, (unsigned)pool.n_waiting + i % 3, !pool.has_started, n_idle_for,
            &pool};

        n_wanted += policy_decide(config, &pool.rate, &view, pool.now_us + i).n_start;
    }
    printf("%s: %u processes now, %ju events, %ju decisions, %.3f us a decision with all of the simulation; "
           "%.3f us a decision alone (%ju starts wanted)\n",
           name, pool.n_live, (uintmax_t)pool.n_handled, (uintmax_t)pool.n_decisions,
           (double)whole_ns / 1e3 / (double)pool.n_decisions, (double)(clock_ns() - began_ns) / 1e3 / TIMES,
           (uintmax_t)n_wanted);
    pool_free(&pool);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hours),        cmocka_unit_test(test_rest), cmocka_unit_test(test_burst_on_empty_pool),
        cmocka_unit_test(test_last_request), cmocka_unit_test(test_many),
    };

    if (argc == 2 && strcmp(argv[1], "figures") == 0) {
        figures("dynamic", &many[0]);
        figures("ondemand", &many[1]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
