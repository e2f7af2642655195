"""The servers that churn.py compares: how each is configured, given another configuration, upgraded and ended.

All have the same two settings by turns: 8 processes with 50 requests each, and 12 with 80. Every second time the
environment of the processes is another too, so that they have to be replaced.
"""
import os
import shutil
import signal
import socket
import subprocess

import processes
from churn_load import programs_below
from processes import wait_for


def settings(i):
    """Of the i-th configuration."""
    children, requests = ((8, 50), (12, 80))[i % 2]
    return {"children": children, "requests": requests, "start": children // 2, "spare": children * 3 // 4,
            "generation": i // 2}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_gone(pid):
    """Dead; if it is our child, it is collected."""
    if processes.is_zombie(pid):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        return True
    return not processes.is_alive(pid)


class Peer:
    """A server that is not ours. `path`: a folder of its own with www/."""
    program = "php-cgi"  # how its programs are called
    can_upgrade = False
    pid_of = None

    def __init__(self, path):
        self.path = path
        self.port = free_port()
        self.n_reloads = 0
        self.children = []
        self.configure(settings(0))
        self.start()
        wait_for(self._listens, "a server that listens")

    def _listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def write(self, name, text):
        """Whoever reads it meanwhile sees the file of before or that of now."""
        path = f"{self.path}/{name}"
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(text)
        os.rename(path + ".new", path)
        return path

    def run(self, *command):
        with open(f"{self.path}/output", "ab") as output:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.children.append(child)
        return child.pid

    def pid_in(self, name):
        text = processes.read(f"{self.path}/{name}").strip()
        return int(text) if text else None

    def roots(self):
        return [child.pid for child in self.children]

    def programs(self):
        return programs_below(self.roots(), self.program)

    def reload(self):
        self.n_reloads += 1
        self.configure(settings(self.n_reloads))
        self.signal_reload()

    def stop(self):
        roots = self.roots()
        for pid in roots:
            if processes.is_alive(pid):
                os.kill(pid, signal.SIGTERM)
        try:
            wait_for(lambda: all([is_gone(pid) for pid in roots]), "the end of the server")
        finally:
            wait_for(self._is_swept, "the end of what the server has left")

    @staticmethod
    def _is_swept():
        left = processes.orphans([])
        processes.kill_all(left)
        return not left

    def configure(self, s):
        raise NotImplementedError

    def start(self):
        raise NotImplementedError

    def signal_reload(self):
        raise NotImplementedError


class PhpFpm(Peer):
    """nginx and php-fpm. A reload is a reload of both."""
    program = "php-fpm"
    can_upgrade = True
    binary = next((name for name in ("php-fpm8.2", "php-fpm8.4", "php-fpm") if shutil.which(name)), "php-fpm")
    grace = "process_control_timeout = 10s"

    def configure(self, s):
        self.write("fpm.conf", f"""
[global]
daemonize = no
pid = {self.path}/fpm.pid
error_log = {self.path}/fpm.err
{self.grace}
[www]
listen = {self.path}/fpm.sock
listen.mode = 0666
listen.backlog = 1024
user = root
group = root
pm = dynamic
pm.max_children = {s["children"]}
pm.start_servers = {s["start"]}
pm.min_spare_servers = 2
pm.max_spare_servers = {s["spare"]}
pm.max_requests = {s["requests"]}
env[GENERATION] = {s["generation"]}
""")
        self.write("nginx.conf", f"""
user root; worker_processes 2; pid {self.path}/nginx.pid; error_log {self.path}/nginx.err warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 10000; client_body_temp_path {self.path}/n0; fastcgi_temp_path {self.path}/n1;
  proxy_temp_path {self.path}/n2; uwsgi_temp_path {self.path}/n3; scgi_temp_path {self.path}/n4;
  server {{
    listen 127.0.0.1:{self.port} backlog=1024; root {self.path}/www;
    location ~ \\.php$ {{
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_param GENERATION {s["generation"]};
      fastcgi_pass unix:{self.path}/fpm.sock;
    }}
  }}
}}""")

    def start(self):
        self.fpm = self.run(self.binary, "-F", "-R", "-y", f"{self.path}/fpm.conf")
        wait_for(lambda: os.path.exists(f"{self.path}/fpm.sock"), "php-fpm's socket")
        # It must be a daemon, and have been called by its path: otherwise USR2 is for nothing.
        subprocess.run([shutil.which("nginx"), "-p", self.path, "-e", f"{self.path}/nginx.err",
                        "-c", f"{self.path}/nginx.conf"], check=True)
        wait_for(self.nginx, "nginx's pid")

    def nginx(self):
        return self.pid_in("nginx.pid")

    def roots(self):
        return [pid for pid in (self.fpm, self.nginx()) if pid is not None]

    def programs(self):
        return programs_below([self.fpm], self.program)

    def signal_reload(self):
        os.kill(self.nginx(), signal.SIGHUP)
        os.kill(self.fpm, signal.SIGUSR2)

    def upgrade(self):
        """As nginx's manual says it: the new program, then the old one's workers end, then the old one."""
        old = self.nginx()
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: self.nginx() not in (None, old), "the new nginx")
        os.kill(old, signal.SIGWINCH)
        os.kill(old, signal.SIGQUIT)
        wait_for(lambda: is_gone(old), "the end of the old nginx")


class PhpFpmPlain(PhpFpm):
    """The same with php-fpm's own default: a reload ends requests at once."""
    grace = ""


class Lighttpd(Peer):
    """lighttpd and its own processes, each on a socket of its own."""

    @staticmethod
    def numbers(children):
        """Of processes that lighttpd starts, and of children that each of them has."""
        return children, 0

    def configure(self, s):
        n_procs, n_children = self.numbers(s["children"])
        self.write("lighttpd.conf", f"""
server.modules = ("mod_fastcgi")
server.document-root = "{self.path}/www"
server.bind = "127.0.0.1"
server.port = {self.port}
server.max-keep-alive-requests = 10000
server.errorlog = "{self.path}/lighttpd.err"
server.upload-dirs = ("{self.path}")
fastcgi.server = (".php" => (("socket" => "{self.path}/php.sock", "bin-path" => "/usr/bin/php-cgi",
    "max-procs" => {n_procs},
    "bin-environment" => ("PHP_FCGI_CHILDREN" => "{n_children}", "PHP_FCGI_MAX_REQUESTS" => "{s["requests"]}",
                          "GENERATION" => "{s["generation"]}"))))
""")

    def start(self):
        self.pid = self.run("lighttpd", "-D", "-f", f"{self.path}/lighttpd.conf")

    def signal_reload(self):
        os.kill(self.pid, signal.SIGUSR1)


class LighttpdChildren(Lighttpd):
    """lighttpd with one process that has children, which wait on its socket: it is php-cgi that replaces them."""

    @staticmethod
    def numbers(children):
        return 1, children

    def programs(self):
        found = super().programs()
        everyone = processes.all_processes()
        return [pid for pid in found if pid in everyone and everyone[pid][0] in found]


PEERS = {"php-fpm": PhpFpm, "php-fpm-plain": PhpFpmPlain, "lighttpd": Lighttpd, "lighttpd-children": LighttpdChildren}
