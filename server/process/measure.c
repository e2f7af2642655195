#include "process/measure.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 4096 };

/* The beginning of one of its files in /proc, NUL-terminated; empty when it cannot be read. */
static void read_file(pid_t pid, const char *name, char text[ROOM])
{
    char path[64];

    text[0] = '\0';
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, ROOM - 1);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
}

uint64_t measure_memory(pid_t pid)
{
    char text[ROOM];
    uint64_t kib, pages;

    read_file(pid, "smaps_rollup", text);
    const char *pss = strstr(text, "\nPss:");
    if (pss != NULL && sscanf(pss, "\nPss: %" SCNu64 " kB", &kib) == 1)
        return kib * 1024;
    read_file(pid, "statm", text);
    if (sscanf(text, "%*u %" SCNu64, &pages) == 1)
        return pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}
