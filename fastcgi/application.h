/*
 * What a pool has learnt of one application: of the program that it runs, or of one of its servers.
 *
 * Which connections to servers are kept for another request is keep.c's. Each that is kept may hold one of the server's
 * workers, as PHP's and libfcgi's do, and how many workers a server has is nothing that it says. So a kept connection
 * must not keep a new one waiting: when a request has waited on a new connection for KEEP_PATIENCE_US, the next that is
 * done closes its connection, once for each that waits; and no connection is kept for longer than KEEP_IDLE_MS without
 * a request, or for more than KEEP_REQUESTS. Processes of ours are on loan to one front alone, and keep theirs.
 *
 * Some applications close each connection behind its first answer, whatever was asked for. A request that is sent on
 * one meanwhile is lost with it, so they are known by that, and get a new connection for each request.
 */
#ifndef GATEHOUSE_FASTCGI_APPLICATION_H
#define GATEHOUSE_FASTCGI_APPLICATION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "fastcgi/balance.h"

enum {
    KEEP_IDLE_MS = 250,
    KEEP_IDLE_WAITING_MS = 20, /* ... while a new connection waits for its first answer */
    KEEP_PATIENCE_US = 20000,
    KEEP_REQUESTS = 500,
    KEEP_CLOSED = 3, /* connections in a row that were closed behind their first answer */
    KEEP_CLOSED_US = 200000,
    KEEP_TRY_AGAIN = 256, /* requests */
};

struct fastcgi_pool;
struct health_query;
struct peer;
struct seat_row;

struct application {
    struct fastcgi_pool *pool;
    unsigned n_peers;           /* connections to a server */
    unsigned n_waiting;         /* new connections without a byte of their first answer */
    unsigned n_closed;          /* connections in a row that were closed behind their first answer */
    unsigned n_not_kept;        /* requests since, each on a connection of its own */
    bool keeps;                 /* it has answered two requests on one connection */
    unsigned lanes;             /* requests that one connection may have at once */
    uint64_t asked_us;          /* when it was asked what it offers; 0: never */
    bool cannot_multiplex;      /* although it says so */
    struct values_query *query; /* under way */
    unsigned n_unanswered;      /* questions in a row */
    bool must_ask;              /* a server that is full: when one of its connections is done, instead of that */

    /* Of a server: see servers.h. */
    TAILQ_ENTRY(application) next; /* in servers->leaving */
    struct balance_server as;
    const struct config_remote *remote; /* the entry that leads to it */
    struct sockaddr_storage address;
    socklen_t len;
    char text[120];
    unsigned limit;                   /* connections, over all fronts */
    unsigned n_idle;                  /* of n_peers */
    unsigned n_checks;                /* connections of other questions: health, what it offers */
    unsigned n_others, n_others_busy; /* connections of other fronts, when they were looked at last */
    struct seat_row *row;             /* NULL: it is counted for this front alone */
    struct health_query *check;       /* under way */
    uint64_t checked_us, told_us;     /* of health requests: asked by this front; answered to any; 0: never */
    bool is_named;                    /* its entry leads to it */
    bool is_leaving;                  /* no entry does any more: no new requests */
    bool is_wanted, is_awaited;       /* a request here waits for a place; and the other fronts were told so */
};

/* ---- keep.c ---- */

/* A new connection has its first request; it has had a byte of its answer, or is gone (harmless when it does not
 * wait). */
void keep_waits(struct peer *peer);
void keep_heard(struct peer *peer);

/* The connection's request was answered; the application has closed it behind an answer. */
void keep_served(struct peer *peer);
void keep_closed(struct peer *peer);

/* All its requests are done: is the connection kept for another? If so, for how long is seen to. */
bool keep_on(struct peer *peer);

/* ---- offer.c ---- */

/* A request has to wait: asks the applications that are busy whether a connection can take more than one. */
void offer_ask(struct fastcgi_pool *pool);

/* A connection to a server is gone: asks it, if that was waited for. */
void offer_ask_now(struct application *application);

#endif
