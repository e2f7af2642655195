/*
 * What a front has of the keeper: processes and slots on loan. They come and go by its messages.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/clock.h"
#include "fastcgi/tell.h"

/* Can the keeper start more of it, when it hears that requests wait? */
static bool grows(const struct fastcgi_pool *pool)
{
    return pool->config->kind != POOL_SERVERS && pool->config->pm != PM_STATIC;
}

void loans_want(struct fastcgi_pool *pool)
{
    if (pool->number >= 0)
        link_want(pool->options.link, (unsigned)pool->number, pool->queue.n, grows(pool));
}

void loans_still_want(struct fastcgi_pool *pool)
{
    if (pool->number >= 0)
        link_still_want(pool->options.link, (unsigned)pool->number, pool->queue.n, grows(pool));
}

static void say(const struct peer *peer, enum message_kind kind, unsigned n)
{
    link_say(peer->pool->options.link, kind, (unsigned)peer->pool->number, peer->id, n);
}

/* ---- giving back ---- */

/* A slot goes back: does that settle one that was recalled? */
static unsigned settle(struct fastcgi_pool *pool)
{
    bool is_owed = pool->n_owed > 0;

    pool->n_owed -= is_owed;
    return is_owed;
}

static void give(struct peer *peer, enum message_kind kind, unsigned n_recalled)
{
    link_give(peer->pool->options.link, kind, (unsigned)peer->pool->number, peer->id, 1, n_recalled);
}

void loans_give_back(struct peer *peer)
{
    give(peer, MESSAGE_RETURN, 0); /* who had waited for it gets another */
    pool_remove_peer(peer);
}

/* The one behind it; NULL: there is none. */
static struct peer *find_behind(const struct peer *peer)
{
    struct peer *other;

    TAILQ_FOREACH(other, &peer->pool->others, next)
    if (other->behind == peer->id)
        break;
    return other;
}

/* Of one that is gone, the request may be with the one behind it by now. */
void loans_end(struct peer *peer)
{
    struct peer *ends = peer->is.gone ? find_behind(peer) : peer;

    if (peer->id == 0 || ends == NULL)
        return;
    give(ends, MESSAGE_END, settle(peer->pool));
    if (ends == peer)
        return;
    ends->behind = 0;
    pool_remove_peer(ends);
}

void loans_ask(struct peer *peer, bool rested)
{
    pool_set_idle(peer, false);
    peer->is.asked = true;
    peer->is.rested = rested;
    say(peer, MESSAGE_ASK, 0);
}

/* ---- one behind another ---- */

/* Has one that has died left a request at the socket that the new one listens on? Then that is its first. */
static uint32_t find_before(const struct fastcgi_pool *pool, const struct peer *peer)
{
    const struct peer *other;

    TAILQ_FOREACH(other, &pool->others, next)
    if (other != peer && other->is.gone && other->n_runs > 0 && other->address_len == peer->address_len &&
        memcmp(&other->address, &peer->address, peer->address_len) == 0)
        return other->id;
    return 0;
}

static void set_active(const struct peer *peer, uint32_t n)
{
    struct scoreboard_process *part = &peer->pool->options.scoreboard->processes[peer->index];

    part->since_us = clock_us();
    part->n_active = n;
}

/* The one behind it, if there is one, has nothing before it now. */
void loans_left(struct peer *peer)
{
    struct peer *other = peer->id != 0 && peer->is.gone ? find_behind(peer) : NULL;

    if (other == NULL)
        return;
    other->behind = 0;
    set_active(other, 0);
    if (other->is.untried)
        proof_begin(other);
    else
        pool_set_free(other);
}

/* ---- paying ---- */

/* An idle process, or a slot that is free. */
static void pay_one(struct fastcgi_pool *pool)
{
    struct peer *peer = TAILQ_FIRST(&pool->idle);

    if (pool->n_slots == 0 && peer->id == 0) { /* a connection that is kept gives its slot back */
        pool_remove_peer(peer);
    } else if (pool->n_slots == 0) {
        give(peer, MESSAGE_RETURN, settle(pool));
        pool_remove_peer(peer);
        return;
    }
    pool->n_slots--;
    link_give(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, 0, 1, settle(pool));
}

void loans_pay(struct fastcgi_pool *pool)
{
    bool has_paid = false;

    while ((pool->n_owed > 0 || (pool->is_yielding && pool->queue.n == 0)) &&
           (pool->n_slots > 0 || !TAILQ_EMPTY(&pool->idle))) {
        has_paid = true;
        pay_one(pool);
    }
    if (has_paid)
        loans_still_want(pool);
}

/* ---- what becomes of processes ---- */

static uint32_t n_given(const struct peer *peer)
{
    return peer->pool->options.scoreboard->processes[peer->index].given;
}

void loans_given(struct peer *peer)
{
    uint32_t n;

    if (peer->id == 0 || (peer->soft == 0 && peer->hard == 0))
        return;
    n = n_given(peer);
    if (peer->soft != 0 && n >= peer->soft && !peer->is.spent) {
        peer->is.spent = true;
        say(peer, MESSAGE_SPENT, 0);
    }
    if (peer->hard != 0 && n >= peer->hard)
        peer->is.retiring = true;
}

void loans_answered(struct peer *peer)
{
    uint64_t now;

    if (peer->id == 0)
        return;
    if (peer->is.fresh)
        say(peer, MESSAGE_READY, 0);
    peer->is.fresh = false;
    if (peer->pool->config->max_memory == 0)
        return;
    now = clock_us();
    if (now - peer->measured_us < FASTCGI_MEASURE_US)
        return;
    peer->measured_us = now;
    say(peer, MESSAGE_USED, 0);
}

/* Processes that are idle in all fronts: each writes its own part, and then reads all. */
static unsigned n_idle(const struct fastcgi_pool *pool)
{
    const struct scoreboard *board = pool->options.scoreboard;
    unsigned n = 0;

    atomic_thread_fence(memory_order_seq_cst); /* of two that each take the last but one, one sees the other's */
    for (unsigned i = 0; i < board->n_fronts && i < SCOREBOARD_FRONTS; i++)
        n += board->fronts[i].shares[pool->number].n_idle;
    return n;
}

/* The keeper hears of it once each time that too few are idle: it sees what there is itself. */
void loans_idle_changed(struct fastcgi_pool *pool, bool is_fewer)
{
    if (pool->number < 0)
        return;
    if (pool->config->kind == POOL_SERVERS || pool->config->pm != PM_DYNAMIC)
        return;
    if (!is_fewer && !pool->has_said_spare)
        return;
    bool is_short = n_idle(pool) < pool->config->min_spare_servers;
    if (is_short && !pool->has_said_spare)
        link_say(pool->options.link, MESSAGE_SPARE, (unsigned)pool->number, 0, 0);
    pool->has_said_spare = is_short;
}

/* ---- what the keeper says ---- */

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
    tell_lent(peer);
    peer->soft = message->soft;
    peer->hard = message->hard;
    peer->is.fresh = message->status != LOAN_READY;
    peer->is.untried = message->status == LOAN_UNTRIED;
    if (errors_fd >= 0)
        peer_watch_errors(peer, errors_fd);
    pool_add_peer(pool, peer);
    peer->behind = find_before(pool, peer);
    if (peer->behind != 0)
        set_active(peer, 1);
    else if (peer->is.untried)
        proof_begin(peer);
    else
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
        return; /* it was given up meanwhile, which has settled what there was to settle */
    peer->is.gone = true;
    peer->end_status = message->status;
    if (settle(pool))
        give(peer, MESSAGE_RETURN, 1);
    pool->closes_itself = false; /* or if it does, it does exit, too */
    if (peer->n_runs == 0)
        pool_on_fate(peer);
    loans_still_want(pool);
}

/* It has closed its connection, and has not exited. */
static void on_lives(struct fastcgi_pool *pool, uint32_t id)
{
    struct peer *peer = find(pool, id);

    if (peer == NULL || !peer->is.asked)
        return;
    if (peer->proof != NULL)
        proof_lives(peer);
    else if (peer->is.rested)
        pool->closes_itself = true;
    pool_on_fate(peer);
}

static void on_retire(struct fastcgi_pool *pool, uint32_t id)
{
    struct peer *peer = find(pool, id);

    if (peer == NULL)
        return;
    peer->is.retiring = true;
    if (peer->is.idle)
        loans_give_back(peer);
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
        servers_give_way(pool);
        break;
    case MESSAGE_GONE:
        on_gone(pool, message);
        break;
    case MESSAGE_LIVES:
        on_lives(pool, message->id);
        break;
    case MESSAGE_RETIRE:
        on_retire(pool, message->id);
        break;
    case MESSAGE_DOWN:
        fastcgi_pool_fail(pool, RUN_DOWN, message->text);
        break;
    default:
        break;
    }
    pool_serve_waiting(pool);
    if (message->kind == MESSAGE_RECALL && pool->n_owed > 0) /* all are busy: others may have idle ones */
        link_say(pool->options.link, MESSAGE_WANT, (unsigned)pool->number, 0, pool->queue.n);
    if (message->kind == MESSAGE_ALONE)
        loans_want(pool); /* that none waits, too: while it was alone, it has not said so */
    if (message->kind == MESSAGE_LOAN || message->kind == MESSAGE_ALONE)
        loans_still_want(pool);
}
