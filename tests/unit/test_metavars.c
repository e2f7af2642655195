/* The meta-variables of a request, as a list of NAME=value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "gateway/metavars.h"

enum { MAX_VARIABLES = 128 };

struct variable {
    char *name, *value;
};

struct variables {
    struct variable at[MAX_VARIABLES];
    unsigned n;
};

static void add(void *arg, struct span name, struct span value)
{
    struct variables *all = arg;

    assert_true(all->n < MAX_VARIABLES);
    all->at[all->n].name = memory_copy(name.at, name.len);
    all->at[all->n].value = memory_copy(value.at, value.len);
    all->n++;
}

static void forget(struct variables *all)
{
    while (all->n > 0) {
        all->n--;
        free(all->at[all->n].name);
        free(all->at[all->n].value);
    }
}

static const char *value_of(const struct variables *all, const char *name)
{
    for (unsigned i = 0; i < all->n; i++) {
        if (strcmp(all->at[i].name, name) == 0)
            return all->at[i].value;
    }
    return NULL;
}

static void check_value(const struct variables *all, const char *name, const char *expected)
{
    const char *value = value_of(all, name);

    if (value == NULL)
        fail_msg("%s is not set", name);
    assert_string_equal(value, expected);
}

/* No name twice; and what is set for a request may be handed to the keeper. */
static void check_names(const struct variables *all)
{
    for (unsigned i = 0; i < all->n; i++) {
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(all->at[i].name, all->at[k].name);
        if (!metavars_is_name(span_of(all->at[i].name)))
            fail_msg("%s is no name", all->at[i].name);
    }
}

/* Fields from text: "Name: value", one a line. */
static unsigned read_fields(struct field *fields, const char *text)
{
    unsigned n = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, "\n"), name_len = strcspn(text, ":");

        fields[n].name = (struct span){text, name_len};
        fields[n].value = (struct span){text + name_len + 2, len - name_len - 2};
        n++;
        text += len + 1;
    }
    return n;
}

struct request {
    struct field fields[MAX_VARIABLES];
    struct head head;
    struct metavars vars;
};

/* GET /app/a/b?x=1 with the given fields, to a script with a PATH_INFO, from 192.0.2.1. */
static void prepare(struct request *request, const char *fields)
{
    struct head *head = &request->head;

    *head = (struct head){
        .method = METHOD_GET,
        .method_text = SPAN("GET"),
        .minor = 1,
        .form = TARGET_ORIGIN,
        .target = SPAN("/app/a%2fb?x=%201"),
        .path_and_query = SPAN("/app/a%2fb?x=%201"),
        .authority = SPAN("example.org:8080"),
        .host = SPAN("example.org"),
        .fields = request->fields,
    };
    head->n_fields = read_fields(request->fields, fields);
    request->vars = (struct metavars){
        .head = head,
        .query = SPAN("x=%201"),
        .script_name = SPAN("/app"),
        .path_info = SPAN("/a/b"),
        .script_filename = SPAN("/srv/cgi/app"),
        .document_root = SPAN("/srv/www"),
        .server_name = SPAN("example.org"),
        .server_addr = SPAN("127.0.0.1"),
        .server_port = SPAN("8080"),
        .remote_addr = SPAN("192.0.2.1"),
        .remote_port = SPAN("54321"),
        .request_id = SPAN("0123abcd"),
    };
}

static void enumerate(struct variables *all, const struct request *request)
{
    all->n = 0;
    metavars_each(&request->vars, add, all);
}

static void sets_the_variables_of_a_request(void **state)
{
    static const struct {
        const char *name, *value;
    } expected[] = {
        {"GATEWAY_INTERFACE", "CGI/1.1"},
        {"SERVER_SOFTWARE", "gatehouse/" GATEHOUSE_VERSION},
        {"SERVER_NAME", "example.org"},
        {"SERVER_ADDR", "127.0.0.1"},
        {"SERVER_PORT", "8080"},
        {"SERVER_PROTOCOL", "HTTP/1.1"},
        {"REQUEST_METHOD", "GET"},
        {"REQUEST_URI", "/app/a%2fb?x=%201"},
        {"REQUEST_SCHEME", "http"},
        {"QUERY_STRING", "x=%201"},
        {"SCRIPT_NAME", "/app"},
        {"SCRIPT_FILENAME", "/srv/cgi/app"},
        {"DOCUMENT_ROOT", "/srv/www"},
        {"PATH_INFO", "/a/b"},
        {"PATH_TRANSLATED", "/srv/www/a/b"},
        {"REMOTE_ADDR", "192.0.2.1"},
        {"REMOTE_PORT", "54321"},
        {"REDIRECT_STATUS", "200"},
        {"REQUEST_ID", "0123abcd"},
        {"HTTP_HOST", "Example.org:8080"},
    };
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "Host: Example.org:8080\n");
    enumerate(&all, &request);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        check_value(&all, expected[i].name, expected[i].value);
    assert_int_equal(all.n, sizeof expected / sizeof expected[0]);
    check_names(&all);
    forget(&all);
}

static void leaves_out_what_a_request_has_not(void **state)
{
    static const char *const absent[] = {"PATH_INFO",    "PATH_TRANSLATED", "REMOTE_PORT", "CONTENT_LENGTH",
                                         "CONTENT_TYPE", "HTTPS",           "HTTP_HOST"};
    static const char *const empty[] = {"QUERY_STRING", "SCRIPT_NAME"};
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "");
    request.head.minor = 0;
    request.vars.path_info = request.vars.remote_port = request.vars.query = request.vars.script_name = SPAN("");
    enumerate(&all, &request);
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        assert_null(value_of(&all, absent[i]));
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++)
        check_value(&all, empty[i], "");
    check_value(&all, "SERVER_PROTOCOL", "HTTP/1.0");
    assert_int_equal(all.n, 16);
    forget(&all);
}

static void sets_what_a_body_needs(void **state)
{
    static const struct {
        uint64_t length;
        const char *text;
    } rows[] = {{0, "0"}, {5, "5"}, {10, "10"}, {1073741824, "1073741824"}, {UINT64_MAX, "18446744073709551615"}};
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "content-TYPE: a/b; c=\"d\"\nContent-Length: 999\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        request.vars.length_known = true;
        request.vars.length = rows[i].length;
        enumerate(&all, &request);
        check_value(&all, "CONTENT_LENGTH", rows[i].text);
        check_value(&all, "CONTENT_TYPE", "a/b; c=\"d\"");
        assert_null(value_of(&all, "HTTP_CONTENT_LENGTH"));
        assert_null(value_of(&all, "HTTP_CONTENT_TYPE"));
        check_names(&all);
        forget(&all);
    }
}

static void tells_https(void **state)
{
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "");
    request.vars.is_https = true;
    enumerate(&all, &request);
    check_value(&all, "HTTPS", "on");
    check_value(&all, "REQUEST_SCHEME", "https");
    check_names(&all);
    forget(&all);
}

static void translates_the_path(void **state)
{
    static const struct {
        const char *root, *expected;
    } rows[] = {{"/srv/www", "/srv/www/a/b"}, {"/srv/www/", "/srv/www/a/b"}, {"/", "/a/b"}};
    struct request request;
    struct variables all;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare(&request, "");
        request.vars.document_root = span_of(rows[i].root);
        enumerate(&all, &request);
        check_value(&all, "DOCUMENT_ROOT", rows[i].root);
        check_value(&all, "PATH_TRANSLATED", rows[i].expected);
        forget(&all);
    }
}

static void takes_the_host_of_an_absolute_target(void **state)
{
    static const struct {
        const char *target, *path_and_query, *uri;
    } rows[] = {
        {"http://b:81/x?y", "/x?y", "/x?y"},
        {"http://b:81", "", "/"},
        {"http://b:81?y", "?y", "/?y"},
    };
    struct request request;
    struct variables all;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare(&request, "Host: a\nX-Host: a\n");
        request.head.form = TARGET_ABSOLUTE;
        request.head.target = span_of(rows[i].target);
        request.head.path_and_query = span_of(rows[i].path_and_query);
        request.head.authority = SPAN("b:81");
        enumerate(&all, &request);
        check_value(&all, "REQUEST_URI", rows[i].uri);
        check_value(&all, "HTTP_HOST", "b:81");
        check_value(&all, "HTTP_X_HOST", "a");
        check_names(&all);
        forget(&all);
    }
}

static void takes_an_asterisk_as_it_is(void **state)
{
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "Host: a\n");
    request.head.form = TARGET_ASTERISK;
    request.head.target = SPAN("*");
    request.head.path_and_query = SPAN("");
    enumerate(&all, &request);
    check_value(&all, "REQUEST_URI", "*");
    forget(&all);
}

/* What becomes of fields: the HTTP_* variables in the order of their first fields, or none. */
static void maps_fields(void **state)
{
    static const struct {
        const char *fields, *expected;
    } rows[] = {
        {"Accept: */*\n", "HTTP_ACCEPT=*/*\n"},
        {"x-forwarded-FOR: 192.0.2.7\n", "HTTP_X_FORWARDED_FOR=192.0.2.7\n"},
        {"X-Empty: \n", "HTTP_X_EMPTY=\n"},
        {"-: a\nX-: b\n-X: c\n--: d\n9: e\n", "HTTP__=a\nHTTP_X_=b\nHTTP__X=c\nHTTP___=d\nHTTP_9=e\n"},
        {"X: () { :; }; touch /tmp/x\n", "HTTP_X=() { :; }; touch /tmp/x\n"},
        {"Accept: a\nX: 1\naccept: b\nACCEPT: c\n", "HTTP_ACCEPT=a, b, c\nHTTP_X=1\n"},
        {"X: a\nx: b\nY: 1\nX: c\nZ: 2\n", "HTTP_X=a, b, c\nHTTP_Y=1\nHTTP_Z=2\n"},
        {"Cookie: a=1\ncookie: b=2\n", "HTTP_COOKIE=a=1; b=2\n"},
        {"X: \nX: \n", "HTTP_X=, \n"},
        {"X: a, b\n", "HTTP_X=a, b\n"},
        /* Only ever HTTP_*. */
        {"Remote-User: e\nPath: e\nLd-Preload: e\nScript-Name: e\nGateway-Interface: e\nHttps: e\n",
         "HTTP_REMOTE_USER=e\nHTTP_PATH=e\nHTTP_LD_PRELOAD=e\nHTTP_SCRIPT_NAME=e\nHTTP_GATEWAY_INTERFACE=e\n"
         "HTTP_HTTPS=e\n"},
        {"Http-Proxy: e\nProxy-Connection: e\nTransfer-Encoding-Foo: x\n",
         "HTTP_HTTP_PROXY=e\nHTTP_PROXY_CONNECTION=e\nHTTP_TRANSFER_ENCODING_FOO=x\n"},
        /* Never set. */
        {"Proxy: e\nPROXY: e\nproxy: e\n", ""},
        {"Content-Length: 1\nTransfer-Encoding: chunked\nConnection: x\nKeep-Alive: x\nTE: x\nTrailer: x\n", ""},
        {"Upgrade: x\nExpect: 100-continue\nProxy-Authorization: x\nAuthorization: Basic dTpw\n", ""},
        {"te: x\nAUTHORIZATION: x\nkeep-alive: x\n", ""},
        /* No plain names. */
        {"X_Foo: e\nX.Foo: e\nX+Foo: e\n_: e\nX~: e\n", ""},
        {"Remote_User: e\nContent_Length: 9\nX: 1\n", "HTTP_X=1\n"},
    };
    struct request request;
    struct variables all;
    struct buffer text = {0};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare(&request, rows[i].fields);
        enumerate(&all, &request);
        buffer_clear(&text);
        for (unsigned k = 0; k < all.n; k++) {
            if (strncmp(all.at[k].name, "HTTP_", 5) == 0)
                buffer_printf(&text, "%s=%s\n", all.at[k].name, all.at[k].value);
        }
        buffer_append(&text, "", 1);
        assert_string_equal(buffer_at(&text), rows[i].expected);
        check_names(&all);
        forget(&all);
    }
    buffer_free(&text);
}

/* Names and values of any length arrive whole, long ones too and when they are joined. */
static void cuts_nothing(void **state)
{
    static const size_t lengths[] = {1, 127, 128, 129, 250, 251, 252, 255, 256, 1000, 20000};
    struct request request;
    struct variables all;

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t len = lengths[i];
        char *name = memory_zeroed(1, len + 1), *value = memory_zeroed(1, len + 1);

        memset(name, 'n', len);
        memset(value, 'v', len);
        prepare(&request, "");
        request.fields[0] = request.fields[1] = (struct field){{name, len}, {value, len}};
        request.head.n_fields = 2;
        enumerate(&all, &request);
        assert_int_equal(all.n, 20);
        assert_int_equal(strlen(all.at[19].name), len + 5);
        assert_int_equal(strspn(all.at[19].name + 5, "N"), len);
        assert_int_equal(strlen(all.at[19].value), 2 * len + 2);
        assert_memory_equal(all.at[19].value + len + 2, value, len);
        forget(&all);
        free(name);
        free(value);
    }
}

static void lets_the_route_win(void **state)
{
    static char names[][24] = {"APP_ENV",     "SERVER_NAME", "HTTP_PROXY",   "HTTP_ACCEPT",
                               "REMOTE_USER", "APP_ENV",     "SERVER_PORTAL"};
    static char values[][24] = {"first", "route", "allowed", "route/*", "", "production", "x"};
    struct config_pair pairs[7];
    struct config_pairs env = {pairs, 7};
    struct request request;
    struct variables all;
    unsigned without;

    (void)state;
    for (unsigned i = 0; i < env.n; i++)
        pairs[i] = (struct config_pair){names[i], values[i]};
    prepare(&request, "Accept: */*\nAccept: a/b\nAccept-Language: de\nProxy: evil\n");
    enumerate(&all, &request);
    without = all.n;
    forget(&all);

    request.vars.env = &env;
    enumerate(&all, &request);
    check_value(&all, "APP_ENV", "production");
    check_value(&all, "SERVER_NAME", "route");
    check_value(&all, "HTTP_PROXY", "allowed");
    check_value(&all, "HTTP_ACCEPT", "route/*");
    check_value(&all, "HTTP_ACCEPT_LANGUAGE", "de");
    check_value(&all, "REMOTE_USER", "");
    check_value(&all, "SERVER_PORTAL", "x");
    check_value(&all, "SERVER_PORT", "8080");
    assert_int_equal(all.n, without + 4);
    for (unsigned i = 0; i < all.n; i++) {
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(all.at[i].name, all.at[k].name);
    }
    forget(&all);
}

static void finds_collisions(void **state)
{
    static const struct {
        const char *fields, *offender; /* NULL: none */
    } rows[] = {
        {"", NULL},
        {"Host: a\nAccept: b\nAccept: c\nX-Foo: d\nX-FOO: e\n", NULL},
        {"Remote_User: e\n", NULL},
        {"X_Foo: a\nx_foo: b\n", NULL},
        {"X.Forwarded.For: e\n", NULL},
        {"X-Foo: a\nX_Bar: b\nXFoo: c\n", NULL},
        {"Prox_y: a\n", NULL},
        {"X-Forwarded-For: good\nX_Forwarded_For: evil\n", "X_Forwarded_For"},
        {"X_Forwarded-For: evil\nX-Forwarded-For: good\n", "X_Forwarded-For"},
        {"Host: a\nx-real-ip: good\nX_REAL_IP: evil\n", "X_REAL_IP"},
        {"X-Y: a\nX+Y: b\n", "X+Y"},
        {"X-Y: a\nX.Y: b\n", "X.Y"},
        {"X~Y: a\nX_Y: b\n", "X~Y"},
        {"Content_Length: 9\n", "Content_Length"},
        {"content.type: 9\n", "content.type"},
        {"Transfer_Encoding: chunked\n", "Transfer_Encoding"},
        {"Keep_Alive: x\n", "Keep_Alive"},
        {"Proxy_Authorization: x\n", "Proxy_Authorization"},
    };
    struct request request;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct field *field;

        prepare(&request, rows[i].fields);
        field = metavars_collision(&request.head);
        if ((field == NULL) != (rows[i].offender == NULL))
            fail_msg("collision in %s", rows[i].fields);
        if (field != NULL && rows[i].offender != NULL)
            assert_true(span_is(field->name, span_of(rows[i].offender)));
    }
}

static void knows_names(void **state)
{
    const struct {
        struct span name;
        bool is_name;
    } rows[] = {
        {SPAN("REQUEST_METHOD"), true},
        {SPAN("HTTPS"), true},
        {SPAN("PATH_TRANSLATED"), true},
        {SPAN("CONTENT_TYPE"), true},
        {SPAN("HTTP_X"), true},
        {SPAN("HTTP__"), true},
        {SPAN("HTTP_X_9"), true},
        {SPAN("HTTP_PROXY_CONNECTION"), true},
        {SPAN(""), false},
        {SPAN("HTTP"), false},
        {SPAN("HTTP_"), false},
        {SPAN("HTTP_x"), false},
        {SPAN("HTTP_X=Y"), false},
        {SPAN("HTTP_X\0Y"), false},
        {SPAN("HTTP_X-Y"), false},
        {SPAN("HTTP_PROXY"), false},
        {SPAN("HTTP_AUTHORIZATION"), false},
        {SPAN("HTTP_CONTENT_LENGTH"), false},
        {SPAN("HTTP_TRANSFER_ENCODING"), false},
        {SPAN("http_x"), false},
        {SPAN("request_method"), false},
        {SPAN("REQUEST_METHOD="), false},
        {SPAN("REQUEST_METHO"), false},
        {SPAN("LD_PRELOAD"), false},
        {SPAN("PATH"), false},
        {SPAN("REMOTE_USER"), false},
        {SPAN("BASH_FUNC_x%%"), false},
        {SPAN("IFS"), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (metavars_is_name(rows[i].name) != rows[i].is_name)
            fail_msg("%.*s", (int)rows[i].name.len, rows[i].name.at);
    }
}

static void leaves_out_what_an_authorizer_must_not_get(void **state)
{
    static const char *const missing[] = {"CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"};
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "Content-Length: 3\nContent-Type: a/b\n");
    request.vars.role = ROLE_AUTHORIZER;
    request.vars.length_known = true;
    request.vars.length = 3;
    enumerate(&all, &request);
    check_names(&all);
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        assert_null(value_of(&all, missing[i]));
    check_value(&all, "REQUEST_URI", "/app/a%2fb?x=%201");
    check_value(&all, "CONTENT_TYPE", "a/b");
    forget(&all);
}

static void tells_a_filter_of_its_file(void **state)
{
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "");
    request.vars.role = ROLE_FILTER;
    request.vars.data_length = UINT64_C(5000000000);
    request.vars.data_modified = 1700000000;
    enumerate(&all, &request);
    check_names(&all);
    check_value(&all, "FCGI_DATA_LENGTH", "5000000000");
    check_value(&all, "FCGI_DATA_LAST_MOD", "1700000000");
    forget(&all);
}

static void sets_what_authorizers_grant(void **state)
{
    static const char granted[] = "AUTH_METHOD\0first\0REMOTE_USER\0alice\0AUTH_METHOD\0second\0MODE\0granted";
    struct config_pair mode = {(char[]){"MODE"}, (char[]){"of the route"}};
    struct config_pairs env = {&mode, 1};
    struct request request;
    struct variables all;

    (void)state;
    prepare(&request, "");
    request.vars.granted = (struct span){granted, sizeof granted};
    request.vars.env = &env;
    enumerate(&all, &request);
    check_value(&all, "REMOTE_USER", "alice");
    check_value(&all, "AUTH_METHOD", "second");
    check_value(&all, "MODE", "of the route");
    forget(&all);
}

static void knows_what_may_be_granted(void **state)
{
    const struct {
        struct span name;
        bool may_be;
    } rows[] = {
        {SPAN("REMOTE_USER"), true},  {SPAN("AUTH_TYPE"), true},
        {SPAN("AUTH_METHOD"), true},  {SPAN("x"), true},
        {SPAN("_9"), true},           {SPAN("LDAP_DN"), true},
        {SPAN("PATHS"), true},        {SPAN(""), false},
        {SPAN("9A"), false},          {SPAN("A-B"), false},
        {SPAN("A=B"), false},         {SPAN("A\0B"), false},
        {SPAN("LD_PRELOAD"), false},  {SPAN("PATH"), false},
        {SPAN("PERL5LIB"), false},    {SPAN("HTTP_HOST"), false},
        {SPAN("SCRIPT_NAME"), false}, {SPAN("SCRIPT_FILENAME"), false},
        {SPAN("PATH_INFO"), false},   {SPAN("CONTENT_LENGTH"), false},
        {SPAN("http_proxy"), false},  {SPAN("HTTPS_PROXY"), false},
        {SPAN("PHP_VALUE"), false},   {SPAN("PHP_ADMIN_VALUE"), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (metavars_is_grantable(rows[i].name) != rows[i].may_be)
            fail_msg("%.*s", (int)rows[i].name.len, rows[i].name.at);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_the_variables_of_a_request),
        cmocka_unit_test(leaves_out_what_a_request_has_not),
        cmocka_unit_test(sets_what_a_body_needs),
        cmocka_unit_test(tells_https),
        cmocka_unit_test(translates_the_path),
        cmocka_unit_test(takes_the_host_of_an_absolute_target),
        cmocka_unit_test(takes_an_asterisk_as_it_is),
        cmocka_unit_test(maps_fields),
        cmocka_unit_test(cuts_nothing),
        cmocka_unit_test(lets_the_route_win),
        cmocka_unit_test(finds_collisions),
        cmocka_unit_test(knows_names),
        cmocka_unit_test(leaves_out_what_an_authorizer_must_not_get),
        cmocka_unit_test(tells_a_filter_of_its_file),
        cmocka_unit_test(sets_what_authorizers_grant),
        cmocka_unit_test(knows_what_may_be_granted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
