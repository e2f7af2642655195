/* What the files that make up connections and exchanges share, and nobody else. */
#ifndef GATEHOUSE_HTTP_INSIDE_H
#define GATEHOUSE_HTTP_INSIDE_H

#include <event2/event_struct.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "base/buffer.h"
#include "base/clients.h"
#include "http/chunked.h"
#include "http/date.h"
#include "http/http.h"

enum {
    SCRATCH = 65536,        /* one read of a body */
    FILE_COPIED = 32768,    /* files up to this size are read and sent with the head; beyond: sendfile */
    SPARE_ROOM = 64 * 1024, /* a buffer that is kept for the next request is not larger than this */
};

enum connection_state {
    CONN_IDLE,     /* no byte of a request is here */
    CONN_HEAD,     /* part of a head is */
    CONN_EXCHANGE, /* one is under way: c->exchange */
    CONN_LINGER,   /* all is said and our side shut; what still comes is thrown away, for a while */
    CONN_CLOSED,   /* to be freed when nobody works on it */
    N_CONN_STATES,
};

/* How long the client may still keep us waiting in one direction. Waiting uses it up, and each byte that comes, or that
 * the client has taken, earns some of it back: who is slower than min_rate for long, runs out of it, as does who is
 * silent. */
struct patience {
    uint64_t left_us;  /* at most body_timeout */
    uint64_t since_us; /* waiting since; 0: not now */
};

TAILQ_HEAD(connection_list, connection);

struct connection {
    TAILQ_ENTRY(connection) next;
    struct http *http;
    struct exchange *exchange; /* CONN_HEAD, CONN_EXCHANGE */
    int fd;
    enum connection_state state;
    unsigned depth; /* how many of our functions are at work on it */
    struct {
        bool keep : 1;        /* the connection goes on after this exchange */
        bool half_closed : 1; /* the client sends no more */
        bool is_broken : 1;   /* the client is gone */
        bool is_watching : 1; /* reads nothing now, only looks whether the client is gone */
        bool is_writing : 1;  /* the writer event is on */
        bool is_fresh : 1;    /* no request yet */
        bool is_resting : 1;  /* in http->resting */
        bool is_counted : 1;  /* among its client's */
        bool is_called : 1;   /* on_timer() is to take what steps there are, whatever the time */
    } is;
    struct event reader, watcher, writer, timer;
    struct buffer in;                  /* received and not used yet */
    struct buffer out;                 /* to be sent before anything else */
    uint64_t deadline_us, timer_at_us; /* 0: none */
    uint64_t body_left;                /* of a request body with a length */
    struct patience coming, going;     /* for the request's body; for the response to be taken */
    uint64_t sent, taken;              /* bytes since the beginning; and how many the client had when last looked */
    unsigned n_requests;               /* so far */
    struct chunked chunked;
    struct {
        int fd;
        uint64_t offset, left;
        void (*release)(void *arg); /* NULL: no file */
        void *arg;
    } file;
    struct peer_address remote;
};

struct http {
    struct http_options options;
    struct connection_list resting; /* idle or lingering, the one that rests longest first: they give way to others */
    struct connection_list others;
    unsigned n_connections;
    struct event *listeners[64];
    unsigned n_listeners;
    bool is_accepting, is_draining;
    bool is_gentle;         /* ... and keeps what was promised to be kept */
    time_t told_of_clients; /* when the log was last told of a client that has too many */
    struct event *drain_limit;
    void (*drained)(void *arg);
    void *drained_arg;
    struct buffer spare_in; /* see connection.c */
    struct exchange *spare; /* one kept for the next request, with its buffers */
    uint64_t id_state;
    time_t date_of;
    char date[DATE_LEN + 1];
    char scratch[SCRATCH];
    char small_file[FILE_COPIED];
};

/* http.c */
struct exchange *http_take_exchange(struct http *http);
void http_give_exchange(struct http *http, struct exchange *exchange);
const char *http_date(struct http *http);
void http_make_id(struct http *http, char id[EXCHANGE_ID_LEN + 1]);
void http_accept_again(struct http *http); /* a connection rests: it would give way to another */

/* One fewer: accept again, or the drain is over. is_counted: it was among its client's. */
void http_connection_gone(struct http *http, const struct peer_address *remote, bool is_counted);

/* connection.c */
void connection_accept(struct http *http, int fd, const struct peer_address *remote);
void connection_turn_away(struct http *http, int fd, const struct peer_address *remote); /* answers 429 at once */
void connection_drain(struct connection *c);                                             /* closes it when it is idle */
void connection_give_way(struct connection *c); /* closes it: it is in http->resting */
void connection_cut(struct connection *c);      /* aborts what is under way and closes */

/* Work on a connection is bracketed by these. The outermost leave brings it as far as it goes: finishes an exchange
 * that has ended, begins the next, frees it when it is closed. */
void connection_enter(struct connection *c);
void connection_leave(struct connection *c);

/* The request's body is wanted: what is here is handed on in the loop's next turn. */
void connection_want_body(struct connection *c);

/* For calls that are not a handler's last word: what must happen in its callbacks, happens in the loop's next turn. */
void connection_leave_later(struct connection *c);

/* The request is refused after its handler has begun: the handler is sent away, then the client is told. */
void connection_refuse_exchange(struct connection *c, unsigned status);

/* transport.c */

/* on_timer() is called when it is over; 0: never. Putting it off costs nothing. */
void connection_set_deadline(struct connection *c, uint64_t when_us);
void connection_set_timeout(struct connection *c, uint64_t timeout_us);

/* on_timer() is called in the loop's next turn. */
void connection_call_soon(struct connection *c);

/* An exchange begins: nobody is waited for yet. */
void connection_reset_patience(struct connection *c);

/* Sets the deadline by who is waited for now: body bytes that are due, bytes that the client does not take. */
void connection_watch_patience(struct connection *c);

/* So many bytes of a body have come. */
void connection_earn(struct connection *c, struct patience *patience, uint64_t n);

/* Is it over? For what goes, the bytes that the client has taken since the last look are earned first: the kernel calls
 * for more only when much of its buffer is free, which may take a slow client long. */
bool connection_is_out_of_patience(struct connection *c, struct patience *patience);

/* What comes is to be read; or not, and only the client's leaving to be noticed. */
void connection_read_again(struct connection *c);
void connection_watch_only(struct connection *c);
void connection_want_writing(struct connection *c, bool on);

/* Sends what waits: bytes, then the file. True when nothing is left of either. */
bool connection_flush(struct connection *c);
void connection_release_file(struct connection *c);

/* Sends now what the kernel takes and keeps the rest. The vectors' bytes are only used during the call.
 * `more`: a file follows at once. */
void connection_send(struct connection *c, struct iovec *parts, int n, bool more);

/* Sends a part of a file behind all that; release is called when that is done, or the connection closed. */
void connection_send_file(struct connection *c, int fd, uint64_t offset, uint64_t length, void (*release)(void *arg),
                          void *arg);

/* Does something wait to be sent? */
static inline bool connection_is_full(const struct connection *c)
{
    return buffer_len(&c->out) > 0;
}

static inline bool connection_is_sending(const struct connection *c)
{
    return connection_is_full(c) || c->file.release != NULL;
}

/* Does the handler wait for more of the request's body? */
static inline bool connection_awaits_body(const struct connection *c)
{
    return c->exchange->is.wants_body && !c->exchange->is.body_done && !c->exchange->is.ended;
}

/* exchange.c */
void http_write_address(const struct peer_address *address, struct exchange_address *out);

/* body.c */

/* Takes what belongs to the current request's body from the front of the input; or of what was received before. */
void connection_take_body(struct connection *c, struct span *input);
void connection_take_buffered_body(struct connection *c);

/* Throws away what is here of the current request's body. True when that was all of it. */
bool connection_skip_body(struct connection *c);

#endif
