#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/escape.h"
#include "base/memory.h"
#include "base/utf8.h"

#define BAD "\xef\xbf\xbd" /* U+FFFD */

/* From memory of just the size, into memory of just the size that the contract asks for. Owned by the caller. */
static char *escaped(char *(*escape)(char *at, struct span s), struct span s)
{
    char *copy = memory_resize(NULL, s.len + 1), *room = memory_resize(NULL, ESCAPE_LONGEST * s.len + 1), *text;

    memcpy(copy + 1, s.at, s.len);
    text = escape(room + 1, (struct span){copy + 1, s.len});
    text = memory_copy(room + 1, (size_t)(text - room - 1));
    free(copy);
    free(room);
    return text;
}

static const struct {
    struct span in;
    const char *json, *html;
} cases[] = {
#define CASE(in, json, html)                                                                                           \
    {                                                                                                                  \
        {"" in, sizeof(in) - 1}, json, html                                                                            \
    }
    CASE("", "", ""),
    CASE("plain/text.c ~", "plain/text.c ~", "plain/text.c ~"),
    CASE("a\"b\\c'd", "a\\\"b\\\\c'd", "a&quot;b\\c&#39;d"),
    CASE("<b>&amp;</b>", "<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
    CASE("\0\x1f\t\r\n\x7f", "\\u0000\\u001f\\u0009\\u000d\\u000a\\u007f", BAD BAD BAD BAD BAD BAD),
    CASE("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
         "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
    CASE("\xc2\x80\xc2\x9f\xc2\xa0", "\\u0080\\u009f\xc2\xa0", BAD BAD "\xc2\xa0"),
    /* no UTF-8: a stray byte, cut characters, overlong, surrogate, too high */
    CASE("a\xff<", "a" BAD "<", "a" BAD "&lt;"),
    CASE("\xc3\"", BAD "\\\"", BAD "&quot;"),
    CASE("\xe2\x82", BAD BAD, BAD BAD),
    CASE("\xf0\x9f\x98<", BAD BAD BAD "<", BAD BAD BAD "&lt;"),
    CASE("\xc0\xbc", BAD BAD, BAD BAD),
    CASE("\xed\xa0\x80", BAD BAD BAD, BAD BAD BAD),
    CASE("\xf4\x90\x80\x80", BAD BAD BAD BAD, BAD BAD BAD BAD),
    /* noncharacters and their neighbours */
    CASE("\xef\xb7\x8f\xef\xb7\x90\xef\xb7\xaf\xef\xb7\xb0", "\xef\xb7\x8f\xef\xb7\x90\xef\xb7\xaf\xef\xb7\xb0",
         "\xef\xb7\x8f" BAD BAD "\xef\xb7\xb0"),
    CASE("\xef\xbf\xbd\xef\xbf\xbe\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbe\xef\xbf\xbf", BAD BAD BAD),
    CASE("\xf0\x9f\xbf\xbd\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbf", "\xf0\x9f\xbf\xbd\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbf",
         "\xf0\x9f\xbf\xbd" BAD BAD),
    CASE("\xee\xbf\xbe\xf0\x9e\xbf\xbe", "\xee\xbf\xbe\xf0\x9e\xbf\xbe", "\xee\xbf\xbe\xf0\x9e\xbf\xbe"),
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *json = escaped(escape_json, cases[i].in), *html = escaped(escape_html, cases[i].in);

        assert_string_equal(json, cases[i].json);
        assert_string_equal(html, cases[i].html);
        free(json);
        free(html);
    }
}

static bool is_harmless(struct span text)
{
    while (text.len > 0) {
        size_t len = utf8_printable_len(text);

        if (len == 0)
            return false;
        text = span_from(text, len);
    }
    return true;
}

/* All pairs of bytes: within the room, well-formed, without a control. */
static void test_pairs(void **state)
{
    (void)state;
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        const char in[] = {(char)(pair >> 8), (char)pair};
        char out[2 * ESCAPE_LONGEST], *json, *html;

        json = escape_json(out, (struct span){in, 2});
        assert_in_range(json - out, 2, sizeof out);
        assert_true(is_harmless((struct span){out, (size_t)(json - out)}));
        html = escape_html(out, (struct span){in, 2});
        assert_in_range(html - out, 2, sizeof out);
        assert_true(is_harmless((struct span){out, (size_t)(html - out)}));
        assert_null(memchr(out, '<', (size_t)(html - out)));
        assert_null(memchr(out, '"', (size_t)(html - out)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_pairs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
