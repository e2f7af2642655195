#include "process/keeper.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/cgroup.h"
#include "process/channel.h"
#include "process/diagnose.h"
#include "process/listen.h"
#include "process/pools.h"
#include "process/spawn.h"
#include "process/users.h"
#include "process/warden.h"

enum keeper_state {
    KEEPER_RUNNING,
    KEEPER_DRAINING,
    KEEPER_ENDING,
};

enum {
    YOUNG_US = 1000000,
    LONGEST_DELAY_MS = 2000,
    DRAIN_MARGIN_MS = 2000, /* the fronts keep drain_timeout themselves; this is for one that is stuck */
};

struct front {
    struct keeper *keeper;
    unsigned number;
    pid_t pid; /* 0: not there */
    uint64_t started_us;
    unsigned failures; /* in a row: it died young */
    struct channel *channel;
    struct event *restart;
};

struct keeper {
    const struct keeper_options *options;
    const struct config *config;
    enum keeper_state state;
    struct event_base *base;
    struct event *signals[6];
    struct event *deadline;
    struct scoreboard *scoreboard;
    struct wards *wards;
    struct cgroups *cgroups; /* NULL: no route has one */
    struct programs *programs;
    struct pools *pools;
    struct front fronts[SCOREBOARD_FRONTS];
    int *listen_fds;
    int access_fd, error_fd;
    struct warden warden;
    int status;
};

static unsigned fronts_here(const struct keeper *keeper)
{
    unsigned n = 0;

    for (unsigned i = 0; i < keeper->config->server.fronts; i++)
        n += keeper->fronts[i].pid != 0;
    return n;
}

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

static void kill_fronts(struct keeper *keeper)
{
    for (unsigned i = 0; i < keeper->config->server.fronts; i++)
        if (keeper->fronts[i].pid > 0)
            kill(keeper->fronts[i].pid, SIGKILL);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    log_warning("fronts did not finish within drain_timeout; they are ended");
    kill_fronts(arg);
}

static void drain(struct keeper *keeper, bool has_deadline)
{
    struct message message = {.kind = MESSAGE_DRAIN, .n = has_deadline};
    uint64_t ms = keeper->config->server.drain_timeout_ms + DRAIN_MARGIN_MS;
    struct timeval limit = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    keeper->state = KEEPER_DRAINING;
    listen_close(&keeper->config->server.listen, keeper->listen_fds); /* the fronts close theirs */
    for (unsigned i = 0; i < keeper->config->server.fronts; i++) {
        event_del(keeper->fronts[i].restart);
        if (keeper->fronts[i].channel != NULL)
            channel_send(keeper->fronts[i].channel, &message, NULL, 0);
    }
    if (has_deadline)
        event_add(keeper->deadline, &limit);
    if (fronts_here(keeper) == 0)
        end_programs(keeper);
}

static void stop(struct keeper *keeper, bool has_deadline)
{
    if (keeper->state != KEEPER_RUNNING) { /* asked twice: at once, then */
        kill_fronts(keeper);
        programs_kill_all(keeper->programs);
        return;
    }
    log_notice("ending: requests in flight are finished first");
    drain(keeper, has_deadline);
}

/* ---- fronts ---- */

static void send_to_front(void *arg, unsigned number, const struct message *message, const int *fds, unsigned n_fds)
{
    struct keeper *keeper = arg;
    struct front *front = &keeper->fronts[number];

    if (front->channel != NULL) {
        channel_send(front->channel, message, fds, n_fds);
        return;
    }
    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
}

/* The front's end is dealt with when it is waited for; one that breaks the rules is brought to it. */
static void receive(void *arg, const struct message *message, int *fds, unsigned n_fds)
{
    struct front *front = arg;
    struct keeper *keeper = front->keeper;

    if (message != NULL && pools_receive(keeper->pools, front->number, message, fds, n_fds) == 0)
        return;
    if (message != NULL)
        log_error("front %u asks for what it may not; it is ended", front->number);
    channel_destroy(front->channel);
    front->channel = NULL;
    if (message != NULL || keeper->state == KEEPER_RUNNING)
        kill(front->pid, SIGKILL); /* else it is exiting, as it was told to */
}

/* Closes everything that a front has no business with. The kept ones are few, so one pass a gap is cheap. */
static void close_all_but(const int *kept, size_t n)
{
    for (int from = 3;;) {
        int next = INT_MAX;

        for (size_t i = 0; i < n; i++)
            if (kept[i] >= from && kept[i] < next)
                next = kept[i];
        if (next > from)
            close_range((unsigned)from, next == INT_MAX ? ~0U : (unsigned)next - 1, 0);
        if (next == INT_MAX)
            return;
        from = next + 1;
    }
}

/* In the new process: is the front to its end. What the keeper had in memory stays as it is, unused. */
static _Noreturn void be_front(struct front *front, int channel_fd)
{
    struct keeper *keeper = front->keeper;
    size_t n_listen = keeper->config->server.listen.n;
    int *kept = memory_zeroed(n_listen + 3, sizeof *kept);
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
    struct front_start start = {
        .config = keeper->config,
        .scoreboard = keeper->scoreboard,
        .number = front->number,
        .channel_fd = channel_fd,
        .listen_fds = keeper->listen_fds,
        .access_fd = keeper->access_fd,
        .error_fd = keeper->error_fd,
    };

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        signal(ours[i], SIG_DFL);
    wards_forget(keeper->wards);
    setpgid(0, 0); /* what a terminal sends is the keeper's to hear */
    for (size_t i = 0; i < n_listen; i++)
        kept[i] = keeper->listen_fds[i];
    kept[n_listen] = channel_fd;
    kept[n_listen + 1] = keeper->access_fd;
    kept[n_listen + 2] = keeper->error_fd;
    close_all_but(kept, n_listen + 3);
    free(kept);
    int status = keeper->options->front(&start);
    log_flush();
    exit(status);
}

static void restart_later(struct front *front)
{
    unsigned ms = front->failures == 0 ? 0 : 50U << (front->failures < 6 ? front->failures : 6);
    struct timeval delay = {ms / 1000, ms % 1000 * 1000};

    if (ms > LONGEST_DELAY_MS)
        delay = (struct timeval){LONGEST_DELAY_MS / 1000, 0};
    event_add(front->restart, &delay);
}

static void start_front(struct front *front)
{
    struct keeper *keeper = front->keeper;
    int fds[2];

    int error = channel_pair(fds);
    if (error == 0) {
        front->pid = spawn_self(0);
        error = front->pid < 0 ? (int)front->pid : 0;
        if (front->pid == 0)
            be_front(front, fds[1]);
        close(fds[1]);
    }
    if (error != 0) {
        log_error("front %u cannot be started: %s", front->number, strerror(-error));
        front->pid = 0;
        front->failures++;
        restart_later(front);
        return;
    }
    front->started_us = clock_us();
    front->channel = channel_create(keeper->base, fds[0], receive, front);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    struct front *front = arg;

    (void)fd, (void)what;
    if (front->keeper->state != KEEPER_RUNNING)
        return;
    start_front(front);
    if (front->channel != NULL)
        pools_front_came(front->keeper->pools, front->number);
}

static void on_front_exited(struct front *front, int status)
{
    struct keeper *keeper = front->keeper;
    char end[64];

    front->pid = 0;
    if (front->channel != NULL)
        channel_destroy(front->channel);
    front->channel = NULL;
    pools_front_left(keeper->pools, front->number);
    if (keeper->state == KEEPER_RUNNING && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CANNOT_START) {
        keeper->status = EXIT_CANNOT_START;
        drain(keeper, true);
        return;
    }
    if (keeper->state == KEEPER_RUNNING) {
        diagnose_end(end, sizeof end, status);
        log_error("front %u %s; another is started", front->number, end);
        front->failures = clock_us() - front->started_us < YOUNG_US ? front->failures + 1 : 0;
        restart_later(front);
    } else if (keeper->state == KEEPER_DRAINING && fronts_here(keeper) == 0) {
        end_programs(keeper);
    }
}

/* ---- signals ---- */

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
        unsigned i = 0;

        while (i < keeper->config->server.fronts && keeper->fronts[i].pid != pid)
            i++;
        if (i < keeper->config->server.fronts)
            on_front_exited(&keeper->fronts[i], status);
        else if (!programs_reaped(keeper->programs, pid, status, &usage))
            programs_orphan_reaped(keeper->programs, group);
    }
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    stop(arg, true);
}

static void on_quit(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    stop(arg, false);
}

/* Opens both logs by their paths: 0, or -1 after a message. */
static int open_logs(const struct config_server *server, int *access_fd, int *error_fd)
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

static void on_reopen(evutil_socket_t fd, short what, void *arg)
{
    struct keeper *keeper = arg;
    struct message message = {.kind = MESSAGE_LOGS};
    int access_fd, error_fd;

    (void)fd, (void)what;
    if (open_logs(&keeper->config->server, &access_fd, &error_fd) != 0)
        return;
    log_set(error_fd);
    close(keeper->error_fd);
    close(keeper->access_fd);
    keeper->error_fd = error_fd;
    keeper->access_fd = access_fd;
    for (unsigned i = 0; i < keeper->config->server.fronts; i++) {
        int fds[2] = {fcntl(error_fd, F_DUPFD_CLOEXEC, 3), access_fd < 0 ? -1 : fcntl(access_fd, F_DUPFD_CLOEXEC, 3)};

        send_to_front(keeper, i, &message, fds, access_fd < 0 ? 1 : 2);
    }
    log_notice("logs reopened");
}

static void catch_signals(struct keeper *keeper)
{
    static const struct {
        int number;
        event_callback_fn callback;
    } caught[] = {
        {SIGCHLD, on_child}, {SIGTERM, on_stop}, {SIGINT, on_stop},
        {SIGHUP, on_stop},   {SIGQUIT, on_quit}, {SIGUSR1, on_reopen},
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
    const struct config_user *owner = &keeper->config->server.user;
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
    users_load(keeper->config);
    if (cgroups_create(keeper->config, &keeper->cgroups) != 0)
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

static int prepare(struct keeper *keeper)
{
    const struct config_server *server = &keeper->config->server;

    if (open_logs(server, &keeper->access_fd, &keeper->error_fd) != 0)
        return -1;
    log_set(keeper->error_fd);
    keeper->listen_fds = memory_zeroed(server->listen.n, sizeof *keeper->listen_fds);
    if (listen_open(&server->listen, &server->user, keeper->listen_fds) != 0)
        return -1;
    if (prepare_children(keeper) != 0) {
        listen_close(&server->listen, keeper->listen_fds);
        return -1;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return 0;
}

static void announce(const struct keeper *keeper)
{
    const struct config_addresses *addresses = &keeper->config->server.listen;
    char text[256];

    for (size_t i = 0; i < addresses->n; i++) {
        listen_describe(keeper->listen_fds[i], &addresses->at[i], text, sizeof text);
        log_notice("listening on %s", text);
    }
    if (geteuid() == 0 && (keeper->config->server.user.name == NULL || keeper->config->server.user.uid == 0))
        log_warning("fronts and programs run as root; set user in [server]");
}

/* Starts the fronts, then what they work with. */
static void start_all(struct keeper *keeper)
{
    struct pools_options options = {
        .base = keeper->base,
        .config = keeper->config,
        .scoreboard = keeper->scoreboard,
        .socket_dir = keeper->wards->socket_dir,
        .programs = keeper->programs,
        .cgroups = keeper->cgroups,
        .is_variable = keeper->options->is_variable,
        .may_run = keeper->options->may_run,
        .send = send_to_front,
        .arg = keeper,
    };

    keeper->pools = pools_create(&options);
    for (unsigned i = 0; i < keeper->config->server.fronts; i++) {
        struct front *front = &keeper->fronts[i];

        front->keeper = keeper;
        front->number = i;
        front->restart = evtimer_new(keeper->base, on_restart, front);
    }
    for (unsigned i = 0; i < keeper->config->server.fronts; i++) {
        start_front(&keeper->fronts[i]);
        if (keeper->fronts[i].channel != NULL)
            pools_front_came(keeper->pools, i);
    }
    pools_start(keeper->pools);
}

static void free_all(struct keeper *keeper)
{
    for (unsigned i = 0; i < keeper->config->server.fronts; i++) {
        if (keeper->fronts[i].restart != NULL)
            event_free(keeper->fronts[i].restart);
        if (keeper->fronts[i].channel != NULL)
            channel_destroy(keeper->fronts[i].channel);
    }
    pools_destroy(keeper->pools);
    programs_destroy(keeper->programs);
    for (size_t i = 0; i < sizeof keeper->signals / sizeof *keeper->signals; i++)
        event_free(keeper->signals[i]);
    event_free(keeper->deadline);
    event_base_free(keeper->base);
}

int keeper_run(const struct keeper_options *options)
{
    struct keeper *keeper = memory_zeroed(1, sizeof *keeper);
    int status = EXIT_CANNOT_START;

    keeper->options = options;
    keeper->config = options->config;
    if (prepare(keeper) != 0)
        goto done;
    keeper->base = event_base_new();
    keeper->programs = programs_create(keeper->base, keeper->wards);
    keeper->deadline = evtimer_new(keeper->base, on_deadline, keeper);
    catch_signals(keeper);
    start_all(keeper);
    announce(keeper);
    event_base_dispatch(keeper->base);
    free_all(keeper);
    programs_kill_orphans(keeper->warden.pid);
    warden_dismiss(&keeper->warden);
    status = keeper->status;
    log_notice("ended");
done:
    log_flush();
    cgroups_free(keeper->cgroups);
    users_free();
    free(keeper->listen_fds);
    free(keeper);
    return status;
}
