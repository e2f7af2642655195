/* What pool.c and peer.c share, and nobody else. */
#ifndef GATEHOUSE_FASTCGI_INSIDE_H
#define GATEHOUSE_FASTCGI_INSIDE_H

#include <sys/queue.h>
#include <sys/socket.h>

#include "fastcgi/pool.h"
#include "fastcgi/record.h"
#include "gateway/queue.h"
#include "log.h"

enum {
    FASTCGI_SCRATCH = 65536,
    FASTCGI_GRACE_MS = 1500, /* to come to an end by itself */
    FASTCGI_REST_MS = 200,   /* for the news of its exit, after it has closed a kept connection */
    FASTCGI_REPLAY = 65536,  /* so much of a request is kept to be sent once more */
};

struct fastcgi_run {
    struct run run; /* first */
    struct queue_entry entry;
    TAILQ_ENTRY(fastcgi_run) next_stopped;
    struct fastcgi_pool *pool;
    struct peer *peer;    /* that serves it; NULL: it waits, or is over */
    struct buffer replay; /* while it waits for another try: what the first has sent */
    bool has_output;      /* the application has answered something */
    bool input_ended;     /* the end of standard input is in the request */
    bool input_full;      /* the gateway was told "enough" */
    struct run_result result;
    char why[256];
};

enum peer_state {
    PEER_IDLE, /* ready for a request; its connection may stand already */
    PEER_CONNECTING,
    PEER_BUSY,     /* serves peer->run */
    PEER_DRAINING, /* its run was given up; what still comes is thrown away, for a while */
    N_PEER_STATES,
};

/* One application process: on loan from the keeper, or a server's, known by our connection to it. */
struct peer {
    TAILQ_ENTRY(peer) next;
    struct fastcgi_pool *pool;
    enum peer_state state;
    struct sockaddr_storage address;
    socklen_t address_len;
    size_t server;  /* its index, of a server's */
    uint32_t id;    /* of one on loan; 0: a server's */
    uint32_t index; /* its place on the scoreboard */
    long pid;
    bool is_idle;    /* in pool->idle, else in pool->others */
    bool is_resting; /* it has closed a kept connection, and may be about to exit */
    bool is_gone;    /* the keeper has told its end */
    bool is_reading; /* on_readable() is at work: destroying must wait */
    bool is_doomed;  /* ... and was asked for */

    int fd; /* -1: not connected */
    struct event *reader, *writer, *grace;
    struct fastcgi_run *run;
    unsigned n_served; /* on this connection */
    struct record_reader records;
    struct buffer out;  /* the request */
    size_t sent;        /* of it */
    bool is_replayable; /* all of the request is in .out still */
    bool is_deaf;       /* the other end reads no more */

    int errors_fd; /* what it writes to its descriptor 2; -1: a server's */
    struct event *errors;
    struct log_stream errors_log;
};

struct fastcgi_pool {
    struct runner runner; /* first */
    struct borrower borrower;
    struct fastcgi_options options;
    const struct config_pool *config;
    int number;
    struct queue queue;
    TAILQ_HEAD(, peer) idle, others;
    TAILQ_HEAD(, fastcgi_run) stopped; /* that end in the loop's next turn */
    struct event *end_stopped;
    unsigned n_peers;
    unsigned n_slots; /* servers: connections that may be opened yet */
    unsigned n_owed;  /* slots recalled, to be returned when free */
    struct {
        unsigned n_peers;
        uint64_t failed_us; /* clock_us() of the last failure to connect; 0: none */
    } * servers;
    bool closes_itself; /* the application closes kept connections and lives on */
    bool is_down;
    enum run_cause down_cause;
    char down_why[512];
    char scratch[FASTCGI_SCRATCH];
};

/* peer.c */
struct peer *peer_create(struct fastcgi_pool *pool, const struct sockaddr *address, socklen_t len);
void peer_destroy(struct peer *peer);
void peer_watch_errors(struct peer *peer, int fd);

/* Serves the run: 0, or -errno when no connection can be had; then the run is as it was. */
int peer_serve(struct peer *peer, struct fastcgi_run *run);
void peer_disconnect(struct peer *peer);

/* Sends what its request holds and the socket takes. */
void peer_send(struct peer *peer);

/* Without a connection, a run or a grace: as new. */
void peer_reset(struct peer *peer);

/* The same; and all of its request that was not taken for good is kept with the run, to be sent once more. */
void peer_reset_for_retry(struct peer *peer);

/* After so long, pool_on_grace(). */
void peer_start_grace(struct peer *peer, unsigned ms);

/* Its run is given up: it may come to its end by itself within a grace. */
void peer_drain(struct peer *peer);

/* pool.c: what peers tell their pool. Each may destroy the peer: the last word. */
void pool_on_free(struct peer *peer);        /* ready for another request */
void pool_on_lost(struct peer *peer);        /* its connection is gone; with a run: it could not be made */
void pool_on_grace(struct peer *peer);       /* the grace is over */
void pool_put_back(struct fastcgi_run *run); /* to be tried again: first in the queue */
void pool_end_run(struct fastcgi_run *run, enum run_cause cause, const char *why); /* its last upcall; frees it */

#endif
