/*
 * `gatehouse fcgi ping` and `values`: both ask GET_VALUES (specification section 4.1), which opens no request. An
 * application that knows no such question says UNKNOWN_TYPE (section 4.2), and so speaks FastCGI as well.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "log.h"
#include "tools/fcgi.h"
#include "tools/fcgi_client.h"

enum answer_kind {
    ANSWER_NONE,
    ANSWER_VALUES,
    ANSWER_UNKNOWN_TYPE,
    ANSWER_OTHER, /* a record, but not one that answers this */
};

struct question {
    struct fcgi_client client;
    bool is_asked;
    uint64_t asked_us, answer_us; /* when; how long it took */
    enum answer_kind kind;
    struct buffer content; /* of the record that was the answer: at most 1 KiB */
    struct buffer other;   /* ANSWER_OTHER, in words */
};

/* The buffer is empty. */
static bool ask(void *arg, struct buffer *out)
{
    struct question *question = arg;

    if (question->is_asked)
        return false;
    question->is_asked = true;
    question->asked_us = clock_us();
    record_get_values(out);
    return true;
}

static bool on_answer(void *arg, const struct record_event *event)
{
    struct question *question = arg;

    question->answer_us = clock_us() - question->asked_us;
    if (event->kind == RECORD_WHOLE && event->type == RECORD_GET_VALUES_RESULT) {
        question->kind = ANSWER_VALUES;
        buffer_append_span(&question->content, event->bytes);
    } else if (event->kind == RECORD_WHOLE && event->type == RECORD_UNKNOWN_TYPE) {
        question->kind = ANSWER_UNKNOWN_TYPE;
    } else {
        question->kind = ANSWER_OTHER;
        record_describe(&question->other, event);
    }
    return false;
}

/* Appends the pairs, each with `before` and `after` around it. False: they are malformed from there on. */
static bool put_pairs(struct buffer *to, struct span content, const char *before, const char *after)
{
    struct span name, value;
    int result;

    while ((result = record_pair(&content, &name, &value)) > 0) {
        buffer_append_span(to, span_of(before));
        log_escape(to, name);
        buffer_append(to, "=", 1);
        log_escape(to, value);
        buffer_append_span(to, span_of(after));
    }
    return result == 0;
}

static int print_values(struct question *question)
{
    struct buffer text = {0};
    bool is_good = put_pairs(&text, buffer_span(&question->content), "", "\n");
    bool is_empty = buffer_len(&text) == 0;
    int error = fcgi_client_write(STDOUT_FILENO, buffer_span(&text));

    buffer_free(&text);
    if (!is_good)
        fcgi_client_say(&question->client, "its GET_VALUES_RESULT is malformed");
    else if (is_empty)
        fcgi_client_say(&question->client, "it answers, but with no value");
    return is_good && error == 0 ? FCGI_FINE : FCGI_FAILED;
}

static int print_ping(struct question *question)
{
    struct buffer text = {0};
    bool is_good = true;
    int error;

    buffer_printf(&text, "%s: FastCGI, connected in %.3f ms, answered in %.3f ms:", question->client.name,
                  (double)question->client.connect_us / 1000, (double)question->answer_us / 1000);
    if (question->kind == ANSWER_UNKNOWN_TYPE)
        buffer_append_span(&text, SPAN(" UNKNOWN_TYPE, so it does not know GET_VALUES"));
    else if (buffer_len(&question->content) == 0)
        buffer_append_span(&text, SPAN(" no values"));
    else
        is_good = put_pairs(&text, buffer_span(&question->content), " ", "");
    if (!is_good)
        buffer_append_span(&text, SPAN(" and then what is malformed"));
    buffer_append(&text, "\n", 1);
    error = fcgi_client_write(STDOUT_FILENO, buffer_span(&text));
    buffer_free(&text);
    return is_good && error == 0 ? FCGI_FINE : FCGI_FAILED;
}

static int tell_other(struct question *question)
{
    buffer_append(&question->other, "", 1);
    fcgi_client_say(&question->client, "it answers GET_VALUES with something else: %s", buffer_at(&question->other));
    return FCGI_FAILED;
}

static int tell_unknown_type(struct question *question)
{
    fcgi_client_say(&question->client, "it does not know GET_VALUES");
    return FCGI_FAILED;
}

static int ask_values(const struct fcgi_line *line, bool is_ping)
{
    static const struct fcgi_client_calls calls = {ask, on_answer};
    struct question question = {.kind = ANSWER_NONE};
    int status = FCGI_FAILED;

    if (fcgi_client_open(&question.client, &line->address, line->timeout_ms, line->max_ms, line->is_verbose) == 0) {
        enum fcgi_client_end end = fcgi_client_exchange(&question.client, &calls, &question);

        fcgi_client_tell_end(&question.client, end);
        if (question.kind == ANSWER_OTHER)
            status = tell_other(&question);
        else if (question.kind != ANSWER_NONE && is_ping)
            status = print_ping(&question);
        else if (question.kind == ANSWER_VALUES)
            status = print_values(&question);
        else if (question.kind == ANSWER_UNKNOWN_TYPE)
            status = tell_unknown_type(&question);
    }
    fcgi_client_close(&question.client);
    buffer_free(&question.content);
    buffer_free(&question.other);
    return status;
}

int fcgi_ping(const struct fcgi_line *line)
{
    return ask_values(line, true);
}

int fcgi_values(const struct fcgi_line *line)
{
    return ask_values(line, false);
}
