/*
 * One step a byte of framing, one span a piece of data. Strict where readers differ, since what one takes for data
 * another takes for the next request: CR LF alone ends a line, a size is nothing but digits, and white space stands
 * only where the grammar has BWS - before and behind the ";" and "=" of an extension, never before the line's end.
 *
 *     SIZE ──CR──> SIZE_LF ──LF──> DATA ──> DATA_CR ──> DATA_LF ──> FIRST_DIGIT
 *      └─;─> extensions ─CR─┘  └─ size 0 ─> TRAILER ──CR──> END_LF ──LF──> END
 */
#include "http/chunked.h"

#include <stdbool.h>

#include "http/grammar.h"

enum {
    MAX_DIGITS = 16,
    MAX_EXTENSIONS = 4096,
    FREE_FRAMING = 16, /* bytes a chunk: the usual size and the two line ends */
};

enum state {
    FIRST_DIGIT,
    SIZE,
    BEFORE_EXTENSION, /* white space: a ";" has to come */
    BEFORE_NAME,
    NAME,
    BEHIND_NAME, /* white space: a "=" or ";" has to come */
    BEFORE_VALUE,
    VALUE,
    QUOTED,
    ESCAPED,
    BEHIND_QUOTED,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* the first byte of a line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    END,
    BAD,
};

void chunked_init(struct chunked *c, const struct chunked_limits *limits)
{
    *c = (struct chunked){.state = FIRST_DIGIT, .limits = *limits, .overhead = -FREE_FRAMING};
}

static enum state bad(struct chunked *c, const char *why)
{
    c->why = why;
    c->status = 400;
    return BAD;
}

static enum state size_byte(struct chunked *c, char byte)
{
    int digit = grammar_hex(byte);

    if (digit >= 0) {
        if (++c->digits > MAX_DIGITS)
            return bad(c, "a chunk size of too many digits");
        c->left = c->left << 4 | (uint64_t)digit;
        return SIZE;
    }
    if (c->state == FIRST_DIGIT)
        return bad(c, "a chunk without a size");
    if (byte == ';')
        return BEFORE_NAME;
    if (grammar_is_blank(byte))
        return BEFORE_EXTENSION;
    return byte == '\r' ? SIZE_LF : bad(c, "a chunk size that is no number");
}

/* What may stand behind an extension's end; white space there needs another extension to follow. */
static enum state extension_end(struct chunked *c, char byte)
{
    if (byte == ';')
        return BEFORE_NAME;
    if (grammar_is_blank(byte))
        return BEFORE_EXTENSION;
    return byte == '\r' ? SIZE_LF : bad(c, "a bad chunk extension");
}

/* RFC 9112 section 7.1.1: *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) */
static enum state extension_byte(struct chunked *c, char byte)
{
    bool is_token = grammar_is(byte, CHAR_TOKEN), is_blank = grammar_is_blank(byte);

    switch (c->state) {
    case BEFORE_EXTENSION:
        return is_blank ? BEFORE_EXTENSION : byte == ';' ? BEFORE_NAME : bad(c, "white space behind a chunk size");
    case BEFORE_NAME:
        return is_token ? NAME : is_blank ? BEFORE_NAME : bad(c, "a chunk extension without a name");
    case NAME:
        if (is_token)
            return NAME;
        return byte == '=' ? BEFORE_VALUE : is_blank ? BEHIND_NAME : extension_end(c, byte);
    case BEHIND_NAME:
        if (byte == '=')
            return BEFORE_VALUE;
        return is_blank ? BEHIND_NAME : byte == ';' ? BEFORE_NAME : bad(c, "white space behind a chunk extension");
    case BEFORE_VALUE:
        if (byte == '"')
            return QUOTED;
        return is_token ? VALUE : is_blank ? BEFORE_VALUE : bad(c, "a chunk extension without a value");
    case VALUE:
        return is_token ? VALUE : extension_end(c, byte);
    case QUOTED:
        if (byte == '"')
            return BEHIND_QUOTED;
        if (byte == '\\')
            return ESCAPED;
        return grammar_is(byte, CHAR_TEXT) ? QUOTED : bad(c, "a quoted string that does not end");
    case ESCAPED:
        return grammar_is(byte, CHAR_TEXT) ? QUOTED : bad(c, "a control character in a chunk extension");
    default:
        return extension_end(c, byte);
    }
}

static enum state trailer_byte(struct chunked *c, char byte)
{
    bool is_token = grammar_is(byte, CHAR_TOKEN);

    if (++c->trailer_len > c->limits.max_trailers) {
        bad(c, "too many trailers");
        c->status = 431; /* RFC 6585 section 5 */
        return BAD;
    }
    switch (c->state) {
    case TRAILER:
        return is_token ? TRAILER_NAME : byte == '\r' ? END_LF : bad(c, "a trailer's name is no token");
    case TRAILER_NAME:
        return is_token ? TRAILER_NAME : byte == ':' ? TRAILER_VALUE : bad(c, "a trailer's name is no token");
    case TRAILER_VALUE:
        if (grammar_is(byte, CHAR_TEXT))
            return TRAILER_VALUE;
        return byte == '\r' ? TRAILER_LF : bad(c, "a control character in a trailer");
    case TRAILER_LF:
        return byte == '\n' ? TRAILER : bad(c, "a bare CR in a trailer");
    default:
        return byte == '\n' ? END : bad(c, "a bare CR behind the trailers");
    }
}

static enum state size_end(struct chunked *c, char byte)
{
    if (byte != '\n')
        return bad(c, "a bare CR behind a chunk size");
    c->digits = 0;
    c->ext_len = 0;
    return c->left > 0 ? DATA : TRAILER;
}

/* One byte of framing. */
static enum state next(struct chunked *c, char byte)
{
    if (c->state >= TRAILER)
        return trailer_byte(c, byte);
    if (++c->overhead > (int64_t)c->limits.max_overhead)
        return bad(c, "more framing than data");
    switch (c->state) {
    case FIRST_DIGIT:
    case SIZE:
        return size_byte(c, byte);
    case SIZE_LF:
        return size_end(c, byte);
    case DATA_CR:
        return byte == '\r' ? DATA_LF : bad(c, "a chunk that is longer than its size");
    case DATA_LF:
        c->overhead -= FREE_FRAMING;
        return byte == '\n' ? FIRST_DIGIT : bad(c, "a bare CR behind a chunk");
    default:
        return ++c->ext_len > MAX_EXTENSIONS ? bad(c, "chunk extensions that are too long") : extension_byte(c, byte);
    }
}

static void take_data(struct chunked *c, struct span *input, struct span *data_out)
{
    size_t n = input->len < c->left ? input->len : (size_t)c->left;

    *data_out = (struct span){input->at, n};
    *input = span_from(*input, n);
    c->left -= n;
    c->overhead -= (int64_t)n;
    if (c->left == 0)
        c->state = DATA_CR;
}

enum chunked_result chunked_read(struct chunked *c, struct span *input, struct span *data_out)
{
    while (c->state != END && c->state != BAD && input->len > 0) {
        if (c->state == DATA) {
            take_data(c, input, data_out);
            return CHUNKED_DATA;
        }
        c->state = next(c, input->at[0]);
        *input = span_from(*input, 1);
    }
    return c->state == END ? CHUNKED_END : c->state == BAD ? CHUNKED_BAD : CHUNKED_MORE;
}
