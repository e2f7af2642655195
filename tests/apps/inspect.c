/*
 * Prints what it was started with, a CGI program and a FastCGI application (libfcgi) alike: everything under "process"
 * was looked at first thing in main(), before any library could change it.
 */
#include <fcgi_stdio.h>

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static char found[262144];
static size_t n_found;

#define NOTE(...) (n_found += (size_t)snprintf(found + n_found, sizeof found - n_found, __VA_ARGS__))

static void note_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char path[300], target[512];
        ssize_t len;

        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        len = readlink(path, target, sizeof target - 1);
        NOTE("fd %s %.*s\n", entry->d_name, len > 0 ? (int)len : 0, target);
    }
    if (dir != NULL)
        closedir(dir);
}

static void note_status(void)
{
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);

    close(fd);
    text[n > 0 ? n : 0] = '\0';
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strncmp(line, "Sig", 3) == 0 || strncmp(line, "NoNewPrivs", 10) == 0)
            NOTE("status %s\n", line);
    }
}

static void note_process(int argc, char **argv)
{
    static const struct {
        const char *name;
        __rlimit_resource_t which;
    } limits[] = {{"as", RLIMIT_AS},
                  {"cpu", RLIMIT_CPU},
                  {"nproc", RLIMIT_NPROC},
                  {"files", RLIMIT_NOFILE},
                  {"core", RLIMIT_CORE}};
    static char cwd[4096];
    struct rlimit limit;
    gid_t groups[64];
    int n;

    note_descriptors();
    note_status();
    NOTE("pid %d\npgid %d\nsid %d\n", (int)getpid(), (int)getpgid(0), (int)getsid(0));
    NOTE("uid %d\neuid %d\ngid %d\n", (int)getuid(), (int)geteuid(), (int)getgid());
    n = getgroups(64, groups);
    for (int i = 0; i < n; i++)
        NOTE("group %d\n", (int)groups[i]);
    NOTE("cwd %s\n", getcwd(cwd, sizeof cwd) != NULL ? cwd : "?");
    n = (int)umask(0);
    umask((mode_t)n);
    NOTE("umask %03o\n", (unsigned)n);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        getrlimit(limits[i].which, &limit);
        NOTE("limit %s %lld\n", limits[i].name, (long long)limit.rlim_cur);
    }
    for (int i = 0; i < argc; i++)
        NOTE("arg %d %s\n", i, argv[i]);
    for (char **entry = environ; *entry != NULL; entry++)
        NOTE("own %s\n", *entry);
}

int main(int argc, char **argv)
{
    note_process(argc, argv);
    while (FCGI_Accept() >= 0) {
        printf("Content-Type: text/plain\r\n\r\n");
        fwrite(found, 1, n_found, stdout);
        for (char **entry = environ; *entry != NULL; entry++)
            printf("env %s\n", *entry);
    }
    return 0;
}
