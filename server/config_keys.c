/*
 * Every key that a configuration may hold, in one table, and what is done with it: taking a setting, refusing one that
 * is unknown, doubled or out of place, and giving defaults. A new key is a new row; a row without a value is a key
 * that the documentation of the interface names and this version does not have.
 */
#include "config_keys.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/memory.h"
#include "config_text.h"
#include "config_values.h"

#define IN_SERVER(key, type, member)                                                                                   \
    .section = SECTION_SERVER, .name = (key), .parse = value_##type, .offset = offsetof(struct config_server, member)
#define IN_SITE(key, type, member)                                                                                     \
    .section = SECTION_SITE, .name = (key), .parse = value_##type, .offset = offsetof(struct config_site, member)
#define IN_ROUTE(key, type, member)                                                                                    \
    .section = SECTION_ROUTE, .name = (key), .parse = value_##type, .offset = offsetof(struct config_route, member)
#define IN_POOL(key, type, member)                                                                                     \
    .section = SECTION_POOL, .name = (key), .parse = value_##type, .offset = offsetof(struct config_pool, member)

/* A key that this version does not have. */
#define LATER(in, key)  .section = SECTION_##in, .name = (key)

#define RANGE(from, to) .least = (from), .most = (to)
#define ON_OFF          .words = {"on", "off"}

/* Variants: gateways of routes, kinds of pools. */
enum {
    FOR_CGI = 1 << GATEWAY_CGI,
    FOR_FASTCGI = 1 << GATEWAY_FASTCGI,
    FOR_REDIRECT = 1 << GATEWAY_REDIRECT,
    FOR_COMMAND = 1 << POOL_MANAGED | 1 << POOL_SCRIPTS,
    FOR_SERVERS = 1 << POOL_SERVERS,
};

static const struct key keys[] = {
    {IN_SERVER("listen", listen, listen), .preset = "127.0.0.1:8080", .repeats = true},
    {IN_SERVER("fronts", fronts, fronts), .preset = "auto", RANGE("1", "64")},
    {IN_SERVER("user", user, user), .preset = "www-data"},
    {IN_SERVER("access_log", access_log, access_log), .preset = "-"},
    {IN_SERVER("access_format", choice, access_format), .preset = "combined",
     .words = {[ACCESS_COMBINED] = "combined", [ACCESS_JSON] = "json", [ACCESS_PRETTY] = "pretty"}},
    {IN_SERVER("error_log", log, error_log), .preset = "-"},
    {IN_SERVER("status", prefix, status), .preset = "/-/"},
    {IN_SERVER("status_allow", networks, status_allow), .repeats = true},
    {IN_SERVER("max_connections", count, max_connections), .preset = "10000", RANGE("1", "1000000")},
    {IN_SERVER("max_connections_per_client", count, max_connections_per_client), .preset = "0", RANGE("0", "1000000")},
    {IN_SERVER("header_timeout", duration, header_timeout_ms), .preset = "10s", RANGE("10ms", "1h")},
    {IN_SERVER("body_timeout", duration, body_timeout_ms), .preset = "30s", RANGE("10ms", "1h")},
    {IN_SERVER("keepalive_timeout", duration, keepalive_timeout_ms), .preset = "60s", RANGE("10ms", "1h")},
    {IN_SERVER("keepalive_requests", count, keepalive_requests), .preset = "10000", RANGE("1", "1000000000")},
    {IN_SERVER("min_rate", size, min_rate), .preset = "500", RANGE("0", "1g")},
    {IN_SERVER("drain_timeout", duration, drain_timeout_ms), .preset = "30s", RANGE("10ms", "24h")},
    {IN_SERVER("max_head", size, max_head), .preset = "16k", RANGE("1k", "1m")},
    {IN_SERVER("max_target", size, max_target), .preset = "1m", RANGE("1k", "1m")},
    {IN_SERVER("max_field", size, max_field), .preset = "1m", RANGE("256", "1m")},
    {IN_SERVER("max_fields", count, max_fields), .preset = "100", RANGE("1", "1000")},
    {IN_SERVER("max_body", size, max_body), .preset = "1g", RANGE("0", "1024g")},
    {IN_SERVER("max_chunk_overhead", size, max_chunk_overhead), .preset = "16k", RANGE("0", "1g")},
    {IN_SERVER("max_trailers", size, max_trailers), .preset = "16k", RANGE("2", "1m")},
    {IN_SERVER("max_temp", size, max_temp), .preset = "16g", RANGE("1m", "1024g")},
    {IN_SERVER("temp_dir", directory, temp_dir), .preset = "/tmp"},
    {IN_SERVER("resolver", resolver, resolver)},
    {IN_SERVER("server_timing", switch, server_timing), .preset = "off", ON_OFF},

    {IN_SITE("root", directory, root)},
    {IN_SITE("index", file_names, index_files), .preset = "index.html"},
    {IN_SITE("listing", switch, has_listings), .preset = "off", ON_OFF},
    {IN_SITE("symlinks", choice, symlinks), .preset = "beneath",
     .words = {[SYMLINKS_OFF] = "off", [SYMLINKS_BENEATH] = "beneath", [SYMLINKS_ON] = "on"}},
    {IN_SITE("try", candidates, candidates)},
    {IN_SITE("hidden", patterns, hidden), .preset = ".* *~ #*# *.bak *.orig *.rej *.save *.swo *.swp",
     .may_be_empty = true},
    {IN_SITE("precompressed", switch, has_precompressed), .preset = "on", ON_OFF},
    {IN_SITE("error_page", error_page, error_pages), .subscript = "STATUS"},

    {IN_ROUTE("gateway", choice, gateway), .words = {[GATEWAY_STATIC] = "static",
                                                     [GATEWAY_CGI] = "cgi",
                                                     [GATEWAY_FASTCGI] = "fastcgi",
                                                     [GATEWAY_DENY] = "deny",
                                                     [GATEWAY_REDIRECT] = "redirect"}},
    {IN_ROUTE("dir", directory, dir), .only = FOR_CGI},
    {IN_ROUTE("program", program, program), .only = FOR_CGI},
    {IN_ROUTE("interpreter", interpreter, interpreters), .subscript = ".suffix", .only = FOR_CGI},
    {IN_ROUTE("pool", name, pool_name), .only = FOR_FASTCGI},
    {IN_ROUTE("to", location, to), .only = FOR_REDIRECT},
    {IN_ROUTE("status", redirect_status, status), .preset = "302", .only = FOR_REDIRECT},
    {IN_ROUTE("role", choice, role), .preset = "responder",
     .words = {[ROLE_RESPONDER] = "responder", [ROLE_AUTHORIZER] = "authorizer", [ROLE_FILTER] = "filter"},
     .only = FOR_FASTCGI},
    {IN_ROUTE("variables", variables, variables), .repeats = true, .only = FOR_FASTCGI},
    {IN_ROUTE("pass_authorization", switch, pass_authorization), .preset = "off", ON_OFF,
     .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("request_buffering", choice, request_buffering), .preset = "auto",
     .words = {[BUFFERING_OFF] = "off", [BUFFERING_ON] = "on", [BUFFERING_AUTO] = "auto"},
     .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("sendfile_dir", directories, sendfile_dirs), .repeats = true, .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("timeout", duration, timeout_ms), .preset = "30s", .preset_fastcgi = "60s", RANGE("10ms", "24h"),
     .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("idle_timeout", duration, idle_timeout_ms), .preset = "10s", .preset_fastcgi = "30s",
     RANGE("10ms", "24h"), .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("max_running", count, max_running), .preset = "32", RANGE("1", "10000"), .only = FOR_CGI},
    {IN_ROUTE("queue", count, queue), .preset = "128", RANGE("0", "100000"), .only = FOR_CGI},
    {IN_ROUTE("queue_timeout", duration, queue_timeout_ms), .preset = "5s", RANGE("10ms", "1h"), .only = FOR_CGI},
    {IN_ROUTE("user", user, user), .only = FOR_CGI},
    {IN_ROUTE("rlimit_as", size, rlimits.as), RANGE("1m", "1024g"), .only = FOR_CGI},
    {IN_ROUTE("rlimit_cpu", seconds, rlimits.cpu), RANGE("1s", "24h"), .only = FOR_CGI},
    {IN_ROUTE("rlimit_nproc", limit, rlimits.nproc), RANGE("1", "1000000"), .only = FOR_CGI},
    {IN_ROUTE("rlimit_files", limit, rlimits.files), RANGE("8", "1000000"), .only = FOR_CGI},
    {IN_ROUTE("rlimit_core", size, rlimits.core), RANGE("0", "1024g"), .only = FOR_CGI},
    {IN_ROUTE("cgroup_memory", size, cgroup.memory), RANGE("1m", "1024g"), .only = FOR_CGI},
    {IN_ROUTE("cgroup_pids", count, cgroup.pids), RANGE("1", "1000000"), .only = FOR_CGI},
    {IN_ROUTE("cgroup_cpu", count, cgroup.cpu), RANGE("1", "100000"), .only = FOR_CGI},
    {IN_ROUTE("no_new_privs", switch, no_new_privs), .preset = "on", ON_OFF, .only = FOR_CGI},
    {IN_ROUTE("env", pair, env), .subscript = "NAME", .may_be_empty = true, .only = FOR_CGI | FOR_FASTCGI},
    {IN_ROUTE("pass_env", variables, pass_env), .preset = "PATH LANG TZ", .repeats = true, .may_be_empty = true,
     .only = FOR_CGI},

    {IN_POOL("command", command, command), .renews = true},
    {IN_POOL("server", server, servers), .repeats = true},
    {IN_POOL("pm", choice, pm), .preset = "static",
     .words = {[PM_STATIC] = "static", [PM_DYNAMIC] = "dynamic", [PM_ONDEMAND] = "ondemand"}, .only = FOR_COMMAND},
    {IN_POOL("pm.max_children", count, max_children), RANGE("1", "10000"), .only = FOR_COMMAND},
    {IN_POOL("pm.start_servers", count, start_servers), RANGE("0", "10000"), .only = FOR_COMMAND},
    {IN_POOL("pm.min_spare_servers", count, min_spare_servers), RANGE("1", "10000"), .only = FOR_COMMAND},
    {IN_POOL("pm.max_spare_servers", count, max_spare_servers), RANGE("1", "10000"), .only = FOR_COMMAND},
    {IN_POOL("pm.max_spawn_rate", count, max_spawn_rate), .preset = "32", RANGE("1", "10000"), .only = FOR_COMMAND},
    {IN_POOL("pm.process_idle_timeout", duration, process_idle_timeout_ms), .preset = "10s", RANGE("10ms", "24h"),
     .only = FOR_COMMAND},
    {IN_POOL("pm.max_requests", count, max_requests), .preset = "0", RANGE("0", "1000000000"), .only = FOR_COMMAND},
    {IN_POOL("max_memory", size, max_memory), .preset = "0", RANGE("0", "1024g"), .only = FOR_COMMAND},
    {IN_POOL("max_age", duration, max_age_ms), .preset = "0", RANGE("0", "8760h"), .only = FOR_COMMAND},
    {IN_POOL("start_timeout", duration, start_timeout_ms), .preset = "30s", RANGE("10ms", "1h"), .only = FOR_COMMAND},
    {IN_POOL("max_connections", count, max_connections), .preset = "16", RANGE("1", "10000"), .only = FOR_SERVERS},
    {IN_POOL("balance", choice, balance), .preset = "least_busy",
     .words = {[BALANCE_LEAST_BUSY] = "least_busy", [BALANCE_ROUND_ROBIN] = "round_robin", [BALANCE_HASH] = "hash"},
     .only = FOR_SERVERS},
    {IN_POOL("hash", hash, hash_cookie), .only = FOR_SERVERS},
    {IN_POOL("connect_timeout", duration, connect_timeout_ms), .preset = "5s", RANGE("10ms", "1h"),
     .only = FOR_SERVERS},
    {IN_POOL("max_fails", count, max_fails), .preset = "3", RANGE("0", "32"), .only = FOR_SERVERS},
    {IN_POOL("fail_timeout", duration, fail_timeout_ms), .preset = "10s", RANGE("10ms", "1h"), .only = FOR_SERVERS},
    {IN_POOL("slow_start", duration, slow_start_ms), .preset = "0", RANGE("0", "1h"), .only = FOR_SERVERS},
    {IN_POOL("health", health, health)},
    {IN_POOL("queue", count, queue), .preset = "256", RANGE("0", "100000")},
    {IN_POOL("queue_timeout", duration, queue_timeout_ms), .preset = "5s", RANGE("10ms", "1h")},
    {IN_POOL("request_terminate_timeout", duration, request_terminate_timeout_ms), .preset = "0", RANGE("0", "24h")},
    {IN_POOL("request_slowlog_timeout", duration, request_slowlog_timeout_ms), .preset = "0", RANGE("0", "24h")},
    {IN_POOL("slowlog", slowlog, slowlog)},
    {IN_POOL("multiplex", switch, multiplex), .preset = "on", ON_OFF},
    {IN_POOL("user", user, user), .renews = true, .only = FOR_COMMAND},
    {IN_POOL("process.priority", priority, priority), .renews = true, .only = FOR_COMMAND},
    {IN_POOL("no_new_privs", switch, no_new_privs), .renews = true, .preset = "off", ON_OFF, .only = FOR_COMMAND},
    {IN_POOL("rlimit_as", size, rlimits.as), .renews = true, RANGE("1m", "1024g"), .only = FOR_COMMAND},
    {IN_POOL("rlimit_cpu", seconds, rlimits.cpu), .renews = true, RANGE("1s", "24h"), .only = FOR_COMMAND},
    {IN_POOL("rlimit_nproc", limit, rlimits.nproc), .renews = true, RANGE("1", "1000000"), .only = FOR_COMMAND},
    {IN_POOL("rlimit_files", limit, rlimits.files), .renews = true, RANGE("8", "1000000"), .only = FOR_COMMAND},
    {IN_POOL("rlimit_core", size, rlimits.core), .renews = true, RANGE("0", "1024g"), .only = FOR_COMMAND},
    {IN_POOL("chdir", directory, chdir), .renews = true, .only = FOR_COMMAND},
    {IN_POOL("clear_env", switch, clear_env), .renews = true, .preset = "on", ON_OFF, .only = FOR_COMMAND},
    {IN_POOL("env", pair, env), .renews = true, .subscript = "NAME", .may_be_empty = true, .only = FOR_COMMAND},
    {IN_POOL("pass_env", variables, pass_env), .renews = true, .preset = "PATH LANG TZ", .repeats = true,
     .may_be_empty = true, .only = FOR_COMMAND},
    {LATER(POOL, "watch")},
};

static const struct key *const keys_end = keys + sizeof keys / sizeof *keys;

static const struct key *find_key(enum section section, const char *name)
{
    for (const struct key *key = keys; key < keys_end; key++) {
        if (key->section == section && strcmp(key->name, name) == 0)
            return key;
    }
    return NULL;
}

/* The key of this section that was probably meant. */
static const struct key *nearest_key(enum section section, const char *name)
{
    const struct key *nearest = NULL;
    unsigned least = TEXT_FAR;

    for (const struct key *key = keys; key < keys_end; key++) {
        unsigned distance = text_distance(name, key->name);

        if (key->section == section && key->parse != NULL && distance < least) {
            nearest = key;
            least = distance;
        }
    }
    return nearest;
}

static void refuse_unknown(struct reading *r, const char *name, const char *base)
{
    const struct key *near = nearest_key(r->section, base);
    struct buffer hint = {0};

    if (near != NULL && near->subscript != NULL) {
        buffer_printf(&hint, "; did you mean \"%s[%s]\"?", near->name, near->subscript);
    } else if (near != NULL) {
        buffer_printf(&hint, "; did you mean \"%s\"?", near->name);
    } else {
        for (const struct key *key = keys; key < keys_end && buffer_len(&hint) == 0; key++) {
            if (strcmp(key->name, base) == 0)
                buffer_printf(&hint, "; it belongs in [%s]", section_names[key->section]);
        }
    }
    reading_refuse(r, r->line, "unknown key \"%s\" in %s%.*s", name, r->label, (int)buffer_len(&hint),
                   buffer_len(&hint) > 0 ? buffer_at(&hint) : "");
    buffer_free(&hint);
}

static const struct seen *find_setting(const struct reading *r, const char *name)
{
    for (size_t i = 0; i < r->n_seen; i++) {
        if (strcmp(r->seen[i].name, name) == 0)
            return &r->seen[i];
    }
    return NULL;
}

const struct seen *reading_seen(const struct reading *r, const char *key)
{
    for (size_t i = 0; i < r->n_seen; i++) {
        if (strcmp(r->seen[i].key->name, key) == 0)
            return &r->seen[i];
    }
    return NULL;
}

/* What a section's text says, in a form that can be compared with another's. */
static void note_identity(struct reading *r, const struct setting *s)
{
    if (r->section == SECTION_POOL ? s->key->renews : r->section != SECTION_SERVER)
        buffer_printf(&r->identity, "%s = %s\n", s->name, s->value);
}

static bool parse(struct reading *r, const struct setting *s)
{
    note_identity(r, s);
    return s->key->parse(r, s, (char *)r->object + s->key->offset);
}

static void take(struct reading *r, struct setting *s, const char *base)
{
    const struct seen *first = find_setting(r, s->name);
    bool is_good = false;

    s->key = find_key(r->section, base);
    if (s->key != NULL && s->key->parse == NULL) {
        reading_refuse(r, s->line, "\"%s\" in %s is not supported yet", s->name, r->label);
        return;
    }
    if (s->key == NULL || (s->key->subscript != NULL) != (s->subscript != NULL)) {
        refuse_unknown(r, s->name, base);
        return;
    }
    if (first != NULL && !s->key->repeats) {
        reading_refuse(r, s->line, "\"%s\" in %s is given twice; first in line %u", s->name, r->label, first->line);
        return;
    }
    if (*s->value == '\0' && !s->key->may_be_empty)
        reading_refuse(r, s->line, "\"%s\" in %s has no value", s->name, r->label);
    else
        is_good = parse(r, s);
    r->seen = memory_resize(r->seen, (r->n_seen + 1) * sizeof *r->seen);
    r->seen[r->n_seen++] = (struct seen){s->key, memory_copy(s->name, strlen(s->name)), s->line, is_good};
}

void key_take(struct reading *r, const char *name, const char *value)
{
    struct setting s = {.name = name, .value = value, .line = r->line};
    size_t len = strlen(name), base_len = strcspn(name, "[");
    char *base, *subscript = NULL;

    if (base_len < len && name[len - 1] == ']')
        subscript = memory_copy(name + base_len + 1, len - base_len - 2);
    s.subscript = subscript;
    base = memory_copy(name, subscript != NULL ? base_len : len);
    take(r, &s, base);
    free(base);
    free(subscript);
}

/* Who has a key that not all variants have. */
static const char *audience(const struct key *key)
{
    if (key->section == SECTION_POOL)
        return key->only == FOR_SERVERS ? "pools with \"server\"" : "pools with \"command\"";
    if (key->only == FOR_CGI)
        return "gateway = cgi";
    if (key->only == FOR_REDIRECT)
        return "gateway = redirect";
    return key->only == FOR_FASTCGI ? "gateway = fastcgi" : "gateway = cgi or fastcgi";
}

static bool has_key(const struct key *key, int variant)
{
    return key->only == 0 || variant < 0 || (key->only & 1u << variant) != 0;
}

void keys_finish(struct reading *r, int variant)
{
    for (size_t i = 0; i < r->n_seen; i++) {
        const struct seen *seen = &r->seen[i];

        if (!has_key(seen->key, variant))
            reading_refuse(r, seen->line, "\"%s\" in %s is for %s", seen->name, r->label, audience(seen->key));
    }
    if (r->n_errors > 0)
        return; /* nothing will come of it, and a default must not be blamed for what was meant otherwise */
    for (const struct key *key = keys; key < keys_end; key++) {
        bool is_fastcgi = r->section == SECTION_ROUTE && variant == GATEWAY_FASTCGI;
        const char *preset = is_fastcgi && key->preset_fastcgi != NULL ? key->preset_fastcgi : key->preset;

        if (key->section == r->section && preset != NULL && has_key(key, variant) && !reading_seen(r, key->name))
            parse(r, &(struct setting){.key = key, .name = (key)->name, .value = preset});
    }
}
