/*
 * Two passes. The first sees each line once, as soon as it is whole: it checks the line's grammar and finds the end of
 * the head. It keeps offsets only, because the bytes may move between two calls. The second runs once, over a head that
 * is complete and whose every line is known to be well-formed, and takes the fields from it.
 *
 *     HTTP/1.1 404 Not Found CR LF        or    Status: 404 Not Found LF
 *     Content-Type: text/plain CR LF            Content-Type: text/plain LF
 *     CR LF                                     LF
 *
 * What decides the status or the framing of the answer must be said once, or twice alike.
 */
#include "gateway/reply.h"

#include "http/grammar.h"

/* Of Connection: each is compared with each field's name. */
#define MAX_OPTIONS 32

/* A number in a text. */
#define DIGITS(number)    DIGITS_OF(number)
#define DIGITS_OF(number) #number

enum meaning {
    FORWARDED, /* means nothing to us */
    CONTENT_TYPE,
    LOCATION,
    STATUS,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    SENDFILE,
    DROPPED, /* of the hop to us, or for us to say */
};

#define NAME(text) .name.at = (text), .name.len = sizeof(text) - 1

static const struct known {
    struct span name;
    enum meaning meaning;
} known[] = {
    {NAME("Content-Type"), .meaning = CONTENT_TYPE},
    {NAME("Location"), .meaning = LOCATION},
    {NAME("Status"), .meaning = STATUS},
    {NAME("Content-Length"), .meaning = CONTENT_LENGTH},
    {NAME("Transfer-Encoding"), .meaning = TRANSFER_ENCODING},
    {NAME("Connection"), .meaning = CONNECTION},
    {NAME("X-Sendfile"), .meaning = SENDFILE},
    {NAME("Date"), .meaning = DROPPED},
    {NAME("Server"), .meaning = DROPPED},
    {NAME("X-Request-Id"), .meaning = DROPPED},
    {NAME("Trailer"), .meaning = DROPPED},
    {NAME("Keep-Alive"), .meaning = DROPPED},
    {NAME("Proxy-Connection"), .meaning = DROPPED},
    {NAME("TE"), .meaning = DROPPED},
    {NAME("Upgrade"), .meaning = DROPPED},
};

/* What the second pass gathers beside the reply itself. */
struct reading {
    struct reply *reply;
    struct span type;
    bool has_status_field;
    unsigned n_options;
    struct span options[MAX_OPTIONS]; /* the names in Connection */
};

void reply_init(struct reply *reply)
{
    /* Not the fields: n_fields tells how many of them are set. */
    reply->status = 0;
    reply->has_status = reply->has_type = reply->is_local = reply->has_length = reply->is_chunked = false;
    reply->reason = reply->location = reply->sendfile = (struct span){NULL, 0};
    reply->length = 0;
    reply->n_fields = reply->n_lines = 0;
    reply->len = reply->line = reply->scanned = 0;
    reply->why = NULL;
}

/* The line from `at` up to the LF, without its end. */
static struct span line_of(const char *at, const char *lf)
{
    struct span line = {at, (size_t)(lf - at)};

    if (line.len > 0 && line.at[line.len - 1] == '\r')
        line.len--;
    return line;
}

/* Only a head's first line can be one: "/" is no byte of a field's name. */
static bool is_status_line(struct span line)
{
    return span_starts(line, SPAN("HTTP/"));
}

static enum reply_result refuse(struct reply *r, const char *why)
{
    r->why = why;
    return REPLY_BAD;
}

/* The first pass: up to the end of the head, or as far as there are lines. */
static enum reply_result check_lines(struct reply *r, const char *bytes, size_t len)
{
    size_t end = len < REPLY_MAX_HEAD ? len : REPLY_MAX_HEAD;
    const char *lf;

    while ((lf = memchr(bytes + r->scanned, '\n', end - r->scanned)) != NULL) {
        struct span line = line_of(bytes + r->line, lf);
        bool is_first = r->line == 0;
        size_t name_len;

        r->line = r->scanned = (size_t)(lf + 1 - bytes);
        if (line.len == 0) {
            r->len = r->line;
            return is_first ? refuse(r, "an empty head") : REPLY_DONE;
        }
        if (is_first && is_status_line(line)) {
            r->why = grammar_is_all(line, CHAR_TEXT) ? NULL : "a control character in the status line";
        } else {
            r->why = grammar_field_line(line, &name_len);
            if (r->why == NULL && ++r->n_lines > REPLY_MAX_FIELDS)
                r->why = "more than " DIGITS(REPLY_MAX_FIELDS) " fields";
        }
        if (r->why != NULL)
            return REPLY_BAD;
    }
    r->scanned = end;
    return end < REPLY_MAX_HEAD ? REPLY_MORE : refuse(r, "a head longer than " DIGITS(REPLY_MAX_HEAD) " bytes");
}

/* "404", "404 Not Found": RFC 3875 section 6.3.3, but the reason and the space before it may be missing. */
static const char *take_status(struct reply *r, struct span text)
{
    unsigned status;

    if (text.len < 3 || !grammar_is_digit(text.at[0]) || !grammar_is_digit(text.at[1]) ||
        !grammar_is_digit(text.at[2]) || (text.len > 3 && text.at[3] != ' '))
        return "a status that is no number of three digits";
    status = (unsigned)(text.at[0] - '0') * 100 + (unsigned)(text.at[1] - '0') * 10 + (unsigned)(text.at[2] - '0');
    if (status < 100 || status > 599)
        return "a status that is not between 100 and 599";
    if (status == 101)
        return "status 101, but no Upgrade was offered";
    if (r->has_status)
        return r->status == status ? NULL : "two different statuses";
    r->has_status = true;
    r->status = status;
    r->reason = grammar_trim(span_from(text, 3));
    return NULL;
}

/* "HTTP/1.1 404 Not Found" */
static const char *take_status_line(struct reply *r, struct span line)
{
    static const size_t version_len = sizeof "HTTP/1.1 " - 1;

    if (line.len < version_len || !span_starts(line, SPAN("HTTP/1.")) || !grammar_is_digit(line.at[version_len - 2]) ||
        line.at[version_len - 1] != ' ')
        return "a status line of another version";
    return take_status(r, span_from(line, version_len));
}

static const char *take_length(struct reply *r, struct span value)
{
    uint64_t length = 0;

    if (value.len == 0)
        return "an empty Content-Length";
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = (unsigned)(value.at[i] - '0');

        if (!grammar_is_digit(value.at[i]))
            return "a Content-Length that is no number";
        if (length > ((uint64_t)INT64_MAX - digit) / 10)
            return "a Content-Length that is too large";
        length = length * 10 + digit;
    }
    if (r->has_length && r->length != length)
        return "two different Content-Lengths";
    r->has_length = true;
    r->length = length;
    return NULL;
}

static const char *take_coding(struct reply *r, struct span value)
{
    if (r->is_chunked || !span_is_nocase(value, SPAN("chunked")))
        return "a Transfer-Encoding other than \"chunked\"";
    r->is_chunked = true;
    return NULL;
}

static const char *take_options(struct reading *reading, struct span list)
{
    struct span option;

    while (grammar_list_next(&list, &option)) {
        if (reading->n_options == MAX_OPTIONS)
            return "more than " DIGITS(MAX_OPTIONS) " options of Connection";
        reading->options[reading->n_options++] = option;
    }
    return NULL;
}

static const char *take_sendfile(struct reply *r, struct span value)
{
    if (value.len == 0)
        return "an empty X-Sendfile";
    if (memchr(value.at, '\t', value.len) != NULL)
        return "a control character in the path of X-Sendfile";
    if (r->sendfile.len > 0 && !span_is(r->sendfile, value))
        return "two different X-Sendfiles";
    r->sendfile = value;
    return NULL;
}

static void forward(struct reply *r, struct field field)
{
    r->fields[r->n_fields++] = field;
}

static enum meaning meaning_of(struct span name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (span_is_nocase(name, known[i].name))
            return known[i].meaning;
    }
    return FORWARDED;
}

static const char *take_field(struct reading *reading, struct field field)
{
    struct reply *r = reading->reply;

    switch (meaning_of(field.name)) {
    case CONTENT_TYPE:
        if (r->has_type)
            return span_is(reading->type, field.value) ? NULL : "two different Content-Types";
        r->has_type = true;
        reading->type = field.value;
        break;
    case LOCATION:
        if (r->location.len > 0)
            return span_is(r->location, field.value) ? NULL : "two different Locations";
        r->location = field.value;
        break;
    case STATUS:
        if (reading->has_status_field)
            return "two Status fields"; /* RFC 3875 section 6.3 */
        reading->has_status_field = true;
        return take_status(r, field.value);
    case CONTENT_LENGTH:
        return take_length(r, field.value);
    case TRANSFER_ENCODING:
        return take_coding(r, field.value);
    case CONNECTION:
        return take_options(reading, field.value);
    case SENDFILE:
        return take_sendfile(r, field.value);
    case DROPPED:
        return NULL;
    case FORWARDED:
        break;
    }
    forward(r, field);
    return NULL;
}

static const char *take_line(struct reading *reading, struct span line)
{
    const char *colon;
    struct field field;

    if (is_status_line(line))
        return take_status_line(reading->reply, line);
    colon = memchr(line.at, ':', line.len);
    field.name = (struct span){line.at, (size_t)(colon - line.at)};
    field.value = grammar_trim(span_from(line, field.name.len + 1));
    return take_field(reading, field);
}

static bool is_option(const struct reading *reading, struct span name)
{
    for (unsigned i = 0; i < reading->n_options; i++) {
        if (span_is_nocase(name, reading->options[i]))
            return true;
    }
    return false;
}

/* RFC 9110 section 7.6.1: what Connection names belongs to this hop. */
static void drop_options(struct reading *reading)
{
    struct reply *r = reading->reply;
    unsigned n = r->n_fields;

    r->n_fields = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!is_option(reading, r->fields[i].name))
            forward(r, r->fields[i]);
    }
}

/* What the fields mean together. */
static const char *conclude(struct reading *reading)
{
    struct reply *r = reading->reply;

    if (!r->has_type && !r->has_status && r->location.len == 0 && r->sendfile.len == 0)
        return "neither Content-Type nor Location nor Status";
    if (r->is_chunked && r->has_length)
        return "Content-Length beside Transfer-Encoding"; /* RFC 9112 section 6.3 */
    /* A fragment is for a client to follow: RFC 3875 section 6.3.2 has none in a local path. */
    r->is_local = r->n_lines == 1 && !r->has_status && span_starts(r->location, SPAN("/")) &&
                  memchr(r->location.at, '#', r->location.len) == NULL;
    if (!r->has_status)
        r->status = r->location.len > 0 && !r->is_local ? 302 : 200; /* RFC 3875 section 6.2.3 */
    if (reading->n_options > 0)
        drop_options(reading);
    return NULL;
}

/* The second pass. */
static const char *take_head(struct reply *r, const char *bytes)
{
    struct reading reading;
    const char *at = bytes, *why;

    reading.reply = r;
    reading.type = SPAN("");
    reading.has_status_field = false;
    reading.n_options = 0;
    for (;;) {
        const char *lf = memchr(at, '\n', r->len - (size_t)(at - bytes));
        struct span line = line_of(at, lf);

        if (line.len == 0)
            return conclude(&reading);
        why = take_line(&reading, line);
        if (why != NULL)
            return why;
        at = lf + 1;
    }
}

enum reply_result reply_read(struct reply *reply, const char *bytes, size_t len)
{
    enum reply_result result;

    if (reply->why != NULL)
        return REPLY_BAD;
    if (len == 0)
        return REPLY_MORE;
    result = check_lines(reply, bytes, len);
    if (result != REPLY_DONE)
        return result;
    reply->why = take_head(reply, bytes);
    return reply->why == NULL ? REPLY_DONE : REPLY_BAD;
}
