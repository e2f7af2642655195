/* What a process of ours writes to its descriptor 2: told to the request that it has, or to the error log. */
#include <stdio.h>
#include <unistd.h>

#include "fastcgi/inside.h"

enum { PIPE_PIECES = 16 }; /* reads that empty a full pipe */

static void take_errors(struct peer *peer, struct span bytes)
{
    char tag[128];

    if (peer->n_runs == 1) {
        struct fastcgi_run *run = TAILQ_FIRST(&peer->runs);

        run->run.up->errors(run->run.arg, bytes);
        return;
    }
    int len = snprintf(tag, sizeof tag, "[pool %.64s, process %ld]", peer->pool->config->name, peer->pid);
    if (bytes.len > 0)
        log_stream_add(&peer->errors_log, (struct span){tag, (size_t)len}, bytes);
    else
        log_stream_end(&peer->errors_log, (struct span){tag, (size_t)len});
}

/* What is in the pipe, and no more than fits in one: a writer that never rests must not keep us here. */
void peer_read_errors(struct peer *peer)
{
    char bytes[4096];
    ssize_t n = 1;

    for (int i = 0; i < PIPE_PIECES && n > 0 && peer->errors_fd >= 0; i++) {
        n = read(peer->errors_fd, bytes, sizeof bytes);
        if (n > 0)
            take_errors(peer, (struct span){bytes, (size_t)n});
        else if (n == 0)
            event_del(peer->errors);
    }
}

void peer_close_errors(struct peer *peer)
{
    if (peer->errors_fd < 0)
        return;
    peer_read_errors(peer);
    take_errors(peer, (struct span){"", 0});
    event_free(peer->errors);
    close(peer->errors_fd);
}
