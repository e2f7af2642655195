/*
 * The servers of a pool that run already: which there are, which of them a request is given to, how many connections
 * each may have. Private to the room.
 */
#ifndef GATEHOUSE_FASTCGI_SERVERS_H
#define GATEHOUSE_FASTCGI_SERVERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "fastcgi/application.h"
#include "fastcgi/balance.h"
#include "gateway/run.h"

struct fastcgi_pool;
struct fastcgi_run;
struct peer;

/* An entry of the configuration that is a name. */
struct servers_name {
    struct servers *servers;
    const struct config_remote *remote;
    struct names *names;
    bool is_known;   /* it was found, once at least */
    bool is_failing; /* it could not be looked up the last time, because: */
    char why[64];
};

struct servers {
    struct fastcgi_pool *pool;
    struct seats *seats; /* NULL: there is no other front, nor anybody who looks on */
    struct balance_rules rules;
    struct application *at[CONFIG_REMOTES]; /* in use, in their order; .view: the same, as balance.c has them */
    struct balance_server *view[CONFIG_REMOTES];
    unsigned n;
    TAILQ_HEAD(, application) leaving; /* their connections end with their requests */
    struct servers_name *names;        /* by index in config->servers; .names NULL: an address */
    uint64_t bits;                     /* that are taken */
    unsigned epoch;                    /* counts what makes hashes lead elsewhere */
    uint64_t made_us;
    uint64_t looked_us;    /* when the other fronts' counts were looked at last */
    struct event *recheck; /* while requests wait for places that others have */
    struct event *health;  /* the next health request; NULL: there are none */
    bool has_said_full;    /* more servers than can be had */
};

/* ---- servers.c ---- */

struct servers *servers_create(struct fastcgi_pool *pool);

/* After all its peers. */
void servers_destroy(struct servers *servers);

/* A peer that can take the run now, idle or new; NULL: none. May call nobody. */
struct peer *servers_peer(struct fastcgi_pool *pool, struct fastcgi_run *run);

/* May the run be given to a connection of that server, beside others? */
bool servers_suits(const struct fastcgi_run *run, const struct application *application);

/* Does one that has to wait leave those behind it their turn? */
bool servers_is_choosy(const struct fastcgi_run *run);

/* Before the queue is gone through, and behind it, or when somebody has come to it: who waits for places is told to the
 * other fronts. */
void servers_unmark(struct fastcgi_pool *pool);
void servers_publish(struct fastcgi_pool *pool);

/* Others may wait for what is idle here: gives it up. */
void servers_give_way(struct fastcgi_pool *pool);
bool servers_must_give(const struct application *application);

/* It is idle, or is not any more: is.idle has changed. Of a process: nothing. */
void servers_note_idle(struct peer *peer);

/* A connection is gone, and its peer. */
void servers_closed(struct application *application);

/* The peer has said something of the run. */
void servers_heard(struct peer *peer, const struct fastcgi_run *run);

/* It has not, and will not. */
void servers_failed(struct peer *peer, const struct fastcgi_run *run, const char *why);

/* Is its server passed over, or no more of the pool? */
bool servers_is_failing(const struct peer *peer);

/* Marks the run as tried there; true: there is another server to try. */
bool servers_may_try_another(struct fastcgi_run *run, const struct application *application);

/* A connection could not be made; removes it. RUN_COMPLETE: the run may be tried with another; else why it ends, and
 * run->why. */
enum run_cause servers_refused(struct peer *peer, struct fastcgi_run *run, int error);

/* Why those who wait do, if not because all are busy; NULL: for no other reason. Lives until the next call. */
const char *servers_why_waiting(const struct fastcgi_pool *pool);

/* One place there, for what is no request; false: there is none. Given back by servers_leave(). */
bool servers_enter(struct application *application);
void servers_leave(struct application *application);

/* Its state has changed: for who looks on. NULL: no news of failures. */
void servers_note(struct application *application, const char *why);

/* ---- members.c: which servers there are ---- */

void members_create(struct servers *servers);
void members_destroy(struct servers *servers);

/* One that was leaving has no connection any more: it is gone. */
void members_forget(struct application *application);

/* ---- checks.c: health requests ---- */

void checks_start(struct servers *servers);
void checks_stop(struct servers *servers);

/* Another front may have been told how it does. */
void checks_take(struct application *application, uint64_t told_us, unsigned health);

#endif
