#include "process/scoreboard.h"

#include <stdlib.h>
#include <sys/mman.h>

struct scoreboard *scoreboard_create(void)
{
    void *at = mmap(NULL, sizeof(struct scoreboard), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        abort();
    return at;
}
