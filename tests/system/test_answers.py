"""What a program's answer becomes: what must be said once, what is ours to say, lengths that are not kept."""

import itertools

import pytest

from client import Closed

CONFIG = """
    [site *]
    root = {root}
    [route /cgi/*]
    gateway = cgi
    dir = {cgi}
"""

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server(shared_lab):
    return shared_lab.serve(CONFIG)


@pytest.fixture
def ask(server):
    """The answer when a program writes these bytes; the connection must be of use afterwards."""
    path = server.lab.here(f"answer-{next(NUMBERS)}")

    def ask(text, method="GET"):
        server.lab.file(path, text)
        with server.connect() as client:
            response = client.request(method, f"/cgi/say.sh?{path}")
            client.expect_nothing()
            assert client.get("/cgi/hello.sh").body == b"hello\n"
            return response

    return ask


def test_two_types(server, ask):
    response = ask(b"Content-Type: a/b\nContent-Type: a/c\n\nx")
    assert response.status == 502
    assert "two different Content-Types" in server.wait_log(response.id)
    assert ask(b"Content-Type: a/b\nContent-Type: a/b\n\nx").all("content-type") == ["a/b"]


def test_request_id_is_ours(server, ask):
    response = ask(b"Content-Type: a/b\nX-Request-Id: mine\nServer: mine\nDate: mine\n\nx")
    assert len(response.all("x-request-id")) == 1 and server.record(response)["status"] == 200
    assert response.all("server") == ["gatehouse"] and len(response.all("date")) == 1


@pytest.mark.parametrize("text", [b"Status: 205\n\n", b"Status: 205 Reset\nContent-Length: 4\n\nbody",
                                  b"Status: 205\nContent-Type: a/b\n\nbody",
                                  b"Status: 205\nTransfer-Encoding: chunked\n\n4\r\nbody\r\n0\r\n\r\n"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reset_content_has_none(ask, text, method):
    response = ask(text, method)
    assert (response.status, response.body) == (205, b"")
    assert response.get("content-length") == "0" and response.get("transfer-encoding") is None


def test_interim_responses(server, ask):
    """All but 100 (Continue) go to the client, with their fields; what is ours or of the hop to us does not."""
    response = ask(b"Status: 100 Continue\nX-No: 1\n\nStatus: 102 Processing\n\n"
                   b"HTTP/1.1 103 Early Hints\nLink: </a>\nConnection: X-Hop\nX-Hop: 1\nDate: mine\n\n"
                   b"Status: 201\nContent-Type: a/b\n\nx")
    assert [(interim.status, interim.fields) for interim in response.interim] == [(102, []), (103, [("link", "</a>")])]
    assert (response.status, response.body) == (201, b"x")
    response = ask(b"Status: 103 Early Hints\n\n" * 9 + b"Content-Type: a/b\n\nx")
    assert (response.status, len(response.interim)) == (502, 8)
    assert "more than 8 interim" in server.wait_log(response.id)
    assert ask(b"Status: 103 Early Hints\n\n").status == 502


def test_more_than_its_length(server, ask):
    response = ask(b"Content-Type: a/b\nContent-Length: 3\n\nabcdef")
    assert response.body == b"abc"
    assert "more than its Content-Length" in server.wait_log(response.id)


def test_less_than_its_length(server, ask):
    with pytest.raises(Closed):
        ask(b"Content-Type: a/b\nContent-Length: 10\n\nabc")
    server.wait_log("502", "7 bytes short of its Content-Length")


@pytest.mark.parametrize("text, words", [
    (b"Content-Type: a/b\nX: " + b"x" * 70_000, "65536 bytes"),
    (b"Content-Type: a/b\n" + b"X: x\n" * 300 + b"\n", "256 fields"),
    (b"Content-Type: a/b\n" + b"Connection: x\n" * 40 + b"\n", "32 options")])
def test_limits_are_named(server, ask, text, words):
    response = ask(text)
    assert response.status == 502
    assert words in server.wait_log(response.id)
