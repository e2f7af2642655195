/*
 * A peer: one application process, and the connection to it. peer.c's contract with the rest of the room.
 */
#ifndef GATEHOUSE_FASTCGI_PEER_H
#define GATEHOUSE_FASTCGI_PEER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

#include "base/buffer.h"
#include "base/span.h"
#include "fastcgi/record.h"
#include "log.h"

enum {
    FASTCGI_LANES = 64, /* requests at once on one connection, at most */
};

struct fastcgi_pool;
struct fastcgi_run;

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
    socklen_t address_len;
    struct sockaddr_storage address;
    struct application *application; /* what is known of what it is a process of, or connected to */
    uint32_t id;                     /* of one on loan; 0: a server's */
    uint32_t index;                  /* its place on the scoreboard */
    uint32_t soft, hard; /* requests, in all, after which it is spent, and after which it gets no more; 0: no limit */
    long pid;
    int end_status;              /* with is.gone: as wait(2) has it */
    struct fastcgi_run *doubted; /* with is.asked: its run, which a kept connection has ended under: has it begun? */
    uint32_t behind;             /* a process that has died, and whose request waits for this one; 0: none */
    struct proof *proof;         /* with is.untried */
    uint64_t measured_us;        /* clock_us() when the keeper was last told that it was used */
    unsigned depth;              /* calls at work on it: it is neither destroyed nor given another request meanwhile */
    struct {
        bool idle : 1;      /* in pool->idle, else in pool->others */
        bool gone : 1;      /* the keeper has told its end */
        bool asked : 1;     /* the keeper was asked whether it lives; it gets no request meanwhile */
        bool rested : 1;    /* ... because it has closed its connection without a request on it */
        bool untried : 1;   /* gets no request before it has proven itself: proof.c */
        bool fresh : 1;     /* has never answered: the keeper is to be told when it has */
        bool spent : 1;     /* the keeper was told that it has had its requests */
        bool retiring : 1;  /* gets no more, and goes back when it is free */
        bool doomed : 1;    /* pool_on_grace() is due */
        bool tainted : 1;   /* has spoken of requests that it was not given: no more on this connection */
        bool deaf : 1;      /* the other end reads no more */
        bool has_clock : 1; /* .cpu_clock is its process's */
        bool waiting : 1;   /* a new connection that has had no byte of its first answer: see keep.c */
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
    uint64_t connecting_us;               /* clock_us(): since when, or when it was */
    uint64_t waiting_since_us, served_us; /* clock_us(): with is.waiting; of the last END_REQUEST */
    struct record_reader records;
    struct buffer out;   /* to be sent */
    uint64_t cpu_us;     /* what .cpu_clock showed when the last request was answered; UINT64_MAX: not known */
    clockid_t cpu_clock; /* of the process, with is.has_clock */

    int errors_fd; /* what it writes to its descriptor 2; -1: a server's */
    struct event *errors;
    struct log_stream errors_log;
};

/* ---- peer.c ---- */

struct peer *peer_create(struct fastcgi_pool *pool, const struct sockaddr *address, socklen_t len);
void peer_destroy(struct peer *peer);
void peer_watch_errors(struct peer *peer, int fd);

/* errors.c: what is in the pipe of its descriptor 2, and no more than fits in one; no more is read at all. */
void peer_read_errors(struct peer *peer);
void peer_close_errors(struct peer *peer);

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

#endif
