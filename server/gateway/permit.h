/*
 * What authorizers (FastCGI specification section 6.3) have granted one request: which of them were asked, and the
 * variables that they have set for whoever answers it. Pure. An authorizer's bytes are hostile.
 */
#ifndef GATEHOUSE_GATEWAY_PERMIT_H
#define GATEHOUSE_GATEWAY_PERMIT_H

#include "base/buffer.h"
#include "gateway/reply.h"
#include "site/route.h"

struct permit {
    struct route_passed passed;
    struct buffer variables; /* NAME NUL value NUL, one after another; of two with one name the later counts */
};

struct permit *permit_create(void);
void permit_destroy(struct permit *permit); /* NULL is harmless */

/* The authorizer of the route has answered 200: takes the fields "Variable-NAME: value" from its head. Those with names
 * that nobody may set (see metavars_is_grantable()) are left out; the first such is returned, else an empty span.
 * -ENOSPC in *error_out: more authorizers than a request may have. */
struct span permit_take(struct permit *permit, const struct config_route *route, const struct reply *reply,
                        int *error_out);

/* Takes one variable off the front of *variables; false at their end. */
bool permit_next(struct span *variables, struct span *name_out, struct span *value_out);

#endif
