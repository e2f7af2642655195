#!/usr/bin/env python3
"""Adds up what the test runners reported and prints the one line that matters, `N passed, N failed`.

    tally.py REPORT=STATUS...

REPORT is Meson's testlog.json (an object a line) or a JUnit file as pytest writes it; STATUS is its runner's exit
status. A report that is not there, or has no failure although its runner failed, counts as one failed. Exits 1 if any
failed.
"""
import json
import sys
import xml.etree.ElementTree as ElementTree


def meson(path):
    with open(path, encoding="utf-8") as lines:
        results = [json.loads(line)["result"] for line in lines]
    passed = sum(result in ("OK", "EXPECTEDFAIL") for result in results)
    return passed, len(results) - passed - results.count("SKIP")


def junit(path):
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    tests, skipped, failures, errors = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors"))
    return tests - skipped - failures - errors, failures + errors


def count(path, status):
    try:
        passed, failed = meson(path) if path.endswith(".json") else junit(path)
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        print(f"{path}: no report: {error}")
        return 0, 1
    if status != 0 and failed == 0:
        print(f"{path}: no failure in it, but its runner ended with {status}")
        failed = 1
    return passed, failed


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    pairs = [argument.rpartition("=") for argument in sys.argv[1:]]
    counts = [count(path, int(status)) for path, _, status in pairs]
    passed, failed = (sum(column) for column in zip(*counts))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
