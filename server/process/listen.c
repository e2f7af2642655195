#include "process/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"

#define LISTEN_VARIABLE "GATEHOUSE_LISTEN"

enum { BACKLOG = 4096 };

static const char *unix_path(const struct config_address *address)
{
    return ((const struct sockaddr_un *)&address->address)->sun_path;
}

static bool is_unix(const struct config_address *address)
{
    return address->address.ss_family == AF_UNIX;
}

/* A socket file that nobody listens on any more is in the way after a crash; one that is in use stays. */
static void remove_stale(const struct config_address *address)
{
    struct stat about;

    if (stat(unix_path(address), &about) != 0 || !S_ISSOCK(about.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address->address, address->len) != 0 && errno == ECONNREFUSED)
        unlink(unix_path(address));
    if (fd >= 0)
        close(fd);
}

static void set_options(int fd, const struct config_address *address)
{
    static const int on = 1, off = 0;

    if (is_unix(address))
        return;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* inherited by what is accepted */
    if (address->address.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, address->text[0] == '*' ? &off : &on, sizeof on);
}

static int open_one(const struct config_address *address, const struct config_user *owner)
{
    int fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    set_options(fd, address);
    if (is_unix(address))
        remove_stale(address);
    if (bind(fd, (const struct sockaddr *)&address->address, address->len) != 0 || listen(fd, BACKLOG) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    if (is_unix(address)) {
        (void)!chmod(unix_path(address), 0666); /* who may connect is the directory's business */
        (void)!chown(unix_path(address), owner->uid, owner->gid);
    }
    return fd;
}

static void say_failure(const struct config_address *address, int error)
{
    const char *cure = "correct the address";

    if (error == EADDRINUSE)
        cure = "stop the program that has it, or choose another port";
    else if (error == EACCES)
        cure = "ports below 1024 need root; choose a higher one";
    else if (error == EADDRNOTAVAIL)
        cure = "this machine has no such address";
    log_error("cannot listen on %s: %s; %s", address->text, strerror(error), cure);
}

/* ---- sockets that listen already ---- */

static bool is_same(const struct config_address *a, const struct config_address *b)
{
    return (a->text != NULL && b->text != NULL && strcmp(a->text, b->text) == 0) ||
           (a->len == b->len && memcmp(&a->address, &b->address, a->len) == 0);
}

static void add_known(struct listen_known *known, const char *text, const struct config_address *address, int fd)
{
    known->at = memory_resize(known->at, (known->n + 1) * sizeof *known->at);
    known->fds = memory_resize(known->fds, (known->n + 1) * sizeof *known->fds);
    known->at[known->n] = *address;
    known->at[known->n].text = memory_copy(text, strlen(text));
    known->fds[known->n++] = fd;
}

void listen_know(struct listen_known *known, const struct config_addresses *addresses, const int *fds)
{
    for (size_t i = 0; i < addresses->n; i++)
        add_known(known, addresses->at[i].text, &addresses->at[i], fds[i]);
}

/* "GATEHOUSE_LISTEN=5=127.0.0.1:8080 6=unix:/run/x.sock": descriptor and address as written. */
void listen_bequeath(const struct config_addresses *addresses, const int *fds, char *text, size_t size)
{
    size_t len = (size_t)snprintf(text, size, LISTEN_VARIABLE "=");

    for (size_t i = 0; i < addresses->n && len < size; i++)
        len += (size_t)snprintf(text + len, size - len, "%s%d=%s", i > 0 ? " " : "", fds[i], addresses->at[i].text);
}

void listen_inherit(struct listen_known *known)
{
    char *given = getenv(LISTEN_VARIABLE), *rest = NULL;

    if (given == NULL)
        return;
    char *text = memory_copy(given, strlen(given));
    unsetenv(LISTEN_VARIABLE);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        struct config_address bound = {.len = sizeof bound.address};
        char *end;
        int fd = (int)strtol(word, &end, 10), is_listening = 0;
        socklen_t len = sizeof is_listening;

        if (*end != '=' || fd < 3 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) != 0 || !is_listening)
            continue;
        if (getsockname(fd, (struct sockaddr *)&bound.address, &bound.len) == 0)
            add_known(known, end + 1, &bound, fd);
    }
    free(text);
}

void listen_forget(struct listen_known *known, bool with_fds)
{
    for (size_t i = 0; i < known->n; i++) {
        free(known->at[i].text);
        if (with_fds)
            close(known->fds[i]);
    }
    free(known->at);
    free(known->fds);
    *known = (struct listen_known){0};
}

void listen_remove(const struct listen_known *known)
{
    for (size_t i = 0; i < known->n; i++)
        if (known->at[i].len > 0 && is_unix(&known->at[i]))
            unlink(unix_path(&known->at[i]));
}

/* Each is found once: "127.0.0.1:0" may be there several times. */
static int find_known(struct listen_known *known, const struct config_address *address)
{
    for (size_t i = 0; i < known->n; i++) {
        if (!is_same(&known->at[i], address))
            continue;
        free(known->at[i].text);
        known->at[i] = (struct config_address){0};
        return fcntl(known->fds[i], F_DUPFD_CLOEXEC, 3);
    }
    return -1;
}

int listen_open(const struct config_addresses *addresses, const struct config_user *owner, struct listen_known *known,
                int *fds_out)
{
    bool *is_new = memory_zeroed(addresses->n + 1, sizeof *is_new);
    size_t n = 0;

    for (; n < addresses->n; n++) {
        fds_out[n] = find_known(known, &addresses->at[n]);
        is_new[n] = fds_out[n] < 0;
        if (is_new[n])
            fds_out[n] = open_one(&addresses->at[n], owner);
        if (fds_out[n] < 0)
            break;
    }
    bool has_failed = n < addresses->n;
    if (has_failed)
        say_failure(&addresses->at[n], -fds_out[n]);
    while (has_failed && n-- > 0) {
        close(fds_out[n]);
        if (is_new[n] && is_unix(&addresses->at[n]))
            unlink(unix_path(&addresses->at[n]));
    }
    free(is_new);
    return has_failed ? -1 : 0;
}

void listen_describe(int fd, const struct config_address *address, char *text, size_t size)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } bound = {0};
    socklen_t len = sizeof bound;
    char host[INET6_ADDRSTRLEN];

    if (is_unix(address) || getsockname(fd, &bound.any, &len) != 0) {
        snprintf(text, size, "%s", address->text);
    } else if (bound.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &bound.in.sin_addr, host, sizeof host);
        snprintf(text, size, "http://%s:%u/", host, (unsigned)ntohs(bound.in.sin_port));
    } else {
        inet_ntop(AF_INET6, &bound.in6.sin6_addr, host, sizeof host);
        snprintf(text, size, "http://[%s]:%u/", host, (unsigned)ntohs(bound.in6.sin6_port));
    }
}

static bool has(const struct config_addresses *addresses, const struct config_address *address)
{
    for (size_t i = 0; addresses != NULL && i < addresses->n; i++)
        if (is_same(&addresses->at[i], address))
            return true;
    return false;
}

void listen_close(const struct config_addresses *addresses, const int *fds, const struct config_addresses *kept)
{
    for (size_t i = 0; i < addresses->n; i++) {
        close(fds[i]);
        if (is_unix(&addresses->at[i]) && !has(kept, &addresses->at[i]))
            unlink(unix_path(&addresses->at[i]));
    }
}
