/*
 * What a pool that balances by hash goes by: requests with the same number go to the same server. Pure.
 */
#ifndef GATEHOUSE_GATEWAY_AFFINITY_H
#define GATEHOUSE_GATEWAY_AFFINITY_H

#include <stdint.h>

#include "config.h"
#include "http/head.h"

/* Of the cookie that the pool names, or, if it names none or the request has no such, of the client's address. 0: the
 * pool (NULL: there is none) does not go by that. */
uint64_t affinity_of(const struct config_pool *pool, const struct head *head, struct span client);

/* The value of a cookie as it stands in the Cookie fields (RFC 6265 section 4.2.1), the first of that name; false:
 * there is none. */
bool affinity_cookie(const struct head *head, struct span name, struct span *value_out);

#endif
