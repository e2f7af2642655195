/* Opens connections to applications. */
#ifndef GATEHOUSE_FASTCGI_DIAL_H
#define GATEHOUSE_FASTCGI_DIAL_H

#include <stdint.h>
#include <sys/socket.h>

/* Begins to connect. 0: it stands; -EINPROGRESS: not yet; then *fd_out is the caller's; or -errno. With timeout_ms not
 * 0, a host that acknowledges nothing for so long, or says nothing when it is asked whether it is there, ends the
 * connection with ETIMEDOUT; of a unix socket, that is nothing. */
int dial(const struct sockaddr *address, socklen_t len, unsigned timeout_ms, int *fd_out);

/* The error that the socket has met, as a positive errno; 0: none. */
int dial_error(int fd);

#endif
