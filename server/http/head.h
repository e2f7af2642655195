/*
 * The head of a request: from raw bytes to a checked struct, or to the status that refuses it.
 *
 * Pure: no socket, no clock, no allocation. The only file that includes http_parser.h is head.c, so that another
 * parser can take its place. The library alone is not strict (RFC 9112 demands more), so head_read() checks every line
 * by the grammar as it comes; at the end of the head it has the library parse it, then checks what the fields mean
 * together: Host, Content-Length, Transfer-Encoding, Expect.
 */
#ifndef GATEHOUSE_HTTP_HEAD_H
#define GATEHOUSE_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

struct field {
    struct span name;
    struct span value; /* without the white space around it; may be empty */
};

struct head_limits {
    size_t max_head;     /* bytes of the whole head, request line and final empty line included; beyond: 431 */
    size_t max_target;   /* bytes of the request target; beyond: 414. At least 8,000 (RFC 9112 section 3) */
    size_t max_field;    /* bytes of one field line, without its CR LF; beyond: 431 */
    unsigned max_fields; /* field lines; beyond: 431 */
};

enum method {
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_OPTIONS,
    METHOD_OTHER, /* known to the registry of methods (PUT, DELETE, PROPFIND...); head.method_text has it */
};

enum target_form {                  /* RFC 9112 section 3.2 */
                   TARGET_ORIGIN,   /* "/path?query" */
                   TARGET_ABSOLUTE, /* "http://host/path?query"; .path_and_query may be empty: then it stands for "/" */
                   TARGET_ASTERISK, /* "*", OPTIONS only; so is the absolute form "http://host" then */
};

enum head_result {
    HEAD_MORE, /* not complete and nothing wrong so far: call again with more bytes behind the same ones */
    HEAD_DONE,
    HEAD_REFUSED, /* answer head.status and close: what follows cannot be told from a body */
};

/*
 * Every span points into the bytes that were given to head_read(); the fields stand in the array given to
 * head_init(). On HEAD_REFUSED only .status, .why and, where they were understood, .method, .minor are set.
 */
struct head {
    enum method method;
    struct span method_text;
    unsigned minor; /* HTTP/1.x: 0, or 1 for any higher (RFC 9110 section 2.5) */
    enum target_form form;
    struct span target;         /* as sent */
    struct span path_and_query; /* of the origin form, or the absolute form's */
    struct span authority; /* as sent: of the absolute form, else the Host field's value; empty with HTTP/1.0 only */
    struct span host;      /* of the authority, without port; an IPv6 literal with its brackets */
    unsigned n_fields;
    struct field *fields;
    bool is_chunked;      /* a body in chunks follows (RFC 9112 section 7.1) */
    bool has_length;      /* Content-Length was sent */
    uint64_t length;      /* and its value, at most INT64_MAX; 0 without */
    bool keep_alive;      /* the client's side of RFC 9112 section 9.3 */
    bool expect_continue; /* Expect: 100-continue, HTTP/1.1 only */
    size_t len;           /* of the head in bytes, leading empty lines and the final one included */

    unsigned status; /* of a refused head: 400, 413, 414, 417, 431, 501, 505 */
    const char *why; /* a static text for the log: "space before the colon" */

    /* private: what earlier calls have found out */
    size_t scanned;        /* how far they have looked for a line's end */
    size_t line_at;        /* where the line begins that has not ended */
    size_t request_at;     /* where the request line begins */
    unsigned n_empty;      /* empty lines before it */
    unsigned n_lines;      /* field lines that were checked */
    bool has_request_line; /* it was checked, too */
    bool is_unknown;       /* its method is nobody's */
    bool has_framing;      /* one of the field lines is not for the library's eyes */
    unsigned max_fields;   /* room in .fields */
};

/* Prepares for one head. fields has room for limits.max_fields and outlives the struct. */
void head_init(struct head *head, struct field *fields, unsigned max_fields);

/*
 * Looks at all len bytes received so far for this head. Called again when more have come, always from the first
 * byte on (the bytes may have moved); what an earlier call has scanned for the end is not scanned again. Any way of
 * cutting the input gives the same final result, except that a head that is too long may be refused sooner.
 * A request that has sent nothing wrong but too much is refused as soon as a limit is passed.
 */
enum head_result head_read(struct head *head, const struct head_limits *limits, const char *bytes, size_t len);

/* The first field of that name, or NULL: absent. */
const struct field *head_field(const struct head *head, struct span name);

/* The only field of that name, or NULL: absent, or sent several times, which makes a field that is no list invalid (RFC
 * 9110 section 5.3). */
const struct field *head_only_field(const struct head *head, struct span name);

/* Is the token in the comma-separated list that all fields of that name form together (RFC 9110 section 5.6.1)? */
bool head_has_token(const struct head *head, struct span name, struct span token);

#endif
