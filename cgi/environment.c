#include "cgi/environment.h"

static bool has_nul(struct span s)
{
    return s.len > 0 && memchr(s.at, '\0', s.len) != NULL;
}

void environment_add(void *arg, struct span name, struct span value)
{
    struct buffer *block = arg;

    /* A NUL would cut the entry short and make another of its rest: SCRIPT_NAME "/a\0LD_PRELOAD=/b". */
    if (has_nul(name) || has_nul(value))
        return;
    buffer_reserve(block, name.len + value.len + 2);
    buffer_append_span(block, name);
    buffer_append(block, "=", 1);
    buffer_append_span(block, value);
    buffer_append(block, "", 1);
}
