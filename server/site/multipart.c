#include "site/multipart.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

enum { BOUNDARY_LEN = 2 * EXCHANGE_ID_LEN };

struct multipart {
    struct open_file *file;
    const char *type;
    struct ranges ranges;
    unsigned next; /* part to be sent */
    char boundary[BOUNDARY_LEN + 1];
};

static void finish(struct multipart *m)
{
    open_file_release(m->file);
    free(m);
}

/* What stands before a part; before the first, without the line end of the one before it. */
static void append_head(struct buffer *to, const struct multipart *m, unsigned part)
{
    const struct range *range = &m->ranges.at[part];

    buffer_printf(to, "%s--%s\r\nContent-Type: %s\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
                  part > 0 ? "\r\n" : "", m->boundary, m->type, range->first, range->last,
                  (uint64_t)m->file->about.st_size);
}

static void append_end(struct buffer *to, const struct multipart *m)
{
    buffer_printf(to, "\r\n--%s--\r\n", m->boundary);
}

static uint64_t length_of(const struct multipart *m)
{
    struct buffer text = {0};
    uint64_t length;

    append_end(&text, m);
    for (unsigned i = 0; i < m->ranges.n; i++)
        append_head(&text, m, i);
    length = buffer_len(&text);
    for (unsigned i = 0; i < m->ranges.n; i++)
        length += m->ranges.at[i].last - m->ranges.at[i].first + 1;
    buffer_free(&text);
    return length;
}

/* Sends parts until the client takes no more for now, or all are sent. */
static void go_on(struct exchange *exchange)
{
    struct multipart *m = exchange->data;
    struct buffer text = {0};
    bool is_full = false;

    while (!is_full && m->next < m->ranges.n) {
        const struct range *range = &m->ranges.at[m->next];

        buffer_clear(&text);
        append_head(&text, m, m->next++);
        exchange_write(exchange, buffer_span(&text), true);
        is_full = exchange_write_file(exchange, m->file->fd, range->first, range->last - range->first + 1);
    }
    if (!is_full) {
        buffer_clear(&text);
        append_end(&text, m);
        exchange_write(exchange, buffer_span(&text), true);
        finish(m);
        exchange_end(exchange);
    }
    buffer_free(&text);
}

static bool on_body(struct exchange *exchange, struct span bytes, bool last)
{
    (void)exchange, (void)bytes, (void)last; /* never asked for */
    return true;
}

static void on_abort(struct exchange *exchange)
{
    finish(exchange->data);
}

static const struct handler handler = {.body = on_body, .resume = go_on, .abort = on_abort};

void multipart_serve(struct exchange *exchange, struct open_file *file, const char *type, const struct ranges *ranges)
{
    struct multipart *m = memory_zeroed(1, sizeof *m);

    m->file = file;
    m->type = type;
    m->ranges = *ranges;
    snprintf(m->boundary, sizeof m->boundary, "%.*s%.*s", EXCHANGE_ID_LEN, exchange->id, EXCHANGE_ID_LEN, exchange->id);
    exchange_fieldf(exchange, SPAN("Content-Type"), "multipart/byteranges; boundary=%s", m->boundary);
    exchange_length(exchange, length_of(m));
    exchange_handle(exchange, &handler, m);
    go_on(exchange);
}
