"""After thousands of requests of every kind the server holds what it held after the first: no more descriptors, no more
processes, no more memory."""

import os
import threading

import pytest

import processes
from client import Client, Closed
from processes import wait_for
from server import is_sanitized

CONFIG = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    queue_timeout = 60s
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 3
    queue_timeout = 60s
"""

WARM_UP, REQUESTS, CLIENTS = 2000, 10_000, 8

BODY = os.urandom(100_000)


def expect(response, status):
    assert response.status == status, response


def whole(server, client, i):
    """One request that ends well."""
    kind = i % 20
    if kind == 0:
        expect(client.get("/cgi-bin/count"), 200)
    elif kind == 1:
        expect(client.request("POST", "/cgi-bin/count?echo", BODY, chunked=i % 40 == 1), 200)
    elif kind < 6:
        expect(client.get("/fcgi/"), 200)
    elif kind == 6:
        expect(client.request("POST", "/fcgi/?echo", BODY), 200)
    elif kind == 7:
        expect(client.get("/fcgi/?stderr=complaint"), 200)
    elif kind == 8:
        expect(client.get("/big"), 200)
    elif kind < 11:
        expect(client.get("/nothing"), 404)
    else:
        expect(client.get("/file"), 200)


def broken(server, i):
    """One request on a connection of its own that does not end well, by the client's fault or the program's."""
    kind = i // 10 % 10
    with server.connect() as client:
        if kind == 0:
            client.send(b"nonsense\r\n\r\n")
            expect(client.read(), 400)
        elif kind == 1:
            client.send(b"POST /fcgi/?echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
            client.reset()
        elif kind == 2:
            client.send(b"POST /cgi-bin/count?echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
            client.reset()
        elif kind == 3:
            client.send_request("GET", "/big")
            client.read_head()
            client.reset()
        elif kind == 4:
            client.send_request("GET", "/fcgi/?bytes=10000000")
            client.read_head()
            client.reset()
        elif kind == 5:
            client.send_request("GET", "/cgi-bin/count?bytes=10000000")
            client.read_head()
            client.reset()
        elif kind == 6:
            expect(client.get("/cgi-bin/count?exit=1"), 502)
        elif kind == 7:
            client.send(b"GET /file HTTP/1.1\r\nHost: a\r\nX: ")
        elif kind == 8:
            client.send(b"POST /fcgi/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
            try:
                expect(client.read(), 400)
            except Closed:
                pass  # the answer had begun
        else:
            client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
            for _ in range(5):
                expect(client.read(), 200)


def run(server, n):
    """n requests of all kinds by several clients; what went wrong."""
    errors = []

    def work(first):
        try:
            client = server.connect()
            for i in range(first, n, CLIENTS):
                if i // CLIENTS % 8 == 7:
                    broken(server, i)
                else:
                    whole(server, client, i)
                if i % 500 == first:
                    client.close()
                    client = server.connect()
            client.close()
        except (OSError, Closed, AssertionError) as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def own(server):
    return [server.pid] + server.fronts()


def settle(server):
    """Waits until nothing is under way any more."""
    wait_for(lambda: processes.tcp_connections(own(server)) == 0, "the end of all connections")
    wait_for(lambda: len(server.running("count")) == 3, "three FastCGI processes and no CGI program")
    wait_for(lambda: not any(map(processes.is_zombie, server.tree())), "the end of all zombies")


def look(server):
    return {"descriptors": {pid: len(processes.descriptors(pid)) for pid in own(server)},
            "processes": len(server.tree()), "pss": sum(map(processes.pss_kib, own(server)))}


@pytest.mark.parametrize("fronts", [1, 2])
def test_no_leaks(lab, fronts):
    lab.file("root/file", b"x" * 1000)
    lab.file("root/big", os.urandom(1 << 20) * 8)
    server = lab.serve(CONFIG, fronts=fronts)
    assert not run(server, WARM_UP)
    settle(server)
    before = look(server)
    n = REQUESTS // fronts
    assert not run(server, n)
    settle(server)
    after = look(server)
    assert set(after["descriptors"]) == set(before["descriptors"]), "a front was replaced"
    assert after["processes"] == before["processes"]
    for pid, count in before["descriptors"].items():
        # A kept FastCGI connection may have moved from one front to another.
        assert after["descriptors"][pid] <= count + 3, processes.descriptors(pid)
    if not is_sanitized():
        assert after["pss"] <= before["pss"] + 1024, (before, after)


@pytest.mark.skipif(is_sanitized(), reason="a sanitizer keeps freed memory")
def test_memory_of_connections(lab):
    """Connections that have sent half a head: what one costs is bounded."""
    server = lab.serve(CONFIG, header_timeout="60s")
    lab.file("root/file", b"x" * 1000)
    lab.file("root/big", b"y" * (1 << 20))
    assert not run(server, 200)
    settle(server)
    before = look(server)["pss"]
    clients = [Client(server.port) for _ in range(500)]
    for client in clients:
        client.send(b"GET /file HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8000)
    assert server.get("/file").status == 200
    during = look(server)["pss"]
    assert during <= before + 500 * 48, (before, during)
    for client in clients:
        client.close()
    settle(server)
    assert server.get("/file").status == 200
