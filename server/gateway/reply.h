/*
 * The head of a program's response (RFC 3875 section 6): what CGI and FastCGI programs write before their body.
 * Parsed once, here, for both. The bytes are hostile. Pure.
 *
 *     Status: 404 Not Found LF Content-Type: text/plain LF LF the body
 */
#ifndef GATEHOUSE_GATEWAY_REPLY_H
#define GATEHOUSE_GATEWAY_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "http/head.h"

/* Macros, so that messages can name them. */
#define REPLY_MAX_HEAD   65536 /* bytes; more without an empty line is REPLY_BAD */
#define REPLY_MAX_FIELDS 256

enum reply_result {
    REPLY_MORE, /* no end of the head yet, nothing wrong so far */
    REPLY_DONE,
    REPLY_BAD, /* to be answered with 502; .why says why */
};

/* All spans point into the bytes that were given to reply_read(). */
struct reply {
    unsigned status;      /* 100 to 599: of the Status field; else 302 with a client redirect, else 200 */
    bool has_status;      /* the program sent one */
    struct span reason;   /* of the Status field; may be empty: then the status's own phrase is to be used */
    struct span location; /* empty: none was sent */
    struct span sendfile; /* the path in X-Sendfile; empty: none was sent */
    bool has_type;        /* a Content-Type is among the fields */
    bool is_local;        /* a local redirect (RFC 3875 section 6.2.2): the only field is a Location that is a path */
    bool has_length;
    uint64_t length; /* at most INT64_MAX */
    bool is_chunked; /* the program says Transfer-Encoding: chunked: its body is to be decoded */
    unsigned n_fields;
    struct field fields[REPLY_MAX_FIELDS]; /* to be forwarded, in order, Location and Content-Type among them */
    size_t len;                            /* of the head, its empty line included */
    const char *why;                       /* of REPLY_BAD: a static text for the log */

    size_t line;      /* private: where the first line begins that is not whole yet */
    size_t scanned;   /* private: how far its end was looked for */
    unsigned n_lines; /* private: field lines so far, forwarded or not */
};

void reply_init(struct reply *reply);

/*
 * Looks at all len bytes of output so far, always from the first (they may have moved); what was scanned for the end
 * is not scanned again. Any way of cutting the output gives the same result. REPLY_DONE and REPLY_BAD are final.
 *
 * Lines end in LF or CR LF. Accepted: names that are tokens, values without controls (HTAB is white space). Refused:
 * no colon, an empty name, a fold, NUL or bare CR in a line, a Status that is no number from 100 to 599 with its end
 * or a space behind it, two Status fields, two different Locations or Content-Types, a Content-Length that is no
 * number, different ones, any Transfer-Encoding but "chunked" or one beside a Content-Length, an X-Sendfile that is
 * empty or holds a HTAB, two different ones, more options of Connection than anybody needs, a head that says neither
 * Content-Type nor Location nor Status nor X-Sendfile, an empty head.
 * A first line "HTTP/1.x NNN reason" is taken as a Status; a Status field may repeat its number.
 * Left out of .fields: Status, Content-Length, X-Sendfile, Trailer, what is for us to say (Date, Server, X-Request-Id),
 * all that is hop-by-hop (Connection, what it names, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade), a
 * second equal Location or Content-Type.
 *
 * An interim head (RFC 9110 section 15.2) is DONE with a status from 100 to 199: no body belongs to it, and the next
 * head begins behind its .len bytes. The caller reads that one with a fresh reply_init(), and bounds how many it
 * takes; an end of output before a final head is a 502. 101 is refused: no program is ever offered an Upgrade.
 */
enum reply_result reply_read(struct reply *reply, const char *bytes, size_t len);

#endif
