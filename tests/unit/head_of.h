/* A head that has nothing but fields, for what reads those only. Include behind cmocka.h. */
#ifndef GATEHOUSE_TESTS_HEAD_OF_H
#define GATEHOUSE_TESTS_HEAD_OF_H

#include "http/grammar.h"
#include "http/head.h"

enum { HEAD_OF_MOST = 64 };

/* The fields of a text, "Name: value" a line, lines parted by LF. It lives until the next call. */
static inline const struct head *head_of(const char *text)
{
    static struct field fields[HEAD_OF_MOST];
    static struct head head;
    struct span rest = span_of(text);

    head = (struct head){.method = METHOD_GET, .fields = fields};
    while (rest.len > 0) {
        const char *end = memchr(rest.at, '\n', rest.len);
        struct span line = {rest.at, end != NULL ? (size_t)(end - rest.at) : rest.len};
        size_t name_len;

        assert_null(grammar_field_line(line, &name_len));
        assert_true(head.n_fields < HEAD_OF_MOST);
        fields[head.n_fields++] = (struct field){{line.at, name_len}, grammar_trim(span_from(line, name_len + 1))};
        rest = span_from(rest, end != NULL ? line.len + 1 : line.len);
    }
    return &head;
}

#endif
