#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config_text.h"
#include "site/rules.h"

/* ---- hidden ---- */

#define DEFAULT_HIDDEN ".* *~ #*# *.bak *.orig *.rej *.save *.swo *.swp"

static const struct {
    const char *hidden, *path;
    bool is_hidden;
} names[] = {
    {DEFAULT_HIDDEN, "a.txt", false},
    {DEFAULT_HIDDEN, "/a.txt", false},
    {DEFAULT_HIDDEN, "", false},
    {DEFAULT_HIDDEN, "/", false},
    {DEFAULT_HIDDEN, ".git", true},
    {DEFAULT_HIDDEN, ".git/config", true},
    {DEFAULT_HIDDEN, "/.git/", true},
    {DEFAULT_HIDDEN, "/a/b/.env", true},
    {DEFAULT_HIDDEN, "a/.svn/b/c", true},
    {DEFAULT_HIDDEN, "a/...", true},
    {DEFAULT_HIDDEN, "a.b/c.d", false},
    {DEFAULT_HIDDEN, "x.php~", true},
    {DEFAULT_HIDDEN, "~x", false},
    {DEFAULT_HIDDEN, "a~b", false},
    {DEFAULT_HIDDEN, "#x#", true},
    {DEFAULT_HIDDEN, "#x", false},
    {DEFAULT_HIDDEN, "##", true},
    {DEFAULT_HIDDEN, "x.php.bak", true},
    {DEFAULT_HIDDEN, "x.bak/y", true},
    {DEFAULT_HIDDEN, "x.bakery", false},
    {DEFAULT_HIDDEN, "x.swp", true},
    {DEFAULT_HIDDEN, "x.SWP", false},
    /* a segment at a time: no * reaches over a slash */
    {DEFAULT_HIDDEN, "#a/b#", false},
    {"a*z", "a/z", false},
    {"a*z", "b/abcz", true},
    /* RFC 8615: at the top, and so called exactly */
    {DEFAULT_HIDDEN, "/.well-known", false},
    {DEFAULT_HIDDEN, ".well-known/acme-challenge/x", false},
    {DEFAULT_HIDDEN, "/.well-known/", false},
    {DEFAULT_HIDDEN, "/.well-known/.git", true},
    {DEFAULT_HIDDEN, "/.well-known/.well-known/x", true},
    {DEFAULT_HIDDEN, "/.well-known/x~", true},
    {DEFAULT_HIDDEN, "/a/.well-known/x", true},
    {DEFAULT_HIDDEN, "/.well-known2/x", true},
    {DEFAULT_HIDDEN, "/.well-know", true},
    {DEFAULT_HIDDEN, "/.Well-Known/x", true},
    {".well-known", "/.well-known/x", false},
    {".well-known", "/a/.well-known", true},
    /* other patterns */
    {"*", "/a", true},
    {"*", "/", false},
    {"?", "/ab/c", true},
    {"?", "/ab/cd", false},
    {"[ab]*.key", "x/b.key", true},
    {"[ab]*.key", "x/c.key", false},
    {"secret", "/secrets/x", false},
    {"secret", "/x/secret", true},
    {"*\xff*", "/a\xff", true},
    {"*~", "/\xff\xfe~", true},
    /* nothing is */
    {"", "/.git", false},
};

static void test_hidden(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct config_site site = {0};
        size_t len = strlen(names[i].path);
        char *path = memory_resize(NULL, len + 1); /* no NUL behind it: reading on is seen */

        assert_true(text_to_words(names[i].hidden, &site.hidden));
        memcpy(path, names[i].path, len);
        path = memory_resize(path, len > 0 ? len : 1);
        if (rules_is_hidden(&site, (struct span){path, len}) != names[i].is_hidden)
            fail_msg("\"%s\" with hidden = %s", names[i].path, names[i].hidden);
        free(path);
        for (size_t word = 0; word < site.hidden.n; word++)
            free(site.hidden.at[word]);
        free(site.hidden.at);
    }
}

/* No file has a longer name than NAME_MAX, so it needs not be found out; a shorter one behind it still counts. */
static void test_long_names(void **state)
{
    struct config_site site = {.hidden = {.at = (char *[]){(char[]){"*~"}}, .n = 1}};
    char path[NAME_MAX + 8];

    (void)state;
    memset(path, 'x', sizeof path);
    path[NAME_MAX - 1] = '~';
    assert_true(rules_is_hidden(&site, (struct span){path, NAME_MAX}));
    path[NAME_MAX - 1] = 'x';
    path[NAME_MAX] = '~';
    assert_false(rules_is_hidden(&site, (struct span){path, NAME_MAX + 1}));
    memcpy(path + NAME_MAX + 1, "/a~", 3);
    assert_true(rules_is_hidden(&site, (struct span){path, NAME_MAX + 4}));
}

/* ---- try ---- */

static const struct {
    const char *word, *path, *candidate;
} candidates[] = {
    {"$path", "/a", "/a"},
    {"$path", "/a/", "/a/"},
    {"$path", "/", "/"},
    {"$path/", "/a", "/a/"},
    {"$path/", "/a/", "/a/"},
    {"$path/", "/", "/"},
    {"$path/index.php", "/a", "/a/index.php"},
    {"$path/index.php", "/a/", "/a/index.php"},
    {"$path/index.php", "/", "/index.php"},
    {"$path.html", "/a", "/a.html"},
    {"$path.html", "/a/", "/a/.html"},
    {"/index.php", "/a/b", "/index.php"},
    {"/app/", "/a/b", "/app/"},
    {"/a$path", "/b", "/a$path"}, /* only at its beginning */
    {"$path$path", "/b", "/b$path"},
    {"$path", "/$path", "/$path"},
};

static void test_candidate(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        struct buffer to = {0};

        rules_candidate(&to, candidates[i].word, span_of(candidates[i].path));
        if (!span_is(buffer_span(&to), span_of(candidates[i].candidate)))
            fail_msg("%s of %s is %.*s", candidates[i].word, candidates[i].path, (int)buffer_len(&to), buffer_at(&to));
        buffer_free(&to);
    }
}

/* ---- redirects ---- */

#define PREFIX(text)                                                                                                   \
    ROUTE_PREFIX, (char[])                                                                                             \
    {                                                                                                                  \
        text                                                                                                           \
    }
#define SUFFIX(text)                                                                                                   \
    ROUTE_SUFFIX, (char[])                                                                                             \
    {                                                                                                                  \
        text                                                                                                           \
    }
#define EXACT(text)                                                                                                    \
    ROUTE_EXACT, (char[])                                                                                              \
    {                                                                                                                  \
        text                                                                                                           \
    }

static const struct {
    enum route_match match;
    char *pattern;
    const char *to;
    const char *target; /* as asked for */
    const char *location;
} locations[] = {
    {PREFIX("/old"), "/new", "/old/a", "/new"},
    {PREFIX("/old"), "/new/$rest", "/old/a/b", "/new/a/b"},
    {PREFIX("/old"), "/new/$rest", "/old/a/", "/new/a/"},
    {PREFIX("/old"), "/new/$rest", "/old/", "/new/"},
    {PREFIX("/old"), "/new/$rest", "/old", "/new/"},
    {PREFIX("/old"), "/new$path", "/old/a", "/new/old/a"},
    {PREFIX(""), "https://$host$path", "/", "https://example.org/"},
    {PREFIX(""), "https://$host$path", "/a/b", "https://example.org/a/b"},
    {PREFIX(""), "https://$host/$rest", "/a/b", "https://example.org/a/b"},
    {PREFIX(""), "http://other.test:8080/x/$rest/y/$rest", "/a", "http://other.test:8080/x/a/y/a"},
    {EXACT("/old"), "/new/$rest", "/old", "/new/"},
    {EXACT("/old"), "/new$path", "/old", "/new/old"},
    {SUFFIX(".old"), "/new/$rest", "/a.old", "/new/"},
    {SUFFIX(".old"), "/new$path", "/a.old", "/new/a.old"},
    /* what is no word of ours stays */
    {EXACT("/old"), "/$", "/old", "/$"},
    {EXACT("/old"), "/$$path", "/old", "/$/old"},
    {EXACT("/old"), "/$user/$pat/$Path", "/old", "/$user/$pat/$Path"},
    {EXACT("/old"), "/x$paths", "/old", "/x/olds"},
    {PREFIX("/old"), "/new/$rest", "/old/$path", "/new/$path"}, /* nor is it looked for in what was put in */
    /* the query goes along, unless there is one */
    {PREFIX("/old"), "/new/$rest", "/old/a?b=c", "/new/a?b=c"},
    {PREFIX("/old"), "/new/$rest", "/old/a?b=c?d", "/new/a?b=c?d"},
    {PREFIX("/old"), "/new/$rest", "/old/a?", "/new/a?"},
    {PREFIX("/old"), "/new?from=$path", "/old/a?b=c", "/new?from=/old/a"},
    {PREFIX("/old"), "/new?", "/old/a?b=c", "/new?"},
    {PREFIX("/old"), "/new/$rest", "/old/a?$path=$host", "/new/a?$path=$host"},
    {PREFIX("/old"), "/new/$rest", "/old/%3Fx?b=c", "/new/%3Fx?b=c"},
    /* ... in its own place: a fragment is behind it (RFC 3986 section 3) */
    {PREFIX("/old"), "/new#part", "/old/a", "/new#part"},
    {PREFIX("/old"), "/new#part", "/old/a?b=c", "/new?b=c#part"},
    {PREFIX("/old"), "/new#part?", "/old/a?b=c", "/new?b=c#part?"},
    /* the request's part is escaped */
    {PREFIX("/old"), "/new/$rest", "/old/%0d%0aX:%201", "/new/%0D%0AX:%201"},
    {PREFIX("/old"), "/new$path", "/old/%0aX", "/new/old/%0AX"},
    {PREFIX("/old"), "/new/$rest", "/old/%25%32%35", "/new/%2525"},
    {PREFIX("/old"), "/new/$rest", "/old/a%20b%22%3c%3e%5c%5e%60%7b%7c%7d", "/new/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D"},
    {PREFIX("/old"), "/new/$rest", "/old/%23%3f", "/new/%23%3F"},
    {PREFIX("/old"), "/new/$rest", "/old/\xc3\xa9%c3%a9%ff%7f", "/new/%C3%A9%C3%A9%FF%7F"},
    {PREFIX("/old"), "/new/$rest", "/old/a:b@c!d$e&f'(g)*+,;=~-._", "/new/a:b@c!d$e&f'(g)*+,;=~-._"},
    /* the query, too, where the client has sent what RFC 3986 does not allow in one; what is escaped stays so */
    {PREFIX("/old"), "/new", "/old/?a=%0d%0A%25", "/new?a=%0d%0A%25"},
    {PREFIX("/old"), "/new", "/old/?a={b|c}^`", "/new?a=%7Bb%7Cc%7D%5E%60"},
    {PREFIX("/old"), "/new", "/old/?a=\xc3\xa9", "/new?a=%C3%A9"},
};

static void test_location(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof locations / sizeof *locations; i++) {
        struct config_route route = {.match = locations[i].match, .pattern = locations[i].pattern};
        char room[100];
        const char *why;
        struct uri uri;
        struct buffer to = {0};

        route.to = memory_copy(locations[i].to, strlen(locations[i].to));
        assert_int_equal(uri_read(&uri, span_of(locations[i].target), room, &why), 0);
        rules_location(&to, &route, &uri, SPAN("example.org"));
        if (!span_is(buffer_span(&to), span_of(locations[i].location)))
            fail_msg("%s with to = %s: %.*s, not %s", locations[i].target, locations[i].to, (int)buffer_len(&to),
                     buffer_at(&to), locations[i].location);
        buffer_free(&to);
        free(route.to);
    }
}

static void test_location_keeps_what_was_there(void **state)
{
    struct config_route route = {.match = ROUTE_PREFIX, .pattern = (char[]){""}, .to = (char[]){"https://$host/"}};
    struct uri uri = {.path = SPAN("/"), .query = SPAN("")};
    struct buffer to = {0};

    (void)state;
    buffer_append_span(&to, SPAN("Location: "));
    rules_location(&to, &route, &uri, SPAN("[::1]"));
    assert_true(span_is(buffer_span(&to), SPAN("Location: https://[::1]/")));
    buffer_free(&to);
}

/* ---- error pages ---- */

static void test_error_page(void **state)
{
    struct config_pair pages[] = {
        {
            (char[]){"5xx"},
            (char[]){"/5.html"},
        },
        {
            (char[]){"4xx"},
            (char[]){"/4.html"},
        },
        {
            (char[]){"404"},
            (char[]){"/404.html"},
        },
        {
            (char[]){"503"},
            (char[]){"/503.html"},
        },
    };
    struct config_site site = {.error_pages = {.at = pages, .n = 4}}, bare = {.error_pages = {.at = pages + 2, .n = 1}};
    static const struct {
        unsigned status;
        const char *page, *page_of_bare;
    } cases[] = {
        {400, "/4.html", NULL},   {404, "/404.html", "/404.html"}, {405, "/4.html", NULL},
        {499, "/4.html", NULL},   {500, "/5.html", NULL},          {502, "/5.html", NULL},
        {503, "/503.html", NULL}, {599, "/5.html", NULL},          {200, NULL, NULL},
        {301, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *page = rules_error_page(&site, cases[i].status), *other = rules_error_page(&bare, cases[i].status);

        assert_true((page == NULL) == (cases[i].page == NULL) && (other == NULL) == (cases[i].page_of_bare == NULL));
        if (page != NULL)
            assert_string_equal(page, cases[i].page);
        if (other != NULL)
            assert_string_equal(other, cases[i].page_of_bare);
    }
    site.error_pages.n = 0;
    assert_null(rules_error_page(&site, 404));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_candidate),
        cmocka_unit_test(test_location),
        cmocka_unit_test(test_location_keeps_what_was_there),
        cmocka_unit_test(test_error_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
