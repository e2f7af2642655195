/*
 * What a program writes, made a response: its head read, local redirects followed, its body framed anew. What it
 * announced is what the client gets: no byte more, and when it is less, visibly so.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "gateway/input.h"
#include "gateway/passage.h"
#include "gateway/permit.h"
#include "gateway/sendfile.h"
#include "gateway/shown.h"

enum { MAX_INTERIM = 8 }; /* interim heads that a program may send */

/* Of a body that a program has put in chunks. */
static const struct chunked_limits chunk_limits = {.max_overhead = 16384, .max_trailers = 16384};

/* Nobody wants more of the output: it is read on, so that the program comes to its end undisturbed. */
static void finish_early(struct passage *p)
{
    input_end(p);
    exchange_end(passage_let_go(p));
}

static void tell_excess(struct passage *p)
{
    if (!p->is.has_excess)
        log_warning("[%s] %.*s: writes more than its Content-Length: what is beyond is left out", p->id,
                    (int)buffer_len(&p->filename), buffer_at(&p->filename));
    p->is.has_excess = true;
}

static void write_body(struct passage *p, struct span bytes, bool more)
{
    if (p->is.has_length && bytes.len > p->body_left)
        tell_excess(p);
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

    input_end(p);
    struct exchange *exchange = passage_let_go(p);

    p->exchange = NULL;
    exchange->origin = NULL;
    exchange->place = NULL;
    permit_destroy(exchange->permit); /* what was allowed there says nothing of what is elsewhere */
    exchange->permit = NULL;
    buffer_append_span(&location, reply->location);
    gateway->options.redirect(gateway->options.arg, exchange, buffer_span(&location));
    buffer_free(&location);
}

/* An authorizer's head allows the request: another answers it, once the authorizer has ended in good order. */
static void take_permit(struct passage *p, const struct reply *reply)
{
    struct exchange *exchange = p->exchange;
    int error;

    if (exchange->permit == NULL)
        exchange->permit = permit_create();
    struct span refused = permit_take(exchange->permit, p->route, reply, &error);
    if (error != 0) {
        passage_stop_run(p, false);
        passage_fail(p, 500, "more authorizers than a request may have");
        return;
    }
    if (refused.len > 0)
        log_warning("[%s] %.*s: sets %.*s, which is not for an authorizer to set: it is left out", p->id,
                    (int)buffer_len(&p->filename), buffer_at(&p->filename), (int)refused.len, refused.at);
    p->is.head_done = p->is.has_permit = true;
}

/* The run is over: so is the passage. */
static void pass_on(struct passage *p)
{
    struct exchange *exchange = passage_let_go(p);
    struct gateway *gateway = p->gateway;

    exchange->origin = NULL;
    exchange->place = NULL;
    passage_free(p);
    gateway->options.authorized(gateway->options.arg, exchange);
}

static bool has_no_body(const struct exchange *exchange, const struct reply *reply)
{
    return exchange->head.method == METHOD_HEAD || reply->status == 204 || reply->status == 304;
}

/* The head is whole. */
static void note_first(struct passage *p)
{
    struct exchange *exchange = p->exchange;
    uint64_t since = p->run->started_us != 0 ? p->run->started_us : p->run->granted_us;

    p->is.head_done = true;
    if (p->run->started_us != 0)
        exchange->record.phase_us[PHASE_START] = p->run->started_us - p->run->granted_us;
    shown_answers(p, exchange_phase(exchange, PHASE_FIRST, since));
}

/* The length that the response has, by the program's word. 205 has none, whatever it says (RFC 9110 section 15.3.6). */
static void take_length(struct passage *p, const struct reply *reply)
{
    bool is_reset = reply->status == 205;

    if (!reply->has_length && !is_reset)
        return;
    p->is.has_length = !has_no_body(p->exchange, reply);
    p->body_left = is_reset ? 0 : reply->length;
    exchange_length(p->exchange, p->body_left);
}

static void begin_response(struct passage *p, const struct reply *reply)
{
    struct exchange *exchange = p->exchange;

    note_first(p);
    exchange_begin(exchange, reply->status, reply->reason);
    send_fields(exchange, reply);
    take_length(p, reply);
    if (reply->is_chunked) {
        p->chunked = memory_zeroed(1, sizeof *p->chunked);
        chunked_init(p->chunked, &chunk_limits);
    }
}

static void send_interim(struct passage *p, const struct reply *reply)
{
    struct buffer fields = {0};

    for (unsigned i = 0; i < reply->n_fields; i++)
        buffer_printf(&fields, "%.*s: %.*s\r\n", (int)reply->fields[i].name.len, reply->fields[i].name.at,
                      (int)reply->fields[i].value.len, reply->fields[i].value.at);
    exchange_interim(p->exchange, reply->status, buffer_span(&fields));
    buffer_free(&fields);
}

static void refuse_head(struct passage *p, const char *why)
{
    passage_stop_run(p, true);
    passage_fail(p, 502, why);
}

/* RFC 3875 section 6.2: one of these there must be. */
static bool says_nothing(const struct reply *reply)
{
    return !reply->has_type && !reply->has_status && reply->location.len == 0;
}

/* `rest` is what came behind the head. */
static void take_interim(struct passage *p, const struct reply *reply, struct span rest, bool more)
{
    char why[64];

    if (++p->n_interim > MAX_INTERIM) {
        snprintf(why, sizeof why, "more than %d interim responses", MAX_INTERIM);
        refuse_head(p, why);
        return;
    }
    if (reply->status != 100) /* which is for us to say, and was when the body was wanted */
        send_interim(p, reply);
    response_take(p, rest, more);
}

static void take_head(struct passage *p, const struct reply *reply, struct span rest, bool more)
{
    struct exchange *exchange = p->exchange;

    if (reply->status < 200) {
        take_interim(p, reply, rest, more);
        return;
    }
    if (reply->is_local) {
        redirect(p, reply);
        return;
    }
    if (p->request.role == ROLE_AUTHORIZER && reply->status == 200) {
        take_permit(p, reply);
        return;
    }
    if (reply->sendfile.len > 0 && sendfile_is_allowed(p)) {
        note_first(p);
        sendfile_answer(p, reply);
        return;
    }
    if (says_nothing(reply)) {
        refuse_head(p, "its X-Sendfile is all that its head says");
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

/* ---- programs that write the response themselves ---- */

/* `bytes` go to the client. To HEAD, the head alone does (RFC 3875 section 4.3.3). */
static void write_raw(struct passage *p, struct span bytes, bool more)
{
    bool is_over = p->nph->is_body && p->exchange->head.method == METHOD_HEAD;

    exchange_begin_raw(p->exchange, p->nph->status);
    write_body(p, bytes, more);
    if (is_over)
        finish_early(p);
}

static void take_raw(struct passage *p, struct span bytes, bool more)
{
    size_t head_len = nph_read(p->nph, bytes);

    if (p->nph->why != NULL) {
        refuse_head(p, p->nph->why);
        return;
    }
    if (p->exchange->head.method == METHOD_HEAD)
        bytes.len = head_len;
    if (p->is.head_done) {
        write_raw(p, bytes, more);
        return;
    }
    buffer_append_span(&p->head, bytes);
    if (p->nph->status == 0)
        return;
    note_first(p);
    struct buffer held = p->head;
    p->head = (struct buffer){0};
    write_raw(p, buffer_span(&held), more);
    buffer_free(&held);
}

/* ---- what the run says ---- */

void response_take(struct passage *p, struct span bytes, bool more)
{
    if (p->is.has_permit)
        return; /* section 6.3 of the FastCGI specification: the body of a permit is nobody's */
    if (p->nph != NULL)
        take_raw(p, bytes, more);
    else if (p->is.head_done && p->chunked != NULL)
        write_chunks(p, bytes, more);
    else if (p->is.head_done)
        write_body(p, bytes, more);
    else if (bytes.len > 0)
        read_head(p, bytes, more);
}

static void fail_with_status(struct passage *p, const char *what)
{
    char why[96];

    if (p->exit_code >= 0)
        snprintf(why, sizeof why, "%s, with exit status %d", what, p->exit_code);
    else
        snprintf(why, sizeof why, "%s", what);
    passage_fail(p, 502, why);
}

static void fail_without_head(struct passage *p)
{
    fail_with_status(p,
                     buffer_len(&p->head) > 0 ? "ended within the head of its response" : "ended without a response");
}

/* The head has been sent: what follows from the announced length shows the client that it is not all. */
static void fail_short(struct passage *p)
{
    char why[96];

    snprintf(why, sizeof why, "ended %" PRIu64 " bytes short of its Content-Length", p->body_left);
    passage_fail(p, 502, why);
}

void response_complete(struct passage *p)
{
    exchange_phase(p->exchange, PHASE_BODY, p->granted_us);
    if (p->run != NULL)
        input_end(p);
    if (p->is.has_permit && p->exit_code <= 0)
        pass_on(p);
    else if (p->is.has_permit)
        fail_with_status(p, "ended");
    else if (!p->is.head_done)
        fail_without_head(p);
    else if (p->nph != NULL && !p->nph->is_body)
        passage_fail(p, 502, "ended within the head of its response");
    else if (p->is.has_length)
        fail_short(p);
    else if (p->chunked != NULL)
        passage_fail(p, 502, "ended within a chunked body");
    else
        exchange_end(passage_let_go(p));
}
