/*
 * A passage: one exchange and one run, connected. What gateway.c, which looks after both ends, and response.c, which
 * turns the program's output into the response, share, and nobody else.
 */
#ifndef GATEHOUSE_GATEWAY_PASSAGE_H
#define GATEHOUSE_GATEWAY_PASSAGE_H

#include "gateway/gateway.h"
#include "gateway/metavars.h"
#include "gateway/reply.h"
#include "http/chunked.h"
#include "log.h"

struct gateway {
    struct gateway_options options;
    size_t held;        /* bytes of request bodies, in all passages */
    struct reply reply; /* for heads that come whole, which is nearly all */
};

struct passage {
    struct run_request request; /* first: what the run knows of us */
    struct gateway *gateway;
    struct exchange *exchange; /* NULL: it is over */
    struct run *run;           /* NULL: it has ended, or is not open yet */
    struct runner *runner;
    const struct config_route *route;
    struct metavars vars; /* its spans live as long as the exchange */
    struct exchange_address remote, local;
    char id[EXCHANGE_ID_LEN + 1];
    int exit_code;          /* -1: not known */
    struct buffer filename; /* of what runs */
    struct event *timer;
    uint64_t granted_us;
    uint64_t last_sign_us; /* when the program last took or gave something */
    uint64_t stderr_bytes;
    struct buffer held;  /* of the request's body, until input may be fed */
    struct buffer head;  /* of the response, while it is not whole */
    struct reply *reply; /* of it, likewise */
    struct chunked *chunked;
    struct log_stream errors;
    uint64_t body_left; /* of the response, where its length is known */
    unsigned n_interim;
    struct {
        bool is_holding : 1;    /* the run is not open yet */
        bool is_input_done : 1; /* with what is held */
        bool wants_input : 1;   /* the run's turn has come, and it takes input */
        bool head_done : 1;
        bool has_length : 1;
        bool is_paused : 1; /* by us, because the client does not read */
        bool answered : 1;  /* the exchange has had our last word, and may still be sending it */
        bool must_log : 1;  /* the exchange is over, the record waits for the run's end */
    } is;
    struct access_record record; /* with must_log: a copy, its texts in .texts */
    struct buffer texts;
};

/* ---- gateway.c ---- */

/* Is there still a response to give? */
static inline bool passage_is_open(const struct passage *p)
{
    return p->exchange != NULL && !p->is.answered;
}

/* Our last word: the exchange is ended or failed by the caller right after this. */
struct exchange *passage_let_go(struct passage *p);
void passage_fail(struct passage *p, unsigned status, const char *why); /* `why` is for the log */
void passage_stop_run(struct passage *p, bool at_once);

/* ---- response.c: only of an open passage ---- */

/* Output of the program; `more`: more, or the end, follows at once. */
void response_take(struct passage *p, struct span bytes, bool more);

/* There is no more output. */
void response_complete(struct passage *p);

#endif
