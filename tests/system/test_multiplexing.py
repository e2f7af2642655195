"""Several requests at once on one FastCGI connection, to an application that multiplexes, says so, or only says so."""

import json
import os
import signal

import processes
from processes import wait_for

CONFIG = """
    [site *]
    root = {root}
    [route /app/*]
    gateway = fastcgi
    pool = app
    idle_timeout = IDLE
    [pool app]
    server = unix:{path}/app.sock
    max_connections = CONNECTIONS
    queue_timeout = 20s
"""

MANAGED = """
    [site *]
    root = {root}
    [route /app/*]
    gateway = fastcgi
    pool = app
    [pool app]
    command = {apps}/roles --log {path}/app.log
    pm = static
    pm.max_children = 1
    queue_timeout = 20s
"""


def start(lab, *options, config=CONFIG, connections=1, idle="20s", **server):
    """The application on a socket, and a server before it."""
    path = lab.here("app.sock")
    lab.helper([os.path.join(lab.apps, "roles"), "--log", lab.here("app.log"), *options, "unix:" + path])
    wait_for(lambda: processes.is_listening(path), "the application's socket")
    return lab.serve(config.replace("CONNECTIONS", str(connections)).replace("IDLE", idle), **server)


def events(lab):
    text = processes.read(lab.here("app.log")) or ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def events_of(lab, name):
    return [event for event in events(lab) if event["event"] == name]


def send(server, *targets):
    """A client for each target, with the request on its way."""
    clients = [server.connect() for _ in targets]
    for client, target in zip(clients, targets):
        client.send_request("GET", target)
    return clients


def read(clients):
    answers = []
    for client in clients:
        answers.append(client.read())
        client.close()
    return answers


def multiplex(server):
    """Returns when the server knows that the application multiplexes: one request keeps it busy, another waits."""
    answers = read(send(server, "/app/?sleep=300&id=1", "/app/?sleep=300&id=1"))
    assert [answer.status for answer in answers] == [200, 200]
    server.wait_log("multiplexes")


def test_one_connection_serves_many(lab):
    server = start(lab)
    multiplex(server)
    n_before = len(events_of(lab, "accept"))
    answers = read(send(server, *["/app/?sleep=500&id=1"] * 10))
    told = [json.loads(answer.text) for answer in answers]
    assert len({one["connection"] for one in told}) == 1
    assert len({one["id"] for one in told}) == 10
    assert max(one["in_flight"] for one in told) > 5
    assert len(events_of(lab, "accept")) <= n_before + 1  # a connection was closed to ask what it offers


def test_answers_are_kept_apart(lab):
    """Long answers and echoes, interleaved record by record."""
    server = start(lab)
    multiplex(server)
    bodies = [os.urandom(300_000 + i) for i in range(6)]
    clients = [server.connect() for _ in bodies]
    for client, body in zip(clients, bodies):
        client.send_request("POST", "/app/?echo=1", body)
    sized = send(server, "/app/?size=3000000", "/app/?size=2000000")
    assert [answer.body for answer in read(clients)] == bodies
    assert [len(answer.body) for answer in read(sized)] == [3000000, 2000000]


def test_no_more_than_it_takes(lab):
    server = start(lab, "--max-reqs", "3")
    multiplex(server)
    answers = read(send(server, *["/app/?sleep=300&id=1"] * 9))
    assert [answer.status for answer in answers] == [200] * 9
    assert max(json.loads(answer.text)["in_flight"] for answer in answers) <= 3
    assert not events_of(lab, "overloaded")


def test_process_of_ours_multiplexes(lab):
    server = lab.serve(MANAGED)
    multiplex(server)
    answers = read(send(server, *["/app/?sleep=500&id=1"] * 8))
    assert len({json.loads(answer.text)["connection"] for answer in answers}) == 1
    assert len(server.running("roles")) == 1


def test_client_gone_is_an_abort(lab):
    server = start(lab)
    multiplex(server)
    other, gone = send(server, "/app/?sleep=700&id=1", "/app/?sleep=60000")
    wait_for(lambda: json.loads(server.get("/app/?id=1").text)["in_flight"] >= 3, "all requests in flight")
    gone.reset()
    wait_for(lambda: [event for event in events_of(lab, "request") if event["outcome"] == "aborted"], "the abort")
    answer = other.read()
    assert answer.status == 200
    assert json.loads(answer.text)["connection"] == json.loads(server.get("/app/?id=1").text)["connection"]


def test_timeout_is_an_abort(lab):
    server = start(lab, idle="700ms")
    multiplex(server)
    hung, streaming = send(server, "/app/?sleep=60000", "/app/?stream=40")
    assert hung.read().status == 504
    assert len(streaming.read().body) > 0
    wait_for(lambda: [event for event in events_of(lab, "request") if event["outcome"] == "aborted"], "the abort")


def test_application_that_ignores_abort_loses_its_connection(lab):
    server = start(lab, "--ignore-abort", idle="700ms")
    multiplex(server)
    (hung,) = send(server, "/app/?sleep=60000")
    assert hung.read().status == 504
    wait_for(lambda: server.answers("/app/?id=1"), "the application to be used again")


def test_slow_client_does_not_stop_the_others(lab):
    server = start(lab)
    multiplex(server)
    with server.connect() as slow:
        slow.send_request("GET", "/app/?size=400000")
        slow.read_head()
        answers = read(send(server, *["/app/?id=1"] * 5))
        assert [answer.status for answer in answers] == [200] * 5


def test_late_record_touches_no_other_request(lab):
    """It is for a request that is over. The connection gets no more requests; those on it are served."""
    server = start(lab)
    multiplex(server)
    (running,) = send(server, "/app/?sleep=800&id=1")
    wait_for(lambda: json.loads(server.get("/app/?id=1").text)["in_flight"] >= 2, "the first in flight")
    assert server.get("/app/?late=1&id=1").status == 200
    server.wait_log("was not given")
    assert running.read().status == 200
    assert server.get("/app/?id=1").status == 200


def test_late_record_of_a_single_request(lab):
    server = start(lab)
    for _ in range(5):
        assert server.get("/app/?late=1&id=1").status == 200
        answer = server.get("/app/?id=1")
        assert answer.status == 200 and json.loads(answer.text)["in_flight"] == 1


def test_wrong_id_is_502(lab):
    server = start(lab)
    assert server.get("/app/?wrongid=1").status == 502
    assert server.get("/app/?id=1").status == 200


def test_says_that_it_multiplexes_but_cannot(lab):
    server = start(lab, "--cant-mpx")
    answers = read(send(server, *["/app/?sleep=200&id=1"] * 6))
    assert [answer.status for answer in answers] == [200] * 6
    server.wait_log("cannot multiplex")
    answers = read(send(server, *["/app/?sleep=100&id=1"] * 4))
    assert [answer.status for answer in answers] == [200] * 4


def test_overloaded_application_is_given_less(lab):
    server = start(lab, "--overloaded", "2")
    multiplex(server)
    answers = read(send(server, *["/app/?sleep=100&id=1"] * 8))
    assert [answer.status for answer in answers] == [200] * 8


def test_overloaded_from_the_start_is_503(lab):
    server = start(lab, "--overloaded", "0")
    answer = server.get("/app/")
    assert answer.status == 503 and answer.get("retry-after", "").isdigit()


def test_overloaded_server_gives_way_to_another(lab):
    path = lab.here("full.sock")
    lab.helper([os.path.join(lab.apps, "roles"), "--overloaded", "0", "unix:" + path])
    wait_for(lambda: processes.is_listening(path), "the other application's socket")
    server = start(lab, config=CONFIG.replace("server = ", "server = unix:{path}/full.sock\nserver = "))
    for _ in range(4):
        assert server.get("/app/?id=1").status == 200


def test_unanswered_question_changes_nothing(lab):
    for option in ("--silent-values", "--close-values"):
        server = start(lab, option)
        answers = read(send(server, *["/app/?sleep=50&id=1"] * 4))
        assert [answer.status for answer in answers] == [200] * 4
        assert {json.loads(answer.text)["in_flight"] for answer in answers} == {1}
        server.stop()
        os.unlink(lab.here("app.sock"))


def test_switched_off(lab):
    server = start(lab, config=CONFIG + "\nmultiplex = off\n")
    answers = read(send(server, *["/app/?sleep=50&id=1"] * 4))
    assert {json.loads(answer.text)["in_flight"] for answer in answers} == {1}
    assert not events_of(lab, "values")


def test_death_fails_all_that_it_served(lab):
    server = lab.serve(MANAGED)
    multiplex(server)
    clients = send(server, *["/app/?sleep=60000"] * 3)
    wait_for(lambda: json.loads(server.get("/app/?id=1").text)["in_flight"] >= 4, "all requests in flight")
    (pid,) = server.running("roles")
    os.kill(pid, signal.SIGKILL)
    assert [answer.status for answer in read(clients)] == [502] * 3
    wait_for(lambda: server.answers("/app/?id=1"), "another process")
