/*
 * A FastCGI pool as a front has it: processes on loan from the keeper, or connections to servers that run already; a
 * queue before them. Opens runs (gateway/run.h).
 */
#ifndef GATEHOUSE_FASTCGI_POOL_H
#define GATEHOUSE_FASTCGI_POOL_H

#include <event2/event.h>

#include "base/scoreboard.h"
#include "config.h"
#include "gateway/run.h"
#include "process/link.h"

struct fastcgi_options {
    struct event_base *base;
    struct link *link;
    struct scoreboard *scoreboard;
    struct seats *seats;  /* this front's; NULL: servers' connections are counted for this front alone */
    const char *resolver; /* who is asked for names: see config.h */
    unsigned front;       /* its number on the scoreboard */
    bool has_trace;       /* the records of each request are kept, for the error log if it fails */
};

struct fastcgi_pool;

/* The pool with that number. A script's own pool has none yet: FASTCGI_NO_NUMBER. */
struct fastcgi_pool *fastcgi_pool_create(const struct fastcgi_options *options, const struct config_pool *config,
                                         int number);
void fastcgi_pool_destroy(struct fastcgi_pool *pool);
struct runner *fastcgi_pool_runner(struct fastcgi_pool *pool);

enum { FASTCGI_NO_NUMBER = -1 };

/* The keeper has told the number of a script's pool. */
void fastcgi_pool_number(struct fastcgi_pool *pool, unsigned number);

/* No run can be served for now, because `why`: those that wait end with the cause. */
void fastcgi_pool_fail(struct fastcgi_pool *pool, enum run_cause cause, const char *why);

/* The front drains: processes and slots that no request waits for go back to the keeper, from now on at once. */
void fastcgi_pool_yield(struct fastcgi_pool *pool);

/* It may be tried again. */
void fastcgi_pool_revive(struct fastcgi_pool *pool);

#endif
