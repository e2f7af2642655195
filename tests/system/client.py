"""A strict HTTP/1.1 client over a raw socket: it sends the bytes that it is given, and takes nothing for an answer that
RFC 9112 does not call one. Every wait has a deadline."""

import re
import socket
import struct

PATIENCE = 20.0

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ([\t -~\x80-\xff]*)\Z")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*(.*?)[\t ]*\Z")
SINGLE = {"content-length", "content-type", "date", "etag", "last-modified", "location", "server", "transfer-encoding",
          "x-request-id", "retry-after", "allow"}


class ProtocolError(AssertionError):
    """The server sent what is no answer."""


class Closed(Exception):
    """The connection ended where a message should have gone on."""


class Response:
    def __init__(self, status, reason, fields):
        self.status = status
        self.reason = reason
        self.fields = fields
        self.interim = []
        self.body = b""

    def get(self, name, default=None):
        values = [value for field, value in self.fields if field == name.lower()]
        return values[0] if values else default

    def all(self, name):
        return [value for field, value in self.fields if field == name.lower()]

    @property
    def id(self):
        """The request's id, which the server has given it."""
        value = self.get("x-request-id")
        assert value, f"no X-Request-Id: {self}"
        return value

    @property
    def text(self):
        return self.body.decode()

    @property
    def closes(self):
        return "close" in self.get("connection", "").lower()

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.fields} {self.body[:200]!r}>"


class Client:
    def __init__(self, port, host="127.0.0.1", patience=PATIENCE):
        self.socket = socket.create_connection((host, port), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = f"{host}:{port}"
        self.bytes = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end_sending(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data)

    def send_request(self, method, target, body=None, fields=(), chunked=False, host=None):
        names = {name.lower() for name, _ in fields}
        lines = [f"{method} {target} HTTP/1.1".encode()]
        if "host" not in names:
            lines.append(b"Host: " + (host or self.host).encode())
        if chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif body is not None and "content-length" not in names:
            lines.append(b"Content-Length: %d" % len(body))
        lines += [f"{name}: {value}".encode("latin-1") for name, value in fields]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if body is None:
            self.send(head)
        elif not chunked:
            self.send(head + body)
        else:
            self.send(head)
            self.send_chunks(body)

    def send_chunks(self, body, size=10007):
        for at in range(0, len(body), size):
            piece = body[at:at + size]
            self.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.send(b"0\r\n\r\n")

    def request(self, method, target, body=None, **more):
        self.send_request(method, target, body, **more)
        return self.read(method)

    def get(self, target, **more):
        return self.request("GET", target, **more)

    # Reading.

    def _more(self):
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError as error:
            raise Closed(f"reset, after {self.bytes[:200]!r}") from error
        if not data:
            raise Closed(f"end, after {self.bytes[:200]!r}")
        self.bytes += data

    def _line(self):
        while (end := self.bytes.find(b"\n")) < 0:
            if len(self.bytes) > 100_000:
                raise ProtocolError("a line without an end")
            self._more()
        line, self.bytes = self.bytes[:end], self.bytes[end + 1:]
        if not line.endswith(b"\r"):
            raise ProtocolError(f"a line that ends in LF alone: {line!r}")
        line = line[:-1]
        if b"\r" in line or b"\0" in line:
            raise ProtocolError(f"CR or NUL within a line: {line!r}")
        return line

    def _head(self):
        line = self._line()
        match = STATUS_LINE.match(line)
        if not match:
            raise ProtocolError(f"no status line: {line!r}")
        fields = []
        while line := self._line():
            field = FIELD.match(line)
            if not field:
                raise ProtocolError(f"no field: {line!r}")
            name = field[1].decode().lower()
            if name in SINGLE and any(name == other for other, _ in fields):
                raise ProtocolError(f"{name} comes twice")
            fields.append((name, field[2].decode("latin-1")))
        return Response(int(match[1]), match[2].decode("latin-1"), fields)

    def read_head(self):
        """The next final head; those before it are in .interim."""
        interim = []
        while (response := self._head()).status < 200:
            if response.get("content-length") or response.get("transfer-encoding"):
                raise ProtocolError(f"a body for {response}")
            interim.append(response)
        response.interim = interim
        if "date" not in dict(response.fields):
            raise ProtocolError(f"no Date in {response}")
        return response

    def body_pieces(self, response, method="GET"):
        """The pieces of the body as they come."""
        length, coding = response.get("content-length"), response.get("transfer-encoding")
        if length is not None and (coding is not None or not length.isdigit()):
            raise ProtocolError(f"bad framing: {response}")
        if response.status in (204, 304) and (coding or (length and response.status == 204)):
            raise ProtocolError(f"framing where no body can be: {response}")
        if method == "HEAD" or response.status in (204, 304):
            return
        if coding is not None:
            if coding != "chunked":
                raise ProtocolError(f"unknown coding: {response}")
            yield from self._chunks()
        elif length is not None:
            yield from self._exactly(int(length))
        else:
            if not response.closes:
                raise ProtocolError(f"a body without an end: {response}")
            yield from self._rest()

    def _exactly(self, n):
        while n > 0:
            if not self.bytes:
                self._more()
            piece, self.bytes = self.bytes[:n], self.bytes[n:]
            n -= len(piece)
            yield piece

    def _chunks(self):
        while True:
            line = self._line()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
                raise ProtocolError(f"no chunk size: {line!r}")
            size = int(line, 16)
            yield from self._exactly(size)
            if self._line():
                raise ProtocolError("a chunk without its end, or trailers")
            if size == 0:
                return

    def _rest(self):
        while True:
            if self.bytes:
                piece, self.bytes = self.bytes, b""
                yield piece
            try:
                data = self.socket.recv(262144)
            except ConnectionResetError as error:
                raise Closed("reset within a body that ends with the connection") from error
            if not data:
                return
            yield data

    def read(self, method="GET"):
        """The next whole answer."""
        response = self.read_head()
        response.body = b"".join(self.body_pieces(response, method))
        return response

    def expect_close(self):
        """Nothing more comes but the end."""
        try:
            data = self.bytes or self.socket.recv(4096)
        except ConnectionResetError:
            return
        if data:
            raise ProtocolError(f"bytes after the last answer: {data[:300]!r}")

    def expect_nothing(self):
        """Nothing has come that belongs to no answer; the connection may go on."""
        self.socket.setblocking(False)
        try:
            data = self.bytes or self.socket.recv(4096)
        except BlockingIOError:
            return
        finally:
            self.socket.settimeout(PATIENCE)
        raise ProtocolError(f"bytes or an end that were not due: {data[:300]!r}")
