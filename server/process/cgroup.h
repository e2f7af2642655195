/*
 * Control groups (cgroup v2) of the CGI routes that ask for a limit of memory, processes or processor time: all its
 * programs that run at the same time share it, with whatever they start.
 *
 * Below the group in which the server was started, which must be its own to divide:
 *
 *     gatehouse-PID/          PID: the keeper's
 *         server/             keeper, fronts, warden, and programs of other routes: processes may only be in leaves
 *         route-N/            N: the route's index
 *
 * The keeper makes them before any other process; the warden removes them after the keeper's end, whatever its cause,
 * and ends who is left in them then.
 */
#ifndef GATEHOUSE_PROCESS_CGROUP_H
#define GATEHOUSE_PROCESS_CGROUP_H

#include "config.h"

struct cgroups;

/* Makes the groups and moves this process into "server". 0, *cgroups_out NULL when no route asks for one; or -1 after a
 * message that names the cause and the cure, with nothing left behind. */
int cgroups_create(const struct config *config, struct cgroups **cgroups_out);

/* `route`: its index in the configuration that the server was started with, or UINT_MAX. */

/* A descriptor that puts into the route's group whoever writes "0" to it; 0: it has none. cgroups may be NULL. */
int cgroups_entrance(const struct cgroups *cgroups, unsigned route);

/* How many processes of the route were killed for the group's want of memory since this was last asked. */
unsigned cgroups_memory_kills(struct cgroups *cgroups, unsigned route);

/* Kills who is left in the routes' groups, moves the server's own processes back to where they came from, and removes
 * the groups. Needs no descriptor that was open before. Blocks until all are gone, for some seconds at most. */
void cgroups_remove(const struct cgroups *cgroups);

/* Gives the memory and the descriptors back. */
void cgroups_free(struct cgroups *cgroups);

#endif
