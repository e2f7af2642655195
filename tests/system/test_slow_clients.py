"""A thousand clients that are as slow as they can be, by slowhttptest: meanwhile everybody else is served, and when
they have gone, or have been sent away, nothing of them is left."""

import contextlib
import csv
import os
import random
import resource
import shutil
import subprocess
import threading

import pytest

import processes
from client import Closed
from processes import wait_for

N = 1000
MOST = 600  # of them it is an attack, however busy the machine is
SECONDS = 8  # of an attack that the server does not end

SITE = """
    [site *]
    root = {root}
    [route /probe/*]
    gateway = cgi
    dir = {cgi}
    [route /slow/*]
    gateway = cgi
    dir = {cgi}
"""

FILE = random.Random(1).randbytes(10_000)
BIG = random.Random(2).randbytes(1 << 20) * 8

pytestmark = pytest.mark.skipif(not shutil.which("slowhttptest"), reason="slowhttptest is not installed")


class Probe:
    """A client that asks for a file and for a program's answer in turn, each on a fresh connection, until it is told to
    stop; and looks at every answer."""

    def __init__(self, server):
        self.server = server
        self.n_files = self.n_programs = 0
        self.error = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.stopped.wait(0.02):
                self._ask()
        except (OSError, Closed, AssertionError) as error:
            self.error = repr(error)

    def _ask(self):
        with self.server.connect(patience=60) as client:
            response = client.get("/file")
            assert response.status == 200 and response.body == FILE, response
            self.n_files += 1
        with self.server.connect(patience=60) as client:
            response = client.get("/probe/hello.sh")
            assert response.status == 200 and response.body == b"hello\n", response
            self.n_programs += 1

    def stop(self):
        self.stopped.set()
        self.thread.join()
        assert self.error is None, self.error
        assert self.n_files >= 3 and self.n_programs >= 3, (self.n_files, self.n_programs)


class Attack:
    """slowhttptest under way. It writes a row of figures each second, and says at its end why it ended."""

    def __init__(self, server, folder, target, *options):
        self.server = server
        self.figures = os.path.join(folder, "slow.csv")
        self.output = os.path.join(folder, "slow.txt")
        self.n_sent_away = 0  # while it held on to its connections
        # As many descriptors as there may be, but for it alone.
        command = ["sh", "-c", 'ulimit -Sn "$(ulimit -Hn)"; exec "$@"', "sh", "slowhttptest", *options,
                   "-u", f"http://127.0.0.1:{server.port}{target}", "-c", str(N), "-r", "500", "-l", str(SECONDS),
                   "-p", "60", "-v", "1", "-g", "-o", os.path.join(folder, "slow")]
        with open(self.output, "wb") as output:
            self.process = server.lab.helper(command, stdout=output, stderr=subprocess.STDOUT,
                                             stdin=subprocess.DEVNULL)

    def _count(self):
        """The requests that have ended, but for the probe's."""
        lines = processes.read(self.server.lab.access_log).splitlines()
        return sum('"/file"' not in line and '"/probe/hello.sh"' not in line for line in lines)

    def _holds_on(self):
        try:
            return len(os.listdir(f"/proc/{self.process.pid}/fd")) >= MOST
        except OSError:
            return False

    def _is_over(self):
        n = self._count()
        if self._holds_on():
            self.n_sent_away = n
        return self.process.poll() is not None

    def wait(self):
        wait_for(self._is_over, "slowhttptest's end", 60)
        assert self.process.returncode == 0, processes.read(self.output)
        with open(self.figures, encoding="ascii") as file:
            rows = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
        self.n_made = max(row["Connected"] + row["Closed"] for row in rows)
        self.n_at_once = max(row["Connected"] for row in rows)
        self.has_lost_all = "No open connections left" in processes.read(self.output)


@contextlib.contextmanager
def few_descriptors():
    """What is started within has a soft limit that a thousand connections would break."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * N:
        pytest.skip("too few descriptors for so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def own(server):
    return [server.pid] + server.fronts()


def look(server):
    """What the server holds, once nothing is under way. The files that it keeps open for the next who asks are its own
    affair."""
    wait_for(lambda: processes.tcp_connections(own(server)) == 0, "the end of all connections")
    wait_for(lambda: sorted(server.tree()) == server.at_rest, "the end of all programs")
    return {pid: sum(not what.startswith(server.lab.root) for what in processes.descriptors(pid).values())
            for pid in own(server)}


def attack(lab, folder, target, *options, route="", fronts=1, **server_keys):
    """Starts a server and has it attacked; how that went. The server must be there for others, and be as before."""
    lab.file("root/file", FILE)
    lab.file("root/big", BIG)
    with few_descriptors():
        server = lab.serve(SITE + route, fronts=fronts, **server_keys)
    wait_for(lambda: len(server.fronts()) == fronts and len(server.tree()) == fronts + 1, "the fronts and the warden")
    server.at_rest = sorted(server.tree())
    before = look(server)
    probe = Probe(server)
    try:
        it = Attack(server, str(folder), target, *options)
        it.wait()
    finally:
        probe.stop()
    assert it.n_made >= MOST, it.n_made
    assert look(server) == before
    return it


HEADERS = ("-H", "-i", "1")
BODIES = ("-B", "-s", "1000000", "-f", "text/plain")
READS = ("-X", "-k", "2", "-n", "1", "-w", "512", "-y", "1024", "-z", "32")


def test_headers(lab, tmp_path):
    it = attack(lab, tmp_path, "/file", *HEADERS, header_timeout="60s", fronts=2)
    assert it.n_at_once >= MOST


def test_headers_run_out_of_time(lab, tmp_path):
    it = attack(lab, tmp_path, "/file", *HEADERS, header_timeout="2s")
    assert it.has_lost_all


def test_bodies(lab, tmp_path):
    """Of a route's thousand requests, some run and the others wait; another route has its own programs."""
    it = attack(lab, tmp_path, "/slow/cat.sh", *BODIES, "-i", "1", route="queue = 1000\nqueue_timeout = 60s\n",
                fronts=2, min_rate="0")
    assert it.n_at_once >= MOST


def test_bodies_run_out_of_time(lab, tmp_path):
    it = attack(lab, tmp_path, "/slow/cat.sh", *BODIES, "-i", "5", route="queue = 16\nqueue_timeout = 2s\n",
                body_timeout="2s")
    assert it.has_lost_all


def test_bodies_too_slow(lab, tmp_path):
    """Each second they send something, so that no silence ends them, but too little of it."""
    it = attack(lab, tmp_path, "/slow/cat.sh", *BODIES, "-i", "1", route="queue = 0\n", body_timeout="3s",
                min_rate="500")
    assert it.has_lost_all


def test_ranges(lab, tmp_path):
    attack(lab, tmp_path, "/big", "-R", "-t", "GET", body_timeout="2s")


def test_reads(lab, tmp_path):
    it = attack(lab, tmp_path, "/big", *READS, body_timeout="60s", fronts=2, min_rate="0")
    assert it.n_at_once >= MOST


def test_reads_run_out_of_time(lab, tmp_path):
    it = attack(lab, tmp_path, "/big", "-X", "-n", "5", "-w", "512", "-y", "1024", "-z", "32", body_timeout="2s")
    assert it.has_lost_all or it.n_sent_away >= MOST  # it may not see it: there is much that it has not read yet
