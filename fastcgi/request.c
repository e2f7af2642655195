/*
 * What one run sends: BEGIN_REQUEST, PARAMS, STDIN, and to a filter DATA.
 *
 * The input is kept beside what is sent, as long as it is not much and no answer has begun: so that the request can be
 * sent once more, on another connection and under another id.
 */
#include <unistd.h>

#include "fastcgi/inside.h"

enum { DATA_PIECE = 65536 };

static const enum record_role roles[] = {
    [ROLE_RESPONDER] = RECORD_RESPONDER,
    [ROLE_AUTHORIZER] = RECORD_AUTHORIZER,
    [ROLE_FILTER] = RECORD_FILTER,
};

static void add_variable(void *arg, struct span name, struct span value)
{
    struct params *params = arg;

    (void)params_add(params, name, value); /* it fits: no variable is longer than RUN_VARIABLE */
}

/* What was appended since the peer had so much to send. */
static void note(struct fastcgi_run *run, size_t before)
{
    if (run->trace != NULL)
        trace_sent(run->trace, span_from(buffer_span(&run->peer->out), before));
}

static void append_input(struct fastcgi_run *run, struct span bytes)
{
    if (bytes.len > 0)
        record_stream(&run->peer->out, RECORD_STDIN, run->id, bytes.at, bytes.len);
}

void request_begin(struct fastcgi_run *run)
{
    const struct run_request *request = run->run.request;
    struct buffer *out = &run->peer->out;
    size_t before = buffer_len(out);
    struct params params;

    if (!request->has_input)
        run->is.input_ended = true;
    record_begin(out, run->id, roles[request->role], true);
    params_begin(&params, out, run->id);
    request->each_variable(request, add_variable, &params);
    params_end(&params);
    append_input(run, buffer_span(&run->input));
    if (run->is.input_ended)
        record_stream_end(out, RECORD_STDIN, run->id);
    run->data_sent = 0;
    run->is.data_ended = false;
    note(run, before);
}

static void keep_input(struct fastcgi_run *run, struct span bytes)
{
    if (!run->is.replayable)
        return;
    if (buffer_len(&run->input) + bytes.len <= FASTCGI_REPLAY || run->peer == NULL) {
        buffer_append_span(&run->input, bytes);
        return;
    }
    run->is.replayable = false;
    buffer_free(&run->input);
}

void request_feed(struct fastcgi_run *run, struct span bytes, bool last)
{
    keep_input(run, bytes);
    run->is.input_ended |= last;
    if (run->peer == NULL)
        return;
    size_t before = buffer_len(&run->peer->out);
    append_input(run, bytes);
    if (last)
        record_stream_end(&run->peer->out, RECORD_STDIN, run->id);
    note(run, before);
}

/* A file that has become shorter meanwhile ends early: the filter was told its length, and sees it. */
bool request_feed_data(struct fastcgi_run *run)
{
    const struct run_request *request = run->run.request;
    uint64_t left = request->data_length - run->data_sent;
    size_t before = buffer_len(&run->peer->out);
    size_t wanted = left < DATA_PIECE ? (size_t)left : DATA_PIECE;
    char scratch[DATA_PIECE];

    if (request->role != ROLE_FILTER || !run->is.input_ended || run->is.data_ended)
        return false;
    ssize_t n = wanted > 0 ? pread(request->data_fd, scratch, wanted, (off_t)run->data_sent) : 0;
    if (n > 0) {
        record_stream(&run->peer->out, RECORD_DATA, run->id, scratch, (size_t)n);
        run->data_sent += (uint64_t)n;
    } else {
        record_stream_end(&run->peer->out, RECORD_DATA, run->id);
        run->is.data_ended = true;
    }
    note(run, before);
    return true;
}

void request_abort(struct fastcgi_run *run)
{
    size_t before = buffer_len(&run->peer->out);

    record_abort(&run->peer->out, run->id);
    note(run, before);
}
