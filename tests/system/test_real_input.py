"""Real programs on one server: git's HTTP backend, PHP over FastCGI and over CGI, a libfcgi application, files. Every
byte is compared. Each check runs alone, and then all of them at once under the load of 32 clients."""

import hashlib
import json
import os
import re
import subprocess
import threading
import zlib

import pytest

from processes import wait_for

CONFIG = """
    [site *]
    root = {root}
    index = index.html index.php

    [route /git/*]
    gateway = cgi
    program = /usr/lib/git-core/git-http-backend
    env[GIT_PROJECT_ROOT] = {path}/git
    env[GIT_HTTP_EXPORT_ALL] = 1
    env[REMOTE_USER] = x
    timeout = 120s
    idle_timeout = 60s

    [route /php-cgi/*]
    gateway = cgi
    dir = {root}/app
    interpreter[.php] = /usr/bin/php-cgi
    queue_timeout = 60s
    timeout = 60s
    idle_timeout = 60s

    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    queue_timeout = 60s
    idle_timeout = 60s

    [route /count/*]
    gateway = fastcgi
    pool = count

    [route *.php]
    gateway = fastcgi
    pool = php
    idle_timeout = 60s

    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 2
    queue_timeout = 60s

    [pool php]
    command = php-cgi -c {path}/php.ini -d post_max_size=64M
    pm = static
    pm.max_children = 2
    queue_timeout = 60s
"""

FILES = {"empty": b"", "one": b"1", "64k": os.urandom(65536), "10m": os.urandom(10 << 20)}


@pytest.fixture(scope="module")
def server(shared_lab):
    lab = shared_lab
    os.mkdir(lab.here("sessions"))
    os.mkdir(lab.here("uploads"))
    lab.file("php.ini", f"upload_max_filesize = 64M\nupload_tmp_dir = {lab.path}/uploads\n"
                        f"session.save_path = {lab.path}/sessions\n")
    for name in ("info.php", "upload.php", "session.php"):
        with open(os.path.join(os.path.dirname(__file__), "..", "apps", "php", name), "rb") as file:
            lab.file(f"root/app/{name}", file.read())
    for name, content in FILES.items():
        lab.file(f"root/files/{name}", content)
    lab.file("root/index.html", b"<p>front page\n")
    lab.file("root/app/index.php", b"<?php echo 'index of ', $_SERVER['SCRIPT_NAME'];")
    make_repository(lab)
    return lab.serve(CONFIG, fronts=2)


# git.

def git(lab, *arguments, cwd=None):
    env = {"PATH": os.environ["PATH"], "HOME": lab.here("home"), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
           "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(["git", *arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_repository(lab):
    os.mkdir(lab.here("home"))
    work, bare = lab.here("seed"), lab.here("git/some.git")
    git(lab, "init", "-q", "-b", "main", work)
    for n in range(20):
        lab.file(f"seed/folder{n % 3}/file{n}", os.urandom(200_000))
        git(lab, "add", ".", cwd=work)
        git(lab, "commit", "-q", "-m", f"number {n}", cwd=work)
    git(lab, "clone", "-q", "--bare", work, bare)
    git(lab, "config", "http.receivepack", "true", cwd=bare)


def check_git(server):
    lab = server.lab
    url = f"http://127.0.0.1:{server.port}/git/some.git"
    name = f"clone-{threading.get_ident()}-{os.urandom(4).hex()}"
    git(lab, "clone", "-q", url, lab.here(name))
    seed = git(lab, "rev-parse", "main", cwd=lab.here("seed"))
    git(lab, "merge-base", "--is-ancestor", seed, "HEAD", cwd=lab.here(name))
    git(lab, "fsck", "--strict", cwd=lab.here(name))
    content = os.urandom(3_000_000)
    lab.file(f"{name}/new-{name}", content)
    git(lab, "add", ".", cwd=lab.here(name))
    git(lab, "commit", "-q", "-m", "pushed", cwd=lab.here(name))
    git(lab, "push", "-q", "origin", f"HEAD:refs/heads/{name}", cwd=lab.here(name))
    pushed = git(lab, "rev-parse", name, cwd=lab.here("git/some.git"))
    assert pushed == git(lab, "rev-parse", "HEAD", cwd=lab.here(name))
    git(lab, "clone", "-q", "-b", name, url, lab.here(name + "-again"))
    with open(lab.here(f"{name}-again/new-{name}"), "rb") as file:
        assert file.read() == content


# PHP.

def check_php_variables(server):
    for prefix, script in (("/app/info.php", "/app/info.php"), ("/php-cgi/info.php", "/php-cgi/info.php")):
        target = f"{prefix}/extra/a%20b?x=1&y=%20z&x2[]=2"
        response = server.get(target, fields=[("X-Custom", "value"), ("Host", "some.test")])
        assert response.status == 200, response
        answer = json.loads(response.text)
        found = answer["server"]
        expected = {
            "SCRIPT_NAME": script, "SCRIPT_FILENAME": f"{server.lab.root}/app/info.php", "PATH_INFO": "/extra/a b",
            "QUERY_STRING": "x=1&y=%20z&x2[]=2", "REQUEST_URI": target, "DOCUMENT_ROOT": server.lab.root,
            "PHP_SELF": f"{script}/extra/a b", "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET",
            "GATEWAY_INTERFACE": "CGI/1.1", "REMOTE_ADDR": "127.0.0.1", "SERVER_ADDR": "127.0.0.1",
            "SERVER_PORT": str(server.port), "SERVER_NAME": "some.test", "REQUEST_SCHEME": "http",
            "REDIRECT_STATUS": "200", "HTTP_HOST": "some.test", "HTTP_X_CUSTOM": "value",
            "REQUEST_ID": response.id}
        assert {name: found.get(name) for name in expected} == expected
        assert found["REMOTE_PORT"].isdigit() and "HTTPS" not in found and "CONTENT_LENGTH" not in found
        assert answer["get"] == {"x": "1", "y": " z", "x2": ["2"]}
    response = server.request("POST", "/app/info.php", b"a=b", fields=[("Content-Type", "text/x")])
    answer = json.loads(response.text)
    assert answer["input"] == "a=b" and "PATH_INFO" not in answer["server"]
    assert (answer["server"]["CONTENT_LENGTH"], answer["server"]["CONTENT_TYPE"]) == ("3", "text/x")
    assert server.get("/app/").body == b"index of /app/index.php"


def check_php_upload(server):
    content = os.urandom(20 << 20)
    path = server.lab.file(f"upload-{os.urandom(4).hex()}", content)
    done = subprocess.run(["curl", "-sS", "--fail", "-F", f"file=@{path}", "-F", "word=y & z",
                           f"http://127.0.0.1:{server.port}/app/upload.php"],
                          capture_output=True, timeout=120, check=True)
    answer = json.loads(done.stdout)
    assert answer["post"] == {"word": "y & z"}
    assert answer["file"]["error"] == 0 and answer["file"]["size"] == len(content)
    assert answer["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    os.unlink(path)


def check_php_session(server):
    cookie = []
    for n in range(1, 11):
        response = server.get("/app/session.php", fields=cookie)
        assert response.text == str(n)
        if n == 1:
            cookie = [("Cookie", response.get("set-cookie").partition(";")[0])]


def check_php_processes(server):
    pids = {json.loads(server.get("/app/info.php").text)["pid"] for _ in range(20)}
    assert 1 <= len(pids) <= 2 and pids <= set(server.running("php-cgi"))
    pids = {json.loads(server.get("/php-cgi/info.php").text)["pid"] for _ in range(5)}
    assert len(pids) == 5


# libfcgi, files.

def check_count(server):
    body = os.urandom(1_000_000)
    for target, most in (("/count/x", 2), ("/cgi-bin/count", 5)):
        pids, counts = set(), []
        for _ in range(5):
            text = server.request("POST", target, body).text
            match = re.fullmatch(r"pid=(\d+) count=(\d+) length=1000000 crc=([0-9a-f]{8})\n", text)
            assert match and int(match[3], 16) == zlib.crc32(body), text
            pids.add(match[1])
            counts.append(int(match[2]))
        assert len(pids) <= most
        if most == 5:
            assert len(pids) == 5 and set(counts) == {1}
        else:
            assert max(counts) >= 3


def check_files(server):
    with server.connect() as client:
        for name, content in FILES.items():
            response = client.get(f"/files/{name}")
            assert response.status == 200 and response.body == content
            assert int(response.get("content-length")) == len(content)
            head = client.request("HEAD", f"/files/{name}")
            for field in ("content-length", "etag", "last-modified", "content-type"):
                assert head.get(field) == response.get(field) is not None, field
            assert client.get(f"/files/{name}", fields=[("If-None-Match", response.get("etag"))]).status == 304
            assert client.get(f"/files/{name}",
                              fields=[("If-Modified-Since", response.get("last-modified"))]).status == 304
        assert client.get("/").body == b"<p>front page\n"


CHECKS = [check_git, check_php_variables, check_php_upload, check_php_session,
          check_php_processes, check_count, check_files]


@pytest.mark.parametrize("check", CHECKS)
def test_alone(server, check):
    check(server)


def test_one_php_process_serves_all(lab):
    """More requests than php-cgi would serve by itself (500), one after another, from one process."""
    lab.file("root/x.php", "<?php echo getmypid();")
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
    with server.connect() as client:
        assert len({client.get("/x.php").text for _ in range(100)}) == 1
        for _ in range(600):
            assert client.get("/x.php").status == 200


class Load:
    """Clients that ask for one thing after another until they are told to stop, and look at every answer."""

    def __init__(self, server, n):
        self.server = server
        self.n_done = 0
        self.errors = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n)]
        for thread in self.threads:
            thread.start()

    def _run(self, i):
        try:
            with self.server.connect(patience=90) as client:
                while not self.stopped.is_set():
                    self._ask(client, i)
                    i += 1
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(repr(error))

    def _ask(self, client, i):
        body = b"%d" % i * 1000
        kind = i % 8
        if kind < 3:
            good = client.get("/files/64k").body == FILES["64k"]
        elif kind < 5:
            text = client.request("POST", "/count/", body).text
            good = f"length={len(body)} crc={zlib.crc32(body):08x}" in text
        elif kind == 5:
            good = client.request("POST", "/cgi-bin/cat.sh", body, chunked=True).body == body
        elif kind == 6:
            good = json.loads(client.request("POST", f"/app/info.php?{i}", body).text)["input"] == body.decode()
        else:
            good = client.get("/files/nothing").status == 404
        with self.lock:
            self.n_done += 1
            if not good:
                self.errors.append(f"wrong answer of kind {kind}")

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_all_at_once(server):
    load = Load(server, 32)
    failures = []

    def run(check):
        try:
            check(server)
        except BaseException as error:  # pylint: disable=broad-except
            failures.append((check.__name__, repr(error)))

    try:
        threads = [threading.Thread(target=run, args=(check,)) for check in CHECKS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: load.n_done > 1000 or load.errors, "a thousand requests", 120)
    finally:
        load.stop()
    assert not failures
    assert not load.errors, load.errors[:5]
    bad = [record for record in server.records() if (record["status"] or 0) >= 500]
    assert not bad, bad[:5]
