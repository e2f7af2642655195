#include "fastcgi/trace.h"

#include <stdlib.h>

#include "base/memory.h"
#include "fastcgi/describe.h"
#include "log.h"

enum {
    FIRST = 24, /* lines from the beginning that are kept */
    LAST = 40,  /* ... and before the end */
};

struct trace {
    struct record_reader sent;
    struct buffer first[FIRST], last[LAST];
    unsigned long n; /* lines, all in all */
};

struct trace *trace_create(void)
{
    struct trace *trace = memory_zeroed(1, sizeof *trace);

    record_reader_init(&trace->sent);
    return trace;
}

void trace_destroy(struct trace *trace)
{
    if (trace == NULL)
        return;
    for (int i = 0; i < FIRST; i++)
        buffer_free(&trace->first[i]);
    for (int i = 0; i < LAST; i++)
        buffer_free(&trace->last[i]);
    free(trace);
}

/* Where line n is kept. */
static struct buffer *line_at(struct trace *trace, unsigned long n)
{
    return n < FIRST ? &trace->first[n] : &trace->last[(n - FIRST) % LAST];
}

static void add(struct trace *trace, const char *direction, const struct record_event *event)
{
    struct buffer *line = line_at(trace, trace->n++);

    buffer_clear(line);
    buffer_append(line, direction, 2);
    record_describe(line, event);
}

void trace_sent(struct trace *trace, struct span records)
{
    struct record_event event;

    if (trace == NULL)
        return;
    while ((event = record_read(&trace->sent, &records)).kind != RECORD_MORE && event.kind != RECORD_BAD)
        add(trace, "> ", &event);
}

void trace_received(struct trace *trace, const struct record_event *event)
{
    if (trace != NULL)
        add(trace, "< ", event);
}

void trace_tell(struct trace *trace, struct span id)
{
    if (trace == NULL)
        return;
    for (unsigned long n = 0; n < trace->n; n++) {
        if (n == FIRST && trace->n > FIRST + LAST) {
            log_notice("[%.*s] record: ... %lu more ...", (int)id.len, id.at, trace->n - FIRST - LAST);
            n = trace->n - LAST;
        }
        struct span line = buffer_span(line_at(trace, n));
        log_notice("[%.*s] record: %.*s", (int)id.len, id.at, (int)line.len, line.at);
    }
    trace->n = 0;
}
