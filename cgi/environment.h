/*
 * The environment block of a CGI program: NAME=value NUL, one after another, in one buffer, as it is handed to the
 * keeper. Names are not checked, values lose nothing; an entry with a NUL in it is left out. Pure.
 */
#ifndef GATEHOUSE_CGI_ENVIRONMENT_H
#define GATEHOUSE_CGI_ENVIRONMENT_H

#include "base/buffer.h"

/* A metavars_emit: arg is the struct buffer to append to. */
void environment_add(void *arg, struct span name, struct span value);

#endif
