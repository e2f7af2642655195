#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

enum {
    EARLY = 8, /* bytes of a body that are enough for an early answer */
    SMALL_FILE = 1000,
    LARGE = 60000,       /* written piece by piece, with more than the client's socket takes */
    LARGE_FILE = 150000, /* sent by sendfile(), which takes 64 KiB at once, whatever the socket's room */
    PIECE = 7000,
};

enum kind {
    WITH_LENGTH,
    IN_CHUNKS,
    HELD,
    EMPTY,
    UNCHANGED,
    HINTS,
    FILE_PART,
    LARGE_WITH_LENGTH,
    LARGE_IN_CHUNKS,
    SHORT,
    FAILS,
    CUT_LENGTH,
    CUT_CHUNKS,
};

enum reading {
    WHOLE,
    BY_PIECE, /* "enough" to each; the next is wanted when it is woken */
    SOME,     /* answers when EARLY bytes have come */
    NOTHING,
};

struct variant {
    const char *path;
    enum kind kind;
    enum reading reading;
    bool is_later; /* answers when it is woken */
    size_t length; /* of a file */
};

static const struct variant variants[] = {
    {"/", WITH_LENGTH, WHOLE, false, 0},
    {"/chunks", IN_CHUNKS, WHOLE, false, 0},
    {"/held", HELD, WHOLE, false, 0},
    {"/empty", EMPTY, WHOLE, false, 0},
    {"/unchanged", UNCHANGED, WHOLE, false, 0},
    {"/hints", HINTS, WHOLE, true, 0},
    {"/file", FILE_PART, WHOLE, false, SMALL_FILE},
    {"/large-file", FILE_PART, WHOLE, true, LARGE_FILE},
    {"/no-file", FILE_PART, NOTHING, false, 0},
    {"/large", LARGE_WITH_LENGTH, WHOLE, false, 0},
    {"/large-chunks", LARGE_IN_CHUNKS, WHOLE, true, 0},
    {"/fail", FAILS, WHOLE, false, 0},
    {"/fail-later", FAILS, BY_PIECE, true, 0},
    {"/short", SHORT, WHOLE, false, 0},
    {"/cut", CUT_LENGTH, WHOLE, false, 0},
    {"/cut-chunks", CUT_CHUNKS, WHOLE, true, 0},
    {"/later", WITH_LENGTH, WHOLE, true, 0},
    {"/pause", WITH_LENGTH, BY_PIECE, false, 0},
    {"/pause-later", IN_CHUNKS, BY_PIECE, true, 0},
    {"/early", WITH_LENGTH, SOME, false, 0},
    {"/fail-early", FAILS, SOME, false, 0},
    {"/at-once", WITH_LENGTH, NOTHING, false, 0},
    {"/at-once-chunks", IN_CHUNKS, NOTHING, false, 0},
    {"/not-read-later", HELD, NOTHING, true, 0},
};

void service_complain(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: this must hold: %s\n", file, line, condition);
    abort();
}

static char pattern[LARGE_FILE + 1000];
static int pattern_fd = -1;

static void make_pattern(void)
{
    if (pattern_fd >= 0)
        return;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)('a' + i % 23);
    pattern_fd = memfd_create("pattern", MFD_CLOEXEC);
    require(write(pattern_fd, pattern, sizeof pattern) == sizeof pattern);
}

static const struct variant *find_variant(struct span path)
{
    for (size_t i = 1; i < sizeof variants / sizeof *variants; i++)
        if (span_is(path, span_of(variants[i].path)))
            return &variants[i];
    return &variants[0];
}

bool service_ignores_body(const struct account *account)
{
    return account->variant->reading == NOTHING;
}

bool service_answers_early(const struct account *account)
{
    return account->variant->reading == SOME;
}

bool service_tells_length(const struct account *account)
{
    enum kind kind = account->variant->kind;

    return kind != IN_CHUNKS && kind != LARGE_IN_CHUNKS && kind != CUT_CHUNKS;
}

bool service_fails(const struct account *account)
{
    return account->variant->kind == FAILS;
}

/* ---- answering ---- */

static void give_file_back(void *arg)
{
    struct service *service = arg;

    service->n_files--;
}

static void begin(struct account *account, unsigned status)
{
    exchange_begin(account->exchange, status, SPAN(""));
    exchange_fieldf(account->exchange, SPAN("Number"), "%zu", account->number);
}

/* Writes what is still to be written; goes on when the client has room again. */
static void write_large(struct account *account)
{
    while (account->written < LARGE) {
        size_t n = LARGE - account->written < PIECE ? LARGE - account->written : PIECE;
        struct span piece = {pattern + account->written, n};

        account->written += n;
        if (exchange_write(account->exchange, piece, false))
            return;
    }
    account->is_answered = true;
    exchange_end(account->exchange);
}

static void answer_large(struct account *account)
{
    begin(account, 200);
    buffer_append(&account->said, pattern, LARGE);
    if (account->variant->kind == LARGE_WITH_LENGTH)
        exchange_length(account->exchange, LARGE);
    write_large(account);
}

static void answer_by_file(struct account *account)
{
    buffer_append(&account->said, pattern + account->number, account->variant->length);
    account->is_answered = true;
    account->service->n_files++;
    begin(account, 200);
    exchange_file(account->exchange, pattern_fd, account->number, account->variant->length, give_file_back,
                  account->service);
}

static void answer_and_cut(struct account *account)
{
    account->is_answered = account->is_cut = true;
    buffer_append_span(&account->said, SPAN("half a whole"));
    begin(account, 200);
    if (account->variant->kind != CUT_CHUNKS)
        exchange_length(account->exchange, 12);
    exchange_write(account->exchange, SPAN("half"), false);
    if (account->variant->kind == SHORT)
        exchange_end(account->exchange);
    else
        exchange_fail(account->exchange, 502, 0);
}

static void answer_without_body(struct account *account)
{
    account->is_answered = true;
    begin(account, account->variant->kind == EMPTY ? 204 : 304);
    exchange_end(account->exchange);
}

/* What the request was, in two parts. */
static void answer_by_text(struct account *account)
{
    enum kind kind = account->variant->kind;
    struct span text, half;

    if (account->is_whole || !account->has_body)
        buffer_printf(&account->said, "%llu bytes, %016llx, of ", (unsigned long long)account->body_len,
                      (unsigned long long)account->body_hash);
    buffer_append_span(&account->said, buffer_span(&account->request));
    text = buffer_span(&account->said);
    half = (struct span){text.at, text.len / 2};
    if (kind == HINTS)
        exchange_interim(account->exchange, 103, SPAN("Link: </style.css>\r\n"));
    begin(account, 200);
    if (kind == WITH_LENGTH || kind == HINTS)
        exchange_length(account->exchange, text.len);
    exchange_write(account->exchange, half, kind != IN_CHUNKS);
    exchange_write(account->exchange, span_from(text, half.len), kind != IN_CHUNKS);
    account->is_answered = true;
    exchange_end(account->exchange);
}

static void answer(struct account *account)
{
    switch (account->variant->kind) {
    case FAILS:
        account->is_answered = true;
        exchange_fail(account->exchange, 502, 0);
        break;
    case FILE_PART:
        answer_by_file(account);
        break;
    case LARGE_WITH_LENGTH:
    case LARGE_IN_CHUNKS:
        answer_large(account);
        break;
    case SHORT:
    case CUT_LENGTH:
    case CUT_CHUNKS:
        answer_and_cut(account);
        break;
    case EMPTY:
    case UNCHANGED:
        answer_without_body(account);
        break;
    default:
        answer_by_text(account);
        break;
    }
}

static bool is_complete(const struct account *account)
{
    return account->is_whole || !account->has_body || account->variant->reading == NOTHING;
}

/* Has the account go on in one of the loop's next turns, because of a descriptor, as with programs. In the second: so
 * that it may be before the client's descriptor has its turn, or behind. */
static void wake_for(struct account *account)
{
    require(account->service->waiting == NULL);
    account->service->waiting = account;
    account->service->n_rounds = 2;
    require(eventfd_write(account->service->wake_fd, 1) == 0);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct service *service = arg;
    struct account *account = service->waiting;
    eventfd_t n;

    (void)what;
    require(eventfd_read(fd, &n) == 0);
    if (account == NULL) /* it was sent away */
        return;
    if (--service->n_rounds > 0) {
        require(eventfd_write(fd, 1) == 0);
        return;
    }
    service->waiting = NULL;
    if (is_complete(account))
        answer(account);
    else
        exchange_want_body(account->exchange);
}

static void answer_soon(struct account *account)
{
    if (account->variant->is_later)
        wake_for(account);
    else
        answer(account);
}

/* ---- the handler ---- */

static bool on_body(struct exchange *exchange, struct span bytes, bool last)
{
    struct account *account = exchange->data;

    require(account->exchange == exchange && !account->is_answered && !account->is_aborted && !account->is_whole);
    require(bytes.len > 0 || last);
    for (size_t i = 0; i < bytes.len; i++)
        account->body_hash = (account->body_hash ^ (unsigned char)bytes.at[i]) * 0x100000001b3;
    account->body_len += bytes.len;
    require(account->body_len <= account->service->max_body);
    account->is_whole = last;
    if (last || (account->variant->reading == SOME && account->body_len >= EARLY)) {
        answer_soon(account);
        return false;
    }
    if (account->variant->reading == BY_PIECE)
        wake_for(account);
    return account->variant->reading == BY_PIECE;
}

static void on_resume(struct exchange *exchange)
{
    struct account *account = exchange->data;

    require(account->exchange == exchange && !account->is_answered && !account->is_aborted);
    if (account->written > 0)
        write_large(account);
}

static void on_abort(struct exchange *exchange)
{
    struct account *account = exchange->data;

    require(account->exchange == exchange && !account->is_answered && !account->is_aborted);
    account->is_aborted = true;
    account->service->waiting = NULL;
}

/* ---- the service ---- */

static struct account *add_account(struct service *service, struct exchange *exchange)
{
    struct account *account = memory_zeroed(1, sizeof *account);

    account->service = service;
    account->exchange = exchange;
    account->number = service->n_accounts;
    account->variant = &variants[0];
    service->accounts = memory_resize(service->accounts, (service->n_accounts + 1) * sizeof(struct account *));
    service->accounts[service->n_accounts++] = account;
    return account;
}

static void note_request(struct account *account)
{
    const struct exchange *exchange = account->exchange;
    const struct head *head = &exchange->head;
    struct buffer *to = &account->request;

    buffer_append_span(to, head->method_text);
    buffer_append(to, " ", 1);
    buffer_append_span(to, head->target);
    buffer_printf(to, " HTTP/1.%u\n", head->minor);
    buffer_append_span(to, exchange->uri.path);
    buffer_append(to, "\n", 1);
    for (unsigned i = 0; i < head->n_fields; i++) {
        buffer_append_span(to, head->fields[i].name);
        buffer_append(to, "=", 1);
        buffer_append_span(to, head->fields[i].value);
        buffer_append(to, "\n", 1);
    }
}

static void on_request(void *arg, struct exchange *exchange)
{
    static const struct handler handler = {.body = on_body, .resume = on_resume, .abort = on_abort};
    struct service *service = arg;
    struct account *account = add_account(service, exchange);

    account->is_begun = true;
    account->has_body = exchange->has_body;
    account->expects_continue = exchange->head.expect_continue;
    account->variant = find_variant(exchange->uri.path);
    note_request(account);
    service->n_open++;
    require(exchange->head.length <= service->max_body);
    exchange_handle(exchange, &handler, account);
    if (is_complete(account))
        answer_soon(account);
    else
        exchange_want_body(exchange);
}

static void on_done(void *arg, struct exchange *exchange)
{
    struct service *service = arg;
    struct account *account = exchange->data;

    if (account == NULL)
        account = add_account(service, exchange);
    else
        service->n_open--;
    require(account->exchange == exchange);
    require(!account->is_begun || account->is_answered || account->is_aborted);
    account->exchange = NULL;
    account->is_head = exchange->head.method == METHOD_HEAD;
    account->minor = exchange->head.minor;
    account->status = exchange->status;
}

static struct span error_page(void *arg, const struct exchange *exchange, struct buffer *to, unsigned status)
{
    (void)arg, (void)exchange;
    buffer_printf(to, "%u\n", status);
    return SPAN("text/plain");
}

static void on_refused(void *arg, const char *remote_addr, unsigned status, const char *why)
{
    struct service *service = arg;

    require(remote_addr != NULL && status >= 400 && why != NULL);
    service->n_refused++;
}

void service_init(struct service *service, struct http_options *options)
{
    make_pattern();
    *service = (struct service){
        .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .max_body = options->max_body,
    };
    event_assign(&service->wake, options->base, service->wake_fd, EV_READ | EV_PERSIST, on_wake, service);
    event_add(&service->wake, NULL);
    options->request = on_request;
    options->done = on_done;
    options->error_page = error_page;
    options->refused = on_refused;
    options->arg = service;
    options->counters = &service->counters;
}

void service_free(struct service *service)
{
    event_del(&service->wake);
    close(service->wake_fd);
    for (size_t i = 0; i < service->n_accounts; i++) {
        buffer_free(&service->accounts[i]->request);
        buffer_free(&service->accounts[i]->said);
        free(service->accounts[i]);
    }
    free(service->accounts);
}
