#include "site/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "http/date.h"
#include "log.h"
#include "site/mime.h"

enum {
    KEPT = 1024,       /* slots of the table of open files; a power of two */
    SWEEP_SECONDS = 5, /* what was not used for so long is closed */
};

/* One open file. Shared by the table and the responses under way. */
struct open_file {
    unsigned users;
    int fd;
    const struct config_site *site;
    char *name; /* relative to the root */
    struct stat about;
    const char *type;
    char modified[DATE_LEN + 1];
    char etag[40];
    bool is_used; /* since the last sweep */
};

struct files {
    const struct config *config;
    int *root_fds;  /* by site */
    int *route_fds; /* by route: its own directory; -1: it has none */
    struct open_file *kept[KEPT];
    unsigned n_kept;
    struct event *sweep;
};

static const struct timeval sweep_interval = {SWEEP_SECONDS, 0};

/* ---- open files ---- */

static void release(void *arg)
{
    struct open_file *file = arg;

    if (--file->users > 0)
        return;
    close(file->fd);
    free(file->name);
    free(file);
}

static void forget(struct files *files, unsigned slot)
{
    if (files->kept[slot] == NULL)
        return;
    release(files->kept[slot]);
    files->kept[slot] = NULL;
    files->n_kept--;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct files *files = arg;

    (void)fd, (void)what;
    for (unsigned i = 0; i < KEPT; i++)
        if (files->kept[i] != NULL && !files->kept[i]->is_used)
            forget(files, i);
        else if (files->kept[i] != NULL)
            files->kept[i]->is_used = false;
    if (files->n_kept > 0)
        event_add(files->sweep, &sweep_interval);
}

static int open_directory(const char *what, const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        log_error("%s %s cannot be opened by the server's user: %s", what, path, strerror(errno));
    return fd;
}

static int open_directories(struct files *files)
{
    const struct config *config = files->config;

    for (size_t i = 0; i < config->n_routes; i++)
        files->route_fds[i] = -1;
    for (size_t i = 0; i < config->n_sites; i++)
        files->root_fds[i] = -1;
    for (size_t i = 0; i < config->n_sites; i++)
        if ((files->root_fds[i] = open_directory("root", config->sites[i]->root)) < 0)
            return -1;
    for (size_t i = 0; i < config->n_routes; i++)
        if (config->routes[i]->dir != NULL && (files->route_fds[i] = open_directory("dir", config->routes[i]->dir)) < 0)
            return -1;
    return 0;
}

struct files *files_create(struct event_base *base, const struct config *config)
{
    struct files *files = memory_zeroed(1, sizeof *files);

    files->config = config;
    files->sweep = evtimer_new(base, on_sweep, files);
    files->root_fds = memory_zeroed(config->n_sites, sizeof *files->root_fds);
    files->route_fds = memory_zeroed(config->n_routes + 1, sizeof *files->route_fds);
    if (open_directories(files) == 0)
        return files;
    files_destroy(files);
    return NULL;
}

void files_destroy(struct files *files)
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
    free(files);
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

static void describe(struct open_file *file)
{
    uint64_t modified_ns = (uint64_t)file->about.st_mtim.tv_sec * 1000000000 + (uint64_t)file->about.st_mtim.tv_nsec;

    file->type = mime_type(span_of(file->name));
    date_write(file->modified, file->about.st_mtim.tv_sec);
    snprintf(file->etag, sizeof file->etag, "\"%llx-%llx\"", (unsigned long long)modified_ns,
             (unsigned long long)file->about.st_size);
}

/* The file that is kept for this path, if the path still leads to it as it was. */
static struct open_file *find_kept(struct files *files, const struct config_site *site, const char *name)
{
    struct open_file *kept = files->kept[slot_of(site, name)];
    struct stat about;

    if (kept == NULL || kept->site != site || strcmp(kept->name, name) != 0)
        return NULL;
    if (fstatat(files->root_fds[site->index], name, &about, 0) != 0 || !is_unchanged(&about, &kept->about))
        return NULL;
    kept->is_used = true;
    return kept;
}

static void keep(struct files *files, struct open_file *file)
{
    unsigned slot = slot_of(file->site, file->name);

    forget(files, slot);
    files->kept[slot] = file;
    if (files->n_kept++ == 0)
        event_add(files->sweep, &sweep_interval);
}

/* Opens a regular file; the caller releases it. Or -errno: -EISDIR, -EACCES for what is no file... */
static int open_file(struct files *files, const struct config_site *site, const char *name, struct open_file **out)
{
    struct open_file *file = find_kept(files, site, name);
    struct stat about = {0};

    if (file != NULL) {
        file->users++;
        *out = file;
        return 0;
    }
    /* Not blocking: opening a FIFO would wait for a writer. */
    int fd = beneath_open(files->root_fds[site->index], name, site->symlinks, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        close(fd);
        return S_ISDIR(about.st_mode) ? -EISDIR : -EACCES;
    }
    file = memory_zeroed(1, sizeof *file);
    *file = (struct open_file){.users = 2, .fd = fd, .site = site, .about = about, .is_used = true};
    file->name = memory_copy(name, strlen(name));
    describe(file);
    keep(files, file);
    *out = file;
    return 0;
}

static enum route_file look_beneath(int dir_fd, const struct config_site *site, const char *name)
{
    struct stat about;
    int fd = beneath_open(dir_fd, name, site->symlinks, O_PATH);

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

enum route_file files_look(struct files *files, const struct config_route *route, const struct config_site *site,
                           const char *name)
{
    if (route != NULL && route->dir != NULL)
        return look_beneath(files->route_fds[route->index], site, name);
    if (find_kept(files, site, name) != NULL)
        return ROUTE_FILE_REGULAR;
    return look_beneath(files->root_fds[site->index], site, name);
}

/* ---- answering ---- */

/* RFC 9110 section 13.1.2: the weak comparison, over all fields of that name. */
static bool etag_matches(const struct head *head, const char *etag)
{
    size_t len = strlen(etag);

    for (unsigned i = 0; i < head->n_fields; i++) {
        struct span value = head->fields[i].value;

        if (!span_is_nocase(head->fields[i].name, SPAN("If-None-Match")))
            continue;
        if (span_is(value, SPAN("*")) || memmem(value.at, value.len, etag, len) != NULL)
            return true;
    }
    return false;
}

static bool is_not_modified(const struct exchange *exchange, const struct open_file *file)
{
    const struct field *since = head_field(&exchange->head, SPAN("If-Modified-Since"));
    time_t date;

    if (head_field(&exchange->head, SPAN("If-None-Match")) != NULL)
        return etag_matches(&exchange->head, file->etag); /* then If-Modified-Since does not count */
    return since != NULL && date_read(since->value, time(NULL), &date) == 0 && file->about.st_mtim.tv_sec <= date;
}

static void send_file(struct exchange *exchange, struct open_file *file)
{
    bool is_known = is_not_modified(exchange, file);

    exchange_begin(exchange, is_known ? 304 : 200, SPAN(""));
    if (!is_known)
        exchange_field(exchange, SPAN("Content-Type"), span_of(file->type));
    exchange_field(exchange, SPAN("Last-Modified"), span_of(file->modified));
    exchange_field(exchange, SPAN("ETag"), span_of(file->etag));
    if (is_known) {
        release(file);
        exchange_end(exchange);
        return;
    }
    exchange_file(exchange, file->fd, 0, (uint64_t)file->about.st_size, release, file);
}

/* 301 to the same path with a slash, so that relative links in the index are right. */
static void redirect_to_slash(struct exchange *exchange, struct span path)
{
    struct buffer location = {0};

    uri_append_encoded(&location, path);
    buffer_append_span(&location, SPAN("/"));
    if (exchange->uri.has_query) {
        buffer_append_span(&location, SPAN("?"));
        buffer_append_span(&location, exchange->uri.query);
    }
    exchange_begin(exchange, 301, SPAN(""));
    exchange_field(exchange, SPAN("Location"), buffer_span(&location));
    exchange_length(exchange, 0);
    buffer_free(&location);
    exchange_end(exchange);
}

static void fail(struct exchange *exchange, int error, struct span path)
{
    if (error == -EISDIR) {
        redirect_to_slash(exchange, path);
        return;
    }
    bool is_forbidden = error == -EACCES || error == -EXDEV || error == -ELOOP || error == -EPERM;
    if (is_forbidden)
        log_warning("[%s] %.*s: %s", exchange->id, (int)path.len, path.at,
                    error == -EXDEV || error == -ELOOP ? "a link leads where symlinks = does not allow"
                                                       : "may not be read by the server's user, or is no file");
    exchange_fail(exchange, is_forbidden ? 403 : error == -EMFILE || error == -ENFILE ? 503 : 404, 0);
}

void files_serve(struct files *files, const struct config_site *site, struct exchange *exchange, struct span path)
{
    char name[PATH_MAX];
    struct open_file *file;

    exchange->record.gateway = SPAN("static");
    if (exchange->head.method == METHOD_OPTIONS) {
        exchange_allow(exchange, 204, SPAN("GET, HEAD, OPTIONS"));
        return;
    }
    if (exchange->head.method != METHOD_GET && exchange->head.method != METHOD_HEAD) {
        exchange_allow(exchange, 405, SPAN("GET, HEAD, OPTIONS"));
        return;
    }
    if (path.len >= sizeof name) {
        exchange_fail(exchange, 404, 0);
        return;
    }
    memcpy(name, path.at + 1, path.len - 1);
    name[path.len - 1] = '\0';
    if (name[0] == '\0' || name[path.len - 2] == '/') {
        log_warning("[%s] %.*s: has no index file", exchange->id, (int)path.len, path.at);
        exchange_fail(exchange,
                      files_look(files, NULL, site, name[0] != '\0' ? name : ".") == ROUTE_FILE_NONE ? 404 : 403, 0);
        return;
    }
    int error = open_file(files, site, name, &file);
    if (error == 0)
        send_file(exchange, file);
    else
        fail(exchange, error, path);
}
