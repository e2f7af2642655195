/* What the keeper's own files share, and nobody else. */
#ifndef GATEHOUSE_PROCESS_KEEPER_INSIDE_H
#define GATEHOUSE_PROCESS_KEEPER_INSIDE_H

#include <event2/event.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "process/channel.h"
#include "process/keeper.h"
#include "process/listen.h"
#include "process/upgrade.h"
#include "process/warden.h"

enum { DRAIN_MARGIN_MS = 2000 }; /* the fronts keep drain_timeout themselves; this is for one that is stuck */

enum keeper_state {
    KEEPER_RUNNING,
    KEEPER_DRAINING,
    KEEPER_ENDING,
};

/*
 * A configuration, and the fronts that have it:
 *
 *             all are up, its new pools are proven          another has become CURRENT      its last front gone
 *     COMING --------------------------------------> CURRENT --------------------------> OLD -------------------> freed
 *       | it cannot be had: its fronts are ended                                                                    ^
 *       +-----------------------------------------------------------------------------------------------------------+
 *
 * GONE is one without fronts whose configuration ending pools still speak of.
 */
enum generation_state { GENERATION_COMING, GENERATION_CURRENT, GENERATION_OLD, GENERATION_GONE };

struct generation {
    TAILQ_ENTRY(generation) next;
    enum generation_state state;
    unsigned number; /* 1 is the first */
    struct keeper *keeper;
    struct config *config;
    struct event *overdue; /* OLD: when its fronts should have ended by themselves */
    struct binding binding;
    int *listen_fds;
    int access_fd, error_fd;
    unsigned n_fronts; /* that are here */
    unsigned n_up;     /* COMING: of them, ready to accept */
    bool is_proven;
};

struct front {
    struct keeper *keeper;
    unsigned number;
    struct generation *of; /* NULL: this place is free */
    pid_t pid;             /* 0: not there */
    bool is_up;
    uint64_t started_us;
    unsigned failures; /* in a row: it died young */
    struct channel *channel;
    struct event *restart;
};

struct keeper {
    const struct keeper_options *options;
    enum keeper_state state;
    struct event_base *base;
    struct event *signals[7];
    struct event *deadline;
    struct scoreboard *scoreboard;
    struct wards *wards;
    struct cgroups *cgroups; /* NULL: no route has one */
    struct programs *programs;
    struct pools *pools;
    struct front fronts[SCOREBOARD_FRONTS];
    TAILQ_HEAD(, generation) generations;
    struct generation *current;
    struct generation *coming; /* NULL: none */
    struct event *coming_step; /* it may be ready, or has failed */
    struct event *coming_limit;
    char coming_failure[1024]; /* empty: none */
    bool wants_reload;         /* once more, when the present one is through */
    unsigned n_generations;
    struct listen_known not_taken; /* an heir's, until it is in charge: sockets that it has no address for */
    struct warden warden;
    struct upgrade upgrade;
    int status;
};

/* ---- fronts.c ---- */

/* Starts the generation's fronts: 0, or -errno after a message when there is no room for them. */
int fronts_start(struct keeper *keeper, struct generation *of);

/* Those that have come for the proof alone get their share of the other pools, too. */
void fronts_join(struct keeper *keeper, const struct generation *of);

/* Sends to all fronts of the generation. */
void fronts_tell(struct keeper *keeper, const struct generation *of, enum message_kind kind, unsigned n);

/* The generation's fronts drain: from now on they get nothing that they do not wait for. */
void fronts_drain(struct keeper *keeper, const struct generation *of, enum drain how);
void fronts_send_logs(struct keeper *keeper, const struct generation *of);
void fronts_kill(struct keeper *keeper, const struct generation *of); /* NULL: all */
unsigned fronts_here(const struct keeper *keeper);

/* For pools. */
void fronts_send(void *arg, unsigned number, const struct message *message, const int *fds, unsigned n_fds);

/* Has a child that was waited for been a front? */
bool fronts_reaped(struct keeper *keeper, pid_t pid, int status);

void fronts_prepare(struct keeper *keeper);
void fronts_finish(struct keeper *keeper);

/* ---- reload.c ---- */

/* The first generation: its configuration is taken over. NULL after a message. An heir's is COMING, until its fronts
 * are up and its processes proven. */
struct generation *reload_first(struct keeper *keeper, struct config *config);
void reload_prepare(struct keeper *keeper);
void reload_finish(struct keeper *keeper);

/* The addresses that `kept` (may be NULL) has not are listened on no more; its fronts, told to drain, close theirs. */
void reload_close_listeners(struct generation *of, const struct config_addresses *kept);

/* From now on the coming one's fronts have so long to be up. */
void reload_limit(struct keeper *keeper);

/* HUP. */
void reload_begin(struct keeper *keeper);

/* The coming one is given up, because. */
void reload_fail(struct keeper *keeper, const char *why);

/* A front of the coming generation is up, or new pools are proven (why NULL) or not. */
void reload_front_up(struct keeper *keeper, struct generation *of);
void reload_proven(void *arg, const char *why);

/* The last front of an old, or failed, generation is gone. */
void reload_end(struct keeper *keeper, struct generation *of);

/* ---- keeper.c ---- */

/* Opens both logs by their paths: 0, or -1 after a message. */
int keeper_open_logs(const struct config_server *server, int *access_fd, int *error_fd);
void keeper_drain(struct keeper *keeper, enum drain how);
void keeper_front_gone(struct keeper *keeper); /* when it is draining, that may have been the last */

#endif
