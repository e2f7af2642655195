/*
 * Seats at servers: how many connections each server of a pool has now, over all fronts, so that it never has more
 * than it may; and what else fronts let each other, and the status page, know of a server.
 *
 * Each front counts in rows of its own, which all can read; a server's connections are the sum over the fronts. Rows of
 * the same key are about the same server. Who enters counts itself first and looks at the others then, in one order
 * for all: when several do so at the same time each may see the others, so none gets the last place, but never two.
 */
#ifndef GATEHOUSE_BASE_SEATS_H
#define GATEHOUSE_BASE_SEATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SEAT_FRONTS = 128, SEAT_ROWS = 256 };

enum seat_state {
    SEAT_UP,
    SEAT_DOWN,   /* it has failed, and is passed over */
    SEAT_TRYING, /* ... until now: a request is tried on it */
    SEAT_ILL,    /* its health request has failed */
    SEAT_LEAVING /* its name does not lead to it any more */
};

enum seat_health { HEALTH_UNKNOWN, HEALTH_WELL, HEALTH_ILL };

/* One server of one pool, as one front has it. Written by that front alone; all-zero was never used. */
struct seat_row {
    _Atomic uint64_t key;           /* who it is; SEAT_NOBODY: no one any more */
    _Atomic uint32_t n_connections; /* of this front, and how many of them have no request */
    _Atomic uint32_t n_idle;
    _Atomic uint32_t is_awaited; /* requests of this front wait for a place there */
    _Atomic uint32_t health;     /* enum seat_health, as this front was told at told_us; clock_us() */
    _Atomic uint64_t asked_us, told_us;

    _Atomic uint32_t pool;  /* its number; the rest is for those who look on */
    _Atomic uint32_t state; /* enum seat_state */
    _Atomic uint32_t limit; /* of connections, over all fronts */
    _Atomic uint32_t weight;
    _Atomic uint64_t since_us;
    _Atomic uint64_t n_requests, n_failures; /* answered; failures that count, see gatehouse.conf(5) */
    _Atomic uint32_t version;                /* of the texts: see scoreboard_read() */
    char address[120];                       /* "10.0.0.1:9000", "[::1]:9000", "unix:/run/x.sock" */
    char why[120];                           /* its last failure; empty: none */
};

#define SEAT_NOBODY UINT64_MAX

struct seat_board {
    _Atomic int32_t fronts[SEAT_FRONTS]; /* who has these rows: a pid; 0: they count for nothing */
    struct seat_row rows[SEAT_FRONTS][SEAT_ROWS];
};

struct seats;

/* The rows of front number `front`, emptied: a front before us may have crashed. `board` outlives the struct. */
struct seats *seats_create(struct seat_board *board, unsigned front);

/* Its rows count for nothing any more. NULL: nothing. */
void seats_destroy(struct seats *seats);

/* The own row of that key, emptied if it is new; NULL: there are too many. `pool` and `address` are for those who look
 * on. */
struct seat_row *seats_add(struct seats *seats, uint64_t key, unsigned pool, const char *address);
void seats_remove(struct seat_row *row);

/* One more connection; false: there are `most` already. */
bool seats_enter(struct seats *seats, struct seat_row *row, unsigned most);
void seats_leave(struct seat_row *row);

/* What the other fronts have there. */
struct seats_others {
    unsigned n_connections, n_idle;
    unsigned n_awaited; /* fronts that wait for a place */
    unsigned least;     /* connections of the one of them that has the fewest */
    uint64_t asked_us;  /* of the newest health request; 0: none */
    uint64_t told_us;   /* of the newest answer, which was `health` */
    enum seat_health health;
    bool has_lower; /* one with a lower number is there */
};

struct seats_others seats_look(const struct seats *seats, const struct seat_row *row);

/* Is there a front with a lower number? */
bool seats_is_first(const struct seats *seats);

void seats_note(struct seat_row *row, enum seat_state state, uint64_t now_us, const char *why); /* NULL: as it was */

#endif
