#include "process/measure.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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
    static const char label[] = "\nPss:";
    char text[ROOM];

    read_file(pid, "smaps_rollup", text);
    const char *pss = strstr(text, label);
    if (pss != NULL)
        return strtoull(pss + sizeof label - 1, NULL, 10) * 1024;
    read_file(pid, "statm", text); /* size resident ... */
    const char *resident = strchr(text, ' ');
    return resident != NULL ? strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}
