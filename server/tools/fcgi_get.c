/*
 * `gatehouse fcgi get`: one request. Everything that can be wrong with the command line is found before the connection
 * is opened.
 *
 *     sent: BEGIN_REQUEST and PARAMS --> STDIN, its end --> DATA and its end, for a filter
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/fcgi.h"
#include "tools/fcgi_answer.h"
#include "tools/fcgi_client.h"
#include "tools/fcgi_input.h"

enum { REQUEST_ID = 1 };

struct get {
    struct fcgi_client client;
    struct fcgi_request request;
    struct buffer encoded; /* BEGIN_REQUEST and PARAMS, until they are sent */
    struct fcgi_input body, data;
    struct fcgi_answer answer;
    bool is_input_broken; /* a file is not what it was */
    bool is_refused;      /* the answer is one that the server would refuse */
    bool is_over;         /* END_REQUEST has come: */
    struct record_event end;
    unsigned foreign_id; /* a request that it was not given, but spoke of; 0: none */
    int write_error;     /* of the standard output */
};

/* ---- the request ---- */

static bool open_input(struct fcgi_input *input, const char *path)
{
    int error = fcgi_input_file(input, path);

    if (error == 0)
        return true;
    fprintf(stderr, "gatehouse: %s: %s\n", strcmp(path, "-") == 0 ? "standard input" : path, strerror(-error));
    return false;
}

static bool open_inputs(struct get *get, const struct fcgi_line *line)
{
    if (line->data != NULL && line->data[0] == '@') {
        if (!open_input(&get->body, line->data + 1))
            return false;
    } else if (line->data != NULL) {
        fcgi_input_text(&get->body, line->data);
    }
    return line->filter == NULL || open_input(&get->data, line->filter);
}

static bool make_request(struct get *get, const struct fcgi_line *line)
{
    char *directory = getcwd(NULL, 0);
    char why[256], name[64];
    bool is_made;

    get->request.role = line->role;
    get->request.has_input = line->data != NULL;
    get->request.length = get->body.length;
    get->request.data_length = get->data.length;
    get->request.data_modified = get->data.modified;
    is_made = fcgi_request_make(&get->request, &line->request, directory != NULL ? directory : "/", why);
    free(directory);
    if (!is_made) {
        fprintf(stderr, "gatehouse: %s\n", why);
        return false;
    }
    if (fcgi_request_encode(&get->request, &get->encoded, name) == NULL)
        return true;
    fprintf(stderr, "gatehouse: %s is longer than a FastCGI record\n", name);
    return false;
}

static bool send_input(struct get *get, struct fcgi_input *input, enum record_type stream, struct buffer *out)
{
    int result = fcgi_input_send(input, stream, out);

    if (result < 0)
        get->is_input_broken = input->is_over = true;
    return result > 0;
}

static bool more(void *arg, struct buffer *out)
{
    struct get *get = arg;

    if (buffer_len(&get->encoded) > 0) {
        buffer_append_span(out, buffer_span(&get->encoded));
        buffer_free(&get->encoded);
        return true;
    }
    if (send_input(get, &get->body, RECORD_STDIN, out))
        return true;
    return get->request.role == RECORD_FILTER && !get->is_input_broken && send_input(get, &get->data, RECORD_DATA, out);
}

/* ---- the answer ---- */

static void write_output(void *arg, struct span bytes)
{
    struct get *get = arg;

    if (get->write_error == 0)
        get->write_error = fcgi_client_write(STDOUT_FILENO, bytes);
}

static bool on_event(void *arg, const struct record_event *event)
{
    struct get *get = arg;

    if (event->id == 0)
        return true; /* a management record that nobody asked for */
    if (event->id != REQUEST_ID) {
        get->foreign_id = event->id;
        return false;
    }
    if (event->kind == RECORD_WHOLE && event->type == RECORD_END_REQUEST) {
        get->is_over = true;
        get->end = *event;
        return false;
    }
    if (event->kind == RECORD_BYTES && event->type == RECORD_STDERR)
        fcgi_client_errors(&get->client, event->bytes);
    if (event->kind == RECORD_BYTES && event->type == RECORD_STDOUT)
        get->is_refused = !fcgi_answer_take(&get->answer, event->bytes);
    return !get->is_refused && get->write_error == 0 && !get->is_input_broken;
}

static int tell_refused(struct get *get)
{
    struct buffer head = {0};

    fcgi_client_say(&get->client, "%s: %s",
                    get->answer.status == 0 ? "the server would answer with 502"
                                            : "the server would break off its answer",
                    get->answer.why);
    if (get->answer.status == 0)
        fcgi_answer_describe_head(&get->answer, &head);
    fcgi_client_write(STDERR_FILENO, buffer_span(&head));
    buffer_free(&head);
    return FCGI_FAILED;
}

static int tell_protocol_status(struct get *get)
{
    struct buffer text = {0};

    record_describe(&text, &get->end);
    buffer_append(&text, "", 1);
    fcgi_client_say(&get->client, "it did not take the request: %s", buffer_at(&text));
    buffer_free(&text);
    return FCGI_FAILED;
}

/* END_REQUEST has come. */
static int judge(struct get *get)
{
    int status = FCGI_FINE;

    if (get->end.protocol_status != RECORD_REQUEST_COMPLETE)
        return tell_protocol_status(get);
    if (get->end.app_status != 0) {
        fcgi_client_say(&get->client, "the program ended with appStatus %u", (unsigned)get->end.app_status);
        status = FCGI_REFUSED;
    }
    if (!fcgi_answer_end(&get->answer))
        return tell_refused(get);
    if (get->answer.status >= 400) {
        fcgi_client_say(&get->client, "answered %u %s", get->answer.status, get->answer.reason);
        status = FCGI_REFUSED;
    }
    return status;
}

static int finish(struct get *get, enum fcgi_client_end end)
{
    fcgi_client_tell_end(&get->client, end);
    if (get->write_error != 0) {
        if (get->write_error != -EPIPE) /* whoever closes a pipe knows it */
            fcgi_client_say(&get->client, "standard output: %s", strerror(-get->write_error));
        return FCGI_FAILED;
    }
    if (get->is_input_broken)
        fcgi_client_say(&get->client, "the file of the body has become shorter, or cannot be read");
    else if (get->foreign_id != 0)
        fcgi_client_say(&get->client, "no FastCGI: it speaks of request %u, which it was not given", get->foreign_id);
    else if (get->is_refused)
        return tell_refused(get);
    else if (get->is_over)
        return judge(get);
    return FCGI_FAILED;
}

static int run(struct get *get, const struct fcgi_line *line)
{
    static const struct fcgi_client_calls calls = {more, on_event};
    int status = FCGI_FAILED;

    if (!open_inputs(get, line) || !make_request(get, line))
        return FCGI_USAGE;
    get->answer.is_head = span_is(get->request.method, SPAN("HEAD"));
    if (fcgi_client_open(&get->client, &line->address, line->timeout_ms, line->max_ms, line->is_verbose) == 0)
        status = finish(get, fcgi_client_exchange(&get->client, &calls, get));
    fcgi_client_close(&get->client);
    return status;
}

int fcgi_get(const struct fcgi_line *line)
{
    static struct get get; /* too much for a stack */
    int status;

    fcgi_input_none(&get.body);
    fcgi_input_none(&get.data);
    get.answer = (struct fcgi_answer){.shows_head = line->shows_head, .write = write_output, .arg = &get};
    fcgi_answer_init(&get.answer);
    status = run(&get, line);
    fcgi_answer_free(&get.answer);
    fcgi_request_free(&get.request);
    buffer_free(&get.encoded);
    fcgi_input_close(&get.body);
    fcgi_input_close(&get.data);
    return status;
}
