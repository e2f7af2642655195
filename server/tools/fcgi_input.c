#include "tools/fcgi_input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/fcgi_client.h"

enum { REQUEST_ID = 1 };

void fcgi_input_none(struct fcgi_input *input)
{
    *input = (struct fcgi_input){.fd = -1};
}

void fcgi_input_text(struct fcgi_input *input, const char *text)
{
    *input = (struct fcgi_input){.fd = -1, .text = text};
    input->length = input->left = strlen(text);
}

/* A file without a name; or -errno. */
static int temporary(void)
{
    FILE *file = tmpfile();
    int fd = file != NULL ? fcntl(fileno(file), F_DUPFD_CLOEXEC, 3) : -1;
    int error = errno;

    if (file != NULL)
        fclose(file);
    return fd >= 0 ? fd : -error;
}

/* All that comes from a pipe, a terminal. */
static int copy(int from, int to, uint64_t *length_out)
{
    static char piece[INPUT_PIECE];
    uint64_t length = 0;
    ssize_t n;

    while ((n = read(from, piece, sizeof piece)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        length += (uint64_t)n;
        int error = length > INPUT_MOST ? -EFBIG : fcgi_client_write(to, (struct span){piece, (size_t)n});
        if (error != 0)
            return error;
    }
    *length_out = length;
    return lseek(to, 0, SEEK_SET) == 0 ? 0 : -errno;
}

/* Puts a copy in the place of what has no length. */
static int settle(struct fcgi_input *input)
{
    int fd = temporary();
    int error = fd < 0 ? fd : copy(input->fd, fd, &input->length);

    if (fd >= 0) {
        dup3(fd, input->fd, O_CLOEXEC);
        close(fd);
    }
    return error;
}

static int measure(struct fcgi_input *input)
{
    struct stat about;
    off_t at;

    if (fstat(input->fd, &about) != 0)
        return -errno;
    if (S_ISDIR(about.st_mode))
        return -EISDIR;
    input->modified = about.st_mtime;
    if (!S_ISREG(about.st_mode))
        return settle(input);
    at = lseek(input->fd, 0, SEEK_CUR); /* of the standard input, somebody may have read the front */
    input->length = at >= 0 && at < about.st_size ? (uint64_t)(about.st_size - at) : 0;
    return 0;
}

int fcgi_input_file(struct fcgi_input *input, const char *path)
{
    int error;

    fcgi_input_none(input);
    if (strcmp(path, "-") == 0)
        input->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    else
        input->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (input->fd < 0)
        return -errno;
    error = measure(input);
    input->left = input->length;
    return error;
}

/* Exactly so many bytes, or false. */
static bool read_all(int fd, char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, at, len);

        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

int fcgi_input_send(struct fcgi_input *input, enum record_type stream, struct buffer *to)
{
    static char piece[INPUT_PIECE];
    size_t n = input->left < sizeof piece ? (size_t)input->left : sizeof piece;
    const char *at = piece;

    if (input->is_over)
        return 0;
    if (n == 0) {
        input->is_over = true;
        record_stream_end(to, stream, REQUEST_ID);
        return 1;
    }
    if (input->text != NULL)
        at = input->text + (input->length - input->left);
    else if (!read_all(input->fd, piece, n))
        return -1;
    record_stream(to, stream, REQUEST_ID, at, n);
    input->left -= n;
    return 1;
}

void fcgi_input_close(struct fcgi_input *input)
{
    if (input->fd >= 0)
        close(input->fd);
    input->fd = -1;
}
