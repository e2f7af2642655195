/*
 * A span: bytes that somebody else owns, by address and length. Spans are passed by value; they are not terminated
 * and may hold any byte. Whoever keeps one must know how long its bytes live.
 */
#ifndef GATEHOUSE_BASE_SPAN_H
#define GATEHOUSE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
    const char *at;
    size_t len;
};

/* A span of a string literal. */
#define SPAN(literal) ((struct span){"" literal, sizeof(literal) - 1})

static inline struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static inline bool span_is(struct span s, struct span other)
{
    return s.len == other.len && (s.len == 0 || memcmp(s.at, other.at, s.len) == 0);
}

/* Equal but for the case of ASCII letters: field names, tokens, host names. */
static inline bool span_is_nocase(struct span s, struct span other)
{
    return s.len == other.len && (s.len == 0 || strncasecmp(s.at, other.at, s.len) == 0);
}

static inline bool span_starts(struct span s, struct span prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.at, prefix.at, prefix.len) == 0);
}

static inline bool span_ends(struct span s, struct span suffix)
{
    return s.len >= suffix.len && (suffix.len == 0 || memcmp(s.at + s.len - suffix.len, suffix.at, suffix.len) == 0);
}

/* What is left of s behind its first n bytes; n must not exceed s.len. */
static inline struct span span_from(struct span s, size_t n)
{
    return (struct span){s.at + n, s.len - n};
}

#endif
