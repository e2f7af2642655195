/*
 * Several ranges of one file as multipart/byteranges (RFC 9110 section 14.6):
 *
 *     --BOUNDARY CR LF Content-Type: ... CR LF Content-Range: bytes 0-4/100 CR LF CR LF hello CR LF --BOUNDARY ...
 */
#ifndef GATEHOUSE_SITE_MULTIPART_H
#define GATEHOUSE_SITE_MULTIPART_H

#include "http/exchange.h"
#include "http/range.h"
#include "site/open_files.h"

/* Answers with the ranges, at least two, of a file of that type: fields that concern the whole have been added after
 * exchange_begin(), but not Content-Type. The last word; takes the file, which is released in the end. `type` lives as
 * long as the file. */
void multipart_serve(struct exchange *exchange, struct open_file *file, const char *type, const struct ranges *ranges);

#endif
