#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "head_of.h"

#include "http/condition.h"

#define BEFORE   "Sun, 06 Nov 1994 08:49:36 GMT"
#define MODIFIED "Sun, 06 Nov 1994 08:49:37 GMT"
#define AFTER    "Sun, 06 Nov 1994 08:49:38 GMT"
#define FUTURE   "Wed, 18 Nov 2099 11:06:40 GMT"

enum { THEN = 784111777, NOW = 1795000000 };

static const struct validators strong = {{"\"a\"", 3}, THEN, NOW};
static const struct validators weak = {{"W/\"a\"", 5}, THEN, NOW};
static const struct validators none = {{"", 0}, THEN, NOW};
static const struct validators comma = {{"\"a,b\"", 5}, THEN, NOW};
static const struct validators backslash = {{"\"a\\\"", 4}, THEN, NOW};
static const struct validators empty_tag = {{"\"\"", 2}, THEN, NOW};
static const struct validators high = {{"\"\xc3\xa9\"", 4}, THEN, NOW};
static const struct validators just_now = {{"", 0}, THEN, THEN};
static const struct validators next_second = {{"", 0}, THEN, THEN + 1};
static const struct validators ahead = {{"", 0}, THEN, THEN - 1};

static const struct {
    const char *fields;
    const struct validators *of;
    enum condition condition;
} conditions[] = {
    {"", &strong, CONDITION_TRUE},
    {"Host: a\nRange: bytes=0-0\nIf-Range: \"b\"", &strong, CONDITION_TRUE},

    /* If-Match: RFC 9110 section 13.1.1, the strong comparison */
    {"If-Match: \"a\"", &strong, CONDITION_TRUE},
    {"if-MATCH: \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"b\"", &strong, CONDITION_FAILED},
    {"If-Match: \"A\"", &strong, CONDITION_FAILED},
    {"If-Match: \"aa\"", &strong, CONDITION_FAILED},
    {"If-Match: \"\"", &strong, CONDITION_FAILED},
    {"If-Match: W/\"a\"", &strong, CONDITION_FAILED},
    {"If-Match: \"a\"", &weak, CONDITION_FAILED},
    {"If-Match: W/\"a\"", &weak, CONDITION_FAILED},
    {"If-Match: \"a\"", &none, CONDITION_FAILED},
    {"If-Match: *", &strong, CONDITION_TRUE},
    {"If-Match: *", &weak, CONDITION_TRUE},
    {"If-Match: *", &none, CONDITION_TRUE},
    {"If-Match: \"b\", \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"a\",\"b\"", &strong, CONDITION_TRUE},
    {"If-Match: W/\"a\", \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"b\"\nIf-Match: \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"a\"\nIf-Match: \"b\"", &strong, CONDITION_TRUE},
    {"If-Match: \"b\"\nIf-Match: \"c\"", &strong, CONDITION_FAILED},
    {"If-Match:", &strong, CONDITION_FAILED},
    {"If-Match: ,", &strong, CONDITION_FAILED},
    {"If-Match: a", &strong, CONDITION_FAILED},

    /* If-Unmodified-Since: section 13.1.4 */
    {"If-Unmodified-Since: " MODIFIED, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " AFTER, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " FUTURE, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " BEFORE, &strong, CONDITION_FAILED},
    {"If-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT", &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: Sunday, 06-Nov-94 08:49:36 GMT", &strong, CONDITION_FAILED},
    {"If-Unmodified-Since: Sun Nov  6 08:49:36 1994", &strong, CONDITION_FAILED},
    {"If-Unmodified-Since:", &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: 0", &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: never", &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " BEFORE ", " BEFORE, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " BEFORE "\nIf-Unmodified-Since: " BEFORE, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " BEFORE "\nIf-Unmodified-Since:", &strong, CONDITION_TRUE},
    {"If-Match: \"a\"\nIf-Unmodified-Since: " BEFORE, &strong, CONDITION_TRUE},
    {"If-Unmodified-Since: " BEFORE "\nIf-Match: \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"b\"\nIf-Unmodified-Since: " AFTER, &strong, CONDITION_FAILED},
    {"If-Match:\nIf-Unmodified-Since: " AFTER, &strong, CONDITION_FAILED},

    /* If-None-Match: section 13.1.2, the weak comparison */
    {"If-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: W/\"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"a\"", &weak, CONDITION_NOT_MODIFIED},
    {"If-None-Match: W/\"a\"", &weak, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"b\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"A\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W/\"b\"", &weak, CONDITION_TRUE},
    {"If-None-Match: \"a\"", &none, CONDITION_TRUE},
    {"If-None-Match: \"\"", &none, CONDITION_TRUE},
    {"If-None-Match: \"\"", &empty_tag, CONDITION_NOT_MODIFIED},
    {"If-None-Match: W/\"\"", &empty_tag, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"\xc3\xa9\"", &high, CONDITION_NOT_MODIFIED},
    {"If-None-Match: *", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: *", &none, CONDITION_NOT_MODIFIED},
    {"If-None-Match:  * \t", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: ,*,", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: *, *", &strong, CONDITION_TRUE},
    {"If-None-Match: *\nIf-None-Match: *", &strong, CONDITION_TRUE},
    {"If-None-Match: *, \"b\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"b\"\nIf-None-Match: *", &strong, CONDITION_TRUE},
    {"If-None-Match: *, \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: *\nIf-None-Match:", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"*\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W/*", &strong, CONDITION_TRUE},
    {"If-None-Match: **", &strong, CONDITION_TRUE},

    /* the list: section 5.6.1 */
    {"If-None-Match: \"b\",\"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"b\" , W/\"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: ,, \t,\"b\",,\t\"a\" ,", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"a\", \"a\", \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"b\"\nHost: c\nIF-NONE-MATCH: \"c\"\nIf-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"b\"\nIf-None-Match: \"c\"", &strong, CONDITION_TRUE},
    {"If-None-Match:", &strong, CONDITION_TRUE},
    {"If-None-Match: , ,", &strong, CONDITION_TRUE},

    /* quotes, commas, backslashes: section 8.8.3 */
    {"If-None-Match: \"a,b\"", &comma, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"x,y\", W/\"a,b\",\"z\"", &comma, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"a\", \"b\"", &comma, CONDITION_TRUE},
    {"If-None-Match: \"x,\"a\",y\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"x,\", \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \",\"\",\", \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"a\\\"", &backslash, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"x\\\", \"a\\\"", &backslash, CONDITION_NOT_MODIFIED},
    {"If-Match: \"x\\\", \"a\\\"", &backslash, CONDITION_TRUE},
    {"If-None-Match: \"x\\\"a\"", &strong, CONDITION_TRUE},

    /* outside the grammar: that member does not count, the others do */
    {"If-None-Match: a", &strong, CONDITION_TRUE},
    {"If-None-Match: 'a'", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a", &strong, CONDITION_TRUE},
    {"If-None-Match: a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"\"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a\"\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a\"x", &strong, CONDITION_TRUE},
    {"If-None-Match: x\"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a\" \"b\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a\"; \"b\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \" a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a \"", &strong, CONDITION_TRUE},
    {"If-None-Match: \"a\tb\"", &strong, CONDITION_TRUE},
    {"If-None-Match: w/\"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W \"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W/ \"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W\"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W/W/\"a\"", &strong, CONDITION_TRUE},
    {"If-None-Match: W/W/\"a\"", &weak, CONDITION_TRUE},
    {"If-None-Match: W/", &strong, CONDITION_TRUE},
    {"If-None-Match: W/a", &weak, CONDITION_TRUE},
    {"If-None-Match: a, \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"a\", a, \"b", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match: \"b, \"a\"", &strong, CONDITION_TRUE}, /* the quotes are these: "b, " and a and " */
    {"If-None-Match: \"b\nIf-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-Match: x, \"a\"", &strong, CONDITION_TRUE},
    {"If-Match: \"a\"x", &strong, CONDITION_FAILED},

    /* If-Modified-Since: section 13.1.3 */
    {"If-Modified-Since: " MODIFIED, &strong, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: " AFTER, &strong, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: " FUTURE, &strong, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: " BEFORE, &strong, CONDITION_TRUE},
    {"If-Modified-Since: " MODIFIED, &none, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: " MODIFIED, &just_now, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", &strong, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: Sun Nov  6 08:49:37 1994", &strong, CONDITION_NOT_MODIFIED},
    {"If-Modified-Since: Sun Nov  6 08:49:36 1994", &strong, CONDITION_TRUE},
    {"If-Modified-Since: Mon, 06 Nov 1994 08:49:37 GMT", &strong, CONDITION_NOT_MODIFIED}, /* the wrong day */
    {"If-Modified-Since:", &strong, CONDITION_TRUE},
    {"If-Modified-Since: 0", &strong, CONDITION_TRUE},
    {"If-Modified-Since: 784111777", &strong, CONDITION_TRUE},
    {"If-Modified-Since: \"a\"", &strong, CONDITION_TRUE},
    {"If-Modified-Since: *", &strong, CONDITION_TRUE},
    {"If-Modified-Since: " AFTER "; length=3", &strong, CONDITION_TRUE},
    {"If-Modified-Since: " AFTER ", " AFTER, &strong, CONDITION_TRUE},
    {"If-Modified-Since: " AFTER ",", &strong, CONDITION_TRUE},
    {"If-Modified-Since: " AFTER "\nIf-Modified-Since: " AFTER, &strong, CONDITION_TRUE},
    {"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 UTC", &strong, CONDITION_TRUE},
    {"If-Modified-Since: Sun, 31 Feb 2094 08:49:37 GMT", &strong, CONDITION_TRUE},
    {"If-None-Match: \"b\"\nIf-Modified-Since: " AFTER, &strong, CONDITION_TRUE},
    {"If-None-Match: \"b\"\nIf-Modified-Since: " AFTER, &none, CONDITION_TRUE},
    {"If-Modified-Since: " BEFORE "\nIf-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-None-Match:\nIf-Modified-Since: " AFTER, &strong, CONDITION_TRUE},
    {"If-None-Match: junk\nIf-Modified-Since: " AFTER, &strong, CONDITION_TRUE},

    /* together: section 13.2.2 */
    {"If-Match: \"b\"\nIf-None-Match: \"a\"", &strong, CONDITION_FAILED},
    {"If-None-Match: \"a\"\nIf-Match: \"b\"", &strong, CONDITION_FAILED},
    {"If-Match: \"a\"\nIf-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-Match: \"a\"\nIf-None-Match: \"b\"", &strong, CONDITION_TRUE},
    {"If-Match: *\nIf-None-Match: *", &strong, CONDITION_NOT_MODIFIED},
    {"If-Match: \"a\"\nIf-Modified-Since: " MODIFIED, &strong, CONDITION_NOT_MODIFIED},
    {"If-Match: \"b\"\nIf-Modified-Since: " MODIFIED, &strong, CONDITION_FAILED},
    {"If-Unmodified-Since: " BEFORE "\nIf-Modified-Since: " AFTER, &strong, CONDITION_FAILED},
    {"If-Unmodified-Since: " MODIFIED "\nIf-Modified-Since: " MODIFIED, &strong, CONDITION_NOT_MODIFIED},
    {"If-Unmodified-Since: " BEFORE "\nIf-None-Match: \"a\"", &strong, CONDITION_FAILED},
    {"If-Unmodified-Since: x\nIf-None-Match: \"a\"", &strong, CONDITION_NOT_MODIFIED},
    {"If-Match: \"a\"\nIf-Unmodified-Since: " BEFORE "\nIf-None-Match: \"b\"\nIf-Modified-Since: " AFTER, &strong,
     CONDITION_TRUE},
};

static void test_conditions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        enum condition condition = condition_decide(head_of(conditions[i].fields), conditions[i].of);

        if (condition != conditions[i].condition)
            fail_msg("%s\nof %.*s: %d", conditions[i].fields, (int)conditions[i].of->etag.len,
                     conditions[i].of->etag.at, (int)condition);
    }
}

/* RFC 9110 section 13.1.5 */
static const struct {
    const char *fields;
    const struct validators *of;
    bool allows;
} if_ranges[] = {
    {"", &strong, true},
    {"Range: bytes=0-0", &none, true},
    {"If-Match: \"b\"\nIf-None-Match: \"b\"", &strong, true},
    {"If-Range: \"a\"", &strong, true},
    {"IF-RANGE: \"a\"", &strong, true},
    {"If-Range: \"b\"", &strong, false},
    {"If-Range: \"A\"", &strong, false},
    {"If-Range: W/\"a\"", &strong, false},
    {"If-Range: \"a\"", &weak, false},
    {"If-Range: W/\"a\"", &weak, false},
    {"If-Range: \"a\"", &none, false},
    {"If-Range: \"\"", &none, false},
    {"If-Range: \"\"", &empty_tag, true},
    {"If-Range: \"a,b\"", &comma, true},
    {"If-Range: \"a\\\"", &backslash, true},
    {"If-Range: \"a\", \"a\"", &strong, false},
    {"If-Range: \"a\",", &strong, false},
    {"If-Range: \"a\"\nIf-Range: \"a\"", &strong, false},
    {"If-Range: \"a\"\nIf-Range: " MODIFIED, &strong, false},
    {"If-Range:", &strong, false},
    {"If-Range:", &none, false},
    {"If-Range: *", &strong, false},
    {"If-Range: a", &strong, false},
    {"If-Range: \"a", &strong, false},
    {"If-Range: " MODIFIED, &strong, true},
    {"If-Range: " MODIFIED, &none, true},
    {"If-Range: " MODIFIED, &weak, true},
    {"If-Range: Sunday, 06-Nov-94 08:49:37 GMT", &none, true},
    {"If-Range: Sun Nov  6 08:49:37 1994", &none, true},
    {"If-Range: " BEFORE, &none, false},
    {"If-Range: " AFTER, &none, false},
    {"If-Range: " FUTURE, &none, false},
    {"If-Range: " MODIFIED ", " MODIFIED, &none, false},
    {"If-Range: " MODIFIED "\nIf-Range: " MODIFIED, &none, false},
    {"If-Range: Sun, 06 Nov 1994 08:49:37 UTC", &none, false},
    {"If-Range: " MODIFIED, &just_now, false}, /* weak: section 8.8.2.2 */
    {"If-Range: " MODIFIED, &ahead, false},
    {"If-Range: " MODIFIED, &next_second, true},
};

static void test_if_range(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof if_ranges / sizeof if_ranges[0]; i++) {
        if (condition_allows_range(head_of(if_ranges[i].fields), if_ranges[i].of) != if_ranges[i].allows)
            fail_msg("%s\nof %.*s", if_ranges[i].fields, (int)if_ranges[i].of->etag.len, if_ranges[i].of->etag.at);
    }
}

/* Each byte that an entity-tag may have: %x21 / %x23-7E / obs-text (section 8.8.3). No byte is equal to another. */
static void test_each_byte(void **state)
{
    (void)state;
    for (int byte = 0x21; byte < 256; byte++) {
        char etag[] = "\"x.y\"", list[] = "W/\"x.\", \"x.y\",", other[] = "\"x.y\"";
        struct field field = {SPAN("If-None-Match"), {list, sizeof list - 1}};
        struct head head = {.n_fields = 1, .fields = &field};
        struct validators validators = {{etag, sizeof etag - 1}, THEN, NOW};

        if (byte == '"' || byte == 0x7f)
            continue;
        etag[2] = list[4] = list[10] = (char)byte;
        if (condition_decide(&head, &validators) != CONDITION_NOT_MODIFIED)
            fail_msg("byte %02x", (unsigned)byte);
        other[2] = (char)(byte ^ 0x20);
        field.value = (struct span){other, sizeof other - 1};
        if (condition_decide(&head, &validators) != CONDITION_TRUE)
            fail_msg("byte %02x", (unsigned)byte);
    }
}

/* The table of RFC 9110 section 8.8.3.2. */
static void test_comparison(void **state)
{
    static const struct {
        struct span one, two;
        bool strongly, weakly;
    } pairs[] = {
        {{"W/\"1\"", 5}, {"W/\"1\"", 5}, false, true},
        {{"W/\"1\"", 5}, {"W/\"2\"", 5}, false, false},
        {{"W/\"1\"", 5}, {"\"1\"", 3}, false, true},
        {{"\"1\"", 3}, {"\"1\"", 3}, true, true},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof pairs / sizeof pairs[0]; i++) {
        struct span one = i % 2 == 0 ? pairs[i / 2].one : pairs[i / 2].two;
        struct span two = i % 2 == 0 ? pairs[i / 2].two : pairs[i / 2].one;
        struct field match = {SPAN("If-Match"), one}, none_match = {SPAN("If-None-Match"), one};
        struct validators validators = {two, THEN, NOW};

        assert_int_equal(condition_decide(&(struct head){.n_fields = 1, .fields = &match}, &validators),
                         pairs[i / 2].strongly ? CONDITION_TRUE : CONDITION_FAILED);
        assert_int_equal(condition_decide(&(struct head){.n_fields = 1, .fields = &none_match}, &validators),
                         pairs[i / 2].weakly ? CONDITION_NOT_MODIFIED : CONDITION_TRUE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_if_range),
        cmocka_unit_test(test_each_byte),
        cmocka_unit_test(test_comparison),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
