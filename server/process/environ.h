/* The environment that programs get: NULL-terminated arrays of "NAME=value", owned as a whole. */
#ifndef GATEHOUSE_PROCESS_ENVIRON_H
#define GATEHOUSE_PROCESS_ENVIRON_H

#include <stdbool.h>

#include "base/span.h"
#include "config.h"

/* These variables, and of this process's own those that are named, or all (`whole`). The caller frees it. */
char **environ_make(const struct config_pairs *env, const struct config_words *pass_env, bool whole);
bool environ_has(char *const *env, struct span name);
void environ_free(char **env);

#endif
