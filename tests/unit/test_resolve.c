#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config_text.h"
#include "site/resolve.h"

/* ---- a disk ---- */

static const char *const below_root[] = {
    "a.txt",
    "b.html",
    "index.html",
    "docs/",
    "docs/index.html",
    "docs/index.php",
    "docs/deep/",
    "docs/deep/x.txt",
    "app/",
    "app/index.php",
    "app/x.php",
    "bare/",
    "bare/file",
    "front.php",
    "odd/",
    "odd/index.html/",
    "odd/index.php",
    "cgi-bin/",
    "cgi-bin/x",
    "files/",
    "files/index.html",
    "files/secret",
    "run/",
    "run/index.html",
    "pipe|",
    "strange/",
    "strange/index.html|",
};

/* A name in the table ends in "/" if it is a directory's, in "|" if it is neither a directory's nor a file's. */
static enum route_file look(void *arg, const struct config_site *site, const struct config_route *route,
                            const char *name)
{
    size_t len = strlen(name);
    bool is_directory_asked = len > 0 && name[len - 1] == '/';

    (void)site;
    assert_true(len > 0 && name[0] != '/');
    assert_false(route != NULL && is_directory_asked);
    ++*(unsigned *)arg;
    if (route != NULL && route->dir != NULL)
        return strcmp(name, "tool") == 0 ? ROUTE_FILE_REGULAR : ROUTE_FILE_NONE;
    if (strcmp(name, ".") == 0)
        return ROUTE_FILE_DIRECTORY;
    len -= is_directory_asked;
    for (size_t i = 0; i < sizeof below_root / sizeof *below_root; i++) {
        const char *entry = below_root[i];

        if (strncmp(entry, name, len) != 0 || strlen(entry) > len + 1)
            continue;
        if (entry[len] == '/')
            return ROUTE_FILE_DIRECTORY;
        if (entry[len] == '|' && !is_directory_asked)
            return ROUTE_FILE_OTHER;
        if (entry[len] == '\0' && !is_directory_asked)
            return ROUTE_FILE_REGULAR;
    }
    return ROUTE_FILE_NONE;
}

/* ---- routes ---- */

static struct config_pool processes = {.name = (char[]){"php"}, .kind = POOL_MANAGED};

static struct config_route php = {
    .match = ROUTE_SUFFIX, .pattern = (char[]){".php"}, .gateway = GATEWAY_FASTCGI, .pool = &processes};
static struct config_route cgi = {.match = ROUTE_PREFIX, .pattern = (char[]){"/cgi-bin"}, .gateway = GATEWAY_CGI};
static struct config_route tools = {
    .match = ROUTE_PREFIX, .pattern = (char[]){"/tools"}, .gateway = GATEWAY_CGI, .dir = (char[]){"/srv/tools"}};
static struct config_route api = {
    .match = ROUTE_PREFIX, .pattern = (char[]){"/api"}, .gateway = GATEWAY_FASTCGI, .pool = &processes};
static struct config_route denied = {
    .match = ROUTE_EXACT, .pattern = (char[]){"/files/secret"}, .gateway = GATEWAY_DENY};
static struct config_route index_run = {
    .match = ROUTE_EXACT, .pattern = (char[]){"/run/index.html"}, .gateway = GATEWAY_FASTCGI, .pool = &processes};
static struct config_route *routes[] = {&php, &cgi, &tools, &api, &denied, &index_run};

/* ---- questions ---- */

#define BOTH_INDEXES "index.html index.php"
#define FRONT        "$path $path/ /front.php"

static const struct {
    const char *index, *candidates;
    bool has_listings;
    const char *path; /* asked for */
    enum resolved_as as;
    const char *found; /* path; of RESOLVED_STATUS the status */
    const struct config_route *route;
    const char *script, *script_name, *path_info;
} questions[] = {
    /* files, without try */
    {BOTH_INDEXES, "", false, "/a.txt", RESOLVED_FILE, "/a.txt", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/none", RESOLVED_FILE, "/none", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/docs", RESOLVED_FILE, "/docs", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/a.txt/", RESOLVED_FILE, "/a.txt/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/none/", RESOLVED_FILE, "/none/", NULL, NULL, NULL, NULL},
    /* index files: the first that is a file */
    {BOTH_INDEXES, "", false, "/", RESOLVED_FILE, "/index.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", true, "/docs/", RESOLVED_FILE, "/docs/index.html", NULL, NULL, NULL, NULL},
    {"index.php index.html", "", false, "/docs/", RESOLVED_ROUTE, "/docs/index.php", &php, "docs/index.php",
     "/docs/index.php", ""},
    {BOTH_INDEXES, "", false, "/app/", RESOLVED_ROUTE, "/app/index.php", &php, "app/index.php", "/app/index.php", ""},
    {BOTH_INDEXES, "", false, "/odd/", RESOLVED_ROUTE, "/odd/index.php", &php, "odd/index.php", "/odd/index.php", ""},
    {BOTH_INDEXES, "", true, "/strange/", RESOLVED_FILE, "/strange/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/bare/", RESOLVED_FILE, "/bare/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", true, "/bare/", RESOLVED_FILE, "/bare/", NULL, NULL, NULL, NULL},
    {"", "", true, "/docs/", RESOLVED_FILE, "/docs/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/run/", RESOLVED_ROUTE, "/run/index.html", &index_run, "", "/run/index.html", ""},
    {"secret", "", false, "/files/", RESOLVED_ROUTE, "/files/secret", &denied, "", "/files/secret", ""},
    /* routes */
    {BOTH_INDEXES, "", false, "/app/x.php/more", RESOLVED_ROUTE, "/app/x.php/more", &php, "app/x.php", "/app/x.php",
     "/more"},
    {BOTH_INDEXES, "", false, "/cgi-bin/x/y", RESOLVED_ROUTE, "/cgi-bin/x/y", &cgi, "cgi-bin/x", "/cgi-bin/x", "/y"},
    {BOTH_INDEXES, "", false, "/tools/tool", RESOLVED_ROUTE, "/tools/tool", &tools, "tool", "/tools/tool", ""},
    {BOTH_INDEXES, "", false, "/api/a/", RESOLVED_ROUTE, "/api/a/", &api, "", "/api", "/a/"},
    {BOTH_INDEXES, "", false, "/none.php", RESOLVED_MISSING, "/none.php", &php, NULL, NULL, NULL},
    {BOTH_INDEXES, "", false, "/cgi-bin/", RESOLVED_MISSING, "/cgi-bin/", &cgi, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/none.php", RESOLVED_MISSING, "/none.php", &php, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/app/x.php", RESOLVED_ROUTE, "/app/x.php", &php, "app/x.php", "/app/x.php", ""},
    /* a front controller */
    {BOTH_INDEXES, FRONT, false, "/a.txt", RESOLVED_FILE, "/a.txt", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/none", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {BOTH_INDEXES, FRONT, false, "/none/at/all/", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {BOTH_INDEXES, FRONT, false, "/a.txt/", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {BOTH_INDEXES, FRONT, false, "/a.txt/more", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {BOTH_INDEXES, FRONT, false, "/", RESOLVED_FILE, "/index.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/docs/", RESOLVED_FILE, "/docs/index.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/app/", RESOLVED_ROUTE, "/app/index.php", &php, "app/index.php", "/app/index.php",
     ""},
    {BOTH_INDEXES, FRONT, false, "/pipe", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    /* a directory is told by its slash */
    {BOTH_INDEXES, FRONT, false, "/docs", RESOLVED_SLASH, NULL, NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, false, "/app", RESOLVED_SLASH, NULL, NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, true, "/bare", RESOLVED_SLASH, NULL, NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, true, "/bare/", RESOLVED_FILE, "/bare/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, FRONT, true, "/strange/", RESOLVED_FILE, "/strange/", NULL, NULL, NULL, NULL},
    /* one with neither index file nor listing is passed over */
    {BOTH_INDEXES, FRONT, false, "/bare", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {BOTH_INDEXES, FRONT, false, "/bare/", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {"", FRONT, false, "/", RESOLVED_ROUTE, "/front.php", &php, "front.php", "/front.php", ""},
    {"", FRONT, true, "/", RESOLVED_FILE, "/", NULL, NULL, NULL, NULL},
    {"", FRONT, true, "/docs", RESOLVED_SLASH, NULL, NULL, NULL, NULL, NULL},
    /* other words */
    {BOTH_INDEXES, "$path $path.html =404", false, "/b", RESOLVED_FILE, "/b.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path.html =404", false, "/b.html", RESOLVED_FILE, "/b.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path.html =404", false, "/none", RESOLVED_STATUS, "404", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path.html =404", false, "/docs/", RESOLVED_FILE, "/docs/index.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path.html =404", false, "/docs", RESOLVED_STATUS, "404", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path =503", false, "/none", RESOLVED_STATUS, "503", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "=404", false, "/a.txt", RESOLVED_STATUS, "404", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "=404", false, "/app/x.php", RESOLVED_ROUTE, "/app/x.php", &php, "app/x.php", "/app/x.php", ""},
    {BOTH_INDEXES, "$path.php $path", false, "/app/x", RESOLVED_ROUTE, "/app/x.php", &php, "app/x.php", "/app/x.php",
     ""},
    {BOTH_INDEXES, "$path.php $path", false, "/b", RESOLVED_FILE, "/b", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path.php /a.txt", false, "/none", RESOLVED_FILE, "/a.txt", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path/index.html /a.txt", false, "/docs", RESOLVED_FILE, "/docs/index.html", NULL, NULL, NULL,
     NULL},
    {BOTH_INDEXES, "/tools$path /tools/tool", false, "/x", RESOLVED_ROUTE, "/tools/tool", &tools, "tool", "/tools/tool",
     ""},
    {BOTH_INDEXES, "$path /tools/tool/extra", false, "/x", RESOLVED_ROUTE, "/tools/tool/extra", &tools, "tool",
     "/tools/tool", "/extra"},
    {BOTH_INDEXES, "$path /front.php/extra", false, "/x", RESOLVED_ROUTE, "/front.php/extra", &php, "front.php",
     "/front.php", "/extra"},
    {BOTH_INDEXES, "$path /api/fallback", false, "/x", RESOLVED_ROUTE, "/api/fallback", &api, "", "/api", "/fallback"},
    {BOTH_INDEXES, "/files/secret /a.txt", false, "/x", RESOLVED_ROUTE, "/files/secret", &denied, "", "/files/secret",
     ""},
    {BOTH_INDEXES, "$path /docs/", false, "/none", RESOLVED_FILE, "/docs/index.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path /app/", false, "/none", RESOLVED_ROUTE, "/app/index.php", &php, "app/index.php",
     "/app/index.php", ""},
    {BOTH_INDEXES, "$path /run/ /a.txt", false, "/none", RESOLVED_ROUTE, "/run/index.html", &index_run, "",
     "/run/index.html", ""},
    /* the last in any case */
    {BOTH_INDEXES, "$path", false, "/none", RESOLVED_FILE, "/none", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path", false, "/docs", RESOLVED_FILE, "/docs", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path", false, "/bare/", RESOLVED_FILE, "/bare/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path /none.html", false, "/x", RESOLVED_FILE, "/none.html", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path /none.php", false, "/x", RESOLVED_MISSING, "/none.php", &php, NULL, NULL, NULL},
    {BOTH_INDEXES, "/none.php $path", false, "/x", RESOLVED_FILE, "/x", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "/none.php $path", false, "/a.txt", RESOLVED_FILE, "/a.txt", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "/none.php =410", false, "/x", RESOLVED_STATUS, "410", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path/", false, "/none", RESOLVED_FILE, "/none", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path/", false, "/bare", RESOLVED_FILE, "/bare", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path/", false, "/bare/", RESOLVED_FILE, "/bare/", NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path $path/", false, "/docs", RESOLVED_SLASH, NULL, NULL, NULL, NULL, NULL},
    {BOTH_INDEXES, "$path /bare/", false, "/none", RESOLVED_FILE, "/none", NULL, NULL, NULL, NULL},
};

static void free_words(struct config_words *words)
{
    for (size_t i = 0; i < words->n; i++)
        free(words->at[i]);
    free(words->at);
}

static void check_span(size_t i, const char *what, struct span got, const char *expected)
{
    if (!span_is(got, span_of(expected)))
        fail_msg("%s with try = %s: %s is \"%.*s\", not \"%s\"", questions[i].path, questions[i].candidates, what,
                 (int)got.len, got.at, expected);
}

static void check(size_t i, const struct resolved *got)
{
    if (got->as != questions[i].as)
        fail_msg("%s with try = %s: %d, not %d", questions[i].path, questions[i].candidates, (int)got->as,
                 (int)questions[i].as);
    if (got->as == RESOLVED_STATUS) {
        assert_int_equal(got->status, strtoul(questions[i].found, NULL, 10));
        return;
    }
    if (got->as == RESOLVED_SLASH)
        return;
    check_span(i, "path", got->path, questions[i].found);
    assert_int_equal(got->path.at[got->path.len], '\0');
    if (questions[i].route == NULL)
        return;
    assert_ptr_equal(got->target.route, questions[i].route);
    if (got->as == RESOLVED_MISSING)
        return;
    check_span(i, "script", got->target.script, questions[i].script);
    check_span(i, "SCRIPT_NAME", got->target.script_name, questions[i].script_name);
    check_span(i, "PATH_INFO", got->target.path_info, questions[i].path_info);
}

/* The room is used: what it held before is nobody's. */
static void test_questions(void **state)
{
    struct buffer room = {0};

    (void)state;
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        struct config_site site = {
            .routes = routes, .n_routes = sizeof routes / sizeof *routes, .has_listings = questions[i].has_listings};
        char *path = memory_copy(questions[i].path, strlen(questions[i].path));
        struct resolved out;
        unsigned looks = 0;

        assert_true(text_to_words(questions[i].index, &site.index_files));
        assert_true(text_to_words(questions[i].candidates, &site.candidates));
        resolve(&site, span_of(path), NULL, look, &looks, &room, &out);
        check(i, &out);
        free(path);
        free_words(&site.index_files);
        free_words(&site.candidates);
    }
    buffer_free(&room);
}

/* A long path makes the room move under what points into it. */
static void test_long_paths(void **state)
{
    struct config_site site = {.index_files = {.at = (char *[]){(char[]){"index.html"}}, .n = 1},
                               .candidates = {.at = (char *[]){(char[]){"$path"}, (char[]){"$path/"}}, .n = 2}};
    struct buffer room = {0};
    struct resolved out;
    unsigned looks = 0;

    (void)state;
    for (size_t len = 1; len < 70000; len = len * 3 + 1) {
        char *path = memory_resize(NULL, len + 1);

        memset(path, 'x', len);
        path[0] = '/';
        path[len] = '\0';
        resolve(&site, (struct span){path, len}, NULL, look, &looks, &room, &out);
        assert_int_equal(out.as, RESOLVED_FILE);
        if (len > 1) {
            assert_int_equal(out.path.len, len);
            assert_memory_equal(out.path.at, path, len + 1);
        }
        free(path);
    }
    buffer_free(&room);
}

/* What needs no file asks for none, and what is found first ends the search. */
static void test_looks_at_nothing_in_vain(void **state)
{
    static const struct {
        const char *candidates, *path;
        unsigned looks;
    } counts[] = {
        {"", "/a.txt", 0},    {"", "/api/x", 0}, {"", "/", 1},
        {FRONT, "/a.txt", 1}, {"=404", "/x", 0}, {"$path /api/x", "/none", 1},
        {FRONT, "/none", 3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct config_site site = {.routes = routes,
                                   .n_routes = sizeof routes / sizeof *routes,
                                   .index_files = {.at = (char *[]){(char[]){"index.html"}}, .n = 1}};
        struct buffer room = {0};
        struct resolved out;
        unsigned looks = 0;

        assert_true(text_to_words(counts[i].candidates, &site.candidates));
        resolve(&site, span_of(counts[i].path), NULL, look, &looks, &room, &out);
        if (looks != counts[i].looks)
            fail_msg("%s with try = %s: %u looks", counts[i].path, counts[i].candidates, looks);
        free_words(&site.candidates);
        buffer_free(&room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_long_paths),
        cmocka_unit_test(test_looks_at_nothing_in_vain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
