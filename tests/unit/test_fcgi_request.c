#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/fcgi_request.h"

static void add_line(void *arg, struct span name, struct span value)
{
    buffer_printf(arg, "\n%.*s=%.*s", (int)name.len, name.at, (int)value.len, value.at);
}

static char *lines_of(const struct fcgi_request *request)
{
    struct buffer lines = {0};

    fcgi_request_each_variable(request, add_line, &lines);
    buffer_append(&lines, "\n", 2);
    return buffer_at(&lines);
}

/* Is there exactly one line of that name, with that value? NULL: there is none. */
static void check_variable(const char *lines, const char *name, const char *value)
{
    char line[300], start[100];
    const char *first;

    snprintf(start, sizeof start, "\n%s=", name);
    first = strstr(lines, start);
    if (value == NULL) {
        assert_null(first);
        return;
    }
    snprintf(line, sizeof line, "\n%s=%s\n", name, value);
    if (strstr(lines, line) == NULL)
        fail_msg("no line %s in %s", line, lines);
    assert_null(strstr(first + 1, start));
}

struct place {
    const char *script, *url, *root;                  /* the words */
    const char *filename, *name, *info, *query, *uri; /* what comes of them */
    const char *document_root, *document_uri;
};

static const struct place places[] = {
    {"/srv/a.php", NULL, NULL, "/srv/a.php", "/a.php", NULL, "", "/a.php", "/srv", "/a.php"},
    {"a.php", NULL, NULL, "/here/dir/a.php", "/a.php", NULL, "", "/a.php", "/here/dir", "/a.php"},
    {"./sub//a.php?x=1&y=%20", NULL, NULL, "/here/dir/sub/a.php", "/a.php", NULL, "x=1&y=%20", "/a.php?x=1&y=%20",
     "/here/dir/sub", "/a.php"},
    {"/status", NULL, NULL, "/status", "/status", NULL, "", "/status", "/", "/status"},
    {"/srv/a b.php", NULL, NULL, "/srv/a b.php", "/a b.php", NULL, "", "/a%20b.php", "/srv", "/a b.php"},
    {"/srv/a.php", "/a.php/more/x?q", NULL, "/srv/a.php", "/a.php", "/more/x", "q", "/a.php/more/x?q", "/srv",
     "/a.php/more/x"},
    {"/srv/sub/a.php", "/sub/a.php", NULL, "/srv/sub/a.php", "/sub/a.php", NULL, "", "/sub/a.php", "/srv",
     "/sub/a.php"},
    {"/srv/other/a.php", "/sub/a.php", NULL, "/srv/other/a.php", "/sub/a.php", NULL, "", "/sub/a.php", "/srv/other",
     "/sub/a.php"},
    /* a front controller */
    {"/srv/index.php", "/blog/1?a", NULL, "/srv/index.php", "/index.php", NULL, "a", "/blog/1?a", "/srv", "/blog/1"},
    {"/srv/index.php", "/xindex.php/index.phpx", NULL, "/srv/index.php", "/index.php", NULL, "",
     "/xindex.php/index.phpx", "/srv", "/xindex.php/index.phpx"},
    /* a "?" in a script's name is one, when the query is in the url */
    {"/srv/a?b", "/x", NULL, "/srv/a?b", "/a?b", NULL, "", "/x", "/srv", "/x"},
    {"/srv/app/a.php", NULL, "/srv", "/srv/app/a.php", "/a.php", NULL, "", "/a.php", "/srv", "/a.php"},
    /* a root alone */
    {NULL, "/a/b%20c?d", "/srv/", "/srv/a/b c", "/a/b c", NULL, "d", "/a/b%20c?d", "/srv", "/a/b c"},
    {NULL, "/a", "/", "/a", "/a", NULL, "", "/a", "/", "/a"},
    {NULL, NULL, "sub", "/here/dir/sub/", "/", NULL, "", "/", "/here/dir/sub", "/"},
    /* neither */
    {NULL, "/a/../b?c", NULL, NULL, "", "/b", "c", "/a/../b?c", "/", "/b"},
    {NULL, NULL, NULL, NULL, "", "/", "", "/", "/", "/"},
};

static void finds_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const struct place *place = &places[i];
        struct fcgi_request_words words = {.script = place->script, .url = place->url, .root = place->root};
        struct fcgi_request request = {.role = RECORD_RESPONDER};
        char why[256];
        char *lines;

        assert_true(fcgi_request_make(&request, &words, "/here/dir", why));
        lines = lines_of(&request);
        check_variable(lines, "SCRIPT_FILENAME", place->filename);
        check_variable(lines, "SCRIPT_NAME", place->name);
        check_variable(lines, "PATH_INFO", place->info);
        check_variable(lines, "QUERY_STRING", place->query);
        check_variable(lines, "REQUEST_URI", place->uri);
        check_variable(lines, "DOCUMENT_ROOT", place->document_root);
        check_variable(lines, "DOCUMENT_URI", place->document_uri);
        free(lines);
        fcgi_request_free(&request);
    }
}

static void gives_defaults(void **state)
{
    struct fcgi_request_words words = {.script = "/a.php"};
    struct fcgi_request request = {.role = RECORD_RESPONDER};
    char why[256];
    char *lines;

    (void)state;
    assert_true(fcgi_request_make(&request, &words, "/", why));
    lines = lines_of(&request);
    check_variable(lines, "GATEWAY_INTERFACE", "CGI/1.1");
    check_variable(lines, "SERVER_SOFTWARE", "gatehouse/" GATEHOUSE_VERSION);
    check_variable(lines, "SERVER_PROTOCOL", "HTTP/1.1");
    check_variable(lines, "REQUEST_METHOD", "GET");
    check_variable(lines, "REDIRECT_STATUS", "200");
    check_variable(lines, "SERVER_NAME", "localhost");
    check_variable(lines, "SERVER_ADDR", "127.0.0.1");
    check_variable(lines, "SERVER_PORT", "80");
    check_variable(lines, "REMOTE_ADDR", "127.0.0.1");
    check_variable(lines, "HTTP_HOST", "localhost");
    check_variable(lines, "CONTENT_LENGTH", NULL);
    check_variable(lines, "CONTENT_TYPE", NULL);
    check_variable(lines, "REQUEST_ID", NULL);
    free(lines);
    fcgi_request_free(&request);
}

static void takes_fields_and_params(void **state)
{
    const char *fields[] = {"Host: example.org:81", "X-Foo:  a ",  "x-foo: b", "Authorization: Basic x",
                            "Cookie: a=1",          "Cookie: b=2", "Proxy: p", "content-type: text/plain"};
    const char *params[] = {"X=1=2", "SERVER_PORT=1", "HTTP_X_BAR=", "REQUEST_ID=", "odd name=y", "X=3"};
    struct fcgi_request_words words = {.fields = fields, .n_fields = 8, .params = params, .n_params = 6};
    struct fcgi_request request = {.role = RECORD_RESPONDER, .has_input = true, .length = 12345678901};
    char why[256];
    char *lines;

    (void)state;
    assert_true(fcgi_request_make(&request, &words, "/", why));
    lines = lines_of(&request);
    check_variable(lines, "REQUEST_METHOD", "POST");
    check_variable(lines, "CONTENT_LENGTH", "12345678901");
    check_variable(lines, "CONTENT_TYPE", "text/plain");
    check_variable(lines, "HTTP_HOST", "example.org:81");
    check_variable(lines, "SERVER_NAME", "example.org");
    check_variable(lines, "HTTP_X_FOO", "a, b");
    check_variable(lines, "HTTP_COOKIE", "a=1; b=2");
    check_variable(lines, "HTTP_AUTHORIZATION", "Basic x");
    check_variable(lines, "HTTP_PROXY", "p");
    check_variable(lines, "HTTP_CONTENT_TYPE", NULL);
    check_variable(lines, "X", "3");
    check_variable(lines, "SERVER_PORT", "1");
    check_variable(lines, "HTTP_X_BAR", "");
    check_variable(lines, "REQUEST_ID", "");
    check_variable(lines, "odd name", "y");
    free(lines);
    fcgi_request_free(&request);
}

static void gives_roles_what_is_theirs(void **state)
{
    struct fcgi_request_words words = {.script = "/srv/a.php", .url = "/a.php/x", .method = "PUT"};
    struct fcgi_request request = {.role = RECORD_AUTHORIZER, .has_input = true, .length = 1};
    char why[256];
    char *lines;

    (void)state;
    assert_true(fcgi_request_make(&request, &words, "/", why));
    lines = lines_of(&request);
    check_variable(lines, "REQUEST_METHOD", "PUT");
    check_variable(lines, "SCRIPT_FILENAME", "/srv/a.php");
    check_variable(lines, "SCRIPT_NAME", NULL);
    check_variable(lines, "PATH_INFO", NULL);
    check_variable(lines, "PATH_TRANSLATED", NULL);
    check_variable(lines, "CONTENT_LENGTH", NULL);
    check_variable(lines, "FCGI_DATA_LENGTH", NULL);
    free(lines);

    request.role = RECORD_FILTER;
    request.data_length = 77;
    request.data_modified = 1234567890;
    lines = lines_of(&request);
    check_variable(lines, "PATH_TRANSLATED", "/srv/x");
    check_variable(lines, "CONTENT_LENGTH", "1");
    check_variable(lines, "CONTENT_TYPE", "application/x-www-form-urlencoded");
    check_variable(lines, "FCGI_DATA_LENGTH", "77");
    check_variable(lines, "FCGI_DATA_LAST_MOD", "1234567890");
    free(lines);
    fcgi_request_free(&request);
}

static void refuses(const struct fcgi_request_words *words, const char *part)
{
    struct fcgi_request request = {.role = RECORD_RESPONDER};
    char why[256] = "";

    assert_false(fcgi_request_make(&request, words, "/", why));
    if (strstr(why, part) == NULL)
        fail_msg("\"%s\" says nothing of \"%s\"", why, part);
    fcgi_request_free(&request);
}

static void refuses_what_means_nothing(void **state)
{
    static const char *const fields[][2] = {
        {"X", "without a colon"},          {": x", "without a name"}, {"X : y", "white space"},
        {"X: a\nY: b", "control"},         {"X_Y: 1", "-P"},          {"Content-Length: 3", "CONTENT_LENGTH"},
        {"X.Y: 1", "becomes no variable"},
    };

    (void)state;
    refuses(&(struct fcgi_request_words){.method = ""}, "a method is a word");
    refuses(&(struct fcgi_request_words){.method = "G T"}, "a method is a word");
    refuses(&(struct fcgi_request_words){.url = "a"}, "the url is a path");
    refuses(&(struct fcgi_request_words){.url = ""}, "the url is a path");
    refuses(&(struct fcgi_request_words){.url = "/../a"}, "above the root");
    refuses(&(struct fcgi_request_words){.url = "/%zz"}, "%");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[64];
        const char *field = text;

        snprintf(text, sizeof text, "%s", fields[i][0]);
        refuses(&(struct fcgi_request_words){.fields = &field, .n_fields = 1}, fields[i][1]);
    }
    for (size_t i = 0; i < 3; i++) {
        const char *param = (const char *[]){"X", "=x", ""}[i];

        refuses(&(struct fcgi_request_words){.params = &param, .n_params = 1}, "NAME=VALUE");
    }
}

static void refuses_too_many_fields(void **state)
{
    const char *fields[REQUEST_MAX_FIELDS + 1];
    struct fcgi_request_words words = {.fields = fields, .n_fields = REQUEST_MAX_FIELDS + 1};
    struct fcgi_request request = {.role = RECORD_RESPONDER, .has_input = true};
    char why[256];

    (void)state;
    for (unsigned i = 0; i <= REQUEST_MAX_FIELDS; i++)
        fields[i] = "X: 1";
    refuses(&words, "at most 100 fields");
    words.n_fields--;
    assert_true(fcgi_request_make(&request, &words, "/", why));
    assert_int_equal(request.n_fields, REQUEST_MAX_FIELDS + 2);
    fcgi_request_free(&request);
}

static void encodes(void **state)
{
    static char big[70000] = "BIG=";
    const char *params[] = {big};
    struct fcgi_request_words words = {.script = "/a.php", .params = params, .n_params = 1};
    struct fcgi_request request = {.role = RECORD_RESPONDER};
    struct buffer b = {0};
    char why[256], name[64];

    (void)state;
    memset(big + 4, 'x', 65000);
    assert_true(fcgi_request_make(&request, &words, "/", why));
    assert_null(fcgi_request_encode(&request, &b, name));
    assert_memory_equal(buffer_at(&b), "\1\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0\1\4\0\1", 20);
    assert_memory_equal(buffer_at(&b) + buffer_len(&b) - 8, "\1\4\0\1\0\0\0\0", 8);
    fcgi_request_free(&request);
    buffer_clear(&b);

    memset(big + 4, 'x', sizeof big - 5);
    request = (struct fcgi_request){.role = RECORD_RESPONDER};
    assert_true(fcgi_request_make(&request, &words, "/", why));
    assert_string_equal(fcgi_request_encode(&request, &b, name), "BIG");
    fcgi_request_free(&request);
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_places),
        cmocka_unit_test(gives_defaults),
        cmocka_unit_test(takes_fields_and_params),
        cmocka_unit_test(gives_roles_what_is_theirs),
        cmocka_unit_test(refuses_what_means_nothing),
        cmocka_unit_test(refuses_too_many_fields),
        cmocka_unit_test(encodes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
