#include "process/diagnose.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_LINE = 256 };

/* The first line of the file, without its LF, NUL-terminated; its length, or -1. */
static ssize_t first_line(const char *path, char line[FIRST_LINE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, line, FIRST_LINE - 1) : -1;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return -1;
    line[n] = '\0';
    char *end = memchr(line, '\n', (size_t)n);
    if (end == NULL)
        return n;
    *end = '\0';
    return end - line;
}

/* The interpreter of a "#!" line, cut out of it in place; NULL when the line is none. */
static char *interpreter_of(char *line)
{
    if (line[0] != '#' || line[1] != '!')
        return NULL;
    char *at = line + 2 + strspn(line + 2, " \t");
    at[strcspn(at, " \t")] = '\0';
    return at;
}

static void missing(char *text, size_t size, const char *program)
{
    char line[FIRST_LINE];
    if (first_line(program, line) < 0) {
        snprintf(text, size, "%s; correct the path or create the file", strerror(ENOENT));
        return;
    }
    char *interpreter = interpreter_of(line);
    if (interpreter == NULL)
        snprintf(text, size, "its ELF interpreter or a library is missing; is it built for this system?");
    else if (strchr(interpreter, '\r') != NULL)
        snprintf(text, size,
                 "its \"#!\" line ends in CR LF, so the interpreter is not found; "
                 "save the file with LF line ends");
    else
        snprintf(text, size, "interpreter \"%s\" of its \"#!\" line is not there; install it or correct the line",
                 interpreter);
}

/* The first directory above the program that may not be searched, in `path`; false when all may. */
static bool closed_directory(const char *program, char *path, size_t size)
{
    for (const char *slash = program; (slash = strchr(slash + 1, '/')) != NULL;) {
        snprintf(path, size, "%.*s", (int)(slash - program), program);
        if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0)
            return true;
    }
    return false;
}

static void denied(char *text, size_t size, const char *program)
{
    char path[4096];
    struct stat about;

    if (closed_directory(program, path, sizeof path))
        snprintf(text, size, "directory %s may not be entered; chmod +x it", path);
    else if (stat(program, &about) == 0 && !S_ISREG(about.st_mode))
        snprintf(text, size, "is no regular file");
    else if (faccessat(AT_FDCWD, program, X_OK, AT_EACCESS) != 0)
        snprintf(text, size, "no execute permission; chmod +x it");
    else
        snprintf(text, size,
                 "may not be executed; is its interpreter executable, its file system mounted noexec, "
                 "or its user kept from it?");
}

static void not_executable(char *text, size_t size, const char *program)
{
    char line[FIRST_LINE];
    ssize_t len = first_line(program, line);

    if (len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
        snprintf(text, size, "begins with a byte order mark; save it without");
    else if (len >= 4 && memcmp(line, "\177ELF", 4) == 0)
        snprintf(text, size, "is built for another kind of machine");
    else
        snprintf(text, size, "is neither a program of this system nor a script with a \"#!\" first line");
}

void diagnose_start(char *text, size_t size, const char *program, enum spawn_stage stage, int error)
{
    static const char *const stages[] = {
        [SPAWN_FORK] = "no process could be made for it", [SPAWN_LIMITS] = "its resource limits could not be set",
        [SPAWN_USER] = "its user could not be set",       [SPAWN_DIRECTORY] = "its directory could not be entered",
        [SPAWN_EXEC] = "it could not be executed",
    };

    if (stage == SPAWN_EXEC && error == ENOENT)
        missing(text, size, program);
    else if (stage == SPAWN_EXEC && error == EACCES)
        denied(text, size, program);
    else if (stage == SPAWN_EXEC && error == ENOEXEC)
        not_executable(text, size, program);
    else
        snprintf(text, size, "%s: %s", stages[stage], strerror(error));
}

void diagnose_end(char *text, size_t size, int status)
{
    const char *name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;

    if (name != NULL)
        snprintf(text, size, "was killed by signal %d (SIG%s)", WTERMSIG(status), name);
    else if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, size, "exited with status %d", WEXITSTATUS(status));
}
