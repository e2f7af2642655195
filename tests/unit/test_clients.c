/* Connections counted by client address, over fronts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/clients.h"
#include "base/memory.h"

enum { FRONTS = 3, MOST = 4, SECRET = 4711 };

static const _Atomic uint32_t n_fronts = FRONTS;

static struct peer_address address(const char *text)
{
    struct peer_address client = {0};

    if (inet_pton(AF_INET, text, &client.in.sin_addr) == 1) {
        client.in.sin_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &client.in6.sin6_addr), 1);
        client.in6.sin6_family = AF_INET6;
    }
    return client;
}

struct fronts {
    struct client_table *tables;
    struct clients *at[FRONTS];
};

static struct fronts make(void)
{
    struct fronts fronts = {.tables = memory_zeroed(FRONTS, sizeof(struct client_table))};

    for (unsigned i = 0; i < FRONTS; i++)
        fronts.at[i] = clients_create(fronts.tables, &n_fronts, i, SECRET, MOST);
    return fronts;
}

static void unmake(struct fronts *fronts)
{
    for (unsigned i = 0; i < FRONTS; i++)
        clients_destroy(fronts->at[i]);
    free(fronts->tables);
}

static void test_limit_holds_over_fronts(void **state)
{
    struct peer_address one = address("192.0.2.1"), other = address("192.0.2.2");
    struct fronts fronts = make();

    (void)state;
    for (unsigned i = 0; i < MOST; i++)
        assert_true(clients_enter(fronts.at[i % FRONTS], &one));
    for (unsigned i = 0; i < FRONTS; i++)
        assert_false(clients_enter(fronts.at[i], &one));
    assert_true(clients_enter(fronts.at[1], &other));
    clients_leave(fronts.at[2], &one);
    assert_true(clients_enter(fronts.at[1], &one));
    assert_false(clients_enter(fronts.at[0], &one));
    unmake(&fronts);
}

/* Two addresses that are one client, or not. */
static const struct {
    const char *one, *other;
    bool is_same;
} pairs[] = {
    {"192.0.2.1", "::ffff:192.0.2.1", true}, /* the same client, on a socket for both families */
    {"192.0.2.1", "192.0.2.129", false},
    {"2001:db8::1", "2001:db8::ffff:1", true}, /* one network of 64 bits */
    {"2001:db8:0:1::1", "2001:db8:0:2::1", false},
    {"192.0.2.1", "c000:201::", false},
};

static void test_who_is_a_client(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct peer_address one = address(pairs[i].one), other = address(pairs[i].other);
        struct fronts fronts = make();

        for (unsigned n = 0; n < MOST; n++)
            assert_true(clients_enter(fronts.at[0], &one));
        assert_int_equal(clients_enter(fronts.at[1], &other), !pairs[i].is_same);
        unmake(&fronts);
    }
}

static void test_unix_clients_are_not_counted(void **state)
{
    struct peer_address local = {.any = {.sa_family = AF_UNIX}};
    struct fronts fronts = make();

    (void)state;
    for (unsigned i = 0; i < 10 * MOST; i++)
        assert_true(clients_enter(fronts.at[0], &local));
    clients_leave(fronts.at[0], &local);
    unmake(&fronts);
}

/* A front that starts in the place of one that crashed begins with nothing; the others' counts stay. */
static void test_new_front(void **state)
{
    struct peer_address one = address("192.0.2.1");
    struct fronts fronts = make();

    (void)state;
    for (unsigned i = 0; i < MOST - 1; i++)
        assert_true(clients_enter(fronts.at[0], &one));
    assert_true(clients_enter(fronts.at[1], &one));
    clients_destroy(fronts.at[0]);
    fronts.at[0] = clients_create(fronts.tables, &n_fronts, 0, SECRET, MOST);
    for (unsigned i = 0; i < MOST - 1; i++)
        assert_true(clients_enter(fronts.at[0], &one));
    assert_false(clients_enter(fronts.at[0], &one));
    unmake(&fronts);
}

/* Thousands of clients are not taken for one another, and all counts go back to nothing. */
static void test_many_clients(void **state)
{
    struct fronts fronts = make();
    static const struct client_table empty;
    unsigned refused = 0;

    (void)state;
    for (int round = 0; round < 2; round++)
        for (unsigned i = 0; i < 2000; i++) {
            struct peer_address client = {.in = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a000000 + i)}}};

            if (round == 0)
                refused += !clients_enter(fronts.at[0], &client);
            else
                clients_leave(fronts.at[0], &client);
        }
    assert_int_equal(refused, 0);
    assert_memory_equal(&fronts.tables[0], &empty, sizeof empty);
    unmake(&fronts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit_holds_over_fronts),
        cmocka_unit_test(test_who_is_a_client),
        cmocka_unit_test(test_unix_clients_are_not_counted),
        cmocka_unit_test(test_new_front),
        cmocka_unit_test(test_many_clients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
