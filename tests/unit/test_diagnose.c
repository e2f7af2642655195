#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/diagnose.h"

enum { NOBODY = 65534 };

static char dir[64];
static struct config_user nobody = {(char[]){"nobody"}, NOBODY, NOBODY};
static const struct config_rlimits unlimited = {RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY,
                                                RLIM_INFINITY};

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_diagnose-XXXXXX");
    return mkdtemp(dir) == NULL || chmod(dir, 0755) != 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

/* The path of a name in the directory, in one of a few pieces of memory that are used in turn. */
static const char *path_of(const char *name)
{
    static char paths[8][128];
    static unsigned turn;
    char *path = paths[turn++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
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

__attribute__((format(printf, 3, 4))) static void write_text(const char *path, mode_t mode, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    int len = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_file(path, text, (size_t)len, mode);
}

/* Really starts it, so that the errno that diagnose_start() is given is no invention of the test. Returns the errno;
 * text has the cause then. */
static int try(const struct spawn *spawn, char *text, size_t size)
{
    enum spawn_stage stage;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC), status;
    struct spawn whole = *spawn;
    char name[] = "program", *argv[] = {name, NULL}, *envp[] = {NULL};

    for (int i = 0; i < 3; i++)
        whole.fds[i] = null_fd;
    whole.argv = argv;
    whole.envp = spawn->envp != NULL ? spawn->envp : envp;
    pid_t pid = spawn_program(&whole, &stage);
    close(null_fd);
    if (pid > 0) {
        waitpid(pid, &status, 0);
        snprintf(text, size, "it was started");
        return 0;
    }
    diagnose_start(text, size, &whole, stage, (int)-pid);
    return (int)-pid;
}

static void assert_says(const char *name, const char *text, const char *expected)
{
    if (strstr(text, expected) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", name, text, expected);
}

/* It does not start, with this errno, and for this cause. */
static void assert_cause(const struct spawn *spawn, int error, const char *cause, const char *cure)
{
    char text[4096];
    int found = try(spawn, text, sizeof text);

    if (found != error)
        fail_msg("%s: %s: %s", spawn->program, strerror(found), text);
    assert_says(spawn->program, text, cause);
    assert_says(spawn->program, text, cure);
}

static bool may_change_user(void)
{
    if (geteuid() != 0)
        print_message("skipped: only root can start a program as another user\n");
    return geteuid() == 0;
}

#define BYTES(literal) literal, sizeof(literal) - 1
#define A16            "aaaaaaaaaaaaaaaa"
#define A128           A16 A16 A16 A16 A16 A16 A16 A16
#define CLASS64        "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0"
#define ZERO16         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

static const struct {
    const char *name;
    const char *bytes;
    size_t len;
    mode_t mode;
    int error; /* of exec */
    const char *cause, *cure;
} files[] = {
    {"no-x", BYTES("#!/bin/sh\n"), 0600, EACCES, "no execute permission", "chmod +x"},
    {"nothing-in-it-no-x", BYTES(""), 0600, EACCES, "no execute permission", "chmod +x"},
    {"no-interpreter", BYTES("#!/nowhere/perl -w\n"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"space", BYTES("#! \t/nowhere/perl\n"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"no-lf", BYTES("#!/nowhere/perl"), 0700, ENOENT, "interpreter \"/nowhere/perl\"", "install it"},
    {"below-a-file", BYTES("#!/etc/passwd/perl\n"), 0700, ENOTDIR, "\"/etc/passwd/perl\"", "Not a directory"},
    {"relative", BYTES("#!perl -w\n"), 0700, ENOENT, "no absolute path", "#!/usr/bin/env perl"},
    {"no-x-interpreter", BYTES("#!/etc/passwd\n"), 0700, EACCES, "interpreter \"/etc/passwd\"", "chmod +x"},
    {"directory-interpreter", BYTES("#!/usr\n"), 0700, EACCES, "interpreter \"/usr\"", "is a directory"},
    {"crlf", BYTES("#!/bin/sh\r\necho\r\n"), 0700, ENOENT, "CR LF", "LF line ends"},
    {"crlf-only-line", BYTES("#!/bin/sh\r\n"), 0700, ENOENT, "CR LF", "LF line ends"},
    {"cr", BYTES("#!/bin/sh\recho hi\r"), 0700, ENOENT, "ends in CR,", "LF line ends"},
    {"long", BYTES("#!/" A128 A128 "\n"), 0700, ENOEXEC, "too long", "shorten it"},
    {"no-name", BYTES("#!\necho\n"), 0700, ENOEXEC, "names no interpreter", "write one"},
    {"blank-name", BYTES("#! \t \necho\n"), 0700, ENOEXEC, "names no interpreter", "write one"},
    {"bom", BYTES("\xef\xbb\xbf#!/bin/sh\n"), 0700, ENOEXEC, "byte order mark", "without"},
    {"utf-16", BYTES("\xff\xfe#\0!\0/\0"), 0700, ENOEXEC, "UTF-16", "UTF-8"},
    {"text", BYTES("echo hello\n"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"late", BYTES("\n#!/bin/sh\n"), 0700, ENOEXEC, "not the very first thing", "remove the white space"},
    {"behind-a-comment", BYTES("# name\n\n#!/bin/sh\n"), 0700, ENOEXEC, "not the very first thing", "remove the lines"},
    {"comments-only", BYTES("# name\n# #!/bin/sh\n"), 0700, ENOEXEC, "neither a program", "\"#!\" first line"},
    {"utf-16-plain", BYTES("#\0!\0/\0b\0"), 0700, ENOEXEC, "UTF-16", "UTF-8"},
    {"utf-16-swapped", BYTES("\0#\0!\0/\0b"), 0700, ENOEXEC, "UTF-16", "UTF-8"},
    {"gzip", BYTES("\x1f\x8b\x08\0"), 0700, ENOEXEC, "gzip", "gunzip"},
    {"jar", BYTES("PK\3\4\x14\0"), 0700, ENOEXEC, "jar archive", "java -jar"},
    {"wasm", BYTES("\0asm\1\0\0\0"), 0700, ENOEXEC, "WebAssembly", "runtime"},
    {"empty", BYTES(""), 0700, ENOEXEC, "is empty", "\"#!\""},
    {"one-byte", BYTES("#"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"two-bytes-of-bom", BYTES("\xef\xbb"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"zeroes", BYTES("\0\0\0\0"), 0700, ENOEXEC, "neither", "\"#!\""},
    {"windows", BYTES("MZ\x90\0"), 0700, ENOEXEC, "for Windows", "build or install"},
    {"elf-cut", BYTES("\177ELF\2"), 0700, ENOEXEC, "cut short", "again"},
    {"elf-unknown", BYTES(CLASS64 "\2\0\xff\x7f" ZERO16 ZERO16 ZERO16), 0700, ENOEXEC, "unknown type 32767",
     "this machine is"},
};

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct spawn spawn = {.program = path_of(files[i].name)};

        write_file(spawn.program, files[i].bytes, files[i].len, files[i].mode);
        assert_cause(&spawn, files[i].error, files[i].cause, files[i].cure);
        unlink(spawn.program);
    }
}

static void test_not_there(void **state)
{
    struct spawn spawn = {.program = path_of("nothing")};

    (void)state;
    assert_cause(&spawn, ENOENT, "No such file or directory", "correct the path");
    spawn.program = "/etc/passwd/nothing";
    assert_cause(&spawn, ENOTDIR, "Not a directory", "correct the path");
    spawn.program = path_of("circle");
    assert_int_equal(symlink("circle", spawn.program), 0);
    assert_cause(&spawn, ELOOP, "symbolic links", "correct the path");
    unlink(spawn.program);
}

static void test_directory(void **state)
{
    struct spawn spawn = {.program = dir};

    (void)state;
    assert_cause(&spawn, EACCES, "no regular file", "");
}

/* ---- as another user: by the bits that count for that one ---- */

static void test_other_user(void **state)
{
    static const struct {
        mode_t mode;
        uid_t owner;
        gid_t group;
        int error;
    } rows[] = {
        {0700, 0, 0, EACCES},      {0070, 0, 0, EACCES}, {0776, 0, 0, EACCES}, {0677, NOBODY, 0, EACCES},
        {0705, 0, NOBODY, EACCES}, {0755, 0, 0, 0},      {0050, 0, NOBODY, 0}, {0500, NOBODY, 0, 0},
    };
    struct spawn spawn = {.program = path_of("x"), .user = &nobody};
    char text[512];

    (void)state;
    if (!may_change_user())
        skip();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_file(spawn.program, BYTES("#!/bin/true\n"), 0600);
        assert_int_equal(chown(spawn.program, rows[i].owner, rows[i].group), 0);
        assert_int_equal(chmod(spawn.program, rows[i].mode), 0);
        int error = try(&spawn, text, sizeof text);
        if (error != rows[i].error)
            fail_msg("row %zu: %s: %s", i, strerror(error), text);
        if (error != 0)
            assert_says("x", text, "no execute permission for user nobody");
        unlink(spawn.program);
    }
}

static void test_closed_directory(void **state)
{
    const char *closed = path_of("closed"), *path = path_of("closed/x.sh"), *link = path_of("link.sh");
    struct spawn spawn = {.program = path, .user = &nobody};
    char expected[256];

    (void)state;
    if (!may_change_user())
        skip();
    assert_int_equal(mkdir(closed, 0750), 0);
    write_file(path, BYTES("#!/bin/true\n"), 0755);
    assert_int_equal(symlink("closed/x.sh", link), 0);
    snprintf(expected, sizeof expected,
             "directory %s may not be entered by user nobody (its mode is 0750, its owner root)", closed);
    assert_cause(&spawn, EACCES, expected, "chmod +x it");
    spawn.program = link;
    assert_cause(&spawn, EACCES, expected, "chmod +x it");
    spawn = (struct spawn){.program = "/bin/true", .user = &nobody, .directory = closed};
    assert_cause(&spawn, EACCES, expected, "chmod +x it");
    unlink(link);
    unlink(path);
    rmdir(closed);
}

static void test_interpreter_of_other_user(void **state)
{
    const char *interpreter = path_of("interpreter");
    struct spawn spawn = {.program = path_of("x.sh"), .user = &nobody};
    char expected[256];

    (void)state;
    if (!may_change_user())
        skip();
    write_file(interpreter, BYTES("#!/bin/sh\n"), 0744);
    write_text(spawn.program, 0755, "#!%s\n", interpreter);
    snprintf(expected, sizeof expected, "interpreter \"%s\" of its \"#!\" line: no execute permission for user nobody",
             interpreter);
    assert_cause(&spawn, EACCES, expected, "chmod +x it");
    unlink(spawn.program);
    unlink(interpreter);
}

/* ---- interpreters ---- */

static void test_chain_of_interpreters(void **state)
{
    enum { N = 8 };
    struct spawn spawn;
    char name[16];

    (void)state;
    write_file(path_of("0"), BYTES("#!/nowhere/perl\n"), 0755);
    for (int i = 1; i < N; i++) {
        snprintf(name, sizeof name, "%d", i - 1);
        const char *below = path_of(name);
        snprintf(name, sizeof name, "%d", i);
        write_text(path_of(name), 0755, "#!%s\n", below);
    }
    spawn = (struct spawn){.program = path_of("2")};
    assert_cause(&spawn, ENOENT, "/1\" of its \"#!\" line: interpreter \"",
                 "\"/nowhere/perl\" of its \"#!\" line is not");
    spawn = (struct spawn){.program = path_of("7")};
    assert_cause(&spawn, ELOOP, "too many scripts", "as their interpreter");
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%d", i);
        unlink(path_of(name));
    }
}

/* ---- ELF ---- */

static size_t read_program(const char *path, unsigned char *bytes, size_t room)
{
    FILE *from = fopen(path, "re");

    assert_non_null(from);
    size_t n = fread(bytes, 1, room, from);
    fclose(from);
    assert_true(n > sizeof(Elf64_Ehdr) && n < room);
    return n;
}

static void test_foreign_elf(void **state)
{
    static unsigned char bytes[1 << 20];
    struct spawn spawn = {.program = path_of("foreign")};
    char expected[256];
    struct utsname system;
    size_t n = read_program("/bin/true", bytes, sizeof bytes);
    uint16_t *machine = (uint16_t *)(void *)(bytes + offsetof(Elf64_Ehdr, e_machine));
    uint16_t *type = (uint16_t *)(void *)(bytes + offsetof(Elf64_Ehdr, e_type)), own = *machine;

    (void)state;
    uname(&system);
    *machine = own == EM_AARCH64 ? EM_RISCV : EM_AARCH64;
    write_file(spawn.program, bytes, n, 0755);
    snprintf(expected, sizeof expected, "is built for %s, this machine is %s",
             own == EM_AARCH64 ? "riscv64" : "aarch64", system.machine);
    assert_cause(&spawn, ENOEXEC, expected, "build or install it");
    *machine = own;
    *type = ET_REL;
    write_file(spawn.program, bytes, n, 0755);
    assert_cause(&spawn, ENOEXEC, "no program", "object file");
    unlink(spawn.program);
}

static void test_elf_interpreter(void **state)
{
    static unsigned char bytes[1 << 20];
    struct spawn spawn = {.program = path_of("alien")};
    size_t n = read_program("/bin/true", bytes, sizeof bytes);
    unsigned char *loader = memmem(bytes, n, BYTES("/lib"));

    (void)state;
    assert_non_null(loader);
    memcpy(loader, "/no", 3);
    write_file(spawn.program, bytes, n, 0755);
    assert_cause(&spawn, ENOENT, "its ELF interpreter /no", "built for this system");
    memcpy(loader, "/etc/passwd", sizeof "/etc/passwd");
    write_file(spawn.program, bytes, n, 0755);
    assert_cause(&spawn, EACCES, "its ELF interpreter /etc/passwd: no execute permission", "chmod +x");
    unlink(spawn.program);
}

/* ---- what is not the file's fault ---- */

static void test_being_written(void **state)
{
    struct spawn spawn = {.program = path_of("copied")};

    (void)state;
    write_file(spawn.program, BYTES("#!/bin/true\n"), 0755);
    int fd = open(spawn.program, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_cause(&spawn, ETXTBSY, "is open for writing", "renaming");
    close(fd);
    unlink(spawn.program);
}

static void test_noexec(void **state)
{
    const char *at = path_of("mount");
    char expected[256];
    struct spawn spawn = {.program = path_of("mount/x.sh")}, outside = {.program = path_of("y.sh")};

    (void)state;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        print_message("skipped: no mount can be made here: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(mkdir(at, 0755), 0);
    assert_int_equal(mount("none", at, "tmpfs", MS_NOEXEC, NULL), 0);
    write_file(spawn.program, BYTES("#!/bin/sh\n"), 0755);
    snprintf(expected, sizeof expected, "mounted noexec at %s;", at);
    assert_cause(&spawn, EACCES, expected, "mount that with exec");
    write_text(outside.program, 0755, "#!%s\n", spawn.program);
    assert_cause(&outside, EACCES, expected, "of its \"#!\" line: its file system");
    assert_int_equal(umount(at), 0);
    unlink(outside.program);
    rmdir(at);
}

static void test_environment_too_long(void **state)
{
    enum { ONE = 200000, MANY = 100, EACH = 100000 };
    static char one[ONE + 16], each[EACH + 16];
    char *envp[MANY + 1] = {(char[]){"A=1"}, one, NULL};
    struct spawn spawn = {.program = "/bin/true", .envp = envp};

    (void)state;
    memcpy(one, BYTES("HTTP_X_LONG="));
    memset(one + strlen(one), 'x', ONE);
    assert_cause(&spawn, E2BIG, "variable HTTP_X_LONG has 200013 bytes", "lower max_field");
    memcpy(each, BYTES("HTTP_COOKIE="));
    memset(each + strlen(each), 'x', EACH);
    for (int i = 0; i < MANY; i++)
        envp[i] = each;
    envp[MANY] = NULL;
    assert_cause(&spawn, E2BIG, "the longest is HTTP_COOKIE with 100013", "lower max_head");
}

static void test_limit_above_own(void **state)
{
    struct config_rlimits limits = unlimited;
    struct spawn spawn = {.program = "/bin/true", .rlimits = &limits};

    (void)state;
    limits.files = 1ULL << 40; /* more than the kernel gives to anybody */
    assert_cause(&spawn, EPERM, "rlimit_files = 1099511627776 is more than", "LimitNOFILE=");
}

/* Runs `trial` in a process of its own that is nobody's where that can be had, and gives what it wrote. */
static void apart(void (*trial)(int to), char *text, size_t size)
{
    int fds[2], status;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        trial(fds[1]);
        _exit(0);
    }
    close(fds[1]);
    ssize_t n = read(fds[0], text, size - 1);
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    text[n > 0 ? n : 0] = '\0';
}

static void start_without_processes(int to)
{
    struct rlimit none = {0, 0};
    struct spawn spawn = {.program = "/bin/true"};
    char text[512];

    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        _exit(1);
    setrlimit(RLIMIT_NPROC, &none);
    if (try(&spawn, text, sizeof text) != EAGAIN)
        _exit(2);
    (void)!write(to, text, strlen(text));
}

static void test_no_process(void **state)
{
    char text[512];

    (void)state;
    apart(start_without_processes, text, sizeof text);
    assert_says("fork", text, "RLIMIT_NPROC, now 0");
    assert_says("fork", text, "LimitNPROC=");
}

/* A process of nobody's that does nothing until it is killed. */
static pid_t idle_as_nobody(void)
{
    char path[64];
    struct stat about = {0};
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)!setuid(NOBODY);
        pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    while (stat(path, &about) == 0 && about.st_uid != NOBODY)
        sched_yield();
    return pid;
}

/* exec(2) fails, not the change of user, when the user had more processes than the limit before. */
static void test_user_has_too_many(void **state)
{
    struct config_rlimits limits = unlimited;
    struct spawn spawn = {.program = "/bin/true", .user = &nobody, .rlimits = &limits};
    pid_t others[2];

    (void)state;
    if (!may_change_user())
        skip();
    for (int i = 0; i < 2; i++)
        others[i] = idle_as_nobody();
    limits.nproc = 1;
    assert_cause(&spawn, EAGAIN, "user nobody has more processes than rlimit_nproc = 1", "a user of its own");
    for (int i = 0; i < 2; i++) {
        kill(others[i], SIGKILL);
        assert_int_equal(waitpid(others[i], NULL, 0), others[i]);
    }
}

/* What cannot be made to happen here. */
static void test_stages(void **state)
{
    static const struct {
        enum spawn_stage stage;
        int error;
        const char *says;
    } stages[] = {
        {SPAWN_SOCKET, EADDRINUSE, "its socket could not be made: Address already in use"},
        {SPAWN_SOCKET, EMFILE, "LimitNOFILE="},
        {SPAWN_FORK, EUSERS, "8192 programs are running"},
        {SPAWN_FORK, ENOMEM, "out of memory"},
        {SPAWN_CGROUP, ENODEV, "its control group: No such device"},
        {SPAWN_LIMITS, EPERM, "its resource limits could not be set: Operation not permitted"},
        {SPAWN_USER, EPERM, "its user could not be set: Operation not permitted"},
        {SPAWN_USER, EAGAIN, "RLIMIT_NPROC"},
        {SPAWN_DIRECTORY, ENOENT, "directory /nowhere could not be entered: No such file"},
        {SPAWN_EXEC, EAGAIN, "user the server's own has more processes"},
        {SPAWN_EXEC, ENOMEM, "out of memory"},
        {SPAWN_EXEC, EACCES, "access control list"},
        {SPAWN_EXEC, EIO, "could not be executed: Input/output error"},
    };
    struct spawn spawn = {.program = "/bin/sh", .directory = "/nowhere"};
    char text[512];

    (void)state;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        diagnose_start(text, sizeof text, &spawn, stages[i].stage, stages[i].error);
        assert_says("/bin/sh", text, stages[i].says);
    }
    struct config_rlimits limits = unlimited;
    limits.as = 1048576;
    spawn.rlimits = &limits;
    diagnose_start(text, sizeof text, &spawn, SPAWN_EXEC, ENOMEM);
    assert_says("/bin/sh", text, "rlimit_as = 1048576 is too little");
}

/* However small the room, the text ends within it. */
static void test_small_room(void **state)
{
    struct spawn spawn = {.program = path_of("small.sh")};
    char whole[512], text[512];

    (void)state;
    write_file(spawn.program, BYTES("#!/etc/passwd\n"), 0755);
    diagnose_start(whole, sizeof whole, &spawn, SPAWN_EXEC, EACCES);
    assert_says("small", whole, "interpreter \"/etc/passwd\" of its \"#!\" line: no execute permission");
    for (size_t size = 1; size <= strlen(whole) + 1; size++) {
        memset(text, '~', sizeof text);
        diagnose_start(text, size, &spawn, SPAWN_EXEC, EACCES);
        assert_int_equal(strlen(text), size - 1);
        assert_memory_equal(text, whole, size - 1);
        assert_int_equal(text[size], '~');
    }
    unlink(spawn.program);
}

/* ---- ends ---- */

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

static void test_limited_end(void **state)
{
    static const struct config_rlimits cpu = {RLIM_INFINITY, 2, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY};
    static const struct config_rlimits as = {4096, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY};
    static const struct rusage little = {.ru_utime = {1, 0}}, much = {.ru_utime = {2, 0}};
    static const struct {
        int status;
        const struct config_rlimits *limits;
        const struct rusage *usage;
        const char *text;
    } ends[] = {
        {SIGXCPU, &cpu, NULL, "was killed by signal 24 (SIGXCPU): it has used up rlimit_cpu = 2s"},
        {SIGXCPU, &unlimited, NULL, "was killed by signal 24 (SIGXCPU)"},
        {SIGKILL, &cpu, &much, "was killed by signal 9 (SIGKILL): it has used up rlimit_cpu = 2s"},
        {SIGKILL, &cpu, &little, "was killed by signal 9 (SIGKILL)"},
        {SIGTERM, &cpu, &much, "was killed by signal 15 (SIGTERM)"},
        {SIGSEGV, &as, NULL, "was killed by signal 11 (SIGSEGV); rlimit_as = 4096 may be too little for it"},
        {SIGSEGV, &unlimited, NULL, "was killed by signal 11 (SIGSEGV)"},
        {127 << 8, &as, NULL, "exited with status 127; rlimit_as = 4096 may be too little for it"},
        {1 << 8, &as, NULL, "exited with status 1"},
    };
    char text[160];

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        diagnose_limited_end(text, sizeof text, ends[i].status, ends[i].limits, ends[i].usage);
        assert_string_equal(text, ends[i].text);
    }
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIRECTORY(test_files),
        IN_DIRECTORY(test_not_there),
        IN_DIRECTORY(test_directory),
        IN_DIRECTORY(test_other_user),
        IN_DIRECTORY(test_closed_directory),
        IN_DIRECTORY(test_interpreter_of_other_user),
        IN_DIRECTORY(test_chain_of_interpreters),
        IN_DIRECTORY(test_foreign_elf),
        IN_DIRECTORY(test_elf_interpreter),
        IN_DIRECTORY(test_being_written),
        IN_DIRECTORY(test_noexec),
        IN_DIRECTORY(test_small_room),
        cmocka_unit_test(test_environment_too_long),
        cmocka_unit_test(test_limit_above_own),
        cmocka_unit_test(test_no_process),
        cmocka_unit_test(test_user_has_too_many),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_end_by_nameless_signal),
        cmocka_unit_test(test_limited_end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
