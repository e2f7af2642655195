/* The host is read off the front; then nothing may be left but a port. */
#include "http/authority.h"

#include <arpa/inet.h>
#include <stdbool.h>

#include "http/grammar.h"

/* The length of "[...]" at the front, or 0. */
static size_t ipv6_len(struct span s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    const char *end = memchr(s.at, ']', s.len);
    size_t len;

    if (end == NULL)
        return 0;
    len = (size_t)(end - s.at) - 1;
    if (len >= sizeof text)
        return 0;
    memcpy(text, s.at + 1, len);
    text[len] = '\0';
    /* A NUL inside would end the text before its end. */
    return strlen(text) == len && inet_pton(AF_INET6, text, &address) == 1 ? len + 2 : 0;
}

/* The length of the name at the front, or 0. */
static size_t name_len(struct span s)
{
    size_t i = 0, label = 0; /* where the current label begins */

    while (i < s.len && s.at[i] != ':') {
        int escaped = grammar_escape(span_from(s, i));

        if (s.at[i] == '.') {
            if (i == label)
                return 0;
            label = i + 1;
        } else if (escaped >= 0 ? escaped < 0x80 && !grammar_is((char)escaped, CHAR_UNRESERVED)
                                : !grammar_is(s.at[i], CHAR_UNRESERVED)) {
            return 0;
        }
        i += escaped >= 0 ? 3 : 1;
    }
    return i;
}

static bool is_port(struct span s)
{
    unsigned port = 0;

    for (size_t i = 0; i < s.len; i++) {
        if (!grammar_is_digit(s.at[i]))
            return false;
        port = port * 10 + (unsigned)(s.at[i] - '0');
        if (port > 65535)
            return false;
    }
    return true;
}

const char *authority_read(struct span authority, struct span *host_out)
{
    size_t len;

    if (authority.len == 0)
        return "an empty host";
    len = authority.at[0] == '[' ? ipv6_len(authority) : name_len(authority);
    if (len == 0)
        return "a bad host";
    if (len < authority.len && (authority.at[len] != ':' || !is_port(span_from(authority, len + 1))))
        return "a bad port";
    *host_out = (struct span){authority.at, len};
    return NULL;
}
