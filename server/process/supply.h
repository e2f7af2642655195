/* How many processes a pool has, and whether those of new settings serve. Of the keeper's pools, and nobody else. */
#ifndef GATEHOUSE_PROCESS_SUPPLY_H
#define GATEHOUSE_PROCESS_SUPPLY_H

#include "process/pools_inside.h"

/* ---- supply.c: how many there are ---- */

void supply_prepare(struct pool *pool);
void supply_finish(struct pool *pool);
void supply_decide(struct pool *pool);                    /* starts and retires what the policy wants */
void supply_start_one(struct pool *pool);                 /* whatever the policy says */
void supply_start_as_before(struct pool *pool);           /* as many as the pool has whose place it takes */
void supply_failed(struct pool *pool, const char *cause); /* one more has failed */
void supply_try_soon(struct pool *pool);
void supply_spend(struct process *process, enum scoreboard_end cause); /* another is to take its place */
void supply_answered(struct process *process);                         /* for the first time */
void supply_measure(struct process *process);                          /* its memory */

/* ---- proof.c ---- */
void proof_told(struct pool *pool, uint32_t id, const char *why); /* of a process; why NULL: it serves */
void proof_failed(struct pool *pool, const char *why);            /* harmless where none is wanted */
bool proof_try_again(struct pool *pool); /* somebody has killed the process: false, it was not to be proven */
void proof_finish(struct pool *pool);

#endif
