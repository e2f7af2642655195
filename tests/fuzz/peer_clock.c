/*
 * The monotonic clock, for all that is linked with this: the loop's timers and clock_us(). It stands still until it is
 * told to go on, so that a minute is over at once, and nothing depends on how fast the machine is.
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "peer_play.h"

static uint64_t now_us = 1000000000;

void clock_advance(uint64_t us)
{
    now_us += us;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
        return (int)syscall(SYS_clock_gettime, clock, time);
    time->tv_sec = (time_t)(now_us / 1000000);
    time->tv_nsec = (long)(now_us % 1000000 * 1000);
    return 0;
}
