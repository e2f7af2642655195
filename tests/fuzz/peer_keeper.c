/*
 * The keeper's part: it lends slots or processes, wants them back, and tells of their ends. It keeps to the rules, for
 * the pool need not be safe from it; but the pool must not lose, nor give back twice, what it was lent.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "peer_play.h"
#include "process/channel.h"

struct process {
    uint32_t id; /* 0: none */
    int errors;  /* the writing end of its descriptor 2; -1: none */
    bool is_on_loan;
    bool is_retiring;            /* RETIRE was said */
    bool is_asked;               /* ASK has come */
    bool is_new, is_untried;     /* READY, or PROVEN, has not come */
    bool is_spent;               /* SPENT has come, or was not asked for */
    uint32_t soft, hard, served; /* of this loan; how many it had answered before */
    uint64_t lent_us;
    unsigned n_used; /* how often USED has come, of this loan */
};

struct keeper {
    int fd;
    unsigned n_lent, n_recalled;
    bool knows_alone; /* the pool has read the last ALONE */
    uint32_t last_id, last_wanted;
    unsigned n_bad_ends;
    struct process processes[MAX_PROCESSES];
};

static void say(struct play *play, const struct message *message, int fd)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {wire, message_encode(message, wire)};
    struct msghdr packet = {.msg_iov = &data, .msg_iovlen = 1};

    if (fd >= 0) {
        packet.msg_control = control.bytes;
        packet.msg_controllen = sizeof control.bytes;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    require(sendmsg(play->keeper->fd, &packet, MSG_NOSIGNAL) > 0);
}

static void on_accept(void *arg)
{
    (void)arg;
    abort();
}

static void on_drain(void *arg, enum drain how)
{
    (void)arg, (void)how;
    abort();
}

static void on_logs(void *arg, int error_fd, int access_fd)
{
    (void)arg, (void)error_fd, (void)access_fd;
    abort();
}

static void on_gone(void *arg)
{
    (void)arg;
    abort();
}

void keeper_start(struct play *play)
{
    int fds[2];

    require(channel_pair(fds) == 0);
    play->keeper = memory_zeroed(1, sizeof *play->keeper);
    play->keeper->fd = fds[1];
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        play->keeper->processes[i].errors = -1;
    play->link = link_create(&(struct link_options){
        .base = play->base, .fd = fds[0], .accept = on_accept, .drain = on_drain, .logs = on_logs, .gone = on_gone});
    play->scoreboard->n_fronts = 1;
    memset(&play->scoreboard->fronts[0].shares[NUMBER], 0, sizeof(struct scoreboard_share));
    if (play->is_alone)
        keeper_say_alone(play, true);
}

/* ---- what it does ---- */

static void forget(struct process *process)
{
    if (process->errors >= 0)
        close(process->errors);
    process->errors = -1;
    process->id = 0;
    process->is_on_loan = false;
}

/* As a new process is: with a new id, and nothing done. */
static void start(struct play *play, struct process *process, uint8_t what)
{
    process->id = ++play->keeper->last_id;
    struct scoreboard_process *board = &play->scoreboard->processes[process->id];
    board->given = board->served = 0;
    process->is_untried = (what >> 3 & 3) == LOAN_UNTRIED;
    process->is_new = process->is_untried || (what >> 3 & 3) == LOAN_NEW;
    process->soft = what >> 5 & 3;
    process->hard = process->soft != 0 ? process->soft + (what >> 7) : 0;
    process->is_retiring = false;
    process->is_spent = process->soft == 0;
}

static void lend_process(struct play *play, unsigned place, uint8_t what)
{
    struct process *process = &play->keeper->processes[place];
    struct message message = {.kind = MESSAGE_LOAN, .pool = NUMBER, .pid = 1000 + (int)place};
    bool has_errors = (what & 4) != 0;
    int fds[2] = {-1, -1};

    if (process->is_on_loan)
        return;
    if (process->id == 0)
        start(play, process, what);
    if (process->errors >= 0)
        close(process->errors);
    require(!has_errors || pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
    process->errors = fds[1];
    process->is_on_loan = true;
    process->is_asked = false;
    process->lent_us = clock_us();
    process->n_used = 0;
    process->served = play->scoreboard->processes[process->id].served;
    message.id = message.n = process->id;
    message.status = process->is_untried ? LOAN_UNTRIED : process->is_new ? LOAN_NEW : LOAN_READY;
    message.soft = process->is_spent ? 0 : process->soft;
    message.hard = process->hard;
    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", application_path(place));
    play->keeper->n_lent++;
    say(play, &message, fds[0]);
    if (fds[0] >= 0)
        close(fds[0]);
}

/* what: of a process, its place; bit 2: its descriptor 2 is read; bits 3-4, of a new one: enum loan_status; bits 5-6:
 * its soft limit, bit 7: the hard one is above it. Else how many slots. */
void keeper_lend(struct play *play, uint8_t what)
{
    struct message message = {.kind = MESSAGE_LOAN, .pool = NUMBER, .n = (what & 3) + 1};

    if (play->is_managed) {
        lend_process(play, what % MAX_PROCESSES, what);
        return;
    }
    if (play->keeper->n_lent > 20)
        return;
    play->keeper->n_lent += message.n;
    say(play, &message, -1);
}

void keeper_recall(struct play *play, uint8_t n)
{
    struct message message = {.kind = MESSAGE_RECALL, .pool = NUMBER, .n = (n & 3) + 1};

    if (play->keeper->n_recalled + message.n > play->keeper->n_lent)
        return;
    play->keeper->n_recalled += message.n;
    say(play, &message, -1);
}

/* `n` slots are no longer on loan; of the debts, `n_settled` are paid by that. */
static void take_back(struct keeper *keeper, unsigned n, unsigned n_settled)
{
    require(n <= keeper->n_lent && n_settled <= keeper->n_recalled);
    keeper->n_lent -= n;
    keeper->n_recalled -= n_settled;
}

/* A process has ended. what: its place; bit 2: its connections are closed before the news; bit 3: its socket, too;
 * bit 4: what the pool has said lately crosses the news; bit 5: by a signal. */
void keeper_bury(struct play *play, uint8_t what)
{
    unsigned place = what % MAX_PROCESSES;
    struct process *process = &play->keeper->processes[place];
    struct message message = {.kind = MESSAGE_GONE, .pool = NUMBER, .status = what & 32 ? SIGSEGV : 0};

    if ((what & 16) == 0)
        keeper_turn(play);
    message.id = process->id;
    if (!process->is_on_loan)
        return;
    if (what & 4)
        application_close_all(play, place);
    if (what & 8)
        application_set_listening(place, false);
    play->keeper->n_bad_ends += message.status != 0;
    take_back(play->keeper, 1, 0); /* the pool says what that settles */
    forget(process);
    say(play, &message, -1);
}

void keeper_retire(struct play *play, uint8_t which)
{
    struct process *process = &play->keeper->processes[which % MAX_PROCESSES];
    struct message message = {.kind = MESSAGE_RETIRE, .pool = NUMBER, .id = process->id};

    if (!process->is_on_loan || process->is_retiring)
        return;
    process->is_retiring = true;
    say(play, &message, -1);
}

void keeper_tell_fates(struct play *play)
{
    for (unsigned i = 0; i < MAX_PROCESSES; i++) {
        struct process *process = &play->keeper->processes[i];
        struct message message = {.kind = MESSAGE_LIVES, .pool = NUMBER, .id = process->id};

        if (!process->is_on_loan || !process->is_asked)
            continue;
        process->is_asked = false;
        say(play, &message, -1);
    }
}

void keeper_say_alone(struct play *play, bool is_alone)
{
    struct message message = {.kind = MESSAGE_ALONE, .n = is_alone};

    play->is_alone = is_alone;
    play->keeper->knows_alone = false;
    say(play, &message, -1);
}

bool keeper_has_process(const struct play *play, unsigned place)
{
    return place < MAX_PROCESSES && play->keeper->processes[place].id != 0;
}

bool keeper_has_bad_ends(const struct play *play)
{
    return play->keeper->n_bad_ends > 0;
}

void keeper_say_down(struct play *play)
{
    struct message message = {.kind = MESSAGE_DOWN, .pool = NUMBER};

    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "it does not start");
    say(play, &message, -1);
}

/* len 0: it closes its descriptor 2. */
void keeper_write_errors(struct play *play, uint8_t which, size_t len)
{
    static char bytes[65536];
    struct process *process = &play->keeper->processes[which % MAX_PROCESSES];

    if (process->errors < 0)
        return;
    memset(bytes, 'e', sizeof bytes);
    if (len > 0) {
        require(write(process->errors, bytes, len < sizeof bytes ? len : sizeof bytes) > 0 || errno != EBADF);
        return;
    }
    close(process->errors);
    process->errors = -1;
}

/* ---- what it hears ---- */

static struct process *find(struct keeper *keeper, uint32_t id)
{
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        if (keeper->processes[i].id == id)
            return &keeper->processes[i];
    return NULL;
}

/* Not asked for its whole, a process comes back when it is not to be used any more, or nobody waits. */
static void take_process(struct play *play, struct process *process, const struct message *message)
{
    const struct scoreboard_process *board = &play->scoreboard->processes[process->id];
    bool is_used_up = process->hard != 0 && board->given >= process->hard;

    require(message->n == 1 && (message->status == 0 || message->status == 1));
    take_back(play->keeper, 1, (unsigned)message->status);
    process->is_on_loan = false;
    if (message->kind == MESSAGE_RETURN && !process->is_retiring && !is_used_up) {
        require(message->status == 1 || play->is_yielding);
        return;
    }
    forget(process);
}

static void take_ready(struct process *process)
{
    require(process->is_new);
    process->is_new = false;
}

static void take_question(struct process *process)
{
    require(!process->is_asked);
    process->is_asked = true;
}

static void take_spent(struct play *play, struct process *process)
{
    const struct scoreboard_process *board = &play->scoreboard->processes[process->id];

    require(!process->is_spent && board->given >= process->soft);
    process->is_spent = true;
}

static void take_used(struct play *play, struct process *process)
{
    uint64_t most = 1 + (clock_us() - process->lent_us) / FASTCGI_MEASURE_US;

    require(play->config.max_memory > 0 && ++process->n_used <= most);
}

static void take_proven(struct process *process, const struct message *message)
{
    require(process->is_untried && (message->n == 1) == (message->text_len == 0));
    process->is_untried = false;
}

/* Of a process that is on loan. Of others, their ends are on the way. */
static void take_of_process(struct play *play, const struct message *message)
{
    struct keeper *keeper = play->keeper;
    struct process *process = find(keeper, message->id);

    require(play->is_managed && message->id > 0 && message->id <= keeper->last_id);
    if (process == NULL && (message->kind == MESSAGE_RETURN || message->kind == MESSAGE_END))
        take_back(keeper, 0, (unsigned)message->status);
    if (process == NULL)
        return;
    require(process->is_on_loan);
    if (message->kind == MESSAGE_READY)
        take_ready(process);
    else if (message->kind == MESSAGE_ASK)
        take_question(process);
    else if (message->kind == MESSAGE_SPENT)
        take_spent(play, process);
    else if (message->kind == MESSAGE_USED)
        take_used(play, process);
    else if (message->kind == MESSAGE_PROVEN)
        take_proven(process, message);
    else if (message->kind != MESSAGE_SLOW)
        take_process(play, process, message);
}

/* More can be started when it is known that requests wait. */
static bool grows(const struct play *play)
{
    return play->is_managed && play->config.pm != PM_STATIC;
}

static void take_slots(struct play *play, const struct message *message)
{
    struct keeper *keeper = play->keeper;

    require(!play->is_managed && message->id == 0 && message->status >= 0 && message->status <= (int)message->n);
    require(message->status == (int)message->n || play->is_yielding);
    take_back(keeper, message->n, (unsigned)message->status);
}

static void take(struct play *play, const struct message *message)
{
    struct keeper *keeper = play->keeper;
    bool has_text = message->kind == MESSAGE_PROVEN || message->kind == MESSAGE_SLOW;

    require(message->pool == NUMBER && (has_text || message->text_len == 0));
    if (message->kind == MESSAGE_WANT) {
        require(grows(play) || !play->is_alone || !keeper->knows_alone);
        keeper->last_wanted = message->n;
    } else if (message->kind == MESSAGE_SPARE) {
        require(play->is_managed && play->config.pm == PM_DYNAMIC && message->id == 0);
    } else if (message->id != 0) {
        require(message->kind != MESSAGE_OPEN && message->kind != MESSAGE_RUN && message->kind != MESSAGE_UP);
        take_of_process(play, message);
    } else if (message->kind == MESSAGE_SLOW) {
        require(!play->is_managed);
    } else {
        require(message->kind == MESSAGE_RETURN);
        take_slots(play, message);
    }
}

bool keeper_turn(struct play *play)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct message message;
    bool has_moved = false;
    ssize_t n;

    while ((n = recv(play->keeper->fd, wire, sizeof wire, MSG_DONTWAIT)) > 0) {
        require(message_decode(&message, wire, (size_t)n, 0) == 0);
        take(play, &message);
        has_moved = true;
    }
    return has_moved;
}

/* Those that serve a last request, though they have ended, are no loans. */
static unsigned n_peers_on_loan(const struct fastcgi_pool *pool)
{
    const struct peer *peer;
    unsigned n_gone = 0;

    TAILQ_FOREACH(peer, &pool->others, next)
    n_gone += peer->is.gone;
    return pool->n_peers - n_gone;
}

static const struct peer *find_peer(const struct fastcgi_pool *pool, uint32_t id)
{
    const struct peer *peer;

    TAILQ_FOREACH(peer, &pool->idle, next)
    if (peer->id == id)
        return peer;
    TAILQ_FOREACH(peer, &pool->others, next)
    if (peer->id == id)
        return peer;
    return NULL;
}

/* Who waits behind another's request does so until that has come to its end, and gets none meanwhile. */
static void check_behind(const struct fastcgi_pool *pool)
{
    const struct peer *peer, *before;

    TAILQ_FOREACH(peer, &pool->idle, next)
    require(peer->behind == 0);
    TAILQ_FOREACH(peer, &pool->others, next)
    {
        if (peer->behind == 0)
            continue;
        before = find_peer(pool, peer->behind);
        require(before != NULL && before != peer && before->is.gone && before->n_runs + before->n_orphans > 0);
        require(before->address_len == peer->address_len &&
                memcmp(&before->address, &peer->address, peer->address_len) == 0);
        require(peer->n_runs == 0 && peer->fd < 0 && peer->proof == NULL);
    }
}

/* What was to be said of a process on loan, was. */
static void check_process(const struct play *play, unsigned place)
{
    const struct process *process = &play->keeper->processes[place];
    const struct scoreboard_process *board = &play->scoreboard->processes[process->id];

    if (!process->is_on_loan)
        return;
    const struct peer *peer = find_peer(play->pool, process->id);
    require(peer != NULL && !peer->is.gone && peer->is.asked == process->is_asked);
    require(peer->is.retiring || !process->is_retiring);
    require(!process->is_new || board->served == process->served);
    require(process->is_spent || board->given < process->soft);
    require(process->hard == 0 || board->given <= process->hard);
}

void keeper_check(const struct play *play)
{
    const struct fastcgi_pool *pool = play->pool;
    struct keeper *keeper = play->keeper;
    const struct scoreboard_share *share = &play->scoreboard->fronts[0].shares[NUMBER];

    keeper->knows_alone = true;
    require(pool->n_owed == keeper->n_recalled);
    require(n_peers_on_loan(pool) + pool->n_slots == keeper->n_lent);
    if (pool->number >= 0 && (grows(play) || !play->is_alone))
        require((pool->queue.n > 0) == (keeper->last_wanted > 0));
    require(!play->is_managed || share->n_idle == pool->account.n_idle);
    check_behind(pool);
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        check_process(play, i);
}

void keeper_free(struct play *play)
{
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        forget(&play->keeper->processes[i]);
    link_destroy(play->link);
    close(play->keeper->fd);
    free(play->keeper);
}
