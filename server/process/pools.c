#include "process/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/channel.h"
#include "process/pools_inside.h"

void pool_tell(struct pool *pool, unsigned front, struct message *message)
{
    const struct pools_options *options = &pool->all->options;

    message->pool = pool->number;
    options->send(options->arg, front, message, NULL, 0);
}

void pool_lend_process(struct pool *pool, struct process *process)
{
    const struct pools_options *options = &pool->all->options;
    struct message message = {
        .kind = MESSAGE_LOAN,
        .pool = pool->number,
        .id = process->id,
        .n = process->program.index,
        .pid = process->program.pid,
    };
    int front = lender_next(&pool->lender);

    if (front < 0 || !program_is_running(&process->program))
        return;
    int errors = fcntl(process->errors_fd, F_DUPFD_CLOEXEC, 3);
    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s/%u", options->socket_dir, process->id);
    process->holder = front;
    lender_lent(&pool->lender, (unsigned)front);
    options->send(options->arg, (unsigned)front, &message, &errors, errors >= 0 ? 1 : 0);
}

static void lend_plain(struct pool *pool)
{
    unsigned lent[LENDER_FRONTS] = {0};

    for (; pool->n_free > 0; pool->n_free--) {
        int front = lender_next(&pool->lender);

        if (front < 0)
            break;
        lender_lent(&pool->lender, (unsigned)front);
        lent[front]++;
    }
    for (unsigned front = 0; front < LENDER_FRONTS; front++) {
        struct message message = {.kind = MESSAGE_LOAN, .n = lent[front]};

        if (lent[front] > 0)
            pool_tell(pool, front, &message);
    }
}

void pool_free_slots(struct pool *pool, unsigned n)
{
    pool->n_free += n;
    lend_plain(pool);
}

static void lend_free(struct pool *pool)
{
    struct process *process;

    if (pool->kind != SLOT_PROCESS) {
        lend_plain(pool);
        return;
    }
    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->holder == NO_HOLDER)
        pool_lend_process(pool, process);
}

void pool_note_set_id(struct pool *pool, const struct spawn *spawn)
{
    struct stat about;

    if (!spawn->no_new_privs || pool->has_said_set_id || stat(spawn->program, &about) != 0)
        return;
    if ((about.st_mode & (S_ISUID | S_ISGID)) == 0)
        return;
    pool->has_said_set_id = true;
    log_warning("%s %s: %s is %s, which has no effect here; if it is to have one, set no_new_privs = off",
                pool->route != NULL ? "route" : "pool", pool->route != NULL ? pool->route->text : pool->config->name,
                spawn->program, about.st_mode & S_ISUID ? "set-user-ID" : "set-group-ID");
}

int pool_check_script(const struct pool *pool, int dir_fd, const char *script)
{
    struct stat about;

    if (!pool->all->options.may_run(pool->route, span_of(script)))
        return -EACCES;
    int fd = beneath_open(dir_fd, script, pool->route->site->symlinks, O_PATH);
    if (fd < 0)
        return fd;
    int error = fstat(fd, &about) != 0 ? -errno : S_ISREG(about.st_mode) ? 0 : -EACCES;
    close(fd);
    return error;
}

static struct pool *add_pool(struct pools *pools, enum slot_kind kind)
{
    struct pool *pool = memory_zeroed(1, sizeof *pool);

    pool->all = pools;
    pool->number = pools->n;
    pool->kind = kind;
    TAILQ_INIT(&pool->processes);
    pool->dir_fd = -1;
    TAILQ_INIT(&pool->runs);
    pools->at = memory_resize(pools->at, (pools->n + 1) * sizeof *pools->at);
    pools->at[pools->n++] = pool;
    return pool;
}

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

static void add_configured(struct pools *pools, const struct config_pool *config)
{
    struct pool *pool = add_pool(pools, config->kind == POOL_SERVERS ? SLOT_CONNECTION : SLOT_PROCESS);

    pool->config = config;
    if (config->kind == POOL_SERVERS) {
        pool->capacity = config->max_connections * (unsigned)config->servers.n;
        return;
    }
    pool->capacity = config->kind == POOL_MANAGED ? config->max_children : 0;
    pool->env = process_environment(config);
    processes_prepare(pool);
}

static void add_route(struct pools *pools, const struct config_route *route)
{
    struct pool *pool = add_pool(pools, SLOT_RUN);

    pool->route = route;
    if (route->gateway != GATEWAY_CGI)
        return;
    pool->capacity = route->max_running;
    pool->env = environ_make(&route->env, &route->pass_env, false);
    int error = runs_prepare(pool);
    if (error != 0)
        log_error("route %s: directory %s cannot be opened: %s", route->text, route_directory(route), strerror(-error));
}

struct pools *pools_create(const struct pools_options *options)
{
    struct pools *pools = memory_zeroed(1, sizeof *pools);

    pools->options = *options;
    for (size_t i = 0; i < options->config->n_pools; i++)
        add_configured(pools, options->config->pools[i]);
    for (size_t i = 0; i < options->config->n_routes; i++)
        add_route(pools, options->config->routes[i]);
    return pools;
}

void pools_destroy(struct pools *pools)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];

        if (pool->next_try != NULL)
            event_free(pool->next_try);
        if (pool->dir_fd >= 0)
            close(pool->dir_fd);
        if (pool->env != NULL)
            environ_free(pool->env);
        free(pool->script);
        free(pool);
    }
    free(pools->at);
    free(pools);
}

void pools_start(struct pools *pools)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];

        if (pool->kind == SLOT_PROCESS) {
            processes_want(pool);
            continue;
        }
        pool->n_free = pool->capacity;
        lend_plain(pool);
    }
}

void pools_front_came(struct pools *pools, unsigned front)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];

        pool->lender.shares[front] = (struct lender_share){.is_here = true};
        lend_free(pool);
    }
}

void pools_front_left(struct pools *pools, unsigned front)
{
    for (unsigned i = 0; i < pools->n; i++) {
        struct pool *pool = pools->at[i];
        struct lender_share *share = &pool->lender.shares[front];

        if (pool->kind == SLOT_PROCESS)
            processes_front_left(pool, front);
        else
            pool->n_free += share->loans - pool->n_running[front]; /* those slots are free when the runs have ended */
        if (pool->kind == SLOT_RUN)
            runs_front_left(pool, front);
        *share = (struct lender_share){0};
        lend_free(pool);
    }
}

static void recall_for_waiting(struct pool *pool)
{
    struct message message = {.kind = MESSAGE_RECALL, .n = 1};
    int front;

    while ((front = lender_recall(&pool->lender)) >= 0)
        pool_tell(pool, (unsigned)front, &message);
}

static int take_back(struct pool *pool, unsigned front, const struct message *message)
{
    struct lender_share *share = &pool->lender.shares[front];

    if (pool->kind == SLOT_PROCESS)
        return processes_return(pool, front, message->id);
    unsigned busy = pool->kind == SLOT_RUN ? pool->n_running[front] : 0;
    if (message->n > share->loans || share->loans - message->n < busy)
        return -EPROTO;
    for (unsigned i = 0; i < message->n; i++)
        lender_returned(&pool->lender, front);
    pool->n_free += message->n;
    lend_plain(pool);
    return 0;
}

static struct pool *find_script(const struct pools *pools, const struct config_pool *config, const char *path)
{
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i]->script != NULL && pools->at[i]->config == config && strcmp(pools->at[i]->script, path) == 0)
            return pools->at[i];
    return NULL;
}

static struct pool *open_script(struct pools *pools, const struct config_route *route, const char *path)
{
    struct pool *pool = find_script(pools, route->pool, path);
    size_t configured = pools->options.config->n_pools + pools->options.config->n_routes;

    if (pool != NULL || pools->n - configured >= POOLS_MAX_SCRIPTS)
        return pool;
    pool = add_pool(pools, SLOT_PROCESS);
    pool->config = route->pool;
    pool->script = memory_copy(path, strlen(path));
    pool->capacity = route->pool->max_children;
    pool->env = process_environment(route->pool);
    processes_prepare(pool);
    for (unsigned front = 0; front < LENDER_FRONTS; front++)
        pool->lender.shares[front].is_here = pools->at[0]->lender.shares[front].is_here;
    return pool;
}

/* OPEN: `pool` is the route's number, the text its script. */
static int open_pool(struct pool *of_route, unsigned front, const struct message *message)
{
    const struct config_route *route = of_route->route;
    struct message answer = {.kind = MESSAGE_REFUSED, .id = message->id};
    char path[PATH_MAX];

    if (of_route->kind != SLOT_RUN || route->gateway != GATEWAY_FASTCGI || route->pool->kind != POOL_SCRIPTS)
        return -EPROTO;
    int dir_fd = open(route_directory(route), O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = dir_fd >= 0 ? pool_check_script(of_route, dir_fd, message->text) : -errno;
    if (dir_fd >= 0)
        close(dir_fd);
    if (error == 0 && snprintf(path, sizeof path, "%s/%s", route_directory(route), message->text) >= (int)sizeof path)
        error = -ENAMETOOLONG;
    struct pool *pool = error == 0 ? open_script(of_route->all, route, path) : NULL;
    if (pool != NULL) {
        answer.kind = MESSAGE_OPENED;
        answer.n = pool->number;
        pool_tell(of_route, front, &answer);
        processes_want(pool);
        return 0;
    }
    answer.status = error != 0 ? -error : EAGAIN;
    answer.n = error != 0;
    answer.text_len = (size_t)snprintf(answer.text, sizeof answer.text, "%s",
                                       error != 0 ? strerror(-error) : "too many scripts have processes already");
    pool_tell(of_route, front, &answer);
    return 0;
}

static int receive(struct pool *pool, unsigned front, const struct message *message, const int *fds)
{
    int error;

    switch (message->kind) {
    case MESSAGE_WANT:
        pool->lender.shares[front].waiting = message->n;
        recall_for_waiting(pool);
        return 0;
    case MESSAGE_RETURN:
        error = take_back(pool, front, message);
        recall_for_waiting(pool); /* whoever has got it may have to pass it on when it is done */
        return error;
    case MESSAGE_RUN:
        return runs_start(pool, front, message, fds);
    case MESSAGE_END:
        return pool->kind == SLOT_PROCESS ? processes_end(pool, front, message->id)
                                          : runs_end(pool, front, message->id);
    case MESSAGE_OPEN:
        return open_pool(pool, front, message);
    default:
        return -EPROTO;
    }
}

int pools_receive(struct pools *pools, unsigned front, const struct message *message, const int *fds, unsigned n_fds)
{
    int error = message->pool < pools->n ? receive(pools->at[message->pool], front, message, fds) : -EPROTO;

    channel_close_received(fds, n_fds);
    return error;
}

void pools_stop(struct pools *pools)
{
    pools->is_stopped = true;
}
