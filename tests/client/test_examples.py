"""The examples of the page *Browser client*, run as its readers run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets import Subprotocol
from websockets.sync.client import connect

from docs_src.guides.browser import room
from tests.client.conftest import LIMIT, PACKAGE
from tests.client.runtimes import InBrowser
from tests.docs.browser import Browser, Tab, Wire, chromium, wait_for
from tests.docs.firefox import FOUND as FIREFOX
from tests.docs.pages import parts

if "CLIENT_TOOLS" not in os.environ:
    pytest.skip("the packages of npm are not here: nox -s client", allow_module_level=True)

EXAMPLES = Path(room.__file__).parent
GUIDE = PACKAGE.parents[1] / "docs" / "guides" / "browser.md"


@pytest.fixture
def port() -> Iterator[int]:
    """Where the example runs."""
    server = uvicorn.Server(uvicorn.Config(room.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(LIMIT)
    assert not thread.is_alive()


SHOWN = "[...document.querySelectorAll('#messages li')].map((item) => item.textContent)"
STATE = "document.querySelector('#state').textContent"


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium or Chrome on PATH")
    browser = Browser(path)
    yield browser
    browser.close()


def test_the_room(browser: Browser, port: int) -> None:
    """What the tutorial promises, in two tabs, one of which loses its connection."""
    wire = Wire(port)
    try:
        ann = Tab(browser, f"http://127.0.0.1:{port}/?name=ann")
        bob = Tab(browser, f"http://{wire.address}/?name=bob")
        for tab in (ann, bob):
            tab.wait(f"{STATE} === 'open'")
        ann.type("input", "Hello")
        bob.wait(f"{SHOWN}.join() === 'ann: Hello'")
        wire.open = False
        wire.cut()
        bob.wait(f"{STATE} === 'waiting'")
        bob.type("input", "<b>from afar</b>")
        ann.type("input", "Where are you?")
        ann.wait(f"{SHOWN}.length === 2")
        wire.open = True
        wanted = ["ann: Hello", "ann: Where are you?", "bob: <b>from afar</b>"]
        for tab in (ann, bob):
            tab.wait(f"{SHOWN}.length === 3")
            assert tab.run(SHOWN) == wanted
        ann.type("input", "x" * 1001)
        ann.wait(f"{SHOWN}.length === 4")
        assert ann.run(SHOWN)[3] == "a message is text of 1 to 1,000 characters"
        for tab in (ann, bob):
            assert complaints(tab) == []
            tab.close()
    finally:
        wire.close()


@pytest.mark.skipif(FIREFOX is None, reason="no Firefox on PATH")
def test_the_room_in_firefox(port: int) -> None:
    page = f"http://127.0.0.1:{port}/?name=ann"
    tab = InBrowser("firefox", page, ready=f"{STATE} === 'open'")
    try:
        tab.run("document.querySelector('input').value = 'Hello'")
        tab.run("document.querySelector('button').click()")
        wait_for(lambda: tab.run(f"{SHOWN}.join() === 'ann: Hello'"))
    finally:
        tab.close()


def fences(language: str) -> list[Any]:
    """The fences of the page, without those that include a file."""
    return [
        pytest.param(part.text.split("\n", 1)[1].rsplit("\n", 1)[0], id=f"line {part.line}")
        for part in parts(GUIDE)
        if part.kind == "fence" and part.info == language and "{!>" not in part.text
    ]


# The names that the snippets use are there, and something to read.
BEFORE = """(async () => {
    const { connect } = await import("./client.js");
    window.connect = connect;
    window.client = connect("./ws", { params: { name: "ann" } });
    window.room = client.join("room:1", { presence: true });
    await room.publish("Hello");
    return "ready";
})()"""


@pytest.mark.parametrize("snippet", fences("js"))
def test_snippets(browser: Browser, port: int, snippet: str) -> None:
    """Each runs to its end in a page, and nothing fails."""
    tab = Tab(browser, f"http://127.0.0.1:{port}/client.js")  # an empty page of the same origin
    assert evaluate(tab, BEFORE) == "ready"
    assert evaluate(tab, f"(async () => {{ {snippet}\n return 'done'; }})()") == "done"
    assert evaluate(tab, "client.request('how many?')") == 1
    assert complaints(tab) == []


def test_a_snippet_that_fails(browser: Browser, port: int) -> None:
    """The test above would notice."""
    tab = Tab(browser, f"http://127.0.0.1:{port}/client.js")
    with pytest.raises(AssertionError, match="nobody is not defined"):
        evaluate(tab, "(async () => { nobody.join(1); })()")


def complaints(tab: Tab) -> list[str]:
    """What the browser complains about, except that the file it has opened has no icon."""
    return [text for text in tab.complaints() if "404" not in text]


def evaluate(tab: Tab, script: str) -> Any:
    answer = tab.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]["exception"]["description"]
    return answer["result"].get("value")


def test_react(browser: Browser, port: int, packed: Path) -> None:
    """The component in `StrictMode`, over a network that breaks: no message is lost, none comes twice."""
    shutil.copy(EXAMPLES / "room.jsx", packed)
    (packed / "main.jsx").write_text(
        textwrap.dedent(
            """
            import { StrictMode } from "react";
            import { createRoot } from "react-dom/client";
            import { connect } from "lilya-websockets";
            import { Room } from "./room.jsx";
            const client = connect(location.search.slice(1), { params: { name: "ann" } });
            const root = createRoot(document.body.appendChild(document.createElement("div")));
            const room = (name) => <StrictMode><Room client={client} name={name} /></StrictMode>;
            window.show = (name) => root.render(room(name));
            window.show("room:1");
            """
        )
    )
    command = ("node_modules/.bin/esbuild", "main.jsx", "--bundle", "--jsx=automatic", "--format=iife")
    done = subprocess.run(command, cwd=packed, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    wire = Wire(port)
    try:
        tab = Tab(browser, f"http://127.0.0.1:{port}/client.js?ws://{wire.address}/ws")
        tab.run("document.body.textContent = ''")
        tab.run(done.stdout)
        said = "[...document.querySelectorAll('li')].map((item) => item.textContent)"
        tab.wait("document.querySelector('p')?.textContent === 'open'")
        tab.type("input", "one")
        tab.wait(f"{said}.join() === 'ann: one'")
        wire.cut()
        tab.wait("document.querySelector('p')?.textContent === 'waiting'")
        tab.type("input", "two")
        tab.wait(f"{said}.length === 2")
        assert tab.run(said) == ["ann: one", "ann: two"]
        tab.run("show('room:2')")  # another channel, and back: its history comes once
        tab.wait(f"{said}.length === 0")
        tab.run("show('room:1')")
        tab.wait(f"{said}.length === 2")
        assert tab.run(said) == ["ann: one", "ann: two"]
        assert complaints(tab) == []
    finally:
        wire.close()


def test_in_node(port: int, packed: Path) -> None:
    script = Path(shutil.copy(EXAMPLES / "node.mjs", packed))
    with subprocess.Popen(
        ["node", str(script), f"ws://127.0.0.1:{port}/ws"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "node: Hello from Node\n"
            speak(port, "Hello, Node", "Bye")
            assert process.stdout.read() == "ann: Hello, Node\nann: Bye\n"
            assert process.wait(LIMIT) == 0  # it ends by itself
        finally:
            process.kill()


def speak(port: int, *texts: str) -> None:
    """Say something as somebody else."""
    address = f"ws://127.0.0.1:{port}/ws?name=ann"
    with connect(address, subprotocols=[Subprotocol("lilya.channels.v1")], proxy=None) as websocket:
        websocket.send(json.dumps({"type": "join", "channel": "room:1"}))
        for text in texts:
            message = {"type": "publish", "channel": "room:1", "key": os.urandom(8).hex(), "data": text}
            websocket.send(json.dumps(message))
            while json.loads(websocket.recv(LIMIT))["type"] != "published":
                pass


def test_in_python(port: int) -> None:
    """The script shows each message once, also what was said while its network was gone."""
    wire = Wire(port)
    command = [sys.executable, "listen.py", f"ws://{wire.address}/ws"]
    with subprocess.Popen(command, cwd=EXAMPLES, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            speak(port, "one")
            assert process.stdout.readline() == "ann: one\n"
            for number in range(5):
                wire.open = False
                wire.cut()
                speak(port, f"away {number}")
                wire.open = True
                assert process.stdout.readline() == f"ann: away {number}\n"
            speak(port, "end")
            assert process.stdout.readline() == "ann: end\n"
        finally:
            process.kill()
            wire.close()
