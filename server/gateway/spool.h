/*
 * A spool: what a client sends is put in at one end, and taken out at the other when all of it, or enough, is there. A
 * little is held in memory; more goes to a file that has no name, so that nobody else can open it and it is gone with
 * us. No loop and no clock; files, below one directory.
 *
 * Nothing is written once reading has begun, but for what is in memory.
 */
#ifndef GATEHOUSE_GATEWAY_SPOOL_H
#define GATEHOUSE_GATEWAY_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

enum {
    SPOOL_MEMORY = 65536, /* bytes that are held in memory, where a file may take the rest */
    SPOOL_PIECE = 65536,  /* of a file, at a time */
};

struct spool {
    struct buffer memory;
    bool has_file;
    int fd;
    uint64_t in_file; /* bytes written to it */
    uint64_t taken;   /* ... and read again */
    uint64_t len;     /* of all that was ever put in */
};

/* An all-zero struct spool is an empty one; spool_free() brings it back to that. */
void spool_free(struct spool *spool);

/* Puts bytes in, in memory. The caller bounds how many. */
void spool_hold(struct spool *spool, struct span bytes);

/* Puts bytes in: in memory while there are few and `in_memory`, else in a file below `directory`. 0, or -errno of the
 * file: nothing of use is in the spool then. */
int spool_append(struct spool *spool, struct span bytes, const char *directory, bool in_memory);

/* Would these bytes stay in memory? */
static inline bool spool_fits(const struct spool *spool, struct span bytes)
{
    return !spool->has_file && buffer_len(&spool->memory) + bytes.len <= SPOOL_MEMORY;
}

/* How many bytes are in memory, and how many are there at all to be taken. */
static inline size_t spool_held(const struct spool *spool)
{
    return buffer_len(&spool->memory);
}

static inline uint64_t spool_left(const struct spool *spool)
{
    return spool->in_file - spool->taken + buffer_len(&spool->memory);
}

/* The next piece: all that is in memory, or up to SPOOL_PIECE bytes of the file, which are read into `room`. It lives
 * until spool_took(), which takes it out. 0, or -errno. */
int spool_peek(const struct spool *spool, char room[SPOOL_PIECE], struct span *piece_out);
void spool_took(struct spool *spool, struct span piece);

#endif
