#include "base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* With links allowed to lead anywhere, at least the name itself must not; the kernel sees to it otherwise. */
static int leads_out(const char *name)
{
    size_t len = strlen(name);

    return name[0] == '/' || strcmp(name, "..") == 0 || strncmp(name, "../", 3) == 0 || strstr(name, "/../") != NULL ||
           (len > 3 && strcmp(name + len - 3, "/..") == 0);
}

enum { ATTEMPTS = 8 };

int beneath_open(int dir_fd, const char *name, enum symlinks symlinks, uint64_t flags)
{
    static const uint64_t resolve[] = {
        [SYMLINKS_OFF] = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        [SYMLINKS_BENEATH] = RESOLVE_BENEATH,
        [SYMLINKS_ON] = RESOLVE_NO_MAGICLINKS,
    };
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve[symlinks]};

    if (leads_out(name))
        return -EXDEV;
    int fd = -1;
    for (int i = 0; fd < 0 && i < ATTEMPTS; i++) {
        fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof how);
        if (fd < 0 && errno != EAGAIN) /* something was renamed at that moment: openat2(2) */
            break;
    }
    return fd >= 0 ? fd : -errno;
}
