#include "gateway/shown.h"

#include "base/clock.h"
#include "gateway/permit.h"

/* Who has sent it, by the word of an authorizer. */
static struct span user_of(const struct exchange *exchange)
{
    struct span variables, name, value, user = SPAN("");

    if (exchange->permit == NULL)
        return user;
    variables = buffer_span(&exchange->permit->variables);
    while (permit_next(&variables, &name, &value))
        if (span_is(name, SPAN("REMOTE_USER")))
            user = value;
    return user;
}

static uint32_t pool_of(const struct passage *p)
{
    return p->runner->account != NULL ? p->runner->account->number : SCOREBOARD_NONE;
}

void shown_begin(struct passage *p)
{
    struct exchange *exchange = p->exchange;
    const struct place_texts texts = {
        .id = {exchange->id, EXCHANGE_ID_LEN},
        .method = exchange->head.method_text,
        .user = user_of(exchange),
        .client = p->vars.remote_addr,
        .site = exchange->record.site,
        .route = exchange->record.route,
        .uri = exchange->head.target,
    };

    shown_count(p, ACCOUNT_ACCEPTED);
    p->request.place = places_take(p->gateway->options.places, &texts, pool_of(p), REQUEST_BODY, exchange->started_us);
    exchange->place = p->request.place;
}

void shown_end(struct passage *p)
{
    places_give(p->gateway->options.places, p->request.place);
    p->request.place = NULL;
}

void shown_waits(struct passage *p)
{
    bool was_held = p->request.has_input; /* perhaps; else its turn is waited for since the beginning */

    place_change(p->request.place, REQUEST_QUEUE, was_held ? clock_us() : p->exchange->started_us);
}

void shown_count(struct passage *p, enum account_event event)
{
    if (p->runner->account != NULL)
        account_count(p->runner->account, event, 1);
}

static void count_cause(struct passage *p, enum run_cause cause)
{
    if (cause == RUN_QUEUE_FULL)
        shown_count(p, ACCOUNT_FULL);
    else if (cause == RUN_QUEUE_TIMEOUT)
        shown_count(p, ACCOUNT_EXPIRED);
    else if (cause == RUN_DOWN)
        shown_count(p, ACCOUNT_DOWN);
    else if (cause == RUN_CRASHED)
        shown_count(p, ACCOUNT_CRASHED);
    else if (cause == RUN_STOPPED && p->granted_us == 0)
        shown_count(p, ACCOUNT_LEFT);
}

void shown_refused(struct passage *p, enum run_cause cause)
{
    count_cause(p, cause);
}

void shown_granted(struct passage *p)
{
    if (p->runner->account != NULL)
        account_waited(p->runner->account, p->exchange->record.phase_us[PHASE_QUEUE]);
    place_set_pool(p->request.place, pool_of(p)); /* a script's pool may have had no number when it began */
}

void shown_answers(struct passage *p, uint64_t now)
{
    place_change(p->request.place, REQUEST_SEND, now);
}

void shown_ended(struct passage *p, const struct run_result *result)
{
    place_change(p->request.place, REQUEST_SEND, clock_us()); /* to the client, what is left of it */
    place_set_pid(p->request.place, 0);
    count_cause(p, result->cause);
    if (p->runner->account != NULL && p->run->retries > 0)
        account_count(p->runner->account, ACCOUNT_RETRIED, p->run->retries);
}
