/*
 * The response's side of an exchange: its head, its framing.
 *
 *     HTTP/1.1 200 OK CRLF Date: ... CRLF Server: gatehouse CRLF X-Request-Id: ... CRLF   exchange_begin()
 *     Content-Type: text/plain CRLF                                                        exchange_field()
 *     Content-Length: 13 CRLF Connection: close CRLF CRLF                                  close_head()
 *
 * Of a response whose length nobody told, the first HELD bytes are held back as long as more is said to follow at once:
 * if the end follows too, the length is known after all.
 */
#include "http/exchange.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/inside.h"

enum {
    HELD = 16 * 1024,
};

void exchange_handle(struct exchange *exchange, const struct handler *handler, void *data)
{
    exchange->handler = handler;
    exchange->data = data;
    exchange->is.wants_body = false; /* it has not asked yet */
}

uint64_t exchange_phase(struct exchange *exchange, enum phase phase, uint64_t since)
{
    uint64_t now = clock_us();

    exchange->record.phase_us[phase] = now - since;
    return now;
}

/* ---- the head ---- */

static void append(struct exchange *exchange, struct span s)
{
    buffer_append_span(&exchange->head_out, s);
}

static void append_number(struct exchange *exchange, uint64_t n)
{
    char digits[20];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    append(exchange, (struct span){digits + at, sizeof digits - at});
}

void exchange_begin(struct exchange *exchange, unsigned status, struct span reason)
{
    buffer_clear(&exchange->head_out);
    buffer_clear(&exchange->held);
    exchange->is.begun = true;
    exchange->is.has_length = false;
    exchange->status = status;
    exchange->is.no_body = exchange->head.method == METHOD_HEAD || status == 204 || status == 304;
    append(exchange, SPAN("HTTP/1.1 "));
    append_number(exchange, status);
    append(exchange, SPAN(" "));
    append(exchange, reason.len > 0 ? reason : span_of(http_reason(status)));
    append(exchange, SPAN("\r\nDate: "));
    append(exchange, (struct span){http_date(exchange->connection->http), DATE_LEN});
    append(exchange, SPAN("\r\nServer: gatehouse\r\nX-Request-Id: "));
    append(exchange, (struct span){exchange->id, EXCHANGE_ID_LEN});
    append(exchange, SPAN("\r\n"));
}

void exchange_begin_raw(struct exchange *exchange, unsigned status)
{
    buffer_clear(&exchange->head_out);
    buffer_clear(&exchange->held);
    exchange->is.begun = exchange->is.head_sent = true;
    exchange->is.has_length = exchange->is.no_body = false;
    exchange->status = status;
    exchange->connection->is.keep = false;
}

static char *put(char *at, struct span s)
{
    if (s.len > 0)
        memcpy(at, s.at, s.len);
    return at + s.len;
}

void exchange_field(struct exchange *exchange, struct span name, struct span value)
{
    size_t len = name.len + value.len + 4;
    char *at = buffer_reserve(&exchange->head_out, len);

    at = put(put(put(at, name), SPAN(": ")), value);
    put(at, SPAN("\r\n"));
    buffer_added(&exchange->head_out, len);
}

void exchange_fieldf(struct exchange *exchange, struct span name, const char *format, ...)
{
    char value[512];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(value, sizeof value, format, args);
    va_end(args);
    exchange_field(exchange, name, (struct span){value, (size_t)len < sizeof value ? (size_t)len : sizeof value - 1});
}

void exchange_length(struct exchange *exchange, uint64_t length)
{
    exchange->is.has_length = true;
    exchange->length = length;
}

static void append_timing(struct exchange *exchange)
{
    static const enum phase known[] = {PHASE_QUEUE, PHASE_START, PHASE_FIRST};
    const char *separator = "Server-Timing: ";

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint64_t us = exchange->record.phase_us[known[i]];

        if (us == PHASE_NONE)
            continue;
        buffer_printf(&exchange->head_out, "%s%s;dur=%u.%03u", separator, phase_names[known[i]], (unsigned)(us / 1000),
                      (unsigned)(us % 1000));
        separator = ", ";
    }
    if (separator[0] == ',')
        append(exchange, SPAN("\r\n"));
}

/* RFC 9112 section 6.1 and 6.2, RFC 9110 section 8.6: which framing field the response has. */
static void append_framing(struct exchange *exchange)
{
    struct connection *c = exchange->connection;

    if (exchange->status == 204)
        return;
    if (exchange->is.has_length) {
        append(exchange, SPAN("Content-Length: "));
        append_number(exchange, exchange->length);
        append(exchange, SPAN("\r\n"));
    } else if (exchange->status == 304) {
        return;
    } else if (exchange->head.minor > 0) {
        exchange->is.is_chunked = !exchange->is.no_body;
        append(exchange, SPAN("Transfer-Encoding: chunked\r\n"));
    } else {
        c->is.keep = false;
    }
}

/* A body that the handler has never asked for, or never will again, is in the way of the next request. */
static bool is_unwanted_body(const struct exchange *exchange)
{
    return !exchange->is.asked_for_body || exchange->is.ended;
}

/* The last fields and the empty line. After this, the head is on its way. */
static void close_head(struct exchange *exchange)
{
    struct connection *c = exchange->connection;

    append_framing(exchange);
    if (c->http->is_draining || (is_unwanted_body(exchange) && !connection_skip_body(c)))
        c->is.keep = false;
    if (!c->is.keep)
        append(exchange, SPAN("Connection: close\r\n"));
    else if (exchange->head.minor == 0)
        append(exchange, SPAN("Connection: keep-alive\r\n"));
    if (c->http->options.server_timing)
        append_timing(exchange);
    append(exchange, SPAN("\r\n"));
    exchange->is.head_sent = true;
}

/* ---- the body ---- */

static struct iovec part(struct span s)
{
    return (struct iovec){(void *)(uintptr_t)s.at, s.len};
}

/* Sends the head if it is still to be sent, what was held, and these bytes, as one chunk or plainly. */
static void send_parts(struct exchange *exchange, struct span bytes, bool last)
{
    struct iovec parts[6];
    char size[16];
    int n = 0;

    if (!exchange->is.head_sent) {
        close_head(exchange);
        parts[n++] = part(buffer_span(&exchange->head_out));
    }
    size_t len = buffer_len(&exchange->held) + bytes.len;
    if (exchange->is.no_body)
        len = 0;
    if (len > 0 && exchange->is.is_chunked)
        parts[n++] = (struct iovec){size, (size_t)snprintf(size, sizeof size, "%zx\r\n", len)};
    if (len > 0 && buffer_len(&exchange->held) > 0)
        parts[n++] = part(buffer_span(&exchange->held));
    if (len > 0 && bytes.len > 0)
        parts[n++] = part(bytes);
    if (len > 0 && exchange->is.is_chunked)
        parts[n++] = part(SPAN("\r\n"));
    if (last && exchange->is.is_chunked)
        parts[n++] = part(SPAN("0\r\n\r\n"));
    if (n > 0)
        connection_send(exchange->connection, parts, n, false);
    buffer_clear(&exchange->held);
}

/* No more than was announced: what a program writes beyond would be taken for the next response. */
static struct span within_length(struct exchange *exchange, struct span bytes)
{
    uint64_t left = exchange->length - exchange->written;

    if (exchange->is.has_length && !exchange->is.no_body && bytes.len > left)
        bytes.len = (size_t)left;
    return bytes;
}

/* Leaves a function that is not the handler's last word. Returns true for "full". */
static bool leave_writing(struct connection *c)
{
    bool is_full = connection_is_sending(c);

    if (c->is.is_broken)
        connection_leave_later(c);
    else
        c->depth--;
    return is_full;
}

bool exchange_write(struct exchange *exchange, struct span bytes, bool more)
{
    struct connection *c = exchange->connection;

    if (exchange->is.is_cut)
        return false;
    connection_enter(c);
    bytes = within_length(exchange, bytes);
    exchange->written += bytes.len;
    if (more && !exchange->is.head_sent && !exchange->is.has_length && buffer_len(&exchange->held) + bytes.len <= HELD)
        buffer_append_span(&exchange->held, bytes);
    else
        send_parts(exchange, bytes, false);
    return leave_writing(c);
}

void exchange_end(struct exchange *exchange)
{
    struct connection *c = exchange->connection;

    connection_enter(c);
    if (!exchange->is.head_sent && !exchange->is.has_length && exchange->status != 304)
        exchange_length(exchange, exchange->written);
    if (exchange->is.has_length && !exchange->is.no_body && exchange->written < exchange->length)
        exchange->is.is_cut = true;
    exchange->is.ended = true;
    send_parts(exchange, (struct span){"", 0}, !exchange->is.is_cut);
    connection_leave(c);
}

void exchange_allow(struct exchange *exchange, unsigned status, struct span methods)
{
    if (status >= 400) {
        exchange_fail_with(exchange, status, SPAN("Allow"), methods);
        return;
    }
    exchange_begin(exchange, status, SPAN(""));
    exchange_field(exchange, SPAN("Allow"), methods);
    exchange_end(exchange);
}

static void send_small_file(struct exchange *exchange, int fd, uint64_t offset, uint64_t length)
{
    char *bytes = exchange->connection->http->small_file;
    ssize_t n = length > 0 ? pread(fd, bytes, (size_t)length, (off_t)offset) : 0;

    exchange->is.is_cut = n < 0 || (uint64_t)n < length;
    send_parts(exchange, (struct span){bytes, n > 0 ? (size_t)n : 0}, true);
}

void exchange_file(struct exchange *exchange, int fd, uint64_t offset, uint64_t length, void (*release)(void *arg),
                   void *arg)
{
    struct connection *c = exchange->connection;

    connection_enter(c);
    exchange_length(exchange, length);
    exchange->written = length;
    exchange->is.ended = true;
    if (exchange->is.no_body || length <= FILE_COPIED) {
        send_small_file(exchange, fd, offset, exchange->is.no_body ? 0 : length);
        release(arg);
    } else {
        struct iovec head;

        close_head(exchange);
        head = part(buffer_span(&exchange->head_out));
        connection_send(c, &head, 1, true);
        connection_send_file(c, fd, offset, length, release, arg);
    }
    connection_leave(c);
}

static void keep_open(void *arg)
{
    (void)arg;
}

bool exchange_write_file(struct exchange *exchange, int fd, uint64_t offset, uint64_t length)
{
    struct connection *c = exchange->connection;

    if (exchange->is.is_cut || length == 0)
        return false;
    connection_enter(c);
    exchange->written += length;
    send_parts(exchange, SPAN(""), false);
    connection_send_file(c, fd, offset, length, keep_open, NULL);
    return leave_writing(c);
}

void exchange_interim(struct exchange *exchange, unsigned status, struct span fields)
{
    struct connection *c = exchange->connection;
    char line[64];

    if (exchange->is.head_sent || exchange->head.minor == 0)
        return;
    int len = snprintf(line, sizeof line, "HTTP/1.1 %u %s\r\n", status, http_reason(status));
    struct iovec parts[] = {{line, (size_t)len}, part(fields), part(SPAN("\r\n"))};
    connection_enter(c);
    connection_send(c, parts, 3, false);
    connection_leave_later(c);
}

void exchange_fail(struct exchange *exchange, unsigned status, unsigned retry_after)
{
    char seconds[12];

    snprintf(seconds, sizeof seconds, "%u", retry_after);
    exchange_fail_with(exchange, status, retry_after > 0 ? SPAN("Retry-After") : SPAN(""), span_of(seconds));
}

void exchange_fail_with(struct exchange *exchange, unsigned status, struct span name, struct span value)
{
    struct connection *c = exchange->connection;
    const struct http_options *options = &c->http->options;

    connection_enter(c);
    if (exchange->is.head_sent) {
        exchange->is.is_cut = true;
        exchange->is.ended = true;
        connection_leave(c);
        return;
    }
    exchange_begin(exchange, status, (struct span){"", 0});
    exchange_field(exchange, SPAN("Content-Type"),
                   options->error_page(options->arg, exchange, &exchange->held, status));
    if (name.len > 0)
        exchange_field(exchange, name, value);
    exchange->written = buffer_len(&exchange->held);
    exchange_end(exchange);
    connection_leave(c);
}

void exchange_want_body(struct exchange *exchange)
{
    struct connection *c = exchange->connection;

    if (exchange->is.body_done || !exchange->has_body)
        return;
    exchange->is.wants_body = true;
    if (exchange->head.expect_continue && !exchange->is.asked_for_body && exchange->body_bytes == 0 &&
        buffer_len(&c->in) == 0)
        exchange_interim(exchange, 100, (struct span){"", 0});
    exchange->is.asked_for_body = true;
    connection_want_body(c);
}

int exchange_retarget(struct exchange *exchange, struct span path_and_query, const char **why_out)
{
    struct buffer bytes = {
        0}; /* the path decoded, and behind it path and query as given, which the query points into */
    size_t room = path_and_query.len + 2;

    buffer_reserve(&bytes, room + path_and_query.len);
    buffer_added(&bytes, room);
    buffer_append_span(&bytes, path_and_query);
    struct span given = {buffer_at(&bytes) + room, path_and_query.len};
    buffer_free(&exchange->path);
    exchange->path = bytes;
    if (uri_read(&exchange->uri, given, buffer_at(&bytes), why_out) != 0)
        return -1;
    if (exchange->head.method != METHOD_HEAD) {
        exchange->head.method = METHOD_GET;
        exchange->head.method_text = SPAN("GET");
    }
    /* What is left of the request's body is still to be told from the next request, but nobody wants it now. */
    exchange->head.has_length = exchange->has_body = false;
    exchange->is.wants_body = exchange->is.asked_for_body = false;
    return 0;
}

/* ---- addresses ---- */

void http_write_address(const struct peer_address *address, struct exchange_address *out)
{
    char *text = out->text, *port = out->port;

    text[0] = '\0';
    memcpy(port, "0", 2);
    snprintf(out->host, sizeof out->host, "localhost");
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, text, INET6_ADDRSTRLEN);
        snprintf(port, 6, "%u", (unsigned)ntohs(address->in.sin_port));
    } else if (address->any.sa_family == AF_INET6) {
        const struct in6_addr *in6 = &address->in6.sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(in6)) /* a client of IPv4 on a socket for both */
            inet_ntop(AF_INET, &in6->s6_addr[12], text, INET6_ADDRSTRLEN);
        else
            inet_ntop(AF_INET6, in6, text, INET6_ADDRSTRLEN);
        snprintf(port, 6, "%u", (unsigned)ntohs(address->in6.sin6_port));
    }
    if (text[0] != '\0')
        snprintf(out->host, sizeof out->host, strchr(text, ':') != NULL ? "[%s]" : "%s", text);
}

const struct peer_address *exchange_peer(const struct exchange *exchange)
{
    return &exchange->connection->remote;
}

void exchange_remote(const struct exchange *exchange, struct exchange_address *out)
{
    http_write_address(&exchange->connection->remote, out);
}

void exchange_local(const struct exchange *exchange, struct exchange_address *out)
{
    struct sockaddr_storage bound = {0};
    struct peer_address local;
    socklen_t len = sizeof bound;

    getsockname(exchange->connection->fd, (struct sockaddr *)&bound, &len);
    memcpy(&local, &bound, sizeof local);
    http_write_address(&local, out);
}
