/*
 * A program is told the length of its input, which of a body in chunks is known only at its end; and a program that
 * runs waits for its input as long as the client takes to send it. What is done about it is the route's choice:
 *
 *     on     the whole body is held, in memory or in a file, before the run is opened
 *     auto   a body in chunks is held for as long as it comes without a pause and is not large: then it is mostly
 *            whole. Else the program has to do without the length, and reads while the rest comes
 *     off    nothing is held
 *
 * What is held goes to the run first, as fast as it takes it; what comes from the client meanwhile goes behind it.
 */
#include "gateway/input.h"

#include <errno.h>
#include <stdio.h>

enum {
    MAX_HELD = 65536,                /* of one request's body, with auto */
    MAX_HELD_ALL = 16 * 1024 * 1024, /* in memory, of all on this front */
    HOLD_US = 300000,                /* a pause that ends the holding, with auto */
    PIECES_PER_TURN = 16,
};

static bool is_held_whole(const struct passage *p)
{
    return p->route->request_buffering == BUFFERING_ON;
}

/* ---- what is held ---- */

void input_drop(struct passage *p)
{
    p->gateway->held -= spool_held(&p->input);
    p->gateway->in_files -= p->input.in_file;
    spool_free(&p->input);
}

void input_free(struct passage *p)
{
    input_drop(p);
    if (p->feeder != NULL)
        event_free(p->feeder);
}

/* 0, or -errno of a file. */
static int keep(struct passage *p, struct span bytes)
{
    struct gateway *gateway = p->gateway;
    uint64_t before = spool_held(&p->input), before_in_file = p->input.in_file;
    bool in_memory = gateway->held + bytes.len <= MAX_HELD_ALL;
    int error = 0;

    if (!p->is.is_holding || !is_held_whole(p))
        spool_hold(&p->input, bytes);
    else if (gateway->in_files + bytes.len > gateway->options.max_temp && (!in_memory || !spool_fits(&p->input, bytes)))
        return -EDQUOT;
    else
        error = spool_append(&p->input, bytes, gateway->options.temp_dir, in_memory);
    gateway->held += spool_held(&p->input) - before;
    gateway->in_files += p->input.in_file - before_in_file;
    return error;
}

static const char *cure_of(int error)
{
    switch (error) {
    case -EMFILE:
    case -ENFILE:
        return "raise the limit of open files";
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return "make room there, name another directory, or raise max_temp";
    default:
        return "name a directory that the server's user can write in";
    }
}

static void fail_writing(struct passage *p, int error)
{
    const char *directory = p->gateway->options.temp_dir;
    char why[512];

    p->is.is_holding = false;
    input_drop(p);
    snprintf(why, sizeof why, "the request's body cannot be kept in temp_dir = %.200s: %s; %s", directory,
             strerror(-error), cure_of(error));
    passage_fail(p, 507, why);
}

/* ---- to the run ---- */

static bool feed(struct passage *p, struct span bytes, bool last)
{
    p->is.input_ended = last;
    p->is.input_full = p->run->down->feed(p->run, bytes, last);
    return p->is.input_full;
}

static void fail_reading(struct passage *p, int error)
{
    char why[512];

    snprintf(why, sizeof why, "the request's body cannot be read back from a file in temp_dir = %.200s: %s",
             p->gateway->options.temp_dir, strerror(-error));
    passage_stop_run(p, true);
    if (passage_is_open(p))
        passage_fail(p, 500, why);
    else
        log_warning("[%s] %s", p->id, why);
}

static void want_more(struct passage *p)
{
    if (!p->request.has_input)
        return;
    p->is.wants_input = true;
    exchange_want_body(p->exchange);
}

/* The next piece of what is held. True when the run takes another, and there is one. */
static bool feed_piece(struct passage *p)
{
    struct span piece;
    int error = spool_peek(&p->input, p->gateway->room, &piece);

    if (error != 0) {
        fail_reading(p, error);
        return false;
    }
    size_t before = spool_held(&p->input);
    bool is_last = p->is.input_done && spool_left(&p->input) == piece.len;
    bool has_enough = feed(p, piece, is_last);
    spool_took(&p->input, piece);
    p->gateway->held -= before - spool_held(&p->input);
    if (spool_left(&p->input) > 0)
        return !has_enough;
    input_drop(p);
    if (!is_last && !has_enough)
        want_more(p);
    return false;
}

static void on_feeder(evutil_socket_t fd, short what, void *arg);

/* A program that is as fast as the disk must not keep the others waiting: after so many pieces it is their turn. */
static void feed_held(struct passage *p)
{
    static const struct timeval at_once = {0, 0};

    for (int i = 0; i < PIECES_PER_TURN; i++)
        if (!feed_piece(p))
            return;
    if (p->feeder == NULL)
        p->feeder = evtimer_new(p->gateway->options.base, on_feeder, p);
    event_add(p->feeder, &at_once);
}

static void on_feeder(evutil_socket_t fd, short what, void *arg)
{
    struct passage *p = arg;

    (void)fd, (void)what;
    if (spool_left(&p->input) == 0)
        return;
    passage_note_sign(p);
    feed_held(p);
}

void input_granted(struct passage *p)
{
    if (spool_left(&p->input) > 0 || p->is.input_done)
        feed_held(p);
    else
        want_more(p);
}

bool input_is_awaited(const struct passage *p)
{
    return p->is.wants_input && !p->is.input_full && !p->is.input_ended && !p->is.input_done;
}

void input_drained(struct passage *p)
{
    p->is.input_full = false;
    if (spool_left(&p->input) > 0)
        feed_held(p);
    else if (passage_is_open(p) && p->request.has_input)
        exchange_want_body(p->exchange);
}

void input_end(struct passage *p)
{
    if (!p->request.has_input || p->is.input_ended || p->is.input_done)
        return;
    input_drop(p);
    feed(p, SPAN(""), true);
}

/* ---- from the client ---- */

static void open_run(struct passage *p)
{
    p->is.is_holding = false;
    if (p->is.input_done) {
        p->vars.length_known = true;
        p->vars.length = p->input.len;
    }
    passage_open_run(p);
}

void input_pause(struct passage *p)
{
    open_run(p);
}

/* Returns true for "enough": what comes now is for the run to take when it wants. The exchange is at work on the
 * connection, so that the passage outlives a run that cannot be opened. */
static bool hold(struct passage *p, struct span bytes)
{
    int error = keep(p, bytes);
    bool has_room = spool_held(&p->input) < MAX_HELD && p->gateway->held < MAX_HELD_ALL;

    if (error != 0) {
        fail_writing(p, error);
        return true;
    }
    if (!p->is.input_done && is_held_whole(p))
        return false;
    if (!p->is.input_done && has_room) {
        passage_call_in(p, HOLD_US);
        return false;
    }
    open_run(p);
    return !p->is.wants_input;
}

bool input_take(struct passage *p, struct span bytes, bool last)
{
    p->is.input_done = last;
    if (p->is.is_holding)
        return hold(p, bytes);
    if (p->granted_us != 0 && spool_left(&p->input) == 0)
        return feed(p, bytes, last);
    keep(p, bytes); /* it came between the holding's end and the run's turn */
    return true;
}

/* A client that waits for 100 (Continue) gets it, with auto, when its turn has come: its body cannot be had before. */
static bool must_hold(const struct passage *p)
{
    const struct exchange *exchange = p->exchange;

    if (!p->request.has_input || p->route->request_buffering == BUFFERING_OFF)
        return false;
    return is_held_whole(p) || (!exchange->head.has_length && !exchange->head.expect_continue);
}

void input_begin(struct passage *p)
{
    if (!must_hold(p)) {
        passage_open_run(p);
        return;
    }
    p->is.is_holding = true;
    if (!is_held_whole(p))
        passage_call_in(p, HOLD_US);
    exchange_want_body(p->exchange);
}
