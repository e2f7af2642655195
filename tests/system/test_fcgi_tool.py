"""`gatehouse fcgi`: against php-fpm, libfcgi, fcgiwrap, a managed process, and against peers that are none of these."""

import glob
import os
import pwd
import resource
import socket
import struct
import subprocess
import threading

import pytest

import server as servers
from processes import PATIENCE, wait_for

COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE = range(4)
BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, GET_VALUES_RESULT, \
    UNKNOWN_TYPE = range(1, 12)

HEAD = b"Content-Type: text/plain\r\n\r\n"


def record(kind, content=b"", request=1, padding=0):
    return struct.pack(">BBHHBx", 1, kind, request, len(content), padding) + content + bytes(padding)


def end_request(app=0, protocol=COMPLETE):
    return record(END_REQUEST, struct.pack(">IB3x", app, protocol))


def answer(output, app=0, protocol=COMPLETE):
    return record(STDOUT, output) + record(STDOUT) + end_request(app, protocol)


class Tool:
    """What a call of the command gave."""

    def __init__(self, lab, *words, stdin=subprocess.DEVNULL, **more):
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:" + os.environ.get("ASAN_OPTIONS", ""),
                   UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
        done = subprocess.run([servers.BINARY, "fcgi", *words], stdin=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=3 * PATIENCE, cwd=lab.path, env=env, check=False, **more)
        self.code, self.output = done.returncode, done.stdout
        self.errors = done.stderr.decode("utf-8", "backslashreplace")
        assert not servers.COMPLAINT.search(self.errors), self.errors

    @property
    def text(self):
        return self.output.decode()

    def lines(self, way):
        """What -v tells of records that went this way."""
        return [line[2:] for line in self.errors.splitlines() if line.startswith(way + " ")]


@pytest.fixture
def tool(lab):
    return lambda *words, **more: Tool(lab, *words, **more)


# Applications.

def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Fpm:
    """php-fpm, with two addresses, and one more that only strangers may use."""

    def __init__(self, lab):
        self.lab = lab
        self.socket, self.port, self.closed_port = lab.here("fpm.sock"), free_port(), free_port()
        nobody = pwd.getpwnam("nobody")
        pools = ""
        for name, listen, more in (("unix", self.socket, ""), ("tcp", f"127.0.0.1:{self.port}", ""),
                                   ("closed", f"127.0.0.1:{self.closed_port}", "listen.allowed_clients = 127.0.0.99")):
            user = "user = nobody\ngroup = nogroup\n" if os.geteuid() == 0 else ""
            pools += f"[{name}]\nlisten = {listen}\n{user}pm = static\npm.max_children = 1\nping.path = /ping\n{more}\n"
        config = lab.file("fpm.conf", f"[global]\nerror_log = {lab.here('fpm.log')}\ndaemonize = no\n{pools}")
        lab.file("php/a.php", """<?php
            if (isset($_GET['log'])) error_log($_GET['log']);
            if (isset($_GET['status'])) http_response_code((int)$_GET['status']);
            header('Content-Type: text/plain');
            echo json_encode(['method' => $_SERVER['REQUEST_METHOD'], 'get' => $_GET, 'post' => $_POST,
                              'info' => $_SERVER['PATH_INFO'] ?? null, 'auth' => $_SERVER['PHP_AUTH_USER'] ?? null,
                              'foo' => $_SERVER['HTTP_X_FOO'] ?? null, 'self' => $_SERVER['PHP_SELF'],
                              'root' => $_SERVER['DOCUMENT_ROOT']], JSON_UNESCAPED_SLASHES);
            """)
        self.script = lab.here("php/a.php")
        os.chown(os.path.dirname(self.script), *((nobody.pw_uid, -1) if os.geteuid() == 0 else (-1, -1)))
        lab.helper([self.program(), "-n", "-y", config, "--nodaemonize"], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: "ready to handle connections" in open(lab.here("fpm.log")).read()
                 if os.path.exists(lab.here("fpm.log")) else False, "php-fpm")

    @staticmethod
    def program():
        return sorted(glob.glob("/usr/sbin/php-fpm*"))[-1]


@pytest.fixture(scope="module")
def fpm(shared_lab):
    return Fpm(shared_lab)


def spawn(lab, name, program):
    """Runs a FastCGI program on a unix socket of that name, and returns the socket's path."""
    path = lab.here(name)
    lab.helper(["spawn-fcgi", "-n", "-s", path, "-M", "0666", "--", *program], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), path)
    return path


@pytest.fixture
def count(lab):
    return spawn(lab, "count.sock", [os.path.join(lab.cgi, "count")])


@pytest.fixture
def wrap(lab):
    return spawn(lab, "wrap.sock", ["/usr/sbin/fcgiwrap"])


class Peer:
    """Something that listens. Each connection is `talk`'s, in a thread; what came in is kept."""

    def __init__(self, lab, talk):
        self.path = lab.here("peer.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.talk, self.records, self.over = talk, [], threading.Event()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(3 * PATIENCE)
                    try:
                        self.talk(self, connection)
                    except OSError:
                        pass  # the other end had enough
        except OSError:
            pass  # closed

    def read(self, connection, last):
        """Keeps the records that come, up to the empty one of the stream `last`, or one of that type."""
        with connection.makefile("rb") as stream:
            while header := stream.read(8):
                _, kind, request, length, padding = struct.unpack(">BBHHBx", header)
                content = stream.read(length)
                stream.read(padding)
                self.records.append((kind, request, content))
                if kind == last and (length == 0 or kind == GET_VALUES):
                    return

    def stream(self, kind):
        return b"".join(content for type_, _, content in self.records if type_ == kind)

    def params(self):
        rest, found = self.stream(PARAMS), {}
        while rest:
            lengths = []
            for _ in range(2):
                size = 1 if rest[0] < 128 else 4
                lengths.append(int.from_bytes(rest[:size], "big") & 0x7fffffff)
                rest = rest[size:]
            name, value = rest[:lengths[0]], rest[lengths[0]:sum(lengths)]
            assert name not in found
            found[name.decode()] = value.decode()
            rest = rest[sum(lengths):]
        return found

    def close(self):
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(PATIENCE)


@pytest.fixture
def peer(lab):
    """A function that makes a peer of what it says when it has read the request: bytes, or a function to call."""
    peers = []

    def make(says, last=STDIN):
        def talk(it, connection):
            it.read(connection, last)
            if callable(says):
                says(it, connection)
            else:
                connection.sendall(says)

        peers.append(Peer(lab, talk))
        return peers[-1]

    yield make
    for it in peers:
        it.close()


# php-fpm.

@pytest.mark.parametrize("where", ["unix:{socket}", "{socket}", "127.0.0.1:{port}"])
def test_php(tool, fpm, where):
    address = where.format(**vars(fpm))
    done = tool("get", address, fpm.script + "?x=1", "-H", "X-Foo: bar")
    assert done.code == 0 and done.errors == ""
    assert done.text == '{"method":"GET","get":{"x":"1"},"post":[],"info":null,"auth":null,"foo":"bar",' \
        f'"self":"/a.php","root":"{os.path.dirname(fpm.script)}"}}'


def test_php_body_and_path(tool, fpm, lab):
    done = tool("get", fpm.socket, fpm.script, "-u", "/a.php/more?q=%20", "-d", "a=1&b=2", "-H",
                "Authorization: Basic bWU6cHc=")
    assert '"method":"POST","get":{"q":" "},"post":{"a":"1","b":"2"},"info":"/more","auth":"me"' in done.text
    with open(lab.file("body", "c=3")) as file:
        assert '"post":{"c":"3"}' in tool("get", fpm.socket, fpm.script, "-d", "@-", stdin=file).text
    assert '"post":{"c":"3"}' in tool("get", fpm.socket, fpm.script, "-d", "@body").text
    assert '"method":"PUT"' in tool("get", fpm.socket, fpm.script, "-X", "PUT", "-d", "x").text


def test_php_relative_script(fpm):
    done = Tool(fpm.lab, "get", "unix:fpm.sock", "php/a.php", "-i")
    head, empty_line, _ = done.text.partition("\r\n\r\n")
    assert done.code == 0 and empty_line and "Content-type: text/plain;charset=UTF-8" in head.split("\r\n")


def test_php_standard_error(tool, fpm):
    done = tool("get", fpm.socket, fpm.script + "?log=hello-from-php")
    assert done.code == 0 and done.errors == "PHP message: hello-from-php\n"


def test_php_statuses(tool, fpm):
    done = tool("get", fpm.socket, fpm.script + "?status=500")
    assert (done.code, done.errors) == (3, f"gatehouse: unix:{fpm.socket}: answered 500 Internal Server Error\n")
    done = tool("get", fpm.socket, fpm.script + "x")
    assert done.code == 3 and done.text == "File not found.\n"
    assert done.errors == f"Primary script unknown\ngatehouse: unix:{fpm.socket}: answered 404 Not Found\n"
    assert tool("get", fpm.socket, "/ping").text == "pong"
    assert tool("get", fpm.socket, fpm.script + "?status=302").code == 0
    assert tool("get", fpm.socket, fpm.script, "-X", "HEAD").output == b""


def test_php_ping_and_values(tool, fpm):
    done = tool("ping", f"127.0.0.1:{fpm.port}")
    assert done.code == 0 and done.errors == ""
    assert done.text.startswith(f"127.0.0.1:{fpm.port}: FastCGI, connected in ") and "answered in " in done.text
    assert done.text.endswith("FCGI_MPXS_CONNS=0\n") and done.text.count("\n") == 1
    values = tool("values", fpm.socket)
    assert values.code == 0 and "FCGI_MPXS_CONNS=0" in values.text.splitlines()


def test_php_that_closes(tool, fpm):
    """php-fpm closes connections from addresses that it does not allow, without a word."""
    for words in (["ping"], ["values"], ["get"]):
        done = tool(*words, f"127.0.0.1:{fpm.closed_port}")
        assert done.code == 2 and "listen.allowed_clients" in done.errors and done.output == b""


def test_verbose(tool, fpm):
    done = tool("get", fpm.socket, fpm.script + "?log=note", "-v", "-d", "a=1", "-P", "LONG=" + "v" * 1000,
                "-P", "ODD=a \"b\"\n\x1b[2J")
    sent, received = done.lines(">"), done.lines("<")
    assert [line.split(" id ")[0] for line in sent] == ["BEGIN_REQUEST", "PARAMS", "PARAMS", "STDIN", "STDIN"]
    assert sent[0] == "BEGIN_REQUEST id 1, responder, keep no" and sent[2] == "PARAMS id 1, end"
    assert f" SCRIPT_FILENAME={fpm.script} " in sent[1] and f" LONG={'v' * 80}...[1000 bytes] " in sent[1]
    assert r' ODD="a \"b\"\x0a\x1b[2J" ' in sent[1]
    assert sent[3:] == ["STDIN id 1, 3 bytes", "STDIN id 1, end"]
    assert received[0] == "STDERR id 1, 17 bytes" and received[1].startswith("STDOUT id 1, ")
    assert received[-1] == "END_REQUEST id 1, appStatus 0, REQUEST_COMPLETE"
    assert "\nPHP message: note\n< STDOUT" in done.errors
    assert done.code == 0 and done.text.startswith("{")


# libfcgi.

def test_libfcgi(tool, count):
    done = tool("get", count, "-u", "/?stderr=oops", "-d", "12345")
    assert done.code == 0 and "count=1 length=5 crc=cbf53a1c" in done.text and done.errors == "oops\n"
    values = tool("values", count)
    assert values.text == "FCGI_MAX_CONNS=1\nFCGI_MAX_REQS=1\nFCGI_MPXS_CONNS=0\n"
    assert tool("ping", count).text.endswith(": FCGI_MAX_CONNS=1 FCGI_MAX_REQS=1 FCGI_MPXS_CONNS=0\n")


def test_both_ways_at_once(tool, count, lab):
    body = os.urandom(1 << 20) * 40
    with open(lab.file("body", body)) as file:
        assert tool("get", count, "-u", "/?echo", "-d", "@-", stdin=file).output == body
    feeder = subprocess.Popen(["cat", lab.here("body")], stdout=subprocess.PIPE)
    with feeder.stdout:
        assert tool("get", count, "-u", "/?echo", "-d", "@-", stdin=feeder.stdout).output == body
    assert feeder.wait(PATIENCE) == 0


def test_much_output_before_input(tool, count, lab):
    """The program writes 20 MB before it reads any of 20 MB."""
    lab.file("body", bytes(20_000_000))
    done = tool("get", count, "-u", "/?bytes=20000000", "-d", "@body")
    assert done.code == 0 and done.output.startswith(b"x" * 20_000_000 + b"pid=") and b"length=20000000 " in done.output


@pytest.mark.skipif(servers.is_sanitized(), reason="a sanitizer needs more memory than that")
def test_memory_is_bounded(tool, count, lab):
    lab.file("body", bytes(60_000_000))
    done = tool("get", count, "-u", "/?bytes=60000000", "-d", "@body",
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (8 << 20, 8 << 20)))
    assert done.code == 0 and len(done.output) > 60_000_000


def test_process_that_dies(tool, count):
    done = tool("get", count, "-u", "/?exit=3")
    assert done.code == 2 and "without an answer" in done.errors and "the process has crashed" in done.errors


def test_closed_standard_output(count, lab):
    """Whoever reads has had enough: no signal's end, no complaint."""
    process = subprocess.Popen([servers.BINARY, "fcgi", "get", count, "-u", "/?bytes=50000000"], cwd=lab.path,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(4) == b"xxxx"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE) == 2 and errors == b""


def test_full_standard_output(count, lab):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([servers.BINARY, "fcgi", "get", count], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, cwd=lab.path, timeout=PATIENCE, check=False)
    assert done.returncode == 2 and b"standard output: No space left on device" in done.stderr


# fcgiwrap, and a process of our own.

def test_fcgiwrap(tool, wrap, lab):
    done = tool("get", wrap, os.path.join(lab.cgi, "count"), "-d", "abc")
    assert done.code == 0 and "length=3 " in done.text
    done = tool("get", wrap, "-r", lab.cgi, "-u", "/count?bytes=3")
    assert done.code == 0 and done.text.startswith("xxxpid=")
    assert tool("get", wrap, os.path.join(lab.cgi, "nothing-here")).code == 3
    assert tool("ping", wrap).code == 0


def test_fcgiwrap_and_a_bad_head(tool, wrap, lab):
    script = lab.script("bad", """
        #!/bin/sh
        printf 'Content-Type: text/plain\\n\\033[2J no colon\\n\\nbody\\n'
        """)
    done = tool("get", wrap, script)
    assert done.code == 2 and done.output == b""
    assert "the server would answer with 502: " in done.errors
    assert "  | Content-Type: text/plain\n  | \\x1b[2J no colon\n" in done.errors


def test_managed_process(tool, lab):
    """One that gatehouse has started itself, when it is idle."""
    running = lab.serve("[site *]\nroot = {root}\n[route /*]\ngateway = fastcgi\npool = count\n"
                        "[pool count]\ncommand = {cgi}/count\npm = static\npm.max_children = 1\n")
    path, = wait_for(
        lambda: [name for folder in running.socket_directories() for name in glob.glob(folder + "/*")], "its socket")
    assert "length=2 " in tool("get", path, "-d", "ab").text
    assert running.get("/").status == 200


# What is no FastCGI, or does not answer.

def test_nothing_there(tool, lab):
    done = tool("ping", f"127.0.0.1:{free_port()}")
    assert done.code == 2 and "Connection refused" in done.errors and done.output == b""
    done = tool("get", "unix:nowhere.sock")
    assert done.code == 2 and "No such file" in done.errors
    lab.file("plain")
    done = tool("values", lab.here("plain"))
    assert done.code == 2 and "Connection refused" in done.errors


def test_full_queue(tool, lab):
    """Nobody accepts, and there is no more room to wait in."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first, \
            socket.socket(socket.AF_UNIX) as second:
        listener.bind(lab.here("full.sock"))
        listener.listen(0)
        first.connect(lab.here("full.sock"))
        second.setblocking(False)
        second.connect_ex(lab.here("full.sock"))
        done = tool("ping", lab.here("full.sock"), "-t", "200ms")
        assert done.code == 2 and "no connection: the time is up" in done.errors


@pytest.mark.parametrize("command", ["get", "ping", "values"])
def test_silence(tool, lab, command):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(lab.here("silent.sock"))
        listener.listen()
        done = tool(command, lab.here("silent.sock"), "-t", "200ms")
        assert done.code == 2 and "connected, but silent for 200 ms" in done.errors and done.output == b""


def test_body_that_nobody_reads(tool, lab):
    lab.file("body", bytes(4_000_000))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(lab.here("deaf.sock"))
        listener.listen()
        done = tool("get", lab.here("deaf.sock"), "-d", "@body", "-t", "200ms")
        assert done.code == 2 and "taken no more of the request" in done.errors


def test_answer_without_end(tool, peer):
    """Each wait is short, but there is no last one."""
    def drip(it, connection):
        connection.sendall(record(STDOUT, HEAD))
        while not it.over.wait(0.02):
            connection.sendall(record(STDOUT, b"."))

    done = tool("get", peer(drip).path, "-m", "500ms")
    assert done.code == 2 and "not done within the 500 ms" in done.errors and done.output.strip(b".") == b""


def test_silence_within_an_answer(tool, peer):
    def stop(it, connection):
        connection.sendall(record(STDOUT, HEAD + b"part"))
        it.over.wait(3 * PATIENCE)

    done = tool("get", peer(stop).path, "-t", "200ms")
    assert done.code == 2 and done.output == b"part" and "silent for 200 ms within its answer" in done.errors


def test_http_server(tool, lab):
    """Python's waits for a line that never ends; others answer at once."""
    web = subprocess.Popen(["python3", "-u", "-m", "http.server", "-b", "127.0.0.1", "0"], cwd=lab.root,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        port = int(web.stdout.readline().split(b" port ")[1].split()[0])
        for command in ("ping", "get"):
            done = tool(command, f"127.0.0.1:{port}", "-t", "200ms")
            assert done.code == 2 and "no FastCGI application" in done.errors
    finally:
        web.kill()
        web.wait(PATIENCE)
        web.stdout.close()
    running = lab.serve("[site *]\nroot = {root}\n")
    for command in ("ping", "get"):
        done = tool(command, f"127.0.0.1:{running.port}")
        assert done.code == 2
        assert "an HTTP server answers there, no FastCGI application: \"HTTP/1.1 400 Bad Request\"" in done.errors


GARBAGE = {
    "text": (b"SSH-2.0-OpenSSH\x1b[2J\r\n",
             'no FastCGI: a record of another version; it began with "SSH-2.0-OpenSSH\\x1b[2J'),
    "later": (record(STDOUT, HEAD) + b"what follows is none", "no FastCGI: a record of another version"),
    "end of a wrong size": (record(END_REQUEST, b"1234567"), "an END_REQUEST of the wrong size"),
    "too long": (record(99, bytes(2000)), "no stream's and too long"),
    "another request": (record(STDOUT, HEAD, request=7), "it speaks of request 7, which it was not given"),
    "cut in a record": (record(STDOUT, HEAD + b"hello")[:-2], "closed the connection within its answer"),
    "cut behind a record": (record(STDOUT, HEAD + b"hello"),
                            "closed the connection within its answer, before END_REQUEST"),
    "nothing": (b"", "closed the connection without an answer"),
    "no output": (end_request(), "the server would answer with 502: nothing at all"),
    "half a head": (answer(b"Content-Type: a/b\n"),
                    "the server would answer with 502: it ended within its head"),
    "no head": (answer(b"hello\n\nworld"), "the server would answer with 502: a field line without a colon"),
    "short body": (answer(HEAD[:-2] + b"Content-Length: 9\r\n\r\nshort"),
                   "its body is shorter than its Content-Length"),
    "bad chunk": (answer(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
                  "the server would break off its answer: "),
    "overloaded": (end_request(0, OVERLOADED), "did not take the request: END_REQUEST id 1, appStatus 0, OVERLOADED"),
    "unknown role": (end_request(0, UNKNOWN_ROLE), "END_REQUEST id 1, appStatus 0, UNKNOWN_ROLE"),
    "no such status": (end_request(0, 200), "END_REQUEST id 1, appStatus 0, protocolStatus 200"),
    "endless head": (b"".join(record(STDOUT, b"A" * 60000) for _ in range(4)),
                     "the server would answer with 502: a head "),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(tool, peer, name):
    says, complaint = GARBAGE[name]
    path = peer(says).path
    for more in ([], ["-v"]):
        done = tool("get", path, *more)
        assert done.code == 2 and complaint in done.errors and "\x1b" not in done.errors


def test_good_answers_of_all_kinds(tool, peer):
    """Management records, padding, unknown types, interim heads, chunks and cuts at every place."""
    says = record(77, b"x", request=0) + record(STDERR, b"mess", padding=3) + record(STDOUT, b"Status: 103\n\nStat") + \
        record(STDOUT, b"us: 201 Made\nTransfer-Encoding: chunked\n\n3\r\nab", padding=255) + record(78, b"?") + \
        record(STDERR, b"age") + record(STDOUT, b"c\r\n0\r\n\r\n") + record(STDOUT) + record(STDERR) + end_request()

    def bytewise(_, connection):
        for i in range(len(says)):
            connection.sendall(says[i:i + 1])

    done = tool("get", peer(bytewise).path)
    assert (done.code, done.output, done.errors) == (0, b"abc", "message\n")


def test_application_status(tool, peer):
    done = tool("get", peer(answer(HEAD + b"ok", app=7)).path)
    assert done.code == 3 and done.output == b"ok" and "ended with appStatus 7" in done.errors


def test_answer_before_the_body_is_read(tool, lab):
    """It answers at once and closes: what is left of the body is nobody's."""
    def talk(_, connection):
        connection.recv(1)
        connection.sendall(answer(HEAD + b"no thanks"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    lab.file("body", bytes(4_000_000))
    it = Peer(lab, talk)
    try:
        done = tool("get", it.path, "-d", "@body")
        assert (done.code, done.output, done.errors) == (0, b"no thanks", "")
    finally:
        it.close()


def test_head_is_shown_as_it_came(tool, peer):
    head = b"Status: 200 Fine\nX-A:  b\nContent-Type: a/b\n\n"
    assert tool("get", peer(answer(head + b"body")).path, "-i").output == head + b"body"


# What is asked.

def test_unknown_question(tool, peer):
    it = peer(record(UNKNOWN_TYPE, b"\t" + bytes(7), request=0), last=GET_VALUES)
    done = tool("ping", it.path)
    assert done.code == 0 and done.text.endswith(": UNKNOWN_TYPE, so it does not know GET_VALUES\n")
    assert it.stream(GET_VALUES) == b"\x0e\0FCGI_MAX_CONNS\r\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS"
    done = tool("values", it.path)
    assert done.code == 2 and "does not know GET_VALUES" in done.errors


def test_strange_values(tool, peer):
    it = peer(record(GET_VALUES_RESULT, b"\x04\x05A\x1bBC1\n=23\xff\xff", request=0), last=GET_VALUES)
    done = tool("values", it.path)
    assert done.code == 2 and done.text == "A\\x1bBC=1\\x0a=23\n" and "malformed" in done.errors
    done = tool("ping", it.path)
    assert done.code == 2 and done.text.endswith(" A\\x1bBC=1\\x0a=23 and then what is malformed\n")


def test_another_answer_to_values(tool, peer):
    it = peer(answer(HEAD), last=GET_VALUES)
    for command in ("ping", "values"):
        done = tool(command, it.path)
        assert done.code == 2 and "answers GET_VALUES with something else: STDOUT id 1, 28 bytes" in done.errors


def test_authorizer(tool, peer):
    it = peer(answer(b"Status: 403 No\nContent-Type: a/b\n\n"))
    done = tool("get", it.path, "/srv/a.php", "-R", "authorizer", "-P", "ROUTE=x")
    assert done.code == 3 and "answered 403 No" in done.errors
    assert it.records[0] == (BEGIN_REQUEST, 1, b"\0\2\0\0\0\0\0\0")
    params = it.params()
    assert params["ROUTE"] == "x" and params["SCRIPT_FILENAME"] == "/srv/a.php"
    assert not {"SCRIPT_NAME", "PATH_INFO", "PATH_TRANSLATED", "CONTENT_LENGTH"} & set(params)


def test_filter(tool, peer, lab):
    data = os.urandom(100_000)
    lab.file("data", data)
    os.utime(lab.here("data"), (1, 1234567890))
    it = peer(answer(HEAD), last=DATA)
    assert tool("get", it.path, "-f", "data", "-d", "body").code == 0
    assert it.records[0] == (BEGIN_REQUEST, 1, b"\0\3\0\0\0\0\0\0")
    params = it.params()
    assert (params["FCGI_DATA_LENGTH"], params["FCGI_DATA_LAST_MOD"]) == ("100000", "1234567890")
    assert (params["CONTENT_LENGTH"], it.stream(STDIN), it.stream(DATA)) == ("4", b"body", data)


# The command line.

USAGE = [
    ([], "gatehouse fcgi get ADDR [SCRIPT]"),
    (["put"], 'fcgi has no command "put"'),
    (["get"], "it is fcgi get ADDR [SCRIPT]"),
    (["ping", "127.0.0.1:1", "more"], "it is fcgi ping ADDR"),
    (["ping", "127.0.0.1:1", "-i"], "fcgi ping takes no -i"),
    (["get", "127.0.0.1"], "127.0.0.1: needs a port"),
    (["get", "::1:90"], "an IPv6 address stands in brackets"),
    (["get", "127.0.0.1:1", "-t", "0"], 'no time from 1ms to 24h'),
    (["get", "127.0.0.1:1", "-m", "25h"], 'no time from 1ms to 24h'),
    (["get", "127.0.0.1:1", "-R", "judge"], "the role is responder, authorizer or filter"),
    (["get", "127.0.0.1:1", "-R", "filter"], "which needs it"),
    (["get", "127.0.0.1:1", "-R", "responder", "-f", "/dev/null"], "belongs to the role of a filter"),
    (["get", "127.0.0.1:1", "-H", "no field"], "without a colon"),
    (["get", "127.0.0.1:1", "-P", "=x"], "NAME=VALUE"),
    (["get", "127.0.0.1:1", "-u", "a"], "the url is a path"),
    (["get", "127.0.0.1:1", "-d", "a", "-d", "b"], "-d only once"),
    (["get", "127.0.0.1:1", "-d", "@nowhere"], "nowhere: No such file"),
    (["get", "127.0.0.1:1", "-d", "@/"], "/: Is a directory"),
    (["get", "127.0.0.1:1", "-P", "BIG=" + "x" * 70000], "BIG is longer than a FastCGI record"),
    (["get", "127.0.0.1:1", "--nonsense"], "see gatehouse fcgi --help"),
]


@pytest.mark.parametrize("words, complaint", USAGE, ids=[" ".join(words)[:40] for words, _ in USAGE])
def test_usage(tool, words, complaint):
    done = tool(*words)
    assert done.code == 1 and complaint in done.errors and done.output == b""


def test_help(tool):
    done = tool("--help")
    assert done.code == 0 and done.errors == ""
    for word in ("get ADDR [SCRIPT]", "ping ADDR", "values ADDR", "--request METHOD", "--max-time TIME"):
        assert word in done.text
    assert tool("get", "--help").text == done.text
    everything = subprocess.run([servers.BINARY, "--help"], stdout=subprocess.PIPE, timeout=PATIENCE, check=True).stdout
    assert b"gatehouse fcgi get|ping|values ADDR" in everything
