/* What the files of this room share, and nobody else. */
#ifndef GATEHOUSE_FASTCGI_INSIDE_H
#define GATEHOUSE_FASTCGI_INSIDE_H

#include <sys/queue.h>
#include <sys/socket.h>

#include "fastcgi/application.h"
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
    FASTCGI_LANES = 64,        /* requests at once on one connection, at most */
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
enum peer_state {
    PEER_IDLE, /* ready for a request; its connection may stand already */
    PEER_CONNECTING,
    PEER_BUSY,     /* serves requests */
    PEER_DRAINING, /* all its requests were given up; what still comes is thrown away, for a while */
    N_PEER_STATES,
};

/* One application process: on loan from the keeper, or a server's, known by our connection to it. */
struct peer {
    TAILQ_ENTRY(peer) next;
    struct fastcgi_pool *pool;
    enum peer_state state;
    struct sockaddr_storage address;
    socklen_t address_len;
    size_t server;  /* its index, of a server's; else 0 */
    uint32_t id;    /* of one on loan; 0: a server's */
    uint32_t index; /* its place on the scoreboard */
    long pid;
    unsigned depth; /* calls at work on it: it is neither destroyed nor given another request meanwhile */
    struct {
        bool idle : 1;    /* in pool->idle, else in pool->others */
        bool resting : 1; /* it has closed a kept connection, and may be about to exit */
        bool gone : 1;    /* the keeper has told its end */
        bool doomed : 1;  /* pool_on_grace() is due */
        bool tainted : 1; /* has spoken of requests that it was not given: no more on this connection */
        bool deaf : 1;    /* the other end reads no more */
        bool waiting : 1; /* a new connection that has had no byte of its first answer: see keep.c */
    } is;

    int fd; /* -1: not connected */
    struct event *reader, *writer, *grace, *idle;
    TAILQ_HEAD(, fastcgi_run) runs;
    unsigned n_runs;
    unsigned n_holding;              /* of them */
    uint16_t orphans[FASTCGI_LANES]; /* requests that were given up, and whose end has not come */
    unsigned n_orphans;
    uint16_t last_id;
    unsigned n_served;                    /* on this connection */
    uint64_t waiting_since_us, served_us; /* clock_us(): with is.waiting; of the last END_REQUEST */
    struct record_reader records;
    struct buffer out; /* to be sent */

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

/* ---- peer.c ---- */

struct peer *peer_create(struct fastcgi_pool *pool, const struct sockaddr *address, socklen_t len);
void peer_destroy(struct peer *peer);
void peer_watch_errors(struct peer *peer, int fd);

/* Does its connection have more than one request at once, or may it? */
bool peer_is_shared(const struct peer *peer);

/* May it be given one more request beside those that it has? */
bool peer_has_lane(const struct peer *peer);

/* Serves the run: 0, or -errno when no connection can be had; then the run is as it was. */
int peer_serve(struct peer *peer, struct fastcgi_run *run);

/* The run is given up: the application is told, as far as it can be. The peer may be destroyed. */
void peer_abandon(struct peer *peer, struct fastcgi_run *run, bool at_once);

/* Sends what there is and the socket takes. */
void peer_send(struct peer *peer);

/* Without a connection, runs or a grace: as new. */
void peer_reset(struct peer *peer);

/* After so long, pool_on_grace(). */
void peer_start_grace(struct peer *peer, unsigned ms);

/* Its connection is read, or is not, as its runs want it. */
void peer_set_reading(struct peer *peer);

/* ---- request.c: what one run sends. Each appends to its peer's .out. ---- */

void request_begin(struct fastcgi_run *run);

/* Input; without a peer, it is kept for the next. */
void request_feed(struct fastcgi_run *run, struct span bytes, bool last);

/* A filter's next piece of its file, once its input has ended. True: something was appended. */
bool request_feed_data(struct fastcgi_run *run);
void request_abort(struct fastcgi_run *run);

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

#endif
