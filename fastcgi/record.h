/*
 * FastCGI 1.0 records (specification sections 3 and 8): encoding into a buffer, and a decoder that takes bytes in any
 * pieces and hands out what they mean. Pure. The peer's bytes are hostile.
 *
 *     01 06 00 01 00 05 03 00  h e l l o  _ _ _      version, type STDOUT, id 1, 5 bytes of content, 3 of padding
 */
#ifndef GATEHOUSE_FASTCGI_RECORD_H
#define GATEHOUSE_FASTCGI_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/span.h"

enum {
    RECORD_HEADER = 8,
    RECORD_MAX_CONTENT = 65528, /* what we send at most: PHP refuses content + padding above 65,535 */
};

enum record_type {
    RECORD_BEGIN_REQUEST = 1,
    RECORD_ABORT_REQUEST = 2,
    RECORD_END_REQUEST = 3,
    RECORD_PARAMS = 4,
    RECORD_STDIN = 5,
    RECORD_STDOUT = 6,
    RECORD_STDERR = 7,
    RECORD_DATA = 8,
    RECORD_GET_VALUES = 9,
    RECORD_GET_VALUES_RESULT = 10,
    RECORD_UNKNOWN_TYPE = 11,
};

enum record_role {
    RECORD_RESPONDER = 1,
    RECORD_AUTHORIZER = 2,
    RECORD_FILTER = 3,
};

enum record_protocol_status {
    RECORD_REQUEST_COMPLETE = 0,
    RECORD_CANT_MPX_CONN = 1,
    RECORD_OVERLOADED = 2,
    RECORD_UNKNOWN_ROLE = 3,
};

/* Sending. Each appends to the buffer; what it appends has a length that is a multiple of 8. */

void record_begin(struct buffer *to, uint16_t id, enum record_role role, bool keep_conn);
void record_abort(struct buffer *to, uint16_t id);

/* Asks what the application offers: FCGI_MAX_CONNS, FCGI_MAX_REQS, FCGI_MPXS_CONNS (section 4.1). */
void record_get_values(struct buffer *to);

/* A stream's piece, padded; split into several records when it is longer than RECORD_MAX_CONTENT. len must not be 0. */
void record_stream(struct buffer *to, enum record_type type, uint16_t id, const void *bytes, size_t len);

/* The empty record that ends a stream. */
void record_stream_end(struct buffer *to, enum record_type type, uint16_t id);

/*
 * Name-value pairs as a PARAMS stream. No pair is split over two records, because PHP and others read each record
 * alone. params_begin() opens a record in the buffer, params_add() closes it and opens the next when a pair does not
 * fit, params_end() closes it and ends the stream. Nothing else may be appended in between.
 */
struct params {
    struct buffer *to;
    uint16_t id;
    size_t record; /* private: bytes of content in the open record */
};

void params_begin(struct params *p, struct buffer *to, uint16_t id);

/* Returns 0, or -E2BIG: the pair alone is longer than a record; it was not added. */
int params_add(struct params *p, struct span name, struct span value);
void params_end(struct params *p);

/* Receiving. */

enum record_event_kind {
    RECORD_MORE,  /* all input is used */
    RECORD_BYTES, /* a piece of a stream record's content: .type, .id, .bytes (never empty) */
    RECORD_EMPTY, /* a whole stream record without content: the end of that stream: .type, .id */
    RECORD_WHOLE, /* a whole END_REQUEST: .id, .app_status, .protocol_status; or another record of up to 1 KiB that
                     is no stream (GET_VALUES_RESULT, UNKNOWN_TYPE, unknown types): .type, .id, .bytes (may be empty) */
    RECORD_BAD,   /* not FastCGI: wrong version, an END_REQUEST of the wrong size, a non-stream record above 1 KiB;
                     final, .why says why */
};

struct record_event {
    enum record_event_kind kind;
    uint8_t type; /* as received: may be none of enum record_type */
    uint16_t id;
    struct span bytes;
    uint32_t app_status;
    uint8_t protocol_status;
    const char *why;
};

struct record_reader {
    uint8_t header[RECORD_HEADER];
    unsigned n_header;  /* private: header bytes received */
    uint16_t content;   /* private: bytes of content still to come */
    uint8_t padding;    /* private */
    unsigned n_body;    /* private: bytes kept of a record that is handed out whole */
    uint8_t body[1024]; /* private */
};

void record_reader_init(struct record_reader *r);

/* Takes bytes from the front of *input, moves it past them, returns one event; call again until RECORD_MORE or
 * RECORD_BAD. Spans point into the input or the reader and live until the next call. */
struct record_event record_read(struct record_reader *r, struct span *input);

/* Is a record boundary where the reader stands? Used to tell a clean close from one inside a record. */
bool record_at_boundary(const struct record_reader *r);

/* Takes one pair off the front of a PARAMS or GET_VALUES_RESULT content. Returns 1, 0 at the end, -1 when it is
 * malformed. Lengths are checked in 64 bits. */
int record_pair(struct span *content, struct span *name_out, struct span *value_out);

#endif
