/*
 * Does a process of new settings serve? With `health`, it has to answer that request well. Else it is asked what it
 * offers, on a connection of its own:
 *
 *     ASKING --> a byte of an answer                           it serves
 *            --> the connection ends, and the process lives    it serves: it has accepted, but knows no such question
 *            --> it has read the question, and is silent       likewise
 *            --> the process ends                              the keeper knows
 *
 * How long it may take is the keeper's business, too: start_timeout.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/memory.h"
#include "fastcgi/health.h"
#include "fastcgi/inside.h"

enum {
    LOOK_MS = 250,
    SILENT_LOOKS = 4, /* after so many, one that has read the question may be silent */
};

struct proof {
    struct peer *peer;
    struct health_query *health; /* NULL: it is asked what it offers */
    int fd;
    struct event *reader, *writer;
    unsigned n_looks;
};

void proof_cancel(struct peer *peer)
{
    struct proof *proof = peer->proof;

    if (proof == NULL)
        return;
    peer->proof = NULL;
    if (proof->reader != NULL) {
        event_free(proof->reader);
        event_free(proof->writer);
        close(proof->fd);
    }
    health_cancel(proof->health);
    free(proof);
}

static void say(struct peer *peer, const char *why)
{
    struct fastcgi_pool *pool = peer->pool;
    struct message message = {.kind = MESSAGE_PROVEN, .pool = (unsigned)pool->number, .id = peer->id};

    message.n = why == NULL;
    if (why != NULL)
        message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", why);
    proof_cancel(peer);
    peer->is.untried = false;
    link_send(pool->options.link, &message, NULL, 0);
}

static void tell(struct peer *peer, const char *why)
{
    say(peer, why);
    pool_on_free(peer);
}

void proof_lives(struct peer *peer)
{
    say(peer, NULL);
}

static bool has_read_all(const struct proof *proof)
{
    int n = 0;

    return ioctl(proof->fd, SIOCOUTQ, &n) == 0 && n == 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct proof *proof = arg;
    char byte;

    if ((what & EV_TIMEOUT) != 0) {
        if (++proof->n_looks >= SILENT_LOOKS && has_read_all(proof))
            tell(proof->peer, NULL);
        return;
    }
    ssize_t n = recv(fd, &byte, 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        tell(proof->peer, NULL);
        return;
    }
    event_del(proof->reader);
    loans_ask(proof->peer, false);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct proof *proof = arg;
    struct buffer question = {0};

    (void)what;
    record_get_values(&question); /* a new connection takes so few bytes whole */
    ssize_t n = send(fd, buffer_at(&question), buffer_len(&question), MSG_NOSIGNAL);
    buffer_free(&question);
    if (n < 0 && errno != EPIPE && errno != ECONNRESET)
        tell(proof->peer, strerror(errno));
}

/* 0, or an errno. */
static int ask_what_it_offers(struct proof *proof)
{
    static const struct timeval look = {0, 1000 * LOOK_MS};
    const struct peer *peer = proof->peer;
    struct event_base *base = peer->pool->options.base;
    int fd = socket(peer->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&peer->address, peer->address_len) != 0) {
        int error = errno;

        if (fd >= 0)
            close(fd);
        return error;
    }
    proof->fd = fd;
    proof->reader = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, proof);
    proof->writer = event_new(base, fd, EV_WRITE, on_writable, proof);
    event_add(proof->reader, &look);
    event_add(proof->writer, NULL);
    return 0;
}

static void on_health(void *arg, bool is_well, const char *why)
{
    struct proof *proof = arg;

    proof->health = NULL;
    tell(proof->peer, is_well ? NULL : why);
}

void proof_begin(struct peer *peer)
{
    const struct fastcgi_pool *pool = peer->pool;
    struct proof *proof = memory_zeroed(1, sizeof *proof);
    int error = 0;

    proof->peer = peer;
    peer->proof = proof;
    if (pool->config->health.path == NULL) {
        error = ask_what_it_offers(proof);
    } else {
        proof->health = health_ask(pool->options.base, (const struct sockaddr *)&peer->address, peer->address_len,
                                   pool->config->health.path, pool->config->start_timeout_ms, on_health, proof);
        error = proof->health == NULL ? errno : 0;
    }
    if (error != 0)
        tell(peer, strerror(error));
}
