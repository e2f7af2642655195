/*
 * Which servers a pool has: those of the configuration that are addresses, and those that its names stand for, as far
 * as they are known. An address is one server, however many names lead to it; the first of them counts.
 *
 * A server that no name leads to any more gets no new requests, and is forgotten with its last connection.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/seats.h"
#include "fastcgi/health.h"
#include "fastcgi/inside.h"
#include "fastcgi/names.h"

enum { BACKUP_LEVEL = 1000 }; /* above the levels of SRV records */

/* ---- one server ---- */

static uint64_t hash(uint64_t h, const void *bytes, size_t len)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ at[i]) * 0x100000001b3; /* FNV-1a */
    return h;
}

static void describe(char *text, size_t size, const struct sockaddr_storage *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    char host[INET6_ADDRSTRLEN] = "";

    if (address->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, size, "%s:%u", host, ntohs(v4->sin_port));
    } else if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, size, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        snprintf(text, size, "unix:%s", ((const struct sockaddr_un *)address)->sun_path);
    }
}

static uint64_t take_bit(struct servers *servers)
{
    uint64_t bit = ~servers->bits & (servers->bits + 1); /* the lowest that is free */

    servers->bits |= bit;
    return bit;
}

/* The same for a server's whole life, in all fronts and, but for the pool's name, at all times. */
static void identify(struct servers *servers, struct application *application)
{
    const char *name = servers->pool->config->name;
    uint64_t h = hash(0xcbf29ce484222325, application->text, strlen(application->text));
    uint64_t key = hash(h, name, strlen(name));

    application->as.identity = h;
    if (servers->seats != NULL)
        application->row = seats_add(servers->seats, key == 0 || key == SEAT_NOBODY ? 1 : key,
                                     (unsigned)servers->pool->number, application->text);
}

static struct application *make(struct servers *servers, const struct sockaddr_storage *address, socklen_t len)
{
    struct application *application = memory_zeroed(1, sizeof *application);

    application->pool = servers->pool;
    application->lanes = 1;
    memcpy(&application->address, address, sizeof *address);
    application->len = len;
    describe(application->text, sizeof application->text, address);
    application->as.bit = take_bit(servers);
    identify(servers, application);
    return application;
}

static void discard(struct servers *servers, struct application *application)
{
    if (application->query != NULL) {
        values_cancel(application->query);
        servers_leave(application);
    }
    if (application->check != NULL) {
        health_cancel(application->check);
        servers_leave(application);
    }
    if (application->row != NULL)
        seats_remove(application->row);
    servers->bits &= ~application->as.bit;
    servers->epoch++;
    free(application);
}

/* ---- all of them ---- */

static bool is_at(const struct application *application, const struct sockaddr_storage *address, socklen_t len)
{
    return application->len == len && memcmp(&application->address, address, len) == 0;
}

static struct application *find(const struct servers *servers, const struct sockaddr_storage *address, socklen_t len)
{
    for (unsigned i = 0; i < servers->n; i++)
        if (is_at(servers->at[i], address, len))
            return servers->at[i];
    return NULL;
}

static struct application *find_leaving(struct servers *servers, const struct sockaddr_storage *address, socklen_t len)
{
    struct application *application;

    TAILQ_FOREACH(application, &servers->leaving, next)
    if (is_at(application, address, len))
        return application;
    return NULL;
}

static void append(struct servers *servers, struct application *application)
{
    servers->at[servers->n] = application;
    servers->view[servers->n++] = &application->as;
    servers->epoch++;
}

/* One more, unless it is there already. True: it was not. */
static bool add(struct servers *servers, const struct config_remote *remote, const struct names_address *address)
{
    struct application *application = find(servers, &address->address, address->len);
    bool is_new = application == NULL;

    if (is_new && (servers->n == CONFIG_REMOTES || (~servers->bits == 0))) {
        if (!servers->has_said_full)
            log_warning("pool %s: more than %d servers; the rest is passed over", servers->pool->config->name,
                        CONFIG_REMOTES);
        servers->has_said_full = true;
        return false;
    }
    if (is_new && (application = find_leaving(servers, &address->address, address->len)) != NULL) {
        TAILQ_REMOVE(&servers->leaving, application, next);
        application->is_leaving = false;
    } else if (is_new) {
        application = make(servers, &address->address, address->len);
    }
    if (is_new)
        append(servers, application);
    if (!is_new && application->is_named && application->remote != remote)
        return false; /* the first counts */
    application->remote = remote;
    application->is_named = true;
    application->limit = remote->max_connections > 0 ? remote->max_connections : servers->pool->config->max_connections;
    application->as.level = address->level + (remote->is_backup ? BACKUP_LEVEL : 0);
    application->as.weight = address->weight > 0 ? address->weight : remote->weight > 0 ? remote->weight : 1;
    if (application->row != NULL) {
        atomic_store(&application->row->limit, application->limit);
        atomic_store(&application->row->weight, application->as.weight);
    }
    servers_note(application, NULL);
    return is_new;
}

/* Those that its name did not lead to. */
static unsigned remove_unnamed(struct servers *servers)
{
    struct application *at[CONFIG_REMOTES];
    unsigned n = servers->n, n_removed = 0;

    memcpy(at, servers->at, sizeof at);
    servers->n = 0;
    for (unsigned i = 0; i < n; i++) {
        if (at[i]->is_named) {
            append(servers, at[i]);
            continue;
        }
        n_removed++;
        at[i]->is_leaving = true;
        TAILQ_INSERT_TAIL(&servers->leaving, at[i], next);
    }
    return n_removed;
}

static void forget_unused(struct servers *servers)
{
    struct application *application = TAILQ_FIRST(&servers->leaving);

    while (application != NULL) {
        struct application *next = TAILQ_NEXT(application, next);

        servers_note(application, NULL);
        if (application->n_peers == 0)
            members_forget(application);
        application = next;
    }
}

void members_forget(struct application *application)
{
    struct servers *servers = application->pool->servers;

    TAILQ_REMOVE(&servers->leaving, application, next);
    discard(servers, application);
}

/* ---- names ---- */

static void say_addresses(const struct servers_name *name)
{
    const struct servers *servers = name->servers;
    struct buffer list = {0};

    if (servers->seats != NULL && !seats_is_first(servers->seats))
        return; /* one front tells it */
    for (unsigned i = 0; i < servers->n; i++)
        if (servers->at[i]->remote == name->remote)
            buffer_printf(&list, "%s%s", buffer_len(&list) > 0 ? ", " : "", servers->at[i]->text);
    log_notice("pool %s: %s: %.*s", servers->pool->config->name, name->remote->text, (int)buffer_len(&list),
               buffer_at(&list));
    buffer_free(&list);
}

/* Idle connections to what is leaving are of no use to anybody. */
static void close_idle(struct servers *servers)
{
    struct fastcgi_pool *pool = servers->pool;
    struct peer *peer = TAILQ_FIRST(&pool->idle);

    while (peer != NULL) {
        struct peer *next = TAILQ_NEXT(peer, next);

        if (peer_application(peer)->is_leaving)
            pool_remove_peer(peer);
        peer = next;
    }
}

static void on_found(void *arg, const struct names_address *at, size_t n)
{
    struct servers_name *name = arg;
    struct servers *servers = name->servers;
    bool was_failing = name->is_failing, had_servers = servers->n > 0;
    unsigned n_added = 0;

    for (unsigned i = 0; i < servers->n; i++)
        if (servers->at[i]->remote == name->remote)
            servers->at[i]->is_named = false;
    for (size_t i = 0; i < n; i++) {
        bool is_new = add(servers, name->remote, &at[i]);

        n_added += is_new;
        if (is_new && had_servers && name->is_known)
            servers->at[servers->n - 1]->as.back_us = clock_us(); /* it is new: see slow_start */
    }
    unsigned n_removed = remove_unnamed(servers);
    close_idle(servers);
    forget_unused(servers);
    name->is_known = true;
    name->is_failing = false;
    if (n_added + n_removed > 0 || was_failing)
        say_addresses(name);
    pool_serve_waiting(servers->pool);
}

static void on_failed(void *arg, const char *why)
{
    struct servers_name *name = arg;
    const struct servers *servers = name->servers;

    snprintf(name->why, sizeof name->why, "%s", why);
    if (name->is_failing)
        return;
    name->is_failing = true;
    if (servers->seats == NULL || seats_is_first(servers->seats))
        log_warning("pool %s: the addresses of %s cannot be had: %s; %s", servers->pool->config->name,
                    name->remote->text, why,
                    name->is_known ? "the last known go on being used" : "requests wait for them");
}

/* ---- making and unmaking ---- */

static void add_entry(struct servers *servers, size_t i)
{
    const struct fastcgi_pool *pool = servers->pool;
    const struct config_remote *remote = &pool->config->servers.at[i];
    struct servers_name *name = &servers->names[i];
    struct names_address address = {.len = remote->len};

    *name = (struct servers_name){.servers = servers, .remote = remote};
    if (remote->kind == REMOTE_ADDRESS) {
        memcpy(&address.address, &remote->address, sizeof address.address);
        add(servers, remote, &address);
        return;
    }
    name->names = names_create(&(struct names_options){.base = pool->options.base,
                                                       .resolver = pool->options.resolver,
                                                       .name = remote->name,
                                                       .is_srv = remote->kind == REMOTE_SRV,
                                                       .port = remote->port,
                                                       .found = on_found,
                                                       .failed = on_failed,
                                                       .arg = name});
}

void members_create(struct servers *servers)
{
    const struct config_remotes *remotes = &servers->pool->config->servers;

    TAILQ_INIT(&servers->leaving);
    servers->names = memory_zeroed(remotes->n, sizeof *servers->names);
    for (size_t i = 0; i < remotes->n; i++)
        add_entry(servers, i);
}

void members_destroy(struct servers *servers)
{
    struct application *application;

    for (size_t i = 0; i < servers->pool->config->servers.n; i++)
        if (servers->names[i].names != NULL)
            names_destroy(servers->names[i].names);
    while ((application = TAILQ_FIRST(&servers->leaving)) != NULL) {
        TAILQ_REMOVE(&servers->leaving, application, next);
        discard(servers, application);
    }
    for (unsigned i = 0; i < servers->n; i++)
        discard(servers, servers->at[i]);
    free(servers->names);
}
