#include "site/open_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log.h"
#include "site/mime.h"
#include "site/rules.h"
#include "site/sources.h"

enum {
    KEPT = 1024,       /* slots of the table; a power of two */
    SWEEP_SECONDS = 2, /* what was not used for so long is closed */
    LOOK_US = 1000000, /* how long one is used before all is looked at anew */
};

struct open_files {
    const struct config *config;
    int *root_fds;  /* by site */
    int *route_fds; /* by route: its own directory; -1: it has none */
    struct sources *sources;
    struct open_file *kept[KEPT];
    unsigned n_kept;
    struct event *sweep;
};

const struct coding_name coding_names[N_CODINGS] = {
    [CODING_BR] = {{"br", 2}, ".br"},
    [CODING_ZSTD] = {{"zstd", 4}, ".zst"},
    [CODING_GZIP] = {{"gzip", 4}, ".gz"},
};

static const struct timeval sweep_interval = {SWEEP_SECONDS, 0};

/* ---- the table ---- */

void open_file_release(void *arg)
{
    struct open_file *file = arg;

    if (--file->users > 0)
        return;
    close(file->fd);
    free(file->name);
    free(file);
}

static void forget(struct open_files *files, unsigned slot)
{
    if (files->kept[slot] == NULL)
        return;
    open_file_release(files->kept[slot]);
    files->kept[slot] = NULL;
    files->n_kept--;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct open_files *files = arg;

    (void)fd, (void)what;
    for (unsigned i = 0; i < KEPT; i++)
        if (files->kept[i] != NULL && !files->kept[i]->is_used)
            forget(files, i);
        else if (files->kept[i] != NULL)
            files->kept[i]->is_used = false;
    if (files->n_kept > 0)
        event_add(files->sweep, &sweep_interval);
}

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static unsigned slot_of(const struct config_site *site, const char *name)
{
    unsigned hash = 2166136261U + site->index; /* FNV-1a */

    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619U;
    return hash % KEPT;
}

/* The file that is kept for this path, if the path still leads to it as it was. */
static struct open_file *find_kept(struct open_files *files, const struct config_site *site, const char *name)
{
    struct open_file *kept = files->kept[slot_of(site, name)];
    struct stat about;

    if (kept == NULL || kept->site != site || strcmp(kept->name, name) != 0 || clock_us() - kept->opened_us > LOOK_US)
        return NULL;
    if (fstatat(files->root_fds[site->index], name, &about, 0) != 0 || !is_unchanged(&about, &kept->about))
        return NULL;
    kept->is_used = true;
    return kept;
}

static void keep(struct open_files *files, struct open_file *file)
{
    unsigned slot = slot_of(file->site, file->name);

    forget(files, slot);
    files->kept[slot] = file;
    if (files->n_kept++ == 0)
        event_add(files->sweep, &sweep_interval);
}

/* beneath_open(); where descriptors are short, those of kept files are given up for it. */
static int open_beneath(struct open_files *files, int dir_fd, const char *name, enum symlinks symlinks, uint64_t flags)
{
    int fd = beneath_open(dir_fd, name, symlinks, flags);

    if ((fd != -EMFILE && fd != -ENFILE) || files->n_kept == 0)
        return fd;
    for (unsigned i = 0; i < KEPT; i++)
        forget(files, i);
    return beneath_open(dir_fd, name, symlinks, flags);
}

/* ---- roots and directories ---- */

static int open_directory(const char *what, const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        log_error("%s %s cannot be opened by the server's user: %s", what, path, strerror(errno));
    return fd;
}

static int open_directories(struct open_files *files)
{
    const struct config *config = files->config;

    for (size_t i = 0; i < config->n_sites; i++)
        files->root_fds[i] = -1;
    for (size_t i = 0; i < config->n_routes; i++)
        files->route_fds[i] = -1;
    for (size_t i = 0; i < config->n_sites; i++)
        if ((files->root_fds[i] = open_directory("root", config->sites[i]->root)) < 0)
            return -1;
    for (size_t i = 0; i < config->n_routes; i++)
        if (config->routes[i]->dir != NULL && (files->route_fds[i] = open_directory("dir", config->routes[i]->dir)) < 0)
            return -1;
    return 0;
}

struct open_files *open_files_create(struct event_base *base, const struct config *config)
{
    struct open_files *files = memory_zeroed(1, sizeof *files);

    files->config = config;
    files->sweep = evtimer_new(base, on_sweep, files);
    files->root_fds = memory_zeroed(config->n_sites, sizeof *files->root_fds);
    files->route_fds = memory_zeroed(config->n_routes + 1, sizeof *files->route_fds);
    files->sources = sources_create(config, files->root_fds, files->route_fds);
    if (open_directories(files) == 0)
        return files;
    open_files_destroy(files);
    return NULL;
}

void open_files_destroy(struct open_files *files)
{
    for (unsigned i = 0; i < KEPT; i++)
        forget(files, i);
    for (size_t i = 0; i < files->config->n_sites; i++)
        close(files->root_fds[i]);
    for (size_t i = 0; i < files->config->n_routes; i++)
        close(files->route_fds[i]);
    event_free(files->sweep);
    free(files->root_fds);
    free(files->route_fds);
    sources_destroy(files->sources);
    free(files);
}

/* ---- what may be opened ---- */

/* Is what was opened a program, or among programs? By its real path, so that no link and no second way leads to it. */
static bool is_source(const struct open_files *files, const struct config_site *site, int fd)
{
    char path[PATH_MAX];

    return !sources_real_path(fd, path) || sources_has(files->sources, site, span_of(path));
}

/* A sibling that is older than the file was made of what the file was before. To the second: some of the programs that
 * make them keep no more of the time than that. */
static bool has_sibling(const struct open_files *files, const struct open_file *file, const char *suffix)
{
    char name[PATH_MAX];
    struct stat about;

    if ((size_t)snprintf(name, sizeof name, "%s%s", file->name, suffix) >= sizeof name)
        return false;
    return fstatat(files->root_fds[file->site->index], name, &about, 0) == 0 && S_ISREG(about.st_mode) &&
           about.st_mtim.tv_sec >= file->about.st_mtim.tv_sec;
}

static void describe(struct open_file *file)
{
    uint64_t modified_ns = (uint64_t)file->about.st_mtim.tv_sec * 1000000000 + (uint64_t)file->about.st_mtim.tv_nsec;
    time_t now = time(NULL);

    file->modified_at = file->about.st_mtim.tv_sec < now ? file->about.st_mtim.tv_sec : now;
    date_write(file->modified, file->modified_at);
    snprintf(file->etag, sizeof file->etag, "\"%llx-%llx\"", (unsigned long long)modified_ns,
             (unsigned long long)file->about.st_size);
}

static void find_siblings(const struct open_files *files, struct open_file *file)
{
    for (unsigned i = 0; i < N_CODINGS && file->site->has_precompressed; i++)
        file->siblings |= (unsigned)has_sibling(files, file, coding_names[i].suffix) << i;
}

int open_files_take(struct open_files *files, const struct config_site *site, const char *name, bool as_source,
                    struct open_file **out)
{
    struct open_file *file = find_kept(files, site, name);
    struct stat about = {0};

    if (file != NULL) {
        file->users++;
        *out = file;
        return 0;
    }
    if (rules_is_hidden(site, span_of(name)))
        return -EPERM;
    /* Not blocking: opening a FIFO would wait for a writer. */
    int fd = open_beneath(files, files->root_fds[site->index], name, site->symlinks, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd == -ENXIO ? -EACCES : fd; /* a socket */
    int error = fstat(fd, &about) != 0    ? -errno
                : S_ISDIR(about.st_mode)  ? -EISDIR
                : !S_ISREG(about.st_mode) ? -EACCES
                                          : 0;
    if (error == 0 && !as_source && is_source(files, site, fd))
        error = -EPERM;
    if (error != 0) {
        close(fd);
        return error;
    }
    file = memory_zeroed(1, sizeof *file);
    *file = (struct open_file){
        .users = 2, .fd = fd, .site = site, .about = about, .is_used = true, .opened_us = clock_us()};
    file->name = memory_copy(name, strlen(name));
    file->type = mime_type(span_of(file->name));
    describe(file);
    find_siblings(files, file);
    keep(files, file);
    *out = file;
    return 0;
}

struct open_file *open_file_adopt(int fd, const struct stat *about, struct span type)
{
    struct open_file *file = memory_zeroed(1, sizeof *file + type.len + 1);
    char *text = (char *)(file + 1);

    memcpy(text, type.at, type.len);
    *file = (struct open_file){.users = 1, .fd = fd, .about = *about, .type = text};
    describe(file);
    return file;
}

static enum route_file look_beneath(struct open_files *files, int dir_fd, const struct config_site *site,
                                    const char *name, int *error_out)
{
    struct stat about;
    int fd = open_beneath(files, dir_fd, name, site->symlinks, O_PATH);

    *error_out = fd < 0 ? fd : 0;
    if (fd < 0)
        return ROUTE_FILE_NONE;
    int failed = fstat(fd, &about);
    close(fd);
    if (failed != 0)
        return ROUTE_FILE_NONE;
    if (S_ISDIR(about.st_mode))
        return ROUTE_FILE_DIRECTORY;
    return S_ISREG(about.st_mode) ? ROUTE_FILE_REGULAR : ROUTE_FILE_OTHER;
}

enum route_file open_files_look(struct open_files *files, const struct config_route *route,
                                const struct config_site *site, const char *name, int *error_out)
{
    *error_out = 0;
    if (route != NULL && route->dir != NULL)
        return look_beneath(files, files->route_fds[route->index], site, name, error_out);
    if (find_kept(files, site, name) != NULL)
        return ROUTE_FILE_REGULAR;
    return look_beneath(files, files->root_fds[site->index], site, name, error_out);
}

int open_files_directory(struct open_files *files, const struct config_site *site, const char *name,
                         struct open_directory *out)
{
    char real[PATH_MAX];
    int fd;

    if (strcmp(name, ".") != 0 && rules_is_hidden(site, span_of(name)))
        return -EPERM;
    fd = open_beneath(files, files->root_fds[site->index], name, site->symlinks, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    if (!sources_real_path(fd, real) || sources_has(files->sources, site, span_of(real))) {
        close(fd);
        return -EPERM;
    }
    *out = (struct open_directory){.files = files, .site = site, .name = name, .fd = fd};
    return 0;
}

/* Would a link in the directory be followed, and what it leads to be given out? */
static bool shows_link(const struct open_directory *directory, const char *path)
{
    const struct config_site *site = directory->site;
    int fd = beneath_open(directory->files->root_fds[site->index], path, site->symlinks, O_PATH);
    bool is_shown = fd >= 0 && !is_source(directory->files, site, fd);

    if (fd >= 0)
        close(fd);
    return is_shown;
}

bool open_directory_shows(void *arg, const char *name)
{
    const struct open_directory *directory = arg;
    bool is_root = strcmp(directory->name, ".") == 0;
    char path[PATH_MAX];
    struct stat about;

    if ((size_t)snprintf(path, sizeof path, "%s%s%s", is_root ? "" : directory->name,
                         is_root || span_ends(span_of(directory->name), SPAN("/")) ? "" : "/", name) >= sizeof path)
        return false;
    if (rules_is_hidden(directory->site, span_of(path)) ||
        fstatat(directory->fd, name, &about, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    return !S_ISLNK(about.st_mode) || shows_link(directory, path);
}

const char *open_files_why(int error)
{
    switch (error) {
    case -EXDEV:
    case -ELOOP:
        return "a link leads where symlinks = does not allow";
    case -EPERM:
        return "is hidden = in its site, or a program that a route runs";
    case -EACCES:
        return "may not be read by the server's user, or is no file";
    default:
        return strerror(-error);
    }
}
