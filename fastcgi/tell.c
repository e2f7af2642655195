/*
 * The processor time of a request is the difference between two readings of its process's clock, one at its end and
 * one at the end of the request before: one system call a request. It says nothing where a process has several requests
 * at once, and nothing of a request behind one that was given up, whose end nobody has seen.
 */
#include "fastcgi/tell.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/places.h"

#define NOT_KNOWN UINT64_MAX

static struct scoreboard_process *part_of(const struct peer *peer)
{
    return peer->id != 0 ? &peer->pool->options.scoreboard->processes[peer->index] : NULL;
}

static void set32(_Atomic uint32_t *to, uint32_t n)
{
    atomic_store_explicit(to, n, memory_order_relaxed);
}

static void set64(_Atomic uint64_t *to, uint64_t n)
{
    atomic_store_explicit(to, n, memory_order_relaxed);
}

static uint64_t read_clock(const struct peer *peer)
{
    struct timespec t;

    if (!peer->is.has_clock || clock_gettime(peer->cpu_clock, &t) != 0)
        return NOT_KNOWN;
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void tell_lent(struct peer *peer)
{
    struct scoreboard_process *part = part_of(peer);

    peer->is.has_clock = clock_getcpuclockid((pid_t)peer->pid, &peer->cpu_clock) == 0;
    peer->cpu_us = NOT_KNOWN;
    if (part == NULL)
        return;
    set32(&part->n_active, 0);
    set64(&part->since_us, clock_us());
}

void tell_given(struct peer *peer, struct fastcgi_run *run)
{
    struct scoreboard_process *part = part_of(peer);
    struct scoreboard_request *place = run->run.request->place;
    const struct fastcgi_options *options = &peer->pool->options;
    uint64_t now = run->run.granted_us;

    place_change(place, REQUEST_START, now);
    place_set_pid(place, peer->pid);
    if (part == NULL)
        return;
    counter_step(&part->given);
    if (peer->n_runs == 1)
        set64(&part->since_us, now);
    if (place != NULL) {
        set32(&part->request, (uint32_t)(place - options->scoreboard->fronts[options->front].requests));
        set32(&part->front, options->front);
    } else {
        set32(&part->front, SCOREBOARD_NONE);
    }
    tell_count(peer);
    if (peer->cpu_us == NOT_KNOWN && !peer_is_shared(peer))
        peer->cpu_us = read_clock(peer);
}

void tell_connected(struct fastcgi_run *run)
{
    place_change(run->run.request->place, REQUEST_FIRST, run->run.started_us);
}

void tell_coming(struct peer *peer)
{
    struct scoreboard_process *part = part_of(peer);

    if (part != NULL)
        set32(&part->n_active, peer->n_runs + peer->n_orphans + 1);
}

void tell_count(struct peer *peer)
{
    struct scoreboard_process *part = part_of(peer);

    if (part != NULL)
        set32(&part->n_active, peer->n_runs + peer->n_orphans);
}

static void copy(char *to, size_t size, const char *from)
{
    size_t len = strnlen(from, size - 1);

    memcpy(to, from, len);
    to[len] = '\0';
}

static void keep_texts(struct scoreboard_process *part, const struct scoreboard_request *place)
{
    if (place == NULL)
        return;
    scoreboard_open(&part->version);
    copy(part->method, sizeof part->method, place->method);
    copy(part->user, sizeof part->user, place->user);
    copy(part->uri, sizeof part->uri, place->uri);
    scoreboard_close(&part->version);
}

uint64_t tell_answered(struct peer *peer, struct fastcgi_run *run)
{
    struct scoreboard_process *part = part_of(peer);
    uint64_t used = NOT_KNOWN, now = clock_us();

    if (part == NULL)
        return used;
    if (peer_is_shared(peer)) {
        peer->cpu_us = NOT_KNOWN;
    } else {
        uint64_t cpu_us = read_clock(peer);

        if (cpu_us != NOT_KNOWN && peer->cpu_us != NOT_KNOWN)
            used = cpu_us - peer->cpu_us;
        peer->cpu_us = cpu_us;
    }
    counter_step(&part->served);
    set64(&part->last_us, now - run->run.granted_us);
    set64(&part->last_cpu_us, used);
    if (peer->n_runs == 1)
        set64(&part->since_us, now); /* idle, in a moment */
    keep_texts(part, run->run.request->place);
    return used;
}

void tell_taken(struct peer *peer, struct fastcgi_run *run)
{
    place_set_pid(run->run.request->place, 0);
    tell_count(peer);
}
