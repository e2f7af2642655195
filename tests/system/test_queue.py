"""The queue before a pool: its order, its limits, who leaves it, what is told of it, and that several fronts share the
processes behind it fairly."""

import os
import re
import selectors
import signal
import threading

import pytest

import processes
from client import Closed
from processes import wait_for

SITE = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    max_running = 1
    queue = 4
    queue_timeout = 20s
    request_buffering = off
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    request_buffering = off
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
    queue = 4
    queue_timeout = 20s
"""

BOTH = pytest.mark.parametrize("path", ["/cgi-bin/count", "/fcgi/"], ids=["cgi", "fastcgi"])
LIMIT = 4


class Busy:
    """A request that holds the only place, until it is let go."""

    def __init__(self, server, path, name="busy"):
        lab = server.lab
        self.go = lab.here(f"{name}.go")
        self.client = server.connect()
        self.client.send_request("GET", f"{path}?started={lab.here(name)}&wait={self.go}")
        lab.wait_file(name)

    def let_go(self):
        with open(self.go, "w", encoding="ascii"):
            pass
        response = self.client.read()
        assert response.status == 200
        self.client.close()


def look_around(server, probe):
    """Whatever was sent to the (only) front before has been looked at by it when this returns."""
    assert probe.get("/nothing").status == 404


def stand_in_line(server, n, request):
    """n clients that have sent request(client, number), one after another."""
    probe = server.connect()
    clients = [server.connect() for _ in range(n)]
    for client in clients:
        assert client.get("/nothing").status == 404  # the connection is known
    for number, client in enumerate(clients):
        request(client, number)
        look_around(server, probe)
    probe.close()
    return clients


def close_all(clients):
    for client in clients:
        client.close()


# One front.

@BOTH
def test_first_come_first_served(lab, path):
    server = lab.serve(SITE)
    lab.script("note.sh", r"""
        #!/bin/sh
        echo "$QUERY_STRING" >> "${0%/*}/order"
        printf 'Content-Type: text/plain\n\n'
        """)
    busy = Busy(server, path)
    ask = path if path == "/fcgi/" else "/cgi-bin/note.sh"
    clients = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", f"{ask}?{n}"))
    busy.let_go()
    answers = [client.read() for client in clients]
    assert [answer.status for answer in answers] == [200] * LIMIT
    if path == "/fcgi/":
        counts = [int(re.search(r"count=(\d+)", answer.text)[1]) for answer in answers]
        assert counts == list(range(counts[0], counts[0] + LIMIT))
    else:
        assert lab.wait_file("cgi/order").split() == [str(n) for n in range(LIMIT)]
    close_all(clients)


@BOTH
def test_exact_length(lab, path):
    """As many wait as may; the next is refused at once, and told when to come again; who leaves makes room."""
    server = lab.serve(SITE)
    busy = Busy(server, path)
    waiting = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", path))
    with server.connect() as late:
        for _ in range(3):
            response = late.get(path)
            assert response.status == 503
            assert response.all("retry-after") == ["1"]
        for client in waiting:
            client.expect_nothing()
        waiting.pop(1).reset()
        # Its end may be looked at behind what comes after it: until then there is no place.
        wait_for(lambda: has_place(server, path), "the place of the one that has left")
    busy.let_go()
    assert [client.read().status for client in waiting] == [200] * len(waiting)
    close_all(waiting)


def has_place(server, path):
    """May one more wait? It is gone again afterwards."""
    client = server.connect()
    client.send_request("GET", path)
    with server.connect() as probe:
        look_around(server, probe)
    try:
        client.expect_nothing()
    except AssertionError:
        assert client.read().status == 503
        client.close()
        return False
    client.reset()
    return True


@BOTH
def test_client_that_leaves(lab, path):
    """It is not served in vain when its turn comes."""
    server = lab.serve(SITE)
    busy = Busy(server, path)
    started = [lab.here(f"started-{n}") for n in range(3)]
    clients = stand_in_line(server, 3, lambda client, n: client.send_request("GET", f"{path}?started={started[n]}"))
    clients[1].reset()
    wait_for(lambda: [record for record in server.records() if started[1] in record["uri"]],
             "the record of the one that has left")
    busy.let_go()
    assert clients[0].read().status == 200
    assert clients[2].read().status == 200
    assert [os.path.exists(path) for path in started] == [True, False, True]
    close_all([clients[0], clients[2]])


@BOTH
def test_deadlines_in_order(lab, path):
    """Each waits for the whole of queue_timeout, and no longer than those who came later."""
    server = lab.serve(SITE.replace("queue_timeout = 20s", "queue_timeout = 400ms"))
    busy = Busy(server, path)
    clients = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", f"{path}?nth={n}"))
    for client in clients:
        response = client.read()
        assert response.status == 503
        assert response.all("retry-after") == ["1"]
        server.record(response)
    expired = [record for record in server.records() if "nth=" in record["uri"]]
    assert [record["uri"][-1] for record in expired] == [str(n) for n in range(LIMIT)]
    assert all(record["total_ms"] >= 400 for record in expired)
    busy.let_go()
    close_all(clients)


@pytest.mark.parametrize("pm", ["ondemand", "dynamic"])
def test_no_queue_before_processes_that_can_be_started(lab, pm):
    """Who waits for a process that is about to be started needs no place in the queue."""
    server = lab.serve(SITE.replace("pm = static\n    pm.max_children = 1\n    queue = 4", f"""pm = {pm}
        pm.max_children = 3
        {"pm.start_servers = 1" if pm == "dynamic" else ""}
        {"pm.min_spare_servers = 1" if pm == "dynamic" else ""}
        {"pm.max_spare_servers = 1" if pm == "dynamic" else ""}
        queue = 0"""))
    busy = [Busy(server, "/fcgi/", f"busy{n}") for n in range(3)]
    for _ in range(3):
        assert server.get("/fcgi/").status == 503
    for one in busy:
        one.let_go()


# Expect: 100-continue (RFC 9110 section 10.1.1).

def has_bytes(client):
    with selectors.DefaultSelector() as selector:
        selector.register(client.socket, selectors.EVENT_READ)
        return bool(selector.select(0))


@BOTH
@pytest.mark.parametrize("fronts", [1, 3])
@pytest.mark.parametrize("buffering", ["off", "auto"])
def test_continue_when_admitted(lab, path, fronts, buffering):
    server = lab.serve(SITE.replace("request_buffering = off", f"request_buffering = {buffering}"), fronts=fronts)
    crew = Crew(server, [1] * fronts)
    busy = Busy(server, path)
    for client in crew.clients:
        client.send_request("POST", f"{path}?echo", fields=[("Expect", "100-continue"), ("Content-Length", "5")])
    probes = Crew(server, [1] * fronts)
    for probe in probes.clients:  # one on each front, behind what it has got
        assert probe.get("/nothing").status == 404
    assert not any(has_bytes(client) for client in crew.clients)
    busy.let_go()
    # With one place, each is told to go on only when those before it are done.
    left = list(crew.clients)
    while left:
        ready = wait_for(lambda: [client for client in left if has_bytes(client)], "the next to be admitted")
        assert len(ready) == 1
        client = ready[0]
        assert client._head().status == 100
        assert not any(has_bytes(other) for other in left if other is not client)
        client.send(b"hello")
        assert client.read("POST").body == b"hello"
        left.remove(client)
    crew.close()
    probes.close()


# What is told.

def test_what_holds_a_full_pool(lab):
    """One line, however many are refused, with what every process does."""
    server = lab.serve(SITE)
    busy = Busy(server, "/fcgi/")
    pid = lab.wait_file("busy").strip()
    clients = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", "/fcgi/"))
    for _ in range(20):
        assert server.get("/fcgi/").status == 503
    line = server.wait_log("pool count: full: ")
    assert re.search(rf" warning: pool count: full: 1 of 1 processes busy, 4 waiting: "
                     rf"pid {pid} GET /fcgi/\?started=\S+ \d+\.\d s body from 127\.0\.0\.1$", line), line
    busy.let_go()
    assert [client.read().status for client in clients] == [200] * LIMIT
    assert len(server.logged("full: ")) == 1
    assert not server.logged(" 503 ")
    close_all(clients)


def test_what_holds_a_full_route(lab):
    server = lab.serve(SITE.replace("max_running = 1", "max_running = 2"))
    busy = [Busy(server, "/cgi-bin/count", f"busy{n}") for n in range(2)]
    clients = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", "/cgi-bin/count"))
    for _ in range(20):
        assert server.get("/cgi-bin/count").status == 503
    line = server.wait_log("route /cgi-bin/*: full: ")
    one = r"pid (\d+) GET /cgi-bin/count\?started=\S+ \d+\.\d s body from 127\.0\.0\.1"
    match = re.search(rf" warning: route /cgi-bin/\*: full: 2 of 2 programs busy, 4 waiting: {one}; {one}$", line)
    assert match, line
    assert set(match.groups()) == {lab.wait_file(f"busy{n}").strip() for n in range(2)}
    for one in busy:
        one.let_go()
    assert [client.read().status for client in clients] == [200] * LIMIT
    assert len(server.logged("full: ")) == 1
    close_all(clients)


@pytest.mark.parametrize("path, what", [("/cgi-bin/count", "route /cgi-bin/*"), ("/fcgi/", "pool count")],
                         ids=["cgi", "fastcgi"])
def test_length_over_all_fronts(lab, path, what):
    """The limit is one for all of them, and so is the line that tells of it."""
    server = lab.serve(SITE, fronts=3)
    busy = Busy(server, path)
    crew, late = Crew(server, [1, 2, 1]), Crew(server, [2, 2, 2])
    for client in crew.clients:
        client.send_request("GET", path)
    probes = Crew(server, [1, 1, 1])
    for probe in probes.clients:  # behind what its front has got
        assert probe.get("/nothing").status == 404
    assert not any(has_bytes(client) for client in crew.clients)
    for client in late.clients:
        assert client.get(path).status == 503
    assert not any(has_bytes(client) for client in crew.clients)
    busy.let_go()
    assert [client.read().status for client in crew.clients] == [200] * LIMIT
    for crowd in (crew, late, probes):
        crowd.close()
    server.stop()
    assert len(server.logged(f"{what}: full: ")) == 1
    assert server.logged(f"{what}: full: 1 of 1 ", ", 4 waiting: pid ")


@BOTH
def test_no_queue_on_several_fronts(lab, path):
    """A place that is free, but lent to another front, is had for the asking."""
    server = lab.serve(SITE.replace("queue = 4", "queue = 0"), fronts=3)
    crew = Crew(server, [1, 1, 1])
    for _ in range(3):
        for client in crew.clients:
            assert client.get(path).status == 200
    busy = Busy(server, path)
    for client in crew.clients:
        assert client.get(path).status == 503
    busy.let_go()
    wait_for(lambda: all(client.get(path).status == 200 for client in crew.clients), "the place to be free again")
    crew.close()


@BOTH
def test_what_was_waited_for_in_vain(lab, path):
    server = lab.serve(SITE.replace("queue_timeout = 20s", "queue_timeout = 200ms"))
    busy = Busy(server, path)
    clients = stand_in_line(server, LIMIT, lambda client, n: client.send_request("GET", path))
    assert [client.read().status for client in clients] == [503] * LIMIT
    line = server.wait_log("a request has waited for queue_timeout = 200ms in vain: 1 of 1 ")
    assert f" GET {path}?started=" in line
    assert len(server.logged("queue_timeout")) == 1
    assert not server.logged(" 503 ")
    busy.let_go()
    close_all(clients)


# Several fronts.

class Crew:
    """Clients whose connections belong to fronts as it is asked for: so many of the first, of the second, and so on."""

    def __init__(self, server, shares):
        self.clients, self.fronts = [], []
        pids = wait_for(lambda: len(server.fronts()) == len(shares) and server.fronts(), "the fronts")
        for number, (pid, share) in enumerate(zip(pids, shares)):
            others = [other for other in pids if other != pid]
            try:
                for other in others:  # who is stopped accepts nothing
                    os.kill(other, signal.SIGSTOP)
                for other in others:
                    wait_for(lambda: is_stopped(other), "the other fronts to stand still")
                for _ in range(share):
                    client = server.connect()
                    assert client.get("/nothing").status == 404
                    self.clients.append(client)
                    self.fronts.append(number)
            finally:
                for other in others:
                    os.kill(other, signal.SIGCONT)

    def close(self):
        close_all(self.clients)


def is_stopped(pid):
    stat = processes.read(f"/proc/{pid}/stat")
    return stat[stat.rindex(")") + 2] == "T"


FAIR = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    max_running = 2
    queue = 1000
    queue_timeout = 60s
    [route /fcgi/*]
    gateway = fastcgi
    pool = roles
    [pool roles]
    command = {apps}/roles --mpxs 0
    pm = static
    pm.max_children = 2
    queue = 1000
    queue_timeout = 60s
"""


class Request:
    def __init__(self, front, sent):
        self.front, self.sent, self.done = front, sent, None


def run_crowd(crew, target, n_each):
    """All clients ask n_each times, one request after another: the requests, with the order of what happened."""
    lock, barrier = threading.Lock(), threading.Barrier(len(crew.clients))
    found, failed = [], []
    n_events = 0

    def ask(client, front):
        nonlocal n_events
        barrier.wait()
        try:
            for _ in range(n_each):
                with lock:
                    n_events += 1
                    request = Request(front, n_events)
                    found.append(request)
                assert client.get(target).status == 200
                with lock:
                    n_events += 1
                    request.done = n_events
        except (AssertionError, OSError, Closed) as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(crew.clients, crew.fronts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    return found


def most_overtakes(found, front, other):
    """How many requests of another front came later than one of this front, and were done before it, at most."""
    return max(sum(request.sent < rival.sent and rival.done < request.done for rival in found if rival.front == other)
               for request in found if request.front == front)


@pytest.mark.parametrize("target", ["/fcgi/?sleep=10", "/cgi-bin/slow.sh"], ids=["fastcgi", "cgi"])
@pytest.mark.parametrize("shares", [(8, 8), (2, 14), (6, 6, 6), (1, 1, 14)], ids=str)
def test_no_front_starves(lab, shares, target):
    """While a request waits, how many of another front's that came later are served before it depends on how many wait
    on its own front; not on how many clients there are on the other."""
    n_each = 12
    lab.script("slow.sh", r"""
        #!/bin/sh
        sleep 0.01
        printf 'Content-Type: text/plain\n\n'
        """)
    server = lab.serve(FAIR, fronts=len(shares))
    crew = Crew(server, shares)
    found = run_crowd(crew, target, n_each)
    assert len(found) == sum(shares) * n_each
    for front, share in enumerate(shares):
        for other in range(len(shares)):
            if other != front:
                overtakes = most_overtakes(found, front, other)
                print(f"front {other} overtook front {front} of {shares} {overtakes} times")
                assert overtakes <= 3 * (share + 2)
    crew.close()
