"""Mistakes that users make: each gets one clear line that names the thing and the cure, and the right code."""

import fcntl
import os
import re
import signal
import socket
import subprocess

import pytest

import server as server_module
from processes import wait_for
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


# Programs that cannot be started: each cause with the answer's status.

@pytest.mark.parametrize("name, content, mode, status, words", [
    ("closed.sh", "#!/bin/sh\n", 0o640, 403, ["no execute permission for user", "mode is 0640", "chmod +x"]),
    ("relative.sh", "#!perl\n", 0o755, 502, ["no absolute path", "#!/usr/bin/env perl"]),
    ("directory.sh", "#!/usr\n", 0o755, 403, ['interpreter "/usr"', "is a directory"]),
    ("no-x.sh", "#!/etc/passwd\n", 0o755, 403, ['interpreter "/etc/passwd"', "no execute permission"]),
    ("long.sh", "#!/" + "a" * 300 + "\n", 0o755, 502, ["too long", "256 bytes"]),
    ("unnamed.sh", "#!\n", 0o755, 502, ["names no interpreter"]),
    ("bom.sh", b"\xef\xbb\xbf#!/bin/sh\n", 0o755, 502, ["byte order mark"]),
    ("late.sh", "\n#!/bin/sh\n", 0o755, 502, ["not the very first thing"]),
    ("nothing.sh", "", 0o755, 502, ["is empty"]),
    ("windows.exe", b"MZ\x90\0", 0o755, 502, ["for Windows"]),
    ("foreign", b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x08\x00" + bytes(44), 0o755, 502,
     ["is built for mips64el, this machine is"]),
], ids=lambda value: value if isinstance(value, str) and "." in value and "\n" not in value else None)
def test_program_that_cannot_start(lab, running, name, content, mode, status, words):
    lab.file("cgi/" + name, content, mode)
    response = running.get("/cgi-bin/" + name)
    assert response.status == status
    expect_cause(running, response, name, response.id, *words)


def test_script_below_a_closed_directory(lab):
    """Closed to the user that it runs as: root itself may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root starts programs as another user")
    server = lab.serve(SITE + CGI + "user = nobody\n")
    lab.file("cgi/mine/x.sh", "#!/bin/sh\n", 0o755)
    os.chmod(lab.here("cgi/mine"), 0o700)
    response = server.get("/cgi-bin/mine/x.sh")
    assert response.status == 403
    expect_cause(server, response, "x.sh", lab.here("cgi/mine"), "may not be entered by user nobody", "chmod +x")


def test_script_that_is_being_written(lab, running):
    path = lab.script("copied.sh", "#!/bin/sh\n")
    with open(path, "ab"):
        response = running.get("/cgi-bin/copied.sh")
    assert response.status == 503 and response.get("retry-after")
    expect_cause(running, response, "copied.sh", "is open for writing")


def test_script_that_is_not_given_out(lab):
    """Its owner has a lease on it, and nobody may read it, so that this shows only when it is executed. The server
    waits for it, but not for long; then it does not try the route's programs for a while. All others run as ever."""
    path = lab.script("leased.sh", "#!/bin/sh\n")
    hello = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello\\n'\n"
    lab.script("other.sh", hello)
    lab.file("more/hello.sh", hello, 0o755)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which the lease is asked for
    with open(path, "r+b") as file:
        os.chmod(path, 0o711)
        if os.geteuid() != 0:
            os.chmod(path, 0o111)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        server = lab.serve(SITE + CGI + ("user = nobody\n" if os.geteuid() == 0 else "") +
                           "[route /more/*]\ngateway = cgi\ndir = " + lab.here("more") + "\n")
        response = server.get("/cgi-bin/leased.sh")
        assert response.status == 503 and response.get("retry-after")
        expect_cause(server, response, "leased.sh", "could not be executed within 1 s", "lease")
        response = server.get("/cgi-bin/other.sh")
        assert response.status == 503
        expect_cause(server, response, "other.sh", "could not be executed within 1 s")
        assert server.get("/more/hello.sh").body == b"hello\n"


def test_script_with_a_circle_of_interpreters(lab, running):
    path = lab.script("circle.sh", f"#!{lab.cgi}/circle.sh\n")
    response = running.get("/cgi-bin/circle.sh")
    assert response.status == 502 and os.path.exists(path)
    expect_cause(running, response, "circle.sh", "too many scripts have a script as their interpreter")


def test_interpreter_of_the_route(lab):
    """The configured one is named, for the script is not at fault."""
    interpreter = lab.script("odd-interpreter", "#!/nowhere/perl\n")
    lab.script("x.odd", "hello\n")
    server = lab.serve(SITE + CGI + f"interpreter[.odd] = {interpreter}\n")
    response = server.get("/cgi-bin/x.odd")
    assert response.status == 502
    expect_cause(server, response, "x.odd", f"interpreter {interpreter}: ", '"/nowhere/perl"')


def test_interpreter_found_by_env(lab, running):
    lab.script("env.sh", "#!/usr/bin/env no-such-language\n")
    response = running.get("/cgi-bin/env.sh")
    assert response.status == 502
    running.wait_log("no-such-language", response.id)
    running.wait_log("env.sh", "exit status 127")


def test_environment_too_long(lab):
    server = lab.serve(SITE + CGI, max_head="1m", max_field="1m")
    response = server.get("/cgi-bin/hello.sh", fields=[("X-Long", "x" * 200000)])
    assert response.status == 431
    expect_cause(server, response, "hello.sh", response.id, "longer than a variable can be")


def test_program_on_a_file_system_without_programs(lab):
    """A private mount of the server's own."""
    done = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("no private mounts can be made here")
    os.mkdir(lab.here("cgi/noexec"))
    inner = f'mount -t tmpfs -o noexec none {lab.here("cgi/noexec")} && ' \
        f'cp {lab.here("cgi/hello.sh")} {lab.here("cgi/noexec")}/ && exec {server_module.BINARY} "$@"'
    wrapper = lab.file("wrapper.sh", f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n", 0o755)
    binary, server_module.BINARY = server_module.BINARY, wrapper
    try:
        server = lab.serve(SITE + CGI)
    finally:
        server_module.BINARY = binary
    response = server.get("/cgi-bin/noexec/hello.sh")
    assert response.status == 403
    expect_cause(server, response, "hello.sh", "mounted noexec at " + lab.here("cgi/noexec"))


def test_fastcgi_program_that_cannot_start(lab):
    command = lab.file("cgi/dead", "#!/nowhere/perl\n", 0o755)
    lab.file("root/a.x")
    server = lab.serve(SITE + POOL + f"command = {command}\npm = static\npm.max_children = 1\n")
    server.wait_log("pool p", command, 'interpreter "/nowhere/perl"')
    wait_for(lambda: server.get("/a.x").status == 503, "the news in the front")
