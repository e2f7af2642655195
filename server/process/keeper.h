/*
 * The keeper: owns the listening sockets, every child process, and the limits that hold over all fronts. It parses
 * nothing that a client or a program wrote, but for the first bytes of a file that could not be executed: examine.h.
 *
 *                TERM, INT, QUIT              last front gone            last program gone
 *     RUNNING ------------------> DRAINING ------------------> ENDING ------------------> exit
 *                                    | a second signal, or drain_timeout: fronts are killed
 */
#ifndef GATEHOUSE_PROCESS_KEEPER_H
#define GATEHOUSE_PROCESS_KEEPER_H

#include <stdbool.h>

#include "base/span.h"
#include "config.h"
#include "base/scoreboard.h"

/* What a front starts with. All of it lives as long as the front. */
struct front_start {
    const struct config *config;
    struct scoreboard *scoreboard;
    unsigned number;
    int channel_fd;
    const int *listen_fds; /* as many as config->server.listen.n, in that order */
    int access_fd;         /* -1: off */
    int error_fd;
};

enum {
    EXIT_CANNOT_START = 2,
};

struct keeper_options {
    const struct config *config;
    /* Runs a front to its end and returns its exit status; EXIT_CANNOT_START ends the keeper too. */
    int (*front)(const struct front_start *start);
    /* May a front give a program of the route this environment variable? */
    bool (*is_variable)(const struct config_route *route, struct span name);
    /* May a front have run this script of the route, if it is there? */
    bool (*may_run)(const struct config_route *route, struct span script);
};

/* Runs the server until it is told to end. Returns the exit status: 0, or EXIT_CANNOT_START after a message. */
int keeper_run(const struct keeper_options *options);

#endif
