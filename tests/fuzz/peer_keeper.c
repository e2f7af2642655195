/*
 * The keeper's part: it lends slots or processes, wants them back, and tells of their ends. It keeps to the rules, for
 * the pool need not be safe from it; but the pool must not lose, nor give back twice, what it was lent.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "peer_play.h"
#include "process/channel.h"

struct process {
    uint32_t id; /* 0: none */
    int errors;  /* the writing end of its descriptor 2; -1: none */
    bool is_on_loan;
};

struct keeper {
    int fd;
    unsigned n_lent, n_recalled;
    unsigned n_forgiven; /* recalled, but then another loan's end was taken for it: the slot itself may be on its way */
    unsigned n_unread;   /* recalls since all was at rest */
    unsigned n_crossed;  /* ends that such a recall may have crossed: to the pool, it is one of another's */
    uint32_t last_id, last_wanted;
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

static void on_drain(void *arg, bool has_deadline)
{
    (void)arg, (void)has_deadline;
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
    play->link = link_create(&(struct link_options){.base = play->base,
                                                    .fd = fds[0],
                                                    .is_alone = play->is_alone,
                                                    .drain = on_drain,
                                                    .logs = on_logs,
                                                    .gone = on_gone});
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

static void lend_process(struct play *play, unsigned place, bool has_errors)
{
    struct process *process = &play->keeper->processes[place];
    struct message message = {.kind = MESSAGE_LOAN, .pool = NUMBER, .n = place, .pid = 1000 + (int)place};
    int fds[2] = {-1, -1};

    if (process->is_on_loan)
        return;
    if (process->id == 0)
        process->id = ++play->keeper->last_id;
    if (process->errors >= 0)
        close(process->errors);
    require(!has_errors || pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
    process->errors = fds[1];
    process->is_on_loan = true;
    message.id = process->id;
    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", application_path(place));
    play->keeper->n_lent++;
    say(play, &message, fds[0]);
    if (fds[0] >= 0)
        close(fds[0]);
}

/* what: of a process, its place and, bit 2, whether its descriptor 2 is read; else how many slots. */
void keeper_lend(struct play *play, uint8_t what)
{
    struct message message = {.kind = MESSAGE_LOAN, .pool = NUMBER, .n = (what & 3) + 1};

    if (play->is_managed) {
        lend_process(play, what % MAX_PROCESSES, (what & 4) != 0);
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
    play->keeper->n_unread += message.n;
    say(play, &message, -1);
}

/* A loan has ended with its process. */
static void end_loan(struct keeper *keeper)
{
    keeper->n_lent--;
    if (keeper->n_recalled == 0)
        return;
    keeper->n_recalled--;
    keeper->n_forgiven++;
}

/* Unasked, nothing comes back. */
static void take_back(struct keeper *keeper, unsigned n)
{
    keeper->n_lent -= n;
    for (; n > 0; n--) {
        require(keeper->n_recalled + keeper->n_forgiven > 0);
        if (keeper->n_recalled > 0)
            keeper->n_recalled--;
        else
            keeper->n_forgiven--;
    }
}

/* A process has ended. what: its place; bit 2: its connections are closed before the news; bit 3: its socket, too;
 * bit 4: what the pool has said lately crosses the news. */
void keeper_bury(struct play *play, uint8_t what)
{
    unsigned place = what % MAX_PROCESSES;
    struct process *process = &play->keeper->processes[place];
    struct message message = {.kind = MESSAGE_GONE, .pool = NUMBER};

    if ((what & 16) == 0)
        keeper_turn(play);
    message.id = process->id;
    if (!process->is_on_loan)
        return;
    if (what & 4)
        application_close_all(play, place);
    if (what & 8)
        application_set_listening(place, false);
    end_loan(play->keeper);
    forget(process);
    say(play, &message, -1);
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

/* A process, or one that has ended while the message was on its way. */
static void take_process(struct play *play, const struct message *message)
{
    struct keeper *keeper = play->keeper;
    struct process *process = find(keeper, message->id);

    require(message->id <= keeper->last_id);
    if (process == NULL)
        return;
    require(process->is_on_loan);
    if (message->kind == MESSAGE_END) {
        keeper->n_crossed += keeper->n_unread > 0;
        end_loan(keeper);
        forget(process);
        return;
    }
    process->is_on_loan = false;
    take_back(keeper, 1);
}

static void take(struct play *play, const struct message *message)
{
    struct keeper *keeper = play->keeper;

    require(message->pool == NUMBER && message->text_len == 0);
    if (message->kind == MESSAGE_WANT) {
        require(!play->is_alone);
        keeper->last_wanted = message->n;
    } else if (message->id != 0) {
        require(play->is_managed && (message->kind == MESSAGE_END || message->kind == MESSAGE_RETURN));
        take_process(play, message);
    } else {
        require(!play->is_managed && message->kind == MESSAGE_RETURN);
        take_back(keeper, message->n);
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

void keeper_check(const struct play *play)
{
    const struct fastcgi_pool *pool = play->pool;
    struct keeper *keeper = play->keeper;

    keeper->n_unread = 0;
    require(pool->n_owed >= keeper->n_recalled && pool->n_owed <= keeper->n_recalled + keeper->n_crossed);
    require(n_peers_on_loan(pool) + pool->n_slots == keeper->n_lent);
    require(pool->queue.n > 0 || keeper->last_wanted == 0);
}

void keeper_free(struct play *play)
{
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        forget(&play->keeper->processes[i]);
    link_destroy(play->link);
    close(play->keeper->fd);
    free(play->keeper);
}
