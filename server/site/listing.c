/*
 * A name may hold any byte, so nothing of it reaches the page as it is: links are encoded (uri.h), then escaped, since
 * an encoded path may hold "&"; text is escaped (escape.h). Links to entries begin with "./", lest "javascript:x" be a
 * scheme or "//x" a host.
 */
#include "site/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/escape.h"
#include "base/memory.h"
#include "http/uri.h"

static const struct {
    const char *key, *title;
} columns[] = {
    [LISTING_NAME] = {"name", "Name"},
    [LISTING_SIZE] = {"size", "Size"},
    [LISTING_TIME] = {"time", "Modified"},
};

/* ---- the view ---- */

static void read_parameter(struct listing_view *view, struct span key, struct span value)
{
    if (span_is(key, SPAN("json")) && (value.len == 0 || span_is(value, SPAN("1"))))
        view->is_json = true;
    if (span_is(key, SPAN("order")) && (span_is(value, SPAN("asc")) || span_is(value, SPAN("desc"))))
        view->is_descending = span_is(value, SPAN("desc"));
    if (!span_is(key, SPAN("sort")))
        return;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        if (span_is(value, span_of(columns[i].key)))
            view->sort = (enum listing_sort)i;
}

/* Takes what stands before the first `end` off the front of *s, and `end` with it. */
static struct span take_until(struct span *s, char end)
{
    struct span taken = *s;

    for (size_t i = 0; i < s->len; i++) {
        if (s->at[i] == end) {
            taken.len = i;
            *s = span_from(*s, i + 1);
            return taken;
        }
    }
    s->len = 0;
    return taken;
}

struct listing_view listing_view(struct span query)
{
    struct listing_view view = {0};

    while (query.len > 0) {
        struct span value = take_until(&query, '&');
        struct span key = take_until(&value, '=');

        read_parameter(&view, key, value);
    }
    return view;
}

/* ---- reading ---- */

static void add_entry(struct listing *listing, size_t *room, const char *name, const struct stat *about)
{
    if (listing->n == *room) {
        *room = *room == 0 ? 64 : *room * 2;
        listing->at = memory_resize(listing->at, *room * sizeof *listing->at);
    }
    listing->at[listing->n++] = (struct listing_entry){
        .name = memory_copy(name, strlen(name)),
        .is_directory = S_ISDIR(about->st_mode),
        .size = S_ISDIR(about->st_mode) ? 0 : (uint64_t)about->st_size,
        .modified = about->st_mtim.tv_sec,
    };
}

static int read_entries(struct listing *listing, DIR *dir, bool (*shows)(void *arg, const char *name), void *arg)
{
    const struct dirent *entry;
    size_t room = 0, n_seen = 0;

    for (;;) {
        struct stat about;

        errno = 0;
        entry = readdir(dir);
        if (entry == NULL)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (++n_seen > LISTING_MOST) {
            listing->is_cut = true;
            return 0;
        }
        if (!shows(arg, entry->d_name) || fstatat(dirfd(dir), entry->d_name, &about, 0) != 0)
            continue; /* not for anybody, gone meanwhile, or a link to nothing */
        if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode))
            add_entry(listing, &room, entry->d_name, &about);
    }
}

int listing_read(struct listing *listing, int dir_fd, bool (*shows)(void *arg, const char *name), void *arg)
{
    int fd =
        openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* its own: a DIR closes and moves what it is given */
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    int rc;

    *listing = (struct listing){0};
    if (dir == NULL) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    rc = read_entries(listing, dir, shows, arg);
    closedir(dir);
    if (rc != 0)
        listing_free(listing);
    return rc;
}

void listing_free(struct listing *listing)
{
    for (size_t i = 0; i < listing->n; i++)
        free(listing->at[i].name);
    free(listing->at);
    *listing = (struct listing){0};
}

/* ---- sorting ---- */

static int compare_keys(const struct listing_entry *a, const struct listing_entry *b, enum listing_sort sort)
{
    switch (sort) {
    case LISTING_SIZE:
        return (a->size > b->size) - (a->size < b->size);
    case LISTING_TIME:
        return (a->modified > b->modified) - (a->modified < b->modified);
    case LISTING_NAME:
        break;
    }
    return strcmp(a->name, b->name);
}

static int compare(const void *left, const void *right, void *arg)
{
    const struct listing_entry *a = left, *b = right;
    const struct listing_view *view = arg;
    int order;

    if (a->is_directory != b->is_directory)
        return a->is_directory ? -1 : 1;
    order = compare_keys(a, b, view->sort);
    if (order == 0)
        return strcmp(a->name, b->name);
    return view->is_descending ? -order : order;
}

/* ---- writing ---- */

static void append_escaped(struct buffer *to, char *(*escape)(char *at, struct span s), struct span s)
{
    char *at = buffer_reserve(to, ESCAPE_LONGEST * s.len + 1);

    buffer_added(to, (size_t)(escape(at, s) - at));
}

static void append_html(struct buffer *to, struct span s)
{
    append_escaped(to, escape_html, s);
}

/* Time as in "2026-01-02T03:04:05Z": with a year of four digits, whatever the file's time is. */
static struct tm utc(time_t time)
{
    static const time_t first = -62135596800, last = 253402300799; /* of the years 1 and 9999 */
    struct tm tm;

    if (time < first)
        time = first;
    if (time > last)
        time = last;
    gmtime_r(&time, &tm);
    return tm;
}

static void append_datetime(struct buffer *to, const struct tm *tm)
{
    buffer_printf(to, "%04d-%02d-%02dT%02d:%02d:%02dZ", tm->tm_year + 1900, tm->tm_mon + 1, tm->tm_mday, tm->tm_hour,
                  tm->tm_min, tm->tm_sec);
}

static void append_json(struct buffer *to, const struct listing *listing)
{
    buffer_append_span(to, SPAN("["));
    for (size_t i = 0; i < listing->n; i++) {
        const struct listing_entry *entry = &listing->at[i];
        struct tm tm = utc(entry->modified);

        buffer_append_span(to, i > 0 ? SPAN(",\n{\"name\":\"") : SPAN("{\"name\":\""));
        append_escaped(to, escape_json, span_of(entry->name));
        if (entry->is_directory)
            buffer_append_span(to, SPAN("\",\"type\":\"directory\""));
        else
            buffer_printf(to, "\",\"type\":\"file\",\"size\":%" PRIu64, entry->size);
        buffer_append_span(to, SPAN(",\"modified\":\""));
        append_datetime(to, &tm);
        buffer_append_span(to, SPAN("\"}"));
    }
    buffer_append_span(to, SPAN("]\n"));
}

/* "999 B", "9.9 KiB", "10 KiB", "1.0 MiB": rounded to the nearest. */
static void append_size(struct buffer *to, uint64_t size)
{
    static const char units[] = "KMGTPE";
    uint64_t one = 1024;
    size_t unit = 0;

    if (size < one) {
        buffer_printf(to, "%" PRIu64 " B", size);
        return;
    }
    /* the next unit where this one would say 1024 */
    while (units[unit + 1] != '\0' && size / one >= 1023 && size - 1023 * one >= one / 2) {
        one *= 1024;
        unit++;
    }
    if (size / one < 10) {
        uint64_t tenths = size / one * 10 + (size % one * 10 + one / 2) / one;

        if (tenths < 100) {
            buffer_printf(to, "%u.%u %ciB", (unsigned)(tenths / 10), (unsigned)(tenths % 10), units[unit]);
            return;
        }
    }
    buffer_printf(to, "%u %ciB", (unsigned)(size / one + (size % one >= one / 2)), units[unit]);
}

static void append_link(struct buffer *to, struct span before, struct span path, struct span after)
{
    struct buffer encoded = {0};

    uri_append_encoded(&encoded, path);
    buffer_append_span(to, SPAN("<a href=\""));
    buffer_append_span(to, before);
    append_html(to, buffer_span(&encoded));
    buffer_append_span(to, after);
    buffer_append_span(to, SPAN("\">"));
    buffer_free(&encoded);
}

/* The path, each of its directories a link. */
static void append_crumbs(struct buffer *to, struct span path)
{
    size_t start = 1;

    buffer_append_span(to, SPAN("<h1><b>Index of</b> <a href=\"/\">/</a>"));
    for (size_t i = 1; i < path.len; i++) {
        if (path.at[i] != '/')
            continue;
        append_link(to, SPAN(""), (struct span){path.at, i + 1}, SPAN(""));
        buffer_append_span(to, SPAN("<bdi>"));
        append_html(to, (struct span){path.at + start, i - start});
        buffer_append_span(to, SPAN("</bdi>/</a>"));
        start = i + 1;
    }
    buffer_append_span(to, SPAN("</h1>\n"));
}

static void append_headings(struct buffer *to, const struct listing_view *view)
{
    buffer_append_span(to, SPAN("<table>\n<thead><tr>"));
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        bool is_sorted = view->sort == (enum listing_sort)i;

        buffer_append_span(to, SPAN("<th scope=\"col\""));
        if (is_sorted)
            buffer_printf(to, " aria-sort=\"%s\"", view->is_descending ? "descending" : "ascending");
        buffer_printf(to, "><a href=\"?sort=%s&amp;order=%s\">%s</a></th>", columns[i].key,
                      is_sorted && !view->is_descending ? "desc" : "asc", columns[i].title);
    }
    buffer_append_span(to, SPAN("</tr></thead>\n<tbody>\n"));
}

static void append_row(struct buffer *to, const struct listing_entry *entry)
{
    struct span name = span_of(entry->name), slash = entry->is_directory ? SPAN("/") : SPAN("");
    struct tm tm = utc(entry->modified);

    buffer_append_span(to, SPAN("<tr><td>"));
    append_link(to, SPAN("./"), name, slash);
    buffer_append_span(to, SPAN("<bdi>"));
    append_html(to, name);
    buffer_append_span(to, SPAN("</bdi>"));
    buffer_append_span(to, slash);
    if (entry->is_directory) {
        buffer_append_span(to, SPAN("</a></td><td></td><td><time datetime=\""));
    } else {
        buffer_printf(to, "</a></td><td title=\"%" PRIu64 " byte%s\">", entry->size, entry->size == 1 ? "" : "s");
        append_size(to, entry->size);
        buffer_append_span(to, SPAN("</td><td><time datetime=\""));
    }
    append_datetime(to, &tm);
    buffer_printf(to, "\">%04d-%02d-%02d %02d:%02d</time></td></tr>\n", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                  tm.tm_hour, tm.tm_min);
}

/* The parent, as an absolute link: "../" of "/a%2fb/" is not what this server takes for it. */
static void append_parent(struct buffer *to, struct span path)
{
    while (path.len > 1 && path.at[path.len - 2] != '/')
        path.len--;
    path.len--;
    buffer_append_span(to, SPAN("<tr><td>"));
    append_link(to, SPAN(""), path, SPAN(""));
    buffer_append_span(to, SPAN("../</a></td><td></td><td></td></tr>\n"));
}

static void append_head(struct buffer *to, struct span path)
{
    static const char style[] =
        ":root{color-scheme:light dark;--link:#0b57a4;--line:#8884}"
        "@media(prefers-color-scheme:dark){:root{--link:#8cc2ff}}"
        "body{font:1rem/1.5 system-ui,sans-serif;margin:5vh auto;max-width:60rem;padding:0 1rem}"
        "h1{font-size:1.5rem;font-weight:500;overflow-wrap:anywhere}b{opacity:.5}"
        "a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}"
        "table{border-collapse:collapse;width:100%}"
        "th,td{border-bottom:1px solid var(--line);padding:0;text-align:right;vertical-align:top;white-space:nowrap;"
        "font-variant-numeric:tabular-nums}"
        "th{font-weight:500}td,th a,td a{padding:.4rem .5rem}"
        "th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;padding:0;width:100%}"
        "th a,td a{display:block}bdi{white-space:pre-wrap}tbody tr:hover{background:#8882}"
        "th[aria-sort] a::after{content:\" \\2191\"}th[aria-sort=descending] a::after{content:\" \\2193\"}"
        "@media(max-width:40rem){time{display:inline-block;width:10ch;white-space:normal}td+td{font-size:.8rem}"
        "td,th a,td a{padding:.4rem .25rem}}";

    buffer_append_span(to, SPAN("<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
                                "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Index of "));
    append_html(to, path);
    buffer_append_span(to, SPAN("</title>\n<style>"));
    buffer_append_span(to, span_of(style));
    buffer_append_span(to, SPAN("</style>\n"));
}

static void append_page(struct buffer *to, const struct listing *listing, const struct listing_view *view,
                        struct span path)
{
    append_head(to, path);
    append_crumbs(to, path);
    append_headings(to, view);
    if (path.len > 1)
        append_parent(to, path);
    for (size_t i = 0; i < listing->n; i++)
        append_row(to, &listing->at[i]);
    buffer_append_span(to, SPAN("</tbody>\n</table>\n<p>"));
    if (listing->is_cut)
        buffer_printf(to, "This is not all: the directory has more than %d names. ", LISTING_MOST);
    else if (listing->n == 0)
        buffer_append_span(to, SPAN("There is nothing here. "));
    buffer_append_span(to, SPAN("Times are UTC.</p>\n</html>\n"));
}

void listing_write(struct buffer *to, struct listing *listing, const struct listing_view *view, struct span path)
{
    struct listing_view order = *view;

    if (listing->n > 1)
        qsort_r(listing->at, listing->n, sizeof *listing->at, compare, &order);
    if (view->is_json)
        append_json(to, listing);
    else
        append_page(to, listing, view, path);
}

struct span listing_type(const struct listing_view *view)
{
    return view->is_json ? SPAN("application/json") : SPAN("text/html; charset=utf-8");
}
