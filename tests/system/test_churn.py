"""Processes that are killed, replaced for their age or for another configuration, a binary that is replaced: no request
fails but those whose own process was killed under them, and none is executed or answered twice. How that is known:
../bench/churn_verdict.py."""

import collections
import os
import signal
import sys
import time

import pytest

from processes import wait_for

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))

import churn_gatehouse  # noqa: E402
from churn_load import Clients, Killer  # noqa: E402
from churn_verdict import Kill, Line, Outcome, Verdict, read_journal  # noqa: E402

CLIENTS = 16
CHILDREN = 4
SOME = 100  # requests between two events
FRONTS = 2


class Churn:
    """A server under load, from start to verdict."""

    def __init__(self, lab):
        self.lab = lab
        self.clients = None

    def start(self, fronts=FRONTS, **pool):
        self.journal = churn_gatehouse.prepare(self.lab)
        self.server = self.lab.serve(self.config(**pool), fronts=fronts)
        n = pool.get("pm__start_servers", CHILDREN)
        wait_for(lambda: len(self.pids()) >= n, "processes of the pool")
        self.clients = Clients(self.server.port, CLIENTS).start()
        self.killer = Killer(self.pids)
        self.clients.wait_more(SOME)

    @staticmethod
    def config(**pool):
        return churn_gatehouse.config(**{"pm": "static", "pm__max_children": CHILDREN, **pool})

    def pids(self):
        return churn_gatehouse.programs(self.server)

    def reload(self, **pool):
        """HUP; returns when it is done, and so many more requests too."""
        assert churn_gatehouse.reload(self.server, self.config(**pool), fronts=FRONTS), self.server.tail()
        self.clients.wait_more(SOME)

    def upgrade(self):
        assert churn_gatehouse.upgrade(self.server), self.server.tail()
        self.clients.wait_more(SOME)

    def kill(self, n, every):
        for _ in range(n):
            wait_for(self.killer.kill, "a process to kill")
            self.clients.wait_more(every)

    def generations(self, since_ns=0):
        """What the answers to requests sent since then say of the environment of their processes."""
        return {one.words[2] for one in self.clients.outcomes if one.is_good and one.sent_ns >= since_ns}

    def generations_now(self):
        now = time.monotonic_ns()
        self.clients.wait_more(SOME)
        return self.generations(now)

    def expect_nothing_lost(self):
        """But the requests of processes that were killed, each answered with 502."""
        self.clients.end()
        outcomes = self.clients.finish()
        verdict = Verdict(outcomes, read_journal(self.journal), self.killer.kills,
                          churn_gatehouse.pid_by_log(self.server))
        assert not verdict.complaints(), "\n".join(verdict.complaints())
        figures = verdict.figures()
        assert figures["busy"] == figures["own"], figures
        assert figures["answered"] + figures["own"] == figures["requests"] == len(outcomes)
        assert figures["answered"] > 0
        return verdict


@pytest.fixture
def churn(lab):
    it = Churn(lab)
    yield it
    if it.clients is not None:
        it.clients.end()


def test_kills(churn):
    churn.start()
    churn.kill(20, 20)
    verdict = churn.expect_nothing_lost()
    assert verdict.own, "no kill has hit a busy process"
    assert len(verdict.kills) == 20


def test_kills_that_the_keeper_hears_of_late(churn):
    """A front sees a connection that has ended; why, and that the process is no more, it is told some time later."""
    churn.start(fronts=1)  # of two, one could have to wait for the keeper, to get processes of the other
    for _ in range(3):
        os.kill(churn.server.pid, signal.SIGSTOP)
        try:
            churn.kill(2, SOME // 2)
        finally:
            os.kill(churn.server.pid, signal.SIGCONT)
        wait_for(lambda: len(churn.pids()) == CHILDREN, "others in the place of the processes that were killed")
        churn.clients.wait_more(SOME)
    verdict = churn.expect_nothing_lost()
    assert verdict.own, "no kill has hit a busy process"


def test_reload_with_the_same_settings_keeps_processes(churn):
    churn.start(env=0)
    before = churn.pids()
    for _ in range(4):
        churn.reload(env=0)
    assert churn.pids() == before
    verdict = churn.expect_nothing_lost()
    assert set(verdict.lines) == set(before)


def test_reload_with_other_numbers_keeps_processes(churn):
    """How many processes there are, and when they are replaced, is no property of any of them."""
    churn.start(env=0)
    before = set(churn.pids())
    churn.reload(env=0, pm__max_children=CHILDREN + 2)
    wait_for(lambda: len(churn.pids()) == CHILDREN + 2, "two processes more")
    assert before < set(churn.pids())
    churn.reload(env=0)
    wait_for(lambda: len(churn.pids()) == CHILDREN, "two processes fewer")
    churn.expect_nothing_lost()


def test_reload_with_another_environment_replaces_processes(churn):
    churn.start(env=0)
    for generation in range(1, 4):
        before = churn.pids()
        churn.reload(env=generation)
        wait_for(lambda before=before: not set(before) & set(churn.pids()), "the end of the processes of before")
        assert churn.generations_now() == {str(generation)} and len(churn.pids()) == CHILDREN
    assert churn.generations() == {"0", "1", "2", "3"}
    churn.expect_nothing_lost()


def test_max_requests(churn):
    churn.start(pm__max_requests=5)
    churn.clients.wait_more(4 * SOME)
    verdict = churn.expect_nothing_lost()
    served = collections.Counter(pid for pids in verdict.begun.values() for pid in pids)
    assert max(served.values()) <= 6  # no two limits need be the same
    assert len(served) >= len(verdict.outcomes) / 6


def test_max_age_and_max_memory(churn):
    """Of one process after the other: at its limit, not when the next request is due to it."""
    churn.start(max_age="300ms", max_memory="16m")
    seen = set()
    wait_for(lambda: seen.update(churn.pids()) or len(seen) > 4 * CHILDREN, "processes after processes")
    churn.expect_nothing_lost()


def test_upgrade(churn):
    churn.start(env=0)
    for _ in range(2):
        churn.upgrade()
    churn.reload(env=1)
    assert churn.generations_now() == {"1"}
    churn.expect_nothing_lost()


def test_all_together(churn):
    limits = {"pm": "dynamic", "pm__start_servers": 2, "pm__min_spare_servers": 1, "pm__max_spare_servers": 3,
              "max_memory": "16m", "max_age": "500ms"}
    variants = [{"pm__max_children": 4, "pm__max_requests": 20, **limits},
                {"pm__max_children": 6, "pm__max_requests": 30, **limits}]
    churn.start(env=0, **variants[0])
    for i in range(1, 7):
        churn.kill(3, 10)
        churn.reload(env=i // 2, **variants[i % 2])
        if i % 3 == 0:
            churn.kill(3, 10)
            churn.upgrade()
    assert churn.generations_now() == {"3"}
    churn.expect_nothing_lost()


# The verdict itself: made-up runs of one or two requests. What is wrong with them has to be seen.

def outcome(number=1, **more):
    return Outcome(**{"number": number, "is_kept": False, "sent_ns": 0, "ended_ns": 100, "what": "answered",
                      "status": 200, "body": f"{number} 7 -\n", **more})


def killed(number, **more):
    return outcome(number, status=502, body="", **more)


BEGUN, ENDED = Line("begin", 1, 7, 10), Line("end", 1, 7, 50)
KILL = Kill(7, 60, 61)


@pytest.mark.parametrize("outcomes, journal, kills, words", [
    ([outcome()], [BEGUN, ENDED], [], None),
    ([outcome()], [BEGUN, ENDED], [KILL], None),
    ([killed(1)], [BEGUN], [KILL], None),
    ([killed(1)], [BEGUN, ENDED], [KILL], None),
    ([killed(1)], [], [KILL], None),
    ([killed(1)], [BEGUN], [], "502"),
    ([killed(1), killed(2)], [], [KILL], "502"),
    ([killed(1), killed(2)], [BEGUN], [KILL], "502"),
    ([outcome(status=503)], [BEGUN], [KILL], "503"),
    ([outcome(status=503)], [], [], "503"),
    ([outcome(what="closed")], [], [], "closed, new"),
    ([outcome(what="closed", is_kept=True)], [], [], "kept connection that was closed"),
    ([outcome(what="closed", is_kept=True)], [BEGUN], [], "closed, kept"),
    ([outcome(what="silent")], [], [], "silent"),
    ([outcome(body="2 7 -\n")], [BEGUN, ENDED], [], "wrong answer"),
    ([outcome()], [BEGUN, ENDED, Line("begin", 1, 8, 20), Line("end", 1, 8, 60)], [], "executed twice"),
    ([outcome()], [Line("begin", 1, 9, 10), BEGUN, ENDED], [Kill(9, 20, 20)], "executed twice"),
    ([outcome(is_doubled=True)], [BEGUN, ENDED], [], "answered twice"),
    ([outcome()], [], [], "not executed"),
    ([outcome()], [BEGUN], [], "ended by the server"),
])
def test_the_verdict(outcomes, journal, kills, words):
    complaints = "\n".join(Verdict(outcomes, journal, kills).complaints())
    assert complaints == "" if words is None else words in complaints
