#include "base/escape.h"

#include "base/utf8.h"

static char *put(char *at, struct span s)
{
    memcpy(at, s.at, s.len);
    return at + s.len;
}

static char *put_replacement(char *at)
{
    return put(at, SPAN("\xef\xbf\xbd"));
}

char *escape_json(char *at, struct span s)
{
    static const char hex[] = "0123456789abcdef";

    while (s.len > 0) {
        unsigned char c = (unsigned char)s.at[0];
        size_t len = utf8_len(s);

        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (len == 0) {
            at = put_replacement(at);
            len = 1;
        } else if (utf8_printable_len(s) == 0) {
            c = len == 2 ? (unsigned char)s.at[1] : c; /* U+0080 to U+00bf: the second byte is the number */
            at = put(at, SPAN("\\u00"));
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        } else {
            at = put(at, (struct span){s.at, len});
        }
        s = span_from(s, len);
    }
    return at;
}

/* U+FDD0 to U+FDEF, and the last two of each plane: s is one well-formed character. */
static bool is_noncharacter(struct span s)
{
    const unsigned char *last = (const unsigned char *)s.at + s.len - 1;

    if (s.len < 3)
        return false;
    if (s.len == 3 && span_starts(s, SPAN("\xef\xb7")))
        return *last >= 0x90 && *last <= 0xaf;
    return (last[-2] & 0x0f) == 0x0f && last[-1] == 0xbf && last[0] >= 0xbe;
}

static struct span html_reference(char c)
{
    switch (c) {
    case '&':
        return SPAN("&amp;");
    case '<':
        return SPAN("&lt;");
    case '>':
        return SPAN("&gt;");
    case '"':
        return SPAN("&quot;");
    case '\'':
        return SPAN("&#39;");
    default:
        return SPAN("");
    }
}

char *escape_html(char *at, struct span s)
{
    while (s.len > 0) {
        struct span reference = html_reference(s.at[0]);
        size_t len = utf8_len(s);
        struct span character = {s.at, len};

        if (reference.len > 0)
            at = put(at, reference);
        else if (utf8_printable_len(s) == 0 || is_noncharacter(character))
            at = put_replacement(at);
        else
            at = put(at, character);
        s = span_from(s, len > 0 ? len : 1);
    }
    return at;
}
