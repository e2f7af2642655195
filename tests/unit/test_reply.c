/* The head of a program's response: every row is read whole, cut in two at each place, and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "gateway/reply.h"

#define TYPE "Content-Type: text/plain\r\n"
#define OK   "Status: 200 OK\r\n" TYPE

/* Reads a copy of exactly len bytes, elsewhere in memory at each call; the spans of the last one live in *copy. */
static enum reply_result read_copy(struct reply *reply, const char *bytes, size_t len, char **copy)
{
    char *moved = memory_copy(bytes, len);

    free(*copy);
    *copy = moved;
    return reply_read(reply, moved, len);
}

/* Everything that a reply says, as text. */
static void describe(struct buffer *to, const struct reply *r, enum reply_result result)
{
    buffer_clear(to);
    if (result == REPLY_MORE) {
        buffer_printf(to, "more");
    } else if (result == REPLY_BAD) {
        buffer_printf(to, "bad: %s", r->why);
    } else {
        buffer_printf(to, "%u%s(%.*s)", r->status, r->has_status ? "!" : "", (int)r->reason.len,
                      r->reason.len > 0 ? r->reason.at : "");
        if (r->location.len > 0)
            buffer_printf(to, " %s<%.*s>", r->is_local ? "local" : "", (int)r->location.len, r->location.at);
        if (r->sendfile.len > 0)
            buffer_printf(to, " file<%.*s>", (int)r->sendfile.len, r->sendfile.at);
        if (r->has_length)
            buffer_printf(to, " length=%llu", (unsigned long long)r->length);
        buffer_printf(to, "%s +%zu", r->is_chunked ? " chunked" : "", r->len);
        for (unsigned i = 0; i < r->n_fields; i++) {
            const struct field *f = &r->fields[i];

            buffer_printf(to, "|%.*s=%.*s", (int)f->name.len, f->name.at, (int)f->value.len, f->value.at);
        }
    }
    buffer_append(to, "", 1);
}

/* What output means that arrives in two pieces; with nothing in the first it arrives whole. */
static void describe_cut(struct buffer *to, struct span output, size_t cut)
{
    struct reply reply;
    char *copy = NULL;
    enum reply_result result;

    reply_init(&reply);
    result = read_copy(&reply, output.at, cut, &copy);
    if (result == REPLY_MORE)
        result = read_copy(&reply, output.at, output.len, &copy);
    describe(to, &reply, result);
    free(copy);
}

static void describe_byte_by_byte(struct buffer *to, struct span output)
{
    struct reply reply;
    char *copy = NULL;
    enum reply_result result = REPLY_MORE;

    reply_init(&reply);
    for (size_t len = 0; result == REPLY_MORE && len <= output.len; len++)
        result = read_copy(&reply, output.at, len, &copy);
    describe(to, &reply, result);
    free(copy);
}

static void check(struct span output, const char *expected)
{
    struct buffer text = {0};

    describe_cut(&text, output, 0);
    assert_string_equal(buffer_at(&text), expected);
    for (size_t cut = 1; cut <= output.len; cut++) {
        describe_cut(&text, output, cut);
        assert_string_equal(buffer_at(&text), expected);
    }
    describe_byte_by_byte(&text, output);
    assert_string_equal(buffer_at(&text), expected);
    buffer_free(&text);
}

struct row {
    struct span output;
    const char *expected;
};

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check(rows[i].output, rows[i].expected);
}

#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof(rows)[0])

static void accepts_heads(void **state)
{
    const struct row rows[] = {
        {SPAN(OK "\r\nok\n"), "200!(OK) +44|Content-Type=text/plain"},
        {SPAN("Content-Type: text/plain\n\nhello"), "200() +26|Content-Type=text/plain"},
        {SPAN("Status: 404 Not Found\nContent-Type: a/b\nX-A: 1\n\nok\n"),
         "404!(Not Found) +48|Content-Type=a/b|X-A=1"},
        {SPAN("Content-Type: a/b\r\n\nmixed ends of lines"), "200() +20|Content-Type=a/b"},
        {SPAN("content-TYPE:a/b\n\n"), "200() +18|content-TYPE=a/b"},
        {SPAN("Content-Type: \t a/b;\tq=1 \t \r\nX-Empty:\r\nX-Blank: \t\r\n\r\n"),
         "200() +53|Content-Type=a/b;\tq=1|X-Empty=|X-Blank="},
        {SPAN(TYPE "X: a:b: c\r\n\r\n"), "200() +39|Content-Type=text/plain|X=a:b: c"},
        {SPAN(TYPE "X: caf\xc3\xa9 \xff\r\n\r\n"), "200() +40|Content-Type=text/plain|X=caf\xc3\xa9 \xff"},
        {SPAN(OK "Set-Cookie: a=1; Path=/\r\nX-A: 1\r\nSet-Cookie: b=2, c\r\n\r\nok\n"),
         "200!(OK) +97|Content-Type=text/plain|Set-Cookie=a=1; Path=/|X-A=1|Set-Cookie=b=2, c"},
        {SPAN(TYPE "\r\n\r\nStatus: 404\r\n\r\n"), "200() +28|Content-Type=text/plain"},
        {SPAN("!#$%&'*+-.^_`|~09AZaz: 1\n" TYPE "\n"), "200() +52|!#$%&'*+-.^_`|~09AZaz=1|Content-Type=text/plain"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void accepts_status(void **state)
{
    const struct row rows[] = {
        {SPAN("Status: 404\n\nx"), "404!() +13"},
        {SPAN("Status: 404 \n\n"), "404!() +14"},
        {SPAN("Status:404 Not Found\n\n"), "404!(Not Found) +22"},
        {SPAN("STATUS: \t 404 Not Found \t \r\n\r\n"), "404!(Not Found) +30"},
        {SPAN(TYPE "X-A: 1\r\nStatus: 404 Not Found\r\n\r\nnothing here\n"),
         "404!(Not Found) +59|Content-Type=text/plain|X-A=1"},
        {SPAN("Status: 418 Teapot\r\n" TYPE "\r\nhello"), "418!(Teapot) +48|Content-Type=text/plain"},
        {SPAN("Status: 100\n\n"), "100!() +13"},
        {SPAN("Status: 599 x\n\n"), "599!(x) +15"},
        {SPAN("Status: 200 a\tb \xc3\xa9\n\n"), "200!(a\tb \xc3\xa9) +20"},
        {SPAN("Status: 204 No Content\r\n\r\nxxxx"), "204!(No Content) +26"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void refuses_status(void **state)
{
    static const char no_number[] = "bad: a status that is no number of three digits";
    static const char out_of_range[] = "bad: a status that is not between 100 and 599";
    const struct row rows[] = {
        {SPAN("Status: abc\r\n" TYPE "\r\nhello"), no_number},
        {SPAN("Status: 99\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 1000\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: -200\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: +20\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 200\tX\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 404Not Found\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 2 0 OK\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 200, 404\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status:\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: \r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: \xb2\xb0\xb0\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: OK 200\r\n" TYPE "\r\n"), no_number},
        {SPAN("Status: 099\r\n" TYPE "\r\n"), out_of_range},
        {SPAN("Status: 000\r\n" TYPE "\r\n"), out_of_range},
        {SPAN("Status: 600\r\n" TYPE "\r\n"), out_of_range},
        {SPAN("Status: 999\r\n" TYPE "\r\n"), out_of_range},
        {SPAN("Status: 101 Switching Protocols\r\n\r\n"), "bad: status 101, but no Upgrade was offered"},
        {SPAN("Status: 200 OK\r\nStatus: 404 N\r\n" TYPE "\r\n"), "bad: two Status fields"},
        {SPAN("Status: 200 OK\r\n" TYPE "status: 200 OK\r\n\r\n"), "bad: two Status fields"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void takes_status_line(void **state)
{
    static const char other_version[] = "bad: a status line of another version";
    static const char no_number[] = "bad: a status that is no number of three digits";
    const struct row rows[] = {
        {SPAN("HTTP/1.1 200 OK\r\n" TYPE "X-A: 1\r\n\r\nok\n"), "200!(OK) +53|Content-Type=text/plain|X-A=1"},
        {SPAN("HTTP/1.0 404\n\n"), "404!() +14"},
        {SPAN("HTTP/1.1 299 Raw\r\n" TYPE "X-Raw: yes\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"),
         "299!(Raw) length=3 +96|Content-Type=text/plain|X-Raw=yes"},
        {SPAN("HTTP/1.1 302 Found\nLocation: /x\n\n"), "302!(Found) </x> +33|Location=/x"},
        {SPAN("HTTP/1.1 200 a: b\n\n"), "200!(a: b) +19"},
        {SPAN("HTTP/1.1 100 Continue\r\n\r\n" OK "\r\n"), "100!(Continue) +25"},
        /* What CGI.pm prints in its nph mode. */
        {SPAN("HTTP/1.0 404 Not Found\r\nServer: x\r\nStatus: 404 Nope\r\n" TYPE "\r\n"),
         "404!(Not Found) +81|Content-Type=text/plain"},
        {SPAN("HTTP/1.1 200 OK\r\nStatus: 404 N\r\n\r\n"), "bad: two different statuses"},
        {SPAN("HTTP/1.1 200 OK\r\nStatus: 200\r\nStatus: 200\r\n\r\n"), "bad: two Status fields"},
        {SPAN("HTTP/2 200 OK\r\n\r\n"), other_version},
        {SPAN("HTTP/2.0 200 OK\r\n\r\n"), other_version},
        {SPAN("HTTP/1. 200 OK\r\n\r\n"), other_version},
        {SPAN("HTTP/1.11 200\r\n\r\n"), other_version},
        {SPAN("HTTP/1.1\t200 OK\r\n\r\n"), other_version},
        {SPAN("HTTP/1.1\r\n\r\n"), other_version},
        {SPAN("HTTP/\r\n\r\n"), other_version},
        {SPAN("HTTP/1.1 \r\n\r\n"), no_number},
        {SPAN("HTTP/1.1  200 OK\r\n\r\n"), no_number},
        {SPAN("HTTP/1.1 2000\r\n\r\n"), no_number},
        {SPAN("HTTP/1.1 200 O\0K\r\n\r\n"), "bad: a control character in the status line"},
        {SPAN("HTTP/1.1 200 O\rK\r\n\r\n"), "bad: a control character in the status line"},
        {SPAN("http/1.1 200 OK\r\n\r\n"), "bad: a field line without a colon"},
        {SPAN(TYPE "HTTP/1.1 200 OK\r\n\r\n"), "bad: a field line without a colon"},
        {SPAN("HTTP/1.1 200 OK\r\nHTTP/1.1 200 a: b\r\n\r\n"), "bad: a field's name is no token"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void tells_redirects(void **state)
{
    const struct row rows[] = {
        {SPAN("Location: /static.txt?x=1\r\n\r\n"), "200() local</static.txt?x=1> +29|Location=/static.txt?x=1"},
        {SPAN("location:/\n\n"), "200() local</> +12|location=/"},
        {SPAN("Location: http://other.example/there?x=1\r\n\r\n"),
         "302() <http://other.example/there?x=1> +44|Location=http://other.example/there?x=1"},
        {SPAN("Location: http://b/x\r\n" TYPE "\r\n"),
         "302() <http://b/x> +50|Location=http://b/x|Content-Type=text/plain"},
        {SPAN("Location: page.html\n\n"), "302() <page.html> +21|Location=page.html"},
        {SPAN("Location: ?x\n\n"), "302() <?x> +14|Location=?x"},
        {SPAN("Location: /page#part\n\n"), "302() </page#part> +22|Location=/page#part"},
        {SPAN("Location: /x\r\n" TYPE "\r\n"), "302() </x> +42|Location=/x|Content-Type=text/plain"},
        {SPAN("Location: /x\r\nContent-Length: 0\r\n\r\n"), "302() </x> length=0 +35|Location=/x"},
        {SPAN("Status: 303 See Other\r\nLocation: /x\r\n\r\n"), "303!(See Other) </x> +39|Location=/x"},
        {SPAN("Location: /x\r\nStatus: 200\r\n\r\n"), "200!() </x> +29|Location=/x"},
        {SPAN("Status: 201 Created\r\nLocation: http://other.example/new\r\n" TYPE "\r\nmade\n"),
         "201!(Created) <http://other.example/new> +85|Location=http://other.example/new|Content-Type=text/plain"},
        {SPAN("Location: /x\r\nLocation: /x\r\n\r\n"), "302() </x> +30|Location=/x"},
        {SPAN("Location: /x\r\nLocation: /y\r\n\r\n"), "bad: two different Locations"},
        {SPAN("Location:\r\n\r\n"), "bad: neither Content-Type nor Location nor Status"},
        {SPAN("Location:\r\n" TYPE "\r\n"), "200() +39|Location=|Content-Type=text/plain"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void reads_length(void **state)
{
    static const char no_number[] = "bad: a Content-Length that is no number";
    const struct row rows[] = {
        {SPAN(OK "Content-Length: 3\r\n\r\nok\n"), "200!(OK) length=3 +63|Content-Type=text/plain"},
        {SPAN(TYPE "content-length:0\n\n"), "200() length=0 +44|Content-Type=text/plain"},
        {SPAN(TYPE "Content-Length: 007\n\n"), "200() length=7 +47|Content-Type=text/plain"},
        {SPAN(TYPE "Content-Length: 9223372036854775807\n\n"),
         "200() length=9223372036854775807 +63|Content-Type=text/plain"},
        {SPAN(TYPE "Content-Length: 5\nContent-Length: 5\n\n"), "200() length=5 +63|Content-Type=text/plain"},
        {SPAN(TYPE "Content-Length: 5\nContent-Length: 6\n\n"), "bad: two different Content-Lengths"},
        {SPAN(TYPE "Content-Length: 9223372036854775808\n\n"), "bad: a Content-Length that is too large"},
        {SPAN(TYPE "Content-Length: 18446744073709551616\n\n"), "bad: a Content-Length that is too large"},
        {SPAN(TYPE "Content-Length: 99999999999999999999999\n\n"), "bad: a Content-Length that is too large"},
        {SPAN(TYPE "Content-Length:\n\n"), "bad: an empty Content-Length"},
        {SPAN(TYPE "Content-Length: 5, 5\n\n"), no_number},
        {SPAN(TYPE "Content-Length: 5 5\n\n"), no_number},
        {SPAN(TYPE "Content-Length: -5\n\n"), no_number},
        {SPAN(TYPE "Content-Length: +5\n\n"), no_number},
        {SPAN(TYPE "Content-Length: 0x5\n\n"), no_number},
        {SPAN(TYPE "Content-Length: 5.0\n\n"), no_number},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void keeps_the_hop_to_itself(void **state)
{
    static const char other_coding[] = "bad: a Transfer-Encoding other than \"chunked\"";
    const struct row rows[] = {
        {SPAN(OK "Connection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=999\r\nUpgrade: h2c\r\n"
                 "Proxy-Connection: keep-alive\r\nX-After: 1\r\n\r\nok\n"),
         "200!(OK) +160|Content-Type=text/plain|X-After=1"},
        {SPAN("X-Secret: 1\nX-Other: 2\nConnection: close ,, x-SECRET,\n" TYPE "x-secret: 3\n\n"),
         "200() +93|X-Other=2|Content-Type=text/plain"},
        {SPAN(TYPE "X-A: 1\nX-B: 2\nX-C: 3\nConnection: X-A\nConnection: X-C\n\n"),
         "200() +80|Content-Type=text/plain|X-B=2"},
        {SPAN(TYPE "Connection:\n\n"), "200() +39|Content-Type=text/plain"},
        {SPAN(OK "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: me\r\nTE: trailers\r\nTrailer: X\r\n\r\n"),
         "200!(OK) +119|Content-Type=text/plain"},
        {SPAN(OK "x-request-id: mine\r\nX-Request-Ids: 1\r\n\r\n"),
         "200!(OK) +82|Content-Type=text/plain|X-Request-Ids=1"},
        {SPAN(TYPE "Transfer-Encoding: chunked\n\n5\r\n"), "200() chunked +54|Content-Type=text/plain"},
        {SPAN(TYPE "transfer-encoding: Chunked \n\n"), "200() chunked +55|Content-Type=text/plain"},
        {SPAN(TYPE "Transfer-Encoding: gzip\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding: identity\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding: gzip, chunked\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding: chunked, chunked\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding:\n\n"), other_coding},
        {SPAN(TYPE "Transfer-Encoding: chunked\nContent-Length: 5\n\n"),
         "bad: Content-Length beside Transfer-Encoding"},
        {SPAN(TYPE "Content-Length: 5\nTransfer-Encoding: chunked\n\n"),
         "bad: Content-Length beside Transfer-Encoding"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void takes_sendfile(void **state)
{
    static const char empty[] = "bad: an empty X-Sendfile";
    static const char two[] = "bad: two different X-Sendfiles";
    static const char control[] = "bad: a control character in the path of X-Sendfile";
    const struct row rows[] = {
        {SPAN(TYPE "X-Sendfile: /a/b c.txt\r\n\r\nbody"), "200() file</a/b c.txt> +52|Content-Type=text/plain"},
        {SPAN("x-SENDFILE:a\n\n"), "200() file<a> +14"},
        {SPAN("X-Sendfile: /caf\xc3\xa9 %41 \n\n"), "200() file</caf\xc3\xa9 %41> +25"},
        {SPAN("Status: 404 Gone\nX-Sendfile: x\nContent-Length: 0\n\n"), "404!(Gone) file<x> length=0 +50"},
        {SPAN("X-Sendfile: x\nLocation: /y\n\n"), "302() </y> file<x> +28|Location=/y"},
        {SPAN("X-Sendfile: x\nX-Sendfile: x\n\n"), "200() file<x> +29"},
        {SPAN("X-Sendfile: x\nConnection: x-sendfile\n\n"), "200() file<x> +38"},
        {SPAN("X-Sendfile: x\nX-Sendfile: y\n\n"), two},
        {SPAN("X-Sendfile: x\nX-Sendfile:\n\n"), empty},
        {SPAN(TYPE "X-Sendfile:\n\n"), empty},
        {SPAN(TYPE "X-Sendfile: \t \n\n"), empty},
        {SPAN(TYPE "X-Sendfile: a\tb\n\n"), control},
        {SPAN(TYPE "X-Sendfile: a\rb\n\n"), "bad: a control character in a field's value"},
        {SPAN(TYPE "X-Sendfile: a\0b\n\n"), "bad: a control character in a field's value"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void takes_one_type(void **state)
{
    const struct row rows[] = {
        {SPAN(TYPE "content-type: text/plain\n\n"), "200() +52|Content-Type=text/plain"},
        {SPAN(TYPE "Content-Type: text/html\n\n"), "bad: two different Content-Types"},
        {SPAN(TYPE "Content-Type:\n\n"), "bad: two different Content-Types"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void refuses_lines(void **state)
{
    static const char control[] = "bad: a control character in a field's value";
    static const char neither[] = "bad: neither Content-Type nor Location nor Status";
    const struct row rows[] = {
        {SPAN("hello, this is no header block\nhello, this is no header block\n"), "bad: a field line without a colon"},
        {SPAN(OK "this line has no colon\r\nX-After: 1\r\n\r\n"), "bad: a field line without a colon"},
        {SPAN(TYPE "NoColon\r\n\r\nhello"), "bad: a field line without a colon"},
        {SPAN("PHP Warning:  foo\n\n"), "bad: white space in a field's name"},
        {SPAN(OK "X-Before : 1\r\n\r\n"), "bad: white space in a field's name"},
        {SPAN(OK "X-Before\t: 1\r\n\r\n"), "bad: white space in a field's name"},
        {SPAN(OK "Bad Name: 1\r\n\r\n"), "bad: white space in a field's name"},
        {SPAN("<html>: x\n\n"), "bad: a field's name is no token"},
        {SPAN("Caf\xc3\xa9: x\n\n"), "bad: a field's name is no token"},
        {SPAN("X\0Y: x\n\n"), "bad: a field's name is no token"},
        {SPAN("X\rY: x\n\n"), "bad: a field's name is no token"},
        {SPAN(TYPE ": a\r\n\r\nhello"), "bad: a field without a name"},
        {SPAN(TYPE ":\r\n\r\n"), "bad: a field without a name"},
        {SPAN(OK "X-Fold: one\r\n two\r\nX-After: 1\r\n\r\n"), "bad: a folded field line"},
        {SPAN(OK "X-Fold: one\n\ttwo: three\n\n"), "bad: a folded field line"},
        {SPAN(" Content-Type: text/plain\n\n"), "bad: a folded field line"},
        {SPAN(TYPE " \r\n\r\n"), "bad: a folded field line"},
        {SPAN(OK "X-Nul: a\0b\r\nX-After: 1\r\n\r\n"), control},
        {SPAN(OK "X-Cr: a\rSet-Cookie: evil=1\r\nX-After: 1\r\n\r\n"), control},
        {SPAN(OK "X-Cr: a\r\r\n\r\n"), control},
        {SPAN(OK "X: a\x01 b\r\n\r\n"), control},
        {SPAN(OK "X: a\x1b[2J\r\n\r\n"), control},
        {SPAN(OK "X: a\x7f\r\n\r\n"), control},
        {SPAN("Status: 200 O\0K\n\n"), control},
        {SPAN(TYPE "\r\r\n\r\n"), "bad: a field line without a colon"},
        {SPAN("\r\n" TYPE "\r\n"), "bad: an empty head"},
        {SPAN("\nhello"), "bad: an empty head"},
        {SPAN("X-A: 1\r\n\r\nhello"), neither},
        {SPAN("Content-Length: 5\r\n\r\nhello"), neither},
        {SPAN("Transfer-Encoding: chunked\r\n\r\n"), neither},
    };

    (void)state;
    CHECK_ROWS(rows);
}

static void waits_for_the_end(void **state)
{
    const struct row rows[] = {
        {SPAN(""), "more"},
        {SPAN("\r"), "more"},
        {SPAN("Content-Type: text/plain\r\n"), "more"},
        {SPAN("Content-Type: text/plain\r\n\r"), "more"},
        {SPAN("Content-Type: text/plain\r\nX-Cut: ye"), "more"},
        {SPAN("no colon and no end of the line either"), "more"},
        {SPAN("HTTP/1.1 200"), "more"},
    };

    (void)state;
    CHECK_ROWS(rows);
}

/* The interim head is one head, the final one behind it the next. */
static void reads_interim_heads(void **state)
{
    static const char output[] = "Status: 100 Continue\r\n\r\n"
                                 "Status: 103 Early Hints\r\nLink: </a>\r\n\r\n" OK "\r\nok\n";
    static const char *const expected[] = {
        "100!(Continue) +24",
        "103!(Early Hints) +39|Link=</a>",
        "200!(OK) +44|Content-Type=text/plain",
    };
    struct span rest = {output, sizeof output - 1};

    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct reply reply;

        check(rest, expected[i]);
        reply_init(&reply);
        assert_int_equal(reply_read(&reply, rest.at, rest.len), REPLY_DONE);
        rest.at += reply.len;
        rest.len -= reply.len;
    }
    assert_int_equal(rest.len, 3);
}

/* Each of the 256 bytes in a name and in a value. */
static void knows_every_byte(void **state)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char name[] = "Status: 200\nX?: 1\n\n", value[] = "Status: 200\nX: a?b\n\n";
        bool is_token = byte != 0 && strchr(token, byte) != NULL;
        bool is_text = byte == '\t' || (byte >= ' ' && byte != 0x7f);
        struct reply reply;

        *strchr(name, '?') = (char)byte;
        reply_init(&reply);
        /* A colon ends the name, so the line is fine; a LF leaves a line without one. */
        assert_int_equal(reply_read(&reply, name, sizeof name - 1), is_token || byte == ':' ? REPLY_DONE : REPLY_BAD);
        *strchr(value, '?') = (char)byte;
        reply_init(&reply);
        assert_int_equal(reply_read(&reply, value, sizeof value - 1), is_text ? REPLY_DONE : REPLY_BAD);
    }
}

/* A head with one field of such a length that it has `len` bytes. */
static void append_head(struct buffer *to, size_t len)
{
    size_t start = buffer_len(to);

    buffer_printf(to, TYPE "X: ");
    while (buffer_len(to) - start < len - 4)
        buffer_append(to, "v", 1);
    buffer_printf(to, "\r\n\r\n");
}

static void check_long_head(size_t len, size_t step, enum reply_result expected)
{
    struct buffer output = {0};
    struct reply reply;
    enum reply_result result = REPLY_MORE;

    append_head(&output, len);
    reply_init(&reply);
    for (size_t n = step; result == REPLY_MORE; n += step) {
        bool all = n >= buffer_len(&output);

        result = reply_read(&reply, buffer_at(&output), all ? buffer_len(&output) : n);
        assert_true(!all || result != REPLY_MORE);
    }
    assert_int_equal(result, expected);
    if (result == REPLY_DONE)
        assert_int_equal(reply.len, len);
    else
        assert_string_equal(reply.why, "a head longer than 65536 bytes");
    buffer_free(&output);
}

static void bounds_the_head(void **state)
{
    static const size_t steps[] = {1, 2, 4096, 65535, 65536, 1 << 20};

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        check_long_head(REPLY_MAX_HEAD - 1, steps[i], REPLY_DONE);
        check_long_head(REPLY_MAX_HEAD, steps[i], REPLY_DONE);
        check_long_head(REPLY_MAX_HEAD + 1, steps[i], REPLY_BAD);
        check_long_head((size_t)REPLY_MAX_HEAD * 4, steps[i], REPLY_BAD);
    }
}

/* Neither lines without an end nor lines without number are waited for. */
static void bounds_what_it_waits_for(void **state)
{
    struct buffer output = {0};
    struct reply reply;

    (void)state;
    memset(buffer_reserve(&output, REPLY_MAX_HEAD), 'a', REPLY_MAX_HEAD);
    buffer_added(&output, REPLY_MAX_HEAD);
    reply_init(&reply);
    assert_int_equal(reply_read(&reply, buffer_at(&output), REPLY_MAX_HEAD - 1), REPLY_MORE);
    assert_int_equal(reply_read(&reply, buffer_at(&output), REPLY_MAX_HEAD), REPLY_BAD);

    buffer_clear(&output);
    for (unsigned i = 0; i < REPLY_MAX_FIELDS; i++)
        buffer_printf(&output, "Set-Cookie: %u\n", i);
    reply_init(&reply);
    assert_int_equal(reply_read(&reply, buffer_at(&output), buffer_len(&output)), REPLY_MORE);
    buffer_printf(&output, "Set-Cookie: x\n");
    assert_int_equal(reply_read(&reply, buffer_at(&output), buffer_len(&output)), REPLY_BAD);
    assert_string_equal(reply.why, "more than 256 fields");
    buffer_free(&output);
}

static void takes_as_many_fields_as_there_is_room_for(void **state)
{
    struct buffer output = {0};
    struct reply reply;

    (void)state;
    buffer_printf(&output, "HTTP/1.1 200 OK\nContent-Type: a/b\n");
    for (unsigned i = 1; i < REPLY_MAX_FIELDS; i++)
        buffer_printf(&output, "Set-Cookie: %u\n", i);
    buffer_printf(&output, "\n");
    reply_init(&reply);
    assert_int_equal(reply_read(&reply, buffer_at(&output), buffer_len(&output)), REPLY_DONE);
    assert_int_equal(reply.n_fields, REPLY_MAX_FIELDS);
    assert_true(span_is(reply.fields[REPLY_MAX_FIELDS - 1].value, SPAN("255")));
    buffer_free(&output);
}

static void bounds_options(void **state)
{
    (void)state;
    for (unsigned n = 31; n <= 33; n++) {
        struct buffer output = {0};
        struct reply reply;

        buffer_printf(&output, TYPE "O1: x\nConnection: ");
        for (unsigned i = 0; i < n; i++)
            buffer_printf(&output, ", O%u", i);
        buffer_printf(&output, "\n\n");
        reply_init(&reply);
        assert_int_equal(reply_read(&reply, buffer_at(&output), buffer_len(&output)), n <= 32 ? REPLY_DONE : REPLY_BAD);
        if (n <= 32)
            assert_int_equal(reply.n_fields, 1);
        buffer_free(&output);
    }
}

static void stays_bad(void **state)
{
    static const char output[] = "no colon\n" TYPE "\r\n";
    struct reply reply;

    (void)state;
    reply_init(&reply);
    assert_int_equal(reply_read(&reply, output, 9), REPLY_BAD);
    assert_int_equal(reply_read(&reply, output, sizeof output - 1), REPLY_BAD);
    reply_init(&reply);
    assert_int_equal(reply_read(&reply, output + 9, sizeof output - 10), REPLY_DONE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_heads),
        cmocka_unit_test(accepts_status),
        cmocka_unit_test(refuses_status),
        cmocka_unit_test(takes_status_line),
        cmocka_unit_test(tells_redirects),
        cmocka_unit_test(reads_length),
        cmocka_unit_test(keeps_the_hop_to_itself),
        cmocka_unit_test(takes_sendfile),
        cmocka_unit_test(takes_one_type),
        cmocka_unit_test(refuses_lines),
        cmocka_unit_test(waits_for_the_end),
        cmocka_unit_test(reads_interim_heads),
        cmocka_unit_test(knows_every_byte),
        cmocka_unit_test(bounds_the_head),
        cmocka_unit_test(bounds_what_it_waits_for),
        cmocka_unit_test(takes_as_many_fields_as_there_is_room_for),
        cmocka_unit_test(bounds_options),
        cmocka_unit_test(stays_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
