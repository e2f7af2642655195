#include "base/seats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/scoreboard.h"

struct seats {
    struct seat_board *board;
    struct seat_row *own;
    unsigned front;
};

static void empty(struct seat_row *row)
{
    memset((char *)row + sizeof row->key, 0, sizeof *row - sizeof row->key);
}

struct seats *seats_create(struct seat_board *board, unsigned front)
{
    struct seats *seats = memory_zeroed(1, sizeof *seats);

    *seats = (struct seats){board, board->rows[front], front};
    for (unsigned i = 0; i < SEAT_ROWS; i++) {
        if (atomic_load(&seats->own[i].key) == 0)
            continue;
        atomic_store(&seats->own[i].key, 0);
        empty(&seats->own[i]);
    }
    atomic_store(&board->fronts[front], (int32_t)getpid());
    return seats;
}

void seats_destroy(struct seats *seats)
{
    if (seats == NULL)
        return;
    atomic_store(&seats->board->fronts[seats->front], 0);
    free(seats);
}

/* ---- rows: each is where its key says, or behind that ---- */

static struct seat_row *find(struct seat_row *rows, uint64_t key)
{
    for (unsigned i = 0; i < SEAT_ROWS; i++) {
        struct seat_row *row = &rows[(key + i) % SEAT_ROWS];
        uint64_t there = atomic_load(&row->key);

        if (there == key)
            return row;
        if (there == 0)
            return NULL;
    }
    return NULL;
}

static struct seat_row *find_free(struct seat_row *rows, uint64_t key)
{
    for (unsigned i = 0; i < SEAT_ROWS; i++) {
        struct seat_row *row = &rows[(key + i) % SEAT_ROWS];
        uint64_t there = atomic_load(&row->key);

        if (there == 0 || there == SEAT_NOBODY)
            return row;
    }
    return NULL;
}

struct seat_row *seats_add(struct seats *seats, uint64_t key, unsigned pool, const char *address)
{
    struct seat_row *row = find(seats->own, key);

    if (row != NULL)
        return row;
    row = find_free(seats->own, key);
    if (row == NULL)
        return NULL;
    empty(row);
    scoreboard_open(&row->version);
    snprintf(row->address, sizeof row->address, "%s", address);
    scoreboard_close(&row->version);
    atomic_store(&row->pool, pool);
    atomic_store(&row->key, key);
    return row;
}

void seats_remove(struct seat_row *row)
{
    atomic_store(&row->key, SEAT_NOBODY);
}

/* ---- connections ---- */

static unsigned sum(const struct seats *seats, uint64_t key)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SEAT_FRONTS; i++) {
        const struct seat_row *row =
            atomic_load(&seats->board->fronts[i]) != 0 ? find(seats->board->rows[i], key) : NULL;
        if (row != NULL)
            n += atomic_load(&row->n_connections);
    }
    return n;
}

bool seats_enter(struct seats *seats, struct seat_row *row, unsigned most)
{
    atomic_fetch_add(&row->n_connections, 1);
    if (sum(seats, atomic_load(&row->key)) <= most)
        return true;
    seats_leave(row);
    return false;
}

void seats_leave(struct seat_row *row)
{
    atomic_fetch_sub(&row->n_connections, 1);
}

static void add_front(struct seats_others *others, const struct seat_row *row)
{
    unsigned n = atomic_load(&row->n_connections);
    uint64_t asked_us = atomic_load(&row->asked_us), told_us = atomic_load(&row->told_us);

    others->n_connections += n;
    others->n_idle += atomic_load(&row->n_idle);
    if (atomic_load(&row->is_awaited) != 0) {
        others->least = others->n_awaited == 0 || n < others->least ? n : others->least;
        others->n_awaited++;
    }
    if (asked_us > others->asked_us)
        others->asked_us = asked_us;
    if (told_us > others->told_us) {
        others->told_us = told_us;
        others->health = (enum seat_health)atomic_load(&row->health);
    }
}

struct seats_others seats_look(const struct seats *seats, const struct seat_row *row)
{
    struct seats_others others = {0};
    uint64_t key = atomic_load(&row->key);

    for (unsigned i = 0; i < SEAT_FRONTS; i++) {
        if (i == seats->front || atomic_load(&seats->board->fronts[i]) == 0)
            continue;
        const struct seat_row *theirs = find(seats->board->rows[i], key);
        if (theirs == NULL)
            continue;
        others.has_lower |= i < seats->front;
        add_front(&others, theirs);
    }
    return others;
}

bool seats_is_first(const struct seats *seats)
{
    for (unsigned i = 0; i < seats->front; i++)
        if (atomic_load(&seats->board->fronts[i]) != 0)
            return false;
    return true;
}

void seats_note(struct seat_row *row, enum seat_state state, uint64_t now_us, const char *why)
{
    if (atomic_load(&row->state) != state)
        atomic_store(&row->since_us, now_us);
    atomic_store(&row->state, state);
    if (why == NULL)
        return;
    scoreboard_open(&row->version);
    snprintf(row->why, sizeof row->why, "%s", why);
    scoreboard_close(&row->version);
}
