"""What stands on the other side of `server =`: FastCGI applications that tests own, and a resolver for their names."""

import ipaddress
import selectors
import socket
import struct
import threading
import time

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT = 1, 2, 3, 4, 5, 6
OVERLOADED = 2


def record(kind, number, content=b""):
    return struct.pack(">BBHHBx", 1, kind, number, len(content), 0) + content


def pairs(content):
    found, at = {}, 0

    def length():
        nonlocal at
        n = content[at]
        at += 1
        if n >= 128:
            n = int.from_bytes(content[at - 1:at + 3], "big") & 0x7fffffff
            at += 3
        return n

    while at < len(content):
        n_name, n_value = length(), length()
        name = content[at:at + n_name].decode("latin-1")
        found[name] = content[at + n_name:at + n_name + n_value].decode("latin-1")
        at += n_name + n_value
    return found


class Connection:
    def __init__(self, peer):
        self.socket = peer
        self.bytes = b""
        self.params = b""
        self.body = b""
        self.keeps = False


class App:
    """One application. It answers each request with its name, as soon as .gate is set. One thread serves all of its
    connections, so that what it counts is exact: a connection that the other end has closed is not counted any more
    when the next comes."""

    def __init__(self, name, listening=None, host="127.0.0.1", port=0, path=None):
        self.name = name
        self.host, self.path, self.port = host, path, port
        self.gate = threading.Event()
        self.gate.set()
        self.overloaded = False
        self.status = 200
        self.health = 200       # of requests whose SCRIPT_NAME is /ping
        self.closes = False     # each connection without a byte, once a request has come
        self.requests = []      # the variables of each
        self.pings = []         # ... of health requests, with the time
        self.open = {}
        self.held = []
        self.most = 0           # connections at once, ever
        self.accepted = 0
        self.lock = threading.Condition()
        self.listening = None
        self.wake, self.waker = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.is_over = False
        if listening is not None:
            self._take(listening)
        else:
            self.listen()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # What tests do.

    @property
    def address(self):
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def listen(self):
        """From now on connections are accepted, again."""
        if self.path:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(self.path)
        else:
            listening = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
        listening.listen(256)
        self._take(listening)

    def _take(self, listening):
        listening.setblocking(False)
        self.listening = listening
        if not self.path:
            self.port = listening.getsockname()[1]
        self.selector.register(listening, selectors.EVENT_READ)
        self._nudge()

    def refuse(self):
        """From now on nobody listens; what is connected stays."""
        self.selector.unregister(self.listening)
        self.listening.close()
        self.listening = None

    def release(self):
        """Answers what waits at the gate, and lets all through from now on."""
        self.gate.set()
        self._nudge()

    def answer_one(self):
        """Answers the first that waits at the gate, which stays shut."""
        with self.lock:
            connection, number = self.held.pop(0)
        self._answer(connection, number)

    def wait(self, condition, patience=20):
        with self.lock:
            assert self.lock.wait_for(condition, patience), f"{self.name}: in vain; {len(self.requests)} requests"

    def wait_requests(self, n):
        self.wait(lambda: len(self.requests) >= n)

    def stop(self):
        self.is_over = True
        self._nudge()
        self.thread.join()
        for connection in list(self.open.values()):
            connection.socket.close()
        if self.listening is not None:
            self.listening.close()
        self.selector.close()
        self.wake.close()
        self.waker.close()

    def _nudge(self):
        self.waker.send(b"x")

    # The thread.

    def _run(self):
        while not self.is_over:
            ready = [key.fileobj for key, _ in self.selector.select()]
            for one in sorted(ready, key=lambda one: one is self.listening):  # ends before beginnings
                if one is self.wake:
                    one.recv(4096)
                    if self.gate.is_set():
                        self._answer_all()
                elif one is self.listening:
                    self._accept()
                elif one.fileno() in self.open:
                    self._read(self.open[one.fileno()])

    def _answer_all(self):
        with self.lock:
            held, self.held = self.held, []
        for connection, number in held:
            self._answer(connection, number)

    def _accept(self):
        try:
            peer, _ = self.listening.accept()
        except (OSError, AttributeError):
            return
        for other in list(self.open.values()):
            self._read(other)
        peer.setblocking(False)
        with self.lock:
            self.accepted += 1
            self.open[peer.fileno()] = Connection(peer)
            self.most = max(self.most, len(self.open))
            self.lock.notify_all()
        self.selector.register(peer, selectors.EVENT_READ)

    def _close(self, connection):
        with self.lock:
            if connection.socket.fileno() not in self.open:
                return
            self.selector.unregister(connection.socket)
            del self.open[connection.socket.fileno()]
            self.held = [one for one in self.held if one[0] is not connection]
            self.lock.notify_all()
        connection.socket.close()

    def _read(self, connection):
        try:
            piece = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._close(connection)
            return
        connection.bytes += piece
        while len(connection.bytes) >= 8:
            _, kind, number, length, padding = struct.unpack(">BBHHBx", connection.bytes[:8])
            if len(connection.bytes) < 8 + length + padding:
                return
            content = connection.bytes[8:8 + length]
            connection.bytes = connection.bytes[8 + length + padding:]
            self._record(connection, kind, number, content)

    def _record(self, connection, kind, number, content):
        if kind == BEGIN:
            connection.keeps = bool(content[2] & 1)
            connection.params = connection.body = b""
        elif kind == PARAMS:
            connection.params += content
        elif kind == STDIN and content:
            connection.body += content
        elif kind == STDIN:
            self._request(connection, number)

    def _request(self, connection, number):
        params = pairs(connection.params)
        params["body"] = connection.body
        is_ping = params.get("SCRIPT_NAME") == "/ping" and "health" in params.get("HTTP_USER_AGENT", "")
        connection.status = self.health if is_ping else self.status
        with self.lock:
            if is_ping:
                self.pings.append((time.monotonic(), params))
            else:
                self.requests.append(params)
            is_held = not is_ping and not self.gate.is_set()
            if is_held:
                self.held.append((connection, number))
            self.lock.notify_all()
        if self.closes and not is_ping:
            self._close(connection)
        elif not is_held:
            self._answer(connection, number)

    def _answer(self, connection, number):
        if self.overloaded:
            answer = record(END, number, struct.pack(">IB3x", 0, OVERLOADED))
        else:
            head = f"Status: {connection.status}\r\nContent-Type: text/plain\r\n\r\n{self.name}".encode()
            answer = record(STDOUT, number, head) + record(STDOUT, number) + \
                record(END, number, struct.pack(">IB3x", 0, 0))
        try:
            connection.socket.sendall(answer)
        except OSError:
            pass
        if not connection.keeps:
            self._close(connection)


# Names.

A, CNAME, AAAA, SRV = 1, 5, 28, 33


def encode_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def address_record(text, ttl):
    address = ipaddress.ip_address(text)
    return (A if address.version == 4 else AAAA, ttl, address.packed)


def srv_record(priority, weight, port, host, ttl):
    return (SRV, ttl, struct.pack(">HHH", priority, weight, port) + encode_name(host))


class Resolver:
    """A DNS server on a port of its own, by UDP. .records: {name: [(type, ttl, data)]}. .mode: "answer", or what it
    does instead: "fail" (SERVFAIL), "silent", "garbage", "cut" (half of the right answer), "counts" (more records
    promised than there are)."""

    def __init__(self, records=None, host="127.0.0.1"):
        self.records = dict(records or {})
        self.mode = "answer"
        self.n_asked = 0
        self.lock = threading.Condition()
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.port = self.socket.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self):
        self.mode = "over"
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()

    def wait_asked(self, n, patience=20):
        """It is asked n times more."""
        with self.lock:
            wanted = self.n_asked + n
            assert self.lock.wait_for(lambda: self.n_asked >= wanted, patience), "nobody asks the resolver"

    def _run(self):
        while True:
            question, client = self.socket.recvfrom(4096)
            if self.mode == "over":
                return
            if len(question) < 12:
                continue
            answer = self._answer(question)
            if answer is not None:
                self.socket.sendto(answer, client)
            with self.lock:
                self.n_asked += 1
                self.lock.notify_all()

    def _answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        kind = struct.unpack(">H", question[at + 1:at + 3])[0]
        name, asked = ".".join(labels).lower(), question[12:at + 5]
        if self.mode == "silent":
            return None
        if self.mode == "garbage":
            return question[:2] + b"\x81\x80" + b"\xff" * 60
        if self.mode == "fail":
            return question[:2] + struct.pack(">HHHHH", 0x8182, 1, 0, 0, 0) + asked
        known = self.records.get(name)
        fitting = [one for one in known or [] if one[0] in (kind, CNAME)]
        code = 3 if known is None else 0
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", one, 1, ttl, len(data)) + data for one, ttl, data in fitting)
        count = len(fitting) + (7 if self.mode == "counts" else 0)
        answer = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, count, 0, 0) + asked + body
        return answer[:len(answer) // 2] if self.mode == "cut" else answer
