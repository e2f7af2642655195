#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/date.h"

static const time_t now = 1795000000; /* Wed, 18 Nov 2026 11:06:40 GMT */

static const struct {
    time_t time;
    const char *text;
} written[] = {
    {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
    {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
    {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
    {1795000000, "Wed, 18 Nov 2026 11:06:40 GMT"},
    {2147483648, "Tue, 19 Jan 2038 03:14:08 GMT"},
    {4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"},
    {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"},
};

static void test_writing(void **state)
{
    char text[DATE_LEN + 1];
    time_t t;

    (void)state;
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        date_write(text, written[i].time);
        assert_string_equal(text, written[i].text);
        assert_int_equal(date_read(span_of(text), now, &t), 0);
        assert_int_equal(t, written[i].time);
    }
    /* beyond what a date can say: the nearest */
    date_write(text, -1);
    assert_string_equal(text, written[0].text);
    date_write(text, 253402300800);
    assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
    date_write(text, INT64_MAX);
    assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
}

static const struct {
    const char *text;
    time_t time;
} readable[] = {
    {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
    {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
    {"Sun Nov  6 08:49:37 1994", 784111777},
    {"Fri Nov 11 08:49:37 1994", 784543777},
    {"Mon, 06 Nov 1994 08:49:37 GMT", 784111777}, /* the wrong day */
    {"Wednesday, 06-Nov-94 08:49:37 GMT", 784111777},
    {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
    {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
    {"Sat, 01 Jan 0000 00:00:00 GMT", -62167219200},
    {"Tue, 29 Feb 2000 23:59:59 GMT", 951868799},
    {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800}, /* a leap second */
    /* two digits: from 49 years ago to 50 years ahead */
    {"Wednesday, 18-Nov-26 11:06:40 GMT", 1795000000},
    {"Wednesday, 18-Nov-76 11:06:40 GMT", 3372923200},
    {"Thursday, 18-Nov-76 11:06:41 GMT", 217163201},
    {"Saturday, 01-Jan-77 00:00:00 GMT", 220924800},
    {"Saturday, 01-Jan-00 00:00:00 GMT", 946684800},
    {"Thursday, 31-Dec-99 00:00:00 GMT", 946598400},
};

static void test_reading(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++) {
        time_t t;

        if (date_read(span_of(readable[i].text), now, &t) != 0)
            fail_msg("%s", readable[i].text);
        if (t != readable[i].time)
            fail_msg("%s is %lld", readable[i].text, (long long)t);
    }
}

static const char *const bad[] = {
    "",
    "x",
    "0",
    "784111777",
    "Sun, 06 Nov 1994 08:49:37",
    "Sun, 06 Nov 1994 08:49:37 GM",
    "Sun, 06 Nov 1994 08:49:37 GMTx",
    "Sun, 06 Nov 1994 08:49:37 GMT ",
    " Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sun, 06 Nov 1994 08:49:37 gmt",
    "Sun, 06 Nov 1994 08:49:37 +0000",
    "sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 nov 1994 08:49:37 GMT",
    "Sun 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06 Nov 1994 08:49:37 GMT",
    "Sun, 6 Nov 1994 08:49:37 GMT",
    "Sun, 006 Nov 1994 08:49:37 GMT",
    "Sun,  6 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT",
    "Sun, 06 Nov 19940 08:49:37 GMT",
    "Sun, 06 Nov -994 08:49:37 GMT",
    "Sun, 06 Nov 1994 8:49:37 GMT",
    "Sun, 06 Nov 1994 08:49 GMT",
    "Sun, 06 Nov 1994 08-49-37 GMT",
    "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 31 Nov 1994 08:49:37 GMT",
    "Sun, 29 Feb 1999 08:49:37 GMT",
    "Sun, 29 Feb 1900 08:49:37 GMT",
    "Sun, 99 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT",
    "Sun, 06 Nov 1994 08:60:37 GMT",
    "Sun, 06 Nov 1994 08:49:61 GMT",
    "Sun, 06-Nov-94 08:49:37 GMT",
    "Sunday, 06-Nov-1994 08:49:37 GMT",
    "Sunday, 6-Nov-94 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37",
    "Sundayx, 06-Nov-94 08:49:37 GMT",
    "Sunday, 29-Feb-99 08:49:37 GMT",
    "Sun Nov 6 08:49:37 1994",
    "Sun Nov 06 08:49:37 94",
    "Sun Nov  66 08:49:37 1994",
    "Sun Nov  6 08:49:37 1994 GMT",
    "Sun Nov  0 08:49:37 1994",
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        time_t t = 42;

        if (date_read(span_of(bad[i]), now, &t) == 0)
            fail_msg("%s is %lld", bad[i], (long long)t);
        assert_int_equal(t, 42);
    }
    for (size_t len = 0; len < DATE_LEN; len++) {
        time_t t;

        assert_int_equal(date_read((struct span){written[1].text, len}, now, &t), -1);
    }
    assert_int_equal(date_read(SPAN("Sun, 06 Nov 1994 08:49:37 GMT\0"), now, &(time_t){0}), -1);
}

/* Each day of four centuries, there and back. */
static void test_round_trip(void **state)
{
    (void)state;
    for (time_t t = 86399; t < 12622780800; t += 86400) {
        char text[DATE_LEN + 1];
        time_t back;

        date_write(text, t);
        assert_int_equal(strlen(text), DATE_LEN);
        assert_int_equal(date_read((struct span){text, DATE_LEN}, now, &back), 0);
        assert_int_equal(back, t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writing),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
