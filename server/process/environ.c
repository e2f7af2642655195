/* What programs get of the server's own environment, and what the configuration adds to it. PATH is always there: too
 * many scripts are lost without. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "process/environ.h"

struct list {
    char **at;
    size_t n;
};

bool environ_has(char *const *env, struct span name)
{
    for (; *env != NULL; env++)
        if (strncmp(*env, name.at, name.len) == 0 && (*env)[name.len] == '=')
            return true;
    return false;
}

static void add(struct list *list, char *entry)
{
    list->at = memory_resize(list->at, (list->n + 2) * sizeof *list->at);
    list->at[list->n++] = entry;
    list->at[list->n] = NULL;
}

static void add_pair(struct list *list, const char *name, const char *value)
{
    struct buffer entry = {0};

    if (environ_has(list->at, span_of(name)))
        return;
    buffer_printf(&entry, "%s=%s", name, value);
    add(list, memory_copy(buffer_at(&entry), buffer_len(&entry)));
    buffer_free(&entry);
}

static void add_own(struct list *list)
{
    for (char **own = environ; *own != NULL; own++) {
        size_t len = strcspn(*own, "=");

        if (!environ_has(list->at, (struct span){*own, len}))
            add(list, memory_copy(*own, strlen(*own)));
    }
}

char **environ_make(const struct config_pairs *env, const struct config_words *pass_env, bool whole)
{
    struct list list = {memory_zeroed(1, sizeof *list.at), 0};

    for (size_t i = 0; i < env->n; i++)
        add_pair(&list, env->at[i].name, env->at[i].value);
    for (size_t i = 0; i < pass_env->n; i++)
        if (getenv(pass_env->at[i]) != NULL)
            add_pair(&list, pass_env->at[i], getenv(pass_env->at[i]));
    if (whole)
        add_own(&list);
    add_pair(&list, "PATH", getenv("PATH") != NULL ? getenv("PATH") : "/usr/local/bin:/usr/bin:/bin");
    return list.at;
}

void environ_free(char **env)
{
    for (char **entry = env; *entry != NULL; entry++)
        free(*entry);
    free(env);
}
