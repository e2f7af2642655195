/*
 * A field's name becomes a variable's by a map that loses something ("-" and "_" fall together). So only names of
 * letters, digits and "-" are mapped: of those no two become one, but for the case of letters, which is no difference.
 *
 *     X-Forwarded-For: 192.0.2.1    ->    HTTP_X_FORWARDED_FOR=192.0.2.1
 */
#include "gateway/metavars.h"

#include "base/buffer.h"
#include "gateway/permit.h"

#define SOFTWARE "gatehouse/" GATEHOUSE_VERSION

/* All but HTTP_*. */
#define VARIABLES(V)                                                                                                   \
    V(GATEWAY_INTERFACE), V(SERVER_SOFTWARE), V(SERVER_NAME), V(SERVER_ADDR), V(SERVER_PORT), V(SERVER_PROTOCOL),      \
        V(REQUEST_METHOD), V(REQUEST_URI), V(REQUEST_SCHEME), V(HTTPS), V(QUERY_STRING), V(SCRIPT_NAME),               \
        V(SCRIPT_FILENAME), V(DOCUMENT_ROOT), V(PATH_INFO), V(PATH_TRANSLATED), V(REMOTE_ADDR), V(REMOTE_PORT),        \
        V(CONTENT_LENGTH), V(CONTENT_TYPE), V(REDIRECT_STATUS), V(REQUEST_ID), V(FCGI_DATA_LENGTH),                    \
        V(FCGI_DATA_LAST_MOD)

#define ENUMERATOR(name) VAR_##name
enum variable { VARIABLES(ENUMERATOR) };

#define LITERAL(text) .at = (text), .len = sizeof(text) - 1
#define NAME(name)    [VAR_##name] = {LITERAL(#name)}
static const struct span names[] = {VARIABLES(NAME)};

/* Fields that never become an HTTP_* variable: the connection's and the framing's own, credentials (RFC 3875 section
 * 9.2), those with a variable of their own, and Proxy, whose variable HTTP clients take for a setting of theirs. */
static const struct span hidden[] = {
    {LITERAL("Content-Length")},
    {LITERAL("Content-Type")},
    {LITERAL("Transfer-Encoding")},
    {LITERAL("Connection")},
    {LITERAL("Keep-Alive")},
    {LITERAL("TE")},
    {LITERAL("Trailer")},
    {LITERAL("Upgrade")},
    {LITERAL("Expect")},
    {LITERAL("Proxy-Authorization")},
    {LITERAL("Authorization")},
    {LITERAL("Proxy")},
};

#define N_OF(array) (sizeof(array) / sizeof(array)[0])
#define PREFIX      "HTTP_"

enum {
    PREFIX_LEN = sizeof PREFIX - 1,
    NAME_ROOM = 256, /* longer names are made in a buffer */
};

struct enumeration {
    const struct metavars *vars;
    metavars_emit *emit;
    void *arg;
    struct buffer value; /* one that must be put together first */
    struct buffer long_name;
    char name[NAME_ROOM];
};

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What a byte becomes at most: some turn only "-" into "_", some all but letters and digits. */
static char mapped(char c)
{
    if (is_letter(c))
        return (char)(c & ~0x20);
    return is_digit(c) ? c : '_';
}

static bool is_mappable(struct span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!is_letter(name.at[i]) && !is_digit(name.at[i]) && name.at[i] != '-')
            return false;
    }
    return name.len > 0;
}

static bool map_alike(struct span a, struct span b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (mapped(a.at[i]) != mapped(b.at[i]))
            return false;
    }
    return true;
}

static bool is_hidden(struct span name)
{
    for (size_t i = 0; i < N_OF(hidden); i++) {
        if (map_alike(name, hidden[i]))
            return true;
    }
    return false;
}

static bool is_pair(const struct config_pair *pair, struct span name)
{
    return pair->name[0] == name.at[0] && strncmp(pair->name, name.at, name.len) == 0 && pair->name[name.len] == '\0';
}

/* Does the route set the variable, by its pairs from the given one on? */
static bool is_overridden(const struct config_pairs *env, size_t from, struct span name)
{
    if (env == NULL)
        return false;
    for (size_t i = from; i < env->n; i++) {
        if (is_pair(&env->at[i], name))
            return true;
    }
    return false;
}

static void emit(struct enumeration *e, struct span name, struct span value)
{
    if (!is_overridden(e->vars->env, 0, name))
        e->emit(e->arg, name, value);
}

static void set(struct enumeration *e, enum variable variable, struct span value)
{
    emit(e, names[variable], value);
}

static void set_joined(struct enumeration *e, enum variable variable, struct span a, struct span b)
{
    buffer_clear(&e->value);
    buffer_append_span(&e->value, a);
    buffer_append_span(&e->value, b);
    set(e, variable, buffer_span(&e->value));
}

static void set_number(struct enumeration *e, enum variable variable, uint64_t number)
{
    char digits[20], *end = digits + sizeof digits, *at = end;

    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    set(e, variable, (struct span){at, (size_t)(end - at)});
}

/* Of two pairs with one name the later one counts. */
static void each_of_route(struct enumeration *e)
{
    const struct config_pairs *env = e->vars->env;

    for (size_t i = 0; env != NULL && i < env->n; i++) {
        struct span name = span_of(env->at[i].name);

        if (!is_overridden(env, i + 1, name))
            e->emit(e->arg, name, span_of(env->at[i].value));
    }
}

static void each_of_server(struct enumeration *e)
{
    const struct metavars *vars = e->vars;

    set(e, VAR_GATEWAY_INTERFACE, SPAN("CGI/1.1"));
    set(e, VAR_SERVER_SOFTWARE, SPAN(SOFTWARE));
    set(e, VAR_SERVER_NAME, vars->server_name);
    set(e, VAR_SERVER_ADDR, vars->server_addr);
    set(e, VAR_SERVER_PORT, vars->server_port);
    set(e, VAR_REMOTE_ADDR, vars->remote_addr);
    if (vars->remote_port.len > 0)
        set(e, VAR_REMOTE_PORT, vars->remote_port);
    set(e, VAR_DOCUMENT_ROOT, vars->document_root);
    set(e, VAR_REQUEST_SCHEME, vars->is_https ? SPAN("https") : SPAN("http"));
    if (vars->is_https)
        set(e, VAR_HTTPS, SPAN("on"));
    set(e, VAR_REQUEST_ID, vars->request_id);
    set(e, VAR_REDIRECT_STATUS, SPAN("200")); /* php-cgi runs nothing without it */
}

/* The target as a client of this server would write it: programs take REQUEST_URI apart as a path and a query. */
static void set_request_uri(struct enumeration *e)
{
    const struct head *head = e->vars->head;

    if (head->form != TARGET_ABSOLUTE)
        set(e, VAR_REQUEST_URI, head->target);
    else if (span_starts(head->path_and_query, SPAN("/")))
        set(e, VAR_REQUEST_URI, head->path_and_query);
    else
        set_joined(e, VAR_REQUEST_URI, SPAN("/"), head->path_and_query);
}

static void each_of_request(struct enumeration *e)
{
    const struct metavars *vars = e->vars;
    struct span root = vars->document_root;

    set(e, VAR_SERVER_PROTOCOL, vars->head->minor == 0 ? SPAN("HTTP/1.0") : SPAN("HTTP/1.1"));
    set(e, VAR_REQUEST_METHOD, vars->head->method_text);
    set_request_uri(e);
    set(e, VAR_QUERY_STRING, vars->query);
    set(e, VAR_SCRIPT_FILENAME, vars->script_filename);
    if (vars->role == ROLE_AUTHORIZER)
        return;
    set(e, VAR_SCRIPT_NAME, vars->script_name);
    if (vars->path_info.len > 0) {
        if (span_ends(root, SPAN("/")))
            root.len--;
        set(e, VAR_PATH_INFO, vars->path_info);
        set_joined(e, VAR_PATH_TRANSLATED, root, vars->path_info);
    }
    if (vars->length_known)
        set_number(e, VAR_CONTENT_LENGTH, vars->length);
    if (vars->role == ROLE_FILTER) {
        set_number(e, VAR_FCGI_DATA_LENGTH, vars->data_length);
        set_number(e, VAR_FCGI_DATA_LAST_MOD, (uint64_t)vars->data_modified);
    }
}

/* The variable's name; lives until the next one is made. */
static struct span variable_name(struct enumeration *e, struct span name)
{
    size_t len = PREFIX_LEN + name.len;
    char *at = e->name;

    if (len > sizeof e->name) {
        buffer_clear(&e->long_name);
        at = buffer_reserve(&e->long_name, len);
    }
    memcpy(at, PREFIX, PREFIX_LEN);
    for (size_t i = 0; i < name.len; i++)
        at[PREFIX_LEN + i] = mapped(name.at[i]);
    return (struct span){at, len};
}

/* The index of the first field from `from` on that has the name, or n_fields. */
static unsigned next_field(const struct head *head, unsigned from, struct span name)
{
    while (from < head->n_fields && !span_is_nocase(head->fields[from].name, name))
        from++;
    return from;
}

/* RFC 3875 section 4.1.18: fields of one name become one value. Cookies have "; "
 * between them (RFC 9113 section 8.2.3). */
static struct span joined_value(struct enumeration *e, unsigned first, unsigned second)
{
    const struct head *head = e->vars->head;
    struct span name = head->fields[first].name;
    struct span between = span_is_nocase(name, SPAN("Cookie")) ? SPAN("; ") : SPAN(", ");

    buffer_clear(&e->value);
    buffer_append_span(&e->value, head->fields[first].value);
    for (unsigned i = second; i < head->n_fields; i = next_field(head, i + 1, name)) {
        buffer_append_span(&e->value, between);
        buffer_append_span(&e->value, head->fields[i].value);
    }
    return buffer_span(&e->value);
}

static void set_field(struct enumeration *e, unsigned i)
{
    const struct head *head = e->vars->head;
    const struct field *field = &head->fields[i];
    unsigned second;

    if (!is_mappable(field->name) || next_field(head, 0, field->name) < i)
        return;
    if (span_is_nocase(field->name, SPAN("Content-Type"))) {
        if (!e->vars->is_redirected)
            set(e, VAR_CONTENT_TYPE, field->value);
        return;
    }
    if (is_hidden(field->name) &&
        !(e->vars->passes_authorization && span_is_nocase(field->name, SPAN("Authorization"))))
        return;
    /* RFC 9112 section 3.2.2: an absolute target's host stands in the place of the Host that was sent. */
    if (head->form == TARGET_ABSOLUTE && span_is_nocase(field->name, SPAN("Host"))) {
        emit(e, variable_name(e, field->name), head->authority);
        return;
    }
    second = next_field(head, i + 1, field->name);
    emit(e, variable_name(e, field->name), second == head->n_fields ? field->value : joined_value(e, i, second));
}

/* What comes later counts. */
static bool is_granted_again(struct span rest, struct span name)
{
    struct span other, value;

    while (permit_next(&rest, &other, &value))
        if (span_is(other, name))
            return true;
    return false;
}

static void each_granted(struct enumeration *e)
{
    struct span rest = e->vars->granted, name, value;

    while (permit_next(&rest, &name, &value))
        if (!is_granted_again(rest, name))
            emit(e, name, value);
}

void metavars_each(const struct metavars *vars, metavars_emit *emit_one, void *arg)
{
    struct enumeration e;

    e.vars = vars;
    e.emit = emit_one;
    e.arg = arg;
    e.value = e.long_name = (struct buffer){0};
    each_of_route(&e);
    each_of_server(&e);
    each_of_request(&e);
    for (unsigned i = 0; i < vars->head->n_fields; i++)
        set_field(&e, i);
    each_granted(&e);
    buffer_free(&e.value);
    buffer_free(&e.long_name);
}

static bool collides(const struct head *head, const struct field *field)
{
    if (is_hidden(field->name))
        return true;
    for (unsigned i = 0; i < head->n_fields; i++) {
        struct span other = head->fields[i].name;

        if (map_alike(field->name, other) && !span_is_nocase(field->name, other))
            return true;
    }
    return false;
}

const struct field *metavars_collision(const struct head *head)
{
    for (unsigned i = 0; i < head->n_fields; i++) {
        /* One of the two at least cannot be mapped: those that can differ from each other. */
        if (!is_mappable(head->fields[i].name) && collides(head, &head->fields[i]))
            return &head->fields[i];
    }
    return NULL;
}

static bool is_field_variable(struct span rest)
{
    for (size_t i = 0; i < rest.len; i++) {
        if (!is_digit(rest.at[i]) && rest.at[i] != '_' && !(rest.at[i] >= 'A' && rest.at[i] <= 'Z'))
            return false;
    }
    return rest.len > 0 && !is_hidden(rest);
}

static bool is_of_request(struct span name)
{
    for (size_t i = 0; i < N_OF(names); i++) {
        if (span_is(name, names[i]))
            return true;
    }
    return false;
}

static bool is_of_system(struct span name)
{
    /* What begins like this, or is one of these. */
    static const struct span beginnings[] = {
        {LITERAL(PREFIX)}, {LITERAL("LD_")},    {LITERAL("BASH")},   {LITERAL("PERL")},  {LITERAL("PYTHON")},
        {LITERAL("RUBY")}, {LITERAL("NODE_")},  {LITERAL("PHP")},    {LITERAL("JAVA_")}, {LITERAL("GIT_")},
        {LITERAL("LC_")},  {LITERAL("GCONV_")}, {LITERAL("MALLOC")}, {LITERAL("GLIBC")}, {LITERAL("FCGI_")},
    };
    static const struct span whole[] = {
        {LITERAL("PATH")},   {LITERAL("IFS")},   {LITERAL("ENV")},     {LITERAL("SHELL")},   {LITERAL("SHELLOPTS")},
        {LITERAL("CDPATH")}, {LITERAL("HOME")},  {LITERAL("TMPDIR")},  {LITERAL("LANG")},    {LITERAL("LANGUAGE")},
        {LITERAL("TZ")},     {LITERAL("TZDIR")}, {LITERAL("LOCPATH")}, {LITERAL("NLSPATH")}, {LITERAL("HOSTALIASES")},
        {LITERAL("PS4")},    {LITERAL("PAGER")}, {LITERAL("EDITOR")},  {LITERAL("USER")},    {LITERAL("LOGNAME")},
    };

    static const struct span end = {LITERAL("_proxy")};

    if (name.len >= end.len && span_is_nocase(span_from(name, name.len - end.len), end))
        return true;
    for (size_t i = 0; i < N_OF(beginnings); i++) {
        if (span_starts(name, beginnings[i]))
            return true;
    }
    for (size_t i = 0; i < N_OF(whole); i++) {
        if (span_is(name, whole[i]))
            return true;
    }
    return false;
}

bool metavars_is_grantable(struct span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!is_letter(name.at[i]) && name.at[i] != '_' && (i == 0 || !is_digit(name.at[i])))
            return false;
    }
    return name.len > 0 && !is_of_request(name) && !is_of_system(name);
}

bool metavars_is_name(struct span name)
{
    if (span_starts(name, SPAN(PREFIX)))
        return is_field_variable(span_from(name, PREFIX_LEN));
    return is_of_request(name);
}

static bool may_grant(const struct config_route *authorizer, struct span name)
{
    if (span_starts(name, SPAN("AUTH_")) || span_starts(name, SPAN("REMOTE_")))
        return true;
    for (size_t i = 0; i < authorizer->variables.n; i++) {
        if (span_is(name, span_of(authorizer->variables.at[i])))
            return true;
    }
    return false;
}

bool metavars_may_set(const struct config_route *route, struct span name)
{
    const struct config_site *site = route->site;

    if (metavars_is_name(name))
        return true;
    if (span_is(name, SPAN("HTTP_AUTHORIZATION")))
        return route->pass_authorization;
    for (size_t i = 0; i < site->n_routes; i++) {
        if (site->routes[i]->role == ROLE_AUTHORIZER && may_grant(site->routes[i], name))
            return metavars_is_grantable(name);
    }
    return false;
}
