/* Directory listings: of made-up entries, and of a real directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "http/uri.h"
#include "site/listing.h"

#define BAD        "\xef\xbf\xbd" /* U+FFFD */
#define NAME(text) ((char[]){text})

/* ---- the view ---- */

static const struct {
    const char *query;
    struct listing_view view;
} views[] = {
    {"", {false, LISTING_NAME, false}},
    {"sort=name", {false, LISTING_NAME, false}},
    {"sort=size", {false, LISTING_SIZE, false}},
    {"sort=time", {false, LISTING_TIME, false}},
    {"sort=time&order=asc", {false, LISTING_TIME, false}},
    {"sort=time&order=desc", {false, LISTING_TIME, true}},
    {"order=desc&sort=time", {false, LISTING_TIME, true}},
    {"order=desc", {false, LISTING_NAME, true}},
    {"json", {true, LISTING_NAME, false}},
    {"json=", {true, LISTING_NAME, false}},
    {"json=1", {true, LISTING_NAME, false}},
    {"sort=size&json&order=desc", {true, LISTING_SIZE, true}},
    /* repeated: the last that is understood */
    {"sort=size&sort=time", {false, LISTING_TIME, false}},
    {"sort=size&sort=name", {false, LISTING_NAME, false}},
    {"sort=size&sort=no", {false, LISTING_SIZE, false}},
    {"order=desc&order=asc", {false, LISTING_NAME, false}},
    {"order=desc&order=up", {false, LISTING_NAME, true}},
    {"json&json=0", {true, LISTING_NAME, false}},
    /* not understood */
    {"json=0", {false, LISTING_NAME, false}},
    {"json=false", {false, LISTING_NAME, false}},
    {"JSON", {false, LISTING_NAME, false}},
    {"xjson", {false, LISTING_NAME, false}},
    {"jsonx", {false, LISTING_NAME, false}},
    {"=json", {false, LISTING_NAME, false}},
    {"sort", {false, LISTING_NAME, false}},
    {"sort=", {false, LISTING_NAME, false}},
    {"sort=Size", {false, LISTING_NAME, false}},
    {"sort=sizes", {false, LISTING_NAME, false}},
    {"sort=siz", {false, LISTING_NAME, false}},
    {"sort==size", {false, LISTING_NAME, false}},
    {"sort=size=time", {false, LISTING_NAME, false}},
    {"sort=s%69ze", {false, LISTING_NAME, false}},
    {"sort=size;order=desc", {false, LISTING_NAME, false}},
    {"order=descending", {false, LISTING_NAME, false}},
    {"C=S;O=D", {false, LISTING_NAME, false}},
    {"a=b&sort=size&c", {false, LISTING_SIZE, false}},
    {"&&sort=size&&&order=desc&", {false, LISTING_SIZE, true}},
    {"=", {false, LISTING_NAME, false}},
    {"&", {false, LISTING_NAME, false}},
    {"&=&=&", {false, LISTING_NAME, false}},
    {"\xff\x01&json", {true, LISTING_NAME, false}},
};

static void test_view(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        size_t len = strlen(views[i].query);
        char *copy = memory_resize(NULL, len + 1);
        struct listing_view view;

        memcpy(copy + 1, views[i].query, len);
        view = listing_view((struct span){copy + 1, len});
        if (view.is_json != views[i].view.is_json || view.sort != views[i].view.sort ||
            view.is_descending != views[i].view.is_descending)
            fail_msg("%s", views[i].query);
        free(copy);
    }
    assert_false(listing_view((struct span){NULL, 0}).is_json);
}

static void test_type(void **state)
{
    (void)state;
    assert_true(span_is(listing_type(&(struct listing_view){.is_json = true}), SPAN("application/json")));
    assert_true(span_is(listing_type(&(struct listing_view){0}), SPAN("text/html; charset=utf-8")));
}

/* ---- writing ---- */

/* What is written of the entries, which stay as they are. Owned by the caller. */
static char *written(const struct listing_entry *entries, size_t n, const char *query, const char *path)
{
    struct listing listing = {.at = memory_zeroed(n + 1, sizeof *listing.at), .n = n};
    struct listing_view view = listing_view(span_of(query));
    struct buffer to = {0};

    if (n > 0)
        memcpy(listing.at, entries, n * sizeof *entries);
    buffer_append(&to, "xy", 2);
    buffer_consume(&to, 1);
    listing_write(&to, &listing, &view, span_of(path));
    buffer_append(&to, "", 1);
    assert_int_equal(buffer_at(&to)[0], 'y');
    free(listing.at);
    memmove(to.memory, buffer_at(&to) + 1, buffer_len(&to) - 1);
    return to.memory;
}

static void expect_within(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("no %s in %s", part, text);
}

static void test_sorting(void **state)
{
    const struct listing_entry entries[] = {
        {NAME("b"), false, 10, 300}, {NAME("\xff"), false, 5, 100},      {NAME("B"), false, 10, 200},
        {NAME("z"), true, 0, 50},    {NAME("b.c"), false, 7, 300},       {NAME("C"), true, 0, 70},
        {NAME("10"), false, 0, 400}, {NAME("9"), false, UINT64_MAX, -9},
    };
    static const struct {
        const char *query, *order;
    } cases[] = {
        {"json", "C z 10 9 B b b.c \xef\xbf\xbd "},
        {"json&order=desc", "z C \xef\xbf\xbd b.c b B 9 10 "},
        {"json&sort=size", "C z 10 \xef\xbf\xbd b.c B b 9 "},
        {"json&sort=size&order=desc", "C z 9 B b b.c \xef\xbf\xbd 10 "},
        {"json&sort=time", "z C 9 \xef\xbf\xbd B b b.c 10 "},
        {"json&sort=time&order=desc", "C z 10 b b.c B \xef\xbf\xbd 9 "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = written(entries, sizeof entries / sizeof entries[0], cases[i].query, "/"), order[64] = "";
        const char *at = text;

        while ((at = strstr(at, "\"name\":\"")) != NULL) {
            at += strlen("\"name\":\"");
            strncat(order, at, strcspn(at, "\""));
            strcat(order, " ");
        }
        assert_string_equal(order, cases[i].order);
        free(text);
    }
}

static void test_json(void **state)
{
    const struct listing_entry entries[] = {
        {NAME("a.txt"), false, 5, 1767323045},
        {NAME("dir"), true, 0, 0},
        {NAME("\"\\\n\xff\xc3\xa9"), false, UINT64_MAX, -1},
    };
    char *text = written(NULL, 0, "json", "/a/");

    (void)state;
    assert_string_equal(text, "[]\n");
    free(text);
    text = written(entries, 3, "json", "/\"/");
    assert_string_equal(text, "[{\"name\":\"dir\",\"type\":\"directory\",\"modified\":\"1970-01-01T00:00:00Z\"},\n"
                              "{\"name\":\"\\\"\\\\\\u000a" BAD "\xc3\xa9\",\"type\":\"file\","
                              "\"size\":18446744073709551615,\"modified\":\"1969-12-31T23:59:59Z\"},\n"
                              "{\"name\":\"a.txt\",\"type\":\"file\",\"size\":5,"
                              "\"modified\":\"2026-01-02T03:04:05Z\"}]\n");
    free(text);
}

static void test_times(void **state)
{
    static const struct {
        time_t time;
        const char *text;
    } cases[] = {
        {951868799, "<time datetime=\"2000-02-29T23:59:59Z\">2000-02-29 23:59</time>"},
        {-62135596800, "<time datetime=\"0001-01-01T00:00:00Z\">0001-01-01 00:00</time>"},
        {INT64_MIN, "<time datetime=\"0001-01-01T00:00:00Z\">"},
        {253402300799, "<time datetime=\"9999-12-31T23:59:59Z\">"},
        {INT64_MAX, "<time datetime=\"9999-12-31T23:59:59Z\">"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = written(&(struct listing_entry){NAME("a"), false, 0, cases[i].time}, 1, "", "/");

        expect_within(text, cases[i].text);
        free(text);
    }
}

static void test_sizes(void **state)
{
    static const struct {
        uint64_t size;
        const char *text;
    } cases[] = {
        {0, "<td title=\"0 bytes\">0 B</td>"},
        {1, "<td title=\"1 byte\">1 B</td>"},
        {1023, "<td title=\"1023 bytes\">1023 B</td>"},
        {1024, ">1.0 KiB<"},
        {1075, ">1.0 KiB<"},
        {1076, ">1.1 KiB<"},
        {10188, ">9.9 KiB<"},
        {10189, ">10 KiB<"},
        {10240, ">10 KiB<"},
        {10751, ">10 KiB<"},
        {10752, ">11 KiB<"},
        {1048063, ">1023 KiB<"},
        {1048064, ">1.0 MiB<"},
        {1048576, "<td title=\"1048576 bytes\">1.0 MiB</td>"},
        {1610612736, ">1.5 GiB<"},
        {1099511627775, ">1.0 TiB<"},
        {1125899906842624, ">1.0 PiB<"},
        {(uint64_t)1 << 60, ">1.0 EiB<"},
        {UINT64_MAX, "<td title=\"18446744073709551615 bytes\">16 EiB</td>"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = written(&(struct listing_entry){NAME("a"), false, cases[i].size, 0}, 1, "", "/");

        expect_within(text, cases[i].text);
        free(text);
    }
}

static void test_headings(void **state)
{
    static const struct {
        const char *query, *headings;
    } cases[] = {
        {"", "<tr><th scope=\"col\" aria-sort=\"ascending\"><a href=\"?sort=name&amp;order=desc\">Name</a></th>"
             "<th scope=\"col\"><a href=\"?sort=size&amp;order=asc\">Size</a></th>"
             "<th scope=\"col\"><a href=\"?sort=time&amp;order=asc\">Modified</a></th></tr>"},
        {"sort=size&order=desc",
         "<tr><th scope=\"col\"><a href=\"?sort=name&amp;order=asc\">Name</a></th>"
         "<th scope=\"col\" aria-sort=\"descending\"><a href=\"?sort=size&amp;order=asc\">Size</a></th>"
         "<th scope=\"col\"><a href=\"?sort=time&amp;order=asc\">Modified</a></th></tr>"},
        {"sort=time", "<th scope=\"col\" aria-sort=\"ascending\"><a href=\"?sort=time&amp;order=desc\">Modified</a>"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = written(NULL, 0, cases[i].query, "/");

        expect_within(text, cases[i].headings);
        free(text);
    }
}

static void test_paths(void **state)
{
    static const struct {
        const char *path, *title, *crumbs, *parent;
    } cases[] = {
        {"/", "<title>Index of /</title>", "<a href=\"/\">/</a></h1>", NULL},
        {"/a/", "<title>Index of /a/</title>", "<a href=\"/\">/</a><a href=\"/a/\"><bdi>a</bdi>/</a></h1>",
         "<a href=\"/\">../</a>"},
        {"/a/b c/", "<title>Index of /a/b c/</title>",
         "<a href=\"/\">/</a><a href=\"/a/\"><bdi>a</bdi>/</a><a href=\"/a/b%20c/\"><bdi>b c</bdi>/</a></h1>",
         "<a href=\"/a/\">../</a>"},
        {"/</title><script>/", "<title>Index of /&lt;/title&gt;&lt;script&gt;/</title>",
         "<a href=\"/%3C/title%3E%3Cscript%3E/\"><bdi>title&gt;&lt;script&gt;</bdi>/</a></h1>",
         "<a href=\"/%3C/\">../</a>"},
        {"/<&amp;'>/\xff/\n/", "<title>Index of /&lt;&amp;amp;&#39;&gt;/" BAD "/" BAD "/</title>",
         "<a href=\"/%3C&amp;amp;&#39;%3E/%FF/%0A/\"><bdi>" BAD "</bdi>/</a></h1>",
         "<a href=\"/%3C&amp;amp;&#39;%3E/%FF/\">../</a>"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = written(NULL, 0, "", cases[i].path);

        expect_within(text, cases[i].title);
        expect_within(text, cases[i].crumbs);
        expect_within(text, "There is nothing here.");
        if (cases[i].parent != NULL)
            expect_within(text, cases[i].parent);
        else
            assert_null(strstr(text, "../"));
        free(text);
    }
}

/* ---- hostile names ---- */

static const char *const hostile[] = {
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "' onmouseover='alert(1)",
    "\"><svg onload=alert(1)>",
    "<!--",
    "-->",
    "<![CDATA[",
    "<?php",
    "]]>",
    "javascript:alert(1)",
    "data:text\\html,<b>",
    "http:",
    "\\\\evil.example\\x",
    "&lt;script&gt;",
    "&#60;b&#62;",
    "&quot;",
    "&copy",
    "&",
    "a&lt;b",
    "?sort=size",
    "#top",
    "a?b#c",
    "%2e%2e",
    "%3Cscript%3E",
    "%",
    "%00",
    "...",
    "..;",
    "~",
    " ",
    "  two  ",
    "a\nb",
    "\r\nX-Injected: 1",
    "\t",
    "\x01\x1b[2J\x7f",
    "\xff\xfe<",
    "\xc0\xbcscript\xc0\xbe",
    "\xc3<b>",
    "\xf0\x9f\x98\"x",
    "\xed\xa0\x80",
    "\xc2\x9b",
    "\xe2\x80\xae.txt",
    "\xe2\x80\xa8",
    "\xef\xbf\xbe",
    "\xef\xbb\xbf",
    "+ADw-script+AD4-",
    "\x1b$B<",
    "`${alert(1)}`",
    "{{7*7}}",
};

/* The tags of a page with the values of their attributes taken out, and no text. Owned by the caller. */
static char *skeleton(const char *page)
{
    char *bones = memory_resize(NULL, strlen(page) + 1), *to = bones;
    bool is_tag = false, is_value = false;

    for (; *page != '\0'; page++) {
        if (!is_tag && *page == '<')
            is_tag = true;
        if (is_tag && !is_value)
            *to++ = *page;
        if (is_tag && *page == '"')
            is_value = !is_value;
        if (is_tag && !is_value && *page == '>')
            is_tag = false;
    }
    *to = '\0';
    return bones;
}

/* Does the last link of the page lead to what it was made of? */
static void check_link(const char *page, const char *name)
{
    struct buffer target = {0};
    const char *at = page, *why, *next;
    char *room;
    struct uri uri;

    while ((next = strstr(at, "href=\"")) != NULL)
        at = next + strlen("href=\"");
    assert_true(span_starts(span_of(at), SPAN("./")));
    for (at++; *at != '"'; at++) {
        struct span rest = span_of(at), reference = SPAN("&amp;"), apostrophe = SPAN("&#39;");

        assert_in_range(*at, 0x21, 0x7e);
        assert_null(strchr("<>?#\\\t", *at));
        if (*at != '&') {
            buffer_append(&target, at, 1);
            continue;
        }
        assert_true(span_starts(rest, reference) || span_starts(rest, apostrophe));
        buffer_append(&target, at[1] == 'a' ? "&" : "'", 1);
        at += reference.len - 1;
    }
    room = memory_resize(NULL, buffer_len(&target) + 2);
    assert_int_equal(uri_read(&uri, buffer_span(&target), room, &why), 0);
    assert_false(uri.has_query);
    assert_string_equal(uri.path.at + 1, name);
    free(room);
    buffer_free(&target);
}

static void check_bytes(const char *text)
{
    struct span rest = span_of(text);

    while (rest.len > 0) {
        size_t len = rest.at[0] == '\n' ? 1 : utf8_printable_len(rest);

        assert_int_not_equal(len, 0);
        rest = span_from(rest, len);
    }
}

static void test_hostile_names(void **state)
{
    char *plain = written(&(struct listing_entry){NAME("a"), false, 1, 0}, 1, "", "/a/"), *bones = skeleton(plain);

    (void)state;
    free(plain);
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        char *name = memory_copy(hostile[i], strlen(hostile[i])), path[64], *page, *its_bones, *json;
        struct listing_entry entry = {name, false, 1, 0};

        for (char *at = name; (at = strchr(at, '/')) != NULL;)
            *at = '|'; /* which no name has */
        snprintf(path, sizeof path, "/%s/", name);
        page = written(&entry, 1, "", path);
        its_bones = skeleton(page);
        assert_string_equal(its_bones, bones);
        check_bytes(page);
        check_link(page, name);
        json = written(&entry, 1, "json", path);
        check_bytes(json);
        free(name);
        free(page);
        free(its_bones);
        free(json);
    }
    free(bones);
}

static void test_escaped_names(void **state)
{
    static const struct {
        const char *name;
        bool is_directory;
        const char *cell;
    } cases[] = {
        {"a.txt", false, "<td><a href=\"./a.txt\"><bdi>a.txt</bdi></a></td><td title="},
        {"d", true, "<td><a href=\"./d/\"><bdi>d</bdi>/</a></td><td></td>"},
        {"a&lt;b", false, "<a href=\"./a&amp;lt;b\"><bdi>a&amp;lt;b</bdi></a>"},
        {"javascript:x", false, "<a href=\"./javascript:x\">"},
        {"javascript:x", true, "<a href=\"./javascript:x/\">"},
        {"a?b#c%41\\", false, "<a href=\"./a%3Fb%23c%2541%5C\"><bdi>a?b#c%41\\</bdi></a>"},
        {"\"'<>", false, "<a href=\"./%22&#39;%3C%3E\"><bdi>&quot;&#39;&lt;&gt;</bdi></a>"},
        {"\n\xff\xc3\xa9", true, "<a href=\"./%0A%FF%C3%A9/\"><bdi>" BAD BAD "\xc3\xa9</bdi>/</a>"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *name = memory_copy(cases[i].name, strlen(cases[i].name));
        char *page = written(&(struct listing_entry){name, cases[i].is_directory, 1, 0}, 1, "", "/");

        expect_within(page, cases[i].cell);
        free(page);
        free(name);
    }
}

/* No way out of the page: nothing is loaded, nothing runs. */
static void test_needs_nothing(void **state)
{
    char *page = written(&(struct listing_entry){NAME("a"), false, 1, 0}, 1, "", "/a/");

    (void)state;
    assert_true(span_starts(span_of(page), SPAN("<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n")));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "@import"));
    assert_null(strstr(page, "<link"));
    assert_null(strstr(page, "style="));
    expect_within(page, "prefers-color-scheme:dark");
    expect_within(page, "name=\"viewport\"");
    free(page);
}

/* ---- a real directory ---- */

static int directory_fd;

static int make_directory(void **state)
{
    static char path[32];

    strcpy(path, "/tmp/test_listing.XXXXXX");
    if (mkdtemp(path) == NULL)
        return -1;
    directory_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    *state = path;
    return directory_fd < 0 ? -1 : 0;
}

static int remove_directory(void **state)
{
    close(directory_fd);
    return rmdir(*state);
}

static void touch(const char *name, size_t size, time_t modified)
{
    const struct timespec times[] = {{modified, 0}, {modified, 999999999}};
    int fd = openat(directory_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

/* Counts what it is asked for, and hides names that begin with a dot. */
static bool shows(void *arg, const char *name)
{
    unsigned *n_asked = arg;

    (*n_asked)++;
    assert_string_not_equal(name, ".");
    assert_string_not_equal(name, "..");
    return name[0] != '.';
}

static int next_fd(void)
{
    int fd = open("/", O_PATH | O_CLOEXEC);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void make_entries(void)
{
    const struct timespec times[] = {{86400, 0}, {86400, 0}};

    touch("plain.txt", 5, 1767323045);
    touch(".hidden", 1, 0);
    touch("<b>&\"'", 1536, 0);
    touch("javascript:alert(1)?#%41", 1, 1);
    touch("\xff\n\xc3\xa9", 0, 2);
    assert_int_equal(mkfifoat(directory_fd, "pipe", 0600), 0);
    assert_int_equal(symlinkat("nowhere", directory_fd, "dangling"), 0);
    assert_int_equal(symlinkat("loop", directory_fd, "loop"), 0);
    assert_int_equal(symlinkat("/dev/zero", directory_fd, "device"), 0);
    assert_int_equal(symlinkat("plain.txt", directory_fd, "link"), 0);
    assert_int_equal(symlinkat("folder", directory_fd, "way"), 0);
    assert_int_equal(mkdirat(directory_fd, "folder", 0700), 0);
    assert_int_equal(utimensat(directory_fd, "folder", times, 0), 0);
}

static void remove_entries(void)
{
    static const char *const names[] = {"plain.txt",      ".hidden", "<b>&\"'",  "javascript:alert(1)?#%41",
                                        "\xff\n\xc3\xa9", "pipe",    "dangling", "loop",
                                        "device",         "link",    "way"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(unlinkat(directory_fd, names[i], 0), 0);
    assert_int_equal(unlinkat(directory_fd, "folder", AT_REMOVEDIR), 0);
}

#define ROW(href, text, bytes, size, datetime, time)                                                                   \
    "<tr><td><a href=\"./" href "\"><bdi>" text "</bdi></a></td><td title=\"" bytes "\">" size                         \
    "</td><td><time datetime=\"" datetime "\">" time "</time></td></tr>\n"
#define FOLDER_ROW(name)                                                                                               \
    "<tr><td><a href=\"./" name "/\"><bdi>" name "</bdi>/</a></td><td></td>"                                           \
    "<td><time datetime=\"1970-01-02T00:00:00Z\">1970-01-02 00:00</time></td></tr>\n"

static void test_directory(void **state)
{
    static const char rows[] =
        "<tbody>\n<tr><td><a href=\"/\">../</a></td><td></td><td></td></tr>\n" FOLDER_ROW("folder") FOLDER_ROW("way")
            ROW("%3Cb%3E&amp;%22&#39;", "&lt;b&gt;&amp;&quot;&#39;", "1536 bytes", "1.5 KiB", "1970-01-01T00:00:00Z",
                "1970-01-01 00:00") ROW("javascript:alert(1)%3F%23%2541", "javascript:alert(1)?#%41", "1 byte", "1 B",
                                        "1970-01-01T00:00:01Z", "1970-01-01 00:00")
                ROW("link", "link", "5 bytes", "5 B", "2026-01-02T03:04:05Z", "2026-01-02 03:04")
                    ROW("plain.txt", "plain.txt", "5 bytes", "5 B", "2026-01-02T03:04:05Z", "2026-01-02 03:04")
                        ROW("%FF%0A%C3%A9", BAD BAD "\xc3\xa9", "0 bytes", "0 B", "1970-01-01T00:00:02Z",
                            "1970-01-01 00:00") "</tbody>";
    static const char json[] =
        "[{\"name\":\"folder\",\"type\":\"directory\",\"modified\":\"1970-01-02T00:00:00Z\"},\n"
        "{\"name\":\"way\",\"type\":\"directory\",\"modified\":\"1970-01-02T00:00:00Z\"},\n"
        "{\"name\":\"<b>&\\\"'\",\"type\":\"file\",\"size\":1536,\"modified\":\"1970-01-01T00:00:00Z\"},\n"
        "{\"name\":\"link\",\"type\":\"file\",\"size\":5,\"modified\":\"2026-01-02T03:04:05Z\"},\n"
        "{\"name\":\"plain.txt\",\"type\":\"file\",\"size\":5,\"modified\":\"2026-01-02T03:04:05Z\"},\n"
        "{\"name\":\"javascript:alert(1)?#%41\",\"type\":\"file\",\"size\":1,\"modified\":\"1970-01-01T00:00:01Z\"},\n"
        "{\"name\":\"" BAD "\\u000a\xc3\xa9\",\"type\":\"file\",\"size\":0,\"modified\":\"1970-01-01T00:00:02Z\"}]\n";
    struct listing listing;
    unsigned n_asked = 0;
    char *text;
    int fd;

    (void)state;
    make_entries();
    fd = next_fd();
    for (unsigned twice = 0; twice < 2; twice++) { /* a descriptor's place in the directory is nothing to it */
        n_asked = 0;
        assert_int_equal(listing_read(&listing, directory_fd, shows, &n_asked), 0);
        assert_int_equal(n_asked, 12);
        assert_int_equal(listing.n, 7);
        assert_false(listing.is_cut);
        text = written(listing.at, listing.n, "", "/a/");
        expect_within(text, rows);
        free(text);
        text = written(listing.at, listing.n, "json&sort=size&order=desc", "/a/");
        assert_string_equal(text, json);
        free(text);
        listing_free(&listing);
        assert_null(listing.at);
        assert_int_equal(listing.n, 0);
    }
    assert_int_equal(next_fd(), fd);
    remove_entries();
}

static void test_empty_directory(void **state)
{
    struct listing listing = {.n = 42};
    unsigned n_asked = 0;

    (void)state;
    assert_int_equal(listing_read(&listing, directory_fd, shows, &n_asked), 0);
    assert_int_equal(listing.n, 0);
    assert_int_equal(n_asked, 0);
    listing_free(&listing);
}

static void test_errors(void **state)
{
    struct listing listing = {.n = 42};
    unsigned n_asked = 0;
    int fd;

    (void)state;
    assert_int_equal(listing_read(&listing, -1, shows, &n_asked), -EBADF);
    assert_int_equal(listing.n, 0);
    touch("file", 0, 0);
    fd = openat(directory_fd, "file", O_RDONLY | O_CLOEXEC);
    listing.n = 42;
    assert_int_equal(listing_read(&listing, fd, shows, &n_asked), -ENOTDIR);
    assert_int_equal(listing.n, 0);
    close(fd);
    assert_int_equal(unlinkat(directory_fd, "file", 0), 0);
    /* a directory that is gone */
    assert_int_equal(mkdirat(directory_fd, "gone", 0700), 0);
    fd = openat(directory_fd, "gone", O_PATH | O_CLOEXEC);
    assert_int_equal(unlinkat(directory_fd, "gone", AT_REMOVEDIR), 0);
    assert_int_equal(listing_read(&listing, fd, shows, &n_asked), 0);
    assert_int_equal(listing.n, 0);
    listing_free(&listing);
    close(fd);
    assert_int_equal(n_asked, 0);
}

static void test_cut(void **state)
{
    struct listing listing;
    unsigned n_asked = 0;
    struct listing_view view = {0};
    struct buffer to = {0};
    char name[16];

    (void)state;
    for (unsigned i = 0; i < LISTING_MOST; i++) {
        snprintf(name, sizeof name, "%05u", i);
        touch(name, 0, 0);
    }
    assert_int_equal(listing_read(&listing, directory_fd, shows, &n_asked), 0);
    assert_int_equal(listing.n, LISTING_MOST);
    assert_false(listing.is_cut);
    listing_free(&listing);

    touch(".one more", 0, 0);
    touch("and another", 0, 0);
    n_asked = 0;
    assert_int_equal(listing_read(&listing, directory_fd, shows, &n_asked), 0);
    assert_in_range(listing.n, LISTING_MOST - 1, LISTING_MOST);
    assert_int_equal(n_asked, LISTING_MOST);
    assert_true(listing.is_cut);
    listing_write(&to, &listing, &view, SPAN("/"));
    buffer_append(&to, "", 1);
    expect_within(buffer_at(&to), "This is not all: the directory has more than 2000 names.");
    buffer_free(&to);
    listing_free(&listing);

    for (unsigned i = 0; i < LISTING_MOST; i++) {
        snprintf(name, sizeof name, "%05u", i);
        unlinkat(directory_fd, name, 0);
    }
    unlinkat(directory_fd, ".one more", 0);
    unlinkat(directory_fd, "and another", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_type),
        cmocka_unit_test(test_sorting),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_headings),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_escaped_names),
        cmocka_unit_test(test_needs_nothing),
        cmocka_unit_test_setup_teardown(test_directory, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_empty_directory, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_errors, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_cut, make_directory, remove_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
