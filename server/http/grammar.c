/*
 * The classes follow the RFCs' rules, but for what browsers send in a target. RFC 3986 would have []|{}^`\ escaped;
 * they leave them as they are in a query, and []| in a path too (they follow the WHATWG's URL standard). None of these
 * can be taken for a delimiter, so they are let through, unchanged. Controls, space, ", <, > and # are not, nor are
 * bytes above 127, which nobody can tell the encoding of, and backslash, which some take for a slash, not in a path.
 */
#include "http/grammar.h"

#include <stdint.h>

#define IS_ALPHA(c)      (((c) >= 'A' && (c) <= 'Z') || ((c) >= 'a' && (c) <= 'z'))
#define IS_DIGIT(c)      ((c) >= '0' && (c) <= '9')
#define IS_UNRESERVED(c) (IS_ALPHA(c) || IS_DIGIT(c) || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~')
#define IS_SUB_DELIM(c)                                                                                                \
    ((c) == '!' || (c) == '$' || ((c) >= '&' && (c) <= ',') || (c) == ';' || (c) == '=') /* &'()*+, are neighbours */
#define IS_TOKEN(c)                                                                                                    \
    (IS_UNRESERVED(c) || (c) == '!' || ((c) >= '#' && (c) <= '\'') || (c) == '*' || (c) == '+' || (c) == '^' ||        \
     (c) == '`' || (c) == '|') /* #$%&' are neighbours */
#define IS_TEXT(c)      ((c) == '\t' || ((c) >= ' ' && (c) != 0x7f))
#define IS_PATH(c)      (IS_UNRESERVED(c) || IS_SUB_DELIM(c) || (c) == ':' || (c) == '@' || (c) == '/')
#define IS_SENT_PATH(c) (IS_PATH(c) || (c) == '%' || (c) == '[' || (c) == ']' || (c) == '|')
#define IS_SENT_QUERY(c)                                                                                               \
    (IS_SENT_PATH(c) || (c) == '?' || (c) == '{' || (c) == '}' || (c) == '^' || (c) == '`' || (c) == '\\')

#define ONE(c)                                                                                                         \
    ((IS_TOKEN(c) ? CHAR_TOKEN : 0) | (IS_TEXT(c) ? CHAR_TEXT : 0) | (IS_UNRESERVED(c) ? CHAR_UNRESERVED : 0) |        \
     (IS_PATH(c) ? CHAR_PATH : 0) | (IS_SENT_PATH(c) ? CHAR_SENT_PATH : 0) | (IS_SENT_QUERY(c) ? CHAR_SENT_QUERY : 0))
#define FOUR(c)       ONE(c), ONE((c) + 1), ONE((c) + 2), ONE((c) + 3)
#define SIXTEEN(c)    FOUR(c), FOUR((c) + 4), FOUR((c) + 8), FOUR((c) + 12)
#define SIXTY_FOUR(c) SIXTEEN(c), SIXTEEN((c) + 16), SIXTEEN((c) + 32), SIXTEEN((c) + 48)

const unsigned char grammar_classes[256] = {SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128), SIXTY_FOUR(192)};

/* Eight bytes at a time: may one of them be a control character? HTAB counts as one here. */
static bool has_control(const char *at)
{
    static const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    uint64_t word, not_del;

    memcpy(&word, at, sizeof word);
    not_del = word ^ ones * 0x7f;
    return (((word - ones * 0x20) & ~word) | ((not_del - ones) & ~not_del)) & highs;
}

static bool is_text(struct span s)
{
    while (s.len >= 8) {
        if (has_control(s.at) && !grammar_is_all((struct span){s.at, 8}, CHAR_TEXT))
            return false;
        s = span_from(s, 8);
    }
    return grammar_is_all(s, CHAR_TEXT);
}

const char *grammar_field_line(struct span line, size_t *name_len_out)
{
    size_t n = grammar_run(line, CHAR_TOKEN);

    *name_len_out = n;
    if (n < line.len && line.at[n] == ':' && n > 0)
        return is_text(span_from(line, n + 1)) ? NULL : "a control character in a field's value";
    if (line.len > 0 && grammar_is_blank(line.at[0]))
        return "a folded field line"; /* RFC 9112 section 5.2 */
    if (line.len == 0 || memchr(line.at, ':', line.len) == NULL)
        return "a field line without a colon";
    if (n == 0 && line.at[0] == ':')
        return "a field without a name";
    return grammar_is_blank(line.at[n]) ? "white space in a field's name" : "a field's name is no token";
}

bool grammar_list_next(struct span *list, struct span *member_out)
{
    while (list->len > 0) {
        const char *comma = memchr(list->at, ',', list->len);
        struct span member = {list->at, comma != NULL ? (size_t)(comma - list->at) : list->len};

        *list = span_from(*list, comma != NULL ? member.len + 1 : member.len);
        member = grammar_trim(member);
        if (member.len > 0) {
            *member_out = member;
            return true;
        }
    }
    return false;
}
