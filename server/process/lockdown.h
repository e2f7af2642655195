/* Makes sure that a process which parses what strangers send cannot start programs, whatever becomes of it. */
#ifndef GATEHOUSE_PROCESS_LOCKDOWN_H
#define GATEHOUSE_PROCESS_LOCKDOWN_H

/* From now on, for good: no new process, no exec, no tracing of others, no mounts and name spaces; no rights
 * gained. 0 or -errno. Built with a
 * sanitizer, whose leak check needs these calls, or for a machine that it does not know, only the last holds. */
int lockdown(void);

#endif
