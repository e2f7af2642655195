/*
 * What applications offer: whether a connection may have several requests at once, and how many. They are asked when
 * requests have to wait, not before: most cannot do so, and are not to be disturbed for nothing.
 */
#include "base/clock.h"
#include "fastcgi/inside.h"

enum {
    ASK_AGAIN_US = 30000000, /* what an application offers is asked anew after so long, if it did not say so; */
    MOST_DOUBLED = 7,        /* after twice as long each time that it did not answer at all */
};

static void take_answer(struct application *application, const struct values *values)
{
    struct fastcgi_pool *pool = application->pool;
    unsigned most = values->max_reqs > 0 && values->max_reqs < FASTCGI_LANES ? values->max_reqs : FASTCGI_LANES;

    if (application->lanes != most)
        log_notice("pool %s: the application multiplexes: up to %u requests on a connection", pool->config->name, most);
    application->lanes = most;
    pool->is_multiplexing = true;
}

static void on_answered(void *arg, const struct values *values)
{
    struct application *application = arg;
    struct fastcgi_pool *pool = application->pool;

    application->query = NULL;
    if (pool->servers != NULL)
        servers_leave(application);
    application->n_unanswered = values != NULL ? 0 : application->n_unanswered + 1;
    if (values != NULL && values->multiplexes)
        take_answer(application, values);
    pool_serve_waiting(pool);
}

/* A server's seat is taken for that, so that it never has more connections than it may. */
static bool begin(struct application *application, const struct sockaddr *address, socklen_t len)
{
    const struct fastcgi_pool *pool = application->pool;

    if (pool->servers != NULL && !servers_enter(application))
        return false;
    application->query = values_ask(pool->options.base, address, len, on_answered, application);
    if (application->query == NULL && pool->servers != NULL)
        servers_leave(application);
    return true;
}

void offer_ask_now(struct application *application)
{
    if (!application->must_ask || !application->keeps || application->query != NULL || application->is_leaving)
        return;
    application->must_ask = !begin(application, (const struct sockaddr *)&application->address, application->len);
}

static uint64_t ask_again_us(const struct application *application)
{
    unsigned n = application->n_unanswered;

    return (uint64_t)ASK_AGAIN_US << (n < 2 ? 0 : n - 1 < MOST_DOUBLED ? n - 1 : MOST_DOUBLED);
}

/* One that has not answered may have been busy. */
static void ask_what_it_offers(const struct peer *peer)
{
    struct application *application = peer_application(peer);
    uint64_t now = clock_us();

    if (application->lanes > 1 || application->query != NULL || application->cannot_multiplex ||
        (application->asked_us != 0 && now - application->asked_us < ask_again_us(application)))
        return;
    application->asked_us = now;
    application->must_ask = !begin(application, (const struct sockaddr *)&peer->address, peer->address_len);
}

void offer_ask(struct fastcgi_pool *pool)
{
    const struct peer *peer;

    if (!pool->config->multiplex)
        return;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer->state == PEER_BUSY)
        ask_what_it_offers(peer);
}
