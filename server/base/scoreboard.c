#include "base/scoreboard.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"

enum { TRIES = 1000 }; /* a writer that was stopped within is not waited for */

const uint64_t scoreboard_bounds_us[] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
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

        memcpy(copy, part, len);
        atomic_thread_fence(memory_order_acquire);
        if ((before & 1) == 0 && atomic_load_explicit(version, memory_order_relaxed) == before)
            return true;
    }
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
