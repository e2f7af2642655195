"""Two thousand connections of spoiled requests: the server is up meanwhile, and afterwards it is what it was. The same
program sends a hundred thousand when it is run by hand."""

import os
import sys

from server import TOP

sys.path.insert(0, os.path.join(TOP, "tests", "bench"))

import hostile  # noqa: E402


def test_hostile_connections(lab):
    attack = hostile.Attack(hostile.serve(lab), 2000)
    assert attack.run(), attack.wrong
    assert attack.n_done == 2000 and attack.n_probes == 4


def test_a_run_can_be_repeated():
    corpus = hostile.load()
    plans = [(plan.pieces, plan.way) for plan in (hostile.Plan("7", i, corpus) for i in (0, 1, 2, 0))]
    assert plans[0] == plans[3]
    assert plans[0] != plans[1] != plans[2]


def test_what_is_wrong_is_told(lab):
    """A good request that fails, and descriptors that are too many, are no success."""
    def probe(target):
        assert target.request("GET", "/nothing").status == 404 and attack.n_done == 0, "not as before"

    target = hostile.serve(lab)
    target.probes = [probe]
    target.descriptors = iter([{target.pid: 1}, {target.pid: 1 + 2 * hostile.SLACK}]).__next__
    attack = hostile.Attack(target, 20)
    assert not attack.run()
    assert any("not as before" in text for text in attack.wrong), attack.wrong
