#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fastcgi/describe.h"

#define BYTES(literal) ((struct span){"" literal, sizeof(literal) - 1})

static void terminate(struct buffer *b)
{
    buffer_append(b, "", 1);
}

/* The lines of the bytes, each with LF behind it, read in pieces of `step` bytes, each of which stands alone. */
static void read_lines(struct buffer *lines, struct span bytes, size_t step)
{
    struct describer *d = memory_resize(NULL, sizeof *d);

    describer_init(d);
    while (bytes.len > 0) {
        size_t n = step < bytes.len ? step : bytes.len;
        char *piece = memory_copy(bytes.at, n);
        struct span input = {piece, n};

        while (describer_next(d, &input, lines))
            buffer_append(lines, "\n", 1);
        free(piece);
        bytes = span_from(bytes, n);
    }
    if (describer_end(d, lines))
        buffer_append(lines, "\n", 1);
    free(d);
}

/* However the bytes come, they give these lines. */
static void check(struct span bytes, const char *expected)
{
    for (size_t step = 1; step <= bytes.len + 1; step += step < 32 ? 1 : 997) {
        struct buffer lines = {0};

        read_lines(&lines, bytes, step);
        terminate(&lines);
        assert_string_equal(buffer_at(&lines), expected);
        buffer_free(&lines);
    }
}

static void describes_what_is_sent(void **state)
{
    struct buffer b = {0};
    struct params params;

    (void)state;
    record_begin(&b, 1, RECORD_RESPONDER, false);
    params_begin(&params, &b, 1);
    params_add(&params, SPAN("SCRIPT_FILENAME"), SPAN("/x"));
    params_add(&params, SPAN("QUERY_STRING"), SPAN("a=1"));
    params_add(&params, SPAN("PATH_INFO"), SPAN(""));
    params_end(&params);
    record_stream(&b, RECORD_STDIN, 1, "hello", 5);
    record_stream_end(&b, RECORD_STDIN, 1);
    record_stream(&b, RECORD_DATA, 1, "datadata", 8);
    record_abort(&b, 1);
    check(buffer_span(&b), "BEGIN_REQUEST id 1, responder, keep no\n"
                           "PARAMS id 1, 47 bytes: SCRIPT_FILENAME=/x QUERY_STRING=a=1 PATH_INFO=\n"
                           "PARAMS id 1, end\n"
                           "STDIN id 1, 5 bytes\n"
                           "STDIN id 1, end\n"
                           "DATA id 1, 8 bytes\n"
                           "ABORT_REQUEST id 1\n");
    buffer_free(&b);
}

static void describes_roles_and_flags(void **state)
{
    struct buffer b = {0};

    (void)state;
    record_begin(&b, 0x1234, RECORD_AUTHORIZER, true);
    record_begin(&b, 2, RECORD_FILTER, true);
    check(buffer_span(&b), "BEGIN_REQUEST id 4660, authorizer, keep yes\nBEGIN_REQUEST id 2, filter, keep yes\n");
    buffer_free(&b);
    check(BYTES("\1\1\0\1\0\10\0\0\0\0\0\0\0\0\0\0"), "BEGIN_REQUEST id 1, role 0, keep no\n");
    check(BYTES("\1\1\0\1\0\10\0\0\1\4\x83\0\0\0\0\0"), "BEGIN_REQUEST id 1, role 260, keep yes, flags 0x83\n");
    check(BYTES("\1\1\0\1\0\3\0\0\0\1\0"), "BEGIN_REQUEST id 1, 3 bytes\n");
}

static void describes_what_comes(void **state)
{
    (void)state;
    check(BYTES("\1\6\0\1\0\5\3\0hello\0\0\0\1\6\0\1\0\0\0\0\1\7\0\1\0\1\0\0!"),
          "STDOUT id 1, 5 bytes\nSTDOUT id 1, end\nSTDERR id 1, 1 bytes\n");
    check(BYTES("\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0\0"), "END_REQUEST id 1, appStatus 0, REQUEST_COMPLETE\n");
    check(BYTES("\1\3\0\1\0\10\0\0\xff\xff\xff\xff\1\0\0\0"),
          "END_REQUEST id 1, appStatus 4294967295, CANT_MPX_CONN\n");
    check(BYTES("\1\3\0\1\0\10\0\0\0\0\1\0\2\0\0\0"), "END_REQUEST id 1, appStatus 256, OVERLOADED\n");
    check(BYTES("\1\3\0\1\0\10\0\0\0\0\0\1\3\0\0\0"), "END_REQUEST id 1, appStatus 1, UNKNOWN_ROLE\n");
    check(BYTES("\1\3\0\1\0\10\0\0\0\0\0\0\4\0\0\0"), "END_REQUEST id 1, appStatus 0, protocolStatus 4\n");
    check(BYTES("\1\13\0\0\0\10\0\0\11\0\0\0\0\0\0\0"), "UNKNOWN_TYPE id 0, of type 9, GET_VALUES\n");
    check(BYTES("\1\13\0\0\0\10\0\0\14\0\0\0\0\0\0\0"), "UNKNOWN_TYPE id 0, of type 12\n");
    check(BYTES("\1\13\0\0\0\1\0\0\11"), "UNKNOWN_TYPE id 0, 1 bytes\n");
    check(BYTES("\1\x63\0\1\0\3\0\0abc\1\0\0\0\0\0\0\0"), "type 99 id 1, 3 bytes\ntype 0 id 0, 0 bytes\n");
}

static void describes_values(void **state)
{
    struct buffer b = {0};

    (void)state;
    record_get_values(&b);
    check(buffer_span(&b), "GET_VALUES id 0, 48 bytes: FCGI_MAX_CONNS FCGI_MAX_REQS FCGI_MPXS_CONNS\n");
    buffer_free(&b);
    check(BYTES("\1\12\0\0\0\7\0\0\3\2ABC10"), "GET_VALUES_RESULT id 0, 7 bytes: ABC=10\n");
    check(BYTES("\1\12\0\0\0\0\0\0"), "GET_VALUES_RESULT id 0, 0 bytes\n");
}

static void describes_what_is_no_pair(void **state)
{
    (void)state;
    check(BYTES("\1\4\0\1\0\7\0\0\1\1A1\x09\x09x"), "PARAMS id 1, 7 bytes: A=1 ... (3 bytes, not a whole pair)\n");
    check(BYTES("\1\12\0\0\0\1\0\0\1"), "GET_VALUES_RESULT id 0, 1 bytes: ... (1 bytes, not a whole pair)\n");
    check(BYTES("\1\4\0\1\0\5\0\0\xff\xff\xff\xff\1"), "PARAMS id 1, 5 bytes: ... (5 bytes, not a whole pair)\n");
}

static void describe_pair(struct span name, struct span value, const char *expected)
{
    struct buffer b = {0}, lines = {0};
    struct params params;
    const char *list;

    params_begin(&params, &b, 1);
    params_add(&params, name, value);
    params_end(&params);
    read_lines(&lines, buffer_span(&b), 7);
    terminate(&lines);
    list = strstr(buffer_at(&lines), ": ");
    assert_non_null(list);
    assert_memory_equal(list + 2, expected, strlen(expected));
    assert_string_equal(list + 2 + strlen(expected), "\nPARAMS id 1, end\n");
    buffer_free(&b);
    buffer_free(&lines);
}

static void escapes(void **state)
{
    (void)state;
    describe_pair(SPAN("A\nB"), SPAN("\x1b[31m\0\x7f"), "A\\x0aB=\\x1b[31m\\x00\\x7f");
    describe_pair(SPAN("A"), SPAN("b C=d"), "A=\"b C=d\"");
    describe_pair(SPAN("A"), SPAN("b\" C=\"d"), "A=\"b\\\" C=\\\"d\"");
    describe_pair(SPAN("A"), SPAN("b\\"), "A=b\\\\");
    describe_pair(SPAN("A=B"), SPAN("c"), "\"A=B\"=c");
    describe_pair(SPAN(""), SPAN(""), "\"\"=");
    describe_pair(SPAN("A"), SPAN("\xc3\xa4\xc2\x9b\xff"), "A=\xc3\xa4\\xc2\\x9b\\xff");
}

static void cuts_long_texts(void **state)
{
    char value[2000], expected[200];

    (void)state;
    memset(value, 'v', sizeof value);
    snprintf(expected, sizeof expected, "A=%.80s", value);
    describe_pair(SPAN("A"), (struct span){value, 80}, expected);
    snprintf(expected, sizeof expected, "A=%.80s...[81 bytes]", value);
    describe_pair(SPAN("A"), (struct span){value, 81}, expected);
    snprintf(expected, sizeof expected, "%.80s...[2000 bytes]=", value);
    describe_pair((struct span){value, 2000}, SPAN(""), expected);
    /* no character is cut in two */
    memcpy(value + 78, "\xe2\x82\xac", 3);
    snprintf(expected, sizeof expected, "A=%.78s...[100 bytes]", value);
    describe_pair(SPAN("A"), (struct span){value, 100}, expected);
    memcpy(value + 77, "\xe2\x82\xac", 3);
    value[80] = 'v';
    snprintf(expected, sizeof expected, "A=%.80s...[100 bytes]", value);
    describe_pair(SPAN("A"), (struct span){value, 100}, expected);
}

static void cuts_long_lists(void **state)
{
    struct buffer b = {0}, lines = {0};
    struct params params;
    char value[80];

    (void)state;
    memset(value, '\1', sizeof value); /* each becomes four */
    params_begin(&params, &b, 1);
    for (int i = 0; i < 3000; i++)
        params_add(&params, (struct span){value, sizeof value}, (struct span){value, sizeof value});
    params_end(&params);
    read_lines(&lines, buffer_span(&b), 1000);
    terminate(&lines);

    unsigned n_lines = 0;
    for (char *at = buffer_at(&lines), *lf; (lf = strchr(at, '\n')) != NULL; at = lf + 1, n_lines++) {
        assert_true(lf - at <= DESCRIBE_LONGEST);
        *lf = '\0';
        assert_true(strstr(at, " bytes more)") != NULL || strcmp(at, "PARAMS id 1, end") == 0);
    }
    /* 162 bytes a pair, 404 of them a record */
    assert_int_equal(n_lines, 3000 / 404 + 1 + 1);
    assert_non_null(strstr(buffer_at(&lines), "PARAMS id 1, 65448 bytes: "));
    /* four pairs are shown: their texts take 642 bytes each */
    assert_non_null(strstr(buffer_at(&lines), " ... (64800 bytes more)"));
    buffer_free(&b);
    buffer_free(&lines);
}

static void tells_what_is_missing(void **state)
{
    (void)state;
    check(BYTES("\1\6\0\1\0\5\3\0hel"), "STDOUT id 1, 3 of 5 bytes, the rest is missing\n");
    check(BYTES("\1\6\0\1\0\5\3\0hello\0"), "STDOUT id 1, 5 bytes\nthe rest of a record is missing\n");
    check(BYTES("\1\6\0"), "the rest of a record is missing\n");
    check(BYTES("\1\3\0\1\0\10\0\0\0"), "the rest of a record is missing\n");
    check(BYTES(""), "");
}

static void tells_what_is_bad(void **state)
{
    (void)state;
    check(BYTES("\1\6\0\1\0\1\0\0.HTTP/1.1 400 Bad Request\r\n\r\n"),
          "STDOUT id 1, 1 bytes\nbad record: a record of another version, it begins \"HTTP/1.1\"\n");
    check(BYTES("\0\33[2J\"\n\0\1\6"),
          "bad record: a record of another version, it begins \"\\x00\\x1b[2J\\\"\\x0a\\x00\"\n");
    check(BYTES("\1\3\0\1\0\7\0\0........"), "bad record: an END_REQUEST of the wrong size\n");
    check(BYTES("\1\12\0\0\4\1\0\0........"), "bad record: a record that is no stream's and too long\n");
}

/* One event alone, as who has a record in memory gives it. */
static void describes_single_events(void **state)
{
    struct record_event event = {.kind = RECORD_BYTES, .type = RECORD_PARAMS, .id = 1, .bytes = BYTES("\1\1A1\2\5BCd")};
    struct buffer b = {0};

    (void)state;
    record_describe(&b, &event);
    terminate(&b);
    assert_string_equal(buffer_at(&b), "PARAMS id 1, 9 bytes: A=1 ... (5 bytes, not a whole pair)");
    buffer_clear(&b);
    event.kind = RECORD_MORE;
    record_describe(&b, &event);
    assert_int_equal(buffer_len(&b), 0);
    describe_text(&b, BYTES("a \"\n"));
    terminate(&b);
    assert_string_equal(buffer_at(&b), "\"a \\\"\\x0a\"");
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_what_is_sent),    cmocka_unit_test(describes_roles_and_flags),
        cmocka_unit_test(describes_what_comes),      cmocka_unit_test(describes_values),
        cmocka_unit_test(describes_what_is_no_pair), cmocka_unit_test(escapes),
        cmocka_unit_test(cuts_long_texts),           cmocka_unit_test(cuts_long_lists),
        cmocka_unit_test(tells_what_is_missing),     cmocka_unit_test(tells_what_is_bad),
        cmocka_unit_test(describes_single_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
