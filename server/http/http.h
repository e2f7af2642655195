/*
 * HTTP on a front's event loop: accepts connections, reads requests, gives each to the service, sends what its handler
 * answers. Made once for each front.
 */
#ifndef GATEHOUSE_HTTP_HTTP_H
#define GATEHOUSE_HTTP_HTTP_H

#include <event2/event.h>

#include "base/clients.h"
#include "base/counters.h"
#include "http/chunked.h"
#include "http/exchange.h"
#include "http/head.h"

struct http_options {
    struct event_base *base;
    struct head_limits head;
    struct chunked_limits chunked;
    uint64_t max_body;
    unsigned max_connections;      /* at once; for one more, the one idle for longest gives way, or it waits */
    struct clients *clients;       /* who may have one more; who may not is answered 429. NULL: all may. Not owned */
    uint64_t header_timeout_us;    /* for the whole head */
    uint64_t body_timeout_us;      /* of silence, where bytes are due from the client, or it does not take ours */
    uint64_t min_rate;             /* bytes a second, in either direction; slower, body_timeout runs. 0: none */
    uint64_t keepalive_timeout_us; /* between requests */
    unsigned keepalive_requests;   /* on one connection */
    bool server_timing;

    /* A request's head is complete: the service must call exchange_handle() or answer at once. */
    void (*request)(void *arg, struct exchange *exchange);

    /* An exchange without a place lasts: its answer is not there, or not sent, when .request has returned. NULL: nobody
     * wants to know. */
    void (*lasts)(void *arg, struct exchange *exchange);

    /* An exchange is over, for the log. The record is complete but for what only the service knows. */
    void (*done)(void *arg, struct exchange *exchange);

    /* Appends the body of an error page, and returns its Content-Type. The exchange is the one that fails. */
    struct span (*error_page)(void *arg, const struct exchange *exchange, struct buffer *to, unsigned status);

    /* A line for the log about a connection: why a request was refused. */
    void (*refused)(void *arg, const char *remote_addr, unsigned status, const char *why);
    void *arg;
    struct counters *counters; /* written here, read by others */
};

struct http;

struct http *http_create(const struct http_options *options);

/* Accepts on a listening socket from now on; the descriptor stays the caller's. */
void http_listen(struct http *http, int fd);

/* Accepts no more, closes what is idle, lets the rest finish their current response; calls back when no connection is
 * left: at once if there is none. `gently`: what is idle, and was told that it is kept, may bring one more request,
 * which may be on its way; it is told then that it is the last. After `limit_us`, if not 0, what is left is cut. */
void http_drain(struct http *http, uint64_t limit_us, bool gently, void (*drained)(void *arg), void *arg);

void http_destroy(struct http *http);

/* The standard phrase of a status: "Not Found"; "Unknown" of one that has none. */
const char *http_reason(unsigned status);

#endif
