/*
 * The slow log: one line for each request that has had its process for longer than request_slowlog_timeout, with what
 * the kernel says of that process, which goes on meanwhile. It goes to the pool's `slowlog`, or to the error log.
 *
 *     2026-11-23T06:00:00.123Z pool php, process 4711 | 5f0c... GET /a.php from 10.0.0.1, ... 2.001 s, first | state S
 *     (sleeping), syscall 230 clock_nanosleep, ...; cpu 0.12 s user, 0.03 s system, 0 ms of the last 100 ms
 *
 * The part in the middle is the front's, and is taken for hostile: whatever it holds, it stays within its bars.
 *
 * Of the keeper, which alone may look at what programs do. Nothing here blocks: what is read is the kernel's and
 * bounded; a line is written when the processor time of the next 100 ms is known. The process has one slow log, as it
 * has one error log.
 */
#ifndef GATEHOUSE_PROCESS_SLOWLOG_H
#define GATEHOUSE_PROCESS_SLOWLOG_H

#include <event2/event.h>
#include <sys/types.h>

#include "base/span.h"
#include "config.h"

enum {
    SLOWLOG_RATE = 10,      /* lines of one pool within a second; others are counted, and the count is written */
    SLOWLOG_PENDING = 64,   /* lines of all pools that wait for their 100 ms; what is beyond is counted, too */
    SLOWLOG_REQUEST = 1500, /* bytes of the front's part */
};

/* A request of the pool is slow: `request` tells of it, any bytes. `pid`: the process that serves it, one of ours and
 * not yet waited for; 0: a server's, of which there is nothing to be known. The log is opened when it is first needed:
 * created with mode 0640, never through a symbolic link; an error is said once. */
void slowlog_add(struct event_base *base, const struct config_pool *pool, pid_t pid, struct span request);

/* The logs are opened anew, when they are next needed: USR1, and after a reload. */
void slowlog_reopen(void);

/* Writes what is pending as it is, and forgets all: before the event base is. */
void slowlog_finish(void);

#endif
