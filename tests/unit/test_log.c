/* Sinks that are slow, full or gone; escaping; the standard error of programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

/* A non-blocking pipe that holds one page. */
static void small_pipe(int fds[2])
{
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_true(fcntl(fds[1], F_SETPIPE_SZ, 4096) > 0);
}

/* Everything that can be read from fd now, behind what `into` has, terminated. */
static char *read_all(int fd, struct buffer *into)
{
    ssize_t n;

    while ((n = read(fd, buffer_reserve(into, 4096), 4095)) > 0)
        buffer_added(into, (size_t)n);
    *buffer_reserve(into, 1) = '\0';
    return buffer_at(into);
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;

    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        n++;
    return n;
}

static void test_escape(void **state)
{
    static const struct {
        struct span in;
        const char *out;
    } cases[] = {
        {{"", 0}, ""},
        {{"plain \"text\"", 12}, "plain \"text\""},
        {{"a\nb\r\t\x1b\0\x7f", 8}, "a\\x0ab\\x0d\\x09\\x1b\\x00\\x7f"},
        {{"\\x0a", 4}, "\\\\x0a"},
        {{"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9}, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {{"\xc2\x9b\xc2\xa0", 4}, "\\xc2\\x9b\xc2\xa0"},
        {{"\xc3", 1}, "\\xc3"},
        {{"\xc0\xaf\xff", 3}, "\\xc0\\xaf\\xff"},
        {{"\xed\xa0\x80", 3}, "\\xed\\xa0\\x80"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer to = {0};

        log_escape(&to, cases[i].in);
        buffer_append(&to, "", 1);
        assert_string_equal(buffer_at(&to), cases[i].out);
        buffer_free(&to);
    }
}

static void test_time(void **state)
{
    char at[LOG_TIME_LEN + 1] = "";

    (void)state;
    log_time(at, (struct timespec){1795413694, 7999999});
    assert_string_equal(at, "2026-11-23T06:01:34.007Z");
    log_time(at, (struct timespec){1795413694, 999999999});
    assert_string_equal(at, "2026-11-23T06:01:34.999Z");
    log_time(at, (struct timespec){0, 0});
    assert_string_equal(at, "1970-01-01T00:00:00.000Z");
}

static void test_open(void **state)
{
    char directory[] = "/tmp/test-log-XXXXXX", path[64];
    struct stat info;
    int fd;

    (void)state;
    assert_int_equal(sink_open(NULL, 1), -1);
    assert_int_equal(sink_open("/nonexistent/log", 1), -ENOENT);
    assert_non_null(mkdtemp(directory));
    assert_int_equal(sink_open(directory, 1), -EISDIR);
    snprintf(path, sizeof path, "%s/log", directory);
    umask(0);
    for (int i = 0; i < 2; i++) { /* the second time it is appended to */
        fd = sink_open(path, 1);
        assert_true(fd >= 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(write(fd, "x\n", 2), 2);
        close(fd);
    }
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(info.st_size, 4);
    unlink(path);
    rmdir(directory);
}

/* Our O_NONBLOCK must not show in a pipe that we got from somebody; a socket cannot be opened anew. */
static void test_open_standard(void **state)
{
    int fds[2], fd;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    fd = sink_open("-", fds[1]);
    assert_true(fd >= 0 && fd != fds[1]);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
    close(fd);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(sink_open("-", fds[1]), -EBADF);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    fd = sink_open("-", fds[1]);
    assert_true(fd >= 0 && fd != fds[1]);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    close(fds[0]);
    close(fds[1]);
}

static void test_sink(void **state)
{
    struct sink sink = {.fd = -1};
    struct buffer got = {0};
    char line[1024];
    int fds[2];

    (void)state;
    sink_add(&sink, SPAN("nobody listens\n"));
    assert_true(sink_flush(&sink));
    assert_int_equal(buffer_len(&sink.waiting), 0);
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    sink.fd = fds[1];
    sink_add(&sink, SPAN("one\n"));
    sink_add(&sink, SPAN("two\nthree\n"));
    assert_string_equal(read_all(fds[0], &got), ""); /* nothing was asked for yet */
    assert_true(sink_flush(&sink));
    assert_string_equal(read_all(fds[0], &got), "one\ntwo\nthree\n");
    buffer_clear(&got);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 31; i++)
        sink_add(&sink, (struct span){line, sizeof line});
    read_all(fds[0], &got);
    assert_int_equal(buffer_len(&got), 0);
    sink_add(&sink, (struct span){line, sizeof line});
    read_all(fds[0], &got);
    assert_int_equal(buffer_len(&got), 32 * 1024); /* enough had gathered */
    buffer_free(&got);
    sink_free(&sink);
    close(fds[0]);
    close(fds[1]);
}

/* A reader that does not read: 256 KiB wait, the rest is counted, and afterwards every line is whole. */
static void fill_and_read(const char *line, const char *before, const char *after)
{
    struct sink sink = {0};
    struct buffer got = {0};
    size_t n_written;
    int fds[2];
    char lost[128];

    small_pipe(fds);
    sink.fd = fds[1];
    for (int i = 0; i < 10000; i++)
        sink_add(&sink, span_of(line));
    assert_false(sink_flush(&sink));
    assert_true(buffer_len(&sink.waiting) <= SINK_ROOM);
    assert_true(buffer_len(&sink.waiting) > SINK_ROOM - 1024);
    assert_true(sink.lost > 0);
    do {
        read_all(fds[0], &got);
    } while (!sink_flush(&sink));
    n_written = count(read_all(fds[0], &got), line);
    assert_int_equal(n_written + sink.lost, 10000);
    assert_int_equal(buffer_len(&got), n_written * strlen(line));
    snprintf(lost, sizeof lost, "%s%zu%s\n", before, 10000 - n_written, after);
    sink_add(&sink, span_of(line));
    assert_true(sink_flush(&sink));
    assert_int_equal(sink.lost, 0);
    read_all(fds[0], &got);
    assert_int_equal(count(buffer_at(&got), lost), 1);
    assert_string_equal(strstr(buffer_at(&got), lost) + strlen(lost), line);
    buffer_free(&got);
    sink_free(&sink);
    close(fds[0]);
    close(fds[1]);
}

static void test_slow_reader(void **state)
{
    (void)state;
    fill_and_read("a line of some forty bytes for the test\n",
                  "Z warning: ", " lines of this log were lost here: its reader is too slow");
    fill_and_read("{\"a\":\"line of some forty bytes, in JSON\"}\n", "Z\",\"lines_lost\":", "}");
}

/* Lines of two sinks on one pipe: none is torn, and what does not fit a piece is written in the next. */
static void test_whole_lines(void **state)
{
    struct sink sinks[2] = {{0}, {0}};
    struct buffer got = {0};
    char lines[2][1001];
    bool done = false;
    int fds[2];

    (void)state;
    small_pipe(fds);
    for (int i = 0; i < 2; i++) {
        sinks[i].fd = fds[1];
        memset(lines[i], 'a' + i, sizeof lines[i] - 1);
        lines[i][999] = '\n';
        lines[i][1000] = '\0';
        for (int n = 0; n < 30; n++)
            sink_add(&sinks[i], span_of(lines[i]));
    }
    while (!done) {
        done = sink_flush(&sinks[0]);
        read_all(fds[0], &got);
        done &= sink_flush(&sinks[1]);
        read_all(fds[0], &got);
    }
    read_all(fds[0], &got);
    assert_int_equal(buffer_len(&got), 60000);
    assert_int_equal(count(buffer_at(&got), lines[0]), 30);
    assert_int_equal(count(buffer_at(&got), lines[1]), 30);
    buffer_free(&got);
    sink_free(&sinks[0]);
    sink_free(&sinks[1]);
    close(fds[0]);
    close(fds[1]);
}

static void test_reader_gone(void **state)
{
    struct sink sink = {0};
    int fds[2];

    (void)state;
    small_pipe(fds);
    sink.fd = fds[1];
    close(fds[0]);
    for (int i = 0; i < 100000; i++)
        sink_add(&sink, SPAN("a line that nobody will ever read\n"));
    assert_true(sink_flush(&sink)); /* nothing to wait for */
    assert_true(buffer_len(&sink.waiting) <= SINK_ROOM);
    assert_true(sink.lost > 0);
    sink_free(&sink);
    close(fds[1]);
}

/* A line longer than a pipe takes at once. */
static void test_long_line(void **state)
{
    static char line[10001];
    struct sink sink = {0};
    struct buffer got = {0};
    int fds[2];

    (void)state;
    small_pipe(fds);
    sink.fd = fds[1];
    memset(line, 'x', 9999);
    line[9999] = '\n';
    sink_add(&sink, SPAN("before\n"));
    sink_add(&sink, span_of(line));
    sink_add(&sink, SPAN("after\n"));
    while (!sink_flush(&sink))
        read_all(fds[0], &got);
    read_all(fds[0], &got);
    assert_int_equal(buffer_len(&got), 7 + 10000 + 6);
    assert_memory_equal(buffer_at(&got) + 7, line, 10000);
    buffer_free(&got);
    sink_free(&sink);
    close(fds[0]);
    close(fds[1]);
}

/* The error log into a pipe; *got is what was written, with the time stamps replaced by "T". */
static int log_pipe[2];

static int open_log(void **state)
{
    (void)state;
    assert_int_equal(pipe2(log_pipe, O_NONBLOCK), 0);
    log_set(log_pipe[1]);
    return 0;
}

static int close_log(void **state)
{
    (void)state;
    assert_true(log_flush());
    log_set(-1);
    close(log_pipe[0]);
    close(log_pipe[1]);
    return 0;
}

static void read_log(struct buffer *got)
{
    struct buffer raw = {0};
    char *line = read_all(log_pipe[0], &raw);

    buffer_clear(got);
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        assert_true(end - line > LOG_TIME_LEN && line[4] == '-' && line[LOG_TIME_LEN - 1] == 'Z');
        assert_true(end - line < PIPE_BUF);
        buffer_append(got, "T", 1);
        buffer_append(got, line + LOG_TIME_LEN, (size_t)(end - line) + 1 - LOG_TIME_LEN);
    }
    assert_string_equal(line, "");
    buffer_append(got, "", 1);
    buffer_free(&raw);
}

static void expect_log(const char *text)
{
    struct buffer got = {0};

    read_log(&got);
    assert_string_equal(buffer_at(&got), text);
    buffer_free(&got);
}

static void test_lines(void **state)
{
    (void)state;
    log_error("cannot start %s", "it");
    log_warning("a\nforged: line");
    log_notice("%s", "");
    expect_log("T error: cannot start it\nT warning: a\\x0aforged: line\nT notice: \n");
}

static void test_cut_line(void **state)
{
    static const size_t lens[] = {4000, 4050, 4095, 4096, 5000};
    static char text[5001];
    struct buffer got = {0};

    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        memset(text, 'x', lens[i]);
        text[lens[i]] = '\0';
        log_error("%s", text);
        read_log(&got);
        assert_int_equal(strstr(buffer_at(&got), "x [cut]\n") != NULL, lens[i] > 4055);
    }
    memset(text, '\n', 4000);
    text[4000] = '\0';
    log_error("%s", text);
    read_log(&got);
    assert_non_null(strstr(buffer_at(&got), "\\x0a [cut]\n"));
    assert_true(buffer_len(&got) > 4000);
    buffer_free(&got);
}

#define TAG    SPAN("[php 4711 9f2c] /app.php")
#define TAGGED "T stderr: [php 4711 9f2c] /app.php: "

static void test_stream(void **state)
{
    struct log_stream stream = {0};

    (void)state;
    log_stream_add(&stream, TAG, SPAN("one\ntwo\r\n\nthr"));
    expect_log(TAGGED "one\n" TAGGED "two\n" TAGGED "\n");
    log_stream_add(&stream, TAG, SPAN("e"));
    log_stream_add(&stream, TAG, SPAN(""));
    expect_log("");
    log_stream_add(&stream, TAG, SPAN("e\nfo\x1bur"));
    assert_int_equal(stream.total, 13 + 1 + 7);
    log_stream_end(&stream, TAG);
    expect_log(TAGGED "three\n" TAGGED "fo\\x1bur\n");
    assert_int_equal(stream.total, 0);
    assert_null(stream.line.memory);
    log_stream_end(&stream, TAG);
    expect_log("");
}

/* The same bytes in pieces of every size: the same lines. */
static void test_stream_pieces(void **state)
{
    struct log_stream stream = {0};
    struct buffer expected = {0}, got = {0};
    static char text[2600];

    (void)state;
    memset(text, 'x', sizeof text);
    text[10] = text[10 + 1024 + 1] = text[2500] = '\n'; /* the second is just not cut, the third is */
    log_stream_add(&stream, TAG, (struct span){text, sizeof text});
    log_stream_end(&stream, TAG);
    read_log(&expected);
    assert_int_equal(count(buffer_at(&expected), TAGGED), 5);
    for (size_t size = 1; size < sizeof text; size += size < 20 ? 1 : 97) {
        for (size_t at = 0; at < sizeof text; at += size)
            log_stream_add(&stream, TAG, (struct span){text + at, sizeof text - at < size ? sizeof text - at : size});
        log_stream_end(&stream, TAG);
        read_log(&got);
        assert_string_equal(buffer_at(&got), buffer_at(&expected));
    }
    buffer_free(&expected);
    buffer_free(&got);
}

/* Whatever the second in which they come: each line is either written or counted. */
static void test_stream_flood(void **state)
{
    struct log_stream stream = {0};
    struct buffer got = {0};
    size_t written, counted = 0;
    const char *at;

    (void)state;
    assert_true(fcntl(log_pipe[1], F_SETPIPE_SZ, 1 << 20) > 0);
    for (int i = 0; i < 2000; i++)
        log_stream_add(&stream, TAG, SPAN("flood\nflood\n"));
    log_stream_end(&stream, TAG);
    read_log(&got);
    written = count(buffer_at(&got), ": flood\n");
    for (at = buffer_at(&got); (at = strstr(at, ": [")) != NULL; at++)
        counted += strtoul(at + 3, NULL, 10);
    assert_true(written >= 200 && written < 4000);
    assert_int_equal(written % 200, 0);
    assert_int_equal(written + counted, 4000);
    buffer_free(&got);
}

static void test_stream_bytes(void **state)
{
    struct log_stream stream = {0};
    struct buffer got = {0};
    static char line[1000];

    (void)state;
    assert_true(fcntl(log_pipe[1], F_SETPIPE_SZ, 1 << 20) > 0);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 190; i++)
        log_stream_add(&stream, TAG, (struct span){line, sizeof line});
    log_stream_end(&stream, TAG);
    read_log(&got);
    assert_non_null(strstr(buffer_at(&got), " more lines within a second are not shown]\n"));
    buffer_free(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_open_standard),
        cmocka_unit_test(test_sink),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_whole_lines),
        cmocka_unit_test(test_reader_gone),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test_setup_teardown(test_lines, open_log, close_log),
        cmocka_unit_test_setup_teardown(test_cut_line, open_log, close_log),
        cmocka_unit_test_setup_teardown(test_stream, open_log, close_log),
        cmocka_unit_test_setup_teardown(test_stream_pieces, open_log, close_log),
        cmocka_unit_test_setup_teardown(test_stream_flood, open_log, close_log),
        cmocka_unit_test_setup_teardown(test_stream_bytes, open_log, close_log),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
