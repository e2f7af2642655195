/*
 * Fields whose variables the server keeps from its programs (Authorization) are given here: whoever types them means
 * them. They become pairs, as those of -P.
 */
#include "tools/fcgi_request.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "config_text.h"
#include "http/authority.h"
#include "http/grammar.h"
#include "http/uri.h"

enum { REQUEST_ID = 1 };

/* ---- where ---- */

static struct span base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return span_of(slash != NULL ? slash + 1 : path);
}

/* The end of the segment `name` in the path, or 0: it has none. */
static size_t find_segment(struct span path, struct span name)
{
    size_t at = 1;

    while (at <= path.len) {
        const char *slash = memchr(path.at + at, '/', path.len - at);
        size_t end = slash != NULL ? (size_t)(slash - path.at) : path.len;

        if (span_is((struct span){path.at + at, end - at}, name))
            return end;
        at = end + 1;
    }
    return 0;
}

/* Makes the url where there is only a script. */
static void derive_url(struct fcgi_request *request, const char *script, struct span query)
{
    struct span name = base_name(script);

    buffer_append(&request->url, "/", 1);
    uri_append_encoded(&request->url, name);
    buffer_append_span(&request->url, query); /* with its "?" */
}

static bool read_url(struct fcgi_request *request, char why[256])
{
    struct span url = buffer_span(&request->url);
    struct uri uri;
    const char *what;

    if (!span_starts(url, SPAN("/"))) {
        snprintf(why, 256, "the url is a path, like /a/b?query");
        return false;
    }
    request->path = memory_zeroed(url.len + 2, 1);
    if (uri_read(&uri, url, request->path, &what) != 0) {
        snprintf(why, 256, "the url's path is refused: %s", what);
        return false;
    }
    request->query = uri.query;
    request->script_name = SPAN("");
    request->path_info = uri.path;
    return true;
}

static char *joined(struct span a, struct span b)
{
    struct buffer all = {0};

    if (span_ends(a, SPAN("/")) && span_starts(b, SPAN("/")))
        a.len--;
    buffer_append_span(&all, a);
    buffer_append_span(&all, b);
    char *text = memory_copy(buffer_at(&all), buffer_len(&all));
    buffer_free(&all);
    return text;
}

/* Divides the path into the script and the rest. */
static void place_script(struct fcgi_request *request)
{
    struct span file = span_of(request->script_filename), path = request->path_info;
    struct span name = base_name(request->script_filename);
    size_t end = find_segment(path, name);

    if (end > 0) {
        request->script_name = (struct span){path.at, end};
        request->path_info = span_from(path, end);
    } else {
        request->script_name = (struct span){name.at - 1, name.len + 1};
        request->path_info = SPAN("");
    }
    if (request->document_root != NULL)
        return;
    size_t cut = span_ends(file, request->script_name) ? request->script_name.len : name.len + 1;
    file.len = file.len > cut ? file.len - cut : 1;
    request->document_root = memory_copy(file.at, file.len);
}

static bool make_paths(struct fcgi_request *request, const struct fcgi_request_words *words, const char *directory,
                       char why[256])
{
    struct span script = span_of(words->script != NULL ? words->script : "");
    size_t file_len = words->url == NULL ? strcspn(script.at, "?") : script.len;

    if (words->script != NULL) {
        char *file = memory_copy(script.at, file_len);

        request->script_filename = text_to_path(file, directory);
        free(file);
    }
    if (words->url != NULL)
        buffer_append_span(&request->url, span_of(words->url));
    else if (words->script != NULL)
        derive_url(request, request->script_filename, span_from(script, file_len));
    else
        buffer_append(&request->url, "/", 1);
    if (!read_url(request, why))
        return false;
    if (words->root != NULL)
        request->document_root = text_to_path(words->root, directory);
    if (request->script_filename != NULL) {
        place_script(request);
    } else if (request->document_root != NULL) {
        request->script_name = request->path_info;
        request->path_info = SPAN("");
        request->script_filename = joined(span_of(request->document_root), request->script_name);
    } else {
        request->document_root = memory_copy("/", 1);
    }
    return true;
}

/* ---- fields and parameters ---- */

static void add_param(struct fcgi_request *request, struct span name, struct span value)
{
    struct config_pairs *params = &request->params;

    params->at = memory_resize(params->at, (params->n + 1) * sizeof *params->at);
    params->at[params->n].name = memory_copy(name.at, name.len);
    params->at[params->n].value = memory_copy(value.at, value.len);
    params->n++;
}

static bool has_param(const struct fcgi_request *request, struct span name)
{
    for (size_t i = 0; i < request->params.n; i++) {
        if (span_is(span_of(request->params.at[i].name), name))
            return true;
    }
    return false;
}

static bool take_param(struct fcgi_request *request, const char *text, char why[256])
{
    const char *equals = strchr(text, '=');

    if (equals == NULL || equals == text) {
        snprintf(why, 256, "a parameter is NAME=VALUE, not \"%.80s\"", text);
        return false;
    }
    add_param(request, (struct span){text, (size_t)(equals - text)}, span_of(equals + 1));
    return true;
}

/* "X-Foo" to "HTTP_X_FOO". False: there is no such variable for it. */
static bool variable_name(struct span name, char variable[256])
{
    size_t at = 5;

    if (name.len > 256 - 6)
        return false;
    memcpy(variable, "HTTP_", 5);
    for (size_t i = 0; i < name.len; i++) {
        if (!isalnum((unsigned char)name.at[i]) && name.at[i] != '-')
            return false;
        variable[at++] = (char)(name.at[i] == '-' ? '_' : toupper((unsigned char)name.at[i]));
    }
    variable[at] = '\0';
    return true;
}

static const struct field *find_field(const struct fcgi_request *request, struct span name)
{
    for (unsigned i = 0; i < request->n_fields; i++) {
        if (span_is_nocase(request->fields[i].name, name))
            return &request->fields[i];
    }
    return NULL;
}

static bool take_field(struct fcgi_request *request, const char *text, char why[256])
{
    struct span line = span_of(text);
    char variable[256];
    size_t name_len;
    const char *what = grammar_field_line(line, &name_len);

    if (what != NULL) {
        snprintf(why, 256, "a field is \"Name: value\", not \"%.80s\": %s", text, what);
        return false;
    }
    struct field field = {{text, name_len}, grammar_trim(span_from(line, name_len + 1))};
    if (!variable_name(field.name, variable)) {
        snprintf(why, 256, "a field of the name \"%.80s\" becomes no variable; -P NAME=VALUE sets any", text);
        return false;
    }
    if (span_is_nocase(field.name, SPAN("Content-Length"))) {
        snprintf(why, 256, "CONTENT_LENGTH is that of the data; -P CONTENT_LENGTH=N says another");
        return false;
    }
    if (request->n_fields == REQUEST_MAX_FIELDS) {
        snprintf(why, 256, "at most %d fields", REQUEST_MAX_FIELDS);
        return false;
    }
    if (metavars_is_name(span_of(variable)) || span_is_nocase(field.name, SPAN("Content-Type")))
        request->fields[request->n_fields++] = field;
    else
        add_param(request, span_of(variable), field.value);
    return true;
}

/* What curl sends when it is not told otherwise. */
static void add_default_fields(struct fcgi_request *request)
{
    if (find_field(request, SPAN("Host")) == NULL)
        request->fields[request->n_fields++] = (struct field){SPAN("Host"), SPAN("localhost")};
    if (request->has_input && find_field(request, SPAN("Content-Type")) == NULL)
        request->fields[request->n_fields++] =
            (struct field){SPAN("Content-Type"), SPAN("application/x-www-form-urlencoded")};
}

bool fcgi_request_make(struct fcgi_request *request, const struct fcgi_request_words *words, const char *directory,
                       char why[256])
{
    request->method = span_of(words->method != NULL ? words->method : request->has_input ? "POST" : "GET");
    if (request->method.len == 0 || !grammar_is_all(request->method, CHAR_TOKEN)) {
        snprintf(why, 256, "a method is a word, as GET or PURGE, not \"%.80s\"", words->method);
        return false;
    }
    if (!make_paths(request, words, directory, why))
        return false;
    for (unsigned i = 0; i < words->n_fields; i++) {
        if (!take_field(request, words->fields[i], why))
            return false;
    }
    for (unsigned i = 0; i < words->n_params; i++) {
        if (!take_param(request, words->params[i], why))
            return false;
    }
    add_default_fields(request);
    return true;
}

void fcgi_request_free(struct fcgi_request *request)
{
    for (size_t i = 0; i < request->params.n; i++) {
        free(request->params.at[i].name);
        free(request->params.at[i].value);
    }
    free(request->params.at);
    free(request->path);
    free(request->script_filename);
    free(request->document_root);
    buffer_free(&request->url);
}

/* ---- variables ---- */

struct enumeration {
    const struct fcgi_request *request;
    metavars_emit *emit;
    void *arg;
};

/* Leaves out what there is nothing to say about, unless the user has said it. */
static void pass_on(void *arg, struct span name, struct span value)
{
    const struct enumeration *e = arg;
    bool is_unknown = value.len == 0 && (span_is(name, SPAN("SCRIPT_FILENAME")) || span_is(name, SPAN("REQUEST_ID")));

    if (!is_unknown || has_param(e->request, name))
        e->emit(e->arg, name, value);
}

void fcgi_request_each_variable(const struct fcgi_request *request, metavars_emit *emit, void *arg)
{
    static const enum route_role roles[] = {
        [RECORD_RESPONDER] = ROLE_RESPONDER,
        [RECORD_AUTHORIZER] = ROLE_AUTHORIZER,
        [RECORD_FILTER] = ROLE_FILTER,
    };
    struct enumeration e = {request, emit, arg};
    struct head head = {.method_text = request->method, .minor = 1, .form = TARGET_ORIGIN};
    struct metavars vars = {.head = &head, .query = request->query, .env = &request->params};
    struct span host;

    head.target = head.path_and_query = buffer_span(&request->url);
    head.fields = (struct field *)(uintptr_t)request->fields; /* which are only read */
    head.n_fields = request->n_fields;
    vars.script_name = request->script_name;
    vars.path_info = request->path_info;
    vars.script_filename = span_of(request->script_filename != NULL ? request->script_filename : "");
    vars.document_root = span_of(request->document_root);
    vars.server_name = SPAN("localhost");
    if (authority_read(find_field(request, SPAN("Host"))->value, &host) == NULL)
        vars.server_name = host;
    vars.server_addr = vars.remote_addr = SPAN("127.0.0.1");
    vars.server_port = SPAN("80");
    vars.length_known = request->has_input;
    vars.length = request->length;
    vars.role = roles[request->role];
    vars.data_length = request->data_length;
    vars.data_modified = request->data_modified;
    metavars_each(&vars, pass_on, &e);
    if (!has_param(request, SPAN("DOCUMENT_URI")))
        emit(arg, SPAN("DOCUMENT_URI"), span_of(request->path)); /* as nginx calls it */
}

/* ---- records ---- */

struct encoding {
    struct params params;
    char *too_long; /* char[64]: the name of a variable that does not fit, or empty */
};

static void encode(void *arg, struct span name, struct span value)
{
    struct encoding *encoding = arg;

    if (params_add(&encoding->params, name, value) != 0)
        snprintf(encoding->too_long, 64, "%.*s", (int)(name.len < 63 ? name.len : 63), name.at);
}

const char *fcgi_request_encode(const struct fcgi_request *request, struct buffer *to, char name[64])
{
    struct encoding encoding = {.too_long = name};

    name[0] = '\0';
    record_begin(to, REQUEST_ID, request->role, false);
    params_begin(&encoding.params, to, REQUEST_ID);
    fcgi_request_each_variable(request, encode, &encoding);
    params_end(&encoding.params);
    return name[0] != '\0' ? name : NULL;
}
