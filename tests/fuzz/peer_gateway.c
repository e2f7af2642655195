/*
 * The gateway's part. Of each run it knows how far it is, and so whether an upcall may come; what it was given is held
 * against what the application has said at the end (fuzz_peer.c).
 *
 * A run's policy, a byte: what it does within its upcalls.
 *
 *     bits 0-1  granted   1: feeds all; 2: stops; 3: stops at once
 *     bits 2-3  output    1: pauses; 2: stops; 3: stops at once
 *     bits 4-5  drained   1: feeds; 2: feeds the last; 3: stops
 *     bit  6    errors    stops
 *     bit  7    ended     opens another
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "peer_play.h"

enum { DATA_SIZE = 200000, VALUE_SIZE = 70000, PERIOD = 65521 };

/* How many variables beside the number, and how long the value of each. The last does not fit a record. */
static const struct {
    unsigned n;
    size_t len;
} shapes[SHAPES] = {{0, 0}, {5, 150}, {300, 400}, {2, VALUE_SIZE / 2}};

/* Twice, so that what begins in the first need not be cut. */
static char pattern[2 * PERIOD];

static size_t place_of(unsigned stream, uint64_t offset)
{
    return (size_t)((stream * 997 + offset) % PERIOD);
}

void pattern_write(char *at, size_t len, unsigned stream, uint64_t offset)
{
    for (size_t done = 0, n; done < len; done += n) {
        n = len - done < PERIOD ? len - done : PERIOD;
        memcpy(at + done, pattern + place_of(stream, offset + done), n);
    }
}

bool pattern_is(struct span bytes, unsigned stream, uint64_t offset)
{
    for (size_t done = 0, n; done < bytes.len; done += n) {
        n = bytes.len - done < PERIOD ? bytes.len - done : PERIOD;
        if (memcmp(bytes.at + done, pattern + place_of(stream, offset + done), n) != 0)
            return false;
    }
    return true;
}

bool gateway_variable(const struct part *part, unsigned n, struct span *name, struct span *value, bool *is_sent_out)
{
    static char text[2][32], values[VALUE_SIZE];
    size_t len = shapes[part->shape].len * (part->shape == 3 ? n : 1);

    *is_sent_out = true;
    if (n == 0) {
        *name = SPAN("RUN_NUMBER");
        *value = (struct span){text[0], (size_t)snprintf(text[0], sizeof text[0], "%u", part->number)};
        return true;
    }
    if (n > shapes[part->shape].n)
        return false;
    memset(values, 'a' + (int)(n + part->number) % 26, len);
    *name = (struct span){text[1], (size_t)snprintf(text[1], sizeof text[1], "VARIABLE_%u", n)};
    *value = (struct span){values, len};
    *is_sent_out = len < VALUE_SIZE;
    return true;
}

static void each_variable(const struct run_request *request, run_emit *emit, void *arg)
{
    const struct part *part = (const struct part *)((const char *)request - offsetof(struct part, request));
    struct span name, value;
    bool is_sent_out;

    for (unsigned n = 0; gateway_variable(part, n, &name, &value, &is_sent_out); n++)
        emit(arg, name, value);
}

/* A filter's file. */
static int data_fd = -1;

void gateway_start(void)
{
    static char bytes[DATA_SIZE];

    if (data_fd >= 0)
        return;
    for (uint32_t i = 0, state = 1; i < sizeof pattern; i++) {
        state = i % PERIOD == 0 ? 1 : state * 1664525 + 1013904223;
        pattern[i] = (char)(state >> 24);
    }
    pattern_write(bytes, sizeof bytes, STREAM_DATA, 0);
    data_fd = memfd_create("data", MFD_CLOEXEC);
    require(write(data_fd, bytes, sizeof bytes) == sizeof bytes);
}

/* ---- what the pool calls ---- */

/* An upcall may come now. */
static struct part *enter(void *arg)
{
    struct part *part = arg;

    require(!part->is.opening && !part->is.stopping && !part->is.ended && !part->is.stopped);
    return part;
}

static void on_granted(void *arg)
{
    struct part *part = enter(arg);
    unsigned what = part->policy & 3;

    require(!part->is.granted && part->run->is_granted);
    part->is.granted = true;
    if (what == 1)
        gateway_feed(part, 1000, true);
    else if (what > 1)
        gateway_stop(part, what == 3);
}

static bool has_answer(const struct part *part)
{
    return buffer_len(&part->output) > 0 || (buffer_len(&part->errors) > 0 && !part->play->is_managed);
}

/* After an answer has begun, no other try. */
static void note_answer(struct part *part)
{
    if (!has_answer(part))
        part->retries = part->run->retries;
    require(part->run->retries == part->retries);
    part->id = ((const struct fastcgi_run *)part->run)->id;
}

static void on_output(void *arg, struct span bytes, bool more)
{
    struct part *part = enter(arg);
    unsigned what = part->policy >> 2 & 3;

    require(part->is.granted);
    require(bytes.len > 0 || part->is.promised);
    part->is.promised = more;
    if (bytes.len > 0)
        note_answer(part);
    buffer_append_span(&part->output, bytes);
    part->n_while_paused += part->is.paused ? bytes.len : 0;
    require(part->n_while_paused <= FASTCGI_OVERRUN + FASTCGI_SCRATCH);
    if (what == 1)
        gateway_pause(part);
    else if (what > 1)
        gateway_stop(part, what == 3);
}

static void on_errors(void *arg, struct span bytes)
{
    struct part *part = enter(arg);

    require(part->is.granted);
    if (!part->play->is_managed)
        note_answer(part);
    buffer_append_span(&part->errors, bytes);
    if (part->policy & 64)
        gateway_stop(part, true);
}

static void on_drained(void *arg)
{
    struct part *part = enter(arg);
    unsigned what = part->policy >> 4 & 3;

    require(part->is.granted && part->is.full);
    part->is.full = false;
    if (what == 3)
        gateway_stop(part, false);
    else if (what > 0)
        gateway_feed(part, 5000, what == 2);
}

static void on_complete(void *arg)
{
    require(enter(arg)->is.granted);
}

static void on_ended(void *arg, const struct run_result *result)
{
    struct part *part = arg;
    bool opens = (part->policy & 128) != 0 && !part->play->is_closing;

    require(!part->is.opening && !part->is.stopping && !part->is.ended);
    require(result->why != NULL && result->cause <= RUN_TIMEOUT);
    require(result->cause != RUN_TIMEOUT || (part->play->is_port && !has_answer(part)));
    require((result->cause == RUN_STOPPED) == (part->is.stopped || part->play->is_closing));
    require(result->cause != RUN_COMPLETE || part->is.granted);
    if (strcmp(result->why, "its process has ended within the request") == 0)
        require(part->play->is_managed && keeper_has_bad_ends(part->play) && !has_answer(part));
    if (result->cause != RUN_COMPLETE && result->cause != RUN_STOPPED)
        part->run->down->explain(part->run);
    require(!has_answer(part) || result->cause == RUN_OVERLOADED || part->run->retries == part->retries);
    part->is.ended = true;
    part->is.promised = false;
    part->id = ((const struct fastcgi_run *)part->run)->id;
    part->run = NULL;
    part->result = *result;
    part->result.why = "";
    if (opens)
        gateway_open(part->play, (uint8_t)part->number, 0, 0);
}

static const struct run_up up = {
    .granted = on_granted,
    .output = on_output,
    .errors = on_errors,
    .drained = on_drained,
    .complete = on_complete,
    .ended = on_ended,
};

/* ---- what it calls ---- */

static void describe(struct part *part, uint8_t what)
{
    static const uint64_t lengths[] = {0, 1, 70000, DATA_SIZE + 1};

    part->request = (struct run_request){
        .each_variable = each_variable,
        .script = SPAN(""),
        .id = SPAN("0123456789"),
        .has_input = (what & 4) != 0,
        .role = (enum route_role)((what & 3) % 3),
        .data_fd = data_fd,
        .data_length = lengths[what >> 3 & 3],
    };
    part->data_length = part->request.data_length < DATA_SIZE ? part->request.data_length : DATA_SIZE;
    part->is.fed = !part->request.has_input;
}

/* what: bits 0-1 its role, bit 2 whether it has input, bits 3-4 how long its data are. */
void gateway_open(struct play *play, uint8_t what, uint8_t shape, uint8_t policy)
{
    struct run_result refusal = {.cause = RUN_COMPLETE, .why = NULL};
    struct runner *runner = fastcgi_pool_runner(play->pool);

    if (play->n_parts == MAX_PARTS)
        return;
    struct part *part = play->parts[play->n_parts] = memory_zeroed(1, sizeof *part);
    part->play = play;
    part->number = play->n_parts++;
    part->shape = shape % SHAPES;
    part->policy = policy;
    describe(part, what);
    part->is.opening = true;
    part->run = runner->open(runner, &part->request, &up, part, &refusal);
    part->is.opening = false;
    if (part->run == NULL) {
        require(refusal.cause >= RUN_OVERLOADED && refusal.why != NULL);
        part->is.ended = true;
        part->result.cause = refusal.cause;
    } else {
        part->is.granted = part->run->is_granted;
    }
}

/* As much as it says, if the pool takes it. */
void gateway_feed(struct part *part, size_t len, bool last)
{
    static char bytes[LARGEST_FEED];

    if (!part->is.granted || part->is.full || part->is.fed || part->is.stopped)
        return;
    len = len < sizeof bytes ? len : sizeof bytes;
    pattern_write(bytes, len, part->number, part->n_fed);
    part->n_fed += len;
    part->is.fed = last;
    part->is.full = part->run->down->feed(part->run, (struct span){bytes, len}, last);
}

void gateway_pause(struct part *part)
{
    if (part->is.stopped || part->is.paused)
        return;
    part->is.paused = true;
    part->n_while_paused = 0;
    part->run->down->pause(part->run);
}

void gateway_resume(struct part *part)
{
    if (part->is.stopped)
        return;
    part->is.paused = false;
    part->n_while_paused = 0;
    part->run->down->resume(part->run);
}

void gateway_stop(struct part *part, bool at_once)
{
    if (part->is.stopped)
        return;
    part->is.stopping = true;
    part->run->down->stop(part->run, at_once);
    part->is.stopping = false;
    part->is.stopped = true;
    part->is.promised = false;
}

void gateway_explain(struct part *part)
{
    part->run->down->explain(part->run);
}

/* A line of any bytes. */
void gateway_tell_slow(struct part *part, size_t len)
{
    static char line[2 * MESSAGE_MAX_TEXT];

    part->run->down->slow(part->run, (struct span){line, len < sizeof line ? len : sizeof line});
}

struct part *gateway_part(const struct play *play, uint8_t number)
{
    struct part *alive[MAX_PARTS];
    unsigned n = 0;

    for (unsigned i = play->n_parts; i-- > 0;)
        if (play->parts[i]->run != NULL && !play->parts[i]->is.stopped)
            alive[n++] = play->parts[i];
    return n > 0 ? alive[number % n] : NULL;
}

void gateway_free(struct play *play)
{
    for (unsigned i = 0; i < play->n_parts; i++) {
        buffer_free(&play->parts[i]->output);
        buffer_free(&play->parts[i]->errors);
        free(play->parts[i]);
    }
    play->n_parts = 0;
}
