/*
 * A FastCGI pool and a hostile application: fastcgi/ as a whole, with real sockets. The input is a little program, two
 * bytes of circumstances and then what the gateway, the application and the keeper do, in turn (peer_play.h). What must
 * hold:
 *
 *   - A run gets exactly one `ended`, always last; no upcall comes from within its open or stop, none but `ended` after
 *     stop, and output only after its turn has come; "more follows" is kept.
 *   - What a run gets is what the application has said of it, and of no other, from the first byte on; of an answer
 *     that has come to its end, all of it. No run is tried again after its answer has begun.
 *   - What the pool sends is FastCGI to the letter: the run's variables, input and file, whole and in order, under an
 *     id that is not used twice, and no two requests on one connection if that was not offered.
 *   - When nothing moves, nothing that could move waits: no run while there is somebody to serve it, no input while
 *     the application reads, no output while nobody pauses. And the loop does come to rest.
 *   - The keeper's account of slots and processes is the pool's.
 *   - Memory is bounded; in the end every run has ended, and no descriptor, event or memory is left.
 *
 * An operation is a byte: its low six bits say which, see operations[]; with 64 everything goes on until nothing moves
 * any more, with 128 nothing moves, else the loop turns once. Its operands follow.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "peer_play.h"

enum circumstance {                 /* of the first byte */
                    IS_MANAGED = 1, /* processes on loan; else servers */
                    HAS_TRACE = 2,
                    MAY_MULTIPLEX = 4,
                    TWO_SERVERS = 8,
                    BY_PORT = 16,
                    IS_NARROW = 32, /* sockets and backlogs take little */
                    IS_ALONE = 64,
                    HAS_NO_NUMBER = 128, /* a script's pool, before the keeper has told */
};

enum {
    MAX_OPERATIONS = 400,
    NARROW_ROOM = 4096,
    QUEUE_TIMEOUT_MS = 10000,
    MAX_OUT = 600000,
    MAX_CONNECTIONS = 1000, /* more than the keeper lends */
    FAIL_TIMEOUT_MS = 1000,
    CONNECT_TIMEOUT_MS = 5000,
    START_TIMEOUT_MS = 2000,
};

struct program {
    const uint8_t *at;
    size_t left;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void play_complain(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: this must hold: %s\n", file, line, condition);
    abort();
}

/* ---- what must hold ---- */

static bool is_start_of(struct span part, struct span whole)
{
    return span_starts(whole, part);
}

/* Does what the run has got fit what was said there? */
static bool fits(const struct part *part, const struct told *told)
{
    struct span output = buffer_span(&part->output), errors = buffer_span(&part->errors);

    if (!is_start_of(output, buffer_span(&told->output)))
        return false;
    if (!part->play->is_managed && !is_start_of(errors, buffer_span(&told->errors)))
        return false;
    if (part->result.cause != RUN_COMPLETE || !part->is.ended)
        return true;
    return told->is_ended && output.len == buffer_len(&told->output) &&
           (part->play->is_managed || errors.len == buffer_len(&told->errors)) &&
           part->result.exit_code == (int)told->app_status;
}

/* Was it said where the run was begun? What was never read there may have been the beginning of any. */
static bool is_said(const struct part *part)
{
    const struct play *play = part->play;
    bool may_be_any = part->n_begun == 0 || play->is_port;

    for (unsigned i = 0; i < play->n_talks; i++) {
        const struct talk *talk = play->talks[i];
        const struct told *told = application_told(talk, part->id);
        bool is_its = may_be_any;

        for (unsigned j = 0; j < talk->n_asked; j++)
            is_its |= talk->asked[j]->part == part && talk->asked[j]->id == part->id;
        if (is_its && told != NULL && fits(part, told))
            return true;
    }
    return false;
}

static void check_end_of(const struct part *part)
{
    bool has_answer = buffer_len(&part->output) > 0 || part->result.cause == RUN_COMPLETE ||
                      (!part->play->is_managed && buffer_len(&part->errors) > 0);

    require(part->is.ended && part->run == NULL);
    require(!has_answer || is_said(part));
}

static bool is_any_paused(const struct play *play)
{
    for (unsigned i = 0; i < play->n_parts; i++)
        if (play->parts[i]->run != NULL && play->parts[i]->is.paused)
            return true;
    return false;
}

/* Has it connected to one that died before it accepted? */
static bool waits_for_next(const struct play *play, const struct peer *peer)
{
    const struct sockaddr_un *at = (const struct sockaddr_un *)&peer->address;

    for (unsigned i = 0; peer->is.gone && i < PORT_PLACE; i++)
        if (strcmp(at->sun_path, application_path(i)) == 0)
            return !keeper_has_process(play, i);
    return false;
}

/* The application has read all that it was sent: is it all that there is? */
static void check_sent(const struct part *part)
{
    const struct asked *asked = part->asked;
    const struct fastcgi_run *run = (const struct fastcgi_run *)part->run;

    require(buffer_len(&run->peer->out) == 0 && !part->is.full);
    require(asked != NULL && asked->id == run->id && asked->part == part);
    require(application_n_open(part->talk) == run->peer->n_runs + run->peer->n_orphans);
    if (run->peer->is.deaf || run->peer->state != PEER_BUSY)
        return;
    require(asked->n_stdin == part->n_fed && (asked->stage > IN_STDIN) == part->is.fed);
    require(asked->stage == ASKED_ALL || !part->is.fed);
}

static void check_given(const struct part *part)
{
    const struct told *told = application_told(part->talk, part->asked->id);

    require(part->talk->fd >= 0 && !part->talk->is_shut && !part->talk->is_nonsense);
    if (told == NULL) {
        require(buffer_len(&part->output) == 0);
        return;
    }
    require(!told->is_ended && span_is(buffer_span(&told->output), buffer_span(&part->output)));
    if (!part->play->is_managed)
        require(span_is(buffer_span(&told->errors), buffer_span(&part->errors)));
}

/* A process that is no more, or not yet, for requests. */
static void check_standing(const struct peer *peer)
{
    const struct fastcgi_run *doubted = peer->doubted;

    require(peer->is.untried ? peer->proof != NULL || peer->behind != 0 : peer->proof == NULL);
    require(!peer->is.untried || (peer->n_runs == 0 && !peer->is.idle));
    require(!(peer->is.retiring || peer->is.gone) || !peer->is.idle);
    require(doubted == NULL || (doubted->doubts == peer && doubted->peer == NULL && !doubted->entry.is_waiting));
    require(doubted == NULL || peer->is.asked);
    require(!peer->is.asked || (peer->n_runs == 0 && !peer->is.idle && !peer->is.gone && peer->id != 0));
}

static void check_peer(const struct peer *peer)
{
    const struct fastcgi_run *run;
    unsigned n = 0, n_holding = 0;

    TAILQ_FOREACH(run, &peer->runs, next)
    {
        n++;
        n_holding += run->is.holding;
        require(run->peer == peer && peer->fd >= 0);
        /* Nobody stands still for another before that one has had more than enough. */
        require(!run->is.holding || peer->n_runs == 1 || run->overrun > FASTCGI_OVERRUN);
    }
    require(peer->n_runs == n && peer->n_holding == n_holding && peer->depth == 0);
    require(peer->n_orphans <= FASTCGI_LANES && buffer_len(&peer->out) <= (n + peer->n_orphans + 1) * MAX_OUT);
    require((n > 0) == (peer->state == PEER_CONNECTING || peer->state == PEER_BUSY));
    require(!peer->is.idle || (peer->state == PEER_IDLE && !peer->is.tainted));
    check_standing(peer);
}

static void check_peers(const struct play *play)
{
    const struct peer *peer;

    TAILQ_FOREACH(peer, &play->pool->idle, next)
    check_peer(peer);
    TAILQ_FOREACH(peer, &play->pool->others, next)
    check_peer(peer);
}

/* After each turn. */
static void check_promises(const struct play *play)
{
    for (unsigned i = 0; i < play->n_parts; i++)
        require(!play->parts[i]->is.promised);
}

/* When nothing moves any more. */
static void check_rest(const struct play *play)
{
    const struct fastcgi_pool *pool = play->pool;
    bool is_paused = is_any_paused(play);

    keeper_check(play);
    check_peers(play);
    require(TAILQ_EMPTY(&pool->stopped));
    bool has_use = pool->queue.n > 0 || pool->n_owed > 0 || pool->is_yielding;
    require(!has_use || (TAILQ_EMPTY(&pool->idle) && pool->n_slots == 0));
    if (play->is_lazy || play->is_port)
        return;
    for (unsigned i = 0; i < play->n_parts; i++) {
        const struct part *part = play->parts[i];

        const struct peer *peer = part->run != NULL ? ((const struct fastcgi_run *)part->run)->peer : NULL;

        if (peer == NULL || peer->n_holding > 0 || waits_for_next(play, peer)) /* not read, it may have gone unseen */
            continue;
        check_sent(part);
        if (!is_paused)
            check_given(part);
    }
}

/* ---- the loop ---- */

static void narrow(const struct play *play)
{
    static const int room = NARROW_ROOM;
    const struct peer *peer;

    TAILQ_FOREACH(peer, &play->pool->others, next)
    if (peer->fd >= 0)
        setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
}

static void turn(struct play *play, int how)
{
    event_base_loop(play->base, how | EVLOOP_NONBLOCK);
    check_promises(play);
    if (play->is_narrow)
        narrow(play);
}

/* Who is lazy all the same answers none: so this comes to an end. */
static void settle(struct play *play)
{
    bool has_moved = true;

    while (has_moved) {
        turn(play, 0);
        has_moved = application_turn(play);
        has_moved |= keeper_turn(play);
    }
    check_rest(play);
}

static void turn_once(struct play *play)
{
    application_turn(play);
    keeper_turn(play);
    turn(play, EVLOOP_ONCE);
    check_peers(play);
}

/* ---- operations ---- */

static uint8_t next(struct program *program)
{
    if (program->left == 0)
        return 0;
    program->left--;
    return *program->at++;
}

static size_t next_length(uint8_t operand)
{
    static const size_t lengths[] = {0, 1, 7, 8, 100, 1000, 8192, 65535};

    return lengths[operand & 7];
}

/* OPEN: role and input, shape of the variables, policy; see peer_gateway.c. */
static void do_open(struct play *play, struct program *program)
{
    uint8_t what = next(program), shape = next(program);

    gateway_open(play, what, shape, next(program));
}

/* FEED: which run; how much, 8: three times as much, 128: the last. */
static void do_feed(struct play *play, struct program *program)
{
    struct part *part = gateway_part(play, next(program));
    uint8_t how = next(program);

    if (part != NULL)
        gateway_feed(part, next_length(how) * (how & 8 ? 3 : 1), (how & 128) != 0);
}

static void do_pause(struct play *play, struct program *program)
{
    struct part *part = gateway_part(play, next(program));

    if (part != NULL)
        gateway_pause(part);
}

static void do_resume(struct play *play, struct program *program)
{
    struct part *part = gateway_part(play, next(program));

    if (part != NULL)
        gateway_resume(part);
}

/* STOP: which run, 128: at once. */
static void do_stop(struct play *play, struct program *program)
{
    uint8_t which = next(program);
    struct part *part = gateway_part(play, which & 127);

    if (part != NULL)
        gateway_stop(part, (which & 128) != 0);
}

static void do_explain(struct play *play, struct program *program)
{
    struct part *part = gateway_part(play, next(program));

    if (part != NULL)
        gateway_explain(part);
}

/* BYTES: which connection, how many of all that is to be said go now (0: all), how many bytes, the bytes. */
static void do_bytes(struct play *play, struct program *program)
{
    struct talk *talk = application_talk(play, next(program));
    uint8_t n = next(program), len = next(program);
    size_t there = len < program->left ? len : program->left;

    if (talk != NULL)
        application_say(talk, (struct span){(const char *)program->at, there}, n);
    program->at += there;
    program->left -= there;
}

/* RECORD: which connection, type, id, length and (bits 4 to 7) how often once more, padding, how many bytes go now. */
static void do_record(struct play *play, struct program *program)
{
    struct talk *talk = application_talk(play, next(program));
    uint8_t type = next(program), id = next(program), how = next(program), padding = next(program), n = next(program);

    for (unsigned i = 0; talk != NULL && i <= how >> 4; i++)
        application_say_record(talk, type, application_id(talk, id), next_length(how), padding, n);
}

/* END: which connection, id, protocol status, appStatus, how many bytes go now. */
static void do_end(struct play *play, struct program *program)
{
    struct talk *talk = application_talk(play, next(program));
    uint8_t number = next(program), status = next(program), app_status = next(program), n = next(program);

    if (talk == NULL)
        return;
    uint16_t id = application_id(talk, number);
    char record[16] = {1, RECORD_END_REQUEST, (char)(id >> 8), (char)id, 0, 8, 0, 0, (char)app_status, 0,
                       0, (char)app_status,   (char)status};
    application_say(talk, (struct span){record, sizeof record}, n);
}

/* OFFER: what it answers from now on, when it is asked what it offers. */
static void do_offer(struct play *play, struct program *program)
{
    play->offer = next(program);
}

static void do_close(struct play *play, struct program *program)
{
    struct talk *talk = application_talk(play, next(program));

    if (talk != NULL)
        application_close(talk);
}

static void do_shut(struct play *play, struct program *program)
{
    struct talk *talk = application_talk(play, next(program));

    if (talk != NULL)
        application_shut(talk);
}

/* LISTEN: where, 128: again; else no more. */
static void do_listen(struct play *play, struct program *program)
{
    uint8_t what = next(program);

    (void)play;
    application_set_listening((what & 127) % PLACES, (what & 128) != 0);
}

static void do_nothing(struct play *play, struct program *program)
{
    (void)play, (void)program;
}

/* WAIT: time goes on, and the keeper answers. */
static void do_wait(struct play *play, struct program *program)
{
    static const uint64_t ms[] = {1, 199, 200, 999, 1000, 1500, 10000, 30000};

    clock_advance(ms[next(program) & 7] * 1000);
    keeper_tell_fates(play);
}

static void do_lend(struct play *play, struct program *program)
{
    uint8_t what = next(program);

    if (play->pool->number >= 0)
        keeper_lend(play, what);
}

static void do_recall(struct play *play, struct program *program)
{
    keeper_recall(play, next(program));
}

static void do_bury(struct play *play, struct program *program)
{
    keeper_bury(play, next(program));
}

/* DOWN: 0: the keeper says so, 1: whoever has the pool, 2: ... and that it may be tried again. */
static void do_down(struct play *play, struct program *program)
{
    uint8_t what = next(program);

    if (what == 1)
        fastcgi_pool_fail(play->pool, RUN_MISSING, "there is no such script");
    else if (what == 2)
        fastcgi_pool_revive(play->pool);
    else if (play->pool->number >= 0)
        keeper_say_down(play);
}

/* ERRORS: whose, how much. */
static void do_errors(struct play *play, struct program *program)
{
    uint8_t which = next(program);

    keeper_write_errors(play, which, next_length(next(program)));
}

/* LAZY: the application rests; or it does no more, and reads at once. */
static void do_lazy(struct play *play, struct program *program)
{
    (void)program;
    play->is_lazy = !play->is_lazy;
    application_turn(play);
}

static void do_number(struct play *play, struct program *program)
{
    (void)program;
    if (play->pool->number < 0)
        fastcgi_pool_number(play->pool, NUMBER);
}

static void do_retire(struct play *play, struct program *program)
{
    keeper_retire(play, next(program));
}

static void do_alone(struct play *play, struct program *program)
{
    keeper_say_alone(play, (next(program) & 1) != 0);
}

static void do_yield(struct play *play, struct program *program)
{
    (void)program;
    play->is_yielding = true;
    fastcgi_pool_yield(play->pool);
}

/* SLOW: which run, how long the line is. */
static void do_slow(struct play *play, struct program *program)
{
    struct part *part = gateway_part(play, next(program));
    uint8_t len = next(program);

    if (part != NULL)
        gateway_tell_slow(part, next_length(len));
}

/* SETTINGS, before anything else: bits 0-1 the process manager, bit 2 whether memory is limited, bits 3-4 how many are
 * to be spare, bit 5 whether a process is proven by a health request. */
static void do_settings(struct play *play, struct program *program)
{
    static char path[] = "/ping";
    uint8_t what = next(program);

    if (play->n_parts > 0 || play->pool->n_peers > 0)
        return;
    play->config.pm = (enum pm)((what & 3) % 3);
    play->config.max_memory = what & 4;
    play->config.min_spare_servers = what >> 3 & 3;
    play->config.health.path = what & 32 ? path : NULL;
}

typedef void operation(struct play *play, struct program *program);

static operation *const operations[] = {
    do_open,  do_feed,   do_pause, do_resume, do_stop,    do_explain, do_bytes, do_record, do_end,
    do_offer, do_close,  do_shut,  do_listen, do_nothing, do_wait,    do_lend,  do_recall, do_bury,
    do_down,  do_errors, do_lazy,  do_number, do_retire,  do_alone,   do_yield, do_slow,   do_settings,
};

static void perform(struct play *play, struct program *program)
{
    enum { N = sizeof operations / sizeof *operations };

    for (unsigned i = 0; i < MAX_OPERATIONS && program->left > 0; i++) {
        uint8_t which = next(program);

        operations[(which & 63) % N](play, program);
        if (which & 64)
            settle(play);
        else if ((which & 128) == 0)
            turn_once(play);
    }
}

/* ---- the play ---- */

static struct scoreboard *scoreboard;
static struct event_base *base;

/* What is there before and after. */
static void prepare(void)
{
    if (scoreboard == NULL) {
        scoreboard = scoreboard_create();
        base = event_base_new();
        log_set(-1);
        signal(SIGPIPE, SIG_IGN);
        gateway_start();
    }
    application_start(false);
}

static void start(struct play *play, uint8_t flags, uint8_t limits)
{
    static const unsigned queues[] = {1, 2, 5, 60};
    static struct config_remote servers[2];
    static char name[] = "pool";

    *play = (struct play){.base = base,
                          .scoreboard = scoreboard,
                          .is_managed = (flags & IS_MANAGED) != 0,
                          .is_port = (flags & BY_PORT) != 0 && (flags & IS_MANAGED) == 0,
                          .is_alone = (flags & IS_ALONE) != 0,
                          .is_narrow = (flags & IS_NARROW) != 0,
                          .offer = limits >> 2};
    play->config = (struct config_pool){.name = name,
                                        .kind = play->is_managed ? POOL_MANAGED : POOL_SERVERS,
                                        .queue = queues[limits & 3],
                                        .queue_timeout_ms = QUEUE_TIMEOUT_MS,
                                        .max_connections = MAX_CONNECTIONS,
                                        .max_fails = 3,
                                        .fail_timeout_ms = FAIL_TIMEOUT_MS,
                                        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                        .start_timeout_ms = START_TIMEOUT_MS,
                                        .multiplex = (flags & MAY_MULTIPLEX) != 0};
    application_start(play->is_narrow);
    application_remote(play->is_port ? PORT_PLACE : 0, &servers[0]);
    application_remote(1, &servers[1]);
    if (!play->is_managed)
        play->config.servers = (struct config_remotes){servers, flags & TWO_SERVERS ? 2 : 1};
    keeper_start(play);
    play->pool = fastcgi_pool_create(
        &(struct fastcgi_options){
            .base = base, .link = play->link, .scoreboard = scoreboard, .has_trace = (flags & HAS_TRACE) != 0},
        &play->config, flags & HAS_NO_NUMBER ? FASTCGI_NO_NUMBER : NUMBER);
}

/* The application reads what was still on its way. */
static void finish(struct play *play)
{
    play->is_closing = true;
    fastcgi_pool_destroy(play->pool);
    keeper_turn(play);
    play->is_lazy = false;
    application_turn(play);
    for (unsigned i = 0; i < play->n_parts; i++)
        check_end_of(play->parts[i]);
    keeper_free(play);
    require(event_base_get_num_events(play->base, EVENT_BASE_COUNT_ADDED | EVENT_BASE_COUNT_ACTIVE) == 0);
    application_free(play);
    gateway_free(play);
}

static unsigned count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned n = 0;

    require(folder != NULL);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program program = {data + 2, size - 2};
    struct play play;

    if (size < 2)
        return 0;
    prepare();
    unsigned n_descriptors = count_descriptors();
    start(&play, data[0], data[1]);
    perform(&play, &program);
    finish(&play);
    prepare();
    require(count_descriptors() == n_descriptors);
    return 0;
}
