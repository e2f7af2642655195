/*
 * How many processes a pool has: php-fpm's process managers, acting on what happens instead of once a second. Pure:
 * what there is and the time in, what to do out. It remembers nothing but how many it has started of late.
 *
 *     static    always max_children
 *     dynamic   start_servers at first; then so many that min_spare are idle beyond what the queue takes. Of more
 *               than max_spare idle ones, when nobody waits, those idle for POLICY_SURPLUS_US are retired, the longest
 *               idle first
 *     ondemand  none at first; as many as requests wait; each retired after idle_timeout without a request
 *
 * Never more than max_children, those that are starting among them; those that are retiring are counted apart. Where
 * there are more, since max_children was lowered, idle ones are retired at once, whatever the process manager.
 *
 * What a queue waits for is started at once, and so is start_servers. What is spare comes out of a bucket that holds
 * max_spawn_rate starts and is filled evenly by so many a second.
 */
#ifndef GATEHOUSE_FASTCGI_POLICY_H
#define GATEHOUSE_FASTCGI_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "config_pool.h"

enum { POLICY_SURPLUS_US = 1000000 };

#define POLICY_NEVER UINT64_MAX

/* What there is now. */
struct policy_view {
    unsigned n_live;    /* processes that are neither ending nor retiring */
    unsigned n_idle;    /* of them: without a request, starting ones too */
    unsigned n_waiting; /* requests in queues; each idle process is about to take one of them */
    bool is_first;      /* nothing was ever started */
    /* How long have processes been idle? Returns how many for `us` or longer, and in *next_out in how many
     * microseconds (at least 1) the next of the other idle ones will have been; POLICY_NEVER: no other is idle. One
     * that is starting is so since its start, or not yet: as the caller has it. Asked at most once a decision, and only
     * when one that has been idle for so long would be retired. */
    unsigned (*n_idle_for)(void *arg, uint64_t us, uint64_t *next_out);
    void *arg;
};

struct policy_step {
    unsigned n_start;
    unsigned n_retire; /* of those that have been idle for longest; at most n_idle */
    bool is_limited;   /* more would have been started, but for max_children; never of static, which wants no more */
    /* Decide again in so many microseconds, if nothing happens before; POLICY_NEVER: no need to. That a process becomes
     * idle needs not be told: where it could have to be retired, this is never later than that would be due. All of
     * the step is supposed to be done; when starts or retirements fail, decide again. */
    uint64_t next_us;
};

/* Starts of late for what is spare. Zeroed is a full bucket. */
struct policy_rate {
    uint64_t full_us; /* when it is full again, of the clock that policy_decide() is given */
};

/*
 * Decides anew: to be called when a request begins to wait, when an idle process is taken, when a process has ended,
 * when the settings changed, and after next_us.
 *
 * `pool`: its pm, max_children, start_servers, min_spare_servers, max_spare_servers, max_spawn_rate and
 * process_idle_timeout_ms are looked at, and are what the configuration allows. `now_us` never goes back. Takes from
 * the bucket what it starts for spare. n_start and n_retire are never both above 0.
 */
struct policy_step policy_decide(const struct config_pool *pool, struct policy_rate *rate,
                                 const struct policy_view *view, uint64_t now_us);

#endif
