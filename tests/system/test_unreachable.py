"""Scripts that are there and cannot be had: that is told apart from scripts that are not there."""

import os
import resource

import pytest

import processes
from processes import wait_for


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can serve as another user")
def test_directory_that_may_not_be_entered(lab):
    """The fronts' user finds no script there, and that is not the same as that there is none."""
    server = lab.serve("""
        [site *]
        root = {root}
        [route /cgi-bin/*]
        gateway = cgi
        dir = {cgi}
        """, user="nobody")
    lab.script("closed/in.cgi", "#!/bin/sh\n")
    os.chmod(lab.here("cgi/closed"), 0o700)
    assert server.get("/cgi-bin/closed/in.cgi").status == 403
    server.wait_log("403 /cgi-bin/*", lab.here("cgi/closed"), "chmod")
    assert server.get("/cgi-bin/none.cgi").status == 404


def test_no_descriptors_left(lab):
    server = lab.serve("""
        [site *]
        root = {root}
        [route /cgi-bin/*]
        gateway = cgi
        dir = {cgi}
        """)
    (front,) = wait_for(lambda: len(server.fronts()) == 1 and server.fronts(), "the front")
    with server.connect() as client:
        assert client.get("/cgi-bin/hello.sh").status == 200
        before = resource.prlimit(front, resource.RLIMIT_NOFILE)
        resource.prlimit(front, resource.RLIMIT_NOFILE, (max(processes.descriptors(front)) + 1, before[1]))
        answer = client.get("/cgi-bin/none.sh")
        assert answer.status == 503 and answer.get("retry-after", "").isdigit()
        resource.prlimit(front, resource.RLIMIT_NOFILE, before)
        assert client.get("/cgi-bin/none.sh").status == 404
