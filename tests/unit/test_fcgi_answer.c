#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tools/fcgi_answer.h"

static void gather(void *arg, struct span bytes)
{
    assert_true(bytes.len > 0);
    buffer_append_span(arg, bytes);
}

struct expected {
    const char *given; /* what was written */
    unsigned status;
    const char *why; /* of the refusal; NULL: it is whole */
};

/* Reads the output in pieces of `step` bytes. */
static void check_step(struct span output, size_t step, bool shows_head, bool is_head, const struct expected *expected)
{
    struct fcgi_answer *answer = memory_zeroed(1, sizeof *answer);
    struct buffer given = {0};
    bool is_good = true;

    answer->shows_head = shows_head;
    answer->is_head = is_head;
    answer->write = gather;
    answer->arg = &given;
    fcgi_answer_init(answer);
    while (is_good && output.len > 0) {
        size_t n = step < output.len ? step : output.len;
        char *piece = memory_copy(output.at, n);

        is_good = fcgi_answer_take(answer, (struct span){piece, n});
        free(piece);
        output = span_from(output, n);
    }
    is_good = is_good && fcgi_answer_end(answer);
    assert_int_equal(is_good, expected->why == NULL);
    if (!is_good)
        assert_string_equal(answer->why, expected->why);
    assert_int_equal(answer->status, expected->status);
    buffer_append(&given, "", 1);
    assert_string_equal(buffer_at(&given), expected->given);
    buffer_free(&given);
    fcgi_answer_free(answer);
    free(answer);
}

static void check(const char *output, const char *given, unsigned status, const char *why)
{
    const struct expected expected = {given, status, why};

    for (size_t step = 1; step <= strlen(output) + 1; step++)
        check_step(span_of(output), step, false, false, &expected);
}

static void reads_answers(void **state)
{
    (void)state;
    check("Content-Type: text/plain\r\n\r\nhello", "hello", 200, NULL);
    check("Status: 404 Not Found\nContent-Type: a/b\n\n", "", 404, NULL);
    check("Location: http://x/\n\n", "", 302, NULL);
    check("Status: 200\nContent-Length: 3\n\nabc", "abc", 200, NULL);
    check("Status: 103\nLink: x\n\nStatus: 200\n\nbody", "body", 200, NULL);
    check("X-Sendfile: /x\nContent-Length: 3\n\n", "", 200, NULL);
    check("Content-Type: a/b\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", 200, NULL);
}

static void refuses_answers(void **state)
{
    (void)state;
    check("", "", 0, "nothing at all");
    check("Status: 103\nLink: x\n\n", "", 0, "an interim head only");
    check("Content-Type: text/plain\n", "", 0, "it ended within its head");
    check("hello\n\n", "", 0, "a field line without a colon");
    check("\nhello", "", 0, "an empty head");
    check("Status: 200\nContent-Length: 3\n\nab", "ab", 200, "its body is shorter than its Content-Length");
    check("Status: 200\nContent-Length: 3\n\nabcd", "abcd", 200, "its body is longer than its Content-Length");
    check("Status: 200\nTransfer-Encoding: chunked\n\n3\r\nab", "ab", 200, "it ended within a chunked body");
}

static void refuses_endless_interim_heads(void **state)
{
    struct buffer output = {0};
    const struct expected expected = {"", 0, "too many interim heads"};

    (void)state;
    for (int i = 0; i < 9; i++)
        buffer_printf(&output, "Status: 103\nLink: x\n\n");
    check_step(buffer_span(&output), 7, false, false, &expected);
    buffer_free(&output);
}

static void shows_heads(void **state)
{
    const char *output = "Status: 103\nLink: x\n\nStatus: 204\nX: y\n\n";
    const struct expected both = {output, 204, NULL};
    const struct expected short_one = {"Status: 200\nContent-Length: 3\n\n", 200, NULL};

    (void)state;
    check_step(span_of(output), 5, true, false, &both);
    check_step(span_of("Status: 200\nContent-Length: 3\n\n"), 5, true, true, &short_one);
}

static void describes_heads(void **state)
{
    struct fcgi_answer *answer = memory_zeroed(1, sizeof *answer);
    struct buffer text = {0}, given = {0};
    char line[200];

    (void)state;
    memset(line, 'x', sizeof line);
    answer->write = gather;
    answer->arg = &given;
    fcgi_answer_init(answer);
    fcgi_answer_take(answer, (struct span){line, sizeof line});
    assert_false(fcgi_answer_take(answer, SPAN("\r\n\x1b[2J")) && fcgi_answer_end(answer));
    fcgi_answer_describe_head(answer, &text);
    buffer_append(&text, "", 1);
    assert_memory_equal(buffer_at(&text), "  | xxxx", 8);
    assert_string_equal(buffer_at(&text) + 4 + 160, "...\n  | \\x1b[2J\n");
    fcgi_answer_free(answer);

    buffer_clear(&text);
    fcgi_answer_init(answer);
    for (int i = 0; i < 13; i++)
        assert_true(fcgi_answer_take(answer, SPAN("A: b\n")));
    fcgi_answer_describe_head(answer, &text);
    buffer_append(&text, "", 1);
    assert_int_equal(buffer_len(&text), 12 * strlen("  | A: b\n") + strlen("  | ...\n") + 1);
    buffer_free(&text);
    fcgi_answer_free(answer);
    free(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_answers),
        cmocka_unit_test(refuses_answers),
        cmocka_unit_test(refuses_endless_interim_heads),
        cmocka_unit_test(shows_heads),
        cmocka_unit_test(describes_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
