/*
 * What the keeper and a front say to each other: one struct for every message, and its form on the wire. Pure.
 *
 * The keeper must take a front for hostile (it parses what strangers send), so message_decode() accepts nothing but a
 * well-formed message of a known kind; what its numbers refer to, the receiver checks.
 *
 * A message is one packet of a SOCK_SEQPACKET socket: a fixed part of 56 bytes, then the text. Descriptors travel
 * beside it. Both ends are the same program on the same machine, so numbers are in the machine's own order.
 */
#ifndef GATEHOUSE_PROCESS_MESSAGE_H
#define GATEHOUSE_PROCESS_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

enum {
    MESSAGE_MAX_TEXT = 4096,
    MESSAGE_MAX_FDS = 4,
};

/*
 * `pool` is the number of a pool of slots: see pools.h. A slot is the right to have one request served: a process of
 * a FastCGI pool, or one of a CGI route's `max_running`.
 */
enum message_kind {
    /* from a front */
    MESSAGE_WANT = 1, /* n requests of mine wait for a slot of the pool; 0: none any more */
    MESSAGE_RETURN,   /* n slots back, of which `status` had been recalled; with id: that process, fit to serve others
                         unless it is to be retired */
    MESSAGE_RUN,      /* start the CGI program `text` of the pool's route as run `id`.
                         fds: standard input, output, error, and a file with the environment block */
    MESSAGE_END,      /* run or process `id`: TERM to its group, KILL later. A process is no longer on loan then, and
                         settles `status` slots that had been recalled */
    MESSAGE_OPEN,     /* is there a pool for script `text` of route `pool`? Answered with OPENED, `id` returned */
    MESSAGE_SPARE,    /* fewer of the pool's processes are idle than there ought to be */
    MESSAGE_READY,    /* process `id` has answered for the first time */
    MESSAGE_SPENT,    /* process `id` was given as many requests as `soft` of its loan says: replace it */
    MESSAGE_USED,     /* process `id` is idle and was used lately: has it grown too large? */
    MESSAGE_ASK,      /* process `id` has closed its connection: does it live? Answered with LIVES, or GONE */
    MESSAGE_PROVEN,   /* process `id`, which was to be proven, serves (n = 1), or does not, because `text` */
    MESSAGE_UP,       /* the front is ready to accept connections */
    MESSAGE_SLOW,     /* the request that process `id` serves is slow: `text` tells of it; id 0: a server's */

    /* from the keeper */
    MESSAGE_LOAN,    /* n slots; or the process `id` with its `pid`, listening on the socket `text`; fd: what it writes
                        to its descriptor 2; n: its place on the scoreboard; status: enum loan_status */
    MESSAGE_RECALL,  /* n slots are wanted back, as soon as they are free */
    MESSAGE_GONE,    /* process `id`, on loan until now, has ended with wait `status`. Answered with RETURN when that
                        settles a slot that had been recalled: the front alone counts */
    MESSAGE_LIVES,   /* process `id` has not ended, nor is it about to */
    MESSAGE_RETIRE,  /* process `id` gets no more requests, and is to be returned when it is free */
    MESSAGE_DOWN,    /* nothing can be started in this pool for now, because `text` */
    MESSAGE_STARTED, /* run `id` is process `pid` */
    MESSAGE_REFUSED, /* run `id` was not started: `status` is the errno, `text` the cause; n: there is no such script,
                        or it may not be had; else starting it failed. For OPEN likewise */
    MESSAGE_EXITED,  /* run `id` has ended with wait `status`, after `cpu_us`, `max_rss_kib`; `text`: how, in words */
    MESSAGE_OPENED,  /* the answer to OPEN, under the route's number: the script's pool is number n */
    MESSAGE_ACCEPT,  /* accept connections from now on */
    MESSAGE_ALONE,   /* n: 1, there is no other front; 0, there is one */
    MESSAGE_DRAIN,   /* accept no more, finish what is under way, exit; n: enum drain */
    MESSAGE_LOGS,    /* new logs. fds: access log (if it is on), error log */
    N_MESSAGES,
};

/* What a front has to do with a process that it gets on loan. */
enum loan_status {
    LOAN_READY,  /* has answered before */
    LOAN_NEW,    /* READY is to be said when it has */
    LOAN_UNTRIED /* PROVEN is to be said, before it gets requests */
};

/* How a front drains. */
enum drain {
    DRAIN_ALL,   /* without a limit of time; connections that are idle are closed */
    DRAIN_SOON,  /* ... within drain_timeout */
    DRAIN_GENTLY /* ... but those that are idle may bring one more request: others serve on */
};

struct message {
    enum message_kind kind;
    uint32_t pool;
    uint32_t id;
    uint32_t n;
    int32_t pid;
    int32_t status;
    uint32_t soft, hard; /* LOAN: requests, in all, that the process is to have; 0: no limit */
    uint64_t cpu_us;
    uint64_t max_rss_kib;
    size_t text_len;
    char text[MESSAGE_MAX_TEXT]; /* NUL-terminated too, when decoded; no NUL within */
};

enum { MESSAGE_MAX_WIRE = 64 + MESSAGE_MAX_TEXT };

/* Writes the wire form to at most MESSAGE_MAX_WIRE bytes and returns its length. text_len < MESSAGE_MAX_TEXT. */
size_t message_encode(const struct message *message, unsigned char *wire);

/* Returns 0, or -EPROTO: the packet is no message, or does not come with the descriptors its kind must have. */
int message_decode(struct message *message_out, const unsigned char *wire, size_t len, unsigned n_fds);

#endif
