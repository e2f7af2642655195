/*
 * The built-in table answers first: it is what browsers expect today, where /etc/mime.types has kept some older names.
 * Both are sorted by extension and searched by halves.
 */
#include "site/mime.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "base/memory.h"

struct type {
    const char *extension; /* lower case */
    const char *name;
};

#define UTF8 "; charset=utf-8"

static const struct type builtin[] = {
    {"7z", "application/x-7z-compressed"},
    {"aac", "audio/aac"},
    {"apng", "image/apng"},
    {"atom", "application/atom+xml"},
    {"avif", "image/avif"},
    {"bmp", "image/bmp"},
    {"bz2", "application/x-bzip2"},
    {"c", "text/plain" UTF8},
    {"cjs", "text/javascript" UTF8},
    {"conf", "text/plain" UTF8},
    {"css", "text/css" UTF8},
    {"csv", "text/csv" UTF8},
    {"diff", "text/plain" UTF8},
    {"epub", "application/epub+zip"},
    {"flac", "audio/flac"},
    {"gif", "image/gif"},
    {"gz", "application/gzip"},
    {"h", "text/plain" UTF8},
    {"htm", "text/html" UTF8},
    {"html", "text/html" UTF8},
    {"ico", "image/x-icon"},
    {"ics", "text/calendar" UTF8},
    {"ini", "text/plain" UTF8},
    {"jpeg", "image/jpeg"},
    {"jpg", "image/jpeg"},
    {"js", "text/javascript" UTF8},
    {"json", "application/json"},
    {"jsonld", "application/ld+json"},
    {"jxl", "image/jxl"},
    {"log", "text/plain" UTF8},
    {"m4a", "audio/mp4"},
    {"map", "application/json"},
    {"md", "text/markdown" UTF8},
    {"mjs", "text/javascript" UTF8},
    {"mp3", "audio/mpeg"},
    {"mp4", "video/mp4"},
    {"oga", "audio/ogg"},
    {"ogg", "audio/ogg"},
    {"ogv", "video/ogg"},
    {"opus", "audio/ogg"},
    {"otf", "font/otf"},
    {"patch", "text/plain" UTF8},
    {"pdf", "application/pdf"},
    {"png", "image/png"},
    {"rss", "application/rss+xml"},
    {"sha256", "text/plain" UTF8},
    {"svg", "image/svg+xml"},
    {"tar", "application/x-tar"},
    {"tgz", "application/gzip"},
    {"tif", "image/tiff"},
    {"tiff", "image/tiff"},
    {"ttf", "font/ttf"},
    {"txt", "text/plain" UTF8},
    {"vtt", "text/vtt" UTF8},
    {"wasm", "application/wasm"},
    {"wav", "audio/wav"},
    {"weba", "audio/webm"},
    {"webm", "video/webm"},
    {"webmanifest", "application/manifest+json"},
    {"webp", "image/webp"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"xhtml", "application/xhtml+xml"},
    {"xml", "application/xml"},
    {"xz", "application/x-xz"},
    {"yaml", "application/yaml"},
    {"yml", "application/yaml"},
    {"zip", "application/zip"},
    {"zst", "application/zstd"},
};

/* Where a type's strings begin in `names` as long as that grows and moves. */
struct offsets {
    size_t extension, name;
};

/* What mime_load() read; all names are in `names`. */
static struct {
    char *names;
    struct type *at;
    size_t n;
} loaded;

/* Of equal extensions the one that the file names first comes first. */
static int compare_types(const void *a, const void *b)
{
    const struct type *left = a, *right = b;
    int order = strcmp(left->extension, right->extension);

    return order != 0 ? order : (left->extension > right->extension) - (left->extension < right->extension);
}

/* Compares as strcasecmp() would in the C locale. */
static int compare_extension(const void *key, const void *element)
{
    const struct span *wanted = key;
    const char *known = ((const struct type *)element)->extension;
    int order = strncasecmp(wanted->at, known, wanted->len);

    return order != 0 ? order : known[wanted->len] == '\0' ? 0 : -1;
}

/* The whole file with a NUL behind it; NULL when it cannot be read. */
static char *read_text(const char *path)
{
    FILE *file = fopen(path, "re");
    struct buffer text = {0};
    size_t n;

    if (file == NULL)
        return NULL;
    while ((n = fread(buffer_reserve(&text, BUFSIZ), 1, BUFSIZ, file)) > 0)
        buffer_added(&text, n);
    fclose(file);
    buffer_append(&text, "", 1);
    return text.memory;
}

/* "text/html html htm": one type, then its extensions. `names` gets what mime_type() returns. */
static void read_line(char *line, struct buffer *names, struct buffer *types)
{
    static const char blanks[] = " \t\r";
    char *rest = NULL;
    const char *name, *extension;
    size_t name_at = buffer_len(names);

    line[strcspn(line, "#")] = '\0';
    name = strtok_r(line, blanks, &rest);
    if (name == NULL || (extension = strtok_r(NULL, blanks, &rest)) == NULL)
        return;
    buffer_append_span(names, span_of(name));
    if (span_starts(span_of(name), SPAN("text/")))
        buffer_append_span(names, SPAN(UTF8));
    buffer_append(names, "", 1);
    for (; extension != NULL; extension = strtok_r(NULL, blanks, &rest)) {
        struct offsets offsets = {buffer_len(names), name_at};

        for (const char *c = extension; *c != '\0'; c++)
            buffer_append(names, &(char){(char)(*c >= 'A' && *c <= 'Z' ? *c | 0x20 : *c)}, 1);
        buffer_append(names, "", 1);
        buffer_append(types, &offsets, sizeof offsets);
    }
}

static void sort_loaded(void)
{
    size_t n = 0;

    qsort(loaded.at, loaded.n, sizeof *loaded.at, compare_types);
    for (size_t i = 0; i < loaded.n; i++) {
        if (n == 0 || strcmp(loaded.at[n - 1].extension, loaded.at[i].extension) != 0)
            loaded.at[n++] = loaded.at[i];
    }
    loaded.n = n;
}

void mime_load(const char *path)
{
    char *text = read_text(path), *rest = NULL;
    struct buffer names = {0}, types = {0};

    mime_free();
    if (text == NULL)
        return;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        read_line(line, &names, &types);
    free(text);
    loaded.names = names.memory;
    loaded.at = memory_zeroed(buffer_len(&types) / sizeof(struct offsets) + 1, sizeof *loaded.at);
    for (struct offsets offsets; buffer_len(&types) > 0; buffer_consume(&types, sizeof offsets)) {
        memcpy(&offsets, buffer_at(&types), sizeof offsets);
        loaded.at[loaded.n++] = (struct type){names.memory + offsets.extension, names.memory + offsets.name};
    }
    buffer_free(&types);
    sort_loaded();
}

void mime_free(void)
{
    free(loaded.names);
    free(loaded.at);
    memset(&loaded, 0, sizeof loaded);
}

const char *mime_type(struct span file_name)
{
    const char *dot = file_name.len > 0 ? memrchr(file_name.at, '.', file_name.len) : NULL;
    const struct type *found = NULL;
    struct span extension;

    if (dot == NULL || memchr(dot, '\0', file_name.len - (size_t)(dot - file_name.at)) != NULL)
        return "application/octet-stream";
    extension = span_from(file_name, (size_t)(dot - file_name.at) + 1);
    found = bsearch(&extension, builtin, sizeof builtin / sizeof *builtin, sizeof *builtin, compare_extension);
    if (found == NULL && loaded.n > 0)
        found = bsearch(&extension, loaded.at, loaded.n, sizeof *loaded.at, compare_extension);
    return found != NULL ? found->name : "application/octet-stream";
}
