/*
 * The keeper's fronts: started by fork, watched, and, while their configuration is the current one, started again when
 * they die.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/diagnose.h"
#include "process/keeper_inside.h"
#include "process/spawn.h"

enum {
    YOUNG_US = 1000000,
    FIRST_DELAY_MS = 50,
    LONGEST_DELAY_MS = 2000,
};

unsigned fronts_here(const struct keeper *keeper)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        n += keeper->fronts[i].pid != 0;
    return n;
}

/* ---- talking ---- */

void fronts_send(void *arg, unsigned number, const struct message *message, const int *fds, unsigned n_fds)
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

void fronts_tell(struct keeper *keeper, const struct generation *of, enum message_kind kind, unsigned n)
{
    struct message message = {.kind = kind, .n = n};

    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].of == of)
            fronts_send(keeper, i, &message, NULL, 0);
}

void fronts_drain(struct keeper *keeper, const struct generation *of, enum drain how)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].of == of)
            pools_front_leaves(keeper->pools, i);
    fronts_tell(keeper, of, MESSAGE_DRAIN, how);
}

void fronts_send_logs(struct keeper *keeper, const struct generation *of)
{
    struct message message = {.kind = MESSAGE_LOGS};
    bool has_access = of->access_fd >= 0;

    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++) {
        if (keeper->fronts[i].of != of || keeper->fronts[i].channel == NULL)
            continue;
        int fds[2] = {fcntl(of->error_fd, F_DUPFD_CLOEXEC, 3),
                      has_access ? fcntl(of->access_fd, F_DUPFD_CLOEXEC, 3) : -1};
        fronts_send(keeper, i, &message, fds, has_access ? 2 : 1);
    }
}

void fronts_kill(struct keeper *keeper, const struct generation *of)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].pid > 0 && (of == NULL || keeper->fronts[i].of == of))
            kill(keeper->fronts[i].pid, SIGKILL);
}

/* The one front that there is, if it is alone, need not say what it waits for where nothing would follow from it. */
static void tell_who_is_alone(struct keeper *keeper)
{
    struct message message = {.kind = MESSAGE_ALONE, .n = fronts_here(keeper) == 1};

    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].pid != 0)
            fronts_send(keeper, i, &message, NULL, 0);
}

static void on_up(struct front *front)
{
    if (front->is_up)
        return;
    front->is_up = true;
    if (front->of->state == GENERATION_CURRENT) {
        struct message message = {.kind = MESSAGE_ACCEPT};

        fronts_send(front->keeper, front->number, &message, NULL, 0);
        return;
    }
    reload_front_up(front->keeper, front->of);
}

/* The front's end is dealt with when it is waited for; one that breaks the rules is brought to it. */
static void receive(void *arg, const struct message *message, int *fds, unsigned n_fds)
{
    struct front *front = arg;
    struct keeper *keeper = front->keeper;

    if (message != NULL && message->kind == MESSAGE_UP) {
        channel_close_received(fds, n_fds);
        on_up(front);
        return;
    }
    if (message != NULL && pools_receive(keeper->pools, front->number, message, fds, n_fds) == 0)
        return;
    if (message != NULL)
        log_error("front %u asks for what it may not; it is ended", front->number);
    channel_destroy(front->channel);
    front->channel = NULL;
    if (message != NULL || (keeper->state == KEEPER_RUNNING && front->of->state != GENERATION_OLD))
        kill(front->pid, SIGKILL); /* else it is exiting, as it was told to */
}

/* ---- starting ---- */

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
    const struct generation *of = front->of;
    size_t n_listen = of->config->server.listen.n;
    int *kept = memory_zeroed(n_listen + 3, sizeof *kept);
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
    struct front_start start = {
        .config = of->config,
        .binding = &of->binding,
        .scoreboard = keeper->scoreboard,
        .number = front->number,
        .generation = of->number,
        .channel_fd = channel_fd,
        .listen_fds = of->listen_fds,
        .access_fd = of->access_fd,
        .error_fd = of->error_fd,
    };

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        signal(ours[i], SIG_DFL);
    log_set(of->error_fd); /* the keeper writes to the one of the present generation */
    wards_forget(keeper->wards);
    setpgid(0, 0); /* what a terminal sends is the keeper's to hear */
    for (size_t i = 0; i < n_listen; i++)
        kept[i] = of->listen_fds[i];
    kept[n_listen] = channel_fd;
    kept[n_listen + 1] = of->access_fd;
    kept[n_listen + 2] = of->error_fd;
    close_all_but(kept, n_listen + 3);
    free(kept);
    int status = keeper->options->front(&start);
    log_flush();
    exit(status);
}

static void leave(struct front *front);

static void restart_later(struct front *front)
{
    unsigned ms = front->failures == 0 ? 0 : FIRST_DELAY_MS << (front->failures < 6 ? front->failures : 6);

    if (ms > LONGEST_DELAY_MS)
        ms = LONGEST_DELAY_MS;
    struct timeval delay = {ms / 1000, ms % 1000 * 1000};
    event_add(front->restart, &delay);
}

/* Its place is as new. */
static void show(const struct front *front)
{
    struct scoreboard_front *board = &front->keeper->scoreboard->fronts[front->number];

    scoreboard_clear_front(front->keeper->scoreboard, front->number);
    board->generation = front->of->number;
    board->is_draining = 0;
    board->start_us = clock_us();
}

static void start(struct front *front)
{
    struct keeper *keeper = front->keeper;
    int fds[2];

    front->is_up = false;
    show(front);
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
    keeper->scoreboard->fronts[front->number].pid = front->pid;
    front->started_us = clock_us();
    front->channel = channel_create(keeper->base, fds[0], receive, front);
    tell_who_is_alone(keeper);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    struct front *front = arg;

    (void)fd, (void)what;
    if (front->keeper->state != KEEPER_RUNNING || front->of == NULL)
        return;
    if (front->of->state != GENERATION_CURRENT && front->of != front->keeper->coming) {
        leave(front);
        return;
    }
    start(front);
    if (front->channel != NULL)
        pools_front_came(front->keeper->pools, front->number, &front->of->binding,
                         front->of->state == GENERATION_COMING);
}

int fronts_start(struct keeper *keeper, struct generation *of)
{
    unsigned n = of->config->server.fronts, n_free = 0;

    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        n_free += keeper->fronts[i].of == NULL;
    if (n_free < n)
        return -EAGAIN;
    of->n_fronts = n;
    for (unsigned i = 0; i < SCOREBOARD_FRONTS && n > 0; i++) {
        struct front *front = &keeper->fronts[i];

        if (front->of != NULL)
            continue;
        front->of = of;
        front->failures = 0;
        n--;
        if (keeper->scoreboard->n_fronts <= i)
            keeper->scoreboard->n_fronts = i + 1;
    }
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].of == of) {
            start(&keeper->fronts[i]);
            if (keeper->fronts[i].channel != NULL)
                pools_front_came(keeper->pools, i, &of->binding, of->state == GENERATION_COMING);
        }
    return 0;
}

void fronts_join(struct keeper *keeper, const struct generation *of)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].of == of && keeper->fronts[i].channel != NULL)
            pools_front_came(keeper->pools, i, &of->binding, false);
}

/* ---- ends ---- */

/* Its place is free for another. */
static void leave(struct front *front)
{
    struct keeper *keeper = front->keeper;
    struct generation *of = front->of;

    event_del(front->restart);
    front->of = NULL;
    if (--of->n_fronts == 0 && of->state != GENERATION_CURRENT)
        reload_end(keeper, of);
}

static void on_exited(struct front *front, int status)
{
    struct keeper *keeper = front->keeper;
    struct scoreboard_front *board = &keeper->scoreboard->fronts[front->number];
    bool has_refused = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CANNOT_START;
    char end[64];

    front->pid = 0;
    board->pid = 0;
    memset(&keeper->scoreboard->clients[front->number], 0, sizeof(struct client_table));
    if (front->channel != NULL)
        channel_destroy(front->channel);
    front->channel = NULL;
    pools_front_left(keeper->pools, front->number);
    diagnose_end(end, sizeof end, status);
    if (front->of->state == GENERATION_COMING) {
        if (front->of == keeper->coming) /* else it was refused before */
            reload_fail(keeper, has_refused ? "a front cannot start with it" : "a front has died with it");
        leave(front);
    } else if (front->of->state == GENERATION_OLD) {
        if (status != 0)
            log_error("front %u %s while it was draining", front->number, end);
        leave(front);
    } else if (keeper->state == KEEPER_RUNNING && has_refused) {
        keeper->status = EXIT_CANNOT_START;
        keeper_drain(keeper, DRAIN_SOON);
    } else if (keeper->state == KEEPER_RUNNING) {
        log_error("front %u %s; another is started", front->number, end);
        front->failures = clock_us() - front->started_us < YOUNG_US ? front->failures + 1 : 0;
        restart_later(front);
    }
    tell_who_is_alone(keeper);
    keeper_front_gone(keeper);
}

bool fronts_reaped(struct keeper *keeper, pid_t pid, int status)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++)
        if (keeper->fronts[i].pid == pid) {
            on_exited(&keeper->fronts[i], status);
            return true;
        }
    return false;
}

void fronts_prepare(struct keeper *keeper)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++) {
        struct front *front = &keeper->fronts[i];

        front->keeper = keeper;
        front->number = i;
        front->restart = evtimer_new(keeper->base, on_restart, front);
    }
}

void fronts_finish(struct keeper *keeper)
{
    for (unsigned i = 0; i < SCOREBOARD_FRONTS; i++) {
        event_free(keeper->fronts[i].restart);
        if (keeper->fronts[i].channel != NULL)
            channel_destroy(keeper->fronts[i].channel);
    }
}
