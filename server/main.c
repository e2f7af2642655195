/*
 * gatehouse: the command line. It reads what is asked for, makes the configuration, and hands over to the keeper.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "config.h"
#include "front.h"
#include "gateway/metavars.h"
#include "process/keeper.h"
#include "process/spawn.h"
#include "site/mime.h"
#include "site/route.h"
#include "tools/fcgi.h"

enum {
    EXIT_USAGE = 1, /* and errors of the configuration */
};

/* What the command line says. NULL: not said. */
struct arguments {
    const char *file, *port, *address;
    bool has_trace;
    char *const *words;
    char *const *argv; /* as it was given */
    int n_words;
};

struct command {
    const char *name;
    const char *synopsis;
    const char *summary;
    const char *options; /* the short ones that it takes, for getopt */
    int (*run)(const struct arguments *arguments);
    int (*tool)(int argc, char **argv); /* in the place of .options and .run: it reads its own command line */
};

static int dev(const struct arguments *arguments);
static int serve(const struct arguments *arguments);
static int check(const struct arguments *arguments);

static const struct command commands[] = {
    {"dev", "[dev] [DIR] [-p PORT] [-b ADDR] [-t]", "serve a directory (the current one) for development", "p:b:t", dev,
     NULL},
    {"serve", "serve -c FILE [-t]", "serve as configured, in the foreground", "c:t", serve, NULL},
    {"check", "check -c FILE", "test a configuration", "c:", check, NULL},
    {"fcgi", "fcgi get|ping|values ADDR ...", "speak FastCGI to an application: fcgi --help", "", NULL, fcgi_run},
};

static const struct {
    struct option option;
    const char *argument, *summary;
} options[] = {
    {{"port", required_argument, NULL, 'p'}, "PORT", "listen on this port (8080)"},
    {{"bind", required_argument, NULL, 'b'}, "ADDR", "listen on this address (127.0.0.1)"},
    {{"config", required_argument, NULL, 'c'}, "FILE", "the configuration"},
    {{"trace", no_argument, NULL, 't'}, "", "log the FastCGI records of requests that failed"},
    {{"help", no_argument, NULL, 'h'}, "", "print this and exit"},
    {{"version", no_argument, NULL, 'V'}, "", "print the version and exit"},
};

enum {
    N_COMMANDS = sizeof commands / sizeof *commands,
    N_OPTIONS = sizeof options / sizeof *options,
};

/* ---- running ---- */

/* Where the configuration comes from: a file, or, for development, a text about a directory. */
struct source {
    const struct arguments *arguments;
    const char *text, *dir;
};

static struct config *load(void *arg, FILE *errors)
{
    const struct source *source = arg;
    struct config *config = source->text != NULL ? config_parse("command line", source->text, source->dir, errors)
                                                 : config_load(source->arguments->file, errors);

    if (config != NULL)
        config->server.has_trace = source->arguments->has_trace;
    return config;
}

static int run(struct source *source)
{
    struct keeper_options keeper = {.load = load,
                                    .arg = source,
                                    .argv = source->arguments->argv,
                                    .front = front_run,
                                    .is_variable = metavars_may_set,
                                    .may_run = route_may_run};
    struct config *config = load(source, stderr);

    if (config == NULL)
        return EXIT_USAGE;
    spawn_prepare();
    mime_load("/etc/mime.types");
    int status = keeper_run(&keeper, config);
    mime_free();
    return status;
}

static int serve(const struct arguments *arguments)
{
    struct source source = {.arguments = arguments};

    if (arguments->file == NULL || arguments->n_words > 0) {
        fprintf(stderr, "gatehouse: serve takes -c FILE, and nothing else\n");
        return EXIT_USAGE;
    }
    return run(&source);
}

static int check(const struct arguments *arguments)
{
    struct config *config;

    if (arguments->file == NULL || arguments->n_words > 0) {
        fprintf(stderr, "gatehouse: check takes -c FILE, and nothing else\n");
        return EXIT_USAGE;
    }
    config = config_load(arguments->file, stderr);
    if (config == NULL)
        return EXIT_USAGE;
    printf("%s: ok: %zu sites, %zu routes, %zu pools\n", arguments->file, config->n_sites, config->n_routes,
           config->n_pools);
    config_free(config);
    return 0;
}

/* ---- a directory, for development ---- */

static bool is_in_path(const char *program)
{
    char path[PATH_MAX];
    const char *at = getenv("PATH");

    for (; at != NULL && *at != '\0'; at += strcspn(at, ":"), at += *at == ':') {
        snprintf(path, sizeof path, "%.*s/%s", (int)strcspn(at, ":"), at, program);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* Started by root, everything runs as the owner of the directory, who can read it. */
static void write_user(FILE *to, const char *dir)
{
    struct stat about;
    struct passwd *owner = geteuid() == 0 && stat(dir, &about) == 0 ? getpwuid(about.st_uid) : NULL;

    if (owner != NULL)
        fprintf(to, "user = %s\n", owner->pw_name);
}

static char *write_configuration(const struct arguments *arguments, const char *dir)
{
    const char *address = arguments->address != NULL ? arguments->address : "127.0.0.1";
    const char *port = arguments->port != NULL ? arguments->port : "8080";
    bool is_v6 = strchr(address, ':') != NULL && address[0] != '[';
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);

    fprintf(to, "[server]\nlisten = %s%s%s:%s\n", is_v6 ? "[" : "", address, is_v6 ? "]" : "", port);
    fprintf(to, "fronts = 1\naccess_format = pretty\nserver_timing = on\ndrain_timeout = 2s\n");
    write_user(to, dir);
    fprintf(to, "[site *]\nroot = .\nindex = index.html index.php\nlisting = on\n"
                "[route /cgi-bin/*]\ngateway = cgi\n"
                "[route *.cgi]\ngateway = cgi\n"
                "[route *.fcgi]\ngateway = fastcgi\npool = scripts\n"
                "[pool scripts]\ncommand = $script\npm = ondemand\npm.max_children = 4\n");
    if (is_in_path("php-cgi"))
        fprintf(to, "[route *.php]\ngateway = fastcgi\npool = php\n"
                    "[pool php]\ncommand = php-cgi\npm = ondemand\npm.max_children = 8\n");
    else
        fprintf(to, "[route *.php]\ngateway = deny\n");
    fclose(to);
    return text;
}

static int dev(const struct arguments *arguments)
{
    char dir[PATH_MAX];
    struct stat about;

    if (arguments->n_words > 1) {
        fprintf(stderr, "gatehouse: one directory, not %d; gatehouse --help shows the commands\n", arguments->n_words);
        return EXIT_USAGE;
    }
    const char *named = arguments->n_words == 1 ? arguments->words[0] : ".";
    if (realpath(named, dir) == NULL || stat(dir, &about) != 0) {
        fprintf(stderr, "gatehouse: %s: %s; name a directory, or a command: gatehouse --help\n", named,
                strerror(errno));
        return EXIT_USAGE;
    }
    if (!S_ISDIR(about.st_mode)) {
        fprintf(stderr, "gatehouse: %s is no directory; to serve a configuration: gatehouse serve -c %s\n", named,
                named);
        return EXIT_USAGE;
    }
    if (!is_in_path("php-cgi"))
        fprintf(stderr, "gatehouse: php-cgi is not installed: *.php is answered with 403\n");
    char *text = write_configuration(arguments, dir);
    int status = run(&(struct source){arguments, text, dir});
    free(text);
    return status;
}

/* ---- the command line ---- */

static void print_help(void)
{
    printf("gatehouse %s, an HTTP server with CGI and FastCGI gateways\n\n", GATEHOUSE_VERSION);
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  gatehouse %-41s %s\n", commands[i].synopsis, commands[i].summary);
    printf("\n");
    for (int i = 0; i < N_OPTIONS; i++)
        printf("  -%c, --%s %-*s %s\n", options[i].option.val, options[i].option.name,
               (int)(14 - strlen(options[i].option.name)), options[i].argument, options[i].summary);
    printf("\nThe manual: gatehouse(1), gatehouse.conf(5), gatehouse-http(7), gatehouse-gateways(7),\n"
           "gatehouse-status(7).\n");
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (name != NULL && strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Returns 0; or -1 when the program is to end with *status_out. */
static int read_arguments(int argc, char **argv, const struct command *command, struct arguments *out, int *status_out)
{
    struct option longs[N_OPTIONS + 1] = {{0}};
    char shorts[16];
    int option;

    for (int i = 0; i < N_OPTIONS; i++)
        longs[i] = options[i].option;
    snprintf(shorts, sizeof shorts, "%shV", command->options);
    while ((option = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        *status_out = 0;
        if (option == 'h') {
            print_help();
            return -1;
        }
        if (option == 'V') {
            printf("gatehouse %s\n", GATEHOUSE_VERSION);
            return -1;
        }
        if (option == '?' || strchr(command->options, option) == NULL) {
            fprintf(stderr, "gatehouse: see gatehouse --help\n");
            *status_out = EXIT_USAGE;
            return -1;
        }
        if (option == 't')
            out->has_trace = true;
        else
            *(option == 'c' ? &out->file : option == 'p' ? &out->port : &out->address) = optarg;
    }
    out->words = argv + optind;
    out->n_words = argc - optind;
    return 0;
}

int main(int argc, char **argv)
{
    const struct command *command = find_command(argc > 1 ? argv[1] : NULL);
    char **given = memory_zeroed((size_t)argc + 1, sizeof *given); /* for a server that takes this one's place */
    struct arguments arguments = {.argv = given};
    int status = 0;

    memcpy(given, argv, (size_t)argc * sizeof *given);
    if (command != NULL) { /* its name gives way to ours, for getopt's messages */
        argv[1] = argv[0];
        argv++;
        argc--;
    } else {
        command = &commands[0];
    }
    if (command->tool != NULL)
        status = command->tool(argc, argv);
    else if (read_arguments(argc, argv, command, &arguments, &status) == 0)
        status = command->run(&arguments);
    free(given);
    return status;
}
