"""HUP: another configuration, without anybody who waits for it or loses by it."""

import json
import os
import re
import shutil
import signal
import socket
import threading

import pytest

import processes
from client import Client, Closed
from lives import (COUNT, LIFE, Busy, Traffic, UnixClient, bring_life, busy, count_verdicts, expect_refused,
                   expect_reloaded, finish, hup, journal, pid_of, reload, wait_fronts, wait_gone, wait_running,
                   write_config)
from processes import is_alive, wait_for
from server import BINARY

FRONTS = pytest.mark.parametrize("fronts", [1, 2])
STATIC = "pm = static\npm.max_children = 2\n"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def old_fronts_end(server, n, before):
    """The fronts that there were have gone, as many as there should be have come."""
    wait_gone(before)
    return wait_fronts(server, n, before)


# Nothing has changed.

@FRONTS
def test_equal_settings(lab, fronts):
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    pids, before = wait_running(server, "count", 2), wait_fronts(server, fronts)
    port = server.port
    with Traffic(server, n=3) as kept, Traffic(server, n=2, kept=False) as new:
        for _ in range(3):
            kept.wait_more()
            expect_reloaded(lab, server)
            new.wait_more()
            before = old_fronts_end(server, fronts, before)
    assert not kept.failures and not new.failures
    assert set(kept.served) | set(new.served) <= set(pids)
    assert server.running("count") == pids and server.port == port


@FRONTS
def test_opcode_cache_survives(lab, fronts):
    """The same php-cgi goes on, with what it has compiled."""
    lab.file("root/cache.php", "<?php $s = opcache_get_status(false); echo json_encode(['pid' => getmypid(), "
                               "'hits' => $s['opcache_statistics']['hits'], "
                               "'misses' => $s['opcache_statistics']['misses']]);")
    text = """
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi -d opcache.enable=1 -d opcache.validate_timestamps=0 -d opcache.file_update_protection=0
        pm = static
        pm.max_children = 1
        """
    server = lab.serve(text, fronts=fronts)
    response = server.get("/cache.php")
    if response.status != 200 or b"hits" not in response.body:
        pytest.skip("this php-cgi has no opcode cache")
    before = wait_fronts(server, fronts)
    seen = [json.loads(server.get("/cache.php").body)]
    for _ in range(3):
        expect_reloaded(lab, server)
        before = old_fronts_end(server, fronts, before)
        seen.append(json.loads(server.get("/cache.php").body))
    assert len({one["pid"] for one in seen}) == 1
    assert [one["hits"] for one in seen] == [seen[0]["hits"] + n for n in range(4)]
    assert len({one["misses"] for one in seen}) == 1


@FRONTS
def test_policy_changes(lab, fronts):
    """How many there are is set anew; those that stay are the same."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    two = set(wait_running(server, "count", 2))
    with Traffic(server, n=3) as traffic:
        expect_reloaded(lab, server, COUNT + "pm = static\npm.max_children = 5\n", fronts=fronts)
        five = set(wait_running(server, "count", 5))
        assert two < five
        expect_reloaded(lab, server, COUNT + "pm = static\npm.max_children = 1\n", fronts=fronts)
        one = set(wait_running(server, "count", 1))
        assert one < five
        expect_reloaded(lab, server, COUNT + "pm = ondemand\npm.max_children = 3\npm.process_idle_timeout = 100ms\n",
                        fronts=fronts)
        traffic.wait_more()
    assert not traffic.failures
    wait_running(server, "count", 0)
    expect_reloaded(lab, server, COUNT + "pm = dynamic\npm.max_children = 9\npm.min_spare_servers = 3\n"
                                         "pm.max_spare_servers = 4\n", fronts=fronts)
    wait_running(server, "count", 3)


# Other settings for its processes.

@FRONTS
def test_make_before_break(lab, fronts):
    """The first of the new ones has answered before an old one ends; what is under way in those is finished."""
    bring_life(lab)
    server = lab.serve(LIFE + STATIC, fronts=fronts)
    old, fronts_before = wait_running(server, "life.py", 2), wait_fronts(server, fronts)
    request = Busy(lab, server, "busy", "/life/")
    assert request.pid() in old
    with Traffic(server, "/life/", n=2) as traffic:
        traffic.wait_more()
        expect_reloaded(lab, server, LIFE + STATIC + "env[MORE] = 1\n", fronts=fronts)
        traffic.wait_more()
        assert is_alive(request.pid())
        assert pid_of(request.finish()) == request.pid()
        wait_gone(old)
        traffic.wait_more()
    assert not traffic.failures
    new = wait_running(server, "life.py", 2)
    old_fronts_end(server, fronts, fronts_before)
    assert server.running("life.py") == new
    lines = journal(lab)
    asked = [line for line in lines if line[0] == "asked" and int(line[1]) in new]
    assert asked, "none was tried"
    first_end = min(lines.index(["end", str(pid)]) for pid in old)
    assert lines.index(asked[0]) < first_end
    began = [line[1] for line in lines if line[0] == "began"]
    assert set(map(int, began)) <= set(old) | set(new)


BAD = [
    ("env[LIFE_STYLE] = dead", "exited with status 3"),
    ("env[LIFE_STYLE] = deaf\nstart_timeout = 500ms", "start_timeout"),
    ("rlimit_as = 1m", ""),
]


@FRONTS
@pytest.mark.parametrize("more, why", BAD)
def test_new_processes_that_fail(lab, fronts, more, why):
    bring_life(lab)
    server = lab.serve(LIFE + STATIC, fronts=fronts)
    old, fronts_before = wait_running(server, "life.py", 2), wait_fronts(server, fronts)
    with Traffic(server, "/life/", n=2) as traffic:
        for _ in range(2):
            line = expect_refused(lab, server, LIFE + STATIC + more + "\n", fronts=fronts)
            assert "[pool life]" in line and why in line, line
            traffic.wait_more()
    assert not traffic.failures and set(traffic.served) <= set(old)
    wait_for(lambda: server.running("life.py") == old, "the end of what was tried")
    wait_for(lambda: server.fronts() == fronts_before, "the end of the fronts that were to come")
    expect_reloaded(lab, server, LIFE + STATIC + "env[MORE] = 1\n", fronts=fronts)
    wait_gone(old)
    assert server.get("/life/").status == 200


@FRONTS
def test_one_of_two_pools_fails(lab, fronts):
    """Then the other one goes on as it was, too."""
    bring_life(lab)
    both = LIFE + STATIC + COUNT[COUNT.index("[route"):] + STATIC
    server = lab.serve(both, fronts=fronts)
    pids = [wait_running(server, name, 2) for name in ("count", "life.py")]
    line = expect_refused(lab, server, LIFE + STATIC + "env[LIFE_STYLE] = dead\n" + COUNT[COUNT.index("[route"):] +
                          STATIC + "env[MORE] = 1\n", fronts=fronts)
    assert "[pool life]" in line
    wait_for(lambda: [server.running("count"), server.running("life.py")] == pids, "the end of what was tried")
    assert pid_of(server.get("/count/")) in pids[0] and pid_of(server.get("/life/")) in pids[1]


def test_application_that_never_answers_a_question(lab):
    """What an application offers it need not say: one that has read the question serves."""
    bring_life(lab)
    server = lab.serve(LIFE + STATIC)
    old = wait_running(server, "life.py", 2)
    expect_reloaded(lab, server, LIFE + STATIC + "env[LIFE_STYLE] = mute\n")
    wait_gone(old)


@FRONTS
def test_health_request(lab, fronts):
    """New processes are taken when they answer it well, and not before."""
    ill, well = (lab.file(f"root/{name}.php", f"<?php http_response_code({status}); echo getenv('AGE');")
                 for name, status in (("ill", 500), ("well", 200)))
    text = """
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = php
        [pool php]
        command = php-cgi
        pm.max_children = 1
        """
    server = lab.serve(text, fronts=fronts)
    pids = wait_running(server, "php-cgi", 1)
    assert "500" in expect_refused(lab, server, text + f"health = {ill}\nenv[AGE] = new\n", fronts=fronts)
    assert wait_running(server, "php-cgi", 1) == pids and server.get("/well.php").body == b""
    expect_reloaded(lab, server, text + f"health = {well}\nenv[AGE] = new\n", fronts=fronts)
    assert server.get("/well.php").body == b"new"
    wait_gone(pids)


@FRONTS
def test_program_that_is_not_there(lab, fronts):
    """Found by the check of the file, or by the start of a script whose interpreter is missing."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    old = wait_running(server, "count", 2)
    expect_refused(lab, server, COUNT.replace("{cgi}/count", "{cgi}/nothing") + STATIC, fronts=fronts)
    assert server.logged("error", server.config_path, "nothing")
    lab.script("lost.sh", "#!/nowhere/at/all\n")
    line = expect_refused(lab, server, COUNT.replace("{cgi}/count", "{cgi}/lost.sh") + STATIC, fronts=fronts)
    assert "lost.sh" in line
    assert pid_of(server.get("/count/")) in old
    assert server.running("count") == old


@pytest.mark.parametrize("pm", ["ondemand", "dynamic"])
def test_other_settings_of_others(lab, pm):
    text = COUNT + f"pm = {pm}\npm.max_children = 4\npm.process_idle_timeout = 60s\n"
    server = lab.serve(text)
    with Traffic(server, n=3) as traffic:
        traffic.wait_more()
        old = server.running("count")
        expect_reloaded(lab, server, text + "env[MORE] = 1\n")
        wait_gone(old)
        traffic.wait_more()
    assert not traffic.failures


# A file with errors.

@FRONTS
@pytest.mark.parametrize("text, line, why", [
    (COUNT + STATIC + "nonsense = 1\n", "nonsense", "unknown key"),
    (COUNT + "pm = static\n", "pm.max_children", "needs"),
    ("[site *]\nroot = /nowhere/at/all\n", "/nowhere/at/all", ""),
    ("[route /x]\npool = none\n", "", ""),
])
def test_bad_file(lab, fronts, text, line, why):
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    pids, before = wait_running(server, "count", 2), wait_fronts(server, fronts)
    with server.connect() as client:
        assert client.get("/count/").status == 200
        expect_refused(lab, server, text, fronts=fronts)
        errors = [one for one in server.log() if re.search(re.escape(server.config_path) + r":\d+: ", one)]
        assert errors and any(line in one and why in one for one in errors), server.tail()
        assert client.get("/count/").status == 200
    assert server.running("count") == pids and server.fronts() == before
    expect_reloaded(lab, server, COUNT + STATIC, fronts=fronts)
    assert server.running("count") == pids


def test_file_that_is_gone(lab):
    server = lab.serve(COUNT + STATIC)
    os.rename(server.config_path, lab.here("away"))
    assert "refused" in reload(lab, server)
    assert server.get("/count/").status == 200
    os.rename(lab.here("away"), server.config_path)
    expect_reloaded(lab, server)


# Addresses.

def test_addresses_come_and_go(lab):
    path, port = lab.here("web.sock"), free_port()
    first = f"127.0.0.1:{free_port()}"
    server = lab.serve(COUNT + STATIC, fronts=2, listen=first)
    expect_reloaded(lab, server, COUNT + STATIC, fronts=2, listen=f"{first}\nlisten = unix:{path}")
    with UnixClient(path) as client:
        assert client.get("/count/").status == 200
    assert server.get("/count/").status == 200
    before = server.fronts()
    expect_reloaded(lab, server, COUNT + STATIC, fronts=2, listen=f"unix:{path}\nlisten = 127.0.0.1:{port}")
    with UnixClient(path) as client:
        assert client.get("/count/").status == 200
    old_fronts_end(server, 2, before)
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    server.port = port
    assert server.get("/count/").status == 200
    before = server.fronts()
    expect_reloaded(lab, server, COUNT + STATIC, fronts=2, listen=f"127.0.0.1:{port}")
    old_fronts_end(server, 2, before)
    wait_for(lambda: not os.path.exists(path), "the socket's end")
    assert server.get("/count/").status == 200


def test_port_zero_is_kept(lab):
    server = lab.serve(COUNT + STATIC)
    for _ in range(3):
        expect_reloaded(lab, server)
        assert server.get("/count/").status == 200


def test_ports_zero_are_kept(lab):
    server = lab.serve(COUNT + STATIC, listen="127.0.0.1:0\nlisten = 127.0.0.1:0").wait_listening(2)
    ports = list(server.ports)
    assert len(set(ports)) == 2
    for _ in range(2):
        before = server.fronts()
        expect_reloaded(lab, server)
        old_fronts_end(server, 1, before)
        for server.port in ports:
            assert server.get("/count/").status == 200


@pytest.mark.parametrize("fresh", [False, True])
def test_address_that_is_taken(lab, fresh):
    """Refused, also again and again; what was opened before it is closed."""
    server = lab.serve(COUNT + STATIC, listen=f"127.0.0.1:{free_port()}")
    pids = wait_running(server, "count", 2)
    path = lab.here("web.sock")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{server.port}" + (f"\nlisten = unix:{path}" if fresh else "") + \
            f"\nlisten = 127.0.0.1:{taken.getsockname()[1]}"
        for _ in range(5):
            expect_refused(lab, server, COUNT + STATIC, listen=listen)
            assert server.get("/count/").status == 200
    assert server.logged("cannot listen on 127.0.0.1")
    assert server.running("count") == pids
    expect_reloaded(lab, server, COUNT + STATIC, listen=f"127.0.0.1:{server.port}")
    assert server.get("/count/").status == 200


# Sites, routes, logs, fronts, users.

CGI = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    timeout = 60s
    idle_timeout = 60s
"""


@FRONTS
def test_routes_change(lab, fronts):
    lab.file("root/file", b"file")
    lab.file("other/file", b"other")
    server = lab.serve(CGI, fronts=fronts)
    assert server.get("/cgi-bin/hello.sh").status == 200 and server.get("/count/").status == 404
    expect_reloaded(lab, server, CGI + COUNT[COUNT.index("[route"):] + STATIC, fronts=fronts)
    assert server.get("/cgi-bin/hello.sh").status == 200
    assert server.get("/count/").status == 200
    expect_reloaded(lab, server, COUNT + STATIC, fronts=fronts)
    assert server.get("/cgi-bin/hello.sh").status == 404
    pid = pid_of(server.get("/count/"))
    expect_reloaded(lab, server, COUNT.replace("/count/*", "/other/*").replace("{root}", "{path}/other") + STATIC,
                    fronts=fronts)
    assert server.get("/count/").status == 404
    assert pid_of(server.get("/other/")) in wait_running(server, "count", 2)
    assert is_alive(pid)
    assert server.get("/file").body == b"other"
    expect_reloaded(lab, server, "[site *]\nroot = {root}\n", fronts=fronts)
    assert server.get("/file").body == b"file" and server.get("/other/").status == 404
    wait_running(server, "count", 0)


@FRONTS
@pytest.mark.parametrize("after", [CGI, CGI.replace("60s", "61s"), "[site *]\nroot = {root}\n"])
def test_runs_in_flight(lab, fronts, after):
    """Whatever becomes of their route."""
    server = lab.serve(CGI, fronts=fronts)
    before = wait_fronts(server, fronts)
    with server.connect() as client:
        client.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        expect_reloaded(lab, server, after, fronts=fronts)
        assert server.get("/cgi-bin/hello.sh").status == (200 if "cgi-bin" in after else 404)
        lab.file("gate.go")
        response = client.read()
        assert (response.status, response.body) == (200, b"through\n")
    old_fronts_end(server, fronts, before)


def test_limit_of_runs_holds_over_reloads(lab):
    """Runs of the old fronts count for the new ones as well."""
    text = CGI + "max_running = 1\nqueue = 4\nqueue_timeout = 20s\n"
    server = lab.serve(text)
    with server.connect() as client, server.connect() as other:
        client.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
        lab.wait_file("gate.started")
        expect_reloaded(lab, server)
        other.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('second')}")
        assert not os.path.exists(lab.here("second.started"))
        expect_reloaded(lab, server)
        assert not os.path.exists(lab.here("second.started"))
        lab.file("gate.go")
        assert client.read().body == b"through\n"
        lab.wait_file("second.started")
        lab.file("second.go")
        assert other.read().body == b"through\n"


def test_number_of_fronts(lab):
    server = lab.serve(COUNT + STATIC, fronts=1)
    pids, before = wait_running(server, "count", 2), wait_fronts(server, 1)
    with Traffic(server, n=3) as traffic:
        for fronts in (3, 1, 2):
            expect_reloaded(lab, server, COUNT + STATIC, fronts=fronts)
            traffic.wait_more()
            before = old_fronts_end(server, fronts, before)
            traffic.wait_more()
    assert not traffic.failures
    assert server.running("count") == pids


def test_logs_change(lab):
    server = lab.serve(COUNT + STATIC, error_log="-")
    assert server.get("/count/").status == 200
    wait_for(lambda: len(server.records()) == 1, "the record")
    error_log, access_log = lab.here("error.log"), lab.here("other.log")
    n = count_verdicts(server)
    write_config(lab, server, COUNT + STATIC, error_log=error_log, access_log=access_log)
    hup(server)
    wait_for(lambda: "reloaded: " in processes.read(error_log), "the word in the new log")
    assert count_verdicts(server) == n
    assert server.get("/count/?2").status == 200
    wait_for(lambda: "/count/?2" in processes.read(access_log), "the record in the new log")
    assert len(server.records()) == 1
    write_config(lab, server, COUNT + STATIC, error_log=lab.here("none/error.log"))
    hup(server)
    wait_for(lambda: "reload refused: " in processes.read(error_log), "the refusal")
    assert server.get("/count/?3").status == 200
    wait_for(lambda: "/count/?3" in processes.read(access_log), "the record where they still go")
    expect_reloaded(lab, server, COUNT + STATIC)


@pytest.mark.parametrize("log", ["error_log", "access_log"])
def test_log_that_cannot_be_opened(lab, log):
    server = lab.serve(COUNT + STATIC)
    for _ in range(5):
        expect_refused(lab, server, COUNT + STATIC, **{log: lab.here("none/at.log")})
        response = server.get("/count/")
        assert response.status == 200
        server.record(response)
    expect_reloaded(lab, server, COUNT + STATIC)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")
def test_user_change_is_refused(lab):
    server = lab.serve(COUNT + STATIC)
    pids = wait_running(server, "count", 2)
    expect_refused(lab, server, COUNT + STATIC, user="nobody")
    assert server.logged("user in [server]")
    assert server.running("count") == pids and server.get("/count/").status == 200
    expect_reloaded(lab, server, COUNT + STATIC)


# Connections.

@FRONTS
def test_idle_connection_gets_its_answer(lab, fronts):
    """It belongs to an old front: one more request, with the word that it is the last."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        assert not client.get("/count/").closes
    unused = server.connect()
    before = wait_fronts(server, fronts)
    expect_reloaded(lab, server)
    for client in [*clients, unused]:
        response = client.get("/count/")
        assert response.status == 200
        if client is not unused:
            assert response.closes
            client.expect_close()
        client.close()
    old_fronts_end(server, fronts, before)


@FRONTS
def test_answer_under_way(lab, fronts):
    """A stream goes on, over several reloads; then its connection may bring one more request."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    request = Busy(lab, server, "busy")
    pid = request.pid()
    before = wait_fronts(server, fronts)
    head = request.client.read_head()
    pieces = request.client.body_pieces(head)
    assert next(pieces) == b"first\n"
    for _ in range(3):
        expect_reloaded(lab, server)
    request.let_go()
    assert b"".join(pieces).startswith(b"last\n")
    with request.client as client:
        if not head.closes:
            response = client.get("/count/")
            assert response.status == 200 and response.closes
    wait_gone(before)
    assert pid in server.running("count")


def test_upload_under_way(lab):
    server = lab.serve(COUNT + STATIC)
    with server.connect() as client:
        assert client.get("/count/").status == 200  # a front has it
        client.send(f"POST /count/ HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: 200000\r\n\r\n".encode())
        client.send(b"x" * 100000)
        before = wait_fronts(server, 1)
        expect_reloaded(lab, server)
        wait_fronts(server, 2)
        client.send(b"x" * 100000)
        response = client.read()
        assert response.status == 200 and "length=200000" in response.text
    wait_gone(before)


@FRONTS
def test_waiting_requests(lab, fronts):
    """What waits in the queue of an old front is served, before or after what comes to the new ones."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    first = busy(lab, server, 2, prefix="first")
    for request in first:
        request.pid()
    waiting = busy(lab, server, 6, prefix="waiting")
    before = wait_fronts(server, fronts)
    expect_reloaded(lab, server)
    later = busy(lab, server, 6, prefix="later")
    finish(first)
    finish(waiting + later)
    old_fronts_end(server, fronts, before)
    assert server.get("/count/").status == 200


@FRONTS
def test_waiting_requests_and_other_settings(lab, fronts):
    """They wait for processes with the old settings, and those serve them all."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    old = wait_running(server, "count", 2)
    first = busy(lab, server, 2, prefix="first")
    assert {request.pid() for request in first} == set(old)
    waiting = busy(lab, server, 4, prefix="waiting")
    expect_reloaded(lab, server, COUNT + STATIC + "env[MORE] = 1\n", fronts=fronts)
    assert pid_of(server.get("/count/")) not in old
    finish(first + waiting)
    wait_gone(old)


@FRONTS
def test_drain_timeout(lab, fronts):
    """A request that takes longer than an old front may take to drain is cut, and its process is free or ended."""
    server = lab.serve(COUNT + STATIC, fronts=fronts, drain_timeout="300ms")
    before = wait_fronts(server, fronts)
    request = Busy(lab, server, "busy")
    request.pid()
    expect_reloaded(lab, server)
    with request.client as client, pytest.raises(Closed):
        client.read()
    old_fronts_end(server, fronts, before)
    request.let_go()
    wait_running(server, "count", 2)
    finish(busy(lab, server, 4, prefix="after"))


# Scripts with processes of their own.

SCRIPTS = """
    [site *]
    root = {root}
    [route *.fcgi]
    gateway = fastcgi
    pool = scripts
    timeout = 60s
    [pool scripts]
    command = $script
    pm.max_children = 2
    queue_timeout = 20s
"""


@FRONTS
def test_scripts(lab, fronts):
    """Their processes stay with equal settings, and are others with others."""
    shutil.copy(os.path.join(lab.apps, "count"), os.path.join(lab.root, "one.fcgi"))
    server = lab.serve(SCRIPTS, fronts=fronts)
    with Traffic(server, "/one.fcgi", n=3) as traffic:
        pids = wait_running(server, "one.fcgi", 2)
        for _ in range(2):
            before = server.fronts()
            expect_reloaded(lab, server)
            traffic.wait_more()
            old_fronts_end(server, fronts, before)
            traffic.wait_more()
            assert server.running("one.fcgi") == pids
        expect_reloaded(lab, server, SCRIPTS + "pm = static\n", fronts=fronts)
        traffic.wait_more()
        assert server.running("one.fcgi") == pids
        request = Busy(lab, server, "busy", "/one.fcgi")
        assert request.pid() in pids
        expect_reloaded(lab, server, SCRIPTS + "env[MORE] = 1\n", fronts=fronts)
        traffic.wait_more()
        assert pid_of(request.finish()) in pids
        wait_gone(pids)
        traffic.wait_more()
    assert not traffic.failures
    wait_running(server, "one.fcgi", 2)


def test_scripts_that_were_once(lab):
    """So many can have processes of their own; those that have none any more are forgotten by a reload."""
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.fcgi]
        gateway = fastcgi
        pool = scripts
        [pool scripts]
        command = $script
        pm = ondemand
        pm.max_children = 1
        pm.process_idle_timeout = 10ms
        """)
    script = os.path.join(lab.root, "one.fcgi")
    shutil.copy(os.path.join(lab.cgi, "count"), script)
    for n in range(257):
        os.rename(script, os.path.join(lab.root, f"{n}.fcgi"))
        script = os.path.join(lab.root, f"{n}.fcgi")
        assert server.get(f"/{n}.fcgi").status == (200 if n < 256 else 503)
    expect_reloaded(lab, server)
    server.wait_log("fronts with the configuration before have ended")
    assert server.get("/256.fcgi").status == 200


def test_directory_for_development(lab):
    """HUP: the same once more; what is under way goes on."""
    shutil.copy(os.path.join(lab.apps, "count"), os.path.join(lab.root, "one.fcgi"))
    lab.file("root/file", b"file")
    with open(lab.here("log"), "wb") as log:
        process = lab.helper([BINARY, "dev", lab.root, "-p", "0"], stdout=log, stderr=log, cwd=lab.path)
    port = int(wait_for(lambda: re.search(r"listening on http://127.0.0.1:(\d+)", processes.read(lab.here("log"))),
                        "the server")[1])
    with Client(port) as client, Client(port) as other:
        pid = pid_of(client.get("/one.fcgi"))
        other.send_request("GET", f"/one.fcgi?started={lab.here('busy')}&wait={lab.here('busy.go')}")
        lab.wait_file("busy")
        for n in range(1, 4):
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: processes.read(lab.here("log")).count("reloaded: ") == n, "the reload")
            with Client(port) as late:
                assert late.get("/file").body == b"file"
        lab.file("busy.go")
        assert other.read().status == 200
        assert client.get("/one.fcgi").status == 200
    assert is_alive(pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(processes.PATIENCE) == 0


@FRONTS
def test_old_front_that_stands_still(lab, fronts):
    """It has its time, and is ended."""
    server = lab.serve(COUNT + STATIC, fronts=fronts, drain_timeout="100ms")
    before = wait_fronts(server, fronts)
    for front in before:
        os.kill(front, signal.SIGSTOP)
    expect_reloaded(lab, server)
    old_fronts_end(server, fronts, before)
    with Traffic(server, n=4, most=100) as traffic:
        traffic.join()
    assert not traffic.failures


# Signals upon signals.

@FRONTS
def test_storm(lab, fronts):
    """Twenty in a row, under load, with alternating settings: the last word is the last file's."""
    server = lab.serve(COUNT + STATIC, fronts=fronts)
    with Traffic(server, n=2) as kept, Traffic(server, n=2, kept=False) as new:
        for i in range(20):
            write_config(lab, server, COUNT + STATIC + f"env[TURN] = {i % 3}\n", fronts=fronts)
            hup(server)
        write_config(lab, server, COUNT + "pm = static\npm.max_children = 3\nenv[TURN] = last\n", fronts=fronts)
        hup(server)
        pids = wait_for(lambda: are_last(server), "the last settings alone")
        kept.wait_more()
        new.wait_more()
    assert not kept.failures and not new.failures
    wait_fronts(server, fronts)
    assert server.running("count") == pids


def are_last(server):
    """Three processes, and all with the last settings?"""
    pids = server.running("count")
    turns = {re.search(r"TURN=(\w+)", processes.read(f"/proc/{pid}/environ") or "TURN=none")[1] for pid in pids
             if "TURN=" in processes.read(f"/proc/{pid}/environ")}
    return pids if len(pids) == 3 and turns == {"last"} else None


def test_reload_during_reload(lab):
    """While new processes are tried: the second is taken afterwards, with the file as it is then."""
    bring_life(lab)
    server = lab.serve(LIFE + STATIC)
    old = wait_running(server, "life.py", 2)
    write_config(lab, server, LIFE + STATIC + "env[LIFE_STYLE] = deaf\nstart_timeout = 1s\n")
    hup(server)
    wait_running(server, "life.py", 3)  # one is tried
    write_config(lab, server, LIFE + STATIC + "env[MORE] = 1\n")
    hup(server)
    hup(server)
    server.wait_log("reload refused", "start_timeout")
    server.wait_log("reloaded: ")
    wait_gone(old)
    assert server.get("/life/").status == 200
    wait_running(server, "life.py", 2)


@FRONTS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_end_during_reload(lab, fronts, number):
    bring_life(lab)
    server = lab.serve(LIFE + STATIC, fronts=fronts)
    wait_running(server, "life.py", 2)
    request = Busy(lab, server, "busy", "/life/")
    request.pid()
    write_config(lab, server, LIFE + STATIC + "env[LIFE_STYLE] = deaf\nstart_timeout = 60s\n", fronts=fronts)
    hup(server)
    wait_running(server, "life.py", 3)
    server.sockets = server.socket_directories()
    server.process.send_signal(number)
    server.wait_log("ending")
    assert pid_of(request.finish()) > 0
    server.expect_end(0)


@FRONTS
def test_end_while_old_fronts_drain(lab, fronts):
    """Nobody can connect any more, all that is under way is finished, with the old fronts and the new ones."""
    server = lab.serve(COUNT + "pm = static\npm.max_children = 6\n", fronts=fronts)
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        assert not client.get("/count/").closes
    expect_reloaded(lab, server)
    old = [Busy(lab, server, f"old{i}", client=client) for i, client in enumerate(clients)]
    new = [Busy(lab, server, f"new{i}") for i in range(3)]
    for request in old + new:
        request.pid()
    idle = [server.connect() for _ in range(4)]
    for client in idle:
        assert client.get("/").status in (403, 404)
    server.sockets = server.socket_directories()
    server.process.send_signal(signal.SIGTERM)
    for client in idle:
        client.expect_close()
        client.close()
    wait_for(lambda: not can_connect(server), "the listening socket's end", patience=5)  # before drain_timeout's
    finish(old + new)
    server.expect_end(0)


def can_connect(server):
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def test_killed_front_of_the_past(lab):
    """Its requests are lost, nothing else."""
    server = lab.serve(COUNT + STATIC)
    before = wait_fronts(server, 1)
    request = Busy(lab, server, "busy")
    request.pid()
    expect_reloaded(lab, server)
    os.kill(before[0], signal.SIGKILL)
    with request.client as client, pytest.raises(Closed):
        client.read()
    request.let_go()
    wait_gone(before)
    with Traffic(server, n=4, most=100) as traffic:
        traffic.join()
    assert not traffic.failures
    wait_fronts(server, 1)
    wait_running(server, "count", 2)


def test_killed_front_of_the_present(lab):
    """After a reload, too, another comes, with the present configuration."""
    server = lab.serve(COUNT + STATIC)
    before = wait_fronts(server, 1)
    expect_reloaded(lab, server, COUNT.replace("/count/*", "/other/*") + STATIC)
    front = old_fronts_end(server, 1, before)
    os.kill(front[0], signal.SIGKILL)
    wait_gone(front)
    wait_for(lambda: server.answers("/other/"), "another front")


# Leaks.

def kib(pid):
    match = re.search(r"VmRSS:\s+(\d+)", processes.read(f"/proc/{pid}/status"))
    return int(match[1])


@FRONTS
def test_no_leak(lab, fronts):
    """Thirty reloads of every kind leave no descriptor and no process, and hardly any memory."""
    server = lab.serve(COUNT + STATIC + CGI[CGI.index("[route"):], fronts=fronts)
    path = lab.here("web.sock")
    texts = [COUNT + STATIC + CGI[CGI.index("[route"):], COUNT + STATIC + "env[MORE] = 1\n",
             COUNT + "pm = ondemand\npm.max_children = 3\n", COUNT + STATIC + "nonsense = 1\n", CGI]

    def turn(i):
        more = {"listen": f"127.0.0.1:0\nlisten = unix:{path}"} if i % 3 == 0 else {}
        before = server.fronts()
        line = reload(lab, server, texts[i % len(texts)], fronts=fronts, **more)
        assert ("refused" in line) == ("nonsense" in texts[i % len(texts)]), line
        assert server.get("/").status in (403, 404)
        if "reloaded" in line:
            old_fronts_end(server, fronts, before)

    for i in range(15):
        turn(i)
    n_descriptors, size = settled(server)
    for i in range(30):
        turn(i)
    after, size_after = settled(server)
    assert after == n_descriptors, processes.descriptors(server.pid)
    if "asan" not in os.environ.get("GATEHOUSE", ""):
        assert size_after < size + 512
    assert len(server.tree()) == fronts + 1  # and the warden


def settled(server):
    """Descriptors and size of the keeper with nothing under way and no program left."""
    wait_running(server, "count", 0)
    return len(processes.descriptors(server.pid)), kib(server.pid)


def test_no_leak_of_refusals(lab):
    bring_life(lab)
    server = lab.serve(LIFE + STATIC)
    wait_running(server, "life.py", 2)
    before = None
    for i in range(12):
        expect_refused(lab, server, LIFE + STATIC + "env[LIFE_STYLE] = dead\n")
        wait_for(lambda: len(server.tree()) == 4, "the end of what was tried")
        now = len(processes.descriptors(server.pid))
        assert i < 2 or now == before
        before = now


# Many at once.

def test_many_clients_at_the_moment_of_change(lab):
    """Connections that arrive all the while: none is refused or reset."""
    server = lab.serve(COUNT + "pm = static\npm.max_children = 4\n", fronts=2)
    failures, done = [], threading.Event()

    def connect():
        while not done.is_set():
            try:
                with server.connect() as client:
                    client.send_request("GET", "/nothing", fields=[("Connection", "close")])
                    if client.read().status != 404:
                        failures.append("status")
            except (OSError, Closed) as error:
                failures.append(error)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for i in range(10):
            expect_reloaded(lab, server, COUNT + f"pm = static\npm.max_children = {2 + i % 3}\n", fronts=2)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
