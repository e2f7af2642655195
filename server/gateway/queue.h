/*
 * Who waits for a slot: first come, first served; bounded; each for at most so long.
 */
#ifndef GATEHOUSE_GATEWAY_QUEUE_H
#define GATEHOUSE_GATEWAY_QUEUE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/account.h"

/* Embedded in what waits. */
struct queue_entry {
    TAILQ_ENTRY(queue_entry) next;
    uint64_t since_us; /* clock_us() */
    bool is_waiting;
};

struct queue {
    TAILQ_HEAD(queue_list, queue_entry) entries;
    unsigned n, limit;
    uint64_t timeout_us;
    struct event *timer;
    void (*expired)(struct queue_entry *entry); /* has waited too long; it is out of the queue already */
    struct account *account;                    /* is told how many wait; NULL, which it is at first: nobody is */
};

void queue_init(struct queue *queue, struct event_base *base, unsigned limit, uint64_t timeout_us,
                void (*expired)(struct queue_entry *entry));
void queue_finish(struct queue *queue);

/* At the end; false: the queue is full. */
bool queue_add(struct queue *queue, struct queue_entry *entry);

/* At the front, whatever the limit: its turn was for nothing. `anew`: its time begins again. */
void queue_put_back(struct queue *queue, struct queue_entry *entry, bool anew);

/* The one whose turn it is, taken out; NULL when nobody waits. */
struct queue_entry *queue_take(struct queue *queue);

/* Leaves its place. Harmless when it does not wait. */
void queue_remove(struct queue *queue, struct queue_entry *entry);

#endif
