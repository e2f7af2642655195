"""What the tests of pools and reloads share: a configuration that changes under a running server, requests that go on
all the while, and a look at which processes there are."""

import collections
import os
import shutil
import signal
import socket
import threading

from client import PATIENCE, Client, Closed
from processes import is_alive, wait_for
from server import APPS

COUNT = """
    [site *]
    root = {root}
    [route /count/*]
    gateway = fastcgi
    pool = count
    timeout = 60s
    idle_timeout = 60s
    [pool count]
    command = {cgi}/count
    queue_timeout = 20s
"""

LIFE = """
    [site *]
    root = {root}
    [route /life/*]
    gateway = fastcgi
    pool = life
    timeout = 60s
    idle_timeout = 60s
    [pool life]
    command = {cgi}/life.py
    queue_timeout = 20s
    env[LIFE_JOURNAL] = {path}/journal
"""


def bring_life(lab):
    """Puts life.py beside the other programs."""
    path = os.path.join(lab.cgi, "life.py")
    shutil.copy(os.path.join(APPS, "life.py"), path)
    os.chmod(path, 0o755)


def journal(lab):
    """Its lines, as words."""
    try:
        with open(lab.here("journal"), encoding="latin-1") as file:
            return [line.split() for line in file.read().splitlines()]
    except FileNotFoundError:
        return []


def wait_running(server, name, n):
    """Exactly so many processes of that name: their pids."""
    def look():
        found = server.running(name)
        return found if len(found) == n else None

    if n > 0:
        return wait_for(look, lambda: f"{n} processes {name}; there are {server.running(name)}")
    wait_for(lambda: not server.running(name), lambda: f"the end of {name}; there are {server.running(name)}")
    return []


def wait_gone(pids):
    wait_for(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}")


def pid_of(response):
    assert response.status == 200, response
    return int(response.text.split("pid=")[1].split()[0])


class Busy:
    """A request that is under way in a process until it is told to go on."""

    def __init__(self, lab, server, name, target="/count/", client=None):
        self.lab, self.name = lab, name
        self.client = client or server.connect()
        self.client.send_request("GET", f"{target}?started={lab.here(name)}&wait={lab.here(name + '.go')}")

    def pid(self):
        """Of the process that it is in, once it is."""
        return int(self.lab.wait_file(self.name))

    def has_begun(self):
        return os.path.exists(self.lab.here(self.name))

    def let_go(self):
        self.lab.file(self.name + ".go")

    def finish(self):
        self.let_go()
        with self.client:
            return self.client.read()


def busy(lab, server, n, target="/count/", prefix="busy"):
    return [Busy(lab, server, f"{prefix}{i}", target) for i in range(n)]


def finish(requests):
    for request in requests:
        request.let_go()
    for request in requests:
        response = request.finish()
        assert response.status == 200, response


class UnixClient(Client):
    def __init__(self, path):  # pylint: disable=super-init-not-called
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.host = "localhost"
        self.bytes = b""


# Reloads.

def count_verdicts(server):
    return len(server.logged("reloaded: ")) + len(server.logged("reload refused: "))


def write_config(lab, server, text, **keys):
    os.replace(lab.config(text, **keys), server.config_path)


def hup(server):
    server.process.send_signal(signal.SIGHUP)


def reload(lab, server, text=None, **keys):
    """HUP, with another configuration perhaps; returns when the server has said what has become of it: that line."""
    if text is not None:
        write_config(lab, server, text, **keys)
    n = count_verdicts(server)
    hup(server)
    wait_for(lambda: count_verdicts(server) > n, lambda: "the reload's verdict:\n" + server.tail())
    return [line for line in server.log() if "reloaded: " in line or "reload refused: " in line][-1]


def expect_reloaded(lab, server, text=None, **keys):
    line = reload(lab, server, text, **keys)
    assert "reloaded: " in line, server.tail()


def expect_refused(lab, server, text=None, **keys):
    line = reload(lab, server, text, **keys)
    assert "reload refused: " in line, server.tail()
    return line


def wait_fronts(server, n, but=()):
    """So many fronts, and none of those that were before."""
    def look():
        fronts = server.fronts()
        return fronts if len(fronts) == n and not set(fronts) & set(but) else None

    return wait_for(look, lambda: f"{n} fronts; there are {server.fronts()}; not {but}")


# Requests that go on all the while.

class Traffic:
    """`n` clients that ask again and again, each by a connection that it keeps as long as the server does, or by a new
    one each time."""

    def __init__(self, server, target="/count/", n=4, kept=True, most=None):
        self.server, self.target, self.kept = server, target, kept
        self.left = most  # requests, of all together; None: no end
        self.failures, self.served, self.n_answers = [], collections.Counter(), 0
        self.lock, self.done = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(n)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        if self.left is None:
            self.done.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join()

    def wait_more(self, n=20):
        """Until so many more were answered."""
        before = self.n_answers
        wait_for(lambda: self.n_answers >= before + n or self.failures, "answers")

    def _is_over(self):
        with self.lock:
            if self.left is not None:
                self.left -= 1
            return self.done.is_set() or (self.left is not None and self.left < 0)

    def _note(self, response):
        with self.lock:
            self.n_answers += 1
            if response.status != 200:
                self.failures.append(response)
            elif b"pid=" in response.body:
                self.served[pid_of(response)] += 1

    def _run(self):
        client = None
        while not self._is_over():
            try:
                client = client or self.server.connect()
                response = client.get(self.target)
                self._note(response)
                if response.closes or not self.kept:
                    client.close()
                    client = None
            except (OSError, Closed, AssertionError) as error:
                with self.lock:
                    self.failures.append(error)
                if client is not None:
                    client.close()
                client = None
        if client is not None:
            client.close()
