"""--trace: the records of a FastCGI request that failed are in the error log, and of no other."""

CONFIG = """
    [site *]
    root = {root}
    [route /app/*]
    gateway = fastcgi
    pool = app
    idle_timeout = 700ms
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    [pool app]
    command = {apps}/roles
    pm = static
    pm.max_children = 1
"""


def records(server, answer):
    """What was told of the request, in order."""
    tag = f"[{answer.id}] record: "
    return [line.partition(tag)[2] for line in server.log() if tag in line]


def test_failed_request(lab):
    server = lab.serve(CONFIG, arguments=("--trace",))
    assert server.get("/app/?id=1").status == 200
    answer = server.request("POST", "/app/?wrongid=1&echo=1", b"some input")
    assert answer.status == 502
    server.wait_log(answer.id, "STDIN id", "end")
    told = records(server, answer)
    assert told[0].startswith("> BEGIN_REQUEST id ") and "responder" in told[0]
    assert any(line.startswith("> PARAMS ") and "REQUEST_METHOD=POST" in line for line in told)
    assert any(line.startswith("> STDIN ") and "10 bytes" in line for line in told)
    assert len(server.logged("record: ")) == len(told), "records of a request that did not fail"


def test_timeout(lab):
    server = lab.serve(CONFIG, arguments=("--trace",))
    answer = server.get("/app/?sleep=60000")
    assert answer.status == 504
    server.wait_log(answer.id, "BEGIN_REQUEST")


def test_long_conversation_is_cut(lab):
    server = lab.serve(CONFIG, arguments=("--trace",))
    with server.connect() as client:
        client.send_request("POST", "/app/?wrongid=1", b"x" * 20_000_000)
        answer = client.read()
        assert answer.status == 502
    server.wait_log(answer.id, "BEGIN_REQUEST")
    assert len(records(server, answer)) < 80


def test_values_are_escaped(lab):
    server = lab.serve(CONFIG, arguments=("--trace",))
    answer = server.get("/app/?wrongid=1", fields=[("X-Odd", "a\tb\xff")])
    assert answer.status == 502
    line = server.wait_log(answer.id, "HTTP_X_ODD=")
    assert "\t" not in line and "\xff" not in line


def test_without_it(lab):
    server = lab.serve(CONFIG)
    assert server.get("/app/?wrongid=1").status == 502
    server.wait_log(" 502 ")
    assert not server.logged("record: ")
