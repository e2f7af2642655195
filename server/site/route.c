#include "site/route.h"

#include <limits.h>

#include "site/rules.h"

static bool is_below(struct span path, struct span pattern)
{
    return span_starts(path, pattern) && (path.len == pattern.len || path.at[pattern.len] == '/');
}

/* What an exact route guards is a program, perhaps, which another route would run with a PATH_INFO. */
static bool is_guard(const struct config_route *route)
{
    return route->gateway == GATEWAY_DENY || route->role == ROLE_AUTHORIZER;
}

static bool matches(const struct config_route *route, struct span path)
{
    struct span pattern = span_of(route->pattern);

    switch (route->match) {
    case ROUTE_EXACT:
        return is_guard(route) ? is_below(path, pattern) : span_is(path, pattern);
    case ROUTE_PREFIX:
        return is_below(path, pattern);
    case ROUTE_SUFFIX:
        break;
    }
    for (size_t end = 1; end <= path.len; end++) {
        bool is_end = end == path.len || path.at[end] == '/';

        if (is_end && span_ends((struct span){path.at, end}, pattern))
            return true;
    }
    return false;
}

/* Does the route stand for a program as a whole, so that the path below it names no file? */
static bool is_whole(const struct config_route *route)
{
    if (route->gateway != GATEWAY_CGI && route->gateway != GATEWAY_FASTCGI)
        return true;
    if (route->program != NULL || route->role == ROLE_AUTHORIZER)
        return true;
    if (route->role == ROLE_FILTER)
        return false;
    return route->gateway == GATEWAY_FASTCGI && route->match != ROUTE_SUFFIX && route->dir == NULL &&
           route->pool->kind != POOL_SCRIPTS;
}

static enum route_file look_at(struct span name, const struct config_route *route, route_look *look, void *arg)
{
    char text[PATH_MAX];

    if (name.len == 0 || name.len >= sizeof text)
        return ROUTE_FILE_NONE;
    memcpy(text, name.at, name.len);
    text[name.len] = '\0';
    return look(arg, route->site, route, text);
}

/* Where the name of a script may end at the earliest: nothing above the route's own place in the path is one. */
static size_t first_end(const struct config_route *route, struct span path)
{
    if (route->match == ROUTE_EXACT)
        return path.len;
    return route->match == ROUTE_PREFIX ? strlen(route->pattern) + 2 : 2;
}

/* Walks down the path, segment by segment, to the first that is a file (and ends in the suffix, if the route has one).
 * */
static enum route_found walk(const struct config_route *route, struct span path, route_look *look, void *arg,
                             struct route_target *out)
{
    bool below_prefix = route->dir != NULL && route->match == ROUTE_PREFIX;
    size_t start = below_prefix ? strlen(route->pattern) + 1 : 1;
    struct span suffix = route->match == ROUTE_SUFFIX ? span_of(route->pattern) : SPAN("");

    for (size_t end = first_end(route, path); end <= path.len; end++) {
        struct span name = {path.at + start, end - start};

        if ((end < path.len && path.at[end] != '/') || (name.len > 0 && name.at[name.len - 1] == '/'))
            continue;
        if (!span_ends(name, suffix))
            continue;
        enum route_file found = look_at(name, route, look, arg);
        if (found == ROUTE_FILE_DIRECTORY)
            continue;
        if (found != ROUTE_FILE_REGULAR)
            return ROUTE_MISSING;
        out->script = name;
        out->script_name = (struct span){path.at, end};
        out->path_info = span_from(path, end);
        return ROUTE_TAKEN;
    }
    return ROUTE_MISSING;
}

const struct config_route *route_first(const struct config_site *site, struct span path)
{
    for (size_t i = 0; i < site->n_routes; i++)
        if (matches(site->routes[i], path))
            return site->routes[i];
    return NULL;
}

/* A path that was requested has none of the others any more. */
static bool has_plain_segments(struct span name)
{
    for (;;) {
        const char *slash = memchr(name.at, '/', name.len);
        struct span segment = {name.at, slash != NULL ? (size_t)(slash - name.at) : name.len};

        if (segment.len == 0 || span_is(segment, SPAN(".")) || span_is(segment, SPAN("..")))
            return false;
        if (slash == NULL)
            return true;
        name = span_from(name, segment.len + 1);
    }
}

bool route_may_run(const struct config_route *route, struct span script)
{
    struct span pattern = span_of(route->pattern);

    if (!has_plain_segments(script) || rules_is_hidden(route->site, script))
        return false;
    if (route->match == ROUTE_SUFFIX)
        return span_ends(script, pattern);
    if (route->match == ROUTE_PREFIX && (route->dir != NULL || pattern.len == 0))
        return true;
    pattern = span_from(pattern, 1); /* without its slash */
    if (route->match == ROUTE_EXACT)
        return span_is(script, pattern);
    return span_starts(script, pattern) && script.len > pattern.len && script.at[pattern.len] == '/';
}

static bool has_passed(const struct route_passed *passed, const struct config_route *route)
{
    for (unsigned i = 0; passed != NULL && i < passed->n; i++)
        if (passed->at[i] == route)
            return true;
    return false;
}

enum route_found route_find(const struct config_site *site, struct span path, const struct route_passed *passed,
                            route_look *look, void *arg, struct route_target *out)
{
    for (size_t i = 0; i < site->n_routes; i++) {
        const struct config_route *route = site->routes[i];

        if (!matches(route, path) || has_passed(passed, route))
            continue;
        *out = (struct route_target){.route = route, .script = SPAN("")};
        if (!is_whole(route))
            return walk(route, path, look, arg, out);
        size_t end = route->match == ROUTE_SUFFIX ? path.len : strlen(route->pattern);
        out->script_name = (struct span){path.at, end};
        out->path_info = span_from(path, end);
        return ROUTE_TAKEN;
    }
    return ROUTE_NONE;
}
