#include "http/accept.h"

#include "http/grammar.h"

enum { NOT_SAID = -1, MOST = 1000 };

/* A qvalue (RFC 9110 section 12.4.2) in thousandths, or -1: it is none. */
static int read_qvalue(struct span s)
{
    int value = 0;

    if (s.len == 0 || s.len > 5 || (s.len > 1 && s.at[1] != '.'))
        return -1;
    for (size_t i = 0; i < 5; i++) {
        char c = i < s.len ? s.at[i] : '0';

        if (i == 1)
            continue; /* the point */
        if (!grammar_is_digit(c))
            return -1;
        value = value * 10 + (c - '0');
    }
    return value <= MOST ? value : -1;
}

/* One member, coding [ OWS ";" OWS "q=" qvalue ]: its weight, or -1: it is outside the grammar. */
static int read_member(struct span member, struct span *coding_out)
{
    size_t n = grammar_run(member, CHAR_TOKEN);
    struct span rest = grammar_trim(span_from(member, n));

    *coding_out = (struct span){member.at, n};
    if (rest.len == 0)
        return MOST;
    if (rest.at[0] != ';')
        return -1;
    rest = grammar_trim(span_from(rest, 1));
    if (!span_starts(rest, SPAN("q=")) && !span_starts(rest, SPAN("Q=")))
        return -1;
    return read_qvalue(span_from(rest, 2));
}

static struct span usual_name(struct span coding)
{
    return span_is_nocase(coding, SPAN("x-gzip")) ? SPAN("gzip") : coding; /* RFC 9110 section 8.4.1.3 */
}

static int lesser(int said, int weight)
{
    return said == NOT_SAID || weight < said ? weight : said;
}

/* What the field says of the coding, or NOT_SAID. */
static int weigh(const struct head *head, struct span coding)
{
    int own = NOT_SAID, any = NOT_SAID;

    for (unsigned i = 0; i < head->n_fields; i++) {
        struct span list = head->fields[i].value, member, name;

        if (!span_is_nocase(head->fields[i].name, SPAN("Accept-Encoding")))
            continue;
        while (grammar_list_next(&list, &member)) {
            int weight = read_member(member, &name);

            if (weight < 0)
                continue;
            if (span_is_nocase(usual_name(name), usual_name(coding)))
                own = lesser(own, weight);
            else if (span_is(name, SPAN("*")))
                any = lesser(any, weight);
        }
    }
    return own != NOT_SAID ? own : any;
}

unsigned accept_encoding(const struct head *head, struct span coding)
{
    int weight = weigh(head, coding);

    return weight == NOT_SAID ? 0 : (unsigned)weight;
}

unsigned accept_identity(const struct head *head)
{
    int weight = weigh(head, SPAN("identity"));

    return weight == NOT_SAID ? MOST : (unsigned)weight;
}
