#include "site/rules.h"

#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>

static bool matches(const struct config_words *patterns, struct span segment)
{
    char name[NAME_MAX + 1];

    if (segment.len > NAME_MAX)
        return false; /* there is no such file */
    memcpy(name, segment.at, segment.len);
    name[segment.len] = '\0';
    for (size_t i = 0; i < patterns->n; i++)
        if (fnmatch(patterns->at[i], name, 0) == 0)
            return true;
    return false;
}

bool rules_is_hidden(const struct config_site *site, struct span path)
{
    bool is_first = true;

    if (site->hidden.n == 0)
        return false;
    while (path.len > 0) {
        const char *slash = memchr(path.at, '/', path.len);
        struct span segment = {path.at, slash != NULL ? (size_t)(slash - path.at) : path.len};

        path = span_from(path, segment.len + (slash != NULL));
        if (segment.len == 0)
            continue;
        if (!(is_first && span_is(segment, SPAN(".well-known"))) && matches(&site->hidden, segment))
            return true;
        is_first = false;
    }
    return false;
}

void rules_candidate(struct buffer *to, const char *word, struct span path)
{
    if (strncmp(word, "$path", 5) != 0) {
        buffer_append_span(to, span_of(word));
        return;
    }
    word += 5;
    if (word[0] == '/' && span_ends(path, SPAN("/")))
        word++;
    buffer_append_span(to, path);
    buffer_append_span(to, span_of(word));
}

/* What the route's * stands for. */
static struct span rest_of(const struct config_route *route, struct span path)
{
    size_t prefix = strlen(route->pattern) + 1;

    return route->match == ROUTE_PREFIX && path.len > prefix ? span_from(path, prefix) : SPAN("");
}

/* Appends text with its variables replaced. */
static void expand(struct buffer *to, struct span text, const struct config_route *route, const struct uri *uri,
                   struct span host)
{
    while (text.len > 0) {
        const char *dollar = memchr(text.at, '$', text.len);
        size_t n = dollar != NULL ? (size_t)(dollar - text.at) : text.len;

        buffer_append(to, text.at, n);
        text = span_from(text, n);
        n = 5; /* each variable's name, with the dollar */
        if (span_starts(text, SPAN("$path"))) {
            uri_append_encoded(to, uri->path);
        } else if (span_starts(text, SPAN("$rest"))) {
            uri_append_encoded(to, rest_of(route, uri->path));
        } else if (span_starts(text, SPAN("$host"))) {
            buffer_append_span(to, host);
        } else {
            n = text.len > 0; /* a dollar like any other character */
            buffer_append(to, text.at, n);
        }
        text = span_from(text, n);
    }
}

void rules_location(struct buffer *to, const struct config_route *route, const struct uri *uri, struct span host)
{
    struct span text = span_of(route->to), fragment = {"", 0};
    const char *hash = strchr(route->to, '#');

    if (hash != NULL) {
        text.len = (size_t)(hash - text.at);
        fragment = span_of(hash);
    }
    expand(to, text, route, uri, host);
    if (memchr(text.at, '?', text.len) == NULL)
        uri_append_query(to, uri);
    expand(to, fragment, route, uri, host);
}

const char *rules_error_page(const struct config_site *site, unsigned status)
{
    const char *by_class = NULL;
    char exact[12], class[12];

    snprintf(exact, sizeof exact, "%u", status);
    snprintf(class, sizeof class, "%uxx", status / 100);
    for (size_t i = 0; i < site->error_pages.n; i++) {
        const struct config_pair *page = &site->error_pages.at[i];

        if (strcmp(page->name, exact) == 0)
            return page->value;
        if (strcmp(page->name, class) == 0)
            by_class = page->value;
    }
    return by_class;
}
