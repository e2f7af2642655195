/*
 * The place that was given back last is taken first: it is warm. A text is written once, when its place is taken.
 */
#include "base/places.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct places {
    struct scoreboard_front *front;
    unsigned n_used; /* that were ever used: front->n_requests says so to others, who can write there */
    unsigned n_free;
    uint16_t free[SCOREBOARD_REQUESTS]; /* of those that were ever used */
};

_Static_assert(SCOREBOARD_REQUESTS <= UINT16_MAX, "a place's number has 16 bits");

struct places *places_create(struct scoreboard *scoreboard, unsigned front)
{
    struct places *places = memory_resize(NULL, sizeof *places);

    places->front = &scoreboard->fronts[front];
    places->n_used = places->n_free = 0;
    for (uint32_t i = 0; i < places->front->n_requests && i < SCOREBOARD_REQUESTS; i++)
        places->front->requests[i].state = REQUEST_NONE;
    places->front->n_requests = 0;
    return places;
}

void places_destroy(struct places *places)
{
    free(places);
}

static struct scoreboard_request *take(struct places *places)
{
    struct scoreboard_front *front = places->front;

    if (places->n_free > 0)
        return &front->requests[places->free[--places->n_free]];
    if (places->n_used == SCOREBOARD_REQUESTS)
        return NULL;
    atomic_store_explicit(&front->n_requests, places->n_used + 1, memory_order_release);
    return &front->requests[places->n_used++];
}

/* With its end, as much of it as there is room for. */
static void copy(char *to, size_t size, struct span text)
{
    size_t len = text.len < size ? text.len : size - 1;

    if (len > 0)
        memcpy(to, text.at, len);
    to[len] = '\0';
}

struct scoreboard_request *places_take(struct places *places, const struct place_texts *texts, uint32_t pool,
                                       enum scoreboard_state state, uint64_t started_us)
{
    struct scoreboard_request *place = places != NULL ? take(places) : NULL;

    if (place == NULL)
        return NULL;
    scoreboard_open(&place->version);
    copy(place->id, sizeof place->id, texts->id);
    copy(place->method, sizeof place->method, texts->method);
    copy(place->user, sizeof place->user, texts->user);
    copy(place->client, sizeof place->client, texts->client);
    copy(place->site, sizeof place->site, texts->site);
    copy(place->route, sizeof place->route, texts->route);
    copy(place->uri, sizeof place->uri, texts->uri);
    atomic_store_explicit(&place->pool, pool, memory_order_relaxed);
    atomic_store_explicit(&place->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&place->bytes_out, 0, memory_order_relaxed);
    atomic_store_explicit(&place->started_us, started_us, memory_order_relaxed);
    atomic_store_explicit(&place->granted_us, 0, memory_order_relaxed);
    atomic_store_explicit(&place->state_us, started_us, memory_order_relaxed);
    atomic_store_explicit(&place->state, state, memory_order_relaxed);
    scoreboard_close(&place->version);
    return place;
}

void places_give(struct places *places, struct scoreboard_request *place)
{
    if (place == NULL)
        return;
    atomic_store_explicit(&place->state, REQUEST_NONE, memory_order_relaxed);
    places->free[places->n_free++] = (uint16_t)(place - places->front->requests);
}

void place_change(struct scoreboard_request *place, enum scoreboard_state state, uint64_t us)
{
    if (place == NULL)
        return;
    atomic_store_explicit(&place->state, state, memory_order_relaxed);
    atomic_store_explicit(&place->state_us, us, memory_order_relaxed);
    if (state <= REQUEST_START)
        atomic_store_explicit(&place->granted_us, state == REQUEST_START ? us : 0, memory_order_relaxed);
}

void place_set_pid(struct scoreboard_request *place, long pid)
{
    if (place != NULL)
        atomic_store_explicit(&place->pid, (int32_t)pid, memory_order_relaxed);
}

void place_set_pool(struct scoreboard_request *place, uint32_t pool)
{
    if (place != NULL)
        atomic_store_explicit(&place->pool, pool, memory_order_relaxed);
}
