/*
 * What the scoreboard shows of a passage: its request, what that waits for, and what becomes of it in the account of
 * its place.
 */
#ifndef GATEHOUSE_GATEWAY_SHOWN_H
#define GATEHOUSE_GATEWAY_SHOWN_H

#include "gateway/passage.h"

/* Behind fill_request(); the last is passage_free()'s. */
void shown_begin(struct passage *p);
void shown_end(struct passage *p);

void shown_waits(struct passage *p); /* from now on for its turn */
void shown_refused(struct passage *p, enum run_cause cause);
void shown_granted(struct passage *p);               /* p->granted_us is set */
void shown_answers(struct passage *p, uint64_t now); /* the head of its answer is here */
void shown_ended(struct passage *p, const struct run_result *result);
void shown_count(struct passage *p, enum account_event event);

#endif
