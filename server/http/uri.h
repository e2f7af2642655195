/*
 * Where a request points: the target's path, decoded once and free of dot segments, and its query, untouched.
 * Routing, SCRIPT_NAME, PATH_INFO and files all use this one path. Pure.
 *
 * The rules, each the same everywhere:
 *   %XX           decoded once; %2f becomes "/", then counts as one; %00 and a bad %-sequence refuse the request (400)
 *   "." and ".."  removed after decoding (RFC 3986 section 5.2.4); ".." above the root refuses the request (400)
 *   "//"          becomes "/"
 *   backslash     %5c is a byte like any other
 *   other bytes   kept as they are; nothing is taken for UTF-8
 */
#ifndef GATEHOUSE_HTTP_URI_H
#define GATEHOUSE_HTTP_URI_H

#include "base/buffer.h"
#include "base/span.h"

struct uri {
    struct span path;  /* begins with "/"; a NUL stands behind its last byte, and none within */
    struct span query; /* raw, without the "?" */
    bool has_query;    /* "/a?" has an empty one, "/a" has none */
};

/*
 * Splits and decodes path_and_query (empty stands for "/"). The path is written to `room`, which must have
 * path_and_query.len + 2 bytes and outlive *out. Returns 0, or -1: to be answered with 400, *why_out says why.
 */
int uri_read(struct uri *out, struct span path_and_query, char *room, const char **why_out);

/* Appends "?" and the query, if there is one, with every byte that RFC 3986 does not allow in one as %XX; what is
 * escaped already stays as it is. For Location. */
void uri_append_query(struct buffer *to, const struct uri *uri);

/* Appends the path with every byte that RFC 3986 does not allow in one as %XX: for Location and links. */
void uri_append_encoded(struct buffer *to, struct span path);

#endif
