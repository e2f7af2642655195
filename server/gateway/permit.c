#include "gateway/permit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "gateway/metavars.h"

#define PREFIX "Variable-"

struct permit *permit_create(void)
{
    return memory_zeroed(1, sizeof(struct permit));
}

void permit_destroy(struct permit *permit)
{
    if (permit == NULL)
        return;
    buffer_free(&permit->variables);
    free(permit);
}

static void add(struct permit *permit, struct span text)
{
    buffer_append_span(&permit->variables, text);
    buffer_append(&permit->variables, "", 1);
}

struct span permit_take(struct permit *permit, const struct config_route *route, const struct reply *reply,
                        int *error_out)
{
    static const size_t prefix_len = sizeof PREFIX - 1;
    struct span refused = SPAN("");

    *error_out = permit->passed.n < ROUTE_MOST_PASSED ? 0 : -ENOSPC;
    if (*error_out != 0)
        return refused;
    permit->passed.at[permit->passed.n++] = route;
    for (unsigned i = 0; i < reply->n_fields; i++) {
        const struct field *field = &reply->fields[i];
        struct span start = {field->name.at, prefix_len};

        if (field->name.len <= prefix_len || !span_is_nocase(start, SPAN(PREFIX)))
            continue;
        struct span name = span_from(field->name, prefix_len);
        if (metavars_is_grantable(name)) {
            add(permit, name);
            add(permit, field->value);
        } else if (refused.len == 0) {
            refused = name;
        }
    }
    return refused;
}

static struct span take_text(struct span *from)
{
    struct span text = {from->at, strlen(from->at)};

    *from = span_from(*from, text.len + 1);
    return text;
}

bool permit_next(struct span *variables, struct span *name_out, struct span *value_out)
{
    if (variables->len == 0)
        return false;
    *name_out = take_text(variables);
    *value_out = take_text(variables);
    return true;
}
