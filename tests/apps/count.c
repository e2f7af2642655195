/*
 * A FastCGI application (libfcgi) that is a CGI program as well. It says which process answers, how many requests that
 * process has seen, and what body came: "pid=4711 count=3 length=5 crc=3610a686".
 *
 * Words of the query, joined by "&", make it do something else, in this order:
 *   stderr=TEXT  one line to the protocol's standard error; fd2=TEXT  one to descriptor 2
 *   wait=PATH    "first", flushed; the rest only when the file PATH is there
 *   started=PATH makes the file PATH, with the process's id in it
 *   hang         does nothing for good
 *   exit=N       ends at once, with that status, before any answer; abort  the same by SIGABRT
 *   bytes=N      N bytes of "x" before all else of the body
 *   echo         the body, byte for byte, as it comes
 *   nocrc        no sum of the body, which takes longer than all else when it is large
 */
#include <fcgi_stdio.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The value of a word of the query, in `value`; NULL when it is not there. */
static const char *word(const char *name, char value[1024])
{
    const char *at = getenv("QUERY_STRING");
    size_t len = strlen(name);

    while (at != NULL && *at != '\0') {
        size_t end = strcspn(at, "&");

        if (end >= len && end < 1024 && strncmp(at, name, len) == 0 && (end == len || at[len] == '=')) {
            snprintf(value, 1024, "%.*s", end == len ? 0 : (int)(end - len - 1), at + len + 1);
            return value;
        }
        at += end + (at[end] == '&');
    }
    return NULL;
}

static void touch(const char *path)
{
    char text[32], draft[1100];
    FILE *file;

    snprintf(text, sizeof text, "%d\n", (int)getpid());
    snprintf(draft, sizeof draft, "%s.draft", path);
    file = fopen(draft, "w");
    if (file == NULL)
        return;
    fputs(text, file);
    fclose(file);
    rename(draft, path);
}

static uint32_t crc32_add(uint32_t crc, const unsigned char *at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
    }
    return crc;
}

static void before_the_head(void)
{
    char value[1024];

    if (word("stderr", value) != NULL)
        fprintf(stderr, "%s\n", value);
    if (word("fd2", value) != NULL)
        dprintf(STDERR_FILENO, "%s\n", value);
    if (word("started", value) != NULL)
        touch(value);
    while (word("hang", value) != NULL)
        pause();
    if (word("exit", value) != NULL)
        _exit(atoi(value));
    if (word("abort", value) != NULL)
        abort();
}

static void answer(unsigned count)
{
    static unsigned char piece[65536];
    char value[1024];
    uint32_t crc = 0xffffffffu;
    unsigned long long length = 0;
    size_t n;
    int echo = word("echo", value) != NULL, nocrc = word("nocrc", value) != NULL;

    before_the_head();
    printf("Content-Type: text/plain\r\n\r\n");
    if (word("wait", value) != NULL) {
        printf("first\n");
        fflush(stdout);
        while (access(value, F_OK) != 0)
            usleep(2000);
        printf("last\n");
    }
    if (word("bytes", value) != NULL) {
        memset(piece, 'x', sizeof piece);
        for (unsigned long long left = strtoull(value, NULL, 10); left > 0; left -= n) {
            n = left < sizeof piece ? (size_t)left : sizeof piece;
            fwrite(piece, 1, n, stdout);
        }
    }
    while ((n = fread(piece, 1, sizeof piece, stdin)) > 0) {
        crc = nocrc ? crc : crc32_add(crc, piece, n);
        length += n;
        if (echo)
            fwrite(piece, 1, n, stdout);
    }
    if (!echo)
        printf("pid=%d count=%u length=%llu crc=%08x\n", (int)getpid(), count, length, ~crc);
}

int main(void)
{
    unsigned count = 0;

    while (FCGI_Accept() >= 0)
        answer(++count);
    return 0;
}
