/*
 * Private to the configuration: what is known of a key, and the types of values.
 *
 * A parser takes a setting's value into what `to` points at: zero, or a value that it may replace, or, for keys that
 * repeat, a list to add to. It returns true, or notes an error and returns false.
 */
#ifndef GATEHOUSE_CONFIG_VALUES_H
#define GATEHOUSE_CONFIG_VALUES_H

#include <stdbool.h>
#include <stddef.h>

#include "config_keys.h"

typedef bool value_parse(struct reading *r, const struct setting *s, void *to);

struct key {
    enum section section;
    const char *name;
    const char *subscript;      /* what stands in "[]" behind the name, for messages; NULL: nothing may */
    value_parse *parse;         /* NULL: not supported yet */
    size_t offset;              /* of the member in the section's struct */
    const char *preset;         /* the default; NULL: none. It and the range are as a user would write them */
    const char *preset_fastcgi; /* where the default is another for a FastCGI route */
    const char *least, *most;   /* the range of a number */
    const char *words[6];       /* the names of an enum's values, in its order; NULL ends them */
    unsigned only;              /* the set of variants that have this key, see keys_finish(); 0: all */
    bool repeats;
    bool renews; /* of a pool: processes with another value have to be replaced by others */
    bool may_be_empty;
};

value_parse value_count;           /* unsigned */
value_parse value_limit;           /* a count, as uint64_t */
value_parse value_fronts;          /* a count, or auto: unsigned */
value_parse value_size;            /* uint64_t, bytes */
value_parse value_duration;        /* uint64_t, milliseconds */
value_parse value_seconds;         /* uint64_t */
value_parse value_priority;        /* int: -20 to 19 */
value_parse value_switch;          /* bool */
value_parse value_choice;          /* an enum, by key.words */
value_parse value_name;            /* char *: any text */
value_parse value_file_names;      /* struct config_words */
value_parse value_patterns;        /* struct config_words: of file names, as fnmatch(3) takes them */
value_parse value_candidates;      /* struct config_words: try = ... */
value_parse value_error_page;      /* struct config_pairs: error_page[404] = /path */
value_parse value_location;        /* char *: to = ... */
value_parse value_redirect_status; /* unsigned */
value_parse value_variables;       /* struct config_words: names of variables */
value_parse value_pair;            /* struct config_pairs: env[NAME] = text */
value_parse value_listen;          /* struct config_addresses: to listen on */
value_parse value_prefix;          /* char *: a path that begins and ends with "/"; NULL is off */
value_parse value_networks;        /* struct config_networks: more of them */

/* config_remotes.c */
value_parse value_server;   /* struct config_remotes: one more */
value_parse value_hash;     /* char *: a cookie's name; NULL: the client's address */
value_parse value_health;   /* struct config_health */
value_parse value_resolver; /* char *: addresses with ports, "," between */

/* What follows from a pool's servers, when all of its section is read. */
void remotes_finish(struct config_pool *pool);

value_parse value_user; /* struct config_user; left alone where the server is not root's */

/* These are absolute paths, of type char *, and what they name is there. */
value_parse value_directory;
value_parse value_directories; /* struct config_words: one more */
value_parse value_program;
value_parse value_interpreter; /* struct config_pairs: interpreter[.suffix] = a path, or a name to be found in PATH */
value_parse value_command;     /* struct config_words: argv, its first word likewise; or "$script" alone */

value_parse value_log;        /* char *: absolute path, or "-" */
value_parse value_slowlog;    /* the same, or NULL for "-" */
value_parse value_access_log; /* the same, or NULL: off */

#endif
