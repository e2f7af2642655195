"""HTTP/1.1 itself: connections, framing, limits, refusals, static files."""

import os
import re
import socket
import time

import pytest

from client import Closed

CONFIG = """
    [site *]
    root = {root}
    index = index.html
    symlinks = beneath

    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}

    [site off.test]
    root = {root}
    symlinks = off

    [site on.test]
    root = {root}
    symlinks = on
"""

BIG = os.urandom(1 << 20) * 10


@pytest.fixture(scope="module")
def server(shared_lab):
    lab = shared_lab
    lab.file("secret.txt", b"canary")
    lab.file("root/index.html", b"<p>the front page\n")
    lab.file("root/a.txt", b"aaa\n")
    lab.file("root/b.txt", b"bbb\n")
    lab.file("root/empty", b"")
    lab.file("root/big", BIG)
    lab.file("root/dir/index.html", b"<p>in a folder\n")
    lab.file("root/bare/file", b"x")
    os.symlink("a.txt", lab.here("root/inside"))
    os.symlink("../secret.txt", lab.here("root/outside"))
    os.symlink("/etc/passwd", lab.here("root/absolute"))
    os.symlink("..", lab.here("root/up"))
    return lab.serve(CONFIG, max_body="1m")


def refused(server, data, *statuses):
    """The bytes get one refusal, and then the end."""
    with server.connect() as client:
        client.send(data)
        response = client.read()
        assert response.status in statuses, response
        assert response.closes
        client.expect_close()
        return response


# Connections.

def test_keep_alive(server):
    with server.connect() as client:
        for _ in range(5):
            assert client.get("/a.txt").body == b"aaa\n"
            assert client.get("/nothing").status == 404
            assert client.request("POST", "/cgi-bin/cat.sh", b"xyz").body == b"xyz"
        client.expect_nothing()


def test_pipelining(server):
    with server.connect() as client:
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n"
                    b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
                    b"GET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [client.read().body for _ in range(3)] == [b"aaa\n", b"xyz", b"bbb\n"]
        client.expect_nothing()


def test_close(server):
    with server.connect() as client:
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                    b"GET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        response = client.read()
        assert response.body == b"aaa\n" and response.closes
        client.expect_close()


def test_http10(server):
    with server.connect() as client:
        client.send(b"GET /a.txt HTTP/1.0\r\n\r\n")
        assert client.read().body == b"aaa\n"
        client.expect_close()
    with server.connect() as client:
        client.send(b"GET /cgi-bin/hello.sh HTTP/1.0\r\n\r\n")
        response = client.read()
        assert response.body == b"hello\n" and response.get("transfer-encoding") is None


@pytest.mark.parametrize("request_bytes, body", [
    (b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", b"aaa\n"),
    (b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"3;x=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n", b"abc0123456789"),
], ids=["get", "length", "chunked"])
def test_byte_by_byte(server, request_bytes, body):
    with server.connect() as client:
        for at in range(len(request_bytes)):
            client.send(request_bytes[at:at + 1])
        assert client.read().body == body
        assert client.get("/a.txt").status == 200


@pytest.mark.parametrize("target, body", [("/big", BIG), ("/cgi-bin/hello.sh", b"hello\n")], ids=["static", "cgi"])
def test_half_close(server, target, body):
    with server.connect() as client:
        client.send_request("GET", target)
        client.end_sending()
        assert client.read().body == body
        client.expect_close()


def test_slow_reader(server):
    """A client that reads a little at a time gets all of it."""
    with server.connect() as client:
        client.send_request("GET", "/big")
        response = client.read_head()
        while len(client.bytes) < 2_000_000:
            client.bytes += client.socket.recv(8000)
        assert b"".join(client.body_pieces(response)) == BIG


def test_idle_connection_is_closed_quietly(lab):
    server = lab.serve("[site *]\nroot = {root}", keepalive_timeout="300ms")
    with server.connect() as client:
        client.get("/")
        client.expect_close()


# Bodies.

@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65536, 1 << 20])
def test_upload(server, chunked, size):
    body = os.urandom(size)
    with server.connect() as client:
        assert client.request("POST", "/cgi-bin/cat.sh", body, chunked=chunked).body == body
        assert client.get("/a.txt").status == 200


def test_refusal_is_read(lab):
    """A client that goes on sending gets to read why it was refused, and no reset."""
    server = lab.serve("[site *]\nroot = {root}", max_body="100k")
    with server.connect() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
        for _ in range(50):
            client.send(b"x" * 100_000)
        assert client.read().status == 413


def test_body_is_no_request(server):
    body = b"GET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n"
    for target in ("/cgi-bin/deaf.sh", "/a.txt", "/nothing"):
        with server.connect() as client:
            client.send_request("POST", target, body)
            response = client.read()
            assert b"bbb" not in response.body
            if not response.closes:
                assert client.get("/a.txt").body == b"aaa\n"


def test_expect_continue(server):
    with server.connect() as client:
        client.send_request("POST", "/cgi-bin/cat.sh", fields=[("Expect", "100-continue"), ("Content-Length", "5")])
        interim = client._head()
        assert interim.status == 100
        client.send(b"hello")
        response = client.read()
        assert (response.status, response.body, response.interim) == (200, b"hello", [])


def test_expect_continue_of_too_much(server):
    with server.connect() as client:
        client.send_request("POST", "/cgi-bin/cat.sh",
                            fields=[("Expect", "100-continue"), ("Content-Length", str(2 << 20))])
        response = client.read()
        assert response.status == 413 and response.interim == [] and response.closes
        client.expect_close()


def test_no_continue_for_http10(server):
    with server.connect() as client:
        client.send(b"POST /cgi-bin/cat.sh HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        response = client.read()
        assert response.body == b"hi" and response.interim == []


def test_too_much_is_413(server):
    refused(server, b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413)
    refused(server, b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 413)


def test_too_much_in_chunks(server):
    """Refused, or if the answer has begun already, visibly cut."""
    with server.connect() as client:
        try:
            client.send_request("POST", "/cgi-bin/cat.sh", os.urandom(2 << 20), chunked=True)
        except OSError:
            pass
        try:
            assert client.read().status == 413
        except Closed:
            pass


def test_refusal_reaches_a_client_that_still_sends(server):
    """The connection is not reset under the answer."""
    with server.connect() as client:
        client.send(b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
        try:
            for _ in range(8):
                client.send(b"x" * 1_000_000)
        except OSError:
            pass
        assert client.read().status == 413


# Heads.

HOST = b"Host: a\r\n"


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"nocolon\r\n\r\n",
    b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc",
    b"POST /cgi-bin/cat.sh HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /cgi-bin/cat.sh HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
])
def test_bad_head(server, data):
    refused(server, data + b"GET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400)


@pytest.mark.parametrize("chunks", [b"5 x\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"-1\r\n\r\n", b"\r\n",
                                    b"5\nhello\n0\n\n", b"00000000000000005\r\nhello\r\n0\r\n\r\n"])
def test_bad_chunks(server, chunks):
    with server.connect() as client:
        client.send(b"POST /cgi-bin/cat.sh HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks +
                    b"GET /b.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            response = client.read()
            assert response.status == 400 and response.closes
        except Closed:
            pass  # the answer had begun: it is cut
        else:
            client.expect_close()


@pytest.mark.parametrize("data, status", [
    (b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 2000 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(101)) + b"\r\n", 431),
], ids=["unknown", "lower-case", "version", "target", "one-field", "many-fields", "101-fields"])
def test_refused_head(server, data, status):
    with server.connect() as client:
        try:
            client.send(data)
        except OSError:
            pass
        assert client.read().status == status
        client.expect_close()


def test_long_target_is_fine(server):
    response = server.get("/a.txt?" + "x" * 8000)
    assert response.body == b"aaa\n"


@pytest.mark.parametrize("head", [b"", b"GET /a.txt HTTP/1.1\r\nHost: a\r\n", b"GET"])
def test_slow_head(lab, head):
    server = lab.serve("[site *]\nroot = {root}", header_timeout="300ms")
    with server.connect() as client:
        client.send(head)
        try:
            response = client.read()
            assert response.status == 408 and response.closes
            client.expect_close()
        except Closed:
            assert head == b""  # nothing was asked: nothing needs to be said


def test_drip(lab):
    """One byte now and then does not move the deadline of the head."""
    server = lab.serve("[site *]\nroot = {root}", header_timeout="500ms")
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        client.socket.settimeout(0.05)
        data = b""
        for _ in range(300):
            try:
                client.send(b"x")
                data = client.socket.recv(100)
                break
            except TimeoutError:
                continue
        assert b" 408 " in data


def test_slow_body(lab):
    server = lab.serve("[site *]\nroot = {root}\n[route /cgi-bin/*]\ngateway = cgi\ndir = {cgi}", body_timeout="300ms")
    started = lab.here("started")
    with server.connect() as client:
        client.send(b"POST /cgi-bin/count?started=%b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello" %
                    started.encode())
        try:
            assert client.read().status == 408
        except Closed:
            pass
        client.expect_close()


# Methods.

def test_head(server):
    for target, status in (("/a.txt", 200), ("/", 200), ("/nothing", 404), ("/cgi-bin/hello.sh", 200), ("/dir", None)):
        with server.connect() as client:
            get, head = client.get(target), client.request("HEAD", target)
            assert head.status == get.status and status in (head.status, None)
            assert head.body == b""
            ignored = {"date", "x-request-id", "server-timing", "transfer-encoding", "content-length"}
            assert [field for field in head.fields if field[0] not in ignored] == \
                [field for field in get.fields if field[0] not in ignored]
            if "cgi" not in target:
                assert head.get("content-length") == get.get("content-length")
            client.expect_nothing()


def test_methods_of_files(server):
    for method in ("POST", "PUT", "DELETE"):
        response = server.request(method, "/a.txt", b"x")
        assert response.status == 405
        assert {"GET", "HEAD"} <= set(re.split(r"\s*,\s*", response.get("allow")))
    response = server.request("TRACE", "/a.txt", fields=[("Cookie", "secret=1")])
    assert response.status in (405, 501) and b"secret" not in response.body
    response = server.request("OPTIONS", "*")
    assert response.status in (200, 204) and response.body == b""


# Files.

def test_files(server):
    response = server.get("/")
    assert response.body == b"<p>the front page\n"
    assert response.get("content-type") == "text/html; charset=utf-8"
    assert server.get("/empty").body == b"" and server.get("/empty").get("content-length") == "0"
    assert server.get("/big").body == BIG
    assert server.get("/dir/").body == b"<p>in a folder\n"
    assert server.get("/a%2Etxt?query").body == b"aaa\n"
    assert server.get("/./dir/../a.txt").status in (200, 400)
    assert server.get("http://else.test/a.txt").body == b"aaa\n"
    assert server.get("/a.txt/").status == 404
    assert server.get("/a.txt/more").status == 404
    assert server.get("/bare/").status in (403, 404)


def test_redirect_to_slash(server):
    response = server.get("/dir?x=1")
    assert response.status in (301, 308)
    assert response.get("location") in ("/dir/?x=1", f"http://127.0.0.1:{server.port}/dir/?x=1")


def test_validators(server):
    with server.connect() as client:
        first = client.get("/a.txt")
        tag, modified = first.get("etag"), first.get("last-modified")
        assert tag and modified
        for fields in ([("If-None-Match", tag)], [("If-None-Match", f'"x", {tag}')], [("If-None-Match", "*")],
                       [("If-Modified-Since", modified)],
                       [("If-None-Match", tag), ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]):
            response = client.get("/a.txt", fields=fields)
            assert response.status == 304 and response.body == b"", fields
            assert response.get("etag") == tag
        for fields in ([("If-None-Match", '"x"')], [("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")],
                       [("If-None-Match", '"x"'), ("If-Modified-Since", modified)],
                       [("If-Modified-Since", "nonsense")]):
            assert client.get("/a.txt", fields=fields).status == 200, fields
        client.expect_nothing()


@pytest.mark.parametrize("target", [
    "/../secret.txt", "/dir/../../secret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/..%2fsecret.txt",
    "/.%2e/secret.txt", "/dir/..%2f..%2fsecret.txt", "/%252e%252e/secret.txt", "/..%5csecret.txt", "/..;/secret.txt",
    "/%c0%ae%c0%ae/secret.txt", "/cgi-bin/../../secret.txt", "/cgi-bin/..%2f..%2fsecret.txt", "//../secret.txt",
    "/cgi-bin/%2e%2e/secret.txt", "/cgi-bin/../secret.txt", "/a.txt%00.html", "/dir/%2e%2e/%2e%2e/secret.txt",
])
def test_nothing_above_the_root(server, target):
    with server.connect() as client:
        response = client.get(target)
        assert response.status in (400, 403, 404), response
        assert b"canary" not in response.body


@pytest.mark.parametrize("host, target, statuses", [
    ("a", "/inside", [200]), ("a", "/outside", [403, 404]), ("a", "/absolute", [403, 404]),
    ("a", "/up/secret.txt", [403, 404]),
    ("off.test", "/a.txt", [200]), ("off.test", "/inside", [403, 404]), ("off.test", "/outside", [403, 404]),
    ("on.test", "/inside", [200]), ("on.test", "/outside", [200]), ("on.test:8080", "/up/secret.txt", [200]),
])
def test_symlinks(server, host, target, statuses):
    response = server.get(target, host=host)
    assert response.status in statuses
    if 200 in statuses:
        assert response.body == (b"aaa\n" if target == "/inside" or target == "/a.txt" else b"canary")


def test_names_in_redirects_are_encoded(server):
    os.makedirs(server.lab.here("root/line\r\nX-Injected: 1"), exist_ok=True)
    with server.connect() as client:
        response = client.get("/line%0d%0aX-Injected:%201")
        assert response.get("x-injected") is None
        assert response.status in (301, 308, 400, 403, 404)


def test_every_answer_has_an_id_of_its_own(server):
    ids = {server.get(target).id for target in ["/", "/a.txt", "/nothing", "/cgi-bin/hello.sh"] * 3}
    assert len(ids) == 12


def test_addresses(lab):
    """Every listen line has its socket, and both fronts serve."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    server = lab.serve("[site *]\nroot = {root}", listen=f"127.0.0.1:0\nlisten = 127.0.0.1:{free}", fronts=2)
    server.wait_listening(2)
    lab.file("root/x", b"x")
    for port in server.ports:
        server.port = port
        assert server.get("/x").body == b"x"


def test_many_connections(server):
    """Idle ones do not stand in the way of others."""
    idle = [server.connect() for _ in range(200)]
    for client in idle[::2]:
        client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n")
    deadline = time.monotonic() + 20
    for _ in range(20):
        assert server.get("/a.txt").body == b"aaa\n"
    assert time.monotonic() < deadline
    for client in idle[::2]:
        client.send(b"\r\n")
        assert client.read().body == b"aaa\n"
    for client in idle:
        client.close()
