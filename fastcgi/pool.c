/*
 * Peers are idle - ready for a request - or in `others`: serving, draining, or refusing while the news of their end is
 * on the way. Runs wait in the queue only while no peer is idle.
 */
#include "fastcgi/pool.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fastcgi/inside.h"

/* ---- peers ---- */

void pool_set_idle(struct peer *peer, bool is_idle)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.idle == is_idle)
        return;
    peer->is.idle = is_idle;
    if (is_idle) {
        TAILQ_REMOVE(&pool->others, peer, next);
        TAILQ_INSERT_HEAD(&pool->idle, peer, next); /* the last used is the first used again: its memory is warm */
    } else {
        TAILQ_REMOVE(&pool->idle, peer, next);
        TAILQ_INSERT_HEAD(&pool->others, peer, next);
    }
}

void pool_add_peer(struct fastcgi_pool *pool, struct peer *peer)
{
    TAILQ_INSERT_HEAD(&pool->others, peer, next);
    pool->n_peers++;
}

/* It is out of the pool for good. A server's gives its slot back. */
void pool_remove_peer(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    pool_set_idle(peer, false);
    TAILQ_REMOVE(&pool->others, peer, next);
    pool->n_peers--;
    if (peer->id == 0) {
        peer_application(peer)->n_peers--;
        pool->n_slots++;
    }
    peer_destroy(peer);
}

/* The one with the fewest requests of those that can take one more beside them. Not while a process was recalled: it
 * would never be free. */
static struct peer *least_busy(struct fastcgi_pool *pool)
{
    struct peer *peer, *best = NULL;

    if (!pool->is_multiplexing || pool->n_owed > 0)
        return NULL;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer_has_lane(peer) && (best == NULL || peer->n_runs < best->n_runs))
        best = peer;
    return best;
}

/* A peer that can take a request now, or NULL. */
static struct peer *ready_peer(struct fastcgi_pool *pool)
{
    struct peer *peer = TAILQ_FIRST(&pool->idle);

    if (peer == NULL && pool->n_slots > 0)
        peer = servers_open(pool);
    return peer != NULL ? peer : least_busy(pool);
}

/* ---- runs ---- */

static struct fastcgi_run *run_of(struct queue_entry *entry)
{
    return (struct fastcgi_run *)((char *)entry - offsetof(struct fastcgi_run, entry));
}

void pool_end_run(struct fastcgi_run *run, enum run_cause cause, const char *why)
{
    run->result.cause = cause;
    run->result.why = why;
    buffer_free(&run->input);
    run->run.up->ended(run->run.arg, &run->result);
    trace_destroy(run->trace);
    free(run);
}

void pool_complete_run(struct fastcgi_run *run)
{
    run->is.completed = true;
    TAILQ_INSERT_TAIL(&run->pool->completed, run, next);
}

void pool_end_completed(struct fastcgi_pool *pool)
{
    struct fastcgi_run *run;

    while ((run = TAILQ_FIRST(&pool->completed)) != NULL) {
        TAILQ_REMOVE(&pool->completed, run, next);
        run->is.completed = false;
        pool_end_run(run, RUN_COMPLETE, "");
    }
}

void pool_put_back(struct fastcgi_run *run)
{
    struct fastcgi_pool *pool = run->pool;

    queue_put_back(&pool->queue, &run->entry, run->run.is_granted);
    if (pool->number >= 0)
        link_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}

/* A connection could not be made. RUN_COMPLETE: it may be tried with another peer; else why it ends, and run->why. */
static enum run_cause after_refusal(struct peer *peer, struct fastcgi_run *run, int error)
{
    peer_reset(peer);
    pool_set_idle(peer, false);
    if (peer->id != 0) { /* it has died, or is about to: the keeper will tell; else it is stuck */
        peer_start_grace(peer, FASTCGI_GRACE_MS);
        return RUN_COMPLETE;
    }
    return servers_refused(peer, run, error);
}

enum served {
    SERVED,
    NOT_YET, /* there is no peer for it */
    NEVER,   /* none can be reached: run->why, run->result.cause */
};

static enum served try_to_serve(struct fastcgi_pool *pool, struct fastcgi_run *run)
{
    struct peer *peer;

    while ((peer = ready_peer(pool)) != NULL) {
        int error = peer_serve(peer, run);

        if (error == 0) {
            pool_set_idle(peer, false);
            return SERVED;
        }
        run->result.cause = after_refusal(peer, run, error);
        if (run->result.cause != RUN_COMPLETE)
            return NEVER;
    }
    return NOT_YET;
}

void pool_tell_if_nobody_waits(struct fastcgi_pool *pool)
{
    if (pool->queue.n == 0 && pool->number >= 0)
        link_want(pool->options.link, (unsigned)pool->number, 0);
}

/* Without a look at what is promised to others: ready_peer() does the rest. */
static bool can_serve(struct fastcgi_pool *pool)
{
    return !TAILQ_EMPTY(&pool->idle) || pool->n_slots > 0 || least_busy(pool) != NULL;
}

void pool_serve_waiting(struct fastcgi_pool *pool)
{
    loans_pay(pool);
    while (pool->queue.n > 0 && can_serve(pool)) {
        struct fastcgi_run *run = run_of(queue_take(&pool->queue));
        bool was_granted = run->run.is_granted;
        enum served served = try_to_serve(pool, run);

        if (served == NOT_YET) {
            pool_put_back(run);
            return;
        }
        pool_tell_if_nobody_waits(pool);
        if (served == NEVER) {
            pool_end_run(run, run->result.cause, run->why);
        } else if (!was_granted) {
            run->run.is_granted = true;
            run->run.up->granted(run->run.arg);
        } else if (run->is.input_full && run->peer->state == PEER_BUSY && buffer_len(&run->peer->out) == 0) {
            run->is.input_full = false; /* it was told "enough" while it waited for another try */
            run->run.up->drained(run->run.arg);
        }
    }
}

void fastcgi_pool_fail(struct fastcgi_pool *pool, enum run_cause cause, const char *why)
{
    struct queue_entry *entry;

    pool->is_down = true;
    pool->down_cause = cause;
    snprintf(pool->down_why, sizeof pool->down_why, "%s", why);
    while ((entry = queue_take(&pool->queue)) != NULL)
        pool_end_run(run_of(entry), cause, pool->down_why);
    pool_tell_if_nobody_waits(pool);
}

void fastcgi_pool_revive(struct fastcgi_pool *pool)
{
    pool->is_down = false;
}

static void on_expired(struct queue_entry *entry)
{
    pool_tell_if_nobody_waits(run_of(entry)->pool);
    pool_end_run(run_of(entry), RUN_QUEUE_TIMEOUT, "waited for queue_timeout, with every process of the pool busy");
}

/* ---- what peers tell ---- */

void pool_on_free(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->state == PEER_IDLE && (peer->is.gone || servers_is_failing(peer)))
        pool_remove_peer(peer);
    else if (peer->state == PEER_IDLE)
        pool_set_idle(peer, true);
    pool_serve_waiting(pool);
}

/* A process that closes its connection is mostly about to exit, as php-cgi does after so many requests. Were it sent
 * another request now, that could be lost with it. So the news of its exit is waited for; if none comes, its kind is
 * known to close and live on, and is never waited for again. */
static void rest_or_set_idle(struct peer *peer)
{
    if (peer->pool->closes_itself) {
        pool_set_idle(peer, true);
        return;
    }
    pool_set_idle(peer, false);
    peer->is.resting = true;
    peer_start_grace(peer, FASTCGI_REST_MS);
}

void pool_on_lost(struct peer *peer, bool was_draining)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.gone || peer->id == 0)
        pool_remove_peer(peer);
    else if (was_draining) /* it was we who have ended the connection */
        pool_set_idle(peer, true);
    else
        rest_or_set_idle(peer);
    pool_serve_waiting(pool);
}

void pool_on_refused(struct peer *peer, struct fastcgi_run *run, int error)
{
    struct fastcgi_pool *pool = peer->pool;
    enum run_cause cause = after_refusal(peer, run, error);

    if (cause == RUN_COMPLETE)
        pool_put_back(run);
    else
        pool_end_run(run, cause, run->why);
    pool_serve_waiting(pool);
}

/* Of its requests that it has it will end one: then there is room. Else it is another's turn, if there is another. */
void pool_on_overloaded(struct peer *peer, struct fastcgi_run *run)
{
    struct application *application = peer_application(peer);
    bool may_retry = run->is.replayable && !run->is.has_output;

    run->run.retries++;
    if (may_retry && peer->n_runs > 0) {
        application->lanes = peer->n_runs;
        pool_put_back(run);
    } else if (may_retry && peer->id == 0 && run->run.retries < peer->pool->config->servers.n) {
        servers_failed(peer);
        pool_put_back(run);
    } else {
        pool_end_run(run, RUN_OVERLOADED, "says that it is overloaded");
    }
}

void pool_on_grace(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.resting) {
        peer->is.resting = false;
        pool->closes_itself = true;
        pool_set_idle(peer, true);
        pool_serve_waiting(pool);
        return;
    }
    if (peer->id != 0 && !peer->is.gone) { /* else its loan has ended already */
        link_say(pool->options.link, MESSAGE_END, (unsigned)pool->number, peer->id, 0);
        loans_forgive(pool);
    }
    pool_remove_peer(peer);
    link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
    pool_serve_waiting(pool);
}

/* ---- opening ---- */

static size_t number_of_applications(const struct fastcgi_pool *pool)
{
    return pool->config->servers.n > 0 ? pool->config->servers.n : 1;
}

static struct run *refuse(struct fastcgi_run *run, struct run_result *refusal_out, enum run_cause cause,
                          const char *why)
{
    static char text[512];

    snprintf(text, sizeof text, "%s", why);
    refusal_out->cause = cause;
    refusal_out->why = text;
    trace_destroy(run->trace);
    free(run);
    return NULL;
}

static struct run *open_run(struct runner *runner, const struct run_request *request, const struct run_up *up,
                            void *arg, struct run_result *refusal_out)
{
    struct fastcgi_pool *pool = (struct fastcgi_pool *)runner;
    struct fastcgi_run *run = memory_zeroed(1, sizeof *run);
    enum served served = NOT_YET;

    run->run = (struct run){.down = &runs_down, .up = up, .arg = arg, .request = request};
    run->pool = pool;
    run->is.replayable = true;
    run->trace = pool->options.has_trace ? trace_create() : NULL;
    run->result = (struct run_result){.why = "", .exit_code = -1, .cpu_us = UINT64_MAX, .max_rss_kib = UINT64_MAX};
    if (pool->is_down && pool->n_peers == 0)
        return refuse(run, refusal_out, pool->down_cause, pool->down_why);
    if (pool->queue.n == 0)
        served = try_to_serve(pool, run);
    if (served == NEVER)
        return refuse(run, refusal_out, run->result.cause, run->why);
    run->run.is_granted = served == SERVED;
    if (served == SERVED)
        return &run->run;
    if (!queue_add(&pool->queue, &run->entry))
        return refuse(run, refusal_out, RUN_QUEUE_FULL,
                      "every process of the pool is busy, and as many requests as queue = allows are waiting");
    if (pool->number >= 0)
        link_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
    offer_ask(pool);
    return &run->run;
}

static void make_applications(struct fastcgi_pool *pool)
{
    size_t n = number_of_applications(pool);

    pool->applications = memory_zeroed(n, sizeof *pool->applications);
    for (size_t i = 0; i < n; i++) {
        pool->applications[i].pool = pool;
        pool->applications[i].lanes = 1;
    }
}

struct fastcgi_pool *fastcgi_pool_create(const struct fastcgi_options *options, const struct config_pool *config,
                                         int number)
{
    struct fastcgi_pool *pool = memory_zeroed(1, sizeof *pool);

    pool->options = *options;
    pool->config = config;
    pool->runner.open = open_run;
    pool->borrower.message = loans_receive;
    TAILQ_INIT(&pool->idle);
    TAILQ_INIT(&pool->others);
    TAILQ_INIT(&pool->completed);
    TAILQ_INIT(&pool->stopped);
    pool->end_stopped = evtimer_new(options->base, runs_on_stopped, pool);
    make_applications(pool);
    queue_init(&pool->queue, options->base, config->queue, config->queue_timeout_ms * 1000, on_expired);
    pool->number = FASTCGI_NO_NUMBER;
    if (number != FASTCGI_NO_NUMBER)
        fastcgi_pool_number(pool, (unsigned)number);
    return pool;
}

void fastcgi_pool_number(struct fastcgi_pool *pool, unsigned number)
{
    pool->number = (int)number;
    link_attach(pool->options.link, number, &pool->borrower);
}

/* Takes the peer out, and ends its runs, if it has any. */
static void destroy_peer(struct peer *peer)
{
    struct fastcgi_run *run;

    while ((run = TAILQ_FIRST(&peer->runs)) != NULL) {
        TAILQ_REMOVE(&peer->runs, run, next);
        peer->n_runs--;
        pool_end_run(run, RUN_STOPPED, "");
    }
    pool_remove_peer(peer);
}

void fastcgi_pool_destroy(struct fastcgi_pool *pool)
{
    runs_on_stopped(-1, 0, pool);
    fastcgi_pool_fail(pool, RUN_STOPPED, "");
    while (!TAILQ_EMPTY(&pool->idle))
        destroy_peer(TAILQ_FIRST(&pool->idle));
    while (!TAILQ_EMPTY(&pool->others))
        destroy_peer(TAILQ_FIRST(&pool->others));
    event_free(pool->end_stopped);
    queue_finish(&pool->queue);
    for (size_t i = 0; i < number_of_applications(pool); i++)
        values_cancel(pool->applications[i].query);
    free(pool->applications);
    free(pool);
}

struct runner *fastcgi_pool_runner(struct fastcgi_pool *pool)
{
    return &pool->runner;
}
