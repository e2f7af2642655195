/* Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. Pure. */
#ifndef GATEHOUSE_BASE_UTF8_H
#define GATEHOUSE_BASE_UTF8_H

#include <stddef.h>

#include "base/span.h"

/* The length of the character that s begins with: 1 to 4, or 0 when its first bytes are no character. */
static inline size_t utf8_len(struct span s)
{
    const unsigned char *at = (const unsigned char *)s.at;
    size_t len;
    unsigned char low = 0x80, high = 0xbf; /* what the second byte may be: RFC 3629 section 4 */

    if (s.len == 0)
        return 0;
    if (at[0] < 0x80)
        return 1;
    if (at[0] < 0xc2 || at[0] > 0xf4)
        return 0;
    len = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (at[0] == 0xe0)
        low = 0xa0;
    else if (at[0] == 0xed)
        high = 0x9f;
    else if (at[0] == 0xf0)
        low = 0x90;
    else if (at[0] == 0xf4)
        high = 0x8f;
    if (s.len < len || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

/* The length of the character that s begins with where a terminal may be shown it as it is, else 0: what is no
 * character, the controls, DEL, and U+0080 to U+009F, which terminals obey as they do ESC sequences. */
static inline size_t utf8_printable_len(struct span s)
{
    size_t len = utf8_len(s);
    unsigned char first = len > 0 ? (unsigned char)s.at[0] : 0;

    if (len == 1)
        return first >= 0x20 && first != 0x7f;
    if (len == 2 && first == 0xc2 && (unsigned char)s.at[1] < 0xa0)
        return 0;
    return len;
}

#endif
