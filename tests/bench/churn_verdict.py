"""What became of each request of a run, as its client saw it, as the program wrote it down, and as it was killed.

The program writes two lines into a journal, each in one write(2) to a file that is opened for appending: "begin NUMBER
PID TIME" when it has a request, "end NUMBER PID TIME" when its answer is ready; TIME is CLOCK_MONOTONIC in nanoseconds,
the clock of the clients and of the killer too. A process serves one request at a time. So a process that was killed had

    a request, when its last line is a "begin";
    a request, when its last line is an "end" and that request's client got no answer: it died before all was sent;
    perhaps one that it had not begun: then some request failed at that moment that no process has begun. A kill
    explains one such request at most.

Every request that failed and is not explained so has failed for another reason, and is counted by what its client saw.
"""
import collections
import dataclasses

LATE_NS = 10_000_000    # how long a process may still write after the signal was sent: it dies when it is interrupted
EARLY_NS = 250_000_000  # how long after a kill a request that it explains, but that was never begun, may fail

PROGRAM = """<?php
function note(string $what): void
{
    $line = $what . ' ' . $_GET['n'] . ' ' . getmypid() . ' ' . hrtime(true) . "\\n";
    file_put_contents('@JOURNAL@', $line, FILE_APPEND);
}
note('begin');
$kept = [];
for ($i = 0; $i < (int) $_GET['kib']; $i++)
    $kept[] = str_repeat(chr($i & 127), 1000);
if ($_GET['spin'] === '1')
    for ($until = hrtime(true) + 1000 * (int) $_GET['us']; hrtime(true) < $until;)
        ;
else
    usleep((int) $_GET['us']);
header('Content-Type: text/plain');
$of = getenv('GENERATION');
echo $_GET['n'], ' ', getmypid(), ' ', $of === false ? '-' : $of, "\\n";
note('end');
"""


@dataclasses.dataclass
class Outcome:
    """One request, as its client saw it."""
    number: int
    is_kept: bool       # the connection had carried a request before
    sent_ns: int
    ended_ns: int
    what: str           # answered, refused, closed (before any byte), cut (within the answer), silent, nonsense
    status: int = 0     # when answered
    body: str = ""
    id: str = ""        # the server's own, when it gave one
    detail: str = ""
    is_doubled: bool = False  # more came on the connection than this answer

    @property
    def words(self):
        return self.body.split()

    @property
    def is_good(self):
        return self.what == "answered" and self.status == 200 and self.words[:1] == [str(self.number)]

    @property
    def category(self):
        if self.what in ("closed", "cut"):
            return f"{self.what}, {'kept' if self.is_kept else 'new'}"
        if self.what != "answered":
            return self.what
        if self.status in (502, 503, 504):
            return str(self.status)
        return "wrong answer" if self.status == 200 else f"{self.status // 100}xx"


@dataclasses.dataclass
class Kill:
    pid: int
    before_ns: int
    after_ns: int


Line = collections.namedtuple("Line", "what number pid time")


def read_journal(path):
    try:
        with open(path, encoding="ascii") as file:
            rows = [row.split() for row in file]
    except FileNotFoundError:
        rows = []
    return [Line(what, int(number), int(pid), int(time)) for what, number, pid, time in rows]


class Verdict:
    """pid_of: a function from an outcome to the pid of the process that its request was given to, where the server says
    that; None where it does not: then a kill explains what failed right after it."""

    def __init__(self, outcomes, journal, kills, pid_of=None):
        self.outcomes, self.kills, self.pid_of = outcomes, kills, pid_of
        self.by_number = {outcome.number: outcome for outcome in outcomes}
        self.begun = collections.defaultdict(list)
        self.ended = collections.defaultdict(list)
        self.lines = collections.defaultdict(list)
        for line in journal:
            (self.begun if line.what == "begin" else self.ended)[line.number].append(line.pid)
            self.lines[line.pid].append(line)
        self.good = [outcome for outcome in outcomes if outcome.is_good]
        self.hits, self.spare_kills = {}, []  # {number: kill}
        self._find_hits()
        self.own, self.own_early, self.idle, self.others = [], [], [], []
        self._sort_failures()

    def _find_hits(self):
        for kill in self.kills:
            lines = [line for line in self.lines.get(kill.pid, []) if line.time <= kill.after_ns + LATE_NS]
            last = max(lines, key=lambda line: line.time, default=None)
            if last is not None and (last.what == "begin" or not self._is_answered(last.number)):
                self.hits[last.number] = kill
            else:
                self.spare_kills.append(kill)

    def _is_answered(self, number):
        outcome = self.by_number.get(number)
        return outcome is not None and outcome.is_good

    def _sort_failures(self):
        for outcome in sorted(self.outcomes, key=lambda outcome: outcome.ended_ns):
            if outcome.is_good:
                continue
            if outcome.number in self.hits:
                self.own.append(outcome)
            elif outcome.number in self.begun:
                self.others.append(outcome)
            elif outcome.what == "closed" and outcome.is_kept:
                self.idle.append(outcome)
            elif (kill := self._explanation(outcome)) is not None:
                self.spare_kills.remove(kill)
                self.own_early.append(outcome)
            else:
                self.others.append(outcome)

    def _explanation(self, outcome):
        """The kill of a process that this request had been given to, but that had not begun it."""
        if self.pid_of is not None:
            pid = self.pid_of(outcome)
            return next((kill for kill in self.spare_kills if kill.pid == pid), None)
        near = [kill for kill in self.spare_kills
                if outcome.sent_ns <= kill.after_ns and kill.before_ns <= outcome.ended_ns <= kill.after_ns + EARLY_NS]
        return near[-1] if near else None

    def executed_twice(self):
        return sorted(number for number, pids in self.begun.items() if len(pids) > 1)

    def answered_twice(self):
        return [outcome.number for outcome in self.outcomes if outcome.is_doubled]

    def cut_short(self):
        """Begun and not ended, by a process that was not killed by us."""
        return sorted(number for number, pids in self.begun.items()
                      if len(pids) > len(self.ended.get(number, [])) and number not in self.hits)

    def not_executed(self):
        """A good answer, but the journal does not know that this process has ended it, or that anyone has."""
        return [outcome.number for outcome in self.good
                if int(outcome.words[1]) not in self.ended.get(outcome.number, [])]

    def longest_gap_ms(self):
        times = sorted(outcome.ended_ns for outcome in self.good)
        return max((b - a for a, b in zip(times, times[1:])), default=0) / 1e6

    def latencies_ms(self):
        taken = sorted(outcome.ended_ns - outcome.sent_ns for outcome in self.good) or [0]
        return {"p50": taken[len(taken) // 2] / 1e6, "p99": taken[len(taken) * 99 // 100] / 1e6, "max": taken[-1] / 1e6}

    def figures(self):
        """All of it, as numbers. `own` is what the kills explain, `busy` the kills that hit a busy process."""
        return {
            "requests": len(self.outcomes), "answered": len(self.good), "kills": len(self.kills),
            "busy": len(self.hits) + len(self.own_early), "own": len(self.own) + len(self.own_early),
            "own_early": len(self.own_early),
            "own_by": dict(collections.Counter(o.category for o in self.own + self.own_early)),
            "others": dict(collections.Counter(o.category for o in self.others)),
            "idle_closed": len(self.idle), "executed_twice": len(self.executed_twice()),
            "answered_twice": len(self.answered_twice()), "cut_short": len(self.cut_short()),
            "not_executed": len(self.not_executed()), "gap_ms": self.longest_gap_ms(), **self.latencies_ms(),
        }

    def complaints(self, most=10):
        """What a server that loses nothing would not have done, a line each."""
        found = [f"request {o.number}: {o.category} after {(o.ended_ns - o.sent_ns) / 1e6:.0f} ms, journal: begun by "
                 f"{self.begun.get(o.number, [])}, ended by {self.ended.get(o.number, [])}; {o.detail or o.body[:99]!r}"
                 for o in self.others]
        found += [f"request {o.number}: its process was killed, but the answer is {o.category}"
                  for o in self.own + self.own_early if o.category != "502"]
        found += [f"request {number} was killed with its process, and answered 200" for number in self.hits
                  if self._is_answered(number)]
        for label, numbers in (("executed twice", self.executed_twice()), ("answered twice", self.answered_twice()),
                               ("begun, and ended by the server", self.cut_short()),
                               ("answered, but not executed", self.not_executed()),
                               ("sent on a kept connection that was closed", [o.number for o in self.idle])):
            found += [f"request {number}: {label}" for number in numbers]
        return found[:most] + ([f"and {len(found) - most} more"] if len(found) > most else [])
