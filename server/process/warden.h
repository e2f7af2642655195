/*
 * The warden: a process that does nothing but wait for the keeper's end, and then ends whatever the keeper could not:
 * the process groups on the scoreboard, and the directory of sockets. So that SIGKILL of the keeper leaves no orphan,
 * not even the children of its programs, which no parent-death signal reaches.
 */
#ifndef GATEHOUSE_PROCESS_WARDEN_H
#define GATEHOUSE_PROCESS_WARDEN_H

#include <sys/types.h>

#include "process/scoreboard.h"

struct warden {
    pid_t pid;
    int fd; /* must stay open in the keeper, and nowhere else: its end, by whatever cause, is the warden's signal */
};

/* Forks it: 0 or -errno. Before any event base exists. */
int warden_start(struct warden *warden_out, struct scoreboard *scoreboard);

/* Lets it do its work, of which there is little after an end in good order, and waits for its exit. */
void warden_dismiss(struct warden *warden);

#endif
