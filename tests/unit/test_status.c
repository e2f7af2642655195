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
    board->fronts[0].pid = 100;
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

/* Every text that there is, is hostile. */
static void fill_with_evil(void)
{
    struct scoreboard_process *process = &board->processes[0];
    struct scoreboard_request *request = &board->fronts[0].requests[0];

    add_pool(0, 0, 0, EVIL);
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

/* ---- readiness ---- */

static bool is_ready(char *text_out, size_t size)
{
    struct buffer to = {0};
    struct view *view = view_read(board);
    bool ready = status_write_ready(&to, view);

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
        TEST(ready_when_every_pool_can_serve),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
