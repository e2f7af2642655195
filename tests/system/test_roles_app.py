"""The FastCGI application that judges roles and multiplexing, tests/apps/roles.c: it does what it says. No server is in
between: a client of FastCGI's records speaks to it."""

import json
import os
import re
import socket
import struct
import subprocess
import threading

import pytest

from processes import PATIENCE, kill_all, wait_for
from server import APPS

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, VALUES_RESULT, UNKNOWN_TYPE = range(1, 12)
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
COMPLETE, CANT_MPX, OVERLOADED, UNKNOWN_ROLE = range(4)


def record(kind, number, content=b"", padding=0):
    return struct.pack(">BBHHBx", 1, kind, number, len(content), padding) + content + bytes(padding)


def begin(number, role=RESPONDER, keep=True):
    return record(BEGIN, number, struct.pack(">HB5x", role, keep))


def length(n):
    return bytes([n]) if n < 128 else struct.pack(">I", n | 1 << 31)


def pairs(params):
    return b"".join(length(len(name)) + length(len(value)) + name.encode() + value.encode()
                    for name, value in params.items())


def stream(kind, number, content):
    pieces = [content[at:at + 65535] for at in range(0, len(content), 65535)]
    return b"".join(record(kind, number, piece) for piece in pieces) + record(kind, number)


def request(number, query="", role=RESPONDER, stdin=b"", data=None, keep=True, params=None):
    whole = begin(number, role, keep) + stream(PARAMS, number, pairs({"QUERY_STRING": query, **(params or {})}))
    if role != AUTHORIZER:
        whole += stream(STDIN, number, stdin)
    return whole + (stream(DATA, number, data) if data is not None else b"")


class Answer:
    def __init__(self):
        self.stdout, self.stderr, self.end = b"", b"", None

    @property
    def head(self):
        return self.stdout.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self):
        return self.stdout.partition(b"\r\n\r\n")[2]


class Connection:
    """Records over one connection."""

    def __init__(self, app):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(app.path)
        self.bytes = b""
        self.answers = {}
        self.order = []  # the ids of STDOUT records and of ends, as they came

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *data):
        self.socket.sendall(b"".join(data))

    def _exactly(self, n):
        while len(self.bytes) < n:
            data = self.socket.recv(262144)
            if not data:
                raise EOFError
            self.bytes += data
        taken, self.bytes = self.bytes[:n], self.bytes[n:]
        return taken

    def record(self):
        version, kind, number, n, padding = struct.unpack(">BBHHBx", self._exactly(8))
        assert version == 1
        return kind, number, self._exactly(n + padding)[:n]

    def take(self):
        """The next record, added to its answer."""
        kind, number, content = self.record()
        answer = self.answers.setdefault(number, Answer())
        if kind == STDOUT:
            answer.stdout += content
            self.order.append(number)
        elif kind == STDERR:
            answer.stderr += content
        elif kind == END:
            answer.end = struct.unpack(">IB3x", content)
            self.order.append(-number)
        else:
            raise AssertionError(f"a record of type {kind}")

    def answer(self, number):
        """The whole answer of one request; what else comes meanwhile is kept."""
        while number not in self.answers or self.answers[number].end is None:
            self.take()
        return self.answers.pop(number)

    def ask(self, *arguments, **more):
        self.send(request(*arguments, **more))
        return self.answer(arguments[0])

    def expect_end(self):
        """Nothing more is sent; what has come may be anything."""
        while self.socket.recv(65536):
            pass


class App:
    def __init__(self, program, lab, *options):
        self.path = lab.here(f"roles-{os.urandom(4).hex()}.sock")
        self.log_path = self.path + ".log"
        self.process = lab.helper([program, "--log", self.log_path, *options, "unix:" + self.path],
                                  stderr=subprocess.PIPE)
        wait_for(self._answers, "the application's socket")

    def _answers(self):
        try:
            Connection(self).socket.close()
        except OSError:
            return False
        return True

    def connect(self):
        return Connection(self)

    def events(self, event, **members):
        with open(self.log_path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file.read().rpartition("\n")[0].splitlines()]
        return [line for line in lines
                if line["event"] == event and all(line[name] == value for name, value in members.items())]

    def wait_event(self, event, **members):
        return wait_for(lambda: self.events(event, **members), f"the event {event} {members}")[0]

    def end(self):
        """It has not complained, and runs still."""
        assert self.process.poll() is None
        kill_all([self.process.pid])
        self.process.wait(PATIENCE)
        assert self.process.stderr.read() == b""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """It is compiled with the project's warnings, as errors, and with sanitizers."""
    path = str(tmp_path_factory.mktemp("roles") / "roles")
    warnings = ("-Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith "
                "-Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wconversion -Wno-sign-conversion "
                "-Werror").split()
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=all", *warnings, os.path.join(APPS, "roles.c"), "-o", path], check=True)
    return path


@pytest.fixture
def start(program, lab):
    """A function from options to a running application, whose good order at the end is looked at."""
    apps = []

    def start(*options):
        apps.append(App(program, lab, *options))
        return apps[-1]

    yield start
    for app in apps:
        app.end()


@pytest.fixture
def app(start):
    return start()


# Responder.

def test_words(app):
    with app.connect() as connection:
        assert connection.ask(1, "echo=1", stdin=b"hello").body == b"hello"
        assert connection.ask(1, "size=100000").body == b"x" * 100_000
        assert connection.ask(1, "stream=3").body == b"piece 1\npiece 2\npiece 3\n"
        env = connection.ask(1, "env=1", params={"B": "2", "A": "1", "LONG": "y" * 300}).body
        assert env == b"A=1\nB=2\nLONG=" + b"y" * 300 + b"\nQUERY_STRING=env=1\n"
        answer = connection.ask(1, "stderr=trouble&appstatus=300")
        assert (answer.stderr, answer.end) == (b"trouble\n", (300, COMPLETE))
        assert answer.head == "Content-Type: text/plain"
        answer = json.loads(connection.ask(9, "id=1").body)
        assert answer.pop("connection") > 0
        assert answer == {"id": 9, "on_connection": 1, "in_flight": 1, "connections": 1, "pid": app.process.pid}


def test_big_params_and_echo(app):
    """Params over several records, a pair in two of them; a body of which neither side holds all."""
    body = os.urandom(1 << 20)
    with app.connect() as connection:
        env = connection.ask(1, "env=1", params={"A": "a" * 70_000, "B": "b" * 70_000}).body
        assert env == b"A=" + b"a" * 70_000 + b"\nB=" + b"b" * 70_000 + b"\nQUERY_STRING=env=1\n"
        sender = threading.Thread(target=connection.send, args=(request(1, "echo=1", stdin=body),))
        sender.start()
        assert connection.answer(1).body == body
        sender.join()


def test_answers_are_interleaved(app):
    with app.connect() as connection:
        connection.send(*[request(number, "size=200000") for number in (1, 2, 3)])
        for number in (1, 2, 3):
            assert connection.answer(number).body == b"x" * 200_000
        first_end = min(connection.order.index(-number) for number in (1, 2, 3))
        assert {1, 2, 3} <= set(connection.order[:first_end])


def test_a_sleeper_stops_nobody(app):
    with app.connect() as connection:
        connection.send(request(1, "sleep=400&id=1"))
        for number in range(2, 40):
            assert json.loads(connection.ask(number, "id=1").body)["on_connection"] == 2
        assert -1 not in connection.order
        assert json.loads(connection.answer(1).body)["id"] == 1


def test_a_body_that_waits_stops_nobody(app):
    with app.connect() as connection:
        connection.send(begin(1), stream(PARAMS, 1, pairs({"QUERY_STRING": "echo=1"})), record(STDIN, 1, b"first"))
        assert connection.ask(2, "echo=1", stdin=b"second").body == b"second"
        connection.send(stream(STDIN, 1, b" last"))
        assert connection.answer(1).body == b"first last"


def test_without_keep_conn(app):
    with app.connect() as connection:
        connection.send(request(1, "sleep=50"), request(2, "echo=1", stdin=b"x", keep=False))
        assert connection.answer(2).body == b"x"
        assert connection.answer(1).end == (0, COMPLETE)
        connection.expect_end()


def test_no_keep(start):
    """It closes after the first answer, and the other is never given."""
    app = start("--no-keep")
    with app.connect() as connection:
        connection.send(request(1, "sleep=100000"), request(2, "size=100000"))
        assert connection.answer(2).body == b"x" * 100_000
        with pytest.raises((EOFError, ConnectionResetError)):
            connection.answer(1)
    assert app.wait_event("request", id=1)["outcome"] == "gone"
    with app.connect() as connection:
        assert connection.ask(1, "size=1").body == b"x"


def test_die(program, lab):
    app = App(program, lab)
    with app.connect() as connection:
        connection.send(request(1, "die=1"))
        connection.expect_end()
    assert app.process.wait(PATIENCE) == 7
    assert app.wait_event("request", outcome="die")


def test_wrong_and_late_ids(app):
    with app.connect() as connection:
        assert connection.ask(1, "wrongid=1&size=3").body == b"xxx"
        assert b"of a wrong id" in connection.answers.pop(60000).stdout
        assert connection.ask(1, "late=1").end == (0, COMPLETE)
        connection.take()
        assert connection.answers[1].stdout == b"too late\n"


def test_early_end(app):
    with app.connect() as connection:
        connection.send(begin(1), stream(PARAMS, 1, pairs({"QUERY_STRING": "early=1"})))
        assert connection.answer(1).end == (0, COMPLETE)
        connection.send(stream(STDIN, 1, b"late body"))
        assert connection.ask(1, "size=1").body == b"x"
    assert app.wait_event("stray", type=STDIN, length=9)


def test_abort(app):
    with app.connect() as connection:
        connection.send(request(1, "sleep=100000"), record(ABORT, 1))
        assert connection.answer(1).end == (0, COMPLETE)
        assert connection.ask(2, "size=1").body == b"x"
    assert app.wait_event("request", outcome="aborted")["id"] == 1


def test_ignored_abort(start):
    app = start("--ignore-abort")
    with app.connect() as connection:
        connection.send(request(1, "sleep=100&size=2"), record(ABORT, 1))
        assert connection.answer(1).body == b"xx"


# Authorizer and Filter.

@pytest.mark.parametrize("mode, status, head, body", [
    ("allow", "200", "Variable-REMOTE_USER: alice", b""), ("deny", "401", "WWW-Authenticate: Basic", b"denied\n"),
    ("redirect", "302", "Location: http://login.test/", b"log in\n"), ("error", "500", "", b"out of order\n"),
    ("body", "200", "Variable-REMOTE_USER: bob", b"this must not be seen\n"), ("hostile", "200", "Variable-: ", b""),
    ("forbid", "403", "", b"forbidden\n")])
@pytest.mark.parametrize("by", ["query", "field", "uri"])
def test_authorizer(app, by, mode, status, head, body):
    params = {"query": {"QUERY_STRING": f"a=deny&auth={mode}&b=deny"}, "field": {"HTTP_X_ROLE_TEST": mode},
              "uri": {"REQUEST_URI": f"/private/{mode}/x"}}[by]
    with app.connect() as connection:
        answer = connection.ask(1, role=AUTHORIZER, params=params)
        assert answer.stdout.startswith(b"Status: " + status.encode())
        assert head in answer.head and answer.body == body
    line = app.wait_event("request")
    assert (line["role"], line["stdin"], line["data"], line["flags"]) == ("authorizer", None, None, 1)
    assert dict(line["params"]) == {"QUERY_STRING": "", **params}


def test_strange_authorizers(app):
    with app.connect() as connection:
        assert connection.ask(1, "auth=nonsense", role=AUTHORIZER).stdout == b"this is no head\n"
        assert connection.ask(1, "auth=empty&auth-appstatus=3", role=AUTHORIZER).end == (3, COMPLETE)
        assert "LD_PRELOAD" in connection.ask(1, role=AUTHORIZER).head


def test_filter(app):
    params = {"FCGI_DATA_LENGTH": "200000", "FCGI_DATA_LAST_MOD": "4711"}
    data = os.urandom(200_000)
    with app.connect() as connection:
        connection.send(begin(1, FILTER), stream(PARAMS, 1, pairs(params)), record(STDIN, 1, b"some"))
        assert connection.ask(2, "size=1").body == b"x"
        connection.send(record(STDIN, 1), stream(DATA, 1, data))
        answer = connection.answer(1)
        assert answer.body == data.upper()
        assert answer.head.split("\r\n") == ["Content-Type: text/plain", "X-Data-Length: 200000", "X-Last-Mod: 4711",
                                             "X-Stdin-Length: 4"]
    line = app.wait_event("request", role="filter")
    assert (line["stdin"], line["data"], line["stdin_over"], line["data_over"]) == (4, 200_000, True, True)


# What it says of itself, and what it refuses.

def values(connection, *names):
    connection.send(record(GET_VALUES, 0, pairs({name: "" for name in names})))
    kind, number, content = connection.record()
    assert (kind, number) == (VALUES_RESULT, 0)
    found = {}
    while content:
        end = 2 + content[0] + content[1]
        found[content[2:2 + content[0]].decode()] = content[2 + content[0]:end].decode()
        content = content[end:]
    return found


ALL_VALUES = ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")


@pytest.mark.parametrize("options, expected", [
    ((), ("100", "50", "1")), (("--max-reqs", "3", "--max-conns", "2"), ("2", "3", "1")),
    (("--mpxs", "0"), ("100", "50", "0")), (("--cant-mpx",), ("100", "50", "1"))])
def test_values(start, options, expected):
    with start(*options).connect() as connection:
        assert values(connection, *ALL_VALUES) == dict(zip(ALL_VALUES, expected))
        assert values(connection, "FCGI_MPXS_CONNS", "X") == {"FCGI_MPXS_CONNS": expected[2]}
        assert connection.ask(1, "size=1").body == b"x"


def test_silent_and_closing_values(start):
    with start("--silent-values").connect() as connection:
        connection.send(record(GET_VALUES, 0, pairs({"FCGI_MAX_REQS": ""})))
        assert connection.ask(1, "size=1").body == b"x"
    with start("--close-values").connect() as connection:
        connection.send(record(GET_VALUES, 0, pairs({"FCGI_MAX_REQS": ""})))
        connection.expect_end()


@pytest.mark.parametrize("options", [("--mpxs", "0"), ("--cant-mpx",)])
def test_cannot_multiplex(start, options):
    app = start(*options)
    with app.connect() as connection, app.connect() as other:
        connection.send(request(1, "sleep=200&size=1"), request(2, "size=2"))
        assert connection.answer(2).end == (0, CANT_MPX)
        assert other.ask(1, "size=2").body == b"xx"
        assert connection.answer(1).body == b"x"
        assert connection.ask(2, "size=2").body == b"xx"


@pytest.mark.parametrize("options", [("--overloaded", "2"), ("--max-reqs", "2")])
def test_overloaded(start, options):
    app = start(*options)
    with app.connect() as connection, app.connect() as other:
        connection.send(request(1, "sleep=200"), request(2, "sleep=200"))
        connection.send(request(3))
        assert connection.answer(3).end == (0, OVERLOADED)
        assert other.ask(1).end == (0, OVERLOADED)
        assert connection.answer(1).end == connection.answer(2).end == (0, COMPLETE)
        assert other.ask(1).end == (0, COMPLETE)


def test_max_connections(start):
    """What is above the limit waits in the listener's queue."""
    app = start("--max-conns", "1")
    with app.connect() as connection, app.connect() as waiting:
        waiting.send(request(1, "id=1"))
        assert json.loads(connection.ask(1, "id=1").body)["connections"] == 1
        connection.socket.close()
        assert json.loads(waiting.answer(1).body)["connections"] == 1


def test_unknown_role_and_type(app):
    with app.connect() as connection:
        assert connection.ask(1, role=9).end == (0, UNKNOWN_ROLE)
        connection.send(record(77, 0, b"abc"))
        kind, number, content = connection.record()
        assert (kind, number, content[0], len(content)) == (UNKNOWN_TYPE, 0, 77, 8)
        connection.send(record(77, 1, b"abc"))
        assert connection.ask(1, "size=1").body == b"x"


# Hostile bytes.

@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n\r\n", record(BEGIN, 1, b"short"), begin(0), begin(1) + begin(1),
    begin(1) + record(PARAMS, 1, b"\x05\x05ab") + record(PARAMS, 1),
    begin(1) + record(PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff") + record(PARAMS, 1),
    begin(1) + record(PARAMS, 1, b"\x80") + record(PARAMS, 1), begin(1) + record(PARAMS, 1, b"\0\0" * 5000) +
    record(PARAMS, 1), begin(1) + record(PARAMS, 1, bytes(65535)) * 20,
    begin(1, FILTER) + stream(PARAMS, 1, b"") + record(DATA, 1, b"x"),
], ids=["http", "short", "null", "twice", "cut", "lengths", "length", "many", "big", "data"])
def test_hostile_bytes(app, data):
    with app.connect() as connection:
        try:
            connection.send(data)
            connection.expect_end()
        except (BrokenPipeError, ConnectionResetError):
            pass
    with app.connect() as connection:
        assert connection.ask(1, "size=1").body == b"x"


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_records_in_pieces(app, size):
    whole = request(1, "echo=1", stdin=b"some body") + record(STDIN, 5, b"stray", padding=255)
    with app.connect() as connection:
        for at in range(0, len(whole), size):
            connection.send(whole[at:at + size])
        assert connection.answer(1).body == b"some body"
        assert connection.ask(2, "size=1").body == b"x"


def test_a_peer_that_goes(app):
    with app.connect() as connection:
        connection.send(request(1, "size=100000000"), request(2, "stream=1000"), request(3, "sleep=100000"))
        connection.take()
    for number in (1, 2, 3):
        assert app.wait_event("request", id=number)["outcome"] == "gone"
    with app.connect() as connection:
        assert json.loads(connection.ask(1, "id=1").body)["in_flight"] == 1


def peak_kib(app):
    with open(f"/proc/{app.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])


@pytest.mark.parametrize("what", ["answers", "body", "values"])
def test_memory_is_bounded(app, what):
    """Answers that nobody reads, a body that nobody reads back, a flood of GET_VALUES: it reads no more."""
    data = {"answers": b"".join(request(number, "size=1000000000") for number in range(1, 40)),
            "body": request(1, "sleep=100000&echo=1", stdin=bytes(64 << 20)),
            "values": record(GET_VALUES, 0, pairs({name: "" for name in ALL_VALUES})) * 800_000}[what]
    before = peak_kib(app)
    with app.connect() as connection, app.connect() as other:
        connection.socket.settimeout(0.3)
        if what == "answers":
            connection.send(data)
        else:
            with pytest.raises(TimeoutError):
                connection.send(data)
        assert other.ask(1, "size=1").body == b"x"
        assert peak_kib(app) - before < 16384


def test_listens_where_it_is_told(program, lab):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = lab.helper([program], stdin=listening)
        address = listening.getsockname()
    own = lab.helper([program, "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    port = int(re.fullmatch(r"roles: listening on 127\.0\.0\.1:(\d+)\n", own.stderr.readline())[1])
    for place in (address, ("127.0.0.1", port)):
        with socket.create_connection(place, timeout=PATIENCE) as stream_socket:
            stream_socket.sendall(request(1, "size=3", keep=False))
            assert b"".join(iter(lambda: stream_socket.recv(65536), b"")).count(b"xxx") == 1
    kill_all([process.pid, own.pid])
