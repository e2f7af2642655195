/*
 * Text from outside, made harmless within HTML and within JSON. It may hold any byte: each that is part of no
 * well-formed UTF-8 becomes U+FFFD, so that the result is UTF-8. Both functions write to `at`, which has room for
 * ESCAPE_LONGEST * s.len bytes, and return behind the last byte that they wrote. Pure.
 */
#ifndef GATEHOUSE_BASE_ESCAPE_H
#define GATEHOUSE_BASE_ESCAPE_H

#include "base/span.h"

enum { ESCAPE_LONGEST = 6 }; /* what one byte may become: &quot; or \u001b */

/* What stands between the quotes of a JSON string (RFC 8259 section 7). DEL and U+0080 to U+009F are escaped, too, for
 * the sake of terminals. */
char *escape_json(char *at, struct span s);

/* Text of an element, or of an attribute's value in quotes of either kind. The controls, which may not be written in
 * HTML by any means, become U+FFFD, line ends among them, and so do the noncharacters. */
char *escape_html(char *at, struct span s);

#endif
