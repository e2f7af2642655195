#include "gateway/nph.h"

#include "http/grammar.h"

enum {
    VERSION_LEN = sizeof "HTTP/1.1" - 1,
    STATUS_AT = VERSION_LEN + 1,
    STATUS_END = STATUS_AT + 3,
};

bool nph_is_name(struct span path)
{
    for (size_t i = path.len; i > 0; i--) {
        if (path.at[i - 1] == '/')
            return span_starts(span_from(path, i), SPAN("nph-"));
    }
    return span_starts(path, SPAN("nph-"));
}

void nph_init(struct nph *nph)
{
    *nph = (struct nph){.in_status_line = true};
}

/* Of the current line, which is whole; 0: it is no status line. */
static unsigned status_of(const struct nph *nph)
{
    const char *line = nph->line, *digits = line + STATUS_AT, *end = line + STATUS_END;

    if (nph->line_len <= STATUS_END || !span_starts((struct span){line, STATUS_END}, SPAN("HTTP/1.")))
        return 0;
    if (!grammar_is_digit(line[VERSION_LEN - 1]) || line[VERSION_LEN] != ' ')
        return 0;
    if (!grammar_is_digit(digits[0]) || !grammar_is_digit(digits[1]) || !grammar_is_digit(digits[2]))
        return 0;
    if (end[0] != ' ' && end[0] != '\n' && (end[0] != '\r' || end[1] != '\n'))
        return 0;
    unsigned status =
        (unsigned)(digits[0] - '0') * 100 + (unsigned)(digits[1] - '0') * 10 + (unsigned)(digits[2] - '0');
    return status >= 100 && status <= 599 ? status : 0;
}

static void end_line(struct nph *nph)
{
    bool is_empty = nph->line_len == 1 || (nph->line_len == 2 && nph->line[0] == '\r');

    if (nph->in_status_line) {
        unsigned status = status_of(nph);

        if (status == 0)
            nph->why = "does not begin with a status line, as a nph- program's response does";
        else
            nph->status = status;
        nph->in_status_line = false;
    } else if (is_empty) {
        nph->in_status_line = nph->status < 200 && nph->status != 101;
        nph->is_body = !nph->in_status_line;
    }
    nph->line_len = 0;
}

_Static_assert(NPH_MAX_LINE == 8192, "the message below says so");

/* A part of a line, its end perhaps. */
static void take_part(struct nph *nph, struct span part)
{
    for (size_t i = 0; i < part.len && nph->line_len + i < sizeof nph->line; i++)
        nph->line[nph->line_len + i] = part.at[i];
    nph->line_len += part.len;
    if (nph->in_status_line && nph->line_len > NPH_MAX_LINE)
        nph->why = "has a first line longer than 8 KiB";
}

size_t nph_read(struct nph *nph, struct span bytes)
{
    size_t used = 0;

    while (nph->why == NULL && !nph->is_body && used < bytes.len) {
        struct span rest = span_from(bytes, used);
        const char *lf = memchr(rest.at, '\n', rest.len);

        if (lf != NULL)
            rest.len = (size_t)(lf + 1 - rest.at);
        take_part(nph, rest);
        used += rest.len;
        if (lf != NULL && nph->why == NULL)
            end_line(nph);
    }
    return used;
}
