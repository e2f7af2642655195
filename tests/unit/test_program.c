#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/program.h"

/* A shell program under supervision. Its descriptor 0 is a pipe: a "cat" of it ends when `hold` is closed. No event
 * loop runs in these tests, so nothing is ever done by a timer. */
struct trial {
    struct program program; /* first */
    struct event_base *base;
    struct wards *wards;
    struct programs *programs;
    int hold;
    bool is_exited, is_gone;
    int status;
};

static void on_exited(struct program *program, int status, const struct rusage *usage)
{
    struct trial *trial = (struct trial *)program;

    (void)usage;
    trial->is_exited = true;
    trial->status = status;
}

static void on_gone(struct program *program)
{
    ((struct trial *)program)->is_gone = true;
}

static void begin(struct trial *trial, const char *script)
{
    char name[] = "sh", option[] = "-c", text[256], *argv[] = {name, option, text, NULL};
    char *envp[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};
    struct spawn spawn = {.program = "/bin/sh", .argv = argv, .envp = envp};
    enum spawn_stage stage;
    int fds[2], null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    memset(trial, 0, sizeof *trial);
    strcpy(text, script);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    memcpy(spawn.fds, (int[]){fds[0], null_fd, null_fd}, sizeof spawn.fds);
    trial->base = event_base_new();
    trial->wards = wards_create();
    trial->programs = programs_create(trial->base, trial->wards);
    trial->program.on_exited = on_exited;
    trial->program.on_gone = on_gone;
    trial->hold = fds[1];
    assert_int_equal(program_start(trial->programs, &trial->program, &spawn, &stage), 0);
    close(fds[0]);
    close(null_fd);
}

/* Waits for one child more, and reports it as the keeper does. Returns its pid. */
static pid_t reap(struct trial *trial)
{
    siginfo_t info = {.si_pid = 0};
    struct rusage usage;
    int status;

    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
    pid_t group = getpgid(info.si_pid);
    assert_int_equal(wait4(info.si_pid, &status, 0, &usage), info.si_pid);
    if (!programs_reaped(trial->programs, info.si_pid, status, &usage))
        programs_orphan_reaped(trial->programs, group);
    return info.si_pid;
}

static void finish(struct trial *trial)
{
    assert_true(trial->is_gone);
    for (size_t i = 0; i < SCOREBOARD_PROGRAMS; i++)
        assert_int_equal(trial->wards->groups[i], 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
    programs_destroy(trial->programs);
    wards_forget(trial->wards);
    event_base_free(trial->base);
}

static void test_alone(void **state)
{
    struct trial trial;

    (void)state;
    begin(&trial, "exit 3");
    assert_int_equal(reap(&trial), trial.program.pid);
    assert_true(trial.is_exited);
    assert_int_equal(WEXITSTATUS(trial.status), 3);
    close(trial.hold);
    finish(&trial);
}

static void test_child_outlives_leader(void **state)
{
    struct trial trial;

    (void)state;
    begin(&trial, "exec 3<&0; cat <&3 & exit 0");
    assert_int_equal(reap(&trial), trial.program.pid);
    assert_true(trial.is_exited);
    assert_false(trial.is_gone);
    assert_int_equal(trial.program.state, PROGRAM_LEFT);
    close(trial.hold); /* now the child ends too */
    assert_int_not_equal(reap(&trial), trial.program.pid);
    finish(&trial);
}

static void test_the_last_of_several_counts(void **state)
{
    struct trial trial;

    (void)state;
    begin(&trial, "exec 3<&0; true & cat <&3 & cat <&3 & exit 0");
    while (!trial.is_exited)
        reap(&trial);
    assert_false(trial.is_gone);
    close(trial.hold);
    while (!trial.is_gone)
        reap(&trial);
    finish(&trial);
}

/* TERM ends the leader; the child, which does not hear it, goes by itself. */
static void test_ending(void **state)
{
    struct trial trial;

    (void)state;
    begin(&trial, "exec 3<&0; (trap '' TERM; exec cat <&3) & trap 'exit 1' TERM; kill -TERM 0; exit 0");
    program_end(&trial.program);
    assert_int_equal(reap(&trial), trial.program.pid);
    if (!trial.is_gone) { /* TERM may have come before the child could turn a deaf ear to it */
        assert_int_equal(trial.program.state, PROGRAM_LEFT_ENDING);
        close(trial.hold);
        reap(&trial);
    } else {
        close(trial.hold);
    }
    finish(&trial);
}

/* The end is asked for when all are gone already, of whom the last has not been reported yet. */
static void test_end_of_what_is_over(void **state)
{
    struct trial trial;
    siginfo_t info;

    (void)state;
    begin(&trial, "exec 3<&0; cat <&3 & exit 0");
    reap(&trial);
    close(trial.hold);
    assert_int_equal(waitid(P_PGID, (id_t)trial.program.pid, &info, WEXITED), 0); /* by somebody else */
    program_end(&trial.program);
    finish(&trial);
}

static void test_group_of_nobody(void **state)
{
    struct trial trial;

    (void)state;
    begin(&trial, "exec cat");
    programs_orphan_reaped(trial.programs, 1);
    programs_orphan_reaped(trial.programs, trial.program.pid); /* it runs: an orphan of its group says nothing */
    assert_false(trial.is_gone);
    close(trial.hold);
    reap(&trial);
    finish(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_child_outlives_leader),
        cmocka_unit_test(test_the_last_of_several_counts),
        cmocka_unit_test(test_ending),
        cmocka_unit_test(test_end_of_what_is_over),
        cmocka_unit_test(test_group_of_nobody),
    };

    spawn_prepare();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
