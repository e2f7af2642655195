/*
 * The gateway: answers an exchange with what a program run writes. It knows HTTP, status codes and timeouts, once, for
 * CGI and FastCGI alike; how the program runs is behind run.h.
 */
#ifndef GATEHOUSE_GATEWAY_GATEWAY_H
#define GATEHOUSE_GATEWAY_GATEWAY_H

#include <event2/event.h>

#include "base/places.h"
#include "gateway/run.h"
#include "http/exchange.h"
#include "site/open_files.h"
#include "site/route.h"

struct gateway_options {
    struct event_base *base;
    const char *temp_dir; /* for request bodies that are held and large; lives as long as the gateway */

    uint64_t max_temp; /* bytes of all such bodies */

    struct places *places; /* where requests in flight are shown; NULL: nowhere. Outlives the gateway */

    /* A local redirect (RFC 3875 section 6.2.2): answer the exchange with what is at this local path and query. The
     * text lives as long as the call. */
    void (*redirect)(void *arg, struct exchange *exchange, struct span location);

    /* An authorizer has allowed the request: answer it by the next route that matches, see exchange->permit. */
    void (*authorized)(void *arg, struct exchange *exchange);

    /* All is known of a request that a program was asked for: its line for the access log. */
    void (*log)(void *arg, const struct access_record *record);
    void *arg;
};

struct gateway;

/* From then on the process ignores SIGXFSZ: a file that must not grow is an error of the request. */
struct gateway *gateway_create(const struct gateway_options *options);
void gateway_destroy(struct gateway *gateway);

/* Answers with a run of the target's route. The target's spans live as long as the exchange. `data` is the file that a
 * filter gets, and released here; else NULL. */
void gateway_serve(struct gateway *gateway, struct exchange *exchange, const struct route_target *target,
                   struct runner *runner, struct open_file *data);

/* An exchange is over. Returns true when the gateway logs it, now or when the program's end is known. */
bool gateway_done(struct exchange *exchange);

#endif
