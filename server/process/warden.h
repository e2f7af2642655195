/*
 * The warden: a process that does nothing but wait for the keeper's end, and then ends whatever the keeper could not:
 * the process groups of its programs, its control groups, and the directory of sockets. So that SIGKILL of the keeper
 * leaves no orphan, not even the children of its programs, which no parent-death signal reaches; but for what has left
 * its program's process group and is in no control group.
 */
#ifndef GATEHOUSE_PROCESS_WARDEN_H
#define GATEHOUSE_PROCESS_WARDEN_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/scoreboard.h"
#include "process/cgroup.h"

enum { WARDS_PATH = 80 };

/* What must not outlive the keeper. Shared by it, who writes, and the warden, who reads; fronts must not have it. */
struct wards {
    char socket_dir[WARDS_PATH];                 /* to be removed at the end */
    _Atomic int32_t groups[SCOREBOARD_PROGRAMS]; /* process groups; 0: free */
};

/* Maps a zeroed one. Ends the program when there is no memory. */
struct wards *wards_create(void);

/* In a front: it has no business with it. */
void wards_forget(struct wards *wards);

struct warden {
    pid_t pid; /* 0: there is none */
    int fd;    /* must stay open in the keeper, and nowhere else: its end, by whatever cause, is the warden's signal */
};

/* Forks it: 0 or -errno. cgroups NULL: there are none. */
int warden_start(struct warden *warden_out, struct wards *wards, const struct cgroups *cgroups);

/* Lets it do its work, of which there is little after an end in good order, and waits for its exit. */
void warden_dismiss(struct warden *warden);

#endif
