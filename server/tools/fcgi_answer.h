/*
 * What an application answers on STDOUT, read as the server reads it (gateway/reply.h): a head, which the server may
 * refuse, and a body, which is given to whoever wants it as the server would send it. Pure.
 */
#ifndef GATEHOUSE_TOOLS_FCGI_ANSWER_H
#define GATEHOUSE_TOOLS_FCGI_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "gateway/reply.h"
#include "http/chunked.h"

struct fcgi_answer {
    bool shows_head; /* set by the caller: heads are given, too, byte for byte */
    bool is_head;    /* ... : the method is HEAD, so no body will be as long as the head says */
    void (*write)(void *arg, struct span bytes);
    void *arg;

    unsigned status; /* of the final head; 0: it has not come */
    char reason[64]; /* of the Status field, escaped, perhaps cut */
    const char *why; /* after a refusal: a static text */

    /* private */
    struct buffer head; /* what came of a head that is not whole; or of one that was refused */
    struct reply reply;
    struct chunked chunked;
    unsigned n_interim;
    uint64_t n_body; /* bytes of the body, out of its chunks */
    bool is_over;    /* its last chunk has come */
};

/* To be called once, the caller's members being set. */
void fcgi_answer_init(struct fcgi_answer *answer);

/* Takes output. False: the server would refuse it, .why says why. Then the answer must be given nothing more. */
bool fcgi_answer_take(struct fcgi_answer *answer, struct span bytes);

/* The output is complete. Returns true, or false and .why: it is not whole. */
bool fcgi_answer_end(struct fcgi_answer *answer);

/* Appends what came of a head that is not whole or was refused, for people: some lines, escaped, "  | " before each. */
void fcgi_answer_describe_head(const struct fcgi_answer *answer, struct buffer *to);

void fcgi_answer_free(struct fcgi_answer *answer);

#endif
