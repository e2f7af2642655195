"""Looking at processes: who descends from whom, what they hold, what they weigh. Linux's /proc."""

import ctypes
import os
import re
import signal
import time

PATIENCE = 20.0

PR_SET_CHILD_SUBREAPER = 36


def wait_for(condition, what, patience=PATIENCE):
    """The first true value of condition(), looked at until the deadline."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain for: {what() if callable(what) else what}")
        time.sleep(0.01)


def is_listening(path):
    """Does somebody listen on this unix socket? Nobody does yet, when its file has just appeared. See proc_net(5)."""
    if not os.path.exists(path):
        return False
    lines = [line.split() for line in read("/proc/net/unix").splitlines()[1:]]
    unconnected = [line[3] for line in lines if line[7:] == [path] and line[5] == "01"]
    return unconnected != [] and set(unconnected) == {"00010000"}


def adopt_orphans():
    """Makes every orphan among our descendants our child, so that none can hide."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return ""


def all_processes():
    """{pid: (parent, state)}"""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read(f"/proc/{name}/stat")):
            state, parent = stat[stat.rindex(")") + 2:].split()[:2]
            found[int(name)] = (int(parent), state)
    return found


def descendants(root, everyone=None):
    """Pids of all that come from root, zombies among them; not root itself."""
    everyone = everyone or all_processes()
    children = {}
    for pid, (parent, _) in everyone.items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def is_alive(pid):
    """There, and no zombie."""
    stat = read(f"/proc/{pid}/stat")
    return bool(stat) and stat[stat.rindex(")") + 2] not in "ZX"


def is_zombie(pid):
    stat = read(f"/proc/{pid}/stat")
    return bool(stat) and stat[stat.rindex(")") + 2] == "Z"


def comm(pid):
    return read(f"/proc/{pid}/comm").strip()


def exe(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def command(pid):
    return read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def descriptors(pid):
    """{number: what it is}"""
    found = {}
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            pass
    return found


def socket_inodes(pids):
    inodes = set()
    for pid in pids:
        for target in descriptors(pid).values():
            if match := re.fullmatch(r"socket:\[(\d+)\]", target):
                inodes.add(match[1])
    return inodes


def listening_unix_sockets(pids):
    """Paths of unix sockets that these processes listen on."""
    inodes, paths = socket_inodes(pids), set()
    for line in read("/proc/net/unix").splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and words[6] in inodes and words[3] == "00010000":
            paths.add(words[7])
    return paths


def tcp_connections(pids):
    """How many TCP sockets that do not listen these processes hold."""
    inodes = socket_inodes(pids)
    lines = read("/proc/net/tcp").splitlines()[1:] + read("/proc/net/tcp6").splitlines()[1:]
    return sum(words[3] != "0A" and words[9] in inodes for words in map(str.split, lines))


def pss_kib(pid):
    match = re.search(r"^Pss:\s+(\d+) kB", read(f"/proc/{pid}/smaps_rollup"), re.M)
    return int(match[1]) if match else 0


def orphans(known):
    """Processes that descend from us but from none of `known`; dead ones are collected."""
    everyone = all_processes()
    ours = set(descendants(os.getpid(), everyone))
    for pid in known:
        ours.discard(pid)
        ours.difference_update(descendants(pid, everyone))
    left = []
    for pid in ours:
        if is_zombie(pid) and everyone[pid][0] == os.getpid():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        elif is_alive(pid):
            left.append(pid)
    return left


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
