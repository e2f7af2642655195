/*
 * One end of the socket between the keeper and a front: sends and receives whole messages with descriptors.
 * Never blocks; what the other end does not take yet waits in a queue, which is bounded: an end that lets CHANNEL_ROOM
 * messages or CHANNEL_ROOM_BYTES gather is stuck, and is given up.
 */
#ifndef GATEHOUSE_PROCESS_CHANNEL_H
#define GATEHOUSE_PROCESS_CHANNEL_H

#include <event2/event.h>
#include <sys/queue.h>

#include "process/message.h"

enum {
    CHANNEL_ROOM = 100000,
    CHANNEL_ROOM_BYTES = 4 << 20,
};

struct channel;

/* A message has come. The callee owns the descriptors (n_fds of them) and must close or keep each. It may close the
 * channel. message NULL: the other end is gone, or has sent what is no message; the callee closes the channel. */
typedef void channel_receive(void *arg, const struct message *message, int *fds, unsigned n_fds);

/* Takes over the descriptor (connected, non-blocking, SOCK_SEQPACKET). */
struct channel *channel_create(struct event_base *base, int fd, channel_receive *receive, void *arg);

/* Closes the descriptor and drops what waits, in either direction. May be called from the receive callback. */
void channel_destroy(struct channel *channel);

/* Sends, or queues. The descriptors are the channel's from now on and are closed when they are on their way. */
void channel_send(struct channel *channel, const struct message *message, const int *fds, unsigned n_fds);

/* Closes descriptors that have come through a channel, without the wait that their sender may have asked for. */
void channel_close_received(const int *fds, unsigned n);

/* A pair of connected ends: 0 or -errno. Close-on-exec, non-blocking. */
int channel_pair(int fds_out[2]);

#endif
