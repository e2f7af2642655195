/*
 * Whoever is in the phases start, first and body has a slot: those requests are looked for in the places of all fronts.
 * Nothing is locked, so a text is of the moment, more or less; each request in it is whole, for a version says so.
 *
 * Fronts are taken for hostile: each text has its end looked for within its room, and numbers are checked before use.
 */
#include "base/holders.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

enum {
    LONGEST_URI = 80, /* bytes that are shown */
    MORE_ROOM = 24,   /* for ", and 123456 more" */
};

/* One process, or one request, that is busy. */
struct holder {
    int32_t pid; /* 0: not known */
    uint64_t since_us;
    const struct scoreboard_request *request; /* NULL: has none in flight */
    const struct scoreboard_process *process; /* without a request */
};

struct found {
    struct holder holders[HOLDERS_MOST]; /* the longest at it first */
    unsigned n, n_all;
};

static void take(struct found *found, struct holder holder)
{
    unsigned at = found->n;

    found->n_all++;
    while (at > 0 && holder.since_us < found->holders[at - 1].since_us)
        at--;
    if (at == HOLDERS_MOST)
        return;
    if (found->n < HOLDERS_MOST)
        found->n++;
    memmove(&found->holders[at + 1], &found->holders[at], (found->n - 1 - at) * sizeof holder);
    found->holders[at] = holder;
}

static bool has_slot(uint32_t state)
{
    return state == REQUEST_START || state == REQUEST_FIRST || state == REQUEST_SEND;
}

/* Where nobody has ever written is not looked: it would have to be made first. */
static unsigned n_fronts(const struct scoreboard *scoreboard)
{
    uint32_t n = scoreboard->n_fronts;

    return n < SCOREBOARD_FRONTS ? n : SCOREBOARD_FRONTS;
}

static void find_requests(struct found *found, const struct scoreboard *scoreboard, unsigned pool)
{
    for (unsigned i = 0; i < n_fronts(scoreboard); i++) {
        const struct scoreboard_front *front = &scoreboard->fronts[i];
        uint32_t n = front->n_requests;

        if (front->pid == 0)
            continue;
        for (uint32_t k = 0; k < n && k < SCOREBOARD_REQUESTS; k++) {
            const struct scoreboard_request *request = &front->requests[k];

            if (request->pool == pool && has_slot(request->state))
                take(found, (struct holder){request->pid, request->started_us, request, NULL});
        }
    }
}

static bool has_pid(const struct found *found, int32_t pid)
{
    for (unsigned i = 0; i < found->n; i++)
        if (found->holders[i].pid == pid)
            return true;
    return false;
}

/* Adds those that no request was found of; with more requests than are named, nobody can tell. Returns how many of the
 * pool's processes are busy. */
static unsigned find_processes(struct found *found, const struct scoreboard *scoreboard, unsigned pool)
{
    struct found others = {.n = 0};
    unsigned n_busy = 0;

    for (unsigned i = 0; (i = scoreboard_next(scoreboard, i)) < SCOREBOARD_PROGRAMS; i++) {
        const struct scoreboard_process *process = &scoreboard->processes[i];

        if (process->pool != pool + 1)
            continue;
        bool is_named = has_pid(found, process->pid);
        n_busy += is_named || process->n_active > 0;
        if (!is_named)
            take(&others, (struct holder){process->pid, process->since_us, NULL, process});
    }
    if (found->n_all > found->n)
        return n_busy;
    for (unsigned i = 0; i < others.n && found->n < HOLDERS_MOST; i++)
        found->holders[found->n++] = others.holders[i];
    found->n_all += others.n_all;
    return n_busy;
}

/* ---- the text ---- */

/* A text of the scoreboard, which may have no end and any bytes. */
static void add_text(struct buffer *to, const char *text, size_t size, size_t longest)
{
    size_t len = strnlen(text, size);

    for (size_t i = 0; i < len && i < longest; i++) {
        if (text[i] > ' ' && text[i] < 0x7f)
            buffer_append(to, &text[i], 1);
        else
            buffer_printf(to, "%%%02X", (unsigned char)text[i]);
    }
    if (len > longest || len == size)
        buffer_append_span(to, SPAN("..."));
}

static void add_seconds(struct buffer *to, uint64_t since_us, uint64_t now_us)
{
    uint64_t tenths = now_us > since_us ? (now_us - since_us) / 100000 : 0;

    buffer_printf(to, " %" PRIu64 ".%" PRIu64 " s", tenths / 10, tenths % 10);
}

static const char *phase_of(uint32_t state)
{
    return state == REQUEST_START ? "start" : state == REQUEST_FIRST ? "first" : "body";
}

/* False: it is over by now. */
static bool add_request(struct buffer *to, const struct holder *holder, uint64_t now_us)
{
    struct scoreboard_request copy;

    if (!scoreboard_read(&holder->request->version, holder->request, &copy, sizeof copy) || !has_slot(copy.state))
        return false;
    if (copy.pid != 0)
        buffer_printf(to, "pid %d ", (int)copy.pid);
    add_text(to, copy.method, sizeof copy.method, sizeof copy.method);
    buffer_append_span(to, SPAN(" "));
    add_text(to, copy.uri, sizeof copy.uri, LONGEST_URI);
    add_seconds(to, copy.started_us, now_us);
    buffer_printf(to, " %s from ", phase_of(copy.state));
    add_text(to, copy.client, sizeof copy.client, sizeof copy.client);
    return true;
}

static bool add_process(struct buffer *to, const struct holder *holder, uint64_t now_us)
{
    const struct scoreboard_process *process = holder->process;

    buffer_printf(to, "pid %d %s", (int)holder->pid,
                  process->is_retiring    ? "retiring"
                  : process->n_active > 0 ? "without a client"
                                          : "no request");
    add_seconds(to, process->given > 0 ? holder->since_us : process->start_us, now_us);
    return true;
}

static void add_holders(struct buffer *to, const struct found *found, uint64_t now_us, size_t end)
{
    struct buffer one = {0};
    const char *between = ": ";
    unsigned n = 0;

    for (; n < found->n; n++) {
        const struct holder *holder = &found->holders[n];

        buffer_clear(&one);
        if (!(holder->request != NULL ? add_request : add_process)(&one, holder, now_us))
            continue;
        if (buffer_len(to) + strlen(between) + buffer_len(&one) + MORE_ROOM > end)
            break;
        buffer_append_span(to, span_of(between));
        buffer_append_span(to, buffer_span(&one));
        between = "; ";
    }
    if (found->n_all > n)
        buffer_printf(to, ", and %u more", found->n_all - n);
    buffer_free(&one);
}

static const char *noun_of(unsigned kind)
{
    static const char *const nouns[] = {"processes", "programs", "connections"};

    return nouns[kind < sizeof nouns / sizeof *nouns ? kind : 0];
}

void holders_describe(const struct scoreboard *scoreboard, unsigned pool, uint64_t now_us, size_t room,
                      struct buffer *to)
{
    const struct scoreboard_pool *about = &scoreboard->pools[pool];
    struct found found = {.n = 0};
    uint64_t waiting = 0;
    size_t start = buffer_len(to);

    find_requests(&found, scoreboard, pool);
    unsigned n_busy = about->kind == 0 ? find_processes(&found, scoreboard, pool) : found.n_all;
    for (unsigned i = 0; i < n_fronts(scoreboard); i++)
        if (scoreboard->fronts[i].pid != 0)
            waiting += scoreboard->fronts[i].shares[pool].n_waiting;
    buffer_printf(to, "%u of %" PRIu32 " %s busy, %" PRIu64 " waiting", n_busy, about->capacity, noun_of(about->kind),
                  waiting);
    add_holders(to, &found, now_us, start + room);
}

/* ---- the limit ---- */

/* Who gets one of these soon does not wait in earnest: processes that are idle at other fronts or may yet be started;
 * rights to a run or a connection that nobody uses, wherever they are. */
static uint64_t n_to_be_had(const struct holders *holders)
{
    const struct scoreboard *scoreboard = holders->scoreboard;
    const struct scoreboard_pool *pool = &scoreboard->pools[holders->pool];
    uint64_t idle = 0, used = pool->kind == 0 ? pool->n_live : 0;

    for (unsigned i = 0; i < n_fronts(scoreboard); i++) {
        const struct scoreboard_front *front = &scoreboard->fronts[i];

        if (front->pid == 0)
            continue;
        if (pool->kind != 0)
            used += front->shares[holders->pool].n_active;
        else if (i != holders->front)
            idle += front->shares[holders->pool].n_idle;
    }
    return idle + (!pool->is_down && used < pool->capacity ? pool->capacity - used : 0);
}

bool holders_is_full(const struct holders *holders, unsigned own, unsigned limit)
{
    const struct scoreboard *scoreboard = holders->scoreboard;
    uint64_t waiting = own;

    if (scoreboard == NULL || holders->pool >= SCOREBOARD_POOLS)
        return own >= limit;
    for (unsigned i = 0; i < n_fronts(scoreboard); i++)
        if (i != holders->front && scoreboard->fronts[i].pid != 0)
            waiting += scoreboard->fronts[i].shares[holders->pool].n_waiting;
    return waiting >= limit + n_to_be_had(holders);
}

/* ---- when to tell ---- */

static uint64_t unix_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Makes the version odd, if it is not so: then another front writes. One that is still found odd after a pause belongs
 * to a front that has died at it. */
static bool lock(struct holders *holders, _Atomic uint32_t *version)
{
    uint32_t now = atomic_load_explicit(version, memory_order_relaxed);
    uint32_t mine = now + ((now & 1) != 0 ? 2 : 1);

    if ((now & 1) != 0 && holders->writer != now) {
        holders->writer = now;
        return false;
    }
    holders->writer = 0;
    if (!atomic_compare_exchange_strong(version, &now, mine))
        return false;
    atomic_thread_fence(memory_order_release);
    return true;
}

static void make_line(struct holders *holders, const char *why)
{
    buffer_clear(&holders->text);
    buffer_printf(&holders->text, "%s %.128s: %s: ", holders->what, holders->name, why);
    holders_describe(holders->scoreboard, holders->pool, clock_us(), HOLDERS_ROOM, &holders->text);
    buffer_append(&holders->text, "", 1);
}

/* With its lock. False: another front has told of it not long ago. */
static bool leave_text(struct holders *holders, struct scoreboard_saturation *saturation, uint64_t now)
{
    struct buffer text = {0};

    if (saturation->at_unix_us <= now && now - saturation->at_unix_us < HOLDERS_PAUSE_S * 1000000)
        return false;
    holders_describe(holders->scoreboard, holders->pool, clock_us(), sizeof saturation->text - 1, &text);
    saturation->at_unix_us = now;
    snprintf(saturation->text, sizeof saturation->text, "%.*s", (int)buffer_len(&text), buffer_at(&text));
    buffer_free(&text);
    return true;
}

const char *holders_full(struct holders *holders)
{
    static const uint64_t pause_us = (uint64_t)HOLDERS_PAUSE_S * 1000000;
    uint64_t now = clock_us();
    struct scoreboard_saturation *saturation;

    if (holders->scoreboard == NULL || holders->pool >= SCOREBOARD_POOLS || now < holders->full_due_us)
        return NULL;
    saturation = &holders->scoreboard->saturations[holders->pool];
    holders->full_due_us = now + pause_us / 10; /* another front may have told: it is looked at again, but not always */
    if (!lock(holders, &saturation->version))
        return NULL;
    bool is_mine = leave_text(holders, saturation, unix_us());
    scoreboard_close(&saturation->version);
    if (!is_mine)
        return NULL;
    holders->full_due_us = now + pause_us;
    make_line(holders, "full");
    return buffer_at(&holders->text);
}

const char *holders_expired(struct holders *holders, uint64_t timeout_ms)
{
    char why[96];
    uint64_t now = clock_us();

    if (holders->scoreboard == NULL || holders->pool >= SCOREBOARD_POOLS || now < holders->expired_due_us)
        return NULL;
    holders->expired_due_us = now + (uint64_t)HOLDERS_PAUSE_S * 1000000;
    snprintf(why, sizeof why, "a request has waited for queue_timeout = %" PRIu64 "ms in vain", timeout_ms);
    make_line(holders, why);
    return buffer_at(&holders->text);
}

void holders_finish(struct holders *holders)
{
    buffer_free(&holders->text);
}
