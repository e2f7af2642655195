/*
 * The configuration: an INI file (read with inih) turned into structs, or into a list of errors.
 *
 * One table in config_keys.c describes every key: section, name, type, default, place in the struct, or "not supported
 * yet". Reading, error messages with suggestions, and later the printing of the effective configuration follow from
 * it. Pure but for reading the file itself and looking whether the things it names exist.
 *
 * The structs are made once, before any other process starts, and never change; every process has them. Objects are
 * known to each other by pointer and across processes by their index.
 */
#ifndef GATEHOUSE_CONFIG_H
#define GATEHOUSE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/beneath.h"
#include "base/span.h"
#include "config_pool.h"
#include "config_types.h"

enum access_format { ACCESS_COMBINED, ACCESS_JSON, ACCESS_PRETTY };

enum gateway_kind { GATEWAY_STATIC, GATEWAY_CGI, GATEWAY_FASTCGI, GATEWAY_DENY, GATEWAY_REDIRECT };

/* FastCGI 1.0 section 6. After an authorizer that allows it, the request goes on to the next route that matches. */
enum route_role { ROLE_RESPONDER, ROLE_AUTHORIZER, ROLE_FILTER };

/* When does a program start: with its request's body whole, at once, or once a body in chunks is whole or pauses? */
enum buffering { BUFFERING_OFF, BUFFERING_ON, BUFFERING_AUTO };

/* Of a cgroup of the route's own; 0: no such limit. cpu: percent of one processor. */
struct config_cgroup {
    uint64_t memory;
    unsigned pids, cpu;
};

struct config_server {
    struct config_addresses listen; /* at least one; default 127.0.0.1:8080 */
    unsigned fronts;                /* "auto" has been turned into the number of cores; 1 to 64 */
    struct config_user user;
    char *access_log; /* "-" is stdout; NULL is off */
    enum access_format access_format;
    char *error_log; /* "-" is stderr */
    unsigned max_connections, max_connections_per_client, keepalive_requests, max_fields;
    uint64_t min_rate; /* bytes a second; 0: none */
    uint64_t header_timeout_ms, body_timeout_ms, keepalive_timeout_ms, drain_timeout_ms;
    uint64_t max_head, max_target, max_field, max_body, max_chunk_overhead, max_trailers, max_temp;
    char *status; /* the prefix of the status pages, "/-/"; NULL is off */
    struct config_networks status_allow;
    bool server_timing;
    bool has_trace; /* set by the command line: FastCGI records are told of requests that fail */
    char *temp_dir; /* for request bodies that are held */
    char *resolver; /* "127.0.0.1:53,[::1]:53": who is asked for the addresses of servers; NULL: the system's */
};

enum route_match {
    ROUTE_PREFIX, /* "/cgi-bin/" followed by "*": .pattern is "/cgi-bin" */
    ROUTE_SUFFIX, /* "*.php": .pattern is ".php" */
    ROUTE_EXACT,  /* "/exact" */
};

struct config_route {
    unsigned index; /* over all sites: the number that processes call it by */
    unsigned line;  /* of the file, for messages */
    struct config_site *site;
    char *text; /* as written: "*.php" */
    enum route_match match;
    char *pattern;
    enum gateway_kind gateway;
    char *dir;     /* absolute; CGI: where the prefix's files are; NULL: below the site's root, at the URL's own path */
    char *program; /* absolute; one program for the whole prefix; NULL: the file that the path names */
    struct config_pairs interpreters;
    enum route_role role;
    enum buffering request_buffering;
    struct config_words sendfile_dirs; /* below which X-Sendfile may name a file; absolute */
    struct config_words variables;     /* that an authorizer may set for CGI programs, too */
    struct config_pool *pool;          /* FastCGI only, never NULL then */
    char *pool_name;                   /* private to config_*.c */
    char *to;                          /* redirect: where to, see rules.h */
    unsigned status;                   /* ... and how: 301, 302, 303, 307, 308 */
    uint64_t timeout_ms, idle_timeout_ms, queue_timeout_ms;
    unsigned max_running, queue;
    struct config_user user;
    struct config_rlimits rlimits;
    struct config_cgroup cgroup;
    bool no_new_privs, pass_authorization;
    struct config_pairs env;
    struct config_words pass_env;
    char *identity; /* a text that differs when the route, or its site, is set otherwise */
};

struct config_site {
    unsigned index;
    unsigned line;
    struct config_words names; /* lower case; "*" alone answers any */
    char *root;                /* absolute */
    struct config_words index_files;
    struct config_words hidden;      /* patterns of file names that are answered with 403 */
    struct config_words candidates;  /* of try: "$path", "$path/", "/index.php", last perhaps "=404"; empty: none */
    struct config_pairs error_pages; /* "404" or "5xx", and a file below root, which begins with "/" */
    enum symlinks symlinks;
    bool has_listings;
    bool has_precompressed;       /* a file's .br, .zst and .gz siblings stand for it */
    char *identity;               /* see config_route */
    struct config_route **routes; /* in the order of the file: first match wins */
    size_t n_routes;
};

struct config {
    char *file;      /* as given, for messages */
    char *directory; /* absolute: what relative paths are relative to */
    struct config_server server;
    struct config_site **sites; /* the first answers what no other names; at least one */
    size_t n_sites;
    struct config_route **routes; /* all of them, by index */
    size_t n_routes;
    struct config_pool **pools; /* by index */
    size_t n_pools;
};

/*
 * Reads a file. Returns the configuration, owned by the caller, or NULL when anything is wrong with it: then every
 * error has been written to `errors`, a line each, "FILE:LINE: what is wrong; the cure".
 */
struct config *config_load(const char *file, FILE *errors);

/* The same from text. `name` stands for the file in messages, relative paths are relative to `directory`. */
struct config *config_parse(const char *name, const char *text, const char *directory, FILE *errors);

void config_free(struct config *config);

/* The site that answers for a host name (no port; empty: none was sent), never NULL. */
const struct config_site *config_site_for(const struct config *config, struct span host);

#endif
