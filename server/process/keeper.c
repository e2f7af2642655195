/* The keeper's life: its start, its signals, its end. The rest is fronts.c's, reload.c's and the pools'. */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/cgroup.h"
#include "process/keeper_inside.h"
#include "process/listen.h"
#include "process/slowlog.h"
#include "process/spawn.h"
#include "process/users.h"

/* ---- ending ---- */

static void on_all_gone(void *arg)
{
    struct keeper *keeper = arg;

    event_base_loopbreak(keeper->base);
}

static void end_programs(struct keeper *keeper)
{
    keeper->state = KEEPER_ENDING;
    event_del(keeper->deadline);
    pools_stop(keeper->pools);
    programs_end_all(keeper->programs, on_all_gone, keeper);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    log_warning("fronts did not finish within drain_timeout; they are ended");
    fronts_kill(arg, NULL);
}

void keeper_drain(struct keeper *keeper, enum drain how)
{
    uint64_t ms = keeper->current->config->server.drain_timeout_ms + DRAIN_MARGIN_MS;
    struct timeval limit = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};
    const struct config_addresses *heir;
    struct generation *of;

    keeper->state = KEEPER_DRAINING;
    keeper->scoreboard->is_draining = 1;
    reload_fail(keeper, "the server is ending");
    heir = upgrade_shares_sockets(&keeper->upgrade) ? &keeper->current->config->server.listen : NULL;
    TAILQ_FOREACH(of, &keeper->generations, next)
    reload_close_listeners(of, heir);
    TAILQ_FOREACH(of, &keeper->generations, next)
    fronts_drain(keeper, of, how);
    if (how != DRAIN_ALL)
        event_add(keeper->deadline, &limit);
    keeper_front_gone(keeper);
}

void keeper_front_gone(struct keeper *keeper)
{
    if (keeper->state == KEEPER_DRAINING && fronts_here(keeper) == 0)
        end_programs(keeper);
}

static void stop(struct keeper *keeper, enum drain how)
{
    if (keeper->state != KEEPER_RUNNING) { /* asked twice: at once, then */
        fronts_kill(keeper, NULL);
        programs_kill_all(keeper->programs);
        return;
    }
    upgrade_cancel(&keeper->upgrade);
    log_notice("ending: requests in flight are finished first");
    keeper_drain(keeper, how);
}

/* ---- signals ---- */

/* Without it, what the keeper leaves behind when it is killed would stay. */
static void replace_warden(struct keeper *keeper)
{
    close(keeper->warden.fd);
    keeper->warden = (struct warden){0, -1};
    int error = warden_start(&keeper->warden, keeper->wards, keeper->cgroups);
    log_error("the warden has died; %s", error == 0 ? "another is started" : strerror(-error));
}

/* A child to be waited for, and its process group, which nobody can tell any more once it was; 0: none. */
static pid_t next_exited(pid_t *group_out)
{
    siginfo_t info = {.si_pid = 0};

    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
        return 0;
    *group_out = getpgid(info.si_pid);
    return info.si_pid;
}

static void on_child(evutil_socket_t fd, short what, void *arg)
{
    struct keeper *keeper = arg;
    struct rusage usage;
    int status;
    pid_t pid, group;

    (void)fd, (void)what;
    while ((pid = next_exited(&group)) > 0 && wait4(pid, &status, WNOHANG, &usage) == pid) {
        if (pid == keeper->warden.pid)
            replace_warden(keeper);
        else if (!upgrade_reaped(&keeper->upgrade, pid, status) && !fronts_reaped(keeper, pid, status) &&
                 !programs_reaped(keeper->programs, pid, status, &usage))
            programs_orphan_reaped(keeper->programs, group);
    }
}

/* Is it for another, by now? */
static bool pass_on(struct keeper *keeper, evutil_socket_t number)
{
    return upgrade_pass_on(&keeper->upgrade, (int)number);
}

static void on_stop(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    if (!pass_on(arg, number))
        stop(arg, DRAIN_SOON);
}

static void on_quit(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    if (!pass_on(arg, number))
        stop(arg, DRAIN_ALL);
}

static void on_reload(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    if (!pass_on(arg, number))
        reload_begin(arg);
}

static void on_upgrade(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    if (!pass_on(arg, number))
        upgrade_begin(arg);
}

int keeper_open_logs(const struct config_server *server, int *access_fd, int *error_fd)
{
    *error_fd = sink_open(server->error_log, STDERR_FILENO);
    if (*error_fd < -1)
        log_error("error_log %s cannot be opened: %s", server->error_log, strerror(-*error_fd));
    *access_fd = sink_open(server->access_log, STDOUT_FILENO);
    if (*access_fd < -1)
        log_error("access_log %s cannot be opened: %s", server->access_log, strerror(-*access_fd));
    if (*error_fd >= -1 && *access_fd >= -1)
        return 0;
    close(*error_fd);
    close(*access_fd);
    return -1;
}

static void on_reopen(evutil_socket_t number, short what, void *arg)
{
    struct keeper *keeper = arg;
    struct generation *of = keeper->current;
    int access_fd, error_fd;

    (void)what;
    pass_on(keeper, number);
    if (keeper_open_logs(&of->config->server, &access_fd, &error_fd) != 0)
        return;
    log_set(error_fd);
    close(of->error_fd);
    if (of->access_fd >= 0)
        close(of->access_fd);
    of->error_fd = error_fd;
    of->access_fd = access_fd;
    fronts_send_logs(keeper, of);
    slowlog_reopen();
    log_notice("logs reopened");
}

static void catch_signals(struct keeper *keeper)
{
    static const struct {
        int number;
        event_callback_fn callback;
    } caught[] = {
        {SIGCHLD, on_child}, {SIGTERM, on_stop},   {SIGINT, on_stop},     {SIGHUP, on_reload},
        {SIGQUIT, on_quit},  {SIGUSR1, on_reopen}, {SIGUSR2, on_upgrade},
    };

    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
        keeper->signals[i] = evsignal_new(keeper->base, caught[i].number, caught[i].callback, keeper);
        event_add(keeper->signals[i], NULL);
    }
}

/* ---- the start ---- */

/* The private directory of the FastCGI processes' sockets. The fronts may reach what is in it, but not write to it:
 * they could put something else in a socket's place. 0 or -1 after a message. */
static int make_socket_dir(struct keeper *keeper)
{
    const struct config_user *owner = &keeper->current->config->server.user;
    const char *parent = getenv("XDG_RUNTIME_DIR");
    char *dir = keeper->wards->socket_dir;

    if (geteuid() == 0)
        parent = "/run";
    if (parent == NULL || strlen(parent) > WARDS_PATH / 2 || access(parent, W_OK) != 0)
        parent = "/tmp";
    snprintf(dir, WARDS_PATH, "%s/gatehouse-XXXXXX", parent);
    if (mkdtemp(dir) != NULL &&
        (owner->name == NULL || (chown(dir, geteuid(), owner->gid) == 0 && chmod(dir, 0710) == 0)))
        return 0;
    log_error("directory %s for sockets cannot be made: %s", dir, strerror(errno));
    return -1;
}

/* What later processes are to share, or be kept from: 0, or -1 after a message and with nothing left behind. */
static int prepare_children(struct keeper *keeper)
{
    const struct config *config = keeper->current->config;

    users_load(config);
    if (cgroups_create(config, &keeper->cgroups) != 0)
        return -1;
    keeper->scoreboard = scoreboard_create();
    keeper->wards = wards_create();
    if (make_socket_dir(keeper) != 0)
        goto fail;
    int error = warden_start(&keeper->warden, keeper->wards, keeper->cgroups);
    if (error == 0)
        return 0;
    log_error("no process for the warden: %s", strerror(-error));
    rmdir(keeper->wards->socket_dir);
fail:
    cgroups_remove(keeper->cgroups);
    return -1;
}

static int prepare(struct keeper *keeper, struct config *config)
{
    const struct generation *first = reload_first(keeper, config);

    if (first == NULL)
        return -1;
    log_set(first->error_fd);
    if (prepare_children(keeper) != 0) {
        listen_close(&config->server.listen, first->listen_fds,
                     upgrade_shares_sockets(&keeper->upgrade) ? &config->server.listen : NULL);
        return -1;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return 0;
}

static void announce(const struct keeper *keeper)
{
    const struct config_addresses *addresses = &keeper->current->config->server.listen;
    char text[256];

    for (size_t i = 0; i < addresses->n; i++) {
        listen_describe(keeper->current->listen_fds[i], &addresses->at[i], text, sizeof text);
        log_notice("listening on %s", text);
    }
    if (geteuid() == 0 &&
        (keeper->current->config->server.user.name == NULL || keeper->current->config->server.user.uid == 0))
        log_warning("fronts and programs run as root; set user in [server]");
}

/* Starts the fronts, then what they work with. 0, or -1 after a message. */
static int start_all(struct keeper *keeper)
{
    struct generation *first = keeper->current;
    struct pools_options options = {
        .base = keeper->base,
        .scoreboard = keeper->scoreboard,
        .socket_dir = keeper->wards->socket_dir,
        .programs = keeper->programs,
        .cgroups = keeper->cgroups,
        .is_variable = keeper->options->is_variable,
        .may_run = keeper->options->may_run,
        .send = fronts_send,
        .proven = reload_proven,
        .arg = keeper,
    };

    keeper->pools = pools_create(&options);
    if (pools_bind(keeper->pools, first->config, &first->binding) != 0)
        return -1;
    if (first->state == GENERATION_CURRENT)
        keeper->scoreboard->generation = first->number;
    fronts_prepare(keeper);
    if (fronts_start(keeper, first) != 0)
        return -1;
    if (first->state == GENERATION_CURRENT)
        pools_commit(keeper->pools, &first->binding);
    else
        reload_limit(keeper);
    return 0;
}

static void make_events(struct keeper *keeper)
{
    keeper->base = event_base_new();
    keeper->programs = programs_create(keeper->base, keeper->wards);
    keeper->deadline = evtimer_new(keeper->base, on_deadline, keeper);
    reload_prepare(keeper);
    upgrade_watch(keeper);
    catch_signals(keeper);
}

static void free_all(struct keeper *keeper)
{
    fronts_finish(keeper);
    pools_destroy(keeper->pools);
    slowlog_finish();
    programs_destroy(keeper->programs);
    for (size_t i = 0; i < sizeof keeper->signals / sizeof *keeper->signals; i++)
        event_free(keeper->signals[i]);
    event_free(keeper->deadline);
    reload_finish(keeper);
    upgrade_finish(keeper);
    event_base_free(keeper->base);
}

int keeper_run(const struct keeper_options *options, struct config *config)
{
    struct keeper *keeper = memory_zeroed(1, sizeof *keeper);
    int status = EXIT_CANNOT_START;

    keeper->options = options;
    TAILQ_INIT(&keeper->generations);
    upgrade_prepare(&keeper->upgrade);
    if (prepare(keeper, config) != 0)
        goto done;
    make_events(keeper);
    if (start_all(keeper) == 0) {
        announce(keeper);
        event_base_dispatch(keeper->base);
        status = keeper->status;
    }
    upgrade_hold_signals(&keeper->upgrade);
    free_all(keeper);
    programs_kill_orphans(keeper->warden.pid, keeper->upgrade.is_handed_over);
    warden_dismiss(&keeper->warden);
    log_notice("ended");
    log_flush();
    status = upgrade_stay(&keeper->upgrade, status);
done:
    if (keeper->base == NULL) /* it has not come to that */
        reload_finish(keeper);
    log_flush();
    cgroups_free(keeper->cgroups);
    users_free();
    free(keeper);
    return status;
}
