/*
 * A passage: one exchange and one run, connected. What gateway.c, which looks after both ends, input.c, which
 * brings the request's body to the program, and response.c and sendfile.c, which turn its output into the response,
 * share, and nobody else.
 */
#ifndef GATEHOUSE_GATEWAY_PASSAGE_H
#define GATEHOUSE_GATEWAY_PASSAGE_H

#include "gateway/gateway.h"
#include "gateway/metavars.h"
#include "gateway/nph.h"
#include "gateway/reply.h"
#include "gateway/spool.h"
#include "http/chunked.h"
#include "log.h"

struct gateway {
    struct gateway_options options;
    size_t held;            /* bytes of request bodies in memory, in all passages */
    uint64_t in_files;      /* ... and in files */
    struct reply reply;     /* for heads that come whole, which is nearly all */
    char room[SPOOL_PIECE]; /* for what is read from a spool and handed on at once */
};

struct passage {
    struct run_request request; /* first: what the run knows of us */
    struct gateway *gateway;
    struct exchange *exchange; /* NULL: it is over */
    struct run *run;           /* NULL: it has ended, or is not open yet */
    struct run *ended_run;     /* within up->ended: the same, for what it can still tell */
    struct runner *runner;
    const struct config_route *route;
    struct metavars vars; /* its spans live as long as the exchange */
    struct exchange_address remote, local;
    char id[EXCHANGE_ID_LEN + 1];
    int exit_code;          /* -1: not known */
    struct buffer filename; /* of what runs */
    struct open_file *data; /* of a filter; else NULL */
    struct event *timer;
    uint64_t granted_us;
    uint64_t last_sign_us; /* when the program last took or gave something */
    uint64_t stderr_bytes;
    struct spool input;   /* of the request's body: what the run has not taken yet */
    struct event *feeder; /* goes on with a long one; NULL: was never needed */
    struct buffer head;   /* of the response, while it is not whole */
    struct reply *reply;  /* of it, likewise */
    struct nph *nph;      /* the program writes the response itself; NULL: most do not */
    struct chunked *chunked;
    struct log_stream errors;
    uint64_t body_left; /* of the response, where its length is known */
    unsigned n_interim;
    struct {
        bool is_holding : 1;  /* the run is not open yet */
        bool input_done : 1;  /* all of the request's body has come */
        bool input_ended : 1; /* ... and the run was told so */
        bool wants_input : 1; /* the run's turn has come, and it takes input */
        bool input_full : 1;  /* ... but has enough for now */
        bool head_done : 1;
        bool has_permit : 1; /* an authorizer's head allows the request; its end is waited for */
        bool has_length : 1;
        bool has_excess : 1; /* the program writes more than that */
        bool is_paused : 1;  /* by us, because the client does not read */
        bool answered : 1;   /* the exchange has had our last word, and may still be sending it */
        bool must_log : 1;   /* the exchange is over, the record waits for the run's end */
        bool told_slow : 1;  /* it was, to the slow log */
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
void passage_fail(struct passage *p, unsigned status, const char *why); /* `why` is for the log, or empty */
void passage_stop_run(struct passage *p, bool at_once);
void passage_free(struct passage *p); /* the run is over, and the exchange is not ours any more */

/* For input.c. While it holds the body, its is the timer: input_pause(). */
void passage_open_run(struct passage *p);
void passage_call_in(struct passage *p, uint64_t us);
void passage_note_sign(struct passage *p); /* the program moves */

/* ---- response.c: only of an open passage ---- */

/* Output of the program; `more`: more, or the end, follows at once. */
void response_take(struct passage *p, struct span bytes, bool more);

/* There is no more output. */
void response_complete(struct passage *p);

#endif
