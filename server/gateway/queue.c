#include "gateway/queue.h"

#include "base/clock.h"

/* One timer for all: everybody may wait equally long, so the first in the queue is the first whose time is over. */
static void set_timer(struct queue *queue)
{
    struct queue_entry *first = TAILQ_FIRST(&queue->entries);

    if (first == NULL) {
        event_del(queue->timer);
        return;
    }
    uint64_t until = first->since_us + queue->timeout_us, now = clock_us(), left = until > now ? until - now : 0;
    struct timeval delay = {(time_t)(left / 1000000), (suseconds_t)(left % 1000000)};

    event_add(queue->timer, &delay);
}

static void tell(const struct queue *queue)
{
    if (queue->account != NULL)
        account_set_waiting(queue->account, queue->n);
}

static void take_out(struct queue *queue, struct queue_entry *entry)
{
    TAILQ_REMOVE(&queue->entries, entry, next);
    entry->is_waiting = false;
    queue->n--;
    tell(queue);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct queue *queue = arg;
    uint64_t now = clock_us();
    struct queue_entry *first;

    (void)fd, (void)what;
    while ((first = TAILQ_FIRST(&queue->entries)) != NULL && first->since_us + queue->timeout_us <= now) {
        take_out(queue, first);
        queue->expired(first);
    }
    set_timer(queue);
}

void queue_init(struct queue *queue, struct event_base *base, unsigned limit, uint64_t timeout_us,
                void (*expired)(struct queue_entry *entry))
{
    TAILQ_INIT(&queue->entries);
    queue->n = 0;
    queue->limit = limit;
    queue->timeout_us = timeout_us;
    queue->expired = expired;
    queue->account = NULL;
    queue->timer = evtimer_new(base, on_timer, queue);
}

void queue_finish(struct queue *queue)
{
    event_free(queue->timer);
}

static void count_in(struct queue *queue, struct queue_entry *entry)
{
    entry->is_waiting = true;
    queue->n++;
    tell(queue);
    if (!event_pending(queue->timer, EV_TIMEOUT, NULL)) /* one that comes too early is set anew when it does */
        set_timer(queue);
}

bool queue_add(struct queue *queue, struct queue_entry *entry)
{
    if (queue->n >= queue->limit)
        return false;
    entry->since_us = clock_us();
    TAILQ_INSERT_TAIL(&queue->entries, entry, next);
    count_in(queue, entry);
    return true;
}

void queue_put_back(struct queue *queue, struct queue_entry *entry, bool anew)
{
    struct queue_entry *first = TAILQ_FIRST(&queue->entries);

    if (anew) /* but not beyond the next one's: the order of time is the order of the queue */
        entry->since_us = first != NULL ? first->since_us : clock_us();
    TAILQ_INSERT_HEAD(&queue->entries, entry, next);
    count_in(queue, entry);
    set_timer(queue); /* its time may be over before that of the one which was first until now */
}

struct queue_entry *queue_take(struct queue *queue)
{
    struct queue_entry *first = TAILQ_FIRST(&queue->entries);

    if (first != NULL)
        take_out(queue, first);
    return first;
}

void queue_remove(struct queue *queue, struct queue_entry *entry)
{
    if (entry->is_waiting)
        take_out(queue, entry);
}
