#!/usr/bin/env python3
"""Many CGI runs, and many bytes through each gateway: what the server is meanwhile and afterwards.

  endurance.py --serve BINARY [--runs N] [--gigabytes N]

Prints tables: memory (RSS of the server's own processes), descriptors and zombies as they go; for the bytes, the rate
and the CPU time of the front alone. The exit status is 1 when an answer was wrong, or a zombie, a process or a
descriptor is left.
"""
import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "system"))

import processes  # noqa: E402
from processes import wait_for  # noqa: E402

CLIENTS = 4
PIECE = 1 << 20
SAMPLES = 10

CONFIG = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    timeout = 1h
    queue_timeout = 60s
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    timeout = 1h
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 2
"""

SCRIPTS = {  # the cheapest programs that give and take so much
    "hello": "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho hello\n",
    "give": "#!/bin/sh\necho 'Content-Type: application/octet-stream'\necho\nexec head -c $QUERY_STRING /dev/zero\n",
    "take": "#!/bin/sh\necho 'Content-Type: text/plain'\necho\nexec wc -c\n",
}


def memory_kib(pid):
    match = re.search(r"^VmRSS:\s+(\d+) kB", processes.read(f"/proc/{pid}/status"), re.M)
    return int(match[1]) if match else 0


def cpu_s(pid):
    words = processes.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """The server's own processes: the keeper and its front."""

    def __init__(self, server):
        self.server = server
        self.keeper = server.pid
        (self.front,) = server.fronts()

    def line(self, label):
        tree = self.server.tree()
        zombies = sum(map(processes.is_zombie, tree))
        n_fds = [len(processes.descriptors(pid)) for pid in (self.keeper, self.front)]
        print(f"{label:>14}  RSS keeper {memory_kib(self.keeper):6} KiB  front {memory_kib(self.front):6} KiB"
              f"  descriptors {n_fds[0]:3} {n_fds[1]:3}  zombies {zombies}", flush=True)
        return n_fds


def run_many(server, n):
    """n runs of a CGI program, by a few clients."""
    watched, wrong, lock, left = Watched(server), [], threading.Lock(), [n]

    def client():
        with server.connect() as connection:
            while not wrong:
                with lock:
                    if left[0] == 0:
                        return
                    left[0] -= 1
                answer = connection.get("/cgi-bin/hello")
                if answer.status != 200 or answer.body != b"hello\n":
                    wrong.append(answer)
                if answer.closes:
                    connection.close()
                    connection.__init__(server.port)

    print(f"{n} runs of a CGI program, {CLIENTS} clients")
    server.get("/cgi-bin/hello")
    before = watched.line("0")
    started = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for i in range(1, SAMPLES):
        while n - left[0] < n * i // SAMPLES and any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
        watched.line(str(n - left[0]))
    for thread in threads:
        thread.join()
    print(f"{n / (time.monotonic() - started):.0f} runs a second")
    wait_for(lambda: not server.running("hello"), "the end of the last program")
    after = watched.line(str(n))
    if wrong:
        print(f"wrong: {wrong[0]}")
    return not wrong and all(b <= a + 2 for a, b in zip(before, after))


def download(server, target, n):
    with server.connect() as client:
        client.send_request("GET", target)
        response = client.read_head()
        length = response.get("content-length")
        seen, raw = 0, client.socket
        buffer = bytearray(PIECE)
        if length is not None and response.status == 200:  # by its length: nothing to take apart
            seen = len(client.bytes)
            while seen < n and (got := raw.recv_into(buffer)) > 0:
                seen += got
                yield seen
        else:
            for piece in client.body_pieces(response):
                seen += len(piece)
                yield seen
        if seen != n or response.status != 200:
            raise AssertionError(f"{seen} bytes of {n}: {response}")


def upload(server, target, n):
    zeros = bytes(PIECE)
    with server.connect() as client:
        client.send_request("POST", target, b"", fields=[("Content-Length", str(n))])
        sent = 0
        while sent < n:
            client.send(zeros[:min(PIECE, n - sent)])
            sent += min(PIECE, n - sent)
            yield sent
        response = client.read()
        if response.status != 200 or str(n).encode() not in response.body:
            raise AssertionError(f"{n} bytes sent: {response}")


def stream(server, label, pieces, n):
    watched = Watched(server)
    print(f"{label}, {n / 1e9:g} GB")
    before, started, next_sample = cpu_s(watched.front), time.monotonic(), 0
    watched.line("0")
    for seen in pieces:
        if seen >= next_sample:
            watched.line(f"{seen / 1e9:.1f} GB")
            next_sample += n // SAMPLES
    took, cpu = time.monotonic() - started, cpu_s(watched.front) - before
    watched.line("end")
    print(f"{n / took / 1e6:.0f} MB/s; CPU of the front {cpu:.1f} s: {cpu / n * 1e9:.3f} ns a byte", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, metavar="BINARY")
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--gigabytes", type=float, default=10)
    arguments = parser.parse_args()
    os.environ["GATEHOUSE"] = os.path.abspath(arguments.serve)
    import server as servers  # pylint: disable=import-outside-toplevel  # it reads the variable

    processes.adopt_orphans()
    apps = tempfile.mkdtemp(prefix="gh-apps-")
    os.chmod(apps, 0o755)
    servers.build_apps(apps)
    lab = servers.Lab(apps)
    n = int(arguments.gigabytes * 1e9)
    try:
        for name, text in SCRIPTS.items():
            lab.script(name, text)
        server = lab.serve(CONFIG, max_body="1024g", access_log="off")
        is_good = arguments.runs == 0 or run_many(server, arguments.runs)
        if n > 0:
            stream(server, "CGI, from the program", download(server, f"/cgi-bin/give?{n}", n), n)
            stream(server, "CGI, to the program", upload(server, "/cgi-bin/take", n), n)
            stream(server, "FastCGI, from the program", download(server, f"/fcgi/?bytes={n}&echo", n), n)
            stream(server, "FastCGI, to the program", upload(server, "/fcgi/?nocrc", n), n)
        Watched(server).line("afterwards")
    finally:
        lab.close()
        shutil.rmtree(apps)
    return 0 if is_good else 1


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    sys.exit(main())
