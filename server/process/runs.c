/*
 * CGI runs on the keeper's side: check what the front asks for, start it, report its end.
 *
 * The program gets the route's own environment (env[...], pass_env) and of the front's block what may be there; it runs
 * in its own directory, and its arguments are never more than the script (RFC 3875 section 4.4 is not followed:
 * CVE-2012-1823).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "process/diagnose.h"
#include "process/pools_inside.h"

enum {
    MAX_BLOCK = 1 << 20,
    MAX_VARIABLES = 4096,
    STUCK_US = 10000000, /* how long nothing is started after an exec that did not come to an end */
};

int runs_prepare(struct pool *pool)
{
    TAILQ_INIT(&pool->runs);
    pool->dir_fd = -1;
    if (pool->kind != SLOT_RUN || pool->route->program != NULL)
        return 0;
    pool->dir_fd = open(route_directory(pool->route), O_PATH | O_DIRECTORY | O_CLOEXEC);
    return pool->dir_fd >= 0 ? 0 : -errno;
}

/* The environment block that the front has written into a file, NUL-terminated; NULL when it is too long. Of a file
 * in memory only, which alone has seals: reading another may take for ever. */
static char *read_block(int fd, size_t *len_out)
{
    off_t len = fcntl(fd, F_GET_SEALS) >= 0 ? lseek(fd, 0, SEEK_END) : -1;

    if (len < 0 || len > MAX_BLOCK)
        return NULL;
    char *block = memory_resize(NULL, (size_t)len + 1);
    ssize_t n = pread(fd, block, (size_t)len, 0);
    *len_out = n > 0 ? (size_t)n : 0;
    block[*len_out] = '\0';
    return block;
}

/* The route's variables, then those of the block that may be there and that the route does not set itself. */
static char **join_environment(const struct pool *pool, char *block, size_t len)
{
    size_t n = 0, i = 0;

    while (pool->env[n] != NULL)
        n++;
    char **env = memory_zeroed(n + MAX_VARIABLES + 1, sizeof *env);
    for (; i < n; i++)
        env[i] = pool->env[i];
    for (char *at = block; at < block + len && i < n + MAX_VARIABLES; at += strlen(at) + 1) {
        struct span name = {at, strcspn(at, "=")};

        if (pool->all->options.is_variable(pool->route, name) && !environ_has(pool->env, name))
            env[i++] = at;
    }
    return env;
}

static void send_refusal(struct pool *pool, unsigned front, uint32_t id, int error, bool by_name, const char *cause)
{
    struct message message = {.kind = MESSAGE_REFUSED, .id = id, .status = error, .n = by_name};

    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", cause);
    if (message.text_len >= sizeof message.text)
        message.text_len = sizeof message.text - 1;
    pool_tell(pool, front, &message);
}

/* Was it, or a child that a shell tells of by 128 + SIGKILL, killed because the route's programs had no more memory? */
static bool lacked_memory(struct pool *pool, int status)
{
    bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    bool has_seen_one = WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL;

    if (pool->n_memory_kills == 0 || (!was_killed && !has_seen_one))
        return false;
    pool->n_memory_kills--;
    return true;
}

/* The cause of an end that nobody here has asked for: of a signal with the message, for the run's own line in the log;
 * of an exit, which is the program's own business, only where a limit may have led to it. */
static void say_end(const struct run_slot *run, int status, const struct rusage *usage, struct message *message)
{
    const struct config_route *route = run->pool->route;
    char plain[64];

    diagnose_end(plain, sizeof plain, status);
    snprintf(message->text, sizeof message->text, "%s", plain);
    if (program_is_running(&run->program))
        diagnose_limited_end(message->text, sizeof message->text, status, &route->rlimits, usage);
    if (program_is_running(&run->program) && lacked_memory(run->pool, status))
        snprintf(message->text, sizeof message->text, "%s: its programs have used up cgroup_memory = %" PRIu64, plain,
                 route->cgroup.memory);
    message->text_len = strlen(message->text);
    if (WIFEXITED(status) && strcmp(plain, message->text) != 0)
        log_warning("route %s: process %d %s", route->text, (int)run->program.pid, message->text);
}

static void on_exited(struct program *program, int status, const struct rusage *usage)
{
    struct run_slot *run = (struct run_slot *)program;
    struct pool *pool = run->pool;
    struct message message = {
        .kind = MESSAGE_EXITED,
        .id = run->id,
        .status = status,
        .cpu_us = (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000 +
                  (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec),
        .max_rss_kib = (uint64_t)usage->ru_maxrss,
    };

    pool->n_memory_kills += cgroups_memory_kills(pool->all->options.cgroups, pool->group);
    if (run->has_slot)
        pool_free_slots(pool, 1);
    if (run->holder == NO_HOLDER)
        return;
    say_end(run, status, usage, &message);
    pool->n_running[run->holder]--;
    pool_tell(pool, (unsigned)run->holder, &message);
    run->holder = NO_HOLDER;
}

static void on_gone(struct program *program)
{
    struct run_slot *run = (struct run_slot *)program;

    TAILQ_REMOVE(&run->pool->runs, run, next);
    if (run->pool->is_ending)
        pool_sweep_later(run->pool->all);
    free(run);
}

static const char *interpreter_for(const struct config_route *route, const char *path)
{
    for (size_t i = 0; i < route->interpreters.n; i++)
        if (span_ends(span_of(path), span_of(route->interpreters.at[i].name)))
            return route->interpreters.at[i].value;
    return NULL;
}

/* Fills in what of the spawn follows from the program's path. `directory` gets the program's own. */
static void set_program(struct spawn *spawn, const struct config_route *route, char *path, char **argv,
                        char directory[PATH_MAX])
{
    const char *interpreter = interpreter_for(route, path);

    if (interpreter != NULL)
        *argv++ = (char *)(uintptr_t)interpreter;
    *argv++ = path;
    *argv = NULL;
    spawn->program = interpreter != NULL ? interpreter : path;
    snprintf(directory, PATH_MAX, "%.*s", (int)(strrchr(path, '/') - path), path);
    spawn->directory = directory[0] != '\0' ? directory : "/";
}

static void say_cause(char cause[MESSAGE_MAX_TEXT], const struct spawn *spawn, const char *path, enum spawn_stage stage,
                      int error)
{
    int len = 0;

    if (spawn->program != path)
        len = snprintf(cause, MESSAGE_MAX_TEXT, "interpreter %.1000s: ", spawn->program);
    diagnose_start(cause + len, (size_t)(MESSAGE_MAX_TEXT - len), spawn, stage, error);
}

static int start(struct pool *pool, struct run_slot *run, char *path, const int fds[4], char cause[MESSAGE_MAX_TEXT])
{
    char *argv[3], directory[PATH_MAX];
    struct spawn spawn = {
        .fds = {fds[0], fds[1], fds[2]},
        .argv = argv,
        .user = pool_user(pool, &pool->route->user),
        .rlimits = &pool->route->rlimits,
        .cgroup_fd = cgroups_entrance(pool->all->options.cgroups, pool->group),
        .no_new_privs = pool->route->no_new_privs,
    };
    enum spawn_stage stage = SPAWN_EXEC;
    size_t len = 0;
    char *block = read_block(fds[3], &len);

    if (block == NULL) {
        snprintf(cause, MESSAGE_MAX_TEXT, "its environment is longer than %d bytes, or in no memory file", MAX_BLOCK);
        return -E2BIG;
    }
    char **env = join_environment(pool, block, len);
    spawn.envp = env;
    set_program(&spawn, pool->route, path, argv, directory);
    pool_note_set_id(pool, &spawn);
    if (TAILQ_EMPTY(&pool->runs)) { /* whoever was killed until now, it is none of those to come */
        cgroups_memory_kills(pool->all->options.cgroups, pool->group);
        pool->n_memory_kills = 0;
    }
    /* Each that does not come to an end holds up the keeper: so not one after the other. */
    int error = clock_us() < pool->stuck_until_us
                    ? -ETIMEDOUT
                    : program_start(pool->all->options.programs, &run->program, &spawn, &stage);
    if (error == -ETIMEDOUT && clock_us() >= pool->stuck_until_us)
        pool->stuck_until_us = clock_us() + STUCK_US;
    if (error != 0)
        say_cause(cause, &spawn, path, stage, -error);
    free(env);
    free(block);
    return error;
}

/* The absolute path of what is to run: 0, or -errno when the front may not have it run. */
static int resolve(const struct pool *pool, const char *script, char path[PATH_MAX])
{
    const struct config_route *route = pool->route;

    if (route->program != NULL)
        return snprintf(path, PATH_MAX, "%s", route->program) < PATH_MAX ? 0 : -ENAMETOOLONG;
    int error = pool_check_script(pool, pool->dir_fd, script);
    if (error != 0)
        return error;
    return snprintf(path, PATH_MAX, "%s/%s", route_directory(route), script) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int runs_start(struct pool *pool, unsigned front, const struct message *message, const int fds[4])
{
    char path[PATH_MAX], cause[MESSAGE_MAX_TEXT];

    if (pool->kind != SLOT_RUN || pool->n_running[front] >= pool->lender.shares[front].loans)
        return -EPROTO;
    int error = resolve(pool, message->text, path);
    if (error != 0) {
        snprintf(cause, sizeof cause, "%s", strerror(-error));
        send_refusal(pool, front, message->id, -error, true, cause);
        return 0;
    }
    struct run_slot *run = memory_zeroed(1, sizeof *run);
    run->pool = pool;
    run->id = message->id;
    run->holder = (int)front;
    run->program.on_exited = on_exited;
    run->program.on_gone = on_gone;
    error = start(pool, run, path, fds, cause);
    if (error != 0) {
        free(run);
        send_refusal(pool, front, message->id, -error, false, cause);
        return 0;
    }
    TAILQ_INSERT_TAIL(&pool->runs, run, next);
    pool->n_running[front]++;
    struct message started = {.kind = MESSAGE_STARTED, .id = run->id, .pid = run->program.pid};
    pool_tell(pool, front, &started);
    return 0;
}

int runs_end(struct pool *pool, unsigned front, uint32_t id)
{
    struct run_slot *run;

    TAILQ_FOREACH(run, &pool->runs, next)
    if (run->id == id && run->holder == (int)front)
        break;
    if (run != NULL)
        program_end(&run->program);
    return 0;
}

void runs_front_left(struct pool *pool, unsigned front)
{
    for (struct run_slot *run = TAILQ_FIRST(&pool->runs), *next; run != NULL; run = next) {
        next = TAILQ_NEXT(run, next);
        if (run->holder != (int)front)
            continue;
        run->holder = NO_HOLDER;
        run->has_slot = true;
        program_end(&run->program);
    }
    pool->n_running[front] = 0;
}
