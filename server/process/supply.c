/*
 * How many processes a pool has, and which of them have had their time. The policy (fastcgi/policy.h) says how many;
 * this file tells it what there is, does what it says, and looks again when something happens or is due.
 *
 * Recycling: a process that was given as many requests as it may be, is as large, or as old, is spent. It does not
 * count any more, so that another is started, and serves on until one has proven itself in its place; each limit is
 * another for each process, by up to a tenth, so that they do not all go at once.
 *
 * Back-off: after a process that has died young without having served, one at a time is tried, later and later; once
 * one has lived for PROOF_MS, all that is missing is started.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/measure.h"
#include "process/pools_inside.h"
#include "process/supply.h"

enum {
    PROOF_MS = 500, /* who has lived for so long is believed to serve */
    QUIET_DELAY_MS = 10,
    FIRST_DELAY_MS = 50,
    LONGEST_DELAY_MS = 5000,
    FAILURES_TO_DOWN = 3,
    LOOK_AGAIN_US = 10000,
    MEASURE_US = 500000, /* between two measurements, which cost much, of a process; fronts ask half as often */
    EXTRA = 4,           /* processes beyond twice the most, at once: those that end take their time */
};

static void set_timer(struct event *timer, uint64_t us)
{
    struct timeval delay = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    event_add(timer, &delay);
}

/* ---- back-off ---- */

static void show_down(struct pool *pool, const char *cause)
{
    struct scoreboard_pool *board = pool_board(pool);

    scoreboard_open(&board->version);
    snprintf(board->down_why, sizeof board->down_why, "%s", cause);
    scoreboard_close(&board->version);
    board->is_down = 1;
}

/* One more process has failed, because `cause`. */
void supply_failed(struct pool *pool, const char *cause)
{
    unsigned doublings = pool->failures < 10 ? pool->failures : 10;
    unsigned delay_ms = FIRST_DELAY_MS << doublings;
    struct message message = {.kind = MESSAGE_DOWN};

    pool->failures++;
    pool->failed_us = clock_us();
    set_timer(pool->next_try, 1000 * (delay_ms < LONGEST_DELAY_MS ? delay_ms : (uint64_t)LONGEST_DELAY_MS));
    proof_failed(pool, cause);
    if (pool->failures < FAILURES_TO_DOWN || pool->n_live + pool->n_spent > 0)
        return;
    processes_close_doors(pool); /* else who has connected waits for the next that is tried */
    if (!pool->is_down)
        log_error("pool %s: nothing runs: %s; trying again, later and later", pool->config->name, cause);
    pool->is_down = true;
    show_down(pool, cause);
    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%.4000s", cause);
    for (unsigned front = 0; front < LENDER_FRONTS; front++)
        if (pool->lender.shares[front].is_here)
            pool_tell(pool, front, &message);
}

void supply_try_soon(struct pool *pool)
{
    if (!event_pending(pool->next_try, EV_TIMEOUT, NULL))
        set_timer(pool->next_try, 1000 * QUIET_DELAY_MS);
}

static bool is_served(const struct pool *pool)
{
    bool is_off = pool->config->kind == POOL_SCRIPTS && pool->script == NULL;

    return !is_off && !pool->all->is_stopped && !pool->is_ending;
}

static bool may_start(const struct pool *pool)
{
    return is_served(pool) && pool->n_processes < 2 * pool->capacity + EXTRA;
}

/* ---- what there is ---- */

static bool is_idle(const struct process *process)
{
    return process->state == PROCESS_LIVE && process_board(process)->n_active == 0;
}

/* A front's word on the past, but never on the future. */
static uint64_t idle_us(const struct process *process, uint64_t now)
{
    uint64_t since = process_board(process)->since_us;

    if (since < process->program.started_us)
        since = process->program.started_us;
    return since < now ? now - since : 0;
}

static unsigned n_idle_for(void *arg, uint64_t us, uint64_t *next_out)
{
    const struct pool *pool = arg;
    const struct process *process;
    uint64_t now = clock_us();
    unsigned n = 0;

    *next_out = POLICY_NEVER;
    TAILQ_FOREACH(process, &pool->processes, next)
    {
        uint64_t idle = is_idle(process) ? idle_us(process, now) : 0;

        if (!is_idle(process))
            continue;
        n += idle >= us;
        if (idle < us && us - idle < *next_out)
            *next_out = us - idle;
    }
    return n;
}

static struct policy_view look(struct pool *pool)
{
    struct policy_view view = {
        .n_live = pool->n_live, .is_first = !pool->has_started, .n_idle_for = n_idle_for, .arg = pool};
    const struct scoreboard_front *fronts = pool->all->options.scoreboard->fronts;
    const struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    view.n_idle += is_idle(process);
    for (unsigned front = 0; front < LENDER_FRONTS; front++) /* what fronts said may be older than who is idle */
        if (pool->lender.shares[front].is_here)
            view.n_waiting += fronts[front].shares[pool->number].n_waiting;
    return view;
}

/* ---- what is due ---- */

/* Not before the next one is old, or one that is to take a spent one's place has lived for long enough. */
static uint64_t next_due(const struct pool *pool, uint64_t now)
{
    const struct process *process;
    uint64_t due = UINT64_MAX;

    TAILQ_FOREACH(process, &pool->processes, next)
    {
        if (process->state != PROCESS_LIVE)
            continue;
        if (process->old_us < due)
            due = process->old_us;
        if (pool->n_spent > 0 && !process->has_answered && process->program.started_us + 1000 * PROOF_MS < due)
            due = process->program.started_us + 1000 * PROOF_MS;
    }
    return due == UINT64_MAX ? POLICY_NEVER : due > now ? due - now : 0;
}

/* Another has proven itself: one that is spent may go. */
static void retire_spent(struct pool *pool)
{
    struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->state == PROCESS_SPENT) {
        process_retire(process, process->cause);
        return;
    }
}

/* Is one of those that count still to show that it serves? */
static bool is_any_unproven(const struct pool *pool)
{
    const struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->state == PROCESS_LIVE && !process->has_answered)
        return true;
    return false;
}

/* Nothing is missing without them: what was to take their place does so, or is not needed. */
static void retire_all_spent(struct pool *pool)
{
    struct process *process, *next;

    for (process = TAILQ_FIRST(&pool->processes); process != NULL; process = next) {
        next = TAILQ_NEXT(process, next);
        if (process->state == PROCESS_SPENT)
            process_retire(process, process->cause);
    }
}

static void do_what_is_due(struct pool *pool)
{
    struct process *process, *next;
    uint64_t now = clock_us();

    for (process = TAILQ_FIRST(&pool->processes); process != NULL; process = next) {
        next = TAILQ_NEXT(process, next);
        if (process->state != PROCESS_LIVE)
            continue;
        if (pool->n_spent > 0 && now >= process->program.started_us + 1000 * PROOF_MS)
            supply_answered(process);
        if (now >= process->old_us)
            supply_spend(process, END_AGE);
    }
}

/* ---- deciding ---- */

static bool is_anyone_at_a_door(const struct pool *pool)
{
    const struct door *door;

    TAILQ_FOREACH(door, &pool->doors, next)
    if (door->holder != NO_HOLDER)
        return true;
    return false;
}

/* As the front has it when it is looked at: it may change meanwhile. */
struct resting {
    struct process *process;
    uint64_t since_us;
};

static int compare_since(const void *a, const void *b)
{
    const struct resting *x = a, *y = b;

    return x->since_us < y->since_us ? -1 : x->since_us > y->since_us;
}

static void retire_idle(struct pool *pool, unsigned n)
{
    struct resting *resting = memory_zeroed(pool->n_live + 1, sizeof *resting);
    struct process *process;
    unsigned n_resting = 0;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (is_idle(process))
        resting[n_resting++] = (struct resting){process, process_board(process)->since_us};
    qsort(resting, n_resting, sizeof *resting, compare_since);
    for (unsigned i = 0; i < n && i < n_resting; i++)
        process_retire(resting[i].process, END_IDLE);
    free(resting);
}

static void note_limit(struct pool *pool, bool is_limited)
{
    if (is_limited && !pool->is_limited)
        counter_add(&pool_board(pool)->n_limit_reached, 1);
    pool->is_limited = is_limited;
}

static bool is_backing_off(const struct pool *pool)
{
    return event_pending(pool->next_try, EV_TIMEOUT, NULL) != 0;
}

void supply_decide(struct pool *pool)
{
    uint64_t now = clock_us();

    if (!is_served(pool) || pool->proof == PROOF_WANTED)
        return;
    while (is_anyone_at_a_door(pool) && may_start(pool) && !is_backing_off(pool))
        if (process_start(pool) != 0) /* somebody may wait behind it */
            return;
    struct policy_view view = look(pool);
    struct policy_rate rate = pool->rate;
    struct policy_step step = policy_decide(pool->config, &rate, &view, now);
    if (!is_backing_off(pool))
        pool->rate = rate;
    note_limit(pool, step.is_limited);
    for (unsigned i = 0; i < step.n_start && may_start(pool) && !is_backing_off(pool); i++)
        if (process_start(pool) != 0)
            break;
    if (step.n_retire > 0)
        retire_idle(pool, step.n_retire);
    if (pool->n_spent > 0 && step.n_start == 0 && !is_any_unproven(pool))
        retire_all_spent(pool);
    if (pool->n_live > 0 && pool->is_down) {
        pool->is_down = false;
        pool_board(pool)->is_down = 0;
    }
    uint64_t due = next_due(pool, now);
    if (step.next_us < due)
        due = step.next_us;
    if (view.n_waiting > 0 && step.n_start == 0 && pool->n_live < pool->capacity && !is_backing_off(pool) &&
        due > LOOK_AGAIN_US)
        due = LOOK_AGAIN_US; /* a front may just have been between its queue and a process */
    if (due != POLICY_NEVER)
        set_timer(pool->review, due);
    else
        event_del(pool->review);
}

static void on_review(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    do_what_is_due(arg);
    supply_decide(arg);
}

void supply_start_one(struct pool *pool)
{
    if (may_start(pool) && !is_backing_off(pool))
        process_start(pool);
}

/* What is under way there goes on here in a moment. */
void supply_start_as_before(struct pool *pool)
{
    unsigned n_before = 0;

    for (unsigned i = 0; i < pool->all->n; i++) {
        const struct pool *other = pool->all->at[i];

        if (other != NULL && other != pool && other->kind == SLOT_PROCESS && other->script == NULL &&
            !other->is_ending && strcmp(other->config->name, pool->config->name) == 0 && other->n_live > n_before)
            n_before = other->n_live;
    }
    while (pool->n_live < n_before && pool->n_live < pool->capacity && may_start(pool) && !is_backing_off(pool))
        if (process_start(pool) != 0)
            return;
}

/* Has one lived since the last failure? Those that were there before say nothing of new ones. */
static bool has_survivor(const struct pool *pool)
{
    const struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->state == PROCESS_LIVE && process->program.started_us >= pool->failed_us)
        return true;
    return false;
}

static bool is_any_missing(struct pool *pool)
{
    struct policy_view view = look(pool);
    struct policy_rate rate = pool->rate;

    return pool->n_live == 0 || is_anyone_at_a_door(pool) ||
           policy_decide(pool->config, &rate, &view, clock_us()).n_start > 0;
}

/* The back-off is over, or the one that was tried has lived long enough to be believed. */
static void on_next_try(evutil_socket_t fd, short what, void *arg)
{
    struct pool *pool = arg;

    (void)fd, (void)what;
    if (pool->failures == 0 || has_survivor(pool)) {
        pool->failures = 0;
        supply_decide(pool);
    } else if (may_start(pool) && is_any_missing(pool) && process_start(pool) == 0) {
        set_timer(pool->next_try, 1000 * PROOF_MS);
    }
}

/* ---- recycling ---- */

/* It has nothing to do, and nobody would miss it. */
static bool is_needless(const struct process *process)
{
    struct pool *pool = process->pool;

    if (!is_idle(process) || pool->config->pm == PM_STATIC)
        return false;
    return pool->config->pm == PM_ONDEMAND || look(pool).n_idle > pool->config->min_spare_servers;
}

void supply_spend(struct process *process, enum scoreboard_end cause)
{
    struct pool *pool = process->pool;

    if (process->state != PROCESS_LIVE)
        return;
    if (is_needless(process)) {
        process_retire(process, cause);
    } else {
        process_set_state(process, PROCESS_SPENT, cause);
        supply_start_one(pool);
    }
    supply_decide(pool);
}

void supply_answered(struct process *process)
{
    struct pool *pool = process->pool;

    if (process->has_answered)
        return;
    process->has_answered = true;
    pool->failures = 0;
    pool_board(pool)->n_starting -= process->state <= PROCESS_SPENT;
    if (process->state == PROCESS_LIVE)
        retire_spent(pool);
}

void supply_measure(struct process *process)
{
    uint64_t now = clock_us();

    if (process->measured_us != 0 && now - process->measured_us < MEASURE_US)
        return;
    process->measured_us = now;
    uint64_t memory = measure_memory(process->program.pid);
    process_board(process)->memory = memory;
    if (process->memory_limit != 0 && memory > process->memory_limit)
        supply_spend(process, END_MEMORY);
}

void supply_prepare(struct pool *pool)
{
    pool->next_try = evtimer_new(pool->all->options.base, on_next_try, pool);
    pool->review = evtimer_new(pool->all->options.base, on_review, pool);
}

void supply_finish(struct pool *pool)
{
    event_free(pool->next_try);
    event_free(pool->review);
}
