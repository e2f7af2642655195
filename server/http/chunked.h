/*
 * The decoder of a chunked body (RFC 9112 section 7.1): strict, incremental, pure. It allocates nothing and hands
 * out spans of its input. Chunk extensions are checked and dropped; trailers are checked and dropped.
 *
 *     5;x="y" CRLF hello CRLF 0 CRLF X-T: 1 CRLF CRLF
 */
#ifndef GATEHOUSE_HTTP_CHUNKED_H
#define GATEHOUSE_HTTP_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum chunked_result {
    CHUNKED_MORE, /* all input is used; more is needed */
    CHUNKED_DATA, /* *data_out is a piece of the body; call again with the rest of the input */
    CHUNKED_END,  /* the body is complete; what is left of the input belongs to the next message */
    CHUNKED_BAD,  /* not the grammar, or more framing than is tolerated: final */
};

struct chunked_limits {
    size_t max_overhead; /* bytes of framing beyond 16 a chunk and beyond the bytes of data; at most INT64_MAX */
    size_t max_trailers; /* bytes of the trailer section */
};

struct chunked {
    struct chunked_limits limits; /* private, as all that is not said to be otherwise */
    unsigned state;
    uint64_t left;    /* bytes of the current chunk still to come */
    int64_t overhead; /* framing bytes since the body's start, less what is free */
    unsigned digits;  /* of the current size */
    size_t ext_len;   /* bytes of the current chunk's extensions */
    size_t trailer_len;
    const char *why; /* public, after CHUNKED_BAD: a static text for the log... */
    unsigned status; /* ... and what a request is answered with: 400, or 431 for its trailers */
};

void chunked_init(struct chunked *c, const struct chunked_limits *limits);

/*
 * Takes bytes from the front of *input and moves it past them; call again until CHUNKED_MORE or a final result.
 * *data_out is set with CHUNKED_DATA only, is never empty, and points into the input.
 * Caps: 16 hexadecimal digits a size; extensions of 4 KiB a chunk; and those of struct chunked_limits: without them,
 * chunks with long extensions would keep us busy for nothing.
 */
enum chunked_result chunked_read(struct chunked *c, struct span *input, struct span *data_out);

#endif
