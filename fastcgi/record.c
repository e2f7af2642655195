/*
 * Encoding pads every record to a multiple of 8 bytes (specification section 3.3); what it writes is laid out as
 *
 *     01 04 00 01 00 08 00 00  02 04 "hi" "you!"      version, PARAMS, id 1, 8 bytes; lengths 2 and 4, name, value
 *
 * The decoder stands either in a header (n_header below 8), in the content (content above 0), or in the padding. A
 * stream record's content is handed out where it lies, any other is kept until the record is whole, padding included:
 * behind its event the input is at the next record's first byte.
 */
#include "fastcgi/record.h"

#include <errno.h>

enum {
    VERSION = 1,
    KEEP_CONN = 1,
    END_REQUEST_BODY = 8,
};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* Sending */

static size_t padding_for(size_t content)
{
    return -content & 7;
}

static void set_header(char *at, enum record_type type, uint16_t id, size_t content)
{
    uint8_t header[RECORD_HEADER] = {
        VERSION,
        (uint8_t)type,
        (uint8_t)(id >> 8),
        (uint8_t)id,
        (uint8_t)(content >> 8),
        (uint8_t)content,
        (uint8_t)padding_for(content),
    };

    memcpy(at, header, sizeof header);
}

static void append_record(struct buffer *to, enum record_type type, uint16_t id, const void *content, size_t len)
{
    size_t padding = padding_for(len);
    char *at = buffer_reserve(to, RECORD_HEADER + len + padding);

    set_header(at, type, id, len);
    if (len > 0)
        memcpy(at + RECORD_HEADER, content, len);
    memset(at + RECORD_HEADER + len, 0, padding);
    buffer_added(to, RECORD_HEADER + len + padding);
}

void record_begin(struct buffer *to, uint16_t id, enum record_role role, bool keep_conn)
{
    uint8_t body[8] = {(uint8_t)(role >> 8), (uint8_t)role, keep_conn ? KEEP_CONN : 0};

    append_record(to, RECORD_BEGIN_REQUEST, id, body, sizeof body);
}

void record_abort(struct buffer *to, uint16_t id)
{
    append_record(to, RECORD_ABORT_REQUEST, id, NULL, 0);
}

void record_get_values(struct buffer *to)
{
    static const char pairs[] = "\x0e\0FCGI_MAX_CONNS"
                                "\x0d\0FCGI_MAX_REQS"
                                "\x0f\0FCGI_MPXS_CONNS";

    /* Padded, although its length needs none: libfcgi sees the end of the content only when something follows it. */
    static const char padding[8];
    char header[RECORD_HEADER];

    set_header(header, RECORD_GET_VALUES, 0, sizeof pairs - 1);
    header[6] = sizeof padding;
    buffer_append(to, header, sizeof header);
    buffer_append(to, pairs, sizeof pairs - 1);
    buffer_append(to, padding, sizeof padding);
}

void record_stream(struct buffer *to, enum record_type type, uint16_t id, const void *bytes, size_t len)
{
    const char *at = bytes;
    size_t n_records = len / RECORD_MAX_CONTENT + 1;

    buffer_reserve(to, len + n_records * (RECORD_HEADER + 7));
    while (len > 0) {
        size_t n = len < RECORD_MAX_CONTENT ? len : RECORD_MAX_CONTENT;

        append_record(to, type, id, at, n);
        at += n;
        len -= n;
    }
}

void record_stream_end(struct buffer *to, enum record_type type, uint16_t id)
{
    append_record(to, type, id, NULL, 0);
}

static void open_record(struct params *p)
{
    append_record(p->to, RECORD_PARAMS, p->id, NULL, 0);
    p->record = 0;
}

/* Says in the open record's header how long it has become. */
static void close_record(struct params *p)
{
    size_t padding = padding_for(p->record);

    set_header(p->to->memory + p->to->end - p->record - RECORD_HEADER, RECORD_PARAMS, p->id, p->record);
    memset(buffer_reserve(p->to, padding), 0, padding);
    buffer_added(p->to, padding);
}

void params_begin(struct params *p, struct buffer *to, uint16_t id)
{
    p->to = to;
    p->id = id;
    open_record(p);
}

static size_t length_size(size_t length)
{
    return length < 128 ? 1 : 4;
}

/* Specification section 3.4: one byte, or four with the first one's top bit set. */
static char *put_length(char *at, size_t length)
{
    uint8_t bytes[4] = {(uint8_t)length};

    if (length >= 128) {
        bytes[0] = (uint8_t)(length >> 24 | 0x80);
        bytes[1] = (uint8_t)(length >> 16);
        bytes[2] = (uint8_t)(length >> 8);
        bytes[3] = (uint8_t)length;
    }
    memcpy(at, bytes, length_size(length));
    return at + length_size(length);
}

static char *put_span(char *at, struct span s)
{
    if (s.len > 0)
        memcpy(at, s.at, s.len);
    return at + s.len;
}

int params_add(struct params *p, struct span name, struct span value)
{
    size_t len;
    char *at;

    if (name.len > RECORD_MAX_CONTENT || value.len > RECORD_MAX_CONTENT)
        return -E2BIG;
    len = length_size(name.len) + length_size(value.len) + name.len + value.len;
    if (len > RECORD_MAX_CONTENT)
        return -E2BIG;
    if (p->record + len > RECORD_MAX_CONTENT) {
        close_record(p);
        open_record(p);
    }
    at = buffer_reserve(p->to, len);
    at = put_length(at, name.len);
    at = put_length(at, value.len);
    at = put_span(at, name);
    put_span(at, value);
    buffer_added(p->to, len);
    p->record += len;
    return 0;
}

void params_end(struct params *p)
{
    /* An open record without content is the very one that ends the stream. */
    if (p->record == 0)
        return;
    close_record(p);
    open_record(p);
}

/* Receiving */

void record_reader_init(struct record_reader *r)
{
    r->n_header = r->n_body = 0;
    r->content = 0;
    r->padding = 0;
}

static bool is_stream(uint8_t type)
{
    return type >= RECORD_PARAMS && type <= RECORD_DATA;
}

static size_t at_most(size_t wanted, const struct span *input)
{
    return wanted < input->len ? wanted : input->len;
}

static struct span take(struct span *input, size_t n)
{
    struct span taken = {input->at, n};

    *input = span_from(*input, n);
    return taken;
}

/* Is the header whole now? */
static bool take_header(struct record_reader *r, struct span *input)
{
    size_t n = at_most(RECORD_HEADER - r->n_header, input);

    if (n == 0)
        return false;
    memcpy(r->header + r->n_header, take(input, n).at, n);
    r->n_header += (unsigned)n;
    if (r->n_header < RECORD_HEADER)
        return false;
    r->content = get16(r->header + 4);
    r->padding = r->header[6];
    r->n_body = 0;
    return true;
}

/* What is wrong with a whole header, or NULL. */
static const char *header_defect(const struct record_reader *r)
{
    uint8_t type = r->header[1];
    uint16_t content = get16(r->header + 4);

    if (r->header[0] != VERSION)
        return "a record of another version";
    if (type == RECORD_END_REQUEST && content != END_REQUEST_BODY)
        return "an END_REQUEST of the wrong size";
    if (!is_stream(type) && content > sizeof r->body)
        return "a record that is no stream's and too long";
    return NULL;
}

static struct record_event event_of(const struct record_reader *r, enum record_event_kind kind)
{
    return (struct record_event){.kind = kind, .type = r->header[1], .id = get16(r->header + 2)};
}

static struct record_event bad(const struct record_reader *r, const char *why)
{
    struct record_event event = event_of(r, RECORD_BAD);

    event.why = why;
    return event;
}

static struct record_event whole(const struct record_reader *r)
{
    struct record_event event = event_of(r, RECORD_WHOLE);

    event.bytes = (struct span){(const char *)r->body, r->n_body};
    if (event.type == RECORD_END_REQUEST) {
        event.app_status = get32(r->body);
        event.protocol_status = r->body[4];
    }
    return event;
}

/* A piece of a stream. The reader stands at a boundary as soon as nothing of its record is left. */
static struct record_event hand_out(struct record_reader *r, struct span *input)
{
    struct record_event event = event_of(r, RECORD_BYTES);

    event.bytes = take(input, at_most(r->content, input));
    r->content = (uint16_t)(r->content - event.bytes.len);
    if (r->content == 0 && r->padding == 0)
        r->n_header = 0;
    return event;
}

/* Keeps what there is of the content, which fits: header_defect() has seen to it. */
static void keep(struct record_reader *r, struct span *input)
{
    struct span piece = take(input, at_most(r->content, input));

    memcpy(r->body + r->n_body, piece.at, piece.len);
    r->n_body += (unsigned)piece.len;
    r->content = (uint16_t)(r->content - piece.len);
}

static void skip_padding(struct record_reader *r, struct span *input)
{
    size_t n = at_most(r->padding, input);

    if (n == 0)
        return;
    take(input, n);
    r->padding = (uint8_t)(r->padding - n);
}

struct record_event record_read(struct record_reader *r, struct span *input)
{
    static const struct record_event more = {.kind = RECORD_MORE};
    const char *why;

    for (;;) {
        if (r->n_header < RECORD_HEADER && !take_header(r, input))
            return more;
        why = header_defect(r); /* in each call: so a bad record stays one */
        if (why != NULL)
            return bad(r, why);
        if (r->content > 0) {
            if (input->len == 0)
                return more;
            if (is_stream(r->header[1]))
                return hand_out(r, input);
            keep(r, input);
        }
        skip_padding(r, input);
        if (r->content > 0 || r->padding > 0)
            return more;
        r->n_header = 0;
        if (!is_stream(r->header[1]))
            return whole(r);
        if (get16(r->header + 4) == 0)
            return event_of(r, RECORD_EMPTY);
    }
}

bool record_at_boundary(const struct record_reader *r)
{
    return r->n_header == 0;
}

/* Takes a length off the front of *s. */
static bool take_length(struct span *s, uint64_t *length_out)
{
    const uint8_t *at = (const uint8_t *)s->at;
    size_t size;

    if (s->len == 0)
        return false;
    size = at[0] < 128 ? 1 : 4;
    if (s->len < size)
        return false;
    *length_out = size == 1 ? at[0] : get32(at) & 0x7fffffff;
    *s = span_from(*s, size);
    return true;
}

int record_pair(struct span *content, struct span *name_out, struct span *value_out)
{
    struct span rest = *content;
    uint64_t name_len, value_len;

    if (rest.len == 0)
        return 0;
    if (!take_length(&rest, &name_len) || !take_length(&rest, &value_len) || name_len + value_len > rest.len)
        return -1;
    *name_out = take(&rest, (size_t)name_len);
    *value_out = take(&rest, (size_t)value_len);
    *content = rest;
    return 1;
}
