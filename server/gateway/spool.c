/*
 * What is in memory stands behind what is in the file: as soon as there is a file, what was in memory before is written
 * to it, and what is held in memory after that came later.
 */
#include "gateway/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void spool_free(struct spool *spool)
{
    if (spool->has_file)
        close(spool->fd);
    buffer_free(&spool->memory);
    *spool = (struct spool){0};
}

void spool_hold(struct spool *spool, struct span bytes)
{
    buffer_append_span(&spool->memory, bytes);
    spool->len += bytes.len;
}

/* For file systems without O_TMPFILE: for a moment the file has a name, which nobody can guess or have made before. */
static int open_named(const char *directory)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/gatehouse-XXXXXX", directory) >= sizeof path)
        return -ENAMETOOLONG;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (unlink(path) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* O_EXCL: it can be given no name later either. */
static int open_unnamed(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        return fd;
    return errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL ? open_named(directory) : -errno;
}

static int write_whole(int fd, struct span bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.at, bytes.len);

        if (n < 0 && errno != EINTR)
            return -errno;
        bytes = span_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int write_to_file(struct spool *spool, struct span bytes)
{
    int error = write_whole(spool->fd, bytes);

    if (error == 0)
        spool->in_file += bytes.len;
    return error;
}

/* From now on there is a file, and all is in it. */
static int begin_file(struct spool *spool, const char *directory)
{
    int fd = open_unnamed(directory);

    if (fd < 0)
        return fd;
    spool->fd = fd;
    spool->has_file = true;
    int error = write_to_file(spool, buffer_span(&spool->memory));
    buffer_free(&spool->memory);
    return error;
}

int spool_append(struct spool *spool, struct span bytes, const char *directory, bool in_memory)
{
    int error = 0;

    if (in_memory && spool_fits(spool, bytes)) {
        spool_hold(spool, bytes);
        return 0;
    }
    if (bytes.len == 0)
        return 0;
    if (!spool->has_file)
        error = begin_file(spool, directory);
    if (error == 0)
        error = write_to_file(spool, bytes);
    if (error == 0)
        spool->len += bytes.len;
    return error;
}

int spool_peek(const struct spool *spool, char room[SPOOL_PIECE], struct span *piece_out)
{
    uint64_t left = spool->in_file - spool->taken;
    ssize_t n;

    *piece_out = buffer_span(&spool->memory);
    if (left == 0)
        return 0;
    do
        n = pread(spool->fd, room, left < SPOOL_PIECE ? (size_t)left : SPOOL_PIECE, (off_t)spool->taken);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    *piece_out = (struct span){room, (size_t)n};
    return 0;
}

void spool_took(struct spool *spool, struct span piece)
{
    if (spool->taken < spool->in_file)
        spool->taken += piece.len;
    else
        buffer_consume(&spool->memory, piece.len);
}
