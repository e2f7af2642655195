/*
 * What a path of a site stands for: a route's program, a file, an index file, or what `try` says. Pure: what is on the
 * disk is asked through route.h's callback.
 *
 *     path   is a route's                       that route
 *            is not, and the site has `try`     the first candidate that is there: a file, a directory with an index
 *                                               file or a listing, a route's path; the last one in any case
 *            is not, and ends in "/"            its first index file, which may be a route's; or the directory
 *            else                               the file
 */
#ifndef GATEHOUSE_SITE_RESOLVE_H
#define GATEHOUSE_SITE_RESOLVE_H

#include "base/buffer.h"
#include "site/route.h"

enum resolved_as {
    RESOLVED_FILE,    /* .path: a file's or, with "/" behind it, a directory's; it may not be there */
    RESOLVED_ROUTE,   /* .path, .target */
    RESOLVED_MISSING, /* likewise, but the route's script is not there: 404 */
    RESOLVED_SLASH,   /* the directory of that name: redirect to the path with "/" behind it */
    RESOLVED_STATUS,  /* .status: try = ... =404 */
};

struct resolved {
    enum resolved_as as;
    struct span path; /* with a NUL behind it: the one that was asked for, or another in the room */
    struct route_target target;
    unsigned status;
};

/* `path` is decoded and free of dot segments, begins with "/" and has a NUL behind it. `room` is the caller's and must
 * live as long as *out. passed may be NULL. */
void resolve(const struct config_site *site, struct span path, const struct route_passed *passed, route_look *look,
             void *arg, struct buffer *room, struct resolved *out);

#endif
