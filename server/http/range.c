#include "http/range.h"

#include "http/grammar.h"

/* One range-spec (RFC 9110 section 14.1.1), cut to the representation. */
struct spec {
    uint64_t first, end; /* end: behind the last byte; if it is satisfiable */
    bool is_satisfiable;
};

/* Takes the digits off the front of *s; false: there is none. The number has no leading zeros; 0 has no digit. */
static bool take_number(struct span *s, struct span *number_out)
{
    size_t n = 0;

    while (n < s->len && grammar_is_digit(s->at[n]))
        n++;
    *number_out = (struct span){s->at, n};
    *s = span_from(*s, n);
    while (number_out->len > 0 && number_out->at[0] == '0')
        *number_out = span_from(*number_out, 1);
    return n > 0;
}

/* Whatever their length. */
static bool is_less(struct span number, struct span than)
{
    if (number.len != than.len)
        return number.len < than.len;
    return number.len > 0 && memcmp(number.at, than.at, number.len) < 0;
}

/* Of a number beyond UINT64_MAX just that: no representation has a byte there either. */
static uint64_t value_of(struct span number)
{
    uint64_t value = 0;

    for (size_t i = 0; i < number.len; i++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(number.at[i] - '0'), &value))
            return UINT64_MAX;
    }
    return value;
}

/* False: outside the grammar, or the last position is before the first. */
static bool read_spec(struct span s, uint64_t size, struct spec *out)
{
    struct span first, last;
    bool has_first = take_number(&s, &first), has_last;

    if (s.len == 0 || s.at[0] != '-')
        return false;
    s = span_from(s, 1);
    has_last = take_number(&s, &last);
    if (s.len > 0 || (has_first ? has_last && is_less(last, first) : !has_last))
        return false;
    if (has_first) {
        *out = (struct spec){.first = value_of(first), .end = size};
        if (has_last && value_of(last) < size)
            out->end = value_of(last) + 1;
        out->is_satisfiable = out->first < size;
    } else {
        uint64_t n = value_of(last);

        *out = (struct spec){.first = n < size ? size - n : 0, .end = size, .is_satisfiable = n > 0};
    }
    return true;
}

/* The range-set of the only Range field. */
static bool find_set(const struct head *head, struct span *set_out)
{
    const struct span unit = SPAN("bytes=");
    const struct field *only = head_only_field(head, SPAN("Range"));

    if (only == NULL || only->value.len < unit.len || !span_is_nocase((struct span){only->value.at, unit.len}, unit))
        return false;
    *set_out = span_from(only->value, unit.len);
    return true;
}

enum range_result range_read(const struct head *head, uint64_t size, struct ranges *out)
{
    struct span set, member;
    uint64_t left = size;
    unsigned n_asked = 0;

    out->n = 0;
    if (!find_set(head, &set))
        return RANGE_WHOLE;
    while (grammar_list_next(&set, &member)) {
        struct spec spec;

        if (n_asked++ == RANGE_MOST || !read_spec(member, size, &spec))
            return RANGE_WHOLE;
        if (!spec.is_satisfiable)
            continue;
        if (size == 0 || spec.end - spec.first > left) /* of nothing, the last bytes are the whole: there is no 206 */
            return RANGE_WHOLE;
        left -= spec.end - spec.first;
        out->at[out->n++] = (struct range){spec.first, spec.end - 1};
    }
    if (n_asked == 0)
        return RANGE_WHOLE;
    return out->n > 0 ? RANGE_PARTS : RANGE_UNSATISFIABLE;
}
