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

/* What there is to weigh, over all fronts. */
struct scales {
    const struct lender_share *neediest; /* the waiting front with the fewest slots; NULL: none waits */
    unsigned waiting, coming;            /* requests; slots that were recalled */
    unsigned soon;                       /* ... of fronts that have as many idle, as far as is known */
};

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static struct scales weigh(const struct lender *lender)
{
    struct scales scales = {0};

    for (unsigned i = 0; i < LENDER_FRONTS; i++) {
        const struct lender_share *share = &lender->shares[i], *best = scales.neediest;

        if (!share->is_here)
            continue;
        scales.waiting += share->waiting;
        scales.coming += least(share->recalled, share->loans); /* it may have given all back by itself before */
        scales.soon += least(share->recalled, share->idle);
        if (share->waiting > 0 &&
            (best == NULL || kept(share) < kept(best) || (kept(share) == kept(best) && share->turn < best->turn)))
            scales.neediest = share;
    }
    return scales;
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

/* A front that was asked while a slot of it was idle may have used it first: then the slot comes when that is over,
 * which may be never. So as long as others have idle ones, those that are on their way from busy fronts do not count.
 */
int lender_recall(struct lender *lender)
{
    struct scales scales = weigh(lender);
    bool is_enough_coming = scales.waiting <= scales.coming;
    struct lender_share *best = NULL;

    if (scales.neediest == NULL || scales.waiting <= scales.soon)
        return -1;
    for (unsigned i = 0; i < LENDER_FRONTS; i++) {
        struct lender_share *share = &lender->shares[i];

        if (!share->is_here || share == scales.neediest || (is_enough_coming && !has_idle(share)) ||
            !must_give(share, scales.neediest, is_enough_coming ? scales.soon : scales.coming))
            continue;
        if (best == NULL || is_better_giver(share, best))
            best = share;
    }
    if (best == NULL)
        return -1;
    best->recalled++;
    return (int)(best - lender->shares);
}
