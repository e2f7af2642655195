#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "process/listen.h"

/* An address of each kind: a port that is chosen, and a path. */
struct trial {
    char folder[64], text[2][128];
    struct config_address at[2];
    struct config_addresses addresses;
    int fds[2];
};

static struct listen_known none;

static int begin(void **state)
{
    static struct trial trial;
    struct sockaddr_in *in = (struct sockaddr_in *)&trial.at[0].address;
    struct sockaddr_un *un = (struct sockaddr_un *)&trial.at[1].address;

    trial = (struct trial){.folder = "/tmp/test_listen-XXXXXX", .addresses = {trial.at, 2}};
    if (mkdtemp(trial.folder) == NULL)
        return -1;
    log_set(-1);
    snprintf(trial.text[0], sizeof trial.text[0], "127.0.0.1:0");
    snprintf(trial.text[1], sizeof trial.text[1], "unix:%s/x.sock", trial.folder);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    un->sun_family = AF_UNIX;
    snprintf(un->sun_path, sizeof un->sun_path, "%s/x.sock", trial.folder);
    trial.at[0].text = trial.text[0];
    trial.at[0].len = sizeof *in;
    trial.at[1].text = trial.text[1];
    trial.at[1].len = sizeof *un;
    *state = &trial;
    unsetenv("GATEHOUSE_LISTEN");
    return listen_open(&trial.addresses, &(struct config_user){.uid = getuid(), .gid = getgid()}, &none, trial.fds);
}

static int end(void **state)
{
    struct trial *trial = *state;

    listen_close(&trial->addresses, trial->fds, NULL);
    return rmdir(trial->folder); /* the socket's file is gone */
}

static bool is_same_socket(int a, int b)
{
    struct stat x, y;

    assert_int_equal(fstat(a, &x), 0);
    assert_int_equal(fstat(b, &y), 0);
    return x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* As the program that is started by this one has it: "NAME=value" in its environment. */
static void put(char *text)
{
    char *equals = strchr(text, '=');

    assert_non_null(equals);
    assert_int_equal(putenv(text), 0);
}

static void open_with(const struct trial *trial, struct listen_known *known, int fds[2])
{
    assert_int_equal(
        listen_open(&trial->addresses, &(struct config_user){.uid = getuid(), .gid = getgid()}, known, fds), 0);
    assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
}

/* What is known is taken, by a descriptor of its own: the same ports, the same files, and what waits to be accepted. */
static void test_know(void **state)
{
    struct trial *trial = *state;
    struct listen_known known = {0};
    int fds[2];

    listen_know(&known, &trial->addresses, trial->fds);
    assert_int_equal(known.n, 2);
    open_with(trial, &known, fds);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_not_equal(fds[i], trial->fds[i]);
        assert_true(is_same_socket(fds[i], trial->fds[i]));
        close(fds[i]);
    }
    listen_forget(&known, false);
    assert_int_equal(known.n, 0);
    assert_int_not_equal(fcntl(trial->fds[0], F_GETFD), -1);
}

static void test_bequeath_and_inherit(void **state)
{
    struct trial *trial = *state;
    struct listen_known known = {0};
    static char text[512];
    int given[2] = {dup(trial->fds[0]), dup(trial->fds[1])}, fds[2]; /* without close-on-exec */

    listen_bequeath(&trial->addresses, given, text, sizeof text);
    assert_int_equal(strncmp(text, "GATEHOUSE_LISTEN=", 17), 0);
    put(text);
    listen_inherit(&known);
    assert_null(getenv("GATEHOUSE_LISTEN"));
    assert_int_equal(known.n, 2);
    assert_int_equal(fcntl(given[0], F_GETFD), FD_CLOEXEC);
    open_with(trial, &known, fds);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(is_same_socket(fds[i], trial->fds[i]));
        close(fds[i]);
    }
    listen_forget(&known, true);
    assert_int_equal(fcntl(given[0], F_GETFD), -1);
    assert_int_equal(fcntl(given[1], F_GETFD), -1);
}

/* One that is written otherwise, and bound to the same, is the same. */
static void test_by_what_it_is_bound_to(void **state)
{
    struct trial *trial = *state;
    struct config_address other = trial->at[1];
    struct config_addresses others = {&other, 1};
    struct listen_known known = {0};
    int fd;

    other.text = (char[]){"unix:x.sock"};
    listen_know(&known, &trial->addresses, trial->fds);
    assert_int_equal(listen_open(&others, &(struct config_user){.uid = getuid(), .gid = getgid()}, &known, &fd), 0);
    assert_true(is_same_socket(fd, trial->fds[1]));
    close(fd);
    listen_forget(&known, false);
}

/* Of two with a port that is to be chosen, each gets its own. */
static void test_each_is_known_once(void **state)
{
    struct trial *trial = *state;
    struct config_address same[] = {trial->at[0], trial->at[0]};
    struct config_addresses twice = {same, 2};
    struct listen_known known = {0};
    int fds[2];

    listen_know(&known, &trial->addresses, trial->fds);
    open_with(&(struct trial){.addresses = twice}, &known, fds);
    assert_true(is_same_socket(fds[0], trial->fds[0]));
    assert_false(is_same_socket(fds[1], trial->fds[0]));
    close(fds[0]);
    close(fds[1]);
    listen_forget(&known, false);
}

/* What is no listening socket of ours is passed over: the variable may come from anywhere. */
static void test_what_is_not_inherited(void **state)
{
    static const char *const values[] = {
        "", "x", "=", "5", "1=127.0.0.1:80", "-1=a", "999999=127.0.0.1:80", "99999999999999999999=a"};
    struct listen_known known = {0};
    int pipe_fds[2], connected = socket(AF_INET, SOCK_STREAM, 0);
    char text[128];

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        setenv("GATEHOUSE_LISTEN", values[i], 1);
        listen_inherit(&known);
        if (known.n != 0)
            fail_msg("\"%s\"", values[i]);
        assert_null(getenv("GATEHOUSE_LISTEN"));
    }
    snprintf(text, sizeof text, "%d=127.0.0.1:1 %d=127.0.0.1:2", pipe_fds[0], connected);
    setenv("GATEHOUSE_LISTEN", text, 1);
    listen_inherit(&known);
    assert_int_equal(known.n, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(connected);
}

/* The file of a socket that another configuration has, too, stays. */
static void test_close_keeps_what_is_kept(void **state)
{
    struct trial *trial = *state;
    struct listen_known known = {0};
    int fds[2];

    listen_know(&known, &trial->addresses, trial->fds);
    open_with(trial, &known, fds);
    listen_close(&trial->addresses, fds, &trial->addresses);
    assert_int_equal(access(trial->text[1] + 5, F_OK), 0);
    listen_forget(&known, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_know, begin, end),
        cmocka_unit_test_setup_teardown(test_bequeath_and_inherit, begin, end),
        cmocka_unit_test_setup_teardown(test_by_what_it_is_bound_to, begin, end),
        cmocka_unit_test_setup_teardown(test_each_is_known_once, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_not_inherited, begin, end),
        cmocka_unit_test_setup_teardown(test_close_keeps_what_is_kept, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
