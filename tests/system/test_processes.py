"""Processes: how they are started, replaced and ended, and that nothing of them is ever left."""

import os
import re
import signal
import threading
import time

import pytest

import processes
from client import Closed
from processes import is_alive, wait_for

SITE = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    timeout = 60s
    idle_timeout = 60s
    [route /count/*]
    gateway = fastcgi
    pool = count
    timeout = 60s
    idle_timeout = 60s
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 3
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


def fields_of(text):
    """What inspect.c prints: {name: [rest of the line, ...]}"""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    return found


def run_tree(lab, server, script="tree.sh", name="tree"):
    """Starts a CGI program with a child; the client, and the two process ids."""
    client = server.connect()
    client.send_request("GET", f"/cgi-bin/{script}?{lab.here(name)}")
    return client, [int(word) for word in lab.wait_file(name).split()]


def wait_gone(pids):
    wait_for(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}")


def count_pids(server):
    return server.running("count")


# The end of the keeper.

@pytest.mark.parametrize("fronts", [1, 2])
def test_kill_keeper(lab, fronts):
    server = lab.serve(SITE, fronts=fronts)
    assert server.get("/count/").status == 200
    client, pids = run_tree(lab, server)
    stubborn, more = run_tree(lab, server, "silent.sh", "silent")
    busy = server.connect()
    busy.send_request("GET", f"/count/?started={lab.here('busy')}&wait={lab.here('never')}")
    lab.wait_file("busy")
    everyone = server.tree()
    assert set(pids + more) < set(everyone)
    server.kill()
    wait_gone(everyone)
    server.expect_nothing_left()
    for one in (client, stubborn, busy):
        with pytest.raises(Closed):
            one.read()
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fronts", [1, 2])
def test_drain(lab, number, fronts):
    """What is in flight gets its answer; nothing new is taken; then everything ends, with 0."""
    server = lab.serve(SITE, fronts=fronts)
    idle, cgi, fastcgi = server.connect(), server.connect(), server.connect()
    assert idle.get("/").status in (403, 404)
    cgi.send_request("GET", f"/cgi-bin/gate.sh?{lab.here('gate')}")
    fastcgi.send_request("GET", f"/count/?started={lab.here('started')}&wait={lab.here('gate.go')}")
    lab.wait_file("gate.started")
    lab.wait_file("started")
    server.sockets = server.socket_directories()
    server.process.send_signal(number)
    idle.expect_close()
    wait_for(lambda: not can_connect(server), "the listening socket to be closed")
    lab.file("gate.go")
    response = cgi.read()
    assert (response.status, response.body) == (200, b"through\n")
    response = fastcgi.read()
    assert response.status == 200 and response.body.startswith(b"first\nlast\n")
    server.expect_end(0)


def can_connect(server):
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def test_drain_has_a_deadline(lab):
    server = lab.serve(SITE, drain_timeout="300ms")
    client, pids = run_tree(lab, server, "silent.sh")
    with client:
        server.stop()
        wait_gone(pids)
        with pytest.raises(Closed):
            client.read()


def test_ends_when_idle(lab):
    server = lab.serve(SITE, drain_timeout="60s")
    with server.connect() as client:
        assert client.get("/count/").status == 200
        server.stop()
        client.expect_close()


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/children"), reason="a kernel that tells of no children")
@pytest.mark.parametrize("twice", [False, True])
def test_end_of_what_has_left_its_group(lab, twice):
    """A program has no hold on it, nor has the server while it runs; at its end it is killed, and what comes of it."""
    lab.script("daemon.py", r"""
        #!/usr/bin/python3
        import os, signal, sys
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            null = os.open("/dev/null", os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            child = os.fork()
            if child != 0:
                with open(sys.argv[0] + ".tmp", "w") as file:
                    file.write(f"{os.getpid()} {child}")
                os.rename(sys.argv[0] + ".tmp", sys.argv[0] + ".pids")
            signal.pause()
        print("Content-Type: text/plain\n")
        """)
    server = lab.serve(SITE)
    assert server.get("/cgi-bin/daemon.py").status == 200
    pids = [int(word) for word in lab.wait_file("cgi/daemon.py.pids").split()]
    assert all(is_alive(pid) for pid in pids)
    server.stop()
    if twice:
        server.stop()
    wait_gone(pids)
    server.expect_end(0)


def test_twice(lab):
    """The same port and the same folder again, at once."""
    server = lab.serve(SITE)
    port = server.port
    assert server.get("/count/").status == 200
    server.stop()
    again = lab.serve(SITE, listen=f"127.0.0.1:{port}")
    assert again.get("/count/").status == 200


# The end of others.

@pytest.mark.parametrize("fronts", [1, 2])
def test_kill_front(lab, fronts):
    server = lab.serve(SITE, fronts=fronts)
    wait_for(lambda: len(server.fronts()) == fronts, "the fronts")
    wait_for(lambda: len(count_pids(server)) == 3, "three FastCGI processes")
    before, pids = server.fronts(), count_pids(server)
    client, tree = run_tree(lab, server)
    for victim in before:
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(server.fronts()) == fronts and not set(server.fronts()) & set(before), "new fronts")
    wait_for(lambda: server.answers("/count/"), "an answer through a new front")
    wait_gone(tree)
    client.close()
    for _ in range(20):
        assert server.get("/count/").status == 200
        assert server.get("/cgi-bin/hello.sh").status == 200
    assert count_pids(server) == pids
    server.wait_log("SIGKILL")


def test_kill_idle_fastcgi_process(lab):
    server = lab.serve(SITE)
    wait_for(lambda: len(count_pids(server)) == 3, "three FastCGI processes")
    assert server.get("/count/").status == 200
    for _ in range(5):
        before = count_pids(server)
        victim = before[0]
        os.kill(victim, signal.SIGKILL)
        wait_gone([victim])
        for _ in range(10):
            assert server.get("/count/").status == 200
        wait_for(lambda: len(count_pids(server)) == 3 and victim not in count_pids(server), "its replacement")
    server.wait_log("pool count", "SIGKILL")


def test_kill_busy_fastcgi_process(lab):
    """Its own request fails, all others are fine."""
    server = lab.serve(SITE)
    with server.connect() as busy:
        busy.send_request("GET", f"/count/?started={lab.here('busy')}&wait={lab.here('never')}")
        victim = int(lab.wait_file("busy"))
        failures, done = [], threading.Event()

        def others():
            with server.connect() as client:
                while not done.is_set():
                    response = client.get("/count/")
                    if response.status != 200:
                        failures.append(response)

        threads = [threading.Thread(target=others) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(Closed):
                busy.read()
            wait_for(lambda: len(count_pids(server)) == 3 and victim not in count_pids(server), "its replacement")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failures
    with server.connect() as client:
        response = client.get("/count/?exit=9")
        assert response.status == 502
        assert client.get("/count/").status == 200
    server.wait_log("pool count", "exited with status 9")


def test_process_that_ends_after_each_request(lab):
    """Nobody loses a request to a process that ends between two."""
    lab.script("once.sh", """
        #!/bin/sh
        PHP_FCGI_MAX_REQUESTS=2 exec php-cgi
        """)
    server = lab.serve("""
        [site *]
        root = {root}
        [route *.php]
        gateway = fastcgi
        pool = p
        [pool p]
        command = {cgi}/once.sh
        pm = static
        pm.max_children = 2
        queue_timeout = 20s
        """)
    lab.file("root/x.php", "<?php echo getmypid();")
    statuses, lock = [], threading.Lock()

    def ask():
        for _ in range(15):
            status = server.get("/x.php").status
            with lock:
                statuses.append(status)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 60


def test_crash_loop(lab):
    """Starts come later and later, requests are refused meanwhile, and when it is mended it goes on."""
    lab.script("fragile.sh", f"""
        #!/bin/sh
        [ -e {lab.here('mended')} ] && exec {lab.cgi}/count
        echo $$ >> {lab.here('starts')}
        exit 3
        """)
    server = lab.serve("""
        [site *]
        root = {root}
        [route /p/*]
        gateway = fastcgi
        pool = p
        [pool p]
        command = {cgi}/fragile.sh
        pm = static
        pm.max_children = 3
        queue_timeout = 500ms
        """)
    lab.file("root/file", b"x")
    deadline = time.monotonic() + 3
    statuses = set()
    while time.monotonic() < deadline:
        response = server.get("/p/")
        statuses.add(response.status)
        assert response.status != 503 or response.get("retry-after", "").isdigit()
        assert server.get("/file").status == 200
    assert statuses <= {502, 503} and 503 in statuses
    assert len(lab.wait_file("starts").split()) < 30
    assert len(server.logged("process", "exited with status 3")) < 30
    lab.file("mended")
    wait_for(lambda: server.answers("/p/"), "its recovery")
    wait_for(lambda: len(count_pids(server)) == 3, "all three processes")


# What a program gets.

INSPECT = """
    [site *]
    root = {root}
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    env[OWN_SETTING] = of the route
    pass_env = PASSED ABSENT
    rlimit_files = 64
    rlimit_core = 0
    [route /fcgi/*]
    gateway = fastcgi
    pool = inspect
    [pool inspect]
    command = {cgi}/inspect first "second one"
    pm = static
    pm.max_children = 1
    chdir = {root}
    env[OWN_SETTING] = of the pool
    pass_env = PASSED ABSENT
    rlimit_files = 65
"""

SECRETS = {"SECRET": "1", "LD_LIBRARY_PATH": "/nowhere", "BASH_FUNC_x%%": "() { :; }", "PASSED": "yes", "HOME": "/root"}


def inspect(server, target, **more):
    response = server.get(target, **more)
    assert response.status == 200, response
    return fields_of(response.text)


@pytest.mark.parametrize("target", ["/cgi-bin/inspect", "/fcgi/"])
@pytest.mark.parametrize("fronts", [1, 2])
def test_inheritance(lab, target, fronts):
    server = lab.serve(INSPECT, env=SECRETS, fronts=fronts)
    others = [server.connect() for _ in range(20)]
    for other in others:
        other.get("/")
    found = inspect(server, target)
    for other in others:
        other.close()
    assert sorted(line.split()[0] for line in found["fd"]) == ["0", "1", "2"], found["fd"]
    status = dict(line.split(":\t") for line in found["status"] if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0 and int(status["SigIgn"], 16) == 0
    assert found["pid"] == found["pgid"] == found["sid"]
    assert found["umask"] == ["022"]
    assert found["cwd"] == [lab.cgi if "cgi-bin" in target else lab.root]
    assert ("files 64" if "cgi-bin" in target else "files 65") in found["limit"]
    if "cgi-bin" in target:
        assert "core 0" in found["limit"]
        assert found["arg"] == [f"0 {lab.cgi}/inspect"]
    else:
        assert found["arg"] == [f"0 {lab.cgi}/inspect", "1 first", "2 second one"]
    own = dict(line.split("=", 1) for line in found["own"])
    assert own["PASSED"] == "yes" and "ABSENT" not in own
    assert own["OWN_SETTING"] == ("of the route" if "cgi-bin" in target else "of the pool")
    assert "PATH" in own
    for name in ("SECRET", "LD_LIBRARY_PATH", "BASH_FUNC_x%%", "HOME", "TMPDIR", "ASAN_OPTIONS"):
        assert name not in own


REQUEST_VARIABLES = {
    "GATEWAY_INTERFACE", "SERVER_SOFTWARE", "SERVER_NAME", "SERVER_ADDR", "SERVER_PORT", "SERVER_PROTOCOL",
    "REQUEST_METHOD", "REQUEST_URI", "REQUEST_SCHEME", "QUERY_STRING", "SCRIPT_NAME", "SCRIPT_FILENAME",
    "DOCUMENT_ROOT", "PATH_INFO", "PATH_TRANSLATED", "REMOTE_ADDR", "REMOTE_PORT", "REDIRECT_STATUS", "REQUEST_ID"}


@pytest.mark.parametrize("target, script", [("/cgi-bin/inspect/a%20b/c?x=%20&y", "/cgi-bin/inspect"),
                                            ("/fcgi/a%20b/c?x=%20&y", "/fcgi")])
def test_request_variables(lab, target, script):
    server = lab.serve(INSPECT, env=SECRETS)
    with server.connect() as client:
        response = client.get(target, fields=[
            ("X-One", "1"), ("X-Many", "a"), ("X-Many", "b"), ("Cookie", "c=1"), ("Cookie", "d=2"),
            ("Proxy", "http://e"), ("Authorization", "Basic eA=="), ("Ld-Preload", "evil"), ("Path", "/evil"),
            ("Foo_Bar", "x")])
    lines = fields_of(response.text)["env"]
    env = dict(line.split("=", 1) for line in lines)
    assert len(env) == len(lines), "a name comes twice"
    if script == "/cgi-bin/inspect":
        extra = {"PATH", "OWN_SETTING", "PASSED"}
        assert env["SCRIPT_FILENAME"] == f"{lab.cgi}/inspect"
    else:
        extra = {"FCGI_ROLE"}
    http = {name for name in env if name.startswith("HTTP_")}
    assert set(env) - http - extra == REQUEST_VARIABLES
    assert http == {"HTTP_HOST", "HTTP_X_ONE", "HTTP_X_MANY", "HTTP_COOKIE", "HTTP_LD_PRELOAD", "HTTP_PATH"}
    assert env["SCRIPT_NAME"] == script and env["PATH_INFO"] == "/a b/c"
    assert env["PATH_TRANSLATED"] == f"{lab.root}/a b/c"
    assert env["QUERY_STRING"] == "x=%20&y" and env["REQUEST_URI"] == target
    assert env["GATEWAY_INTERFACE"] == "CGI/1.1" and env["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert env["REQUEST_METHOD"] == "GET" and env["REQUEST_SCHEME"] == "http"
    assert env["SERVER_NAME"] == env["SERVER_ADDR"] == env["REMOTE_ADDR"] == "127.0.0.1"
    assert env["SERVER_PORT"] == str(server.port) and env["REMOTE_PORT"].isdigit()
    assert env["DOCUMENT_ROOT"] == lab.root and env["REDIRECT_STATUS"] == "200"
    assert env["REQUEST_ID"] == response.id
    assert re.match(r"gatehouse\b", env["SERVER_SOFTWARE"], re.IGNORECASE)
    assert env["HTTP_X_MANY"] == "a, b" and env["HTTP_COOKIE"] == "c=1; d=2"


def test_colliding_fields(lab):
    server = lab.serve(INSPECT)
    for fields in ([("X-Foo", "1"), ("X_Foo", "2")], [("Content_Length", "9")]):
        assert server.get("/cgi-bin/inspect", fields=fields).status == 400


def test_query_is_no_argument(lab):
    server = lab.serve(INSPECT)
    for query in ("-s", "-d+allow_url_include%3don", "a+b", "%ADd+x"):
        found = inspect(server, f"/cgi-bin/inspect?{query}")
        assert found["arg"] == [f"0 {lab.cgi}/inspect"]


@needs_root
def test_users(lab):
    os.chmod(lab.path, 0o755)
    server = lab.serve(INSPECT + "user = nobody\n", user="www-data")
    cgi, fcgi = inspect(server, "/cgi-bin/inspect"), inspect(server, "/fcgi/")
    assert cgi["uid"] == cgi["euid"] == ["33"] and cgi["gid"] == ["33"] and set(cgi.get("group", [])) <= {"33"}
    assert fcgi["uid"] == fcgi["euid"] == ["65534"] and fcgi["gid"] == ["65534"]
    assert set(fcgi.get("group", [])) <= {"65534"}
    for front in server.fronts():
        status = processes.read(f"/proc/{front}/status")
        assert re.search(r"^Uid:\t33\t33\t33\t33$", status, re.M), status
        assert re.search(r"^Gid:\t33\t33\t33\t33$", status, re.M), status


STEAL = r"""
    #!/usr/bin/python3
    import os, sys
    print("Content-Type: text/plain\n")
    for front in os.environ["QUERY_STRING"].split("+"):
        for what, take in [
            ("memory", lambda: open(f"/proc/{front}/mem", "rb")),
            ("descriptor", lambda: os.readlink(f"/proc/{front}/fd/0")),
            ("environment", lambda: open(f"/proc/{front}/environ").read()),
        ]:
            try:
                take()
                print(what, "taken")
            except PermissionError:
                print(what, "kept")
    """


@pytest.mark.parametrize("user", ["same", pytest.param("nobody", marks=needs_root)])
def test_front_is_closed_to_programs(lab, user):
    """Even to those of its own user, as all are unless they are given one."""
    if user == "same" and os.geteuid() == 0:
        pytest.skip("root may look into anything")
    lab.script("steal.py", STEAL)
    server = lab.serve(SITE, **({"user": user} if user != "same" else {}))
    fronts = wait_for(server.fronts, "the fronts")
    found = server.get("/cgi-bin/steal.py?" + "+".join(map(str, fronts))).body.decode().split("\n")
    assert found == ["memory kept", "descriptor kept", "environment kept"] * len(fronts) + [""]


@needs_root
def test_root_is_said(lab):
    server = lab.serve("[site *]\nroot = {root}", user="root")
    server.wait_log("root")


def test_descriptors_of_a_script_are_sane(lab):
    """Standard input without a body is at its end; output and error can be written."""
    lab.script("input.sh", r"""
        #!/bin/sh
        n=$(wc -c)
        printf 'Content-Type: text/plain\n\n%d\n' "$n"
        """)
    server = lab.serve(SITE)
    assert server.get("/cgi-bin/input.sh").body == b"0\n"
