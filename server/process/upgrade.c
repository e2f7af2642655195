#include "process/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/environ.h"
#include "process/keeper_inside.h"
#include "process/listen.h"
#include "process/spawn.h"

#define LINE_VARIABLE  "GATEHOUSE_LINE"
#define READY_VARIABLE "GATEHOUSE_READY"

enum { HEIR_LIMIT_S = 30 /* to be ready, beyond the longest start_timeout */ };

/* ---- what the server before has left ---- */

static int take_descriptor(const char *variable)
{
    const char *text = getenv(variable);
    long fd = text != NULL ? strtol(text, NULL, 10) : -1;

    unsetenv(variable);
    return fd > 2 && fd <= INT_MAX && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0 ? (int)fd : -1;
}

void upgrade_prepare(struct upgrade *upgrade)
{
    *upgrade = (struct upgrade){.stem_fd = -1};
    ssize_t len = readlink("/proc/self/exe", upgrade->path, sizeof upgrade->path - 1);
    upgrade->path[len > 0 ? len : 0] = '\0';
    upgrade->line_fd = take_descriptor(LINE_VARIABLE);
    upgrade->ready_fd = take_descriptor(READY_VARIABLE);
}

bool upgrade_is_heir(const struct upgrade *upgrade)
{
    return upgrade->ready_fd >= 0;
}

/* The stem writes nothing: this is its end. */
static void on_line(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    _exit(1); /* the warden cleans up */
}

void upgrade_watch(struct keeper *keeper)
{
    struct upgrade *upgrade = &keeper->upgrade;

    if (upgrade->line_fd < 0)
        return;
    upgrade->line = event_new(keeper->base, upgrade->line_fd, EV_READ, on_line, keeper);
    event_add(upgrade->line, NULL);
}

void upgrade_finish(struct keeper *keeper)
{
    if (keeper->upgrade.line != NULL)
        event_free(keeper->upgrade.line);
    if (keeper->upgrade.ready != NULL)
        event_free(keeper->upgrade.ready);
    keeper->upgrade.line = keeper->upgrade.ready = NULL;
}

void upgrade_take_charge(struct keeper *keeper)
{
    struct upgrade *upgrade = &keeper->upgrade;
    pid_t self = getpid();

    if (upgrade->ready_fd < 0)
        return;
    listen_remove(&keeper->not_taken);
    listen_forget(&keeper->not_taken, true);
    if (upgrade->line_fd >= 0)
        (void)!write(upgrade->line_fd, &self, sizeof self);
    (void)!write(upgrade->ready_fd, "", 1);
    close(upgrade->ready_fd);
    upgrade->ready_fd = -1;
}

bool upgrade_shares_sockets(const struct upgrade *upgrade)
{
    return upgrade->is_handed_over || upgrade_is_heir(upgrade);
}

/* ---- an heir ---- */

static void hand_over(struct keeper *keeper)
{
    struct upgrade *upgrade = &keeper->upgrade;

    log_notice("process %d is in charge now; requests in flight are finished here", (int)upgrade->heir);
    upgrade->is_handed_over = true;
    upgrade->in_charge = upgrade->heir;
    if (keeper->wants_reload)
        kill(upgrade->heir, SIGHUP);
    if (keeper->state == KEEPER_RUNNING)
        keeper_drain(keeper, DRAIN_GENTLY);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct keeper *keeper = arg;
    struct upgrade *upgrade = &keeper->upgrade;
    char byte;
    ssize_t n = read(fd, &byte, 1);

    if (n < 0 && (errno == EAGAIN || errno == EINTR) && !(what & EV_TIMEOUT))
        return;
    if (n < 0)
        kill(upgrade->heir, SIGKILL);
    event_free(upgrade->ready);
    upgrade->ready = NULL;
    close(fd);
    if (n > 0) {
        hand_over(keeper);
        return;
    }
    log_error("the new server (process %d) has not come up; this one goes on", (int)upgrade->heir);
    upgrade->heir = 0;
    if (keeper->wants_reload)
        reload_begin(keeper);
}

static char **make_environment(const char *listen, int line_fd, int ready_fd)
{
    size_t n = 0;
    char text[64];

    while (environ[n] != NULL)
        n++;
    char **made = memory_zeroed(n + 4, sizeof *made);
    for (size_t i = 0; i < n; i++)
        made[i] = memory_copy(environ[i], strlen(environ[i]));
    made[n++] = memory_copy(listen, strlen(listen));
    snprintf(text, sizeof text, LINE_VARIABLE "=%d", line_fd);
    made[n++] = memory_copy(text, strlen(text));
    snprintf(text, sizeof text, READY_VARIABLE "=%d", ready_fd);
    made[n] = memory_copy(text, strlen(text));
    return made;
}

/* The first server makes the line; heirs have it. Returns the end for the next heir, or -errno. */
static int open_line(struct upgrade *upgrade, int *own_out)
{
    int fds[2];

    *own_out = -1;
    if (upgrade->line_fd >= 0)
        return upgrade->line_fd;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
        return -errno;
    if (upgrade->stem_fd >= 0)
        close(upgrade->stem_fd); /* of an heir that has failed */
    upgrade->stem_fd = fds[0];
    *own_out = fds[1];
    return fds[1];
}

/* Its fronts and its processes have limits of their own; this is for one that is stuck. */
static struct timeval heir_limit(const struct config *config)
{
    uint64_t ms = 0;

    for (size_t i = 0; i < config->n_pools; i++)
        if (config->pools[i]->start_timeout_ms > ms)
            ms = config->pools[i]->start_timeout_ms;
    return (struct timeval){(time_t)(ms / 1000) + HEIR_LIMIT_S, 0};
}

static int start_heir(struct keeper *keeper)
{
    struct upgrade *upgrade = &keeper->upgrade;
    const struct config_addresses *addresses = &keeper->current->config->server.listen;
    size_t room = 64 + addresses->n * (PATH_MAX + 16), n = addresses->n;
    int ready[2], own_line, line = open_line(upgrade, &own_line);

    if (line < 0)
        return line;
    if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) != 0) {
        int error = -errno;

        if (own_line >= 0)
            close(own_line);
        return error;
    }
    char *listen = memory_zeroed(room, 1);
    int *fds = memory_zeroed(n + 2, sizeof *fds);
    listen_bequeath(addresses, keeper->current->listen_fds, listen, room);
    memcpy(fds, keeper->current->listen_fds, n * sizeof *fds);
    fds[n] = line;
    fds[n + 1] = ready[1];
    char **envp = make_environment(listen, line, ready[1]);
    pid_t pid = spawn_heir(upgrade->path, keeper->options->argv, envp, fds, n + 2);
    environ_free(envp);
    free(listen);
    free(fds);
    close(ready[1]);
    if (own_line >= 0)
        close(own_line);
    if (pid < 0) {
        close(ready[0]);
        return (int)pid;
    }
    upgrade->heir = pid;
    upgrade->ready = event_new(keeper->base, ready[0], EV_READ | EV_PERSIST, on_ready, keeper);
    struct timeval limit = heir_limit(keeper->current->config);
    event_add(upgrade->ready, &limit);
    return 0;
}

void upgrade_begin(struct keeper *keeper)
{
    struct upgrade *upgrade = &keeper->upgrade;

    upgrade->is_wanted = keeper->coming != NULL;
    if (upgrade->is_wanted || upgrade->heir != 0 || keeper->state != KEEPER_RUNNING)
        return;
    if (keeper->cgroups != NULL) {
        log_error("a server with control groups cannot be replaced while it runs; restart it");
        return;
    }
    int error = start_heir(keeper);
    if (error != 0)
        log_error("%s cannot be started: %s", upgrade->path, strerror(-error));
    else
        log_notice("starting %s anew, as process %d", upgrade->path, (int)upgrade->heir);
}

void upgrade_cancel(const struct upgrade *upgrade)
{
    if (upgrade->heir != 0)
        kill(upgrade->heir, SIGTERM);
}

/* ---- the stem ---- */

/* Who is in charge, as the latest has said. */
static void read_line(struct upgrade *upgrade)
{
    pid_t pid;

    while (upgrade->stem_fd >= 0 && read(upgrade->stem_fd, &pid, sizeof pid) == sizeof pid)
        if (pid > 1)
            upgrade->in_charge = pid;
}

bool upgrade_pass_on(struct upgrade *upgrade, int number)
{
    if (!upgrade->is_handed_over || upgrade->has_ended)
        return false;
    read_line(upgrade);
    kill(upgrade->in_charge, number);
    return true;
}

static int exit_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool upgrade_reaped(struct upgrade *upgrade, pid_t pid, int status)
{
    read_line(upgrade);
    if (!upgrade->is_handed_over || pid != upgrade->in_charge)
        return false;
    upgrade->has_ended = true;
    upgrade->end_status = exit_status(status);
    return true;
}

/* True: the one in charge has ended, as *status_out tells. */
static bool reap(struct upgrade *upgrade, int *status_out)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        read_line(upgrade);
        *status_out = exit_status(status);
        if (pid == upgrade->in_charge)
            return true;
    }
    return pid < 0 && errno == ECHILD; /* another, which was draining, has waited for it, and has ended like it */
}

static bool is_stem(const struct upgrade *upgrade)
{
    return upgrade->is_handed_over && upgrade->line_fd < 0;
}

static sigset_t signals(void)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaddset(&set, ours[i]);
    return set;
}

void upgrade_hold_signals(const struct upgrade *upgrade)
{
    sigset_t set = signals();

    if (is_stem(upgrade))
        sigprocmask(SIG_BLOCK, &set, NULL);
}

int upgrade_stay(struct upgrade *upgrade, int status)
{
    struct signalfd_siginfo info;
    sigset_t set = signals();

    if (upgrade->has_ended)
        return upgrade->end_status;
    if (!is_stem(upgrade))
        return status;
    prctl(PR_SET_NAME, "gatehouse-stem");
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    status = EXIT_CANNOT_START;
    while (fd >= 0 && !reap(upgrade, &status))
        if (read(fd, &info, sizeof info) == sizeof info && info.ssi_signo != SIGCHLD)
            upgrade_pass_on(upgrade, (int)info.ssi_signo);
    return status;
}
