/*
 * The status pages: what is below the prefix `status` of [server]. A front answers them itself, from the scoreboard, so
 * they work when every process is busy; nothing blocks, and memory is bounded.
 *
 *     PREFIX               a page for people
 *     PREFIXstatus.json    the server, its pools, their processes
 *     PREFIXrequests.json  every request in flight
 *     PREFIXmetrics        OpenMetrics
 *     PREFIXhealthz        200 as long as the server runs
 *     PREFIXreadyz         200 when every pool can serve, else 503
 *     PREFIXevents         text/event-stream: the page's parts, once a second
 *
 * Clients of the loopback addresses and of unix sockets may see them, and those that `status_allow` names; others get
 * 403. What a client is, is told by its connection alone.
 */
#ifndef GATEHOUSE_SITE_STATUS_H
#define GATEHOUSE_SITE_STATUS_H

#include <event2/event.h>
#include <stdbool.h>

#include "base/scoreboard.h"
#include "config.h"
#include "http/exchange.h"

struct status_options {
    struct event_base *base;
    const struct config *config; /* outlives it, as the scoreboard does */
    const struct scoreboard *scoreboard;
    unsigned front;
    unsigned *numbers; /* of the configuration's routes on the scoreboard, by index; copied */
};

struct status;

struct status *status_create(const struct status_options *options);
void status_destroy(struct status *status); /* NULL: nothing */

/* Is the exchange for a status page? Then it is answered. NULL: they are off. */
bool status_answers(struct status *status, struct exchange *exchange);

/* The front ends soon: those who watch are told so. NULL: they are off. */
void status_drain(struct status *status);

/* May who is connected from there see them? Pure. */
struct peer_address;
bool status_may_see(const struct config_networks *allowed, const struct peer_address *client);

#endif
