#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "process/message.h"

enum {
    FIXED = 56,  /* bytes before the text */
    LEN_AT = 48, /* where its length is */
    MAX_FDS = 8, /* more than any message may have */
};

static const struct {
    enum message_kind kind;
    unsigned least, most; /* descriptors */
} kinds[] = {
    {MESSAGE_WANT, 0, 0},   {MESSAGE_RETURN, 0, 0},  {MESSAGE_RUN, 4, 4},     {MESSAGE_END, 0, 0},
    {MESSAGE_OPEN, 0, 0},   {MESSAGE_LOAN, 0, 1},    {MESSAGE_RECALL, 0, 0},  {MESSAGE_GONE, 0, 0},
    {MESSAGE_DOWN, 0, 0},   {MESSAGE_STARTED, 0, 0}, {MESSAGE_REFUSED, 0, 0}, {MESSAGE_EXITED, 0, 0},
    {MESSAGE_OPENED, 0, 0}, {MESSAGE_DRAIN, 0, 0},   {MESSAGE_LOGS, 1, 2},    {MESSAGE_SPARE, 0, 0},
    {MESSAGE_READY, 0, 0},  {MESSAGE_SPENT, 0, 0},   {MESSAGE_USED, 0, 0},    {MESSAGE_PROVEN, 0, 0},
    {MESSAGE_UP, 0, 0},     {MESSAGE_SLOW, 0, 0},    {MESSAGE_RETIRE, 0, 0},  {MESSAGE_ACCEPT, 0, 0},
    {MESSAGE_ALONE, 0, 0},  {MESSAGE_ASK, 0, 0},     {MESSAGE_LIVES, 0, 0},
};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* Every kind is in the table. */
_Static_assert(N_KINDS == N_MESSAGES - 1, "a kind of message without a test");

static struct message sample(enum message_kind kind, size_t text_len)
{
    struct message message = {
        .kind = kind,
        .pool = 0x01020304,
        .id = UINT32_MAX,
        .n = 0x80000000,
        .pid = -7,
        .status = INT32_MIN,
        .soft = 0x05060708,
        .hard = UINT32_MAX - 1,
        .cpu_us = UINT64_MAX,
        .max_rss_kib = 0x0102030405060708,
        .text_len = text_len,
    };

    for (size_t i = 0; i < text_len; i++)
        message.text[i] = (char)(i % 255 + 1);
    return message;
}

static void assert_same(const struct message *a, const struct message *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->pool, b->pool);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->soft, b->soft);
    assert_int_equal(a->hard, b->hard);
    assert_true(a->cpu_us == b->cpu_us);
    assert_true(a->max_rss_kib == b->max_rss_kib);
    assert_int_equal(a->text_len, b->text_len);
    assert_memory_equal(a->text, b->text, a->text_len);
}

/* Decodes from memory of just the packet's size, into a struct full of something else. */
static int decode(struct message *out, const unsigned char *wire, size_t len, unsigned n_fds)
{
    unsigned char *copy = memory_resize(NULL, len + 1);

    memcpy(copy + 1, wire, len);
    memset(out, 0xa5, sizeof *out);
    int error = message_decode(out, copy + 1, len, n_fds);
    free(copy);
    return error;
}

static void test_round_trip(void **state)
{
    static const size_t lens[] = {0, 1, 300, MESSAGE_MAX_TEXT - 1};
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct message back;

    (void)state;
    for (size_t i = 0; i < N_KINDS * 4; i++) {
        struct message message = sample(kinds[i / 4].kind, lens[i % 4]);
        size_t len = message_encode(&message, wire);

        assert_int_equal(len, FIXED + message.text_len);
        assert_int_equal(decode(&back, wire, len, kinds[i / 4].least), 0);
        assert_same(&message, &back);
        assert_int_equal(back.text[back.text_len], '\0');
    }
}

static void test_descriptors(void **state)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct message back;

    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        struct message message = sample(kinds[i].kind, 3);
        size_t len = message_encode(&message, wire);

        assert_true(kinds[i].most <= MESSAGE_MAX_FDS);
        for (unsigned n = 0; n <= MAX_FDS; n++) {
            int expected = n >= kinds[i].least && n <= kinds[i].most ? 0 : -EPROTO;

            if (decode(&back, wire, len, n) != expected)
                fail_msg("kind %d with %u descriptors", (int)kinds[i].kind, n);
        }
    }
}

/* No packet that was cut off is taken for a shorter message, and none with more behind it for a message at all. */
static void test_other_lengths(void **state)
{
    unsigned char wire[MESSAGE_MAX_WIRE + 1];
    struct message back;

    (void)state;
    for (size_t i = 0; i < N_KINDS * 2; i++) {
        struct message message = sample(kinds[i / 2].kind, i % 2 * 20);
        size_t len = message_encode(&message, wire);

        wire[len] = 'x';
        for (size_t other = 0; other <= len + 1; other++)
            assert_int_equal(decode(&back, wire, other, kinds[i / 2].least), other == len ? 0 : -EPROTO);
    }
}

static void test_text_len_that_lies(void **state)
{
    static const uint64_t lies[] = {
        0,         19, 21, MESSAGE_MAX_TEXT, UINT32_MAX, (uint64_t)UINT32_MAX + 21, UINT64_MAX, UINT64_MAX - FIXED + 1,
        INT64_MAX,
    };
    struct message message = sample(MESSAGE_WANT, 20), back;
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t len = message_encode(&message, wire);

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(wire + LEN_AT, &lies[i], sizeof lies[i]);
        assert_int_equal(decode(&back, wire, len, 0), -EPROTO);
        assert_int_equal(decode(&back, wire, FIXED, 0), lies[i] == 0 ? 0 : -EPROTO);
    }
}

/* One byte more than the receiver has room for, all lengths being right. */
static void test_text_too_long(void **state)
{
    struct message message = sample(MESSAGE_WANT, MESSAGE_MAX_TEXT - 1), back;
    unsigned char wire[FIXED + MESSAGE_MAX_TEXT + 1];
    uint64_t text_len = MESSAGE_MAX_TEXT;
    size_t len = message_encode(&message, wire);

    (void)state;
    assert_int_equal(decode(&back, wire, len, 0), 0);
    wire[len] = 'x';
    memcpy(wire + LEN_AT, &text_len, sizeof text_len);
    assert_int_equal(decode(&back, wire, len + 1, 0), -EPROTO);
}

static void test_nul_in_text(void **state)
{
    static const size_t lens[] = {1, 2, 50};
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct message back;

    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        for (size_t at = 0; at < lens[i]; at++) {
            struct message message = sample(MESSAGE_OPEN, lens[i]);

            message.text[at] = '\0';
            assert_int_equal(decode(&back, wire, message_encode(&message, wire), 0), -EPROTO);
        }
    }
}

static void test_unknown_kinds(void **state)
{
    static const uint32_t unknown[] = {0, N_MESSAGES, N_MESSAGES + 1, 0x100, 0x01000000, INT32_MAX, UINT32_MAX};
    struct message message = sample(MESSAGE_WANT, 0), back;
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t len = message_encode(&message, wire);

    (void)state;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        memcpy(wire, &unknown[i], sizeof unknown[i]);
        for (unsigned n_fds = 0; n_fds <= MAX_FDS; n_fds++)
            assert_int_equal(decode(&back, wire, len, n_fds), -EPROTO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_other_lengths), cmocka_unit_test(test_text_len_that_lies),
        cmocka_unit_test(test_text_too_long), cmocka_unit_test(test_nul_in_text),
        cmocka_unit_test(test_unknown_kinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
