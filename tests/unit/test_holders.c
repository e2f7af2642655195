/* What holds the processes of a pool, told from made-up scoreboards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/holders.h"

enum { POOL = 3, OTHER = 4 };

#define NOW ((uint64_t)100 * 1000000)

static struct scoreboard *board;
static struct buffer text;

static int set_up(void **state)
{
    (void)state;
    board = scoreboard_create();
    board->pools[POOL].capacity = 4;
    board->n_fronts = 8;
    board->fronts[0].pid = 10;
    board->fronts[5].pid = 15;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buffer_free(&text);
    munmap(board, sizeof *board);
    return 0;
}

static struct scoreboard_request *add_request(unsigned front, enum scoreboard_state state, int pid, unsigned tenths,
                                              const char *uri)
{
    struct scoreboard_request *request = &board->fronts[front].requests[board->fronts[front].n_requests++];

    request->state = state;
    request->pool = POOL;
    request->pid = pid;
    request->started_us = NOW - tenths * 100000;
    snprintf(request->method, sizeof request->method, "GET");
    snprintf(request->uri, sizeof request->uri, "%s", uri);
    snprintf(request->client, sizeof request->client, "10.0.0.1");
    return request;
}

static struct scoreboard_process *add_process(unsigned at, int pid)
{
    struct scoreboard_process *process = &board->processes[at];

    scoreboard_set_used(board, at, true);
    process->pool = POOL + 1;
    process->pid = pid;
    process->start_us = NOW - 9000000;
    return process;
}

static const char *describe(size_t room)
{
    buffer_clear(&text);
    holders_describe(board, POOL, NOW, room, &text);
    buffer_append(&text, "", 1);
    return buffer_at(&text);
}

static void test_nothing(void **state)
{
    (void)state;
    assert_string_equal(describe(HOLDERS_ROOM), "0 of 4 processes busy, 0 waiting");
}

static void test_requests(void **state)
{
    (void)state;
    add_request(0, REQUEST_FIRST, 123, 12, "/a.php");
    add_request(5, REQUEST_SEND, 124, 52, "/b.php?x=1");
    add_request(0, REQUEST_START, 125, 0, "/c.php");
    add_request(0, REQUEST_QUEUE, 0, 90, "/waits.php");
    add_request(5, REQUEST_BODY, 0, 90, "/held.php");
    add_request(5, REQUEST_NONE, 99, 90, "/over.php");
    add_request(5, REQUEST_FIRST, 98, 90, "/other.php")->pool = OTHER;
    for (unsigned i = 0; i < 3; i++)
        add_process(i * 7, 123 + (int)i)->n_active = 1;
    add_process(SCOREBOARD_PROGRAMS - 1, 97)->pool = OTHER + 1;
    board->fronts[0].shares[POOL].n_waiting = 200;
    board->fronts[5].shares[POOL].n_waiting = 56;
    board->fronts[5].shares[OTHER].n_waiting = 1;
    assert_string_equal(describe(HOLDERS_ROOM), "3 of 4 processes busy, 256 waiting: "
                                                "pid 124 GET /b.php?x=1 5.2 s body from 10.0.0.1; "
                                                "pid 123 GET /a.php 1.2 s first from 10.0.0.1; "
                                                "pid 125 GET /c.php 0.0 s start from 10.0.0.1");
}

/* What a front has left behind that is there no more. */
static void test_front_that_is_gone(void **state)
{
    (void)state;
    add_request(7, REQUEST_FIRST, 123, 12, "/a.php");
    board->fronts[7].shares[POOL].n_waiting = 9;
    assert_string_equal(describe(HOLDERS_ROOM), "0 of 4 processes busy, 0 waiting");
}

static void test_other_kinds(void **state)
{
    (void)state;
    board->pools[POOL].kind = 1;
    add_request(0, REQUEST_FIRST, 0, 12, "/cgi-bin/a");
    assert_string_equal(describe(HOLDERS_ROOM),
                        "1 of 4 programs busy, 0 waiting: GET /cgi-bin/a 1.2 s first from 10.0.0.1");
    board->pools[POOL].kind = 2;
    assert_string_equal(describe(HOLDERS_ROOM),
                        "1 of 4 connections busy, 0 waiting: GET /cgi-bin/a 1.2 s first from 10.0.0.1");
}

static void test_processes_without_a_request(void **state)
{
    struct scoreboard_process *process;

    (void)state;
    add_process(1, 200); /* never used */
    process = add_process(2, 201);
    process->given = 1;
    process->is_retiring = 1;
    process->since_us = NOW - 300000;
    process = add_process(3, 202);
    process->given = process->n_active = 1;
    process->since_us = NOW - 700000;
    assert_string_equal(describe(HOLDERS_ROOM),
                        "1 of 4 processes busy, 0 waiting: pid 200 no request 9.0 s; pid 202 without a client 0.7 s; "
                        "pid 201 retiring 0.3 s");
}

/* Several requests on the connection of one process are one busy process. */
static void test_multiplexing(void **state)
{
    (void)state;
    add_process(1, 200)->n_active = 2;
    add_request(0, REQUEST_FIRST, 200, 2, "/a");
    add_request(0, REQUEST_FIRST, 200, 1, "/b");
    assert_string_equal(describe(HOLDERS_ROOM),
                        "1 of 4 processes busy, 0 waiting: pid 200 GET /a 0.2 s first from 10.0.0.1; "
                        "pid 200 GET /b 0.1 s first from 10.0.0.1");
}

static void test_hostile_texts(void **state)
{
    struct scoreboard_request *request = add_request(0, REQUEST_FIRST, 1, 1, "/a; pid 2\n\x1b\xff%");

    (void)state;
    board->pools[POOL].kind = 1;
    assert_string_equal(describe(HOLDERS_ROOM),
                        "1 of 4 programs busy, 0 waiting: pid 1 GET /a;%20pid%202%0A%1B%FF% 0.1 s first from 10.0.0.1");
    memset(request->method, 'M', sizeof request->method);
    memset(request->client, '\n', sizeof request->client);
    memset(request->uri, 'u', sizeof request->uri);
    request->started_us = UINT64_MAX;
    board->n_fronts = board->fronts[0].n_requests = UINT32_MAX;
    const char *found = describe(HOLDERS_ROOM);
    assert_non_null(strstr(found, " MMMMMMMMMMMMMMMM... uuuuu"));
    assert_non_null(strstr(found, "uuu... 0.0 s first from %0A%0A"));
    assert_int_equal(strspn(strstr(found, "uuu"), "u"), 80);
}

/* One that is being written is left out, for it may be torn. */
static void test_request_that_changes(void **state)
{
    (void)state;
    board->pools[POOL].kind = 1;
    add_request(0, REQUEST_FIRST, 1, 1, "/torn")->version = 7;
    add_request(0, REQUEST_FIRST, 2, 1, "/whole");
    const char *found = describe(HOLDERS_ROOM);
    assert_null(strstr(found, "/torn"));
    assert_non_null(strstr(found, "/whole"));
}

/* However little room there is, the text keeps within it, and none is forgotten. */
static void test_room(void **state)
{
    enum { N = HOLDERS_MOST + 36 };
    unsigned last_n = 0;

    (void)state;
    board->pools[POOL].kind = 1;
    for (unsigned i = 0; i < N; i++)
        add_request(i % 2 * 5, REQUEST_FIRST, 1000 + (int)i, i, "/a.php");
    for (size_t room = 100; room < 5000; room += 50) {
        const char *found = describe(room), *at = found, *more = strstr(found, ", and ");
        unsigned n = 0, n_more = 0;

        assert_true(strlen(found) <= room);
        for (; (at = strstr(at, "pid ")) != NULL; at++)
            n++;
        assert_non_null(more);
        n_more = (unsigned)strtoul(more + strlen(", and "), NULL, 10);
        assert_int_equal(n + n_more, N);
        assert_true(n >= last_n && n <= HOLDERS_MOST);
        last_n = n;
    }
    assert_int_equal(last_n, HOLDERS_MOST);
    assert_non_null(strstr(describe(5000), ": pid 1099 GET")); /* the longest at it first */
    assert_null(strstr(describe(5000), "pid 1035 GET"));       /* the 65th */
    assert_non_null(strstr(describe(5000), "; pid 1036 GET")); /* the 64th */
}

static struct holders front_of(void)
{
    return (struct holders){.scoreboard = board, .pool = POOL, .what = "pool", .name = "php"};
}

static void test_full_is_told_once(void **state)
{
    struct holders one = front_of(), two = front_of();
    struct scoreboard_saturation *saturation = &board->saturations[POOL];

    (void)state;
    assert_string_equal(holders_full(&one), "pool php: full: 0 of 4 processes busy, 0 waiting");
    assert_string_equal(saturation->text, "0 of 4 processes busy, 0 waiting");
    assert_true(saturation->at_unix_us > 0);
    assert_int_equal(saturation->version, 2);
    for (int i = 0; i < 3; i++) {
        assert_null(holders_full(&one));
        assert_null(holders_full(&two));
        one.full_due_us = two.full_due_us = 0; /* even if they ask: the other has told */
    }
    assert_int_equal(saturation->version % 2, 0);
    saturation->at_unix_us -= HOLDERS_PAUSE_S * 1000000 + 1;
    two.full_due_us = 0;
    board->fronts[0].shares[POOL].n_waiting = 7;
    assert_string_equal(holders_full(&two), "pool php: full: 0 of 4 processes busy, 7 waiting");
    assert_string_equal(saturation->text, "0 of 4 processes busy, 7 waiting");
    holders_finish(&one);
    holders_finish(&two);
}

/* A front that has died while it wrote does not silence the others for good. */
static void test_writer_that_died(void **state)
{
    struct holders one = front_of();

    (void)state;
    board->saturations[POOL].version = 5;
    assert_null(holders_full(&one));
    assert_int_equal(board->saturations[POOL].version, 5);
    one.full_due_us = 0;
    assert_non_null(holders_full(&one));
    assert_int_equal(board->saturations[POOL].version, 8);
    holders_finish(&one);
}

/* ... but one that writes again and again is not disturbed. */
static void test_writer_that_lives(void **state)
{
    struct holders one = front_of();

    (void)state;
    for (uint32_t version = 5; version < 15; version += 2) {
        board->saturations[POOL].version = version;
        assert_null(holders_full(&one));
        assert_int_equal(board->saturations[POOL].version, version);
        one.full_due_us = 0;
    }
}

static void test_long_text_is_cut(void **state)
{
    struct holders one = front_of();
    char uri[100];

    (void)state;
    board->pools[POOL].kind = 1;
    memset(uri, 'u', sizeof uri - 1);
    uri[sizeof uri - 1] = '\0';
    for (unsigned i = 0; i < HOLDERS_MOST; i++)
        add_request(0, REQUEST_FIRST, 1000, i, uri);
    const char *line = holders_full(&one);
    assert_true(strlen(line) > 3000 && strlen(line) < 4000);
    assert_non_null(strstr(line, " more"));
    assert_non_null(strstr(board->saturations[POOL].text, " more"));
    assert_true(strlen(board->saturations[POOL].text) > 1500);
    holders_finish(&one);
}

static void test_expired(void **state)
{
    struct holders one = front_of();
    uint64_t before = clock_us();

    (void)state;
    assert_string_equal(holders_expired(&one, 300), "pool php: a request has waited for queue_timeout = 300ms in vain: "
                                                    "0 of 4 processes busy, 0 waiting");
    assert_null(holders_expired(&one, 300));
    assert_true(one.expired_due_us >= before + HOLDERS_PAUSE_S * 1000000);
    assert_int_equal(board->saturations[POOL].version, 0);
    assert_non_null(holders_full(&one)); /* is another thing */
    one.expired_due_us = clock_us();
    assert_non_null(holders_expired(&one, 300));
    holders_finish(&one);
}

/* The limit holds over all fronts; who waits for what is idle elsewhere, or can be started, is not counted. */
static void test_is_full(void **state)
{
    struct holders one = front_of();
    struct scoreboard_share *share = &board->fronts[5].shares[POOL];

    (void)state;
    board->pools[POOL].n_live = 4;
    assert_false(holders_is_full(&one, 2, 3));
    assert_true(holders_is_full(&one, 3, 3));
    assert_true(holders_is_full(&one, 0, 0));
    share->n_waiting = 2;
    assert_false(holders_is_full(&one, 0, 3));
    assert_true(holders_is_full(&one, 1, 3));
    share->n_idle = 1;
    assert_false(holders_is_full(&one, 1, 3));
    assert_true(holders_is_full(&one, 2, 3));
    board->pools[POOL].n_live = 2;
    assert_false(holders_is_full(&one, 3, 3));
    assert_true(holders_is_full(&one, 4, 3));
    board->pools[POOL].is_down = 1;
    assert_true(holders_is_full(&one, 2, 3));
    board->pools[POOL].is_down = 0;
    board->pools[POOL].n_live = 4;
    board->fronts[0].shares[POOL].n_waiting = 100; /* its own count is given */
    board->fronts[7].shares[POOL].n_waiting = 100; /* is there no more */
    board->fronts[7].shares[POOL].n_idle = 100;
    board->fronts[5].shares[OTHER].n_waiting = 100;
    assert_false(holders_is_full(&one, 1, 3));
    assert_true(holders_is_full(&one, 2, 3));
}

/* Programs and connections: what is free is what nobody uses. */
static void test_is_full_of_slots(void **state)
{
    struct holders one = front_of();

    (void)state;
    for (board->pools[POOL].kind = 1; board->pools[POOL].kind <= 2; board->pools[POOL].kind++) {
        board->fronts[0].shares[POOL].n_active = 1;
        board->fronts[5].shares[POOL].n_active = 2;
        board->fronts[7].shares[POOL].n_active = 100; /* is there no more */
        assert_false(holders_is_full(&one, 0, 0));
        assert_true(holders_is_full(&one, 1, 0));
        board->fronts[5].shares[POOL].n_active = 3;
        assert_true(holders_is_full(&one, 0, 0));
        assert_false(holders_is_full(&one, 2, 3));
        board->fronts[5].shares[POOL].n_active = 30; /* requests that share connections */
        assert_true(holders_is_full(&one, 3, 3));
    }
}

static void test_without_a_place(void **state)
{
    struct holders one = front_of();

    (void)state;
    one.pool = SCOREBOARD_POOLS;
    assert_null(holders_full(&one));
    assert_null(holders_expired(&one, 1));
    assert_false(holders_is_full(&one, 1, 2));
    assert_true(holders_is_full(&one, 2, 2));
    one = (struct holders){.what = "pool", .name = "php"};
    assert_null(holders_full(&one));
    assert_null(holders_expired(&one, 1));
    assert_false(holders_is_full(&one, 1, 2));
    assert_true(holders_is_full(&one, 2, 2));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing),
        TEST(test_requests),
        TEST(test_front_that_is_gone),
        TEST(test_other_kinds),
        TEST(test_processes_without_a_request),
        TEST(test_multiplexing),
        TEST(test_hostile_texts),
        TEST(test_request_that_changes),
        TEST(test_room),
        TEST(test_full_is_told_once),
        TEST(test_writer_that_died),
        TEST(test_writer_that_lives),
        TEST(test_long_text_is_cut),
        TEST(test_expired),
        TEST(test_is_full),
        TEST(test_is_full_of_slots),
        TEST(test_without_a_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
