/*
 * Sinks and the error log.
 *
 * A sink writes whole lines, at most PIPE_BUF bytes at a time, so that several processes can share one pipe: the kernel
 * takes such a piece as a whole or not at all. After an error the bytes stay where they are and are tried again with
 * the next flush: a log on a full disk goes on at the very byte where it stopped.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

enum {
    SINK_CHUNK = 32 * 1024,   /* gathered before they are written unasked */
    LINE_MAX_LEN = PIPE_BUF,  /* of the error log, LF included */
    STREAM_LINE_LEN = 1024,   /* raw bytes; longer ones are cut into several */
    STREAM_MAX_LINES = 200,   /* a second */
    STREAM_MAX_BYTES = 65536, /* a second */
};

static struct sink error_sink = {.fd = STDERR_FILENO};

/* The kernel opens no socket by its name in /proc, and no terminal of another user: those are shared as they are. */
static int open_standard(int standard)
{
    char path[32];
    int fd;

    snprintf(path, sizeof path, "/proc/self/fd/%d", standard);
    fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    fd = fcntl(standard, F_DUPFD_CLOEXEC, 3);
    if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        int error = errno;

        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int sink_open(const char *path, int standard)
{
    int fd;

    if (path == NULL)
        return -1;
    if (strcmp(path, "-") == 0)
        fd = open_standard(standard);
    else
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
    if (fd < 0)
        return errno == EPERM ? -EACCES : -errno;
    return fd;
}

/* How many of the waiting bytes to write at once: as many whole lines as one piece holds, or one that is longer. */
static size_t next_piece(struct span waiting)
{
    const char *end;

    if (waiting.at == NULL || waiting.len <= PIPE_BUF)
        return waiting.len;
    end = memrchr(waiting.at, '\n', PIPE_BUF);
    if (end == NULL)
        end = memchr(waiting.at, '\n', waiting.len);
    return end == NULL ? waiting.len : (size_t)(end - waiting.at) + 1;
}

bool sink_flush(struct sink *sink)
{
    while (buffer_len(&sink->waiting) > 0 && sink->fd >= 0) {
        struct span waiting = buffer_span(&sink->waiting);
        ssize_t n = write(sink->fd, waiting.at, next_piece(waiting));

        if (n > 0)
            buffer_consume(&sink->waiting, (size_t)n);
        else if (n == 0 || errno != EINTR)
            return n == 0 || errno != EAGAIN;
    }
    return true;
}

static unsigned long count_lines(struct span lines)
{
    unsigned long n = 0;
    const char *lf;

    while ((lf = memchr(lines.at, '\n', lines.len)) != NULL) {
        n++;
        lines = span_from(lines, (size_t)(lf - lines.at) + 1);
    }
    return n;
}

/* Says how many lines are missing, in the language of the log: a JSON log stays JSON. */
static struct span lost_line(const struct sink *sink, struct span next, char *text, size_t size)
{
    char stamp[LOG_TIME_LEN];
    struct timespec now;
    int len;

    clock_gettime(CLOCK_REALTIME, &now);
    log_time(stamp, now);
    if (next.len > 0 && next.at[0] == '{')
        len = snprintf(text, size, "{\"time\":\"%.*s\",\"lines_lost\":%lu}\n", LOG_TIME_LEN, stamp, sink->lost);
    else
        len = snprintf(text, size, "%.*s warning: %lu lines of this log were lost here: its reader is too slow\n",
                       LOG_TIME_LEN, stamp, sink->lost);
    return (struct span){text, (size_t)len};
}

void sink_add(struct sink *sink, struct span lines)
{
    char text[160];
    struct span lost = SPAN("");
    size_t before = buffer_len(&sink->waiting);

    if (sink->fd < 0 || lines.len == 0)
        return;
    if (sink->lost > 0)
        lost = lost_line(sink, lines, text, sizeof text);
    if (before + lost.len + lines.len > SINK_ROOM) {
        sink_flush(sink);
        before = buffer_len(&sink->waiting);
    }
    if (before + lost.len + lines.len > SINK_ROOM) {
        sink->lost += count_lines(lines);
        return;
    }
    buffer_append_span(&sink->waiting, lost);
    buffer_append_span(&sink->waiting, lines);
    sink->lost = 0;
    if (buffer_len(&sink->waiting) / SINK_CHUNK != before / SINK_CHUNK)
        sink_flush(sink);
}

void sink_free(struct sink *sink)
{
    buffer_free(&sink->waiting);
    sink->lost = 0;
}

static char *put_digits(char *at, unsigned n, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        at[i] = (char)('0' + n % 10);
        n /= 10;
    }
    return at + width;
}

void log_time(char at[LOG_TIME_LEN], struct timespec time)
{
    static time_t second = -1;
    static char text[LOG_TIME_LEN]; /* "2026-11-23T06:00:00.", which changes once a second only */

    if (time.tv_sec != second) {
        struct tm tm = {0};
        char *to = text;

        gmtime_r(&time.tv_sec, &tm);
        to = put_digits(to, (unsigned)tm.tm_year + 1900, 4);
        *to++ = '-';
        to = put_digits(to, (unsigned)tm.tm_mon + 1, 2);
        *to++ = '-';
        to = put_digits(to, (unsigned)tm.tm_mday, 2);
        *to++ = 'T';
        to = put_digits(to, (unsigned)tm.tm_hour, 2);
        *to++ = ':';
        to = put_digits(to, (unsigned)tm.tm_min, 2);
        *to++ = ':';
        to = put_digits(to, (unsigned)tm.tm_sec, 2);
        *to = '.';
        second = time.tv_sec;
    }
    memcpy(at, text, LOG_TIME_LEN - 4);
    *put_digits(at + LOG_TIME_LEN - 4, (unsigned)(time.tv_nsec / 1000000), 3) = 'Z';
}

/* Appends s escaped as long as that takes at most `room` bytes, and returns how many bytes of s are left. */
static size_t escape_within(struct buffer *to, struct span s, size_t room)
{
    static const char hex[] = "0123456789abcdef";

    while (s.len > 0) {
        unsigned char c = (unsigned char)s.at[0];
        size_t shown = utf8_printable_len(s);
        char escape[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};
        struct span piece = {s.at, shown};

        if (c == '\\')
            piece = SPAN("\\\\");
        else if (shown == 0)
            piece = (struct span){escape, sizeof escape};
        if (piece.len > room)
            break;
        buffer_append_span(to, piece);
        room -= piece.len;
        s = span_from(s, shown > 0 ? shown : 1);
    }
    return s.len;
}

void log_escape(struct buffer *to, struct span s)
{
    escape_within(to, s, SIZE_MAX);
}

/* Adds "TIME word: before: text" to the error log; `before` may be empty. */
static void add_line(const char *word, struct span before, struct span text, bool is_cut)
{
    static const char ellipsis[] = " [cut]";
    char stamp[LOG_TIME_LEN];
    struct buffer line = {0};
    struct timespec now;
    size_t room;

    clock_gettime(CLOCK_REALTIME, &now);
    log_time(stamp, now);
    buffer_append(&line, stamp, sizeof stamp);
    buffer_printf(&line, " %s: ", word);
    if (before.len > 0) {
        is_cut |= escape_within(&line, before, LINE_MAX_LEN / 4) > 0;
        buffer_append_span(&line, SPAN(": "));
    }
    room = LINE_MAX_LEN - buffer_len(&line) - sizeof ellipsis;
    is_cut |= escape_within(&line, text, room) > 0;
    if (is_cut)
        buffer_append_span(&line, span_of(ellipsis));
    buffer_append(&line, "\n", 1);
    sink_add(&error_sink, buffer_span(&line));
    buffer_free(&line);
}

void log_set(int fd)
{
    sink_flush(&error_sink);
    error_sink.fd = fd;
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const words[] = {"error", "warning", "notice"};
    char text[LINE_MAX_LEN];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        return;
    if ((size_t)len < sizeof text)
        add_line(words[level], SPAN(""), (struct span){text, (size_t)len}, false);
    else
        add_line(words[level], SPAN(""), (struct span){text, sizeof text - 1}, true);
    sink_flush(&error_sink);
}

bool log_flush(void)
{
    return sink_flush(&error_sink);
}

static void report_suppressed(struct log_stream *stream, struct span tag)
{
    char text[96];
    int len;

    if (stream->suppressed == 0)
        return;
    len = snprintf(text, sizeof text, "[%lu more lines within a second are not shown]", stream->suppressed);
    add_line("stderr", tag, (struct span){text, (size_t)len}, false);
    stream->suppressed = 0;
}

static void stream_line(struct log_stream *stream, struct span tag, struct span text)
{
    long second = (long)(clock_us() / 1000000);

    if (second != stream->second) {
        report_suppressed(stream, tag);
        stream->second = second;
        stream->n_lines = stream->n_bytes = 0;
    }
    if (stream->n_lines >= STREAM_MAX_LINES || stream->n_bytes + text.len > STREAM_MAX_BYTES) {
        stream->suppressed++;
        return;
    }
    stream->n_lines++;
    stream->n_bytes += (unsigned)text.len;
    if (span_ends(text, SPAN("\r")))
        text.len--;
    add_line("stderr", tag, text, false);
}

/* Ends a line with its last piece. */
static void end_line(struct log_stream *stream, struct span tag, struct span piece)
{
    if (buffer_len(&stream->line) > 0) {
        buffer_append_span(&stream->line, piece);
        piece = buffer_span(&stream->line);
    }
    stream_line(stream, tag, piece);
    buffer_clear(&stream->line);
}

void log_stream_add(struct log_stream *stream, struct span tag, struct span bytes)
{
    stream->total += bytes.len;
    while (bytes.len > 0) {
        size_t room = STREAM_LINE_LEN - buffer_len(&stream->line);
        const char *lf = memchr(bytes.at, '\n', bytes.len < room + 1 ? bytes.len : room + 1);
        size_t len = lf != NULL ? (size_t)(lf - bytes.at) : bytes.len < room ? bytes.len : room;
        struct span piece = {bytes.at, len};

        if (lf == NULL && bytes.len <= room)
            buffer_append_span(&stream->line, piece);
        else
            end_line(stream, tag, piece);
        bytes = span_from(bytes, lf != NULL ? len + 1 : len);
    }
    sink_flush(&error_sink);
}

void log_stream_end(struct log_stream *stream, struct span tag)
{
    if (buffer_len(&stream->line) > 0)
        end_line(stream, tag, SPAN(""));
    report_suppressed(stream, tag);
    sink_flush(&error_sink);
    buffer_free(&stream->line);
    *stream = (struct log_stream){0};
}
