/*
 * The two logs' way out: a sink is a descriptor with a bounded buffer before it. Writing to one never blocks: what a
 * slow terminal or a full pipe does not take waits in the buffer, and what does not fit there is dropped and counted;
 * the count is written as a line of its own when there is room again.
 *
 * And the error log: one line an event, "2026-11-23T06:00:00.123Z error: text", control bytes escaped as \xHH, so that
 * what clients and programs wrote cannot forge a line. Each process has one error log.
 */
#ifndef GATEHOUSE_LOG_H
#define GATEHOUSE_LOG_H

#include <stdbool.h>
#include <time.h>

#include "base/buffer.h"
#include "base/span.h"

enum { SINK_ROOM = 256 * 1024 };

struct sink {
    int fd; /* -1: nobody listens, everything is dropped without a count */
    struct buffer waiting;
    unsigned long lost; /* lines dropped since the last that got through */
};

/*
 * Opens a log: "-" is the descriptor `standard` (opened anew, so that O_NONBLOCK stays ours and not the terminal's,
 * where the kernel allows that), NULL is off, else a path, created with mode 0640, appended to. Returns the descriptor
 * (close-on-exec, non-blocking), -1 for off, or another negative errno (never -1 for an error: EPERM is given as
 * -EACCES).
 */
int sink_open(const char *path, int standard);

/* Adds whole lines, LF at the end, of which none is torn when they come from several processes at once and are not
 * longer than PIPE_BUF. They stay in the buffer until sink_flush() or until 32 KiB have gathered. */
void sink_add(struct sink *sink, struct span lines);

/* Writes what the descriptor takes. Returns false when it is worth waiting until it takes more; true when nothing is
 * left, and when the descriptor failed (disk full, reader gone): then the next flush tries again. */
bool sink_flush(struct sink *sink);

/* Gives the buffer back. The descriptor is its opener's. */
void sink_free(struct sink *sink);

enum log_level {
    LOG_LEVEL_ERROR,   /* somebody must act: a program cannot start */
    LOG_LEVEL_WARNING, /* a request failed, or nearly */
    LOG_LEVEL_NOTICE,  /* what happened, once: started, stopped, reloaded */
};

/* Where this process's error log goes; the descriptor is not closed by the log. Before the first call: stderr. */
void log_set(int fd);

/* One line. The text may hold any bytes: it is escaped as a whole. Lines over 4 KiB are cut, visibly. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)

/* sink_flush() for the error log. */
bool log_flush(void);

enum { LOG_TIME_LEN = 24 };

/* Writes "2026-11-23T06:00:00.123Z": LOG_TIME_LEN bytes, no NUL. */
void log_time(char at[LOG_TIME_LEN], struct timespec time);

/* Appends s with controls, DEL, bytes above 0x7e that are no well-formed UTF-8, and backslash as \xHH (or \\).
 * U+0080 to U+009F count as controls, because terminals obey them. */
void log_escape(struct buffer *to, struct span s);

/*
 * The standard error of programs, joined to lines and tagged. One struct for each stream; zeroed is ready.
 * A line of more than 1 KiB is cut into several. More than 200 lines or 64 KiB within a second from one stream are
 * counted instead of written, and the count is written when the second is over or the stream ends.
 */
struct log_stream {
    struct buffer line;
    unsigned n_lines, n_bytes; /* within this second */
    unsigned long suppressed;
    long second;
    unsigned long total; /* bytes that came, all in all */
};

/* `tag` names the source: "[php 4711 9f2c...] /app.php". It is written before each line: "TIME stderr: TAG: text". */
void log_stream_add(struct log_stream *stream, struct span tag, struct span bytes);

/* Writes what is left of an unfinished line and the count of suppressed ones, and empties the struct. */
void log_stream_end(struct log_stream *stream, struct span tag);

#endif
