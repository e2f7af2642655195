/* What strangers say of servers, and of clients: DNS messages, health answers, cookies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "fastcgi/health.h"
#include "fastcgi/names.h"
#include "gateway/affinity.h"

/* ---- names_ttl() ---- */

#define HEADER(questions, answers) "\x12\x34\x81\x80\0" questions "\0" answers "\0\0\0\0"
#define QUESTION                   "\1a\4test\0\0\x21\0\1"
#define ANSWER(ttl)                "\xc0\x0c\0\x21\0\1" ttl "\0\4abcd"

static const struct {
    const char *bytes;
    size_t len;
    int64_t ttl;
} messages[] = {
#define MESSAGE(text, ttl)                                                                                             \
    {                                                                                                                  \
        text, sizeof(text) - 1, ttl                                                                                    \
    }
    MESSAGE(HEADER("\1", "\1") QUESTION ANSWER("\0\0\1\x2c"), 300),
    MESSAGE(HEADER("\1", "\2") QUESTION ANSWER("\0\0\1\x2c") ANSWER("\0\0\0\5"), 5),
    MESSAGE(HEADER("\0", "\1") "\1a\0\0\x21\0\1\xff\xff\xff\xff\0\0", 4294967295),
    MESSAGE(HEADER("\1", "\0") QUESTION, -1),
    MESSAGE(HEADER("\1", "\2") QUESTION ANSWER("\0\0\1\x2c"), -1),
    MESSAGE(HEADER("\2", "\1") QUESTION ANSWER("\0\0\1\x2c"), -1),
    MESSAGE(HEADER("\1", "\1") "\xc0\x0c\0\x21\0\1", -1), /* a name that points at itself */
    MESSAGE(HEADER("\1", "\1") "\x3f"
                               "a",
            -1),
    MESSAGE("", -1),
    MESSAGE("\x12\x34\x81\x80\0\1", -1),
};

static void test_ttl(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        if (names_ttl((const unsigned char *)messages[i].bytes, messages[i].len) != messages[i].ttl)
            fail_msg("message %zu", i);
    }
}

/* Cut anywhere it is none. */
static void test_ttl_of_what_is_cut(void **state)
{
    static const char whole[] = HEADER("\1", "\2") QUESTION ANSWER("\0\0\1\x2c") ANSWER("\0\0\0\5");

    (void)state;
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        unsigned char part[sizeof whole];

        memcpy(part, whole, len);
        assert_int_equal(names_ttl(part, len), -1);
    }
}

/* ---- health_status() ---- */

static const struct {
    const char *head;
    unsigned status;
} heads[] = {
    {"Content-Type: text/plain\r\n\r\npong", 200},
    {"X-A: b\n\n", 200},
    {"Status: 404 Not Found\r\nContent-Type: text/html\r\n\r\n", 404},
    {"Content-Type: a/b\r\nstatus:503\r\n\r\n", 503},
    {"Status:\t 299\n\n", 299},
    {"Location: /there\r\n\r\n", 302},
    {"Status: 301\r\nLocation: /there\r\n\r\n", 301},
    {"Location: /there\r\nStatus: 500\r\n\r\n", 500},
    {"Status: 99\r\n\r\n", 0},
    {"Status: 099\r\n\r\n", 0},
    {"Status: ok\r\n\r\n", 0},
    {"Status: 20\r\n\r\n", 0},
    {"\r\n", 0},
    {"pong", 0},
    {"pong\r\n\r\n", 0},
    {"Content-Type: text/plain\r\n", 0},
    {"Content-Type: text/plain", 0},
    {"", 0},
};

static void test_health_status(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        unsigned status = health_status(heads[i].head, strlen(heads[i].head));

        if (status != heads[i].status)
            fail_msg("%s: %u", heads[i].head, status);
    }
}

/* ---- affinity ---- */

static const struct {
    const char *cookies[2];
    const char *value; /* NULL: there is none */
} cookies[] = {
    {{"sid=1"}, "1"},
    {{"a=b; sid=1; sid=2"}, "1"},
    {{"a=b", "c=d;sid=x=y "}, "x=y"},
    {{"sid="}, ""},
    {{"sid=\"q\""}, "\"q\""},
    {{"sid"}, NULL},
    {{"xsid=1; sidx=2; SID=3"}, NULL},
    {{"a=sid=1"}, NULL},
    {{" ; ;;"}, NULL},
    {{""}, NULL},
};

static void test_cookies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cookies / sizeof *cookies; i++) {
        struct field fields[2] = {{SPAN("Host"), SPAN("x")}};
        struct head head = {.fields = fields};
        struct span value;

        for (; head.n_fields < 2 && cookies[i].cookies[head.n_fields] != NULL; head.n_fields++)
            fields[head.n_fields] = (struct field){SPAN("cookie"), span_of(cookies[i].cookies[head.n_fields])};
        bool is_there = affinity_cookie(&head, SPAN("sid"), &value);
        if (is_there != (cookies[i].value != NULL) || (is_there && !span_is(value, span_of(cookies[i].value))))
            fail_msg("%s", cookies[i].cookies[0]);
    }
}

static void test_affinity(void **state)
{
    struct field field = {SPAN("Cookie"), SPAN("sid=1")};
    struct head with = {.fields = &field, .n_fields = 1}, without = {.n_fields = 0};
    char name[] = "sid";
    struct config_pool by_client = {.balance = BALANCE_HASH},
                       by_cookie = {.balance = BALANCE_HASH, .hash_cookie = name};
    struct config_pool other = {.balance = BALANCE_ROUND_ROBIN};

    (void)state;
    assert_int_equal(affinity_of(NULL, &with, SPAN("10.0.0.1")), 0);
    assert_int_equal(affinity_of(&other, &with, SPAN("10.0.0.1")), 0);
    assert_int_equal(affinity_of(&by_client, &with, SPAN("10.0.0.1")),
                     affinity_of(&by_client, &without, SPAN("10.0.0.1")));
    assert_int_not_equal(affinity_of(&by_client, &with, SPAN("10.0.0.1")),
                         affinity_of(&by_client, &with, SPAN("10.0.0.2")));
    assert_int_equal(affinity_of(&by_cookie, &with, SPAN("10.0.0.1")),
                     affinity_of(&by_cookie, &with, SPAN("10.0.0.2")));
    assert_int_equal(affinity_of(&by_cookie, &without, SPAN("10.0.0.1")),
                     affinity_of(&by_client, &with, SPAN("10.0.0.1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ttl),     cmocka_unit_test(test_ttl_of_what_is_cut), cmocka_unit_test(test_health_status),
        cmocka_unit_test(test_cookies), cmocka_unit_test(test_affinity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
