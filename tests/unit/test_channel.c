#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process/channel.h"

/* The keeper's end is a channel; what a front sends is written to the other by hand, since a front may be hostile. */
struct ends {
    struct event_base *base;
    struct channel *channel;
    int theirs;
    unsigned n_messages, n_fds;
    bool is_gone;
};

static void on_message(void *arg, const struct message *message, int *fds, unsigned n_fds)
{
    struct ends *ends = arg;

    ends->n_messages += message != NULL;
    ends->is_gone |= message == NULL;
    ends->n_fds += n_fds;
    channel_close_received(fds, n_fds);
}

static void open_ends(struct ends *ends)
{
    int fds[2];

    memset(ends, 0, sizeof *ends);
    assert_int_equal(channel_pair(fds), 0);
    ends->base = event_base_new();
    ends->channel = channel_create(ends->base, fds[0], on_message, ends);
    ends->theirs = fds[1];
}

static void close_ends(struct ends *ends)
{
    if (ends->channel != NULL)
        channel_destroy(ends->channel);
    close(ends->theirs);
    event_base_free(ends->base);
}

static unsigned count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void send_raw(struct ends *ends, const void *wire, size_t len, int fd, unsigned n_fds)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control = {0};
    struct iovec data = {(void *)(uintptr_t)wire, len};
    struct msghdr packet = {.msg_iov = &data, .msg_iovlen = 1};
    int fds[8];

    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = fd;
    if (n_fds > 0) {
        packet.msg_control = control.bytes;
        packet.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(ends->theirs, &packet, 0), len);
}

/* A socket whose last close would be waited for, had it still something to send. */
static int lingering_socket(void)
{
    static const struct linger linger = {1, 60};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    return fd;
}

static bool lingers(int fd)
{
    struct linger linger;
    socklen_t len = sizeof linger;

    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len), 0);
    return linger.l_onoff != 0;
}

static const struct message run = {.kind = MESSAGE_RUN, .text_len = 1, .text = "x"};

static void test_received_sockets_do_not_linger(void **state)
{
    /* Good; of too many descriptors; no message at all; the end, as it seems. */
    static const struct {
        size_t cut;
        unsigned n_fds;
        bool is_message;
    } rows[] = {{0, 4, true}, {0, 8, false}, {1, 4, false}, {SIZE_MAX, 4, false}};
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t len = message_encode(&run, wire);

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ends ends;
        int fd = lingering_socket();

        open_ends(&ends);
        unsigned before = count_descriptors();
        send_raw(&ends, wire, rows[i].cut > len ? 0 : len - rows[i].cut, fd, rows[i].n_fds);
        event_base_loop(ends.base, EVLOOP_NONBLOCK);
        assert_int_equal(ends.n_messages, rows[i].is_message);
        assert_int_equal(ends.is_gone, !rows[i].is_message);
        assert_int_equal(ends.n_fds, rows[i].is_message ? 4 : 0);
        assert_int_equal(count_descriptors(), before);
        assert_false(lingers(fd));
        close_ends(&ends);
        close(fd);
    }
}

/* What nobody has read before the channel is closed, behind a packet that looks like the end. */
static void test_unread_sockets_do_not_linger(void **state)
{
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t len = message_encode(&run, wire);
    int fd = lingering_socket();
    struct ends ends;

    (void)state;
    open_ends(&ends);
    send_raw(&ends, wire, 0, -1, 0);
    send_raw(&ends, wire, len, fd, 4);
    channel_destroy(ends.channel);
    ends.channel = NULL;
    assert_false(lingers(fd));
    close_ends(&ends);
    close(fd);
}

/* An end that takes nothing is given up before so much has gathered, long before CHANNEL_ROOM messages have. */
static void test_bytes_are_bounded(void **state)
{
    struct message large = {.kind = MESSAGE_DOWN, .text_len = MESSAGE_MAX_TEXT - 1};
    unsigned char wire[MESSAGE_MAX_WIRE];
    size_t taken = 0;
    struct ends ends;
    ssize_t n;

    (void)state;
    memset(large.text, 'x', large.text_len);
    open_ends(&ends);
    for (unsigned i = 0; i < 4 * (CHANNEL_ROOM_BYTES / MESSAGE_MAX_TEXT); i++)
        channel_send(ends.channel, &large, NULL, 0);
    while ((n = recv(ends.theirs, wire, sizeof wire, MSG_DONTWAIT)) > 0)
        taken += (size_t)n;
    assert_int_equal(n, 0);
    assert_true(taken < CHANNEL_ROOM_BYTES);
    event_base_loop(ends.base, EVLOOP_NONBLOCK);
    assert_true(ends.is_gone);
    close_ends(&ends);
}

/* What was taken makes room again. */
static void test_bytes_that_are_taken_count_no_more(void **state)
{
    struct message large = {.kind = MESSAGE_DOWN, .text_len = MESSAGE_MAX_TEXT - 1};
    unsigned char wire[MESSAGE_MAX_WIRE];
    struct ends ends;
    unsigned taken = 0;

    (void)state;
    memset(large.text, 'x', large.text_len);
    open_ends(&ends);
    for (int round = 0; round < 4; round++) {
        for (unsigned i = 0; i < CHANNEL_ROOM_BYTES / MESSAGE_MAX_WIRE / 2; i++)
            channel_send(ends.channel, &large, NULL, 0);
        for (unsigned i = 0; i < CHANNEL_ROOM_BYTES / MESSAGE_MAX_WIRE / 2; taken++, i++) {
            while (recv(ends.theirs, wire, sizeof wire, MSG_DONTWAIT) <= 0)
                event_base_loop(ends.base, EVLOOP_NONBLOCK);
        }
    }
    assert_false(ends.is_gone);
    assert_int_equal(taken, 4 * (CHANNEL_ROOM_BYTES / MESSAGE_MAX_WIRE / 2));
    close_ends(&ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_received_sockets_do_not_linger),
        cmocka_unit_test(test_unread_sockets_do_not_linger),
        cmocka_unit_test(test_bytes_are_bounded),
        cmocka_unit_test(test_bytes_that_are_taken_count_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
