"""USR2: another server on the same sockets; and what reloads and upgrades must not leave behind."""

import os
import re
import shutil
import signal
import socket

import pytest

import server as harness
from lives import COUNT, Busy, expect_reloaded, finish, hup, reload, wait_fronts, wait_gone, wait_running, write_config
from processes import comm, is_alive, wait_for
from test_reload import free_port

STATIC = "pm = static\npm.max_children = 2\n"
CGI = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    timeout = 60s
    idle_timeout = 60s
    """
WAITS = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nbegin\\n'\nwhile [ ! -e %s ]; do sleep 0.05; done\necho end\n"


class UnderWay:
    """A request to a CGI program that ends when it is told to."""

    def __init__(self, lab, server, name="waits.sh"):
        self.flag = lab.here(f"{name}.go")
        lab.script(name, WAITS % self.flag)
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.settimeout(20)
        self.socket.sendall(f"GET /cgi-bin/{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        self.data = b""
        while b"begin" not in self.data:
            self.data += self.socket.recv(4096)

    def finish(self):
        with open(self.flag, "w", encoding="ascii"):
            pass
        while piece := self.socket.recv(4096):
            self.data += piece
        self.socket.close()
        return self.data


def upgrade(server, n=1):
    """The pid of the server that is in charge after the n-th USR2."""
    server.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: len(server.logged("is in charge now")) >= n, "another to be in charge")
    return int(re.search(r"process (\d+) is in charge", server.logged("is in charge now")[n - 1])[1])


def wait_stem(server):
    wait_for(lambda: comm(server.pid) == "gatehouse-stem", "the first server to be the stem")


def test_requests_go_on(lab):
    """What is under way here is finished here; others are answered by the new one, with processes of its own."""
    server = lab.serve(COUNT + STATIC + CGI.replace("[site *]\n    root = {root}", ""), drain_timeout="60s")
    old = wait_running(server, "count", 2)
    under_way = UnderWay(lab, server)
    heir = upgrade(server)
    assert server.get("/count/").status == 200
    assert b"end" in under_way.finish()
    wait_gone(old)
    wait_stem(server)
    assert is_alive(heir) and server.get("/count/").status == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    server.is_ended = True


@pytest.mark.parametrize("n", [1, 2])
def test_heir_of_an_heir(lab, n):
    """The first server, or an heir, still drains when the next heir's starter has left: it is no orphan."""
    server = lab.serve(CGI, drain_timeout="60s")
    under_way = UnderWay(lab, server) if n == 1 else None
    first = upgrade(server, 1)
    if n == 2:
        under_way = UnderWay(lab, server)
        first = upgrade(server, 2)
    last = upgrade(server, n + 1)
    wait_for(lambda: not is_alive(first), "the heir before to have ended")
    assert b"end" in under_way.finish()
    wait_stem(server)
    assert is_alive(last) and server.get("/nothing").status == 404


def test_exit_status_is_the_heirs(lab):
    """Also when that ends while the first still drains."""
    server = lab.serve(CGI, drain_timeout="60s")
    under_way = UnderWay(lab, server)
    heir = upgrade(server)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not is_alive(heir), "the heir's end")
    under_way.finish()
    assert server.process.wait(20) == 0
    server.is_ended = True


@pytest.mark.parametrize("pool", ["command = /bin/false\npm = static\npm.max_children = 1\n"])
def test_heir_that_cannot_serve(lab, pool):
    server = lab.serve(COUNT + STATIC)
    pids = wait_running(server, "count", 2)
    write_config(lab, server, COUNT + STATIC + "[pool other]\n" + pool)
    server.process.send_signal(signal.SIGUSR2)
    server.wait_log("has not come up")
    assert server.logged("not taking over") and server.running("count") == pids
    assert server.get("/count/").status == 200
    write_config(lab, server, COUNT + STATIC)
    upgrade(server)
    assert server.get("/count/").status == 200


def test_binary_that_is_none(lab):
    """It is looked for where it was; what is there now cannot be executed."""
    copy = lab.here("gatehouse-copy")
    shutil.copy(harness.BINARY, copy)
    binary, harness.BINARY = harness.BINARY, copy
    try:
        server = lab.serve(COUNT + STATIC)
    finally:
        harness.BINARY = binary
    os.unlink(copy)
    lab.file("gatehouse-copy", "#!/nowhere/at/all\n", 0o755)
    server.process.send_signal(signal.SIGUSR2)
    server.wait_log("has not come up")
    assert server.get("/count/").status == 200
    expect_reloaded(lab, server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_end_of_the_stem(lab, number):
    """Whoever is in charge goes with it."""
    server = lab.serve(COUNT + STATIC)
    wait_running(server, "count", 2)
    upgrade(server)
    wait_stem(server)
    tree = server.tree()
    server.process.send_signal(number)
    server.process.wait(20)
    server.is_ended = True
    wait_gone([pid for pid in tree if pid != server.pid])


def test_hup_while_an_heir_comes(lab):
    """It is the heir's to do, when that is in charge."""
    server = lab.serve(COUNT + STATIC)
    server.process.send_signal(signal.SIGUSR2)
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("is in charge now")
    server.wait_log("reloaded: ")
    assert server.get("/count/").status == 200


# What must not be left behind, or held up.

def test_fronts_that_are_down_at_a_reload(lab):
    """They are not started again; so the old settings' processes end."""
    server = lab.serve(COUNT + STATIC)
    old = wait_running(server, "count", 2)
    for _ in range(5):  # each restart is later
        front, = wait_fronts(server, 1)
        os.kill(front, signal.SIGKILL)
        wait_for(lambda: not is_alive(front), "the front's end")
    assert "reloaded" in reload(lab, server, COUNT + STATIC + "env[X] = 2\n")
    server.wait_log("fronts with the configuration before have ended")
    wait_gone(old)


def test_address_that_is_taken_away(lab):
    """While an old front drains, nobody connects to it there; and it can be had again."""
    one, other = free_port(), free_port()
    server = lab.serve(CGI, listen=f"127.0.0.1:{one}", drain_timeout="60s")
    under_way = UnderWay(lab, server)
    expect_reloaded(lab, server, CGI, listen=f"127.0.0.1:{other}", drain_timeout="60s")

    def is_refused():
        try:
            socket.create_connection(("127.0.0.1", one), timeout=5).close()
        except ConnectionError:  # refused, or reset in the moment of closing
            return True
        return False

    wait_for(is_refused, "the address to be given up")
    expect_reloaded(lab, server, CGI, listen=f"127.0.0.1:{one}", drain_timeout="60s")
    assert b"end" in under_way.finish()


def test_refused_reload_does_not_hold_up_the_next(lab):
    """One pool fails at once, the other has not answered yet and takes its time to end."""
    slow = lab.file("slow.sh", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n", 0o755)
    server = lab.serve(COUNT + STATIC)
    reload_line = reload(lab, server, COUNT + STATIC + f"""
        [pool slow]
        command = {slow}
        pm.max_children = 1
        start_timeout = 60s
        [pool fails]
        command = /bin/false
        pm.max_children = 1
        """)
    assert "refused" in reload_line
    expect_reloaded(lab, server, COUNT + STATIC + "env[X] = 3\n")


def test_process_whose_group_goes_on(lab):
    """A child of it is there yet when it has died, and somebody waits."""
    app = lab.file("app.sh", "#!/bin/sh\nsleep 60 &\nexec %s\n" % os.path.join(lab.cgi, "count"), 0o755)
    server = lab.serve(f"""
        [site *]
        root = {{root}}
        [route /count/*]
        gateway = fastcgi
        pool = app
        [pool app]
        command = {app}
        pm = ondemand
        pm.max_children = 2
        """)
    assert server.get("/count/").status == 200
    pid, = server.running("count")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid), "its end")
    for _ in range(3):
        assert server.get("/count/").status == 200
    hup(server)
    server.wait_log("reloaded: ")


def test_warden_that_is_killed(lab):
    server = lab.serve(COUNT + STATIC)
    wait_running(server, "count", 2)
    warden, = [pid for pid in server.tree() if comm(pid) == "gatehouse-wardn"]
    directories = server.socket_directories()
    os.kill(warden, signal.SIGKILL)
    server.wait_log("the warden has died; another is started")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    server.is_ended = True
    assert directories and not [name for name in directories if os.path.exists(name)]


def test_socket_of_a_refused_reload(lab):
    port, path = free_port(), lab.here("new.sock")
    server = lab.serve(CGI, listen=f"127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{port}\nlisten = unix:{path}\nlisten = 127.0.0.1:{taken.getsockname()[1]}"
        assert "refused" in reload(lab, server, CGI, listen=listen)
    assert not os.path.exists(path)


def test_idle_processes_of_another_front(lab):
    """A front that was asked for one has used it meanwhile; another's are to be had."""
    six = COUNT + "pm = static\npm.max_children = 6\n"
    server = lab.serve(six, fronts=2)
    for round_ in range(6):
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.get("/count/")
        expect_reloaded(lab, server, six, fronts=2)
        old = [Busy(lab, server, f"old{round_}-{i}", client=client) for i, client in enumerate(clients)]
        new = [Busy(lab, server, f"new{round_}-{i}") for i in range(3)]
        for name in [f"old{round_}-{i}" for i in range(3)] + [f"new{round_}-{i}" for i in range(3)]:
            lab.wait_file(name)
        finish(old + new)


def test_socket_that_the_heir_does_not_have(lab):
    port, path = free_port(), lab.here("old.sock")
    server = lab.serve(CGI, listen=f"127.0.0.1:{port}\nlisten = unix:{path}")
    assert os.path.exists(path)
    write_config(lab, server, CGI, listen=f"127.0.0.1:{port}")
    upgrade(server)
    wait_for(lambda: not os.path.exists(path), "the socket's file to be removed")
    assert server.get("/nothing").status == 404
