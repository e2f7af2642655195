#include "base/scoreboard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"

_Static_assert((int)SCOREBOARD_FRONTS == (int)CLIENT_TABLES && (int)SCOREBOARD_FRONTS == (int)SEAT_FRONTS,
               "each front has a table of clients, and seats");

enum { TRIES = 1000 }; /* a writer that was stopped within is not waited for */

const uint64_t scoreboard_bounds_us[] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
};

const char *const scoreboard_states[] = {
    [REQUEST_NONE] = "",       [REQUEST_BODY] = "receive", [REQUEST_QUEUE] = "queue",
    [REQUEST_START] = "start", [REQUEST_FIRST] = "first",  [REQUEST_SEND] = "body",
};

struct scoreboard *scoreboard_create(void)
{
    struct timespec now;
    void *at = mmap(NULL, sizeof(struct scoreboard), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);

    if (at == MAP_FAILED)
        abort();
    madvise(at, sizeof(struct scoreboard), MADV_DONTDUMP);
    struct scoreboard *scoreboard = at;
    if (getrandom(&scoreboard->secret, sizeof scoreboard->secret, 0) != sizeof scoreboard->secret)
        abort(); /* cannot fail for so few bytes */
    clock_gettime(CLOCK_REALTIME, &now);
    scoreboard->start_unix_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    scoreboard->start_us = clock_us();
    return scoreboard;
}

void scoreboard_set_used(struct scoreboard *scoreboard, unsigned index, bool is_used)
{
    uint64_t bit = (uint64_t)1 << index % 64;

    if (is_used)
        atomic_fetch_or(&scoreboard->used[index / 64], bit);
    else
        atomic_fetch_and(&scoreboard->used[index / 64], ~bit);
}

unsigned scoreboard_next(const struct scoreboard *scoreboard, unsigned index)
{
    while (index < SCOREBOARD_PROGRAMS) {
        uint64_t rest = scoreboard->used[index / 64] >> index % 64;

        if (rest != 0)
            return index + (unsigned)__builtin_ctzll(rest);
        index += 64 - index % 64;
    }
    return SCOREBOARD_PROGRAMS;
}

/* ---- what is left of fronts ---- */

static void fold(_Atomic uint64_t *to, _Atomic uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        counter_add(&to[i], from[i]);
}

static void fold_histogram(struct scoreboard_histogram *to, struct scoreboard_histogram *from)
{
    fold(to->buckets, from->buckets, SCOREBOARD_BUCKETS);
    fold(&to->sum_us, &from->sum_us, 1);
}

static void fold_share(struct scoreboard_share *to, struct scoreboard_share *from)
{
    if (from->most_waiting > to->most_waiting)
        to->most_waiting = from->most_waiting;
    if (from->most_active > to->most_active)
        to->most_active = from->most_active;
    fold(&to->n_accepted, &from->n_accepted, 1);
    fold(&to->n_full, &from->n_full, 1);
    fold(&to->n_expired, &from->n_expired, 1);
    fold(&to->n_down, &from->n_down, 1);
    fold(&to->n_left, &from->n_left, 1);
    fold(&to->n_crashed, &from->n_crashed, 1);
    fold(&to->n_terminated, &from->n_terminated, 1);
    fold(&to->n_slow, &from->n_slow, 1);
    fold(&to->n_retried, &from->n_retried, 1);
    fold(&to->n_waits, &from->n_waits, 1);
    for (int i = 0; i < SCOREBOARD_PHASES; i++)
        fold_histogram(&to->phases[i], &from->phases[i]);
    fold(to->statuses, from->statuses, 6);
}

void scoreboard_clear_front(struct scoreboard *scoreboard, unsigned number)
{
    struct scoreboard_front *front = &scoreboard->fronts[number];

    atomic_store(&scoreboard->seats.fronts[number], 0);
    for (unsigned i = 0; i < scoreboard->n_pools && i < SCOREBOARD_POOLS; i++) {
        fold_share(&scoreboard->past_shares[i], &front->shares[i]);
        memset(&front->shares[i], 0, sizeof front->shares[i]);
    }
    fold_histogram(&scoreboard->past_files, &front->files);
    memset(&front->files, 0, sizeof front->files);
    fold(&scoreboard->past.accepted, &front->counters.accepted, 1);
    fold(&scoreboard->past.requests, &front->counters.requests, 1);
    fold(scoreboard->past.statuses, front->counters.statuses, 6);
    memset(&front->counters, 0, sizeof front->counters);
    for (uint32_t i = 0; i < front->n_requests && i < SCOREBOARD_REQUESTS; i++)
        front->requests[i].state = REQUEST_NONE;
    front->n_requests = 0;
}

void scoreboard_clear_pool(struct scoreboard *scoreboard, unsigned number)
{
    for (unsigned i = 0; i < scoreboard->n_fronts && i < SCOREBOARD_FRONTS; i++)
        memset(&scoreboard->fronts[i].shares[number], 0, sizeof(struct scoreboard_share));
    memset(&scoreboard->past_shares[number], 0, sizeof(struct scoreboard_share));
    memset(&scoreboard->saturations[number], 0, sizeof(struct scoreboard_saturation));
}

/* ---- reading and writing ---- */

void scoreboard_open(_Atomic uint32_t *version)
{
    uint32_t now = atomic_load_explicit(version, memory_order_relaxed);

    atomic_store_explicit(version, now | 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

void scoreboard_close(_Atomic uint32_t *version)
{
    uint32_t now = atomic_load_explicit(version, memory_order_relaxed);

    atomic_store_explicit(version, (now | 1) + 1, memory_order_release);
}

bool scoreboard_read(const _Atomic uint32_t *version, const void *part, void *copy, size_t len)
{
    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t before = atomic_load_explicit(version, memory_order_acquire);

        if ((before & 1) != 0)
            continue;
        memcpy(copy, part, len);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(version, memory_order_relaxed) == before)
            return true;
    }
    memcpy(copy, part, len);
    return false;
}

void scoreboard_observe(struct scoreboard_histogram *histogram, uint64_t us)
{
    unsigned i = 0;

    while (i < SCOREBOARD_BUCKETS - 1 && us > scoreboard_bounds_us[i])
        i++;
    counter_add(&histogram->buckets[i], 1);
    counter_add(&histogram->sum_us, us);
}
