/* FastCGI records: what is sent byte by byte, and what any cutting of what is received means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "fastcgi/record.h"

/* Events as text, with pieces that follow each other in one stream joined; what is not printable is a dot. */
struct events {
    struct buffer text;
    bool in_stream;
    uint8_t type;
    uint16_t id;
};

static void note_bytes(struct events *events, const struct record_event *event)
{
    assert_true(event->bytes.len > 0);
    if (!events->in_stream || events->type != event->type || events->id != event->id)
        buffer_printf(&events->text, "[%u/%u]", event->type, event->id);
    for (size_t i = 0; i < event->bytes.len; i++)
        buffer_append(&events->text, event->bytes.at[i] < ' ' ? "." : event->bytes.at + i, 1);
    events->in_stream = true;
    events->type = event->type;
    events->id = event->id;
}

static void note(struct events *events, const struct record_event *event)
{
    if (event->kind == RECORD_BYTES) {
        note_bytes(events, event);
        return;
    }
    events->in_stream = false;
    if (event->kind == RECORD_EMPTY)
        buffer_printf(&events->text, "[%u/%u end]", event->type, event->id);
    else if (event->kind == RECORD_BAD)
        buffer_printf(&events->text, "[bad: %s]", event->why);
    else if (event->type == RECORD_END_REQUEST)
        buffer_printf(&events->text, "[over/%u %u %u]", event->id, event->app_status, event->protocol_status);
    else
        buffer_printf(&events->text, "[whole %u/%u %zu]", event->type, event->id, event->bytes.len);
}

/* Gives the reader one piece, as a copy of just its size. */
static enum record_event_kind feed(struct record_reader *r, struct events *events, const char *bytes, size_t len)
{
    char *copy = memory_copy(bytes, len);
    struct span input = {copy, len};
    struct record_event event = record_read(r, &input);

    while (event.kind != RECORD_MORE && event.kind != RECORD_BAD) {
        note(events, &event);
        event = record_read(r, &input);
    }
    if (event.kind == RECORD_BAD)
        note(events, &event);
    else
        assert_int_equal(input.len, 0);
    free(copy);
    return event.kind;
}

/* Reads bytes up to each cut, then in steps. */
static void read_cut(struct events *events, struct span bytes, size_t cut, size_t step)
{
    struct record_reader reader;
    enum record_event_kind kind;

    record_reader_init(&reader);
    buffer_clear(&events->text);
    events->in_stream = false;
    kind = feed(&reader, events, bytes.at, cut);
    for (size_t at = cut; kind == RECORD_MORE && at < bytes.len; at += step)
        kind = feed(&reader, events, bytes.at + at, step < bytes.len - at ? step : bytes.len - at);
    buffer_append(&events->text, "", 1);
}

static void check(struct span bytes, const char *expected)
{
    struct events events = {0};

    for (size_t cut = 0; cut <= bytes.len; cut++) {
        read_cut(&events, bytes, cut, bytes.len);
        assert_string_equal(buffer_at(&events.text), expected);
    }
    for (size_t step = 1; step < 20; step++) {
        read_cut(&events, bytes, 0, step);
        assert_string_equal(buffer_at(&events.text), expected);
    }
    buffer_free(&events.text);
}

static void check_bytes(const struct buffer *b, const char *expected, size_t len)
{
    assert_int_equal(buffer_len(b), len);
    assert_memory_equal(buffer_at(b), expected, len);
}

static void encodes_records(void **state)
{
    struct buffer b = {0};

    (void)state;
    record_begin(&b, 1, RECORD_RESPONDER, true);
    check_bytes(&b, "\1\1\0\1\0\10\0\0\0\1\1\0\0\0\0\0", 16);
    buffer_clear(&b);
    record_begin(&b, 0x1234, RECORD_FILTER, false);
    check_bytes(&b, "\1\1\x12\x34\0\10\0\0\0\3\0\0\0\0\0\0", 16);
    buffer_clear(&b);
    record_abort(&b, 0xffff);
    check_bytes(&b, "\1\2\xff\xff\0\0\0\0", 8);
    buffer_clear(&b);
    record_stream(&b, RECORD_STDIN, 1, "hello", 5);
    check_bytes(&b, "\1\5\0\1\0\5\3\0hello\0\0\0", 16);
    buffer_clear(&b);
    record_stream(&b, RECORD_DATA, 1, "12345678", 8);
    check_bytes(&b,
                "\1\10\0\1\0\10\0\0"
                "12345678",
                16);
    buffer_clear(&b);
    record_stream_end(&b, RECORD_STDIN, 2);
    check_bytes(&b, "\1\5\0\2\0\0\0\0", 8);
    buffer_free(&b);
}

/* Walks over whole records as a plain reader would; returns how many there are, with the sum of their contents. */
static unsigned walk(const struct buffer *b, struct buffer *contents)
{
    const uint8_t *at = (const uint8_t *)buffer_at(b), *end = at + buffer_len(b);
    unsigned n = 0;

    while (at < end) {
        size_t content, padding;

        assert_true(end - at >= RECORD_HEADER);
        content = (size_t)at[4] << 8 | at[5];
        padding = at[6];
        assert_int_equal(at[0], 1);
        assert_int_equal(at[7], 0);
        assert_true(content <= RECORD_MAX_CONTENT);
        assert_int_equal((content + padding) % 8, 0);
        assert_true((size_t)(end - at) >= RECORD_HEADER + content + padding);
        for (size_t i = 0; i < padding; i++)
            assert_int_equal(at[RECORD_HEADER + content + i], 0);
        buffer_append(contents, at + RECORD_HEADER, content);
        at += RECORD_HEADER + content + padding;
        n++;
    }
    return n;
}

static void splits_long_streams(void **state)
{
    const struct {
        size_t len;
        unsigned n_records;
    } rows[] = {{1, 1}, {65527, 1}, {65528, 1}, {65529, 2}, {65536, 2}, {131056, 2}, {131057, 3}, {1000000, 16}};
    char *bytes = memory_zeroed(1, 1000000);

    (void)state;
    for (size_t i = 0; i < 1000000; i++)
        bytes[i] = (char)(i % 251);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buffer b = {0}, contents = {0};

        record_stream(&b, RECORD_STDIN, 1, bytes, rows[i].len);
        assert_int_equal(walk(&b, &contents), rows[i].n_records);
        assert_int_equal(buffer_len(&contents), rows[i].len);
        assert_memory_equal(buffer_at(&contents), bytes, rows[i].len);
        buffer_free(&b);
        buffer_free(&contents);
    }
    free(bytes);
}

static void encodes_pairs(void **state)
{
    struct buffer b = {0};
    struct params p;

    (void)state;
    params_begin(&p, &b, 1);
    assert_int_equal(params_add(&p, SPAN("hi"), SPAN("you!")), 0);
    assert_int_equal(params_add(&p, SPAN("E"), (struct span){NULL, 0}), 0);
    params_end(&p);
    check_bytes(&b,
                "\1\4\0\1\0\13\5\0"
                "\2\4hiyou!\1\0E\0\0\0\0\0"
                "\1\4\0\1\0\0\0\0",
                32);
    buffer_clear(&b);
    params_begin(&p, &b, 1);
    params_end(&p);
    check_bytes(&b, "\1\4\0\1\0\0\0\0", 8);
    buffer_free(&b);
}

/* Adds n pairs of the given lengths behind other bytes and reads them back, each record by itself. */
static void check_pairs(const size_t (*lengths)[2], size_t n, unsigned n_records)
{
    static char bytes[RECORD_MAX_CONTENT];
    struct buffer b = {0};
    struct params p;
    struct span all;
    size_t n_read = 0;
    unsigned records = 0;

    memset(bytes, 'x', sizeof bytes);
    record_begin(&b, 1, RECORD_RESPONDER, true);
    params_begin(&p, &b, 1);
    for (size_t i = 0; i < n; i++) {
        bytes[0] = (char)('a' + i);
        assert_int_equal(params_add(&p, (struct span){bytes, lengths[i][0]}, (struct span){bytes, lengths[i][1]}), 0);
    }
    params_end(&p);
    record_stream_end(&b, RECORD_STDIN, 1);
    all = span_from(buffer_span(&b), 16);
    for (;; records++) {
        const uint8_t *header = (const uint8_t *)all.at;
        struct span content = {all.at + RECORD_HEADER, (size_t)header[4] << 8 | header[5]}, name, value;

        assert_int_equal(header[1], RECORD_PARAMS);
        assert_int_equal((content.len + header[6]) % 8, 0);
        all = span_from(all, RECORD_HEADER + content.len + header[6]);
        if (content.len == 0)
            break;
        for (int found; (found = record_pair(&content, &name, &value)) != 0; n_read++) {
            assert_int_equal(found, 1);
            assert_int_equal(name.len, lengths[n_read][0]);
            assert_int_equal(value.len, lengths[n_read][1]);
            assert_true(name.len == 0 || name.at[0] == (char)('a' + n_read));
            assert_true(value.len == 0 || value.at[0] == (char)('a' + n_read));
        }
    }
    assert_int_equal(n_read, n);
    assert_int_equal(records, n_records);
    assert_int_equal(all.len, RECORD_HEADER);
    buffer_free(&b);
}

static void keeps_pairs_whole(void **state)
{
    static const size_t mixed[][2] = {{0, 0}, {1, 0}, {127, 128}, {128, 127}, {129, 129}, {0, 128}, {255, 65000}};
    static const size_t exact[][2] = {{5, 65518}, {5, 3}};
    static const size_t just_fits[][2] = {{3, 4}, {5, 65509}, {5, 3}};
    static const size_t one_more[][2] = {{3, 4}, {5, 65510}, {5, 3}};
    static const size_t large[][2] = {{10, 40000}, {10, 40000}, {10, 25000}, {10, 70}, {10, 60000}};

    (void)state;
    check_pairs(mixed, 7, 2);
    check_pairs(exact, 2, 2);
    check_pairs(just_fits, 3, 2);
    check_pairs(one_more, 3, 3);
    check_pairs(large, 5, 3);
}

static void refuses_pairs_that_fit_no_record(void **state)
{
    static char bytes[70000];
    static const struct {
        size_t name, value;
        int result;
    } rows[] = {
        {5, 65518, 0},      {5, 65519, -E2BIG}, {65523, 0, 0},          {65524, 0, -E2BIG},
        {70000, 1, -E2BIG}, {1, 70000, -E2BIG}, {40000, 40000, -E2BIG}, {65528, 65528, -E2BIG},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buffer b = {0};
        struct params p;
        size_t before;

        params_begin(&p, &b, 1);
        assert_int_equal(params_add(&p, SPAN("A"), SPAN("B")), 0);
        before = buffer_len(&b);
        assert_int_equal(params_add(&p, (struct span){bytes, rows[i].name}, (struct span){bytes, rows[i].value}),
                         rows[i].result);
        assert_true(rows[i].result == 0 || buffer_len(&b) == before);
        assert_int_equal(params_add(&p, SPAN("C"), SPAN("D")), 0);
        params_end(&p);
        assert_int_equal(buffer_len(&b) % 8, 0);
        buffer_free(&b);
    }
}

#define STDOUT "\1\6\0\1"
#define STDERR "\1\7\0\1"
#define END    "\1\3\0\1\0\10\0\0"

static void decodes_streams(void **state)
{
    const struct {
        struct span bytes;
        const char *expected;
    } rows[] = {
        {SPAN(""), ""},
        {SPAN(STDOUT "\0\5\3\0hello\0\0\0" STDOUT "\0\0\0\0" END "\0\0\0\0\0\0\0\0"),
         "[6/1]hello[6/1 end][over/1 0 0]"},
        /* Padding of any content, on records with and without content. */
        {SPAN(STDOUT "\0\1\4\0x\1\3\0\1" STDOUT "\0\0\2\0\xff\xff" STDOUT "\0\1\0\0y"), "[6/1]x[6/1 end][6/1]y"},
        {SPAN(STDERR "\0\2\0\0e1" STDOUT "\0\2\0\0o1" STDOUT "\0\2\0\0o2" STDERR "\0\1\0\0e"),
         "[7/1]e1[6/1]o1o2[7/1]e"},
        {SPAN("\1\6\0\1\0\1\0\0a\1\6\0\2\0\1\0\0b\1\6\xff\xfe\0\1\0\0c"), "[6/1]a[6/2]b[6/65534]c"},
        {SPAN("\1\4\0\1\0\0\0\0\1\5\0\1\0\0\0\0\1\10\0\1\0\0\0\0"), "[4/1 end][5/1 end][8/1 end]"},
        /* A body that looks like the end of the request. */
        {SPAN(STDOUT "\0\20\0\0" END "\0\0\0\0\0\0\0\0" STDOUT "\0\0\0\0"), "[6/1]................[6/1 end]"},
        /* The reserved byte is not looked at. */
        {SPAN("\1\6\0\1\0\1\0\xffz"), "[6/1]z"},
        {SPAN(STDOUT "\0\5\0\0hel"), "[6/1]hel"},
        {SPAN(STDOUT "\0\0\2\0\0"), ""},
        {SPAN(STDOUT "\0"), ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(rows[i].bytes, rows[i].expected);
}

static void decodes_whole_records(void **state)
{
    const struct {
        struct span bytes;
        const char *expected;
    } rows[] = {
        {SPAN(END "\0\0\0\0\0\0\0\0"), "[over/1 0 0]"},
        {SPAN(END "\xfe\xdc\xba\x98\3\xff\xff\xff"), "[over/1 4275878552 3]"},
        {SPAN("\1\3\0\7\0\10\3\0\0\0\0\1\2\0\0\0..."), "[over/7 1 2]"},
        {SPAN("\1\3\0\7\0\10\3\0\0\0\0\1\2\0\0\0.."), ""},
        {SPAN(END "\0\0\0\0\0\0\0"), ""},
        {SPAN("\1\12\0\0\0\4\4\0\1\1AB----"), "[whole 10/0 4]"},
        {SPAN("\1\12\0\0\0\0\1\0-"), "[whole 10/0 0]"},
        {SPAN("\1\13\0\0\0\10\0\0\11\0\0\0\0\0\0\0\1\310\0\1\0\2\0\0xy"), "[whole 11/0 8][whole 200/1 2]"},
        {SPAN("\1\0\0\0\0\0\0\0\1\1\0\1\0\0\0\0\1\11\0\1\0\0\0\0\1\2\0\1\0\0\0\0\1\377\0\1\0\0\0\0"),
         "[whole 0/0 0][whole 1/1 0][whole 9/1 0][whole 2/1 0][whole 255/1 0]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(rows[i].bytes, rows[i].expected);
}

static void refuses_what_is_no_record(void **state)
{
    static const char version[] = "[bad: a record of another version]";
    static const char end_size[] = "[bad: an END_REQUEST of the wrong size]";
    static const char too_long[] = "[bad: a record that is no stream's and too long]";
    const struct {
        struct span bytes;
        const char *expected;
    } rows[] = {
        {SPAN("HTTP/1.1 200 OK\r\n"), version},
        {SPAN("\2\6\0\1\0\1\0\0x"), version},
        {SPAN("\0\0\0\0\0\0\0\0"), version},
        {SPAN(STDOUT "\0\1\0\0x\2\6\0\1\0\1\0\0x"), "[6/1]x[bad: a record of another version]"},
        {SPAN("\1\3\0\1\0\7\0\0\0\0\0\0\0\0\0"), end_size},
        {SPAN("\1\3\0\1\0\11\0\0\0\0\0\0\0\0\0\0\0"), end_size},
        {SPAN("\1\3\0\1\0\0\0\0"), end_size},
        {SPAN("\1\3\0\1\xff\xff\0\0"), end_size},
        {SPAN("\1\12\0\0\4\1\0\0"), too_long},
        {SPAN("\1\144\0\0\xff\xff\0\0"), too_long},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(rows[i].bytes, rows[i].expected);
}

static void stays_bad(void **state)
{
    struct record_reader reader;
    struct span input = {"\2\6\0\1\0\1\0\0" STDOUT "\0\1\0\0x", 17};

    (void)state;
    record_reader_init(&reader);
    for (int i = 0; i < 3; i++)
        assert_int_equal(record_read(&reader, &input).kind, RECORD_BAD);
    assert_false(record_at_boundary(&reader));
}

/* The largest records of either sort, in one piece and in two. */
static void decodes_large_records(void **state)
{
    char *bytes = memory_zeroed(1, RECORD_HEADER + 65535 + 255);
    struct record_reader reader;
    struct record_event event;
    struct span input = {bytes, RECORD_HEADER + 65535 + 255};

    (void)state;
    memcpy(bytes, "\1\6\0\1\xff\xff\xff\0", RECORD_HEADER);
    record_reader_init(&reader);
    event = record_read(&reader, &input);
    assert_int_equal(event.kind, RECORD_BYTES);
    assert_int_equal(event.bytes.len, 65535);
    assert_ptr_equal(event.bytes.at, bytes + RECORD_HEADER);
    assert_int_equal(record_read(&reader, &input).kind, RECORD_MORE);
    assert_int_equal(input.len, 0);
    assert_true(record_at_boundary(&reader));

    memcpy(bytes, "\1\12\0\0\4\0\0\0", RECORD_HEADER);
    bytes[RECORD_HEADER + 1023] = 'z';
    for (size_t cut = 0; cut < RECORD_HEADER + 1024; cut += 129) {
        input = (struct span){bytes, cut};
        assert_int_equal(record_read(&reader, &input).kind, RECORD_MORE);
        input = (struct span){bytes + cut, RECORD_HEADER + 1024 - cut};
        event = record_read(&reader, &input);
        assert_int_equal(event.kind, RECORD_WHOLE);
        assert_int_equal(event.bytes.len, 1024);
        assert_int_equal(event.bytes.at[1023], 'z');
    }
    free(bytes);
}

/* After each byte: is it the last of a record? */
static void knows_boundaries(void **state)
{
    static const char bytes[] = STDOUT "\0\3\2\0abc--" STDOUT "\0\2\0\0ab" STDOUT "\0\0\0\0" END "\0\0\0\0\0\0\0\0";
    static const size_t ends[] = {0, 13, 23, 31, 47};
    struct events events = {0};
    struct record_reader reader;
    size_t next = 0;

    (void)state;
    record_reader_init(&reader);
    for (size_t at = 0; at < sizeof bytes; at++) {
        bool is_end = at == ends[next];

        assert_int_equal(record_at_boundary(&reader), is_end);
        next += is_end;
        if (at + 1 < sizeof bytes)
            feed(&reader, &events, bytes + at, 1);
    }
    assert_int_equal(next, sizeof ends / sizeof ends[0]);
    buffer_free(&events.text);

    /* A stream's last piece is enough; and behind a whole record the input is at the next one. */
    record_reader_init(&reader);
    for (struct span input = {bytes + 13, 10}; input.len > 0;)
        assert_int_equal(record_read(&reader, &input).kind, RECORD_BYTES);
    assert_true(record_at_boundary(&reader));
}

static void decodes_what_it_encodes(void **state)
{
    static const char expected[] = "[whole 1/9 8][4/9]..NAMEab[4/9 end][5/9]hello[5/9 end][whole 2/9 0]";
    struct buffer b = {0};
    struct params p;

    (void)state;
    record_begin(&b, 9, RECORD_AUTHORIZER, false);
    params_begin(&p, &b, 9);
    assert_int_equal(params_add(&p, SPAN("NAME"), SPAN("ab")), 0);
    params_end(&p);
    record_stream(&b, RECORD_STDIN, 9, "hel", 3);
    record_stream(&b, RECORD_STDIN, 9, "lo", 2);
    record_stream_end(&b, RECORD_STDIN, 9);
    record_abort(&b, 9);
    check(buffer_span(&b), expected);
    buffer_free(&b);
}

static void decodes_pairs(void **state)
{
    const struct {
        struct span content;
        const char *expected;
    } rows[] = {
        {SPAN(""), ""},
        {SPAN("\0\0"), "="},
        {SPAN("\1\0A"), "A="},
        {SPAN("\1\1AB\2\3XYabc"), "A=B XY=abc"},
        {SPAN("\200\0\0\1\1AB"), "A=B"},
        {SPAN("\1\200\0\0\1AB"), "A=B"},
        {SPAN("\200\0\0\0\200\0\0\0"), "="},
        {SPAN("\1"), "!"},
        {SPAN("\1\1"), "!"},
        {SPAN("\1\1A"), "!"},
        {SPAN("\1\1AB\5\0X"), "A=B !"},
        {SPAN("\200\0\0"), "!"},
        {SPAN("\200\0\0\1"), "!"},
        {SPAN("\1\200\0\0"), "!"},
        {SPAN("\377\377\377\377\377\377\377\377xxxx"), "!"},
        {SPAN("\377\377\377\377\1x"), "!"},
        {SPAN("\2\377\377\377\377xx"), "!"},
        {SPAN("\300\0\0\0\300\0\0\0xxxx"), "!"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct span content = rows[i].content, name, value;
        struct buffer text = {0};
        int found;

        while ((found = record_pair(&content, &name, &value)) == 1) {
            buffer_printf(&text, "%s%.*s=%.*s", buffer_len(&text) > 0 ? " " : "", (int)name.len, name.at,
                          (int)value.len, value.at);
        }
        if (found < 0)
            buffer_printf(&text, "%s!", buffer_len(&text) > 0 ? " " : "");
        else
            assert_int_equal(content.len, 0);
        buffer_append(&text, "", 1);
        assert_string_equal(buffer_at(&text), rows[i].expected);
        buffer_free(&text);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_records),
        cmocka_unit_test(splits_long_streams),
        cmocka_unit_test(encodes_pairs),
        cmocka_unit_test(keeps_pairs_whole),
        cmocka_unit_test(refuses_pairs_that_fit_no_record),
        cmocka_unit_test(decodes_streams),
        cmocka_unit_test(decodes_whole_records),
        cmocka_unit_test(refuses_what_is_no_record),
        cmocka_unit_test(stays_bad),
        cmocka_unit_test(decodes_large_records),
        cmocka_unit_test(knows_boundaries),
        cmocka_unit_test(decodes_what_it_encodes),
        cmocka_unit_test(decodes_pairs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
