/*
 * The keeper's pools: slots that are lent to fronts, and the processes and runs behind them.
 *
 * A pool is one of
 *   - a FastCGI pool of ours (command = ...): a slot is a process, started here, replaced when it ends;
 *   - a CGI route: a slot is the right to have one program running, up to max_running;
 *   - a FastCGI pool of servers that run already: a slot is the right to one connection;
 *   - a script's own pool (command = $script), opened when it is first asked for.
 *
 * Pools outlive configurations. Each configuration is bound to pools when it comes: to those that are there already,
 * where nothing has changed that their processes would notice, and to new ones. A pool that no configuration is bound
 * to any more ends its processes. What a pool is called between keeper and fronts is its number, which a front learns
 * from the table that pools_bind() makes.
 *
 * What a front asks for is checked here: it can have run only what any client may have run.
 */
#ifndef GATEHOUSE_PROCESS_POOLS_H
#define GATEHOUSE_PROCESS_POOLS_H

#include <event2/event.h>
#include <stdbool.h>

#include "base/scoreboard.h"
#include "base/span.h"
#include "config.h"
#include "process/cgroup.h"
#include "process/lender.h"
#include "process/message.h"
#include "process/program.h"

enum { POOLS_MAX_SCRIPTS = 256 };

struct pools_options {
    struct event_base *base;
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
    /* New processes that were to be proven: all of the bound configuration's are, or (why not NULL) one is not. */
    void (*proven)(void *arg, const char *why);
    void *arg;
};

struct pools;

/* The pools of one configuration: its pools' numbers by their index, then its routes' by theirs. */
struct binding {
    const struct config *config; /* must live until pools_refer_to() it no more */
    unsigned *numbers;
};

static inline unsigned binding_of_pool(const struct binding *binding, const struct config_pool *pool)
{
    return binding->numbers[pool->index];
}

static inline unsigned binding_of_route(const struct binding *binding, const struct config_route *route)
{
    return binding->numbers[binding->config->n_pools + route->index];
}

struct pools *pools_create(const struct pools_options *options);
void pools_destroy(struct pools *pools);

/* Finds or makes the configuration's pools. Nothing is started yet, and those that were there go on as they are set
 * now. 0, or -1 after a message: the configuration asks for what cannot be had while the server runs. */
int pools_bind(struct pools *pools, const struct config *config, struct binding *binding_out);

/* Starts the first processes of its new pools, and has them proven: options.proven() says how that ends, now or later.
 * Before, the fronts that are to try them have come. */
void pools_prove(struct pools *pools, const struct binding *binding);

/* From now on the configuration holds: for the pools that were there already, too. */
void pools_commit(struct pools *pools, const struct binding *binding);

/* No front has this configuration any more, or ever will. Frees the numbers. */
void pools_unbind(struct pools *pools, struct binding *binding);

/* Is the configuration still in use here? */
bool pools_refer_to(const struct pools *pools, const struct config *config);

/* A front of the binding has come: it gets its share of what is free. only_new: of pools that are to be proven, and of
 * no others. */
void pools_front_came(struct pools *pools, unsigned front, const struct binding *binding, bool only_new);

/* It drains: it gets no more of anything than its requests wait for. */
void pools_front_leaves(struct pools *pools, unsigned front);

/* It is gone: its runs are ended, its loans are free again, those with a run once that has exited. */
void pools_front_left(struct pools *pools, unsigned front);

/* A message from a front. Takes over the descriptors. 0, or -EPROTO: it asks for what it may not; to be ended. */
int pools_receive(struct pools *pools, unsigned front, const struct message *message, const int *fds, unsigned n_fds);

/* Nothing is started or replaced from now on. */
void pools_stop(struct pools *pools);

#endif
