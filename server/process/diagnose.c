#include "process/diagnose.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/scoreboard.h"
#include "process/examine.h"

static const char *const stages[] = {
    [SPAWN_SOCKET] = "its socket could not be made",
    [SPAWN_FORK] = "no process could be made for it",
    [SPAWN_CGROUP] = "it could not be put into its control group",
    [SPAWN_LIMITS] = "its resource limits could not be set",
    [SPAWN_USER] = "its user could not be set",
    [SPAWN_DIRECTORY] = "its directory could not be entered",
    [SPAWN_EXEC] = "it could not be executed",
};

/* A limit on how many processes there may be, as far as this process knows it. */
static void say_own_processes(char *text, size_t size, const struct spawn *spawn)
{
    struct rlimit limit;
    char number[32] = "unlimited";

    (void)spawn;
    if (getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        snprintf(number, sizeof number, "%" PRIu64, (uint64_t)limit.rlim_cur);
    snprintf(text, size,
             "no process could be made for it: there are too many; raise the server's own RLIMIT_NPROC, now %s "
             "(LimitNPROC= of its unit), or pids.max of its control group (TasksMax=), or lower max_running",
             number);
}

static void say_user_processes(char *text, size_t size, const struct spawn *spawn)
{
    const char *name = spawn->user != NULL && spawn->user->name != NULL ? spawn->user->name : "the server's own";

    if (spawn->rlimits != NULL && spawn->rlimits->nproc != RLIM_INFINITY)
        snprintf(text, size,
                 "user %s has more processes than rlimit_nproc = %" PRIu64
                 " allows, which counts all of the user's; raise it, or give the program a user of its own",
                 name, spawn->rlimits->nproc);
    else
        snprintf(text, size, "user %s has more processes than RLIMIT_NPROC allows; raise it (LimitNPROC= of the unit)",
                 name);
}

static void say_no_memory(char *text, size_t size, const struct spawn *spawn)
{
    if (spawn->rlimits != NULL && spawn->rlimits->as != RLIM_INFINITY)
        snprintf(text, size, "out of memory; rlimit_as = %" PRIu64 " is too little for it, or the machine has no more",
                 spawn->rlimits->as);
    else
        snprintf(text, size, "out of memory; lower max_running or pm.max_children, or add memory");
}

static void say_busy(char *text, size_t size, const struct spawn *spawn)
{
    (void)spawn;
    snprintf(text, size,
             "is open for writing, as a file is that is being copied or built; put a new one in place by "
             "renaming it");
}

static void say_stuck(char *text, size_t size, const struct spawn *spawn)
{
    bool has_user = spawn->user != NULL && spawn->user->name != NULL;

    snprintf(text, size,
             "it could not be executed within 1 s: its file or directory is not given out (a lease, a file system that "
             "hangs), or a program of user %s stops every other",
             has_user ? spawn->user->name : "the server's own");
}

static void say_no_descriptors(char *text, size_t size, const struct spawn *spawn)
{
    (void)spawn;
    snprintf(text, size, "no descriptors are left; raise the server's RLIMIT_NOFILE (LimitNOFILE= of its unit)");
}

static void say_full(char *text, size_t size, const struct spawn *spawn)
{
    (void)spawn;
    snprintf(text, size, "%d programs are running, which is the most that one server has", SCOREBOARD_PROGRAMS);
}

/* The environment is what can be long: the arguments are few. */
static void say_too_long(char *text, size_t size, const struct spawn *spawn)
{
    const char *longest = "";
    size_t most = 0, sum = 0, room = 32 * (size_t)sysconf(_SC_PAGESIZE); /* MAX_ARG_STRLEN */

    for (char *const *entry = spawn->envp; *entry != NULL; entry++) {
        size_t len = strlen(*entry) + 1;

        sum += len;
        if (len > most)
            longest = *entry;
        most = len > most ? len : most;
    }
    int name = (int)strcspn(longest, "=");
    if (most > room)
        snprintf(text, size, "variable %.*s has %zu bytes, more than the %zu that one may have; lower max_field", name,
                 longest, most, room);
    else
        snprintf(text, size,
                 "its environment has %zu bytes, too many for this system; the longest is %.*s with %zu; "
                 "lower max_head",
                 sum, name, longest, most);
}

/* Only root may raise a hard limit. */
static void say_limit(char *text, size_t size, const struct spawn *spawn)
{
    static const struct {
        const char *key, *unit;
        int resource;
        size_t offset;
    } limits[] = {
        {"rlimit_as", "LimitAS", RLIMIT_AS, offsetof(struct config_rlimits, as)},
        {"rlimit_cpu", "LimitCPU", RLIMIT_CPU, offsetof(struct config_rlimits, cpu)},
        {"rlimit_nproc", "LimitNPROC", RLIMIT_NPROC, offsetof(struct config_rlimits, nproc)},
        {"rlimit_files", "LimitNOFILE", RLIMIT_NOFILE, offsetof(struct config_rlimits, files)},
        {"rlimit_core", "LimitCORE", RLIMIT_CORE, offsetof(struct config_rlimits, core)},
    };

    snprintf(text, size, "%s: %s", stages[SPAWN_LIMITS], strerror(EPERM));
    for (size_t i = 0; i < sizeof limits / sizeof *limits && spawn->rlimits != NULL; i++) {
        struct rlimit own;
        uint64_t asked;

        memcpy(&asked, (const char *)spawn->rlimits + limits[i].offset, sizeof asked);
        if (asked == RLIM_INFINITY || getrlimit((__rlimit_resource_t)limits[i].resource, &own) != 0)
            continue;
        if (own.rlim_max == RLIM_INFINITY || asked <= own.rlim_max)
            continue;
        snprintf(text, size,
                 "%s = %" PRIu64 " is more than the server's own limit of %" PRIu64
                 "; lower it, or raise that (%s= of its unit)",
                 limits[i].key, asked, (uint64_t)own.rlim_max, limits[i].unit);
        return;
    }
}

static const struct {
    enum spawn_stage stage;
    int error;
    void (*say)(char *text, size_t size, const struct spawn *spawn);
} causes[] = {
    {SPAWN_FORK, EAGAIN, say_own_processes},
    {SPAWN_FORK, EUSERS, say_full},
    {SPAWN_FORK, ENOMEM, say_no_memory},
    {SPAWN_FORK, EMFILE, say_no_descriptors},
    {SPAWN_SOCKET, EMFILE, say_no_descriptors},
    {SPAWN_LIMITS, EPERM, say_limit},
    {SPAWN_USER, EAGAIN, say_user_processes},
    {SPAWN_EXEC, EAGAIN, say_user_processes},
    {SPAWN_EXEC, ENOMEM, say_no_memory},
    {SPAWN_EXEC, E2BIG, say_too_long},
    {SPAWN_EXEC, ETXTBSY, say_busy},
    {SPAWN_USER, ETIMEDOUT, say_stuck},
    {SPAWN_DIRECTORY, ETIMEDOUT, say_stuck},
    {SPAWN_EXEC, ETIMEDOUT, say_stuck},
};

void diagnose_start(char *text, size_t size, const struct spawn *spawn, enum spawn_stage stage, int error)
{
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
        if (causes[i].stage == stage && causes[i].error == error) {
            causes[i].say(text, size, spawn);
            return;
        }
    }
    if (stage == SPAWN_EXEC && examine_program(text, size, spawn, error))
        return;
    if (stage == SPAWN_DIRECTORY && error == EACCES && examine_directory(text, size, spawn, spawn->directory))
        return;
    if (stage == SPAWN_EXEC && error == EACCES)
        snprintf(text, size,
                 "may not be executed, though its mode allows it; is there an access control list "
                 "(getfacl), or a security module (AppArmor, SELinux)?");
    else if (stage == SPAWN_DIRECTORY && spawn->directory != NULL)
        snprintf(text, size, "directory %s could not be entered: %s", spawn->directory, strerror(error));
    else
        snprintf(text, size, "%s: %s", stages[stage], strerror(error));
}

void diagnose_end(char *text, size_t size, int status)
{
    const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;

    if (name != NULL)
        snprintf(text, size, "was killed by signal %d (SIG%s)", WTERMSIG(status), name);
    else if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, size, "exited with status %d", WEXITSTATUS(status));
}

/* What a program does that gets no more memory, or not even enough to start: it is killed by the kernel, by itself, or
 * its loader gives up. */
static bool may_lack_memory(int status)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    return number == SIGSEGV || number == SIGKILL || number == SIGABRT || number == SIGBUS ||
           (WIFEXITED(status) && WEXITSTATUS(status) == 127);
}

void diagnose_limited_end(char *text, size_t size, int status, const struct config_rlimits *limits,
                          const struct rusage *usage)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    uint64_t seconds = usage != NULL ? (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) : 0;

    diagnose_end(text, size, status);
    size_t len = strlen(text);
    if (limits->cpu != RLIM_INFINITY && (number == SIGXCPU || (number == SIGKILL && seconds >= limits->cpu)))
        snprintf(text + len, size - len, ": it has used up rlimit_cpu = %" PRIu64 "s", limits->cpu);
    else if (limits->as != RLIM_INFINITY && may_lack_memory(status))
        snprintf(text + len, size - len, "; rlimit_as = %" PRIu64 " may be too little for it", limits->as);
}
