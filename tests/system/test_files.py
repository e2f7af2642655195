"""Files as HTTP sees them: representations, conditions, ranges, links, listings, what paths stand for, error pages."""

import array
import calendar
import ctypes
import email.utils
import gzip
import html.parser
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

from client import Closed
from processes import wait_for
from server import BINARY

PAST = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example
PAST_FORMS = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]

IMF_FIXDATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
                         r"[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT\Z")
STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"\Z')
REFERENCE = re.compile(r"(https?://[A-Za-z0-9.-]+(:[0-9]+)?)?/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
                       r"(\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?\Z")

TEN = b"0123456789"
PAGE = b"<p>" + b"page " * 200
BIG = array.array("I", range(10 << 20)).tobytes()  # 40 MB, no two places alike
OUTSIDE = b"canary"

CONFIG = """
    [site *]
    root = {root}
    index = index.html
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    [route /denied]
    gateway = deny

    [site plain.test]
    root = {root}
    precompressed = off
    hidden =

    [site off.test]
    root = {path}/links
    symlinks = off
    listing = on
    [site beneath.test]
    root = {path}/links
    symlinks = beneath
    listing = on
    [site on.test]
    root = {path}/links
    symlinks = on
    listing = on

    [site listed.test]
    root = {path}/listed
    listing = on
    [route *.cgi]
    gateway = cgi

    [site front.test]
    root = {path}/app
    index = index.html index.php
    try = $path $path/ /front.php
    [route *.php]
    gateway = cgi
    [site info.test]
    root = {path}/app
    try = $path /front.php/extra
    [route *.php]
    gateway = cgi
    [site words.test]
    root = {path}/app
    try = $path $path.html =404
    [site own.test]
    root = {path}/app
    try = $path =410
    error_page[410] = /page.html

    [site errors.test]
    root = {path}/errors
    error_page[404] = /404.html
    error_page[4xx] = /4xx.txt
    error_page[5xx] = /5xx.html
    error_page[504] = /none.html
    error_page[403] = /large.html
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    [route /denied]
    gateway = deny
    [site broken.test]
    root = {path}/errors
    error_page[404] = /none.html
    error_page[403] = /empty.html
    error_page[502] = /largest.html
    [route /cgi-bin/*]
    gateway = cgi
    dir = {cgi}
    [route /denied]
    gateway = deny

    [site moved.test]
    root = {root}
    [route /old/*]
    gateway = redirect
    to = /new/$rest
    [route /one]
    gateway = redirect
    to = /two?x=y
    [route /301/*]
    gateway = redirect
    to = /$rest
    status = 301
    [route /303/*]
    gateway = redirect
    to = /$rest
    status = 303
    [route /307/*]
    gateway = redirect
    to = /$rest
    status = 307
    [route /308/*]
    gateway = redirect
    to = /$rest
    status = 308
    [route /secure/*]
    gateway = redirect
    to = https://$host$path
"""

SHOW = """
    #!/bin/sh
    printf 'Content-Type: text/plain\\n\\n'
    for name in REQUEST_METHOD REQUEST_URI SCRIPT_NAME SCRIPT_FILENAME PATH_INFO QUERY_STRING; do
        eval "echo \\"$name=\\$$name\\""
    done
    echo "body=$(cat)"
"""

LINKS = {"inside": "dir/file.txt", "outside": "../secret.txt", "absolute": "/etc/hostname", "here": "dir", "up": "..",
         "dangling": "nothing", "loop": "loop", "dir/back": "../dir/file.txt", "round": "dir/../dir/file.txt",
         "zero": "/dev/zero"}

NUMBERS = itertools.count(1)


def put(lab, name, content, mtime=PAST, mode=0o644):
    """A file whose time is long past, or as given; in whole seconds, or none to leave it."""
    path = lab.file(name, content, mode)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def put_tree(lab):
    put(lab, "secret.txt", OUTSIDE)
    put(lab, "outside/secret.txt", OUTSIDE)
    put(lab, "root/index.html", b"<p>front\n")
    put(lab, "root/ten.txt", TEN)
    put(lab, "root/empty.txt", b"")
    put(lab, "root/big", BIG)
    put(lab, "root/page.html", PAGE)
    put(lab, "root/page.html.gz", gzip.compress(PAGE, mtime=0))
    put(lab, "root/page.html.br", b"as br")
    put(lab, "root/page.html.zst", b"as zstd" * 3)
    put(lab, "root/bare/file", b"x")
    put(lab, "errors/404.html", b"<p>own 404\n")
    put(lab, "errors/4xx.txt", b"own 4xx\n")
    put(lab, "errors/5xx.html", b"<p>own 5xx\n")
    put(lab, "errors/large.html", b"x" * 65537)
    put(lab, "errors/largest.html", b"x" * 65536)
    put(lab, "errors/empty.html", b"")
    put(lab, "app/page.html", b"<p>a page\n")
    put(lab, "app/docs/index.html", b"<p>docs\n")
    put(lab, "app/bare/file", b"x")
    lab.script("../app/front.php", SHOW)
    lab.script("../app/blog/index.php", SHOW)
    lab.script("own404.sh", "#!/bin/sh\nprintf 'Status: 404 Not Here\\nContent-Type: text/plain\\n\\nmine\\n'")


def put_links(lab):
    put(lab, "links/dir/file.txt", b"inside")
    for link, target in LINKS.items():
        os.symlink(target, lab.here("links/" + link))


@pytest.fixture(scope="module")
def server(shared_lab):
    put_tree(shared_lab)
    put_links(shared_lab)
    os.makedirs(shared_lab.here("listed"))
    return shared_lab.serve(CONFIG)


@pytest.fixture
def fresh(server):
    """A name below the root that no other test uses."""
    number = next(NUMBERS)
    return lambda name: f"{number}-{name}"


def ask(server, target, fields=(), method="GET", **more):
    """fields: a dict, or pairs when a name comes twice."""
    pairs = list(fields.items()) if isinstance(fields, dict) else list(fields)
    return server.request(method, target, fields=pairs, **more)


def seconds(value):
    """A date of a response, which has to be an IMF-fixdate."""
    assert IMF_FIXDATE.match(value), value
    return calendar.timegm(email.utils.parsedate(value))


def check_fields(response):
    """What every answer about a file has."""
    assert seconds(response.get("last-modified")) <= seconds(response.get("date"))
    assert STRONG_TAG.match(response.get("etag"))
    if response.status in (200, 206):
        assert response.get("accept-ranges") == "bytes"
        assert response.get("content-type")


def without(response, *names):
    ignored = {"date", "x-request-id", "connection", *names}
    return [field for field in response.fields if field[0] not in ignored]


def read_multipart(response):
    """The parts of a multipart/byteranges body: (type, first, last, size, bytes). RFC 2046 section 5.1, each byte."""
    match = re.fullmatch(r"multipart/byteranges; *boundary=\"?([0-9A-Za-z'()+_,./:=?-]{1,70})\"?",
                         response.get("content-type"))
    assert match, response
    assert response.get("content-range") is None  # RFC 9110 section 15.3.7.2
    assert int(response.get("content-length")) == len(response.body)
    delimiter = b"--" + match[1].encode()
    body, at, parts = response.body, 0, []
    while True:
        assert body.startswith(delimiter, at)
        at += len(delimiter)
        if body[at:at + 2] == b"--":
            assert body[at + 2:] in (b"", b"\r\n")
            return parts
        end = body.index(b"\r\n\r\n", at)
        assert body[at:at + 2] == b"\r\n"
        fields = dict(line.split(": ") for line in body[at + 2:end].decode().split("\r\n"))
        assert sorted(fields) == ["Content-Range", "Content-Type"]
        first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", fields["Content-Range"]).groups())
        at = end + 4 + last - first + 1
        parts.append((fields["Content-Type"], first, last, size, body[end + 4:at]))
        assert body[at:at + 2] == b"\r\n"
        at += 2


# Representations.

def test_fields_of_a_file(server):
    response = ask(server, "/ten.txt")
    assert response.status == 200 and response.body == TEN
    check_fields(response)
    assert response.get("last-modified") == PAST_FORMS[0]
    assert response.get("content-type") == "text/plain; charset=utf-8"
    assert response.get("content-length") == "10"
    for name in ("content-encoding", "content-range", "vary", "transfer-encoding"):
        assert response.get(name) is None


@pytest.mark.parametrize("name, kind", [
    ("a.html", "text/html; charset=utf-8"), ("A.HTML", "text/html; charset=utf-8"),
    ("a.css", "text/css; charset=utf-8"), ("a.mjs", "text/javascript; charset=utf-8"), ("a.json", "application/json"),
    ("a.svg", "image/svg+xml"), ("a.png", "image/png"), ("a.wasm", "application/wasm"), ("a.woff2", "font/woff2"),
    ("a.tar.gz", "application/gzip"), ("noextension", "application/octet-stream"),
    ("a.nosuchtype", "application/octet-stream"), ("html", "application/octet-stream"),
    ("a.html.unknown", "application/octet-stream"), ("dir.html/plain", "application/octet-stream"),
])
def test_types(server, name, kind):
    put(server.lab, "root/types/" + name, b"x")
    assert ask(server, "/types/" + name).get("content-type") == kind


ANY = "br, zstd, gzip"


@pytest.mark.parametrize("accept, coding", [
    (None, None), ("", None), ("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), (ANY, "br"), ("gzip, zstd", "zstd"),
    ("gzip, br;q=0.5", "gzip"), ("gzip;q=0.5, br;q=0.501", "br"), ("gzip;q=0.5", "gzip"), ("gzip;q=0.001", "gzip"),
    ("gzip;q=0", None), ("br;q=0, *", "zstd"), ("*", "br"), ("*;q=0, gzip", "gzip"), ("*;q=0.5, identity", None),
    ("*;q=0.5, zstd", "zstd"), ("identity", None), ("identity;q=0, gzip", "gzip"), ("identity, gzip;q=0.5", None),
    ("identity;q=0.5, gzip;q=0.5", "gzip"), ("x-gzip", "gzip"), ("GZip", "gzip"), ("gzip ; q=0.9 , br ; q=0.8", "gzip"),
    ("deflate", None), ("deflate, compress", None), ("gzip;q=2", None), ("gzip;q=x", None), (",, gzip ,", "gzip"),
    ("br;q=0.000, zstd;q=0.0, gzip;q=1.000", "gzip"), ("bro, gzip2", None),
])
def test_coding(server, accept, coding):
    fields = {} if accept is None else {"Accept-Encoding": accept}
    response = ask(server, "/page.html", fields)
    assert response.status == 200 and response.get("content-encoding") == coding
    check_fields(response)
    assert response.get("vary").lower() == "accept-encoding"
    assert response.get("content-type") == "text/html; charset=utf-8"
    expected = {None: PAGE, "gzip": gzip.compress(PAGE, mtime=0), "br": b"as br", "zstd": b"as zstd" * 3}
    assert response.body == expected[coding]
    head = ask(server, "/page.html", fields, "HEAD")
    assert head.status == 200 and without(head) == without(response)


def test_coding_in_two_fields(server):
    response = ask(server, "/page.html", [("Accept-Encoding", "gzip;q=0.5"), ("Accept-Encoding", "zstd;q=0.7")])
    assert response.get("content-encoding") == "zstd"


@pytest.mark.parametrize("accept", ["identity;q=0", "*;q=0", "identity;q=0, deflate", "identity;q=0, br;q=0, *;q=0"])
@pytest.mark.parametrize("target", ["/page.html", "/ten.txt"])
def test_nothing_acceptable(server, target, accept):
    fields = {"Accept-Encoding": accept}
    response = ask(server, target, fields)
    assert response.status == 406 and response.get("vary") == "Accept-Encoding"
    assert ask(server, target, fields, "HEAD").status == 406
    assert ask(server, "/nothing", fields).status == 404


def test_tag_of_each_coding(server):
    tags = {ask(server, "/page.html", {"Accept-Encoding": coding}).get("etag") for coding in ("", "br", "zstd", "gzip")}
    assert len(tags) == 4
    plain, coded = (ask(server, "/page.html", {"Accept-Encoding": coding}).get("etag") for coding in ("", "gzip"))
    for accept, own, other in (("", plain, coded), ("gzip", coded, plain)):
        accepting = {"Accept-Encoding": accept}
        response = ask(server, "/page.html", {**accepting, "If-None-Match": own})
        assert response.status == 304 and response.get("etag") == own
        assert response.get("vary").lower() == "accept-encoding"
        response = ask(server, "/page.html", {**accepting, "If-None-Match": other})
        assert response.status == 200 and response.get("etag") == own
        assert ask(server, "/page.html", {**accepting, "If-Match": own}).status == 200
        assert ask(server, "/page.html", {**accepting, "If-Match": other}).status == 412
        assert ask(server, "/page.html", {**accepting, "Range": "bytes=0-1", "If-Range": own}).status == 206
        assert ask(server, "/page.html", {**accepting, "Range": "bytes=0-1", "If-Range": other}).status == 200


def test_range_of_a_coded_one(server):
    whole = gzip.compress(PAGE, mtime=0)
    pieces = []
    for ask_for in (f"bytes=0-{len(whole) - 5}", "bytes=-4"):
        response = ask(server, "/page.html", {"Accept-Encoding": "gzip", "Range": ask_for})
        assert response.status == 206 and response.get("content-encoding") == "gzip"
        assert response.get("content-range").endswith(f"/{len(whole)}") and response.get("vary")
        pieces.append(response.body)
    assert gzip.decompress(b"".join(pieces)) == PAGE
    response = ask(server, "/page.html", {"Accept-Encoding": "gzip", "Range": "bytes=0-1,4-5"})
    assert [part[0] for part in read_multipart(response)] == ["text/html; charset=utf-8"] * 2
    assert [part[4] for part in read_multipart(response)] == [whole[:2], whole[4:6]]
    response = ask(server, "/page.html", {"Accept-Encoding": "br", "Range": "bytes=5-"})
    assert response.status == 416 and response.get("content-range") == "bytes */5"


def test_sibling_itself(server):
    response = ask(server, "/page.html.gz", {"Accept-Encoding": "gzip"})
    assert response.get("content-type") == "application/gzip" and response.get("content-encoding") is None
    assert gzip.decompress(response.body) == PAGE


def test_precompressed_off(server):
    response = ask(server, "/page.html", {"Accept-Encoding": ANY}, host="plain.test")
    assert response.body == PAGE and response.get("content-encoding") is None and response.get("vary") is None


def test_sibling_that_is_stale(server, fresh):
    name = fresh("stale.css")
    put(server.lab, "root/" + name, b"new", PAST)
    put(server.lab, f"root/{name}.gz", b"old", PAST - 1)
    assert ask(server, "/" + name, {"Accept-Encoding": "gzip"}).body == b"new"


def test_sibling_of_a_file_that_changes(server, fresh):
    """From the moment that the file is newer, what was made of it before is not sent."""
    name = fresh("changing.css")
    put(server.lab, "root/" + name, b"before")
    put(server.lab, f"root/{name}.gz", b"coded")
    with server.connect() as client:
        assert client.get("/" + name, fields=[("Accept-Encoding", "gzip")]).body == b"coded"
        put(server.lab, "root/" + name, b"behind", None)
        response = client.get("/" + name, fields=[("Accept-Encoding", "gzip")])
        assert response.body == b"behind" and response.get("content-encoding") is None


def test_sibling_that_comes_and_goes(server, fresh):
    name, accepting = fresh("late.css"), {"Accept-Encoding": "gzip"}
    put(server.lab, "root/" + name, b"plain")
    assert ask(server, "/" + name, accepting).body == b"plain"
    path = put(server.lab, f"root/{name}.gz", b"coded")
    response = wait_for(lambda: (it := ask(server, "/" + name, accepting)).get("content-encoding") and it, "a sibling")
    assert response.body == b"coded"
    put(server.lab, f"root/{name}.gz", b"other", None)
    again = ask(server, "/" + name, accepting)
    assert again.body == b"other" and again.get("etag") != response.get("etag")
    os.remove(path)
    for _ in range(3):
        response = ask(server, "/" + name, accepting)
        assert response.status == 200 and response.body == b"plain" and response.get("content-encoding") is None


def test_sibling_that_is_none(server, fresh):
    """A directory, a FIFO, a link to where the site does not follow."""
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("../secret.txt", path)):
        name = fresh(f"{next(NUMBERS)}.css")
        put(server.lab, "root/" + name, b"plain")
        make(server.lab.here(f"root/{name}.gz"))
        os.utime(server.lab.here(f"root/{name}.gz"), follow_symlinks=False)
        response = ask(server, "/" + name, {"Accept-Encoding": "gzip"})
        assert response.status == 200 and response.body == b"plain"
    os.utime(server.lab.here("secret.txt"))
    assert ask(server, "/" + name, {"Accept-Encoding": "gzip"}).body == b"plain"


# Conditions.

def conditions(tag):
    """What is asked, and the answer. The file is PAST old."""
    before, now, after = (email.utils.formatdate(PAST + n, usegmt=True) for n in (-1, 0, 1))
    other = '"other"'
    return [
        ({"If-None-Match": tag}, 304), ({"If-None-Match": "W/" + tag}, 304), ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": other}, 200), ({"If-None-Match": f"{other}, {tag}"}, 304),
        ({"If-None-Match": f'"a,b",W/"c" , W/{tag},'}, 304), ({"If-None-Match": tag.strip('"')}, 200),
        ({"If-None-Match": f'"x{tag}'}, 200), ({"If-None-Match": "w/" + tag}, 200), ({"If-None-Match": ""}, 200),
        ([("If-None-Match", other), ("If-None-Match", tag)], 304),
        ({"If-None-Match": "*, " + other}, 200),
        ({"If-Modified-Since": now}, 304), ({"If-Modified-Since": after}, 304), ({"If-Modified-Since": before}, 200),
        *(({"If-Modified-Since": form}, 304) for form in PAST_FORMS),
        ({"If-Modified-Since": "Sun Nov  6 08:49:36 1994"}, 200),
        ({"If-Modified-Since": "Sunday, 06-Nov-94 08:49:36 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200), ({"If-Modified-Since": "784111777"}, 200),
        ({"If-Modified-Since": now + ", " + now}, 200), ([("If-Modified-Since", now)] * 2, 200),
        ({"If-Modified-Since": now.replace("GMT", "CET")}, 200),
        ({"If-None-Match": other, "If-Modified-Since": now}, 200),
        ({"If-None-Match": tag, "If-Modified-Since": before}, 304),
        ({"If-Match": tag}, 200), ({"If-Match": "*"}, 200), ({"If-Match": other}, 412), ({"If-Match": "W/" + tag}, 412),
        ({"If-Match": f"{other}, {tag}"}, 200), ({"If-Match": ""}, 412),
        ([("If-Match", other), ("If-Match", tag)], 200),
        ({"If-Unmodified-Since": now}, 200), ({"If-Unmodified-Since": after}, 200),
        ({"If-Unmodified-Since": before}, 412), ({"If-Unmodified-Since": "Sun Nov  6 08:49:36 1994"}, 412),
        ({"If-Unmodified-Since": "Sunday, 06-Nov-94 08:49:36 GMT"}, 412), ({"If-Unmodified-Since": "tomorrow"}, 200),
        ({"If-Match": tag, "If-Unmodified-Since": before}, 200),
        ({"If-Match": other, "If-Unmodified-Since": after}, 412),
        ({"If-Match": other, "If-None-Match": tag}, 412), ({"If-Match": tag, "If-None-Match": tag}, 304),
        ({"If-Unmodified-Since": before, "If-None-Match": tag}, 412),
        ({"If-Unmodified-Since": now, "If-Modified-Since": now}, 304),
        ({"If-Match": tag, "If-None-Match": other}, 200),
        ({"If-None-Match": tag, "Range": "bytes=0-1"}, 304), ({"If-Match": other, "Range": "bytes=0-1"}, 412),
        ({"If-None-Match": tag, "Range": "bytes=99-"}, 304), ({"If-None-Match": other, "Range": "bytes=0-9"}, 206),
    ]


def test_conditions(server):
    with server.connect() as client:
        tag = client.get("/ten.txt").get("etag")
        for fields, status in conditions(tag):
            pairs = list(fields.items()) if isinstance(fields, dict) else fields
            response = client.get("/ten.txt", fields=pairs)
            assert response.status == status, fields
            head = client.request("HEAD", "/ten.txt", fields=pairs)
            assert head.status == (200 if status == 206 else status), fields
            if status == 412:
                assert response.get("content-range") is None and response.body != TEN
                continue
            check_fields(response)
            assert response.get("etag") == tag and response.get("last-modified") == PAST_FORMS[0]
            assert response.body == (b"" if status == 304 else TEN)
            if status == 304:
                assert response.get("content-length") in (None, "10") and without(head) == without(response)
        client.expect_nothing()


def test_conditions_of_what_is_no_file(server):
    """They count only where the answer without them would be 2xx (RFC 9110 section 13.2.1)."""
    for fields in ({"If-Match": '"x"'}, {"If-None-Match": "*"}, {"If-Unmodified-Since": PAST_FORMS[0]}):
        assert ask(server, "/nothing", fields).status == 404
        assert ask(server, "/bare", fields).status == 301
        assert ask(server, "/bare/", fields).status == 403
        assert ask(server, "/ten.txt", fields, "POST").status == 405


@pytest.mark.parametrize("mtime", [-1, 0, 2**31, 2**32 + 1])
def test_odd_times(server, fresh, mtime):
    """No Last-Modified is later than Date (RFC 9110 section 8.8.2.1), and each is a date."""
    name = fresh("odd.txt")
    path = put(server.lab, "root/" + name, b"odd", mtime)
    if os.stat(path).st_mtime != mtime:
        pytest.skip("the file system does not keep such a time")
    check_fields(ask(server, "/" + name))


# Ranges.

@pytest.mark.parametrize("what, first, last", [
    ("bytes=0-0", 0, 0), ("bytes=0-", 0, 9), ("bytes=0-9", 0, 9), ("bytes=0-10", 0, 9), ("bytes=9-9", 9, 9),
    ("bytes=3-5", 3, 5), ("bytes=5-", 5, 9), ("bytes=-1", 9, 9), ("bytes=-5", 5, 9), ("bytes=-10", 0, 9),
    ("bytes=-11", 0, 9), ("bytes=0-99999999999999999999", 0, 9), ("bytes=-99999999999999999999", 0, 9),
    ("bytes=0-9223372036854775807", 0, 9), ("bytes=0-18446744073709551615", 0, 9), ("Bytes=0-1", 0, 1),
    ("bytes=0000-0001", 0, 1), ("bytes=0-1,", 0, 1), ("bytes=,0-1", 0, 1), ("bytes= 0-1", 0, 1),
    ("bytes=0-1,10-", 0, 1), ("bytes=10-11, 4-5 ,-0", 4, 5),
])
def test_range(server, what, first, last):
    response = ask(server, "/ten.txt", {"Range": what})
    assert response.status == 206 and response.body == TEN[first:last + 1]
    check_fields(response)
    assert response.get("content-range") == f"bytes {first}-{last}/10"
    assert response.get("content-length") == str(last - first + 1)
    assert response.get("content-type") == "text/plain; charset=utf-8"
    whole = ask(server, "/ten.txt")
    assert without(whole, "content-length", "content-range") == without(response, "content-length", "content-range")


@pytest.mark.parametrize("what", ["bytes=10-", "bytes=10-11", "bytes=99999999999999999999-", "bytes=-0",
                                  "bytes=10-,20-", "bytes=18446744073709551616-18446744073709551617"])
def test_range_that_cannot_be(server, what):
    response = ask(server, "/ten.txt", {"Range": what})
    assert response.status == 416 and response.get("content-range") == "bytes */10"
    assert response.get("content-length") == str(len(response.body)) and response.body != TEN


@pytest.mark.parametrize("what", [
    "bytes=x", "bytes", "bytes=", "bytes=,", "bytes 0-1", "bytes=-", "bytes=1-0", "bytes=0-0-0", "bytes=0-1,x",
    "bytes=5-4,0-1", "bytes=0 -1", "bytes=+0-1", "bytes=0x0-1", "bytes=0-1;", "bytes=--1", "items=0-1", "=0-1",
    "0-1", "bytes =0-1", "bytes=99999999999999999999-99999999999999999998", "bytes=0-,0-", "bytes=0-0,0-",
    "bytes=" + ",".join(["0-0"] * 17), "bytes=" + ",".join(["0-0"] * 900),
])
def test_range_that_does_not_count(server, what):
    response = ask(server, "/ten.txt", {"Range": what})
    assert response.status == 200 and response.body == TEN and response.get("content-range") is None


def test_range_elsewhere(server):
    """Only of GET, only once, only of files."""
    assert ask(server, "/ten.txt", [("Range", "bytes=0-1"), ("Range", "bytes=2-3")]).body == TEN
    head = ask(server, "/ten.txt", {"Range": "bytes=0-1"}, "HEAD")
    assert head.status == 200 and head.get("content-length") == "10" and head.get("content-range") is None
    assert ask(server, "/ten.txt", {"Range": "bytes=99-"}, "HEAD").status == 200
    assert ask(server, "/cgi-bin/hello.sh", {"Range": "bytes=0-1"}).body == b"hello\n"
    assert ask(server, "/nothing", {"Range": "bytes=0-1"}).status == 404


def test_range_of_nothing(server):
    assert ask(server, "/empty.txt").get("content-length") == "0"
    for what, status in (("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-0", 416), ("bytes=-1", 200)):
        response = ask(server, "/empty.txt", {"Range": what})
        assert response.status == status, what
        if status == 416:
            assert response.get("content-range") == "bytes */0"


@pytest.mark.parametrize("n", range(2, 17))
def test_many_ranges(server, n):
    """In the order that was asked for, also backwards."""
    spans = [(i * 60, i * 60 + 40 + i) for i in range(n)][::-1 if n % 2 else 1]
    response = ask(server, "/page.html", {"Range": "bytes=" + ", ".join(f"{a}-{b}" for a, b in spans)})
    assert response.status == 206
    check_fields(response)
    assert read_multipart(response) == [("text/html; charset=utf-8", a, b, len(PAGE), PAGE[a:b + 1]) for a, b in spans]


def test_sixteen_ranges(server):
    for what, spans in (("0-4,5-9", [(0, 4), (5, 9)]), ("-1,0-0", [(9, 9), (0, 0)]), ("0-0,0-0", [(0, 0), (0, 0)]),
                        ("8-,0-1,99-", [(8, 9), (0, 1)]), ("2-4,3-5", [(2, 4), (3, 5)])):
        response = ask(server, "/ten.txt", {"Range": "bytes=" + what})
        assert response.status == 206, what
        assert read_multipart(response) == [("text/plain; charset=utf-8", a, b, 10, TEN[a:b + 1]) for a, b in spans]
    spans = [(i * 1_000_003, i * 1_000_003 + i) for i in range(16)]
    response = ask(server, "/big", {"Range": "bytes=" + ",".join(f"{a}-{b}" for a, b in spans)})
    assert [part[1:] for part in read_multipart(response)] == [(a, b, len(BIG), BIG[a:b + 1]) for a, b in spans]


def test_boundaries_differ(server):
    kinds = {ask(server, "/ten.txt", {"Range": "bytes=0-0,2-2"}).get("content-type") for _ in range(5)}
    assert len(kinds) == 5


@pytest.mark.parametrize("host", ["a", "plain.test"])
def test_if_range(server, host):
    tag = ask(server, "/ten.txt", host=host).get("etag")
    before, now, after = (email.utils.formatdate(PAST + n, usegmt=True) for n in (-1, 0, 1))
    cases = [([("If-Range", tag)], True), *(([("If-Range", form)], True) for form in PAST_FORMS),
             ([("If-Range", "W/" + tag)], False), ([("If-Range", '"other"')], False), ([("If-Range", before)], False),
             ([("If-Range", after)], False), ([("If-Range", "*")], False), ([("If-Range", "nonsense")], False),
             ([("If-Range", "")], False), ([("If-Range", f'{tag}, "x"')], False), ([("If-Range", tag)] * 2, False),
             ([("If-Range", tag.strip('"'))], False), ([("If-Range", tag), ("If-Unmodified-Since", now)], True),
             ([("If-Range", now), ("If-Match", tag)], True)]
    for fields, counts in cases:
        response = ask(server, "/ten.txt", [("Range", "bytes=2-3"), *fields], host=host)
        assert (response.status, response.body) == ((206, b"23") if counts else (200, TEN)), fields
        response = ask(server, "/ten.txt", [("Range", "bytes=0-0,2-3"), *fields], host=host)
        assert response.status == (206 if counts else 200), fields
        response = ask(server, "/ten.txt", [("Range", "bytes=99-"), *fields], host=host)
        assert response.status == (416 if counts else 200), fields
    assert ask(server, "/ten.txt", {"If-Range": tag}, host=host).status == 200


def test_if_range_by_the_date_of_this_second(server, fresh):
    """It may change again within the second: no strong validator (RFC 9110 section 8.8.2.2)."""
    name = fresh("young.txt")
    put(server.lab, "root/" + name, TEN, int(time.time()) + 100)
    response = ask(server, "/" + name)
    response = ask(server, "/" + name, {"Range": "bytes=0-1", "If-Range": response.get("last-modified")})
    assert response.status == 200


# Large files.

def read_slowly(client, response, enough):
    """Up to so many bytes, a little at a time; then the rest at once."""
    while len(client.bytes) < enough:
        client.bytes += client.socket.recv(7001)
    return b"".join(client.body_pieces(response))


def test_big_file(server):
    assert ask(server, "/big").body == BIG
    for first, last in ((0, len(BIG) - 1), (1, len(BIG) - 2), (32768, 65536), (1000, 30_000_001), (41_000_000, None)):
        response = ask(server, "/big", {"Range": f"bytes={first}-{'' if last is None else last}"})
        assert response.status == 206 and response.body == BIG[first:None if last is None else last + 1]


@pytest.mark.parametrize("n", [1, 16])
def test_slow_reader(server, n):
    size = len(BIG) // 16 - 1
    spans = [(i * size, i * size + size - 1) for i in range(n)]
    with server.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.send_request("GET", "/big", fields=[("Range", "bytes=" + ",".join(f"{a}-{b}" for a, b in spans))])
        response = client.read_head()
        response.body = read_slowly(client, response, 500_000)
        if n == 1:
            assert response.body == BIG[spans[0][0]:spans[0][1] + 1]
        else:
            assert [part[4] for part in read_multipart(response)] == [BIG[a:b + 1] for a, b in spans]
        assert client.get("/ten.txt").body == TEN
        client.expect_nothing()


@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=1-"}, {"Range": "bytes=0-9,20-18000000"}],
                         ids=["whole", "range", "ranges"])
def test_file_that_shrinks(server, fresh, fields):
    """What was announced cannot be sent: the answer ends too early for anyone to take it for whole."""
    name = fresh("shrinks")
    path = put(server.lab, "root/" + name, BIG[:20_000_000])
    with server.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.send_request("GET", "/" + name, fields=list(fields.items()))
        response = client.read_head()
        assert response.status in (200, 206)
        os.truncate(path, 100_000)
        with pytest.raises(Closed):  # how much came does not matter: less than was announced
            for _ in client.body_pieces(response):
                pass
    assert ask(server, "/ten.txt").body == TEN


def test_file_that_grows(server, fresh):
    """What comes behind the announced length is not sent."""
    name = fresh("grows")
    path = put(server.lab, "root/" + name, BIG[:20_000_000])
    with server.connect() as client:
        client.send_request("GET", "/" + name)
        response = client.read_head()
        with open(path, "ab") as file:
            file.write(b"more" * 1000)
        assert b"".join(client.body_pieces(response)) == BIG[:20_000_000]
        assert client.get("/ten.txt").body == TEN


def test_client_gone(server, fresh):
    """Clients that leave in the middle leave no open file behind, however it was sent."""
    name = fresh("left")
    path = put(server.lab, "root/" + name, BIG[:9_000_000])

    def n_open():
        found = []
        for front in server.fronts():
            for fd in os.listdir(f"/proc/{front}/fd"):
                try:
                    found.append(os.readlink(f"/proc/{front}/fd/{fd}"))
                except OSError:
                    pass
        return found.count(path)

    for what in ("bytes=0-", "bytes=1-4000000,4000002-", "bytes=0-1,2-8000000"):
        for end in ("close", "reset"):
            client = server.connect()
            client.send_request("GET", "/" + name, fields=[("Range", what)])
            client.read_head()
            getattr(client, end)()
    wait_for(lambda: n_open() <= 1, "the end of what clients have left")
    put(server.lab, "root/" + name, b"new")
    assert ask(server, "/" + name).body == b"new"
    wait_for(lambda: n_open() == 1, "the end of the file that was replaced")


# Files that change.

def test_more_files_than_descriptors(lab, monkeypatch):
    """What is kept open gives way to what is asked for."""
    wrapper = lab.file("few", f'#!/bin/sh\nulimit -n 120\nexec {BINARY} "$@"\n', 0o755)
    monkeypatch.setattr("server.BINARY", wrapper)
    for n in range(300):
        put(lab, f"root/{n}.txt", b"%d" % n)
    server = lab.serve("[site *]\nroot = {root}\n")
    with server.connect() as client:
        for n in range(300):
            response = client.get(f"/{n}.txt")
            assert response.status == 200 and response.body == b"%d" % n
        assert server.get("/0.txt").body == b"0"


def test_replaced_by_another(server, fresh):
    name = fresh("replaced.txt")
    put(server.lab, "root/" + name, b"one")
    with server.connect() as client:
        tags = [client.get("/" + name).get("etag")]
        for n in range(20):
            content = b"%03d" % n
            new = put(server.lab, "root/.draft" + name, content)
            os.utime(new, ns=(PAST * 10**9, PAST * 10**9 + n + 1))  # a nanosecond is a difference
            os.replace(new, server.lab.here("root/" + name))
            response = client.get("/" + name, fields=[("If-None-Match", tags[-1])])
            assert response.status == 200 and response.body == content
            tags.append(response.get("etag"))
        assert len(set(tags)) == len(tags)
        os.remove(server.lab.here("root/" + name))
        assert client.get("/" + name).status == 404


def test_replaced_by_a_like_one(server, fresh):
    """Size and time say nothing here: the content is the new one's all the same."""
    name = fresh("alike.txt")
    put(server.lab, "root/" + name, b"one")
    with server.connect() as client:
        for content in (b"two", b"six", b"ten"):
            client.get("/" + name)
            os.replace(put(server.lab, "root/.draft" + name, content), server.lab.here("root/" + name))
            assert client.get("/" + name).body == content


def test_rewritten_in_place(server, fresh):
    name = fresh("rewritten.txt")
    path = put(server.lab, "root/" + name, b"000", None)
    with server.connect() as client:
        for n in range(1, 20):
            tag, before = client.get("/" + name).get("etag"), os.stat(path).st_mtime_ns
            while os.stat(path).st_mtime_ns == before:  # as coarse as the file system's clock is
                put(server.lab, "root/" + name, b"%03d" % n, None)
            response = client.get("/" + name, fields=[("If-None-Match", tag)])
            assert response.status == 200 and response.body == b"%03d" % n
            assert response.get("etag") != tag


def test_kind_that_changes(server, fresh):
    name = fresh("thing")
    path = put(server.lab, "root/" + name, b"file")
    with server.connect() as client:
        assert client.get("/" + name).body == b"file"
        os.remove(path)
        os.mkdir(path)
        assert client.get("/" + name).get("location") == f"/{name}/"
        os.rmdir(path)
        os.mkfifo(path)
        assert client.get("/" + name).status == 403
        os.remove(path)
        os.symlink("../secret.txt", path)
        assert client.get("/" + name).status == 403
        os.remove(path)
        assert client.get("/" + name).status == 404
        put(server.lab, "root/" + name, b"again")
        assert client.get("/" + name).body == b"again"


# What is no file to be read.

def check_forbidden(server, target, host="a"):
    for method in ("GET", "HEAD"):
        assert ask(server, target, method=method, host=host).status == 403
    assert ask(server, target + "/", host=host).status == 404


def test_pipe(server, fresh):
    name = fresh("pipe")
    os.mkfifo(server.lab.here("root/" + name))
    check_forbidden(server, "/" + name)


def test_device(server):
    check_forbidden(server, "/zero", "on.test")


def test_socket(server, fresh):
    name = fresh("s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(server.lab.here("root/" + name))
        check_forbidden(server, "/" + name)


def test_unreadable(lab):
    """By the user that the fronts have; root may read anything."""
    put(lab, "root/none.txt", b"x", mode=0)
    put(lab, "root/some.txt", b"x")
    put(lab, "root/closed/file.txt", b"x")
    put(lab, "root/blind/file.txt", b"x")
    os.chmod(lab.here("root/closed"), 0o600)
    os.chmod(lab.here("root/blind"), 0o711)
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    server = lab.serve("[site *]\nroot = {root}\nlisting = on", **user)
    with server.connect() as client:
        assert client.get("/some.txt").body == b"x"
        assert client.get("/none.txt").status == 403
        assert client.get("/closed/file.txt").status == 403
        assert client.get("/closed/").status == 403
        assert client.get("/blind/file.txt").body == b"x"
        assert client.get("/blind/").status == 403
        os.chmod(lab.here("root/some.txt"), 0)
        assert client.get("/some.txt").status == 403
        os.chmod(lab.here("root/some.txt"), 0o644)
        assert client.get("/some.txt").status == 200
    os.chmod(lab.here("root/closed"), 0o755)


HIDDEN = [".env", ".git/config", "sub/.htaccess", "page.php~", "#page#", "a.bak", "a.orig", "a.rej", "a.save", "a.swo",
          ".a.swp", "sub.bak/a.txt", "sub/.well-known/a.txt", ".well-known/.env", "..."]


def test_hidden(server):
    for name in HIDDEN + [".well-known/a.txt", "sub/a.txt"]:
        put(server.lab, "root/hidden/" + name, b"hidden")
        put(server.lab, "root/" + name, b"hidden")
    with server.connect() as client:
        for name in HIDDEN:
            target = urllib.parse.quote(name)
            for asked in (target, target.replace(".", "%2e"), "hidden/" + target):
                response = client.get("/" + asked)
                assert response.status == 403 and response.body != b"hidden", asked
            assert client.get("/" + target, host="plain.test").body == b"hidden", name
            assert client.get("/" + target + ".none").status in (403, 404)
        assert client.get("/.well-known/a.txt").body == b"hidden"
        assert client.get("/hidden/.well-known/a.txt").status == 403
        assert client.get("/sub/a.txt").body == b"hidden"
        for target in ("/.git", "/.git/", "/.nothing", "/sub.bak", "/sub.bak/", "/sub/.well-known/"):
            assert client.get(target).status == 403, target
        for target in ("/cgi-bin/.x.sh", "/cgi-bin/x.sh~"):
            server.lab.script(os.path.basename(target), "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nran'")
            assert client.get(target).status == 403, target


# Sources of programs.

SOURCE = b"#!/bin/sh\n# source code\nprintf 'Content-Type: text/plain\\n\\nran %s' \"$PATH_INFO\"\n"

SOURCE_SITES = """
    [site {policy}.source.test]
    root = {path}/source
    symlinks = {policy}
    listing = on
    error_page[404] = /alias.txt
    [route /plain/*]
    gateway = static
    [route /scripts/*]
    gateway = cgi
    [route /tool/*]
    gateway = cgi
    dir = {path}/source/tools
    [route /app/*]
    gateway = cgi
    program = {path}/source/bin/app
    [route /exact]
    gateway = cgi
    [route /fast/*]
    gateway = fastcgi
    pool = fast
    [route *.php]
    gateway = cgi
"""

FAST_POOL = """
    [pool fast]
    command = $script
    pm = static
    pm.max_children = 1
"""

PROGRAMS = ["x.php", "sub/x.php", "scripts/x", "scripts/sub/x", "tools/x", "bin/app", "exact"]


@pytest.fixture(scope="module")
def sources(shared_lab, server):
    lab = shared_lab
    for name in PROGRAMS + ["fast/x", "plain/x.php"]:
        put(lab, "source/" + name, SOURCE, mode=0o755)
    put(lab, "source/page.txt", b"a page", PAST - 1)
    put(lab, "source/sub/page.txt", b"a page")
    for n, name in enumerate(PROGRAMS):
        os.symlink(name, lab.here(f"source/alias{n}.txt"))
    for link, target in (("alias.txt", "x.php"), ("page.txt.gz", "x.php"), ("linked", "scripts"), ("turned", "tools"),
                         ("sub/up", ".."), ("fast.txt", "fast/x"), ("second.txt", "alias0.txt")):
        os.symlink(target, lab.here("source/" + link))
    sites = "".join(SOURCE_SITES.replace("{policy}", policy) for policy in ("off", "beneath", "on"))
    return lab.serve(sites + FAST_POOL, access_log="off")


@pytest.mark.parametrize("policy", ["off", "beneath", "on"])
def test_source_is_not_served(sources, policy):
    """Whatever way leads to it; what the route runs it still runs."""
    aliases = [f"/alias{n}.txt" for n in range(len(PROGRAMS))]
    aliases += ["/alias.txt", "/linked/x", "/linked/sub/x", "/turned/x", "/second.txt", "/sub/up/alias.txt",
                "/sub/up/bin/app", "/sub/up/tools/x"]
    direct = ["/tools/x", "/bin/app", "/%62in/app", "/bin//app", "/bin/./app", "/tool/../tools/x"]
    listed = ["/linked/", "/turned/", "/tools/", "/sub/up/tools/"]
    with sources.connect() as client:
        for target in aliases + direct + listed:
            for fields in ([], [("Range", "bytes=0-3")], [("Accept-Encoding", "gzip")], [("If-None-Match", '"x"')]):
                response = client.get(target, fields=fields, host=f"{policy}.source.test")
                assert response.status == 403 and b"source" not in response.body, (target, response)
            assert client.request("HEAD", target, host=f"{policy}.source.test").status == 403
        client.expect_nothing()


def test_source_of_a_fastcgi_script_is_not_served(sources):
    for policy in ("off", "beneath", "on"):
        response = ask(sources, "/fast.txt", host=f"{policy}.source.test")
        assert response.status == 403 and b"source" not in response.body


@pytest.mark.parametrize("target", ["/x.php", "/x.php/", "/x.php/more", "/%78.php", "/x.php%2f", "/sub/x.php",
                                    "/x%2Ephp", "/x.php?source", "/sub/../x.php", "/scripts/x", "/scripts/sub/x/",
                                    "/tool/x/y", "/app/x", "/app", "/exact"])
def test_program_runs_where_it_should(sources, target):
    response = ask(sources, target, host="beneath.source.test")
    assert response.status == 200 and response.body.startswith(b"ran")


@pytest.mark.parametrize("target", ["/x.PHP", "/x.php.", "/x.php%20", "/scripts", "/scripts/", "/tool", "/tool/",
                                    "/exact/", "/nothing", "/x.php%00.txt", "/x.php~"])
def test_no_source_by_other_names(sources, target):
    """The error page of this site is a link to a program: it is not shown either."""
    response = ask(sources, target, host="on.source.test")
    assert response.status in (400, 403, 404) and b"source" not in response.body and b"printf" not in response.body


def test_static_route_serves_source(sources):
    assert ask(sources, "/plain/x.php", host="beneath.source.test").body == SOURCE
    assert ask(sources, "/plain/x.php", {"Range": "bytes=0-3"}, host="beneath.source.test").body == SOURCE[:4]


def test_sibling_is_no_source(sources):
    for policy in ("off", "beneath", "on"):
        response = ask(sources, "/page.txt", {"Accept-Encoding": "gzip"}, host=f"{policy}.source.test")
        assert response.status == 200 and response.body == b"a page"


def test_listing_has_no_source(sources):
    """What it shows can be asked for."""
    for policy in ("off", "beneath", "on"):
        with sources.connect() as client:
            names = [entry["name"] for entry in json.loads(client.get("/?json", host=f"{policy}.source.test").body)]
            assert {"page.txt", "x.php"} <= set(names)
            for name in names:
                if name.endswith(".txt"):
                    assert client.get("/" + name, host=f"{policy}.source.test").status == 200, (policy, name)


def test_program_that_is_replaced(sources):
    """A request for a link to it comes at any moment, also between the old file's end and the new one's beginning."""
    lab, is_over = sources.lab, threading.Event()

    def replace():
        while not is_over.is_set():
            for name in ("x.php", "bin/app"):
                put(lab, "source/.draft", SOURCE, None, 0o755)
                os.replace(lab.here("source/.draft"), lab.here("source/" + name))

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        with sources.connect() as client:
            for _ in range(100):
                for target in ("/alias.txt", "/bin/app") * 10:
                    client.send_request("GET", target, host="beneath.source.test")
                for _ in range(20):
                    response = client.read()
                    assert response.status in (403, 404) and b"source" not in response.body
    finally:
        is_over.set()
        thread.join()


def test_program_behind_a_link(lab):
    """Releases by a link that is turned: the new release's programs are as little served as the old one's."""
    for release in ("one", "two"):
        put(lab, f"root/{release}/app", SOURCE, mode=0o755)
        put(lab, f"root/{release}/scripts/x", SOURCE, mode=0o755)
    os.symlink("one", lab.here("root/now"))
    server = lab.serve("[site *]\nroot = {root}\n[route /run/*]\ngateway = cgi\nprogram = {root}/now/app\n"
                       "[route /now/scripts/*]\ngateway = cgi\n")
    for release in ("one", "two"):
        assert ask(server, "/run/a").body == b"ran /a"
        assert ask(server, "/now/scripts/x").body == b"ran "
        for target in ("/now/app", f"/{release}/app", f"/{release}/scripts/x"):
            response = ask(server, target)
            assert response.status == 403 and b"source" not in response.body, (release, target)
        os.symlink("two", lab.here("root/next"))
        os.replace(lab.here("root/next"), lab.here("root/now"))


def test_programs_below_a_link_that_is_turned(lab):
    """The root itself is behind the link."""
    for release in ("one", "two"):
        put(lab, f"{release}/www/scripts/x", SOURCE + release.encode(), mode=0o755)
    os.symlink("one", lab.here("cur"))
    server = lab.serve("[site *]\nroot = {path}/cur/www\n[route /run/*]\ngateway = cgi\ndir = {path}/cur/www/scripts\n")
    with server.connect() as client:
        assert client.get("/run/x").body == b"ran " and client.get("/scripts/x").status == 403
        os.symlink("two", lab.here("next"))
        os.replace(lab.here("next"), lab.here("cur"))
        until = time.monotonic() + 1.5  # beyond what is remembered of files
        while time.monotonic() < until:
            response = client.get("/scripts/x")
            assert response.status in (403, 404) and b"source" not in response.body
            time.sleep(0.02)
        assert client.get("/run/x").body == b"ran "


def test_program_of_another_site(lab):
    """The one site runs what the other, with the same root, would show."""
    put(lab, "root/x.php", SOURCE, mode=0o755)
    put(lab, "root/page.txt", b"a page")
    server = lab.serve("[site one.test]\nroot = {root}\n[route *.php]\ngateway = cgi\n[site *]\nroot = {root}\n")
    assert ask(server, "/x.php", host="one.test").body == b"ran "
    response = ask(server, "/x.php")
    assert response.status == 403 and b"source" not in response.body
    assert ask(server, "/page.txt").body == b"a page"


def test_program_that_comes_later(lab):
    """The directory that a route runs programs from is made after the start."""
    server = lab.serve("[site *]\nroot = {root}\n[route /late/*]\ngateway = cgi\n")
    assert ask(server, "/late/x").status == 404
    put(lab, "root/late/x", SOURCE, mode=0o755)
    os.symlink("late/x", lab.here("root/alias.txt"))
    assert ask(server, "/late/x").body == b"ran "
    response = ask(server, "/alias.txt")
    assert response.status == 403 and b"source" not in response.body


def test_program_of_a_pool(lab):
    """The command of a pool that a route sends its requests to is a program that it runs."""
    os.makedirs(lab.here("root"), exist_ok=True)
    os.link(lab.here("cgi/count"), lab.here("root/count"))
    server = lab.serve("[site *]\nroot = {root}\n[route /fast/*]\ngateway = fastcgi\npool = count\n"
                       "[pool count]\ncommand = {root}/count\npm = static\npm.max_children = 1\n")
    assert ask(server, "/fast/").status == 200
    assert ask(server, "/count").status == 403


def test_script_in_the_command_of_a_pool(lab):
    """It is the interpreter that the command names first."""
    put(lab, "root/app.py", "import time  # source\ntime.sleep(1000)\n")
    server = lab.serve("[site *]\nroot = {root}\n[route /fast/*]\ngateway = fastcgi\npool = app\n"
                       "[pool app]\ncommand = python3 {root}/app.py\npm = static\npm.max_children = 1\n")
    response = ask(server, "/app.py")
    assert response.status == 403 and b"source" not in response.body


# Links.

@pytest.mark.parametrize("host, target, status", [
    ("off.test", "/dir/file.txt", 200), ("off.test", "/inside", 403), ("off.test", "/here/file.txt", 403),
    ("off.test", "/dir/back", 403), ("off.test", "/outside", 403), ("off.test", "/here/", 403),
    ("off.test", "/loop", 403),
    ("beneath.test", "/inside", 200), ("beneath.test", "/here/file.txt", 200), ("beneath.test", "/dir/back", 200),
    ("beneath.test", "/round", 200), ("beneath.test", "/outside", 403), ("beneath.test", "/absolute", 403),
    ("beneath.test", "/up/secret.txt", 403), ("beneath.test", "/up/", 403), ("beneath.test", "/dangling", 404),
    ("beneath.test", "/loop", 403), ("beneath.test", "/here/", 200), ("beneath.test", "/here", 301),
    ("on.test", "/inside", 200), ("on.test", "/outside", 200), ("on.test", "/up/secret.txt", 200),
    ("on.test", "/up/", 200), ("on.test", "/absolute", 200), ("on.test", "/dangling", 404), ("on.test", "/loop", 403),
])
def test_links(server, host, target, status):
    response = ask(server, target, host=host)
    assert response.status == status
    if status == 200 and target in ("/outside", "/up/secret.txt"):
        assert response.body == OUTSIDE
    elif status != 200:
        assert OUTSIDE not in response.body


def test_link_that_comes_later(server):
    """A way that was free of links, and is no longer: the file at its end is the same."""
    lab = server.lab
    put(lab, "links/way/file.txt", b"inside")
    with server.connect() as client:
        assert client.get("/way/file.txt", host="off.test").status == 200
        assert client.get("/way/file.txt", host="beneath.test").status == 200
        os.rename(lab.here("links/way"), lab.here("moved"))
        os.symlink("../moved", lab.here("links/way"))
        for host in ("off.test", "beneath.test"):  # within a second
            wait_for(lambda: client.get("/way/file.txt", host=host).status == 403, "the link to be noticed")
        assert client.get("/way/file.txt", host="on.test").status == 200
        os.remove(lab.here("links/way"))


def test_links_in_listings(server):
    expected = {"off.test": {"dir"}, "beneath.test": {"dir", "inside", "here", "round"},
                "on.test": {"dir", "inside", "here", "round", "outside", "absolute", "up"}}
    for host, names in expected.items():
        listed = {entry["name"] for entry in json.loads(ask(server, "/?json", host=host).body)}
        assert listed & {"dir", *LINKS} == names, host


@pytest.mark.parametrize("policy", ["off", "beneath"])
def test_links_that_are_swapped(server, policy):
    """A file and a link that leads out, a directory and a link to one outside, exchanged all the time."""
    lab, is_over = server.lab, threading.Event()
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    pairs = []
    for kind in ("file", "directory"):
        a, b = (lab.here(f"links/{policy}-{kind}{suffix}") for suffix in ("", ".other"))
        if kind == "file":
            put(lab, a, b"inside")
        else:
            put(lab, os.path.join(a, "secret.txt"), b"inside")
        os.symlink("../secret.txt" if kind == "file" else "../outside", b)
        pairs.append((a.encode(), b.encode()))

    def swap():
        while not is_over.is_set():
            for a, b in pairs:
                renameat2(-100, a, -100, b, 2)  # RENAME_EXCHANGE

    targets = [f"/{policy}-file", f"/{policy}-directory/secret.txt", f"/{policy}-directory/",
               f"/{policy}-directory/?json"]
    seen = set()
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with server.connect() as client:
            for _ in range(40):
                for target in targets * 3:
                    client.send_request("GET", target, host=policy + ".test")
                for _ in range(12):
                    response = client.read()
                    seen.add(response.status)
                    assert response.status in (200, 403) and OUTSIDE not in response.body
    finally:
        is_over.set()
        thread.join()
    assert seen == {200, 403}
    for a, b in pairs:
        for path in (a, b):
            if os.path.islink(path):
                os.remove(path)


# Directories.

@pytest.mark.parametrize("name", [
    b"plain", b"with space", "é ü".encode(), b"\xff\xfe", b"line\r\nX-Injected: 1", b"100%41", b"a?b#c", b"\"<>&'",
    b"a:b;c,d=e+f", b"{|}^`", b"back\\slash", b"http:", b"\x01\x7f",
])
def test_redirect_to_slash(server, name):
    os.makedirs(os.path.join(server.lab.root.encode(), b"slash", name), exist_ok=True)
    target = "/slash/" + urllib.parse.quote(name)
    for query in ("", "?", "?x=1&y=%20%0d%0a", "?a=b?c/d"):
        for method in ("GET", "HEAD"):
            response = ask(server, target + query, method=method)
            assert response.status == 301 and response.get("x-injected") is None
            location = response.get("location")
            assert REFERENCE.match(location)
            path, mark, rest = location.partition("?")
            assert urllib.parse.unquote_to_bytes(path) == b"/slash/" + name + b"/" and mark + rest == query
    assert ask(server, location).status == 403  # there: without index file or listing


def test_redirect_has_a_reference(server):
    """Location is a URI-reference (RFC 9110 section 10.2.2), though clients send more in a query than may be in one."""
    for target, host in (("/bare?{a|b}^`", "a"), ("/old/x?{a|b}^`", "moved.test")):
        response = ask(server, target, host=host)
        assert response.status in (301, 302)
        assert REFERENCE.match(response.get("location")), response.get("location")


def test_no_listing(server):
    for target, status in (("/bare/", 403), ("/nothing/", 404), ("/ten.txt/", 404), ("/bare/nothing/", 404)):
        for method in ("GET", "HEAD"):
            assert ask(server, target, method=method).status == status


class Page(html.parser.HTMLParser):
    """The links of a listing, and what stands in them."""

    def __init__(self, text):
        super().__init__()
        self.links, self.is_link = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "iframe", "object", "b1")
        if tag == "a":
            self.links.append([dict(attrs)["href"], ""])
            self.is_link = True

    def handle_endtag(self, tag):
        self.is_link = self.is_link and tag != "a"

    def handle_data(self, data):
        if self.is_link:
            self.links[-1][1] += data


ODD_NAMES = [b"plain.txt", b"<b1>bold&amp;\"'", b"line\r\nX-Injected: 1", b"\xff\xfe", "é ü.txt".encode(), b" space ",
             b"javascript:alert(1)", b"a?b#c", b"%41", b"-", b"a;b", b"c:d", b"back\\slash", b"\x01\x7f", b"=x", b"~x",
             b"&lt;script&gt;", b"x" * 255]


def joined(base, href):
    """The target that a link stands for, as a browser finds it."""
    return urllib.parse.urljoin("http://listed.test" + base, href).removeprefix("http://listed.test")


def test_listing(server):
    directory = server.lab.here("listed/odd").encode()
    for name in ODD_NAMES:
        put(server.lab, os.fsdecode(os.path.join(directory, name)), b"file " + name)
    os.mkfifo(server.lab.here("listed/odd/pipe"))
    os.symlink("/etc/hostname", server.lab.here("listed/odd/outward"))
    for name in (".hidden", "old~", ".git/config"):
        put(server.lab, "listed/odd/" + name, b"hidden")
    response = ask(server, "/odd/", host="listed.test")
    assert response.status == 200 and response.get("content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.get("content-security-policy")
    assert response.get("x-content-type-options") == "nosniff"
    head = ask(server, "/odd/", host="listed.test", method="HEAD")
    assert without(head) == without(response) and head.get("content-length") == str(len(response.body))
    entries = [link for link in Page(response.text).links if link[0].startswith("./")]
    assert len(entries) == len(ODD_NAMES)
    with server.connect() as client:
        seen = set()
        for href, text in entries:
            target = joined("/odd/", href)
            name = urllib.parse.unquote_to_bytes(target.removeprefix("/odd/"))
            assert text == name.decode(errors="replace") or b"\1" in name or b"\r" in name
            answer = client.get(target, host="listed.test")
            assert answer.status == 200
            assert answer.body == b"file " + name
            seen.add(name)
        assert seen == set(ODD_NAMES)


def test_listings_of_odd_directories(server):
    """Every link of a listing, to what is in it and up from there, leads to what is there."""
    for name in ODD_NAMES:
        path = os.path.join(server.lab.here("listed/of").encode(), name, b"in")
        put(server.lab, os.fsdecode(path), b"in " + name)
    with server.connect() as client:
        links = Page(client.get("/of/", host="listed.test").text).links
        assert len([href for href, _ in links if href.startswith("./")]) == len(ODD_NAMES)
        for href, _ in links:
            base = joined("/of/", href)
            answer = client.get(base, host="listed.test")
            assert answer.status == 200, href
            if not href.startswith("./"):
                continue
            inner = [link for link, _ in Page(answer.text).links]
            assert [client.get(joined(base, link), host="listed.test").status for link in inner] == [200] * len(inner)
            name = urllib.parse.unquote_to_bytes(base)[len("/of/"):-1]
            assert client.get(joined(base, "./in"), host="listed.test").body == b"in " + name


def test_listing_as_json(server):
    put(server.lab, "listed/json/a\".txt", b"12345")
    put(server.lab, "listed/json/sub/x", b"")
    put(server.lab, "listed/json/\udcff", b"1", PAST + 1)
    os.utime(server.lab.here("listed/json/sub"), (PAST, PAST))
    for query in ("?json", "?json=", "?json=1", "?x&json"):
        response = ask(server, "/json/" + query, host="listed.test")
        assert response.get("content-type") == "application/json"
        assert json.loads(response.body) == [
            {"name": "sub", "type": "directory", "modified": "1994-11-06T08:49:37Z"},
            {"name": "a\".txt", "type": "file", "size": 5, "modified": "1994-11-06T08:49:37Z"},
            {"name": "\ufffd", "type": "file", "size": 1, "modified": "1994-11-06T08:49:38Z"}]
    head = ask(server, "/json/?json", host="listed.test", method="HEAD")
    assert head.status == 200 and head.get("content-length") == str(len(response.body))


def test_listing_sorted(server):
    """By each column, both ways; directories first, those of a size by name."""
    for name, size, age in (("b", 3, 5), ("a", 20, 5), ("c", 100, 1), ("d", 3, 9)):
        put(server.lab, "listed/sorted/" + name, b"x" * size, PAST - age)
    for name, age in (("y", 1), ("z", 2)):
        os.makedirs(server.lab.here("listed/sorted/" + name))
        os.utime(server.lab.here("listed/sorted/" + name), (PAST - age, PAST - age))
    with server.connect() as client:
        for query, expected in (("", "yzabcd"), ("sort=name", "yzabcd"), ("sort=name&order=desc", "zydcba"),
                                ("order=desc", "zydcba"), ("sort=size", "yzbdac"), ("sort=size&order=desc", "yzcabd"),
                                ("sort=time", "zydabc"), ("sort=time&order=desc", "yzcabd"),
                                ("sort=no&order=up", "yzabcd")):
            response = client.get("/sorted/?json&" + query, host="listed.test")
            assert "".join(entry["name"] for entry in json.loads(response.body)) == expected, query
            page = Page(client.get("/sorted/?" + query, host="listed.test").text)
            assert "".join(href[2] for href, _ in page.links if href.startswith("./")) == expected, query
            for href, _ in page.links:
                if href.startswith("?"):
                    assert client.get("/sorted/" + href, host="listed.test").status == 200


def test_listing_of_the_root_and_of_nothing(server):
    os.makedirs(server.lab.here("listed/void"))
    put(server.lab, "listed/.well-known/x", b"x")
    put(server.lab, "listed/void/.well-known/x", b"x")
    names = [entry["name"] for entry in json.loads(ask(server, "/?json", host="listed.test").body)]
    assert ".well-known" in names and "void" in names
    assert ask(server, "/.well-known/", host="listed.test").status == 200
    assert ask(server, "/void/.well-known/", host="listed.test").status == 403
    assert json.loads(ask(server, "/void/?json", host="listed.test").body) == []
    assert "nothing here" in ask(server, "/void/", host="listed.test").text
    assert ask(server, "/void", host="listed.test").get("location") == "/void/"
    assert ask(server, "/none/", host="listed.test").status == 404


# What a path stands for.

def shown(response):
    assert response.status == 200, response
    return dict(line.split("=", 1) for line in response.text.splitlines())


@pytest.mark.parametrize("target", ["/articles/1", "/articles/1?x=y&z", "/articles/", "/bare/", "/bare",
                                    "/a%20b%2f?%20", "/page.html/", "/front.php.txt"])
def test_front_controller(server, target):
    """The program sees what was asked for, and runs as itself."""
    values = shown(ask(server, target, host="front.test"))
    query = target.partition("?")[2]
    assert values == {"REQUEST_METHOD": "GET", "REQUEST_URI": target, "SCRIPT_NAME": "/front.php", "PATH_INFO": "",
                      "SCRIPT_FILENAME": server.lab.here("app/front.php"), "QUERY_STRING": query, "body": ""}


def test_front_controller_gets_bodies(server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        values = shown(ask(server, "/articles", method=method, body=b"hello", host="front.test"))
        assert values["REQUEST_METHOD"] == method and values["body"] == "hello"
    response = ask(server, "/articles", method="HEAD", host="front.test")
    assert response.status == 200 and response.body == b""


def test_hidden_does_not_go_to_the_front_controller(server):
    """Whether it is there or not."""
    for target in ("/.env", "/.git/config", "/docs/.none", "/none.bak"):
        assert ask(server, target, host="front.test").status == 403, target


def test_directory_with_a_body(server):
    """The method stays, so that the body is sent again."""
    response = ask(server, "/blog?x=1", method="POST", body=b"hello", host="front.test")
    assert response.status == 308 and response.get("location") == "/blog/?x=1"


def test_what_is_there_comes_before_the_front_controller(server):
    assert ask(server, "/page.html", host="front.test").body == b"<p>a page\n"
    assert ask(server, "/docs/", host="front.test").body == b"<p>docs\n"
    response = ask(server, "/docs?x=1", host="front.test")
    assert response.status == 301 and response.get("location") == "/docs/?x=1"
    values = shown(ask(server, "/blog/?x=1", host="front.test"))
    assert values["SCRIPT_NAME"] == "/blog/index.php" and values["REQUEST_URI"] == "/blog/?x=1"
    assert values["SCRIPT_FILENAME"] == server.lab.here("app/blog/index.php")
    assert ask(server, "/blog", host="front.test").get("location") == "/blog/"
    assert shown(ask(server, "/front.php/more", host="front.test"))["PATH_INFO"] == "/more"
    assert shown(ask(server, "/", host="front.test"))["SCRIPT_NAME"] == "/front.php"
    assert ask(server, "/none.php", host="front.test").status == 404


def test_file_that_comes_and_goes(server):
    """What try finds is looked for each time."""
    with server.connect() as client:
        for content in (b"one", b"two"):
            assert shown(client.get("/coming.txt", host="front.test"))["SCRIPT_NAME"] == "/front.php"
            path = put(server.lab, "app/coming.txt", content)
            assert client.get("/coming.txt", host="front.test").body == content
            os.remove(path)


def test_other_words_of_try(server):
    values = shown(ask(server, "/a/b?c", host="info.test"))
    assert (values["SCRIPT_NAME"], values["PATH_INFO"], values["REQUEST_URI"]) == ("/front.php", "/extra", "/a/b?c")
    assert ask(server, "/page", host="words.test").body == b"<p>a page\n"
    assert ask(server, "/page", host="words.test").get("content-type") == "text/html; charset=utf-8"
    assert ask(server, "/page.html", host="words.test").body == b"<p>a page\n"
    for target in ("/none", "/bare", "/none/"):
        assert ask(server, target, host="words.test").status == 404
    assert ask(server, "/docs/", host="words.test").body == b"<p>docs\n"
    response = ask(server, "/none", host="own.test")
    assert response.status == 410 and response.body == b"<p>a page\n"


def test_routes_that_try_leads_to(lab):
    """Also one whose path looks like a directory's; a redirect goes by the path that leads to it."""
    lab.script("show", SHOW)
    put(lab, "root/page.txt", b"a page")
    server = lab.serve("""
        [site *]
        root = {root}
        try = $path $path/ /api/
        [route /api/*]
        gateway = cgi
        program = {cgi}/show
        [site moved.test]
        root = {root}
        try = $path /old/thing
        [route /old/*]
        gateway = redirect
        to = https://x.test/new/$rest
        """)
    assert ask(server, "/page.txt").body == b"a page"
    values = shown(ask(server, "/none/such?x"))
    assert values["REQUEST_URI"] == "/none/such?x" and values["SCRIPT_NAME"].startswith("/api")
    response = ask(server, "/abcdefghijkl", host="moved.test")
    assert response.status == 302 and response.get("location") == "https://x.test/new/thing"


def test_try_ends_with_no_status_that_needs_more(lab):
    """405 would have to name the methods."""
    config = lab.config("[site *]\nroot = {root}\ntry = $path =405\n")
    done = subprocess.run([BINARY, "check", "-c", config], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0 and "405" in done.stderr


# Error pages.

@pytest.mark.parametrize("host, target, status, body", [
    ("errors.test", "/nothing", 404, b"<p>own 404\n"), ("errors.test", "/cgi-bin/nothing", 404, b"<p>own 404\n"),
    ("errors.test", "/%zz", 400, None), ("errors.test", "/denied", 403, None),
    ("errors.test", "/cgi-bin/die.sh", 502, b"<p>own 5xx\n"), ("errors.test", "/", 403, None),
    ("broken.test", "/nothing", 404, None), ("broken.test", "/denied", 403, None),
    ("broken.test", "/cgi-bin/die.sh", 502, b"x" * 65536),
])
def test_error_page(server, host, target, status, body):
    """None: the server's own, for there is no such page of the site's."""
    response = ask(server, target, host=host)
    assert response.status == status and response.get("content-length") == str(len(response.body))
    assert (response.body == body) if body is not None else (str(status).encode() in response.body)
    assert response.get("etag") is None and response.get("last-modified") is None
    assert response.get("content-type") == "text/html; charset=utf-8"
    if status != 400:
        head = ask(server, target, method="HEAD", host=host)
        assert head.status == status and without(head) == without(response)


def test_error_page_of_a_class(server):
    response = ask(server, "/404.html", {"Range": "bytes=99-"}, host="errors.test")
    assert response.status == 416 and response.get("content-range") == "bytes */11"
    assert response.body == b"own 4xx\n" and response.get("content-type") == "text/plain; charset=utf-8"
    response = ask(server, "/404.html", {"If-Match": '"x"'}, host="errors.test")
    assert response.status == 412 and response.body == b"own 4xx\n"
    response = ask(server, "/404.html", {"Accept-Encoding": "identity;q=0"}, host="errors.test")
    assert response.status == 406 and response.body == b"own 4xx\n"


def test_errors_of_programs_are_theirs(server):
    response = ask(server, "/cgi-bin/own404.sh", host="errors.test")
    assert response.status == 404 and response.body == b"mine\n"


def test_error_page_of_a_method(server):
    response = ask(server, "/404.html", method="POST", body=b"x", host="errors.test")
    assert response.status == 405 and response.get("allow") and response.body == b"own 4xx\n"


def test_error_page_is_a_file_too(server):
    response = ask(server, "/404.html", host="errors.test")
    assert response.status == 200 and response.body == b"<p>own 404\n"
    for fields in ({"Range": "bytes=0-1"}, {"If-None-Match": response.get("etag")},
                   {"If-Modified-Since": response.get("last-modified")}):
        assert ask(server, "/nothing", fields, host="errors.test").body == b"<p>own 404\n"
    put(server.lab, "errors/404.html", b"<p>another")
    assert ask(server, "/nothing", host="errors.test").body == b"<p>another"
    put(server.lab, "errors/404.html", b"<p>own 404\n")


def test_error_page_that_is_none_is_told(server):
    ask(server, "/nothing", host="broken.test")
    server.wait_log("error_page", "/none.html")
    ask(server, "/denied", host="broken.test")
    server.wait_log("error_page", "/empty.html")


# Redirects by routes.

@pytest.mark.parametrize("target, status, location", [
    ("/old/a/b", 302, "/new/a/b"), ("/old", 302, "/new/"), ("/old/", 302, "/new/"), ("/old/a?x=y", 302, "/new/a?x=y"),
    ("/old/%0d%0aX-Injected:%201", 302, "/new/%0D%0AX-Injected:%201"), ("/old/a%20b%3Fc?", 302, "/new/a%20b%3Fc?"),
    ("/one", 302, "/two?x=y"), ("/one?a=b", 302, "/two?x=y"),
    ("/301/a", 301, "/a"), ("/303/a", 303, "/a"), ("/307/a", 307, "/a"), ("/308/a", 308, "/a"),
    ("/308//evil.test/x", 308, "/evil.test/x"), ("/308/%2f%2fevil.test/x", 308, "/evil.test/x"),
    ("/secure/a?b", 302, "https://moved.test/secure/a?b"),
])
def test_redirect(server, target, status, location):
    for method, body in (("GET", None), ("HEAD", None), ("POST", b"x" * 1000)):
        with server.connect() as client:
            response = client.request(method, target, body, host="moved.test")
            assert response.status == status and response.get("location") == location
            assert response.get("x-injected") is None and REFERENCE.match(location)
            if not response.closes:
                assert client.get("/ten.txt", host="moved.test").body == TEN


def test_redirect_to_another_port(server):
    assert ask(server, "/secure/", host="moved.test:8080").get("location") == "https://moved.test/secure/"


# Methods.

def methods(response):
    return set(re.split(r"\s*,\s*", response.get("allow")))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_methods(server, method):
    for target in ("/ten.txt", "/", "/bare/"):
        with server.connect() as client:
            response = client.request(method, target, b"body")
            assert response.status == 405 and methods(response) == {"GET", "HEAD", "OPTIONS"}
            if not response.closes:
                assert client.get("/ten.txt").body == TEN


def test_options(server):
    for target in ("/ten.txt", "/"):
        response = ask(server, target, method="OPTIONS")
        assert response.status in (200, 204) and response.body == b""
        assert methods(response) == {"GET", "HEAD", "OPTIONS"}
    response = ask(server, "*", method="OPTIONS")
    assert response.status in (200, 204) and {"GET", "HEAD", "OPTIONS"} <= methods(response)
    response = ask(server, "/ten.txt", {"Cookie": "secret"}, "TRACE")
    assert response.status == 405 and b"secret" not in response.body and response.get("allow")
