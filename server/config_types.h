/* What several sections of the configuration are made of. */
#ifndef GATEHOUSE_CONFIG_TYPES_H
#define GATEHOUSE_CONFIG_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* NAME=value, or for interpreter[.py]: suffix and program. */
struct config_pair {
    char *name;
    char *value;
};

struct config_pairs {
    struct config_pair *at;
    size_t n;
};

struct config_words {
    char **at; /* NULL behind the last, as an argv has it; NULL itself when there is none */
    size_t n;
};

/* Where to listen, or a FastCGI application that we do not own. */
struct config_address {
    char *text; /* as written: for messages */
    struct sockaddr_storage address;
    socklen_t len;
};

struct config_addresses {
    struct config_address *at;
    size_t n;
};

/* Addresses of clients: those whose first bits are these. */
struct config_network {
    int family; /* AF_INET, AF_INET6 */
    unsigned bits;
    unsigned char address[16];
};

struct config_networks {
    struct config_network *at;
    size_t n;
};

/* Who a program runs as. Set only when started by root; .name NULL: as the server's own user. */
struct config_user {
    char *name;
    uid_t uid;
    gid_t gid;
};

/* RLIM_INFINITY - the default - leaves a limit as it is; core: none is written, unless the program raises its own. */
struct config_rlimits {
    uint64_t as, cpu, nproc, files, core;
};

#endif
