/* What an application says that it offers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "fastcgi/record.h"
#include "fastcgi/values.h"

static const struct {
    const char *pairs; /* NAME=VALUE, a space between */
    unsigned max_conns, max_reqs;
    bool multiplexes;
} rows[] = {
    {"", 0, 0, false},
    {"FCGI_MAX_CONNS=16 FCGI_MAX_REQS=100 FCGI_MPXS_CONNS=1", 16, 100, true},
    {"FCGI_MPXS_CONNS=0", 0, 0, false},
    {"FCGI_MPXS_CONNS=2", 0, 0, false},
    {"FCGI_MPXS_CONNS=", 0, 0, false},
    {"FCGI_MAX_REQS=-1", 0, 0, false},
    {"FCGI_MAX_REQS=999999999999", 0, 0, false},
    {"OTHER=7 FCGI_MAX_REQS=3", 0, 3, false},
};

static size_t encode(char *to, const char *pairs)
{
    char *at = to;

    while (*pairs != '\0') {
        size_t name = strcspn(pairs, "="), value = strcspn(pairs + name + 1, " ");

        *at++ = (char)name;
        *at++ = (char)value;
        memcpy(at, pairs, name);
        memcpy(at + name, pairs + name + 1, value);
        at += name + value;
        pairs += name + 1 + value;
        pairs += *pairs == ' ';
    }
    return (size_t)(at - to);
}

static void reads(void **state)
{
    char content[256];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct values values;

        if (!values_read((struct span){content, encode(content, rows[i].pairs)}, &values))
            fail_msg("%s", rows[i].pairs);
        assert_int_equal(values.max_conns, rows[i].max_conns);
        assert_int_equal(values.max_reqs, rows[i].max_reqs);
        assert_int_equal(values.multiplexes, rows[i].multiplexes);
    }
}

static void refuses_what_is_cut(void **state)
{
    char content[256];
    size_t len = encode(content, rows[1].pairs);
    struct values values;
    unsigned n_whole = 0;

    (void)state;
    for (size_t i = 0; i < len; i++)
        n_whole += values_read((struct span){content, i}, &values);
    assert_int_equal(n_whole, 3); /* nothing, one pair, two pairs */
    assert_false(values_read(SPAN("\x8f\xff\xff\xff\x01"), &values));
}

/* The question is one record of id 0 with the three names, and no values. */
static void asks(void **state)
{
    struct buffer question = {0};
    struct record_reader reader;
    struct span name, value;
    int n = 0;

    (void)state;
    record_get_values(&question);
    record_reader_init(&reader);
    struct span input = buffer_span(&question);
    struct record_event event = record_read(&reader, &input);
    assert_int_equal(event.kind, RECORD_WHOLE);
    assert_int_equal(event.type, RECORD_GET_VALUES);
    assert_int_equal(event.id, 0);
    while (record_pair(&event.bytes, &name, &value) > 0) {
        assert_true(span_starts(name, SPAN("FCGI_M")));
        assert_int_equal(value.len, 0);
        n++;
    }
    assert_int_equal(n, 3);
    assert_int_equal(record_read(&reader, &input).kind, RECORD_MORE);
    assert_int_equal(input.len, 0);
    buffer_free(&question);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(refuses_what_is_cut),
        cmocka_unit_test(asks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
