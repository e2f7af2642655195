/* The pages that the server itself writes. */
#ifndef GATEHOUSE_SITE_PAGES_H
#define GATEHOUSE_SITE_PAGES_H

#include "base/buffer.h"

/* Appends the body of an error page: HTML, a few lines, nothing of the request in it. */
void pages_error(struct buffer *to, unsigned status, const char *reason);

#endif
