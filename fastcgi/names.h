/*
 * The addresses that a host name, or the SRV records of a name (RFC 2782), stand for: looked up by c-ares without ever
 * blocking the loop, and looked up again when their time to live is over. The system's hosts file comes first.
 */
#ifndef GATEHOUSE_FASTCGI_NAMES_H
#define GATEHOUSE_FASTCGI_NAMES_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    NAMES_MOST = 64,           /* addresses of one name; what is beyond is passed over */
    NAMES_TTL_MIN_MS = 1000,   /* bounds of the time to live */
    NAMES_TTL_MAX_MS = 300000, /* ... */
    NAMES_LOCAL_MS = 10000,    /* what the hosts file says is looked at again after so long */
    NAMES_RETRY_MS = 1000,     /* after a failure; then twice as long each time */
    NAMES_RETRY_MAX_MS = 30000,
    NAMES_TIMEOUT_MS = 1000, /* of the first of NAMES_TRIES questions to a resolver */
    NAMES_TRIES = 3,
};

struct names_address {
    struct sockaddr_storage address; /* with its port */
    socklen_t len;
    unsigned level;  /* of SRV: 0 for the records of the best priority, 1 for the next, ... */
    unsigned weight; /* of SRV, at least 1; else 0 */
};

struct names_options {
    struct event_base *base;
    const char *resolver; /* "127.0.0.1:53,[::1]:53"; NULL: as the system's resolv.conf says */
    const char *name;
    bool is_srv;
    unsigned port; /* of a host */
    /* Each time that the name was looked up well, in any order, n > 0; or when it could not be. From the loop. */
    void (*found)(void *arg, const struct names_address *at, size_t n);
    void (*failed)(void *arg, const char *why);
    void *arg;
};

struct names;

/* Begins to look it up, when the loop runs. The texts live as long as it does. */
struct names *names_create(const struct names_options *options);
void names_destroy(struct names *names);

/* The smallest time to live, in seconds, of the records that answer in a DNS message, which is hostile; -1: it is
 * malformed, or there is none. Pure. */
int64_t names_ttl(const unsigned char *message, size_t len);

#endif
