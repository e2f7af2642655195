#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/diagnose.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_diagnose-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

/* The path of a name in the directory, in memory that the next call uses again. */
static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t len, mode_t mode)
{
    FILE *to = fopen(path, "we");

    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, len, to), len);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* What exec itself says of the file: the errno that diagnose_start() is given is no invention of the test. */
static int exec_error(const char *path)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        char name[] = "program", *argv[] = {name, NULL}, *envp[] = {NULL};

        execve(path, argv, envp);
        _exit(errno < 256 ? errno : 255);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void assert_says(const char *name, const char *text, const char *expected)
{
    if (strstr(text, expected) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", name, text, expected);
}

#define BYTES(literal) literal, sizeof(literal) - 1
#define ELF            "\177ELF"

static const struct {
    const char *name;
    const char *bytes;
    size_t len;
    mode_t mode;
    int error; /* of exec */
    const char *says, *cure;
} files[] = {
    {"no-x", BYTES("#!/bin/sh\n"), 0600, EACCES, "no execute permission", "chmod +x"},
    {"nothing-in-it-no-x", BYTES(""), 0600, EACCES, "no execute permission", "chmod +x"},
    {"no-interpreter", BYTES("#!/nowhere/perl -w\n"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"space", BYTES("#! \t/nowhere/perl\n"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"no-lf", BYTES("#!/nowhere/perl"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"crlf", BYTES("#!/bin/sh\r\necho\r\n"), 0700, ENOENT, "CR LF", "LF line ends"},
    {"crlf-only-line", BYTES("#!/bin/sh\r\n"), 0700, ENOENT, "CR LF", "LF line ends"},
    {"bom", BYTES("\xef\xbb\xbf#!/bin/sh\n"), 0700, ENOEXEC, "byte order mark", "without"},
    {"text", BYTES("echo hello\n"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"late", BYTES("\n#!/bin/sh\n"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"empty", BYTES(""), 0700, ENOEXEC, "neither", "\"#!\""},
    {"one-byte", BYTES("#"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"two-bytes-of-bom", BYTES("\xef\xbb"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"zeroes", BYTES("\0\0\0\0"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"elf", BYTES(ELF "\2\1\1\0\0\0\0\0\0\0\0\0\2\0\xff\x7f"), 0700, ENOEXEC, "another kind of machine", ""},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *path = path_of(files[i].name);
        char text[512];

        write_file(path, files[i].bytes, files[i].len, files[i].mode);
        int error = exec_error(path);
        diagnose_start(text, sizeof text, path, SPAWN_EXEC, error);
        unlink(path);
        if (error != files[i].error)
            fail_msg("%s: %s", files[i].name, strerror(error));
        assert_says(files[i].name, text, files[i].says);
        assert_says(files[i].name, text, files[i].cure);
    }
}

static void test_not_there(void **state)
{
    const char *path = path_of("nothing");
    char text[512];

    (void)state;
    assert_int_equal(exec_error(path), ENOENT);
    diagnose_start(text, sizeof text, path, SPAWN_EXEC, ENOENT);
    assert_says("nothing", text, "No such file or directory");
    assert_says("nothing", text, "correct the path");
}

static void test_directory(void **state)
{
    char text[512];

    (void)state;
    assert_int_equal(exec_error(dir), EACCES);
    diagnose_start(text, sizeof text, dir, SPAWN_EXEC, EACCES);
    assert_says("directory", text, "no regular file");
}

static void test_closed_directory(void **state)
{
    char closed[128], expected[256], text[512];

    (void)state;
    if (geteuid() == 0) /* no directory is closed to root */
        skip();
    snprintf(closed, sizeof closed, "%s", path_of("closed"));
    assert_int_equal(mkdir(closed, 0700), 0);
    const char *path = path_of("closed/x.sh");
    write_file(path, BYTES("#!/bin/sh\n"), 0700);
    chmod(closed, 0600);
    int error = exec_error(path);
    diagnose_start(text, sizeof text, path, SPAWN_EXEC, EACCES);
    chmod(closed, 0700);
    unlink(path);
    rmdir(closed);
    assert_int_equal(error, EACCES);
    snprintf(expected, sizeof expected, "directory %s may not be entered; chmod +x it", closed);
    assert_string_equal(text, expected);
}

static void test_interpreter_without_x(void **state)
{
    char interpreter[128], script[256], text[512];

    (void)state;
    snprintf(interpreter, sizeof interpreter, "%s", path_of("interpreter"));
    write_file(interpreter, BYTES("#!/bin/sh\n"), 0600);
    const char *path = path_of("x.sh");
    int len = snprintf(script, sizeof script, "#!%s\n", interpreter);
    write_file(path, script, (size_t)len, 0700);
    int error = exec_error(path);
    diagnose_start(text, sizeof text, path, SPAWN_EXEC, EACCES);
    unlink(path);
    unlink(interpreter);
    assert_int_equal(error, EACCES);
    assert_says("x.sh", text, "is its interpreter executable");
}

static void test_stages(void **state)
{
    static const struct {
        enum spawn_stage stage;
        int error;
        const char *says;
    } stages[] = {
        {SPAWN_FORK, EAGAIN, "no process"},
        {SPAWN_LIMITS, EPERM, "limits"},
        {SPAWN_USER, EPERM, "user"},
        {SPAWN_DIRECTORY, ENOENT, "directory"},
        {SPAWN_DIRECTORY, EACCES, "directory"},
        {SPAWN_EXEC, E2BIG, "could not be executed"},
        {SPAWN_EXEC, ETXTBSY, "could not be executed"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        char text[512];

        diagnose_start(text, sizeof text, "/bin/sh", stages[i].stage, stages[i].error);
        assert_says("/bin/sh", text, stages[i].says);
        assert_says("/bin/sh", text, strerror(stages[i].error));
    }
}

/* However small the room, the text ends within it. */
static void test_small_room(void **state)
{
    char whole[512], text[512];

    (void)state;
    diagnose_start(whole, sizeof whole, "/nowhere/x", SPAWN_EXEC, ENOENT);
    for (size_t size = 1; size <= strlen(whole) + 1; size++) {
        memset(text, '~', sizeof text);
        diagnose_start(text, size, "/nowhere/x", SPAWN_EXEC, ENOENT);
        assert_int_equal(strlen(text), size - 1);
        assert_memory_equal(text, whole, size - 1);
        assert_int_equal(text[size], '~');
    }
}

/* How a real process ended that does `exit` or kills itself. */
static int status_of(int exit_status, int signal_number)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        if (signal_number != 0) {
            signal(signal_number, SIG_DFL);
            raise(signal_number);
        }
        _exit(exit_status);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_end(void **state)
{
    static const struct {
        int exit_status, signal_number;
        const char *text;
    } ends[] = {
        {0, 0, "exited with status 0"},
        {3, 0, "exited with status 3"},
        {255, 0, "exited with status 255"},
        {0, SIGTERM, "was killed by signal 15 (SIGTERM)"},
        {0, SIGKILL, "was killed by signal 9 (SIGKILL)"},
        {0, SIGUSR1, "was killed by signal 10 (SIGUSR1)"},
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        diagnose_end(text, sizeof text, status_of(ends[i].exit_status, ends[i].signal_number));
        assert_string_equal(text, ends[i].text);
    }
    diagnose_end(text, sizeof text, SIGSEGV | 0x80); /* with a core */
    assert_string_equal(text, "was killed by signal 11 (SIGSEGV)");
}

/* Real-time signals have no name. */
static void test_end_by_nameless_signal(void **state)
{
    char text[64], expected[64];

    (void)state;
    diagnose_end(text, sizeof text, status_of(0, SIGRTMIN + 2));
    snprintf(expected, sizeof expected, "was killed by signal %d", SIGRTMIN + 2);
    assert_says("real-time", text, expected);
    assert_null(strstr(text, "null"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_not_there, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_directory, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_closed_directory, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_interpreter_without_x, make_dir, remove_dir),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_small_room),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_end_by_nameless_signal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
