/*
 * What the gateway says of a run that is open: gateway/run.h, from the side that fills it.
 */
#include "fastcgi/inside.h"

#include "base/counters.h"

static bool feed(struct run *base, struct span bytes, bool last)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;
    struct peer *peer = run->peer;

    if (run->is.input_ended)
        return false;
    request_feed(run, bytes, last);
    if (peer != NULL && peer->state == PEER_BUSY)
        peer_send(peer);
    run->is.input_full = peer == NULL || buffer_len(&peer->out) > 0;
    return run->is.input_full;
}

static void set_holding(struct fastcgi_run *run, bool is_holding)
{
    struct peer *peer = run->peer;

    if (peer == NULL || run->is.holding == is_holding)
        return;
    run->is.holding = is_holding;
    peer->n_holding += is_holding ? 1 : -1u;
    peer_set_reading(peer);
}

/* A connection of one request is not read for now. One that others share is, for a while yet. */
static void pause_output(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    run->is.paused = true;
    run->overrun = 0;
    if (run->peer != NULL && !peer_is_shared(run->peer))
        set_holding(run, true);
}

static void resume_output(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    run->is.paused = false;
    set_holding(run, false);
}

static void explain(struct run *base)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    trace_tell(run->trace, run->run.request->id);
}

void runs_on_stopped(evutil_socket_t fd, short what, void *arg)
{
    struct fastcgi_pool *pool = arg;
    struct fastcgi_run *run;

    (void)fd, (void)what;
    while ((run = TAILQ_FIRST(&pool->stopped)) != NULL) {
        TAILQ_REMOVE(&pool->stopped, run, next_stopped);
        pool_end_run(run, RUN_STOPPED, "");
    }
}

static void stop(struct run *base, bool at_once)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;

    if (run->is.completed)
        TAILQ_REMOVE(&run->pool->completed, run, next);
    run->is.completed = false;
    TAILQ_INSERT_TAIL(&run->pool->stopped, run, next_stopped);
    event_active(run->pool->end_stopped, EV_TIMEOUT, 0);
    if (run->entry.is_waiting) {
        queue_remove(&run->pool->queue, &run->entry);
        pool_tell_if_nobody_waits(run->pool);
    }
    if (run->doubts != NULL)
        run->doubts->doubted = NULL;
    run->doubts = NULL;
    if (run->peer != NULL)
        peer_abandon(run->peer, run, at_once);
}

/* The keeper may look at the process, and writes the log. The line may be of any bytes. */
static void tell_slow(struct run *base, struct span line)
{
    struct fastcgi_run *run = (struct fastcgi_run *)base;
    const struct fastcgi_options *options = &run->pool->options;
    unsigned number = (unsigned)run->pool->number;
    struct message message = {.kind = MESSAGE_SLOW, .pool = number};

    if (number < SCOREBOARD_POOLS)
        counter_add(&options->scoreboard->fronts[options->front].shares[number].n_slow, 1);
    if (run->peer == NULL)
        return; /* it waits for another try */
    message.id = run->peer->id;
    message.text_len = line.len < MESSAGE_MAX_TEXT ? line.len : MESSAGE_MAX_TEXT - 1;
    for (size_t i = 0; i < message.text_len; i++)
        message.text[i] = line.at[i] != '\0' ? line.at[i] : ' ';
    link_send(options->link, &message, NULL, 0);
}

const struct run_down runs_down = {
    .feed = feed,
    .pause = pause_output,
    .resume = resume_output,
    .stop = stop,
    .explain = explain,
    .slow = tell_slow,
};
