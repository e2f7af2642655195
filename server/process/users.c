/* A table of (user, groups), filled once, read by this process and by those that it forks. */
#include "process/users.h"

#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum { MOST_GROUPS = 65536 }; /* the kernel's own limit */

struct known {
    char *name;
    gid_t gid;
    gid_t *groups;
    int n;
};

static struct known *users;
static size_t n_users;

bool users_must_change(const struct config_user *user)
{
    return user != NULL && user->name != NULL && (geteuid() != user->uid || getegid() != user->gid);
}

static const struct known *find(const struct config_user *user)
{
    for (size_t i = 0; i < n_users; i++)
        if (users[i].gid == user->gid && strcmp(users[i].name, user->name) == 0)
            return &users[i];
    return NULL;
}

static void load(const struct config_user *user)
{
    int n = 64;

    if (!users_must_change(user) || find(user) != NULL)
        return;
    gid_t *groups = memory_resize(NULL, (size_t)n * sizeof *groups);
    while (getgrouplist(user->name, user->gid, groups, &n) < 0 && n > 0 && n <= MOST_GROUPS)
        groups = memory_resize(groups, (size_t)n * sizeof *groups); /* n is how many there are, now */
    users = memory_resize(users, (n_users + 1) * sizeof *users);
    users[n_users++] = (struct known){memory_copy(user->name, strlen(user->name)), user->gid, groups, n};
}

void users_load(const struct config *config)
{
    load(&config->server.user);
    for (size_t i = 0; i < config->n_routes; i++)
        load(&config->routes[i]->user);
    for (size_t i = 0; i < config->n_pools; i++)
        load(&config->pools[i]->user);
}

struct user_groups users_groups(const struct config_user *user)
{
    const struct known *known = find(user);

    return known != NULL && known->n > 0 ? (struct user_groups){known->groups, (size_t)known->n}
                                         : (struct user_groups){&user->gid, 1};
}

void users_free(void)
{
    for (size_t i = 0; i < n_users; i++) {
        free(users[i].name);
        free(users[i].groups);
    }
    free(users);
    users = NULL;
    n_users = 0;
}
