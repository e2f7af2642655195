/*
 * One connection to a FastCGI application, for the command `gatehouse fcgi`: bytes both ways at once, each wait
 * bounded, each record told on the standard error if that is wanted. It blocks, in poll(). Its memory is bounded,
 * whatever is sent and received: nothing is gathered here.
 */
#ifndef GATEHOUSE_TOOLS_FCGI_CLIENT_H
#define GATEHOUSE_TOOLS_FCGI_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "config.h"
#include "fastcgi/describe.h"
#include "fastcgi/record.h"

enum fcgi_client_end {
    CLIENT_GOES_ON, /* private */
    CLIENT_DONE,    /* calls->event has said so */
    CLIENT_CLOSED,  /* the application has closed the connection, or broken it off */
    CLIENT_TIMEOUT, /* a wait took too long */
    CLIENT_BAD,     /* what came are no records */
};

struct fcgi_client_calls {
    /* All that was to be sent is sent: appends more, 64 KiB at most by habit. False: there is no more, now or later. */
    bool (*more)(void *arg, struct buffer *out);
    /* A record, or a piece of one, never RECORD_MORE or RECORD_BAD. False: nothing more is wanted. */
    bool (*event)(void *arg, const struct record_event *event);
};

struct fcgi_client {
    const char *name; /* the address as the user wrote it: for messages */
    uint64_t timeout_ms, max_ms;
    bool is_verbose;

    /* what became of it: for messages */
    uint64_t connect_us; /* how long connecting took */
    uint64_t n_received; /* bytes */
    char first[64];      /* the first of them */

    /* private */
    int fd;
    bool is_deaf;           /* the application reads no more */
    bool is_all_given;      /* calls->more has nothing left */
    bool is_within_line;    /* of the standard error */
    bool has_record;        /* one has come that was none of those which are bad */
    uint64_t deadline_us;   /* for all; UINT64_MAX: none */
    uint64_t wait_until_us; /* for the present wait */
    const char *why;        /* of CLIENT_BAD */
    int error;              /* errno of a connection that was broken off, or 0 */
    struct buffer out, line;
    struct record_reader reader;
    struct describer sent, received;
};

/*
 * Opens a connection. timeout_ms bounds each wait: for the connection, then for the application to send or to take
 * something. max_ms bounds all of them together from this call on; 0: it does not. Returns 0, or -1: it was said why.
 * Either way the client has to be closed.
 */
int fcgi_client_open(struct fcgi_client *client, const struct config_address *address, uint64_t timeout_ms,
                     uint64_t max_ms, bool is_verbose);

/* Sends and receives until one of the ends. */
enum fcgi_client_end fcgi_client_exchange(struct fcgi_client *client, const struct fcgi_client_calls *calls, void *arg);

/* Says what an end but CLIENT_DONE means, on the standard error: what it probably is that answers there. */
void fcgi_client_tell_end(struct fcgi_client *client, enum fcgi_client_end end);

/* What the program wrote to its standard error: to ours, as it is. */
void fcgi_client_errors(struct fcgi_client *client, struct span bytes);

/* A line "gatehouse: ADDR: text" on the standard error, which begins at the line's start. */
void fcgi_client_say(struct fcgi_client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));

void fcgi_client_close(struct fcgi_client *client);

/* Writes all of it. Returns 0 or -errno. */
int fcgi_client_write(int fd, struct span bytes);

#endif
