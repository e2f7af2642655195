/*
 * One function for each type of value: from the text to the member of a struct, or to a message that says what is
 * wrong and what would be right. What a value names - a directory, a program, a user - is looked up here, so that a
 * mistake is told with its line, before anything starts.
 */
#include "config_values.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "config_text.h"

static void set_text(char **to, char *text)
{
    free(*to);
    *to = text;
}

/* Numbers. */

static bool read_number(struct reading *r, const struct setting *s, text_to_number *convert, const char *what,
                        uint64_t *number_out)
{
    const struct key *key = s->key;
    uint64_t least, most;

    switch (convert(s->value, number_out)) {
    case TEXT_BAD:
        return reading_refuse(r, s->line, "\"%s\" for \"%s\" is no %s", s->value, s->name, what);
    case TEXT_NO_UNIT:
        return reading_refuse(r, s->line, "\"%s\" for \"%s\" needs a unit: %ss", s->value, s->name, s->value);
    case TEXT_OK:
        break;
    }
    convert(key->least, &least);
    convert(key->most, &most);
    if (*number_out < least || *number_out > most)
        return reading_refuse(r, s->line, "\"%s\" must be from %s to %s, not %s", s->name, key->least, key->most,
                              s->value);
    return true;
}

bool value_limit(struct reading *r, const struct setting *s, void *to)
{
    return read_number(r, s, text_to_count, "number", to);
}

static bool read_count(struct reading *r, const struct setting *s, const char *what, unsigned *count_out)
{
    uint64_t n;

    if (!read_number(r, s, text_to_count, what, &n))
        return false;
    *count_out = (unsigned)n;
    return true;
}

bool value_count(struct reading *r, const struct setting *s, void *to)
{
    return read_count(r, s, "number", to);
}

bool value_fronts(struct reading *r, const struct setting *s, void *to)
{
    cpu_set_t cores;
    int n;

    if (strcmp(s->value, "auto") != 0)
        return read_count(r, s, "number, nor auto", to);
    n = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 64; /* it fails where there are > 1024 */
    *(unsigned *)to = n > 64 ? 64 : (unsigned)n;
    return true;
}

bool value_size(struct reading *r, const struct setting *s, void *to)
{
    return read_number(r, s, text_to_size, "size, like 65536, 64k, 16m or 1g", to);
}

bool value_duration(struct reading *r, const struct setting *s, void *to)
{
    return read_number(r, s, text_to_duration, "duration, like 250ms, 10s, 5m or 1h", to);
}

bool value_seconds(struct reading *r, const struct setting *s, void *to)
{
    uint64_t ms;

    if (!value_duration(r, s, &ms))
        return false;
    if (ms % 1000 != 0)
        return reading_refuse(r, s->line, "\"%s\" is counted in whole seconds, not %s", s->name, s->value);
    *(uint64_t *)to = ms / 1000;
    return true;
}

bool value_priority(struct reading *r, const struct setting *s, void *to)
{
    char *end;
    long n = strtol(s->value, &end, 10);

    if (end == s->value || *end != '\0' || n < -20 || n > 19)
        return reading_refuse(r, s->line, "\"%s\" is no priority, from -20 to 19", s->value);
    *(int *)to = (int)n;
    return true;
}

/* Words. */

static bool is_among(const char *word, const char *list)
{
    for (size_t len; *list != '\0'; list += len + (list[len] == ' ')) {
        len = strcspn(list, " ");
        if (strlen(word) == len && memcmp(word, list, len) == 0)
            return true;
    }
    return false;
}

static bool refuse_word(struct reading *r, const struct setting *s)
{
    struct buffer words = {0};

    for (const char *const *word = s->key->words; *word != NULL; word++)
        buffer_printf(&words, "%s%s", buffer_len(&words) > 0 ? ", " : "", *word);
    reading_refuse(r, s->line, "unknown value \"%s\" for \"%s\"; one of: %.*s", s->value, s->name,
                   (int)buffer_len(&words), buffer_at(&words));
    buffer_free(&words);
    return false;
}

/* The number of the value among the key's words; -1: it is none of them, and that has been noted. */
static int read_word(struct reading *r, const struct setting *s)
{
    const struct key *key = s->key;

    for (int i = 0; key->words[i] != NULL; i++) {
        if (strcmp(s->value, key->words[i]) == 0)
            return i;
    }
    refuse_word(r, s);
    return -1;
}

_Static_assert(sizeof(enum gateway_kind) == sizeof(unsigned) && sizeof(enum symlinks) == sizeof(unsigned) &&
                   sizeof(enum access_format) == sizeof(unsigned),
               "value_choice() writes them as unsigned");

bool value_choice(struct reading *r, const struct setting *s, void *to)
{
    int word = read_word(r, s);

    if (word < 0)
        return false;
    *(unsigned *)to = (unsigned)word;
    return true;
}

bool value_switch(struct reading *r, const struct setting *s, void *to)
{
    bool is_on = is_among(s->value, "on yes true");

    if (!is_on && !is_among(s->value, "off no false"))
        return refuse_word(r, s);
    *(bool *)to = is_on;
    return true;
}

bool value_name(struct reading *r, const struct setting *s, void *to)
{
    (void)r;
    set_text(to, memory_copy(s->value, strlen(s->value)));
    return true;
}

static bool read_words(struct reading *r, const struct setting *s, struct config_words *words)
{
    return text_to_words(s->value, words) || reading_refuse(r, s->line, "a '\"' in \"%s\" is not closed", s->name);
}

bool value_file_names(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *names = to;

    if (!read_words(r, s, names))
        return false;
    for (size_t i = 0; i < names->n; i++) {
        const char *name = names->at[i];

        if (*name == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            return reading_refuse(r, s->line, "\"%s\" for \"%s\" is no file name; a path may not stand there", name,
                                  s->name);
    }
    return true;
}

bool value_patterns(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *patterns = to;

    if (!read_words(r, s, patterns))
        return false;
    for (size_t i = 0; i < patterns->n; i++)
        if (strchr(patterns->at[i], '/') != NULL)
            return reading_refuse(r, s->line, "\"%s\" for \"%s\" is no pattern of a file name; there is no / in one",
                                  patterns->at[i], s->name);
    return true;
}

/* Three digits of an error's status. */
static bool is_error_status(const char *text)
{
    return strlen(text) == 3 && (text[0] == '4' || text[0] == '5') && strspn(text, "0123456789") == 3;
}

/* Paths, decoded. */
bool value_candidates(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *words = to;

    if (!read_words(r, s, words))
        return false;
    for (size_t i = 0; i < words->n; i++) {
        const char *word = words->at[i];
        bool is_path = word[0] == '/' || strncmp(word, "$path", 5) == 0;
        bool is_status = word[0] == '=' && is_among(word + 1, "403 404 410 451 503") && i + 1 == words->n;
        const char *dollar = strchr(is_path ? word + (word[0] == '$') : word, '$');

        if (!is_path && !is_status)
            return reading_refuse(r, s->line,
                                  "\"%s\" for \"%s\" is no path; it begins with / or $path, and the last "
                                  "may be =403, =404, =410, =451 or =503",
                                  word, s->name);
        if (strpbrk(word, "?#") != NULL)
            return reading_refuse(r, s->line, "\"%s\" for \"%s\": the query goes along by itself", word, s->name);
        if (dollar != NULL)
            return reading_refuse(r, s->line,
                                  "\"%s\" for \"%s\": $path stands at the beginning, and is the only variable", word,
                                  s->name);
    }
    return true;
}

static void add_pair(struct config_pairs *pairs, const char *name, char *value)
{
    pairs->at = memory_resize(pairs->at, (pairs->n + 1) * sizeof *pairs->at);
    pairs->at[pairs->n++] = (struct config_pair){memory_copy(name, strlen(name)), value};
}

bool value_error_page(struct reading *r, const struct setting *s, void *to)
{
    bool is_class = strcmp(s->subscript, "4xx") == 0 || strcmp(s->subscript, "5xx") == 0;

    if (!is_class && !is_error_status(s->subscript))
        return reading_refuse(r, s->line, "\"%s\" in \"%s\" is no error's status; it is 400 to 599, 4xx or 5xx",
                              s->subscript, s->name);
    if (s->value[0] != '/')
        return reading_refuse(r, s->line, "\"%s\" has to be a file below the site's root, beginning with /", s->name);
    add_pair(to, s->subscript, memory_copy(s->value, strlen(s->value)));
    return true;
}

bool value_location(struct reading *r, const struct setting *s, void *to)
{
    bool is_absolute = strncasecmp(s->value, "http://", 7) == 0 || strncasecmp(s->value, "https://", 8) == 0;
    struct span value = span_of(s->value);

    if (s->value[0] != '/' && !is_absolute)
        return reading_refuse(r, s->line, "\"%s\" has to begin with /, http:// or https://", s->name);
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] <= ' ' || value.at[i] >= 0x7f) /* chars above 127 are negative, or too large */
            return reading_refuse(r, s->line, "\"%s\": what is no visible ASCII is written as %%XX in a location",
                                  s->name);
    for (const char *at = strchr(s->value, '$'); at != NULL; at = strchr(at + 1, '$'))
        if (strncmp(at, "$path", 5) != 0 && strncmp(at, "$rest", 5) != 0 && strncmp(at, "$host", 5) != 0)
            return reading_refuse(r, s->line, "\"%s\": there is no variable \"%s\"; there are $path, $rest and $host",
                                  s->name, at);
    if (strstr(s->value, "/$path") != NULL)
        return reading_refuse(r, s->line, "\"%s\": $path begins with a slash itself; leave the one before it out",
                              s->name);
    set_text(to, memory_copy(value.at, value.len));
    return true;
}

bool value_redirect_status(struct reading *r, const struct setting *s, void *to)
{
    if (!is_among(s->value, "301 302 303 307 308"))
        return reading_refuse(r, s->line, "\"%s\" is 301, 302, 303, 307 or 308, not %s", s->name, s->value);
    *(unsigned *)to = (unsigned)strtoul(s->value, NULL, 10);
    return true;
}

bool value_prefix(struct reading *r, const struct setting *s, void *to)
{
    struct span value = span_of(s->value);

    if (is_among(s->value, "off no false")) {
        set_text(to, NULL);
        return true;
    }
    if (value.len < 3 || value.at[0] != '/' || value.at[value.len - 1] != '/')
        return reading_refuse(r, s->line, "\"%s\" is off, or a path that begins and ends with /, like /-/, not \"%s\"",
                              s->name, s->value);
    if (strpbrk(s->value, "?#%*") != NULL || strstr(s->value, "//") != NULL || strstr(s->value, "/./") != NULL ||
        strstr(s->value, "/../") != NULL)
        return reading_refuse(r, s->line,
                              "\"%s\" for \"%s\" is no plain path; there is no ?, #, %%, *, // or dot segment "
                              "in one",
                              s->value, s->name);
    set_text(to, memory_copy(value.at, value.len));
    return true;
}

/* The environment. */

bool value_variables(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *names = to;
    size_t i = names->n;

    text_to_words(s->value, names); /* a quote, closed or not, is in no name */
    if (strchr(s->value, '"') != NULL)
        return reading_refuse(r, s->line, "\"%s\" takes names of variables, not '\"'", s->name);
    for (; i < names->n; i++) {
        if (!text_is_variable(names->at[i]))
            return reading_refuse(r, s->line, "\"%s\" for \"%s\" is no name of a variable", names->at[i], s->name);
    }
    return true;
}

bool value_pair(struct reading *r, const struct setting *s, void *to)
{
    struct span value = span_of(s->value);

    if (!text_is_variable(s->subscript))
        return reading_refuse(r, s->line, "\"%s\" in \"%s\" is no name of a variable", s->subscript, s->name);
    if (span_starts(value, SPAN("\""))) {
        if (value.len < 2 || !span_ends(value, SPAN("\"")))
            return reading_refuse(r, s->line, "the '\"' in \"%s\" is not closed (\" ;\" starts a comment, there too)",
                                  s->name);
        value = (struct span){value.at + 1, value.len - 2};
    }
    add_pair(to, s->subscript, memory_copy(value.at, value.len));
    return true;
}

/* Addresses. */

static bool add_address(struct reading *r, const struct setting *s, struct config_addresses *list,
                        struct config_address *address)
{
    for (size_t i = 0; i < list->n; i++) {
        bool is_any_port = address->address.ss_family != AF_UNIX && span_ends(span_of(address->text), SPAN(":0"));

        if (list->at[i].len == address->len && !is_any_port &&
            memcmp(&list->at[i].address, &address->address, address->len) == 0) {
            reading_refuse(r, s->line, "\"%s\" for \"%s\" is the same address as \"%s\"", address->text, s->name,
                           list->at[i].text);
            free(address->text);
            return false;
        }
    }
    list->at = memory_resize(list->at, (list->n + 1) * sizeof *list->at);
    list->at[list->n++] = *address;
    return true;
}

/* `later`: what may stand behind an address one day. */
static bool read_address(struct reading *r, const struct setting *s, struct config_addresses *list, bool is_listen,
                         const char *later)
{
    size_t len = strcspn(s->value, " \t");
    const char *option = s->value + len + strspn(s->value + len, " \t");
    size_t option_len = strcspn(option, "= \t");
    struct config_address address;
    char *text = memory_copy(s->value, len);
    char *name = memory_copy(option, option_len);
    const char *why = text_to_address(text, r->config->directory, is_listen, &address);
    bool is_good = false;

    if (why != NULL) {
        reading_refuse(r, s->line, "\"%s\" for \"%s\": %s", text, s->name, why);
    } else if (option_len > 0) {
        reading_refuse(r, s->line,
                       is_among(name, later) ? "\"%s\" behind an address is not supported yet"
                                             : "unknown \"%s\" behind an address",
                       name);
        free(address.text);
    } else {
        is_good = add_address(r, s, list, &address);
    }
    free(text);
    free(name);
    return is_good;
}

bool value_listen(struct reading *r, const struct setting *s, void *to)
{
    return read_address(r, s, to, true, "tls");
}

bool value_networks(struct reading *r, const struct setting *s, void *to)
{
    struct config_networks *networks = to;
    struct config_words words = {0};
    bool is_good = read_words(r, s, &words);

    for (size_t i = 0; i < words.n && is_good; i++) {
        networks->at = memory_resize(networks->at, (networks->n + 1) * sizeof *networks->at);
        is_good = text_to_network(words.at[i], &networks->at[networks->n++]);
        if (!is_good)
            reading_refuse(r, s->line,
                           "\"%s\" for \"%s\" is no network; it is like 10.0.0.0/8, 192.0.2.7 or fd00::/8, and nothing "
                           "but zeros stands behind its bits",
                           words.at[i], s->name);
    }
    for (size_t i = 0; i < words.n; i++)
        free(words.at[i]);
    free(words.at);
    return is_good;
}

/* What must exist. */

bool value_user(struct reading *r, const struct setting *s, void *to)
{
    struct config_user *user = to;
    bool is_root = geteuid() == 0;
    const struct passwd *entry;

    if (!is_root && s->line == 0)
        return true; /* the default is root's: others cannot change user */
    entry = getpwnam(s->value);
    if (entry == NULL)
        return reading_refuse(r, s->line, "there is no user \"%s\" for \"%s\"; create it or name another", s->value,
                              s->name);
    if (!is_root) {
        return entry->pw_uid == geteuid() ||
               reading_refuse(r, s->line, "\"%s = %s\": only root can change user; start as root or leave it out",
                              s->name, s->value);
    }
    set_text(&user->name, memory_copy(s->value, strlen(s->value)));
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    return true;
}

/* What to do about something that is not there. */
static const char *cure_for(const char *path, const char *cure)
{
    return strchr(path, ';') != NULL ? "a comment needs white space before its \";\"" : cure;
}

/* Of a path that stat() refused. */
static bool refuse_path(struct reading *r, const struct setting *s, const char *path, const char *cure)
{
    if (errno != ENOENT && errno != ENOTDIR)
        return reading_refuse(r, s->line, "%s \"%s\" cannot be used: %s", s->name, path, strerror(errno));
    return reading_refuse(r, s->line, "%s \"%s\" is not there; %s", s->name, path, cure_for(path, cure));
}

bool value_directory(struct reading *r, const struct setting *s, void *to)
{
    char *path = text_to_path(s->value, r->config->directory);
    struct stat status;
    bool is_good = false;

    if (stat(path, &status) < 0)
        refuse_path(r, s, path, "create it or correct the path");
    else if (!S_ISDIR(status.st_mode))
        reading_refuse(r, s->line, "%s \"%s\" is no directory", s->name, path);
    else
        is_good = true;
    if (is_good)
        set_text(to, path);
    else
        free(path);
    return is_good;
}

bool value_directories(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *words = to;
    char *path = NULL;

    if (!value_directory(r, s, &path))
        return false;
    words->at = memory_resize(words->at, (words->n + 2) * sizeof *words->at);
    words->at[words->n++] = path;
    words->at[words->n] = NULL;
    return true;
}

static bool is_program(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/* Takes the path over. Returns it, or NULL when no program is there. */
static char *check_program(struct reading *r, const struct setting *s, char *path)
{
    struct stat status;

    if (is_program(path))
        return path;
    if (stat(path, &status) < 0)
        refuse_path(r, s, path, "correct the path, or install it");
    else if (!S_ISREG(status.st_mode))
        reading_refuse(r, s->line, "%s \"%s\" is no file", s->name, path);
    else
        reading_refuse(r, s->line, "%s \"%s\" is not executable; chmod +x would make it so", s->name, path);
    free(path);
    return NULL;
}

/* An absolute path, owned by the caller, of a program in one of PATH's directories; NULL: there is none. */
static char *search_path(const char *program)
{
    const char *at = getenv("PATH");

    if (at == NULL)
        at = "/usr/local/bin:/usr/bin:/bin";
    for (size_t len; *at != '\0'; at += len + (at[len] == ':')) {
        char *directory, *path;

        len = strcspn(at, ":");
        if (*at != '/')
            continue; /* relative to wherever we were started: chance, or an attack */
        directory = memory_copy(at, len);
        path = text_to_path(program, directory);
        free(directory);
        if (is_program(path))
            return path;
        free(path);
    }
    return NULL;
}

/* A program's path; a name without "/" is looked up in PATH. NULL: it is not there, which has been noted. */
static char *find_program(struct reading *r, const struct setting *s, const char *program)
{
    char *path;

    if (strchr(program, '/') != NULL)
        return check_program(r, s, text_to_path(program, r->config->directory));
    path = search_path(program);
    if (path == NULL)
        reading_refuse(r, s->line, "%s \"%s\" is not in PATH; %s", s->name, program,
                       cure_for(program, "is the package installed?"));
    return path;
}

bool value_program(struct reading *r, const struct setting *s, void *to)
{
    char *path = check_program(r, s, text_to_path(s->value, r->config->directory));

    if (path != NULL)
        set_text(to, path);
    return path != NULL;
}

bool value_interpreter(struct reading *r, const struct setting *s, void *to)
{
    char *path;

    if (s->subscript[0] != '.' || s->subscript[1] == '\0' || strchr(s->subscript, '/') != NULL)
        return reading_refuse(r, s->line, "\"%s\" in \"%s\" is no suffix, like .py", s->subscript, s->name);
    path = find_program(r, s, s->value);
    if (path != NULL)
        add_pair(to, s->subscript, path);
    return path != NULL;
}

bool value_command(struct reading *r, const struct setting *s, void *to)
{
    struct config_words *command = to;
    char *path;

    if (!text_to_words(s->value, command))
        return reading_refuse(r, s->line, "a '\"' in \"%s\" is not closed", s->name);
    for (size_t i = 0; command->n > 1 && i < command->n; i++) {
        if (strcmp(command->at[i], "$script") == 0)
            return reading_refuse(r, s->line,
                                  "\"$script\" stands alone: each script is a program, started by its own name");
    }
    if (strcmp(command->at[0], "$script") == 0)
        return true;
    path = find_program(r, s, command->at[0]);
    if (path != NULL)
        set_text(&command->at[0], path);
    return path != NULL;
}

bool value_log(struct reading *r, const struct setting *s, void *to)
{
    if (strcmp(s->value, "off") == 0)
        return reading_refuse(r, s->line, "\"%s\" cannot be off; - is stderr", s->name);
    set_text(to, strcmp(s->value, "-") == 0 ? memory_copy("-", 1) : text_to_path(s->value, r->config->directory));
    return true;
}

bool value_slowlog(struct reading *r, const struct setting *s, void *to)
{
    set_text(to, strcmp(s->value, "-") == 0 ? NULL : text_to_path(s->value, r->config->directory));
    return true;
}

bool value_access_log(struct reading *r, const struct setting *s, void *to)
{
    if (strcmp(s->value, "off") != 0)
        return value_log(r, s, to);
    set_text(to, NULL);
    return true;
}
