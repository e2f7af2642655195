/* What pools.c, processes.c and runs.c share, and nobody else. */
#ifndef GATEHOUSE_PROCESS_POOLS_INSIDE_H
#define GATEHOUSE_PROCESS_POOLS_INSIDE_H

#include "base/buffer.h"
#include "process/pools.h"

enum slot_kind {
    SLOT_PROCESS,    /* a FastCGI process of ours */
    SLOT_RUN,        /* the right to one CGI run */
    SLOT_CONNECTION, /* the right to one connection to a server */
};

enum { NO_HOLDER = -1 };

/* A FastCGI process of ours. It is lent, or nobody is there to lend it to, or it is ending. */
struct process {
    struct program program;
    TAILQ_ENTRY(process) next;
    struct pool *pool;
    uint32_t id;   /* what fronts call it by; never used again */
    int holder;    /* the front that has it on loan */
    int errors_fd; /* what it writes to its descriptor 2; -1 once it has exited */
};

/* One run of a CGI program. */
struct run_slot {
    struct program program;
    TAILQ_ENTRY(run_slot) next;
    struct pool *pool;
    uint32_t id;   /* the front's own name for it */
    int holder;    /* NO_HOLDER: the front is gone, or knows that it has ended */
    bool has_slot; /* after its front is gone: which is free once it has exited */
};

struct pool {
    struct pools *all;
    unsigned number;
    enum slot_kind kind;
    const struct config_pool *config; /* SLOT_PROCESS, SLOT_CONNECTION */
    const struct config_route *route; /* SLOT_RUN */
    char *script;                     /* of a script's own pool: the absolute path of what it runs */
    unsigned capacity;
    unsigned n_free; /* plain slots that nobody has */
    struct lender lender;
    char **env; /* what every program of it gets, NULL-terminated */

    TAILQ_HEAD(, process) processes;
    unsigned n_processes;   /* all of them */
    unsigned n_live;        /* processes that are not ending */
    unsigned failures;      /* in a row: processes that died young without having served */
    struct event *next_try; /* to start what is missing, later */
    bool is_down;
    bool has_said_set_id; /* that no_new_privs has taken a program's set-user-ID bit its effect */

    int dir_fd; /* SLOT_RUN: the route's directory, -1 with a program for the whole prefix */
    TAILQ_HEAD(, run_slot) runs;
    unsigned n_running[LENDER_FRONTS];
    uint64_t stuck_until_us; /* until when nothing is started: an exec did not come to an end */
    unsigned n_memory_kills; /* by the route's control group, which no run has been blamed for yet */
};

struct pools {
    struct pools_options options;
    struct pool **at;
    unsigned n;
    uint32_t next_id;
    bool is_stopped;
};

enum { SOCKET_PATH = WARDS_PATH + 16 };

/* The path below which a CGI route's scripts are. */
static inline const char *route_directory(const struct config_route *route)
{
    return route->dir != NULL ? route->dir : route->site->root;
}

/* Who its programs run as: who it names, or else who the fronts run as. */
static inline const struct config_user *pool_user(const struct pool *pool, const struct config_user *named)
{
    return named->name != NULL ? named : &pool->all->options.config->server.user;
}

/* pools.c */
void pool_note_set_id(struct pool *pool, const struct spawn *spawn); /* says it once, if it is so */
void pool_lend_process(struct pool *pool, struct process *process);
void pool_free_slots(struct pool *pool, unsigned n); /* plain ones, which nobody has any more */
void pool_tell(struct pool *pool, unsigned front, struct message *message);

/* Asks may_run() of `script`, opens it beneath the route's directory by the site's rule for links and says whether it
 * is a regular file: 0 or -errno. The keeper's own check of what a front asks for. */
int pool_check_script(const struct pool *pool, int dir_fd, const char *script);

/* processes.c */
void processes_prepare(struct pool *pool);
void processes_want(struct pool *pool); /* starts what is missing, now or after the back-off */
void processes_front_left(struct pool *pool, unsigned front);
int processes_return(struct pool *pool, unsigned front, uint32_t id);
int processes_end(struct pool *pool, unsigned front, uint32_t id);

/* runs.c */
int runs_prepare(struct pool *pool);
int runs_start(struct pool *pool, unsigned front, const struct message *message, const int fds[4]);
int runs_end(struct pool *pool, unsigned front, uint32_t id);
void runs_front_left(struct pool *pool, unsigned front);

/* environ.c */
char **environ_make(const struct config_pairs *env, const struct config_words *pass_env, bool whole);
bool environ_has(char *const *env, struct span name);
void environ_free(char **env);

#endif
