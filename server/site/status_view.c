#include "site/status_view.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

enum { STARTING_US = 1000000 };

const uint32_t view_bins_us[VIEW_BINS] = {
    0, 100, 300, 1000, 3000, 10000, 30000, 100000, 300000, 1000000, 3000000, UINT32_MAX,
};

static const struct scoreboard_front *front_at(const struct scoreboard *scoreboard, unsigned i)
{
    return &scoreboard->fronts[i];
}

static unsigned n_fronts(const struct scoreboard *scoreboard)
{
    uint32_t n = scoreboard->n_fronts;

    return n < SCOREBOARD_FRONTS ? n : SCOREBOARD_FRONTS;
}

/* ---- fronts ---- */

static void read_front(struct view *view, const struct scoreboard_front *front, unsigned number)
{
    const struct counters *counters = &front->counters;
    struct view_front here = {
        .number = number,
        .pid = front->pid,
        .generation = front->generation,
        .is_draining = front->is_draining != 0,
        .start_us = front->start_us,
        .accepted = counters->accepted,
        .open = counters->open,
        .requests = counters->requests,
    };

    view->accepted += here.accepted;
    view->requests += here.requests;
    for (int i = 0; i < 6; i++)
        view->statuses[i] += counters->statuses[i];
    if (here.pid == 0)
        return;
    view->open += here.open;
    view->fronts[view->n_fronts++] = here;
}

/* ---- waits ---- */

static int by_size(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;

    return (one > other) - (one < other);
}

/* The least value that at least `percent` of all do not exceed. */
static uint32_t percentile(const uint32_t *sorted, unsigned n, unsigned percent)
{
    return n > 0 ? sorted[((uint64_t)n * percent + 99) / 100 - 1] : 0;
}

static void summarize(struct view_waits *waits, uint32_t *values)
{
    unsigned n = waits->n_sample, bin = 0;

    if (n == 0)
        return;
    qsort(values, n, sizeof *values, by_size);
    waits->p50 = percentile(values, n, 50);
    waits->p90 = percentile(values, n, 90);
    waits->p99 = percentile(values, n, 99);
    waits->most = values[n - 1];
    for (unsigned i = 0; i < n; i++) {
        while (values[i] > view_bins_us[bin])
            bin++;
        waits->bins[bin]++;
    }
}

static void read_waits(const struct scoreboard *scoreboard, unsigned number, struct view_waits *waits)
{
    unsigned n_there = n_fronts(scoreboard); /* once: a front may change it meanwhile */

    waits->n = scoreboard->past_shares[number].n_waits;
    uint32_t *values = memory_zeroed((size_t)n_there * SCOREBOARD_WAITS + 1, sizeof *values);
    for (unsigned i = 0; i < n_there; i++) {
        const struct scoreboard_share *share = &front_at(scoreboard, i)->shares[number];
        uint64_t n = atomic_load_explicit(&share->n_waits, memory_order_acquire);

        waits->n += n;
        for (unsigned k = 0; k < SCOREBOARD_WAITS && k < n; k++)
            values[waits->n_sample++] = share->waits_us[k];
    }
    summarize(waits, values);
    free(values);
}

/* ---- pools ---- */

static void add_share(struct view_pool *pool, const struct scoreboard_share *share, bool is_here)
{
    uint32_t most_waiting = share->most_waiting, most_active = share->most_active;

    pool->most_waiting = most_waiting > pool->most_waiting ? most_waiting : pool->most_waiting;
    pool->most_active = most_active > pool->most_active ? most_active : pool->most_active;
    pool->n_accepted += share->n_accepted;
    pool->n_full += share->n_full;
    pool->n_expired += share->n_expired;
    pool->n_down += share->n_down;
    pool->n_left += share->n_left;
    pool->n_crashed += share->n_crashed;
    pool->n_terminated += share->n_terminated;
    pool->n_slow += share->n_slow;
    pool->n_retried += share->n_retried;
    if (!is_here)
        return; /* what that front had, it has no more */
    pool->n_waiting += share->n_waiting;
    pool->n_idle += share->n_idle;
    pool->n_active += share->n_active;
}

static void read_saturation(const struct scoreboard *scoreboard, struct view_pool *pool)
{
    const struct scoreboard_saturation *part = &scoreboard->saturations[pool->number];
    struct scoreboard_saturation *copy = memory_zeroed(1, sizeof *copy);

    if (scoreboard_read(&part->version, part, copy, sizeof *copy) && copy->at_unix_us != 0) {
        pool->full_unix_us = copy->at_unix_us;
        memcpy(pool->full_text, copy->text, sizeof pool->full_text - 1);
    }
    free(copy);
}

/* False: it is not there. */
static bool read_pool(const struct scoreboard *scoreboard, unsigned number, struct view_pool *pool)
{
    const struct scoreboard_pool *part = &scoreboard->pools[number];

    *pool = (struct view_pool){.number = number};
    if (!part->is_there || !scoreboard_read(&part->version, part, &pool->about, sizeof *part) || !pool->about.is_there)
        return false;
    pool->about.name[sizeof pool->about.name - 1] = '\0';
    pool->about.script[sizeof pool->about.script - 1] = '\0';
    pool->about.down_why[sizeof pool->about.down_why - 1] = '\0';
    pool->is_down = pool->about.is_down != 0;
    pool->n_started = pool->about.n_started;
    pool->n_limit_reached = pool->about.n_limit_reached;
    for (int i = 0; i < N_ENDS; i++)
        pool->ends[i] = pool->about.ends[i];
    add_share(pool, &scoreboard->past_shares[number], false);
    for (unsigned i = 0; i < n_fronts(scoreboard); i++)
        add_share(pool, &front_at(scoreboard, i)->shares[number], front_at(scoreboard, i)->pid != 0);
    pool->n_total = pool->n_idle + pool->n_active;
    if (pool->n_active > pool->most_active)
        pool->most_active = pool->n_active;
    if (pool->n_waiting > pool->most_waiting)
        pool->most_waiting = pool->n_waiting;
    read_waits(scoreboard, number, &pool->waits);
    read_saturation(scoreboard, pool);
    return true;
}

static void read_pools(struct view *view, const struct scoreboard *scoreboard)
{
    size_t room = 0;

    for (unsigned i = 0; i < scoreboard->n_pools && i < SCOREBOARD_POOLS; i++) {
        if (view->n_pools == room) {
            room = room > 0 ? 2 * room : 8;
            view->pools = memory_resize(view->pools, room * sizeof *view->pools);
        }
        view->n_pools += read_pool(scoreboard, i, &view->pools[view->n_pools]);
    }
}

/* ---- processes ---- */

static uint64_t since(uint64_t now_us, uint64_t then_us)
{
    return now_us > then_us ? now_us - then_us : 0;
}

static bool is_of_cgi(const struct scoreboard *scoreboard, unsigned pool)
{
    return pool < SCOREBOARD_POOLS && scoreboard->pools[pool].kind == 1;
}

/* Its request's texts are in the request's place; of one that is over, in its own. */
static void read_texts(const struct scoreboard *scoreboard, const struct scoreboard_process *copy,
                       struct view_process *process)
{
    struct view_found at = {.front = (uint16_t)copy->front, .place = (uint16_t)copy->request};
    struct scoreboard_request request;

    if (copy->n_active > 0 && copy->front < SCOREBOARD_FRONTS && copy->request < SCOREBOARD_REQUESTS) {
        at.started_us = scoreboard->fronts[at.front].requests[at.place].started_us;
        if (view_request(scoreboard, &at, &request) && request.pid == process->pid) {
            memcpy(process->method, request.method, sizeof request.method);
            memcpy(process->user, request.user, sizeof request.user);
            memcpy(process->uri, request.uri, sizeof request.uri);
            return;
        }
    }
    memcpy(process->method, copy->method, sizeof copy->method - 1);
    memcpy(process->user, copy->user, sizeof copy->user - 1);
    memcpy(process->uri, copy->uri, sizeof copy->uri - 1);
}

static enum view_state state_of(const struct scoreboard_process *copy, uint64_t now_us)
{
    if (copy->is_retiring)
        return VIEW_RETIRING;
    if (copy->n_active > 0)
        return VIEW_RUNNING;
    if (copy->given == 0 && since(now_us, copy->start_us) < STARTING_US)
        return VIEW_STARTING; /* most probably: who never had a request has never told that it is ready */
    return VIEW_IDLE;
}

/* False: it is not there. */
static bool read_process(const struct scoreboard *scoreboard, unsigned index, uint64_t now_us,
                         struct view_process *process)
{
    const struct scoreboard_process *part = &scoreboard->processes[index];
    struct scoreboard_process copy;

    if (part->pool == 0 || is_of_cgi(scoreboard, part->pool - 1))
        return false;
    if (!scoreboard_read(&part->version, part, &copy, sizeof copy))
        copy.method[0] = copy.user[0] = copy.uri[0] = '\0'; /* of a front that has died at it; the rest is words */
    if (copy.pool == 0)
        return false;
    *process = (struct view_process){
        .pool = copy.pool - 1,
        .pid = copy.pid,
        .state = state_of(&copy, now_us),
        .is_busy = copy.n_active > 0,
        .start_unix_us = copy.start_unix_us,
        .start_us = copy.start_us,
        .requests = copy.given,
        .last_us = copy.last_us,
        .last_cpu_us = copy.served > 0 ? copy.last_cpu_us : UINT64_MAX,
        .memory = copy.memory,
    };
    process->duration_us = copy.n_active > 0 ? since(now_us, copy.since_us) : copy.served > 0 ? copy.last_us : 0;
    read_texts(scoreboard, &copy, process);
    return true;
}

/* A CGI program runs for one request alone: what is known of it, is known of that. */
static bool read_run(const struct scoreboard *scoreboard, const struct view_found *found, const struct view *view,
                     struct view_process *process)
{
    struct scoreboard_request request;

    if (!view_request(scoreboard, found, &request) || request.pid == 0 || !is_of_cgi(scoreboard, request.pool))
        return false;
    *process = (struct view_process){
        .pool = request.pool,
        .pid = request.pid,
        .state = VIEW_RUNNING,
        .is_busy = true,
        .start_us = request.granted_us,
        .requests = 1,
        .duration_us = since(view->now_us, request.granted_us),
        .last_cpu_us = UINT64_MAX,
    };
    process->start_unix_us = view->now_unix_us - process->duration_us;
    memcpy(process->method, request.method, sizeof request.method);
    memcpy(process->user, request.user, sizeof request.user);
    memcpy(process->uri, request.uri, sizeof request.uri);
    return true;
}

static int by_pool(const void *a, const void *b)
{
    const struct view_process *one = a, *other = b;

    if (one->pool != other->pool)
        return one->pool < other->pool ? -1 : 1;
    if (one->start_us != other->start_us)
        return one->start_us < other->start_us ? -1 : 1;
    return (one->pid > other->pid) - (one->pid < other->pid);
}

/* Resident bytes, as the kernel has them now; 0: it does not tell. */
static uint64_t resident(int pid)
{
    char path[32], text[128];
    char *at;

    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    (void)strtoul(text, &at, 10); /* the whole size stands first; no number is 0, and so is what is behind it */
    return (uint64_t)strtoul(at, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static struct view_process *next_process(struct view *view, size_t *room)
{
    if (view->n_processes == *room) {
        *room = *room > 0 ? 2 * *room : 64;
        view->processes = memory_resize(view->processes, *room * sizeof *view->processes);
    }
    return &view->processes[view->n_processes];
}

static void read_processes(struct view *view, const struct scoreboard *scoreboard)
{
    struct view_requests found;
    size_t room = 0;

    for (unsigned i = 0; (i = scoreboard_next(scoreboard, i)) < SCOREBOARD_PROGRAMS; i++)
        view->n_processes += read_process(scoreboard, i, view->now_us, next_process(view, &room));
    view_requests_find(scoreboard, &found);
    for (size_t i = 0; i < found.n; i++)
        view->n_processes += read_run(scoreboard, &found.at[i], view, next_process(view, &room));
    view_requests_free(&found);
    if (view->n_processes > 0)
        qsort(view->processes, view->n_processes, sizeof *view->processes, by_pool);
    for (unsigned i = 0; i < view->n_processes && i < VIEW_MEMORIES; i++) {
        uint64_t now = resident(view->processes[i].pid);

        if (now > 0)
            view->processes[i].memory = now;
    }
}

static void count_process(struct view_pool *pool, const struct view_process *process)
{
    pool->n_total++;
    pool->n_idle += process->state == VIEW_IDLE;
    pool->n_active += process->is_busy;
    pool->n_starting += process->state == VIEW_STARTING;
    pool->n_retiring += process->state == VIEW_RETIRING;
}

/* Each pool's part of the list. A pool of processes is what its processes are: both are told of the same moment. */
static void join(struct view *view)
{
    unsigned next = 0;

    for (unsigned i = 0; i < view->n_pools; i++) {
        struct view_pool *pool = &view->pools[i];

        while (next < view->n_processes && view->processes[next].pool < pool->number)
            next++;
        pool->first_process = next;
        if (pool->about.kind == 0)
            pool->n_idle = pool->n_active = pool->n_total = 0;
        for (; next < view->n_processes && view->processes[next].pool == pool->number; next++) {
            pool->n_processes++;
            if (pool->about.kind == 0)
                count_process(pool, &view->processes[next]);
        }
    }
}

/* ---- servers ---- */

/* False: nobody is there, or nobody that can be told from others. */
static bool read_server(const struct seat_row *row, bool is_draining, struct view_server *server)
{
    struct seat_row copy;
    uint64_t key = row->key;

    if (key == 0 || key == SEAT_NOBODY || !scoreboard_read(&row->version, row, &copy, sizeof copy) || copy.key != key)
        return false;
    *server = (struct view_server){
        .pool = copy.pool,
        .state = copy.state > SEAT_LEAVING || is_draining ? SEAT_LEAVING : (enum seat_state)copy.state,
        .since_us = copy.since_us,
        .limit = copy.limit,
        .weight = copy.weight,
        .n_connections = copy.n_connections,
        .n_idle = copy.n_idle,
        .n_requests = copy.n_requests,
        .n_failures = copy.n_failures,
    };
    memcpy(server->address, copy.address, sizeof server->address - 1);
    memcpy(server->why, copy.why, sizeof server->why - 1);
    return server->address[0] != '\0';
}

/* Rows of one address in one pool are of one key, but for what a hostile front writes. */
static int by_address(const void *a, const void *b)
{
    const struct view_server *one = a, *other = b;

    if (one->pool != other->pool)
        return one->pool < other->pool ? -1 : 1;
    return strcmp(one->address, other->address);
}

/* Each front has noted what it has met itself: the newest word is the best. That a front leaves it is no news of it. */
static void add_server(struct view_server *to, const struct view_server *more)
{
    bool is_better = (to->state == SEAT_LEAVING) == (more->state == SEAT_LEAVING) ? more->since_us > to->since_us
                                                                                  : to->state == SEAT_LEAVING;

    to->n_connections += more->n_connections;
    to->n_idle += more->n_idle;
    to->n_requests += more->n_requests;
    to->n_failures += more->n_failures;
    if (is_better) {
        to->state = more->state;
        to->since_us = more->since_us;
        to->limit = more->limit;
        to->weight = more->weight;
    }
    if (more->why[0] != '\0' && (is_better || to->why[0] == '\0'))
        memcpy(to->why, more->why, sizeof to->why);
}

static void sum_servers(struct view *view)
{
    unsigned n = 0;

    if (view->n_servers == 0)
        return;
    qsort(view->servers, view->n_servers, sizeof *view->servers, by_address);
    for (unsigned i = 1; i < view->n_servers; i++) {
        if (by_address(&view->servers[n], &view->servers[i]) == 0)
            add_server(&view->servers[n], &view->servers[i]);
        else
            view->servers[++n] = view->servers[i];
    }
    view->n_servers = n + 1;
}

static void read_servers(struct view *view, const struct scoreboard *scoreboard)
{
    const struct seat_board *seats = &scoreboard->seats;
    size_t room = 0;

    for (unsigned i = 0; i < n_fronts(scoreboard); i++) {
        bool is_draining = front_at(scoreboard, i)->is_draining != 0;

        if (seats->fronts[i] == 0)
            continue;
        for (unsigned k = 0; k < SEAT_ROWS; k++) {
            if (view->n_servers == room) {
                room = room > 0 ? 2 * room : 16;
                view->servers = memory_resize(view->servers, room * sizeof *view->servers);
            }
            view->n_servers += read_server(&seats->rows[i][k], is_draining, &view->servers[view->n_servers]);
        }
    }
    sum_servers(view);
}

static void join_servers(struct view *view)
{
    unsigned next = 0;

    for (unsigned i = 0; i < view->n_pools; i++) {
        struct view_pool *pool = &view->pools[i];

        while (next < view->n_servers && view->servers[next].pool < pool->number)
            next++;
        pool->first_server = next;
        while (next < view->n_servers && view->servers[next].pool == pool->number)
            next++;
        pool->n_servers = pool->about.kind == 2 ? next - pool->first_server : 0;
    }
}

/* ---- all of it ---- */

struct view *view_read(const struct scoreboard *scoreboard)
{
    struct view *view = memory_zeroed(1, sizeof *view);
    unsigned n_there = n_fronts(scoreboard); /* once: a front may change it meanwhile */
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    view->now_unix_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    view->now_us = clock_us();
    view->start_us = scoreboard->start_us;
    view->start_unix_us = scoreboard->start_unix_us;
    view->generation = scoreboard->generation;
    view->is_draining = scoreboard->is_draining != 0;
    view->accepted = scoreboard->past.accepted;
    view->requests = scoreboard->past.requests;
    for (int i = 0; i < 6; i++)
        view->statuses[i] = scoreboard->past.statuses[i];
    view->fronts = memory_zeroed(n_there + 1, sizeof *view->fronts);
    for (unsigned i = 0; i < n_there; i++)
        read_front(view, front_at(scoreboard, i), i);
    read_processes(view, scoreboard);
    read_servers(view, scoreboard);
    read_pools(view, scoreboard);
    join(view);
    join_servers(view);
    return view;
}

void view_free(struct view *view)
{
    free(view->fronts);
    free(view->pools);
    free(view->processes);
    free(view->servers);
    free(view);
}

static void add_histogram(struct view_histogram *to, const struct scoreboard_histogram *part)
{
    for (int i = 0; i < SCOREBOARD_BUCKETS; i++)
        to->buckets[i] += part->buckets[i];
    to->sum_us += part->sum_us;
}

void view_phase(const struct scoreboard *scoreboard, unsigned number, unsigned phase, struct view_histogram *out)
{
    *out = (struct view_histogram){.sum_us = 0};
    add_histogram(out, &scoreboard->past_shares[number].phases[phase]);
    for (unsigned i = 0; i < n_fronts(scoreboard); i++)
        add_histogram(out, &front_at(scoreboard, i)->shares[number].phases[phase]);
}

void view_files(const struct scoreboard *scoreboard, struct view_histogram *out)
{
    *out = (struct view_histogram){.sum_us = 0};
    add_histogram(out, &scoreboard->past_files);
    for (unsigned i = 0; i < n_fronts(scoreboard); i++)
        add_histogram(out, &front_at(scoreboard, i)->files);
}
