/* Which server gets a request: by table, and by simulation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fastcgi/balance.h"

enum { SECOND = 1000000, MOST = 10 };

static struct balance_server servers[MOST];
static struct balance_server *view[MOST];

static const struct balance_rules least_busy = {BALANCE_LEAST_BUSY, 3, 10 * SECOND, 0};
static const struct balance_rules round_robin = {BALANCE_ROUND_ROBIN, 3, 10 * SECOND, 0};
static const struct balance_rules by_hash = {BALANCE_HASH, 3, 10 * SECOND, 0};

static void make(const unsigned *weights, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        servers[i] = (struct balance_server){
            .identity = (i + 1) * 0x9e3779b97f4a7c15, .weight = weights[i], .bit = 1u << i, .has_room = true};
        view[i] = &servers[i];
    }
}

static void make_equal(size_t n)
{
    static const unsigned ones[MOST] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

    make(ones, n);
}

static void test_turns_by_weight(void **state)
{
    static const unsigned weights[] = {5, 1, 1};
    static const char expected[] = "aabacaaaabacaa"; /* as nginx has it: no server twice in a row without need */
    char found[sizeof expected] = "";

    (void)state;
    make(weights, 3);
    for (size_t i = 0; i + 1 < sizeof expected; i++)
        found[i] = (char)('a' + balance_choose(&round_robin, view, 3, 0, 0, SECOND).index);
    assert_string_equal(found, expected);
}

static void test_spread_by_weight(void **state)
{
    static const unsigned weights[] = {1000, 100, 10, 1};
    unsigned counts[4] = {0};

    (void)state;
    make(weights, 4);
    for (int i = 0; i < 11110; i++)
        counts[balance_choose(&round_robin, view, 4, 0, 0, SECOND).index]++;
    for (int i = 0; i < 4; i++)
        assert_int_equal(counts[i], weights[i] * 10);
}

/* Requests of random length: connections in use follow the weights. */
static void test_least_busy_by_simulation(void **state)
{
    static const unsigned weights[] = {6, 3, 1};
    uint64_t sums[3] = {0}, ends[200] = {0}, seed = 1;
    unsigned of[200] = {0};

    (void)state;
    make(weights, 3);
    for (uint64_t now = 1; now < 50000; now++) {
        for (unsigned i = 0; i < 100; i++) {
            if (ends[i] > now)
                continue;
            if (ends[i] != 0)
                servers[of[i]].n_busy--;
            seed = seed * 6364136223846793005 + 1442695040888963407;
            of[i] = (unsigned)balance_choose(&least_busy, view, 3, 0, 0, now).index;
            servers[of[i]].n_busy++;
            ends[i] = now + 1 + (seed >> 33) % 100;
        }
        for (int i = 0; i < 3; i++)
            sums[i] += servers[i].n_busy;
    }
    for (int i = 0; i < 3; i++) /* of 100, on average; within 1.5 */
        assert_in_range(sums[i] / 5000, weights[i] * 100 - 15, weights[i] * 100 + 15);
}

static const struct {
    const char *what;
    const struct balance_rules *rules;
    struct balance_server servers[3];
    uint64_t tried;
    int index;
    bool is_full;
} choices[] = {
    {"the least busy", &least_busy, {{.n_busy = 2, .has_room = true}, {.n_busy = 1, .has_room = true}}, 0, 1, false},
    {"... by weight",
     &least_busy,
     {{.n_busy = 5, .weight = 6, .has_room = true}, {.n_busy = 1, .has_room = true}},
     0,
     0,
     false},
    {"one is full", &least_busy, {{.n_busy = 1}, {.n_busy = 7, .has_room = true}}, 0, 1, false},
    {"all are full", &least_busy, {{.n_busy = 1}, {.n_busy = 7}}, 0, -1, true},
    {"full, and no backup for that", &least_busy, {{.n_busy = 1}, {.level = 1, .has_room = true}}, 0, -1, true},
    {"the first is ill: a backup", &least_busy, {{.is_ill = true}, {.level = 1, .has_room = true}}, 0, 1, false},
    {"down: passed over",
     &round_robin,
     {{.state = BALANCE_DOWN, .down_us = 95 * SECOND, .has_room = true}, {.has_room = true}},
     0,
     1,
     false},
    {"down for long enough: tried",
     &least_busy,
     {{.state = BALANCE_DOWN, .down_us = 90 * SECOND, .has_room = true}, {.n_busy = 1, .has_room = true}},
     0,
     0,
     false},
    {"being tried: passed over",
     &least_busy,
     {{.state = BALANCE_TRYING, .trying_us = 95 * SECOND, .has_room = true}, {.n_busy = 9, .has_room = true}},
     0,
     1,
     false},
    {"tried on all but one", &least_busy, {{.has_room = true}, {.has_room = true}, {.has_room = true}}, 5, 1, false},
    {"tried on all", &least_busy, {{.has_room = true}, {.has_room = true}, {.has_room = true}}, 7, -1, false},
    {"all down: in their order, whatever the load",
     &least_busy,
     {{.state = BALANCE_DOWN, .down_us = 95 * SECOND, .n_busy = 3, .has_room = true},
      {.state = BALANCE_DOWN, .down_us = 95 * SECOND, .has_room = true}},
     0,
     0,
     false},
    {"all down: lower levels first",
     &least_busy,
     {{.state = BALANCE_DOWN, .down_us = 95 * SECOND, .level = 1, .has_room = true},
      {.is_ill = true, .has_room = true}},
     0,
     1,
     false},
    {"all down, the first full", &least_busy, {{.is_ill = true}, {.is_ill = true, .has_room = true}}, 0, 1, false},
    {"all down and full", &least_busy, {{.is_ill = true}, {.is_ill = true}}, 0, -1, true},
};

static void test_choices(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        size_t n = choices[i].tried >= 4 ? 3 : 2;

        for (size_t j = 0; j < n; j++) {
            servers[j] = choices[i].servers[j];
            servers[j].weight = servers[j].weight > 0 ? servers[j].weight : 1;
            servers[j].bit = 1u << j;
            view[j] = &servers[j];
        }
        struct balance_choice choice = balance_choose(choices[i].rules, view, n, choices[i].tried, 0, 100 * SECOND);
        if (choice.index != choices[i].index || choice.is_full != choices[i].is_full)
            fail_msg("%s: %d%s", choices[i].what, choice.index, choice.is_full ? ", full" : "");
    }
}

/* One of ten goes: its keys are spread over all others, and no other key moves. */
static void test_few_keys_move(void **state)
{
    enum { KEYS = 20000 };
    static int before[KEYS];
    unsigned counts[MOST] = {0}, moved[MOST] = {0};

    (void)state;
    make_equal(MOST);
    for (uint64_t key = 0; key < KEYS; key++)
        counts[before[key] = balance_choose(&by_hash, view, MOST, 0, key, SECOND).index]++;
    for (int i = 0; i < MOST; i++)
        assert_in_range(counts[i], KEYS / MOST * 9 / 10, KEYS / MOST * 11 / 10);
    servers[3].is_ill = true;
    for (uint64_t key = 0; key < KEYS; key++) {
        int after = balance_choose(&by_hash, view, MOST, 0, key, SECOND).index;

        assert_true(after == before[key] || before[key] == 3);
        moved[after] += before[key] == 3;
    }
    for (int i = 0; i < MOST; i++)
        assert_in_range(moved[i], i == 3 ? 0 : counts[3] / 9 * 7 / 10, i == 3 ? 0 : counts[3] / 9 * 13 / 10);
}

static void test_hash_by_weight(void **state)
{
    enum { KEYS = 40000 };
    static const unsigned weights[] = {1, 3};
    unsigned counts[2] = {0};

    (void)state;
    make(weights, 2);
    for (uint64_t key = 0; key < KEYS; key++)
        counts[balance_choose(&by_hash, view, 2, 0, key, SECOND).index]++;
    assert_in_range(counts[0], KEYS / 4 * 95 / 100, KEYS / 4 * 105 / 100);
}

/* A key whose server is full waits for it. */
static void test_hash_waits(void **state)
{
    (void)state;
    make_equal(4);
    int own = balance_choose(&by_hash, view, 4, 0, 77, SECOND).index;
    servers[own].has_room = false;
    struct balance_choice choice = balance_choose(&by_hash, view, 4, 0, 77, SECOND);
    assert_int_equal(choice.index, own);
    assert_true(choice.is_full);
}

static void test_failures(void **state)
{
    struct balance_server server = {.weight = 1};
    uint64_t now = 100 * SECOND;

    (void)state;
    /* three, but not within ten seconds */
    assert_false(balance_failed(&least_busy, &server, now, now));
    assert_false(balance_failed(&least_busy, &server, now, now + 5 * SECOND));
    assert_false(balance_failed(&least_busy, &server, now, now + 10 * SECOND));
    assert_true(balance_is_usable(&least_busy, &server, now + 10 * SECOND));
    /* now they are */
    now += 11 * SECOND;
    assert_true(balance_failed(&least_busy, &server, now, now));
    assert_false(balance_is_usable(&least_busy, &server, now + 10 * SECOND - 1));
    /* an answer to what was begun before says nothing, one to what was begun since does */
    assert_false(balance_answered(&server, now, now + 1));
    assert_true(balance_is_usable(&least_busy, &server, now + 10 * SECOND));
    balance_begin(&least_busy, &server, now + 10 * SECOND);
    assert_false(balance_is_usable(&least_busy, &server, now + 11 * SECOND));
    /* what is tried may fail */
    assert_false(balance_failed(&least_busy, &server, now + 10 * SECOND, now + 12 * SECOND));
    assert_false(balance_is_usable(&least_busy, &server, now + 21 * SECOND));
    assert_true(balance_is_usable(&least_busy, &server, now + 22 * SECOND));
    balance_begin(&least_busy, &server, now + 22 * SECOND);
    /* ... be given up: another is tried */
    assert_true(balance_is_usable(&least_busy, &server, now + 32 * SECOND));
    balance_begin(&least_busy, &server, now + 32 * SECOND);
    assert_true(balance_answered(&server, now + 32 * SECOND, now + 33 * SECOND));
    assert_true(balance_is_usable(&least_busy, &server, now + 33 * SECOND));
    /* failures of requests from before it was back do not count */
    for (int i = 0; i < 5; i++)
        assert_false(balance_failed(&least_busy, &server, now, now + 34 * SECOND));
    assert_false(balance_answered(&server, now + 34 * SECOND, now + 35 * SECOND)); /* it is not news */
}

static void test_max_fails(void **state)
{
    struct balance_rules rules = least_busy;

    (void)state;
    for (rules.max_fails = 1; rules.max_fails <= BALANCE_MAX_FAILS; rules.max_fails++) {
        struct balance_server server = {.weight = 1};

        for (unsigned i = 1; i <= 3 * BALANCE_MAX_FAILS; i++)
            assert_int_equal(balance_failed(&rules, &server, SECOND, SECOND + i), i == rules.max_fails);
    }
    rules.max_fails = 0;
    struct balance_server server = {.weight = 1};
    for (unsigned i = 0; i < 1000; i++)
        assert_false(balance_failed(&rules, &server, SECOND, SECOND + i));
}

static void test_slow_start(void **state)
{
    struct balance_rules rules = {BALANCE_ROUND_ROBIN, 3, 10 * SECOND, 30 * SECOND};
    unsigned counts[3] = {0};

    (void)state;
    make_equal(2);
    assert_true(balance_weight(&rules, &servers[0], SECOND) == 1); /* it never was away */
    balance_came_back(&servers[0], 100 * SECOND);
    assert_true(balance_weight(&rules, &servers[0], 100 * SECOND) == 0.1);
    assert_true(balance_weight(&rules, &servers[0], 115 * SECOND) == 0.55);
    assert_true(balance_weight(&rules, &servers[0], 130 * SECOND) == 1);
    for (uint64_t i = 0; i < 30000; i++) /* a thousand a second */
        counts[i / 10000] += balance_choose(&rules, view, 2, 0, 0, 100 * SECOND + i * 1000).index == 0;
    assert_in_range(counts[0], 1800, 2100); /* weights of 0.1 to 0.4 beside 1: 19.6 % */
    assert_in_range(counts[1], 3400, 3600); /* 0.4 to 0.7: 35.3 % */
    assert_in_range(counts[2], 4500, 4650); /* 0.7 to 1: 45.8 % */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_by_weight),
        cmocka_unit_test(test_spread_by_weight),
        cmocka_unit_test(test_least_busy_by_simulation),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_few_keys_move),
        cmocka_unit_test(test_hash_by_weight),
        cmocka_unit_test(test_hash_waits),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_max_fails),
        cmocka_unit_test(test_slow_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
