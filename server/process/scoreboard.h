/*
 * Memory shared by the keeper and all fronts, made before them: what they count. Each part has one writer; everybody
 * may read at any time, so every field is a word that is written at once. Fronts can write all of it, so nothing that
 * the keeper relies on may be here.
 */
#ifndef GATEHOUSE_PROCESS_SCOREBOARD_H
#define GATEHOUSE_PROCESS_SCOREBOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/clients.h"
#include "base/counters.h"

enum {
    SCOREBOARD_FRONTS = 64,
    SCOREBOARD_PROGRAMS = 8192, /* at once, over all pools and routes */
};

struct scoreboard {
    uint64_t secret; /* random, set before the fronts */
    struct counters fronts[SCOREBOARD_FRONTS];
    struct client_table clients[SCOREBOARD_FRONTS];
    /* by the front that has that process on loan: */
    _Atomic uint32_t given[SCOREBOARD_PROGRAMS];  /* requests that it was given */
    _Atomic uint32_t served[SCOREBOARD_PROGRAMS]; /* ... and has answered */
};

/* Maps a zeroed one, shared with every process forked later. Ends the program when there is no memory. */
struct scoreboard *scoreboard_create(void);

#endif
