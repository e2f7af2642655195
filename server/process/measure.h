/* How much memory a process has. */
#ifndef GATEHOUSE_PROCESS_MEASURE_H
#define GATEHOUSE_PROCESS_MEASURE_H

#include <stdint.h>
#include <sys/types.h>

/* Its proportional set size in bytes: what it shares with others counts by its share of it. Where the kernel does not
 * tell (before 4.14, or not to us), what it has in memory in all. 0: nothing is known. proc(5), smaps_rollup. */
uint64_t measure_memory(pid_t pid);

#endif
