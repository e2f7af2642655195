#include "process/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/channel.h"
#include "process/pools_inside.h"
#include "process/slowlog.h"
#include "process/supply.h"

enum { MOST_WAITING = 1000000 /* requests of one front, whatever it says */ };

void pool_tell(struct pool *pool, unsigned front, struct message *message)
{
    const struct pools_options *options = &pool->all->options;

    message->pool = pool->number;
    options->send(options->arg, front, message, NULL, 0);
}

/* Who waits behind its door comes first, and must know whose request it has. */
static int choose_front(const struct pool *pool, struct process *process)
{
    int waiting = process->door->holder;

    process->door->holder = NO_HOLDER;
    if (waiting != NO_HOLDER && pool->lender.shares[waiting].is_here)
        return waiting;
    return lender_next(&pool->lender);
}

void pool_lend_process(struct pool *pool, struct process *process)
{
    const struct pools_options *options = &pool->all->options;
    struct message message = {
        .kind = MESSAGE_LOAN,
        .pool = pool->number,
        .id = process->id,
        .n = process->program.index,
        .pid = process->program.pid,
        .status = process->has_answered ? LOAN_READY : LOAN_NEW,
        .soft = process->state == PROCESS_LIVE ? process->soft : 0, /* another takes its place already */
        .hard = process->hard,
    };

    if (process->state > PROCESS_SPENT) /* one that has exited has no door; others of its group may go on */
        return;
    int front = choose_front(pool, process);
    if (front < 0)
        return;
    if (process->id == pool->tried_id)
        message.status = LOAN_UNTRIED;
    int errors = fcntl(process->errors_fd, F_DUPFD_CLOEXEC, 3);
    message.text_len =
        (size_t)snprintf(message.text, sizeof message.text, "%s/%u", options->socket_dir, process->door->id);
    process->holder = front;
    lender_lent(&pool->lender, (unsigned)front);
    options->send(options->arg, (unsigned)front, &message, &errors, errors >= 0 ? 1 : 0);
}

static void lend_plain(struct pool *pool)
{
    unsigned lent[LENDER_FRONTS] = {0};

    while (pool->n_excess > 0 && pool->n_free > 0) {
        pool->n_excess--;
        pool->n_free--;
    }

    for (; pool->n_free > 0; pool->n_free--) {
        int front = lender_next(&pool->lender);

        if (front < 0)
            break;
        lender_lent(&pool->lender, (unsigned)front);
        lent[front]++;
    }
    for (unsigned front = 0; front < LENDER_FRONTS; front++) {
        struct message message = {.kind = MESSAGE_LOAN, .n = lent[front]};

        if (lent[front] > 0)
            pool_tell(pool, front, &message);
    }
}

void pool_free_slots(struct pool *pool, unsigned n)
{
    pool->n_free += n;
    lend_plain(pool);
}

void pool_lend_free(struct pool *pool)
{
    struct process *process;

    if (pool->kind != SLOT_PROCESS) {
        lend_plain(pool);
        return;
    }
    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->holder == NO_HOLDER)
        pool_lend_process(pool, process);
}

void pool_note_set_id(struct pool *pool, const struct spawn *spawn)
{
    struct stat about;

    if (!spawn->no_new_privs || pool->has_said_set_id || stat(spawn->program, &about) != 0)
        return;
    if ((about.st_mode & (S_ISUID | S_ISGID)) == 0)
        return;
    pool->has_said_set_id = true;
    log_warning("%s %s: %s is %s, which has no effect here; if it is to have one, set no_new_privs = off",
                pool->route != NULL ? "route" : "pool", pool->route != NULL ? pool->route->text : pool->config->name,
                spawn->program, about.st_mode & S_ISUID ? "set-user-ID" : "set-group-ID");
}

int pool_check_script(const struct pool *pool, int dir_fd, const char *script)
{
    struct stat about;

    if (!pool->all->options.may_run(pool->route, span_of(script)))
        return -EACCES;
    int fd = beneath_open(dir_fd, script, pool->route->site->symlinks, O_PATH);
    if (fd < 0)
        return fd;
    int error = fstat(fd, &about) != 0 ? -errno : S_ISREG(about.st_mode) ? 0 : -EACCES;
    close(fd);
    return error;
}

static void recall_for_waiting(struct pool *pool)
{
    struct message message = {.kind = MESSAGE_RECALL, .n = 1};
    const struct scoreboard_front *fronts = pool->all->options.scoreboard->fronts;
    int front;

    _Static_assert((int)LENDER_FRONTS <= (int)SCOREBOARD_FRONTS, "each front has its part");
    for (unsigned i = 0; i < LENDER_FRONTS; i++)
        if (pool->lender.shares[i].is_here) /* pages of places that nobody has are not to be touched */
            pool->lender.shares[i].idle = fronts[i].shares[pool->number].n_idle;
    while ((front = lender_recall(&pool->lender)) >= 0)
        pool_tell(pool, (unsigned)front, &message);
}

/* ---- fronts ---- */

static void let_in(struct pool *pool, unsigned front)
{
    struct lender_share *share = &pool->lender.shares[front];

    if (share->is_here)
        return;
    *share = (struct lender_share){.is_here = true, .is_leaving = pool->all->is_leaving[front]};
    pool_lend_free(pool);
}

void pools_front_came(struct pools *pools, unsigned front, const struct binding *binding, bool only_new)
{
    size_t n = binding->config->n_pools + binding->config->n_routes;

    for (size_t i = 0; i < n; i++) {
        struct pool *pool = pools->at[binding->numbers[i]];

        if (!only_new || pool->of == binding->config)
            let_in(pool, front);
    }
}

void pools_front_leaves(struct pools *pools, unsigned front)
{
    pools->is_leaving[front] = true; /* a script's pool may be opened yet */
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL)
            pools->at[i]->lender.shares[front].is_leaving = true;
}

static void take_out(struct pool *pool, unsigned front)
{
    struct lender_share *share = &pool->lender.shares[front];

    if (pool->kind == SLOT_PROCESS)
        processes_front_left(pool, front);
    else
        pool->n_free += share->loans - pool->n_running[front]; /* those slots are free when the runs have ended */
    if (pool->kind == SLOT_RUN)
        runs_front_left(pool, front);
    *share = (struct lender_share){0};
    pool_lend_free(pool);
    recall_for_waiting(pool); /* what it still owed does not come any more */
}

void pools_front_left(struct pools *pools, unsigned front)
{
    pools->is_leaving[front] = false;
    for (unsigned i = 0; i < pools->n; i++)
        if (pools->at[i] != NULL && pools->at[i]->lender.shares[front].is_here)
            take_out(pools->at[i], front);
}

/* ---- what fronts say ---- */

static int take_back(struct pool *pool, unsigned front, const struct message *message)
{
    struct lender_share *share = &pool->lender.shares[front];

    if (pool->kind == SLOT_PROCESS)
        return processes_return(pool, front, message);
    unsigned busy = pool->kind == SLOT_RUN ? pool->n_running[front] : 0;
    if (message->n > share->loans || share->loans - message->n < busy)
        return -EPROTO;
    for (unsigned i = 0; i < message->n; i++)
        lender_returned(&pool->lender, front, (int64_t)i < message->status);
    pool->n_free += message->n;
    lend_plain(pool);
    return 0;
}

/* OPEN: `pool` is the route's number, the text its script. */
static int open_pool(struct pool *of_route, unsigned front, const struct message *message)
{
    const struct config_route *route = of_route->route;
    struct message answer = {.kind = MESSAGE_REFUSED, .id = message->id};
    char path[PATH_MAX];

    if (route == NULL || route->gateway != GATEWAY_FASTCGI || route->pool->kind != POOL_SCRIPTS)
        return -EPROTO;
    int dir_fd = open(route_directory(route), O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = dir_fd >= 0 ? pool_check_script(of_route, dir_fd, message->text) : -errno;
    if (dir_fd >= 0)
        close(dir_fd);
    if (error == 0 && snprintf(path, sizeof path, "%s/%s", route_directory(route), message->text) >= (int)sizeof path)
        error = -ENAMETOOLONG;
    struct pool *pool = error == 0 ? pool_open_script(of_route->base, path) : NULL;
    if (pool != NULL) {
        answer.kind = MESSAGE_OPENED;
        answer.n = pool->number;
        pool_tell(of_route, front, &answer);
        let_in(pool, front);
        supply_decide(pool);
        return 0;
    }
    answer.status = error != 0 ? -error : EAGAIN;
    answer.n = error != 0;
    answer.text_len =
        (size_t)snprintf(answer.text, sizeof answer.text, "%s",
                         error != 0 ? strerror(-error) : "too many scripts have had processes; a reload forgets them");
    pool_tell(of_route, front, &answer);
    return 0;
}

/* What is said of one process. One that is not lent to that front is no offence: it may speak of a process while the
 * news of its end is on the way. */
static void receive_of_process(struct pool *pool, unsigned front, const struct message *message)
{
    struct process *process = process_find(pool, front, message->id);

    if (process == NULL)
        return;
    switch (message->kind) {
    case MESSAGE_READY:
        supply_answered(process);
        break;
    case MESSAGE_SPENT:
        supply_spend(process, END_REQUESTS);
        break;
    case MESSAGE_USED:
        supply_measure(process);
        break;
    case MESSAGE_ASK:
        process_tell_fate(process);
        break;
    default:
        proof_told(pool, process->id, message->n != 0 ? NULL : message->text);
        break;
    }
}

/* SLOW: of a process that the front has on loan, which the kernel is asked about, or of a server. */
static int receive_slow(struct pool *pool, unsigned front, const struct message *message)
{
    const struct process *process = NULL;

    if (pool->config == NULL || (pool->kind == SLOT_PROCESS) != (message->id != 0))
        return -EPROTO;
    if (pool->kind == SLOT_PROCESS && (process = process_find(pool, front, message->id)) == NULL)
        return 0; /* it has ended meanwhile */
    if (pool->config->request_slowlog_timeout_ms > 0)
        slowlog_add(pool->all->options.base, pool->config, process != NULL ? process->program.pid : 0,
                    (struct span){message->text, message->text_len});
    return 0;
}

static void receive_want(struct pool *pool, unsigned front, unsigned n)
{
    pool->lender.shares[front].waiting = n < MOST_WAITING ? n : MOST_WAITING;
    if (n > 0)
        pool_lend_free(pool);
    recall_for_waiting(pool);
    if (pool->kind == SLOT_PROCESS && n > 0)
        supply_decide(pool);
}

static int receive(struct pool *pool, unsigned front, const struct message *message, const int *fds)
{
    int error;

    switch (message->kind) {
    case MESSAGE_WANT:
        receive_want(pool, front, message->n);
        return 0;
    case MESSAGE_RETURN:
        error = take_back(pool, front, message);
        recall_for_waiting(pool); /* whoever has got it may have to pass it on when it is done */
        return error;
    case MESSAGE_RUN:
        return runs_start(pool, front, message, fds);
    case MESSAGE_END:
        return pool->kind == SLOT_PROCESS ? processes_end(pool, front, message) : runs_end(pool, front, message->id);
    case MESSAGE_OPEN:
        return open_pool(pool, front, message);
    case MESSAGE_SLOW:
        return receive_slow(pool, front, message);
    case MESSAGE_SPARE:
        if (pool->kind == SLOT_PROCESS)
            supply_decide(pool);
        return 0;
    case MESSAGE_READY:
    case MESSAGE_SPENT:
    case MESSAGE_USED:
    case MESSAGE_ASK:
    case MESSAGE_PROVEN:
        if (pool->kind == SLOT_PROCESS)
            receive_of_process(pool, front, message);
        return 0;
    default:
        return -EPROTO;
    }
}

int pools_receive(struct pools *pools, unsigned front, const struct message *message, const int *fds, unsigned n_fds)
{
    struct pool *pool = message->pool < pools->n ? pools->at[message->pool] : NULL;
    bool is_here = pool != NULL && pool->lender.shares[front].is_here;
    int error = is_here ? receive(pool, front, message, fds) : -EPROTO;

    channel_close_received(fds, n_fds);
    return error;
}
