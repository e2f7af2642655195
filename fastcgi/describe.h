/*
 * FastCGI records in words, for people: one line a record, whatever its bytes are. `gatehouse fcgi -v` and the trace of
 * a request use it. The bytes are hostile: controls and what is no UTF-8 are escaped as in the log; names and values
 * are cut after 80 bytes, lists after about 2 KiB; no line is longer than DESCRIBE_LONGEST. Pure.
 *
 *     BEGIN_REQUEST id 1, responder, keep no
 *     PARAMS id 1, 812 bytes: REQUEST_METHOD=GET HTTP_ACCEPT="a, b" HTTP_COOKIE=aaa...[2113 bytes] ... (90 bytes more)
 *     PARAMS id 1, end
 *     STDOUT id 1, 35 bytes
 *     END_REQUEST id 1, appStatus 0, REQUEST_COMPLETE
 *     GET_VALUES_RESULT id 0, 51 bytes: FCGI_MAX_CONNS=1 FCGI_MAX_REQS=1 FCGI_MPXS_CONNS=0
 *     UNKNOWN_TYPE id 0, of type 9, GET_VALUES
 *     type 99 id 1, 12 bytes
 *     bad record: a record of another version, it begins "HTTP/1.1"
 */
#ifndef GATEHOUSE_FASTCGI_DESCRIBE_H
#define GATEHOUSE_FASTCGI_DESCRIBE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "fastcgi/record.h"

enum {
    DESCRIBE_LONGEST = 3072, /* bytes of a line */
    DESCRIBE_KEPT = 4096,    /* of a record's content, if it came in pieces */
};

/*
 * Appends what one event of record_read() says, without a line end; of RECORD_MORE, nothing. A piece of a stream
 * (RECORD_BYTES) is described as if it were a whole record: its length is that of the piece, and a pair that it cuts is
 * counted, not shown. So one who reads what is in memory as a whole (a request that was encoded) has one event and one
 * line a record. Who reads from a connection and wants that too takes a describer.
 */
void record_describe(struct buffer *to, const struct record_event *event);

/* Appends s as text in quotes, escaped, and cut after 80 bytes. */
void describe_text(struct buffer *to, struct span s);

/* The bytes of one direction of a connection, in any pieces, as lines. */
struct describer {
    struct record_reader reader; /* private, as all here */
    size_t n_seen;               /* content bytes so far of the stream record that is being read */
    size_t n_kept;
    bool is_bad;
    char kept[DESCRIBE_KEPT];
};

void describer_init(struct describer *d);

/*
 * Takes bytes from the front of *input, moves it past them, and stops when the content of a record is whole: then it
 * appends its line and returns true. False: all input is used, or a record was bad, which is final and was told.
 */
bool describer_next(struct describer *d, struct span *input, struct buffer *to);

/* No more bytes come. Appends a line if they end within a record, and returns whether it did. */
bool describer_end(const struct describer *d, struct buffer *to);

#endif
