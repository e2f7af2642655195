/*
 * A line is put together from the front: the record's name and id, then what its type has to say. What bounds its
 * length is put_shortened(), which takes 80 bytes of a text at most, and put_pairs(), which stops at LIST_LONGEST.
 *
 * A describer reads the same bytes as the one it describes them for, with a reader of its own. That hands out a stream
 * record's content in pieces; the length in its header tells which piece is the last.
 */
#include "fastcgi/describe.h"

#include <stdint.h>

#include "base/utf8.h"
#include "log.h"

enum {
    TEXT_LONGEST = 80,   /* bytes of a name or a value that are shown */
    LIST_LONGEST = 2048, /* behind so many bytes of a line no pair begins */
    BODY_LEN = 8,        /* of BEGIN_REQUEST, UNKNOWN_TYPE: specification sections 5.1 and 4.2 */
    KEEP_CONN = 1,
};

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

static const char *const types[] = {
    [RECORD_BEGIN_REQUEST] = "BEGIN_REQUEST",
    [RECORD_ABORT_REQUEST] = "ABORT_REQUEST",
    [RECORD_END_REQUEST] = "END_REQUEST",
    [RECORD_PARAMS] = "PARAMS",
    [RECORD_STDIN] = "STDIN",
    [RECORD_STDOUT] = "STDOUT",
    [RECORD_STDERR] = "STDERR",
    [RECORD_DATA] = "DATA",
    [RECORD_GET_VALUES] = "GET_VALUES",
    [RECORD_GET_VALUES_RESULT] = "GET_VALUES_RESULT",
    [RECORD_UNKNOWN_TYPE] = "UNKNOWN_TYPE",
};

static const char *const roles[] = {
    [RECORD_RESPONDER] = "responder",
    [RECORD_AUTHORIZER] = "authorizer",
    [RECORD_FILTER] = "filter",
};

static const char *const protocol_statuses[] = {
    [RECORD_REQUEST_COMPLETE] = "REQUEST_COMPLETE",
    [RECORD_CANT_MPX_CONN] = "CANT_MPX_CONN",
    [RECORD_OVERLOADED] = "OVERLOADED",
    [RECORD_UNKNOWN_ROLE] = "UNKNOWN_ROLE",
};

/* NULL: there is none with that number. */
static const char *name_of(const char *const *names, size_t n, unsigned number)
{
    return number < n ? names[number] : NULL;
}

/* The first bytes of s, whole characters where it is UTF-8. */
static struct span shortened(struct span s)
{
    size_t len = TEXT_LONGEST;

    if (s.len <= TEXT_LONGEST)
        return s;
    while (len > TEXT_LONGEST - 4 && ((unsigned char)s.at[len] & 0xc0) == 0x80)
        len--;
    return (struct span){s.at, utf8_len(span_from(s, len)) > 0 ? len : TEXT_LONGEST};
}

static void put_shortened(struct buffer *to, struct span s, bool is_quoted)
{
    struct span shown = shortened(s), rest = shown;
    const char *quote;

    if (is_quoted)
        buffer_append(to, "\"", 1);
    while (rest.len > 0 && (quote = memchr(rest.at, '"', rest.len)) != NULL) {
        log_escape(to, (struct span){rest.at, (size_t)(quote - rest.at)});
        buffer_append(to, "\\\"", 2);
        rest = span_from(rest, (size_t)(quote - rest.at) + 1);
    }
    log_escape(to, rest);
    if (is_quoted)
        buffer_append(to, "\"", 1);
    if (shown.len < s.len)
        buffer_printf(to, "...[%zu bytes]", s.len);
}

void describe_text(struct buffer *to, struct span s)
{
    put_shortened(to, s, true);
}

static bool has(struct span s, char c)
{
    return s.len > 0 && memchr(s.at, c, s.len) != NULL;
}

/* In quotes where it could be taken for something else. */
static void put_word(struct buffer *to, struct span s, bool is_name)
{
    put_shortened(to, s, has(s, ' ') || has(s, '"') || (is_name && (s.len == 0 || has(s, '='))));
}

static void put_pair(struct buffer *to, uint8_t type, struct span name, struct span value)
{
    put_word(to, name, true);
    if (type == RECORD_GET_VALUES && value.len == 0)
        return; /* it is asked for */
    buffer_append(to, "=", 1);
    put_word(to, value, false);
}

/* len: of the record's content, of which the event may hold the front only. */
static void put_pairs(struct buffer *to, const struct record_event *event, size_t len)
{
    struct span rest = event->bytes, name, value;
    size_t start = buffer_len(to);
    const char *before = ": ";
    int result = 1;

    while (buffer_len(to) - start < LIST_LONGEST && (result = record_pair(&rest, &name, &value)) > 0) {
        buffer_append_span(to, span_of(before));
        put_pair(to, event->type, name, value);
        before = " ";
    }
    if (result < 0 && len == event->bytes.len)
        buffer_printf(to, "%s... (%zu bytes, not a whole pair)", before, rest.len);
    else if (rest.len + len > event->bytes.len)
        buffer_printf(to, "%s... (%zu bytes more)", before, rest.len + len - event->bytes.len);
}

static void put_type(struct buffer *to, uint8_t type)
{
    const char *name = name_of(types, N_OF(types), type);

    if (name != NULL)
        buffer_append_span(to, span_of(name));
    else
        buffer_printf(to, "type %u", type);
}

static void put_begin(struct buffer *to, const uint8_t *body)
{
    unsigned role = (unsigned)body[0] << 8 | body[1];
    const char *name = name_of(roles, N_OF(roles), role);

    if (name != NULL)
        buffer_printf(to, ", %s", name);
    else
        buffer_printf(to, ", role %u", role);
    buffer_printf(to, ", keep %s", body[2] & KEEP_CONN ? "yes" : "no");
    if ((body[2] & ~KEEP_CONN) != 0)
        buffer_printf(to, ", flags 0x%02x", body[2]);
}

static void put_end(struct buffer *to, const struct record_event *event)
{
    const char *status = name_of(protocol_statuses, N_OF(protocol_statuses), event->protocol_status);

    buffer_printf(to, ", appStatus %u", (unsigned)event->app_status);
    if (status != NULL)
        buffer_printf(to, ", %s", status);
    else
        buffer_printf(to, ", protocolStatus %u", event->protocol_status);
}

static void put_unknown_type(struct buffer *to, uint8_t type)
{
    const char *name = name_of(types, N_OF(types), type);

    buffer_printf(to, ", of type %u", type);
    if (name != NULL)
        buffer_printf(to, ", %s", name);
}

static void put_content(struct buffer *to, const struct record_event *event, size_t len)
{
    const uint8_t *body = (const uint8_t *)event->bytes.at;

    if (event->type == RECORD_END_REQUEST) {
        put_end(to, event);
    } else if (event->type == RECORD_BEGIN_REQUEST && len == BODY_LEN) {
        put_begin(to, body);
    } else if (event->type == RECORD_UNKNOWN_TYPE && len == BODY_LEN) {
        put_unknown_type(to, body[0]);
    } else if (event->type != RECORD_ABORT_REQUEST || len > 0) {
        buffer_printf(to, ", %zu bytes", len);
        if (event->type == RECORD_PARAMS || event->type == RECORD_GET_VALUES || event->type == RECORD_GET_VALUES_RESULT)
            put_pairs(to, event, len);
    }
}

static void describe(struct buffer *to, const struct record_event *event, size_t len)
{
    if (event->kind == RECORD_MORE)
        return;
    if (event->kind == RECORD_BAD) {
        buffer_printf(to, "bad record: %s", event->why);
        if (event->bytes.len > 0) {
            buffer_append_span(to, SPAN(", it begins "));
            put_shortened(to, event->bytes, true);
        }
        return;
    }
    put_type(to, event->type);
    buffer_printf(to, " id %u", event->id);
    if (event->kind == RECORD_EMPTY)
        buffer_append_span(to, SPAN(", end"));
    else
        put_content(to, event, len);
}

void record_describe(struct buffer *to, const struct record_event *event)
{
    describe(to, event, event->bytes.len);
}

void describer_init(struct describer *d)
{
    record_reader_init(&d->reader);
    d->n_seen = d->n_kept = 0;
    d->is_bad = false;
}

/* What its header says. The reader leaves it as it is until the next one comes. */
static size_t content_len(const struct describer *d)
{
    return (size_t)d->reader.header[4] << 8 | d->reader.header[5];
}

static void keep(struct describer *d, struct span piece)
{
    size_t room = sizeof d->kept - d->n_kept;
    size_t n = piece.len < room ? piece.len : room;

    memcpy(d->kept + d->n_kept, piece.at, n);
    d->n_kept += n;
}

/* A piece of a stream's record. True when it was the last one: then its line is there. */
static bool take_piece(struct describer *d, struct record_event event, struct buffer *to)
{
    size_t len = content_len(d);

    if (event.bytes.len < len) {
        keep(d, event.bytes);
        d->n_seen += event.bytes.len;
        if (d->n_seen < len)
            return false;
        event.bytes = (struct span){d->kept, d->n_kept};
    }
    describe(to, &event, len);
    d->n_seen = d->n_kept = 0;
    return true;
}

bool describer_next(struct describer *d, struct span *input, struct buffer *to)
{
    while (!d->is_bad) {
        struct record_event event = record_read(&d->reader, input);

        if (event.kind == RECORD_MORE)
            return false;
        if (event.kind == RECORD_BYTES) {
            if (take_piece(d, event, to))
                return true;
            continue;
        }
        if (event.kind == RECORD_BAD) {
            d->is_bad = true;
            if (d->reader.header[0] != 1)
                event.bytes = (struct span){(const char *)d->reader.header, RECORD_HEADER};
        }
        describe(to, &event, event.bytes.len);
        return true;
    }
    return false;
}

bool describer_end(const struct describer *d, struct buffer *to)
{
    if (d->is_bad || record_at_boundary(&d->reader))
        return false;
    if (d->n_seen == 0) {
        buffer_append_span(to, SPAN("the rest of a record is missing"));
        return true;
    }
    put_type(to, d->reader.header[1]);
    buffer_printf(to, " id %u, %zu of %zu bytes, the rest is missing",
                  (unsigned)d->reader.header[2] << 8 | d->reader.header[3], d->n_seen, content_len(d));
    return true;
}
