#include "process/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

enum {
    BATCH = 64,             /* messages read in one turn of the loop */
    MOST_DESCRIPTORS = 253, /* beside one packet: SCM_MAX_FD of the kernel */
    MOST_WAITING = 1024,    /* packets that were not read yet: more than fit into a socket's buffer */
};

struct queued {
    STAILQ_ENTRY(queued) next;
    int fds[MESSAGE_MAX_FDS];
    unsigned n_fds;
    size_t len;
    unsigned char wire[];
};

struct channel {
    int fd;
    struct event *readable, *writable;
    channel_receive *receive;
    void *arg;
    STAILQ_HEAD(, queued) queue;
    size_t n_queued, queued_bytes;
    bool is_receiving; /* the receive callback runs: destroying must wait for its return */
    bool is_destroyed;
};

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
};

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

/* A socket with SO_LINGER would be waited for. */
void channel_close_received(const int *fds, unsigned n)
{
    static const struct linger none = {0, 0};

    for (unsigned i = 0; i < n; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close_all(fds, n);
}

/* Will the same be taken later? */
static bool is_passing(int error)
{
    return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM || error == -ETOOMANYREFS || error == -EINTR;
}

static int send_packet(int fd, const void *wire, size_t len, const int *fds, unsigned n_fds)
{
    union control control;
    struct iovec data = {(void *)(uintptr_t)wire, len};
    struct msghdr packet = {.msg_iov = &data, .msg_iovlen = 1};

    if (n_fds > 0) {
        memset(&control, 0, sizeof control);
        packet.msg_control = control.bytes;
        packet.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n_fds * sizeof(int));
    }
    return sendmsg(fd, &packet, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* There is room for all that may come: of those that the kernel has to drop it would close each as it is. */
static unsigned take_descriptors(struct msghdr *packet, int fds_out[MOST_DESCRIPTORS])
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c != NULL; c = CMSG_NXTHDR(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds_out, CMSG_DATA(c), n * sizeof(int));
    }
    return n;
}

/* Receives one message. 1: one came; 0: none there; -errno: the other end is gone or talks nonsense. */
static int receive_packet(int fd, struct message *message, int fds[MESSAGE_MAX_FDS], unsigned *n_fds)
{
    int all[MOST_DESCRIPTORS];
    unsigned char wire[MESSAGE_MAX_WIRE];
    union control control;
    struct iovec data = {wire, sizeof wire};
    struct msghdr packet = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    *n_fds = take_descriptors(&packet, all);
    if (n == 0) { /* the end, or what looks like it: a packet of nothing */
        channel_close_received(all, *n_fds);
        return -EPIPE;
    }
    if (packet.msg_flags & MSG_CTRUNC) { /* we are out of descriptors: some messages are good without theirs */
        channel_close_received(all, *n_fds);
        *n_fds = 0;
    }
    int error = packet.msg_flags & MSG_TRUNC ? -EPROTO : message_decode(message, wire, (size_t)n, *n_fds);
    if (error != 0) { /* more than MESSAGE_MAX_FDS are an error, too */
        channel_close_received(all, *n_fds);
        return error;
    }
    memcpy(fds, all, *n_fds * sizeof *fds);
    return 1;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct channel *channel = arg;
    static struct message message;

    (void)what;
    channel->is_receiving = true;
    for (int i = 0; i < BATCH && !channel->is_destroyed; i++) {
        int fds[MESSAGE_MAX_FDS];
        unsigned n_fds = 0;
        int got = receive_packet(fd, &message, fds, &n_fds);

        if (got == 0)
            break;
        if (got > 0) {
            channel->receive(channel->arg, &message, fds, n_fds);
            continue;
        }
        event_del(channel->readable);
        channel->receive(channel->arg, NULL, NULL, 0);
        break;
    }
    channel->is_receiving = false;
    if (channel->is_destroyed)
        channel_destroy(channel);
}

static void drop_first(struct channel *channel)
{
    struct queued *first = STAILQ_FIRST(&channel->queue);

    STAILQ_REMOVE_HEAD(&channel->queue, next);
    channel->n_queued--;
    channel->queued_bytes -= first->len;
    close_all(first->fds, first->n_fds);
    free(first);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct channel *channel = arg;

    (void)what;
    while (!STAILQ_EMPTY(&channel->queue)) {
        struct queued *first = STAILQ_FIRST(&channel->queue);

        if (is_passing(send_packet(fd, first->wire, first->len, first->fds, first->n_fds)))
            return;
        drop_first(channel); /* sent; or the other end is gone, which the read side will tell */
    }
    event_del(channel->writable);
}

struct channel *channel_create(struct event_base *base, int fd, channel_receive *receive, void *arg)
{
    struct channel *channel = memory_zeroed(1, sizeof *channel);

    channel->fd = fd;
    channel->receive = receive;
    channel->arg = arg;
    STAILQ_INIT(&channel->queue);
    channel->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, channel);
    channel->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, channel);
    event_add(channel->readable, NULL);
    return channel;
}

/* What was sent and not read yet. Nothing comes after it. */
static void drop_received(int fd)
{
    static struct message message;
    int fds[MESSAGE_MAX_FDS];
    unsigned n_fds = 0;

    shutdown(fd, SHUT_RDWR);
    for (int i = 0; i < MOST_WAITING; i++) /* an end is no sign: see receive_packet() */
        if (receive_packet(fd, &message, fds, &n_fds) == 1)
            channel_close_received(fds, n_fds);
}

void channel_destroy(struct channel *channel)
{
    if (channel->is_receiving) {
        channel->is_destroyed = true;
        return;
    }
    while (!STAILQ_EMPTY(&channel->queue))
        drop_first(channel);
    drop_received(channel->fd);
    event_free(channel->readable);
    event_free(channel->writable);
    close(channel->fd);
    free(channel);
}

void channel_send(struct channel *channel, const struct message *message, const int *fds, unsigned n_fds)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t len = message_encode(message, wire);

    if (STAILQ_EMPTY(&channel->queue) && !is_passing(send_packet(channel->fd, wire, len, fds, n_fds))) {
        close_all(fds, n_fds);
        return;
    }
    if (channel->n_queued >= CHANNEL_ROOM || channel->queued_bytes + len > CHANNEL_ROOM_BYTES) {
        close_all(fds, n_fds);
        shutdown(channel->fd, SHUT_RDWR); /* the read side will tell */
        return;
    }
    struct queued *queued = memory_resize(NULL, sizeof *queued + len);
    queued->len = len;
    queued->n_fds = n_fds;
    memcpy(queued->wire, wire, len);
    for (unsigned i = 0; i < n_fds; i++)
        queued->fds[i] = fds[i];
    STAILQ_INSERT_TAIL(&channel->queue, queued, next);
    channel->n_queued++;
    channel->queued_bytes += len;
    event_add(channel->writable, NULL);
}

int channel_pair(int fds_out[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds_out) == 0 ? 0 : -errno;
}
