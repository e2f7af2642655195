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
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "fastcgi/inside.h"

enum {
    FAILED_US = 1000000, /* a server that could not be reached is passed over for so long, if there is another */
};

/* ---- peers ---- */

static void set_idle(struct peer *peer, bool is_idle)
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

static void add_peer(struct fastcgi_pool *pool, struct peer *peer)
{
    TAILQ_INSERT_HEAD(&pool->others, peer, next);
    pool->n_peers++;
}

/* It is out of the pool for good. A server's gives its slot back. */
static void remove_peer(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    set_idle(peer, false);
    TAILQ_REMOVE(&pool->others, peer, next);
    pool->n_peers--;
    if (peer->id == 0) {
        peer_application(peer)->n_peers--;
        pool->n_slots++;
    }
    peer_destroy(peer);
}

static bool has_failed(const struct application *application, uint64_t now)
{
    return application->failed_us != 0 && now - application->failed_us < FAILED_US;
}

static bool is_failing_server(const struct peer *peer)
{
    const struct application *application = peer_application(peer);

    return peer->id == 0 && application->failed_us != 0 && has_failed(application, clock_us());
}

/* The server with the fewest connections of those that answer, or of all if none does. */
static size_t choose_server(const struct fastcgi_pool *pool)
{
    uint64_t now = clock_us();
    size_t best = 0;
    bool best_fails = true;

    for (size_t i = 0; i < pool->config->servers.n; i++) {
        const struct application *server = &pool->applications[i];
        bool fails = has_failed(server, now);

        if (i > 0 &&
            (fails > best_fails || (fails == best_fails && server->n_peers >= pool->applications[best].n_peers)))
            continue;
        best = i;
        best_fails = fails;
    }
    return best;
}

static struct peer *open_server(struct fastcgi_pool *pool)
{
    size_t server = choose_server(pool);
    const struct config_address *address = &pool->config->servers.at[server];
    struct peer *peer = peer_create(pool, (const struct sockaddr *)&address->address, address->len);

    peer->server = server;
    pool->applications[server].n_peers++;
    pool->n_slots--;
    add_peer(pool, peer);
    return peer;
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
        peer = open_server(pool);
    return peer != NULL ? peer : least_busy(pool);
}

/* ---- slots ---- */

static void give_back(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;
    uint32_t id = peer->id;

    remove_peer(peer);
    if (id != 0) {
        pool->n_owed--;
        link_say(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, id, 1);
    }
}

/* What was recalled goes back as soon as it is free. */
static void pay_debts(struct fastcgi_pool *pool)
{
    bool has_paid = false;

    while (pool->n_owed > 0 && (pool->n_slots > 0 || !TAILQ_EMPTY(&pool->idle))) {
        has_paid = true;
        if (pool->n_slots == 0)
            give_back(TAILQ_FIRST(&pool->idle));
        if (pool->n_slots == 0)
            continue;
        pool->n_slots--;
        pool->n_owed--;
        link_say(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, 0, 1);
    }
    if (has_paid)
        link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
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
    struct fastcgi_pool *pool = peer->pool;

    peer_reset(peer);
    set_idle(peer, false);
    if (peer->id != 0) { /* it has died, or is about to: the keeper will tell; else it is stuck */
        peer_start_grace(peer, FASTCGI_GRACE_MS);
        return RUN_COMPLETE;
    }
    const struct config_address *address = &pool->config->servers.at[peer->server];
    snprintf(run->why, sizeof run->why, "cannot connect to %.150s: %s", address->text,
             error == -EAGAIN ? "its backlog is full" : strerror(-error));
    peer_application(peer)->failed_us = clock_us();
    remove_peer(peer);
    if (++run->run.retries < pool->config->servers.n)
        return RUN_COMPLETE;
    return error == -EAGAIN ? RUN_OVERLOADED : RUN_BROKEN;
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
            set_idle(peer, false);
            return SERVED;
        }
        run->result.cause = after_refusal(peer, run, error);
        if (run->result.cause != RUN_COMPLETE)
            return NEVER;
    }
    return NOT_YET;
}

static void tell_if_nobody_waits(struct fastcgi_pool *pool)
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
    pay_debts(pool);
    while (pool->queue.n > 0 && can_serve(pool)) {
        struct fastcgi_run *run = run_of(queue_take(&pool->queue));
        bool was_granted = run->run.is_granted;
        enum served served = try_to_serve(pool, run);

        if (served == NOT_YET) {
            pool_put_back(run);
            return;
        }
        tell_if_nobody_waits(pool);
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
    tell_if_nobody_waits(pool);
}

void fastcgi_pool_revive(struct fastcgi_pool *pool)
{
    pool->is_down = false;
}

static void on_expired(struct queue_entry *entry)
{
    tell_if_nobody_waits(run_of(entry)->pool);
    pool_end_run(run_of(entry), RUN_QUEUE_TIMEOUT, "waited for queue_timeout, with every process of the pool busy");
}

/* ---- what peers tell ---- */

void pool_on_free(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->state == PEER_IDLE && (peer->is.gone || is_failing_server(peer)))
        remove_peer(peer);
    else if (peer->state == PEER_IDLE)
        set_idle(peer, true);
    pool_serve_waiting(pool);
}

/* A process that closes its connection is mostly about to exit, as php-cgi does after so many requests. Were it sent
 * another request now, that could be lost with it. So the news of its exit is waited for; if none comes, its kind is
 * known to close and live on, and is never waited for again. */
static void rest_or_set_idle(struct peer *peer)
{
    if (peer->pool->closes_itself) {
        set_idle(peer, true);
        return;
    }
    set_idle(peer, false);
    peer->is.resting = true;
    peer_start_grace(peer, FASTCGI_REST_MS);
}

void pool_on_lost(struct peer *peer, bool was_draining)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.gone || peer->id == 0)
        remove_peer(peer);
    else if (was_draining) /* it was we who have ended the connection */
        set_idle(peer, true);
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
        application->failed_us = clock_us();
        pool_put_back(run);
    } else {
        pool_end_run(run, RUN_OVERLOADED, "says that it is overloaded");
    }
}

/* A process that ends, ends a loan: for the keeper, that is one that was recalled, if any was. */
static void forgive_debt(struct fastcgi_pool *pool)
{
    if (pool->n_owed > 0)
        pool->n_owed--;
}

void pool_on_grace(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;

    if (peer->is.resting) {
        peer->is.resting = false;
        pool->closes_itself = true;
        set_idle(peer, true);
        pool_serve_waiting(pool);
        return;
    }
    if (peer->id != 0 && !peer->is.gone) { /* else its loan has ended already */
        link_say(pool->options.link, MESSAGE_END, (unsigned)pool->number, peer->id, 0);
        forgive_debt(pool);
    }
    remove_peer(peer);
    link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
    pool_serve_waiting(pool);
}

/* ---- what the keeper says ---- */

static void on_loan(struct fastcgi_pool *pool, const struct message *message, int errors_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    pool->is_down = false;
    if (message->id == 0) {
        pool->n_slots += message->n;
        return;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%.*s", (int)(sizeof address.sun_path - 1), message->text);
    struct peer *peer = peer_create(pool, (const struct sockaddr *)&address, sizeof address);
    peer->id = message->id;
    peer->index = message->n % SCOREBOARD_PROGRAMS;
    peer->pid = message->pid;
    if (errors_fd >= 0)
        peer_watch_errors(peer, errors_fd);
    add_peer(pool, peer);
    set_idle(peer, true);
}

static struct peer *find(struct fastcgi_pool *pool, uint32_t id)
{
    struct peer *peer;

    TAILQ_FOREACH(peer, &pool->idle, next)
    if (peer->id == id)
        return peer;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer->id == id)
        return peer;
    return NULL;
}

/* The end of its connection follows, or has come; a run that it still has is read to that end. */
static void on_gone(struct fastcgi_pool *pool, const struct message *message)
{
    struct peer *peer = find(pool, message->id);

    if (peer == NULL)
        return;
    peer->is.gone = true;
    pool->closes_itself = false; /* or if it does, it does exit, too */
    forgive_debt(pool);
    if (peer->n_runs == 0)
        remove_peer(peer);
    link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}

static void receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds)
{
    struct fastcgi_pool *pool = (struct fastcgi_pool *)((char *)borrower - offsetof(struct fastcgi_pool, borrower));

    switch (message->kind) {
    case MESSAGE_LOAN:
        on_loan(pool, message, n_fds > 0 ? fds[0] : -1);
        break;
    case MESSAGE_RECALL:
        pool->n_owed += message->n;
        break;
    case MESSAGE_GONE:
        on_gone(pool, message);
        break;
    case MESSAGE_DOWN:
        fastcgi_pool_fail(pool, RUN_DOWN, message->text);
        break;
    default:
        break;
    }
    pool_serve_waiting(pool);
    if (message->kind == MESSAGE_LOAN)
        link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}

/* ---- what the gateway says ---- */

static bool feed(struct run *base, struct span bytes, bool last)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;
    struct peer *peer = run->peer;

    if (run->is.input_ended)
        return false;
    request_feed(run, bytes, last);
    if (peer != NULL && peer->state == PEER_BUSY)
        peer_send(peer);
    run->is.input_full = peer == NULL || buffer_len(&peer->out) > 0;
    return run->is.input_full;
}

static void set_holding(struct fastcgi_run *run, bool is_holding)
{
    struct peer *peer = run->peer;

    if (peer == NULL || run->is.holding == is_holding)
        return;
    run->is.holding = is_holding;
    peer->n_holding += is_holding ? 1 : -1u;
    peer_set_reading(peer);
}

/* A connection of one request is not read for now. One that others share is, for a while yet. */
static void pause_output(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    run->is.paused = true;
    run->overrun = 0;
    if (run->peer != NULL && !peer_is_shared(run->peer))
        set_holding(run, true);
}

static void resume_output(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    run->is.paused = false;
    set_holding(run, false);
}

static void explain(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    trace_tell(run->trace, run->run.request->id);
}

static void on_stopped(evutil_socket_t fd, short what, void *arg)
{
    struct fastcgi_pool *pool = arg;
    struct fastcgi_run *run;

    (void)fd, (void)what;
    while ((run = TAILQ_FIRST(&pool->stopped)) != NULL) {
        TAILQ_REMOVE(&pool->stopped, run, next_stopped);
        pool_end_run(run, RUN_STOPPED, "");
    }
}

static void stop(struct run *base, bool at_once)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    if (run->is.completed)
        TAILQ_REMOVE(&run->pool->completed, run, next);
    run->is.completed = false;
    TAILQ_INSERT_TAIL(&run->pool->stopped, run, next_stopped);
    event_active(run->pool->end_stopped, EV_TIMEOUT, 0);
    if (run->entry.is_waiting) {
        queue_remove(&run->pool->queue, &run->entry);
        tell_if_nobody_waits(run->pool);
    }
    if (run->peer != NULL)
        peer_abandon(run->peer, run, at_once);
}

static const struct run_down down = {
    .feed = feed,
    .pause = pause_output,
    .resume = resume_output,
    .stop = stop,
    .explain = explain,
};

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

    run->run = (struct run){.down = &down, .up = up, .arg = arg, .request = request};
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
    pool->borrower.message = receive;
    TAILQ_INIT(&pool->idle);
    TAILQ_INIT(&pool->others);
    TAILQ_INIT(&pool->completed);
    TAILQ_INIT(&pool->stopped);
    pool->end_stopped = evtimer_new(options->base, on_stopped, pool);
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
    remove_peer(peer);
}

void fastcgi_pool_destroy(struct fastcgi_pool *pool)
{
    on_stopped(-1, 0, pool);
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
