/*
 * Who of the fronts gets a slot of a pool, and who must give one back. Pure: counts in, decisions out.
 *
 * All slots are on loan at all times, idle ones too, so that a front that needs one mostly has one; with one front
 * there is nothing to decide. A front that waits while others have more is helped at their cost:
 *   - a front without waiting requests gives whatever it has, down to nothing;
 *   - between fronts that both wait, slots move until they have equally many, give or take one;
 *   - a front that has none at all gets one from any that has one: with fewer slots than fronts they take turns.
 * Among equals, the one that was lent to longest ago comes first.
 */
#ifndef GATEHOUSE_PROCESS_LENDER_H
#define GATEHOUSE_PROCESS_LENDER_H

#include <stdbool.h>

enum { LENDER_FRONTS = 128 };

struct lender_share {
    bool is_here;
    unsigned loans;     /* slots it has */
    unsigned recalled;  /* of these, how many it has been asked for */
    unsigned waiting;   /* its requests that wait for a slot, as it last said, less the slots lent to it since that it
                          did not owe already */
    unsigned long turn; /* when it was last lent one: the higher, the later */
    bool is_leaving;    /* it drains: it gets no more than it waits for */
    unsigned idle;      /* slots that nobody uses, as far as the caller knows: to be recalled first */
};

struct lender {
    struct lender_share shares[LENDER_FRONTS];
    unsigned long turns; /* slots lent so far */
};

/* The front that gets a slot which is free, or -1: none is here. The caller lends it and calls lender_lent(). */
int lender_next(const struct lender *lender);

void lender_lent(struct lender *lender, unsigned front);

/* A slot has come back, or has ceased to be; is_settled: it was one of those recalled. */
void lender_returned(struct lender *lender, unsigned front, bool is_settled);

/* One of those recalled is settled, though no slot has come back with that. */
void lender_settled(struct lender *lender, unsigned front);

/* The front to recall a slot from for the sake of those that wait, or -1: nobody has to give. Counts as recalled. */
int lender_recall(struct lender *lender);

#endif
