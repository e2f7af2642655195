/*
 * Where the programs are that routes run, by real paths: what a path leads to is not given out as a file if it is one
 * of them, whatever links lead to it.
 */
#ifndef GATEHOUSE_SITE_SOURCES_H
#define GATEHOUSE_SITE_SOURCES_H

#include <limits.h>

#include "config.h"

struct sources;

/* The descriptors are the caller's, and outlive the struct: of the sites' roots, and of the routes' directories, -1
 * where there is none. */
struct sources *sources_create(const struct config *config, const int *root_fds, const int *route_fds);
void sources_destroy(struct sources *sources);

/*
 * The real path of what is open, as it was before it was deleted if it has been since. False: it is not known.
 */
bool sources_real_path(int fd, char path[PATH_MAX]);

/*
 * Does a route run what is at that real path: is it in its directory, its program, a file that its pool's command
 * names, below its prefix, or of its suffix below its site's root? A directory of programs that the whole site is in
 * says nothing of the site's files. Where links lead is looked up each time: they may have been turned.
 */
bool sources_has(struct sources *sources, const struct config_site *site, struct span path);

#endif
