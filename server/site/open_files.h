/*
 * The files of all sites, opened by their sites' rules and kept for a while.
 *
 * A kept one is used for a second, and only if the path still leads to the same inode with the same size and the same
 * times of change to the nanosecond: one fstatat() instead of openat2(), fstat() and close(). The content is always
 * read from the file itself. Once a second all is looked at anew: links on the way, rules, precompressed siblings.
 */
#ifndef GATEHOUSE_SITE_OPEN_FILES_H
#define GATEHOUSE_SITE_OPEN_FILES_H

#include <event2/event.h>
#include <sys/stat.h>

#include "config.h"
#include "http/date.h"
#include "site/route.h"

/* Content codings that a file can have a sibling in, the one that is liked most first. */
enum coding {
    CODING_BR,
    CODING_ZSTD,
    CODING_GZIP,
    N_CODINGS,
};

struct coding_name {
    struct span name;   /* in Content-Encoding */
    const char *suffix; /* of the sibling's name */
};
extern const struct coding_name coding_names[N_CODINGS];

/* Read by those who have taken it. */
struct open_file {
    int fd;
    struct stat about;
    const char *type;   /* Content-Type */
    time_t modified_at; /* Last-Modified; never later than now (RFC 9110 section 8.8.2.1) */
    char modified[DATE_LEN + 1];
    char etag[40];
    unsigned siblings; /* that stand for it, not older than it is: bits, 1 << coding */

    /* Private from here on. */
    unsigned users;
    const struct config_site *site;
    char *name; /* relative to the root */
    uint64_t opened_us;
    bool is_used; /* since the last sweep */
};

struct open_files;

/* Opens the sites' roots and the routes' directories. NULL after a log line when one cannot be opened. */
struct open_files *open_files_create(struct event_base *base, const struct config *config);
void open_files_destroy(struct open_files *files);

/*
 * Opens a regular file. `name` is relative to the root. as_source: a program's source may be given out, too, for the
 * route says that its files are static. 0; the caller releases it. Or -errno:
 *
 *     -ENOENT, -ENOTDIR, -ENAMETOOLONG...  there is none
 *     -EISDIR                              a directory
 *     -EXDEV, -ELOOP                       a link leads where the site's `symlinks` does not allow
 *     -EACCES                              not readable for the server's user; a FIFO, a device, a socket
 *     -EPERM                               `hidden`, or the source of a program that a route runs
 *     -EMFILE, -ENFILE                     too many are open
 */
int open_files_take(struct open_files *files, const struct config_site *site, const char *name, bool as_source,
                    struct open_file **out);

/* Takes over a file that was opened elsewhere, by no site's rules. `type` is copied. The caller releases it. */
struct open_file *open_file_adopt(int fd, const struct stat *about, struct span type);

/* For exchange_file(), too: takes a struct open_file. */
void open_file_release(void *arg);

/* What is at a name below the site's root - or the route's own directory, if it has one - by the site's rule for links?
 * route may be NULL. With ROUTE_FILE_NONE *error_out is the -errno, else 0. */
enum route_file open_files_look(struct open_files *files, const struct config_route *route,
                                const struct config_site *site, const char *name, int *error_out);

/* A directory below the site's root that is being listed. */
struct open_directory {
    int fd; /* the caller's to close */

    /* Private from here on. */
    struct open_files *files;
    const struct config_site *site;
    const char *name; /* as given */
};

/* Opens it; "." is the root itself. `name` lives as long as *out. 0, or -errno as above. */
int open_files_directory(struct open_files *files, const struct config_site *site, const char *name,
                         struct open_directory *out);

/* For listing_read(), with a struct open_directory: is that name listed? Not what is hidden, nor a link that is not
 * followed or leads to a program. */
bool open_directory_shows(void *arg, const char *name);

/* What the errno above stands for, for the log. */
const char *open_files_why(int error);

#endif
