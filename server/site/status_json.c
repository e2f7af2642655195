#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "site/status_inside.h"
#include "site/status_text.h"

#define U64 "%" PRIu64

static const char *const states[] = {
    [VIEW_IDLE] = "Idle",
    [VIEW_RUNNING] = "Running",
    [VIEW_STARTING] = "Starting",
    [VIEW_RETIRING] = "Retiring",
};

const char *status_manager(const struct view_pool *pool)
{
    static const char *const managers[] = {"static", "dynamic", "ondemand"};

    if (pool->about.kind == 0)
        return managers[pool->about.pm < 3 ? pool->about.pm : 0];
    return pool->about.kind == 1 ? "cgi" : "servers";
}

const char *status_server_state(const struct view_server *server)
{
    static const char *const words[] = {
        [SEAT_UP] = "up",    [SEAT_DOWN] = "down",       [SEAT_TRYING] = "trying",
        [SEAT_ILL] = "down", [SEAT_LEAVING] = "leaving",
    };

    return words[server->state];
}

static uint64_t seconds(uint64_t us)
{
    return us / 1000000;
}

static uint64_t age(const struct view *view, uint64_t start_us)
{
    return view->now_us > start_us && start_us > 0 ? view->now_us - start_us : 0;
}

/* ---- the server ---- */

static void write_fronts(struct buffer *to, const struct view *view)
{
    buffer_append_span(to, SPAN("\"fronts\":["));
    for (unsigned i = 0; i < view->n_fronts; i++) {
        const struct view_front *front = &view->fronts[i];

        buffer_printf(to,
                      "%s{\"pid\":%d,\"generation\":%u,\"draining\":%s,\"start since\":" U64 ",\"connections\":" U64
                      ",\"accepted connections\":" U64 ",\"requests\":" U64 "}",
                      i > 0 ? "," : "", front->pid, front->generation, front->is_draining ? "true" : "false",
                      seconds(age(view, front->start_us)), front->open, front->accepted, front->requests);
    }
    buffer_append_span(to, SPAN("]"));
}

static void write_server(struct buffer *to, const struct view *view, const struct status *status)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

    buffer_printf(to,
                  "\"server\":{\"version\":\"" GATEHOUSE_VERSION "\",\"pid\":%d,\"answered by\":%d,\"generation\":%u,"
                  "\"draining\":%s,\"start time\":" U64 ",\"start since\":" U64 ",\"connections\":" U64
                  ",\"accepted connections\":" U64 ",\"requests\":" U64 ",\"responses\":{",
                  (int)getppid(), (int)getpid(), view->generation, view->is_draining ? "true" : "false",
                  seconds(view->start_unix_us), seconds(age(view, view->start_us)), view->open, view->accepted,
                  view->requests);
    for (unsigned i = 0; i < 6; i++)
        buffer_printf(to, "%s\"%s\":" U64, i > 0 ? "," : "", classes[i], view->statuses[i]);
    buffer_append_span(to, SPAN("},"));
    write_fronts(to, view);
    buffer_append_span(to, SPAN("}"));
    (void)status;
}

/* ---- processes ---- */

/* As php-fpm has it: percent of one processor, of the last request that is over. */
static void write_cpu(struct buffer *to, const struct view_process *process)
{
    uint64_t hundredths = 0;

    if (process->last_cpu_us != UINT64_MAX && process->last_us > 0)
        hundredths = process->last_cpu_us * 10000 / process->last_us;
    buffer_printf(to, ",\"last request cpu\":" U64 ".%02u", hundredths / 100, (unsigned)(hundredths % 100));
    if (process->last_cpu_us == UINT64_MAX) {
        buffer_append_span(to, SPAN(",\"last request cpu ms\":null"));
        return;
    }
    buffer_append_span(to, SPAN(",\"last request cpu ms\":"));
    text_ms(to, process->last_cpu_us);
}

static void write_process(struct buffer *to, const struct view *view, const struct view_process *process)
{
    buffer_printf(to,
                  "{\"pid\":%d,\"state\":\"%s\",\"start time\":" U64 ",\"start since\":" U64 ",\"requests\":" U64
                  ",\"request duration\":" U64 ",\"request method\":",
                  process->pid, states[process->state], seconds(process->start_unix_us),
                  seconds(age(view, process->start_us)), process->requests, process->duration_us);
    text_json(to, process->method[0] != '\0' ? process->method : "-");
    buffer_append_span(to, SPAN(",\"request uri\":"));
    text_json(to, process->uri[0] != '\0' ? process->uri : "-");
    buffer_append_span(to, SPAN(",\"user\":"));
    text_json(to, process->user[0] != '\0' ? process->user : "-");
    write_cpu(to, process);
    buffer_printf(to, ",\"last request memory\":" U64 "}", process->memory);
}

static void write_processes(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    buffer_append_span(to, SPAN(",\"processes\":["));
    for (unsigned i = 0; i < pool->n_processes; i++) {
        if (i > 0)
            buffer_append_span(to, SPAN(","));
        write_process(to, view, &view->processes[pool->first_process + i]);
    }
    buffer_append_span(to, SPAN("]"));
}

/* ---- servers ---- */

static void write_remote(struct buffer *to, const struct view *view, const struct view_server *server)
{
    buffer_append_span(to, SPAN("{\"address\":"));
    text_json(to, server->address);
    buffer_printf(to, ",\"state\":\"%s\",\"state since\":", status_server_state(server));
    if (server->since_us != 0)
        buffer_printf(to, U64, seconds(age(view, server->since_us)));
    else
        buffer_append_span(to, SPAN("null"));
    buffer_printf(to,
                  ",\"connections\":" U64 ",\"idle connections\":" U64 ",\"limit\":%u,\"weight\":%u"
                  ",\"requests\":" U64 ",\"failures\":" U64 ",\"last failure\":",
                  server->n_connections, server->n_idle, server->limit, server->weight, server->n_requests,
                  server->n_failures);
    if (server->why[0] != '\0')
        text_json(to, server->why);
    else
        buffer_append_span(to, SPAN("null"));
    buffer_append_span(to, SPAN("}"));
}

static void write_remotes(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    buffer_append_span(to, SPAN(",\"servers\":["));
    for (unsigned i = 0; i < pool->n_servers; i++) {
        if (i > 0)
            buffer_append_span(to, SPAN(","));
        write_remote(to, view, &view->servers[pool->first_server + i]);
    }
    buffer_append_span(to, SPAN("]"));
}

/* ---- pools ---- */

static void write_waits(struct buffer *to, const struct view_waits *waits)
{
    const struct {
        const char *name;
        uint32_t us;
    } values[] = {{"p50", waits->p50}, {"p90", waits->p90}, {"p99", waits->p99}, {"max", waits->most}};

    buffer_printf(to, ",\"queue wait\":{\"count\":" U64 ",\"sample\":%u", waits->n, waits->n_sample);
    for (unsigned i = 0; i < 4; i++) {
        buffer_printf(to, ",\"%s\":", values[i].name);
        text_ms(to, values[i].us);
    }
    buffer_append_span(to, SPAN("}"));
}

static void write_limits(struct buffer *to, const struct view_pool *pool)
{
    const struct scoreboard_pool *about = &pool->about;

    buffer_printf(to, ",\"limits\":{\"slots\":%u,\"queue\":%u,\"queue_timeout ms\":" U64, about->capacity,
                  about->queue_limit, about->queue_timeout_ms);
    if (status_has_processes(pool))
        buffer_printf(to,
                      ",\"pm.max_children\":%u,\"pm.start_servers\":%u,\"pm.min_spare_servers\":%u,"
                      "\"pm.max_spare_servers\":%u,\"pm.max_spawn_rate\":%u,\"pm.process_idle_timeout ms\":" U64
                      ",\"pm.max_requests\":" U64 ",\"max_memory\":" U64 ",\"max_age ms\":" U64
                      ",\"request_terminate_timeout ms\":" U64 ",\"request_slowlog_timeout ms\":" U64,
                      about->capacity, about->start_servers, about->min_spare, about->max_spare, about->max_spawn_rate,
                      about->idle_timeout_ms, about->max_requests, about->max_memory, about->max_age_ms,
                      about->terminate_ms, about->slowlog_ms);
    buffer_append_span(to, SPAN("}"));
}

/* Those that ended by themselves have been replaced as the pool's manager wants it. */
static void write_ends(struct buffer *to, const struct view_pool *pool)
{
    const uint64_t *ends = pool->ends;

    buffer_printf(to,
                  ",\"started\":" U64 ",\"restarts\":" U64 ",\"exits\":{\"status 0\":" U64 ",\"other status\":" U64
                  ",\"signal\":" U64 ",\"terminated\":" U64 "},\"retired\":{\"max_requests\":" U64
                  ",\"max_memory\":" U64 ",\"max_age\":" U64 ",\"idle\":" U64 ",\"reload\":" U64 "}",
                  pool->n_started, ends[END_EXITED] + ends[END_FAILED] + ends[END_SIGNAL] + ends[END_TERMINATED],
                  ends[END_EXITED], ends[END_FAILED], ends[END_SIGNAL], ends[END_TERMINATED], ends[END_REQUESTS],
                  ends[END_MEMORY], ends[END_AGE], ends[END_IDLE], ends[END_RELOAD]);
}

static void write_saturation(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    if (pool->full_unix_us == 0) {
        buffer_append_span(to, SPAN(",\"last saturation\":null"));
        return;
    }
    buffer_append_span(to, SPAN(",\"last saturation\":{\"time\":"));
    text_seconds(to, pool->full_unix_us);
    buffer_printf(to, ",\"since\":" U64 ",\"holders\":",
                  view->now_unix_us > pool->full_unix_us ? seconds(view->now_unix_us - pool->full_unix_us) : 0);
    text_json(to, pool->full_text);
    buffer_append_span(to, SPAN("}"));
}

/* php-fpm's names and meanings, in its order. */
static void write_fpm(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    buffer_append_span(to, SPAN("{\"pool\":"));
    text_json(to, pool->about.name);
    buffer_printf(to,
                  ",\"process manager\":\"%s\",\"start time\":" U64 ",\"start since\":" U64 ",\"accepted conn\":" U64
                  ",\"listen queue\":%u,\"max listen queue\":%u,\"listen queue len\":%u,\"idle processes\":%u,"
                  "\"active processes\":%u,\"total processes\":%u,\"max active processes\":%u,"
                  "\"max children reached\":" U64 ",\"slow requests\":" U64,
                  status_manager(pool), seconds(pool->about.start_unix_us), seconds(age(view, pool->about.start_us)),
                  pool->n_accepted, pool->n_waiting, pool->most_waiting, pool->about.queue_limit, pool->n_idle,
                  pool->n_active, pool->n_total, pool->most_active, pool->n_limit_reached, pool->n_slow);
}

static void write_pool(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    write_fpm(to, view, pool);
    if (pool->about.script[0] != '\0') {
        buffer_append_span(to, SPAN(",\"script\":"));
        text_json(to, pool->about.script);
    }
    buffer_printf(to,
                  ",\"current\":%s,\"down\":%s,\"starting processes\":%u,\"retiring processes\":%u,"
                  "\"refused\":{\"queue full\":" U64 ",\"queue timeout\":" U64 ",\"down\":" U64 ",\"client left\":" U64
                  "},\"crashed\":" U64 ",\"terminated\":" U64 ",\"retried\":" U64,
                  pool->about.is_current ? "true" : "false", pool->is_down ? "true" : "false", pool->n_starting,
                  pool->n_retiring, pool->n_full, pool->n_expired, pool->n_down, pool->n_left, pool->n_crashed,
                  pool->n_terminated, pool->n_retried);
    write_limits(to, pool);
    write_waits(to, &pool->waits);
    write_ends(to, pool);
    write_saturation(to, view, pool);
    write_processes(to, view, pool);
    if (status_has_servers(pool))
        write_remotes(to, view, pool);
    buffer_append_span(to, SPAN("}"));
}

void status_write_json(struct buffer *to, const struct view *view, const struct status *status)
{
    const char *between = "";

    buffer_append_span(to, SPAN("{"));
    write_server(to, view, status);
    buffer_append_span(to, SPAN(",\"pools\":["));
    for (unsigned i = 0; i < view->n_pools; i++) {
        if (!status_is_pool(&view->pools[i]))
            continue;
        buffer_append_span(to, span_of(between));
        write_pool(to, view, &view->pools[i]);
        between = ",\n";
    }
    buffer_append_span(to, SPAN("]}\n"));
}

/* ---- requests in flight ---- */

static void write_member(struct buffer *to, const char *name, const char *text)
{
    buffer_printf(to, ",\"%s\":", name);
    if (text[0] != '\0')
        text_json(to, text);
    else
        buffer_append_span(to, SPAN("null"));
}

static void write_request(struct buffer *to, const struct status *status, const struct view_found *found,
                          const struct scoreboard_request *request, uint64_t now_us)
{
    uint32_t pool = request->pool;
    uint64_t state_us = request->state_us;
    char name[sizeof status->scoreboard->pools[0].name + 1] = "";

    if (pool < SCOREBOARD_POOLS)
        memcpy(name, status->scoreboard->pools[pool].name, sizeof name - 1);
    buffer_append_span(to, SPAN("{\"id\":"));
    text_json(to, request->id);
    write_member(to, "client", request->client);
    write_member(to, "user", request->user);
    write_member(to, "method", request->method);
    write_member(to, "uri", request->uri);
    write_member(to, "site", request->site);
    write_member(to, "route", request->route);
    write_member(to, "pool", name);
    buffer_printf(to, ",\"front\":%d", (int)status->scoreboard->fronts[found->front].pid);
    if (request->pid != 0)
        buffer_printf(to, ",\"pid\":%d", (int)request->pid);
    else
        buffer_append_span(to, SPAN(",\"pid\":null"));
    buffer_printf(to, ",\"phase\":\"%s\",\"age ms\":", view_phase_name(request));
    text_ms(to, now_us > found->started_us ? now_us - found->started_us : 0);
    buffer_append_span(to, SPAN(",\"queue ms\":"));
    uint64_t granted_us = request->granted_us != 0 ? request->granted_us : now_us;
    text_ms(to, granted_us > found->started_us ? granted_us - found->started_us : 0);
    buffer_append_span(to, SPAN(",\"phase ms\":"));
    text_ms(to, now_us > state_us ? now_us - state_us : 0);
    buffer_printf(to, ",\"bytes out\":" U64 "}", (uint64_t)request->bytes_out);
}

void status_write_requests(struct buffer *to, const struct status *status)
{
    struct view_requests found;
    struct scoreboard_request request;
    uint64_t now_us = clock_us();
    const char *between = "";

    view_requests_find(status->scoreboard, &found);
    buffer_printf(to, "{\"total\":%zu,\"requests\":[", found.n_all);
    for (size_t i = 0; i < found.n; i++) {
        if (!view_request(status->scoreboard, &found.at[i], &request))
            continue;
        buffer_append_span(to, span_of(between));
        write_request(to, status, &found.at[i], &request, now_us);
        between = ",\n";
    }
    buffer_append_span(to, SPAN("]}\n"));
    view_requests_free(&found);
}
