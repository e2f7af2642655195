import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import processes  # noqa: E402
import server  # noqa: E402


def pytest_configure(config):
    if not os.access(server.BINARY, os.X_OK):
        raise pytest.UsageError(f"{server.BINARY} is not there; build it, or set GATEHOUSE")
    processes.adopt_orphans()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure comes with the error log of the servers that were running."""
    report = (yield).get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for running in getattr(getattr(value, "lab", value), "servers", []):
                report.sections.append((f"error log of {running.config_path}", running.tail()))


@pytest.fixture(scope="session")
def apps():
    """The folder of the compiled test programs."""
    folder = tempfile.mkdtemp(prefix="gh-apps-")
    os.chmod(folder, 0o755)
    server.build_apps(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def lab(apps):
    """A lab of the test's own."""
    it = server.Lab(apps)
    yield it
    it.close()


@pytest.fixture(scope="module")
def shared_lab(apps):
    """A lab for all tests of a file."""
    it = server.Lab(apps)
    yield it
    it.close()
