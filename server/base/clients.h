/*
 * How many connections each client address has now, over all fronts, in memory of a fixed size.
 *
 * Each front counts its own connections in a table of its own that all can read; an address's connections are the sum
 * over the fronts. An address has one counter in each of a table's rows, chosen by a hash with a secret; it may share
 * one with others, so the smaller of its sums is taken. That is never too small; it is too large only for an address
 * that meets others in every row.
 *
 * A client is an IPv4 address, or an IPv6 network of 64 bits, of which one client may have all addresses.
 */
#ifndef GATEHOUSE_BASE_CLIENTS_H
#define GATEHOUSE_BASE_CLIENTS_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { CLIENT_ROWS = 3, CLIENT_SLOTS = 4096, CLIENT_TABLES = 128 };

/* All-zero is an empty one. One writer: the front that it belongs to. */
struct client_table {
    _Atomic uint32_t rows[CLIENT_ROWS][CLIENT_SLOTS];
};

struct peer_address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
};

struct clients;

/* `tables`: *n_tables of them, which may grow to CLIENT_TABLES; one for each front, shared by all; both outlive this.
 * `secret`: the same for all. Empties the front's own. `most`: connections that a client may have, at least 1. */
struct clients *clients_create(struct client_table *tables, const _Atomic uint32_t *n_tables, unsigned front,
                               uint64_t secret, unsigned most);
void clients_destroy(struct clients *clients); /* NULL: nothing */

/* Counts a connection of that client; false, and it is not counted, when the client has as many as it may. A client of
 * a unix socket is not counted. When several fronts ask at the same time each may see the others', so none gets the
 * last place: more than `most` are never let in. */
bool clients_enter(struct clients *clients, const struct peer_address *client);

/* One that was counted is gone. */
void clients_leave(struct clients *clients, const struct peer_address *client);

#endif
