/*
 * Programs that answer the client themselves (RFC 3875 section 5, "non-parsed header"): CGI scripts whose name begins
 * with "nph-". What they write is the response, byte for byte. This looks on only: is it HTTP at all, which status
 * does it have, and where does its head end. Pure.
 *
 *     HTTP/1.1 103 Early Hints CR LF Link: </a> CR LF CR LF HTTP/1.0 200 OK LF Content-Type: text/plain LF LF body
 */
#ifndef GATEHOUSE_GATEWAY_NPH_H
#define GATEHOUSE_GATEWAY_NPH_H

#include <stdbool.h>

#include "base/span.h"

enum { NPH_MAX_LINE = 8192 }; /* bytes of a status line, its end included */

struct nph {
    unsigned status; /* 100 to 599: of the latest status line that is whole; 0: there is none yet */
    bool is_body;    /* the head of the final response is over */
    const char *why; /* what came where a status line is due is none: a static text for the log; or NULL */

    /* Private from here on. */
    bool in_status_line;
    char line[14]; /* how the current line begins */
    size_t line_len;
};

/* Is the file of that name or path such a program? */
bool nph_is_name(struct span path);

void nph_init(struct nph *nph);

/*
 * Reads on; each byte is given once, any way of cutting gives the same. Returns how many of these bytes belong to
 * heads: all of them, unless .is_body begins within them or has begun before, or .why is set, which is final.
 * A status line is "HTTP/1." and a digit, a space, 100 to 599, then a space or the end of the line. Behind an interim
 * response (1xx but 101) another is due.
 */
size_t nph_read(struct nph *nph, struct span bytes);

#endif
