/*
 * What applications offer: whether a connection may have several requests at once, and how many. They are asked when
 * requests have to wait, not before: most cannot do so, and are not to be disturbed for nothing.
 */
#include "base/clock.h"
#include "fastcgi/inside.h"

enum { ASK_AGAIN_US = 30000000 }; /* what an application offers is asked anew after so long, if it did not say */

static void on_answered(void *arg, const struct values *values)
{
    struct application *application = arg;
    struct fastcgi_pool *pool = application->pool;

    application->query = NULL;
    if (values == NULL || !values->multiplexes)
        return;
    unsigned most = values->max_reqs > 0 && values->max_reqs < FASTCGI_LANES ? values->max_reqs : FASTCGI_LANES;
    if (application->lanes != most)
        log_notice("pool %s: the application multiplexes: up to %u requests on a connection", pool->config->name, most);
    application->lanes = most;
    pool->is_multiplexing = true;
    pool_serve_waiting(pool);
}

/* One that has not answered may have been busy. */
static void ask_what_it_offers(const struct peer *peer)
{
    struct application *application = peer_application(peer);
    uint64_t now = clock_us();

    if (application->lanes > 1 || application->query != NULL || application->cannot_multiplex ||
        (application->asked_us != 0 && now - application->asked_us < ASK_AGAIN_US))
        return;
    application->asked_us = now;
    application->query = values_ask(peer->pool->options.base, (const struct sockaddr *)&peer->address,
                                    peer->address_len, on_answered, application);
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
