"""The status page in a real browser, with scripts and without."""

import os
import re
import shutil
import socket

import pytest

from processes import wait_for
from remote import App

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("Debian's chromium and chromium-driver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="Debian's python3-selenium is not installed")

CONFIG = """
    [site *]
    root = {root}
    [route /fcgi/*]
    gateway = fastcgi
    pool = count
    [pool count]
    command = {cgi}/count
    pm = static
    pm.max_children = 3
    queue = 20
"""

HOSTILE = "/fcgi/a'&lt;b&gt;"


def open_browser(lab, scripts=True, dark=False):
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    profile = lab.here(f"profile-{len(os.listdir(lab.path))}")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                     "--window-size=1200,1400", "--disable-background-networking", "--disable-component-update",
                     f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


@pytest.fixture
def browse(lab):
    """Opens browsers, and sees to their end before the server's."""
    opened = []

    def browser(**how):
        opened.append(open_browser(lab, **how))
        return opened[-1]

    yield browser
    for one in opened:
        one.quit()


def cells(browser, pool="pool-0"):
    """What the cells of a pool say, in one look: an element that is found may be replaced before it is asked."""
    part = browser.page_source.partition(f'id="{pool}"')[2].partition("</section>")[0]
    return re.findall(r'<li class="(\w+)"[^>]*><b>\1', part)


def hold(server):
    """A request that keeps a process busy."""
    client = server.connect()
    client.send_request("GET", f"{HOSTILE}?wait={server.lab.here('go')}")
    assert client.read_head().status == 200
    return client


def test_page(lab, browse):
    server = lab.serve(CONFIG)
    server.get("/fcgi/")
    clients = [hold(server), hold(server)]
    browser = browse()
    browser.get(f"http://127.0.0.1:{server.port}/-/")
    assert browser.title == "gatehouse status"
    title = browser.find_element("css selector", "#pool-0 h2")
    assert title.text.startswith("count") and "2 of 3 processes busy" in title.text
    assert sorted(cells(browser)) in (["busy", "busy", "idle"], ["busy", "busy", "starting"])
    titles, colours, pictures, rows = browser.execute_script("""
        const all = selector => [...document.querySelectorAll(selector)];
        return [all('#pool-0 .cells li.busy').map(cell => cell.title),
                new Set(all('#pool-0 .cells li').map(cell => getComputedStyle(cell).backgroundColor)).size,
                all('#pool-0 svg[role=img]').length, all('#requests tr').map(row => row.innerText)];""")
    assert len(titles) == 2 and all(f": GET {HOSTILE}?wait=" in title for title in titles)
    assert colours == 2, "the style is not applied"
    assert pictures == 2
    assert len(rows) == 3 and all(f"{HOSTILE}?wait=" in row and "body" in row for row in rows[1:])
    # Nothing sticks out sideways, on a narrow screen neither.
    for width in (1200, 380):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []
    lab.file("go")
    del clients


@pytest.fixture
def app(lab):
    one = App("app", path=lab.here("application-with-a-socket-whose-path-is-long"))
    yield one
    for server in lab.servers:
        if not getattr(server, "is_ended", False):
            server.stop()
    one.stop()


def test_servers(lab, app, browse):
    """A cell for each, with its state in colour and in words, and its last failure."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        dead = f"127.0.0.1:{bound.getsockname()[1]}"
        server = lab.serve(f"""
            [site *]
            root = {{root}}
            [route /app/*]
            gateway = fastcgi
            pool = app
            [pool app]
            balance = round_robin
            max_fails = 1
            fail_timeout = 10m
            server = {app.address}
            server = {dead}
        """)
        for _ in range(2):
            assert server.get("/app/").text == "app"
        browser = browse()
        browser.get(f"http://127.0.0.1:{server.port}/-/")
        found = browser.execute_script("""
            return [...document.querySelectorAll('#pool-0 .servers li')].map(cell =>
                [cell.className, cell.innerText, cell.title, getComputedStyle(cell).backgroundColor]);""")
    (one, *down), (other, *up) = found
    assert (one, other) == ("down", "up")
    assert down[0].split("\n") == ["down · 0 busy", dead]
    assert up[0].split("\n") == ["up · 0 busy", app.address]
    assert "; last failure: Connection refused" in down[1] and "failure:" not in up[1]
    assert down[2] != up[2]
    for width in (1200, 380):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_live(lab, browse):
    """The parts change without the page being loaded anew, and what was opened stays open."""
    server = lab.serve(CONFIG)
    browser = browse()
    browser.get(f"http://127.0.0.1:{server.port}/-/")
    browser.execute_script("window.isThePageOfBefore = true")
    wait_for(lambda: browser.find_element("id", "live").text == "live", "the first event")
    browser.find_element("css selector", "#pool-0 .limits summary").click()
    client = hold(server)
    wait_for(lambda: "busy" in cells(browser), "a busy cell")
    wait_for(lambda: browser.execute_script("return document.getElementById('requests').innerText").find(HOSTILE) >= 0,
             "its request")
    assert browser.execute_script("return document.querySelector('#pool-0 .limits').open")
    lab.file("go")
    wait_for(lambda: "busy" not in cells(browser), "no busy cell")
    assert browser.execute_script("return window.isThePageOfBefore") is True
    assert browser.get_log("browser") == []
    client.close()


def test_without_scripts(lab, browse):
    """It is loaded anew by itself."""
    server = lab.serve(CONFIG)
    browser = browse(scripts=False)
    browser.get(f"http://127.0.0.1:{server.port}/-/")
    assert len(cells(browser)) == 3 and "busy" not in cells(browser)
    assert browser.find_element("id", "live").text == ""
    client = hold(server)
    wait_for(lambda: "busy" in cells(browser), "the page to be loaded anew")
    lab.file("go")
    client.close()


def test_dark(lab, browse):
    server = lab.serve(CONFIG)
    colours = []
    for dark in (False, True):
        browser = browse(dark=dark)
        browser.get(f"http://127.0.0.1:{server.port}/-/")
        colours.append(browser.find_element("tag name", "body").value_of_css_property("background-color"))
    assert colours[0] != colours[1]
    assert sum(map(int, colours[1].strip("rgba()").split(",")[:3])) < 150
