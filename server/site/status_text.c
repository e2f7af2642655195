#include "site/status_text.h"

#include <inttypes.h>

#include "base/escape.h"
#include "base/utf8.h"

typedef char *escape(char *at, struct span s);

static void append_escaped(struct buffer *to, struct span s, escape *how)
{
    char *at = buffer_reserve(to, ESCAPE_LONGEST * s.len + 1);

    buffer_added(to, (size_t)(how(at, s) - at));
}

void text_json(struct buffer *to, const char *text)
{
    buffer_append_span(to, SPAN("\""));
    append_escaped(to, span_of(text), escape_json);
    buffer_append_span(to, SPAN("\""));
}

void text_html(struct buffer *to, const char *text)
{
    append_escaped(to, span_of(text), escape_html);
}

static void append_character(struct buffer *to, struct span s, size_t len)
{
    if (utf8_printable_len(s) == 0)
        buffer_append_span(to, SPAN("\xef\xbf\xbd"));
    else if (s.at[0] == '"')
        buffer_append_span(to, SPAN("\\\""));
    else if (s.at[0] == '\\')
        buffer_append_span(to, SPAN("\\\\"));
    else
        buffer_append(to, s.at, len);
}

void text_label(struct buffer *to, const char *text)
{
    struct span s = span_of(text);

    while (s.len > 0) {
        size_t len = utf8_len(s);

        append_character(to, s, len);
        s = span_from(s, len > 0 ? len : 1);
    }
}

void text_ms(struct buffer *to, uint64_t us)
{
    buffer_printf(to, "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
}

void text_seconds(struct buffer *to, uint64_t us)
{
    buffer_printf(to, "%" PRIu64 ".%06u", us / 1000000, (unsigned)(us % 1000000));
}

void text_duration(struct buffer *to, uint64_t us)
{
    static const struct {
        uint64_t us;
        const char *unit;
    } units[] = {
        {86400000000, "d"}, {3600000000, "h"}, {60000000, "min"}, {1000000, "s"}, {1000, "ms"}, {1, "µs"},
    };
    unsigned i = 0;

    while (i < 5 && us < units[i].us)
        i++;
    uint64_t whole = us / units[i].us, tenth = us % units[i].us * 10 / units[i].us;
    if (whole < 10 && i < 5)
        buffer_printf(to, "%" PRIu64 ".%" PRIu64 "\u00a0%s", whole, tenth, units[i].unit);
    else
        buffer_printf(to, "%" PRIu64 "\u00a0%s", whole, units[i].unit);
}

void text_bytes(struct buffer *to, uint64_t bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    unsigned i = 0;
    uint64_t scaled = bytes * 10;

    for (; scaled >= 10240 && i < 4; i++)
        scaled /= 1024;
    if (scaled < 100 && i > 0)
        buffer_printf(to, "%" PRIu64 ".%" PRIu64 "\u00a0%s", scaled / 10, scaled % 10, units[i]);
    else
        buffer_printf(to, "%" PRIu64 "\u00a0%s", scaled / 10, units[i]);
}
