/*
 * A passage connects one exchange with one run. Either may end first:
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
#include "gateway/gateway.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "gateway/metavars.h"
#include "gateway/reply.h"
#include "http/chunked.h"
#include "log.h"

enum {
    RETRY_AFTER = 1, /* seconds */
    MAX_INTERIM = 8, /* interim heads that a program may send */
};

struct gateway {
    struct gateway_options options;
    struct reply reply; /* for heads that come whole, which is nearly all */
};

struct passage {
    struct run_request request; /* first: what the run knows of us */
    struct gateway *gateway;
    struct exchange *exchange; /* NULL: it is over */
    struct run *run;           /* NULL: it has ended */
    const struct config_route *route;
    struct metavars vars; /* its spans live as long as the exchange */
    struct exchange_address remote, local;
    char id[EXCHANGE_ID_LEN + 1];
    int exit_code;          /* -1: not known */
    struct buffer filename; /* of what runs */
    struct event *timer;
    uint64_t granted_us;
    uint64_t last_sign_us; /* when the program last took or gave something */
    uint64_t stderr_bytes;
    struct buffer head;  /* of the response, while it is not whole */
    struct reply *reply; /* of it, likewise */
    struct chunked *chunked;
    struct log_stream errors;
    uint64_t body_left; /* of the response, where its length is known */
    unsigned n_interim;
    struct {
        bool head_done : 1;
        bool has_length : 1;
        bool is_paused : 1; /* by us, because the client does not read */
        bool answered : 1;  /* the exchange has had our last word, and may still be sending it */
        bool must_log : 1;  /* the exchange is over, the record waits for the run's end */
    } is;
    struct access_record record; /* with must_log: a copy, its texts in .texts */
    struct buffer texts;
};

static void on_timer(evutil_socket_t fd, short what, void *arg);

struct gateway *gateway_create(const struct gateway_options *options)
{
    struct gateway *gateway = memory_zeroed(1, sizeof *gateway);

    gateway->options = *options;
    return gateway;
}

void gateway_destroy(struct gateway *gateway)
{
    free(gateway);
}

/* ---- ends ---- */

static void free_passage(struct passage *p)
{
    event_free(p->timer);
    buffer_free(&p->head);
    buffer_free(&p->texts);
    buffer_free(&p->filename);
    free(p->reply);
    free(p->chunked);
    free(p);
}

/* Is there still a response to give? */
static bool is_open(const struct passage *p)
{
    return p->exchange != NULL && !p->is.answered;
}

static void stop_run(struct passage *p, bool at_once)
{
    event_del(p->timer); /* it could be about to come, and would stop it twice */
    p->run->down->stop(p->run, at_once);
}

/* The exchange is ended or failed by the caller right after this. */
static struct exchange *let_go(struct passage *p)
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

static void fail(struct passage *p, unsigned status, const char *why)
{
    struct exchange *exchange = let_go(p);

    log_warning("[%s] %u %.*s: %s", p->id, status, (int)buffer_len(&p->filename), buffer_at(&p->filename), why);
    exchange_fail(exchange, status, status == 503 ? RETRY_AFTER : 0);
}

static void end_response(struct passage *p)
{
    exchange_end(let_go(p));
}

/* What the client gets when a run has ended without a whole response. */
static unsigned status_of(enum run_cause cause)
{
    static const unsigned statuses[] = {
        [RUN_COMPLETE] = 502,   [RUN_STOPPED] = 502,       [RUN_CRASHED] = 502, [RUN_OVERLOADED] = 503,
        [RUN_QUEUE_FULL] = 503, [RUN_QUEUE_TIMEOUT] = 503, [RUN_DOWN] = 503,    [RUN_MISSING] = 404,
        [RUN_FORBIDDEN] = 403,  [RUN_BROKEN] = 502,
    };

    return statuses[cause];
}

/* ---- deadlines ---- */

/* One timer for both limits: it is set to the earlier, and set anew when it comes and the program has moved since. */
static void set_timer(struct passage *p)
{
    uint64_t whole = p->granted_us + p->route->timeout_ms * 1000;
    uint64_t idle = p->last_sign_us + p->route->idle_timeout_ms * 1000;
    uint64_t until = whole < idle ? whole : idle, now = clock_us(), left = until > now ? until - now : 0;
    struct timeval delay = {(time_t)(left / 1000000), (suseconds_t)(left % 1000000)};

    event_add(p->timer, &delay);
}

static void note_sign(struct passage *p)
{
    p->last_sign_us = clock_us();
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct passage *p = arg;
    uint64_t now = clock_us();
    bool is_over = now >= p->granted_us + p->route->timeout_ms * 1000;
    bool is_idle = now >= p->last_sign_us + p->route->idle_timeout_ms * 1000;

    (void)fd, (void)what;
    if (p->is.is_paused && !is_over) {
        note_sign(p); /* it is the client that keeps it waiting */
        is_idle = false;
    }
    if (!is_over && !is_idle) {
        set_timer(p);
        return;
    }
    stop_run(p, true);
    if (is_open(p))
        fail(p, 504, is_over ? "no end within timeout" : "silent for idle_timeout");
}

static void begin_input(struct passage *p)
{
    struct exchange *exchange = p->exchange;

    p->granted_us = p->run->granted_us;
    exchange->record.phase_us[PHASE_QUEUE] = p->granted_us - exchange->started_us;
    note_sign(p);
    set_timer(p);
    exchange_want_body(exchange);
}

/* ---- the response ---- */

/* Nobody wants more of the output: it is read on, so that the program comes to its end undisturbed. */
static void finish_early(struct passage *p)
{
    if (!exchange_body_is_done(p->exchange))
        p->run->down->feed(p->run, SPAN(""), true);
    end_response(p);
}

static void write_body(struct passage *p, struct span bytes, bool more)
{
    bool is_whole = p->is.has_length && bytes.len >= p->body_left;

    if (p->is.has_length) {
        bytes.len = bytes.len < p->body_left ? bytes.len : (size_t)p->body_left;
        p->body_left -= bytes.len;
    }
    bool is_full = exchange_write(p->exchange, bytes, more || is_whole);
    if (is_whole) {
        finish_early(p);
    } else if (is_full && !p->is.is_paused) {
        p->is.is_paused = true;
        p->run->down->pause(p->run);
    }
}

/* A body that the program itself has put in chunks. */
static void write_chunks(struct passage *p, struct span bytes, bool more)
{
    struct span piece;

    for (;;) {
        enum chunked_result result = chunked_read(p->chunked, &bytes, &piece);

        if (result == CHUNKED_MORE) {
            write_body(p, SPAN(""), more);
            return;
        }
        if (result == CHUNKED_DATA) {
            write_body(p, piece, true);
            continue;
        }
        if (result == CHUNKED_END) {
            finish_early(p);
        } else {
            stop_run(p, true);
            fail(p, 502, p->chunked->why);
        }
        return;
    }
}

static void send_fields(struct exchange *exchange, const struct reply *reply)
{
    for (unsigned i = 0; i < reply->n_fields; i++)
        exchange_field(exchange, reply->fields[i].name, reply->fields[i].value);
}

static void redirect(struct passage *p, const struct reply *reply)
{
    struct gateway *gateway = p->gateway;
    struct exchange *exchange = let_go(p);
    struct buffer location = {0};

    p->exchange = NULL;
    exchange->data = NULL;
    buffer_append_span(&location, reply->location);
    gateway->options.redirect(gateway->options.arg, exchange, buffer_span(&location));
    buffer_free(&location);
}

/* The head is whole: begins the response. */
static void begin_response(struct passage *p, const struct reply *reply)
{
    struct exchange *exchange = p->exchange;
    uint64_t since = p->run->started_us != 0 ? p->run->started_us : p->run->granted_us;

    p->is.head_done = true;
    if (p->run->started_us != 0)
        exchange->record.phase_us[PHASE_START] = p->run->started_us - p->run->granted_us;
    exchange_phase(exchange, PHASE_FIRST, since);
    exchange_begin(exchange, reply->status, reply->reason);
    send_fields(exchange, reply);
    if (reply->has_length) {
        p->is.has_length = exchange->head.method != METHOD_HEAD && reply->status != 204 && reply->status != 304;
        p->body_left = reply->length;
        exchange_length(exchange, reply->length);
    }
    if (reply->is_chunked) {
        p->chunked = memory_zeroed(1, sizeof *p->chunked);
        chunked_init(p->chunked);
    }
}

static bool has_no_body(const struct exchange *exchange, const struct reply *reply)
{
    return exchange->head.method == METHOD_HEAD || reply->status == 204 || reply->status == 304;
}

static void send_interim(struct passage *p, const struct reply *reply)
{
    struct buffer fields = {0};

    for (unsigned i = 0; i < reply->n_fields; i++)
        buffer_printf(&fields, "%.*s: %.*s\r\n", (int)reply->fields[i].name.len, reply->fields[i].name.at,
                      (int)reply->fields[i].value.len, reply->fields[i].value.at);
    if (reply->status == 103)
        exchange_interim(p->exchange, 103, buffer_span(&fields));
    buffer_free(&fields);
}

static void take_output(struct passage *p, struct span bytes, bool more);

/* `rest` is what came behind the head. */
static void take_head(struct passage *p, const struct reply *reply, struct span rest, bool more)
{
    struct exchange *exchange = p->exchange;

    if (reply->status < 200) {
        if (++p->n_interim > MAX_INTERIM) {
            stop_run(p, true);
            fail(p, 502, "too many interim responses");
            return;
        }
        send_interim(p, reply);
        take_output(p, rest, more);
        return;
    }
    if (reply->is_local) {
        redirect(p, reply);
        return;
    }
    begin_response(p, reply);
    if (has_no_body(exchange, reply)) {
        if (!reply->has_length) /* its length will not be known in time: say that it is in chunks */
            exchange_write(exchange, SPAN(""), false);
        finish_early(p);
    } else if (p->is.has_length && p->body_left == 0) {
        finish_early(p);
    } else if (p->chunked != NULL) {
        write_chunks(p, rest, more);
    } else {
        write_body(p, rest, more);
    }
}

static void refuse_head(struct passage *p, const char *why)
{
    stop_run(p, true);
    fail(p, 502, why);
}

/* Output while the head is not whole. Mostly it comes in one piece, and is parsed where it stands. */
static void read_head(struct passage *p, struct span bytes, bool more)
{
    struct reply *reply = p->reply;
    struct span all = bytes;

    if (reply != NULL) {
        buffer_append_span(&p->head, bytes);
        all = buffer_span(&p->head);
    } else {
        reply = &p->gateway->reply;
        reply_init(reply);
    }
    enum reply_result result = reply_read(reply, all.at, all.len);
    if (result == REPLY_BAD) {
        refuse_head(p, reply->why);
        return;
    }
    if (result == REPLY_MORE && p->reply == NULL) {
        p->reply = memory_resize(NULL, sizeof *reply);
        *p->reply = *reply;
        buffer_append_span(&p->head, bytes);
    }
    if (result == REPLY_MORE)
        return;
    struct buffer held = p->head; /* keeps the bytes until the head is dealt with */
    struct reply *own = p->reply;
    p->head = (struct buffer){0};
    p->reply = NULL;
    take_head(p, reply, span_from(all, reply->len), more);
    buffer_free(&held);
    free(own);
}

static void take_output(struct passage *p, struct span bytes, bool more)
{
    if (p->is.head_done && p->chunked != NULL)
        write_chunks(p, bytes, more);
    else if (p->is.head_done)
        write_body(p, bytes, more);
    else if (bytes.len > 0)
        read_head(p, bytes, more);
}

/* ---- what the run says ---- */

static void on_granted(void *arg)
{
    struct passage *p = arg;

    if (is_open(p))
        begin_input(p);
}

static void on_output(void *arg, struct span bytes, bool more)
{
    struct passage *p = arg;

    note_sign(p);
    if (is_open(p))
        take_output(p, bytes, more);
}

static void on_errors(void *arg, struct span bytes)
{
    struct passage *p = arg;
    struct buffer tag = {0};

    buffer_printf(&tag, "[%s] %.*s", p->id, (int)buffer_len(&p->filename), buffer_at(&p->filename));
    if (p->route->pool != NULL)
        buffer_printf(&tag, " (pool %s, process %ld)", p->route->pool->name, p->run != NULL ? p->run->pid : 0);
    note_sign(p);
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

    note_sign(p);
    if (is_open(p))
        exchange_want_body(p->exchange);
}

static void fail_without_head(struct passage *p)
{
    const char *what = p->reply != NULL ? "ended within the head of its response" : "ended without a response";
    char why[96];

    if (p->exit_code >= 0)
        snprintf(why, sizeof why, "%s, with exit status %d", what, p->exit_code);
    else
        snprintf(why, sizeof why, "%s", what);
    fail(p, 502, why);
}

static void on_complete(void *arg)
{
    struct passage *p = arg;

    if (!is_open(p))
        return;
    exchange_phase(p->exchange, PHASE_BODY, p->granted_us);
    if (!p->is.head_done)
        fail_without_head(p);
    else if (p->chunked != NULL)
        fail(p, 502, "ended within a chunked body");
    else
        end_response(p);
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
    if (p->granted_us != 0 && result->cpu_us != PHASE_NONE)
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
    if (p->is.must_log)
        log_late(p, result);
    if (p->exchange == NULL) {
        free_passage(p);
        return;
    }
    note_result(&p->exchange->record, p, result);
    p->exit_code = result->exit_code;
    p->run = NULL;
    if (p->is.answered)
        return; /* gateway_done() is still to come */
    if (result->cause == RUN_COMPLETE)
        on_complete(p);
    else
        fail(p, status_of(result->cause), result->why);
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
    struct passage *p = exchange->data;

    return p->run->down->feed(p->run, bytes, last);
}

static void on_resume(struct exchange *exchange)
{
    struct passage *p = exchange->data;

    if (!p->is.is_paused)
        return;
    p->is.is_paused = false;
    note_sign(p);
    p->run->down->resume(p->run);
}

static void on_abort(struct exchange *exchange)
{
    struct passage *p = exchange->data;

    let_go(p);
    exchange->data = NULL; /* it is logged at once, without the program's end */
    p->exchange = NULL;
    stop_run(p, false);
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
        .server_name =
            head->host.len > 0 ? head->host : span_of(p->local.text[0] != '\0' ? p->local.text : "localhost"),
        .server_addr = span_of(p->local.text),
        .server_port = span_of(p->local.port),
        .remote_addr = span_of(p->remote.text),
        .remote_port = span_of(p->remote.port),
        .request_id = {exchange->id, EXCHANGE_ID_LEN},
        .length_known = head->has_length,
        .length = head->length,
        .env = &target->route->env,
    };
}

static void fill_record(struct exchange *exchange, const struct config_route *route)
{
    exchange->record.gateway = route->gateway == GATEWAY_CGI ? SPAN("cgi") : SPAN("fastcgi");
    exchange->record.route = span_of(route->text);
    if (route->pool != NULL)
        exchange->record.pool = span_of(route->pool->name);
}

void gateway_serve(struct gateway *gateway, struct exchange *exchange, const struct route_target *target,
                   struct runner *runner)
{
    struct passage *p;
    struct run_result refusal = {.why = ""};
    const struct field *collision = metavars_collision(&exchange->head);

    fill_record(exchange, target->route);
    if (collision != NULL) {
        log_warning("[%s] 400: field \"%.*s\" would pass for another's variable", exchange->id,
                    (int)collision->name.len, collision->name.at);
        exchange_fail(exchange, 400, 0);
        return;
    }
    p = memory_zeroed(1, sizeof *p);
    p->gateway = gateway;
    p->exchange = exchange;
    p->route = target->route;
    p->exit_code = -1;
    p->timer = evtimer_new(gateway->options.base, on_timer, p);
    fill_variables(p, target);
    p->request = (struct run_request){
        .each_variable = each_variable,
        .script = target->script,
        .id = p->vars.request_id,
        .has_input = exchange->has_body,
    };
    exchange_handle(exchange, &handler, p);
    p->run = runner->open(runner, &p->request, &up, p, &refusal);
    if (p->run == NULL)
        fail(p, status_of(refusal.cause), refusal.why);
    else if (p->run->is_granted)
        begin_input(p);
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
    struct passage *p = exchange->handler == &handler ? exchange->data : NULL;

    if (p == NULL)
        return false;
    exchange->data = NULL;
    p->exchange = NULL;
    if (p->run != NULL) {
        keep_record(p, &exchange->record);
        if (p->is.is_paused)
            p->run->down->resume(p->run); /* what it still writes is thrown away */
        p->is.is_paused = false;
        return true;
    }
    p->gateway->options.log(p->gateway->options.arg, &exchange->record);
    free_passage(p);
    return true;
}
