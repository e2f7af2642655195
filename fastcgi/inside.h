/* What the files of this room share, and nobody else. */
#ifndef GATEHOUSE_FASTCGI_INSIDE_H
#define GATEHOUSE_FASTCGI_INSIDE_H

#include <sys/queue.h>
#include <sys/socket.h>

#include "fastcgi/application.h"
#include "fastcgi/peer.h"
#include "fastcgi/pool.h"
#include "fastcgi/record.h"
#include "fastcgi/trace.h"
#include "fastcgi/values.h"
#include "gateway/queue.h"
#include "log.h"

enum {
    FASTCGI_SCRATCH = 65536,
    FASTCGI_GRACE_MS = 1500,   /* to come to an end by itself */
    FASTCGI_REST_MS = 200,     /* for the news of its exit, after it has closed a kept connection */
    FASTCGI_REPLAY = 65536,    /* so much of a request's input is kept to be sent once more */
    FASTCGI_OVERRUN = 1 << 18, /* output for a client that does not read, before a shared connection stands still */
};

struct fastcgi_run {
    struct run run; /* first */
    struct queue_entry entry;
    TAILQ_ENTRY(fastcgi_run) next_stopped;
    TAILQ_ENTRY(fastcgi_run) next; /* of its peer; or of pool->completed */
    struct fastcgi_pool *pool;
    struct peer *peer;   /* that serves it; NULL: it waits, or is over */
    uint16_t id;         /* of the request, on the peer's connection */
    struct buffer input; /* what was fed so far, for another try */
    uint64_t data_sent;  /* of a filter's file */
    size_t overrun;      /* output since it was paused */
    struct {
        bool replayable : 1;  /* all of its input is in .input */
        bool shared : 1;      /* others were on its connection before it */
        bool fresh : 1;       /* it must have a new connection */
        bool has_output : 1;  /* the application has answered something */
        bool input_ended : 1; /* there is no more input to come */
        bool input_full : 1;  /* the gateway was told "enough" */
        bool paused : 1;      /* the gateway wants no output for now */
        bool holding : 1;     /* ... and its connection is not read because of that */
        bool promised : 1;    /* the gateway was told that more follows at once */
        bool completed : 1;   /* in pool->completed */
        bool data_ended : 1;  /* a filter's file was sent */
    } is;
    struct trace *trace; /* NULL: nothing is recorded */
    struct run_result result;
    char why[256];
};
struct fastcgi_pool {
    struct runner runner; /* first */
    struct borrower borrower;
    struct fastcgi_options options;
    const struct config_pool *config;
    int number;
    struct queue queue;
    TAILQ_HEAD(, peer) idle, others;
    TAILQ_HEAD(fastcgi_runs, fastcgi_run) completed; /* that end with the present call */
    TAILQ_HEAD(, fastcgi_run) stopped;               /* that end in the loop's next turn */
    struct event *end_stopped;
    unsigned n_peers;
    unsigned n_slots;                 /* servers: connections that may be opened yet */
    unsigned n_owed;                  /* slots recalled, to be returned when free */
    struct application *applications; /* by server; of a pool of processes, one */
    bool is_multiplexing;             /* one of them has more lanes than one */
    bool closes_itself;               /* the application closes kept connections and lives on */
    bool is_down;
    enum run_cause down_cause;
    char down_why[512];
    char scratch[FASTCGI_SCRATCH];
};

static inline struct application *peer_application(const struct peer *peer)
{
    return &peer->pool->applications[peer->server];
}

/* ---- pool.c: what peers tell their pool. Each may destroy the peer: the last word. ---- */

void pool_on_free(struct peer *peer);                                        /* ready for another request */
void pool_on_lost(struct peer *peer, bool was_draining);                     /* its connection is gone */
void pool_on_refused(struct peer *peer, struct fastcgi_run *run, int error); /* ... or could not be made */
void pool_on_grace(struct peer *peer);                                       /* the grace is over */

/* To be tried again: first in the queue. */
void pool_put_back(struct fastcgi_run *run);

/* The application says that it cannot take the run, which it has not begun: tries it again, if that is of use. */
void pool_on_overloaded(struct peer *peer, struct fastcgi_run *run);

/* Serves of those that wait who can be served. */
void pool_serve_waiting(struct fastcgi_pool *pool);

/* All its output was given: it ends once its peer is ready for another, who may be what follows from its end. */
void pool_complete_run(struct fastcgi_run *run);
void pool_end_completed(struct fastcgi_pool *pool);

/* Its last upcall; frees it. */
void pool_end_run(struct fastcgi_run *run, enum run_cause cause, const char *why);

void pool_set_idle(struct peer *peer, bool is_idle);
void pool_add_peer(struct fastcgi_pool *pool, struct peer *peer);
void pool_remove_peer(struct peer *peer); /* for good; a server's gives its slot back */
void pool_tell_if_nobody_waits(struct fastcgi_pool *pool);

/* ---- loans.c: what the keeper lends, and wants back ---- */

void loans_receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds);
void loans_pay(struct fastcgi_pool *pool);     /* gives back what was recalled and is free */
void loans_forgive(struct fastcgi_pool *pool); /* a loan has ended with its process */

/* ---- servers.c: servers that run already ---- */

/* A new connection, to the server whose turn it is. */
struct peer *servers_open(struct fastcgi_pool *pool);

/* Is it a server's that is passed over for now? */
bool servers_is_failing(const struct peer *peer);
void servers_failed(struct peer *peer);

/* A connection could not be made; removes it. RUN_COMPLETE: the run may be tried with another; else why it ends, and
 * run->why. */
enum run_cause servers_refused(struct peer *peer, struct fastcgi_run *run, int error);

/* ---- runs.c: what the gateway says ---- */

extern const struct run_down runs_down;
void runs_on_stopped(evutil_socket_t fd, short what, void *arg); /* ends those that were stopped */

#endif
