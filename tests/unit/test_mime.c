/* The built-in types, and the reading of a mime.types file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "site/mime.h"

#define NONE "application/octet-stream"

static void test_builtin(void **state)
{
    static const struct {
        const char *file, *type;
    } cases[] = {
        {"index.html", "text/html; charset=utf-8"},
        {"INDEX.HTML", "text/html; charset=utf-8"},
        {"a.b.Css", "text/css; charset=utf-8"},
        {"x.js", "text/javascript; charset=utf-8"},
        {"x.mjs", "text/javascript; charset=utf-8"},
        {"x.json", "application/json"},
        {"x.svg", "image/svg+xml"},
        {"x.7z", "application/x-7z-compressed"}, /* the first of the table */
        {"x.zst", "application/zstd"},           /* the last */
        {"x.woff", "font/woff"},
        {"x.woff2", "font/woff2"},
        {"a.tar.gz", "application/gzip"},
        {"x.wasm", "application/wasm"},
        {"x.htmlx", NONE},
        {"x.ht", NONE},
        {"x.", NONE},
        {"html", NONE},
        {"", NONE},
        {".", NONE},
        {"x.js/y", NONE},
    };

    (void)state;
    mime_free();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(mime_type(span_of(cases[i].file)), cases[i].type);
    assert_string_equal(mime_type(SPAN("x.css\0y")), NONE);
    assert_string_equal(mime_type(SPAN("x.\0css")), NONE);
    assert_string_equal(mime_type((struct span){NULL, 0}), NONE);
    assert_string_equal(mime_type((struct span){"x.html", 5}), "text/html; charset=utf-8"); /* "x.htm" */
}

static void load_text(const char *text)
{
    char path[] = "/tmp/test-mime-XXXXXX";
    int fd = mkstemp(path);
    size_t len = strlen(text);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
    mime_load(path);
    unlink(path);
}

static void test_file(void **state)
{
    (void)state;
    load_text("# a comment\n"
              "application/x-one\t\tONE uno # eins\n"
              "\n"
              "application/x-nothing\n"
              "   text/x-two two\r\n"
              "application/x-late one\n"
              "text/nonsense html\n"
              "#application/x-dead dead\n"
              "application/x-last last");
    assert_string_equal(mime_type(SPAN("a.one")), "application/x-one");
    assert_string_equal(mime_type(SPAN("a.One")), "application/x-one");
    assert_string_equal(mime_type(SPAN("a.uno")), "application/x-one");
    assert_string_equal(mime_type(SPAN("a.eins")), NONE);
    assert_string_equal(mime_type(SPAN("a.two")), "text/x-two; charset=utf-8");
    assert_string_equal(mime_type(SPAN("a.html")), "text/html; charset=utf-8");
    assert_string_equal(mime_type(SPAN("a.dead")), NONE);
    assert_string_equal(mime_type(SPAN("a.last")), "application/x-last");
    load_text("application/x-new new\n");
    assert_string_equal(mime_type(SPAN("a.new")), "application/x-new");
    assert_string_equal(mime_type(SPAN("a.one")), NONE);
    load_text("");
    assert_string_equal(mime_type(SPAN("a.new")), NONE);
    mime_free();
}

static void test_no_file(void **state)
{
    (void)state;
    mime_load("/nonexistent/mime.types");
    assert_string_equal(mime_type(SPAN("a.png")), "image/png");
    mime_load("/");
    assert_string_equal(mime_type(SPAN("a.xyz")), NONE);
    mime_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_no_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
