/*
 * Weights are given their turns as in nginx's smooth round robin: each choice adds every server's weight to its
 * credit and takes the sum of weights from the one that has most. Hashes are rendezvous hashes with weights
 * (Schindelhauer and Schomaker): each server draws a number from the key, and the highest wins; what one server draws
 * does not depend on the others, so when one goes or comes only its own requests move.
 */
#include "fastcgi/balance.h"

#include <math.h>

/* ---- how it does ---- */

static bool is_over(uint64_t since_us, uint64_t us, uint64_t now_us)
{
    return now_us - since_us >= us;
}

bool balance_is_usable(const struct balance_rules *rules, const struct balance_server *server, uint64_t now_us)
{
    if (server->is_ill)
        return false;
    switch (server->state) {
    case BALANCE_UP:
        return true;
    case BALANCE_DOWN:
        return is_over(server->down_us, rules->fail_timeout_us, now_us);
    case BALANCE_TRYING: /* the request may have been given up */
        return is_over(server->trying_us, rules->fail_timeout_us, now_us);
    }
    return false;
}

void balance_begin(const struct balance_rules *rules, struct balance_server *server, uint64_t now_us)
{
    if (server->state == BALANCE_UP || !balance_is_usable(rules, server, now_us))
        return;
    server->state = BALANCE_TRYING;
    server->trying_us = now_us;
}

/* The last max_fails failures were within fail_timeout. */
static bool has_enough(const struct balance_rules *rules, const struct balance_server *server, uint64_t now_us)
{
    if (rules->max_fails == 0 || server->n_failures < rules->max_fails)
        return false;
    return !is_over(server->failures_us[(server->n_failures - rules->max_fails) % BALANCE_MAX_FAILS],
                    rules->fail_timeout_us, now_us);
}

bool balance_failed(const struct balance_rules *rules, struct balance_server *server, uint64_t begun_us,
                    uint64_t now_us)
{
    bool was_up = server->state == BALANCE_UP;

    if (server->back_us != 0 && begun_us < server->back_us)
        return false; /* that it was away then is known */
    server->failures_us[server->n_failures++ % BALANCE_MAX_FAILS] = now_us;
    if (server->n_failures == 2 * BALANCE_MAX_FAILS)
        server->n_failures = BALANCE_MAX_FAILS; /* the same place in the ring */
    if (was_up && !has_enough(rules, server, now_us))
        return false;
    server->state = BALANCE_DOWN;
    server->down_us = now_us;
    return was_up;
}

void balance_came_back(struct balance_server *server, uint64_t now_us)
{
    server->state = BALANCE_UP;
    server->n_failures = 0;
    server->back_us = now_us;
    server->credit = 0;
}

bool balance_answered(struct balance_server *server, uint64_t begun_us, uint64_t now_us)
{
    if (server->state == BALANCE_UP || begun_us <= server->down_us)
        return false;
    balance_came_back(server, now_us);
    return true;
}

double balance_weight(const struct balance_rules *rules, const struct balance_server *server, uint64_t now_us)
{
    double share = 1;

    if (rules->slow_start_us > 0 && server->back_us != 0 && !is_over(server->back_us, rules->slow_start_us, now_us))
        share = 0.1 + 0.9 * (double)(now_us - server->back_us) / (double)rules->slow_start_us;
    return server->weight * share;
}

/* ---- the choice ---- */

struct view {
    const struct balance_rules *rules;
    struct balance_server *const *servers;
    size_t n;
    uint64_t tried, key, now_us;
    unsigned level;
};

static bool is_left(const struct view *view, size_t i)
{
    return (view->servers[i]->bit & view->tried) == 0;
}

static bool is_candidate(const struct view *view, size_t i)
{
    const struct balance_server *server = view->servers[i];

    return is_left(view, i) && server->level == view->level && balance_is_usable(view->rules, server, view->now_us);
}

/* Sets the lowest level with a server that may be used; false: there is none. */
static bool find_level(struct view *view)
{
    bool is_found = false;

    for (size_t i = 0; i < view->n; i++) {
        const struct balance_server *server = view->servers[i];

        if (!is_left(view, i) || !balance_is_usable(view->rules, server, view->now_us))
            continue;
        if (!is_found || server->level < view->level)
            view->level = server->level;
        is_found = true;
    }
    return is_found;
}

/* None may be used: by their order, those of a lower level first. */
static struct balance_choice choose_anyway(const struct view *view)
{
    struct balance_choice best = {.index = -1};

    for (size_t i = 0; i < view->n; i++) {
        if (!is_left(view, i))
            continue;
        if (!view->servers[i]->has_room) {
            best.is_full = best.index < 0;
        } else if (best.index < 0 || view->servers[i]->level < view->servers[best.index]->level) {
            best.index = (int)i;
            best.is_full = false;
        }
    }
    return best;
}

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double draw(const struct view *view, const struct balance_server *server)
{
    uint64_t bits = mix(mix(view->key) ^ server->identity);
    double u = ((double)(bits >> 11) + 0.5) / 9007199254740992.0; /* 2^53: in (0, 1) */

    return balance_weight(view->rules, server, view->now_us) / -log(u);
}

static struct balance_choice choose_by_hash(const struct view *view)
{
    struct balance_choice best = {.index = -1};
    double most = 0;

    for (size_t i = 0; i < view->n; i++) {
        if (!is_candidate(view, i))
            continue;
        double drawn = draw(view, view->servers[i]);
        if (best.index < 0 || drawn > most) {
            most = drawn;
            best = (struct balance_choice){(int)i, !view->servers[i]->has_room};
        }
    }
    return best;
}

static double load_of(const struct view *view, size_t i)
{
    if (view->rules->balance != BALANCE_LEAST_BUSY)
        return 0;
    return view->servers[i]->n_busy / balance_weight(view->rules, view->servers[i], view->now_us);
}

/* Of those with room and the least load, the one whose turn it is. */
static struct balance_choice choose_by_turns(const struct view *view)
{
    struct balance_choice best = {.index = -1};
    double least = INFINITY, all = 0;

    for (size_t i = 0; i < view->n; i++) {
        if (!is_candidate(view, i))
            continue;
        if (!view->servers[i]->has_room)
            best.is_full = true;
        else if (load_of(view, i) < least)
            least = load_of(view, i);
    }
    for (size_t i = 0; i < view->n; i++) {
        struct balance_server *server = view->servers[i];

        if (!is_candidate(view, i) || !server->has_room || load_of(view, i) > least)
            continue;
        double weight = balance_weight(view->rules, server, view->now_us);
        server->credit += weight;
        all += weight;
        if (best.index < 0 || server->credit > view->servers[best.index]->credit)
            best.index = (int)i;
    }
    if (best.index >= 0) {
        view->servers[best.index]->credit -= all;
        best.is_full = false;
    }
    return best;
}

struct balance_choice balance_choose(const struct balance_rules *rules, struct balance_server *const *servers, size_t n,
                                     uint64_t tried, uint64_t key, uint64_t now_us)
{
    struct view view = {rules, servers, n, tried, key, now_us, 0};

    if (!find_level(&view))
        return choose_anyway(&view);
    return rules->balance == BALANCE_HASH ? choose_by_hash(&view) : choose_by_turns(&view);
}
