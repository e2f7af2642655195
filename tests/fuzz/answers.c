/*
 *     HTTP/1.1 200 OK CRLF          take_status()
 *     Name: value CRLF ... CRLF     take_fields(): each known one at most once
 *     body                          take_body(): as framed, and nothing else
 */
#include "answers.h"

struct answer {
    unsigned status;
    bool has_length, is_chunked, says_close, says_keep;
    uint64_t length;
    long number; /* -1: none */
    unsigned n_dates, n_servers, n_ids, n_links;
    struct buffer kept; /* the head without what differs from one time to the next */
    struct buffer body;
    bool is_short; /* the stream ended first */
};

static bool take(struct span *input, struct span text)
{
    if (!span_starts(*input, text))
        return false;
    *input = span_from(*input, text.len);
    return true;
}

/* A line up to its CR LF, of visible characters and single spaces between them. */
static struct span take_line(struct span *input)
{
    const char *end = memmem(input->at, input->len, "\r\n", 2);
    struct span line;

    require(end != NULL);
    line = (struct span){input->at, (size_t)(end - input->at)};
    for (size_t i = 0; i < line.len; i++)
        require(line.at[i] >= ' ' && line.at[i] < 0x7f);
    *input = span_from(*input, line.len + 2);
    return line;
}

static uint64_t take_digits(struct span *input, const char *digits)
{
    uint64_t n = 0, base = strlen(digits);
    size_t len = 0;

    for (; len < input->len && strchr(digits, input->at[len]) != NULL && input->at[len] != '\0'; len++) {
        require(n < UINT64_MAX / base && (len == 0 || n > 0)); /* nor a zero in front of others */
        n = n * base + (uint64_t)(strchr(digits, input->at[len]) - digits);
    }
    require(len > 0);
    *input = span_from(*input, len);
    return n;
}

static uint64_t decimal(struct span text)
{
    uint64_t n = take_digits(&text, "0123456789");

    require(text.len == 0);
    return n;
}

static void check_id(struct span value)
{
    require(value.len == EXCHANGE_ID_LEN);
    for (size_t i = 0; i < value.len; i++)
        require(strchr("0123456789abcdef", value.at[i]) != NULL);
}

static void check_connection(struct answer *answer, struct span value)
{
    require(!answer->says_close && !answer->says_keep);
    answer->says_close = span_is(value, SPAN("close"));
    answer->says_keep = span_is(value, SPAN("keep-alive"));
    require(answer->says_close || answer->says_keep);
}

static void note_field(struct answer *answer, struct span name, struct span value)
{
    if (span_is_nocase(name, SPAN("Content-Length"))) {
        require(!answer->has_length);
        answer->has_length = true;
        answer->length = decimal(value);
    } else if (span_is_nocase(name, SPAN("Transfer-Encoding"))) {
        require(!answer->is_chunked && span_is(value, SPAN("chunked")));
        answer->is_chunked = true;
    } else if (span_is_nocase(name, SPAN("Connection"))) {
        check_connection(answer, value);
    } else if (span_is_nocase(name, SPAN("Number"))) {
        require(answer->number < 0);
        answer->number = (long)decimal(value);
    } else if (span_is_nocase(name, SPAN("X-Request-Id"))) {
        answer->n_ids++;
        check_id(value);
    } else if (span_is_nocase(name, SPAN("Date"))) {
        answer->n_dates++;
        require(value.len == 29 && span_ends(value, SPAN(" GMT")));
    } else if (span_is_nocase(name, SPAN("Server"))) {
        answer->n_servers++;
    } else {
        answer->n_links += span_is(name, SPAN("Link"));
    }
}

static void take_fields(struct answer *answer, struct span *input)
{
    for (;;) {
        struct span line = take_line(input), name = {line.at, 0}, value;

        if (line.len == 0)
            return;
        while (name.len < line.len && line.at[name.len] != ':')
            name.len++;
        for (size_t i = 0; i < name.len; i++)
            require(name.at[i] > ' ' && strchr("\"(),/;<=>?@[\\]{}", name.at[i]) == NULL);
        value = span_from(line, name.len);
        require(name.len > 0 && take(&value, SPAN(": ")) && value.len > 0);
        require(value.at[0] != ' ' && value.at[value.len - 1] != ' ');
        note_field(answer, name, value);
        if (span_is(name, SPAN("Date")) || span_is(name, SPAN("X-Request-Id")) || span_is(name, SPAN("Connection")))
            continue;
        buffer_append_span(&answer->kept, line);
        buffer_append(&answer->kept, "\n", 1);
    }
}

static void take_head(struct answer *answer, struct span *input)
{
    struct span line = take_line(input), whole = line;

    answer->number = -1;
    require(take(&line, SPAN("HTTP/1.1 ")) && line.len > 4 && line.at[3] == ' ');
    answer->status = (unsigned)decimal((struct span){line.at, 3});
    require(answer->status >= 100 && answer->status <= 599);
    buffer_append_span(&answer->kept, whole);
    buffer_append(&answer->kept, "\n", 1);
    take_fields(answer, input);
}

static void free_answer(struct answer *answer)
{
    buffer_free(&answer->kept);
    buffer_free(&answer->body);
}

/* ---- bodies ---- */

static void take_bytes(struct answer *answer, struct span *input, uint64_t len)
{
    answer->is_short = input->len < len;
    if (answer->is_short)
        len = input->len;
    buffer_append(&answer->body, input->at, (size_t)len);
    *input = span_from(*input, (size_t)len);
}

static void take_chunks(struct answer *answer, struct span *input)
{
    while (!(answer->is_short = input->len == 0)) {
        uint64_t size = take_digits(input, "0123456789abcdef");

        require(take(input, SPAN("\r\n")));
        if (size > 0)
            take_bytes(answer, input, size);
        require(!answer->is_short && take(input, SPAN("\r\n"))); /* what is cut, is cut between chunks */
        if (size == 0)
            return;
    }
}

/* RFC 9112 section 6.3 */
static void take_body(struct answer *answer, struct span *input, const struct account *account)
{
    bool has_none = account->is_head || answer->status == 204 || answer->status == 304;

    require(!answer->has_length || !answer->is_chunked);
    require(!answer->is_chunked || account->minor > 0);
    require(answer->status != 204 || (!answer->has_length && !answer->is_chunked));
    require(answer->status != 304 || !answer->is_chunked);
    if (has_none)
        return;
    if (answer->has_length) {
        take_bytes(answer, input, answer->length);
    } else if (answer->is_chunked) {
        take_chunks(answer, input);
    } else {
        require(account->minor == 0 && answer->says_close);
        take_bytes(answer, input, input->len);
    }
}

/* ---- what an answer means ---- */

static void check_refusal(const struct answer *answer)
{
    static const unsigned known[] = {400, 408, 413, 414, 417, 431, 501, 505};
    bool is_known = false;

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        is_known = is_known || known[i] == answer->status;
    require(is_known && answer->says_close && !answer->is_short && answer->number < 0);
}

/* The answer is the one that the service gave to this very request. */
static void check_served(const struct answer *answer, const struct account *account)
{
    struct span body = buffer_span(&answer->body), said = buffer_span(&account->said);
    bool has_body = !account->is_head && answer->status != 204 && answer->status != 304;
    bool is_framed = answer->has_length || answer->is_chunked;

    require(account->is_answered);
    if (service_fails(account)) {
        require(answer->status == 502 && answer->number < 0 && !answer->is_short);
        return;
    }
    require(answer->number == (long)account->number);
    require(answer->is_short == (has_body && is_framed && account->is_cut));
    require(answer->status == 204 || answer->status == 304 || answer->has_length == service_tells_length(account));
    if (has_body)
        require(account->is_cut ? span_starts(said, body) : span_is(said, body));
    else if (account->is_head && answer->has_length)
        require(answer->length == said.len);
}

/* Takes the interim answers before the final one, as many as there may be. */
static void take_interims(const struct account *account, struct span *input)
{
    unsigned n_continue = 0, n_hints = 0;

    while (span_starts(*input, SPAN("HTTP/1.1 1"))) {
        struct answer answer = {0};

        take_head(&answer, input);
        require(account->minor > 0 && account->is_begun);
        require(!answer.has_length && !answer.is_chunked && !answer.says_close && !answer.says_keep);
        n_continue += answer.status == 100;
        n_hints += answer.status == 103 && answer.n_links == 1;
        free_answer(&answer);
        require(n_continue + n_hints > 0);
    }
    require(n_continue <= (account->expects_continue && account->has_body ? 1 : 0));
    require(n_hints <= 1);
}

/* ---- the whole connection ---- */

static void tell(struct buffer *story, const struct account *account, const struct answer *answer)
{
    bool is_open_ended = account->has_body && service_ignores_body(account);

    buffer_append_span(story, buffer_span(&account->request));
    if (account->has_body && service_answers_early(account))
        return;
    buffer_append_span(story, buffer_span(&answer->kept));
    if (!is_open_ended)
        buffer_printf(story, "%s%s\n", answer->says_close ? "close" : "", answer->says_keep ? "keep" : "");
    buffer_printf(story, "a body of %zu bytes\n\n", buffer_len(&answer->body)); /* which was checked */
}

/* One exchange's answer. True when it is the last one. */
static bool check_answer(const struct account *account, struct span *input, bool *is_comparable, struct buffer *story)
{
    struct answer answer = {0};
    bool is_last;

    take_interims(account, input);
    if (account->status == 0) { /* the client left before */
        require(account->is_aborted && input->len == 0);
        if (*is_comparable)
            buffer_append_span(story, buffer_span(&account->request));
        return false;
    }
    take_head(&answer, input);
    take_body(&answer, input, account);
    require(answer.status == account->status);
    require(answer.n_dates == 1 && answer.n_servers == 1 && answer.n_ids == 1 && answer.n_links == 0);
    require(!answer.says_keep || account->minor == 0);
    if (!account->is_begun || account->is_aborted)
        check_refusal(&answer);
    else
        check_served(&answer, account);
    if (*is_comparable)
        tell(story, account, &answer);
    if (account->has_body && (service_ignores_body(account) || service_answers_early(account)))
        *is_comparable = false;
    is_last = answer.says_close || account->is_cut;
    free_answer(&answer);
    return is_last;
}

/* An answer that is out before its request has come wholly cannot say how it will end. */
static bool may_end_silently(const struct service *service)
{
    const struct account *last = service->n_accounts > 0 ? service->accounts[service->n_accounts - 1] : NULL;

    return last != NULL && last->has_body && !last->is_whole && service_answers_early(last);
}

bool answers_refuse(const struct service *service)
{
    const struct account *last = service->n_accounts > 0 ? service->accounts[service->n_accounts - 1] : NULL;

    return last != NULL && last->status != 0 && (!last->is_begun || last->is_aborted);
}

void answers_check(const struct service *service, struct span received, enum ending ending, struct buffer *story)
{
    bool is_last = false, is_comparable = true;

    for (size_t i = 0; i < service->n_accounts; i++) {
        require(!is_last && service->accounts[i]->exchange == NULL);
        is_last = check_answer(service->accounts[i], &received, &is_comparable, story);
    }
    require(received.len == 0);
    require(ending == ENDS_ANYHOW || is_last == (ending == ENDS_BY_SERVER) || may_end_silently(service));
    if (is_comparable)
        buffer_printf(story, is_last ? "the last\n" : "to go on\n");
}
