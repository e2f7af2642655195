/*
 * The keeper: owns the listening sockets, every child process, and the limits that hold over all fronts. It parses
 * nothing that a client or a program wrote, but for the first bytes of a file that could not be executed: examine.h.
 *
 *                TERM, INT, QUIT              last front gone            last program gone
 *     RUNNING ------------------> DRAINING ------------------> ENDING ------------------> exit
 *       |  ^                         | a second signal, or drain_timeout: fronts are killed
 *       +--+ HUP: another generation of fronts, with the configuration as it is now: reload.c
 */
#ifndef GATEHOUSE_PROCESS_KEEPER_H
#define GATEHOUSE_PROCESS_KEEPER_H

#include <stdbool.h>
#include <stdio.h>

#include "base/scoreboard.h"
#include "base/span.h"
#include "config.h"
#include "process/pools.h"

/* What a front starts with. All of it lives as long as the front. */
struct front_start {
    const struct config *config;
    const struct binding *binding; /* what its pools are called */
    struct scoreboard *scoreboard;
    unsigned number;     /* its place on the scoreboard */
    unsigned generation; /* of its configuration */
    int channel_fd;
    const int *listen_fds; /* as many as config->server.listen.n, in that order */
    int access_fd;         /* -1: off */
    int error_fd;
};

enum {
    EXIT_CANNOT_START = 2,
};

struct keeper_options {
    /* Reads the configuration: the caller's to free; or NULL, with what is wrong in `errors`, a line each. */
    struct config *(*load)(void *arg, FILE *errors);
    void *arg;
    /* Runs a front to its end and returns its exit status; EXIT_CANNOT_START ends the keeper too. */
    int (*front)(const struct front_start *start);
    /* May a front give a program of the route this environment variable? */
    bool (*is_variable)(const struct config_route *route, struct span name);
    /* May a front have run this script of the route, if it is there? */
    bool (*may_run)(const struct config_route *route, struct span script);
    char *const *argv; /* that this program was started with */
};

/* Runs the server with that configuration, which it takes over, until it is told to end. Returns the exit status: 0, or
 * EXIT_CANNOT_START after a message. */
int keeper_run(const struct keeper_options *options, struct config *config);

#endif
