/* The head of a request: every row is read whole, cut in two at each place, and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "http/head.h"

enum { ROOM = 100, MAX_HEAD = 16384, MAX_TARGET = 8000 };

static const struct head_limits usual = {MAX_HEAD, MAX_TARGET, MAX_HEAD, ROOM};

struct row {
    const char *bytes;
    size_t len;
    const char *expected; /* as describe() has it */
};

#define ROW(text, expected)                                                                                            \
    {                                                                                                                  \
        "" text, sizeof(text) - 1, expected                                                                            \
    }

struct table {
    const struct row *rows;
    size_t n;
};

#define N_OF(rows)   (sizeof(rows) / sizeof((rows)[0]))
#define TABLE(rows)  ((struct CMUnitTest){#rows, test_rows, NULL, NULL, &(struct table){rows, N_OF(rows)}})

#define CRLF         "\r\n"
#define GET          "GET / HTTP/1.1" CRLF
#define GET_10       "GET / HTTP/1.0" CRLF
#define POST         "POST / HTTP/1.1" CRLF
#define HOST         "Host: a" CRLF
#define END          CRLF

#define BAD_START    "400 a request line that does not begin with a method and a space"
#define BAD_VERSION  "400 a request line that does not end in a space and HTTP/1.1"
#define BAD_LF       "400 a line that ends in LF without CR"
#define BAD_VALUE    "400 a control character in a field's value"
#define BAD_NAME     "400 a field's name is no token"
#define BAD_TARGET   "400 a target that is neither a path nor an http URI"
#define TWO_FRAMINGS "400 more than one Content-Length or Transfer-Encoding"
#define BAD_LENGTH   "400 a Content-Length that is no number"
#define HUGE_LENGTH  "413 a Content-Length beyond all numbers"

/*
 * Everything that a head says, as text: "GET / @a|Host=a". What is usual is left out: HTTP/1.1, the origin form, a path
 * and query that are the target, a host that is the authority. "+5": of the len bytes, 5 are behind it.
 */
static void describe(struct buffer *to, const struct head *h, enum head_result result, size_t len)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "OPTIONS", "other "};
    static const char *const forms[] = {"", " absolute", " asterisk"};

    buffer_clear(to);
    if (result != HEAD_DONE) {
        buffer_printf(to, result == HEAD_MORE ? "more" : "%u %s", h->status, h->why);
        buffer_append(to, "", 1);
        return;
    }
    buffer_printf(to, "%s", methods[h->method]);
    if (!span_is(h->method_text, span_of(methods[h->method])))
        buffer_append_span(to, h->method_text);
    buffer_printf(to, " %.*s%s", (int)h->target.len, h->target.at, forms[h->form]);
    if (!span_is(h->path_and_query, h->target))
        buffer_printf(to, " [%.*s]", (int)h->path_and_query.len, h->path_and_query.at);
    buffer_printf(to, " @%.*s", (int)h->authority.len, h->authority.at);
    if (!span_is(h->host, h->authority))
        buffer_printf(to, " host=%.*s", (int)h->host.len, h->host.at);
    if (h->has_length || h->length > 0)
        buffer_printf(to, " length=%llu", (unsigned long long)h->length);
    buffer_printf(to, "%s%s%s%s", h->minor == 0 ? " 1.0" : "", h->is_chunked ? " chunked" : "",
                  h->keep_alive ? "" : " close", h->expect_continue ? " continue" : "");
    for (unsigned i = 0; i < h->n_fields; i++) {
        const struct field *f = &h->fields[i];

        buffer_printf(to, "|%.*s=%.*s", (int)f->name.len, f->name.at, (int)f->value.len, f->value.at);
    }
    if (h->len != len)
        buffer_printf(to, "+%zu", len - h->len);
    buffer_append(to, "", 1);
}

/* Reads the bytes as they come, `first` of them at once and then `step` at a time, each time from memory of just the
 * size that has come. What has been read lives in *copy_out. */
static enum head_result read_pieces(struct head *head, const struct head_limits *limits, struct span bytes,
                                    size_t first, size_t step, char **copy_out)
{
    static struct field fields[ROOM];
    enum head_result result = HEAD_MORE;
    size_t have = first < bytes.len ? first : bytes.len;
    char *copy = NULL;

    head_init(head, fields, ROOM);
    for (;;) {
        free(copy);
        copy = memory_copy(bytes.at, have);
        result = head_read(head, limits, copy, have);
        if (result != HEAD_MORE || have == bytes.len)
            break;
        have = have + step < bytes.len ? have + step : bytes.len;
    }
    *copy_out = copy;
    return result;
}

static void describe_pieces(struct buffer *to, const struct head_limits *limits, struct span bytes, size_t first,
                            size_t step)
{
    struct head head;
    char *copy;
    enum head_result result = read_pieces(&head, limits, bytes, first, step, &copy);

    describe(to, &head, result, bytes.len);
    free(copy);
}

/* Whole, and however it is cut. */
static void check(const struct head_limits *limits, struct span bytes, const char *expected)
{
    size_t step = bytes.len / 1000 + 1;
    struct buffer seen = {0};

    describe_pieces(&seen, limits, bytes, bytes.len, 1);
    if (strcmp(buffer_at(&seen), expected) != 0)
        fail_msg("%.*s\n is:     %s\n not:    %s", (int)(bytes.len < 400 ? bytes.len : 400), bytes.at, buffer_at(&seen),
                 expected);
    describe_pieces(&seen, limits, bytes, 0, step);
    assert_string_equal(buffer_at(&seen), expected);
    for (size_t cut = 0; cut < bytes.len; cut += step) {
        describe_pieces(&seen, limits, bytes, cut, bytes.len);
        assert_string_equal(buffer_at(&seen), expected);
    }
    buffer_free(&seen);
}

static void test_rows(void **state)
{
    const struct table *table = *state;

    for (size_t i = 0; i < table->n; i++)
        check(&usual, (struct span){table->rows[i].bytes, table->rows[i].len}, table->rows[i].expected);
}

/* ---- the request line ---- */

static const struct row a_request[] = {
    ROW(GET HOST END, "GET / @a|Host=a"),
    ROW("HEAD /a?b HTTP/1.1" CRLF HOST END, "HEAD /a?b @a|Host=a"),
    ROW("POST /a HTTP/1.1" CRLF HOST "Content-Length: 5" CRLF END "hello",
        "POST /a @a length=5|Host=a|Content-Length=5+5"),
    ROW("OPTIONS /a HTTP/1.1" CRLF HOST END, "OPTIONS /a @a|Host=a"),
    ROW(GET_10 END, "GET / @ 1.0 close"),
    /* what follows a head is no part of it */
    ROW(GET HOST END GET HOST END, "GET / @a|Host=a+27"),
    ROW(GET HOST END "\n\0nonsense", "GET / @a|Host=a+10"),
    /* and what is not here is waited for */
    ROW("", "more"),
    ROW("\r", "more"),
    ROW("GE", "more"),
    ROW("GET / HTTP/1.1\r", "more"),
    ROW(GET HOST, "more"),
    ROW(GET HOST "\r", "more"),
    ROW(GET HOST "X: \x01", "more"),
};

static const struct row empty_lines_before[] = {
    ROW(CRLF GET HOST END, "GET / @a|Host=a"),
    ROW(CRLF CRLF GET HOST END, "GET / @a|Host=a"),
    ROW(CRLF CRLF POST "Content-Length: 1" CRLF HOST END, "POST / @a length=1|Content-Length=1|Host=a"),
    ROW(CRLF CRLF CRLF GET HOST END, "400 too many empty lines"),
    ROW("\n" GET HOST END, BAD_START),
    ROW("\r" GET HOST END, BAD_START),
    ROW(" " CRLF GET HOST END, BAD_START),
};

static const struct row line_ends[] = {
    ROW("GET / HTTP/1.1\nHost: a\n\n", BAD_LF),
    ROW("GET / HTTP/1.1\n" HOST END, BAD_LF),
    ROW(GET "Host: a\nX: y" CRLF END, BAD_LF),
    ROW(GET HOST "\n", BAD_LF),
    ROW(GET HOST "X: a\nb" CRLF END, BAD_LF),
    ROW(GET HOST "X\n: b" CRLF END, BAD_LF),
    ROW("GET /\nHTTP/1.1" CRLF HOST END, BAD_LF),
    ROW("GET / HTTP/1.1\r" HOST END, BAD_VERSION),
    ROW("GET / HTTP/1.1\r\r\n" HOST END, BAD_VERSION),
    ROW(GET HOST "A: b\rc" CRLF END, BAD_VALUE),
    ROW(GET HOST "A: b\r\r\n" END, BAD_VALUE),
    ROW(GET HOST "A:\rTransfer-Encoding: chunked" CRLF END, BAD_VALUE),
    ROW(GET HOST "\rZGET /evil: HTTP/1.1" CRLF HOST END, BAD_NAME),
    ROW(GET HOST "A\rB: c" CRLF END, BAD_NAME),
};

static const struct row bad_methods[] = {
    ROW("FOO / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("get / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("Get / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("GETT / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("GE / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("-bl / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    /* well-formed first: a line that is not one is refused as such, whatever its first word */
    ROW("PRI * HTTP/2.0" CRLF END "SM" CRLF END, "400 the target * is for OPTIONS"),
    ROW("G ET / HTTP/1.1" CRLF HOST END, "400 a target that is neither a path nor an http URI"),
    ROW("Hot diggity dogg", "400 a target that is neither a path nor an http URI"), /* before its line has ended */
    ROW("FOO /\x01 HTT", "400 a byte that no target has"),
    ROW("FOO / HTTP/1.1x" CRLF, "400 a request line that does not end in a space and HTTP/1.1"),
    ROW("FOO / HTTP/3.0" CRLF, "505 not HTTP/1"),
    ROW("CONNECT a:80 HTTP/1.1" CRLF "Host: a:80" CRLF END, "501 CONNECT: there are no tunnels"),
    ROW("CONNECT /a HTTP/1.1" CRLF HOST END, "501 CONNECT: there are no tunnels"),
    ROW("LONGLONGLONGLONGLONGLONGLONGLONGL / HTTP/1.1" CRLF HOST END, "501 a method longer than any"),
    ROW("LONGLONGLONGLONGLONGLONGLONGLONGL\x01", "501 a method longer than any"),
    ROW("LONGLONGLONGLONGLONGLONGLONGLONG / HTTP/1.1" CRLF HOST END, "501 an unknown method"),
    ROW("LONGLONGLONGLONGLONGLONGLONGLONG", "more"), ROW(" / HTTP/1.1" CRLF HOST END, BAD_START),
    ROW(" GET / HTTP/1.1" CRLF HOST END, BAD_START), ROW("GET\t/ HTTP/1.1" CRLF HOST END, BAD_START),
    ROW("GET\x0c/ HTTP/1.1" CRLF HOST END, BAD_START), ROW("GET\0 / HTTP/1.1" CRLF HOST END, BAD_START),
    ROW("GET/ HTTP/1.1" CRLF HOST END, BAD_START), ROW("G{}T / HTTP/1.1" CRLF HOST END, BAD_START),
    ROW("GET\xc3\x9f / HTTP/1.1" CRLF END, BAD_START), ROW("GET" CRLF HOST END, BAD_START),
    ROW("\x16\x03\x01", BAD_START), /* TLS */
};

static void test_other_methods(void **state)
{
    static const char *const others[] = {
        "DELETE",     "QUERY",      "PUT",       "TRACE",       "COPY",     "LOCK",   "MKCOL",  "MOVE",
        "PROPFIND",   "PROPPATCH",  "SEARCH",    "UNLOCK",      "BIND",     "REBIND", "UNBIND", "ACL",
        "REPORT",     "MKACTIVITY", "CHECKOUT",  "MERGE",       "M-SEARCH", "NOTIFY", "PATCH",  "PURGE",
        "MKCALENDAR", "LINK",       "SUBSCRIBE", "UNSUBSCRIBE", "UNLINK",   "SOURCE",
    };

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct buffer text = {0}, expected = {0};

        buffer_printf(&text, "%s / HTTP/1.1" CRLF HOST END, others[i]);
        buffer_printf(&expected, "other %s / @a|Host=a", others[i]);
        buffer_append(&expected, "", 1);
        check(&usual, buffer_span(&text), buffer_at(&expected));
        buffer_free(&text);
        buffer_free(&expected);
    }
}

static const struct row spaces[] = {
    ROW("GET  / HTTP/1.1" CRLF HOST END, "400 no target, or more than one space before it"),
    ROW("GET /  HTTP/1.1" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1.1 " CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1.1 x" CRLF HOST END, BAD_VERSION),
    ROW("GET /\tHTTP/1.1" CRLF HOST END, "400 a request line without a version"),
    ROW("GET /a b HTTP/1.1" CRLF HOST END, BAD_VERSION),
    ROW("GET " CRLF HOST END, "400 a request line without a version"),
    ROW("GET  " CRLF HOST END, "400 no target, or more than one space before it"),
    ROW("GET  HTTP/1.1" CRLF HOST END, "400 no target, or more than one space before it"),
    ROW("GET HTTP/1.1" CRLF HOST END, "400 a request line without a version"),
};

static const struct row versions[] = {
    ROW("GET / HTTP/1.2" CRLF HOST END, "GET / @a|Host=a"),
    ROW("GET / HTTP/1.9" CRLF HOST END, "GET / @a|Host=a"),
    ROW("GET / HTTP/1.2" CRLF END, "400 no Host"),
    ROW("GET / HTTP/2.0" CRLF HOST END, "505 not HTTP/1"),
    ROW("GET / HTTP/9.9" CRLF HOST END, "505 not HTTP/1"),
    ROW("GET / HTTP/0.9" CRLF HOST END, "505 not HTTP/1"),
    ROW("GET /" CRLF HOST END, "400 a request line without a version"),
    ROW("GET /" CRLF, "400 a request line without a version"),
    ROW("GET / " CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1.10" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/10.0" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/01.1" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1." CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1,1" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/.1" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/a.b" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/11" CRLF HOST END, BAD_VERSION),
    ROW("GET / http/1.1" CRLF HOST END, BAD_VERSION),
    ROW("GET / HXXX/1.1" CRLF HOST END, BAD_VERSION),
    ROW("SOURCE / ICE/1.0" CRLF HOST END, BAD_VERSION),
    ROW("GET / HTTP/1.1\0" CRLF HOST END, BAD_VERSION),
};

static const struct row targets[] = {
    ROW("GET http://b HTTP/1.1" CRLF HOST END, "GET http://b absolute [] @b|Host=a"),
    ROW("GET HTTPS://B:8/x?y HTTP/1.1" CRLF HOST END, "GET HTTPS://B:8/x?y absolute [/x?y] @B:8 host=B|Host=a"),
    ROW("GET http://[::1]:80?x HTTP/1.0" CRLF END,
        "GET http://[::1]:80?x absolute [?x] @[::1]:80 host=[::1] 1.0 close"),
    ROW("OPTIONS * HTTP/1.1" CRLF HOST END, "OPTIONS * asterisk [] @a|Host=a"),
    ROW("OPTIONS http://b:1 HTTP/1.1" CRLF HOST END, "OPTIONS http://b:1 asterisk [] @b:1 host=b|Host=a"),
    ROW("OPTIONS http://b/ HTTP/1.1" CRLF HOST END, "OPTIONS http://b/ absolute [/] @b|Host=a"),
    ROW("OPTIONS http://b? HTTP/1.1" CRLF HOST END, "OPTIONS http://b? absolute [?] @b|Host=a"),
    ROW("GET //a//b HTTP/1.1" CRLF HOST END, "GET //a//b @a|Host=a"),
    ROW("GET http://u:p@a/ HTTP/1.1" CRLF HOST END, "400 a bad port"),
    ROW("GET http://u@a/ HTTP/1.1" CRLF HOST END, "400 a bad host"),
    ROW("GET http://b/ HTTP/1.1" CRLF END, "400 no Host"),
    ROW("GET http://b/ HTTP/1.1" CRLF "Host: a b" CRLF END, "400 a bad host"),
    ROW("GET * HTTP/1.1" CRLF HOST END, "400 the target * is for OPTIONS"),
    ROW("OPTIONS *foo HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET a HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET ! HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET ?a HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET a:80 HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET http:/a HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET gopher://a/ HTTP/1.1" CRLF HOST END, BAD_TARGET),
    ROW("GET http:///x HTTP/1.1" CRLF HOST END, "400 an empty host"),
    ROW("GET http:// HTTP/1.1" CRLF HOST END, "400 an empty host"),
    ROW("GET http://a:99999/ HTTP/1.1" CRLF HOST END, "400 a bad port"),
    ROW("GET http://a#b HTTP/1.1" CRLF HOST END, "400 a bad host"),
    ROW("GET http://a\\b/ HTTP/1.1" CRLF HOST END, "400 a bad host"),
};

/* Every byte in a path, and in a query. */
static void test_target_bytes(void **state)
{
    static const char both[] = "abcxyzABCXYZ0123456789-._~!$&'()*+,;=:@/%[]|?", query_only[] = "{}^`\\";

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char in_path[] = "GET /a?b HTTP/1.1" CRLF HOST END, in_query[] = "GET /?ab HTTP/1.1" CRLF HOST END;
        bool is_both =
            (byte != 0 && strchr(both, byte) != NULL) || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
        bool is_query = is_both || (byte != 0 && strchr(query_only, byte) != NULL);
        struct head head;
        char *copy;

        if (byte == ' ') /* divides */
            continue;
        in_path[6] = in_query[7] = (char)byte;
        assert_int_equal(read_pieces(&head, &usual, (struct span){in_path, sizeof in_path - 1}, 0, 64, &copy),
                         is_both ? HEAD_DONE : HEAD_REFUSED);
        assert_int_equal(head.status, is_both ? 0 : 400);
        free(copy);
        assert_int_equal(read_pieces(&head, &usual, (struct span){in_query, sizeof in_query - 1}, 0, 64, &copy),
                         is_query ? HEAD_DONE : HEAD_REFUSED);
        assert_int_equal(head.status, is_query ? 0 : 400);
        free(copy);
    }
}

/* ---- fields ---- */

static const struct row field_lines[] = {
    ROW(GET "hOsT:a" CRLF END, "GET / @a|hOsT=a"),
    ROW(GET HOST "X: \t v \t" CRLF END, "GET / @a|Host=a|X=v"),
    ROW(GET HOST "X:" CRLF "Y: \t" CRLF END, "GET / @a|Host=a|X=|Y="),
    ROW(GET HOST "X: a\tb  c:d" CRLF END, "GET / @a|Host=a|X=a\tb  c:d"),
    ROW(GET HOST "X: \xff\x80" CRLF END, "GET / @a|Host=a|X=\xff\x80"),
    ROW(GET HOST "!#$%&'*+-.^_`|~09azAZ: y" CRLF END, "GET / @a|Host=a|!#$%&'*+-.^_`|~09azAZ=y"),
    ROW(GET "A: 1" CRLF HOST "A: 2" CRLF END, "GET / @a|A=1|Host=a|A=2"),
    /* names that only look like those that count */
    ROW(GET HOST "Transfer-Encoding-Foo: x" CRLF "Content-Length-Foo: 1" CRLF "Content_Length: 9" CRLF END,
        "GET / @a|Host=a|Transfer-Encoding-Foo=x|Content-Length-Foo=1|Content_Length=9"),
    ROW(GET HOST "X-Content-Length: 2" CRLF "Transfer_Encoding: chunked" CRLF "Hos: b" CRLF "Hosts: c" CRLF END,
        "GET / @a|Host=a|X-Content-Length=2|Transfer_Encoding=chunked|Hos=b|Hosts=c"),
    ROW(GET HOST "X : y" CRLF END, "400 white space in a field's name"),
    ROW(GET HOST "X\t: y" CRLF END, "400 white space in a field's name"),
    ROW(GET "Host : a" CRLF END, "400 white space in a field's name"),
    ROW(POST HOST "Content-Length : 5" CRLF END, "400 white space in a field's name"),
    ROW(POST HOST "Transfer-Encoding : chunked" CRLF END, "400 white space in a field's name"),
    ROW(GET HOST "Foo Bar: x" CRLF END, "400 white space in a field's name"),
    ROW(GET " Host: a" CRLF END, "400 a folded field line"),
    ROW(GET HOST "\tX: y" CRLF END, "400 a folded field line"),
    ROW(GET HOST "A: b" CRLF " c" CRLF END, "400 a folded field line"),
    ROW(GET HOST "Transfer-Encoding:" CRLF " chunked" CRLF END, "400 a folded field line"),
    ROW(GET HOST " " CRLF END, "400 a folded field line"),
    ROW(GET HOST "X" CRLF END, "400 a field line without a colon"),
    ROW(GET HOST "Content-Length 10" CRLF END, "400 a field line without a colon"),
    ROW(GET HOST ": x" CRLF END, "400 a field without a name"),
    ROW(GET HOST ":" CRLF END, "400 a field without a name"),
    ROW(GET HOST "X[: y" CRLF END, BAD_NAME),
    ROW(GET HOST "X\0: y" CRLF END, BAD_NAME),
    ROW(GET HOST "\x80: y" CRLF END, BAD_NAME),
    ROW(GET HOST "Content-Length\x85: 10" CRLF END, BAD_NAME),
    ROW(GET HOST "X: a\0b" CRLF END, BAD_VALUE),
    ROW(GET HOST "X: a\x01" CRLF END, BAD_VALUE),
    ROW(GET HOST "X: a\x0b" CRLF END, BAD_VALUE),
    ROW(GET HOST "X: a\x1f" CRLF END, BAD_VALUE),
    ROW(GET HOST "X: a\x7f" CRLF END, BAD_VALUE),
    ROW(GET HOST "X: a\x01", "more"),
    ROW(GET HOST "X: a\x01" CRLF, BAD_VALUE), /* the head need not end */
    ROW(GET HOST "Content-Type: a" CRLF END, "GET / @a|Host=a|Content-Type=a"),
    ROW(GET HOST "Content-Type: a" CRLF "Content-Type: a" CRLF END, "400 more than one Content-Type"),
};

static const struct row hosts[] = {
    ROW(GET "Host: [::1]:8080" CRLF END, "GET / @[::1]:8080 host=[::1]|Host=[::1]:8080"),
    ROW(GET_10 "Host: b:" CRLF END, "GET / @b: host=b 1.0 close|Host=b:"),
    ROW(GET END, "400 no Host"),
    ROW(GET HOST HOST END, "400 more than one Host"),
    ROW(GET HOST "host: b" CRLF END, "400 more than one Host"),
    ROW(GET_10 HOST HOST END, "400 more than one Host"),
    ROW(GET "Host:" CRLF END, "400 an empty host"),
    ROW(GET_10 "Host:" CRLF END, "400 an empty host"),
    ROW(GET "Host: :80" CRLF END, "400 a bad host"),
    ROW(GET "Host: a b" CRLF END, "400 a bad host"),
    ROW(GET "Host: a, b" CRLF END, "400 a bad host"),
    ROW(GET "Host: a/b" CRLF END, "400 a bad host"),
    ROW(GET "Host: a:b" CRLF END, "400 a bad port"),
};

/* ---- framing ---- */

static const struct row lengths[] = {
    ROW(POST HOST "Content-Length: \t5 \t" CRLF "X: y" CRLF END, "POST / @a length=5|Host=a|Content-Length=5|X=y"),
    ROW(POST HOST "X:" CRLF "Content-Length: 5" CRLF "Y: " CRLF END,
        "POST / @a length=5|Host=a|X=|Content-Length=5|Y="),
    ROW(POST HOST "cOnTeNt-lEnGtH:0" CRLF END, "POST / @a length=0|Host=a|cOnTeNt-lEnGtH=0"),
    ROW(POST HOST "Content-Length: 0000000000000000000000000000000000000010" CRLF END,
        "POST / @a length=10|Host=a|Content-Length=0000000000000000000000000000000000000010"),
    ROW(POST HOST "Content-Length: 9223372036854775807" CRLF END,
        "POST / @a length=9223372036854775807|Host=a|Content-Length=9223372036854775807"),
    ROW(POST HOST "Content-Length: 9223372036854775808" CRLF END, HUGE_LENGTH),
    ROW(POST HOST "Content-Length: 18446744073709551616" CRLF END, HUGE_LENGTH),
    ROW(POST HOST "Content-Length: 184467440737095516160" CRLF END, HUGE_LENGTH), /* wraps before its last digit */
    ROW(POST HOST "Content-Length: 99999999999999999999999999999999999999999" CRLF END, HUGE_LENGTH),
    ROW(POST HOST "Content-Length: 99999999999999999999999999999999999999999x" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length:" CRLF END, "400 an empty Content-Length"),
    ROW(POST HOST "Content-Length: -5" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: +5" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 0x5" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 1 2" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 1_0" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 5.0" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 5, 5" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: \xb2" CRLF END, BAD_LENGTH),
    ROW(POST HOST "Content-Length: 5" CRLF "Content-Length: 5" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Content-Length: 5" CRLF "content-length: 6" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Content-Length:" CRLF "Content-Length: 5" CRLF END, TWO_FRAMINGS),
};

static const struct row transfer_encodings[] = {
    ROW(POST HOST "Transfer-Encoding: chunked" CRLF END, "POST / @a chunked|Host=a|Transfer-Encoding=chunked"),
    ROW(POST "tRaNsFeR-eNcOdInG:\tChunKed \t" CRLF HOST END, "POST / @a chunked|tRaNsFeR-eNcOdInG=ChunKed|Host=a"),
    ROW(GET HOST "Transfer-Encoding: chunked" CRLF "Transfer-Encoding-Foo: x" CRLF "Y: z" CRLF END,
        "GET / @a chunked|Host=a|Transfer-Encoding=chunked|Transfer-Encoding-Foo=x|Y=z"),
    ROW(POST HOST "Transfer-Encoding: \x0b chunked" CRLF END, BAD_VALUE),
    ROW(POST HOST "Transfer-Encoding: \xa0 chunked" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: chunked\xa0" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: gzip" CRLF END, "501 an unknown transfer coding"),
    ROW(POST HOST "Transfer-Encoding: xchunked" CRLF END, "501 an unknown transfer coding"),
    ROW(POST HOST "Transfer-Encoding: identity" CRLF END, "501 an unknown transfer coding"),
    ROW(POST HOST "Transfer-Encoding: chunkedchunked" CRLF END, "501 an unknown transfer coding"),
    ROW(POST HOST "Transfer-Encoding:" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: chunked, identity" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: gzip, chunked" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: ,chunked" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: chunked," CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: chunked;q=1" CRLF END, "400 a bad Transfer-Encoding"),
    ROW(POST HOST "Transfer-Encoding: \"chunked\"" CRLF END, "400 a bad Transfer-Encoding"),
    ROW("POST / HTTP/1.0" CRLF HOST "Transfer-Encoding: chunked" CRLF END, "400 Transfer-Encoding with HTTP/1.0"),
    ROW(POST HOST "Transfer-Encoding: chunked" CRLF "Transfer-Encoding: chunked" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Transfer-Encoding: chunked" CRLF "Transfer-Encoding:" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Content-Length: 5" CRLF "Transfer-Encoding: chunked" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Transfer-Encoding: chunked" CRLF "Content-Length: 5" CRLF END, TWO_FRAMINGS),
    ROW(POST HOST "Transfer-Encoding: x" CRLF "Content-Length: 5" CRLF END, TWO_FRAMINGS),
};

/* ---- the other fields that count ---- */

static void test_connection(void **state)
{
    static const struct {
        const char *fields;
        bool keeps_10, keeps_11;
    } rows[] = {
        {"", false, true},
        {"Connection: close\r\n", false, false},
        {"Connection: CLOSE \t\r\n", false, false},
        {"Connection: foo, close\r\n", false, false},
        {"Connection: , ,close,\r\n", false, false},
        {"Connection: foo\r\nConnection: close\r\n", false, false},
        {"Connection: keep-alive\r\n", true, true},
        {"cOnNeCtIoN: x,\tKeep-Alive, y\r\n", true, true},
        {"Connection: keep-alive, close\r\n", false, false},
        {"Connection: close\r\nConnection: keep-alive\r\n", false, false},
        {"Connection: closed\r\n", false, true},
        {"Connection: close x\r\n", false, true},
        {"Connection:\r\n", false, true},
        {"Proxy-Connection: keep-alive\r\n", false, true},
        {"Connection: Upgrade\r\nUpgrade: websocket\r\n", false, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (unsigned minor = 0; minor <= 1; minor++) {
            struct buffer text = {0};
            struct head head;
            char *copy;

            buffer_printf(&text, "GET / HTTP/1.%u" CRLF HOST "%s" CRLF, minor, rows[i].fields);
            assert_int_equal(read_pieces(&head, &usual, buffer_span(&text), 0, 1, &copy), HEAD_DONE);
            assert_int_equal(head.len, buffer_len(&text));
            assert_int_equal(head.keep_alive, minor == 0 ? rows[i].keeps_10 : rows[i].keeps_11);
            free(copy);
            buffer_free(&text);
        }
    }
}

static const struct row expect[] = {
    ROW(GET HOST "Expect: 100-continue" CRLF END, "GET / @a continue|Host=a|Expect=100-continue"),
    ROW(GET HOST "expect: , 100-CONTINUE" CRLF END, "GET / @a continue|Host=a|expect=, 100-CONTINUE"),
    ROW(GET HOST "Expect:" CRLF END, "GET / @a|Host=a|Expect="),
    ROW(GET_10 "Expect: 100-continue" CRLF END, "GET / @ 1.0 close|Expect=100-continue"),
    ROW(GET_10 "Expect: x" CRLF END, "GET / @ 1.0 close|Expect=x"),
    ROW(GET HOST "Expect: x" CRLF END, "417 an unknown expectation"),
    ROW(GET HOST "Expect: 100-continue, x" CRLF END, "417 an unknown expectation"),
    ROW(GET HOST "Expect: 100-continue" CRLF "Expect: x" CRLF END, "417 an unknown expectation"),
    ROW(GET HOST "Expect: 100-continue;q" CRLF END, "417 an unknown expectation"),
    ROW(GET "Expect: x" CRLF END, "400 no Host"),
};

/* What the library would end at, or take for its own business. */
static const struct row upgrades[] = {
    ROW(POST HOST "Connection: Upgrade" CRLF "Upgrade: x" CRLF "Content-Length: 5" CRLF "Y: z" CRLF END "hello",
        "POST / @a length=5|Host=a|Connection=Upgrade|Upgrade=x|Content-Length=5|Y=z+5"),
    ROW(GET HOST "Connection: keep-alive, Upgrade" CRLF "Upgrade: h2c" CRLF END,
        "GET / @a|Host=a|Connection=keep-alive, Upgrade|Upgrade=h2c"),
};

/* ---- limits ---- */

/* before, n times c, behind */
static void fill(struct buffer *to, const char *before, size_t n, char c, const char *behind)
{
    buffer_clear(to);
    buffer_append(to, before, strlen(before));
    memset(buffer_reserve(to, n), c, n);
    buffer_added(to, n);
    buffer_append(to, behind, strlen(behind));
}

static void check_accepted(const struct head_limits *limits, const struct buffer *text)
{
    struct head head;
    char *copy;

    assert_int_equal(read_pieces(&head, limits, buffer_span(text), 0, 97, &copy), HEAD_DONE);
    assert_int_equal(head.len, buffer_len(text));
    free(copy);
}

static void test_long_targets(void **state)
{
    static const char refused[] = "414 a target that is too long";
    static const struct head_limits no_target_limit = {MAX_HEAD, MAX_HEAD, MAX_HEAD, ROOM};
    struct buffer text = {0};

    (void)state;
    fill(&text, "GET /", MAX_TARGET - 1, 'a', " HTTP/1.1" CRLF HOST END);
    check_accepted(&usual, &text);
    fill(&text, "GET /", MAX_TARGET, 'a', " HTTP/1.1" CRLF HOST END);
    check(&usual, buffer_span(&text), refused);
    fill(&text, "GET /", MAX_TARGET, 'a', "");
    check(&usual, buffer_span(&text), refused);
    fill(&text, "GET /", MAX_TARGET, 'a', "\n");
    check(&usual, buffer_span(&text), refused);
    fill(&text, "GET /", MAX_TARGET, '\x01', " HTTP/1.1" CRLF);
    check(&usual, buffer_span(&text), refused);
    fill(&text, "GET /", MAX_TARGET - 1, 'a', "\r");
    check(&usual, buffer_span(&text), refused);
    fill(&text, "GET /", MAX_TARGET - 1, 'a', "");
    check(&usual, buffer_span(&text), "more");
    fill(&text, "GET /", 100000, 'a', " HTTP/1.1" CRLF HOST END);
    check(&usual, buffer_span(&text), refused);
    check(&no_target_limit, buffer_span(&text), "414 a request line that is too long");
    fill(&text, "GET / ", 100000, 'a', CRLF HOST END);
    check(&usual, buffer_span(&text), "414 a request line that is too long");
    fill(&text, "", 100000, 'A', " / HTTP/1.1" CRLF HOST END);
    check(&usual, buffer_span(&text), "501 a method longer than any");
    buffer_free(&text);
}

static void test_long_heads(void **state)
{
    static const char refused[] = "431 a head that is too long";
    static const struct head_limits roomy = {200000, MAX_TARGET, 200000, ROOM};
    size_t rest = strlen(GET HOST "X: " CRLF END);
    struct buffer text = {0};

    (void)state;
    fill(&text, GET HOST "X: ", MAX_HEAD - rest, 'a', CRLF END);
    check_accepted(&usual, &text);
    fill(&text, GET HOST "X: ", MAX_HEAD - rest + 1, 'a', CRLF END);
    check(&usual, buffer_span(&text), refused);
    fill(&text, GET HOST "X: ", MAX_HEAD - rest + 4, 'a', ""); /* as long as can be, and not ended */
    check(&usual, buffer_span(&text), refused);
    fill(&text, GET HOST "X: ", 100000, 'a', CRLF END);
    check(&usual, buffer_span(&text), refused);
    check_accepted(&roomy, &text); /* beyond the library's own limit of 80 KiB */
    fill(&text, GET HOST, 100000, 'a', ": b" CRLF END);
    check(&usual, buffer_span(&text), refused);
    fill(&text, GET HOST "X: ", MAX_HEAD - rest, '\x01', CRLF END);
    check(&usual, buffer_span(&text), BAD_VALUE);
    fill(&text, GET HOST "X: ", MAX_HEAD, '\x01', CRLF END);
    check(&usual, buffer_span(&text), refused);
    fill(&text, "", 81000, '\n', GET HOST END);
    check(&usual, buffer_span(&text), BAD_START);
    buffer_free(&text);
}

static void test_long_fields(void **state)
{
    static const struct head_limits hundred = {MAX_HEAD, MAX_TARGET, 100, ROOM};
    struct buffer text = {0};

    (void)state;
    fill(&text, GET HOST "X: ", 97, 'a', CRLF END);
    check_accepted(&hundred, &text);
    fill(&text, GET HOST "X: ", 98, 'a', CRLF END);
    check(&hundred, buffer_span(&text), "431 a field line that is too long");
    fill(&text, GET HOST, 101, 'a', CRLF END);
    check(&hundred, buffer_span(&text), "431 a field line that is too long");
    buffer_free(&text);
}

static void test_many_fields(void **state)
{
    static const struct head_limits ten = {MAX_HEAD, MAX_TARGET, MAX_HEAD, 10},
                                    beyond = {MAX_HEAD, MAX_TARGET, MAX_HEAD, ROOM + 10};
    struct buffer text = {0};

    (void)state;
    for (unsigned n = 9; n <= ROOM + 1; n++) {
        buffer_clear(&text);
        buffer_append(&text, GET, strlen(GET));
        for (unsigned i = 1; i < n; i++)
            buffer_printf(&text, "X-%u: y" CRLF, i);
        buffer_append(&text, HOST END, strlen(HOST END));
        if (n <= 10)
            check_accepted(&ten, &text);
        else if (n == 11)
            check(&ten, buffer_span(&text), "431 too many fields");
        if (n <= ROOM)
            check_accepted(&beyond, &text);
        else
            check(&beyond, buffer_span(&text), "431 too many fields"); /* there is no room for them */
    }
    buffer_free(&text);
}

/* ---- the contract around it ---- */

static void test_refusal_is_final(void **state)
{
    struct field fields[ROOM];
    struct head head;

    (void)state;
    head_init(&head, fields, ROOM);
    assert_int_equal(head_read(&head, &usual, "HEAD / HTTP/1.0 " CRLF, 18), HEAD_REFUSED);
    assert_int_equal(head.status, 400);
    assert_int_equal(head.method, METHOD_HEAD);
    assert_int_equal(head_read(&head, &usual, GET HOST END, strlen(GET HOST END)), HEAD_REFUSED);
    assert_int_equal(head.status, 400);
}

static void test_lookups(void **state)
{
    static const char text[] = GET HOST "A: 1, two ,, three" CRLF "B:" CRLF "a: four" CRLF END;
    struct field fields[ROOM];
    struct head head;

    (void)state;
    head_init(&head, fields, ROOM);
    assert_int_equal(head_read(&head, &usual, text, sizeof text - 1), HEAD_DONE);
    assert_ptr_equal(head_field(&head, SPAN("a")), &fields[1]);
    assert_ptr_equal(head_field(&head, SPAN("B")), &fields[2]);
    assert_null(head_field(&head, SPAN("C")));
    assert_null(head_field(&head, SPAN("")));
    assert_true(head_has_token(&head, SPAN("a"), SPAN("1")));
    assert_true(head_has_token(&head, SPAN("A"), SPAN("TWO")));
    assert_true(head_has_token(&head, SPAN("A"), SPAN("three")));
    assert_true(head_has_token(&head, SPAN("A"), SPAN("four")));
    assert_false(head_has_token(&head, SPAN("A"), SPAN("thre")));
    assert_false(head_has_token(&head, SPAN("A"), SPAN("two ")));
    assert_false(head_has_token(&head, SPAN("A"), SPAN("")));
    assert_false(head_has_token(&head, SPAN("B"), SPAN("1")));
    assert_false(head_has_token(&head, SPAN("C"), SPAN("1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE(a_request),
        TABLE(empty_lines_before),
        TABLE(line_ends),
        TABLE(bad_methods),
        cmocka_unit_test(test_other_methods),
        TABLE(spaces),
        TABLE(versions),
        TABLE(targets),
        cmocka_unit_test(test_target_bytes),
        TABLE(field_lines),
        TABLE(hosts),
        TABLE(lengths),
        TABLE(transfer_encodings),
        cmocka_unit_test(test_connection),
        TABLE(expect),
        TABLE(upgrades),
        cmocka_unit_test(test_long_targets),
        cmocka_unit_test(test_long_heads),
        cmocka_unit_test(test_long_fields),
        cmocka_unit_test(test_many_fields),
        cmocka_unit_test(test_refusal_is_final),
        cmocka_unit_test(test_lookups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
