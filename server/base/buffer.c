#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

enum { SMALLEST = 512 };

char *buffer_reserve(struct buffer *b, size_t more)
{
    size_t len = buffer_len(b);

    if (b->size - b->end >= more)
        return b->memory + b->end;
    if (b->start > 0) {
        memmove(b->memory, b->memory + b->start, len);
        b->start = 0;
        b->end = len;
    }
    if (b->size - len < more) {
        size_t size = b->size < SMALLEST ? SMALLEST : b->size;

        while (size - len < more)
            size *= 2;
        b->memory = memory_resize(b->memory, size);
        b->size = size;
    }
    return b->memory + b->end;
}

void buffer_append(struct buffer *b, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    memcpy(buffer_reserve(b, len), bytes, len);
    b->end += len;
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    size_t room = 128;
    int len;

    for (;;) {
        char *at = buffer_reserve(b, room);

        va_start(args, format);
        len = vsnprintf(at, room, format, args);
        va_end(args);
        if (len < 0)
            return;
        if ((size_t)len < room)
            break;
        room = (size_t)len + 1;
    }
    b->end += (size_t)len;
}

void buffer_free(struct buffer *b)
{
    free(b->memory);
    *b = (struct buffer){0};
}
