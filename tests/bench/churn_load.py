"""Clients that can tell each of their requests from every other, and one who kills programs under them."""
import itertools
import os
import random
import select
import signal
import sys
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "system"))

import processes  # noqa: E402
from churn_verdict import Kill, Outcome  # noqa: E402
from client import Client, Closed, ProtocolError  # noqa: E402

PATIENCE = 20.0     # for an answer: longer than any queue's deadline
THINK_S = 0.01      # at most, between two requests of a client
NEW_EVERY = 8       # this one of so many clients takes a new connection for each request
LEAVES = 0.02       # of the others: how often one ends its kept connection by itself
WORK_US = (1000, 20_000)
SLOW_US = 2_000_000
SPINS, HOARDS = 0.1, 0.05  # how many requests burn CPU time, and how many use memory
HOARD_KIB = 16_384
REST_S = 0.05       # after a failure: who comes again at once only keeps the machine busy


class Watching(Client):
    """A client that remembers whether anything of an answer has come."""

    def __init__(self, port):
        super().__init__(port, patience=PATIENCE)
        self.has_bytes = False

    def _more(self):
        super()._more()
        self.has_bytes = True

    def ask(self, target, outcome):
        """Sends a request, and writes into the outcome what came of it; true if the connection can be kept."""
        self.has_bytes = False
        try:
            try:
                self.send_request("GET", target)
            except (BrokenPipeError, ConnectionResetError):
                pass  # something may have come before
            response = self.read()
        except TimeoutError:
            outcome.what = "silent"
        except (Closed, OSError) as error:
            outcome.what, outcome.detail = "cut" if self.has_bytes else "closed", str(error)
        except ProtocolError as error:
            outcome.what, outcome.detail = "nonsense", str(error)
        else:
            outcome.what, outcome.status, outcome.body = "answered", response.status, response.body.decode("latin-1")
            outcome.id = response.get("x-request-id", "")
            return not response.closes
        return False

    def is_quiet(self):
        """Neither bytes nor an end have come."""
        return not self.bytes and not select.select([self.socket], [], [], 0)[0]

    def end(self, outcome):
        """Closes it; what has come beyond the answer of this outcome is written there."""
        try:
            self.socket.setblocking(False)
            outcome.is_doubled = outcome.what == "answered" and bool(self.bytes or self.socket.recv(4096))
        except OSError:
            pass
        self.close()


class Clients:
    """`n` clients with one request each at a time, until stop(), or until `most` requests were sent by all of them. The
    answers of the first `n_slow` take SLOW_US each."""

    def __init__(self, port, n, target="/churn.php", seed=1, most=None, n_slow=0):
        self.port, self.target = port, target
        self.numbers = iter(range(1, most + 1)) if most else itertools.count(1)
        self.outcomes, self.errors = [], []
        self.news = threading.Condition()
        self.is_over = False
        self.threads = [threading.Thread(target=self._run, daemon=True,
                                         args=(random.Random(f"{seed} {i}"), i % NEW_EVERY == 0, i < n_slow))
                        for i in range(n)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def finish(self, patience=60.0):
        """All outcomes, when every client has sent what it had to send."""
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
            assert not thread.is_alive(), "a client does not end"
        assert not self.errors, self.errors
        return self.outcomes

    def end(self):
        """No request is sent any more; returns when those that were sent have ended."""
        self.is_over = True
        for thread in self.threads:
            thread.join(3 * PATIENCE)

    def wait_more(self, n, patience=60.0):
        """Until n more requests have ended, in whatever way."""
        with self.news:
            due = len(self.outcomes) + n
            self.news.wait_for(lambda: self.errors or len(self.outcomes) >= due, patience)
            assert len(self.outcomes) >= due, f"{len(self.outcomes)} requests have ended, not {due}; {self.errors}"

    def _run(self, *how):
        try:
            self._requests(*how)
        except Exception as error:
            with self.news:
                self.errors.append(repr(error))
                self.news.notify_all()
            raise

    def _requests(self, rng, is_new, is_slow):
        connection = outcome = None
        while not self.is_over and (number := next(self.numbers, None)) is not None:
            if connection is not None and not connection.is_quiet():  # every client looks before it uses one again
                connection.end(outcome)
                connection = None
            connection, outcome = self._request(connection, number, rng, is_slow)
            with self.news:
                self.outcomes.append(outcome)
                self.news.notify_all()
            if connection is not None and (is_new or rng.random() < LEAVES):
                connection.end(outcome)
                connection = None
            time.sleep(rng.uniform(0, THINK_S) if outcome.is_good else REST_S)
        if connection is not None:
            connection.end(outcome)

    def _request(self, connection, number, rng, is_slow):
        """Sends one request; returns the connection, if it can be kept, and the outcome."""
        outcome = Outcome(number, connection is not None, time.monotonic_ns(), 0, "refused")
        work_us = SLOW_US if is_slow else rng.randrange(*WORK_US)
        target = f"{self.target}?n={number}&us={work_us}&spin={int(not is_slow and rng.random() < SPINS)}" \
                 f"&kib={HOARD_KIB if rng.random() < HOARDS else 0}"
        is_kept = False
        try:
            connection = connection or Watching(self.port)
        except OSError as error:
            outcome.detail = str(error)
        else:
            is_kept = connection.ask(target, outcome)
        outcome.ended_ns = time.monotonic_ns()
        if connection is not None and not is_kept:
            connection.end(outcome)
            connection = None
        return connection, outcome


class Killer:
    """Kills programs, each without any warning. `programs`: a function that tells the pids that there are."""

    def __init__(self, programs, seed=1):
        self.programs = programs
        self.rng = random.Random(f"killer {seed}")
        self.kills = []
        self.over = threading.Event()
        self.thread = None

    def kill(self):
        """One at random; false when there is none."""
        pids = self.programs()
        if not pids:
            return False
        pid = self.rng.choice(pids)
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if pid not in self.programs():  # the number could be another's by now
                return False
            before = time.monotonic_ns()
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            self.kills.append(Kill(pid, before, time.monotonic_ns()))
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)

    def start(self, period_s):
        self.thread = threading.Thread(target=self._run, args=(period_s,), daemon=True)
        self.thread.start()
        return self

    def _run(self, period_s):
        due = time.monotonic()
        while not self.over.wait(max(0, due - time.monotonic())):
            self.kill()
            due += period_s

    def stop(self):
        self.over.set()
        if self.thread is not None:
            self.thread.join()
        return self.kills


def programs_below(roots, name):
    """The live processes below these whose program is called so, but for the roots themselves."""
    everyone = processes.all_processes()
    found = {pid for root in roots for pid in processes.descendants(root, everyone)} - set(roots)
    return sorted(pid for pid in found if everyone[pid][1] not in "ZX" and processes.comm(pid).startswith(name))
