/* The request's body on its way to the program. Each function is of an open passage, unless it
 * says otherwise. */
#ifndef GATEHOUSE_GATEWAY_INPUT_H
#define GATEHOUSE_GATEWAY_INPUT_H

#include "gateway/passage.h"

/* The passage is made: opens its run, now or when as much of the body is here as request_buffering demands. */
void input_begin(struct passage *p);

/* A piece has come; what handler.body returns. */
bool input_take(struct passage *p, struct span bytes, bool last);

/* The body has paused while it was held. */
void input_pause(struct passage *p);

/* The run's turn has come. */
void input_granted(struct passage *p);

/* It has room again; the passage may be answered. */
void input_drained(struct passage *p);

/* What is still to come of the body is nobody's: the program's input ends here, or behind what is held if that is the
 * rest. Harmless when it has ended. */
void input_end(struct passage *p);

/* Has the run taken all that has come, and waits for more of the body? */
bool input_is_awaited(const struct passage *p);

/* The run takes no more: gives up what is held. Of any passage, as is the last. */
void input_drop(struct passage *p);
void input_free(struct passage *p);

#endif
