/*
 * What an application offers (FastCGI specification section 4.1): asked on a connection of its own, which is closed
 * afterwards, because some applications (PHP) close the connection that they were asked on.
 */
#ifndef GATEHOUSE_FASTCGI_VALUES_H
#define GATEHOUSE_FASTCGI_VALUES_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "base/span.h"

enum { VALUES_TIMEOUT_MS = 1000 };

/* 0: it did not say. */
struct values {
    unsigned max_conns, max_reqs;
    bool multiplexes; /* FCGI_MPXS_CONNS is 1 */
};

struct values_query;

/* Called once, from the loop. values is NULL when there was no answer. The query is gone after it. */
typedef void values_answered(void *arg, const struct values *values);

/* Returns NULL when no connection can be made. */
struct values_query *values_ask(struct event_base *base, const struct sockaddr *address, socklen_t len,
                                values_answered *answered, void *arg);

/* There will be no answer. NULL is harmless. */
void values_cancel(struct values_query *query);

/* Reads the content of a GET_VALUES_RESULT, which is hostile. False: it is malformed. Pure. */
bool values_read(struct span content, struct values *out);

#endif
