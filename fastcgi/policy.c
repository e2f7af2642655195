/*
 * The process managers: first what is missing, then what is too much, then when to look again.
 *
 * The counts are of three kinds: what the queue lacks, which is started at once; what is missing in reserve, which is
 * started as the bucket allows; and what is idle beyond the reserve, which is retired once it has been so for long
 * enough. They exclude each other, since a reserve is never asked to be larger than what may be idle.
 */
#include "fastcgi/policy.h"

enum { SECOND_US = 1000000 };

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t above(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Takes up to `n` out of the bucket. When it has fewer, *next_us is when there is one more. */
static unsigned take(struct policy_rate *rate, unsigned a_second, unsigned n, uint64_t now_us, uint64_t *next_us)
{
    /* Rounded up, so that it never gives more; all of them, not a second, are what it holds, so that it holds all. */
    uint64_t each_us = (SECOND_US + a_second - 1) / a_second, whole_us = each_us * a_second;
    uint64_t empty_us = smaller(above(rate->full_us, now_us), whole_us);
    unsigned taken = (unsigned)smaller((whole_us - empty_us) / each_us, n);

    if (taken > 0)
        rate->full_us = now_us + empty_us + taken * each_us;
    if (taken < n)
        *next_us = empty_us + taken * each_us + each_us - whole_us;
    return taken;
}

static void start(struct policy_step *step, const struct config_pool *pool, struct policy_rate *rate,
                  const struct policy_view *view, uint64_t now_us)
{
    uint64_t at_once = above(view->n_waiting, view->n_idle), spare = 0;
    uint64_t room = above(pool->max_children, view->n_live);

    if (pool->pm == PM_STATIC) {
        step->n_start = (unsigned)room;
        return;
    }
    if (pool->pm == PM_DYNAMIC) {
        if (view->is_first && at_once < pool->start_servers)
            at_once = pool->start_servers;
        spare = above(pool->min_spare_servers, view->n_idle + at_once - view->n_waiting);
    }
    step->is_limited = at_once + spare > room;
    at_once = smaller(at_once, room);
    spare = smaller(spare, room - at_once);
    step->n_start = (unsigned)at_once;
    if (spare > 0)
        step->n_start += take(rate, pool->max_spawn_rate, (unsigned)spare, now_us, &step->next_us);
}

/* Of the idle ones all but `n_kept` go when they have been idle for `us`, and without delay what is above the limit. */
static void retire(struct policy_step *step, const struct config_pool *pool, const struct policy_view *view,
                   unsigned n_kept, uint64_t us)
{
    uint64_t excess = smaller(above(view->n_live, pool->max_children), view->n_idle);
    uint64_t surplus = above(view->n_idle, n_kept), due, next_us = POLICY_NEVER;

    step->n_retire = (unsigned)excess;
    if (surplus <= excess)
        return;
    due = smaller(view->n_idle_for(view->arg, us, &next_us), surplus);
    if (due > excess)
        step->n_retire = (unsigned)due;
    if (step->n_retire < surplus)
        step->next_us = smaller(step->next_us, next_us);
}

struct policy_step policy_decide(const struct config_pool *pool, struct policy_rate *rate,
                                 const struct policy_view *view, uint64_t now_us)
{
    struct policy_step step = {.next_us = POLICY_NEVER};
    uint64_t idle_us = pool->process_idle_timeout_ms * 1000, n_after;

    start(&step, pool, rate, view, now_us);
    if (pool->pm == PM_STATIC)
        retire(&step, pool, view, view->n_idle, 0);
    else if (pool->pm == PM_DYNAMIC)
        retire(&step, pool, view, view->n_waiting > 0 ? view->n_idle : pool->max_spare_servers, POLICY_SURPLUS_US);
    else
        retire(&step, pool, view, view->n_waiting, idle_us);

    /* Nothing tells that a busy process has become idle; those that may have to be retired are looked at in time. */
    n_after = (uint64_t)view->n_live + step.n_start - step.n_retire;
    if (n_after > pool->max_children || (pool->pm == PM_DYNAMIC && n_after > pool->max_spare_servers))
        step.next_us = smaller(step.next_us, POLICY_SURPLUS_US);
    if (n_after > 0 && pool->pm == PM_ONDEMAND)
        step.next_us = smaller(step.next_us, idle_us);
    return step;
}
