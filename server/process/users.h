/*
 * Who programs and fronts run as: the supplementary groups of a user, as initgroups(3) would set them.
 *
 * They are looked up once, when the server starts: the look-up may read files and ask other machines, which neither the
 * keeper's loop nor a child that shares its memory may do. A user who is put into another group later needs a restart.
 */
#ifndef GATEHOUSE_PROCESS_USERS_H
#define GATEHOUSE_PROCESS_USERS_H

#include <stdbool.h>
#include <sys/types.h>

#include "config.h"

struct user_groups {
    const gid_t *at; /* the user's own group among them */
    size_t n;
};

/* Once, before any other process: looks up every user of the configuration that this process is not. */
void users_load(const struct config *config);

/* The groups of one of these; of any other, its own group alone. Only asks memory. */
struct user_groups users_groups(const struct config_user *user);

/* Does a process of this server have to change to that user? Not without a name, and not where it is that user. */
bool users_must_change(const struct config_user *user);

/* Gives back what users_load() has got. */
void users_free(void);

#endif
