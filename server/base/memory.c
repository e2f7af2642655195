#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void out_of_memory(void)
{
    static const char line[] = "gatehouse: out of memory\n";

    (void)!write(STDERR_FILENO, line, sizeof line - 1);
    abort();
}

void *memory_zeroed(size_t n, size_t size)
{
    void *at = calloc(n, size);

    if (at == NULL)
        out_of_memory();
    return at;
}

void *memory_resize(void *at, size_t size)
{
    void *moved = realloc(at, size);

    if (moved == NULL)
        out_of_memory();
    return moved;
}

char *memory_copy(const char *at, size_t len)
{
    char *copy = memory_resize(NULL, len + 1);

    if (len > 0)
        memcpy(copy, at, len);
    copy[len] = '\0';
    return copy;
}
