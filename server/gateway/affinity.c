#include "gateway/affinity.h"

static struct span trim(struct span s)
{
    while (s.len > 0 && (s.at[0] == ' ' || s.at[0] == '\t'))
        s = span_from(s, 1);
    while (s.len > 0 && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Finds "name=value" between ";". */
static bool find_pair(struct span pairs, struct span name, struct span *value_out)
{
    while (pairs.len > 0) {
        const char *end = memchr(pairs.at, ';', pairs.len);
        struct span pair = {pairs.at, end != NULL ? (size_t)(end - pairs.at) : pairs.len};

        pairs = span_from(pairs, pair.len + (end != NULL));
        pair = trim(pair);
        if (!span_starts(pair, name) || pair.len == name.len || pair.at[name.len] != '=')
            continue;
        *value_out = span_from(pair, name.len + 1);
        return true;
    }
    return false;
}

bool affinity_cookie(const struct head *head, struct span name, struct span *value_out)
{
    for (unsigned i = 0; i < head->n_fields; i++)
        if (span_is_nocase(head->fields[i].name, SPAN("Cookie")) && find_pair(head->fields[i].value, name, value_out))
            return true;
    return false;
}

uint64_t affinity_of(const struct config_pool *pool, const struct head *head, struct span client)
{
    struct span key = client;
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

    if (pool == NULL || pool->balance != BALANCE_HASH)
        return 0;
    if (pool->hash_cookie != NULL)
        affinity_cookie(head, span_of(pool->hash_cookie), &key);
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ (unsigned char)key.at[i]) * 0x100000001b3;
    return h;
}
