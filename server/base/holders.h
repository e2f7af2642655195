/*
 * What holds the processes of a pool: a text for the error log and the status page, from the scoreboard. It is told
 * when requests are refused because the pool is full, or have waited in vain.
 *
 *     pool php: full: 4 of 4 processes busy, 256 waiting: pid 123 GET /slow.php 5.2 s first from 10.0.0.1; pid ...
 */
#ifndef GATEHOUSE_BASE_HOLDERS_H
#define GATEHOUSE_BASE_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/scoreboard.h"

enum {
    HOLDERS_MOST = 64,    /* are named; the others are counted */
    HOLDERS_ROOM = 3500,  /* bytes of a text for the log */
    HOLDERS_PAUSE_S = 10, /* between two lines of one pool */
};

/*
 * Appends "4 of 4 processes busy, 256 waiting: pid 123 GET /slow.php 5.2 s first from 10.0.0.1; pid ...": at most
 * `room` bytes, the longest at it first; of the rest only how many there are. The age is the request's since its head
 * was complete, the phase one of access.h. Processes of the pool that have no request in flight are named behind: one
 * that ends, one that works on for a client that has left, one that another front is about to use or to give back.
 * The scoreboard's texts may hold any bytes: what is no printable ASCII becomes %XX, and long URIs are cut.
 */
void holders_describe(const struct scoreboard *scoreboard, unsigned pool, uint64_t now_us, size_t room,
                      struct buffer *to);

/* One front's view of one pool of slots. Without a scoreboard, nothing is ever said. */
struct holders {
    struct scoreboard *scoreboard;
    unsigned pool;        /* its number */
    unsigned front;       /* whose view it is */
    const char *what;     /* "pool" or "route" */
    const char *name;     /* lives as long as this */
    uint64_t full_due_us; /* clock_us(): when this front may tell again; zero at first, as all below */
    uint64_t expired_due_us;
    uint32_t writer; /* the version that another front was seen to leave odd */
    struct buffer text;
};

/* Is there no place for one more to wait, when `own` requests wait at this front and `limit` may at all? Over all
 * fronts; those that wait for what is idle at another front, or can be started, take no place. Fronts that add at the
 * same instant may not see each other. Without a scoreboard, this front's count. */
bool holders_is_full(const struct holders *holders, unsigned own, unsigned limit);

/* A request is refused, because the queue is full. Returns the line for the error log, which lives until the next call,
 * or NULL when a front has told of this pool within HOLDERS_PAUSE_S. What it tells is left on the scoreboard too, as
 * the pool's last saturation. */
const char *holders_full(struct holders *holders);

/* A request has waited for the whole queue_timeout: the same, but for each front by itself, and not left on the
 * scoreboard. */
const char *holders_expired(struct holders *holders, uint64_t timeout_ms);

void holders_finish(struct holders *holders);

#endif
