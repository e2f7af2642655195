/*
 *     CONNECTING --> ASKED --END_REQUEST--> well, or not: by the status
 *          \___________\__ end, nonsense, time is up: not well
 *
 * Of the answer no more is kept than its head.
 */
#include "fastcgi/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "fastcgi/record.h"

enum { REQUEST_ID = 1, MAX_HEAD = 8192, MAX_ANSWER = 1 << 20 };

struct health_query {
    int fd;
    struct event *reader, *writer, *timer;
    struct record_reader records;
    struct buffer question, head;
    size_t n_read;
    health_answered *answered;
    void *arg;
};

/* ---- the answer's head ---- */

static bool is_named(struct span line, struct span name)
{
    return line.len > name.len && strncasecmp(line.at, name.at, name.len) == 0 && line.at[name.len] == ':';
}

/* The three digits behind "Status:"; 0: there are none. */
static unsigned read_status(struct span value)
{
    unsigned status = 0;

    while (value.len > 0 && (value.at[0] == ' ' || value.at[0] == '\t'))
        value = span_from(value, 1);
    for (size_t i = 0; i < 3; i++) {
        if (i >= value.len || value.at[i] < '0' || value.at[i] > '9')
            return 0;
        status = status * 10 + (unsigned)(value.at[i] - '0');
    }
    return status >= 100 ? status : 0;
}

unsigned health_status(const char *head, size_t len)
{
    struct span rest = {head, len};
    unsigned status = 200, n_fields = 0;

    while (rest.len > 0) {
        const char *end = memchr(rest.at, '\n', rest.len);
        struct span line = {rest.at, end != NULL ? (size_t)(end - rest.at) : 0};

        if (end == NULL)
            return 0;
        rest = span_from(rest, line.len + 1);
        if (line.len > 0 && line.at[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0)
            return n_fields > 0 ? status : 0;
        if (memchr(line.at, ':', line.len) == NULL)
            return 0;
        n_fields++;
        if (is_named(line, SPAN("Status")))
            status = read_status(span_from(line, sizeof "Status:" - 1));
        else if (is_named(line, SPAN("Location")) && status == 200)
            status = 302;
        if (status == 0)
            return 0;
    }
    return 0;
}

/* ---- the end ---- */

void health_cancel(struct health_query *query)
{
    if (query == NULL)
        return;
    event_free(query->reader);
    event_free(query->writer);
    event_free(query->timer);
    close(query->fd);
    buffer_free(&query->question);
    buffer_free(&query->head);
    free(query);
}

/* why: NULL: it is well. */
static void finish(struct health_query *query, const char *why)
{
    health_answered *answered = query->answered;
    void *arg = query->arg;

    health_cancel(query);
    answered(arg, why == NULL, why != NULL ? why : "");
}

static void judge(struct health_query *query, const struct record_event *end)
{
    unsigned status = health_status(buffer_at(&query->head), buffer_len(&query->head));
    char why[64];

    if (end->protocol_status != RECORD_REQUEST_COMPLETE) {
        finish(query, end->protocol_status == RECORD_OVERLOADED ? "says that it is overloaded" : "refuses the request");
        return;
    }
    snprintf(why, sizeof why, "answers with status %u", status);
    if (status >= 200 && status < 400)
        finish(query, NULL);
    else
        finish(query, status == 0 ? "answers without a head" : why);
}

/* ---- the connection ---- */

/* True: it is over. */
static bool take(struct health_query *query, struct span input)
{
    for (;;) {
        struct record_event event = record_read(&query->records, &input);

        if (event.kind == RECORD_MORE)
            return false;
        if (event.kind == RECORD_BAD || event.id != REQUEST_ID) {
            finish(query, event.kind == RECORD_BAD ? event.why : "speaks of a request that it was not given");
            return true;
        }
        if (event.kind == RECORD_WHOLE && event.type == RECORD_END_REQUEST) {
            judge(query, &event);
            return true;
        }
        if (event.kind == RECORD_BYTES && event.type == RECORD_STDOUT && buffer_len(&query->head) < MAX_HEAD)
            buffer_append_span(&query->head, event.bytes);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct health_query *query = arg;
    char bytes[8192];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    query->n_read += n > 0 ? (size_t)n : 0;
    if (n < 0)
        finish(query, strerror(errno));
    else if (n == 0)
        finish(query, "closed its connection without an answer");
    else if (query->n_read > MAX_ANSWER)
        finish(query, "answers with more than 1 MiB");
    else
        take(query, (struct span){bytes, (size_t)n});
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct health_query *query = arg;
    ssize_t n = send(fd, buffer_at(&query->question), buffer_len(&query->question), MSG_NOSIGNAL);

    (void)what;
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return; /* the read side tells why */
    if (n > 0)
        buffer_consume(&query->question, (size_t)n);
    if (buffer_len(&query->question) > 0)
        event_add(query->writer, NULL);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    finish(arg, "has not answered in time");
}

/* ---- the question ---- */

static void add(struct params *params, const char *name, struct span value)
{
    (void)params_add(params, span_of(name), value); /* it fits: the longest is a line of the configuration */
}

static void make_question(struct buffer *to, const char *uri)
{
    struct span path = {uri, strcspn(uri, "?")}, query = span_of(uri + path.len + (uri[path.len] == '?'));
    struct params params;

    record_begin(to, REQUEST_ID, RECORD_RESPONDER, false);
    params_begin(&params, to, REQUEST_ID);
    add(&params, "SCRIPT_NAME", path);
    add(&params, "SCRIPT_FILENAME", path);
    add(&params, "DOCUMENT_URI", path);
    add(&params, "REQUEST_URI", span_of(uri));
    add(&params, "QUERY_STRING", query);
    add(&params, "REQUEST_METHOD", SPAN("GET"));
    add(&params, "CONTENT_LENGTH", SPAN(""));
    add(&params, "CONTENT_TYPE", SPAN(""));
    add(&params, "SERVER_PROTOCOL", SPAN("HTTP/1.1"));
    add(&params, "GATEWAY_INTERFACE", SPAN("CGI/1.1"));
    add(&params, "SERVER_SOFTWARE", SPAN("gatehouse/" GATEHOUSE_VERSION));
    add(&params, "HTTP_USER_AGENT", SPAN("gatehouse/" GATEHOUSE_VERSION " (health)"));
    add(&params, "SERVER_NAME", SPAN("localhost"));
    add(&params, "HTTP_HOST", SPAN("localhost"));
    add(&params, "SERVER_ADDR", SPAN("127.0.0.1"));
    add(&params, "SERVER_PORT", SPAN("80"));
    add(&params, "REMOTE_ADDR", SPAN("127.0.0.1"));
    add(&params, "REMOTE_PORT", SPAN("0"));
    add(&params, "REQUEST_SCHEME", SPAN("http"));
    add(&params, "REDIRECT_STATUS", SPAN("200"));
    params_end(&params);
    record_stream_end(to, RECORD_STDIN, REQUEST_ID);
}

struct health_query *health_ask(struct event_base *base, const struct sockaddr *address, socklen_t len,
                                const char *path, uint64_t timeout_ms, health_answered *answered, void *arg)
{
    struct timeval timeout = {(time_t)(timeout_ms / 1000), (suseconds_t)(timeout_ms % 1000 * 1000)};
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return NULL;
    if (connect(fd, address, len) != 0 && errno != EINPROGRESS) {
        int error = errno;

        close(fd);
        errno = error;
        return NULL;
    }
    struct health_query *query = memory_zeroed(1, sizeof *query);
    query->fd = fd;
    query->answered = answered;
    query->arg = arg;
    record_reader_init(&query->records);
    make_question(&query->question, path);
    query->reader = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, query);
    query->writer = event_new(base, fd, EV_WRITE, on_writable, query);
    query->timer = evtimer_new(base, on_timer, query);
    event_add(query->reader, NULL);
    event_add(query->writer, NULL);
    event_add(query->timer, &timeout);
    return query;
}
