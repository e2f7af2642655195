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

/* A response whose body a program has left to us: a file, and what the program said with it. */
struct files_response {
    struct open_file *file; /* taken over; its type is the response's, unless a field says another */
    unsigned status;
    struct span reason;         /* empty: the standard phrase */
    const struct field *fields; /* the program's, none of framing; a Content-Type among them is the file's */
    unsigned n_fields;
};

/*
 * Answers with it: the last word. With status 200 to GET and HEAD, conditions and ranges count as for any other file,
 * and what the program says of validators and ranges (ETag, a Last-Modified that is a date, Accept-Ranges) stands in
 * the place of what the file itself says. Otherwise the whole file is the body, with that status.
 */
void files_answer(struct exchange *exchange, const struct files_response *response);

/* The status for an errno of opening a file: 403, 404, 503, else 500. */
unsigned files_status_of(int error);

/* Fails with that status, and says in the log what is the matter with the path, but for 404: the last word. */
void files_fail(struct exchange *exchange, int error, struct span path);

/* Redirects to the path with a slash behind it, so that relative links are right there: the last word. */
void files_redirect_to_slash(struct exchange *exchange, struct span path);

/*
 * The site's own page for an error: appends the file at `path` (below root) and returns its type. Empty when
 * there is none or it is larger than 64 KiB: nothing is appended then, and the log says why.
 */
struct span files_read_page(struct open_files *files, const struct config_site *site, const char *path,
                            struct buffer *to);

#endif
