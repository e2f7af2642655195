/*
 * One connection to one FastCGI application, one request at a time, kept for the next (FCGI_KEEP_CONN).
 *
 *            serve              connected            END_REQUEST
 *     IDLE --------> CONNECTING ---------> BUSY ---------------------> IDLE
 *                        |                  |  given up       END_REQUEST, EOF
 *                        | refused          +-----------> DRAINING ----------> IDLE
 *                        v                  v                 | grace over
 *                   another peer       EOF: crashed,          v
 *                                      or tried again      it is ended
 *
 * A kept connection that closes before a byte of the answer came was closed by the application while our request was on
 * its way: the request goes, once more, to a fresh one. Anything else that ends a connection within a request is a
 * crash.
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
    REQUEST_ID = 1,
    PIPE_PIECES = 16, /* reads that empty a full pipe */
};

static void change_state(struct peer *peer, enum peer_state next)
{
    static const bool allowed[N_PEER_STATES][N_PEER_STATES] = {
        [PEER_IDLE] = {[PEER_CONNECTING] = true, [PEER_BUSY] = true, [PEER_IDLE] = true},
        [PEER_CONNECTING] = {[PEER_BUSY] = true, [PEER_IDLE] = true},
        [PEER_BUSY] = {[PEER_IDLE] = true, [PEER_DRAINING] = true},
        [PEER_DRAINING] = {[PEER_IDLE] = true},
    };

    if (!allowed[peer->state][next])
        abort();
    peer->state = next;
}

/* ---- the connection ---- */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

/* Forgets the connection and the request on it. */
void peer_disconnect(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    event_free(peer->reader);
    event_free(peer->writer);
    close(peer->fd);
    peer->fd = -1;
    peer->reader = peer->writer = NULL;
    peer->n_served = 0;
    buffer_clear(&peer->out);
    peer->sent = 0;
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

/* ---- the request ---- */

static void add_variable(void *arg, struct span name, struct span value)
{
    struct params *params = arg;

    (void)params_add(params, name, value); /* one that fits no record is left out: max_head is far below */
}

static void encode_request(struct peer *peer, struct fastcgi_run *run)
{
    struct params params;

    if (buffer_len(&run->replay) > 0) {
        buffer_append_span(&peer->out, buffer_span(&run->replay));
        return;
    }
    record_begin(&peer->out, REQUEST_ID, RECORD_RESPONDER, true);
    params_begin(&params, &peer->out, REQUEST_ID);
    run->run.request->each_variable(run->run.request, add_variable, &params);
    params_end(&params);
    if (run->run.request->has_input)
        return;
    record_stream_end(&peer->out, RECORD_STDIN, REQUEST_ID);
    run->input_ended = true;
}

/* What was sent is kept for another try, until the answer begins or it has become too much. */
static void drop_sent(struct peer *peer)
{
    if (peer->is_replayable && peer->sent <= FASTCGI_REPLAY)
        return;
    peer->is_replayable = false;
    buffer_consume(&peer->out, peer->sent);
    peer->sent = 0;
}

void peer_send(struct peer *peer)
{
    while (peer->sent < buffer_len(&peer->out) && !peer->is_deaf) {
        struct span rest = span_from(buffer_span(&peer->out), peer->sent);
        ssize_t n = send(peer->fd, rest.at, rest.len, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            event_add(peer->writer, NULL);
            break;
        }
        if (n < 0) {
            peer->is_deaf = true; /* it may have answered before it closed: the read side will tell */
            break;
        }
        peer->sent += (size_t)n;
    }
    if (peer->is_deaf)
        peer->sent = buffer_len(&peer->out);
    drop_sent(peer);
}

static void note_start(struct peer *peer, bool is_kept)
{
    peer->run->run.started_us = is_kept ? peer->run->run.granted_us : clock_us();
    change_state(peer, PEER_BUSY);
    peer_send(peer);
}

int peer_serve(struct peer *peer, struct fastcgi_run *run)
{
    bool is_kept = peer->fd >= 0;
    int error = is_kept ? 0 : connect_to(peer);

    if (error != 0 && error != -EINPROGRESS)
        return error;
    peer->run = run;
    run->peer = peer;
    run->run.pid = peer->pid;
    run->run.granted_us = run->run.is_granted ? run->run.granted_us : clock_us();
    peer->is_replayable = true;
    peer->is_deaf = false;
    if (peer->id != 0)
        counter_step(&peer->pool->options.scoreboard->given[peer->index]);
    encode_request(peer, run);
    buffer_free(&run->replay);
    if (error == 0) {
        note_start(peer, is_kept);
        return 0;
    }
    change_state(peer, PEER_CONNECTING);
    event_add(peer->writer, NULL);
    return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;
    struct fastcgi_run *run = peer->run;
    int error = 0;
    socklen_t len = sizeof error;

    (void)what;
    if (peer->state == PEER_CONNECTING) {
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error != 0) {
            pool_on_lost(peer);
            return;
        }
        note_start(peer, false);
    } else {
        peer_send(peer);
    }
    if (run == NULL || !run->input_full || peer->sent < buffer_len(&peer->out))
        return;
    run->input_full = false;
    run->run.up->drained(run->run.arg);
}

/* ---- descriptor 2 ---- */

static void take_errors(struct peer *peer, struct span bytes)
{
    char tag[128];

    if (peer->run != NULL) {
        peer->run->run.up->errors(peer->run->run.arg, bytes);
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
    (void)fd, (void)what;
    read_errors(arg);
}

/* ---- the answer ---- */

/* The run is over for this peer. May the connection serve another? Not if the application has not read all. */
static struct fastcgi_run *detach_run(struct peer *peer)
{
    struct fastcgi_run *run = peer->run;

    if (run != NULL)
        run->peer = NULL;
    peer->run = NULL;
    if (run == NULL || !run->input_ended || peer->is_deaf || peer->sent < buffer_len(&peer->out))
        peer_disconnect(peer);
    buffer_clear(&peer->out);
    peer->sent = 0;
    if (peer->fd >= 0)
        event_add(peer->reader, NULL); /* the run may have had it paused */
    return run;
}

static void on_end_request(struct peer *peer, const struct record_event *event)
{
    static const struct {
        enum run_cause cause;
        const char *why;
    } meanings[] = {
        [RECORD_REQUEST_COMPLETE] = {RUN_COMPLETE, ""},
        [RECORD_CANT_MPX_CONN] = {RUN_CRASHED, "says that it cannot multiplex, which it was not asked to"},
        [RECORD_OVERLOADED] = {RUN_OVERLOADED, "says that it is overloaded"},
        [RECORD_UNKNOWN_ROLE] = {RUN_CRASHED, "does not know the role of a responder"},
    };
    bool is_known = event->protocol_status < sizeof meanings / sizeof *meanings;

    read_errors(peer); /* before the request that they belong to is over */
    struct fastcgi_run *run = detach_run(peer);

    peer->n_served++;
    if (peer->id != 0)
        counter_step(&peer->pool->options.scoreboard->served[peer->index]);
    if (run == NULL)
        return;
    run->result.exit_code = (int)event->app_status;
    pool_end_run(run, is_known ? meanings[event->protocol_status].cause : RUN_CRASHED,
                 is_known ? meanings[event->protocol_status].why : "ended with a protocol status that there is not");
}

/* It does not speak FastCGI: its connection is dropped, and its request failed. */
static void give_up(struct peer *peer, const char *why)
{
    struct fastcgi_run *run = detach_run(peer);

    peer_disconnect(peer);
    if (run != NULL)
        pool_end_run(run, RUN_CRASHED, why);
}

/* One record's piece. False when the peer is done with its request. */
static bool take_event(struct peer *peer, const struct record_event *event, bool more)
{
    struct fastcgi_run *run = peer->run;

    if (event->kind == RECORD_BAD) {
        give_up(peer, event->why);
        return false;
    }
    if (event->id == 0)
        return true; /* a management record that nobody asked for */
    if (event->id != REQUEST_ID) {
        give_up(peer, "speaks of a request that it was not given");
        return false;
    }
    if (event->kind == RECORD_WHOLE && event->type == RECORD_END_REQUEST) {
        on_end_request(peer, event);
        return false;
    }
    if (event->kind != RECORD_BYTES || run == NULL)
        return true;
    run->has_output = true;
    peer->is_replayable = false;
    if (event->type == RECORD_STDOUT)
        run->run.up->output(run->run.arg, event->bytes, more);
    else if (event->type == RECORD_STDERR)
        run->run.up->errors(run->run.arg, event->bytes);
    return true;
}

/* Takes all that came. Returns false when the request is over, or the peer is to be destroyed. */
static bool take_records(struct peer *peer, struct span input)
{
    struct fastcgi_run *run = peer->run;
    bool is_held = false; /* the gateway was promised more */

    for (;;) {
        struct record_event event = record_read(&peer->records, &input);

        if (event.kind == RECORD_MORE)
            break;
        if (!take_event(peer, &event, input.len > 0)) {
            if (input.len > 0)
                peer_disconnect(peer); /* bytes behind the end of its answer: it cannot be trusted with another */
            return false;
        }
        if (event.kind == RECORD_BYTES && event.type == RECORD_STDOUT)
            is_held = input.len > 0;
        if (peer->is_doomed)
            break;
    }
    if (is_held && peer->run == run && run != NULL)
        run->run.up->output(run->run.arg, SPAN(""), false);
    return true;
}

/* The connection has ended. A request that it had was killed with it, or never read. */
static void on_eof(struct peer *peer)
{
    struct fastcgi_run *run = peer->run;
    bool may_retry = run != NULL && !run->has_output && peer->n_served > 0 && peer->is_replayable;

    read_errors(peer);
    if (run == NULL) {
        pool_on_lost(peer);
        return;
    }
    if (may_retry) {
        peer_reset_for_retry(peer);
        run->run.retries++;
        pool_put_back(run);
        pool_on_lost(peer);
        return;
    }
    peer_reset(peer);
    pool_end_run(run, RUN_CRASHED,
                 run->has_output ? "closed its connection within its answer"
                                 : "closed its connection without an answer");
    pool_on_lost(peer);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;

    (void)what;
    if (peer->state == PEER_CONNECTING) {
        pool_on_lost(peer);
        return;
    }
    ssize_t n = recv(fd, peer->pool->scratch, FASTCGI_SCRATCH, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || peer->state == PEER_IDLE) { /* what comes unasked for ends the connection as well */
        peer->is_deaf = true;
        on_eof(peer);
        return;
    }
    peer->is_reading = true;
    bool goes_on = take_records(peer, (struct span){peer->pool->scratch, (size_t)n});
    peer->is_reading = false;
    if (peer->is_doomed) {
        peer->is_doomed = false;
        pool_on_grace(peer);
        return;
    }
    if (goes_on)
        return;
    event_del(peer->grace);
    change_state(peer, PEER_IDLE);
    pool_on_free(peer);
}

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
    detach_run(peer);
    peer_disconnect(peer);
    event_del(peer->grace);
    change_state(peer, PEER_IDLE);
}

void peer_reset_for_retry(struct peer *peer)
{
    buffer_append_span(&peer->run->replay, buffer_span(&peer->out));
    peer_reset(peer);
}

void peer_drain(struct peer *peer)
{
    if (peer->state == PEER_CONNECTING)
        change_state(peer, PEER_BUSY);
    change_state(peer, PEER_DRAINING);
    peer->run->peer = NULL;
    peer->run = NULL;            /* without it, the connection is not kept for another */
    shutdown(peer->fd, SHUT_WR); /* one that reads its input learns that nobody waits */
    event_del(peer->writer);
    event_add(peer->reader, NULL); /* it may have been paused */
    peer_start_grace(peer, FASTCGI_GRACE_MS);
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

    peer->pool = pool;
    peer->fd = peer->errors_fd = -1;
    memcpy(&peer->address, address, len);
    peer->address_len = len;
    peer->grace = evtimer_new(pool->options.base, on_grace, peer);
    return peer;
}

void peer_destroy(struct peer *peer)
{
    peer_disconnect(peer);
    close_errors(peer);
    event_free(peer->grace);
    buffer_free(&peer->out);
    free(peer);
}
