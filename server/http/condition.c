/*
 * Entity-tags have no escapes (RFC 9110 section 8.8.3): between the quotes a comma is no end of a member, and a
 * backslash is a byte like any other.
 *
 *     If-None-Match: "a,b", W/"c\"     two members
 *
 * A member outside the grammar needs no check of its own, as it is equal to no entity-tag. That it matches nothing is
 * the safe side of both fields: If-None-Match then has the representation sent, If-Match has it not sent.
 */
#include "http/condition.h"

#include "http/date.h"
#include "http/grammar.h"

enum comparison { STRONG, WEAK }; /* RFC 9110 section 8.8.3.2 */

static struct span without_weakness(struct span etag)
{
    return span_starts(etag, SPAN("W/")) ? span_from(etag, 2) : etag;
}

static bool is_same(struct span sent, struct span etag, enum comparison how)
{
    struct span opaque = without_weakness(sent), own = without_weakness(etag);

    if (how == STRONG && (opaque.len < sent.len || own.len < etag.len))
        return false;
    return own.len > 0 && span_is(opaque, own);
}

/* As grammar_list_next(), for entity-tags. A quote that is not closed lasts to the end. */
static bool next_member(struct span *list, struct span *member_out)
{
    while (list->len > 0) {
        struct span member = {list->at, 0};
        bool is_quoted = false;

        while (member.len < list->len && (is_quoted || list->at[member.len] != ',')) {
            if (list->at[member.len++] == '"')
                is_quoted = !is_quoted;
        }
        *list = span_from(*list, member.len < list->len ? member.len + 1 : member.len);
        *member_out = grammar_trim(member);
        if (member_out->len > 0)
            return true;
    }
    return false;
}

/* Does one of the entity-tags in the fields of that name match? Or "*", which counts only if it stands alone. */
static bool is_listed(const struct head *head, struct span name, struct span etag, enum comparison how)
{
    bool is_found = false, has_asterisk = false;
    unsigned n_members = 0;

    for (unsigned i = 0; i < head->n_fields; i++) {
        struct span list = head->fields[i].value, member;

        if (!span_is_nocase(head->fields[i].name, name))
            continue;
        while (next_member(&list, &member)) {
            n_members++;
            if (span_is(member, SPAN("*")))
                has_asterisk = true;
            else if (is_same(member, etag, how))
                is_found = true;
        }
    }
    return is_found || (has_asterisk && n_members == 1);
}

static bool read_date(const struct head *head, struct span name, time_t now, time_t *out)
{
    const struct field *field = head_only_field(head, name);

    return field != NULL && date_read(field->value, now, out) == 0;
}

enum condition condition_decide(const struct head *head, const struct validators *validators)
{
    time_t date;

    if (head_field(head, SPAN("If-Match")) != NULL) {
        if (!is_listed(head, SPAN("If-Match"), validators->etag, STRONG))
            return CONDITION_FAILED;
    } else if (read_date(head, SPAN("If-Unmodified-Since"), validators->now, &date) && validators->modified > date) {
        return CONDITION_FAILED;
    }
    if (head_field(head, SPAN("If-None-Match")) != NULL) {
        if (is_listed(head, SPAN("If-None-Match"), validators->etag, WEAK))
            return CONDITION_NOT_MODIFIED;
    } else if (read_date(head, SPAN("If-Modified-Since"), validators->now, &date) && validators->modified <= date) {
        return CONDITION_NOT_MODIFIED;
    }
    return CONDITION_TRUE;
}

bool condition_allows_range(const struct head *head, const struct validators *validators)
{
    const struct field *field = head_only_field(head, SPAN("If-Range"));
    time_t date;

    if (field == NULL)
        return head_field(head, SPAN("If-Range")) == NULL;
    if (date_read(field->value, validators->now, &date) == 0) /* not "earlier or equal": RFC 9110 section 13.1.5 */
        return date == validators->modified && validators->modified < validators->now;
    return is_same(field->value, validators->etag, STRONG);
}
