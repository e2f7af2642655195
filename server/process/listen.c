#include "process/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

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

int listen_open(const struct config_addresses *addresses, const struct config_user *owner, int *fds_out)
{
    for (size_t i = 0; i < addresses->n; i++) {
        fds_out[i] = open_one(&addresses->at[i], owner);
        if (fds_out[i] >= 0)
            continue;
        say_failure(&addresses->at[i], -fds_out[i]);
        while (i-- > 0)
            close(fds_out[i]);
        return -1;
    }
    return 0;
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

void listen_close(const struct config_addresses *addresses, const int *fds)
{
    for (size_t i = 0; i < addresses->n; i++) {
        close(fds[i]);
        if (is_unix(&addresses->at[i]))
            unlink(unix_path(&addresses->at[i]));
    }
}
