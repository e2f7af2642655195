/*
 * The command `gatehouse fcgi`: speaks FastCGI 1.0 to any application.
 *
 *     gatehouse fcgi get ADDR [SCRIPT] [OPTION...]     one request
 *     gatehouse fcgi ping ADDR                         does FastCGI answer there, and how soon?
 *     gatehouse fcgi values ADDR                       what it says about itself
 */
#ifndef GATEHOUSE_TOOLS_FCGI_H
#define GATEHOUSE_TOOLS_FCGI_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "fastcgi/record.h"
#include "tools/fcgi_request.h"

/* Exit codes. */
enum fcgi_exit {
    FCGI_FINE = 0,
    FCGI_USAGE = 1,   /* the command line, or a file on it */
    FCGI_FAILED = 2,  /* no connection, no FastCGI, no answer in time, an answer that the server would refuse */
    FCGI_REFUSED = 3, /* get: a whole answer, but its status is 400 or above, or appStatus is not 0 */
};

/* argv[0] is the program's name for messages, argv[1] the command behind "fcgi". Ignores SIGPIPE from then on. Returns
 * an exit code. */
int fcgi_run(int argc, char **argv);

/* What the command line says. */
struct fcgi_line {
    struct config_address address;
    struct fcgi_request_words request;
    const char *data, *filter; /* NULL: not said */
    enum record_role role;
    bool has_role, shows_head, is_verbose;
    uint64_t timeout_ms, max_ms; /* max_ms 0: none */
};

/* The three of them: private to fcgi*.c. Each returns an exit code. */
int fcgi_get(const struct fcgi_line *line);
int fcgi_ping(const struct fcgi_line *line);
int fcgi_values(const struct fcgi_line *line);

#endif
