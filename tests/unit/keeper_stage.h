/*
 * The keeper's pools as tests have them: with a configuration from text, a clock that stands still until it is told to
 * go on, real programs that sleep, and fronts that are the test itself. Include behind cmocka.h.
 */
#ifndef GATEHOUSE_TESTS_KEEPER_STAGE_H
#define GATEHOUSE_TESTS_KEEPER_STAGE_H

#include "process/pools_inside.h"

enum { STAGE_MESSAGES = 512, STAGE_CONFIGS = 8 };

/* What the keeper has said to a front, in order. */
struct said {
    unsigned front;
    struct message message;
};

struct stage {
    char folder[64]; /* with x.sh, which runs until its input ends, forbidden.sh, and app.sh, which sleeps */
    struct pools_options options;
    struct pools *pools;
    struct wards *wards;
    struct config *configs[STAGE_CONFIGS];
    unsigned n_configs;
    struct said said[STAGE_MESSAGES];
    unsigned n_said;
    unsigned n_proven; /* how often that was told */
    char why[700];     /* ... and what, the last time; empty: they are */
};

/* What is due happens, in steps of 5 ms. */
void stage_wait(struct stage *stage, unsigned ms);

/* One from text, relative to the folder. Freed with the stage. */
const struct config *stage_config(struct stage *stage, const char *text);

/* It is bound, the fronts given come, and it holds. */
struct binding stage_take(struct stage *stage, const char *text, unsigned first, unsigned n_fronts);

struct pool *stage_pool(const struct stage *stage, const struct binding *binding, const char *name);

/* How often that was said since `from`; the last of them in *last_out (may be NULL). front -1: to any. */
unsigned stage_count(const struct stage *stage, unsigned from, int front, enum message_kind kind,
                     struct message *last_out);

int stage_tell(struct stage *stage, unsigned front, struct message message);

/* Of a process on loan. */
void stage_tell_of(struct stage *stage, const struct process *process, enum message_kind kind, unsigned n);

/* The n-th of the state; NULL: there are fewer. */
struct process *stage_process(const struct pool *pool, enum process_state state, unsigned n);

unsigned stage_n(const struct pool *pool, enum process_state state);

/* What the front that has it writes on the scoreboard: it has a request, or has answered it. */
void stage_use(const struct process *process, bool is_over);

/* Waits for one that is ending, or ends it; the keeper is told that it ended so. */
void stage_reap(struct stage *stage, pid_t pid, bool is_ending, int told_status);

/* All that are ending. How many there were. */
unsigned stage_reap_ending(struct stage *stage, struct pool *pool);

int stage_begin(void **state);

/* Whatever runs is killed. The folder must be empty then but for what was written: every socket is removed. */
int stage_end(void **state);

#endif
