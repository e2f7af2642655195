/*
 * Dates: what is read is written as the same date, and read again as the same time. The first eight bytes of the input
 * are a time to be written, and the present; the rest is a text to be read.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "http/date.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_written(time_t t, time_t now)
{
    char text[DATE_LEN + 1];
    time_t back;

    date_write(text, t);
    assert(strlen(text) == DATE_LEN);
    assert(date_read((struct span){text, DATE_LEN}, now, &back) == 0);
    assert(back == (t < 0 ? 0 : t > 253402300799 ? 253402300799 : t));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const time_t untouched = -424242424242;
    int64_t any;
    time_t now, read = untouched;
    size_t len;
    char *copy;

    if (size < sizeof any)
        return 0;
    memcpy(&any, data, sizeof any);
    len = size - sizeof any;
    copy = memory_resize(NULL, len + 1); /* whose end is the text's, too */
    memcpy(copy + 1, data + sizeof any, len);
    now = (time_t)((uint64_t)any % 4102444800); /* from 1970 to 2099 */
    check_written(any, now);
    if (date_read((struct span){copy + 1, len}, now, &read) == 0) {
        assert(len >= 24 && len <= 33);
        assert(read >= -62167219200 && read <= 253402300800); /* one more by a leap second */
        assert(copy[len] == 'T' ? len == DATE_LEN || read <= now + 51 * 366 * 86400 : len == 24);
        check_written(read, now);
    } else {
        assert(read == untouched);
    }
    free(copy);
    return 0;
}
