/* A front: composes HTTP, the site's files, and the gateways on one event loop. */
#ifndef GATEHOUSE_FRONT_H
#define GATEHOUSE_FRONT_H

#include "process/keeper.h"

/* Runs until the keeper lets it end. Returns the process's exit status. */
int front_run(const struct front_start *start);

#endif
