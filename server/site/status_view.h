/*
 * What there is to see of the server, read from the scoreboard into plain structs: each part once, sums over all
 * fronts.
 * The scoreboard's texts and numbers are written by fronts, which are taken for hostile: here every text has an end,
 * and every index was checked. What is in a text is not looked at: who shows it, escapes it.
 */
#ifndef GATEHOUSE_SITE_STATUS_VIEW_H
#define GATEHOUSE_SITE_STATUS_VIEW_H

#include "base/scoreboard.h"

enum {
    VIEW_REQUESTS = 16384, /* that are listed, the oldest first */
    VIEW_MEMORIES = 1024,  /* processes whose resident memory is looked up */
    VIEW_BINS = 12,        /* of the picture of waits */
};

struct view_front {
    unsigned number;
    int pid;
    uint32_t generation;
    bool is_draining;
    uint64_t start_us, accepted, open, requests;
};

enum view_state { VIEW_IDLE, VIEW_RUNNING, VIEW_STARTING, VIEW_RETIRING };

struct view_process {
    unsigned pool; /* number */
    int pid;
    enum view_state state;
    bool is_busy; /* has a request; one that retires may */
    uint64_t start_unix_us, start_us;
    uint64_t requests;                   /* that it was given */
    uint64_t duration_us;                /* of its request so far, or of the last one */
    uint64_t last_us, last_cpu_us;       /* of the last request; last_cpu_us UINT64_MAX: not known */
    uint64_t memory;                     /* resident bytes; 0: not known */
    char method[16], user[32], uri[192]; /* of its request, or of the last one; empty: none */
};

/* Of the last waits: exact values, in microseconds. */
struct view_waits {
    uint64_t n;        /* ever */
    unsigned n_sample; /* of them that are known */
    uint32_t p50, p90, p99, most;
    unsigned bins[VIEW_BINS]; /* how many took no longer than view_bins_us[]; not cumulative */
};

/* The last has no end: UINT32_MAX. */
extern const uint32_t view_bins_us[VIEW_BINS];

/* A server of a pool, as the fronts know it. */
struct view_server {
    unsigned pool;                   /* number */
    char address[120], why[120];     /* why: its last failure; empty: none */
    enum seat_state state;           /* as it was noted last; SEAT_LEAVING: fronts that drain alone have it */
    uint64_t since_us;               /* it is in it; 0: it never was in another */
    uint32_t limit, weight;          /* limit: of connections, over all fronts */
    uint64_t n_connections, n_idle;  /* now */
    uint64_t n_requests, n_failures; /* of the fronts that are here */
};

struct view_pool {
    unsigned number;
    struct scoreboard_pool about; /* its texts have an end */
    uint32_t n_waiting, most_waiting, n_idle, n_active, n_starting, n_retiring, n_total, most_active;
    uint64_t n_accepted, n_full, n_expired, n_down, n_left, n_crashed, n_terminated, n_slow, n_retried;
    uint64_t n_started, n_limit_reached, ends[N_ENDS];
    bool is_down;
    struct view_waits waits;
    uint64_t full_unix_us;               /* when it was last full; 0: never */
    char full_text[2040];                /* and what held it then */
    unsigned first_process, n_processes; /* its part of view.processes */
    unsigned first_server, n_servers;    /* ... and of view.servers */
};

struct view {
    uint64_t now_us, now_unix_us, start_us, start_unix_us;
    uint32_t generation;
    bool is_draining;
    uint64_t accepted, open, requests, statuses[6]; /* of all fronts that ever were */
    struct view_front *fronts;                      /* that are here */
    unsigned n_fronts;
    struct view_pool *pools; /* of the present configuration, and those that fronts which drain still use */
    unsigned n_pools;
    struct view_process *processes; /* by pool */
    unsigned n_processes;
    struct view_server *servers; /* by pool, then by address */
    unsigned n_servers;
};

/* Reads it all; to be freed by view_free(). */
struct view *view_read(const struct scoreboard *scoreboard);
void view_free(struct view *view);

/* One histogram, summed over all fronts. */
struct view_histogram {
    uint64_t buckets[SCOREBOARD_BUCKETS], sum_us;
};

/* Of a route's phase; of what was answered without a program. */
void view_phase(const struct scoreboard *scoreboard, unsigned number, unsigned phase, struct view_histogram *out);
void view_files(const struct scoreboard *scoreboard, struct view_histogram *out);

/* ---- status_requests.c: requests in flight ---- */

/* Where a request is; what it was when it was looked for. */
struct view_found {
    uint16_t front, place;
    uint64_t started_us;
};

struct view_requests {
    struct view_found *at; /* the oldest first */
    size_t n;
    size_t n_all; /* more than n only beyond VIEW_REQUESTS */
};

void view_requests_find(const struct scoreboard *scoreboard, struct view_requests *out);
void view_requests_free(struct view_requests *requests);

/* Copies one; its texts have an end. False: it is over by now. */
bool view_request(const struct scoreboard *scoreboard, const struct view_found *found,
                  struct scoreboard_request *copy_out);

/* What it waits for: a phase of access.h; "receive" while its body is, "send" when its program is done. */
const char *view_phase_name(const struct scoreboard_request *request);

#endif
