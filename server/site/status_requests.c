#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "site/status_view.h"

static int by_age(const void *a, const void *b)
{
    const struct view_found *one = a, *other = b;

    if (one->started_us != other->started_us)
        return one->started_us < other->started_us ? -1 : 1;
    if (one->front != other->front)
        return one->front < other->front ? -1 : 1;
    return (one->place > other->place) - (one->place < other->place);
}

static void look_at_front(const struct scoreboard_front *front, unsigned number, struct view_requests *out,
                          size_t *room)
{
    uint32_t n = front->n_requests;

    for (uint32_t i = 0; i < n && i < SCOREBOARD_REQUESTS; i++) {
        if (front->requests[i].state == REQUEST_NONE)
            continue;
        if (out->n == *room) {
            *room = *room > 0 ? 2 * *room : 256;
            out->at = memory_resize(out->at, *room * sizeof *out->at);
        }
        out->at[out->n++] = (struct view_found){(uint16_t)number, (uint16_t)i, front->requests[i].started_us};
    }
}

void view_requests_find(const struct scoreboard *scoreboard, struct view_requests *out)
{
    uint32_t n = scoreboard->n_fronts;
    size_t room = 0;

    *out = (struct view_requests){.at = NULL};
    for (uint32_t i = 0; i < n && i < SCOREBOARD_FRONTS; i++)
        if (scoreboard->fronts[i].pid != 0)
            look_at_front(&scoreboard->fronts[i], i, out, &room);
    if (out->n > 0)
        qsort(out->at, out->n, sizeof *out->at, by_age);
    out->n_all = out->n;
    if (out->n > VIEW_REQUESTS)
        out->n = VIEW_REQUESTS;
}

void view_requests_free(struct view_requests *requests)
{
    free(requests->at);
    *requests = (struct view_requests){.at = NULL};
}

bool view_request(const struct scoreboard *scoreboard, const struct view_found *found,
                  struct scoreboard_request *copy_out)
{
    const struct scoreboard_request *request = &scoreboard->fronts[found->front].requests[found->place];

    if (!scoreboard_read(&request->version, request, copy_out, sizeof *copy_out))
        return false;
    copy_out->id[sizeof copy_out->id - 1] = '\0';
    copy_out->method[sizeof copy_out->method - 1] = '\0';
    copy_out->user[sizeof copy_out->user - 1] = '\0';
    copy_out->client[sizeof copy_out->client - 1] = '\0';
    copy_out->site[sizeof copy_out->site - 1] = '\0';
    copy_out->route[sizeof copy_out->route - 1] = '\0';
    copy_out->uri[sizeof copy_out->uri - 1] = '\0';
    return copy_out->state != REQUEST_NONE && copy_out->state <= REQUEST_SEND &&
           copy_out->started_us == found->started_us;
}

const char *view_phase_name(const struct scoreboard_request *request)
{
    if (request->state == REQUEST_SEND && request->pid == 0)
        return "send";
    return scoreboard_states[request->state];
}
