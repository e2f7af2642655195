#include "site/files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "http/accept.h"
#include "http/condition.h"
#include "http/date.h"
#include "http/range.h"
#include "log.h"
#include "site/listing.h"
#include "site/multipart.h"
#include "site/rules.h"

enum { MAX_PAGE = 65536 };

#define METHODS SPAN("GET, HEAD, OPTIONS")

/* What is sent of a file: itself, or a sibling in a coding, as which it has a tag of its own. */
struct representation {
    struct open_file *file;
    const char *type;          /* of the file, whatever the coding */
    const struct span *coding; /* NULL: none */
    bool varies;               /* there are others */
    struct span etag;
    struct span modified; /* as a date, and as a time */
    time_t modified_at;
    struct span accepted_ranges;
    const struct files_response *given; /* NULL: it is the site's own */
    char tag[48];                       /* .etag, where a coding has one of its own */
};

/* ---- which representation ---- */

/* The coding that the client likes best among those that there are, if it likes one as much as none at all. */
static int choose_coding(const struct head *head, unsigned siblings)
{
    unsigned most = accept_encoding(head, SPAN("identity"));
    int chosen = -1;

    for (int i = 0; i < N_CODINGS; i++) {
        unsigned weight = (siblings & 1u << i) != 0 ? accept_encoding(head, coding_names[i].name) : 0;

        if (weight > 0 && (chosen < 0 ? weight >= most : weight > most)) {
            chosen = i;
            most = weight;
        }
    }
    return chosen;
}

/* What the file itself says. */
static void take_validators(struct representation *r)
{
    r->etag = span_of(r->file->etag);
    r->modified = span_of(r->file->modified);
    r->modified_at = r->file->modified_at;
    r->accepted_ranges = SPAN("bytes");
}

static void take_sibling(struct open_files *files, const struct config_site *site, const char *name, int coding,
                         struct representation *r)
{
    struct open_file *sibling;
    char path[PATH_MAX + 1];
    size_t len = strlen(name) + 1;

    snprintf(path, sizeof path, "/%s%s", name, coding_names[coding].suffix);
    /* What another route has, or a guard of the file has not, is not there in its place. */
    if (route_first(site, span_of(path)) != route_first(site, (struct span){path, len}))
        return;
    if (open_files_take(files, site, path + 1, false, &sibling) != 0)
        return;
    open_file_release(r->file);
    r->file = sibling;
    r->coding = &coding_names[coding].name;
    snprintf(r->tag, sizeof r->tag, "%.*s-%.*s\"", (int)strlen(sibling->etag) - 1, sibling->etag, (int)r->coding->len,
             r->coding->at);
}

static void choose(struct open_files *files, const struct config_site *site, const struct exchange *exchange,
                   const char *name, struct representation *r)
{
    unsigned siblings = r->file->siblings;
    int coding = siblings != 0 ? choose_coding(&exchange->head, siblings) : -1;

    r->type = r->file->type;
    r->varies = siblings != 0;
    if (coding >= 0)
        take_sibling(files, site, name, coding, r);
    take_validators(r);
    if (r->coding != NULL)
        r->etag = span_of(r->tag);
}

/* ---- answering with a file ---- */

static void add_validators(struct exchange *exchange, const struct representation *r)
{
    exchange_field(exchange, SPAN("Last-Modified"), r->modified);
    exchange_field(exchange, SPAN("ETag"), r->etag);
    if (r->varies)
        exchange_field(exchange, SPAN("Vary"), SPAN("Accept-Encoding"));
}

static bool is_one_of(struct span name, const struct span *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (span_is_nocase(name, names[i]))
            return true;
    return false;
}

/* What a program said, but for what depends on the answer. 304 says nothing of what the client has already
 * (RFC 9110 section 15.4.5). */
static void add_given(struct exchange *exchange, const struct files_response *given, unsigned status)
{
    static const struct span ours[] = {
        {"ETag", 4}, {"Last-Modified", 13}, {"Accept-Ranges", 13}, {"Content-Range", 13}, {"Content-Type", 12},
    };
    static const struct span of_content[] = {
        {"Content-Encoding", 16}, {"Content-Language", 16}, {"Content-Disposition", 19}};

    for (unsigned i = 0; given != NULL && i < given->n_fields; i++) {
        const struct field *field = &given->fields[i];

        if (is_one_of(field->name, ours, sizeof ours / sizeof *ours))
            continue;
        if (status == 304 && is_one_of(field->name, of_content, sizeof of_content / sizeof *of_content))
            continue;
        exchange_field(exchange, field->name, field->value);
    }
}

static void send_not_modified(struct exchange *exchange, const struct representation *r)
{
    exchange_begin(exchange, 304, SPAN(""));
    add_given(exchange, r->given, 304);
    add_validators(exchange, r);
    open_file_release(r->file);
    exchange_end(exchange);
}

static void begin(struct exchange *exchange, const struct representation *r, unsigned status)
{
    exchange_begin(exchange, status, status == 200 && r->given != NULL ? r->given->reason : SPAN(""));
    add_given(exchange, r->given, status);
    add_validators(exchange, r);
    exchange_field(exchange, SPAN("Accept-Ranges"), r->accepted_ranges);
    if (r->coding != NULL)
        exchange_field(exchange, SPAN("Content-Encoding"), *r->coding);
}

static void send_ranges(struct exchange *exchange, const struct representation *r, const struct ranges *ranges)
{
    const struct range *range = &ranges->at[0];

    begin(exchange, r, 206);
    if (ranges->n > 1) {
        multipart_serve(exchange, r->file, r->type, ranges);
        return;
    }
    exchange_field(exchange, SPAN("Content-Type"), span_of(r->type));
    exchange_fieldf(exchange, SPAN("Content-Range"), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, range->first,
                    range->last, (uint64_t)r->file->about.st_size);
    exchange_file(exchange, r->file->fd, range->first, range->last - range->first + 1, open_file_release, r->file);
}

static void send_unsatisfiable(struct exchange *exchange, const struct representation *r)
{
    char range[32];

    snprintf(range, sizeof range, "bytes */%" PRIu64, (uint64_t)r->file->about.st_size);
    open_file_release(r->file);
    exchange_fail_with(exchange, 416, SPAN("Content-Range"), span_of(range));
}

static void send_whole(struct exchange *exchange, const struct representation *r)
{
    begin(exchange, r, 200);
    exchange_field(exchange, SPAN("Content-Type"), span_of(r->type));
    exchange_file(exchange, r->file->fd, 0, (uint64_t)r->file->about.st_size, open_file_release, r->file);
}

static void answer(struct exchange *exchange, const struct representation *r)
{
    const struct head *head = &exchange->head;
    struct validators validators = {r->etag, r->modified_at, time(NULL)};
    bool has_ranges = head->method == METHOD_GET && !span_is_nocase(r->accepted_ranges, SPAN("none"));
    enum condition condition = condition_decide(head, &validators);
    enum range_result result = RANGE_WHOLE;
    struct ranges ranges;

    if (condition == CONDITION_NOT_MODIFIED) {
        send_not_modified(exchange, r);
        return;
    }
    if (condition == CONDITION_FAILED) {
        open_file_release(r->file);
        exchange_fail(exchange, 412, 0);
        return;
    }
    if (has_ranges && condition_allows_range(head, &validators))
        result = range_read(head, (uint64_t)r->file->about.st_size, &ranges);
    if (result == RANGE_PARTS)
        send_ranges(exchange, r, &ranges);
    else if (result == RANGE_UNSATISFIABLE)
        send_unsatisfiable(exchange, r);
    else
        send_whole(exchange, r);
}

/* ---- for a program ---- */

static void take_given_validators(struct representation *r)
{
    const struct files_response *given = r->given;
    bool has_etag = false, has_date = false;

    for (unsigned i = 0; i < given->n_fields; i++) {
        const struct field *field = &given->fields[i];

        if (!has_etag && field->value.len > 0 && span_is_nocase(field->name, SPAN("ETag"))) {
            r->etag = field->value;
            has_etag = true;
        } else if (!has_date && span_is_nocase(field->name, SPAN("Last-Modified")) &&
                   date_read(field->value, time(NULL), &r->modified_at) == 0) {
            r->modified = field->value;
            has_date = true;
        } else if (field->value.len > 0 && span_is_nocase(field->name, SPAN("Accept-Ranges"))) {
            r->accepted_ranges = field->value;
        }
    }
}

/* The whole file; what the program said stands as it is. */
static void send_as_told(struct exchange *exchange, const struct files_response *response)
{
    bool has_type = false;

    exchange_begin(exchange, response->status, response->reason);
    for (unsigned i = 0; i < response->n_fields; i++) {
        has_type |= span_is_nocase(response->fields[i].name, SPAN("Content-Type"));
        exchange_field(exchange, response->fields[i].name, response->fields[i].value);
    }
    if (!has_type)
        exchange_field(exchange, SPAN("Content-Type"), span_of(response->file->type));
    exchange_file(exchange, response->file->fd, 0, (uint64_t)response->file->about.st_size, open_file_release,
                  response->file);
}

void files_answer(struct exchange *exchange, const struct files_response *response)
{
    struct representation r = {.file = response->file, .type = response->file->type, .given = response};
    enum method method = exchange->head.method;

    if (response->status != 200 || (method != METHOD_GET && method != METHOD_HEAD)) {
        send_as_told(exchange, response);
        return;
    }
    take_validators(&r);
    take_given_validators(&r);
    answer(exchange, &r);
}

/* ---- directories ---- */

void files_redirect_to_slash(struct exchange *exchange, struct span path)
{
    struct buffer location = {0};

    uri_append_encoded(&location, path);
    buffer_append_span(&location, SPAN("/"));
    uri_append_query(&location, &exchange->uri);
    bool is_plain = exchange->head.method == METHOD_GET || exchange->head.method == METHOD_HEAD;
    exchange_begin(exchange, is_plain ? 301 : 308, SPAN("")); /* 301 would make a POST a GET */
    exchange_field(exchange, SPAN("Location"), buffer_span(&location));
    exchange_length(exchange, 0);
    buffer_free(&location);
    exchange_end(exchange);
}

static void send_listing(struct exchange *exchange, struct listing *listing, struct span path)
{
    struct listing_view view = listing_view(exchange->uri.query);
    struct buffer page = {0};

    listing_write(&page, listing, &view, path);
    exchange_begin(exchange, 200, SPAN(""));
    exchange_field(exchange, SPAN("Content-Type"), listing_type(&view));
    exchange_field(exchange, SPAN("Content-Security-Policy"), SPAN("default-src 'none'; style-src 'unsafe-inline'"));
    exchange_field(exchange, SPAN("X-Content-Type-Options"), SPAN("nosniff"));
    exchange_length(exchange, buffer_len(&page));
    exchange_write(exchange, buffer_span(&page), true);
    buffer_free(&page);
    exchange_end(exchange);
}

unsigned files_status_of(int error)
{
    switch (error) {
    case -EACCES:
    case -EPERM:
    case -EXDEV:
    case -ELOOP:
        return 403;
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
        return 404;
    case -EMFILE:
    case -ENFILE:
        return 503;
    default:
        return 500;
    }
}

void files_fail(struct exchange *exchange, int error, struct span path)
{
    unsigned status = files_status_of(error);

    if (status != 404)
        log_warning("[%s] %u %.*s: %s", exchange->id, status, (int)path.len, path.at, open_files_why(error));
    exchange_fail(exchange, status, 0);
}

/* `name` is relative to the root, "." for itself. */
static void serve_directory(struct open_files *files, const struct config_site *site, struct exchange *exchange,
                            struct span path, const char *name)
{
    struct open_directory directory;
    struct listing listing = {0};
    int error = open_files_directory(files, site, name, &directory);

    if (error != 0) {
        files_fail(exchange, error, path);
        return;
    }
    if (site->has_listings)
        error = listing_read(&listing, directory.fd, open_directory_shows, &directory);
    close(directory.fd);
    if (!site->has_listings) {
        log_warning("[%s] 403 %.*s: has no index file, and listing is off", exchange->id, (int)path.len, path.at);
        exchange_fail(exchange, 403, 0);
    } else if (error != 0) {
        files_fail(exchange, error, path);
    } else {
        send_listing(exchange, &listing, path);
    }
    listing_free(&listing);
}

/* ---- paths ---- */

static bool is_for_files(struct exchange *exchange)
{
    enum method method = exchange->head.method;

    if (method == METHOD_GET || method == METHOD_HEAD)
        return true;
    exchange_allow(exchange, method == METHOD_OPTIONS ? 204 : 405, METHODS);
    return false;
}

static void serve_file(struct open_files *files, const struct config_site *site, struct exchange *exchange,
                       struct span path, const char *name, bool as_source)
{
    struct representation r = {0};
    int error = open_files_take(files, site, name, as_source, &r.file);

    if (error == -EISDIR) {
        files_redirect_to_slash(exchange, path);
        return;
    }
    if (error != 0) {
        files_fail(exchange, error, path);
        return;
    }
    choose(files, site, exchange, name, &r);
    if (r.coding == NULL && accept_identity(&exchange->head) == 0) {
        open_file_release(r.file);
        exchange_fail_with(exchange, 406, SPAN("Vary"), SPAN("Accept-Encoding"));
        return;
    }
    answer(exchange, &r);
}

void files_serve(struct open_files *files, const struct config_site *site, struct exchange *exchange, struct span path,
                 bool as_source)
{
    char name[PATH_MAX];
    bool is_directory = span_ends(path, SPAN("/"));

    exchange->record.gateway = SPAN("static");
    if (!is_for_files(exchange))
        return;
    if (path.len == 0 || path.len >= sizeof name) {
        exchange_fail(exchange, 404, 0);
        return;
    }
    memcpy(name, path.at + 1, path.len); /* with the NUL behind it */
    if (is_directory)
        serve_directory(files, site, exchange, path, name[0] != '\0' ? name : ".");
    else
        serve_file(files, site, exchange, path, name, as_source);
}

/* ---- pages for errors ---- */

struct span files_read_page(struct open_files *files, const struct config_site *site, const char *path,
                            struct buffer *to)
{
    struct open_file *file;
    struct span type;
    int error = open_files_take(files, site, path + 1, false, &file);

    if (error != 0) {
        log_warning("error_page %s of site %s: %s", path, site->names.at[0], open_files_why(error));
        return SPAN("");
    }
    size_t size = file->about.st_size <= MAX_PAGE ? (size_t)file->about.st_size : 0;
    ssize_t n = pread(file->fd, buffer_reserve(to, size + 1), size, 0);
    buffer_added(to, n > 0 ? (size_t)n : 0);
    type = n > 0 ? span_of(file->type) : SPAN("");
    if (n <= 0)
        log_warning("error_page %s of site %s: is empty, or larger than 64 KiB", path, site->names.at[0]);
    open_file_release(file);
    return type;
}
