/* HTTP dates (RFC 9110 section 5.6.7): "Sun, 06 Nov 1994 08:49:37 GMT" and the two obsolete forms. Pure. */
#ifndef GATEHOUSE_HTTP_DATE_H
#define GATEHOUSE_HTTP_DATE_H

#include <time.h>

#include "base/span.h"

enum { DATE_LEN = 29 };

/* Writes the IMF-fixdate of t: DATE_LEN bytes, and a NUL behind them. Years 1970 to 9999. */
void date_write(char at[DATE_LEN + 1], time_t t);

/* Reads any of the three forms. Returns 0, or -1 when it is none; then *out is unchanged. Two-digit years are placed
 * at most 50 years ahead of `now` (RFC 9110 section 5.6.7). */
int date_read(struct span text, time_t now, time_t *out);

#endif
