#!/usr/bin/env python3
"""Connection after connection of spoiled requests, and what the server is afterwards: the same processes, with the same
descriptors, and the memory of before.

  hostile.py --serve BINARY                              starts that server, with files, a CGI and a FastCGI program
  hostile.py --url http://127.0.0.1:PORT --pid KEEPER    takes one that is up
  hostile.py --seed S --show I                           prints what connection I of a run sends

What connection I does follows from the seed, I and the corpora. These are the files of --seeds but for their first two
bytes, with which the fuzzers' seeds begin, and the "send" of the cases in --cases. The last line is
`N connections, ...`; the exit status is 1 when something was wrong.
"""
import argparse
import collections
import errno
import glob
import itertools
import json
import os
import random
import re
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.parse

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEEDS = tuple(os.path.join(TESTS, "fuzz", "seeds", name) for name in ("head", "connection"))
sys.path.insert(0, os.path.join(TESTS, "system"))

import processes  # noqa: E402
from client import Client, Closed  # noqa: E402
from processes import wait_for  # noqa: E402

AT_ONCE = 4
PROBE_EVERY = 500        # connections
LONGEST = 65_536         # bytes of a connection
MOST_WRONG = 10          # then it is enough
SLACK = 3                # descriptors: a kept connection to a FastCGI program may be there or not
GROWTH_KIB = 4096        # of PSS, after the first tenth
ANSWER_S, QUIET_S = 0.05, 0.01  # for the first byte of an answer; for the next
WAIT_S = 2.0             # of the few who wait for the server to end it
STUCK_S = 30.0           # after our half of a connection has ended

CONFIG = """
    [site *]
    root = {root}
    [route /echo]
    gateway = cgi
    program = {cgi}/count
    queue_timeout = 60s
    [route /echo/*]
    gateway = cgi
    program = {cgi}/count
    queue_timeout = 60s
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    queue_timeout = 60s
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 3
    queue_timeout = 60s
"""

BASICS = [text.replace("\n", "\r\n").encode() for text in (
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET /1k.txt HTTP/1.1\nHost: a\nRange: bytes=0-0,5-9\nIf-None-Match: *\n\n",
    "HEAD /1k.txt HTTP/1.1\nHost: a\nAccept-Encoding: gzip\n\n",
    "GET /big HTTP/1.1\nHost: a\n\n",
    "GET /dir HTTP/1.0\nConnection: keep-alive\n\n",
    "GET http://a/%2e%2e/a%20b?c=d HTTP/1.1\nHost: a\n\n",
    "OPTIONS * HTTP/1.1\nHost: a\n\n",
    "GET /echo?bytes=300000 HTTP/1.1\nHost: a\n\n",
    "POST /echo?echo HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello",
    "POST /echo/more HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\nhello\na;x=y\n0123456789\n0\nT: u\n\n",
    "POST /echo HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 3\n\nabc",
    "GET /cgi-bin/die.sh HTTP/1.1\nHost: a\n\n",
    "GET /cgi-bin/stderr.sh HTTP/1.1\nHost: a\n\n",
    "POST /cgi-bin/deaf.sh HTTP/1.1\nHost: a\nContent-Length: 4000\n\n" + "x" * 4000,
    "POST /cgi-bin/cat.sh HTTP/1.1\nHost: a\nContent-Length: 9\n\nsome body",
    "GET /fcgi/?exit=1 HTTP/1.1\nHost: a\n\n",
    "GET /fcgi/?stderr=trouble&bytes=1000 HTTP/1.1\nHost: a\n\n",
    "POST /fcgi/?echo HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\nGET / HTTP/1.1\nHost: a\n\n",
)]

BAD_BYTES = b"\r\n\0\t :;,=/%?#\"\\\x7f\x80\xff-+0aA"
BAD_NUMBERS = [b"0", b"-1", b"+1", b"00000000000000000005", b"ffffffffffffffff", b"10000000000000000",
               b"7fffffffffffffff", b"4294967296", b"9223372036854775807", b"18446744073709551616",
               b"1e3", b"0x5", b"1 2", b"", b"99999"]
BAD_TEXTS = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
             b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Host: b\r\n", b"Range: bytes=-1,0-,1-1\r\n",
             b"0\r\n\r\n", b"Upgrade: h2c\r\n", b"X: " + b"y" * 20_000 + b"\r\n", b"/" * 5000, b"%00", b"%ff",
             b"../../../", b"HTTP/2.0", b"\x01\x01\0\x01\0\x08\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
             b"X: y\r\n" * 200]
TARGETS = [b"/", b"/1k.txt", b"/big", b"/echo", b"/echo/x", b"/echo?echo", b"/cgi-bin/cat.sh", b"/cgi-bin/die.sh",
           b"/fcgi/", b"/fcgi/?echo", b"/fcgi/?bytes=100000", b"/nothing"]

# What a connection does when it has sent its bytes, and of how many each is.
WAYS = {"read": 500, "half-close": 200, "leave": 120, "reset": 120, "deaf": 60, "wait": 1}


# ---- corpora ----

def case_bytes(steps):
    """The bytes that a case's "send" sends; its pauses and answers are left out."""
    sent = b""
    for step in steps:
        step = {"text": step} if isinstance(step, str) else step
        if "text" in step:
            sent += step["text"].encode("latin-1", "replace")
        elif "repeat" in step:
            n = min(step["times"], LONGEST // max(len(step["repeat"]), 1) + 1)
            sent += b"".join(step["repeat"].replace("{i}", str(i)).encode("latin-1", "replace") for i in range(n))
    return sent[:LONGEST]


def load(seeds=SEEDS, cases=()):
    """All corpora, in an order that is the same each time."""
    corpus = list(BASICS)
    for folder in seeds:
        for path in sorted(glob.glob(os.path.join(folder, "*"))):
            with open(path, "rb") as file:
                corpus.append(file.read(LONGEST)[2:])
    for folder in cases:
        for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
            with open(path, encoding="utf-8") as file:
                corpus += [case_bytes(case["send"]) for case in json.load(file)]
    return [data for data in corpus if data]


# ---- spoiling ----

def somewhere(rng, data):
    """Two positions, the first not behind the second, mostly near each other."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.expovariate(1 / 16)))


def flip_bit(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]


def set_byte(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice(BAD_BYTES)]) + data[at + 1:]


def cut_end(rng, data, _):
    return data[:rng.randrange(len(data) + 1)]


def cut_out(rng, data, _):
    start, end = somewhere(rng, data)
    return data[:start] + data[end:]


def insert(rng, data, _):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(BAD_TEXTS) + data[at:]


def insert_noise(rng, data, _):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 100, 5000))) + data[at:]


def repeat(rng, data, _):
    start, end = somewhere(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 10, 1000)) + data[end:]


def repeat_all(rng, data, _):
    return data * rng.choice((2, 3, 20))


def swap_lines(rng, data, _):
    lines = data.split(b"\r\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\r\n".join(lines)


def double_line(rng, data, _):
    lines = data.split(b"\r\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"\r\n".join(lines)


def splice(rng, data, corpus):
    other = rng.choice(corpus)
    return data[:rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)):]


def append_other(rng, data, corpus):
    return data + rng.choice(corpus)


def tamper_number(rng, data, _):
    """A chunk's size, a length, a range, a version: whatever looks like a number."""
    found = list(itertools.islice(re.finditer(rb"(?<![A-Za-z])[0-9a-fA-F]+(?![A-Za-z])", data), 1000))
    if not found:
        return data
    number = rng.choice(found)
    new = rng.choice(BAD_NUMBERS) if rng.random() < 0.6 else b"%x" % rng.randrange(300)
    return data[:number.start()] + new + data[number.end():]


def change_target(rng, data, _):
    return re.sub(rb"\A([A-Za-z]+) \S+", lambda match: match[1] + b" " + rng.choice(TARGETS), data, count=1)


SPOILERS = [flip_bit, set_byte, cut_end, cut_out, insert, insert_noise, repeat, repeat_all, swap_lines, double_line,
            splice, append_other, tamper_number, tamper_number, change_target]


class Plan:
    """What one connection is to send, in which pieces, and what it does then."""

    def __init__(self, seed, index, corpus):
        rng = random.Random(f"{seed}:{index}")
        data = rng.choice(BASICS if rng.random() < 0.3 else corpus)
        if rng.random() < 0.4:
            data = change_target(rng, data, corpus)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
            if data:
                data = rng.choice(SPOILERS)(rng, data, corpus)[:LONGEST]
        cuts = {0, len(data)}
        if rng.random() < 0.4:
            cuts.update(rng.randrange(len(data) + 1) for _ in range(rng.choice((1, 1, 2, 3, 10))))
        cuts = sorted(cuts)
        self.index = index
        self.pieces = [data[start:end] for start, end in zip(cuts, cuts[1:])]
        self.pauses = [rng.choice((0, 0, 0.0005, 0.002)) for _ in self.pieces]
        self.way = rng.choices(list(WAYS), WAYS.values())[0]
        self.hold = rng.uniform(0, 0.02)
        if self.way == "reset" and rng.random() < 0.5:
            del self.pieces[rng.randrange(len(self.pieces) + 1):]

    def __repr__(self):
        return f"connection {self.index} ({self.way})"


# ---- one connection ----

class Stuck(Exception):
    """The server neither answers nor closes."""


def read_on(sock, first_s, quiet_s, most=1 << 20):
    """What comes until the end, or until nothing comes for so long; and whether the end has come."""
    begin, n, wait = b"", 0, first_s
    while n < most:
        sock.settimeout(wait)
        try:
            data = sock.recv(65_536)
        except TimeoutError:
            return begin, False
        if not data:
            return begin, True
        begin = begin or data
        n, wait = n + len(data), quiet_s
    return begin, True


def finish(sock, plan):
    """The first bytes of what the server says."""
    if plan.way == "read":
        return read_on(sock, ANSWER_S, QUIET_S)[0]
    if plan.way == "wait":
        return read_on(sock, WAIT_S, WAIT_S)[0]
    if plan.way == "half-close":
        sock.shutdown(socket.SHUT_WR)
        begin, is_over = read_on(sock, STUCK_S, STUCK_S)
        if not is_over:
            raise Stuck(f"{plan}: still open {STUCK_S:g} s after its half was closed")
        return begin
    if plan.way == "deaf":
        time.sleep(plan.hold)
    if plan.way in ("reset", "deaf"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return b""


def connect_and_send(address, plan):
    """Does as the plan says; returns the first bytes that came back."""
    with socket.socket() as sock:
        sock.settimeout(processes.PATIENCE)
        if plan.way == "deaf":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.settimeout(0.02 if plan.way == "deaf" else STUCK_S)
            for piece, pause in zip(plan.pieces, plan.pauses):
                sock.sendall(piece)
                if pause > 0:
                    time.sleep(pause)
            return finish(sock, plan)
        except (BrokenPipeError, ConnectionResetError):
            return b""  # it has refused us, which is its right
        except TimeoutError as error:
            if plan.way == "deaf":
                return b""
            raise Stuck(f"{plan}: it does not read") from error
        except OSError as error:
            if error.errno == errno.ENOTCONN:  # it was faster than our shutdown()
                return b""
            raise


# ---- the server ----

class Target:
    """The server that is attacked: where it listens, its keeper's process, and the requests that must go well."""

    def __init__(self, port, pid, probes=None):
        self.address = ("127.0.0.1", port)
        self.pid = pid
        self.probes = probes or [probe_any]
        self.exe = processes.exe(pid)
        self.is_sanitized = is_sanitized(f"/proc/{pid}/exe")

    def own(self):
        """The server's own processes, the keeper first; the rest are programs."""
        return [self.pid] + sorted(pid for pid in processes.descendants(self.pid) if processes.exe(pid) == self.exe)

    def programs(self):
        return sorted(set(processes.descendants(self.pid)) - set(self.own()))

    def probe(self):
        for probe in self.probes:
            probe(self)

    def request(self, method, target, body=None):
        with Client(self.address[1], patience=60) as client:
            return client.request(method, target, body)

    def settle(self, n_programs=None):
        """Waits until nothing is under way, with so many programs that stay."""
        wait_for(lambda: processes.tcp_connections(self.own()) == 0, "the end of all connections", 60)
        wait_for(lambda: not any(map(processes.is_zombie, processes.descendants(self.pid))), "the end of all zombies")
        if n_programs is not None:
            wait_for(lambda: len(self.programs()) == n_programs, f"{n_programs} programs", 60)

    def descriptors(self):
        """How many each process has. Files that are kept open for the next who asks are not counted."""
        return {pid: sum(not os.path.isfile(what) for what in processes.descriptors(pid).values())
                for pid in self.own()}


def is_sanitized(path):
    with open(path, "rb") as file:
        return b"__asan_init" in file.read()


def probe_any(target):
    response = target.request("GET", "/")
    assert response.status < 500, response


def probe_file(target):
    response = target.request("GET", "/1k.txt")
    assert response.status == 200 and response.body == b"0123456789abcdef" * 64, response


def probe_cgi(target):
    response = target.request("POST", "/echo?echo", b"a good body")
    assert response.status == 200 and response.body == b"a good body", response


def probe_fastcgi(target):
    """The attack makes these programs exit, too: while none is left, 503 says so."""
    def ask():
        response = target.request("POST", "/fcgi/?echo", b"another" * 1000)
        assert response.status != 503 or response.get("retry-after"), response
        return response if response.status != 503 else None

    response = wait_for(ask, "a FastCGI program")
    assert response.status == 200 and response.body == b"another" * 1000, response


def serve(lab):
    """Starts a server with every kind of route in a lab of tests/system, and takes it for the target."""
    lab.file("root/index.html", "<!doctype html><title>a</title>\n")
    lab.file("root/dir/index.html", "<!doctype html><title>b</title>\n")
    lab.file("root/1k.txt", "0123456789abcdef" * 64)
    lab.file("root/big", b"x" * 3_000_000)
    server = lab.serve(CONFIG, fronts=2, access_log="off", header_timeout="1s", body_timeout="1s",
                       keepalive_timeout="1s")
    wait_for(lambda: len(server.fronts()) == 2 and len(server.running("count")) == 3, "all processes")
    return Target(server.port, server.pid, [probe_file, probe_cgi, probe_fastcgi])


# ---- the attack ----

def weigh(pids):
    """(RSS, PSS in KiB, descriptors) of these together."""
    rss = sum(int(match[1]) for pid in pids
              if (match := re.search(r"^VmRSS:\s+(\d+) kB", processes.read(f"/proc/{pid}/status"), re.M)))
    return rss, sum(map(processes.pss_kib, pids)), sum(len(processes.descriptors(pid)) for pid in pids)


class Attack:
    def __init__(self, target, n, seed=1, corpus=None, first=0, growth_kib=GROWTH_KIB, say=print):
        self.target, self.n, self.seed, self.say = target, n, seed, say
        self.corpus = corpus or load()
        self.growth_kib = growth_kib
        self.next = iter(range(first, first + n))
        self.lock = threading.Lock()
        self.n_done = self.n_probes = 0
        self.answers = collections.Counter()
        self.wrong = []

    def complain(self, text):
        with self.lock:
            self.wrong.append(text)

    def _gone(self):
        """Those of the server's processes that are no more. A program on its way to exec looks like one, too."""
        return set(self.before) - set(self.target.own())

    # In the threads.

    def _take(self):
        with self.lock:
            return None if len(self.wrong) >= MOST_WRONG else next(self.next, None)

    def _note(self, plan, begin):
        status = re.match(rb"HTTP/1\.1 ([1-5])[0-9][0-9] ", begin)
        if begin and not status and not b"HTTP/1.1 100 ".startswith(begin[:9]):
            self.complain(f"{plan}: no answer: {begin[:60]!r}")
        with self.lock:
            self.n_done += 1
            self.answers[status[1].decode() + "xx" if status else "none"] += 1

    def _probe(self):
        self.target.probe()
        if gone := self._gone():
            self.complain(f"gone, about at connection {self.n_done}: {gone}")
        with self.lock:
            self.n_probes += 1

    def _work(self):
        while (index := self._take()) is not None:
            plan = Plan(self.seed, index, self.corpus)
            try:
                self._note(plan, connect_and_send(self.target.address, plan))
                if index % PROBE_EVERY == 0:
                    self._probe()
            except (OSError, Closed, AssertionError, Stuck) as error:
                self.complain(f"{plan}: {error!r}")

    # Beside them.

    def _row(self, started):
        row = [self.n_done, round(time.monotonic() - started), *weigh(self.before[:1]), *weigh(self.before[1:]),
               len(set(processes.descendants(self.target.pid)) - set(self.before))]
        self.say(" ".join(f"{value:>8}" for value in row) +
                 "   " + " ".join(f"{kind} {count}" for kind, count in sorted(self.answers.items())))
        return row[3] + row[6]

    def _watch(self, threads):
        """Tells how it goes, ten times; the PSS at the first tenth."""
        started, marks = time.monotonic(), [self.n * tenth // 10 for tenth in range(1, 11)]
        early = None
        names = ("done", "seconds", "rss", "pss", "fds", "rss", "pss", "fds", "programs")
        self.say(" " * 18 + "keeper, KiB".center(26) + " " + "fronts and warden, KiB".center(26) + "\n" +
                 " ".join(f"{name:>8}" for name in names))
        self._row(started)
        while alive := [thread for thread in threads if thread.is_alive()]:
            alive[0].join(0.1)
            if marks and self.n_done >= marks[0]:
                pss = self._row(started)
                early = early or pss
                marks = [mark for mark in marks if mark > self.n_done]
        return early

    def run(self):
        """True when nothing was wrong."""
        for _ in range(20):
            self.target.probe()
        self.target.settle()
        self.before = self.target.own()
        n_programs, descriptors = len(self.target.programs()), self.target.descriptors()
        threads = [threading.Thread(target=self._work) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        early = self._watch(threads)
        growth = more = 0
        try:
            self.target.probe()
            self.target.settle(n_programs)
            assert not self._gone(), f"gone: {self._gone()}"
            growth, more = self._compare(early, descriptors)
        except (OSError, Closed, AssertionError) as error:
            self.complain(f"at the end: {error!r}")
        for text in self.wrong:
            self.say("wrong: " + text)
        self.say(f"{self.n_done} connections, {self.n_probes} good requests of each kind between them, "
                 f"{len(self.wrong)} wrong, {growth:+} KiB, {more:+} descriptors")
        return not self.wrong

    def _compare(self, early, before):
        after = self.target.descriptors()
        for pid, count in before.items():
            if after[pid] > count + SLACK:
                self.complain(f"descriptors of {pid} {processes.comm(pid)}: {after[pid]}, and {count} before")
        growth = sum(map(processes.pss_kib, self.before)) - (early or 0)
        if early and growth > self.growth_kib and not self.target.is_sanitized:
            self.complain(f"memory has grown by {growth} KiB since the first tenth")
        return growth, sum(after.values()) - sum(before.values())


# ---- the command line ----

def attack_own(binary, attack):
    """Runs the attack on a server that is started for it in a folder of its own, and ended."""
    os.environ["GATEHOUSE"] = os.path.abspath(binary)
    import server  # pylint: disable=import-outside-toplevel
    processes.adopt_orphans()
    apps = tempfile.mkdtemp(prefix="gh-apps-")
    os.chmod(apps, 0o755)
    try:
        server.build_apps(apps)
        lab = server.Lab(apps)
        try:
            return attack(serve(lab))
        finally:
            lab.close()
    finally:
        shutil.rmtree(apps)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--serve", metavar="BINARY", help="the server to start")
    ask.add_argument("--url", help="http://127.0.0.1:PORT of one that is up")
    ask.add_argument("--pid", type=int, help="... and its keeper")
    ask.add_argument("-n", type=int, default=100_000, help="how many connections (100000)")
    ask.add_argument("--seed", default="1", help="another seed is another run (1)")
    ask.add_argument("--first", type=int, default=0, help="begin with this connection (0)")
    ask.add_argument("--seeds", action="append", metavar="DIR", help="messages, a file each (the fuzzers' seeds)")
    ask.add_argument("--cases", action="append", metavar="DIR", default=[], help="cases, in JSON files")
    ask.add_argument("--growth", type=int, metavar="KIB", default=GROWTH_KIB, help=f"memory it may take ({GROWTH_KIB})")
    ask.add_argument("--show", type=int, metavar="I", help="print what connection I sends, and exit")
    args = ask.parse_args()
    corpus = load(args.seeds or SEEDS, args.cases)
    if args.show is not None:
        plan = Plan(args.seed, args.show, corpus)
        print(plan, *plan.pieces, sep="\n")
        return 0

    def attack(target):
        print(f"seed {args.seed}, {len(corpus)} messages to spoil", flush=True)
        return Attack(target, args.n, args.seed, corpus, args.first, args.growth,
                      lambda text: print(text, flush=True)).run()

    if args.serve:
        return 0 if attack_own(args.serve, attack) else 1
    if not args.url or not args.pid:
        ask.error("--serve BINARY, or --url and --pid")
    return 0 if attack(Target(urllib.parse.urlsplit(args.url).port, args.pid)) else 1


if __name__ == "__main__":
    sys.exit(main())
