#!/usr/bin/python3
"""
A FastCGI application that keeps a journal of its life, spoken without a library: one connection at a time, one request
at a time on it. It says "pid=4711 count=3 style=...".

The environment that it is started with:
  LIFE_JOURNAL=PATH  lines are added to that file: "start PID", "asked PID" (what it offers), "began PID QUERY",
                     "beside PID PID..." and "end PID" when it is told to end: the other children of its parent
  LIFE_STYLE=WORDS   close: closes each connection after its answer; deaf: takes no connection; dead: exits with
                     status 3 at once; mute: reads, but never answers; leak=KIB: keeps so much more after each request

Words of the query, joined by "&":
  started=PATH  makes the file PATH, with the process's id in it;  wait=PATH  answers only when the file PATH is there
"""

import os
import signal
import socket
import struct
import sys
import time

BEGIN, END, PARAMS, STDIN, STDOUT, GET_VALUES, GET_VALUES_RESULT = 1, 3, 4, 5, 6, 9, 10
JOURNAL = os.environ.get("LIFE_JOURNAL")
STYLE = dict(word.partition("=")[::2] for word in os.environ.get("LIFE_STYLE", "").split())


def note(*words):
    if JOURNAL:
        line = " ".join(map(str, words)) + "\n"
        file = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, line.encode())
        os.close(file)


def siblings():
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="latin-1") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX" and int(parent) == os.getppid():
            found.append(int(name))
    return found


def on_end(*_):
    note("beside", os.getpid(), *siblings())
    note("end", os.getpid())
    os._exit(0)


def read(connection, n):
    data = b""
    while len(data) < n:
        piece = connection.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_record(connection):
    _, kind, request, length, padding = struct.unpack("!BBHHBx", read(connection, 8))
    return kind, request, read(connection, length + padding)[:length]


def record(kind, request, content=b""):
    return struct.pack("!BBHHBx", 1, kind, request, len(content), 0) + content


def pairs(data):
    found = {}
    while data:
        sizes = []
        for _ in range(2):
            n = 4 if data[0] & 0x80 else 1
            sizes.append(int.from_bytes(data[:n], "big") & 0x7fffffff)
            data = data[n:]
        name, value, data = data[:sizes[0]], data[sizes[0]:sum(sizes)], data[sum(sizes):]
        found[name.decode()] = value.decode("latin-1")
    return found


def work(query):
    words = dict(word.partition("=")[::2] for word in query.split("&"))
    note("began", os.getpid(), query)
    if "started" in words:
        with open(words["started"] + ".draft", "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.rename(words["started"] + ".draft", words["started"])
    while "wait" in words and not os.path.exists(words["wait"]):
        time.sleep(0.002)


class Life:
    def __init__(self):
        self.count = 0
        self.kept = []

    def answer(self, connection, request, params):
        work(params.get("QUERY_STRING", ""))
        self.count += 1
        self.kept.append(os.urandom(1024) * int(STYLE.get("leak", 0)))
        text = f"Content-Type: text/plain\r\n\r\npid={os.getpid()} count={self.count} style={','.join(STYLE)}\n"
        connection.sendall(record(STDOUT, request, text.encode()) + record(STDOUT, request) +
                           record(END, request, bytes(8)))

    def serve(self, connection):
        params, keeps = b"", False
        while True:
            kind, request, content = read_record(connection)
            if "mute" in STYLE:
                continue
            if kind == GET_VALUES:
                note("asked", os.getpid())
                connection.sendall(record(GET_VALUES_RESULT, 0))
            elif kind == BEGIN:
                params, keeps = b"", bool(content[2] & 1)
            elif kind == PARAMS:
                params += content
            elif kind == STDIN and not content:
                self.answer(connection, request, pairs(params))
                if not keeps or "close" in STYLE:
                    return


def main():
    signal.signal(signal.SIGTERM, on_end)
    note("start", os.getpid())
    if "dead" in STYLE:
        sys.exit(3)
    while "deaf" in STYLE:
        signal.pause()
    listener, life = socket.socket(fileno=0), Life()
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                life.serve(connection)
            except (EOFError, ConnectionError):
                pass


main()
