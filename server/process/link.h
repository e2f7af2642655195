/*
 * A front's end of the channel to the keeper: hands each message to the borrower of the pool that it is about.
 */
#ifndef GATEHOUSE_PROCESS_LINK_H
#define GATEHOUSE_PROCESS_LINK_H

#include <event2/event.h>
#include <stdbool.h>

#include "process/message.h"

/* Who borrows slots of one pool. `message` owns the descriptors. ALONE comes to all: what waits may have to be said. */
struct borrower {
    void (*message)(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds);
};

struct link_options {
    struct event_base *base;
    int fd;
    void (*accept)(void *arg);
    void (*drain)(void *arg, enum drain how);
    void (*logs)(void *arg, int error_fd, int access_fd); /* owns them; access_fd -1: off */
    void (*gone)(void *arg);                              /* the keeper has ended: so must this process */
    void *arg;
};

struct link;

struct link *link_create(const struct link_options *options);
void link_destroy(struct link *link);

/* Messages about the pool of that number go to the borrower from now on. */
void link_attach(struct link *link, unsigned number, struct borrower *borrower);

/*
 * Says how many requests wait for a slot of the pool: when it is news, and again each time the number has doubled. Not
 * where nothing would follow from it: while there is no other front, whatever there is to borrow is here already,
 * unless the pool `grows`, which is when more of it can be started.
 */
void link_want(struct link *link, unsigned number, unsigned n_waiting, bool grows);

/* Says it in any case: after a slot was given up or lost, for the keeper has counted on it. */
void link_still_want(struct link *link, unsigned number, unsigned n_waiting, bool grows);

/* Says `kind` of the pool's process or run `id`, or of n slots, of which so many had been recalled. */
void link_say(struct link *link, enum message_kind kind, unsigned number, uint32_t id, unsigned n);
void link_give(struct link *link, enum message_kind kind, unsigned number, uint32_t id, unsigned n,
               unsigned n_recalled);

/* Sends; takes over the descriptors. */
void link_send(struct link *link, const struct message *message, const int *fds, unsigned n_fds);

#endif
