"""gatehouse under churn: its configuration, and what its access log knows of each request."""
import os
import signal

import processes
from churn_load import programs_below
from churn_verdict import PROGRAM
from processes import wait_for

REFUSED = "reload refused"

CONFIG = """
    [site *]
    root = {root}
    [route *.php]
    gateway = fastcgi
    pool = php
    [pool php]
    command = php-cgi
    queue = 256
    queue_timeout = 15s
"""


def config(**pool):
    """With these settings of the pool; "__" is a dot, and env is what GENERATION is for the processes."""
    generation = pool.pop("env", None)
    lines = [f"    {key.replace('__', '.')} = {value}" for key, value in pool.items()]
    if generation is not None:
        lines.append(f"    env[GENERATION] = {generation}")
    return CONFIG + "\n".join(lines) + "\n"


def prepare(lab):
    """Puts the program into a lab; returns the path of its journal."""
    journal = lab.file("journal")
    lab.file("root/churn.php", PROGRAM.replace("@JOURNAL@", journal))
    return journal


def programs(server):
    return programs_below([server.pid], "php-cgi")


def pid_by_log(server):
    """A function from an outcome to the pid of the process that its request was given to."""
    pids = {}

    def look(number):
        pids.update((record["id"], record["pid"]) for record in server.records())
        return number in pids

    def pid_of(outcome):
        if outcome.id and outcome.id not in pids:
            wait_for(lambda: look(outcome.id), f"request {outcome.id} in the access log")
        return pids.get(outcome.id)

    return pid_of


def fronts(server):
    return programs_below([server.pid], "gatehouse-front")


def wait_renewed(server, signal_number, patience):
    """Sends the signal. True when the fronts that were there before have ended, and others are there; false when the
    server has refused to reload."""
    before, n_refused = fronts(server), len(server.logged(REFUSED))

    def is_refused():
        return len(server.logged(REFUSED)) > n_refused

    def is_renewed():
        now = fronts(server)
        return now and not set(now) & set(before)

    os.kill(server.pid, signal_number)
    wait_for(lambda: is_renewed() or is_refused(), "new fronts in the place of the old ones", patience)
    return not is_refused()


def reload(server, text, patience=2 * processes.PATIENCE, **keys):
    """Puts another configuration in the place of the one that it was started with, and sends HUP."""
    os.rename(server.lab.config(text, **keys), server.config_path)
    return wait_renewed(server, signal.SIGHUP, patience)


def upgrade(server, patience=2 * processes.PATIENCE):
    return wait_renewed(server, signal.SIGUSR2, patience)
