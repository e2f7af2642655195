/*
 * The body of a request: counted or in chunks, handed to the handler piece by piece, or thrown away.
 */
#include "http/inside.h"

/* Hands a piece on, or drops it when nobody wants it. */
static void hand_on(struct connection *c, struct span piece, bool last)
{
    struct exchange *exchange = c->exchange;

    exchange->body_bytes += piece.len;
    if (last)
        exchange->is.body_done = true;
    if (exchange->is.ended || exchange->handler == NULL)
        return;
    if (exchange->handler->body(exchange, piece, last))
        exchange->is.wants_body = false;
}

static void take_length(struct connection *c, struct span *input)
{
    size_t n = input->len < c->body_left ? input->len : (size_t)c->body_left;
    struct span piece = {input->at, n};

    *input = span_from(*input, n);
    c->body_left -= n;
    hand_on(c, piece, c->body_left == 0);
}

/* Until the handler says "enough"; for ever, when the body is thrown away. */
static bool takes_more(const struct exchange *exchange)
{
    return exchange->is.wants_body || exchange->is.ended || exchange->handler == NULL;
}

static void take_chunks(struct connection *c, struct span *input)
{
    struct exchange *exchange = c->exchange;
    struct span piece;

    while (!exchange->is.body_done && takes_more(exchange)) {
        enum chunked_result result = chunked_read(&c->chunked, input, &piece);

        if (result == CHUNKED_MORE)
            return;
        if (result == CHUNKED_END) {
            hand_on(c, (struct span){"", 0}, true);
        } else if (result == CHUNKED_BAD || exchange->body_bytes + piece.len > c->http->options.max_body) {
            c->is.keep = false;
            exchange->is.body_done = exchange->is.body_lost = true;
            if (exchange->handler != NULL) /* else it was to be thrown away, and the response is on its way */
                connection_refuse_exchange(c, result == CHUNKED_BAD ? c->chunked.status : 413);
            *input = (struct span){input->at, 0};
        } else {
            hand_on(c, piece, false);
        }
    }
}

/* Takes what belongs to the body from the front of the input. */
void connection_take_body(struct connection *c, struct span *input)
{
    if (c->exchange->head.is_chunked)
        take_chunks(c, input);
    else
        take_length(c, input);
}

void connection_take_buffered_body(struct connection *c)
{
    struct buffer in = c->in; /* taken out: who answers meanwhile skips the body, and must not see it again */
    struct span input = buffer_span(&in);

    c->in = (struct buffer){0};
    connection_take_body(c, &input);
    buffer_consume(&in, buffer_len(&in) - input.len);
    c->in = in;
}

bool connection_skip_body(struct connection *c)
{
    struct exchange *exchange = c->exchange;
    const struct handler *handler = exchange->handler;

    if (exchange->is.body_done)
        return true;
    exchange->handler = NULL;
    if (buffer_len(&c->in) > 0)
        connection_take_buffered_body(c);
    exchange->handler = handler;
    return exchange->is.body_done;
}
