/* Who may see the status pages, and what is written there: above all, that nothing from outside is more than text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clients.h"
#include "base/clock.h"
#include "config_text.h"
#include "site/status_inside.h"
#include "site/status_text.h"

/* ---- who may ---- */

static const struct {
    const char *client;
    bool by_default, when_allowed;
} clients[] = {
    {"", true, true}, /* a unix socket */
    {"127.0.0.1", true, true},
    {"127.255.0.9", true, true},
    {"128.0.0.1", false, false},
    {"10.1.2.3", false, true},
    {"11.1.2.3", false, false},
    {"192.0.2.7", false, true},
    {"192.0.2.6", false, false},
    {"::1", true, true},
    {"::2", false, false},
    {"::ffff:127.0.0.1", true, true},
    {"::ffff:10.0.0.1", false, true},
    {"::ffff:9.0.0.1", false, false},
    {"fd12::1", false, true},
    {"fe80::1", false, false},
    {"2001:db8:8000::", false, true},
    {"2001:db8:7fff::", false, false},
    {"a00::1", false, false}, /* the bits of 10.0.0.0 */
};

static struct peer_address address_of(const char *text)
{
    struct peer_address address = {.any.sa_family = AF_UNIX};

    if (strchr(text, ':') != NULL) {
        address.in6.sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &address.in6.sin6_addr), 1);
    } else if (text[0] != '\0') {
        address.in.sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &address.in.sin_addr), 1);
    }
    return address;
}

static void local_clients_may_see_and_who_is_allowed(void **state)
{
    static const char *const allowed[] = {"10.0.0.0/8", "192.0.2.7", "fd00::/8", "2001:db8:8000::/33"};
    struct config_network networks[4];
    const struct config_networks none = {NULL, 0}, some = {networks, 4};

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_true(text_to_network(allowed[i], &networks[i]));
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++) {
        struct peer_address client = address_of(clients[i].client);

        if (status_may_see(&none, &client) != clients[i].by_default ||
            status_may_see(&some, &client) != clients[i].when_allowed)
            fail_msg("client \"%s\"", clients[i].client);
    }
    struct peer_address any = address_of("203.0.113.5");
    assert_true(text_to_network("0.0.0.0/0", &networks[0]));
    assert_true(status_may_see(&some, &any));
}

/* ---- values ---- */

static void text_of(struct buffer *to, char *out, size_t size)
{
    snprintf(out, size, "%.*s", (int)buffer_len(to), buffer_at(to));
    buffer_clear(to);
}

static void values_are_written(void **state)
{
    static const struct {
        uint64_t us;
        const char *ms, *seconds, *duration;
    } times[] = {
        {0, "0.000", "0.000000", "0\u00a0µs"},
        {7, "0.007", "0.000007", "7\u00a0µs"},
        {1234, "1.234", "0.001234", "1.2\u00a0ms"},
        {59999999, "59999.999", "59.999999", "59\u00a0s"},
        {3600000000, "3600000.000", "3600.000000", "1.0\u00a0h"},
        {(uint64_t)86400000000 * 30, "2592000000.000", "2592000.000000", "30\u00a0d"},
    };
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {{0, "0\u00a0B"},
                 {1023, "1023\u00a0B"},
                 {1024, "1.0\u00a0KB"},
                 {20480, "20\u00a0KB"},
                 {5368709120, "5.0\u00a0GB"}};
    struct buffer to = {0};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        text_ms(&to, times[i].us);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, times[i].ms);
        text_seconds(&to, times[i].us);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, times[i].seconds);
        text_duration(&to, times[i].us);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, times[i].duration);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        text_bytes(&to, sizes[i].bytes);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, sizes[i].text);
    }
    buffer_free(&to);
}

static void texts_are_escaped(void **state)
{
    static const struct {
        const char *text, *json, *html, *label;
    } cases[] = {
        {"plain", "\"plain\"", "plain", "plain"},
        {"\"\\", "\"\\\"\\\\\"", "&quot;\\", "\\\"\\\\"},
        {"<b>&'", "\"<b>&'\"", "&lt;b&gt;&amp;&#39;", "<b>&'"},
        {"a\nb\x1b", "\"a\\u000ab\\u001b\"",
         "a\xef\xbf\xbd"
         "b\xef\xbf\xbd",
         "a\xef\xbf\xbd"
         "b\xef\xbf\xbd"},
        {"\xff\xc3", "\"\xef\xbf\xbd\xef\xbf\xbd\"", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc3\xa4", "\"\xc3\xa4\"", "\xc3\xa4", "\xc3\xa4"},
    };
    struct buffer to = {0};
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_json(&to, cases[i].text);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, cases[i].json);
        text_html(&to, cases[i].text);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, cases[i].html);
        text_label(&to, cases[i].text);
        text_of(&to, text, sizeof text);
        assert_string_equal(text, cases[i].label);
    }
    buffer_free(&to);
}

/* ---- pages ---- */

#define EVIL "\"><script>alert(1)</script>\\\n'&\xff"

static struct scoreboard *board;
static struct status_route routes[] = {{"fastcgi", EVIL, EVIL, 1}};
static struct status status = {.routes = routes, .n_routes = 1};

static void add_pool(unsigned number, unsigned kind, unsigned pm, const char *name)
{
    struct scoreboard_pool *pool = &board->pools[number];

    pool->is_there = pool->is_current = true;
    pool->kind = (uint8_t)kind;
    pool->pm = (uint8_t)pm;
    pool->start_servers = 1;
    pool->capacity = 4;
    pool->n_live = 1;
    snprintf(pool->name, sizeof pool->name, "%s", name);
    board->n_pools = number + 1;
}

static int make_board(void **state)
{
    (void)state;
    board = scoreboard_create();
    status.scoreboard = board;
    board->n_fronts = 1;
    board->fronts[0].pid = board->seats.fronts[0] = 100;
    return 0;
}

static int free_board(void **state)
{
    (void)state;
    return munmap(board, sizeof *board);
}

/* As much of it as there is room for. */
static void put(char *to, size_t size, const char *text)
{
    size_t len = strlen(text) < size ? strlen(text) : size - 1;

    memcpy(to, text, len);
    to[len] = '\0';
}

static struct seat_row *add_server(unsigned i, unsigned pool, const char *address, enum seat_state state,
                                   const char *why)
{
    struct seat_row *row = &board->seats.rows[0][i];

    row->key = i + 1;
    row->pool = pool;
    row->state = state;
    row->since_us = clock_us() - 3500000;
    put(row->address, sizeof row->address, address);
    put(row->why, sizeof row->why, why);
    return row;
}

/* Every text that there is, is hostile. */
static void fill_with_evil(void)
{
    struct scoreboard_process *process = &board->processes[0];
    struct scoreboard_request *request = &board->fronts[0].requests[0];

    add_pool(0, 0, 0, EVIL);
    add_pool(1, 2, 0, EVIL);
    add_server(0, 1, EVIL, SEAT_DOWN, EVIL);
    put(board->pools[0].script, sizeof board->pools[0].script, EVIL);
    snprintf(board->pools[0].down_why, sizeof board->pools[0].down_why, "%s", EVIL);
    board->pools[0].is_down = 1;
    board->saturations[0].at_unix_us = 1;
    snprintf(board->saturations[0].text, sizeof board->saturations[0].text, "%s;%s", EVIL, EVIL);
    process->pool = 1;
    process->served = 1;
    put(process->method, sizeof process->method, EVIL);
    put(process->user, sizeof process->user, EVIL);
    put(process->uri, sizeof process->uri, EVIL);
    scoreboard_set_used(board, 0, true);
    board->fronts[0].n_requests = 1;
    *request = (struct scoreboard_request){.state = REQUEST_FIRST, .started_us = clock_us()};
    put(request->id, sizeof request->id, EVIL);
    put(request->method, sizeof request->method, EVIL);
    put(request->user, sizeof request->user, EVIL);
    put(request->client, sizeof request->client, EVIL);
    put(request->site, sizeof request->site, EVIL);
    put(request->route, sizeof request->route, EVIL);
    put(request->uri, sizeof request->uri, EVIL);
    board->fronts[0].shares[1].phases[0].buckets[0] = 1;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;

    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
        n++;
    return n;
}

static char *finish(struct buffer *to)
{
    buffer_append(to, "", 1);
    assert_int_equal(strlen(buffer_at(to)), buffer_len(to) - 1);
    return buffer_at(to);
}

/* Strings closed, no raw control character but line ends between members, brackets that match. */
static void assert_json(const char *text)
{
    bool is_string = false;
    int depth = 0;

    for (const char *at = text; *at != '\0'; at++) {
        assert_true((unsigned char)*at >= ' ' || (*at == '\n' && !is_string));
        if (is_string && *at == '\\') {
            at++;
            assert_non_null(strchr("\"\\/bfnrtu", *at));
        } else if (*at == '"') {
            is_string = !is_string;
        } else if (!is_string) {
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            assert_true(depth > 0 || at[1] == '\n' || at[1] == '\0');
        }
    }
    assert_false(is_string);
    assert_int_equal(depth, 0);
}

static void json_holds_hostile_texts(void **state)
{
    struct buffer to = {0};

    (void)state;
    fill_with_evil();
    struct view *view = view_read(board);
    status_write_json(&to, view, &status);
    assert_json(finish(&to));
    assert_non_null(strstr(buffer_at(&to), "\"pool\":\"\\\"><script>alert(1)</script>\\\\\\u000a'&\xef\xbf\xbd\""));
    assert_int_equal(count(buffer_at(&to), "\"address\":\"\\\"><script>"), 1);
    assert_int_equal(count(buffer_at(&to), "\"last failure\":\"\\\"><script>"), 1);
    view_free(view);
    buffer_clear(&to);
    status_write_requests(&to, &status);
    assert_json(finish(&to));
    assert_int_equal(count(buffer_at(&to), "\"phase\":\"first\""), 1);
    buffer_free(&to);
}

static void metrics_hold_hostile_texts(void **state)
{
    struct buffer to = {0};

    (void)state;
    fill_with_evil();
    struct view *view = view_read(board);
    status_write_metrics(&to, view, &status);
    char *text = finish(&to);
    assert_non_null(strstr(text, "pool=\"\\\"><script>alert(1)</script>\\\\\xef\xbf\xbd'&\xef\xbf\xbd\""));
    assert_int_equal(count(text, ",server=\"\\\"><script>alert(1)</script>\\\\\xef\xbf\xbd'&\xef\xbf\xbd\"} "), 4);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strncmp(line, "# ", 2) != 0 && strncmp(line, "gatehouse_", 10) != 0)
            fail_msg("a line that is neither: %s", line);
    view_free(view);
    buffer_free(&to);
}

static void page_holds_hostile_texts(void **state)
{
    struct buffer to = {0};

    (void)state;
    fill_with_evil();
    struct view *view = view_read(board);
    status_write_page(&to, view, &status, "0123");
    const char *text = finish(&to);
    assert_int_equal(count(text, "<script"), 1); /* its own */
    assert_int_equal(count(text, "<script nonce=\"0123\">"), 1);
    assert_int_equal(count(text, "<style nonce=\"0123\">"), 1);
    assert_int_equal(count(text, "alert(1)"), count(text, "&quot;&gt;&lt;script&gt;alert(1)&lt;/script"));
    assert_true(count(text, "alert(1)") >= 5);
    assert_null(strchr(text, '\xff'));
    assert_int_equal(count(text, "style="), 0); /* which the policy for content forbids */
    view_free(view);
    buffer_free(&to);
}

static void page_is_made_of_its_parts(void **state)
{
    struct buffer page = {0}, part = {0};
    struct part one;

    (void)state;
    add_pool(0, 0, 1, "php");
    add_pool(1, 3, 0, "* /static/*"); /* no pool: nobody waits for it */
    add_pool(2, 2, 0, "api");
    struct view *view = view_read(board);
    assert_int_equal(parts_count(view), 4);
    status_write_page(&page, view, &status, "0123");
    finish(&page);
    for (unsigned i = 0; i < 4; i++) {
        parts_get(view, i, &one);
        parts_write(&part, view, &status, &one);
        finish(&part);
        if (i < 3) /* that of requests tells times of now */
            assert_non_null(strstr(buffer_at(&page), buffer_at(&part)));
        buffer_clear(&part);
    }
    assert_string_equal(one.id, "requests");
    uint64_t shape = parts_shape(view);
    view_free(view);
    board->pools[2].is_there = false;
    view = view_read(board);
    assert_int_not_equal(parts_shape(view), shape);
    view_free(view);
    buffer_free(&page);
    buffer_free(&part);
}

/* ---- servers ---- */

static void add_servers(void)
{
    struct seat_row *row;

    add_pool(0, 0, 2, "php");
    add_pool(1, 2, 0, "app");
    row = add_server(0, 1, "10.0.0.1:9000", SEAT_UP, "");
    row->since_us = 0;
    row->n_connections = 5;
    row->n_idle = 2;
    row->limit = 16;
    row->weight = 3;
    row->n_requests = 1000;
    row = add_server(1, 1, "10.0.0.2:9000", SEAT_DOWN, "Connection refused");
    row->n_failures = 3;
    add_server(2, 1, "10.0.0.3:9000", SEAT_ILL, "it answers 500");
    add_server(3, 1, "10.0.0.4:9000", SEAT_TRYING, "");
    add_server(4, 1, "unix:/run/a<b.sock", SEAT_LEAVING, "");
}

static void assert_has(const char *text, const char *what)
{
    if (strstr(text, what) == NULL)
        fail_msg("there is no %s", what);
}

static void json_has_servers(void **state)
{
    struct buffer to = {0};

    (void)state;
    add_servers();
    struct view *view = view_read(board);
    status_write_json(&to, view, &status);
    const char *text = finish(&to);
    assert_json(text);
    assert_int_equal(count(text, "\"servers\":["), 1); /* a pool of processes has none */
    assert_has(text,
               "\"servers\":[{\"address\":\"10.0.0.1:9000\",\"state\":\"up\",\"state since\":null,"
               "\"connections\":5,\"idle "
               "connections\":2,\"limit\":16,\"weight\":3,\"requests\":1000,\"failures\":0,\"last failure\":null},"
               "{\"address\":\"10.0.0.2:9000\",\"state\":\"down\",\"state since\":");
    assert_has(text, ",\"connections\":0,\"idle connections\":0,\"limit\":0,\"weight\":0,\"requests\":0,\"failures\":3,"
                     "\"last failure\":\"Connection refused\"},");
    assert_has(text, "{\"address\":\"10.0.0.3:9000\",\"state\":\"down\",");
    assert_has(text, "\"last failure\":\"it answers 500\"}");
    assert_has(text, "{\"address\":\"10.0.0.4:9000\",\"state\":\"trying\",");
    assert_has(text, "{\"address\":\"unix:/run/a<b.sock\",\"state\":\"leaving\",");
    view_free(view);
    buffer_free(&to);
}

static void metrics_have_servers(void **state)
{
    struct buffer to = {0};

    (void)state;
    add_servers();
    struct view *view = view_read(board);
    status_write_metrics(&to, view, &status);
    const char *text = finish(&to);
    assert_has(text, "# TYPE gatehouse_server_up gauge\n");
    assert_has(text, "\ngatehouse_server_up{pool=\"app\",server=\"10.0.0.1:9000\"} 1\n"
                     "gatehouse_server_up{pool=\"app\",server=\"10.0.0.2:9000\"} 0\n"
                     "gatehouse_server_up{pool=\"app\",server=\"10.0.0.3:9000\"} 0\n"
                     "gatehouse_server_up{pool=\"app\",server=\"10.0.0.4:9000\"} 0\n"
                     "# TYPE gatehouse_server_connections gauge\n");
    assert_has(text, "\ngatehouse_server_connections{pool=\"app\",server=\"10.0.0.1:9000\"} 5\n");
    assert_has(text, "# TYPE gatehouse_server_requests counter\n");
    assert_has(text, "\ngatehouse_server_requests_total{pool=\"app\",server=\"10.0.0.1:9000\"} 1000\n");
    assert_has(text, "# TYPE gatehouse_server_failures counter\n");
    assert_has(text, "\ngatehouse_server_failures_total{pool=\"app\",server=\"10.0.0.2:9000\"} 3\n");
    assert_int_equal(count(text, "server=\"unix:/run/a<b.sock\"} 0\n"), 3);
    view_free(view);
    buffer_clear(&to);
    board->pools[1].is_current = false; /* its name may be another pool's by now */
    view = view_read(board);
    status_write_metrics(&to, view, &status);
    assert_int_equal(count(finish(&to), "server=\""), 0);
    view_free(view);
    buffer_free(&to);
}

static void page_has_a_cell_for_each_server(void **state)
{
    struct buffer to = {0};

    (void)state;
    add_servers();
    struct view *view = view_read(board);
    status_write_page(&to, view, &status, "0123");
    const char *text = finish(&to);
    assert_int_equal(count(text, "<ul class=\"cells servers\">"), 1);
    assert_has(
        text,
        "<li class=\"up\" title=\"server 10.0.0.1:9000, up; 5 connections of 16, weight 3, 1000 requests, 0 failures\">"
        "<b>up · 3 busy</b>10.0.0.1:9000</li>\n");
    assert_has(text, "<li class=\"down\" title=\"server 10.0.0.2:9000, down for ");
    assert_has(text,
               "; 0 connections of 0, weight 0, 0 requests, 3 failures; last failure: Connection refused\"><b>down · 0 "
               "busy</b>10.0.0.2:9000</li>\n");
    assert_has(text, "<li class=\"down\" title=\"server 10.0.0.3:9000, down");
    assert_has(text, "<li class=\"trying\" title=\"server 10.0.0.4:9000, trying");
    assert_has(text, "<li class=\"leaving\" title=\"server unix:/run/a&lt;b.sock, leaving");
    view_free(view);
    buffer_free(&to);
}

/* ---- readiness ---- */

static bool is_ready(char *text_out, size_t size)
{
    struct buffer to = {0};
    struct view *view = view_read(board);
    bool ready = status_write_ready(&to, view, &status);

    text_of(&to, text_out, size);
    view_free(view);
    buffer_free(&to);
    return ready;
}

static void ready_when_every_pool_can_serve(void **state)
{
    char text[512];

    (void)state;
    add_pool(0, 0, 0, "static");
    add_pool(1, 0, 1, "dynamic");
    add_pool(2, 0, 2, "ondemand");
    add_pool(3, 1, 0, "* /cgi-bin/*");
    board->pools[2].n_live = board->pools[3].n_live = 0;
    assert_true(is_ready(text, sizeof text));
    assert_string_equal(text, "ready\n");
    board->pools[0].n_live = 0;
    board->pools[1].is_down = 1;
    snprintf(board->pools[1].down_why, sizeof board->pools[1].down_why, "no such\nprogram");
    assert_false(is_ready(text, sizeof text));
    assert_string_equal(text, "pool static: has no process yet\npool dynamic: down: no such\\x0aprogram\n");
    board->pools[0].is_current = board->pools[1].is_current = false;
    assert_true(is_ready(text, sizeof text));
    board->is_draining = 1;
    assert_false(is_ready(text, sizeof text));
    assert_string_equal(text, "the server is draining\n");
}

static void ready_when_one_server_is_up(void **state)
{
    char name[] = "app", text[1024];
    struct config_pool pool = {.name = name, .fail_timeout_ms = 3600000}, *pools[] = {&pool};
    const struct config config = {.pools = pools, .n_pools = 1};

    (void)state;
    add_pool(0, 2, 0, "app");
    assert_true(is_ready(text, sizeof text)); /* nothing is known of its servers */
    status.config = &config;
    struct seat_row *down = add_server(0, 0, "10.0.0.1:9000", SEAT_DOWN, "Connection\nrefused");
    struct seat_row *ill = add_server(1, 0, "10.0.0.2:9000", SEAT_ILL, "");
    struct seat_row *up = add_server(2, 0, "10.0.0.3:9000", SEAT_UP, "");
    assert_true(is_ready(text, sizeof text));
    up->state = SEAT_LEAVING;
    assert_false(is_ready(text, sizeof text));
    assert_string_equal(text, "pool app: all servers are down: 10.0.0.1:9000: Connection\\x0arefused; "
                              "10.0.0.2:9000: its cause is not known\n");
    down->state = SEAT_TRYING;
    assert_false(is_ready(text, sizeof text));
    pool.fail_timeout_ms = 3000; /* the next request would be tried on it */
    assert_true(is_ready(text, sizeof text));
    down->state = SEAT_DOWN;
    assert_true(is_ready(text, sizeof text));
    down->state = SEAT_ILL; /* no request is, until it is well */
    assert_false(is_ready(text, sizeof text));
    down->key = ill->key = SEAT_NOBODY;
    assert_true(is_ready(text, sizeof text)); /* nobody is left but one that leaves */
    board->pools[0].is_down = 1;
    assert_false(is_ready(text, sizeof text));
    status.config = NULL;
}

static void few_of_many_lost_servers_are_told(void **state)
{
    char text[1024], address[32];

    (void)state;
    add_pool(0, 2, 0, "app");
    for (unsigned i = 0; i < 12; i++) {
        snprintf(address, sizeof address, "10.0.0.%u:9000", 10 + i);
        add_server(i, 0, address, SEAT_DOWN, "lost");
    }
    assert_false(is_ready(text, sizeof text));
    assert_int_equal(count(text, ":9000: lost"), 8);
    assert_has(text, "10.0.0.17:9000: lost; and 4 more\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_board, free_board)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(local_clients_may_see_and_who_is_allowed),
        cmocka_unit_test(values_are_written),
        cmocka_unit_test(texts_are_escaped),
        TEST(json_holds_hostile_texts),
        TEST(metrics_hold_hostile_texts),
        TEST(page_holds_hostile_texts),
        TEST(page_is_made_of_its_parts),
        TEST(json_has_servers),
        TEST(metrics_have_servers),
        TEST(page_has_a_cell_for_each_server),
        TEST(ready_when_every_pool_can_serve),
        TEST(ready_when_one_server_is_up),
        TEST(few_of_many_lost_servers_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
