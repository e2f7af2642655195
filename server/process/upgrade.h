/*
 * USR2: another server, of the program as it is on disk now, takes this one's place on the same sockets.
 *
 *     this server               the heir, its child
 *     forks and executes -----> reads the configuration, takes over the listening sockets, starts its fronts and
 *                               processes, and has them prove themselves, as after HUP
 *     drains       <----------- "ready", and accepts
 *     (goes on     <----------- ends, if anything of that has failed)
 *
 * Whoever has started the first server, a service manager or a container, knows it by its pid and waits for its exit.
 * So the first does not exit when it has drained: it stays, as the stem, and does nothing but pass on signals to the
 * server that is in charge, and exit as that does. The stem holds one end of a socket, the line, which all heirs have:
 * on it each says that it is in charge now; and when the stem is killed, its end tells them, who go with it.
 */
#ifndef GATEHOUSE_PROCESS_UPGRADE_H
#define GATEHOUSE_PROCESS_UPGRADE_H

#include <event2/event.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct keeper;

struct upgrade {
    char path[PATH_MAX];        /* of this program, as it was started */
    int line_fd;                /* an heir's: to the stem; else -1 */
    int ready_fd;               /* an heir's, until it has said so: to who has started it; else -1 */
    int stem_fd;                /* the stem's end of the line; -1: there is none */
    pid_t heir;                 /* 0: none */
    pid_t in_charge;            /* of those after this one; 0: nobody */
    struct event *line, *ready; /* NULL: none */
    bool is_handed_over;
    bool has_ended; /* the one in charge, while this one drained */
    int end_status; /* then its exit status */
    bool is_wanted; /* when the reload that is under way is through */
};

/* First thing: takes what the server before has left in the environment. */
void upgrade_prepare(struct upgrade *upgrade);

/* Watches the line, if this is an heir. */
void upgrade_watch(struct keeper *keeper);
void upgrade_finish(struct keeper *keeper);

/* Was this server started by another, which waits for it? */
bool upgrade_is_heir(const struct upgrade *upgrade);

/* USR2. */
void upgrade_begin(struct keeper *keeper);

/* This server is to end: so is an heir that is not in charge yet. */
void upgrade_cancel(const struct upgrade *upgrade);

/* An heir is ready: it is in charge from now on. */
void upgrade_take_charge(struct keeper *keeper);

/* Are the listening sockets another server's, too? */
bool upgrade_shares_sockets(const struct upgrade *upgrade);

/* A child has been waited for: was it the one in charge? */
bool upgrade_reaped(struct upgrade *upgrade, pid_t pid, int status);

/* A signal for whoever is in charge: true, it was passed on; false, it is for this server. */
bool upgrade_pass_on(struct upgrade *upgrade, int number);

/* Before this server's handlers of signals are taken away: keeps those that come for upgrade_stay(). */
void upgrade_hold_signals(const struct upgrade *upgrade);

/* This server has ended. As the stem, returns when the one in charge has ended, and its exit status; else the status
 * that is given. */
int upgrade_stay(struct upgrade *upgrade, int status);

#endif
