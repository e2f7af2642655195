/*
 * Which route of a site a path takes, and what the route makes of it. Pure: what is on the disk is asked through a
 * callback, so that the rules can be tested without one.
 *
 *   route                          path               script        SCRIPT_NAME     PATH_INFO
 *   prefix /cgi-bin with dir       /cgi-bin/a/x/y     a/x           /cgi-bin/a/x    /y         first that is a file
 *   prefix /cgi-bin without dir    the same           cgi-bin/a/x   /cgi-bin/a/x    /y
 *   suffix .php                    /b/x.php/y         b/x.php       /b/x.php        /y         first such that is a
 * file
 *   with program                   /git/a/b           -             /git            /a/b
 *   filter, prefix or exact        /f/x.txt/y         f/x.txt       /f/x.txt        /y         likewise, its file
 *   authorizer, of any pattern     /api/a/b           -             /api            /a/b       a suffix: all, and none
 *   FastCGI prefix without dir     /api/a/b           -             /api            /a/b
 *                                  /api               -             /api            -
 *   /exact with program or pool    /exact             -             /exact          -
 *
 * An exact route that denies, or that asks an authorizer, has what is below its path, too: a program's PATH_INFO.
 */
#ifndef GATEHOUSE_SITE_ROUTE_H
#define GATEHOUSE_SITE_ROUTE_H

#include <stdbool.h>

#include "base/span.h"
#include "config.h"

enum route_found {
    ROUTE_NONE,    /* no route's: a path of the site's own files */
    ROUTE_TAKEN,   /* *out is filled in */
    ROUTE_MISSING, /* a route's, but the script is not there: 404 */
};

enum route_file {
    ROUTE_FILE_NONE,
    ROUTE_FILE_REGULAR,
    ROUTE_FILE_DIRECTORY,
    ROUTE_FILE_OTHER,
};

/* What is at `name` below the route's directory (config_route.dir), or, without such or without a route, the site's
 * root? */
typedef enum route_file route_look(void *arg, const struct config_site *site, const struct config_route *route,
                                   const char *name);

enum { ROUTE_MOST_PASSED = 8 };

/* The authorizers that have let a request pass: they are not its routes any more. */
struct route_passed {
    const struct config_route *at[ROUTE_MOST_PASSED];
    unsigned n;
};

struct route_target {
    const struct config_route *route;
    struct span script; /* relative to the route's directory; empty: the route names the program, or none is needed */
    struct span script_name, path_info;
};

/* The first route whose pattern the path has, whatever is there; NULL: none. */
const struct config_route *route_first(const struct config_site *site, struct span path);

/* May `script`, relative to the route's directory, be what route_find() makes of some path? Whether there is such a
 * file is not looked at. For a route that does not stand for one program as a whole. Hidden names may not be run. */
bool route_may_run(const struct config_route *route, struct span script);

/* `path` begins with "/", is decoded and free of dot segments; the spans of *out point into it. passed may be NULL. */
enum route_found route_find(const struct config_site *site, struct span path, const struct route_passed *passed,
                            route_look *look, void *arg, struct route_target *out);

#endif
