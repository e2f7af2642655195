"""FastCGI servers that run already: which of them gets a request, how many connections each gets, what happens when one
fails, health requests, and names that are looked up."""

import collections
import contextlib
import glob
import os
import pwd
import signal
import socket
import subprocess
import threading
import time

import pytest

from processes import wait_for
from remote import AAAA, App, Resolver, address_record, srv_record

SITE = """
    [site *]
    root = {root}
    [route /app/*]
    gateway = fastcgi
    pool = app
    [pool app]
"""


@pytest.fixture
def apps_of(lab):
    """Makes applications, and ends them with the test, after the server."""
    made = []

    def make(*names, **more):
        new = [App(name, **more) for name in names]
        made.extend(new)
        return new if len(new) > 1 else new[0]

    yield make
    for server in lab.servers:
        if not getattr(server, "is_ended", False):
            for app in made:
                app.release()
            server.stop()
    for app in made:
        app.stop()


@pytest.fixture
def resolver(lab):
    with contextlib.closing(ResolverOf(lab)) as it:
        yield it.resolver


class ResolverOf:
    def __init__(self, lab):
        self.lab, self.resolver = lab, Resolver()

    def close(self):
        for server in self.lab.servers:
            if not getattr(server, "is_ended", False):
                server.stop()
        self.resolver.stop()


def serve(lab, lines, **server):
    return lab.serve(SITE + "\n".join(lines) + "\n", **server)


def of(*apps):
    return [f"server = {app.address}" for app in apps]


def ask(server, **more):
    """The name of who has answered."""
    response = server.get("/app/", **more)
    assert response.status == 200, response
    return response.text


def in_background(n, run):
    """Runs n threads; their results, when they are joined: a function."""
    results, threads = [], []

    def keep(i):
        results.append(run(i))

    for i in range(n):
        threads.append(threading.Thread(target=keep, args=(i,)))
        threads[-1].start()

    def join():
        for thread in threads:
            thread.join(40)
        return results

    return join


def dead_port():
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# Which server.

def test_round_robin_by_weight(lab, apps_of):
    one, two = apps_of("one", "two")
    server = serve(lab, [f"server = {one.address} weight=3", f"server = {two.address}", "balance = round_robin"])
    assert collections.Counter(ask(server) for _ in range(40)) == {"one": 30, "two": 10}


def test_least_busy(lab, apps_of):
    """While one is busy, all others go elsewhere."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["max_connections = 9"])
    one.gate.clear()
    join = in_background(1, lambda _: ask(server))
    one.wait_requests(1)
    assert [ask(server) for _ in range(10)] == ["two"] * 10
    one.release()
    assert join() == ["one"]


def test_least_busy_goes_by_weight(lab, apps_of):
    one, two = apps_of("one", "two")
    one.gate.clear()
    two.gate.clear()
    server = serve(lab, [f"server = {one.address} weight=3", f"server = {two.address}"])
    join = in_background(8, lambda _: ask(server))
    wait_for(lambda: len(one.requests) + len(two.requests) == 8, "the requests")
    assert (len(one.requests), len(two.requests)) == (6, 2)
    one.release()
    two.release()
    assert sorted(join()) == ["one"] * 6 + ["two"] * 2


def test_hash_of_a_cookie(lab, apps_of):
    apps = apps_of(*(f"app{i}" for i in range(5)))
    server = serve(lab, of(*apps) + ["balance = hash", "hash = cookie sid", "max_fails = 1"])
    keys = [f"k{i}" for i in range(60)]

    def owners():
        return {key: ask(server, fields=[("Cookie", f"a=b; sid={key}; c=d")]) for key in keys}

    before = owners()
    assert len(set(before.values())) == 5 and owners() == before
    gone = before[keys[0]]
    next(app for app in apps if app.name == gone).refuse()
    wait_for(lambda: all(not app.open for app in apps), "the end of kept connections")
    after = owners()
    assert all(after[key] == before[key] for key in keys if before[key] != gone)
    assert gone not in after.values() and len({after[key] for key in keys if before[key] == gone}) > 1


def test_hash_of_the_client(lab, apps_of):
    apps = apps_of("one", "two", "three")
    server = serve(lab, of(*apps) + ["balance = hash"])
    assert len({ask(server) for _ in range(10)}) == 1


def test_hash_waits_for_its_own(lab, apps_of):
    """A request whose server is full waits, and does not stand in the way of those behind it."""
    apps = apps_of("one", "two")
    server = serve(lab, of(*apps) + ["balance = hash", "hash = cookie k", "max_connections = 1"])

    def go(key):
        return ask(server, fields=[("Cookie", f"k={key}")])

    owner = {key: go(key) for key in "abcdefghij"}
    full = next(app for app in apps if app.name == owner["a"])
    full.gate.clear()
    before = len(full.requests)
    join = in_background(3, lambda _: go("a"))
    full.wait_requests(before + 1)
    other = next(key for key in owner if owner[key] != owner["a"])
    assert [go(other) for _ in range(3)] == [owner[other]] * 3
    assert len(full.requests) == before + 1 and full.most == 1
    full.release()
    assert join() == [owner["a"]] * 3 and full.most == 1


def test_backup(lab, apps_of):
    """Backups are for when nobody else can be tried: not for when all are busy."""
    first, spare = apps_of("first", "spare")
    server = serve(lab, [f"server = {spare.address} backup", f"server = {first.address}", "max_connections = 1",
                         "max_fails = 1", "fail_timeout = 200ms"])
    first.gate.clear()
    join = in_background(2, lambda _: ask(server))
    first.wait_requests(1)
    first.release()
    assert join() == ["first", "first"] and not spare.requests
    first.refuse()
    wait_for(lambda: not first.open, "the end of the kept connection")
    assert [ask(server) for _ in range(3)] == ["spare"] * 3
    first.listen()
    wait_for(lambda: ask(server) == "first", "the first server's return")
    server.wait_log(f"server {first.address} answers again")


@pytest.mark.parametrize("kind", ["unix", "v6"])
def test_addresses(lab, apps_of, kind):
    app = apps_of("app", path=lab.here("app.sock")) if kind == "unix" else apps_of("app", host="::1")
    server = serve(lab, of(app))
    assert [ask(server) for _ in range(3)] == ["app"] * 3


# How many connections.

@pytest.mark.parametrize("balance", ["least_busy", "round_robin", "hash"])
def test_limit_over_fronts(lab, apps_of, balance):
    """Two fronts, two servers: never more connections than each may have, and all are used."""
    one, two = apps_of("one", "two")
    server = serve(lab, [f"server = {one.address} max_connections=2", f"server = {two.address}", "max_connections = 3",
                         f"balance = {balance}", "queue_timeout = 30s"] +
                   (["hash = cookie k"] if balance == "hash" else []), fronts=2)

    def go(i):
        with server.connect() as client:
            return [client.request("GET", "/app/", fields=[("Cookie", f"k={i * 100 + j}")]).text for j in range(40)]

    answers = collections.Counter(name for names in in_background(12, go)() for name in names)
    assert sum(answers.values()) == 480 and set(answers) == {"one", "two"}
    assert one.most <= 2 and two.most <= 3
    assert not server.logged("error")


def test_full_server_is_shared_by_fronts(lab, apps_of):
    """One place, two fronts: it passes from one to the other."""
    app = apps_of("app")
    server = serve(lab, of(app) + ["max_connections = 1", "queue_timeout = 30s"], fronts=2)

    def go(_):
        with server.connect() as client:
            return [client.get("/app/").text for _ in range(30)]

    assert in_background(8, go)() == [["app"] * 30] * 8
    assert app.most == 1


@pytest.mark.parametrize("fronts", [1, 2])
def test_limit_over_a_reload(lab, apps_of, fronts):
    """Old fronts and new ones keep to it together, and no request fails."""
    app = apps_of("app")
    server = serve(lab, of(app) + ["max_connections = 2", "queue_timeout = 30s"], fronts=fronts)

    def go(_):
        answers = []
        while len(answers) < 60 or not is_over:
            answers.append(ask(server))
        return set(answers)

    is_over = False
    join = in_background(6, go)
    for n in range(1, 3):
        app.wait_requests(len(app.requests) + 30)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.logged("reload")) >= n, "the reload")
    app.wait_requests(len(app.requests) + 30)
    is_over = True
    assert join() == [{"app"}] * 6
    assert app.most <= 2


# Failures.

def test_failover(lab, apps_of):
    """A server that refuses is tried, failed over, and passed over after three times; no request knows of it."""
    app = apps_of("app")
    dead = f"127.0.0.1:{dead_port()}"
    server = serve(lab, [f"server = {dead}", f"server = {app.address}", "balance = round_robin"])
    assert [ask(server) for _ in range(20)] == ["app"] * 20
    server.wait_log(f"server {dead} is passed over for 10 s: it has failed 3 times within 10 s", "Connection refused")
    assert len(server.logged(dead)) == 1
    retries = wait_for(lambda: len(server.records()) == 20 and [one["retries"] for one in server.records()], "records")
    assert sum(retries) == 3


def test_all_fail(lab):
    """Each is tried once for a request, even when all are passed over."""
    dead = [f"127.0.0.1:{dead_port()}", f"127.0.0.1:{dead_port()}"]
    server = serve(lab, [f"server = {one}" for one in dead] + ["max_fails = 1"])
    for _ in range(3):
        assert server.get("/app/").status == 502
    records = wait_for(lambda: len(server.records()) == 3 and server.records(), "the records")
    assert [record["retries"] for record in records] == [2, 2, 2]


def test_half_open(lab, apps_of):
    """When fail_timeout is over, one request is tried; the others do not wait for it."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["balance = round_robin", "max_fails = 1", "fail_timeout = 300ms"])
    one.refuse()
    assert [ask(server) for _ in range(4)] == ["two"] * 4
    server.wait_log(f"server {one.address} is passed over")
    one.gate.clear()
    one.listen()
    found = []

    def try_until_one(_):
        while not one.requests:
            found.append(ask(server))

    join = in_background(1, try_until_one)
    one.wait_requests(1)
    assert [ask(server) for _ in range(6)] == ["two"] * 6 and len(one.requests) == 1
    one.release()
    join()
    server.wait_log(f"server {one.address} answers again")
    assert {ask(server) for _ in range(4)} == {"one", "two"}


def test_overloaded(lab, apps_of):
    """A request that was refused with OVERLOADED goes to another, with its body; when all refuse, it is a 503."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["balance = round_robin"])
    one.overloaded = True
    for _ in range(4):
        response = server.request("POST", "/app/", b"the body")
        assert (response.status, response.text) == (200, "two")
    assert all(request["body"] == b"the body" for request in two.requests) and len(two.requests) == 4
    two.overloaded = True
    assert server.get("/app/").status == 503


def test_not_sent_twice(lab, apps_of):
    """Who closes a new connection without an answer may have begun: the request fails, once. That counts."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["balance = round_robin", "max_fails = 2"])
    one.closes = True
    statuses = collections.Counter(server.get("/app/").status for _ in range(8))
    assert statuses == {502: 2, 200: 6} and len(one.requests) == 2
    server.wait_log(f"server {one.address} is passed over", "closed its connection without an answer")


def test_timeouts_count(lab, apps_of):
    one, two = apps_of("one", "two")
    one.gate.clear()
    server = lab.serve(SITE.replace("pool = app", "pool = app\ntimeout = 300ms") + "\n".join(
        of(one, two) + ["balance = round_robin", "max_fails = 2"]) + "\n")
    statuses = collections.Counter(server.get("/app/").status for _ in range(8))
    assert statuses == {504: 2, 200: 6}
    server.wait_log(f"server {one.address} is passed over", "has not answered in time")


def test_connect_timeout(lab, apps_of):
    """A listener whose backlog is full answers nothing at all."""
    app = apps_of("app")
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        server = serve(lab, [f"server = {address}", f"server = {app.address} backup", "connect_timeout = 200ms",
                             "max_fails = 1"])
        assert ask(server) == "app"
        server.wait_log(f"server {address} is passed over", "timed out")
        alone = serve(lab, [f"server = {address}", "connect_timeout = 100ms"])
        assert alone.get("/app/").status == 504
        server.stop()
        alone.stop()


# Health.

def test_health(lab, apps_of):
    """One failure, and a server gets no more; one success, and it gets them again. What is asked is as documented."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["balance = round_robin", "health = /ping?a=b 100ms"])
    one.wait(lambda: one.pings)
    _, params = one.pings[0]
    assert {name: params[name] for name in ("SCRIPT_NAME", "SCRIPT_FILENAME", "REQUEST_METHOD", "QUERY_STRING",
                                            "REQUEST_URI")} == \
        {"SCRIPT_NAME": "/ping", "SCRIPT_FILENAME": "/ping", "REQUEST_METHOD": "GET", "QUERY_STRING": "a=b",
         "REQUEST_URI": "/ping?a=b"}
    one.health = 503
    server.wait_log(f"server {one.address} is not well, and gets no requests", "answers with status 503")
    assert [ask(server) for _ in range(6)] == ["two"] * 6
    one.health = 399
    server.wait_log(f"server {one.address} is well again")
    assert collections.Counter(ask(server) for _ in range(6)) == {"one": 3, "two": 3}
    two.refuse()
    server.wait_log(f"server {two.address} is not well")
    assert [ask(server) for _ in range(6)] == ["one"] * 6


def test_health_by_one_front(lab, apps_of):
    """Each server is asked once an interval, not once a front; all fronts know what it says."""
    one, two = apps_of("one", "two")
    server = serve(lab, of(one, two) + ["balance = round_robin", "health = /ping 200ms"], fronts=3)
    one.wait(lambda: len(one.pings) >= 12)
    times = [when for when, _ in one.pings][2:]
    assert (times[-1] - times[0]) / (len(times) - 1) > 0.15
    one.health = 500
    server.wait_log(f"server {one.address} is not well")
    asked = len(one.pings)
    one.wait(lambda: len(one.pings) > asked)
    assert {ask(server) for _ in range(24)} == {"two"}
    assert len(server.logged(f"server {one.address} is not well")) == 1


def test_health_has_a_place(lab, apps_of):
    """Of a server with one connection: none more for a health request, and none while it is busy."""
    app = apps_of("app")
    server = serve(lab, of(app) + ["max_connections = 1", "health = /ping 100ms"])
    app.wait(lambda: len(app.pings) >= 2)
    assert ask(server) == "app"
    app.wait(lambda: len(app.pings) >= 4)
    app.gate.clear()
    join = in_background(1, lambda _: ask(server))
    app.wait_requests(2)
    asked = len(app.pings)
    time.sleep(0.35)  # more than three intervals: there is nothing to wait for
    assert len(app.pings) <= asked + 1
    app.release()
    assert join() == ["app"] and app.most == 1


def test_all_ill(lab, apps_of):
    """When none is well, all are tried all the same."""
    app = apps_of("app")
    app.health = 500
    server = serve(lab, of(app) + ["health = /ping 100ms"])
    server.wait_log(f"server {app.address} is not well")
    assert ask(server) == "app"


def fpm_pool(lab, n_children):
    """A php-fpm with ping.path; its address."""
    path = lab.here("fpm.sock")
    user = pwd.getpwuid(os.geteuid()).pw_name
    conf = lab.file("fpm.conf", f"""
[global]
error_log = {lab.path}/fpm.log
daemonize = no
[www]
user = {user}
listen = {path}
pm = static
pm.max_children = {n_children}
ping.path = /ping
ping.response = pong
""")
    program = sorted(glob.glob("/usr/sbin/php-fpm*"))[-1]
    process = lab.helper([program, "-n", "-F", "-y", conf, *(["-R"] if os.geteuid() == 0 else [])],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "php-fpm's socket")
    return process, f"unix:{path}"


def test_health_of_php_fpm(lab, apps_of):
    app = apps_of("app")
    process, address = fpm_pool(lab, 1)
    server = serve(lab, [f"server = {address}", f"server = {app.address} backup", "health = /ping 100ms",
                         "max_connections = 1"])
    lab.file("root/app/x.php", "<?php echo 'php';")
    app.wait(lambda: len(app.pings) >= 3)
    assert not server.logged("is not well")
    process.terminate()
    process.wait()
    server.wait_log(f"server {address} is not well")
    assert ask(server) == "app"


def test_health_of_libfcgi(lab, apps_of):
    """count of tests/apps, which answers everything with 200."""
    app = apps_of("app")
    path = lab.here("count.sock")
    process = lab.helper(["spawn-fcgi", "-n", "-s", path, "--", lab.here("cgi/count")], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path), "its socket")
    server = serve(lab, [f"server = unix:{path}", f"server = {app.address} backup", "health = /ping 100ms",
                         "max_connections = 1"])
    app.wait(lambda: len(app.pings) >= 3)
    assert server.get("/app/").status == 200 and not app.requests
    assert not server.logged("is not well")
    process.kill()
    process.wait()
    server.wait_log(f"server unix:{path} is not well")


# Names.

def test_name_with_several_addresses(lab, apps_of, resolver):
    """All addresses of a name are servers; IPv6 too."""
    one = apps_of("one")
    two = apps_of("two", host="127.0.0.2", port=one.port)
    six = apps_of("six", host="::1", port=one.port)
    resolver.records = {"app.test": [address_record(app.host, 60) for app in (one, two, six)]}
    server = serve(lab, [f"server = app.test:{one.port}", "balance = round_robin"], resolver=resolver.address)
    assert collections.Counter(ask(server) for _ in range(9)) == {"one": 3, "two": 3, "six": 3}
    server.wait_log(f"pool app: app.test:{one.port}: ", one.address, two.address, six.address)


@pytest.mark.parametrize("fronts", [1, 2])
def test_time_to_live(lab, apps_of, resolver, fronts):
    """When it is over, requests go where the name leads now; what was under way comes to its end."""
    one = apps_of("one")
    two = apps_of("two", host="127.0.0.2", port=one.port)
    resolver.records = {"app.test": [address_record("127.0.0.1", 1)]}
    server = serve(lab, [f"server = app.test:{one.port}"], resolver=resolver.address, fronts=fronts)
    assert ask(server) == "one"
    one.gate.clear()
    join = in_background(1, lambda _: ask(server))
    one.wait_requests(2)
    resolver.records = {"app.test": [address_record("127.0.0.2", 1)]}
    server.wait_log("pool app: app.test", "127.0.0.2")
    resolver.wait_asked(4 * fronts)
    assert ask(server) == "two"
    one.release()
    assert join() == ["one"]
    assert {ask(server) for _ in range(6)} == {"two"}
    assert len(server.logged("pool app: app.test")) == 2


@pytest.mark.parametrize("mode", ["fail", "garbage", "cut", "counts", "no such name"])
def test_resolver_fails(lab, apps_of, resolver, mode):
    """What is known goes on being used, whatever a resolver says; the log is told once."""
    app = apps_of("app")
    known = {"app.test": [address_record("127.0.0.1", 1)]}
    resolver.records = known
    server = serve(lab, [f"server = app.test:{app.port}"], resolver=resolver.address)
    assert ask(server) == "app"
    resolver.records, resolver.mode = ({}, "answer") if mode == "no such name" else (known, mode)
    server.wait_log("app.test", "cannot be had", "go on being used")
    assert ask(server) == "app"
    resolver.records, resolver.mode = known, "answer"
    wait_for(lambda: len(server.logged("pool app: app.test:")) == 2, "the name's return", patience=40)
    assert ask(server) == "app" and len(server.logged("cannot be had")) == 1


def test_nothing_known_yet(lab, apps_of, resolver):
    """Requests wait in the queue for the first answer; for as long as they may wait."""
    app = apps_of("app")
    resolver.mode = "silent"
    server = serve(lab, [f"server = app.test:{app.port}", "queue_timeout = 20s"], resolver=resolver.address)
    join = in_background(3, lambda _: ask(server))
    resolver.wait_asked(2)
    resolver.records = {"app.test": [address_record("127.0.0.1", 60)]}
    resolver.mode = "answer"
    assert join() == ["app"] * 3


def test_no_such_name(lab, resolver):
    server = serve(lab, ["server = none.test:9000", "queue_timeout = 300ms"], resolver=resolver.address)
    response = server.get("/app/")
    assert response.status == 503
    server.wait_log(f"[{response.id}]", "no server is known: none.test:9000: ")
    server.wait_log("the addresses of none.test:9000 cannot be had", "requests wait for them")


def test_srv(lab, apps_of, resolver):
    """The port and the weight are the record's, and the next priority is for when the first cannot be reached."""
    one, two, spare = apps_of("one", "two", "spare")
    resolver.records = {
        "_fastcgi._tcp.test": [srv_record(10, 30, one.port, "a.test", 60), srv_record(10, 10, two.port, "b.test", 60),
                               srv_record(20, 1, spare.port, "a.test", 60), srv_record(30, 1, 1, "none.test", 60)],
        "a.test": [address_record("127.0.0.1", 60)],
        "b.test": [address_record("127.0.0.1", 60)],
    }
    server = serve(lab, ["server = srv:_fastcgi._tcp.test", "balance = round_robin", "max_fails = 1"],
                   resolver=resolver.address)
    assert collections.Counter(ask(server) for _ in range(40)) == {"one": 30, "two": 10}
    one.refuse()
    two.refuse()
    wait_for(lambda: not one.open and not two.open, "the end of the kept connections")
    assert [ask(server) for _ in range(4)] == ["spare"] * 4


def test_srv_changes(lab, apps_of, resolver):
    one, two = apps_of("one", "two")
    resolver.records = {"_f._tcp.test": [srv_record(0, 0, one.port, "a.test", 1)],
                        "a.test": [address_record("127.0.0.1", 60)]}
    server = serve(lab, ["server = srv:_f._tcp.test"], resolver=resolver.address)
    assert ask(server) == "one"
    resolver.records["_f._tcp.test"] = [srv_record(0, 0, two.port, "a.test", 1)]
    wait_for(lambda: ask(server) == "two", "the new port")
    resolver.mode = "garbage"
    resolver.wait_asked(3)
    assert ask(server) == "two"


def test_limit_of_named_servers(lab, apps_of, resolver):
    """A name's addresses have their limits each, over all fronts."""
    one = apps_of("one")
    two = apps_of("two", host="127.0.0.2", port=one.port)
    resolver.records = {"app.test": [address_record("127.0.0.1", 1), address_record("127.0.0.2", 1)]}
    server = serve(lab, [f"server = app.test:{one.port}", "max_connections = 2", "queue_timeout = 30s"],
                   resolver=resolver.address, fronts=2)

    def go(_):
        with server.connect() as client:
            return [client.get("/app/").text for _ in range(40)]

    answers = collections.Counter(name for names in in_background(12, go)() for name in names)
    assert sum(answers.values()) == 480 and set(answers) == {"one", "two"}
    assert one.most <= 2 and two.most <= 2


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give the server a hosts file of its own")
def test_hosts_file(lab, apps_of):
    """The system's own: in a mount namespace in which it says something else. Fronts are another user, without any
    environment, and locked down."""
    app = apps_of("app", host="127.0.0.3")
    hosts = lab.file("hosts", "127.0.0.3 app.test\n")
    config = lab.config(SITE + f"server = app.test:{app.port}\n", user="nobody", resolver="127.0.0.1:1")
    wrapper = lab.script("in-namespace", f"""
        #!/bin/sh
        mount --bind {hosts} /etc/hosts && exec env -i "$@"
        """)
    import server as servers
    binary, servers.BINARY = servers.BINARY, lab.script("start", f"""
        #!/bin/sh
        exec unshare -m {wrapper} {servers.BINARY} "$@"
        """)
    try:
        started = servers.Server(lab, config)
    finally:
        servers.BINARY = binary
    lab.servers.append(started)
    started.wait_listening()
    assert ask(started) == "app"
