/*
 * The connection is made by a blocking connect() with a time limit on the socket, which holds for a full queue of a
 * UNIX socket too; then it blocks no more, and poll() does all the waiting.
 *
 * What is received is described, if that is wanted, record by record, before it is handed out: the lines and what the
 * program writes to its standard error come in the order of the records.
 */
#include "tools/fcgi_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "log.h"

enum { SCRATCH = 65536 };

/* ---- the standard error ---- */

int fcgi_client_write(int fd, struct span bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.at, bytes.len);

        if (n < 0 && errno == EAGAIN) { /* somebody has made it so, for all who share it */
            struct pollfd ready = {.fd = fd, .events = POLLOUT};

            poll(&ready, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        }
        bytes = span_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static void begin_line(struct fcgi_client *client)
{
    if (client->is_within_line)
        fcgi_client_write(STDERR_FILENO, SPAN("\n"));
    client->is_within_line = false;
}

void fcgi_client_errors(struct fcgi_client *client, struct span bytes)
{
    if (bytes.len == 0)
        return;
    fcgi_client_write(STDERR_FILENO, bytes);
    client->is_within_line = bytes.at[bytes.len - 1] != '\n';
}

void fcgi_client_say(struct fcgi_client *client, const char *format, ...)
{
    struct buffer line = {0};
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    begin_line(client);
    buffer_printf(&line, "gatehouse: %s: %s\n", client->name, text);
    fcgi_client_write(STDERR_FILENO, buffer_span(&line));
    buffer_free(&line);
}

/* ---- records in words ---- */

static void write_line(struct fcgi_client *client)
{
    buffer_append(&client->line, "\n", 1);
    begin_line(client);
    fcgi_client_write(STDERR_FILENO, buffer_span(&client->line));
    buffer_clear(&client->line);
}

static void tell(struct fcgi_client *client, struct describer *describer, const char *way, struct span bytes)
{
    if (!client->is_verbose)
        return;
    buffer_append_span(&client->line, span_of(way));
    while (describer_next(describer, &bytes, &client->line)) {
        write_line(client);
        buffer_append_span(&client->line, span_of(way));
    }
    buffer_clear(&client->line);
}

static void tell_rest(struct fcgi_client *client, struct describer *describer, const char *way)
{
    if (!client->is_verbose)
        return;
    buffer_append_span(&client->line, span_of(way));
    if (describer_end(describer, &client->line))
        write_line(client);
    buffer_clear(&client->line);
}

/* ---- the connection ---- */

static void restart_wait(struct fcgi_client *client)
{
    uint64_t until = clock_us() + client->timeout_ms * 1000;

    client->wait_until_us = until < client->deadline_us ? until : client->deadline_us;
}

/* Milliseconds, at least 1 unless the time is up. */
static int time_left(const struct fcgi_client *client)
{
    uint64_t now = clock_us();

    return now >= client->wait_until_us ? 0 : (int)((client->wait_until_us - now) / 1000 + 1);
}

static void tell_no_connection(struct fcgi_client *client, int error)
{
    const char *hint = "";

    if (error == ENOENT)
        hint = ": is the application running, and is this its socket?";
    else if (error == ECONNREFUSED)
        hint = ": nothing listens there";
    else if (error == EACCES)
        hint = ": the socket is not for this user (its owner and mode: ls -l)";
    else if (error == EPROTOTYPE)
        hint = ": the socket is no stream socket";
    if (error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT)
        fcgi_client_say(client, "no connection: the time is up; its queue may be full, or packets are dropped");
    else
        fcgi_client_say(client, "no connection: %s%s", strerror(error), hint);
}

static int connect_within(struct fcgi_client *client, const struct config_address *address)
{
    int left = time_left(client);
    struct timeval limit = {left / 1000, left % 1000 * 1000};
    uint64_t began_us = clock_us();

    client->fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return -errno;
    setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(client->fd, (const struct sockaddr *)&address->address, address->len) != 0)
        return -errno;
    client->connect_us = clock_us() - began_us;
    return fcntl(client->fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
}

int fcgi_client_open(struct fcgi_client *client, const struct config_address *address, uint64_t timeout_ms,
                     uint64_t max_ms, bool is_verbose)
{
    *client = (struct fcgi_client){.name = address->text, .timeout_ms = timeout_ms, .max_ms = max_ms, .fd = -1};
    client->is_verbose = is_verbose;
    client->deadline_us = max_ms > 0 ? clock_us() + max_ms * 1000 : UINT64_MAX;
    record_reader_init(&client->reader);
    describer_init(&client->sent);
    describer_init(&client->received);
    restart_wait(client);
    int error = connect_within(client, address);
    if (error == 0)
        return 0;
    tell_no_connection(client, -error);
    return -1;
}

void fcgi_client_close(struct fcgi_client *client)
{
    begin_line(client);
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    buffer_free(&client->out);
    buffer_free(&client->line);
}

/* ---- both ways ---- */

static void refill(struct fcgi_client *client, const struct fcgi_client_calls *calls, void *arg)
{
    if (!client->is_deaf && !client->is_all_given && buffer_len(&client->out) == 0)
        client->is_all_given = !calls->more(arg, &client->out);
}

/* An application that reads no more may have answered before: the other way will tell. */
static void send_some(struct fcgi_client *client)
{
    ssize_t n = send(client->fd, buffer_at(&client->out), buffer_len(&client->out), MSG_NOSIGNAL);

    if (n >= 0) {
        tell(client, &client->sent, "> ", (struct span){buffer_at(&client->out), (size_t)n});
        buffer_consume(&client->out, (size_t)n);
    } else if (errno != EAGAIN && errno != EINTR) {
        client->is_deaf = true;
        buffer_clear(&client->out);
    }
}

static void keep_first(struct fcgi_client *client, struct span bytes)
{
    if (client->n_received < sizeof client->first) {
        size_t room = sizeof client->first - (size_t)client->n_received;

        memcpy(client->first + client->n_received, bytes.at, bytes.len < room ? bytes.len : room);
    }
    client->n_received += bytes.len;
}

static enum fcgi_client_end take_records(struct fcgi_client *client, struct span input,
                                         const struct fcgi_client_calls *calls, void *arg)
{
    for (;;) {
        const char *at = input.at;
        struct record_event event = record_read(&client->reader, &input);

        tell(client, &client->received, "< ", (struct span){at, (size_t)(input.at - at)});
        if (event.kind == RECORD_MORE)
            return CLIENT_GOES_ON;
        if (event.kind == RECORD_BAD) {
            client->why = event.why;
            return CLIENT_BAD;
        }
        client->has_record = true;
        if (!calls->event(arg, &event))
            return CLIENT_DONE;
    }
}

static enum fcgi_client_end receive_some(struct fcgi_client *client, const struct fcgi_client_calls *calls, void *arg)
{
    static char scratch[SCRATCH];
    ssize_t n = recv(client->fd, scratch, sizeof scratch, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return CLIENT_GOES_ON;
    if (n <= 0) {
        client->error = n < 0 ? errno : 0;
        return CLIENT_CLOSED;
    }
    keep_first(client, (struct span){scratch, (size_t)n});
    return take_records(client, (struct span){scratch, (size_t)n}, calls, arg);
}

/* Something has happened, or the time is up. */
static enum fcgi_client_end wait_and_move(struct fcgi_client *client, const struct fcgi_client_calls *calls, void *arg)
{
    bool has_output = buffer_len(&client->out) > 0;
    struct pollfd ready = {.fd = client->fd, .events = (short)(POLLIN | (has_output ? POLLOUT : 0))};
    int n = poll(&ready, 1, time_left(client));

    if (n < 0)
        return CLIENT_GOES_ON;
    if (n == 0)
        return time_left(client) == 0 ? CLIENT_TIMEOUT : CLIENT_GOES_ON;
    if (has_output && (ready.revents & (POLLOUT | POLLERR)) != 0)
        send_some(client);
    enum fcgi_client_end end = CLIENT_GOES_ON;
    if ((ready.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        end = receive_some(client, calls, arg);
    /* What was done in between, as writing to a slow terminal, was no wait for the application. */
    restart_wait(client);
    return end;
}

enum fcgi_client_end fcgi_client_exchange(struct fcgi_client *client, const struct fcgi_client_calls *calls, void *arg)
{
    enum fcgi_client_end end = CLIENT_GOES_ON;

    restart_wait(client);
    while (end == CLIENT_GOES_ON) {
        refill(client, calls, arg);
        end = clock_us() < client->deadline_us ? wait_and_move(client, calls, arg) : CLIENT_TIMEOUT;
    }
    tell_rest(client, &client->sent, "> ");
    if (end != CLIENT_DONE)
        tell_rest(client, &client->received, "< ");
    return end;
}

/* ---- what it means ---- */

static void tell_closed(struct fcgi_client *client)
{
    const char *how = client->error != 0 ? strerror(client->error) : "it closed the connection";

    if (client->n_received > 0)
        fcgi_client_say(client, "%s within its answer, before END_REQUEST: the process has crashed or was ended", how);
    else
        fcgi_client_say(client,
                        "%s without an answer: the process has crashed, or takes no connection from here (php-fpm: "
                        "listen.allowed_clients; others: FCGI_WEB_SERVER_ADDRS), or it is no FastCGI application",
                        how);
}

static void tell_timeout(struct fcgi_client *client)
{
    if (clock_us() >= client->deadline_us)
        fcgi_client_say(client, "not done within the %llu ms that all may take", (unsigned long long)client->max_ms);
    else if (client->n_received > 0)
        fcgi_client_say(client, "silent for %llu ms within its answer", (unsigned long long)client->timeout_ms);
    else if (buffer_len(&client->out) > 0)
        fcgi_client_say(client,
                        "connected, but for %llu ms it has taken no more of the request: all of its processes may be "
                        "busy, or it is no FastCGI application",
                        (unsigned long long)client->timeout_ms);
    else
        fcgi_client_say(
            client,
            "connected, but silent for %llu ms: all of its processes may be busy, this one needs longer, or it "
            "is no FastCGI application",
            (unsigned long long)client->timeout_ms);
}

static void tell_bad(struct fcgi_client *client)
{
    size_t len = client->n_received < sizeof client->first ? (size_t)client->n_received : sizeof client->first;
    struct span first = {client->first, len};
    struct buffer text = {0};

    if (span_starts(first, SPAN("HTTP/")) && memchr(first.at, '\n', first.len) != NULL)
        first.len = strcspn(first.at, "\r\n");
    describe_text(&text, first);
    buffer_append(&text, "", 1);
    if (span_starts(first, SPAN("HTTP/")) || span_starts(first, SPAN("<")))
        fcgi_client_say(client, "an HTTP server answers there, no FastCGI application: %s", buffer_at(&text));
    else if (!client->has_record)
        fcgi_client_say(client, "no FastCGI: %s; it began with %s", client->why, buffer_at(&text));
    else
        fcgi_client_say(client, "no FastCGI: %s", client->why);
    buffer_free(&text);
}

void fcgi_client_tell_end(struct fcgi_client *client, enum fcgi_client_end end)
{
    if (end == CLIENT_CLOSED)
        tell_closed(client);
    else if (end == CLIENT_TIMEOUT)
        tell_timeout(client);
    else if (end == CLIENT_BAD)
        tell_bad(client);
}
