/* Opening files below a directory, and nowhere else. */
#ifndef GATEHOUSE_BASE_BENEATH_H
#define GATEHOUSE_BASE_BENEATH_H

#include <stdint.h>

/* Which symbolic links are followed on the way. */
enum symlinks {
    SYMLINKS_OFF,     /* none */
    SYMLINKS_BENEATH, /* those that lead to what is below the directory */
    SYMLINKS_ON,      /* all */
};

/* openat2() of a relative name, close-on-exec. `flags` as for open(). Returns the descriptor or -errno: -EXDEV when the
 * name, or a link, leads out of the directory, -ELOOP at a link that is not followed. */
int beneath_open(int dir_fd, const char *name, enum symlinks symlinks, uint64_t flags);

#endif
