/*
 * Each answer is written whole into memory, and most are taken by the kernel at once. Of those that are not, a client
 * keeps one in memory for as long as it takes to read it, so there are at most STATUS_SENDING of them in a front.
 */
#include "site/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clients.h"
#include "base/memory.h"
#include "log.h"
#include "site/status_inside.h"

enum {
    NONCE = 32,       /* hexadecimal digits */
    TOLD_SERVERS = 8, /* that a pool is not ready for want of */
};

/* ---- who may see them ---- */

static bool has_prefix(const unsigned char *address, const struct config_network *network)
{
    unsigned bytes = network->bits / 8, rest = network->bits % 8;

    if (memcmp(address, network->address, bytes) != 0)
        return false;
    return rest == 0 || ((address[bytes] ^ network->address[bytes]) & 0xff00 >> rest & 0xff) == 0;
}

static bool is_among(const struct config_networks *networks, int family, const unsigned char *address)
{
    for (size_t i = 0; i < networks->n; i++)
        if (networks->at[i].family == family && has_prefix(address, &networks->at[i]))
            return true;
    return false;
}

bool status_may_see(const struct config_networks *allowed, const struct peer_address *client)
{
    const unsigned char *in6 = client->in6.sin6_addr.s6_addr, *in = (const unsigned char *)&client->in.sin_addr;

    switch (client->any.sa_family) {
    case AF_INET:
        break;
    case AF_INET6:
        if (!IN6_IS_ADDR_V4MAPPED(&client->in6.sin6_addr))
            return IN6_IS_ADDR_LOOPBACK(&client->in6.sin6_addr) || is_among(allowed, AF_INET6, in6);
        in = in6 + 12; /* a client of IPv4 on a socket for both */
        break;
    default:
        return true; /* who can open the socket's file, may */
    }
    return in[0] == 127 || is_among(allowed, AF_INET, in);
}

/* ---- answers ---- */

static bool on_body(struct exchange *exchange, struct span bytes, bool last)
{
    (void)exchange, (void)bytes, (void)last; /* is never asked for */
    return true;
}

static void on_resume(struct exchange *exchange)
{
    struct status *status = exchange->data;

    status->n_sending--;
    exchange_end(exchange);
}

static void on_abort(struct exchange *exchange)
{
    struct status *status = exchange->data;

    status->n_sending--;
}

static const struct handler handler = {.body = on_body, .resume = on_resume, .abort = on_abort};

static void send_body(struct status *status, struct exchange *exchange, struct span body)
{
    exchange_length(exchange, body.len);
    if (!exchange_write(exchange, body, false)) {
        exchange_end(exchange);
        return;
    }
    status->n_sending++;
    exchange_handle(exchange, &handler, status);
}

static void begin(struct exchange *exchange, unsigned code, struct span type)
{
    exchange_begin(exchange, code, SPAN(""));
    exchange_field(exchange, SPAN("Content-Type"), type);
    exchange_field(exchange, SPAN("Cache-Control"), SPAN("no-store"));
    exchange_field(exchange, SPAN("X-Content-Type-Options"), SPAN("nosniff"));
    exchange_field(exchange, SPAN("Cross-Origin-Resource-Policy"), SPAN("same-origin"));
}

typedef void answer(struct status *status, struct exchange *exchange, struct buffer *body);

static void answer_json(struct status *status, struct exchange *exchange, struct buffer *body)
{
    struct view *view = view_read(status->scoreboard);

    status_write_json(body, view, status);
    begin(exchange, 200, SPAN("application/json"));
    view_free(view);
}

static void answer_requests(struct status *status, struct exchange *exchange, struct buffer *body)
{
    status_write_requests(body, status);
    begin(exchange, 200, SPAN("application/json"));
}

static void answer_metrics(struct status *status, struct exchange *exchange, struct buffer *body)
{
    struct view *view = view_read(status->scoreboard);

    status_write_metrics(body, view, status);
    begin(exchange, 200, SPAN("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    view_free(view);
}

static void answer_health(struct status *status, struct exchange *exchange, struct buffer *body)
{
    (void)status;
    buffer_append_span(body, SPAN("ok\n"));
    begin(exchange, 200, SPAN("text/plain; charset=utf-8"));
}

/* A pool whose manager keeps some processes must have one. */
/* How long one of its servers is passed over; 0: this front does not know the pool. */
static uint64_t fail_timeout_us(const struct status *status, const struct view_pool *pool)
{
    for (size_t i = 0; status->config != NULL && i < status->config->n_pools; i++)
        if (strcmp(status->config->pools[i]->name, pool->about.name) == 0)
            return status->config->pools[i]->fail_timeout_ms * 1000;
    return 0;
}

/* Only a request can tell whether one that was passed over for long enough is back. If nobody sends any while we are
 * not ready, it has to be ready for them. */
static bool may_serve(const struct view_server *server, uint64_t now_us, uint64_t timeout_us)
{
    if (server->state == SEAT_UP)
        return true;
    return (server->state == SEAT_DOWN || server->state == SEAT_TRYING) && timeout_us > 0 &&
           now_us > server->since_us && now_us - server->since_us >= timeout_us;
}

/* It has servers that requests may be for, and all of them are down. */
static bool has_lost_servers(const struct view *view, const struct status *status, const struct view_pool *pool)
{
    uint64_t timeout_us = fail_timeout_us(status, pool);
    unsigned n_down = 0;

    for (unsigned i = 0; i < pool->n_servers; i++) {
        const struct view_server *server = &view->servers[pool->first_server + i];

        if (may_serve(server, view->now_us, timeout_us))
            return false;
        n_down += server->state != SEAT_LEAVING;
    }
    return n_down > 0;
}

/* "all servers are down: 10.0.0.1:9000: Connection refused; 10.0.0.2:9000: ..." */
static void write_lost_servers(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    unsigned n = 0;

    buffer_append_span(to, SPAN("all servers are down"));
    for (unsigned i = 0; i < pool->n_servers; i++) {
        const struct view_server *server = &view->servers[pool->first_server + i];

        if (server->state == SEAT_LEAVING || n++ >= TOLD_SERVERS)
            continue;
        buffer_append_span(to, n == 1 ? SPAN(": ") : SPAN("; "));
        log_escape(to, span_of(server->address));
        buffer_append_span(to, SPAN(": "));
        log_escape(to, span_of(server->why[0] != '\0' ? server->why : "its cause is not known"));
    }
    if (n > TOLD_SERVERS)
        buffer_printf(to, "; and %u more", n - TOLD_SERVERS);
}

static bool lacks_processes(const struct view_pool *pool)
{
    bool keeps_some = pool->about.pm == PM_STATIC || (pool->about.pm == PM_DYNAMIC && pool->about.start_servers > 0);

    return status_has_processes(pool) && keeps_some && pool->about.n_live == 0;
}

/* Why it cannot serve; nothing if it can. */
static void write_why(struct buffer *to, const struct view *view, const struct status *status,
                      const struct view_pool *pool)
{
    const char *down_why = pool->about.down_why;

    if (pool->is_down) {
        buffer_append_span(to, SPAN("down: "));
        log_escape(to, span_of(down_why[0] != '\0' ? down_why : "nothing can be started; the error log says why"));
    } else if (lacks_processes(pool)) {
        buffer_append_span(to, SPAN("has no process yet"));
    } else if (has_lost_servers(view, status, pool)) {
        write_lost_servers(to, view, pool);
    }
}

bool status_write_ready(struct buffer *to, const struct view *view, const struct status *status)
{
    struct buffer why = {0};

    if (view->is_draining)
        buffer_append_span(to, SPAN("the server is draining\n"));
    for (unsigned i = 0; i < view->n_pools; i++) {
        const struct view_pool *pool = &view->pools[i];

        if (!status_is_pool(pool) || !pool->about.is_current)
            continue;
        buffer_clear(&why);
        write_why(&why, view, status, pool);
        if (buffer_len(&why) == 0)
            continue;
        buffer_append_span(to, SPAN("pool "));
        log_escape(to, span_of(pool->about.name));
        buffer_append_span(to, SPAN(": "));
        buffer_append_span(to, buffer_span(&why));
        buffer_append_span(to, SPAN("\n"));
    }
    buffer_free(&why);
    if (buffer_len(to) > 0)
        return false;
    buffer_append_span(to, SPAN("ready\n"));
    return true;
}

static void answer_readiness(struct status *status, struct exchange *exchange, struct buffer *body)
{
    struct view *view = view_read(status->scoreboard);

    begin(exchange, status_write_ready(body, view, status) ? 200 : 503, SPAN("text/plain; charset=utf-8"));
    view_free(view);
}

static void make_nonce(char nonce[NONCE + 1])
{
    unsigned char bytes[NONCE / 2];

    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        abort(); /* cannot fail for so few bytes */
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
}

static void answer_page(struct status *status, struct exchange *exchange, struct buffer *body)
{
    struct view *view = view_read(status->scoreboard);
    char nonce[NONCE + 1];

    make_nonce(nonce);
    status_write_page(body, view, status, nonce);
    begin(exchange, 200, SPAN("text/html; charset=utf-8"));
    exchange_fieldf(
        exchange, SPAN("Content-Security-Policy"),
        "default-src 'none'; style-src 'nonce-%s'; script-src 'nonce-%s'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        nonce, nonce);
    exchange_field(exchange, SPAN("Referrer-Policy"), SPAN("no-referrer"));
    view_free(view);
}

/* ---- which it is ---- */

static const struct {
    struct span name;
    answer *answer; /* NULL: the events */
} pages[] = {
    {{"", 0}, answer_page},
    {{"status.json", 11}, answer_json},
    {{"requests.json", 13}, answer_requests},
    {{"metrics", 7}, answer_metrics},
    {{"healthz", 7}, answer_health},
    {{"readyz", 6}, answer_readiness},
    {{"events", 6}, NULL},
};

static void serve(struct status *status, struct exchange *exchange, answer *write)
{
    struct buffer body = {0};

    if (write == NULL) {
        live_watch(status->live, exchange);
        return;
    }
    if (status->n_sending >= STATUS_SENDING) {
        exchange_fail(exchange, 503, 1);
        return;
    }
    write(status, exchange, &body);
    send_body(status, exchange, buffer_span(&body));
    buffer_free(&body);
}

static void find(struct status *status, struct exchange *exchange, struct span name)
{
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (!span_is(name, pages[i].name))
            continue;
        if (exchange->head.method == METHOD_GET || exchange->head.method == METHOD_HEAD)
            serve(status, exchange, pages[i].answer);
        else
            exchange_allow(exchange, 405, SPAN("GET, HEAD"));
        return;
    }
    exchange_fail(exchange, 404, 0);
}

bool status_answers(struct status *status, struct exchange *exchange)
{
    if (status == NULL || exchange->head.form == TARGET_ASTERISK)
        return false;
    struct span prefix = span_of(status->config->server.status), path = exchange->uri.path;

    if (!span_starts(path, prefix))
        return false;
    exchange->record.gateway = SPAN("status");
    exchange->record.route = prefix;
    if (!status_may_see(&status->config->server.status_allow, exchange_peer(exchange)))
        exchange_fail(exchange, 403, 0);
    else
        find(status, exchange, span_from(path, prefix.len));
    return true;
}

void status_drain(struct status *status)
{
    if (status == NULL)
        return;
    status->is_draining = true;
    live_drain(status->live);
}

/* ---- making and unmaking ---- */

static const char *gateway_of(const struct config_route *route)
{
    static const char *const names[] = {
        [GATEWAY_STATIC] = "static", [GATEWAY_CGI] = "cgi",           [GATEWAY_FASTCGI] = "fastcgi",
        [GATEWAY_DENY] = "deny",     [GATEWAY_REDIRECT] = "redirect",
    };

    return names[route->gateway];
}

struct status *status_create(const struct status_options *options)
{
    const struct config *config = options->config;
    struct status *status = memory_zeroed(1, sizeof *status);

    status->base = options->base;
    status->config = config;
    status->scoreboard = options->scoreboard;
    status->front = options->front;
    status->routes = memory_zeroed(config->n_routes + 1, sizeof *status->routes);
    status->n_routes = config->n_routes;
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = config->routes[i];

        status->routes[i] =
            (struct status_route){gateway_of(route), route->site->names.at[0], route->text, options->numbers[i]};
    }
    status->live = live_create(status);
    return status;
}

void status_destroy(struct status *status)
{
    if (status == NULL)
        return;
    live_destroy(status->live);
    free(status->routes);
    free(status);
}
