/*
 * What the scoreboard shows of a process of ours: the second part of struct scoreboard_process, which the front writes
 * that has it on loan. Of a server's connection nothing is shown but who waits for it.
 */
#ifndef GATEHOUSE_FASTCGI_TELL_H
#define GATEHOUSE_FASTCGI_TELL_H

#include "fastcgi/inside.h"

/* Its peer is made, with index and pid. */
void tell_lent(struct peer *peer);

/* It is about to have one: before it is connected to, so that the keeper knows of who waits behind its door. */
void tell_coming(struct peer *peer);

/* It has one more request, granted just now; its connection stands; it has answered one, which still has its place.
 * tell_answered() returns the processor time that the request took, UINT64_MAX where that cannot be told. */
void tell_given(struct peer *peer, struct fastcgi_run *run);
void tell_connected(struct fastcgi_run *run);
uint64_t tell_answered(struct peer *peer, struct fastcgi_run *run);

/* How many it has now, those that were given up among them. */
void tell_count(struct peer *peer);

/* The run is not with it any more. */
void tell_taken(struct peer *peer, struct fastcgi_run *run);

#endif
