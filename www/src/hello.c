/*
 * One program, both models. Started for one request it answers as CGI/1.1; started with a listening socket as
 * descriptor 0 it answers as a FastCGI responder, again and again. libfcgi finds out which: FCGI_Accept() returns once
 * under CGI, and for every request under FastCGI.
 */
#include <fcgi_stdio.h>
#include <fcgiapp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_JSON                                                                                                    \
    "Content-Type: application/json\r\nCache-Control: no-store\r\n\r\n"                                                \
    "{\"program\":\"C\",\"model\":\"%s\",\"pid\":%ld,\"served\":%lu,\"id\":\""

#define ANSWER_HTML                                                                                                    \
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n"                                        \
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"                                                  \
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"                                       \
    "<title>C as %s</title>\n<link rel=\"icon\" href=\"/favicon.svg\">\n"                                              \
    "<link rel=\"stylesheet\" href=\"/style.css\">\n"                                                                  \
    "<main class=\"answer %s\">\n<p><a href=\"/\">gatehouse</a></p>\n<h1>C <span>as %s</span></h1>\n<p>%s</p>\n<dl>\n" \
    "<div><dt>Process</dt><dd>%ld</dd></div>\n<div><dt>Requests it has served</dt><dd>%lu</dd></div>\n"                \
    "<div><dt>Time of day</dt><dd>%s</dd></div>\n<div><dt>Request</dt><dd>"

#define ANSWER_HTML_END "</dd></div>\n</dl>\n<p><a href=\"?\">Again</a> <a href=\"?json\">As JSON</a></p>\n</main>"

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value ? value : "";
}

/* Digits, letters and the hyphen as they are, any other byte by its number: right in JSON and in HTML. */
static void print_escaped(const char *text, bool json)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-')
            putchar(c);
        else
            printf(json ? "\\u%04x" : "&#%d;", c);
    }
}

int main(void)
{
    const bool cgi = FCGX_IsCGI() != 0;
    const char *name = cgi ? "CGI" : "FastCGI", *model = cgi ? "cgi" : "fastcgi";
    const char *says = cgi ? "A new process, started for this request and gone after it."
                           : "A process that lives: it answered, and waits for the next request.";
    const long pid = (long)getpid();
    unsigned long served = 0;

    while (FCGI_Accept() >= 0) {
        const bool json = strcmp(variable("QUERY_STRING"), "json") == 0;
        char clock[sizeof "00:00:00"] = "";
        time_t now = time(NULL);
        struct tm local;

        served++;
        if (localtime_r(&now, &local))
            strftime(clock, sizeof clock, "%H:%M:%S", &local);
        if (json)
            printf(ANSWER_JSON, model, pid, served);
        else
            printf(ANSWER_HTML, name, model, name, says, pid, served, clock);
        print_escaped(variable("REQUEST_ID"), json);
        printf("%s\n", json ? "\"}" : ANSWER_HTML_END);
    }
    return 0;
}
