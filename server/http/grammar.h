/* The characters of HTTP and of URIs by class, and the grammar of one field line. One table for everybody. Pure. */
#ifndef GATEHOUSE_HTTP_GRAMMAR_H
#define GATEHOUSE_HTTP_GRAMMAR_H

#include <stdbool.h>

#include "base/span.h"

enum char_class {
    CHAR_TOKEN = 1 << 0,      /* tchar, RFC 9110 section 5.6.2: methods, field names */
    CHAR_TEXT = 1 << 1,       /* what a field's value may hold, RFC 9110 section 5.5: no controls but HTAB */
    CHAR_UNRESERVED = 1 << 2, /* RFC 3986 section 2.3 */
    CHAR_PATH = 1 << 3,       /* what RFC 3986 section 3.3 allows in a path as it is: pchar without "%", and "/" */
    CHAR_SENT_PATH = 1 << 4,  /* what clients do send in a path, "%" among it; grammar.c says why it is more */
    CHAR_SENT_QUERY = 1 << 5, /* and in a query */
};

extern const unsigned char grammar_classes[256];

static inline bool grammar_is(char c, enum char_class wanted)
{
    return (grammar_classes[(unsigned char)c] & wanted) != 0;
}

static inline bool grammar_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static inline bool grammar_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, or -1. */
static inline int grammar_hex(char c)
{
    if (grammar_is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that %XX at the front of s stands for, or -1: s begins with something else. */
static inline int grammar_escape(struct span s)
{
    if (s.len < 3 || s.at[0] != '%' || grammar_hex(s.at[1]) < 0 || grammar_hex(s.at[2]) < 0)
        return -1;
    return grammar_hex(s.at[1]) << 4 | grammar_hex(s.at[2]);
}

/* How many bytes at the front of s are of the class. */
static inline size_t grammar_run(struct span s, enum char_class wanted)
{
    size_t n = 0;

    while (n < s.len && grammar_is(s.at[n], wanted))
        n++;
    return n;
}

static inline bool grammar_is_all(struct span s, enum char_class wanted)
{
    return grammar_run(s, wanted) == s.len;
}

/* s without the white space (OWS, RFC 9110 section 5.6.3) around it. */
static inline struct span grammar_trim(struct span s)
{
    while (s.len > 0 && grammar_is_blank(s.at[0]))
        s = span_from(s, 1);
    while (s.len > 0 && grammar_is_blank(s.at[s.len - 1]))
        s.len--;
    return s;
}

/*
 * Is the line, without its CR LF, a field line (RFC 9112 section 5)? Returns NULL and how long the name is, or a
 * static text that says what is wrong.
 */
const char *grammar_field_line(struct span line, size_t *name_len_out);

/*
 * Takes the next member off the front of a comma-separated list (RFC 9110 section 5.6.1), without the white space
 * around it; empty members are skipped. False: there is none. Members with quoted strings are not understood.
 */
bool grammar_list_next(struct span *list, struct span *member_out);

#endif
