#include "process/warden.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/spawn.h"

struct wards *wards_create(void)
{
    void *at = mmap(NULL, sizeof(struct wards), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        abort();
    return at;
}

void wards_forget(struct wards *wards)
{
    munmap(wards, sizeof *wards);
}

static void remove_sockets(const struct wards *wards)
{
    DIR *dir = wards->socket_dir[0] != '\0' ? opendir(wards->socket_dir) : NULL;

    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(wards->socket_dir);
}

static void end_groups(struct wards *wards)
{
    for (int i = 0; i < SCOREBOARD_PROGRAMS; i++) {
        pid_t group = wards->groups[i];

        if (group > 1)
            kill(-group, SIGKILL);
    }
}

static void watch(int keeper_fd, struct wards *wards, const struct cgroups *cgroups)
{
    char byte;
    ssize_t n;

    prctl(PR_SET_NAME, "gatehouse-wardn");
    setsid(); /* what a terminal sends to the keeper's group must not end the warden before its time */
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    if (keeper_fd > 3)
        close_range(3, (unsigned)keeper_fd - 1, 0);
    close_range((unsigned)keeper_fd + 1, ~0U, 0);
    do
        n = read(keeper_fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    end_groups(wards);
    cgroups_remove(cgroups);
    remove_sockets(wards);
    _exit(0);
}

int warden_start(struct warden *warden_out, struct wards *wards, const struct cgroups *cgroups)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    pid_t pid = spawn_self(1);
    if (pid == 0) {
        close(fds[1]);
        watch(fds[0], wards, cgroups);
    }
    close(fds[0]);
    if (pid < 0) {
        close(fds[1]);
        return (int)pid;
    }
    *warden_out = (struct warden){pid, fds[1]};
    return 0;
}

void warden_dismiss(struct warden *warden)
{
    close(warden->fd);
    if (warden->pid == 0)
        return;
    while (waitpid(warden->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}
