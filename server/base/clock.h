/* Time as the whole program counts it: microseconds of the monotonic clock, and wall time for logs and dates. */
#ifndef GATEHOUSE_BASE_CLOCK_H
#define GATEHOUSE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds since an arbitrary start; never goes back. Differences only. */
static inline uint64_t clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Microseconds since 1970, as the wall clock has it. */
static inline uint64_t clock_unix_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

#endif
