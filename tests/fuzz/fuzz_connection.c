/*
 * A whole connection: what a client sends, through a socket pair, to a service that answers in many ways (service.c).
 * Every answer must be well-formed and the service's own (answers.c), nothing may be left over; and the same bytes sent
 * whole, in pieces, and byte by byte must come to the same requests and the same answers.
 *
 * The first byte of the input says what the client does at its end, and whether it is a slow reader; the second is the
 * seed of the pieces; the rest is what it sends. Nothing here waits for a clock.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "answers.h"
#include "base/memory.h"
#include "http/inside.h"

enum flag {
    HALF_CLOSES = 1, /* when all is sent; else it closes when all is answered */
    READS_LATE = 2,  /* only when nothing else moves */
    IS_DRAINED = 4,  /* one more time: the server is told to end on the way */
    VANISHES = 8,    /* one more time: the client closes on the way, whatever is unread */
};

enum cutting { AS_A_WHOLE, IN_PIECES, BY_BYTE };

enum { MAX_BY_BYTE = 1024, SOCKET_ROOM = 4096, FAR = 1000000000 };

struct run {
    struct event_base *base;
    struct http *http;
    struct service service;
    int fd; /* the client's; -1: closed */
    bool reads_late, has_ended, is_drained;
    bool was_reset; /* the server had closed its end while the client still sent: that may lose answers */
    struct buffer received;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the client ---- */

/* Returns whether there was anything. */
static bool receive(struct run *run)
{
    size_t before = buffer_len(&run->received);
    ssize_t n = 1;

    while (run->fd >= 0 && !run->has_ended && n > 0) {
        n = recv(run->fd, buffer_reserve(&run->received, SCRATCH), SCRATCH, MSG_DONTWAIT);
        require(n >= 0 || errno == EAGAIN || errno == ECONNRESET);
        run->was_reset |= n < 0 && errno == ECONNRESET; /* so a socket pair tells of input that nobody has read */
        run->has_ended = n == 0 || run->was_reset;
        if (n > 0)
            buffer_added(&run->received, (size_t)n);
    }
    return buffer_len(&run->received) > before;
}

/* One look at what is ready, and the work that comes of it. */
static void turn(struct run *run)
{
    event_base_loop(run->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* Until nothing moves any more. */
static void settle(struct run *run)
{
    do {
        do
            turn(run);
        while (!run->reads_late && receive(run));
        event_base_loop(run->base, EVLOOP_NONBLOCK); /* as long as anything is ready */
    } while (receive(run));
}

static void close_client(struct run *run)
{
    close(run->fd);
    run->fd = -1;
    settle(run);
}

/* Sends it all, though the server may have shut its ears meanwhile. */
static void send_piece(struct run *run, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(run->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EPIPE) {
            run->was_reset = true;
            return;
        }
        require(n > 0 || errno == EAGAIN);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        } else {
            settle(run);
        }
    }
}

/* ---- one connection ---- */

static void note_drained(void *arg)
{
    *(bool *)arg = true;
}

static void start(struct run *run, uint8_t flags)
{
    static const struct peer_address remote = {.any.sa_family = AF_UNIX};
    static struct event_base *base;
    struct http_options options = {
        .head = {.max_head = 2048, .max_target = 1024, .max_field = 1024, .max_fields = 20},
        .chunked = {.max_overhead = 1024, .max_trailers = 512},
        .max_body = 4096,
        .max_connections = 1,
        .keepalive_requests = 30,
        .header_timeout_us = FAR,
        .body_timeout_us = FAR,
        .keepalive_timeout_us = FAR,
    };
    int fds[2], room = SOCKET_ROOM;

    if (base == NULL) {
        base = event_base_new();
        signal(SIGPIPE, SIG_IGN); /* as the program does: sendfile() has no flag against it */
    }
    options.base = base;
    *run = (struct run){.base = base, .reads_late = (flags & READS_LATE) != 0};
    service_init(&run->service, &options);
    run->http = http_create(&options);
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    require(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    run->fd = fds[1];
    run->http->n_connections = 1;
    connection_accept(run->http, fds[0], &remote);
}

/* Every count is zero. */
static void finish(struct run *run)
{
    require(run->http->n_connections == 0 && TAILQ_EMPTY(&run->http->resting) && TAILQ_EMPTY(&run->http->others));
    require(run->service.n_open == 0 && run->service.n_files == 0 && run->service.n_refused <= 1);
    http_destroy(run->http);
    service_free(&run->service);
    buffer_free(&run->received);
}

/* The end, after everything was sent. */
static void check_end(struct run *run, bool half_closes, struct buffer *story)
{
    enum ending ending;

    settle(run);
    ending = run->has_ended ? ENDS_BY_SERVER : ENDS_BY_CLIENT;
    if (half_closes) {
        shutdown(run->fd, SHUT_WR);
        settle(run);
        require(run->has_ended && run->http->n_connections == 0);
    }
    require(!run->was_reset || !answers_refuse(&run->service));
    close_client(run);
    answers_check(&run->service, buffer_span(&run->received), run->is_drained ? ENDS_ANYHOW : ending, story);
}

static size_t next_piece(enum cutting cutting, size_t len, uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    if (cutting == BY_BYTE)
        return len / MAX_BY_BYTE + 1;
    return cutting == IN_PIECES ? (*seed >> 16) % (1U << (*seed >> 28) % 10) + 1 : len;
}

/* Sends it all; in pieces, the server has a few turns between them, or as many as it needs. */
static void send_all(struct run *run, struct span bytes, enum cutting cutting, uint32_t seed)
{
    size_t len = bytes.len;

    while (bytes.len > 0) {
        size_t n = next_piece(cutting, len, &seed);

        n = n < bytes.len ? n : bytes.len;
        send_piece(run, bytes.at, n);
        bytes = span_from(bytes, n);
        if (cutting != IN_PIECES || seed >> 26 == 0)
            settle(run);
        for (uint32_t turns = seed >> 12 & 3; turns > 0; turns--)
            turn(run);
    }
}

static void converse(struct span bytes, uint8_t flags, enum cutting cutting, uint32_t seed, struct buffer *story)
{
    struct run run;

    start(&run, flags);
    send_all(&run, bytes, cutting, seed);
    check_end(&run, (flags & HALF_CLOSES) != 0, story);
    finish(&run);
}

static void compare(struct span bytes, uint8_t flags, enum cutting cutting, uint32_t seed, struct span expected)
{
    static const char *const names[] = {"as a whole", "in pieces", "byte by byte"};
    struct buffer story = {0};

    converse(bytes, flags, cutting, seed, &story);
    if (!span_is(buffer_span(&story), expected)) {
        fprintf(stderr, "---- %s:\n%.*s\n---- %s:\n%.*s\n", names[AS_A_WHOLE], (int)expected.len, expected.at,
                names[cutting], (int)buffer_len(&story), buffer_at(&story));
        abort();
    }
    buffer_free(&story);
}

/* ---- what else may happen ---- */

static void drain(struct span bytes, uint8_t flags, uint32_t seed)
{
    size_t first = seed * 31 % (bytes.len + 1);
    struct buffer story = {0};
    bool is_over = false;
    struct run run;

    start(&run, flags);
    send_all(&run, (struct span){bytes.at, first}, IN_PIECES, seed);
    http_drain(run.http, 0, (seed & 1) != 0, note_drained, &is_over);
    run.is_drained = true;
    send_all(&run, span_from(bytes, first), IN_PIECES, seed);
    check_end(&run, (flags & HALF_CLOSES) != 0, &story);
    require(is_over);
    finish(&run);
    buffer_free(&story);
}

static void vanish(struct span bytes, uint8_t flags, uint32_t seed)
{
    struct run run;

    start(&run, flags);
    send_all(&run, (struct span){bytes.at, seed * 31 % (bytes.len + 1)}, IN_PIECES, seed);
    close_client(&run);
    finish(&run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer story = {0};
    struct span bytes;

    if (size < 2)
        return 0;
    bytes = (struct span){(const char *)data + 2, size - 2};
    converse(bytes, data[0], AS_A_WHOLE, 0, &story);
    compare(bytes, data[0], IN_PIECES, data[1], buffer_span(&story));
    compare(bytes, data[0], BY_BYTE, 0, buffer_span(&story));
    buffer_free(&story);
    if (data[0] & IS_DRAINED)
        drain(bytes, data[0], data[1]);
    if (data[0] & VANISHES)
        vanish(bytes, data[0], data[1]);
    return 0;
}
