/*
 * Memory shared by the keeper and all fronts, made before them: what there is to see of the server. The status pages,
 * the metrics and the log's "what holds every process" are read from it, so they work when every process is busy.
 *
 * Each part has one writer, named at it; everybody may read at any time. A field of one word is written at once; parts
 * with texts have a `version`, which is odd while they are being written: see scoreboard_read(). Times are clock_us(),
 * the same clock for all processes. Fronts can write all of it, so nothing that the keeper's safety rests on may be
 * here. Pages that nobody has written to cost nothing.
 */
#ifndef GATEHOUSE_BASE_SCOREBOARD_H
#define GATEHOUSE_BASE_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clients.h"
#include "base/counters.h"
#include "base/seats.h"

enum {
    SCOREBOARD_FRONTS = 128,    /* those that drain among them */
    SCOREBOARD_POOLS = 512,     /* pools of slots: see process/pools.h for their numbers */
    SCOREBOARD_PROGRAMS = 8192, /* processes at once, over all pools and routes */
    SCOREBOARD_REQUESTS = 4096, /* in flight, of one front; what is beyond that is served, but not shown */
    SCOREBOARD_WAITS = 512,     /* the last waits of a pool in one front */
    SCOREBOARD_BUCKETS = 17,    /* of a histogram; the last is for all that is longer */
    SCOREBOARD_PHASES = 6,      /* enum phase of access.h */
};

#define SCOREBOARD_NONE UINT32_MAX /* no pool, no front, no request */

/* How long, in microseconds, what falls into a bucket may have taken at most. */
extern const uint64_t scoreboard_bounds_us[SCOREBOARD_BUCKETS - 1];

struct scoreboard_histogram {
    _Atomic uint64_t buckets[SCOREBOARD_BUCKETS]; /* not cumulative */
    _Atomic uint64_t sum_us;
};

/* What has ended processes of a pool, or made us end them. */
enum scoreboard_end {
    END_EXITED,     /* by themselves, with status 0 */
    END_FAILED,     /* ... with another */
    END_SIGNAL,     /* by a signal that was not ours */
    END_REQUESTS,   /* retired: pm.max_requests */
    END_MEMORY,     /* retired: max_memory */
    END_AGE,        /* retired: max_age */
    END_IDLE,       /* retired: not needed any more */
    END_RELOAD,     /* retired: their settings have changed */
    END_TERMINATED, /* a request took too long, or was given up */
    N_ENDS,
};

/* A pool of slots, by its number. Written by the keeper; the counts of what fronts do are in scoreboard_share. */
struct scoreboard_pool {
    _Atomic uint32_t version;
    bool is_there;   /* the present configuration has it, or a front that drains */
    bool is_current; /* the present configuration has it */
    uint8_t
        kind;   /* 0: processes of ours, 1: runs of a CGI route, 2: connections to servers, 3: a route without slots */
    uint8_t pm; /* enum pm */
    char name[128]; /* pool, or site and route */
    char script[256];
    char down_why[192]; /* with is_down: why; empty: not known */
    uint64_t start_unix_us, start_us;
    uint32_t capacity, queue_limit;
    uint64_t queue_timeout_ms, max_requests, max_memory, max_age_ms, terminate_ms, slowlog_ms;
    uint32_t start_servers, min_spare, max_spare, max_spawn_rate;
    uint64_t idle_timeout_ms;
    /* each of these changes by itself: */
    _Atomic uint32_t n_starting, n_live,
        n_retiring;                              /* processes: starting, among the live; of no use any more, apart */
    _Atomic uint32_t is_down;                    /* nothing can be started */
    _Atomic uint64_t n_started, n_limit_reached; /* php-fpm's "max children reached" */
    _Atomic uint64_t ends[N_ENDS];
};

/* One front's part in one pool of slots. Written by that front. */
struct scoreboard_share {
    _Atomic uint32_t n_waiting, n_idle, n_active; /* now: requests that wait; processes or slots it has, or uses */
    _Atomic uint32_t most_waiting, most_active;   /* ever, of all fronts together, as this front has seen it */
    _Atomic uint64_t n_accepted;                  /* requests that were for the pool */
    _Atomic uint64_t n_full, n_expired, n_down, n_left; /* ... and never got a slot: why */
    _Atomic uint64_t n_crashed, n_terminated, n_slow; /* ... got one, and had its program crash; were too long; slow */
    _Atomic uint64_t n_retried;
    _Atomic uint64_t n_waits;                              /* ever: the last of them is waits_us[(n_waits - 1) % ...] */
    _Atomic uint32_t waits_us[SCOREBOARD_WAITS];           /* of those that got a slot, 0 where it was free */
    struct scoreboard_histogram phases[SCOREBOARD_PHASES]; /* by the number of a route */
    _Atomic uint64_t statuses[6];                          /* answers: 1xx, 2xx ...; [0] none */
};

/* A process. The first part is written by the keeper, the second by the front that has it on loan. */
struct scoreboard_process {
    _Atomic uint32_t pool; /* its number, plus 1; 0: there is none here */
    _Atomic int32_t pid;
    _Atomic uint32_t is_retiring; /* gets no more requests */
    _Atomic uint64_t start_unix_us, start_us;
    _Atomic uint64_t memory; /* PSS in bytes when it was last measured; 0: it was not */

    _Atomic uint32_t given, served;      /* requests that it was given, and that it has answered */
    _Atomic uint32_t n_active;           /* that it has now */
    _Atomic uint64_t since_us;           /* since when it is idle, or has its request */
    _Atomic uint32_t front, request;     /* the (last) request's place: fronts[front].requests[request] */
    _Atomic uint64_t last_us;            /* how long the last request took */
    _Atomic uint64_t last_cpu_us;        /* processor time of it; UINT64_MAX: not known */
    _Atomic uint32_t version;            /* of the texts */
    char method[16], user[32], uri[160]; /* of the last request that is over; cut short */
};

/* What a request waits for: its body, where that is held; its turn; its program; the head of the answer; its end. */
enum scoreboard_state { REQUEST_NONE, REQUEST_BODY, REQUEST_QUEUE, REQUEST_START, REQUEST_FIRST, REQUEST_SEND };

/* A request in flight. Written by its front. */
struct scoreboard_request {
    _Atomic uint32_t version;
    _Atomic uint32_t state;      /* enum scoreboard_state: what is waited for; REQUEST_NONE: nothing is here */
    _Atomic uint32_t pool;       /* number, or SCOREBOARD_NONE */
    _Atomic int32_t pid;         /* of the program that serves it; 0: none yet, or none any more */
    _Atomic uint64_t started_us; /* head complete */
    _Atomic uint64_t granted_us; /* its turn came; 0: not yet */
    _Atomic uint64_t state_us;   /* in this state since */
    _Atomic uint64_t bytes_out;
    char id[24], method[16], user[32], client[48], site[64], route[48], uri[192]; /* cut short */
};

struct scoreboard_front {
    struct counters counters;
    _Atomic int32_t pid;         /* 0: none here; this and the next three are the keeper's */
    _Atomic uint32_t generation; /* counts configurations: the front has this one */
    _Atomic uint32_t is_draining;
    _Atomic uint64_t start_us;
    _Atomic uint32_t n_requests;       /* how many of the places were ever used: none above is */
    struct scoreboard_histogram files; /* how long answers took that no program was asked for */
    struct scoreboard_share shares[SCOREBOARD_POOLS];
    struct scoreboard_request requests[SCOREBOARD_REQUESTS];
};

/* Who held a pool's processes when it was last full. Written by any front, one at a time. */
struct scoreboard_saturation {
    _Atomic uint32_t version;
    uint64_t at_unix_us;
    char text[2040];
};

struct scoreboard {
    uint64_t secret;              /* random, set before the fronts */
    _Atomic uint32_t generation;  /* of the present configuration */
    _Atomic uint32_t n_fronts;    /* places of fronts that were ever used: none above is */
    _Atomic uint32_t n_pools;     /* likewise */
    _Atomic uint32_t is_draining; /* the server is about to end */
    uint64_t start_unix_us, start_us;
    struct scoreboard_pool pools[SCOREBOARD_POOLS];
    struct scoreboard_process processes[SCOREBOARD_PROGRAMS];
    struct scoreboard_saturation saturations[SCOREBOARD_POOLS];
    struct client_table clients[CLIENT_TABLES]; /* by front */
    struct scoreboard_front fronts[SCOREBOARD_FRONTS];
    struct seat_board seats; /* at servers of pools */
    /* The keeper's: */
    _Atomic uint64_t used[SCOREBOARD_PROGRAMS / 64]; /* by bit: there is a process in that place */
    struct counters past;                            /* sums of fronts that are gone */
    struct scoreboard_histogram past_files;
    struct scoreboard_share past_shares[SCOREBOARD_POOLS]; /* but for what is "now", and the waits */
};

/* Maps a zeroed one, shared with every process forked later. Ends the program when there is no memory. */
struct scoreboard *scoreboard_create(void);

/* For the keeper. A process is in that place, or is not any more: to be said behind what else is written of it. */
void scoreboard_set_used(struct scoreboard *scoreboard, unsigned index, bool is_used);

/* For the keeper. The place of a front that is gone is as new; its sums are kept in `past`. */
void scoreboard_clear_front(struct scoreboard *scoreboard, unsigned number);

/* For the keeper. The number is another pool's: nothing is left of what was counted for it, but in fronts that have
 * gone. */
void scoreboard_clear_pool(struct scoreboard *scoreboard, unsigned number);

/* The first place of a process from `index` on that is used; SCOREBOARD_PROGRAMS: none is. */
unsigned scoreboard_next(const struct scoreboard *scoreboard, unsigned index);

/* The names of enum scoreboard_state, as far as they are phases of access.h, too; the first is "receive". */
extern const char *const scoreboard_states[REQUEST_SEND + 1];

/* Around the writing of a part with texts. */
void scoreboard_open(_Atomic uint32_t *version);
void scoreboard_close(_Atomic uint32_t *version);

/* Copies such a part of `len` bytes, `version` being within it. False: it was being written all the time, and
 * so are the copy's texts. */
bool scoreboard_read(const _Atomic uint32_t *version, const void *part, void *copy, size_t len);

/* Takes a duration into a histogram. */
void scoreboard_observe(struct scoreboard_histogram *histogram, uint64_t us);

#endif
