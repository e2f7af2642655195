/*
 * Static files as answers: which representation (RFC 9110 section 12), on what conditions (section 13), which part of
 * it (section 14); directories as listings.
 */
#ifndef GATEHOUSE_SITE_FILES_H
#define GATEHOUSE_SITE_FILES_H

#include <event2/event.h>

#include "config.h"
#include "http/exchange.h"
#include "site/open_files.h"

/*
 * Answers an exchange with the file at `path` (decoded, begins with "/", a NUL behind it): the last word. A directory
 * is redirected to its name with a slash; with the slash it is listed, if the site does that. as_source: see
 * open_files_take().
 */
void files_serve(struct open_files *files, const struct config_site *site, struct exchange *exchange, struct span path,
                 bool as_source);

/* Redirects to the path with a slash behind it, so that relative links are right there: the last word. */
void files_redirect_to_slash(struct exchange *exchange, struct span path);

/*
 * The site's own page for an error: appends the file at `path` (below root) and returns its type. Empty when
 * there is none or it is larger than 64 KiB: nothing is appended then, and the log says why.
 */
struct span files_read_page(struct open_files *files, const struct config_site *site, const char *path,
                            struct buffer *to);

#endif
