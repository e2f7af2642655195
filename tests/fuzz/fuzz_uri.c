/*
 * The path of a target: what is taken has no dot segment, no empty segment and no NUL, leads nowhere else when it is
 * encoded and read again, and is what a plain reader - decode, divide, resolve - makes of it.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/memory.h"
#include "http/uri.h"

enum { MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int hex(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *found = c == '\0' ? NULL : strchr(digits, c);

    return found == NULL ? -1 : (int)(found - digits) % 16;
}

/* Removes the escapes. Returns how many bytes are left, or -1. */
static long decode(char *out, struct span raw)
{
    size_t n = 0;

    for (size_t i = 0; i < raw.len; i++) {
        if (raw.at[i] != '%') {
            out[n++] = raw.at[i];
            continue;
        }
        if (raw.len - i < 3 || hex(raw.at[i + 1]) < 0 || hex(raw.at[i + 2]) < 0)
            return -1;
        out[n++] = (char)(hex(raw.at[i + 1]) * 16 + hex(raw.at[i + 2]));
        i += 2;
    }
    return memchr(out, '\0', n) == NULL ? (long)n : -1;
}

/* The same path by way of a stack of segments. Returns its length, or -1 when it is to be refused. */
static long resolve(char *out, struct span raw)
{
    static char text[MAX];
    static struct span stack[MAX];
    long len = decode(text, raw);
    size_t depth = 0, n = 0;
    bool is_folder = true;

    if (len < 0 || (len > 0 && raw.at[0] != '/'))
        return -1;
    for (struct span rest = {text, (size_t)len}; rest.len > 0;) {
        const char *slash = memchr(rest.at + 1, '/', rest.len - 1); /* each begins with one */
        struct span segment = {rest.at + 1, (slash != NULL ? (size_t)(slash - rest.at) : rest.len) - 1};

        rest = span_from(rest, segment.len + 1);
        is_folder = segment.len == 0 || span_is(segment, SPAN(".")) || span_is(segment, SPAN(".."));
        if (!is_folder)
            stack[depth++] = segment;
        else if (segment.len == 2 && depth-- == 0)
            return -1;
    }
    for (size_t i = 0; i < depth; i++) {
        out[n++] = '/';
        memcpy(out + n, stack[i].at, stack[i].len);
        n += stack[i].len;
    }
    if (is_folder || n == 0)
        out[n++] = '/';
    return (long)n;
}

static void check_path(struct span path)
{
    assert(path.at != NULL && path.len > 0 && path.at[0] == '/' && path.at[path.len] == '\0');
    assert(memchr(path.at, '\0', path.len) == NULL);
    assert(memmem(path.at, path.len, "//", 2) == NULL);
    assert(memmem(path.at, path.len, "/../", 4) == NULL && memmem(path.at, path.len, "/./", 3) == NULL);
    assert(!span_ends(path, SPAN("/..")) && !span_ends(path, SPAN("/.")));
}

static void check_round_trip(struct span path)
{
    struct buffer encoded = {0};
    struct uri again;
    const char *why;
    char *room;

    uri_append_encoded(&encoded, path);
    for (size_t i = 0; i < buffer_len(&encoded); i++)
        assert(buffer_at(&encoded)[i] > ' ' && strchr("\"<>\\^`{|}?#", buffer_at(&encoded)[i]) == NULL);
    room = memory_resize(NULL, buffer_len(&encoded) + 2);
    assert(uri_read(&again, buffer_span(&encoded), room, &why) == 0);
    assert(span_is(again.path, path) && !again.has_query);
    free(room);
    buffer_free(&encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char expected[MAX + 1];
    struct span text = {(const char *)data, size};
    const char *mark = size > 0 ? memchr(text.at, '?', size) : NULL, *why = NULL;
    size_t path_len = mark != NULL ? (size_t)(mark - text.at) : size;
    struct uri uri;
    char *room;
    long len;

    if (size >= MAX)
        return 0;
    room = memory_resize(NULL, size + 2);
    len = resolve(expected, (struct span){text.at, path_len});
    if (uri_read(&uri, text, room, &why) != 0) {
        assert(why != NULL && len < 0);
    } else {
        assert(len >= 0 && span_is(uri.path, (struct span){expected, (size_t)len}));
        assert(uri.has_query == (mark != NULL) && uri.query.len == (mark != NULL ? size - path_len - 1 : 0));
        assert(mark == NULL || uri.query.at == mark + 1);
        check_path(uri.path);
        check_round_trip(uri.path);
    }
    free(room);
    return 0;
}
