/* The path is built segment by segment in the caller's room; what is behind its last "/" is looked at when the segment
 * ends, decoded, so that no spelling of "..", and no "/" from a %2f, gets past. */
#include "http/uri.h"

#include "http/grammar.h"

/* A path that grows: at[0] is "/", and at[segment - 1] is the last one. */
struct path {
    char *at;
    size_t len;
    size_t segment;
};

static bool segment_is(const struct path *path, struct span text)
{
    return span_is((struct span){path->at + path->segment, path->len - path->segment}, text);
}

/* Removes the segment if it is a dot segment. Returns -1 when that leads above the root. */
static int end_segment(struct path *path)
{
    if (segment_is(path, SPAN("."))) {
        path->len = path->segment;
    } else if (segment_is(path, SPAN(".."))) {
        if (path->segment == 1)
            return -1;
        path->len = path->segment - 1;
        while (path->at[path->len - 1] != '/')
            path->len--;
        path->segment = path->len;
    }
    return 0;
}

static int add_byte(struct path *path, char byte)
{
    if (byte != '/') {
        path->at[path->len++] = byte;
        return 0;
    }
    if (end_segment(path) != 0)
        return -1;
    if (path->len > path->segment) /* else there is a "/" already */
        path->at[path->len++] = '/';
    path->segment = path->len;
    return 0;
}

/* Writes the path in `raw`, which begins with "/", or returns what is wrong with it. */
static const char *decode(struct path *path, struct span raw)
{
    path->at[0] = '/';
    path->len = path->segment = 1;
    for (size_t i = 1; i < raw.len; i++) {
        int byte = (unsigned char)raw.at[i];

        if (byte == '%') {
            byte = grammar_escape(span_from(raw, i));
            if (byte < 0)
                return "a % that begins no escape";
            i += 2;
        }
        if (byte == '\0')
            return "a NUL in the path";
        if (add_byte(path, (char)byte) != 0)
            return "a path that leads above the root";
    }
    return end_segment(path) == 0 ? NULL : "a path that leads above the root";
}

int uri_read(struct uri *out, struct span path_and_query, char *room, const char **why_out)
{
    const char *mark = path_and_query.len > 0 ? memchr(path_and_query.at, '?', path_and_query.len) : NULL;
    size_t path_len = mark != NULL ? (size_t)(mark - path_and_query.at) : path_and_query.len;
    struct path path = {.at = room};
    const char *why = NULL;

    if (path_len > 0 && path_and_query.at[0] != '/')
        why = "a path that does not begin with a slash";
    else
        why = decode(&path, (struct span){path_and_query.at, path_len});
    if (why != NULL) {
        *why_out = why;
        return -1;
    }
    room[path.len] = '\0';
    out->path = (struct span){room, path.len};
    out->has_query = mark != NULL;
    out->query = mark != NULL ? span_from(path_and_query, path_len + 1) : (struct span){"", 0};
    return 0;
}

static void append_escaped(struct buffer *to, char c)
{
    static const char hex[] = "0123456789ABCDEF";
    unsigned char byte = (unsigned char)c;
    const char escape[3] = {'%', hex[byte >> 4], hex[byte & 15]};

    buffer_append(to, escape, sizeof escape);
}

void uri_append_encoded(struct buffer *to, struct span path)
{
    while (path.len > 0) {
        size_t n = grammar_run(path, CHAR_PATH);

        buffer_append(to, path.at, n);
        path = span_from(path, n);
        if (path.len > 0) {
            append_escaped(to, path.at[0]);
            path = span_from(path, 1);
        }
    }
}

void uri_append_query(struct buffer *to, const struct uri *uri)
{
    if (!uri->has_query)
        return;
    buffer_append_span(to, SPAN("?"));
    for (size_t i = 0; i < uri->query.len; i++) {
        char c = uri->query.at[i];
        bool is_escape = c == '%' && grammar_escape(span_from(uri->query, i)) >= 0;

        if (grammar_is(c, CHAR_PATH) || c == '?' || is_escape)
            buffer_append(to, &c, 1);
        else
            append_escaped(to, c);
    }
}
