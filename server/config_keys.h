/*
 * Private to the configuration: what its parts share while a file is being read.
 *
 *     config.c           files, lines, errors, and the public functions
 *     config_sections.c  each kind of section: its header, and what must be true of it as a whole
 *     config_keys.c      the table of keys
 *     config_values.c    a function for each type of value
 *     config_remotes.c   those about FastCGI applications that run already
 *     config_text.c      numbers, durations, words, paths, addresses
 */
#ifndef GATEHOUSE_CONFIG_KEYS_H
#define GATEHOUSE_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "config.h"

enum section {
    SECTION_NONE,   /* before the first header */
    SECTION_FAULTY, /* its header was refused: what it holds is passed over */
    SECTION_SERVER,
    SECTION_SITE,
    SECTION_ROUTE,
    SECTION_POOL,
};

/* From SECTION_SERVER on: "server", ... */
extern const char *const section_names[SECTION_POOL + 1];

/* A "name = value" of the file, or a default. */
struct setting {
    const struct key *key;
    const char *name;      /* as written: "env[APP]" */
    const char *subscript; /* "APP"; NULL: none */
    const char *value;
    unsigned line; /* 0: it is a default */
};

/* A setting of the present section that was read: for "given twice", for what is missing, for what does not belong. */
struct seen {
    const struct key *key;
    char *name;
    unsigned line;
    bool is_good;
};

/* A route's "pool = NAME": pools may stand below the routes that use them. */
struct reference {
    struct config_route *route;
    unsigned line;
};

struct reading_error {
    unsigned line; /* 0: it is the whole file's */
    unsigned order;
    char *text;
};

struct reading {
    struct config *config;
    const char *rest;   /* of the file's text */
    unsigned line;      /* the present one; 0 behind the last */
    bool is_unanswered; /* inih was given this line and has made no setting of it */

    enum section section;
    char *label;           /* the present section's header, for messages: "[pool php]" */
    unsigned section_line; /* and its line */
    void *object;          /* struct config_server, config_site, config_route or config_pool, by .section */
    struct buffer identity;
    struct seen *seen; /* in the present section */
    size_t n_seen;

    unsigned server_line; /* of [server]; 0: there was none */
    struct reference *references;
    size_t n_references;
    struct reading_error *errors;
    size_t n_errors;
};

/* Notes an error in a line (0: in none); the text has no LF. Returns false, for the caller to return. */
bool reading_refuse(struct reading *r, unsigned line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The first setting of that key in the present section, be it well or not; NULL: there is none. */
const struct seen *reading_seen(const struct reading *r, const char *key);

/* Leaves the present section, if any: its checks, its defaults. */
void section_end(struct reading *r);

/* Begins another; `words` are the header's. */
void section_begin(struct reading *r, const struct config_words *words);

/* When all sections are read: what concerns several of them. */
void sections_finish(struct reading *r);

/* Takes one setting into the present section's object, or notes what is wrong with it. */
void key_take(struct reading *r, const char *name, const char *value);

/*
 * The present section turned out to be of one variant: enum gateway_kind of a route, enum pool_kind of a pool; others
 * have none, -1. Refuses the keys of other variants, and gives what was not set its default.
 */
void keys_finish(struct reading *r, int variant);

#endif
