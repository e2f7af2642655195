#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cgi/environment.h"

static void adds_entries_as_they_are(void **state)
{
    static const char expected[] = "A=1\0EMPTY=\0EQUALS=a=b=c\0LINES=one\ntwo \xff\0=nameless";
    struct buffer block = {0};

    (void)state;
    environment_add(&block, SPAN("A"), SPAN("1"));
    environment_add(&block, SPAN("EMPTY"), (struct span){NULL, 0});
    environment_add(&block, SPAN("EQUALS"), SPAN("a=b=c"));
    environment_add(&block, SPAN("LINES"), SPAN("one\ntwo \xff"));
    environment_add(&block, SPAN(""), SPAN("nameless"));
    assert_int_equal(buffer_len(&block), sizeof expected);
    assert_memory_equal(buffer_at(&block), expected, sizeof expected);
    buffer_free(&block);
}

static void leaves_out_entries_with_a_nul(void **state)
{
    struct buffer block = {0};

    (void)state;
    environment_add(&block, SPAN("SCRIPT_NAME"), SPAN("/a\0LD_PRELOAD=/b"));
    environment_add(&block, SPAN("PATH\0INFO"), SPAN("x"));
    environment_add(&block, SPAN("LAST"), SPAN("x\0"));
    environment_add(&block, SPAN("FIRST"), SPAN("\0x"));
    assert_int_equal(buffer_len(&block), 0);
    environment_add(&block, SPAN("B"), SPAN("2"));
    assert_int_equal(buffer_len(&block), sizeof "B=2");
    assert_memory_equal(buffer_at(&block), "B=2", sizeof "B=2");
    buffer_free(&block);
}

/* Entries of any length, behind what a consumer has not taken yet. */
static void grows_with_the_block(void **state)
{
    struct buffer block = {0};
    char value[3000];
    size_t total = 0;

    (void)state;
    memset(value, 'v', sizeof value);
    for (size_t len = 0; len < sizeof value; len += 100) {
        environment_add(&block, SPAN("NAME"), (struct span){value, len});
        total += sizeof "NAME=" + len;
        assert_int_equal(buffer_len(&block), total);
        assert_int_equal(buffer_at(&block)[total - 1], '\0');
        assert_memory_equal(buffer_at(&block) + total - 1 - len, value, len);
    }
    buffer_free(&block);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_entries_as_they_are),
        cmocka_unit_test(leaves_out_entries_with_a_nul),
        cmocka_unit_test(grows_with_the_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
