/*
 * Of each process there are two looks: one when its request is told of, and one 100 ms later, for the processor time
 * that went by. Both go through a descriptor of its directory in /proc, so that the second cannot be of another process
 * that has got the same number meanwhile.
 *
 * Where something is not permitted - the kernel's stack, for all but root; system calls, where processes may not be
 * traced - the line says so.
 */
#include "process/slowlog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "log.h"

enum {
    LOOK_MS = 100,
    MOST_CHILDREN = 8,
    MOST_FRAMES = 24,
    FILE_ROOM = 4096, /* of a file in /proc */
    LINE_ROOM = 4096, /* of a line, its end included */
};

/* One pool's log. Made for its first line, never unmade: as many as there are names in configurations. */
struct slow_pool {
    LIST_ENTRY(slow_pool) next;
    char *name, *path; /* path NULL: the error log */
    struct sink sink;  /* fd -1: not open */
    bool has_failed;   /* the error was said */
    uint64_t second_us;
    unsigned n;              /* lines since then */
    unsigned long n_hidden;  /* of the requests that were not written, those that were not told of yet */
    struct event *on_hidden; /* tells of them */
};

/* A line on its way. */
struct slow_line {
    LIST_ENTRY(slow_line) next;
    struct slow_pool *pool;
    struct event *timer;
    struct timespec time;
    int dir_fd; /* /proc/PID; -1: a server's */
    uint64_t cpu_ms;
    struct buffer text; /* raw */
};

static LIST_HEAD(, slow_pool) slow_pools = LIST_HEAD_INITIALIZER(slow_pools);
static LIST_HEAD(, slow_line) slow_lines = LIST_HEAD_INITIALIZER(slow_lines);
static unsigned n_slow_lines;

/* ---- the file ---- */

static void open_log(struct slow_pool *pool)
{
    int fd;

    if (pool->sink.fd >= 0)
        return;
    fd = open(pool->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
    if (fd < 0 && !pool->has_failed)
        log_error("pool %s: slowlog %s cannot be opened: %s; what is slow is told here", pool->name, pool->path,
                  errno == ELOOP ? "it is a symbolic link" : strerror(errno));
    pool->has_failed = fd < 0;
    pool->sink.fd = fd;
}

static void close_log(struct slow_pool *pool)
{
    sink_flush(&pool->sink);
    sink_free(&pool->sink);
    if (pool->sink.fd >= 0)
        close(pool->sink.fd);
    pool->sink.fd = -1;
}

/* One line, of any bytes. */
static void write_line(struct slow_pool *pool, struct timespec time, struct span text)
{
    char stamp[LOG_TIME_LEN];
    struct buffer line = {0};

    if (pool->path != NULL)
        open_log(pool);
    if (pool->sink.fd < 0) {
        log_warning("%.*s", (int)text.len, text.at);
        return;
    }
    log_time(stamp, time);
    buffer_append(&line, stamp, sizeof stamp);
    buffer_append_span(&line, SPAN(" "));
    log_escape(&line, text);
    if (buffer_len(&line) >= LINE_ROOM)
        line.end = line.start + LINE_ROOM - 1;
    buffer_append_span(&line, SPAN("\n"));
    sink_add(&pool->sink, buffer_span(&line));
    sink_flush(&pool->sink);
    buffer_free(&line);
}

/* ---- looks ---- */

/* Reads a whole small file, or its beginning: its length, or -errno. Always terminated. */
static int read_file(int dir_fd, const char *name, char text[FILE_ROOM])
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int error = fd < 0 ? -errno : 0;
    ssize_t n = fd < 0 ? 0 : read(fd, text, FILE_ROOM - 1);

    if (n < 0)
        error = -errno;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return error != 0 ? error : (int)n;
}

static const char *why_not(int error)
{
    switch (error) {
    case -EPERM:
    case -EACCES:
        return "not permitted";
    case -ENOENT:
        return "not told by this kernel";
    case -ESRCH:
        return "it has ended";
    default:
        return error < 0 ? strerror(-error) : "not told";
    }
}

/* Processor time so far, of user and system, in clock ticks. False: it has ended. */
static bool read_times(int dir_fd, unsigned long *user_out, unsigned long *system_out)
{
    char text[FILE_ROOM];
    char *at;

    *user_out = *system_out = 0;
    if (read_file(dir_fd, "stat", text) <= 0 || (at = strrchr(text, ')')) == NULL)
        return false;
    /* behind the name: state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime */
    for (int i = 0; i < 12 && at != NULL; i++)
        at = strchr(at + 1, ' ');
    if (at == NULL)
        return false;
    *user_out = strtoul(at, &at, 10);
    *system_out = strtoul(at, NULL, 10);
    return true;
}

static uint64_t ms_of(unsigned long ticks)
{
    long rate = sysconf(_SC_CLK_TCK);

    return (uint64_t)ticks * 1000 / (uint64_t)(rate > 0 ? rate : 100);
}

/* The value of a line "NAME:  value" of /proc/PID/status, by "\nNAME:"; the white space before it is left out. */
static bool status_value(const char *status, const char *name, char *value, size_t size)
{
    const char *at = strstr(status, name);

    if (at == NULL)
        return false;
    at += strlen(name);
    at += strspn(at, " \t");
    snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
    return value[0] != '\0';
}

static void add_status(struct buffer *to, int dir_fd)
{
    char text[FILE_ROOM], value[64];
    int n = read_file(dir_fd, "status", text);

    if (n <= 0) {
        buffer_printf(to, "state: %s", why_not(n));
        return;
    }
    buffer_printf(to, "state %s", status_value(text, "\nState:", value, sizeof value) ? value : "not told");
    if (status_value(text, "\nThreads:", value, sizeof value) && strcmp(value, "1") != 0)
        buffer_printf(to, ", %s threads", value);
    if (status_value(text, "\nVmRSS:", value, sizeof value))
        buffer_printf(to, ", %s resident", value);
}

/* Where programs mostly wait. */
static const char *name_of_call(long number)
{
    static const struct {
        long number;
        const char *name;
    } calls[] = {
        {SYS_read, "read"},
        {SYS_write, "write"},
        {SYS_readv, "readv"},
        {SYS_writev, "writev"},
        {SYS_pread64, "pread64"},
        {SYS_pwrite64, "pwrite64"},
        {SYS_openat, "openat"},
        {SYS_close, "close"},
        {SYS_fsync, "fsync"},
        {SYS_fdatasync, "fdatasync"},
        {SYS_flock, "flock"},
        {SYS_fcntl, "fcntl"},
        {SYS_ioctl, "ioctl"},
        {SYS_unlinkat, "unlinkat"},
        {SYS_getdents64, "getdents64"},
        {SYS_ppoll, "ppoll"},
        {SYS_pselect6, "pselect6"},
        {SYS_epoll_pwait, "epoll_pwait"},
        {SYS_accept, "accept"},
        {SYS_accept4, "accept4"},
        {SYS_connect, "connect"},
        {SYS_sendto, "sendto"},
        {SYS_sendmsg, "sendmsg"},
        {SYS_recvfrom, "recvfrom"},
        {SYS_recvmsg, "recvmsg"},
        {SYS_futex, "futex"},
        {SYS_nanosleep, "nanosleep"},
        {SYS_clock_nanosleep, "clock_nanosleep"},
        {SYS_wait4, "wait4"},
        {SYS_waitid, "waitid"},
        {SYS_rt_sigsuspend, "rt_sigsuspend"},
        {SYS_rt_sigtimedwait, "rt_sigtimedwait"},
        {SYS_restart_syscall, "restart_syscall"},
        {SYS_semtimedop, "semtimedop"},
        {SYS_msgrcv, "msgrcv"},
        {SYS_io_getevents, "io_getevents"},
#ifdef SYS_poll
        {SYS_poll, "poll"},
        {SYS_select, "select"},
        {SYS_epoll_wait, "epoll_wait"},
        {SYS_pause, "pause"},
        {SYS_open, "open"},
        {SYS_stat, "stat"},
        {SYS_lstat, "lstat"},
        {SYS_unlink, "unlink"},
        {SYS_rename, "rename"},
#endif
    };

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].number == number)
            return calls[i].name;
    return "";
}

static void add_call(struct buffer *to, int dir_fd)
{
    char text[FILE_ROOM];
    int n = read_file(dir_fd, "syscall", text);
    long number = n > 0 ? strtol(text, NULL, 10) : -1;

    if (n <= 0)
        buffer_printf(to, ", syscall: %s", why_not(n));
    else if (strncmp(text, "running", 7) == 0)
        buffer_append_span(to, SPAN(", running"));
    else if (number >= 0)
        buffer_printf(to, ", syscall %ld %s", number, name_of_call(number));
    else
        buffer_append_span(to, SPAN(", in no syscall"));
}

/* "0" is what those see who may not, and what a process has that does not wait. */
static void add_wait(struct buffer *to, int dir_fd)
{
    char text[FILE_ROOM];
    int n = read_file(dir_fd, "wchan", text);

    if (n > 0 && strcmp(text, "0") != 0)
        buffer_printf(to, ", wchan %.64s", text);
    else
        buffer_printf(to, ", wchan: %s", n < 0 ? why_not(n) : "not told");
}

/* "[<0>] hrtimer_nanosleep+0x74/0xf0", a line each, becomes the names, innermost first. */
static void add_stack(struct buffer *to, int dir_fd)
{
    char text[FILE_ROOM], *rest = text, *line;
    int n = read_file(dir_fd, "stack", text);
    unsigned n_frames = 0;

    if (n <= 0) {
        buffer_printf(to, ", kernel stack: %s", n < 0 ? why_not(n) : "empty");
        return;
    }
    while ((line = strsep(&rest, "\n")) != NULL && n_frames < MOST_FRAMES) {
        char *name = strchr(line, ' ');

        if (name == NULL)
            continue;
        name[strcspn(name, "+")] = '\0';
        buffer_printf(to, "%s%.64s", n_frames++ == 0 ? ", kernel stack" : " <", name);
    }
}

/* What the process waits for may be another, which it has started. Their names are the program's to choose. */
static void add_children(struct buffer *to, int dir_fd, pid_t pid)
{
    char name[64], text[FILE_ROOM], child[FILE_ROOM], *rest = text, *word;
    unsigned n = 0;

    snprintf(name, sizeof name, "task/%d/children", (int)pid);
    if (read_file(dir_fd, name, text) <= 0)
        return;
    while ((word = strsep(&rest, " \n")) != NULL) {
        char *comm, *end;

        if (*word == '\0' || strspn(word, "0123456789") != strlen(word))
            continue;
        if (n++ >= MOST_CHILDREN)
            continue;
        snprintf(name, sizeof name, "/proc/%.16s/stat", word);
        if (read_file(AT_FDCWD, name, child) <= 0)
            continue;
        comm = strchr(child, '(');
        end = strrchr(child, ')');
        if (comm != NULL && end > comm)
            buffer_printf(to, ", child %.16s %.*s %.1s", word, (int)(end - comm) + 1, comm,
                          end[1] == ' ' ? end + 2 : end + 1);
    }
    if (n > MOST_CHILDREN)
        buffer_printf(to, ", and %u more children", n - MOST_CHILDREN);
}

static void add_look(struct slow_line *line, pid_t pid)
{
    struct buffer *to = &line->text;
    unsigned long user, system;

    buffer_append_span(to, SPAN(" | "));
    if (line->dir_fd < 0) {
        buffer_append_span(to, pid == 0 ? SPAN("a server's, which is not ours to look at") : SPAN("it has ended"));
        return;
    }
    add_status(to, line->dir_fd);
    add_call(to, line->dir_fd);
    add_wait(to, line->dir_fd);
    add_stack(to, line->dir_fd);
    add_children(to, line->dir_fd, pid);
    read_times(line->dir_fd, &user, &system);
    line->cpu_ms = ms_of(user + system);
    buffer_printf(to, ", cpu %" PRIu64 " ms user and %" PRIu64 " ms system", ms_of(user), ms_of(system));
}

static void add_second_look(struct slow_line *line)
{
    unsigned long user, system;

    if (line->dir_fd < 0)
        return;
    if (read_times(line->dir_fd, &user, &system))
        buffer_printf(&line->text, ", %" PRIu64 " ms of it in the %d ms after this",
                      ms_of(user + system) - line->cpu_ms, LOOK_MS);
    else
        buffer_printf(&line->text, ", and has ended within %d ms after this", LOOK_MS);
}

/* ---- lines ---- */

static void finish_line(struct slow_line *line)
{
    write_line(line->pool, line->time, buffer_span(&line->text));
    LIST_REMOVE(line, next);
    n_slow_lines--;
    event_free(line->timer);
    if (line->dir_fd >= 0)
        close(line->dir_fd);
    buffer_free(&line->text);
    free(line);
}

static void on_second_look(evutil_socket_t fd, short what, void *arg)
{
    struct slow_line *line = arg;

    (void)fd, (void)what;
    add_second_look(line);
    finish_line(line);
}

static void tell_hidden(struct slow_pool *pool)
{
    struct timespec now;
    char text[160];

    if (pool->n_hidden == 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    int len =
        snprintf(text, sizeof text, "pool %.64s: %lu more slow requests are not shown", pool->name, pool->n_hidden);
    pool->n_hidden = 0;
    write_line(pool, now, (struct span){text, (size_t)len});
}

static void on_hidden(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    tell_hidden(arg);
}

/* May the pool have another line in this second? Else it is counted. */
static bool has_turn(struct slow_pool *pool)
{
    static const struct timeval second = {1, 0};
    uint64_t now = clock_us();

    if (now - pool->second_us >= 1000000) {
        pool->second_us = now;
        pool->n = 0;
    }
    if (pool->n < SLOWLOG_RATE && n_slow_lines < SLOWLOG_PENDING) {
        pool->n++;
        return true;
    }
    if (pool->n_hidden++ == 0)
        event_add(pool->on_hidden, &second);
    return false;
}

/* ---- pools ---- */

static struct slow_pool *find_pool(struct event_base *base, const char *name)
{
    struct slow_pool *pool;

    LIST_FOREACH(pool, &slow_pools, next)
    if (strcmp(pool->name, name) == 0)
        return pool;
    pool = memory_zeroed(1, sizeof *pool);
    pool->name = memory_copy(name, strlen(name));
    pool->sink.fd = -1;
    pool->on_hidden = evtimer_new(base, on_hidden, pool);
    LIST_INSERT_HEAD(&slow_pools, pool, next);
    return pool;
}

static bool is_same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void set_path(struct slow_pool *pool, const char *path)
{
    if (is_same(pool->path, path))
        return;
    close_log(pool);
    free(pool->path);
    pool->path = path != NULL ? memory_copy(path, strlen(path)) : NULL;
    pool->has_failed = false;
}

/* The front's part: as long as it may be once it is escaped, and without a bar, which is ours. */
static void add_request(struct buffer *to, struct span request)
{
    size_t room = SLOWLOG_REQUEST, n = 0;

    for (; n < request.len; n++) {
        char c = request.at[n];
        size_t needed = c >= ' ' && c < 0x7f && c != '\\' ? 1 : 4;

        if (needed > room)
            break;
        room -= needed;
        buffer_append(to, c == '|' ? "!" : &c, 1);
    }
    if (n < request.len)
        buffer_append_span(to, SPAN("..."));
}

void slowlog_add(struct event_base *base, const struct config_pool *pool, pid_t pid, struct span request)
{
    static const struct timeval delay = {LOOK_MS / 1000, LOOK_MS % 1000 * 1000};
    struct slow_pool *log = find_pool(base, pool->name);
    struct slow_line *line;
    char path[32];

    set_path(log, pool->slowlog);
    if (!has_turn(log))
        return;
    line = memory_zeroed(1, sizeof *line);
    line->pool = log;
    line->timer = evtimer_new(base, on_second_look, line);
    clock_gettime(CLOCK_REALTIME, &line->time);
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    line->dir_fd = pid != 0 ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    LIST_INSERT_HEAD(&slow_lines, line, next);
    n_slow_lines++;
    buffer_printf(&line->text, pid != 0 ? "pool %.64s, process %d | " : "pool %.64s | ", pool->name, (int)pid);
    add_request(&line->text, request);
    add_look(line, pid);
    if (line->dir_fd >= 0)
        event_add(line->timer, &delay);
    else
        finish_line(line);
}

void slowlog_reopen(void)
{
    struct slow_pool *pool;

    LIST_FOREACH(pool, &slow_pools, next)
    {
        close_log(pool);
        pool->has_failed = false;
    }
}

void slowlog_finish(void)
{
    struct slow_pool *pool;

    while (!LIST_EMPTY(&slow_lines))
        finish_line(LIST_FIRST(&slow_lines));
    while ((pool = LIST_FIRST(&slow_pools)) != NULL) {
        tell_hidden(pool);
        close_log(pool);
        LIST_REMOVE(pool, next);
        event_free(pool->on_hidden);
        free(pool->name);
        free(pool->path);
        free(pool);
    }
}
