/*
 * What a front has of the keeper: processes and slots on loan. They come and go by its messages.
 */
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>

#include "fastcgi/inside.h"

static void give_back(struct peer *peer)
{
    struct fastcgi_pool *pool = peer->pool;
    uint32_t id = peer->id;

    pool_remove_peer(peer);
    if (id != 0) {
        pool->n_owed--;
        link_say(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, id, 1);
    }
}

/* What was recalled goes back as soon as it is free. */
void loans_pay(struct fastcgi_pool *pool)
{
    bool has_paid = false;

    while (pool->n_owed > 0 && (pool->n_slots > 0 || !TAILQ_EMPTY(&pool->idle))) {
        has_paid = true;
        if (pool->n_slots == 0)
            give_back(TAILQ_FIRST(&pool->idle));
        if (pool->n_slots == 0)
            continue;
        pool->n_slots--;
        pool->n_owed--;
        link_say(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, 0, 1);
    }
    if (has_paid)
        link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}

/* A process that ends, ends a loan: for the keeper, that is one that was recalled, if any was. */
void loans_forgive(struct fastcgi_pool *pool)
{
    if (pool->n_owed > 0)
        pool->n_owed--;
}

static void on_loan(struct fastcgi_pool *pool, const struct message *message, int errors_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    pool->is_down = false;
    if (message->id == 0) {
        pool->n_slots += message->n;
        return;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%.*s", (int)(sizeof address.sun_path - 1), message->text);
    struct peer *peer = peer_create(pool, (const struct sockaddr *)&address, sizeof address);
    peer->id = message->id;
    peer->index = message->n % SCOREBOARD_PROGRAMS;
    peer->pid = message->pid;
    if (errors_fd >= 0)
        peer_watch_errors(peer, errors_fd);
    pool_add_peer(pool, peer);
    pool_set_idle(peer, true);
}

static struct peer *find(struct fastcgi_pool *pool, uint32_t id)
{
    struct peer *peer;

    TAILQ_FOREACH(peer, &pool->idle, next)
    if (peer->id == id)
        return peer;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer->id == id)
        return peer;
    return NULL;
}

/* The end of its connection follows, or has come; a run that it still has is read to that end. */
static void on_gone(struct fastcgi_pool *pool, const struct message *message)
{
    struct peer *peer = find(pool, message->id);

    if (peer == NULL)
        return;
    peer->is.gone = true;
    pool->closes_itself = false; /* or if it does, it does exit, too */
    loans_forgive(pool);
    if (peer->n_runs == 0)
        pool_remove_peer(peer);
    link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}

void loans_receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds)
{
    struct fastcgi_pool *pool = (struct fastcgi_pool *)((char *)borrower - offsetof(struct fastcgi_pool, borrower));

    switch (message->kind) {
    case MESSAGE_LOAN:
        on_loan(pool, message, n_fds > 0 ? fds[0] : -1);
        break;
    case MESSAGE_RECALL:
        pool->n_owed += message->n;
        break;
    case MESSAGE_GONE:
        on_gone(pool, message);
        break;
    case MESSAGE_DOWN:
        fastcgi_pool_fail(pool, RUN_DOWN, message->text);
        break;
    default:
        break;
    }
    pool_serve_waiting(pool);
    if (message->kind == MESSAGE_LOAN)
        link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n);
}
