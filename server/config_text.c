/*
 * Small parsers, each from a text to what it means, or to "no". They report nothing: the caller knows the key, the
 * line and the words for the user.
 */
#include "config_text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/memory.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit sizes[] = {{"", 1}, {"k", 1024}, {"m", 1024 * 1024}, {"g", 1024 * 1024 * 1024}, {NULL, 0}};
static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {NULL, 0}};

static enum text_result number_with_unit(const char *text, const struct unit *units, uint64_t *number_out)
{
    const char *at = text;
    bool too_large = false;
    uint64_t n = 0;

    for (; isdigit((unsigned char)*at); at++) {
        too_large |= __builtin_mul_overflow(n, 10, &n);
        too_large |= __builtin_add_overflow(n, (unsigned)(*at - '0'), &n);
    }
    if (at == text)
        return TEXT_BAD;
    while (units->name != NULL && strcmp(at, units->name) != 0)
        units++;
    if (units->name == NULL && *at == '\0' && n == 0 && !too_large) {
        *number_out = 0; /* nothing is nothing in every unit */
        return TEXT_OK;
    }
    if (units->name == NULL)
        return *at == '\0' ? TEXT_NO_UNIT : TEXT_BAD;
    too_large |= __builtin_mul_overflow(n, units->factor, &n);
    *number_out = too_large ? UINT64_MAX : n;
    return TEXT_OK;
}

enum text_result text_to_count(const char *text, uint64_t *number_out)
{
    return number_with_unit(text, no_units, number_out);
}

enum text_result text_to_size(const char *text, uint64_t *number_out)
{
    return number_with_unit(text, sizes, number_out);
}

enum text_result text_to_duration(const char *text, uint64_t *number_out)
{
    return number_with_unit(text, durations, number_out);
}

static void add_word(struct config_words *words, struct span word)
{
    words->at = memory_resize(words->at, (words->n + 2) * sizeof *words->at);
    words->at[words->n++] = memory_copy(word.at, word.len);
    words->at[words->n] = NULL;
}

bool text_to_words(const char *text, struct config_words *words)
{
    char *word = memory_zeroed(strlen(text) + 1, 1);
    bool is_quoted = false, has_word = false;
    size_t len = 0;

    for (; *text != '\0'; text++) {
        if (*text == '"') {
            is_quoted = !is_quoted;
            has_word = true;
        } else if (is_quoted || !isspace((unsigned char)*text)) {
            word[len++] = *text;
            has_word = true;
        } else if (has_word) {
            add_word(words, (struct span){word, len});
            has_word = false;
            len = 0;
        }
    }
    if (has_word)
        add_word(words, (struct span){word, len});
    free(word);
    return !is_quoted;
}

static void add_segments(struct buffer *path, const char *text)
{
    while (*text != '\0') {
        struct span segment = {text, strcspn(text, "/")};

        if (segment.len > 0 && !span_is(segment, SPAN("."))) {
            buffer_append(path, "/", 1);
            buffer_append_span(path, segment);
        }
        text += segment.len;
        text += strspn(text, "/");
    }
}

char *text_to_path(const char *text, const char *directory)
{
    struct buffer path = {0};
    char *copy;

    if (text[0] != '/')
        add_segments(&path, directory);
    add_segments(&path, text);
    if (buffer_len(&path) == 0)
        buffer_append(&path, "/", 1);
    copy = memory_copy(buffer_at(&path), buffer_len(&path));
    buffer_free(&path);
    return copy;
}

bool text_to_network(const char *text, struct config_network *network_out)
{
    size_t len = strcspn(text, "/");
    char address[INET6_ADDRSTRLEN];
    uint64_t bits;

    memset(network_out, 0, sizeof *network_out);
    if (len >= sizeof address)
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    network_out->family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
    if (inet_pton(network_out->family, address, network_out->address) != 1)
        return false;
    unsigned most = network_out->family == AF_INET6 ? 128 : 32;
    if (text[len] == '\0')
        bits = most;
    else if (text_to_count(text + len + 1, &bits) != TEXT_OK || bits > most)
        return false;
    network_out->bits = (unsigned)bits;
    for (unsigned i = network_out->bits; i < most; i++)
        if ((network_out->address[i / 8] & 0x80 >> i % 8) != 0)
            return false; /* which of the two was meant? */
    return true;
}

bool text_is_host(struct span text)
{
    size_t label = 0; /* bytes of it so far */

    if (text.len == 0 || text.len > 253)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool is_edge = label == 0 || i + 1 == text.len || text.at[i + 1] == '.';

        if (c == '.' && label > 0 && i + 1 < text.len) {
            label = 0;
            continue;
        }
        if (!isalnum((unsigned char)c) && c != '_' && (c != '-' || is_edge))
            return false;
        if (++label > 63)
            return false;
    }
    return true;
}

bool text_is_variable(const char *text)
{
    if (!isalpha((unsigned char)*text) && *text != '_')
        return false;
    while (isalnum((unsigned char)*text) || *text == '_')
        text++;
    return *text == '\0';
}

static const char *unix_address(const char *text, const char *directory, struct config_address *to)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = text_to_path(text, directory);
    size_t len = strlen(path);

    if (len >= sizeof address.sun_path) {
        free(path);
        return "the path of a socket has at most 107 bytes";
    }
    memcpy(address.sun_path, path, len);
    free(path);
    memcpy(&to->address, &address, sizeof address);
    to->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return NULL;
}

static const char *resolve(const char *host, int flags, struct config_address *to)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *found;
    int error = getaddrinfo(host, NULL, &hints, &found);

    if (error != 0)
        return gai_strerror(error);
    memcpy(&to->address, found->ai_addr, found->ai_addrlen);
    to->len = found->ai_addrlen;
    freeaddrinfo(found);
    return NULL;
}

/* Without its port. `host` is changed. */
static const char *host_address(char *host, bool is_listen, struct config_address *to)
{
    size_t len = strlen(host);

    if (len == 0)
        return "needs a host before the port, like 127.0.0.1:8080";
    if (strcmp(host, "*") == 0)
        return is_listen ? resolve("::", AI_NUMERICHOST, to) : "\"*\" is no address to connect to";
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        return resolve(host + 1, AI_NUMERICHOST, to) == NULL ? NULL : "not an IPv6 address";
    }
    if (strchr(host, ':') != NULL)
        return "an IPv6 address stands in brackets, like [::1]:8080";
    if (strspn(host, "0123456789.") == len) {
        struct in_addr strict; /* getaddrinfo() would take "127.1" as well */

        return inet_pton(AF_INET, host, &strict) == 1 ? resolve(host, AI_NUMERICHOST, to) : "not an IPv4 address";
    }
    return text_is_host((struct span){host, len}) ? resolve(host, 0, to) : "not a host name";
}

static const char *set_port(struct config_address *to, const char *text, bool is_listen)
{
    uint64_t port;

    if (text_to_count(text, &port) != TEXT_OK || port > UINT16_MAX || (port == 0 && !is_listen))
        return is_listen ? "the port is from 0 to 65535" : "the port is from 1 to 65535";
    if (to->address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&to->address)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)&to->address)->sin_port = htons((uint16_t)port);
    return NULL;
}

const char *text_to_address(const char *text, const char *directory, bool is_listen, struct config_address *address_out)
{
    struct config_address address = {0};
    const char *colon = strrchr(text, ':');
    const char *why;

    if (strncmp(text, "unix:", 5) == 0) {
        why = text[5] == '\0' ? "needs a path, like unix:/run/x.sock" : unix_address(text + 5, directory, &address);
    } else if (colon == NULL || colon[1] == '\0' || strchr(colon, ']') != NULL) {
        why = "needs a port, like localhost:8080";
    } else {
        char *host = memory_copy(text, (size_t)(colon - text));

        why = host_address(host, is_listen, &address);
        if (why == NULL)
            why = set_port(&address, colon + 1, is_listen);
        free(host);
    }
    if (why != NULL)
        return why;
    address.text = memory_copy(text, strlen(text));
    *address_out = address;
    return NULL;
}

static bool is_numeric(struct span host)
{
    for (size_t i = 0; i < host.len; i++)
        if (strchr("0123456789.", host.at[i]) == NULL)
            return strchr(":[]*", host.at[i]) != NULL;
    return true;
}

static const char *named_remote(struct span name, const char *port, struct config_remote *to)
{
    struct config_address address = {0};
    const char *why = NULL;

    if (!text_is_host(name))
        return "not a host name";
    if (port != NULL)
        why = set_port(&address, port, false);
    if (why != NULL)
        return why;
    to->kind = port != NULL ? REMOTE_HOST : REMOTE_SRV;
    to->port = ntohs(((struct sockaddr_in *)&address.address)->sin_port);
    to->name = memory_copy(name.at, name.len);
    return NULL;
}

const char *text_to_remote(const char *text, const char *directory, struct config_remote *remote_out)
{
    struct config_remote remote = {.kind = REMOTE_ADDRESS};
    const char *colon = strrchr(text, ':');
    const char *why;

    if (strncmp(text, "srv:", 4) == 0) {
        why = named_remote(span_of(text + 4), NULL, &remote);
    } else if (strncmp(text, "unix:", 5) == 0 || colon == NULL || colon[1] == '\0' ||
               is_numeric((struct span){text, (size_t)(colon - text)})) {
        struct config_address address;

        why = text_to_address(text, directory, false, &address);
        if (why == NULL) {
            memcpy(&remote.address, &address.address, sizeof remote.address);
            remote.len = address.len;
            free(address.text);
        }
    } else {
        why = named_remote((struct span){text, (size_t)(colon - text)}, colon + 1, &remote);
    }
    if (why != NULL)
        return why;
    remote.text = memory_copy(text, strlen(text));
    *remote_out = remote;
    return NULL;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Damerau's distance, as far as neighbours go: d[i][j] is that of the first i bytes of a and the first j of b. */
unsigned text_distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    unsigned d[LONGEST + 1][LONGEST + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    unsigned distance;

    if (a_len > LONGEST || b_len > LONGEST)
        return TEXT_FAR;
    for (size_t i = 0; i <= a_len; i++) {
        for (size_t j = 0; j <= b_len; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            d[i][j] = least(d[i - 1][j] + 1, d[i][j - 1] + 1);
            d[i][j] = least(d[i][j], d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    distance = d[a_len][b_len];
    return distance < TEXT_FAR && distance * 3 <= (a_len > b_len ? a_len : b_len) ? distance : TEXT_FAR;
}
