"""request_buffering: when a program starts, given its request's body; where what is held of the body is."""

import contextlib
import os
import resource
import select
import threading
import zlib

import pytest

import processes
from processes import wait_for
from server import is_sanitized

CONFIG = """
    [site *]
    root = {root}
    [route /cgi/on/*]
    gateway = cgi
    dir = {cgi}
    request_buffering = on
    [route /cgi/off/*]
    gateway = cgi
    dir = {cgi}
    request_buffering = off
    [route /cgi/auto/*]
    gateway = cgi
    dir = {cgi}
    [route /cgi/short/*]
    gateway = cgi
    dir = {cgi}
    request_buffering = on
    timeout = 400ms
    [route /cgi/one/*]
    gateway = cgi
    dir = {cgi}
    request_buffering = on
    max_running = 1
    queue = 10
    [route /fcgi/on/*]
    gateway = fastcgi
    pool = count
    request_buffering = on
    [route /fcgi/off/*]
    gateway = fastcgi
    pool = count
    request_buffering = off
    [route *.app]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 3
"""

BOTH = pytest.mark.parametrize("count", ["/cgi/{}/count", "/fcgi/{}/count"], ids=["cgi", "fastcgi"])
FRAMED = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])

MEGABYTE = 1 << 20


def serve(lab, **keys):
    os.makedirs(lab.here("held"), exist_ok=True)
    return lab.serve(CONFIG, temp_dir=lab.here("held"), **keys)


def held_files(server):
    """Descriptors of the front for files that are in its directory and have no name."""
    front, = server.fronts()
    return [target for target in processes.descriptors(front).values()
            if target.startswith(server.lab.here("held")) and target.endswith("(deleted)")]


def begin(client, target, length=None, fields=""):
    """A request's head; its body has this length, or is in chunks."""
    framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    client.send(f"POST {target} HTTP/1.1\r\nHost: a\r\n{framing}\r\n{fields}\r\n".encode())


def part(chunked, data):
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked else data


def wait_taken(server, client):
    """Returns when the server has taken all that was sent."""
    ends = {f"{client.socket.getsockname()[1]:04X}", f"{server.port:04X}"}  # others may have one of them, too

    def is_taken():
        lines = [line.split() for line in processes.read("/proc/net/tcp").splitlines()[1:]]
        return all(line[4] == "00000000:00000000" for line in lines
                   if {line[1].rpartition(":")[2], line[2].rpartition(":")[2]} == ends)

    wait_for(is_taken, "what was sent to be taken")
    assert server.get("/nothing").status == 404  # and one turn of its loop more


# The whole body comes first.

@BOTH
@FRAMED
@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 200_000, 3 * MEGABYTE + 1])
def test_body_is_whole(shared_lab, shared, count, chunked, size):
    body = os.urandom(size)
    with shared.connect() as client:
        response = client.request("POST", count.format("on"), body, chunked=chunked)
        assert f"length={size} crc={zlib.crc32(body):08x}\n" in response.text
        assert client.request("POST", count.format("on") + "?echo", body, chunked=chunked).body == body
        client.expect_nothing()
    assert not held_files(shared) and not os.listdir(shared_lab.here("held"))


@pytest.fixture(scope="module")
def shared(shared_lab):
    shared_lab.script("length.sh", r"""
        #!/bin/sh
        printf 'Content-Type: text/plain\n\n%s %s' "$CONTENT_LENGTH" "$(wc -c)"
        """)
    return serve(shared_lab)


@FRAMED
@pytest.mark.parametrize("size", [0, 5, 70_000])
def test_length_is_told(shared, chunked, size):
    response = shared.request("POST", "/cgi/on/length.sh", b"x" * size, chunked=chunked)
    assert response.text.split() == [str(size), str(size)]


@BOTH
@FRAMED
@pytest.mark.parametrize("size", [1000, 200_000], ids=["memory", "file"])
def test_nothing_starts_before_the_body_is_whole(lab, count, chunked, size):
    server = serve(lab)
    with server.connect() as client:
        begin(client, f"{count.format('on')}?echo&started={lab.here('started')}", None if chunked else size)
        client.send(part(chunked, b"x" * (size - 10)))
        wait_taken(server, client)
        outlast_auto(server)
        assert not os.path.exists(lab.here("started"))
        assert len(held_files(server)) == (1 if size > 65536 else 0)
        assert not os.listdir(lab.here("held"))
        client.send(part(chunked, b"y" * 10) + (b"0\r\n\r\n" if chunked else b""))
        assert client.read().body == b"x" * (size - 10) + b"y" * 10
        lab.wait_file("started")
    assert not held_files(server)


def outlast_auto(server):
    """Returns when a program has been started because its client paused, as `auto` does."""
    path = server.lab.here("paused")
    with server.connect() as client:
        begin(client, f"/cgi/auto/count?started={path}")
        client.send(part(True, b"x"))
        server.lab.wait_file("paused")


def test_suffix_of_fastcgi_has_it_on(lab):
    """Applications that read nothing without CONTENT_LENGTH are what such routes are for."""
    lab.file("root/x.app", b"")
    server = serve(lab)
    with server.connect() as client:
        begin(client, f"/x.app?echo&started={lab.here('started')}")
        client.send(part(True, b"one"))
        outlast_auto(server)
        assert not os.path.exists(lab.here("started"))
        client.send(part(True, b"two") + b"0\r\n\r\n")
        assert client.read().body == b"onetwo"


@BOTH
def test_off_starts_at_once(lab, count):
    """Without a byte of the body."""
    server = serve(lab)
    with server.connect() as client:
        begin(client, f"{count.format('off')}?echo&started={lab.here('started')}")
        lab.wait_file("started")
        client.send(part(True, b"one") + part(True, b"two") + b"0\r\n\r\n")
        assert client.read().body == b"onetwo"


@FRAMED
def test_expectation_is_met_at_once(lab, chunked):
    """The only place is taken; the body comes all the same, and is held."""
    server = serve(lab)
    with server.connect() as running, server.connect() as client:
        running.send_request("GET", f"/cgi/one/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        begin(client, f"/cgi/one/count?echo&started={lab.here('started')}", None if chunked else 100_000,
              "Expect: 100-continue\r\n")
        assert client._line() == b"HTTP/1.1 100 Continue" and client._line() == b""
        client.send(part(chunked, b"x" * 100_000) + (b"0\r\n\r\n" if chunked else b""))
        wait_for(lambda: held_files(server), "the body to be held")
        wait_taken(server, client)
        assert not os.path.exists(lab.here("started"))
        lab.file("gate.go")
        assert running.read().status == 200
        assert client.read().body == b"x" * 100_000


def test_the_programs_time_begins_with_its_turn(lab):
    """A client that takes longer than the route's timeout to send its body uses up nothing of it."""
    server = serve(lab)
    with server.connect() as client:
        begin(client, "/cgi/short/count", 10)
        client.send(b"12345")
        assert server.get(f"/cgi/short/silent.sh?{lab.here('pids')}").status == 504
        client.send(b"67890")
        response = client.read()
        assert response.status == 200 and "length=10 " in response.text


@BOTH
def test_program_that_waits_before_it_reads(lab, count):
    server = serve(lab)
    body = os.urandom(5 * MEGABYTE)
    with server.connect() as client:
        client.send_request("POST", f"{count.format('on')}?wait={lab.here('go')}&echo", body)
        pieces = client.body_pieces(client.read_head())
        assert next(pieces) == b"first\n"
        lab.file("go")
        assert b"".join(pieces) == b"last\n" + body
    assert not held_files(server)


def test_rest_goes_to_the_program_after_its_answer(lab):
    """The client has its answer, and goes; the program reads all that was sent to it."""
    lab.script("later.sh", r"""
        #!/bin/sh
        printf 'Content-Type: text/plain\nContent-Length: 3\n\nok\n'
        while [ ! -e "$QUERY_STRING.go" ]; do sleep 0.01; done
        wc -c > "$QUERY_STRING.draft"
        mv "$QUERY_STRING.draft" "$QUERY_STRING"
        """)
    server = serve(lab)
    with server.connect() as client:
        response = client.request("POST", f"/cgi/on/later.sh?{lab.here('n')}", b"x" * (2 * MEGABYTE))
        assert response.body == b"ok\n"
    lab.file("n.go")
    assert int(lab.wait_file("n")) == 2 * MEGABYTE
    wait_for(lambda: not held_files(server), "the file to be closed")
    assert server.record(response)["exit"] == 0


def test_program_that_does_not_read(shared):
    with shared.connect() as client:
        assert client.request("POST", "/cgi/on/deaf.sh", b"x" * 3_000_000).body == b"not listening\n"
        assert client.get("/cgi/on/hello.sh").body == b"hello\n"
    wait_for(lambda: not held_files(shared), "the file to be closed")


def test_others_are_served_while_a_program_reads(shared):
    body = b"x" * (64 * MEGABYTE)
    with shared.connect() as client:
        sender = threading.Thread(target=client.send_request, args=("POST", "/cgi/on/count", body))
        sender.start()
        answers = 0
        while not client_has_bytes(client):
            assert shared.get("/cgi/on/hello.sh").body == b"hello\n"
            answers += 1
        sender.join()
        assert f"length={len(body)} " in client.read().text
    assert answers > 0


def client_has_bytes(client):
    """Another thread may be sending: the socket stays as it is."""
    return bool(select.select([client.socket], [], [], 0)[0])


# Ends.

@BOTH
@FRAMED
@pytest.mark.parametrize("size", [1000, 200_000], ids=["memory", "file"])
def test_client_gone(lab, count, chunked, size):
    """Nothing starts, and nothing is kept."""
    server = serve(lab)
    for how in ("close", "reset"):
        client = server.connect()
        begin(client, f"{count.format('on')}?started={lab.here('started')}", None if chunked else size + 1)
        client.send(part(chunked, b"x" * size))
        wait_taken(server, client)
        assert len(held_files(server)) == (1 if size > 65536 else 0)
        getattr(client, how)()
        wait_for(lambda: not held_files(server), "the file to be closed")
    assert server.get(count.format("on")).status == 200
    assert not os.path.exists(lab.here("started"))


def test_more_than_max_body(lab):
    server = serve(lab, max_body="300k")
    with server.connect() as client:
        begin(client, f"/cgi/on/count?started={lab.here('started')}")
        client.send(part(True, b"x" * 200_000))
        wait_for(lambda: held_files(server), "the body to be held")
        client.send(part(True, b"x" * 200_000))
        assert client.read().status == 413
        client.expect_close()
    assert not held_files(server) and not os.path.exists(lab.here("started"))


def test_client_that_falls_silent(lab):
    server = serve(lab, body_timeout="300ms")
    with server.connect() as client:
        begin(client, f"/cgi/on/count?started={lab.here('started')}", 300_000)
        client.send(b"x" * 200_000)
        assert client.read().status == 408
    assert not held_files(server) and not os.path.exists(lab.here("started"))


# No room.

@FRAMED
def test_file_that_may_not_grow(lab, chunked):
    server = serve(lab)
    front, = server.fronts()
    resource.prlimit(front, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    with server.connect() as client:
        begin(client, f"/cgi/on/count?started={lab.here('started')}", None if chunked else 500_000)
        client.send(part(chunked, b"x" * 400_000))
        response = client.read()
        assert response.status == 507
        client.expect_close()
    line = server.wait_log(response.id, "507")
    assert lab.here("held") in line and "temp_dir" in line and "make room" in line
    assert server.record(response)["status"] == 507
    assert not held_files(server) and not os.path.exists(lab.here("started"))
    assert "length=250000 " in server.request("POST", "/cgi/on/count", b"x" * 250_000).text
    assert server.fronts() == [front]


def test_directory_that_is_gone(lab):
    server = serve(lab)
    os.rmdir(lab.here("held"))
    response = server.request("POST", "/cgi/on/count", b"x" * 100_000)
    assert response.status == 507
    assert "temp_dir" in server.wait_log(response.id, lab.here("held"), "No such file")
    assert "length=60000 " in server.request("POST", "/cgi/on/count", b"x" * 60_000).text


def test_no_descriptor_is_left(lab):
    server = serve(lab)
    front, = server.fronts()
    with server.connect() as client:
        begin(client, "/cgi/on/count", 100_000)
        client.send(b"x" * 50_000)
        wait_taken(server, client)
        wait_for(lambda: processes.tcp_connections([front]) == 1, "the other connection's end")
        numbers = processes.descriptors(front)
        free = min(number for number in range(len(numbers) + 1) if number not in numbers)
        resource.prlimit(front, resource.RLIMIT_NOFILE, (free, resource.prlimit(front, resource.RLIMIT_NOFILE)[1]))
        client.send(b"x" * 50_000)
        response = client.read()
        assert response.status == 507
    assert "limit of open files" in server.wait_log(response.id, "507")


# Memory.

def test_memory_of_all(lab):
    """Of many bodies that would each be held in memory, together too much, some go to files."""
    server = serve(lab, max_connections=2000)
    clients = []
    for _ in range(290):
        clients.append(server.connect())
        begin(clients[-1], "/cgi/on/count", 60_001)
        clients[-1].send(b"x" * 60_000)
    wait_for(lambda: held_files(server), "some to be in files")
    assert len(held_files(server)) < 60
    for client in clients:
        client.reset()
    wait_for(lambda: not held_files(server), "the files to be closed")
    assert "length=60000 " in server.request("POST", "/cgi/on/count", b"x" * 60_000).text


def test_memory_of_one(lab):
    server = serve(lab)
    if is_sanitized():
        pytest.skip("the sanitizer's own memory is in the way")
    front, = server.fronts()
    assert server.request("POST", "/cgi/on/count", b"x" * 300_000).status == 200
    before = processes.pss_kib(front)
    size = 100 * MEGABYTE
    with server.connect() as client:
        begin(client, f"/cgi/on/gate.sh?{lab.here('gate')}", size)
        for _ in range(100):
            client.send(b"x" * MEGABYTE)
        lab.wait_file("gate.started")
        assert processes.pss_kib(front) - before < 4096
        lab.file("gate.go")
        assert client.read().body == b"through\n"


# What goes wrong amid a body.

@pytest.mark.parametrize("chunked", [False, True])
def test_refusal_amid_a_body_ends_the_connection(lab, chunked):
    """What comes behind the piece that there was no room for is still of that body: it is not answered."""
    lab.file("root/secret.txt", b"smuggled\n")
    server = serve(lab, max_connections=2000)
    inner = b"GET /secret.txt HTTP/1.1\r\nHost: a\r\n\r\n"
    piece, held = b"y" * 1000, []
    for _ in range(256):  # all memory that there is for bodies
        held.append(server.connect())
        begin(held[-1], "/cgi/on/count", 100_000)
        held[-1].send(b"x" * 65_536)
    wait_for(lambda: len(processes.descriptors(server.fronts()[0])) > 256, "all bodies")
    for client in held:
        wait_taken(server, client)
    os.rmdir(lab.here("held"))
    with server.connect() as client:
        if chunked:
            head, body = b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(piece), piece)
        else:
            head, body = b"Content-Length: %d" % (len(piece) + len(inner)), piece
        client.send(b"POST /cgi/on/count HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n" + body)
        assert client.read().status == 507
        with contextlib.suppress(OSError):
            client.send(inner)
            client.expect_close()
    for client in held:
        client.reset()
    assert not [record for record in server.records() if record["uri"] == "/secret.txt"]


def test_room_for_all_bodies(lab):
    """Small ones are held in memory all the same."""
    server = serve(lab, max_temp="1m")
    with server.connect() as holder:
        begin(holder, "/cgi/on/count", 2_000_000)
        holder.send(b"x" * 1_000_000)
        wait_taken(server, holder)
        wait_for(lambda: held_files(server), "a file")
        response = server.request("POST", "/cgi/on/count", b"x" * 1_000_000)
        assert response.status == 507
        assert "max_temp" in server.wait_log(response.id, "507")
        assert "length=60000 " in server.request("POST", "/cgi/on/count", b"x" * 60_000).text
        holder.reset()
    wait_for(lambda: not held_files(server), "the files to be closed")
    assert "length=1000000 " in server.request("POST", "/cgi/on/count", b"x" * 1_000_000).text


def test_slow_upload_is_not_the_programs_silence(lab):
    """It waits for its client, who sends something again and again."""
    server = lab.serve("""
        [site *]
        root = {root}
        [route /cgi-bin/*]
        gateway = cgi
        dir = {cgi}
        idle_timeout = 2s
        [route /fcgi/*]
        gateway = fastcgi
        pool = count
        idle_timeout = 2s
        [pool count]
        command = {cgi}/count
        pm = static
        pm.max_children = 1
        """, min_rate="0")
    for target in ("/cgi-bin/cat.sh", "/fcgi/?echo"):
        with server.connect() as client:
            begin(client, target, 8)
            for _ in range(8):
                client.send(b"x")
                threading.Event().wait(0.4)  # all of it takes longer than idle_timeout
            assert client.read().body == b"x" * 8
