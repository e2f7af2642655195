/*
 * A chunked body: decoded whole, cut in two, and byte by byte, it must come to the same end with the same data and the
 * same bytes left behind it; and a body that we take must be the one body that a plain reader of the same grammar
 * finds. The first two bytes of the input choose the cut.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "http/chunked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum chunked_result result;
    const char *why;
    size_t used;
    struct buffer data;
};

/* Decodes one piece, from memory of just its size. */
static void decode_piece(struct chunked *c, const char *at, size_t len, struct outcome *outcome)
{
    char *copy = memory_resize(NULL, len + 1);
    struct span input = {memcpy(copy + 1, at, len), len}, piece;

    while ((outcome->result = chunked_read(c, &input, &piece)) == CHUNKED_DATA) {
        assert(piece.len > 0 && piece.at > copy && piece.at + piece.len == input.at);
        buffer_append_span(&outcome->data, piece);
    }
    assert(input.at + input.len == copy + 1 + len);
    assert(outcome->result != CHUNKED_MORE || input.len == 0);
    outcome->used += len - input.len;
    outcome->why = c->why;
    free(copy);
}

static void decode(struct outcome *outcome, const char *bytes, size_t len, size_t first, size_t step)
{
    struct chunked c;
    size_t done = 0, n = first;

    *outcome = (struct outcome){0};
    chunked_init(&c, &(struct chunked_limits){16384, 16384});
    do {
        decode_piece(&c, bytes + done, n, outcome);
        done += n;
        n = step < len - done ? step : len - done;
    } while (outcome->result == CHUNKED_MORE && n > 0);
}

static void compare(const struct outcome *expected, const char *bytes, size_t len, size_t first, size_t step)
{
    struct outcome seen;

    decode(&seen, bytes, len, first, step);
    assert(seen.result == expected->result && seen.why == expected->why && seen.used == expected->used);
    assert(span_is(buffer_span(&seen.data), buffer_span(&expected->data)));
    buffer_free(&seen.data);
}

/* The end of the line that begins at `at`: behind its CR LF. It is there, or the body would not have been taken. */
static const char *line_end(const char *at, const char *end)
{
    const char *found = memmem(at, (size_t)(end - at), "\r\n", 2);

    assert(found != NULL);
    return found + 2;
}

/* The body that was taken from `len` bytes, read once more by its lines and sizes alone. */
static void check_body(const char *bytes, size_t len, struct span data)
{
    const char *at = bytes, *end = bytes + len;

    for (;;) {
        char *size_end;
        unsigned long long size = strtoull(at, &size_end, 16);

        assert(size_end > at && size_end < end && strchr(";\r \t", *size_end) != NULL);
        at = line_end(at, end);
        if (size == 0)
            break;
        assert(size <= data.len && size < (size_t)(end - at) && memcmp(at, data.at, size) == 0);
        data = span_from(data, size);
        at += size;
        assert(end - at >= 2 && at[0] == '\r' && at[1] == '\n');
        at += 2;
    }
    while (at[0] != '\r')
        at = line_end(at, end);
    assert(line_end(at, end) == end && data.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole;
    const char *bytes;
    size_t len;

    if (size < 2)
        return 0;
    bytes = (const char *)data + 2;
    len = size - 2;
    decode(&whole, bytes, len, len, len);
    assert((whole.result == CHUNKED_BAD) == (whole.why != NULL));
    assert(whole.used <= len && buffer_len(&whole.data) <= whole.used);
    if (whole.result == CHUNKED_END)
        check_body(bytes, whole.used, buffer_span(&whole.data));
    compare(&whole, bytes, len, ((size_t)data[0] << 8 | data[1]) % (len + 1), len);
    compare(&whole, bytes, len, 0, 1);
    buffer_free(&whole.data);
    return 0;
}
