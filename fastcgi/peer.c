/*
 * One connection to one FastCGI application, kept for the next request (FCGI_KEEP_CONN). It serves one request at a
 * time, or, where the application multiplexes, several.
 *
 *            serve              connected            all ended
 *     IDLE --------> CONNECTING ---------> BUSY ---------------------> IDLE
 *                        |                 |  ^ all given up    their ends, EOF
 *                        | refused         |  +-----------> DRAINING ----------> IDLE
 *                        v                 v                    | grace over
 *                   another peer       EOF: crashed,            v
 *                                      or tried again       it is ended
 *
 * A kept connection that closes before a byte of the answer came was mostly closed by the application while our
 * request was on its way: then the request goes, once more, to a fresh one. Whether a process of ours had begun with
 * it, its end tells: pool_on_lost(). Anything else that ends a connection within a request is a crash.
 *
 * Of several requests on one connection, each has an id that was not used on it before: so what is said too late of one
 * that is over is not taken for another's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "fastcgi/dial.h"
#include "fastcgi/tell.h"

enum {
    DATA_PIECES = 16, /* of a filter's file, in one turn of the loop */
};

static void change_state(struct peer *peer, enum peer_state next)
{
    static const bool allowed[N_PEER_STATES][N_PEER_STATES] = {
        [PEER_IDLE] = {[PEER_CONNECTING] = true, [PEER_BUSY] = true, [PEER_IDLE] = true},
        [PEER_CONNECTING] = {[PEER_BUSY] = true, [PEER_IDLE] = true},
        [PEER_BUSY] = {[PEER_IDLE] = true, [PEER_DRAINING] = true, [PEER_BUSY] = true},
        [PEER_DRAINING] = {[PEER_IDLE] = true},
    };

    if (!allowed[peer->state][next])
        abort();
    if ((peer->state == PEER_IDLE) != (next == PEER_IDLE))
        pool_note_active(peer->pool, next == PEER_IDLE ? -1 : 1);
    peer->state = next;
}

bool peer_is_shared(const struct peer *peer)
{
    return peer_application(peer)->lanes > 1 || peer->n_runs + peer->n_orphans > 1;
}

/* One that has not yet answered an abort may be stuck; one that is not read for now would stall the new request. */
bool peer_has_lane(const struct peer *peer)
{
    return peer->state == PEER_BUSY && peer->depth == 0 && !peer->is.gone && !peer->is.retiring && !peer->is.tainted &&
           !peer->is.deaf && peer->n_orphans == 0 && peer->n_holding == 0 && peer_application(peer)->keeps &&
           peer->n_runs < peer_application(peer)->lanes;
}

/* ---- the connection ---- */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

/* Forgets the connection. Its runs, if any, are the caller's to deal with. */
static void disconnect(struct peer *peer)
{
    if (peer->n_orphans > 0) {
        peer->n_orphans = 0;
        tell_count(peer);
    }
    peer->cpu_us = UINT64_MAX;
    keep_heard(peer);
    if (peer->fd < 0)
        return;
    event_free(peer->reader);
    event_free(peer->writer);
    close(peer->fd);
    peer->fd = -1;
    peer->reader = peer->writer = NULL;
    peer->n_served = 0;
    peer->last_id = 0;
    peer->is.tainted = peer->is.deaf = false;
    buffer_clear(&peer->out);
}

/* 0: it stands; -EINPROGRESS: not yet; or -errno. */
static int connect_to(struct peer *peer)
{
    struct event_base *base = peer->pool->options.base;
    unsigned timeout_ms = peer->id == 0 ? (unsigned)peer->pool->config->connect_timeout_ms : 0;
    int fd;

    peer->connecting_us = clock_us();
    int error = dial((const struct sockaddr *)&peer->address, peer->address_len, timeout_ms, &fd);
    if (error != 0 && error != -EINPROGRESS)
        return error;
    peer->fd = fd;
    peer->reader = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, peer);
    peer->writer = event_new(base, fd, EV_WRITE, on_writable, peer);
    record_reader_init(&peer->records);
    event_add(peer->reader, NULL);
    return error;
}

void peer_set_reading(struct peer *peer)
{
    if (peer->reader == NULL)
        return;
    if (peer->n_holding > 0)
        event_del(peer->reader);
    else
        event_add(peer->reader, NULL);
}

/* ---- runs ---- */

static void attach(struct peer *peer, struct fastcgi_run *run)
{
    TAILQ_INSERT_TAIL(&peer->runs, run, next);
    run->is.shared = peer->n_runs++ > 0;
    run->peer = peer;
    run->id = ++peer->last_id != 0 ? peer->last_id : ++peer->last_id;
    run->run.pid = peer->pid;
    run->begun_us = clock_us();
    run->run.granted_us = run->run.is_granted ? run->run.granted_us : run->begun_us;
    tell_given(peer, run);
    loans_given(peer);
}

static void detach(struct peer *peer, struct fastcgi_run *run)
{
    TAILQ_REMOVE(&peer->runs, run, next);
    peer->n_runs--;
    tell_taken(peer, run);
    run->peer = NULL;
    if (run->is.holding) {
        run->is.holding = false;
        peer->n_holding--;
        peer_set_reading(peer);
    }
}

static struct fastcgi_run *find_run(const struct peer *peer, uint16_t id)
{
    struct fastcgi_run *run;

    TAILQ_FOREACH(run, &peer->runs, next)
    if (run->id == id)
        return run;
    return NULL;
}

static bool is_orphan(const struct peer *peer, uint16_t id, unsigned *index_out)
{
    for (unsigned i = 0; i < peer->n_orphans; i++) {
        *index_out = i;
        if (peer->orphans[i] == id)
            return true;
    }
    return false;
}

/* ---- calls at work ---- */

static void enter(struct peer *peer)
{
    peer->depth++;
}

/* Whatever has happened to its runs, its state follows. */
static void settle(struct peer *peer)
{
    if (peer->state != PEER_BUSY && peer->state != PEER_DRAINING)
        return;
    if (peer->n_runs == 0 && peer->n_orphans > 0) {
        if (peer->state == PEER_DRAINING)
            return;
        peer_start_grace(peer, FASTCGI_GRACE_MS);
        change_state(peer, PEER_DRAINING);
        return;
    }
    if (peer->n_runs > 0 && !peer_is_shared(peer) && peer->pool->queue.n == 0)
        return; /* who waits may have been put back just now, and others be free */
    if (peer->n_runs == 0) {
        if (peer->fd >= 0 && (peer->is.tainted || peer->is.deaf || !keep_on(peer)))
            disconnect(peer);
        event_del(peer->grace);
        change_state(peer, PEER_IDLE);
    }
    pool_on_free(peer);
}

/* The last word of the call: the peer may be destroyed. */
static void leave(struct peer *peer)
{
    if (--peer->depth > 0)
        return;
    if (peer->is.doomed) {
        peer->is.doomed = false;
        pool_on_grace(peer);
    } else {
        settle(peer);
    }
}

/* ---- sending ---- */

static void send_out(struct peer *peer)
{
    while (buffer_len(&peer->out) > 0 && !peer->is.deaf) {
        ssize_t n = send(peer->fd, buffer_at(&peer->out), buffer_len(&peer->out), MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            event_add(peer->writer, NULL);
            return;
        }
        if (n < 0)
            peer->is.deaf = true; /* it may have answered before it closed: the read side will tell */
        else
            buffer_consume(&peer->out, (size_t)n);
    }
    buffer_clear(&peer->out); /* nothing is left, or nobody takes it */
}

static bool append_data(struct peer *peer)
{
    struct fastcgi_run *run;
    bool has_more = false;

    if (peer->is.deaf)
        return false;
    TAILQ_FOREACH(run, &peer->runs, next)
    has_more |= request_feed_data(run);
    return has_more;
}

void peer_send(struct peer *peer)
{
    send_out(peer);
    for (int i = 0; i < DATA_PIECES && buffer_len(&peer->out) == 0; i++) {
        if (!append_data(peer))
            return;
        send_out(peer);
    }
    if (!peer->is.deaf)
        event_add(peer->writer, NULL);
}

static void note_start(struct peer *peer, struct fastcgi_run *run, bool is_kept)
{
    run->run.started_us = is_kept ? run->run.granted_us : clock_us();
    tell_connected(run);
    change_state(peer, PEER_BUSY);
    peer_send(peer);
}

/* Input cannot always be sent once more: it is not given to a connection that may be about to be closed. */
static bool must_be_new(const struct peer *peer, const struct fastcgi_run *run)
{
    return run->is.fresh || (peer->id == 0 && run->run.request->has_input && !peer_application(peer)->keeps);
}

static const struct timeval *connect_timeout(const struct peer *peer, struct timeval *timeout)
{
    uint64_t ms = peer->pool->config->connect_timeout_ms;

    *timeout = (struct timeval){(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};
    return timeout;
}

int peer_serve(struct peer *peer, struct fastcgi_run *run)
{
    struct timeval timeout;

    if (peer->state == PEER_IDLE && must_be_new(peer, run))
        disconnect(peer);
    bool is_kept = peer->fd >= 0;
    tell_coming(peer);
    int error = is_kept ? 0 : connect_to(peer);

    if (error != 0 && error != -EINPROGRESS) {
        tell_count(peer);
        return error;
    }
    attach(peer, run);
    if (!is_kept)
        keep_waits(peer);
    request_begin(run);
    if (error == 0) {
        note_start(peer, run, is_kept);
        return 0;
    }
    change_state(peer, PEER_CONNECTING);
    event_add(peer->writer, peer->id == 0 ? connect_timeout(peer, &timeout) : NULL);
    return 0;
}

/* There is room again: each run that was told "enough" hears of it, until the room is used up. */
static void tell_drained(struct peer *peer)
{
    struct fastcgi_run *run = TAILQ_FIRST(&peer->runs);

    while (run != NULL && buffer_len(&peer->out) == 0 && !peer->is.doomed) {
        if (!run->is.input_full) {
            run = TAILQ_NEXT(run, next);
            continue;
        }
        run->is.input_full = false;
        TAILQ_REMOVE(&peer->runs, run, next); /* the next room is another's first */
        TAILQ_INSERT_TAIL(&peer->runs, run, next);
        run->run.up->drained(run->run.arg);
        run = TAILQ_FIRST(&peer->runs);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;

    if (peer->state == PEER_CONNECTING) {
        int error = (what & EV_WRITE) != 0 ? dial_error(fd) : ETIMEDOUT; /* both, when this process stood still */

        if (error != 0) {
            pool_on_refused(peer, TAILQ_FIRST(&peer->runs), -error);
            return;
        }
        note_start(peer, TAILQ_FIRST(&peer->runs), false);
    } else {
        peer_send(peer);
    }
    enter(peer);
    tell_drained(peer);
    leave(peer);
}

/* ---- descriptor 2 ---- */

static void on_errors(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;

    (void)fd, (void)what;
    enter(peer);
    peer_read_errors(peer);
    leave(peer);
}

/* ---- the answer ---- */

/* The request is over. Will the connection do for another? Not if the application may not have read all of this one,
 * unless it tells requests apart. */
static void take_off(struct peer *peer, struct fastcgi_run *run)
{
    bool is_read = run->is.input_ended && !peer->is.deaf && buffer_len(&peer->out) == 0 &&
                   (run->run.request->role != ROLE_FILTER || run->is.data_ended);

    bool is_shared = peer_is_shared(peer);

    detach(peer, run);
    if (!is_read && !is_shared)
        disconnect(peer);
}

static void end_by_status(struct peer *peer, struct fastcgi_run *run, unsigned status)
{
    struct application *application = peer_application(peer);

    if (status == RECORD_CANT_MPX_CONN && run->is.shared && run->is.replayable && !run->is.has_output) {
        if (!application->cannot_multiplex)
            log_warning("pool %s: the application cannot multiplex, although it says that it can",
                        peer->pool->config->name);
        application->lanes = 1;
        application->cannot_multiplex = true;
        run->run.retries++;
        pool_put_back(run);
    } else if (status == RECORD_OVERLOADED) {
        pool_on_overloaded(peer, run);
    } else if (status == RECORD_REQUEST_COMPLETE) {
        pool_complete_run(run);
    } else if (status == RECORD_CANT_MPX_CONN) {
        pool_end_run(run, RUN_CRASHED, "says that it cannot multiplex, which it was not asked to");
    } else if (status == RECORD_UNKNOWN_ROLE) {
        pool_end_run(run, RUN_CRASHED, "does not know the role that the route gives it; see role =");
    } else {
        pool_end_run(run, RUN_CRASHED, "ended with a protocol status that there is not");
    }
}

static void on_end_request(struct peer *peer, struct fastcgi_run *run, const struct record_event *event)
{
    keep_served(peer);
    run->result.cpu_us = tell_answered(peer, run);
    take_off(peer, run);
    loans_answered(peer);
    run->result.exit_code = (int)event->app_status;
    end_by_status(peer, run, event->protocol_status);
}

/* It does not speak FastCGI: its connection is dropped, and what it served has failed. */
static void give_up(struct peer *peer, const char *why)
{
    struct fastcgi_run *run;

    disconnect(peer);
    while ((run = TAILQ_FIRST(&peer->runs)) != NULL) {
        detach(peer, run);
        pool_end_run(run, RUN_CRASHED, why);
    }
}

static void on_stranger(struct peer *peer, const struct record_event *event)
{
    unsigned index;

    bool is_shared = peer_is_shared(peer);

    if (is_orphan(peer, event->id, &index)) {
        if (event->kind == RECORD_WHOLE && event->type == RECORD_END_REQUEST)
            peer->orphans[index] = peer->orphans[--peer->n_orphans];
        tell_count(peer);
        if (peer->n_orphans == 0 && !is_shared)
            disconnect(peer); /* it may not have read all of the request */
        return;
    }
    if (!is_shared) {
        give_up(peer, "speaks of a request that it was not given");
        return;
    }
    if (!peer->is.tainted)
        log_warning(
            "pool %s: the application speaks of request %u, which it was not given: its connection gets no more",
            peer->pool->config->name, event->id);
    peer->is.tainted = true;
}

static void take_output(struct peer *peer, struct fastcgi_run *run, struct span bytes, bool more)
{
    if (run->is.paused) {
        run->overrun += bytes.len;
        if (run->overrun > FASTCGI_OVERRUN && !run->is.holding) {
            run->is.holding = true;
            peer->n_holding++;
            peer_set_reading(peer);
        }
    }
    run->is.promised = more;
    run->run.up->output(run->run.arg, bytes, more);
}

/* One record's piece. */
static void take_event(struct peer *peer, const struct record_event *event, bool more)
{
    bool is_end = event->kind == RECORD_WHOLE && event->type == RECORD_END_REQUEST;

    if (is_end)
        peer_read_errors(peer); /* before the request that they belong to is over; it may be stopped in that */
    struct fastcgi_run *run = find_run(peer, event->id);
    if (event->kind == RECORD_BAD) {
        give_up(peer, event->why);
        return;
    }
    if (event->id == 0)
        return; /* a management record that nobody asked for */
    if (run == NULL) {
        on_stranger(peer, event);
        return;
    }
    trace_received(run->trace, event);
    keep_heard(peer);
    servers_heard(peer, run);
    if (is_end) {
        on_end_request(peer, run, event);
        return;
    }
    if (event->kind != RECORD_BYTES)
        return;
    run->is.has_output = true;
    run->is.replayable = false;
    if (event->type == RECORD_STDOUT)
        take_output(peer, run, event->bytes, more);
    else if (event->type == RECORD_STDERR)
        run->run.up->errors(run->run.arg, event->bytes);
}

/* Runs that were promised more, and have got none: another's records came. */
static void keep_promises(struct peer *peer)
{
    struct fastcgi_run *run = TAILQ_FIRST(&peer->runs);

    while (run != NULL) {
        if (!run->is.promised) {
            run = TAILQ_NEXT(run, next);
            continue;
        }
        run->is.promised = false;
        run->run.up->output(run->run.arg, SPAN(""), false);
        run = TAILQ_FIRST(&peer->runs);
    }
}

static void take_records(struct peer *peer, struct span input)
{
    for (;;) {
        struct record_event event = record_read(&peer->records, &input);

        if (event.kind == RECORD_MORE)
            break;
        take_event(peer, &event, input.len > 0);
        if (peer->fd < 0 || peer->is.doomed)
            break;
        if (peer->n_runs + peer->n_orphans == 0 && input.len > 0) {
            disconnect(peer); /* bytes behind the end of its last answer: it cannot be trusted with another */
            break;
        }
    }
    keep_promises(peer);
}

static void end_by_eof(struct peer *peer, struct fastcgi_run *run, int error)
{
    const char *why = error == ETIMEDOUT   ? "cannot be reached any more"
                      : run->is.has_output ? "closed its connection within its answer"
                                           : "closed its connection without an answer";

    if (!run->is.has_output)
        servers_failed(peer, run, why);
    pool_end_run(run, RUN_CRASHED, why);
}

/* The connection has ended, by that error if it is not 0. A request that it had was killed with it, or never read; of
 * one whose host is gone, nobody knows. */
static void on_eof(struct peer *peer, int error)
{
    struct fastcgi_run *run, *doubted = NULL;
    bool is_alone = peer->n_runs == 1 && error != ETIMEDOUT, had_runs = peer->n_runs > 0;

    enter(peer);
    keep_closed(peer);
    peer_read_errors(peer);
    while ((run = TAILQ_FIRST(&peer->runs)) != NULL) {
        detach(peer, run);
        bool is_stale = is_alone && !run->is.has_output && peer->n_served > 0 && run->is.replayable;

        if (is_stale && peer->id != 0) {
            doubted = run;
        } else if (is_stale) {
            run->is.fresh = true; /* the server's other connections may be as stale */
            run->run.retries++;
            pool_put_back(run);
        } else {
            end_by_eof(peer, run, error);
        }
    }
    peer_reset(peer);
    peer->depth--;
    peer->is.doomed = false;
    pool_on_lost(peer, doubted, had_runs);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;
    struct fastcgi_pool *pool = peer->pool;

    (void)what;
    if (peer->state == PEER_CONNECTING) {
        int error = dial_error(fd);

        pool_on_refused(peer, TAILQ_FIRST(&peer->runs), error != 0 ? -error : -ECONNREFUSED);
        return;
    }
    ssize_t n = recv(fd, pool->scratch, FASTCGI_SCRATCH, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || peer->state == PEER_IDLE) { /* what comes unasked for ends the connection as well */
        on_eof(peer, n < 0 ? (errno == EHOSTUNREACH || errno == ENETUNREACH ? ETIMEDOUT : errno) : 0);
        return;
    }
    enter(peer);
    take_records(peer, (struct span){pool->scratch, (size_t)n});
    leave(peer);
    pool_end_completed(pool);
}

/* ---- giving up ---- */

static void on_grace(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    pool_on_grace(arg);
}

void peer_start_grace(struct peer *peer, unsigned ms)
{
    struct timeval grace = {ms / 1000, ms % 1000 * 1000};

    event_add(peer->grace, &grace);
}

void peer_reset(struct peer *peer)
{
    struct fastcgi_run *run;

    while ((run = TAILQ_FIRST(&peer->runs)) != NULL)
        detach(peer, run);
    disconnect(peer);
    event_del(peer->grace);
    change_state(peer, PEER_IDLE);
}

/* What it still says of the run is thrown away; the id is not forgotten before its end has come. */
static void orphan(struct peer *peer, struct fastcgi_run *run)
{
    peer->cpu_us = UINT64_MAX;
    peer->orphans[peer->n_orphans++] = run->id; /* there is room: no more runs are taken than there are lanes */
    detach(peer, run);
}

/* An application that multiplexes knows ABORT_REQUEST; others mostly do not (section 5.4), but one that reads its input
 * or writes learns that nobody is there. A server is no more than a connection to us. */
void peer_abandon(struct peer *peer, struct fastcgi_run *run, bool at_once)
{
    bool is_connecting = peer->state == PEER_CONNECTING;

    if (at_once && !run->is.has_output)
        servers_failed(peer, run, "has not answered in time");
    enter(peer);
    if (peer_is_shared(peer) && !is_connecting) {
        request_abort(run);
        orphan(peer, run);
        peer_send(peer);
    } else if (peer->id != 0 && !at_once && !is_connecting) {
        orphan(peer, run);
        shutdown(peer->fd, SHUT_WR);
        event_del(peer->writer);
        buffer_clear(&peer->out);
        peer->is.deaf = true;
    } else {
        detach(peer, run);
        peer->is.doomed = true;
    }
    leave(peer);
}

/* ---- making and unmaking ---- */

void peer_watch_errors(struct peer *peer, int fd)
{
    peer->errors_fd = fd;
    peer->errors = event_new(peer->pool->options.base, fd, EV_READ | EV_PERSIST, on_errors, peer);
    event_add(peer->errors, NULL);
}

struct peer *peer_create(struct fastcgi_pool *pool, const struct sockaddr *address, socklen_t len)
{
    struct peer *peer = memory_zeroed(1, sizeof *peer);

    TAILQ_INIT(&peer->runs);
    peer->pool = pool;
    peer->application = &pool->application;
    peer->fd = peer->errors_fd = -1;
    memcpy(&peer->address, address, len);
    peer->address_len = len;
    peer->grace = evtimer_new(pool->options.base, on_grace, peer);
    return peer;
}

void peer_destroy(struct peer *peer)
{
    disconnect(peer);
    peer_close_errors(peer);
    proof_cancel(peer);
    event_free(peer->grace);
    if (peer->idle != NULL)
        event_free(peer->idle);
    buffer_free(&peer->out);
    free(peer);
}
