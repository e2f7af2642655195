/*
 *     CONNECTING --> ASKING --answer, end, nonsense, time is up--> answered, gone
 *
 * Anything but a GET_VALUES_RESULT is no answer.
 */
#include "fastcgi/values.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "fastcgi/record.h"

enum { MOST = 1000000 };

struct values_query {
    int fd;
    struct event *reader, *writer;
    struct record_reader records;
    values_answered *answered;
    void *arg;
};

static bool read_number(struct span text, unsigned *number)
{
    unsigned n = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        n = n * 10 + (unsigned)(text.at[i] - '0');
        if (n > MOST)
            return false;
    }
    *number = n;
    return text.len > 0;
}

bool values_read(struct span content, struct values *out)
{
    struct span name, value;
    unsigned number;
    int result;

    *out = (struct values){0};
    while ((result = record_pair(&content, &name, &value)) > 0) {
        if (!read_number(value, &number))
            continue;
        if (span_is(name, SPAN("FCGI_MAX_CONNS")))
            out->max_conns = number;
        else if (span_is(name, SPAN("FCGI_MAX_REQS")))
            out->max_reqs = number;
        else if (span_is(name, SPAN("FCGI_MPXS_CONNS")))
            out->multiplexes = number == 1;
    }
    return result == 0;
}

void values_cancel(struct values_query *query)
{
    if (query == NULL)
        return;
    event_free(query->reader);
    event_free(query->writer);
    close(query->fd);
    free(query);
}

static void finish(struct values_query *query, const struct values *values)
{
    values_answered *answered = query->answered;
    void *arg = query->arg;

    values_cancel(query);
    answered(arg, values);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct values_query *query = arg;
    char bytes[2048];
    struct values values;
    ssize_t n = (what & EV_TIMEOUT) != 0 ? 0 : recv(fd, bytes, sizeof bytes, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct span input = {bytes, n > 0 ? (size_t)n : 0};
    struct record_event event = record_read(&query->records, &input);
    if (event.kind == RECORD_MORE && n > 0)
        return;
    if (event.kind == RECORD_WHOLE && event.type == RECORD_GET_VALUES_RESULT && values_read(event.bytes, &values))
        finish(query, &values);
    else
        finish(query, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct values_query *query = arg;
    struct buffer question = {0};

    (void)what;
    record_get_values(&question);
    /* A new connection takes so few bytes whole; if not, there is no answer. */
    ssize_t n = send(fd, buffer_at(&question), buffer_len(&question), MSG_NOSIGNAL);
    buffer_free(&question);
    if (n < 0)
        finish(query, NULL);
}

struct values_query *values_ask(struct event_base *base, const struct sockaddr *address, socklen_t len,
                                values_answered *answered, void *arg)
{
    static const struct timeval timeout = {VALUES_TIMEOUT_MS / 1000, VALUES_TIMEOUT_MS % 1000 * 1000};
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return NULL;
    if (connect(fd, address, len) != 0 && errno != EINPROGRESS) {
        close(fd);
        return NULL;
    }
    struct values_query *query = memory_zeroed(1, sizeof *query);
    query->fd = fd;
    query->answered = answered;
    query->arg = arg;
    record_reader_init(&query->records);
    query->reader = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, query);
    query->writer = event_new(base, fd, EV_WRITE, on_writable, query);
    event_add(query->reader, &timeout);
    event_add(query->writer, NULL);
    return query;
}
