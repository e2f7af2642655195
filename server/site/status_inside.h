/* What the files of the status pages share, and nobody else. */
#ifndef GATEHOUSE_SITE_STATUS_INSIDE_H
#define GATEHOUSE_SITE_STATUS_INSIDE_H

#include "base/buffer.h"
#include "site/status.h"
#include "site/status_view.h"

enum {
    STATUS_SENDING = 16,  /* answers at once, of one front, that clients are slow to take */
    STATUS_WATCHERS = 16, /* of the live page, of one front */
};

/* A route of this front's configuration, for the metrics. */
struct status_route {
    const char *gateway, *site, *route;
    unsigned number;
};

struct status {
    struct event_base *base;
    const struct config *config;
    const struct scoreboard *scoreboard;
    unsigned front;
    struct status_route *routes;
    size_t n_routes;
    unsigned n_sending;
    bool is_draining;
    struct live *live;
};

/* ---- each appends one body ---- */

void status_write_json(struct buffer *to, const struct view *view, const struct status *status);
void status_write_requests(struct buffer *to, const struct status *status);
void status_write_metrics(struct buffer *to, const struct view *view, const struct status *status);

/* Returns whether all is ready; the text says what is not. */
bool status_write_ready(struct buffer *to, const struct view *view, const struct status *status);

/* ---- the page: status_page.c, status_parts.c ---- */

/* The whole page. `nonce` is for its style and script, and of harmless characters. */
void status_write_page(struct buffer *to, const struct view *view, const struct status *status, const char *nonce);

/* The page is made of parts, each an element with an id, whose content may be replaced while it is looked at. */
enum { PART_ID = 24 };
struct part {
    char id[PART_ID];
    const struct view_pool *pool; /* NULL: "server" or "requests" */
};

/* How many parts the page has; the i-th; its content. */
unsigned parts_count(const struct view *view);
void parts_get(const struct view *view, unsigned i, struct part *out);
void parts_write(struct buffer *to, const struct view *view, const struct status *status, const struct part *part);

/* A number that changes when there are other parts than before. */
uint64_t parts_shape(const struct view *view);

extern const char status_style[], status_script[];

/* How a pool's slots are managed: "static", "dynamic", "ondemand", "cgi", "servers". */
const char *status_manager(const struct view_pool *pool);

/* "up", "down", "trying", "leaving". */
const char *status_server_state(const struct view_server *server);

/* Are the pool's slots processes of ours? */
static inline bool status_has_processes(const struct view_pool *pool)
{
    return pool->about.kind == 0;
}

/* Are they connections to servers? */
static inline bool status_has_servers(const struct view_pool *pool)
{
    return pool->about.kind == 2;
}

/* Requests have to wait for their turn in it: it is no mere route. */
static inline bool status_is_pool(const struct view_pool *pool)
{
    return pool->about.kind <= 2;
}

/* ---- status_live.c: the stream of events for those who watch ---- */

struct live *live_create(struct status *status);
void live_destroy(struct live *live);

/* The exchange watches from now on, or is refused when there are too many. */
void live_watch(struct live *live, struct exchange *exchange);

/* Ends them all. */
void live_drain(struct live *live);

#endif
