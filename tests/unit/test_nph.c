/* What programs write that answer the client themselves: every row is read whole, cut in two at each place, and byte by
 * byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "gateway/nph.h"

static const char no_line[] = "does not begin with a status line, as a nph- program's response does";
static const char too_long[] = "has a first line longer than 8 KiB";

/* Reads the output in steps, the first of which may be another; returns how much of it belongs to heads. */
static size_t read_in_steps(struct nph *nph, struct span output, size_t first, size_t step)
{
    size_t head_len = 0, n = first;

    nph_init(nph);
    while (output.len > 0) {
        n = n < output.len ? n : output.len;
        head_len += nph_read(nph, (struct span){output.at, n});
        output = span_from(output, n);
        n = step;
    }
    return head_len;
}

struct row {
    struct span output;
    unsigned status;
    bool is_body;
    size_t head_len;
    const char *why;
};

static void check_steps(const struct row *row, size_t first, size_t step)
{
    struct nph nph;
    size_t head_len = read_in_steps(&nph, row->output, first, step);

    if (row->why != NULL) {
        assert_string_equal(nph.why, row->why);
        return;
    }
    assert_null(nph.why);
    assert_int_equal(nph.status, row->status);
    assert_int_equal(nph.is_body, row->is_body);
    assert_int_equal(head_len, row->head_len);
}

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = rows[i].output.len;

        check_steps(&rows[i], len, len);
        check_steps(&rows[i], 1, 1);
        for (size_t cut = 1; cut < len; cut++)
            check_steps(&rows[i], cut, len);
    }
}

#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof(rows)[0])

static void takes_heads(void **state)
{
    const struct row rows[] = {
        {SPAN("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), 200, true, 25, NULL},
        {SPAN("HTTP/1.0 404 Not Found\nA: b\n\n"), 404, true, 29, NULL},
        {SPAN("HTTP/1.9 599\n\n\n\nx"), 599, true, 14, NULL},
        {SPAN("HTTP/1.1 100\r\n\r\nHTTP/1.1 200 \r\n\r\nHTTP/1.1 404 x\r\n\r\n"), 200, true, 33, NULL},
        {SPAN("HTTP/1.1 103 Early\nLink: x\n\nHTTP/1.0 301 a\nA: b\n\n"), 301, true, 49, NULL},
        {SPAN("HTTP/1.1 101 Other\r\nUpgrade: x\r\n\r\nanything"), 101, true, 34, NULL},
        {SPAN("HTTP/1.1 200 OK\nA: b\n \n\r\r\n\nbody"), 200, true, 27, NULL},
        {SPAN("HTTP/1.1 200 OK\r\nA: b\r\n"), 200, false, 23, NULL},
        {SPAN("HTTP/1.1 103 Early\r\n\r\n"), 103, false, 22, NULL},
        {SPAN("HTTP/1.1 200 OK"), 0, false, 15, NULL},
        {SPAN(""), 0, false, 0, NULL},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void refuses_others(void **state)
{
    const struct row rows[] = {
        {SPAN("Content-Type: text/plain\n\nhello"), .why = no_line},
        {SPAN("Status: 200 OK\n\n"), .why = no_line},
        {SPAN("\nHTTP/1.1 200 OK\n\n"), .why = no_line},
        {SPAN(" HTTP/1.1 200 OK\n\n"), .why = no_line},
        {SPAN("http/1.1 200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/2.0 200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/2 200\n\n"), .why = no_line},
        {SPAN("HTTP/1.x 200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.10 200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1  200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1\t200 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 20 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 2000 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 099 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 600 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 +20 OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 200OK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 200\tOK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 200\rOK\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 \n\n"), .why = no_line},
        {SPAN("\n"), .why = no_line},
        {SPAN("HTTP/1.1 100 Continue\n\nStatus: 200\n\n"), .why = no_line},
        {SPAN("HTTP/1.1 100 Continue\n\n\nHTTP/1.1 200\n\n"), .why = no_line},
    };

    (void)state;
    CHECK_ROWS(rows);
}

/* A line of such a length, its end included, in steps. */
static void check_long_line(size_t len, const char *why)
{
    static const size_t steps[] = {1, 7, 4096, 1 << 20};
    struct buffer output = {0};

    buffer_printf(&output, "HTTP/1.1 200 ");
    while (buffer_len(&output) < len - 1)
        buffer_append(&output, "x", 1);
    buffer_append(&output, "\n", 1);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct row row = {buffer_span(&output), 200, false, len, why};

        check_steps(&row, steps[i], steps[i]);
    }
    buffer_free(&output);
}

static void bounds_the_first_line(void **state)
{
    struct buffer endless = {0};
    struct nph nph;

    (void)state;
    check_long_line(NPH_MAX_LINE - 1, NULL);
    check_long_line(NPH_MAX_LINE, NULL);
    check_long_line(NPH_MAX_LINE + 1, too_long);
    memset(buffer_reserve(&endless, NPH_MAX_LINE + 1), 'x', NPH_MAX_LINE + 1);
    buffer_added(&endless, NPH_MAX_LINE + 1);
    nph_init(&nph);
    nph_read(&nph, (struct span){buffer_at(&endless), NPH_MAX_LINE});
    assert_null(nph.why);
    nph_read(&nph, (struct span){buffer_at(&endless), 1});
    assert_string_equal(nph.why, too_long);
    buffer_free(&endless);
}

static void knows_its_programs(void **state)
{
    (void)state;
    assert_true(nph_is_name(SPAN("/srv/cgi/nph-a.cgi")));
    assert_true(nph_is_name(SPAN("nph-")));
    assert_true(nph_is_name(SPAN("/nph-x")));
    assert_false(nph_is_name(SPAN("/srv/nph-a/b.cgi")));
    assert_false(nph_is_name(SPAN("/srv/nph-a/")));
    assert_false(nph_is_name(SPAN("/srv/xnph-a")));
    assert_false(nph_is_name(SPAN("/srv/NPH-a")));
    assert_false(nph_is_name(SPAN("/srv/nph")));
    assert_false(nph_is_name(SPAN("")));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_heads),
        cmocka_unit_test(refuses_others),
        cmocka_unit_test(bounds_the_first_line),
        cmocka_unit_test(knows_its_programs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
