/*
 * The values that say where FastCGI applications are which run already, and how they are dealt with: server, hash,
 * health; and resolver, of [server].
 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "config_text.h"
#include "config_values.h"

enum {
    MAX_WEIGHT = 1000,
    MAX_CONNECTIONS = 10000,     /* of one server */
    MAX_ALL_CONNECTIONS = 65536, /* of all of a pool's, where their number is not known */
    HEALTH_INTERVAL_MS = 5000,
    MIN_INTERVAL_MS = 100,
    MAX_INTERVAL_MS = 3600000,
};

/* ---- server = ADDRESS [weight=N] [max_connections=N] [backup] ---- */

/* Reads "NAME=N"; false: it is not that. */
static bool read_option(const char *word, const char *name, uint64_t *n_out)
{
    size_t len = strlen(name);

    return strncmp(word, name, len) == 0 && word[len] == '=' && text_to_count(word + len + 1, n_out) == TEXT_OK;
}

static bool take_option(struct reading *r, const struct setting *s, struct config_remote *remote, const char *word)
{
    uint64_t n = 0;

    if (strcmp(word, "backup") == 0) {
        remote->is_backup = true;
    } else if (read_option(word, "weight", &n)) {
        remote->weight = (unsigned)n;
        if (remote->kind == REMOTE_SRV)
            return reading_refuse(r, s->line, "\"%s\" behind \"%s\": SRV records have weights of their own", word,
                                  remote->text);
        if (n < 1 || n > MAX_WEIGHT)
            return reading_refuse(r, s->line, "\"%s\" behind \"%s\" must be from 1 to %d", word, remote->text,
                                  MAX_WEIGHT);
    } else if (read_option(word, "max_connections", &n)) {
        remote->max_connections = (unsigned)n;
        if (n < 1 || n > MAX_CONNECTIONS)
            return reading_refuse(r, s->line, "\"%s\" behind \"%s\" must be from 1 to %d", word, remote->text,
                                  MAX_CONNECTIONS);
    } else {
        return reading_refuse(
            r, s->line, "unknown \"%s\" behind an address; there are weight=N, max_connections=N and backup", word);
    }
    return true;
}

static bool is_same(const struct config_remote *a, const struct config_remote *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == REMOTE_ADDRESS)
        return a->len == b->len && memcmp(&a->address, &b->address, a->len) == 0;
    return a->port == b->port && strcasecmp(a->name, b->name) == 0;
}

static bool is_new(struct reading *r, const struct setting *s, const struct config_remotes *remotes,
                   const struct config_remote *remote)
{
    for (size_t i = 0; i < remotes->n; i++)
        if (is_same(&remotes->at[i], remote))
            return reading_refuse(r, s->line, "\"%s\" for \"%s\" is the same address as \"%s\"", remote->text, s->name,
                                  remotes->at[i].text);
    return remotes->n < CONFIG_REMOTES ||
           reading_refuse(r, s->line, "more than %d servers in %s", CONFIG_REMOTES, r->label);
}

bool value_server(struct reading *r, const struct setting *s, void *to)
{
    struct config_remotes *remotes = to;
    struct config_remote remote = {.text = NULL};
    struct config_words words = {0};
    bool is_good = text_to_words(s->value, &words) && words.n > 0;
    const char *why = is_good ? text_to_remote(words.at[0], r->config->directory, &remote) : "needs an address";

    if (why != NULL)
        is_good =
            reading_refuse(r, s->line, "\"%s\" for \"%s\": %s", words.n > 0 ? words.at[0] : s->value, s->name, why);
    for (size_t i = 1; is_good && i < words.n; i++)
        is_good = take_option(r, s, &remote, words.at[i]);
    if (is_good && is_new(r, s, remotes, &remote)) {
        remotes->at = memory_resize(remotes->at, (remotes->n + 1) * sizeof *remotes->at);
        remotes->at[remotes->n++] = remote;
    } else {
        is_good = false;
        free(remote.text);
        free(remote.name);
    }
    for (size_t i = 0; i < words.n; i++)
        free(words.at[i]);
    free(words.at);
    return is_good;
}

void remotes_finish(struct config_pool *pool)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < pool->servers.n; i++) {
        const struct config_remote *remote = &pool->servers.at[i];
        uint64_t most = remote->max_connections > 0 ? remote->max_connections : pool->max_connections;

        sum += remote->kind == REMOTE_ADDRESS ? most : most * CONFIG_REMOTES;
        if (remote->kind != REMOTE_ADDRESS && sum > MAX_ALL_CONNECTIONS)
            sum = MAX_ALL_CONNECTIONS;
    }
    pool->n_connections = (unsigned)sum;
}

/* ---- hash = client | cookie NAME ---- */

bool value_hash(struct reading *r, const struct setting *s, void *to)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t len = strcspn(s->value, " \t");
    const char *name = s->value + len + strspn(s->value + len, " \t");

    if (strcmp(s->value, "client") == 0)
        return true;
    if (len != 6 || strncmp(s->value, "cookie", len) != 0 || *name == '\0' || name[strspn(name, token)] != '\0')
        return reading_refuse(r, s->line, "\"%s\" for \"%s\" is neither client nor cookie NAME", s->value, s->name);
    *(char **)to = memory_copy(name, strlen(name)); /* given once: nothing is there to be replaced */
    return true;
}

/* ---- health = /path [interval] ---- */

bool value_health(struct reading *r, const struct setting *s, void *to)
{
    struct config_health *health = to;
    size_t len = strcspn(s->value, " \t");
    const char *interval = s->value + len + strspn(s->value + len, " \t");

    health->interval_ms = HEALTH_INTERVAL_MS;
    if (s->value[0] != '/')
        return reading_refuse(r, s->line, "\"%s\" is a path beginning with /, and how often: /ping 5s", s->name);
    for (size_t i = 0; i < len; i++)
        if (s->value[i] < '!' || s->value[i] > '~')
            return reading_refuse(r, s->line, "\"%s\": what is no visible ASCII is written as %%XX in a path", s->name);
    if (*interval != '\0' && (text_to_duration(interval, &health->interval_ms) != TEXT_OK ||
                              health->interval_ms < MIN_INTERVAL_MS || health->interval_ms > MAX_INTERVAL_MS))
        return reading_refuse(r, s->line, "\"%s\" for \"%s\" is no duration from 100ms to 1h", interval, s->name);
    free(health->path);
    health->path = memory_copy(s->value, len);
    return true;
}

/* ---- resolver = ADDRESS[:PORT]... ---- */

/* Appends "ADDRESS:PORT" to a list with "," between. */
static bool add_resolver(struct reading *r, const struct setting *s, const char *word, struct buffer *list)
{
    bool is_v6 = word[0] == '[', has_port = is_v6 ? strstr(word, "]:") != NULL : strchr(word, ':') != NULL;
    struct config_address address;
    struct buffer whole = {0};

    buffer_printf(&whole, has_port ? "%s" : "%s:53", word);
    char *text = memory_copy(buffer_at(&whole), buffer_len(&whole));
    buffer_free(&whole);
    bool is_numeric = text[strspn(text, is_v6 ? "[]:.0123456789abcdefABCDEF" : ".:0123456789")] == '\0';
    const char *why = is_numeric ? text_to_address(text, "/", false, &address) : "not an address, which it has to be";
    if (why == NULL)
        free(address.text);
    else
        reading_refuse(r, s->line, "\"%s\" for \"%s\": %s", word, s->name, why);
    buffer_printf(list, "%s%s", buffer_len(list) > 0 ? "," : "", text);
    free(text);
    return why == NULL;
}

bool value_resolver(struct reading *r, const struct setting *s, void *to)
{
    struct config_words words = {0};
    struct buffer list = {0};
    bool is_good = text_to_words(s->value, &words);

    for (size_t i = 0; i < words.n; i++) {
        is_good = is_good && add_resolver(r, s, words.at[i], &list);
        free(words.at[i]);
    }
    free(words.at);
    if (is_good) {
        free(*(char **)to);
        *(char **)to = memory_copy(buffer_at(&list), buffer_len(&list));
    }
    buffer_free(&list);
    return is_good;
}
