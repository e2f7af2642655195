/* What is taken from an authorizer's head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "gateway/permit.h"

static struct span take(struct permit *permit, const struct config_route *route, const char *head, int *error)
{
    static struct reply reply;

    reply_init(&reply);
    assert_int_equal(reply_read(&reply, head, strlen(head)), REPLY_DONE);
    return permit_take(permit, route, &reply, error);
}

static void takes_variables(void **state)
{
    struct config_route route = {0};
    struct permit *permit = permit_create();
    int error;
    struct span refused = take(permit, &route,
                               "Status: 200\nVariable-AUTH_METHOD: database lookup\nX-Other: 1\nvariable-empty:\n"
                               "Variable-LD_PRELOAD: /tmp/x.so\nVariable-PATH: /tmp\nVariable: 1\n\n",
                               &error);
    struct span rest = buffer_span(&permit->variables), name, value;

    (void)state;
    assert_int_equal(error, 0);
    assert_true(span_is(refused, SPAN("LD_PRELOAD")));
    assert_true(permit_next(&rest, &name, &value));
    assert_true(span_is(name, SPAN("AUTH_METHOD")) && span_is(value, SPAN("database lookup")));
    assert_true(permit_next(&rest, &name, &value));
    assert_true(span_is(name, SPAN("empty")) && value.len == 0);
    assert_false(permit_next(&rest, &name, &value));
    assert_int_equal(permit->passed.n, 1);
    assert_ptr_equal(permit->passed.at[0], &route);
    permit_destroy(permit);
}

static void has_a_limit(void **state)
{
    struct config_route route = {0};
    struct permit *permit = permit_create();
    int error;

    (void)state;
    for (int i = 0; i < ROUTE_MOST_PASSED; i++) {
        take(permit, &route, "Status: 200\n\n", &error);
        assert_int_equal(error, 0);
    }
    take(permit, &route, "Status: 200\nVariable-A: b\n\n", &error);
    assert_int_equal(error, -ENOSPC);
    assert_int_equal(buffer_len(&permit->variables), 0);
    permit_destroy(permit);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_variables),
        cmocka_unit_test(has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
