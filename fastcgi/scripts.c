#include "fastcgi/scripts.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum { MAX_SCRIPTS = 256 };

struct script {
    char *path;
    struct fastcgi_pool *pool;
    bool is_asked; /* the answer of the keeper is on its way, or there */
};

struct scripts {
    struct borrower borrower; /* first: the answers */
    struct fastcgi_options options;
    const struct config_route *route;
    unsigned number;
    struct script at[MAX_SCRIPTS];
    unsigned n;
};

static void on_refused(struct script *script, const struct message *message)
{
    enum run_cause cause = RUN_FORBIDDEN;

    if (message->n == 0)
        cause = RUN_DOWN;
    else if (message->status == ENOENT || message->status == ENOTDIR)
        cause = RUN_MISSING;
    script->is_asked = false; /* it may be mended: the next request asks again */
    fastcgi_pool_fail(script->pool, cause, message->text);
}

/* REFUSED comes for the route's number, OPENED for the new pool's: the latter is not attached yet, so the keeper
 * answers both under the route's, with the pool's number in n of OPENED. */
static void receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds)
{
    struct scripts *scripts = (struct scripts *)borrower;

    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
    if (message->id >= scripts->n)
        return;
    if (message->kind == MESSAGE_OPENED)
        fastcgi_pool_number(scripts->at[message->id].pool, message->n);
    else if (message->kind == MESSAGE_REFUSED)
        on_refused(&scripts->at[message->id], message);
}

struct scripts *scripts_create(const struct fastcgi_options *options, const struct config_route *route, unsigned number)
{
    struct scripts *scripts = memory_zeroed(1, sizeof *scripts);

    scripts->options = *options;
    scripts->route = route;
    scripts->number = number;
    scripts->borrower.message = receive;
    link_attach(options->link, number, &scripts->borrower);
    return scripts;
}

void scripts_destroy(struct scripts *scripts)
{
    for (unsigned i = 0; i < scripts->n; i++) {
        fastcgi_pool_destroy(scripts->at[i].pool);
        free(scripts->at[i].path);
    }
    free(scripts);
}

void scripts_yield(struct scripts *scripts)
{
    for (unsigned i = 0; i < scripts->n; i++)
        fastcgi_pool_yield(scripts->at[i].pool);
}

static struct script *find_or_add(struct scripts *scripts, struct span path)
{
    for (unsigned i = 0; i < scripts->n; i++)
        if (span_is(span_of(scripts->at[i].path), path))
            return &scripts->at[i];
    if (scripts->n == MAX_SCRIPTS || path.len >= MESSAGE_MAX_TEXT)
        return NULL;
    struct script *script = &scripts->at[scripts->n++];
    script->path = memory_copy(path.at, path.len);
    script->pool = fastcgi_pool_create(&scripts->options, scripts->route->pool, FASTCGI_NO_NUMBER);
    return script;
}

static void ask(struct scripts *scripts, struct script *script)
{
    struct message message = {.kind = MESSAGE_OPEN, .pool = scripts->number};

    message.id = (uint32_t)(script - scripts->at);
    message.text_len = strlen(script->path);
    memcpy(message.text, script->path, message.text_len);
    script->is_asked = true;
    fastcgi_pool_revive(script->pool);
    link_send(scripts->options.link, &message, NULL, 0);
}

struct runner *scripts_runner(struct scripts *scripts, struct span path)
{
    struct script *script = find_or_add(scripts, path);

    if (script == NULL)
        return NULL;
    if (!script->is_asked)
        ask(scripts, script);
    return fastcgi_pool_runner(script->pool);
}
