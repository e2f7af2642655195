"""Mistakes that users make: each gets one clear line that names the thing and the cure, and the right code."""

import os
import re
import socket
import subprocess

import pytest

from server import BINARY

SITE = "[site *]\nroot = {root}\n"
POOL = "[route *.x]\ngateway = fastcgi\npool = p\n[pool p]\n"
CGI = "[route /cgi-bin/*]\ngateway = cgi\ndir = {cgi}\n"


@pytest.mark.parametrize("text, words", [
    (SITE + POOL + "command = {cgi}/count\npm = static\npm.max_childs = 3\n",
     ["unknown key", "pm.max_childs", "[pool p]", "pm.max_children"]),
    (SITE + POOL + "command = {path}/nothing-here\npm = static\npm.max_children = 1\n",
     ["nothing-here", "not there"]),
    (SITE + POOL + "command = no-such-program-anywhere\npm = static\npm.max_children = 1\n",
     ["no-such-program-anywhere", "PATH"]),
    ("[site *]\nroot = {path}/no-root\n", ["no-root", "not there"]),
    (SITE + "[route /x/*]\ngateway = fastcgi\npool = nobody\n", ["nobody"]),
    (SITE + "[route /x/*]\ngateway = cgi\ndir = {path}/no-dir\n", ["no-dir", "not there"]),
    (SITE + "[route /x/*]\ngateway = cgi\nprogram = {path}/no-program\n", ["no-program", "not there"]),
    (SITE + "[route /x/*]\ngateway = ftp\n", ["ftp", "gateway"]),
    (SITE + "[nonsense]\nx = 1\n", ["nonsense"]),
    (SITE + CGI + "timeout = soon\n", ["soon", "timeout"]),
    (SITE + CGI + "max_running = 0\n", ["max_running"]),
], ids=lambda value: value[-1] if isinstance(value, list) else None)
def test_configuration(lab, text, words):
    code, error = lab.refused(text)
    assert code == 1, error
    lines = [line for line in error.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, error
    assert re.search(r"gatehouse-1\.conf:\d+: ", lines[0]), lines


def test_line_numbers(lab):
    code, error = lab.refused("[site *]\nroot = {root}\n\nindx = x\n")
    path = lab.here("gatehouse-1.conf")
    with open(path, encoding="ascii") as file:
        number = [line.strip() for line in file].index("indx = x") + 1
    assert code == 1
    assert f"{path}:{number}: " in error and '"index"' in error


def test_all_errors_in_one_go(lab):
    code, error = lab.refused(SITE + "indx = a\n" + CGI + "max_runing = 3\n", headder_timeout="1s")
    assert code == 1
    for word in ("indx", "max_runing", "headder_timeout"):
        assert len([line for line in error.splitlines() if f'"{word}"' in line]) == 1, error


def run(*arguments):
    return subprocess.run([BINARY, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                          check=False, text=True)


def test_usage(lab):
    done = run("serve", "-c", lab.here("no.conf"))
    assert done.returncode == 1 and "no.conf" in done.stderr
    done = run("--nonsense")
    assert done.returncode == 1 and "--nonsense" in done.stderr
    done = run("--version")
    assert done.returncode == 0 and "gatehouse" in done.stdout
    done = run("--help")
    assert done.returncode == 0 and "serve" in done.stdout


def test_port_in_use(lab):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, error = lab.refused(SITE, listen=address)
    assert code == 2, error
    lines = [line for line in error.splitlines() if address in line and "in use" in line.lower()]
    assert len(lines) == 1, error


def test_log_cannot_be_opened(lab):
    code, error = lab.refused(SITE, access_log=lab.here("no/such/folder/log"))
    assert code in (1, 2) and "no/such/folder/log" in error


# Programs.

@pytest.fixture
def running(lab):
    """A server whose CGI scripts the test spoils."""
    return lab.serve(SITE + CGI)


def expect_cause(server, response, *words):
    """One line of the error log names the cause, and the answer does not tell it to strangers."""
    server.wait_log(*words)
    assert len(server.logged(*words)) == 1, server.log()
    assert server.lab.path.encode() not in response.body


def test_no_execute_permission(lab, running):
    lab.file("cgi/plain.sh", "#!/bin/sh\n", 0o644)
    response = running.get("/cgi-bin/plain.sh")
    assert response.status == 403
    expect_cause(running, response, "plain.sh", "execut", "chmod +x")


def test_interpreter_missing(lab, running):
    lab.script("odd.sh", "#!/opt/no/such/interpreter -x\n")
    response = running.get("/cgi-bin/odd.sh")
    assert 500 <= response.status <= 503
    expect_cause(running, response, "odd.sh", "/opt/no/such/interpreter")


def test_cr_lf(lab, running):
    lab.file("cgi/dos.sh", "#!/bin/sh\r\necho hello\r\n", 0o755)
    response = running.get("/cgi-bin/dos.sh")
    assert 500 <= response.status <= 503
    expect_cause(running, response, "dos.sh", "CR LF")


def test_no_first_line(lab, running):
    lab.script("naked.sh", "echo hello\n")
    response = running.get("/cgi-bin/naked.sh")
    assert 500 <= response.status <= 503
    expect_cause(running, response, "naked.sh", "#!")


def test_no_such_script(lab, running):
    os.makedirs(lab.here("cgi/folder"))
    os.symlink("../../../../etc/passwd", lab.here("cgi/away.sh"))
    for target in ("/cgi-bin/nothing.sh", "/cgi-bin/", "/cgi-bin/nothing.sh/more", "/cgi-bin/sub/nothing.sh"):
        assert running.get(target).status in ((404,) if "nothing" in target else (403, 404)), target
    for target in ("/cgi-bin/folder", "/cgi-bin/folder/", "/cgi-bin/away.sh"):
        assert running.get(target).status in (403, 404), target


def test_script_says_nothing(lab, running):
    response = running.get("/cgi-bin/die.sh")
    assert response.status == 502
    running.wait_log("cannot go on: no disk", response.id)
    running.wait_log("die.sh", "exit status 7")


def test_fastcgi_command_that_ends_at_once(lab):
    command = lab.script("fragile.sh", """
        #!/bin/sh
        echo "fragile: no database" >&2
        exit 3
        """)
    server = lab.serve(SITE + "[route /p/*]\ngateway = fastcgi\npool = p\n[pool p]\n" +
                       f"command = {command}\npm = static\npm.max_children = 2\n")
    assert server.get("/p/").status in (502, 503)
    server.wait_log("fragile: no database")
    server.wait_log("pool p", "exited with status 3")


def test_fastcgi_script_that_is_not_there(lab):
    server = lab.serve(SITE + "[route *.php]\ngateway = fastcgi\npool = php\n[pool php]\n"
                       "command = php-cgi\npm = static\npm.max_children = 1\n")
    lab.file("root/picture.jpg", b"<?php echo 'never run';")
    lab.file("root/there.php", b"<?php echo 'run';")
    assert server.get("/there.php").body == b"run"
    for target in ("/nothing.php", "/picture.jpg/x.php", "/nothing.php/x", "/.php"):
        response = server.get(target)
        assert response.status == 404 and b"never run" not in response.body, target
    assert server.get("/picture.jpg").body == b"<?php echo 'never run';"


def test_fastcgi_server_that_is_not_there(lab):
    server = lab.serve(SITE + "[route /p/*]\ngateway = fastcgi\npool = away\n[pool away]\n"
                       "server = unix:{path}/no.sock\n")
    response = server.get("/p/x")
    assert response.status in (502, 503)
    server.wait_log("no.sock")
