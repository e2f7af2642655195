/*
 * Why exec(2) has refused a file, as far as it can be seen from outside: its permissions for the user that it was to
 * run as, who may differ from this process's own, the directories above it, its mount, its first bytes - and the same
 * of its interpreter, and of the interpreter's.
 */
#ifndef GATEHOUSE_PROCESS_EXAMINE_H
#define GATEHOUSE_PROCESS_EXAMINE_H

#include <stdbool.h>
#include <stddef.h>

#include "process/spawn.h"

/* Writes the cause and the cure to text (size bytes, NUL-terminated): true; or finds nothing that explains the errno:
 * false, and text is worth nothing. `error` is what exec said of spawn->program. */
bool examine_program(char *text, size_t size, const struct spawn *spawn, int error);

/* Likewise: which directory, down to `path` itself, keeps the program's user from entering `path`? */
bool examine_directory(char *text, size_t size, const struct spawn *spawn, const char *path);

#endif
