/*
 * What a client may be sent: a strict reader of the answers to one connection's requests, held against the service's
 * accounts of them. It aborts where they differ.
 */
#ifndef GATEHOUSE_FUZZ_ANSWERS_H
#define GATEHOUSE_FUZZ_ANSWERS_H

#include "service.h"

enum ending {
    ENDS_BY_SERVER, /* while the client could have sent more: an answer must have said so */
    ENDS_BY_CLIENT, /* the server would have gone on: no answer said otherwise */
    ENDS_ANYHOW,
};

/* Reads all that was received. Appends to `story` what any way of cutting the client's bytes must come to. */
void answers_check(const struct service *service, struct span received, enum ending ending, struct buffer *story);

/* Was the last request refused? Then the client is not to be hit while it still sends. */
bool answers_refuse(const struct service *service);

#endif
