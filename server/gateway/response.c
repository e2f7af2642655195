/*
 * What a program writes, made a response: its head read, local redirects followed, its body framed anew. What it
 * announced is what the client gets: no byte more, and when it is less, visibly so.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "gateway/passage.h"

enum { MAX_INTERIM = 8 }; /* interim heads that a program may send */

/* Of a body that a program has put in chunks. */
static const struct chunked_limits chunk_limits = {.max_overhead = 16384, .max_trailers = 16384};

/* The rest of the request's body is nobody's: the program's input ends here. */
static void end_input(struct passage *p)
{
    if (!exchange_body_is_done(p->exchange))
        p->run->down->feed(p->run, SPAN(""), true);
}

/* Nobody wants more of the output: it is read on, so that the program comes to its end undisturbed. */
static void finish_early(struct passage *p)
{
    end_input(p);
    exchange_end(passage_let_go(p));
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
            passage_stop_run(p, true);
            passage_fail(p, 502, p->chunked->why);
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
    struct buffer location = {0};

    end_input(p);
    struct exchange *exchange = passage_let_go(p);

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
        chunked_init(p->chunked, &chunk_limits);
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

/* `rest` is what came behind the head. */
static void take_head(struct passage *p, const struct reply *reply, struct span rest, bool more)
{
    struct exchange *exchange = p->exchange;

    if (reply->status < 200) {
        if (++p->n_interim > MAX_INTERIM) {
            passage_stop_run(p, true);
            passage_fail(p, 502, "too many interim responses");
            return;
        }
        send_interim(p, reply);
        response_take(p, rest, more);
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
    passage_stop_run(p, true);
    passage_fail(p, 502, why);
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

void response_take(struct passage *p, struct span bytes, bool more)
{
    if (p->is.head_done && p->chunked != NULL)
        write_chunks(p, bytes, more);
    else if (p->is.head_done)
        write_body(p, bytes, more);
    else if (bytes.len > 0)
        read_head(p, bytes, more);
}

static void fail_without_head(struct passage *p)
{
    const char *what = p->reply != NULL ? "ended within the head of its response" : "ended without a response";
    char why[96];

    if (p->exit_code >= 0)
        snprintf(why, sizeof why, "%s, with exit status %d", what, p->exit_code);
    else
        snprintf(why, sizeof why, "%s", what);
    passage_fail(p, 502, why);
}

void response_complete(struct passage *p)
{
    exchange_phase(p->exchange, PHASE_BODY, p->granted_us);
    if (!p->is.head_done)
        fail_without_head(p);
    else if (p->chunked != NULL)
        passage_fail(p, 502, "ended within a chunked body");
    else
        exchange_end(passage_let_go(p));
}
