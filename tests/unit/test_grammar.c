#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "http/grammar.h"

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static const struct {
    const char *members; /* of the bytes from 1 to 127 */
    enum char_class class;
    bool has_high; /* all of those above */
} classes[] = {
    {ALNUM "!#$%&'*+-.^_`|~", CHAR_TOKEN, false},
    {ALNUM "\t !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", CHAR_TEXT, true},
    {ALNUM "-._~", CHAR_UNRESERVED, false},
    {ALNUM "-._~!$&'()*+,;=:@/", CHAR_PATH, false},
    {ALNUM "-._~!$&'()*+,;=:@/%[]|", CHAR_SENT_PATH, false},
    {ALNUM "-._~!$&'()*+,;=:@/%[]|?{}^`\\", CHAR_SENT_QUERY, false},
};

static void test_classes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        for (int byte = 0; byte < 256; byte++) {
            bool expected = byte < 128 ? byte != 0 && strchr(classes[i].members, byte) != NULL : classes[i].has_high;

            if (grammar_is((char)byte, classes[i].class) != expected)
                fail_msg("class %d, byte %02x", (int)classes[i].class, (unsigned)byte);
        }
    }
}

static void test_hex(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[2] = {(char)byte, '\0'};
        bool is_hex = byte != 0 && strchr("0123456789abcdefABCDEF", byte) != NULL;

        assert_int_equal(grammar_hex((char)byte), is_hex ? strtol(text, NULL, 16) : -1);
    }
    assert_int_equal(grammar_escape(SPAN("%00")), 0);
    assert_int_equal(grammar_escape(SPAN("%fFx")), 255);
    assert_int_equal(grammar_escape(SPAN("%2")), -1);
    assert_int_equal(grammar_escape(SPAN("%2g")), -1);
    assert_int_equal(grammar_escape(SPAN("%g2")), -1);
    assert_int_equal(grammar_escape(SPAN("x41")), -1);
    assert_int_equal(grammar_escape(SPAN("")), -1);
}

/* Each byte at each place of values of each length: the check reads eight at a time. */
static void test_values(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 20; len++) {
        for (size_t place = 0; place < len; place++) {
            for (int byte = 0; byte < 256; byte++) {
                char line[24] = "X:\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t";
                bool is_good = byte == '\t' || (byte >= ' ' && byte != 0x7f);
                size_t name_len = 0;
                const char *why;

                memset(line + 2, byte % 2 == 0 ? 'a' : '\t', len);
                line[2 + place] = (char)byte;
                why = grammar_field_line((struct span){line, len + 2}, &name_len);
                if ((why == NULL) != is_good)
                    fail_msg("byte %02x at %zu of %zu", (unsigned)byte, place, len);
                assert_int_equal(name_len, 1);
            }
        }
    }
}

static const struct {
    struct span line;
    const char *why;
    size_t name_len;
} lines[] = {
#define LINE(text, why, name_len)                                                                                      \
    {                                                                                                                  \
        {"" text, sizeof(text) - 1}, why, name_len                                                                     \
    }
    LINE("a:", NULL, 1),
    LINE("Host: a", NULL, 4),
    LINE("a:b:c", NULL, 1),
    LINE("", "a field line without a colon", 0),
    LINE("a", "a field line without a colon", 1),
    LINE("a b", "a field line without a colon", 1),
    LINE(" a: b", "a folded field line", 0),
    LINE("\t", "a folded field line", 0),
    LINE(":", "a field without a name", 0),
    LINE("a :", "white space in a field's name", 1),
    LINE("a\tb:", "white space in a field's name", 1),
    LINE("a(:", "a field's name is no token", 1),
    LINE("\xff:", "a field's name is no token", 0),
    LINE("a: \r", "a control character in a field's value", 1),
};

static void test_field_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        size_t name_len = 42;
        const char *why = grammar_field_line(lines[i].line, &name_len);

        if (lines[i].why == NULL)
            assert_null(why);
        else
            assert_string_equal(why, lines[i].why);
        assert_int_equal(name_len, lines[i].name_len);
    }
}

static const char *const lists[][4] = {
    {""}, {","}, {" ,\t, "}, {"a", "a"}, {" a ", "a"}, {"a,b", "a", "b"}, {",a,,\tb c ,d,", "a", "b c", "d"},
};

static void test_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct span list = span_of(lists[i][0]), member;

        for (size_t k = 1; k < 4 && lists[i][k] != NULL; k++) {
            assert_true(grammar_list_next(&list, &member));
            assert_true(span_is(member, span_of(lists[i][k])));
        }
        assert_false(grammar_list_next(&list, &member));
    }
}

static void test_trim(void **state)
{
    (void)state;
    assert_true(span_is(grammar_trim(SPAN(" \t a \tb\t ")), SPAN("a \tb")));
    assert_true(span_is(grammar_trim(SPAN("a")), SPAN("a")));
    assert_true(span_is(grammar_trim(SPAN("\xa0"
                                          "a\x85")),
                        SPAN("\xa0"
                             "a\x85")));
    assert_int_equal(grammar_trim(SPAN(" \t ")).len, 0);
    assert_int_equal(grammar_trim(SPAN("")).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),     cmocka_unit_test(test_hex),   cmocka_unit_test(test_values),
        cmocka_unit_test(test_field_lines), cmocka_unit_test(test_lists), cmocka_unit_test(test_trim),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
