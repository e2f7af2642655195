/*
 * CGI/1.1 runs (RFC 3875) of one route: a child for each, started by the keeper, with pipes for its standard input,
 * output and error. At most max_running at once over all fronts; the others wait here.
 */
#ifndef GATEHOUSE_CGI_CGI_H
#define GATEHOUSE_CGI_CGI_H

#include <event2/event.h>

#include "base/scoreboard.h"
#include "config.h"
#include "gateway/run.h"
#include "process/link.h"

struct cgi_options {
    struct event_base *base;
    struct link *link;
    struct scoreboard *scoreboard;
    unsigned front; /* its number on the scoreboard */
    const struct config_route *route;
    unsigned number; /* of its pool of slots */
};

struct cgi;

struct cgi *cgi_create(const struct cgi_options *options);
void cgi_destroy(struct cgi *cgi);
struct runner *cgi_runner(struct cgi *cgi);

/* The front drains: slots that no request waits for go back to the keeper, from now on at once. */
void cgi_yield(struct cgi *cgi);

#endif
