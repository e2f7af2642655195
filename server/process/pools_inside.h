/* What the files of the keeper's pools share, and nobody else. */
#ifndef GATEHOUSE_PROCESS_POOLS_INSIDE_H
#define GATEHOUSE_PROCESS_POOLS_INSIDE_H

#include "base/buffer.h"
#include "fastcgi/policy.h"
#include "process/environ.h"
#include "process/pools.h"

enum slot_kind {
    SLOT_PROCESS,    /* a FastCGI process of ours */
    SLOT_RUN,        /* the right to one CGI run */
    SLOT_CONNECTION, /* the right to one connection to a server */
    SLOT_NONE,       /* a route that no program serves */
};

enum { NO_HOLDER = -1 };

/*
 * A FastCGI process of ours:
 *
 *             as many requests, as large, as old        another has proven itself,
 *             as it may be: another is started           or there is no need for it     returned, or nobody's
 *     LIVE -----------------------------------> SPENT -------------------------> RETIRING ---------> ENDING
 *       |  there are more than are needed                                           ^                   ^
 *       +---------------------------------------------------------------------------+                   |
 *       |  END: its request took too long                                                               |
 *       +-----------------------------------------------------------------------------------------------+
 *
 * and whatever its state, it may exit by itself. LIVE ones are those that the policy counts.
 */
enum process_state { PROCESS_LIVE, PROCESS_SPENT, PROCESS_RETIRING, PROCESS_ENDING };

/* What a process listens on. It outlives a process that dies: who has connected waits for the next. */
struct door {
    TAILQ_ENTRY(door) next;
    int fd;
    uint32_t id; /* its name in the directory of sockets */
    int holder;  /* the front whose request waits behind it; NO_HOLDER: none does */
};

struct process {
    struct program program;
    TAILQ_ENTRY(process) next;
    struct pool *pool;
    uint32_t id; /* what fronts call it by; never used again */
    enum process_state state;
    enum scoreboard_end cause; /* why it is spent, retiring or ending */
    bool has_answered;
    int holder;    /* the front that has it on loan */
    int errors_fd; /* what it writes to its descriptor 2; -1 once it has exited */
    struct door *door;
    uint32_t soft, hard;   /* requests; 0: no limit */
    uint64_t memory_limit; /* bytes; 0: none */
    uint64_t measured_us;  /* clock_us() when it was; 0: never */
    uint64_t old_us;       /* clock_us() when it will be old; UINT64_MAX: never */
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

enum proof {
    PROOF_NONE,   /* in service */
    PROOF_WANTED, /* its first process is to be proven */
    PROOF_GIVEN,  /* it was, and the configuration is about to hold */
};

struct pool {
    struct pools *all;
    unsigned number;
    enum slot_kind kind;
    unsigned n_bindings;              /* configurations that are bound to it; of a script's pool: 1 */
    const struct config *of;          /* whose the next two are */
    const struct config_pool *config; /* SLOT_PROCESS, SLOT_CONNECTION */
    const struct config_route *route; /* others */
    struct pool *base;                /* of a route: its pool; of a script's pool: the pool that it is one of */
    char *script;                     /* of a script's own pool: the absolute path of what it runs */
    unsigned capacity;
    unsigned n_free;   /* plain slots that nobody has */
    unsigned n_excess; /* ... that are on loan, but are too many: not lent again */
    struct lender lender;
    char **env; /* what every program of it gets, NULL-terminated */

    TAILQ_HEAD(, process) processes;
    TAILQ_HEAD(doors, door) doors; /* of processes that have died, for the next */
    unsigned n_processes;          /* all of them */
    unsigned n_live, n_spent;
    unsigned failures;      /* in a row: processes that died young without having served */
    uint64_t failed_us;     /* clock_us() of the last */
    struct event *next_try; /* to start what is missing, later */
    struct event *review;   /* to look at how many there are, and how old */
    struct policy_rate rate;
    enum proof proof;
    uint32_t tried_id; /* the process that is to be proven */
    unsigned n_tries;
    struct event *proof_limit; /* for it */
    bool has_started;          /* ever, a process */
    bool is_down, is_limited;
    bool is_ending;       /* nothing is bound to it any more */
    bool has_said_set_id; /* that no_new_privs has taken a program's set-user-ID bit its effect */

    int dir_fd; /* SLOT_RUN: the route's directory, -1 with a program for the whole prefix */
    TAILQ_HEAD(, run_slot) runs;
    unsigned n_running[LENDER_FRONTS];
    uint64_t stuck_until_us; /* until when nothing is started: an exec did not come to an end */
    unsigned group;          /* the route's number among the control groups; UINT_MAX: it has none */
    unsigned n_memory_kills; /* by it, which no run has been blamed for yet */
};

struct pools {
    struct pools_options options;
    struct pool *at[SCOREBOARD_POOLS]; /* by number; NULL: free */
    unsigned n;                        /* none is above */
    unsigned n_scripts;
    struct event *sweep; /* pools that have ended are freed in the loop's next turn */
    uint32_t next_id;
    bool is_stopped;
    bool has_committed;             /* a configuration holds, or has held */
    bool is_leaving[LENDER_FRONTS]; /* the front drains */
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
    return named->name != NULL ? named : &pool->of->server.user;
}

static inline struct scoreboard_pool *pool_board(const struct pool *pool)
{
    return &pool->all->options.scoreboard->pools[pool->number];
}

static inline struct scoreboard_process *process_board(const struct process *process)
{
    return &process->pool->all->options.scoreboard->processes[process->program.index];
}

/* ---- pools.c ---- */
void pool_note_set_id(struct pool *pool, const struct spawn *spawn); /* says it once, if it is so */
void pool_lend_process(struct pool *pool, struct process *process);
void pool_free_slots(struct pool *pool, unsigned n); /* plain ones, which nobody has any more */
void pool_lend_free(struct pool *pool);
void pool_tell(struct pool *pool, unsigned front, struct message *message);

/* Asks may_run() of `script`, opens it beneath the route's directory by the site's rule for links and says whether it
 * is a regular file: 0 or -errno. The keeper's own check of what a front asks for. */
int pool_check_script(const struct pool *pool, int dir_fd, const char *script);

/* ---- binding.c ---- */
struct pool *pool_open_script(struct pool *base, const char *path); /* finds or makes; NULL: there are too many */
void pool_release(struct pool *pool);                               /* one binding less */
void pool_sweep_later(struct pools *pools);                         /* one may have ended */
void pool_set_capacity(struct pool *pool, unsigned capacity);       /* of plain slots */
void pool_show(const struct pool *pool);                            /* on the scoreboard */

/* ---- processes.c: the life of one ---- */

int process_start(struct pool *pool);                                    /* 0, or -errno after the message */
void process_retire(struct process *process, enum scoreboard_end cause); /* as soon as it is free */
void process_set_state(struct process *process, enum process_state state, enum scoreboard_end cause);
struct process *process_find(const struct pool *pool, unsigned front, uint32_t id); /* NULL: not that front's */
void process_tell_fate(struct process *process);                                    /* ASK */
int processes_return(struct pool *pool, unsigned front, const struct message *message);
int processes_end(struct pool *pool, unsigned front, const struct message *message);
void processes_front_left(struct pool *pool, unsigned front);
void processes_close_doors(struct pool *pool);

/* ---- runs.c ---- */
int runs_prepare(struct pool *pool);
int runs_start(struct pool *pool, unsigned front, const struct message *message, const int fds[4]);
int runs_end(struct pool *pool, unsigned front, uint32_t id);
void runs_front_left(struct pool *pool, unsigned front);

#endif
