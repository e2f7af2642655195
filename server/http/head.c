/*
 * Two readers go over every head. The first is ours: as soon as a line has come it is held against the grammar, byte
 * by byte, and the first line that is wrong decides. A beginning of the request line is judged before its end has come
 * where the verdict can no longer change (no method, no end of the target). So the verdict depends on the bytes alone,
 * never on how they were cut. A complete head that has passed goes to http-parser, which takes it apart into fields;
 * then Host, Content-Length, Transfer-Encoding, Expect and Connection are understood here, from these fields.
 *
 * The library never sees the lines of Content-Length and of Transfer-Encoding or names that begin so. It would refuse
 * white space behind a length, which is legal (RFC 9110 section 5.5), take "Transfer-Encoding-Foo" for the field
 * itself, and frame a body that is none of its business. It is given what stands between such lines, piece by piece,
 * and stopped at the end of the head; their fields are put in their places here.
 *
 *     POST /a?b HTTP/1.1 CR LF  Host: a CR LF  Content-Length: 5 CR LF  CR LF
 *     `--- to the library -----------------'   `--- not ---------'     `- to it
 */
#include "http/head.h"

#include <http_parser.h>

#include "http/authority.h"
#include "http/grammar.h"

enum {
    MAX_EMPTY = 2,   /* empty lines before a request line: RFC 9112 section 2.2 asks for one */
    MAX_METHOD = 32, /* longer than any in the registry */
};

static enum head_result refuse(struct head *head, unsigned status, const char *why)
{
    head->status = status;
    head->why = why;
    return HEAD_REFUSED;
}

/* ---- the request line ---- */

/* In the order of enum http_method. */
static const struct span methods[] = {
#define METHOD(number, name, string) [number] = {#string, sizeof #string - 1},
    HTTP_METHOD_MAP(METHOD)
#undef METHOD
};

static enum head_result read_method(struct head *head, struct span text)
{
    size_t i = 0;

    while (i < sizeof methods / sizeof methods[0] && !span_is(text, methods[i]))
        i++;
    switch (i) {
    case HTTP_GET:
        head->method = METHOD_GET;
        break;
    case HTTP_HEAD:
        head->method = METHOD_HEAD;
        break;
    case HTTP_POST:
        head->method = METHOD_POST;
        break;
    case HTTP_OPTIONS:
        head->method = METHOD_OPTIONS;
        break;
    case HTTP_CONNECT:
        return refuse(head, 501, "CONNECT: there are no tunnels");
    case sizeof methods / sizeof methods[0]:
        head->is_unknown = !span_is(text, SPAN("QUERY")); /* younger than the library */
        /* fall through */
    default:
        head->method = METHOD_OTHER;
        break;
    }
    head->method_text = text;
    return HEAD_MORE;
}

/*
 * What can be said of a request line by its method and the length of its target, however much of it is here; what is
 * said once stays true when more comes. The line may end in CR LF or lack its end.
 */
static enum head_result check_beginning(struct head *head, const struct head_limits *limits, struct span line)
{
    struct span start = {line.at, line.len <= MAX_METHOD ? line.len : MAX_METHOD + 1};
    size_t n = grammar_run(start, CHAR_TOKEN);
    struct span rest;

    if (n > MAX_METHOD)
        return refuse(head, 501, "a method longer than any");
    if (n == line.len || (line.len == 1 && line.at[0] == '\r')) /* a method, or an empty line, that goes on */
        return HEAD_MORE;
    if (n == 0 || line.at[n] != ' ')
        return refuse(head, 400, "a request line that does not begin with a method and a space");
    if (read_method(head, (struct span){line.at, n}) != HEAD_MORE)
        return HEAD_REFUSED;
    rest = span_from(line, n + 1);
    if (rest.len > limits->max_target && memchr(rest.at, ' ', limits->max_target + 1) == NULL)
        return refuse(head, 414, "a target that is too long");
    return HEAD_MORE;
}

/* RFC 9112 section 3.2.2. Only what we answer for: http and https, and no userinfo (RFC 9110 section 4.2.4). */
static const char *read_absolute(struct head *head, struct span target)
{
    static const struct span schemes[] = {{"http://", 7}, {"https://", 8}};
    struct span rest = {NULL, 0};
    size_t n = 0;

    for (size_t i = 0; i < 2; i++) {
        if (target.len >= schemes[i].len && span_is_nocase((struct span){target.at, schemes[i].len}, schemes[i]))
            rest = span_from(target, schemes[i].len);
    }
    if (rest.at == NULL)
        return "a target that is neither a path nor an http URI";
    while (n < rest.len && rest.at[n] != '/' && rest.at[n] != '?')
        n++;
    head->authority = (struct span){rest.at, n};
    head->path_and_query = span_from(rest, n);
    /* RFC 9112 section 3.2.4: what "*" becomes on its way to a proxy. */
    head->form = head->method == METHOD_OPTIONS && n == rest.len ? TARGET_ASTERISK : TARGET_ABSOLUTE;
    return authority_read(head->authority, &head->host);
}

/* The forms of RFC 9112 section 3.2, by their spans only. Returns NULL, or what is wrong. */
static const char *read_target(struct head *head, struct span target)
{
    head->target = target;
    head->authority = head->host = (struct span){target.at, 0};
    if (target.len == 0)
        return "no target, or more than one space before it";
    if (target.at[0] == '/') {
        head->form = TARGET_ORIGIN;
        head->path_and_query = target;
        return NULL;
    }
    if (!span_is(target, SPAN("*")))
        return read_absolute(head, target);
    head->form = TARGET_ASTERISK;
    head->path_and_query = (struct span){target.at, 0};
    return head->method == METHOD_OPTIONS ? NULL : "the target * is for OPTIONS";
}

static bool is_path_and_query(struct span s)
{
    s = span_from(s, grammar_run(s, CHAR_SENT_PATH));
    return s.len == 0 || (s.at[0] == '?' && grammar_is_all(s, CHAR_SENT_QUERY));
}

/* RFC 9112 section 2.3: eight bytes, case-sensitive. */
static enum head_result read_version(struct head *head, struct span text)
{
    if (text.len != 8 || !span_starts(text, SPAN("HTTP/")) || !grammar_is_digit(text.at[5]) || text.at[6] != '.' ||
        !grammar_is_digit(text.at[7]))
        return refuse(head, 400, "a request line that does not end in a space and HTTP/1.1");
    if (text.at[5] != '1')
        return refuse(head, 505, "not HTTP/1");
    head->minor = text.at[7] == '0' ? 0 : 1; /* RFC 9110 section 2.5 */
    return HEAD_MORE;
}

/* A target that ends in a space; HEAD_DONE: *rest_out is what follows that. HEAD_MORE: there is no space yet. */
static enum head_result check_target(struct head *head, struct span line, struct span *rest_out)
{
    struct span rest = span_from(line, head->method_text.len + 1);
    const char *space = rest.len > 0 ? memchr(rest.at, ' ', rest.len) : NULL;
    const char *why;

    if (space == NULL)
        return HEAD_MORE;
    why = read_target(head, (struct span){rest.at, (size_t)(space - rest.at)});
    if (why == NULL && !is_path_and_query(head->path_and_query))
        why = "a byte that no target has";
    if (why != NULL)
        return refuse(head, 400, why);
    *rest_out = span_from(rest, head->target.len + 1);
    return HEAD_DONE;
}

/* A request line that has passed check_beginning(), without its CR LF. A method that nobody knows is refused last: 501
 * is for what is well-formed. */
static enum head_result read_request_line(struct head *head, struct span line)
{
    struct span version;
    enum head_result result = check_target(head, line, &version);

    if (result == HEAD_MORE) /* HTTP/0.9, too */
        return refuse(head, 400, "a request line without a version");
    if (result != HEAD_DONE || read_version(head, version) != HEAD_MORE)
        return HEAD_REFUSED;
    return head->is_unknown ? refuse(head, 501, "an unknown method") : HEAD_MORE;
}

/* The beginning of a request line whose end has not come. */
static enum head_result check_unended(struct head *head, const struct head_limits *limits, struct span line)
{
    struct span rest;

    if (check_beginning(head, limits, line) != HEAD_MORE)
        return HEAD_REFUSED;
    if (head->method_text.len == 0)
        return HEAD_MORE;
    return check_target(head, line, &rest) == HEAD_REFUSED ? HEAD_REFUSED : HEAD_MORE;
}

/* ---- the lines, as they come ---- */

/* Does a field line belong to those that the library does not see? */
static bool is_framing(struct span line)
{
    char first = line.len > 0 ? (char)(line.at[0] | 0x20) : '\0';

    if (first == 'c')
        return line.len >= 14 && span_is_nocase((struct span){line.at, 14}, SPAN("Content-Length"));
    return first == 't' && line.len >= 17 && span_is_nocase((struct span){line.at, 17}, SPAN("Transfer-Encoding"));
}

static const char field_too_long[] = "a field line that is too long";

static enum head_result read_field_line(struct head *head, const struct head_limits *limits, struct span line)
{
    size_t name_len;
    const char *why;

    if (head->n_lines >= limits->max_fields || head->n_lines >= head->max_fields)
        return refuse(head, 431, "too many fields");
    why = grammar_field_line(line, &name_len);
    if (why != NULL)
        return refuse(head, 400, why);
    head->n_lines++;
    head->has_framing |= is_framing(line);
    return HEAD_MORE;
}

/* A line with the LF that ends it. HEAD_DONE: it was the empty one behind the fields. */
static enum head_result read_line(struct head *head, const struct head_limits *limits, struct span line)
{
    bool has_cr = line.len >= 2 && line.at[line.len - 2] == '\r';
    bool is_empty = has_cr && line.len == 2;
    struct span text = {line.at, has_cr ? line.len - 2 : line.len};

    if (!head->has_request_line && is_empty)
        return ++head->n_empty > MAX_EMPTY ? refuse(head, 400, "too many empty lines") : HEAD_MORE;
    if (!head->has_request_line && (has_cr ? check_beginning : check_unended)(head, limits, line) != HEAD_MORE)
        return HEAD_REFUSED;
    if (head->has_request_line && line.len - 1 - has_cr > limits->max_field)
        return refuse(head, 431, field_too_long);
    if (!has_cr)
        return refuse(head, 400, "a line that ends in LF without CR");
    if (!head->has_request_line) {
        head->has_request_line = true;
        return read_request_line(head, text);
    }
    return is_empty ? HEAD_DONE : read_field_line(head, limits, text);
}

/* Is a field line longer than it may be, before its end has come? */
static bool is_too_long(const struct head_limits *limits, const char *line, size_t len)
{
    return len > limits->max_field && (len > limits->max_field + 1 || line[len - 1] != '\r');
}

/* Reads the lines that are complete in what is here. */
static enum head_result read_lines(struct head *head, const struct head_limits *limits, const char *bytes, size_t len)
{
    enum head_result result = HEAD_MORE;

    while (result == HEAD_MORE && head->scanned < len) {
        const char *lf = memchr(bytes + head->scanned, '\n', len - head->scanned);
        struct span line = {bytes + head->line_at, 0};

        if (lf == NULL) {
            head->scanned = len;
            break;
        }
        line.len = (size_t)(lf + 1 - line.at);
        if (!head->has_request_line)
            head->request_at = head->line_at;
        head->line_at = head->scanned = (size_t)(lf + 1 - bytes);
        result = read_line(head, limits, line);
    }
    if (result == HEAD_MORE && !head->has_request_line && head->line_at < len)
        result = check_unended(head, limits, (struct span){bytes + head->line_at, len - head->line_at});
    if (result == HEAD_MORE && head->has_request_line &&
        is_too_long(limits, bytes + head->line_at, len - head->line_at))
        result = refuse(head, 431, field_too_long);
    return result;
}

/* ---- the library ---- */

static int on_target(struct http_parser *parser, const char *at, size_t len)
{
    struct head *head = parser->data;

    head->target = (struct span){at, len};
    return 0;
}

static int on_name(struct http_parser *parser, const char *at, size_t len)
{
    struct head *head = parser->data;

    if (head->n_fields >= head->n_lines)
        return -1;
    head->fields[head->n_fields++] = (struct field){.name = {at, len}, .value = {at + len, 0}};
    return 0;
}

/* Of an empty value the library tells only when it sees the next line, and then there may be a field in between. */
static int on_value(struct http_parser *parser, const char *at, size_t len)
{
    struct head *head = parser->data;

    if (len > 0)
        head->fields[head->n_fields - 1].value = grammar_trim((struct span){at, len});
    return 0;
}

/* Stops the library, so that it is shown no byte behind the head and has no say in what follows. */
static int on_end(struct http_parser *parser)
{
    parser->upgrade = 0;
    http_parser_pause(parser, 1);
    return 0;
}

static const struct http_parser_settings settings = {
    .on_url = on_target,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_end,
};

static void feed(struct http_parser *parser, const char *from, const char *to)
{
    if (from < to && HTTP_PARSER_ERRNO(parser) == HPE_OK) /* no bytes would tell the library of the stream's end */
        http_parser_execute(parser, &settings, from, (size_t)(to - from));
}

/* Adds the field of a line that the library does not see. */
static void add_field(struct http_parser *parser, struct span line)
{
    const char *colon = memchr(line.at, ':', line.len);
    size_t name_len = (size_t)(colon - line.at);

    on_name(parser, line.at, name_len);
    on_value(parser, colon + 1, line.len - name_len - 3); /* the colon, CR and LF */
}

/* Has the library take apart the head from its request line on. False: it refuses what our own grammar has let pass. */
static bool parse(struct head *head, const char *from, const char *end)
{
    static const char stand_in[] = "SEARCH";
    struct http_parser parser;
    const char *line = from;

    http_parser_init(&parser, HTTP_REQUEST);
    http_parser_set_max_header_size(UINT32_MAX); /* the limit is ours, and has been kept */
    parser.data = head;
    if (span_is(head->method_text, SPAN("QUERY"))) { /* it is shown a method that it knows */
        feed(&parser, stand_in, stand_in + sizeof stand_in - 1);
        from += head->method_text.len;
    }
    while (head->has_framing && line < end) {
        const char *next = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1;

        if (is_framing((struct span){line, (size_t)(next - line)})) {
            feed(&parser, from, line);
            add_field(&parser, (struct span){line, (size_t)(next - line)});
            from = next;
        }
        line = next;
    }
    feed(&parser, from, end);
    return HTTP_PARSER_ERRNO(&parser) == HPE_PAUSED && head->n_fields == head->n_lines;
}

/* ---- what the fields mean ---- */

/* The fields that decide something, each counted. */
struct known {
    struct span host, length, coding;
    unsigned n_host, n_length, n_coding, n_type;
    bool wants_close, wants_keep_alive;
    bool expects_continue, expects_else;
};

static void note_connection(struct known *known, struct span list)
{
    struct span option;

    while (grammar_list_next(&list, &option)) {
        known->wants_close |= span_is_nocase(option, SPAN("close"));
        known->wants_keep_alive |= span_is_nocase(option, SPAN("keep-alive"));
    }
}

static void note_expect(struct known *known, struct span list)
{
    struct span expectation;

    while (grammar_list_next(&list, &expectation)) {
        if (span_is_nocase(expectation, SPAN("100-continue")))
            known->expects_continue = true;
        else
            known->expects_else = true;
    }
}

static void note(const struct field *field, struct span name, struct span *value, unsigned *n)
{
    if (span_is_nocase(field->name, name)) {
        *value = field->value;
        ++*n;
    }
}

static void note_fields(const struct head *head, struct known *known)
{
    struct span type;

    for (unsigned i = 0; i < head->n_fields; i++) {
        const struct field *field = &head->fields[i];

        switch (field->name.len) {
        case sizeof "Host" - 1:
            note(field, SPAN("Host"), &known->host, &known->n_host);
            break;
        case sizeof "Expect" - 1:
            if (span_is_nocase(field->name, SPAN("Expect")))
                note_expect(known, field->value);
            break;
        case sizeof "Connection" - 1:
            if (span_is_nocase(field->name, SPAN("Connection")))
                note_connection(known, field->value);
            break;
        case sizeof "Content-Type" - 1:
            note(field, SPAN("Content-Type"), &type, &known->n_type);
            break;
        case sizeof "Content-Length" - 1:
            note(field, SPAN("Content-Length"), &known->length, &known->n_length);
            break;
        case sizeof "Transfer-Encoding" - 1:
            note(field, SPAN("Transfer-Encoding"), &known->coding, &known->n_coding);
            break;
        default:
            break;
        }
    }
}

/* RFC 9112 section 3.2. A target's own authority comes first (section 3.2.2), but Host must be there and valid. */
static enum head_result decide_host(struct head *head, const struct known *known)
{
    struct span host;
    const char *why;

    if (known->n_host > 1)
        return refuse(head, 400, "more than one Host");
    if (known->n_host == 0)
        return head->minor > 0 ? refuse(head, 400, "no Host") : HEAD_DONE;
    why = authority_read(known->host, &host);
    if (why != NULL)
        return refuse(head, 400, why);
    if (head->authority.len == 0) {
        head->authority = known->host;
        head->host = host;
    }
    return HEAD_DONE;
}

/* RFC 9110 section 8.6, and no lists. Leading zeros are legal. */
static enum head_result read_length(struct head *head, struct span digits)
{
    uint64_t length = 0;
    bool is_huge = false;

    for (size_t i = 0; i < digits.len; i++) {
        uint64_t digit = (uint64_t)(digits.at[i] - '0');

        if (!grammar_is_digit(digits.at[i]))
            return refuse(head, 400, "a Content-Length that is no number");
        is_huge |= length > (INT64_MAX - digit) / 10;
        length = length * 10 + digit;
    }
    if (digits.len == 0)
        return refuse(head, 400, "an empty Content-Length");
    if (is_huge)
        return refuse(head, 413, "a Content-Length beyond all numbers");
    head->has_length = true;
    head->length = length;
    return HEAD_DONE;
}

/* RFC 9112 sections 6.1 to 6.3. Of what they leave to the server, everything that two readers might frame in two ways
 * is refused: both framings, a framing sent twice, and Transfer-Encoding with HTTP/1.0. */
static enum head_result decide_framing(struct head *head, const struct known *known)
{
    if (known->n_coding + known->n_length > 1)
        return refuse(head, 400, "more than one Content-Length or Transfer-Encoding");
    if (known->n_length > 0)
        return read_length(head, known->length);
    if (known->n_coding == 0)
        return HEAD_DONE;
    if (head->minor == 0)
        return refuse(head, 400, "Transfer-Encoding with HTTP/1.0");
    if (!span_is_nocase(known->coding, SPAN("chunked"))) {
        bool is_token = known->coding.len > 0 && grammar_is_all(known->coding, CHAR_TOKEN);

        return is_token ? refuse(head, 501, "an unknown transfer coding")
                        : refuse(head, 400, "a bad Transfer-Encoding");
    }
    head->is_chunked = true;
    return HEAD_DONE;
}

static enum head_result decide(struct head *head)
{
    struct known known = {0};

    note_fields(head, &known);
    if (decide_host(head, &known) != HEAD_DONE || decide_framing(head, &known) != HEAD_DONE)
        return HEAD_REFUSED;
    if (known.n_type > 1) /* RFC 9110 section 8.3: which of them counts is anybody's guess */
        return refuse(head, 400, "more than one Content-Type");
    if (head->minor > 0 && known.expects_else) /* RFC 9110 section 10.1.1; HTTP/1.0 does not know the field */
        return refuse(head, 417, "an unknown expectation");
    head->expect_continue = head->minor > 0 && known.expects_continue;
    head->keep_alive = !known.wants_close && (head->minor > 0 || known.wants_keep_alive); /* RFC 9112 section 9.3 */
    return HEAD_DONE;
}

/* ---- the head ---- */

void head_init(struct head *head, struct field *fields, unsigned max_fields)
{
    *head = (struct head){.fields = fields, .max_fields = max_fields};
}

enum head_result head_read(struct head *head, const struct head_limits *limits, const char *bytes, size_t len)
{
    size_t most = len < limits->max_head ? len : limits->max_head;
    enum head_result result;

    if (head->status != 0)
        return HEAD_REFUSED;
    result = read_lines(head, limits, bytes, most);
    if (result == HEAD_MORE && len >= limits->max_head) /* it ends behind the limit, if at all */
        return head->has_request_line ? refuse(head, 431, "a head that is too long")
                                      : refuse(head, 414, "a request line that is too long");
    if (result != HEAD_DONE)
        return result;
    head->method_text.at = bytes + head->request_at; /* the bytes may have moved since it was checked */
    if (!parse(head, bytes + head->request_at, bytes + head->line_at))
        return refuse(head, 400, "the library does not take it");
    if (read_target(head, head->target) != NULL)
        return refuse(head, 400, "the library reads another target");
    head->len = head->line_at;
    return decide(head);
}

const struct field *head_field(const struct head *head, struct span name)
{
    for (unsigned i = 0; i < head->n_fields; i++) {
        if (span_is_nocase(head->fields[i].name, name))
            return &head->fields[i];
    }
    return NULL;
}

const struct field *head_only_field(const struct head *head, struct span name)
{
    const struct field *only = NULL;

    for (unsigned i = 0; i < head->n_fields; i++) {
        if (!span_is_nocase(head->fields[i].name, name))
            continue;
        if (only != NULL)
            return NULL;
        only = &head->fields[i];
    }
    return only;
}

bool head_has_token(const struct head *head, struct span name, struct span token)
{
    for (unsigned i = 0; i < head->n_fields; i++) {
        struct span list = head->fields[i].value, member;

        if (!span_is_nocase(head->fields[i].name, name))
            continue;
        while (grammar_list_next(&list, &member)) {
            if (span_is_nocase(member, token))
                return true;
        }
    }
    return false;
}
