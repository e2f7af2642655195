/* What is read from the scoreboard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "site/status_view.h"

enum { PHP = 1, CGI = 2, APP = 3, INDEX = 100 };

static struct scoreboard *board;

static void add_pool(unsigned number, unsigned kind, const char *name)
{
    struct scoreboard_pool *pool = &board->pools[number];

    pool->is_there = pool->is_current = true;
    pool->kind = (uint8_t)kind;
    pool->capacity = 4;
    snprintf(pool->name, sizeof pool->name, "%s", name);
    if (board->n_pools <= number)
        board->n_pools = number + 1;
}

static struct scoreboard_process *add_process(unsigned index, unsigned pool, int pid)
{
    struct scoreboard_process *process = &board->processes[index];

    process->pid = pid;
    process->start_us = clock_us() - 60000000;
    process->since_us = clock_us();
    process->given = process->served = 1;
    process->pool = pool + 1;
    scoreboard_set_used(board, index, true);
    return process;
}

static struct scoreboard_request *add_request(unsigned front, unsigned place, unsigned pool, uint64_t started_us)
{
    struct scoreboard_request *request = &board->fronts[front].requests[place];

    request->pool = pool;
    request->started_us = request->state_us = started_us;
    request->state = REQUEST_QUEUE;
    snprintf(request->uri, sizeof request->uri, "/%u-%u", front, place);
    snprintf(request->method, sizeof request->method, "GET");
    if (board->fronts[front].n_requests <= place)
        board->fronts[front].n_requests = place + 1;
    return request;
}

static int make_board(void **state)
{
    (void)state;
    board = scoreboard_create();
    board->n_fronts = 3;
    board->fronts[0].pid = 100;
    board->fronts[2].pid = 102; /* that of number 1 is gone */
    add_pool(PHP, 0, "php");
    add_pool(CGI, 1, "* /cgi-bin/*");
    return 0;
}

static int free_board(void **state)
{
    (void)state;
    return munmap(board, sizeof *board);
}

static void an_empty_board_is_read(void **state)
{
    struct scoreboard *empty = scoreboard_create();
    struct view_requests found;
    struct view *view = view_read(empty);

    (void)state;
    assert_int_equal(view->n_fronts + view->n_pools + view->n_processes, 0);
    view_requests_find(empty, &found);
    assert_int_equal(found.n, 0);
    view_requests_free(&found);
    view_free(view);
    munmap(empty, sizeof *empty);
}

static void sums_are_over_all_fronts(void **state)
{
    struct view *view;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct scoreboard_share *share = &board->fronts[i].shares[PHP];

        share->n_waiting = 2;
        share->n_accepted = 10;
        share->n_full = 1;
        board->fronts[i].counters.open = 4;
        board->fronts[i].counters.requests = 5;
        board->fronts[i].counters.statuses[5] = 1;
    }
    board->past_shares[PHP].n_accepted = 100;
    board->past.requests = 1000;
    board->fronts[2].shares[PHP].most_waiting = 9;
    view = view_read(board);
    assert_int_equal(view->n_fronts, 2);
    assert_int_equal(view->fronts[1].number, 2);
    assert_int_equal(view->open, 8);
    assert_int_equal(view->requests, 1015);
    assert_int_equal(view->statuses[5], 3);
    assert_int_equal(view->n_pools, 2);
    assert_string_equal(view->pools[0].about.name, "php");
    assert_int_equal(view->pools[0].n_waiting, 4);
    assert_int_equal(view->pools[0].most_waiting, 9);
    assert_int_equal(view->pools[0].n_accepted, 130);
    assert_int_equal(view->pools[0].n_full, 3);
    assert_int_equal(view->pools[1].n_waiting, 0);
    view_free(view);
}

static const struct view_process *process_of(const struct view *view, int pid)
{
    for (unsigned i = 0; i < view->n_processes; i++)
        if (view->processes[i].pid == pid)
            return &view->processes[i];
    fail_msg("process %d is not there", pid);
    return NULL;
}

static void processes_have_states(void **state)
{
    struct scoreboard_process *busy = add_process(INDEX, PHP, 4711), *idle = add_process(INDEX + 64, PHP, 4712);
    struct scoreboard_process *young = add_process(3, PHP, 4713), *retiring = add_process(4, PHP, 4714);
    struct scoreboard_request *request = add_request(2, 7, PHP, clock_us() - 5000000);

    (void)state;
    request->pid = 4711;
    request->state = REQUEST_FIRST;
    busy->n_active = 1;
    busy->since_us = clock_us() - 3000000;
    busy->front = 2;
    busy->request = 7;
    snprintf(busy->uri, sizeof busy->uri, "/the-last-one");
    snprintf(idle->uri, sizeof idle->uri, "/idle");
    idle->last_us = 1234;
    idle->last_cpu_us = 617;
    young->start_us = clock_us();
    young->given = young->served = 0;
    retiring->is_retiring = 1;
    retiring->n_active = 1;
    struct view *view = view_read(board);
    const struct view_pool *pool = &view->pools[0];
    assert_int_equal(pool->n_processes, 4);
    assert_int_equal(pool->n_idle, 1);
    assert_int_equal(pool->n_active, 2);
    assert_int_equal(pool->n_starting, 1);
    assert_int_equal(pool->n_retiring, 1);
    assert_int_equal(pool->n_total, 4);
    assert_int_equal(process_of(view, 4711)->state, VIEW_RUNNING);
    assert_string_equal(process_of(view, 4711)->uri, "/2-7");
    assert_in_range(process_of(view, 4711)->duration_us, 3000000, 60000000);
    assert_int_equal(process_of(view, 4712)->state, VIEW_IDLE);
    assert_string_equal(process_of(view, 4712)->uri, "/idle");
    assert_int_equal(process_of(view, 4712)->duration_us, 1234);
    assert_int_equal(process_of(view, 4712)->last_cpu_us, 617);
    assert_int_equal(process_of(view, 4713)->state, VIEW_STARTING);
    assert_int_equal(process_of(view, 4713)->last_cpu_us, UINT64_MAX);
    assert_int_equal(process_of(view, 4714)->state, VIEW_RETIRING);
    view_free(view);
}

/* The place may be another request's by now, or be nonsense. */
static void a_place_that_is_not_its_own_is_not_believed(void **state)
{
    struct scoreboard_process *process = add_process(INDEX, PHP, 4711);
    struct scoreboard_request *request = add_request(0, 1, PHP, clock_us());

    (void)state;
    request->pid = 9999;
    request->state = REQUEST_FIRST;
    process->n_active = 1;
    process->request = 1;
    snprintf(process->uri, sizeof process->uri, "/own");
    for (unsigned i = 0; i < 3; i++) {
        struct view *view = view_read(board);

        assert_string_equal(process_of(view, 4711)->uri, "/own");
        view_free(view);
        process->front = i == 0 ? SCOREBOARD_NONE : 0;
        process->request = i == 0 ? 1 : SCOREBOARD_REQUESTS;
    }
}

static void programs_are_what_their_requests_are(void **state)
{
    struct scoreboard_request *running = add_request(0, 0, CGI, clock_us() - 2000000);

    (void)state;
    add_request(0, 1, CGI, clock_us());
    running->pid = 777;
    running->state = REQUEST_FIRST;
    running->granted_us = clock_us() - 1000000;
    board->fronts[0].shares[CGI].n_active = 1;
    struct view *view = view_read(board);
    assert_int_equal(view->pools[1].n_active, 1);
    assert_int_equal(view->pools[1].n_processes, 1);
    assert_string_equal(process_of(view, 777)->uri, "/0-0");
    assert_in_range(process_of(view, 777)->duration_us, 1000000, 1900000);
    view_free(view);
}

static void memory_is_that_of_now(void **state)
{
    struct view *view;

    (void)state;
    add_process(1, PHP, (int)getpid());
    add_process(2, PHP, 0x7ffffff0)->memory = 4096; /* of which the kernel tells nothing */
    view = view_read(board);
    assert_in_range(process_of(view, (int)getpid())->memory, 100000, (uint64_t)1 << 40);
    assert_int_equal(process_of(view, 0x7ffffff0)->memory, 4096);
    view_free(view);
}

/* ---- waits ---- */

static void set_waits(unsigned front, const uint32_t *us, unsigned n)
{
    struct scoreboard_share *share = &board->fronts[front].shares[PHP];

    for (unsigned i = 0; i < n; i++)
        share->waits_us[i] = us[i];
    share->n_waits = n;
}

static void percentiles_are_exact(void **state)
{
    static const struct {
        uint32_t values[10];
        unsigned n;
        uint32_t p50, p90, p99, most;
    } cases[] = {
        {{0}, 0, 0, 0, 0, 0},
        {{7}, 1, 7, 7, 7, 7},
        {{3, 1}, 2, 1, 3, 3, 3},
        {{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 10, 5, 9, 10, 10},
        {{UINT32_MAX, 0, 0}, 3, 0, UINT32_MAX, UINT32_MAX, UINT32_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_waits(2, cases[i].values, cases[i].n);
        struct view *view = view_read(board);
        const struct view_waits *waits = &view->pools[0].waits;

        assert_int_equal(waits->n_sample, cases[i].n);
        assert_int_equal(waits->p50, cases[i].p50);
        assert_int_equal(waits->p90, cases[i].p90);
        assert_int_equal(waits->p99, cases[i].p99);
        assert_int_equal(waits->most, cases[i].most);
        view_free(view);
    }
}

static void waits_are_those_of_all_fronts(void **state)
{
    uint32_t one[SCOREBOARD_WAITS], other[] = {5000000, 0, 100, 101};

    (void)state;
    for (unsigned i = 0; i < SCOREBOARD_WAITS; i++)
        one[i] = 1000;
    set_waits(0, one, SCOREBOARD_WAITS);
    board->fronts[0].shares[PHP].n_waits = 100000; /* long since full */
    set_waits(2, other, 4);
    board->past_shares[PHP].n_waits = 50;
    struct view *view = view_read(board);
    const struct view_waits *waits = &view->pools[0].waits;
    assert_int_equal(waits->n, 100054);
    assert_int_equal(waits->n_sample, SCOREBOARD_WAITS + 4);
    assert_int_equal(waits->bins[0], 1);
    assert_int_equal(waits->bins[1], 1);
    assert_int_equal(waits->bins[2], 1);
    assert_int_equal(waits->bins[3], SCOREBOARD_WAITS);
    assert_int_equal(waits->bins[VIEW_BINS - 1], 1);
    view_free(view);
}

/* ---- servers ---- */

static struct seat_row *add_server(unsigned front, unsigned i, uint64_t key, unsigned pool, const char *address)
{
    struct seat_row *row = &board->seats.rows[front][i];

    board->seats.fronts[front] = 100 + (int32_t)front;
    row->key = key;
    row->pool = pool;
    row->n_connections = 3;
    row->n_idle = 1;
    row->limit = 8;
    row->weight = 2;
    row->n_requests = 10;
    row->n_failures = 2;
    snprintf(row->address, sizeof row->address, "%s", address);
    return row;
}

static void servers_are_summed_over_fronts(void **state)
{
    (void)state;
    add_pool(APP, 2, "app");
    add_pool(APP + 1, 2, "other");
    add_server(0, 200, 7, APP, "10.0.0.2:9000");
    add_server(2, 7, 7, APP, "10.0.0.2:9000");
    add_server(0, 8, 8, APP, "10.0.0.1:9000");
    add_server(2, 8, 9, APP + 1, "10.0.0.1:9000"); /* another pool's: another server */
    add_server(2, 9, SEAT_NOBODY, APP, "10.0.0.3:9000");
    add_server(2, 10, 0, APP, "10.0.0.4:9000");
    add_server(2, 11, 10, PHP, "10.0.0.5:9000"); /* whose slots are processes */
    add_server(1, 7, 7, APP, "10.0.0.2:9000");
    board->seats.fronts[1] = 0; /* it has gone, its rows are still there */
    struct view *view = view_read(board);
    const struct view_pool *pool = &view->pools[2];
    assert_string_equal(pool->about.name, "app");
    assert_int_equal(pool->n_servers, 2);
    const struct view_server *one = &view->servers[pool->first_server], *two = one + 1;
    assert_string_equal(one->address, "10.0.0.1:9000");
    assert_int_equal(one->n_connections, 3);
    assert_string_equal(two->address, "10.0.0.2:9000");
    assert_int_equal(two->n_connections, 6);
    assert_int_equal(two->n_idle, 2);
    assert_int_equal(two->limit, 8); /* which is for all fronts together */
    assert_int_equal(two->weight, 2);
    assert_int_equal(two->n_requests, 20);
    assert_int_equal(two->n_failures, 4);
    assert_int_equal(two->state, SEAT_UP);
    assert_int_equal(two->since_us, 0);
    assert_string_equal(two->why, "");
    assert_int_equal(view->pools[3].n_servers, 1);
    assert_int_equal(view->servers[view->pools[3].first_server].n_connections, 3);
    assert_int_equal(view->pools[0].n_servers, 0);
    view_free(view);
}

/* One front has met what the other has not; what it has said before stays its last failure. */
static void the_newest_word_of_a_server_counts(void **state)
{
    static const struct {
        enum seat_state one, other;
        uint64_t one_us, other_us;
        const char *one_why, *other_why;
        bool is_draining; /* the other one */
        enum seat_state state;
        uint64_t since_us;
        const char *why;
    } cases[] = {
        {SEAT_UP, SEAT_DOWN, 0, 5, "", "refused", false, SEAT_DOWN, 5, "refused"},
        {SEAT_DOWN, SEAT_UP, 5, 0, "refused", "", false, SEAT_DOWN, 5, "refused"},
        {SEAT_DOWN, SEAT_UP, 5, 6, "refused", "", false, SEAT_UP, 6, "refused"},
        {SEAT_DOWN, SEAT_ILL, 5, 6, "refused", "500", false, SEAT_ILL, 6, "500"},
        {SEAT_TRYING, SEAT_DOWN, 9, 6, "refused", "lost", false, SEAT_TRYING, 9, "refused"},
        {SEAT_UP, SEAT_DOWN, 5, 6, "", "refused", true, SEAT_UP, 5, "refused"},
        {SEAT_UP, SEAT_LEAVING, 0, 6, "", "", false, SEAT_UP, 0, ""},
        {SEAT_LEAVING, SEAT_UP, 5, 6, "", "", true, SEAT_LEAVING, 6, ""},
        {SEAT_LEAVING, SEAT_DOWN, 7, 6, "", "lost", false, SEAT_DOWN, 6, "lost"},
    };

    (void)state;
    add_pool(APP, 2, "app");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seat_row *one = add_server(0, 7, 7, APP, "10.0.0.2:9000");
        struct seat_row *other = add_server(2, 7, 7, APP, "10.0.0.2:9000");

        one->state = cases[i].one;
        other->state = cases[i].other;
        one->since_us = cases[i].one_us;
        other->since_us = cases[i].other_us;
        snprintf(one->why, sizeof one->why, "%s", cases[i].one_why);
        snprintf(other->why, sizeof other->why, "%s", cases[i].other_why);
        board->fronts[2].is_draining = cases[i].is_draining;
        struct view *view = view_read(board);
        assert_int_equal(view->n_servers, 1);
        if (view->servers[0].state != cases[i].state || view->servers[0].since_us != cases[i].since_us ||
            strcmp(view->servers[0].why, cases[i].why) != 0)
            fail_msg("case %zu: state %d since %lu: %s", i, (int)view->servers[0].state,
                     (unsigned long)view->servers[0].since_us, view->servers[0].why);
        view_free(view);
    }
}

static void hostile_rows_of_servers_do_no_harm(void **state)
{
    struct seat_row *endless = add_server(0, 0, 1, APP, ""), *torn = add_server(0, 1, 2, APP, "10.0.0.1:9000");

    (void)state;
    add_pool(APP, 2, "app");
    memset(endless->address, 'x', sizeof endless->address);
    memset(endless->why, 'x', sizeof endless->why);
    endless->state = 77;
    endless->n_connections = UINT32_MAX;
    scoreboard_open(&torn->version);
    add_server(0, 2, 3, APP, "");                    /* whose is it? */
    add_server(0, 3, 4, 0xfffffff, "10.0.0.2:9000"); /* of no pool */
    add_server(0, 4, 5, APP, "10.0.0.3:9000");       /* twice, as two */
    add_server(0, 5, 6, APP, "10.0.0.3:9000");
    struct view *view = view_read(board);
    const struct view_pool *pool = &view->pools[2];
    const struct view_server *servers = &view->servers[pool->first_server];
    assert_int_equal(pool->n_servers, 2);
    assert_string_equal(servers[0].address, "10.0.0.3:9000");
    assert_int_equal(servers[0].n_requests, 20);
    assert_int_equal(strlen(servers[1].address), sizeof endless->address - 1);
    assert_int_equal(strlen(servers[1].why), sizeof endless->why - 1);
    assert_int_equal(servers[1].state, SEAT_LEAVING);
    assert_int_equal(servers[1].n_connections, UINT32_MAX);
    view_free(view);
}

/* ---- requests ---- */

static void requests_are_the_oldest_first(void **state)
{
    struct view_requests found;
    struct scoreboard_request request;

    (void)state;
    add_request(0, 0, PHP, 3000);
    add_request(2, 0, PHP, 1000);
    add_request(2, 1, PHP, 2000);
    add_request(1, 0, PHP, 500); /* of a front that is gone */
    add_request(0, 1, PHP, 100)->state = REQUEST_NONE;
    view_requests_find(board, &found);
    assert_int_equal(found.n, 3);
    assert_int_equal(found.n_all, 3);
    assert_true(view_request(board, &found.at[0], &request));
    assert_string_equal(request.uri, "/2-0");
    assert_true(view_request(board, &found.at[2], &request));
    assert_string_equal(request.uri, "/0-0");
    board->fronts[0].requests[0].started_us = 4000; /* another's place by now */
    assert_false(view_request(board, &found.at[2], &request));
    view_requests_free(&found);
}

static void phases_have_names(void **state)
{
    struct scoreboard_request request = {.state = REQUEST_BODY};

    (void)state;
    assert_string_equal(view_phase_name(&request), "receive");
    request.state = REQUEST_QUEUE;
    assert_string_equal(view_phase_name(&request), "queue");
    request.state = REQUEST_SEND;
    request.pid = 1;
    assert_string_equal(view_phase_name(&request), "body");
    request.pid = 0;
    assert_string_equal(view_phase_name(&request), "send");
}

/* Fronts are not believed: texts without an end, states and numbers that there are not. */
static void a_hostile_front_does_no_harm(void **state)
{
    struct scoreboard_request *request = add_request(0, 0, 0xfffffff, 1);
    struct scoreboard_process *process = add_process(1, 0xfffffff, 1);
    struct view_requests found;
    struct scoreboard_request copy;

    (void)state;
    memset(request->id, 'x', sizeof *request - offsetof(struct scoreboard_request, id));
    memset(process->method, 'x', sizeof *process - offsetof(struct scoreboard_process, method));
    add_request(0, 1, PHP, 1)->state = 77;
    board->fronts[0].n_requests = UINT32_MAX;
    board->n_fronts = 3;
    memset(board->pools[PHP].name, 'x', sizeof board->pools[PHP].name);
    board->saturations[PHP].at_unix_us = 1;
    memset(board->saturations[PHP].text, 'x', sizeof board->saturations[PHP].text);
    struct view *view = view_read(board);
    assert_int_equal(strlen(view->pools[0].about.name), sizeof view->pools[0].about.name - 1);
    assert_int_equal(strlen(view->pools[0].full_text), sizeof view->pools[0].full_text - 1);
    assert_int_equal(strlen(process_of(view, 1)->uri), sizeof board->processes[0].uri - 1);
    assert_int_equal(view->pools[0].n_processes, 0);
    view_free(view);
    view_requests_find(board, &found);
    assert_int_equal(found.n, 2);
    assert_true(view_request(board, &found.at[0], &copy));
    assert_int_equal(strlen(copy.uri), sizeof copy.uri - 1);
    assert_int_equal(strlen(copy.id), sizeof copy.id - 1);
    assert_false(view_request(board, &found.at[1], &copy));
    view_requests_free(&found);
}

/* A writer that has died at it: the words are told, the texts are not. */
static void a_part_that_stays_open_is_passed_over(void **state)
{
    struct scoreboard_process *process = add_process(INDEX, PHP, 4711);
    struct view_requests found;
    struct scoreboard_request copy;

    (void)state;
    snprintf(process->uri, sizeof process->uri, "/half");
    scoreboard_open(&process->version);
    scoreboard_open(&add_request(0, 0, PHP, 1)->version);
    struct view *view = view_read(board);
    assert_string_equal(process_of(view, 4711)->uri, "");
    view_free(view);
    view_requests_find(board, &found);
    assert_false(view_request(board, &found.at[0], &copy));
    view_requests_free(&found);
}

/* ---- torn reads ---- */

static _Atomic bool is_over;

static void *write_on(void *arg)
{
    struct scoreboard_request *request = arg;

    for (unsigned i = 0; !is_over; i++) {
        scoreboard_open(&request->version);
        memset(request->uri, 'a' + (int)(i % 26), sizeof request->uri - 1);
        memset(request->method, 'a' + (int)(i % 26), sizeof request->method - 1);
        scoreboard_close(&request->version);
        usleep(1);
    }
    return NULL;
}

static void texts_are_never_torn(void **state)
{
    struct scoreboard_request *request = add_request(0, 0, PHP, 1), copy;
    const struct view_found found = {.front = 0, .place = 0, .started_us = 1};
    unsigned n_seen = 0;
    pthread_t writer;

    (void)state;
    is_over = false;
    memset(request->uri, 'a', sizeof request->uri - 1);
    memset(request->method, 'a', sizeof request->method - 1);
    assert_int_equal(pthread_create(&writer, NULL, write_on, request), 0);
    for (char last = 'a'; n_seen < 200;) {
        if (!view_request(board, &found, &copy))
            continue;
        for (size_t i = 1; i < sizeof copy.uri - 1; i++)
            assert_int_equal(copy.uri[i], copy.uri[0]);
        assert_int_equal(copy.method[0], copy.uri[0]);
        n_seen += copy.uri[0] != last;
        last = copy.uri[0];
    }
    is_over = true;
    pthread_join(writer, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_board, free_board)
    const struct CMUnitTest tests[] = {
        TEST(an_empty_board_is_read),
        TEST(sums_are_over_all_fronts),
        TEST(processes_have_states),
        TEST(a_place_that_is_not_its_own_is_not_believed),
        TEST(programs_are_what_their_requests_are),
        TEST(memory_is_that_of_now),
        TEST(percentiles_are_exact),
        TEST(waits_are_those_of_all_fronts),
        TEST(servers_are_summed_over_fronts),
        TEST(the_newest_word_of_a_server_counts),
        TEST(hostile_rows_of_servers_do_no_harm),
        TEST(requests_are_the_oldest_first),
        TEST(phases_have_names),
        TEST(a_hostile_front_does_no_harm),
        TEST(a_part_that_stays_open_is_passed_over),
        TEST(texts_are_never_torn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
