#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/measure.h"

enum { MUCH = 64 << 20, LITTLE = 8 << 20 };

static char *map(void)
{
    char *at = mmap(NULL, MUCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

/* What is mapped counts once it is used, and no more when it is given back. */
static void test_own(void **state)
{
    char *at = map();
    uint64_t before = measure_memory(getpid());

    (void)state;
    assert_true(before > 100000);
    memset(at, 1, MUCH);
    uint64_t with = measure_memory(getpid());
    assert_true(with > before + MUCH - LITTLE && with < before + MUCH + LITTLE);
    munmap(at, MUCH);
    assert_true(measure_memory(getpid()) < with - MUCH + LITTLE);
}

/* Of what two share, each has half. */
static void test_shared(void **state)
{
    char *at = map();
    int fds[2];

    (void)state;
    memset(at, 1, MUCH);
    uint64_t alone = measure_memory(getpid());
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[1]);
        _exit((int)read(fds[0], at, 1));
    }
    uint64_t with_child = measure_memory(getpid()), child = measure_memory(pid);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(with_child < alone - MUCH / 2 + LITTLE);
    assert_true(child > MUCH / 2 - LITTLE);
    assert_int_equal(measure_memory(pid), 0); /* it is no more */
    munmap(at, MUCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_shared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
