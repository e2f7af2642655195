/*
 * Who watches the page live. While there are watchers a timer comes once a second: the page's parts are written once,
 * those that have changed since the last time make one event, and each watcher gets it that has taken the last one.
 * One that has not is passed over, and gets all parts later. Without watchers nothing is done.
 *
 *     event: parts
 *     data: {"shape":"9f…","parts":{"server":"<dl …","pool-0":"<h2>…"}}
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"
#include "site/status_inside.h"
#include "site/status_text.h"

struct watcher {
    struct live *live;
    struct exchange *exchange; /* NULL: nobody is here */
    bool is_full;              /* has not taken the last event */
    bool is_fresh;             /* needs all parts */
};

/* What was last sent of a part. */
struct sent {
    char id[PART_ID];
    uint64_t hash;
};

struct live {
    struct status *status;
    struct event *timer;
    struct watcher watchers[STATUS_WATCHERS];
    unsigned n; /* of them */
    struct sent *sent;
    unsigned n_sent;
};

static const struct timeval second = {1, 0}, at_once = {0, 0};

static uint64_t hash_of(struct span s)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < s.len; i++)
        hash = (hash ^ (unsigned char)s.at[i]) * 0x100000001b3;
    return hash;
}

static void remove_watcher(struct watcher *watcher)
{
    struct live *live = watcher->live;

    watcher->exchange = NULL;
    if (--live->n > 0)
        return;
    event_del(live->timer);
    free(live->sent);
    live->sent = NULL;
    live->n_sent = 0;
}

/* ---- an event ---- */

static void begin_event(struct buffer *to, const struct view *view)
{
    buffer_clear(to);
    buffer_printf(to, "event: parts\ndata: {\"shape\":\"%016" PRIx64 "\",\"parts\":{", parts_shape(view));
}

static void add_part(struct buffer *to, const char *id, struct buffer *html, bool *has_any)
{
    buffer_printf(to, "%s\"%s\":", *has_any ? "," : "", id);
    text_json(to, buffer_at(html));
    *has_any = true;
}

static void end_event(struct buffer *to)
{
    buffer_append_span(to, SPAN("}}\n\n"));
}

/* Is it another than the i-th was? Remembers it. */
static bool is_news(struct live *live, unsigned i, const struct part *part, uint64_t hash)
{
    struct sent *sent = &live->sent[i];
    bool is_same = sent->hash == hash && strcmp(sent->id, part->id) == 0;

    memcpy(sent->id, part->id, sizeof sent->id);
    sent->hash = hash;
    return !is_same;
}

/* Two events: of what has changed; and of all, for those that need it. */
static void write_events(struct live *live, const struct view *view, struct buffer *news, struct buffer *all)
{
    struct buffer html = {0};
    bool has_news = false, has_any = false;
    unsigned n = parts_count(view);
    struct part part;

    live->sent = memory_resize(live->sent, (n + 1) * sizeof *live->sent);
    for (; live->n_sent < n; live->n_sent++)
        live->sent[live->n_sent] = (struct sent){.id = ""};
    begin_event(news, view);
    begin_event(all, view);
    for (unsigned i = 0; i < n; i++) {
        parts_get(view, i, &part);
        buffer_clear(&html);
        parts_write(&html, view, live->status, &part);
        uint64_t hash = hash_of(buffer_span(&html));
        buffer_append(&html, "", 1);
        add_part(all, part.id, &html, &has_any);
        if (is_news(live, i, &part, hash))
            add_part(news, part.id, &html, &has_news);
    }
    end_event(news);
    end_event(all);
    buffer_free(&html);
}

static void send_event(struct watcher *watcher, const struct buffer *news, const struct buffer *all)
{
    const struct buffer *event = watcher->is_fresh ? all : news;

    if (watcher->is_full) {
        watcher->is_fresh = true; /* it misses this one */
        return;
    }
    watcher->is_fresh = false;
    watcher->is_full = exchange_write(watcher->exchange, buffer_span(event), false);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct live *live = arg;
    struct view *view = view_read(live->status->scoreboard);
    struct buffer news = {0}, all = {0};

    (void)fd, (void)what;
    write_events(live, view, &news, &all);
    for (unsigned i = 0; i < STATUS_WATCHERS; i++)
        if (live->watchers[i].exchange != NULL)
            send_event(&live->watchers[i], &news, &all);
    buffer_free(&news);
    buffer_free(&all);
    view_free(view);
    event_add(live->timer, &second);
}

/* ---- who watches ---- */

static void on_resume(struct exchange *exchange)
{
    struct watcher *watcher = exchange->data;

    watcher->is_full = false;
}

static void on_abort(struct exchange *exchange)
{
    remove_watcher(exchange->data);
}

static const struct handler handler = {.resume = on_resume, .abort = on_abort};

void live_watch(struct live *live, struct exchange *exchange)
{
    unsigned i = 0;

    while (i < STATUS_WATCHERS && live->watchers[i].exchange != NULL)
        i++;
    if (i == STATUS_WATCHERS || live->status->is_draining) {
        exchange_fail(exchange, 503, 5);
        return;
    }
    exchange_begin(exchange, 200, SPAN(""));
    exchange_field(exchange, SPAN("Content-Type"), SPAN("text/event-stream"));
    exchange_field(exchange, SPAN("Cache-Control"), SPAN("no-store"));
    if (exchange->head.method == METHOD_HEAD) {
        exchange_end(exchange);
        return;
    }
    struct watcher *watcher = &live->watchers[i];
    *watcher = (struct watcher){.live = live, .exchange = exchange, .is_fresh = true};
    exchange_handle(exchange, &handler, watcher);
    if (live->n++ == 0)
        event_add(live->timer, &at_once);
    watcher->is_full = exchange_write(exchange, SPAN("retry: 3000\n\n"), false);
}

void live_drain(struct live *live)
{
    for (unsigned i = 0; i < STATUS_WATCHERS; i++) {
        struct exchange *exchange = live->watchers[i].exchange;

        if (exchange == NULL)
            continue;
        remove_watcher(&live->watchers[i]);
        exchange_write(exchange, SPAN("event: end\ndata: {}\n\n"), true);
        exchange_end(exchange);
    }
}

struct live *live_create(struct status *status)
{
    struct live *live = memory_zeroed(1, sizeof *live);

    live->status = status;
    live->timer = evtimer_new(status->base, on_timer, live);
    return live;
}

void live_destroy(struct live *live)
{
    event_free(live->timer);
    free(live->sent);
    free(live);
}
