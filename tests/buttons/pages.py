"""A server of the built site, with a strict `Content-Security-Policy`, and pages that a browser has open."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.docs.browser import FOUND as CHROMIUM
from tests.docs.browser import Browser, Tab
from tests.docs.firefox import FOUND as FIREFOX
from tests.docs.firefox import Firefox, FirefoxTab
from ws_doctest._project import Project
from ws_doctest.buttons import Button, find_buttons

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = Path(os.environ["BUTTONS_SITE"])
LIMIT = 300.0  # seconds for whatever is waited for, on a machine that does much else

# What the buttons need, and nothing else. The theme has scripts and styles in its pages.
POLICY = {
    "default-src": "'self'",  # also what the theme fetches in advance
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self'",
    "connect-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def inline_scripts() -> str:
    """The hashes of the scripts that the theme puts into pages, as a policy names them."""
    hashes = set()
    for path in SITE.rglob("*.html"):
        for attributes, script in re.findall(
            r"<script([^>]*)>(.*?)</script>", path.read_text(encoding="utf-8"), re.DOTALL
        ):
            if "src=" not in attributes and "application/json" not in attributes:
                digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
                hashes.add(f"'sha256-{digest}'")
    return " ".join(sorted(hashes))


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class _Handler(SimpleHTTPRequestHandler):
    """Serves the site, and pages that a test has made."""

    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 - as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".gz": "application/octet-stream",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
    }

    def __init__(self, *arguments: Any, server_of: Server, **options: Any) -> None:
        self.of = server_of
        super().__init__(*arguments, directory=str(SITE), **options)

    def do_GET(self) -> None:
        self.of.may_answer[self.path].wait(LIMIT)
        answer = self.of.answers.get(self.path)
        if answer is None:
            super().do_GET()
            return
        status, body = answer
        if not status:  # as if there was no network
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("content-security-policy", self.of.policy)
        if not self.of.cached:
            self.send_header("cache-control", "no-store")  # what a test has changed is asked for again
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server:
    """A server of the site."""

    def __init__(self) -> None:
        self.cached = False  # whether browsers may keep what they have loaded
        self.scripts = inline_scripts()
        self.policy = self.make_policy()
        self.answers: dict[str, tuple[int, bytes]] = {}  # instead of files, by path; status 0: none
        self.may_answer: defaultdict[str, threading.Event] = defaultdict(_set_event)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, server_of=self))
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()

    def make_policy(self, **changes: str) -> str:
        """The policy with some directives changed, in the names of which `_` stands for `-`."""
        policy = {**POLICY, **{name.replace("_", "-"): value for name, value in changes.items()}}
        policy["script-src"] += f" {self.scripts}"
        return "; ".join(f"{name} {value}" for name, value in policy.items())

    def close(self) -> None:
        """End it."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class ChromiumTab(Tab):
    """A page in Chromium, and the workers that it starts."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.seen = len(browser.events)
        self.workers: list[str] = []
        super().__init__(browser, "about:blank#")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")

    def wait(self, condition: str) -> None:
        """Wait for an expression to be true."""
        if condition.startswith("document.readyState") and not hasattr(self, "ready"):
            self.ready = True  # the blank page, which is there
            return
        super().wait(condition)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        value = super().run(script)
        for event in self.browser.events[self.seen :]:
            if event["method"] == "Target.attachedToTarget" and event.get("sessionId") == self.session:
                session = event["params"]["sessionId"]
                self.workers.append(session)
                for method in ("Network.enable", "Log.enable", "Runtime.runIfWaitingForDebugger"):
                    self.browser.call(method, session)
        self.seen = len(self.browser.events)
        return value

    def press(self, key: str) -> None:
        """Press a key: a character, or `Enter` or `Tab`."""
        codes = {"Enter": 13, "Tab": 9, "Space": 32}
        text = {"Enter": "\r", "Tab": "", "Space": " "}.get(key, key)
        pressed = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": codes.get(key, ord(key[0])),
            "text": text,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def requests(self) -> list[str]:
        """The addresses of what the page and its workers have asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event["method"] == "Network.requestWillBeSent"
            and event.get("sessionId") in (self.session, *self.workers)
        ]


def chromium() -> Browser:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on PATH")
    return Browser(CHROMIUM)


def firefox() -> Firefox:
    if FIREFOX is None:
        pytest.skip("no Firefox on PATH")
    return Firefox(FIREFOX)


AnyTab = ChromiumTab | FirefoxTab
Open = Callable[[str], "Page"]


class Page:
    """A page with buttons.

    Args:
        tab: where it is open.
        host: the server's.
    """

    def __init__(self, tab: AnyTab, host: str) -> None:
        self.tab = tab
        self.host = host

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.tab.run(script)

    def wait(self, condition: str) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + LIMIT
        while not self.run(condition):
            if time.monotonic() > end:
                said = self.run("document.body.innerText")[:1000]
                raise TimeoutError(f"not within {LIMIT:g} s: {condition}\nThe page says:\n{said}")
            time.sleep(0.02)

    def place(self, file: str) -> str:
        """The expression for the element of an example."""
        return f"document.querySelector('.ws-run[data-example=\"{file}\"]')"

    def hosts(self) -> set[str]:
        """Whom the page and its workers have asked for anything."""
        return {urlsplit(address).netloc for address in self.tab.requests() if address[:5] != "data:"}

    def state(self, file: str) -> str:
        """What has come of it."""
        state: str = self.run(f"{self.place(file)}.dataset.state ?? ''")
        return state

    def text(self, file: str, part: str = "") -> str:
        """What a reader sees of it, or of a part of it."""
        place = f"{self.place(file)}.querySelector({part!r})" if part else self.place(file)
        text: str = self.run(f"{place}.innerText")
        return text

    def click(self, file: str, button: str) -> None:
        """Click one of its buttons."""
        found = (
            f"[...{self.place(file)}.querySelectorAll('button')].find((b) => b.textContent === {button!r})"
        )
        self.run(f"({found}).click() ?? null")

    def click_run(self, file: str) -> str:
        """Run it; return what has come of it."""
        self.run(f"{self.place(file)}.querySelector('.ws-run-main').click() ?? null")
        self.wait(f"!['', 'loading', 'running'].includes({self.place(file)}.dataset.state ?? '')")
        return self.state(file)

    def change(self, file: str, old: str, new: str) -> None:
        """Change the code."""
        code = f"{self.place(file)}.querySelector('.ws-run-code')"
        source: str = self.run(f"{code}.value")
        assert source.count(old) == 1, (old, source)
        self.fill(code, source.replace(old, new))

    def fill(self, field: str, text: str) -> None:
        """Fill a field, as typing does."""
        self.run(f"({field}.value = {text!r}, {field}.dispatchEvent(new Event('input')), null)")

    def say(self, file: str, lines: str) -> None:
        """Send lines."""
        self.fill(f"{self.place(file)}.querySelector('.ws-run-lines')", lines)
        self.click(file, "Send")

    def log(self, file: str) -> list[str]:
        """The session that the reader has made."""
        steps = f"{self.place(file)}.querySelector('[role=log]').children"
        log: list[str] = self.run(f"[...{steps}].map((step) => step.innerText.trim())")
        return log


def tab_of(browser: Browser | Firefox, address: str) -> AnyTab:
    return FirefoxTab(browser, address) if isinstance(browser, Firefox) else ChromiumTab(browser, address)


BUTTONS: list[Button] = find_buttons(Project(ROOT, [DOCS], [ROOT / "docs_src"]))
FILES = list(dict.fromkeys(button.file for button in BUTTONS if not button.reason))
