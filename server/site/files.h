/*
 * Static files: opened beneath the site's root, sent by sendfile, validated by ETag and Last-Modified.
 *
 * Open files are kept for the next request for the same path. A kept one is used only if the path still leads to the
 * same inode with the same size and the same times of change to the nanosecond: one fstatat() instead of openat2(),
 * fstat() and close(). The content is always read from the file itself. What was not used for a while is closed.
 */
#ifndef GATEHOUSE_SITE_FILES_H
#define GATEHOUSE_SITE_FILES_H

#include <event2/event.h>

#include "config.h"
#include "http/exchange.h"
#include "site/route.h"

struct files;

/* Opens the sites' roots. NULL after a log line when one cannot be opened. */
struct files *files_create(struct event_base *base, const struct config *config);
void files_destroy(struct files *files);

/* What is at a name below the site's root - or the route's own directory, if it has one - by the site's rule for links?
 * route may be NULL. */
enum route_file files_look(struct files *files, const struct config_route *route, const struct config_site *site,
                           const char *name);

/* Answers an exchange with the file at `path` (decoded, begins with "/"): the last word. Directories are redirected to
 * their name with a slash. */
void files_serve(struct files *files, const struct config_site *site, struct exchange *exchange, struct span path);

#endif
