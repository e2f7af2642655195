/*
 * Generations of the configuration: how one takes another's place without anybody waiting for it.
 *
 *     HUP          the file is read; the addresses that are new are listened on; what is new of pools gets processes
 *     coming       its fronts start, but accept nothing yet; one of them tries a process of each new pool
 *     all is well  its fronts accept, and those with the old one drain: what they have under way is finished, their
 *                  processes go to the new ones; pools that are in neither any more end theirs
 *     else         what was begun is ended, the log says why, and the old one goes on as if nothing had been
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/keeper_inside.h"
#include "process/listen.h"
#include "process/slowlog.h"
#include "process/users.h"

enum { UP_LIMIT_MS = 10000 /* for fronts to be up; processes have their pool's start_timeout */ };

/* ---- making and unmaking ---- */

static void close_logs(struct generation *of)
{
    if (of->error_fd >= 0)
        close(of->error_fd);
    if (of->access_fd >= 0)
        close(of->access_fd);
    of->error_fd = of->access_fd = -1;
}

/* Opens what the configuration needs of the system: 0, or -1 after messages with nothing left open. */
static int open_all(struct keeper *keeper, struct generation *of)
{
    const struct config_server *server = &of->config->server;
    const struct generation *before = keeper->current;
    struct listen_known known = {0};

    if (keeper_open_logs(server, &of->access_fd, &of->error_fd) != 0) {
        of->access_fd = of->error_fd = -1;
        return -1;
    }
    if (before != NULL)
        listen_know(&known, &before->config->server.listen, before->listen_fds);
    else
        listen_inherit(&known);
    of->listen_fds = memory_zeroed(server->listen.n + 1, sizeof *of->listen_fds);
    int failed = listen_open(&server->listen, &server->user, &known, of->listen_fds);
    if (before == NULL && failed == 0)
        keeper->not_taken = known; /* the server before may go on with them yet */
    else
        listen_forget(&known, before == NULL);
    if (failed == 0)
        return 0;
    free(of->listen_fds);
    of->listen_fds = NULL;
    close_logs(of);
    return -1;
}

void reload_close_listeners(struct generation *of, const struct config_addresses *kept)
{
    if (of->listen_fds != NULL)
        listen_close(&of->config->server.listen, of->listen_fds, kept);
    free(of->listen_fds);
    of->listen_fds = NULL;
}

/* No front has it any more. Its configuration stays while pools that are ending speak of it. */
static void close_all(struct keeper *keeper, struct generation *of)
{
    if (of->binding.numbers != NULL)
        pools_unbind(keeper->pools, &of->binding);
    reload_close_listeners(of, &keeper->current->config->server.listen);
    close_logs(of);
    of->state = GENERATION_GONE;
}

/* The fronts keep drain_timeout themselves; this is for one that is stuck. */
static void on_overdue(evutil_socket_t fd, short what, void *arg)
{
    const struct generation *of = arg;

    (void)fd, (void)what;
    log_warning("fronts with the configuration before did not finish within drain_timeout; they are ended");
    fronts_kill(of->keeper, of);
}

static void set_overdue(struct generation *of)
{
    uint64_t ms = of->config->server.drain_timeout_ms + DRAIN_MARGIN_MS;
    struct timeval limit = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    of->overdue = evtimer_new(of->keeper->base, on_overdue, of);
    event_add(of->overdue, &limit);
}

static void free_generation(struct generation *of)
{
    if (of->overdue != NULL)
        event_free(of->overdue);
    config_free(of->config);
    free(of);
}

/* Frees what was still spoken of when it was gone. */
static void collect(struct keeper *keeper)
{
    struct generation *of, *next;

    for (of = TAILQ_FIRST(&keeper->generations); of != NULL; of = next) {
        next = TAILQ_NEXT(of, next);
        if (of->state != GENERATION_GONE || of->n_fronts > 0 || pools_refer_to(keeper->pools, of->config))
            continue;
        TAILQ_REMOVE(&keeper->generations, of, next);
        free_generation(of);
    }
}

static struct generation *make(struct keeper *keeper, struct config *config)
{
    struct generation *of = memory_zeroed(1, sizeof *of);

    of->keeper = keeper;
    of->config = config;
    of->number = ++keeper->n_generations;
    of->state = GENERATION_COMING;
    of->access_fd = of->error_fd = -1;
    TAILQ_INSERT_TAIL(&keeper->generations, of, next);
    return of;
}

struct generation *reload_first(struct keeper *keeper, struct config *config)
{
    struct generation *of = make(keeper, config);

    if (open_all(keeper, of) != 0)
        return NULL;
    keeper->current = of;
    if (upgrade_is_heir(&keeper->upgrade))
        keeper->coming = of;
    else
        of->state = GENERATION_CURRENT;
    return of;
}

void reload_end(struct keeper *keeper, struct generation *of)
{
    if (of->overdue != NULL)
        event_del(of->overdue);
    if (of->state == GENERATION_OLD)
        log_notice("the fronts with the configuration before have ended");
    if (of != keeper->coming && of != keeper->current) /* an heir's that is refused stays to the end */
        close_all(keeper, of);
    collect(keeper);
}

/* ---- the coming one ---- */

static void take_step_soon(struct keeper *keeper)
{
    event_active(keeper->coming_step, EV_TIMEOUT, 0);
}

void reload_fail(struct keeper *keeper, const char *why)
{
    if (keeper->coming == NULL || keeper->coming_failure[0] != '\0')
        return;
    snprintf(keeper->coming_failure, sizeof keeper->coming_failure, "%s", why);
    take_step_soon(keeper);
}

void reload_front_up(struct keeper *keeper, struct generation *of)
{
    of->n_up++;
    if (of != keeper->coming || of->n_up < of->config->server.fronts)
        return;
    event_del(keeper->coming_limit);
    pools_prove(keeper->pools, &of->binding);
}

void reload_proven(void *arg, const char *why)
{
    struct keeper *keeper = arg;

    if (keeper->coming == NULL)
        return;
    keeper->coming->is_proven = why == NULL;
    if (why != NULL)
        reload_fail(keeper, why);
    take_step_soon(keeper);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    reload_fail(arg, "its fronts are not ready after 10 s");
}

void reload_limit(struct keeper *keeper)
{
    static const struct timeval limit = {UP_LIMIT_MS / 1000, 0};

    event_add(keeper->coming_limit, &limit);
}

static void refuse(struct keeper *keeper)
{
    struct generation *of = keeper->coming;

    event_del(keeper->coming_limit);
    keeper->coming = NULL;
    if (of == keeper->current) { /* an heir */
        log_error("not taking over: %s", keeper->coming_failure);
        keeper->status = EXIT_CANNOT_START;
        if (keeper->state == KEEPER_RUNNING)
            keeper_drain(keeper, DRAIN_SOON);
        return;
    }
    log_error("reload refused: %s; the configuration before goes on", keeper->coming_failure);
    fronts_kill(keeper, of);
    if (of->n_fronts == 0)
        reload_end(keeper, of);
}

static void commit(struct keeper *keeper)
{
    struct generation *of = keeper->coming, *before = keeper->current;

    keeper->coming = NULL;
    keeper->current = of;
    of->state = GENERATION_CURRENT;
    if (before != of)
        before->state = GENERATION_OLD;
    keeper->scoreboard->generation = of->number;
    log_set(of->error_fd);
    slowlog_reopen();
    fronts_join(keeper, of);
    pools_commit(keeper->pools, &of->binding);
    fronts_tell(keeper, of, MESSAGE_ACCEPT, 0);
    if (before == of) {
        upgrade_take_charge(keeper);
        return;
    }
    reload_close_listeners(before, &of->config->server.listen);
    fronts_drain(keeper, before, DRAIN_GENTLY);
    set_overdue(before);
    log_notice("reloaded: %s", of->config->file);
    if (before->n_fronts == 0)
        reload_end(keeper, before);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    struct keeper *keeper = arg;

    (void)fd, (void)what;
    if (keeper->coming == NULL)
        return;
    if (keeper->coming_failure[0] != '\0')
        refuse(keeper);
    else if (keeper->coming->is_proven)
        commit(keeper);
    if (keeper->coming == NULL && keeper->wants_reload)
        reload_begin(keeper);
    if (keeper->coming == NULL && keeper->upgrade.is_wanted)
        upgrade_begin(keeper);
}

/* ---- HUP ---- */

/* What is wrong, a line each, into the log. */
static struct config *load(struct keeper *keeper)
{
    char *text = NULL;
    size_t len;
    FILE *errors = open_memstream(&text, &len);

    if (errors == NULL)
        return NULL;
    struct config *config = keeper->options->load(keeper->options->arg, errors);
    fclose(errors);
    for (char *line = text, *end; config == NULL && (end = strchr(line, '\n')) != NULL; line = end + 1)
        log_error("%.*s", (int)(end - line), line);
    free(text);
    return config;
}

static bool is_same_user(const struct config *a, const struct config *b)
{
    const struct config_user *x = &a->server.user, *y = &b->server.user;

    return (x->name == NULL) == (y->name == NULL) && x->uid == y->uid && x->gid == y->gid;
}

/* Starts what the coming generation needs: 0, or -1 with reload_fail() called or messages written. */
static int start_coming(struct keeper *keeper, struct generation *of)
{
    if (!is_same_user(of->config, keeper->current->config)) {
        log_error("user in [server] cannot be another while the server runs; restart it");
        return -1;
    }
    if (open_all(keeper, of) != 0)
        return -1;
    users_load(of->config);
    if (pools_bind(keeper->pools, of->config, &of->binding) != 0)
        return -1;
    if (fronts_start(keeper, of) != 0) {
        log_error("too many fronts are still draining; try again when they are done");
        return -1;
    }
    reload_limit(keeper);
    return 0;
}

void reload_begin(struct keeper *keeper)
{
    keeper->wants_reload = keeper->coming != NULL || keeper->upgrade.heir != 0;
    if (keeper->wants_reload || keeper->state != KEEPER_RUNNING)
        return;
    collect(keeper);
    struct config *config = load(keeper);
    if (config == NULL) {
        log_error("reload refused: the configuration has errors; the one before goes on");
        return;
    }
    keeper->coming = make(keeper, config);
    keeper->coming_failure[0] = '\0';
    if (start_coming(keeper, keeper->coming) != 0)
        reload_fail(keeper, "see above");
}

void reload_prepare(struct keeper *keeper)
{
    keeper->coming_step = evtimer_new(keeper->base, on_step, keeper);
    keeper->coming_limit = evtimer_new(keeper->base, on_limit, keeper);
}

/* Before the pools are destroyed, which were bound. */
void reload_finish(struct keeper *keeper)
{
    struct generation *of;

    listen_forget(&keeper->not_taken, true);
    if (keeper->coming_step != NULL) {
        event_free(keeper->coming_step);
        event_free(keeper->coming_limit);
    }
    while ((of = TAILQ_FIRST(&keeper->generations)) != NULL) {
        TAILQ_REMOVE(&keeper->generations, of, next);
        free(of->binding.numbers);
        free(of->listen_fds);
        free_generation(of);
    }
}
