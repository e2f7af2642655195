/*
 * X-Sendfile: a program answers with a file, which is opened and sent here. What a program may give out like that is
 * for the route to say: what is beneath one of the directories in sendfile_dir, and nothing that a link leads out of it
 * to. Whether the file is a program's source does not matter then.
 */
#include "gateway/sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/beneath.h"
#include "gateway/input.h"
#include "site/files.h"
#include "site/mime.h"

enum { MAX_SHOWN = 1024 }; /* of a path in the log: the rest of the line is to be read, too */

/* What is behind the directory in an absolute path; NULL: it is elsewhere. */
static const char *path_below(const char *directory, const char *path)
{
    size_t len = strlen(directory);

    while (len > 0 && directory[len - 1] == '/')
        len--;
    if (strncmp(path, directory, len) != 0 || (path[len] != '/' && path[len] != '\0'))
        return NULL;
    for (path += len; *path == '/'; path++)
        continue;
    return *path != '\0' ? path : ".";
}

/* Not blocking: opening a FIFO would wait for a writer. */
static int open_below(const char *directory, const char *name)
{
    int dir_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (dir_fd < 0)
        return -errno;
    int fd = beneath_open(dir_fd, name, SYMLINKS_BENEATH, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    close(dir_fd);
    return fd;
}

/* In the first of the directories where it is. */
static int open_path(const struct config_words *directories, const char *path)
{
    int fd = -EXDEV;

    if (path[0] != '/')
        return open_below(directories->at[0], path);
    for (size_t i = 0; i < directories->n && fd < 0; i++) {
        const char *name = path_below(directories->at[i], path);

        if (name != NULL)
            fd = open_below(directories->at[i], name);
    }
    return fd;
}

/* Only a regular file. */
static int open_file(const struct config_words *directories, struct span text, struct stat *about_out)
{
    char path[PATH_MAX];

    if (text.len >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, text.at, text.len);
    path[text.len] = '\0';
    int fd = open_path(directories, path);
    if (fd < 0)
        return fd == -ENXIO ? -EACCES : fd; /* a socket */
    int error = fstat(fd, about_out) != 0 ? -errno : S_ISREG(about_out->st_mode) ? 0 : -EACCES;
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

static const char *cure_of(int error)
{
    switch (error) {
    case -EXDEV:
    case -ELOOP:
        return "is not beneath its route's sendfile_dir; add a directory there that it is in";
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
        return "is not there; look at what the program names, and where a relative name begins";
    case -EACCES:
    case -EPERM:
        return "is no regular file, or the server's user may not read it";
    default:
        return strerror(-error);
    }
}

static void refuse(struct passage *p, struct span path, int error)
{
    struct buffer why = {0};
    bool is_long = path.len > MAX_SHOWN;

    buffer_printf(&why, "X-Sendfile \"%.*s%s\" %s", is_long ? MAX_SHOWN : (int)path.len, path.at, is_long ? "..." : "",
                  cure_of(error));
    buffer_append(&why, "", 1);
    passage_fail(p, files_status_of(error), buffer_at(&why));
    buffer_free(&why);
}

/* What the program says, or what the file's name does. */
static struct span type_of(const struct reply *reply)
{
    for (unsigned i = 0; i < reply->n_fields; i++) {
        const struct field *field = &reply->fields[i];

        if (field->value.len > 0 && span_is_nocase(field->name, SPAN("Content-Type")))
            return field->value;
    }
    return span_of(mime_type(reply->sendfile));
}

bool sendfile_is_allowed(const struct passage *p)
{
    if (p->route->sendfile_dirs.n > 0)
        return true;
    log_warning("[%s] %.*s: its X-Sendfile is left out; to have it obeyed, set sendfile_dir in [route %s]", p->id,
                (int)buffer_len(&p->filename), buffer_at(&p->filename), p->route->text);
    return false;
}

void sendfile_answer(struct passage *p, const struct reply *reply)
{
    struct stat about;
    int fd = open_file(&p->route->sendfile_dirs, reply->sendfile, &about);

    input_end(p);
    if (fd < 0) {
        refuse(p, reply->sendfile, fd);
        return;
    }
    struct files_response response = {
        .file = open_file_adopt(fd, &about, type_of(reply)),
        .status = reply->status,
        .reason = reply->reason,
        .fields = reply->fields,
        .n_fields = reply->n_fields,
    };
    files_answer(passage_let_go(p), &response);
}
