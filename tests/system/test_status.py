"""The status pages: what they say against traffic that is known, while every process is busy, and who may see them."""

import errno
import itertools
import json
import math
import os
import re
import signal
import socket
import time

import pytest

from client import Client, Closed
from processes import is_alive, wait_for
from remote import App

SITE = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    max_running = 2
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
"""

CONFIG = SITE + """
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 2
"""

SATURATED = SITE + """
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 4
    queue = 600
    queue_timeout = 60s
"""

SERVERS = """
    [site *]
    root = {root}
    [route /app/*]
    gateway = fastcgi
    pool = app
    [pool app]
    balance = round_robin
    max_fails = 1
    fail_timeout = 10m
    max_connections = 64
"""

FPM = ["pool", "process manager", "start time", "start since", "accepted conn", "listen queue", "max listen queue",
       "listen queue len", "idle processes", "active processes", "total processes", "max active processes",
       "max children reached", "slow requests"]
FPM_PROCESS = ["pid", "state", "start time", "start since", "requests", "request duration", "request method",
               "request uri", "user", "last request cpu", "last request memory"]
TIMING = re.compile(r"queue;dur=([0-9.]+)")


def get_json(server, name="status.json"):
    response = server.get(f"/-/{name}")
    assert response.status == 200 and response.get("content-type") == "application/json"
    assert response.get("cache-control") == "no-store"
    return json.loads(response.body)


def pool_of(server, name="count"):
    return next(pool for pool in get_json(server)["pools"] if pool["pool"] == name)


def requests_of(server):
    return get_json(server, "requests.json")["requests"]


def queue_ms(response):
    return float(TIMING.search(response.get("server-timing"))[1])


def rank(values, percent):
    """The least value that so many percent do not exceed."""
    values = sorted(values)
    return values[math.ceil(len(values) * percent / 100) - 1]


def start(server, target):
    client = server.connect()
    client.send_request("GET", target)
    return client


@pytest.fixture
def app(lab):
    """An application that runs already. It ends with the test, after the server."""
    one = App("app")
    yield one
    one.release()
    for server in lab.servers:
        if not getattr(server, "is_ended", False):
            server.stop()
    one.stop()


@pytest.fixture
def dead():
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def servers_of(server):
    return {one["address"]: one for one in pool_of(server, "app")["servers"]}


# What is there.

def test_names(lab):
    server = lab.serve(CONFIG)
    status = get_json(server)
    about = status["server"]
    assert about["pid"] == server.pid and about["generation"] == 1 and about["draining"] is False
    assert 0 <= time.time() - about["start time"] < 60 and about["start since"] < 60
    assert [front["pid"] for front in about["fronts"]] == server.fronts() == [about["answered by"]]
    pool = pool_of(server)
    assert list(pool)[:len(FPM)] == FPM
    assert pool["process manager"] == "static" and pool["listen queue len"] == 256 and pool["current"] is True
    assert 0 <= time.time() - pool["start time"] < 60
    assert pool["limits"]["pm.max_children"] == 2 and pool["limits"]["queue_timeout ms"] == 5000
    assert sorted(process["pid"] for process in pool["processes"]) == server.running("count")
    for process in pool["processes"]:
        assert [name for name in process if name in FPM_PROCESS] == FPM_PROCESS
    cgi = pool_of(server, "* /cgi-bin/*")
    assert cgi["process manager"] == "cgi" and cgi["limits"]["slots"] == 2 and cgi["processes"] == []


def test_known_traffic(lab):
    lab.file("root/hello.php", "<?php echo 'hello';")
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi
        pm = static
        pm.max_children = 1
    """)
    for n in range(7):
        assert server.get(f"/hello.php?n={n}").body == b"hello"
    assert server.get("/not-there").status == 404
    pool = pool_of(server, "php")
    assert pool["accepted conn"] == 7 and pool["max active processes"] == 1 and pool["listen queue"] == 0
    assert (pool["idle processes"], pool["active processes"], pool["total processes"]) == (1, 0, 1)
    assert pool["queue wait"]["count"] == 7 and pool["started"] == 1
    process, = pool["processes"]
    assert process["state"] == "Idle" and process["requests"] == 7
    assert process["request method"] == "GET" and process["request uri"] == "/hello.php?n=6"
    assert process["request duration"] > 0 and process["last request cpu"] > 0
    assert process["last request cpu ms"] > 0 and process["last request memory"] > 1 << 20
    about = get_json(server)["server"]
    assert about["responses"]["4xx"] == 1 and about["responses"]["2xx"] == 8  # status.json itself was the eighth
    assert about["requests"] == 9


def test_what_goes_wrong_is_counted(lab):
    server = lab.serve(SITE + """
        [pool count]
        command = {cgi}/count
        pm = static
        pm.max_children = 1
        queue = 1
        queue_timeout = 300ms
    """)
    for n, word in enumerate(("exit=3", "abort")):
        assert server.get(f"/fcgi/?{word}").status == 502
        wait_for(lambda: pool_of(server)["restarts"] == n + 1, "the process to be replaced")
    holder = start(server, f"/fcgi/?wait={lab.here('go')}")
    holder.read_head()
    expired = start(server, "/fcgi/expires")
    wait_for(lambda: pool_of(server)["listen queue"] == 1, "the queue to be full")
    refused = server.get("/fcgi/refused")
    assert refused.status == 503 and refused.get("retry-after")
    assert expired.read().status == 503
    pool = pool_of(server)
    assert pool["crashed"] == 2
    assert pool["refused"] == {"queue full": 1, "queue timeout": 1, "down": 0, "client left": 0}
    assert pool["accepted conn"] == 5 and pool["listen queue"] == 0 and pool["max listen queue"] == 1
    assert "/fcgi/?wait=" in pool["last saturation"]["holders"]
    assert abs(time.time() - pool["last saturation"]["time"]) < 60
    exits = pool_of(server)["exits"]
    assert exits["other status"] == 1 and exits["signal"] == 1 and exits["status 0"] == 0
    lab.file("go")


def test_cgi_programs(lab):
    server = lab.serve(CONFIG)
    server.get("/cgi-bin/hello.sh")
    clients = [start(server, f"/cgi-bin/count?wait={lab.here('go')}") for _ in range(2)]
    for client in clients:
        client.read_head()
    clients.append(start(server, "/cgi-bin/hello.sh"))
    wait_for(lambda: pool_of(server, "* /cgi-bin/*")["listen queue"] == 1, "one that waits")
    pool = pool_of(server, "* /cgi-bin/*")
    assert (pool["active processes"], pool["accepted conn"], pool["max active processes"]) == (2, 4, 2)
    assert sorted(process["pid"] for process in pool["processes"]) == server.running("count")[-2:]
    assert {process["request uri"] for process in pool["processes"]} == {f"/cgi-bin/count?wait={lab.here('go')}"}
    lab.file("go")
    for client in clients[:2]:
        client.socket.recv(1)
    assert clients[2].read().status == 200
    wait_for(lambda: pool_of(server, "* /cgi-bin/*")["active processes"] == 0, "the end of all")


# Servers.

def hold_at_both_fronts(server):
    """Requests that wait for the application, so many that each of two fronts has some."""
    clients = []
    while len({one["front"] for one in requests_of(server)}) < 2:
        assert len(clients) < 60, "one front gets them all"
        clients.append(start(server, "/app/hold"))
        wait_for(lambda: len(requests_of(server)) == len(clients), "it to be in flight")
    return clients


def test_servers(lab, app, dead):
    """One of two is not there. What is told of them is the sum over both fronts."""
    lines = ["multiplex = off",  # no connections for questions
             f"server = {app.address} weight=2 max_connections=50", f"server = {dead}"]
    server = lab.serve(SERVERS + "\n".join(lines), fronts=2)
    assert {one["state"] for one in servers_of(server).values()} == {"up"}, "nobody has tried yet"
    for _ in range(20):
        assert server.get("/app/").text == "app"
    n_answered = 20
    app.gate.clear()
    clients = hold_at_both_fronts(server)
    app.wait_requests(n_answered + len(clients))
    servers = servers_of(server)
    assert set(servers) == {app.address, dead}
    up, down = servers[app.address], servers[dead]
    assert up["state"] == "up" and up["failures"] == 0 and up["last failure"] is None and up["state since"] is None
    assert up["requests"] == n_answered
    assert (up["limit"], up["weight"], down["limit"], down["weight"]) == (50, 2, 64, 1)
    assert up["connections"] - up["idle connections"] == len(clients) == len(app.held)
    assert down["state"] == "down" and down["last failure"] == os.strerror(errno.ECONNREFUSED)
    assert 1 <= down["failures"] <= 2, "each front finds out once"
    assert down["requests"] == down["connections"] == 0 and down["state since"] is not None
    app.release()
    for client in clients:
        assert client.read().text == "app"
    wait_for(lambda: servers_of(server)[app.address]["requests"] == n_answered + len(clients), "all to be counted")
    wait_for(lambda: servers_of(server)[app.address]["connections"] == 0, "connections that are idle to be closed")
    page = server.get("/-/").text
    assert f"<b>up · 0 busy</b>{app.address}</li>" in page and f"<b>down · 0 busy</b>{dead}</li>" in page


def test_servers_in_metrics(lab, app, dead):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="python3-prometheus-client is missing")
    server = lab.serve(SERVERS + f"server = {app.address}\nserver = {dead}\n")
    for _ in range(7):
        assert server.get("/app/").text == "app"
    families = parser.text_string_to_metric_families(server.get("/-/metrics").text)
    found = {(sample.name, sample.labels["server"]): (sample.labels["pool"], sample.value)
             for family in families for sample in family.samples if "server" in sample.labels}
    connections = found.pop(("gatehouse_server_connections", app.address))
    assert connections[0] == "app" and connections[1] in (0, 1)
    assert found == {
        ("gatehouse_server_up", app.address): ("app", 1), ("gatehouse_server_up", dead): ("app", 0),
        ("gatehouse_server_connections", dead): ("app", 0),
        ("gatehouse_server_requests_total", app.address): ("app", 7),
        ("gatehouse_server_requests_total", dead): ("app", 0),
        ("gatehouse_server_failures_total", app.address): ("app", 0),
        ("gatehouse_server_failures_total", dead): ("app", 1)}


def test_a_pool_whose_servers_are_all_down(lab, app, dead):
    server = lab.serve(SERVERS + f"server = {app.address}\nserver = {dead}\n")
    for _ in range(2):
        assert server.get("/app/").text == "app"
    assert servers_of(server)[dead]["state"] == "down"
    assert server.get("/-/readyz").body == b"ready\n", "one is there"
    app.refuse()
    wait_for(lambda: servers_of(server)[app.address]["connections"] == 0, "the connection that is kept to be closed")
    assert server.get("/app/").status in (502, 503)
    assert {one["state"] for one in servers_of(server).values()} == {"down"}
    response = server.get("/-/readyz")
    assert response.status == 503 and response.text.startswith("pool app: all servers are down: ")
    for address in (app.address, dead):
        assert f"{address}: {os.strerror(errno.ECONNREFUSED)}" in response.text
    app.listen()
    wait_for(lambda: server.answers("/app/"), "it to be tried, since none is left")
    assert servers_of(server)[app.address]["state"] == "up"
    assert server.get("/-/readyz").body == b"ready\n"


def test_a_server_that_may_be_tried_again(lab, dead):
    """Nobody sends requests to who is not ready: so it is ready when the next one would be tried."""
    server = lab.serve(SERVERS.replace("fail_timeout = 10m", "fail_timeout = 2s") + f"server = {dead}\n")
    assert server.get("/-/readyz").status == 200
    assert server.get("/app/").status in (502, 503)
    wait_for(lambda: server.answers("/-/readyz"), "the end of fail_timeout")
    assert servers_of(server)[dead]["state"] == "down"


# While every process is busy.

def test_saturated_pool(lab):
    """500 clients, 4 processes that do not end: what is shown is exact, and so are the waits when they do."""
    server = lab.serve(SATURATED, server_timing="on")
    lab.file("root/file.txt", b"static")
    go = lab.here("go")
    holders = [start(server, f"/fcgi/hold?wait={go}") for _ in range(4)]
    for client in holders:
        client.first = client.read_head()
    waiting = [start(server, f"/fcgi/wait?{n}") for n in range(496)]
    wait_for(lambda: pool_of(server)["listen queue"] == 496, "496 that wait")
    assert server.get("/file.txt").body == b"static"

    pool = pool_of(server)
    assert (pool["idle processes"], pool["active processes"], pool["total processes"]) == (0, 4, 4)
    assert pool["max listen queue"] == 496 and pool["accepted conn"] == 500 and pool["queue wait"]["count"] == 4
    assert {process["state"] for process in pool["processes"]} == {"Running"}
    assert {process["request uri"] for process in pool["processes"]} == {f"/fcgi/hold?wait={go}"}

    requests = requests_of(server)
    assert len(requests) == 500 and [request["age ms"] for request in requests] == sorted(
        (request["age ms"] for request in requests), reverse=True)
    held = [request for request in requests if request["phase"] == "body"]
    assert sorted(request["pid"] for request in held) == server.running("count")
    assert {request["id"] for request in held} == {client.first.id for client in holders}
    assert all(request["bytes out"] > 0 for request in held)
    queued = [request for request in requests if request["phase"] == "queue"]
    assert len(queued) == 496 and all(request["pid"] is None for request in queued)
    assert {request["uri"] for request in queued} == {f"/fcgi/wait?{n}" for n in range(496)}
    one = queued[0]
    assert (one["client"], one["method"], one["site"], one["route"], one["pool"]) == (
        "127.0.0.1", "GET", "*", "/fcgi/*", "count")
    assert one["age ms"] >= one["phase ms"] > 0

    for client in waiting[:3]:
        client.reset()
    wait_for(lambda: pool_of(server)["listen queue"] == 493, "those that have left to leave the queue")
    wait_for(lambda: len(requests_of(server)) == 497, "... and the list")
    assert pool_of(server)["refused"]["client left"] == 3

    lab.file("go")
    waits = [queue_ms(client.first) for client in holders]
    for client in waiting[3:]:
        response = client.read()
        assert response.status == 200
        waits.append(queue_ms(response))
    wait_for(lambda: pool_of(server)["active processes"] == 0, "the end of all")
    pool = pool_of(server)
    shown = pool["queue wait"]
    assert shown["count"] == shown["sample"] == len(waits) == 497
    assert [shown["p50"], shown["p90"], shown["p99"], shown["max"]] == [
        rank(waits, 50), rank(waits, 90), rank(waits, 99), max(waits)]
    assert pool["listen queue"] == 0 and pool["max active processes"] == 4
    assert sum(process["requests"] for process in pool["processes"]) == 497
    wait_for(lambda: requests_of(server) == [], "no request in flight")


def test_two_fronts_are_summed(lab):
    server = lab.serve(CONFIG, fronts=2, server_timing="on")
    waits = [queue_ms(server.get("/fcgi/")) for _ in range(40)]
    pool = pool_of(server)
    assert pool["accepted conn"] == pool["queue wait"]["count"] == 40
    assert pool["queue wait"]["max"] == max(waits) and pool["queue wait"]["p50"] == rank(waits, 50)
    asked = itertools.count(41)  # a front counts a request when it is answered: another may be asked sooner

    def settled():
        found = get_json(server)["server"]
        return found if found["requests"] == next(asked) and found["connections"] == 1 else None

    about = wait_for(settled, "all to be counted")
    assert [front["pid"] for front in about["fronts"]] == server.fronts()
    assert sum(front["requests"] for front in about["fronts"]) == about["requests"]
    assert sum(front["accepted connections"] for front in about["fronts"]) == about["accepted connections"]
    assert about["accepted connections"] == about["requests"] + 1

    holders = [start(server, f"/fcgi/?wait={lab.here('go')}") for _ in range(2)]
    for client in holders:
        client.read_head()
    waiting = [start(server, f"/fcgi/{n}") for n in range(30)]
    wait_for(lambda: pool_of(server)["listen queue"] == 30, "30 that wait, at both fronts")
    assert pool_of(server)["max listen queue"] == 30
    assert len(requests_of(server)) == 32
    lab.file("go")
    for client in waiting:
        assert client.read().status == 200


def test_sums_outlive_a_front(lab):
    server = lab.serve(CONFIG, fronts=2)
    for _ in range(20):
        server.get("/fcgi/")
    before = get_json(server)["server"]
    assert before["requests"] == 20
    os.kill(server.fronts()[0], signal.SIGKILL)
    wait_for(lambda: server.answers("/-/healthz"), "an answer")
    wait_for(lambda: len(get_json(server)["server"]["fronts"]) == 2, "two fronts")
    assert get_json(server)["server"]["requests"] > 20
    assert pool_of(server)["accepted conn"] == 20
    server.wait_log("another is started")


def test_a_file_that_is_slow_to_go(lab):
    server = lab.serve(CONFIG)
    lab.file("root/large", os.urandom(1 << 20) * 32)
    with server.connect() as client:
        client.send_request("GET", "/large")
        head = client.read_head()
        request, = wait_for(lambda: [one for one in requests_of(server) if one["bytes out"] > 0], "it in the list")
        assert request["phase"] == "send" and request["uri"] == "/large" and request["id"] == head.id
        assert request["pool"] is None and request["pid"] is None and request["bytes out"] < 32 << 20
        for _ in client.body_pieces(head):
            pass
    wait_for(lambda: requests_of(server) == [], "its end")


def test_a_body_that_is_awaited(lab):
    server = lab.serve(CONFIG.replace("pool = count", "pool = count\nrequest_buffering = on"))
    with server.connect() as client:
        client.send(b"POST /fcgi/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        request, = wait_for(lambda: requests_of(server), "it in the list")
        assert request["phase"] == "receive" and request["method"] == "POST"
        assert pool_of(server)["active processes"] == 0
        client.send(b"cd")
        assert client.read().status == 200


def test_a_program_that_works_on_without_a_client(lab):
    server = lab.serve(CONFIG)
    with server.connect() as client:
        client.send_request("GET", f"/fcgi/?wait={lab.here('go')}")
        client.read_head()
        pid = requests_of(server)[0]["pid"]
    lab.file("go")
    wait_for(lambda: requests_of(server) == [], "its end")
    wait_for(lambda: pool_of(server)["active processes"] == 0, "its process to be free")
    assert is_alive(pid)


# Who may see it, and how it is asked for.

def own_address():
    """An address of this machine that is no loopback one; None: there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            return None
    return None if address.startswith("127.") or address == "0.0.0.0" else address


@pytest.mark.skipif(own_address() is None, reason="this machine has loopback addresses alone")
def test_others_may_not_see_it(lab):
    address = own_address()
    server = lab.serve(CONFIG, listen="*:0")
    lab.file("root/file.txt", b"text")
    for name in ("", "status.json", "healthz", "events", "not-there"):
        with Client(server.port, host=address) as client:
            claims = [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")]
            response = client.get(f"/-/{name}", fields=claims)
            assert response.status == 403 and b"pool" not in response.body
            assert client.get("/file.txt").status == 200
    assert server.get("/-/status.json").status == 200
    with Client(server.port, host="::1") as client:
        assert client.request("GET", "/-/status.json", host="x").status == 200


@pytest.mark.skipif(own_address() is None, reason="this machine has loopback addresses alone")
def test_status_allow(lab):
    address = own_address()
    server = lab.serve(CONFIG, listen="*:0", status_allow=f"fd00::/8 {address}/32")
    with Client(server.port, host=address) as client:
        assert client.get("/-/status.json").status == 200
    assert server.get("/-/status.json").status == 200
    neighbour = socket.inet_ntoa(bytes([*socket.inet_aton(address)[:3], socket.inet_aton(address)[3] ^ 1]))
    other = lab.serve(CONFIG, listen="*:0", status_allow=neighbour)
    with Client(other.port, host=address) as client:
        assert client.get("/-/status.json").status == 403


def test_clients_of_a_unix_socket(lab):
    path = lab.here("http.sock")
    server = lab.serve(CONFIG, listen=f"127.0.0.1:0\nlisten = unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok\n")
    server.process.send_signal(signal.SIGTERM)
    server.expect_end(0)


def test_methods_and_names(lab):
    server = lab.serve(CONFIG)
    lab.file("root/-/status.json", b"the site's own")
    for name in ("", "status.json", "requests.json", "metrics", "healthz", "readyz"):
        with server.connect() as client:
            response = client.get(f"/-/{name}")
            assert response.status == 200 and response.body and response.get("cache-control") == "no-store"
            head = client.request("HEAD", f"/-/{name}")
            assert head.status == 200 and head.body == b"" and int(head.get("content-length")) > 0
            assert head.get("content-type") == response.get("content-type")
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                refused = client.request(method, f"/-/{name}", b"" if method in ("POST", "PUT") else None)
                assert refused.status == 405 and refused.get("allow") == "GET, HEAD"
            assert client.get(f"/-/{name}?query").status == 200
    for name in ("nothing", "status.json/", "STATUS.JSON", "healthz/x"):
        assert server.get(f"/-/{name}").status == 404
    assert server.get("/-/%73tatus.json").status == 200
    assert server.record(server.get("/-/healthz"))["gateway"] == "status"


def test_off_and_elsewhere(lab):
    lab.file("root/-/status.json", b"the site's own")
    off = lab.serve(CONFIG, status="off")
    assert off.get("/-/status.json").body == b"the site's own" and off.get("/-/healthz").status == 404
    elsewhere = lab.serve(CONFIG, status="/server/status/")
    assert elsewhere.get("/server/status/healthz").body == b"ok\n"
    assert elsewhere.get("/-/status.json").body == b"the site's own"
    assert elsewhere.get("/server/status").status == 404


def test_a_program_does_not_get_at_it(lab):
    lab.script("peek.sh", """
        #!/bin/sh
        printf 'Location: /-/status.json\\n\\n'
    """)
    server = lab.serve(CONFIG)
    assert server.get("/cgi-bin/peek.sh").status == 404


# Health.

def test_healthz_and_readyz(lab):
    server = lab.serve(CONFIG)
    assert server.get("/-/healthz").body == b"ok\n"
    assert server.get("/-/readyz").body == b"ready\n"


def test_a_pool_that_cannot_start(lab):
    server = lab.serve(CONFIG + """
        [route /bad/*]
        gateway = fastcgi
        pool = bad
        [pool bad]
        command = /bin/false
        pm = static
        pm.max_children = 1
    """)
    wait_for(lambda: server.answers("/-/readyz", 503), "readyz to say so")
    wait_for(lambda: b"down" in server.get("/-/readyz").body, "the cause to be known")
    text = server.get("/-/readyz").text
    assert text.startswith("pool bad: down: /bin/false") and "pool count" not in text
    assert server.get("/-/healthz").status == 200
    assert pool_of(server, "bad")["down"] is True
    assert "badge" in server.get("/-/").text


def test_draining(lab):
    """Who has begun a request before, gets an answer: not ready."""
    server = lab.serve(CONFIG)
    ready, health, page = server.connect(), server.connect(), server.connect()
    for client, name in ((ready, "readyz"), (health, "healthz"), (page, "")):
        client.send(f"GET /-/{name} HTTP/1.1\r\nHost: x\r\n".encode())
    wait_for(lambda: get_json(server)["server"]["connections"] == 4, "the connections to be open")
    server.process.send_signal(signal.SIGTERM)
    server.wait_log("requests in flight are finished first")

    def refuses():
        try:
            server.connect().close()
        except ConnectionError:  # refused, or reset in the moment of closing
            return True
        return False

    wait_for(refuses, "the fronts to drain")
    for client in (ready, health, page):
        client.send(b"\r\n")
    response = ready.read()
    assert response.status == 503 and response.body == b"the server is draining\n" and response.closes
    assert health.read().body == b"ok\n"
    assert "draining" in page.read().text
    server.expect_end(0)


# Metrics.

def test_metrics(lab):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="python3-prometheus-client is missing")
    server = lab.serve(CONFIG, fronts=2)
    for _ in range(5):
        server.get("/fcgi/")
    server.get("/cgi-bin/hello.sh")
    server.get("/not-there")
    wait_for(lambda: len(server.records()) == 7, "all to be logged")
    response = server.get("/-/metrics")
    assert response.get("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert response.text.endswith("# EOF\n")
    families = {family.name: family for family in parser.text_string_to_metric_families(response.text)}

    def value(name, **labels):
        family = families[max((family for family in families if name.startswith(family)), key=len)]
        found = [sample.value for sample in family.samples
                 if sample.name == name and labels.items() <= sample.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    assert value("gatehouse_up") == 1 and value("gatehouse_fronts") == 2 and value("gatehouse_generation") == 1
    assert value("gatehouse_requests_total") == 7 and value("gatehouse_connections") == 1
    assert value("gatehouse_responses_total", **{"class": "2xx"}) == 6
    assert value("gatehouse_responses_total", **{"class": "4xx"}) == 1
    assert value("gatehouse_pool_requests_total", pool="count") == 5
    states = [value("gatehouse_pool_processes", pool="count", state=state) for state in ("idle", "starting")]
    assert sum(states) == 2 and states[0] >= 1  # one that has had no request is starting for its first second
    assert value("gatehouse_pool_slots", pool="count") == 2
    for phase in ("queue", "start", "first", "body", "total"):
        assert value("gatehouse_phase_seconds_count", gateway="fastcgi", route="/fcgi/*", phase=phase) == 5
    assert value("gatehouse_phase_seconds_count", gateway="cgi", route="/cgi-bin/*", phase="reap") == 1
    assert value("gatehouse_phase_seconds_bucket", gateway="cgi", phase="total", le="+Inf") == 1
    total = sum(record["total_ms"] for record in server.records() if record["route"] == "/fcgi/*") / 1000
    assert math.isclose(value("gatehouse_phase_seconds_sum", gateway="fastcgi", phase="total"), total, abs_tol=1e-5)


# Live.

def read_event(client, response, pieces):
    """The next event: its name and data."""
    text = getattr(client, "rest", b"")
    while b"\n\n" not in text.replace(b"retry: 3000\n\n", b""):
        text += next(pieces)
    text = text.replace(b"retry: 3000\n\n", b"")
    event, client.rest = text.split(b"\n\n", 1)
    name, data = re.fullmatch(r"event: (\w+)\ndata: (.*)", event.decode(), re.S).groups()
    return name, json.loads(data)


def watch(server):
    client = server.connect()
    client.send_request("GET", "/-/events")
    response = client.read_head()
    return client, response, client.body_pieces(response)


def test_events(lab):
    server = lab.serve(CONFIG)
    client, response, pieces = watch(server)
    assert response.status == 200 and response.get("content-type") == "text/event-stream"
    assert response.get("cache-control") == "no-store"
    name, first = read_event(client, response, pieces)
    assert name == "parts"
    page = server.get("/-/").text
    assert all(f'id="{part}"' in page for part in first["parts"]) and f'data-shape="{first["shape"]}"' in page
    holder = start(server, f"/fcgi/in-flight?wait={lab.here('go')}")
    holder.read_head()
    parts = {}
    while "/fcgi/in-flight" not in parts.get("requests", ""):
        name, event = read_event(client, response, pieces)
        parts.update(event["parts"])
    while "busy" not in parts.get("pool-0", ""):
        parts.update(read_event(client, response, pieces)[1]["parts"])
    lab.file("go")
    client.close()
    holder.close()
    wait_for(lambda: get_json(server)["server"]["connections"] == 1, "the watcher to be gone")


def test_watchers_are_bounded(lab):
    server = lab.serve(CONFIG)
    watchers = [watch(server) for _ in range(16)]
    assert all(response.status == 200 for _, response, _ in watchers)
    for client, response, pieces in watchers:
        assert read_event(client, response, pieces)[0] == "parts"
    refused = server.get("/-/events")
    assert refused.status == 503 and refused.get("retry-after")
    assert server.request("HEAD", "/-/events").status == 503
    watchers.pop()[0].close()
    client, response, pieces = wait_for(lambda: next((one for one in [watch(server)] if one[1].status == 200), None),
                                        "a place to be free")
    assert read_event(client, response, pieces)[0] == "parts"
    assert server.get("/-/healthz").status == 200


def test_events_end_with_the_server(lab):
    server = lab.serve(CONFIG)
    client, response, pieces = watch(server)
    assert read_event(client, response, pieces)[0] == "parts"
    server.process.send_signal(signal.SIGTERM)
    while True:
        name, data = read_event(client, response, pieces)
        if name == "end":
            break
    with pytest.raises((StopIteration, Closed)):
        next(pieces)
    server.expect_end(0)


def test_a_watcher_that_does_not_read(lab):
    """It is passed over, and the others are not."""
    server = lab.serve(CONFIG, body_timeout="60s")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.connect(("127.0.0.1", server.port))
    deaf.sendall(b"GET /-/events HTTP/1.1\r\nHost: x\r\n\r\n")
    client, response, pieces = watch(server)
    for _ in range(3):
        assert read_event(client, response, pieces)[0] == "parts"
    assert server.get("/-/healthz").status == 200
    deaf.close()


# Hostile texts.

def test_hostile_requests(lab):
    server = lab.serve(CONFIG, access_format="combined")
    evil = "/fcgi/'--%22%3E%3Cscript%3Ealert(1)%3C/script%3E&amp;$x"
    raw = "/fcgi/\"><script>alert(1)</script>"
    clients = []
    for target in (evil, raw):
        client = server.connect()
        client.send_request("GET", f"{target}?wait={lab.here('go')}",
                            fields=[("User-Agent", "<script>alert(2)</script>"), ("Referer", "\"><img src=x>")])
        response = client.read_head()
        clients.append((target, client, response.status))
    shown = [target for target, _, status in clients if status == 200]
    assert evil in shown
    uris = {request["uri"] for request in requests_of(server)}
    assert {uri.partition("?")[0] for uri in uris} == set(shown)
    page = server.get("/-/").text
    assert page.count("<script") == 1 and "alert(2)" not in page and "<img" not in page
    policy = server.get("/-/").get("content-security-policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert server.get("/-/").get("content-security-policy") != policy  # another nonce each time
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="python3-prometheus-client is missing")
    assert list(parser.text_string_to_metric_families(server.get("/-/metrics").text))
    watcher, response, pieces = watch(server)
    _, event = read_event(watcher, response, pieces)
    assert "<script" not in json.dumps(event["parts"]) and "alert(1)" in event["parts"]["requests"]
    lab.file("go")
