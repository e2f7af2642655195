/* What the files of this room share, and nobody else. */
#ifndef GATEHOUSE_FASTCGI_INSIDE_H
#define GATEHOUSE_FASTCGI_INSIDE_H

#include <sys/queue.h>
#include <sys/socket.h>

#include "base/holders.h"
#include "fastcgi/application.h"
#include "fastcgi/peer.h"
#include "fastcgi/pool.h"
#include "fastcgi/record.h"
#include "fastcgi/servers.h"
#include "fastcgi/trace.h"
#include "fastcgi/values.h"
#include "gateway/queue.h"
#include "log.h"

enum {
    FASTCGI_SCRATCH = 65536,
    FASTCGI_GRACE_MS = 1500,      /* to come to an end by itself */
    FASTCGI_MEASURE_US = 1000000, /* between two looks at how large a process is */
    FASTCGI_REPLAY = 65536,       /* so much of a request's input is kept to be sent once more */
    FASTCGI_OVERRUN = 1 << 18,    /* output for a client that does not read, before a shared connection stands still */
};

struct fastcgi_run {
    struct run run; /* first */
    struct queue_entry entry;
    TAILQ_ENTRY(fastcgi_run) next_stopped;
    TAILQ_ENTRY(fastcgi_run) next; /* of its peer; or of pool->completed */
    struct fastcgi_pool *pool;
    struct peer *peer;             /* that serves it; NULL: it waits, or is over */
    struct peer *doubts;           /* the peer whose .doubted it is */
    uint16_t id;                   /* of the request, on the peer's connection */
    struct buffer input;           /* what was fed so far, for another try */
    uint64_t data_sent;            /* of a filter's file */
    size_t overrun;                /* output since it was paused */
    uint64_t begun_us;             /* clock_us() when its peer got it */
    uint64_t tried;                /* servers: the bits of those that it could not be given to */
    unsigned epoch;                /* servers->epoch when it chose to wait for: */
    struct application *waits_for; /* NULL: for any */
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
    TAILQ_HEAD(peers, peer) idle, others;
    TAILQ_HEAD(fastcgi_runs, fastcgi_run) completed; /* that end with the present call */
    TAILQ_HEAD(, fastcgi_run) stopped;               /* that end in the loop's next turn */
    struct event *end_stopped;
    struct account account;
    struct holders holders; /* what is told when the queue is full, or has been for too long */
    unsigned n_peers;
    unsigned n_slots;               /* servers: connections that may be opened yet */
    unsigned n_owed;                /* slots recalled, to be returned when free */
    struct application application; /* of a pool of processes */
    struct servers *servers;        /* NULL: a pool of processes */
    bool is_multiplexing;           /* one of them has more lanes than one */
    bool is_yielding;               /* what no request waits for goes back to the keeper */
    bool closes_itself;             /* the application closes idle connections, and lives on */
    bool has_said_spare;            /* the keeper knows that too few processes are idle */
    bool is_down;
    enum run_cause down_cause;
    char down_why[512];
    char scratch[FASTCGI_SCRATCH];
};

static inline struct application *peer_application(const struct peer *peer)
{
    return peer->application;
}

/* ---- pool.c: what peers tell their pool. Each may destroy the peer: the last word. ---- */

void pool_on_free(struct peer *peer); /* ready for another request */
/* Its connection is gone. `doubted`: under this request, of which there was no answer; or NULL. had_runs: under any. */
void pool_on_lost(struct peer *peer, struct fastcgi_run *doubted, bool had_runs);
void pool_on_refused(struct peer *peer, struct fastcgi_run *run, int error); /* ... or could not be made */
void pool_on_grace(struct peer *peer);                                       /* the grace is over */
void pool_on_fate(struct peer *peer); /* does it live, or is it gone? It was told, now */

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
void pool_set_free(struct peer *peer); /* for another request, as far as it may have one; else it is removed */
void pool_add_peer(struct fastcgi_pool *pool, struct peer *peer);
void pool_remove_peer(struct peer *peer);                     /* for good; a server's gives its slot back */
void pool_note_active(struct fastcgi_pool *pool, int change); /* so many more peers have requests */
void pool_tell_if_nobody_waits(struct fastcgi_pool *pool);

/* ---- loans.c: what the keeper lends, and wants back ---- */

void loans_receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds);
void loans_pay(struct fastcgi_pool *pool);  /* gives back what was recalled, or is not needed, and is free */
void loans_want(struct fastcgi_pool *pool); /* how many wait has changed */
void loans_still_want(struct fastcgi_pool *pool);
void loans_ask(struct peer *peer, bool rested); /* does it live? pool_on_fate() */
void loans_left(struct peer *peer);             /* it is about to be removed: who waits behind it is free */
void loans_end(struct peer *peer);              /* its process is to be ended; the loan is over, the peer is not */
void loans_give_back(struct peer *peer);        /* it is free, and retiring; destroys it */
void loans_given(struct peer *peer);            /* it was given one more request */
void loans_answered(struct peer *peer);         /* it has answered one */
void loans_idle_changed(struct fastcgi_pool *pool, bool is_fewer);

/* ---- proof.c: does a process of new settings serve? ---- */

void proof_begin(struct peer *peer);  /* says PROVEN in the end, and pool_on_free() */
void proof_lives(struct peer *peer);  /* its connection has ended, and the process lives */
void proof_cancel(struct peer *peer); /* harmless without one */

/* ---- runs.c: what the gateway says ---- */

extern const struct run_down runs_down;
void runs_on_stopped(evutil_socket_t fd, short what, void *arg); /* ends those that were stopped */

#endif
