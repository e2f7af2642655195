/*
 * The access log's three formats. A line is written for every request, so the first two are put together by hand in
 * memory that was reserved for the worst case at once: no printf, no floating point.
 *
 *   192.0.2.7 - - [23/Nov/2026:06:01:34 +0000] "GET /cgi-bin/hello.py?x HTTP/1.1" 200 318 "-" "curl/7.88.1"
 *
 *   {"time":"2026-11-23T06:01:34.123Z","id":"9f2c...","client":"192.0.2.7","method":"GET","uri":"/cgi-bin/hello.py?x",
 *   "protocol":"HTTP/1.1","status":200,"bytes_in":0,"bytes_out":318,"site":"*","route":"/cgi-bin/","gateway":"cgi",
 *   "pool":null,"pid":4711,"queue_ms":0.031,"start_ms":1.204,"first_ms":18.911,"body_ms":0.102,"reap_ms":0.240,
 *   "total_ms":19.312,"cpu_ms":17.020,"max_rss_kib":9320,"exit":0,"signal":null,"stderr_bytes":0,"retries":0,
 *   "referer":null,"user_agent":"curl/7.88.1"}      (on one line)
 *
 *   06:01:34  200  GET   /cgi-bin/hello.py?x         cgi pid 4711       start 1.204  first 18.9  total 19.3 ms
 */
#include "access.h"

#include <stdio.h>
#include <string.h>

#include "base/escape.h"
#include "log.h"

enum {
    FIXED_LEN = 1024,   /* more than all names, numbers and punctuation of a line together */
    PRETTY_TARGET = 34, /* columns of the pretty format */
    PRETTY_RUNNER = 24,
};

const char *const phase_names[N_PHASES] = {"queue", "start", "first", "body", "reap", "total"};

static const char hex[] = "0123456789abcdef";

static char *put(char *at, struct span s)
{
    if (s.len == 0)
        return at;
    memcpy(at, s.at, s.len);
    return at + s.len;
}

static char *put_number(char *at, uint64_t n)
{
    char digits[20];
    size_t len = 0;

    do {
        digits[sizeof digits - ++len] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    return put(at, (struct span){digits + sizeof digits - len, len});
}

static char *put_two(char *at, int n)
{
    at[0] = (char)('0' + n / 10 % 10);
    at[1] = (char)('0' + n % 10);
    return at + 2;
}

/* Apache's way: everything but printable ASCII is \xHH. */
static char *put_quotable(char *at, struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];

        if (c < 0x20 || c > 0x7e) {
            *at++ = '\\';
            *at++ = 'x';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
            continue;
        }
        if (c == '"' || c == '\\')
            *at++ = '\\';
        *at++ = (char)c;
    }
    return at;
}

/* "[23/Nov/2026:06:01:34 +0000]" */
static char *put_apache_time(char *at, time_t time)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static time_t second = -1;
    static char text[28];

    if (time != second) {
        struct tm tm = {0};
        char *to = text;
        int year;

        gmtime_r(&time, &tm);
        year = tm.tm_year + 1900;
        *to++ = '[';
        to = put_two(to, tm.tm_mday);
        *to++ = '/';
        to = put(to, (struct span){months + 3 * (tm.tm_mon % 12), 3});
        *to++ = '/';
        to = put_two(put_two(to, year / 100), year);
        *to++ = ':';
        to = put_two(to, tm.tm_hour);
        *to++ = ':';
        to = put_two(to, tm.tm_min);
        *to++ = ':';
        to = put_two(to, tm.tm_sec);
        put(to, SPAN(" +0000]"));
        second = time;
    }
    return put(at, (struct span){text, sizeof text});
}

static char *put_quoted(char *at, struct span s)
{
    *at++ = '"';
    at = s.len > 0 ? put_quotable(at, s) : put(at, SPAN("-"));
    *at++ = '"';
    return at;
}

static char *put_combined(char *at, const struct access_record *r)
{
    at = r->client.len > 0 ? put_quotable(at, r->client) : put(at, SPAN("-"));
    at = put(at, SPAN(" - - "));
    at = put_apache_time(at, r->time.tv_sec);
    at = put(at, SPAN(" \""));
    if (r->method.len > 0) {
        at = put_quotable(at, r->method);
        *at++ = ' ';
        at = put_quotable(at, r->target);
        *at++ = ' ';
        at = put_quotable(at, r->protocol);
    } else {
        *at++ = '-'; /* what came was no request line */
    }
    at = put(at, SPAN("\" "));
    at = r->status > 0 ? put_number(at, r->status) : put(at, SPAN("-"));
    *at++ = ' ';
    at = r->bytes_out > 0 ? put_number(at, r->bytes_out) : put(at, SPAN("-"));
    *at++ = ' ';
    at = put_quoted(at, r->referer);
    *at++ = ' ';
    return put_quoted(at, r->user_agent);
}

static char *put_json_text(char *at, struct span name, struct span s)
{
    at = put(at, name);
    if (s.len == 0)
        return put(at, SPAN("null"));
    *at++ = '"';
    at = escape_json(at, s);
    *at++ = '"';
    return at;
}

static char *put_json_number(char *at, struct span name, uint64_t n, bool is_known)
{
    at = put(at, name);
    return is_known ? put_number(at, n) : put(at, SPAN("null"));
}

/* Microseconds as milliseconds with three decimals. */
static char *put_json_ms(char *at, struct span name, uint64_t us)
{
    at = put(at, name);
    if (us == PHASE_NONE)
        return put(at, SPAN("null"));
    at = put_number(at, us / 1000);
    *at++ = '.';
    *at++ = (char)('0' + us / 100 % 10);
    return put_two(at, (int)(us % 100));
}

/* "SIGSEGV"; a real-time signal, which has no name, is "SIG34". Empty for none. */
static struct span signal_name(int signal, char text[16])
{
    const char *name = signal > 0 ? sigabbrev_np(signal) : NULL;
    int len = 0;

    if (name != NULL)
        len = snprintf(text, 16, "SIG%s", name);
    else if (signal > 0)
        len = snprintf(text, 16, "SIG%d", signal);
    return (struct span){text, (size_t)len};
}

static char *put_json(char *at, const struct access_record *r)
{
    char signal[16];

    at = put(at, SPAN("{\"time\":\""));
    log_time(at, r->time);
    at = put(at + LOG_TIME_LEN, SPAN("\""));
    at = put_json_text(at, SPAN(",\"id\":"), r->id);
    at = put_json_text(at, SPAN(",\"client\":"), r->client);
    at = put_json_text(at, SPAN(",\"method\":"), r->method);
    at = put_json_text(at, SPAN(",\"uri\":"), r->target);
    at = put_json_text(at, SPAN(",\"protocol\":"), r->protocol);
    at = put_json_number(at, SPAN(",\"status\":"), r->status, r->status > 0);
    at = put_json_number(at, SPAN(",\"bytes_in\":"), r->bytes_in, true);
    at = put_json_number(at, SPAN(",\"bytes_out\":"), r->bytes_out, true);
    at = put_json_text(at, SPAN(",\"site\":"), r->site);
    at = put_json_text(at, SPAN(",\"route\":"), r->route);
    at = put_json_text(at, SPAN(",\"gateway\":"), r->gateway);
    at = put_json_text(at, SPAN(",\"pool\":"), r->pool);
    at = put_json_number(at, SPAN(",\"pid\":"), (uint64_t)r->pid, r->pid > 0);
    at = put_json_ms(at, SPAN(",\"queue_ms\":"), r->phase_us[PHASE_QUEUE]);
    at = put_json_ms(at, SPAN(",\"start_ms\":"), r->phase_us[PHASE_START]);
    at = put_json_ms(at, SPAN(",\"first_ms\":"), r->phase_us[PHASE_FIRST]);
    at = put_json_ms(at, SPAN(",\"body_ms\":"), r->phase_us[PHASE_BODY]);
    at = put_json_ms(at, SPAN(",\"reap_ms\":"), r->phase_us[PHASE_REAP]);
    at = put_json_ms(at, SPAN(",\"total_ms\":"), r->phase_us[PHASE_TOTAL]);
    at = put_json_ms(at, SPAN(",\"cpu_ms\":"), r->cpu_us);
    at = put_json_number(at, SPAN(",\"max_rss_kib\":"), r->max_rss_kib, r->max_rss_kib != PHASE_NONE);
    at = put_json_number(at, SPAN(",\"exit\":"), (uint64_t)r->exit_code, r->exit_code >= 0);
    at = put_json_text(at, SPAN(",\"signal\":"), signal_name(r->signal, signal));
    at = put_json_number(at, SPAN(",\"stderr_bytes\":"), r->stderr_bytes, true);
    at = put_json_number(at, SPAN(",\"retries\":"), r->retries, true);
    at = put_json_text(at, SPAN(",\"referer\":"), r->referer);
    at = put_json_text(at, SPAN(",\"user_agent\":"), r->user_agent);
    *at++ = '}';
    return at;
}

/* Fills up to the next column: this one began behind the first `from` bytes. There are always two spaces at least. */
static void pad(struct buffer *to, size_t from, size_t columns)
{
    struct span column = span_from(buffer_span(to), from);
    size_t wide = 0;

    for (size_t i = 0; i < column.len; i++)
        wide += ((unsigned char)column.at[i] & 0xc0) != 0x80; /* one for each character, whatever its bytes */
    buffer_printf(to, "%*s", wide < columns ? (int)(columns - wide) + 2 : 2, "");
}

/* A number that a glance takes in: 0.312, 1.204, 18.9, 250, 12000. */
static void append_ms(struct buffer *to, const char *name, uint64_t us, const char *after)
{
    if (us == PHASE_NONE)
        return;
    if (us < 10000)
        buffer_printf(to, "%s %u.%03u%s", name, (unsigned)(us / 1000), (unsigned)(us % 1000), after);
    else if (us < 99950)
        buffer_printf(to, "%s %u.%u%s", name, (unsigned)((us + 50) / 1000), (unsigned)((us + 50) / 100 % 10), after);
    else
        buffer_printf(to, "%s %llu%s", name, (unsigned long long)((us + 500) / 1000), after);
}

static const char *status_colour(unsigned status)
{
    switch (status / 100) {
    case 2:
        return "\x1b[32m"; /* green */
    case 3:
        return "\x1b[36m"; /* cyan */
    case 4:
        return "\x1b[33m"; /* yellow */
    default:
        return "\x1b[1;31m"; /* red */
    }
}

static void append_runner(struct buffer *to, const struct access_record *r)
{
    size_t from = buffer_len(to);

    buffer_append_span(to, r->gateway.len > 0 ? r->gateway : SPAN("-"));
    if (r->pool.len > 0) {
        buffer_append(to, " ", 1);
        log_escape(to, r->pool);
    }
    if (r->pid > 0)
        buffer_printf(to, " pid %ld", r->pid);
    pad(to, from, PRETTY_RUNNER);
}

/* What a developer wants to be told without asking, only where there is something to tell. */
static void append_troubles(struct buffer *to, bool colour, const struct access_record *r)
{
    char text[16];
    struct span signal = signal_name(r->signal, text);

    if (signal.len == 0 && r->exit_code <= 0 && r->stderr_bytes == 0 && r->retries == 0)
        return;
    buffer_append_span(to, colour ? SPAN("\x1b[31m") : SPAN(""));
    if (signal.len > 0)
        buffer_printf(to, "  killed by %.*s", (int)signal.len, signal.at);
    else if (r->exit_code > 0)
        buffer_printf(to, "  exit %d", r->exit_code);
    if (r->stderr_bytes > 0)
        buffer_printf(to, "  stderr %llu bytes", (unsigned long long)r->stderr_bytes);
    if (r->retries > 0)
        buffer_printf(to, "  retried %u", r->retries);
    buffer_append_span(to, colour ? SPAN("\x1b[0m") : SPAN(""));
}

static void append_pretty(struct buffer *to, bool colour, const struct access_record *r)
{
    const char *dim = colour ? "\x1b[2m" : "", *end = colour ? "\x1b[0m" : "";
    struct tm tm = {0};
    size_t from;

    localtime_r(&r->time.tv_sec, &tm);
    buffer_printf(to, "%s%02d:%02d:%02d%s  ", dim, tm.tm_hour, tm.tm_min, tm.tm_sec, end);
    if (r->status > 0)
        buffer_printf(to, "%s%u%s  ", colour ? status_colour(r->status) : "", r->status, end);
    else
        buffer_append_span(to, SPAN("---  "));
    from = buffer_len(to);
    log_escape(to, r->method.len > 0 ? r->method : SPAN("?"));
    pad(to, from, 4);
    from = buffer_len(to);
    log_escape(to, r->target.len > 0 ? r->target : SPAN("-"));
    pad(to, from, PRETTY_TARGET);
    append_runner(to, r);
    buffer_append_span(to, span_of(dim));
    if (r->phase_us[PHASE_QUEUE] >= 1000 &&
        r->phase_us[PHASE_QUEUE] != PHASE_NONE) /* nobody wants to know that nothing was in the way */
        append_ms(to, "queue", r->phase_us[PHASE_QUEUE], "  ");
    append_ms(to, "start", r->phase_us[PHASE_START], "  ");
    append_ms(to, "first", r->phase_us[PHASE_FIRST], "  ");
    buffer_append_span(to, span_of(end));
    append_ms(to, "total", r->phase_us[PHASE_TOTAL], " ms");
    append_troubles(to, colour, r);
}

void access_format(struct buffer *to, enum access_format format, bool colour, const struct access_record *r)
{
    size_t outside = r->id.len + r->client.len + r->method.len + r->target.len + r->protocol.len + r->site.len +
                     r->route.len + r->gateway.len + r->pool.len + r->referer.len + r->user_agent.len;
    char *at, *end;

    if (format == ACCESS_PRETTY) {
        append_pretty(to, colour, r);
    } else {
        at = buffer_reserve(to, FIXED_LEN + ESCAPE_LONGEST * outside);
        end = format == ACCESS_JSON ? put_json(at, r) : put_combined(at, r);
        buffer_added(to, (size_t)(end - at));
    }
    buffer_append(to, "\n", 1);
}
