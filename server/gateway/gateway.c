/*
 * A passage connects one exchange with one run.
 *
 * How the request's body gets to the program is input.c's, how the program's output becomes the response response.c's.
 *
 * Either may end first:
 *
 *     exchange ends first   the response is whole (its length was reached, HEAD, 204) or the client is gone: what the
 *                           program still writes is thrown away, or it is stopped; the passage waits for its end
 *     run ends first        the response is ended, or failed with the status that the cause calls for
 *
 * and the passage is freed, and the request logged, when both have.
 *
 * Statuses: 502 the program crashed or spoke nonsense, 503 no capacity, 504 our deadline passed; 404 and 403 when the
 * script is not there or may not be run.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "gateway/affinity.h"
#include "gateway/input.h"
#include "gateway/passage.h"
#include "gateway/permit.h"
#include "gateway/shown.h"

enum {
    RETRY_AFTER = 1,   /* seconds */
    SLOW_TARGET = 512, /* bytes of the target that the slow log shows */
};

static void on_timer(evutil_socket_t fd, short what, void *arg);

struct gateway *gateway_create(const struct gateway_options *options)
{
    struct gateway *gateway = memory_zeroed(1, sizeof *gateway);

    gateway->options = *options;
    signal(SIGXFSZ, SIG_IGN);
    return gateway;
}

void gateway_destroy(struct gateway *gateway)
{
    free(gateway);
}

/* ---- ends ---- */

void passage_free(struct passage *p)
{
    shown_end(p);
    event_free(p->timer);
    input_free(p);
    buffer_free(&p->head);
    buffer_free(&p->texts);
    buffer_free(&p->filename);
    if (p->data != NULL)
        open_file_release(p->data);
    free(p->reply);
    free(p->nph);
    free(p->chunked);
    free(p);
}

static void explain(struct run *run)
{
    if (run != NULL && run->down->explain != NULL)
        run->down->explain(run);
}

void passage_stop_run(struct passage *p, bool at_once)
{
    if (at_once)
        explain(p->run);
    event_del(p->timer); /* it could be about to come, and would stop it twice */
    input_drop(p);
    p->run->down->stop(p->run, at_once);
}

struct exchange *passage_let_go(struct passage *p)
{
    struct exchange *exchange = p->exchange;

    p->is.answered = true;
    if (p->run != NULL) {
        exchange->record.pid = p->run->pid;
        exchange->record.retries = p->run->retries;
    }
    exchange->record.stderr_bytes = p->stderr_bytes;
    return exchange;
}

void passage_fail(struct passage *p, unsigned status, const char *why)
{
    struct exchange *exchange = passage_let_go(p);

    if (why[0] != '\0')
        log_warning("[%s] %u %.*s: %s", p->id, status, (int)buffer_len(&p->filename), buffer_at(&p->filename), why);
    if (p->run == NULL)
        explain(p->ended_run);
    exchange_fail(exchange, status, status == 503 ? RETRY_AFTER : 0);
}

/* What the client gets when a run has ended without a whole response. */
static unsigned status_of(enum run_cause cause)
{
    static const unsigned statuses[] = {
        [RUN_COMPLETE] = 502,   [RUN_STOPPED] = 502,       [RUN_CRASHED] = 502, [RUN_OVERLOADED] = 503,
        [RUN_QUEUE_FULL] = 503, [RUN_QUEUE_TIMEOUT] = 503, [RUN_DOWN] = 503,    [RUN_MISSING] = 404,
        [RUN_FORBIDDEN] = 403,  [RUN_BROKEN] = 502,        [RUN_TIMEOUT] = 504,
    };

    return statuses[cause];
}

/* ---- deadlines ---- */

void passage_call_in(struct passage *p, uint64_t us)
{
    struct timeval delay = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    event_add(p->timer, &delay);
}

/* The pool's limit, if it is earlier than the route's. */
static bool is_pool_stricter(const struct passage *p)
{
    const struct config_pool *pool = p->route->pool;

    return pool != NULL && pool->request_terminate_timeout_ms != 0 &&
           pool->request_terminate_timeout_ms < p->route->timeout_ms;
}

/* When it must be over. */
static uint64_t end_us(const struct passage *p)
{
    uint64_t ms = is_pool_stricter(p) ? p->route->pool->request_terminate_timeout_ms : p->route->timeout_ms;

    return p->granted_us + ms * 1000;
}

static uint64_t idle_us(const struct passage *p)
{
    return p->last_sign_us + p->route->idle_timeout_ms * 1000;
}

/* When it is to be told to the slow log. */
static uint64_t slow_us(const struct passage *p)
{
    const struct config_pool *pool = p->route->pool;

    if (pool == NULL || pool->request_slowlog_timeout_ms == 0 || p->is.told_slow)
        return UINT64_MAX;
    return p->granted_us + pool->request_slowlog_timeout_ms * 1000;
}

/* One timer for all limits: it is set to the earliest, and set anew when it comes and the program has moved since. */
static void set_timer(struct passage *p)
{
    uint64_t until = end_us(p), now = clock_us();

    if (idle_us(p) < until)
        until = idle_us(p);
    if (slow_us(p) < until)
        until = slow_us(p);
    passage_call_in(p, until > now ? until - now : 0);
}

/* The request in a line. It may outlive its exchange, as the run does. */
static void tell_slow(struct passage *p, uint64_t now)
{
    const struct access_record *record = p->exchange != NULL ? &p->exchange->record : &p->record;
    size_t shown = record->target.len < SLOW_TARGET ? record->target.len : SLOW_TARGET;
    uint64_t ms = (now - p->granted_us) / 1000;
    struct buffer line = {0};

    p->is.told_slow = true;
    if (p->run->down->slow == NULL)
        return;
    buffer_printf(&line, "%s ", p->id);
    buffer_append_span(&line, record->method);
    buffer_append_span(&line, SPAN(" "));
    buffer_append(&line, record->target.at, shown);
    buffer_append_span(&line, shown < record->target.len ? SPAN("...") : SPAN(""));
    buffer_printf(&line, " from %s, site %s, route %s, script %.*s, %" PRIu64 ".%03u s, phase %s", p->remote.text,
                  p->route->site->names.at[0], p->route->text, (int)buffer_len(&p->filename), buffer_at(&p->filename),
                  ms / 1000, (unsigned)(ms % 1000),
                  phase_names[p->run->started_us == 0 ? PHASE_START
                              : p->is.head_done       ? PHASE_BODY
                                                      : PHASE_FIRST]);
    p->run->down->slow(p->run, buffer_span(&line));
    buffer_free(&line);
}

void passage_note_sign(struct passage *p)
{
    p->last_sign_us = clock_us();
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct passage *p = arg;
    uint64_t now = clock_us();
    bool is_over = now >= end_us(p), is_idle = now >= idle_us(p);

    (void)fd, (void)what;
    if (p->is.is_holding) {
        input_pause(p);
        return;
    }
    if (now >= slow_us(p))
        tell_slow(p, now);
    if ((p->is.is_paused || input_is_awaited(p)) && !is_over) {
        passage_note_sign(p); /* it is the client that keeps it waiting */
        is_idle = false;
    }
    if (!is_over && !is_idle) {
        set_timer(p);
        return;
    }
    passage_stop_run(p, true);
    shown_count(p, ACCOUNT_TERMINATED);
    if (passage_is_open(p))
        passage_fail(p, 504,
                     !is_over              ? "silent for idle_timeout"
                     : is_pool_stricter(p) ? "no end within request_terminate_timeout"
                                           : "no end within timeout");
}

static void begin_run(struct passage *p)
{
    struct exchange *exchange = p->exchange;

    p->granted_us = p->run->granted_us;
    exchange->record.phase_us[PHASE_QUEUE] = p->granted_us - exchange->started_us;
    shown_granted(p);
    passage_note_sign(p);
    set_timer(p);
    input_granted(p);
}

/* ---- what the run says ---- */

static void on_granted(void *arg)
{
    struct passage *p = arg;

    if (passage_is_open(p))
        begin_run(p);
}

static void on_output(void *arg, struct span bytes, bool more)
{
    struct passage *p = arg;

    passage_note_sign(p);
    if (passage_is_open(p))
        response_take(p, bytes, more);
}

static void on_errors(void *arg, struct span bytes)
{
    struct passage *p = arg;
    struct buffer tag = {0};

    buffer_printf(&tag, "[%s] %.*s", p->id, (int)buffer_len(&p->filename), buffer_at(&p->filename));
    if (p->route->pool != NULL)
        buffer_printf(&tag, " (pool %s, process %ld)", p->route->pool->name, p->run != NULL ? p->run->pid : 0);
    passage_note_sign(p);
    p->stderr_bytes += bytes.len;
    if (bytes.len > 0)
        log_stream_add(&p->errors, buffer_span(&tag), bytes);
    else
        log_stream_end(&p->errors, buffer_span(&tag));
    buffer_free(&tag);
}

static void on_drained(void *arg)
{
    struct passage *p = arg;

    passage_note_sign(p);
    input_drained(p);
}

static void on_complete(void *arg)
{
    struct passage *p = arg;

    if (passage_is_open(p))
        response_complete(p);
}

static void note_result(struct access_record *record, const struct passage *p, const struct run_result *result)
{
    record->exit_code = result->exit_code;
    record->signal = result->signal;
    record->cpu_us = result->cpu_us;
    record->max_rss_kib = result->max_rss_kib;
    record->stderr_bytes = p->stderr_bytes;
    record->pid = p->run->pid;
    record->retries = p->run->retries;
    if (p->granted_us != 0 && result->max_rss_kib != PHASE_NONE)
        record->phase_us[PHASE_REAP] = clock_us() - p->granted_us;
}

/* What was logged no sooner than now, since the program's end was not known. */
static void log_late(struct passage *p, const struct run_result *result)
{
    note_result(&p->record, p, result);
    p->gateway->options.log(p->gateway->options.arg, &p->record);
}

static void on_ended(void *arg, const struct run_result *result)
{
    struct passage *p = arg;

    event_del(p->timer);
    on_errors(p, SPAN(""));
    shown_ended(p, result);
    if (p->is.must_log)
        log_late(p, result);
    if (p->exchange == NULL) {
        passage_free(p);
        return;
    }
    note_result(&p->exchange->record, p, result);
    p->exit_code = result->exit_code;
    p->ended_run = p->run;
    p->run = NULL;
    input_drop(p);
    if (p->is.answered)
        return; /* gateway_done() is still to come */
    if (result->cause == RUN_COMPLETE)
        on_complete(p);
    else
        passage_fail(p, status_of(result->cause), result->why);
}

static const struct run_up up = {
    .granted = on_granted,
    .output = on_output,
    .errors = on_errors,
    .drained = on_drained,
    .complete = on_complete,
    .ended = on_ended,
};

/* ---- what the exchange says ---- */

static bool on_body(struct exchange *exchange, struct span bytes, bool last)
{
    return input_take(exchange->data, bytes, last);
}

static void on_resume(struct exchange *exchange)
{
    struct passage *p = exchange->data;

    if (!p->is.is_paused || p->run == NULL)
        return;
    p->is.is_paused = false;
    passage_note_sign(p);
    p->run->down->resume(p->run);
}

static void on_abort(struct exchange *exchange)
{
    struct passage *p = exchange->data;

    passage_let_go(p);
    exchange->origin = NULL; /* it is logged at once, without the program's end */
    exchange->place = NULL;
    p->exchange = NULL;
    if (p->run != NULL)
        passage_stop_run(p, false);
    else
        passage_free(p);
}

static const struct handler handler = {
    .body = on_body,
    .resume = on_resume,
    .abort = on_abort,
};

/* ---- the beginning ---- */

static void each_variable(const struct run_request *request, run_emit *emit, void *arg)
{
    const struct passage *p = (const struct passage *)request;

    metavars_each(&p->vars, emit, arg);
}

/* The directory that the route's files are in, as it is called in SCRIPT_FILENAME. */
static struct span base_directory(const struct config_route *route)
{
    return span_of(route->dir != NULL ? route->dir : route->site->root);
}

/* The path of what runs. */
static struct span script_filename(struct passage *p, const struct route_target *target)
{
    const struct config_route *route = target->route;

    if (route->program != NULL) {
        buffer_append_span(&p->filename, span_of(route->program));
        return buffer_span(&p->filename);
    }
    buffer_append_span(&p->filename, base_directory(route));
    if (target->script.len > 0)
        buffer_append_span(&p->filename, SPAN("/"));
    buffer_append_span(&p->filename, target->script.len > 0 ? target->script : target->script_name);
    return buffer_span(&p->filename);
}

static void fill_variables(struct passage *p, const struct route_target *target)
{
    struct exchange *exchange = p->exchange;
    const struct head *head = &exchange->head;

    memcpy(p->id, exchange->id, sizeof p->id);
    exchange_remote(exchange, &p->remote);
    exchange_local(exchange, &p->local);
    p->vars = (struct metavars){
        .head = head,
        .query = exchange->uri.query,
        .script_name = target->script_name,
        .path_info = target->path_info,
        .script_filename = script_filename(p, target),
        .document_root = span_of(target->route->site->root),
        .server_name = head->host.len > 0 ? head->host : span_of(p->local.host),
        .server_addr = span_of(p->local.text),
        .server_port = span_of(p->local.port),
        .remote_addr = span_of(p->remote.text),
        .remote_port = span_of(p->remote.port),
        .request_id = {exchange->id, EXCHANGE_ID_LEN},
        .length_known = head->has_length,
        .length = head->length,
        .role = target->route->role,
        .data_length = p->data != NULL ? (uint64_t)p->data->about.st_size : 0,
        .data_modified = p->data != NULL ? p->data->about.st_mtime : 0,
        .is_redirected = exchange->n_redirects > 0,
        .passes_authorization = target->route->pass_authorization,
        .granted = exchange->permit != NULL ? buffer_span(&exchange->permit->variables) : SPAN(""),
        .env = &target->route->env,
    };
}

static void note_length(void *arg, struct span name, struct span value)
{
    size_t *longest = arg;

    if (name.len + value.len > *longest)
        *longest = name.len + value.len;
}

/* Has the request a variable that no record and no environment holds? Only one with a long head can. */
static bool has_giant(const struct passage *p)
{
    size_t longest = 0;

    if (buffer_len(&p->exchange->bytes) < RUN_VARIABLE)
        return false;
    metavars_each(&p->vars, note_length, &longest);
    return longest > RUN_VARIABLE;
}

static void fill_record(struct exchange *exchange, const struct config_route *route)
{
    exchange->record.gateway = route->gateway == GATEWAY_CGI ? SPAN("cgi") : SPAN("fastcgi");
    exchange->record.route = span_of(route->text);
    if (route->pool != NULL)
        exchange->record.pool = span_of(route->pool->name);
}

void passage_open_run(struct passage *p)
{
    struct run_result refusal = {.why = ""};

    event_del(p->timer);
    shown_waits(p);
    p->run = p->runner->open(p->runner, &p->request, &up, p, &refusal);
    if (p->run == NULL) {
        shown_refused(p, refusal.cause);
        passage_fail(p, status_of(refusal.cause), refusal.why);
    } else if (p->run->is_granted) {
        begin_run(p);
    }
}

static void fill_request(struct passage *p, const struct route_target *target)
{
    enum route_role role = target->route->role;

    p->request = (struct run_request){
        .each_variable = each_variable,
        .script = target->script,
        .id = p->vars.request_id,
        .affinity = affinity_of(target->route->pool, p->vars.head, p->vars.remote_addr),
        .has_input = p->exchange->has_body && role != ROLE_AUTHORIZER, /* who answers is to have the body */
        .role = role,
        .data_fd = p->data != NULL ? p->data->fd : -1,
        .data_length = p->vars.data_length,
    };
}

void gateway_serve(struct gateway *gateway, struct exchange *exchange, const struct route_target *target,
                   struct runner *runner, struct open_file *data)
{
    struct passage *p;
    const struct field *collision = metavars_collision(&exchange->head);

    fill_record(exchange, target->route);
    if (collision != NULL) {
        if (data != NULL)
            open_file_release(data);
        log_warning("[%s] 400: field \"%.*s\" would pass for another's variable", exchange->id,
                    (int)collision->name.len, collision->name.at);
        exchange_fail(exchange, 400, 0);
        return;
    }
    p = memory_zeroed(1, sizeof *p);
    p->gateway = gateway;
    p->exchange = exchange;
    p->runner = runner;
    p->route = target->route;
    p->exit_code = -1;
    p->timer = evtimer_new(gateway->options.base, on_timer, p);
    p->data = data;
    fill_variables(p, target);
    fill_request(p, target);
    if (p->route->gateway == GATEWAY_CGI && nph_is_name(buffer_span(&p->filename))) {
        p->nph = memory_zeroed(1, sizeof *p->nph);
        nph_init(p->nph);
    }
    exchange->origin = p;
    shown_begin(p);
    exchange_handle(exchange, &handler, p);
    if (has_giant(p))
        passage_fail(p, 431, "a field of the request is longer than a variable can be");
    else
        input_begin(p);
}

/* ---- the log ---- */

static void keep_text(struct buffer *texts, struct span *text)
{
    size_t offset = buffer_len(texts);

    buffer_append_span(texts, *text);
    text->at = (const char *)offset; /* made a pointer when all are there, for the buffer may move */
}

/* The record outlives its exchange: copies its texts. */
static void keep_record(struct passage *p, const struct access_record *record)
{
    struct access_record *own = &p->record;
    struct span *texts[] = {&own->id,       &own->client,  &own->method,    &own->target,
                            &own->protocol, &own->referer, &own->user_agent};

    *own = *record;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        keep_text(&p->texts, texts[i]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        texts[i]->at = buffer_at(&p->texts) + (size_t)texts[i]->at;
    p->is.must_log = true;
}

bool gateway_done(struct exchange *exchange)
{
    struct passage *p = exchange->origin;

    permit_destroy(exchange->permit);
    exchange->permit = NULL;
    if (p == NULL)
        return false;
    exchange->origin = NULL;
    exchange->place = NULL;
    p->exchange = NULL;
    if (p->run != NULL) {
        keep_record(p, &exchange->record);
        if (p->is.is_paused)
            p->run->down->resume(p->run); /* what it still writes is thrown away */
        p->is.is_paused = false;
        return true;
    }
    p->gateway->options.log(p->gateway->options.arg, &exchange->record);
    passage_free(p);
    return true;
}
