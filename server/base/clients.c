#include "base/clients.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct clients {
    struct client_table *tables, *own;
    const _Atomic uint32_t *n_tables;
    unsigned most;
    uint64_t secret;
};

struct clients *clients_create(struct client_table *tables, const _Atomic uint32_t *n_tables, unsigned front,
                               uint64_t secret, unsigned most)
{
    struct clients *clients = memory_zeroed(1, sizeof *clients);

    *clients = (struct clients){tables, &tables[front], n_tables, most, secret};
    memset(clients->own, 0, sizeof *clients->own); /* a front before us may have crashed */
    return clients;
}

void clients_destroy(struct clients *clients)
{
    free(clients);
}

/* What tells clients apart; false: of a unix socket, they are not. */
static bool key_of(const struct peer_address *client, uint64_t *key_out)
{
    const struct in6_addr *in6 = &client->in6.sin6_addr;

    *key_out = 0;
    if (client->any.sa_family == AF_INET)
        memcpy(key_out, &client->in.sin_addr, sizeof client->in.sin_addr);
    else if (client->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(in6))
        memcpy(key_out, &in6->s6_addr[12], 4);
    else if (client->any.sa_family == AF_INET6)
        memcpy(key_out, in6, 8), *key_out = ~*key_out; /* no network that is in use looks like an IPv4 address then */
    else
        return false;
    return true;
}

/* The finalizer of splitmix64, with the secret before it and the row in it. */
static unsigned slot_of(const struct clients *clients, uint64_t key, unsigned row)
{
    uint64_t z = key ^ (clients->secret + row * 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27) ^ clients->secret) * 0x94d049bb133111eb;
    return (unsigned)((z ^ (z >> 31)) % CLIENT_SLOTS);
}

static void count(struct clients *clients, uint64_t key, uint32_t n)
{
    for (unsigned row = 0; row < CLIENT_ROWS; row++)
        atomic_fetch_add(&clients->own->rows[row][slot_of(clients, key, row)], n);
}

static uint32_t connections_of(const struct clients *clients, uint64_t key)
{
    uint32_t least = UINT32_MAX;

    for (unsigned row = 0; row < CLIENT_ROWS; row++) {
        unsigned slot = slot_of(clients, key, row);
        uint32_t sum = 0;

        for (unsigned i = 0; i < *clients->n_tables && i < CLIENT_TABLES; i++)
            sum += atomic_load(&clients->tables[i].rows[row][slot]);
        least = sum < least ? sum : least;
    }
    return least;
}

bool clients_enter(struct clients *clients, const struct peer_address *client)
{
    uint64_t key;

    if (!key_of(client, &key))
        return true;
    count(clients, key, 1);
    if (connections_of(clients, key) <= clients->most)
        return true;
    count(clients, key, (uint32_t)-1);
    return false;
}

void clients_leave(struct clients *clients, const struct peer_address *client)
{
    uint64_t key;

    if (key_of(client, &key))
        count(clients, key, (uint32_t)-1);
}
