/* [pool NAME]: FastCGI processes of ours, or servers that run already. */
#ifndef GATEHOUSE_CONFIG_POOL_H
#define GATEHOUSE_CONFIG_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config_types.h"

enum pool_kind {
    POOL_MANAGED, /* command = ...: we start the processes */
    POOL_SCRIPTS, /* command = $script: the same, and each requested script has processes of its own */
    POOL_SERVERS, /* server = ...: applications that run already */
};

/* An application that runs already; or a name that stands for several. */
enum remote_kind {
    REMOTE_ADDRESS, /* HOST:PORT with a numeric HOST; unix:/path */
    REMOTE_HOST,    /* NAME:PORT: all of the name's addresses */
    REMOTE_SRV,     /* srv:NAME: what the name's SRV records lead to (RFC 2782) */
};

struct config_remote {
    char *text; /* as written, without what may stand behind it: for messages */
    enum remote_kind kind;
    struct sockaddr_storage address; /* REMOTE_ADDRESS */
    socklen_t len;
    char *name; /* else */
    unsigned port;
    unsigned weight, max_connections; /* 0: not given; then 1, or the record's, and the pool's */
    bool is_backup;
};

struct config_remotes {
    struct config_remote *at;
    size_t n;
};

enum { CONFIG_REMOTES = 64 }; /* servers of a pool, at most; addresses that names stand for, too */

/* Which of a pool's servers a request is given to. */
enum balance { BALANCE_LEAST_BUSY, BALANCE_ROUND_ROBIN, BALANCE_HASH };

struct config_health {
    char *path; /* with its query, if it has one; NULL: nobody is asked */
    uint64_t interval_ms;
};

/* php-fpm's process managers: how many processes there are. */
enum pm { PM_STATIC, PM_DYNAMIC, PM_ONDEMAND };

struct config_pool {
    unsigned index;
    unsigned line;
    char *name;
    enum pool_kind kind;
    unsigned queue;
    uint64_t queue_timeout_ms;
    uint64_t request_terminate_timeout_ms, request_slowlog_timeout_ms; /* 0: none */
    char *slowlog;                                                     /* absolute path; NULL: the error log */
    bool multiplex; /* requests share a connection, where the application says that it can do so */

    struct config_remotes servers;
    unsigned max_connections; /* for each server */
    unsigned n_connections;   /* to all of them; where names stand for some: as many as there can be */
    enum balance balance;
    char *hash_cookie; /* of BALANCE_HASH; NULL: the client's address */
    unsigned max_fails;
    uint64_t fail_timeout_ms, connect_timeout_ms, slow_start_ms;
    struct config_health health;

    struct config_words command; /* argv, POOL_MANAGED only; [0] is an absolute path, already looked up in PATH */
    enum pm pm;
    unsigned max_children, start_servers, min_spare_servers, max_spare_servers, max_spawn_rate;
    uint64_t process_idle_timeout_ms;
    unsigned max_requests;           /* 0: no limit */
    uint64_t max_memory, max_age_ms; /* 0: no limit */
    uint64_t start_timeout_ms;       /* for the first process of new settings to prove itself, on reload */
    struct config_user user;
    struct config_rlimits rlimits;
    int priority; /* nice(2) */
    bool no_new_privs;
    char *chdir;
    bool clear_env; /* on: only PATH, pass_env and env[...]; off: the server's own environment too */
    struct config_pairs env;
    struct config_words pass_env;
    char *identity; /* of pools with a command: a text that differs when processes have to be replaced by others */
};

#endif
