/*
 * The request meta-variables (RFC 3875 section 4.1), enumerated once, for both gateways: cgi/ encodes them as an
 * environment block, fastcgi/ as name-value pairs. Pure.
 */
#ifndef GATEHOUSE_GATEWAY_METAVARS_H
#define GATEHOUSE_GATEWAY_METAVARS_H

#include <stdbool.h>
#include <time.h>

#include "base/span.h"
#include "config.h"
#include "http/head.h"

/* What the variables are made of. Every span must outlive the enumeration. Empty ones marked "or empty" are left
 * out. */
struct metavars {
    const struct head *head;
    struct span query;           /* raw */
    struct span script_name;     /* decoded path of the script, "" or beginning with "/" */
    struct span path_info;       /* decoded; or empty */
    struct span script_filename; /* absolute path of the file */
    struct span document_root;
    struct span server_name; /* of the request's Host if it sent one, else the address of the socket */
    struct span server_addr, server_port, remote_addr, remote_port; /* text; remote_port or empty */
    struct span request_id;
    bool is_https;
    bool is_redirected;        /* locally: the body that the client sent, and its type, are not this program's */
    bool passes_authorization; /* HTTP_AUTHORIZATION is set */
    bool length_known;         /* CONTENT_LENGTH is set to .length; else it is left out */
    uint64_t length;
    enum route_role role;
    uint64_t data_length; /* of a filter's file */
    time_t data_modified;
    struct span granted;            /* by authorizers, see permit.h; or empty. All others win over them */
    const struct config_pairs *env; /* the route's own; or NULL. They win over all others */
};

typedef void metavars_emit(void *arg, struct span name, struct span value);

/*
 * Calls emit once for each variable; no name comes twice. The spans live until emit returns.
 *
 * GATEWAY_INTERFACE SERVER_SOFTWARE SERVER_NAME SERVER_ADDR SERVER_PORT SERVER_PROTOCOL REQUEST_METHOD REQUEST_URI
 * REQUEST_SCHEME HTTPS (TLS only) QUERY_STRING SCRIPT_NAME SCRIPT_FILENAME DOCUMENT_ROOT PATH_INFO and PATH_TRANSLATED
 * (with a path_info only) REMOTE_ADDR REMOTE_PORT CONTENT_LENGTH CONTENT_TYPE REDIRECT_STATUS=200 REQUEST_ID, and
 * HTTP_* of the request's fields: "-" becomes "_", letters upper case; fields of one name are joined with ", "
 * (Cookie with "; "). HTTP_HOST is the Host as sent; an absolute target's authority stands in its place.
 * Never HTTP_PROXY, HTTP_CONTENT_LENGTH, HTTP_CONTENT_TYPE, HTTP_TRANSFER_ENCODING, HTTP_CONNECTION, HTTP_KEEP_ALIVE,
 * HTTP_TE, HTTP_TRAILER, HTTP_UPGRADE, HTTP_EXPECT, HTTP_PROXY_AUTHORIZATION, but by the route; HTTP_AUTHORIZATION
 * only with .passes_authorization.
 * Fields whose names hold anything but letters, digits and "-" make no variable.
 *
 * An authorizer gets no CONTENT_LENGTH, PATH_INFO, PATH_TRANSLATED and SCRIPT_NAME (FastCGI specification section
 * 6.3), a filter FCGI_DATA_LENGTH and FCGI_DATA_LAST_MOD (section 6.4; seconds since 1970), too.
 */
void metavars_each(const struct metavars *vars, metavars_emit *emit, void *arg);

/*
 * Do the request's fields hold a name that, mapped, collides with another's ("X_Foo" beside "X-Foo",
 * "Content_Length")? Such a request is refused with 400: one of the two is meant to pass for the other.
 * Returns the offending field, or NULL.
 */
const struct field *metavars_collision(const struct head *head);

/* May an authorizer set a variable of this name for the FastCGI programs behind it? Not one that is set for each
 * request, nor HTTP_*, nor one that steers loaders, shells and interpreters: LD_PRELOAD, PATH, PERL5LIB. */
bool metavars_is_grantable(struct span name);

/* Is it a name of the above, or HTTP_* of capital letters, digits and "_", but for those that are never set? */
bool metavars_is_name(struct span name);

/*
 * May a front hand this environment name to the keeper for a program of the route? The names above; and where the
 * route's site has authorizers AUTH_*, REMOTE_*, and what these authorizers' `variables` name. Nothing else: there are
 * too many names that steer programs, and a front which is taken over must not be able to set any.
 */
bool metavars_may_set(const struct config_route *route, struct span name);

#endif
