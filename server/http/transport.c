/*
 * A connection's means: deadlines, the events that are on, and sending. What is done with them is connection.c's.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "http/inside.h"

enum { FILE_PER_TURN = 1024 * 1024 };

/* ---- deadlines ---- */

/* The timer is only set anew when it would come too late; when it comes too early, it is set for the rest. So a
 * connection that serves one request after another never touches it. */
void connection_set_deadline(struct connection *c, uint64_t when_us)
{
    c->deadline_us = when_us;
    if (when_us == 0 || (c->timer_at_us != 0 && c->timer_at_us <= when_us))
        return;
    uint64_t now = clock_us(), left = when_us > now ? when_us - now : 0;
    struct timeval delay = {(time_t)(left / 1000000), (suseconds_t)(left % 1000000)};

    c->timer_at_us = when_us;
    event_add(&c->timer, &delay);
}

void connection_set_timeout(struct connection *c, uint64_t timeout_us)
{
    connection_set_deadline(c, clock_us() + timeout_us);
}

/* ---- patience ---- */

void connection_reset_patience(struct connection *c)
{
    c->coming = c->going = (struct patience){.left_us = c->http->options.body_timeout_us};
}

/* Takes off the time that was spent waiting. */
static void charge(struct patience *patience, uint64_t now)
{
    uint64_t waited = patience->since_us != 0 ? now - patience->since_us : 0;

    patience->left_us = waited < patience->left_us ? patience->left_us - waited : 0;
    patience->since_us = now;
}

void connection_earn(struct connection *c, struct patience *patience, uint64_t n)
{
    const struct http_options *options = &c->http->options;
    uint64_t full = options->body_timeout_us, earned = full;

    if (patience->since_us == 0 && patience->left_us == full)
        return; /* nearly always */
    if (patience->since_us != 0)
        charge(patience, clock_us());
    if (options->min_rate > 0)
        earned = n * 1000000 / options->min_rate;
    patience->left_us = earned < full - patience->left_us ? patience->left_us + earned : full;
}

/* How many bytes the client has acknowledged. */
static uint64_t count_taken(const struct connection *c)
{
    int queued = 0;
    bool is_known = ioctl(c->fd, SIOCOUTQ, &queued) == 0 && queued >= 0 && (uint64_t)queued <= c->sent;

    return is_known ? c->sent - (uint64_t)queued : c->sent;
}

static bool is_over(const struct patience *patience)
{
    return patience->since_us != 0 && clock_us() >= patience->since_us + patience->left_us;
}

static void earn_taken(struct connection *c)
{
    uint64_t taken = count_taken(c);

    if (taken > c->taken)
        connection_earn(c, &c->going, taken - c->taken);
    c->taken = taken;
}

bool connection_is_out_of_patience(struct connection *c, struct patience *patience)
{
    if (patience == &c->going && is_over(patience))
        earn_taken(c);
    return is_over(patience);
}

static void watch(struct patience *patience, bool is_waiting, uint64_t now)
{
    if (is_waiting && patience->since_us == 0)
        patience->since_us = now;
    if (!is_waiting && patience->since_us != 0) {
        charge(patience, now);
        patience->since_us = 0;
    }
}

void connection_watch_patience(struct connection *c)
{
    bool is_coming = connection_awaits_body(c), is_going = connection_is_sending(c);
    bool was_waiting = c->coming.since_us != 0 || c->going.since_us != 0;
    uint64_t now, deadline = UINT64_MAX;

    if (!is_going && c->going.since_us != 0)
        earn_taken(c);
    if (is_going && c->going.since_us == 0)
        c->taken = count_taken(c);
    now = is_coming || is_going || was_waiting ? clock_us() : 0;
    watch(&c->coming, is_coming, now);
    watch(&c->going, is_going, now);
    if (is_coming)
        deadline = c->coming.since_us + c->coming.left_us;
    if (is_going && c->going.since_us + c->going.left_us < deadline)
        deadline = c->going.since_us + c->going.left_us;
    connection_set_deadline(c, deadline != UINT64_MAX ? deadline : 0);
}

/* Has on_timer() called in the loop's next turn. */
void connection_call_soon(struct connection *c)
{
    c->is.is_called = true;
    event_active(&c->timer, EV_READ, 0); /* not EV_TIMEOUT: setting the timer anew would take that back */
}

/* ---- which events are on ---- */

void connection_read_again(struct connection *c)
{
    if (!c->is.is_watching || c->is.half_closed)
        return;
    c->is.is_watching = false;
    event_del(&c->watcher);
    event_add(&c->reader, NULL);
}

/* Edge-triggered: what is there already and will not be read does not call again and again; an error does call. */
void connection_watch_only(struct connection *c)
{
    if (c->is.is_watching)
        return;
    c->is.is_watching = true;
    event_del(&c->reader);
    if (!c->is.is_writing)
        event_add(&c->watcher, NULL);
}

/* libevent refuses to have an edge-triggered and another event on one descriptor: while writing, the watcher is off.
 * The writer is called for an error as well. */
void connection_want_writing(struct connection *c, bool on)
{
    if (c->is.is_writing == on)
        return;
    c->is.is_writing = on;
    if (on && c->is.is_watching)
        event_del(&c->watcher);
    if (on)
        event_add(&c->writer, NULL);
    else
        event_del(&c->writer);
    if (!on && c->is.is_watching)
        event_add(&c->watcher, NULL);
}

/* ---- sending ---- */

void connection_release_file(struct connection *c)
{
    void (*release)(void *arg) = c->file.release;

    c->file.release = NULL;
    if (release != NULL)
        release(c->file.arg);
}

static void keep_rest(struct connection *c, const struct iovec *parts, int n, size_t sent)
{
    for (int i = 0; i < n; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;

        buffer_append(&c->out, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
        sent -= skip;
    }
}

/* Of the exchange: its head, its body. */
static void note_sent(struct connection *c, uint64_t n)
{
    struct exchange *exchange = c->exchange;

    exchange->bytes_out += n;
    if (exchange->place != NULL)
        atomic_store_explicit(&exchange->place->bytes_out, exchange->bytes_out, memory_order_relaxed);
}

void connection_send(struct connection *c, struct iovec *parts, int n, bool more)
{
    ssize_t sent = 0;

    if (c->is.is_broken)
        return;
    if (!connection_is_full(c)) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)n};

        sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            c->is.is_broken = true;
            return;
        }
        sent = sent > 0 ? sent : 0;
        c->sent += (uint64_t)sent;
        if (c->exchange != NULL)
            note_sent(c, (uint64_t)sent);
    }
    keep_rest(c, parts, n, (size_t)sent);
    if (connection_is_full(c)) {
        connection_want_writing(c, true);
        if (c->exchange != NULL)
            connection_watch_patience(c);
    }
}

/* Sends what waits. False when something is left. */
static bool flush_out(struct connection *c)
{
    while (connection_is_full(c)) {
        ssize_t sent = send(c->fd, buffer_at(&c->out), buffer_len(&c->out), MSG_NOSIGNAL);

        if (sent < 0) {
            c->is.is_broken = errno != EAGAIN && errno != EINTR;
            return false;
        }
        buffer_consume(&c->out, (size_t)sent);
        c->sent += (uint64_t)sent;
        if (c->exchange != NULL)
            note_sent(c, (uint64_t)sent);
    }
    return true;
}

/* The next part of the file. False when the socket is full, the turn's share is sent, or the client is gone. */
static bool flush_file(struct connection *c)
{
    size_t share = FILE_PER_TURN;

    while (c->file.left > 0) {
        off_t offset = (off_t)c->file.offset;
        size_t ask = c->file.left < share ? (size_t)c->file.left : share;
        ssize_t sent = ask > 0 ? sendfile(c->fd, c->file.fd, &offset, ask) : -1;

        if (sent < 0) {
            c->is.is_broken = ask > 0 && errno != EAGAIN && errno != EINTR;
            return false;
        }
        if (sent == 0) { /* the file has become shorter: what was announced cannot be kept */
            c->exchange->is.is_cut = true;
            c->file.left = 0;
            break;
        }
        c->file.offset += (uint64_t)sent;
        c->file.left -= (uint64_t)sent;
        share -= (size_t)sent;
        c->sent += (uint64_t)sent;
        note_sent(c, (uint64_t)sent);
    }
    return true;
}

bool connection_flush(struct connection *c)
{
    if (!flush_out(c))
        return false;
    if (c->file.release == NULL)
        return true;
    if (!flush_file(c))
        return false;
    connection_release_file(c);
    return true;
}

void connection_send_file(struct connection *c, int fd, uint64_t offset, uint64_t length, void (*release)(void *arg),
                          void *arg)
{
    c->file.fd = fd;
    c->file.offset = offset;
    c->file.left = length;
    c->file.release = release;
    c->file.arg = arg;
    if (connection_flush(c) || c->is.is_broken)
        return;
    connection_want_writing(c, true);
    connection_watch_patience(c);
}
