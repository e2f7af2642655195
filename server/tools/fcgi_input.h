/*
 * What a request sends as its body, or as a filter's data: a text, a file, or the standard input. Its length is known
 * before the first byte is sent. What is no regular file is copied to a temporary one first, INPUT_MOST bytes at most.
 */
#ifndef GATEHOUSE_TOOLS_FCGI_INPUT_H
#define GATEHOUSE_TOOLS_FCGI_INPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/buffer.h"
#include "fastcgi/record.h"

enum {
    INPUT_MOST = 1 << 30,  /* bytes of a pipe */
    INPUT_PIECE = 1 << 15, /* bytes of a record */
};

struct fcgi_input {
    uint64_t length;
    time_t modified; /* of a file */

    int fd;           /* private: -1: there is none, or it is a text */
    const char *text; /* private */
    uint64_t left;    /* private */
    bool is_over;     /* private: the end was sent */
};

/* There is nothing to send but the end. */
void fcgi_input_none(struct fcgi_input *input);

/* The text, which outlives the input. */
void fcgi_input_text(struct fcgi_input *input, const char *text);

/* The file of that name; "-": the standard input. Returns 0 or -errno: -EFBIG for a pipe that holds too much. */
int fcgi_input_file(struct fcgi_input *input, const char *path);

/*
 * Appends the next record of the stream to request 1; the last one is the stream's end. Returns 1, 0 when the end was
 * sent already, or -1: the file cannot be read, or has become shorter than its length.
 */
int fcgi_input_send(struct fcgi_input *input, enum record_type stream, struct buffer *to);

void fcgi_input_close(struct fcgi_input *input);

#endif
