"""Requests that take long: request_terminate_timeout ends them, request_slowlog_timeout tells of them."""

import os
import re
import signal
import socket

import pytest

import processes
from client import Closed
from processes import is_alive, wait_for

SITE = """
    [site *]
    root = {root}
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    timeout = 20s
    idle_timeout = 20s
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 1
    queue_timeout = 20s
"""

SERVER = """
    [site *]
    root = {root}
    [route /fcgi/*]
    gateway = fastcgi
    pool = app
    timeout = 20s
    idle_timeout = 20s
    [pool app]
    server = ADDRESS
    max_connections = 1
    queue_timeout = 20s
"""


def application():
    """A FastCGI application that accepts, reads and never answers: its socket, and the line of a configuration."""
    it = socket.socket()
    it.settimeout(processes.PATIENCE)
    it.bind(("127.0.0.1", 0))
    it.listen()
    return it, SERVER.replace("ADDRESS", "127.0.0.1:%d" % it.getsockname()[1])


def read_to_end(connection):
    """Returns when the other end has closed the connection."""
    connection.settimeout(processes.PATIENCE)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass


# request_terminate_timeout.

def test_terminate(lab):
    server = lab.serve(SITE + "request_terminate_timeout = 300ms\n")
    response = server.get(f"/fcgi/?started={lab.here('started')}&hang")
    assert response.status == 504
    pid = int(lab.wait_file("started"))
    line = server.wait_log(response.id, " 504 ")
    assert line.endswith(": no end within request_terminate_timeout")
    assert server.record(response)["total_ms"] >= 300
    wait_for(lambda: not is_alive(pid), "the end of the process")
    assert server.get("/fcgi/").status == 200
    assert server.running("count") != [pid]


def test_terminate_a_process_that_is_deaf(lab):
    """It is killed, and its request answered long before."""
    lab.script("deaf.py", """
        #!/usr/bin/python3
        import os, signal, socket
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        listener = socket.socket(fileno=0)
        connection, _ = listener.accept()
        with open(os.path.dirname(os.path.abspath(__file__)) + "/pid", "w") as file:
            file.write(str(os.getpid()))
        while True:
            signal.pause()
        """)
    server = lab.serve(SITE.replace("{cgi}/count", "{cgi}/deaf.py") + "request_terminate_timeout = 300ms\n")
    assert server.get("/fcgi/").status == 504
    pid = int(lab.wait_file("cgi/pid"))
    assert is_alive(pid)
    wait_for(lambda: not is_alive(pid), "the end of the process")


def test_terminate_within_the_answer(lab):
    server = lab.serve(SITE + "request_terminate_timeout = 300ms\n")
    with server.connect() as client:
        client.send_request("GET", f"/fcgi/?started={lab.here('started')}&wait={lab.here('never')}")
        response = client.read_head()
        assert response.status == 200
        with pytest.raises(Closed):
            b"".join(client.body_pieces(response))
    pid = int(lab.wait_file("started"))
    server.wait_log(response.id, "no end within request_terminate_timeout")
    wait_for(lambda: not is_alive(pid), "the end of the process")


@pytest.mark.parametrize("timeout, terminate, name", [("300ms", "10s", "timeout"), ("300ms", "0", "timeout"),
                                                      ("10s", "300ms", "request_terminate_timeout")])
def test_the_earlier_holds(lab, timeout, terminate, name):
    server = lab.serve(SITE.replace("timeout = 20s\n    idle", f"timeout = {timeout}\n    idle") +
                       f"request_terminate_timeout = {terminate}\n")
    response = server.get("/fcgi/?hang")
    assert response.status == 504
    assert server.wait_log(response.id, " 504 ").endswith(f": no end within {name}")


def test_time_in_the_queue_does_not_count(lab):
    """Each has its process for as long as it may, however long it has waited for it."""
    server = lab.serve(SITE + "request_terminate_timeout = 400ms\n")
    clients = [server.connect() for _ in range(3)]
    for n, client in enumerate(clients):
        client.send_request("GET", f"/fcgi/?started={lab.here(f'started{n}')}&hang")
    responses = [client.read() for client in clients]
    assert [response.status for response in responses] == [504] * 3
    assert len({lab.wait_file(f"started{n}") for n in range(3)}) == 3
    records = [server.record(response) for response in responses]
    assert all(record["total_ms"] - record["queue_ms"] >= 400 for record in records)
    assert max(record["queue_ms"] for record in records) >= 800
    for client in clients:
        client.close()


def test_terminate_closes_the_connection_to_a_server(lab):
    """Its processes are not ours to end; its place is free for another."""
    listener, site = application()
    with listener:
        server = lab.serve(site + "request_terminate_timeout = 300ms\n")
        for _ in range(2):
            response = server.get("/fcgi/")
            assert response.status == 504
            assert server.wait_log(response.id, " 504 ").endswith(": no end within request_terminate_timeout")
            connection, _ = listener.accept()
            with connection:
                read_to_end(connection)


# request_slowlog_timeout.

def slow_lines(lab, name="slow.log"):
    return processes.read(lab.here(name)).splitlines()


ENTRY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z pool count, process (?P<pid>\d+) \| "
                   r"(?P<id>[0-9a-f]+) (?P<method>\S+) (?P<uri>\S+) from (?P<client>\S+), site (?P<site>\S+), "
                   r"route (?P<route>\S+), script (?P<script>\S+), (?P<age>\d+\.\d{3}) s, phase (?P<phase>\w+) \| "
                   r"state (?P<state>[A-Z]) \([a-z -]+\), (?:\d+ threads, )?\d+ kB resident, (?P<kernel>.*), "
                   r"cpu \d+ ms user and \d+ ms system, \d+ ms of it in the 100 ms after this")


def test_slow_request(lab):
    """It is told of while it is at it, and goes on as if nothing had been."""
    server = lab.serve(SITE + f"request_slowlog_timeout = 200ms\nslowlog = {lab.here('slow.log')}\n")
    target = f"/fcgi/a?started={lab.here('started')}&wait={lab.here('go')}"
    with server.connect() as client:
        client.send_request("GET", target)
        line = wait_for(lambda: slow_lines(lab), "a line in the slow log")[0]
        pid = lab.wait_file("started").strip()
        lab.file("go")
        response = client.read()
        assert response.status == 200 and f"pid={pid} " in response.text
    entry = ENTRY.fullmatch(line)
    assert entry, line
    assert entry["pid"] == pid
    assert (entry["id"], entry["method"], entry["uri"], entry["client"]) == (response.id, "GET", target, "127.0.0.1")
    assert (entry["site"], entry["route"], entry["phase"]) == ("*", "/fcgi/*", "body")
    assert float(entry["age"]) >= 0.2
    assert "kernel stack" in entry["kernel"]
    assert server.get("/fcgi/").status == 200  # not slow
    server.stop()
    assert slow_lines(lab) == [line]
    assert os.stat(lab.here("slow.log")).st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells root most")
def test_what_the_kernel_tells(lab):
    """Before the answer begins; where it waits, in the kernel's own words."""
    server = lab.serve(SITE + f"request_slowlog_timeout = 200ms\nslowlog = {lab.here('slow.log')}\n")
    with server.connect() as client:
        client.send_request("GET", "/fcgi/?hang")
        line = wait_for(lambda: slow_lines(lab), "a line in the slow log")[0]
        entry = ENTRY.fullmatch(line)
        assert entry, line
        assert (entry["phase"], entry["state"]) == ("first", "S")
        pid = int(entry["pid"])
        if processes.read(f"/proc/{pid}/syscall").startswith("34 "):
            assert ", syscall 34 pause," in f", {entry['kernel']},"
        if "pause" in processes.read(f"/proc/{pid}/stack"):
            assert "sys_pause" in entry["kernel"]
        os.kill(pid, signal.SIGKILL)
        assert client.read().status == 502


def test_slow_request_in_the_error_log(lab):
    server = lab.serve(SITE + "request_slowlog_timeout = 200ms\n")
    with server.connect() as client:
        client.send_request("GET", f"/fcgi/a?wait={lab.here('go')}")
        line = server.wait_log(" warning: pool count, process ")
        assert ENTRY.fullmatch(line.replace("warning: ", "")), line
        lab.file("go")
        assert client.read().status == 200


def test_slow_and_terminated(lab):
    server = lab.serve(SITE + "request_slowlog_timeout = 200ms\nrequest_terminate_timeout = 600ms\n")
    response = server.get("/fcgi/?hang")
    assert response.status == 504
    server.wait_log("pool count, process ", response.id)
    assert len(server.logged("pool count, process ")) == 1


def test_slow_request_whose_client_has_left(lab):
    """The process is still at it, and still told of: with the grace that it has, if it does not end."""
    server = lab.serve(SITE + "request_slowlog_timeout = 200ms\n")
    with server.connect() as client:
        client.send_request("GET", f"/fcgi/?started={lab.here('started')}&hang")
        server.wait_log("pool count, process ")
        client.reset()
    pid = int(lab.wait_file("started"))
    wait_for(lambda: not is_alive(pid), "the end of the process")
    assert server.get("/fcgi/").status == 200


def test_slow_log_of_a_server(lab):
    """Nothing is known of its process."""
    listener, site = application()
    with listener:
        server = lab.serve(site + "request_slowlog_timeout = 200ms\nrequest_terminate_timeout = 400ms\n")
        response = server.get("/fcgi/x")
        assert response.status == 504
        line = server.wait_log(" warning: pool app | ")
        assert f" | {response.id} GET /fcgi/x from 127.0.0.1, " in line
        assert line.endswith(" | a server's, which is not ours to look at")


def test_slow_log_is_reopened(lab):
    server = lab.serve(SITE + f"request_slowlog_timeout = 100ms\nslowlog = {lab.here('slow.log')}\n")

    def be_slow(name, n):
        with server.connect() as client:
            client.send_request("GET", f"/fcgi/?wait={lab.here(f'go{n}')}")
            line = wait_for(lambda: [line for line in slow_lines(lab, name) if f"go{n} " in line], "the line")
            lab.file(f"go{n}")
            assert client.read().status == 200
            return line

    be_slow("slow.log", 1)
    os.rename(lab.here("slow.log"), lab.here("slow.log.1"))
    be_slow("slow.log.1", 2)
    server.process.send_signal(signal.SIGUSR1)
    server.wait_log("logs reopened")
    be_slow("slow.log", 3)
    assert len(slow_lines(lab, "slow.log.1")) == 2
    assert len(slow_lines(lab)) == 1


def test_long_and_strange_target(lab):
    """However it looks, it is one line, of which ours is the end."""
    server = lab.serve(SITE + "request_slowlog_timeout = 100ms\n")
    with server.connect() as client:
        client.send(b"GET /fcgi/?wait=%b&%b HTTP/1.1\r\nHost: a\r\n\r\n" %
                    (lab.here("go").encode(), b"%7C%0a|x|%0d%0a" * 400))
        line = server.wait_log(" warning: pool count, process ")
        assert line.count("|") == 2 and "!x!" in line and "... from 127.0.0.1, " in line
        assert re.search(r" \| state [A-Z] .* in the 100 ms after this$", line), line
        lab.file("go")
        assert client.read().status == 200
