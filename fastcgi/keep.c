#include "base/clock.h"
#include "base/counters.h"
#include "base/seats.h"
#include "fastcgi/inside.h"

static bool is_server(const struct peer *peer)
{
    return peer->id == 0;
}

void keep_waits(struct peer *peer)
{
    if (!is_server(peer) || peer->is.waiting)
        return;
    peer->is.waiting = true;
    peer->waiting_since_us = clock_us();
    peer_application(peer)->n_waiting++;
}

void keep_heard(struct peer *peer)
{
    if (!peer->is.waiting)
        return;
    peer->is.waiting = false;
    peer_application(peer)->n_waiting--;
}

void keep_served(struct peer *peer)
{
    struct application *application = peer_application(peer);

    peer->n_served++;
    if (is_server(peer))
        peer->served_us = clock_us();
    if (application->row != NULL)
        counter_add(&application->row->n_requests, 1);
    if (peer->n_served < 2)
        return;
    application->keeps = true;
    application->n_closed = 0;
}

void keep_closed(struct peer *peer)
{
    if (is_server(peer) && peer->n_served == 1 && clock_us() - peer->served_us < KEEP_CLOSED_US)
        peer_application(peer)->n_closed++;
}

/* One that waits has lost its patience: it is given what the caller has. */
static bool give_way(const struct peer *peer)
{
    uint64_t now = clock_us();
    struct peer *other;

    TAILQ_FOREACH(other, &peer->pool->others, next)
    if (other->application == peer->application && other->is.waiting &&
        now - other->waiting_since_us > KEEP_PATIENCE_US) {
        keep_heard(other);
        return true;
    }
    return false;
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
    struct peer *peer = arg;

    (void)fd, (void)what;
    if (peer->state == PEER_IDLE)
        pool_on_grace(peer);
}

/* The timer is not taken back when a request comes, for that costs more than one that comes in vain. */
static void start_timer(struct peer *peer)
{
    static const struct timeval idle = {0, KEEP_IDLE_MS * 1000}, waiting = {0, KEEP_IDLE_WAITING_MS * 1000};

    if (peer->idle == NULL)
        peer->idle = evtimer_new(peer->pool->options.base, on_idle, peer);
    if (peer_application(peer)->n_waiting > 0)
        event_add(peer->idle, &waiting);
    else if (!event_pending(peer->idle, EV_TIMEOUT, NULL))
        event_add(peer->idle, &idle);
}

/* Now and then one is kept all the same: the application may be another by now. */
static bool closes_them(struct application *application)
{
    return application->n_closed >= KEEP_CLOSED && ++application->n_not_kept % KEEP_TRY_AGAIN != 0;
}

bool keep_on(struct peer *peer)
{
    struct application *application = peer_application(peer);

    if (!is_server(peer))
        return true;
    if (closes_them(application) || peer->n_served >= KEEP_REQUESTS)
        return false;
    if (application->n_waiting > 0 && give_way(peer))
        return false;
    if ((application->must_ask && application->keeps) || servers_must_give(application))
        return false;
    start_timer(peer);
    return true;
}
