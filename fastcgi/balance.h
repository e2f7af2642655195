/*
 * Which of a pool's servers gets a request, and which of them is passed over for a while because it has failed. Pure:
 * what there is and the time in, a decision out.
 *
 *             max_fails within fail_timeout            a request is tried on it, fail_timeout later
 *         UP ------------------------------> DOWN --------------------------------------> TRYING
 *          ^                                  ^  |                                         |   |
 *          |     an answer to what was begun  |  |               it has failed             |   |
 *          +---------------- since -----------|--+ <---------------------------------------+   |
 *          |                                  +-------                                         |
 *          +------------------------- an answer ----------------------------------------------+
 *
 * Of the servers that may be used, those of the lowest level alone are looked at: backups have a higher one. When none
 * may be used, all are tried all the same, in their order.
 */
#ifndef GATEHOUSE_FASTCGI_BALANCE_H
#define GATEHOUSE_FASTCGI_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config_pool.h"

enum { BALANCE_MAX_FAILS = 32 };

enum balance_state { BALANCE_UP, BALANCE_DOWN, BALANCE_TRYING };

struct balance_rules {
    enum balance balance;
    unsigned max_fails; /* 0: none is ever passed over; at most BALANCE_MAX_FAILS */
    uint64_t fail_timeout_us, slow_start_us;
};

/* Zeroed, but for weight and bit, is a server that is up. Times are clock_us(). */
struct balance_server {
    uint64_t identity; /* what tells it from others, the same for ever */
    unsigned weight;   /* at least 1 */
    unsigned level;    /* 0: used first */
    uint64_t bit;      /* among those that a request has been tried on */

    /* what there is now: the caller's */
    unsigned n_busy; /* connections in use, over all fronts */
    bool has_room;   /* one is idle, or may be opened */
    bool is_ill;     /* its health request has failed */

    /* private to balance.c */
    enum balance_state state;
    unsigned n_failures;                     /* ever */
    uint64_t failures_us[BALANCE_MAX_FAILS]; /* the last ones, in a ring */
    uint64_t down_us, trying_us;             /* since when */
    uint64_t back_us;                        /* since when it is back; 0: it never was away */
    double credit;                           /* of the turns that its weight gives it */
};

struct balance_choice {
    int index;    /* -1: none of those that it has not been tried on */
    bool is_full; /* the server of that index, or if it is -1 all that it may be given to, have no room */
};

/* Chooses for a request: `tried`: the bits of servers that it was tried on; `key`: for BALANCE_HASH. */
struct balance_choice balance_choose(const struct balance_rules *rules, struct balance_server *const *servers, size_t n,
                                     uint64_t tried, uint64_t key, uint64_t now_us);

/* It is given a request. */
void balance_begin(const struct balance_rules *rules, struct balance_server *server, uint64_t now_us);

/* A request that it was given at begun_us has failed. True: so it is down from now on. */
bool balance_failed(const struct balance_rules *rules, struct balance_server *server, uint64_t begun_us,
                    uint64_t now_us);

/* It has answered a request that it was given at begun_us. True: so it is back. */
bool balance_answered(struct balance_server *server, uint64_t begun_us, uint64_t now_us);

/* It is back, whatever has told us so. */
void balance_came_back(struct balance_server *server, uint64_t now_us);

/* May it be used? Else it is passed over. */
bool balance_is_usable(const struct balance_rules *rules, const struct balance_server *server, uint64_t now_us);

/* Its weight now: one that is back begins with a tenth. */
double balance_weight(const struct balance_rules *rules, const struct balance_server *server, uint64_t now_us);

#endif
