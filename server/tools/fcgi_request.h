/*
 * What a request of `gatehouse fcgi get` is made of: from the command line's words to the variables that the
 * application gets. They are those that the server would give it (gateway/metavars.h), for a client at 127.0.0.1. Pure.
 */
#ifndef GATEHOUSE_TOOLS_FCGI_REQUEST_H
#define GATEHOUSE_TOOLS_FCGI_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/buffer.h"
#include "config.h"
#include "fastcgi/record.h"
#include "gateway/metavars.h"
#include "http/head.h"

enum { REQUEST_MAX_FIELDS = 100 };

/* The words as the user gave them; all strings are theirs and outlive the request. NULL: not said. */
struct fcgi_request_words {
    const char *script; /* "/srv/www/a.php", "a.php?x=1" */
    const char *url;    /* "/a.php/more?x=1" */
    const char *root;
    const char *method;
    const char **fields, **params; /* "Name: value"; "NAME=VALUE" */
    unsigned n_fields, n_params;
};

struct fcgi_request {
    enum record_role role;
    struct span method;
    struct buffer url;                            /* REQUEST_URI */
    char *path, *script_filename, *document_root; /* path: of the url, decoded; script_filename: NULL without one */
    struct span script_name, path_info, query;
    struct field fields[REQUEST_MAX_FIELDS + 2];
    unsigned n_fields;
    struct config_pairs params; /* of the command line: they win over all others */
    bool has_input;
    uint64_t length;      /* of the body */
    uint64_t data_length; /* of what a filter is to filter */
    time_t data_modified;
};

/*
 * Makes a request of words; role, has_input, length and those of data are the caller's to set, before or after.
 * directory: what relative paths are relative to. Returns true, or false and says in why[] what is wrong with the
 * words. Either way the request, zeroed before, has to be freed.
 *
 * With a script, SCRIPT_FILENAME is its absolute path. SCRIPT_NAME is the part of the url's path that ends in the
 * script's name, and PATH_INFO the rest; where the name is not in it (a front controller), "/" and the name. Without a
 * url it is "/", the script's name, and what follows a "?" in the script's. DOCUMENT_ROOT, if not said: the script's
 * path without SCRIPT_NAME, or else its directory.
 * Without a script, but with a root, SCRIPT_NAME is the url's path and SCRIPT_FILENAME is below the root. With neither,
 * the application is all there is: SCRIPT_NAME is empty, PATH_INFO the url's path, and there is no SCRIPT_FILENAME.
 */
bool fcgi_request_make(struct fcgi_request *request, const struct fcgi_request_words *words, const char *directory,
                       char why[256]);

/* Calls emit for each variable; no name comes twice. */
void fcgi_request_each_variable(const struct fcgi_request *request, metavars_emit *emit, void *arg);

/* Appends BEGIN_REQUEST and all PARAMS, for request 1. Returns NULL, or the name of a variable that is too long. */
const char *fcgi_request_encode(const struct fcgi_request *request, struct buffer *to, char name[64]);

void fcgi_request_free(struct fcgi_request *request);

#endif
