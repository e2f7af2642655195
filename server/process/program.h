/*
 * The keeper's children under supervision: from start to the end of the last member of their process group.
 *
 * A program that is to end gets TERM, and KILL when it is still there PROGRAM_GRACE_MS later. What it leaves behind in
 * its process group gets the same, after as long a grace, and is gone with its last member. The table is in program.c.
 */
#ifndef GATEHOUSE_PROCESS_PROGRAM_H
#define GATEHOUSE_PROCESS_PROGRAM_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/resource.h>

#include "process/spawn.h"
#include "process/warden.h"

enum { PROGRAM_GRACE_MS = 2000 };

enum program_state {
    PROGRAM_RUNNING,
    PROGRAM_ENDING, /* has got TERM */
    PROGRAM_KILLED, /* has got KILL */
    PROGRAM_LEFT,   /* has exited; others of its group go on, for the grace */
    PROGRAM_LEFT_ENDING,
    PROGRAM_LEFT_KILLED,
    PROGRAM_GONE,
};

struct program;

/* The program itself has exited (others of its group may go on). Called once. */
typedef void program_exited(struct program *program, int status, const struct rusage *usage);

/* Embedded in what its owner knows of it; the fields are private but pid, index and started_us. */
struct program {
    LIST_ENTRY(program) by_pid;
    struct programs *all;
    enum program_state state;
    pid_t pid;
    unsigned index; /* its place among the wards, and on the scoreboard */
    uint64_t started_us;
    struct event *timer;
    program_exited *on_exited;
    void (*on_gone)(struct program *program); /* nothing of it is left: the owner may free it */
};

struct programs;

struct programs *programs_create(struct event_base *base, struct wards *wards);
void programs_destroy(struct programs *programs);

/* Starts one. 0, or -errno with the stage; -EUSERS when there are too many already. Both callbacks come from the loop.
 */
int program_start(struct programs *programs, struct program *program, const struct spawn *spawn,
                  enum spawn_stage *stage_out);

/* To be ended: TERM now, KILL after the grace. Harmless when it is ending already. */
void program_end(struct program *program);

static inline bool program_is_running(const struct program *program)
{
    return program->state == PROGRAM_RUNNING;
}

/* Collects a child that has been waited for; false: it is none of these. */
bool programs_reaped(struct programs *programs, pid_t pid, int status, const struct rusage *usage);

/* Collects an orphan of theirs, by the process group that it was in: it may have been the last of its program. */
void programs_orphan_reaped(struct programs *programs, pid_t group);

/* Ends all that are there, and calls back once nothing is left of any: at once if there is none. */
void programs_end_all(struct programs *programs, void (*on_empty)(void *arg), void *arg);

/* Kills every child of this process but that one and, with an heir, the servers that came after this one, and their
 * children as they become ours, until none is left or a second has passed: what has left its program's process group.
 * Only with a kernel that tells of children (CONFIG_PROC_CHILDREN). */
void programs_kill_orphans(pid_t spared, bool has_heir);

/* Kills all that are there, without a grace. */
void programs_kill_all(struct programs *programs);

#endif
