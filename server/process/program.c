/*
 * Supervision, as a table:
 *
 *                  end                timer              exited, alone  exited, others left   nobody left
 *   RUNNING        TERM->ENDING       -                  ->GONE         ->LEFT                -
 *   ENDING         -                  KILL->KILLED       ->GONE         ->LEFT_ENDING         -
 *   KILLED         -                  -                  ->GONE         ->LEFT_KILLED         -
 *   LEFT           TERM->LEFT_ENDING  TERM->LEFT_ENDING  -              -                     ->GONE
 *   LEFT_ENDING    -                  KILL->LEFT_KILLED  -              -                     ->GONE
 *   LEFT_KILLED    -                  KILL               -              -                     ->GONE
 *
 * From ENDING to LEFT_ENDING nobody is signalled again: TERM has reached all of the group. KILL is repeated for a child
 * that was born in between. "Nobody left" is looked for whenever an orphan of the group was reaped, and before each
 * other step in the LEFT states.
 *
 * A group is signalled only while its number cannot belong to anybody else: while its leader was not waited for, or
 * while a child of ours is in it. Orphans become our children, since the keeper is their subreaper.
 */
#include "process/program.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

enum {
    BUCKETS = 1024,
    ORPHANS_US = 1000000,
};

struct programs {
    struct event_base *base;
    struct wards *wards;
    LIST_HEAD(, program) buckets[BUCKETS];
    unsigned n, next_index;
    void (*on_empty)(void *arg);
    void *arg;
};

enum happening {
    TO_END,
    TIMER,
    EXITED_ALONE,
    EXITED_OTHERS,
    NOBODY_LEFT,
    N_HAPPENINGS,
};

struct step {
    int signal; /* to the group; 0: none */
    enum program_state next;
};

static const struct step table[PROGRAM_GONE][N_HAPPENINGS] = {
    [PROGRAM_RUNNING] =
        {
            [TO_END] = {SIGTERM, PROGRAM_ENDING},
            [TIMER] = {0, PROGRAM_RUNNING},
            [EXITED_ALONE] = {0, PROGRAM_GONE},
            [EXITED_OTHERS] = {0, PROGRAM_LEFT},
        },
    [PROGRAM_ENDING] =
        {
            [TO_END] = {0, PROGRAM_ENDING},
            [TIMER] = {SIGKILL, PROGRAM_KILLED},
            [EXITED_ALONE] = {0, PROGRAM_GONE},
            [EXITED_OTHERS] = {0, PROGRAM_LEFT_ENDING},
        },
    [PROGRAM_KILLED] =
        {
            [TO_END] = {0, PROGRAM_KILLED},
            [TIMER] = {0, PROGRAM_KILLED},
            [EXITED_ALONE] = {0, PROGRAM_GONE},
            [EXITED_OTHERS] = {0, PROGRAM_LEFT_KILLED},
        },
    [PROGRAM_LEFT] =
        {
            [TO_END] = {SIGTERM, PROGRAM_LEFT_ENDING},
            [TIMER] = {SIGTERM, PROGRAM_LEFT_ENDING},
            [NOBODY_LEFT] = {0, PROGRAM_GONE},
        },
    [PROGRAM_LEFT_ENDING] =
        {
            [TO_END] = {0, PROGRAM_LEFT_ENDING},
            [TIMER] = {SIGKILL, PROGRAM_LEFT_KILLED},
            [NOBODY_LEFT] = {0, PROGRAM_GONE},
        },
    [PROGRAM_LEFT_KILLED] =
        {
            [TO_END] = {0, PROGRAM_LEFT_KILLED},
            [TIMER] = {SIGKILL, PROGRAM_LEFT_KILLED},
            [NOBODY_LEFT] = {0, PROGRAM_GONE},
        },
};

static bool is_left(enum program_state state)
{
    return state == PROGRAM_LEFT || state == PROGRAM_LEFT_ENDING || state == PROGRAM_LEFT_KILLED;
}

/* Has the group a member, now that its leader was waited for? Every orphan in it is our child. */
static bool group_has_members(pid_t group)
{
    siginfo_t info;

    return waitid(P_PGID, (id_t)group, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void become_gone(struct program *program)
{
    struct programs *all = program->all;

    program->state = PROGRAM_GONE;
    LIST_REMOVE(program, by_pid);
    all->wards->groups[program->index] = 0;
    all->n--;
    event_free(program->timer);
    program->on_gone(program);
    if (all->n == 0 && all->on_empty != NULL)
        all->on_empty(all->arg);
}

static void take_step(struct program *program, enum happening happening)
{
    const struct step *step = &table[program->state][happening];
    static const struct timeval grace = {PROGRAM_GRACE_MS / 1000, PROGRAM_GRACE_MS % 1000 * 1000};
    bool is_new = step->next != program->state;

    if (step->signal != 0)
        kill(-program->pid, step->signal);
    if (step->next == PROGRAM_GONE) {
        become_gone(program);
        return;
    }
    program->state = step->next;
    if (is_new || is_left(step->next))
        event_add(program->timer, &grace);
}

/* While its group has a member: else its number may be somebody else's already. */
static void take_step_if_there(struct program *program, enum happening happening)
{
    bool is_gone = is_left(program->state) && !group_has_members(program->pid);

    take_step(program, is_gone ? NOBODY_LEFT : happening);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    take_step_if_there(arg, TIMER);
}

struct programs *programs_create(struct event_base *base, struct wards *wards)
{
    struct programs *programs = memory_zeroed(1, sizeof *programs);

    programs->base = base;
    programs->wards = wards;
    return programs;
}

void programs_destroy(struct programs *programs)
{
    free(programs);
}

static int free_index(struct programs *programs)
{
    for (unsigned i = 0; i < SCOREBOARD_PROGRAMS; i++) {
        unsigned index = (programs->next_index + i) % SCOREBOARD_PROGRAMS;

        if (programs->wards->groups[index] == 0) {
            programs->next_index = index + 1;
            return (int)index;
        }
    }
    return -EUSERS;
}

int program_start(struct programs *programs, struct program *program, const struct spawn *spawn,
                  enum spawn_stage *stage_out)
{
    int index = free_index(programs);

    *stage_out = SPAWN_FORK;
    if (index < 0)
        return index;
    pid_t pid = spawn_program(spawn, stage_out);
    if (pid < 0)
        return (int)pid;
    program->all = programs;
    program->state = PROGRAM_RUNNING;
    program->pid = pid;
    program->index = (unsigned)index;
    program->started_us = clock_us();
    program->timer = evtimer_new(programs->base, on_timer, program);
    programs->wards->groups[index] = pid;
    programs->n++;
    LIST_INSERT_HEAD(&programs->buckets[pid % BUCKETS], program, by_pid);
    return 0;
}

void program_end(struct program *program)
{
    take_step_if_there(program, TO_END);
}

bool programs_reaped(struct programs *programs, pid_t pid, int status, const struct rusage *usage)
{
    struct program *program;

    LIST_FOREACH(program, &programs->buckets[pid % BUCKETS], by_pid)
    if (program->pid == pid && !is_left(program->state))
        break;
    if (program == NULL)
        return false;
    program->on_exited(program, status, usage);
    take_step(program, group_has_members(pid) ? EXITED_OTHERS : EXITED_ALONE);
    return true;
}

void programs_orphan_reaped(struct programs *programs, pid_t group)
{
    struct program *program;

    LIST_FOREACH(program, &programs->buckets[group % BUCKETS], by_pid)
    if (program->pid == group && is_left(program->state))
        break;
    if (program != NULL && !group_has_members(group))
        take_step(program, NOBODY_LEFT);
}

void programs_end_all(struct programs *programs, void (*on_empty)(void *arg), void *arg)
{
    if (programs->n == 0) {
        on_empty(arg);
        return;
    }
    programs->on_empty = on_empty;
    programs->arg = arg;
    for (int i = 0; i < BUCKETS; i++)
        for (struct program *program = LIST_FIRST(&programs->buckets[i]), *next; program != NULL; program = next) {
            next = LIST_NEXT(program, by_pid);
            program_end(program);
        }
}

/* An heir, whose heir has become ours, or even that one's: every program has left our session at its start. */
static bool is_heir(pid_t pid, bool has_heir)
{
    return has_heir && getsid(pid) == getsid(0);
}

/* One round: how many were killed. */
static unsigned kill_children(pid_t spared, bool has_heir)
{
    FILE *children = fopen("/proc/thread-self/children", "re");
    size_t size = 0;
    char *word = NULL;
    unsigned n = 0;

    if (children == NULL)
        return 0;
    while (getdelim(&word, &size, ' ', children) > 0) {
        pid_t pid = (pid_t)strtol(word, NULL, 10);

        if (pid > 1 && pid != spared && !is_heir(pid, has_heir) && kill(pid, SIGKILL) == 0)
            n++;
    }
    free(word);
    fclose(children);
    return n;
}

void programs_kill_orphans(pid_t spared, bool has_heir)
{
    static const struct timespec pause = {0, 1000000};
    uint64_t until = clock_us() + ORPHANS_US;
    siginfo_t info;

    while (kill_children(spared, has_heir) > 0 && clock_us() < until) {
        nanosleep(&pause, NULL);
        do
            info.si_pid = 0;
        while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 && info.si_pid != spared &&
               !is_heir(info.si_pid, has_heir) && waitpid(info.si_pid, NULL, WNOHANG) > 0);
    }
}

void programs_kill_all(struct programs *programs)
{
    struct program *program;

    for (int i = 0; i < BUCKETS; i++)
        LIST_FOREACH(program, &programs->buckets[i], by_pid)
    if (!is_left(program->state) || group_has_members(program->pid))
        kill(-program->pid, SIGKILL); /* its exit, and the timer, do the rest */
}
