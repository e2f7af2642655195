/*
 * One channel of c-ares for each name: it is made for a lookup after a failure anew, since resolv.conf may say
 * something else by then, and what becomes of one lookup touches no other.
 *
 *     begin --> SRV query --> a host query for each target --> all are in: found, and again when the TTL is over
 *          \--> one host query -----------------------------/          or: failed, and again a little later
 *
 * A lookup counts only as a whole: if one target's addresses cannot be had for now, what was known of all stays. That a
 * target has none is an answer.
 */
#include "fastcgi/names.h"

#include <ares.h>
#include <ares_dns.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum { MAX_SOCKETS = 16, MAX_TARGETS = 16 };

struct watched {
    int fd; /* -1: none */
    struct event *reader, *writer;
};

/* A host whose addresses are looked up. */
struct target {
    struct names *names;
    unsigned level, weight, port;
    bool is_asking; /* within ares_getaddrinfo() */
};

struct names {
    struct names_options options;
    ares_channel channel; /* NULL: none */
    struct event *timer;  /* of the channel, while there is a lookup; else of the next one */
    struct watched sockets[MAX_SOCKETS];
    struct target targets[MAX_TARGETS];
    struct names_address found[NAMES_MOST];
    size_t n_found;
    unsigned n_pending; /* parts of the lookup that are under way */
    uint64_t ttl_ms;
    int error; /* of the lookup, as c-ares has it */
    unsigned retry_ms;
    bool is_closing;
};

/* ---- c-ares and the loop ---- */

static void begin(struct names *names);

static void set_timer(struct names *names, uint64_t ms)
{
    struct timeval delay = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    event_add(names->timer, &delay);
}

/* While there is a lookup: when does c-ares want to be called, if nothing comes? */
static void follow(struct names *names)
{
    struct timeval delay;

    if (names->n_pending > 0 && ares_timeout(names->channel, NULL, &delay) != NULL)
        event_add(names->timer, &delay);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct names *names = arg;

    (void)fd, (void)what;
    if (names->n_pending == 0)
        begin(names);
    else
        ares_process_fd(names->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    follow(names);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct names *names = arg;

    (void)what;
    ares_process_fd(names->channel, fd, ARES_SOCKET_BAD);
    follow(names);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct names *names = arg;

    (void)what;
    ares_process_fd(names->channel, ARES_SOCKET_BAD, fd);
    follow(names);
}

static void unwatch(struct watched *watched)
{
    if (watched->fd < 0)
        return;
    event_free(watched->reader);
    event_free(watched->writer);
    *watched = (struct watched){.fd = -1};
}

/* c-ares says what it wants to know of one of its sockets; neither: it is about to close it. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct names *names = arg;
    struct watched *watched = NULL;

    for (unsigned i = 0; i < MAX_SOCKETS; i++)
        if (names->sockets[i].fd == fd || (watched == NULL && names->sockets[i].fd < 0))
            watched = &names->sockets[i];
    if (watched == NULL)
        return; /* its timeout goes on without it */
    unwatch(watched);
    if (!readable && !writable)
        return;
    watched->fd = fd;
    watched->reader = event_new(names->options.base, fd, EV_READ | EV_PERSIST, on_readable, names);
    watched->writer = event_new(names->options.base, fd, EV_WRITE | EV_PERSIST, on_writable, names);
    if (readable)
        event_add(watched->reader, NULL);
    if (writable)
        event_add(watched->writer, NULL);
}

static int open_channel(struct names *names)
{
    struct ares_options options = {
        .timeout = NAMES_TIMEOUT_MS,
        .tries = NAMES_TRIES,
        .lookups = (char[]){"fb"}, /* files, then DNS */
        .sock_state_cb = on_socket,
        .sock_state_cb_data = names,
    };
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    int error = ares_init_options(&names->channel, &options, mask);

    if (error != ARES_SUCCESS) {
        names->channel = NULL;
        return error;
    }
    return names->options.resolver != NULL ? ares_set_servers_ports_csv(names->channel, names->options.resolver)
                                           : ARES_SUCCESS;
}

static void close_channel(struct names *names)
{
    if (names->channel != NULL)
        ares_destroy(names->channel);
    names->channel = NULL;
    for (unsigned i = 0; i < MAX_SOCKETS; i++)
        unwatch(&names->sockets[i]);
}

/* ---- one lookup ---- */

static void note_ttl(struct names *names, uint64_t ms)
{
    uint64_t bounded = ms < NAMES_TTL_MIN_MS ? NAMES_TTL_MIN_MS : ms > NAMES_TTL_MAX_MS ? NAMES_TTL_MAX_MS : ms;

    if (bounded < names->ttl_ms)
        names->ttl_ms = bounded;
}

/* A part of the lookup is done; after the last, so is all of it. */
static void finish_part(struct names *names)
{
    if (--names->n_pending > 0)
        return;
    if (names->error == ARES_SUCCESS && names->n_found == 0)
        names->error = ARES_ENODATA;
    if (names->error == ARES_SUCCESS) {
        names->retry_ms = 0;
        set_timer(names, names->ttl_ms);
        names->options.found(names->options.arg, names->found, names->n_found);
        return;
    }
    names->retry_ms = names->retry_ms == 0 ? NAMES_RETRY_MS : 2 * names->retry_ms;
    if (names->retry_ms > NAMES_RETRY_MAX_MS)
        names->retry_ms = NAMES_RETRY_MAX_MS;
    set_timer(names, names->retry_ms);
    names->options.failed(names->options.arg, ares_strerror(names->error));
}

static void add_address(struct target *target, const struct sockaddr *address, socklen_t len)
{
    struct names *names = target->names;
    in_port_t port = htons((uint16_t)target->port);

    if (names->n_found == NAMES_MOST || len > sizeof names->found->address)
        return;
    struct names_address *to = &names->found[names->n_found];
    *to = (struct names_address){.len = len, .level = target->level, .weight = target->weight};
    memcpy(&to->address, address, len);
    if (address->sa_family == AF_INET)
        ((struct sockaddr_in *)&to->address)->sin_port = port;
    else if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)&to->address)->sin6_port = port;
    else
        return;
    names->n_found++;
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
    struct target *target = arg;
    struct names *names = target->names;

    (void)timeouts;
    if (names->is_closing)
        return;
    if (status != ARES_SUCCESS) {
        if (!names->options.is_srv || (status != ARES_ENOTFOUND && status != ARES_ENODATA))
            names->error = status;
        finish_part(names);
        return;
    }
    if (target->is_asking)
        note_ttl(names, NAMES_LOCAL_MS);
    for (const struct ares_addrinfo_cname *cname = result->cnames; cname != NULL && !target->is_asking;
         cname = cname->next)
        note_ttl(names, cname->ttl < 0 ? 0 : (uint64_t)cname->ttl * 1000);
    for (const struct ares_addrinfo_node *node = result->nodes; node != NULL; node = node->ai_next) {
        if (!target->is_asking)
            note_ttl(names, node->ai_ttl < 0 ? 0 : (uint64_t)node->ai_ttl * 1000);
        add_address(target, node->ai_addr, node->ai_addrlen);
    }
    ares_freeaddrinfo(result);
    finish_part(names);
}

static void ask_addresses(struct target *target, const char *host)
{
    static const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    target->names->n_pending++;
    target->is_asking = true; /* what is answered at once comes from the hosts file */
    ares_getaddrinfo(target->names->channel, host, NULL, &hints, on_addresses, target);
    target->is_asking = false;
}

/* ---- SRV ---- */

/* Behind a name of the message; 0: it is malformed. */
static size_t skip_name(const unsigned char *message, size_t len, size_t at)
{
    char *name;
    long n;

    if (at >= len || ares_expand_name(message + at, message, (int)len, &name, &n) != ARES_SUCCESS)
        return 0;
    ares_free_string(name);
    return at + (size_t)n;
}

int64_t names_ttl(const unsigned char *message, size_t len)
{
    int64_t least = -1;

    if (len < HFIXEDSZ || len > 65535)
        return -1;
    unsigned n_questions = DNS_HEADER_QDCOUNT(message), n_answers = DNS_HEADER_ANCOUNT(message);
    size_t at = HFIXEDSZ;
    for (; n_questions > 0; n_questions--) {
        at = skip_name(message, len, at);
        if (at == 0 || at + QFIXEDSZ > len)
            return -1;
        at += QFIXEDSZ;
    }
    for (; n_answers > 0; n_answers--) {
        at = skip_name(message, len, at);
        if (at == 0 || at + RRFIXEDSZ > len)
            return -1;
        uint32_t ttl = DNS_RR_TTL(message + at);
        size_t data = DNS_RR_LEN(message + at);
        at += RRFIXEDSZ + data;
        if (at > len)
            return -1;
        if (least < 0 || ttl < least)
            least = ttl;
    }
    return least;
}

static int by_priority(const void *a, const void *b)
{
    const struct ares_srv_reply *const *x = a, *const *y = b;

    return (int)(*x)->priority - (int)(*y)->priority;
}

/* The records in the order of their priority. Returns how many. */
static unsigned sort_records(struct ares_srv_reply *records, struct ares_srv_reply **sorted)
{
    unsigned n = 0;

    for (; records != NULL && n < MAX_TARGETS; records = records->next)
        if (records->host[0] != '\0' && records->port != 0) /* "." says that there is no such service */
            sorted[n++] = records;
    qsort(sorted, n, sizeof *sorted, by_priority);
    return n;
}

static void on_records(void *arg, int status, int timeouts, unsigned char *message, int len)
{
    struct names *names = arg;
    struct ares_srv_reply *records = NULL, *sorted[MAX_TARGETS];
    unsigned level = 0;

    (void)timeouts;
    if (names->is_closing)
        return;
    int64_t ttl = status == ARES_SUCCESS ? names_ttl(message, (size_t)len) : -1;
    names->error = status == ARES_SUCCESS ? ares_parse_srv_reply(message, len, &records) : status;
    if (names->error == ARES_SUCCESS && ttl < 0)
        names->error = ARES_EBADRESP;
    if (names->error == ARES_SUCCESS) {
        unsigned n = sort_records(records, sorted);

        note_ttl(names, (uint64_t)ttl * 1000);
        for (unsigned i = 0; i < n; i++) {
            level += i > 0 && sorted[i]->priority != sorted[i - 1]->priority;
            names->targets[i] = (struct target){.names = names,
                                                .level = level,
                                                .weight = sorted[i]->weight > 0 ? sorted[i]->weight : 1,
                                                .port = sorted[i]->port};
            ask_addresses(&names->targets[i], sorted[i]->host);
        }
    }
    if (records != NULL)
        ares_free_data(records);
    finish_part(names);
}

static void begin(struct names *names)
{
    names->n_found = 0;
    names->error = ARES_SUCCESS;
    names->ttl_ms = NAMES_TTL_MAX_MS;
    names->n_pending = 1; /* this call */
    if (names->retry_ms > 0)
        close_channel(names);
    if (names->channel == NULL)
        names->error = open_channel(names);
    if (names->error != ARES_SUCCESS) {
        finish_part(names);
        return;
    }
    if (names->options.is_srv) {
        ares_query(names->channel, names->options.name, C_IN, T_SRV, on_records,
                   names); /* which ends this call's part */
        return;
    }
    names->targets[0] = (struct target){.names = names, .port = names->options.port};
    ask_addresses(&names->targets[0], names->options.name);
    finish_part(names);
}

/* ---- making and unmaking ---- */

struct names *names_create(const struct names_options *options)
{
    struct names *names = memory_zeroed(1, sizeof *names);

    names->options = *options;
    for (unsigned i = 0; i < MAX_SOCKETS; i++)
        names->sockets[i].fd = -1;
    names->timer = evtimer_new(options->base, on_timer, names);
    set_timer(names, 0);
    return names;
}

void names_destroy(struct names *names)
{
    names->is_closing = true;
    close_channel(names);
    event_free(names->timer);
    free(names);
}
