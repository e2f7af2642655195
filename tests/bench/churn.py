#!/usr/bin/env python3
"""What a server loses while its processes are recycled and killed, and its configuration is replaced under load.

  churn.py --server gatehouse --serve BINARY      or php-fpm (and nginx), php-fpm-plain, lighttpd,
                                                  lighttpd-children
  churn.py --table FILE                           what runs with --json FILE have found, side by side

64 clients ask a PHP program for answers that take 1 to 20 ms. Each process is replaced after 50 or 80 requests; every
200 ms one is killed; every 5 s the server gets another configuration; twice its binary is replaced. What became of each
request is said by the clients and a journal that the program writes: see churn_verdict.py. The exit status is 1 when
anything but the requests of killed processes was lost. The peers need Debian's nginx-light and php-fpm, or
lighttpd. Loopback only.
"""
import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "system")]

import churn_load  # noqa: E402
import churn_servers  # noqa: E402
import processes  # noqa: E402
from churn_verdict import PROGRAM, Verdict, read_journal  # noqa: E402

CLIENTS = 64
KILL_EVERY_S, RELOAD_EVERY_S = 0.2, 5.0
EVENT_S = 15.0  # a reload or an upgrade that takes longer has failed
TRIES = 3       # a reload is refused when the process that the new configuration is tried with was killed meanwhile

ROWS = (  # label, how it is taken from the figures
    ("requests", lambda f: f["requests"]),
    ("answered", lambda f: f["answered"]),
    ("kills, of a busy process", lambda f: f"{f['kills']}, {f['busy']}"),
    ("failed with their killed process", lambda f: f["own"]),
    ("other 502", lambda f: f["others"].get("502", 0)),
    ("503", lambda f: f["others"].get("503", 0)),
    ("504", lambda f: f["others"].get("504", 0)),
    ("other wrong answers", lambda f: sum(n for what, n in f["others"].items() if what in WRONG)),
    ("refused", lambda f: f["others"].get("refused", 0)),
    ("reset or cut, new connection", lambda f: sum(n for what, n in f["others"].items() if what.endswith(", new"))),
    ("reset or cut, kept connection", lambda f: sum(n for what, n in f["others"].items() if what.endswith(", kept"))),
    ("no answer in 20 s", lambda f: f["others"].get("silent", 0)),
    ("closed under a request while idle", lambda f: f["idle_closed"]),
    ("executed twice", lambda f: f["executed_twice"]),
    ("begun, ended by the server", lambda f: f["cut_short"]),
    ("answered twice", lambda f: f["answered_twice"]),
    ("longest time without an answer, ms", lambda f: f"{f['gap_ms']:.0f}"),
    ("latency p50, p99, ms", lambda f: f"{f['p50']:.0f}, {f['p99']:.0f}"),
    ("latency max, ms", lambda f: f"{f['max']:.0f}"),
    ("reloads, upgrades", lambda f: f"{f['reloads']}, {f['upgrades']}"),
)
WRONG = {"nonsense", "wrong answer", "1xx", "2xx", "3xx", "4xx", "5xx"}


class Gatehouse:
    """The server of this tree."""
    can_upgrade = True

    def __init__(self, arguments):
        os.environ["GATEHOUSE"] = os.path.abspath(arguments.serve)
        import churn_gatehouse  # pylint: disable=import-outside-toplevel  # the harness reads the variable
        import server as servers  # pylint: disable=import-outside-toplevel
        self.tools, self.arguments = churn_gatehouse, arguments
        self.apps = tempfile.mkdtemp(prefix="gh-apps-")
        servers.build_apps(self.apps)
        self.lab = servers.Lab(self.apps)
        self.journal = self.tools.prepare(self.lab)
        self.n_reloads = 0
        self.server = self.lab.serve(self.config(), fronts=arguments.fronts)
        self.port = self.server.port

    def config(self):
        s = churn_servers.settings(self.n_reloads)
        if self.arguments.no_recycle:
            return self.tools.config(pm="static", pm__max_children=s["children"], env=s["generation"])
        return self.tools.config(pm="dynamic", pm__max_children=s["children"], pm__start_servers=s["start"],
                                 pm__min_spare_servers=2, pm__max_spare_servers=s["spare"],
                                 pm__max_requests=s["requests"], max_memory=self.arguments.max_memory,
                                 max_age=self.arguments.max_age, env=s["generation"])

    def programs(self):
        return self.tools.programs(self.server)

    @property
    def pid_of(self):
        return self.tools.pid_by_log(self.server)

    def reload(self):
        self.n_reloads += 1
        for _ in range(TRIES):
            if self.tools.reload(self.server, self.config(), EVENT_S, fronts=self.arguments.fronts):
                return
            print(self.server.logged(self.tools.REFUSED)[-1])
        raise AssertionError(f"{TRIES} reloads were refused")

    def upgrade(self):
        if not self.tools.upgrade(self.server, EVENT_S):
            raise AssertionError("the upgrade was refused")

    def stop(self):
        try:
            self.lab.close()
        finally:
            shutil.rmtree(self.apps)


def make_peer(arguments, path):
    journal = f"{path}/journal"
    os.mkdir(f"{path}/www")
    with open(f"{path}/www/churn.php", "w", encoding="ascii") as file:
        file.write(PROGRAM.replace("@JOURNAL@", journal))
    peer = churn_servers.PEERS[arguments.server](path)
    peer.journal = journal
    return peer


def events(peer, arguments):
    """(when, what is done), in order."""
    found = []
    if not arguments.no_hup:
        n = int(arguments.seconds / RELOAD_EVERY_S - 0.5)
        found += [(RELOAD_EVERY_S * i, peer.reload) for i in range(1, n + 1)]
    if not arguments.no_usr2 and peer.can_upgrade:
        # between two reloads, so that each has time to be done
        found += [(arguments.seconds * part + RELOAD_EVERY_S / 2, peer.upgrade) for part in (1 / 3, 2 / 3)]
    return sorted(found, key=lambda event: event[0])


def disturb(peer, arguments, started, clients, killer):
    """Lets happen what is to happen meanwhile; returns how often it did."""
    done = collections.Counter()
    for when, event in events(peer, arguments):
        time.sleep(max(0, started + when - time.monotonic()))
        try:
            event()
            done[event.__name__] += 1
            how = "done"
        except AssertionError as error:
            done["failed"] += 1
            how = str(error)
        print(f"{time.monotonic() - started:5.1f} s  {event.__name__} {how}, {len(clients.outcomes)} requests, "
              f"{len(killer.kills)} kills, processes {len(peer.programs())}", flush=True)
    time.sleep(max(0, started + arguments.seconds - time.monotonic()))
    return {"reloads": done["reload"], "upgrades": done["upgrade"], "failed_events": done["failed"]}


def run(peer, arguments):
    clients = churn_load.Clients(peer.port, CLIENTS, seed=arguments.seed, n_slow=arguments.slow)
    killer = churn_load.Killer(peer.programs, seed=arguments.seed)
    started = time.monotonic()
    clients.start()
    try:
        if not arguments.no_kill:
            killer.start(KILL_EVERY_S)
        done = disturb(peer, arguments, started, clients, killer)
    finally:
        kills = killer.stop()
        clients.end()
    verdict = Verdict(clients.finish(), read_journal(peer.journal), kills, peer.pid_of)
    return verdict, {**verdict.figures(), **done, "pids": len(verdict.lines), "seconds": arguments.seconds}


def keep(path, name, figures):
    """Adds a run to the file."""
    known = {}
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            known = json.load(file)
    known[name] = figures
    with open(path, "w", encoding="ascii") as file:
        json.dump(known, file, indent=1)


def print_table(runs):
    cells = [["", *runs]] + [[label, *(str(take(figures)) for figures in runs.values())] for label, take in ROWS]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.rjust(width) if i else cell.ljust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["gatehouse", *churn_servers.PEERS], default="gatehouse")
    parser.add_argument("--serve", metavar="BINARY", help="gatehouse's binary")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="the requests of N clients take 2 s each")
    parser.add_argument("--fronts", type=int, default=2, help="of gatehouse")
    parser.add_argument("--max-memory", default="16m", help="of gatehouse's processes")
    parser.add_argument("--max-age", default="700ms", help="of gatehouse's processes")
    parser.add_argument("--no-kill", action="store_true", help="no process is killed")
    parser.add_argument("--no-hup", action="store_true", help="no other configuration")
    parser.add_argument("--no-usr2", action="store_true", help="no new binary")
    parser.add_argument("--no-recycle", action="store_true", help="gatehouse: pm = static without limits")
    parser.add_argument("--json", metavar="FILE", help="add the figures to this file")
    parser.add_argument("--name", help="of the run in that file; by default the server's")
    parser.add_argument("--table", metavar="FILE", help="print the runs of this file, and run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        with open(arguments.table, encoding="ascii") as file:
            print_table(json.load(file))
        return 0
    if arguments.server == "gatehouse" and not arguments.serve:
        parser.error("--serve is needed")

    processes.adopt_orphans()
    path = tempfile.mkdtemp(prefix="churn-")
    peer = Gatehouse(arguments) if arguments.server == "gatehouse" else make_peer(arguments, path)
    try:
        verdict, figures = run(peer, arguments)
    finally:
        peer.stop()
        shutil.rmtree(path)
    name = arguments.name or arguments.server
    if arguments.json:
        keep(arguments.json, name, figures)
    print_table({name: figures})
    print(json.dumps({key: figures[key] for key in ("own_by", "own_early", "others", "not_executed", "pids")}))
    complaints = verdict.complaints()
    print("\n".join(complaints))
    return 1 if complaints or figures["failed_events"] else 0


if __name__ == "__main__":
    sys.exit(main())
