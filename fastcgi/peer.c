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
 * A kept connection that closes before a byte of the answer came was closed by the application while our request was on
 * its way: the request goes, once more, to a fresh one. Anything else that ends a connection within a request is a
 * crash.
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
#include "fastcgi/inside.h"

enum {
    PIPE_PIECES = 16, /* reads that empty a full pipe */
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
    peer->state = next;
}

bool peer_is_shared(const struct peer *peer)
{
    return peer_application(peer)->lanes > 1 || peer->n_runs + peer->n_orphans > 1;
}

/* One that has not yet answered an abort may be stuck; one that is not read for now would stall the new request. */
bool peer_has_lane(const struct peer *peer)
{
    return peer->state == PEER_BUSY && peer->depth == 0 && !peer->is.gone && !peer->is.tainted && !peer->is.deaf &&
           peer->n_orphans == 0 && peer->n_holding == 0 && peer_application(peer)->keeps &&
           peer->n_runs < peer_application(peer)->lanes;
}

/* ---- the connection ---- */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

/* Forgets the connection. Its runs, if any, are the caller's to deal with. */
static void disconnect(struct peer *peer)
{
    peer->n_orphans = 0;
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
    int fd = socket(peer->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    int error = connect(fd, (const struct sockaddr *)&peer->address, peer->address_len) == 0 ? 0 : -errno;
    if (error != 0 && error != -EINPROGRESS) {
        close(fd);
        return error;
    }
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
    run->run.granted_us = run->run.is_granted ? run->run.granted_us : clock_us();
    if (peer->id != 0)
        counter_step(&peer->pool->options.scoreboard->processes[peer->index].given);
}

static void detach(struct peer *peer, struct fastcgi_run *run)
{
    TAILQ_REMOVE(&peer->runs, run, next);
    peer->n_runs--;
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
    change_state(peer, PEER_BUSY);
    peer_send(peer);
}

/* Input cannot always be sent once more: it is not given to a connection that may be about to be closed. */
static bool must_be_new(const struct peer *peer, const struct fastcgi_run *run)
{
    return run->is.fresh || (peer->id == 0 && run->run.request->has_input && !peer_application(peer)->keeps);
}

int peer_serve(struct peer *peer, struct fastcgi_run *run)
{
    if (peer->state == PEER_IDLE && must_be_new(peer, run))
        disconnect(peer);
    bool is_kept = peer->fd >= 0;
    int error = is_kept ? 0 : connect_to(peer);

    if (error != 0 && error != -EINPROGRESS)
        return error;
    attach(peer, run);
    if (!is_kept)
        keep_waits(peer);
    request_begin(run);
    if (error == 0) {
        note_start(peer, run, is_kept);
        return 0;
    }
    change_state(peer, PEER_CONNECTING);
    event_add(peer->writer, NULL);
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
    int error = 0;
    socklen_t len = sizeof error;

    (void)what;
    if (peer->state == PEER_CONNECTING) {
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
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

static void take_errors(struct peer *peer, struct span bytes)
{
    char tag[128];

    if (peer->n_runs == 1) {
        struct fastcgi_run *run = TAILQ_FIRST(&peer->runs);

        run->run.up->errors(run->run.arg, bytes);
        return;
    }
    int len = snprintf(tag, sizeof tag, "[pool %.64s, process %ld]", peer->pool->config->name, peer->pid);
    if (bytes.len > 0)
        log_stream_add(&peer->errors_log, (struct span){tag, (size_t)len}, bytes);
    else
        log_stream_end(&peer->errors_log, (struct span){tag, (size_t)len});
}

/* What is in the pipe, and no more than fits in one: a writer that never rests must not keep us here. */
static void read_errors(struct peer *peer)
{
    char bytes[4096];
    ssize_t n = 1;

    for (int i = 0; i < PIPE_PIECES && n > 0 && peer->errors_fd >= 0; i++) {
        n = read(peer->errors_fd, bytes, sizeof bytes);
        if (n > 0)
            take_errors(peer, (struct span){bytes, (size_t)n});
        else if (n == 0)
            event_del(peer->errors);
    }
}

static void on_errors(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;

    (void)fd, (void)what;
    enter(peer);
    read_errors(peer);
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
    take_off(peer, run);
    if (peer->id != 0)
        counter_step(&peer->pool->options.scoreboard->processes[peer->index].served);
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
        read_errors(peer); /* before the request that they belong to is over; it may be stopped in that */
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

/* The connection has ended. A request that it had was killed with it, or never read. */
static void on_eof(struct peer *peer)
{
    bool was_draining = peer->state == PEER_DRAINING, is_alone = peer->n_runs == 1;
    struct fastcgi_run *run;

    enter(peer);
    keep_closed(peer);
    read_errors(peer);
    while ((run = TAILQ_FIRST(&peer->runs)) != NULL) {
        detach(peer, run);
        if (is_alone && !run->is.has_output && peer->n_served > 0 && run->is.replayable) {
            run->is.fresh = peer->id == 0; /* a server's others may be as stale; a process's is another process's */
            run->run.retries++;
            pool_put_back(run);
        } else {
            pool_end_run(run, RUN_CRASHED,
                         run->is.has_output ? "closed its connection within its answer"
                                            : "closed its connection without an answer");
        }
    }
    peer_reset(peer);
    peer->depth--;
    peer->is.doomed = false;
    pool_on_lost(peer, was_draining);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;
    struct fastcgi_pool *pool = peer->pool;

    (void)what;
    if (peer->state == PEER_CONNECTING) {
        pool_on_refused(peer, TAILQ_FIRST(&peer->runs), -ECONNREFUSED);
        return;
    }
    ssize_t n = recv(fd, pool->scratch, FASTCGI_SCRATCH, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || peer->state == PEER_IDLE) { /* what comes unasked for ends the connection as well */
        on_eof(peer);
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
    peer->orphans[peer->n_orphans++] = run->id; /* there is room: no more runs are taken than there are lanes */
    detach(peer, run);
}

/* An application that multiplexes knows ABORT_REQUEST; others mostly do not (section 5.4), but one that reads its input
 * or writes learns that nobody is there. A server is no more than a connection to us. */
void peer_abandon(struct peer *peer, struct fastcgi_run *run, bool at_once)
{
    bool is_connecting = peer->state == PEER_CONNECTING;

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

static void close_errors(struct peer *peer)
{
    if (peer->errors_fd < 0)
        return;
    read_errors(peer);
    take_errors(peer, (struct span){"", 0});
    event_free(peer->errors);
    close(peer->errors_fd);
}

struct peer *peer_create(struct fastcgi_pool *pool, const struct sockaddr *address, socklen_t len)
{
    struct peer *peer = memory_zeroed(1, sizeof *peer);

    TAILQ_INIT(&peer->runs);
    peer->pool = pool;
    peer->fd = peer->errors_fd = -1;
    memcpy(&peer->address, address, len);
    peer->address_len = len;
    peer->grace = evtimer_new(pool->options.base, on_grace, peer);
    return peer;
}

void peer_destroy(struct peer *peer)
{
    disconnect(peer);
    close_errors(peer);
    event_free(peer->grace);
    if (peer->idle != NULL)
        event_free(peer->idle);
    buffer_free(&peer->out);
    free(peer);
}
