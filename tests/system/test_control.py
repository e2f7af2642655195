"""What programs may have and do: privileges, limits, groups, control groups."""

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
import subprocess

import pytest

import processes
import server as server_module
from processes import is_alive, wait_for
from test_processes import fields_of, needs_root

SITE = "[site *]\nroot = {root}\n"
CGI = "[route /cgi-bin/*]\ngateway = cgi\ndir = {cgi}\ntimeout = 60s\nidle_timeout = 60s\n"
FCGI = "[route /fcgi/*]\ngateway = fastcgi\npool = p\n[pool p]\npm = static\npm.max_children = 1\n"
INSPECT = FCGI + "command = {cgi}/inspect\n"
BOTH = ["cgi", "fastcgi"]


def serve(lab, kind, keys="", **more):
    """A server of the one program that shows what it was started with; the keys are its route's, or its pool's."""
    return lab.serve(SITE + (CGI + keys if kind == "cgi" else INSPECT + keys), **more)


def inspect(server, kind):
    response = server.get("/cgi-bin/inspect" if kind == "cgi" else "/fcgi/")
    assert response.status == 200, response
    return fields_of(response.text)


def status_of(found):
    return dict(line.split(":\t") for line in found["status"] if ":\t" in line)


# Privileges.

@pytest.mark.parametrize("kind, keys, value", [
    ("cgi", "", "1"), ("cgi", "no_new_privs = on", "1"), ("cgi", "no_new_privs = off", "0"),
    ("fastcgi", "", "0"), ("fastcgi", "no_new_privs = on", "1"), ("fastcgi", "no_new_privs = off", "0")])
def test_no_new_privileges(lab, kind, keys, value):
    server = serve(lab, kind, keys)
    assert status_of(inspect(server, kind))["NoNewPrivs"] == value


@needs_root
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("switch", ["on", "off"])
def test_set_user_id(lab, kind, switch):
    """It has its effect only without no_new_privs, which is then said, once."""
    if os.statvfs(lab.cgi).f_flag & os.ST_NOSUID:
        pytest.skip(f"the file system of {lab.cgi} is mounted nosuid")
    path = os.path.join(lab.cgi, "inspect")
    os.chmod(path, 0o755 | stat.S_ISUID)
    server = serve(lab, kind, f"no_new_privs = {switch}\n", user="www-data")
    for _ in range(3):
        assert inspect(server, kind)["euid"] == ["33" if switch == "on" else "0"]
    said = server.logged(path, "set-user-ID", "no_new_privs = off")
    assert len(said) == (1 if switch == "on" else 0), server.log()


@contextlib.contextmanager
def behind(lab, command):
    """Servers are started by a shell that first does this, and then becomes the server."""
    binary = server_module.BINARY
    wrapper = lab.file("wrapper.sh", f"#!/bin/sh\n{command}\n", 0o755)
    server_module.BINARY = wrapper
    try:
        yield
    finally:
        server_module.BINARY = binary


@needs_root
@pytest.mark.parametrize("kind", BOTH)
def test_supplementary_groups(lab, kind):
    """A user comes with all groups that the user is in, as initgroups(3) has it, and so do the fronts."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("there are no private mounts here, in which /etc/group could be another")
    names = [pwd.getpwuid(uid).pw_name for uid in (33, 65534)]
    lines = "".join(f"{group.gr_name}:x:{group.gr_gid}:\n" for group in grp.getgrall())
    lines += f"gh-one:x:70001:{names[0]}\ngh-two:x:70002:{names[0]},{names[1]}\ngh-other:x:70003:root\n"
    path = lab.file("group", lines)
    inner = f"mount --bind {shlex.quote(path)} /etc/group && exec {shlex.quote(server_module.BINARY)} \"$@\""
    with behind(lab, f"exec unshare -m sh -c {shlex.quote(inner)} sh \"$@\""):
        server = serve(lab, kind, f"user = {names[1]}", user=names[0])
    found = inspect(server, kind)
    assert found["uid"] == ["65534"] and sorted(found["group"]) == ["65534", "70002"]
    for front in server.fronts():
        status = processes.read(f"/proc/{front}/status")
        assert set(re.search(r"^Groups:\t([\d ]*)", status, re.M)[1].split()) == {"33", "70001", "70002"}


# Resource limits.

LIMITS = "rlimit_as = 1g\nrlimit_cpu = 77s\nrlimit_nproc = 5000\nrlimit_files = 63\nrlimit_core = 0\n"


@pytest.mark.parametrize("kind", BOTH)
def test_resource_limits(lab, kind):
    found = inspect(serve(lab, kind, LIMITS), kind)
    assert found["limit"] == ["as 1073741824", "cpu 77", "nproc 5000", "files 63", "core 0"]


@pytest.mark.parametrize("kind", BOTH)
def test_no_core_files_unless_asked_for(lab, kind):
    with behind(lab, f"ulimit -S -c $(ulimit -H -c)\nexec {shlex.quote(server_module.BINARY)} \"$@\""):
        server = serve(lab, kind)
    assert "core 0" in inspect(server, kind)["limit"]


SPIN = """
    #!/bin/sh
    while :; do :; done
    """


def test_processor_time_of_a_script(lab):
    lab.script("spin.sh", SPIN)
    server = lab.serve(SITE + CGI + "rlimit_cpu = 1s\n")
    response = server.get("/cgi-bin/spin.sh")
    assert response.status == 502
    server.wait_log(response.id, "spin.sh", "(SIGXCPU)", "it has used up rlimit_cpu = 1s")
    assert server.record(response)["signal"] == "SIGXCPU"


def test_processor_time_of_a_process(lab):
    command = lab.script("spin.sh", SPIN)
    server = lab.serve(SITE + FCGI + f"command = {command}\nrlimit_cpu = 1s\n")
    server.wait_log("pool p", "(SIGXCPU)", "it has used up rlimit_cpu = 1s")


def test_address_space(lab):
    server = lab.serve(SITE + CGI + "rlimit_as = 1m\n")
    assert server.get("/cgi-bin/hello.sh").status == 502
    server.wait_log("rlimit_as = 1048576", "too little")


def test_descriptors(lab):
    lab.script("files.py", """
        #!/usr/bin/python3
        import os
        print("Content-Type: text/plain\\n")
        try:
            while True:
                print(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            print(error)
        """)
    server = lab.serve(SITE + CGI + "rlimit_files = 40\n")
    lines = server.get("/cgi-bin/files.py").text.splitlines()
    assert lines[-2] == "39" and "Too many open files" in lines[-1]


def test_limit_above_the_servers_own(lab):
    with behind(lab, f"ulimit -n 512\nexec {shlex.quote(server_module.BINARY)} \"$@\""):
        server = lab.serve(SITE + CGI + "rlimit_files = 1000000\n")
    if os.geteuid() == 0 and int(status_of({"status": processes.read("/proc/self/status").splitlines()})["CapEff"],
                                 16) >> 24 & 1:
        pytest.skip("who has CAP_SYS_RESOURCE may raise any limit")
    assert server.get("/cgi-bin/hello.sh").status == 502
    server.wait_log("hello.sh", "rlimit_files = 1000000 is more than the server's own limit of 512", "LimitNOFILE=")


@needs_root
def test_too_many_processes_of_a_user(lab):
    """The limit counts all of the user's processes, and only those of that user."""
    one = next(entry for entry in pwd.getpwall() if 0 < entry.pw_uid < 1000 and entry.pw_uid not in (33, 65534)
               and not any(os.stat(f"/proc/{pid}").st_uid == entry.pw_uid for pid in live_pids()))
    lab.script("hold.sh", """
        #!/bin/sh
        echo $$ >$QUERY_STRING
        exec sleep 1000
        """)
    os.chmod(lab.path, 0o777)
    server = lab.serve(SITE + CGI + f"rlimit_nproc = 1\nuser = {one.pw_name}\n", user="www-data")
    assert server.get("/cgi-bin/inspect").status == 200
    clients = [server.connect(), server.connect()]
    for i, client in enumerate(clients):  # the kernel lets one more exec than the limit says
        client.send_request("GET", f"/cgi-bin/hold.sh?{lab.here(f'held-{i}')}")
        lab.wait_file(f"held-{i}")
    response = server.get("/cgi-bin/inspect")
    assert response.status == 503 and response.get("retry-after")
    server.wait_log("inspect", f"user {one.pw_name} has more processes than rlimit_nproc = 1")
    for client in clients:
        client.close()


def live_pids():
    return [pid for pid in processes.all_processes() if os.path.exists(f"/proc/{pid}")]


# Control groups.

def cgroup_root():
    """Where cgroup v2 is mounted, with all that is needed; or the reason why not."""
    if os.geteuid() != 0:
        return None, "only root can make control groups without being given one"
    for line in processes.read("/proc/self/mountinfo").splitlines():
        if " - cgroup2 " in line:
            root = line.split()[4]
            missing = {"memory", "pids", "cpu"} - set(processes.read(f"{root}/cgroup.controllers").split())
            if missing:
                return None, f"cgroup v2 does not have {', '.join(sorted(missing))} on this machine"
            return root, None
    return None, "cgroup v2 is not mounted"


@pytest.fixture
def group(lab):
    """A control group of its own, in which servers are started; gone without a trace after the test."""
    root, reason = cgroup_root()
    if root is None:
        pytest.skip(reason)
    path = os.path.join(root, f"gatehouse-test-{os.getpid()}")
    os.mkdir(path)
    try:
        for name in ("memory", "pids", "cpu"):
            write(f"{root}/cgroup.subtree_control", f"+{name}")
        binary = shlex.quote(server_module.BINARY)
        with behind(lab, f"echo $$ >{path}/cgroup.procs\nexec {binary} \"$@\""):
            yield path
        for server in lab.servers:
            if not getattr(server, "is_ended", False):
                server.stop()
        assert [name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name))] == []
        assert not processes.read(f"{path}/cgroup.subtree_control").strip(), "a controller is left enabled"
    finally:
        write(f"{path}/cgroup.kill", "1")
        for below, _, _ in os.walk(path, topdown=False):
            wait_for(lambda it=below: "populated 0" in processes.read(f"{it}/cgroup.events"), f"{below} to be empty")
            os.rmdir(below)


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def group_of(pid):
    return re.search(r"^0::(.*)$", processes.read(f"/proc/{pid}/cgroup"), re.M)[1]


CGROUP = CGI + "cgroup_memory = 64m\ncgroup_pids = 20\ncgroup_cpu = 50\n"


def start_held(lab, server, target="/cgi-bin/held.sh"):
    """A script that waits, with a child in a session of its own, which no signal to the script's group reaches."""
    lab.script("held.sh", f"""
        #!/bin/sh
        setsid sleep 1000 >/dev/null 2>&1 </dev/null &
        echo $$ $! >{lab.here("held")}
        exec sleep 1000
        """)
    client = server.connect()
    client.send_request("GET", target)
    return client, [int(word) for word in lab.wait_file("held").split()]


def test_groups(lab, group):
    """Each route that asks has one, with its limits; server and other programs are elsewhere."""
    server = lab.serve(SITE + "[route /free/*]\ngateway = cgi\ndir = {cgi}\n" + CGROUP)
    top = os.path.join(group, f"gatehouse-{server.pid}")
    below = os.path.join(top, "route-1")
    assert sorted(os.listdir(top + "/")) and os.path.isdir(below) and not os.path.isdir(f"{top}/route-0")
    assert processes.read(f"{below}/memory.max").strip() == str(64 << 20)
    assert processes.read(f"{below}/pids.max").strip() == "20"
    assert processes.read(f"{below}/cpu.max").split() == ["50000", "100000"]
    if os.path.exists(f"{below}/memory.swap.max"):
        assert processes.read(f"{below}/memory.swap.max").strip() == "0"
    client, pids = start_held(lab, server)
    assert all(group_of(pid).endswith(f"gatehouse-{server.pid}/route-1") for pid in pids)
    for pid in [server.pid] + server.fronts():
        assert group_of(pid).endswith(f"gatehouse-{server.pid}/server")
    client.close()
    lab.script("where.sh", "#!/bin/sh\necho 'Content-Type: text/plain\n'\ncat /proc/self/cgroup\n")
    assert b"/server" in server.get("/free/where.sh").body
    assert b"/route-1" in server.get("/cgi-bin/where.sh").body
    server.stop()
    assert not any(is_alive(pid) for pid in pids) and not os.path.exists(top)


def test_memory_of_a_group(lab, group):
    """Its want is the end of the one that wants it, and is said in that run's line; others are not blamed."""
    lab.script("bloat.py", """
        #!/usr/bin/python3
        import sys
        held = bytearray(200 << 20)
        sys.stdout.write("Content-Type: text/plain\\n\\nheld")
        """)
    lab.script("shell.sh", f"#!/bin/sh\n{lab.cgi}/bloat.py\nexit $?\n")
    lab.script("suicide.sh", "#!/bin/sh\nkill -KILL $$\n")
    server = lab.serve(SITE + CGI + "cgroup_memory = 64m\n")
    response = server.get("/cgi-bin/bloat.py")
    assert response.status == 502
    server.wait_log(response.id, "bloat.py", "(SIGKILL)", "used up cgroup_memory = 67108864")
    assert server.get("/cgi-bin/shell.sh").status == 502
    server.wait_log("route /cgi-bin/*", "exited with status 137", "used up cgroup_memory")
    response = server.get("/cgi-bin/suicide.sh")
    server.wait_log(response.id, "(SIGKILL)")
    assert not server.logged(response.id, "cgroup_memory")
    assert server.get("/cgi-bin/hello.sh").status == 200


def test_processes_of_a_group(lab, group):
    lab.script("many.sh", """
        #!/bin/sh
        echo "Content-Type: text/plain"
        echo
        for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 >/dev/null 2>&1 & done
        echo whole
        """)
    server = lab.serve(SITE + CGI + "cgroup_pids = 8\n")
    response = server.get("/cgi-bin/many.sh")
    assert b"whole" not in response.body
    server.wait_log(response.id, "ork")  # "Cannot fork"
    below = os.path.join(group, f"gatehouse-{server.pid}", "route-0")
    assert re.search(r"^max [1-9]", processes.read(f"{below}/pids.events"), re.M)


def test_time_of_a_group(lab, group):
    """A program that spins is held back: the kernel counts how often."""
    lab.script("spin.sh", SPIN)
    server = lab.serve(SITE + CGI + "cgroup_cpu = 50\nrlimit_cpu = 1s\n")
    assert server.get("/cgi-bin/spin.sh").status == 502
    below = os.path.join(group, f"gatehouse-{server.pid}", "route-0")
    assert int(re.search(r"^nr_throttled (\d+)", processes.read(f"{below}/cpu.stat"), re.M)[1]) > 0


def test_groups_after_kill_of_the_keeper(lab, group):
    """What escaped the process groups is ended too, and no directory is left."""
    server = lab.serve(SITE + CGROUP)
    client, pids = start_held(lab, server)
    everyone = server.tree()
    server.kill()
    wait_for(lambda: not any(is_alive(pid) for pid in everyone + pids), f"the end of {everyone} and {pids}")
    wait_for(lambda: not os.path.exists(os.path.join(group, f"gatehouse-{server.pid}")), "the removal of its groups")
    server.expect_nothing_left()
    client.close()


def test_group_with_others_in_it(lab, group):
    other = lab.helper(["sleep", "1000"])
    write(f"{group}/cgroup.procs", str(other.pid))
    code, error = lab.refused(SITE + CGROUP)
    assert code == 2, error
    assert f"process {other.pid} is in the server's control group" in error and "Delegate=yes" in error
    assert "listening" not in error


@contextlib.contextmanager
def as_user(lab, uid):
    """Servers are started by that user, in the group of the test."""
    with open(server_module.BINARY, encoding="ascii") as file:
        command = file.read().split("\n", 1)[1]
    os.chmod(lab.path, 0o777)
    os.chmod(lab.tmp, 0o777)
    with behind(lab, command.replace("exec ", f"exec setpriv --reuid {uid} --regid {uid} --clear-groups ").rstrip()):
        yield


def test_group_of_somebody_else(lab, group):
    """Only who may write to the group can divide it."""
    with as_user(lab, 33):
        code, error = lab.refused(SITE + CGROUP, user=None, access_log="off")
    assert code == 2, error
    assert "is not this server's to divide: Permission denied" in error and "Delegate=yes" in error


def test_group_that_was_delegated(lab, group):
    """... and this is what delegation is: the user owns the group."""
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(os.path.join(group, name), 33, 33)
    with as_user(lab, 33):
        server = lab.serve(SITE + CGROUP, user=None, access_log="off")
    client, pids = start_held(lab, server)
    assert all(group_of(pid).endswith(f"gatehouse-{server.pid}/route-0") for pid in pids)
    client.close()
    server.stop()
    assert not any(is_alive(pid) for pid in pids)


def test_no_groups_to_be_had(lab):
    """Where they cannot be had, a server that is to have them does not start."""
    root, reason = cgroup_root()
    if root is not None:
        pytest.skip("there is all that is needed: see test_group_with_others_in_it")
    code, error = lab.refused(SITE + CGROUP)
    assert code == 2, (error, reason)
    lines = [line for line in error.splitlines() if re.search(r"cgroup_memory|control group", line)]
    assert len(lines) == 1 and "; " in lines[0], error
    assert "listening" not in error and not os.listdir(lab.tmp)


@needs_root
def test_no_cgroup_file_system(lab):
    """... and says so, where not even the file system is there."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("there are no private mounts here, in which it could be unmounted")
    mounts = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d ' ' -f 5"
    inner = f"umount -l $({mounts}); exec {shlex.quote(server_module.BINARY)} \"$@\""
    with behind(lab, f"exec unshare -m sh -c {shlex.quote(inner)} sh \"$@\""):
        code, error = lab.refused(SITE + CGROUP)
    assert code == 2 and "no cgroup2 file system is mounted" in error, error
