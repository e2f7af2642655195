"""Processes that have had their time, and those that end by themselves: what becomes of their requests."""

import os
import signal

import pytest

from client import Closed
from lives import (COUNT, LIFE, Busy, Traffic, bring_life, busy, finish, journal, pid_of, wait_gone, wait_running)
from processes import is_alive, read, wait_for

FRONTS = pytest.mark.parametrize("fronts", [1, 2])


def serve(lab, own, fronts=1, text=COUNT):
    return lab.serve(text + own, fronts=fronts)


def serve_life(lab, own, fronts=1):
    bring_life(lab)
    return serve(lab, own, fronts, LIFE)


# By requests.

@FRONTS
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("clients", [1, 6])
def test_max_requests(lab, fronts, kept, clients):
    server = serve(lab, "pm = static\npm.max_children = 3\npm.max_requests = 50", fronts)
    wait_running(server, "count", 3)
    with Traffic(server, n=clients, kept=kept, most=900) as traffic:
        traffic.join()
    assert not traffic.failures and sum(traffic.served.values()) == 900
    assert max(traffic.served.values()) <= 55
    at_work = set(server.running("count"))
    assert [pid for pid, n in traffic.served.items() if n < 45 and pid not in at_work] == []
    assert len(traffic.served) >= 900 / 55
    wait_running(server, "count", 3)


@FRONTS
@pytest.mark.parametrize("pm", ["static", "dynamic", "ondemand"])
def test_one_request_each(lab, fronts, pm):
    server = serve(lab, f"pm = {pm}\npm.max_children = 3\npm.max_requests = 1", fronts)
    with Traffic(server, n=3, most=150) as traffic:
        traffic.join()
    assert not traffic.failures
    assert set(traffic.served.values()) == {1} and len(traffic.served) == 150


@pytest.mark.parametrize("pm", ["dynamic", "ondemand"])
def test_max_requests_of_others(lab, pm):
    server = serve(lab, f"pm = {pm}\npm.max_children = 4\npm.max_requests = 20")
    with Traffic(server, n=4, most=600) as traffic:
        traffic.join()
    assert not traffic.failures and sum(traffic.served.values()) == 600
    assert max(traffic.served.values()) <= 22


@FRONTS
def test_max_requests_of_php(lab, fronts):
    lab.file("root/pid.php", "<?php echo 'pid=', getmypid(), ' ';")
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi
        pm = static
        pm.max_children = 2
        pm.max_requests = 20
        queue_timeout = 20s
        """, fronts=fronts)
    with Traffic(server, "/pid.php", n=4, most=300) as traffic:
        traffic.join()
    assert not traffic.failures and sum(traffic.served.values()) == 300
    assert max(traffic.served.values()) <= 22


@FRONTS
def test_replacement_comes_first(lab, fronts):
    """The one that is spent ends when another has been seen to serve, or to live for a while."""
    server = serve_life(lab, "pm = static\npm.max_children = 1\npm.max_requests = 10", fronts)
    for _ in range(2):
        old = wait_running(server, "life.py", 1)[0]
        for _ in range(10):
            assert pid_of(server.get("/life/")) in (old, *server.running("life.py"))
        wait_for(lambda: ["end", str(old)] in journal(lab), "its end")
        new = wait_running(server, "life.py", 1)[0]
        beside = next(line[2:] for line in journal(lab) if line[:2] == ["beside", str(old)])
        assert str(new) in beside, "it was there before the old one was ended"


def test_spent_process_finishes_its_request(lab):
    server = serve(lab, "pm = static\npm.max_children = 1\npm.max_requests = 1")
    request = Busy(lab, server, "busy")
    pid = request.pid()
    for _ in range(5):
        assert pid_of(server.get("/count/")) != pid
    assert is_alive(pid)
    assert pid_of(request.finish()) == pid
    wait_gone([pid])


# By memory and by age.

@FRONTS
def test_max_memory(lab, fronts):
    """One that grows by 4 MiB a request is replaced, and nobody notices."""
    server = serve_life(lab, "pm = static\npm.max_children = 1\nmax_memory = 64m\nenv[LIFE_STYLE] = leak=4096", fronts)
    pids = wait_running(server, "life.py", 1)
    with Traffic(server, "/life/", n=1) as traffic:
        wait_for(lambda: len(traffic.served) >= 2 or traffic.failures, "another process")
    assert not traffic.failures
    assert traffic.served[pids[0]] >= 8
    wait_gone(pids)


def test_slim_process_stays(lab):
    """Measured as often as the other, which is in the same server."""
    bring_life(lab)
    server = serve(lab, """pm = static
        pm.max_children = 1
        max_memory = 64m
        [route /fat/*]
        gateway = fastcgi
        pool = fat
        [pool fat]
        command = {cgi}/life.py fat
        pm = static
        pm.max_children = 1
        max_memory = 64m
        queue_timeout = 20s
        env[LIFE_STYLE] = leak=4096
        """)
    slim, fat = wait_running(server, "count", 1), wait_running(server, "life.py", 1)
    with Traffic(server, "/fat/", n=1) as growing, Traffic(server, n=1) as traffic:
        wait_for(lambda: not is_alive(fat[0]), "the end of the fat one")
    assert not traffic.failures and not growing.failures
    assert server.running("count") == slim


@FRONTS
def test_max_age(lab, fronts):
    """With requests and without any; never are fewer there."""
    server = serve_life(lab, "pm = static\npm.max_children = 2\nmax_age = 1s", fronts)
    pids = wait_running(server, "life.py", 2)
    with Traffic(server, "/life/", n=2) as traffic:
        wait_gone(pids)
        traffic.wait_more()
    assert not traffic.failures
    wait_gone(wait_running(server, "life.py", 2))
    wait_running(server, "life.py", 2)
    for what, pid, *others in journal(lab):
        if what == "beside":
            programs = set(others) - {pid} - set(map(str, server.fronts()))
            assert len(programs) >= 3, "two, and the warden"


@pytest.mark.parametrize("timeout", ["50ms", "20s"])
def test_old_and_needed_no_more(lab, timeout):
    """Of an on-demand pool: the old one goes, whether the one in its place has ever had a request or not."""
    server = serve(lab, f"pm = ondemand\npm.max_children = 2\npm.process_idle_timeout = {timeout}\nmax_age = 300ms")
    request = Busy(lab, server, "busy")
    pid = request.pid()
    wait_for(lambda: set(server.running("count")) - {pid}, "one to take its place")
    if timeout == "50ms":
        wait_for(lambda: server.running("count") == [pid], "the end of the one that is idle")
    assert pid_of(request.finish()) == pid
    wait_gone([pid])
    wait_running(server, "count", 0)


# Programs that end by themselves.

@FRONTS
def test_own_limit(lab, fronts):
    """PHP's own limit is lower than ours: nobody loses a request."""
    lab.file("root/pid.php", "<?php echo 'pid=', getmypid(), ' ';")
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi
        pm = static
        pm.max_children = 2
        pm.max_requests = 1000
        env[PHP_FCGI_MAX_REQUESTS] = 5
        queue_timeout = 20s
        """, fronts=fronts)
    with Traffic(server, "/pid.php", n=4, most=200) as traffic:
        traffic.join()
    assert not traffic.failures and sum(traffic.served.values()) == 200
    assert max(traffic.served.values()) <= 5


@FRONTS
def test_closes_each_connection(lab, fronts):
    server = serve_life(lab, "pm = static\npm.max_children = 2\nenv[LIFE_STYLE] = close", fronts)
    pids = wait_running(server, "life.py", 2)
    with Traffic(server, "/life/", n=4, most=400) as traffic:
        traffic.join()
    assert not traffic.failures and sum(traffic.served.values()) == 400
    assert server.running("life.py") == pids
    assert sum(line[0] == "began" for line in journal(lab)) == 400


# Killed.

@FRONTS
def test_killed_while_idle(lab, fronts):
    server = serve_life(lab, "pm = static\npm.max_children = 2", fronts)
    for i in range(10):
        pids = wait_running(server, "life.py", 2)
        os.kill(pids[i % 2], signal.SIGKILL)
        wait_gone([pids[i % 2]])  # the keeper and the front hear of it only now
        assert pid_of(server.get(f"/life/?n{i}")) > 0
    begun = [line[2] for line in journal(lab) if line[0] == "began"]
    assert sorted(begun) == sorted(f"n{i}" for i in range(10)), "none twice, none lost"


@FRONTS
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_while_busy(lab, fronts, number):
    """Exactly its own request fails; it is not run again."""
    server = serve_life(lab, "pm = static\npm.max_children = 3", fronts)
    wait_running(server, "life.py", 3)
    with Traffic(server, "/life/", n=2) as traffic:
        for i in range(5):
            request = Busy(lab, server, f"own{i}", "/life/")
            pid = request.pid()
            os.kill(pid, number)
            response = request.client.read()
            request.client.close()
            assert response.status == 502, response
            wait_gone([pid])
            wait_running(server, "life.py", 3)
        traffic.wait_more()
    assert not traffic.failures
    own = [line for line in journal(lab) if line[0] == "began" and "own" in line[-1]]
    assert len(own) == 5
    server.wait_log("pool life", signal.Signals(number).name)


@FRONTS
def test_killed_before_it_accepts(lab, fronts):
    """A request that waits in the socket of a process which never saw it is answered by the next."""
    server = serve_life(lab, "pm = static\npm.max_children = 1", fronts)
    for i in range(5):
        pid = wait_running(server, "life.py", 1)[0]
        wait_for(lambda: ["start", str(pid)] in journal(lab), "its start")
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "T", "it to stand still")
        with server.connect() as client:
            client.send_request("GET", f"/life/?n{i}")
            wait_for(lambda: not waits(server, pid), "the request to be with the process")
            os.kill(pid, signal.SIGKILL)
            assert pid_of(client.read()) != pid
    begun = [line[2] for line in journal(lab) if line[0] == "began"]
    assert begun == [f"n{i}" for i in range(5)]


def waits(server, pid):
    """Has no front a connection to the process that was not accepted? By the sockets that its door has."""
    with open("/proc/net/unix", encoding="ascii") as file:
        rows = [line.split() for line in file.read().splitlines()[1:]]
    doors = {row[7] for row in rows if len(row) == 8 and "/gatehouse-" in row[7] and row[3] == "00010000"}
    mine = {os.readlink(f"/proc/{pid}/fd/0")}
    inode = next(iter(mine))[len("socket:["):-1]
    path = [row[7] for row in rows if len(row) == 8 and row[6] == inode]
    assert path and path[0] in doors
    # One that waits to be accepted has no inode yet.
    return not any(len(row) == 8 and row[7] == path[0] and row[6] == "0" for row in rows)


def test_many_killed_under_load(lab):
    """Failures are those that were killed under their request, and no more."""
    server = serve_life(lab, "pm = static\npm.max_children = 4\npm.max_requests = 40")
    wait_running(server, "life.py", 4)
    with Traffic(server, "/life/", n=4) as traffic:
        for i in range(20):
            traffic.wait_more(10)
            for pid in server.running("life.py")[i % 4:i % 4 + 1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        traffic.wait_more(50)
    assert len(traffic.failures) <= 20
    assert {getattr(failure, "status", failure) for failure in traffic.failures} <= {502}, traffic.failures
    begun = [line for line in journal(lab) if line[0] == "began"]
    assert len(begun) <= traffic.n_answers, "a request was given to two processes"
    wait_running(server, "life.py", 4)


# Crash loops.

@FRONTS
def test_crash_loop(lab, fronts):
    """Requests are refused with the cause, starts come later and later, and it comes back when it is mended."""
    lab.script("fragile.sh", f"""
        #!/bin/sh
        echo $$ >> {lab.here('starts')}
        exit 3
        """)
    server = lab.serve(COUNT.replace("/count\n", "/fragile.sh\n") + "pm = static\npm.max_children = 3\n",
                       fronts=fronts)
    wait_for(lambda: server.answers("/count/", 503), "the refusal")
    server.wait_log("fragile.sh", "exited with status 3")
    server.wait_log("pool count", "nothing runs")
    n = len(lab.wait_file("starts").split())
    assert n < 10
    for _ in range(50):
        response = server.get("/count/")
        assert response.status == 503 and response.get("retry-after", "").isdigit(), response
    assert len(lab.wait_file("starts").split()) <= n + 2, "requests make it start no faster"
    lab.script("fragile.new", f"#!/bin/sh\nexec {lab.cgi}/count\n")
    os.rename(os.path.join(lab.cgi, "fragile.new"), os.path.join(lab.cgi, "fragile.sh"))
    wait_for(lambda: server.answers("/count/"), "its recovery")
    wait_running(server, "count", 3)
    with Traffic(server, n=3, most=100) as traffic:
        traffic.join()
    assert not traffic.failures


@pytest.mark.parametrize("pm", ["dynamic", "ondemand"])
def test_crash_loop_of_others(lab, pm):
    lab.script("fragile.sh", f"""
        #!/bin/sh
        [ -e {lab.here('mended')} ] && exec {lab.cgi}/count
        exit 3
        """)
    server = lab.serve(COUNT.replace("/count\n", "/fragile.sh\n") + f"pm = {pm}\npm.max_children = 4\n")
    wait_for(lambda: server.answers("/count/", 503), "the refusal")
    lab.file("mended")
    wait_for(lambda: server.answers("/count/"), "its recovery")
    requests = busy(lab, server, 4)
    assert len({request.pid() for request in requests}) == 4
    finish(requests)


def test_terminated_request_is_replaced(lab):
    server = lab.serve(COUNT + "pm = static\npm.max_children = 1\nrequest_terminate_timeout = 100ms\n")
    pid = wait_running(server, "count", 1)[0]
    with server.connect() as client:
        client.send_request("GET", "/count/?hang")
        assert client.read().status == 504
    wait_gone([pid])
    assert pid_of(server.get("/count/")) != pid


def test_client_that_leaves_costs_no_process(lab):
    """What it had asked for is finished, or ended, and the next one is served."""
    server = lab.serve(COUNT + "pm = static\npm.max_children = 1\n")
    request = Busy(lab, server, "busy")
    request.pid()
    request.client.reset()
    request.let_go()
    assert pid_of(server.get("/count/")) > 0
    with pytest.raises((OSError, Closed)):
        request.client.read()
