/*
 * The Range field (RFC 9110 section 14.2) of one representation. Pure.
 *
 *     bytes=0-99        the first hundred            bytes=-5        the last five
 *     bytes=100-        from the hundred-first on    bytes=0-0,-1    the first and the last
 */
#ifndef GATEHOUSE_HTTP_RANGE_H
#define GATEHOUSE_HTTP_RANGE_H

#include <stdint.h>

#include "base/span.h"
#include "http/head.h"

enum { RANGE_MOST = 16 }; /* ranges that one response may have */

struct range {
    uint64_t first, last; /* both included; last < size */
};

struct ranges {
    unsigned n;
    struct range at[RANGE_MOST];
};

enum range_result {
    RANGE_WHOLE,         /* there is no Range that counts: answer with the whole */
    RANGE_PARTS,         /* *out has what was asked for, in that order: 206 */
    RANGE_UNSATISFIABLE, /* nothing of it is within the representation: 416 */
};

/*
 * Understands the head's Range for a representation of `size` bytes. Ignored, as RFC 9110 section 14.2 allows: a Range
 * sent more than once, of another unit than bytes, outside the grammar; more than RANGE_MOST ranges, those beyond the
 * end included; and ranges that together have more bytes than the whole, so no overlap makes a response larger than it
 * would be without. Ranges beyond the end are left out; a last position beyond it is the end. No number is too large to
 * be understood. An empty representation has no part to send: a suffix of it is the whole, any position is beyond.
 * Whether If-Range lets it count is condition.h's; only for GET. *out counts with RANGE_PARTS only.
 */
enum range_result range_read(const struct head *head, uint64_t size, struct ranges *out);

#endif
