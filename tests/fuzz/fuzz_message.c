/*
 * Messages between a front and the keeper. The first byte of the input is the number of descriptors, the rest the
 * packet: one that is accepted is, encoded, the same packet again, and its text holds no NUL but the one behind it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "process/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct message message;

    if (size == 0)
        return 0;
    size_t len = size - 1;
    unsigned char *packet = (unsigned char *)memory_copy((const char *)data + 1, len);
    packet = memory_resize(packet, len > 0 ? len : 1); /* without what terminates it: reading on is seen */
    int error = message_decode(&message, packet, len, data[0]);
    assert(error == 0 || error == -EPROTO);
    if (error == 0) {
        assert(message.text_len < MESSAGE_MAX_TEXT);
        assert(strlen(message.text) == message.text_len);
        assert(message_encode(&message, wire) == len);
        assert(memcmp(wire, packet, len) == 0);
    }
    free(packet);
    return 0;
}
