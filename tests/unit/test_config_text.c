/* What single texts of a configuration mean: numbers, words, paths, names, and how near one word is to another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_text.h"

#define TEN      "0123456789"
#define FIFTY    TEN TEN TEN TEN TEN
#define SIXTY_3  FIFTY TEN "123"
#define N(array) (sizeof(array) / sizeof *(array))

static void test_numbers(void **state)
{
    static const struct {
        text_to_number *convert;
        const char *text;
        enum text_result result;
        uint64_t number;
    } cases[] = {
        {text_to_count, "0", TEXT_OK, 0},
        {text_to_count, "007", TEXT_OK, 7},
        {text_to_count, "18446744073709551615", TEXT_OK, UINT64_MAX},
        {text_to_count, "18446744073709551616", TEXT_OK, UINT64_MAX},
        {text_to_count, "184467440737095516160", TEXT_OK, UINT64_MAX},
        {text_to_count, "", TEXT_BAD, 0},
        {text_to_count, "+1", TEXT_BAD, 0},
        {text_to_count, " 1", TEXT_BAD, 0},
        {text_to_count, "1 ", TEXT_BAD, 0},
        {text_to_count, "0x10", TEXT_BAD, 0},
        {text_to_count, "1k", TEXT_BAD, 0},
        {text_to_size, "65536", TEXT_OK, 65536},
        {text_to_size, "64k", TEXT_OK, 65536},
        {text_to_size, "16m", TEXT_OK, 16 << 20},
        {text_to_size, "1g", TEXT_OK, 1 << 30},
        {text_to_size, "17179869184g", TEXT_OK, UINT64_MAX},
        {text_to_size, "1K", TEXT_BAD, 0},
        {text_to_size, "1kb", TEXT_BAD, 0},
        {text_to_size, "k", TEXT_BAD, 0},
        {text_to_duration, "250ms", TEXT_OK, 250},
        {text_to_duration, "10s", TEXT_OK, 10000},
        {text_to_duration, "5m", TEXT_OK, 300000},
        {text_to_duration, "1h", TEXT_OK, 3600000},
        {text_to_duration, "9999999999999999999h", TEXT_OK, UINT64_MAX},
        {text_to_duration, "10", TEXT_NO_UNIT, 0},
        {text_to_duration, "10 s", TEXT_BAD, 0},
        {text_to_duration, "1h30m", TEXT_BAD, 0},
        {text_to_duration, "ms", TEXT_BAD, 0},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        uint64_t number = 0;

        if (cases[i].convert(cases[i].text, &number) != cases[i].result || number != cases[i].number)
            fail_msg("\"%s\" became %llu", cases[i].text, (unsigned long long)number);
    }
}

static void test_words(void **state)
{
    static const struct {
        const char *text, *words; /* each with a "|" behind it */
        bool is_good;
    } cases[] = {
        {"", "", true},
        {" \t ", "", true},
        {"a", "a|", true},
        {"  a\tb  c ", "a|b|c|", true},
        {"\"a b\" c", "a b|c|", true},
        {"a\"b c\"d", "ab cd|", true},
        {"\"\" a \"\"", "|a||", true},
        {"a\\ b", "a\\|b|", true},
        {"a \"b c", "a|b c|", false},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct config_words words = {0};
        char *joined = NULL;
        size_t len;
        FILE *to = open_memstream(&joined, &len);

        assert_int_equal(text_to_words(cases[i].text, &words), cases[i].is_good);
        for (size_t j = 0; j < words.n; j++) {
            fprintf(to, "%s|", words.at[j]);
            free(words.at[j]);
        }
        fclose(to);
        assert_string_equal(joined, cases[i].words);
        free(words.at);
        free(joined);
    }
}

static void test_paths(void **state)
{
    static const char *const paths[][2] = {
        {"/", "/"},      {"", "/d/e"},      {".", "/d/e"},       {"//a///b/", "/a/b"}, {"./a/./b", "/d/e/a/b"},
        {"a", "/d/e/a"}, {"..", "/d/e/.."}, {"...", "/d/e/..."}, {"/.", "/"},          {".a", "/d/e/.a"},
    };

    (void)state;
    for (size_t i = 0; i < N(paths); i++) {
        char *path = text_to_path(paths[i][0], "/d//e/");

        assert_string_equal(path, paths[i][1]);
        free(path);
    }
}

static void test_distances(void **state)
{
    static const struct {
        const char *a, *b;
        unsigned distance;
    } pairs[] = {
        {"listen", "listen", 0},
        {"lisetn", "listen", 1},
        {"lsten", "listen", 1},
        {"listenn", "listen", 1},
        {"lisfem", "listen", 2},
        {"isten", "lisetn", 2},
        {"dir", "dri", 1},
        {"php", "ph", 1},
        {"max_childs", "max_children", 3},
        {"dir", "dxx", TEXT_FAR},
        {"listen", "lixxxn", TEXT_FAR},
        {"", "abc", TEXT_FAR},
        {"pool", "po", TEXT_FAR},
        {"max_running1", "may_runing", 3},
        {"max_running12", "may_runing", TEXT_FAR},
        {"", "", 0},
        {FIFTY, FIFTY, TEXT_FAR},
    };

    (void)state;
    for (size_t i = 0; i < N(pairs); i++) {
        assert_int_equal(text_distance(pairs[i].a, pairs[i].b), pairs[i].distance);
        assert_int_equal(text_distance(pairs[i].b, pairs[i].a), pairs[i].distance);
    }
}

static void test_names(void **state)
{
    static const char *const hosts[] = {"a", "a.b", "A-b.c_d", "127.0.0.1", "x--y"};
    static const char *const no_hosts[] = {"",   ".",    "a.",   ".a",  "a..b", "-a",
                                           "a-", "a-.b", "a.-b", "a b", "a/b",  "\xc3\xa4"};
    static const char *const variables[] = {"A", "_", "_a1", "PATH"};
    static const char *const no_variables[] = {"", "1A", "a.b", "A-B", "A=", " A", "\xc3\xa4"};

    (void)state;
    for (size_t i = 0; i < N(hosts); i++)
        assert_true(text_is_host(span_of(hosts[i])));
    for (size_t i = 0; i < N(no_hosts); i++)
        assert_false(text_is_host(span_of(no_hosts[i])));
    assert_true(text_is_host(SPAN(SIXTY_3 "." SIXTY_3 "." SIXTY_3 "." FIFTY TEN "1"))); /* 253 bytes */
    assert_false(text_is_host(SPAN(SIXTY_3 "." SIXTY_3 "." SIXTY_3 "." FIFTY TEN "12")));
    assert_false(text_is_host(SPAN(SIXTY_3 "4")));
    for (size_t i = 0; i < N(variables); i++)
        assert_true(text_is_variable(variables[i]));
    for (size_t i = 0; i < N(no_variables); i++)
        assert_false(text_is_variable(no_variables[i]));
}

static void test_networks(void **state)
{
    static const struct {
        const char *text;
        int family;
        unsigned bits;
    } good[] = {
        {"10.0.0.0/8", AF_INET, 8},    {"192.0.2.7", AF_INET, 32},      {"0.0.0.0/0", AF_INET, 0},
        {"192.0.2.6/31", AF_INET, 31}, {"fd00::/8", AF_INET6, 8},       {"::1", AF_INET6, 128},
        {"::/0", AF_INET6, 0},         {"2001:db8::/33", AF_INET6, 33},
    };
    static const char *const bad[] = {
        "",           "10",         "10.0.0.0/",   "/8",        "10.0.0.0/33", "10.0.0.0/8/8",
        "10.0.0.1/8", "fd00::/129", "fd00::1/120", "localhost", "10.0.0.0/-1", "10.0.0.0/ 8",
        "10.0.0.0 ",  "256.0.0.0",  "10.0.0/8",    "::1%lo",    "[::1]",       "1.2.3.4:80",
    };
    struct config_network network;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(text_to_network(good[i].text, &network));
        assert_int_equal(network.family, good[i].family);
        assert_int_equal(network.bits, good[i].bits);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (text_to_network(bad[i], &network))
            fail_msg("\"%s\" is taken for a network", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks), cmocka_unit_test(test_numbers),   cmocka_unit_test(test_words),
        cmocka_unit_test(test_paths),    cmocka_unit_test(test_distances), cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
