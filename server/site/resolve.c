#include "site/resolve.h"

#include <stdlib.h>

#include "site/rules.h"

/* The question, while it is being answered. */
struct question {
    const struct config_site *site;
    struct span asked;
    const struct route_passed *passed;
    route_look *look;
    void *arg;
    struct buffer *room; /* the path that is considered, if it is not the one that was asked for */
    struct resolved *out;
};

static enum route_file look_at(const struct question *q, struct span path)
{
    return q->look(q->arg, q->site, NULL, path.len > 1 ? path.at + 1 : ".");
}

static struct span in_room(const struct question *q)
{
    return (struct span){buffer_at(q->room), buffer_len(q->room) - 1};
}

static bool take_route(const struct question *q, struct span path)
{
    enum route_found found = route_find(q->site, path, q->passed, q->look, q->arg, &q->out->target);

    if (found == ROUTE_NONE)
        return false;
    q->out->as = found == ROUTE_TAKEN ? RESOLVED_ROUTE : RESOLVED_MISSING;
    q->out->path = path;
    return true;
}

static void take_file(const struct question *q, struct span path)
{
    q->out->as = RESOLVED_FILE;
    q->out->path = path;
}

/* Takes the first index file of the directory whose path, with its "/", is in the room or was asked for. */
static bool take_index(const struct question *q, struct span directory)
{
    size_t len = directory.len;

    if (directory.at != buffer_at(q->room)) {
        buffer_clear(q->room);
        buffer_append_span(q->room, directory);
    }
    for (size_t i = 0; i < q->site->index_files.n; i++) {
        q->room->end = q->room->start + len;
        buffer_append(q->room, q->site->index_files.at[i], strlen(q->site->index_files.at[i]) + 1);
        if (look_at(q, in_room(q)) != ROUTE_FILE_REGULAR)
            continue;
        if (!take_route(q, in_room(q)))
            take_file(q, in_room(q));
        return true;
    }
    return false;
}

/* A candidate that ends in "/". */
static bool take_directory(const struct question *q, struct span path)
{
    bool is_slash_due = path.len == q->asked.len + 1 && span_starts(path, q->asked);
    size_t len = path.len;

    if (look_at(q, path) != ROUTE_FILE_DIRECTORY)
        return false;
    if (take_index(q, path)) {
        if (is_slash_due)
            q->out->as = RESOLVED_SLASH;
        return true;
    }
    if (!q->site->has_listings)
        return false;
    q->room->end = q->room->start + len;
    buffer_append(q->room, "", 1);
    take_file(q, in_room(q));
    if (is_slash_due)
        q->out->as = RESOLVED_SLASH;
    return true;
}

static bool take_candidate(const struct question *q, const char *word, bool is_last)
{
    struct span path;

    if (word[0] == '=') {
        q->out->as = RESOLVED_STATUS;
        q->out->status = (unsigned)strtoul(word + 1, NULL, 10);
        return true;
    }
    buffer_clear(q->room);
    rules_candidate(q->room, word, q->asked);
    buffer_append(q->room, "", 1);
    path = in_room(q);
    if (take_route(q, path))
        return q->out->as == RESOLVED_ROUTE || is_last;
    if (span_ends(path, SPAN("/"))) {
        if (take_directory(q, path))
            return true;
        path = q->asked; /* what is in the room may be something else by now */
    } else if (look_at(q, path) == ROUTE_FILE_REGULAR) {
        is_last = true;
    }
    if (is_last)
        take_file(q, path);
    return is_last;
}

void resolve(const struct config_site *site, struct span path, const struct route_passed *passed, route_look *look,
             void *arg, struct buffer *room, struct resolved *out)
{
    const struct question q = {site, path, passed, look, arg, room, out};
    const struct config_words *words = &site->candidates;

    if (take_route(&q, path))
        return;
    if (words->n > 0 && rules_is_hidden(site, path)) { /* whether there is such a file or not */
        take_file(&q, path);
        return;
    }
    for (size_t i = 0; i < words->n; i++)
        if (take_candidate(&q, words->at[i], i + 1 == words->n))
            return;
    if (span_ends(path, SPAN("/")) && take_index(&q, path))
        return;
    take_file(&q, path);
}
