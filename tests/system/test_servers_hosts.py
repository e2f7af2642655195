"""A pool on three hosts, which are network namespaces behind a switch that is a fourth: one is cut off under load, so
that its packets vanish, and comes back. Each host has a php-fpm of its own."""

import collections
import contextlib
import glob
import itertools
import os
import subprocess
import threading
import time

import pytest

from client import Closed
from processes import wait_for

WORKERS = 4
CLIENTS = 6
NUMBERS = itertools.count(os.getpid() * 7)

POOL = """
    [site *]
    root = {root}
    [route *.php]
    gateway = fastcgi
    pool = php
    [pool php]
    max_connections = %d
    connect_timeout = 1s
    max_fails = 2
    fail_timeout = 1s
    health = /ping 500ms
""" % WORKERS


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20)


class Network:
    """This host, a switch, and hosts behind it: 10.213.NET.1 is us, .11, .12 and so on are they."""

    def __init__(self, n):
        number = next(NUMBERS) % 65536
        self.tag = f"{number:04x}"
        self.net = f"10.{200 + number // 256 % 50}.{number % 256}"
        self.switch = f"gh{self.tag}s"
        self.hosts = [f"gh{self.tag}h{i}" for i in range(n)]
        self.stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.stack.close)
            self._namespace(self.switch)
            self._in(self.switch, "link", "add", "br0", "type", "bridge")
            self._in(self.switch, "link", "set", "br0", "up")
            self._connect(f"gh{self.tag}f", None, 1)
            self.stack.callback(run, "ip", "link", "delete", f"gh{self.tag}f")
            for i, host in enumerate(self.hosts):
                self._namespace(host)
                self._connect("eth0", host, 11 + i)
            undo.pop_all()

    def _in(self, namespace, *words):
        run("ip", *(["-n", namespace] if namespace else []), *words)

    def _namespace(self, name):
        run("ip", "netns", "add", name)
        self.stack.callback(run, "ip", "netns", "delete", name)
        self._in(name, "link", "set", "lo", "up")

    def _connect(self, name, namespace, last):
        port = f"port{last}"
        self._in(self.switch, "link", "add", port, "type", "veth", "peer", "name", f"gh{self.tag}p{last}")
        self._in(self.switch, "link", "set", f"gh{self.tag}p{last}", "netns", namespace or str(os.getpid()))
        if name != f"gh{self.tag}p{last}":
            self._in(namespace, "link", "set", f"gh{self.tag}p{last}", "name", name)
        self._in(self.switch, "link", "set", port, "master", "br0", "up")
        self._in(namespace, "address", "add", f"{self.net}.{last}/24", "dev", name)
        self._in(namespace, "link", "set", name, "up")

    def address(self, i):
        return f"{self.net}.{11 + i}"

    def cut(self, i):
        self._in(self.switch, "link", "set", f"port{11 + i}", "nomaster")

    def join(self, i):
        self._in(self.switch, "link", "set", f"port{11 + i}", "master", "br0")

    def close(self):
        self.stack.close()


@pytest.fixture
def network(lab):
    if os.geteuid() != 0:
        pytest.skip("root alone can make network namespaces")
    try:
        made = Network(3)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    yield made
    for server in lab.servers:
        server.stop()
    for helper in lab.helpers:
        helper.kill()
        helper.wait()
    made.close()


def start_fpm(lab, network, i):
    conf = lab.file(f"fpm{i}.conf", f"""
[global]
error_log = {lab.path}/fpm{i}.log
daemonize = no
[www]
user = root
listen = {network.address(i)}:9000
pm = static
pm.max_children = {WORKERS}
ping.path = /ping
env[HOST] = host{i}
""")
    program = sorted(glob.glob("/usr/sbin/php-fpm*"))[-1]
    lab.helper(["ip", "netns", "exec", network.hosts[i], program, "-n", "-F", "-R", "-y", conf],
               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "ready to handle" in open(lab.here(f"fpm{i}.log")).read()
             if os.path.exists(lab.here(f"fpm{i}.log")) else False, "php-fpm")


class Load:
    """Clients that ask and ask. What they were told, with the time."""

    def __init__(self, server):
        self.server = server
        self.answers = []
        self.news = threading.Condition()
        self.is_over = False
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        client = self.server.connect()
        while not self.is_over:
            try:
                response = client.get("/host.php")
                what = response.text if response.status == 200 else response.status
            except (Closed, OSError) as error:
                what, client = repr(error), self.server.connect()
            with self.news:
                self.answers.append((time.monotonic(), what))
                self.news.notify_all()
        client.close()

    def since(self, when):
        return collections.Counter(what for time_of, what in self.answers if time_of > when)

    def wait(self, condition, what):
        """Until what the clients were told from now on fulfils the condition; that."""
        begin = time.monotonic()
        with self.news:
            assert self.news.wait_for(lambda: condition(self.since(begin)), 20), f"{what}: {self.since(begin)}"
        return self.since(begin)

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("fronts", [1, 2])
def test_host_that_is_cut_off(lab, network, fronts):
    for i in range(3):
        start_fpm(lab, network, i)
    lab.file("root/host.php", "<?php usleep(3000); echo getenv('HOST');")
    server = lab.serve(POOL + "".join(f"server = {network.address(i)}:9000\n" for i in range(3)), fronts=fronts)
    hosts = {"host0", "host1", "host2"}
    load = Load(server)
    try:
        before = load.wait(lambda told: all(told[host] >= 100 for host in hosts), "load on all hosts")
        assert set(before) == hosts
        cut_at = time.monotonic()
        network.cut(1)
        server.wait_log(f"server {network.address(1)}:9000 is", patience=20)
        load.wait(lambda told: told["host0"] >= 100 and told["host2"] >= 100, "load on those that are left")
        without = load.wait(lambda told: told["host0"] >= 100 and told["host2"] >= 100, "load on those that are left")
        assert set(without) <= {"host0", "host2", 502}
        network.join(1)
        load.wait(lambda told: told["host1"] >= 100, "the host's return")
        after = load.since(cut_at)
    finally:
        load.stop()
    # What had been sent to the host, and nobody knows whether it was taken, is not sent again: one request on each of
    # the connections that there were. All others were answered.
    failed = {what: n for what, n in after.items() if what not in hosts}
    assert set(failed) <= {502} and sum(failed.values()) <= WORKERS, failed
    assert {record["retries"] for record in server.records() if record["status"] == 502} <= {0, 1}
    print(f"fronts {fronts}: before {dict(before)}, from the cut to the return {dict(after)}, without {dict(without)}")
