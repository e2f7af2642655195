/* X-Sendfile: the response's body is a file that the program names. */
#ifndef GATEHOUSE_GATEWAY_SENDFILE_H
#define GATEHOUSE_GATEWAY_SENDFILE_H

#include "gateway/passage.h"

/* May the program do that? If not, the log has been told, and the response is to be what it is without the field. */
bool sendfile_is_allowed(const struct passage *p);

/*
 * Answers an open passage with the file of reply->sendfile and the reply's fields: our last word. What the program
 * still writes is thrown away. A file that is missing is 404, one that may not be given out 403; the log says which,
 * and why.
 */
void sendfile_answer(struct passage *p, const struct reply *reply);

#endif
