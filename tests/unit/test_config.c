/*
 * The configuration: what a file becomes, and every message that refuses one. The files are texts here; what they
 * name is in a directory made for the run, which "@" stands for in what is expected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"

#define SITE         "[site *]\nroot = www\n"
#define ROUTE(...)   SITE "[route /x/*]\n" __VA_ARGS__
#define CGI(...)     ROUTE("gateway = cgi\n" __VA_ARGS__)
#define POOL(...)    SITE "[pool p]\n" __VA_ARGS__
#define MANAGED(...) POOL("command = tool\npm.max_children = 1\n" __VA_ARGS__)
#define SERVERS(...) POOL("server = 10.0.0.5:9000\n" __VA_ARGS__)
#define DYNAMIC(...) POOL("command = tool\npm = dynamic\npm.max_children = 16\n" __VA_ARGS__)
#define TEN          "0123456789"
#define FIFTY        TEN TEN TEN TEN TEN

static char directory[] = "/tmp/gatehouse-config-XXXXXX";
static char *output; /* what the last parse() wrote */

/* The resolver, but for names that no test may ask the network about. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *req, struct addrinfo **pai)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    if (strcmp(name, "nowhere.invalid") == 0)
        return EAI_NONAME;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(name, service, req, pai);
}

static char *path_of(const char *name)
{
    char *path;

    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t len, mode_t mode)
{
    char *path = path_of(name);
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
    free(path);
}

static void make_directory(const char *name)
{
    char *path = path_of(name);

    assert_int_equal(mkdir(path, 0755), 0);
    free(path);
}

static int set_up(void **state)
{
    char *path;

    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    assert_int_equal(chmod(directory, 0755), 0);
    make_directory("www");
    make_directory("cgi");
    make_directory("bin");
    write_file("bin/tool", "#!/bin/sh\n", 10, 0755);
    write_file("bin/plain", "", 0, 0644);
    path = path_of("bin");
    assert_int_equal(setenv("PATH", path, 1), 0);
    free(path);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const files[] = {"bin/tool", "bin/plain", "bin", "cgi", "www", "test.conf", ""};

    (void)state;
    free(output);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_of(files[i]);

        remove(path);
        free(path);
    }
    return 0;
}

static struct config *parse(const char *text)
{
    struct config *config;
    size_t len;
    FILE *errors;

    free(output);
    errors = open_memstream(&output, &len);
    config = config_parse("test.conf", text, directory, errors);
    fclose(errors);
    assert_int_equal(config == NULL, len > 0);
    return config;
}

static struct config *parse_good(const char *text)
{
    struct config *config = parse(text);

    if (config == NULL)
        fail_msg("refused: %s", output);
    return config;
}

/* Is the text `expected`, where "@" stands for the directory? */
static void assert_text(const char *text, const char *expected)
{
    char *whole = NULL;
    size_t len;
    FILE *to = open_memstream(&whole, &len);

    for (; *expected != '\0'; expected++) {
        if (*expected == '@')
            fputs(directory, to);
        else
            fputc(*expected, to);
    }
    fclose(to);
    assert_string_equal(text, whole);
    free(whole);
}

static void assert_words(const struct config_words *words, const char *expected)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);

    for (size_t i = 0; i < words->n; i++)
        fprintf(to, "%s%s", i > 0 ? "|" : "", words->at[i]);
    fclose(to);
    assert_text(text, expected);
    free(text);
}

static void assert_pair(const struct config_pairs *pairs, size_t i, const char *name, const char *value)
{
    assert_true(i < pairs->n);
    assert_string_equal(pairs->at[i].name, name);
    assert_text(pairs->at[i].value, value);
}

static void assert_no_rlimits(const struct config_rlimits *limits)
{
    assert_true(limits->as == RLIM_INFINITY && limits->cpu == RLIM_INFINITY && limits->nproc == RLIM_INFINITY &&
                limits->files == RLIM_INFINITY && limits->core == RLIM_INFINITY);
}

static const char good[] = "[server]\n"
                           "listen = 127.0.0.1:8080            ; a comment\n"
                           "listen = [::1]:0\n"
                           "listen = *:80\n"
                           "listen = unix:run/x.sock\n"
                           "fronts = 3\n"
                           "access_log = logs/access.log\n"
                           "access_format = json\n"
                           "error_log = /var/log/error.log\n"
                           "status = /status/\n"
                           "status_allow = 10.0.0.0/8 192.0.2.7\n"
                           "status_allow = fd00::/8\n"
                           "max_connections = 500\n"
                           "header_timeout = 250ms\n"
                           "body_timeout = 31s\n"
                           "keepalive_timeout = 2m\n"
                           "drain_timeout = 1h\n"
                           "max_head = 32k\n"
                           "max_fields = 64\n"
                           "max_body = 16m\n"
                           "max_connections_per_client = 9\n"
                           "keepalive_requests = 70\n"
                           "min_rate = 2k\n"
                           "max_target = 9k\n"
                           "max_field = 10k\n"
                           "max_chunk_overhead = 11k\n"
                           "max_trailers = 12k\n"
                           "server_timing = on\n"
                           "\n"
                           "[site Example.org www.example.org.]\n"
                           "root = ./www//\n"
                           "index = index.html index.php \"my index\"\n"
                           "listing = on\n"
                           "hidden = .* *.key\n"
                           "try = $path $path/ /index.php =404\n"
                           "precompressed = off\n"
                           "error_page[404] = /e/404.html\n"
                           "error_page[5xx] = /e/5xx.html\n"
                           "symlinks = on\n"
                           "\n"
                           "[route /cgi-bin/*]\n"
                           "gateway = cgi\n"
                           "dir = cgi\n"
                           "interpreter[.py] = tool\n"
                           "interpreter[.sh] = /bin/sh\n"
                           "timeout = 31s\n"
                           "idle_timeout = 11s\n"
                           "max_running = 33\n"
                           "queue = 0\n"
                           "queue_timeout = 6s\n"
                           "rlimit_as = 512m\n"
                           "rlimit_cpu = 2m\n"
                           "rlimit_nproc = 10\n"
                           "rlimit_files = 64\n"
                           "rlimit_core = 0\n"
                           "env[GIT_PROJECT_ROOT] = /srv/git\n"
                           "env[EMPTY] =\n"
                           "env[QUOTED] = \" a b \"\n"
                           "pass_env = PATH\n"
                           "pass_env = LANG TZ\n"
                           "[route /git/*]\n"
                           "gateway = cgi\n"
                           "program = bin/tool\n"
                           "[route *.php]\n"
                           "gateway = fastcgi\n"
                           "pool = php\n"
                           "role = responder\n"
                           "env[A] = b\n"
                           "[site *]\n"
                           "root = /\n"
                           "symlinks = off\n"
                           "[route /private]\n"
                           "gateway = deny\n"
                           "[route /*]\n"
                           "gateway = static\n"
                           "[pool php]\n"
                           "command = tool -b \"a b\" \"\"\n"
                           "pm = static\n"
                           "pm.max_children = 16\n"
                           "queue = 257\n"
                           "queue_timeout = 7s\n"
                           "rlimit_files = 100\n"
                           "chdir = www\n"
                           "env[APP_ENV] = production\n"
                           "clear_env = no\n"
                           "pass_env =\n"
                           "[pool api]\n"
                           "server = 10.0.0.5:9000 weight=3\n"
                           "server = nowhere.invalid:9001 backup max_connections=4\n"
                           "max_connections = 17\n"
                           "[pool scripts]\n"
                           "command = $script\n"
                           "pm.max_children = 1\n";

static void check_server(const struct config_server *server)
{
    const struct sockaddr_in *v4;
    const struct sockaddr_in6 *v6;
    const struct sockaddr_un *local;

    assert_int_equal(server->listen.n, 4);
    assert_string_equal(server->listen.at[0].text, "127.0.0.1:8080");
    v4 = (const struct sockaddr_in *)&server->listen.at[0].address;
    assert_int_equal(server->listen.at[0].len, sizeof *v4);
    assert_int_equal(v4->sin_family, AF_INET);
    assert_int_equal(v4->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(v4->sin_port, htons(8080));
    v6 = (const struct sockaddr_in6 *)&server->listen.at[1].address;
    assert_int_equal(server->listen.at[1].len, sizeof *v6);
    assert_memory_equal(&v6->sin6_addr, &in6addr_loopback, sizeof in6addr_loopback);
    assert_int_equal(v6->sin6_port, 0);
    v6 = (const struct sockaddr_in6 *)&server->listen.at[2].address;
    assert_int_equal(v6->sin6_family, AF_INET6);
    assert_memory_equal(&v6->sin6_addr, &in6addr_any, sizeof in6addr_any);
    assert_int_equal(v6->sin6_port, htons(80));
    assert_string_equal(server->listen.at[2].text, "*:80");
    local = (const struct sockaddr_un *)&server->listen.at[3].address;
    assert_int_equal(local->sun_family, AF_UNIX);
    assert_text(local->sun_path, "@/run/x.sock");
    assert_int_equal(server->listen.at[3].len, offsetof(struct sockaddr_un, sun_path) + strlen(local->sun_path) + 1);

    assert_int_equal(server->fronts, 3);
    assert_text(server->access_log, "@/logs/access.log");
    assert_int_equal(server->access_format, ACCESS_JSON);
    assert_string_equal(server->error_log, "/var/log/error.log");
    assert_string_equal(server->status, "/status/");
    assert_int_equal(server->status_allow.n, 3);
    assert_int_equal(server->status_allow.at[0].family, AF_INET);
    assert_int_equal(server->status_allow.at[0].bits, 8);
    assert_int_equal(server->status_allow.at[1].bits, 32);
    assert_int_equal(server->status_allow.at[2].family, AF_INET6);
    assert_int_equal(server->max_connections, 500);
    assert_int_equal(server->header_timeout_ms, 250);
    assert_int_equal(server->body_timeout_ms, 31000);
    assert_int_equal(server->keepalive_timeout_ms, 120000);
    assert_int_equal(server->drain_timeout_ms, 3600000);
    assert_int_equal(server->max_head, 32768);
    assert_int_equal(server->max_fields, 64);
    assert_int_equal(server->max_body, 16 << 20);
    assert_int_equal(server->max_connections_per_client, 9);
    assert_int_equal(server->keepalive_requests, 70);
    assert_int_equal(server->min_rate, 2048);
    assert_int_equal(server->max_target, 9 << 10);
    assert_int_equal(server->max_field, 10 << 10);
    assert_int_equal(server->max_chunk_overhead, 11 << 10);
    assert_int_equal(server->max_trailers, 12 << 10);
    assert_true(server->server_timing);
}

static void check_first_route(const struct config_route *route)
{
    assert_int_equal(route->line, 41);
    assert_string_equal(route->text, "/cgi-bin/*");
    assert_int_equal(route->match, ROUTE_PREFIX);
    assert_string_equal(route->pattern, "/cgi-bin");
    assert_int_equal(route->gateway, GATEWAY_CGI);
    assert_text(route->dir, "@/cgi");
    assert_null(route->program);
    assert_null(route->pool);
    assert_int_equal(route->interpreters.n, 2);
    assert_pair(&route->interpreters, 0, ".py", "@/bin/tool");
    assert_pair(&route->interpreters, 1, ".sh", "/bin/sh");
    assert_int_equal(route->timeout_ms, 31000);
    assert_int_equal(route->idle_timeout_ms, 11000);
    assert_int_equal(route->max_running, 33);
    assert_int_equal(route->queue, 0);
    assert_int_equal(route->queue_timeout_ms, 6000);
    assert_int_equal(route->rlimits.as, 512 << 20);
    assert_int_equal(route->rlimits.cpu, 120);
    assert_int_equal(route->rlimits.nproc, 10);
    assert_int_equal(route->rlimits.files, 64);
    assert_int_equal(route->rlimits.core, 0);
    assert_null(route->user.name);
    assert_int_equal(route->env.n, 3);
    assert_pair(&route->env, 0, "GIT_PROJECT_ROOT", "/srv/git");
    assert_pair(&route->env, 1, "EMPTY", "");
    assert_pair(&route->env, 2, "QUOTED", " a b ");
    assert_words(&route->pass_env, "PATH|LANG|TZ");
}

static void check_sites(const struct config *config)
{
    const struct config_site *site = config->sites[0];

    assert_int_equal(config->n_sites, 2);
    assert_words(&site->names, "example.org|www.example.org");
    assert_int_equal(site->line, 30);
    assert_text(site->root, "@/www");
    assert_words(&site->index_files, "index.html|index.php|my index");
    assert_int_equal(site->symlinks, SYMLINKS_ON);
    assert_true(site->has_listings);
    assert_false(site->has_precompressed);
    assert_words(&site->hidden, ".*|*.key");
    assert_words(&site->candidates, "$path|$path/|/index.php|=404");
    assert_int_equal(site->error_pages.n, 2);
    assert_pair(&site->error_pages, 0, "404", "/e/404.html");
    assert_pair(&site->error_pages, 1, "5xx", "/e/5xx.html");
    assert_int_equal(site->n_routes, 3);
    assert_int_equal(config->sites[1]->index, 1);
    assert_string_equal(config->sites[1]->root, "/");
    assert_int_equal(config->sites[1]->symlinks, SYMLINKS_OFF);
    assert_int_equal(config->sites[1]->n_routes, 2);

    assert_int_equal(config->n_routes, 5);
    for (unsigned i = 0; i < 5; i++) {
        const struct config_route *route = config->routes[i];

        assert_int_equal(route->index, i);
        assert_ptr_equal(route->site, config->sites[i < 3 ? 0 : 1]);
        assert_ptr_equal(route->site->routes[i < 3 ? i : i - 3], route);
    }
}

static void check_pools(const struct config *config)
{
    const struct config_pool *php = config->pools[0], *api = config->pools[1], *scripts = config->pools[2];

    assert_int_equal(config->n_pools, 3);
    assert_int_equal(php->kind, POOL_MANAGED);
    assert_words(&php->command, "@/bin/tool|-b|a b|");
    assert_int_equal(php->max_children, 16);
    assert_int_equal(php->queue, 257);
    assert_int_equal(php->queue_timeout_ms, 7000);
    assert_int_equal(php->rlimits.files, 100);
    assert_text(php->chdir, "@/www");
    assert_false(php->clear_env);
    assert_pair(&php->env, 0, "APP_ENV", "production");
    assert_int_equal(php->pass_env.n, 0);

    assert_int_equal(api->index, 1);
    assert_int_equal(api->kind, POOL_SERVERS);
    assert_int_equal(api->servers.n, 2);
    assert_string_equal(api->servers.at[0].text, "10.0.0.5:9000");
    assert_int_equal(api->servers.at[0].kind, REMOTE_ADDRESS);
    assert_int_equal(api->servers.at[0].weight, 3);
    assert_false(api->servers.at[0].is_backup);
    assert_int_equal(api->servers.at[0].max_connections, 0);
    assert_string_equal(api->servers.at[1].text, "nowhere.invalid:9001");
    assert_int_equal(api->servers.at[1].kind, REMOTE_HOST);
    assert_string_equal(api->servers.at[1].name, "nowhere.invalid");
    assert_int_equal(api->servers.at[1].port, 9001);
    assert_int_equal(api->servers.at[1].weight, 0);
    assert_true(api->servers.at[1].is_backup);
    assert_int_equal(api->servers.at[1].max_connections, 4);
    assert_int_equal(api->max_connections, 17);

    assert_int_equal(scripts->kind, POOL_SCRIPTS);
    assert_int_equal(scripts->command.n, 0);
    assert_int_equal(scripts->max_children, 1);
    assert_string_equal(scripts->name, "scripts");
}

static void test_good_file(void **state)
{
    struct config *config = parse_good(good);
    const struct config_route *const *routes = (const struct config_route *const *)config->routes;

    (void)state;
    assert_string_equal(config->file, "test.conf");
    assert_text(config->directory, "@");
    check_server(&config->server);
    check_sites(config);
    check_first_route(routes[0]);
    check_pools(config);

    assert_text(routes[1]->program, "@/bin/tool");
    assert_null(routes[1]->dir);
    assert_int_equal(routes[2]->match, ROUTE_SUFFIX);
    assert_string_equal(routes[2]->pattern, ".php");
    assert_int_equal(routes[2]->gateway, GATEWAY_FASTCGI);
    assert_ptr_equal(routes[2]->pool, config->pools[0]);
    assert_pair(&routes[2]->env, 0, "A", "b");
    assert_int_equal(routes[3]->match, ROUTE_EXACT);
    assert_string_equal(routes[3]->pattern, "/private");
    assert_int_equal(routes[3]->gateway, GATEWAY_DENY);
    assert_int_equal(routes[4]->match, ROUTE_PREFIX);
    assert_string_equal(routes[4]->pattern, "");
    assert_int_equal(routes[4]->gateway, GATEWAY_STATIC);
    config_free(config);
}

static void check_server_defaults(const struct config_server *server)
{
    cpu_set_t cores;

    assert_int_equal(sched_getaffinity(0, sizeof cores, &cores), 0);
    assert_int_equal(server->listen.n, 1);
    assert_string_equal(server->listen.at[0].text, "127.0.0.1:8080");
    assert_int_equal(server->fronts, CPU_COUNT(&cores) < 64 ? CPU_COUNT(&cores) : 64);
    if (geteuid() == 0)
        assert_string_equal(server->user.name, "www-data");
    else
        assert_null(server->user.name);
    assert_string_equal(server->access_log, "-");
    assert_int_equal(server->access_format, ACCESS_COMBINED);
    assert_string_equal(server->error_log, "-");
    assert_string_equal(server->status, "/-/");
    assert_int_equal(server->status_allow.n, 0);
    assert_int_equal(server->max_connections, 10000);
    assert_int_equal(server->header_timeout_ms, 10000);
    assert_int_equal(server->body_timeout_ms, 30000);
    assert_int_equal(server->keepalive_timeout_ms, 60000);
    assert_int_equal(server->drain_timeout_ms, 30000);
    assert_int_equal(server->max_head, 16384);
    assert_int_equal(server->max_fields, 100);
    assert_int_equal(server->max_body, 1 << 30);
    assert_int_equal(server->max_connections_per_client, 0);
    assert_int_equal(server->keepalive_requests, 10000);
    assert_int_equal(server->min_rate, 500);
    assert_int_equal(server->max_target, 1 << 20); /* max_head is the limit */
    assert_int_equal(server->max_field, 1 << 20);  /* likewise */
    assert_int_equal(server->max_chunk_overhead, 16384);
    assert_int_equal(server->max_trailers, 16384);
    assert_false(server->server_timing);
}

static void test_defaults(void **state)
{
    static const char text[] = SITE "[route /c/*]\ngateway = cgi\n"
                                    "[route /f/*]\ngateway = fastcgi\npool = m\n"
                                    "[pool m]\ncommand = tool\npm.max_children = 1\n"
                                    "[pool s]\nserver = 127.0.0.1:1\n";
    struct config *config = parse_good(text);
    const struct config_route *cgi = config->routes[0], *fastcgi = config->routes[1];
    const struct config_pool *managed = config->pools[0], *servers = config->pools[1];

    (void)state;
    check_server_defaults(&config->server);
    assert_words(&config->sites[0]->index_files, "index.html");
    assert_int_equal(config->sites[0]->symlinks, SYMLINKS_BENEATH);
    assert_false(config->sites[0]->has_listings);
    assert_true(config->sites[0]->has_precompressed);
    assert_words(&config->sites[0]->hidden, ".*|*~|#*#|*.bak|*.orig|*.rej|*.save|*.swo|*.swp");
    assert_int_equal(config->sites[0]->candidates.n, 0);

    assert_int_equal(cgi->timeout_ms, 30000);
    assert_int_equal(cgi->idle_timeout_ms, 10000);
    assert_int_equal(cgi->max_running, 32);
    assert_int_equal(cgi->queue, 128);
    assert_int_equal(cgi->queue_timeout_ms, 5000);
    assert_null(cgi->user.name);
    assert_no_rlimits(&cgi->rlimits);
    assert_words(&cgi->pass_env, "PATH|LANG|TZ");
    assert_int_equal(fastcgi->timeout_ms, 60000);
    assert_int_equal(fastcgi->idle_timeout_ms, 30000);

    assert_int_equal(managed->queue, 256);
    assert_int_equal(managed->queue_timeout_ms, 5000);
    assert_true(managed->clear_env);
    assert_null(managed->user.name);
    assert_null(managed->chdir);
    assert_no_rlimits(&managed->rlimits);
    assert_words(&managed->pass_env, "PATH|LANG|TZ");
    assert_int_equal(servers->max_connections, 16);
    assert_int_equal(servers->queue, 256);
    config_free(config);
}

struct refusal {
    const char *text;
    const char *first; /* line of the errors, behind "test.conf" */
};

static void assert_refusals(const struct refusal *at, size_t n)
{
    for (; n > 0; n--, at++) {
        char *expected = NULL;
        struct config *config = parse(at->text);

        if (config != NULL)
            fail_msg("accepted: %s", at->text);
        output[strcspn(output, "\n")] = '\0';
        assert_true(asprintf(&expected, "test.conf%s", at->first) > 0);
        assert_text(output, expected);
        free(expected);
    }
}

#define NO_NETWORK(word)                                                                                               \
    ":2: \"" word                                                                                                      \
    "\" for \"status_allow\" is no network; it is like 10.0.0.0/8, 192.0.2.7 or fd00::/8, and nothing but zeros "      \
    "stands behind its bits"
#define NO_PREFIX(word) ":2: \"status\" is off, or a path that begins and ends with /, like /-/, not \"" word "\""
#define NO_PLAIN(word)                                                                                                 \
    ":2: \"" word "\" for \"status\" is no plain path; there is no ?, #, %, *, // or dot segment in one"

#define NO_CANDIDATE(word)                                                                                             \
    ":3: \"" word                                                                                                      \
    "\" for \"try\" is no path; it begins with / or $path, and the last may be =403, =404, =410, =451 or =503"

#define N(array) (sizeof(array) / sizeof *(array))

static const struct refusal lines[] = {
    {"", ": no [site]; add one: [site *] with root = DIR"},
    {"\n\nroot = x\n", ":3: \"root\" stands before the first section"},
    {SITE "nonsense\n", ":3: this line is no \"key = value\""},
    {SITE "= x\n", ":3: this line is no \"key = value\""},
    {SITE "more nonsense", ":3: this line is no \"key = value\""},
    {"[server]\nlisten 127.0.0.1:8080\n" SITE, ":2: this line is no \"key = value\""},
    {CGI("  env[A] = " FIFTY FIFTY FIFTY TEN TEN TEN TEN "1"), ":5: line longer than 198 bytes"},
    {SITE "[server]\naccess_log = a\033[1m\n", ":4: a control byte, 0x1b, in the line; remove it"},
    {SITE "[server\nfronts = 1000", ":3: \"]\" is missing"},
    {SITE "[server] fronts = 1", ":3: \"fronts = 1\" stands behind the \"]\""},
    {SITE "[server \"x]", ":3: a '\"' is not closed"},
    {SITE "[]\nx = 1\n", ":3: unknown section []; one of: [server], [site NAME], [route PATTERN], [pool NAME]"},
    {SITE "[upstream php]", ":3: unknown section [upstream php]; one of: [server], [site NAME], [route PATTERN], "
                            "[pool NAME]"},
    {SITE "[rout *.php]\nnothing = here", ":3: unknown section [rout *.php]; did you mean [route]?"},
    {SITE "[pool " FIFTY FIFTY "]", ":3: the name of [pool " FIFTY TEN TEN "0123...] has to be of letters, digits, "
                                    "\".\", \"_\" and \"-\", at most 64"},
};

static void test_lines(void **state)
{
    (void)state;
    assert_refusals(lines, N(lines));
}

static const struct refusal keys[] = {
    {MANAGED("pm.max_childs = 1\n"),
     ":6: unknown key \"pm.max_childs\" in [pool p]; did you mean \"pm.max_children\"?"},
    {CGI("dri = x\n"), ":5: unknown key \"dri\" in [route /x/*]; did you mean \"dir\"?"},
    {CGI("dr[x] = x\n"), ":5: unknown key \"dr[x]\" in [route /x/*]; did you mean \"dir\"?"},
    {CGI("dxx = x\n"), ":5: unknown key \"dxx\" in [route /x/*]"},
    {"[server]\nlisetn = x\n" SITE, ":2: unknown key \"lisetn\" in [server]; did you mean \"listen\"?"},
    {SITE "max_body = 1m\n", ":3: unknown key \"max_body\" in [site *]; it belongs in [server]"},
    {SITE "colour = blue\n", ":3: unknown key \"colour\" in [site *]"},
    {SITE "root[x] = www\n", ":3: unknown key \"root[x]\" in [site *]; did you mean \"root\"?"},
    {CGI("env = x\n"), ":5: unknown key \"env\" in [route /x/*]; did you mean \"env[NAME]\"?"},
    {CGI("interpreter = sh\n"), ":5: unknown key \"interpreter\" in [route /x/*]; did you mean "
                                "\"interpreter[.suffix]\"?"},
    {SITE "root = cgi\n", ":3: \"root\" in [site *] is given twice; first in line 2"},
    {CGI("env[A] = 1\nenv[B] = 2\nenv[A] = 3\n"), ":7: \"env[A]\" in [route /x/*] is given twice; first in line 5"},
    {"[site *]\nroot =\n", ":2: \"root\" in [site *] has no value"},
    {"[site *]\nroot = ; www\n", ":2: \"root\" in [site *] has no value"},
    {MANAGED("pm = fast"), ":6: unknown value \"fast\" for \"pm\"; one of: static, dynamic, ondemand"},
    {POOL("server = 127.0.0.1:1\npm = ondemand\n"), ":5: \"pm\" in [pool p] is for pools with \"command\""},
    {POOL("server = 127.0.0.1:1\nmax_age = 1h\n"), ":5: \"max_age\" in [pool p] is for pools with \"command\""},
    {MANAGED("slowlog ="), ":6: \"slowlog\" in [pool p] has no value"},
    {MANAGED("watch = *.php"), ":6: \"watch\" in [pool p] is not supported yet"},
    {SITE "try = path", NO_CANDIDATE("path")},
    {SITE "try = =404 $path", NO_CANDIDATE("=404")},
    {SITE "try = $path =200", NO_CANDIDATE("=200")},
    {SITE "try = $path =405", NO_CANDIDATE("=405")},
    {SITE "try = $path /a$path",
     ":3: \"/a$path\" for \"try\": $path stands at the beginning, and is the only variable"},
    {SITE "try = $path /index.php?q=$path", ":3: \"/index.php?q=$path\" for \"try\": the query goes along by itself"},
    {SITE "hidden = .* a/b", ":3: \"a/b\" for \"hidden\" is no pattern of a file name; there is no / in one"},
    {SITE "error_page = /404.html", ":3: unknown key \"error_page\" in [site *]; did you mean \"error_page[STATUS]\"?"},
    {SITE "error_page[200] = /a.html",
     ":3: \"200\" in \"error_page[200]\" is no error's status; it is 400 to 599, 4xx or 5xx"},
    {SITE "error_page[404] = a.html",
     ":3: \"error_page[404]\" has to be a file below the site's root, beginning with /"},
    {"[server]\nstatus_allow = 10.0.0.0/33", NO_NETWORK("10.0.0.0/33")},
    {"[server]\nstatus_allow = 10.0.0.1/8", NO_NETWORK("10.0.0.1/8")},
    {"[server]\nstatus_allow = 127.0.0.1 host", NO_NETWORK("host")},
    {"[server]\nstatus_allow = ::/129", NO_NETWORK("::/129")},
    {"[server]\nstatus_allow = 10.0.0.0/", NO_NETWORK("10.0.0.0/")},
    {"[server]\nstatus = /", NO_PREFIX("/")},
    {"[server]\nstatus = -/", NO_PREFIX("-/")},
    {"[server]\nstatus = /-", NO_PREFIX("/-")},
    {"[server]\nstatus = //", NO_PREFIX("//")},
    {"[server]\nstatus = /a//b/", NO_PLAIN("/a//b/")},
    {"[server]\nstatus = /a/../", NO_PLAIN("/a/../")},
    {"[server]\nstatus = /%41/", NO_PLAIN("/%41/")},
    {SITE "listing = of", ":3: unknown value \"of\" for \"listing\"; one of: on, off"},
    {ROUTE("gateway = redirect"), ":3: [route /x/*] needs to = /PATH or to = https://HOST/PATH"},
    {ROUTE("gateway = redirect\nto = there"), ":5: \"to\" has to begin with /, http:// or https://"},
    {ROUTE("gateway = redirect\nto = /a b"), ":5: \"to\": what is no visible ASCII is written as %XX in a location"},
    {ROUTE("gateway = redirect\nto = /\xc3\xa4"),
     ":5: \"to\": what is no visible ASCII is written as %XX in a location"},
    {ROUTE("gateway = redirect\nto = https://$host/$path"),
     ":5: \"to\": $path begins with a slash itself; leave the one before it out"},
    {ROUTE("gateway = redirect\nto = /$uri"),
     ":5: \"to\": there is no variable \"$uri\"; there are $path, $rest and $host"},
    {ROUTE("gateway = redirect\nto = /a\nstatus = 304"), ":6: \"status\" is 301, 302, 303, 307 or 308, not 304"},
    {ROUTE("gateway = static\nto = /a"), ":5: \"to\" in [route /x/*] is for gateway = redirect"},
    {ROUTE("gateway = fastcgi\nrole = filtre\npool = p"),
     ":5: unknown value \"filtre\" for \"role\"; one of: responder, authorizer, filter"},
    {ROUTE("gateway = fastcgi\nrole = filter\npool = p") "\n[pool p]\ncommand = $script\npm.max_children = 1",
     ":6: [pool p] runs scripts; a role other than responder needs a program"},
    {ROUTE("gateway = cgi\nrole = filter"), ":5: \"role\" in [route /x/*] is for gateway = fastcgi"},
    {ROUTE("gateway = cgi\nrequest_buffering = maybe"),
     ":5: unknown value \"maybe\" for \"request_buffering\"; one of: off, on, auto"},
    {ROUTE("gateway = cgi\nsendfile_dir = /nowhere"),
     ":5: sendfile_dir \"/nowhere\" is not there; create it or correct the path"},
    {ROUTE("gateway = statik"),
     ":4: unknown value \"statik\" for \"gateway\"; one of: static, cgi, fastcgi, deny, redirect"},
    {SITE "symlinks = maybe", ":3: unknown value \"maybe\" for \"symlinks\"; one of: off, beneath, on"},
    {"[server]\nserver_timing = maybe", ":2: unknown value \"maybe\" for \"server_timing\"; one of: on, off"},
    {"[server]\nserver_timing = on yes", ":2: unknown value \"on yes\" for \"server_timing\"; one of: on, off"},
};

static void test_keys(void **state)
{
    (void)state;
    assert_refusals(keys, N(keys));
}

static const struct refusal ranges[] = {
    {"[server]\nheader_timeout = 10\n" SITE, ":2: \"10\" for \"header_timeout\" needs a unit: 10s"},
    {"[server]\nheader_timeout = soon\n" SITE,
     ":2: \"soon\" for \"header_timeout\" is no duration, like 250ms, 10s, 5m or 1h"},
    {"[server]\nheader_timeout = 1.5s\n" SITE,
     ":2: \"1.5s\" for \"header_timeout\" is no duration, like 250ms, 10s, 5m or 1h"},
    {"[server]\nheader_timeout = 2h\n" SITE, ":2: \"header_timeout\" must be from 10ms to 1h, not 2h"},
    {"[server]\nheader_timeout = 9ms\n" SITE, ":2: \"header_timeout\" must be from 10ms to 1h, not 9ms"},
    {"[server]\nmax_head = 1023\n" SITE, ":2: \"max_head\" must be from 1k to 1m, not 1023"},
    {"[server]\nmax_head = 1048577\n" SITE, ":2: \"max_head\" must be from 1k to 1m, not 1048577"},
    {"[server]\nmax_head = 16q\n" SITE, ":2: \"16q\" for \"max_head\" is no size, like 65536, 64k, 16m or 1g"},
    {"[server]\nmax_body = 99999999999999999999g\n" SITE,
     ":2: \"max_body\" must be from 0 to 1024g, not 99999999999999999999g"},
    {"[server]\nmax_fields = many\n" SITE, ":2: \"many\" for \"max_fields\" is no number"},
    {"[server]\nmax_fields = -1\n" SITE, ":2: \"-1\" for \"max_fields\" is no number"},
    {"[server]\nmax_fields = 1001\n" SITE, ":2: \"max_fields\" must be from 1 to 1000, not 1001"},
    {"[server]\nfronts = 0\n" SITE, ":2: \"fronts\" must be from 1 to 64, not 0"},
    {"[server]\nfronts = all\n" SITE, ":2: \"all\" for \"fronts\" is no number, nor auto"},
    {"[server]\nmax_connections = 4294967297\n" SITE,
     ":2: \"max_connections\" must be from 1 to 1000000, not 4294967297"},
    {CGI("rlimit_cpu = 1500ms\n"), ":5: \"rlimit_cpu\" is counted in whole seconds, not 1500ms"},
    {CGI("rlimit_cpu = 10ms\n"), ":5: \"rlimit_cpu\" must be from 1s to 24h, not 10ms"},
    {CGI("rlimit_files = 7\n"), ":5: \"rlimit_files\" must be from 8 to 1000000, not 7"},
    {"[server]\nheader_timeout = 0\n" SITE, ":2: \"header_timeout\" must be from 10ms to 1h, not 0"},
    {POOL("command = tool\npm.max_children = 0\n"), ":5: \"pm.max_children\" must be from 1 to 10000, not 0"},
    {POOL("command = tool\npm.max_children = 10001\n"), ":5: \"pm.max_children\" must be from 1 to 10000, not 10001"},
    {MANAGED("pm.start_servers = 10001\n"), ":6: \"pm.start_servers\" must be from 0 to 10000, not 10001"},
    {MANAGED("pm.min_spare_servers = 0\n"), ":6: \"pm.min_spare_servers\" must be from 1 to 10000, not 0"},
    {MANAGED("pm.max_spare_servers = 0\n"), ":6: \"pm.max_spare_servers\" must be from 1 to 10000, not 0"},
    {MANAGED("pm.max_spawn_rate = 0\n"), ":6: \"pm.max_spawn_rate\" must be from 1 to 10000, not 0"},
    {MANAGED("pm.process_idle_timeout = 10\n"), ":6: \"10\" for \"pm.process_idle_timeout\" needs a unit: 10s"},
    {MANAGED("pm.process_idle_timeout = 0\n"), ":6: \"pm.process_idle_timeout\" must be from 10ms to 24h, not 0"},
    {MANAGED("pm.max_requests = -1\n"), ":6: \"-1\" for \"pm.max_requests\" is no number"},
    {MANAGED("max_memory = 1025g\n"), ":6: \"max_memory\" must be from 0 to 1024g, not 1025g"},
    {MANAGED("max_age = 8761h\n"), ":6: \"max_age\" must be from 0 to 8760h, not 8761h"},
    {MANAGED("max_age = 60\n"), ":6: \"60\" for \"max_age\" needs a unit: 60s"},
    {MANAGED("start_timeout = 0\n"), ":6: \"start_timeout\" must be from 10ms to 1h, not 0"},
    {MANAGED("request_terminate_timeout = 25h\n"), ":6: \"request_terminate_timeout\" must be from 0 to 24h, not 25h"},
    {MANAGED("request_slowlog_timeout = 2\n"), ":6: \"2\" for \"request_slowlog_timeout\" needs a unit: 2s"},
    {MANAGED("process.priority = 20\n"), ":6: \"20\" is no priority, from -20 to 19"},
    {MANAGED("process.priority = -21\n"), ":6: \"-21\" is no priority, from -20 to 19"},
    {MANAGED("process.priority = low\n"), ":6: \"low\" is no priority, from -20 to 19"},
    {MANAGED("process.priority = 5 nice\n"), ":6: \"5 nice\" is no priority, from -20 to 19"},
};

static void test_ranges(void **state)
{
    (void)state;
    assert_refusals(ranges, N(ranges));
}

static const struct refusal values[] = {
    {"[server]\nuser = nobody-at-all\n" SITE,
     ":2: there is no user \"nobody-at-all\" for \"user\"; create it or name another"},
    {SITE "index = a/b\n", ":3: \"a/b\" for \"index\" is no file name; a path may not stand there"},
    {SITE "index = ..\n", ":3: \"..\" for \"index\" is no file name; a path may not stand there"},
    {SITE "index = \"a\n", ":3: a '\"' in \"index\" is not closed"},
    {CGI("env[1A] = x\n"), ":5: \"1A\" in \"env[1A]\" is no name of a variable"},
    {CGI("env[] = x\n"), ":5: \"\" in \"env[]\" is no name of a variable"},
    {CGI("env[A] = \"x ; y\"\n"), ":5: the '\"' in \"env[A]\" is not closed (\" ;\" starts a comment, there too)"},
    {CGI("env[A] = \"\n"), ":5: the '\"' in \"env[A]\" is not closed (\" ;\" starts a comment, there too)"},
    {CGI("pass_env = PATH A-B\n"), ":5: \"A-B\" for \"pass_env\" is no name of a variable"},
    {CGI("pass_env = \"PATH\"\n"), ":5: \"pass_env\" takes names of variables, not '\"'"},
    {"[server]\nerror_log = off\n" SITE, ":2: \"error_log\" cannot be off; - is stderr"},
    {"[site *]\nroot = nowhere\n", ":2: root \"@/nowhere\" is not there; create it or correct the path"},
    {"[site *]\nroot = bin/tool\n", ":2: root \"@/bin/tool\" is no directory"},
    {"[site *]\nroot = www; my site\n",
     ":2: root \"@/www; my site\" is not there; a comment needs white space before its \";\""},
    {"[site *]\nroot = /proc/self/fd/x" FIFTY FIFTY "/\n",
     ":2: root \"/proc/self/fd/x" FIFTY FIFTY "\" is not there; create it or correct the path"},
    {CGI("dir = nowhere\n"), ":5: dir \"@/nowhere\" is not there; create it or correct the path"},
    {CGI("program = bin/nothing\n"), ":5: program \"@/bin/nothing\" is not there; correct the path, or install it"},
    {CGI("program = bin\n"), ":5: program \"@/bin\" is no file"},
    {CGI("program = bin/plain\n"), ":5: program \"@/bin/plain\" is not executable; chmod +x would make it so"},
    {CGI("interpreter[py] = tool\n"), ":5: \"py\" in \"interpreter[py]\" is no suffix, like .py"},
    {CGI("interpreter[.] = tool\n"), ":5: \".\" in \"interpreter[.]\" is no suffix, like .py"},
    {CGI("interpreter[.py] = tool2\n"), ":5: interpreter[.py] \"tool2\" is not in PATH; is the package installed?"},
    {CGI("interpreter[.py] = tool; not the script's own\n"),
     ":5: interpreter[.py] \"tool; not the script's own\" is not in PATH; a comment needs white space before its "
     "\";\""},
    {CGI("interpreter[.py] = ./tool\n"),
     ":5: interpreter[.py] \"@/tool\" is not there; correct the path, or install it"},
    {POOL("command = php-cgix -b\npm.max_children = 1\n"),
     ":4: command \"php-cgix\" is not in PATH; is the package installed?"},
    {POOL("command = plain\npm.max_children = 1\n"), ":4: command \"plain\" is not in PATH; is the package installed?"},
    {POOL("command = \"\"\npm.max_children = 1\n"), ":4: command \"\" is not in PATH; is the package installed?"},
    {POOL("command = \"tool\npm.max_children = 1\n"), ":4: a '\"' in \"command\" is not closed"},
    {POOL("command = $script -v\npm.max_children = 1\n"),
     ":4: \"$script\" stands alone: each script is a program, started by its own name"},
    {POOL("command = tool $script\npm.max_children = 1\n"),
     ":4: \"$script\" stands alone: each script is a program, started by its own name"},
    {POOL("command = tool\npm.max_children = 1\nchdir = bin/tool\n"), ":6: chdir \"@/bin/tool\" is no directory"},
};

static void test_values(void **state)
{
    (void)state;
    assert_refusals(values, N(values));
}

static const struct refusal addresses[] = {
    {"[server]\nlisten = 8080\n" SITE, ":2: \"8080\" for \"listen\": needs a port, like localhost:8080"},
    {"[server]\nlisten = [::1]\n" SITE, ":2: \"[::1]\" for \"listen\": needs a port, like localhost:8080"},
    {"[server]\nlisten = x:\n" SITE, ":2: \"x:\" for \"listen\": needs a port, like localhost:8080"},
    {"[server]\nlisten = :80\n" SITE, ":2: \":80\" for \"listen\": needs a host before the port, like 127.0.0.1:8080"},
    {"[server]\nlisten = 127.0.0.1:65536\n" SITE,
     ":2: \"127.0.0.1:65536\" for \"listen\": the port is from 0 to 65535"},
    {"[server]\nlisten = 127.0.0.1:http\n" SITE, ":2: \"127.0.0.1:http\" for \"listen\": the port is from 0 to 65535"},
    {"[server]\nlisten = 127.0.0.256:80\n" SITE, ":2: \"127.0.0.256:80\" for \"listen\": not an IPv4 address"},
    {"[server]\nlisten = 127.1:80\n" SITE, ":2: \"127.1:80\" for \"listen\": not an IPv4 address"},
    {"[server]\nlisten = [::g]:80\n" SITE, ":2: \"[::g]:80\" for \"listen\": not an IPv6 address"},
    {"[server]\nlisten = ::1:80\n" SITE,
     ":2: \"::1:80\" for \"listen\": an IPv6 address stands in brackets, like [::1]:8080"},
    {"[server]\nlisten = a_b!:80\n" SITE, ":2: \"a_b!:80\" for \"listen\": not a host name"},
    {"[server]\nlisten = nowhere.invalid:80\n" SITE,
     ":2: \"nowhere.invalid:80\" for \"listen\": Name or service not known"},
    {"[server]\nlisten = unix:\n" SITE, ":2: \"unix:\" for \"listen\": needs a path, like unix:/run/x.sock"},
    {"[server]\nlisten = unix:/" FIFTY FIFTY "1234567\n" SITE,
     ":2: \"unix:/" FIFTY FIFTY "1234567\" for \"listen\": the path of a socket has at most 107 bytes"},
    {"[server]\nlisten = 127.0.0.1:443 tls\n" SITE, ":2: \"tls\" behind an address is not supported yet"},
    {"[server]\nlisten = 127.0.0.1:443 ssl\n" SITE, ":2: unknown \"ssl\" behind an address"},
    {"[server]\nlisten = 127.0.0.1:80\nlisten = 127.0.0.1:080\n" SITE,
     ":3: \"127.0.0.1:080\" for \"listen\" is the same address as \"127.0.0.1:80\""},
    {POOL("server = 10.0.0.5:9000 weight=0\n"), ":4: \"weight=0\" behind \"10.0.0.5:9000\" must be from 1 to 1000"},
    {POOL("server = unix:x weight=1001\n"), ":4: \"weight=1001\" behind \"unix:x\" must be from 1 to 1000"},
    {POOL("server = 10.0.0.5:9000 weight=2x\n"),
     ":4: unknown \"weight=2x\" behind an address; there are weight=N, max_connections=N and backup"},
    {POOL("server = 10.0.0.5:9000 spare\n"),
     ":4: unknown \"spare\" behind an address; there are weight=N, max_connections=N and backup"},
    {POOL("server = 10.0.0.5:9000 max_connections=10001\n"),
     ":4: \"max_connections=10001\" behind \"10.0.0.5:9000\" must be from 1 to 10000"},
    {POOL("server = srv:_fastcgi._tcp.example.org weight=2\n"),
     ":4: \"weight=2\" behind \"srv:_fastcgi._tcp.example.org\": SRV records have weights of their own"},
    {POOL("server = srv:\n"), ":4: \"srv:\" for \"server\": not a host name"},
    {POOL("server = srv:a.example:9000\n"), ":4: \"srv:a.example:9000\" for \"server\": not a host name"},
    {POOL("server = app.example\n"), ":4: \"app.example\" for \"server\": needs a port, like localhost:8080"},
    {POOL("server = app.example:70000\n"), ":4: \"app.example:70000\" for \"server\": the port is from 1 to 65535"},
    {POOL("server = a_b!:80\n"), ":4: \"a_b!:80\" for \"server\": not a host name"},
    {POOL("server = ::1:80\n"), ":4: \"::1:80\" for \"server\": an IPv6 address stands in brackets, like [::1]:8080"},
    {POOL("server = [::1]:9\nserver = [0::1]:9\n"),
     ":5: \"[0::1]:9\" for \"server\" is the same address as \"[::1]:9\""},
    {POOL("server = App.example:9\nserver = app.EXAMPLE:9 backup\n"),
     ":5: \"app.EXAMPLE:9\" for \"server\" is the same address as \"App.example:9\""},
    {SERVERS("hash = cookie\n"), ":5: \"cookie\" for \"hash\" is neither client nor cookie NAME"},
    {SERVERS("hash = cookie a b\n"), ":5: \"cookie a b\" for \"hash\" is neither client nor cookie NAME"},
    {SERVERS("hash = cookie a\n"), ":5: \"hash\" in [pool p] has no effect; it needs balance = hash"},
    {SERVERS("balance = random\n"),
     ":5: unknown value \"random\" for \"balance\"; one of: least_busy, round_robin, hash"},
    {SERVERS("max_fails = 33\n"), ":5: \"max_fails\" must be from 0 to 32, not 33"},
    {SERVERS("health = ping\n"), ":5: \"health\" is a path beginning with /, and how often: /ping 5s"},
    {SERVERS("health = /ping 5\n"), ":5: \"5\" for \"health\" is no duration from 100ms to 1h"},
    {SERVERS("health = /ping 99ms\n"), ":5: \"99ms\" for \"health\" is no duration from 100ms to 1h"},
    {SERVERS("slow_start = 2h\n"), ":5: \"slow_start\" must be from 0 to 1h, not 2h"},
    {"[server]\nresolver = ns.example\n" SITE,
     ":2: \"ns.example\" for \"resolver\": not an address, which it has to be"},
    {"[server]\nresolver = 127.0.0.1:0\n" SITE, ":2: \"127.0.0.1:0\" for \"resolver\": the port is from 1 to 65535"},
    {POOL("server = *:9000\n"), ":4: \"*:9000\" for \"server\": \"*\" is no address to connect to"},
    {POOL("server = 10.0.0.5:0\n"), ":4: \"10.0.0.5:0\" for \"server\": the port is from 1 to 65535"},
};

static void test_servers(void **state)
{
    struct config *config = parse_good("[server]\nresolver = 127.0.0.1:5353 192.0.2.1 [::1] [::1]:54\n" SERVERS(
        "server = unix:run/x weight=1000\nserver = srv:_fastcgi._tcp.example.org backup\nmax_connections = 2\n"
        "balance = hash\nhash = cookie sid\nmax_fails = 0\nfail_timeout = 1s\nconnect_timeout = 100ms\n"
        "slow_start = 30s\nhealth = /ping?full 250ms\n"));
    const struct config_pool *pool = config->pools[0];

    (void)state;
    assert_string_equal(config->server.resolver, "127.0.0.1:5353,192.0.2.1:53,[::1]:53,[::1]:54");
    assert_int_equal(pool->servers.n, 3);
    assert_int_equal(pool->servers.at[1].weight, 1000);
    assert_int_equal(pool->servers.at[1].address.ss_family, AF_UNIX);
    assert_int_equal(pool->servers.at[2].kind, REMOTE_SRV);
    assert_string_equal(pool->servers.at[2].name, "_fastcgi._tcp.example.org");
    assert_true(pool->servers.at[2].is_backup);
    assert_int_equal(pool->n_connections, 2 + 2 + CONFIG_REMOTES * 2);
    assert_int_equal(pool->balance, BALANCE_HASH);
    assert_string_equal(pool->hash_cookie, "sid");
    assert_int_equal(pool->max_fails, 0);
    assert_int_equal(pool->fail_timeout_ms, 1000);
    assert_int_equal(pool->connect_timeout_ms, 100);
    assert_int_equal(pool->slow_start_ms, 30000);
    assert_string_equal(pool->health.path, "/ping?full");
    assert_int_equal(pool->health.interval_ms, 250);
    config_free(config);
}

static void test_server_defaults(void **state)
{
    struct config *config = parse_good(SERVERS(""));
    const struct config_pool *pool = config->pools[0];

    (void)state;
    assert_null(config->server.resolver);
    assert_int_equal(pool->n_connections, 16);
    assert_int_equal(pool->balance, BALANCE_LEAST_BUSY);
    assert_null(pool->hash_cookie);
    assert_int_equal(pool->max_fails, 3);
    assert_int_equal(pool->fail_timeout_ms, 10000);
    assert_int_equal(pool->connect_timeout_ms, 5000);
    assert_int_equal(pool->slow_start_ms, 0);
    assert_null(pool->health.path);
    config_free(config);
}

static void test_addresses(void **state)
{
    struct config *config = parse_good("[server]\nlisten = unix:/" FIFTY FIFTY "123456\n"
                                       "listen = 127.0.0.1:0\nlisten = 127.0.0.1:0\n" SITE);

    (void)state;
    assert_int_equal(config->server.listen.n, 3);
    config_free(config);
    assert_refusals(addresses, N(addresses));
}

static const struct refusal sections[] = {
    {"[server web]\n" SITE, ":1: [server web]: [server] has no name"},
    {"[server]\n\n[server]\nfronts = 1\n" SITE, ":3: a second [server]; the first is in line 1"},
    {"[site]\nroot = www\n", ":1: [site] needs a name: [site example.org], or [site *]"},
    {"[site a.org]\n", ":1: [site a.org] needs root = DIR"},
    {"[site a.org:80]\nroot = www\n", ":1: \"a.org:80\" in [site a.org:80]: a site's name has no port"},
    {"[site *.a.org]\nroot = www\n",
     ":1: \"*.a.org\" in [site *.a.org] is no host name; nor is it *, which answers any"},
    {"[site a..org]\nroot = www\n", ":1: \"a..org\" in [site a..org] is no host name; nor is it *, which answers any"},
    {"[site -a]\nroot = www\n", ":1: \"-a\" in [site -a] is no host name; nor is it *, which answers any"},
    {"[site a * b]\nroot = www\n", ":1: \"*\" in [site a * b] stands alone: it answers any name"},
    {"[site a b]\nroot = www\n[site c B.]\nroot = www\n", ":3: the site \"b\" is in line 1 already"},
    {"[site a a]\nroot = www\n", ":1: the site \"a\" is in line 1 already"},
    {SITE SITE, ":3: the site \"*\" is in line 1 already"},

    {"[route /x/*]\ngateway = deny\n" SITE, ":1: [route /x/*] belongs to the site above it, and there is none"},
    {SITE "[route]\ngateway = deny\n", ":3: [route] needs one pattern: /prefix/*, *.suffix or /exact"},
    {SITE "[route /a /b]\ngateway = deny\n", ":3: [route /a /b] needs one pattern: /prefix/*, *.suffix or /exact"},
    {SITE "[route x]\ngateway = deny\n",
     ":3: the pattern of [route x] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route *]\ngateway = deny\n",
     ":3: the pattern of [route *] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route *.]\ngateway = deny\n",
     ":3: the pattern of [route *.] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a*]\ngateway = deny\n",
     ":3: the pattern of [route /a*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a/*/b/*]\ngateway = deny\n",
     ":3: the pattern of [route /a/*/b/*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a//b]\ngateway = deny\n",
     ":3: the pattern of [route /a//b] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a//*]\ngateway = deny\n",
     ":3: the pattern of [route /a//*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route //*]\ngateway = deny\n",
     ":3: the pattern of [route //*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a/.]\ngateway = deny\n",
     ":3: the pattern of [route /a/.] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a?b]\ngateway = deny\n",
     ":3: the pattern of [route /a?b] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route *.*]\ngateway = deny\n",
     ":3: the pattern of [route *.*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route \"\"]\ngateway = deny\n",
     ":3: the pattern of [route ] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {SITE "[route /a/../*]\ngateway = deny\n",
     ":3: the pattern of [route /a/../*] matches nothing; it is one of /prefix/*, *.suffix or /exact"},
    {ROUTE(""), ":3: [route /x/*] needs gateway = static, cgi, fastcgi, deny or redirect"},
    {ROUTE("gateway = deny\ntimeout = 1s\n"), ":5: \"timeout\" in [route /x/*] is for gateway = cgi or fastcgi"},
    {CGI("pool = p\n"), ":5: \"pool\" in [route /x/*] is for gateway = fastcgi"},
    {POOL("server = 127.0.0.1:1\n") "[route /x/*]\ngateway = fastcgi\npool = p\nprogram = bin/tool\n",
     ":8: \"program\" in [route /x/*] is for gateway = cgi"},
    {CGI("dir = cgi\nprogram = bin/tool\n"), ":6: \"dir\" and \"program\" in [route /x/*] exclude each other"},
    {SITE "[route *.cgi]\ngateway = cgi\ndir = cgi\n", ":5: \"dir\" in [route *.cgi] is for /prefix/* routes"},
    {SITE "[route *.cgi]\ngateway = cgi\nprogram = bin/tool\n",
     ":5: \"program\" in [route *.cgi] is for /prefix/* and /exact routes"},
    {ROUTE("gateway = fastcgi\n"), ":3: [route /x/*] needs pool = NAME"},
    {ROUTE("gateway = fastcgi\npool = phq\n") "[pool php]\nserver = 127.0.0.1:1\n",
     ":5: there is no [pool phq]; did you mean \"php\"?"},
    {ROUTE("gateway = fastcgi\npool = python\n") "[pool php]\nserver = 127.0.0.1:1\n",
     ":5: there is no [pool python]; add it, with command or server"},

    {SITE "[pool]\nserver = 127.0.0.1:1\n", ":3: [pool] needs one name, like [pool php]"},
    {SITE "[pool a b]\nserver = 127.0.0.1:1\n", ":3: [pool a b] needs one name, like [pool php]"},
    {SITE "[pool \"\"]\nserver = 127.0.0.1:1\n",
     ":3: the name of [pool ] has to be of letters, digits, \".\", \"_\" and \"-\", at most 64"},
    {SITE "[pool a/b]\nserver = 127.0.0.1:1\n",
     ":3: the name of [pool a/b] has to be of letters, digits, \".\", \"_\" and \"-\", at most 64"},
    {POOL("server = 127.0.0.1:1\n[pool p]\nserver = 127.0.0.1:1\n"), ":5: [pool p] is in line 3 already"},
    {POOL("queue = 1\n"), ":3: [pool p] needs command = PROGRAM, or server = ADDRESS"},
    {POOL("command = tool\nserver = 127.0.0.1:1\n"), ":5: \"command\" and \"server\" in [pool p] exclude each other"},
    {POOL("command = tool\n"), ":3: [pool p] needs pm.max_children = N"},
    {POOL("server = 127.0.0.1:1\nchdir = www\n"), ":5: \"chdir\" in [pool p] is for pools with \"command\""},
    {DYNAMIC("pm.min_spare_servers = 17\n"), ":7: \"pm.min_spare_servers\" in [pool p] is more than pm.max_children"},
    {DYNAMIC("pm.max_spare_servers = 17\n"), ":7: \"pm.max_spare_servers\" in [pool p] is more than pm.max_children"},
    {DYNAMIC("pm.max_spare_servers = 3\npm.min_spare_servers = 4\n"),
     ":7: \"pm.max_spare_servers\" in [pool p] is less than pm.min_spare_servers"},
    {DYNAMIC("pm.start_servers = 0\n"),
     ":7: \"pm.start_servers\" in [pool p] is not between pm.min_spare_servers and pm.max_spare_servers"},
    {DYNAMIC("pm.min_spare_servers = 4\npm.start_servers = 3\n"),
     ":8: \"pm.start_servers\" in [pool p] is not between pm.min_spare_servers and pm.max_spare_servers"},
    {DYNAMIC("pm.start_servers = 7\npm.max_spare_servers = 6\n"),
     ":7: \"pm.start_servers\" in [pool p] is not between pm.min_spare_servers and pm.max_spare_servers"},
    {POOL("command = tool\npm.max_children = 1\nmax_connections = 1\n"),
     ":6: \"max_connections\" in [pool p] is for pools with \"server\""},
};

static void test_sections(void **state)
{
    (void)state;
    assert_refusals(sections, N(sections));
}

/* ---- process managers ---- */

static const struct {
    const char *text;
    unsigned max_children, start_servers, min_spare, max_spare;
} managers[] = {
    {DYNAMIC("pm.start_servers = 4\npm.min_spare_servers = 2\npm.max_spare_servers = 6\n"), 16, 4, 2, 6},
    {DYNAMIC(""), 16, 3, 1, 5},
    {DYNAMIC("pm.min_spare_servers = 4\n"), 16, 6, 4, 8},
    {DYNAMIC("pm.min_spare_servers = 13\n"), 16, 14, 13, 16},
    {DYNAMIC("pm.min_spare_servers = 16\n"), 16, 16, 16, 16},
    {DYNAMIC("pm.max_spare_servers = 1\n"), 16, 1, 1, 1},
    {DYNAMIC("pm.max_spare_servers = 16\npm.start_servers = 16\n"), 16, 16, 1, 16},
    {DYNAMIC("pm.start_servers = 1\n"), 16, 1, 1, 5},
    {POOL("command = tool\npm = dynamic\npm.max_children = 1\n"), 1, 1, 1, 1},
    {POOL("command = tool\npm = dynamic\npm.max_children = 2\n"), 2, 1, 1, 2},
    {POOL("command = tool\npm = dynamic\npm.max_children = 3\n"), 3, 1, 1, 2},
    {POOL("command = tool\npm = dynamic\npm.max_children = 10000\n"), 10000, 1251, 1, 2501},
    {POOL("command = $script\npm = dynamic\npm.max_children = 8\n"), 8, 2, 1, 3},
};

/* What is not said follows from what is. */
static void test_dynamic(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(managers); i++) {
        struct config *config = parse_good(managers[i].text);
        const struct config_pool *pool = config->pools[0];

        assert_int_equal(pool->pm, PM_DYNAMIC);
        assert_int_equal(pool->max_children, managers[i].max_children);
        assert_int_equal(pool->start_servers, managers[i].start_servers);
        assert_int_equal(pool->min_spare_servers, managers[i].min_spare);
        assert_int_equal(pool->max_spare_servers, managers[i].max_spare);
        assert_int_equal(pool->max_spawn_rate, 32);
        config_free(config);
    }
}

/* A number that is refused is not held against another. */
static void test_dynamic_errors(void **state)
{
    static const struct {
        const char *text, *output;
    } cases[] = {
        {POOL("command = tool\npm = dynamic\npm.max_children = 10001\n"),
         "test.conf:6: \"pm.max_children\" must be from 1 to 10000, not 10001\n"},
        {DYNAMIC("pm.max_spare_servers = 0\npm.start_servers = 12\n"),
         "test.conf:7: \"pm.max_spare_servers\" must be from 1 to 10000, not 0\n"},
        {DYNAMIC("pm.min_spare_servers = few\npm.start_servers = 12\n"),
         "test.conf:7: \"few\" for \"pm.min_spare_servers\" is no number\n"},
        {DYNAMIC("pm.max_spawn_rate = 0\npm.min_spare_servers = 17\n"),
         "test.conf:7: \"pm.max_spawn_rate\" must be from 1 to 10000, not 0\n"
         "test.conf:8: \"pm.min_spare_servers\" in [pool p] is more than pm.max_children\n"},
        {"[server]\nfronts = 0\n" DYNAMIC("pm.min_spare_servers = 17\n"),
         "test.conf:2: \"fronts\" must be from 1 to 64, not 0\n"
         "test.conf:9: \"pm.min_spare_servers\" in [pool p] is more than pm.max_children\n"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        assert_null(parse(cases[i].text));
        assert_string_equal(output, cases[i].output);
    }
}

static void test_pool_keys(void **state)
{
    struct config *config = parse_good(MANAGED("pm = ondemand\n"
                                               "pm.process_idle_timeout = 250ms\n"
                                               "pm.max_spawn_rate = 7\n"
                                               "pm.max_requests = 500\n"
                                               "max_memory = 256m\n"
                                               "max_age = 8760h\n"
                                               "start_timeout = 2s\n"
                                               "request_terminate_timeout = 60s\n"
                                               "request_slowlog_timeout = 2s\n"
                                               "slowlog = logs/slow.log\n"
                                               "process.priority = -5\n"
                                               "[pool q]\nserver = 127.0.0.1:1\n"
                                               "request_terminate_timeout = 10ms\n"
                                               "slowlog = /var/log/slow.log\n"
                                               "[pool off]\ncommand = tool\npm.max_children = 1\n"
                                               "max_memory = 0\nmax_age = 0\n"
                                               "request_terminate_timeout = 0s\nrequest_slowlog_timeout = 0\n"
                                               "slowlog = -\nprocess.priority = 19\n"
                                               "[pool unsaid]\ncommand = tool\npm.max_children = 1\n"));
    const struct config_pool *p = config->pools[0], *q = config->pools[1];

    (void)state;
    assert_int_equal(p->pm, PM_ONDEMAND);
    assert_int_equal(p->process_idle_timeout_ms, 250);
    assert_int_equal(p->max_spawn_rate, 7);
    assert_int_equal(p->max_requests, 500);
    assert_int_equal(p->max_memory, 256 << 20);
    assert_int_equal(p->max_age_ms, (uint64_t)8760 * 3600 * 1000);
    assert_int_equal(p->start_timeout_ms, 2000);
    assert_int_equal(p->request_terminate_timeout_ms, 60000);
    assert_int_equal(p->request_slowlog_timeout_ms, 2000);
    assert_text(p->slowlog, "@/logs/slow.log");
    assert_int_equal(p->priority, -5);
    assert_int_equal(q->request_terminate_timeout_ms, 10);
    assert_string_equal(q->slowlog, "/var/log/slow.log");
    for (size_t i = 2; i < 4; i++) {
        const struct config_pool *off = config->pools[i];

        assert_int_equal(off->pm, PM_STATIC);
        assert_int_equal(off->process_idle_timeout_ms, 10000);
        assert_int_equal(off->max_requests, 0);
        assert_int_equal(off->max_memory, 0);
        assert_int_equal(off->max_age_ms, 0);
        assert_int_equal(off->start_timeout_ms, 30000);
        assert_int_equal(off->request_terminate_timeout_ms, 0);
        assert_int_equal(off->request_slowlog_timeout_ms, 0);
        assert_null(off->slowlog);
        assert_int_equal(off->priority, i == 2 ? 19 : 0);
    }
    config_free(config);
}

/* ---- identities ---- */

#define LONG_PATH "/" FIFTY FIFTY

static const struct {
    const char *one, *other;
    bool are_same;
} identities[] = {
    {MANAGED("chdir = www\n"), MANAGED("chdir = cgi\n"), false},
    {MANAGED("chdir = www\n"), MANAGED(""), false},
    {POOL("command = tool\npm.max_children = 1\n"), POOL("command = tool -v\npm.max_children = 1\n"), false},
    {POOL("command = tool\npm.max_children = 1\n"), POOL("command = $script\npm.max_children = 1\n"), false},
    {MANAGED("env[A] = 1\n"), MANAGED("env[A] = 2\n"), false},
    {MANAGED("env[A] = 1\n"), MANAGED("env[B] = 1\n"), false},
    {MANAGED("env[A] = 1\n"), MANAGED("env[A] = 1\nenv[B] =\n"), false},
    {MANAGED("pass_env = PATH\n"), MANAGED("pass_env = PATH TZ\n"), false},
    {MANAGED("clear_env = off\n"), MANAGED(""), false},
    {MANAGED("process.priority = 1\n"), MANAGED("process.priority = 2\n"), false},
    {MANAGED("no_new_privs = on\n"), MANAGED(""), false},
    {MANAGED("rlimit_as = 100m\n"), MANAGED("rlimit_as = 200m\n"), false},
    {MANAGED("rlimit_cpu = 1h\n"), MANAGED(""), false},
    {MANAGED("rlimit_nproc = 10\n"), MANAGED("rlimit_nproc = 11\n"), false},
    {MANAGED("rlimit_files = 10\n"), MANAGED("rlimit_files = 11\n"), false},
    {MANAGED("rlimit_core = 0\n"), MANAGED(""), false},
    {SITE "[pool p]\ncommand = tool\npm.max_children = 1\n", SITE "[pool q]\ncommand = tool\npm.max_children = 1\n",
     false},

    {MANAGED("chdir = www\n"), MANAGED("chdir = www\n"), true},
    {MANAGED("pm = static\n"), MANAGED("pm = dynamic\n"), true},
    {POOL("command = tool\npm.max_children = 1\n"), POOL("command = tool\npm.max_children = 9\n"), true},
    {DYNAMIC("pm.start_servers = 3\npm.min_spare_servers = 2\npm.max_spare_servers = 4\n"), DYNAMIC(""), true},
    {MANAGED("pm.max_spawn_rate = 1\npm.process_idle_timeout = 1s\npm.max_requests = 9\n"), MANAGED(""), true},
    {MANAGED("max_memory = 1g\nmax_age = 1h\nstart_timeout = 1s\n"), MANAGED(""), true},
    {MANAGED("queue = 1\nqueue_timeout = 1s\nmultiplex = off\n"), MANAGED(""), true},
    {MANAGED("request_terminate_timeout = 1s\nrequest_slowlog_timeout = 1s\nslowlog = x\n"), MANAGED(""), true},
    {MANAGED("chdir = www\nenv[A] = 1\n"), MANAGED("env[A] = 1\nchdir = www\n"), true},
    {MANAGED("clear_env = on\nno_new_privs = off\npass_env = PATH LANG TZ\n"), MANAGED(""), true},
    {MANAGED("chdir =   www ; where it is\n"), "[server]\nfronts = 3\n\n" MANAGED("\nchdir = www\n"), true},
};

static void test_identity_of_pools(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(identities); i++) {
        struct config *one = parse_good(identities[i].one), *other = parse_good(identities[i].other);

        if ((strcmp(one->pools[0]->identity, other->pools[0]->identity) == 0) != identities[i].are_same)
            fail_msg("%s\n%s\n", one->pools[0]->identity, other->pools[0]->identity);
        config_free(one);
        config_free(other);
    }
}

/* Of those that run as the server's user, or whose sockets are its own. */
static void test_identity_by_user(void **state)
{
    struct config *one, *other, *moved;

    (void)state;
    if (geteuid() != 0)
        skip();
    one = parse_good("[server]\nuser = nobody\n" MANAGED(""));
    moved = parse_good(MANAGED("") "[server]\nuser = nobody\n");
    other = parse_good(MANAGED(""));
    assert_string_equal(one->pools[0]->identity, moved->pools[0]->identity);
    assert_string_not_equal(one->pools[0]->identity, other->pools[0]->identity);
    config_free(other);
    other = parse_good("[server]\nuser = nobody\n" MANAGED("user = www-data\n"));
    assert_string_not_equal(one->pools[0]->identity, other->pools[0]->identity);
    config_free(one);
    config_free(other);
    config_free(moved);
}

static const struct {
    const char *one, *other;
    bool are_same;
} routes[] = {
    {CGI("timeout = 1s\n"), CGI("timeout = 2s\n"), false},
    {CGI(""), CGI("program = bin/tool\n"), false},
    {CGI(""), SITE "[route /y/*]\ngateway = cgi\n", false},
    {CGI(""), SITE "[route " LONG_PATH "/*]\ngateway = cgi\n", false},
    {SITE "[route " LONG_PATH "/a]\ngateway = cgi\n", SITE "[route " LONG_PATH "/b]\ngateway = cgi\n", false},
    {CGI(""), "[site *]\nroot = cgi\n[route /x/*]\ngateway = cgi\n", false},
    {CGI(""), "[site a.org]\nroot = www\n[route /x/*]\ngateway = cgi\n", false},
    {CGI(""), "[site *]\nroot = www\nlisting = on\n[route /x/*]\ngateway = cgi\n", false},
    {CGI(""), CGI(""), true},
    {CGI(""), "[server]\nfronts = 2\n" CGI("queue = 128\n") "[pool p]\nserver = 127.0.0.1:1\n", true},
    {CGI("timeout = 1s\nqueue = 9\n"), CGI("queue = 9\ntimeout = 1s\n"), true},
};

static void test_identity_of_routes(void **state)
{
    (void)state;
    for (size_t i = 0; i < N(routes); i++) {
        struct config *one = parse_good(routes[i].one), *other = parse_good(routes[i].other);

        if ((strcmp(one->routes[0]->identity, other->routes[0]->identity) == 0) != routes[i].are_same)
            fail_msg("%s\n%s\n", one->routes[0]->identity, other->routes[0]->identity);
        config_free(one);
        config_free(other);
    }
}

/* Every error is told, in the order of the lines, once. */
static void test_all_errors_in_one_go(void **state)
{
    struct config *config = parse("[server]\n"
                                  "fronts = 100\n"
                                  "colour = blue\n"
                                  "[route *.php]\n"
                                  "gateway = fastcgi\n"
                                  "pool = phq\n"
                                  "nonsense\n"
                                  "[bench]\n"
                                  "passed = over\n"
                                  "[pool php]\n"
                                  "server = 127.0.0.1\n"
                                  "chdir = /\n");

    (void)state;
    assert_null(config);
    assert_string_equal(output, "test.conf:2: \"fronts\" must be from 1 to 64, not 100\n"
                                "test.conf:3: unknown key \"colour\" in [server]\n"
                                "test.conf:4: [route *.php] belongs to the site above it, and there is none\n"
                                "test.conf:6: there is no [pool phq]; did you mean \"php\"?\n"
                                "test.conf:7: this line is no \"key = value\"\n"
                                "test.conf:8: unknown section [bench]; one of: [server], [site NAME], [route PATTERN], "
                                "[pool NAME]\n"
                                "test.conf:11: \"127.0.0.1\" for \"server\": needs a port, like localhost:8080\n"
                                "test.conf:12: \"chdir\" in [pool php] is for pools with \"command\"\n"
                                "test.conf: no [site]; add one: [site *] with root = DIR\n");
}

static void test_layout_of_lines(void **state)
{
    static const char text[] = "\xef\xbb\xbf[site " FIFTY "." FIFTY "] ; as long as that\r\n"
                               "# " FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n"
                               "; " FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n"
                               "\troot = www\r\n"
                               "    index = a;b c#d ; comment\r\n"
                               "[route /*]\n"
                               " gateway=cgi\n"
                               "env[A]=" FIFTY FIFTY FIFTY TEN TEN TEN TEN "1\n";
    struct config *config = parse_good(text);

    (void)state;
    assert_words(&config->sites[0]->names, FIFTY "." FIFTY);
    assert_words(&config->sites[0]->index_files, "a;b|c#d");
    assert_int_equal(strlen(config->routes[0]->env.at[0].value), 191);
    config_free(config);
}

static void test_patterns(void **state)
{
    static const struct {
        const char *text;
        enum route_match match;
        const char *pattern;
    } cases[] = {
        {"/*", ROUTE_PREFIX, ""},          {"/a/*", ROUTE_PREFIX, "/a"},    {"/a/b.c/*", ROUTE_PREFIX, "/a/b.c"},
        {"/", ROUTE_EXACT, "/"},           {"/a/", ROUTE_EXACT, "/a/"},     {"/a/...", ROUTE_EXACT, "/a/..."},
        {"/.well", ROUTE_EXACT, "/.well"}, {"*.php", ROUTE_SUFFIX, ".php"}, {"*.tar.gz", ROUTE_SUFFIX, ".tar.gz"},
    };

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        struct config *config;
        char *text;

        assert_true(asprintf(&text, SITE "[route %s]\ngateway = deny\n", cases[i].text) > 0);
        config = parse_good(text);
        assert_int_equal(config->routes[0]->match, cases[i].match);
        assert_string_equal(config->routes[0]->pattern, cases[i].pattern);
        config_free(config);
        free(text);
    }
}

static void test_site_for(void **state)
{
    static const struct {
        const char *host;
        size_t with_any, without;
    } cases[] = {
        {"b.org", 1, 1}, {"B.Org", 1, 1},  {"b.org.", 1, 1}, {"www.b.org", 1, 1}, {"a.org", 0, 0}, {"c.org", 2, 0},
        {"", 2, 0},      {"b.orgx", 2, 0}, {"*", 2, 0},      {".", 2, 0},         {"d.org", 3, 2},
    };
    struct config *with_any = parse_good("[site a.org]\nroot = www\n[site b.org www.b.org]\nroot = www\n"
                                         "[site *]\nroot = www\n[site d.org]\nroot = www\n");
    struct config *without =
        parse_good("[site a.org]\nroot = www\n[site b.org www.b.org]\nroot = www\n[site d.org]\nroot = www\n");

    (void)state;
    for (size_t i = 0; i < N(cases); i++) {
        assert_int_equal(config_site_for(with_any, span_of(cases[i].host))->index, cases[i].with_any);
        assert_int_equal(config_site_for(without, span_of(cases[i].host))->index, cases[i].without);
    }
    config_free(with_any);
    config_free(without);
}

static struct config *load(const char *path)
{
    size_t len;
    FILE *errors;
    struct config *config;

    free(output);
    errors = open_memstream(&output, &len);
    config = config_load(path, errors);
    fclose(errors);
    return config;
}

static void test_load(void **state)
{
    static const char nul[] = "[site *]\nroot\0 = www\n";
    char *path = path_of("test.conf"), *large = calloc(1, 1024 * 1024 + 1);
    struct config *config;

    (void)state;
    assert_null(load(path));
    assert_text(output, "@/test.conf: cannot be read: No such file or directory\n");
    assert_null(load(directory));
    assert_text(output, "@: cannot be read: Is a directory\n");

    write_file("test.conf", nul, sizeof nul - 1, 0644);
    assert_null(load(path));
    assert_text(output, "@/test.conf:2: a NUL byte; this is no text\n");

    memset(large, '\n', 1024 * 1024 + 1);
    write_file("test.conf", large, 1024 * 1024 + 1, 0644);
    assert_null(load(path));
    assert_text(output, "@/test.conf: cannot be read: File too large\n");
    write_file("test.conf", large, 1024 * 1024, 0644);
    assert_null(load(path));
    assert_text(output, "@/test.conf: no [site]; add one: [site *] with root = DIR\n");

    write_file("test.conf", SITE, strlen(SITE), 0644);
    config = load(path);
    assert_non_null(config);
    assert_text(config->file, "@/test.conf");
    assert_text(config->sites[0]->root, "@/www");
    config_free(config);

    assert_int_equal(chdir(directory), 0);
    config = load("test.conf");
    assert_non_null(config);
    assert_text(config->directory, "@");
    assert_text(config->sites[0]->root, "@/www");
    config_free(config);
    assert_int_equal(chdir("/"), 0);
    free(large);
    free(path);
}

static void test_users_of_root(void **state)
{
    struct config *config;

    (void)state;
    if (geteuid() != 0)
        skip();
    config = parse_good("[server]\nuser = nobody\n" CGI("user = root\n"));
    assert_string_equal(config->server.user.name, "nobody");
    assert_int_not_equal(config->server.user.uid, 0);
    assert_string_equal(config->routes[0]->user.name, "root");
    assert_int_equal(config->routes[0]->user.uid, 0);
    assert_int_equal(config->routes[0]->user.gid, 0);
    config_free(config);
}

static void test_users_of_others(void **state)
{
    static const struct refusal refusals[] = {
        {"[server]\nuser = root\n" SITE,
         ":2: \"user = root\": only root can change user; start as root or leave it out"},
    };
    uid_t was = geteuid();
    struct config *config;

    (void)state;
    assert_true(was != 0 || seteuid(65534) == 0); /* nobody, everywhere */
    config = parse_good(SITE);
    assert_null(config->server.user.name);
    config_free(config);
    assert_refusals(refusals, N(refusals));
    if (was == 0) {
        config = parse_good("[server]\nuser = nobody\n" SITE);
        assert_null(config->server.user.name);
        config_free(config);
    }
    assert_int_equal(seteuid(was), 0);
}

static void test_unreadable(void **state)
{
    static const struct refusal refusals[] = {
        {CGI("dir = cgi/closed\n"), ":5: dir \"@/cgi/closed\" cannot be used: Permission denied"},
    };
    char *path;

    (void)state;
    if (geteuid() != 0)
        skip();
    path = path_of("cgi");
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(seteuid(65534), 0);
    assert_refusals(refusals, N(refusals));
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(path, 0755), 0);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_servers),
        cmocka_unit_test(test_server_defaults),
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_dynamic),
        cmocka_unit_test(test_dynamic_errors),
        cmocka_unit_test(test_pool_keys),
        cmocka_unit_test(test_identity_of_pools),
        cmocka_unit_test(test_identity_by_user),
        cmocka_unit_test(test_identity_of_routes),
        cmocka_unit_test(test_all_errors_in_one_go),
        cmocka_unit_test(test_layout_of_lines),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_site_for),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_users_of_root),
        cmocka_unit_test(test_users_of_others),
        cmocka_unit_test(test_unreadable),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
