/* What is put into a spool comes out of it, from memory, from a file, and from both; what no file takes is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/spool.h"

static char directory[] = "/tmp/test-spool-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

/* The bytes from `at` on of an endless sequence in which no stretch is like another. */
static void fill(char *to, size_t len, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (char)((at + i) * 2654435761U >> 13);
}

/* Puts in so many bytes of the sequence, in such pieces. */
static void put_in(struct spool *spool, size_t len, size_t piece, bool in_memory)
{
    static char bytes[1 << 20];

    for (size_t done = 0; done < len; done += piece) {
        size_t n = len - done < piece ? len - done : piece;

        fill(bytes, n, spool->len);
        assert_int_equal(spool_append(spool, (struct span){bytes, n}, directory, in_memory), 0);
    }
}

/* Takes out all that is there, which must be the sequence from `at` on. Returns how many pieces it came in. */
static unsigned take_out(struct spool *spool, uint64_t at)
{
    static char room[SPOOL_PIECE], expected[1 << 20];
    unsigned n_pieces = 0;
    struct span piece;

    for (; spool_left(spool) > 0; n_pieces++) {
        assert_int_equal(spool_peek(spool, room, &piece), 0);
        assert_true(piece.len > 0 && piece.len <= spool_left(spool));
        fill(expected, piece.len, at);
        assert_memory_equal(piece.at, expected, piece.len);
        at += piece.len;
        spool_took(spool, piece);
    }
    assert_int_equal(at, spool->len);
    return n_pieces;
}

static bool is_directory_empty(void)
{
    DIR *entries = opendir(directory);
    unsigned n = 0;

    while (readdir(entries) != NULL)
        n++;
    closedir(entries);
    return n == 2;
}

static void holds_a_little_in_memory(void **state)
{
    struct spool spool = {0};
    struct span piece;

    (void)state;
    assert_int_equal(spool_append(&spool, SPAN(""), directory, false), 0);
    assert_int_equal(spool_left(&spool), 0);
    assert_false(spool.has_file);
    assert_int_equal(spool_peek(&spool, NULL, &piece), 0);
    assert_int_equal(piece.len, 0);
    put_in(&spool, SPOOL_MEMORY, 1000, true);
    assert_false(spool.has_file);
    assert_int_equal(spool_held(&spool), SPOOL_MEMORY);
    assert_int_equal(take_out(&spool, 0), 1);
    assert_int_equal(spool_held(&spool), 0);
    spool_free(&spool);
}

static void puts_more_in_a_file(void **state)
{
    static const size_t lengths[] = {SPOOL_MEMORY + 1, 2 * SPOOL_PIECE, 2 * SPOOL_PIECE + 1, 3000000};
    static const size_t pieces[] = {977, SPOOL_PIECE, 1 << 20};

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
            struct spool spool = {0};

            put_in(&spool, lengths[i], pieces[k], true);
            assert_true(spool.has_file);
            assert_int_equal(spool_held(&spool), 0);
            assert_int_equal(spool_left(&spool), lengths[i]);
            assert_int_equal(take_out(&spool, 0), (lengths[i] + SPOOL_PIECE - 1) / SPOOL_PIECE);
            spool_free(&spool);
        }
}

static void uses_the_file_at_once_where_memory_is_short(void **state)
{
    struct spool spool = {0};

    (void)state;
    put_in(&spool, 10, 10, true);
    put_in(&spool, 10, 10, false);
    assert_true(spool.has_file);
    assert_int_equal(spool_held(&spool), 0);
    put_in(&spool, 10, 10, true);
    assert_int_equal(spool_held(&spool), 0);
    take_out(&spool, 0);
    spool_free(&spool);
}

/* What is held in memory behind a file comes behind it. */
static void keeps_the_order(void **state)
{
    struct spool spool = {0};
    char later[100];

    (void)state;
    put_in(&spool, 100000, 100000, true);
    fill(later, sizeof later, spool.len);
    spool_hold(&spool, (struct span){later, sizeof later});
    assert_int_equal(spool_left(&spool), 100100);
    take_out(&spool, 0);
    spool_free(&spool);
}

static void leaves_no_name_and_no_right_to_others(void **state)
{
    struct spool spool = {0};
    struct stat about;

    (void)state;
    put_in(&spool, 100000, 100000, true);
    assert_true(is_directory_empty());
    assert_int_equal(fstat(spool.fd, &about), 0);
    assert_int_equal(about.st_nlink, 0);
    assert_int_equal(about.st_mode & 077, 0);
    assert_true((fcntl(spool.fd, F_GETFD) & FD_CLOEXEC) != 0);
    int fd = spool.fd;
    spool_free(&spool);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(spool_left(&spool), 0);
}

static void tells_what_went_wrong(void **state)
{
    static char bytes[100000];
    struct spool spool = {0};
    struct rlimit none = {0}, limit;

    (void)state;
    assert_int_equal(spool_append(&spool, (struct span){bytes, sizeof bytes}, "/nowhere/at/all", true), -ENOENT);
    spool_free(&spool);

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    none = (struct rlimit){70000, limit.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
    assert_int_equal(spool_append(&spool, (struct span){bytes, sizeof bytes}, directory, true), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &limit);
    spool_free(&spool);

    getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){0, limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    assert_int_equal(spool_append(&spool, (struct span){bytes, sizeof bytes}, directory, true), -EMFILE);
    setrlimit(RLIMIT_NOFILE, &limit);
    spool_free(&spool);

    /* The file ends before all that was put in has come out. */
    put_in(&spool, sizeof bytes, sizeof bytes, true);
    assert_int_equal(ftruncate(spool.fd, 0), 0);
    struct span piece;
    static char room[SPOOL_PIECE];
    assert_int_equal(spool_peek(&spool, room, &piece), -EIO);
    spool_free(&spool);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_a_little_in_memory),
        cmocka_unit_test(puts_more_in_a_file),
        cmocka_unit_test(uses_the_file_at_once_where_memory_is_short),
        cmocka_unit_test(keeps_the_order),
        cmocka_unit_test(leaves_no_name_and_no_right_to_others),
        cmocka_unit_test(tells_what_went_wrong),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
