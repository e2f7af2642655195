/*
 * From clone to exec the child runs in this process's memory, beside it, on a stack of its own. So until then it only
 * makes system calls, and tells what failed by writing to `start`; and this process only waits, so that nothing changes
 * that the child reads. Signals are blocked meanwhile: no handler of the parent may run in the child.
 *
 * The wait ends when the child's end of a pipe is closed, which its exec does, or its exit. It must be bounded: once
 * the child has its program's user, whoever else has that user may stop it, and the program's file may be one that is
 * not given out (a lease, a file system that hangs).
 *
 * A child that enters a control group would there be taken for a process as large as this one; being chosen for lack of
 * memory, it would take along whoever shares its memory: this one. The kernel passes over the children of a vfork, so
 * such a child is one of a helper's, which stands still until the exec in this one's place.
 */
#include "process/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/users.h"

enum {
    STACK = 64 << 10,
    LONGEST_EXEC_MS = 1000,
    LONGEST_DEATH_MS = 1000,
};

/* What runs in the child may not use what a sanitizer keeps for the thread, which is the parent's. */
#define IN_CHILD __attribute__((no_sanitize("address", "undefined")))

/* One child at a time is before its exec, with a helper perhaps. */
static _Alignas(16) unsigned char child_stack[STACK], helper_stack[STACK];
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

/* One start. The child reads all of it and writes its outcome. */
struct start {
    const struct spawn *spawn;
    const struct config_user *user; /* to change to; NULL: none */
    struct user_groups groups;
    pid_t parent;
    volatile pid_t pid;
    volatile int error;
    volatile enum spawn_stage stage;
};

/* The raw calls: glibc's wrappers would make every thread of the parent, whose memory this is, change its user. */
static IN_CHILD int change_user(const struct config_user *user, const struct user_groups *groups)
{
    if (syscall(SYS_setgroups, groups->n, groups->at) != 0 ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) != 0)
        return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

static IN_CHILD int set_limit(int resource, uint64_t value)
{
    struct rlimit limit = {value, value};

    return value == RLIM_INFINITY ? 0 : setrlimit((__rlimit_resource_t)resource, &limit);
}

/* A second between the two, since at the hard one the kernel sends SIGKILL, which says nothing, and no SIGXCPU. */
static IN_CHILD int limit_cpu(uint64_t seconds)
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
static IN_CHILD int limit_core(uint64_t size)
{
    struct rlimit limit;

    if (size != RLIM_INFINITY)
        return set_limit(RLIMIT_CORE, size);
    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return 0;
    limit.rlim_cur = 0;
    return setrlimit(RLIMIT_CORE, &limit);
}

static IN_CHILD int set_limits(const struct config_rlimits *limits)
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
static IN_CHILD int place_descriptors(const int fds[3])
{
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0)
            return -1;
    return 0;
}

/* An exec resets handlers but not what is ignored; and no handler may run here once signals are let in again. */
static IN_CHILD void default_signals(void)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE};
    static const struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        sigaction(ours[i], &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Is somebody the file's only writer for now (F_SETLEASE)? exec(2) would wait for them; this open does not. That it is
 * refused otherwise is no matter. */
static IN_CHILD bool is_leased(const char *program)
{
    int fd = open(program, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EWOULDBLOCK;
}

static IN_CHILD int become_program(void *arg)
{
    struct start *start = arg;
    const struct spawn *spawn = start->spawn;

    start->stage = SPAWN_CGROUP;
    setsid();
    if (spawn->cgroup_fd > 0 && write(spawn->cgroup_fd, "0", 1) != 1)
        goto fail;
    start->stage = SPAWN_LIMITS;
    if (place_descriptors(spawn->fds) != 0 || set_limits(spawn->rlimits) != 0)
        goto fail;
    if (spawn->priority != 0 && setpriority(PRIO_PROCESS, 0, spawn->priority) != 0)
        goto fail;
    if (spawn->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        goto fail;
    start->stage = SPAWN_USER;
    if (start->user != NULL && change_user(start->user, &start->groups) != 0)
        goto fail;
    /* After the change of user, which clears it. The parent may have died before: then it would never come. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != start->parent)
        _exit(127);
    start->stage = SPAWN_DIRECTORY;
    if (chdir(spawn->directory != NULL ? spawn->directory : "/") != 0)
        goto fail;
    start->stage = SPAWN_EXEC;
    umask(022);
    if (is_leased(spawn->program)) {
        errno = ETXTBSY; /* what exec says of other writers */
        goto fail;
    }
    default_signals();
    execve(spawn->program, spawn->argv, spawn->envp);
fail:
    start->error = errno;
    _exit(127);
}

/* Waits until nobody has the other end of the pipe any more: false, not within so long. */
static bool is_closed_within(int fd, int ms)
{
    struct pollfd end = {.fd = fd, .events = POLLIN};

    return poll(&end, 1, ms) > 0;
}

/* The child gets this one's own parent as its parent. */
static IN_CHILD int help_start(void *arg)
{
    struct start *start = arg;

    if (clone(become_program, child_stack + sizeof child_stack,
              CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PARENT_SETTID, start, &start->pid) < 0)
        start->error = errno;
    _exit(0);
}

static void reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* Clones the child, by way of the helper if need be, whose pid is *helper_out then, else 0. 0 or -errno. */
static int clone_child(struct start *start, pid_t *helper_out)
{
    bool needs_help = start->spawn->cgroup_fd > 0;
    pid_t pid = needs_help ? clone(help_start, helper_stack + sizeof helper_stack, CLONE_VM | SIGCHLD, start)
                           : clone(become_program, child_stack + sizeof child_stack,
                                   CLONE_VM | SIGCHLD | CLONE_PARENT_SETTID, start, &start->pid);

    *helper_out = needs_help && pid > 0 ? pid : 0;
    return pid < 0 ? -errno : 0;
}

/* Waits for the exec, or the end, of the child, whose end of the pipe this is the other one of. 0 or -errno; then there
 * is no child any more. */
static int wait_for_exec(struct start *start, pid_t helper, int fd)
{
    bool is_timeout = !is_closed_within(fd, LONGEST_EXEC_MS), is_gone = true;

    if (is_timeout) {
        /* From its death on it does nothing more in this memory. One whose system call cannot even be ended by SIGKILL
         * is left to be waited for whenever it has returned. */
        if (start->pid > 0)
            kill(start->pid, SIGKILL);
        is_gone = is_closed_within(fd, LONGEST_DEATH_MS);
        if (helper > 0)
            kill(helper, SIGKILL);
    }
    if (helper > 0)
        reap(helper);
    int error = is_timeout ? ETIMEDOUT : start->error;
    if (error != 0 && is_gone && start->pid > 0)
        reap(start->pid);
    return -error;
}

/* The program's pid, or -errno. */
static pid_t run_child(struct start *start)
{
    pid_t helper;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    int error = clone_child(start, &helper);
    close(fds[1]); /* the child has its own */
    if (error == 0)
        error = wait_for_exec(start, helper, fds[0]);
    close(fds[0]);
    return error != 0 ? error : start->pid;
}

pid_t spawn_program(const struct spawn *spawn, enum spawn_stage *stage_out)
{
    struct start start = {.spawn = spawn, .parent = getpid(), .stage = SPAWN_FORK};
    sigset_t all, before;

    if (users_must_change(spawn->user)) {
        start.user = spawn->user;
        start.groups = users_groups(spawn->user);
    }
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = run_child(&start);
    sigprocmask(SIG_SETMASK, &before, NULL);
    *stage_out = start.stage;
    return pid;
}

pid_t spawn_self(int survives)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0)
        prctl(PR_SET_DUMPABLE, 0);
    if (pid == 0 && !survives) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

pid_t spawn_heir(const char *path, char *const *argv, char *const *envp, const int *fds, size_t n_fds)
{
    sigset_t none;
    pid_t pid = fork();

    if (pid != 0)
        return pid > 0 ? pid : -errno;
    for (int n = 1; n < NSIG; n++)
        signal(n, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* what a terminal sends is the stem's to pass on */
    setrlimit(RLIMIT_NOFILE, &inherited_files);
    for (size_t i = 0; i < n_fds; i++)
        fcntl(fds[i], F_SETFD, 0);
    execve(path, argv, envp);
    _exit(127);
}

int spawn_become(const struct config_user *user)
{
    if (!users_must_change(user))
        return 0;
    struct user_groups groups = users_groups(user);
    if (change_user(user, &groups) != 0)
        return -errno;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the change has cleared it */
    prctl(PR_SET_DUMPABLE, 0);        /* whatever fs.suid_dumpable has made of it */
    return 0;
}
