/*
 * FastCGI processes of ours, on the keeper's side: each has a listening socket of its own, which it gets as descriptor
 * 0 (FastCGI specification section 2.2), and is lent to a front from its start on.
 *
 * Back-off: a process that dies within a second without having served a request is a failure. After a failure one
 * process at a time is tried, later and later; once one has lived for PROOF_MS, all that is missing is started. No
 * failure is one that somebody has killed, nor one that was given a request and exited in good order: the news that it
 * has answered may come later than that of its exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/diagnose.h"
#include "process/pools_inside.h"

enum {
    YOUNG_US = 1000000,
    PROOF_MS = 500,
    QUIET_DELAY_MS = 10,
    FIRST_DELAY_MS = 50,
    LONGEST_DELAY_MS = 5000,
    FAILURES_TO_DOWN = 3,
    BACKLOG = 128,
    CAUSE = 4096, /* bytes of the text that says why a start failed */
};

static const char *program_of(const struct pool *pool)
{
    return pool->script != NULL ? pool->script : pool->config->command.at[0];
}

static void try_later(struct pool *pool, unsigned ms)
{
    struct timeval delay = {ms / 1000, ms % 1000 * 1000};

    event_add(pool->next_try, &delay);
}

/* One more process has failed, because `cause`. */
static void note_failure(struct pool *pool, const char *cause)
{
    unsigned doublings = pool->failures < 10 ? pool->failures : 10;
    unsigned delay_ms = FIRST_DELAY_MS << doublings;

    pool->failures++;
    try_later(pool, delay_ms < LONGEST_DELAY_MS ? delay_ms : LONGEST_DELAY_MS);
    if (pool->failures < FAILURES_TO_DOWN || pool->n_live > 0)
        return;
    if (!pool->is_down)
        log_error("pool %s: nothing runs: %s; trying again, later and later", pool->config->name, cause);
    pool->is_down = true;
    struct message message = {.kind = MESSAGE_DOWN};
    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%.4000s", cause);
    for (unsigned front = 0; front < LENDER_FRONTS; front++)
        if (pool->lender.shares[front].is_here)
            pool_tell(pool, front, &message);
}

static int listen_at(const struct pool *pool, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct config_user *owner = &pool->all->options.config->server.user;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    mode_t before = umask(0177);
    int failed = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(before);
    if (failed == 0 && owner->name != NULL)
        failed = lchown(path, owner->uid, owner->gid);
    if (failed == 0)
        failed = listen(fd, BACKLOG);
    if (failed == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

static void socket_path(const struct process *process, char path[SOCKET_PATH])
{
    snprintf(path, SOCKET_PATH, "%s/%u", process->pool->all->options.socket_dir, process->id);
}

/* The process holds its loan no more, and its front, if it had one, is told so. */
static void end_loan(struct process *process, int status)
{
    struct message message = {.kind = MESSAGE_GONE, .id = process->id, .status = status};
    struct pool *pool = process->pool;
    int holder = process->holder;

    if (holder == NO_HOLDER)
        return;
    process->holder = NO_HOLDER;
    lender_returned(&pool->lender, (unsigned)holder);
    pool_tell(pool, (unsigned)holder, &message);
}

enum verdict {
    VERDICT_FINE,
    VERDICT_QUIET, /* fine, most probably; but not to be repeated without end */
    VERDICT_FAILED,
};

static enum verdict judge(const struct program *program, const struct scoreboard *scoreboard, int status)
{
    bool was_killed = WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);

    if (scoreboard->processes[program->index].served > 0 || clock_us() - program->started_us >= YOUNG_US || was_killed)
        return VERDICT_FINE;
    return status == 0 && scoreboard->processes[program->index].given > 0 ? VERDICT_QUIET : VERDICT_FAILED;
}

/* One that nobody has ended has ended: what becomes of its place? */
static void replace(struct pool *pool, const struct program *program, int status, const struct rusage *usage)
{
    const struct scoreboard *scoreboard = pool->all->options.scoreboard;
    enum verdict verdict = judge(program, scoreboard, status);
    char end[160], cause[4096];

    diagnose_limited_end(end, sizeof end, status, &pool->config->rlimits, usage);
    if (status != 0 || verdict == VERDICT_FAILED)
        log_warning("pool %s: process %d %s after %u requests", pool->config->name, (int)program->pid, end,
                    (unsigned)scoreboard->processes[program->index].served);
    if (verdict == VERDICT_FAILED) {
        snprintf(cause, sizeof cause, "%s %s at once", program_of(pool), end);
        note_failure(pool, cause);
    } else if (verdict == VERDICT_QUIET) {
        if (!event_pending(pool->next_try, EV_TIMEOUT, NULL))
            try_later(pool, QUIET_DELAY_MS);
    } else {
        pool->failures = 0;
        processes_want(pool);
    }
}

static void on_exited(struct program *program, int status, const struct rusage *usage)
{
    struct process *process = (struct process *)program;
    struct pool *pool = process->pool;
    char path[SOCKET_PATH];

    socket_path(process, path);
    unlink(path);
    close(process->errors_fd);
    process->errors_fd = -1;
    end_loan(process, status);
    if (!program_is_running(program))
        return;
    pool->n_live--;
    replace(pool, program, status, usage);
}

static void on_gone(struct program *program)
{
    struct process *process = (struct process *)program;

    struct pool *pool = process->pool;

    TAILQ_REMOVE(&pool->processes, process, next);
    pool->n_processes--;
    free(process);
    processes_want(pool);
}

/* Starts the program on a listening socket; what it writes to 1 and 2 goes to errors_fd's other end. 0, or -errno after
 * the cause. */
static int spawn_on(struct pool *pool, struct process *process, int listener, char cause[CAUSE])
{
    struct pools *all = pool->all;
    char *own_argv[] = {pool->script, NULL};
    struct spawn spawn = {
        .program = program_of(pool),
        .argv = pool->script != NULL ? own_argv : pool->config->command.at,
        .envp = pool->env,
        .directory = pool->config->chdir,
        .user = pool_user(pool, &pool->config->user),
        .rlimits = &pool->config->rlimits,
        .no_new_privs = pool->config->no_new_privs,
    };
    enum spawn_stage stage = SPAWN_SOCKET;
    char directory[4096];
    int errors[2];

    if (spawn.directory == NULL && pool->script != NULL) {
        snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(pool->script, '/') - pool->script), pool->script);
        spawn.directory = directory[0] != '\0' ? directory : "/";
    }
    int error = listener < 0 ? listener : pipe2(errors, O_CLOEXEC) == 0 ? 0 : -errno;
    if (error != 0) {
        diagnose_start(cause, CAUSE, &spawn, stage, -error);
        return error;
    }
    fcntl(errors[0], F_SETFL, O_NONBLOCK);
    memcpy(spawn.fds, (int[]){listener, errors[1], errors[1]}, sizeof spawn.fds);
    process->program.on_exited = on_exited;
    process->program.on_gone = on_gone;
    pool_note_set_id(pool, &spawn);
    error = program_start(all->options.programs, &process->program, &spawn, &stage);
    close(errors[1]);
    process->errors_fd = errors[0];
    if (error != 0) {
        close(errors[0]);
        diagnose_start(cause, CAUSE, &spawn, stage, -error);
    }
    return error;
}

static int start_one(struct pool *pool)
{
    struct process *process = memory_zeroed(1, sizeof *process);
    struct scoreboard *scoreboard = pool->all->options.scoreboard;
    char path[SOCKET_PATH], cause[CAUSE], text[CAUSE + 256];

    process->pool = pool;
    process->id = ++pool->all->next_id;
    process->holder = NO_HOLDER;
    socket_path(process, path);
    int listener = listen_at(pool, path);
    int error = spawn_on(pool, process, listener, cause);
    if (listener >= 0)
        close(listener); /* the process alone has it: when it dies, connecting is refused */
    if (error == 0) {
        scoreboard->processes[process->program.index].given = 0;
        scoreboard->processes[process->program.index].served = 0;
        TAILQ_INSERT_TAIL(&pool->processes, process, next);
        pool->n_processes++;
        pool->n_live++;
        pool_lend_process(pool, process);
        return 0;
    }
    unlink(path);
    free(process);
    snprintf(text, sizeof text, "%.200s: %s", program_of(pool), cause);
    log_error("pool %s: %s", pool->config->name, text);
    note_failure(pool, text);
    return error;
}

void processes_want(struct pool *pool)
{
    if (pool->all->is_stopped || event_pending(pool->next_try, EV_TIMEOUT, NULL))
        return;
    /* Those that are ending do not count, but must not pile up either. */
    while (pool->n_live < pool->capacity && pool->n_processes < 2 * pool->capacity)
        if (start_one(pool) != 0)
            return;
    pool->is_down = false;
}

/* The back-off is over, or the one that was tried has lived long enough to be believed. */
static void on_next_try(evutil_socket_t fd, short what, void *arg)
{
    struct pool *pool = arg;

    (void)fd, (void)what;
    if (pool->all->is_stopped || pool->n_live >= pool->capacity)
        return;
    if (pool->failures == 0) {
        processes_want(pool);
        return;
    }
    bool is_proof = pool->n_live > 0;
    if (is_proof) {
        pool->failures = 0;
        processes_want(pool);
    } else if (start_one(pool) == 0) {
        try_later(pool, PROOF_MS);
    }
}

static struct process *find(const struct pool *pool, unsigned front, uint32_t id)
{
    struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->id == id && process->holder == (int)front)
        return process;
    return NULL;
}

/* NULL is no offence: a front may speak of a process while the news of its end is on the way. */
int processes_return(struct pool *pool, unsigned front, uint32_t id)
{
    struct process *process = find(pool, front, id);

    if (process == NULL)
        return 0;
    process->holder = NO_HOLDER;
    lender_returned(&pool->lender, front);
    pool_lend_process(pool, process);
    return 0;
}

int processes_end(struct pool *pool, unsigned front, uint32_t id)
{
    struct process *process = find(pool, front, id);

    if (process == NULL)
        return 0;
    process->holder = NO_HOLDER;
    lender_returned(&pool->lender, front);
    if (program_is_running(&process->program)) {
        pool->n_live--;
        program_end(&process->program);
    }
    processes_want(pool);
    return 0;
}

void processes_front_left(struct pool *pool, unsigned front)
{
    struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->holder == (int)front) {
        process->holder = NO_HOLDER;
        lender_returned(&pool->lender, front);
    }
}

void processes_prepare(struct pool *pool)
{
    TAILQ_INIT(&pool->processes);
    pool->next_try = evtimer_new(pool->all->options.base, on_next_try, pool);
}
