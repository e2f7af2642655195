/*
 * The service of the whole-connection target: answers each request in the way that its path names (see service.c), and
 * keeps an account of each exchange, for the oracle.
 */
#ifndef GATEHOUSE_FUZZ_SERVICE_H
#define GATEHOUSE_FUZZ_SERVICE_H

#include <event2/event_struct.h>

#include "base/buffer.h"
#include "base/counters.h"
#include "http/http.h"

/* Tells what does not hold, and aborts. Evaluated in every build. */
#define require(condition) ((condition) ? (void)0 : service_complain(__FILE__, __LINE__, #condition))
void service_complain(const char *file, int line, const char *condition) __attribute__((noreturn));

/* How an answer comes about. */
struct variant;

/* Of one exchange, in the order in which they began. */
struct account {
    struct service *service;
    struct exchange *exchange; /* NULL: over */
    const struct variant *variant;
    size_t number;
    bool is_begun;         /* the service was asked; else the request was refused before */
    bool is_aborted;       /* the service was sent away */
    bool is_answered;      /* the service has spoken its last word */
    bool is_cut;           /* ... and that was to break the answer off */
    bool has_body;         /* the request comes with one */
    bool is_whole;         /* ... which the service has read to its end */
    bool is_head;          /* no body may come back */
    bool expects_continue; /* 100 may come before the answer */
    unsigned minor;
    unsigned status;       /* of the answer, as it was reported; 0: there was none */
    struct buffer request; /* the request's head as the service saw it */
    struct buffer said;    /* the answer's body */
    uint64_t body_len;     /* of the request */
    uint64_t body_hash;
    size_t written;
};

struct service {
    uint64_t max_body;
    int wake_fd;
    struct event wake;
    struct account *waiting; /* to be woken; NULL: none */
    unsigned n_rounds;       /* until then */
    struct account **accounts;
    size_t n_accounts;
    unsigned n_open;  /* exchanges that began and are not over */
    unsigned n_files; /* lent, and not given back */
    unsigned n_refused;
    struct counters counters;
};

/* Sets the callbacks of the options, which are then good for http_create(). */
void service_init(struct service *service, struct http_options *options);
void service_free(struct service *service);

/* Does it read the request's body, all of it? Without that, what comes behind the answer depends on when the body has
 * come; for the second, so does the answer itself. */
bool service_ignores_body(const struct account *account);
bool service_answers_early(const struct account *account);

/* Is the length of its answers told, or known in time? */
bool service_tells_length(const struct account *account);

/* May an answer without body or number come from the service: an error page? */
bool service_fails(const struct account *account);

#endif
