/*
 * A run: one program run in the sense of CGI/1.1, whoever runs it. cgi/ fills it with a child and pipes, fastcgi/ with
 * records on a lent process's socket; the gateway, which uses it, knows HTTP, status codes and timeouts. Neither side
 * asks which kind the other is.
 *
 *     open --> (waiting) --granted--> output, errors, drained ... --complete--> ended
 *                  \________________________________________________________/
 *                       stop: no more output; ended still follows
 *
 * Upcalls never come from within open or stop. An upcall is the last statement of the function that makes it, since the
 * gateway may stop the run in it. `ended` comes exactly once, always last; the run is gone after it.
 */
#ifndef GATEHOUSE_GATEWAY_RUN_H
#define GATEHOUSE_GATEWAY_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/account.h"
#include "base/span.h"
#include "config.h"

enum { RUN_VARIABLE = 65000 }; /* bytes: the longest variable, name and value, that every kind of run can be given */

enum run_cause {
    RUN_COMPLETE,      /* it ended by itself and all its output was given */
    RUN_STOPPED,       /* as it was told to */
    RUN_CRASHED,       /* it ended before its output was whole, or does not speak its protocol */
    RUN_OVERLOADED,    /* it says that it cannot take one more */
    RUN_QUEUE_FULL,    /* never began: too many waited already */
    RUN_QUEUE_TIMEOUT, /* ... : waited too long */
    RUN_DOWN,          /* ... : nothing runs that could serve it */
    RUN_MISSING,       /* ... : there is no such script */
    RUN_FORBIDDEN,     /* ... : it may not be run */
    RUN_BROKEN,        /* ... : it could not be started, or reached */
    RUN_TIMEOUT,       /* ... : nobody could be reached in time */
};

/* Why and how a run ended. */
struct run_result {
    enum run_cause cause;
    const char *why;      /* for the log; empty: nothing is to be logged; never NULL; lives as long as the call */
    int exit_code;        /* CGI's, or FastCGI's appStatus; -1: not known */
    int signal;           /* that ended the program; 0: none */
    uint64_t cpu_us;      /* UINT64_MAX: not known */
    uint64_t max_rss_kib; /* likewise; known of a process that has ended with its run */
};

typedef void run_emit(void *arg, struct span name, struct span value);

/* What is to be run. Lives until the run has ended. */
struct run_request {
    void (*each_variable)(const struct run_request *request, run_emit *emit, void *arg);
    struct span script; /* as the route found it, relative to the route's directory; may be empty */
    struct span id;     /* of the request: for tags */
    uint64_t affinity;  /* requests of one client, or with one cookie, have the same; where the pool goes by that */
    bool has_input;     /* a request body will be fed; without it, standard input is at its end from the start */
    enum route_role role;
    int data_fd;          /* of a filter: the file that it gets; the requester's to close, after the run's end */
    uint64_t data_length; /* of it, in bytes */
    struct scoreboard_request *place; /* where it is told who serves the run, and what is waited for; NULL: nowhere */
};

struct run;

struct run_up {
    void (*granted)(void *arg);                              /* its turn has come: input may be fed */
    void (*output)(void *arg, struct span bytes, bool more); /* `more`: more, or the end, follows at once */
    void (*errors)(void *arg, struct span bytes);            /* what it writes to its standard error */
    void (*drained)(void *arg);                              /* there is room for input again */
    void (*complete)(void *arg);                             /* all output was given; the end may take its time */
    void (*ended)(void *arg, const struct run_result *result);
};

struct run_down {
    /* Takes all the bytes; `last`: there is no more input. Returns true for "enough", until up->drained. */
    bool (*feed)(struct run *run, struct span bytes, bool last);
    void (*pause)(struct run *run); /* no output for now */
    void (*resume)(struct run *run);
    /* Its output is wanted no more. at_once: the program has had its time; else it may come to an end by itself soon.
     * */
    void (*stop)(struct run *run, bool at_once);
    /* The request has failed: writes to the error log what went to and fro, if that was recorded. Before stop, or
     * within up->ended. NULL: nothing is ever recorded. */
    void (*explain)(struct run *run);
    /* It has taken request_slowlog_timeout: `line` tells of its request, for the slow log. NULL: there is none. */
    void (*slow)(struct run *run, struct span line);
};

/* Embedded, first, in what cgi/ and fastcgi/ make of it. */
struct run {
    const struct run_down *down;
    const struct run_up *up;
    void *arg; /* of the upcalls */
    const struct run_request *request;
    bool is_granted;
    long pid;            /* 0: not known (yet) */
    uint64_t granted_us; /* clock_us() when its turn came */
    uint64_t started_us; /* ... when the program was started, or the connection stood; 0: not yet */
    unsigned retries;
};

/* Opens runs of one kind in one place: a CGI route's, a FastCGI pool's. */
struct runner {
    /* Returns NULL, with the cause and a text that lives until the next call, when it cannot even wait. Otherwise
     * run->is_granted says whether its turn has come already: then there is no upcall for it. */
    struct run *(*open)(struct runner *runner, const struct run_request *request, const struct run_up *up, void *arg,
                        struct run_result *refusal_out);
    struct account *account; /* of the place; the requester counts there what becomes of its requests */
};

#endif
