#include "site/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"

/* A place where programs are, or one program. */
struct place {
    const struct config_site *site; /* .path is below its root; NULL: .path is absolute */
    char *path;
    char *real; /* its real path, as long as `about` is what is there; NULL: nothing is */
    struct stat about;
};

struct sources {
    const struct config *config;
    const int *root_fds, *route_fds;
    struct place *places;
    size_t n_places;
};

static bool has_programs(const struct config_route *route)
{
    return route->gateway == GATEWAY_CGI || route->gateway == GATEWAY_FASTCGI;
}

/* Does it run the files that its pattern names? An authorizer's are what it guards. */
static bool runs_files(const struct config_route *route)
{
    return has_programs(route) && route->role != ROLE_AUTHORIZER;
}

static void add_place(struct sources *sources, const struct config_site *site, const char *path)
{
    sources->places = memory_resize(sources->places, (sources->n_places + 1) * sizeof *sources->places);
    sources->places[sources->n_places++] = (struct place){.site = site, .path = memory_copy(path, strlen(path))};
}

/* Every word of a command that is a path names a program: an interpreter's script, too. */
static void add_command(struct sources *sources, const struct config_pool *pool)
{
    for (size_t i = 0; i < pool->command.n; i++) {
        struct buffer path = {0};

        if (pool->command.at[i][0] != '/' && (pool->chdir == NULL || pool->command.at[i][0] == '-'))
            continue;
        if (pool->command.at[i][0] != '/')
            buffer_printf(&path, "%s/", pool->chdir);
        buffer_append(&path, pool->command.at[i], strlen(pool->command.at[i]) + 1);
        add_place(sources, NULL, buffer_at(&path));
        buffer_free(&path);
    }
}

static void add_route(struct sources *sources, const struct config_route *route)
{
    if (!has_programs(route) || route->dir != NULL)
        return;
    if (route->program != NULL)
        add_place(sources, NULL, route->program);
    else if (route->pool != NULL && route->pool->kind == POOL_MANAGED)
        add_command(sources, route->pool);
    else if (route->match != ROUTE_SUFFIX && (route->pool == NULL || route->pool->kind == POOL_SCRIPTS))
        add_place(sources, route->site, route->pattern);
}

struct sources *sources_create(const struct config *config, const int *root_fds, const int *route_fds)
{
    struct sources *sources = memory_zeroed(1, sizeof *sources);

    *sources = (struct sources){.config = config, .root_fds = root_fds, .route_fds = route_fds};
    for (size_t i = 0; i < config->n_routes; i++)
        add_route(sources, config->routes[i]);
    return sources;
}

void sources_destroy(struct sources *sources)
{
    for (size_t i = 0; i < sources->n_places; i++) {
        free(sources->places[i].path);
        free(sources->places[i].real);
    }
    free(sources->places);
    free(sources);
}

bool sources_real_path(int fd, char path[PATH_MAX])
{
    const struct span deleted = SPAN(" (deleted)");
    char link[40];
    struct stat about;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX);
    if (len < 0 || len == PATH_MAX || fstat(fd, &about) != 0)
        return false;
    if (about.st_nlink == 0 && span_ends((struct span){path, (size_t)len}, deleted))
        len -= (ssize_t)deleted.len;
    path[len] = '\0';
    return true;
}

static bool is_beneath(struct span path, struct span directory)
{
    return span_starts(path, directory) && (path.len == directory.len || path.at[directory.len] == '/');
}

static bool is_beneath_root(const struct sources *sources, const struct config_site *site, struct span path)
{
    char root[PATH_MAX];

    return sources_real_path(sources->root_fds[site->index], root) && is_beneath(path, span_of(root));
}

/* The same place at the same time: a directory that was renamed has another time of change. */
static bool is_unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static const char *find_real(const struct sources *sources, struct place *place)
{
    char path[PATH_MAX];
    struct stat about;
    size_t len = 0;

    if (place->site != NULL && sources_real_path(sources->root_fds[place->site->index], path))
        len = strlen(path);
    if ((size_t)snprintf(path + len, sizeof path - len, "%s", place->path) >= sizeof path - len ||
        stat(path, &about) != 0)
        return NULL;
    if (place->real == NULL || !is_unchanged(&about, &place->about)) {
        free(place->real);
        place->real = realpath(path, NULL);
        place->about = about;
    }
    return place->real;
}

/* Is it among the programs at `real`, which are not just all that the site has? */
static bool is_among(const struct sources *sources, const struct config_site *site, struct span path, const char *real)
{
    char root[PATH_MAX];

    if (real == NULL || !is_beneath(path, span_of(real)))
        return false;
    return !sources_real_path(sources->root_fds[site->index], root) || !is_beneath(span_of(root), span_of(real));
}

static bool runs(const struct sources *sources, const struct config_site *site, const struct config_route *route,
                 struct span path)
{
    char dir[PATH_MAX];

    if (!runs_files(route))
        return false;
    if (route->dir != NULL)
        return sources_real_path(sources->route_fds[route->index], dir) && is_among(sources, site, path, dir);
    return route->match == ROUTE_SUFFIX && span_ends(path, span_of(route->pattern)) &&
           (route->site == site || is_beneath_root(sources, route->site, path));
}

bool sources_has(struct sources *sources, const struct config_site *site, struct span path)
{
    for (size_t i = 0; i < sources->n_places; i++)
        if (is_among(sources, site, path, find_real(sources, &sources->places[i])))
            return true;
    for (size_t i = 0; i < sources->config->n_routes; i++)
        if (runs(sources, site, sources->config->routes[i], path))
            return true;
    return false;
}
