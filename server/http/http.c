#include "http/http.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "http/inside.h"

enum { ACCEPTS_PER_TURN = 64 };

struct http *http_create(const struct http_options *options)
{
    struct http *http = memory_zeroed(1, sizeof *http);

    http->options = *options;
    http->is_accepting = true;
    TAILQ_INIT(&http->resting);
    TAILQ_INIT(&http->others);
    if (getrandom(&http->id_state, sizeof http->id_state, 0) != sizeof http->id_state)
        abort(); /* cannot fail for so few bytes */
    return http;
}

static void free_exchange(struct exchange *exchange)
{
    if (exchange == NULL)
        return;
    buffer_free(&exchange->bytes);
    buffer_free(&exchange->path);
    buffer_free(&exchange->resolved);
    buffer_free(&exchange->head_out);
    buffer_free(&exchange->held);
    free(exchange);
}

static void stop_listening(struct http *http)
{
    for (unsigned i = 0; i < http->n_listeners; i++)
        event_free(http->listeners[i]);
    http->n_listeners = 0;
}

void http_destroy(struct http *http)
{
    stop_listening(http);
    if (http->drain_limit != NULL)
        event_free(http->drain_limit);
    free_exchange(http->spare);
    buffer_free(&http->spare_in);
    free(http);
}

/* ---- accepting ---- */

static void set_accepting(struct http *http, bool on)
{
    if (http->is_accepting == on)
        return;
    http->is_accepting = on;
    for (unsigned i = 0; i < http->n_listeners; i++)
        if (on)
            event_add(http->listeners[i], NULL);
        else
            event_del(http->listeners[i]);
}

/* The connection that has rested longest gives way. False: none rests. */
static bool make_room(struct http *http)
{
    struct connection *c = TAILQ_FIRST(&http->resting);

    if (c != NULL)
        connection_give_way(c);
    return c != NULL;
}

/* The client has too many already: it is told so, and from time to time the log. */
static void turn_away(struct http *http, int fd, const struct peer_address *remote)
{
    time_t now = time(NULL);
    struct exchange_address text;

    if (http->told_of_clients != now) { /* once a second is enough */
        http_write_address(remote, &text);
        http->options.refused(http->options.arg, text.text, 429, "more connections than max_connections_per_client");
        http->told_of_clients = now;
    }
    connection_turn_away(http, fd, remote);
}

static void admit(struct http *http, int fd, const struct peer_address *remote)
{
    bool may_enter = http->options.clients == NULL || clients_enter(http->options.clients, remote);

    if (may_enter && http->n_connections >= http->options.max_connections)
        make_room(http);
    if (!may_enter && http->n_connections >= http->options.max_connections) {
        close(fd);
        return;
    }
    http->n_connections++;
    counter_add(&http->options.counters->accepted, 1);
    counter_add(&http->options.counters->open, 1);
    if (may_enter)
        connection_accept(http, fd, remote);
    else
        turn_away(http, fd, remote);
}

static bool is_exhausted(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_connection(evutil_socket_t listener, short what, void *arg)
{
    struct http *http = arg;
    unsigned most = http->options.max_connections;

    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN && (http->n_connections < most || !TAILQ_EMPTY(&http->resting)); i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof from;
        struct peer_address remote;
        int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && is_exhausted(errno) && !make_room(http) && http->n_connections > 0)
            set_accepting(http, false); /* until one is closed */
        if (fd < 0)
            return;
        memcpy(&remote, &from, sizeof remote);
        admit(http, fd, &remote);
    }
    if (http->n_connections >= most && TAILQ_EMPTY(&http->resting))
        set_accepting(http, false); /* until one is closed, or rests */
}

void http_listen(struct http *http, int fd)
{
    struct event *event = event_new(http->options.base, fd, EV_READ | EV_PERSIST, on_connection, http);

    http->listeners[http->n_listeners++] = event;
    event_add(event, NULL);
}

void http_accept_again(struct http *http)
{
    set_accepting(http, true);
}

void http_connection_gone(struct http *http, const struct peer_address *remote, bool is_counted)
{
    if (http->options.clients != NULL && is_counted)
        clients_leave(http->options.clients, remote);
    http->n_connections--;
    counter_add(&http->options.counters->open, (uint64_t)-1);
    set_accepting(http, true);
    if (http->is_draining && http->n_connections == 0)
        http->drained(http->drained_arg);
}

/* ---- draining ---- */

/* Those that are idle end nothing but themselves. */
static void close_idle(struct http *http)
{
    struct connection_list *const lists[] = {&http->resting, &http->others};
    struct connection *c, *next;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (c = TAILQ_FIRST(lists[i]); c != NULL; c = next) {
            next = TAILQ_NEXT(c, next);
            connection_drain(c);
        }
}

/* To cut one may end others, or make them linger: what its program leaves free, those get that wait. */
static void on_drain_limit(evutil_socket_t fd, short what, void *arg)
{
    struct http *http = arg;
    struct connection *c;

    (void)fd, (void)what;
    while ((c = TAILQ_FIRST(&http->others)) != NULL || (c = TAILQ_FIRST(&http->resting)) != NULL)
        connection_cut(c);
}

void http_drain(struct http *http, uint64_t limit_us, bool gently, void (*drained)(void *arg), void *arg)
{
    struct timeval limit = {(time_t)(limit_us / 1000000), (suseconds_t)(limit_us % 1000000)};

    stop_listening(http);
    http->is_draining = true;
    http->drained = drained;
    http->drained_arg = arg;
    if (http->n_connections == 0) {
        drained(arg);
        return;
    }
    if (limit_us != 0 && http->drain_limit == NULL) {
        http->drain_limit = evtimer_new(http->options.base, on_drain_limit, http);
        event_add(http->drain_limit, &limit);
    }
    http->is_gentle = gently;
    if (!gently)
        close_idle(http);
}

/* ---- what exchanges need ---- */

struct exchange *http_take_exchange(struct http *http)
{
    unsigned max_fields = http->options.head.max_fields;
    struct exchange *exchange = http->spare;
    struct buffer bytes = {0}, path = {0}, resolved = {0}, head_out = {0}, held = {0};

    http->spare = NULL;
    if (exchange != NULL) {
        bytes = exchange->bytes;
        path = exchange->path;
        resolved = exchange->resolved;
        head_out = exchange->head_out;
        held = exchange->held;
    } else {
        exchange = memory_resize(NULL, sizeof *exchange + max_fields * sizeof exchange->fields[0]);
    }
    *exchange =
        (struct exchange){.bytes = bytes, .path = path, .resolved = resolved, .head_out = head_out, .held = held};
    head_init(&exchange->head, exchange->fields, max_fields);
    return exchange;
}

void http_give_exchange(struct http *http, struct exchange *exchange)
{
    size_t room = exchange->bytes.size + exchange->path.size + exchange->resolved.size + exchange->head_out.size +
                  exchange->held.size;

    if (http->spare != NULL || room > SPARE_ROOM) {
        free_exchange(exchange);
        return;
    }
    buffer_clear(&exchange->bytes);
    buffer_clear(&exchange->path);
    buffer_clear(&exchange->resolved);
    buffer_clear(&exchange->head_out);
    buffer_clear(&exchange->held);
    http->spare = exchange;
}

const char *http_date(struct http *http)
{
    time_t now = time(NULL);

    if (now != http->date_of) {
        http->date_of = now;
        date_write(http->date, now);
    }
    return http->date;
}

/* splitmix64: every value of the counter gives another id, and none looks like the one before. */
void http_make_id(struct http *http, char id[EXCHANGE_ID_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint64_t z = http->id_state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    for (int i = 0; i < EXCHANGE_ID_LEN; i++, z >>= 4)
        id[i] = digits[z & 15];
    id[EXCHANGE_ID_LEN] = '\0';
}

const char *http_reason(unsigned status)
{
    static const char *const reasons[600] = {
        [100] = "Continue",
        [101] = "Switching Protocols",
        [102] = "Processing",
        [103] = "Early Hints",
        [200] = "OK",
        [201] = "Created",
        [202] = "Accepted",
        [203] = "Non-Authoritative Information",
        [204] = "No Content",
        [205] = "Reset Content",
        [206] = "Partial Content",
        [207] = "Multi-Status",
        [208] = "Already Reported",
        [226] = "IM Used",
        [300] = "Multiple Choices",
        [301] = "Moved Permanently",
        [302] = "Found",
        [303] = "See Other",
        [304] = "Not Modified",
        [305] = "Use Proxy",
        [307] = "Temporary Redirect",
        [308] = "Permanent Redirect",
        [400] = "Bad Request",
        [401] = "Unauthorized",
        [402] = "Payment Required",
        [403] = "Forbidden",
        [404] = "Not Found",
        [405] = "Method Not Allowed",
        [406] = "Not Acceptable",
        [407] = "Proxy Authentication Required",
        [408] = "Request Timeout",
        [409] = "Conflict",
        [410] = "Gone",
        [411] = "Length Required",
        [412] = "Precondition Failed",
        [413] = "Content Too Large",
        [414] = "URI Too Long",
        [415] = "Unsupported Media Type",
        [416] = "Range Not Satisfiable",
        [417] = "Expectation Failed",
        [418] = "I'm a Teapot",
        [421] = "Misdirected Request",
        [422] = "Unprocessable Content",
        [423] = "Locked",
        [424] = "Failed Dependency",
        [425] = "Too Early",
        [426] = "Upgrade Required",
        [428] = "Precondition Required",
        [429] = "Too Many Requests",
        [431] = "Request Header Fields Too Large",
        [451] = "Unavailable For Legal Reasons",
        [500] = "Internal Server Error",
        [501] = "Not Implemented",
        [502] = "Bad Gateway",
        [503] = "Service Unavailable",
        [504] = "Gateway Timeout",
        [505] = "HTTP Version Not Supported",
        [506] = "Variant Also Negotiates",
        [507] = "Insufficient Storage",
        [508] = "Loop Detected",
        [511] = "Network Authentication Required",
    };

    return status < 600 && reasons[status] != NULL ? reasons[status] : "Unknown";
}
