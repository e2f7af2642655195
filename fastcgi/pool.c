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

#include "base/clock.h"
#include "base/memory.h"
#include "base/places.h"
#include "fastcgi/inside.h"

/* ---- peers ---- */

void pool_set_idle(struct peer *peer, bool is_idle)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.idle == is_idle)
        return;
    peer->is.idle = is_idle;
    servers_note_idle(peer);
    account_set_idle(&pool->account, is_idle ? pool->account.n_idle + 1 : pool->account.n_idle - 1);
    if (is_idle) {
        TAILQ_REMOVE(&pool->others, peer, next);
        TAILQ_INSERT_HEAD(&pool->idle, peer, next); /* the last used is the first used again: its memory is warm */
    } else {
        TAILQ_REMOVE(&pool->idle, peer, next);
        TAILQ_INSERT_HEAD(&pool->others, peer, next);
    }
    if (peer->id != 0)
        loans_idle_changed(pool, !is_idle);
}

void pool_note_active(struct fastcgi_pool *pool, int change)
{
    account_set_active(&pool->account, pool->account.n_active + (uint32_t)change);
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
    struct application *application = peer_application(peer);
    bool is_server = peer->id == 0;

    pool_set_idle(peer, false);
    loans_left(peer);
    if (peer->state != PEER_IDLE)
        pool_note_active(pool, -1);
    TAILQ_REMOVE(&pool->others, peer, next);
    pool->n_peers--;
    peer_destroy(peer);
    if (is_server)
        servers_closed(application);
}

/* The one with the fewest requests of those that can take one more beside them. Not while a process was recalled: it
 * would never be free. */
static struct peer *least_busy(struct fastcgi_pool *pool, const struct fastcgi_run *run)
{
    struct peer *peer, *best = NULL;

    if (!pool->is_multiplexing || pool->n_owed > 0)
        return NULL;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer_has_lane(peer) && (best == NULL || peer->n_runs < best->n_runs) &&
        (run == NULL || pool->servers == NULL || servers_suits(run, peer_application(peer))))
        best = peer;
    return best;
}

/* A peer that can take a request now, or NULL. */
static struct peer *ready_peer(struct fastcgi_pool *pool, struct fastcgi_run *run)
{
    struct peer *peer = pool->servers != NULL ? servers_peer(pool, run) : TAILQ_FIRST(&pool->idle);

    return peer != NULL ? peer : least_busy(pool, run);
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

    place_change(run->run.request->place, REQUEST_QUEUE, clock_us());
    queue_put_back(&pool->queue, &run->entry, run->run.is_granted);
    loans_want(pool);
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

    while ((peer = ready_peer(pool, run)) != NULL) {
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
    if (pool->queue.n > 0)
        return;
    servers_publish(pool);
    loans_want(pool);
}

/* Without a look at what is promised to others: ready_peer() does the rest. */
static bool can_serve(struct fastcgi_pool *pool)
{
    return !TAILQ_EMPTY(&pool->idle) || pool->n_slots > 0 || least_busy(pool, NULL) != NULL;
}

/* It has got a peer. */
static void grant(struct fastcgi_run *run)
{
    if (!run->run.is_granted) {
        run->run.is_granted = true;
        run->run.up->granted(run->run.arg);
    } else if (run->is.input_full && run->peer->state == PEER_BUSY && buffer_len(&run->peer->out) == 0) {
        run->is.input_full = false; /* it was told "enough" while it waited for another try */
        run->run.up->drained(run->run.arg);
    }
}

/* The first of those that wait, unless it leaves others its turn; false: nobody could be served. */
static bool serve_one(struct fastcgi_pool *pool)
{
    struct queue_entry *entry;

    TAILQ_FOREACH(entry, &pool->queue.entries, next)
    {
        struct fastcgi_run *run = run_of(entry);

        /* Before its process is seen to be busy: the keeper must not take it for one that needs another. */
        account_set_waiting(&pool->account, pool->queue.n - 1);
        enum served served = try_to_serve(pool, run);
        if (served == NOT_YET)
            account_set_waiting(&pool->account, pool->queue.n);
        if (served == NOT_YET && servers_is_choosy(run))
            continue;
        if (served == NOT_YET)
            return false;
        queue_remove(&pool->queue, entry);
        pool_tell_if_nobody_waits(pool);
        if (served == NEVER)
            pool_end_run(run, run->result.cause, run->why);
        else
            grant(run);
        return true;
    }
    return false;
}

void pool_serve_waiting(struct fastcgi_pool *pool)
{
    loans_pay(pool);
    servers_unmark(pool);
    while (pool->queue.n > 0 && can_serve(pool) && serve_one(pool))
        ;
    loans_pay(pool);
    servers_publish(pool);
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
    struct fastcgi_pool *pool = run_of(entry)->pool;
    const char *why = servers_why_waiting(pool);
    const char *told = why == NULL ? holders_expired(&pool->holders, pool->config->queue_timeout_ms) : NULL;

    if (told != NULL)
        log_warning("%s", told);
    pool_tell_if_nobody_waits(pool);
    pool_end_run(run_of(entry), RUN_QUEUE_TIMEOUT, why != NULL ? why : "");
}

/* ---- what peers tell ---- */

/* Free for another request, as far as it may have one. */
void pool_set_free(struct peer *peer)
{
    if (peer->is.gone || (peer->id == 0 && peer->fd < 0) || servers_is_failing(peer))
        pool_remove_peer(peer);
    else if (peer->is.retiring)
        loans_give_back(peer);
    else
        pool_set_idle(peer, true);
}

void pool_on_free(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->state == PEER_IDLE)
        pool_set_free(peer);
    pool_serve_waiting(pool);
}

/* Whether a process of ours had begun with the run, its own end tells: one that has exited in good order, or lives on,
 * had closed the connection before the request came, as php-cgi does after so many; any other was in it. */
static void settle_doubt(struct peer *peer)
{
    struct fastcgi_run *run = peer->doubted;
    bool has_begun = peer->is.gone && peer->end_status != 0;

    if (run == NULL)
        return;
    peer->doubted = NULL;
    run->doubts = NULL;
    if (has_begun) {
        pool_end_run(run, RUN_CRASHED, "its process has ended within the request");
        return;
    }
    run->run.retries++;
    pool_put_back(run);
}

void pool_on_fate(struct peer *peer)
{
    peer->is.asked = false;
    settle_doubt(peer);
    pool_set_free(peer);
}

/* What a process that is about to exit were given now would have to wait for the next. */
void pool_on_lost(struct peer *peer, struct fastcgi_run *doubted, bool had_runs)
{
    struct fastcgi_pool *pool = peer->pool;

    peer->doubted = doubted;
    if (doubted != NULL)
        doubted->doubts = peer;
    if (peer->id == 0)
        pool_remove_peer(peer);
    else if (peer->is.gone)
        pool_on_fate(peer);
    else if (had_runs || !pool->closes_itself)
        loans_ask(peer, !had_runs);
    else
        pool_set_free(peer);
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
    } else if (may_retry && peer->id == 0 && servers_may_try_another(run, application)) {
        pool_put_back(run);
    } else {
        pool_end_run(run, RUN_OVERLOADED, "says that it is overloaded");
    }
}

void pool_on_grace(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    loans_end(peer);
    pool_remove_peer(peer);
    loans_still_want(pool);
    pool_serve_waiting(pool);
}

void fastcgi_pool_yield(struct fastcgi_pool *pool)
{
    pool->is_yielding = true;
    loans_pay(pool);
}

/* ---- opening ---- */

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

enum { QUEUE_MOST = 200000 }; /* whatever else may be; holders_is_full() knows the limit */

static struct run *refuse_full(struct fastcgi_run *run, struct run_result *refusal_out)
{
    const char *told = holders_full(&run->pool->holders);

    if (told != NULL)
        log_warning("%s", told);
    return refuse(run, refusal_out, RUN_QUEUE_FULL, "");
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
    if (pool->queue.n == 0 || servers_is_choosy(run))
        served = try_to_serve(pool, run);
    if (served == NEVER)
        return refuse(run, refusal_out, run->result.cause, run->why);
    run->run.is_granted = served == SERVED;
    if (served == SERVED)
        return &run->run;
    if (holders_is_full(&pool->holders, pool->queue.n, pool->config->queue) || !queue_add(&pool->queue, &run->entry))
        return refuse_full(run, refusal_out);
    loans_want(pool);
    servers_publish(pool);
    offer_ask(pool);
    return &run->run;
}

/* Over all fronts. */
static uint32_t capacity_of(const struct config_pool *config)
{
    return config->kind == POOL_SERVERS ? config->n_connections : config->max_children;
}

struct fastcgi_pool *fastcgi_pool_create(const struct fastcgi_options *options, const struct config_pool *config,
                                         int number)
{
    struct fastcgi_pool *pool = memory_zeroed(1, sizeof *pool);

    pool->options = *options;
    pool->config = config;
    pool->runner.open = open_run;
    pool->runner.account = &pool->account;
    account_init(&pool->account, options->scoreboard, options->front);
    pool->borrower.message = loans_receive;
    TAILQ_INIT(&pool->idle);
    TAILQ_INIT(&pool->others);
    TAILQ_INIT(&pool->completed);
    TAILQ_INIT(&pool->stopped);
    pool->end_stopped = evtimer_new(options->base, runs_on_stopped, pool);
    pool->application = (struct application){.pool = pool, .lanes = 1};
    queue_init(&pool->queue, options->base, QUEUE_MOST, config->queue_timeout_ms * 1000, on_expired);
    pool->queue.account = &pool->account;
    pool->holders = (struct holders){.front = options->front, .what = "pool", .name = config->name};
    pool->number = FASTCGI_NO_NUMBER;
    if (number != FASTCGI_NO_NUMBER)
        fastcgi_pool_number(pool, (unsigned)number);
    if (config->servers.n > 0)
        pool->servers = servers_create(pool);
    return pool;
}

void fastcgi_pool_number(struct fastcgi_pool *pool, unsigned number)
{
    pool->number = (int)number;
    pool->holders.scoreboard = pool->options.scoreboard;
    pool->holders.pool = number;
    account_open(&pool->account, number, capacity_of(pool->config));
    link_attach(pool->options.link, number, &pool->borrower);
    loans_still_want(pool); /* what has waited for that */
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
    if (peer->doubted != NULL)
        pool_end_run(peer->doubted, RUN_STOPPED, "");
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
    account_close(&pool->account);
    event_free(pool->end_stopped);
    queue_finish(&pool->queue);
    holders_finish(&pool->holders);
    values_cancel(pool->application.query);
    if (pool->servers != NULL)
        servers_destroy(pool->servers);
    free(pool);
}

struct runner *fastcgi_pool_runner(struct fastcgi_pool *pool)
{
    return &pool->runner;
}
