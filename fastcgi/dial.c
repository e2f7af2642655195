#include "fastcgi/dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

/* A host that is gone says nothing: what was sent must be acknowledged in time, and while nothing is sent it is asked
 * now and then whether it is there. */
static void watch_host(int fd, unsigned timeout_ms)
{
    int yes = 1, probe_s = timeout_ms < 3000 ? 1 : (int)(timeout_ms / 3000);

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &probe_s, sizeof probe_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe_s, sizeof probe_s);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

int dial(const struct sockaddr *address, socklen_t len, unsigned timeout_ms, int *fd_out)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (timeout_ms > 0 && address->sa_family != AF_UNIX)
        watch_host(fd, timeout_ms);
    int error = connect(fd, address, len) == 0 ? 0 : -errno;
    if (error != 0 && error != -EINPROGRESS) {
        close(fd);
        return error;
    }
    *fd_out = fd;
    return error;
}

int dial_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return error;
}
