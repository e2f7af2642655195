/*
 * OpenMetrics (the text format 1.0.0). A family is its TYPE and HELP lines and all of its samples together, so pools
 * are gone through once for each family.
 */
#include <inttypes.h>

#include "site/status_inside.h"
#include "site/status_text.h"

#define U64 "%" PRIu64

static void begin(struct buffer *to, const char *name, const char *type, const char *help)
{
    buffer_printf(to, "# TYPE gatehouse_%s %s\n# HELP gatehouse_%s %s\n", name, type, name, help);
}

static void gauge(struct buffer *to, const char *name, const char *help, uint64_t value)
{
    begin(to, name, "gauge", help);
    buffer_printf(to, "gatehouse_%s " U64 "\n", name, value);
}

static void counter(struct buffer *to, const char *name, const char *help, uint64_t value)
{
    begin(to, name, "counter", help);
    buffer_printf(to, "gatehouse_%s_total " U64 "\n", name, value);
}

static void write_server(struct buffer *to, const struct view *view)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

    begin(to, "build", "info", "The program that answers.");
    buffer_append_span(to, SPAN("gatehouse_build_info{version=\"" GATEHOUSE_VERSION "\"} 1\n"));
    gauge(to, "up", "The server runs.", 1);
    gauge(to, "draining", "The server ends as soon as the requests in flight are answered.", view->is_draining);
    begin(to, "start_time_seconds", "gauge", "When the server was started, as Unix time.");
    buffer_append_span(to, SPAN("# UNIT gatehouse_start_time_seconds seconds\ngatehouse_start_time_seconds "));
    text_seconds(to, view->start_unix_us);
    buffer_append_span(to, SPAN("\n"));
    gauge(to, "generation", "Counts the configurations that were in use.", view->generation);
    gauge(to, "fronts", "Processes that speak with clients.", view->n_fronts);
    gauge(to, "connections", "Clients' connections that are open.", view->open);
    counter(to, "connections_accepted", "Clients' connections.", view->accepted);
    counter(to, "requests", "Requests answered.", view->requests);
    begin(to, "responses", "counter", "Answers by the class of their status.");
    for (unsigned i = 0; i < 6; i++)
        buffer_printf(to, "gatehouse_responses_total{class=\"%s\"} " U64 "\n", classes[i], view->statuses[i]);
}

/* ---- pools ---- */

/* One sample of a family: its other label, if any, and its value. */
struct sample {
    const char *label;
    uint64_t value;
};

enum { MOST_SAMPLES = 6 };

struct family {
    const char *name, *type, *help;
    const char *label; /* the name of the other label; NULL: none */
    unsigned (*take)(const struct view_pool *pool, struct sample samples[MOST_SAMPLES]);
};

static unsigned one(struct sample *samples, uint64_t value)
{
    samples[0] = (struct sample){NULL, value};
    return 1;
}

static unsigned take_processes(const struct view_pool *pool, struct sample *samples)
{
    samples[0] = (struct sample){"idle", pool->n_idle};
    samples[1] = (struct sample){"active", pool->n_active};
    samples[2] = (struct sample){"starting", pool->n_starting};
    samples[3] = (struct sample){"retiring", pool->n_retiring};
    return status_has_processes(pool) ? 4 : 2;
}

static unsigned take_slots(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->about.capacity);
}

static unsigned take_most_active(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->most_active);
}

static unsigned take_queue(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->n_waiting);
}

static unsigned take_most_waiting(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->most_waiting);
}

static unsigned take_queue_limit(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->about.queue_limit);
}

static unsigned take_down(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->is_down);
}

static unsigned take_requests(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->n_accepted);
}

static unsigned take_refused(const struct view_pool *pool, struct sample *samples)
{
    samples[0] = (struct sample){"queue_full", pool->n_full};
    samples[1] = (struct sample){"queue_timeout", pool->n_expired};
    samples[2] = (struct sample){"down", pool->n_down};
    samples[3] = (struct sample){"client_left", pool->n_left};
    return 4;
}

static unsigned take_failed(const struct view_pool *pool, struct sample *samples)
{
    samples[0] = (struct sample){"crashed", pool->n_crashed};
    samples[1] = (struct sample){"terminated", pool->n_terminated};
    return 2;
}

static unsigned take_slow(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->n_slow);
}

static unsigned take_retried(const struct view_pool *pool, struct sample *samples)
{
    return one(samples, pool->n_retried);
}

static unsigned take_started(const struct view_pool *pool, struct sample *samples)
{
    return status_has_processes(pool) ? one(samples, pool->n_started) : 0;
}

static unsigned take_limit_reached(const struct view_pool *pool, struct sample *samples)
{
    return status_has_processes(pool) ? one(samples, pool->n_limit_reached) : 0;
}

static unsigned take_exits(const struct view_pool *pool, struct sample *samples)
{
    samples[0] = (struct sample){"status_0", pool->ends[END_EXITED]};
    samples[1] = (struct sample){"other_status", pool->ends[END_FAILED]};
    samples[2] = (struct sample){"signal", pool->ends[END_SIGNAL]};
    samples[3] = (struct sample){"terminated", pool->ends[END_TERMINATED]};
    return status_has_processes(pool) ? 4 : 0;
}

static unsigned take_retired(const struct view_pool *pool, struct sample *samples)
{
    samples[0] = (struct sample){"max_requests", pool->ends[END_REQUESTS]};
    samples[1] = (struct sample){"max_memory", pool->ends[END_MEMORY]};
    samples[2] = (struct sample){"max_age", pool->ends[END_AGE]};
    samples[3] = (struct sample){"idle", pool->ends[END_IDLE]};
    samples[4] = (struct sample){"reload", pool->ends[END_RELOAD]};
    return status_has_processes(pool) ? 5 : 0;
}

static const struct family families[] = {
    {"pool_processes", "gauge", "Processes, runs or connections of a pool.", "state", take_processes},
    {"pool_slots", "gauge", "Requests that a pool may serve at once.", NULL, take_slots},
    {"pool_active_most", "gauge", "The most that were active at once.", NULL, take_most_active},
    {"pool_queue", "gauge", "Requests that wait for their turn.", NULL, take_queue},
    {"pool_queue_most", "gauge", "The most that have waited at once.", NULL, take_most_waiting},
    {"pool_queue_slots", "gauge", "Requests that may wait, in each front.", NULL, take_queue_limit},
    {"pool_down", "gauge", "Nothing can be started.", NULL, take_down},
    {"pool_requests", "counter", "Requests for a pool.", NULL, take_requests},
    {"pool_refused", "counter", "Requests that never had a turn.", "reason", take_refused},
    {"pool_failed", "counter", "Requests that had one, and no whole answer.", "cause", take_failed},
    {"pool_slow", "counter", "Requests for the slow log.", NULL, take_slow},
    {"pool_retried", "counter", "Requests that were sent once more.", NULL, take_retried},
    {"pool_started", "counter", "Processes started.", NULL, take_started},
    {"pool_max_children_reached", "counter", "Times that more processes would have been started.", NULL,
     take_limit_reached},
    {"pool_exits", "counter", "Processes that were not retired.", "cause", take_exits},
    {"pool_retired", "counter", "Processes that were retired.", "reason", take_retired},
};

/* Script pools of one name are told apart by their script. */
static void write_pool_labels(struct buffer *to, const struct view_pool *pool)
{
    buffer_append_span(to, SPAN("{pool=\""));
    text_label(to, pool->about.name);
    if (pool->about.script[0] != '\0') {
        buffer_append_span(to, SPAN("\",script=\""));
        text_label(to, pool->about.script);
    }
    buffer_append_span(to, SPAN("\""));
}

static void write_family(struct buffer *to, const struct view *view, const struct family *family)
{
    struct sample samples[MOST_SAMPLES];
    bool is_counter = family->type[0] == 'c';

    begin(to, family->name, family->type, family->help);
    for (unsigned i = 0; i < view->n_pools; i++) {
        const struct view_pool *pool = &view->pools[i];
        unsigned n = status_is_pool(pool) && pool->about.is_current ? family->take(pool, samples) : 0;

        for (unsigned k = 0; k < n; k++) {
            buffer_printf(to, "gatehouse_%s%s", family->name, is_counter ? "_total" : "");
            write_pool_labels(to, pool);
            if (family->label != NULL)
                buffer_printf(to, ",%s=\"%s\"", family->label, samples[k].label);
            buffer_printf(to, "} " U64 "\n", samples[k].value);
        }
    }
}

/* ---- servers of pools ---- */

/* Of one server; false: there is no such sample of it. */
typedef bool take_server(const struct view_server *server, uint64_t *value_out);

/* One that is about to go is not missed. */
static bool take_server_up(const struct view_server *server, uint64_t *value_out)
{
    *value_out = server->state == SEAT_UP;
    return server->state != SEAT_LEAVING;
}

static bool take_server_connections(const struct view_server *server, uint64_t *value_out)
{
    *value_out = server->n_connections;
    return true;
}

static bool take_server_requests(const struct view_server *server, uint64_t *value_out)
{
    *value_out = server->n_requests;
    return true;
}

static bool take_server_failures(const struct view_server *server, uint64_t *value_out)
{
    *value_out = server->n_failures;
    return true;
}

static const struct {
    const char *name, *type, *help;
    take_server *take;
} server_families[] = {
    {"server_up", "gauge", "A server of a pool gets requests.", take_server_up},
    {"server_connections", "gauge", "Connections to it.", take_server_connections},
    {"server_requests", "counter", "Requests that it has answered.", take_server_requests},
    {"server_failures", "counter", "Its failures.", take_server_failures},
};

static void write_server_family(struct buffer *to, const struct view *view, const struct view_pool *pool, size_t family)
{
    bool is_counter = server_families[family].type[0] == 'c';
    uint64_t value;

    for (unsigned i = 0; i < pool->n_servers; i++) {
        const struct view_server *server = &view->servers[pool->first_server + i];

        if (!server_families[family].take(server, &value))
            continue;
        buffer_printf(to, "gatehouse_%s%s", server_families[family].name, is_counter ? "_total" : "");
        write_pool_labels(to, pool);
        buffer_append_span(to, SPAN(",server=\""));
        text_label(to, server->address);
        buffer_printf(to, "\"} " U64 "\n", value);
    }
}

static void write_servers(struct buffer *to, const struct view *view)
{
    for (size_t family = 0; family < sizeof server_families / sizeof *server_families; family++) {
        begin(to, server_families[family].name, server_families[family].type, server_families[family].help);
        for (unsigned i = 0; i < view->n_pools; i++)
            if (view->pools[i].about.is_current)
                write_server_family(to, view, &view->pools[i], family);
    }
}

/* ---- phases ---- */

static void write_route_labels(struct buffer *to, const struct status_route *route, const char *phase)
{
    buffer_printf(to, "gateway=\"%s\",site=\"", route->gateway);
    text_label(to, route->site);
    buffer_append_span(to, SPAN("\",route=\""));
    text_label(to, route->route);
    buffer_printf(to, "\",phase=\"%s\"", phase);
}

/* Nothing of one that never was. */
static void write_histogram(struct buffer *to, const struct status_route *route, const char *phase,
                            const struct view_histogram *histogram)
{
    struct buffer labels = {0};
    uint64_t count = 0;

    for (unsigned i = 0; i < SCOREBOARD_BUCKETS; i++)
        count += histogram->buckets[i];
    if (count == 0)
        return;
    write_route_labels(&labels, route, phase);
    count = 0;
    for (unsigned i = 0; i < SCOREBOARD_BUCKETS; i++) {
        count += histogram->buckets[i];
        buffer_append_span(to, SPAN("gatehouse_phase_seconds_bucket{"));
        buffer_append_span(to, buffer_span(&labels));
        buffer_append_span(to, SPAN(",le=\""));
        if (i < SCOREBOARD_BUCKETS - 1) /* a whole number has its ".0" by the standard */
            buffer_printf(to, "%g%s", (double)scoreboard_bounds_us[i] / 1e6,
                          scoreboard_bounds_us[i] % 1000000 == 0 ? ".0" : "");
        else
            buffer_append_span(to, SPAN("+Inf"));
        buffer_printf(to, "\"} " U64 "\n", count);
    }
    buffer_append_span(to, SPAN("gatehouse_phase_seconds_count{"));
    buffer_append_span(to, buffer_span(&labels));
    buffer_printf(to, "} " U64 "\ngatehouse_phase_seconds_sum{", count);
    buffer_append_span(to, buffer_span(&labels));
    buffer_append_span(to, SPAN("} "));
    text_seconds(to, histogram->sum_us);
    buffer_append_span(to, SPAN("\n"));
    buffer_free(&labels);
}

static void write_phases(struct buffer *to, const struct status *status)
{
    static const struct status_route files = {"static", "", "", 0};
    struct view_histogram histogram;

    begin(to, "phase_seconds", "histogram", "How long each phase of a request took.");
    buffer_append_span(to, SPAN("# UNIT gatehouse_phase_seconds seconds\n"));
    view_files(status->scoreboard, &histogram);
    write_histogram(to, &files, phase_names[PHASE_TOTAL], &histogram);
    for (size_t i = 0; i < status->n_routes; i++)
        for (unsigned phase = 0; phase < N_PHASES; phase++) {
            view_phase(status->scoreboard, status->routes[i].number, phase, &histogram);
            write_histogram(to, &status->routes[i], phase_names[phase], &histogram);
        }
}

void status_write_metrics(struct buffer *to, const struct view *view, const struct status *status)
{
    write_server(to, view);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        write_family(to, view, &families[i]);
    write_servers(to, view);
    write_phases(to, status);
    buffer_append_span(to, SPAN("# EOF\n"));
}
