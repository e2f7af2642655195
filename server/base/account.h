/*
 * One front's account of one pool of slots: how it writes its share of the scoreboard. A queue and a pool tell it what
 * changes, as it changes, so that what is read is exact at any time. Nothing here waits, allocates or locks.
 *
 * The pool of a script has no number, and so no share, until the keeper has told it: what is told before is kept.
 */
#ifndef GATEHOUSE_BASE_ACCOUNT_H
#define GATEHOUSE_BASE_ACCOUNT_H

#include "base/scoreboard.h"

/* Zeroed is one of a front without a scoreboard, where nothing is written. */
struct account {
    struct scoreboard *scoreboard;
    struct scoreboard_share *share; /* NULL: the pool has no number yet */
    unsigned front, number;         /* number: SCOREBOARD_NONE without a share */
    uint32_t capacity;              /* slots of the pool over all fronts */
    uint32_t n_waiting, n_idle, n_active;
    uint64_t n_early; /* requests before there was a share */
};

/* What becomes of requests for the pool; see struct scoreboard_share. */
enum account_event {
    ACCOUNT_ACCEPTED,
    ACCOUNT_FULL,
    ACCOUNT_EXPIRED,
    ACCOUNT_DOWN,
    ACCOUNT_LEFT,
    ACCOUNT_CRASHED,
    ACCOUNT_TERMINATED,
    ACCOUNT_RETRIED,
};

void account_init(struct account *account, struct scoreboard *scoreboard, unsigned front);

/* The pool's number is known: from now on this is that share's only writer. */
void account_open(struct account *account, unsigned number, uint32_t capacity);

/* Nothing waits, is idle or active here any more. */
void account_close(struct account *account);

void account_set_waiting(struct account *account, uint32_t n);
void account_set_idle(struct account *account, uint32_t n);
void account_set_active(struct account *account, uint32_t n);

void account_count(struct account *account, enum account_event event, uint64_t n);

/* A request has got a slot after so long. */
void account_waited(struct account *account, uint64_t us);

#endif
