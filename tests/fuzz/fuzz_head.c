/*
 * The head of a request: read whole, cut in two, and byte by byte, it must come to the same verdict and the same
 * fields, and what it lets pass must keep the promises of head.h. The first two bytes of the input choose the cut; the
 * limits are low so that they are met.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "http/authority.h"
#include "http/head.h"
#include "http/uri.h"

enum { MAX_BY_BYTE = 2048, ROOM = 20 };

static const struct head_limits limits = {.max_head = 3000, .max_target = 300, .max_field = 2000, .max_fields = 16};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same bytes, at the same place. */
static void same_span(const char *a, struct span in_a, const char *b, struct span in_b)
{
    assert(span_is(in_a, in_b));
    assert(in_a.at - a == in_b.at - b);
}

static void same(const struct head *x, const char *in_x, const struct head *y, const char *in_y)
{
    assert(x->method == y->method && x->minor == y->minor && x->form == y->form);
    assert(x->is_chunked == y->is_chunked && x->has_length == y->has_length && x->length == y->length);
    assert(x->keep_alive == y->keep_alive && x->expect_continue == y->expect_continue);
    assert(x->len == y->len && x->n_fields == y->n_fields);
    same_span(in_x, x->method_text, in_y, y->method_text);
    same_span(in_x, x->target, in_y, y->target);
    same_span(in_x, x->path_and_query, in_y, y->path_and_query);
    same_span(in_x, x->authority, in_y, y->authority);
    same_span(in_x, x->host, in_y, y->host);
    for (unsigned i = 0; i < x->n_fields; i++) {
        same_span(in_x, x->fields[i].name, in_y, y->fields[i].name);
        same_span(in_x, x->fields[i].value, in_y, y->fields[i].value);
    }
}

static void check_field(const struct field *f)
{
    struct span v = f->value;

    assert(f->name.len > 0);
    for (size_t i = 0; i < f->name.len; i++)
        assert(f->name.at[i] > ' ' && f->name.at[i] != 0x7f && strchr("\"(),/:;<=>?@[\\]{}", f->name.at[i]) == NULL);
    for (size_t i = 0; i < v.len; i++)
        assert(((unsigned char)v.at[i] >= ' ' && v.at[i] != 0x7f) || v.at[i] == '\t');
    assert(v.len == 0 || (v.at[0] != ' ' && v.at[0] != '\t' && v.at[v.len - 1] != ' ' && v.at[v.len - 1] != '\t'));
}

static unsigned count(const struct head *head, struct span name)
{
    unsigned n = 0;

    for (unsigned i = 0; i < head->n_fields; i++)
        n += span_is_nocase(head->fields[i].name, name);
    return n;
}

static void check_target(const struct head *head)
{
    char *room = memory_resize(NULL, head->path_and_query.len + 2);
    const char *why;
    struct span host;
    struct uri uri;

    assert(head->target.len > 0 && head->target.len <= limits.max_target);
    for (size_t i = 0; i < head->target.len; i++)
        assert((unsigned char)head->target.at[i] > ' ' && strchr("\"<>#\x7f", head->target.at[i]) == NULL);
    assert(head->form != TARGET_ASTERISK || (head->method == METHOD_OPTIONS && head->path_and_query.len == 0));
    assert(head->form != TARGET_ORIGIN || head->path_and_query.at[0] == '/');
    assert(head->authority.len > 0 || head->minor == 0);
    assert(head->authority.len == 0 || (authority_read(head->authority, &host) == NULL && span_is(host, head->host)));
    assert(count(head, SPAN("Host")) == 1 || (count(head, SPAN("Host")) == 0 && head->minor == 0));
    if (uri_read(&uri, head->path_and_query, room, &why) == 0)
        assert(uri.path.at[0] == '/' && memchr(uri.path.at, '\0', uri.path.len) == NULL);
    free(room);
}

/* What head.h promises of a head that is done. */
static void check_head(const struct head *head, const char *bytes, size_t len)
{
    const struct field *length = head_field(head, SPAN("Content-Length"));
    unsigned n_framing = count(head, SPAN("Content-Length")) + count(head, SPAN("Transfer-Encoding"));
    struct span whole = {bytes, head->len};

    assert(head->len <= len && head->len <= limits.max_head && span_ends(whole, SPAN("\r\n\r\n")));
    assert(memmem(head->target.at, (size_t)(bytes + head->len - head->target.at), "\r\n\r\n", 4) ==
           bytes + head->len - 4);
    assert(head->n_fields <= limits.max_fields);
    assert(n_framing == (head->is_chunked || head->has_length ? 1 : 0) && !(head->is_chunked && head->has_length));
    assert(head->has_length == (length != NULL) && head->length <= INT64_MAX);
    assert(length == NULL || strtoull(length->value.at, NULL, 10) == head->length);
    assert(head->minor == 1 || (head->minor == 0 && !head->is_chunked && !head->expect_continue));
    assert(!head->keep_alive || !head_has_token(head, SPAN("Connection"), SPAN("close")));
    check_target(head);
    for (unsigned i = 0; i < head->n_fields; i++)
        check_field(&head->fields[i]);
}

/* Reads in pieces, each time from memory of just the size that has come; *copy_out holds the last. */
static enum head_result read_pieces(struct head *head, struct field *fields, const char *bytes, size_t len,
                                    size_t first, size_t step, char **copy_out)
{
    enum head_result result;
    char *copy = NULL;

    head_init(head, fields, ROOM);
    for (size_t have = first;; have = have + step < len ? have + step : len) {
        free(copy);
        copy = memory_resize(NULL, have + 1);
        memcpy(copy + 1, bytes, have); /* so that its end is the allocation's, too */
        result = head_read(head, &limits, copy + 1, have);
        if (result != HEAD_MORE || have == len)
            break;
    }
    *copy_out = copy;
    return result;
}

static void compare(enum head_result expected, const struct head *whole, const char *in_whole, const char *bytes,
                    size_t len, size_t first, size_t step)
{
    static struct field fields[ROOM];
    struct head cut;
    char *in_cut;
    enum head_result result = read_pieces(&cut, fields, bytes, len, first, step, &in_cut);

    assert(result == expected);
    assert(result != HEAD_REFUSED || (whole->status == cut.status && whole->why == cut.why));
    if (result == HEAD_DONE)
        same(whole, in_whole, &cut, in_cut);
    free(in_cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct field fields[ROOM];
    struct head whole;
    char *in_whole;
    enum head_result expected;
    const char *bytes;
    size_t len;

    if (size < 2)
        return 0;
    bytes = (const char *)data + 2;
    len = size - 2;
    expected = read_pieces(&whole, fields, bytes, len, len, len, &in_whole);
    if (expected == HEAD_DONE)
        check_head(&whole, in_whole + 1, len);
    if (expected == HEAD_REFUSED) /* and nothing legal is lost to the library */
        assert(whole.status >= 400 && strstr(whole.why, "library") == NULL);
    compare(expected, &whole, in_whole, bytes, len, ((size_t)data[0] << 8 | data[1]) % (len + 1), len);
    compare(expected, &whole, in_whole, bytes, len, 0, len / MAX_BY_BYTE + 1);
    free(in_whole);
    return 0;
}
