/* Why a program did not start, in words that name the thing and the cure. */
#ifndef GATEHOUSE_PROCESS_DIAGNOSE_H
#define GATEHOUSE_PROCESS_DIAGNOSE_H

#include <stddef.h>

#include "process/spawn.h"

/* Writes the cause to text (size bytes, NUL-terminated): "no execute permission; chmod +x it".
 * `error` is the errno of the stage; what cannot be seen from it is looked up in the file (its first line) and its
 * path. */
void diagnose_start(char *text, size_t size, const char *program, enum spawn_stage stage, int error);

/* How a process ended, from its wait status: "exited with status 3", "was killed by signal 11 (SIGSEGV)". */
void diagnose_end(char *text, size_t size, int status);

#endif
