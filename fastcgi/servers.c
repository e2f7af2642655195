/*
 * Servers that run already: which of them a new connection goes to, and what one is known by that cannot be reached.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "fastcgi/inside.h"

enum {
    FAILED_US = 1000000, /* a server that could not be reached is passed over for so long, if there is another */
};

static bool has_failed(const struct application *application, uint64_t now)
{
    return application->failed_us != 0 && now - application->failed_us < FAILED_US;
}

bool servers_is_failing(const struct peer *peer)
{
    const struct application *application = peer_application(peer);

    return peer->id == 0 && application->failed_us != 0 && has_failed(application, clock_us());
}

/* The server with the fewest connections of those that answer, or of all if none does. */
static size_t choose_server(const struct fastcgi_pool *pool)
{
    uint64_t now = clock_us();
    size_t best = 0;
    bool best_fails = true;

    for (size_t i = 0; i < pool->config->servers.n; i++) {
        const struct application *server = &pool->applications[i];
        bool fails = has_failed(server, now);

        if (i > 0 &&
            (fails > best_fails || (fails == best_fails && server->n_peers >= pool->applications[best].n_peers)))
            continue;
        best = i;
        best_fails = fails;
    }
    return best;
}

struct peer *servers_open(struct fastcgi_pool *pool)
{
    size_t server = choose_server(pool);
    const struct config_address *address = &pool->config->servers.at[server];
    struct peer *peer = peer_create(pool, (const struct sockaddr *)&address->address, address->len);

    peer->server = server;
    pool->applications[server].n_peers++;
    pool->n_slots--;
    pool_add_peer(pool, peer);
    return peer;
}

void servers_failed(struct peer *peer)
{
    peer_application(peer)->failed_us = clock_us();
}

enum run_cause servers_refused(struct peer *peer, struct fastcgi_run *run, int error)
{
    struct fastcgi_pool *pool = peer->pool;
    const struct config_address *address = &pool->config->servers.at[peer->server];

    snprintf(run->why, sizeof run->why, "cannot connect to %.150s: %s", address->text,
             error == -EAGAIN ? "its backlog is full" : strerror(-error));
    servers_failed(peer);
    pool_remove_peer(peer);
    if (++run->run.retries < pool->config->servers.n)
        return RUN_COMPLETE;
    return error == -EAGAIN ? RUN_OVERLOADED : RUN_BROKEN;
}
