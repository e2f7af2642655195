/*
 * Written and read without the C library's formats, which depend on the locale.
 *
 *     Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
 *     Sunday, 06-Nov-94 08:49:37 GMT    RFC 850
 *     Sun Nov  6 08:49:37 1994          asctime()
 *
 * Any name of a day is taken for any date: nothing depends on it, and some clients reckon it wrongly.
 */
#include "http/date.h"

#include <stdbool.h>
#include <stdint.h>

#include "http/grammar.h"

static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

enum { N_DAYS = 7, N_MONTHS = 12 };

static const int64_t last_second = 253402300799; /* of the year 9999 */

/* ---- writing ---- */

static void put_two(char *at, int number)
{
    at[0] = (char)('0' + number / 10 % 10);
    at[1] = (char)('0' + number % 10);
}

void date_write(char at[DATE_LEN + 1], time_t t)
{
    struct tm tm;

    if (t < 0 || t > last_second) /* a file's time may be anything, but a date's year has four digits */
        t = t < 0 ? 0 : last_second;
    gmtime_r(&t, &tm);
    memcpy(at, "Sun, 06 Nov 1994 08:49:37 GMT", DATE_LEN + 1);
    memcpy(at, days[tm.tm_wday], 3);
    put_two(at + 5, tm.tm_mday);
    memcpy(at + 8, months[tm.tm_mon], 3);
    put_two(at + 12, (tm.tm_year + 1900) / 100);
    put_two(at + 14, (tm.tm_year + 1900) % 100);
    put_two(at + 17, tm.tm_hour);
    put_two(at + 20, tm.tm_min);
    put_two(at + 23, tm.tm_sec);
}

/* ---- reading: each take_*() takes its text off the front of *s, or returns false ---- */

struct date {
    int year, month, day; /* month: 0 to 11 */
    int hour, minute, second;
};

static bool take(struct span *s, struct span text)
{
    if (!span_starts(*s, text))
        return false;
    *s = span_from(*s, text.len);
    return true;
}

static bool take_number(struct span *s, size_t n_digits, int *out)
{
    *out = 0;
    if (s->len < n_digits)
        return false;
    for (size_t i = 0; i < n_digits; i++) {
        if (!grammar_is_digit(s->at[i]))
            return false;
        *out = *out * 10 + (s->at[i] - '0');
    }
    *s = span_from(*s, n_digits);
    return true;
}

static bool take_day_name(struct span *s, size_t most)
{
    for (int i = 0; i < N_DAYS; i++) {
        size_t len = strlen(days[i]);

        if (take(s, (struct span){days[i], len < most ? len : most}))
            return true;
    }
    return false;
}

static bool take_month(struct span *s, int *out)
{
    for (*out = 0; *out < N_MONTHS; ++*out) {
        if (take(s, span_of(months[*out])))
            return true;
    }
    return false;
}

static bool take_time(struct span *s, struct date *d)
{
    return take_number(s, 2, &d->hour) && take(s, SPAN(":")) && take_number(s, 2, &d->minute) && take(s, SPAN(":")) &&
           take_number(s, 2, &d->second);
}

static bool read_fixdate(struct span s, struct date *d)
{
    return take_day_name(&s, 3) && take(&s, SPAN(", ")) && take_number(&s, 2, &d->day) && take(&s, SPAN(" ")) &&
           take_month(&s, &d->month) && take(&s, SPAN(" ")) && take_number(&s, 4, &d->year) && take(&s, SPAN(" ")) &&
           take_time(&s, d) && span_is(s, SPAN(" GMT"));
}

static bool read_rfc850(struct span s, struct date *d)
{
    return take_day_name(&s, s.len) && take(&s, SPAN(", ")) && take_number(&s, 2, &d->day) && take(&s, SPAN("-")) &&
           take_month(&s, &d->month) && take(&s, SPAN("-")) && take_number(&s, 2, &d->year) && take(&s, SPAN(" ")) &&
           take_time(&s, d) && span_is(s, SPAN(" GMT"));
}

static bool read_asctime(struct span s, struct date *d)
{
    return take_day_name(&s, 3) && take(&s, SPAN(" ")) && take_month(&s, &d->month) && take(&s, SPAN(" ")) &&
           take_number(&s, take(&s, SPAN(" ")) ? 1 : 2, &d->day) && take(&s, SPAN(" ")) && take_time(&s, d) &&
           take(&s, SPAN(" ")) && take_number(&s, 4, &d->year) && s.len == 0;
}

/* False: the calendar or the clock has no such date. */
static bool to_time(const struct date *d, time_t *out)
{
    struct tm tm = {.tm_year = d->year - 1900, .tm_mon = d->month, .tm_mday = d->day};
    time_t midnight = timegm(&tm);

    if (tm.tm_mday != d->day) /* timegm() makes March of the 30th of February */
        return false;
    if (d->hour > 23 || d->minute > 59 || d->second > 60) /* 60: a leap second */
        return false;
    *out = midnight + d->hour * 3600 + d->minute * 60 + d->second;
    return true;
}

/* The year of two digits that is the latest not more than 50 years after `now`. */
static bool place_year(struct date *d, time_t now, time_t *out)
{
    struct tm tm;
    int latest;
    time_t limit;

    gmtime_r(&now, &tm);
    tm.tm_year += 50;
    latest = tm.tm_year + 1900;
    limit = timegm(&tm);
    d->year = latest - (latest - d->year) % 100;
    if (to_time(d, out) && *out <= limit)
        return true;
    if (d->year == latest)
        d->year -= 100;
    return to_time(d, out);
}

int date_read(struct span text, time_t now, time_t *out)
{
    struct date d;
    time_t t;
    bool ok;

    if (read_rfc850(text, &d))
        ok = place_year(&d, now, &t);
    else
        ok = (read_fixdate(text, &d) || read_asctime(text, &d)) && to_time(&d, &t);
    if (!ok)
        return -1;
    *out = t;
    return 0;
}
