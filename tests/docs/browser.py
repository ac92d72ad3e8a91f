"""A headless Chromium, driven by its own DevTools protocol, and a network that breaks."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

LIMIT = 60.0  # seconds for whatever is waited for; it is a limit, nothing takes that long


def chromium() -> str | None:
    """The Chromium or Chrome on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


FOUND = chromium()
needs_chromium = pytest.mark.skipif(
    FOUND is None, reason="no Chromium or Chrome on PATH: nobody can open the page"
)


# For the connection over which a browser is driven. What a page does is told here, too, and read only at the
# next call: with a bound on what waits, or with pings at intervals, whose answers wait behind it, a page that
# does much while nobody calls would end the connection.
LINE: dict[str, Any] = {
    "proxy": None,
    "max_size": None,
    "max_queue": None,
    "ping_interval": None,
    "compression": None,
}


class Navigated(Exception):
    """The page went to another address meanwhile."""


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Wait for a browser that was told to end, and end what is left of its group."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Browser:
    """A running Chromium, with nobody's profile."""

    def __init__(self, path: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chromium-"))
        self.process = subprocess.Popen(
            [
                path,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
                f"--user-data-dir={self.folder}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, which can be ended as one
        )
        try:
            active = self.folder / "DevToolsActivePort"
            port, address = wait_for(lambda: active.exists() and active.read_text().split()[:2])
            url = f"ws://127.0.0.1:{port}{address}"
            self.stack = contextlib.ExitStack()
            self.line = self.stack.enter_context(connect(url, **LINE))
        except BaseException:
            self._end()
            raise
        self.calls = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params}
        self.line.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self.line.recv(timeout=LIMIT))
            if answer.get("id") == self.calls:
                break
            self.events.append(answer)
        error = answer.get("error")
        if error and error["message"] == "Inspected target navigated or closed":
            raise Navigated
        assert not error, (method, error)
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End it, and wait until it is gone."""
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self.stack.close()
        self._end()

    def _end(self) -> None:
        end_group(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)


class Tab:
    """One page in it."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, for this tab."""
        return self.browser.call(method, self.session, **params)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self._evaluate(script, False)

    def resolve(self, script: str) -> Any:
        """What the promise that is an expression's value resolves with."""
        return self._evaluate(script, True)

    def _evaluate(self, script: str, wait: bool) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=wait)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait for an expression to be true."""

        def holds() -> Any:
            try:
                return self.run(condition)
            except Navigated:  # by a redirect: ask the page that comes
                return False

        try:
            wait_for(holds)
        except TimeoutError:
            text = self.run("document.body.innerText")
            raise TimeoutError(f"not within {LIMIT:g} s: {condition}\nThe page says:\n{text}") from None

    def type(self, field: str, text: str) -> None:
        """Do what a person does: type a text into a field, and press the key that sends the form."""
        self.run(f"document.querySelector({field!r}).focus()")
        self.call("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def look(self, width: int, height: int, scheme: str) -> bytes:
        """A picture of the page, as a screen of that size shows it."""
        self.resize(width, height, scheme)
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Show it on a screen of that size, to somebody who likes it light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        # The site's pages learn of it later, and change their colours slowly.
        theirs = {"light": "default", "dark": "slate"}[scheme]
        self.wait(f"(document.body.dataset.mdColorScheme ?? {theirs!r}) === {theirs!r}")
        self.wait("document.getAnimations().every((each) => !(each instanceof CSSTransition))")

    def hosts(self) -> set[str]:
        """Whom the page has asked for anything."""
        asked = ("Network.requestWillBeSent", "Network.webSocketCreated")
        urls = [
            event["params"].get("url") or event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] in asked
        ]
        return {url.split("/")[2] for url in urls if not url.startswith("data:")}

    def complaints(self) -> list[str]:
        """What the browser complains about, but for connections that are lost."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                text = event["params"]["entry"]["text"]
                if "WebSocket" not in text and "net::ERR_" not in text:
                    found.append(text)
        return found

    def close(self) -> None:
        """Close it."""
        self.browser.call("Target.closeTarget", targetId=self.target)


class Wire:
    """A network between a client and a server, which can break.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = True  # whether connections are taken
        self.deaf = False  # whether what the server says is lost
        self.slow = False  # whether what the client says is on its way for long
        self.late: list[tuple[socket.socket, bytes]] = []  # what is on its way, and to whom
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.ends: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.port)) if self.open else None
                except OSError:
                    server = None
                if server is None:
                    client.close()
                    continue
                self.pairs.append((client, server))
                self.ends += [client, server]
                self._start(self._pump, client, server, False)
                self._start(self._pump, server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, from_server: bool) -> None:
        # A connection that has lost bytes says nothing more, and what follows late bytes is late, too: TCP
        # leaves no hole and keeps the order.
        lost = held = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_server:
                    lost = lost or self.deaf
                    if not lost:
                        target.sendall(data)
                else:
                    held = held or self.slow
                    if held:
                        self.late.append((target, data))
                    else:
                        target.sendall(data)
        if any(end in (source, target) for end, _ in self.late):
            return  # whoever sends what is late closes it, too
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Every connection is lost. The server does not know yet where something is on its way to it."""
        pairs, self.pairs = self.pairs, []
        for client, server in pairs:
            _drop(client)
            if not any(server is end for end, _ in self.late):
                _drop(server)

    def deliver(self) -> None:
        """What was on its way arrives, where somebody is still there."""
        late, self.late = self.late, []
        for server, data in late:
            with contextlib.suppress(OSError):
                server.sendall(data)
        for server in {server for server, _ in late}:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.late.clear()
        self.cut()
        for end in self.ends:
            end.close()
        for thread in self.threads:
            thread.join(LIMIT)


def _drop(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def wait_for(condition: Any) -> Any:
    """The first true value of a function that is asked again and again."""
    for pause in _pauses():
        found = condition()
        if found:
            return found
        time.sleep(pause)
    raise TimeoutError(f"not within {LIMIT:g} s")


def _pauses() -> Iterator[float]:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        yield 0.02
