/* The authority of an http URI, and Host's value: host[:port] (RFC 9110 section 4.2, RFC 3986 section 3.2). Pure. */
#ifndef GATEHOUSE_HTTP_AUTHORITY_H
#define GATEHOUSE_HTTP_AUTHORITY_H

#include "base/span.h"

/*
 * Reads host[:port]; *host_out is a span of it, without the port; an IPv6 literal keeps its brackets. The port is
 * empty or at most 65535. Returns NULL, or a static text that says what is wrong.
 *
 * A host is an IPv6 address in brackets, or a name: labels of letters, digits, "-", "_", "~" and %XX, divided by
 * dots, the last of which may stand at the end. That is less than RFC 3986 allows: nothing that is called by its
 * sub-delims (!$&'()*+,;=) can be reached, and others read two hosts out of a comma.
 */
const char *authority_read(struct span authority, struct span *host_out);

#endif
