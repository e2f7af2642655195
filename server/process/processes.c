/*
 * FastCGI processes of ours, on the keeper's side: each has a listening socket, its door, which it gets as descriptor 0
 * (FastCGI specification section 2.2), and is lent to a front from its start on.
 *
 * The keeper holds the door open, too: when a process dies that was given a request, the next one gets its door. So a
 * request that the dead one has not accepted is answered by the next, and one whose connection ends was accepted.
 *
 * A process that dies within a second without having served a request has failed; no failure is one that somebody has
 * killed, nor one that was given a request and exited in good order: the news that it has answered may come later than
 * that of its exit.
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
#include "process/supply.h"

enum {
    YOUNG_US = 1000000,
    BACKLOG = 128,
    CAUSE = 4096, /* bytes of the text that says why a start failed */
};

static const char *program_of(const struct pool *pool)
{
    return pool->script != NULL ? pool->script : pool->config->command.at[0];
}

static int listen_at(const struct pool *pool, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct config_user *owner = &pool->of->server.user;
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

/* ---- doors ---- */

static void door_path(const struct pool *pool, const struct door *door, char path[SOCKET_PATH])
{
    snprintf(path, SOCKET_PATH, "%s/%u", pool->all->options.socket_dir, door->id);
}

static void close_door(struct pool *pool, struct door *door)
{
    char path[SOCKET_PATH];

    door_path(pool, door, path);
    unlink(path);
    close(door->fd);
    free(door);
}

void processes_close_doors(struct pool *pool)
{
    struct door *door;

    while ((door = TAILQ_FIRST(&pool->doors)) != NULL) {
        TAILQ_REMOVE(&pool->doors, door, next);
        close_door(pool, door);
    }
}

/* One of a process that has died; best one where somebody waits. */
static struct door *find_door(const struct pool *pool)
{
    struct door *door;

    TAILQ_FOREACH(door, &pool->doors, next)
    if (door->holder != NO_HOLDER)
        return door;
    return TAILQ_FIRST(&pool->doors);
}

/* One of a process that has died, or a new one. NULL: errno tells. */
static struct door *take_door(struct pool *pool, uint32_t id)
{
    struct door *door = find_door(pool);
    char path[SOCKET_PATH];

    if (door != NULL) {
        TAILQ_REMOVE(&pool->doors, door, next);
        return door;
    }
    door = memory_zeroed(1, sizeof *door);
    door->id = id;
    door->holder = NO_HOLDER;
    door_path(pool, door, path);
    door->fd = listen_at(pool, path);
    if (door->fd >= 0)
        return door;
    errno = -door->fd;
    unlink(path);
    free(door);
    return NULL;
}

/* ---- ends ---- */

void process_set_state(struct process *process, enum process_state state, enum scoreboard_end cause)
{
    struct pool *pool = process->pool;
    struct scoreboard_pool *board = pool_board(pool);

    if (!process->has_answered && process->state <= PROCESS_SPENT && state > PROCESS_SPENT)
        board->n_starting--;
    pool->n_live -= process->state == PROCESS_LIVE;
    pool->n_spent -= process->state == PROCESS_SPENT;
    process->state = state;
    process->cause = cause;
    pool->n_live += state == PROCESS_LIVE;
    pool->n_spent += state == PROCESS_SPENT;
    board->n_live = pool->n_live;
    board->n_retiring = pool->n_processes - pool->n_live;
    process_board(process)->is_retiring = state != PROCESS_LIVE;
}

static void end_process(struct process *process)
{
    counter_add(&pool_board(process->pool)->ends[process->cause], 1);
    process_set_state(process, PROCESS_ENDING, process->cause);
    program_end(&process->program);
}

void process_retire(struct process *process, enum scoreboard_end cause)
{
    struct message message = {.kind = MESSAGE_RETIRE, .id = process->id};

    if (process->state >= PROCESS_RETIRING)
        return;
    process_set_state(process, PROCESS_RETIRING, cause);
    if (process->holder == NO_HOLDER)
        end_process(process);
    else
        pool_tell(process->pool, (unsigned)process->holder, &message);
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
    lender_returned(&pool->lender, (unsigned)holder, false); /* the front says what that settles */
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

/* What the log says of one that nobody here has ended. */
static enum verdict tell_end(struct process *process, int status, const struct rusage *usage, char cause[CAUSE])
{
    struct pool *pool = process->pool;
    enum verdict verdict = judge(&process->program, pool->all->options.scoreboard, status);
    char end[160];

    diagnose_limited_end(end, sizeof end, status, &pool->config->rlimits, usage);
    if (status != 0 || verdict == VERDICT_FAILED)
        log_warning("pool %s: process %d %s after %u requests", pool->config->name, (int)process->program.pid, end,
                    (unsigned)process_board(process)->served);
    snprintf(cause, CAUSE, "%s %s at once", program_of(pool), end);
    return verdict;
}

/* A door that nobody can be waiting behind, and that no other process has got. */
static void drop_door(struct pool *pool, struct door *unused)
{
    struct door *door;

    TAILQ_FOREACH(door, &pool->doors, next)
    if (door == unused)
        break;
    if (door == NULL)
        return;
    TAILQ_REMOVE(&pool->doors, door, next);
    close_door(pool, door);
}

/* What becomes of its place. Who has connected to its door and was not accepted waits for the next. */
static void replace(struct process *process, enum verdict verdict, int status, int holder, const char *cause)
{
    struct pool *pool = process->pool;
    struct door *door = process->door;
    bool was_busy = process_board(process)->n_active > 0;
    bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

    process->door = NULL;
    door->holder = was_busy ? holder : NO_HOLDER;
    TAILQ_INSERT_TAIL(&pool->doors, door, next);
    if (was_killed && proof_try_again(pool))
        return;
    proof_failed(pool, cause);
    if (verdict == VERDICT_FAILED)
        supply_failed(pool, cause);
    else if (verdict == VERDICT_QUIET)
        supply_try_soon(pool);
    else
        pool->failures = 0;
    supply_decide(pool);
    if (!was_busy && verdict != VERDICT_QUIET)
        drop_door(pool, door);
}

/* Nobody has told it to end. */
static void on_own_end(struct process *process, int status, const struct rusage *usage)
{
    enum process_state before = process->state;
    bool was_busy = process_board(process)->n_active > 0;
    int holder = process->holder;
    char cause[CAUSE];

    enum verdict verdict = tell_end(process, status, usage, cause);
    process->cause = WIFSIGNALED(status) ? END_SIGNAL : status != 0 ? END_FAILED : END_EXITED;
    counter_add(&pool_board(process->pool)->ends[process->cause], 1);
    process_set_state(process, PROCESS_ENDING, process->cause);
    end_loan(process, status);
    if (before < PROCESS_RETIRING || was_busy)
        replace(process, verdict, status, holder, cause);
}

static void on_exited(struct program *program, int status, const struct rusage *usage)
{
    struct process *process = (struct process *)program;

    close(process->errors_fd);
    process->errors_fd = -1;
    if (process->state < PROCESS_ENDING && program_is_running(program))
        on_own_end(process, status, usage);
    if (process->state < PROCESS_ENDING)
        process_set_state(process, PROCESS_ENDING, process->cause);
    end_loan(process, status);
    if (process->door != NULL)
        close_door(process->pool, process->door);
    process->door = NULL;
}

/* A process that is exiting has closed its connections before anybody can wait for it. */
static bool is_exiting(pid_t pid)
{
    enum { PF_EXITING = 4 }; /* of the kernel: proc(5), the ninth field of stat */
    siginfo_t info = {.si_pid = 0};
    char path[64], text[512];

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0)
        return true;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *field = strrchr(text, ')'); /* the second; a name may be anything */
    for (int i = 2; field != NULL && i < 9; i++)
        field = strchr(field + 1, ' ');
    return field != NULL && (strtoul(field, NULL, 10) & PF_EXITING) != 0;
}

void process_tell_fate(struct process *process)
{
    struct message message = {.kind = MESSAGE_LIVES, .id = process->id};

    if (!is_exiting(process->program.pid)) /* else GONE follows */
        pool_tell(process->pool, (unsigned)process->holder, &message);
}

static void on_gone(struct program *program)
{
    struct process *process = (struct process *)program;
    struct pool *pool = process->pool;

    TAILQ_REMOVE(&pool->processes, process, next);
    pool->n_processes--;
    scoreboard_set_used(pool->all->options.scoreboard, process->program.index, false);
    process_board(process)->pool = 0;
    pool_board(pool)->n_retiring = pool->n_processes - pool->n_live;
    free(process);
    supply_decide(pool);
    if (pool->is_ending)
        pool_sweep_later(pool->all);
}

/* ---- starts ---- */

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
        .priority = pool->config->priority,
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

/* A number from 9/10 of n to 11/10 of it. */
static uint64_t about(uint64_t n)
{
    uint32_t share = arc4random_uniform(2001);

    return n - n / 10 + (uint64_t)((double)n / 10000 * share);
}

static void set_limits(struct process *process)
{
    const struct config_pool *config = process->pool->config;
    uint32_t tenth = config->max_requests / 10;

    if (config->max_requests > 0) {
        process->soft = config->max_requests - arc4random_uniform(tenth + 1);
        process->hard = config->max_requests + tenth;
    }
    if (config->max_memory > 0) /* never sooner than that */
        process->memory_limit = config->max_memory + config->max_memory / 1000 * arc4random_uniform(101);
    process->old_us = config->max_age_ms > 0 ? clock_us() + 1000 * about(config->max_age_ms) : UINT64_MAX;
}

/* Its place may have been another's before. */
static void show(struct process *process)
{
    struct scoreboard_process *board = process_board(process);

    scoreboard_open(&board->version);
    memset(board->method, 0, sizeof board->method);
    memset(board->user, 0, sizeof board->user);
    memset(board->uri, 0, sizeof board->uri);
    scoreboard_close(&board->version);
    board->given = board->served = board->n_active = 0;
    board->is_retiring = 0;
    board->memory = board->last_cpu_us = board->last_us = 0;
    board->front = board->request = SCOREBOARD_NONE;
    board->start_unix_us = clock_unix_us();
    board->start_us = board->since_us = process->program.started_us;
    board->pid = process->program.pid;
    board->pool = process->pool->number + 1;
    scoreboard_set_used(process->pool->all->options.scoreboard, process->program.index, true);
}

static void enter(struct process *process)
{
    struct pool *pool = process->pool;
    struct scoreboard_pool *board = pool_board(pool);

    TAILQ_INSERT_TAIL(&pool->processes, process, next);
    pool->n_processes++;
    pool->n_live++;
    pool->has_started = true;
    show(process);
    counter_add(&board->n_started, 1);
    board->n_starting++;
    board->n_live = pool->n_live;
    set_limits(process);
    if (pool->proof == PROOF_WANTED && pool->tried_id == 0)
        pool->tried_id = process->id;
    pool_lend_process(pool, process);
}

int process_start(struct pool *pool)
{
    struct process *process = memory_zeroed(1, sizeof *process);
    char cause[CAUSE], text[CAUSE + 256];

    process->pool = pool;
    process->id = ++pool->all->next_id;
    process->holder = NO_HOLDER;
    process->door = take_door(pool, process->id);
    int error = spawn_on(pool, process, process->door != NULL ? process->door->fd : -errno, cause);
    if (error == 0) {
        enter(process);
        return 0;
    }
    if (process->door != NULL)
        close_door(pool, process->door);
    free(process);
    snprintf(text, sizeof text, "%.200s: %s", program_of(pool), cause);
    log_error("pool %s: %s", pool->config->name, text);
    supply_failed(pool, text);
    return error;
}

/* ---- loans ---- */

struct process *process_find(const struct pool *pool, unsigned front, uint32_t id)
{
    struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->id == id && process->holder == (int)front)
        return process;
    return NULL;
}

/* It has been given all the requests that it may have, or its time is over otherwise. */
static bool is_over(const struct process *process)
{
    return process->state == PROCESS_RETIRING ||
           (process->state == PROCESS_SPENT && process->hard > 0 && process_board(process)->given >= process->hard);
}

int processes_return(struct pool *pool, unsigned front, const struct message *message)
{
    struct process *process = process_find(pool, front, message->id);

    if (process == NULL) { /* no offence: the news of its end is on the way, or was answered by this */
        if (message->status > 0)
            lender_settled(&pool->lender, front);
        return 0;
    }
    process->holder = NO_HOLDER;
    lender_returned(&pool->lender, front, message->status > 0);
    if (is_over(process)) {
        end_process(process);
        supply_decide(pool);
    } else {
        pool_lend_process(pool, process);
    }
    return 0;
}

int processes_end(struct pool *pool, unsigned front, const struct message *message)
{
    struct process *process = process_find(pool, front, message->id);

    if (process == NULL) {
        if (message->status > 0)
            lender_settled(&pool->lender, front);
        return 0;
    }
    process->holder = NO_HOLDER;
    lender_returned(&pool->lender, front, message->status > 0);
    if (process->state < PROCESS_RETIRING)
        process->cause = END_TERMINATED;
    if (process->state < PROCESS_ENDING)
        end_process(process);
    supply_decide(pool);
    return 0;
}

void processes_front_left(struct pool *pool, unsigned front)
{
    struct process *process, *next;

    for (process = TAILQ_FIRST(&pool->processes); process != NULL; process = next) {
        next = TAILQ_NEXT(process, next);
        if (process->holder != (int)front)
            continue;
        process->holder = NO_HOLDER;
        lender_returned(&pool->lender, front, false);
        process_board(process)->n_active = 0;
        if (process->state == PROCESS_RETIRING)
            end_process(process);
    }
}
