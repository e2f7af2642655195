/*
 * The keeper's pools: slots that are lent to fronts, and the processes and runs behind them.
 *
 * A pool is one of
 *   - a FastCGI pool of ours (command = ...): a slot is a process, started here, replaced when it ends;
 *   - a CGI route: a slot is the right to have one program running, up to max_running;
 *   - a FastCGI pool of servers that run already: a slot is the right to one connection;
 *   - a script's own pool (command = $script), opened when it is first asked for.
 * Their numbers, known to both sides: pools of the configuration by their index, then routes by theirs behind them,
 * then scripts in the order in which they were opened.
 *
 * What a front asks for is checked here: it can have run only what any client may have run.
 */
#ifndef GATEHOUSE_PROCESS_POOLS_H
#define GATEHOUSE_PROCESS_POOLS_H

#include <event2/event.h>
#include <stdbool.h>

#include "base/span.h"
#include "config.h"
#include "process/cgroup.h"
#include "process/lender.h"
#include "process/message.h"
#include "process/program.h"

enum { POOLS_MAX_SCRIPTS = 256 };

struct pools_options {
    struct event_base *base;
    const struct config *config;
    struct scoreboard *scoreboard;
    const char *socket_dir;
    struct programs *programs;
    struct cgroups *cgroups; /* NULL: no route has one */
    /* May a front give a program of the route this environment variable? */
    bool (*is_variable)(const struct config_route *route, struct span name);
    /* May a front have run this script of the route, if it is there? */
    bool (*may_run)(const struct config_route *route, struct span script);
    /* Sends to a front that is here; takes over the descriptors. */
    void (*send)(void *arg, unsigned front, const struct message *message, const int *fds, unsigned n_fds);
    void *arg;
};

struct pools;

static inline unsigned pools_number_of_route(const struct config *config, const struct config_route *route)
{
    return (unsigned)config->n_pools + route->index;
}

/* Makes the pools and starts nothing yet. */
struct pools *pools_create(const struct pools_options *options);
void pools_destroy(struct pools *pools);

/* Starts what the policies want at the start. */
void pools_start(struct pools *pools);

/* A front has come: it gets its share of all that is free. */
void pools_front_came(struct pools *pools, unsigned front);

/* It is gone: its runs are ended, its loans are free again, those with a run once that has exited. */
void pools_front_left(struct pools *pools, unsigned front);

/* A message from a front. Takes over the descriptors. 0, or -EPROTO: it asks for what it may not; to be ended. */
int pools_receive(struct pools *pools, unsigned front, const struct message *message, const int *fds, unsigned n_fds);

/* Nothing is started or replaced from now on. */
void pools_stop(struct pools *pools);

#endif
