"""A lab: a folder of its own with sites, scripts and a configuration, and the servers that a test runs in it."""

import glob
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import threading
import time

import processes
from client import Client, Closed
from processes import wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(os.path.dirname(HERE), "apps")
TOP = os.path.dirname(os.path.dirname(HERE))
BINARY = os.path.abspath(os.environ.get("GATEHOUSE", os.path.join(TOP, "build", "gatehouse")))

LISTENING = re.compile(r"listening on http://(\S+):(\d+)")
COMPLAINT = re.compile(r"Sanitizer|runtime error:|\bleak", re.IGNORECASE)


def is_sanitized():
    with open(BINARY, "rb") as file:
        return b"__asan_init" in file.read()


class Server:
    """One running server. Its standard error, which is its error log too, is read by a thread from the start on."""

    def __init__(self, lab, config_path, env=None, arguments=()):
        self.lab = lab
        self.config_path = config_path
        self.lines = []
        self.news = threading.Condition()  # its lock is one that a thread may take twice
        self.is_over = False
        own = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TMPDIR": lab.tmp, "XDG_RUNTIME_DIR": lab.tmp,
               "ASAN_OPTIONS": "detect_leaks=1:" + os.environ.get("ASAN_OPTIONS", ""),
               "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
        own.update(env or {})
        self.process = subprocess.Popen([BINARY, "serve", "-c", config_path, *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=own, cwd=lab.path)
        self.pid = self.process.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.is_over = True
            self.news.notify_all()

    # Its error log.

    def log(self):
        with self.news:
            return list(self.lines)

    def tail(self):
        return "\n".join(self.log()[-50:])

    def logged(self, *words):
        """The lines that hold all of these words."""
        return [line for line in self.log() if all(word in line for word in words)]

    def wait_log(self, *words, patience=processes.PATIENCE):
        """The first line that holds all of these words."""
        deadline = time.monotonic() + patience
        with self.news:
            while True:
                for line in self.lines:
                    if all(word in line for word in words):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or self.is_over:
                    raise AssertionError(f"no line with {words} in the error log:\n" + self.tail())
                self.news.wait(left)

    def wait_listening(self, n=1):
        deadline = time.monotonic() + processes.PATIENCE
        with self.news:
            while True:
                found = [match for line in self.lines if (match := LISTENING.search(line))]
                if len(found) >= n:
                    self.ports = [int(match[2]) for match in found]
                    self.port = self.ports[0]
                    return self
                left = deadline - time.monotonic()
                if left <= 0 or self.is_over:
                    raise AssertionError("the server does not listen:\n" + self.tail())
                self.news.wait(left)

    # Its access log.

    def records(self):
        """What is in the JSON access log, as far as lines are whole."""
        try:
            with open(self.lab.access_log, encoding="utf-8") as file:
                whole = file.read().rpartition("\n")[0]
        except FileNotFoundError:
            whole = ""
        return [json.loads(line) for line in whole.splitlines()]

    def record(self, response):
        """The access log's record of the request that was answered with this."""
        def find():
            return [record for record in self.records() if record["id"] == response.id]

        return wait_for(find, f"request {response.id} in the access log")[0]

    # Requests.

    def connect(self, **more):
        return Client(self.port, **more)

    def request(self, method, target, body=None, **more):
        with self.connect() as client:
            return client.request(method, target, body, **more)

    def get(self, target, **more):
        return self.request("GET", target, **more)

    def answers(self, target, status=200):
        """Does it answer so, if at all? For waiting until it does."""
        try:
            return self.get(target).status == status
        except (OSError, Closed):
            return False

    # Its processes.

    def tree(self):
        return processes.descendants(self.pid)

    def fronts(self):
        """The children that run the server's own program, but for the one that only watches. By their names: what else
        tells is closed to all but root."""
        names = (processes.comm(self.pid), "gatehouse-front")
        return sorted(pid for pid in self.tree() if processes.comm(pid) in names)

    def running(self, name):
        """Those of its processes whose program or script is called so."""
        return sorted(pid for pid in self.tree()
                      if any(os.path.basename(word) == name for word in processes.command(pid).split())
                      and processes.is_alive(pid))

    # The end.

    def kill(self):
        """Without any warning."""
        self.sockets = self.socket_directories()
        self.process.kill()
        self.process.wait(processes.PATIENCE)

    def socket_directories(self):
        return {os.path.dirname(path) for path in processes.listening_unix_sockets(self.tree())}

    def stop(self, number=signal.SIGTERM):
        """Asks it to end, and expects that it does, in good order."""
        if self.process.poll() is None:
            self.sockets = self.socket_directories()
            self.process.send_signal(number)
        self.expect_end(0)

    def expect_end(self, *codes):
        """It ends by itself, with one of these codes, and leaves nothing behind."""
        try:
            code = self.process.wait(processes.PATIENCE)
        except subprocess.TimeoutExpired:
            tree = [(pid, processes.command(pid)) for pid in self.tree()]
            self._destroy()
            raise AssertionError(f"it does not end; {tree}; error log:\n" + self.tail()) from None
        assert code in codes, f"exit code {code}, error log:\n{self.tail()}"
        self.expect_nothing_left()

    def expect_nothing_left(self):
        self.lab.expect_no_process()
        self.reader.join(processes.PATIENCE)
        assert not self.reader.is_alive(), "somebody still holds the server's standard error"
        directories = getattr(self, "sockets", set()) | set(glob.glob(f"/tmp/*gatehouse*{self.pid}*")) | \
            set(glob.glob(f"/run/*gatehouse*{self.pid}*"))
        processes.wait_for(lambda: not [path for path in directories if os.path.exists(path)],
                           lambda: f"the end of {directories}")
        assert not os.listdir(self.lab.tmp), f"left in the directory for temporary files: {os.listdir(self.lab.tmp)}"
        complaints = [line for line in self.log() if COMPLAINT.search(line)]
        assert not complaints, self.tail()
        self.is_ended = True

    def _destroy(self):
        processes.kill_all([self.pid] + self.tree())
        self.process.wait()


class Lab:
    open = []  # a file's lab and a test's may be there at the same time

    def __init__(self, apps):
        Lab.open.append(self)
        self.path = tempfile.mkdtemp(prefix="gh-")
        os.chmod(self.path, 0o755)
        self.apps = apps
        self.servers = []
        self.helpers = []
        self.n_configs = 0
        self.access_log = os.path.join(self.path, "access.log")
        self.root, self.cgi, self.tmp = (os.path.join(self.path, name) for name in ("root", "cgi", "tmp"))
        os.mkdir(self.root)
        os.mkdir(self.tmp)
        shutil.copytree(os.path.join(APPS, "cgi"), self.cgi)
        for name in os.listdir(self.cgi):
            os.chmod(os.path.join(self.cgi, name), 0o755)
        for name in ("count", "inspect"):
            shutil.copy(os.path.join(apps, name), os.path.join(self.cgi, name))

    # Files.

    def file(self, name, content=b"", mode=0o644):
        """Writes a file below the lab and returns its path."""
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(path, mode)
        return path

    def script(self, name, text):
        """A CGI script."""
        return self.file(os.path.join("cgi", name), textwrap.dedent(text).lstrip(), 0o755)

    def here(self, name):
        return os.path.join(self.path, name)

    def wait_file(self, name):
        """What is in the file, once it is there and not empty."""
        return wait_for(lambda: processes.read(self.here(name)), f"file {name}")

    # Servers.

    def config(self, text, **server):
        """Writes a configuration: [server] from the arguments, {root} and so on replaced in the text."""
        keys = {"listen": "127.0.0.1:0", "fronts": 1, "access_log": self.access_log, "access_format": "json",
                "error_log": "-", "drain_timeout": "10s"}
        if os.geteuid() == 0:
            keys["user"] = pwd.getpwuid(0).pw_name
        keys.update(server)
        lines = ["[server]"] + [f"{key} = {value}" for key, value in keys.items() if value is not None]
        text = "\n".join(line.strip() for line in text.splitlines()) + "\n"
        for name in ("root", "cgi", "apps", "path", "tmp"):
            text = text.replace("{" + name + "}", getattr(self, name))
        self.n_configs += 1
        return self.file(f"gatehouse-{self.n_configs}.conf", "\n".join(lines) + "\n\n" + text)

    def serve(self, text, env=None, arguments=(), **server):
        """Starts a server, and returns when it listens. Its end is seen to."""
        started = Server(self, self.config(text, **server), env, arguments)
        self.servers.append(started)
        return started.wait_listening()

    def refused(self, text, **server):
        """Starts a server that must not start: its exit code and what it wrote."""
        done = subprocess.run([BINARY, "serve", "-c", self.config(text, **server)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=processes.PATIENCE,
                              cwd=self.path, check=False, env=dict(os.environ, TMPDIR=self.tmp))
        self.expect_no_process()
        return done.returncode, done.stderr.decode("utf-8", "backslashreplace")

    def helper(self, arguments, **more):
        """Runs a program beside the server until the test ends."""
        process = subprocess.Popen(arguments, start_new_session=True, **more)
        self.helpers.append(process)
        return process

    # The end.

    @staticmethod
    def orphans():
        """Processes that no helper and no running server accounts for."""
        known = [helper.pid for lab in Lab.open for helper in lab.helpers]
        known += [server.pid for lab in Lab.open for server in lab.servers if server.process.poll() is None]
        return processes.orphans(known)

    def expect_no_process(self):
        wait_for(lambda: not self.orphans(),
                 lambda: "the end of " + str([(pid, processes.command(pid)) for pid in self.orphans()]))

    def close(self):
        try:
            for server in self.servers:
                if not getattr(server, "is_ended", False):
                    server.stop()
        finally:
            for helper in self.helpers:
                processes.kill_all([helper.pid] + processes.descendants(helper.pid))
                helper.wait()
            for server in self.servers:
                if server.process.poll() is None:
                    server._destroy()
            processes.kill_all(self.orphans())
            Lab.open.remove(self)
            shutil.rmtree(self.path, ignore_errors=True)


def build_apps(into):
    """Compiles the test programs."""
    for name, libraries in (("count", ["-lfcgi"]), ("inspect", ["-lfcgi"]), ("roles", [])):
        subprocess.run(["cc", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", os.path.join(APPS, name + ".c"), *libraries,
                        "-o", os.path.join(into, name)], check=True)
