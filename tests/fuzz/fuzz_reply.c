/*
 * The head of a program's response: read whole, cut in two, and byte by byte, it must mean the same, and what it means
 * must be fit to be forwarded. The first two bytes of the input choose the cut.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "gateway/reply.h"

enum { MAX_BY_BYTE = 2048 }; /* longer ones are read in larger steps */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t offset_of(const char *base, struct span s)
{
    return s.len == 0 ? 0 : (size_t)(s.at - base);
}

static void same_span(const char *a, struct span in_a, const char *b, struct span in_b)
{
    assert(span_is(in_a, in_b));
    assert(offset_of(a, in_a) == offset_of(b, in_b));
}

static void same(enum reply_result expected, const struct reply *x, const char *in_x, enum reply_result result,
                 const struct reply *y, const char *in_y)
{
    assert(result == expected);
    assert(result != REPLY_BAD || (x->why != NULL && x->why == y->why));
    if (result != REPLY_DONE)
        return;
    assert(x->status == y->status && x->has_status == y->has_status && x->is_local == y->is_local);
    assert(x->has_length == y->has_length && x->length == y->length && x->is_chunked == y->is_chunked);
    assert(x->len == y->len && x->n_fields == y->n_fields);
    same_span(in_x, x->reason, in_y, y->reason);
    same_span(in_x, x->location, in_y, y->location);
    same_span(in_x, x->sendfile, in_y, y->sendfile);
    assert(x->has_type == y->has_type);
    for (unsigned i = 0; i < x->n_fields; i++) {
        same_span(in_x, x->fields[i].name, in_y, y->fields[i].name);
        same_span(in_x, x->fields[i].value, in_y, y->fields[i].value);
    }
}

static void check_text(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        assert((unsigned char)s.at[i] >= ' ' || s.at[i] == '\t');
}

static void check_forwardable(const struct reply *r, size_t len)
{
    assert(r->len <= len && r->len <= REPLY_MAX_HEAD && r->n_fields <= REPLY_MAX_FIELDS);
    assert(r->status >= 100 && r->status <= 599);
    assert(!r->is_local || (!r->has_status && r->location.at[0] == '/'));
    assert(!r->is_chunked || !r->has_length);
    check_text(r->reason);
    check_text(r->location);
    check_text(r->sendfile);
    assert(r->sendfile.len == 0 || memchr(r->sendfile.at, '\t', r->sendfile.len) == NULL);
    for (unsigned i = 0; i < r->n_fields; i++) {
        const struct field *f = &r->fields[i];

        assert(f->name.len > 0);
        for (size_t k = 0; k < f->name.len; k++)
            assert(f->name.at[k] > ' ' && f->name.at[k] != ':' && f->name.at[k] != 0x7f);
        check_text(f->value);
        assert(!span_is_nocase(f->name, SPAN("Connection")) && !span_is_nocase(f->name, SPAN("Transfer-Encoding")));
        assert(!span_is_nocase(f->name, SPAN("X-Sendfile")) && !span_is_nocase(f->name, SPAN("X-Request-Id")));
        assert(!span_is_nocase(f->name, SPAN("Content-Length")) && !span_is_nocase(f->name, SPAN("Status")));
    }
}

/* Reads the output in pieces, each time from memory of just the size that has come; *copy_out holds the last. */
static enum reply_result read_pieces(struct reply *r, const char *bytes, size_t len, size_t first, size_t step,
                                     char **copy_out)
{
    enum reply_result result = REPLY_MORE;
    char *copy = NULL;

    reply_init(r);
    for (size_t have = first; result == REPLY_MORE; have += step) {
        if (have > len)
            have = len;
        free(copy);
        copy = memory_resize(NULL, have + 1);
        memcpy(copy + 1, bytes, have); /* so that its end is the allocation's, too */
        result = reply_read(r, copy + 1, have);
        if (have == len)
            break;
    }
    *copy_out = copy;
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct reply whole, cut;
    char *in_whole, *in_cut;
    enum reply_result expected, result;
    const char *bytes;
    size_t len, first, step;

    if (size < 3)
        return 0;
    bytes = (const char *)data + 2;
    len = size - 2;
    first = ((size_t)data[0] << 8 | data[1]) % (len + 1);
    expected = read_pieces(&whole, bytes, len, len, len, &in_whole);
    if (expected == REPLY_DONE)
        check_forwardable(&whole, len);

    result = read_pieces(&cut, bytes, len, first, len, &in_cut);
    same(expected, &whole, in_whole, result, &cut, in_cut);
    free(in_cut);

    step = len / MAX_BY_BYTE + 1;
    result = read_pieces(&cut, bytes, len, 0, step, &in_cut);
    same(expected, &whole, in_whole, result, &cut, in_cut);
    free(in_cut);
    free(in_whole);
    return 0;
}
