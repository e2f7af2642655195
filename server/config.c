/*
 * From a file to lines, from lines to sections and settings, and the public functions.
 *
 * inih reads the settings, but what it does not tell is watched by the reader that hands it the lines: their numbers,
 * the sections' headers (inih cuts them at 49 bytes and says nothing of an empty section), lines too long for its
 * buffer, and lines that it makes no setting of. White space before a key is taken away first, since inih would take
 * the line for a continuation of the one above.
 *
 *     [pool php]              a header: inih gets an empty line
 *     command = php-cgi ; x   a setting: inih takes it apart and calls on_setting()
 */
#include "config.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "config_keys.h"
#include "config_text.h"

enum { FILE_MAX = 1024 * 1024 };

/* Freeing. Every part may be missing: what is half built is freed too. */

static void free_words(struct config_words *words)
{
    for (size_t i = 0; i < words->n; i++)
        free(words->at[i]);
    free(words->at);
}

static void free_pairs(struct config_pairs *pairs)
{
    for (size_t i = 0; i < pairs->n; i++) {
        free(pairs->at[i].name);
        free(pairs->at[i].value);
    }
    free(pairs->at);
}

static void free_addresses(struct config_addresses *addresses)
{
    for (size_t i = 0; i < addresses->n; i++)
        free(addresses->at[i].text);
    free(addresses->at);
}

static void free_remotes(struct config_remotes *remotes)
{
    for (size_t i = 0; i < remotes->n; i++) {
        free(remotes->at[i].text);
        free(remotes->at[i].name);
    }
    free(remotes->at);
}

static void free_route(struct config_route *route)
{
    free(route->text);
    free(route->pattern);
    free(route->dir);
    free(route->program);
    free(route->to);
    free_pairs(&route->interpreters);
    free(route->pool_name);
    free(route->identity);
    free(route->user.name);
    free_pairs(&route->env);
    free_words(&route->pass_env);
    free_words(&route->sendfile_dirs);
    free_words(&route->variables);
    free(route);
}

static void free_site(struct config_site *site)
{
    free_words(&site->names);
    free_words(&site->hidden);
    free_words(&site->candidates);
    free_pairs(&site->error_pages);
    free(site->root);
    free_words(&site->index_files);
    free(site->routes);
    free(site->identity);
    free(site);
}

static void free_pool(struct config_pool *pool)
{
    free(pool->name);
    free_words(&pool->command);
    free_remotes(&pool->servers);
    free(pool->hash_cookie);
    free(pool->health.path);
    free(pool->user.name);
    free(pool->chdir);
    free(pool->slowlog);
    free(pool->identity);
    free_pairs(&pool->env);
    free_words(&pool->pass_env);
    free(pool);
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->n_routes; i++)
        free_route(config->routes[i]);
    for (size_t i = 0; i < config->n_sites; i++)
        free_site(config->sites[i]);
    for (size_t i = 0; i < config->n_pools; i++)
        free_pool(config->pools[i]);
    free(config->routes);
    free(config->sites);
    free(config->pools);
    free_addresses(&config->server.listen);
    free(config->server.user.name);
    free(config->server.access_log);
    free(config->server.status);
    free(config->server.status_allow.at);
    free(config->server.error_log);
    free(config->server.temp_dir);
    free(config->server.resolver);
    free(config->file);
    free(config->directory);
    free(config);
}

/* Errors. */

bool reading_refuse(struct reading *r, unsigned line, const char *format, ...)
{
    struct reading_error *error;
    va_list args;
    int len;

    r->errors = memory_resize(r->errors, (r->n_errors + 1) * sizeof *r->errors);
    error = &r->errors[r->n_errors];
    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    error->line = line;
    error->order = (unsigned)r->n_errors++;
    error->text = memory_zeroed((size_t)len + 1, 1);
    va_start(args, format);
    vsnprintf(error->text, (size_t)len + 1, format, args);
    va_end(args);
    return false;
}

/* By line, those of no line last; within a line as they were found. */
static int compare_errors(const void *a, const void *b)
{
    const struct reading_error *left = a, *right = b;

    if (left->line != right->line)
        return left->line - 1 < right->line - 1 ? -1 : 1;
    return left->order < right->order ? -1 : 1;
}

static void write_errors(struct reading *r, FILE *to)
{
    if (r->n_errors > 0)
        qsort(r->errors, r->n_errors, sizeof *r->errors, compare_errors);
    for (size_t i = 0; i < r->n_errors; i++) {
        const struct reading_error *error = &r->errors[i];

        if (error->line > 0)
            fprintf(to, "%s:%u: %s\n", r->config->file, error->line, error->text);
        else
            fprintf(to, "%s: %s\n", r->config->file, error->text);
    }
}

/* Lines. */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next line, without the white space around it. */
static struct span next_line(struct reading *r)
{
    struct span line = {r->rest, strcspn(r->rest, "\n")};

    r->rest += line.len + (r->rest[line.len] == '\n');
    r->line++;
    while (line.len > 0 && is_blank(line.at[0]))
        line = span_from(line, 1);
    while (line.len > 0 && is_blank(line.at[line.len - 1]))
        line.len--;
    return line;
}

static bool check_bytes(struct reading *r, struct span line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.at[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return reading_refuse(r, r->line, "a control byte, 0x%02x, in the line; remove it", c);
    }
    return true;
}

static void take_header(struct reading *r, struct span line)
{
    const char *end = memchr(line.at, ']', line.len);
    struct config_words words = {0};
    char *text;

    section_end(r);
    r->section = SECTION_FAULTY;
    if (end == NULL) {
        reading_refuse(r, r->line, "\"]\" is missing");
        return;
    }
    text = memory_copy(line.at + 1, (size_t)(end - line.at) - 1);
    line = span_from(line, (size_t)(end - line.at) + 1);
    while (line.len > 0 && is_blank(line.at[0]))
        line = span_from(line, 1);
    if (line.len > 0 && line.at[0] != ';')
        reading_refuse(r, r->line, "\"%.*s\" stands behind the \"]\"", (int)line.len, line.at);
    if (text_to_words(text, &words))
        section_begin(r, &words);
    else
        reading_refuse(r, r->line, "a '\"' is not closed");
    free(text);
    free_words(&words);
}

/* ini_reader: the next line for inih, without its LF; an empty one where inih has nothing to do. */
static char *read_line(char *to, int size, void *stream)
{
    struct reading *r = stream;
    struct span line;

    if (r->is_unanswered)
        reading_refuse(r, r->line, "this line is no \"key = value\"");
    r->is_unanswered = false;
    if (*r->rest == '\0')
        return NULL;
    line = next_line(r);
    to[0] = '\0';
    if (line.len == 0 || line.at[0] == ';' || line.at[0] == '#' || !check_bytes(r, line))
        return to;
    if (line.at[0] == '[') {
        take_header(r, line);
    } else if (line.len > (size_t)size - 2) {
        reading_refuse(r, r->line, "line longer than %d bytes", size - 2);
    } else {
        memcpy(to, line.at, line.len);
        to[line.len] = '\0';
        r->is_unanswered = true;
    }
    return to;
}

/* ini_handler */
static int on_setting(void *arg, const char *section, const char *name, const char *value)
{
    struct reading *r = arg;

    (void)section;
    /* inih takes ":" for "=" too: "listen 127.0.0.1:80" has come here as "listen 127.0.0.1" = "80". */
    if (*name == '\0' || (strpbrk(name, " \t") != NULL && strchr(name, '[') == NULL))
        return 1;
    r->is_unanswered = false;
    if (r->section == SECTION_NONE)
        reading_refuse(r, r->line, "\"%s\" stands before the first section", name);
    else if (r->section != SECTION_FAULTY)
        key_take(r, name, value);
    return 1;
}

static void reading_free(struct reading *r)
{
    for (size_t i = 0; i < r->n_errors; i++)
        free(r->errors[i].text);
    free(r->errors);
    free(r->references);
    buffer_free(&r->identity);
}

struct config *config_parse(const char *name, const char *text, const char *directory, FILE *errors)
{
    const struct span byte_order_mark = SPAN("\xef\xbb\xbf");
    struct config *config = memory_zeroed(1, sizeof *config);
    struct reading r = {.config = config, .rest = text};

    config->file = memory_copy(name, strlen(name));
    config->directory = realpath(directory, NULL);
    if (config->directory == NULL)
        config->directory = memory_copy(directory, strlen(directory));
    if (span_starts(span_of(text), byte_order_mark))
        r.rest += byte_order_mark.len;

    ini_parse_stream(read_line, &r, on_setting, &r); /* what it would return, read_line() has said */
    r.line = 0;
    section_end(&r);
    sections_finish(&r);
    if (r.n_errors > 0) {
        write_errors(&r, errors);
        config_free(config);
        config = NULL;
    }
    reading_free(&r);
    return config;
}

/* Files. */

/* Reads all of a file, and a NUL behind it. Returns 0, or -errno; -EFBIG: it is longer than FILE_MAX. */
static int read_file(const char *file, struct buffer *to)
{
    FILE *from = fopen(file, "re");
    int result = 0;

    if (from == NULL)
        return -errno;
    while (buffer_len(to) <= FILE_MAX) {
        size_t n = fread(buffer_reserve(to, 65536), 1, 65536, from);

        buffer_added(to, n);
        if (n == 0)
            break;
    }
    if (ferror(from))
        result = -errno;
    else if (buffer_len(to) > FILE_MAX)
        result = -EFBIG;
    buffer_append(to, "", 1);
    fclose(from);
    return result;
}

static char *directory_of(const char *file)
{
    const char *slash = strrchr(file, '/');

    if (slash == NULL)
        return memory_copy(".", 1);
    return memory_copy(file, slash == file ? 1 : (size_t)(slash - file));
}

static unsigned line_of(const char *text, const char *at)
{
    unsigned line = 1;

    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

struct config *config_load(const char *file, FILE *errors)
{
    struct config *config = NULL;
    struct buffer text = {0};
    int result = read_file(file, &text);
    char *directory;

    if (result < 0) {
        fprintf(errors, "%s: cannot be read: %s\n", file, strerror(-result));
    } else if (strlen(buffer_at(&text)) + 1 < buffer_len(&text)) {
        const char *at = buffer_at(&text);

        fprintf(errors, "%s:%u: a NUL byte; this is no text\n", file, line_of(at, at + strlen(at)));
    } else {
        directory = directory_of(file);
        config = config_parse(file, buffer_at(&text), directory, errors);
        free(directory);
    }
    buffer_free(&text);
    return config;
}

const struct config_site *config_site_for(const struct config *config, struct span host)
{
    const struct config_site *any = NULL;

    if (host.len > 1 && host.at[host.len - 1] == '.')
        host.len--;
    for (size_t i = 0; i < config->n_sites; i++) {
        const struct config_site *site = config->sites[i];

        for (size_t j = 0; j < site->names.n; j++) {
            if (span_is_nocase(span_of(site->names.at[j]), host))
                return site;
            if (strcmp(site->names.at[j], "*") == 0)
                any = site;
        }
    }
    return any != NULL ? any : config->sites[0];
}
