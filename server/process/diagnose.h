/* Why a program did not start, and how it ended, in words that name the thing and the cure. */
#ifndef GATEHOUSE_PROCESS_DIAGNOSE_H
#define GATEHOUSE_PROCESS_DIAGNOSE_H

#include <stddef.h>
#include <sys/resource.h>

#include "process/spawn.h"

/* Writes the cause to text (size bytes, NUL-terminated): "no execute permission for user www-data ...; chmod +x it".
 * `error` is the errno of the stage; what cannot be seen from it is looked up: in the file, its interpreter, its path,
 * in the limits and the environment that it was to have. */
void diagnose_start(char *text, size_t size, const struct spawn *spawn, enum spawn_stage stage, int error);

/* How a process ended, from its wait status: "exited with status 3", "was killed by signal 11 (SIGSEGV)". */
void diagnose_end(char *text, size_t size, int status);

/* The same of a program with limits, which may be why: "... (SIGXCPU): it has used up rlimit_cpu = 1s". usage NULL:
 * not known. */
void diagnose_limited_end(char *text, size_t size, int status, const struct config_rlimits *limits,
                          const struct rusage *usage);

#endif
