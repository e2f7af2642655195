/*
 * The wire form: struct fixed, then text_len bytes of text. A WANT for pool 3 with two requests waiting:
 *
 *     01 00 00 00  03 00 00 00  00 00 00 00  02 00 00 00  00 ... (56 bytes)
 */
#include "process/message.h"

#include <errno.h>
#include <string.h>

struct fixed {
    uint32_t kind, pool, id, n;
    int32_t pid, status;
    uint32_t soft, hard;
    uint64_t cpu_us, max_rss_kib;
    uint64_t text_len;
};

/* How many descriptors each kind comes with. */
static const struct {
    unsigned least, most;
} descriptors[N_MESSAGES] = {
    [MESSAGE_RUN] = {4, 4},
    [MESSAGE_LOAN] = {0, 1},
    [MESSAGE_LOGS] = {1, 2},
};

size_t message_encode(const struct message *message, unsigned char *wire)
{
    struct fixed fixed = {
        .kind = message->kind,
        .pool = message->pool,
        .id = message->id,
        .n = message->n,
        .pid = message->pid,
        .status = message->status,
        .soft = message->soft,
        .hard = message->hard,
        .cpu_us = message->cpu_us,
        .max_rss_kib = message->max_rss_kib,
        .text_len = message->text_len,
    };

    memcpy(wire, &fixed, sizeof fixed);
    memcpy(wire + sizeof fixed, message->text, message->text_len);
    return sizeof fixed + message->text_len;
}

int message_decode(struct message *message_out, const unsigned char *wire, size_t len, unsigned n_fds)
{
    struct fixed fixed;

    if (len < sizeof fixed)
        return -EPROTO;
    memcpy(&fixed, wire, sizeof fixed);
    if (fixed.kind < MESSAGE_WANT || fixed.kind >= N_MESSAGES)
        return -EPROTO;
    if (fixed.text_len != len - sizeof fixed || fixed.text_len >= MESSAGE_MAX_TEXT)
        return -EPROTO;
    if (memchr(wire + sizeof fixed, '\0', fixed.text_len) != NULL)
        return -EPROTO;
    if (n_fds < descriptors[fixed.kind].least || n_fds > descriptors[fixed.kind].most)
        return -EPROTO;
    message_out->kind = (enum message_kind)fixed.kind;
    message_out->pool = fixed.pool;
    message_out->id = fixed.id;
    message_out->n = fixed.n;
    message_out->pid = fixed.pid;
    message_out->status = fixed.status;
    message_out->soft = fixed.soft;
    message_out->hard = fixed.hard;
    message_out->cpu_us = fixed.cpu_us;
    message_out->max_rss_kib = fixed.max_rss_kib;
    message_out->text_len = fixed.text_len;
    memcpy(message_out->text, wire + sizeof fixed, fixed.text_len);
    message_out->text[fixed.text_len] = '\0';
    return 0;
}
