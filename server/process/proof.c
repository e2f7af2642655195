/*
 * Make before break: the first process of new settings shows that it serves, before those with the old ones give way.
 *
 * It is lent to a front of the new configuration as untried; the front connects to it, asks it something, and tells. A
 * process that ends instead, or has not convinced anybody within start_timeout, means that the new settings are not
 * taken.
 */
#include <stdio.h>

#include "log.h"
#include "process/pools_inside.h"
#include "process/supply.h"

enum { MOST_TRIES = 3 /* when somebody kills what is to be proven */ };

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    proof_failed(arg, "its first process has answered nothing within start_timeout");
}

static bool is_awaited(const struct pool *pool)
{
    return pool->proof == PROOF_WANTED && pool->proof_limit != NULL;
}

static bool is_any_awaited(const struct pools *pools)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && is_awaited(pools->at[i]))
            return true;
    return false;
}

void proof_finish(struct pool *pool)
{
    if (pool->proof_limit != NULL)
        event_free(pool->proof_limit);
    pool->proof_limit = NULL;
    pool->tried_id = 0;
}

void proof_failed(struct pool *pool, const char *why)
{
    struct pools *pools = pool->all;
    char text[600];

    if (!is_awaited(pool))
        return;
    snprintf(text, sizeof text, "[pool %s]: %.500s", pool->config->name, why);
    proof_finish(pool);
    pools->options.proven(pools->options.arg, text);
}

bool proof_try_again(struct pool *pool)
{
    if (!is_awaited(pool) || pool->n_tries >= MOST_TRIES)
        return false;
    pool->n_tries++;
    pool->tried_id = 0;
    process_start(pool);
    return true;
}

void proof_told(struct pool *pool, uint32_t id, const char *why)
{
    struct pools *pools = pool->all;

    if (!is_awaited(pool) || id != pool->tried_id)
        return;
    if (why != NULL) {
        proof_failed(pool, why);
        return;
    }
    proof_finish(pool);
    pool->proof = PROOF_GIVEN;
    supply_decide(pool);
    supply_start_as_before(pool);
    if (!is_any_awaited(pools))
        pools->options.proven(pools->options.arg, NULL);
}

static void begin(struct pool *pool)
{
    uint64_t ms = pool->config->start_timeout_ms;
    struct timeval limit = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    pool->proof_limit = evtimer_new(pool->all->options.base, on_limit, pool);
    event_add(pool->proof_limit, &limit);
}

void pools_prove(struct pools *pools, const struct binding *binding)
{
    size_t n_awaited = 0;

    for (size_t i = 0; i < binding->config->n_pools; i++) {
        struct pool *pool = pools->at[binding->numbers[i]];

        if (pool->of != binding->config || pool->config->kind != POOL_MANAGED)
            continue;
        begin(pool);
        n_awaited++;
    }
    for (size_t i = 0; i < binding->config->n_pools; i++) {
        struct pool *pool = pools->at[binding->numbers[i]];

        if (is_awaited(pool))
            process_start(pool); /* a failure is told by supply_failed() */
    }
    if (n_awaited == 0)
        pools->options.proven(pools->options.arg, NULL);
}
