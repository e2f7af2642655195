#include "process/lender.h"

#include <stddef.h>

static bool is_needier(const struct lender_share *a, const struct lender_share *b)
{
    if ((a->waiting > 0) != (b->waiting > 0))
        return a->waiting > 0;
    return a->loans != b->loans ? a->loans < b->loans : a->turn < b->turn;
}

int lender_next(const struct lender *lender)
{
    const struct lender_share *best = NULL;

    for (unsigned i = 0; i < LENDER_FRONTS; i++) {
        const struct lender_share *share = &lender->shares[i];

        if (share->is_leaving && share->waiting == 0)
            continue;
        if (share->is_here && (best == NULL || is_needier(share, best)))
            best = share;
    }
    return best != NULL ? (int)(best - lender->shares) : -1;
}

void lender_lent(struct lender *lender, unsigned front)
{
    struct lender_share *share = &lender->shares[front];

    share->turn = ++lender->turns;
    share->loans++;
    if (share->waiting > 0 && share->recalled == 0) /* else it gives the slot back at once */
        share->waiting--;
}

void lender_settled(struct lender *lender, unsigned front)
{
    lender->shares[front].recalled -= lender->shares[front].recalled > 0;
}

void lender_returned(struct lender *lender, unsigned front, bool is_settled)
{
    lender->shares[front].loans--;
    if (is_settled)
        lender_settled(lender, front);
}

static unsigned kept(const struct lender_share *share)
{
    return share->loans > share->recalled ? share->loans - share->recalled : 0;
}

/* The waiting front with the fewest slots, while more requests wait than slots are on their way; or NULL. */
static const struct lender_share *neediest(const struct lender *lender, unsigned *coming_out)
{
    const struct lender_share *best = NULL;
    unsigned waiting = 0, coming = 0;

    for (unsigned i = 0; i < LENDER_FRONTS; i++) {
        const struct lender_share *share = &lender->shares[i];

        if (!share->is_here)
            continue;
        waiting += share->waiting;
        coming += share->recalled;
        if (share->waiting > 0 &&
            (best == NULL || kept(share) < kept(best) || (kept(share) == kept(best) && share->turn < best->turn)))
            best = share;
    }
    *coming_out = coming;
    return waiting > coming ? best : NULL;
}

static bool must_give(const struct lender_share *giver, const struct lender_share *taker, unsigned coming)
{
    unsigned has = kept(taker) + coming;

    if (kept(giver) == 0)
        return false;
    if (giver->waiting == 0)
        return true;
    return has == 0 || kept(giver) > has + 1;
}

/* One that nobody uses is to be had at once; a busy one when it is free. */
static bool has_idle(const struct lender_share *share)
{
    return share->idle > share->recalled;
}

static bool is_better_giver(const struct lender_share *a, const struct lender_share *b)
{
    if (has_idle(a) != has_idle(b))
        return has_idle(a);
    if ((a->waiting == 0) != (b->waiting == 0))
        return a->waiting == 0;
    return kept(a) > kept(b);
}

int lender_recall(struct lender *lender)
{
    unsigned coming;
    const struct lender_share *taker = neediest(lender, &coming);
    struct lender_share *best = NULL;

    if (taker == NULL)
        return -1;
    for (unsigned i = 0; i < LENDER_FRONTS; i++) {
        struct lender_share *share = &lender->shares[i];

        if (!share->is_here || share == taker || !must_give(share, taker, coming))
            continue;
        if (best == NULL || is_better_giver(share, best))
            best = share;
    }
    if (best == NULL)
        return -1;
    best->recalled++;
    return (int)(best - lender->shares);
}
