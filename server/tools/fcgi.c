/*
 * The command line of `gatehouse fcgi`. Commands and options are tables; the help is made of them.
 */
#include "tools/fcgi.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "config_text.h"

enum {
    DEFAULT_TIMEOUT_MS = 10 * 1000,
    LONGEST_TIMEOUT_MS = 24 * 60 * 60 * 1000,
};

static const struct command {
    const char *name, *synopsis, *summary;
    const char *options; /* the letters that it takes */
    int n_words;         /* at most, beside ADDR */
    int (*run)(const struct fcgi_line *line);
} commands[] = {
    {"get", "get ADDR [SCRIPT]", "send one request, print the answer", "XurdHPRfitmv", 1, fcgi_get},
    {"ping", "ping ADDR", "does FastCGI answer there, and how soon?", "tmv", 0, fcgi_ping},
    {"values", "values ADDR", "print what the application says about itself", "tmv", 0, fcgi_values},
};

static const struct {
    struct option option;
    const char *argument, *summary;
} options[] = {
    {{"request", required_argument, NULL, 'X'}, "METHOD", "the method (GET; with -d POST)"},
    {{"url", required_argument, NULL, 'u'}, "PATH?QUERY", "what a client would ask for (the script's name)"},
    {{"root", required_argument, NULL, 'r'}, "DIR", "the document root (where the script is)"},
    {{"data", required_argument, NULL, 'd'}, "DATA", "the body; @FILE: a file; @-: the standard input"},
    {{"header", required_argument, NULL, 'H'}, "FIELD", "a field, \"Name: value\"; repeatable"},
    {{"param", required_argument, NULL, 'P'}, "NAME=VALUE", "a parameter as it is; repeatable"},
    {{"role", required_argument, NULL, 'R'}, "ROLE", "responder (the default), authorizer, filter"},
    {{"filter", required_argument, NULL, 'f'}, "FILE", "the data for a filter"},
    {{"include", no_argument, NULL, 'i'}, "", "print the answer's head as well"},
    {{"timeout", required_argument, NULL, 't'}, "TIME", "how long each wait may take (10s)"},
    {{"max-time", required_argument, NULL, 'm'}, "TIME", "how long all may take (no limit)"},
    {{"verbose", no_argument, NULL, 'v'}, "", "tell every record on the standard error"},
    {{"help", no_argument, NULL, 'h'}, "", "print this and exit"},
};

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

static void print_help(FILE *to)
{
    fprintf(to, "gatehouse fcgi speaks FastCGI to an application\n\n");
    for (size_t i = 0; i < N_OF(commands); i++)
        fprintf(to, "  gatehouse fcgi %-18s %s\n", commands[i].synopsis, commands[i].summary);
    fprintf(to,
            "\nADDR is host:port, [v6]:port, unix:PATH or an absolute path. Options of get; -t, -m and -v of all:\n\n");
    for (size_t i = 0; i < N_OF(options); i++)
        fprintf(to, "  -%c, --%s %-*s %s\n", options[i].option.val, options[i].option.name,
                (int)(19 - strlen(options[i].option.name)), options[i].argument, options[i].summary);
    fprintf(to,
            "\nIt ends with 0 when the answer's status is below 400, 1 for a wrong command line, 2 without an answer,\n"
            "3 for a status of 400 or above or an appStatus that is not 0. The manual: gatehouse(1).\n");
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < N_OF(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* "10s", "250ms"; seconds where there is no unit, as curl has them. */
static bool read_time(const char *text, uint64_t *ms_out)
{
    enum text_result result = text_to_duration(text, ms_out);

    if (result == TEXT_NO_UNIT && text_to_count(text, ms_out) == TEXT_OK)
        *ms_out = *ms_out < LONGEST_TIMEOUT_MS ? *ms_out * 1000 : UINT64_MAX;
    else if (result != TEXT_OK)
        *ms_out = 0;
    if (*ms_out > 0 && *ms_out <= LONGEST_TIMEOUT_MS)
        return true;
    fprintf(stderr, "gatehouse: \"%s\" is no time from 1ms to 24h\n", text);
    return false;
}

static bool read_role(const char *text, struct fcgi_line *line)
{
    static const char *const roles[] = {
        [RECORD_RESPONDER] = "responder",
        [RECORD_AUTHORIZER] = "authorizer",
        [RECORD_FILTER] = "filter",
    };

    line->has_role = true;
    for (unsigned i = RECORD_RESPONDER; i < N_OF(roles); i++) {
        if (strcmp(roles[i], text) == 0) {
            line->role = i;
            return true;
        }
    }
    fprintf(stderr, "gatehouse: the role is responder, authorizer or filter, not \"%s\"\n", text);
    return false;
}

static bool read_option(int letter, char *value, struct fcgi_line *line)
{
    switch (letter) {
    case 'X':
        line->request.method = value;
        return true;
    case 'u':
        line->request.url = value;
        return true;
    case 'r':
        line->request.root = value;
        return true;
    case 'd':
        if (line->data != NULL)
            fprintf(stderr, "gatehouse: one body, so -d only once\n");
        else
            line->data = value;
        return line->data == value;
    case 'H':
        line->request.fields[line->request.n_fields++] = value;
        return true;
    case 'P':
        line->request.params[line->request.n_params++] = value;
        return true;
    case 'R':
        return read_role(value, line);
    case 'f':
        line->filter = value;
        return true;
    case 'i':
        return line->shows_head = true;
    case 'v':
        return line->is_verbose = true;
    case 't':
        return read_time(value, &line->timeout_ms);
    default:
        return read_time(value, &line->max_ms);
    }
}

static bool read_address(const char *text, struct config_address *address_out)
{
    char *directory = getcwd(NULL, 0);
    struct buffer socket = {0};
    const char *why;

    if (text[0] == '/')
        buffer_append_span(&socket, SPAN("unix:"));
    buffer_append(&socket, text, strlen(text) + 1);
    why = text_to_address(buffer_at(&socket), directory != NULL ? directory : "/", false, address_out);
    if (why != NULL)
        fprintf(stderr, "gatehouse: %s: %s\n", text, why);
    buffer_free(&socket);
    free(directory);
    return why == NULL;
}

static bool read_words(const struct command *command, char *const *words, int n_words, struct fcgi_line *line)
{
    if (n_words < 1 || n_words > 1 + command->n_words) {
        fprintf(stderr, "gatehouse: it is fcgi %s; see gatehouse fcgi --help\n", command->synopsis);
        return false;
    }
    line->request.script = words[1]; /* NULL behind the last */
    if (line->filter != NULL && !line->has_role)
        line->role = RECORD_FILTER;
    if ((line->role == RECORD_FILTER) != (line->filter != NULL)) {
        fprintf(stderr, "gatehouse: -f FILE belongs to the role of a filter, which needs it\n");
        return false;
    }
    return read_address(words[0], &line->address);
}

/* Returns -1, or the exit code with which all is done. */
static int read_line(int argc, char **argv, const struct command *command, struct fcgi_line *line)
{
    struct option longs[N_OF(options) + 1] = {{0}};
    char shorts[2 * N_OF(options) + 1], *at = shorts;
    int letter;

    for (size_t i = 0; i < N_OF(options); i++) {
        longs[i] = options[i].option;
        *at++ = (char)longs[i].val;
        if (longs[i].has_arg == required_argument)
            *at++ = ':';
    }
    *at = '\0';
    while ((letter = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (letter == 'h') {
            print_help(stdout);
            return FCGI_FINE;
        }
        if (letter == '?' || strchr(command->options, letter) == NULL) {
            if (letter != '?')
                fprintf(stderr, "gatehouse: fcgi %s takes no -%c\n", command->name, letter);
            fprintf(stderr, "gatehouse: see gatehouse fcgi --help\n");
            return FCGI_USAGE;
        }
        if (!read_option(letter, optarg, line))
            return FCGI_USAGE;
    }
    return read_words(command, argv + optind, argc - optind, line) ? -1 : FCGI_USAGE;
}

int fcgi_run(int argc, char **argv)
{
    struct fcgi_line line = {.role = RECORD_RESPONDER, .timeout_ms = DEFAULT_TIMEOUT_MS};
    const struct command *command = argc > 1 ? find_command(argv[1]) : NULL;
    int status;

    if (command == NULL) {
        bool is_asked = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);

        if (argc > 1 && !is_asked)
            fprintf(stderr, "gatehouse: fcgi has no command \"%s\"\n\n", argv[1]);
        print_help(is_asked ? stdout : stderr);
        return is_asked ? FCGI_FINE : FCGI_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    argv[1] = argv[0]; /* its name gives way to ours, for getopt's messages */
    line.request.fields = memory_zeroed((size_t)argc, sizeof *line.request.fields);
    line.request.params = memory_zeroed((size_t)argc, sizeof *line.request.params);
    status = read_line(argc - 1, argv + 1, command, &line);
    if (status < 0)
        status = command->run(&line);
    free(line.request.fields);
    free(line.request.params);
    free(line.address.text);
    return status;
}
