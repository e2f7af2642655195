/*
 * Configurations come and go, pools stay: which pool of a new configuration is one that is there already?
 *
 * A pool of processes is the same when nothing has changed that a process would notice (config_pool.identity, and who
 * it runs as); how many there are, how long requests wait and the like are set anew. A route is the same when nothing
 * of it or of its site has changed. Pools of servers are known by their names: their slots are plain numbers.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/pools_inside.h"
#include "process/supply.h"

/* ---- making and unmaking ---- */

static struct pool *add_pool(struct pools *pools, enum slot_kind kind, const struct config *of)
{
    unsigned number = 0;

    while (number < SCOREBOARD_POOLS && pools->at[number] != NULL)
        number++;
    if (number == SCOREBOARD_POOLS)
        return NULL;
    struct pool *pool = memory_zeroed(1, sizeof *pool);
    pool->all = pools;
    pool->number = number;
    pool->kind = kind;
    pool->of = of;
    pool->dir_fd = -1;
    pool->group = UINT_MAX;
    pool->n_bindings = 1;
    TAILQ_INIT(&pool->processes);
    TAILQ_INIT(&pool->doors);
    TAILQ_INIT(&pool->runs);
    pools->at[number] = pool;
    if (number >= pools->n)
        pools->options.scoreboard->n_pools = pools->n = number + 1;
    return pool;
}

static void free_pool(struct pool *pool)
{
    struct scoreboard_pool *board = pool_board(pool);

    pool->all->at[pool->number] = NULL;
    pool->all->n_scripts -= pool->script != NULL;
    scoreboard_open(&board->version);
    board->is_there = board->is_current = false;
    scoreboard_close(&board->version);
    if (pool->kind == SLOT_PROCESS) {
        supply_finish(pool);
        processes_close_doors(pool);
    }
    proof_finish(pool);
    if (pool->dir_fd >= 0)
        close(pool->dir_fd);
    if (pool->env != NULL)
        environ_free(pool->env);
    free(pool->script);
    free(pool);
}

static bool has_ended(const struct pool *pool)
{
    if (!pool->is_ending || pool->n_processes > 0 || !TAILQ_EMPTY(&pool->runs))
        return false;
    for (unsigned front = 0; front < LENDER_FRONTS; front++)
        if (pool->lender.shares[front].is_here)
            return false;
    return true;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct pools *pools = arg;

    (void)fd, (void)what;
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && has_ended(pools->at[i]))
            free_pool(pools->at[i]);
}

void pool_sweep_later(struct pools *pools)
{
    event_active(pools->sweep, EV_TIMEOUT, 0);
}

struct pools *pools_create(const struct pools_options *options)
{
    struct pools *pools = memory_zeroed(1, sizeof *pools);

    pools->options = *options;
    pools->sweep = evtimer_new(options->base, on_sweep, pools);
    return pools;
}

void pools_destroy(struct pools *pools)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL)
            free_pool(pools->at[i]);
    event_free(pools->sweep);
    free(pools);
}

void pools_stop(struct pools *pools)
{
    pools->is_stopped = true;
}

static void end_processes(struct pool *pool)
{
    struct process *process, *next;

    for (process = TAILQ_FIRST(&pool->processes); process != NULL; process = next) {
        next = TAILQ_NEXT(process, next);
        process_retire(process, END_RELOAD);
    }
}

void pool_release(struct pool *pool)
{
    if (--pool->n_bindings > 0)
        return;
    pool->is_ending = true;
    proof_finish(pool); /* nobody waits for it any more */
    for (unsigned i = 0; i < pool->all->n; i++) {
        struct pool *other = pool->all->at[i];

        if (other != NULL && other->script != NULL && other->base == pool)
            pool_release(other);
    }
    if (pool->kind == SLOT_PROCESS)
        end_processes(pool);
    pool_sweep_later(pool->all);
}

/* ---- the scoreboard ---- */

static void show_limits(struct scoreboard_pool *board, const struct pool *pool)
{
    const struct config_pool *config = pool->config;

    board->capacity = pool->capacity;
    if (config == NULL) {
        board->queue_limit = pool->route->queue;
        board->queue_timeout_ms = pool->route->queue_timeout_ms;
        return;
    }
    board->pm = (uint8_t)config->pm;
    board->queue_limit = config->queue;
    board->queue_timeout_ms = config->queue_timeout_ms;
    board->max_requests = config->max_requests;
    board->max_memory = config->max_memory;
    board->max_age_ms = config->max_age_ms;
    board->terminate_ms = config->request_terminate_timeout_ms;
    board->slowlog_ms = config->request_slowlog_timeout_ms;
    board->start_servers = config->start_servers;
    board->min_spare = config->min_spare_servers;
    board->max_spare = config->max_spare_servers;
    board->max_spawn_rate = config->max_spawn_rate;
    board->idle_timeout_ms = config->process_idle_timeout_ms;
}

void pool_show(const struct pool *pool)
{
    struct scoreboard_pool *board = pool_board(pool);

    scoreboard_open(&board->version);
    board->is_there = true;
    board->is_current = pool->proof == PROOF_NONE && !pool->is_ending;
    board->kind = (uint8_t)pool->kind;
    if (pool->config != NULL)
        snprintf(board->name, sizeof board->name, "%s", pool->config->name);
    else
        snprintf(board->name, sizeof board->name, "%s %s", pool->route->site->names.at[0], pool->route->text);
    snprintf(board->script, sizeof board->script, "%s", pool->script != NULL ? pool->script : "");
    show_limits(board, pool);
    scoreboard_close(&board->version);
}

/* A number may have been another pool's before. */
static void show_new(struct pool *pool)
{
    struct scoreboard *scoreboard = pool->all->options.scoreboard;
    struct scoreboard_pool *board = pool_board(pool);

    scoreboard_open(&board->version);
    board->start_unix_us = clock_unix_us();
    board->start_us = clock_us();
    board->n_starting = board->n_live = board->n_retiring = board->is_down = 0;
    board->n_started = board->n_limit_reached = 0;
    for (unsigned i = 0; i < N_ENDS; i++)
        board->ends[i] = 0;
    scoreboard_close(&board->version);
    scoreboard_clear_pool(scoreboard, pool->number);
    pool_show(pool);
}

/* ---- pools of processes ---- */

/* php-cgi would start children of its own and end itself after 500 requests, unless told. */
static char **process_environment(const struct config_pool *config)
{
    static char children[] = "PHP_FCGI_CHILDREN", requests[] = "PHP_FCGI_MAX_REQUESTS", none[] = "0";
    struct config_pairs env = {memory_zeroed(config->env.n + 2, sizeof *env.at), config->env.n + 2};

    for (size_t i = 0; i < config->env.n; i++)
        env.at[i] = config->env.at[i];
    env.at[config->env.n] = (struct config_pair){children, none}; /* behind the configured ones, which win */
    env.at[config->env.n + 1] = (struct config_pair){requests, none};
    char **made = environ_make(&env, &config->pass_env, !config->clear_env);
    free(env.at);
    return made;
}

static struct pool *add_processes(struct pools *pools, const struct config *of, const struct config_pool *config)
{
    struct pool *pool = add_pool(pools, SLOT_PROCESS, of);

    if (pool == NULL)
        return NULL;
    pool->config = config;
    pool->capacity = config->kind == POOL_SCRIPTS ? 0 : config->max_children;
    pool->env = process_environment(config);
    supply_prepare(pool);
    return pool;
}

struct pool *pool_open_script(struct pool *base, const char *path)
{
    struct pools *pools = base->all;
    struct pool *pool;

    for (unsigned i = 0; i < pools->n; i++) {
        pool = pools->at[i];
        if (pool != NULL && pool->script != NULL && pool->base == base && !pool->is_ending &&
            strcmp(pool->script, path) == 0)
            return pool;
    }
    if (pools->n_scripts >= POOLS_MAX_SCRIPTS || (pool = add_processes(pools, base->of, base->config)) == NULL)
        return NULL;
    pool->base = base;
    pool->script = memory_copy(path, strlen(path));
    pool->capacity = base->config->max_children;
    pools->n_scripts++;
    show_new(pool);
    return pool;
}

void pool_set_capacity(struct pool *pool, unsigned capacity)
{
    unsigned there_are = pool->capacity + pool->n_excess;

    pool->capacity = capacity;
    pool->n_excess = there_are > capacity ? there_are - capacity : 0;
    pool_free_slots(pool, capacity > there_are ? capacity - there_are : 0);
}

/* ---- binding ---- */

static bool is_same_user(const struct config_user *a, const struct config_user *b)
{
    return (a->name == NULL) == (b->name == NULL) && a->uid == b->uid && a->gid == b->gid;
}

static bool is_same_pool(const struct pool *pool, const struct config *of, const struct config_pool *config)
{
    if (pool->config == NULL || pool->script != NULL || pool->is_ending || pool->config->kind != config->kind)
        return false;
    return strcmp(pool->config->name, config->name) == 0 && is_same_user(&pool->of->server.user, &of->server.user) &&
           (config->kind == POOL_SERVERS || strcmp(pool->config->identity, config->identity) == 0);
}

static struct pool *bind_pool(struct pools *pools, const struct config *of, const struct config_pool *config)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && is_same_pool(pools->at[i], of, config)) {
            pools->at[i]->n_bindings++;
            return pools->at[i];
        }
    if (config->kind != POOL_SERVERS) {
        struct pool *made = add_processes(pools, of, config);

        if (made != NULL)
            made->proof = PROOF_WANTED;
        return made;
    }
    struct pool *pool = add_pool(pools, SLOT_CONNECTION, of);
    if (pool == NULL)
        return NULL;
    pool->config = config;
    pool->proof = PROOF_WANTED;
    pool->n_free = pool->capacity = config->n_connections;
    return pool;
}

static bool is_same_route(const struct pool *pool, const struct config *of, const struct config_route *route,
                          const struct pool *base)
{
    return pool->route != NULL && !pool->is_ending && pool->base == base && pool->route->identity != NULL &&
           strcmp(pool->route->identity, route->identity) == 0 &&
           strcmp(pool->route->site->identity, route->site->identity) == 0 &&
           is_same_user(&pool->of->server.user, &of->server.user);
}

static bool has_group(const struct config_route *route)
{
    return route->cgroup.memory != 0 || route->cgroup.pids != 0 || route->cgroup.cpu != 0;
}

static struct pool *bind_route(struct pools *pools, const struct config *of, const struct config_route *route,
                               struct pool *base)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && is_same_route(pools->at[i], of, route, base)) {
            pools->at[i]->n_bindings++;
            return pools->at[i];
        }
    if (has_group(route) && pools->has_committed) {
        log_error("route %s: control groups are made when the server starts; restart it", route->text);
        return NULL;
    }
    struct pool *pool = add_pool(pools, route->gateway == GATEWAY_CGI ? SLOT_RUN : SLOT_NONE, of);
    if (pool == NULL)
        return NULL;
    pool->route = route;
    pool->base = base;
    pool->proof = PROOF_WANTED;
    if (route->gateway != GATEWAY_CGI)
        return pool;
    pool->group = has_group(route) ? route->index : UINT_MAX;
    pool->n_free = pool->capacity = route->max_running;
    pool->env = environ_make(&route->env, &route->pass_env, false);
    int error = runs_prepare(pool);
    if (error != 0)
        log_error("route %s: directory %s cannot be opened: %s", route->text, route_directory(route), strerror(-error));
    return pool;
}

/* Gives up what was bound before the failure at `n`. */
static int fail_binding(struct pools *pools, struct binding *binding, size_t n, bool is_full)
{
    if (is_full)
        log_error("more than %d pools, routes and scripts at once", SCOREBOARD_POOLS);
    while (n-- > 0)
        pool_release(pools->at[binding->numbers[n]]);
    free(binding->numbers);
    binding->numbers = NULL;
    return -1;
}

int pools_bind(struct pools *pools, const struct config *config, struct binding *binding_out)
{
    size_t n_pools = config->n_pools, n = n_pools + config->n_routes;

    *binding_out = (struct binding){config, memory_zeroed(n + 1, sizeof *binding_out->numbers)};
    for (size_t i = 0; i < n; i++) {
        const struct config_route *route = i < n_pools ? NULL : config->routes[i - n_pools];
        struct pool *base =
            route != NULL && route->pool != NULL ? pools->at[binding_out->numbers[route->pool->index]] : NULL;
        struct pool *pool =
            route != NULL ? bind_route(pools, config, route, base) : bind_pool(pools, config, config->pools[i]);

        if (pool == NULL)
            return fail_binding(pools, binding_out, i, route == NULL || !has_group(route));
        binding_out->numbers[i] = pool->number;
        if (pool->proof == PROOF_WANTED && pool->of == config)
            show_new(pool);
    }
    return 0;
}

/* It goes on, as the new configuration sets it. */
static void set_anew(struct pool *pool, const struct config *of, const struct config_pool *config,
                     const struct config_route *route)
{
    pool->of = of;
    pool->config = config;
    pool->route = route;
    if (config == NULL)
        return;
    if (pool->kind == SLOT_PROCESS && config->kind != POOL_SCRIPTS)
        pool->capacity = config->max_children;
    else if (pool->kind == SLOT_CONNECTION)
        pool_set_capacity(pool, config->n_connections);
}

static void commit(struct pool *pool)
{
    pool->proof = PROOF_NONE;
    proof_finish(pool);
    pool_show(pool);
    if (pool->kind == SLOT_PROCESS)
        supply_decide(pool);
}

static void commit_scripts(struct pools *pools, const struct config *of, const struct config_pool *config,
                           const struct pool *base)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];

        if (pool == NULL || pool->script == NULL || pool->base != base || pool->is_ending)
            continue;
        pool->of = of;
        pool->config = config;
        pool->capacity = config->max_children;
        commit(pool);
    }
}

void pools_commit(struct pools *pools, const struct binding *binding)
{
    const struct config *config = binding->config;

    pools->has_committed = true;
    for (unsigned i = 0; i < pools->n; i++) /* those that are not in it are seen to be old */
        if (pools->at[i] != NULL)
            pool_board(pools->at[i])->is_current = false;
    for (size_t i = 0; i < config->n_pools + config->n_routes; i++) {
        struct pool *pool = pools->at[binding->numbers[i]];
        const struct config_pool *own = i < config->n_pools ? config->pools[i] : NULL;

        if (pool->of != config)
            set_anew(pool, config, own, own == NULL ? config->routes[i - config->n_pools] : NULL);
        commit(pool);
        if (own != NULL && own->kind == POOL_SCRIPTS)
            commit_scripts(pools, config, own, pool);
    }
}

/* Scripts that only fronts which are gone have asked for, and that have no process: there is room for others. */
static void forget_scripts(struct pools *pools)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];
        bool is_asked_for = false;

        if (pool == NULL || pool->script == NULL || pool->is_ending || pool->n_processes > 0)
            continue;
        for (unsigned front = 0; front < LENDER_FRONTS; front++)
            is_asked_for |= pool->lender.shares[front].is_here;
        if (!is_asked_for)
            pool_release(pool);
    }
}

void pools_unbind(struct pools *pools, struct binding *binding)
{
    size_t n = binding->config->n_pools + binding->config->n_routes;

    for (size_t i = 0; i < n; i++)
        pool_release(pools->at[binding->numbers[i]]);
    free(binding->numbers);
    binding->numbers = NULL;
    forget_scripts(pools);
}

bool pools_refer_to(const struct pools *pools, const struct config *config)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && pools->at[i]->of == config)
            return true;
    return false;
}
