/* What is mounted where, as /proc/self/mountinfo says. */
#ifndef GATEHOUSE_PROCESS_MOUNTS_H
#define GATEHOUSE_PROCESS_MOUNTS_H

#include <limits.h>
#include <stdbool.h>

struct mount {
    char root[PATH_MAX]; /* what of the file system is mounted: "/", or a directory within it */
    char at[PATH_MAX];   /* where */
    char type[64];       /* "ext4" */
};

/* The mount that an absolute path without links is in; path NULL: the last mount of that type. type NULL: of any.
 * False: there is none, or it cannot be read. */
bool mounts_find(const char *path, const char *type, struct mount *mount_out);

#endif
