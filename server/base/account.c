#include "base/account.h"

#include <stddef.h>

void account_init(struct account *account, struct scoreboard *scoreboard, unsigned front)
{
    *account = (struct account){.scoreboard = scoreboard, .front = front, .number = SCOREBOARD_NONE};
}

static void set(_Atomic uint32_t *gauge, uint32_t n)
{
    atomic_store_explicit(gauge, n, memory_order_relaxed);
}

static uint32_t get(const _Atomic uint32_t *gauge)
{
    return atomic_load_explicit(gauge, memory_order_relaxed);
}

void account_open(struct account *account, unsigned number, uint32_t capacity)
{
    if (account->scoreboard == NULL || number >= SCOREBOARD_POOLS)
        return;
    account->number = number;
    account->capacity = capacity;
    account->share = &account->scoreboard->fronts[account->front].shares[number];
    counter_add(&account->share->n_accepted, account->n_early);
    account->n_early = 0;
    uint32_t n_waiting = account->n_waiting, n_active = account->n_active;
    account->n_waiting = account->n_active = 0;
    account_set_waiting(account, n_waiting);
    account_set_idle(account, account->n_idle);
    account_set_active(account, n_active);
}

void account_close(struct account *account)
{
    account_set_waiting(account, 0);
    account_set_idle(account, 0);
    account_set_active(account, 0);
}

enum gauge { WAITING, ACTIVE };

static uint32_t over_all_fronts(const struct account *account, enum gauge gauge)
{
    uint32_t sum = 0, n = get(&account->scoreboard->n_fronts);

    for (unsigned i = 0; i < n && i < SCOREBOARD_FRONTS; i++) {
        const struct scoreboard_front *front = &account->scoreboard->fronts[i];
        const struct scoreboard_share *share = &front->shares[account->number];

        if (i == account->front || get((const _Atomic uint32_t *)&front->pid) != 0)
            sum += get(gauge == WAITING ? &share->n_waiting : &share->n_active);
    }
    return sum;
}

/* The others' shares are looked at only where their sum can be news. */
static void note_most(const struct account *account, enum gauge gauge, _Atomic uint32_t *most, uint32_t limit)
{
    if (get(most) >= limit)
        return;
    uint32_t sum = over_all_fronts(account, gauge);
    if (sum > get(most))
        set(most, sum);
}

void account_set_waiting(struct account *account, uint32_t n)
{
    bool is_more = n > account->n_waiting;

    account->n_waiting = n;
    if (account->share == NULL)
        return;
    set(&account->share->n_waiting, n);
    if (is_more)
        note_most(account, WAITING, &account->share->most_waiting, UINT32_MAX);
}

void account_set_idle(struct account *account, uint32_t n)
{
    account->n_idle = n;
    if (account->share != NULL)
        set(&account->share->n_idle, n);
}

void account_set_active(struct account *account, uint32_t n)
{
    bool is_more = n > account->n_active;

    account->n_active = n;
    if (account->share == NULL)
        return;
    set(&account->share->n_active, n);
    if (is_more)
        note_most(account, ACTIVE, &account->share->most_active, account->capacity);
}

static _Atomic uint64_t *counter_of(struct scoreboard_share *share, enum account_event event)
{
    switch (event) {
    case ACCOUNT_ACCEPTED:
        return &share->n_accepted;
    case ACCOUNT_FULL:
        return &share->n_full;
    case ACCOUNT_EXPIRED:
        return &share->n_expired;
    case ACCOUNT_DOWN:
        return &share->n_down;
    case ACCOUNT_LEFT:
        return &share->n_left;
    case ACCOUNT_CRASHED:
        return &share->n_crashed;
    case ACCOUNT_TERMINATED:
        return &share->n_terminated;
    case ACCOUNT_RETRIED:
        break;
    }
    return &share->n_retried;
}

void account_count(struct account *account, enum account_event event, uint64_t n)
{
    if (account->share != NULL)
        counter_add(counter_of(account->share, event), n);
    else if (event == ACCOUNT_ACCEPTED)
        account->n_early += n;
}

void account_waited(struct account *account, uint64_t us)
{
    struct scoreboard_share *share = account->share;

    if (share == NULL)
        return;
    uint64_t n = atomic_load_explicit(&share->n_waits, memory_order_relaxed);
    set(&share->waits_us[n % SCOREBOARD_WAITS], us < UINT32_MAX ? (uint32_t)us : UINT32_MAX);
    atomic_store_explicit(&share->n_waits, n + 1, memory_order_release);
}
