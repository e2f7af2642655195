/*
 * One exchange: a request, and the response to it. This is what a handler sees of HTTP.
 *
 * A request whose head is complete is given to the service (see http.h), which picks a handler by exchange_handle().
 * The handler pushes the response: exchange_begin(), fields, then exchange_write() or exchange_file(), then
 * exchange_end(); or exchange_fail() at any time. Framing - Content-Length, chunks, close; HEAD, 204 and 304 - is done
 * here, as is keeping the connection.
 *
 * The request's body is not read until the handler says exchange_want_body(): that answers Expect: 100-continue too.
 * Then .body is called with piece after piece. A handler must take each piece whole; when it has enough for now it
 * returns true, and no more comes until it calls exchange_want_body() again.
 *
 * Both lanes know "full" and "gone" and nothing else. exchange_write() returns true when the client does not take more
 * for now: the handler should stop its source; .resume is called when there is room. The client's leaving is .abort.
 *
 * exchange_end(), exchange_fail() and .abort are each the last word: the exchange is not to be touched afterwards, and
 * no callback comes. A handler may call any function here from any callback but .abort.
 */
#ifndef GATEHOUSE_HTTP_EXCHANGE_H
#define GATEHOUSE_HTTP_EXCHANGE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "access.h"
#include "base/scoreboard.h"
#include "base/span.h"
#include "http/head.h"
#include "http/uri.h"

struct exchange;
struct permit;

struct handler {
    /* A piece of the request's body; `last`: there is no more (the piece may be empty). Returns true for "enough". */
    bool (*body)(struct exchange *exchange, struct span bytes, bool last);
    void (*resume)(struct exchange *exchange);
    void (*abort)(struct exchange *exchange);
};

enum { EXCHANGE_ID_LEN = 16 };

/* Read by handlers, written by connection.c and exchange.c. */
struct exchange {
    struct connection *connection;
    struct head head; /* its spans live as long as the exchange */
    struct uri uri;
    char id[EXCHANGE_ID_LEN + 1]; /* REQUEST_ID */
    uint64_t started_us;          /* head complete; clock_us() */
    uint64_t body_bytes;          /* of the request, received so far */
    bool has_body;                /* the request comes with one */
    struct access_record record;  /* handlers fill in what they know: route, gateway, pool, pid, phases... */
    const struct handler *handler;
    void *data;                       /* the handler's */
    struct scoreboard_request *place; /* the service's: where it is told how much was sent; NULL: nowhere */
    void *origin;                     /* the service's: who is to know of the exchange's end, whoever answers it */
    unsigned n_redirects;             /* local ones so far */
    struct permit *permit;            /* the gateway's: what authorizers have granted; NULL: nothing */

    /* Private from here on. */
    struct buffer bytes;    /* the request's head as received */
    struct buffer path;     /* its path, decoded */
    struct buffer resolved; /* the service's: what the path stands for */
    struct buffer head_out; /* the response's head */
    struct buffer held;     /* body bytes written before the head went out, in the hope to learn the length */
    unsigned status;
    uint64_t bytes_out;
    uint64_t length;  /* of the response's body, as said */
    uint64_t written; /* of it */
    struct {
        bool begun : 1;     /* a status line is in the buffer */
        bool head_sent : 1; /* ... and the head is closed */
        bool ended : 1;     /* nothing more will be written */
        bool has_length : 1;
        bool is_chunked : 1;
        bool no_body : 1;        /* HEAD, 204, 304: what is written is dropped */
        bool asked_for_body : 1; /* by exchange_want_body(), ever: 100 (Continue) is due no longer */
        bool wants_body : 1;     /* ... and has not said "enough" since */
        bool body_done : 1;      /* all of the request's body has been received */
        bool body_lost : 1;      /* what follows cannot be told from the body, which was refused or is nonsense */
        bool is_cut : 1;         /* the response ends visibly incomplete */
    } is;
    struct field fields[]; /* the request's; room for max_fields */
};

/* Who answers from now on. */
void exchange_handle(struct exchange *exchange, const struct handler *handler, void *data);

/* Begins the response: status line, Date, Server, X-Request-Id. reason empty: the standard phrase. A response that was
 * begun but not sent is dropped, so that another can take its place. */
void exchange_begin(struct exchange *exchange, unsigned status, struct span reason);

/*
 * The handler writes a whole message, head and all (RFC 3875 section 5): from now on every byte goes to the client as
 * it is, none is added, and the connection ends with the exchange. `status` is what the message says, for the log
 * alone; it may be told again when the first was an interim one.
 */
void exchange_begin_raw(struct exchange *exchange, unsigned status);

/* A field of the response, in the order of the calls. The caller vouches for the bytes. Not for framing fields. */
void exchange_field(struct exchange *exchange, struct span name, struct span value);
void exchange_fieldf(struct exchange *exchange, struct span name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* How long the body will be. Without it, it is framed in chunks, unless all of it is there before the head must go. */
void exchange_length(struct exchange *exchange, uint64_t length);

/* The whole response: `status` (204 to OPTIONS, 405 to a method that is not allowed), and the methods that are: the
 * last word. */
void exchange_allow(struct exchange *exchange, unsigned status, struct span methods);

/* A piece of the body. `more`: another piece, or the end, follows at once. Returns true for "full". What exceeds the
 * announced length is dropped. */
bool exchange_write(struct exchange *exchange, struct span bytes, bool more);

/*
 * The body is `length` bytes of a file from `offset` on, and its end is the response's: the last word. `release` is
 * called with `arg` when the descriptor is no longer needed, also when the client goes away.
 */
void exchange_file(struct exchange *exchange, int fd, uint64_t offset, uint64_t length, void (*release)(void *arg),
                   void *arg);

/* A piece of the body out of a file: like exchange_write(), of a response whose length was told. The descriptor must
 * stay open until the piece is sent: until .resume when this returns true. */
bool exchange_write_file(struct exchange *exchange, int fd, uint64_t offset, uint64_t length);

/* The response is complete. Less than the announced length: it is cut. */
void exchange_end(struct exchange *exchange);

/* An interim response (1xx): sent at once if none of the final one was. Fields as "Name: value CR LF" lines. */
void exchange_interim(struct exchange *exchange, unsigned status, struct span fields);

/*
 * The response cannot be given: an error page with that status when nothing was sent yet, else a visible cut (the last
 * chunk never comes, the length is never reached, the connection is closed). retry_after in seconds; 0: no such field.
 */
void exchange_fail(struct exchange *exchange, unsigned status, unsigned retry_after);

/* The same with a field that goes with that status: Content-Range with 416. */
void exchange_fail_with(struct exchange *exchange, unsigned status, struct span name, struct span value);

/* Has any of the final response been sent? After that exchange_fail() can only cut. */
static inline bool exchange_is_sent(const struct exchange *exchange)
{
    return exchange->is.head_sent;
}

static inline bool exchange_body_is_done(const struct exchange *exchange)
{
    return exchange->is.body_done;
}

/* The request's body may come, now and until .body says "enough". */
void exchange_want_body(struct exchange *exchange);

/* The request is now for another path and query, by GET (or HEAD) and without a body: a local redirect. The head still
 * says what the client has sent. 0, or -1 with a text: it is no path. */
int exchange_retarget(struct exchange *exchange, struct span path_and_query, const char **why_out);

/* Sets a phase to the time since `since` (clock_us()), and returns now. */
uint64_t exchange_phase(struct exchange *exchange, enum phase phase, uint64_t since);

/* The two ends of the connection as text: "127.0.0.1", "8080". Of a unix socket: "" and "0". */
struct exchange_address {
    char text[INET6_ADDRSTRLEN], port[6];
    char host[INET6_ADDRSTRLEN + 2]; /* as it stands in a URI: an IPv6 address in brackets; "localhost" for unix */
};
struct peer_address;
const struct peer_address *exchange_peer(const struct exchange *exchange); /* the client's */
void exchange_remote(const struct exchange *exchange, struct exchange_address *out);
void exchange_local(const struct exchange *exchange, struct exchange_address *out);

#endif
