/*
 * A byte queue: appended at the end, consumed at the front. The bytes between are contiguous.
 * An all-zero struct buffer is an empty one and owns nothing; buffer_free() brings it back to that.
 * Out of memory ends the process (see memory.h); limits are the callers' business.
 */
#ifndef GATEHOUSE_BASE_BUFFER_H
#define GATEHOUSE_BASE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

struct buffer {
    char *memory;
    size_t start; /* offset of the first byte that was not consumed */
    size_t end;   /* offset behind the last byte */
    size_t size;  /* bytes allocated */
};

static inline size_t buffer_len(const struct buffer *b)
{
    return b->end - b->start;
}

/* The first byte. Of a buffer that owns nothing: nothing, but a value to calculate with. */
static inline char *buffer_at(const struct buffer *b)
{
    return (char *)((uintptr_t)b->memory + b->start);
}

static inline struct span buffer_span(const struct buffer *b)
{
    return (struct span){buffer_at(b), b->end - b->start};
}

/* Makes room for `more` bytes behind the last and returns where they go; buffer_added() tells how many came.
 * Moves the bytes: pointers into the buffer are void afterwards. */
char *buffer_reserve(struct buffer *b, size_t more);

static inline void buffer_added(struct buffer *b, size_t n)
{
    b->end += n;
}

void buffer_append(struct buffer *b, const void *bytes, size_t len);

static inline void buffer_append_span(struct buffer *b, struct span s)
{
    buffer_append(b, s.at, s.len);
}

void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops the first n bytes, n <= buffer_len(). Moves nothing. */
static inline void buffer_consume(struct buffer *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

static inline void buffer_clear(struct buffer *b)
{
    b->start = b->end = 0;
}

void buffer_free(struct buffer *b);

#endif
