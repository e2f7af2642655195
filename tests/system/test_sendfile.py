"""X-Sendfile: a program names a file, and the server sends it: what goes along, conditions and ranges, which files."""

import contextlib
import itertools
import os
import re
import socket

import pytest

import processes
from client import Closed
from processes import wait_for

CONFIG = """
    [site *]
    root = {root}
    [route /cgi/*]
    gateway = cgi
    dir = {cgi}
    sendfile_dir = {path}/files
    sendfile_dir = {path}/more files
    [route /fcgi]
    gateway = fastcgi
    pool = say
    sendfile_dir = {path}/files
    sendfile_dir = {path}/more files
    [route /plain/*]
    gateway = cgi
    dir = {cgi}
    [route /source/*]
    gateway = cgi
    dir = {cgi}
    sendfile_dir = {cgi}
    [pool say]
    command = {path}/say.py
    pm = static
    pm.max_children = 2
"""

# Answers with the bytes of the file that QUERY_STRING names, over FastCGI.
SAY = '''#!/usr/bin/python3
import socket
import struct


def read_value(data, at):
    if data[at] < 128:
        return data[at], at + 1
    return struct.unpack_from("!I", data, at)[0] & 0x7fffffff, at + 4


def variables(data):
    at, found = 0, {}
    while at < len(data):
        name_len, at = read_value(data, at)
        value_len, at = read_value(data, at)
        found[data[at:at + name_len]] = data[at + name_len:at + name_len + value_len]
        at += name_len + value_len
    return found


def serve(stream):
    params = b""
    while head := stream.read(8):
        kind, number, length, padding = struct.unpack("!xBHHBx", head)
        content = stream.read(length + padding)[:length]
        if kind == 4:
            params += content
        if kind != 5 or content:
            continue
        with open(variables(params)[b"QUERY_STRING"], "rb") as file:
            while piece := file.read(32768):
                stream.write(struct.pack("!BBHHBx", 1, 6, number, len(piece), 0) + piece)
        stream.write(struct.pack("!BBHHBxIB3x", 1, 3, number, 8, 0, 0, 0))
        stream.flush()
        params = b""


listener = socket.socket(fileno=0)
while True:
    connection, _ = listener.accept()
    try:
        serve(connection.makefile("rwb"))
    except OSError:
        pass
    connection.close()
'''

NUMBERS = itertools.count(1)
LARGE = bytes(range(256)) * 2000
PAST = 1_600_000_000
DATE = "Sun, 13 Sep 2020 12:26:40 GMT"

BOTH = pytest.mark.parametrize("way", ["/cgi/say.sh", "/fcgi"], ids=["cgi", "fastcgi"])


def put(lab, name, content):
    path = lab.file(name, content)
    os.utime(path, (PAST, PAST))
    return path


def make_files(lab):
    put(lab, "files/small.txt", b"0123456789")
    put(lab, "files/empty.html", b"")
    put(lab, "files/large.bin", LARGE)
    put(lab, "files/deep/er/page.html", b"<p>")
    put(lab, "files/a b%20\xe9.pdf".encode("latin-1").decode("utf-8", "surrogateescape"), b"%PDF")
    put(lab, "more files/second.txt", b"second")
    put(lab, "files-of-others/secret.txt", b"secret")
    put(lab, "secret.txt", b"secret")
    os.symlink("small.txt", lab.here("files/inside"))
    os.symlink("../secret.txt", lab.here("files/outside"))
    os.symlink(lab.here("files/small.txt"), lab.here("files/absolute"))
    os.symlink("..", lab.here("files/up"))
    os.symlink("nothing", lab.here("files/dangling"))
    os.mkfifo(lab.here("files/fifo"))
    lab.file("say.py", SAY, 0o755)


@pytest.fixture(scope="module")
def server(shared_lab):
    make_files(shared_lab)
    return shared_lab.serve(CONFIG)


@pytest.fixture
def here(server):
    """A function from a name to a path that no other test uses."""
    number = next(NUMBERS)
    return lambda name: server.lab.here(f"{number}-{name}")


def say(server, way, text, method="GET", body=None, fields=()):
    """The answer when a program writes that; {path} is the lab's. The connection goes on."""
    path = server.lab.here(f"answer-{next(NUMBERS)}")
    server.lab.file(path, text.replace("{path}", server.lab.path).encode("utf-8", "surrogateescape"))
    with server.connect() as client:
        response = client.request(method, f"{way}?{path}", body, fields=fields)
        client.expect_nothing()
        assert client.get("/nothing").status == 404
    assert response.get("x-sendfile") is None
    return response


def open_files(server):
    """What the front has open below the lab."""
    front, = server.fronts()
    return [target for target in processes.descriptors(front).values()
            if "/files" in target or "/more files" in target]


# What goes along.

@BOTH
def test_whole_file(server, way):
    response = say(server, way, "Status: 200 Here\nContent-Type: text/x-own; a=b\nContent-Length: 3\nSet-Cookie: a=1\n"
                                "Set-Cookie: b=2\nContent-Disposition: attachment\nX-Sendfile: {path}/files/small.txt\n"
                                "Cache-Control: private\n\nbody of the program")
    assert (response.status, response.reason, response.body) == (200, "Here", b"0123456789")
    assert response.get("content-type") == "text/x-own; a=b"
    assert response.get("content-length") == "10"
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert response.get("content-disposition") == "attachment" and response.get("cache-control") == "private"
    assert response.get("last-modified") == DATE
    assert re.fullmatch(r'"[^"]+"', response.get("etag"))
    assert response.get("accept-ranges") == "bytes"
    assert not open_files(server)


@BOTH
@pytest.mark.parametrize("name, type_, body", [
    ("empty.html", "text/html; charset=utf-8", b""), ("large.bin", "application/octet-stream", LARGE),
    ("deep/er/page.html", "text/html; charset=utf-8", b"<p>"), ("a b%20\udce9.pdf", "application/pdf", b"%PDF"),
    ("inside", "application/octet-stream", b"0123456789")])
def test_type_is_by_the_name(server, way, name, type_, body):
    for text in (f"X-Sendfile: {{path}}/files/{name}\n\n", f"X-Sendfile: {name}\nContent-Type:\n\n"):
        response = say(server, way, text)
        assert (response.status, response.get("content-type"), response.body) == (200, type_, body)


@pytest.mark.parametrize("path, status", [
    ("{path}/files//small.txt", 200), ("./small.txt", 200), ("{path}/files/./small.txt", 200),
    ("{path}/files/deep/../small.txt", 403), ("{path}/./files/small.txt", 403), ("{path}//files/small.txt", 403)])
def test_odd_names(server, path, status):
    """Only what is behind the directory's own name is looked up."""
    assert say(server, "/cgi/say.sh", f"X-Sendfile: {path}\n\n").status == status


def test_second_directory(server):
    assert say(server, "/cgi/say.sh", "X-Sendfile: {path}/more files/second.txt\n\n").body == b"second"


@BOTH
def test_record(server, way):
    response = say(server, way, "X-Sendfile: small.txt\n\n", fields=[("Range", "bytes=0-3")])
    record = server.record(response)
    assert (record["status"], record["gateway"]) == (206, "cgi" if "cgi/" in way else "fastcgi")
    assert record["pid"] > 0 and record["exit"] == 0 and record["first_ms"] > 0
    response = say(server, way, "X-Sendfile: small.txt\n\n", fields=[("Range", "bytes=0-1,4-5")])
    record = server.record(response)
    assert record["status"] == 206 and record["exit"] == 0 and record["bytes_out"] > 4


def test_interim_head_has_none(server):
    response = say(server, "/cgi/say.sh", "Status: 103 Early Hints\nLink: </a>\nX-Sendfile: secret\n\n"
                                          "Content-Type: a/b\n\nx")
    assert [(interim.status, interim.fields) for interim in response.interim] == [(103, [("link", "</a>")])]
    assert (response.status, response.body) == (200, b"x")


# Conditions and ranges.

@BOTH
def test_ranges(server, way):
    for sent, status, field, body in (
            ("bytes=0-3", 206, "bytes 0-3/10", b"0123"), ("bytes=-2", 206, "bytes 8-9/10", b"89"),
            ("bytes=5-", 206, "bytes 5-9/10", b"56789"), ("bytes=10-", 416, "bytes */10", None),
            ("bytes=x", 200, None, b"0123456789"), ("lines=1-2", 200, None, b"0123456789")):
        response = say(server, way, "Content-Type: a/b\nX-Own: 1\nX-Sendfile: small.txt\n"
                                    "Content-Range: bytes 1-2/3\n\n", fields=[("Range", sent)])
        assert (response.status, response.get("content-range")) == (status, field), sent
        if body is not None:
            assert (response.body, response.get("content-type"), response.get("x-own")) == (body, "a/b", "1")


@BOTH
def test_several_ranges(server, way):
    response = say(server, way, "Content-Type: a/b\nX-Own: 1\nX-Sendfile: large.bin\n\n",
                   fields=[("Range", "bytes=0-1,400000-499999,-2")])
    assert response.status == 206 and response.get("x-own") == "1"
    boundary = re.fullmatch("multipart/byteranges; boundary=(.+)", response.get("content-type"))[1].encode()
    parts = response.body.split(b"--" + boundary)
    heads, bodies = zip(*(part.strip(b"\r\n").split(b"\r\n\r\n", 1) if part != parts[2] else
                          part[2:-2].split(b"\r\n\r\n", 1) for part in parts[1:-1]))
    assert bodies[1] == LARGE[400000:500000]
    assert all(head.startswith(b"Content-Type: a/b\r\nContent-Range: bytes ") for head in heads)
    assert not open_files(server)


@pytest.mark.parametrize("method, text", [
    ("HEAD", "X-Sendfile: small.txt\n\n"), ("POST", "X-Sendfile: small.txt\n\n"),
    ("GET", "Status: 404 Gone\nX-Sendfile: small.txt\n\n"), ("GET", "Accept-Ranges: none\nX-Sendfile: small.txt\n\n"),
    ("GET", "Status: 201\nETag: \"x\"\nX-Sendfile: small.txt\n\n")])
def test_no_ranges(server, method, text):
    response = say(server, "/cgi/say.sh", text, method, b"body" if method == "POST" else None,
                   fields=[("Range", "bytes=0-1"), ("If-None-Match", '"x"')])
    assert response.status == (int(text[8:11]) if text.startswith("Status") else 200)
    assert response.get("content-length") == "10"
    assert response.body == (b"" if method == "HEAD" else b"0123456789")
    assert response.get("content-type") == "text/plain; charset=utf-8"


@BOTH
def test_conditions_by_the_file(server, way):
    text = "Content-Type: a/b\nContent-Disposition: inline\nSet-Cookie: a=1\nX-Sendfile: small.txt\n\nbody"
    etag = say(server, way, text).get("etag")
    for fields, status in (
            ([("If-None-Match", etag)], 304), ([("If-None-Match", '"other"')], 200), ([("If-Match", '"other"')], 412),
            ([("If-Modified-Since", DATE)], 304), ([("If-Unmodified-Since", DATE)], 200),
            ([("Range", "bytes=0-0"), ("If-Range", etag)], 206), ([("Range", "bytes=0-0"), ("If-Range", '"x"')], 200)):
        response = say(server, way, text, fields=fields)
        assert response.status == status, fields
        if status == 304:
            assert (response.body, response.get("etag"), response.get("set-cookie")) == (b"", etag, "a=1")
            assert response.get("content-type") is None and response.get("content-disposition") is None
    assert not open_files(server)


@BOTH
def test_conditions_by_the_program(server, way):
    date = "Tue, 01 Jan 2019 00:00:00 GMT"
    text = f'ETag: "v1"\nLast-Modified: {date}\nContent-Type: a/b\nX-Sendfile: small.txt\n\n'
    for fields, status in (
            ([], 200), ([("If-None-Match", '"v1"')], 304), ([("If-None-Match", 'W/"v1"')], 304),
            ([("If-Modified-Since", date)], 304), ([("If-Unmodified-Since", date)], 200),
            ([("If-Modified-Since", "Mon, 31 Dec 2018 23:59:59 GMT")], 200),
            ([("Range", "bytes=0-0"), ("If-Range", '"v1"')], 206), ([("Range", "bytes=0-0"), ("If-Range", date)], 206)):
        response = say(server, way, text, fields=fields)
        assert response.status == status, fields
        assert response.all("etag") == ['"v1"'] and response.all("last-modified") == [date]


def test_a_date_that_is_none(server):
    response = say(server, "/cgi/say.sh", "Last-Modified: yesterday\nETag:\nX-Sendfile: small.txt\n\n")
    assert response.all("last-modified") == [DATE] and re.fullmatch(r'"[^"]+"', response.get("etag"))


# Which files.

@BOTH
@pytest.mark.parametrize("path, status, words", [
    ("{path}/secret.txt", 403, "sendfile_dir"), ("{path}/files-of-others/secret.txt", 403, "sendfile_dir"),
    ("../secret.txt", 403, "sendfile_dir"), ("{path}/files/../secret.txt", 403, "sendfile_dir"),
    ("outside", 403, "sendfile_dir"), ("absolute", 403, "sendfile_dir"), ("up/secret.txt", 403, "sendfile_dir"),
    ("/etc/passwd", 403, "sendfile_dir"), ("{path}/files", 403, "no regular file"),
    ("{path}/files/", 403, "no regular file"), ("deep", 403, "no regular file"), ("fifo", 403, "no regular file"),
    ("nothing", 404, "is not there"), ("dangling", 404, "is not there"), ("small.txt/x", 404, "is not there"),
    ("{path}/files/second.txt", 404, "is not there"), ("x" * 300, 404, "is not there"),
    ("x/" * 4000, 404, "is not there")], ids=lambda value: str(value)[:30])
def test_files_that_are_not_given_out(server, way, path, status, words):
    response = say(server, way, f"Content-Type: a/b\nSet-Cookie: a=1\nX-Sendfile: {path}\n\nbody")
    assert response.status == status
    assert b"secret" not in response.body and response.get("set-cookie") is None
    line = server.wait_log(response.id, "X-Sendfile")
    assert path.replace("{path}", server.lab.path)[:1000] in line and words in line
    assert not open_files(server)


def test_a_source_in_an_allowed_directory(server):
    response = say(server, "/source/say.sh", "X-Sendfile: hello.sh\n\n")
    with open(os.path.join(server.lab.cgi, "hello.sh"), "rb") as file:
        assert response.body == file.read()


def test_route_without_a_directory(server):
    response = say(server, "/plain/say.sh", "Content-Type: a/b\nX-Sendfile: {path}/files/small.txt\n\nits own")
    assert (response.status, response.get("content-type"), response.body) == (200, "a/b", b"its own")
    assert "sendfile_dir" in server.wait_log(response.id, "X-Sendfile", "/plain/*")
    response = say(server, "/plain/say.sh", "X-Sendfile: {path}/files/small.txt\n\nits own")
    assert response.status == 502


@BOTH
@pytest.mark.parametrize("text", ["X-Sendfile:\nContent-Type: a/b\n\n", "X-Sendfile: \t\nContent-Type: a/b\n\n",
                                  "X-Sendfile: small\t.txt\n\n", "X-Sendfile: small.txt\0\n\n",
                                  "X-Sendfile: small.txt\nX-Sendfile: large.bin\n\n"])
def test_nonsense(server, way, text):
    response = say(server, way, text)
    assert response.status == 502
    server.wait_log(response.id)


# Ends.

def test_program_comes_to_its_end(server, here):
    """What it writes behind its head is read and thrown away, and its input ends."""
    server.lab.script("writer.sh", r"""
        #!/bin/sh
        printf 'X-Sendfile: small.txt\n\n'
        head -c 2000000 /dev/zero
        cat > /dev/null
        echo over > "$QUERY_STRING"
        """)
    with server.connect() as client:
        client.send(f"POST /cgi/writer.sh?{here('over')} HTTP/1.1\r\nHost: a\r\n"
                    "Content-Length: 10\r\n\r\n12345".encode())
        response = client.read()
        assert (response.status, response.body) == (200, b"0123456789")
        client.expect_close()
    assert server.lab.wait_file(here("over")) == "over\n"
    assert server.record(response)["exit"] == 0


@pytest.mark.parametrize("fields", [[], [("Range", "bytes=0-20000000,30000000-60000000")]], ids=["whole", "ranges"])
def test_client_gone(server, here, fields):
    path = server.lab.file("files/huge.bin")
    os.truncate(path, 80_000_000)
    server.lab.file(here("answer"), "X-Sendfile: huge.bin\n\n")
    with server.connect() as client:
        client.send_request("GET", f"/cgi/say.sh?{here('answer')}", fields=fields)
        response = client.read_head()
        assert response.status == (206 if fields else 200)
        assert open_files(server) == [path]
        client.reset()
    wait_for(lambda: not open_files(server), "the file to be closed")
    assert server.record(response)["bytes_out"] < 60_000_000


def test_file_that_becomes_shorter(server, here):
    """What was announced cannot be kept: visible."""
    path = server.lab.file("files/shrinking.bin")
    os.truncate(path, 80_000_000)
    server.lab.file(here("answer"), "X-Sendfile: shrinking.bin\n\n")
    with server.connect() as client:
        client.send_request("GET", f"/cgi/say.sh?{here('answer')}")
        response = client.read_head()
        os.truncate(path, 1000)
        with pytest.raises(Closed):
            for _ in client.body_pieces(response):
                pass
    wait_for(lambda: not open_files(server), "the file to be closed")


def test_refused_body_amid_ranges(lab):
    """The file that is being sent is closed: nothing of another that is opened then goes to this client."""
    lab.file("files/big.bin", b"A" * (32 << 20))
    lab.file("root/other.bin", b"OTHER" * (7 << 20))
    lab.script("early.sh", "#!/bin/sh\nhead -c 4 >/dev/null\nprintf 'Content-Type: a/b\\nX-Sendfile: big.bin\\n\\n'\n")
    server = lab.serve("""
        [site *]
        root = {root}
        [route /cgi/*]
        gateway = cgi
        dir = {cgi}
        request_buffering = off
        sendfile_dir = {path}/files
        """)
    with server.connect() as client, contextlib.ExitStack() as others:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.send(b"GET /cgi/early.sh HTTP/1.1\r\nHost: a\r\nRange: bytes=0-15000000,16000000-31000000\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        assert client.read_head().status == 206
        client.send(b"no chunk\r\n")
        for _ in range(4):
            other = others.enter_context(server.connect())
            other.send_request("GET", "/other.bin")
            assert other.read_head().status == 200
        seen = client.bytes
        with contextlib.suppress(ConnectionResetError):
            while data := client.socket.recv(1 << 20):
                seen += data
        assert b"OTHER" not in seen and len(seen) < 31_000_000
