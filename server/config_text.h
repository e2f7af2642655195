/*
 * What the texts of a configuration mean: numbers, durations, sizes, words, paths, names, addresses.
 * Pure, but that text_to_address() asks the resolver about a host name.
 */
#ifndef GATEHOUSE_CONFIG_TEXT_H
#define GATEHOUSE_CONFIG_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "config.h"

enum text_result {
    TEXT_OK,
    TEXT_BAD,
    TEXT_NO_UNIT, /* a duration that is a bare number */
};

/* A number too large for 64 bits becomes UINT64_MAX, so that it is out of any range. */
typedef enum text_result text_to_number(const char *text, uint64_t *number_out);

text_to_number text_to_count;    /* 64 */
text_to_number text_to_size;     /* 65536 64k 16m 1g, in bytes */
text_to_number text_to_duration; /* 250ms 10s 5m 1h, in milliseconds */

/* Adds the words of a text: white space divides, double quotes group. False: a quote is not closed. */
bool text_to_words(const char *text, struct config_words *words);

/* An absolute path, owned by the caller. "." and empty segments go; ".." stays, since a link may stand before it. */
char *text_to_path(const char *text, const char *directory);

/*
 * "127.0.0.1:8080", "[::1]:80", "localhost:8080", "unix:/run/x.sock"; to listen on, also "*:80" (which is [::]:80) and
 * port 0. Returns NULL, or why not; then nothing has to be freed.
 */
const char *text_to_address(const char *text, const char *directory, bool is_listen,
                            struct config_address *address_out);

/* The same for a FastCGI application: a host name is not looked up, and there is also "srv:NAME". Text, kind, and
 * address or name and port are set. */
const char *text_to_remote(const char *text, const char *directory, struct config_remote *remote_out);
/* "10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1". False: it is none, or has bits behind the network's. */
bool text_to_network(const char *text, struct config_network *network_out);

/* A host name (RFC 1123 section 2.1, and "_"), without its final dot. */
bool text_is_host(struct span text);

/* The name of an environment variable: letters, digits, "_", no digit first. */
bool text_is_variable(const char *text);

/*
 * How many letters are to be changed, added, dropped or swapped with their neighbour, to make one word of the other?
 * TEXT_FAR: more than three, or more than a third of them; then nobody meant the one by the other.
 */
enum { TEXT_FAR = 4 };
unsigned text_distance(const char *a, const char *b);

#endif
