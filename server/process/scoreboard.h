/*
 * Memory shared by all processes, made before the fronts: who is there and what they count. Each part has one writer;
 * everybody may read at any time, so every field is a word that is written at once.
 *
 * The keeper writes the groups: the process groups that must not outlive it (the warden reads them when the keeper is
 * gone). Each front writes its own counters.
 */
#ifndef GATEHOUSE_PROCESS_SCOREBOARD_H
#define GATEHOUSE_PROCESS_SCOREBOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/counters.h"

enum {
    SCOREBOARD_FRONTS = 64,
    SCOREBOARD_GROUPS = 8192, /* programs at once, over all pools and routes */
    SCOREBOARD_PATH = 80,
};

struct scoreboard {
    char socket_dir[SCOREBOARD_PATH]; /* written before the first process starts; to be removed at the end */
    struct counters fronts[SCOREBOARD_FRONTS];
    _Atomic int32_t groups[SCOREBOARD_GROUPS]; /* process group ids; 0: free */
    /* by the front that has that process on loan: */
    _Atomic uint32_t given[SCOREBOARD_GROUPS];  /* requests that it was given */
    _Atomic uint32_t served[SCOREBOARD_GROUPS]; /* ... and has answered */
};

/* Maps a zeroed one, shared with every process forked later. Ends the program when there is no memory. */
struct scoreboard *scoreboard_create(void);

#endif
