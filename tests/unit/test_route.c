#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "site/route.h"

/* ---- a disk ---- */

struct entry {
    const char *name; /* relative to the directory that the route looks in */
    enum route_file is;
};

static const struct entry below_root[] = {
    {"cgi-bin", ROUTE_FILE_DIRECTORY},   {"cgi-bin/a", ROUTE_FILE_DIRECTORY}, {"cgi-bin/a/x", ROUTE_FILE_REGULAR},
    {"cgi-bin/pipe", ROUTE_FILE_OTHER},  {"b", ROUTE_FILE_DIRECTORY},         {"b/x.php", ROUTE_FILE_REGULAR},
    {"b/x.php/y.php", ROUTE_FILE_OTHER}, {"d.php", ROUTE_FILE_DIRECTORY},     {"d.php/x.php", ROUTE_FILE_REGULAR},
    {".php", ROUTE_FILE_REGULAR},        {"one.fcgi", ROUTE_FILE_REGULAR},    {"exact", ROUTE_FILE_REGULAR},
    {"s", ROUTE_FILE_DIRECTORY},         {"s/app", ROUTE_FILE_REGULAR},
};

static const struct entry below_dir[] = {
    {"a", ROUTE_FILE_DIRECTORY},
    {"a/x", ROUTE_FILE_REGULAR},
    {"x.sh", ROUTE_FILE_REGULAR},
    {"odd", ROUTE_FILE_OTHER},
};

static enum route_file look(void *arg, const struct config_site *site, const struct config_route *route,
                            const char *name)
{
    const struct entry *entries = route->dir != NULL ? below_dir : below_root;
    size_t n = route->dir != NULL ? sizeof below_dir / sizeof *below_dir : sizeof below_root / sizeof *below_root;

    (void)site;
    ++*(unsigned *)arg;
    assert_true(name[0] != '\0' && name[0] != '/');
    assert_true(name[strlen(name) - 1] != '/');
    for (size_t i = 0; i < n; i++)
        if (strcmp(entries[i].name, name) == 0)
            return entries[i].is;
    return ROUTE_FILE_NONE;
}

/* ---- routes ---- */

static struct config_pool processes = {.name = (char[]){"php"}, .kind = POOL_MANAGED};
static struct config_pool scripts = {.name = (char[]){"scripts"}, .kind = POOL_SCRIPTS};
static struct config_pool servers = {.name = (char[]){"api"}, .kind = POOL_SERVERS};

#define ROUTE(kind, text, ...)                                                                                         \
    {                                                                                                                  \
        .match = ROUTE_##kind, .pattern = (char[]){text}, __VA_ARGS__                                                  \
    }
#define CGI         .gateway = GATEWAY_CGI
#define FASTCGI(of) .gateway = GATEWAY_FASTCGI, .pool = &(of)
#define DIR                                                                                                            \
    .dir = (char[])                                                                                                    \
    {                                                                                                                  \
        "/srv/cgi"                                                                                                     \
    }
#define PROGRAM                                                                                                        \
    .program = (char[])                                                                                                \
    {                                                                                                                  \
        "/usr/lib/git-http-backend"                                                                                    \
    }

static struct config_route cgi_dir = ROUTE(PREFIX, "/cgi-bin", CGI, DIR);
static struct config_route cgi_plain = ROUTE(PREFIX, "/cgi-bin", CGI);
static struct config_route cgi_all = ROUTE(PREFIX, "", CGI, DIR);
static struct config_route cgi_program = ROUTE(PREFIX, "/git", CGI, PROGRAM);
static struct config_route cgi_exact = ROUTE(EXACT, "/exact", CGI);
static struct config_route cgi_exact_program = ROUTE(EXACT, "/run", CGI, PROGRAM);
static struct config_route php = ROUTE(SUFFIX, ".php", FASTCGI(processes));
static struct config_route php_cgi = ROUTE(SUFFIX, ".php", CGI);
static struct config_route fcgi_scripts = ROUTE(SUFFIX, ".fcgi", FASTCGI(scripts));
static struct config_route prefix_scripts = ROUTE(PREFIX, "/s", FASTCGI(scripts));
static struct config_route api = ROUTE(PREFIX, "/api", FASTCGI(servers));
static struct config_route api_exact = ROUTE(EXACT, "/ping", FASTCGI(processes));
static struct config_route filter = ROUTE(PREFIX, "/b", FASTCGI(servers), .role = ROLE_FILTER);
static struct config_route filter_suffix = ROUTE(SUFFIX, ".php", FASTCGI(processes), .role = ROLE_FILTER);
static struct config_route guard = ROUTE(PREFIX, "/b", FASTCGI(servers), .role = ROLE_AUTHORIZER);
static struct config_route guard_suffix = ROUTE(SUFFIX, ".php", FASTCGI(processes), .role = ROLE_AUTHORIZER);
static struct config_route everything = ROUTE(PREFIX, "", FASTCGI(servers));
static struct config_route denied = ROUTE(SUFFIX, ".key", .gateway = GATEWAY_DENY);
static struct config_route plain = ROUTE(PREFIX, "/static", .gateway = GATEWAY_STATIC);

static const struct {
    struct config_route *route;
    const char *path;
    enum route_found found;
    const char *script, *script_name, *path_info; /* when taken */
} cases[] = {
    /* a prefix with a directory of its own */
    {&cgi_dir, "/cgi-bin/a/x/y", ROUTE_TAKEN, "a/x", "/cgi-bin/a/x", "/y"},
    {&cgi_dir, "/cgi-bin/a/x", ROUTE_TAKEN, "a/x", "/cgi-bin/a/x", ""},
    {&cgi_dir, "/cgi-bin/a/x/", ROUTE_TAKEN, "a/x", "/cgi-bin/a/x", "/"},
    {&cgi_dir, "/cgi-bin/x.sh/a/x", ROUTE_TAKEN, "x.sh", "/cgi-bin/x.sh", "/a/x"},
    {&cgi_dir, "/cgi-bin", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/a", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/a/", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/none/x", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/odd", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin/X.sh", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_dir, "/cgi-bin2/x.sh", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_dir, "/cgi", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_dir, "/CGI-BIN/x.sh", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_dir, "/a/cgi-bin/x.sh", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_dir, "/", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_all, "/x.sh/y", ROUTE_TAKEN, "x.sh", "/x.sh", "/y"},
    {&cgi_all, "/", ROUTE_MISSING, NULL, NULL, NULL},
    /* and without */
    {&cgi_plain, "/cgi-bin/a/x/y", ROUTE_TAKEN, "cgi-bin/a/x", "/cgi-bin/a/x", "/y"},
    {&cgi_plain, "/cgi-bin", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_plain, "/cgi-bin/", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_plain, "/cgi-bin/pipe", ROUTE_MISSING, NULL, NULL, NULL},
    {&cgi_plain, "/cgi-bin/x.sh", ROUTE_MISSING, NULL, NULL, NULL},
    {&prefix_scripts, "/s/app/more", ROUTE_TAKEN, "s/app", "/s/app", "/more"},
    {&prefix_scripts, "/s", ROUTE_MISSING, NULL, NULL, NULL},
    /* a suffix */
    {&php, "/b/x.php/y", ROUTE_TAKEN, "b/x.php", "/b/x.php", "/y"},
    {&php, "/b/x.php", ROUTE_TAKEN, "b/x.php", "/b/x.php", ""},
    {&php, "/b/x.php/", ROUTE_TAKEN, "b/x.php", "/b/x.php", "/"},
    {&php, "/b/x.php/y.php", ROUTE_TAKEN, "b/x.php", "/b/x.php", "/y.php"},
    {&php, "/d.php/x.php/y", ROUTE_TAKEN, "d.php/x.php", "/d.php/x.php", "/y"},
    {&php, "/.php", ROUTE_TAKEN, ".php", "/.php", ""},
    {&php, "/d.php", ROUTE_MISSING, NULL, NULL, NULL},
    {&php, "/d.php/", ROUTE_MISSING, NULL, NULL, NULL},
    {&php, "/b/none.php", ROUTE_MISSING, NULL, NULL, NULL},
    {&php, "/none.php/x.php", ROUTE_MISSING, NULL, NULL, NULL},
    {&php, "/b/x.php5", ROUTE_NONE, NULL, NULL, NULL},
    {&php, "/b/x.PHP", ROUTE_NONE, NULL, NULL, NULL},
    {&php, "/b/xphp", ROUTE_NONE, NULL, NULL, NULL},
    {&php, "/", ROUTE_NONE, NULL, NULL, NULL},
    {&php_cgi, "/b/x.php/y", ROUTE_TAKEN, "b/x.php", "/b/x.php", "/y"},
    {&fcgi_scripts, "/one.fcgi/y", ROUTE_TAKEN, "one.fcgi", "/one.fcgi", "/y"},
    /* one program, or a pool, for all */
    {&cgi_program, "/git/a/b", ROUTE_TAKEN, "", "/git", "/a/b"},
    {&cgi_program, "/git/", ROUTE_TAKEN, "", "/git", "/"},
    {&cgi_program, "/git", ROUTE_TAKEN, "", "/git", ""},
    {&cgi_program, "/gitx", ROUTE_NONE, NULL, NULL, NULL},
    {&api, "/api/a/b", ROUTE_TAKEN, "", "/api", "/a/b"},
    {&api, "/api", ROUTE_TAKEN, "", "/api", ""},
    {&api, "/apiary", ROUTE_NONE, NULL, NULL, NULL},
    {&everything, "/", ROUTE_TAKEN, "", "", "/"},
    {&everything, "/a/b", ROUTE_TAKEN, "", "", "/a/b"},
    {&api_exact, "/ping", ROUTE_TAKEN, "", "/ping", ""},
    {&api_exact, "/ping/", ROUTE_NONE, NULL, NULL, NULL},
    {&api_exact, "/ping/x", ROUTE_NONE, NULL, NULL, NULL},
    /* a filter needs its file, an authorizer does not */
    {&filter, "/b/x.php/y", ROUTE_TAKEN, "b/x.php", "/b/x.php", "/y"},
    {&filter, "/b", ROUTE_MISSING, NULL, NULL, NULL},
    {&filter, "/b/none", ROUTE_MISSING, NULL, NULL, NULL},
    {&filter_suffix, "/b/x.php", ROUTE_TAKEN, "b/x.php", "/b/x.php", ""},
    {&filter_suffix, "/b/none.php", ROUTE_MISSING, NULL, NULL, NULL},
    {&guard, "/b/none/y", ROUTE_TAKEN, "", "/b", "/none/y"},
    {&guard, "/bb", ROUTE_NONE, NULL, NULL, NULL},
    {&guard_suffix, "/b/none.php/y", ROUTE_TAKEN, "", "/b/none.php/y", ""},
    {&guard_suffix, "/b/x.txt", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_exact_program, "/run", ROUTE_TAKEN, "", "/run", ""},
    {&cgi_exact, "/exact", ROUTE_TAKEN, "exact", "/exact", ""},
    {&cgi_exact, "/exact/x", ROUTE_NONE, NULL, NULL, NULL},
    {&cgi_exact, "/exac", ROUTE_NONE, NULL, NULL, NULL},
};

static struct config_site site_of(struct config_route **routes, size_t n)
{
    return (struct config_site){.routes = routes, .n_routes = n};
}

static void check_span(const char *what, const char *path, struct span got, const char *expected)
{
    if (!span_is(got, span_of(expected)))
        fail_msg("%s: %s is \"%.*s\", not \"%s\"", path, what, (int)got.len, got.at, expected);
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config_route *routes[] = {cases[i].route};
        struct config_site site = site_of(routes, 1);
        struct route_target target;
        unsigned looks = 0;
        size_t len = strlen(cases[i].path);
        char *path = memory_resize(NULL, len); /* not terminated: reading on is seen */

        memcpy(path, cases[i].path, len);
        enum route_found found = route_find(&site, (struct span){path, len}, NULL, look, &looks, &target);
        if (found != cases[i].found)
            fail_msg("%s: %d, not %d", cases[i].path, (int)found, (int)cases[i].found);
        if (found == ROUTE_TAKEN) {
            assert_ptr_equal(target.route, cases[i].route);
            check_span("script", cases[i].path, target.script, cases[i].script);
            check_span("SCRIPT_NAME", cases[i].path, target.script_name, cases[i].script_name);
            check_span("PATH_INFO", cases[i].path, target.path_info, cases[i].path_info);
            assert_int_equal(target.script_name.len + target.path_info.len, len);
        }
        free(path);
    }
}

/* What needs no file asks for none: the status page, a pool, a denied path cost no system call. */
static void test_looks_at_nothing_in_vain(void **state)
{
    static const struct {
        struct config_route *route;
        const char *path;
        unsigned looks;
    } counts[] = {
        {&cgi_program, "/git/a/b", 0},        {&api, "/api/a/b/c", 0},    {&denied, "/a/b.key", 0},
        {&plain, "/static/a/b", 0},           {&php, "/b/c/d/x.html", 0}, {&php, "/b/x.php/y/z", 1},
        {&cgi_dir, "/cgi-bin/none/x/y/z", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct config_route *routes[] = {counts[i].route};
        struct config_site site = site_of(routes, 1);
        struct route_target target;
        unsigned looks = 0;

        route_find(&site, span_of(counts[i].path), NULL, look, &looks, &target);
        assert_int_equal(looks, counts[i].looks);
    }
}

/* Routes that stand for no program tell at least which they are. */
static void test_other_gateways(void **state)
{
    struct config_route *routes[] = {&denied, &plain};
    struct config_site site = site_of(routes, 2);
    struct route_target target;
    unsigned looks = 0;

    (void)state;
    assert_int_equal(route_find(&site, SPAN("/a/b.key"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &denied);
    assert_int_equal(route_find(&site, SPAN("/a/b.key/c"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &denied);
    assert_int_equal(route_find(&site, SPAN("/static/b"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &plain);
    assert_int_equal(route_find(&site, SPAN("/static/b.key"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &denied);
    assert_int_equal(route_find(&site, SPAN("/b"), NULL, look, &looks, &target), ROUTE_NONE);
}

/* The first that matches wins, even when its script is not there: what was refused is not served as a file. */
static void test_order(void **state)
{
    struct config_route *cgi_first[] = {&cgi_plain, &php, &everything}, *php_first[] = {&php, &cgi_plain};
    struct config_site site = site_of(cgi_first, 3), other = site_of(php_first, 2);
    struct route_target target;
    unsigned looks = 0;

    (void)state;
    assert_int_equal(route_find(&site, SPAN("/cgi-bin/x.php"), NULL, look, &looks, &target), ROUTE_MISSING);
    assert_int_equal(route_find(&site, SPAN("/cgi-bin/a/x/z.php"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &cgi_plain);
    assert_int_equal(route_find(&other, SPAN("/cgi-bin/a/x/z.php"), NULL, look, &looks, &target), ROUTE_MISSING);
    assert_int_equal(route_find(&site, SPAN("/b/x.php"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &php);
    assert_int_equal(route_find(&site, SPAN("/b/none"), NULL, look, &looks, &target), ROUTE_TAKEN);
    assert_ptr_equal(target.route, &everything);
    site.n_routes = 0;
    assert_int_equal(route_find(&site, SPAN("/b"), NULL, look, &looks, &target), ROUTE_NONE);
}

/* A name too long for the system is none. */
static void test_long_names(void **state)
{
    struct config_route *routes[] = {&cgi_all};
    struct config_site site = site_of(routes, 1);
    struct route_target target;
    char path[PATH_MAX + 10];
    unsigned looks = 0;

    (void)state;
    memset(path, 'x', sizeof path);
    path[0] = '/';
    for (size_t len = PATH_MAX - 1; len <= sizeof path; len++) {
        looks = 0;
        assert_int_equal(route_find(&site, (struct span){path, len}, NULL, look, &looks, &target), ROUTE_MISSING);
        assert_int_equal(looks, len - 1 < PATH_MAX);
    }
}

/* One authorizer after the other, then what they guard. */
static void test_passed(void **state)
{
    struct config_route *routes[] = {&guard, &guard_suffix, &php};
    struct config_site site = site_of(routes, 3);
    struct route_passed passed = {.n = 0};
    struct route_target target;
    unsigned looks = 0;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(route_find(&site, SPAN("/b/x.php"), &passed, look, &looks, &target), ROUTE_TAKEN);
        assert_ptr_equal(target.route, routes[i]);
        passed.at[passed.n++] = target.route;
    }
    assert_int_equal(route_find(&site, SPAN("/b/x.php"), &passed, look, &looks, &target), ROUTE_NONE);
}

/* Whatever route_find() makes of a path may be run, and no other name for the same. */
static void test_may_run(void **state)
{
    static const struct {
        struct config_route *route;
        const char *script;
        bool may;
    } rows[] = {
        {&cgi_dir, "a/x", true},
        {&cgi_dir, "x.sh", true},
        {&cgi_dir, "", false},
        {&cgi_dir, "/x.sh", false},
        {&cgi_dir, "x.sh/", false},
        {&cgi_dir, "a//x", false},
        {&cgi_dir, "./x.sh", false},
        {&cgi_dir, "a/../x.sh", false},
        {&cgi_dir, "a/.", false},
        {&cgi_dir, "..", false},
        {&cgi_dir, ".git/hook", false},
        {&cgi_dir, "a/x.bak", false},
        {&cgi_dir, "...", true},
        {&cgi_all, "x.sh", true},
        {&cgi_plain, "cgi-bin/a/x", true},
        {&cgi_plain, "cgi-bin", false},
        {&cgi_plain, "cgi-bin/", false},
        {&cgi_plain, "b/x.php", false},
        {&cgi_plain, "cgi-binx/a", false},
        {&cgi_exact, "exact", true},
        {&cgi_exact, "exact/x", false},
        {&cgi_exact, "one.fcgi", false},
        {&php_cgi, "b/x.php", true},
        {&php_cgi, ".php", true},
        {&php_cgi, "x.txt", false},
        {&php_cgi, "x.php/y", false},
        {&fcgi_scripts, "s/app", false},
        {&fcgi_scripts, "s/one.fcgi", true},
        {&fcgi_scripts, "./one.fcgi", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config_route *routes[] = {rows[i].route};
        struct config_site site = site_of(routes, 1);
        char *patterns[] = {(char[]){".g*"}, (char[]){"*.bak"}};

        site.hidden = (struct config_words){patterns, 2};
        rows[i].route->site = &site;
        if (route_may_run(rows[i].route, span_of(rows[i].script)) != rows[i].may)
            fail_msg("%s of %s", rows[i].script, rows[i].route->pattern);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),          cmocka_unit_test(test_looks_at_nothing_in_vain),
        cmocka_unit_test(test_other_gateways), cmocka_unit_test(test_order),
        cmocka_unit_test(test_long_names),     cmocka_unit_test(test_passed),
        cmocka_unit_test(test_may_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
