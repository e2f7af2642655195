#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/memory.h"
#include "http/authority.h"

static const char *const good[][2] = {
    {"a", "a"},
    {"A.Example", "A.Example"},
    {"a.", "a."},
    {"a.:1", "a."},
    {"a-b.c--d", "a-b.c--d"},
    {"-a", "-a"},
    {"a_b", "a_b"},
    {"a~b", "a~b"},
    {"a%41%c3%a9%80%ff", "a%41%c3%a9%80%ff"},
    {"127.0.0.1:1", "127.0.0.1"},
    {"1", "1"},
    {"a:", "a"},
    {"a:0", "a"},
    {"a:80", "a"},
    {"a:65535", "a"},
    {"a:00000000000000000000000000000080", "a"},
    {"[::1]", "[::1]"},
    {"[::]:", "[::]"},
    {"[::1]:8080", "[::1]"},
    {"[::1:2]", "[::1:2]"},
    {"[4712:abcd::]", "[4712:abcd::]"},
    {"[2001:DB8:0:0:8:800:200C:417A]:443", "[2001:DB8:0:0:8:800:200C:417A]"},
    {"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"},
    {"[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]", "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]"},
};

static const struct {
    struct span text;
    const char *why;
} bad[] = {
#define BAD(text, why)                                                                                                 \
    {                                                                                                                  \
        {"" text, sizeof(text) - 1}, why                                                                               \
    }
    BAD("", "an empty host"),
    BAD(":", "a bad host"),
    BAD(":80", "a bad host"),
    BAD(".", "a bad host"),
    BAD(".a", "a bad host"),
    BAD("a..b", "a bad host"),
    BAD("a..", "a bad host"),
    BAD("a.b..:1", "a bad host"),
    BAD("a b", "a bad host"),
    BAD(" a", "a bad host"),
    BAD("a\t", "a bad host"),
    BAD("a,b", "a bad host"),
    BAD("a;b", "a bad host"),
    BAD("a=b", "a bad host"),
    BAD("a'b", "a bad host"),
    BAD("a!b", "a bad host"),
    BAD("*", "a bad host"),
    BAD("a/b", "a bad host"),
    BAD("../a", "a bad host"),
    BAD("a?b", "a bad host"),
    BAD("a#b", "a bad host"),
    BAD("a\\b", "a bad host"),
    BAD("u@a", "a bad host"),
    BAD("a<b", "a bad host"),
    BAD("a|b", "a bad host"),
    BAD("a\0b", "a bad host"),
    BAD("a\0", "a bad host"),
    BAD("a\x7f", "a bad host"),
    BAD("a\x80", "a bad host"),
    BAD("\xc3\xa9", "a bad host"),
    BAD("%", "a bad host"),
    BAD("a%4", "a bad host"),
    BAD("a%4:1", "a bad host"),
    BAD("a%zz", "a bad host"),
    BAD("a%00", "a bad host"),
    BAD("a%20b", "a bad host"),
    BAD("a%2fb", "a bad host"),
    BAD("a%40b", "a bad host"),
    BAD("a%2c", "a bad host"),
    BAD("a%0d", "a bad host"),
    BAD("a:b", "a bad port"),
    BAD("a:-1", "a bad port"),
    BAD("a:+1", "a bad port"),
    BAD("a: 1", "a bad port"),
    BAD("a:1 ", "a bad port"),
    BAD("a:80:80", "a bad port"),
    BAD("a::80", "a bad port"),
    BAD("u:p@a", "a bad port"),
    BAD("a:80/", "a bad port"),
    BAD("a:65536", "a bad port"),
    BAD("a:99999", "a bad port"),
    BAD("a:4294967376", "a bad port"),
    BAD("a:18446744073709551696", "a bad port"),
    BAD("a:8\0", "a bad port"),
    BAD("4713::abcd:8001", "a bad port"),
    BAD("::1", "a bad host"),
    BAD("[", "a bad host"),
    BAD("[]", "a bad host"),
    BAD("[:]", "a bad host"),
    BAD("[::1", "a bad host"),
    BAD("::1]", "a bad host"),
    BAD("[zz]", "a bad host"),
    BAD("[a]", "a bad host"),
    BAD("[127.0.0.1]", "a bad host"),
    BAD("[4712::abcd::]", "a bad host"),
    BAD("[1:2:3:4:5:6:7:8:9]", "a bad host"),
    BAD("[12345::]", "a bad host"),
    BAD("[::1%25eth0]", "a bad host"),
    BAD("[::1%eth0]", "a bad host"),
    BAD("[v1.a]", "a bad host"),
    BAD("[ ::1]", "a bad host"),
    BAD("[::1\0]", "a bad host"),
    BAD("[[::1]]", "a bad host"),
    BAD("[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", "a bad host"),
    BAD("[::1]x", "a bad port"),
    BAD("[::1]80", "a bad port"),
    BAD("[::1]:x", "a bad port"),
    BAD("[::1]]", "a bad port"),
    BAD("[::1]' UNION SELECT '/", "a bad port"),
    BAD("[::1]/../", "a bad port"),
    BAD("a[::1]", "a bad host"),
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct span host = {NULL, 0};
        const char *why = authority_read(span_of(good[i][0]), &host);

        if (why != NULL)
            fail_msg("%s: %s", good[i][0], why);
        assert_true(span_is(host, span_of(good[i][1])));
        assert_ptr_equal(host.at, good[i][0]);
    }
}

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *copy = memory_resize(NULL, bad[i].text.len + 1); /* whose end is the text's, too */
        struct span host;
        const char *why;

        memcpy(copy + 1, bad[i].text.at, bad[i].text.len);
        why = authority_read((struct span){copy + 1, bad[i].text.len}, &host);
        if (why == NULL || strcmp(why, bad[i].why) != 0)
            fail_msg("%s: %s", bad[i].text.at, why == NULL ? "good" : why);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
