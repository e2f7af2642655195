/*
 * What a front is made of, and the way of a request through it:
 *
 *     http --request--> site (by Host) --> route --> static:        files_serve()
 *                                              \--> cgi, fastcgi:   gateway_serve() with the route's runner
 *                                               \-> deny:           403; redirect: elsewhere
 *
 * A path that is no route's is a file's, or stands for the first of the site's `try` that is there.
 *
 * It owns nothing but loans: connections, open files, queues. It runs as an ordinary user and cannot start programs.
 */
#include "front.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/places.h"
#include "cgi/cgi.h"
#include "fastcgi/pool.h"
#include "fastcgi/scripts.h"
#include "gateway/gateway.h"
#include "gateway/permit.h"
#include "http/http.h"
#include "log.h"
#include "process/examine.h"
#include "process/lockdown.h"
#include "process/pools.h"
#include "process/spawn.h"
#include "site/files.h"
#include "site/pages.h"
#include "site/resolve.h"
#include "site/rules.h"
#include "site/status.h"

enum {
    LOG_DELAY_MS = 50,  /* lines of the access log are written together; a line waits no longer than this */
    MAX_REDIRECTS = 10, /* local ones, for one request */
};

/* What a route's requests are given to; one of the first three is set, or none. */
struct route_runner {
    struct cgi *cgi;
    struct scripts *scripts;
    struct fastcgi_pool *pool; /* shared by the routes of one pool: owned by front.pools */
    unsigned number;           /* the route's, on the scoreboard */
};

struct front {
    const struct front_start *start;
    const struct config *config;
    struct event_base *base;
    struct link *link;
    struct clients *clients;
    struct seats *seats; /* at servers of pools */
    struct http *http;
    struct open_files *files;
    struct gateway *gateway;
    struct places *places;
    struct status *status;       /* NULL: off */
    struct fastcgi_pool **pools; /* by index; NULL for pools of scripts */
    struct route_runner *routes; /* by index */
    struct sink access;
    struct event *access_timer;
    struct buffer line;
    bool has_colour;
    bool is_accepting;
    int error_fd;
    int look_error; /* of the last look() that found nothing: -errno, and what was looked for */
    char look_name[PATH_MAX];
};

/* ---- the access log ---- */

static void on_access_timer(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval delay = {0, LOG_DELAY_MS * 1000};
    struct front *front = arg;

    (void)fd, (void)what;
    if (!sink_flush(&front->access))
        event_add(front->access_timer, &delay);
}

/* How long it took, and what was answered, for the metrics. */
static void observe(struct front *front, const struct access_record *record)
{
    struct scoreboard_front *part = &front->start->scoreboard->fronts[front->start->number];

    if (record->route_place == 0) {
        scoreboard_observe(&part->files, record->phase_us[PHASE_TOTAL]);
        return;
    }
    struct scoreboard_share *share = &part->shares[(record->route_place - 1) % SCOREBOARD_POOLS];
    for (unsigned i = 0; i < N_PHASES; i++)
        if (record->phase_us[i] != PHASE_NONE)
            scoreboard_observe(&share->phases[i], record->phase_us[i]);
    counter_add(&share->statuses[record->status < 600 ? record->status / 100 : 0], 1);
}

static void write_record(void *arg, const struct access_record *record)
{
    static const struct timeval delay = {0, LOG_DELAY_MS * 1000};
    struct front *front = arg;

    observe(front, record);
    if (front->access.fd < 0)
        return;
    buffer_clear(&front->line);
    access_format(&front->line, front->config->server.access_format, front->has_colour, record);
    sink_add(&front->access, buffer_span(&front->line));
    if (!event_pending(front->access_timer, EV_TIMEOUT, NULL))
        event_add(front->access_timer, &delay);
}

static struct span field_value(const struct head *head, struct span name)
{
    const struct field *field = head_field(head, name);

    return field != NULL ? field->value : SPAN("");
}

static void on_done(void *arg, struct exchange *exchange)
{
    struct front *front = arg;
    struct access_record *record = &exchange->record;
    struct exchange_address remote;

    if (front->access.fd >= 0) {
        exchange_remote(exchange, &remote);
        record->client = span_of(remote.text);
        record->referer = field_value(&exchange->head, SPAN("Referer"));
        record->user_agent = field_value(&exchange->head, SPAN("User-Agent"));
    }
    if (exchange->origin == NULL)
        places_give(front->places, exchange->place);
    if (!gateway_done(exchange))
        write_record(front, record);
}

/* Of those that a program is asked for, the gateway tells; who watches the status page, is not told of there. */
static void on_lasts(void *arg, struct exchange *exchange)
{
    struct front *front = arg;
    struct exchange_address remote;

    if (exchange->origin != NULL || span_is(exchange->record.gateway, SPAN("status")))
        return;
    exchange_remote(exchange, &remote);
    const struct place_texts texts = {
        .id = {exchange->id, EXCHANGE_ID_LEN},
        .method = exchange->head.method_text,
        .client = span_of(remote.text),
        .site = exchange->record.site,
        .route = exchange->record.route,
        .uri = exchange->head.target,
    };
    exchange->place = places_take(front->places, &texts, SCOREBOARD_NONE, REQUEST_SEND, exchange->started_us);
}

static void on_refused(void *arg, const char *remote_addr, unsigned status, const char *why)
{
    (void)arg;
    log_warning("%u to %s: %s", status, remote_addr[0] != '\0' ? remote_addr : "a local client", why);
}

/* The site's own page, if it has one: not of a head that was refused, for nobody knows which site it was for. */
static struct span error_page(void *arg, const struct exchange *exchange, struct buffer *to, unsigned status)
{
    struct front *front = arg;
    struct span type = SPAN("");

    if (exchange->record.site.len > 0) {
        const struct config_site *site = config_site_for(front->config, exchange->head.host);
        const char *page = rules_error_page(site, status);

        if (page != NULL)
            type = files_read_page(front->files, site, page, to);
    }
    if (type.len > 0)
        return type;
    pages_error(to, status, http_reason(status));
    return SPAN("text/html; charset=utf-8");
}

/* ---- the way of a request ---- */

static enum route_file look(void *arg, const struct config_site *site, const struct config_route *route,
                            const char *name)
{
    struct front *front = arg;
    enum route_file found = open_files_look(front->files, route, site, name, &front->look_error);

    if (front->look_error != 0)
        snprintf(front->look_name, sizeof front->look_name, "%s", name);
    return found;
}

static struct runner *runner_for(struct front *front, const struct route_target *target)
{
    struct route_runner *runner = &front->routes[target->route->index];

    if (runner->cgi != NULL)
        return cgi_runner(runner->cgi);
    if (runner->scripts != NULL)
        return scripts_runner(runner->scripts, target->script);
    return fastcgi_pool_runner(runner->pool);
}

static void redirect(struct exchange *exchange, struct span path, const struct config_route *route)
{
    struct uri uri = exchange->uri;
    struct exchange_address local;
    struct buffer location = {0};

    exchange_local(exchange, &local); /* for $host, when the client names none */
    uri.path = path;
    rules_location(&location, route, &uri, exchange->head.host.len > 0 ? exchange->head.host : span_of(local.host));
    exchange_begin(exchange, route->status, SPAN(""));
    exchange_field(exchange, SPAN("Location"), buffer_span(&location));
    exchange_length(exchange, 0);
    buffer_free(&location);
    exchange_end(exchange);
}

/* The file that a filter gets; NULL: there is none, and the exchange has failed. */
static struct open_file *take_data(struct front *front, struct exchange *exchange, struct span path,
                                   const struct route_target *target)
{
    struct open_file *data;
    char name[PATH_MAX];

    snprintf(name, sizeof name, "%.*s", (int)target->script.len, target->script.at);
    int error = open_files_take(front->files, target->route->site, name, true, &data);
    if (error == 0)
        return data;
    files_fail(exchange, error, path);
    return NULL;
}

static void serve_route(struct front *front, struct exchange *exchange, struct span path,
                        const struct route_target *target)
{
    const struct config_route *route = target->route;
    struct open_file *data = NULL;
    struct runner *runner;

    exchange->record.route = span_of(route->text);
    exchange->record.route_place = front->routes[route->index].number + 1;
    switch (route->gateway) {
    case GATEWAY_STATIC:
        files_serve(front->files, route->site, exchange, path, true);
        return;
    case GATEWAY_DENY:
        exchange_fail(exchange, 403, 0);
        return;
    case GATEWAY_REDIRECT:
        redirect(exchange, path, route);
        return;
    case GATEWAY_CGI:
    case GATEWAY_FASTCGI:
        break;
    }
    if (rules_is_hidden(route->site, target->script)) {
        log_warning("[%s] 403 %.*s: is hidden = in its site", exchange->id, (int)target->script.len, target->script.at);
        exchange_fail(exchange, 403, 0);
        return;
    }
    if (route->role == ROLE_FILTER && (data = take_data(front, exchange, path, target)) == NULL)
        return;
    runner = runner_for(front, target);
    if (runner == NULL) { /* scripts only, which have no role */
        log_error("[%s] %s: more scripts than can have processes of their own", exchange->id, route->text);
        exchange_fail(exchange, 503, 1);
        return;
    }
    gateway_serve(front->gateway, exchange, target, runner, data);
}

/* No script was found for a route. "There is none" and "it cannot be reached" are two things. */
static void fail_missing(struct front *front, struct exchange *exchange, const struct resolved *found)
{
    const struct config_route *route = found->target.route;
    const char *dir = route->dir != NULL ? route->dir : route->site->root;
    const struct spawn as_we_are = {.user = NULL};
    char path[2 * PATH_MAX], cause[512];
    unsigned status = 404;

    snprintf(cause, sizeof cause, "no script for %.200s below %.200s", found->path.at, dir);
    if (front->look_error == -EMFILE || front->look_error == -ENFILE) {
        status = 503;
        snprintf(cause, sizeof cause, "%s", strerror(-front->look_error));
    } else if (front->look_error == -EACCES) {
        status = 403;
        snprintf(path, sizeof path, "%s/%s", dir, front->look_name);
        *strrchr(path, '/') = '\0';
        if (!examine_directory(cause, sizeof cause, &as_we_are, path))
            snprintf(cause, sizeof cause, "%.400s may not be entered", path);
    }
    log_warning("[%s] %u %s: %s", exchange->id, status, route->text, cause);
    exchange_fail(exchange, status, status == 503 ? 1 : 0);
}

static void serve_path(struct front *front, const struct config_site *site, struct exchange *exchange)
{
    struct resolved found;

    const struct route_passed *passed = exchange->permit != NULL ? &exchange->permit->passed : NULL;

    resolve(site, exchange->uri.path, passed, look, front, &exchange->resolved, &found);
    switch (found.as) {
    case RESOLVED_FILE:
        files_serve(front->files, site, exchange, found.path, false);
        break;
    case RESOLVED_ROUTE:
        serve_route(front, exchange, found.path, &found.target);
        break;
    case RESOLVED_MISSING:
        exchange->record.route = span_of(found.target.route->text);
        fail_missing(front, exchange, &found);
        break;
    case RESOLVED_SLASH:
        files_redirect_to_slash(exchange, exchange->uri.path);
        break;
    case RESOLVED_STATUS:
        exchange_fail(exchange, found.status, 0);
        break;
    }
}

static void on_request(void *arg, struct exchange *exchange)
{
    struct front *front = arg;
    const struct config_site *site = config_site_for(front->config, exchange->head.host);

    if (status_answers(front->status, exchange))
        return;
    exchange->record.site = span_of(site->names.at[0]);
    if (exchange->head.form == TARGET_ASTERISK)
        exchange_allow(exchange, 204, SPAN("GET, HEAD, POST, OPTIONS"));
    else if (span_is(exchange->head.method_text, SPAN("TRACE"))) /* would show what proxies on the way have added */
        exchange_allow(exchange, 405, SPAN("GET, HEAD, POST, OPTIONS"));
    else
        serve_path(front, site, exchange);
}

/* RFC 3875 section 6.2.2: as if the client had asked for that path; by GET, and without the request's body, which was
 * for the first. */
static void on_redirect(void *arg, struct exchange *exchange, struct span location)
{
    struct front *front = arg;
    const struct config_site *site = config_site_for(front->config, exchange->head.host);
    const char *why;

    if (++exchange->n_redirects > MAX_REDIRECTS) {
        log_warning("[%s] more than %d local redirects", exchange->id, MAX_REDIRECTS);
        exchange_fail(exchange, 502, 0);
        return;
    }
    exchange_handle(exchange, NULL, NULL);
    if (exchange_retarget(exchange, location, &why) != 0) {
        log_warning("[%s] local redirect to \"%.*s\": %s", exchange->id, (int)location.len, location.at, why);
        exchange_fail(exchange, 502, 0);
        return;
    }
    serve_path(front, site, exchange);
}

static void on_authorized(void *arg, struct exchange *exchange)
{
    struct front *front = arg;

    exchange_handle(exchange, NULL, NULL);
    serve_path(front, config_site_for(front->config, exchange->head.host), exchange);
}

/* ---- what the keeper says ---- */

static void on_drained(void *arg)
{
    struct front *front = arg;

    event_base_loopbreak(front->base);
}

static void on_accept(void *arg)
{
    struct front *front = arg;

    if (front->is_accepting)
        return;
    front->is_accepting = true;
    for (size_t i = 0; i < front->config->server.listen.n; i++)
        http_listen(front->http, front->start->listen_fds[i]);
}

static void on_drain(void *arg, enum drain how)
{
    struct front *front = arg;
    uint64_t limit_us = how == DRAIN_ALL ? 0 : front->config->server.drain_timeout_ms * 1000;

    front->start->scoreboard->fronts[front->start->number].is_draining = 1;
    for (size_t i = 0; i < front->config->n_pools; i++)
        if (front->pools[i] != NULL)
            fastcgi_pool_yield(front->pools[i]);
    for (size_t i = 0; i < front->config->n_routes; i++) {
        if (front->routes[i].cgi != NULL)
            cgi_yield(front->routes[i].cgi);
        if (front->routes[i].scripts != NULL)
            scripts_yield(front->routes[i].scripts);
    }
    status_drain(front->status);
    http_drain(front->http, limit_us, how == DRAIN_GENTLY, on_drained, front);
    if (!front->is_accepting)
        return;
    for (size_t i = 0; i < front->config->server.listen.n; i++)
        close(front->start->listen_fds[i]); /* with the keeper's, the last: who connects is refused at once */
    front->is_accepting = false;            /* drained once more, it has none to close */
}

static void on_keeper_gone(void *arg)
{
    (void)arg;
    _exit(1); /* the warden cleans up */
}

static void set_access_log(struct front *front, int fd)
{
    sink_free(&front->access);
    front->access = (struct sink){.fd = fd};
    front->has_colour = fd >= 0 && isatty(fd);
}

static void on_logs(void *arg, int error_fd, int access_fd)
{
    struct front *front = arg;

    sink_flush(&front->access);
    log_set(error_fd);
    close(front->error_fd);
    front->error_fd = error_fd;
    if (front->access.fd >= 0)
        close(front->access.fd);
    set_access_log(front, access_fd);
}

/* ---- composition ---- */

static void make_routes(struct front *front)
{
    const struct config *config = front->config;
    const struct binding *binding = front->start->binding;
    struct fastcgi_options options = {.base = front->base,
                                      .link = front->link,
                                      .scoreboard = front->start->scoreboard,
                                      .seats = front->seats,
                                      .resolver = config->server.resolver,
                                      .front = front->start->number,
                                      .has_trace = config->server.has_trace};

    front->pools = memory_zeroed(config->n_pools + 1, sizeof(struct fastcgi_pool *));
    for (size_t i = 0; i < config->n_pools; i++)
        if (config->pools[i]->kind != POOL_SCRIPTS)
            front->pools[i] = fastcgi_pool_create(&options, config->pools[i], (int)binding->numbers[i]);
    front->routes = memory_zeroed(config->n_routes + 1, sizeof *front->routes);
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = config->routes[i];
        unsigned number = binding_of_route(binding, route);
        struct cgi_options cgi = {.base = front->base,
                                  .link = front->link,
                                  .scoreboard = front->start->scoreboard,
                                  .front = front->start->number,
                                  .route = route,
                                  .number = number};

        front->routes[i].number = number;
        if (route->gateway == GATEWAY_CGI)
            front->routes[i].cgi = cgi_create(&cgi);
        else if (route->gateway == GATEWAY_FASTCGI && route->pool->kind == POOL_SCRIPTS)
            front->routes[i].scripts = scripts_create(&options, route, number);
        else if (route->gateway == GATEWAY_FASTCGI)
            front->routes[i].pool = front->pools[route->pool->index];
    }
}

static void make_status(struct front *front)
{
    const struct config *config = front->config;
    struct status_options options = {
        .base = front->base,
        .config = config,
        .scoreboard = front->start->scoreboard,
        .front = front->start->number,
        .numbers = memory_zeroed(config->n_routes + 1, sizeof *options.numbers),
    };

    for (size_t i = 0; i < config->n_routes; i++)
        options.numbers[i] = front->routes[i].number;
    if (config->server.status != NULL)
        front->status = status_create(&options);
    free(options.numbers);
}

static struct http *make_http(struct front *front)
{
    const struct config_server *server = &front->config->server;
    struct http_options options = {
        .base = front->base,
        .head = {.max_head = server->max_head,
                 .max_target = server->max_target,
                 .max_field = server->max_field,
                 .max_fields = server->max_fields},
        .chunked = {.max_overhead = server->max_chunk_overhead, .max_trailers = server->max_trailers},
        .max_body = server->max_body,
        .max_connections = server->max_connections / server->fronts,
        .clients = front->clients,
        .min_rate = server->min_rate,
        .keepalive_requests = server->keepalive_requests,
        .header_timeout_us = server->header_timeout_ms * 1000,
        .body_timeout_us = server->body_timeout_ms * 1000,
        .keepalive_timeout_us = server->keepalive_timeout_ms * 1000,
        .server_timing = server->server_timing,
        .request = on_request,
        .lasts = on_lasts,
        .done = on_done,
        .error_page = error_page,
        .refused = on_refused,
        .arg = front,
        .counters = &front->start->scoreboard->fronts[front->start->number].counters,
    };

    if (options.max_connections == 0)
        options.max_connections = 1;
    return http_create(&options);
}

static int prepare(struct front *front)
{
    const struct front_start *start = front->start;
    struct link_options link = {
        .fd = start->channel_fd,
        .accept = on_accept,
        .drain = on_drain,
        .logs = on_logs,
        .gone = on_keeper_gone,
        .arg = front,
    };
    struct gateway_options gateway = {
        .temp_dir = front->config->server.temp_dir,
        .max_temp = front->config->server.max_temp / front->config->server.fronts,
        .redirect = on_redirect,
        .authorized = on_authorized,
        .log = write_record,
        .arg = front,
    };

    int error = spawn_become(&front->config->server.user);
    if (error == 0)
        error = lockdown();
    if (error != 0) {
        log_error("a front cannot become user %s: %s", front->config->server.user.name, strerror(-error));
        return -1;
    }
    front->base = event_base_new();
    link.base = gateway.base = front->base;
    gateway.places = front->places = places_create(start->scoreboard, start->number);
    front->files = open_files_create(front->base, front->config);
    if (front->files == NULL)
        return -1;
    front->link = link_create(&link);
    front->gateway = gateway_create(&gateway);
    front->access_timer = evtimer_new(front->base, on_access_timer, front);
    set_access_log(front, start->access_fd);
    front->error_fd = start->error_fd;
    front->seats = seats_create(&start->scoreboard->seats, start->number);
    make_routes(front);
    make_status(front);
    if (front->config->server.max_connections_per_client > 0)
        front->clients = clients_create(start->scoreboard->clients, &start->scoreboard->n_fronts, start->number,
                                        start->scoreboard->secret, front->config->server.max_connections_per_client);
    front->http = make_http(front);
    link_say(front->link, MESSAGE_UP, 0, 0, 0);
    return 0;
}

static void free_front(struct front *front)
{
    http_destroy(front->http); /* first: nobody waits for the runs any more */
    clients_destroy(front->clients);
    for (size_t i = 0; i < front->config->n_routes; i++) {
        if (front->routes[i].cgi != NULL)
            cgi_destroy(front->routes[i].cgi);
        if (front->routes[i].scripts != NULL)
            scripts_destroy(front->routes[i].scripts);
    }
    for (size_t i = 0; i < front->config->n_pools; i++)
        if (front->pools[i] != NULL)
            fastcgi_pool_destroy(front->pools[i]);
    seats_destroy(front->seats);
    gateway_destroy(front->gateway);
    status_destroy(front->status);
    places_destroy(front->places);
    link_destroy(front->link);
    open_files_destroy(front->files);
    sink_flush(&front->access);
    sink_free(&front->access);
    event_free(front->access_timer);
    event_base_free(front->base);
    buffer_free(&front->line);
    free(front->pools);
    free(front->routes);
}

int front_run(const struct front_start *start)
{
    struct front front = {.start = start, .config = start->config};

    prctl(PR_SET_NAME, "gatehouse-front");
    if (prepare(&front) != 0)
        return EXIT_CANNOT_START;
    event_base_dispatch(front.base);
    free_front(&front);
    return 0;
}
