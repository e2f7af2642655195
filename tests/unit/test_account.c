/* What a front writes on the scoreboard: its accounts of pools, the places of its requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "base/account.h"
#include "base/places.h"

enum { POOL = 3, CAPACITY = 4 };

static struct scoreboard *board;

static int make_board(void **state)
{
    (void)state;
    board = scoreboard_create();
    board->n_fronts = 2;
    board->n_pools = POOL + 1;
    board->fronts[0].pid = 100;
    board->fronts[1].pid = 101;
    return 0;
}

static int free_board(void **state)
{
    (void)state;
    return munmap(board, sizeof *board);
}

static struct account account_of(unsigned front)
{
    struct account account;

    account_init(&account, board, front);
    account_open(&account, POOL, CAPACITY);
    return account;
}

/* ---- accounts ---- */

static void tells_what_is_now(void **state)
{
    struct account account = account_of(0);
    const struct scoreboard_share *share = &board->fronts[0].shares[POOL];

    (void)state;
    account_set_waiting(&account, 5);
    account_set_idle(&account, 2);
    account_set_active(&account, 3);
    assert_int_equal(share->n_waiting, 5);
    assert_int_equal(share->n_idle, 2);
    assert_int_equal(share->n_active, 3);
    account_close(&account);
    assert_int_equal(share->n_waiting + share->n_idle + share->n_active, 0);
    assert_int_equal(share->most_waiting, 5);
    assert_int_equal(share->most_active, 3);
}

static void most_is_over_all_fronts(void **state)
{
    struct account one = account_of(0), other = account_of(1);

    (void)state;
    account_set_active(&one, 2);
    account_set_active(&other, 1);
    assert_int_equal(board->fronts[1].shares[POOL].most_active, 3);
    account_set_waiting(&other, 7);
    account_set_waiting(&one, 1);
    assert_int_equal(board->fronts[0].shares[POOL].most_waiting, 8);
    account_set_waiting(&one, 0);
    account_set_waiting(&other, 0);
    assert_int_equal(board->fronts[0].shares[POOL].most_waiting, 8);
}

static void fronts_that_are_gone_do_not_count(void **state)
{
    struct account one = account_of(0), other = account_of(1);

    (void)state;
    account_set_active(&one, 2);
    board->fronts[0].pid = 0;
    account_set_active(&other, 1);
    assert_int_equal(board->fronts[1].shares[POOL].most_active, 1);
}

static void counts_events(void **state)
{
    struct account account = account_of(1);
    const struct scoreboard_share *share = &board->fronts[1].shares[POOL];

    (void)state;
    account_count(&account, ACCOUNT_ACCEPTED, 1);
    account_count(&account, ACCOUNT_FULL, 2);
    account_count(&account, ACCOUNT_EXPIRED, 3);
    account_count(&account, ACCOUNT_DOWN, 4);
    account_count(&account, ACCOUNT_LEFT, 5);
    account_count(&account, ACCOUNT_CRASHED, 6);
    account_count(&account, ACCOUNT_TERMINATED, 7);
    account_count(&account, ACCOUNT_RETRIED, 8);
    assert_int_equal(share->n_accepted, 1);
    assert_int_equal(share->n_full, 2);
    assert_int_equal(share->n_expired, 3);
    assert_int_equal(share->n_down, 4);
    assert_int_equal(share->n_left, 5);
    assert_int_equal(share->n_crashed, 6);
    assert_int_equal(share->n_terminated, 7);
    assert_int_equal(share->n_retried, 8);
    assert_int_equal(board->fronts[0].shares[POOL].n_accepted, 0);
}

static void keeps_what_comes_before_the_number(void **state)
{
    struct account account;
    const struct scoreboard_share *share = &board->fronts[0].shares[POOL];

    (void)state;
    account_init(&account, board, 0);
    assert_int_equal(account.number, SCOREBOARD_NONE);
    account_count(&account, ACCOUNT_ACCEPTED, 2);
    account_set_waiting(&account, 2);
    account_waited(&account, 1);
    account_open(&account, POOL, CAPACITY);
    assert_int_equal(share->n_accepted, 2);
    assert_int_equal(share->n_waiting, 2);
    assert_int_equal(share->most_waiting, 2);
    account_count(&account, ACCOUNT_ACCEPTED, 1);
    assert_int_equal(share->n_accepted, 3);
}

static void without_a_scoreboard_nothing_is_written(void **state)
{
    struct account account;

    (void)state;
    account_init(&account, NULL, 0);
    account_open(&account, POOL, CAPACITY);
    account_set_waiting(&account, 1);
    account_set_active(&account, 1);
    account_count(&account, ACCOUNT_FULL, 1);
    account_waited(&account, 1);
    assert_null(account.share);
    assert_int_equal(account.n_active, 1);
}

static void the_last_waits_are_kept(void **state)
{
    struct account account = account_of(0);
    const struct scoreboard_share *share = &board->fronts[0].shares[POOL];

    (void)state;
    for (unsigned i = 0; i < SCOREBOARD_WAITS + 3; i++)
        account_waited(&account, i);
    assert_int_equal(share->n_waits, SCOREBOARD_WAITS + 3);
    assert_int_equal(share->waits_us[0], SCOREBOARD_WAITS);
    assert_int_equal(share->waits_us[2], SCOREBOARD_WAITS + 2);
    assert_int_equal(share->waits_us[3], 3);
    account_waited(&account, (uint64_t)1 << 40);
    assert_int_equal(share->waits_us[3], UINT32_MAX);
}

/* ---- places ---- */

static const struct place_texts texts = {
    .id = {"0123456789abcdef", 16}, .method = {"GET", 3}, .client = {"127.0.0.1", 9}, .uri = {"/a", 2}};

static void a_place_has_its_texts(void **state)
{
    struct places *places = places_create(board, 1);
    struct scoreboard_request *place = places_take(places, &texts, POOL, REQUEST_QUEUE, 77);

    (void)state;
    assert_ptr_equal(place, &board->fronts[1].requests[0]);
    assert_int_equal(board->fronts[1].n_requests, 1);
    assert_string_equal(place->id, "0123456789abcdef");
    assert_string_equal(place->method, "GET");
    assert_string_equal(place->client, "127.0.0.1");
    assert_string_equal(place->site, "");
    assert_string_equal(place->uri, "/a");
    assert_int_equal(place->pool, POOL);
    assert_int_equal(place->state, REQUEST_QUEUE);
    assert_int_equal(place->started_us, 77);
    assert_int_equal(place->state_us, 77);
    assert_int_equal(place->version % 2, 0);
    place_change(place, REQUEST_START, 90);
    place_set_pid(place, 4711);
    place_change(place, REQUEST_FIRST, 95);
    assert_int_equal(place->granted_us, 90);
    assert_int_equal(place->state_us, 95);
    assert_int_equal(place->pid, 4711);
    place_change(place, REQUEST_QUEUE, 99);
    assert_int_equal(place->granted_us, 0);
    places_give(places, place);
    assert_int_equal(place->state, REQUEST_NONE);
    places_destroy(places);
}

static void long_texts_are_cut(void **state)
{
    struct places *places = places_create(board, 0);
    char uri[1000];
    struct place_texts long_ones = texts;

    (void)state;
    memset(uri, 'x', sizeof uri);
    long_ones.uri = (struct span){uri, sizeof uri};
    long_ones.method = (struct span){uri, 16};
    struct scoreboard_request *place = places_take(places, &long_ones, POOL, REQUEST_BODY, 1);
    assert_int_equal(strlen(place->uri), sizeof place->uri - 1);
    assert_int_equal(strlen(place->method), 15);
    places_destroy(places);
}

static void places_are_used_again_and_run_out(void **state)
{
    struct places *places = places_create(board, 0);
    struct scoreboard_request *first = places_take(places, &texts, POOL, REQUEST_BODY, 1), *last = NULL;

    (void)state;
    for (unsigned i = 1; i < SCOREBOARD_REQUESTS; i++)
        last = places_take(places, &texts, POOL, REQUEST_BODY, 1);
    assert_ptr_equal(last, &board->fronts[0].requests[SCOREBOARD_REQUESTS - 1]);
    assert_null(places_take(places, &texts, POOL, REQUEST_BODY, 1));
    places_give(places, first);
    assert_ptr_equal(places_take(places, &texts, POOL, REQUEST_BODY, 2), first);
    assert_int_equal(board->fronts[0].n_requests, SCOREBOARD_REQUESTS);
    places_destroy(places);
    places = places_create(board, 0);
    assert_int_equal(board->fronts[0].n_requests, 0);
    assert_int_equal(last->state, REQUEST_NONE);
    places_destroy(places);
}

static void no_place_is_harmless(void **state)
{
    (void)state;
    assert_null(places_take(NULL, &texts, POOL, REQUEST_BODY, 1));
    place_change(NULL, REQUEST_SEND, 1);
    place_set_pid(NULL, 1);
    place_set_pool(NULL, 1);
    places_give(NULL, NULL);
    places_destroy(NULL);
}

/* ---- the keeper's part ---- */

static void sums_outlive_a_front(void **state)
{
    struct account account = account_of(1);
    struct scoreboard_front *front = &board->fronts[1];

    (void)state;
    account_count(&account, ACCOUNT_ACCEPTED, 5);
    account_set_active(&account, 2);
    account_waited(&account, 10);
    scoreboard_observe(&front->shares[POOL].phases[0], 120);
    scoreboard_observe(&front->files, 5);
    front->counters.requests = 7;
    front->counters.open = 3;
    front->counters.statuses[2] = 6;
    front->n_requests = 1;
    front->requests[0].state = REQUEST_FIRST;
    for (unsigned times = 0; times < 2; times++) /* the second has nothing to add */
        scoreboard_clear_front(board, 1);
    assert_int_equal(board->past_shares[POOL].n_accepted, 5);
    assert_int_equal(board->past_shares[POOL].n_active, 0);
    assert_int_equal(board->past_shares[POOL].most_active, 2);
    assert_int_equal(board->past_shares[POOL].n_waits, 1);
    assert_int_equal(board->past_shares[POOL].phases[0].buckets[1], 1);
    assert_int_equal(board->past_shares[POOL].phases[0].sum_us, 120);
    assert_int_equal(board->past_files.buckets[0], 1);
    assert_int_equal(board->past.requests, 7);
    assert_int_equal(board->past.statuses[2], 6);
    assert_int_equal(board->past.open, 0);
    assert_int_equal(front->shares[POOL].n_accepted + front->shares[POOL].n_active + front->counters.open, 0);
    assert_int_equal(front->n_requests, 0);
    assert_int_equal(front->requests[0].state, REQUEST_NONE);
    scoreboard_clear_pool(board, POOL);
    assert_int_equal(board->past_shares[POOL].n_accepted, 0);
}

static void finds_processes_that_are_there(void **state)
{
    static const unsigned places[] = {0, 1, 63, 64, 200, SCOREBOARD_PROGRAMS - 1};
    unsigned at = 0;

    (void)state;
    assert_int_equal(scoreboard_next(board, 0), SCOREBOARD_PROGRAMS);
    for (size_t i = 0; i < 6; i++)
        scoreboard_set_used(board, places[i], true);
    for (size_t i = 0; i < 6; i++, at++) {
        at = scoreboard_next(board, at);
        assert_int_equal(at, places[i]);
    }
    assert_int_equal(scoreboard_next(board, at), SCOREBOARD_PROGRAMS);
    scoreboard_set_used(board, 63, false);
    assert_int_equal(scoreboard_next(board, 2), 64);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_board, free_board)
    const struct CMUnitTest tests[] = {
        TEST(tells_what_is_now),
        TEST(most_is_over_all_fronts),
        TEST(fronts_that_are_gone_do_not_count),
        TEST(counts_events),
        TEST(keeps_what_comes_before_the_number),
        TEST(without_a_scoreboard_nothing_is_written),
        TEST(the_last_waits_are_kept),
        TEST(a_place_has_its_texts),
        TEST(long_texts_are_cut),
        TEST(places_are_used_again_and_run_out),
        TEST(no_place_is_harmless),
        TEST(sums_outlive_a_front),
        TEST(finds_processes_that_are_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
