"""Limits and deadlines: just within them a client is served, just beyond it is refused with the right status, and
nothing that it sends behind is answered. And the length that a program is told of a body in chunks."""

import contextlib
import itertools
import os
import re
import select
import socket
import threading
import time
import zlib

import pytest

import processes
from client import PATIENCE, Client, Closed
from processes import is_alive, wait_for
from server import is_sanitized

SITE = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
"""

FASTCGI = """
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
    [route /inspect/*]
    gateway = fastcgi
    pool = inspect
    [pool inspect]
    command = {cgi}/inspect
    pm = static
    pm.max_children = 1
"""

BIG = os.urandom(1 << 20) * 8

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"

# A request that must never be answered; if it is, it leaves a file.
BEHIND = b"GET /cgi-bin/canary.sh HTTP/1.1\r\nHost: a\r\n\r\n"

NUMBERS = itertools.count(1)

BOTH = pytest.mark.parametrize("count", ["/cgi-bin/count", "/fcgi/"], ids=["cgi", "fastcgi"])
WAYS = pytest.mark.parametrize("way", ["whole", "bytes"])


class Peer(Client):
    """A client that may have another address, or small buffers."""

    def __init__(self, server, source="127.0.0.1", takes=None, gives=None):
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if takes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        if gives:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, gives)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", server.port))
        self.host = f"127.0.0.1:{server.port}"
        self.bytes = b""


def prepare(lab):
    """The files and scripts that the tests ask for."""
    lab.file("root/a.txt", b"aaa\n")
    lab.file("root/big", BIG)
    lab.script("canary.sh", f"""
        #!/bin/sh
        : > {lab.here("canary")}
        printf 'Content-Type: text/plain\\n\\ncanary\\n'
        """)
    lab.script("stay.sh", r"""
        #!/bin/sh
        printf 'Content-Type: text/plain\n\n'
        exec sleep 1000
        """)
    return lab


def serve(lab, text=SITE, **keys):
    return prepare(lab).serve(text, **keys)


def expect_no_canary(server):
    assert not os.path.exists(server.lab.here("canary")), "what was sent behind a refused request has been served"


def send(client, data, way="whole"):
    """All of it at once, or byte by byte; as far as the server listens."""
    step = 1 if way == "bytes" else len(data)
    try:
        for at in range(0, len(data), step or 1):
            client.send(data[at:at + step])
    except OSError:
        pass


def expect_refusal(server, client, status):
    """That answer, and then the end."""
    response = client.read()
    assert response.status == status and response.closes, response
    client.expect_close()
    expect_no_canary(server)
    return response


def wait_gone(*pids):
    wait_for(lambda: not any(map(is_alive, pids)), f"the end of {pids}")


def has_bytes(client):
    """Is there something to read, be it the end?"""
    return bool(select.select([client.socket], [], [], 0)[0])


def fronts_of(server, n=1):
    """Its fronts, when all is started and the warden can be told from them."""
    return wait_for(lambda: len(found := server.fronts()) == n and found, "the fronts")


def is_logged(server, word):
    return bool([record for record in server.records() if word in record["uri"]])


# What a request may hold, and one byte more.

SMALL = {"max_head": "2k", "max_target": "1k", "max_field": "512", "max_fields": "10", "max_body": "1000",
         "max_chunk_overhead": "1000", "max_trailers": "100", "header_timeout": "2s", "body_timeout": "2s"}


@pytest.fixture(scope="module")
def small(shared_lab):
    return serve(shared_lab, **SMALL)


def head_of(n):
    """A head of n bytes, of lines that are not too long."""
    head = b"GET /a.txt HTTP/1.1\r\n" + HOST
    while n - len(head) - 2 > 512:
        head += b"X: " + b"x" * 395 + b"\r\n"
    return head + b"X: " + b"x" * (n - len(head) - 7) + b"\r\n\r\n"


def target_of(n):
    return b"GET /a.txt?" + b"x" * (n - 7) + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def field_of(n):
    return b"GET /a.txt HTTP/1.1\r\n" + HOST + b"X: " + b"x" * (n - 3) + b"\r\n\r\n"


def fields_of(n):
    return b"GET /a.txt HTTP/1.1\r\n" + HOST + b"".join(b"X%d: x\r\n" % i for i in range(1, n)) + b"\r\n"


def length_of(n):
    return b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % n + b"x" * n


def chunked(chunks, target=b"/cgi-bin/cat.sh"):
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + chunks


def chunk(n, extension=b""):
    return b"%x" % n + extension + b"\r\n" + b"x" * n + b"\r\n"


def chunks_of(n):
    return chunked(chunk(n - 1) + chunk(1) + LAST)


def trailers_of(n):
    return chunked(chunk(1) + b"0\r\nX: " + b"x" * (n - 7) + b"\r\n\r\n")


def overhead_of(n):
    """A chunk of one byte whose first line has n bytes: n + 1 more of framing than of data, of which 16 are free."""
    return chunked(chunk(1, b";x=" + b"x" * (n - 6)) + LAST)


def empty_lines(n):
    return b"\r\n" * n + target_of(7)


LIMITS = {"max_head": (head_of, 2048, 2049, 431), "max_target": (target_of, 1024, 1025, 414),
          "max_field": (field_of, 512, 513, 431), "max_fields": (fields_of, 10, 11, 431),
          "max_body": (length_of, 1000, 1001, 413), "max_body-chunked": (chunks_of, 1000, 1001, 413),
          "max_trailers": (trailers_of, 100, 101, 431), "max_chunk_overhead": (overhead_of, 1015, 1016, 400),
          "empty-lines": (empty_lines, 2, 3, 400)}


@WAYS
@pytest.mark.parametrize("name", LIMITS)
def test_within_a_limit(small, name, way):
    make, most, _, _ = LIMITS[name]
    with small.connect() as client:
        for _ in range(2):
            send(client, make(most), way)
            assert client.read().status == 200
        assert client.get("/a.txt").body == b"aaa\n"
        client.expect_nothing()


@WAYS
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_beyond_a_limit(small, name, way, first):
    make, _, more, status = LIMITS[name]
    with small.connect() as client:
        if not first:
            assert client.get("/a.txt").body == b"aaa\n"
        send(client, make(more) + BEHIND, way)
        expect_refusal(small, client, status)


@pytest.mark.parametrize("data, status", [
    (head_of(2048)[:-4] + b"xxxx", 431),
    (target_of(2000)[:len(b"GET ") + 1025], 414),
    (field_of(1000)[:len(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n") + 513], 431),
    (fields_of(11)[:-2], 431),
    (length_of(1001)[:-1001], 413),
    (chunked(b"ffff\r\n" + b"x" * 1001), 413),
    (chunked(chunk(1000) + b"1\r\nx"), 413),
    (trailers_of(200)[:-99], 431),
    (overhead_of(1200)[:-100], 400),
    (b"\r\n" * 3, 400),
], ids=["head", "target", "field", "fields", "length", "chunk", "chunks", "trailers", "overhead", "empty-lines"])
def test_refused_as_soon_as_a_limit_is_passed(small, data, status):
    """The client waits for its answer before it sends any more."""
    with small.connect() as client:
        client.send(data)
        response = client.read()
        assert response.status == status and response.closes, response
        send(client, BEHIND)
        client.expect_close()
    expect_no_canary(small)


def test_a_number_beyond_all_limits(small):
    for size in (b"7fffffffffffffff", b"8000000000000000", b"ffffffffffffffff"):
        with small.connect() as client:
            client.send(chunked(size + b"\r\n" + b"x" * 1001 + BEHIND))
            expect_refusal(small, client, 413)


def test_expectation_at_the_limit(small):
    for n, status in ((1000, 100), (1001, 413)):
        with small.connect() as client:
            client.send(length_of(n)[:-n - 2] + b"Expect: 100-continue\r\n\r\n")
            response = client._head()
            assert response.status == status
            if status == 100:
                client.send(b"x" * n)
                assert client.read().body == b"x" * n
            else:
                assert response.closes
                client.socket.shutdown(socket.SHUT_WR)
                client.bytes = client.bytes[int(response.get("content-length")):]
                client.expect_close()


@pytest.mark.parametrize("target", [b"/a.txt", b"/nothing", b"/cgi-bin/deaf.sh"])
def test_too_long_a_body_that_nobody_wants(small, target):
    """One answer, whichever, and nothing behind."""
    with small.connect() as client:
        client.send(chunked(chunk(800) + chunk(800) + LAST + BEHIND, target))
        assert client.read().status in (404, 405, 413)
        client.expect_close()
    expect_no_canary(small)


def test_no_body_at_all(lab):
    server = serve(lab, max_body="0")
    with server.connect() as client:
        for data in (length_of(0), chunked(LAST), target_of(7)):
            client.send(data)
            assert client.read().status == 200
    for data in (length_of(1), chunked(chunk(1) + LAST)):
        with server.connect() as client:
            client.send(data + BEHIND)
            expect_refusal(server, client, 413)


def test_no_overhead_at_all(lab):
    """What is free stays free: 16 bytes a chunk, and as many as there are of data."""
    server = serve(lab, max_chunk_overhead="0")
    with server.connect() as client:
        client.send(chunked(chunk(5) + chunk(100) + LAST))
        assert client.read().body == b"x" * 105


def test_a_program_that_reads_is_ended(lab):
    """Its body is too long, which shows when it has run for a while."""
    server = serve(lab, SITE + FASTCGI, max_body="100000")
    for n, count in enumerate(("/cgi-bin/count", "/fcgi/")):
        with server.connect() as client:
            client.send(chunked(chunk(99_999), f"{count}?started={lab.here(f'pid{n}')}".encode()))
            pid = int(lab.wait_file(f"pid{n}"))
            client.send(chunk(2) + LAST + BEHIND)
            expect_refusal(server, client, 413)
        if "cgi-bin" in count:
            wait_gone(pid)
        wait_for(lambda count=count: server.answers(count), "the next answer")


@pytest.mark.parametrize("head", [b"Content-Length: 50000000\r\n\r\n", CHUNKED + b"\r\n2faf080\r\n"],
                         ids=["length", "chunked"])
def test_refusal_of_fifty_megabytes(small, head):
    """A client that reads only when it has sent all of it."""
    with small.connect() as client:
        client.send(b"POST /cgi-bin/count HTTP/1.1\r\n" + HOST + head)
        for _ in range(50):
            client.send(b"x" * 1_000_000)
        client.send(b"\r\n" + LAST + BEHIND)
        client.end_sending()
        expect_refusal(small, client, 413)


# Time.

def test_time_of_a_later_head(lab):
    """It runs from the head's first byte, not before, and no byte moves it."""
    server = serve(lab, header_timeout="300ms")
    with server.connect() as client:
        assert client.get("/a.txt").status == 200
        with server.connect() as silent:  # its time begins now
            silent.expect_close()
        assert client.get("/a.txt").status == 200
        for byte in itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(ord("x"))):
            send(client, bytes([byte]))
            if has_bytes(client):
                break
            time.sleep(0.02)
        send(client, b"\r\n\r\n" + BEHIND)
        expect_refusal(server, client, 408)


def test_silence_within_a_body(lab):
    """Of any kind, before any kind of program. It is ended."""
    server = serve(lab, SITE + FASTCGI.replace("max_children = 1", "max_children = 2"), body_timeout="800ms")
    clients = []
    for count, start in itertools.product(("/cgi-bin/count", "/fcgi/"),
                                          (CHUNKED + b"\r\n" + chunk(5), b"Content-Length: 10\r\n\r\nhello")):
        client = server.connect()
        client.send(f"POST {count}?started={lab.here(f'pid{len(clients)}')} HTTP/1.1\r\n".encode() + HOST + start)
        clients.append(client)
    pids = [int(lab.wait_file(f"pid{n}")) for n in range(4)]
    for client in clients:
        response = client.read()
        assert response.status == 408 and response.closes
        send(client, b"world" + BEHIND)
        client.expect_close()
        client.close()
    wait_gone(*pids[:2])
    wait_for(lambda: server.answers("/fcgi/"), "the next answer")
    expect_no_canary(server)


def trickle(client, seconds, rate):
    """Sends n bytes at that rate, or until there is an answer; how many."""
    sent, began = 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds and not has_bytes(client):
        due = int(now * rate) + 1
        send(client, b"x" * (due - sent))
        sent = due
        time.sleep(0.02)
    return sent


@pytest.mark.parametrize("min_rate, rate, status", [("2000", 600, 408), ("2000", 8000, 200), ("0", 600, 200)],
                         ids=["below", "above", "none"])
def test_rate_of_a_body(lab, min_rate, rate, status):
    """Nobody is silent here, but one is too slow."""
    server = serve(lab, body_timeout="400ms", min_rate=min_rate)
    with server.connect() as client:
        client.send(b"POST /cgi-bin/count HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n")
        sent = trickle(client, 8 if status == 408 else 1.2, rate)
        if status == 408:
            send(client, BEHIND)
            expect_refusal(server, client, 408)
        else:
            client.send(b"x" * (100_000 - sent))
            assert f"length=100000 crc={zlib.crc32(b'x' * 100_000):08x}\n" in client.read().text


READS = {"file": "/big?this", "cgi": "/cgi-bin/count?bytes=8000000&started={pid}",
         "fastcgi": "/fcgi/?bytes=8000000&started={pid}"}


def read_slowly(client, while_true):
    """At most 160 KB a second."""
    while while_true():
        if has_bytes(client):
            client.bytes += client.socket.recv(4000)
        time.sleep(0.025)


@pytest.mark.parametrize("name", READS)
def test_reader_that_is_too_slow(lab, name):
    server = serve(lab, SITE + FASTCGI, body_timeout="300ms", min_rate="4m")
    target = READS[name].format(pid=lab.here("pid"))
    with Peer(server, takes=16384) as client:
        client.send_request("GET", target)
        response = client.read_head()
        with pytest.raises((Closed, ConnectionResetError)):
            read_slowly(client, lambda: not is_logged(server, target))
            for _ in client.body_pieces(response):
                pass
    assert server.record(response)["bytes_out"] < 8_000_000
    if name == "cgi":
        wait_gone(int(lab.wait_file("pid")))
    if name == "fastcgi":
        wait_for(lambda: server.answers("/fcgi/"), "the next answer")


@pytest.mark.parametrize("name", READS)
def test_reader_that_is_slow(lab, name):
    """Far faster than it must be, for some body_timeouts."""
    server = serve(lab, SITE + FASTCGI, body_timeout="300ms", min_rate="1000")
    with Peer(server, takes=16384) as client:
        client.send_request("GET", READS[name].format(pid=lab.here("pid")))
        response = client.read_head()
        until = time.monotonic() + 1
        read_slowly(client, lambda: time.monotonic() < until)
        body = b"".join(client.body_pieces(response))
        assert body == BIG if name == "file" else body.startswith(b"x" * 8_000_000 + b"pid=")


def test_reader_with_pauses(lab):
    """It takes much, then nothing for a while, again and again: no pause is too long, but all of them together are."""
    server = serve(lab, body_timeout="1500ms", min_rate="500")
    with server.connect() as client:
        client.send_request("GET", "/cgi-bin/count?bytes=1000000000")
        for _ in range(12):
            for _ in range(128):
                assert client.socket.recv(65536, socket.MSG_WAITALL)
            time.sleep(0.2)


@pytest.mark.parametrize("n", [0, 1_500_000, 1_900_000])
def test_reader_of_ranges_that_is_silent(lab, n):
    """They are those of a file that a program has named instead of an answer. The client has not read either the n
    bytes that came before, as many as the socket holds."""
    server = serve(lab, body_timeout="300ms")
    os.truncate(lab.file("root/huge"), 300_000_000)
    lab.file("answer", "Location: /huge\n\n")
    with Peer(server, takes=4096) as client:
        client.send_request("GET", "/huge", fields=[("Range", f"bytes=0-{n}")])
        wait_for(lambda: is_logged(server, "/huge"), "the end of the first request")
        client.send_request("GET", f"/cgi-bin/say.sh?{lab.here('answer')}",
                            fields=[("Range", "bytes=0-100000000,200000000-200000010")])
        wait_for(lambda: is_logged(server, "/cgi-bin/say.sh"), "the end of the second request")
        wait_for(lambda: processes.tcp_connections(server.fronts()) == 0, "the end of the connection")


def outlast_body_timeout(server):
    """Returns when another client has been refused for its silence, which began with the call."""
    with server.connect() as client:
        client.send(b"POST /cgi-bin/count HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")
        assert client.read().status == 408


def test_events_with_pauses(lab):
    """It is the program that is silent."""
    server = serve(lab, body_timeout="200ms", min_rate="1m")
    lab.script("events.sh", r"""
        #!/bin/sh
        printf 'Content-Type: text/event-stream\n\n'
        for i in 1 2 3; do
            echo "data: $i"
            while [ ! -e "$QUERY_STRING.$i" ]; do sleep 0.01; done
        done
        """)
    with server.connect() as client:
        client.send_request("GET", f"/cgi-bin/events.sh?{lab.here('go')}")
        pieces = client.body_pieces(client.read_head())
        for i in range(1, 4):
            assert next(pieces) == b"data: %d\n" % i
            outlast_body_timeout(server)
            lab.file(f"go.{i}")
        assert not list(pieces)


def test_program_that_does_not_read_for_a_while(lab):
    """It is the program that keeps the client waiting."""
    server = serve(lab, body_timeout="500ms")
    lab.script("later.sh", r"""
        #!/bin/sh
        echo > "$QUERY_STRING.started"
        while [ ! -e "$QUERY_STRING.go" ]; do sleep 0.01; done
        printf 'Content-Type: text/plain\n\n'
        wc -c
        """)
    with server.connect() as client:
        sender = threading.Thread(target=client.send_request,
                                  args=("POST", f"/cgi-bin/later.sh?{lab.here('later')}", BIG))
        sender.start()
        lab.wait_file("later.started")
        try:
            outlast_body_timeout(server)
        finally:
            lab.file("later.go")
        response = client.read()
        sender.join()
        assert response.status == 200 and int(response.text) == len(BIG)


# Pipelines.

@pytest.mark.parametrize("first", ["program", "file"])
def test_pipeline_is_not_read_ahead(lab, first):
    """While one answer is under way, the server takes no more than it must; later it answers all, in order."""
    server = serve(lab)
    front, = fronts_of(server)
    with Peer(server, takes=8192, gives=65536) as client:
        client.send_request("GET", "/big" if first == "file" else f"/cgi-bin/gate.sh?{lab.here('gate')}")
        if first == "program":
            lab.wait_file("gate.started")
        else:
            client.read_head()
        before = processes.pss_kib(front)
        waiting, n, sent = b"", 0, 0
        while select.select([], [client.socket], [], 0.3)[1]:
            if not waiting:
                waiting = b"GET /big HTTP/1.1\r\nHost: a\r\nRange: bytes=%d-%d\r\n" % (n, n)
                waiting += b"X: " + b"x" * 8000 + b"\r\n\r\n"
                n += 1
            done = client.socket.send(waiting, socket.MSG_DONTWAIT)
            waiting, sent = waiting[done:], sent + done
            assert sent < 8 << 20, "the server reads on and on"
        assert n > 2
        if not is_sanitized():
            assert processes.pss_kib(front) < before + 512
        sender = threading.Thread(target=client.send, args=(waiting,))
        sender.start()
        lab.file("gate.go")
        if first == "program":
            assert client.read().body == b"through\n"
        else:
            assert b"".join(client._exactly(len(BIG))) == BIG
        for i in range(n):
            response = client.read()
            assert (response.status, response.body) == (206, BIG[i:i + 1])
            assert response.get("content-range").startswith(f"bytes {i}-{i}/")
        sender.join()
        client.expect_nothing()


# Requests and connections, counted.

@pytest.mark.parametrize("most", [1, 3])
def test_keepalive_requests(lab, most):
    """One after another, and all at once: the last answer says that it is the last."""
    server = serve(lab, keepalive_requests=most)
    for pipelined in (False, True):
        with server.connect() as client:
            if pipelined:
                client.send(target_of(7) * most + BEHIND)
            for n in range(1, most + 1):
                if not pipelined:
                    client.send(target_of(7))
                response = client.read()
                assert response.status == 200 and response.closes == (n == most)
            client.expect_close()
    with server.connect() as client:
        client.send(b"GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * most + BEHIND)
        for n in range(1, most + 1):
            response = client.read()
            assert (response.get("connection") == "keep-alive") == (n < most)
        client.expect_close()
    expect_no_canary(server)


def test_last_answer_is_not_lost(lab):
    """The client has not read yet that it is the last, and asks on: what it was sent must not be taken from it."""
    server = serve(lab, keepalive_requests=1)
    body = lab.file("root/part", BIG[:300_000])
    assert os.path.getsize(body) == 300_000
    with Peer(server, takes=16384) as client:
        client.send_request("GET", "/part")
        wait_for(lambda: is_logged(server, "/part"), "the end of the request")
        client.send(BEHIND)
        response = client.read()
        assert response.closes and response.body == BIG[:300_000]
        client.expect_close()
    expect_no_canary(server)


def test_answer_before_what_nobody_reads(lab):
    """The head ends where a read does, and much is behind it: the answer must not be taken from the client."""
    server = serve(lab)
    lab.file("root/part", BIG[:300_000])
    head = b"GET /part HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    with Peer(server, takes=16384) as client:
        client.send(head + b"x" * (4096 - len(head) - 4) + b"\r\n\r\n" + b"z" * 50_000)
        wait_for(lambda: is_logged(server, "/part"), "the end of the request")
        response = client.read()
        assert response.closes and response.body == BIG[:300_000]
        client.expect_close()


def ask(client):
    return client.get("/a.txt").status


def take(server, n=1, source="127.0.0.1"):
    """n connections, each of which has been served."""
    clients = [Peer(server, source) for _ in range(n)]
    assert [ask(client) for client in clients] == [200] * n
    return clients


def try_to_take(server, source="127.0.0.1"):
    """A connection that was served, in a list, or nothing."""
    client = Peer(server, source)
    try:
        if ask(client) == 200:
            return [client]
    except (OSError, Closed):
        pass
    client.close()
    return []


def wait_to_take(server, n):
    """As many connections as become free."""
    return [wait_for(lambda: try_to_take(server), "a connection's end to be counted")[0] for _ in range(n)]


def expect_full(server, source="127.0.0.1"):
    """One more is refused without being asked; returns it."""
    client = Peer(server, source)
    response = client.read()
    assert response.status == 429 and response.closes and response.get("retry-after", "").isdigit()
    client.expect_close()
    return client


def close(clients):
    for client in clients:
        client.close()


@pytest.mark.parametrize("fronts", [1, 2])
def test_max_connections(lab, fronts):
    """One more waits, and is served when another leaves."""
    server = serve(lab, fronts=fronts, max_connections=4)
    clients = [Peer(server) for _ in range(4)]
    for number, client in enumerate(clients):
        client.send_request("GET", f"/cgi-bin/gate.sh?{lab.here(f'gate{number}')}", fields=[("Connection", "close")])
        lab.wait_file(f"gate{number}.started")
    for number, end in enumerate(("answer", "reset")):
        waiting = Peer(server)
        waiting.send_request("GET", f"/cgi-bin/gate.sh?{lab.here(f'wait{number}')}")
        assert not has_bytes(waiting)
        assert not os.path.exists(lab.here(f"wait{number}.started"))
        if end == "answer":
            lab.file(f"gate{number}.go")
            assert clients[number].read().body == b"through\n"
        else:
            clients[number].reset()
        lab.wait_file(f"wait{number}.started")
        clients.append(waiting)
    for number in range(4):
        lab.file(f"gate{number}.go")
        lab.file(f"wait{number}.go")
    assert [client.read().body for client in clients[2:]] == [b"through\n"] * 4
    close(clients)


def test_idle_connections_give_way(lab):
    """For one more, that which has been idle for longest is closed, quietly."""
    server = serve(lab, max_connections=4)
    busy = Peer(server)
    busy.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
    lab.wait_file("gate.started")
    idle = take(server, 3)
    assert ask(idle[0]) == 200  # so that the second has been idle for longest
    more = []
    for client in (idle[1], idle[2], idle[0]):
        more += take(server)
        client.expect_close()
    assert [ask(client) for client in more] == [200] * 3
    lab.file("gate.go")
    assert busy.read().body == b"through\n"
    close([busy] + idle + more)



@pytest.mark.parametrize("fronts", [1, 2])
def test_connections_of_a_client(lab, fronts):
    """The limit is exact, and each client has its own."""
    server = serve(lab, fronts=fronts, max_connections_per_client=5)
    first, second = take(server, 5), take(server, 5, "127.0.0.2")
    close([expect_full(server), expect_full(server, "127.0.0.2")])
    first.pop().close()
    first += wait_to_take(server, 1)
    close([expect_full(server), expect_full(server, "127.0.0.2")])
    third = take(server, 5, "127.0.0.3")
    assert [ask(client) for client in first + second + third] == [200] * 15
    close(first + second + third)


def end_by_close(client):
    client.close()


def end_by_reset(client):
    client.reset()


def end_by_half_close(client):
    client.end_sending()
    client.expect_close()
    client.close()


def end_by_answer(client):
    client.send(b"GET /a.txt HTTP/1.0\r\n\r\n")
    assert client.read().status == 200
    client.expect_close()
    client.close()


def end_by_refusal(client):
    client.send(b"nonsense\r\n\r\n")
    assert client.read().status == 400
    client.close()


def end_within_a_head(client):
    client.send(b"GET /a.txt HTTP/1.1\r\n")
    client.reset()


def end_within_a_body(client):
    client.send(length_of(1000)[:-500])
    client.reset()


def end_within_an_answer(client):
    client.send_request("GET", "/big")
    client.read_head()
    client.reset()


def end_within_a_program(client):
    client.send_request("GET", "/cgi-bin/stay.sh")
    client.read_head()
    client.reset()


def end_while_refused(client):
    """The server lingers."""
    client.send(length_of(10)[:-10].replace(b" 10", b" 9999999999999"))
    assert client.read().status == 413
    client.send(b"x" * 1000)
    client.reset()


ENDS = [end_by_close, end_by_reset, end_by_half_close, end_by_answer, end_by_refusal, end_within_a_head,
        end_within_a_body, end_within_an_answer, end_within_a_program, end_while_refused]


def test_both_kinds_of_addresses(lab):
    """A client of IPv4 is the same on a socket for both; one of IPv6 is another."""
    server = serve(lab, listen="127.0.0.1:0\nlisten = *:0", max_connections_per_client=2)
    server.wait_listening(2)
    clients = take(server, 1)
    server.port = server.ports[1]
    clients += take(server, 1)
    for server.port in server.ports:
        expect_full(server).close()
    six = [Client(server.port, host="::1") for _ in range(3)]
    for client in six:
        client.host = "a"
    assert [ask(client) for client in six[:2]] == [200, 200]
    assert six[2].read().status == 429
    close(clients + six)


@pytest.mark.parametrize("fronts", [1, 2])
def test_every_end_is_counted_once(lab, fronts):
    server = serve(lab, fronts=fronts, max_connections_per_client=2)
    clients = take(server, 2)
    for end in ENDS:
        for client in clients:
            end(client)
        clients = wait_to_take(server, 2)
        expect_full(server).close()
    close(clients)


def test_those_turned_away_are_not_counted(lab):
    """Neither while they stay nor when they go."""
    server = serve(lab, max_connections_per_client=2)
    clients = take(server, 2)
    away = [expect_full(server) for _ in range(20)]
    clients.pop().close()
    clients += wait_to_take(server, 1)
    away += [expect_full(server) for _ in range(2)]
    for number, client in enumerate(away):
        if number % 2:
            client.reset()
        else:
            client.close()
    assert [ask(client) for client in clients] == [200, 200]
    expect_full(server).close()
    close(clients)


def test_those_turned_away_are_not_in_the_way(lab):
    """Others are served while a client has more connections than all may have together."""
    server = serve(lab, max_connections=10, max_connections_per_client=2)
    clients = take(server, 2)
    away = [Peer(server) for _ in range(30)]
    with Peer(server, "127.0.0.2") as other:
        other.socket.settimeout(2)  # far more than an answer takes, less than the server lingers
        assert ask(other) == 200
    close(clients + away)


def test_those_turned_away_displace_nobody(lab):
    """The idle connections of others stay, however often a client comes that has too many."""
    server = serve(lab, max_connections=20, max_connections_per_client=5)
    idle = take(server, 4, "127.0.0.2")
    greedy = [Peer(server) for _ in range(60)]
    wait_for(lambda: sum(map(has_bytes, greedy)) >= 55, "an answer, or the end, for each")
    assert [ask(client) for client in idle] == [200] * 4
    close(idle + greedy)


def test_turned_away_while_it_sends(lab):
    """The answer is not lost by what the client has sent before it reads."""
    server = serve(lab, max_connections_per_client=1)
    clients = take(server, 1)
    with Peer(server) as client:
        client.send(b"POST /cgi-bin/count HTTP/1.1\r\n" + HOST + b"Content-Length: 20000000\r\n\r\n")
        for _ in range(20):
            client.send(b"x" * 1_000_000)
        client.send(BEHIND)
        expect_refusal(server, client, 429)
    close(clients)


@pytest.mark.parametrize("fronts", [1, 2])
def test_a_crowd_at_once(lab, fronts):
    """Never more than the limit. Two fronts may refuse the last place to two who want it at the same time."""
    server = serve(lab, fronts=fronts, max_connections_per_client=10)
    clients = [Peer(server) for _ in range(60)]
    for client in clients:
        send(client, target_of(7))
    statuses = [client.read().status for client in clients]
    n = statuses.count(200)
    assert n + statuses.count(429) == 60 and (n == 10 if fronts == 1 else 1 <= n <= 10), statuses
    close(clients)
    clients = wait_to_take(server, 10)
    expect_full(server).close()
    close(clients)


def is_there(client):
    try:
        return ask(client) == 200
    except (OSError, Closed):
        return False


@pytest.mark.parametrize("fronts", [1, 2])
def test_a_front_that_crashes_counts_no_more(lab, fronts):
    server = serve(lab, fronts=fronts, max_connections_per_client=6)
    clients = take(server, 6)
    expect_full(server).close()
    victim = max(fronts_of(server, fronts), key=lambda pid: processes.tcp_connections([pid]))
    processes.kill_all([victim])
    wait_for(lambda: len(set(server.fronts()) - {victim}) == fronts, "another front")
    left = [client for client in clients if is_there(client)]
    assert len(left) < 6 and (fronts == 2 or not left)
    again = wait_to_take(server, 6 - len(left))
    expect_full(server).close()
    assert [ask(client) for client in left + again] == [200] * 6
    close(clients + again)


# What programs are told of the length of a body in chunks.

@pytest.fixture(scope="module")
def server(shared_lab):
    return serve(shared_lab, SITE + FASTCGI)


@pytest.fixture
def here(server):
    """A function from a name to a path that no other test uses."""
    number = next(NUMBERS)
    return lambda name: server.lab.here(f"limits-{number}-{name}")


INSPECT = {"/cgi-bin/count": "/cgi-bin/inspect", "/fcgi/": "/inspect/"}


def told(response):
    """The length that inspect.c was told, or None."""
    assert response.status == 200, response
    match = re.search(r"^env CONTENT_LENGTH=(.*)$", response.text, re.M)
    return int(match[1]) if match and match[1] else None


def tally(body):
    return f"length={len(body)} crc={zlib.crc32(body):08x}\n"


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1000, 65_535])
def test_length_of_chunks(server, count, size):
    body = os.urandom(size)
    assert told(server.request("POST", INSPECT[count], body, chunked=True)) == size
    with server.connect() as client:
        assert tally(body) in client.request("POST", count, body, chunked=True).text
        assert client.get("/a.txt").body == b"aaa\n"
        client.expect_nothing()


@BOTH
def test_length_of_chunks_that_come_byte_by_byte(server, count):
    body = chunk(30) + chunk(1) + chunk(20, b";a=b") + b"0\r\nX: y\r\n\r\n"
    for target in (INSPECT[count], count):
        with server.connect() as client:
            send(client, chunked(body, target.encode()), "bytes")
            response = client.read()
            assert tally(b"x" * 51) in response.text if target == count else told(response) == 51
            client.send(target_of(7))
            assert client.read().body == b"aaa\n"


@BOTH
def test_length_is_of_this_request(server, count):
    """What comes behind a body that is held waits for its turn."""
    with server.connect() as client:
        client.send(b"".join(chunked(chunk(n) + LAST, count.encode()) for n in (3, 40, 5)) + target_of(7))
        for n in (3, 40, 5):
            assert tally(b"x" * n) in client.read().text
        assert client.read().body == b"aaa\n"
        client.expect_nothing()


@BOTH
def test_no_length_after_a_pause(server, here, count):
    """The program is started when the client pauses, and gets the rest."""
    with server.connect() as client:
        client.send(chunked(chunk(5), INSPECT[count].encode()))
        assert told(client.read()) is None
    body = os.urandom(300_000)
    with server.connect() as client:
        client.send(chunked(b"3\r\n" + body[:3] + b"\r\n1000\r\n" + body[3:100],
                            f"{count}?echo&started={here('pid')}".encode()))
        server.lab.wait_file(here("pid"))
        client.send(body[100:3 + 4096] + b"\r\n")
        sender = threading.Thread(target=client.send_chunks, args=(body[3 + 4096:],))
        sender.start()
        assert client.read().body == body
        sender.join()
        client.send(target_of(7))
        assert client.read().body == b"aaa\n"


@BOTH
def test_no_length_before_the_first_byte(server, here, count):
    """A client that sends nothing but the head for a while."""
    with server.connect() as client:
        client.send(chunked(b"", f"{count}?started={here('pid')}".encode()))
        server.lab.wait_file(here("pid"))
        client.send(chunk(10) + LAST)
        assert tally(b"x" * 10) in client.read().text


@BOTH
@pytest.mark.parametrize("size", [65_537, 500_000])
def test_no_length_of_what_is_large(server, here, count, size):
    assert told(server.request("POST", INSPECT[count], b"x" * size, chunked=True)) is None
    body = os.urandom(size)
    with server.connect() as client:
        client.send_request("POST", f"{count}?echo&started={here('pid')}", fields=[("Transfer-Encoding", "chunked")])
        client.send(b"%x\r\n" % size + body)
        server.lab.wait_file(here("pid"))
        client.send(b"\r\n" + LAST)
        assert client.read().body == body
        client.expect_nothing()


def test_chunks_of_one_byte(server):
    body = os.urandom(100_000)
    data = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    for count in ("/cgi-bin/count", "/fcgi/"):
        with server.connect() as client:
            client.send(chunked(data + LAST, count.encode()))
            assert tally(body) in client.read().text
            client.expect_nothing()


def test_many_uploads_at_once(server):
    """None gets another's bytes."""
    errors = []

    def work(number):
        try:
            with server.connect() as client:
                for i in range(60):
                    body = (b"%d-%d " % (number, i) * 20_000)[:100_000]
                    target = "/fcgi/?echo" if (number + i) % 3 else "/cgi-bin/count?echo"
                    sender = threading.Thread(target=client.send_request, args=("POST", target, body),
                                              kwargs={"chunked": True})
                    sender.start()
                    response = client.read()
                    sender.join()
                    assert response.status == 200 and response.body == body, (number, i, response)
        except (OSError, Closed, AssertionError) as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def begin_held(client, target):
    """It comes behind another request, whose answer tells that it has been read."""
    client.send(b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n" + chunked(b"10\r\nhalf", target.encode()))
    assert client.read().status == 404


@contextlib.contextmanager
def nothing_left(server):
    """What the server holds is the same before and after, and no program was started."""
    def look():
        return {pid: len(processes.descriptors(pid)) for pid in fronts}

    assert " count=1 " in server.get("/fcgi/").text and told(server.get("/inspect/")) is None  # all is started
    fronts = fronts_of(server)
    wait_for(lambda: processes.tcp_connections(fronts) == 0, "the end of all connections")
    before, tree = look(), sorted(server.tree())
    yield
    wait_for(lambda: processes.tcp_connections(fronts) == 0, "the end of all connections")
    wait_for(lambda: sorted(server.tree()) == tree, "the end of all programs")
    assert look() == before
    assert " count=2 " in server.get("/fcgi/").text


@pytest.mark.parametrize("how", ["close", "reset", "end_sending"])
def test_client_gone_while_its_body_is_held(lab, how):
    server = serve(lab, SITE + FASTCGI)
    with nothing_left(server):
        clients = [server.connect() for _ in range(10)]
        for number, client in enumerate(clients):
            count = "/fcgi/" if number % 2 else "/cgi-bin/count"
            begin_held(client, f"{count}?started={lab.here('started')}")
            getattr(client, how)()
            if how == "end_sending":
                client.expect_close()
                client.close()
    assert not os.path.exists(lab.here("started"))


@pytest.mark.parametrize("data, status", [(b"x" * 12 + b"\r\nxyz\r\n", 400), (b"x" * 12 + b"\r\n" + chunk(1000), 413),
                                          (b"x" * 12 + b"\r\n0\r\n" + b"X: y\r\n" * 20, 431), (b"", 408)],
                         ids=["bad", "too-long", "trailers", "silent"])
def test_refused_while_its_body_is_held(lab, data, status):
    """The program is never started."""
    server = serve(lab, SITE + FASTCGI, max_body="1000", max_trailers="100",
                   body_timeout="100ms" if status == 408 else "10s")
    with nothing_left(server):
        for count in ("/cgi-bin/count", "/fcgi/"):
            with server.connect() as client:
                begin_held(client, f"{count}?started={lab.here('started')}")
                send(client, data + BEHIND if data else b"")
                expect_refusal(server, client, status)
    assert not os.path.exists(lab.here("started"))


@pytest.mark.parametrize("pause", [False, True])
def test_no_room_for_what_was_held(lab, pause):
    server = serve(lab, SITE + "max_running = 1\nqueue = 0\n")
    with server.connect() as running, server.connect() as client:
        running.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        client.send(chunked(chunk(5) + (b"" if pause else LAST)))
        response = client.read()
        assert response.status == 503 and response.get("retry-after", "").isdigit()
        if pause:
            send(client, LAST)
        if not response.closes:
            client.send(target_of(7))
            assert client.read().body == b"aaa\n"
        lab.file("gate.go")
        assert running.read().body == b"through\n"


def test_expectation_of_chunks_is_met_in_turn(lab):
    """Its body is not held: the client is asked for it when the program's turn has come."""
    server = serve(lab, SITE + "max_running = 1\n")
    with server.connect() as running, server.connect() as client:
        running.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        client.send_request("POST", "/cgi-bin/inspect", fields=[("Transfer-Encoding", "chunked"),
                                                                ("Expect", "100-continue")])
        assert server.get("/a.txt").status == 200 and not has_bytes(client)
        lab.file("gate.go")
        assert running.read().body == b"through\n"
        assert client._head().status == 100
        client.send(chunk(5) + LAST)
        assert told(client.read()) is None
