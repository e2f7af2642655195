/* Listening sockets: made once, by the keeper, for all fronts. */
#ifndef GATEHOUSE_PROCESS_LISTEN_H
#define GATEHOUSE_PROCESS_LISTEN_H

#include "config.h"

/* Binds and listens on every address, non-blocking and close-on-exec. Returns 0, or -1 when one failed: then a line
 * that names it and the cure was logged, and nothing is left open. */
int listen_open(const struct config_addresses *addresses, const struct config_user *owner, int *fds_out);

/* Writes "http://127.0.0.1:8080/" or "unix:/run/x.sock" as the socket is bound: with the port that was chosen. */
void listen_describe(int fd, const struct config_address *address, char *text, size_t size);

/* Closes them, and removes the files of unix sockets. */
void listen_close(const struct config_addresses *addresses, const int *fds);

#endif
