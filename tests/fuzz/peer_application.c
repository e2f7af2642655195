/*
 * The application's part: sockets of its own in a folder of its own, on which it accepts what the pool opens. It reads
 * strictly: what the pool sends must be FastCGI to the letter, and what belongs to a run must be that run's. What it
 * says comes from the input and may be anything; of what happens to be well-formed it keeps, by connection and id, the
 * bytes that the run with that id must get.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/memory.h"
#include "peer_play.h"

enum { HEADER = 8, MOST_TO_SAY = 1 << 21, MOST_NOT_STREAM = 1024, NARROW = 1 };

static int listeners[PLACES] = {-1, -1, -1, -1, -1};
static char directory[] = "/tmp/gatehouse-fuzz-XXXXXX";
static struct sockaddr_in port = {.sin_family = AF_INET};
static int backlog;

static unsigned get16(const void *at)
{
    const uint8_t *bytes = at;

    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* ---- places ---- */

const char *application_path(unsigned place)
{
    static char path[64];

    snprintf(path, sizeof path, "%s/%u", directory, place);
    return path;
}

void application_remote(unsigned place, struct config_remote *remote)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&remote->address;

    *remote = (struct config_remote){.text = directory, .kind = REMOTE_ADDRESS, .len = sizeof *un};
    if (place == PORT_PLACE) {
        memcpy(&remote->address, &port, sizeof port);
        remote->len = sizeof port;
        return;
    }
    un->sun_family = AF_UNIX;
    snprintf(un->sun_path, sizeof un->sun_path, "%s", application_path(place));
}

static void remove_all(void)
{
    for (unsigned i = 0; i < PORT_PLACE; i++)
        unlink(application_path(i));
    rmdir(directory);
}

static void make_port(void)
{
    socklen_t len = sizeof port;

    listeners[PORT_PLACE] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(bind(listeners[PORT_PLACE], (struct sockaddr *)&port, sizeof port) == 0);
    require(getsockname(listeners[PORT_PLACE], (struct sockaddr *)&port, &len) == 0);
}

static void make_path(unsigned place)
{
    struct config_remote remote;

    application_remote(place, &remote);
    unlink(application_path(place));
    listeners[place] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    require(bind(listeners[place], (struct sockaddr *)&remote.address, remote.len) == 0);
}

/* A port stays ours when nobody listens. */
void application_set_listening(unsigned place, bool is_listening)
{
    if (!is_listening && place == PORT_PLACE) {
        shutdown(listeners[place], SHUT_RD);
    } else if (!is_listening && listeners[place] >= 0) {
        close(listeners[place]);
        listeners[place] = -1;
    } else if (is_listening) {
        if (listeners[place] < 0)
            make_path(place);
        require(listen(listeners[place], backlog) == 0);
    }
}

void application_start(bool is_narrow)
{
    if (port.sin_port == 0) {
        require(mkdtemp(directory) != NULL);
        atexit(remove_all);
        make_port();
    }
    backlog = is_narrow ? NARROW : 1000;
    for (unsigned i = 0; i < PLACES; i++)
        application_set_listening(i, true);
}

/* ---- what the pool says ---- */

static struct asked *find_asked(const struct talk *talk, unsigned id)
{
    for (unsigned i = 0; i < talk->n_asked; i++)
        if (talk->asked[i]->id == id)
            return talk->asked[i];
    return NULL;
}

const struct told *application_told(const struct talk *talk, uint16_t id)
{
    for (unsigned i = 0; i < talk->n_told; i++)
        if (talk->told[i]->id == id)
            return talk->told[i];
    return NULL;
}

unsigned application_n_open(const struct talk *talk)
{
    unsigned n = 0;

    for (unsigned i = 0; i < talk->n_asked; i++) {
        const struct told *told = application_told(talk, talk->asked[i]->id);
        n += told == NULL || !told->is_ended;
    }
    return n;
}

static void hear_begin(struct talk *talk, unsigned id, struct span content)
{
    struct asked *asked = memory_zeroed(1, sizeof *asked);

    require(!talk->is_question && id != 0 && find_asked(talk, id) == NULL);
    require(content.len == 8 && (content.at[2] & ~1) == 0 &&
            span_is(span_from(content, 3), (struct span){"\0\0\0\0\0", 5}));
    require(application_n_open(talk) < (talk->play->has_offered && talk->play->config.multiplex ? FASTCGI_LANES : 1));
    asked->id = (uint16_t)id;
    asked->role = (uint16_t)get16(content.at);
    asked->is_kept = content.at[2] != 0;
    require(asked->role >= RECORD_RESPONDER && asked->role <= RECORD_FILTER);
    talk->asked = memory_resize(talk->asked, (talk->n_asked + 1) * sizeof *talk->asked);
    talk->asked[talk->n_asked++] = asked;
}

/* The first variable says which run it is. */
static void identify(struct talk *talk, struct asked *asked, struct span number)
{
    unsigned n = 0;

    require(number.len > 0 && number.len < 4);
    for (size_t i = 0; i < number.len; i++)
        n = n * 10 + (unsigned)(number.at[i] - '0');
    require(n < talk->play->n_parts);
    struct part *part = talk->play->parts[n];
    require((unsigned)asked->role == (unsigned)part->request.role + 1 && asked->is_kept);
    part->n_begun++;
    asked->part = part;
    part->talk = talk;
    part->asked = asked;
}

/* Of a process that is to be proven. It is alone on its connection. */
static bool hear_health(struct talk *talk, const struct asked *asked, struct span name, struct span value)
{
    bool is_first = span_is(name, SPAN("SCRIPT_NAME"));

    if (!talk->is_health && !is_first)
        return false;
    require(talk->play->config.health.path != NULL && talk->n_asked == 1);
    require(asked->role == RECORD_RESPONDER && !asked->is_kept);
    require(is_first != talk->is_health && (!is_first || span_is(value, SPAN("/ping"))));
    talk->is_health = true;
    return true;
}

static void hear_pair(struct talk *talk, struct asked *asked, struct span name, struct span value)
{
    struct span expected_name, expected_value;
    bool is_sent_out = false;

    if (asked->n_pairs == 0 && hear_health(talk, asked, name, value))
        return;
    if (asked->n_pairs == 0) {
        require(span_is(name, SPAN("RUN_NUMBER")));
        identify(talk, asked, value);
    }
    while (!is_sent_out)
        require(gateway_variable(asked->part, asked->n_pairs++, &expected_name, &expected_value, &is_sent_out));
    require(span_is(name, expected_name) && span_is(value, expected_value));
}

/* No pair goes on in the next record. */
static void hear_params(struct talk *talk, struct asked *asked, struct span content)
{
    struct span name, value;
    bool is_sent_out = false;
    int result;

    require(asked->stage == IN_PARAMS);
    if (content.len > 0) {
        while ((result = record_pair(&content, &name, &value)) > 0)
            hear_pair(talk, asked, name, value);
        require(result == 0);
        return;
    }
    require(asked->part != NULL || talk->is_health);
    while (!talk->is_health && gateway_variable(asked->part, asked->n_pairs++, &name, &value, &is_sent_out))
        require(!is_sent_out);
    asked->stage = IN_STDIN;
}

static void hear_stdin(struct asked *asked, struct span content)
{
    struct part *part = asked->part;

    require(asked->stage == IN_STDIN);
    if (part == NULL) {
        require(content.len == 0);
        asked->stage = ASKED_ALL;
        return;
    }
    require(pattern_is(content, part->number, asked->n_stdin));
    asked->n_stdin += content.len;
    require(asked->n_stdin <= part->n_fed);
    if (content.len > 0)
        return;
    require(part->is.fed && asked->n_stdin == part->n_fed);
    asked->stage = asked->role == RECORD_FILTER ? IN_DATA : ASKED_ALL;
}

static void hear_data(struct asked *asked, struct span content)
{
    require(asked->stage == IN_DATA);
    require(pattern_is(content, STREAM_DATA, asked->n_data));
    asked->n_data += content.len;
    require(asked->n_data <= asked->part->data_length);
    if (content.len > 0)
        return;
    require(asked->n_data == asked->part->data_length);
    asked->stage = ASKED_ALL;
}

static void hear_stream(struct talk *talk, uint8_t type, unsigned id, struct span content)
{
    struct asked *asked = find_asked(talk, id);

    require(asked != NULL && !asked->is_aborted);
    if (type == RECORD_PARAMS) {
        hear_params(talk, asked, content);
    } else if (type == RECORD_STDIN) {
        hear_stdin(asked, content);
    } else if (type == RECORD_DATA) {
        hear_data(asked, content);
    } else {
        require(type == RECORD_ABORT_REQUEST && content.len == 0);
        require(asked->stage != IN_PARAMS && asked->part->is.stopped);
        asked->is_aborted = true;
    }
}

static void hear_question(struct talk *talk, unsigned id, struct span content)
{
    struct span name, value;
    struct buffer answer = {0};
    int result;

    require(id == 0 && talk->n_asked == 0 && !talk->is_question);
    require(talk->play->config.multiplex || talk->play->is_managed); /* one that is to be proven is asked, too */
    talk->is_question = true;
    while ((result = record_pair(&content, &name, &value)) > 0)
        require(value.len == 0 && span_starts(name, SPAN("FCGI_M")));
    require(result == 0);
    if (talk->play->offer == 0)
        return;
    buffer_printf(&answer, "%c%c%c%c%c%c%c%c%c%cFCGI_MPXS_CONNS1%c%cFCGI_MAX_REQS%03u", 1, RECORD_GET_VALUES_RESULT, 0,
                  0, 0, 36, 0, 0, 15, 1, 13, 3, talk->play->offer);
    application_say(talk, buffer_span(&answer), 0);
    buffer_free(&answer);
}

static void hear_record(struct talk *talk, const uint8_t *header, struct span content)
{
    uint8_t type = header[1];
    unsigned id = get16(header + 2);

    require(header[0] == 1 && header[7] == 0 && (content.len + header[6]) % 8 == 0);
    if (type == RECORD_BEGIN_REQUEST)
        hear_begin(talk, id, content);
    else if (type == RECORD_GET_VALUES)
        hear_question(talk, id, content);
    else
        hear_stream(talk, type, id, content);
}

static void hear(struct talk *talk)
{
    while (buffer_len(&talk->heard) >= HEADER) {
        const uint8_t *header = (const uint8_t *)buffer_at(&talk->heard);
        size_t len = get16(header + 4);

        if (buffer_len(&talk->heard) < HEADER + len + header[6])
            return;
        hear_record(talk, header, (struct span){(const char *)header + HEADER, len});
        buffer_consume(&talk->heard, HEADER + len + header[6]);
    }
}

/* ---- what it says ---- */

static struct told *told_of(struct talk *talk, uint16_t id)
{
    for (unsigned i = 0; i < talk->n_told; i++)
        if (talk->told[i]->id == id)
            return talk->told[i];
    talk->told = memory_resize(talk->told, (talk->n_told + 1) * sizeof *talk->told);
    struct told *told = talk->told[talk->n_told++] = memory_zeroed(1, sizeof *told);
    told->id = id;
    return told;
}

static bool is_stream(uint8_t type)
{
    return type >= RECORD_PARAMS && type <= RECORD_DATA;
}

static void understand_end(struct told *told, const uint8_t *header)
{
    told->is_ended = true;
    told->app_status = get16(header + HEADER) << 16 | get16(header + HEADER + 2);
}

/* Of a record that has not come whole, what there is of a stream counts; so much of it was counted before. */
static bool understand_record(struct talk *talk, size_t *n_counted)
{
    const uint8_t *header = (const uint8_t *)buffer_at(&talk->said);
    size_t len = get16(header + 4), there = buffer_len(&talk->said) - HEADER;
    uint8_t type = header[1];
    struct span piece = {(const char *)header + HEADER + *n_counted, (there < len ? there : len) - *n_counted};
    struct told *told = told_of(talk, (uint16_t)get16(header + 2));

    talk->is_nonsense =
        header[0] != 1 || (type == RECORD_END_REQUEST && len != 8) || (!is_stream(type) && len > MOST_NOT_STREAM);
    if (talk->is_nonsense)
        return false;
    if (!told->is_ended && type == RECORD_STDOUT)
        buffer_append_span(&told->output, piece);
    if (!told->is_ended && type == RECORD_STDERR)
        buffer_append_span(&told->errors, piece);
    *n_counted += piece.len;
    if (there < len + header[6])
        return false;
    if (!told->is_ended && type == RECORD_END_REQUEST)
        understand_end(told, header);
    talk->play->has_offered |= type == RECORD_GET_VALUES_RESULT; /* it may answer before it has read */
    buffer_consume(&talk->said, HEADER + len + header[6]);
    *n_counted = 0;
    return true;
}

/* What was sent, from the front of to_say. */
static void understand(struct talk *talk, size_t n)
{
    buffer_append(&talk->said, buffer_at(&talk->to_say), n);
    while (!talk->is_nonsense && buffer_len(&talk->said) >= HEADER && understand_record(talk, &talk->n_counted))
        ;
}

static bool speak(struct talk *talk)
{
    bool has_moved = false;

    while (talk->n_released > 0 && talk->fd >= 0 && !talk->is_shut) {
        ssize_t n = send(talk->fd, buffer_at(&talk->to_say), talk->n_released, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            buffer_clear(&talk->to_say);
            talk->n_released = 0;
            break;
        }
        has_moved = true;
        understand(talk, (size_t)n);
        buffer_consume(&talk->to_say, (size_t)n);
        talk->n_released -= (size_t)n;
    }
    return has_moved;
}

void application_say(struct talk *talk, struct span bytes, size_t n)
{
    if (buffer_len(&talk->to_say) + bytes.len > MOST_TO_SAY)
        return;
    buffer_append_span(&talk->to_say, bytes);
    talk->n_released =
        n == 0 || talk->n_released + n > buffer_len(&talk->to_say) ? buffer_len(&talk->to_say) : talk->n_released + n;
    speak(talk);
}

/* Its content tells whose it is, and where it belongs. */
void application_say_record(struct talk *talk, uint8_t type, uint16_t id, size_t len, uint8_t padding, size_t n)
{
    static char bytes[HEADER + 65535 + 255];
    const struct told *told = application_told(talk, id);
    size_t from = told != NULL ? buffer_len(&told->output) : 0;

    memset(bytes, 0, HEADER + len + padding);
    bytes[0] = 1;
    bytes[1] = (char)type;
    bytes[2] = (char)(id >> 8);
    bytes[3] = (char)id;
    bytes[4] = (char)(len >> 8);
    bytes[5] = (char)len;
    bytes[6] = (char)padding;
    if (is_stream(type))
        pattern_write(bytes + HEADER, len, STREAM_SAID + talk->place + id * PLACES, from);
    application_say(talk, (struct span){bytes, HEADER + len + padding}, n);
}

/* ---- connections ---- */

static bool listen_to(struct talk *talk)
{
    ssize_t n = 1;
    bool has_moved = false;

    while (n > 0 && talk->fd >= 0 && !talk->has_ended) {
        n = recv(talk->fd, buffer_reserve(&talk->heard, 65536), 65536, 0);
        require(n >= 0 || errno == EAGAIN || errno == ECONNRESET);
        talk->has_ended = n == 0 || (n < 0 && errno == ECONNRESET);
        if (n <= 0)
            return has_moved || talk->has_ended;
        buffer_added(&talk->heard, (size_t)n);
        has_moved = true;
        hear(talk);
    }
    return has_moved;
}

static bool accept_from(struct play *play, unsigned place)
{
    bool is_there = listeners[place] >= 0 && (!play->is_managed || keeper_has_process(play, place));
    int fd = is_there ? accept4(listeners[place], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;

    if (fd < 0)
        return false;
    if (play->n_talks == MAX_TALKS) {
        close(fd);
        return true;
    }
    struct talk *talk = play->talks[play->n_talks++] = memory_zeroed(1, sizeof *talk);
    talk->play = play;
    talk->place = place;
    talk->fd = fd;
    return true;
}

bool application_turn(struct play *play)
{
    bool has_moved = false;

    for (unsigned i = 0; i < PLACES && !play->is_lazy; i++)
        while (accept_from(play, i))
            has_moved = true;
    for (unsigned i = 0; i < play->n_talks; i++) {
        if (!play->is_lazy)
            has_moved |= listen_to(play->talks[i]);
        has_moved |= speak(play->talks[i]);
    }
    return has_moved;
}

struct talk *application_talk(const struct play *play, uint8_t number)
{
    struct talk *open[MAX_TALKS];
    unsigned n = 0;

    for (int is_second = 0; is_second < 2; is_second++)
        for (unsigned i = play->n_talks; i-- > 0;)
            if (play->talks[i]->fd >= 0 && play->talks[i]->has_ended == is_second)
                open[n++] = play->talks[i];
    return n > 0 ? open[number % n] : NULL;
}

/* Of the requests that are open, the first is 0; from 0xf0 on, an id as it is: 0, 1, ... */
uint16_t application_id(const struct talk *talk, uint8_t number)
{
    uint16_t ids[256];
    unsigned n = 0;

    for (unsigned i = 0; i < talk->n_asked && n < 256; i++) {
        const struct told *told = application_told(talk, talk->asked[i]->id);
        if (told == NULL || !told->is_ended)
            ids[n++] = talk->asked[i]->id;
    }
    if (number >= 0xf0)
        return number == 0xff ? UINT16_MAX : number & 0xf;
    return n > 0 ? ids[number % n] : 1;
}

void application_shut(struct talk *talk)
{
    talk->is_shut = true;
    shutdown(talk->fd, SHUT_WR);
}

/* It has read what there is: else the account would end too early. */
void application_close(struct talk *talk)
{
    listen_to(talk);
    close(talk->fd);
    talk->fd = -1;
}

void application_close_all(struct play *play, unsigned place)
{
    for (unsigned i = 0; i < play->n_talks; i++)
        if (play->talks[i]->fd >= 0 && play->talks[i]->place == place)
            application_close(play->talks[i]);
}

/* Who was not accepted yet. */
static void turn_away(unsigned place)
{
    int fd;

    while ((fd = accept4(listeners[place], NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

static void free_talk(struct talk *talk)
{
    if (talk->fd >= 0)
        close(talk->fd);
    for (unsigned i = 0; i < talk->n_asked; i++)
        free(talk->asked[i]);
    for (unsigned i = 0; i < talk->n_told; i++) {
        buffer_free(&talk->told[i]->output);
        buffer_free(&talk->told[i]->errors);
        free(talk->told[i]);
    }
    free(talk->asked);
    free(talk->told);
    buffer_free(&talk->heard);
    buffer_free(&talk->to_say);
    buffer_free(&talk->said);
    free(talk);
}

void application_free(struct play *play)
{
    for (unsigned i = 0; i < play->n_talks; i++)
        free_talk(play->talks[i]);
    play->n_talks = 0;
    for (unsigned i = 0; i < PLACES; i++)
        if (listeners[i] >= 0)
            turn_away(i);
}
