/*
 * The records of one request, decoded, a line each, for the error log when the request has failed. Of a long
 * conversation the first and the last lines are kept.
 */
#ifndef GATEHOUSE_FASTCGI_TRACE_H
#define GATEHOUSE_FASTCGI_TRACE_H

#include "fastcgi/record.h"

struct trace;

struct trace *trace_create(void);
void trace_destroy(struct trace *trace); /* NULL is harmless */

/* Whole records that were sent. NULL is harmless, here and below. */
void trace_sent(struct trace *trace, struct span records);

/* A record that came, or a piece of one. */
void trace_received(struct trace *trace, const struct record_event *event);

/* Writes all lines to the error log, each with the request's id; once. */
void trace_tell(struct trace *trace, struct span id);

#endif
