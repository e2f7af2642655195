/*
 * The play of the FastCGI target: a pool, and around it all whom it deals with. The gateway opens runs, the keeper
 * lends slots and processes, the application accepts, listens and answers, and a clock stands still until it is told
 * to go on. Each plays its part as the input says, keeps an account, and holds what the pool does against it.
 */
#ifndef GATEHOUSE_FUZZ_PEER_PLAY_H
#define GATEHOUSE_FUZZ_PEER_PLAY_H

#include "base/buffer.h"
#include "fastcgi/inside.h"

/* Tells what does not hold, and aborts. Evaluated in every build. */
#define require(condition) ((condition) ? (void)0 : play_complain(__FILE__, __LINE__, #condition))
void play_complain(const char *file, int line, const char *condition) __attribute__((noreturn));

enum {
    PLACES = 5, /* where an application listens: paths, and at last a port */
    PORT_PLACE = 4,
    MAX_PARTS = 80,  /* runs */
    MAX_TALKS = 160, /* connections */
    MAX_PROCESSES = 4,
    NUMBER = 3, /* of the pool */
};

struct play {
    struct event_base *base;
    struct scoreboard *scoreboard;
    struct link *link;
    struct fastcgi_pool *pool;
    struct config_pool config;
    bool is_managed;
    bool is_port;     /* by TCP: what was sent may take its time */
    bool is_alone;    /* no other front */
    bool is_yielding; /* what nobody waits for goes back */
    bool is_narrow;   /* its sockets take little */
    bool is_lazy;     /* the application neither accepts nor reads, for now */
    bool has_offered; /* it has spoken of what it offers */
    uint8_t offer;    /* requests on a connection that it offers when it is asked; 0: it does not answer */
    bool is_closing;  /* the pool is being destroyed */
    struct part *parts[MAX_PARTS];
    unsigned n_parts;
    struct talk *talks[MAX_TALKS];
    unsigned n_talks;
    struct keeper *keeper;
};

/* ---- peer_clock.c ---- */

void clock_advance(uint64_t us);

/* ---- peer_gateway.c ---- */

/* A run as the gateway has it. It outlives the run, for the account. */
struct part {
    struct play *play;
    unsigned number;
    struct run_request request;
    struct run *run; /* NULL: over, or refused */
    uint8_t shape;   /* of its variables */
    uint8_t policy;  /* what it does within upcalls: see peer_gateway.c */
    struct {
        bool opening : 1, stopping : 1; /* the call is under way */
        bool granted : 1;
        bool stopped : 1;
        bool paused : 1;
        bool full : 1; /* the pool has said "enough" */
        bool fed : 1;  /* ... all of its input */
        bool promised : 1;
        bool ended : 1;
    } is;
    uint64_t n_fed;
    uint64_t data_length; /* that a filter gets: the file may be shorter than it was told */
    struct buffer output, errors;
    unsigned retries; /* before its first output */
    size_t n_while_paused;
    struct run_result result;
    struct talk *talk; /* where it was begun last, as far as the application has read */
    struct asked *asked;
    unsigned n_begun;
    uint16_t id; /* when its first output came */
};

enum { SHAPES = 4, LARGEST_FEED = 200000 };

void gateway_start(void);
void gateway_open(struct play *play, uint8_t what, uint8_t shape, uint8_t policy);
void gateway_feed(struct part *part, size_t len, bool last);
void gateway_pause(struct part *part);
void gateway_resume(struct part *part);
void gateway_stop(struct part *part, bool at_once);
void gateway_explain(struct part *part);
void gateway_tell_slow(struct part *part, size_t len);

/* The one of the number, among those that live, the last opened first. NULL: none does. */
struct part *gateway_part(const struct play *play, uint8_t number);

/* Its variables in order: false, when there is no such. *is_sent_out: it fits a record. */
bool gateway_variable(const struct part *part, unsigned n, struct span *name, struct span *value, bool *is_sent_out);

/*
 * Bytes that tell where they belong: each stream has its own, and each offset. A run's input is stream `number`, a file
 * is STREAM_DATA, what the application says begins with STREAM_SAID.
 */
enum { STREAM_DATA = MAX_PARTS, STREAM_SAID };

void pattern_write(char *at, size_t len, unsigned stream, uint64_t offset);
bool pattern_is(struct span bytes, unsigned stream, uint64_t offset);

void gateway_free(struct play *play);

/* ---- peer_application.c ---- */

/* A request, as the application has read it. */
struct asked {
    uint16_t id;
    uint16_t role;
    bool is_kept; /* the connection may be kept */
    enum { IN_PARAMS, IN_STDIN, IN_DATA, ASKED_ALL } stage;
    struct part *part; /* NULL until the first pair has told */
    unsigned n_pairs;
    uint64_t n_stdin, n_data;
    bool is_aborted;
};

/* What the application has said of a request, given or not. */
struct told {
    uint16_t id;
    bool is_ended;
    uint32_t app_status;
    struct buffer output, errors;
};

/* A connection, as the application has it. */
struct talk {
    struct play *play;
    unsigned place;
    int fd;           /* -1: closed by the application */
    bool has_ended;   /* the pool has closed its end */
    bool is_question; /* what does it offer? */
    bool is_health;   /* does it serve? */
    struct buffer heard;
    struct asked **asked;
    unsigned n_asked;
    struct buffer to_say;
    size_t n_released; /* bytes of it that may go */
    bool is_shut, is_nonsense;
    struct buffer said; /* and not understood yet */
    size_t n_counted;   /* of its first record */
    struct told **told;
    unsigned n_told;
};

/* It listens everywhere; narrow: with the least backlog. */
void application_start(bool is_narrow);
void application_remote(unsigned place, struct config_remote *remote);
const char *application_path(unsigned place);
void application_set_listening(unsigned place, bool is_listening);

/* Accepts, reads, sends; returns whether there was anything. */
bool application_turn(struct play *play);

/* The one of the number, among those open, the last first; then those whose other end is closed. NULL: none is. */
struct talk *application_talk(const struct play *play, uint8_t number);
uint16_t application_id(const struct talk *talk, uint8_t number);

/* Appends to what is to be said, and releases so many bytes of all of it; 0: the whole. */
void application_say(struct talk *talk, struct span bytes, size_t n);
void application_say_record(struct talk *talk, uint8_t type, uint16_t id, size_t len, uint8_t padding, size_t n);
void application_shut(struct talk *talk);
void application_close(struct talk *talk);

/* Every connection to that place. */
void application_close_all(struct play *play, unsigned place);

/* Requests that it has read, and has not said the end of. */
unsigned application_n_open(const struct talk *talk);
const struct told *application_told(const struct talk *talk, uint16_t id);
void application_free(struct play *play);

/* ---- peer_keeper.c ---- */

void keeper_start(struct play *play);
void keeper_lend(struct play *play, uint8_t what);
void keeper_recall(struct play *play, uint8_t n);
void keeper_bury(struct play *play, uint8_t what);
void keeper_retire(struct play *play, uint8_t which);
void keeper_tell_fates(struct play *play); /* of those that were asked for, which live */
void keeper_say_alone(struct play *play, bool is_alone);
void keeper_say_down(struct play *play);
void keeper_write_errors(struct play *play, uint8_t which, size_t len);

/* Reads what the pool has said; returns whether there was anything. */
bool keeper_turn(struct play *play);

/* Is there anybody at the place who accepts? One who has connected to a process that died waits for the next. */
bool keeper_has_process(const struct play *play, unsigned place);

/* Has a process ended otherwise than in good order? */
bool keeper_has_bad_ends(const struct play *play);

/* When nothing moves: its account is the pool's. */
void keeper_check(const struct play *play);
void keeper_free(struct play *play);

#endif
