/*
 * What a request says of the representation that it wants: Range, the preconditions, Accept-Encoding. The first byte of
 * the input chooses the size, the second the validators; then a field a line, whose first byte chooses the name.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "http/accept.h"
#include "http/condition.h"
#include "http/grammar.h"
#include "http/range.h"

enum { MOST_FIELDS = 12, THEN = 784111777 };

static const struct {
    char letter;
    struct span name;
} names[] = {
    {'A', {"Accept-Encoding", 15}},
    {'I', {"If-Range", 8}},
    {'M', {"If-Match", 8}},
    {'N', {"If-None-Match", 13}},
    {'R', {"Range", 5}},
    {'S', {"If-Modified-Since", 17}},
    {'U', {"If-Unmodified-Since", 19}},
    {'a', {"accept-encodinG", 15}},
    {'r', {"rangE", 5}},
};

static const uint64_t sizes[] = {0, 1, 2, 9, 10, 100, 65536, 4294967296, INT64_MAX, UINT64_MAX};

static const struct validators validators[] = {
    {{"\"a\"", 3}, THEN, 1795000000}, {{"W/\"a\"", 5}, THEN, THEN + 1},
    {{"", 0}, THEN, 1795000000},      {{"", 0}, THEN, THEN},
    {{"\"a,b\\\"", 6}, THEN, THEN},   {{"\"\"", 2}, -1, 0},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span name_of(char choice)
{
    for (size_t i = 0; i < COUNT(names); i++)
        if (names[i].letter == choice)
            return names[i].name;
    return names[(unsigned char)choice % COUNT(names)].name;
}

/* The fields of the lines, each value in memory of its own, whose end is the value's, too. */
static void make_head(struct head *head, struct span lines)
{
    while (lines.len > 0 && head->n_fields < MOST_FIELDS) {
        const char *end = memchr(lines.at, '\n', lines.len);
        struct span line = {lines.at, end != NULL ? (size_t)(end - lines.at) : lines.len};

        lines = span_from(lines, end != NULL ? line.len + 1 : line.len);
        if (line.len == 0 || !grammar_is_all(span_from(line, 1), CHAR_TEXT))
            continue;
        struct span value = grammar_trim(span_from(line, 1));
        char *copy = memory_resize(NULL, value.len + 1);

        memcpy(copy + 1, value.at, value.len);
        head->fields[head->n_fields++] = (struct field){name_of(line.at[0]), {copy + 1, value.len}};
    }
}

static unsigned count(const struct head *head, struct span name)
{
    unsigned n = 0;

    for (unsigned i = 0; i < head->n_fields; i++)
        n += span_is_nocase(head->fields[i].name, name);
    return n;
}

static void check_range(const struct head *head, uint64_t size)
{
    struct ranges ranges, again;
    enum range_result result = range_read(head, size, &ranges);
    uint64_t left = size;

    assert(range_read(head, size, &again) == result);
    assert(count(head, SPAN("Range")) == 1 || result == RANGE_WHOLE);
    if (result == RANGE_UNSATISFIABLE) /* then it would be of any smaller one, too */
        assert(range_read(head, 0, &again) == RANGE_UNSATISFIABLE && range_read(head, size / 2, &again) == result);
    if (result != RANGE_PARTS)
        return;
    assert(ranges.n > 0 && ranges.n <= RANGE_MOST && again.n == ranges.n);
    for (unsigned i = 0; i < ranges.n; i++) {
        struct range range = ranges.at[i];

        assert(range.first == again.at[i].first && range.last == again.at[i].last);
        assert(range.first <= range.last && range.last < size);
        assert(range.last - range.first < left);
        left -= range.last - range.first + 1;
    }
}

static void check_condition(const struct head *head, const struct validators *of)
{
    enum condition condition = condition_decide(head, of);
    bool allows = condition_allows_range(head, of);
    unsigned n_if_range = count(head, SPAN("If-Range"));

    assert(condition_decide(head, of) == condition && condition_allows_range(head, of) == allows);
    if (condition == CONDITION_NOT_MODIFIED)
        assert(count(head, SPAN("If-None-Match")) > 0 || count(head, SPAN("If-Modified-Since")) == 1);
    if (condition == CONDITION_FAILED)
        assert(count(head, SPAN("If-Match")) > 0 || count(head, SPAN("If-Unmodified-Since")) == 1);
    assert(n_if_range == 0 ? allows : n_if_range == 1 || !allows);
    if (n_if_range > 0 && (of->etag.len == 0 || span_starts(of->etag, SPAN("W/"))))
        assert(!allows || of->modified < of->now);
}

static void check_accept(const struct head *head)
{
    unsigned identity = accept_identity(head), gzip = accept_encoding(head, SPAN("gzip"));

    assert(identity <= 1000 && gzip <= 1000 && accept_encoding(head, SPAN("br")) <= 1000);
    assert(accept_identity(head) == identity && accept_encoding(head, SPAN("X-GZIP")) == gzip);
    assert(count(head, SPAN("Accept-Encoding")) > 0 || (identity == 1000 && gzip == 0));
}

/* The order of the fields means nothing. */
static void check_order(const struct head *head, const struct validators *of, uint64_t size)
{
    struct field fields[MOST_FIELDS];
    struct head reversed = {.fields = fields, .n_fields = head->n_fields};
    struct ranges ranges;

    for (unsigned i = 0; i < head->n_fields; i++)
        fields[i] = head->fields[head->n_fields - 1 - i];
    assert(condition_decide(&reversed, of) == condition_decide(head, of));
    assert(condition_allows_range(&reversed, of) == condition_allows_range(head, of));
    assert(range_read(&reversed, size, &ranges) == range_read(head, size, &ranges));
    assert(accept_identity(&reversed) == accept_identity(head));
    assert(accept_encoding(&reversed, SPAN("gzip")) == accept_encoding(head, SPAN("gzip")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct field fields[MOST_FIELDS];
    struct head head = {.method = METHOD_GET, .fields = fields};
    const struct validators *of;
    uint64_t of_size;

    if (size < 2)
        return 0;
    of_size = sizes[data[0] % COUNT(sizes)];
    of = &validators[data[1] % COUNT(validators)];
    make_head(&head, (struct span){(const char *)data + 2, size - 2});
    check_range(&head, of_size);
    check_condition(&head, of);
    check_accept(&head);
    check_order(&head, of, of_size);
    for (unsigned i = 0; i < head.n_fields; i++)
        free((char *)(uintptr_t)(fields[i].value.at - 1));
    return 0;
}
