/*
 * The child of a vfork shares this process's memory and runs while it stands still, until it execs or exits. So between
 * the two it only makes system calls, and tells what failed by writing to the parent's own variables.
 * Signals are blocked meanwhile: no handler of the parent may run in the child.
 */
#include "process/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/users.h"

static struct rlimit inherited_files; /* of descriptors, before the server raised its own */

void spawn_prepare(void)
{
    struct sigaction action;
    struct rlimit raised;
    int fd;

    do /* what has 0, 1 or 2 closed must not get a socket there */
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= 2);
    close(fd);
    for (int n = 1; n < NSIG; n++)
        if (sigaction(n, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            signal(n, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &inherited_files);
    raised = inherited_files;
    raised.rlim_cur = raised.rlim_max;
    setrlimit(RLIMIT_NOFILE, &raised);
}

/* Used as a volatile object: the parent reads what the child has written, which no compiler can see. */
struct outcome {
    int error;
    enum spawn_stage stage;
};

/* The raw calls: glibc's wrappers would make every thread of the parent, whose memory this is, change its user. */
static int change_user(const struct config_user *user)
{
    if (!users_must_change(user))
        return 0;
    struct user_groups groups = users_groups(user);
    if (syscall(SYS_setgroups, groups.n, groups.at) != 0 ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) != 0)
        return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

static int set_limit(int resource, uint64_t value)
{
    struct rlimit limit = {value, value};

    return value == RLIM_INFINITY ? 0 : setrlimit((__rlimit_resource_t)resource, &limit);
}

/* A second between the two, since at the hard one the kernel sends SIGKILL, which says nothing, and no SIGXCPU. */
static int limit_cpu(uint64_t seconds)
{
    struct rlimit limit;

    if (seconds == RLIM_INFINITY || getrlimit(RLIMIT_CPU, &limit) != 0)
        return 0;
    if (limit.rlim_max == RLIM_INFINITY || seconds != limit.rlim_max)
        limit.rlim_max = seconds + 1;
    limit.rlim_cur = seconds;
    return setrlimit(RLIMIT_CPU, &limit);
}

/* A core file would be written to the program's directory, from where it might be served. */
static int limit_core(uint64_t size)
{
    struct rlimit limit;

    if (size != RLIM_INFINITY)
        return set_limit(RLIMIT_CORE, size);
    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return 0;
    limit.rlim_cur = 0;
    return setrlimit(RLIMIT_CORE, &limit);
}

static int set_limits(const struct config_rlimits *limits)
{
    setrlimit(RLIMIT_NOFILE, &inherited_files);
    if (limits == NULL)
        return limit_core(RLIM_INFINITY);
    if (set_limit(RLIMIT_AS, limits->as) != 0 || limit_cpu(limits->cpu) != 0)
        return -1;
    if (set_limit(RLIMIT_NPROC, limits->nproc) != 0 || set_limit(RLIMIT_NOFILE, limits->files) != 0)
        return -1;
    return limit_core(limits->core);
}

/* 0, 1, 2 in the child. The sources are close-on-exec and none of them is 0, 1 or 2: main() keeps those occupied. */
static int place_descriptors(const int fds[3])
{
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0)
            return -1;
    return 0;
}

/* An exec resets handlers but not what is ignored; and no handler may run here once signals are let in again. */
static void default_signals(void)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE};
    static const struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaction(ours[i], &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become_program(const struct spawn *spawn, pid_t parent, volatile struct outcome *outcome)
{
    outcome->stage = SPAWN_CGROUP;
    setsid();
    if (spawn->cgroup_fd > 0 && write(spawn->cgroup_fd, "0", 1) != 1)
        goto fail;
    outcome->stage = SPAWN_LIMITS;
    if (place_descriptors(spawn->fds) != 0 || set_limits(spawn->rlimits) != 0)
        goto fail;
    if (spawn->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        goto fail;
    outcome->stage = SPAWN_USER;
    if (change_user(spawn->user) != 0)
        goto fail;
    /* After the change of user, which clears it. The parent may have died before: then it would never come. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    outcome->stage = SPAWN_DIRECTORY;
    if (chdir(spawn->directory != NULL ? spawn->directory : "/") != 0)
        goto fail;
    outcome->stage = SPAWN_EXEC;
    umask(022);
    default_signals();
    execve(spawn->program, spawn->argv, spawn->envp);
fail:
    outcome->error = errno;
    _exit(127);
}

pid_t spawn_program(const struct spawn *spawn, enum spawn_stage *stage_out)
{
    volatile struct outcome outcome = {0, SPAWN_FORK};
    pid_t parent = getpid();
    sigset_t all, before;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    /* NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.vfork): see the top */
    pid_t pid = vfork();
    if (pid == 0) /* NOLINTNEXTLINE(clang-analyzer-unix.Vfork): it makes system calls only */
        become_program(spawn, parent, &outcome);
    int error = pid < 0 ? errno : outcome.error;
    sigprocmask(SIG_SETMASK, &before, NULL);
    *stage_out = outcome.stage;
    if (error == 0)
        return pid;
    if (pid > 0)
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    return -error;
}

pid_t spawn_self(int survives)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0 && !survives) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

int spawn_become(const struct config_user *user)
{
    if (change_user(user) != 0)
        return -errno;
    /* The change has cleared both. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 1);
    return 0;
}
