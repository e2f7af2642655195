"""What the processes of a pool run as, and in what: users, limits, priority, environment; who reaches their sockets."""

import os
import pwd
import stat

import pytest

import processes
from lives import expect_reloaded, wait_gone, wait_running
from processes import wait_for
from test_processes import fields_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")

POOL = """
    [site *]
    root = {root}
    [route /fcgi/*]
    gateway = fastcgi
    pool = inspect
    [pool inspect]
    command = {cgi}/inspect
    pm.max_children = 1
"""

FRONTS = pytest.mark.parametrize("fronts", [1, 2])


def inspect(server):
    response = server.get("/fcgi/")
    assert response.status == 200, response
    return fields_of(response.text)


def own(found):
    """Its environment, as the process was started with it."""
    return dict(line.split("=", 1) for line in found["own"])


def status_of(pid, name):
    for line in processes.read(f"/proc/{pid}/status").splitlines():
        if line.startswith(name + ":"):
            return line.split()[1:]
    return None


def nice_of(pid):
    return int(processes.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[16])


# Users.

@needs_root
@FRONTS
@pytest.mark.parametrize("pm", ["static", "ondemand"])
def test_user(lab, fronts, pm):
    nobody = pwd.getpwnam("nobody")
    server = lab.serve(POOL + f"user = nobody\npm = {pm}\nchdir = {lab.root}\n", fronts=fronts, user="www-data")
    found = inspect(server)
    uid, gid = str(nobody.pw_uid), str(nobody.pw_gid)
    assert found["uid"] == found["euid"] == [uid] and found["gid"] == [gid]
    assert set(found.get("group", [])) <= {gid}
    assert found["cwd"] == [lab.root]
    pid = server.running("inspect")[0]
    assert status_of(pid, "Uid") == [uid] * 4 and status_of(pid, "Gid") == [gid] * 4
    assert int(status_of(pid, "CapEff")[0], 16) == int(status_of(pid, "CapPrm")[0], 16) == 0
    for front in server.fronts():
        assert status_of(front, "Uid") == [str(pwd.getpwnam("www-data").pw_uid)] * 4


@needs_root
def test_groups(lab):
    """Those of the user, as the system has them."""
    name = next((one.pw_name for one in pwd.getpwall()
                 if one.pw_uid != 0 and len(os.getgrouplist(one.pw_name, one.pw_gid)) > 1), None)
    if name is None:
        pytest.skip("no user is in several groups")
    one = pwd.getpwnam(name)
    server = lab.serve(POOL + f"user = {name}\n")
    pid = wait_running(server, "inspect", 1)[0]
    assert sorted(map(int, status_of(pid, "Groups"))) == sorted(os.getgrouplist(name, one.pw_gid))


@needs_root
def test_user_changes(lab):
    """With a reload: other processes take the place of these."""
    server = lab.serve(POOL + "user = nobody\n")
    old = wait_running(server, "inspect", 1)
    expect_reloaded(lab, server, POOL + "user = www-data\n")
    wait_gone(old)
    assert inspect(server)["uid"] == [str(pwd.getpwnam("www-data").pw_uid)]


@needs_root
def test_program_that_the_user_may_not_run(lab):
    os.chmod(os.path.join(lab.cgi, "inspect"), 0o700)
    server = lab.serve(POOL + "user = nobody\n")
    wait_for(lambda: server.answers("/fcgi/", 503), "the refusal")
    assert server.logged("pool inspect", "cgi/inspect", "permission")
    os.chmod(os.path.join(lab.cgi, "inspect"), 0o755)
    wait_for(lambda: server.answers("/fcgi/"), "its recovery")


# Sockets.

@needs_root
@FRONTS
@pytest.mark.parametrize("user", ["www-data", "nobody"])
def test_sockets_are_private(lab, fronts, user):
    """Only the fronts' user gets to them, and it cannot put others in their place."""
    server = lab.serve(POOL + f"user = {'nobody' if user == 'www-data' else 'www-data'}\n", fronts=fronts, user=user)
    wait_running(server, "inspect", 1)
    assert inspect(server)["pid"]
    owner = pwd.getpwnam(user)
    paths = wait_for(lambda: processes.listening_unix_sockets(server.tree()), "sockets")
    for path in paths:
        about, of_dir = os.stat(path), os.stat(os.path.dirname(path))
        assert stat.S_IMODE(about.st_mode) == 0o600 and about.st_uid == owner.pw_uid
        assert stat.S_IMODE(of_dir.st_mode) in (0o700, 0o710)
        assert of_dir.st_uid == 0 and of_dir.st_gid == owner.pw_gid
    for name, may in ((user, True), ("nobody" if user == "www-data" else "www-data", False)):
        assert can_connect_as(name, next(iter(paths))) == may


def can_connect_as(name, path):
    """Asked in a process of that user."""
    one = pwd.getpwnam(name)
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            import socket  # pylint: disable=import-outside-toplevel
            os.setgroups([one.pw_gid])
            os.setresgid(one.pw_gid, one.pw_gid, one.pw_gid)
            os.setresuid(one.pw_uid, one.pw_uid, one.pw_uid)
            with socket.socket(socket.AF_UNIX) as it:
                it.connect(path)
            code = 0
        except PermissionError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1)
    return code == 0


def test_sockets_without_users(lab):
    """0600 in a directory of their own, 0700 or 0710."""
    server = lab.serve(POOL)
    wait_running(server, "inspect", 1)
    for path in wait_for(lambda: processes.listening_unix_sockets(server.tree()), "sockets"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) in (0o700, 0o710)


# Limits and priority.

def test_limits(lab):
    server = lab.serve(POOL + "rlimit_files = 77\nrlimit_core = 0\nrlimit_as = 512m\nrlimit_cpu = 100s\n"
                              "rlimit_nproc = 5000\n")
    wait_running(server, "inspect", 1)
    inspect(server)
    limits = processes.read(f"/proc/{server.running('inspect')[0]}/limits")
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert soft["Max open files"] == "77" and soft["Max core file size"] == "0"
    assert soft["Max address space"] == str(512 << 20)
    assert soft["Max cpu time"] == "100" and soft["Max processes"] == "5000"


@pytest.mark.parametrize("more", ["", pytest.param("user = nobody\n", marks=needs_root)])
def test_priority(lab, more):
    server = lab.serve(POOL + "process.priority = 5\n" + more)
    pid = wait_running(server, "inspect", 1)[0]
    assert nice_of(pid) == 5
    assert all(nice_of(other) == nice_of(os.getpid()) for other in [server.pid, *server.fronts()])
    expect_reloaded(lab, server, POOL + "process.priority = 7\n" + more)
    wait_gone([pid])
    assert [nice_of(one) for one in wait_running(server, "inspect", 1)] == [7]


@needs_root
def test_priority_above(lab):
    """What needs root is done before the user is another."""
    server = lab.serve(POOL + "process.priority = -3\nuser = nobody\n")
    try:
        assert nice_of(wait_running(server, "inspect", 1)[0]) == -3
    except AssertionError:
        if server.logged("priority"):
            pytest.skip("no right to a higher priority here")
        raise


# Environment.

OUTER = {"SECRET": "1", "LD_LIBRARY_PATH": "/nowhere", "PASSED": "yes", "HOME": "/root"}


def test_clear_env(lab):
    server = lab.serve(POOL + "env[OWN] = own value\nenv[EMPTY] =\npass_env = PASSED ABSENT\n", env=OUTER)
    found = own(inspect(server))
    assert found["OWN"] == "own value" and found["EMPTY"] == "" and found["PASSED"] == "yes" and "PATH" in found
    assert not {"SECRET", "LD_LIBRARY_PATH", "HOME", "ABSENT", "TMPDIR"} & set(found)


def test_whole_env(lab):
    server = lab.serve(POOL + "clear_env = off\nenv[SECRET] = 2\n", env=OUTER)
    found = own(inspect(server))
    assert found["SECRET"] == "2" and found["PASSED"] == "yes" and found["HOME"] == "/root"


def test_clear_env_changes(lab):
    server = lab.serve(POOL + "clear_env = off\n", env=OUTER)
    assert own(inspect(server))["SECRET"] == "1"
    old = server.running("inspect")
    expect_reloaded(lab, server, POOL)
    wait_gone(old)
    assert "SECRET" not in own(inspect(server))


def test_settings_survive_recycling(lab):
    """Each process is started alike."""
    server = lab.serve(POOL + f"pm.max_requests = 1\nchdir = {lab.root}\nenv[OWN] = x\nrlimit_files = 77\n", env=OUTER)
    pids = set()
    for _ in range(5):
        found = inspect(server)
        pids.add(found["pid"][0])
        assert found["cwd"] == [lab.root] and own(found)["OWN"] == "x" and "files 77" in found["limit"]
        assert sorted(line.split()[0] for line in found["fd"]) == ["0", "1", "2"], found["fd"]
    assert len(pids) == 5
