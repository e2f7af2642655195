"""CGI and FastCGI: streaming, clients that go, deadlines, what programs answer and complain about, queues, logs."""

import itertools
import os
import re
import socket
import threading
import zlib

import pytest

from client import Closed
from processes import is_alive, wait_for

CONFIG = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 2
"""

NUMBERS = itertools.count(1)

BOTH = pytest.mark.parametrize("count", ["/cgi-bin/count", "/fcgi/"], ids=["cgi", "fastcgi"])


@pytest.fixture(scope="module")
def server(shared_lab):
    return shared_lab.serve(CONFIG)


@pytest.fixture
def here(server):
    """A function from a name to a path that no other test uses."""
    number = next(NUMBERS)
    return lambda name: server.lab.here(f"{number}-{name}")


def wait_gone(pids):
    wait_for(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}")


# Bytes.

@BOTH
def test_streaming(server, here, count):
    """The first bytes arrive while the program still runs."""
    with server.connect() as client:
        client.send_request("GET", f"{count}?wait={here('go')}")
        response = client.read_head()
        assert response.status == 200
        pieces = client.body_pieces(response)
        assert next(pieces) == b"first\n"
        server.lab.file(here("go"))
        assert b"".join(pieces).startswith(b"last\npid=")
        client.expect_nothing()


def test_streaming_of_a_script(server, here):
    with server.connect() as client:
        client.send_request("GET", f"/cgi-bin/stream.sh?{here('go')}")
        pieces = client.body_pieces(client.read_head())
        assert next(pieces) == b"first\n"
        server.lab.file(here("go"))
        assert b"".join(pieces) == b"last\n"


@pytest.mark.parametrize("target", ["/cgi-bin/cat.sh", "/cgi-bin/count?echo", "/fcgi/?echo"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_echo_both_ways_at_once(server, target, chunked):
    body = os.urandom(1 << 20) * 12
    with server.connect() as client:
        sender = threading.Thread(target=client.send_request, args=("POST", target, body), kwargs={"chunked": chunked})
        sender.start()
        response = client.read()
        sender.join()
        assert response.status == 200 and response.body == body
        assert client.get(target).status == 200


def test_much_output_before_input(server):
    """The program writes 8 MB before it reads any of 4 MB."""
    with server.connect() as client:
        sender = threading.Thread(target=client.send_request,
                                  args=("POST", f"/cgi-bin/flood.sh?{8 << 20}", b"x" * (4 << 20)))
        sender.start()
        response = client.read()
        sender.join()
        assert response.body == b"\0" * (8 << 20) + b"%d\n" % (4 << 20)


@BOTH
def test_input_is_whole(server, count):
    for size in (1, 8191, 65535, 65536, 3_000_000):
        body = os.urandom(size)
        text = server.request("POST", count, body).text
        assert f"length={size} crc={zlib.crc32(body):08x}\n" in text


@BOTH
def test_much_output(server, count):
    assert server.get(f"{count}?bytes=20000000").body.startswith(b"x" * 20_000_000 + b"pid=")


def test_program_that_does_not_read(server):
    with server.connect() as client:
        try:
            client.send_request("POST", "/cgi-bin/deaf.sh", b"x" * 5_000_000)
        except OSError:
            pass
        assert client.read().body == b"not listening\n"


def test_head_request(server):
    for target in ("/cgi-bin/hello.sh", "/fcgi/?bytes=100000"):
        with server.connect() as client:
            response = client.request("HEAD", target)
            assert response.status == 200 and response.body == b""
            assert client.get("/cgi-bin/hello.sh").body == b"hello\n"


def test_count_rises(server):
    """One process serves many requests over FastCGI; CGI is a new one each time."""
    pids, counts = set(), []
    for _ in range(20):
        pid, count = re.match(r"pid=(\d+) count=(\d+)", server.get("/fcgi/").text).groups()
        pids.add(pid)
        counts.append(int(count))
    assert len(pids) <= 2 and max(counts) >= 10
    found = [re.match(r"pid=(\d+) count=(\d+)", server.get("/cgi-bin/count").text).groups() for _ in range(5)]
    assert len({pid for pid, _ in found}) == 5 and {count for _, count in found} == {"1"}


# Clients that go.

@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("script", ["tree.sh", "silent.sh"])
def test_client_gone(server, here, script, how):
    """The program ends, and its child, even if it neither writes nor listens to TERM."""
    client = server.connect()
    client.send_request("GET", f"/cgi-bin/{script}?{here('pids')}")
    pids = [int(word) for word in server.lab.wait_file(here("pids")).split()]
    assert all(map(is_alive, pids))
    getattr(client, how)()
    wait_gone(pids)


def test_client_gone_within_its_body(server, here):
    client = server.connect()
    client.send(f"POST /cgi-bin/count?started={here('pid')}&echo HTTP/1.1\r\nHost: a\r\n"
                "Content-Length: 1000000\r\n\r\nbeginning".encode())
    pid = int(server.lab.wait_file(here("pid")))
    client.reset()
    wait_gone([pid])


def test_half_closed_client_is_served(server, here):
    with server.connect() as client:
        client.send_request("GET", f"/cgi-bin/gate.sh?{here('gate')}")
        client.end_sending()
        server.lab.wait_file(here("gate.started"))
        server.lab.file(here("gate.go"))
        assert client.read().body == b"through\n"


def test_client_of_fastcgi_gone(lab):
    """The process is free again, or another is there in its place."""
    server = lab.serve(CONFIG.replace("max_children = 2", "max_children = 1"))
    for n in range(3):
        client = server.connect()
        client.send_request("GET", f"/fcgi/?started={lab.here(f'started{n}')}&wait={lab.here('never')}")
        lab.wait_file(f"started{n}")
        client.reset()
        wait_for(lambda: server.answers("/fcgi/"), "the process to be free")
    wait_for(lambda: len(server.running("count")) == 1, "one process")


# Deadlines.

TIMED = """
    [site *]
    root = {root}
    [route /slow/*]
    gateway = cgi
    dir = {cgi}
    timeout = 400ms
    [route /idle/*]
    gateway = cgi
    dir = {cgi}
    idle_timeout = 400ms
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    timeout = 400ms
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
"""


def test_timeout(lab):
    server = lab.serve(TIMED)
    for route in ("slow", "idle"):
        with server.connect() as client:
            client.send_request("GET", f"/{route}/silent.sh?{lab.here(route)}")
            pids = [int(word) for word in lab.wait_file(route).split()]
            response = client.read()
            assert response.status == 504
            wait_gone(pids)
            server.wait_log(response.id)
            assert server.record(response)["status"] == 504


def test_timeout_within_the_body(lab):
    """The answer has begun: it ends visibly too soon."""
    server = lab.serve(TIMED)
    for route in ("slow", "idle"):
        with server.connect() as client:
            client.send_request("GET", f"/{route}/tree.sh?{lab.here(route)}")
            pids = [int(word) for word in lab.wait_file(route).split()]
            with pytest.raises(Closed):
                client.read()
            wait_gone(pids)


def test_timeout_of_fastcgi(lab):
    server = lab.serve(TIMED)
    with server.connect() as client:
        client.send_request("GET", f"/fcgi/?started={lab.here('pid')}&hang")
        pid = int(lab.wait_file("pid"))
        response = client.read()
        assert response.status == 504
    wait_gone([pid])
    wait_for(lambda: server.answers("/fcgi/"), "its replacement")


# What programs answer.

def short(value):
    """A name for a case."""
    return repr(value)[2:40] if isinstance(value, bytes) else None


def answer_of(server, here, text):
    path = here("answer")
    server.lab.file(path, text)
    with server.connect() as client:
        response = client.get(f"/cgi-bin/say.sh?{path}")
        client.expect_nothing()
        return response


@pytest.mark.parametrize("text, status, fields, body", [
    (b"Content-Type: text/plain\n\nx", 200, {"content-type": "text/plain"}, b"x"),
    (b"Content-Type: text/plain\r\n\r\nx", 200, {}, b"x"),
    (b"Status: 404 Not Here\nContent-Type: text/plain\n\nx", 404, {}, b"x"),
    (b"Status: 404\nContent-Type: text/plain\n\nx", 404, {}, b"x"),
    (b"HTTP/1.1 201 Created\nContent-Type: text/plain\n\nx", 201, {}, b"x"),
    (b"Location: http://example.org/x\n\n", 302, {"location": "http://example.org/x"}, None),
    (b"Status: 303 See Other\nLocation: /else\nContent-Type: text/plain\n\nx", 303, {"location": "/else"}, b"x"),
    (b"Content-Length: 3\nContent-Type: text/plain\n\nabc", 200, {"content-length": "3"}, b"abc"),
    (b"Status: 204\n\n", 204, {}, b""),
    (b"Status: 304\nETag: \"x\"\n\n", 304, {"etag": '"x"'}, b""),
    (b"Content-Type: text/plain\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n", 200, {}, b"abc"),
    (b"Content-Type: text/plain\nConnection: close\nKeep-Alive: x\nUpgrade: h2c\nDate: x\nX-Ok: y\n\nx", 200,
     {"x-ok": "y", "keep-alive": None, "upgrade": None}, b"x"),
    (b"Set-Cookie: a=1\nSet-Cookie: b=2\nContent-Type: text/plain\n\nx", 200, {}, b"x"),
    (b"Content-Type: text/plain\nX-Big: " + b"x" * 7000 + b"\n\nx", 200, {"x-big": "x" * 7000}, b"x"),
    (b"Content-Length: 3\nContent-Type: text/plain\n\nabcdef", 200, {}, b"abc"),
], ids=short)
def test_answers(server, here, text, status, fields, body):
    response = answer_of(server, here, text)
    assert response.status == status, response
    for name, value in fields.items():
        assert response.get(name) == value
    if body is not None:
        assert response.body == body
    if b"Set-Cookie" in text:
        assert response.all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("text", [
    b"", b"\n\nx", b"hello\n\n", b"Content-Type: text/plain\n", b"Content-Type: text/plain\nno colon\n\nx",
    b"Content-Type: text/plain\nX: a\n b\n\nx", b"Content-Type: text/plain\nX : a\n\nx", b"X-Only: this\n\nx",
    b"Content-Type: text/plain\nX: a\0b\n\nx", b"Content-Type: text/plain\nX: a\rb\n\nx",
    b"Status: abc\nContent-Type: text/plain\n\nx", b"Status: 1000\nContent-Type: text/plain\n\nx",
    b"Status: 200\nStatus: 404\nContent-Type: text/plain\n\nx",
    b"Content-Length: 3\nContent-Length: 4\nContent-Type: text/plain\n\nabc",
    b"Content-Type: text/plain\nTransfer-Encoding: gzip\n\nx",
    b"Content-Type: text/plain\nX: " + b"x" * 100_000,
], ids=short)
def test_nonsense_is_502(server, here, text):
    response = answer_of(server, here, text)
    assert response.status == 502, response
    server.wait_log(response.id)


def test_too_short_is_visible(server, here):
    with pytest.raises(Closed):
        answer_of(server, here, b"Content-Length: 10\nContent-Type: text/plain\n\nabc")


def test_local_redirect(server, here):
    response = answer_of(server, here, b"Location: /cgi-bin/hello.sh?x\n\n")
    assert (response.status, response.body) == (200, b"hello\n")
    path = here("loop")
    server.lab.file(path, f"Location: /cgi-bin/say.sh?{path}\n\n")
    assert server.get(f"/cgi-bin/say.sh?{path}").status in (500, 502, 508)


def test_local_redirect_leaves_no_body_behind(server, here):
    """What is still to come of a chunked body, when its program has redirected, is no request."""
    path, gate = here("elsewhere"), here("gate")
    server.lab.file(path, f"Location: /cgi-bin/gate.sh?{gate}\n\n")
    inner = b"GET /fcgi/?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.connect() as client:
        client.send(f"POST /cgi-bin/say.sh?{path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode() +
                    b"100\r\nabc")
        server.lab.wait_file(gate + ".started")
        client.send(inner + b"x" * (253 - len(inner)) + b"\r\n0\r\n\r\n")
        server.lab.file(gate + ".go")
        assert client.read().body == b"through\n"
        client.expect_close()
    assert not [record for record in server.records() if "smuggled" in record["uri"]]


def test_local_redirect_before_the_body_ends(lab):
    """Nobody gives the program the rest: its input ends."""
    lab.file("root/elsewhere.txt", b"elsewhere\n")
    lab.script("aside.sh", """
        #!/bin/sh
        printf 'Location: /elsewhere.txt\\n\\n'
        cat > /dev/null
        [ -z "$QUERY_STRING" ] || echo over > "$QUERY_STRING"
        """)
    server = lab.serve(CONFIG.replace("dir = {cgi}", "dir = {cgi}\nmax_running = 1\nqueue = 0"))
    with server.connect() as client:
        client.send(b"POST /cgi-bin/aside.sh?%b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345" %
                    lab.here("over").encode())
        assert client.read().body == b"elsewhere\n"
    assert lab.wait_file("over") == "over\n"
    wait_for(lambda: server.answers("/cgi-bin/aside.sh"), "the program's place to be free")


@pytest.mark.parametrize("how, member, value", [("exit3", "exit", 3), ("segv", "signal", "SIGSEGV"),
                                                ("kill", "signal", "SIGKILL")])
def test_end_within_the_answer(server, how, member, value):
    """The log tells how the program ended. A death by a signal is visible to the client too."""
    with server.connect() as client:
        client.send_request("GET", f"/cgi-bin/fail.sh?{how}")
        response = client.read_head()
        assert response.status == 200
        try:
            assert b"".join(client.body_pieces(response)) == b"partly\n"
            assert how == "exit3"
        except Closed:
            assert how != "exit3"
    assert server.record(response)[member] == value


@BOTH
@pytest.mark.parametrize("what", ["exit=5", "abort"])
def test_end_before_the_answer(server, count, what):
    response = server.get(f"{count}?{what}")
    assert response.status == 502
    record = server.record(response)
    if "cgi-bin" in count:
        assert (record["exit"], record["signal"]) == ((5, None) if what == "exit=5" else (None, "SIGABRT"))
    wait_for(lambda: server.answers(count), "the next answer")


# What programs complain about.

def test_stderr_of_cgi(server):
    response = server.get("/cgi-bin/stderr.sh")
    assert response.body == b"fine\n"
    own = response.id
    for text in ("first trouble", "second \\x1b[31mtrouble", "last trouble"):
        line = server.wait_log(text, own)
        assert line.endswith(text)
    assert server.record(response)["stderr_bytes"] == len("first trouble\nsecond \033[31mtrouble\r\nlast trouble")


@pytest.mark.parametrize("way", ["stderr", "fd2"])
def test_stderr_of_fastcgi(server, way):
    response = server.get(f"/fcgi/?{way}=complaint-by-{way}")
    pid = re.match(r"pid=(\d+)", response.text)[1]
    line = server.wait_log(f"complaint-by-{way}")
    assert "count" in line and pid in line
    if way == "stderr":
        assert response.id in line


def test_stderr_flood(server):
    """100,000 lines do not stop the program, and not all of them are written."""
    server.lab.script("noise.sh", r"""
        #!/bin/sh
        printf 'Content-Type: text/plain\n\n'
        yes "noise of a program" | head -n 100000 >&2
        echo done
        """)
    assert server.get("/cgi-bin/noise.sh").body == b"done\n"
    server.wait_log("not shown")
    assert len(server.logged("noise of a program")) < 10_000


# Queues.

QUEUE = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    max_running = 2
    queue = 2
    queue_timeout = 20s
    [route /short/*]
    gateway = cgi
    dir = {cgi}
    max_running = 1
    queue = 10
    queue_timeout = 300ms
    [route /crowd/*]
    gateway = cgi
    dir = {cgi}
    max_running = 2
    queue = 100
    queue_timeout = 20s
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
    queue = 1
    queue_timeout = 20s
"""


def one_is_refused(clients):
    """Waits until one of them has been answered, which must be with 503; returns the others."""
    for client in clients:
        client.socket.setblocking(False)

    def look():
        for client in clients:
            try:
                if client.socket.recv(1, socket.MSG_PEEK):
                    return client
            except BlockingIOError:
                pass
        return None

    refused = wait_for(look, "one to be refused")
    for client in clients:
        client.socket.settimeout(20)
    response = refused.read()
    assert response.status == 503
    assert response.get("retry-after", "").isdigit()
    refused.close()
    return [client for client in clients if client is not refused]


def test_full_queue(lab):
    server = lab.serve(QUEUE)
    running = [server.connect() for _ in range(2)]
    for n, client in enumerate(running):
        client.send_request("GET", f"/cgi-bin/gate.sh?{lab.here(f'gate{n}')}")
        lab.wait_file(f"gate{n}.started")
    waiting = [server.connect() for _ in range(3)]
    for client in waiting:
        client.send_request("GET", "/cgi-bin/hello.sh")
    waiting = one_is_refused(waiting)
    for n, client in enumerate(running):
        lab.file(f"gate{n}.go")
        assert client.read().body == b"through\n"
    for client in waiting:
        response = client.read()
        assert response.body == b"hello\n"
        assert server.record(response)["queue_ms"] > 0
        client.close()


def test_full_queue_of_fastcgi(lab):
    server = lab.serve(QUEUE)
    with server.connect() as busy:
        busy.send_request("GET", f"/fcgi/?started={lab.here('started')}&wait={lab.here('go')}")
        lab.wait_file("started")
        waiting = [server.connect() for _ in range(2)]
        for client in waiting:
            client.send_request("GET", "/fcgi/")
        waiting = one_is_refused(waiting)
        lab.file("go")
        assert busy.read().status == 200
        assert waiting[0].read().status == 200
        waiting[0].close()


def test_queue_timeout(lab):
    server = lab.serve(QUEUE)
    with server.connect() as running, server.connect() as waiting:
        running.send_request("GET", f"/short/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        response = waiting.get("/short/hello.sh")
        assert response.status == 503 and response.get("retry-after", "").isdigit()
        lab.file("gate.go")
        assert running.read().status == 200
        assert waiting.get("/short/hello.sh").status == 200


def test_client_gone_from_the_queue(lab):
    server = lab.serve(QUEUE)
    with server.connect() as running:
        running.send_request("GET", f"/short/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        waiting = server.connect()
        waiting.send_request("GET", f"/short/gate.sh?{lab.here('other')}")
        waiting.reset()
        lab.file("gate.go")
        assert running.read().status == 200
    wait_for(lambda: server.answers("/short/hello.sh"), "the route to be free")


PAUSES = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    max_running = 1
    queue_timeout = 20s
    [route /free/*]
    gateway = cgi
    dir = {cgi}
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
"""

CHUNKED_POST = "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nAAAAA\r\n"


def outlast_holding(server):
    """Returns when a program has been started because its client paused, which it does from now on."""
    path = server.lab.here("paused")
    with server.connect() as client:
        client.send(CHUNKED_POST.format(f"/free/count?started={path}").encode())
        server.lab.wait_file("paused")


@BOTH
@pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
def test_body_that_comes_while_queued(lab, count, ends):
    """In chunks, with a pause after the first: all of it goes to the program, and its end."""
    server = lab.serve(PAUSES)
    with server.connect() as running, server.connect() as client:
        running.send_request("GET", f"{count}?started={lab.here('busy')}&wait={lab.here('go')}")
        lab.wait_file("busy")
        client.send(CHUNKED_POST.format(f"{count}?echo&started={lab.here('started')}").encode())
        outlast_holding(server)
        client.send(b"5\r\nBBBBB\r\n" + (b"0\r\n\r\n" if ends else b""))
        assert server.get("/nothing").status == 404  # what was sent before has been looked at
        assert not os.path.exists(lab.here("started"))
        lab.file("go")
        assert running.read().status == 200
        lab.wait_file("started")
        if not ends:
            client.send(b"5\r\nCCCCC\r\n0\r\n\r\n")
        assert client.read().body == (b"AAAAABBBBB" if ends else b"AAAAABBBBBCCCCC")


@pytest.mark.parametrize("fronts", [1, 2])
def test_never_more_than_max_running(lab, fronts):
    """The limit holds over all fronts together, and everybody gets a turn."""
    server = lab.serve(QUEUE, fronts=fronts)
    os.mkdir(lab.here("crowd"))
    statuses = []

    def ask():
        for _ in range(3):
            statuses.append(server.get(f"/crowd/crowd.sh?{lab.here('crowd')}").status)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 36
    numbers = [int(line) for line in lab.wait_file("crowd/log").split()]
    assert len(numbers) == 36 and max(numbers) <= 2


# FastCGI applications that are not ours.

def listener(lab, kind):
    if kind == "unix":
        it = socket.socket(socket.AF_UNIX)
        it.bind(lab.here("app.sock"))
        os.chmod(lab.here("app.sock"), 0o666)
        address = f"unix:{lab.here('app.sock')}"
    else:
        it = socket.socket()
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % it.getsockname()[1]
    it.listen(64)
    return it, address


def test_body_goes_to_the_server_that_answers(lab):
    """The first server refuses the connection when the body is on its way to it already."""
    listening, address = listener(lab, "tcp")
    lab.helper([os.path.join(lab.apps, "count")], stdin=listening)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = "127.0.0.1:%d" % closed.getsockname()[1]
    server = lab.serve(f"""
        [site *]
        root = {{root}}
        [route /app/*]
        gateway = fastcgi
        pool = app
        [pool app]
        server = {nobody}
        server = {address}
        """)
    for size in (1, 70_000):
        body = os.urandom(size)
        text = server.request("POST", "/app/", body).text
        assert f"length={size} crc={zlib.crc32(body):08x}\n" in text


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("fronts", [1, 2])
def test_external_application(lab, kind, fronts):
    listening, address = listener(lab, kind)
    program = os.path.join(lab.apps, "count")
    helper = lab.helper([program], stdin=listening)
    server = lab.serve(f"""
        [site *]
        root = {{root}}
        [route /app/*]
        gateway = fastcgi
        pool = app
        [pool app]
        server = {address}
        max_connections = 1
        """, fronts=fronts)
    texts = []

    def ask():
        for _ in range(5):
            texts.append(server.request("POST", "/app/x", b"hello").text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {re.match(r"pid=(\d+)", text)[1] for text in texts} == {str(helper.pid)}
    assert sorted(int(re.search(r"count=(\d+)", text)[1]) for text in texts) == list(range(1, 21))
    helper.kill()
    helper.wait()
    listening.close()
    if kind == "unix":
        os.unlink(lab.here("app.sock"))
    response = server.get("/app/x")
    assert response.status in (502, 503)
    server.wait_log(address.replace("unix:", ""))
    if kind == "unix":
        listening, _ = listener(lab, kind)
    else:
        host, _, port = address.partition(":")
        listening = socket.create_server((host, int(port)))
    lab.helper([program], stdin=listening)
    listening.close()
    wait_for(lambda: server.answers("/app/x"), "the application's return")


# The access log.

NAMES = ("time id client method uri protocol status bytes_in bytes_out site route gateway pool pid queue_ms start_ms "
         "first_ms body_ms reap_ms total_ms cpu_ms max_rss_kib exit signal stderr_bytes retries referer "
         "user_agent").split()


def test_record_of_cgi(server):
    response = server.request("POST", "/cgi-bin/count?x=%22", b"hello", fields=[("User-Agent", 'a "b" \xff'),
                                                                              ("Referer", "http://r/")])
    record = server.record(response)
    assert list(record) == NAMES
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert record["client"] == "127.0.0.1" and record["method"] == "POST" and record["uri"] == "/cgi-bin/count?x=%22"
    assert record["protocol"] == "HTTP/1.1" and record["status"] == 200
    assert record["bytes_in"] == 5 and record["bytes_out"] > len(response.body)
    assert record["site"] == "*" and record["route"] == "/cgi-bin/*"
    assert record["gateway"] == "cgi" and record["pool"] is None
    assert f"pid={record['pid']} " in response.text
    for phase in ("queue", "start", "first", "body", "reap", "total", "cpu"):
        assert record[f"{phase}_ms"] >= 0, phase
    assert record["total_ms"] >= record["first_ms"] > 0
    assert record["max_rss_kib"] > 100
    assert record["exit"] == 0 and record["signal"] is None
    assert record["stderr_bytes"] == 0 and record["retries"] == 0
    assert record["referer"] == "http://r/" and record["user_agent"] == 'a "b" \ufffd'


def test_record_of_fastcgi(server):
    server.get("/fcgi/")
    response = server.get("/fcgi/?bytes=1000")
    record = server.record(response)
    assert list(record) == NAMES
    assert record["gateway"] == "fastcgi" and record["pool"] == "count" and record["route"] == "/fcgi/*"
    assert f"pid={record['pid']} " in response.text
    for phase in ("queue", "start", "first", "body", "total"):
        assert record[f"{phase}_ms"] >= 0, phase
    assert record["reap_ms"] is None and record["max_rss_kib"] is None
    assert record["cpu_ms"] > 0
    assert record["signal"] is None


def test_record_of_a_file(server):
    server.lab.file("root/file.txt", b"text")
    record = server.record(server.get("/file.txt"))
    assert list(record) == NAMES
    assert record["gateway"] == "static" and record["pid"] is None and record["status"] == 200
    for phase in ("start", "reap", "cpu"):
        assert record[f"{phase}_ms"] is None
    assert record["total_ms"] >= 0 and record["exit"] is None
    assert server.record(server.get("/not-there"))["status"] == 404


def test_record_of_a_client_that_went(server, here):
    client = server.connect()
    client.send_request("GET", f"/cgi-bin/tree.sh?{here('pids')}")
    response = client.read_head()
    server.lab.wait_file(here("pids"))
    client.reset()
    record = server.record(response)
    assert record["uri"].startswith("/cgi-bin/tree.sh") and record["pid"] > 0


def test_request_id(server):
    response = server.get("/cgi-bin/inspect")
    assert f"env REQUEST_ID={response.get('x-request-id')}\n" in response.text


def test_server_timing(lab):
    server = lab.serve(CONFIG, server_timing="on")
    for target in ("/cgi-bin/hello.sh", "/fcgi/"):
        response = server.get(target)
        found = dict(re.findall(r"(\w+);dur=(\d+\.\d{3})", response.get("server-timing")))
        assert list(found) == ["queue", "start", "first"]
        record = server.record(response)
        assert float(found["first"]) == record["first_ms"] and float(found["start"]) == record["start_ms"]


def test_access_formats(lab):
    for access_format, pattern in (
            ("combined", r'127\.0\.0\.1 - - \[[^]]+\] "GET /x HTTP/1\.1" 404 \d+ "-" "-"\n'),
            ("pretty", r"\d\d:\d\d:\d\d  404  GET   /x +static.* total [\d.]+ ms\n")):
        path = lab.here(f"{access_format}.log")
        server = lab.serve("[site *]\nroot = {root}", access_log=path, access_format=access_format)
        server.get("/x")
        server.stop()
        with open(path, encoding="ascii") as file:
            assert re.fullmatch(pattern, file.read())


# Variables.

def test_field_that_no_variable_can_hold(lab):
    server = lab.serve(QUEUE, max_head="1m")
    for target in ("/short/hello.sh", "/fcgi/"):
        answer = server.get(target, fields=[("Cookie", "a" * 40_000), ("Cookie", "b" * 40_000)])
        assert answer.status == 431, target
        assert server.get(target, fields=[("Cookie", "a" * 60_000)]).status == 200, target


def test_what_is_behind_a_local_redirect(lab):
    """It sees what the client has asked for, but nothing of a body that is not its own."""
    lab.script("from.sh", "#!/bin/sh\nprintf 'Location: /short/to.sh?a=b\\n\\n'\n")
    lab.script("to.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nenv\n")
    server = lab.serve(QUEUE)
    for target in ("/short/from.sh?x=y", f"http://a:{server.port}/short/from.sh?x=y"):
        text = server.request("POST", target, b"a=b", fields=[("Content-Type", "text/x-form")]).text
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        assert found["REQUEST_METHOD"] == "GET" and found["QUERY_STRING"] == "a=b"
        assert found["REQUEST_URI"] == "/short/from.sh?x=y"
        assert not {"CONTENT_TYPE", "CONTENT_LENGTH"} & set(found)
