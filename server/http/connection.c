/*
 * A connection: bytes in, exchanges one after another, bytes out.
 *
 *           first byte          complete, refused, too slow             sent, client keeps
 *     IDLE ------------> HEAD ---------------------------------> EXCHANGE ------------------> IDLE
 *      | timeout, EOF     | EOF                                   | sent, not kept; cut
 *      v                  v                                       v
 *    CLOSED <-------------+------------------------------------ LINGER      (-> CLOSED: EOF, or its time is over)
 *
 * Any state -> CLOSED when the client is gone. IDLE -> LINGER when the client has too many connections: it is told so
 * without being asked.
 *
 * In IDLE, a connection holds no buffer. While an exchange is under way at most one head's worth of what comes behind
 * it is read (pipelining); then the socket is only watched for the client's leaving. The head's bytes belong to the
 * exchange, so that they stay where they are.
 *
 * Whatever happens, happens between connection_enter() and connection_leave(); only the outermost leave takes the next
 * steps (step()), so that no step is taken inside another.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "http/inside.h"

enum {
    FIRST_READ = 4096,
    LINGER_US = 5000000,
    RETRY_AFTER = 1, /* seconds */
};

static const struct linger reset = {.l_onoff = 1}; /* SO_LINGER: closing resets the connection */

static void on_reader(evutil_socket_t fd, short what, void *arg);
static void on_watcher(evutil_socket_t fd, short what, void *arg);
static void on_writer(evutil_socket_t fd, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);

/* ---- state ---- */

static void change_state(struct connection *c, enum connection_state next)
{
    static const bool allowed[N_CONN_STATES][N_CONN_STATES] = {
        [CONN_IDLE] = {[CONN_HEAD] = true, [CONN_LINGER] = true, [CONN_CLOSED] = true},
        [CONN_HEAD] = {[CONN_EXCHANGE] = true, [CONN_CLOSED] = true},
        [CONN_EXCHANGE] = {[CONN_IDLE] = true, [CONN_LINGER] = true, [CONN_CLOSED] = true},
        [CONN_LINGER] = {[CONN_CLOSED] = true},
    };

    if (!allowed[c->state][next])
        abort();
    c->state = next;
}

/* ---- closing ---- */

static void drop_exchange(struct connection *c)
{
    if (c->exchange == NULL)
        return;
    connection_release_file(c);
    http_give_exchange(c->http, c->exchange);
    c->exchange = NULL;
}

/* The list that it is in. */
static struct connection_list *list_of(struct connection *c)
{
    return c->is.is_resting ? &c->http->resting : &c->http->others;
}

static void set_resting(struct connection *c, bool on)
{
    if (c->is.is_resting == on)
        return;
    TAILQ_REMOVE(list_of(c), c, next);
    c->is.is_resting = on;
    if (c->state == CONN_LINGER) /* it gives way first */
        TAILQ_INSERT_HEAD(list_of(c), c, next);
    else
        TAILQ_INSERT_TAIL(list_of(c), c, next);
}

static void close_connection(struct connection *c)
{
    if (c->state == CONN_CLOSED)
        return;
    drop_exchange(c);
    change_state(c, CONN_CLOSED);
    event_del(&c->reader);
    event_del(&c->watcher);
    event_del(&c->writer);
    event_del(&c->timer);
    close(c->fd);
    buffer_free(&c->in);
    buffer_free(&c->out);
    TAILQ_REMOVE(list_of(c), c, next);
}

/* The client reads what was sent before it learns that we closed: a plain close with unread input would reset the
 * connection and take the response with it (RFC 9112 section 9.6). */
static void linger(struct connection *c)
{
    change_state(c, CONN_LINGER);
    shutdown(c->fd, SHUT_WR);
    if (c->is.half_closed) {
        close_connection(c);
        return;
    }
    buffer_clear(&c->in);
    connection_want_writing(c, false);
    connection_read_again(c);
    connection_set_timeout(c, LINGER_US);
    set_resting(c, true);
    http_accept_again(c->http);
}

/* Calls the log, once for each exchange. */
static void report(struct connection *c)
{
    struct exchange *exchange = c->exchange;

    exchange->record.status = exchange->status;
    exchange->record.bytes_in = exchange->body_bytes;
    exchange->record.bytes_out = exchange->bytes_out;
    exchange_phase(exchange, PHASE_TOTAL, exchange->started_us);
    counter_add(&c->http->options.counters->requests, 1);
    counter_add(&c->http->options.counters->statuses[exchange->status < 600 ? exchange->status / 100 : 0], 1);
    c->http->options.done(c->http->options.arg, exchange);
}

/* The client is gone: the handler learns it, and there is nobody to answer to. */
static void abort_exchange(struct connection *c)
{
    struct exchange *exchange = c->exchange;

    if (c->state == CONN_EXCHANGE) {
        const struct handler *handler = exchange->is.ended ? NULL : exchange->handler;

        exchange->is.ended = true;
        if (handler != NULL)
            handler->abort(exchange);
        report(c);
    }
    close_connection(c);
}

/* The request is refused after its handler has begun: the handler is sent away, then the client is told. */
void connection_refuse_exchange(struct connection *c, unsigned status)
{
    struct exchange *exchange = c->exchange;

    if (exchange->is.ended)
        return;
    if (exchange->handler != NULL)
        exchange->handler->abort(exchange);
    exchange->handler = NULL;
    c->file.left = 0; /* the descriptor was the handler's */
    connection_release_file(c);
    c->is.keep = false;
    exchange_fail(exchange, status, 0);
}

/* ---- taking steps ---- */

/* Has something come that was not read? A close would reset the connection then. */
static bool has_unread(const struct connection *c)
{
    int n = 0;

    return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

/* Ends the connection in the way that tells the client most. A client that would have kept it may have sent the next
 * request before it learns otherwise. A body that only the close delimits would look whole:
 * its cut is told by a reset. */
static void end_connection(struct connection *c, bool may_have_input, bool must_reset)
{
    if (must_reset) {
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close_connection(c);
        return;
    }
    if (may_have_input || buffer_len(&c->in) > 0 || has_unread(c)) {
        linger(c);
        return;
    }
    close_connection(c);
}

static void finish_exchange(struct connection *c)
{
    struct exchange *exchange = c->exchange;
    bool is_whole = connection_skip_body(c);
    bool is_cut = exchange->is.is_cut;
    bool has_more = !is_whole || exchange->is.body_lost || exchange->head.keep_alive;
    bool must_reset = is_cut && !exchange->is.has_length && !exchange->is.is_chunked;
    bool keep = c->is.keep && is_whole && !is_cut && (!c->http->is_draining || c->http->is_gentle);

    report(c);
    drop_exchange(c);
    if (!keep) {
        end_connection(c, has_more, must_reset);
        return;
    }
    connection_want_writing(c, false);
    change_state(c, CONN_IDLE);
    connection_read_again(c);
    connection_set_timeout(c, c->http->options.keepalive_timeout_us);
    set_resting(c, true);
    http_accept_again(c->http);
}

/* One input buffer is kept for the next that needs one: mostly the very next. */
static void give_buffer(struct connection *c, struct buffer *in)
{
    struct buffer *spare = &c->http->spare_in;

    if (spare->memory != NULL || in->size > SPARE_ROOM)
        buffer_free(in);
    else
        *spare = *in;
    *in = (struct buffer){0};
}

/* In IDLE with nothing to do: gives the buffers back, or closes. */
static void rest(struct connection *c)
{
    if (c->is.half_closed) {
        close_connection(c);
        return;
    }
    give_buffer(c, &c->in);
    buffer_free(&c->out);
}

/* Gives the head's bytes to the exchange; what is behind them stays in c->in. */
static void hand_over_head(struct connection *c, size_t head_len)
{
    struct exchange *exchange = c->exchange;
    struct buffer bytes = exchange->bytes;
    struct span rest_of_input = span_from(buffer_span(&c->in), head_len);

    exchange->bytes = c->in;
    c->in = bytes;
    buffer_clear(&c->in);
    buffer_append_span(&c->in, rest_of_input);
}

/* Of a head that is not whole, or was refused, nothing is known: what was read of it may have moved since. */
static void note_request(struct connection *c, bool is_whole)
{
    struct exchange *exchange = c->exchange;
    struct access_record *record = &exchange->record;

    if (!is_whole) {
        exchange->head.method_text = exchange->head.target = SPAN("");
        exchange->head.n_fields = 0;
    }

    exchange->started_us = clock_us();
    clock_gettime(CLOCK_REALTIME_COARSE, &record->time);
    http_make_id(c->http, exchange->id);
    record->id = (struct span){exchange->id, EXCHANGE_ID_LEN};
    record->method = exchange->head.method_text;
    record->target = exchange->head.target;
    record->protocol = exchange->head.minor == 0 ? SPAN("HTTP/1.0") : SPAN("HTTP/1.1");
    record->exit_code = -1;
    record->cpu_us = record->max_rss_kib = PHASE_NONE;
    for (int i = 0; i < N_PHASES; i++)
        record->phase_us[i] = PHASE_NONE;
}

static void refuse_head(struct connection *c, unsigned status, const char *why)
{
    struct exchange_address remote;

    exchange_remote(c->exchange, &remote);
    c->http->options.refused(c->http->options.arg, remote.text, status, why);
    c->is.keep = false;
    c->exchange->is.body_done = c->exchange->is.body_lost = true;
    exchange_fail(c->exchange, status, 0);
}

static void begin_body(struct connection *c)
{
    struct exchange *exchange = c->exchange;
    const struct head *head = &exchange->head;

    exchange->has_body = head->is_chunked || head->length > 0;
    exchange->is.body_done = !exchange->has_body;
    c->body_left = head->length;
    chunked_init(&c->chunked, &c->http->options.chunked);
}

static int read_uri(struct exchange *exchange, const char **why)
{
    char *room = buffer_reserve(&exchange->path, exchange->head.path_and_query.len + 2);

    return uri_read(&exchange->uri, exchange->head.path_and_query, room, why);
}

static void begin_exchange(struct connection *c)
{
    struct exchange *exchange = c->exchange;
    const char *why = exchange->head.why;

    change_state(c, CONN_EXCHANGE);
    c->is.is_fresh = false;
    note_request(c, exchange->head.status == 0);
    c->is.keep = exchange->head.keep_alive && ++c->n_requests < c->http->options.keepalive_requests;
    connection_set_deadline(c, 0);
    connection_reset_patience(c);
    if (exchange->head.status != 0) {
        refuse_head(c, exchange->head.status, why);
        return;
    }
    begin_body(c);
    if (exchange->head.form != TARGET_ASTERISK && read_uri(exchange, &why) != 0)
        refuse_head(c, 400, why);
    else if (exchange->head.length > c->http->options.max_body)
        refuse_head(c, 413, "a body longer than max_body");
    else
        c->http->options.request(c->http->options.arg, exchange);
}

/* Reads a head from what is here. False when there is more to come. */
static bool take_head(struct connection *c)
{
    struct http *http = c->http;
    bool is_first = c->state == CONN_IDLE;

    if (is_first) {
        change_state(c, CONN_HEAD);
        set_resting(c, false);
        c->exchange = http_take_exchange(http);
        c->exchange->connection = c;
    }
    enum head_result result = head_read(&c->exchange->head, &http->options.head, buffer_at(&c->in), buffer_len(&c->in));
    if (result == HEAD_MORE) {
        if (is_first && !c->is.is_fresh) /* of a fresh one, the time runs from its beginning */
            connection_set_timeout(c, http->options.header_timeout_us);
        return false;
    }
    if (result == HEAD_DONE)
        hand_over_head(c, c->exchange->head.len);
    begin_exchange(c);
    return true;
}

/* One step, if there is one to take. */
static bool step(struct connection *c)
{
    struct exchange *exchange = c->exchange;

    if (c->state == CONN_CLOSED || c->state == CONN_LINGER)
        return false;
    if (c->is.is_broken) {
        abort_exchange(c);
        return false;
    }
    if (c->state != CONN_EXCHANGE)
        return buffer_len(&c->in) > 0 && take_head(c);
    if (exchange->is.ended) {
        if (connection_is_sending(c))
            return false;
        finish_exchange(c);
        return true;
    }
    if (exchange->is.wants_body && !exchange->is.body_done && buffer_len(&c->in) > 0) {
        connection_take_buffered_body(c);
        return true;
    }
    return false;
}

static void wait_in_exchange(struct connection *c)
{
    const struct http_options *options = &c->http->options;

    if (c->exchange->place == NULL && options->lasts != NULL)
        options->lasts(options->arg, c->exchange);
    if (connection_awaits_body(c) && c->is.half_closed) {
        abort_exchange(c);
        return;
    }
    if (connection_awaits_body(c))
        connection_read_again(c);
    connection_watch_patience(c);
}

/* What to wait for, now that no step can be taken. */
static void wait_for_more(struct connection *c)
{
    switch (c->state) {
    case CONN_IDLE:
        rest(c);
        break;
    case CONN_HEAD:
        if (c->is.half_closed)
            close_connection(c); /* half a request */
        break;
    case CONN_EXCHANGE:
        wait_in_exchange(c);
        break;
    default:
        break;
    }
}

void connection_enter(struct connection *c)
{
    c->depth++;
}

void connection_leave(struct connection *c)
{
    if (c->depth == 1) {
        while (step(c))
            continue;
        wait_for_more(c);
    }
    if (--c->depth > 0 || c->state != CONN_CLOSED)
        return;
    struct http *http = c->http;
    struct peer_address remote = c->remote;
    bool is_counted = c->is.is_counted;
    free(c);
    http_connection_gone(http, &remote, is_counted);
}

void connection_leave_later(struct connection *c)
{
    if (c->depth == 1)
        connection_call_soon(c);
    c->depth--;
}

/* ---- events ---- */

static void read_head(struct connection *c)
{
    size_t most = c->http->options.head.max_head;
    size_t have = buffer_len(&c->in), room = have < FIRST_READ / 2 ? FIRST_READ : have;

    if (have >= most)
        room = 1; /* head_read() refuses it before it comes to this */
    if (c->in.memory == NULL) {
        c->in = c->http->spare_in;
        c->http->spare_in = (struct buffer){0};
    }
    ssize_t n = read(c->fd, buffer_reserve(&c->in, room), room);
    if (n > 0)
        buffer_added(&c->in, (size_t)n);
    else if (n == 0)
        c->is.half_closed = true;
    else
        c->is.is_broken = errno != EAGAIN && errno != EINTR;
    if (n == 0)
        connection_watch_only(c);
}

/* Into the front's scratch memory: the handler takes all of it or a copy of it at once. */
static void read_body(struct connection *c)
{
    ssize_t n = read(c->fd, c->http->scratch, SCRATCH);
    struct span input = {c->http->scratch, n > 0 ? (size_t)n : 0};

    if (n == 0)
        c->is.half_closed = true;
    if (n < 0)
        c->is.is_broken = errno != EAGAIN && errno != EINTR;
    if (n == 0 && c->exchange->is.ended)
        connection_watch_only(c); /* it needs no more of the body, and may still read the answer */
    else if (n == 0)
        c->is.is_broken = true; /* half a body: not a request (RFC 9112 section 6.3) */
    if (n <= 0)
        return;
    connection_earn(c, &c->coming, (size_t)n);
    connection_take_body(c, &input);
    buffer_append_span(&c->in, input);
}

/* Something comes while the request is complete: the next one, or the client's end. */
static void read_ahead(struct connection *c)
{
    if (buffer_len(&c->in) >= c->http->options.head.max_head) {
        connection_watch_only(c);
        return;
    }
    read_head(c);
}

static void discard(struct connection *c)
{
    ssize_t n = read(c->fd, c->http->scratch, SCRATCH);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_connection(c);
}

static void on_reader(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;

    (void)fd, (void)what;
    connection_enter(c);
    if (c->state == CONN_LINGER)
        discard(c);
    else if (c->state != CONN_EXCHANGE)
        read_head(c);
    else if (c->exchange->is.body_done)
        read_ahead(c);
    else if (!c->exchange->is.wants_body)
        connection_watch_only(c);     /* the handler has enough for now */
    else if (buffer_len(&c->in) == 0) /* else what is here comes first: the next step */
        read_body(c);
    connection_leave(c);
}

static void on_watcher(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    int error = 0;
    socklen_t len = sizeof error;

    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0)
        return;
    connection_enter(c);
    c->is.is_broken = true;
    connection_leave(c);
}

static void on_writer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;

    (void)fd, (void)what;
    connection_enter(c);
    if (connection_flush(c)) {
        struct exchange *exchange = c->exchange;

        connection_want_writing(c, false);
        if (exchange != NULL && !exchange->is.ended && exchange->handler != NULL)
            exchange->handler->resume(exchange);
    }
    connection_leave(c);
}

/* What was sent and not read is not kept for the client any longer, in the kernel's memory either. */
static void drop_unread(struct connection *c)
{
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    c->is.is_broken = true;
}

/* A deadline has passed: which one follows from the state. */
static void expire(struct connection *c)
{
    switch (c->state) {
    case CONN_HEAD:
        change_state(c, CONN_EXCHANGE);
        connection_reset_patience(c);
        note_request(c, false);
        refuse_head(c, 408, "the head took longer than header_timeout");
        break;
    case CONN_EXCHANGE:
        if (connection_is_out_of_patience(c, &c->going))
            drop_unread(c); /* it does not read, or too slowly */
        else if (connection_is_out_of_patience(c, &c->coming))
            connection_refuse_exchange(c, 408);
        break;
    default:
        close_connection(c);
        break;
    }
}

/* Comes for the deadline; too early for it, when that was put off meanwhile; or because it was called. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *c = arg;
    uint64_t deadline = c->deadline_us;
    bool is_over = deadline != 0 && clock_us() >= deadline;

    (void)fd, (void)what;
    c->timer_at_us = 0; /* it was taken off, too, if it was called */
    if (!is_over)
        connection_set_deadline(c, deadline);
    if (!is_over && !c->is.is_called)
        return;
    c->is.is_called = false;
    connection_enter(c);
    if (is_over) {
        c->deadline_us = 0;
        expire(c);
    }
    connection_leave(c);
}

/* ---- for http.c and exchange.c ---- */

void connection_want_body(struct connection *c)
{
    if (c->depth > 0)
        return;
    if (buffer_len(&c->in) > 0 || c->is.half_closed)
        connection_call_soon(c);
    else
        connection_read_again(c);
    connection_watch_patience(c);
}

static struct connection *create(struct http *http, int fd, const struct peer_address *remote)
{
    struct connection *c = memory_zeroed(1, sizeof *c);

    c->http = http;
    c->fd = fd;
    c->remote = *remote;
    c->is.is_fresh = true;
    event_assign(&c->reader, http->options.base, fd, EV_READ | EV_PERSIST, on_reader, c);
    event_assign(&c->watcher, http->options.base, fd, EV_READ | EV_ET | EV_PERSIST, on_watcher, c);
    event_assign(&c->writer, http->options.base, fd, EV_WRITE | EV_PERSIST, on_writer, c);
    event_assign(&c->timer, http->options.base, -1, 0, on_timer, c);
    event_add(&c->reader, NULL);
    TAILQ_INSERT_TAIL(&http->others, c, next);
    return c;
}

void connection_accept(struct http *http, int fd, const struct peer_address *remote)
{
    struct connection *c = create(http, fd, remote);

    c->is.is_counted = true;
    connection_set_timeout(c, http->options.header_timeout_us);
}

/* RFC 6585 section 4. It is sent as far as it goes at once, which is to its end: nothing else was sent before. */
void connection_turn_away(struct http *http, int fd, const struct peer_address *remote)
{
    struct connection *c = create(http, fd, remote);
    char text[256];
    int len = snprintf(text, sizeof text,
                       "HTTP/1.1 429 %s\r\nDate: %s\r\nServer: gatehouse\r\nRetry-After: %d\r\n"
                       "Content-Length: 0\r\nConnection: close\r\n\r\n",
                       http_reason(429), http_date(http), RETRY_AFTER);

    connection_enter(c);
    if (send(fd, text, (size_t)len, MSG_NOSIGNAL) == len)
        linger(c);
    else
        close_connection(c);
    connection_leave(c);
}

void connection_drain(struct connection *c)
{
    connection_enter(c);
    if (c->state == CONN_IDLE)
        close_connection(c);
    connection_leave(c);
}

void connection_give_way(struct connection *c)
{
    connection_enter(c);
    close_connection(c);
    connection_leave(c);
}

void connection_cut(struct connection *c)
{
    connection_enter(c);
    if (c->state != CONN_CLOSED)
        abort_exchange(c);
    connection_leave(c);
}
