/*
 * Pools of scripts (command = $script): each script that a route finds has processes of its own. A pool is made when
 * its script is first asked for; the keeper checks the script and tells the pool's number.
 */
#ifndef GATEHOUSE_FASTCGI_SCRIPTS_H
#define GATEHOUSE_FASTCGI_SCRIPTS_H

#include "base/span.h"
#include "fastcgi/pool.h"

struct scripts;

/* For one route; `number` is the route's, by which the keeper knows it. */
struct scripts *scripts_create(const struct fastcgi_options *options, const struct config_route *route,
                               unsigned number);
void scripts_destroy(struct scripts *scripts);

/* The runner of the script at that path, relative to the route's directory. NULL: there are too many already. */
struct runner *scripts_runner(struct scripts *scripts, struct span path);

/* The front drains: what is not needed goes back. */
void scripts_yield(struct scripts *scripts);

#endif
