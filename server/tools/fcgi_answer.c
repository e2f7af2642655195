/*
 *     head --> (interim: head again) --> body, or chunks --> end
 *
 * The head is read where it is gathered; what stands behind it there is the body's beginning.
 */
#include "tools/fcgi_answer.h"

#include <stdio.h>

#include "log.h"

enum {
    MAX_INTERIM = 8, /* heads, as in the server */
    SHOWN_LINES = 12,
    SHOWN_BYTES = 160, /* of a line */
};

static const struct chunked_limits chunk_limits = {.max_overhead = 16384, .max_trailers = 16384};

void fcgi_answer_init(struct fcgi_answer *answer)
{
    answer->status = answer->n_interim = 0;
    answer->why = NULL;
    answer->reason[0] = '\0';
    answer->head = (struct buffer){0};
    answer->n_body = 0;
    answer->is_over = false;
    reply_init(&answer->reply);
}

static bool refuse(struct fcgi_answer *answer, const char *why)
{
    answer->why = why;
    return false;
}

static void give(struct fcgi_answer *answer, struct span bytes)
{
    answer->n_body += bytes.len;
    if (bytes.len > 0)
        answer->write(answer->arg, bytes);
}

static bool take_chunks(struct fcgi_answer *answer, struct span bytes)
{
    struct span piece;

    while (!answer->is_over) {
        enum chunked_result result = chunked_read(&answer->chunked, &bytes, &piece);

        if (result == CHUNKED_MORE)
            return true;
        if (result == CHUNKED_BAD)
            return refuse(answer, answer->chunked.why);
        if (result == CHUNKED_DATA)
            give(answer, piece);
        else
            answer->is_over = true;
    }
    return true;
}

static bool take_body(struct fcgi_answer *answer, struct span bytes)
{
    if (answer->reply.is_chunked)
        return take_chunks(answer, bytes);
    give(answer, bytes);
    return true;
}

/* The final head is whole. */
static void note_status(struct fcgi_answer *answer)
{
    struct buffer text = {0};

    answer->status = answer->reply.status;
    log_escape(&text, answer->reply.reason);
    snprintf(answer->reason, sizeof answer->reason, "%.*s", (int)buffer_len(&text), buffer_at(&text));
    buffer_free(&text);
    if (answer->reply.is_chunked)
        chunked_init(&answer->chunked, &chunk_limits);
}

bool fcgi_answer_take(struct fcgi_answer *answer, struct span bytes)
{
    if (answer->status != 0)
        return take_body(answer, bytes);
    buffer_append_span(&answer->head, bytes);
    while (buffer_len(&answer->head) > 0) {
        struct span all = buffer_span(&answer->head);
        enum reply_result result = reply_read(&answer->reply, all.at, all.len);

        if (result == REPLY_MORE)
            return true;
        if (result == REPLY_BAD)
            return refuse(answer, answer->reply.why);
        if (answer->shows_head)
            answer->write(answer->arg, (struct span){all.at, answer->reply.len});
        if (answer->reply.status >= 200) {
            bool is_good;

            note_status(answer);
            is_good = take_body(answer, span_from(all, answer->reply.len));
            buffer_free(&answer->head);
            return is_good;
        }
        if (++answer->n_interim > MAX_INTERIM)
            return refuse(answer, "too many interim heads");
        buffer_consume(&answer->head, answer->reply.len);
        reply_init(&answer->reply);
    }
    return true;
}

/* Then what its head says of a length is no promise: with X-Sendfile the server takes the body from a file. */
static bool has_no_body(const struct fcgi_answer *answer)
{
    return answer->is_head || answer->status == 204 || answer->status == 304 || answer->reply.sendfile.len > 0;
}

bool fcgi_answer_end(struct fcgi_answer *answer)
{
    const struct reply *reply = &answer->reply;

    if (answer->status == 0 && buffer_len(&answer->head) > 0)
        return refuse(answer, "it ended within its head");
    if (answer->status == 0)
        return refuse(answer, answer->n_interim > 0 ? "an interim head only" : "nothing at all");
    if (has_no_body(answer))
        return true;
    if (reply->is_chunked && !answer->is_over)
        return refuse(answer, "it ended within a chunked body");
    if (reply->has_length && answer->n_body < reply->length)
        return refuse(answer, "its body is shorter than its Content-Length");
    if (reply->has_length && answer->n_body > reply->length)
        return refuse(answer, "its body is longer than its Content-Length");
    return true;
}

void fcgi_answer_describe_head(const struct fcgi_answer *answer, struct buffer *to)
{
    struct span rest = buffer_span(&answer->head);

    for (int i = 0; i < SHOWN_LINES && rest.len > 0; i++) {
        const char *lf = memchr(rest.at, '\n', rest.len);
        size_t len = lf != NULL ? (size_t)(lf - rest.at) : rest.len;
        size_t end = len > 0 && rest.at[len - 1] == '\r' ? len - 1 : len;

        buffer_append_span(to, SPAN("  | "));
        log_escape(to, (struct span){rest.at, end < SHOWN_BYTES ? end : SHOWN_BYTES});
        buffer_append_span(to, end > SHOWN_BYTES ? SPAN("...\n") : SPAN("\n"));
        rest = span_from(rest, lf != NULL ? len + 1 : len);
    }
    if (rest.len > 0)
        buffer_append_span(to, SPAN("  | ...\n"));
}

void fcgi_answer_free(struct fcgi_answer *answer)
{
    buffer_free(&answer->head);
}
