#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/memory.h"
#include "http/uri.h"

/* Reads from memory of just the size, into a room of just the size that the contract asks for. */
static int read_copy(struct uri *out, struct span text, char **copy, char **room, const char **why)
{
    *copy = memory_resize(NULL, text.len + 1);
    *room = memory_resize(NULL, text.len + 2);
    memcpy(*copy + 1, text.at, text.len);
    return uri_read(out, (struct span){*copy + 1, text.len}, *room, why);
}

static const struct {
    struct span text, path, query;
    bool has_query;
} good[] = {
#define PATH(text, path)                                                                                               \
    {                                                                                                                  \
        {"" text, sizeof(text) - 1}, {"" path, sizeof(path) - 1}, {"", 0}, false                                       \
    }
#define BOTH(text, path, query)                                                                                        \
    {                                                                                                                  \
        {"" text, sizeof(text) - 1}, {"" path, sizeof(path) - 1}, {"" query, sizeof(query) - 1}, true                  \
    }
    PATH("", "/"),
    PATH("/", "/"),
    PATH("/a", "/a"),
    PATH("/a/b.c/", "/a/b.c/"),
    /* the query, untouched */
    BOTH("?", "/", ""),
    BOTH("?a=b", "/", "a=b"),
    BOTH("/a?", "/a", ""),
    BOTH("/a?b?c/../%zz%00+%", "/a", "b?c/../%zz%00+%"),
    PATH("/a%3fb", "/a?b"),
    BOTH("/a%3Fb?c", "/a?b", "c"),
    /* decoded once */
    PATH("/%61%62%7e", "/ab~"),
    PATH("/%252e%252e/a", "/%2e%2e/a"),
    PATH("/%25zz", "/%zz"),
    PATH("/%25", "/%"),
    PATH("/a%2fb", "/a/b"),
    PATH("/a%2Fb", "/a/b"),
    PATH("/a+b", "/a+b"),
    PATH("/%0d%0aX:%201", "/\r\nX: 1"),
    PATH("/%5c..%5ca", "/\\..\\a"),
    PATH("/%c3%a9\xc3\xa9%ff%c0%ae", "/\xc3\xa9\xc3\xa9\xff\xc0\xae"),
    PATH("/a;b=c,d", "/a;b=c,d"),
    /* slashes */
    PATH("//", "/"),
    PATH("//a", "/a"),
    PATH("/a//b///c//", "/a/b/c/"),
    PATH("/%2f/a", "/a"),
    PATH("/a/%2f", "/a/"),
    /* dot segments */
    PATH("/.", "/"),
    PATH("/./", "/"),
    PATH("/././a/./b/.", "/a/b/"),
    PATH("/a/..", "/"),
    PATH("/a/../", "/"),
    PATH("/a/b/..", "/a/"),
    PATH("/a/b/../c", "/a/c"),
    PATH("/a/b/../../c", "/c"),
    PATH("/a/b/c/../../d/../e", "/a/e"),
    PATH("/a//../b", "/b"),
    PATH("/a/.//../b", "/b"),
    PATH("/a/%2e%2e/b", "/b"),
    PATH("/a/.%2E/b", "/b"),
    PATH("/a%2f%2e%2e%2fb", "/b"),
    PATH("/a%2f..", "/"),
    PATH("/%2e/a", "/a"),
    PATH("/...", "/..."),
    PATH("/.a/..b/c./d../e", "/.a/..b/c./d../e"),
    PATH("/..;/a", "/..;/a"),
    PATH("/a/..%5cb", "/a/..\\b"),
    PATH("/aa/../bb/../cc", "/cc"),
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const char *why = NULL;
        char *copy, *room;
        struct uri uri;

        if (read_copy(&uri, good[i].text, &copy, &room, &why) != 0)
            fail_msg("%s: %s", good[i].text.at, why);
        if (!span_is(uri.path, good[i].path))
            fail_msg("%s: %.*s", good[i].text.at, (int)uri.path.len, uri.path.at);
        assert_int_equal(uri.path.at[uri.path.len], '\0');
        assert_true(span_is(uri.query, good[i].query));
        assert_int_equal(uri.has_query, good[i].has_query);
        free(copy);
        free(room);
    }
}

static const struct {
    struct span text;
    const char *why;
} bad[] = {
#define BAD(text, why)                                                                                                 \
    {                                                                                                                  \
        {"" text, sizeof(text) - 1}, why                                                                               \
    }
    BAD("/%", "a % that begins no escape"),
    BAD("/%2", "a % that begins no escape"),
    BAD("/%zz", "a % that begins no escape"),
    BAD("/%2g", "a % that begins no escape"),
    BAD("/%g2", "a % that begins no escape"),
    BAD("/%%41", "a % that begins no escape"),
    BAD("/a%2?b", "a % that begins no escape"),
    BAD("/%u0041", "a % that begins no escape"),
    BAD("/%+1", "a % that begins no escape"),
    BAD("/secret%00.cgi", "a NUL in the path"),
    BAD("/x/%00", "a NUL in the path"),
    BAD("/x\0", "a NUL in the path"),
    BAD("/..", "a path that leads above the root"),
    BAD("/../", "a path that leads above the root"),
    BAD("/../a", "a path that leads above the root"),
    BAD("/a/../..", "a path that leads above the root"),
    BAD("/a/../../a", "a path that leads above the root"),
    BAD("/./../a", "a path that leads above the root"),
    BAD("//../a", "a path that leads above the root"),
    BAD("/%2e%2E/etc/passwd", "a path that leads above the root"),
    BAD("/.%2e/%2e./", "a path that leads above the root"),
    BAD("/%2e%2e%2fetc", "a path that leads above the root"),
    BAD("/..?a", "a path that leads above the root"),
    BAD("a", "a path that does not begin with a slash"),
    BAD("*", "a path that does not begin with a slash"),
    BAD("%2fa", "a path that does not begin with a slash"),
    BAD("a?b", "a path that does not begin with a slash"),
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *why = NULL;
        char *copy, *room;
        struct uri uri;

        assert_int_equal(read_copy(&uri, bad[i].text, &copy, &room, &why), -1);
        assert_string_equal(why, bad[i].why);
        free(copy);
        free(room);
    }
}

static void check_encoded(struct span path, const char *expected)
{
    struct buffer to = {0};

    buffer_append(&to, "<", 1);
    uri_append_encoded(&to, path);
    buffer_append(&to, ">", 2);
    assert_string_equal(buffer_at(&to) + 1, expected);
    buffer_free(&to);
}

static void test_encoding(void **state)
{
    (void)state;
    check_encoded(SPAN(""), ">");
    check_encoded(SPAN("/a-b_c.d~e"), "/a-b_c.d~e>");
    check_encoded(SPAN("/!$&'()*+,;=:@/"), "/!$&'()*+,;=:@/>");
    check_encoded(SPAN("/a b%?#[]|\\^`{}\"<>"), "/a%20b%25%3F%23%5B%5D%7C%5C%5E%60%7B%7D%22%3C%3E>");
    check_encoded(SPAN("/\r\nX: 1\t\x7f"), "/%0D%0AX:%201%09%7F>");
    check_encoded(SPAN("\xc3\xa9\xff"), "%C3%A9%FF>");
}

/* What was encoded is decoded to the same, whatever the byte. */
static void test_round_trip(void **state)
{
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        const char text[] = {'/', 'x', (char)byte, 'y'};
        struct buffer to = {0};
        const char *why;
        char *copy, *room;
        struct uri uri;

        uri_append_encoded(&to, (struct span){text, sizeof text});
        assert_int_equal(read_copy(&uri, buffer_span(&to), &copy, &room, &why), 0);
        assert_true(span_is(uri.path, (struct span){text, sizeof text}));
        free(copy);
        free(room);
        buffer_free(&to);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_encoding),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
