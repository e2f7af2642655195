/*
 * A group is a directory, its properties are files. What is written where, for a route with all three limits:
 *
 *     OWN/gatehouse-4711/server/cgroup.procs      0            this process, and so its children
 *     OWN/cgroup.subtree_control                  +memory +pids +cpu
 *     OWN/gatehouse-4711/cgroup.subtree_control   +memory +pids +cpu
 *     OWN/gatehouse-4711/route-0/memory.max       67108864
 *                               /memory.swap.max  0            or the limit would only move them to the swap space
 *                               /pids.max         20
 *                               /cpu.max          50000 100000 microseconds of each 100 ms
 *
 * A controller can be enabled for the children of a group only when no process is in the group itself ("no internal
 * processes"; but for the root of all), so the order counts; and they are disabled again, where that was done here,
 * before anybody is moved back. See Documentation/admin-guide/cgroup-v2.rst of the kernel.
 */
#include "process/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "log.h"
#include "process/mounts.h"

enum {
    CPU_PERIOD_US = 100000,
    MOST_WAITS = 50, /* for a group to become empty */
    WAIT_MS = 100,
    ROOM = PATH_MAX + 64,
};

enum controller { MEMORY, PIDS, CPU, N_CONTROLLERS };

static const char *const controllers[N_CONTROLLERS] = {"memory", "pids", "cpu"};

struct cgroup {
    int procs_fd, events_fd; /* 0: none */
    uint64_t n_killed;       /* as it was last seen */
};

struct cgroups {
    char own[PATH_MAX]; /* where the server was started */
    char top[ROOM];
    bool is_needed[N_CONTROLLERS];
    bool was_enabled[N_CONTROLLERS]; /* in own, by us */
    size_t n_routes;
    struct cgroup *routes; /* by index */
};

/* ---- files ---- */

static int write_file(const char *group, const char *name, const char *text)
{
    char path[ROOM + 64];

    snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* What the file holds, cut to fit, NUL-terminated; empty when it cannot be read. */
static void read_file(const char *group, const char *name, char *text, size_t size)
{
    char path[ROOM + 64];

    snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static bool has_word(const char *text, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = text; *(at += strspn(at, " \n")) != '\0'; at += strcspn(at, " \n"))
        if (strcspn(at, " \n") == len && strncmp(at, word, len) == 0)
            return true;
    return false;
}

static void route_group(const struct cgroups *cgroups, size_t index, char path[ROOM + 32])
{
    snprintf(path, ROOM + 32, "%s/route-%zu", cgroups->top, index);
}

static void server_group(const struct cgroups *cgroups, char path[ROOM + 32])
{
    snprintf(path, ROOM + 32, "%s/server", cgroups->top);
}

/* ---- finding the own group ---- */

static bool is_wanted(const struct config_route *route)
{
    return route->cgroup.memory != 0 || route->cgroup.pids != 0 || route->cgroup.cpu != 0;
}

/* The path behind "0::" of /proc/self/cgroup. */
static bool read_membership(char path[PATH_MAX])
{
    char *line = NULL;
    size_t room = 0;
    bool is_found = false;
    FILE *from = fopen("/proc/self/cgroup", "re");

    while (from != NULL && !is_found && getline(&line, &room, from) > 0) {
        line[strcspn(line, "\n")] = '\0';
        is_found = strncmp(line, "0::/", 4) == 0 && snprintf(path, PATH_MAX, "%s", line + 3) < PATH_MAX;
    }
    free(line);
    if (from != NULL)
        fclose(from);
    return is_found;
}

static int find_own(struct cgroups *cgroups)
{
    char membership[PATH_MAX];
    struct mount mount;

    if (!read_membership(membership) || !mounts_find(NULL, "cgroup2", &mount)) {
        log_error("control groups, which cgroup_memory, cgroup_pids and cgroup_cpu need, are not there: no cgroup2 "
                  "file system is mounted; mount one at /sys/fs/cgroup, or leave these keys out");
        return -1;
    }
    const char *below = membership;
    size_t len = strcmp(mount.root, "/") == 0 ? 0 : strlen(mount.root);
    if (strncmp(below, mount.root, len) != 0 || strncmp(below, "/..", 3) == 0) {
        log_error("the server's control group %s is not below what is mounted at %s; mount all of it, or leave "
                  "cgroup_memory, cgroup_pids and cgroup_cpu out",
                  membership, mount.at);
        return -1;
    }
    below += len;
    snprintf(cgroups->own, sizeof cgroups->own, "%.2000s%.2000s", mount.at, strcmp(below, "/") == 0 ? "" : below);
    snprintf(cgroups->top, sizeof cgroups->top, "%s/gatehouse-%d", cgroups->own, (int)getpid());
    return 0;
}

/* ---- controllers ---- */

/* Does a hierarchy of the first version hold it? */
static bool is_taken_by_v1(const char *controller)
{
    char text[4096], *rest = text, *line;

    read_file("/proc", "cgroups", text, sizeof text);
    while ((line = strsep(&rest, "\n")) != NULL) {
        size_t len = strlen(controller);

        if (strncmp(line, controller, len) == 0 && line[len] == '\t')
            return strtoul(line + len, NULL, 10) != 0;
    }
    return false;
}

static int check_controllers(const struct cgroups *cgroups)
{
    char text[512];

    read_file(cgroups->own, "cgroup.controllers", text, sizeof text);
    for (int i = 0; i < N_CONTROLLERS; i++) {
        if (!cgroups->is_needed[i] || has_word(text, controllers[i]))
            continue;
        log_error("cgroup_%s cannot be had: control group %s has no controller \"%s\"; %s", controllers[i],
                  cgroups->own, controllers[i],
                  is_taken_by_v1(controllers[i])
                      ? "cgroup v1 has it: start the machine with systemd.unified_cgroup_hierarchy=1"
                      : "set Delegate=yes in the server's systemd unit, or enable it in the group above");
        return -1;
    }
    return 0;
}

static void say_not_enabled(const char *group, const char *controller, int error)
{
    char text[64];
    long pid;

    read_file(group, "cgroup.procs", text, sizeof text);
    pid = strtol(text, NULL, 10);
    if (error == -EBUSY && pid > 0)
        log_error("cgroup_%s cannot be had: process %ld is in the server's control group %s too; give the server a "
                  "group of its own: a systemd unit, or systemd-run --scope, with Delegate=yes",
                  controller, pid, group);
    else
        log_error("cgroup_%s cannot be had: controller \"%s\" cannot be enabled in control group %s: %s; set "
                  "Delegate=yes in the server's systemd unit",
                  controller, controller, group, strerror(-error));
}

/* For the children of `group`. Notes in `enabled`, unless NULL, which ones were not before. */
static int enable(const struct cgroups *cgroups, const char *group, bool *enabled)
{
    char text[512], word[32];

    read_file(group, "cgroup.subtree_control", text, sizeof text);
    for (int i = 0; i < N_CONTROLLERS; i++) {
        if (!cgroups->is_needed[i] || has_word(text, controllers[i]))
            continue;
        snprintf(word, sizeof word, "+%s", controllers[i]);
        int error = write_file(group, "cgroup.subtree_control", word);
        if (error != 0) {
            say_not_enabled(group, controllers[i], error);
            return -1;
        }
        if (enabled != NULL)
            enabled[i] = true;
    }
    return 0;
}

static void disable(const char *group, const bool *which)
{
    char word[32];

    for (int i = 0; i < N_CONTROLLERS; i++) {
        snprintf(word, sizeof word, "-%s", controllers[i]);
        if (which[i])
            write_file(group, "cgroup.subtree_control", word);
    }
}

/* ---- making them ---- */

static int enter_server_group(const struct cgroups *cgroups)
{
    char server[ROOM + 32];
    int error;

    server_group(cgroups, server);
    error =
        mkdir(cgroups->top, 0755) != 0 || mkdir(server, 0755) != 0 ? -errno : write_file(server, "cgroup.procs", "0");
    if (error != 0)
        log_error("control group %s is not this server's to divide: %s; set Delegate=yes in its systemd unit, or leave "
                  "cgroup_memory, cgroup_pids and cgroup_cpu out",
                  cgroups->own, strerror(-error));
    return error;
}

static int set_limits(const char *group, const struct config_cgroup *limits)
{
    char text[64];
    int error = 0;

    if (limits->memory != 0) {
        snprintf(text, sizeof text, "%" PRIu64, limits->memory);
        error = write_file(group, "memory.max", text);
        if (error == 0) {
            error = write_file(group, "memory.swap.max", "0");
            error = error == -ENOENT ? 0 : error; /* a kernel without swap */
        }
    }
    if (error == 0 && limits->pids != 0) {
        snprintf(text, sizeof text, "%u", limits->pids);
        error = write_file(group, "pids.max", text);
    }
    if (error == 0 && limits->cpu != 0) {
        snprintf(text, sizeof text, "%" PRIu64 " %d", (uint64_t)limits->cpu * (CPU_PERIOD_US / 100), CPU_PERIOD_US);
        error = write_file(group, "cpu.max", text);
    }
    return error;
}

static int open_file(const char *group, const char *name, int flags)
{
    char path[ROOM + 64];

    snprintf(path, sizeof path, "%s/%s", group, name);
    int fd = open(path, flags | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

static int make_group(struct cgroups *cgroups, const struct config_route *route)
{
    struct cgroup *group = &cgroups->routes[route->index];
    char path[ROOM + 32];

    route_group(cgroups, route->index, path);
    int error = mkdir(path, 0755) != 0 ? -errno : set_limits(path, &route->cgroup);
    int fd = error == 0 ? open_file(path, "cgroup.procs", O_WRONLY) : error;
    if (fd < 0) {
        log_error("route %s: control group %s cannot be made: %s; check its limits, and that the server may write "
                  "there",
                  route->text, path, strerror(-fd));
        return -1;
    }
    group->procs_fd = fd;
    fd = route->cgroup.memory != 0 ? open_file(path, "memory.events", O_RDONLY) : 0;
    group->events_fd = fd > 0 ? fd : 0;
    return 0;
}

static int make_all(struct cgroups *cgroups, const struct config *config)
{
    if (find_own(cgroups) != 0 || check_controllers(cgroups) != 0)
        return -1;
    if (enter_server_group(cgroups) != 0 || enable(cgroups, cgroups->own, cgroups->was_enabled) != 0 ||
        enable(cgroups, cgroups->top, NULL) != 0)
        goto fail;
    for (size_t i = 0; i < config->n_routes; i++)
        if (is_wanted(config->routes[i]) && make_group(cgroups, config->routes[i]) != 0)
            goto fail;
    return 0;
fail:
    cgroups_remove(cgroups);
    return -1;
}

int cgroups_create(const struct config *config, struct cgroups **cgroups_out)
{
    struct cgroups *cgroups = memory_zeroed(1, sizeof *cgroups);
    bool is_needed = false;

    *cgroups_out = NULL;
    cgroups->n_routes = config->n_routes;
    cgroups->routes = memory_zeroed(config->n_routes + 1, sizeof *cgroups->routes);
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_cgroup *limits = &config->routes[i]->cgroup;

        is_needed |= is_wanted(config->routes[i]);
        cgroups->is_needed[MEMORY] |= limits->memory != 0;
        cgroups->is_needed[PIDS] |= limits->pids != 0;
        cgroups->is_needed[CPU] |= limits->cpu != 0;
    }
    int error = is_needed ? make_all(cgroups, config) : 0;
    if (error == 0 && is_needed)
        *cgroups_out = cgroups;
    else
        cgroups_free(cgroups);
    return error;
}

/* ---- using them ---- */

int cgroups_entrance(const struct cgroups *cgroups, unsigned route)
{
    return cgroups != NULL && route < cgroups->n_routes ? cgroups->routes[route].procs_fd : 0;
}

unsigned cgroups_memory_kills(struct cgroups *cgroups, unsigned route)
{
    struct cgroup *group = cgroups != NULL && route < cgroups->n_routes ? &cgroups->routes[route] : NULL;
    char text[512];

    if (group == NULL || group->events_fd == 0)
        return 0;
    ssize_t n = pread(group->events_fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    const char *at = strstr(text, "oom_kill ");
    uint64_t before = group->n_killed;
    group->n_killed = at != NULL ? strtoull(at + strlen("oom_kill "), NULL, 10) : before;
    return (unsigned)(group->n_killed - before);
}

/* ---- removing them ---- */

static bool is_populated(const char *group)
{
    char text[256];

    read_file(group, "cgroup.events", text, sizeof text);
    return strstr(text, "populated 1") != NULL;
}

/* Does `act` for each process of the group; they are read anew each time. */
static void for_each_process(const char *group, void (*act)(const char *pid, const void *arg), const void *arg)
{
    char text[4096], *rest = text, *pid;

    read_file(group, "cgroup.procs", text, sizeof text);
    char *end = strrchr(text, '\n'); /* what is cut comes in the next round */
    if (end != NULL)
        *end = '\0';
    while ((pid = strsep(&rest, "\n")) != NULL)
        if (pid[0] != '\0')
            act(pid, arg);
}

static void kill_one(const char *pid, const void *arg)
{
    long number = strtol(pid, NULL, 10);

    (void)arg;
    if (number > 1)
        kill((pid_t)number, SIGKILL);
}

static void move_one(const char *pid, const void *arg)
{
    write_file(arg, "cgroup.procs", pid);
}

static void kill_all(const char *group)
{
    if (write_file(group, "cgroup.kill", "1") != 0) /* Linux 5.14 */
        for_each_process(group, kill_one, NULL);
}

/* Acts until the group is empty, and removes it. The kernel tells of each change by POLLPRI. */
static void empty_and_remove(const struct cgroups *cgroups, const char *group, bool is_route)
{
    int fd = open_file(group, "cgroup.events", O_RDONLY);
    struct pollfd change = {.fd = fd, .events = POLLPRI};

    for (int i = 0; i < MOST_WAITS && fd >= 0 && is_populated(group); i++) {
        if (is_route)
            kill_all(group);
        else
            for_each_process(group, move_one, cgroups->own);
        if (is_populated(group))
            poll(&change, 1, WAIT_MS);
    }
    if (fd >= 0)
        close(fd);
    rmdir(group);
}

void cgroups_remove(const struct cgroups *cgroups)
{
    char path[ROOM + 32];

    if (cgroups == NULL)
        return;
    for (size_t i = 0; i < cgroups->n_routes; i++) {
        route_group(cgroups, i, path);
        if (access(path, F_OK) == 0)
            empty_and_remove(cgroups, path, true);
    }
    disable(cgroups->top, cgroups->is_needed);
    disable(cgroups->own, cgroups->was_enabled);
    server_group(cgroups, path);
    empty_and_remove(cgroups, path, false);
    rmdir(cgroups->top);
}

void cgroups_free(struct cgroups *cgroups)
{
    if (cgroups == NULL)
        return;
    for (size_t i = 0; i < cgroups->n_routes; i++) {
        if (cgroups->routes[i].procs_fd > 0)
            close(cgroups->routes[i].procs_fd);
        if (cgroups->routes[i].events_fd > 0)
            close(cgroups->routes[i].events_fd);
    }
    free(cgroups->routes);
    free(cgroups);
}
