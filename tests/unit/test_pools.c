#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/pools.h"

/* A route of CGI scripts with one slot, two fronts that are the test itself, and what the keeper says to them. */
struct keeper {
    char folder[64];
    struct config config;
    struct config_site site, *sites[1];
    struct config_route route, *routes[1];
    struct pools_options options;
    struct pools *pools;
    struct wards *wards;
    struct message said[2]; /* the last one to each front */
    unsigned n_loans[2];    /* slots lent to each */
};

static bool is_variable(const struct config_route *route, struct span name)
{
    (void)route, (void)name;
    return true;
}

static bool may_run(const struct config_route *route, struct span script)
{
    (void)route;
    return !span_is(script, SPAN("forbidden.sh"));
}

static void on_send(void *arg, unsigned front, const struct message *message, const int *fds, unsigned n_fds)
{
    struct keeper *keeper = arg;

    (void)fds;
    assert_int_equal(n_fds, 0);
    if (message->kind == MESSAGE_LOAN)
        keeper->n_loans[front] += message->n;
    keeper->said[front] = *message;
}

static void write_script(const struct keeper *keeper, const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", keeper->folder, name);
    FILE *to = fopen(path, "we");
    assert_non_null(to);
    fputs("#!/bin/sh\nread line\n", to); /* goes on until its input is closed */
    assert_int_equal(fclose(to), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

static int begin(void **state)
{
    struct keeper *keeper = calloc(1, sizeof *keeper);

    snprintf(keeper->folder, sizeof keeper->folder, "/tmp/test_pools-XXXXXX");
    if (mkdtemp(keeper->folder) == NULL)
        return -1;
    write_script(keeper, "x.sh");
    write_script(keeper, "forbidden.sh");
    keeper->site.root = keeper->folder;
    keeper->route = (struct config_route){
        .site = &keeper->site,
        .text = (char[]){"/x/*"},
        .gateway = GATEWAY_CGI,
        .dir = keeper->folder,
        .max_running = 1,
        .rlimits = {RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY},
    };
    keeper->sites[0] = &keeper->site;
    keeper->routes[0] = &keeper->route;
    keeper->config = (struct config){
        .sites = keeper->sites, .n_sites = 1, .routes = keeper->routes, .n_routes = 1, .server = {.fronts = 2}};
    keeper->wards = wards_create();
    keeper->options = (struct pools_options){
        .base = event_base_new(),
        .config = &keeper->config,
        .socket_dir = "",
        .is_variable = is_variable,
        .may_run = may_run,
        .send = on_send,
        .arg = keeper,
    };
    keeper->options.programs = programs_create(keeper->options.base, keeper->wards);
    keeper->pools = pools_create(&keeper->options);
    pools_start(keeper->pools);
    pools_front_came(keeper->pools, 0);
    *state = keeper;
    return 0;
}

static int end(void **state)
{
    struct keeper *keeper = *state;
    char path[128];

    pools_destroy(keeper->pools);
    programs_destroy(keeper->options.programs);
    event_base_free(keeper->options.base);
    wards_forget(keeper->wards);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", keeper->folder, i == 0 ? "x.sh" : "forbidden.sh");
        unlink(path);
    }
    int failed = rmdir(keeper->folder);
    free(keeper);
    return failed;
}

static int memory_file(void)
{
    int fd = memfd_create("environment", MFD_CLOEXEC);

    assert_int_equal(write(fd, "A=1", 4), 4);
    return fd;
}

/* A front asks for a run; its standard input stays open until *hold is closed. What pools_receive() has returned. */
static int ask(struct keeper *keeper, unsigned front, const char *script, int environment_fd, int *hold)
{
    struct message message = {.kind = MESSAGE_RUN, .id = 7};
    int fds[4], pipe_fds[2];

    message.text_len = (size_t)snprintf(message.text, sizeof message.text, "%s", script);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    *hold = pipe_fds[1];
    fds[0] = pipe_fds[0];
    fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    fds[2] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    fds[3] = environment_fd;
    return pools_receive(keeper->pools, front, &message, fds, 4);
}

static void reap(struct keeper *keeper, pid_t pid)
{
    struct rusage usage;
    int status;

    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    assert_true(programs_reaped(keeper->options.programs, pid, status, &usage));
}

static void test_run(void **state)
{
    struct keeper *keeper = *state;
    int hold, more;

    assert_int_equal(keeper->n_loans[0], 1);
    assert_int_equal(ask(keeper, 0, "x.sh", memory_file(), &hold), 0);
    assert_int_equal(keeper->said[0].kind, MESSAGE_STARTED);
    pid_t pid = keeper->said[0].pid;
    assert_int_equal(ask(keeper, 0, "x.sh", memory_file(), &more), -EPROTO); /* more than it has slots */
    close(hold);
    close(more);
    reap(keeper, pid);
    assert_int_equal(keeper->said[0].kind, MESSAGE_EXITED);
}

static void test_what_may_not_be_run(void **state)
{
    struct keeper *keeper = *state;
    int hold;

    assert_int_equal(ask(keeper, 0, "forbidden.sh", memory_file(), &hold), 0);
    close(hold);
    assert_int_equal(keeper->said[0].kind, MESSAGE_REFUSED);
    assert_int_equal(keeper->said[0].status, EACCES);
    assert_int_equal(keeper->said[0].n, 1);
}

/* Reading some files takes for ever: only one in memory is read. */
static void test_environment_that_is_no_memory_file(void **state)
{
    struct keeper *keeper = *state;
    char path[128];
    int hold;

    snprintf(path, sizeof path, "%s/x.sh", keeper->folder);
    assert_int_equal(ask(keeper, 0, "x.sh", open(path, O_RDONLY | O_CLOEXEC), &hold), 0);
    close(hold);
    assert_int_equal(keeper->said[0].kind, MESSAGE_REFUSED);
    assert_int_equal(keeper->said[0].status, E2BIG);
    assert_non_null(strstr(keeper->said[0].text, "memory file"));
}

/* The run of a front that is gone has its slot until it has exited: no more than max_running ever run. */
static void test_slots_of_a_front_that_is_gone(void **state)
{
    struct keeper *keeper = *state;
    int hold;

    pools_front_came(keeper->pools, 1);
    assert_int_equal(keeper->n_loans[1], 0);
    assert_int_equal(ask(keeper, 0, "x.sh", memory_file(), &hold), 0);
    pid_t pid = keeper->said[0].pid;
    pools_front_left(keeper->pools, 0);
    assert_int_equal(keeper->n_loans[1], 0);
    close(hold);
    reap(keeper, pid);
    assert_int_equal(keeper->n_loans[1], 1);
}

static void test_idle_slots_of_a_front_that_is_gone(void **state)
{
    struct keeper *keeper = *state;

    pools_front_came(keeper->pools, 1);
    pools_front_left(keeper->pools, 0);
    assert_int_equal(keeper->n_loans[1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_run, begin, end),
        cmocka_unit_test_setup_teardown(test_what_may_not_be_run, begin, end),
        cmocka_unit_test_setup_teardown(test_environment_that_is_no_memory_file, begin, end),
        cmocka_unit_test_setup_teardown(test_slots_of_a_front_that_is_gone, begin, end),
        cmocka_unit_test_setup_teardown(test_idle_slots_of_a_front_that_is_gone, begin, end),
    };

    spawn_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
