/* The decoder of chunked bodies: every row is decoded whole, cut in two at each place, and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "http/chunked.h"

struct row {
    const char *bytes;
    size_t len;
    const char *expected; /* as describe() has it */
};

#define ROW(text, expected)                                                                                            \
    {                                                                                                                  \
        "" text, sizeof(text) - 1, expected                                                                            \
    }
#define CHECK(rows) check_rows(rows, sizeof(rows) / sizeof((rows)[0]))

#define CRLF        "\r\n"
#define LAST        "0" CRLF CRLF

/* Decodes a piece and appends its data. What the decoder did not want is added to *behind. */
static enum chunked_result decode_piece(struct chunked *c, struct span piece, struct buffer *data, size_t *behind)
{
    enum chunked_result result;
    struct span out;

    while ((result = chunked_read(c, &piece, &out)) == CHUNKED_DATA) {
        assert_true(out.len > 0);
        buffer_append_span(data, out);
    }
    assert_true(result != CHUNKED_MORE || piece.len == 0);
    assert_true((result == CHUNKED_BAD) == (c->why != NULL));
    if (result == CHUNKED_END)
        *behind += piece.len;
    return result;
}

static const struct chunked_limits usual = {.max_overhead = 16384, .max_trailers = 16384};

/* Decodes the first bytes at once, then `step` at a time, and says what came of it: "data", or "data..." when more is
 * needed, or "data!why", and "+5" when five bytes are behind the body. */
static void describe(struct buffer *to, struct span bytes, size_t first, size_t step)
{
    struct chunked c;
    enum chunked_result result = CHUNKED_MORE;
    size_t n = first < bytes.len ? first : bytes.len, behind = 0;

    chunked_init(&c, &usual);
    buffer_clear(to);
    for (;;) {
        result = decode_piece(&c, (struct span){bytes.at, n}, to, &behind);
        bytes = span_from(bytes, n);
        if (result == CHUNKED_BAD || bytes.len == 0)
            break;
        n = step < bytes.len ? step : bytes.len;
    }
    assert_int_equal(decode_piece(&c, (struct span){"5\r\n", result == CHUNKED_MORE ? 0 : 3}, to, &(size_t){0}),
                     result);
    if (result == CHUNKED_MORE)
        buffer_printf(to, "...");
    if (result == CHUNKED_BAD)
        buffer_printf(to, "!%s", c.why);
    if (behind > 0)
        buffer_printf(to, "+%zu", behind);
    buffer_append(to, "", 1);
}

static void check(struct span bytes, const char *expected)
{
    size_t step = bytes.len / 1000 + 1;
    struct buffer seen = {0};

    describe(&seen, bytes, bytes.len, 1);
    if (strcmp(buffer_at(&seen), expected) != 0)
        fail_msg("%.*s\n is:     %.200s\n not:    %s", (int)(bytes.len < 200 ? bytes.len : 200), bytes.at,
                 buffer_at(&seen), expected);
    describe(&seen, bytes, 0, step);
    assert_string_equal(buffer_at(&seen), expected);
    for (size_t cut = 1; cut < bytes.len; cut += step) {
        describe(&seen, bytes, cut, bytes.len);
        assert_string_equal(buffer_at(&seen), expected);
    }
    buffer_free(&seen);
}

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check((struct span){rows[i].bytes, rows[i].len}, rows[i].expected);
}

static void test_bodies(void **state)
{
    static const struct row rows[] = {
        ROW("5" CRLF "hello" CRLF LAST, "hello"),
        ROW(LAST, ""),
        ROW("000" CRLF CRLF, ""),
        ROW("5" CRLF "hello" CRLF "6" CRLF " world" CRLF LAST, "hello world"),
        ROW("A" CRLF "0123456789" CRLF LAST, "0123456789"),
        ROW("a" CRLF "0123456789" CRLF LAST, "0123456789"),
        ROW("00a" CRLF "0123456789" CRLF LAST, "0123456789"),
        ROW("000000000000000a" CRLF "0123456789" CRLF LAST, "0123456789"),
        ROW("10" CRLF "0123456789abcdef" CRLF LAST, "0123456789abcdef"),
        ROW("4" CRLF "\r\n\r\n" CRLF LAST, "\r\n\r\n"),
        ROW("5" CRLF LAST CRLF LAST, LAST),
        ROW(LAST "GET / HTTP/1.1", "+14"),
        ROW("1" CRLF "x" CRLF LAST LAST, "x+5"),
        ROW("", "..."),
        ROW("5", "..."),
        ROW("5" CRLF "hel", "hel..."),
        ROW("5" CRLF "hello\r", "hello..."),
        ROW("FFFFFFFFFFFFFFFF" CRLF "hello" CRLF, "hello\r\n..."),
        ROW("0" CRLF, "..."),
        ROW("0" CRLF "\r", "..."),
    };

    (void)state;
    CHECK(rows);
}

static void test_sizes(void **state)
{
    static const struct row rows[] = {
        ROW(CRLF "hello", "!a chunk without a size"),
        ROW(" 5" CRLF, "!a chunk without a size"),
        ROW("\t5" CRLF, "!a chunk without a size"),
        ROW("+5" CRLF, "!a chunk without a size"),
        ROW("-5" CRLF, "!a chunk without a size"),
        ROW(";a" CRLF, "!a chunk without a size"),
        ROW("g" CRLF, "!a chunk without a size"),
        ROW("\xb2" CRLF, "!a chunk without a size"),
        ROW("0x5" CRLF, "!a chunk size that is no number"),
        ROW("0_5" CRLF, "!a chunk size that is no number"),
        ROW("5g" CRLF, "!a chunk size that is no number"),
        ROW("5," CRLF, "!a chunk size that is no number"),
        ROW("5\0" CRLF, "!a chunk size that is no number"),
        ROW("5\n", "!a chunk size that is no number"),
        ROW("5\rX", "!a bare CR behind a chunk size"),
        ROW("5\r\r\n", "!a bare CR behind a chunk size"),
        ROW("5\r;a" CRLF, "!a bare CR behind a chunk size"),
        ROW("5 " CRLF, "!white space behind a chunk size"),
        ROW("5\t" CRLF, "!white space behind a chunk size"),
        ROW("0 " CRLF CRLF, "!white space behind a chunk size"),
        ROW("5 garbage" CRLF, "!white space behind a chunk size"),
        ROW("10000000000000005" CRLF, "!a chunk size of too many digits"),
        ROW("00000000000000005" CRLF, "!a chunk size of too many digits"),
        /* the count begins anew with each chunk */
        ROW("000000001" CRLF "x" CRLF "000000001" CRLF "y" CRLF LAST, "xy"),
    };

    (void)state;
    CHECK(rows);
}

static void test_data(void **state)
{
    static const struct row rows[] = {
        ROW("5" CRLF "helloXX" CRLF, "hello!a chunk that is longer than its size"),
        ROW("5" CRLF "hello0" CRLF CRLF, "hello!a chunk that is longer than its size"),
        ROW("5" CRLF "hello\n0" CRLF CRLF, "hello!a chunk that is longer than its size"),
        ROW("6" CRLF "hello" CRLF LAST, "hello\r!a chunk that is longer than its size"),
        ROW("5" CRLF "hello\rX", "hello!a bare CR behind a chunk"),
        ROW("5" CRLF "hello" CRLF CRLF LAST, "hello!a chunk without a size"),
        ROW("3" CRLF "foo" CRLF CRLF, "foo!a chunk without a size"),
    };

    (void)state;
    CHECK(rows);
}

static void test_extensions(void **state)
{
    static const struct row rows[] = {
        ROW("5;x" CRLF "hello" CRLF LAST, "hello"),
        ROW("5;x=y" CRLF "hello" CRLF "0;z" CRLF CRLF, "hello"),
        ROW("5;x=1;y=\"q\"" CRLF "hello" CRLF LAST, "hello"),
        ROW("5;x=\"a;b\\\"\\c\t \xff\"" CRLF "hello" CRLF LAST, "hello"),
        ROW("5;x=\"\";y" CRLF "hello" CRLF LAST, "hello"),
        ROW("5 \t; \tx \t= \ty \t;z=\"q\" ;a" CRLF "hello" CRLF LAST, "hello"),
        ROW("5; some; parameters=stuff" CRLF "hello" CRLF LAST, "hello"),
        ROW("5;" CRLF, "!a chunk extension without a name"),
        ROW("5;;x" CRLF, "!a chunk extension without a name"),
        ROW("5;=x" CRLF, "!a chunk extension without a name"),
        ROW("5;\0" CRLF, "!a chunk extension without a name"),
        ROW("5; " CRLF, "!a chunk extension without a name"),
        ROW("5;x;" CRLF, "!a chunk extension without a name"),
        ROW("5;x=" CRLF, "!a chunk extension without a value"),
        ROW("5;x=;y" CRLF, "!a chunk extension without a value"),
        ROW("5;x==y" CRLF, "!a chunk extension without a value"),
        ROW("5;x " CRLF, "!white space behind a chunk extension"),
        ROW("5;x y" CRLF, "!white space behind a chunk extension"),
        ROW("5;x=y " CRLF, "!white space behind a chunk size"),
        ROW("5;x=y z" CRLF, "!white space behind a chunk size"),
        ROW("5;x=\"y\"z" CRLF, "!a bad chunk extension"),
        ROW("5;x=y\"z\"" CRLF, "!a bad chunk extension"),
        ROW("5;x[=y" CRLF, "!a bad chunk extension"),
        ROW("5;x=y,z" CRLF, "!a bad chunk extension"),
        ROW("5;x\n", "!a bad chunk extension"),
        ROW("5;x\rX" CRLF, "!a bare CR behind a chunk size"),
        ROW("5;x=\"y" CRLF, "!a quoted string that does not end"),
        ROW("5;x=\"y\n\"" CRLF, "!a quoted string that does not end"),
        ROW("5;x=\"y\x7f\"" CRLF, "!a quoted string that does not end"),
        ROW("5;x=\"y\\" CRLF, "!a control character in a chunk extension"),
        ROW("5;x=\"y\\\0\"" CRLF, "!a control character in a chunk extension"),
    };

    (void)state;
    CHECK(rows);
}

static void test_trailers(void **state)
{
    static const struct row rows[] = {
        ROW("0" CRLF "X-T: 1" CRLF CRLF, ""),
        ROW("1" CRLF "x" CRLF "0" CRLF "X-T:" CRLF "y:\t a\xff:b \t" CRLF CRLF "GET", "x+3"),
        ROW("0" CRLF "Transfer-Encoding: chunked" CRLF "Content-Length: 50" CRLF CRLF, ""),
        ROW("0" CRLF "X", "..."),
        ROW("0" CRLF "X: y" CRLF, "..."),
        ROW("0" CRLF "\n", "!a trailer's name is no token"),
        ROW("0" CRLF " X: y" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF ": y" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF "X : y" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF "X" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF "GET / HTTP/1.1" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF "X: y" CRLF " z" CRLF CRLF, "!a trailer's name is no token"),
        ROW("0" CRLF "X: y\nZ: a" CRLF CRLF, "!a control character in a trailer"),
        ROW("0" CRLF "X: \0" CRLF CRLF, "!a control character in a trailer"),
        ROW("0" CRLF "X: y\rZ", "!a bare CR in a trailer"),
        ROW("0" CRLF "\rX", "!a bare CR behind the trailers"),
        ROW("0" CRLF "\r\r\n", "!a bare CR behind the trailers"),
    };

    (void)state;
    CHECK(rows);
}

/* ---- limits ---- */

/* before, n times c, behind */
static void add(struct buffer *to, const char *before, size_t n, char c, const char *behind)
{
    buffer_append(to, before, strlen(before));
    memset(buffer_reserve(to, n), c, n);
    buffer_added(to, n);
    buffer_append(to, behind, strlen(behind));
}

static void check_fill(const char *before, size_t n, char c, const char *behind, const char *expected)
{
    struct buffer text = {0};

    add(&text, before, n, c, behind);
    check(buffer_span(&text), expected);
    buffer_free(&text);
}

static void test_long_extensions(void **state)
{
    static const char refused[] = "!chunk extensions that are too long";

    (void)state;
    /* The ";" is counted with the size, the CR with the extension. */
    check_fill("1;", 4095, 'a', CRLF "x" CRLF LAST, "x");
    check_fill("1;", 4096, 'a', CRLF "x" CRLF LAST, refused);
    check_fill("1;", 65536, 'a', CRLF "x" CRLF LAST, refused);
    check_fill("1;a=\"", 65536, 'a', "\"" CRLF "x" CRLF LAST, refused);
    check_fill("1", 65536, ' ', ";a" CRLF "x" CRLF LAST, refused);
    check_fill("0;", 65536, 'a', CRLF CRLF, refused);
}

static void test_long_trailers(void **state)
{
    size_t rest = strlen("X: " CRLF CRLF);

    (void)state;
    check_fill("0" CRLF "X: ", 16384 - rest, 'a', CRLF CRLF, "");
    check_fill("0" CRLF "X: ", 16384 - rest + 1, 'a', CRLF CRLF, "!too many trailers");
    check_fill("0" CRLF, 100000, 'a', "", "!too many trailers");
}

/* Why a chunk of n_data bytes and behind it n chunks of one byte with extensions of n_ext are refused; or NULL. */
static const char *tiny_chunks(size_t n_data, size_t n, size_t n_ext)
{
    struct buffer text = {0}, data = {0};
    struct chunked c;
    size_t behind = 0;

    chunked_init(&c, &usual);
    buffer_printf(&text, "%zx" CRLF, n_data);
    add(&text, "", n_data, 'd', CRLF);
    for (size_t i = 0; i < n; i++)
        add(&text, n_ext > 0 ? "1;" : "1", n_ext, 'e', CRLF "x" CRLF);
    buffer_append(&text, LAST, strlen(LAST));
    if (decode_piece(&c, buffer_span(&text), &data, &behind) == CHUNKED_END)
        assert_int_equal(buffer_len(&data), n_data + n);
    buffer_free(&text);
    buffer_free(&data);
    return c.why;
}

/* Why four chunks of one byte with extensions of 3,500 bytes and one with n are refused; or NULL. */
static const char *heavy_chunks(size_t n)
{
    struct buffer text = {0}, data = {0};
    struct chunked c;
    size_t behind = 0;

    chunked_init(&c, &usual);
    for (int i = 0; i < 4; i++)
        add(&text, "1;", 3500, 'e', CRLF "x" CRLF);
    add(&text, "1;", n, 'e', CRLF "x" CRLF LAST);
    decode_piece(&c, buffer_span(&text), &data, &behind);
    buffer_free(&text);
    buffer_free(&data);
    return c.why;
}

/* Framing may be 16 KiB more than data and 16 bytes a chunk. */
static void test_overhead(void **state)
{
    (void)state;
    assert_null(heavy_chunks(2439));
    assert_string_equal(heavy_chunks(2440), "more framing than data");
    assert_null(tiny_chunks(100, 1165, 25)); /* of 31 bytes of framing, 14 are not free */
    assert_string_equal(tiny_chunks(100, 1185, 25), "more framing than data");
    assert_null(tiny_chunks(100000, 8300, 25));
    assert_string_equal(tiny_chunks(100000, 8330, 25), "more framing than data");
    assert_null(tiny_chunks(1, 200000, 0)); /* a client that sends byte by byte */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),        cmocka_unit_test(test_sizes),    cmocka_unit_test(test_data),
        cmocka_unit_test(test_extensions),    cmocka_unit_test(test_trailers), cmocka_unit_test(test_long_extensions),
        cmocka_unit_test(test_long_trailers), cmocka_unit_test(test_overhead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
