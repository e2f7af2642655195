"""Applications that people run: git over HTTP, gitweb, DokuWiki. What git's own client, a browser's steps and tar say
of the answers counts. Applications that are FastCGI servers of their own are in test_fastcgi_applications.py."""

import glob
import hashlib
import html
import io
import os
import re
import shutil
import subprocess
import tarfile
from contextlib import closing
from urllib.parse import quote_plus

import pytest

from processes import wait_for
from server import Lab
from test_gateways import listener

# git.

GIT = """
    [site *]
    root = {root}

    [route /cgi/*]
    gateway = cgi
    program = /usr/lib/git-core/git-http-backend
    env[GIT_PROJECT_ROOT] = {path}/git
    env[GIT_HTTP_EXPORT_ALL] = 1
    env[REMOTE_USER] = x
    timeout = 120s
    idle_timeout = 60s

    [route /wrapped/*]
    gateway = fastcgi
    pool = wrap
    env[SCRIPT_FILENAME] = /usr/lib/git-core/git-http-backend
    env[GIT_PROJECT_ROOT] = {path}/git
    env[GIT_HTTP_EXPORT_ALL] = 1
    env[REMOTE_USER] = x
    timeout = 120s
    idle_timeout = 60s

    [pool wrap]
    server = unix:{path}/app.sock
    max_connections = 2
"""

N_BRANCHES = 1500  # each is some 50 bytes of a fetch's request: more than 65,536 in all

BOTH = pytest.mark.parametrize("way", ["cgi", "wrapped"])


class Git:
    """git's commands, with what its HTTP client sent in .trace."""

    def __init__(self, lab):
        self.lab = lab
        self.trace = ""
        os.makedirs(lab.here("home"), exist_ok=True)

    def run(self, *arguments, cwd=None, code=0, stdin=b""):
        trace = self.lab.here("trace-" + os.urandom(4).hex())
        env = {"PATH": os.environ["PATH"], "HOME": self.lab.here("home"), "GIT_CONFIG_NOSYSTEM": "1",
               "GIT_TERMINAL_PROMPT": "0", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
               "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
               "GIT_TRACE_CURL": trace, "GIT_TRACE_CURL_NO_DATA": "1"}
        done = subprocess.run(["git", *arguments], cwd=cwd, env=env, input=stdin, capture_output=True, timeout=120,
                              check=False)
        assert done.returncode == code, done.stderr
        self.trace = ""
        if os.path.exists(trace):
            with open(trace, encoding="utf-8") as file:
                self.trace = file.read().lower()
        self.complaints = done.stderr.decode()
        return done.stdout.decode().strip()

    def refs(self, cwd, where):
        return self.run("for-each-ref", "--format=%(objectname) %(refname:lstrip=-1)", where, cwd=cwd)

    def has_sent(self, field):
        return f"send header: {field}" in self.trace


@pytest.fixture(scope="module")
def server(shared_lab):
    """A repository of many branches, and some megabytes on its main one."""
    lab, git = shared_lab, Git(shared_lab)
    commits = []
    for n in range(N_BRANCHES):
        commits.append(f"commit refs/heads/b{n}\ncommitter a <a@b> {n + 1} +0000\ndata 1\nx\n"
                       f"M 644 inline file\ndata {len(str(n))}\n{n}\n\n".encode())
    big = os.urandom(4 << 20)
    commits.append(b"commit refs/heads/main\ncommitter a <a@b> 9 +0000\ndata 1\nm\nM 644 inline big\ndata %d\n%b\n\n" %
                   (len(big), big))
    bare = lab.here("git/many.git")
    git.run("init", "-q", "--bare", "-b", "main", bare)
    git.run("fast-import", "--quiet", cwd=bare, stdin=b"".join(commits))
    git.run("config", "http.receivepack", "true", cwd=bare)
    listening, _ = listener(lab, "unix")
    lab.helper(["fcgiwrap", "-f", "-c", "2"], stdin=listening)
    listening.close()
    return lab.serve(GIT)


@pytest.fixture
def git(server):
    return Git(server.lab)


def url_of(server, way, name="many.git"):
    return f"http://127.0.0.1:{server.port}/{way}/{name}"


@BOTH
@pytest.mark.parametrize("framing", ["gzip", "chunked"])
def test_git_clone(server, git, way, framing):
    """The request for all branches is compressed, or, when it does not fit into the client's buffer, in chunks."""
    folder = server.lab.here(f"clone-{way}-{framing}")
    git.run("-c", f"http.postBuffer={65536 if framing == 'chunked' else 1 << 20}", "clone", "-q",
            url_of(server, way), folder)
    field = "content-encoding: gzip" if framing == "gzip" else "transfer-encoding: chunked"
    assert git.has_sent(field), git.trace[-3000:]
    found = set(git.refs(folder, "refs/remotes/origin").splitlines())
    there = set(git.refs(server.lab.here("git/many.git"), "refs/heads").splitlines())
    assert len(there) > N_BRANCHES and {line for line in found if not line.endswith((" HEAD", " origin"))} == there
    git.run("fsck", "--strict", cwd=folder)


@BOTH
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_git_push(server, git, way, framing):
    lab, name = server.lab, f"pushed-{way}-{framing}"
    folder, bare = lab.here(name), lab.here(f"git/{name}.git")
    git.run("init", "-q", "--bare", bare)
    git.run("config", "http.receivepack", "true", cwd=bare)
    git.run("init", "-q", "-b", "main", folder)
    content = os.urandom(6 << 20)
    lab.file(f"{name}/big", content)
    git.run("add", ".", cwd=folder)
    git.run("commit", "-q", "-m", "big", cwd=folder)
    git.run("-c", f"http.postBuffer={65536 if framing == 'chunked' else 32 << 20}", "push", "-q",
            url_of(server, way, f"{name}.git"), "main", cwd=folder)
    assert git.has_sent("transfer-encoding: chunked") == (framing == "chunked")
    assert git.run("rev-parse", "main", cwd=bare) == git.run("rev-parse", "main", cwd=folder)
    git.run("fsck", "--strict", cwd=bare)
    record, = wait_for(lambda: [record for record in server.records() if record["bytes_in"] > len(content) and
                                f"{name}.git/git-receive-pack" in record["uri"]], "the push in the access log")
    assert record["status"] == 200


@BOTH
def test_git_fetch_of_news(server, git, way):
    """Thousands of lines of what the client has already."""
    lab, name = server.lab, f"news-{way}"
    folder, bare = lab.here(name), lab.here(f"git/{name}.git")
    shutil.copytree(lab.here("git/many.git"), bare)
    git.run("clone", "-q", "--mirror", bare, folder)
    tip = git.run("commit-tree", "-p", "main", "-m", "news", "main^{tree}", cwd=bare)
    git.run("update-ref", "refs/heads/main", tip, cwd=bare)
    git.run("fetch", "-q", url_of(server, way, f"{name}.git"), "main", cwd=folder)
    assert git.has_sent("content-encoding: gzip")
    assert git.run("rev-parse", "FETCH_HEAD", cwd=folder) == tip


@BOTH
def test_git_refuses(server, git, way):
    """A hook's words reach the client; a repository that is not there is 404, with git's complaint in the log."""
    lab, name = server.lab, f"refused-{way}"
    bare = lab.here(f"git/{name}.git")
    shutil.copytree(lab.here("git/many.git"), bare)
    lab.file(f"git/{name}.git/hooks/pre-receive", b"#!/bin/sh\necho 'not on a monday' >&2\nexit 1\n", 0o755)
    git.run("push", url_of(server, way, f"{name}.git"), "main:refs/heads/new", cwd=bare, code=1)
    assert "remote: not on a monday" in git.complaints and "pre-receive hook declined" in git.complaints
    response = server.get(f"/{way}/nothing.git/info/refs?service=git-upload-pack")
    assert response.status == 404
    assert "nothing.git" in server.wait_log(response.id, "Not a git repository")


# gitweb.

GITWEB = """
    [site *]
    root = {root}

    [route /gitweb/*]
    gateway = cgi
    program = /usr/share/gitweb/gitweb.cgi
    env[GITWEB_CONFIG] = {path}/gitweb.conf
    timeout = 60s
    idle_timeout = 60s
"""


@pytest.fixture(scope="module")
def gitweb(apps):
    """A project with two commits, the second of which changes a line; a big file of its own is for its archive."""
    with closing(Lab(apps)) as lab:
        make_project(lab)
        yield lab.serve(GITWEB)


def make_project(lab):
    git = Git(lab)
    shutil.copytree("/usr/share/gitweb/static", lab.here("root/static"))
    lab.file("gitweb.conf", f"""
        our $projectroot = '{lab.path}/web';
        our @stylesheets = ('/static/gitweb.css');
        our $javascript = '/static/gitweb.js';
        our $logo = '/static/git-logo.png';
        our $favicon = '/static/git-favicon.png';
        $feature{{'snapshot'}}{{'default'}} = ['tgz'];
        $feature{{'pathinfo'}}{{'default'}} = [1];
        1;
        """)
    work = lab.here("web-work")
    git.run("init", "-q", "-b", "main", work)
    lab.file("web-work/folder/some & <odd> name.txt", "first line\nsecond line\n")
    lab.file("web-work/big", os.urandom(3 << 20))
    for message in ("the beginning", "a change"):
        git.run("add", ".", cwd=work)
        git.run("commit", "-q", "-m", message, cwd=work)
        lab.file("web-work/folder/some & <odd> name.txt", "first line\nother line\n")
    git.run("clone", "-q", "--bare", work, lab.here("web/project.git"))
    lab.file("web/project.git/description", "A project for gitweb\n")


def page(server, target):
    response = server.get(target)
    assert response.status == 200, response
    assert response.get("content-type").startswith(("text/html", "application/xhtml+xml"))
    assert response.text.rstrip().endswith("</html>")
    return html.unescape(re.sub(r"<[^>]*>", "", response.text)).replace("\xa0", " ")  # what a reader sees


def test_gitweb_pages(gitweb):
    assert "A project for gitweb" in page(gitweb, "/gitweb/")
    summary = page(gitweb, "/gitweb/project.git")
    assert "A project for gitweb" in summary and "a change" in summary and "the beginning" in summary
    for link in ("/gitweb/project.git/tree", "/gitweb/?p=project.git;a=tree;hb=main;f=folder"):
        assert ("some & <odd> name.txt" if "f=" in link else "folder") in page(gitweb, link)
    change = page(gitweb, "/gitweb/project.git/commitdiff/main")
    assert "-second line" in change and "+other line" in change


def test_gitweb_follows_its_own_links(gitweb):
    """The names that it makes of SCRIPT_NAME and PATH_INFO lead where they should."""
    tree = gitweb.get("/gitweb/project.git/tree/main:/folder").text
    links = [html.unescape(link).replace(" ", "%20") for link in re.findall(r'href="([^"]+)"', tree)]
    blob, = {link for link in links if "/blob/" in link and "odd" in link}
    assert blob.startswith("/gitweb/project.git/") and "other line" in page(gitweb, blob)
    plain = gitweb.get(blob.replace("/blob/", "/blob_plain/"))
    assert plain.body == b"first line\nother line\n" and plain.get("content-type").startswith("text/plain")
    assert 'some & <odd> name.txt"' in plain.get("content-disposition")


def test_gitweb_snapshot(gitweb):
    response = gitweb.get("/gitweb/project.git/snapshot/main.tar.gz")
    assert response.status == 200 and response.get("content-type").startswith("application/x-gzip")
    with tarfile.open(fileobj=io.BytesIO(response.body), mode="r:gz") as archive:
        names = {name.partition("/")[2]: name for name in archive.getnames()}
        for name in ("big", "folder/some & <odd> name.txt"):
            with open(gitweb.lab.here(f"web-work/{name}"), "rb") as file:
                content = file.read()
            if name != "big":
                content = b"first line\nother line\n"
            assert archive.extractfile(names[name]).read() == content


def test_gitweb_fails_as_it_says(gitweb):
    assert gitweb.get("/gitweb/?p=nothing.git;a=summary").status == 404
    assert gitweb.get("/gitweb/project.git/nonsense").status in (400, 404)
    response = gitweb.request("HEAD", "/gitweb/project.git")
    assert response.status == 200 and response.body == b""


def test_gitweb_static_files(gitweb):
    for link in set(re.findall(r'"(/static/[^"]+)"', gitweb.get("/gitweb/").text)):
        with open("/usr/share/gitweb" + link, "rb") as file:
            assert gitweb.get(link).body == file.read()


# DokuWiki.

DOKUWIKI = """
    [site *]
    root = {root}/wiki
    index = index.php doku.php

    [route /inc/*]
    gateway = deny

    [route *.php]
    gateway = fastcgi
    pool = php
    idle_timeout = 60s

    [pool php]
    command = php-cgi -d session.save_path={path}/sessions -d upload_tmp_dir={path}/sessions -d display_errors=0
    pm = static
    pm.max_children = 2
"""

PASSWORD = "correct horse & battery <staple>"


@pytest.fixture(scope="module")
def wiki(apps):
    """Debian's DokuWiki, with its programs, its configuration and its data all in the lab."""
    with closing(Lab(apps)) as lab:
        make_wiki(lab)
        yield lab.serve(DOKUWIKI)


def make_wiki(lab):
    conf, data = lab.here("wiki-conf"), lab.here("wiki-data")
    shutil.copytree("/usr/share/dokuwiki", lab.here("root/wiki"), ignore_dangling_symlinks=True,
                    ignore=shutil.ignore_patterns(".htaccess*", "testing"))
    os.makedirs(lab.here("sessions"))
    os.mkdir(conf)
    for path in glob.glob("/etc/dokuwiki/*"):
        if os.path.isfile(path) and os.stat(path).st_mode & 0o004 and "auth" not in path and "local" not in path:
            shutil.copy(path, conf)
    for name in "attic cache index locks log media media_attic media_meta meta pages tmp".split():
        os.makedirs(os.path.join(data, name))
    preload = lab.here("root/wiki/inc/preload.php")
    with open(preload, encoding="utf-8") as file:
        text = file.read()
    assert "'/etc/dokuwiki/'" in text
    lab.file("root/wiki/inc/preload.php", text.replace("/etc/dokuwiki", conf))
    lab.file("wiki-conf/local.php", f"""<?php
        $conf['title'] = 'A wiki in a lab'; $conf['savedir'] = '{data}'; $conf['useacl'] = 1;
        $conf['superuser'] = '@admin'; $conf['passcrypt'] = 'sha1'; $conf['updatecheck'] = 0;
        """)
    lab.file("wiki-conf/acl.auth.php", "*\t@ALL\t1\n*\t@user\t8\n")
    hashed = hashlib.sha1(PASSWORD.encode()).hexdigest()
    lab.file("wiki-conf/users.auth.php", f"writer:{hashed}:A Writer:writer@example.org:user\n")


class Browser:
    """Keeps cookies, and fills in forms."""

    def __init__(self, server):
        self.server = server
        self.cookies = {}

    def request(self, method, target, body=None, kind=None):
        fields = [("Content-Type", kind)] if kind else []
        if self.cookies:
            fields.append(("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        response = self.server.request(method, target, body, fields=fields)
        for line in response.all("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response

    def get(self, target):
        return self.request("GET", target)

    def post(self, target, form):
        body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in form.items()).encode()
        return self.request("POST", target, body, "application/x-www-form-urlencoded")

    def upload(self, target, form, field, name, content):
        border = b"border" + os.urandom(8).hex().encode()
        parts = [b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (key.encode(), value.encode())
                 for key, value in form.items()]
        parts.append(b'Content-Disposition: form-data; name="%b"; filename="%b"\r\n'
                     b"Content-Type: application/zip\r\n\r\n%b" % (field.encode(), name.encode(), content))
        body = b"".join(b"--%b\r\n%b\r\n" % (border, part) for part in parts) + b"--%b--\r\n" % border
        return self.request("POST", target, body, f"multipart/form-data; boundary={border.decode()}")

    @staticmethod
    def hidden(response):
        """The hidden fields of a page's forms."""
        found = {}
        for field in re.findall(r"<input[^>]*>", response.text):
            if re.search(r'type="hidden"', field):
                value = re.search(r'value="([^"]*)"', field)
                found[re.search(r'name="([^"]*)"', field)[1]] = html.unescape(value[1]) if value else ""
        return found


@pytest.fixture
def writer(wiki):
    """Somebody who has logged in."""
    browser = Browser(wiki)
    form = browser.hidden(browser.get("/doku.php?id=start&do=login"))
    browser.post("/doku.php?id=start&do=login",
                 {"sectok": form["sectok"], "id": "start", "do": "login", "u": "writer", "p": PASSWORD})
    assert "A Writer" in browser.get("/doku.php?id=start").text
    return browser


def test_dokuwiki_refuses_strangers(wiki):
    browser = Browser(wiki)
    assert browser.get("/").get("location") == "/doku.php?id=start"
    assert "A wiki in a lab" in browser.get("/doku.php?id=start").text
    answer = browser.post("/doku.php?id=start&do=login", {"id": "start", "do": "login", "u": "writer", "p": "wrong"})
    assert "Sorry, username or password was wrong" in answer.text
    assert "wiki__text" not in browser.get("/doku.php?id=strange&do=edit").text
    assert wiki.get("/inc/preload.php").status in (403, 404)


def test_dokuwiki_edit(writer):
    """Log in, write a page, see it. Without the form's token nothing is written."""
    words = "Ümläute & <tags> " + os.urandom(8).hex()
    form = writer.hidden(writer.get("/doku.php?id=news:today&do=edit"))
    text = f"====== A headline ======\n\n**{words}**\n"
    fields = {**form, "wikitext": text, "summary": "written", "do[save]": "1"}
    answer = writer.post("/doku.php?id=news:today", {**fields, "sectok": "0" * 32})
    assert words not in html.unescape(writer.get("/doku.php?id=news:today").text)
    answer = writer.post("/doku.php?id=news:today", fields)
    assert answer.status == 302 and "news:today" in answer.get("location"), answer
    seen = html.unescape(writer.get("/doku.php?id=news:today").text)
    assert f"<strong>{words}</strong>" in seen and "A headline</h1>" in seen
    assert writer.get("/doku.php?id=news:today&do=export_raw").text == text


def test_dokuwiki_upload(writer):
    content = os.urandom(1_500_000)
    name = f"file-{os.urandom(4).hex()}.zip"
    form = writer.hidden(writer.get("/lib/exe/mediamanager.php?ns=box"))
    answer = writer.upload("/lib/exe/mediamanager.php", {"sectok": form["sectok"], "ns": "box", "mediaid": name},
                           "upload", name, content)
    assert answer.status in (200, 302) and "Upload successful" in (
        answer.text if answer.status == 200 else writer.get(answer.get("location")).text)
    again = writer.get(f"/lib/exe/fetch.php?media=box:{name}")
    assert again.status == 200 and again.body == content and int(again.get("content-length")) == len(content)
    assert not Browser(writer.server).get(f"/lib/exe/fetch.php?media=box:{name}x").status == 200


def test_dokuwiki_styles(wiki):
    """Its style sheet and script are made by PHP programs, its pictures are files."""
    text = html.unescape(wiki.get("/doku.php?id=start").text)
    links = set(re.findall(r'(?:href|src)="(/lib/(?:exe/(?:css|js)\.php|tpl)[^"]*)"', text))
    assert any("css.php" in link for link in links) and any("js.php" in link for link in links)
    for link in links:
        response = wiki.get(link)
        assert response.status == 200 and response.body, link
