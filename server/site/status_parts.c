/*
 * The parts of the page: the server; each pool; the requests in flight. Colours never tell alone: each cell says its
 * state in words, too, and each picture has a text.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "site/status_inside.h"
#include "site/status_text.h"

enum {
    MOST_CELLS = 256, /* of a pool; the others are counted */
    MANY_CELLS = 48,  /* so many are drawn small */
    FREE_CELLS = 32,  /* places that processes may take yet */
    SLOWEST = 20,     /* requests */
    BAR = 240,        /* width of the pictures */
    BINS_HIGH = 34,
};

#define U64 "%" PRIu64

/* ---- which there are ---- */

static const struct view_pool *pool_at(const struct view *view, unsigned i)
{
    for (unsigned k = 0; k < view->n_pools; k++)
        if (status_is_pool(&view->pools[k]) && i-- == 0)
            return &view->pools[k];
    return NULL;
}

unsigned parts_count(const struct view *view)
{
    unsigned n = 2;

    for (unsigned i = 0; i < view->n_pools; i++)
        n += status_is_pool(&view->pools[i]);
    return n;
}

void parts_get(const struct view *view, unsigned i, struct part *out)
{
    *out = (struct part){.pool = i > 0 ? pool_at(view, i - 1) : NULL};
    if (out->pool != NULL)
        snprintf(out->id, sizeof out->id, "pool-%u", out->pool->number);
    else
        snprintf(out->id, sizeof out->id, "%s", i == 0 ? "server" : "requests");
}

uint64_t parts_shape(const struct view *view)
{
    uint64_t shape = 0xcbf29ce484222325;

    for (unsigned i = 0; i < view->n_pools; i++)
        shape = (shape ^ (status_is_pool(&view->pools[i]) ? view->pools[i].number + 1 : 0)) * 0x100000001b3;
    return (shape ^ view->start_unix_us) * 0x100000001b3;
}

/* ---- the server ---- */

static uint64_t since(uint64_t now, uint64_t then)
{
    return now > then ? now - then : 0;
}

static void begin_fact(struct buffer *to, const char *name)
{
    buffer_printf(to, "<div><dt>%s</dt><dd>", name);
}

static void end_fact(struct buffer *to)
{
    buffer_append_span(to, SPAN("</dd></div>\n"));
}

static void fact(struct buffer *to, const char *name, uint64_t value)
{
    begin_fact(to, name);
    buffer_printf(to, U64, value);
    end_fact(to);
}

static void fact_time(struct buffer *to, const char *name, uint64_t us)
{
    begin_fact(to, name);
    text_duration(to, us);
    end_fact(to);
}

/* 0 is "none". */
static void fact_limit(struct buffer *to, const char *name, uint64_t value,
                       void (*write)(struct buffer *to, uint64_t value))
{
    begin_fact(to, name);
    if (value == 0)
        buffer_append_span(to, SPAN("none"));
    else
        write(to, value);
    end_fact(to);
}

static void write_number(struct buffer *to, uint64_t value)
{
    buffer_printf(to, U64, value);
}

static void write_server(struct buffer *to, const struct view *view)
{
    buffer_append_span(to, SPAN("<dl class=\"facts\">\n"));
    fact_time(to, "running for", since(view->now_us, view->start_us));
    fact(to, "connections", view->open);
    fact(to, "requests answered", view->requests);
    begin_fact(to, "answered 5xx");
    buffer_printf(to, "<span%s>" U64 "</span>", view->statuses[5] > 0 ? " class=\"bad\"" : "", view->statuses[5]);
    end_fact(to);
    fact(to, "fronts", view->n_fronts);
    fact(to, "configuration", view->generation);
    if (view->is_draining)
        buffer_append_span(to, SPAN("<div><dt>state</dt><dd class=\"bad\">draining</dd></div>\n"));
    buffer_append_span(to,
                       SPAN("</dl>\n<details class=\"fronts\"><summary>Fronts</summary><div class=\"scroll\"><table>"
                            "<tr><th>pid<th>configuration<th class=\"num\">connections<th class=\"num\">requests"
                            "<th>running for<th></tr>\n"));
    for (unsigned i = 0; i < view->n_fronts; i++) {
        const struct view_front *front = &view->fronts[i];

        buffer_printf(to, "<tr><td>%d<td>%u<td class=\"num\">" U64 "<td class=\"num\">" U64 "<td>", front->pid,
                      front->generation, front->open, front->requests);
        text_duration(to, since(view->now_us, front->start_us));
        buffer_printf(to, "<td>%s</tr>\n", front->is_draining ? "draining" : "");
    }
    buffer_append_span(to, SPAN("</table></div></details>\n"));
}

/* ---- cells ---- */

static const struct {
    const char *style, *word;
} looks[] = {
    [VIEW_IDLE] = {"idle", "idle"},
    [VIEW_RUNNING] = {"busy", "busy"},
    [VIEW_STARTING] = {"starting", "starting"},
    [VIEW_RETIRING] = {"retiring", "retiring"},
};

static void write_cell(struct buffer *to, const struct view *view, const struct view_process *process)
{
    buffer_printf(to, "<li class=\"%s\" title=\"process %d, %s", looks[process->state].style, process->pid,
                  looks[process->state].word);
    if (process->uri[0] != '\0') {
        buffer_append_span(to, process->is_busy ? SPAN(": ") : SPAN("; last: "));
        text_html(to, process->method);
        buffer_append_span(to, SPAN(" "));
        text_html(to, process->uri);
    }
    buffer_printf(to, "; " U64 " requests, running for ", process->requests);
    text_duration(to, since(view->now_us, process->start_us));
    if (process->memory > 0) {
        buffer_append_span(to, SPAN(", "));
        text_bytes(to, process->memory);
    }
    buffer_printf(to, "\"><b>%s", looks[process->state].word);
    if (process->is_busy) {
        buffer_append_span(to, SPAN(" "));
        text_duration(to, process->duration_us);
    }
    buffer_printf(to, "</b>%d</li>\n", process->pid);
}

/* Connections, of which no more is known than how many there are. */
static void write_plain_cells(struct buffer *to, const char *word, const char *style, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        buffer_printf(to, "<li class=\"%s\"><b>%s</b></li>\n", style, word);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static void write_cells(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    bool is_listed = pool->about.kind != 2;
    unsigned n = is_listed ? pool->n_processes : pool->n_total, shown = least(n, MOST_CELLS);
    unsigned room = pool->about.capacity > n ? pool->about.capacity - n : 0;

    buffer_printf(to, "<ul class=\"cells%s\">\n", n > MANY_CELLS ? " many" : "");
    for (unsigned i = 0; is_listed && i < shown; i++)
        write_cell(to, view, &view->processes[pool->first_process + i]);
    if (!is_listed) {
        write_plain_cells(to, "busy", "busy", least(pool->n_active, shown));
        write_plain_cells(to, "idle", "idle", shown - least(pool->n_active, shown));
    }
    if (n > shown)
        buffer_printf(to, "<li class=\"free\"><b>and %u more</b></li>\n", n - shown);
    if (room > 0 && n <= MANY_CELLS)
        write_plain_cells(to, "free", "free", least(room, FREE_CELLS));
    if (room > FREE_CELLS || (room > 0 && n > MANY_CELLS))
        buffer_printf(to, "<li class=\"free\"><b>room for %u%s</b></li>\n",
                      room > FREE_CELLS ? room - FREE_CELLS : room, n <= MANY_CELLS ? " more" : "");
    buffer_append_span(to, SPAN("</ul>\n"));
}

/* ---- servers ---- */

static void write_server_cell(struct buffer *to, const struct view *view, const struct view_server *server)
{
    const char *word = status_server_state(server);

    buffer_printf(to, "<li class=\"%s\" title=\"server ", word);
    text_html(to, server->address);
    buffer_printf(to, ", %s", word);
    if (server->since_us != 0) {
        buffer_append_span(to, SPAN(" for "));
        text_duration(to, since(view->now_us, server->since_us));
    }
    buffer_printf(to, "; " U64 " connections of %u, weight %u, " U64 " requests, " U64 " failures",
                  server->n_connections, server->limit, server->weight, server->n_requests, server->n_failures);
    if (server->why[0] != '\0') {
        buffer_append_span(to, SPAN("; last failure: "));
        text_html(to, server->why);
    }
    buffer_printf(to, "\"><b>%s · " U64 " busy</b>", word, since(server->n_connections, server->n_idle));
    text_html(to, server->address);
    buffer_append_span(to, SPAN("</li>\n"));
}

static void write_server_cells(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    unsigned shown = least(pool->n_servers, MOST_CELLS);

    if (shown == 0)
        return;
    buffer_append_span(to, SPAN("<h3>Servers</h3><ul class=\"cells servers\">\n"));
    for (unsigned i = 0; i < shown; i++)
        write_server_cell(to, view, &view->servers[pool->first_server + i]);
    if (pool->n_servers > shown)
        buffer_printf(to, "<li class=\"free\"><b>and %u more</b></li>\n", pool->n_servers - shown);
    buffer_append_span(to, SPAN("</ul>\n"));
}

/* ---- pictures ---- */

static unsigned part_of_bar(uint64_t n, uint64_t all)
{
    return all > 0 ? (unsigned)((n < all ? n : all) * BAR / all) : 0;
}

static void write_queue(struct buffer *to, const struct view_pool *pool)
{
    unsigned limit = pool->about.queue_limit, wide = part_of_bar(pool->n_waiting, limit);
    unsigned mark = part_of_bar(pool->most_waiting, limit);

    buffer_printf(
        to,
        "<figure><h3>Queue</h3><svg viewBox=\"0 0 %d 14\" role=\"img\" aria-label=\"%u requests wait, of at most "
        "%u\"><rect class=\"back\" y=\"3\" width=\"%d\" height=\"8\" rx=\"2\"/>",
        BAR, pool->n_waiting, limit, BAR);
    if (pool->n_waiting > 0)
        buffer_printf(to, "<rect class=\"bar\" y=\"3\" width=\"%u\" height=\"8\" rx=\"2\"/>", wide > 2 ? wide : 2);
    if (pool->most_waiting > 0)
        buffer_printf(
            to, "<rect class=\"mark\" x=\"%u\" width=\"1.5\" height=\"14\"><title>the most ever: %u</title></rect>",
            mark, pool->most_waiting);
    buffer_printf(to, "</svg><figcaption><strong>%u</strong> waiting of %u <span class=\"soft\">· most %u</span>",
                  pool->n_waiting, limit, pool->most_waiting);
    uint64_t refused = pool->n_full + pool->n_expired + pool->n_down;
    if (refused > 0)
        buffer_printf(to, " · <span class=\"bad\">" U64 " refused</span>", refused);
    buffer_append_span(to, SPAN("</figcaption></figure>\n"));
}

static void write_bins(struct buffer *to, const struct view_waits *waits)
{
    const int wide = BAR / VIEW_BINS;
    unsigned most = 1;

    for (unsigned i = 0; i < VIEW_BINS; i++)
        most = waits->bins[i] > most ? waits->bins[i] : most;
    for (unsigned i = 0; i < VIEW_BINS; i++) {
        unsigned high = (waits->bins[i] * BINS_HIGH + most - 1) / most;

        buffer_printf(to, "<rect class=\"%s\" x=\"%d\" y=\"%u\" width=\"%d\" height=\"%u\"><title>",
                      high > 0 ? "bar" : "back", (int)i * wide + 1, BINS_HIGH - (high > 0 ? high : 1), wide - 2,
                      high > 0 ? high : 1);
        if (i == 0)
            buffer_append_span(to, SPAN("no wait"));
        else if (i == VIEW_BINS - 1)
            buffer_append_span(to, SPAN("longer"));
        else
            buffer_append_span(to, SPAN("up to ")), text_duration(to, view_bins_us[i]);
        buffer_printf(to, ": %u</title></rect>", waits->bins[i]);
    }
}

static void write_waits(struct buffer *to, const struct view_pool *pool)
{
    const struct view_waits *waits = &pool->waits;

    buffer_printf(to,
                  "<figure><h3>Waits, the last %u</h3><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"how long "
                  "requests have waited for their turn\">",
                  waits->n_sample, BAR, BINS_HIGH + 12);
    write_bins(to, waits);
    buffer_printf(to,
                  "<text x=\"3\" y=\"%d\">none</text><text x=\"62\" y=\"%d\">1 ms</text><text x=\"120\" y=\"%d\">30 ms"
                  "</text><text x=\"183\" y=\"%d\">1 s</text></svg><figcaption>half within <strong>",
                  BINS_HIGH + 10, BINS_HIGH + 10, BINS_HIGH + 10, BINS_HIGH + 10);
    text_duration(to, waits->p50);
    buffer_append_span(to, SPAN("</strong> <span class=\"soft\">· 90&#8239;% "));
    text_duration(to, waits->p90);
    buffer_append_span(to, SPAN(" · 99&#8239;% "));
    text_duration(to, waits->p99);
    buffer_append_span(to, SPAN(" · all "));
    text_duration(to, waits->most);
    buffer_append_span(to, SPAN("</span></figcaption></figure>\n"));
}

/* ---- a pool ---- */

static void write_counts(struct buffer *to, const struct view_pool *pool)
{
    uint64_t ends =
        pool->ends[END_EXITED] + pool->ends[END_FAILED] + pool->ends[END_SIGNAL] + pool->ends[END_TERMINATED];
    uint64_t retired = pool->ends[END_REQUESTS] + pool->ends[END_MEMORY] + pool->ends[END_AGE] + pool->ends[END_IDLE] +
                       pool->ends[END_RELOAD];

    buffer_append_span(to, SPAN("<div><h3>So far</h3><dl class=\"facts few\">\n"));
    fact(to, "requests", pool->n_accepted);
    fact(to, "most at once", pool->most_active);
    fact(to, "crashed", pool->n_crashed);
    fact(to, "terminated", pool->n_terminated);
    fact(to, "slow", pool->n_slow);
    if (status_has_processes(pool)) {
        fact(to, "started", pool->n_started);
        fact(to, "restarts", ends);
        fact(to, "retired", retired);
    }
    buffer_append_span(to, SPAN("</dl></div>\n"));
}

static void write_ms(struct buffer *to, uint64_t ms)
{
    text_duration(to, ms * 1000);
}

static void write_limits(struct buffer *to, const struct view_pool *pool)
{
    const struct scoreboard_pool *about = &pool->about;

    buffer_append_span(to, SPAN("<details class=\"limits\"><summary>Limits</summary><dl class=\"facts few\">\n"));
    fact(to, "queue", about->queue_limit);
    fact_limit(to, "queue_timeout", about->queue_timeout_ms, write_ms);
    if (!status_has_processes(pool)) {
        fact(to, "at once", about->capacity);
        buffer_append_span(to, SPAN("</dl></details>\n"));
        return;
    }
    fact(to, "pm.max_children", about->capacity);
    if (about->pm == 1) {
        fact(to, "pm.start_servers", about->start_servers);
        fact(to, "pm.min_spare_servers", about->min_spare);
        fact(to, "pm.max_spare_servers", about->max_spare);
    }
    if (about->pm == 2)
        fact_limit(to, "pm.process_idle_timeout", about->idle_timeout_ms, write_ms);
    fact_limit(to, "pm.max_requests", about->max_requests, write_number);
    fact_limit(to, "max_memory", about->max_memory, text_bytes);
    fact_limit(to, "max_age", about->max_age_ms, write_ms);
    fact_limit(to, "request_terminate_timeout", about->terminate_ms, write_ms);
    fact_limit(to, "request_slowlog_timeout", about->slowlog_ms, write_ms);
    buffer_append_span(to, SPAN("</dl></details>\n"));
}

static void write_saturation(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    char one[sizeof pool->full_text];
    const char *at = pool->full_text;

    if (pool->full_unix_us == 0)
        return;
    buffer_append_span(to, SPAN("<details class=\"full\"><summary>Last full "));
    text_duration(to, since(view->now_unix_us, pool->full_unix_us));
    buffer_append_span(to, SPAN(" ago: what held it</summary><ul class=\"holders\">\n"));
    while (*at != '\0') {
        size_t len = strcspn(at, ";");

        snprintf(one, sizeof one, "%.*s", (int)len, at);
        buffer_append_span(to, SPAN("<li>"));
        text_html(to, one);
        at += len + strspn(at + len, "; ");
    }
    buffer_append_span(to, SPAN("</ul></details>\n"));
}

static const char *noun_of(const struct view_pool *pool)
{
    static const char *const nouns[] = {"processes", "programs", "connections"};

    return nouns[pool->about.kind < 3 ? pool->about.kind : 0];
}

static void write_title(struct buffer *to, const struct view_pool *pool)
{
    buffer_append_span(to, SPAN("<h2>"));
    text_html(to, pool->about.name);
    buffer_printf(to, " <small>%s · %u of %u %s busy", status_manager(pool), pool->n_active, pool->about.capacity,
                  noun_of(pool));
    if (pool->about.script[0] != '\0') {
        buffer_append_span(to, SPAN(" · "));
        text_html(to, pool->about.script);
    }
    buffer_append_span(to, SPAN("</small>"));
    if (pool->is_down)
        buffer_append_span(to, SPAN(" <span class=\"badge\">down</span>"));
    else if (pool->about.capacity > 0 && pool->n_active >= pool->about.capacity)
        buffer_append_span(to, SPAN(" <span class=\"badge\">full</span>"));
    if (!pool->about.is_current)
        buffer_append_span(to, SPAN(" <span class=\"badge calm\">of an earlier configuration</span>"));
    buffer_append_span(to, SPAN("</h2>\n"));
    if (pool->is_down && pool->about.down_why[0] != '\0') {
        buffer_append_span(to, SPAN("<p class=\"bad\">"));
        text_html(to, pool->about.down_why);
        buffer_append_span(to, SPAN("</p>\n"));
    }
}

static void write_pool(struct buffer *to, const struct view *view, const struct view_pool *pool)
{
    write_title(to, pool);
    write_cells(to, view, pool);
    write_server_cells(to, view, pool);
    buffer_append_span(to, SPAN("<div class=\"pictures\">\n"));
    write_queue(to, pool);
    write_waits(to, pool);
    write_counts(to, pool);
    buffer_append_span(to, SPAN("</div>\n"));
    write_limits(to, pool);
    write_saturation(to, view, pool);
}

/* ---- requests ---- */

static void write_request(struct buffer *to, const struct status *status, const struct scoreboard_request *request,
                          uint64_t now_us)
{
    char name[sizeof status->scoreboard->pools[0].name + 1] = "";

    if (request->pool < SCOREBOARD_POOLS)
        memcpy(name, status->scoreboard->pools[request->pool].name, sizeof name - 1);
    buffer_append_span(to, SPAN("<tr><td class=\"num\">"));
    text_duration(to, since(now_us, request->started_us));
    buffer_printf(to, "<td>%s ", view_phase_name(request));
    text_duration(to, since(now_us, request->state_us));
    buffer_append_span(to, SPAN("<td>"));
    text_html(to, request->method);
    buffer_append_span(to, SPAN("<td class=\"uri\">"));
    text_html(to, request->uri);
    buffer_append_span(to, SPAN("<td>"));
    text_html(to, name);
    if (request->pid != 0)
        buffer_printf(to, "<td class=\"num\">%d<td>", (int)request->pid);
    else
        buffer_append_span(to, SPAN("<td class=\"num\">–<td>"));
    text_html(to, request->client[0] != '\0' ? request->client : "unix socket");
    buffer_append_span(to, SPAN("</tr>\n"));
}

static void write_requests(struct buffer *to, const struct status *status)
{
    struct view_requests found;
    struct scoreboard_request request;
    uint64_t now_us = clock_us();

    view_requests_find(status->scoreboard, &found);
    buffer_printf(to, "<h2>Requests in flight <small>%zu%s</small></h2>\n", found.n_all,
                  found.n_all > SLOWEST ? ", the slowest of them" : "");
    if (found.n_all > 0)
        buffer_append_span(to, SPAN("<div class=\"scroll\"><table><tr><th class=\"num\">age<th>phase<th>method<th>URI"
                                    "<th>pool<th class=\"num\">process<th>client</tr>\n"));
    for (size_t i = 0, n = 0; i < found.n && n < SLOWEST; i++) {
        if (!view_request(status->scoreboard, &found.at[i], &request))
            continue;
        write_request(to, status, &request, now_us);
        n++;
    }
    if (found.n_all > 0)
        buffer_append_span(to, SPAN("</table></div>\n"));
    view_requests_free(&found);
}

void parts_write(struct buffer *to, const struct view *view, const struct status *status, const struct part *part)
{
    if (part->pool != NULL)
        write_pool(to, view, part->pool);
    else if (part->id[0] == 's')
        write_server(to, view);
    else
        write_requests(to, status);
}
