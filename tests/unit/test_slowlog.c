/* Lines of the slow log: of real processes, of none, and of hostile requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "process/slowlog.h"

static struct event_base *base;
static char dir[64], log_path[96], error_path[96];
static char pool_name[] = "php";
static struct config_pool pool;
static int error_fd;
static char text[1 << 20];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test-slowlog-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(log_path, sizeof log_path, "%s/slow.log", dir);
    snprintf(error_path, sizeof error_path, "%s/error.log", dir);
    error_fd = open(error_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(error_fd >= 0);
    log_set(error_fd);
    base = event_base_new();
    pool = (struct config_pool){.name = pool_name, .slowlog = log_path};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    slowlog_finish();
    event_base_free(base);
    log_set(STDERR_FILENO);
    close(error_fd);
    unlink(log_path);
    unlink(error_path);
    rmdir(dir);
    return 0;
}

/* What is in the file; "" if it is not there. */
static const char *read_all(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;

    close(fd);
    text[n] = '\0';
    return text;
}

static unsigned count_lines(const char *at)
{
    unsigned n = 0;

    for (; (at = strchr(at, '\n')) != NULL; at++)
        n++;
    return n;
}

static void add(pid_t pid, const char *request)
{
    slowlog_add(base, &pool, pid, span_of(request));
}

/* A child that sleeps in pause(), and has said so; ended by end_child(). */
static pid_t start_child(void)
{
    int fds[2];
    char byte;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        close(fds[1]);
        for (;;)
            pause();
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
    return pid;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_process(void **state)
{
    pid_t pid = start_child();
    char process[128];
    struct stat about;

    (void)state;
    add(pid, "0123 GET /slow.php from 10.0.0.1");
    assert_string_equal(read_all(log_path), ""); /* its second look is due */
    event_base_dispatch(base);
    snprintf(process, sizeof process, "Z pool php, process %d | 0123 GET /slow.php from 10.0.0.1 | state ", (int)pid);
    const char *line = read_all(log_path);
    assert_int_equal(count_lines(line), 1);
    assert_ptr_equal(strstr(line, process), line + LOG_TIME_LEN - 1);
    assert_non_null(strstr(line, " kB resident, "));
    assert_non_null(strstr(line, ", kernel stack"));
    assert_non_null(strstr(line, " ms of it in the 100 ms after this\n"));
    assert_int_equal(stat(log_path, &about), 0);
    assert_int_equal(about.st_mode & 07777, 0640);
    assert_string_equal(read_all(error_path), "");
    end_child(pid);
}

/* The second look is at the same process, or at none. */
static void test_process_that_ends(void **state)
{
    pid_t pid = start_child();

    (void)state;
    add(pid, "x");
    end_child(pid);
    event_base_dispatch(base);
    assert_non_null(strstr(read_all(log_path), ", and has ended within 100 ms after this\n"));
    add(pid, "y");
    assert_non_null(strstr(read_all(log_path), " | y | it has ended\n"));
}

static void test_server(void **state)
{
    (void)state;
    add(0, "GET /api");
    assert_non_null(strstr(read_all(log_path), "Z pool php | GET /api | a server's, which is not ours to look at\n"));
    assert_int_equal(count_lines(text), 1);
}

static void test_error_log(void **state)
{
    (void)state;
    pool.slowlog = NULL;
    add(0, "GET /api\n2026 error: forged | state R");
    const char *line = read_all(error_path);
    assert_int_equal(count_lines(line), 1);
    assert_non_null(strstr(line, "Z warning: pool php | GET /api\\x0a2026 error: forged ! state R | a server's"));
}

/* Whatever a request holds, it is one line, and the last part of it is ours. */
static void test_hostile_requests(void **state)
{
    char all[4095];

    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i % 256);
    for (size_t len = 0; len < sizeof all; len += 511) {
        slowlog_add(base, &pool, 0, (struct span){all, len});
        const char *line = read_all(log_path);
        unsigned n_bars = 0;

        assert_int_equal(count_lines(line), 1);
        for (const char *at = line; (at = strchr(at, '|')) != NULL; at++)
            n_bars++;
        assert_int_equal(n_bars, 2);
        assert_non_null(strstr(line, " | a server's, which is not ours to look at\n"));
        assert_true(strlen(line) <= 4096);
        unlink(log_path);
        slowlog_reopen();
    }
}

/* So many lines within a second; how many more there were is told when it is over. */
static void test_rate(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3 * SLOWLOG_RATE; i++)
        add(0, "GET /");
    assert_int_equal(count_lines(read_all(log_path)), SLOWLOG_RATE);
    event_base_dispatch(base);
    const char *line = read_all(log_path);
    assert_int_equal(count_lines(line), SLOWLOG_RATE + 1);
    assert_non_null(strstr(line, "Z pool php: 20 more slow requests are not shown\n"));
    add(0, "GET /again");
    assert_non_null(strstr(read_all(log_path), "GET /again"));
}

/* Of all pools together, only so many processes are looked at at a time. */
static void test_pending(void **state)
{
    char names[SLOWLOG_PENDING / SLOWLOG_RATE + 2][8];
    pid_t pid = start_child();
    unsigned n = 0;

    (void)state;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(names[i], sizeof names[i], "p%u", i);
        pool.name = names[i];
        for (unsigned k = 0; k < SLOWLOG_RATE; k++, n++)
            add(pid, "GET /");
    }
    assert_true(n > SLOWLOG_PENDING);
    slowlog_finish();
    const char *line = read_all(log_path), *at = line;
    for (n = 0; (at = strstr(at, "GET /")) != NULL; at++)
        n++;
    assert_int_equal(n, SLOWLOG_PENDING);
    assert_non_null(strstr(line, " more slow requests are not shown\n"));
    end_child(pid);
}

/* Who may write into the directory cannot have us write elsewhere. */
static void test_symbolic_link(void **state)
{
    char target[128];

    (void)state;
    snprintf(target, sizeof target, "%s/target", dir);
    assert_int_equal(symlink(target, log_path), 0);
    add(0, "GET /1");
    add(0, "GET /2");
    assert_int_equal(access(target, F_OK), -1);
    const char *errors = read_all(error_path);
    assert_int_equal(count_lines(errors), 3); /* the cause once, and both lines */
    assert_non_null(strstr(errors, "slowlog "));
    assert_non_null(strstr(errors, "it is a symbolic link"));
    assert_non_null(strstr(errors, "GET /1"));
    assert_non_null(strstr(errors, "GET /2"));
    slowlog_reopen();
    unlink(log_path);
    add(0, "GET /3");
    assert_non_null(strstr(read_all(log_path), "GET /3"));
}

static void test_reopen(void **state)
{
    char moved[128];

    (void)state;
    snprintf(moved, sizeof moved, "%s.1", log_path);
    add(0, "GET /1");
    assert_int_equal(rename(log_path, moved), 0);
    add(0, "GET /2");
    assert_int_equal(count_lines(read_all(moved)), 2);
    slowlog_reopen();
    add(0, "GET /3");
    assert_int_equal(count_lines(read_all(moved)), 2);
    assert_int_equal(count_lines(read_all(log_path)), 1);
    unlink(moved);
}

/* The pool's settings have changed. */
static void test_other_path(void **state)
{
    static char other[128];

    (void)state;
    snprintf(other, sizeof other, "%s.other", log_path);
    add(0, "GET /1");
    pool.slowlog = other;
    add(0, "GET /2");
    assert_non_null(strstr(read_all(other), "GET /2"));
    assert_int_equal(count_lines(read_all(log_path)), 1);
    unlink(other);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_process),    TEST(test_process_that_ends), TEST(test_server),
        TEST(test_error_log),  TEST(test_hostile_requests),  TEST(test_rate),
        TEST(test_pending),    TEST(test_symbolic_link),     TEST(test_reopen),
        TEST(test_other_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
