/*
 * Any text is a configuration or a list of errors; never neither, never a crash. A configuration that is accepted
 * keeps the promises of config.h.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* No name that a fuzzer makes up is worth a question to the network; addresses are all the same one. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *req, struct addrinfo **pai)
{
    static struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    static struct addrinfo answer = {.ai_addr = (struct sockaddr *)&address, .ai_addrlen = sizeof address};

    (void)name;
    (void)service;
    if ((req->ai_flags & AI_NUMERICHOST) == 0)
        return EAI_NONAME;
    *pai = &answer;
    return 0;
}

void freeaddrinfo(struct addrinfo *ai)
{
    (void)ai;
}

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_route(const struct config *config, unsigned i)
{
    const struct config_route *route = config->routes[i];

    require(route->index == i && route->line > 0 && route->site != NULL);
    require(route->text != NULL && route->pattern != NULL);
    require((route->gateway == GATEWAY_FASTCGI) == (route->pool != NULL));
    require(route->dir == NULL || route->program == NULL);
    require(route->gateway == GATEWAY_STATIC || route->gateway == GATEWAY_DENY || route->timeout_ms > 0);
}

static void check_pool(const struct config *config, unsigned i)
{
    const struct config_pool *pool = config->pools[i];

    require(pool->index == i && pool->line > 0 && pool->name != NULL);
    require((pool->kind == POOL_MANAGED) == (pool->command.n > 0));
    require((pool->kind == POOL_SERVERS) == (pool->servers.n > 0));
    require((pool->kind == POOL_SERVERS) == (pool->max_children == 0));
    require(pool->kind != POOL_MANAGED || pool->command.at[0][0] == '/');
}

static void check(const struct config *config)
{
    size_t n_routes = 0;

    require(config->n_sites > 0 && config->server.listen.n > 0 && config->server.fronts > 0);
    for (unsigned i = 0; i < config->n_sites; i++) {
        const struct config_site *site = config->sites[i];

        require(site->index == i && site->names.n > 0 && site->root != NULL && site->root[0] == '/');
        require(config_site_for(config, span_of(site->names.at[0])) == site);
        n_routes += site->n_routes;
    }
    require(n_routes == config->n_routes);
    for (unsigned i = 0; i < config->n_routes; i++)
        check_route(config, i);
    for (unsigned i = 0; i < config->n_pools; i++)
        check_pool(config, i);
    require(config_site_for(config, SPAN("")) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char *text = memory_copy((const char *)bytes, len), *output = NULL;
    size_t output_len;
    FILE *errors = open_memstream(&output, &output_len);
    struct config *config;

    require(errors != NULL);
    config = config_parse("fuzz", text, "/", errors);
    fclose(errors);
    require((config == NULL) == (output_len > 0));
    if (config != NULL)
        check(config);
    config_free(config);
    free(output);
    free(text);
    return 0;
}
