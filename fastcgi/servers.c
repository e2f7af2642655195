/*
 * Servers that run already: which of them a request goes to, and what one is known by that fails.
 *
 * A connection to a server needs two things: a slot, which is this front's share of what the keeper lends, and a seat
 * at that server, of which there are as many as it may have connections, over all fronts (base/seats.h). A request that
 * finds no seat waits, and the other fronts are told: one that has a connection there which it does not need, or more
 * of them than whoever waits, closes it, and returns a slot for it. The keeper lends that to a front that waits, which
 * so learns of it. Since that may be another front, one that waits also looks again every RECHECK_MS.
 *
 * By hash, a request waits for its own server, and those behind it that are for others go ahead.
 */
#include "fastcgi/servers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/seats.h"
#include "fastcgi/inside.h"

enum {
    LOOK_US = 500, /* the other fronts' counts are not looked at more often, to choose by */
    RECHECK_MS = 50,
};

/* ---- what there is now ---- */

void servers_note(struct application *application, const char *why)
{
    static const enum seat_state states[] = {
        [BALANCE_UP] = SEAT_UP, [BALANCE_DOWN] = SEAT_DOWN, [BALANCE_TRYING] = SEAT_TRYING};
    enum seat_state state = states[application->as.state];

    if (application->row == NULL)
        return;
    if (application->as.is_ill)
        state = SEAT_ILL;
    if (application->is_leaving)
        state = SEAT_LEAVING;
    seats_note(application->row, state, clock_us(), why);
}

static void look(struct servers *servers, struct application *application)
{
    struct seats_others others;

    if (application->row == NULL)
        return;
    others = seats_look(servers->seats, application->row);
    application->n_others = others.n_connections;
    application->n_others_busy = others.n_connections > others.n_idle ? others.n_connections - others.n_idle : 0;
    if (servers->health != NULL)
        checks_take(application, others.told_us, others.health);
}

static bool has_place(const struct application *application)
{
    return application->n_peers + application->n_checks + application->n_others < application->limit;
}

/* An idle connection to another server than this; NULL: there is none. */
static struct peer *idle_elsewhere(const struct fastcgi_pool *pool, const struct application *application)
{
    struct peer *peer;

    TAILQ_FOREACH_REVERSE(peer, &pool->idle, peers, next)
    if (peer_application(peer) != application)
        return peer;
    return NULL;
}

static bool has_slot(const struct fastcgi_pool *pool, const struct application *application)
{
    return pool->n_slots > 0 || idle_elsewhere(pool, application) != NULL;
}

static void refresh(struct servers *servers, uint64_t now, bool is_exact)
{
    bool must_look = is_exact || now - servers->looked_us >= LOOK_US;

    if (must_look)
        servers->looked_us = now;
    for (unsigned i = 0; i < servers->n; i++) {
        struct application *application = servers->at[i];

        if (must_look || (application->n_idle == 0 && !has_place(application)))
            look(servers, application);
        application->as.n_busy = application->n_peers - application->n_idle + application->n_others_busy;
        application->as.has_room =
            application->n_idle > 0 || (has_place(application) && has_slot(servers->pool, application));
    }
}

/* ---- the choice ---- */

static struct peer *find_idle(const struct application *application)
{
    struct peer *peer;

    TAILQ_FOREACH(peer, &application->pool->idle, next)
    if (peer_application(peer) == application)
        return peer;
    return NULL;
}

/* A new connection. NULL: there is no place any more. */
static struct peer *open_peer(struct fastcgi_pool *pool, struct application *application)
{
    if (pool->n_slots == 0) {
        struct peer *idle = idle_elsewhere(pool, application);

        if (idle == NULL)
            return NULL;
        pool_remove_peer(idle);
        if (pool->n_slots == 0)
            return NULL; /* another front waits at that server, and gets the slot */
    }
    if (application->row != NULL ? !seats_enter(pool->servers->seats, application->row, application->limit)
                                 : !has_place(application))
        return NULL;
    struct peer *peer = peer_create(pool, (const struct sockaddr *)&application->address, application->len);
    peer->application = application;
    application->n_peers++;
    pool->n_slots--;
    pool_add_peer(pool, peer);
    return peer;
}

/* It has chosen that server before, and nothing has changed that. */
static bool waits_in_vain(const struct servers *servers, const struct fastcgi_run *run)
{
    return run->waits_for != NULL && run->epoch == servers->epoch && run->waits_for->n_idle == 0 &&
           !run->waits_for->as.has_room;
}

static void wait_for(struct servers *servers, struct fastcgi_run *run, const struct balance_choice *choice)
{
    run->waits_for = choice->index >= 0 ? servers->at[choice->index] : NULL;
    run->epoch = servers->epoch;
    for (unsigned i = 0; i < servers->n; i++)
        if (run->waits_for == NULL || servers->at[i] == run->waits_for)
            servers->at[i]->is_wanted = true;
}

struct peer *servers_peer(struct fastcgi_pool *pool, struct fastcgi_run *run)
{
    struct servers *servers = pool->servers;
    uint64_t now = clock_us();

    for (unsigned i = 0; i <= servers->n; i++) {
        refresh(servers, now, i > 0);
        if (waits_in_vain(servers, run)) {
            run->waits_for->is_wanted = true;
            return NULL;
        }
        struct balance_choice choice =
            balance_choose(&servers->rules, servers->view, servers->n, run->tried, run->run.request->affinity, now);
        if (choice.index < 0 || choice.is_full) {
            wait_for(servers, run, &choice);
            return NULL;
        }
        struct application *application = servers->at[choice.index];
        struct peer *peer = application->n_idle > 0 ? find_idle(application) : open_peer(pool, application);
        if (peer != NULL) {
            run->waits_for = NULL;
            balance_begin(&servers->rules, &application->as, now);
            if (application->as.state != BALANCE_UP)
                servers_note(application, NULL);
            return peer;
        }
    }
    return NULL;
}

bool servers_suits(const struct fastcgi_run *run, const struct application *application)
{
    return (run->tried & application->as.bit) == 0 && !application->is_leaving && !application->as.is_ill &&
           application->as.state == BALANCE_UP && (run->waits_for == NULL || run->waits_for == application);
}

bool servers_is_choosy(const struct fastcgi_run *run)
{
    return run->pool->servers != NULL && (run->tried != 0 || run->pool->config->balance == BALANCE_HASH);
}

const char *servers_why_waiting(const struct fastcgi_pool *pool)
{
    static char why[256];
    const struct servers *servers = pool->servers;

    if (servers == NULL || servers->n > 0)
        return NULL;
    for (size_t i = 0; i < pool->config->servers.n; i++) {
        const struct servers_name *name = &servers->names[i];

        snprintf(why, sizeof why, "waited for queue_timeout, and no server is known: %.100s: %s", name->remote->text,
                 name->is_failing ? name->why : "its addresses have not come yet");
        if (name->is_failing)
            break;
    }
    return why;
}

/* ---- places that others wait for ---- */

static bool has_others(const struct servers *servers)
{
    return servers->seats != NULL;
}

bool servers_must_give(const struct application *application)
{
    const struct fastcgi_pool *pool = application->pool;
    struct seats_others others;

    if (application->row == NULL)
        return false;
    others = seats_look(pool->servers->seats, application->row);
    if (others.n_awaited == 0 ||
        application->n_peers + application->n_checks + others.n_connections < application->limit)
        return false;
    return pool->queue.n == 0 || others.least == 0 || application->n_peers > others.least + 1;
}

/* A slot goes to the keeper, and from there to one that waits, so that it looks around. What goes there anyway, by
 * loans_pay(), does as well. */
static void knock(struct fastcgi_pool *pool)
{
    if (pool->number < 0 || pool->n_owed > 0 || pool->is_yielding || pool->n_slots == 0)
        return;
    pool->n_slots--;
    link_say(pool->options.link, MESSAGE_RETURN, (unsigned)pool->number, 0, 1);
}

static void left(struct application *application)
{
    struct servers *servers = application->pool->servers;

    if (application->row != NULL)
        seats_leave(application->row);
    offer_ask_now(application);
    if (application->row == NULL)
        return;
    if (seats_look(servers->seats, application->row).n_awaited > 0)
        knock(application->pool);
}

void servers_closed(struct application *application)
{
    application->n_peers--;
    application->pool->n_slots++;
    left(application);
    if (application->is_leaving && application->n_peers == 0)
        members_forget(application);
}

void servers_give_way(struct fastcgi_pool *pool)
{
    struct servers *servers = pool->servers;

    if (servers == NULL || !has_others(servers))
        return;
    for (unsigned i = 0; i < servers->n; i++)
        while (servers->at[i]->n_idle > 0 && servers_must_give(servers->at[i]))
            pool_remove_peer(find_idle(servers->at[i]));
}

bool servers_enter(struct application *application)
{
    struct servers *servers = application->pool->servers;

    look(servers, application);
    if (!has_place(application) && application->n_idle > 0)
        pool_remove_peer(find_idle(application));
    if (application->row != NULL ? !seats_enter(servers->seats, application->row, application->limit)
                                 : !has_place(application))
        return false;
    application->n_checks++;
    return true;
}

void servers_leave(struct application *application)
{
    application->n_checks--;
    left(application);
}

void servers_unmark(struct fastcgi_pool *pool)
{
    if (pool->servers == NULL)
        return;
    for (unsigned i = 0; i < pool->servers->n; i++)
        pool->servers->at[i]->is_wanted = false;
}

/* First it is told that somebody waits here, and then looked once more whether there is a seat: whoever leaves one does
 * it the other way round. */
void servers_publish(struct fastcgi_pool *pool)
{
    static const struct timeval at_once = {0, 0}, later = {0, RECHECK_MS * 1000};
    struct servers *servers = pool->servers;
    bool has_room = false, is_waiting = false;

    if (servers == NULL || !has_others(servers))
        return;
    for (unsigned i = 0; i < servers->n; i++) {
        struct application *application = servers->at[i];
        bool is_wanted = pool->queue.n > 0 && application->is_wanted;

        if (application->row == NULL || (!is_wanted && !application->is_awaited))
            continue;
        if (is_wanted != application->is_awaited)
            atomic_store(&application->row->is_awaited, is_wanted);
        application->is_awaited = is_wanted;
        if (!is_wanted)
            continue;
        look(servers, application);
        is_waiting |= application->n_others > 0;
        has_room |= has_place(application) && has_slot(pool, application);
    }
    if (is_waiting || has_room)
        event_add(servers->recheck, has_room ? &at_once : &later);
    else
        event_del(servers->recheck);
}

static void on_recheck(evutil_socket_t fd, short what, void *arg)
{
    struct servers *servers = arg;

    (void)fd, (void)what;
    pool_serve_waiting(servers->pool);
}

void servers_note_idle(struct peer *peer)
{
    struct application *application = peer_application(peer);

    if (peer->id != 0)
        return;
    application->n_idle += peer->is.idle ? 1 : -1u;
    if (application->row != NULL)
        atomic_store(&application->row->n_idle, application->n_idle);
}

/* ---- how they do ---- */

bool servers_is_failing(const struct peer *peer)
{
    const struct application *application = peer_application(peer);

    return peer->id == 0 &&
           (application->is_leaving || application->as.is_ill || application->as.state == BALANCE_DOWN);
}

void servers_heard(struct peer *peer, const struct fastcgi_run *run)
{
    struct application *application = peer_application(peer);

    if (peer->id != 0 || application->as.state == BALANCE_UP ||
        !balance_answered(&application->as, run->begun_us, clock_us()))
        return;
    application->pool->servers->epoch++;
    servers_note(application, NULL);
    log_notice("pool %s: server %s answers again", application->pool->config->name, application->text);
}

static void fail(struct application *application, uint64_t begun_us, const char *why)
{
    struct servers *servers = application->pool->servers;
    const struct config_pool *config = application->pool->config;
    bool is_down = balance_failed(&servers->rules, &application->as, begun_us, clock_us());

    if (application->row != NULL)
        counter_add(&application->row->n_failures, 1);
    servers_note(application, why);
    if (!is_down)
        return;
    servers->epoch++;
    log_warning("pool %s: server %s is passed over for %g s: it has failed %u times within %g s, at last: %s",
                config->name, application->text, (double)config->fail_timeout_ms / 1000, config->max_fails,
                (double)config->fail_timeout_ms / 1000, why);
}

void servers_failed(struct peer *peer, const struct fastcgi_run *run, const char *why)
{
    if (peer->id == 0)
        fail(peer_application(peer), run->begun_us, why);
}

bool servers_may_try_another(struct fastcgi_run *run, const struct application *application)
{
    const struct servers *servers = run->pool->servers;

    run->tried |= application->as.bit;
    run->waits_for = NULL;
    for (unsigned i = 0; i < servers->n; i++)
        if ((servers->at[i]->as.bit & run->tried) == 0)
            return true;
    return false;
}

/* What is short is ours, and says nothing of the server. */
static bool is_ours(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -EADDRNOTAVAIL;
}

enum run_cause servers_refused(struct peer *peer, struct fastcgi_run *run, int error)
{
    struct application *application = peer_application(peer);
    const char *why = error == -EAGAIN ? "its backlog is full" : strerror(-error);

    snprintf(run->why, sizeof run->why, "cannot connect to %.150s: %s", application->text, why);
    if (!is_ours(error))
        fail(application, peer->connecting_us, why);
    run->run.retries++;
    bool may_try = servers_may_try_another(run, application);
    pool_remove_peer(peer); /* and perhaps the application, if it was leaving */
    if (may_try)
        return RUN_COMPLETE;
    return error == -EAGAIN ? RUN_OVERLOADED : error == -ETIMEDOUT ? RUN_TIMEOUT : RUN_BROKEN;
}

/* ---- making and unmaking ---- */

struct servers *servers_create(struct fastcgi_pool *pool)
{
    struct servers *servers = memory_zeroed(1, sizeof *servers);
    const struct config_pool *config = pool->config;

    servers->pool = pool;
    servers->seats = pool->options.seats;
    servers->made_us = clock_us();
    servers->rules = (struct balance_rules){.balance = config->balance,
                                            .max_fails = config->max_fails,
                                            .fail_timeout_us = config->fail_timeout_ms * 1000,
                                            .slow_start_us = config->slow_start_ms * 1000};
    servers->recheck = evtimer_new(pool->options.base, on_recheck, servers);
    members_create(servers);
    checks_start(servers);
    return servers;
}

void servers_destroy(struct servers *servers)
{
    checks_stop(servers);
    members_destroy(servers);
    event_free(servers->recheck);
    free(servers);
}
