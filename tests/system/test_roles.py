"""FastCGI's other roles: Authorizer, before programs and files; Filter."""

import json
import os
import time

import pytest

import processes
from processes import wait_for

CONFIG = """
    [site *]
    root = {root}
    index = index.html
    try = $path $path/ /fallback/front.sh

    [route /filter/*]
    gateway = fastcgi
    pool = roles
    role = filter

    [route /twice/*]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route /twice/deep/*]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route *.guarded]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route /private/*]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route /private/cgi-bin/*]
    gateway = cgi
    dir = {cgi}

    [route /private/app/*]
    gateway = fastcgi
    pool = roles

    [route /private/denied/*]
    gateway = deny

    [route /exact.cgi]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route /denied.cgi]
    gateway = deny

    [route *.secret]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route *.gz]
    gateway = fastcgi
    pool = roles
    role = authorizer

    [route *.cgi]
    gateway = cgi

    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}

    [route /fallback/*]
    gateway = cgi
    dir = {cgi}

    [pool roles]
    command = {apps}/roles --log {path}/roles.log
    pm = static
    pm.max_children = 1
"""

VARIABLES = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nenv\n"
GIVEN_TIME = 1_700_000_000


@pytest.fixture(scope="module")
def server(shared_lab):
    lab = shared_lab
    lab.file("root/private/file.txt", b"a private file\n")
    lab.file("root/private/index.html", b"<p>private\n")
    lab.file("root/name.guarded", b"guarded by its name\n")
    lab.file("root/twice/deep/file.txt", b"deep\n")
    lab.file("root/filter/text.txt", b"some text\n" * 1000)
    lab.file("root/filter/empty.txt", b"")
    lab.file("root/filter/large.bin", b"abcdefgh" * 400_000)
    os.utime(lab.here("root/filter/text.txt"), (GIVEN_TIME, GIVEN_TIME))
    lab.file("root/exact.cgi", VARIABLES, 0o755)
    lab.file("root/denied.cgi", VARIABLES, 0o755)
    lab.file("root/plain.txt", b"plain\n")
    lab.file("root/plain.txt.gz", b"guarded\n")
    lab.file("root/name.secret", b"secret\n")
    lab.file("root/name.secret.gz", b"also guarded\n")
    lab.script("env.sh", VARIABLES)
    lab.script("front.sh", VARIABLES)
    lab.script("back.sh", "#!/bin/sh\nprintf 'Location: /private/file.txt\\n\\n'\n")
    return lab.serve(CONFIG, max_fields="64")


def requests(server, role):
    text = processes.read(server.lab.here("roles.log")).rpartition("\n")[0]
    return [event for event in map(json.loads, text.splitlines())
            if event["event"] == "request" and event["role"] == role]


def as_(mode):
    return [("X-Role-Test", mode)]


def variables(answer):
    assert answer.status == 200, answer
    return dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)


def test_allowed_file(server):
    answer = server.get("/private/file.txt", fields=as_("allow"))
    assert answer.status == 200 and answer.body == b"a private file\n"
    assert server.get("/private/", fields=as_("allow")).body == b"<p>private\n"
    assert server.get("/name.guarded", fields=as_("allow")).body == b"guarded by its name\n"


@pytest.mark.parametrize("target", ["/private/file.txt", "/private/", "/private/cgi-bin/env.sh", "/private/none",
                                    "/private/app/?id=1", "/name.guarded", "/none.guarded", "/private/denied/x"])
def test_refusal_is_the_clients(server, target):
    answer = server.get(target, fields=as_("deny"))
    assert answer.status == 401 and answer.body == b"denied\n"
    assert answer.get("www-authenticate") == 'Basic realm="roles"'
    assert answer.get("x-from") == "authorizer"


@pytest.mark.parametrize("mode, status", [("forbid", 403), ("redirect", 302), ("error", 500), ("nonsense", 502),
                                          ("malformed", 502), ("empty", 502)])
def test_other_answers(server, mode, status):
    answer = server.get("/private/file.txt", fields=as_(mode))
    assert answer.status == status
    assert b"private" not in answer.body


def test_body_of_a_permit_is_ignored(server):
    with server.connect() as client:
        answer = client.get("/private/file.txt", fields=as_("body"))
        assert answer.body == b"a private file\n"
        assert answer.get("x-from") is None and answer.get("variable-remote_user") is None
        assert client.get("/private/file.txt", fields=as_("nostatus")).body == b"a private file\n"


@pytest.mark.parametrize("target", ["/private/cgi-bin/env.sh", "/private/app/?env=1"])
def test_variables_reach_the_program(server, target):
    found = variables(server.get(target, fields=as_("allow")))
    assert found["AUTH_METHOD"] == "test" and found["REMOTE_USER"] == "alice"
    assert "LD_PRELOAD" not in found and found.get("PATH") != "/evil"
    assert found["SCRIPT_FILENAME"] != "/etc/passwd"
    server.wait_log("LD_PRELOAD")


def test_hostile_variables(server):
    for target in ("/private/cgi-bin/env.sh", "/private/app/?env=1"):
        found = variables(server.get(target, fields=as_("hostile")))
        assert found.get("OK") == (None if "cgi-bin" in target else "good")
        assert found["REMOTE_ADDR"] == "127.0.0.1" and found["REQUEST_METHOD"] == "GET"
        assert "HTTP_PROXY" not in found and "evil" not in str(found.values())


def test_nothing_is_carried_to_another_request(server):
    with server.connect() as client:
        client.get("/private/cgi-bin/env.sh", fields=as_("allow"))
        assert "AUTH_METHOD" not in variables(client.get("/cgi-bin/env.sh", fields=as_("allow")))


def test_what_an_authorizer_is_sent(server):
    n_before = len(requests(server, "authorizer"))
    with server.connect() as client:
        client.request("POST", "/private/app/more?echo=1", b"the body", fields=as_("allow"))
    (sent,) = requests(server, "authorizer")[n_before:]
    names = [name for name, _ in sent["params"]]
    assert not {"CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"} & set(names)
    assert dict(sent["params"])["REQUEST_URI"] == "/private/app/more?echo=1"
    assert dict(sent["params"])["REQUEST_METHOD"] == "POST"
    assert not sent["stdin"] and len(names) == len(set(names))


def test_body_is_for_the_program(server):
    body = os.urandom(300_000)
    for more in ({}, {"chunked": True}):
        answer = server.request("POST", "/private/app/?echo=1", body, fields=as_("allow"), **more)
        assert answer.status == 200 and answer.body == body


def test_expect_is_answered_by_the_program(server):
    """No 100 before the permit."""
    with server.connect() as client:
        fields = [("Expect", "100-continue"), ("Content-Length", "4")]
        client.send_request("POST", "/private/app/?echo=1", b"", fields=as_("deny") + fields)
        answer = client.read()
        assert answer.status == 401 and not answer.interim
    with server.connect() as client:
        client.send_request("POST", "/private/app/?echo=1", b"", fields=as_("allow") + fields)
        assert client._head().status == 100  # pylint: disable=protected-access
        client.send(b"body")
        assert client.read().body == b"body"


def test_two_authorizers(server):
    n_before = len(requests(server, "authorizer"))
    assert server.get("/twice/deep/file.txt", fields=as_("allow")).body == b"deep\n"
    assert len(requests(server, "authorizer")) == n_before + 2


def test_what_try_leads_to(server):
    assert variables(server.get("/private/nothing", fields=as_("allow")))["REMOTE_USER"] == "alice"
    assert server.get("/private/nothing", fields=as_("deny")).status == 401


def test_local_redirect_is_checked(server):
    assert server.get("/cgi-bin/back.sh", fields=as_("deny")).status == 401
    assert server.get("/cgi-bin/back.sh", fields=as_("allow")).body == b"a private file\n"
    assert server.get("/private/cgi-bin/back.sh", fields=as_("allow")).body == b"a private file\n"


def test_deny_behind_an_authorizer(server):
    assert server.get("/private/denied/x", fields=as_("allow")).status == 403


def test_head(server):
    answer = server.request("HEAD", "/private/file.txt", fields=as_("allow"))
    assert answer.status == 200 and answer.get("content-length") == "15"
    assert server.request("HEAD", "/private/file.txt", fields=as_("deny")).status == 401


def test_client_gone_while_it_decides(server):
    with server.connect() as client:
        client.send_request("GET", "/private/file.txt?auth-sleep=60000", fields=as_("allow"))
        wait_for(lambda: any(record for record in [server.tree()]), "the request")
        client.reset()
    wait_for(lambda: server.get("/private/file.txt", fields=as_("allow")).status == 200, "the next permit")


def test_filter(server):
    answer = server.get("/filter/text.txt")
    assert answer.status == 200 and answer.body == b"SOME TEXT\n" * 1000
    assert answer.get("x-data-length") == "10000" and answer.get("x-last-mod") == str(GIVEN_TIME)
    assert server.get("/filter/empty.txt").body == b""


def test_filter_of_a_large_file(server):
    assert server.get("/filter/large.bin").body == b"ABCDEFGH" * 400_000


def test_filter_with_a_body(server):
    answer = server.request("POST", "/filter/text.txt/more", os.urandom(200_000))
    assert answer.get("x-stdin-length") == "200000" and answer.body == b"SOME TEXT\n" * 1000
    (sent,) = requests(server, "filter")[-1:]
    params = dict(sent["params"])
    assert params["PATH_INFO"] == "/more" and params["SCRIPT_NAME"] == "/filter/text.txt"
    assert sent["stdin_over"] and sent["data_over"] and sent["data"] == 10000


def test_filter_without_a_file(server):
    assert server.get("/filter/none").status == 404
    assert server.get("/filter/").status == 404
    os.symlink("/etc/passwd", server.lab.here(f"root/filter/link-{time.time_ns()}"))
    for name in os.listdir(server.lab.here("root/filter")):
        if name.startswith("link"):
            assert server.get(f"/filter/{name}").status in (403, 404)


def test_program_that_knows_no_other_role(lab):
    lab.file("root/x.txt", b"x")
    server = lab.serve("""
        [site *]
        root = {root}
        [route /*]
        gateway = fastcgi
        pool = count
        role = ROLE
        [pool count]
        command = {cgi}/count
        pm = static
        pm.max_children = 1
    """.replace("ROLE", "filter"))
    answer = server.get("/x.txt")  # libfcgi lets a program accept what it does not know
    assert answer.status in (200, 502)
    assert server.get("/x.txt").status == answer.status


GRANTED = """
    [site *]
    root = {root}
    [route /*]
    gateway = fastcgi
    pool = roles
    role = authorizer
    variables = OK
    pass_authorization = off
    [route /*]
    gateway = cgi
    dir = {cgi}
    [pool roles]
    command = {apps}/roles --log {path}/roles.log
    pm = static
    pm.max_children = 1
"""


def test_what_a_route_names(lab):
    lab.script("env.sh", VARIABLES)
    server = lab.serve(GRANTED)
    found = variables(server.get("/env.sh", fields=as_("hostile")))
    assert found["OK"] == "good" and "HTTP_PROXY" not in found
    fields = as_("allow") + [("Authorization", "Basic YTpi")]
    assert variables(server.get("/env.sh", fields=fields))["REMOTE_USER"] == "alice"
    (sent,) = requests(server, "authorizer")[-1:]
    assert "HTTP_AUTHORIZATION" not in dict(sent["params"])


def test_credentials_are_for_the_authorizer(server):
    fields = as_("allow") + [("Authorization", "Basic YTpi")]
    assert "HTTP_AUTHORIZATION" not in variables(server.get("/private/app/?env=1", fields=fields))
    (sent,) = requests(server, "authorizer")[-1:]
    assert dict(sent["params"])["HTTP_AUTHORIZATION"] == "Basic YTpi"


@pytest.mark.parametrize("target, status", [
    ("/exact.cgi", 401), ("/exact.cgi/", 401), ("/exact.cgi/more", 401), ("//exact.cgi/more", 401),
    ("/denied.cgi", 403), ("/denied.cgi/", 403), ("/denied.cgi/more", 403)])
def test_exact_guard_has_what_is_below_it(server, target, status):
    assert server.get(target, fields=as_("deny")).status == status


def test_guards_and_siblings(server):
    fields = as_("deny") + [("Accept-Encoding", "gzip")]
    answer = server.get("/plain.txt", fields=fields)
    assert answer.body == b"plain\n" and answer.get("content-encoding") is None
    answer = server.get("/name.secret", fields=as_("allow") + [("Accept-Encoding", "gzip")])
    assert answer.body == b"secret\n" and answer.get("content-encoding") is None


def test_authorizer_that_fails_behind_its_permit(server):
    assert server.get("/private/file.txt?auth-appstatus=255", fields=as_("allow")).status == 502
    assert server.get("/private/file.txt", fields=as_("allow")).status == 200


def test_authorizer_and_program_are_one_process(lab):
    lab.file("root/file.txt", b"file\n")
    server = lab.serve("""
        [site *]
        root = {root}
        [route /*]
        gateway = fastcgi
        pool = one
        role = authorizer
        [route /app/*]
        gateway = fastcgi
        pool = one
        [pool one]
        command = {apps}/roles --mpxs 0
        pm = static
        pm.max_children = 1
        queue = 0
        """)
    for _ in range(5):
        assert server.get("/app/?id=1", fields=as_("allow")).status == 200
        assert server.get("/file.txt", fields=as_("allow")).status == 200
