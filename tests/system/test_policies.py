"""How many processes a pool has: static, dynamic and ondemand, by what is there after each event."""

import os
import shutil
import signal
import threading

import pytest

from lives import COUNT, Busy, Traffic, busy, finish, pid_of, wait_gone, wait_running
from processes import wait_for

FRONTS = pytest.mark.parametrize("fronts", [1, 2])


def serve(lab, fronts=1, **pm):
    """A pool of count.c; pm's keys without their prefix."""
    own = "".join(f"{'pm' if key == 'pm' else 'pm.' + key} = {value}\n" for key, value in pm.items())
    return lab.serve(COUNT + own, fronts=fronts)


class Watch:
    """The most and the fewest processes of a name that were seen meanwhile."""

    def __init__(self, server, name="count"):
        self.server, self.name = server, name
        self.most, self.fewest = 0, 1 << 30
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self):
        while not self.done.is_set():
            n = len(self.server.running(self.name))
            self.most, self.fewest = max(self.most, n), min(self.fewest, n)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# static

@FRONTS
def test_static(lab, fronts):
    server = serve(lab, fronts, pm="static", max_children=4)
    pids = wait_running(server, "count", 4)
    finish(busy(lab, server, 6))
    with Traffic(server) as traffic:
        traffic.wait_more(200)
    assert not traffic.failures and set(traffic.served) <= set(pids)
    assert server.running("count") == pids


def test_static_is_the_default(lab):
    server = serve(lab, max_children=3)
    pids = wait_running(server, "count", 3)
    assert pid_of(server.get("/count/")) in pids


@FRONTS
def test_static_after_kills(lab, fronts):
    server = serve(lab, fronts, pm="static", max_children=3)
    for _ in range(4):
        pids = wait_running(server, "count", 3)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_gone(pids)
        assert pid_of(server.get("/count/")) not in pids
    wait_running(server, "count", 3)


@pytest.mark.parametrize("end", ["exit=7", "abort"])
def test_static_after_crash(lab, end):
    server = serve(lab, pm="static", max_children=2)
    pids = wait_running(server, "count", 2)
    assert server.get("/count/").status == 200
    assert server.get("/count/?" + end).status == 502
    wait_for(lambda: len(server.running("count")) == 2 and server.running("count") != pids, "another process")
    assert len(set(server.running("count")) & set(pids)) == 1


# ondemand

@FRONTS
def test_ondemand_starts_what_is_asked_for(lab, fronts):
    server = serve(lab, fronts, pm="ondemand", max_children=8, process_idle_timeout="60s")
    assert server.get("/nothing").status == 404
    assert server.running("count") == []
    pid = pid_of(server.get("/count/"))
    assert server.running("count") == [pid]
    requests = busy(lab, server, 5)
    pids = {request.pid() for request in requests}
    assert len(pids) == 5 and set(server.running("count")) == pids | {pid}
    assert fronts > 1 or pid in pids
    finish(requests)


@FRONTS
def test_ondemand_ends_what_is_idle(lab, fronts):
    server = serve(lab, fronts, pm="ondemand", max_children=8, process_idle_timeout="100ms")
    first, *others = busy(lab, server, 4)
    pid = first.pid()
    finish(others)
    assert wait_running(server, "count", 1) == [pid]
    assert pid_of(first.finish()) == pid
    wait_running(server, "count", 0)
    assert pid_of(server.get("/count/")) != pid
    wait_running(server, "count", 0)


def test_ondemand_keeps_what_is_used(lab):
    server = serve(lab, pm="ondemand", max_children=4, process_idle_timeout="3s")
    requests = busy(lab, server, 3)
    assert {request.pid() for request in requests} == set(server.running("count"))
    finish(requests)
    with Traffic(server, n=1) as traffic:
        wait_running(server, "count", 1)
        left = set(server.running("count"))
        traffic.wait_more(50)
    assert not traffic.failures
    assert set(traffic.served) == left


@FRONTS
def test_ondemand_holds_its_limit(lab, fronts):
    server = serve(lab, fronts, pm="ondemand", max_children=2, process_idle_timeout="60s")
    with Watch(server) as watch:
        requests = busy(lab, server, 6)
        wait_for(lambda: sum(request.has_begun() for request in requests) == 2, "two requests in processes")
        with Traffic(server, n=2, most=4) as traffic:
            finish(requests)
        with Traffic(server, n=6, kept=False) as more:
            more.wait_more(300)
    assert not traffic.failures and not more.failures
    assert watch.most == 2


@FRONTS
def test_burst_on_a_cold_pool(lab, fronts):
    """Real php-cgi, each request of another client."""
    lab.file("root/pid.php", "<?php usleep(20000); echo 'pid=', getmypid(), ' ';")
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi
        pm = ondemand
        pm.max_children = 6
        pm.process_idle_timeout = 300ms
        queue_timeout = 20s
        """, fronts=fronts)
    for _ in range(2):
        with Watch(server, "php-cgi") as watch:
            with Traffic(server, "/pid.php", n=16, kept=False, most=64) as traffic:
                traffic.join()
        assert not traffic.failures and traffic.n_answers == 64
        assert 2 <= len(traffic.served) <= watch.most <= 6
        wait_running(server, "php-cgi", 0)


# dynamic

@FRONTS
def test_dynamic_at_the_start(lab, fronts):
    server = serve(lab, fronts, pm="dynamic", max_children=9, start_servers=3, min_spare_servers=2, max_spare_servers=4)
    with Watch(server) as watch:
        pids = wait_running(server, "count", 3)
        with Traffic(server, n=1) as traffic:
            traffic.wait_more(100)
    assert not traffic.failures and set(traffic.served) <= set(pids)
    assert watch.most == 3 and server.running("count") == pids


@FRONTS
def test_dynamic_burst(lab, fronts):
    """What requests wait for is started at once: by max_spawn_rate it would take longer than a test waits. It shrinks
    to max_spare again."""
    server = serve(lab, fronts, pm="dynamic", max_children=40, start_servers=2, min_spare_servers=1,
                   max_spare_servers=3, max_spawn_rate=1)
    wait_running(server, "count", 2)
    requests = busy(lab, server, 32)
    assert len({request.pid() for request in requests}) == 32
    finish(requests)
    wait_running(server, "count", 3)
    with Traffic(server, n=1) as traffic:
        traffic.wait_more(100)
    assert not traffic.failures
    assert len(server.running("count")) == 3


@FRONTS
def test_dynamic_keeps_its_reserve(lab, fronts):
    """One more than that may have been started, for a request that waited while another front had an idle one."""
    server = serve(lab, fronts, pm="dynamic", max_children=6, start_servers=2, min_spare_servers=2, max_spare_servers=3)
    wait_running(server, "count", 2)
    requests = []
    for n in range(1, 7):
        requests.append(Busy(lab, server, f"busy{n}"))
        requests[-1].pid()
        wait_for(lambda: min(n + 2, 6) <= len(server.running("count")) <= min(n + 3, 6), "two idle ones, or three")
    finish(requests)
    wait_running(server, "count", 3)


def test_dynamic_defaults(lab):
    """1 to 1 + 8/4 idle ones, (1 + 3) / 2 at the start."""
    server = serve(lab, pm="dynamic", max_children=8)
    with Watch(server) as watch:
        wait_running(server, "count", 2)
        assert server.get("/count/").status == 200
    assert watch.most == 2
    requests = busy(lab, server, 8)
    assert len({request.pid() for request in requests}) == 8
    finish(requests)
    wait_running(server, "count", 3)


@FRONTS
def test_dynamic_after_kills(lab, fronts):
    server = serve(lab, fronts, pm="dynamic", max_children=6, start_servers=3, min_spare_servers=2, max_spare_servers=4)
    pids = wait_running(server, "count", 3)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_gone(pids)
    wait_for(lambda: 2 <= len(server.running("count")) <= 4, "the reserve")
    with Traffic(server, n=1) as traffic:
        traffic.wait_more()
        wait_for(lambda: 3 <= len(server.running("count")) <= 5, "it, beside the one that is busy now and then")
    assert not traffic.failures


# Scripts, each with a pool of its own.

def serve_scripts(lab, own, **more):
    for name in ("one.fcgi", "two.fcgi"):
        shutil.copy(os.path.join(lab.apps, "count"), os.path.join(lab.root, name))
    return lab.serve("""
        [site *]
        root = {root}
        [route *.fcgi]
        gateway = fastcgi
        pool = scripts
        timeout = 60s
        [pool scripts]
        command = $script
        queue_timeout = 20s
        """ + own, **more)


@FRONTS
def test_scripts_ondemand(lab, fronts):
    server = serve_scripts(lab, "pm = ondemand\npm.max_children = 3\npm.process_idle_timeout = 200ms", fronts=fronts)
    assert server.running("one.fcgi") == server.running("two.fcgi") == []
    assert server.get("/one.fcgi").status == 200
    assert server.running("two.fcgi") == []
    requests = busy(lab, server, 3, "/two.fcgi")
    pids = {request.pid() for request in requests}
    assert set(server.running("two.fcgi")) == pids and len(pids) == 3
    wait_running(server, "one.fcgi", 0)
    assert set(server.running("two.fcgi")) == pids
    finish(requests)
    wait_running(server, "two.fcgi", 0)
    assert server.get("/two.fcgi").status == server.get("/one.fcgi").status == 200


def test_scripts_dynamic(lab):
    server = serve_scripts(lab, "pm = dynamic\npm.max_children = 4\npm.start_servers = 2\npm.min_spare_servers = 1\n"
                                "pm.max_spare_servers = 2")
    assert server.get("/one.fcgi").status == 200
    wait_running(server, "one.fcgi", 2)
    requests = busy(lab, server, 4, "/one.fcgi")
    assert {request.pid() for request in requests} == set(server.running("one.fcgi"))
    finish(requests)
    wait_running(server, "one.fcgi", 2)
    assert server.running("two.fcgi") == []
