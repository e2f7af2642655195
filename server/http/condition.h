/*
 * Preconditions (RFC 9110 section 13): whether a request is to be carried out, given what the requested representation
 * is now. Pure: the fields of a checked head in, a verdict out.
 */
#ifndef GATEHOUSE_HTTP_CONDITION_H
#define GATEHOUSE_HTTP_CONDITION_H

#include <time.h>

#include "base/span.h"
#include "http/head.h"

/* What the representation is known by. */
struct validators {
    struct span etag; /* an entity-tag as it stands in an ETag field, "W/" included when it is weak; empty: none */
    time_t modified;  /* Last-Modified */
    time_t now;       /* Date: a Last-Modified of this very second is a weak validator (RFC 9110 section 8.8.2.2) */
};

enum condition {
    CONDITION_TRUE,         /* go on */
    CONDITION_NOT_MODIFIED, /* answer 304: the client has this representation */
    CONDITION_FAILED,       /* answer 412 */
};

/*
 * The order of RFC 9110 section 13.2.2: If-Match (strong comparison), else If-Unmodified-Since; If-None-Match (weak
 * comparison), else If-Modified-Since. Only for GET and HEAD of a representation that exists. The entity-tags of all
 * field lines of a name form one list, in which "*" counts only if it stands alone; what is no entity-tag matches
 * nothing. A date counts only if it stands alone and is valid in one of the three forms.
 */
enum condition condition_decide(const struct head *head, const struct validators *validators);

/* Whether a Range counts: without If-Range always, with it only if that names this representation by a strong
 * validator (RFC 9110 section 13.1.5). */
bool condition_allows_range(const struct head *head, const struct validators *validators);

#endif
