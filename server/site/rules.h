/* What a site's configuration says of paths and names. Pure. */
#ifndef GATEHOUSE_SITE_RULES_H
#define GATEHOUSE_SITE_RULES_H

#include "base/buffer.h"
#include "config.h"
#include "http/uri.h"

/* Does a segment of the path match one of the site's `hidden` patterns? /.well-known (RFC 8615) never does. */
bool rules_is_hidden(const struct config_site *site, struct span path);

/* Appends what a word of `try` stands for: "$path" at its beginning is the path. Neither word nor path end in two
 * slashes in it. */
void rules_candidate(struct buffer *to, const char *word, struct span path);

/*
 * Appends the Location of a redirecting route: its `to`, with $path for the request's path, $rest for the part of it
 * that a prefix route's * stands for, $host for the host that was asked for. The query goes along unless `to` has one.
 * The request's part is escaped as RFC 3986 has it.
 */
void rules_location(struct buffer *to, const struct config_route *route, const struct uri *uri, struct span host);

/* The file below root for an error of that status: error_page[404], else error_page[4xx], else NULL. */
const char *rules_error_page(const struct config_site *site, unsigned status);

#endif
