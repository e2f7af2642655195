/* Listening sockets: made once, by the keeper, for all fronts. */
#ifndef GATEHOUSE_PROCESS_LISTEN_H
#define GATEHOUSE_PROCESS_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "config.h"

/* Sockets that listen already. */
struct listen_known {
    struct config_address *at; /* .text may be NULL */
    int *fds;
    size_t n;
};

/* Those of a configuration; those that this program was given by the one before it (GATEHOUSE_LISTEN in the
 * environment, which is removed). */
void listen_know(struct listen_known *known, const struct config_addresses *addresses, const int *fds);
void listen_inherit(struct listen_known *known);

/* Writes the variable that listen_inherit() will read in the program that gets these descriptors. */
void listen_bequeath(const struct config_addresses *addresses, const int *fds, char *text, size_t size);
void listen_forget(struct listen_known *known, bool with_fds); /* frees; closes them, too */

/* Removes the files of unix sockets among them which listen_open() has not taken. */
void listen_remove(const struct listen_known *known);

/* Listens on every address, non-blocking and close-on-exec: on a socket that is known for it, or a new one. Returns 0,
 * or -1 when one failed: then a line that names it and the cure was logged, and nothing is left open. */
int listen_open(const struct config_addresses *addresses, const struct config_user *owner, struct listen_known *known,
                int *fds_out);

/* Writes "http://127.0.0.1:8080/" or "unix:/run/x.sock" as the socket is bound: with the port that was chosen. */
void listen_describe(int fd, const struct config_address *address, char *text, size_t size);

/* Closes them, and removes the files of unix sockets, but those which `kept` (may be NULL) has, too. */
void listen_close(const struct config_addresses *addresses, const int *fds, const struct config_addresses *kept);

#endif
