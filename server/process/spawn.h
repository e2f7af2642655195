/*
 * Starting processes: the one file that forks.
 *
 * Programs are started by a clone that shares the memory, and exec, so that the cost does not grow with the keeper's
 * memory; fronts and the warden, which go on as this program, by fork. Every descriptor of this program is
 * close-on-exec; a program gets 0, 1 and 2 and nothing else, an empty signal mask, default signal actions, a session of
 * its own, the supplementary groups of its user, and no core file, unless rlimit_core says otherwise or it asks for one
 * itself.
 */
#ifndef GATEHOUSE_PROCESS_SPAWN_H
#define GATEHOUSE_PROCESS_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config.h"

/* Once, first thing in the program: makes sure that 0, 1 and 2 are taken, forgets signals that were ignored when it
 * was started (they would be inherited on), ignores SIGPIPE, and raises the limit of descriptors to what is allowed;
 * programs get back the one that was. */
void spawn_prepare(void);

/* Where a start failed: errno alone does not tell "the program" from "its directory". */
enum spawn_stage {
    SPAWN_SOCKET, /* its listening socket and pipes, which its owner makes */
    SPAWN_FORK,
    SPAWN_CGROUP,
    SPAWN_LIMITS,
    SPAWN_USER,
    SPAWN_DIRECTORY,
    SPAWN_EXEC,
};

/* One program to start. All pointers are borrowed for the call. */
struct spawn {
    const char *program; /* absolute path */
    char *const *argv;
    char *const *envp;
    const char *directory;                /* to run in; NULL: "/" */
    int fds[3];                           /* to become 0, 1 and 2; they stay the caller's */
    const struct config_user *user;       /* NULL or without name: unchanged */
    const struct config_rlimits *rlimits; /* NULL: unchanged */
    int cgroup_fd;                        /* cgroup.procs of the control group that it is put into; 0: stays here */
    int priority;                         /* nice(2); 0: as this process */
    bool no_new_privs;                    /* no set-user-ID, set-group-ID or file capability counts for it, ever */
};

/*
 * Starts it. Returns its pid, which is also its session and process group; the caller reaps it. Or -errno, with the
 * stage that failed; then there is no process left behind, unless one that not even SIGKILL ends at once. Waits for
 * the exec, for a second at most: -ETIMEDOUT, in whatever stage it was. -ETXTBSY also for a file that somebody has a
 * lease on. The program gets SIGKILL should this process die.
 */
pid_t spawn_program(const struct spawn *spawn, enum spawn_stage *stage_out);

/* Forks this program: 0 in the new process, which gets SIGKILL should this one die unless `survives`; its pid here,
 * or -errno. Signals are blocked in neither. No process without privileges, not even of the same user, may look into
 * the new one's memory or take its descriptors, from its birth on. */
pid_t spawn_self(int survives);

/* Forks and executes another server, of this program or of a newer one: it survives this process, and keeps its user,
 * its directory, its 0, 1 and 2 and these descriptors. Its pid or -errno; that it cannot be executed shows in its exit
 * with status 127. */
pid_t spawn_heir(const char *path, char *const *argv, char *const *envp, const int *fds, size_t n_fds);

/* Gives up root for good: group, supplementary groups, user. 0 or -errno. Nothing to do without a name: 0. */
int spawn_become(const struct config_user *user);

#endif
