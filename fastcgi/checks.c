/*
 * Health requests: each server is asked once an interval by one of the fronts, and the others look at what it was told.
 * Who has asked last goes on asking; when nobody has for an interval and a half, whoever notices takes over, fronts
 * with higher numbers a little later.
 *
 * One failure is enough: the server gets no requests until it has answered well, once. The request has a place of its
 * own, so a server never has more connections than it may; while it has as many, all of them busy, it is not asked.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/seats.h"
#include "fastcgi/health.h"
#include "fastcgi/inside.h"

enum {
    TIMEOUT_MS = 5000, /* of one; less when the interval is */
    STAGGER_US = 20000,
};

static uint64_t interval_us(const struct servers *servers)
{
    return servers->pool->config->health.interval_ms * 1000;
}

/* ---- what was told ---- */

static void set_ill(struct application *application, bool is_ill)
{
    if (application->as.is_ill == is_ill)
        return;
    application->as.is_ill = is_ill;
    application->pool->servers->epoch++;
    if (!is_ill)
        balance_came_back(&application->as, clock_us());
}

void checks_take(struct application *application, uint64_t told_us, unsigned health)
{
    if (told_us <= application->told_us || health == HEALTH_UNKNOWN)
        return;
    application->told_us = told_us;
    set_ill(application, health == HEALTH_ILL);
    servers_note(application, NULL);
}

static void say(const struct application *application, bool is_well, const char *why)
{
    const char *name = application->pool->config->name;

    if (is_well)
        log_notice("pool %s: server %s is well again", name, application->text);
    else
        log_warning("pool %s: server %s is not well, and gets no requests: its health request: %s", name,
                    application->text, why);
}

static void told(struct application *application, bool is_well, const char *why)
{
    uint64_t now = clock_us();

    if (application->as.is_ill == is_well)
        say(application, is_well, why);
    set_ill(application, !is_well);
    application->told_us = now;
    if (application->row != NULL) {
        atomic_store(&application->row->health, is_well ? HEALTH_WELL : HEALTH_ILL);
        atomic_store(&application->row->told_us, now);
    }
    servers_note(application, is_well ? NULL : why);
    pool_serve_waiting(application->pool);
}

static void on_answered(void *arg, bool is_well, const char *why)
{
    struct application *application = arg;

    application->check = NULL;
    servers_leave(application);
    told(application, is_well, why);
}

/* ---- asking ---- */

static void ask(struct application *application)
{
    const struct fastcgi_pool *pool = application->pool;
    const struct config_health *health = &pool->config->health;
    uint64_t timeout_ms = health->interval_ms < TIMEOUT_MS ? health->interval_ms : TIMEOUT_MS;

    if (application->check != NULL || !servers_enter(application))
        return;
    application->check = health_ask(pool->options.base, (const struct sockaddr *)&application->address,
                                    application->len, health->path, timeout_ms, on_answered, application);
    if (application->check != NULL)
        return;
    int error = errno;
    servers_leave(application);
    if (error != EMFILE && error != ENFILE) /* which are ours */
        told(application, false, error == EAGAIN ? "its backlog is full" : strerror(error));
}

/* When this front is to ask: at once, if that is over. */
static uint64_t due_us(const struct servers *servers, const struct application *application)
{
    uint64_t interval = interval_us(servers);
    struct seats_others others = {0};

    if (application->row != NULL)
        others = seats_look(servers->seats, application->row);
    if (others.asked_us > application->checked_us)
        return others.asked_us + interval + interval / 2 + (others.has_lower ? STAGGER_US : 0);
    if (application->checked_us == 0)
        return others.has_lower ? servers->made_us + STAGGER_US : 0;
    return application->checked_us + interval;
}

static void set_timer(struct servers *servers, uint64_t now, uint64_t next)
{
    uint64_t us = next > now ? next - now : 1000;
    struct timeval delay = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    event_add(servers->health, &delay);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct servers *servers = arg;
    uint64_t now = clock_us(), next = now + interval_us(servers);
    struct application *due[CONFIG_REMOTES];
    unsigned n_due = 0;

    (void)fd, (void)what;
    for (unsigned i = 0; i < servers->n; i++) {
        struct application *application = servers->at[i];
        uint64_t then = due_us(servers, application);

        if (then <= now) {
            application->checked_us = now;
            if (application->row != NULL)
                atomic_store(&application->row->asked_us, now);
            due[n_due++] = application;
            then = now + interval_us(servers);
        }
        next = then < next ? then : next;
    }
    set_timer(servers, now, next);
    for (unsigned i = 0; i < n_due; i++) /* who is told of may end runs, but no server */
        ask(due[i]);
}

void checks_start(struct servers *servers)
{
    if (servers->pool->config->health.path == NULL)
        return;
    servers->health = evtimer_new(servers->pool->options.base, on_timer, servers);
    set_timer(servers, 0, 1000);
}

void checks_stop(struct servers *servers)
{
    if (servers->health != NULL)
        event_free(servers->health);
    servers->health = NULL;
}
