#include "process/scoreboard.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

struct scoreboard *scoreboard_create(void)
{
    void *at = mmap(NULL, sizeof(struct scoreboard), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        abort();
    struct scoreboard *scoreboard = at;
    if (getrandom(&scoreboard->secret, sizeof scoreboard->secret, 0) != sizeof scoreboard->secret)
        abort(); /* cannot fail for so few bytes */
    return scoreboard;
}
