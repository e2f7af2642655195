/*
 * Runs a fuzz target over the files of the directories that are given: a fuzzer's seeds, as a test. The name of each
 * file is printed before it is run, so that the last one is the culprit. A directory without files is a failure.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *path)
{
    perror(path);
    exit(1);
}

/* From memory of just the file's size: reading on is seen. */
static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    uint8_t *bytes;
    size_t len;

    if (file == NULL || fstat(fileno(file), &status) != 0)
        fail(path);
    bytes = malloc((size_t)status.st_size + (status.st_size == 0));
    if (bytes == NULL)
        fail(path);
    len = fread(bytes, 1, (size_t)status.st_size, file);
    if (len != (size_t)status.st_size)
        fail(path);
    fclose(file);
    puts(path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(bytes, len);
    free(bytes);
}

static unsigned run_directory(const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    unsigned n_files = 0;

    if (n < 0)
        fail(path);
    for (int i = 0; i < n; i++) {
        char file[4096];

        if (entries[i]->d_name[0] != '.') {
            snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
            run_file(file);
            n_files++;
        }
        free(entries[i]);
    }
    free(entries);
    return n_files;
}

int main(int argc, char **argv)
{
    unsigned n_files = 0;

    for (int i = 1; i < argc; i++) {
        unsigned n = run_directory(argv[i]);

        if (n == 0) {
            fprintf(stderr, "%s: no seeds\n", argv[i]);
            return 1;
        }
        n_files += n;
    }
    printf("%u files\n", n_files);
    return n_files > 0 ? 0 : 1;
}
