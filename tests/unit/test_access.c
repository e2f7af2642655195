/* The three formats of the access log, to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>

#include "access.h"

/* 2026-11-23T06:01:34.007Z */
#define RECORD_TIME                                                                                                    \
    {                                                                                                                  \
        1795413694, 7999999                                                                                            \
    }

static const struct access_record full = {
    .time = RECORD_TIME,
    .id = {"9f2c", 4},
    .client = {"192.0.2.7", 9},
    .method = {"GET", 3},
    .target = {"/cgi-bin/hello.py?x", 19},
    .protocol = {"HTTP/1.1", 8},
    .status = 200,
    .bytes_in = 12,
    .bytes_out = 318,
    .site = {"example.org", 11},
    .route = {"/cgi-bin/*", 10},
    .gateway = {"cgi", 3},
    .pid = 4711,
    .phase_us = {31, 1204, 18911, 102, 240, 19312},
    .cpu_us = 17020,
    .max_rss_kib = 9320,
    .exit_code = 0,
    .stderr_bytes = 5,
    .retries = 1,
    .referer = {"http://r/", 9},
    .user_agent = {"curl/7.88.1", 11},
};

static const struct access_record empty = {
    .time = RECORD_TIME,
    .phase_us = {PHASE_NONE, PHASE_NONE, PHASE_NONE, PHASE_NONE, PHASE_NONE, PHASE_NONE},
    .cpu_us = PHASE_NONE,
    .max_rss_kib = PHASE_NONE,
    .exit_code = -1,
};

/* What access_format() makes of a record, behind bytes that were there before. Owned by the caller. */
static char *formatted(enum access_format format, bool colour, const struct access_record *record)
{
    struct buffer to = {0};

    buffer_append(&to, "xy", 2);
    buffer_consume(&to, 1);
    access_format(&to, format, colour, record);
    buffer_append(&to, "", 1);
    assert_int_equal(buffer_at(&to)[0], 'y');
    memmove(to.memory, buffer_at(&to) + 1, buffer_len(&to) - 1);
    return to.memory;
}

static void expect(enum access_format format, const struct access_record *record, const char *line)
{
    char *text = formatted(format, false, record);

    assert_string_equal(text, line);
    free(text);
}

static void test_combined(void **state)
{
    (void)state;
    expect(ACCESS_COMBINED, &full,
           "192.0.2.7 - - [23/Nov/2026:06:01:34 +0000] \"GET /cgi-bin/hello.py?x HTTP/1.1\" 200 318 "
           "\"http://r/\" \"curl/7.88.1\"\n");
    expect(ACCESS_COMBINED, &empty, "- - - [23/Nov/2026:06:01:34 +0000] \"-\" - - \"-\" \"-\"\n");
}

static void test_combined_time(void **state)
{
    struct access_record record = empty;

    (void)state;
    record.time.tv_sec = 0;
    expect(ACCESS_COMBINED, &record, "- - - [01/Jan/1970:00:00:00 +0000] \"-\" - - \"-\" \"-\"\n");
    record.time.tv_sec = 951782399 + 86400; /* the leap day of 2000, its last second */
    expect(ACCESS_COMBINED, &record, "- - - [29/Feb/2000:23:59:59 +0000] \"-\" - - \"-\" \"-\"\n");
    record.time.tv_sec++;
    expect(ACCESS_COMBINED, &record, "- - - [01/Mar/2000:00:00:00 +0000] \"-\" - - \"-\" \"-\"\n");
}

static void test_combined_escapes(void **state)
{
    struct access_record record = full;

    (void)state;
    record.method = SPAN("GET");
    record.target = SPAN("/\"\\\n\x1b[2J\0\x7f\xc3\xa9");
    record.referer = SPAN("\r\n1.2.3.4 - -");
    record.user_agent = SPAN("\"");
    expect(ACCESS_COMBINED, &record,
           "192.0.2.7 - - [23/Nov/2026:06:01:34 +0000] \"GET /\\\"\\\\\\x0a\\x1b[2J\\x00\\x7f\\xc3\\xa9 HTTP/1.1\" "
           "200 318 \"\\x0d\\x0a1.2.3.4 - -\" \"\\\"\"\n");
}

static void test_json(void **state)
{
    (void)state;
    expect(ACCESS_JSON, &full,
           "{\"time\":\"2026-11-23T06:01:34.007Z\",\"id\":\"9f2c\",\"client\":\"192.0.2.7\",\"method\":\"GET\","
           "\"uri\":\"/cgi-bin/hello.py?x\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes_in\":12,"
           "\"bytes_out\":318,\"site\":\"example.org\",\"route\":\"/cgi-bin/*\",\"gateway\":\"cgi\",\"pool\":null,"
           "\"pid\":4711,\"queue_ms\":0.031,\"start_ms\":1.204,\"first_ms\":18.911,\"body_ms\":0.102,"
           "\"reap_ms\":0.240,\"total_ms\":19.312,\"cpu_ms\":17.020,\"max_rss_kib\":9320,\"exit\":0,"
           "\"signal\":null,\"stderr_bytes\":5,\"retries\":1,\"referer\":\"http://r/\","
           "\"user_agent\":\"curl/7.88.1\"}\n");
    expect(ACCESS_JSON, &empty,
           "{\"time\":\"2026-11-23T06:01:34.007Z\",\"id\":null,\"client\":null,\"method\":null,\"uri\":null,"
           "\"protocol\":null,\"status\":null,\"bytes_in\":0,\"bytes_out\":0,\"site\":null,\"route\":null,"
           "\"gateway\":null,\"pool\":null,\"pid\":null,\"queue_ms\":null,\"start_ms\":null,\"first_ms\":null,"
           "\"body_ms\":null,\"reap_ms\":null,\"total_ms\":null,\"cpu_ms\":null,\"max_rss_kib\":null,\"exit\":null,"
           "\"signal\":null,\"stderr_bytes\":0,\"retries\":0,\"referer\":null,\"user_agent\":null}\n");
}

/* The line must hold `"name":value`. */
static void expect_member(const struct access_record *record, const char *member)
{
    char *text = formatted(ACCESS_JSON, false, record);

    if (strstr(text, member) == NULL)
        fail_msg("no %s in %s", member, text);
    free(text);
}

static void test_json_strings(void **state)
{
    static const struct {
        struct span in;
        const char *out;
    } cases[] = {
        {{"a\"b\\c/", 6}, "\"uri\":\"a\\\"b\\\\c/\","},
        {{"\0\x1f\n\x7f", 4}, "\"uri\":\"\\u0000\\u001f\\u000a\\u007f\","},
        {{"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9}, "\"uri\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\","},
        {{"\xc2\x9b\xc2\xa0", 4}, "\"uri\":\"\\u009b\xc2\xa0\","}, /* CSI; no-break space */
        {{"a\xff", 2}, "\"uri\":\"a\xef\xbf\xbd\","},
        {{"\xc3", 1}, "\"uri\":\"\xef\xbf\xbd\","}, /* cut */
        {{"\xc3(", 2}, "\"uri\":\"\xef\xbf\xbd(\","},
        {{"\xc0\xaf", 2}, "\"uri\":\"\xef\xbf\xbd\xef\xbf\xbd\","}, /* overlong */
        {{"\xe0\x80\xaf", 3}, "\"uri\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\","},
        {{"\xed\xa0\x80", 3}, "\"uri\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\","}, /* surrogate */
        {{"\xf4\x90\x80\x80", 4}, "\"uri\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\","},
    };
    struct access_record record = full;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record.target = cases[i].in;
        expect_member(&record, cases[i].out);
    }
}

static void test_json_numbers(void **state)
{
    struct access_record record = full;

    (void)state;
    record.signal = SIGSEGV;
    expect_member(&record, "\"signal\":\"SIGSEGV\",");
    record.signal = SIGKILL;
    expect_member(&record, "\"signal\":\"SIGKILL\",");
    record.signal = 40;
    expect_member(&record, "\"signal\":\"SIG40\",");
    record.exit_code = 255;
    expect_member(&record, "\"exit\":255,");
    record.phase_us[PHASE_TOTAL] = 0;
    expect_member(&record, "\"total_ms\":0.000,");
    record.phase_us[PHASE_TOTAL] = 3600000001;
    expect_member(&record, "\"total_ms\":3600000.001,");
    record.bytes_out = UINT64_MAX;
    expect_member(&record, "\"bytes_out\":18446744073709551615,");
}

/* The longest that one byte can become, for every byte: the worst case was reserved. */
static void test_worst_case(void **state)
{
    static char bytes[20000];
    struct access_record record = full;

    (void)state;
    memset(bytes, 0x1b, sizeof bytes);
    record.target = record.user_agent = record.referer = record.id = (struct span){bytes, sizeof bytes};
    for (int format = ACCESS_COMBINED; format <= ACCESS_PRETTY; format++) {
        char *text = formatted((enum access_format)format, false, &record);

        assert_true(strlen(text) > sizeof bytes);
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        assert_null(strchr(text, 0x1b));
        free(text);
    }
}

static void test_pretty(void **state)
{
    struct access_record record = full;

    (void)state;
    record.stderr_bytes = record.retries = 0;
    expect(ACCESS_PRETTY, &record,
           "06:01:34  200  GET   /cgi-bin/hello.py?x                 cgi pid 4711              "
           "start 1.204  first 18.9  total 19.3 ms\n");
    record.target = SPAN("/caf\xc3\xa9\x1b");
    record.gateway = SPAN("fastcgi");
    record.pool = SPAN("php");
    record.phase_us[PHASE_QUEUE] = 99949;
    record.phase_us[PHASE_START] = 0;
    record.phase_us[PHASE_FIRST] = 99950;
    record.phase_us[PHASE_TOTAL] = 12345678;
    record.exit_code = 3;
    expect(ACCESS_PRETTY, &record,
           "06:01:34  200  GET   /caf\xc3\xa9\\x1b                           fastcgi php pid 4711      "
           "queue 99.9  start 0.000  first 100  total 12346 ms  exit 3\n");
    expect(ACCESS_PRETTY, &empty,
           "06:01:34  ---  ?     -                                   -                         \n");
}

static void test_pretty_troubles(void **state)
{
    struct access_record record = full;
    char *text;

    (void)state;
    record.signal = SIGSEGV;
    record.status = 502;
    text = formatted(ACCESS_PRETTY, false, &record);
    assert_non_null(strstr(text, " ms  killed by SIGSEGV  stderr 5 bytes  retried 1\n"));
    assert_null(strchr(text, 0x1b));
    free(text);
    text = formatted(ACCESS_PRETTY, true, &record);
    assert_non_null(strstr(text, "\x1b[1;31m502\x1b[0m"));
    assert_non_null(strstr(text, "\x1b[0m\n"));
    free(text);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(phase_names[PHASE_QUEUE], "queue");
    assert_string_equal(phase_names[PHASE_TOTAL], "total");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combined),         cmocka_unit_test(test_combined_time),
        cmocka_unit_test(test_combined_escapes), cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_strings),     cmocka_unit_test(test_json_numbers),
        cmocka_unit_test(test_worst_case),       cmocka_unit_test(test_pretty),
        cmocka_unit_test(test_pretty_troubles),  cmocka_unit_test(test_names),
    };

    setenv("TZ", "UTC", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
