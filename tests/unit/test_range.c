#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>

#include "head_of.h"

#include "http/range.h"

#define HUGE "340282366920938463463374607431768211456" /* 2^128 */

/* What is expected, as text: "whole", "416", or the ranges: "0-99 200-299". */
static const struct {
    const char *fields;
    uint64_t size;
    const char *expected;
} table[] = {
    {"", 100, "whole"},
    {"", 0, "whole"},
    {"Content-Range: bytes 0-0/100\nIf-Range: bytes=0-0", 100, "whole"},
    {"Range: bytes=0-9", 100, "0-9"},
    {"rANGE: bytes=0-9", 100, "0-9"},

    /* RFC 9110 section 14.1.2, its examples */
    {"Range: bytes=0-499", 10000, "0-499"},
    {"Range: bytes=500-999", 10000, "500-999"},
    {"Range: bytes=-500", 10000, "9500-9999"},
    {"Range: bytes=9500-", 10000, "9500-9999"},
    {"Range: bytes=0-0,-1", 10000, "0-0 9999-9999"},
    {"Range: bytes= 0-999, 4500-5499, -1000", 10000, "0-999 4500-5499 9000-9999"},
    {"Range: bytes=500-600,601-999", 10000, "500-600 601-999"},
    {"Range: bytes=500-700,601-999", 10000, "500-700 601-999"},

    /* a first and a last position */
    {"Range: bytes=0-0", 1, "0-0"},
    {"Range: bytes=0-", 1, "0-0"},
    {"Range: bytes=0-", 100, "0-99"},
    {"Range: bytes=99-", 100, "99-99"},
    {"Range: bytes=99-99", 100, "99-99"},
    {"Range: bytes=0-99", 100, "0-99"},
    {"Range: bytes=0-100", 100, "0-99"},
    {"Range: bytes=50-9999", 100, "50-99"},
    {"Range: bytes=100-", 100, "416"},
    {"Range: bytes=100-200", 100, "416"},
    {"Range: bytes=0-", 0, "416"},
    {"Range: bytes=0-0", 0, "416"},
    {"Range: bytes=1-0", 100, "whole"},
    {"Range: bytes=200-100", 100, "whole"},
    {"Range: bytes=007-0000000000000000000000000000008", 100, "7-8"},
    {"Range: bytes=0000000000000000000000000000007-8", 100, "7-8"},
    {"Range: bytes=00000000000000000000000000000009-8", 100, "whole"},
    {"Range: bytes=000-00", 100, "0-0"},

    /* a suffix */
    {"Range: bytes=-1", 100, "99-99"},
    {"Range: bytes=-99", 100, "1-99"},
    {"Range: bytes=-100", 100, "0-99"},
    {"Range: bytes=-101", 100, "0-99"},
    {"Range: bytes=-00000000000000000000000000000000000002", 100, "98-99"},
    {"Range: bytes=-0", 100, "416"},
    {"Range: bytes=-000", 100, "416"},
    {"Range: bytes=-0", 0, "416"},
    {"Range: bytes=-1", 0, "whole"},
    {"Range: bytes=-" HUGE, 0, "whole"},
    {"Range: bytes=0-0,-1", 0, "whole"},
    {"Range: bytes=-1,0-0", 0, "whole"},
    {"Range: bytes=0-0,-0", 0, "416"},

    /* large numbers: 2^63, 2^64, and beyond */
    {"Range: bytes=9223372036854775807-", 9223372036854775808U, "9223372036854775807-9223372036854775807"},
    {"Range: bytes=0-18446744073709551615", 100, "0-99"},
    {"Range: bytes=0-18446744073709551616", 100, "0-99"},
    {"Range: bytes=0-18446744073709551620", 100, "0-99"},
    {"Range: bytes=0-" HUGE, 100, "0-99"},
    {"Range: bytes=0-184467440737095516150", 100, "0-99"},
    {"Range: bytes=18446744073709551615-", 100, "416"},
    {"Range: bytes=18446744073709551616-", 100, "416"},
    {"Range: bytes=18446744073709551617-18446744073709551618", 100, "416"},
    {"Range: bytes=" HUGE "-", 100, "416"},
    {"Range: bytes=" HUGE "-" HUGE, 100, "416"},
    {"Range: bytes=" HUGE "-" HUGE "0", 100, "416"},
    {"Range: bytes=" HUGE "0-" HUGE, 100, "whole"},
    {"Range: bytes=18446744073709551618-18446744073709551617", 100, "whole"},
    {"Range: bytes=" HUGE "-0", 100, "whole"},
    {"Range: bytes=-18446744073709551616", 100, "0-99"},
    {"Range: bytes=-" HUGE, 100, "0-99"},
    {"Range: bytes=0-", UINT64_MAX, "0-18446744073709551614"},
    {"Range: bytes=0-18446744073709551615", UINT64_MAX, "0-18446744073709551614"},
    {"Range: bytes=18446744073709551614-" HUGE, UINT64_MAX, "18446744073709551614-18446744073709551614"},
    {"Range: bytes=18446744073709551615-", UINT64_MAX, "416"},
    {"Range: bytes=-18446744073709551615", UINT64_MAX, "0-18446744073709551614"},
    {"Range: bytes=-18446744073709551614", UINT64_MAX, "1-18446744073709551614"},
    {"Range: bytes=-" HUGE ",-1", UINT64_MAX, "whole"},
    {"Range: bytes=0-,0-", UINT64_MAX, "whole"},

    /* the unit: a token of any case */
    {"Range: BYTES=0-0", 100, "0-0"},
    {"Range: ByTeS=0-0", 100, "0-0"},
    {"Range: items=0-0", 100, "whole"},
    {"Range: byte=0-0", 100, "whole"},
    {"Range: bytess=0-0", 100, "whole"},
    {"Range: bytes", 100, "whole"},
    {"Range: byte", 100, "whole"},
    {"Range: =0-0", 100, "whole"},
    {"Range: 0-0", 100, "whole"},
    {"Range:", 100, "whole"},
    {"Range: bytes 0-0", 100, "whole"},
    {"Range: bytes =0-0", 100, "whole"},
    {"Range: bytes:0-0", 100, "whole"},
    {"Range: \"bytes\"=0-0", 100, "whole"},
    {"Range: xbytes=0-0", 100, "whole"},

    /* the list: section 5.6.1 */
    {"Range: bytes=0-1,", 100, "0-1"},
    {"Range: bytes=,0-1", 100, "0-1"},
    {"Range: bytes=, ,\t0-1 ,,\t5-6,,", 100, "0-1 5-6"},
    {"Range: bytes=0-1 \t, \t5-6", 100, "0-1 5-6"},
    {"Range: bytes=", 100, "whole"},
    {"Range: bytes=,", 100, "whole"},
    {"Range: bytes=, ,", 100, "whole"},
    {"Range: bytes=,", 0, "whole"},

    /* sent more than once */
    {"Range: bytes=0-1\nRange: bytes=0-1", 100, "whole"},
    {"Range: bytes=0-1\nHost: a\nrange: bytes=5-6", 100, "whole"},
    {"Range: bytes=0-1\nRange:", 100, "whole"},
    {"Range: items=0-1\nRange: bytes=0-1", 100, "whole"},
    {"Range: bytes=100-\nRange: bytes=100-", 100, "whole"},

    /* outside the grammar: one bad member spoils all */
    {"Range: bytes=-", 100, "whole"},
    {"Range: bytes=x", 100, "whole"},
    {"Range: bytes=5", 100, "whole"},
    {"Range: bytes=*", 100, "whole"},
    {"Range: bytes=--1", 100, "whole"},
    {"Range: bytes=-1-", 100, "whole"},
    {"Range: bytes=-1-2", 100, "whole"},
    {"Range: bytes=-5--1", 100, "whole"},
    {"Range: bytes=0--1", 100, "whole"},
    {"Range: bytes=0-1-2", 100, "whole"},
    {"Range: bytes=+0-1", 100, "whole"},
    {"Range: bytes=0-+1", 100, "whole"},
    {"Range: bytes=0x0-0x1", 100, "whole"},
    {"Range: bytes=0.0-1", 100, "whole"},
    {"Range: bytes=1e1-", 100, "whole"},
    {"Range: bytes=a-b", 100, "whole"},
    {"Range: bytes=0 -1", 100, "whole"},
    {"Range: bytes=0- 1", 100, "whole"},
    {"Range: bytes=- 1", 100, "whole"},
    {"Range: bytes=0-1 2-3", 100, "whole"},
    {"Range: bytes=0-1;2-3", 100, "whole"},
    {"Range: bytes=0-1/100", 100, "whole"},
    {"Range: bytes=bytes=0-1", 100, "whole"},
    {"Range: bytes==0-1", 100, "whole"},
    {"Range: bytes=\"0-1\"", 100, "whole"},
    {"Range: bytes=0\xe2\x80\x93"
     "1",
     100, "whole"},
    {"Range: bytes=\xd9\xa0-1", 100, "whole"},
    {"Range: bytes=0-1,x", 100, "whole"},
    {"Range: bytes=x,0-1", 100, "whole"},
    {"Range: bytes=0-1,5-4", 100, "whole"},
    {"Range: bytes=5-4,0-1", 100, "whole"},
    {"Range: bytes=100-,x", 100, "whole"},
    {"Range: bytes=100-,200-150", 100, "whole"},
    {"Range: bytes=-1,x", 0, "whole"},
    {"Range: bytes=0-1, items=0-1", 100, "whole"},

    /* what is beyond the end is left out, and 416 if nothing remains: section 15.5.17 */
    {"Range: bytes=0-0,100-,5-5", 100, "0-0 5-5"},
    {"Range: bytes=100-,0-0", 100, "0-0"},
    {"Range: bytes=-0,0-0", 100, "0-0"},
    {"Range: bytes=100-,200-300,-0", 100, "416"},

    /* in the order asked for, and as they are; together not more than the whole */
    {"Range: bytes=50-59,0-9", 100, "50-59 0-9"},
    {"Range: bytes=-1,0-0", 100, "99-99 0-0"},
    {"Range: bytes=0-0,0-0,0-0", 100, "0-0 0-0 0-0"},
    {"Range: bytes=0-49,50-99", 100, "0-49 50-99"},
    {"Range: bytes=0-49,0-49", 100, "0-49 0-49"},
    {"Range: bytes=0-49,0-50", 100, "whole"},
    {"Range: bytes=0-50,50-99", 100, "whole"},
    {"Range: bytes=0-,-1", 100, "whole"},
    {"Range: bytes=-1,0-", 100, "whole"},
    {"Range: bytes=0-,0-,0-", 100, "whole"},
    {"Range: bytes=0-,100-", 100, "0-99"},
    {"Range: bytes=0-0,0-0", 1, "whole"},
};

static const char *result_of(const struct head *head, uint64_t size)
{
    static char text[RANGE_MOST * 48];
    struct ranges ranges;
    char *end = text;

    switch (range_read(head, size, &ranges)) {
    case RANGE_WHOLE:
        return "whole";
    case RANGE_UNSATISFIABLE:
        return "416";
    case RANGE_PARTS:
        break;
    }
    assert_in_range(ranges.n, 1, RANGE_MOST);
    for (unsigned i = 0; i < ranges.n; i++)
        end += sprintf(end, "%s%" PRIu64 "-%" PRIu64, i == 0 ? "" : " ", ranges.at[i].first, ranges.at[i].last);
    return text;
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *result = result_of(head_of(table[i].fields), table[i].size);

        if (strcmp(result, table[i].expected) != 0)
            fail_msg("%s\nof %" PRIu64 ": %s", table[i].fields, table[i].size, result);
    }
}

/* n times the same range, parted by commas; the last one is another. */
static const char *list_of(size_t n, const char *range, const char *last)
{
    static char text[16384];
    char *end = text + sprintf(text, "Range: bytes=");

    for (size_t i = 1; i < n; i++)
        end += sprintf(end, "%s,", range);
    sprintf(end, "%s", last);
    return text;
}

static void test_most(void **state)
{
    struct ranges ranges;

    (void)state;
    assert_int_equal(range_read(head_of(list_of(RANGE_MOST, "0-0", "7-8")), 100, &ranges), RANGE_PARTS);
    assert_int_equal(ranges.n, RANGE_MOST);
    assert_int_equal(ranges.at[RANGE_MOST - 1].first, 7);
    assert_int_equal(ranges.at[RANGE_MOST - 1].last, 8);
    assert_string_equal(result_of(head_of(list_of(RANGE_MOST + 1, "0-0", "0-0")), 100), "whole");
    assert_string_equal(result_of(head_of(list_of(1000, "0-0", "0-0")), 1 << 30), "whole");
    assert_string_equal(result_of(head_of(list_of(1000, "0-", "0-")), 1 << 30), "whole");

    /* those beyond the end count, empty members do not */
    assert_string_equal(result_of(head_of(list_of(RANGE_MOST, "100-", "0-0")), 100), "0-0");
    assert_string_equal(result_of(head_of(list_of(RANGE_MOST, "100-", "-0")), 100), "416");
    assert_string_equal(result_of(head_of(list_of(RANGE_MOST + 1, "100-", "0-0")), 100), "whole");
    assert_string_equal(result_of(head_of(list_of(RANGE_MOST + 1, "100-", "-0")), 100), "whole");
    assert_string_equal(result_of(head_of(list_of(1000, "", "0-0")), 100), "0-0");
}

/* Digits without end, at each of the three places. */
static void test_long_numbers(void **state)
{
    static const struct {
        const char *before, *after, *expected;
    } places[] = {
        {"", "-", "416"}, {"-", "", "0-99"}, {"0-", "", "0-99"}, {"", "-5", "whole"}, {"5-5,", "-", "5-5"},
    };
    char digits[4097], text[5000];

    (void)state;
    memset(digits, '9', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(text, sizeof text, "Range: bytes=%s%s%s", places[i].before, digits, places[i].after);
        assert_string_equal(result_of(head_of(text), 100), places[i].expected);
    }
}

/* All single ranges of small numbers and of small representations. */
static void test_small(void **state)
{
    char text[80], expected[80];

    (void)state;
    for (int size = 0; size < 6; size++) {
        for (int first = -1; first < 8; first++) {
            for (int last = -1; last < 8; last++) {
                int from = first >= 0 ? first : last < size ? size - last : 0;
                int to = first >= 0 && last >= 0 && last < size ? last : size - 1;

                snprintf(expected, sizeof expected, "%d-%d", from, to);
                if (first < 0 ? last == 0 : first >= size)
                    strcpy(expected, "416");
                if (first < 0 ? last < 0 || (last > 0 && size == 0) : last >= 0 && last < first)
                    strcpy(expected, "whole");
                strcpy(text, "Range: bytes=");
                if (first >= 0)
                    sprintf(text + strlen(text), "%d", first);
                strcat(text, "-");
                if (last >= 0)
                    sprintf(text + strlen(text), "%d", last);
                if (strcmp(result_of(head_of(text), (uint64_t)size), expected) != 0)
                    fail_msg("%s of %d is not %s", text, size, expected);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_most),
        cmocka_unit_test(test_long_numbers),
        cmocka_unit_test(test_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
