/*
 * A FastCGI application of its own, without a library: all three roles, any number of requests at once on each of its
 * connections. One process, one poll() loop. It listens on descriptor 0, or on the address that it is given.
 *
 *     roles [OPTION...] [unix:/path | 127.0.0.1:port]
 *
 *     --max-reqs N     FCGI_MAX_REQS, what it says and keeps to (50)    --mpxs 0|1     FCGI_MPXS_CONNS, likewise (1)
 *     --max-conns N    FCGI_MAX_CONNS, likewise (100)                   --overloaded N more than N at once: OVERLOADED
 *     --cant-mpx       says that it multiplexes, but refuses a connection's second request by CANT_MPX_CONN
 *     --silent-values  no answer to GET_VALUES                          --close-values closes the connection on it
 *     --ignore-abort   ABORT_REQUEST changes nothing                    --log FILE     one JSON object a line
 *     --no-keep        closes the connection after each answer, KEEP_CONN or not, and forgets its other requests
 *
 * Words of QUERY_STRING, joined by "&", say what is answered; for an Authorizer, each with "auth-" before it:
 *   sleep=MS  only after so long, others go on     die=1        exits with status 7 instead
 *   stderr=TEXT  one line of STDERR                appstatus=N  in END_REQUEST
 *   wrongid=1  first a STDOUT for an idle id       late=1       a STDOUT of its own id after END_REQUEST
 *   env=1  every param, sorted, NAME=VALUE         id=1         who is served, as JSON
 *   size=N  N bytes of "x"                         stream=N     N pieces, one each 50 ms
 *   echo=1  the body, as it comes                  early=1      END_REQUEST before the end of STDIN, if need be
 * An Authorizer answers as `modes` below says, by HTTP_X_ROLE_TEST, by the word auth=MODE, or by a name of REQUEST_URI.
 * A Filter reads STDIN to its end and gives FCGI_DATA back in upper case.
 *
 * Of what comes, only so much is kept: a connection is not read while its output or the input of one of its requests is
 * above its limit. What is no FastCGI, and more params than PARAMS_MAX, closes the connection. Ids that are not active
 * are ignored, as section 3.3 of the specification says, and logged as "stray".
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    HEADER = 8,
    RECORD_MAX = HEADER + 65535 + 255,
    READ_MAX = 2 * RECORD_MAX, /* a connection's bytes that are not yet looked at */
    OUTPUT_ENOUGH = 65536,     /* no request adds to more than this */
    OUTPUT_MAX = 262144,       /* and nothing is read, either, above this */
    INPUT_MAX = 65536,         /* STDIN or DATA that a request has not yet used */
    PARAMS_MAX = 1 << 20,
    PIECE = 8192, /* of a body, at a time: others have their turns in between */
    CONNECTIONS_MAX = 256,
    REQUESTS_MAX = 1024,
    PAIRS_MAX = 4096,
    STREAM_MS = 50,
};

enum type { BEGIN = 1, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, VALUES_RESULT, UNKNOWN_TYPE };
enum role { RESPONDER = 1, AUTHORIZER, FILTER };
enum protocol_status { COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE };

struct bytes {
    char *at;
    size_t len, cap;
};

struct connection {
    int fd;
    unsigned number;
    unsigned n_requests;
    bool is_dropped;  /* nothing more is looked at or answered; it is closed when what there is has been sent */
    bool is_broken;   /* it is closed at the end of this turn */
    bool is_last;     /* no KEEP_CONN: when nothing is left to send, that is said, */
    bool is_over;     /* and what still comes is only read: a close would take the answer's end with it */
    struct bytes out; /* from `sent` on still to be written */
    size_t sent, n_in;
    unsigned char in[READ_MAX];
};

struct pair {
    const char *name, *value;
};

enum state { WAITS_FOR_PARAMS, SLEEPS, ANSWERS, WAITS_FOR_INPUT };

/* PARAMS -> sleep -> head -> body -> the end of what comes in -> END_REQUEST */
struct request {
    struct connection *connection;
    uint16_t id;
    enum role role;
    unsigned flags;
    enum state state;
    struct bytes params; /* as they came; then NUL-terminated strings that `pairs` points into */
    struct pair *pairs;  /* sorted by name */
    size_t n_pairs;
    bool has_stdin, has_data, stdin_over, data_over, is_echo;
    unsigned long long n_stdin, n_data;
    struct bytes input; /* what of STDIN (echo) or DATA (Filter) is to be given back */
    struct bytes text;  /* the head, and what of the body is not made on the way */
    unsigned long long n_filler, n_pieces, n_piece;
    long long due_ms;
};

static struct {
    unsigned long max_reqs, max_conns, overloaded;
    bool mpxs, cant_mpx, silent_values, close_values, ignore_abort, no_keep;
    int log_fd;
} options = {.max_reqs = 50, .max_conns = 100, .overloaded = REQUESTS_MAX, .mpxs = true, .log_fd = -1};

static struct connection *connections[CONNECTIONS_MAX];
static struct request *requests[REQUESTS_MAX];
static size_t n_connections, n_requests;

/* Bytes and time. */

static long long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void *allocate(void *old, size_t size)
{
    void *it = realloc(old, size);

    if (it == NULL)
        abort();
    return it;
}

static void add(struct bytes *to, const void *from, size_t len)
{
    if (to->len + len > to->cap) {
        to->cap = 2 * (to->len + len);
        to->at = allocate(to->at, to->cap);
    }
    if (len > 0)
        memcpy(to->at + to->len, from, len);
    to->len += len;
}

static void add_text(struct bytes *to, const char *text)
{
    add(to, text, strlen(text));
}

static void add_number(struct bytes *to, const char *before, unsigned long long number, const char *after)
{
    char text[32];

    snprintf(text, sizeof text, "%llu", number);
    add_text(to, before);
    add_text(to, text);
    add_text(to, after);
}

static void add_json(struct bytes *to, const char *text)
{
    char code[8];

    add_text(to, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c >= ' ' && c < 127 && c != '"' && c != '\\') {
            add(to, text, 1);
            continue;
        }
        snprintf(code, sizeof code, "\\u%04x", c);
        add_text(to, code);
    }
    add_text(to, "\"");
}

static void remove_front(struct bytes *from, size_t len)
{
    from->len -= len;
    memmove(from->at, from->at + len, from->len);
}

/* Records out. */

static void send_record(struct connection *c, enum type type, uint16_t id, const void *content, size_t len)
{
    static const char zeros[8];
    unsigned char padding = (unsigned char)(-len & 7);
    unsigned char header[HEADER] = {1,
                                    (unsigned char)type,
                                    (unsigned char)(id >> 8),
                                    (unsigned char)id,
                                    (unsigned char)(len >> 8),
                                    (unsigned char)len,
                                    padding};

    add(&c->out, header, sizeof header);
    add(&c->out, content, len);
    add(&c->out, zeros, padding);
}

static void send_end(struct connection *c, uint16_t id, unsigned long app_status, enum protocol_status status)
{
    unsigned char body[8] = {(unsigned char)(app_status >> 24), (unsigned char)(app_status >> 16),
                             (unsigned char)(app_status >> 8), (unsigned char)app_status, (unsigned char)status};

    send_record(c, END, id, body, sizeof body);
}

/* The log. */

static void log_line(struct bytes *line)
{
    add_text(line, "}\n");
    if (options.log_fd >= 0 && write(options.log_fd, line->at, line->len) < 0)
        perror("roles: log");
    free(line->at);
}

static void log_event(const struct connection *c, const char *event, unsigned type, uint16_t id, size_t len)
{
    struct bytes line = {0};

    add_text(&line, "{\"event\":");
    add_json(&line, event);
    add_number(&line, ",\"connection\":", c->number, "");
    add_number(&line, ",\"type\":", type, "");
    add_number(&line, ",\"id\":", id, "");
    add_number(&line, ",\"length\":", len, "");
    log_line(&line);
}

static const char *role_name(enum role role)
{
    return role == RESPONDER ? "responder" : role == AUTHORIZER ? "authorizer" : "filter";
}

static void log_request(const struct request *r, const char *outcome)
{
    struct bytes line = {0};

    add_text(&line, "{\"event\":\"request\",\"role\":");
    add_json(&line, role_name(r->role));
    add_text(&line, ",\"outcome\":");
    add_json(&line, outcome);
    add_number(&line, ",\"connection\":", r->connection->number, "");
    add_number(&line, ",\"id\":", r->id, "");
    add_number(&line, ",\"flags\":", r->flags, ",\"params\":[");
    for (size_t i = 0; i < r->n_pairs; i++) {
        add_text(&line, i > 0 ? ",[" : "[");
        add_json(&line, r->pairs[i].name);
        add_text(&line, ",");
        add_json(&line, r->pairs[i].value);
        add_text(&line, "]");
    }
    add_text(&line, "],\"stdin\":");
    if (r->has_stdin)
        add_number(&line, "", r->n_stdin, "");
    else
        add_text(&line, "null");
    add_text(&line, ",\"data\":");
    if (r->has_data)
        add_number(&line, "", r->n_data, "");
    else
        add_text(&line, "null");
    add_text(&line, r->stdin_over ? ",\"stdin_over\":true" : ",\"stdin_over\":false");
    add_text(&line, r->data_over ? ",\"data_over\":true" : ",\"data_over\":false");
    log_line(&line);
}

/* Requests, and what they ask for. */

static const char *param(const struct request *r, const char *name)
{
    for (size_t i = 0; i < r->n_pairs; i++) {
        if (strcmp(r->pairs[i].name, name) == 0)
            return r->pairs[i].value;
    }
    return "";
}

/* The value of a word of the query, in `value`; NULL when it is not there. */
static const char *query_value(const struct request *r, const char *name, char value[1024])
{
    size_t len = strlen(name);

    for (const char *at = param(r, "QUERY_STRING"); *at != '\0';) {
        size_t end = strcspn(at, "&");

        if (end > len && strncmp(at, name, len) == 0 && at[len] == '=') {
            snprintf(value, 1024, "%.*s", (int)(end - len - 1), at + len + 1);
            return value;
        }
        at += end + (at[end] == '&');
    }
    return NULL;
}

static const char *word(const struct request *r, const char *name, char value[1024])
{
    char whole[64];

    snprintf(whole, sizeof whole, "%s%s", r->role == AUTHORIZER ? "auth-" : "", name);
    return query_value(r, whole, value);
}

static unsigned long long number(const struct request *r, const char *name)
{
    char value[1024];

    return word(r, name, value) != NULL ? strtoull(value, NULL, 10) : 0;
}

static void destroy_request(struct request *r, const char *outcome)
{
    log_request(r, outcome);
    r->connection->n_requests--;
    for (size_t i = 0; i < n_requests; i++) {
        if (requests[i] == r)
            requests[i] = requests[--n_requests];
    }
    free(r->params.at);
    free(r->input.at);
    free(r->text.at);
    free(r->pairs);
    free(r);
}

static struct request *find_request(const struct connection *c, uint16_t id)
{
    for (size_t i = 0; i < n_requests; i++) {
        if (requests[i]->connection == c && requests[i]->id == id)
            return requests[i];
    }
    return NULL;
}

static void begin_request(struct connection *c, uint16_t id, const unsigned char *body, size_t len)
{
    unsigned role = len == 8 ? (unsigned)(body[0] << 8 | body[1]) : 0;
    struct request *r;

    if (len != 8 || id == 0 || c->is_over || find_request(c, id) != NULL) {
        log_event(c, "bad begin", BEGIN, id, len);
        c->is_broken = true;
    } else if (role < RESPONDER || role > FILTER) {
        log_event(c, "unknown role", BEGIN, id, role);
        send_end(c, id, 0, UNKNOWN_ROLE);
    } else if (c->n_requests > 0 && (!options.mpxs || options.cant_mpx)) {
        log_event(c, "cannot multiplex", BEGIN, id, len);
        send_end(c, id, 0, CANT_MPX_CONN);
    } else if (n_requests >= options.max_reqs || n_requests >= options.overloaded || n_requests >= REQUESTS_MAX) {
        log_event(c, "overloaded", BEGIN, id, len);
        send_end(c, id, 0, OVERLOADED);
    } else {
        r = allocate(NULL, sizeof *r);
        *r = (struct request){.connection = c, .id = id, .role = (enum role)role, .flags = body[2]};
        requests[n_requests++] = r;
        c->n_requests++;
    }
}

/* A length of one byte or four; -1 when it is cut off. */
static long long take_length(const unsigned char **at, const unsigned char *end)
{
    const unsigned char *from = *at;

    if (end - from < 1 || (*from >= 128 && end - from < 4))
        return -1;
    *at += *from < 128 ? 1 : 4;
    return *from < 128 ? from[0] : (from[0] & 127LL) << 24 | from[1] << 16 | from[2] << 8 | from[3];
}

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *left = a, *right = b;

    return strcmp(left->name, right->name);
}

/* Calls for each pair of the content, with strings that end in NUL. Returns false when it is malformed. */
static bool each_pair(const void *content, size_t len, struct bytes *strings,
                      void take(void *arg, size_t name, size_t value), void *arg)
{
    const unsigned char *at = content, *end = at + len;

    while (at < end) {
        long long n_name = take_length(&at, end), n_value = n_name < 0 ? -1 : take_length(&at, end);
        size_t name = strings->len, value;

        if (n_value < 0 || n_name + n_value > end - at)
            return false;
        add(strings, at, (size_t)n_name);
        add(strings, "", 1);
        value = strings->len;
        add(strings, at + n_name, (size_t)n_value);
        add(strings, "", 1);
        at += n_name + n_value;
        take(arg, name, value);
    }
    return true;
}

struct places {
    size_t n;
    size_t name[PAIRS_MAX], value[PAIRS_MAX]; /* places in the strings: they move while they grow */
};

static void take_place(void *arg, size_t name, size_t value)
{
    struct places *all = arg;

    if (all->n < PAIRS_MAX) {
        all->name[all->n] = name;
        all->value[all->n++] = value;
    }
}

static bool parse_params(struct request *r)
{
    static struct places places;
    struct bytes strings = {0};
    bool is_good;

    places.n = 0;
    is_good = each_pair(r->params.at, r->params.len, &strings, take_place, &places) && places.n < PAIRS_MAX;
    free(r->params.at);
    r->params = strings;
    r->pairs = allocate(NULL, (places.n + 1) * sizeof *r->pairs);
    r->n_pairs = places.n;
    for (size_t i = 0; i < places.n; i++)
        r->pairs[i] = (struct pair){strings.at + places.name[i], strings.at + places.value[i]};
    qsort(r->pairs, r->n_pairs, sizeof *r->pairs, compare_pairs);
    return is_good;
}

/* Answers. */

static const struct {
    const char *name, *answer;
} modes[] = {
    {"deny", "Status: 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"roles\"\r\nContent-Type: text/plain\r\n"
             "X-From: authorizer\r\n\r\ndenied\n"},
    {"forbid", "Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nforbidden\n"},
    {"redirect", "Status: 302 Found\r\nLocation: http://login.test/\r\nContent-Type: text/plain\r\n\r\nlog in\n"},
    {"body", "Status: 200 OK\r\nContent-Type: text/html\r\nX-From: authorizer\r\nVariable-REMOTE_USER: bob\r\n\r\n"
             "this must not be seen\n"},
    {"error", "Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nout of order\n"},
    {"nonsense", "this is no head\n"},
    {"empty", ""},
    {"nostatus", "Content-Type: text/plain\r\nVariable-REMOTE_USER: carol\r\n\r\n"},
    {"malformed", "Status: 200\r\nVariable-OK: good\r\nVariable-A B: space\r\nVariable-A=B: equals\r\n\r\n"},
    {"hostile", "Status: 200\r\nVariable-: nameless\r\nVariable-CONTENT_LENGTH: 999999\r\nVariable-HTTP_PROXY: "
                "http://evil.test/\r\n"
                "Variable-REMOTE_ADDR: 6.6.6.6\r\nVariable-REQUEST_METHOD: DELETE\r\nVariable-QUERY_STRING: evil=1\r\n"
                "Variable-DOCUMENT_ROOT: /etc\r\nVariable-GATEWAY_INTERFACE: evil\r\nVariable-OK: good\r\n\r\n"},
    {"allow", "Status: 200\r\nVariable-AUTH_METHOD: test\r\nVariable-REMOTE_USER: alice\r\n"
              "Variable-LD_PRELOAD: /tmp/evil.so\r\nVariable-PATH: /evil\r\nVariable-SCRIPT_FILENAME: /etc/passwd\r\n"
              "\r\n"},
};

/* What is not spoken of otherwise is allowed. */
static void answer_authorizer(struct request *r)
{
    const char *wish = param(r, "HTTP_X_ROLE_TEST");
    char value[1024];
    size_t i = 0;

    if (*wish == '\0')
        wish = query_value(r, "auth", value);
    if (wish == NULL)
        wish = param(r, "REQUEST_URI");
    while (i < sizeof modes / sizeof *modes - 1 && strstr(wish, modes[i].name) == NULL)
        i++;
    add_text(&r->text, modes[i].answer);
}

static void answer_filter(struct request *r)
{
    add_text(&r->text, "Content-Type: text/plain\r\nX-Data-Length: ");
    add_text(&r->text, param(r, "FCGI_DATA_LENGTH"));
    add_text(&r->text, "\r\nX-Last-Mod: ");
    add_text(&r->text, param(r, "FCGI_DATA_LAST_MOD"));
    add_number(&r->text, "\r\nX-Stdin-Length: ", r->n_stdin, "\r\n\r\n");
}

static void answer_responder(struct request *r)
{
    char value[1024];

    r->n_filler = number(r, "size");
    r->n_pieces = number(r, "stream");
    add_text(&r->text, "Content-Type: text/plain\r\n\r\n");
    if (word(r, "env", value) != NULL) {
        for (size_t i = 0; i < r->n_pairs; i++) {
            add_text(&r->text, r->pairs[i].name);
            add_text(&r->text, "=");
            add_text(&r->text, r->pairs[i].value);
            add_text(&r->text, "\n");
        }
    }
    if (word(r, "id", value) != NULL) {
        add_number(&r->text, "{\"id\":", r->id, "");
        add_number(&r->text, ",\"connection\":", r->connection->number, "");
        add_number(&r->text, ",\"on_connection\":", r->connection->n_requests, "");
        add_number(&r->text, ",\"in_flight\":", n_requests, "");
        add_number(&r->text, ",\"connections\":", n_connections, "");
        add_number(&r->text, ",\"pid\":", (unsigned long long)getpid(), "}\n");
    }
}

/* An id of which nothing is active on the connection. */
static uint16_t idle_id(const struct connection *c)
{
    uint16_t id = 60000;

    while (find_request(c, id) != NULL)
        id++;
    return id;
}

static void start_answer(struct request *r)
{
    static const char wrong[] = "Content-Type: text/plain\r\n\r\nof a wrong id\n";
    char value[1024];

    if (word(r, "stderr", value) != NULL) {
        add_text(&r->text, value);
        add_text(&r->text, "\n");
        send_record(r->connection, STDERR, r->id, r->text.at, r->text.len);
        r->text.len = 0;
    }
    if (word(r, "wrongid", value) != NULL)
        send_record(r->connection, STDOUT, idle_id(r->connection), wrong, sizeof wrong - 1);
    if (r->role == AUTHORIZER)
        answer_authorizer(r);
    else if (r->role == FILTER)
        answer_filter(r);
    else
        answer_responder(r);
    r->state = ANSWERS;
}

static void end_answer(struct request *r)
{
    struct connection *c = r->connection;
    char value[1024];
    bool is_late = word(r, "late", value) != NULL;

    send_record(c, STDOUT, r->id, "", 0);
    send_end(c, r->id, (unsigned long)number(r, "appstatus"), COMPLETE);
    if (is_late)
        send_record(c, STDOUT, r->id, "too late\n", 9);
    c->is_last = c->is_last || (r->flags & 1) == 0;
    c->is_dropped = options.no_keep;
    destroy_request(r, "complete");
}

static void send_piece(struct request *r, struct bytes *from)
{
    size_t len = from->len < PIECE ? from->len : PIECE;

    send_record(r->connection, STDOUT, r->id, from->at, len);
    remove_front(from, len);
}

/* Sends the next piece of the answer that is due. Returns false when there is none now. */
static bool go_on(struct request *r)
{
    static char filler[PIECE];
    struct bytes line = {0};

    if (r->text.len > 0) {
        send_piece(r, &r->text);
    } else if (r->n_filler > 0) {
        size_t len = r->n_filler < PIECE ? (size_t)r->n_filler : PIECE;

        memset(filler, 'x', sizeof filler);
        send_record(r->connection, STDOUT, r->id, filler, len);
        r->n_filler -= len;
    } else if (r->n_pieces > 0) {
        if (now_ms() < r->due_ms)
            return false;
        add_number(&line, "piece ", ++r->n_piece, "\n");
        send_piece(r, &line);
        free(line.at);
        r->n_pieces--;
        r->due_ms = now_ms() + STREAM_MS;
    } else if (r->input.len > 0) {
        send_piece(r, &r->input);
    } else {
        r->state = WAITS_FOR_INPUT;
    }
    return true;
}

static bool is_input_over(const struct request *r)
{
    char value[1024];

    return r->role == AUTHORIZER || word(r, "early", value) != NULL ||
           (r->role == FILTER ? r->data_over : r->stdin_over);
}

static bool wake(struct request *r)
{
    char value[1024];

    if (now_ms() < r->due_ms || (r->role == FILTER && !r->stdin_over))
        return false;
    if (word(r, "die", value) != NULL) {
        log_request(r, "die");
        _exit(7);
    }
    start_answer(r);
    return true;
}

/* One step of a request, which may be its last. Returns false when it waits for something. */
static bool step(struct request *r)
{
    if (r->connection->is_broken || r->connection->is_dropped ||
        r->connection->out.len - r->connection->sent > OUTPUT_ENOUGH)
        return false;
    switch (r->state) {
    case WAITS_FOR_PARAMS:
        return false;
    case SLEEPS:
        return wake(r);
    case ANSWERS:
        return go_on(r);
    case WAITS_FOR_INPUT:
        if (r->input.len > 0)
            r->state = ANSWERS;
        else if (is_input_over(r))
            end_answer(r);
        else
            return false;
        return true;
    }
    return false;
}

/* Records in. */

static void on_params(struct request *r, const void *content, size_t len)
{
    char value[1024];

    if (r->state != WAITS_FOR_PARAMS)
        return;
    if (len > 0 && r->params.len + len <= PARAMS_MAX) {
        add(&r->params, content, len);
        return;
    }
    if (len > 0 || !parse_params(r)) {
        log_event(r->connection, "bad params", PARAMS, r->id, r->params.len);
        r->connection->is_broken = true;
        return;
    }
    r->is_echo = r->role == RESPONDER && word(r, "echo", value) != NULL;
    r->due_ms = now_ms() + (long long)(number(r, "sleep") % 1000000);
    r->state = SLEEPS;
}

static void on_stdin(struct request *r, const void *content, size_t len)
{
    r->has_stdin = true;
    r->stdin_over = r->stdin_over || len == 0;
    r->n_stdin += len;
    if (r->is_echo)
        add(&r->input, content, len);
}

static void on_data(struct request *r, const void *content, size_t len)
{
    if (r->role == FILTER && !r->stdin_over) {
        log_event(r->connection, "data before the end of stdin", DATA, r->id, len);
        r->connection->is_broken = true;
        return;
    }
    r->has_data = true;
    r->data_over = r->data_over || len == 0;
    r->n_data += len;
    if (r->role != FILTER)
        return;
    add(&r->input, content, len);
    for (char *at = r->input.at + r->input.len - len, *end = at + len; at < end; at++)
        *at = (char)toupper((unsigned char)*at);
}

struct values {
    struct bytes strings, result;
};

static void take_value(void *arg, size_t name_at, size_t value_at)
{
    struct values *values = arg;
    const char *name = values->strings.at + name_at;
    char text[32];
    unsigned char lengths[2];

    (void)value_at;
    if (strcmp(name, "FCGI_MAX_CONNS") == 0)
        snprintf(text, sizeof text, "%lu", options.max_conns);
    else if (strcmp(name, "FCGI_MAX_REQS") == 0)
        snprintf(text, sizeof text, "%lu", options.max_reqs);
    else if (strcmp(name, "FCGI_MPXS_CONNS") == 0)
        snprintf(text, sizeof text, "%d", options.mpxs);
    else
        return;
    lengths[0] = (unsigned char)strlen(name);
    lengths[1] = (unsigned char)strlen(text);
    if (values->result.len < 1024) {
        add(&values->result, lengths, 2);
        add_text(&values->result, name);
        add_text(&values->result, text);
    }
}

static void on_management(struct connection *c, unsigned type, const void *content, size_t len)
{
    unsigned char unknown[8] = {(unsigned char)type};
    struct values values = {0};

    if (type != GET_VALUES) {
        log_event(c, "unknown type", type, 0, len);
        send_record(c, UNKNOWN_TYPE, 0, unknown, sizeof unknown);
        return;
    }
    log_event(c, "values", type, 0, len);
    if (options.close_values)
        c->is_broken = true;
    else if (!options.silent_values && each_pair(content, len, &values.strings, take_value, &values))
        send_record(c, VALUES_RESULT, 0, values.result.at, values.result.len);
    free(values.strings.at);
    free(values.result.at);
}

static void on_record(struct connection *c, unsigned type, uint16_t id, const unsigned char *content, size_t len)
{
    struct request *r = find_request(c, id);

    if (type == BEGIN)
        begin_request(c, id, content, len);
    else if (id == 0)
        on_management(c, type, content, len);
    else if (r == NULL)
        log_event(c, "stray", type, id, len);
    else if (type == PARAMS)
        on_params(r, content, len);
    else if (type == STDIN)
        on_stdin(r, content, len);
    else if (type == DATA)
        on_data(r, content, len);
    else if (type == ABORT && !options.ignore_abort) {
        send_end(c, id, 0, COMPLETE);
        c->is_last = c->is_last || (r->flags & 1) == 0;
        destroy_request(r, "aborted");
    } else {
        log_event(c, "ignored", type, id, len);
    }
}

/* May more records of this connection be looked at? */
static bool has_room(const struct connection *c)
{
    if (c->is_broken || c->is_dropped || c->out.len - c->sent > OUTPUT_MAX)
        return false;
    for (size_t i = 0; i < n_requests; i++) {
        if (requests[i]->connection == c && requests[i]->input.len > INPUT_MAX)
            return false;
    }
    return true;
}

static void use_records(struct connection *c)
{
    size_t used = 0;

    while (c->n_in - used >= HEADER && has_room(c)) {
        const unsigned char *at = c->in + used;
        size_t len = (size_t)(at[4] << 8 | at[5]);

        if (at[0] != 1) {
            log_event(c, "no FastCGI", at[0], 0, c->n_in - used);
            c->is_broken = true;
            return;
        }
        if (c->n_in - used < HEADER + len + at[6])
            break;
        used += HEADER + len + at[6];
        on_record(c, at[1], (uint16_t)(at[2] << 8 | at[3]), at + HEADER, len);
    }
    c->n_in -= used;
    memmove(c->in, c->in + used, c->n_in);
}

/* Connections. */

static void accept_connection(int listen_fd)
{
    static unsigned number;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct connection *c;

    if (fd < 0)
        return;
    c = allocate(NULL, sizeof *c);
    c->fd = fd;
    c->number = ++number;
    c->n_requests = 0;
    c->is_dropped = c->is_broken = c->is_last = c->is_over = false;
    c->out = (struct bytes){0};
    c->sent = c->n_in = 0;
    connections[n_connections++] = c;
    log_event(c, "accept", 0, 0, n_connections);
}

static void destroy_connection(size_t index)
{
    struct connection *c = connections[index];

    for (size_t i = n_requests; i-- > 0;) {
        if (requests[i]->connection == c)
            destroy_request(requests[i], "gone");
    }
    log_event(c, "close", 0, 0, n_connections);
    connections[index] = connections[--n_connections];
    close(c->fd);
    free(c->out.at);
    free(c);
}

static void read_connection(struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->n_in, sizeof c->in - c->n_in, 0);

    if (n > 0)
        c->n_in += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->is_broken = true;
}

static void write_connection(struct connection *c)
{
    ssize_t n = send(c->fd, c->out.at + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);

    if (n > 0)
        c->sent += (size_t)n;
    else if (errno != EAGAIN && errno != EINTR)
        c->is_broken = true;
    if (c->sent == c->out.len)
        c->sent = c->out.len = 0;
}

/* The loop. */

static void work(void)
{
    bool is_busy = true;

    while (is_busy) {
        is_busy = false;
        for (size_t i = 0; i < n_connections; i++)
            use_records(connections[i]);
        for (size_t i = n_requests; i-- > 0;)
            is_busy = step(requests[i]) || is_busy;
    }
    for (size_t i = 0; i < n_connections; i++) {
        if (!connections[i]->is_broken && connections[i]->out.len > connections[i]->sent)
            write_connection(connections[i]);
    }
    for (size_t i = n_connections; i-- > 0;) {
        struct connection *c = connections[i];

        if (c->is_last && !c->is_over && c->n_requests == 0 && c->out.len == 0) {
            c->is_over = true;
            shutdown(c->fd, SHUT_WR);
        }
        if (c->is_broken || (c->is_dropped && c->out.len == 0))
            destroy_connection(i);
    }
}

static int wait_ms(void)
{
    long long now = now_ms(), left = 3600 * 1000;

    for (size_t i = 0; i < n_requests; i++) {
        const struct request *r = requests[i];
        bool is_blocked = r->connection->out.len - r->connection->sent > OUTPUT_ENOUGH;

        if (is_blocked || r->state == WAITS_FOR_PARAMS || r->state == WAITS_FOR_INPUT)
            continue;
        if (r->state == SLEEPS && r->role == FILTER && !r->stdin_over)
            continue;
        if (r->due_ms - now < left)
            left = r->due_ms > now ? r->due_ms - now : 0;
    }
    return (int)left;
}

static void serve(int listen_fd)
{
    struct pollfd fds[CONNECTIONS_MAX + 1];
    size_t n;

    for (;;) {
        bool may_accept = n_connections < options.max_conns && n_connections < CONNECTIONS_MAX;

        fds[0] = (struct pollfd){.fd = may_accept ? listen_fd : -1, .events = POLLIN};
        n = n_connections;
        for (size_t i = 0; i < n; i++) {
            const struct connection *c = connections[i];

            fds[i + 1] = (struct pollfd){.fd = c->fd};
            fds[i + 1].events =
                (short)((has_room(c) && c->n_in < sizeof c->in ? POLLIN : 0) | (c->out.len > c->sent ? POLLOUT : 0));
        }
        if (poll(fds, n + 1, wait_ms()) < 0 && errno != EINTR)
            abort();
        for (size_t i = 0; i < n; i++) {
            if (fds[i + 1].revents & POLLIN)
                read_connection(connections[i]);
            else if (fds[i + 1].revents & (POLLERR | POLLHUP))
                connections[i]->is_broken = true;
        }
        if (fds[0].revents & POLLIN)
            accept_connection(listen_fd);
        work();
    }
}

/* The start. */

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0666) != 0 || listen(fd, 128) != 0)
        return -1;
    return fd;
}

static int listen_tcp(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    const char *colon = strrchr(text, ':');
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    char host[64];

    if (colon == NULL)
        return -1;
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    fprintf(stderr, "roles: listening on %s:%d\n", host, ntohs(address.sin_port));
    return fd;
}

static bool read_option(int which)
{
    switch (which) {
    case 'r':
        options.max_reqs = strtoul(optarg, NULL, 10);
        break;
    case 'n':
        options.max_conns = strtoul(optarg, NULL, 10);
        break;
    case 'o':
        options.overloaded = strtoul(optarg, NULL, 10);
        break;
    case 'm':
        options.mpxs = strtoul(optarg, NULL, 10) != 0;
        break;
    case 'l':
        options.log_fd = open(optarg, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        return options.log_fd >= 0;
    default:
        return which == 0; /* a flag, set by getopt_long() below */
    }
    return true;
}

int main(int argc, char **argv)
{
    static int flags[5];
    static const struct option names[] = {
        {"max-reqs", required_argument, NULL, 'r'},
        {"max-conns", required_argument, NULL, 'n'},
        {"overloaded", required_argument, NULL, 'o'},
        {"mpxs", required_argument, NULL, 'm'},
        {"log", required_argument, NULL, 'l'},
        {"cant-mpx", no_argument, &flags[0], 1},
        {"silent-values", no_argument, &flags[1], 1},
        {"close-values", no_argument, &flags[2], 1},
        {"ignore-abort", no_argument, &flags[3], 1},
        {"no-keep", no_argument, &flags[4], 1},
        {NULL, 0, NULL, 0},
    };
    int listen_fd = STDIN_FILENO, which;

    while ((which = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (!read_option(which)) {
            fprintf(stderr, "roles: cannot use the options\n");
            return 1;
        }
    }
    options.cant_mpx = flags[0] != 0;
    options.silent_values = flags[1] != 0;
    options.close_values = flags[2] != 0;
    options.ignore_abort = flags[3] != 0;
    options.no_keep = flags[4] != 0;
    if (optind < argc)
        listen_fd = strncmp(argv[optind], "unix:", 5) == 0 ? listen_unix(argv[optind] + 5) : listen_tcp(argv[optind]);
    if (listen_fd < 0 || fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) != 0) {
        perror("roles: cannot listen");
        return 1;
    }
    serve(listen_fd);
}
