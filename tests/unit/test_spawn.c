#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/diagnose.h"

enum { NOBODY = 65534 };

static char folder[64], path[128];
static struct config_user nobody = {(char[]){"nobody"}, NOBODY, NOBODY};

/* A script that exits with status 7, open for reading and writing. */
static int make_script(void **state)
{
    static int fd;

    snprintf(folder, sizeof folder, "/tmp/test_spawn-XXXXXX");
    if (mkdtemp(folder) == NULL || chmod(folder, 0755) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/script", folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0755);
    *state = &fd;
    return dprintf(fd, "#!/bin/sh\nexit 7\n") > 0 ? 0 : -1;
}

static int remove_script(void **state)
{
    close(*(int *)*state);
    unlink(path);
    return rmdir(folder);
}

/* Starts the script: its pid or -errno, with the cause. */
static pid_t start(struct spawn *spawn, char *cause, size_t size)
{
    char name[] = "script", *argv[] = {name, NULL}, *envp[] = {NULL};
    enum spawn_stage stage;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 3; i++)
        spawn->fds[i] = null_fd;
    if (spawn->program == NULL)
        spawn->program = path;
    spawn->argv = argv;
    spawn->envp = envp;
    pid_t pid = spawn_program(spawn, &stage);
    close(null_fd);
    if (pid < 0)
        diagnose_start(cause, size, spawn, stage, (int)-pid);
    return pid;
}

static void assert_no_child(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void assert_exits(pid_t pid, int expected)
{
    int status;

    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected);
    assert_no_child();
}

static void test_started(void **state)
{
    struct spawn spawn = {0};

    close(*(int *)*state); /* open for writing, it could not be executed */
    *(int *)*state = -1;
    assert_exits(start(&spawn, NULL, 0), 7);
    spawn.program = "/not/there";
    char cause[256];
    assert_int_equal(start(&spawn, cause, sizeof cause), -ENOENT);
    assert_no_child();
}

/* One that enters a control group is started by way of a helper, of which nothing is seen. */
static void test_started_into_a_group(void **state)
{
    struct spawn spawn = {.cgroup_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
    char cause[256];

    close(*(int *)*state);
    *(int *)*state = -1;
    assert_true(spawn.cgroup_fd > 0);
    assert_exits(start(&spawn, NULL, 0), 7);
    spawn.program = "/not/there";
    assert_int_equal(start(&spawn, cause, sizeof cause), -ENOENT);
    assert_no_child();
    close(spawn.cgroup_fd);
    spawn.cgroup_fd = open("/dev/full", O_WRONLY | O_CLOEXEC); /* a group that does not take it */
    assert_int_equal(start(&spawn, cause, sizeof cause), -ENOSPC);
    assert_non_null(strstr(cause, "control group"));
    assert_no_child();
    close(spawn.cgroup_fd);
}

/* Its reader would be waited for until the holder of the lease, this process, gives it up. */
static void take_lease(int fd)
{
    signal(SIGIO, SIG_IGN); /* what asks for it */
    if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0)
        skip(); /* a file system without */
}

static void test_leased(void **state)
{
    struct spawn spawn = {0};
    char cause[512];

    take_lease(*(int *)*state);
    assert_int_equal(start(&spawn, cause, sizeof cause), -ETXTBSY);
    assert_non_null(strstr(cause, "is open for writing"));
    assert_no_child();
}

/* That may be executed but not read, so that its lease shows only when it is executed. */
static void test_exec_that_does_not_end(void **state)
{
    int group_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    char cause[512];

    assert_int_equal(fchmod(*(int *)*state, 0111), 0);
    for (int with_helper = 0; with_helper <= 1; with_helper++) {
        struct spawn spawn = {.user = geteuid() == 0 ? &nobody : NULL, .cgroup_fd = with_helper ? group_fd : 0};

        take_lease(*(int *)*state);
        assert_int_equal(start(&spawn, cause, sizeof cause), -ETIMEDOUT);
        assert_non_null(strstr(cause, "could not be executed within 1 s"));
        assert_no_child();
        assert_int_equal(fcntl(*(int *)*state, F_SETLEASE, F_UNLCK), 0);
    }
    close(group_fd);
}

/* A front must not be looked into by a program of the same user. */
static void test_own_processes_are_closed_to_others(void **state)
{
    int status;
    pid_t pid = spawn_self(0);

    (void)state;
    if (pid == 0)
        _exit(prctl(PR_GET_DUMPABLE));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(prctl(PR_GET_DUMPABLE), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_processes_are_closed_to_others), /* first: a start as another user changes its flag */
        cmocka_unit_test_setup_teardown(test_started, make_script, remove_script),
        cmocka_unit_test_setup_teardown(test_started_into_a_group, make_script, remove_script),
        cmocka_unit_test_setup_teardown(test_leased, make_script, remove_script),
        cmocka_unit_test_setup_teardown(test_exec_that_does_not_end, make_script, remove_script),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
