"""Programs whose name begins with "nph-" write the response themselves: every byte, and the connection's end."""

import itertools
import os
import threading

import pytest

from processes import is_alive, wait_for

CONFIG = """
    [site *]
    root = {root}
    [route /cgi/*]
    gateway = cgi
    dir = {cgi}
    [route /one]
    gateway = cgi
    program = {cgi}/nph-echo.sh
    [route /slow/*]
    gateway = cgi
    dir = {cgi}
    timeout = 400ms
"""

SCRIPTS = {
    # The bytes of the file that QUERY_STRING names.
    "nph-say.sh": """
        #!/bin/sh
        exec cat "$QUERY_STRING"
        """,
    "not-nph-say.sh": """
        #!/bin/sh
        exec cat "$QUERY_STRING"
        """,
    "nph-echo.sh": r"""
        #!/bin/sh
        printf 'HTTP/1.0 200 OK\r\nX-Length: %s\r\n\r\n' "$CONTENT_LENGTH"
        exec cat
        """,
    # Waits for QUERY_STRING.go after its first line, and in its body.
    "nph-gate.sh": r"""
        #!/bin/sh
        echo $$ > "$QUERY_STRING.started"
        printf 'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst\n'
        while [ ! -e "$QUERY_STRING.go" ]; do sleep 0.01; done
        printf 'second'
        """,
    "nph-silent.sh": """
        #!/bin/sh
        echo $$ > "$QUERY_STRING"
        exec sleep 1000
        """,
    "nph-much.sh": r"""
        #!/bin/sh
        printf 'HTTP/1.1 200 OK\r\n\r\n'
        head -c 20000000 /dev/zero
        echo over > "$QUERY_STRING"
        """,
    "nph-crash.sh": r"""
        #!/bin/sh
        printf 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartly'
        kill -SEGV $$
        """,
}

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server(shared_lab):
    for name, text in SCRIPTS.items():
        shared_lab.script(name, text)
    return shared_lab.serve(CONFIG)


@pytest.fixture
def here(server):
    """A function from a name to a path that no other test uses."""
    number = next(NUMBERS)
    return lambda name: server.lab.here(f"{number}-{name}")


def everything(client):
    """All bytes until the server ends the connection in good order."""
    data = b""
    while piece := client.socket.recv(262144):
        data += piece
    return data


def head_of(target, method="GET", fields=""):
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


def last_record(server, target):
    """The access log's record of the only request for this."""
    def find():
        return [record for record in server.records() if record["uri"] == target]

    return wait_for(find, f"{target} in the log")[0]


# Bytes.

@pytest.mark.parametrize("text, status", [
    (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nbody", 200),
    (b"HTTP/1.1 404 Not Found\nX-A: 1\nX-A : 2\n folded\n\nbody\0\xff", 404),
    (b"HTTP/1.1 299\r\nContent-Length: 3\r\nConnection: keep-alive\r\nDate: today\r\n\r\nab", 299),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200),
    (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201),
    (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
    (b"HTTP/1.1 204 None\r\n\r\nbut a body", 204),
    (b"HTTP/1.1 200 OK\r\nX-Sendfile: /etc/passwd\r\nLocation: /x\r\nStatus: 500\r\n\r\n", 200),
    (b"HTTP/1.1 200 " + b"x" * 8000 + b"\r\n\r\n", 200),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n" + b"y" * 2_000_000, 200),
], ids=lambda value: repr(value)[2:40] if isinstance(value, bytes) else None)
def test_every_byte_as_it_is(server, here, text, status):
    server.lab.file(here("answer"), text)
    target = f"/cgi/nph-say.sh?{here('answer')}"
    with server.connect() as client:
        client.send(head_of(target) + head_of("/next"))
        assert everything(client) == text
    record = last_record(server, target)
    assert (record["status"], record["bytes_out"], record["exit"]) == (status, len(text), 0)
    assert record["first_ms"] > 0 and record["pid"] > 0
    assert not [record for record in server.records() if record["uri"] == "/next"]


@pytest.mark.parametrize("text", [
    b"", b"\n", b"Content-Type: text/plain\n\nbody", b"Status: 200 OK\n\n", b"HTTP/2 200 OK\n\n", b"HTTP/1.1 20\n\n",
    b"HTTP/1.1 600 No\n\n", b"HTTP/1.1 200OK\n\n", b"hello", b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 " + b"x" * 8200 + b"\n\n", b"x" * 1_000_000], ids=lambda value: repr(value)[2:40])
def test_nonsense_is_502(server, here, text):
    server.lab.file(here("answer"), text)
    with server.connect() as client:
        response = client.get(f"/cgi/nph-say.sh?{here('answer')}")
        assert response.status == 502
        server.wait_log(response.id, "502")
        assert client.get("/nothing").status == 404
    assert server.record(response)["status"] == 502


def test_nonsense_behind_an_interim_response(server, here):
    """If that was sent, it is too late for another answer: it ends visibly."""
    server.lab.script("nph-early.sh", r"""
        #!/bin/sh
        printf 'HTTP/1.1 103 Early Hints\r\n\r\n'
        while [ ! -e "$QUERY_STRING" ]; do sleep 0.01; done
        printf 'hello\n\n'
        """)
    with server.connect() as client:
        client.send_request("GET", f"/cgi/nph-early.sh?{here('go')}")
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += client.socket.recv(4096)
        server.lab.file(here("go"))
        with pytest.raises(ConnectionResetError):
            everything(client)
    server.wait_log("502", "nph-early.sh", "status line")
    server.lab.file(here("answer"), b"HTTP/1.1 103 Early Hints\r\n\r\nhello\n\n")
    assert server.get(f"/cgi/nph-say.sh?{here('answer')}").status == 502


def test_other_names_are_others(server, here):
    server.lab.file(here("answer"), b"Content-Type: text/plain\n\nbody")
    response = server.get(f"/cgi/not-nph-say.sh?{here('answer')}")
    assert (response.status, response.body) == (200, b"body")


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"], ids=["plain", "interim"])
def test_head_request(server, here, interim):
    """The head alone; the program comes to its end."""
    server.lab.script("nph-head.sh", r"""
        #!/bin/sh
        cat "$QUERY_STRING"
        head -c 1000000 /dev/zero
        echo over > "$QUERY_STRING.over"
        """)
    head = interim + b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    server.lab.file(here("head"), head)
    with server.connect() as client:
        client.send(head_of(f"/cgi/nph-head.sh?{here('head')}", "HEAD") + head_of("/next"))
        assert everything(client) == head
    assert server.lab.wait_file(here("head.over")) == "over\n"


# The request's body.

@pytest.mark.parametrize("target", ["/cgi/nph-echo.sh", "/one"])
def test_body(server, target):
    body = bytes(range(256)) * 4000
    with server.connect() as client:
        sender = threading.Thread(target=client.send_request, args=("POST", target, body))
        sender.start()
        assert everything(client) == b"HTTP/1.0 200 OK\r\nX-Length: %d\r\n\r\n" % len(body) + body
        sender.join()


@pytest.mark.parametrize("fields, wrap", [
    ("Content-Length: 100\r\n", lambda inner: inner + b"x" * (100 - len(inner))),
    ("Transfer-Encoding: chunked\r\n", lambda inner: b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)),
], ids=["length", "chunked"])
def test_body_that_nobody_reads_is_no_request(server, here, fields, wrap):
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    server.lab.file(here("answer"), text)
    with server.connect() as client:
        client.send(head_of(f"/cgi/nph-say.sh?{here('answer')}", "POST", fields))
        client.send(wrap(head_of("/smuggled")) + head_of("/next"))
        assert everything(client) == text
    assert not [record for record in server.records() if record["uri"] in ("/smuggled", "/next")]


# Streaming, deadlines, ends.

def test_streaming(server, here):
    with server.connect() as client:
        client.send_request("GET", f"/cgi/nph-gate.sh?{here('gate')}")
        data = b""
        while not data.endswith(b"first\n"):
            data += client.socket.recv(4096)
        server.lab.file(here("gate.go"))
        assert data + everything(client) == b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst\nsecond"


def test_slow_reader(server, here):
    """The program waits until the client reads."""
    with server.connect() as client:
        client.send_request("GET", f"/cgi/nph-much.sh?{here('over')}")
        data = client.socket.recv(4096)
        assert server.get("/cgi/hello.sh").body == b"hello\n"  # others are served meanwhile
        assert not os.path.exists(here("over"))
        data += everything(client)
    assert data == b"HTTP/1.1 200 OK\r\n\r\n" + b"\0" * 20_000_000
    assert server.lab.wait_file(here("over")) == "over\n"


def test_deadline_before_the_answer(server, here):
    with server.connect() as client:
        response = client.get(f"/slow/nph-silent.sh?{here('pid')}")
        assert response.status == 504
        wait_for(lambda: not is_alive(int(server.lab.wait_file(here("pid")))), "the program's end")
        assert client.get("/nothing").status == 404


def test_deadline_within_the_answer(server, here):
    with server.connect() as client:
        client.send_request("GET", f"/slow/nph-gate.sh?{here('gate')}")
        with pytest.raises(ConnectionResetError):
            everything(client)
    server.wait_log("504", "nph-gate.sh")


def test_crash_within_the_answer(server):
    with server.connect() as client:
        client.send_request("GET", "/cgi/nph-crash.sh")
        with pytest.raises(ConnectionResetError):
            everything(client)
    assert last_record(server, "/cgi/nph-crash.sh")["signal"] == "SIGSEGV"


def test_client_gone(server, here):
    client = server.connect()
    client.send_request("GET", f"/cgi/nph-gate.sh?{here('gate')}")
    pid = int(server.lab.wait_file(here("gate.started")))
    client.reset()
    wait_for(lambda: not is_alive(pid), "the program's end")


def test_client_of_http_1_0(server, here):
    text = b"HTTP/1.1 200 OK\r\n\r\nbody"
    server.lab.file(here("answer"), text)
    with server.connect() as client:
        client.send(f"GET /cgi/nph-say.sh?{here('answer')} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
        assert everything(client) == text
