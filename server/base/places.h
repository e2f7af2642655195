/*
 * A front's places on the scoreboard for its requests in flight. Who has a place tells there what its request waits
 * for; when all are taken, a request is served all the same, and not shown: NULL is a place where nothing is written.
 */
#ifndef GATEHOUSE_BASE_PLACES_H
#define GATEHOUSE_BASE_PLACES_H

#include "base/scoreboard.h"
#include "base/span.h"

struct places;

/* Empties what a front before this one has left there. `scoreboard` outlives the struct. */
struct places *places_create(struct scoreboard *scoreboard, unsigned front);
void places_destroy(struct places *places); /* NULL: nothing */

/* What is known of a request from its beginning on. */
struct place_texts {
    struct span id, method, user, client, site, route, uri;
};

/* A place for a request whose head was complete at `started_us`; NULL: none is free, or `places` is NULL. It is in
 * `state` since then. */
struct scoreboard_request *places_take(struct places *places, const struct place_texts *texts, uint32_t pool,
                                       enum scoreboard_state state, uint64_t started_us);

/* The request is over. */
void places_give(struct places *places, struct scoreboard_request *place);

/* It waits for something else since `us` (clock_us()). */
void place_change(struct scoreboard_request *place, enum scoreboard_state state, uint64_t us);

/* The program that serves it; 0: none. */
void place_set_pid(struct scoreboard_request *place, long pid);

void place_set_pool(struct scoreboard_request *place, uint32_t pool);

#endif
