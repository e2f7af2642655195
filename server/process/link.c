#include "process/link.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "process/channel.h"

struct link {
    struct link_options options;
    bool is_alone;
    struct channel *channel;
    struct borrower **borrowers; /* by pool number */
    unsigned n;
};

static void tell_all(struct link *link, const struct message *message)
{
    for (unsigned i = 0; i < link->n; i++)
        if (link->borrowers[i] != NULL)
            link->borrowers[i]->message(link->borrowers[i], message, NULL, 0);
}

static void set_alone(struct link *link, const struct message *message)
{
    bool was_alone = link->is_alone;

    link->is_alone = message->n != 0;
    if (was_alone && !link->is_alone)
        tell_all(link, message);
}

static void receive(void *arg, const struct message *message, int *fds, unsigned n_fds)
{
    struct link *link = arg;
    const struct link_options *options = &link->options;

    if (message == NULL)
        options->gone(options->arg);
    else if (message->kind == MESSAGE_DRAIN)
        options->drain(options->arg, (enum drain)message->n);
    else if (message->kind == MESSAGE_ACCEPT)
        options->accept(options->arg);
    else if (message->kind == MESSAGE_ALONE)
        set_alone(link, message);
    else if (message->kind == MESSAGE_LOGS)
        options->logs(options->arg, fds[0], n_fds > 1 ? fds[1] : -1);
    else if (message->pool < link->n && link->borrowers[message->pool] != NULL)
        link->borrowers[message->pool]->message(link->borrowers[message->pool], message, fds, n_fds);
    else
        for (unsigned i = 0; i < n_fds; i++)
            close(fds[i]);
}

struct link *link_create(const struct link_options *options)
{
    struct link *link = memory_zeroed(1, sizeof *link);

    link->options = *options;
    link->channel = channel_create(options->base, options->fd, receive, link);
    return link;
}

void link_destroy(struct link *link)
{
    channel_destroy(link->channel);
    free(link->borrowers);
    free(link);
}

void link_attach(struct link *link, unsigned number, struct borrower *borrower)
{
    if (number >= link->n) {
        link->borrowers = memory_resize(link->borrowers, (number + 1) * sizeof(struct borrower *));
        while (link->n <= number)
            link->borrowers[link->n++] = NULL;
    }
    link->borrowers[number] = borrower;
}

void link_send(struct link *link, const struct message *message, const int *fds, unsigned n_fds)
{
    channel_send(link->channel, message, fds, n_fds);
}

void link_say(struct link *link, enum message_kind kind, unsigned number, uint32_t id, unsigned n)
{
    struct message message = {.kind = kind, .pool = number, .id = id, .n = n};

    link_send(link, &message, NULL, 0);
}

void link_give(struct link *link, enum message_kind kind, unsigned number, uint32_t id, unsigned n, unsigned n_recalled)
{
    struct message message = {.kind = kind, .pool = number, .id = id, .n = n, .status = (int32_t)n_recalled};

    link_send(link, &message, NULL, 0);
}

void link_want(struct link *link, unsigned number, unsigned n_waiting, bool grows)
{
    if ((!link->is_alone || grows) && (n_waiting & (n_waiting - 1)) == 0)
        link_say(link, MESSAGE_WANT, number, 0, n_waiting);
}

void link_still_want(struct link *link, unsigned number, unsigned n_waiting, bool grows)
{
    if ((!link->is_alone || grows) && n_waiting > 0)
        link_say(link, MESSAGE_WANT, number, 0, n_waiting);
}
