/*
 * One line of the access log for each request, in one of three formats. Pure: a record in, bytes out.
 *
 * combined  Apache's: client - - [time] "request line" status bytes "referer" "user agent"
 * json      one object a line; names and order as in access.c; times in milliseconds with three decimals
 * pretty    for people at a terminal: time, status, method, path, what ran it, total time; aligned, coloured when asked
 */
#ifndef GATEHOUSE_ACCESS_H
#define GATEHOUSE_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/buffer.h"
#include "base/span.h"
#include "config.h"

/* Microseconds each; PHASE_NONE where a request had no such phase. One vocabulary for logs, headers and metrics. */
enum phase {
    PHASE_QUEUE, /* head complete -> slot granted */
    PHASE_START, /* CGI: exec done; FastCGI: connected, 0 when kept */
    PHASE_FIRST, /* -> first byte of the answer's head */
    PHASE_BODY,  /* -> last byte from the program */
    PHASE_REAP,  /* CGI: exit seen */
    PHASE_TOTAL,
    N_PHASES,
};

#define PHASE_NONE UINT64_MAX

/* "queue", "start", ...: the names used everywhere. */
extern const char *const phase_names[N_PHASES];

struct access_record {
    struct timespec time; /* wall clock, when the head was complete */
    struct span id, client, method, target, protocol;
    unsigned status;
    uint64_t bytes_in, bytes_out; /* body in; everything out, head included */
    struct span site, route;      /* as written in the configuration; empty: none */
    unsigned route_place;         /* the route's number on the scoreboard, plus 1; 0: none */
    struct span gateway, pool;    /* "static", "cgi", "fastcgi"; pool empty where there is none */
    long pid;                     /* of the program; 0: none */
    uint64_t phase_us[N_PHASES];
    uint64_t cpu_us;      /* that a program took for it; PHASE_NONE: not known */
    uint64_t max_rss_kib; /* of a CGI program; likewise */
    int exit_code;        /* of a CGI program, or a FastCGI request's appStatus; -1: not known */
    int signal;           /* that ended the program; 0: none */
    uint64_t stderr_bytes;
    unsigned retries;
    struct span referer, user_agent; /* empty: not sent */
};

/* Appends one line with its LF. Every byte that came from outside is escaped so that the line stays one line, and
 * JSON stays JSON (bytes that are no UTF-8 become U+FFFD). `colour`: pretty only. */
void access_format(struct buffer *to, enum access_format format, bool colour, const struct access_record *record);

#endif
