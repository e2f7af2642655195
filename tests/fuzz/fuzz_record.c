/*
 * FastCGI records. The first byte of the input chooses one of two oracles:
 *   decoding  a byte stream means the same whole, cut in two, and byte by byte;
 *   encoding  pairs and a stream that were encoded are found again in the records, each pair within one record.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "fastcgi/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the events said, with the pieces of one stream that follow each other joined. */
struct story {
    struct buffer text;
    bool in_stream; /* the last event was a piece of one */
    uint8_t type;
    uint16_t id;
};

static void tell(struct story *story, const struct record_event *event)
{
    bool joins =
        story->in_stream && event->kind == RECORD_BYTES && story->type == event->type && story->id == event->id;

    if (!joins)
        buffer_printf(&story->text, "\n%d %u %u %u %u %s ", event->kind, event->type, event->id, event->app_status,
                      event->protocol_status, event->why == NULL ? "" : event->why);
    buffer_append_span(&story->text, event->bytes);
    story->in_stream = event->kind == RECORD_BYTES;
    story->type = event->type;
    story->id = event->id;
}

/* Returns whether more can be read. */
static bool read_piece(struct record_reader *r, struct story *story, const char *bytes, size_t len)
{
    char *copy = memory_copy(bytes, len);
    struct span input = {copy, len};
    struct record_event event;

    for (;;) {
        event = record_read(r, &input);
        if (event.kind == RECORD_MORE)
            break;
        assert(event.kind != RECORD_BYTES || event.bytes.len > 0);
        assert(event.kind != RECORD_BAD || event.why != NULL);
        tell(story, &event);
        if (event.kind == RECORD_BAD)
            break;
    }
    assert(event.kind == RECORD_BAD || input.len == 0);
    free(copy);
    return event.kind == RECORD_MORE;
}

static void read_pieces(struct story *story, struct span bytes, size_t first, size_t step)
{
    struct record_reader reader;
    bool more;

    record_reader_init(&reader);
    more = read_piece(&reader, story, bytes.at, first);
    for (size_t at = first; more && at < bytes.len; at += step)
        more = read_piece(&reader, story, bytes.at + at, step < bytes.len - at ? step : bytes.len - at);
    if (more)
        buffer_printf(&story->text, "\nat boundary: %d", record_at_boundary(&reader));
}

static void check_decoding(struct span bytes, size_t cut)
{
    struct story whole = {0}, in_two = {0}, by_byte = {0};

    read_pieces(&whole, bytes, bytes.len, 1);
    read_pieces(&in_two, bytes, cut, bytes.len);
    read_pieces(&by_byte, bytes, 0, 1);
    assert(span_is(buffer_span(&whole.text), buffer_span(&in_two.text)));
    assert(span_is(buffer_span(&whole.text), buffer_span(&by_byte.text)));
    buffer_free(&whole.text);
    buffer_free(&in_two.text);
    buffer_free(&by_byte.text);
}

enum { MAX_PAIRS = 64, MAX_LENGTH = 70000 };

struct pair {
    struct span name, value;
};

/* A length from two bytes: near 0, near 128, or near what fits a record. */
static size_t length_from(const uint8_t *at)
{
    static const size_t bases[] = {0, 0, 120, 300, 4000, 32000, 65400, MAX_LENGTH - 255};

    return bases[at[0] & 7] + at[1];
}

/* Finds the pairs in a PARAMS record's content; returns how many there were. */
static size_t take_pairs(struct span content, const struct pair *pairs, size_t n)
{
    struct pair found;
    size_t i = 0;
    int result;

    while ((result = record_pair(&content, &found.name, &found.value)) == 1) {
        assert(i < n);
        assert(span_is(found.name, pairs[i].name) && span_is(found.value, pairs[i].value));
        i++;
    }
    assert(result == 0);
    return i;
}

/* Reads what was sent, gathering each record's content by the boundaries. */
static void check_sent(struct span sent, const struct pair *pairs, size_t n, struct span stream)
{
    struct record_reader reader;
    struct buffer got = {0};
    size_t n_found = 0;
    unsigned ends = 0;

    record_reader_init(&reader);
    for (;;) {
        struct record_event event = record_read(&reader, &sent);

        if (event.kind == RECORD_MORE)
            break;
        assert(event.kind != RECORD_BAD);
        if (event.kind == RECORD_EMPTY)
            ends++;
        else if (event.type == RECORD_PARAMS)
            n_found += take_pairs(event.bytes, pairs + n_found, n - n_found);
        else if (event.type == RECORD_STDIN)
            buffer_append_span(&got, event.bytes);
        else
            assert(event.kind == RECORD_WHOLE && event.type == RECORD_BEGIN_REQUEST);
    }
    assert(record_at_boundary(&reader) && ends == 2 && n_found == n);
    assert(got.end - got.start == stream.len);
    assert(stream.len == 0 || memcmp(buffer_at(&got), stream.at, stream.len) == 0);
    buffer_free(&got);
}

static void check_encoding(const uint8_t *data, size_t size)
{
    static char filler[MAX_LENGTH + 256];
    struct pair pairs[MAX_PAIRS];
    struct buffer sent = {0};
    struct params params;
    struct span stream;
    size_t n = 0;

    memset(filler, 'x', sizeof filler);
    record_begin(&sent, 1, RECORD_RESPONDER, true);
    params_begin(&params, &sent, 1);
    for (; size >= 4 && n < MAX_PAIRS; data += 4, size -= 4) {
        struct pair pair = {{filler, length_from(data)}, {filler, length_from(data + 2)}};
        size_t len = pair.name.len + pair.value.len + (pair.name.len < 128 ? 1 : 4) + (pair.value.len < 128 ? 1 : 4);
        int result = params_add(&params, pair.name, pair.value);

        assert(result == (len > RECORD_MAX_CONTENT ? -E2BIG : 0));
        if (result == 0)
            pairs[n++] = pair;
    }
    params_end(&params);
    assert(buffer_len(&sent) % 8 == 0);
    stream = (struct span){filler, size >= 2 ? length_from(data) : size};
    if (stream.len > 0)
        record_stream(&sent, RECORD_STDIN, 1, stream.at, stream.len);
    record_stream_end(&sent, RECORD_STDIN, 1);
    assert(buffer_len(&sent) % 8 == 0);
    check_sent(buffer_span(&sent), pairs, n, stream);
    buffer_free(&sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    if (data[0] & 1)
        check_encoding(data + 1, size - 1);
    else
        check_decoding((struct span){(const char *)data + 3, size - 3}, ((size_t)data[1] << 8 | data[2]) % (size - 2));
    return 0;
}
