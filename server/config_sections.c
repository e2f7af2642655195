/*
 * The four kinds of section: how each begins by its header, and what must hold when it has ended. What concerns
 * several sections - is the pool there that a route names? - waits for the end of the file.
 *
 * Every section whose kind is known gets its object, even when its header is refused otherwise: so the errors of its
 * keys are found in the same go.
 */
#include "config_keys.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "config_text.h"
#include "config_values.h"

const char *const section_names[] = {
    [SECTION_SERVER] = "server",
    [SECTION_SITE] = "site",
    [SECTION_ROUTE] = "route",
    [SECTION_POOL] = "pool",
};

static const struct config_rlimits no_rlimits = {RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY,
                                                 RLIM_INFINITY};

static char *copy(const char *text)
{
    return memory_copy(text, strlen(text));
}

static void *grow(void *array, size_t n)
{
    return memory_resize(array, (n + 1) * sizeof(void *));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What has been noted of the present section, behind `before`. Sorted: in which order settings stand says nothing. */
static char *take_identity(struct reading *r, const char *before)
{
    struct buffer text = {0};
    char **lines = NULL, *rest;
    size_t n = 0;

    buffer_append(&r->identity, "", 1);
    for (char *at = strtok_r(buffer_at(&r->identity), "\n", &rest); at != NULL; at = strtok_r(NULL, "\n", &rest)) {
        lines = grow(lines, n);
        lines[n++] = at;
    }
    if (n > 0)
        qsort(lines, n, sizeof *lines, by_text);
    buffer_printf(&text, "%s", before);
    for (size_t i = 0; i < n; i++)
        buffer_printf(&text, "%s\n", lines[i]);
    free(lines);
    char *taken = memory_copy(buffer_at(&text), buffer_len(&text));
    buffer_free(&text);
    return taken;
}

/* [server] */

static void server_begin(struct reading *r, const struct config_words *words)
{
    if (words->n > 1)
        reading_refuse(r, r->line, "%s: [server] has no name", r->label);
    if (r->server_line != 0)
        reading_refuse(r, r->line, "a second [server]; the first is in line %u", r->server_line);
    else
        r->server_line = r->line;
    r->object = &r->config->server;
}

/* [site NAME...] */

static const struct config_site *find_site(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_sites; i++) {
        for (size_t j = 0; j < config->sites[i]->names.n; j++) {
            if (strcmp(config->sites[i]->names.at[j], name) == 0)
                return config->sites[i];
        }
    }
    return NULL;
}

static void add_site_name(struct reading *r, struct config_site *site, const char *text)
{
    char *name = copy(text);
    size_t len = strlen(name);
    const struct config_site *other;

    for (char *c = name; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    if (len > 1 && name[len - 1] == '.')
        name[--len] = '\0';
    other = find_site(r->config, name);
    if (strchr(name, ':') != NULL)
        reading_refuse(r, r->line, "\"%s\" in %s: a site's name has no port", text, r->label);
    else if (strcmp(name, "*") != 0 && !text_is_host((struct span){name, len}))
        reading_refuse(r, r->line, "\"%s\" in %s is no host name; nor is it *, which answers any", text, r->label);
    else if (other != NULL)
        reading_refuse(r, r->line, "the site \"%s\" is in line %u already", name, other->line);
    site->names.at = grow(site->names.at, site->names.n);
    site->names.at[site->names.n++] = name;
    if (site->names.n == 2 && (strcmp(name, "*") == 0 || strcmp(site->names.at[0], "*") == 0))
        reading_refuse(r, r->line, "\"*\" in %s stands alone: it answers any name", r->label);
}

static void site_begin(struct reading *r, const struct config_words *words)
{
    struct config *config = r->config;
    struct config_site *site = memory_zeroed(1, sizeof *site);

    site->index = (unsigned)config->n_sites;
    site->line = r->line;
    config->sites = grow(config->sites, config->n_sites);
    config->sites[config->n_sites++] = site;
    r->object = site;
    if (words->n == 1)
        reading_refuse(r, r->line, "[site] needs a name: [site example.org], or [site *]");
    for (size_t i = 1; i < words->n; i++)
        add_site_name(r, site, words->at[i]);
}

static void site_end(struct reading *r)
{
    struct config_site *site = r->object;

    if (reading_seen(r, "root") == NULL)
        reading_refuse(r, r->section_line, "%s needs root = DIR", r->label);
    keys_finish(r, -1);
    site->identity = take_identity(r, "");
}

/* [route PATTERN] */

/* Can a path look like this, or begin so, once it is normalized? */
static bool is_normal(struct span path)
{
    while (path.len > 0) {
        const char *slash = memchr(path.at + 1, '/', path.len - 1);
        struct span segment = {path.at, slash != NULL ? (size_t)(slash - path.at) : path.len};

        if ((segment.len == 1 && slash != NULL) || span_is(segment, SPAN("/.")) || span_is(segment, SPAN("/..")))
            return false;
        path = span_from(path, segment.len);
    }
    return true;
}

static bool read_pattern(struct config_route *route, const char *text)
{
    size_t len = strlen(text);
    bool is_suffix = text[0] == '*' && text[1] == '.' && text[2] != '\0' && strchr(text, '/') == NULL;
    bool is_prefix = text[0] == '/' && len >= 2 && text[len - 2] == '/' && text[len - 1] == '*';
    struct span fixed = is_suffix ? (struct span){text + 1, len - 1} : (struct span){text, len - is_prefix};

    if (memchr(fixed.at, '*', fixed.len) != NULL || strpbrk(text, "?#") != NULL)
        return false;
    if (!is_suffix && (text[0] != '/' || !is_normal(fixed)))
        return false;
    route->match = is_suffix ? ROUTE_SUFFIX : is_prefix ? ROUTE_PREFIX : ROUTE_EXACT;
    route->pattern = memory_copy(fixed.at, fixed.len - is_prefix);
    return true;
}

static struct config_route *add_route(struct config *config, struct config_site *site, unsigned line)
{
    struct config_route *route = memory_zeroed(1, sizeof *route);

    route->index = (unsigned)config->n_routes;
    route->line = line;
    route->site = site;
    route->rlimits = no_rlimits;
    config->routes = grow(config->routes, config->n_routes);
    config->routes[config->n_routes++] = route;
    if (site != NULL) {
        site->routes = grow(site->routes, site->n_routes);
        site->routes[site->n_routes++] = route;
    }
    return route;
}

static void route_begin(struct reading *r, const struct config_words *words)
{
    struct config *config = r->config;
    struct config_site *site = config->n_sites > 0 ? config->sites[config->n_sites - 1] : NULL;
    struct config_route *route = add_route(config, site, r->line);

    r->object = route;
    if (site == NULL)
        reading_refuse(r, r->line, "%s belongs to the site above it, and there is none", r->label);
    if (words->n != 2) {
        reading_refuse(r, r->line, "%s needs one pattern: /prefix/*, *.suffix or /exact", r->label);
        return;
    }
    route->text = copy(words->at[1]);
    if (!read_pattern(route, route->text))
        reading_refuse(r, r->line, "the pattern of %s matches nothing; it is one of /prefix/*, *.suffix or /exact",
                       r->label);
}

static void refuse_both(struct reading *r, const struct seen *a, const struct seen *b)
{
    reading_refuse(r, a->line > b->line ? a->line : b->line, "\"%s\" and \"%s\" in %s exclude each other", a->name,
                   b->name, r->label);
}

static void check_cgi(struct reading *r, const struct config_route *route)
{
    const struct seen *dir = reading_seen(r, "dir"), *program = reading_seen(r, "program");

    if (dir != NULL && program != NULL)
        refuse_both(r, dir, program);
    if (route->pattern == NULL)
        return;
    if (dir != NULL && route->match != ROUTE_PREFIX)
        reading_refuse(r, dir->line, "\"dir\" in %s is for /prefix/* routes", r->label);
    if (program != NULL && route->match == ROUTE_SUFFIX)
        reading_refuse(r, program->line, "\"program\" in %s is for /prefix/* and /exact routes", r->label);
}

static void check_fastcgi(struct reading *r, struct config_route *route)
{
    const struct seen *pool = reading_seen(r, "pool");

    if (pool == NULL) {
        reading_refuse(r, r->section_line, "%s needs pool = NAME", r->label);
    } else if (pool->is_good) {
        r->references = memory_resize(r->references, (r->n_references + 1) * sizeof *r->references);
        r->references[r->n_references++] = (struct reference){route, pool->line};
    }
}

static void route_end(struct reading *r)
{
    struct config_route *route = r->object;
    const struct seen *gateway = reading_seen(r, "gateway");

    if (gateway == NULL) {
        reading_refuse(r, r->section_line, "%s needs gateway = static, cgi, fastcgi, deny or redirect", r->label);
        return;
    }
    if (!gateway->is_good)
        return; /* which keys belong here cannot be told */
    if (route->gateway == GATEWAY_CGI)
        check_cgi(r, route);
    if (route->gateway == GATEWAY_FASTCGI)
        check_fastcgi(r, route);
    if (route->gateway == GATEWAY_REDIRECT && reading_seen(r, "to") == NULL)
        reading_refuse(r, r->section_line, "%s needs to = /PATH or to = https://HOST/PATH", r->label);
    keys_finish(r, (int)route->gateway);
    /* Scripts of such a route have an interpreter, like PHP's, that reads nothing without being told how much. */
    if (route->gateway == GATEWAY_FASTCGI && route->match == ROUTE_SUFFIX && !reading_seen(r, "request_buffering"))
        route->request_buffering = BUFFERING_ON;
    if (route->role == ROLE_AUTHORIZER && !reading_seen(r, "pass_authorization"))
        route->pass_authorization = true; /* how else would it know */
    route->identity = take_identity(r, route->site != NULL ? route->site->identity : "");
}

/* [pool NAME] */

static struct config_pool *find_pool(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_pools; i++) {
        if (strcmp(config->pools[i]->name, name) == 0)
            return config->pools[i];
    }
    return NULL;
}

static bool is_pool_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len <= 64 && name[len] == '\0';
}

static void pool_begin(struct reading *r, const struct config_words *words)
{
    struct config *config = r->config;
    struct config_pool *pool = memory_zeroed(1, sizeof *pool);
    const char *name = words->n == 2 ? words->at[1] : "";
    const struct config_pool *other = find_pool(config, name);

    if (words->n != 2)
        reading_refuse(r, r->line, "%s needs one name, like [pool php]", r->label);
    else if (!is_pool_name(name))
        reading_refuse(r, r->line, "the name of %s has to be of letters, digits, \".\", \"_\" and \"-\", at most 64",
                       r->label);
    else if (other != NULL)
        reading_refuse(r, r->line, "%s is in line %u already", r->label, other->line);
    pool->index = (unsigned)config->n_pools;
    pool->line = r->line;
    pool->name = copy(name);
    pool->rlimits = no_rlimits;
    config->pools = grow(config->pools, config->n_pools);
    config->pools[config->n_pools++] = pool;
    r->object = pool;
}

static void refuse_spare(struct reading *r, const char *key, const char *why)
{
    const struct seen *seen = reading_seen(r, key);

    reading_refuse(r, seen != NULL ? seen->line : r->section_line, "\"%s\" in %s %s", key, r->label, why);
}

/* Only then they can be held against each other. */
static bool are_good(struct reading *r)
{
    static const char *const numbers[] = {"pm.max_children", "pm.start_servers", "pm.min_spare_servers",
                                          "pm.max_spare_servers"};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const struct seen *seen = reading_seen(r, numbers[i]);

        if (seen != NULL && !seen->is_good)
            return false;
    }
    return true;
}

/* How many processes: what was not said follows from what was, as php-fpm has it; what was has to fit together. */
static void check_pm(struct reading *r, struct config_pool *pool)
{
    unsigned quarter = pool->max_children / 4;
    unsigned more = quarter > 0 ? quarter : 1;

    if (pool->pm != PM_DYNAMIC || !are_good(r))
        return;
    if (pool->min_spare_servers == 0)
        pool->min_spare_servers = 1;
    if (pool->max_spare_servers == 0)
        pool->max_spare_servers =
            pool->min_spare_servers + more < pool->max_children ? pool->min_spare_servers + more : pool->max_children;
    if (reading_seen(r, "pm.start_servers") == NULL)
        pool->start_servers = (pool->min_spare_servers + pool->max_spare_servers) / 2;
    if (pool->min_spare_servers > pool->max_children)
        refuse_spare(r, "pm.min_spare_servers", "is more than pm.max_children");
    else if (pool->max_spare_servers > pool->max_children)
        refuse_spare(r, "pm.max_spare_servers", "is more than pm.max_children");
    else if (pool->max_spare_servers < pool->min_spare_servers)
        refuse_spare(r, "pm.max_spare_servers", "is less than pm.min_spare_servers");
    else if (pool->start_servers < pool->min_spare_servers || pool->start_servers > pool->max_spare_servers)
        refuse_spare(r, "pm.start_servers", "is not between pm.min_spare_servers and pm.max_spare_servers");
}

static void pool_end(struct reading *r)
{
    struct config_pool *pool = r->object;
    const struct seen *command = reading_seen(r, "command"), *server = reading_seen(r, "server");

    if (command == NULL && server == NULL) {
        reading_refuse(r, r->section_line, "%s needs command = PROGRAM, or server = ADDRESS", r->label);
        return;
    }
    if (command != NULL && server != NULL) {
        refuse_both(r, command, server);
        return;
    }
    if (server != NULL) {
        pool->kind = POOL_SERVERS;
    } else if (command->is_good && strcmp(pool->command.at[0], "$script") == 0) {
        pool->kind = POOL_SCRIPTS;
        free(pool->command.at[0]);
        pool->command.n = 0;
    }
    if (command != NULL && reading_seen(r, "pm.max_children") == NULL)
        reading_refuse(r, r->section_line, "%s needs pm.max_children = N", r->label);
    keys_finish(r, (int)pool->kind);
    pool->identity = take_identity(r, "");
    remotes_finish(pool);
    if (pool->kind == POOL_SERVERS && reading_seen(r, "hash") != NULL && pool->balance != BALANCE_HASH)
        reading_refuse(r, reading_seen(r, "hash")->line, "\"hash\" in %s has no effect; it needs balance = hash",
                       r->label);
    if (pool->kind != POOL_SERVERS && reading_seen(r, "pm.max_children") != NULL)
        check_pm(r, pool);
}

/* All of them. */

static void label_set(struct reading *r, const struct config_words *words)
{
    enum { LONGEST = 80 };
    struct buffer label = {0};

    buffer_append(&label, "[", 1);
    for (size_t i = 0; i < words->n; i++)
        buffer_printf(&label, "%s%s", i > 0 ? " " : "", words->at[i]);
    buffer_append(&label, "]", 1);
    buffer_printf(&r->identity, "%.*s\n", (int)buffer_len(&label), buffer_at(&label));
    if (buffer_len(&label) > LONGEST + 1) {
        label.end = label.start + LONGEST;
        buffer_append(&label, "...]", 4);
    }
    r->label = memory_copy(buffer_at(&label), buffer_len(&label));
    buffer_free(&label);
}

static enum section find_section(struct reading *r, const char *name)
{
    enum section nearest = SECTION_FAULTY;

    for (enum section kind = SECTION_SERVER; kind <= SECTION_POOL; kind++) {
        unsigned distance = text_distance(name, section_names[kind]);

        if (distance == 0)
            return kind;
        if (distance < TEXT_FAR && nearest == SECTION_FAULTY)
            nearest = kind;
    }
    if (nearest != SECTION_FAULTY)
        reading_refuse(r, r->line, "unknown section %s; did you mean [%s]?", r->label, section_names[nearest]);
    else
        reading_refuse(r, r->line, "unknown section %s; one of: [server], [site NAME], [route PATTERN], [pool NAME]",
                       r->label);
    return SECTION_FAULTY;
}

void section_begin(struct reading *r, const struct config_words *words)
{
    typedef void begin(struct reading * r, const struct config_words *words);
    static begin *const begins[] = {
        [SECTION_SERVER] = server_begin,
        [SECTION_SITE] = site_begin,
        [SECTION_ROUTE] = route_begin,
        [SECTION_POOL] = pool_begin,
    };

    label_set(r, words);
    r->section_line = r->line;
    r->section = find_section(r, words->n > 0 ? words->at[0] : "");
    if (r->section != SECTION_FAULTY)
        begins[r->section](r, words);
}

void section_end(struct reading *r)
{
    switch (r->section) {
    case SECTION_NONE:
    case SECTION_FAULTY:
        break;
    case SECTION_SERVER:
        keys_finish(r, -1);
        break;
    case SECTION_SITE:
        site_end(r);
        break;
    case SECTION_ROUTE:
        route_end(r);
        break;
    case SECTION_POOL:
        pool_end(r);
        break;
    }
    for (size_t i = 0; i < r->n_seen; i++)
        free(r->seen[i].name);
    free(r->seen);
    r->seen = NULL;
    r->n_seen = 0;
    free(r->label);
    r->label = NULL;
    buffer_clear(&r->identity);
    r->section = SECTION_NONE;
}

static void check_role(struct reading *r, const struct reference *reference)
{
    if (reference->route->role != ROLE_RESPONDER && reference->route->pool->kind == POOL_SCRIPTS)
        reading_refuse(r, reference->line, "[pool %s] runs scripts; a role other than responder needs a program",
                       reference->route->pool->name);
}

static void resolve(struct reading *r, const struct reference *reference)
{
    const char *name = reference->route->pool_name;

    reference->route->pool = find_pool(r->config, name);
    if (reference->route->pool != NULL) {
        check_role(r, reference);
        return;
    }
    for (size_t i = 0; i < r->config->n_pools; i++) {
        if (text_distance(name, r->config->pools[i]->name) < TEXT_FAR) {
            reading_refuse(r, reference->line, "there is no [pool %s]; did you mean \"%s\"?", name,
                           r->config->pools[i]->name);
            return;
        }
    }
    reading_refuse(r, reference->line, "there is no [pool %s]; add it, with command or server", name);
}

/* The fronts' user owns the sockets of our processes, and runs those of pools that have none of their own. */
static void note_user(struct config_pool *pool, const struct config_user *user)
{
    struct buffer text = {0};

    if (pool->kind == POOL_SERVERS || pool->identity == NULL || user->name == NULL)
        return;
    buffer_printf(&text, "%s[server] user = %s\n", pool->identity, user->name);
    free(pool->identity);
    pool->identity = memory_copy(buffer_at(&text), buffer_len(&text));
    buffer_free(&text);
}

void sections_finish(struct reading *r)
{
    struct config_words server = {.at = (char *[]){(char[]){"server"}}, .n = 1};

    for (size_t i = 0; i < r->n_references; i++)
        resolve(r, &r->references[i]);
    if (r->config->n_sites == 0)
        reading_refuse(r, 0, "no [site]; add one: [site *] with root = DIR");
    if (r->server_line == 0) {
        section_begin(r, &server);
        section_end(r);
    }
    for (size_t i = 0; i < r->config->n_pools; i++)
        note_user(r->config->pools[i], &r->config->server.user);
}
