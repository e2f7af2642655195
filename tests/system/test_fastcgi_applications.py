"""FastCGI applications and libraries that people use, as they come: php-fpm, Perl's FCGI and CGI::Fast, libfcgi under
spawn-fcgi, fcgiwrap, Node's node-fastcgi. Git, gitweb and DokuWiki are in test_applications.py."""

import glob
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
from contextlib import closing

import pytest

from processes import is_listening, wait_for
from server import APPS, Lab
from test_gateways import listener

SITE = """
    [site *]
    root = {root}
"""


def in_parallel(n, run):
    """Calls run(0), run(1) and so on at once; what any of them raises is raised here."""
    failures = []

    def guarded(i):
        try:
            run(i)
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def check_stream(server, target):
    """Its first piece comes while it waits for a file, the name of which it gets in its query."""
    gate = server.lab.here("gate-" + os.urandom(4).hex())
    with server.connect() as client:
        client.send_request("GET", f"{target}?{gate}")
        pieces = client.body_pieces(client.read_head())
        assert next(pieces) == b"first\n"
        server.lab.file(gate)
        assert b"".join(pieces) == b"last\n"
        client.expect_nothing()


# php-fpm.

PHP = {
    "stream.php": "<?php echo \"first\\n\"; flush(); while (!file_exists($_SERVER['QUERY_STRING'])) {"
                  " usleep(2000); clearstatcache(); } echo \"last\\n\";",
    "complain.php": "<?php error_log('trouble of ' . $_SERVER['REQUEST_ID']); http_response_code(503); echo 'sorry';",
    "fatal.php": "<?php no_such_function();",
    "pid.php": "<?php echo getmypid();",
}

FPM = """
    [route /fpm-status]
    gateway = fastcgi
    pool = php
    [route *.php]
    gateway = fastcgi
    pool = php
    [pool php]
    server = %s
    max_connections = 2
"""


def start_fpm(lab, kind, manager="pm = static\npm.max_children = 2", fronts=1, inherits=True):
    """php-fpm with a configuration of its own, on a socket that it inherits, or its own, and a server before it."""
    for name, text in PHP.items():
        lab.file(f"root/{name}", text)
    for name in os.listdir(os.path.join(APPS, "php")):
        shutil.copy(os.path.join(APPS, "php", name), lab.root)
    os.makedirs(lab.here("uploads"))
    listening, address = listener(lab, kind)
    listen = address.removeprefix("unix:")
    user = pwd.getpwuid(os.geteuid()).pw_name
    conf = lab.file("fpm.conf", f"""
[global]
error_log = {lab.path}/fpm.log
daemonize = no
[www]
user = {user}
listen = {listen}
{manager}
pm.status_path = /fpm-status
php_admin_value[upload_tmp_dir] = {lab.path}/uploads
php_admin_value[upload_max_filesize] = 64M
php_admin_value[post_max_size] = 64M
php_admin_flag[display_errors] = off
php_admin_flag[log_errors] = on
""")
    program = sorted(glob.glob("/usr/sbin/php-fpm*"))[-1]
    env = {"PATH": os.environ["PATH"]}
    if inherits:
        env["FPM_SOCKETS"] = f"{listen}={listening.fileno()}"
    else:
        os.unlink(listen)
    lab.helper([program, "-n", "-F", "-y", conf, *(["-R"] if os.geteuid() == 0 else [])], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[listening.fileno()],
               env=env)
    listening.close()
    wait_for(lambda: inherits or os.path.exists(listen), "php-fpm's socket")
    return lab.serve(SITE + FPM % address, fronts=fronts, max_head="256k", max_body="64m")


@pytest.fixture(scope="module", params=["unix", "tcp"])
def fpm(request, apps):
    with closing(Lab(apps)) as lab:
        yield start_fpm(lab, request.param)


def test_fpm_get_and_post(fpm):
    answer = json.loads(fpm.get("/info.php/more?a=b%20c").text)
    assert answer["get"] == {"a": "b c"} and answer["server"]["PATH_INFO"] == "/more"
    assert answer["server"]["SCRIPT_FILENAME"] == fpm.lab.root + "/info.php"
    response = fpm.request("POST", "/info.php", b"x=y", fields=[("Content-Type", "application/x-www-form-urlencoded")])
    assert json.loads(response.text)["input"] == "x=y"
    response = fpm.request("HEAD", "/info.php")
    assert response.status == 200 and response.body == b""
    assert fpm.get("/nothing.php").status == 404


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_fpm_upload(fpm, framing):
    content = os.urandom(5 << 20)
    path = fpm.lab.file("upload-" + framing, content)
    more = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    done = subprocess.run(["curl", "-sS", "--fail", *more, "-F", f"file=@{path}", "-F", "word=y & z",
                           f"http://127.0.0.1:{fpm.port}/upload.php"], capture_output=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["post"] == {"word": "y & z"}
    assert answer["file"]["error"] == 0 and answer["file"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [1, 100, 65_536, 300_000])
def test_fpm_sees_a_chunked_body(fpm, size):
    body = os.urandom(size // 2).hex() + "x" * (size % 2)
    with fpm.connect() as client:
        for _ in range(2):
            response = client.request("POST", "/info.php", body.encode(), chunked=True)
            answer = json.loads(response.text)
            assert answer["input"] == body
            assert answer["server"]["CONTENT_LENGTH"] == str(size) and "HTTP_TRANSFER_ENCODING" not in answer["server"]


def test_fpm_streams(fpm):
    check_stream(fpm, "/stream.php")


@pytest.mark.parametrize("sizes", [[7000] * 10, [60_000, 10_000], [100] * 90])
def test_fpm_big_params(fpm, sizes):
    """PHP looks at each record of params by itself."""
    fields = [(f"X-Big-{n}", f"{n}-" + "v" * size) for n, size in enumerate(sizes)]
    found = json.loads(fpm.get("/info.php", fields=fields).text)["server"]
    assert {name: found[name.upper().replace("-", "_")] for name, _ in
            [("HTTP-" + name, value) for name, value in fields]} == {"HTTP-" + name: value for name, value in fields}


def test_fpm_errors_are_tagged(fpm):
    response = fpm.get("/complain.php")
    assert (response.status, response.body) == (503, b"sorry")
    assert "trouble of " + response.id in fpm.wait_log(f"[{response.id}]", "PHP message")
    response = fpm.get("/fatal.php")
    assert response.status == 500
    fpm.wait_log(f"[{response.id}]", "no_such_function")


def test_fpm_status(fpm):
    status = json.loads(fpm.get("/fpm-status?json&full").text)
    assert status["pool"] == "www" and status["process manager"] == "static"
    pids = {process["pid"] for process in status["processes"]}
    assert len(pids) == 2 and int(fpm.get("/pid.php").text) in pids
    running = [process for process in status["processes"] if process["state"] == "Running"]
    assert any(process["request uri"].startswith("/fpm-status") for process in running)


def ask_for_pids(server, n_clients, n_each):
    pids = []

    def ask(_):
        with server.connect() as client:
            for _ in range(n_each):
                response = client.get("/pid.php")
                assert response.status == 200, response
                pids.append(int(response.text))

    in_parallel(n_clients, ask)
    assert len(pids) == n_clients * n_each
    return pids


@pytest.mark.parametrize("kind, fronts", [("unix", 1), ("tcp", 2)])
def test_fpm_max_requests(lab, kind, fronts):
    """Each process of php-fpm ends after five requests: none of a hundred is lost."""
    server = start_fpm(lab, kind, "pm = static\npm.max_children = 2\npm.max_requests = 5", fronts)
    pids = ask_for_pids(server, 4, 25)
    assert len(set(pids)) >= 20 and max(pids.count(pid) for pid in pids) <= 5
    assert {record["status"] for record in wait_for(
        lambda: len(server.records()) >= 100 and server.records(), "the access log")} == {200}


def test_fpm_ondemand(lab):
    """It starts a process when a connection comes; one that came while another process started waits for that process,
    which may be held by a connection that is kept."""
    server = start_fpm(lab, "unix", "pm = ondemand\npm.max_children = 2\npm.process_idle_timeout = 1s", inherits=False)
    for _ in range(5):
        pids = set(ask_for_pids(server, 2, 10))
        assert 1 <= len(pids) <= 2
    check_stream(server, "/stream.php")


# Perl.

PERL_FCGI = r"""
    #!/usr/bin/perl
    use strict;
    use warnings;
    use Digest::MD5 'md5_hex';
    use FCGI;
    my $count = 0;
    my $request = FCGI::Request();
    while ($request->Accept() >= 0) {
        $count++;
        if ($ENV{PATH_INFO} eq '/stream') {
            print "Content-Type: text/plain\r\n\r\nfirst\n";
            $request->Flush();
            select(undef, undef, undef, 0.002) until -e $ENV{QUERY_STRING};
            print "last\n";
            next;
        }
        my ($body, $piece) = ('', '');
        $body .= $piece while read(STDIN, $piece, 65536);
        print STDERR "complaint of $ENV{REQUEST_ID}\n" if $ENV{PATH_INFO} eq '/complain';
        print "Content-Type: text/plain\r\nX-Method: $ENV{REQUEST_METHOD}\r\n\r\n";
        print "pid=$$ count=$count length=", length $body, " md5=", md5_hex($body), "\n";
    }
    """

PERL_FAST = r"""
    #!/usr/bin/perl
    use strict;
    use warnings;
    use CGI::Fast;
    use Digest::MD5;
    my $count = 0;
    while (my $q = CGI::Fast->new) {
        $count++;
        my $file = $q->upload('file');
        my $digest = $file ? Digest::MD5->new->addfile($file)->hexdigest : '-';
        print STDERR "complaint of $ENV{REQUEST_ID}\n" if $q->path_info eq '/complain';
        my $cookie = $q->cookie(-name => 'seen', -value => ($q->cookie('seen') // 0) + 1);
        print $q->header(-type => 'text/plain', -cookie => $cookie, -status => $q->param('status') // '200 OK');
        print "pid=$$ count=$count word=", $q->param('word') // '-', " md5=$digest\n";
    }
    """

POOLS = {
    "managed": """
        [route /app/*]
        gateway = fastcgi
        pool = app
        [pool app]
        command = {path}/app.pl
        pm = static
        pm.max_children = 1
        """,
    "spawned": """
        [route /app/*]
        gateway = fastcgi
        pool = app
        [pool app]
        server = unix:{path}/spawned.sock
        max_connections = 1
        """,
}

BOTH = pytest.mark.parametrize("way", ["managed", "spawned"])


def spawn(lab, *command):
    """Starts an application by spawn-fcgi, which listens for it; returns when it does."""
    path = lab.here("spawned.sock")
    process = lab.helper(["spawn-fcgi", "-n", "-s", path, "-M", "0666", "--", *command], stdin=subprocess.DEVNULL)
    wait_for(lambda: is_listening(path), "spawn-fcgi's socket")
    return process


def serve_perl(lab, way, text):
    program = lab.script("../app.pl", text)
    helper = spawn(lab, program) if way == "spawned" else None
    return lab.serve(SITE + POOLS[way]), helper


@BOTH
def test_perl_fcgi(lab, way):
    server, helper = serve_perl(lab, way, PERL_FCGI)
    for n, size in enumerate((0, 1, 70_000, 1 << 20), 1):
        body = os.urandom(size)
        response = server.request("POST", "/app/", body)
        match = re.fullmatch(r"pid=(\d+) count=(\d+) length=(\d+) md5=(\w+)\n", response.text)
        assert match.group(2, 3, 4) == (str(n), str(size), hashlib.md5(body).hexdigest())
        assert response.get("x-method") == "POST"
        assert helper is None or int(match[1]) == helper.pid
        chunked = server.request("POST", "/app/", body, chunked=True).text if size == 70_000 else None
        assert chunked is None or f"length={size} md5={match[4]}" in chunked
        if chunked:
            break
    check_stream(server, "/app/stream")
    response = server.get("/app/complain")
    assert "complaint of " + response.id in server.wait_log(f"[{response.id}]")


@BOTH
def test_perl_cgi_fast(lab, way):
    server, helper = serve_perl(lab, way, PERL_FAST)
    with server.connect() as client:
        for n in range(1, 6):
            response = client.get(f"/app/?word=w%20{n}", fields=[("Cookie", f"seen={n}")])
            assert re.fullmatch(rf"pid=\d+ count={n} word=w {n} md5=-\n", response.text), response
            assert response.get("set-cookie").startswith(f"seen={n + 1};")
        assert client.get("/app/?status=404+Nothing").status == 404
    content = os.urandom(2 << 20)
    done = subprocess.run(["curl", "-sS", "--fail", "-F", f"file=@{lab.file('content', content)}", "-F", "word=up",
                           f"http://127.0.0.1:{server.port}/app/"], capture_output=True, timeout=60, check=True)
    assert f"word=up md5={hashlib.md5(content).hexdigest()}\n".encode() in done.stdout
    response = server.get("/app/complain")
    assert "complaint of " + response.id in server.wait_log(f"[{response.id}]")
    assert helper is None or helper.poll() is None


# libfcgi under spawn-fcgi, several processes on one socket.

def test_libfcgi_under_spawn_fcgi(lab):
    pid_path, path = lab.here("pids"), lab.here("spawned.sock")
    processes_of = lab.helper(["spawn-fcgi", "-s", path, "-M", "0666", "-F", "2", "-P", pid_path, "--",
                               os.path.join(lab.apps, "count")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert processes_of.wait(20) == 0
    with open(pid_path, encoding="ascii") as file:
        pids = [int(word) for word in file.read().split()]
    assert len(pids) == 2
    lab.helpers += [Adopted(pid) for pid in pids]
    server = lab.serve(SITE + POOLS["spawned"].replace("max_connections = 1", "max_connections = 2"))
    body = os.urandom(1 << 20)
    counts = []

    def ask(_):
        for _ in range(5):
            with server.connect() as client:
                sender = threading.Thread(target=client.send_request, args=("POST", "/app/?echo", body))
                sender.start()
                assert client.read().body == body
                sender.join()
            counts.append(re.match(r"pid=(\d+) count=(\d+)", server.get("/app/").text)[1])

    in_parallel(4, ask)
    assert len(counts) == 20 and set(map(int, counts)) <= set(pids)
    response = server.get("/app/?stderr=some-complaint")
    assert server.wait_log(f"[{response.id}]", "some-complaint")


def test_libfcgi_alone(lab):
    """One process, which has one connection at a time; nobody has said in the configuration that there is only one."""
    helper = spawn(lab, os.path.join(lab.apps, "count"))
    server = lab.serve(SITE + POOLS["spawned"].replace("max_connections = 1", ""))
    counts = []

    def ask(_):
        with server.connect() as client:
            for _ in range(5):
                counts.append(re.match(r"pid=(\d+) count=(\d+)", client.get("/app/").text).groups())

    in_parallel(4, ask)
    assert sorted(int(count) for _, count in counts) == list(range(1, 21))
    assert {int(pid) for pid, _ in counts} == {helper.pid}


class Adopted:
    """A process that a helper has left to us: a lab ends it like a helper."""

    def __init__(self, pid):
        self.pid = pid

    def wait(self):
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


# fcgiwrap with plain CGI scripts.

WRAPPED = """
    [route *.sh]
    gateway = fastcgi
    pool = wrap
    [pool wrap]
    server = unix:{path}/app.sock
    max_connections = 2
"""

SCRIPTS = {
    "cat.sh": "printf 'Content-Type: text/plain\\n\\n'; cat",
    "vars.sh": "printf 'Content-Type: text/plain\\n\\n%s|%s|%s|%s' \"$SCRIPT_NAME\" \"$PATH_INFO\" \"$QUERY_STRING\" "
               "\"$CONTENT_LENGTH\"",
    "status.sh": "printf 'Status: 418 Teapot\\nX-Own: y\\nContent-Type: text/plain\\n\\nshort'",
    "complain.sh": "echo \"trouble of $REQUEST_ID\" >&2; printf 'Content-Type: text/plain\\n\\nfine'",
    "early.sh": "printf 'Content-Type: text/plain\\n\\nnot read'",
    "big.sh": "printf 'Content-Type: text/plain\\n\\n'; head -c 3000000 /dev/zero",
    "nothing.sh": "exit 3",
}


@pytest.fixture(scope="module")
def wrapped(apps):
    with closing(Lab(apps)) as lab:
        for name, text in SCRIPTS.items():
            lab.file(f"root/{name}", f"#!/bin/sh\n{text}\n", 0o755)
        listening, _ = listener(lab, "unix")
        lab.helper(["fcgiwrap", "-f", "-c", "2"], stdin=listening)
        listening.close()
        yield lab.serve(SITE + WRAPPED)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_fcgiwrap_echo(wrapped, chunked):
    body = os.urandom(30_000)
    assert wrapped.request("POST", "/cat.sh", body, chunked=chunked).body == body


def test_fcgiwrap_scripts(wrapped):
    assert wrapped.get("/vars.sh/a/b?c=d").text == "/vars.sh|/a/b|c=d|"
    response = wrapped.get("/status.sh")
    assert (response.status, response.body, response.get("x-own")) == (418, b"short", "y")
    assert wrapped.get("/big.sh").body == bytes(3_000_000)
    response = wrapped.get("/complain.sh")
    assert response.body == b"fine"
    assert "trouble of " + response.id in wrapped.wait_log(f"[{response.id}]")
    assert wrapped.get("/nothing.sh").status in (403, 502)
    in_parallel(8, lambda n: [wrapped.request("POST", "/cat.sh", b"%d" % n * 500).body == b"%d" % n * 500
                              or pytest.fail("a wrong body") for _ in range(4)])


def test_fcgiwrap_script_that_does_not_read(wrapped):
    """When the script ends while fcgiwrap still writes to it, fcgiwrap answers 502 itself."""
    with wrapped.connect() as client:
        response = client.request("POST", "/early.sh", bytes(50_000))
        assert (response.status, response.body) == (200, b"not read") or b"An error occurred" in response.body
        assert wrapped.request("POST", "/cat.sh", b"next").body == b"next"


# Node.

NODE = r"""
    const fcgi = require('node-fastcgi');
    const fs = require('fs');
    const crypto = require('crypto');
    function answer(req, res) {
        const [path, query] = req.url.split('?');
        if (path === '/app/stream') {
            res.writeHead(200, {'Content-Type': 'text/plain'});
            res.write('first\n');
            const timer = setInterval(() => {
                if (fs.existsSync(query)) {
                    clearInterval(timer);
                    res.end('last\n');
                }
            }, 2);
            return;
        }
        if (path === '/app/complain')
            req.socket.errorStream.write('complaint of ' + req.headers['x-own'] + '\n');
        const hash = crypto.createHash('md5');
        let length = 0;
        req.on('data', (piece) => { hash.update(piece); length += piece.length; });
        req.on('end', () => {
            const text = JSON.stringify({pid: process.pid, method: req.method, url: req.url, own: req.headers['x-own'],
                                         length: length, md5: hash.digest('hex')});
            res.writeHead(path === '/app/teapot' ? 418 : 200, {'Content-Type': 'application/json'});
            res.end(text);
        });
    }
    fcgi.createServer(answer).listen(process.argv[2]);
    """

NODE_PACKAGES = ["node-fastcgi@2.0.0", "fastcgi-stream@1.0.0", "bufferlist@0.1.0"]


@pytest.fixture(scope="module")
def node_modules():
    """The packages, from npm's registry. A machine without Node or without that registry cannot run these tests."""
    for name in ("node", "npm"):
        if not shutil.which(name):
            pytest.skip(f"{name} is not there")
    folder = tempfile.mkdtemp(prefix="gh-node-")
    try:
        done = subprocess.run(["npm", "install", "--prefix", folder, "--cache", folder + "/cache", "--ignore-scripts",
                               "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=10000", *NODE_PACKAGES],
                              cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        if done.returncode != 0:
            pytest.skip("npm cannot install node-fastcgi: " + done.stderr.decode(errors="replace")[-200:])
        yield folder + "/node_modules"
    finally:
        shutil.rmtree(folder)


def test_application_that_keeps_nothing(lab):
    """It says that it multiplexes, but closes its connection after each answer, and its other requests go with it."""
    lab.helper([os.path.join(lab.apps, "roles"), "--no-keep", "unix:" + lab.here("spawned.sock")])
    wait_for(lambda: is_listening(lab.here("spawned.sock")), "the application's socket")
    server = lab.serve(SITE + POOLS["spawned"].replace("max_connections = 1", "max_connections = 4"))

    def ask(n):
        with server.connect() as client:
            for i in range(20):
                body = b"%d-%d " % (n, i) * 100
                response = client.request("POST", "/app/?echo=1", body)
                assert (response.status, response.body) == (200, body), response

    ask(0)
    in_parallel(12, ask)


@pytest.fixture(scope="module")
def node(apps, node_modules):
    """It is such an application: node-fastcgi looks for KEEP_CONN under another name than its library has for it."""
    with closing(Lab(apps)) as lab:
        os.symlink(node_modules, lab.here("node_modules"))
        program, path = lab.script("../app.js", NODE), lab.here("spawned.sock")
        lab.helper(["node", program, path], stdin=subprocess.DEVNULL)
        wait_for(lambda: is_listening(path), "the application's socket")
        os.chmod(path, 0o666)
        yield lab.serve(SITE + POOLS["spawned"].replace("max_connections = 1", "max_connections = 8"))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_node_bodies(node, chunked):
    with node.connect() as client:
        for size in (0, 1, 65_536, 1 << 20):
            body = os.urandom(size)
            response = client.request("POST", f"/app/x?{size}", body, chunked=chunked)
            assert response.status == 200, response
            answer = json.loads(response.text)
            assert (answer["method"], answer["url"], answer["length"]) == ("POST", f"/app/x?{size}", size)
            assert answer["md5"] == hashlib.md5(body).hexdigest()
        response = client.get("/app/teapot")
        assert response.status == 418 and json.loads(response.text)["length"] == 0


def test_node_streams_and_complains(node):
    in_parallel(6, lambda _: check_stream(node, "/app/stream"))
    response = node.get("/app/complain", fields=[("X-Own", "some-word")])
    assert node.wait_log(f"[{response.id}]", "complaint of some-word")


def test_node_many_at_once(node):
    """Each gets its own answer, whatever shares its connection."""
    def ask(n):
        with node.connect() as client:
            for i in range(10):
                own, body = f"{n}-{i}", os.urandom(1000 * n)
                response = client.request("POST", "/app/", body, fields=[("X-Own", own)])
                assert response.status == 200, response
                answer = json.loads(response.text)
                assert (answer["own"], answer["md5"]) == (own, hashlib.md5(body).hexdigest())

    in_parallel(20, ask)
