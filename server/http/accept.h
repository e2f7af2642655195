/* What a client likes (RFC 9110 section 12.5). Pure. */
#ifndef GATEHOUSE_HTTP_ACCEPT_H
#define GATEHOUSE_HTTP_ACCEPT_H

#include "base/span.h"
#include "http/head.h"

/*
 * How much the client likes a content coding ("br", "zstd", "gzip"; "x-gzip" is gzip, whatever the case), in
 * thousandths: 0 is "not acceptable", 1000 most. Its own member of Accept-Encoding decides, else "*", else 0; all field
 * lines form one list. Of several members for the same coding the least counts, so that their order means nothing.
 * Members outside the grammar do not count. Without the field, 0: only the identity is sent then.
 */
unsigned accept_encoding(const struct head *head, struct span coding);

/* The same of "identity": its own member decides, else "*", else it is acceptable (1000; RFC 9110 section 12.5.3). */
unsigned accept_identity(const struct head *head);

#endif
